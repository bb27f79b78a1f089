"""An index of a large data set is opened without a look at every file, and no change goes unseen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas.augment import AugmentSettings
from eyas.data import files, reopen
from eyas.data.dataset import TrainDataset
from eyas.data.errors import SampleError
from eyas.data.formats import yolo
from eyas.data.index import ImageIndex, build_index
from eyas.data.loader import build_train_loader
from eyas.data.store import ImageStore

IMAGES = 24
NAMES = {0: "cat", 1: "dog"}
PAST = time.time_ns() - 3600 * 10**9


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of images, one of them below the other, made an hour ago; sets of this size count as large."""
    monkeypatch.setattr(reopen, "LARGE", IMAGES // 2)
    monkeypatch.setattr(reopen, "_PER_FOLDER", 2)
    for i in range(IMAGES):
        folder = "images" if i % 2 else "images/deep"
        image = tmp_path / "set" / folder / f"{i}.png"
        label = Path(yolo.label_path(str(image)))
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((16, 16, 3), i, np.uint8))
        label.write_text(f"{i % 2} 0.5 0.5 0.5 0.5\n")
    age(tmp_path / "set")
    return tmp_path / "set"


def age(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for path in (*(os.path.join(folder, name) for name in names), folder):
            os.utime(path, ns=(PAST, PAST))


def opened(tree: Path, **changes: object) -> ImageIndex:
    return build_index([tree / "images"], names=NAMES, cache_dir=tree.parent / "cache", **changes)  # type: ignore[arg-type]


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The files that are looked at while an index is opened; the thread that looks at them later is kept away."""
    looks: list[object] = []

    def stat_of(entry: os.DirEntry[str] | str) -> files.FileStat:
        looks.append(entry)
        return real(entry)

    real = files.stat_of
    monkeypatch.setattr(files, "stat_of", stat_of)
    monkeypatch.setattr(yolo, "stat_of", stat_of)
    monkeypatch.setattr(reopen.Unseen, "look_at_all", lambda self, paths: None)
    return looks


def assert_equal(one: ImageIndex, other: ImageIndex) -> None:
    assert one.fingerprint == other.fingerprint and one.cache_key == other.cache_key
    assert [one.path(i) for i in range(len(one))] == [other.path(i) for i in range(len(other))]
    assert one.report.to_dict() == other.report.to_dict() and one.chosen == other.chosen


def test_the_second_time_no_file_is_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "images" / "notes.doc").write_text("neither")
    age(tree)
    first = opened(tree)
    looks = count_looks(monkeypatch)
    again = opened(tree)
    assert looks == [] and again.unseen is not None and first.unseen is None
    assert first.report.unused == {"not an image (.doc)": 1}
    assert_equal(first, again)
    del again.fingerprint  # it was stored; it must be what is computed
    assert first.fingerprint == again.fingerprint
    for i in range(IMAGES):
        ImageStore(again, imgsz=16).load(i)
    assert again.unseen.seen.all()


def test_a_small_set_is_looked_at_whole(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopen, "LARGE", IMAGES + 1)
    opened(tree)
    looks = count_looks(monkeypatch)
    assert opened(tree).unseen is None and len(looks) == 2 * IMAGES


def add_image(tree: Path) -> None:
    cv2.imwrite(str(tree / "images" / "deep" / "new.png"), np.zeros((16, 16, 3), np.uint8))


def remove_label(tree: Path) -> None:
    (tree / "labels" / "1.txt").unlink()


def rename_image(tree: Path) -> None:
    (tree / "images" / "3.png").rename(tree / "images" / "33.png")


def add_folder(tree: Path) -> None:
    (tree / "images" / "more").mkdir()
    cv2.imwrite(str(tree / "images" / "more" / "new.png"), np.zeros((16, 16, 3), np.uint8))


def replace_label(tree: Path) -> None:
    (tree / "new.txt").write_text("1 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.1 0.1\n")
    (tree / "new.txt").replace(tree / "labels" / "deep" / "2.txt")


@pytest.mark.parametrize("change", [add_image, remove_label, rename_image, add_folder, replace_label])
def test_what_came_went_or_was_replaced_is_found_at_once(tree: Path, change: Callable[[Path], None]) -> None:
    opened(tree)
    assert opened(tree).unseen is not None
    change(tree)
    again = opened(tree)
    assert again.unseen is None
    assert_equal(again, build_index([tree / "images"], names=NAMES, cache_dir=tree.parent / "another"))


def test_labels_in_a_folder_that_was_not_there_are_found(tree: Path) -> None:
    deep = tree / "labels" / "deep"
    aside = tree.parent / "aside"
    deep.rename(aside)
    age(tree)
    assert opened(tree).report.background == IMAGES // 2
    assert opened(tree).unseen is not None
    aside.rename(deep)
    assert opened(tree).report.background == 0


def test_other_names_or_settings_are_another_index(tree: Path) -> None:
    opened(tree)
    other = build_index([tree / "images"], names={0: "cat", 1: "cow"}, cache_dir=tree.parent / "cache")
    assert other.unseen is None and other.names == {0: "cat", 1: "cow"}
    assert opened(tree, classes=[1]).report.boxes == IMAGES // 2
    assert opened(tree, single_cls=True).instances(1).tolist() == [IMAGES]


def test_folders_that_changed_just_now_are_not_trusted(tree: Path) -> None:
    os.utime(tree / "labels")  # a second change in the same tick of the clock would leave no trace
    opened(tree)
    assert opened(tree).unseen is None


def test_a_list_is_watched_with_the_folders_of_its_images(tree: Path) -> None:
    listing = tree / "train.txt"
    listing.write_text("".join(f"images/{i}.png\n" for i in range(1, IMAGES, 2)) + "absent/1.png\n")
    age(tree)

    def again() -> ImageIndex:
        return build_index([listing], names=NAMES, cache_dir=tree.parent / "cache")

    assert len(again()) == IMAGES // 2 and again().unseen is not None
    (tree / "absent").mkdir()
    (tree / "images" / "deep" / "0.png").rename(tree / "absent" / "1.png")
    assert len(again()) == IMAGES // 2 + 1


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_file_changed_in_place_is_found_before_its_image_is_used(
    tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tree)
    file = tree / kind / f"5.{'png' if kind == 'images' else 'txt'}"
    content = file.read_bytes()
    with file.open("r+b") as handle:  # the folder does not change
        handle.write(content)
    monkeypatch.setattr(reopen.Unseen, "look_at_all", lambda self, paths: None)
    index = opened(tree)
    assert index.unseen is not None
    store = ImageStore(index, imgsz=16)
    changed = next(i for i in range(IMAGES) if index.path(i).endswith(f"{os.sep}5.png"))
    for i in set(range(IMAGES)) - {changed}:
        store.load(i)
    with pytest.raises(ValueError, match=rf"5\.{file.suffix[1:]} has changed since the data set was indexed"):
        store.load(changed)
    assert opened(tree).unseen is None  # all files are looked at now


def test_a_change_that_is_found_at_once_makes_the_index_anew(tree: Path) -> None:
    before = opened(tree)
    with (tree / "labels" / "deep" / "8.txt").open("a") as handle:
        handle.write("0 0.3 0.3 0.1 0.1\n")
    again = opened(tree)
    assert again.unseen is None and again.report.boxes == before.report.boxes + 1


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_what_was_left_out_and_is_mended_in_place_is_found(tree: Path, kind: str) -> None:
    file = tree / kind / f"7.{'png' if kind == 'images' else 'txt'}"
    sound = file.read_bytes()
    file.write_bytes(b"neither picture nor row\n")
    age(tree)
    assert len(opened(tree)) == IMAGES - 1
    assert opened(tree).unseen is not None
    file.write_bytes(sound)  # the folder does not change
    again = opened(tree)
    assert len(again) == again.report.boxes == IMAGES


def test_a_change_that_is_found_later_is_raised(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    monkeypatch.setattr(reopen, "_PATIENCE", 0)
    hold = threading.Event()
    look_at = reopen.Unseen.look_at
    monkeypatch.setattr(reopen.Unseen, "look_at", lambda self, i, paths: (hold.wait(30), look_at(self, i, paths)))
    with (tree / "labels" / "deep" / "8.txt").open("a") as handle:
        handle.write("0 0.3 0.3 0.1 0.1\n")
    index = opened(tree)
    assert index.unseen is not None
    index.refuse_known_changes()
    hold.set()
    deadline = time.monotonic() + 30
    while index.unseen.changed is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ValueError, match=r"8\.txt has changed"):
        index.refuse_known_changes()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_change_that_is_found_later_ends_the_epoch(tree: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tree)
    with (tree / "labels" / "7.txt").open("a") as handle:
        handle.write("0 0.3 0.3 0.1 0.1\n")
    monkeypatch.setattr(reopen.Unseen, "look_at_all", lambda self, paths: None)
    index = opened(tree)
    dataset = TrainDataset(index, ImageStore(index, imgsz=32), imgsz=32, settings=AugmentSettings(mosaic=0.0))
    loader = build_train_loader(dataset, batch=4, workers=workers, seed=0)
    with loader, pytest.raises(SampleError, match=r"7\.txt has changed since the data set was indexed"):
        list(loader)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null", b'{"asked": 1}']))
def test_a_damaged_watch_is_no_watch(tree: Path, content: bytes) -> None:
    first = opened(tree)
    for file in (tree.parent / "cache").rglob("*.watch.json"):
        file.write_bytes(content)
    assert_equal(first, opened(tree))
