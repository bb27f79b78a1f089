"""Choose what best.pt is the best of: by an option, by a component, or by what validate() returns.

    python examples/best_by_map50.py

Several criteria at once keep a file each: best_by=["metrics/mAP50(B)", {"metric": "val/cls_loss", "mode": "min"}].
"""

from __future__ import annotations

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import BestBy

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 3, "workers": 0}
QUIET = {"plots": False, "verbose": False}
MAP50 = "metrics/mAP50(B)"


class BestByMAP50(DetectionTrainer):
    """The second value that validate() returns is what decides; higher is better, on any scale."""

    def validate(self) -> tuple[dict[str, float], float | None]:
        metrics, _ = super().validate()
        return metrics, metrics[MAP50]


def main() -> None:
    """Go through each door and show that each keeps the same epoch."""
    option = YOLO("yolo26n").train(best_by=MAP50, **TINY, **QUIET)
    component = YOLO("yolo26n").train(callbacks=[BestBy(MAP50)], **TINY, **QUIET)
    override = YOLO("yolo26n").train(trainer=BestByMAP50, **TINY, **QUIET)

    values = [row[MAP50] for row in option.history]
    print(f"mAP50 by epoch {[round(value, 4) for value in values]}, best epoch {option.best_epoch}")
    best = values.index(max(values)) + 1  # ties keep the earlier
    assert option.best_epoch == component.best_epoch == override.best_epoch == best
    assert option.fitness == component.fitness == override.fitness == max(values)


if __name__ == "__main__":
    main()
