"""Images that cannot be loaded any more: replaced or left out, the same for all workers, counted, and few."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas import dist
from eyas.augment.settings import AugmentSettings
from eyas.data.bad_images import BadImages, TooManyBadImages
from eyas.data.dataset import STEADS, EvalDataset, TrainDataset
from eyas.data.errors import SampleError, UnloadableImage
from eyas.data.index import ImageIndex, build_index
from eyas.data.loader import EpochLoader, build_eval_loader, build_train_loader
from eyas.data.sampler import EpochOrder, SampleKey, TrainBatchSampler
from eyas.data.store import ImageStore

COUNT, SIZE = 12, 64
MIXED = AugmentSettings(mosaic=0.7, mixup=0.5, cutmix=0.5, degrees=5.0, scale=0.2, hsv_v=0.3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        image = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (64, 48))
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), image)
        (tmp_path / f"{i:02}.txt").write_text(f"0 0.5 0.5 0.{i + 10} 0.3\n")
    return tmp_path


@pytest.fixture
def index(folder: Path) -> ImageIndex:
    return build_index([folder], names={0: "a"}, cache_dir=folder / "cache")


def break_image(index: ImageIndex, i: int) -> str:
    """Leave the header and the end as they are, so that the index finds nothing wrong; return the path."""
    path = Path(index.path(i))
    data = bytearray(path.read_bytes())
    data[60:-40] = bytes(len(data) - 100)
    path.write_bytes(bytes(data))
    return str(path)


def dataset(index: ImageIndex, settings: AugmentSettings = MIXED) -> TrainDataset:
    return TrainDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE, settings=settings, seed=3)


def collect(loader: EpochLoader, epochs: int = 2) -> list[dict[str, Any]]:
    found = []
    with loader:
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            found += [{k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()} for b in loader]
    return found


def train(index: ImageIndex, **options: Any) -> EpochLoader:
    return build_train_loader(dataset(index), batch=4, seed=7, **({"workers": 0, "bad_images": 0.5} | options))


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name, value in a.items():
            assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


@pytest.mark.parametrize("how", ["broken", "gone"])
def test_workers_agree_on_what_comes_in_the_place_of_bad_images(index: ImageIndex, how: str) -> None:
    bad = [index.path(i) for i in (2, 5, 6)]
    for i in (2, 5, 6):
        if how == "gone":
            Path(index.path(i)).unlink()
        else:
            break_image(index, i)
    alone, several = train(index), train(index, workers=2)
    assert_same(collect(alone), collect(several))
    assert sorted(alone.bad.found) == sorted(several.bad.found) == bad
    ranks = [train(index, rank=rank, world_size=2) for rank in range(2)]
    shares = [collect(loader) for loader in ranks]
    whole = collect(train(index))
    for i, batch in enumerate(whole):
        assert torch.equal(batch["img"], torch.cat([shares[0][i]["img"], shares[1][i]["img"]]))


def test_the_next_of_the_order_takes_the_place(index: ImageIndex) -> None:
    """Held against samples whose keys name the other image from the start."""
    sampler = TrainBatchSampler(EpochOrder(COUNT, 7), batch=COUNT)
    (keys,) = list(sampler)
    order = [key.index for key in keys]
    lost = order[4]
    following = {lost: order[5]}
    expected = dataset(index).make_batch(
        [
            replace(
                key,
                index=following.get(key.index, key.index),
                partners=tuple(following.get(p, p) for p in key.partners),
            )
            for key in keys
        ]
    )
    break_image(index, lost)
    data = dataset(index)
    assert_same([data.make_batch(keys)], [expected])
    assert list(data.take_bad()) == [index.path(lost)] and data.take_bad() == {}
    assert expected["index"].tolist() == [following.get(i, i) for i in order]


def test_a_batch_without_bad_images_is_what_it_was(index: ImageIndex, folder: Path) -> None:
    before = collect(train(index, bad_images=0.0))
    loader = train(index)
    assert_same(collect(loader), before)
    assert loader.bad.found == {}


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(8)), st.sets(st.integers(0, 7), max_size=7), st.integers(0, 7))
def test_an_image_in_place_is_the_first_good_one(order: list[int], bad: set[int], position: int) -> None:
    class Partly(TrainDataset):
        def __init__(self) -> None:
            self.asked: list[int] = []

        def __len__(self) -> int:
            return 8

        def note_bad(self, error: UnloadableImage) -> None:
            self.asked.append(error.index)

        def _drawn(self, key: SampleKey, cache: Any, out: Any, gains: Any) -> Any:
            for i in (key.index, *key.partners):
                if i in bad:
                    raise UnloadableImage("bad", "", i)
            return None, None

    data = Partly()
    *_, chosen = data._sample(SampleKey(0, position, order[position], tuple(order)), {}, np.zeros(0), None)
    around = [*order[position:], *order[:position]]
    assert chosen == next(i for i in around if i not in bad)
    assert set(data.asked) == bad


def test_more_than_the_share_end_the_run(index: ImageIndex, caplog: pytest.LogCaptureFixture) -> None:
    paths = [break_image(index, i) for i in (0, 1, 2)]
    with pytest.raises(TooManyBadImages, match=r"3 of 12 images .* bad_images=0.2 allows 2: .*00\.png"):
        collect(train(index, bad_images=0.2))
    with pytest.raises(TooManyBadImages, match="allows 0"):
        collect(train(index, bad_images=0.0, workers=1))
    loader = train(index, bad_images=0.25)
    collect(loader)
    assert "3 images could not be loaded; the next of the order took its place: " in caplog.text
    assert sorted(loader.bad.found) == paths


def test_one_is_always_allowed_and_told_once(index: ImageIndex, caplog: pytest.LogCaptureFixture) -> None:
    path = break_image(index, 3)
    loader = train(index, bad_images=0.01)
    collect(loader, epochs=3)
    assert [path in record.message for record in caplog.records] == [True]
    again = train(index, bad_images=0.01)
    again.bad.take_over(loader.bad.found)
    collect(again)
    assert len(caplog.records) == 1, "a run that goes on has told it"
    again.bad.take_over({"another.png": "why"})
    with pytest.raises(TooManyBadImages):
        again.bad.join()


def test_nothing_left_is_an_error(index: ImageIndex) -> None:
    for i in range(COUNT):
        break_image(index, i)
    with pytest.raises(SampleError, match=r"none of the images can be loaded, .*\.png"):
        collect(train(index, bad_images=1.0))
    assert COUNT < STEADS


def test_who_asks_for_an_image_by_its_number_gets_no_other(index: ImageIndex) -> None:
    break_image(index, 3)
    data = dataset(index, AugmentSettings(mosaic=0))
    with pytest.raises(SampleError, match=r"03\.png"):
        data[3]
    assert data[4]["im_file"] == index.path(4) and data.take_bad() == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_bad_images_out(index: ImageIndex, workers: int) -> None:
    def run() -> tuple[list[dict[str, Any]], EpochLoader]:
        data = EvalDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE, batch=2)
        loader = build_eval_loader(data, workers=workers, bad_images=0.5)
        return collect(loader, epochs=1), loader

    def by_file(batches: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
        return {
            file: (b["img"][i], b["bboxes"][b["batch_idx"] == i], b["ori_shape"][i], b["ratio_pad"][i])
            for b in batches
            for i, file in enumerate(b["im_file"])
        }

    whole = by_file(run()[0])
    bad = [break_image(index, i) for i in (0, 1, 5)]  # the first two are a batch of their own
    batches, loader = run()
    left = by_file(batches)
    assert set(left) == set(whole) - set(bad) and sorted(loader.bad.found) == bad and len(batches) == 5
    for file, (img, boxes, *shapes) in left.items():
        assert torch.equal(img, whole[file][0]) and torch.equal(boxes, whole[file][1])
        assert shapes == list(whole[file][2:])
    with pytest.raises(SampleError, match=r"00\.png"):
        EvalDataset(index, ImageStore(index, imgsz=SIZE), imgsz=SIZE)[0]


def test_processes_join_what_they_have_found(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = BadImages(10, share=0.2, done="left out"), {"b.png": "broken"}
    ours.add({"a.png": "a.png is broken."})
    monkeypatch.setattr(dist, "gather_all", lambda found: [found, theirs])
    assert ours.join() == {"a.png": "a.png is broken.", "b.png": "broken"}
    assert "2 images could not be loaded; left out: a.png is broken; b.png: broken" in caplog.text
    assert ours.join() == {} and len(caplog.records) == 1
    theirs["c.png"] = "gone"
    with pytest.raises(TooManyBadImages, match="3 of 10"):
        ours.join()


def test_a_cache_of_pixels_has_them_still(index: ImageIndex, folder: Path) -> None:
    store = ImageStore(index, imgsz=SIZE, cache="ram")
    store.fill()
    shutil.rmtree(folder / "none", ignore_errors=True)
    break_image(index, 3)
    data = TrainDataset(index, store, imgsz=SIZE, settings=MIXED, seed=3)
    loader = build_train_loader(data, batch=4, seed=7, workers=0)
    collect(loader)
    assert loader.bad.found == {}
