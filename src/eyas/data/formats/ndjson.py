"""NDJSON: a line of JSON for each image, of all splits in one file.

`{"image": "a.jpg", "width": 640, "height": 480, "split": "train", "objects": [{"class": "cat", "bbox": [x, y, w, h]}]}`
with boxes in px from the left and top. `"ignore": true` in an object makes it an area to ignore, of every class if its
class is null. A line `{"names": ["cat", "dog"]}` anywhere gives the classes their order, and lets numbers stand for
them; without it, they are the names in the file, sorted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.data.formats.base import LabelSource
from eyas.data.formats.coco import NO_BOX, NO_NAME, is_file_name, number, pixels
from eyas.data.formats.entry import read_entry
from eyas.data.formats.table import ANY, UNKNOWN_CLASS, Form, Row, Table, TableBuilder, TableSource
from eyas.data.report import lost_kind
from eyas.files import opened

SUFFIXES = (".ndjson", ".jsonl")
BAD_LINE = lost_kind("line that is no entry")
_LONGEST = 2**26  # bytes of a line
_SPLITS = {"valid": "val", "validation": "val"}


def open_ndjson(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    """Open a `.ndjson` file, see `eyas.data.formats.Opener`."""
    told = read_entry(entry, root)
    if told is None or told.annotations.suffix.lower() not in SUFFIXES or not told.annotations.is_file():
        return None
    return TableSource(NDJSON, told.check("split"), root, names)


def read_ndjson(file: Path) -> Table:
    """Read a file; lines that cannot be used are told.

    Raises:
        ValueError: no line of it is an image, or `names` stands there twice.
    """
    builder = TableBuilder("an object of line {}")
    names: list[str] | None = None
    objects: list[tuple[int, int, dict[str, Any]]] = []  # image, line, object
    with opened(file) as handle:
        for line, raw in enumerate(iter(lambda: handle.readline(_LONGEST + 1), b""), start=1):
            if len(raw) > _LONGEST:
                raise ValueError(f"{file}, line {line}: it has more than {_LONGEST >> 20} MiB, which no image needs.")
            if not raw.strip():
                continue
            entry = _entry(raw, line, builder)
            if "names" in entry:
                if names is not None or not _are_names(entry["names"]):
                    raise ValueError(
                        f"{file}, line {line}: names must be a list of texts, each once, in one line only."
                    )
                names = entry["names"]
            elif entry:
                _add_image(entry, line, builder, objects)
    if not builder.images:
        told = "".join(f" Line {line}: {message}." for line, _, message in builder.problems[:1])
        raise ValueError(f'{file}: no line has the form {{"image": ..., "objects": [...]}}.{told}')
    if names is None:
        names = sorted({item["class"] for _, _, item in objects if isinstance(item.get("class"), str)})
    ranks: dict[object, int] = {name: rank for rank, name in enumerate(names)}
    for image, line, item in objects:
        _add_object(image, line, item, ranks, builder)
    return builder.table(names)


NDJSON = Form("ndjson", 1, read_ndjson)


def _entry(raw: bytes, line: int, builder: TableBuilder) -> dict[str, Any]:
    try:
        entry = json.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        builder.problems.append((line, BAD_LINE, str(error)))
        return {}
    if not isinstance(entry, dict):
        builder.problems.append((line, BAD_LINE, f"a {type(entry).__name__}, not a mapping"))
        return {}
    return entry


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len({*value}) == len(value) > 0


def _add_image(
    entry: dict[str, Any], line: int, builder: TableBuilder, objects: list[tuple[int, int, dict[str, Any]]]
) -> None:
    name, items, split = entry.get("image"), entry.get("objects", []), entry.get("split", "")
    if not is_file_name(name):
        builder.problems.append((line, NO_NAME, f"image {str(name)[:60]!r}"))
        return
    if not isinstance(split, str) or not isinstance(items, list):
        builder.problems.append((line, BAD_LINE, "split is a text, objects a list"))
        return
    image = len(builder.images)
    builder.images.append(str(name))
    builder.sizes.append((pixels(entry.get("height")), pixels(entry.get("width"))))
    builder.splits.append(_SPLITS.get(split, split))
    for item in items:
        if isinstance(item, dict):
            objects.append((image, line, item))
        else:
            builder.drop(image, line, BAD_LINE, f"the object {str(item)[:60]!r} is no mapping")


def _add_object(image: int, line: int, item: dict[str, Any], ranks: dict[object, int], builder: TableBuilder) -> None:
    known_as, box, ignored = item.get("class"), item.get("bbox"), item.get("ignore") is True
    rank = _rank(known_as, ranks)
    if ignored and known_as is None:
        rank = ANY
    values = [number(value) for value in box] if isinstance(box, list) else []
    left, top, width, height = values if len(values) == 4 else (None,) * 4
    if rank is None:
        builder.drop(image, line, UNKNOWN_CLASS, f"class {str(known_as)[:60]!r} of {len(ranks)} names")
    elif left is None or top is None or width is None or height is None:
        builder.drop(image, line, NO_BOX, f"bbox {str(box)[:60]}; it is [left, top, width, height] in px")
    else:
        builder.rows.append(Row(image, rank, (left, top, width, height), ignored, line))


def _rank(known_as: object, ranks: dict[object, int]) -> int | None:
    if isinstance(known_as, int) and not isinstance(known_as, bool):
        return known_as if 0 <= known_as < len(ranks) else None
    return ranks.get(known_as) if isinstance(known_as, str) else None
