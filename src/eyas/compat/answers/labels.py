"""``ultralytics.data.utils``: descriptions, label files, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyas.compat.answers.yaml_files import yaml_load
from eyas.data.dataset_yaml import SPLITS, check_dataset
from eyas.data.files import IMAGE_SUFFIXES
from eyas.data.formats.yolo import TextRules, label_path, parse_labels
from eyas.data.image_header import read_header
from eyas.evaluate.sources.video import VIDEO_SUFFIXES

IMG_FORMATS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
VID_FORMATS = frozenset(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES)


def check_det_dataset(dataset: str | Path | Mapping[str, Any], autodownload: bool = True) -> dict[str, Any]:
    """Return the checked description of a data set: path, train, val, test, names, nc, channels, yaml_file.

    Args:
        dataset: see `eyas.data.check_dataset`.
        autodownload: False refuses a description whose images would have to be fetched.

    Raises:
        ValueError: anything missing or contradictory; names file and key.

    A split is one path as text, or a list of several; None where there is none.
    """
    if not autodownload:
        dataset = _without_download(dataset)
    data = check_dataset(dataset)
    return data | {split: _places(data[split]) for split in SPLITS}


def _without_download(dataset: str | Path | Mapping[str, Any]) -> str | Path | Mapping[str, Any]:
    """Return a description that names nothing to fetch."""
    if isinstance(dataset, Mapping):
        return {key: value for key, value in dataset.items() if key != "download"}
    if "://" in str(dataset):
        raise ValueError(f"{dataset} would be fetched, and autodownload is False.")
    file = Path(dataset)
    if not file.is_file() or "download" not in (content := yaml_load(file)):
        return dataset
    root = file.absolute().parent / str(content.pop("path", None) or "")
    del content["download"]
    return content | {"path": str(root if root.is_dir() else file.absolute().parent)}


def _places(entry: Any) -> Any:
    """Return existing paths as the incumbent's data sets write them; a label source stays what it is."""
    if not isinstance(entry, list):
        return entry
    texts = [str(path) for path in entry]
    return texts[0] if len(texts) == 1 else texts or None


def img2label_paths(img_paths: Sequence[str]) -> list[str]:
    """Return the label file of each image, whether it is there or not."""
    return [label_path(str(path)) for path in img_paths]


def verify_image_label(args: Sequence[Any]) -> list[Any]:
    """Read one image's head and labels.

    Args:
        args: image file, label file, prefix of messages, whether there are keypoints, classes, points, values of a
            point, and optionally ``single_cls``.

    Returns:
        Image file, labels (n, 5) class cx cy w h, (h, w), polygons, keypoints, then counts: label file missing, found,
        empty, image or rows unusable; and a message. All is None, with the last count 1, for an unusable image.
    """
    im_file, lb_file, prefix, keypoint, num_cls, nkpt, ndim, *rest = args
    header, problem = read_header(str(im_file))
    if header is None:
        assert problem is not None, "without a head there is a problem"
        return [None, None, None, None, None, 0, 0, 0, 1, f"{prefix}{im_file}: {problem.kind}: {problem.message}"]
    file = Path(lb_file)
    found = file.is_file()
    shape_of_points = (int(nkpt), int(ndim)) if keypoint else None
    rows = parse_labels(
        file.read_bytes() if found else b"",
        num_classes=num_cls,
        single_cls=bool(rest and rest[0]),
        rules=TextRules(keypoints=shape_of_points),
    )
    told = "; ".join(f"line {line}: {kind}: {text}" for line, kind, text, _ in rows.problems)
    labels = np.concatenate((rows.cls[:, None], rows.boxes), 1).astype(np.float32)
    empty = found and not len(labels) and not rows.problems
    message = f"{prefix}{lb_file}: {told}" if told else ""
    counts = [int(not found), int(found), int(empty), int(bool(rows.problems))]
    return [im_file, labels, (header.height, header.width), [], None, *counts, message]
