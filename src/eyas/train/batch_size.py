"""``batch=auto``: the most images of a step that fit the memory of a GPU, tried on batches as full as the data have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from eyas.data.dataset import TrainDataset
from eyas.device import random_state_kept
from eyas.log import LOGGER
from eyas.nn.unwrap import unwrap_model
from eyas.recipes import Recipe
from eyas.run.protocol import Run
from eyas.train.compiling import made_up, undone
from eyas.train.memory import OutOfMemory, is_out_of_memory, release
from eyas.train.plan import images_per_step
from eyas.types import Batch

SHARE = 0.9  # of the memory that is free; the rest is for what lies between pieces, and for batches that wait
BESIDE = 3  # times the weights that a run holds beside a pass: their average, and two moments of the optimizer
UNKNOWN = 100  # objects in an image of data that do not tell
MOSAIC = 4  # images in one


class Sized(Run, Protocol):
    """A run of which a pass can be tried: what that needs beyond ``Run``."""

    amp: bool
    recipe: Recipe

    def every_side(self) -> tuple[int, ...]: ...
    def build_dataset(self, img_path: Any, mode: str, batch: int | None) -> Any: ...
    def named_losses(self, returned: Any) -> tuple[Tensor, dict[str, Tensor]]: ...


def largest_batch(trainer: Sized) -> int:
    """Return how many images of a step fit, up to ``nbs``: a larger step is not what rates and decay are meant for.

    Passes are taken, forward and backward, and leave nothing behind.

    Raises:
        ValueError: there is no GPU whose memory could be measured, or several processes share the batch.
        OutOfMemory: one image is too much.
    """
    if trainer.device.type != "cuda" or trainer.world_size:
        where = "in several processes" if trainer.world_size else f"on {trainer.device}"
        raise ValueError(
            f"batch=auto measures the memory of one GPU, and this run is {where}: give a number, or leave batch out."
        )
    trainer.batch_size = images_per_step(trainer.args, trainer.recipe, False, 1)
    dataset = trainer.build_dataset(trainer.data["train"], "train", trainer.batch_size)
    most = min(trainer.args.nbs or trainer.recipe.nbs, len(dataset))
    objects = fullest(dataset, each=MOSAIC if "mosaic" in trainer.closing_augmentation() else 1)
    found = largest(lambda images: fits(trainer, images, objects(images)), most)
    LOGGER.info("batch=auto: %d images of %d px fit %s", found, max(trainer.every_side()), trainer.device)
    return found


def largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number that fits, to an eighth; few are tried, and none above ``most``.

    Raises:
        OutOfMemory: 1 does not.
    """
    if not fits(1):
        raise OutOfMemory("batch=auto: one image does not fit the memory; give a smaller imgsz or model.")
    low, high = 1, 2
    while low < most and fits(min(high, most)):
        low, high = min(high, most), 2 * high
    high = min(high, most + 1)
    while high - low > max(low // 8, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fullest(dataset: Any, each: int) -> Callable[[int], int]:
    """Return a function of the images in a batch: the most objects that all of them can show together.

    Args:
        dataset: ours, or a user's that does not tell.
        each: images of the data in one of a batch.
    """
    if not isinstance(dataset, TrainDataset):
        return lambda images: images * UNKNOWN
    counts = np.sort(dataset.index.objects())[::-1]
    return lambda images: int(counts[: images * each].sum())


def fits(trainer: Sized, images: int, objects: int) -> bool:
    """Whether a pass over images of the largest side, with so many objects, fits the memory with all else that a run
    holds; it leaves the network as it was.
    """
    network: Any = unwrap_model(trainer.model)
    room = room_on(trainer.device, network)
    try:
        with random_state_kept(trainer.device), untouched(network):
            attempt(trainer, network, made_up(network, images, max(trainer.every_side()), objects))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needs = room + 1
    else:
        needs = torch.cuda.max_memory_reserved(trainer.device) if trainer.device.type == "cuda" else 0
    release(trainer.device)
    return needs <= room


def attempt(trainer: Sized, network: Any, batch: Batch) -> None:
    """Pass a batch forward and backward."""
    network.train()
    if network.criterion is None:
        network.criterion = network.init_criterion()
    with torch.autocast(trainer.device.type, dtype=trainer.amp_dtype, enabled=trainer.amp):
        loss, _ = trainer.named_losses(network(batch))
    loss.sum().backward()


@contextmanager
def untouched(network: Any) -> Iterator[None]:
    """Inside the block a network may be passed; all of it is as before afterwards, its criterion too."""
    criterion, was_training = network.criterion, network.training
    try:
        with undone(network):
            yield
    finally:
        network.criterion = criterion
        network.train(was_training)


def room_on(device: torch.device, network: nn.Module) -> float:
    """Return the bytes that torch may hold during a pass; what others hold on the GPU, and a run beside it, is off."""
    if device.type != "cuda":
        return 0
    release(device)
    torch.cuda.reset_peak_memory_stats(device)
    free, _ = torch.cuda.mem_get_info(device)
    beside = BESIDE * sum(p.numel() * p.element_size() for p in network.parameters())
    return SHARE * (free + torch.cuda.memory_reserved(device)) - beside
