"""A study over trainings of a few numbers whose best options are known: a bowl around lr0 = 0.01."""

from __future__ import annotations

import csv
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eyas.config import TrainOptions, resolve
from eyas.launch.interrupt import Interrupted
from eyas.run.tracking import TrainingDiverged
from eyas.train import TrainResult
from eyas.train.folder import FolderInUse, sole_writer
from eyas.tune import Search, parse_space, report, run_search
from eyas.tune.report import Row, best_first
from eyas.tune.storage import opened
from eyas.tune.watch import Watch
from small_run import SmallRun

pytest.importorskip("optuna", reason="Optuna is in the dev extra")

SPACE = {"lr0": {"low": 1e-4, "high": 1.0, "log": True}, "mosaic": [0.0, 1.0]}
EPOCHS = 5
Train = Callable[[TrainOptions, Watch], TrainResult]


def bowl(options: TrainOptions) -> float:
    """At most 1, where lr0 = 0.01 and mosaic = 1."""
    return 1 - (math.log10(options.lr0) + 2) ** 2 / 10 - 0.1 * (1 - options.mosaic)


def train(options: TrainOptions, watch: Watch) -> TrainResult:
    """What a training is to a study: validations one after the other, each nearer to the value of its options."""
    run = SmallRun(watch, epochs=EPOCHS)
    run.fire("on_pretrain_routine_end")
    while not run.stop and run.epoch < EPOCHS:
        run.validated({}, fitness=bowl(options) - 1 / (run.epoch + 1))
        run.epoch += 1
    return result_of(run, Path(options.save_dir or options.resume))


