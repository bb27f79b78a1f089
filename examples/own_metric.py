"""Metrics of your own in every validation: by an option, by a component, or by overriding validate().

    python examples/own_metric.py

The metric here is the share of validation images in which every object was found and nothing else was: what a person
who counts things cares about. The sizes below make it a matter of seconds; use data="digits", imgsz=128 and no epochs=
to see it rise.
"""

from __future__ import annotations

from eyas import YOLO, DetectionTrainer
from eyas.callbacks import MetricReport
from eyas.metrics import DetMetrics

TINY = {"data": "digits-tiny", "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2, "workers": 0}
QUIET = {"plots": False, "verbose": False}
KEY = "metrics/images_all_right"


def images_all_right(metrics: DetMetrics) -> float:
    """Share of images without a missed and without a needless box, at IoU 0.5."""
    images = metrics.box.image_metrics.values()
    return sum(image["fp"] == image["fn"] == 0 for image in images) / len(images)


class WithImagesAllRight(DetectionTrainer):
    """The same by an override; the second value is the fitness, which decides what best.pt holds."""

    def validate(self) -> tuple[dict[str, float], float | None]:
        metrics, fitness = super().validate()
        return metrics | {KEY: images_all_right(self.validator.metrics)}, fitness


def main() -> None:
    """Go through each door and print the new columns."""
    option = YOLO("yolo26n").train(metrics=["f1", "recall_at_p90"], **TINY, **QUIET)
    component = YOLO("yolo26n").train(callbacks=[MetricReport("f1", images_all_right)], **TINY, **QUIET)
    override = YOLO("yolo26n").train(trainer=WithImagesAllRight, **TINY, **QUIET)

    for title, result in (("option", option), ("component", component), ("override", override)):
        known = ("precision(B)", "recall(B)", "mAP50(B)", "mAP50-95(B)")
        new = [key for key in result.history[0] if key.startswith("metrics/") and not key.endswith(known)]
        print(f"{title}: {', '.join(f'{key} {result.history[-1][key]:.3f}' for key in new[:3])}")
    assert [row[KEY] for row in component.history] == [row[KEY] for row in override.history]
    assert KEY in (override.save_dir / "results.csv").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
