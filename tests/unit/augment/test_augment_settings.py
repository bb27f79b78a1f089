import pytest

from eyas.augment import AugmentSettings


def test_defaults_are_the_ones_of_the_spec():
    settings = AugmentSettings()
    assert (settings.mosaic, settings.mixup, settings.fliplr, settings.translate) == (1.0, 0.0, 0.5, 0.1)
    assert settings.zoom_range == (0.5, 1.5)


def test_scale_may_be_a_pair():
    assert AugmentSettings(scale=(0.8, 2.0)).zoom_range == (0.8, 2.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"mosaic": 1.5},
        {"fliplr": -0.1},
        {"degrees": 200},
        {"perspective": 0.1},
        {"shear": 90},
        {"hsv_h": 2},
        {"translate": float("nan")},
    ],
)
def test_a_value_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentSettings(**bad)


@pytest.mark.parametrize("scale", [1.0, -0.1, (0.0, 1.0), (2.0, 1.0)])
def test_a_zoom_that_reaches_nothing_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        AugmentSettings(scale=scale)


def test_closing_mosaic_leaves_the_rest():
    closed = AugmentSettings(mosaic=1.0, mixup=0.5, cutmix=0.5, degrees=3.0).closed()
    assert (closed.mosaic, closed.mixup, closed.cutmix) == (0.0, 0.0, 0.0)
    assert (closed.degrees, closed.fliplr) == (3.0, 0.5)
