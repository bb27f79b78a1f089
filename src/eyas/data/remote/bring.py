"""Which places of a description lie elsewhere, and what has to be known of each here.

Of a folder of images that is its tree, and the trees of `labels` and `ignored` beside it; of a list the images that it
names; of annotations the file, and the folder of their images. All of it then stands in the mirror, where the
description is read as if it had been there always.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eyas.data.files import IMAGE_SUFFIXES, lines_of
from eyas.data.remote.address import is_remote, is_url, led_to, to_url
from eyas.data.remote.mirror import Mirror
from eyas.data.remote.service import RemoteError

_ANNOTATIONS = (".json", ".ndjson", ".jsonl")
_DESCRIPTIONS = (".yaml", ".yml", *_ANNOTATIONS)
_BESIDE = ("labels", "ignored")  # folders beside `images`
_PLACES = ("annotations", "images", "list")  # keys of a split that name places


def bring_data(url: str, mirror: Mirror) -> str:
    """Bring the file here that describes a data set, or the tree of its folder, and return the path of it.

    Raises:
        ValueError: there is nothing, or it cannot be reached.
    """
    path = mirror.path(url)
    if _suffix(path) in _DESCRIPTIONS:
        there = mirror.file(path)
        if there and _suffix(path) in _ANNOTATIONS:
            mirror.folder(_root_of_annotations(path))
    else:
        there = mirror.folder(path)
    if not there:
        raise RemoteError(f"data={url}: there is no such file or folder{_without_pages(url)}.")
    return path


def bring_places(
    content: Mapping[str, Any], splits: Sequence[str], base: Path | None, mirror: Mirror, where: str
) -> dict[str, Any]:
    """Return a description in which each place elsewhere is a path of the mirror, and bring here what it needs.

    Args:
        content: the description.
        splits: those that are asked for.
        base: the folder of the file that it stands in, if it is one.
        mirror: of all that lies elsewhere.
        where: for messages.

    Raises:
        ValueError: a place is not there, or cannot be reached.
    """
    content = dict(content)
    root = _root(content, base, mirror)
    for split in splits:
        if given := content.get(split):
            content[split] = _brought(given, root, mirror, f"{where}: {split}")
    if isinstance(annotated := content.get("annotated"), Mapping):
        content["annotated"] = {mirror.path(key) if is_url(key) else key: ids for key, ids in annotated.items()}
    return content


def _root(content: dict[str, Any], base: Path | None, mirror: Mirror) -> str | None:
    """The data set's root, where that lies elsewhere; `path` leads there from now on."""
    given = content.get("path") or "."
    if is_url(given):
        root = mirror.path(given)
    elif is_remote(f"{given}{os.sep}"):  # of a folder that describes itself
        root = str(given)
    elif base is not None and is_remote(f"{base}{os.sep}") and isinstance(given, str):
        root = led_to(str(base), given)
        if base.name == Path(given).name and not mirror.folder(root):  # exports name their own folder
            root = str(base)
    else:
        return None
    os.makedirs(root, exist_ok=True)
    content["path"] = root
    return root


def _brought(given: Any, root: str | None, mirror: Mirror, where: str) -> Any:
    if isinstance(given, list | tuple):
        return [_brought(entry, root, mirror, where) for entry in given]
    if isinstance(given, Mapping):
        named = {key: _path(given[key], root, mirror) for key in _PLACES if isinstance(given.get(key), str)}
        for key, path in named.items():
            if path is not None:
                _bring(path, mirror, f"{where}: {key}", alone="images" in named or key != "annotations")
        return {**given, **{key: path for key, path in named.items() if path is not None}}
    path = _path(given, root, mirror)
    if path is None:
        return given
    # `../train/images` and `name of the root/train/images` of exports mean `train/images`.
    parts = Path(str(given)).parts
    other = led_to(root, str(Path(*parts[1:]))) if root and parts[:1] in (("..",), (os.path.basename(root),)) else None
    try:
        _bring(path, mirror, where)
    except RemoteError:
        if other is None:
            raise
        _bring(other, mirror, where)
        return other
    return path


def _path(given: object, root: str | None, mirror: Mirror) -> str | None:
    """The path of the mirror that stands for a place of a description; None for one on this host."""
    if is_url(given):
        return mirror.path(str(given))
    if root is None or not isinstance(given, str) or os.path.isabs(given):
        return None
    return led_to(root, given)


def _bring(path: str, mirror: Mirror, where: str, alone: bool = False) -> None:
    """Bring here what a place of a split needs; `alone`: where its images are is said beside it."""
    suffix = _suffix(path)
    if suffix == ".txt":
        there = mirror.file(path)
        if there and not alone:
            _bring_listed(path, mirror)
    elif suffix in _ANNOTATIONS:
        there = mirror.file(path)
        if there and not alone:
            mirror.folder(_root_of_annotations(path))
    elif suffix in IMAGE_SUFFIXES:
        there = True
        mirror.named([path, *_labels_of(path)])
    else:
        there = mirror.folder(path)
        for beside in _labels_of(path):
            mirror.folder(beside)
    if not there:
        raise RemoteError(f"{where}: {to_url(path)} is not there{_without_pages(path)}.")


def _bring_listed(path: str, mirror: Mirror) -> None:
    """Images that a list names: by the listings of their folders; by their names where a server has no listings."""
    images = [led_to(os.path.dirname(path), line) for line in lines_of(Path(path)) if not is_url(line)]
    folders = sorted({os.path.dirname(image) for image in images})
    for folder in [folder for folder in folders if not any(folder.startswith(f"{above}{os.sep}") for above in folders)]:
        if mirror.folder(folder):
            for beside in _labels_of(folder):
                mirror.folder(beside)
        else:
            named = [image for image in images if f"{image}{os.sep}".startswith(f"{folder}{os.sep}")]
            mirror.named(place for image in named for place in (image, *_labels_of(image)))


def _labels_of(path: str) -> list[str]:
    """Where labels and areas to ignore of an image, or of the images of a folder, stand."""
    before, found, after = f"{path}{os.sep}".rpartition(f"{os.sep}images{os.sep}")
    if not found:
        return [] if _suffix(path) not in IMAGE_SUFFIXES else [f"{os.path.splitext(path)[0]}.txt"]
    after = after.rstrip(os.sep)
    if _suffix(path) in IMAGE_SUFFIXES:
        after = f"{os.path.splitext(after)[0]}.txt"
    return [os.path.join(before, kind, after).rstrip(os.sep) for kind in _BESIDE]


def _root_of_annotations(path: str) -> str:
    folder = os.path.dirname(path)
    return os.path.dirname(folder) if os.path.basename(folder) == "annotations" else folder


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _without_pages(place: str) -> str:
    """What to say of a folder that a web server does not list."""
    url = to_url(place) if is_remote(place) else place
    if not url.startswith("http"):
        return ""
    return ", or the server lists no files there (a .txt list of the images' names does without)"
