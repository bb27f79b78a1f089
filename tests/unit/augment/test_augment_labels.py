import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.augment import AugmentSettings, place_labels, sample_params
from eyas.augment.labels import choose_cut, cut_boxes

RNG = np.random.default_rng(0)
SHAPES = RNG.integers(40, 200, (12, 2))
COUNTS = RNG.integers(0, 7, 12)
LABELS = [
    (
        RNG.integers(0, 5, n).astype(np.float32),
        np.concatenate((RNG.uniform(0, 1, (n, 2)), RNG.uniform(0, 0.6, (n, 2))), axis=1).astype(np.float32),
    )
    for n in COUNTS
]
EVERYTHING = AugmentSettings(mixup=0.5, cutmix=0.7, degrees=30, shear=10, perspective=0.001, flipud=0.5)


def labels(index):
    return LABELS[index]


def draw(settings, position, index=0):
    return sample_params(settings, SHAPES, size=96, seed=0, epoch=0, position=position, index=index, partners=range(12))


@given(st.integers(0, 10**6), st.integers(0, 11))
@settings(max_examples=200, deadline=None)
def test_boxes_are_legal_whatever_is_drawn(position, index):
    placed = place_labels(draw(EVERYTHING, position, index), labels)
    assert placed.boxes.dtype == placed.cls.dtype == np.float32
    assert placed.boxes.shape == (len(placed.cls), 4)
    assert (placed.boxes >= 0).all() and (placed.boxes <= 96).all()
    assert (placed.boxes[:, 2:] > placed.boxes[:, :2]).all()


@given(st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_mosaic_boxes_are_those_of_the_canvas_warped_as_a_whole(position):
    """Against the plain way: shift to the canvas, clip there, warp the canvas, keep."""
    params = draw(AugmentSettings(fliplr=0.5, degrees=20, shear=4), position)
    size, kept = 96, []
    centre = canvas_centre(params)
    whole = params.matrices[0] @ np.linalg.inv(shift_to_canvas(params, 0, centre))
    for k, index in enumerate(params.sources.tolist()):
        assert np.allclose(whole @ shift_to_canvas(params, k, centre), params.matrices[k])
        h, w = params.shapes[k]
        for c, (x, y, bw, bh) in zip(*LABELS[index], strict=True):
            dx, dy = shift_to_canvas(params, k, centre)[:2, 2]
            x1, x2 = np.clip([(x - bw / 2) * w + dx, (x + bw / 2) * w + dx], max(dx, 0), min(dx + w, 2 * size))
            y1, y2 = np.clip([(y - bh / 2) * h + dy, (y + bh / 2) * h + dy], max(dy, 0), min(dy + h, 2 * size))
            corners = whole @ np.array([[x1, x2, x2, x1], [y1, y1, y2, y2], [1, 1, 1, 1]])
            new = np.clip([corners[0].min(), corners[1].min(), corners[0].max(), corners[1].max()], 0, size)
            nw, nh, before = new[2] - new[0], new[3] - new[1], (x2 - x1) * (y2 - y1) * params.zooms[k] ** 2
            if nw > 2 and nh > 2 and max(nw / nh, nh / nw) < 100 and nw * nh > 0.1 * before > 0:
                kept.append((c, *new))
    placed = place_labels(params, labels)
    assert np.allclose(np.column_stack((placed.cls, placed.boxes)), np.array(kept).reshape(-1, 5), atol=1e-3)


def canvas_centre(params):
    """Read the centre back from what the canvas cut off; where it cut nothing, any centre that cuts nothing will do."""
    heights, widths = params.shapes.T.tolist()
    v = params.visible.tolist()
    x = [widths[k] - v[k][0] for k in (0, 2) if v[k][0] > 0] + [192 - v[k][2] for k in (1, 3) if v[k][2] < widths[k]]
    y = [heights[k] - v[k][1] for k in (0, 1) if v[k][1] > 0] + [192 - v[k][3] for k in (2, 3) if v[k][3] < heights[k]]
    return int((x or [max(widths[0], widths[2])])[0]), int((y or [max(heights[:2])])[0])


def shift_to_canvas(params, k, centre):
    h, w = params.shapes[k]
    matrix = np.eye(3)
    matrix[:2, 2] = centre[0] - w * (k in (0, 2)), centre[1] - h * (k in (0, 1))
    return matrix


def test_mixup_keeps_the_labels_of_both():
    params = draw(AugmentSettings(mixup=1.0), 5)
    from_both = place_labels(params, labels)
    main = place_labels(draw(AugmentSettings(), 5), labels)
    assert len(from_both.cls) >= len(main.cls)
    assert np.array_equal(from_both.boxes[: len(main.cls)], main.boxes)


def test_no_labels_at_all():
    empty = np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
    placed = place_labels(draw(EVERYTHING, 1), lambda _: empty)
    assert placed.cls.shape == (0,) and placed.boxes.shape == (0, 4)


def test_the_first_free_rectangle_is_cut():
    boxes = np.array([[10.0, 10, 20, 20]])
    assert choose_cut(np.array([[5, 5, 11, 11], [30, 30, 30, 40], [20, 0, 30, 30], [50, 50, 60, 60]]), boxes) == (
        20,
        0,
        30,
        30,
    )
    assert choose_cut(np.array([[5, 5, 11, 11]]), boxes) is None


def test_cut_boxes_need_a_tenth_of_their_area_inside():
    boxes = np.array([[0.0, 0, 10, 10], [9, 0, 19, 10], [9.2, 0, 19.2, 10], [2, 2, 4, 4]])
    taken, inside = cut_boxes(boxes, (0, 0, 10, 10))
    assert inside.tolist() == [True, True, False, True]
    assert taken.tolist() == [[0, 0, 10, 10], [9, 0, 10, 10], [2, 2, 4, 4]]
    taken, inside = cut_boxes(boxes, None)
    assert taken.shape == (0, 4) and not inside.any()
