"""Data sets by plain numbers: what scripts and torch's own ``DataLoader`` ask of one, beside batches from keys.

Our own loaders ask for whole batches by keys that hold epoch and position, so that a sample is a function of them. Who
asks by a number has neither: what is random in such a sample is then drawn from torch's own random numbers.
"""

from __future__ import annotations

import operator
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch

from eyas.augment.random import Purpose, generator
from eyas.data.errors import ChangedFile, SampleError, UnloadableImage
from eyas.data.index import ImageIndex
from eyas.data.sampler import EvalKey, SampleKey
from eyas.data.seeded import seeded
from eyas.data.store import ImageStore

Sample = dict[str, Any]
"""One image: ``img`` (3, H, W) uint8, ``cls`` (n, 1), ``bboxes`` (n, 4) normalised cxcywh, and anything else."""

PARTNERS = 15  # images that one asked for by number may be mixed with


class Numbered:
    """``dataset[i]`` and what else scripts use of a data set, on top of whole batches from keys.

    Attributes:
        index: images and labels.
        store: loads images.
    """

    index: ImageIndex
    store: ImageStore

    def make_batch(self, keys: Sequence[Any]) -> dict[str, Any]:
        """One collated batch (see `eyas.types.Batch`)."""
        raise NotImplementedError

    def finished(self, keys: Sequence[Any]) -> dict[str, Any]:
        """The same with nothing left to be done to its images."""
        return self.make_batch(keys)

    def key_of(self, i: int) -> Any:
        """The key of image i for who knows no epoch."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Sample:
        """Image i as a sample of its own; `collate_fn` makes batches of several.

        Raises:
            IndexError: there is no such image.
            SampleError: it cannot be loaded; names the file.
        """
        number = operator.index(i)
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number} of {len(self)}")
        batch = self.finished([self.key_of(number % len(self))])
        for why in self.take_bad().values():  # who asks for this image wants no other
            raise SampleError(why)
        whole = {name: batch[name] for name in ("cls", "bboxes", "batch_idx")}
        return whole | {name: batch[name][0] for name in ("img", "im_file", "ori_shape", "resized_shape", "ratio_pad")}

    @cached_property
    def im_files(self) -> list[str]:
        """Path of every image, made when it is first asked for."""
        return [self.index.path(i) for i in range(len(self))]

    @cached_property
    def labels(self) -> list[dict[str, Any]]:
        """Labels of every image as read from its file, made when they are first asked for; to be read, not changed."""
        return [self._label(i) for i in range(len(self))]

    def load_image(self, i: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Image i as it is loaded for training, its (h, w) in the file, and its (h, w) as loaded.

        The image is (h, w, 3) uint8 BGR and read-only: copy it before changing it.

        Raises:
            UnloadableImage: it cannot be loaded; names the file.
            SampleError: it, or its labels, are others than were indexed.
        """
        try:
            image = self.store.load(i)
        except ChangedFile as error:
            raise SampleError(str(error), traceback.format_exc()) from error
        except (OSError, ValueError, cv2.error) as error:
            path = self.index.path(i)
            message = str(error) if path in str(error) else f"cannot load image {path}: {error}"
            raise UnloadableImage(message, traceback.format_exc(), i) from error
        height, width = self.index.shapes[i].tolist()
        return image, (height, width), image.shape[:2]

    def note_bad(self, error: UnloadableImage) -> None:
        """Remember an image that could not be loaded, until `take_bad`."""
        self._bad[self.index.path(error.index)] = str(error)

    def take_bad(self) -> dict[str, str]:
        """Return {path: why} of the images that could not be loaded since the last time this was asked."""
        bad, self._bad = self._bad, {}
        return bad

    @cached_property
    def _bad(self) -> dict[str, str]:
        return {}

    @staticmethod
    def collate_fn(samples: Sequence[Sample]) -> dict[str, Any]:
        """One batch of several samples, see `collate`."""
        return collate(samples)

    def _label(self, i: int) -> dict[str, Any]:
        cls, boxes = self.index.labels(i)
        height, width = self.index.shapes[i].tolist()
        known = {"im_file": self.index.path(i), "shape": (height, width), "cls": cls.reshape(-1, 1), "bboxes": boxes}
        return known | {"normalized": True, "bbox_format": "xywh"}


