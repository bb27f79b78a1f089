"""What is fitted to data and length is what is done: augmentation, gains, statistics; a typed value always wins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.nn.unwrap import unwrap_model
from eyas.recipes import YOLO26, Situation
from eyas.train import DetectionTrainer

FITTED = ("mosaic", "scale", "translate", "fliplr", "cls")

FITTED_VALUES = {"mosaic": 0.0, "scale": 0.1, "translate": 0.05, "fliplr": 0.0, "cls": 1.67}


def used(trainer: DetectionTrainer) -> dict[str, Any]:
    """Return what the training images and the criterion really work with."""
    dataset: Any = trainer.train_loader.dataset  # type: ignore[attr-defined]
    criterion: Any = unwrap_model(trainer.model).criterion
    settings = dataset.settings
    return {name: getattr(settings, name) for name in FITTED[:4]} | {"cls": criterion.effects()["cls"]}


def test_a_short_run_on_digits_gets_weak_augmentation_no_mirrors_and_more_class_loss(options: Any) -> None:
    trainer = DetectionTrainer(overrides=untyped(options(epochs=2)))
    with trainer.prepared():
        assert used(trainer) == FITTED_VALUES == trainer.plan.fitted
        told = {choice.name: choice.by for choice in trainer.plan.decisions}
        assert "'0', '1', '2' are characters" in told["fliplr"] and "10 classes" in told["cls"]
        assert trainer.closing_augmentation() == []


def test_what_was_typed_is_what_is_done(options: Any) -> None:
    typed = {"mosaic": 0.75, "scale": 0.4, "translate": 0.2, "fliplr": 0.25, "cls": 0.6}
    trainer = DetectionTrainer(overrides=options(epochs=2, **typed))
    with trainer.prepared():
        assert used(trainer) == typed and trainer.plan.fitted == {}


def test_a_typed_close_mosaic_speaks_of_a_mosaic(options: Any) -> None:
    trainer = DetectionTrainer(overrides=untyped(options(epochs=3, close_mosaic=1)))
    with trainer.prepared():
        assert used(trainer)["mosaic"] == 1.0 and trainer.closing_augmentation() == ["mosaic"]


@pytest.mark.parametrize(("epochs", "steps", "weak"), [(29, 9000, True), (30, 599, True), (30, 600, False)])
def test_strong_augmentation_needs_epochs_and_steps(epochs: int, steps: int, weak: bool) -> None:
    situation = Situation(epochs=epochs, steps=steps, images=200, names=("cat", "dog", "hen"), objects=3.0)
    assert YOLO26.fit(situation).keys() == ({"mosaic", "scale", "translate"} if weak else set())


@pytest.mark.parametrize(("classes", "gain"), [(1, None), (3, None), (6, 1.0), (12, 2.0), (80, 2.0)])
def test_the_class_gain_of_a_short_run_from_nothing_follows_the_classes(classes: int, gain: float | None) -> None:
    names = tuple(f"kind {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(classes))
    fresh = Situation(epochs=5, steps=100, images=200, names=names, objects=3.0)
    given = Situation(epochs=5, steps=100, images=200, names=names, objects=3.0, from_scratch=False)
    assert YOLO26.fit(fresh).get("cls", (None, ""))[0] == gain
    assert "cls" not in YOLO26.fit(given)


def test_a_resumed_run_keeps_what_was_fitted_though_it_is_longer_now(options: Any) -> None:
    first = DetectionTrainer(overrides=untyped(options(epochs=1)))
    result = first.train()
    longer = DetectionTrainer(overrides={"resume": str(result.last), "epochs": 700})
    with longer.prepared():
        assert used(longer) == used(first)


def test_given_statistics_are_kept_and_random_ones_forgotten(options: Any) -> None:
    def momenta(trainer: DetectionTrainer) -> set[float]:
        with trainer.prepared():
            trainer.epoch = trainer.step = 0
            trainer.set_statistics()
            norms = [m for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            return {norm.momentum or 0.0 for norm in norms}

    fresh = DetectionTrainer(overrides=options(epochs=1))
    assert momenta(fresh) == {1.0}
    best = DetectionTrainer(overrides=options(epochs=1)).train().best
    given = DetectionTrainer(overrides=options(epochs=1, model=str(best)))
    assert momenta(given) == {0.03}


def test_a_resumed_run_remembers_that_its_average_is_trusted(options: Any) -> None:
    result = DetectionTrainer(overrides=options(epochs=1)).train()
    for trusted in (True, False):
        resumed = DetectionTrainer(overrides={"resume": str(result.last), "epochs": 2})
        resumed.resume_from["state"]["average_trusted"] = trusted  # type: ignore[index]
        with resumed.prepared():
            assert resumed.ema is not None and resumed.ema.trusted is trusted


def untyped(options: dict[str, Any]) -> dict[str, Any]:
    """Return options without those that are fitted."""
    return {name: value for name, value in options.items() if name not in FITTED}
