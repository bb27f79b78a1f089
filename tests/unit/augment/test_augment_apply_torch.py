"""Colours on the device against Python's own colorsys, and against what workers do."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.augment import color
from eyas.augment.apply_torch import jitter_hsv

GAINS = [(0.015, 0.7, 0.4), (-0.015, -0.7, -0.4), (0.5, 0.0, -1.0), (-1.0, 1.0, 1.0), (0.0, 0.0, 0.0)]


def by_colorsys(pixel: tuple[float, ...], gains: tuple[float, ...]) -> tuple[float, ...]:
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    changed = (h + gains[0]) % 1.0, min(max(s * (1 + gains[1]), 0.0), 1.0), min(max(v * (1 + gains[2]), 0.0), 1.0)
    return colorsys.hsv_to_rgb(*changed)


levels = st.integers(0, 255).map(lambda level: level / 255)
gain = st.floats(-1, 1, width=32)


@settings(deadline=None)  # torch's first call takes half a second
@given(pixel=st.tuples(levels, levels, levels), gains=st.tuples(gain, gain, gain))
def test_a_pixel_as_colorsys_has_it(pixel: tuple[float, ...], gains: tuple[float, ...]) -> None:
    image = torch.tensor(pixel).view(1, 3, 1, 1)
    changed = jitter_hsv(image, torch.tensor([gains]))
    # What float32 leaves of a difference, 6e-8, and of one sixth of the circle times six.
    torch.testing.assert_close(changed.flatten(), torch.tensor(by_colorsys(pixel, gains)), rtol=0, atol=5e-6)


def test_each_image_by_its_own_gains_in_its_own_layout() -> None:
    images = torch.rand(len(GAINS), 3, 8, 9).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    changed = jitter_hsv(images, torch.tensor(GAINS))
    assert changed.is_contiguous(memory_format=torch.channels_last) and torch.equal(images, before)
    for one, gains, result in zip(images, GAINS, changed, strict=True):
        torch.testing.assert_close(result, jitter_hsv(one[None], torch.tensor([gains]))[0])
    torch.testing.assert_close(changed[-1], images[-1], rtol=0, atol=1e-6)
    assert changed.min() >= 0 and changed.max() <= 1 + 1e-6


@pytest.mark.parametrize("gains", GAINS)
def test_workers_make_the_same_but_for_their_rounding(gains: tuple[float, ...]) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    rgb = np.empty_like(bgr)
    color.jitter_hsv(bgr, np.array(gains), rgb)
    image = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    mine = jitter_hsv(image, torch.tensor([gains], dtype=torch.float32))[0].permute(1, 2, 0) * 255
    apart = (mine - torch.from_numpy(rgb).float()).abs()
    # Hue in steps of 2 degrees is up to 8.5 levels of a pure colour; a table cuts off what is behind the point.
    assert float(apart.max()) <= 12 and float(apart.mean()) < 2.0
