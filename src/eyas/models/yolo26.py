"""YOLO26: the table of its layers and its five scales (spec core C.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

# scale: (depth, width, most channels)
SCALES: dict[str, tuple[float, float, int]] = {
    "n": (0.50, 0.25, 1024),
    "s": (0.50, 0.50, 1024),
    "m": (0.50, 1.00, 512),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.50, 512),
}

# [from, repeats, layer, args]
BACKBONE: list[list[Any]] = [
    [-1, 1, "Conv", [64, 3, 2]],  # 0: P1, 2 pixels per cell
    [-1, 1, "Conv", [128, 3, 2]],  # 1: P2, 4
    [-1, 2, "C3k2", [256, False, 0.25]],
    [-1, 1, "Conv", [256, 3, 2]],  # 3: P3, 8
    [-1, 2, "C3k2", [512, False, 0.25]],
    [-1, 1, "Conv", [512, 3, 2]],  # 5: P4, 16
    [-1, 2, "C3k2", [512, True]],
    [-1, 1, "Conv", [1024, 3, 2]],  # 7: P5, 32
    [-1, 2, "C3k2", [1024, True]],
    [-1, 1, "SPPF", [1024, 5, 3, True]],
    [-1, 2, "C2PSA", [1024]],
]

HEAD: list[list[Any]] = [
    [-1, 1, "Upsample", [None, 2, "nearest"]],
    [[-1, 6], 1, "Concat", [1]],
    [-1, 2, "C3k2", [512, True]],  # 13
    [-1, 1, "Upsample", [None, 2, "nearest"]],
    [[-1, 4], 1, "Concat", [1]],
    [-1, 2, "C3k2", [256, True]],  # 16: P3 out
    [-1, 1, "Conv", [256, 3, 2]],
    [[-1, 13], 1, "Concat", [1]],
    [-1, 2, "C3k2", [512, True]],  # 19: P4 out
    [-1, 1, "Conv", [512, 3, 2]],
    [[-1, 10], 1, "Concat", [1]],
    [-1, 1, "C3k2", [1024, True, 0.5, True]],  # 22: P5 out, with attention
    [[16, 19, 22], 1, "Detect", ["nc"]],
]


def yolo26_table(scale: str = "n") -> dict[str, Any]:
    """Return a fresh table of YOLO26 at ``scale`` (one of n, s, m, l, x), in the form of a model YAML."""
    return {
        "nc": 80,
        "end2end": True,
        "reg_max": 1,
        "scales": {k: list(v) for k, v in SCALES.items()},
        "scale": scale,
        "backbone": copy.deepcopy(BACKBONE),
        "head": copy.deepcopy(HEAD),
        "yaml_file": f"yolo26{scale}.yaml",
    }


def _named(scale: str) -> Callable[[], dict[str, Any]]:
    return lambda: yolo26_table(scale)


TABLES: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType({f"yolo26{s}": _named(s) for s in SCALES})
"""Name -> function that returns a fresh table."""
