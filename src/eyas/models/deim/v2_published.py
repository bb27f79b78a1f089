"""Published weights of ECDet, and what those of DEIMv2 descend from (spec detr 9, detr-more 8)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyas.models.published import Published

_RELEASE = "https://github.com/capsule2077/edgecrafter/releases/download/edgecrafterv1"
_DATA = "COCO; its backbone by distillation, as far as known from a teacher built on DINOv3"
_EDGECRAFTER = "github.com/capsule2077/edgecrafter"
_AP = {"s": 51.7, "m": 54.3, "l": 57.0, "x": 57.9}

ECDET: Mapping[str, Published] = MappingProxyType(
    {
        f"ecdet-{size}": Published(
            f"ecdet-{size}", f"{_RELEASE}/ecdet_{size}.pth", f"ecdet-{size}", _EDGECRAFTER, _DATA, ap=ap
        )
        for size, ap in _AP.items()
    }
)
"""Name -> file of a whole detector, under Apache-2.0 as its authors say."""

# Files of DEIMv2 have no address here; those with a transformer begin with DINOv3's weights, or were distilled from it.
DINOV3_SIZES = ("s", "m", "l", "x")
DEIMV2_SOURCE = "huggingface.co/Intellindust, from weights of github.com/facebookresearch/dinov3"
