"""Repeat factors and class-balanced drawing, against counting with loops, and the orders made of them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.data.balance import (
    ImageClasses,
    class_balanced_probabilities,
    combined_factors,
    describe_combined,
    repeat_factors,
    sampling_factors,
)
from eyas.data.sampler import (
    BalancedOrder,
    EpochOrder,
    RepeatOrder,
    TrainBatchSampler,
    Turn,
    WeightedOrder,
    choose_order,
)

NC = 4
Labels = list[list[int]]
labels_of_images = st.lists(st.lists(st.integers(0, NC - 1), max_size=5), min_size=1, max_size=40)

# 20 images: class 0 in all but two, class 1 in four, class 2 in one (three boxes), class 3 in none; one image is empty.
LONG_TAIL: Labels = [[0]] * 14 + [[0, 1]] * 4 + [[2, 2, 2]] + [[]]


def classes_of(labels: Labels) -> ImageClasses:
    flat = np.array([c for image in labels for c in image], np.float32)
    return ImageClasses.from_labels(flat, np.cumsum([0] + [len(image) for image in labels]), NC)


@given(labels_of_images)
def test_pairs_of_images_and_classes(labels: Labels) -> None:
    found = classes_of(labels)
    pairs = {(i, c): n for i, image in enumerate(labels) for c, n in Counter(image).items()}
    rows = zip(found.images.tolist(), found.classes.tolist(), found.counts.tolist(), strict=True)
    assert {(i, c): n for i, c, n in rows} == pairs
    assert found.objects().tolist() == [sum(image.count(c) for image in labels) for c in range(NC)]
    assert found.images_per_class().tolist() == [sum(c in image for image in labels) for c in range(NC)]


@given(labels_of_images, st.floats(0.01, 1))
def test_repeat_factors_follow_the_rarest_class(labels: Labels, threshold: float) -> None:
    share = [sum(c in image for image in labels) / len(labels) for c in range(NC)]
    expected = [max([1.0, *(math.sqrt(threshold / share[c]) for c in image)]) for image in labels]
    np.testing.assert_allclose(repeat_factors(classes_of(labels), threshold), expected)


def test_threshold_is_a_share() -> None:
    for threshold in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share of images"):
            repeat_factors(classes_of(LONG_TAIL), threshold)


@given(labels_of_images)
def test_class_balanced_probabilities(labels: Labels) -> None:
    """Draw a class, then an image that shows it; images without boxes keep their share."""
    present = {c for image in labels for c in image}
    holders = {c: sum(c in image for image in labels) for c in present}
    empty = sum(not image for image in labels) / len(labels)
    expected = [
        sum((1 - empty) / len(present) / holders[c] for c in set(image)) if image else 1 / len(labels)
        for image in labels
    ]
    found = class_balanced_probabilities(classes_of(labels))
    np.testing.assert_allclose(found, expected)
    assert found.sum() == pytest.approx(1)


def orders(labels: Labels = LONG_TAIL, seed: int = 3) -> list[WeightedOrder]:
    classes = classes_of(labels)
    return [RepeatOrder(classes, threshold=0.4, seed=seed), BalancedOrder(classes, seed=seed)]


@given(labels_of_images, st.integers(0, 100))
def test_an_epoch_has_always_the_same_length_and_no_image_is_off_by_a_whole_visit(labels: Labels, epoch: int) -> None:
    for order in orders(labels):
        drawn = order.permutation(epoch)
        assert drawn.shape == (order.n,) and drawn.dtype == np.int64
        visits = np.bincount(drawn, minlength=len(labels))
        assert (visits >= np.floor(order.factors - 1e-9)).all() and (visits <= np.ceil(order.factors + 1e-9)).all()
        assert order.factors.sum() == pytest.approx(order.n)
    repeat, balanced = orders(labels)
    assert repeat.n == math.ceil(repeat_factors(classes_of(labels), 0.4).sum() - 1e-9)
    assert np.bincount(repeat.permutation(epoch), minlength=len(labels)).min() >= 1
    assert balanced.n == len(labels)


def test_no_image_is_dropped_where_the_sum_of_factors_would_round_down() -> None:
    factors = np.array([1.0] * 50 + [1.4])
    order = WeightedOrder(factors)
    assert order.n == 52 and all(len(set(order.permutation(epoch))) == 51 for epoch in range(200))
    assert WeightedOrder(np.full(10, 0.1)).n == 1 and WeightedOrder(np.array([0.7, 0.3, 1.0]) + 1e-12).n == 2


def test_expected_visits_equal_the_factors() -> None:
    for order in orders():
        epochs = 4000
        visits = sum(np.bincount(order.permutation(epoch), minlength=20) for epoch in range(epochs)) / epochs
        np.testing.assert_allclose(visits, order.factors, atol=4 * 0.5 / math.sqrt(epochs))


def test_images_of_equal_factors_are_spread_over_the_epoch() -> None:
    """Visits are drawn in the order of the factors; an epoch must not end with all the images that come twice."""
    often = np.concatenate([WeightedOrder(np.repeat([1.0, 2.0], 50)).permutation(epoch) >= 50 for epoch in range(20)])
    share = often.reshape(20, 10, 15).mean((0, 2))  # of the visits in each tenth of an epoch
    np.testing.assert_allclose(share, 2 / 3, atol=0.12)  # four standard deviations


def test_balanced_draws_every_class_equally_often() -> None:
    """With one class per image, so that no class comes along with another."""
    labels: Labels = [[0]] * 30 + [[1]] * 6 + [[2]] * 3 + [[]]
    drawn = np.bincount(BalancedOrder(classes_of(labels)).permutation(0), minlength=40)
    assert drawn[:30].sum() == pytest.approx(13, abs=1)
    assert drawn[30:36].sum() == pytest.approx(13, abs=1)
    assert drawn[36:39].sum() == pytest.approx(13, abs=1)
    assert drawn[39] == 1


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    for first, second, other in zip(orders(), orders(), orders(seed=4), strict=True):
        first.permutation(0)  # an earlier epoch changes nothing
        assert np.array_equal(first.permutation(5), second.permutation(5))
        assert not np.array_equal(first.permutation(5), first.permutation(6))
        assert not np.array_equal(first.permutation(5), other.permutation(5))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("kind", [0, 1])
def test_ranks_together_see_the_order_of_one_process(kind: int, world: int) -> None:
    order = orders()[kind]
    whole = TrainBatchSampler(order, batch=6)
    shares = [TrainBatchSampler(orders()[kind], batch=6, rank=rank, world_size=world) for rank in range(world)]
    for sampler in (whole, *shares):
        sampler.turn = Turn(2)
    steps = zip(*shares, strict=True)
    for keys, parts in zip(whole, steps, strict=True):
        joined = [key for part in parts for key in part]
        assert joined == keys if len(keys) >= world else set(joined) == set(keys)
    drawn = [key.index for batch in whole for key in batch]
    assert drawn == order.permutation(2).tolist()


def test_partners_come_from_the_window_and_the_batch_may_exceed_the_images() -> None:
    order = orders()[0]
    sampler = TrainBatchSampler(order, batch=24)
    assert order.n > 20 and sampler.batch == min(24, order.n)
    keys = [key for batch in sampler for key in batch]
    assert [key.position for key in keys] == list(range(order.n))
    assert all(key.index in key.partners and len(key.partners) == min(sampler.window, order.n) for key in keys)


def test_choosing_an_order() -> None:
    classes = classes_of(LONG_TAIL)
    assert choose_order(None, classes, threshold=0.1, seed=1) == EpochOrder(20, 1)
    assert isinstance(choose_order("balanced", classes, threshold=0.1, seed=1), BalancedOrder)
    assert isinstance(choose_order("repeat", classes, threshold=0.1, seed=1), RepeatOrder)
    with pytest.raises(ValueError, match="Did you mean 'balanced'"):
        choose_order("balance", classes, threshold=0.1, seed=1)
    with pytest.raises(ValueError, match=r"no effect with sampler_threshold=0.04: the rarest class is in 5.0% of"):
        choose_order("repeat", classes, threshold=0.04, seed=1)


def test_combined_factors() -> None:
    classes = classes_of(LONG_TAIL)
    factors = repeat_factors(classes, 0.4)
    sampling = sampling_factors(classes, factors)
    shown = np.zeros(NC)
    for image, factor in zip(LONG_TAIL, factors, strict=True):
        for c in image:
            shown[c] += factor
    before = classes.objects()
    expected = shown[:3] / shown.sum() / (before[:3] / before.sum())
    np.testing.assert_allclose(sampling, [*expected, 1.0])
    combined = combined_factors(sampling, [0.5, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(combined, sampling * [0.5, 2, 3, 1])
    names = dict(enumerate(["car", "bus", "tram", "boat"]))
    text = describe_combined(names, sampling, np.array([0.5, 2, 3, 1]), combined, sampler="repeat")
    assert f"tram {sampling[2]:.3g} x 3 = {combined[2]:.3g}" in text and "sampler=repeat" in text


def test_loader_uses_the_sampler(digits_tiny: Path) -> None:
    from eyas.augment.settings import AugmentSettings
    from eyas.data import ImageStore, build_index, check_dataset
    from eyas.data.dataset import TrainDataset
    from eyas.data.loader import build_train_loader

    data = check_dataset(digits_tiny)
    index = build_index(data["train"], names=data["names"])
    dataset = TrainDataset(index, ImageStore(index, imgsz=64), imgsz=64, settings=AugmentSettings())
    plain = build_train_loader(dataset, batch=16, workers=0, seed=0)
    assert plain.images == 64
    with build_train_loader(dataset, batch=16, workers=0, seed=0, sampler="repeat", threshold=1.0) as loader:
        assert loader.images > 64 and len(loader) == -(-loader.images // 16)
        own = [i for batch in loader for i in batch["index"].tolist()]
        assert own == loader.sampler.order.permutation(0).tolist()
    with pytest.raises(ValueError, match="keep their order"):
        build_train_loader(dataset, batch=16, workers=0, seed=0, sampler="balanced", shuffle=False)
