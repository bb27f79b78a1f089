"""Data set description: YAML (or a mapping) in, checked paths and class names out (spec core E.1).

Relative paths are relative to the YAML file, never to the working directory or to a hidden global folder. Nothing in a
YAML is ever executed.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eyas.data.cache import cache_root
from eyas.data.class_names import Classes, read_classes
from eyas.data.describe import FILES as ANNOTATION_FILES
from eyas.data.describe import describe_file, describe_folder
from eyas.data.formats import LabelSource, claim
from eyas.data.ignore import read_rules
from eyas.data.odd_names import Spellings
from eyas.data.public_sets import PUBLIC, fetch_public
from eyas.data.remote.address import is_url, shown
from eyas.data.remote.bring import bring_data, bring_places
from eyas.data.remote.mirror import Mirror
from eyas.files import expanded
from eyas.log import LOGGER
from eyas.names import nearest
from eyas.plain_yaml import YamlError, read_yaml

EMBEDDED = {"digits": "default", "digits-tiny": "tiny"}
SPLITS = ("train", "val", "test")
_ALIASES = {"validation": "val", "valid": "val"}
_YAML_SUFFIXES = (".yaml", ".yml")
_LONGEST = 500  # letters of a path
_IN_QUOTES = "In double quotes, YAML reads a backslash as the beginning of an escape: write / instead."


def check_dataset(
    data: str | Path | Mapping[str, Any],
    *,
    splits: Sequence[str] = ("train", "val"),
    optional: Sequence[str] = (),
    ids_start: int | None = None,
    val_fraction: float | None = None,
    cache_dir: str | Path | None = None,
    remote_cache: str | None = None,
) -> dict[str, Any]:
    """Read and check a data set description.

    Args:
        data: a YAML file (the suffix may be left out), a folder holding one YAML file, an annotation file or a folder
            that `eyas.data.describe` understands, "digits" or "digits-tiny" for the embedded set, a public set
            (`eyas.data.public_sets`) or an http(s) address of an archive, which are downloaded, the URL of a file or
            folder that stays where it is (`eyas.data.remote`), or a mapping with the same keys as the YAML, in which a
            split may be a `LabelSource`. Places in a description may be URLs, too.
        splits: the splits that must be there.
        optional: others, that must be there if the description names them.
        ids_start: the class id that label files begin with, over the key of the same name.
        val_fraction: share of the training images to hold out for validation, where the description has no `val`. The
            same as `val: 0.1` in it.
        cache_dir: see `eyas.data.cache.cache_root`; where the embedded set and downloads are kept.
        remote_cache: where and how much of data that lie elsewhere is kept, see `eyas.data.remote.address.parse_room`.

    Returns:
        path (Path of the root), train, val, test (list of existing Paths: folders, `.txt` lists or images; empty when
        not given; a `LabelSource` where a format of `eyas.data.FORMATS` claims what the split says), names
        {int: str}, nc, ignore (`IgnoreRules`), ids (what label files call each class, or None: 0, 1, 2, ...),
        val_fraction (val is then what train is, and the share of it that validates), value_range (what is white in
        images of more than 8 bits, or None), channels, keypoints ((points, values) or None), yaml_file (Path or None),
        remote (URLs of what lies elsewhere).

    Raises:
        ValueError: anything missing or contradictory; names the file, the key, what was tried, the nearest real name.
    """
    mirror = Mirror(remote_cache, cache_dir)
    if isinstance(data, Mapping):
        file, content, where = None, dict(data), "data"
    else:
        file, content, where = _describe(str(data), splits, cache_dir, mirror)
    _rename_aliases(content, where)
    if ids_start is not None:
        content["ids_start"] = ids_start
    if val_fraction is not None:
        _hold_out(content, val_fraction, where)
    needed = [*splits, *(split for split in optional if content.get(split))]
    content = bring_places(content, needed, file.absolute().parent if file else None, mirror, where)
    if remote_cache is not None and not mirror.urls:
        raise ValueError(f"remote_cache={remote_cache} has no effect: all of data={data} lies on this machine.")
    return _check(content, file, where, needed, cache_dir) | {"remote": tuple(mirror.urls)}


_Described = tuple[Path | None, dict[str, Any], str]
"""The YAML file, None where there is none; what it says, or what the files say without one; how messages call it."""


def _describe(data: str, splits: Sequence[str], cache_dir: str | Path | None, mirror: Mirror) -> _Described:
    if data in EMBEDDED:
        from eyas.data.digits import ensure_digits

        return _from_yaml(ensure_digits(EMBEDDED[data], cache_dir=cache_dir))
    if "://" in data:
        from eyas.data.download import ARCHIVES, download_archive

        if data.lower().endswith(ARCHIVES):
            return _from_folder(download_archive(data, cache_root(cache_dir) / "datasets"))
        if not is_url(data):
            raise ValueError(f"data={data} is no address: protocol://place/folder/file.")
        data = bring_data(data, mirror)
    try:
        path = expanded(data)
    except ValueError as error:
        raise ValueError(f"data={error}") from None
    if path.is_dir():
        return _from_folder(path)
    candidates = [path]
    if path.suffix.lower() not in _YAML_SUFFIXES:
        candidates += [Path(f"{path}{suffix}") for suffix in _YAML_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            if candidate.suffix.lower() in ANNOTATION_FILES:
                return None, describe_file(candidate, splits), shown(str(candidate))
            if candidate.suffix.lower() not in _YAML_SUFFIXES:
                raise ValueError(
                    f"data={data}: a data set is described by a .yaml file, or by annotations in a "
                    f"{', '.join(ANNOTATION_FILES)} file, not by a {path.suffix} file."
                )
            return _from_yaml(candidate)
    if data in PUBLIC:
        folder = fetch_public(data, cache_root(cache_dir) / "datasets")
        return None, {"path": folder, **PUBLIC[data].content}, data
    raise ValueError(_no_such_data(data, path, candidates))


def _from_yaml(file: Path) -> _Described:
    return file, _read_yaml(file), shown(str(file))


def _from_folder(folder: Path) -> _Described:
    """What the YAML of a folder says; without one, what its annotations do."""
    inner = [entry for entry in folder.iterdir() if entry.is_dir()]
    for place in (folder, *(inner if len(inner) == 1 else [])):
        if _yamls(place, "*"):
            break
        content = describe_folder(place)
        if content is not None:
            return None, content, shown(str(place))
    return _from_yaml(_only_yaml(folder))


def _yamls(folder: Path, pattern: str) -> list[Path]:
    return sorted(file for file in folder.glob(pattern) if file.suffix.lower() in _YAML_SUFFIXES)


def _only_yaml(folder: Path) -> Path:
    """The YAML of a folder: directly inside it, else one level deeper."""
    place = shown(str(folder))
    for pattern in ("*", "*/*"):
        found = _yamls(folder, pattern)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise ValueError(f"{place} holds several YAML files ({names}); name the one that describes the data set.")
    raise ValueError(
        f"{place} holds no YAML file that describes a data set (keys train, val, names), and neither "
        "annotations/*.json (COCO) nor Annotations/*.xml (Pascal VOC)."
    )


def _no_such_data(data: str, path: Path, tried: list[Path]) -> str:
    files = path.parent.iterdir() if path.parent.is_dir() else []
    beside = [file.name for file in files if file.suffix.lower() in (*_YAML_SUFFIXES, *ANNOTATION_FILES)]
    near = nearest(path.name, [*beside, *EMBEDDED, *PUBLIC]) or nearest(path.stem, [*EMBEDDED, *PUBLIC])
    tried_text = ", ".join(str(candidate.absolute()) for candidate in tried)
    return (
        f"data={data}: no such file. Tried {tried_text}.{_did_you_mean(near)} Embedded: {', '.join(EMBEDDED)}. "
        f"Downloaded on request: {', '.join(PUBLIC)}."
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = read_yaml(file)
    except YamlError as error:
        hint = f" {_IN_QUOTES}" if "escape" in str(error) else ""
        raise YamlError(f"{error}{hint}") from None
    if not isinstance(content, dict):
        what = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{shown(str(file))} holds {what}; expected keys train, val and names.")
    return content


def _rename_aliases(content: dict[str, Any], where: str) -> None:
    for alias, key in _ALIASES.items():
        if alias in content and key not in content:
            LOGGER.warning("%s: key %r is read as %r.", where, alias, key)
            content[key] = content.pop(alias)


def _hold_out(content: dict[str, Any], share: float, where: str) -> None:
    """Write a share to hold out into a description, in place of the images for validation that it lacks."""
    own = content.get("val")
    if own and not _is_number(own):
        raise ValueError(
            f"{where}: val_fraction={share} would hold out training images, but the data has val: {own}. Leave one of "
            "them out."
        )
    content["val"] = share


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _held_out(content: dict[str, Any], where: str) -> float | None:
    """The share of the training images that validates; `val` becomes what `train` is."""
    share = content.get("val")
    if not isinstance(share, int | float) or isinstance(share, bool):
        return None
    if not 0 < share < 1:
        raise ValueError(
            f"{where}: val={share} must be a folder of images, or a share of the training images, like 0.1."
        )
    content["val"] = content.get("train")
    return float(share)


def _check(
    content: dict[str, Any], file: Path | None, where: str, splits: Sequence[str], cache_dir: str | Path | None
) -> dict[str, Any]:
    held_out = _held_out(content, where)
    for split in splits:
        if not content.get(split):
            raise ValueError(_missing_split(content, split, where))
    root, tried_roots = _root(content, file, where)
    given = None if content.get("names") is None else read_classes(content, where).names
    claimed, places = _sources(content, root, given, where)
    missing = any(None in places[split] for split in splits)
    if missing and not content.get("download"):  # before the classes, which may stand in what is missing
        raise ValueError(_missing_source(content, splits, places, root, tried_roots, where))
    names, ids = _agreed_classes(content, claimed, where)
    channels = content.get("channels", 3)
    if channels != 3:
        raise ValueError(f"{where}: channels={reprlib.repr(channels)} is not supported; images are read as 3 channels.")
    if missing:
        root = _download(content, root, where, cache_dir)
        claimed, places = _sources(content, root, names, where)
        if any(None in places[split] for split in splits):
            raise ValueError(_missing_source(content, splits, places, root, tried_roots, where))
    existing = {split: [path for path in paths if path is not None] for split, paths in places.items()}
    if {"train", "val"} <= {*splits} and held_out is None and trains_on_val(content, existing):
        LOGGER.warning(
            "%s: val is the same as train, so that validation is on training images and tells nothing of others; "
            "`val: 0.1` holds out a tenth of them.",
            where,
        )
    return {"path": root, **existing, **claimed} | {
        "names": names,
        "nc": len(names),
        "ids": ids,
        "ignore": read_rules(content, names, root, where),
        "val_fraction": held_out,
        "value_range": _check_value_range(content, where),
        "channels": channels,
        "keypoints": _check_keypoints(content, where),
        "yaml_file": file,
    }


def trains_on_val(content: Mapping[str, Any], existing: Mapping[str, Sequence[Path]]) -> bool:
    """Whether the images for validation are those for training: the same places, in whatever order."""
    return content["train"] == content["val"] or bool(existing["val"] and {*existing["val"]} == {*existing["train"]})


def _sources(
    content: dict[str, Any], root: Path, names: Mapping[int, str] | None, where: str
) -> tuple[dict[str, LabelSource], dict[str, list[Path | None]]]:
    """The splits that a label format claims, and the paths of each split; none where it is claimed."""
    claimed = {}
    for split in SPLITS:
        for entry in _entries(content.get(split) or ()):
            if isinstance(entry, str):
                _as_path(entry, split, where)
        try:
            source = claim(_as_found(content[split], root), root, names) if content.get(split) else None
        except ValueError as error:
            raise ValueError(f"{where}: {split}: {error}") from None
        if source is not None:
            claimed[split] = source
    return claimed, {split: [] if split in claimed else _paths(content, split, root, where) for split in SPLITS}


def _missing_split(content: Mapping[str, Any], split: str, where: str) -> str:
    known = (*SPLITS, "names", "nc", "path", "ids_start", "value_range", "ignore", "annotated")
    near = nearest(split, [key for key in map(str, content) if key not in known])
    others = (
        " Without such images: `val: 0.1` (or val_fraction=0.1) holds out a tenth of the training images; val=false "
        "trains without validation."
        if split == "val" and content.get("train") and not near
        else ""
    )
    return f"{where}: key {split!r} (a folder of images) is missing.{_did_you_mean(near)}{others}"


def _agreed_classes(content: dict[str, Any], claimed: Mapping[str, LabelSource], where: str) -> Classes:
    """The classes of the description, or else those that the annotations bring; all splits have the same."""
    told = {split: dict(source.names) for split, source in claimed.items() if source.names is not None}
    if told and content.get("names") is None:
        content = content | {"names": next(iter(told.values()))}
    classes = read_classes(content, where)
    if classes.ids is not None and claimed:
        split, source = next(iter(claimed.items()))
        raise ValueError(
            f"{where}: ids_start, and ids in names that do not go from 0 on without a gap, are for label files of YOLO "
            f"text; the annotations of {split} ({source}) have ids of their own."
        )
    for split, others in told.items():
        if others != classes.names:
            raise ValueError(
                f"{where}: the annotations of {split} ({claimed[split]}) have the classes {others}, and the data set "
                f"has {classes.names}. Annotations bring no classes of their own where the description has `names`."
            )
    return classes


def _check_keypoints(content: dict[str, Any], where: str) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list | tuple) and len(shape) == 2 and all(isinstance(v, int) and v > 0 for v in shape)):
        raise ValueError(f"{where}: kpt_shape={reprlib.repr(shape)} must be two whole numbers, such as [17, 3].")
    return int(shape[0]), int(shape[1])


def _check_value_range(content: dict[str, Any], where: str) -> float | None:
    white = content.get("value_range")
    if white is None:
        return None
    if not _is_number(white) or not 0 < white < 2**32:
        raise ValueError(
            f"{where}: value_range={reprlib.repr(white)} must be the value of white, like 4095 for 12 bits or 1.0."
        )
    return float(white)


def _root(content: dict[str, Any], file: Path | None, where: str) -> tuple[Path, list[Path]]:
    """The data set's root and what was tried. Exports often name their own folder in `path`; that is understood."""
    base = file.absolute().parent if file else Path.cwd()
    given = content.get("path")
    if given is None or given == "":
        return base, [base]
    if not isinstance(given, str | Path):
        raise ValueError(f"{where}: path={reprlib.repr(given)} must be a folder.")
    path = _as_path(given, "path", where)
    tried = [base / path]
    if not path.is_absolute() and base.name == path.name:
        tried.append(base)
    root = next((candidate for candidate in tried if os.path.isdir(candidate)), tried[0])
    return root.resolve(), tried


