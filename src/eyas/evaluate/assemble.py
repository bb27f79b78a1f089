"""The one assembly of an evaluation from options: which images, padded to what, in which batches, measured how.

Trainer, ``val`` and whatever else measures a model build their loader and validator here, so that they see the same
pixels and count in the same way. What an image is padded to depends on the split and on ``imgsz`` alone: neighbours in
the order of aspect ratios share a rectangle (``EvalDataset``), whoever asks, in batches of any size, in any number of
processes. The batch itself decides only how fast it goes, and the last bits of a result: kernels add up in another
order for another batch. A model therefore remembers the batch of its training's evaluations, and is measured in the
same one unless another is typed: the numbers are then equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from eyas.augment.letterbox import STRIDE, padded
from eyas.config import TrainOptions
from eyas.data.dataset import EvalDataset
from eyas.data.dataset_yaml import check_dataset
from eyas.data.depth import White
from eyas.data.formats import LabelSource
from eyas.data.formats.yolo import TextRules
from eyas.data.ignore import rules_of, with_ignored
from eyas.data.index import ImageIndex, build_index
from eyas.data.loader import EpochLoader, build_eval_loader, default_workers
from eyas.data.numbered import SamplesOf
from eyas.data.store import ImageStore
from eyas.device import amp_dtype
from eyas.evaluate.close_up import CloseUp
from eyas.evaluate.tiling import Tiling
from eyas.evaluate.validator import DetectionValidator

EVAL_BATCH = 16  # images at a time, for a model that remembers no training
LARGEST_BATCH = 32
# What validator and predictor take from options of the same name; what is unset there, they choose themselves.
THRESHOLDS = ("conf", "iou", "max_det", "nms", "agnostic_nms")


def batch_beside(training: int) -> int:
    """Return images in a batch of evaluation, for a training with so many per step over all processes.

    Twice as many fit, since no gradients are kept. Being one number for the whole run, it does not change with the
    processes that share it.
    """
    return min(2 * training, LARGEST_BATCH)


def described_data(options: TrainOptions, splits: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the checked data description (``eyas.data.check_dataset``); one class under ``single_cls``."""
    data = check_dataset(
        options.data or "",
        splits=splits,
        optional=optional,
        ids_start=options.ids_start,
        val_fraction=options.val_fraction,
        remote_cache=options.remote_cache,
    )
    data = with_ignored(data, options.ignore)
    if not options.single_cls:
        return data
    one = {"names": {0: "item"}, "nc": 1, "class_names": data["names"]}
    return data | one | {"ignore": data["ignore"].for_one_class(data["nc"])}


def split_index(
    options: TrainOptions,
    data: Mapping[str, Any],
    images: Any,
    split: str,
    fraction: float = 1.0,
    white: White | None = None,
) -> ImageIndex:
    """Return images and labels of a split as flat arrays.

    Args:
        options: ``single_cls`` and ``classes`` choose and change labels.
        data: as ``described_data`` returned it; of a user's own making, it may lack what has a default.
        images: the entry of the split in it: folders, lists and files.
        split: its name, for messages.
        fraction: share of the images, as ``eyas.data.build_index`` takes it.
        white: what is white in images of more than 8 bits, unless the description says so.
    """
    top = data.get("value_range")
    return build_index(
        images,
        names=data["names"],
        single_cls=options.single_cls,
        classes=options.classes,
        fraction=fraction,
        val_fraction=data.get("val_fraction"),
        rules=TextRules(data.get("ids"), data.get("keypoints"), data.get("path")),
        ignore=rules_of(data),
        white=White.everywhere(top) if top else white,
        split=split,
    )


def images_at_a_time(options: TrainOptions) -> int | None:
    """Return the batch that was given for an evaluation or prediction; None for none.

    Raises:
        ValueError: ``batch=auto``.
    """
    if options.batch == "auto":
        raise ValueError("batch=auto is for a training, whose memory it measures: give a number, or leave batch out.")
    return options.batch


def eval_dataset(index: ImageIndex, store: ImageStore, batch: int | None = None, *, rect: bool = True) -> EvalDataset:
    """Return the images of an index as they are evaluated, ``EVAL_BATCH`` at a time unless told otherwise."""
    return EvalDataset(index, store, imgsz=store.imgsz, stride=STRIDE, rect=rect, batch=batch or EVAL_BATCH)


