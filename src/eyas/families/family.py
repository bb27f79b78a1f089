"""What a family of models is: the detectors that belong together, and the trainer that trains them."""

from __future__ import annotations

from dataclasses import dataclass

from eyas.models import Detector
from eyas.models.published import Published
from eyas.models.table import Tables
from eyas.recipes import Recipe
from eyas.train import DetectionTrainer


@dataclass(frozen=True)
class Family:
    """Models that are trained in one way; each part says itself what it is, and here it is asked.

    Args:
        name: what detectors and trainer call it in their ``family``.
        detectors: classes of its models, one for each layout. They know their tables, the weights published for them,
            and how images are fitted to their input (`eyas.models.Detector`).
        trainer: class that trains them, with its recipe.

    Raises:
        ValueError: a part belongs to another family, or trainer and detector fit images differently.
    """

    name: str
    detectors: tuple[type[Detector], ...]
    trainer: type[DetectionTrainer]

    def __post_init__(self) -> None:
        parts: tuple[type[Detector] | type[DetectionTrainer], ...] = (*self.detectors, self.trainer)
        for part in parts:
            if part.family != self.name:
                raise ValueError(f"{part.__name__}.family is {part.family!r}, in the family {self.name!r}")
            if part.stretch != self.stretch:
                raise ValueError(
                    f"{part.__name__}.stretch is {part.stretch}, and {self.trainer.__name__}.stretch {self.stretch}: "
                    "images would be trained in another shape than they are predicted in"
                )

    @property
    def recipe(self) -> Recipe:
        """Numbers that the family trains well with."""
        return self.trainer.recipe

    @property
    def stretch(self) -> bool:
        """Whether images are stretched to the square input; otherwise they keep their aspect."""
        return self.trainer.stretch

    @property
    def tables(self) -> Tables:
        """Name of a model -> function that returns a fresh table, for all its models with a name."""
        return {name: table for cls in self.detectors for name, table in cls.tables.items()}

    @property
    def published(self) -> dict[str, Published]:
        """Published weights of its models by name."""
        return {name: entry for cls in self.detectors for name, entry in cls.published.items()}