def _paths(content: dict[str, Any], split: str, root: Path, where: str) -> list[Path | None]:
    """Existing sources of a split; None stands for one that is missing."""
    given = content.get(split)
    if not given:
        return []
    entries = _entries(given)
    for entry in entries:
        if not isinstance(entry, str | Path):
            raise ValueError(
                f"{where}: {split}={reprlib.repr(given)} must be a folder, a .txt list of images, a list of these, or "
                "an annotation file (COCO .json, .ndjson)."
            )
    return [_existing(root, _as_path(entry, split, where)) for entry in entries]


def _as_path(text: str | Path, key: str, where: str) -> Path:
    """A path that a description names; raises ValueError for what can be none."""
    with suppress(ValueError):  # there is no such user
        if len(str(text)) <= _LONGEST and "\0" not in str(text):
            return expanded(text)
    raise ValueError(f"{where}: {key}={reprlib.repr(text)} is no path that a file can have.")


def _entries(given: Any) -> list[Any]:
    """The places that a split names; of annotations that no format claims, these."""
    entries = list(given) if isinstance(given, list | tuple) else [given]
    return [
        entry["annotations"] if isinstance(entry, Mapping) and "annotations" in entry else entry for entry in entries
    ]


def _candidates(root: Path, entry: str | Path) -> list[Path]:
    """`entry` below the root; `../x` and `root's name/x` are retried as `x`, which is what Roboflow's exports mean."""
    path = expanded(entry)
    candidates = [root / path]
    if path.parts[:1] in (("..",), (root.name,)):
        candidates.append(root / Path(*path.parts[1:]))
    return candidates


