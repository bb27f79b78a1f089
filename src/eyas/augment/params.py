"""Choosing: everything random about one training sample, as plain arrays. No image is touched here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eyas.augment.frame import crop_with_objects, larger_frame, onto_image
from eyas.augment.geometry import (
    clip_to,
    corners,
    flip_matrix,
    loaded_shapes,
    mosaic_cells,
    perspective_matrix,
    translation,
)
from eyas.augment.random import Purpose, generator
from eyas.augment.settings import AugmentSettings

# Pictures of a sample: the sample itself, the one mixup blends in, the one cutmix cuts from.
MAIN, MIXED, CUT = 0, 1, 2
_PICTURES = 3
_PICTURE_DRAWS = 16
_SAMPLE_DRAWS = 8
_CUT_CANDIDATES = 3
_MIXUP_BETA = 32.0  # Beta(32, 32): ratios lie near one half (spec core E.6)

Picture = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Sources, matrices, visible parts, shapes and zooms of one picture, as in `SampleParams`."""


@dataclass(frozen=True, slots=True)
class SampleParams:
    """All that is random about one training sample, as flat arrays that any backend can apply.

    K sources, 1..12: one or four for each of up to three pictures (main, mixed in by mixup, cut from by cutmix).

    Attributes:
        size: side S of the square output in pixels.
        sources: (K,) int64 dataset indices; the first one is the sample's own image.
        picture: (K,) int64, which picture a source belongs to: MAIN, MIXED or CUT.
        matrices: (K, 3, 3) float64, source pixels -> output pixels, flips included.
        visible: (K, 4) float64 xyxy, the part of a source that may be seen, in source pixels.
        shapes: (K, 2) int64 (h, w) of the sources, the pixels that `matrices` and `visible` speak of.
        zooms: (K,) float64 scale of the affine step, for the rule that keeps boxes.
        hsv: (3,) float64 relative colour gains (hue in units of the full circle).
        contrast: relative gain of distances to the mean grey.
        blend: weight of the main picture in mixup, 1 without mixup.
        cut_candidates: (3, 4) int64 xyxy rectangles for cutmix in output pixels, (0, 4) without it.
        flips: (2,) bool, up-down and left-right, for the record: `matrices` have them already.
        bgr: True leaves the channels in BGR order.
    """

    size: int
    sources: np.ndarray
    picture: np.ndarray
    matrices: np.ndarray
    visible: np.ndarray
    shapes: np.ndarray
    zooms: np.ndarray
    hsv: np.ndarray
    contrast: float
    blend: float
    cut_candidates: np.ndarray
    flips: np.ndarray
    bgr: bool


def sample_params(
    settings: AugmentSettings,
    shapes: np.ndarray,
    *,
    size: int,
    seed: int,
    epoch: int,
    position: int,
    index: int,
    partners: Sequence[int] | np.ndarray,
    boxes: Callable[[int], np.ndarray] | None = None,
    stretch: bool = False,
) -> SampleParams:
    """Choose the parameters of one sample: a pure function of its arguments.

    Args:
        settings: probabilities and ranges.
        shapes: (N, 2) original (h, w) of all images of the data set.
        size: output side in pixels, also the long side of loaded images.
        seed, epoch, position: name the sample; `position` is its place in the epoch's global order.
        index: dataset index of the sample's own image.
        partners: dataset indices that mosaic, mixup and cutmix may draw from, with replacement.
        boxes: dataset index -> (n, 4) normalised cxcywh objects of that image, of which a crop shows one; where
            nobody knows them, nothing is cropped.
        stretch: images are loaded stretched to size x size.
    """
    rng = generator(Purpose.SAMPLE, seed=seed, epoch=epoch, position=position)
    # Every decision owns a fixed place in these blocks, so changing one setting does not shift the others' numbers.
    draws = rng.random(_SAMPLE_DRAWS)
    picture_draws = rng.random((_PICTURES, _PICTURE_DRAWS))
    cut_draws = rng.random((_CUT_CANDIDATES, 3))
    window = np.asarray(partners, dtype=np.int64)

    mixing, cutting = draws[0] < settings.mixup, draws[1] < settings.cutmix
    flips = draws[2:4] < (settings.flipud, settings.fliplr)
    flip = flip_matrix(size, up_down=bool(flips[0]), left_right=bool(flips[1]))
    wanted = [MAIN] + [MIXED] * bool(mixing) + [CUT] * bool(cutting)
    own = generator(Purpose.FRAME, seed=seed, epoch=epoch, position=position)
    chances, places = own.random(3), own.random(3)
    smaller, cropped = bool(chances[0] < settings.zoom_out), bool(chances[1] < settings.crop)
    parts = [
        _picture(
            settings,
            shapes,
            picture_draws[number],
            size,
            index if number == MAIN else None,
            window,
            flip,
            stretch,
            alone=number == MAIN and (smaller or cropped),
        )
        for number in wanted
    ]
    if smaller or cropped:
        (_, _, (whole,), (shape,), _) = parts[0]
        seen = larger_frame(shape, places) if smaller else whole
        if cropped and boxes is not None:
            seen = crop_with_objects(seen, corners(boxes(index), shape), own)
        parts[0] = _framed(parts[0], seen)
    sources, matrices, visible, sizes, zooms = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return SampleParams(
        size=size,
        sources=sources,
        picture=np.repeat(wanted, [len(part[0]) for part in parts]),
        matrices=matrices,
        visible=visible,
        shapes=sizes,
        zooms=zooms,
        hsv=(2 * draws[4:7] - 1) * (settings.hsv_h, settings.hsv_s, settings.hsv_v),
        contrast=settings.contrast * float(2 * chances[2] - 1),
        blend=float(rng.beta(_MIXUP_BETA, _MIXUP_BETA)) if mixing else 1.0,
        cut_candidates=_cut_rectangles(cut_draws, size) if cutting else np.zeros((0, 4), np.int64),
        flips=flips,
        bgr=bool(draws[7] < settings.bgr),
    )


