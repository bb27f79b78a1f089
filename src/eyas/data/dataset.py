"""Data sets: from keys to collated batches. A whole batch is built at once, inside the worker, in one buffer.

Place of user transforms in the chain of a training image:
    load -> mosaic, affine or perspective, flips (one warp) -> mixup, cutmix -> HSV -> user transforms -> format
"""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from eyas.augment.apply_cv import render
from eyas.augment.geometry import box_areas, clip_to
from eyas.augment.labels import place_areas, place_labels
from eyas.augment.letterbox import letterbox_into
from eyas.augment.params import SampleParams, sample_params
from eyas.augment.policy import DensePolicy
from eyas.augment.random import Purpose, generator
from eyas.augment.settings import AugmentSettings
from eyas.data.errors import SampleError, UnloadableImage
from eyas.data.index import ImageIndex
from eyas.data.numbered import Numbered, training_key
from eyas.data.sampler import EvalKey, SampleKey
from eyas.data.seeded import seeded
from eyas.data.store import ImageStore

Transform = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(image (S, S, 3) uint8 RGB, boxes (n, 4) float32 xyxy pixels, labels (n,) int64) -> the same three."""

STEADS = 64  # bad images of one sample after which no other is tried: a disk is gone, not an image
SHARING = 32  # images that share a rectangle in evaluation, neighbours in the order of aspect ratios

NO_AREAS = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)

Row = tuple[np.ndarray, np.ndarray]
"""cls (n,) and boxes (n, 4) normalised cxcywh of one finished image; or kinds of areas to ignore, and their boxes."""


class TrainDataset(Numbered):
    """Augmented training samples.

    Args:
        index: images and labels.
        store: loads images; its `imgsz` must be `imgsz`.
        imgsz: side of the square output in pixels.
        settings: what augmentation may do.
        seed: seed of the run.
        transforms: callables (image, boxes, labels) -> (image, boxes, labels), see `Transform`; they run after all
            other augmentation. The image keeps its size; returned boxes are clipped to it and empty ones dropped.
            Python's, NumPy's and PyTorch's CPU random numbers are seeded for each sample while they run, so that
            results do not depend on the number of workers. Areas to ignore come along as boxes, with numbers from that
            of the data's classes on.
        hsv_apart: leave the jitter of colours to whoever gets a batch, whose ``hsv`` (B, 3) says by how much; see
            `eyas.augment.apply_torch`. Samples asked for by number have it behind them.

    Attributes:
        policy: when which augmentation is on; None for the same in all epochs but the last ones. It must be set before
            the first sample.
    """

    def __init__(
        self,
        index: ImageIndex,
        store: ImageStore,
        *,
        imgsz: int,
        settings: AugmentSettings,
        seed: int = 0,
        transforms: Sequence[Transform] | None = None,
        hsv_apart: bool = False,
    ) -> None:
        _check_store(store, imgsz)
        for transform in transforms or ():
            if not callable(transform):
                raise ValueError(
                    f"transforms: {transform!r} is not callable; "
                    "give functions (image, boxes, labels) -> (image, boxes, labels)"
                )
        self.index, self.store = index, store
        self.imgsz, self.seed = imgsz, seed
        self.settings, self.closed_settings = settings, settings.closed()
        self.transforms = tuple(transforms or ())
        self.hsv_apart = hsv_apart
        self.policy: DensePolicy | None = None
        self._held: dict[
            int, np.ndarray
        ] = {}  # images of a window that goes on in the next batch; never changes a result
        self._closed = torch.zeros((), dtype=torch.bool).share_memory_()  # for samples by number, seen by workers
        self.closed_by_hand = False

    def effects(self) -> dict[str, object]:
        """Return what it does to images, by option."""
        told = asdict(self.settings) | {"imgsz": self.imgsz, "seed": self.seed}
        return told | self.index.effects() | self.store.effects()

    def params(self, key: SampleKey) -> SampleParams:
        """The augmentation parameters of one sample, without loading anything."""
        return sample_params(
            self.settings_of(key),
            self.index.shapes,
            size=self.imgsz,
            seed=self.seed,
            epoch=key.epoch,
            position=key.position,
            index=key.index,
            partners=key.partners,
            boxes=lambda index: self.index.labels(index)[1],
            stretch=self.store.stretch,
        )

    def settings_of(self, key: SampleKey) -> AugmentSettings:
        """What augmentation may do to one sample."""
        if key.mosaic_closed:
            return self.closed_settings
        if self.policy is None:
            return self.settings
        return self.policy.settings(self.settings, seed=self.seed, epoch=key.epoch, position=key.position)

    def key_of(self, i: int) -> SampleKey:
        """The key of image i for who knows no epoch; what it is augmented by, torch's random numbers decide."""
        return training_key(i, len(self), mosaic_closed=bool(self._closed))

    @property
    def mosaic(self) -> bool:
        """Whether images may be joined to mosaics; False ends that, as `close_mosaic` does, and nothing begins it anew.

        Raises:
            ValueError: it is set to something else than False.
        """
        return self.settings.mosaic > 0 and not self._closed

    @mosaic.setter
    def mosaic(self, on: object) -> None:
        refuse_to_open_mosaic(on)
        self.close_mosaic()

    def close_mosaic(self, hyp: object = None) -> None:
        """Go on without mosaic, mixup and cutmix for the rest of the run; ``hyp`` is not needed.

        Samples asked for by number are so from here on, in workers too. A loader of ours follows at the start of an
        epoch, so that no sample depends on how far its workers were ahead.
        """
        self.closed_by_hand = True
        self.close_numbered()

    def close_numbered(self) -> None:
        """Give samples that are asked for by number without mosaic, mixup and cutmix from here on, in workers too."""
        self._closed.fill_(True)

    def make_batch(self, keys: Sequence[SampleKey]) -> dict[str, Any]:
        """One collated batch (see `eyas.types.Batch`); each source image is loaded once for all samples.

        In the place of an image that cannot be loaded comes the next one of the order that can, in mosaics and mixtures
        too; `take_bad` tells of it.

        Raises:
            SampleError: none of many images can be loaded, or a user transform fails; names the image file.
        """
        if not self.hsv_apart:
            return self.finished(keys)
        gains = np.zeros((len(keys), 3), np.float32)
        return self._batch(keys, gains) | {"hsv": torch.from_numpy(gains)}

    def finished(self, keys: Sequence[SampleKey]) -> dict[str, Any]:
        """The same with colours jittered, whoever else was to do that."""
        return self._batch(keys, None)

    def _batch(self, keys: Sequence[SampleKey], gains: np.ndarray | None) -> dict[str, Any]:
        """One collated batch; its colours are jittered, or `gains` (B, 3) becomes by how much they are to be."""
        buffer, images = _new_images(len(keys), (self.imgsz, self.imgsz))
        cache = dict(self._held)
        apart = [None] * len(keys) if gains is None else gains
        made = [self._sample(key, cache, images[i], apart[i]) for i, key in enumerate(keys)]
        rows, areas = [row for row, _, _ in made], [area for _, area, _ in made]
        window = keys[-1].partners
        self._held = {index: cache[index] for index in window if index in cache}
        own = [index for _, _, index in made]
        originals = self.index.shapes[own].tolist()
        batch = _collate(self.index, own, buffer, rows, areas)
        batch["ori_shape"] = [(h, w) for h, w in originals]
        batch["resized_shape"] = [(self.imgsz, self.imgsz)] * len(keys)
        batch["ratio_pad"] = [((self.imgsz / h, self.imgsz / w), (0.0, 0.0)) for h, w in originals]
        return batch

    def _sample(
        self, key: SampleKey, cache: dict[int, np.ndarray], out: np.ndarray, gains: np.ndarray | None
    ) -> tuple[Row, Row, int]:
        """Objects and areas to ignore of a sample that is drawn into `out`, and its image.

        Which images stand in for bad ones is a function of the key and the files: not of who loads what, or when.
        """
        stead: dict[int, int] = {}  # bad image -> the one in its place
        while True:
            good = replace(
                key,
                index=_in_place(key.index, stead),
                partners=tuple(_in_place(partner, stead) for partner in key.partners),
            )
            try:
                return *self._drawn(good, cache, out, gains), good.index
            except UnloadableImage as error:
                self.note_bad(error)
                if len(stead) == STEADS:
                    raise
                stead[error.index] = self._next_of_order(error.index, key, stead)

    def _next_of_order(self, index: int, key: SampleKey, bad: Collection[int]) -> int:
        """The image after a bad one in the window of the order that its sample knows, then in the data set.

        Raises:
            SampleError: there is none but bad ones.
        """
        order = key.partners
        place = order.index(index) if index in order else 0
        after = itertools.chain(order[place:], order[:place], range(index + 1, len(self)), range(index))
        good = next((i for i in after if i != index and i not in bad), None)
        if good is None:
            raise SampleError(f"none of the images can be loaded, {self.index.path(index)} among them")
        return good

    def _drawn(
        self, key: SampleKey, cache: dict[int, np.ndarray], out: np.ndarray, gains: np.ndarray | None
    ) -> tuple[Row, Row]:
        params = self.params(key)
        if gains is not None:
            gains[:] = params.hsv
            params = replace(params, hsv=np.zeros(3))
        placed = place_labels(params, self.index.labels)
        kind, ignored = place_areas(params, self.index.areas, placed.cut) if len(self.index.ignored) else NO_AREAS

        def load(index: int) -> np.ndarray:
            if index not in cache:
                cache[index] = self.load_image(index)[0]
            return cache[index]

        render(params, placed.cut, load, out)
        cls, boxes = placed.cls, placed.boxes
        if self.transforms:
            # Areas go with the objects, as classes beyond those of the data, so that what moves boxes moves them too.
            nc, together = len(self.index.names), np.concatenate((boxes, ignored))
            cls, boxes = self._apply_transforms(key, out, np.concatenate((cls, nc + kind)), together)
            is_area = cls >= nc
            kind, ignored = (cls[is_area] - nc).astype(np.int64), boxes[is_area]
            cls, boxes = cls[~is_area], boxes[~is_area]
        size = self.imgsz, self.imgsz
        return (cls, _normalise(boxes, *size)), (kind, _normalise(ignored, *size))

    def _apply_transforms(self, key: SampleKey, out: np.ndarray, cls: np.ndarray, boxes: np.ndarray) -> Row:
        image, labels = out, cls.astype(np.int64)
        with seeded(generator(Purpose.TRANSFORMS, seed=self.seed, epoch=key.epoch, position=key.position)):
            for transform in self.transforms:
                image, boxes, labels = _call_transform(transform, image, boxes, labels, self.index.path(key.index))
        if image is not out:
            out[:] = image
        boxes = clip_to(boxes, (0, 0, self.imgsz, self.imgsz))
        keep = box_areas(boxes) > 0
        return labels[keep].astype(np.float32), boxes[keep]


