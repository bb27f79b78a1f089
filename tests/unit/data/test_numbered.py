"""Data sets by plain numbers, ours and any map-style one of the user's."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, WeightedRandomSampler

from eyas.augment import AugmentSettings
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.dataset_yaml import check_dataset
from eyas.data.errors import SampleError
from eyas.data.index import ImageIndex, build_index
from eyas.data.loader import batch_maker, build_eval_loader, build_train_loader, own_index
from eyas.data.numbered import SamplesOf, collate
from eyas.data.store import ImageStore
from eyas.train import messages

MADE = {"imgsz": 64, "seed": 0, "batch": 4}


@pytest.fixture(scope="module")
def index(digits_tiny: Path) -> ImageIndex:
    data = check_dataset(str(digits_tiny))
    return build_index(data["train"], names=data["names"], fraction=12)


@pytest.fixture
def ours(index: ImageIndex) -> TrainDataset:
    return TrainDataset(index, ImageStore(index, imgsz=64), imgsz=64, settings=AugmentSettings(), seed=1)


class Mine(Dataset):
    """Ten images, each of one colour, whose box is drawn anew each time."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> dict[str, Any]:
        width = 0.2 + 0.1 * random.random() + 0.1 * np.random.rand() + 0.1 * float(torch.rand(()))  # noqa: NPY002
        return {
            "img": torch.full((3, 64, 64), i, dtype=torch.uint8),
            "cls": torch.tensor([[float(i)]] * (i % 3)),
            "bboxes": torch.tensor([[0.5, 0.5, width, 0.4]] * (i % 3)),
            "note": f"sample {i}",
        }


# -- ours --------------------------------------------------------------------------------------------------------------
def test_a_sample_of_ours_is_one_image_and_samples_make_a_batch(ours: TrainDataset, index: ImageIndex) -> None:
    torch.manual_seed(0)
    samples = [ours[i] for i in (0, 3, -1)]
    assert [sample["im_file"] for sample in samples] == [index.path(i) for i in (0, 3, 11)]
    assert all(s["img"].shape == (3, 64, 64) and s["img"].dtype == torch.uint8 for s in samples)
    batch = ours.collate_fn(samples)
    assert batch["img"].shape == (3, 3, 64, 64) and batch["im_file"] == [s["im_file"] for s in samples]
    for i, sample in enumerate(samples):
        rows = batch["batch_idx"] == i
        assert torch.equal(batch["cls"][rows], sample["cls"]) and torch.equal(batch["bboxes"][rows], sample["bboxes"])
    assert batch["max_objects"] == max(len(s["cls"]) for s in samples)
    with pytest.raises(IndexError, match="image 12 of 12"):
        ours[12]
    assert len(list(ours)) == 12, "it ends where its images do"


def test_what_a_sample_is_augmented_by_follows_torchs_random_numbers(ours: TrainDataset) -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([ours[2]["img"], ours[2]["img"]])

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert not torch.equal(*draw(1)), "no two are alike"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_closing_the_mosaic_reaches_workers_that_live_on(ours: TrainDataset, index: ImageIndex) -> None:
    class Tells(TrainDataset):
        def __getitem__(self, i: int) -> Any:
            return self.key_of(i).mosaic_closed

    data = Tells(index, ours.store, imgsz=64, settings=AugmentSettings())
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    assert set(loader) == {False}
    data.close_mosaic()
    assert set(loader) == {True}


def test_mosaic_is_closed_by_false_and_the_loader_follows(ours: TrainDataset) -> None:
    def closed(epoch: int) -> set[bool]:
        messages.tell_loader(loader, epoch, mosaic_closed=epoch == 0, first_batch=0)
        return {key.mosaic_closed for keys in loader.sampler for key in keys}

    ours.settings = replace(ours.settings, mosaic=0.5)
    loader = build_train_loader(ours, batch=4, workers=0, seed=0)
    assert ours.mosaic
    for wrong in (True, 0.5, 1):
        with pytest.raises(ValueError, match=r"has no effect: only False can be set.*mosaic= before the run"):
            ours.mosaic = wrong
    assert closed(0) == {True} and closed(1) == {False}, "as the trainer says"
    ours.mosaic = False
    assert not ours.mosaic and closed(1) == {True}


def test_files_labels_and_images_are_told(ours: TrainDataset, index: ImageIndex) -> None:
    assert ours.im_files == [index.path(i) for i in range(12)] and len(ours.labels) == 12
    label = ours.labels[5]
    assert label["im_file"] == index.path(5) and label["shape"] == tuple(index.shapes[5])
    assert np.array_equal(label["bboxes"], index.labels(5)[1]) and label["cls"].shape == (len(label["bboxes"]), 1)
    image, original, loaded = ours.load_image(5)
    assert image.shape == (*loaded, 3) and max(loaded) == 64 and original == tuple(index.shapes[5])


def test_an_image_of_evaluation_is_that_of_its_batch(index: ImageIndex) -> None:
    data = EvalDataset(index, ImageStore(index, imgsz=64), imgsz=64, batch=5)
    with build_eval_loader(data, workers=0) as loader:
        batch = list(loader)[1]
    for i, file in enumerate(batch["im_file"]):
        sample = data[data.im_files.index(file)]
        assert torch.equal(sample["img"], batch["img"][i]) and sample["ratio_pad"] == batch["ratio_pad"][i]
        assert torch.equal(sample["bboxes"], batch["bboxes"][batch["batch_idx"] == i])


