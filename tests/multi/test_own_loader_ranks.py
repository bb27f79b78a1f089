"""A loader of the user's own in several processes: shared where it is plain, left alone where it is shared already."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from eyas import dist
from eyas.data.share import SharedBatches, extent, shared
from eyas.train import loading, messages

N = 22


class Images(Dataset):
    """Images that are told by their numbers; ``files`` may be those of one process only."""

    def __init__(self, files: Any = range(N), named: bool = True) -> None:
        self.files, self.named = list(files), named

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = {"img": torch.full((3, 16, 16), self.files[i], dtype=torch.uint8)}
        return sample | ({"im_file": f"{self.files[i]}.jpg"} if self.named else {})


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    files = [sample["im_file"] for sample in samples if "im_file" in sample]
    return {"img": torch.stack([s["img"] for s in samples])} | ({"im_file": files} if files else {})


def plain(data: Any, batch: int = 8, **how: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_size=batch, collate_fn=collate, **how)


def numbers(batches: Any) -> list[list[int]]:
    images = (batch["img"] if isinstance(batch, dict) else batch[0] for batch in batches)
    return [[int(image[0, 0, 0]) for image in several] for several in images]


def epoch_of(loader: Any, epoch: int) -> list[list[int]]:
    """What a process gets in an epoch, as the loop asks for it."""
    loading.seed_loader(3, epoch)
    messages.tell_loader(loader, epoch, mosaic_closed=False, first_batch=0)
    return numbers(messages.batches_from(loader, 0))


PLAIN: dict[str, Callable[[], DataLoader[Any]]] = {
    "in order": lambda: plain(Images()),
    "shuffled": lambda: plain(Images(), shuffle=True),
    "a generator of its own": lambda: plain(Images(), shuffle=True, generator=torch.Generator().manual_seed(7)),
    "dropping the rest": lambda: plain(Images(), shuffle=True, drop_last=True),
    "a part": lambda: plain(Images(), sampler=SubsetRandomSampler(range(1, 20))),
    "by weight": lambda: plain(Images(), sampler=WeightedRandomSampler(torch.arange(N) + 1.0, 19)),
    "with replacement": lambda: plain(Images(), sampler=RandomSampler(Images(), replacement=True, num_samples=30)),
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_shares_of_a_plain_loader_are_the_batches_of_one_process(make: Callable[[], DataLoader[Any]]) -> None:
    whole, parts = make(), [SharedBatches(make(), rank=rank, world_size=3) for rank in range(3)]
    for epoch in range(2):
        expected = epoch_of(whole, epoch)
        for part in parts:
            loading.seed_loader(3, epoch)
            part.set_epoch(epoch)
        for batch, *shares in zip(expected, *parts, strict=True):
            assert list(itertools.chain(*shares)) == batch and max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(len(part) == len(whole) for part in parts)


def test_a_batch_of_less_images_than_processes_repeats_one() -> None:
    parts = [list(SharedBatches(plain(Images(range(9)), 4), rank=rank, world_size=4)) for rank in range(4)]
    assert [part[-1] for part in parts] == [[8]] * 4


# -- in two processes --------------------------------------------------------------------------------------------------
class Stream(IterableDataset):
    """Images drawn at random without end, of which an epoch takes so many."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[Any]:
        own = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        while True:
            yield Images()[int(torch.randint(N, (), generator=own))]


class Fixed(Sampler[int]):
    """An order of the user's own, the same in every process, or each process's part of it."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


class Anew(Fixed):
    """Another order in each epoch, drawn from torch's numbers."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(N).tolist())


def own_part(n: int = N) -> list[int]:
    return list(range(dist.rank(), n, 2))


SHARED: dict[str, Callable[[], Any]] = {
    "a distributed sampler": lambda: plain(Images(), 4, sampler=DistributedSampler(Images(), shuffle=True)),
    "a distributed sampler with all of the batch": lambda: plain(Images(), sampler=DistributedSampler(Images())),
    "a data set cut by the user": lambda: plain(Images(own_part()), 4, shuffle=True),
    "a sampler that knows its part": lambda: plain(Images(), sampler=Fixed(own_part())),
    "batches that know their part": lambda: DataLoader(
        Images(), batch_sampler=BatchSampler(Fixed(own_part()), 4, False), collate_fn=collate
    ),
    "without names": lambda: plain(Images(named=False), sampler=Fixed(own_part())),
    "a stream at random": lambda: plain(Stream()),
    "no torch loader": lambda: [collate([Images()[i]]) for i in own_part(10)],
    "images that are all alike": lambda: plain(Images([5] * N, named=False), sampler=Fixed(list(range(11)))),
}
UNSHARED: dict[str, Callable[[], Any]] = {
    "an order of its own": lambda: plain(Images(), sampler=Fixed(list(range(N)))),
    "without names": lambda: plain(Images(named=False), sampler=Fixed(list(range(N)))),
    "another order in each process": lambda: plain(Images(), sampler=Anew(list(range(N)))),
    "batches of its own": lambda: DataLoader(
        Images(), batch_sampler=BatchSampler(SequentialSampler(Images()), 4, True), collate_fn=collate
    ),
    "batches that only the user understands": lambda: [(torch.full((2, 3, 16, 16), i), [i]) for i in range(6)],
    "a stream with a seed": lambda: plain(Stream(seed=1)),
    "no torch loader": lambda: [collate([Images()[i]]) for i in range(6)],
    "one part for all": lambda: plain(Images(), 4, sampler=DistributedSampler(Images(), num_replicas=2, rank=0)),
}


