"""A rehearsal's options: every switch inside the user's run lies inside two epochs, and who asked stays who asked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from eyas.callbacks import Freeze
from eyas.callbacks.freeze import Phase
from eyas.config import TrainOptions, resolve
from eyas.config.resolve import check_effective
from eyas.rehearsal.shorten import EPOCHS, shortened


def short(**call: Any) -> TrainOptions:
    options = resolve(call=call)
    return shortened(options, data=Path("few.yaml"), folder=Path("run"), processes=1, imgsz=64)


def test_lengths_are_scaled_and_everything_else_stays() -> None:
    options = short(
        epochs=20, freeze="backbone", freeze_epochs=5, freeze_ramp=4, warmup_epochs=3, close_mosaic=10, val_every=5,
        lr0=0.01, box=5.0, device="0", workers=8, time=None, project="mine", name="run", amp="bf16", cache="disk",
    )  # fmt: skip
    assert (options.epochs, options.imgsz, options.batch, options.device) == (2, 64, 4, "cpu")
    assert (options.freeze, options.freeze_epochs, options.freeze_ramp) == ("backbone", 1, 0.4)
    assert options.warmup_epochs == pytest.approx(0.3)
    assert (options.close_mosaic, options.val_every) == (1, 2)
    assert (options.lr0, options.box) == (0.01, 5.0)
    assert (options.workers, options.cache, options.amp) == (0, False, True)
    assert (options.project, options.name, options.save_dir) == (None, None, "run")
    check_effective(options)


def test_only_what_a_person_typed_counts_as_typed() -> None:
    options = short(epochs=20, freeze="backbone", freeze_epochs=5)
    typed = {name for name, _ in options if options.is_typed(name)}
    assert typed == {"epochs", "freeze", "freeze_epochs"}


def test_a_stopping_rule_and_phases_given_as_mappings_are_scaled() -> None:
    options = short(
        epochs=30,
        stop={"metric": "f1", "patience": 10, "start": 5},
        freeze=[{"what": "backbone", "epochs": 10, "ramp": 3}, {"what": "neck", "start": 10, "epochs": 20}],
    )
    assert options.stop == {"metric": "f1", "patience": 1, "start": 1}
    first, second = Freeze.from_options(options).phases
    assert (first.resolved(EPOCHS).end(), first.ramp) == (1, pytest.approx(0.2))
    assert (second.resolved(EPOCHS).start, second.resolved(EPOCHS).end()) == (1, 2)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("start", [0, 0.25, 1, 4])
@pytest.mark.parametrize("length", [None, 0.1, 0.9, 1, 5, 50])
@pytest.mark.parametrize("ramp", [0.0, 0.5, 7.0])
def test_phases_that_fit_a_run_fit_its_rehearsal(total: int, start: float, length: float | None, ramp: float) -> None:
    if length is None and ramp:
        return
    phase = Phase("backbone", length, start, ramp)
    whole = phase.resolved(total)
    end = whole.end()
    if whole.start >= total or (end is not None and (end > total or (end == total and ramp))):
        return  # refused in the user's run, and so may be refused here
    freeze = Freeze(phases=[asdict(phase)])
    freeze.shorten(total, EPOCHS)
    ours = freeze.phases[0].resolved(EPOCHS)
    assert ours.start < EPOCHS
    if ours.end() is not None:
        assert ours.end() <= EPOCHS - (1 if ramp else 0)
        assert (ours.end() < EPOCHS) == (end < total) or total < EPOCHS


@pytest.mark.parametrize(("length", "total", "ours"), [(0, 10, 0), (3, 10, 1), (10, 10, EPOCHS), (12, 10, EPOCHS)])
def test_what_fills_the_run_fills_the_rehearsal(length: int, total: int, ours: int) -> None:
    assert short(epochs=total, patience=length).patience == ours
