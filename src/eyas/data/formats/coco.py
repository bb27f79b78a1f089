"""COCO: boxes in px of all images of a split in one JSON file.

Classes are the file's categories in the order of their ids, which may have gaps. Crowds, and annotations with `ignore`,
are areas to ignore. An annotation without a box gets the one around its outline.

LVIS says of each image which classes are known to be absent (`neg_category_ids`) and which are only partly annotated
(`not_exhaustive_category_ids`): all but the first and those that it shows, and the second too, count as not annotated.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eyas.data.formats.base import LabelSource
from eyas.data.formats.entry import read_entry
from eyas.data.formats.outline import bounds
from eyas.data.formats.table import ANY, UNKNOWN_CLASS, Form, Ids, Row, Table, TableBuilder, TableSource
from eyas.data.report import kept_kind, lost_kind
from eyas.files import opened

NO_BOX = lost_kind("annotation without a box")
UNKNOWN_IMAGE = lost_kind("unknown image")
NO_NAME = lost_kind("image without a name")
NO_ENTRY = lost_kind("not an entry")
SAME_ID = lost_kind("images of one id")
SAME_ANNOTATION_ID = kept_kind("annotation id used twice")
_LARGEST = 1 << 31  # px
Box = tuple[float, float, float, float]


def open_coco(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    """Open a `.json` file of annotations, see `eyas.data.formats.Opener`."""
    told = read_entry(entry, root)
    if told is None or told.annotations.suffix.lower() != ".json" or not told.annotations.is_file():
        return None
    return TableSource(COCO, told.check(), root, names)


def read_coco(file: Path) -> Table:
    """Read a file; entries that cannot be used are told.

    Raises:
        ValueError: it is no JSON, or none of COCO's.
    """
    content = _load(file)
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list):
            raise ValueError(f"{file} holds no annotations of COCO's form: there is no list {key!r} in it.")
        lists[key] = value
    builder = TableBuilder("annotation number {}")
    ids, ranks, names = _categories(lists["categories"], file)
    if not names:
        raise ValueError(f"{file}: its list 'categories' is empty, so that there is no class to learn.")
    images = _images(lists["images"], builder)
    partly = _partly(lists["images"], ranks, images)
    seen: Counter[object] = Counter()
    for number, item in enumerate(lists["annotations"], start=1):
        called = builder.row.format(number)
        if not isinstance(item, dict):
            builder.problems.append((0, NO_ENTRY, f"{called} is {_short(item)}"))
            continue
        if _is_id(item.get("id")):
            seen[item["id"]] += 1
        image = images.get(item["image_id"]) if _is_id(item.get("image_id")) else None
        if image is None:
            builder.problems.append((0, UNKNOWN_IMAGE, f"{called}: image_id {_short(item.get('image_id'))}"))
            continue
        ignored, category = _is_set(item.get("iscrowd")) or _is_set(item.get("ignore")), item.get("category_id")
        rank = ANY if ignored and category in (None, -1) else ranks.get(category) if _is_id(category) else None
        if rank is None:
            message = f"{called}: category_id {_short(category)}; the file has {ids}"
            builder.drop(image, 0, UNKNOWN_CLASS, message)
            continue
        box = _box(item)
        if box is None:
            builder.drop(image, 0, NO_BOX, f"{called}: bbox {_short(item.get('bbox'))}, and no outline to take it from")
            continue
        builder.rows.append(Row(image, rank, box, ignored, number))
    _note_annotated(builder, partly, len(names))
    twice = [key for key, count in seen.items() if count > 1]
    if twice:
        message = f"{len(twice):,} ids, such as {_short(twice[0])}; all of these annotations are used"
        builder.problems.append((0, SAME_ANNOTATION_ID, message))
    return builder.table(names)


def read_ids(file: Path) -> Ids:
    """Return the ids of the images and of the categories of a file that `read_coco` has read, by name.

    Raises:
        ValueError: as `read_coco`.
    """
    content = _load(file)
    _, ranks, names = _categories(content["categories"], file)
    builder = TableBuilder("")
    images = {builder.images[place]: key for key, place in _images(content["images"], builder).items()}
    return Ids(images, {names[rank]: key for key, rank in ranks.items()})


COCO = Form("coco", 2, read_coco, read_ids)


class _Partly(NamedTuple):
    """Classes of an image in which only some are annotated: those that were looked for and are not there, None for all
    others; and those of which only some objects are annotated."""

    absent: set[int] | None
    some: set[int]


def _partly(entries: list[Any], ranks: dict[Any, int], images: dict[Any, int]) -> dict[int, _Partly]:
    """What LVIS says of images, by their place in the table."""
    found = {}
    for entry in entries:
        told = entry if isinstance(entry, dict) else {}
        absent, some = told.get("neg_category_ids"), told.get("not_exhaustive_category_ids")
        place = images.get(told["id"]) if _is_id(told.get("id")) else None
        if place is None or not (isinstance(absent, list) or isinstance(some, list)):
            continue
        known = [
            {ranks[key] for key in keys if _is_id(key) and key in ranks} if isinstance(keys, list) else None
            for keys in (absent, some)
        ]
        found[place] = _Partly(known[0], known[1] or set())
    return found


def _note_annotated(builder: TableBuilder, partly: dict[int, _Partly], classes: int) -> None:
    """Tell of each image which classes are annotated: those that it shows, and those that are known to be absent."""
    shown: dict[int, set[int]] = {place: set() for place in partly}
    for row in builder.rows:
        if row.image in shown and row.rank != ANY:
            shown[row.image].add(row.rank)
    for place, (absent, some) in partly.items():
        looked_for = set(range(classes)) if absent is None else shown[place] | absent
        if len(looked_for - some) < classes:
            builder.annotated[place] = sorted(looked_for - some)


def _load(file: Path) -> Any:
    try:
        with opened(file) as handle:
            return json.loads(handle.read(), object_hook=_without_outline)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}, column {error.colno}: no valid JSON: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start}).") from None
    except RecursionError:
        raise ValueError(f"{file}: no annotations: it is nested too deeply.") from None
    except MemoryError:
        raise ValueError(f"{file}: its {file.stat().st_size / 2**30:.1f} GiB do not fit the memory.") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{file}: no valid JSON: {error}.") from None


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Forget the outline of an annotation that has a box: all of them would take most of the memory."""
    if _numbers(entry.get("bbox")) is not None:
        entry.pop("segmentation", None)
    return entry