def train_briefly(options: TrainOptions, watch: Watch) -> TrainResult:
    """One validation, for tests that look at what is tried."""
    run = SmallRun(watch, epochs=1)
    run.fire("on_pretrain_routine_end")
    run.validated({}, fitness=bowl(options))
    run.epoch += 1
    return result_of(run, Path(options.save_dir or options.resume))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Draw no picture, which takes longer than most of these studies, but for the test that looks at it."""
    if request.node.name != "test_it_finds_what_is_best_and_gives_up_what_is_behind":
        monkeypatch.setattr(report, "save_search_picture", lambda *_, **__: None)


def result_of(run: SmallRun, folder: Path) -> TrainResult:
    where = {"save_dir": folder, "best": folder / "best.pt", "last": folder / "last.pt"}
    return TrainResult({}, run.best_fitness, run.best_epoch, run.epoch, **where, history=[], plan=run.plan)


def asked(folder: Path, **changes: Any) -> Search:
    options = resolve(call={"model": "yolo26n", "data": "digits", "seed": 3, "verbose": False})
    given = {"options": options, "space": parse_space(SPACE), "file": folder / "study.db", "trials": 4}
    return Search(**given | changes)


def tried(rows: list[Row]) -> list[Any]:
    return [dict(row.values) for row in rows if row.state != "lost"]


def test_it_finds_what_is_best_and_gives_up_what_is_behind(tmp_path: Path) -> None:
    found = run_search(asked(tmp_path, trials=16), train)
    assert found.best is not None
    assert found.best.value == pytest.approx(bowl(TrainOptions(**found.best.values)) - 1 / EPOCHS)
    assert found.best.value == max(row.value for row in found.rows if row.state == "complete")
    assert found.best.value > 0.7 and found.best.values["mosaic"] == 1.0
    states = [row.state for row in found.rows]
    assert "pruned" not in states[:5] and set(states) == {"complete", "pruned"}
    assert {row.epochs for row in found.rows if row.state == "complete"} == {EPOCHS}
    given_up = [row for row in found.rows if row.state == "pruned"]
    assert all(1 < row.epochs < EPOCHS for row in given_up), "not in the first fifth, nor behind the last epoch"
    assert {row.seed for row in found.rows} == {3}

    options = resolve(cli={"cfg": str(found.folder / "best.yaml")})
    assert {name: options.get(name) for name in SPACE} == found.best.values
    assert (options.model, options.data, options.seed) == ("yolo26n", "digits", 3)
    with (found.folder / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["lr0"]) for row in table] == [row.values["lr0"] for row in found.rows]
    assert (found.folder / "options.png").stat().st_size > 10_000


def test_all_trials_come_to_an_end_without_pruning(tmp_path: Path) -> None:
    found = run_search(asked(tmp_path, trials=9, prune=False), train)
    assert [row.state for row in found.rows] == ["complete"] * 9


def test_stopped_and_taken_up_it_is_the_study_that_was_not_stopped(tmp_path: Path) -> None:
    straight = run_search(asked(tmp_path / "straight", trials=12), train_briefly)
    began: list[int] = []

    def stopped_twice(options: TrainOptions, watch: Watch) -> TrainResult:
        began.append(watch.number)
        if began.count(watch.number) == 1 and watch.number in (2, 12):  # while drawing blindly, and by what is known
            raise KeyboardInterrupt
        return train_briefly(options, watch)

    for done in (2, 11):
        with pytest.raises(Interrupted, match=f"{done} of 12 trials are done.*had saved nothing.*same command"):
            run_search(asked(tmp_path / "twice", trials=12), stopped_twice)
    twice = run_search(asked(tmp_path / "twice", trials=12), stopped_twice)
    assert tried(twice.rows) == tried(straight.rows)
    assert len({values["lr0"] for values in tried(straight.rows)}) == 12
    assert [row.state for row in twice.rows].count("lost") == 2


def test_a_trial_that_saved_itself_goes_on(tmp_path: Path) -> None:
    resumed: list[Any] = []

    def stopped(options: TrainOptions, watch: Watch) -> TrainResult:
        if watch.number != 1:
            return train(options, watch)
        if options.resume:
            resumed.append(options.resume)
            return train(TrainOptions(lr0=0.01, resume=options.resume), watch)
        last = Path(options.save_dir) / "weights" / "last.pt"
        last.parent.mkdir(parents=True)
        last.touch()
        raise Interrupted("saved")

    with pytest.raises(Interrupted, match="1 of 3 trials are done, and trial 1 is saved"):
        run_search(asked(tmp_path, trials=3), stopped)
    found = run_search(asked(tmp_path, trials=3), stopped)
    assert resumed == [str(tmp_path / "study" / "trial-1" / "weights" / "last.pt")]
    assert [(row.number, row.state) for row in found.rows] == [(i, "complete") for i in range(3)]


def test_trials_that_fail_are_told_and_the_study_goes_on(tmp_path: Path) -> None:
    def fragile(options: TrainOptions, watch: Watch) -> TrainResult:
        if watch.number == 0:
            raise TrainingDiverged("box_loss is nan in epoch 2\nand more")
        if watch.number == 1:
            raise MemoryError
        if watch.number == 3:
            raise ValueError("too many")
        if watch.number == 4:
            return train(options, Watch("fitness", None, watch.file, watch.number, False))  # `watch` has seen nothing
        return train(options, watch)

    found = run_search(asked(tmp_path, trials=6), fragile)
    assert [row.state for row in found.rows] == ["failed", "failed", "complete", "failed", "failed", "complete"]
    errors = [row.error for row in found.rows if row.error]
    assert errors[:3] == ["TrainingDiverged: box_loss is nan in epoch 2", "MemoryError: ", "ValueError: too many"]
    assert errors[3] == "fitness had no finite value"


def test_what_fails_before_anything_has_worked_ends_the_study(tmp_path: Path) -> None:
    def broken(options: TrainOptions, watch: Watch) -> TrainResult:
        raise FileNotFoundError("no such data")

    with pytest.raises(FileNotFoundError, match="no such data"):
        run_search(asked(tmp_path), broken)

    def diverging(options: TrainOptions, watch: Watch) -> TrainResult:
        raise TrainingDiverged("nan")

    found = run_search(asked(tmp_path / "other", trials=2), diverging)
    assert found.best is None and not (found.folder / "best.yaml").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run_search(asked(tmp_path, trials=1), train_briefly)
    with sole_writer(tmp_path / "study"), pytest.raises(FolderInUse, match="process"):
        run_search(asked(tmp_path, trials=2), train_briefly)


def test_a_file_holds_one_study(tmp_path: Path) -> None:
    run_search(asked(tmp_path, trials=1), train)
    other = parse_space(SPACE | {"mixup": [0.0, 0.1]})
    with pytest.raises(ValueError, match=r"another study, with another metric and another mode and another mixup: "):
        run_search(asked(tmp_path, space=other, metric="val/box_loss"), train)
    with pytest.raises(ValueError, match="another study, with another imgsz: its trials"):
        run_search(
            asked(
                tmp_path,
                options=resolve(call={"model": "yolo26n", "data": "digits", "seed": 3, "verbose": False, "imgsz": 64}),
            ),
            train,
        )
    (tmp_path / "study.db").unlink()
    with pytest.raises(ValueError, match="give study= another name"):
        run_search(asked(tmp_path), train)


@pytest.mark.parametrize(
    ("changes", "tells"),
    [
        ({"trials": 0}, "trials=0"),
        ({"trials": "many"}, "whole number"),
        ({"prune": 1}, "expected true or false"),
        ({"file": Path("postgresql://host/db")}, "expected a file"),
        ({"options": TrainOptions(save_dir="here")}, "save_dir says nothing to a study"),
        ({"options": TrainOptions(resume=True)}, "a trial that was stopped goes on by itself"),
        ({"options": TrainOptions(val=False)}, "add prune=false"),
        ({"space": parse_space({"epochs": [3, 4]})}, "add prune=false"),
        ({"options": TrainOptions(lr0=0.1)}, "given, and searched"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_file_is_made(
    tmp_path: Path, changes: dict[str, Any], tells: str
) -> None:
    with pytest.raises(ValueError, match=tells):
        run_search(asked(tmp_path, **changes), train)
    assert list(tmp_path.iterdir()) == []


def test_trials_may_differ_in_length_where_none_is_given_up(tmp_path: Path) -> None:
    found = run_search(
        asked(tmp_path, space=parse_space({"epochs": [3, 4]}), prune=False, options=TrainOptions(lr0=0.1)), train
    )
    assert {row.values["epochs"] for row in found.rows} <= {3, 4}


def test_values_that_come_again_are_not_trained_again(tmp_path: Path) -> None:
    begun: list[float] = []

    def count(options: TrainOptions, watch: Watch) -> TrainResult:
        begun.append(options.lr0 or 0.0)
        return train_briefly(options, watch)

    found = run_search(asked(tmp_path, space=parse_space({"lr0": [0.001, 0.01]}), trials=6), count)
    assert sorted(begun) == [0.001, 0.01] and len(found.rows) == 6
    values = {row.values["lr0"]: row.value for row in found.rows}
    assert all(row.value == values[row.values["lr0"]] and row.epochs == 1 for row in found.rows)
    assert found.best is not None and found.best.values == {"lr0": 0.01}


def test_a_study_of_a_loss_looks_for_a_small_one(tmp_path: Path) -> None:
    search = asked(tmp_path, metric="val/box_loss", trials=9)
    told = [("failed", None), ("complete", 2.0), ("complete", 1.0), ("pruned", 0.1)]
    rows = [Row(i, state, value, 1, 0, {}) for i, (state, value) in enumerate(told)]
    assert [row.number for row in best_first(rows, search.criterion)] == [2, 1, 0, 3]

    def train_by_loss(options: TrainOptions, watch: Watch) -> TrainResult:
        run = SmallRun(watch, epochs=EPOCHS)
        watch.criterion.key = "val/box_loss"  # which a run of a few numbers has no criterion to announce
        while not run.stop and run.epoch < EPOCHS:
            run.validated({"val/box_loss": -bowl(options)}, fitness=run.epoch)
            run.epoch += 1
        return result_of(run, Path(str(options.save_dir)))

    found = run_search(search, train_by_loss)
    losses = [-bowl(TrainOptions(**row.values)) for row in found.rows]
    assert found.best is not None and found.best.value == min(losses)
    assert "pruned" in [row.state for row in found.rows]
    assert all(loss > found.best.value for loss, row in zip(losses, found.rows) if row.state == "pruned")


def test_a_watch_travels_and_goes_on_with_what_it_saw(tmp_path: Path) -> None:
    watch = Watch("fitness", None, tmp_path / "study.db", 0, True)
    watch.seen = {1: 0.5, 2: 0.25}
    with opened(tmp_path / "study.db", "max") as record:
        watch.record, watch.number = record, record.study.ask().number
        elsewhere = pickle.loads(pickle.dumps(watch))
    assert (elsewhere.seen, elsewhere.record) == (watch.seen, None)
    elsewhere.report(1, 0.5)
    with opened(tmp_path / "study.db", "max") as record:
        assert record.study.trials[0].intermediate_values == {1: 0.5}
    again = Watch("fitness", None, tmp_path / "study.db", 0, True)
    again.load_state_dict(watch.state_dict())
    assert again.seen == watch.seen


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "eyas\[tune\]"') as caught:
        run_search(asked(tmp_path), train)
    assert caught.value.name is None