def eval_loader(
    options: TrainOptions, dataset: EvalDataset | SamplesOf, device: torch.device, rank: int = 0, world_size: int = 1
) -> EpochLoader:
    """Return the loader of evaluation batches for ``device``; each rank takes a run of whole ones."""
    return build_eval_loader(
        dataset,
        workers=default_workers(options.workers, device),
        rank=rank,
        world_size=world_size,
        pin_memory=device.type == "cuda",
        bad_images=options.bad_images,
    )


def split_loader(
    options: TrainOptions,
    data: Mapping[str, Any],
    device: torch.device,
    *,
    stretch: bool,
    rect: bool = True,
    white: White | None = None,
) -> EpochLoader:
    """Return the loader of ``options.split`` for a model that takes stretched images, or keeps their aspect.

    ``rect``: neighbours share a rectangle, else every image is a square. ``white`` is what the model knows of images of
    more than 8 bits.
    """
    index = split_index(options, data, data[options.split], options.split, white=white)
    store = ImageStore(index, imgsz=padded(options.imgsz), stretch=stretch)
    return eval_loader(options, eval_dataset(index, store, images_at_a_time(options), rect=rect), device)


def thresholds(options: TrainOptions) -> dict[str, Any]:
    """Return arguments of validator and predictor that the options set."""
    return {name: options.get(name) for name in THRESHOLDS if options.get(name) is not None}


def tiling(options: TrainOptions) -> Tiling | None:
    """Return how large images are cut; None if they are not."""
    return None if options.tile is None else Tiling(options.tile, options.overlap)


def close_up(options: TrainOptions, white: White | None) -> CloseUp | None:
    """Return how a validation looks at large images; None if as at all others."""
    tiles = tiling(options)
    return None if tiles is None else CloseUp(tiles, padded(options.imgsz), white)


def build_validator(
    options: TrainOptions,
    loader: Iterable[Any],
    *,
    names: Mapping[int, str],
    save_dir: Path,
    device: torch.device,
    kind: type[DetectionValidator] = DetectionValidator,
    close_up: CloseUp | None = None,
) -> DetectionValidator:
    """Return the validator of a loader's images; it measures, and neither prints nor writes until ``with_report``."""
    settings = validator_settings(options, device)
    return kind(loader, names=names, save_dir=save_dir, device=device, verbose=False, close_up=close_up, **settings)


def validator_settings(options: TrainOptions, device: torch.device) -> dict[str, Any]:
    """Return the arguments of a validator that say how it measures on ``device``."""
    return {
        "single_cls": options.single_cls,
        "classes": None if options.single_cls else options.classes,  # ids were already chosen while reading labels
        "amp_dtype": amp_dtype(options.amp, device),
        **thresholds(options),
    }


def with_report(options: TrainOptions, validator: DetectionValidator, labels: object) -> DetectionValidator:
    """Return the validator, told to print the table, draw the pictures and write the files that the options ask for.

    ``labels`` are those of its images, as a described data set holds them: a source of them may number its images.
    """
    if options.save_json and isinstance(labels, LabelSource) and not options.single_cls:
        validator.numbers = labels.numbers()
    validator.report(
        verbose=options.verbose,
        plots=options.plots,
        save_json=options.save_json,
        coco=options.save_json,
        save_txt=options.save_txt,
        save_conf=options.save_conf,
    )
    return validator


def square_loader(
    options: TrainOptions,
    data: Mapping[str, Any],
    split: str,
    device: torch.device,
    *,
    stretch: bool,
    images: float,
    white: White | None = None,
) -> EpochLoader:
    """Return the loader for a model whose input is a square of ``imgsz`` and no other, such as an exported one.

    It gives so many ``images`` of a split, or such a share, chosen as by ``fraction`` (``eyas.data.build_index``).
    """
    index = split_index(options, data, data[split], split, fraction=images, white=white)
    store = ImageStore(index, imgsz=padded(options.imgsz), stretch=stretch)
    return eval_loader(options, eval_dataset(index, store, images_at_a_time(options), rect=False), device)
