import cv2
import numpy as np
import pytest

from eyas.augment.color import hsv_table, jitter_hsv

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("gains", [(0.015, 0.7, 0.4), (-0.015, -0.7, -0.4), (0.5, 0.0, -1.0), (-1.0, 1.0, 1.0)])
def test_against_separate_channels(gains):
    """The plain way: split, three one-channel tables, merge, back to BGR."""
    x = np.arange(256, dtype=np.float64)
    hue, saturation, value = cv2.split(cv2.cvtColor(IMAGE, cv2.COLOR_BGR2HSV))
    changed = cv2.merge(
        (
            cv2.LUT(hue, ((x + 180 * gains[0]) % 180).astype(np.uint8)),
            cv2.LUT(saturation, np.clip(x * (1 + gains[1]), 0, 255).astype(np.uint8)),
            cv2.LUT(value, np.clip(x * (1 + gains[2]), 0, 255).astype(np.uint8)),
        )
    )
    expected = cv2.cvtColor(changed, cv2.COLOR_HSV2BGR)
    out = np.empty_like(IMAGE)
    jitter_hsv(IMAGE, np.array(gains), out, bgr=True)
    assert np.array_equal(out, expected)
    jitter_hsv(IMAGE, np.array(gains), out)
    assert np.array_equal(out, expected[..., ::-1])


def test_no_gain_changes_no_pixel():
    out = np.empty_like(IMAGE)
    jitter_hsv(IMAGE, np.zeros(3), out)
    assert np.array_equal(out, IMAGE[..., ::-1])


def test_grey_stays_grey():
    table = hsv_table(np.array([0.1, 1.0, 0.3]))
    assert table.shape == (1, 256, 3) and table[0, 0, 1] == 0
    grey = np.repeat(IMAGE[..., :1], 3, axis=2)
    out = np.empty_like(grey)
    jitter_hsv(grey, np.array([0.1, 1.0, 0.3]), out)
    assert (out == out[..., :1]).all()
