"""When which augmentation is on: phases of DEIM."""

from __future__ import annotations

from eyas.augment.policy import DensePolicy
from eyas.augment.settings import ENDING, AugmentSettings
from eyas.train.deim import Stages

WHOLE = AugmentSettings(mosaic=0.5, mixup=0.4, cutmix=0.1, zoom_out=0.3, crop=0.8, hsv_h=0.2)


def at(epoch: int, position: int = 0) -> AugmentSettings:
    return DensePolicy(calm=4, dense=29).settings(WHOLE, seed=0, epoch=epoch, position=position)


def test_the_published_stages() -> None:
    """Spec detr 3.4: policy and flat part of D-FINE N, S, M, L and of 24 epochs from Objects365."""
    published = {(160, 12): (4, 78, 148), (132, 12): (4, 64, 120), (102, 12): (4, 49, 90), (58, 8): (4, 29, 50)}
    published[(24, 4)] = (2, 12, 20)
    for (epochs, last), numbers in published.items():
        stages = Stages.of(epochs, last)
        assert (stages.calm, stages.dense, stages.second) == numbers
    assert Stages.of(5, 0) == Stages(0, 2, 5)


def test_nothing_strong_at_first() -> None:
    for epoch in (0, 3):
        assert all(getattr(at(epoch), name) == 0 for name in ENDING) and at(epoch).hsv_h == 0.2


def test_images_are_dense_and_then_alone() -> None:
    assert at(29) == at(200) == AugmentSettings(mosaic=0, zoom_out=0.3, crop=0.8, hsv_h=0.2)
    drawn = [at(10, position) for position in range(400)]
    composed = [settings for settings in drawn if settings.mosaic == 1]
    assert 160 < len(composed) < 240, "half of them"
    assert all((s.zoom_out, s.crop, s.mixup, s.cutmix) == (0, 0, 0.4, 0.1) for s in composed)
    assert all(s in (composed[0], AugmentSettings(0, 0.4, 0.1, 0.3, 0.8, hsv_h=0.2)) for s in drawn)
    assert drawn == [at(10, position) for position in range(400)], "a function of the sample"
    assert drawn != [at(11, position) for position in range(400)]
