"""A model becomes a file that is as good as the model, or none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from eyas.augment.letterbox import padded
from eyas.evaluate.inference import Network
from eyas.evaluate.validator import DetectionValidator
from eyas.export.base import BoxModel, Card, ExportError, ExportTarget
from eyas.log import LOGGER, warn
from eyas.models import Detector

IMAGES = 200  # that a file is measured on
MAP = "metrics/mAP50-95(B)"
LARGEST_MOVE = 0.002  # of mAP50-95; other kernels of the same precision change far less


def export(
    model: Detector, target: ExportTarget, path: Path, *, imgsz: int, validator: DetectionValidator | None
) -> Path:
    """Write a model, measure what was written, and return its path, where nothing is left or changed on failure.

    Args:
        model: it is not changed, but moves to the validator's device.
        target: what kind of file.
        path: of the file; another in its place is replaced.
        imgsz: side of its square input in pixels, rounded up to a multiple of 32.
        validator: measures both, on images of that size; None leaves the file unverified.

    Raises:
        ExportError: the target cannot write the model, or mAP50-95 of the file is more than 0.002 away from its own.
    """
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        target.write(BoxModel(model), draft, Card.of(model, padded(imgsz)))
        if validator is not None:
            verify(model, target.open(draft), validator, f"the {target.name} file")
        os.replace(draft, path)
    return path


def verify(model: Detector, written: Network, validator: DetectionValidator, what: str) -> None:
    """Measure a model and what was made of it.

    Raises:
        ExportError: mAP50-95 has moved by more than 0.002, or is no number.
    """
    before = validator(model=model)[MAP]
    after = validator(model=written)[MAP]
    images = len(validator.metrics.image_files)
    if not as_good(after, before):
        raise ExportError(
            f"{what} is not as good as the model, and was removed: on {images} images its mAP50-95 is {after:.4f}, the "
            f"model's {before:.4f}; at most {LARGEST_MOVE} may lie between them"
        )
    if before <= LARGEST_MOVE:
        warn(f"the model's mAP50-95 on {images} images is {before:.4f}, too low to tell a wrong file from a right one")
    LOGGER.info("Verified on %d images: mAP50-95 of %s %.4f, of the model %.4f", images, what, after, before)


def as_good(after: float, before: float) -> bool:
    """Whether one mAP50-95 is close enough to the other; what is no number is not."""
    return abs(after - before) <= LARGEST_MOVE
