"""Batch normalisation over all processes.

What: mean and variance of every batch normalisation are taken over the images of all processes, not of each alone.
When: once, before the model is wrapped. Default: automatic, with several processes and at most 16 images each, where
statistics of one process alone are noisy. Hazards: every such layer waits for the slowest process, twice in each step;
layers other than batch normalisation are not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from eyas.callbacks.base import Decision, StockCallback
from eyas.nn.sync_bn import convert, synchronised_layers
from eyas.nn.unwrap import unwrap_model
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from torch import nn

    from eyas.config import TrainOptions

FEW_IMAGES = 16  # up to so many images in each process, statistics of one process alone are too noisy


class SyncBatchNorm(StockCallback):
    """Synchronise batch normalisation over the processes of a run.

    Args:
        mode: True always, False never, ``"auto"`` with at most 16 images in each process.
    """

    decides = Decision.BATCH_NORM
    options = ("sync_bn",)

    def __init__(self, mode: bool | Literal["auto"] = True) -> None:
        if mode not in (True, False, "auto"):
            raise ValueError(f"SyncBatchNorm takes True, False or 'auto', got {mode!r}.")
        self.mode = mode

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        return cls(options.sync_bn)

    def settings(self) -> dict[str, Any]:
        return {"mode": self.mode}

    def adjust_model(self, trainer: Run, model: nn.Module) -> nn.Module:
        if self.mode is False and trainer.world_size > 1 and (layers := synchronised_layers(unwrap_model(model))):
            raise ValueError(
                f"sync_bn=False, but {layers} layers of the model are synchronised already, by get_model() or "
                f"set_model_attributes() of {type(trainer).__name__}. Remove one of the two."
            )
        return convert(model) if self.wanted(trainer) else model

    def wanted(self, trainer: Run) -> bool:
        """Whether this run's layers are to be synchronised."""
        if trainer.world_size <= 1:
            return False
        return trainer.batch_size / trainer.world_size <= FEW_IMAGES if self.mode == "auto" else self.mode

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"sync_bn": self.outcome(trainer)}

    def witness(self, trainer: Run) -> dict[str, object]:
        if self.wanted(trainer) and not synchronised_layers(unwrap_model(trainer.model)):
            return {}  # asked for, but the model has no batch normalisation
        return {"sync_bn": self.outcome(trainer)}

    def outcome(self, trainer: Run) -> str:
        """What came of it, in words."""
        if trainer.world_size <= 1:
            return "one process: nothing to synchronise"
        layers = synchronised_layers(unwrap_model(trainer.model))
        if layers:
            return f"{layers} layers over {trainer.world_size} processes"
        return f"each process by itself, {trainer.batch_size / trainer.world_size:g} images in each"
