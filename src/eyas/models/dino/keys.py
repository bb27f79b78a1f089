"""Names of tensors in published files, the authors' and detrex's, and ours (spec detr-more 2.2 and 2.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

ORIGINAL, DETREX = "original", "detrex"
PARTS = ("backbone.", "encoder.", "decoder.")
_LAYER = r"^transformer\.(encoder|decoder)\.layers\.(\d+)\."


def _rules(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), new) for pattern, new in pairs)


# The first rule that fits a name is its only one: in layers of the authors' decoder, norm1 and norm2 change places.
RULES: Mapping[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    ORIGINAL: _rules(
        (r"^backbone\.0\.body\.", "backbone."),
        (r"^input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
        (r"^input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
        (r"^transformer\.level_embed$", "encoder.level_embed"),
        (r"^transformer\.decoder\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.norm1."),
        (r"^transformer\.decoder\.layers\.(\d+)\.norm1\.", r"decoder.layers.\1.norm2."),
        (_LAYER, r"\1.layers.\2."),
        (r"^transformer\.enc_out_bbox_embed\.", "decoder.enc_bbox_head."),
        (r"^transformer\.enc_out_class_embed\.", "decoder.enc_score_head."),
        (r"^(?:transformer\.decoder\.)?bbox_embed\.\d+\.", "decoder.dec_bbox_head.0."),
        (r"^(?:transformer\.decoder\.)?class_embed\.\d+\.", "decoder.dec_score_head.0."),
    ),
    DETREX: _rules(
        (r"^backbone\.stem\.conv1\.norm\.", "backbone.bn1."),
        (r"^backbone\.stem\.conv1\.", "backbone.conv1."),
        *(
            (rf"^backbone\.res{i + 1}\.(\d+)\.{theirs}\.", rf"backbone.layer{i}.\1.{ours}.")
            for i in range(1, 5)
            for theirs, ours in (
                (r"shortcut\.norm", "downsample.1"),
                ("shortcut", "downsample.0"),
                *((rf"conv{n}\.norm", f"bn{n}") for n in (1, 2, 3)),
                *((rf"conv{n}", f"conv{n}") for n in (1, 2, 3)),
            )
        ),
        (r"^neck\.convs\.(\d+)\.", r"encoder.input_proj.\1."),
        (r"^neck\.extra_convs\.0\.", "encoder.input_proj.3."),
        (r"^(?:transformer\.)?level_embeds$", "encoder.level_embed"),
        (r"^transformer\.encoder\.layers\.(\d+)\.attentions\.0\.", r"encoder.layers.\1.self_attn."),
        (r"^transformer\.decoder\.layers\.(\d+)\.attentions\.0\.attn\.", r"decoder.layers.\1.self_attn."),
        (r"^transformer\.decoder\.layers\.(\d+)\.attentions\.1\.", r"decoder.layers.\1.cross_attn."),
        (_LAYER + r"ffns\.0\.layers\.0\.0\.", r"\1.layers.\2.linear1."),
        (_LAYER + r"ffns\.0\.layers\.1\.", r"\1.layers.\2.linear2."),
        (_LAYER + r"norms\.0\.", r"\1.layers.\2.norm1."),
        (_LAYER + r"norms\.1\.", r"\1.layers.\2.norm2."),
        (_LAYER + r"norms\.2\.", r"\1.layers.\2.norm3."),
        (r"^(?:transformer\.decoder\.)?bbox_embed\.6\.", "decoder.enc_bbox_head."),
        (r"^(?:transformer\.decoder\.)?class_embed\.6\.", "decoder.enc_score_head."),
        (r"^(?:transformer\.decoder\.)?bbox_embed\.(\d+)\.", r"decoder.dec_bbox_head.\1."),
        (r"^(?:transformer\.decoder\.)?class_embed\.(\d+)\.", r"decoder.dec_score_head.\1."),
    ),
}
COMMON = _rules(
    (r"^transformer\.decoder\.norm\.", "decoder.norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "decoder.query_pos_head."),
    (r"^transformer\.tgt_embed\.", "decoder.query_content."),
    (r"^transformer\.enc_output\.", "decoder.enc_output.proj."),
    (r"^transformer\.enc_output_norm\.", "decoder.enc_output.norm."),
    (r"^label_enc\.", "decoder.denoising_class_embed."),
)


def layout_of(names: Iterable[str]) -> str | None:
    """Return whose names these are, `ORIGINAL` or `DETREX`; None for ours, and those of a backbone alone."""
    for name in map(plain, names):
        if name.startswith(("neck.convs.", "backbone.res2.")):
            return DETREX
        if name.startswith(("input_proj.", "backbone.0.body.")):
            return ORIGINAL
    return None


def plain(name: str) -> str:
    """Return a name without what wrappers put in front of it."""
    return name.removeprefix("module.")


def our_name(name: str, layout: str) -> str:
    """Return what we call a tensor that a file of this layout calls ``name``."""
    for pattern, new in (*RULES[layout], *COMMON):
        renamed, changed = pattern.subn(new, name)
        if changed:
            return renamed
    return name


def rename(state: Mapping[str, T]) -> dict[str, T]:
    """Return a state under our names; the file of a backbone alone gets the backbone's prefix.

    Tensors that a file holds several times, as outputs that layers share, are one then.
    """
    named = {plain(name): value for name, value in state.items()}
    if layout := layout_of(named):
        return {our_name(name, layout): value for name, value in named.items()}
    alone = not any(name.startswith(PARTS) for name in named)
    return {f"backbone.{name}" if alone else name: value for name, value in named.items()}
