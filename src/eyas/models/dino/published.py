"""Published weights of DINO, in detrex's layout (spec detr 9); the authors' own have no address that can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyas.models.published import Published

_RELEASE = "https://github.com/IDEA-Research/detrex-storage/releases/download/v0.2.0"
_DETREX = "github.com/IDEA-Research/detrex"
_ENTRIES = (Published("dino-r50", f"{_RELEASE}/dino_r50_4scale_12ep_49_2AP.pth", "dino-r50", _DETREX, ap=49.2),)
PUBLISHED: Mapping[str, Published] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Name -> file."""
