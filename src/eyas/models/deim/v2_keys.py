"""Names of the authors' tensors of DEIMv2 and ECDet, and ours (spec detr 4.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from eyas.models.backbones.vit_keys import fused, our_name

VIT = "backbone.vit."
RENAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^backbone\.(?:dinov3\._model|dinov3|backbone)\.", VIT),
        (r"^backbone\.vit\.(?:storage_tokens|register_token)$", f"{VIT}reg_token"),
        (r"^(backbone\.vit\.blocks\.\d+\.mlp)\.w1\.", r"\1.gate."),
        (r"^(backbone\.vit\.blocks\.\d+\.mlp)\.w2\.", r"\1.fc1."),
        (r"^backbone\.projector\.", "backbone.pyramid.projector."),
        # Convolution and normalisation, which are one module here
        (r"^backbone\.convs\.(\d)\.", r"backbone.pyramid.mix.\1.conv."),
        (r"^backbone\.norms\.(\d)\.", r"backbone.pyramid.mix.\1.norm."),
        (r"^backbone\.sta\.stem\.0\.", "backbone.pyramid.stem.conv."),
        (r"^backbone\.sta\.stem\.1\.", "backbone.pyramid.stem.norm."),
        (r"^backbone\.sta\.conv2\.0\.", "backbone.pyramid.steps.0.conv."),
        (r"^backbone\.sta\.conv2\.1\.", "backbone.pyramid.steps.0.norm."),
        (r"^backbone\.sta\.conv3\.1\.", "backbone.pyramid.steps.1.conv."),
        (r"^backbone\.sta\.conv3\.2\.", "backbone.pyramid.steps.1.norm."),
        (r"^backbone\.sta\.conv4\.1\.", "backbone.pyramid.steps.2.conv."),
        (r"^backbone\.sta\.conv4\.2\.", "backbone.pyramid.steps.2.norm."),
        (r"^(encoder\.down_sample[12])\.1\.(weight)$", r"\1.1.conv.\2"),
        (r"^(encoder\.down_sample[12])\.2\.", r"\1.1.norm."),
    )
)
# What pre-training of the transformer needed, and a mask that is known.
LEFT = re.compile(r"\.(?:mask_token|bias_mask)$")
REPEATED = re.compile(r"^decoder\.dec_bbox_head\.[1-9]\d*\.")  # where all layers have one box head
LAST_NORM = re.compile(r"^(decoder\.decoder\.layers\.\d+)\.norm2\.")  # ECDet counts on without a norm that it lacks


def v2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of a file of either, renamed for backbone and encoder; one of ours stays as it is."""
    named = {our_name(key, RENAMES): value for key, value in state.items() if not LEFT.search(key)}
    vit = fused({key.removeprefix(VIT): value for key, value in named.items() if key.startswith(VIT)})
    return {k: v for k, v in named.items() if not k.startswith(VIT)} | {f"{VIT}{k}": v for k, v in vit.items()}
