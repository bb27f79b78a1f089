"""What may happen to a training image, and how often: plain checked values."""

from __future__ import annotations

from dataclasses import dataclass, replace

PROBABILITIES = ("mosaic", "mixup", "cutmix", "zoom_out", "crop", "flipud", "fliplr", "bgr")
COLOUR_GAINS = ("hsv_h", "hsv_s", "hsv_v", "contrast")
ENDING = ("mosaic", "mixup", "cutmix", "zoom_out", "crop")  # off in the last epochs of a run


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Probabilities and ranges of the training augmentation (spec core E.6, defaults of section G).

    `copy_paste` is missing on purpose: it needs polygons, which detection labels do not have.

    Attributes:
        mosaic: probability of composing four images, in [0, 1].
        mixup: probability of blending a second picture in, in [0, 1].
        cutmix: probability of pasting a rectangle of another picture, in [0, 1].
        zoom_out: probability of showing an image small, in a larger frame, in [0, 1]; it has no mosaic.
        crop: probability of showing a part of an image, with an object in it, in [0, 1]; it has no mosaic.
        degrees: rotation is uniform in +-degrees.
        translate: the centre moves by a uniform +-translate of the output size, in [0, 1].
        scale: zoom is uniform in (1 - scale, 1 + scale), scale in [0, 1); or uniform in a pair (min, max), both > 0.
        shear: both shear angles are uniform in +-shear degrees, below 90.
        perspective: both perspective terms are uniform in +-perspective, in [0, 0.001].
        hsv_h, hsv_s, hsv_v: colour gains are uniform in +-gain, in [0, 1].
        contrast: distances to the mean grey are multiplied by 1 +- contrast, in [0, 1].
        flipud, fliplr: probabilities of a vertical and a horizontal flip.
        bgr: probability of leaving the channels in BGR order.

    Raises:
        ValueError: a value is outside its range.
    """

    mosaic: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    zoom_out: float = 0.0
    crop: float = 0.0
    degrees: float = 0.0
    translate: float = 0.1
    scale: float | tuple[float, float] = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    contrast: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    bgr: float = 0.0

    def __post_init__(self) -> None:
        for name in (*PROBABILITIES, *COLOUR_GAINS, "translate"):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        _check_range("degrees", self.degrees, 0.0, 180.0)
        _check_range("shear", self.shear, 0.0, 89.0)
        _check_range("perspective", self.perspective, 0.0, 0.001)
        low, high = self.zoom_range
        if not 0.0 < low <= high:
            raise ValueError(
                f"scale={self.scale!r}: zoom would reach {low:g}..{high:g}; "
                "give a number in [0, 1) or a pair (min, max) with 0 < min <= max"
            )

    @property
    def zoom_range(self) -> tuple[float, float]:
        """Smallest and largest zoom of the affine step."""
        if isinstance(self.scale, (tuple, list)):
            low, high = self.scale
            return float(low), float(high)
        return 1.0 - self.scale, 1.0 + self.scale

    def closed(self) -> AugmentSettings:
        """The same without what is in `ENDING`: for the last epochs of a run (`close_mosaic`, spec core B.7)."""
        return replace(self, **dict.fromkeys(ENDING, 0.0))


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value!r} is outside [{low:g}, {high:g}]")
