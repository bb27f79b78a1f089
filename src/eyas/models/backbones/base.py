"""What a backbone promises to a detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from eyas.models.lineage import Ancestor
from eyas.types import FeatureSpec


class Backbone(nn.Module):
    """Images (B, ch, H, W) to named maps ``p2`` ... ``p5``; level ``pk`` has a cell of 2**k pixels.

    Attributes:
        levels: channels and stride of every level, from the largest map to the smallest.
        parts: what there is to select in it: name -> prefixes of parameters. Where levels are made out of each other,
            those that make each one out of the one before; ``p2`` includes the stem.
        stem_prefix: prefix of the first convolutions, the part that is frozen with published weights.
        blocks: groups of prefixes from the image upwards, one group per step of layer-wise learning rates. A parameter
            that begins with none of them learns as what comes after the backbone.
        body: prefixes of the parameters that pre-trained weights fill: what is frozen, and learns slowly.
        adapter: prefixes of the others, which are new wherever it is used and learn with the neck.
        kind: of network, as `eyas.recipes.backbones` knows it.
        images: millions that its published weights were trained on.
        name: what it is called in tables and options.
        saves_memory: whether the insides of blocks are computed again for their gradient.
    """

    levels: Mapping[str, FeatureSpec]
    parts: Mapping[str, tuple[str, ...]]
    stem_prefix: str
    blocks: tuple[tuple[str, ...], ...]
    body: tuple[str, ...] = ("",)
    adapter: tuple[str, ...] = ()
    kind: str = "CNN"
    images: float = 1.28  # ImageNet-1k
    name: str = ""
    saves_memory: bool = False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (B, ch, H, W) to {"p2": (B, C2, ceil(H/4), ceil(W/4)), ...}, in the order of ``levels``."""
        raise NotImplementedError

    def freeze_stem(self, frozen: bool = True) -> None:
        """Take the parameters of the stem out of training, or put them back."""
        for name, parameter in self.named_parameters():
            if name.startswith(self.stem_prefix):
                parameter.requires_grad_(not frozen)

    def save_memory(self, on: bool = True) -> bool:
        """Compute the insides of blocks again for their gradient instead of keeping them; return whether it can."""
        return False

    def offered(self, weights: str) -> tuple[Ancestor, Callable[[], dict[str, Tensor]]] | None:
        """Return what is known of weights that this kind of network brings itself, and what fetches their tensors.

        None for a text that means no such weights.
        """
        return None

    def renamed(
        self, state: Mapping[str, Tensor], of_detector: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors of a file under the names of this network; ``of_detector`` gives those of the detector."""
        named = of_detector(state).items()
        return {key.removeprefix("backbone."): value for key, value in named if key.startswith("backbone.")}

    def sections(self, prefix: str = "backbone.") -> dict[str, tuple[str, ...]]:
        """Return ``backbone`` and, inside it, ``backbone.<part>``: prefixes of names that begin with ``prefix``."""
        named = {"backbone": self.body} | {f"backbone.{part}": names for part, names in self.parts.items()}
        return {name: tuple(f"{prefix}{start}" for start in starts) for name, starts in named.items()}

    def new_parts(self, prefix: str = "backbone.") -> tuple[str, ...]:
        """Return the prefixes of what learns with the neck."""
        return tuple(f"{prefix}{start}" for start in self.adapter)


def init_convolutions(backbone: nn.Module) -> None:
    """Start from He's normal values by outgoing connections of a group: deep ReLU networks train from them."""
    for m in backbone.modules():
        if isinstance(m, nn.Conv2d):
            outgoing = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, std=math.sqrt(2 / outgoing))
