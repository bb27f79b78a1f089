"""What a script puts in the place of a validator's counts: its steps use it, it asks for nothing, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from eyas.compat.answers.metrics import ConfusionMatrix
from eyas.compat.validator import DetectionValidator

NAMES = {0: "cat", 1: "dog"}


class Own(DetectionValidator):
    counts: dict[str, Any] = {}  # noqa: RUF012  # replaced by each test

    def init_metrics(self, model: nn.Module) -> None:
        for name, value in self.counts.items():
            setattr(self, name, value)


class Fills(Own):
    def update_metrics(self, preds: Any, batch: Any) -> None:
        [self.stats["tp"].append(found) for found in preds]


def started(cls: type[Own], **counts: Any) -> Own:
    cls.counts = counts
    validator = cls()
    validator.start(nn.Identity(), torch.device("cpu"))
    return validator


@pytest.mark.parametrize(
    "counts",
    [
        {"iouv": torch.tensor([0.01])},
        {"niou": 1},
        {"iouv": torch.linspace(0.5, 0.9, 10)},
        {"seen": 3},
        {"stats": {"tp": [1]}},
        {"jdict": [{}]},
        {"confusion_matrix": ConfusionMatrix(NAMES, conf=0.1)},
        {"confusion_matrix": "mine"},
    ],
)
def test_what_nothing_uses_is_refused(counts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(counts))} ?=.* has no effect"):
        started(Own, **counts)


def test_what_asks_for_nothing_else_leaves_our_counts_in_place() -> None:
    stock = {"iouv": torch.linspace(0.5, 0.95, 10), "niou": 10, "seen": 0, "stats": {"tp": [], "conf": []}, "jdict": []}
    validator = started(Own, confusion_matrix=ConfusionMatrix(NAMES), **stock)
    assert not {"seen", "stats", "jdict", "confusion_matrix"} & set(vars(validator))


def test_what_a_step_fills_is_the_scripts() -> None:
    mine: dict[str, Any] = {"tp": [], "mine": 1}
    validator = started(Fills, stats=mine)
    assert validator.stats is mine
    validator.update_metrics([torch.zeros(1, 6)], {})
    assert len(mine["tp"]) == 1
