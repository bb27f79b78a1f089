"""A stand-in for timm: one network of four stages, described as timm 1.0 describes its own."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

NAME = "tinynet"
CHANNELS, PX = (4, 8, 16, 32), (4, 8, 16, 32)


@dataclass
class Card:
    """What timm says of a network's weights."""

    license: str = "apache-2.0"
    architecture: str = NAME
    tag: str = "some_in1k"
    hf_hub_id: str = f"timm/{NAME}.some_in1k"
    origin_url: str | None = None
    mean: tuple[float, ...] = (0.5, 0.4, 0.3)
    std: tuple[float, ...] = (0.25, 0.5, 0.5)
    fixed_input_size: bool = False


class Info:
    """Where the maps leave, their channels and sizes of cells."""

    def __init__(self, px: tuple[int, ...]) -> None:
        self.px = px

    def channels(self) -> list[int]:
        return list(CHANNELS)

    def reduction(self) -> list[int]:
        return list(self.px)

    def module_name(self) -> list[str]:
        return [f"stages.{i}" for i in range(len(CHANNELS))]


class TinyNet(nn.Module):
    """(B, ch, H, W) to a list of maps; ``NHWC`` ones if asked for."""

    def __init__(self, ch: int, px: tuple[int, ...], output_fmt: str) -> None:
        super().__init__()
        self.feature_info, self.output_fmt = Info(px), output_fmt
        self.stem_0 = nn.Conv2d(ch, 4, 4, 4)
        self.stages_0 = nn.Sequential(nn.Conv2d(4, 4, 1))
        self.stages_1 = nn.Sequential(nn.Conv2d(4, 8, 2, 2))
        self.downsample_2 = nn.Conv2d(8, 8, 2, 2)
        self.stages_2 = nn.Sequential(nn.Conv2d(8, 16, 1))
        self.stages_3 = nn.Sequential(nn.Conv2d(16, 32, 2, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.stages_0(self.stem_0(x))
        second = self.stages_1(first)
        third = self.stages_2(self.downsample_2(second))
        maps = [first, second, third, self.stages_3(third)]
        return [x.permute(0, 2, 3, 1) for x in maps] if self.output_fmt == "NHWC" else maps


def standin(card: Card | None = None, px: tuple[int, ...] = PX, output_fmt: str = "NCHW") -> Any:
    """Return the module; its published weights are all 0.125."""
    timm: Any = ModuleType("timm")
    card = Card() if card is None else card
    timm.fetched = 0

    def create_model(name: str, *, features_only: bool, pretrained: bool, in_chans: int, **more: Any) -> nn.Module:
        assert features_only
        assert more == ({"strict_img_size": False} if card.fixed_input_size else {})
        net = TinyNet(in_chans, px, output_fmt)
        if pretrained:
            timm.fetched += 1
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.fill_(0.125)
        return net

    def get_pretrained_cfg(name: str) -> Card:
        if name.partition(".")[2] not in ("", card.tag):
            raise RuntimeError(f"Invalid pretrained tag ({name.partition('.')[2]}) for {NAME}.")
        return card

    timm.create_model, timm.get_pretrained_cfg = create_model, get_pretrained_cfg
    timm.is_model = lambda name: name.split(".")[0] == NAME
    timm.list_models = lambda: [NAME]
    return timm
