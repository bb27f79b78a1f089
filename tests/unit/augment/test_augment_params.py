import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.augment import AugmentSettings, sample_params
from eyas.augment.params import CUT, MAIN, MIXED
from eyas.augment.random import Purpose, generator

SHAPES = np.array([[480, 640], [640, 480], [100, 100], [333, 500], [1080, 1920]])
EVERYTHING = AugmentSettings(mixup=0.5, cutmix=0.5, degrees=10, shear=5, perspective=0.0005, flipud=0.5)


def draw(settings=EVERYTHING, **changes):
    place = {"size": 64, "seed": 1, "epoch": 2, "position": 3, "index": 4, "partners": (0, 1, 2, 3, 4)} | changes
    return sample_params(settings, SHAPES, **place)


def as_bytes(params):
    return [np.asarray(value).tobytes() for value in dataclasses.astuple(params)]


@given(st.integers(-5, 2**63), st.integers(0, 10**6), st.integers(0, 2**40))
@settings(max_examples=50)
def test_same_place_same_parameters(seed, epoch, position):
    place = {"seed": seed, "epoch": epoch, "position": position}
    assert as_bytes(draw(**place)) == as_bytes(draw(**place))


def test_neighbouring_large_seeds_differ():
    assert not np.array_equal(draw(seed=2**63 + 1).matrices, draw(seed=2**63 + 2).matrices)
    assert not np.array_equal(draw(seed=-1).matrices, draw(seed=-2).matrices)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 3}, {"position": 4}])
def test_another_place_other_parameters(change):
    assert not np.array_equal(draw().matrices, draw(**change).matrices)


def test_one_setting_does_not_shift_the_numbers_of_another():
    few, more = draw(AugmentSettings()), draw(AugmentSettings(mixup=1.0, hsv_h=0.0, fliplr=1.0, degrees=0.0))
    main = more.picture == MAIN
    assert np.array_equal(few.sources, more.sources[main]) and np.array_equal(few.zooms, more.zooms[main])
    assert np.array_equal(few.hsv[1:], more.hsv[1:])


def test_flat_arrays_of_the_documented_shapes():
    params = draw(AugmentSettings(mixup=1.0, cutmix=1.0))
    assert params.picture.tolist() == [MAIN] * 4 + [MIXED] * 4 + [CUT] * 4
    assert params.matrices.shape == (12, 3, 3) and params.visible.shape == (12, 4) and params.shapes.shape == (12, 2)
    assert params.sources[0] == 4 and params.cut_candidates.shape == (3, 4)
    assert params.shapes[0].tolist() == [36, 64]


def test_nothing_asked_for_is_the_image_in_the_middle():
    params = draw(AugmentSettings(mosaic=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0))
    assert params.sources.tolist() == [4] and params.blend == 1.0 and not params.bgr and not params.hsv.any()
    assert np.allclose(params.matrices[0], [[1, 0, 0], [0, 1, 14], [0, 0, 1]])  # 36 x 64 in 64 x 64


def test_ranges_over_many_draws():
    chosen = AugmentSettings(scale=0.4, translate=0.2, fliplr=0.3, mosaic=0.7, mixup=0.2, bgr=0.1)
    many = [draw(chosen, position=i) for i in range(3000)]
    zooms = np.array([p.zooms[0] for p in many])
    assert 0.6 <= zooms.min() < 0.62 and 1.38 < zooms.max() <= 1.4
    for share, wanted in (
        (np.mean([p.flips[1] for p in many]), 0.3),
        (np.mean([(p.picture == MAIN).sum() == 4 for p in many]), 0.7),
        (np.mean([p.blend < 1 for p in many]), 0.2),
        (np.mean([p.bgr for p in many]), 0.1),
    ):
        assert abs(share - wanted) < 0.04
    ratios = np.array([p.blend for p in many if p.blend < 1])
    assert abs(ratios.mean() - 0.5) < 0.02 and abs(ratios.std() - (1 / 4 / 65) ** 0.5) < 0.01  # Beta(32, 32)
    partners = np.concatenate([p.sources[1:4] for p in many if (p.picture == MAIN).sum() == 4])
    assert np.all(np.abs(np.bincount(partners, minlength=5) / len(partners) - 0.2) < 0.02)


def test_mosaic_centre_is_uniform_in_the_middle_half():
    plain = AugmentSettings(scale=0, translate=0, fliplr=0)
    # Image 2 is square and fills its cell: the matrix of a top-left image is (centre - S) - S/2.
    centres = np.array([draw(plain, position=i, index=2).matrices[0, :2, 2] for i in range(2000)]) + 64 + 32
    assert centres.min() >= 32 and centres.max() <= 96
    assert np.allclose(centres.mean(axis=0), 64, atol=1.5) and np.allclose(centres.std(axis=0), 64 / 12**0.5, atol=0.6)


