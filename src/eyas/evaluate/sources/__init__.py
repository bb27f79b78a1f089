"""What people predict on, one small module per kind; ``open_source`` tells them apart."""

from __future__ import annotations

from eyas.evaluate.sources.base import Item, Picture, Reading
from eyas.evaluate.sources.opening import check_listable, finds_files, open_source

__all__ = ["Item", "Picture", "Reading", "check_listable", "finds_files", "open_source"]
