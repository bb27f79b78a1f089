"""What lies in a data set and is no file: opened never waits, told always, never the end of the whole set."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas import files as eyas_files
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.data import files
from eyas.data import image_header as ih
from eyas.data.dataset_yaml import check_dataset
from eyas.data.formats import yolo as yl
from eyas.data.index import NO_USABLE_ROW, ImageIndex, build_index
from eyas.models import model_table

pytestmark = pytest.mark.skipif(os.name != "posix", reason="FIFOs, sockets and devices are POSIX")
NAMES = {0: "cat", 1: "dog"}
ROW = "0 0.5 0.5 0.25 0.25\n"


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """A test that waits for a FIFO is ended with stacks, not by patience."""
    import faulthandler

    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(4):
        put(tmp_path / "set", f"{i}.png", i)
    return tmp_path / "set"


def put(root: Path, name: str, seed: int = 0, rows: str | None = ROW) -> Path:
    image = root / "images" / name
    label = (root / "labels" / name).with_suffix(".txt")
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(image), np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8))
    if rows is not None:
        label.write_text(rows)
    return image


def build(data: Path, split: str = "train") -> ImageIndex:
    return build_index([data / "images"], names=NAMES, split=split, cache_dir=data.parent / "cache")


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have no more than a hundred letters
    try:
        server.bind(path.name)
    finally:
        os.chdir(before)
    return server


def described_index(described: object, cache: Path) -> ImageIndex:
    found = check_dataset(described, splits=("train",), cache_dir=cache)  # type: ignore[arg-type]
    return build_index(found["train"], names=found["names"], cache_dir=cache)


def said(index: ImageIndex) -> dict[str, str]:
    return {os.path.basename(p.file): f"{p.kind}: {p.message}" for p in index.report.problems}


def test_images_that_are_no_files_are_left_out_and_named(data: Path) -> None:
    images = data / "images"
    os.mkfifo(images / "a.jpg")
    (images / "b.jpg").symlink_to("/dev/zero")
    (images / "c.jpg").symlink_to("c.jpg")
    (images / "d.jpg").symlink_to("nowhere.jpg")
    with listen(images / "e.jpg"):
        for _ in ("scanned", "loaded"):
            index = build(data)
            assert len(index) == 4
            assert said(index) == {
                "a.jpg": f"{ih.NOT_AN_IMAGE}: a FIFO, not a file",
                "b.jpg": f"{ih.NOT_AN_IMAGE}: a device, not a file",
                "c.jpg": f"{ih.MISSING_IMAGE}: a link that leads in a circle",
                "d.jpg": f"{ih.MISSING_IMAGE}: a link to a file that is not there",
                "e.jpg": f"{ih.NOT_AN_IMAGE}: a socket, not a file",
            }
            assert index.report.left_out == {ih.NOT_AN_IMAGE: 3, ih.MISSING_IMAGE: 2}


def test_what_else_is_no_file_is_counted_and_named(data: Path) -> None:
    images = data / "images"
    os.mkfifo(images / "pipe")
    (images / "zero.bin").symlink_to("/dev/zero")
    (images / "gone").symlink_to("nowhere")
    (images / "scan.psd").write_bytes(b"8BPS")
    (images / ".hid").symlink_to(".hid")
    report = build(data).report
    assert report.unused == {
        "a FIFO, not a file (no suffix)": 1,
        "a device, not a file (.bin)": 1,
        "a link to a file that is not there (no suffix)": 1,
        f"{files.UNLISTED} (.psd)": 1,
        files.HIDDEN: 1,
    }
    assert report.unused_names[f"{files.UNLISTED} (.psd)"] == [str(images / "scan.psd")]
    assert report.to_dict()["unused_files_named"] == report.unused_names


def test_labels_that_are_no_files_make_no_background(data: Path) -> None:
    for i, name in enumerate(("a", "b", "c", "d", "e")):
        put(data, f"{name}.png", 10 + i, rows=None)
    labels = data / "labels"
    os.mkfifo(labels / "a.txt")
    (labels / "b.txt").symlink_to("/dev/zero")
    (labels / "c.txt").symlink_to("c.txt")
    (labels / "d.txt").symlink_to("nowhere")
    with listen(labels / "e.txt"):
        index = build(data)
    assert (len(index), index.report.background) == (4, 0)
    assert index.report.left_out == {NO_USABLE_ROW: 5}
    assert {name: text.partition(": ")[2] for name, text in said(index).items()} == {
        "a.txt": "a FIFO, not a file",
        "b.txt": "a device, not a file",
        "c.txt": "a link that leads in a circle",
        "d.txt": "a link to a file that is not there",
        "e.txt": "a socket, not a file",
    }


@pytest.mark.parametrize("kind", ["circle", "gone", "file"])
def test_a_folder_of_labels_that_cannot_be_listed_makes_no_background(data: Path, kind: str) -> None:
    put(data, "sub/a.png", 10, rows=None)
    place = data / "labels" / "sub"
    place.rmdir()
    assert build(data).report.background == 1, "no folder, no labels"
    if kind == "file":
        place.write_text("no folder")
    else:
        place.symlink_to("sub" if kind == "circle" else "nowhere")
    index = build(data)
    assert (len(index), index.report.background) == (4, 0)
    assert f"{place} cannot be listed" in said(index)["a.txt"]
    place.unlink()
    put(data, "sub/a.png", 10)
    assert len(build(data)) == 5, "mended"


def test_areas_to_ignore_that_cannot_be_read_are_told(data: Path) -> None:
    (data / "ignored").mkdir()
    os.mkfifo(data / "ignored" / "1.txt")
    index = build(data)
    assert len(index) == 4 and "a FIFO, not a file" in said(index)["1.txt"]


def test_links_between_folders(data: Path) -> None:
    (data / "images/tra").mkdir()
    (data / "images/train").mkdir()
    (data / "images/train/link").symlink_to("../tra")  # its path is the beginning of the one it stands in
    put(data, "tra/x.png", 20)
    put(data, "train/link/x.png", 20)  # its labels, that is
    (data / "images/tra/back").symlink_to("../train")  # tra -> train -> tra ...
    (data / "images/up").symlink_to(".")
    index = build(data)
    names = sorted(os.path.relpath(index.path(i), data / "images") for i in range(len(index)))
    assert names == [*(f"{i}.png" for i in range(4)), "tra/x.png", "train/link/x.png"]
    assert index.report.unused["link to a folder around it"] == 3
    assert index.report.unused_names["link to a folder around it"] == sorted(
        map(str, [data / "images/tra/back/link", data / "images/train/link/back", data / "images/up"])
    )


def test_a_link_to_a_folder_above_all_is_not_followed(data: Path) -> None:
    (data / "images" / "everything").symlink_to("/")
    (data / "images" / "set").symlink_to("..")
    index = build(data)
    assert len(index) == 4 and index.report.unused == {"link to a folder around it": 2}


def test_a_label_file_that_is_larger_than_any_is_not_read(data: Path) -> None:
    os.truncate(data / "labels" / "1.txt", 2**40)  # of holes
    index = build(data)
    assert len(index) == 3 and "more than 64 MiB" in said(index)["1.txt"]


def test_a_line_that_is_longer_than_any_is_not_read(data: Path) -> None:
    rows = data / "images" / "set.ndjson"
    rows.write_text('{"image": "0.png", "objects": [{"class": "cat", "bbox": [4, 4, 8, 8]}]}\n')
    os.truncate(rows, 2**40)
    with pytest.raises(ValueError, match=r"set\.ndjson, line 2: it has more than 64 MiB"):
        described_index(
            {"path": str(data), "train": "images/set.ndjson", "names": ["cat", "dog"]}, data.parent / "cache"
        )


def test_links_that_multiply_are_bounded(tmp_path: Path) -> None:
    for i in range(30):  # 2^29 paths
        folder = tmp_path / f"{i}"
        folder.mkdir()
        (folder / "x.txt").write_text("")
        if i:
            (folder / "a").symlink_to(f"../{i - 1}")
            (folder / "b").symlink_to(f"../{i - 1}")
    listing = files.list_files([tmp_path / "29"])
    assert not listing.images and len(listing.watched) <= 30 * 8
    assert sum(some.count for (_, why), some in listing.passed_over.items() if "8 times" in why) > 0


def test_folders_deeper_in_each_other_than_calls_may_be(data: Path) -> None:
    before = os.getcwd()
    os.chdir(data / "images")
    try:
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        assert cv2.imwrite("deep.png", np.zeros((24, 32, 3), np.uint8))
    finally:
        os.chdir(before)
    try:
        index = build(data, split="val")
        assert len(index) == 5 and index.report.background == 1
    finally:
        flatten(data / "images", "d")


def flatten(folder: Path, name: str) -> None:
    """Remove folders that lie deeper in each other than `shutil.rmtree` goes."""
    while (folder / name / name).exists():
        (folder / name / name).rename(folder / "next")
        (folder / name).rmdir()
        (folder / "next").rename(folder / name)


def test_images_that_share_a_label_file_are_named(data: Path) -> None:
    assert cv2.imwrite(str(data / "images/1.jpg"), np.zeros((24, 32, 3), np.uint8))
    for _ in ("scanned", "loaded"):
        index = build(data)
        assert len(index) == 5 and index.report.counts == {yl.SHARED: 1}
        assert said(index)["1.txt"].startswith(f"{yl.SHARED}: 1.jpg and 1.png")
    listed = data / "twice.txt"
    listed.write_text("images/0.png\nimages/0.png\n")
    twice = build_index([listed], names=NAMES, cache_dir=data.parent / "cache")
    assert len(twice) == 2 and not twice.report.counts, "one image that is listed twice"


def test_orphan_labels_are_named(data: Path) -> None:
    (data / "labels" / "orphan.TXT").write_text(ROW)
    report = build(data).report
    assert report.unused == {yl.NO_IMAGE: 1} and report.unused_names[yl.NO_IMAGE] == [str(data / "labels/orphan.TXT")]


@pytest.mark.parametrize("place", ["data.yaml", "instances.json", "list.txt", "one.ndjson", "one.png"])
@pytest.mark.parametrize("kind", ["fifo", "device", "circle"])
def test_descriptions_that_are_no_files_are_refused(data: Path, place: str, kind: str) -> None:
    special(data / place, kind)
    described: object = data / place
    if place != "data.yaml":
        described = {"path": str(data), "train": place, "names": ["cat", "dog"]}
    with pytest.raises((ValueError, OSError)) as caught:
        described_index(described, data.parent / "cache")
    assert place in str(caught.value) or (kind == "device" and "/dev/zero" in str(caught.value))


@pytest.mark.parametrize("kind", ["fifo", "device", "circle"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".yaml"])
def test_models_that_are_no_files_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    path = special(tmp_path / f"model{suffix}", kind)
    with pytest.raises((ValueError, OSError, CheckpointError)) as caught:
        (model_table if suffix == ".yaml" else load_checkpoint)(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("annotations", ["coco", "ndjson", "voc"])
def test_other_formats_tell_of_what_is_no_file(tmp_path: Path, annotations: str) -> None:
    root = tmp_path / "set"
    for i in range(2):
        put(root, f"{i}.png", i, rows=None)
    images = root / "images"
    os.mkfifo(images / "a.png")
    (images / "b.png").symlink_to("b.png")
    (images / "extra.png").symlink_to(images / "0.png")
    (images / "scan.psd").write_bytes(b"8BPS")
    names = ["0.png", "1.png", "a.png", "b.png"]
    described = {"path": str(root), "names": ["cat"], "train": write(root, annotations, names)}
    index = described_index(described, tmp_path / "cache")
    expected = {"a.png": "a FIFO, not a file", "b.png": "a link that leads in a circle"}
    if annotations == "voc":
        expected["2.xml"] = "a FIFO, not a file"
    assert len(index) == 2 and index.report.boxes == 2
    assert {name: text.partition(": ")[2] for name, text in said(index).items()} == expected
    counted = {k: v for k, v in index.report.unused.items() if "FIFO" not in k}
    assert counted == {"image that the annotations do not name": 1, f"{files.UNLISTED} (.psd)": 1}
    assert str(images / "extra.png") in index.report.unused_names["image that the annotations do not name"]


def write(root: Path, annotations: str, names: list[str]) -> object:
    """Annotations of that kind, each image with a box."""
    import json

    if annotations == "coco":
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [{"image_id": i, "category_id": 1, "bbox": [4, 4, 8, 8]} for i in range(len(names))],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (root / "train.json").write_text(json.dumps(content))
        return {"annotations": "train.json", "images": "images"}
    if annotations == "ndjson":
        rows = [{"image": name, "objects": [{"class": "cat", "bbox": [4, 4, 8, 8]}]} for name in names]
        (root / "train.ndjson").write_text("\n".join(map(json.dumps, rows)))
        return {"annotations": "train.ndjson", "images": "images"}
    box = "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>12</xmax><ymax>12</ymax></bndbox>"
    (root / "Annotations").mkdir()
    for name in names:
        file = root / "Annotations" / f"{Path(name).stem}.xml"
        file.write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
    put(root, "2.png", 5, rows=None)
    os.mkfifo(root / "Annotations" / "2.xml")
    return {"annotations": "Annotations", "images": "images"}


def special(path: Path, kind: str) -> Path:
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path.name)
    return path


@given(st.binary(max_size=64), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_both_ends_of_a_file_are_what_it_holds(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, a: int, b: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    first, sample = files.read_start_and_sample(str(path), a)
    assert first[:a] == data[:a] and sample[8:][-b:] == data[-b:]
    assert files.read_whole(str(path)) == data
    with eyas_files.opened(path) as file:
        assert file.read() == data


def test_a_fifo_with_a_writer_is_not_read(tmp_path: Path) -> None:
    path = special(tmp_path / "pipe", "fifo")
    holder = os.open(path, os.O_RDWR)  # keeps it open, as a program that writes does
    try:
        os.write(holder, b"0 0.5 0.5 0.1 0.1\n")
        done = threading.Event()
        with pytest.raises(OSError, match="a FIFO, not a file"):
            eyas_files.open_regular(path)
        done.set()
    finally:
        os.close(holder)
