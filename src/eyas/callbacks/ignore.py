"""Areas to ignore.

What: what is found in an area that was not annotated, wholly or for some classes, is neither taught as background nor
counted as wrong. When: always, of data that have such areas (crowds, difficult objects, rows that say so, images of
which some classes were not annotated); classes whose objects are such areas may be added. Default: on. Hazards: an
area as large as the image teaches nothing of where objects are not; a loss of one's own must look at the areas itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from eyas.callbacks.base import Decision, StockCallback
from eyas.callbacks.class_weights import criterion_parts
from eyas.data.ignore import with_ignored
from eyas.data.loader import own_index
from eyas.log import warn
from eyas.losses import Criterion
from eyas.nn.unwrap import unwrap_model
from eyas.run.protocol import Run

if TYPE_CHECKING:
    from eyas.config import TrainOptions


class IgnoreAreas(StockCallback):
    """Decide what is ignored in training and validation.

    Args:
        ignore: None leaves it to the data; True uses the areas that the data have, which must have some; False takes
            them as background; classes, by name or id, are areas too, and are not learnt.
    """

    decides = Decision.IGNORE
    options = ("ignore",)

    def __init__(self, ignore: bool | Sequence[str | int] | None = None) -> None:
        self.ignore = ignore if ignore is None or isinstance(ignore, bool) else list(ignore)
        self.seen = 0  # areas in the batches of this process

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        return cls(options.ignore)

    def settings(self) -> dict[str, Any]:
        return {"ignore": self.ignore}

    def adjust_data(self, trainer: Run, data: dict[str, Any]) -> dict[str, Any]:
        """Return the description of the data with what is to be ignored.

        Raises:
            ValueError: there is no such class.
        """
        return data if self.ignore is None else with_ignored(data, self.ignore)

    def on_train_batch_end(self, trainer: Run) -> None:
        """Count areas; their number is known from a shape, without waiting for the device."""
        batch = trainer.batch
        if isinstance(batch, Mapping) and batch.get("ignored") is not None:  # a user's own batch may be anything
            self.seen += len(batch["ignored"])

    def needs(self, adjuster: str) -> bool:
        return self.ignore is not None

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Stop before the first step where there is nothing to ignore, or the loss would not look at it.

        Raises:
            ValueError: says which.
        """
        index = own_index(trainer.train_loader)
        if index is None or self.ignore is False:
            return
        if self.ignore is not None and not len(index.ignored):
            raise ValueError(f"ignore={self.ignore} has no effect: the training data have no area to ignore.")
        if len(index.ignored) and (foreign := self.foreign_losses(trainer)):
            text = (
                f"the data have {len(index.ignored):,} areas to ignore, of which the loss {', '.join(foreign)} knows "
                "nothing: what is found there is taught as background. Derive it from a criterion of eyas.losses, or "
                "leave out what batch['ignored'] covers."
            )
            if self.ignore is not None:
                raise ValueError(f"ignore={self.ignore}: {text}")
            warn(f"{text[0].upper()}{text[1:]} ignore=False says that this is meant.")

    def foreign_losses(self, trainer: Run) -> list[str]:
        """Return the classes of losses that are no criteria of ours."""
        return [type(part).__name__ for part in losses_of(trainer) if not isinstance(part, Criterion)]

    def describe(self, trainer: Run) -> dict[str, object]:
        index = own_index(trainer.train_loader)
        return {} if index is None or not len(index.ignored) else {"areas to ignore": f"{len(index.ignored):,}"}

    def witness(self, trainer: Run) -> dict[str, object]:
        """Return what was ignored, if the areas that the batches brought reached the loss, or none came under False."""
        reached = sum(part.areas_seen for part in losses_of(trainer) if isinstance(part, Criterion))
        if self.ignore is False:
            return {"ignore": False} if not self.seen else {}
        return {"ignore": self.ignore} if reached or not self.seen else {}


def losses_of(trainer: Run) -> list[object]:
    """Return the parts of the model's criterion; a user's own model may have none."""
    return list(criterion_parts(getattr(unwrap_model(trainer.model), "criterion", None)).values())
