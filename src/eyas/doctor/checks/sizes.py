"""Boxes that are too small to be seen at the size of the network's input, or as large as the image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from eyas.doctor.case import Case, Split
from eyas.doctor.finding import Finding, counted, finding, percent

NAME = "sizes"
CELL = 8  # px: stride of the finest grid of YOLO26 and RT-DETR; a whole object in one cell is one vector to them
THIN = 2  # px: what is thinner may vanish when the image is scaled
GIANT = 0.9  # share of the image
RARE = 0.01  # share of the boxes up to which it is a note


def look(case: Case) -> Iterator[Finding]:
    """Measure boxes at ``imgsz``."""
    for split in case.splits.values():
        yield from _tiny(split)
        yield from _thin(split)
        yield from _giant(split)


def _tiny(split: Split) -> Iterator[Finding]:
    longer = (split.sides * split.scale[:, None]).max(axis=1, initial=0)
    rows = _rising(longer, longer < CELL)
    if len(rows):
        # nine of ten of them are then as large as a cell
        needed = math.ceil(split.imgsz * CELL / np.quantile(longer[rows], 0.1) / 32) * 32
        yield finding(
            NAME,
            "tiny box",
            "note" if len(rows) <= RARE * len(longer) else "warning",
            f"{split.name}: {_boxes(rows, longer)} less than "
            f"{CELL} px wide and high at imgsz={split.imgsz}: less than one cell of the finest grid (stride {CELL}), "
            "which is seldom found",
            f"Train with imgsz={needed}, which makes nine of ten of them {CELL} px, cut the images into tiles, or "
            "remove these labels.",
            (split.place_of(row, what=f"{longer[row]:.1f} px at imgsz={split.imgsz}") for row in rows),
            len(rows),
        )


def _thin(split: Split) -> Iterator[Finding]:
    scaled = split.sides * split.scale[:, None]
    shorter = scaled.min(axis=1, initial=np.inf)
    rows = _rising(shorter, (shorter < THIN) & (scaled.max(axis=1, initial=0) >= CELL))
    if len(rows):
        yield finding(
            NAME,
            "thin box",
            "note" if len(rows) <= RARE * len(shorter) else "warning",
            f"{split.name}: {_boxes(rows, shorter)} less than "
            f"{THIN} px wide or high at imgsz={split.imgsz}: it may vanish when the image is scaled",
            "Look whether these are objects; a larger imgsz keeps them.",
            (split.place_of(row, what=f"{shorter[row]:.1f} px at imgsz={split.imgsz}") for row in rows),
            len(rows),
        )


def _giant(split: Split) -> Iterator[Finding]:
    share: np.ndarray = split.sides.prod(axis=1) / np.maximum(split.index.shapes[split.image_of].prod(axis=1), 1)
    whole = np.asarray(split.at_border.all(axis=1))
    for kind, chosen, text in (
        ("whole image", whole, "as large as the image: they reach to all its borders"),
        ("giant box", (share >= GIANT) & ~whole, f"{GIANT:.0%} of the image or more"),
    ):
        rows = _rising(-share, chosen)
        if len(rows):
            yield finding(
                NAME,
                kind,
                "warning" if kind == "whole image" and len(rows) <= len(share) / 2 else "note",
                f"{split.name}: {_boxes(rows, share)} {text}",
                "See whether a label of the whole image was meant; close-ups are right as they are.",
                (split.place_of(row, what=f"{share[row]:.0%} of the image") for row in rows),
                len(rows),
            )


def _boxes(rows: list[int], of: np.ndarray) -> str:
    """Such as "3 boxes (1.2 %) are"."""
    return f"{counted(len(rows), 'box', 'boxes')} ({percent(len(rows), len(of))}) {'is' if len(rows) == 1 else 'are'}"


def _rising(values: np.ndarray, chosen: np.ndarray) -> list[int]:
    """Rows that are chosen, by their values."""
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(values[rows], kind="stable")].tolist()
