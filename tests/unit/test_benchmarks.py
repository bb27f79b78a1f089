"""The programs of `benchmarks/`: what they are told, how they count, and the processes that measure; no timing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

if not FOLDER.is_dir():
    pytest.skip("benchmarks/ does not lie beside these tests", allow_module_level=True)

FAKE = f"""
import json, sys, time
sys.path.insert(0, {str(FOLDER)!r})
import sides

def answer(request):
    time.sleep(request.get("sleep", 0))
    return [{{"work, ms": 2.0 * request["amount"]}}]

print(json.dumps({{"eyas": sys.argv[1]}}), flush=True)
sides.serve(sys.stdin, sys.stdout, answer)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return what imports one of the programs as Python does beside them."""
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = names & set(sys.modules)
    assert not before
    monkeypatch.syspath_prepend(str(FOLDER))
    yield __import__
    for name in names:
        sys.modules.pop(name, None)


# -- numbers -----------------------------------------------------------------------------------------------------------
def test_a_spread_is_a_median_between_smallest_and_largest(load: Any) -> None:
    spread = load("spread")
    rows = [{"step, ms": 3.0}, {"step, ms": 1.0, "start, s": 9.0}, {"step, ms": 2.5}]
    found = spread.spreads(rows)
    assert found["step, ms"] == spread.Spread(2.5, 1.0, 3.0, 3)
    assert str(found["step, ms"]) == "2.5 (1..3)"
    assert str(found["start, s"]) == "9"
    assert spread.short(7227) == "7,227"
    assert spread.plain(found)["start, s"] == {"median": 9.0, "low": 9.0, "high": 9.0, "count": 1}


def test_ratios_are_of_turns_so_that_a_machine_that_slows_down_changes_none(load: Any) -> None:
    spread = load("spread")
    first = [[{"step, ms": 10.0 * slow, "none": 0.0, "alone": 1.0}] for slow in (1, 2, 4)]
    second = [[{"step, ms": 5.0 * slow, "none": 1.0}] for slow in (1, 2, 4)]
    assert spread.ratios(first, second) == {"step, ms": spread.Spread(0.5, 0.5, 0.5, 3)}


def test_turns_alternate_and_the_first_may_not_count(load: Any) -> None:
    bench, asked = load("bench"), []

    def side(name: str) -> Callable[[], list[dict[str, float]]]:
        return lambda: asked.append(name) or [{"n": float(len(asked))}]  # type: ignore[func-returns-value]

    taken = bench.in_turns([side("A"), side("B")], turns=2, warm=1, limit=60)
    assert asked == ["A", "B", "A", "B", "A", "B"]
    assert taken == [[[{"n": 3.0}], [{"n": 5.0}]], [[{"n": 4.0}], [{"n": 6.0}]]]
    assert len(bench.in_turns([side("A")], turns=9, warm=1, limit=-1)[0]) == 1
    found = bench.summary(taken)
    assert found["ratios"]["n"].high == pytest.approx(4 / 3)
    assert json.loads(json.dumps(bench.as_json(found)))["sides"][1]["n"]["median"] == 5


def test_kernels_that_overlap_count_once_and_copies_not_at_all(load: Any) -> None:
    tracing = load("tracing")
    events = [
        {"cat": "kernel", "name": "a", "ts": 0.0, "dur": 10.0},
        {"cat": "kernel", "name": "b", "ts": 5.0, "dur": 2.0},
        {"cat": "kernel", "name": "c", "ts": 8.0, "dur": 4.0},
        {"cat": "kernel", "name": "d", "ts": 20.0, "dur": 1.0},
        {"cat": "gpu_memcpy", "name": "e", "ts": 30.0, "dur": 9.0},
        {"cat": "cpu_op", "name": "aten::add", "ts": 0.0, "dur": 1.0},
        {"cat": "cpu_op", "name": "Optimizer.step", "ts": 0.0, "dur": 1.0},
        {"name": "process_name", "ph": "M"},
    ]
    assert len(tracing.kernels(events)) == 4
    assert tracing.covered(tracing.kernels(events)) == 13
    assert tracing.operators(events) == 1


def test_operators_are_seen_where_they_run(load: Any) -> None:
    tracing, x = load("tracing"), torch.ones(2)
    events = tracing.traced(lambda: (x.add(x), x.mul(x), x.neg()), torch.device("cpu"))
    assert tracing.operators(events) == 3
    assert not tracing.kernels(events)


def test_memory_for_the_backward_pass_counts_each_storage_once_and_no_weights(load: Any) -> None:
    """A layer saves its input, a ReLU its output; squaring saves that same output again."""
    tracing, layer, x = load("tracing"), nn.Linear(8, 4, bias=False), torch.ones(16, 8)
    kept: list[torch.Tensor] = []
    besides = list(layer.parameters())
    saved = tracing.bytes_kept(lambda: kept.append(layer(x).relu().square()), besides)
    assert saved == 4 * (16 * 8 + 16 * 4)
    assert tracing.bytes_kept(lambda: kept.append(layer(x).relu().square()), [*besides, x]) == 4 * 16 * 4


# -- arguments ---------------------------------------------------------------------------------------------------------
def test_what_is_typed(load: Any) -> None:
    bench = load("bench")
    given = bench.parse(["imgsz=64", "--quick", "workers=2", "out=x.json", "--with", "amp=bf16 ema=false"])
    assert given.options == bench.USUAL | {"imgsz": "64", "workers": "2"}
    assert (given.out, given.extra, given.against) == ("x.json", {"amp": "bf16", "ema": "false"}, None)
    assert (given.effort, given.parts) == (bench.QUICK, list(bench.USUAL_PARTS))
    given = bench.parse(["--against", "HEAD~1", "--step"])
    assert (given.against, given.parts, given.effort) == ("HEAD~1", ["step"], bench.FULL)


@pytest.mark.parametrize("typed", [["imgsz"], ["--with", "amp"], ["--parts", "stp"], ["--fast"], ["batch="]])
def test_what_is_not_understood_ends_the_program(load: Any, typed: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        load("bench").parse(typed)
    assert typed[-1].rstrip("=") in capsys.readouterr().err


def test_every_part_that_can_be_typed_exists(load: Any) -> None:
    bench, parts = load("bench"), load("parts")
    assert set(bench.USUAL_PARTS + bench.MORE_PARTS) == set(parts.PARTS)
    for effort in (bench.QUICK, bench.FULL):
        assert {*effort.turns, *effort.warm} <= set(parts.PARTS)


# -- sides -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def fake(load: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return what starts a side that doubles a number, and says that its `eyas` lies in some folder."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE)

    def start(eyas: Path = tmp_path / "eyas") -> Any:
        return load("sides").Side(tmp_path, (sys.executable, str(program), str(eyas)))

    return start


def test_a_side_answers_as_often_as_it_is_asked(fake: Any) -> None:
    with fake() as side:
        assert [side.ask(amount=n) for n in (1, 3)] == [[{"work, ms": 2.0}], [{"work, ms": 6.0}]]
        assert side.ask(timeout=60, amount=4) == [{"work, ms": 8.0}]
        assert side.alive
    assert not side.alive


def test_a_side_that_is_late_is_ended(fake: Any) -> None:
    began = time.monotonic()
    with fake() as side, pytest.raises(sys.modules["sides"].SideError, match="took longer than 0 s"):
        side.ask(timeout=0.1, amount=1, sleep=60)
    assert not side.alive
    assert time.monotonic() - began < 50


def test_a_side_that_fails_is_told(fake: Any, capfd: Any) -> None:
    with fake() as side, pytest.raises(sys.modules["sides"].SideError, match="has ended"):
        side.ask(nothing=1)
    assert "KeyError: 'amount'" in capfd.readouterr().err


def test_a_side_that_measures_another_eyas_is_refused(fake: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="is measured in place of"):
        fake(tmp_path.parent / "elsewhere" / "eyas")


def test_serving_ends_with_the_requests(load: Any) -> None:
    out = StringIO()
    load("sides").serve(['{"part": "a"}\n', '{"part": "b"}\n'], out, lambda request: [{request["part"]: 1.0}])
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [[{"a": 1.0}], [{"b": 1.0}]]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_revision_is_laid_out_beside_what_is_here(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, package = load("bench"), tmp_path / "src" / "eyas"
    package.mkdir(parents=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        (package / "__init__.py").write_text("old = 1\n")
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (package / "__init__.py").write_text("new = 1\n")
    monkeypatch.setattr(bench, "HERE", tmp_path / "src")
    with bench.revision("HEAD") as source:
        assert (source / "eyas" / "__init__.py").read_text() == "old = 1\n"
    assert not source.exists()
    with bench.revision(None) as source:
        assert source == tmp_path / "src"
    with pytest.raises(SystemExit, match="--against nothing"), bench.revision("nothing"):
        pass


# -- the call for a GPU ------------------------------------------------------------------------------------------------
def test_every_figure_types_options_that_exist(load: Any, tmp_path: Path) -> None:
    from eyas import TrainOptions
    from eyas.config.resolve import parse_cli

    gpu, parts = load("gpu"), load("parts")
    large, small = gpu.figures(), gpu.small_figures(tmp_path)
    assert [figure.name for figure in small] == [figure.name for figure in large]
    assert len({figure.name for figure in large}) == len(large)
    for figure in large + small:
        assert set(figure.parts) <= set(parts.PARTS)
        for options in figure.settings({"imgsz": "640", "amp": "bf16", "compile": "false"}, {"ema": "false"}):
            assert TrainOptions(**parse_cli(options)).ema is False


def test_what_is_compiled_is_measured_against_what_is_not(load: Any) -> None:
    figure = load("gpu").Figure("f", 9, ("step",), {"batch": "4"}, compiled=True)
    written, compiled = figure.settings({"compile": "auto", "batch": "1"}, {"ema": "false"})
    assert written == {"compile": "false", "batch": "4", "ema": "false"}
    assert compiled == written | {"compile": "true"}


def test_what_has_no_time_is_left_out_and_what_fails_is_told(load: Any, capsys: Any) -> None:
    gpu, saved = load("gpu"), {}

    class Stage:
        def measure(self, part: str, figure: Any, settings: Any, clock: Any) -> Any:
            if figure.name == "late":
                raise load("sides").SideError("took too long")
            return load("bench").summary([[[{"step, ms": 5.0}]]])

        def end(self, *numbers: int) -> None:
            pass

    figures = [gpu.Figure(name, seconds, ("step",), {}) for name, seconds in (("late", 9), ("good", 9), ("long", 900))]
    gpu.measure_all(
        figures, {}, {}, gpu.Clock(100), Stage(), lambda name, part, values: saved.update({name: {part: values}})
    )
    assert saved["late"] == {"step": {"error": "took too long"}}
    assert saved["good"]["step"]["sides"][0]["step, ms"]["median"] == 5
    assert "left out" in saved["long"]
    said = capsys.readouterr().out
    assert "late, step: took too long" in said
    assert "long: left out, for" in said


def test_a_side_that_was_ended_is_started_again(load: Any, monkeypatch: pytest.MonkeyPatch, fake: Any) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "Side", lambda source: fake())
    stage = gpu.Stage()
    first = stage.side(0)
    assert stage.side(0) is first
    first.close()
    assert stage.side(0) is not first
    assert stage.side(0).ask(amount=1)
    stage.end()
    assert not stage.sides


def test_made_up_photographs_have_boxes_inside(load: Any, tmp_path: Path) -> None:
    photos = load("photos")
    drawn = [photos.photograph(np.random.default_rng((0, n))) for n in range(20)]
    assert all(image.shape == (480, 640, 3) and image.dtype == np.uint8 for image, _ in drawn)
    boxes = np.concatenate([rows for _, rows in drawn])
    assert 11 < len(boxes) / 20 < 17
    low, high = boxes[:, 1:3] - boxes[:, 3:] / 2, boxes[:, 1:3] + boxes[:, 3:] / 2
    assert low.min() >= -1e-9
    assert high.max() <= 1 + 1e-9
    (tmp_path / "images/val").mkdir(parents=True)
    (tmp_path / "labels/val").mkdir(parents=True)
    photos.write(tmp_path, "val", 7)
    assert 30_000 < (tmp_path / "images/val/00007.jpg").stat().st_size < 200_000
    assert (tmp_path / "labels/val/00007.txt").read_text().count("\n") > 0


# -- a step of each model ----------------------------------------------------------------------------------------------
PAGE = """Text.

