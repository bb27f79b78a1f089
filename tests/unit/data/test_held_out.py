"""Images held out for validation: chosen by content, so that every machine and folder chooses the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.data import held_out
from eyas.data.held_out import lowest
from eyas.data.index import ImageIndex, build_index


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "all").mkdir()
    for i in range(20):
        noise = np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"all/{i:02}.png"), noise)
        (tmp_path / f"all/{i:02}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return tmp_path


def part(data: Path, split: str, share: float | None = 0.25, **options) -> ImageIndex:
    return build_index(
        [data / "all"], names={0: "a"}, val_fraction=share, split=split, cache_dir=data / "cache", **options
    )


def names(index: ImageIndex) -> set[str]:
    return {Path(index.path(i)).name for i in range(len(index))}


def contents(index: ImageIndex) -> set[bytes]:
    return {Path(index.path(i)).read_bytes() for i in range(len(index))}


def test_every_image_is_in_one_part(data: Path) -> None:
    train, val = part(data, "train"), part(data, "val")
    assert (len(train), len(val)) == (15, 5)
    assert names(train) | names(val) == names(part(data, "train", None))
    assert names(val) < names(part(data, "val", 0.5)), "a larger share holds the smaller one"
    assert val.report.choices["val_fraction"] == 0.25 and "held out" in val.report.notes[0]
    assert f"held out from training: {len(val)} images" in val.report.notes[0]
    assert len(part(data, "train", fraction=0.2)) == 3, "a fraction is one of what is left to train on"


def test_the_choice_knows_neither_names_nor_order_nor_dates(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "all").mkdir()
    for i in range(20):
        for suffix in ("png", "txt"):
            copy = other / f"all/renamed {19 - i}.{suffix}"
            shutil.copy(data / f"all/{i:02}.{suffix}", copy)
            os.utime(copy, (i, i))
    assert contents(part(data, "val")) == contents(part(other, "val"))


def test_copies_fall_on_one_side(data: Path) -> None:
    inside = next(iter(names(part(data, "val"))))
    for i in range(3):
        shutil.copy(data / "all" / inside, data / f"all/copy{i}.png")
    train, val = part(data, "train"), part(data, "val")
    assert not contents(train) & contents(val)
    assert len(train) + len(val) == 23


def test_files_are_read_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = names(part(data, "val"))
    monkeypatch.setattr(held_out, "content_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert names(part(data, "val")) == first
    assert len(part(data, "train")) == 15
    monkeypatch.undo()
    cv2.imwrite(str(data / "all/00.png"), np.zeros((12, 16, 3), np.uint8))
    assert len(part(data, "train")) + len(part(data, "val")) == 20, "a file that changes is read anew"


def test_images_that_are_all_the_same_cannot_be_divided(data: Path) -> None:
    for i in range(20):
        shutil.copy(data / "all/00.png", data / f"all/{i:02}.png") if i else None
    with pytest.raises(ValueError, match="all files are the same"):
        part(data, "val")


@given(st.lists(st.integers(0, 40), max_size=60), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@settings(max_examples=200, deadline=None)
def test_any_hashes(digests: list[int], share: float, other: float) -> None:
    values = np.array(digests, np.int64)
    chosen = lowest(values, share)
    inside, outside = set(values[chosen].tolist()), set(values[~chosen].tolist())
    assert not inside & outside, "equal files are never divided"
    assert bool(inside) == bool(len(set(digests)) > 1)
    if inside:
        assert outside and max(inside) < min(outside)
    largest = max((digests.count(d) for d in set(digests)), default=0)
    if len(set(digests)) > 1:
        assert abs(chosen.sum() - share * len(digests)) <= largest, "as near as the files allow"
    small, large = sorted((share, other))
    assert not (lowest(values, small) & ~lowest(values, large)).any(), "shares are nested"
