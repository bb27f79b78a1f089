"""What a split holds, and what is said of it when it is no longer so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas.data.content import Content, content_of, differences, load_contents, save_contents
from eyas.data.files import sample_of
from eyas.data.index import ImageIndex, build_index

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(5):
        cv2.imwrite(
            str(folder / "images" / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)
        )
        (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.25 0.25\n")
    return folder


def index_of(root: Path) -> ImageIndex:
    return build_index([root / "images"], names=NAMES, cache_dir=root.parent / "cache")


def told(before: Content, root: Path, **more: object) -> list[str]:
    return differences(before, index_of(root), **more)  # type: ignore[arg-type]


def test_a_copy_in_another_place_is_the_same(root: Path, tmp_path: Path) -> None:
    before = content_of(index_of(root))
    copy = tmp_path / "other" / "place"
    shutil.copytree(root, copy, copy_function=shutil.copyfile)  # with times of its own
    os.utime(copy / "images" / "0.png", ns=(1, 1))
    assert content_of(index_of(copy)).digest() == before.digest() and told(before, copy) == []


def test_what_has_changed_is_named(root: Path) -> None:
    before = content_of(index_of(root))
    images, labels = root / "images", root / "labels"
    (labels / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    assert told(before, root) == ["other labels of 1 image (1.txt)".replace(".txt", ".png")]
    swapped = (images / "2.png").read_bytes()
    os.replace(images / "3.png", images / "2.png")
    (images / "3.png").write_bytes(swapped)
    assert told(before, root)[0] == "other bytes in 2 images (2.png, 3.png)"
    assert told(before, root, bad=[str(images / "2.png")])[0] == "other bytes in 1 image (3.png)"
    shutil.copy(images / "0.png", images / "9.png")
    (images / "4.png").unlink()
    assert told(before, root)[2:] == ["new: 1 image (9.png)", "gone: 1 image"]
    assert content_of(index_of(root)).digest() != before.digest()


def test_areas_to_ignore_are_labels_too(root: Path) -> None:
    before = content_of(index_of(root))
    (root / "ignored").mkdir()
    (root / "ignored" / "2.txt").write_text("-1 0.5 0.5 0.1 0.1\n")
    assert told(before, root) == ["other labels of 1 image (2.png)"]


def test_labels_in_other_words_are_the_same(root: Path) -> None:
    before = content_of(index_of(root))
    (root / "labels" / "0.txt").write_text("\n0.0  .5 5e-1\t0.25 0.2500\r\n")
    assert told(before, root) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.sampled_from([0, 1, 4097, 20_480, 20_481, 100_000, 1 << 20]), seed=st.integers(0, 2**31), data=st.data())
def test_other_bytes_are_another_sample(tmp_path: Path, size: int, seed: int, data: st.DataObject) -> None:
    """Compressed pictures that differ do so in all that follows: of a large file, a half of it is replaced."""
    path = tmp_path / "any"
    content = np.random.default_rng(seed).bytes(size)
    path.write_bytes(content)
    before = sample_of(str(path))
    assert sample_of(str(path)) == before and len(before) <= 8 + 5 * 4096
    start = data.draw(st.integers(0, max(size // 2 - 1, 0)))
    other = content[:start] + np.random.default_rng(seed + 1).bytes(size - start)
    path.write_bytes(other)
    assert (sample_of(str(path)) == before) == (other == content)
    path.write_bytes(content + b"\0")
    assert sample_of(str(path)) != before, "another size"


def test_contents_are_kept_in_a_file(root: Path, tmp_path: Path) -> None:
    file, content = tmp_path / "data.npz", content_of(index_of(root))
    assert load_contents(file) == {}
    save_contents(file, {"train": content, "val": content})
    loaded = load_contents(file)
    assert list(loaded) == ["train", "val"] and loaded["val"].digest() == content.digest()
    assert told(loaded["train"], root) == []
    file.write_bytes(file.read_bytes()[:200])
    assert load_contents(file) == {}, "damaged: less can be said, and nothing breaks"
