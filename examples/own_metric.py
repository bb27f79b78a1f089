"""Add a metric of your own, and let it choose the best epoch, by overriding validate().

    python examples/own_metric.py

The metric is the share of validation images in which every object was found and nothing else was: what a person who
counts things cares about. The number that validate() returns second is the fitness; it decides what best.pt holds and
when patience is over. The sizes below make it a matter of seconds; use data="digits", imgsz=128 and no epochs= to see
it rise.
"""

from __future__ import annotations

from eyas import YOLO, DetectionTrainer

KEY = "metrics/all_right"


class BestByImagesAllRight(DetectionTrainer):
    """Keeps the epoch with most images without any mistake; mAP breaks ties."""

    def validate(self) -> tuple[dict[str, float], float | None]:
        metrics, _ = super().validate()
        images = self.validator.metrics.box.image_metrics.values()  # at IoU 0.5, one row per image
        metrics[KEY] = sum(image["fp"] == image["fn"] == 0 for image in images) / len(images)
        return metrics, metrics[KEY] + 0.001 * metrics["metrics/mAP50-95(B)"]


def main() -> None:
    """Train for two short epochs and print the new column."""
    result = YOLO("yolo26n").train(
        trainer=BestByImagesAllRight, data="digits-tiny", imgsz=64, epochs=2, workers=0, plots=False, verbose=False
    )
    for row in result.history:
        print(f"epoch {row['epoch']}: all right in {row[KEY]:.0%} of the images, mAP50 {row['metrics/mAP50(B)']:.3f}")
    print(f"best epoch {result.best_epoch}, weights in {result.best}")
    assert KEY in (result.save_dir / "results.csv").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