def _existing(root: Path, entry: str | Path) -> Path | None:
    """Where a place is; else where one is of the same name in another Unicode form."""
    candidates, spellings = _candidates(root, entry), Spellings()
    there = [path for path in candidates if os.path.exists(path)]
    there = there or [Path(found) for path in candidates if (found := spellings.find(os.path.normpath(path)))]
    return there[0].resolve() if there else None


def _as_found(given: Any, root: Path) -> Any:
    """What a description says of a split, with places where `_existing` finds what is not there as it is written."""
    if isinstance(given, list | tuple):
        return [_as_found(entry, root) for entry in given]
    if isinstance(given, Mapping):
        return {key: _as_found(value, root) if key == "annotations" else value for key, value in given.items()}
    if not isinstance(given, str | Path) or os.path.exists(root / given):
        return given
    return str(_existing(root, given) or given)


def _missing_source(
    content: dict[str, Any],
    splits: Sequence[str],
    places: Mapping[str, Sequence[Path | None]],
    root: Path,
    tried_roots: list[Path],
    where: str,
) -> str:
    """What to say of the first place that is not there."""
    split = next(split for split in splits if None in places[split])
    entries = _entries(content[split])
    entry = next(entry for entry in entries if _existing(root, entry) is None)
    if not os.path.isdir(root):
        tried = ", ".join(map(str, tried_roots))
        near = _nearest_entry(root)
        return (
            f"{where}: the data set's folder path={content.get('path')} does not exist. Tried {tried}. "
            f"A relative path starts at the folder of the YAML file.{_as_windows(content.get('path'))}"
            f"{_did_you_mean(near)}"
        )
    candidates = _candidates(root, entry)
    tried = ", ".join(str(path) for path in candidates)
    near = _nearest_entry(candidates[0])
    windows, contents = _as_windows(entry), _contents(candidates[0])
    return f"{where}: {split}: {entry} does not exist. Tried {tried}.{windows or contents}{_did_you_mean(near)}"


