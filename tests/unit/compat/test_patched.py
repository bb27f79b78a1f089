"""Methods that scripts put on classes which training does not use are told."""

from __future__ import annotations

import importlib
import pkgutil
from functools import wraps
from typing import Any

import pytest
import torch

from eyas.compat import answers, losses
from eyas.compat.answers import augment, dataset, metrics
from eyas.compat.answers import loss as answered_loss
from eyas.compat.patched import patched, tell_patched, unused_modules
from eyas.losses import DenseCriterion

OURS = object.__new__(DenseCriterion)


def test_nothing_is_said_of_classes_as_they_are(warnings: list[str]) -> None:
    for found in pkgutil.iter_modules(answers.__path__):
        importlib.import_module(f"{answers.__name__}.{found.name}")
    assert len(list(unused_modules(OURS))) > 20
    tell_patched(OURS)
    assert not warnings


@pytest.mark.parametrize(
    ("owner", "name", "door"),
    [
        (metrics.Metric, "fitness", r"get_validator()"),
        (metrics.ConfusionMatrix, "process_batch", r"get_validator()"),
        (dataset.YOLODataset, "__getitem__", r"build_dataset()"),
        (augment.Mosaic, "__call__", r"build_dataset()"),
        (augment.Albumentations, "__init__", r"build_dataset()"),
        (answered_loss.BboxLoss, "forward", r"init_criterion()"),
        (losses.v8DetectionLoss, "__call__", r"init_criterion()"),
    ],
)
def test_a_method_of_the_script_is_told_with_its_place(
    owner: type, name: str, door: str, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, lambda self, *args: None)
    tell_patched(OURS)
    (said,) = warnings
    assert f"{owner.__name__}.{name} was set at {__file__}:" in said and door in said


def test_wrapped_and_static_methods_and_properties_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    @wraps(metrics.Metric.update)
    def wrapper(self: Any, *args: Any) -> None:
        pass

    monkeypatch.setattr(metrics.Metric, "update", wrapper)
    monkeypatch.setattr(metrics.Metric, "maps", property(lambda self: 0))
    monkeypatch.setattr(metrics.DetMetrics, "fitness", staticmethod(lambda: 0))
    assert {name for _, name, _ in patched(unused_modules(OURS))} == {"update", "maps", "fitness"}


def test_a_loss_that_the_script_trains_with_is_its_own_matter(
    warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses.v8DetectionLoss, "__call__", lambda self, *args: None)
    tell_patched(object.__new__(losses.v8DetectionLoss))
    tell_patched(torch.nn.Identity())
    assert not warnings
