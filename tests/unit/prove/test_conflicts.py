"""Conflicts are found by reading, before anything runs."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from eyas import Callback, DetectionTrainer
from eyas.callbacks import ClipGradNorm, LayerRates, Schedule
from eyas.prove.conflicts import ConflictError, refuse_conflicts, refuse_second_fitness, void_by_override


class OwnStep(DetectionTrainer):
    def optimizer_step(self) -> None:
        self.scaler.step(self.optimizer)


class Polite(DetectionTrainer):
    def optimizer_step(self) -> None:
        super().optimizer_step()


class CallsTheAdjuster(DetectionTrainer):
    def optimizer_step(self) -> None:
        self.adjust("adjust_gradients", list(self.model.parameters()))
        self.scaler.step(self.optimizer)


class OwnOptimizer(DetectionTrainer):
    def build_optimizer(self, model: Any, name: str = "auto", lr: float = 0.1, *args: Any, **kwargs: Any) -> Any:
        return torch.optim.SGD(model.parameters(), lr=lr)


class Deaf(DetectionTrainer):
    def build_optimizer(self, model, name="auto", lr=0.001, momentum=0.9, decay=1e-5, iterations=1e5) -> Any:
        return torch.optim.SGD([{"params": list(model.parameters()), "lr": lr}])


def shout(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


class Decorated(DetectionTrainer):
    @shout
    def optimizer_step(self) -> None:
        super().optimizer_step()


def trainer(cls: type[DetectionTrainer], callbacks: Any = None, **options: Any) -> DetectionTrainer:
    return cls(overrides={"model": "yolo26n", "data": "digits-tiny", "device": "cpu", **options}, _callbacks=callbacks)


@pytest.mark.parametrize("cls", [Polite, CallsTheAdjuster, Decorated])
def test_an_override_that_calls_the_stock_one_voids_nothing(cls: type[DetectionTrainer]) -> None:
    assert list(void_by_override(trainer(cls, clip_grad_norm=0.1))) == []


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (OwnStep, {"clip_grad_norm": 0.1}, "clip_grad_norm=0.1"),
        (OwnStep, {"clip_grad_value": 0.5}, "clip_grad_value=0.5"),
        (OwnOptimizer, {"lr_rules": {"backbone": 0.1}}, "lr_rules="),
        (OwnOptimizer, {"layer_decay": 0.8}, "layer_decay=0.8"),
        (Deaf, {"momentum": 0.8}, "momentum=0.8"),
        (Deaf, {"optimizer": "SGD"}, "optimizer='SGD'"),
    ],
)
def test_an_option_that_an_override_makes_void_is_refused_by_both_names(
    cls: type[DetectionTrainer], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConflictError) as error:
        refuse_conflicts(trainer(cls, **options))
    assert said in str(error.value) and cls.__name__ in str(error.value)


def test_an_option_that_the_override_is_told_is_not_void() -> None:
    assert list(void_by_override(trainer(Deaf, lr0=0.01))) == []
    assert list(void_by_override(trainer(OwnStep))) == []  # the default of 10 gives way without a word


def test_a_component_of_the_users_is_not_lost_silently_either() -> None:
    class Noise(Callback):
        def adjust_gradients(self, trainer: Any, parameters: Any) -> Any:
            return parameters

    with pytest.raises(ConflictError, match="the Noise component has no effect"):
        refuse_conflicts(trainer(OwnStep, [Noise()]))


def test_two_components_for_one_decision_and_an_option_beside_a_component() -> None:
    with pytest.raises(ConflictError, match="two components decide clipping by norm"):
        refuse_conflicts(trainer(DetectionTrainer, [ClipGradNorm(1.0), ClipGradNorm(2.0)]))
    with pytest.raises(ConflictError, match=r"clip_grad_norm=0\.1 .*ClipGradNorm component"):
        trainer(DetectionTrainer, [ClipGradNorm(1.0)], clip_grad_norm=0.1)
    with pytest.raises(ConflictError, match="lr_rules="):
        trainer(DetectionTrainer, [LayerRates(layer_decay=0.8)], lr_rules={"backbone": 0.1})


def test_a_schedule_by_override_and_by_component() -> None:
    class Own(DetectionTrainer):
        def lf(self, fraction: float) -> float:
            return 1.0

    with pytest.raises(ConflictError, match=r"Schedule component and .*lf\(\) both decide the schedule"):
        refuse_conflicts(trainer(Own, [Schedule(lambda progress: 0.5)]))
    with pytest.raises(ConflictError, match="schedule="):
        refuse_conflicts(trainer(Own, schedule={"name": "StepLR", "step_size": 2}))


def test_a_fitness_by_override_and_by_option() -> None:
    class Own(DetectionTrainer):
        def validate(self) -> Any:
            return super().validate()

    run = trainer(Own, best_by="metrics/mAP50(B)")
    run.metrics = {"metrics/mAP50(B)": 0.4, "metrics/mAP50-95(B)": 0.2}
    refuse_second_fitness(run, 0.1 * 0.4 + 0.9 * 0.2)  # the stock fitness was passed on
    with pytest.raises(ConflictError, match=r"best_by=.*Own\.validate"):
        refuse_second_fitness(run, 0.4)


class Helped(DetectionTrainer):
    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        return self.make(dataset_path, mode)

    def make(self, path: Any, mode: str) -> Any:
        return list(self.build_dataset(path, mode))[: self.args.workers]


class OwnValidator(DetectionTrainer):
    def get_validator(self) -> Any:
        return object()


class Timed(DetectionTrainer):
    optimizer_step = shout(DetectionTrainer.optimizer_step)


def test_options_that_an_override_mentions_itself_or_through_a_helper_are_not_void() -> None:
    assert list(void_by_override(trainer(Helped, mosaic=0.5, workers=2))) == []
    assert list(void_by_override(trainer(Timed, clip_grad_norm=0.1))) == []
    with pytest.raises(ConflictError, match=r"conf=0\.1"):
        refuse_conflicts(trainer(OwnValidator, conf=0.1))
