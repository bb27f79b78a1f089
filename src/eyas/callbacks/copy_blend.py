"""Objects of other images of a batch, blended in.

What: some objects of the batch are pasted, half transparent and with a rim around them, at random places of its images,
and are objects there too (Huang et al., 2025). When: of each batch with a chance, in training, between two epochs.
Default: off. Hazards: an object may cover another; the images of one process are what it draws from, so results depend
on how many processes share a batch; it waits for the device, which must tell where the objects are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eyas import dist
from eyas.augment.random import Purpose, generator
from eyas.callbacks.base import Callback
from eyas.run.protocol import Run
from eyas.types import Batch


class CopyBlend(Callback):
    """Paste objects of a batch into its images.

    Args:
        chance: of a batch, in [0, 1].
        objects: pasted into each image, drawn from all of the batch.
        least: smallest area of an object that is pasted, in pixels of the input.
        start, stop: first epoch with it, and first one without it again, 0-based; None for the end of the run.

    Raises:
        ValueError: a number that means nothing.
    """

    def __init__(
        self, chance: float = 0.5, *, objects: int = 3, least: float = 100.0, start: int = 0, stop: int | None = None
    ) -> None:
        if not 0 < chance <= 1 or objects < 1 or least < 0 or start < 0 or (stop is not None and stop <= start):
            raise ValueError(
                f"CopyBlend(chance={chance}, objects={objects}, least={least}, start={start}, stop={stop}): chance is "
                "above 0 and at most 1, objects at least 1, and stop after start."
            )
        self.chance, self.objects, self.least, self.start, self.stop = chance, objects, least, start, stop
        self.pasted = 0

    def settings(self) -> dict[str, Any]:
        return {
            "chance": self.chance,
            "objects": self.objects,
            "least": self.least,
            "start": self.start,
            "stop": self.stop,
        }

    def adjust_batch(self, trainer: Run, batch: Batch) -> Batch:
        """Return the batch with objects pasted in, as often as the chance says."""
        if trainer.epoch < self.start or (self.stop is not None and trainer.epoch >= self.stop):
            return batch
        place = trainer.step * dist.world_size() + dist.rank()
        draws = generator(Purpose.BLEND, seed=trainer.args.seed, epoch=trainer.epoch, position=place)
        if draws.random() >= self.chance:
            return batch
        images, _, height, width = batch["img"].shape
        sides = batch["bboxes"][:, 2:].cpu() * torch.tensor([width, height])
        large = (sides.prod(1) >= max(self.least, 1.0)).nonzero().flatten()
        if not len(large):
            return batch
        chosen = large[torch.from_numpy(draws.integers(len(large), size=images * self.objects))]
        numbers = torch.from_numpy(draws.random((len(chosen), 4)))
        self.pasted += len(chosen)
        return blended(batch, chosen, torch.arange(images).repeat_interleave(self.objects), numbers)

    def state_dict(self) -> dict[str, Any]:
        return {"pasted": self.pasted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pasted = state["pasted"]


def blended(batch: Batch, rows: Tensor, onto: Tensor, numbers: Tensor) -> Batch:
    """Return a batch with objects pasted in.

    Args:
        batch: images float (B, 3, H, W).
        rows: (n,) objects of the batch.
        onto: (n,) image that each is pasted into.
        numbers: (n, 4) in [0, 1): x and y of the place, size of the rim, and weight of what is pasted.
    """
    source, images = batch["img"], batch["img"].clone()
    height, width = images.shape[2:]
    boxes = batch["bboxes"].cpu().double()
    new = boxes[rows].clone()
    for i, (row, image) in enumerate(zip(rows.tolist(), onto.tolist(), strict=True)):
        x, y, rim, weight = numbers[i].tolist()
        cx, cy, w, h = (boxes[row] * torch.tensor([width, height, width, height])).tolist()
        grown = 1.1 + 0.15 * rim  # an object with 10 to 25 % around it
        x1, x2 = max(round(cx - grown * w / 2), 0), min(round(cx + grown * w / 2), width)
        y1, y2 = max(round(cy - grown * h / 2), 0), min(round(cy + grown * h / 2), height)
        left, top = round(x * (width - (x2 - x1))), round(y * (height - (y2 - y1)))
        patch = source[int(batch["batch_idx"][row]), :, y1:y2, x1:x2]
        there = images[image, :, top : top + y2 - y1, left : left + x2 - x1]
        there.lerp_(patch, 0.45 + 0.1 * weight)
        new[i, 0], new[i, 1] = (cx + left - x1) / width, (cy + top - y1) / height
    idx = torch.cat((batch["batch_idx"], onto.to(batch["batch_idx"])))
    found: Batch = {**batch}
    found["img"], found["batch_idx"] = images, idx
    found["bboxes"] = torch.cat((batch["bboxes"], new.to(batch["bboxes"])))
    found["cls"] = torch.cat((batch["cls"], batch["cls"][rows.to(batch["cls"].device)]))
    found["max_objects"] = int(idx.long().bincount().max())
    return found
