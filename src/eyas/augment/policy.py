"""When which augmentation is on, as a function of the epoch (spec detr 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eyas.augment.random import Purpose, generator
from eyas.augment.settings import ENDING, AugmentSettings

COMPOSING = ("mosaic", "mixup", "cutmix")  # what brings the objects of other images into one


@dataclass(frozen=True, slots=True)
class DensePolicy:
    """Nothing strong at first; then images made dense; then single images, shown small or in part (Huang et al., 2025).

    Attributes:
        calm: first epochs without anything strong.
        dense: epoch from which on images stay alone.
    """

    calm: int
    dense: int

    def settings(self, whole: AugmentSettings, *, seed: int, epoch: int, position: int) -> AugmentSettings:
        """Return what may happen to one sample; ``whole`` has the probabilities of everything that is ever on.

        A sample is drawn to be a mosaic before anything else, and is then neither shown small nor cut.
        """
        if epoch < self.calm:
            return replace(whole, **dict.fromkeys(ENDING, 0.0))
        if epoch >= self.dense:
            return replace(whole, **dict.fromkeys(COMPOSING, 0.0))
        if generator(Purpose.POLICY, seed=seed, epoch=epoch, position=position).random() < whole.mosaic:
            return replace(whole, mosaic=1.0, zoom_out=0.0, crop=0.0)
        return replace(whole, mosaic=0.0)
