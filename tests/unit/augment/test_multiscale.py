import numpy as np

from eyas.augment.multiscale import MOST_SIZES, batch_size_px, every_px, smallest_px


def test_sizes_are_stride_multiples_in_the_range_of_the_spec():
    sizes = [batch_size_px(320, 0.25, 32, 0, 0, step) for step in range(4000)]
    values, counts = np.unique(sizes, return_counts=True)
    assert values.tolist() == list(range(224, 417, 32))  # integers 240 .. 431, floored to 32
    assert counts.min() > 250
    shares = np.array((16, 32, 32, 32, 32, 32, 16)) / 192  # integers of each size
    assert np.allclose(counts / 4000, shares, atol=0.03)


def test_a_wide_range_has_few_sizes_around_the_nominal_one():
    for imgsz, share, step in ((640, 0.25, 64), (640, 0.5, 96), (640, 0.9, 192), (1280, 0.5, 192)):
        sizes = {batch_size_px(imgsz, share, 32, 0, 0, number) for number in range(2000)}
        assert tuple(sorted(sizes)) == every_px(imgsz, share, 32)
        assert imgsz in sizes and 5 <= len(sizes) <= MOST_SIZES
        assert {(size - imgsz) % step for size in sizes} == {0}
        assert min(sizes) == smallest_px(imgsz, share, 32) >= imgsz * (1 - share) - 32
        assert max(sizes) <= imgsz * (1 + share) + 32


def test_without_multi_scale_there_is_one_size():
    assert every_px(640, 0.0, 32) == (640,) == (batch_size_px(640, 0.0, 32, 0, 0, 0),)


def test_pure_function_of_seed_epoch_and_step():
    place = (640, 0.5, 32, 1, 2, 3)
    assert batch_size_px(*place) == batch_size_px(*place)
    steps = [batch_size_px(640, 0.5, 32, 1, 2, step) for step in range(50)]
    assert steps != [batch_size_px(640, 0.5, 32, 1, 3, step) for step in range(50)]
    assert steps != [batch_size_px(640, 0.5, 32, 2, 2, step) for step in range(50)]


def test_off_and_small():
    assert batch_size_px(100, 0.0, 32, 0, 0, 0) == 100
    assert min(batch_size_px(32, 0.9, 32, 0, 0, step) for step in range(100)) == 32


def test_no_size_below_the_stride_takes_part_in_the_draw():
    """Integers 32 .. 152 for 64 px and 0.9: 32 of 121 are floored to one stride."""
    sizes = [batch_size_px(64, 0.9, 32, 0, 0, step) for step in range(3000)]
    shares = [sizes.count(32 * k) / 3000 for k in (1, 2, 3, 4)]
    assert np.allclose(shares, [32 / 121, 32 / 121, 32 / 121, 25 / 121], atol=0.035)
