"""The numbered RT-DETR models as tables of layers (spec core C.3), and a tiny one of our own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

Row = list[Any]  # [from, repeats, layer, args]


def _lateral(width: int, origin: int = -1) -> Row:
    """Bring a map to the neck's width, without activation."""
    return [origin, 1, "Conv", [width, 1, 1, None, 1, 1, False]]


def _down(width: int) -> Row:
    """Halve a map depthwise, without activation."""
    return [-1, 1, "DWConv", [width, 3, 2, 1, False]]


BACKBONE_L: list[Row] = [
    [-1, 1, "HGStem", [32, 48]],  # 0: P2, 4 pixels per cell
    [-1, 6, "HGBlock", [48, 128, 3]],
    _down(128),  # 2: P3, 8
    [-1, 6, "HGBlock", [96, 512, 3]],
    _down(512),  # 4: P4, 16
    [-1, 6, "HGBlock", [192, 1024, 5, True, False]],
    [-1, 6, "HGBlock", [192, 1024, 5, True, True]],
    [-1, 6, "HGBlock", [192, 1024, 5, True, True]],
    _down(1024),  # 8: P5, 32
    [-1, 6, "HGBlock", [384, 2048, 5, True, False]],
]

BACKBONE_X: list[Row] = [
    [-1, 1, "HGStem", [32, 64]],  # 0: P2
    [-1, 6, "HGBlock", [64, 128, 3]],
    _down(128),  # 2: P3
    [-1, 6, "HGBlock", [128, 512, 3]],
    [-1, 6, "HGBlock", [128, 512, 3, False, True]],
    _down(512),  # 5: P4
    [-1, 6, "HGBlock", [256, 1024, 5, True, False]],
    *([-1, 6, "HGBlock", [256, 1024, 5, True, True]] for _ in range(4)),
    _down(1024),  # 11: P5
    [-1, 6, "HGBlock", [512, 2048, 5, True, False]],
    [-1, 6, "HGBlock", [512, 2048, 5, True, True]],
]

BACKBONE_TINY: list[Row] = [
    [-1, 1, "HGStem", [8, 16]],  # 0: P2
    [-1, 2, "HGBlock", [16, 32, 3]],
    _down(32),  # 2: P3
    [-1, 2, "HGBlock", [24, 64, 3]],
    _down(64),  # 4: P4
    [-1, 3, "HGBlock", [32, 128, 5, True, False]],
    _down(128),  # 6: P5
    [-1, 3, "HGBlock", [48, 192, 5, True, False]],
]


def _resnet(repeats: int) -> list[Row]:
    """Bottleneck ResNet whose third stage has ``repeats`` blocks."""
    return [
        [-1, 1, "ResNetLayer", [3, 64, 1, True, 1]],  # 0: P2
        [-1, 1, "ResNetLayer", [64, 64, 1, False, 3]],
        [-1, 1, "ResNetLayer", [256, 128, 2, False, 4]],  # 2: P3
        [-1, 1, "ResNetLayer", [512, 256, 2, False, repeats]],  # 3: P4
        [-1, 1, "ResNetLayer", [1024, 512, 2, False, 3]],  # 4: P5
    ]


def _neck(
    backbone: list[Row],
    p3: int,
    p4: int,
    width: int,
    ffn: int,
    heads: int = 8,
    repeats: int = 3,
    decoder: Sequence[Any] = (),
) -> list[Row]:
    """Attention on P5, then mixing down to P3 and up again, and the decoder.

    Args:
        backbone: its last row gives P5.
        p3: row of the backbone that gives P3; ``p4`` likewise.
        width: channels of the neck.
        ffn: inner width of the attention layer, which has ``heads``.
        repeats: fusable convolutions in each of the four mixing blocks.
        decoder: settings by position: hidden, queries, points, heads, layers, ffn, dropout, activation, layer of
            inference, denoising queries.
    """
    n = len(backbone)
    upsample: Row = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
    return [
        _lateral(width),
        [-1, 1, "AIFI", [ffn, heads]],
        [-1, 1, "Conv", [width, 1, 1]],  # n + 2: Y5
        upsample,
        _lateral(width, p4),
        [[-2, -1], 1, "Concat", [1]],
        [-1, repeats, "RepC3", [width]],
        [-1, 1, "Conv", [width, 1, 1]],  # n + 7: Y4
        upsample,
        _lateral(width, p3),
        [[-2, -1], 1, "Concat", [1]],
        [-1, repeats, "RepC3", [width]],  # n + 11: P3 out
        [-1, 1, "Conv", [width, 3, 2]],
        [[-1, n + 7], 1, "Concat", [1]],
        [-1, repeats, "RepC3", [width]],  # n + 14: P4 out
        [-1, 1, "Conv", [width, 3, 2]],
        [[-1, n + 2], 1, "Concat", [1]],
        [-1, repeats, "RepC3", [width]],  # n + 17: P5 out
        [[n + 11, n + 14, n + 17], 1, "RTDETRDecoder", ["nc", *decoder]],
    ]


def _table(name: str, lr_ratio: float, backbone: list[Row], head: list[Row]) -> dict[str, Any]:
    """Return a fresh table; ``lr_ratio`` is the rate of a trained backbone as a share of the others' (detr 1.9)."""
    return {
        "nc": 80,
        "end2end": True,
        "lr_ratio": lr_ratio,
        "backbone": copy.deepcopy(backbone),
        "head": copy.deepcopy(head),
        "yaml_file": f"{name}.yaml",
    }


def _large() -> dict[str, Any]:
    return _table("rtdetr-l", 0.05, BACKBONE_L, _neck(BACKBONE_L, 3, 7, 256, 1024))


def _extra_large() -> dict[str, Any]:
    return _table("rtdetr-x", 0.01, BACKBONE_X, _neck(BACKBONE_X, 4, 10, 384, 2048))


def _resnet50() -> dict[str, Any]:
    return _table("rtdetr-resnet50", 0.1, _resnet(6), _neck(_resnet(6), 2, 3, 256, 1024))


def _resnet101() -> dict[str, Any]:
    return _table("rtdetr-resnet101", 0.01, _resnet(23), _neck(_resnet(23), 2, 3, 256, 1024))


def _tiny() -> dict[str, Any]:
    """Ours: the same kinds of layers at width 64, with heads of 16 channels, for tests and small data."""
    neck = _neck(BACKBONE_TINY, 3, 5, 64, 128, heads=4, repeats=1, decoder=(64, 100, 4, 4, 3, 256, 0.0, "relu", -1, 25))
    return _table("rtdetr-tiny", 1.0, BACKBONE_TINY, neck)


TABLES: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType(
    {
        "rtdetr-l": _large,
        "rtdetr-x": _extra_large,
        "rtdetr-resnet50": _resnet50,
        "rtdetr-resnet101": _resnet101,
        "rtdetr-tiny": _tiny,
    }
)
"""Name -> function that returns a fresh table."""
