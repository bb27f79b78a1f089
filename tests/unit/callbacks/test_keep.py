"""The k best epochs' weights: which are kept, which go, and what a resumed run knows of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyas.callbacks import KeepBest
from eyas.config import resolve
from small_run import SmallRun


def go(run: SmallRun, folder: Path, fitness: list[float], start: int = 0) -> None:
    """Validate and save epoch after epoch, as the loop does."""
    run.wdir = folder
    for epoch, value in enumerate(fitness, start):
        run.epoch = epoch
        run.validated({}, value)
        for stem, best in run.best_files.items():
            if best == epoch + 1:
                (folder / f"{stem}.pt").write_text(str(epoch + 1))
        run.fire("on_model_save")


def kept(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("kept*.pt"))


def test_the_best_are_kept_and_others_deleted(tmp_path: Path) -> None:
    keep = KeepBest(2)
    run = SmallRun(keep, epochs=6)
    go(run, tmp_path, [0.1, 0.3, float("nan"), 0.3, 0.2, 0.4])
    assert kept(tmp_path) == ["kept2", "kept6"], "among equals the earlier"
    assert run.best_files == {"best": 6, "kept2": 2, "kept6": 6} and keep.ranked() == [6, 2]
    assert (tmp_path / "kept2.pt").read_text() == "2"
    assert keep.witness(run) == {"keep": [6, 2]}


def test_a_resumed_run_goes_on_with_those_that_it_has(tmp_path: Path) -> None:
    first = KeepBest(2)
    run = SmallRun(first, epochs=4)
    go(run, tmp_path, [0.5, 0.1, 0.4])
    second = KeepBest(2)
    second.load_state_dict(first.state_dict())
    more = SmallRun(second, epochs=4)
    more.best_files, more.best_fitness = dict(run.best_files), run.best_fitness
    go(more, tmp_path, [0.45], start=3)
    assert kept(tmp_path) == ["kept1", "kept4"] and more.best_files == {"best": 1, "kept1": 1, "kept4": 4}


def test_options_ask_for_it_and_nonsense_is_refused() -> None:
    made = KeepBest.from_options(resolve(call={"keep": 3}))
    assert made is not None and made.count == 3 and KeepBest.from_options(resolve(call={})) is None
    assert KeepBest(1).witness(SmallRun()) == {}, "before a validation nothing was seen"
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="at least 1"):
            KeepBest(wrong)  # type: ignore[arg-type]
