"""``ultralytics.data``: a data set of single images that a script may subclass, and what collates them.

Stock training makes whole batches at once (`eyas.data.dataset`), and `build_yolo_dataset` gives that. This class is for
scripts that make or subclass a ``YOLODataset`` themselves: images and labels come from Eyas' index and store, and
``transforms`` are the steps of `eyas.compat.answers.augment`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eyas.augment.letterbox import STRIDE
from eyas.augment.settings import AugmentSettings
from eyas.compat.answers.augment import Compose, Format, Labels, LetterBox, v8_transforms
from eyas.compat.answers.instance import Instances
from eyas.data.dataset import rect_shape
from eyas.data.dataset_yaml import SPLITS
from eyas.data.decode import read_image, resize, resized_shape
from eyas.data.formats import LabelSource
from eyas.data.index import build_index
from eyas.data.numbered import collate
from eyas.data.store import ImageStore


class YOLODataset(Dataset[Labels]):
    """Images with their boxes, one by one.

    Args:
        img_path: folder, ``.txt`` list, image, or several of them.
        imgsz: longer side in pixels. augment: change images at random; else only letterbox them.
        hyp: options of augmentation by attribute; None for the defaults.
        prefix: what names the split in messages, such as ``"train: "``.
        rect: a rectangle for each batch of ``batch_size`` neighbours in the order of aspect ratios, not a square;
            its sides are multiples of ``stride``, ``pad`` strides are added.
        cache, single_cls, classes, fraction: as the options of these names.
        task: there are only objects to detect.
        data: description with ``names``, as `check_det_dataset` returns it.

    Attributes, besides the arguments under their names:
        im_files: paths. ni: number of images.
        labels: a dict for each: ``im_file``, ``shape`` (h, w), ``cls`` (n, 1), ``bboxes`` (n, 4) shares of the image as
            centre and size.
        transforms: steps from `get_image_and_label` to tensors.
    """

    stretch = False

    def __init__(
        self,
        img_path: str | Path | Sequence[str | Path] | LabelSource,
        imgsz: int = 640,
        cache: bool | str | None = False,
        augment: bool = True,
        hyp: Any = None,
        prefix: str = "",
        rect: bool = False,
        batch_size: int = 16,
        stride: int = STRIDE,
        pad: float = 0.5,
        single_cls: bool = False,
        classes: Sequence[int] | None = None,
        fraction: float = 1.0,
        *,
        data: Mapping[str, Any] | None = None,
        task: str = "detect",
    ) -> None:
        if task != "detect":
            raise ValueError(f"task={task!r} is not supported; Eyas detects objects (task='detect').")
        if not data or "names" not in data:
            raise ValueError("YOLODataset needs data={'names': {0: ...}}: give it what check_det_dataset() returns.")
        self.img_path, self.imgsz, self.cache, self.augment, self.hyp = img_path, imgsz, cache, augment, hyp
        self.prefix, self.rect, self.batch_size, self.stride, self.pad = prefix, rect, batch_size, stride, pad
        self.single_cls, self.classes, self.fraction = single_cls, classes, fraction
        self.data, self.task = data, task
        self.use_segments = self.use_keypoints = self.use_obb = False
        places = [img_path] if isinstance(img_path, str | Path) else img_path
        self.index = build_index(
            places,
            names=data["names"],
            single_cls=single_cls,
            classes=classes,
            fraction=fraction,
            split=next((name for name in SPLITS if name in prefix), "train"),  # in colours, it may be
        )
        self.store = ImageStore(self.index, imgsz=imgsz, cache=cache or False, stretch=self.stretch)
        self.row = {self.index.path(i): i for i in range(len(self.index))}
        self.im_files = [self.index.path(i) for i in range(len(self.index))]
        self.labels: list[dict[str, Any]] = self.get_labels()
        self.ni = len(self.labels)
        self.batch_shapes: list[tuple[int, int]] = []
        if rect:
            self.set_rectangle()
        self.transforms = self.build_transforms(hyp)
        self.closed = False
        self._closing = torch.zeros((), dtype=torch.bool).share_memory_()  # seen by workers that have a copy of this

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Labels:
        """One image as tensors, see `Format`."""
        if self._closing and not self.closed:
            self.transforms, self.closed = self.build_transforms(settings_in(self.hyp).closed()), True
        return self.transforms(self.get_image_and_label(index))

    def get_labels(self) -> list[dict[str, Any]]:
        """Return the labels of all images."""
        return [self._label(file, i) for i, file in enumerate(self.im_files)]

    def _label(self, file: str, i: int) -> dict[str, Any]:
        cls, boxes = self.index.labels(i)
        rows = {"cls": cls.reshape(-1, 1).copy(), "bboxes": boxes.copy(), "segments": [], "keypoints": None}
        shape = tuple(self.index.shapes[i].tolist())
        return {"im_file": file, "shape": shape, **rows, "normalized": True, "bbox_format": "xywh"}

    def set_rectangle(self) -> None:
        """Sort by aspect ratio, and choose the rectangle of each batch."""
        aspects = np.array([label["shape"][0] / label["shape"][1] for label in self.labels])
        order = np.argsort(aspects, kind="stable")
        self.labels = [self.labels[i] for i in order]
        self.im_files = [label["im_file"] for label in self.labels]
        starts = range(0, len(order), self.batch_size)
        batches = [aspects[order[start : start + self.batch_size]] for start in starts]
        self.batch_shapes = [rect_shape(batch, self.imgsz, self.stride, self.pad) for batch in batches]

    def load_image(self, i: int, rect_mode: bool = True) -> tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]:
        """Return an image (h, w, 3) BGR with its longer side at ``imgsz``, (h, w) of its file, and its own."""
        file = self.labels[i]["im_file"]
        if file in self.row:
            image, original = self.store.load(self.row[file]), self.index.shapes[self.row[file]].tolist()
        else:  # a file that a subclass added
            image = read_image(file)
            original = image.shape[:2]
            image = resize(image, resized_shape((original[0], original[1]), self.imgsz, stretch=self.stretch))
        image = image if rect_mode else resize(image, (self.imgsz, self.imgsz))
        return image.copy(), (original[0], original[1]), (image.shape[0], image.shape[1])

    def get_image_and_label(self, index: int) -> Labels:
        """Return the description of an image before any step."""
        labels: Labels = copy.deepcopy(self.labels[index])
        labels.pop("shape", None)
        labels["img"], labels["ori_shape"], labels["resized_shape"] = self.load_image(index)
        (h0, w0), (h, w) = labels["ori_shape"], labels["resized_shape"]
        labels["ratio_pad"] = h / h0, w / w0
        if self.rect:
            labels["rect_shape"] = self.batch_shapes[index // self.batch_size]
        return self.update_labels_info(labels)

    def update_labels_info(self, label: Labels) -> Labels:
        """Return the description with its boxes as `Instances`."""
        boxes, form, normalized = label.pop("bboxes"), label.pop("bbox_format"), label.pop("normalized")
        segments, keypoints = label.pop("segments", None), label.pop("keypoints", None)
        label["instances"] = Instances(boxes, segments, keypoints, bbox_format=form, normalized=normalized)
        return label

    def build_transforms(self, hyp: Any = None) -> Compose:
        """Return the steps from a description to tensors."""
        if not self.augment:
            return Compose([LetterBox((self.imgsz, self.imgsz), scaleup=False), Format()])
        settings = settings_in(hyp)
        steps = v8_transforms(self, self.imgsz, settings.closed() if self.rect else settings, self.stretch)
        steps.append(Format(bgr=settings.bgr))
        return steps

    def close_mosaic(self, hyp: Any = None) -> None:
        """Go on without mosaic and mixing, in workers too; ``hyp`` takes the place of the options so far."""
        self.hyp, self.closed = self.hyp if hyp is None else hyp, False
        self._closing.fill_(True)

    @staticmethod
    def collate_fn(batch: Sequence[Labels]) -> dict[str, Any]:
        """Return a batch of images: see `eyas.types.Batch`."""
        shared = [key for key in batch[0] if all(key in item for item in batch)]
        return collate([{key: item[key] for key in shared} for item in batch])


class RTDETRDataset(YOLODataset):
    """Images stretched to the square input, as the RT-DETR family takes them."""

    stretch = True

    def build_transforms(self, hyp: Any = None) -> Compose:
        """Return the steps from a description to tensors; a stretched image needs no letterbox."""
        return (
            super().build_transforms(hyp)
            if self.augment
            else Compose([LetterBox(self.imgsz, scale_fill=True), Format()])
        )


def settings_in(hyp: Any) -> AugmentSettings:
    """Return what augmentation may do by the attributes of ``hyp``; what it lacks has its default."""
    return AugmentSettings(
        **{name: getattr(hyp, name) for name in AugmentSettings.__dataclass_fields__ if hasattr(hyp, name)}
    )
