"""Train the backbone ten times slower than the rest, by overriding one method of the trainer.

    python examples/two_learning_rates.py

Useful when the backbone comes with good weights and the head does not. The two rates keep their ratio through warm-up
and schedule, because the loop multiplies each group's own base rate. The sizes below make it a matter of seconds; use
data="digits", imgsz=128 and no epochs= to see it learn.
"""

from __future__ import annotations

from typing import Any

import torch

from eyas import YOLO, DetectionTrainer

BACKBONE_FACTOR = 0.1


class TwoRates(DetectionTrainer):
    """AdamW with two groups: the backbone at a tenth of the rate."""

    def build_optimizer(
        self,
        model: Any,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> torch.optim.Optimizer:
        backbone = model.sections()["backbone"]  # prefixes of parameter names; no counting of layers
        slow = [parameter for key, parameter in model.named_parameters() if key.startswith(backbone)]
        fast = [parameter for key, parameter in model.named_parameters() if not key.startswith(backbone)]
        groups = [{"params": slow, "lr": lr * BACKBONE_FACTOR}, {"params": fast, "lr": lr}]
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), weight_decay=decay)


def main() -> None:
    """Train for two short epochs and show that the ratio held."""
    result = YOLO("yolo26n").train(
        trainer=TwoRates, data="digits-tiny", imgsz=64, epochs=2, workers=0, plots=False, verbose=False
    )
    for row in result.history:
        slow, fast = row["lr/pg0"], row["lr/pg1"]
        print(f"epoch {row['epoch']}: backbone {slow:.6f}, the rest {fast:.6f}, ratio {slow / fast:.3f}")
        assert abs(slow / fast - BACKBONE_FACTOR) < 1e-6


if __name__ == "__main__":
    main()
