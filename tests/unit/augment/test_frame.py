"""Larger frames and crops: where windows lie, what they show, and that pixels and boxes stay together."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.augment import AugmentSettings, place_labels, sample_params
from eyas.augment.apply_cv import BACKGROUND, draw_picture
from eyas.augment.color import change_contrast
from eyas.augment.frame import CROP_ASPECT, CROP_SIDES, crop_with_objects, greatest_overlaps, larger_frame, onto_image
from eyas.augment.params import MAIN

SIZE = 96
STILL = {"mosaic": 1.0, "fliplr": 0.0, "scale": 0.0, "translate": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
unit = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(1, 2000), st.integers(1, 2000), unit, unit, unit)
@settings(max_examples=100)
def test_a_larger_frame_holds_the_image_and_keeps_its_shape(height, width, size, x, y):
    left, top, right, bottom = larger_frame(np.array((height, width)), np.array((size, x, y)))
    assert left <= 0 and top <= 0 and right >= width - 1e-6 and bottom >= height - 1e-6
    growth = 1 + 3 * size
    assert np.allclose((right - left, bottom - top), (width * growth, height * growth))


@given(st.integers(0, 2**32), st.integers(0, 6))
@settings(max_examples=100)
def test_a_crop_shows_the_centre_of_an_object_or_is_none(seed, count):
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * 80
    boxes = np.concatenate((corner, corner + 1 + rng.random((count, 2)) * 40), axis=1)
    window = np.array((-20.0, -10.0, 180.0, 110.0))
    part = crop_with_objects(window, boxes, rng)
    if np.array_equal(part, window):
        return
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert ((centre > part[:2]) & (centre < part[2:])).all(axis=1).any()
    assert (part[:2] >= window[:2]).all() and (part[2:] <= window[2:]).all()
    shares = (part[2:] - part[:2]) / (200, 120)
    assert (shares >= CROP_SIDES[0]).all() and (shares <= CROP_SIDES[1]).all()
    assert CROP_ASPECT[0] <= shares[0] / shares[1] <= CROP_ASPECT[1]


def test_without_objects_nothing_is_cropped():
    window = np.array((0.0, 0.0, 100.0, 50.0))
    for seed in range(20):
        assert np.array_equal(crop_with_objects(window, np.zeros((0, 4)), np.random.default_rng(seed)), window)


def test_overlaps_are_those_of_plain_arithmetic():
    parts = np.array([(0.0, 0, 10, 10), (20, 20, 30, 30)])
    boxes = np.array([(5.0, 0, 13, 10), (0, 0, 4, 5)])  # the first is centred at (9, 5): inside, 50 of 130 in common
    assert greatest_overlaps(parts, boxes).tolist() == [50 / 130, -1.0]


def test_a_window_becomes_the_image():
    matrix = onto_image(np.array((10.0, 20.0, 30.0, 60.0)), np.array((80, 40)))
    assert np.allclose(matrix @ (10, 20, 1), (0, 0, 1)) and np.allclose(matrix @ (30, 60, 1), (40, 80, 1))


@pytest.mark.parametrize("asked", [{"zoom_out": 1.0}, {"crop": 1.0}, {"zoom_out": 1.0, "crop": 1.0}], ids=str)
def test_pixels_and_boxes_stay_together(asked):
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[30:60, 25:70] = 255
    box = np.array([(47.5, 45.0, 45.0, 30.0)], np.float32) / SIZE
    moved = 0
    for position in range(80):
        params = sample_params(
            AugmentSettings(**STILL | asked),
            np.array([[SIZE, SIZE]]),
            size=SIZE,
            seed=0,
            epoch=0,
            position=position,
            index=0,
            partners=(0,),
            boxes=lambda _: box,
            stretch=True,
        )
        assert params.sources.tolist() == [0]  # mosaic is on, but not for an image that is shown in another frame
        (placed,) = place_labels(params, lambda _: (np.zeros(1, np.float32), box)).boxes
        picture = draw_picture(params, MAIN, lambda _: image)[..., 0]
        ys, xs = np.nonzero((picture > 127) & (picture != BACKGROUND))
        assert np.abs(placed - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() <= 1.05
        moved += not np.allclose(params.matrices[0], np.eye(3))
    assert moved >= 50


def test_small_boxes_of_a_frame_are_kept_by_its_zoom():
    """Shrunk up to 4 times, a box has a 16th of its area, all of it in sight: no reason to drop it."""
    box = np.array([(0.5, 0.5, 0.5, 0.5)], np.float32)
    place = {"size": SIZE, "seed": 0, "epoch": 0, "index": 0, "partners": (0,)}
    for position in range(40):
        params = sample_params(
            AugmentSettings(**STILL | {"zoom_out": 1.0}), np.array([[SIZE, SIZE]]), position=position, **place
        )
        assert len(place_labels(params, lambda _: (np.zeros(1, np.float32), box)).boxes) == 1


def test_only_as_many_as_asked_for_are_framed():
    shapes = np.full((4, 2), SIZE)

    def sources(position, **asked):
        chosen = AugmentSettings(**asked)
        place = {"size": SIZE, "seed": 0, "epoch": 0, "position": position, "index": 0, "partners": range(4)}
        return len(sample_params(chosen, shapes, **place).sources)

    alone = [sources(position, zoom_out=0.3) == 1 for position in range(600)]
    assert 0.24 < np.mean(alone) < 0.36
    assert {sources(position) for position in range(50)} == {4}
    assert AugmentSettings(zoom_out=0.5, crop=0.5).closed() == AugmentSettings(mosaic=0.0)


def test_contrast_multiplies_distances_to_the_mean_grey():
    image = np.random.default_rng(0).integers(60, 180, (20, 30, 3), dtype=np.uint8)
    wanted = image.mean() + 1.4 * (image - image.mean())
    change_contrast(image, 0.4)
    assert np.abs(image - wanted).max() <= 0.5 + 1e-6
    same = image.copy()
    change_contrast(image, 0.0)
    assert np.array_equal(image, same)
    grey = cv2.merge([np.full((4, 4), 77, np.uint8)] * 3)
    change_contrast(grey, 1.0)
    assert (grey == 77).all()
