"""A YOLO26 for tests: the rows, rooms and names of the real one, in a fraction of its time."""

from __future__ import annotations

from typing import Any

from eyas.models.catalog import model_table

# One row of each kind stays as it is. The others become a convolution: a network this narrow spends its time on calling
# layers, not on arithmetic, and has 310 modules so instead of 554.
SIMPLER = {"backbone": (4, 6, 8), "head": (2, 5, 8, 11)}


def table() -> dict[str, Any]:
    """Return the table of layers, in plain values: an eighth of YOLO26n's width, and most of its blocks made simple."""
    real = model_table("yolo26n")
    small = {key: real[key] for key in ("nc", "end2end", "reg_max")} | {"scales": {"n": [0.5, 0.125, 64]}, "scale": "n"}
    for room, simpler in SIMPLER.items():
        small[room] = [
            [row[0], 1, "Conv", [row[3][0], 1]] if i in simpler else [*row] for i, row in enumerate(real[room])
        ]
    return small


def few_layers() -> dict[str, Any]:
    """Return the table of a network of two strides and little else, for tests of what happens around one."""
    return {
        "nc": 80,
        "end2end": True,
        "reg_max": 1,
        "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 16, 16, 16)],
        "head": [
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, 1, "Conv", [16, 1, 1]],
            [[7, 4], 1, "Detect", ["nc"]],
        ],
    }