def test_decisions_are_independent_of_each_other():
    """No two decisions share a draw: any two yes-or-no choices, and any two amounts, are uncorrelated."""
    chosen = AugmentSettings(
        **dict.fromkeys(("mosaic", "mixup", "cutmix", "flipud", "fliplr", "bgr"), 0.5), hsv_h=1, hsv_s=1, hsv_v=1
    )
    many = [draw(chosen, position=i) for i in range(800)]
    columns = {
        "mosaic": [(p.picture == MAIN).sum() == 4 for p in many],
        "mixup": [MIXED in p.picture for p in many],
        "cutmix": [CUT in p.picture for p in many],
        "flipud": [p.flips[0] for p in many],
        "fliplr": [p.flips[1] for p in many],
        "bgr": [p.bgr for p in many],
        "zoom": [p.zooms[0] for p in many],
        **{name: [p.hsv[i] for p in many] for i, name in enumerate("hsv")},
    }
    correlation = np.corrcoef(np.array(list(columns.values()), float))
    assert np.abs(correlation - np.eye(len(columns))).max() < 0.16  # 4.5 standard deviations of 800 pairs


ALONE = {"mosaic": 0, "translate": 0, "scale": 0, "fliplr": 0}  # image 2 is square: its matrix is the bare warp


def warps(count=500, **amounts):
    return np.array([draw(AugmentSettings(**ALONE | amounts), position=i, index=2).matrices[0] for i in range(count)])


def assert_uniform_and_independent(columns, low, high):
    """Uniform in [low, high] by mean and variance, and no column tells of another; 5 standard deviations."""
    columns = np.array(columns, float)
    width, count = high - low, columns.shape[1]
    assert columns.min() >= low - 1e-9 and columns.max() <= high + 1e-9
    assert np.abs(columns.mean(axis=1) - (low + high) / 2).max() < 5 * width / (12 * count) ** 0.5
    assert np.abs(columns.std(axis=1) - width / 12**0.5).max() < 0.03 * width
    if len(columns) > 1:
        assert np.abs(np.corrcoef(columns) - np.eye(len(columns))).max() < 5 / count**0.5


def test_each_amount_has_a_draw_of_its_own_on_both_sides_of_nothing():
    turns = np.degrees([np.arctan2(m[0, 1], m[0, 0]) for m in warps(degrees=40)])
    assert_uniform_and_independent([turns], -40, 40)
    shears = np.degrees(np.arctan([(m[0, 1], m[1, 0]) for m in warps(shear=30)])).T
    assert_uniform_and_independent(shears, -30, 30)
    # With a perspective (p, q), the bottom row is (p, q, 1 - the centre's share of both).
    tilts = np.array([m[2, :2] for m in warps(perspective=0.001)]).T
    assert_uniform_and_independent(tilts, -0.001, 0.001)
    places = np.array([(m @ (32, 32, 1))[:2] / 64 for m in warps(translate=0.3)]).T
    assert_uniform_and_independent(places, 0.2, 0.8)


def test_colour_gains_reach_each_its_own_range():
    chosen = AugmentSettings(hsv_h=0.1, hsv_s=0.5, hsv_v=0.9)
    gains = np.array([draw(chosen, position=i).hsv for i in range(500)]).T
    assert_uniform_and_independent(gains / np.array([[0.1], [0.5], [0.9]]), -1, 1)


def test_pictures_of_a_sample_move_independently_and_the_mosaic_centre_along_both_axes():
    chosen = AugmentSettings(mixup=1.0, cutmix=1.0, scale=0.5, translate=0, fliplr=0)
    many = [draw(chosen, position=i) for i in range(500)]
    zooms = [[p.zooms[p.picture == number][0] for p in many] for number in (MAIN, MIXED, CUT)]
    assert_uniform_and_independent(zooms, 0.5, 1.5)
    assert np.mean([len(set(p.sources[[4, 8]].tolist())) == 1 for p in many]) < 0.3  # 1/5 by chance
    # Image 2 is square: in a mosaic its matrix is a shift by centre - 3 S / 2 on both axes.
    plain = AugmentSettings(scale=0, translate=0, fliplr=0)
    shifts = np.array([draw(plain, position=i, index=2).matrices[0, :2, 2] for i in range(500)]).T
    assert abs(np.corrcoef(shifts)[0, 1]) < 0.2


def test_cut_rectangles_are_those_of_the_paper():
    """Squares of a uniform share of the area, centred anywhere, clipped: against draws of another generator."""
    chosen = AugmentSettings(cutmix=1.0)
    cuts = np.concatenate([draw(chosen, position=i).cut_candidates for i in range(700)])
    rng = np.random.default_rng(0)
    half, centre = 32 * np.sqrt(rng.random(20000)), 64 * rng.random((20000, 2))
    low, high = np.clip(centre - half[:, None], 0, 64), np.clip(centre + half[:, None], 0, 64)
    for found, expected in ((cuts[:, 2:] - cuts[:, :2], high - low), (cuts[:, :2], low), (cuts[:, 2:], high)):
        assert np.abs(found.mean(axis=0) - expected.mean(axis=0)).max() < 2
        assert np.abs(found.std(axis=0) - expected.std(axis=0)).max() < 2


def test_no_two_purposes_share_their_numbers():
    place = {"seed": 3, "epoch": 1, "position": 7}
    streams = {purpose: generator(purpose, **place).random(4).tolist() for purpose in Purpose.__members__.values()}
    assert len(Purpose.__members__) == len({tuple(stream) for stream in streams.values()}) == 7
