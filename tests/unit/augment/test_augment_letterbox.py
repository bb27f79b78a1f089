import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.augment.letterbox import PAD_VALUE, fit_letterbox, letterbox_into


@pytest.mark.parametrize(
    ("shape", "target", "options", "expected"),
    [
        ((427, 640), (640, 640), {}, (427, 640, 106, 107, 0, 0)),
        ((333, 501), (640, 640), {}, (425, 640, 107, 108, 0, 0)),
        ((375, 500), (640, 640), {"scale_up": False}, (375, 500, 132, 133, 70, 70)),
        ((1080, 1920), (640, 640), {"auto": True}, (360, 640, 12, 12, 0, 0)),
    ],
)
def test_examples_of_the_spec(shape, target, options, expected):
    """Spec core C.5."""
    assert tuple(fit_letterbox(shape, target, **options)) == expected


@given(*[st.integers(1, 2000)] * 4, st.booleans())
def test_image_and_padding_fill_the_rectangle(h, w, height, width, scale_up):
    fit = fit_letterbox((h, w), (height, width), scale_up=scale_up)
    assert fit.top + fit.height + fit.bottom == height and fit.left + fit.width + fit.right == width
    assert min(fit) >= 0 and abs(fit.top - fit.bottom) <= 1 and abs(fit.left - fit.right) <= 1
    if not scale_up:
        assert fit.height <= h and fit.width <= w


def test_pixels_land_in_the_middle_as_rgb():
    image = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)
    out = np.zeros((2, 32, 64, 3), np.uint8)
    fit = letterbox_into(image, out[1])
    assert np.array_equal(out[1, fit.top : fit.top + 20, fit.left : fit.left + 32], image[..., ::-1])
    assert (out[1, :6] == PAD_VALUE).all() and (out[1, :, :16] == PAD_VALUE).all() and not out[0].any()


@given(*[st.integers(1, 60)] * 4, st.booleans())
def test_all_around_the_image_is_grey_whatever_was_there(h, w, height, width, scale_up):
    out = np.random.default_rng(0).integers(115, 256, (height, width, 3), dtype=np.uint8)
    fit = letterbox_into(np.full((h, w, 3), 7, np.uint8), out, scale_up=scale_up)
    expected = np.full_like(out, PAD_VALUE)
    expected[fit.top : height - fit.bottom, fit.left : width - fit.right] = 7
    assert np.array_equal(out, expected)