def _categories(entries: list[Any], file: Path) -> tuple[str, dict[Any, int], list[str]]:
    """Ids as a text; {id: place in the order of ids}; names in that order."""
    found: dict[Any, str] = {}
    for entry in entries:
        key, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not _is_id(key) or not isinstance(name, str | int):
            raise ValueError(f"{file}: the category {_short(entry)} has no id or no name.")
        text = str(name).encode("utf-8", "replace").decode()
        if found.setdefault(key, text) != text:
            raise ValueError(f"{file}: the category id {key!r} stands for {found[key]!r} and for {text!r}.")
    order = sorted(found, key=lambda key: (isinstance(key, str), key))
    shown = f"{', '.join(map(repr, order[:12]))}{', ...' if len(order) > 12 else ''}"
    return f"ids {shown}", {key: rank for rank, key in enumerate(order)}, [found[key] for key in order]


def _images(entries: list[Any], builder: TableBuilder) -> dict[Any, int]:
    """{id: place in the table}. Of an id that several files share, no annotation can be told apart: they get none."""
    places: dict[Any, int] = {}
    shared: set[Any] = set()
    for number, entry in enumerate(entries, start=1):
        key, name = (entry.get("id"), _name(entry)) if isinstance(entry, dict) else (None, None)
        if not _is_id(key) or not is_file_name(name):
            message = f"image number {number}: id {_short(key)}, file_name {_short(name)}"
            builder.problems.append((0, NO_NAME, message))
            continue
        if key in places and builder.images[places[key]] == name:
            continue
        if key in places:
            shared.add(key)
            builder.drop(len(builder.images), 0, SAME_ID, f"{name} has the id {key!r} of another image")
            if not builder.dropped.get(places[key]):
                builder.drop(
                    places[key], 0, SAME_ID, f"{builder.images[places[key]]} has the id {key!r} of another image"
                )
        places.setdefault(key, len(builder.images))
        builder.images.append(str(name))
        builder.sizes.append((pixels(entry.get("height")), pixels(entry.get("width"))))
    return {key: place for key, place in places.items() if key not in shared}


def _name(entry: dict[str, Any]) -> object:
    """The name of an image's file; LVIS has its address at COCO instead, which ends in `train2017/1.jpg`."""
    name, address = entry.get("file_name"), entry.get("coco_url")
    return "/".join(address.split("/")[-2:]) if name is None and isinstance(address, str) else name


def _box(item: dict[str, Any]) -> Box | None:
    box = _numbers(item.get("bbox"))
    return box if box is not None else bounds(item.get("segmentation"))


def _numbers(value: object) -> Box | None:
    """Four numbers, or None; one that no float holds is infinite."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    found = [number(item) for item in value]
    return None if None in found else tuple(found)  # type: ignore[return-value]


def number(value: object) -> float | None:
    """A number of a JSON file as float, infinite if it is too large; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def pixels(value: object) -> int:
    """A side in px; 0 for what is none."""
    side = number(value)
    return int(side) if side is not None and 1 <= side < _LARGEST else 0


def is_file_name(value: object) -> bool:
    """Whether a file may have this name."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str)


def _is_set(value: object) -> bool:
    return value not in (None, 0, "", "0", "false")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
