"""Pascal VOC: corners in px, difficult objects, lists; and files that are no annotations, or mean harm."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyas.data import build_index, check_dataset
from eyas.data.formats import voc as voc_format
from eyas.data.formats.base import UNREADABLE
from small_coco import Read, make_image, read

Voc = Callable[..., Read]
SIZE = "<size><width>40</width><height>30</height></size>"


def thing(name: str = "cat", corners: str = "4 6 24 18", more: str = "") -> str:
    box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners.split()))
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>\n"


@pytest.fixture
def voc(folder: Path) -> Voc:
    """Return a function that writes an XML file for a.png, and reads the split."""

    def call(*things: str, size: str = SIZE, text: str | bytes | None = None, **entry: Any) -> Read:
        (folder / "Annotations").mkdir(exist_ok=True)
        whole = f"<annotation>\n{size}\n{''.join(things)}</annotation>" if text is None else text
        (folder / "Annotations/a.xml").write_bytes(whole if isinstance(whole, bytes) else whole.encode())
        described = {"path": folder, "train": {"annotations": "Annotations", "images": "train", **entry}}
        return read(check_dataset(described | {"names": ["dog", "cat"]}, splits=("train",))["train"])

    return call


def test_corners_and_difficult_objects(voc: Voc) -> None:
    found = voc(
        thing(),
        thing("dog", "0 0 40 30", "<difficult>1</difficult>"),
        thing("*", "0 0 4 3", "<difficult>1</difficult>"),
    )
    labels = found.labels["a.png"]
    assert found.problems == {} and found.unused == {"image that the annotations do not name": 2}
    np.testing.assert_array_equal(labels.boxes, np.float32([[14 / 40, 12 / 30, 20 / 40, 12 / 30]]))
    assert labels.cls == [1] and labels.ignored.cls.tolist() == [0, -1]
    np.testing.assert_array_equal(labels.ignored.boxes[0], np.float32([0.5, 0.5, 1, 1]))


def test_pixels_may_count_from_1(voc: Voc) -> None:
    assert voc(thing(corners="1 1 40 30"), from_1=True).labels["a.png"].boxes.tolist() == [[0.5, 0.5, 1, 1]]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (thing("owl"), voc_format.UNKNOWN_CLASS),
        (thing("*"), voc_format.UNKNOWN_CLASS),
        ("<object><bndbox/></object>\n", voc_format.UNKNOWN_CLASS),
        (thing(corners="4 6 24"), voc_format.NO_BOX),
        (thing(corners="4 6 24 x"), voc_format.NO_BOX),
        (thing(corners="4 6 24 nan"), "not a number"),
        (thing(corners="24 6 4 18"), "negative size"),
        (thing(corners="4 6 4 18"), "zero size"),
        (thing(corners="4 6 24 180"), "coordinate out of range"),
        (thing(), "duplicate row"),
    ],
)
def test_a_bad_object_is_told_with_its_line(voc: Voc, bad: str, kind: str) -> None:
    found = voc(thing(), bad)
    assert found.problems == {kind: 1} and len(found.labels["a.png"].cls) == 1
    assert found.labels["a.png"].problems[0].line == 4


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("<annotation><object>", "no valid XML: no element found"),
        ("", "no valid XML"),
        ("<?xml version='1.0' encoding='klingon'?><a/>", "unknown encoding"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "document type"),
        ('<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY c "&b;&b;">]><a>&c;</a>', "document type"),
        ("<a>" * 1000, "elements inside each other"),
        (b"\x00\x01", "no valid XML"),
        (
            ('<?xml version="1.0" encoding="UTF-16"?>\n<!DOCTYPE a [<!ENTITY b "c">]><a/>').encode("utf-16"),
            "document type",
        ),
    ],
)
def test_a_file_that_cannot_be_read_leaves_its_image_out(voc: Voc, text: str | bytes, tells: str) -> None:
    found = voc(text=text)
    assert found.problems == {UNREADABLE: 1} and tells in found.messages and not len(found.labels["a.png"].cls)


@pytest.mark.parametrize("encoding", ["gbk", "Shift_JIS", "EUC-KR", "Big5", "gb18030", "utf-16", "windows-1252"])
def test_a_file_may_be_in_another_encoding_than_utf_8(voc: Voc, folder: Path, encoding: str) -> None:
    name = {"EUC-KR": "\uace0\uc591\uc774", "windows-1252": "K\xe4tzchen"}.get(encoding, "\u8c93")
    head = f"<?xml version='1.0' encoding='{encoding}'?>\n"
    text = f"{head}<annotation>\n{SIZE}\n{thing(name)}{thing()}</annotation>".encode(encoding, "xmlcharrefreplace")
    found = voc(text=text)
    assert found.problems == {voc_format.UNKNOWN_CLASS: 1} and f"'{name}' is no class" in found.messages
    assert found.labels["a.png"].problems[0].line == 4 and len(found.labels["a.png"].cls) == 1
    assert {*check_dataset(folder, splits=("train",))["names"].values()} == {"cat", name}


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        (b"<?xml version='1.0' encoding='gbk'?><a>\xff</a>", "codec can't decode byte"),
        (b"<?xml version='1.0' encoding='gbk'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        (b"<?xml version='1.0' encoding='punycode'?><a/>", ""),
        (b"<?xml version='1.0' encoding='zip'?><a/>", "not a text encoding"),
    ],
)
def test_an_encoding_is_no_way_around_a_refusal(voc: Voc, text: bytes, tells: str) -> None:
    found = voc(text=text)
    assert found.problems == {UNREADABLE: 1} and tells in found.messages


def test_where_no_file_names_a_class_the_reason_is_told(folder: Path) -> None:
    (folder / "Annotations").mkdir()
    (folder / "Annotations/a.xml").write_text(f"<!DOCTYPE annotation><annotation>{thing()}</annotation>")
    for data in (folder, {"path": folder, "train": "Annotations"}):
        with pytest.raises(ValueError, match=r"Annotations: no object .*1 XML files\. 1 of them .*a\.xml: it declares"):
            check_dataset(data, splits=("train",))
    (folder / "Annotations/a.xml").write_text("<annotation/>")
    with pytest.raises(ValueError, match=r"Annotations: no object with a name stands in its 1 XML files\.$"):
        check_dataset(folder)


def test_a_huge_file_is_not_read(voc: Voc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voc_format, "_LARGEST_FILE", 100)
    assert "larger than 100 bytes" in voc(thing(), thing("dog")).messages


def test_images_by_the_name_inside_and_files_without_one(voc: Voc, folder: Path) -> None:
    (folder / "Annotations").mkdir()
    (folder / "Annotations/0001.xml").write_text(f"<annotation><filename>b.png</filename>{thing()}</annotation>")
    (folder / "Annotations/0002.xml").write_text(f"<annotation><filename>gone.png</filename>{thing()}</annotation>")
    (folder / "Annotations/0003.xml").write_text("<annotation><filename>../../x.png</filename></annotation>")
    found = voc(thing())
    assert {*found.labels} == {"a.png", "b.png"} and sorted(found.missing) == ["gone.png", "x.png"]
    assert found.problems == {"path out of the data set": 1}


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds both forms of a name")
def test_an_image_may_have_its_name_in_another_unicode_form(voc: Voc, folder: Path) -> None:
    make_image(folder / "train/e\u0301.jpg", 30, 40)
    (folder / "Annotations").mkdir()
    (folder / "Annotations/\u00e9.xml").write_text(f"<annotation>{thing()}</annotation>")
    found = voc(thing())
    assert len(found.labels["e\u0301.jpg"].cls) == 1 and found.problems == {"name in another Unicode form": 1}


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds both forms of a name")
def test_a_list_may_name_files_in_another_unicode_form(folder: Path) -> None:
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("\u00e9 1\n", encoding="utf-8")
    (folder / "ImageSets/Main/val.txt").write_text("a\n")
    (folder / "train").rename(folder / "JPEGImages")
    make_image(folder / "JPEGImages/e\u0301.jpg", 30, 40)
    (folder / "Annotations").mkdir()
    for name in ("e\u0301", "a"):
        (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{thing()}</annotation>")
    assert [len(labels.cls) for labels in read(check_dataset(folder)["train"]).labels.values()] == [1]


def test_a_folder_of_the_contest(folder: Path) -> None:
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("a\ndeep/d  1\n")
    (folder / "ImageSets/Main/val.txt").write_text("b\nc -1\n")
    (folder / "train").rename(folder / "JPEGImages")
    make_image(folder / "JPEGImages/deep/d.png", 30, 40)
    for name, thing_name in (("a", "owl"), ("b", "cat"), ("c", "dog"), ("deep/d", "cat")):
        file = folder / f"Annotations/{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{thing(thing_name)}</annotation>")
    data = check_dataset(folder)
    assert data["names"] == {0: "cat", 1: "dog", 2: "owl"}
    index = build_index(data["train"], names=data["names"])
    assert [Path(index.path(i)).name for i in range(len(index))] == ["a.png", "d.png"]
    assert index.cls.tolist() == [2, 0] and index.report.counts == {}
    assert [*read(data["val"]).labels] == ["b.png"]
    before = index.cache_key
    (folder / "Annotations/a.xml").write_text(f"<annotation>{thing('dog')}{thing('cat')}</annotation>")
    after = build_index(check_dataset(folder)["train"], names=data["names"])
    assert after.cls.tolist() == [1, 0, 0] and after.cache_key != before


def test_names_must_be_told_and_are_proposed(folder: Path) -> None:
    (folder / "voc/train").mkdir(parents=True)
    (folder / "voc/train/a.xml").write_text(f"<annotation>{thing()}{thing('dog')}</annotation>")
    with pytest.raises(ValueError, match=r"do not list the classes; .* names: \[cat, dog\]"):
        check_dataset({"path": folder, "train": "voc/train", "val": 0.5})
    data = check_dataset({"path": folder, "train": "voc/train", "val": 0.5, "names": ["cat", "dog"]})
    assert len(read(data["train"]).labels["a.png"].cls) == 2, "the folder `train` beside it was found"
    assert zlib.crc32(str(data["train"].identity).encode()), "plain values"


def test_folders_of_images_stay_yolo_text(folder: Path) -> None:
    (folder / "train/a.xml").write_text("<annotation/>")
    assert check_dataset({"path": folder, "train": "train", "names": ["x"]}, splits=("train",))["train"] == [
        (folder / "train").resolve()
    ]
