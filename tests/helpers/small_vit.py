"""Files of a tiny vision transformer, named as others name its tensors."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from eyas.models.backbones.vit import VITS, VisionTransformer
from eyas.nn.encoder import position_code

DIFFERENT = {  # of names in the files of Hugging Face, as published (spec detr-more 3.2)
    "dinov2": (
        (r"^(cls_token|mask_token)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^reg_token$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^blocks\.(\d+)\.ls([12])\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
        (r"^blocks\.(\d+)\.attn\.(query|key|value)\.", r"encoder.layer.\1.attention.attention.\2."),
        (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
        (r"^blocks\.", "encoder.layer."),
        (r"^norm\.", "layernorm."),
    ),
    "mae": (
        (r"^cls_token$", "vit.embeddings.cls_token"),
        (r"^pos_embed$", "vit.embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
        (r"^blocks\.(\d+)\.norm1\.", r"vit.encoder.layer.\1.layernorm_before."),
        (r"^blocks\.(\d+)\.norm2\.", r"vit.encoder.layer.\1.layernorm_after."),
        (r"^blocks\.(\d+)\.attn\.(query|key|value)\.", r"vit.encoder.layer.\1.attention.attention.\2."),
        (r"^blocks\.(\d+)\.attn\.proj\.", r"vit.encoder.layer.\1.attention.output.dense."),
        (r"^blocks\.(\d+)\.mlp\.fc1\.", r"vit.encoder.layer.\1.intermediate.dense."),
        (r"^blocks\.(\d+)\.mlp\.fc2\.", r"vit.encoder.layer.\1.output.dense."),
        (r"^norm\.", "vit.layernorm."),
    ),
    "clip": (
        (r"^cls_token$", "vision_model.embeddings.class_embedding"),
        (r"^pos_embed$", "vision_model.embeddings.position_embedding.weight"),
        (r"^patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
        (r"^norm_pre\.", "vision_model.pre_layrnorm."),
        (r"^norm\.", "vision_model.post_layernorm."),
        (r"^blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
        (r"^blocks\.(\d+)\.attn\.(q|k|v)(?:uery|ey|alue)\.", r"vision_model.encoder.layers.\1.self_attn.\2_proj."),
        (r"^blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.out_proj."),
        (r"^blocks\.", "vision_model.encoder.layers."),
    ),
    "openai": (
        (r"^cls_token$", "visual.class_embedding"),
        (r"^pos_embed$", "visual.positional_embedding"),
        (r"^patch_embed\.proj\.", "visual.conv1."),
        (r"^norm_pre\.", "visual.ln_pre."),
        (r"^norm\.", "visual.ln_post."),
        (r"^blocks\.(\d+)\.norm([12])\.", r"visual.transformer.resblocks.\1.ln_\2."),
        (r"^blocks\.(\d+)\.attn\.qkv\.", r"visual.transformer.resblocks.\1.attn.in_proj_"),
        (r"^blocks\.(\d+)\.attn\.proj\.", r"visual.transformer.resblocks.\1.attn.out_proj."),
        (r"^blocks\.(\d+)\.mlp\.fc1\.", r"visual.transformer.resblocks.\1.mlp.c_fc."),
        (r"^blocks\.(\d+)\.mlp\.fc2\.", r"visual.transformer.resblocks.\1.mlp.c_proj."),
    ),
}


def weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a network under our names, none of them at its first value."""
    torch.manual_seed(seed)
    state = VisionTransformer(VITS[name]).state_dict()
    constant = ("mean", "std", "rope_embed.periods")
    return {k: v + 0.1 * torch.randn_like(v) for k, v in state.items() if k not in constant}


def as_published(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return tensors under the names of a layout of `DIFFERENT`, queries, keys and values apart where it has so."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".attn.qkv." in key and layout != "openai":
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                split[key.replace("qkv", part)] = rows
        else:
            split[key] = value
    renamed = {}
    for key, value in split.items():
        for pattern, new in DIFFERENT[layout]:
            changed, times = re.subn(pattern, new, key)
            if times:
                key = changed
                break
        renamed[key.replace("in_proj_.", "in_proj_")] = value
    return renamed


def masked_vit(path: Path) -> Path:
    """Write a file of ``vit-tiny`` such as MAE has: a fixed position code, in a dictionary called model."""
    state = weights("vit-tiny")
    state["pos_embed"] = torch.cat((torch.zeros(1, 1, 64), position_code(4, 4, 64)), 1)
    torch.save({"model": state}, path)
    return path