def test_torchs_loader_and_samplers_work_on_ours(ours: TrainDataset) -> None:
    weights = [1.0 if file == ours.im_files[4] else 0.0 for file in ours.im_files]
    loader = DataLoader(ours, batch_size=3, sampler=WeightedRandomSampler(weights, 6), collate_fn=ours.collate_fn)
    assert [batch["im_file"] for batch in loader] == [[ours.im_files[4]] * 3] * 2
    assert own_index(loader) is ours.index and own_index(DataLoader(Mine())) is None


def test_an_override_of_load_image_is_what_is_trained_on(ours: TrainDataset, index: ImageIndex) -> None:
    class Grey(TrainDataset):
        def load_image(self, i: int) -> Any:
            image, original, loaded = super().load_image(i)
            return np.full_like(image, 7), original, loaded

    settings = AugmentSettings(mosaic=0, translate=0, scale=0, hsv_h=0, hsv_s=0, hsv_v=0)
    grey = Grey(index, ours.store, imgsz=64, settings=settings)
    with build_train_loader(grey, batch=4, workers=0, seed=0) as loader:
        assert set(next(iter(loader))["img"][0].unique().tolist()) <= {7, 114}


# -- the user's --------------------------------------------------------------------------------------------------------
def epoch_of(dataset: Any, epoch: int = 0, **options: Any) -> list[dict[str, Any]]:
    made = batch_maker(dataset, **MADE)
    with build_train_loader(made, **{"batch": 4, "workers": 0, "seed": 3, **options}) as loader:
        assert loader.dataset is dataset
        loader.set_epoch(epoch)
        return [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()} for batch in loader]


def test_a_data_set_of_the_users_is_drawn_as_ours_is() -> None:
    batches = epoch_of(Mine())
    order = [int(image[0, 0, 0]) for batch in batches for image in batch["img"]]
    assert [len(batch["img"]) for batch in batches] == [4, 4, 2] and sorted(order) == list(range(10))
    assert order != sorted(order)
    assert [note for batch in batches for note in batch["note"]] == [f"sample {i}" for i in order]
    first = batches[0]
    assert first["batch_idx"].tolist() == [k for k, i in enumerate(order[:4]) for _ in range(i % 3)]
    assert len(first["im_file"]) == 4 and first["ori_shape"] == [(64, 64)] * 4, "told where the samples do not"


@pytest.mark.parametrize("other", [{"workers": 2}, {}])
def test_what_its_samples_draw_is_a_function_of_the_run(other: dict[str, int]) -> None:
    random.seed(5), torch.manual_seed(5)
    again = epoch_of(Mine(), **other)
    for a, b in zip(epoch_of(Mine()), again, strict=True):
        assert torch.equal(a["bboxes"], b["bboxes"])
    assert not torch.equal(
        torch.cat([b["bboxes"] for b in again]), torch.cat([b["bboxes"] for b in epoch_of(Mine(), 1)])
    )


def test_ranks_share_its_batches() -> None:
    whole = epoch_of(Mine())
    parts = [epoch_of(Mine(), rank=rank, world_size=2) for rank in range(2)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert torch.equal(batch["img"], torch.cat((one["img"], two["img"])))


def test_its_own_collate_is_used_and_subsets_of_ours_count_as_its(ours: TrainDataset) -> None:
    class Collates(Mine):
        @staticmethod
        def collate_fn(samples: list[Any]) -> dict[str, Any]:
            return collate(samples) | {"mine": len(samples)}

    assert [batch["mine"] for batch in epoch_of(Collates())] == [4, 4, 2]
    assert len(epoch_of(Subset(ours, [0, 1, 2]))[0]["img"]) == 3


def test_evaluation_of_its_images_keeps_their_order() -> None:
    with build_eval_loader(batch_maker(Mine(), **MADE), workers=0) as loader:
        batches = list(loader)
    assert [int(image[0, 0, 0]) for batch in batches for image in batch["img"]] == list(range(10))


def test_a_class_of_the_users_over_ours_gives_its_own_samples(ours: TrainDataset, index: ImageIndex) -> None:
    class Darker(TrainDataset):
        def __getitem__(self, i: int) -> dict[str, Any]:
            return {**super().__getitem__(i), "img": torch.zeros(3, 64, 64, dtype=torch.uint8)}

    darker = Darker(index, ours.store, imgsz=64, settings=AugmentSettings())
    assert isinstance(batch_maker(darker, **MADE), SamplesOf) and batch_maker(ours, **MADE) is ours
    assert all(int(batch["img"].sum()) == 0 for batch in epoch_of(darker))


def test_what_goes_wrong_in_it_is_named() -> None:
    class Broken(Mine):
        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"img": super().__getitem__(i)["img"]} if i == 3 else {}[i]

    with pytest.raises(SampleError, match=r"Broken\[\d\] failed: KeyError"):
        epoch_of(Broken())
    with pytest.raises(ValueError, match="a sample has no 'cls'"):
        collate([{"img": torch.zeros(3, 8, 8)}])
    sizes = [{"img": torch.zeros(3, s, s), "cls": [], "bboxes": []} for s in (8, 9)]
    with pytest.raises(ValueError, match=r"shapes \(3, 8, 8\) and \(3, 9, 9\)"):
        collate(sizes)

    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(())

    for wrong in (Stream(), object(), None):
        with pytest.raises(ValueError, match="gives no samples by number"):
            batch_maker(wrong, **MADE)
    with pytest.raises(ValueError, match="needs the classes of every image, which Mine does not tell"):
        epoch_of(Mine(), sampler="balanced")
