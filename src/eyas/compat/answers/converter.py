"""``ultralytics.data.converter``: annotations of COCO as YOLO text."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from eyas.log import LOGGER


def convert_coco(
    labels_dir: str | Path = "../coco/annotations/",
    save_dir: str | Path = "coco_converted/",
    use_segments: bool = False,
    use_keypoints: bool = False,
    cls91to80: bool = True,
) -> None:
    """Write a text file of boxes for every image of each annotation file in a folder.

    ``instances_train.json`` becomes ``save_dir/labels/train/<image>.txt``; images are not copied. Crowds and boxes
    without an area are left out.

    Args:
        labels_dir: folder of ``.json`` files in COCO's layout. save_dir: made where it is missing.
        use_segments, use_keypoints: not supported: Eyas learns boxes.
        cls91to80: number the categories that the file lists from 0 without a gap, as COCO's 80 classes usually are;
            False keeps their ids, less one.

    Raises:
        ValueError: no annotations there, or what is not supported was asked for.
    """
    if use_segments or use_keypoints:
        raise ValueError("convert_coco writes boxes; leave use_segments and use_keypoints out.")
    files = sorted(Path(labels_dir).resolve().glob("*.json"))
    if not files:
        raise ValueError(f"there are no annotations (.json) in {Path(labels_dir).absolute()}.")
    for file in files:
        folder = Path(save_dir) / "labels" / file.stem.removeprefix("instances_")
        folder.mkdir(parents=True, exist_ok=True)
        rows = yolo_rows(json.loads(file.read_text(encoding="utf-8")), renumber=cls91to80)
        for name, lines in rows.items():
            (folder / name).with_suffix(".txt").parent.mkdir(parents=True, exist_ok=True)
            (folder / name).with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        LOGGER.info("%s: %d label files in %s", file.name, len(rows), folder)


def yolo_rows(content: dict[str, Any], *, renumber: bool) -> dict[str, list[str]]:
    """Return rows ``class cx cy w h`` in shares of the image, by the image's file name."""
    images = {image["id"]: image for image in content["images"]}
    ids = sorted(category["id"] for category in content["categories"])
    number = {old: new for new, old in enumerate(ids)} if renumber else {old: old - 1 for old in ids}
    rows: dict[str, list[str]] = defaultdict(list)
    for item in content["annotations"]:
        image, (left, top, width, height) = images[item["image_id"]], item["bbox"]
        if item.get("iscrowd") or width <= 0 or height <= 0:
            continue
        w, h = image["width"], image["height"]
        shares = (left + width / 2) / w, (top + height / 2) / h, width / w, height / h
        row = " ".join(f"{value:.6g}" for value in (number[item["category_id"]], *shares))
        if row not in rows[image["file_name"]]:
            rows[image["file_name"]].append(row)
    return dict(rows)