def training_key(i: int, images: int, *, mosaic_closed: bool) -> SampleKey:
    """The key of image i for who knows no epoch: torch's random numbers stand for it, and choose its partners."""
    epoch, partners = int(torch.randint(2**62, ())), torch.randint(images, (PARTNERS,)).tolist()
    return SampleKey(epoch, i, i, (i, *partners), mosaic_closed)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One batch (see `eyas.types.Batch`) of samples: images stacked, rows of objects joined, all else as lists.

    Raises:
        ValueError: a sample has no image, classes or boxes, or images differ in size.
    """
    missing = [name for name in ("img", "cls", "bboxes") if any(name not in sample for sample in samples)]
    if missing:
        raise ValueError(f"a sample has no {missing[0]!r}; it needs img (3, H, W) uint8, cls (n, 1) and bboxes (n, 4).")
    batch: dict[str, Any] = {name: [sample[name] for sample in samples] for name in samples[0]}
    images = [torch.as_tensor(image) for image in batch["img"]]
    if len(shapes := {tuple(image.shape) for image in images}) > 1:
        raise ValueError(f"images of a batch have the shapes {' and '.join(map(str, sorted(shapes)))}; make them one.")
    cls = [torch.as_tensor(rows).float().reshape(-1, 1) for rows in batch["cls"]]
    counts = torch.tensor([len(rows) for rows in cls])
    batch |= {"img": torch.stack(images), "cls": torch.cat(cls), "max_objects": int(counts.max())}
    batch["bboxes"] = torch.cat([torch.as_tensor(rows).float().reshape(-1, 4) for rows in batch["bboxes"]])
    batch["batch_idx"] = torch.arange(len(samples), dtype=torch.float32).repeat_interleave(counts)
    return batch


def data_sets(loader: object) -> Iterator[object]:
    """Yield the data sets behind a loader, one inside the other."""
    part = getattr(loader, "dataset", None)  # a user's own loader may read anything
    while part is not None:
        yield part
        part = getattr(part, "dataset", None)


@runtime_checkable
class MapStyle(Protocol):
    """Any data set that gives its samples by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


@runtime_checkable
class Collates(Protocol):
    """A data set that makes batches of its own samples."""

    @property
    def collate_fn(self) -> Callable[[list[Any]], dict[str, Any]]: ...


class SamplesOf:
    """A map-style data set of the user's, as our loaders ask for one: whole batches from keys.

    What its samples draw from Python's, NumPy's and PyTorch's random numbers is a function of (seed, epoch, position),
    as in a data set of ours.

    Args:
        dataset: gives samples by number; its `collate_fn`, if it has one, makes batches of them, else `collate`.
        imgsz: px of a side of its images, as far as memory has to be reckoned with.
        seed: seed of the run.
        batch: images in a batch of evaluation.
    """

    def __init__(self, dataset: MapStyle, *, imgsz: int, seed: int = 0, batch: int = 16) -> None:
        self.dataset, self.imgsz, self.seed, self.batch = dataset, imgsz, seed, batch
        self.collate = dataset.collate_fn if isinstance(dataset, Collates) else collate

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def batches(self) -> list[tuple[np.ndarray, tuple[int, int]]]:
        """(indices, (H, W)) of batches of evaluation, in the order of the data set."""
        order = np.arange(len(self))
        return [(order[i : i + self.batch], (self.imgsz, self.imgsz)) for i in range(0, len(order), self.batch)]

    def make_batch(self, keys: Sequence[SampleKey | EvalKey]) -> dict[str, Any]:
        """One batch, made by the user's code.

        Raises:
            SampleError: that code failed; names the data set and the sample.
        """
        samples = [self._sample(key) for key in keys]
        batch = self._called(f"{type(self.dataset).__name__}.collate_fn()", self.collate, samples)
        return self._told(keys) | batch

    def _told(self, keys: Sequence[SampleKey | EvalKey]) -> dict[str, Any]:
        """What a validation wants to know of each image, for samples that do not tell: nothing was resized."""
        count, shape = len(keys), (self.imgsz, self.imgsz)
        names = [f"{type(self.dataset).__name__}[{key.index}]" for key in keys]
        unchanged = ((1.0, 1.0), (0.0, 0.0))
        return {
            "im_file": names,
            "ori_shape": [shape] * count,
            "resized_shape": [shape] * count,
            "ratio_pad": [unchanged] * count,
        }

    def _sample(self, key: SampleKey | EvalKey) -> Any:
        epoch, position = (key.epoch, key.position) if isinstance(key, SampleKey) else (0, key.index)
        with seeded(generator(Purpose.TRANSFORMS, seed=self.seed, epoch=epoch, position=position)):
            return self._called(f"{type(self.dataset).__name__}[{key.index}]", self.dataset.__getitem__, key.index)

    @staticmethod
    def _called(what: str, call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except Exception as error:  # the user's own code: anything may come, and the sample's number belongs to it
            raise SampleError(f"{what} failed: {type(error).__name__}: {error}", traceback.format_exc()) from error
