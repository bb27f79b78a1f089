"""Train the backbone ten times slower than the rest: by an option, by a component, or by overriding build_optimizer().

    python examples/two_learning_rates.py

The rates keep their ratio through warm-up and schedule, because the loop multiplies each group's own base rate.
"""

from __future__ import annotations

from typing import Any

import torch

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import LayerRates, layer_rates
from eyas.optim import build_optimizer, parameter_groups

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2, "workers": 0}
QUIET = {"plots": False, "verbose": False}
RULES = {"backbone": 0.1}  # selectors and factors; the first that matches a parameter decides


class TwoRates(DetectionTrainer):
    """The stock groups split by the rules; any torch optimizer over any groups may be returned here."""

    def build_optimizer(
        self,
        model: Any,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> torch.optim.Optimizer:
        groups = layer_rates(model, parameter_groups(model, lr=lr, decay=decay), RULES)
        return build_optimizer(name, groups, lr=lr, momentum=momentum)


def main() -> None:
    """Go through each door and show that the ratio holds."""
    option = YOLO("yolo26n").train(lr_rules=RULES, **TINY, **QUIET)
    component = YOLO("yolo26n").train(callbacks=[LayerRates(RULES)], **TINY, **QUIET)
    override = YOLO("yolo26n").train(trainer=TwoRates, **TINY, **QUIET)

    for row in override.history:
        rates = sorted({value for key, value in row.items() if key.startswith("lr/")})
        print(f"epoch {row['epoch']}: backbone {rates[0]:.6f}, the rest {rates[1]:.6f}")
        assert abs(rates[0] / rates[1] - RULES["backbone"]) < 1e-9
    losses = [[row["train/box_loss"] for row in run.history] for run in (option, component, override)]
    assert losses[0] == losses[1] == losses[2]


if __name__ == "__main__":
    main()
