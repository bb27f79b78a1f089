"""How much a table may ask for: tables come in the files of others too, and one number makes a model of terabytes.

What is built is counted before each tensor is made, and what an image goes through before each row; a table that asks
for more than any detector needs is refused before it has filled the memory or taken an hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eyas.nn import Upsample
from eyas.nn.attention import Attention

ROWS: Final = 1_000  # of a table; our largest has 50
REPEATS: Final = 128  # of a row, after scaling
TENSORS: Final = 20_000  # of a model; YOLO26x has 1,200
NUMBERS: Final = 300_000_000  # of a model, weights and buffers; YOLO26x has 60 million
MAP: Final = 2**27  # numbers of one map of the image that strides are learnt from: half a GiB
WORK: Final = 2 * 10**11  # multiplications for that image; YOLO26x takes 3e10

MAKERS: Final[frozenset[Callable[..., Any]]] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
)
COPIERS: Final[frozenset[Callable[..., Any]]] = frozenset({torch.clone, Tensor.clone, Tensor.__deepcopy__})


class Allowance(TorchFunctionMode):
    """Counts the tensors that are made in its ``with`` block, and refuses one that goes too far before it is made.

    Args:
        numbers: that all tensors may have together.

    Raises:
        ValueError: in the block, where a tensor is one too many.
    """

    def __init__(self, numbers: int = NUMBERS) -> None:
        super().__init__()
        self.most = self.numbers = numbers
        self.tensors = TENSORS

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch; count what it makes first."""
        if func in MAKERS:
            self.take(asked(args))
        elif func in COPIERS:
            self.take(args[0].numel())
        return func(*args, **(kwargs or {}))

    def take(self, numbers: int) -> None:
        """Count one tensor."""
        self.numbers -= numbers
        self.tensors -= 1
        if self.numbers < 0 or self.tensors < 0:
            raise ValueError(
                f"the model would have more than {self.most:,} numbers or {TENSORS:,} tensors, more than any detector "
                "needs; check channels, kernels and repeats"
            )


def asked(args: tuple[Any, ...]) -> int:
    """Return how many numbers a tensor of this size has: a sequence, or one argument for each dimension."""
    sizes = args[0] if args and isinstance(args[0], Sequence) else args
    return math.prod(size for size in sizes if isinstance(size, int))


class Passage:
    """The way of one image through the rows of a model; looks at each before it is run.

    Raises:
        ValueError: a row would make a map, or take work, beyond what any detector needs.
    """

    def __init__(self) -> None:
        self.work = WORK

    def before(self, layer: nn.Module, x: Tensor | Sequence[Tensor]) -> None:
        """Look at a row, and at the maps (B, C, H, W) that feed it. None but `Upsample` makes maps larger."""
        maps = [x] if isinstance(x, Tensor) else x
        scale = layer.factor if isinstance(layer, Upsample) else 1.0
        cells = max(m.shape[-2] * m.shape[-1] for m in maps) * scale**2
        shapes = [p.shape for p in layer.parameters()]
        widest = max([sum(m.shape[1] for m in maps), *(shape[0] for shape in shapes)])
        heads = sum(m.heads for m in layer.modules() if isinstance(m, Attention))
        heads += sum(m.num_heads for m in layer.modules() if isinstance(m, nn.MultiheadAttention))
        self.work -= int(cells * sum(map(math.prod, shapes)) + heads * cells**2)
        if max(widest * cells, heads * cells**2) > MAP or self.work < 0:
            raise ValueError(
                f"for an image of {maps[0].shape[-1]} px it would make maps or take work beyond what any detector needs"
            )