| model | parameters | GFLOPs | AP of the authors |
|---|---|---|---|
| `a-1`, `b-1` | 12 | 3.4 | 5 |
| `c` | 1 | 2 | |

| another | table |
"""


def test_steps_are_put_into_the_table_of_costs_and_nowhere_else(load: Any) -> None:
    families = load("families")
    assert families.models(PAGE) == ["a-1", "c"]
    first = families.with_steps(PAGE, {"a-1": 1234.0})
    assert first.splitlines()[2:6] == [
        "| model | parameters | GFLOPs | AP of the authors | a step here |",
        "|---|---|---|---|---|",
        "| `a-1`, `b-1` | 12 | 3.4 | 5 | 1.23 s |",
        "| `c` | 1 | 2 | |  |",
    ]
    assert first.splitlines()[7] == "| another | table |"
    again = families.with_steps(first, {"c": 80.0})
    assert again.splitlines()[4:6] == ["| `a-1`, `b-1` | 12 | 3.4 | 5 | 1.23 s |", "| `c` | 1 | 2 | | 0.08 s |"]


def test_the_page_of_families_names_models_that_there_are(load: Any) -> None:
    from eyas.models import model_table

    families = load("families")
    names = families.models(families.PAGE.read_text(encoding="utf-8"))
    assert len(names) > 20
    for name in names:
        model_table(name)
