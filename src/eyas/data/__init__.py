"""Data sets: from files on disk to uint8 samples. Names load on first use; nothing here imports torch by itself."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "check_dataset": "eyas.data.dataset_yaml",
    "ImageIndex": "eyas.data.index",
    "build_index": "eyas.data.index",
    "ImageStore": "eyas.data.store",
    "DatasetReport": "eyas.data.report",
    "Problem": "eyas.data.report",
    "parse_labels": "eyas.data.formats.yolo",
    "LabelSource": "eyas.data.formats.base",
    "FORMATS": "eyas.data.formats",
    "ensure_digits": "eyas.data.digits",
    "cache_root": "eyas.data.cache",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