def _in_place(index: int, stead: Mapping[int, int]) -> int:
    """The image that stands in for another, which may have been found bad itself."""
    while index in stead:
        index = stead[index]
    return index


class EvalDataset(Numbered):
    """Letterboxed images in a fixed order, for validation.

    Args:
        index: images and labels.
        store: loads images; its `imgsz` must be `imgsz`.
        imgsz: long side in pixels.
        stride: batch sides are multiples of this, in pixels.
        rect: sort by aspect ratio and give every 32 neighbours the smallest rectangle that holds them (spec core E.7);
            False: squares in the order of the data set.
        pad: added to each side of a rectangle, in strides. The default 0 evaluates square images at exactly `imgsz`,
            the size they are trained at; 0.5, common elsewhere, makes that 160 px of 128 (spec core I.30): a third of
            the work would go into padding.
        batch: most images in a batch, all of one rectangle; over all ranks equal. Never changes what an image is padded
            to, so that any two who measure the same images see the same pixels.

    Attributes:
        batches: list of (dataset indices, (H, W)), in order. Never depends on ranks or workers.
    """

    def __init__(
        self,
        index: ImageIndex,
        store: ImageStore,
        *,
        imgsz: int,
        stride: int = 32,
        rect: bool = True,
        pad: float = 0.0,
        batch: int = 16,
    ) -> None:
        _check_store(store, imgsz)
        self.index, self.store, self.imgsz, self.batch = index, store, imgsz, batch
        self.rect = rect and not store.stretch  # stretched images are square already
        order, square = np.arange(len(index)), math.ceil(imgsz / stride) * stride
        shapes = [(square, square)] * len(order)
        if self.rect:
            aspects = index.shapes[:, 0] / np.maximum(index.shapes[:, 1], 1)
            order = np.argsort(aspects, kind="stable")
            shapes = shared_rectangles(aspects[order], imgsz, stride, pad)
        self.batches = batches_of_one_shape(order, shapes, batch)
        self._shapes = np.empty((len(order), 2), np.int64)
        self._shapes[order] = np.array(shapes, np.int64).reshape(-1, 2)

    def key_of(self, i: int) -> EvalKey:
        """The key of image i, in the rectangle that it is evaluated in."""
        height, width = self._shapes[i].tolist()
        return EvalKey(i, (height, width))

    def make_batch(self, keys: Sequence[EvalKey]) -> dict[str, Any]:
        """One collated batch (see `eyas.types.Batch`); all keys carry the same shape.

        Images that cannot be loaded are left out; `take_bad` tells of them.

        Raises:
            UnloadableImage: none of them can; names the image file.
        """
        height, width = keys[0].shape
        buffer, images = _new_images(len(keys), (height, width))
        own: list[int] = []
        originals: list[tuple[int, int]] = []
        rows: list[Row] = []
        areas: list[Row] = []
        ratio_pads = []
        none: UnloadableImage | None = None
        for index in (key.index for key in keys):
            try:
                image, (h, w), _ = self.load_image(index)
            except UnloadableImage as error:
                self.note_bad(error)
                none = error
                continue
            fit = letterbox_into(image, images[len(own)])
            own.append(index)
            originals.append((h, w))
            scale = np.array((fit.width, fit.height, fit.width, fit.height), np.float64)
            for found, (what, boxes) in ((rows, self.index.labels(index)), (areas, self.index.areas(index))):
                found.append((what, (boxes * scale + (fit.left, fit.top, 0, 0)) / (width, height, width, height)))
            ratio_pads.append(((fit.height / h, fit.width / w), (float(fit.left), float(fit.top))))
        if none is not None and not own:
            raise none
        batch = _collate(self.index, own, buffer[: len(own)], rows, areas)
        batch["ori_shape"] = originals
        batch["resized_shape"] = [(height, width)] * len(own)
        batch["ratio_pad"] = ratio_pads
        return batch