def train_on(make: Callable[[], Any]) -> Any:
    """Adopt a loader and run through an epoch as the loop does; what it gave, or why it was refused."""
    try:
        loader = loading.adopted(make(), batch=8)
        loading.seed_loader(0, 0)
        messages.tell_loader(loader, 0, mosaic_closed=False, first_batch=0)
        batches = messages.batches_from(loader, 0)
        assert loading.may_be_unshared(loader)
        return numbers(loading.watched(batches))
    except ValueError as error:
        return str(error)


def test_what_is_shared_is_left_alone_and_what_is_not_is_stopped(in_ranks: Any) -> None:
    def both() -> Any:
        kinds = {"shared": SHARED, "unshared": UNSHARED}
        return {(kind, name): train_on(make) for kind, cases in kinds.items() for name, make in cases.items()}

    one, two = in_ranks(both)
    for (kind, name), found in one.items():
        if kind == "shared":
            assert isinstance(found, list) and len(found) == len(two[kind, name]) > 1, (name, found)
            assert all(len(batch) <= 4 for batch in found), (name, found)
            assert found != two[kind, name] or "alike" in name
        else:
            assert isinstance(found, str) and found == two[kind, name], (name, found)
            assert "all 2 processes train on the same images" in found and "DistributedSampler(dataset," in found
    for name in ("a distributed sampler with all of the batch", "a data set cut by the user"):
        both_parts = itertools.chain(*one["shared", name], *two["shared", name])
        assert set(both_parts) == set(range(N)), name


def test_plain_loaders_are_shared_and_follow_the_main_process(in_ranks: Any) -> None:
    def both() -> Any:
        own = torch.Generator()
        own.manual_seed(dist.rank())  # each process would draw another order
        loaders = [plain(Images(), shuffle=True), plain(Images(), shuffle=True, generator=own)]
        made = [loading.adopted(loader, batch=8) for loader in loaders]
        facts = [extent(loader, 2) for loader in made]
        return facts, [[epoch_of(loader, epoch) for epoch in range(2)] for loader in made]

    (facts, one), (_, two) = in_ranks(both)
    assert [(e.images, e.batch, e.smallest) for e in facts] == [(N, 8, 3)] * 2
    for first, second in zip(itertools.chain(*one), itertools.chain(*two), strict=True):
        assert sorted(itertools.chain(*first, *second)) == list(range(N))
        assert [len(a) + len(b) for a, b in zip(first, second, strict=True)] == [8, 8, 6]
    alone = plain(Images(), shuffle=True)
    for epoch in range(2):
        joined = [a + b for a, b in zip(one[0][epoch], two[0][epoch], strict=True)]
        assert joined == epoch_of(alone, epoch), "the same batches as in one process"


def test_what_cannot_be_trained_on_by_all_is_refused(in_ranks: Any) -> None:
    class Endless(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    def both() -> Any:
        uneven = lambda: plain(Images(own_part(18)[: 9 - 5 * dist.rank()]), 4)  # noqa: E731
        return [train_on(make) for make in (uneven, lambda: plain(Endless()), lambda: plain(Images(), 1))]

    uneven, endless, few = in_ranks(both)[0]
    assert "3 in process 0, 1 in process 1" in uneven and "DistributedSampler" in uneven
    assert "returned a DataLoader without a length" in endless
    assert "batches of 1 give 2 processes less than one image each" in few


def test_one_process_keeps_its_loader_and_an_endless_one_ends_where_its_length_says() -> None:
    loader = plain(Images(), shuffle=True)
    assert shared(loader, batch=8, rank=0, world_size=1) is loader and loading.adopted(loader, batch=8) is loader
    assert len(list(messages.batches_from(plain(Stream(), 5), 2))) == 5 - 2
    assert extent(loader, 1).batch == 8 and extent(plain(Stream(), 5), 1)[:2] == (N, 5)
    assert not loading.may_be_unshared(loader)


def test_a_training_in_two_processes_sees_every_image_once(
    in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from eyas.train import DetectionTrainer

    class Own(DetectionTrainer):
        seen: list[str]

        def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            if mode == "val":
                return super().get_dataloader(dataset_path, batch_size, rank, mode)
            data = self.build_dataset(dataset_path, mode, batch_size)
            return DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=data.collate_fn)

        def preprocess_batch(self, batch: Any) -> Any:
            self.seen = [*getattr(self, "seen", []), *batch["im_file"]]
            return super().preprocess_batch(batch)

    options = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25, "epochs": 1}
    options |= {"batch": 8, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "save": False}

    def both() -> Any:
        trainer = Own(overrides={**options, "save_dir": str(tmp_path / "run"), "close_mosaic": 1})
        trainer.train()
        return trainer.seen, trainer.plan.batch, trainer.plan.images, bool(trainer.train_loader.dataset._closed)

    (one, batch, images, closed), (two, *_) = in_ranks(both)
    assert len(one) == len(two) == 8 and len({*one, *two}) == 16
    assert (batch, images, closed) == (8, 16, True)
