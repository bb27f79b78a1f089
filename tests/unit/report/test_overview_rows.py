"""Tables of a run in which components of the user's tell about themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eyas.callbacks import Callback, ClipGradNorm, Decision, Freeze, Schedule
from eyas.report.overview import GROUP_HEADER, decision_rows, group_rows, stage_rows
from eyas.run.protocol import FrozenSpan, Run, Stage
from small_run import SmallRun


class Teacher(Callback):
    """A component that has something to say in every table."""

    decides = Decision.SCHEDULE

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"teacher": "large", "schedule": "steps of my own"}

    def stages(self, trainer: Run) -> list[Stage]:
        return [Stage("teacher helps", 0, trainer.epochs / 2)]

    def frozen_spans(self, trainer: Run) -> list[FrozenSpan]:
        return [FrozenSpan(frozenset({"model.2.weight"}), " for a while")]

    def clip_text(self, trainer: Run) -> str:
        return "by hand"


class Silent(Callback):
    decides = "the learning-rate schedule"  # in words, as good as the member

    def adjust_schedule(self, trainer: Run, multiplier: float) -> float:
        return multiplier / 2


def groups(run: SmallRun) -> dict[str, dict[str, Any]]:
    return {row[0]: dict(zip(GROUP_HEADER, row, strict=True)) for row in group_rows(run)}


def test_what_a_users_component_tells_stands_in_the_tables() -> None:
    run = SmallRun(Teacher(), ClipGradNorm(0.5), epochs=4)
    assert ["teacher helps", "0 - 2", "0% - 50%", "##########.........."] in stage_rows(run)
    rows = groups(run)
    assert rows["weight"]["learning rate"] == "0.05 x steps of my own"
    assert rows["weight"]["clip"] == "by hand, norm 0.5"
    assert [rows[name]["frozen"] for name in ("weight", "bias")] == ["1 of 3 for a while", "-"]
    assert ("teacher", "large", "component Teacher") in decision_rows(run)


def test_a_component_that_tells_nothing_is_known_by_its_name_and_adjusters() -> None:
    run = SmallRun(Silent())
    assert groups(run)["weight"]["learning rate"] == "0.05 x Silent"
    assert ("adjust_schedule", "Silent.adjust_schedule()", "component Silent") in decision_rows(run)
    assert [row[0] for row in stage_rows(run)] == ["average takes hold"]


def test_stages_of_a_run() -> None:
    run = SmallRun(Freeze(phases=[{"what": "backbone", "epochs": 1}, {"what": 1, "start": 2}]), warmup_batches=3)
    run.plan = replace(run.plan, close_mosaic=2)
    run.fit(until=0)
    assert [row[:3] for row in stage_rows(run)] == [
        ["warm-up", "0 - 1", "0% - 17%"],
        ["average takes hold", "0 - 2", "0% - 33%"],
        ["backbone frozen", "0 - 1", "0% - 17%"],
        ["1 frozen", "2 - 6", "33% - 100%"],
        ["with mosaic", "0 - 4", "0% - 67%"],
        ["without mosaic", "4 - 6", "67% - 100%"],
    ]


def test_a_schedule_of_progress_is_named() -> None:
    def halves(progress: Any) -> float:
        return 0.5

    assert groups(SmallRun(Schedule(halves)))["bias"]["learning rate"] == "0.05 x halves(progress)"
