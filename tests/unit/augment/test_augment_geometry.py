import math

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eyas.augment.geometry import (
    clip_to,
    flip_matrix,
    keep_rule,
    loaded_shapes,
    mosaic_cells,
    perspective_matrix,
    warp_boxes,
)

sides = st.integers(1, 3000)
angles = st.floats(-180, 180)


def boxes_of(points: np.ndarray) -> np.ndarray:
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1)


def affine(
    degrees=0.0,
    zoom=1.0,
    shear=(0.0, 0.0),
    perspective=(0.0, 0.0),
    centre=(0.5, 0.5),
    size_in=(100.0, 80.0),
    size_out=100,
):
    return perspective_matrix(
        size_in=size_in,
        size_out=size_out,
        degrees=degrees,
        zoom=zoom,
        shear=shear,
        perspective=perspective,
        centre=centre,
    )


@given(sides, sides, st.integers(8, 1280))
def test_loaded_shape_has_the_long_side_and_keeps_the_aspect(h, w, imgsz):
    new_h, new_w = loaded_shapes(np.array([h, w]), imgsz).tolist()
    assert max(new_h, new_w) == imgsz
    assert new_h == min(max(math.ceil(h * imgsz / max(h, w) - 1e-9), 1), imgsz)
    assert 0 <= new_w - w * imgsz / max(h, w) < 1


def test_stretching_fills_the_square():
    assert loaded_shapes(np.array([[10, 50], [7, 3]]), 64, stretch=True).tolist() == [[64, 64], [64, 64]]


@given(angles, st.floats(0.1, 3), st.floats(-30, 30), st.floats(-30, 30), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_the_centre_lands_where_it_was_sent_and_area_scales_by_zoom_squared(degrees, zoom, shear_x, shear_y, x, y):
    matrix = affine(degrees, zoom, (shear_x, shear_y), centre=(x, y))
    assert np.allclose(matrix @ (50, 40, 1), (100 * x, 100 * y, 1))
    plain = 1 - math.tan(math.radians(shear_x)) * math.tan(math.radians(shear_y))
    assert math.isclose(np.linalg.det(matrix[:2, :2]), zoom**2 * plain, rel_tol=1e-9, abs_tol=1e-9)


@given(angles, st.floats(0.1, 3))
def test_rotation_is_opencvs(degrees, zoom):
    expected = cv2.getRotationMatrix2D((50, 40), degrees, zoom)
    expected[:, 2] += (0, 10)  # centre (50, 40) -> (50, 50)
    assert np.allclose(affine(degrees, zoom)[:2], expected)


@given(
    arrays(np.float64, (7, 2, 2), elements=st.floats(0, 100)),
    angles,
    st.floats(0.1, 3),
    st.floats(-0.001, 0.001),
    st.floats(-0.001, 0.001),
)
def test_warped_boxes_are_bounds_of_their_warped_corners(points, degrees, zoom, p, q):
    boxes = boxes_of(points)
    matrix = affine(degrees, zoom, (3.0, 2.0), (p, q))
    warped, in_front = warp_boxes(boxes, matrix)
    assert in_front.all()
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([np.stack(c, axis=-1) for c in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], axis=1)
    expected = cv2.perspectiveTransform(corners.reshape(1, -1, 2), matrix).reshape(-1, 4, 2)
    assert np.allclose(warped, boxes_of(expected), atol=1e-6)


def test_a_box_behind_the_horizon_is_told():
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]])  # depth 1 - 0.02 x: nothing beyond x = 50
    _, in_front = warp_boxes(np.array([[0.0, 0, 10, 10], [40, 0, 60, 10]]), matrix)
    assert in_front.tolist() == [True, False]


@given(st.booleans(), st.booleans())
def test_flipping_twice_changes_nothing(up_down, left_right):
    flip = flip_matrix(64, up_down=up_down, left_right=left_right)
    assert np.array_equal(flip @ flip, np.eye(3))


@given(st.integers(32, 96), st.integers(32, 96), arrays(np.int64, (4, 2), elements=st.integers(1, 64)))
def test_mosaic_images_touch_the_centre_and_stay_on_the_canvas(x, y, shapes):
    offsets, visible = mosaic_cells((x, y), shapes, 64)
    on_canvas = visible + offsets[:, [0, 1, 0, 1]]
    assert (on_canvas >= 0).all() and (on_canvas <= 128).all()
    assert (
        (visible[:, 2:] > visible[:, :2]).all()
        and (visible[:, :2] >= 0).all()
        and (visible[:, 2:] <= shapes[:, ::-1]).all()
    )
    touching = on_canvas[[0, 1, 2, 3], [2, 0, 2, 0]], on_canvas[[0, 1, 2, 3], [3, 3, 1, 1]]
    assert (touching[0] == x).all() and (touching[1] == y).all()


@given(arrays(np.float64, (9, 4), elements=st.floats(-200, 200)))
def test_clipped_boxes_lie_inside(boxes):
    clipped = clip_to(boxes, (0, 0, 100, 50))
    assert (clipped >= 0).all() and (clipped[:, [0, 2]] <= 100).all() and (clipped[:, [1, 3]] <= 50).all()


def test_keep_rule_on_both_sides_of_each_limit():
    boxes = np.array(
        [
            [0, 0, 2.0, 9],  # not wider than 2 px
            [0, 0, 2.1, 9],
            [0, 0, 9, 2.0],  # not higher than 2 px
            [0, 0, 3, 300],  # aspect 100
            [0, 0, 3, 299],
            [0, 0, 10, 10],  # exactly 10 % left
            [0, 0, 10, 10.1],
            [0, 0, 10, 10],  # no area before
        ]
    )
    areas = np.array([18, 19, 18, 900, 897, 1000, 1000, 0.0])
    assert keep_rule(areas, boxes).tolist() == [False, True, False, False, True, False, True, False]


def test_the_first_shear_slants_along_x_and_the_second_along_y():
    matrix = perspective_matrix(
        size_in=(10, 10), size_out=10, degrees=0, zoom=1, shear=(20, 5), perspective=(0, 0), centre=(0.5, 0.5)
    )
    slopes = math.tan(math.radians(20)), math.tan(math.radians(5))
    assert np.allclose(matrix[:2, :2], [[1, slopes[0]], [slopes[1], 1]])