def refuse_to_open_mosaic(on: object) -> None:
    """Refuse what somebody sets as a data set's ``mosaic``, unless it is False.

    Raises:
        ValueError: says what decides it.
    """
    if on is not False:
        raise ValueError(
            f"dataset.mosaic={on!r} has no effect: only False can be set, and ends mosaic, mixup and cutmix for the "
            "rest of the run. How often there are mosaics is decided by the option mosaic= before the run, and how "
            "many last epochs go without by close_mosaic=."
        )


def shared_rectangles(aspects: np.ndarray, imgsz: int, stride: int, pad: float) -> list[tuple[int, int]]:
    """(H, W) of each image, from all aspect ratios h / w in order: one rectangle for every `SHARING` neighbours."""
    groups = [aspects[start : start + SHARING] for start in range(0, len(aspects), SHARING)]
    return [shape for group in groups for shape in [rect_shape(group, imgsz, stride, pad)] * len(group)]


def batches_of_one_shape(
    order: np.ndarray, shapes: Sequence[tuple[int, int]], batch: int
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """(indices, (H, W)) of batches of at most `batch` images: each run of equal shapes is cut for itself."""
    batches, first = [], 0
    for shape, run in itertools.groupby(shapes):
        stop = first + len(list(run))
        batches += [(order[start : min(start + batch, stop)], shape) for start in range(first, stop, batch)]
        first = stop
    return batches


def rect_shape(aspects: np.ndarray, imgsz: int, stride: int, pad: float) -> tuple[int, int]:
    """(H, W) in pixels of the rectangle for images with these aspect ratios h / w (spec core E.7)."""
    height, width = 1.0, 1.0
    if aspects.max() < 1:
        height = float(aspects.max())
    elif aspects.min() > 1:
        width = 1.0 / float(aspects.min())
    # The images themselves have whole pixels: round up to one first, so that 32.000001 px do not cost a stride.
    sides = (math.ceil(round(side * imgsz, 6)) / stride + pad for side in (height, width))
    first, second = (math.ceil(side) * stride for side in sides)
    return first, second


def _check_store(store: ImageStore, imgsz: int) -> None:
    if store.imgsz != imgsz:
        raise ValueError(
            f"the image store loads at imgsz={store.imgsz}, the data set asks for imgsz={imgsz}; give both the same"
        )


def _new_images(count: int, shape: tuple[int, int]) -> tuple[torch.Tensor, np.ndarray]:
    """A uint8 image buffer as (B, 3, H, W) tensor and as (B, H, W, 3) array of the same memory.

    The tensor is channels_last without any copy, the layout in which convolutions are fastest on CPU and GPU. In a
    worker it lies in shared memory from the start, so that handing it to the training process copies nothing either.
    """
    buffer = torch.empty((count, *shape, 3), dtype=torch.uint8)
    if torch.utils.data.get_worker_info() is not None:
        buffer.share_memory_()
    return buffer.permute(0, 3, 1, 2), buffer.numpy()


def _normalise(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 4) xyxy pixels -> (n, 4) float64 cxcywh in units of the image."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return np.concatenate(((low + high) / 2, high - low), axis=1) / (width, height, width, height)


def _collate(
    index: ImageIndex, own: list[int], images: torch.Tensor, rows: Sequence[Row], areas: Sequence[Row]
) -> dict[str, Any]:
    """The parts of a batch that training and evaluation share; areas to ignore only of data that have some.

    `max_objects` is known on the host, so that a loss needs no device sync to size its tensors.
    """
    counts = [len(cls) for cls, _ in rows]
    cls = np.concatenate([cls for cls, _ in rows]).astype(np.float32).reshape(-1, 1)
    boxes = np.concatenate([boxes for _, boxes in rows]).astype(np.float32).reshape(-1, 4)
    return {
        "img": images,
        "cls": torch.from_numpy(cls),
        "bboxes": torch.from_numpy(boxes),
        "batch_idx": torch.from_numpy(np.repeat(np.arange(len(rows), dtype=np.float32), counts)),
        "index": torch.from_numpy(np.asarray(own, dtype=np.int64)),
        "max_objects": max(counts),
        "im_file": [index.path(i) for i in own],
    } | (_collate_areas(index, areas) if len(index.ignored) else {})


def _collate_areas(index: ImageIndex, areas: Sequence[Row]) -> dict[str, Any]:
    """The parts of a batch that tell what to ignore."""
    counts = [len(kind) for kind, _ in areas]
    boxes = np.concatenate([boxes for _, boxes in areas]).astype(np.float32).reshape(-1, 4)
    # Only the kinds of this batch: where images differ in what was annotated, there are as many kinds as images.
    kinds, kind = np.unique(np.concatenate([kind for kind, _ in areas]).astype(np.int64), return_inverse=True)
    return {
        "ignored": torch.from_numpy(boxes),
        "ignored_idx": torch.from_numpy(np.repeat(np.arange(len(areas), dtype=np.int64), counts)),
        "ignored_kind": torch.from_numpy(kind.reshape(-1)),
        "ignored_classes": torch.from_numpy(index.ignored_classes[kinds]),
    }


def _call_transform(
    transform: Transform, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, path: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Call one user transform and check what it returns."""
    name = getattr(transform, "__qualname__", type(transform).__qualname__)
    where = f"transform {name!r} on {path}"
    try:
        result = transform(image, boxes, labels)
    except Exception as error:  # the user's own code: anything may come, and the image's name belongs to it
        raise SampleError(f"{where} failed: {type(error).__name__}: {error}", traceback.format_exc()) from error
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise SampleError(f"{where} returned {type(result).__name__}; it must return (image, boxes, labels)")
    new_image, new_boxes, new_labels = result[0], np.asarray(result[1]), np.asarray(result[2])
    if not isinstance(new_image, np.ndarray) or new_image.dtype != np.uint8 or new_image.shape != image.shape:
        got = f"{new_image.dtype} {new_image.shape}" if isinstance(new_image, np.ndarray) else type(new_image).__name__
        raise SampleError(f"{where} returned an image {got}; it must be a uint8 array of shape {image.shape}")
    if new_boxes.size == 0:
        new_boxes = new_boxes.reshape(0, 4)
    if new_boxes.ndim != 2 or new_boxes.shape[1] != 4 or new_boxes.dtype.kind not in "fiu":
        raise SampleError(
            f"{where} returned boxes {new_boxes.dtype} {new_boxes.shape}; "
            "they must be numbers of shape (n, 4), xyxy in pixels"
        )
    if not np.isfinite(new_boxes).all():
        raise SampleError(f"{where} returned boxes with NaN or infinity")
    if new_labels.shape != (len(new_boxes),):
        raise SampleError(
            f"{where} returned {len(new_boxes)} boxes and labels of shape {new_labels.shape}; "
            "there must be one label for each box"
        )
    if new_labels.size and (
        new_labels.dtype.kind not in "fiu" or (new_labels != np.floor(new_labels)).any() or new_labels.min() < 0
    ):
        raise SampleError(f"{where} returned labels that are not class numbers 0, 1, 2, ...")
    return new_image, new_boxes.astype(np.float32), new_labels.astype(np.int64)