def _picture(
    settings: AugmentSettings,
    shapes: np.ndarray,
    draws: np.ndarray,
    size: int,
    own: int | None,
    window: np.ndarray,
    flip: np.ndarray,
    stretch: bool,
    alone: bool,
) -> Picture:
    """Choose one picture: a mosaic of four, or one image alone, which may be asked for."""
    picks = window[(draws[:4] * len(window)).astype(np.int64)]
    if own is not None:
        picks[0] = own
    mosaic = draws[4] < settings.mosaic and not alone
    sources = picks if mosaic else picks[:1]
    sizes = loaded_shapes(shapes[sources], size, stretch=stretch)
    if mosaic:
        centre = (int(size * (0.5 + draws[5])), int(size * (0.5 + draws[6])))  # uniform in [S/2, 3S/2]
        offsets, visible = mosaic_cells(centre, sizes, size)
        size_in = (2.0 * size, 2.0 * size)
    else:
        offsets = np.zeros((1, 2))
        visible = np.array([[0.0, 0.0, sizes[0, 1], sizes[0, 0]]])
        size_in = (float(sizes[0, 1]), float(sizes[0, 0]))
    low, high = settings.zoom_range
    zoom = low + (high - low) * draws[7]
    spread = 2 * draws[8:15] - 1
    warp = flip @ perspective_matrix(
        size_in=size_in,
        size_out=size,
        degrees=spread[0] * settings.degrees,
        zoom=zoom,
        shear=(spread[1] * settings.shear, spread[2] * settings.shear),
        perspective=(spread[3] * settings.perspective, spread[4] * settings.perspective),
        centre=(0.5 + spread[5] * settings.translate, 0.5 + spread[6] * settings.translate),
    )
    matrices = np.stack([warp @ translation(x, y) for x, y in offsets])
    return sources, matrices, visible, sizes, np.full(len(sources), zoom)


def _framed(picture: Picture, window: np.ndarray) -> Picture:
    """The picture of a lone image as it is with a window (4,) xyxy, in pixels of the image, in the image's place."""
    sources, matrices, visible, sizes, zooms = picture
    onto = onto_image(window, sizes[0])
    growth = math.sqrt(onto[0, 0] * onto[1, 1])
    return sources, matrices @ onto, clip_to(visible, window), sizes, zooms * growth


def _cut_rectangles(draws: np.ndarray, size: int) -> np.ndarray:
    """(3, 4) candidate rectangles: area ratio 1 - Beta(1, 1) of the picture, any centre, clipped (spec core E.6)."""
    side = size * np.sqrt(1.0 - draws[:, :1])
    centre = size * draws[:, 1:]
    corners = np.concatenate((centre - side / 2, centre + side / 2), axis=1)
    return np.clip(np.rint(corners), 0, size).astype(np.int64)