def _as_windows(path: object) -> str:
    """What to say of a missing path with backslashes, or of one in which YAML has read a backslash as an escape."""
    text = str(path)
    if any(ord(character) < 32 for character in text):
        return f" {text!r} holds control characters. {_IN_QUOTES}"
    if "\\" not in text or os.sep == "\\":
        return ""
    drive = f", and {text[:2]} is a drive there" if text[1:2] == ":" else ""
    return f" It is written with backslashes, as on Windows{drive}; here folders are separated by /: {_slashed(text)}."


def _slashed(text: str) -> str:
    return text.replace("\\", "/")


def _first_missing(path: Path) -> Path:
    while not os.path.exists(path.parent):
        path = path.parent
    return path


def _nearest_entry(path: Path) -> list[Path]:
    """The existing path nearest to a missing one, up to its first part that is missing, if one resembles it."""
    missing = _first_missing(path)
    beside = [entry.name for entry in missing.parent.iterdir()] if os.path.isdir(missing.parent) else []
    return [missing.parent / name for name in nearest(missing.name, beside)]


def _contents(path: Path) -> str:
    folder = _first_missing(path).parent
    names = sorted(entry.name for entry in folder.iterdir()) if os.path.isdir(folder) else []
    listing = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f" {folder} holds {listing or 'nothing'}."


def _download(content: dict[str, Any], root: Path, where: str, cache_dir: str | Path | None) -> Path:
    """Fetch a missing data set from the archive its YAML names."""
    address = str(content["download"]).strip()
    if not address.lower().startswith(("http://", "https://")) or "\n" in address:
        raise ValueError(
            f"{where}: the images are missing ({root}) and `download` is a script. Eyas never runs code from a data "
            "set; fetch the data yourself, or put the http(s) address of a .zip or .tar archive there."
        )
    from eyas.data.download import download_archive

    folder = download_archive(address, cache_root(cache_dir) / "datasets")
    inner = folder / root.name
    return inner if inner.is_dir() else folder


def _did_you_mean(near: Sequence[object]) -> str:
    """As people write files and keys: bare."""
    return f" Did you mean {near[0]}?" if near else ""
