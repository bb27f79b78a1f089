"""Backbones of timm (PyTorch Image Models) by their names there: ``timm:convnext_tiny``. An extra, imported on demand.

Legend: ``B`` images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from eyas.models.backbones.base import Backbone
from eyas.models.lineage import Ancestor
from eyas.models.pixels import IMAGENET, per_channel
from eyas.names import did_you_mean
from eyas.types import FeatureSpec

PREFIX = "timm:"  # of names in tables and options
PUBLISHED = "timm"  # ``backbone_weights`` for what timm publishes under the name of the network
LEVELS: Mapping[int, str] = {4: "p2", 8: "p3", 16: "p4", 32: "p5"}  # by pixels of a cell
NEEDED = ("p3", "p4", "p5")


def load_timm(name: str) -> ModuleType:
    """Return the library.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ModuleNotFoundError(f'backbone={name} needs timm: pip install "eyas[timm]"') from None
    return timm


def published_as(name: str) -> Any:
    """Return what timm says of the weights that it publishes for a network; None where it has none.

    Raises:
        RuntimeError: by timm, if there are none of the name's tag.
    """
    return load_timm(name).get_pretrained_cfg(name.removeprefix(PREFIX))


def check_name(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ValueError: there is no such network, or it was not trained as its name says; offers the nearest.
        ModuleNotFoundError: timm is not installed.
    """
    timm, theirs = load_timm(name), name.removeprefix(PREFIX)
    if not timm.is_model(theirs):
        near = did_you_mean(theirs.split(".")[0], timm.list_models())
        raise ValueError(f"timm has no network {theirs!r}.{near} `timm.list_models()` lists them.")
    try:
        published_as(name)
    except RuntimeError as error:
        raise ValueError(f"{name}: {error} `timm.list_pretrained()` lists what was trained on what.") from None


def network(name: str, ch: int, pretrained: bool = False) -> Any:
    """Return timm's network that gives the maps of its stages, at any size of image."""
    about, theirs = published_as(name), name.removeprefix(PREFIX)
    any_size = {"strict_img_size": False} if about is not None and about.fixed_input_size else {}
    return load_timm(name).create_model(theirs, features_only=True, pretrained=pretrained, in_chans=ch, **any_size)


def random_network(name: str, ch: int) -> Any:
    """Return `network` with random weights.

    Raises:
        ValueError: timm gives no maps of this one.
    """
    try:
        return network(name, ch)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{name}: timm gives no maps of several sizes for images of any size of it ({error}). Plain vision "
            "transformers are built in: vit-s16, vit-s14-dinov2, ..."
        ) from error


def fetched(name: str, ch: int) -> dict[str, Tensor]:
    """Return the tensors that timm publishes for a network, fetched the first time.

    Raises:
        ValueError: they cannot be fetched, for example without a network.
    """
    try:
        state: dict[str, Tensor] = network(name, ch, pretrained=True).state_dict()
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(
            f"{name}: timm could not fetch its weights ({error}). Fetch their file elsewhere, and give its path as "
            "backbone_weights."
        ) from error
    return state


