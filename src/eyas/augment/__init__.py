"""Training augmentation: parameters are chosen first (`params`), then applied.

`apply_cv` applies them with OpenCV; a GPU backend may apply the same ones. Coordinates are continuous everywhere: the
left edge of an image is x = 0, its right edge x = w, the centre of pixel j is x = j + 0.5.
"""

from __future__ import annotations

from eyas.augment.labels import Placed, place_labels
from eyas.augment.params import SampleParams, sample_params
from eyas.augment.settings import AugmentSettings

__all__ = ["AugmentSettings", "Placed", "SampleParams", "place_labels", "sample_params"]
