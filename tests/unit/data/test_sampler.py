import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.data.sampler import EpochOrder, EvalBatchSampler, TrainBatchSampler, Turn, partner_window

sizes = st.integers(1, 90)
batches = st.integers(1, 40)


def sampler(n, batch, *, epoch=0, **options):
    made = TrainBatchSampler(EpochOrder(n, 7), batch=batch, **options)
    made.turn = Turn(epoch)
    return made


def keys_of(made):
    return [key for batch in made for key in batch]


@given(sizes, st.integers(0, 1000))
def test_an_order_is_a_permutation_of_its_epoch_alone(n, epoch):
    order = EpochOrder(n, seed=3).permutation(epoch)
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, EpochOrder(n, seed=3).permutation(epoch))


def test_epochs_and_seeds_differ_and_shuffling_can_be_off():
    orders = [EpochOrder(50, seed).permutation(epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert EpochOrder(5, shuffle=False).permutation(3).tolist() == [0, 1, 2, 3, 4]


@given(sizes, batches)
def test_each_position_comes_once_and_the_last_batch_is_kept(n, batch):
    made = sampler(n, batch)
    yielded = list(made)
    assert len(yielded) == len(made) == -(-n // min(batch, n))
    assert [key.position for key in keys_of(made)] == list(range(n))
    assert sorted(key.index for key in keys_of(made)) == list(range(n))


@given(sizes, batches, st.integers(1, 5))
def test_rank_shares_make_up_the_global_batch(n, batch, world):
    if min(batch, n) < world:
        with pytest.raises(ValueError, match="fewer processes"):
            sampler(n, batch, world_size=world)
        return
    whole = list(sampler(n, batch))
    shares = [list(sampler(n, batch, rank=rank, world_size=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}
    for step, keys in enumerate(whole):
        parts = [share[step] for share in shares]
        assert min(map(len, parts)) >= 1
        if len(keys) >= world:
            assert [key for part in parts for key in part] == keys
        else:  # too few images for all: some rank repeats one
            assert {key for part in parts for key in part} == set(keys)


@given(sizes, batches)
def test_partners_come_from_the_window_around_the_sample(n, batch):
    made = sampler(n, batch, epoch=2)
    order = made.order.permutation(2).tolist()
    width = min(made.window, n)
    for key in keys_of(made):
        assert key.index in key.partners and len(key.partners) == width
        start = order.index(key.partners[0])
        assert list(key.partners) == order[start : start + width]
        assert start == min(key.position // made.window * made.window, n - width)


@pytest.mark.parametrize(("batch", "window"), [(1, 16), (8, 16), (16, 16), (24, 24), (64, 16), (50, 50)])
def test_window_of_a_global_batch(batch, window):
    assert partner_window(batch) == window


def test_an_epoch_needs_no_earlier_one():
    straight = sampler(20, 4)
    for epoch in range(4):
        straight.turn = Turn(epoch)
        last = list(straight)
    assert list(sampler(20, 4, epoch=3)) == last


def test_the_epoch_is_fixed_when_iteration_starts():
    made = sampler(8, 4)
    running = iter(made)
    first = next(running)
    made.turn = Turn(5, mosaic_closed=True)
    assert {(key.epoch, key.mosaic_closed) for key in [*first, *next(running)]} == {(0, False)}


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="empty"):
        sampler(0, 4)


@given(st.integers(0, 30), st.integers(1, 6))
def test_evaluation_ranks_take_whole_batches_in_order(count, world):
    batches = [(np.arange(i, i + 2), (32, 64)) for i in range(count)]
    shares = [list(EvalBatchSampler(batches, rank=rank, world_size=world)) for rank in range(world)]
    assert [keys for share in shares for keys in share] == list(EvalBatchSampler(batches))


@given(sizes, batches, st.integers(0, 5))
def test_an_epoch_can_start_at_any_batch(n, batch, first):
    """A run resumed inside an epoch sees the rest of it, partners included."""
    whole = list(sampler(n, batch, epoch=1))
    made = sampler(n, batch, epoch=1)
    made.turn = Turn(1, first_batch=first)
    assert list(made) == whole[first:] and len(made) == len(whole)