class TimmBackbone(Backbone):
    """A network of timm: images (B, ch, H, W) to those of ``p2``, ``p3``, ``p4``, ``p5`` that it has.

    Args:
        name: ``timm:`` and its name there, with the tag of its weights or without.
        ch: channels of the images.

    Raises:
        ValueError: it has no maps of 8, 16 and 32 px a cell.
        ModuleNotFoundError: timm is not installed.
    """

    mean: Tensor
    std: Tensor
    body = ("net.",)

    def __init__(self, name: str, ch: int = 3) -> None:
        super().__init__()
        self.name, self.ch = name, ch
        self.net = random_network(name, ch)
        about = published_as(name)
        pixels = IMAGENET if about is None else (about.mean, about.std)
        for kind, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(kind, torch.tensor(per_channel(values, ch)).view(ch, 1, 1))
        info: Any = self.net.feature_info
        self.places = {LEVELS[px]: i for i, px in enumerate(info.reduction()) if px in LEVELS}  # the last of each size
        if missing := [level for level in NEEDED if level not in self.places]:
            raise ValueError(
                f"{name} has maps of {', '.join(map(str, info.reduction()))} px a cell, and none for {missing[0]}: "
                "detectors need 8, 16 and 32. Plain vision transformers are built in: vit-s16, vit-s14-dinov2, ..."
            )
        channels = info.channels()
        px_of = {level: px for px, level in LEVELS.items()}
        self.levels = {level: FeatureSpec(channels[i], px_of[level]) for level, i in self.places.items()}
        self.last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")  # whether channels come last
        ends = [info.module_name()[i] for i in self.places.values()]
        parts = zip(self.places, parts_of(self.net, ends), strict=True)
        self.parts = {level: prefixes for level, prefixes in parts if prefixes}  # a map may be a pooled one
        self.blocks = tuple(self.parts.values())
        self.stem_prefix = self.blocks[0][0]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p3": (B, C3, H/8, W/8), ...}."""
        maps = self.net((x - self.mean) / self.std)
        return {level: maps[i].permute(0, 3, 1, 2) if self.last else maps[i] for level, i in self.places.items()}

    def save_memory(self, on: bool = True) -> bool:
        try:
            self.net.set_grad_checkpointing(on)
        except AttributeError:
            return super().save_memory(on)
        self.saves_memory = on
        return True

    def offered(self, weights: str) -> tuple[Ancestor, Callable[[], dict[str, Tensor]]] | None:
        if weights != PUBLISHED:
            return None
        about = published_as(self.name)
        full = f"{about.architecture}.{about.tag}" if about.tag else about.architecture
        source = about.origin_url or (f"huggingface.co/{about.hf_hub_id}" if about.hf_hub_id else "timm")
        known = Ancestor(f"backbone: timm/{full}", about.license or "", source, about.tag or "")
        return known, lambda: self.renamed(fetched(self.name, self.ch), dict)

    def renamed(
        self, state: Mapping[str, Tensor], of_detector: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors of a file of timm: stages have a number behind a point there, as in ``stages.0.``."""
        own = self.net.state_dict()
        return {f"net.{key if key in own else key.replace('.', '_', 1)}": value for key, value in state.items()}


def parts_of(net: nn.Module, ends: Sequence[str]) -> list[tuple[str, ...]]:
    """Return prefixes of the parameters that each map needs beyond the one before, given the modules that maps leave.

    Args:
        net: whose modules are in the order in which they are used.
        ends: names of those modules, as timm gives them, from the largest map to the smallest.
    """
    levels: dict[str, int] = {}
    at, inside, modules = 0, False, dict(net.named_modules())
    marks = [end if end in modules else end.replace(".", "_", 1) for end in ends]
    for name, module in modules.items():
        inside_now = f"{name}.".startswith(f"{marks[at]}.")
        if inside and not inside_now and at + 1 < len(marks):
            at, inside_now = at + 1, f"{name}.".startswith(f"{marks[at + 1]}.")
            inside = False
        inside = inside or inside_now
        levels |= {f"{name}.{own}".lstrip("."): at for own, _ in module.named_parameters(recurse=False)}
    own = [[name for name, level in levels.items() if level == i] for i in range(len(ends))]
    return [covering(names, [name for name in levels if name not in names]) for names in own]


def covering(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return the shortest prefixes, after ``net.``, with which all of ``names`` begin and none of ``others`` does."""
    found: dict[str, None] = {}
    for name in names:
        steps = name.split(".")
        starts = [".".join(steps[:n]) + "." for n in range(1, len(steps))] + [name]
        found[f"net.{next(s for s in starts if not any(other.startswith(s) for other in others))}"] = None
    return tuple(found)
