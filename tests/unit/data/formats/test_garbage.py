"""Whatever stands in an annotation file: labels and problems come of it, or one ValueError."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eyas.data import check_dataset
from small_coco import read

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.floats(),
    st.sampled_from(["a.png", "cat", "", "0", "\ud800", "\0", 10**400]),
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=6
)


def entries(**fields: Any) -> st.SearchStrategy[list[Any]]:
    """Lists of mappings whose values are sound or anything, and of anything."""
    mapping = st.fixed_dictionaries({}, optional={key: sound | VALUES for key, sound in fields.items()})
    return st.lists(mapping | VALUES, max_size=4)


BOX = st.lists(st.integers(0, 20) | VALUES, min_size=3, max_size=5)
ID = st.integers(1, 3)
NAME = st.sampled_from(["a.png", "b.png", "../x", "/a.png", "C:\\c.png", "."])
OUTLINE = st.lists(st.lists(st.integers(0, 20), max_size=7), max_size=2) | st.fixed_dictionaries(
    {
        "size": st.lists(st.integers(-1, 9), max_size=3),
        "counts": st.lists(st.integers(-1, 30), max_size=5) | st.text(max_size=9),
    }
)
COCO = st.fixed_dictionaries({
    "images": entries(id=ID, file_name=NAME, width=ID, height=ID),
    "categories": entries(id=ID, name=st.sampled_from(["x", "y"])),
    "annotations": entries(
        id=ID, image_id=ID, category_id=ID, bbox=BOX, segmentation=OUTLINE, iscrowd=ID, ignore=st.booleans()
    ),
})  # fmt: skip


def survives(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    train = {"annotations": name, "images": "train"}
    for more in ({}, {"names": ["x", "cat"]}):
        with contextlib.suppress(ValueError):
            read(check_dataset({"path": folder, "train": train, **more}, splits=("train",))["train"])


@FEW
@given(COCO)
@example(
    {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [],
        "annotations": [{"image_id": 1, "bbox": [1e308] * 4}],
    }
)
def test_coco(folder: Path, content: dict[str, Any]) -> None:
    survives(folder, "x.json", json.dumps(content).encode())


@FEW
@given(
    entries(
        image=st.sampled_from(["a.png", "b.png"]),
        objects=entries(**{"class": ID, "bbox": BOX}),
        split=PLAIN,
        names=VALUES,
    ),
    st.binary(max_size=8),
)
def test_ndjson(folder: Path, lines: list[Any], tail: bytes) -> None:
    survives(folder, "x.ndjson", "\n".join(map(json.dumps, lines)).encode() + b"\n" + tail)


@FEW
@given(st.text(alphabet="<>/&;'\"=! abcdx0", max_size=40), st.binary(max_size=12), st.sampled_from(["utf-8", "utf-16"]))
def test_voc(folder: Path, text: str, tail: bytes, encoding: str) -> None:
    (folder / "Annotations").mkdir(exist_ok=True)
    inner = f"<annotation><object><name>x</name><bndbox><xmin>1</xmin>{text}</bndbox></object>{text}</annotation>"
    for content in (inner.encode(encoding), text.encode(encoding) + tail, tail):
        (folder / "Annotations/a.xml").write_bytes(content)
        train = {"annotations": "Annotations", "images": "train"}
        read(check_dataset({"path": folder, "train": train, "names": ["x"]}, splits=("train",))["train"])
