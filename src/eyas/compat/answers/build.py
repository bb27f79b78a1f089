"""``ultralytics.data.build``: Eyas' own data sets and loaders by the incumbent's calls, and a loader for any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from eyas import dist
from eyas.augment.letterbox import STRIDE, padded
from eyas.augment.settings import AugmentSettings
from eyas.config import TrainOptions
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.formats import LabelSource
from eyas.data.loader import EpochLoader, build_eval_loader, build_train_loader
from eyas.data.store import ImageStore
from eyas.evaluate import assemble


def build_yolo_dataset(
    cfg: TrainOptions,
    img_path: str | Path | Sequence[str | Path] | LabelSource,
    batch: int,
    data: Mapping[str, Any],
    mode: str = "train",
    rect: bool = False,
    stride: int = STRIDE,
    multi_modal: bool = False,
) -> TrainDataset | EvalDataset:
    """Return the data set that stock training and evaluation use, under options as they stand.

    Args:
        cfg: options of a run, ``trainer.args`` or from `get_cfg`.
        img_path: entry of the split in ``data``: folder, ``.txt`` list, images, or several.
        batch: most images of a batch in evaluation. data: the checked description. mode: ``"train"`` or ``"val"``.
        rect: rectangles in evaluation; training images are square. stride: 32, what sizes are multiples of.

    Raises:
        ValueError: what Eyas has no data set for: ``multi_modal``, another stride, rectangles in training.
    """
    others = {"multi_modal": multi_modal, "stride": int(stride) != STRIDE, "rect": rect and mode == "train"}
    for name, asked in others.items():
        if asked:
            raise ValueError(f"build_yolo_dataset: {name} is not supported here; leave it out.")
    places = [Path(img_path)] if isinstance(img_path, str | Path) else img_path
    index = assemble.split_index(cfg, data, places, mode, cfg.fraction if mode == "train" else 1.0)
    store = ImageStore(index, imgsz=padded(cfg.imgsz), cache=cfg.cache)
    if mode != "train":
        return assemble.eval_dataset(index, store, batch, rect=rect)
    settings = AugmentSettings(**{name: getattr(cfg, name) for name in AugmentSettings.__dataclass_fields__})
    return TrainDataset(index, store, imgsz=store.imgsz, settings=settings, seed=cfg.seed)


def build_dataloader(
    dataset: Any,
    batch: int,
    workers: int,
    shuffle: bool = True,
    rank: int = -1,
    drop_last: bool = False,
    pin_memory: bool = True,
) -> EpochLoader | InfiniteDataLoader:
    """Return the loader of a data set: Eyas' own for what `build_yolo_dataset` made, else torch's.

    Args:
        dataset: of Eyas, or of single items with an optional ``collate_fn``.
        batch: images of a step, over all processes.
        rank: number of this process, -1 alone; several share out the images.
        drop_last: leave out a last batch that is smaller; not for Eyas' own data sets.
    """
    pinned = pin_memory and torch.cuda.is_available()
    if isinstance(dataset, TrainDataset | EvalDataset):
        if drop_last:
            raise ValueError("drop_last is not supported: Eyas trains on every image of an epoch. Leave it out.")
        place: dict[str, Any] = {"rank": max(rank, 0), "world_size": dist.world_size(), "pin_memory": pinned}
        if isinstance(dataset, EvalDataset):
            return build_eval_loader(dataset, workers=workers, **place)
        return build_train_loader(dataset, batch=batch, workers=workers, seed=dataset.seed, shuffle=shuffle, **place)
    sampler: DistributedSampler[Any] | None = None
    if rank != -1 and dist.is_initialised():
        sampler = DistributedSampler(dataset, rank=rank, num_replicas=dist.world_size(), shuffle=shuffle)
        batch = max(batch // dist.world_size(), 1)
    return InfiniteDataLoader(
        dataset=dataset,
        batch_size=min(batch, len(dataset)),
        shuffle=shuffle and sampler is None,
        num_workers=workers,
        sampler=sampler,
        pin_memory=pinned,
        collate_fn=getattr(dataset, "collate_fn", None),  # a user's data set: torch's own way where it has none
        drop_last=drop_last,
    )


class InfiniteDataLoader(DataLoader[Any]):
    """torch's loader with workers that live as long as it does; an epoch is one ``iter()``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("persistent_workers", kwargs.get("num_workers", 0) > 0)
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Let workers see a data set that has changed: they start anew with the next epoch."""
        self._iterator = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch's own type is private
        return super().__iter__()
