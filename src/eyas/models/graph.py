"""Building a model from a table of rows ``[from, repeats, layer, args]`` (spec core C.0, C.1, C.7).

``from`` is the index of the row that feeds this one (-1: the row before) or a list of them. ``layer`` is a name of
`LAYERS`, or of the layers that the class which builds the table brings, such as its head; nothing in a table is ever
evaluated. ``repeats`` is scaled by depth, output channels of scaled layers by width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from eyas.models.bounds import REPEATS, ROWS
from eyas.models.table import ModelTableError, called, shown
from eyas.names import nearest
from eyas.nn import (
    AIFI,
    C2PSA,
    SPPF,
    C3k2,
    Concat,
    Conv,
    DWConv,
    HGBlock,
    HGStem,
    RepC3,
    ResNetLayer,
    Upsample,
)
from eyas.nn.conv import same_padding

Row = Sequence[Any]
# In these scales every C3k2 is built from C3k blocks, whatever its row says.
C3K_EVERYWHERE = frozenset("mlx")
LARGEST_SCALE = 100  # of depth and width
BN_EPS, BN_MOMENTUM = 1e-3, 0.03  # of every batch normalisation in a numbered layer
LONGEST = 300  # letters of what a layer says is wrong
POOL, POOLS = 63, 16  # sides of the window of an SPPF, and how often it is passed
# What layers raise where the arguments of a row, or the maps that it is given, do not fit them.
UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Scale:
    """Size of a model family's member: repeats times ``depth``, channels times ``width``, at most ``max_channels``."""

    depth: float = 1.0
    width: float = 1.0
    max_channels: float = math.inf
    c3k_everywhere: bool = False

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Scale:
        """Return the scale that a checked table chooses."""
        scales = table.get("scales")
        if not scales:
            return cls(float(table.get("depth_multiple", 1.0)), float(table.get("width_multiple", 1.0)))
        letter = table["scale"]
        depth, width, most = scales[letter]
        return cls(float(depth), float(width), most, c3k_everywhere=letter in C3K_EVERYWHERE)

    @classmethod
    def checked(cls, table: Mapping[str, Any], where: str) -> Scale:
        """Return the scale that a table chooses.

        Raises:
            ModelTableError: its numbers are none that layers can be multiplied with.
        """
        try:
            scale = cls.of(table)
            if 0 < scale.depth <= LARGEST_SCALE and 0 < scale.width <= LARGEST_SCALE and scale.max_channels > 0:
                return scale
        except (LookupError, OverflowError, TypeError, ValueError):
            pass
        raise ModelTableError(
            f"{where}: its scale is no [depth, width, most channels] with numbers above 0, the first two at most "
            f"{LARGEST_SCALE}"
        )

    def channels(self, c: int) -> int:
        """Return the scaled number of channels, a multiple of 8."""
        return math.ceil(min(c, self.max_channels) * self.width / 8) * 8

    def repeats(self, n: int) -> int:
        """Return the scaled number of repeats; 1 is never changed."""
        return max(round(n * self.depth), 1) if n > 1 else n


@dataclass(frozen=True)
class LayerContext:
    """What one row's builder may know: channels coming in, scaled repeats, the model's scale, classes and table."""

    inputs: tuple[int, ...]
    repeats: int
    scale: Scale
    nc: int
    table: Mapping[str, Any]

    def classes(self, layer: str, nc: int | str) -> int:
        """Return the model's classes, which a row of ``layer`` may only repeat.

        Raises:
            ValueError: the row has another number.
        """
        if nc not in ("nc", self.nc):
            raise ValueError(
                f"{layer} is asked for {nc} classes and the model for {self.nc}: write nc instead of a number"
            )
        return self.nc


Built = tuple[nn.Module, int]
"""A layer, and its output channels; 0 for a head."""


class Layer(NamedTuple):
    """A kind of row: what builds it from a `LayerContext` and the row's arguments, and whether several rows feed it."""

    build: Callable[..., Built]
    many: bool = False


def _conv(
    ctx: LayerContext, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, d: int = 1, *act: Any
) -> Built:
    if p is not None and p > same_padding(k, d):
        raise ValueError(f"a padding of {p} is more than half of its kernel: write null for one that keeps the size")
    c2 = ctx.scale.channels(c2)
    return _chain(ctx, c2, lambda c1: Conv(c1, c2, k, s, p, g, d, *act))


def _dwconv(ctx: LayerContext, c2: int, *args: Any) -> Built:
    c2 = ctx.scale.channels(c2)
    return _chain(ctx, c2, lambda c1: DWConv(c1, c2, *args))


def _c3k2(ctx: LayerContext, c2: int, c3k: bool = False, *args: Any) -> Built:
    c2 = ctx.scale.channels(c2)
    return C3k2(ctx.inputs[0], c2, ctx.repeats, c3k or ctx.scale.c3k_everywhere, *args), c2


def _c2psa(ctx: LayerContext, c2: int, *args: Any) -> Built:
    c2 = ctx.scale.channels(c2)
    return C2PSA(ctx.inputs[0], c2, ctx.repeats, *args), c2


def _sppf(ctx: LayerContext, c2: int, *args: Any) -> Built:
    if any(n > most for n, most in zip(args, (POOL, POOLS), strict=False)):
        raise ValueError(f"its window is at most {POOL} wide and passed {POOLS} times, not {args}")
    c2 = ctx.scale.channels(c2)
    if len(args) < 2:  # rows [c2, k] come from families whose first convolution is activated
        return _chain(ctx, c2, lambda c1: SPPF(c1, c2, *args, act=True))
    return _chain(ctx, c2, lambda c1: SPPF(c1, c2, *args))


def _upsample(ctx: LayerContext, size: str | None, factor: float, mode: str = "nearest") -> Built:
    if size is not None:
        raise ValueError(f"Upsample takes a factor, not a fixed size: write [null, 2, nearest], not {size!r} first")
    return Upsample(factor, mode), ctx.inputs[0]


def _concat(ctx: LayerContext, dim: int = 1) -> Built:
    return Concat(dim), sum(ctx.inputs)


def _hg_stem(ctx: LayerContext, cm: int, c2: int) -> Built:
    _once(ctx)
    return HGStem(ctx.inputs[0], cm, c2), c2


def _hg_block(ctx: LayerContext, cm: int, c2: int, k: int = 3, light: bool = False, shortcut: bool = False) -> Built:
    """The row's repeats are the stages of the block."""
    return HGBlock(ctx.inputs[0], cm, c2, k, ctx.repeats, light, shortcut), c2


def _resnet_layer(
    ctx: LayerContext, c1: int, c2: int, s: int = 1, is_first: bool = False, n: int = 1, e: int = 4
) -> Built:
    _once(ctx)
    c = ctx.inputs[0]
    if c1 != c and not is_first:  # the first row's number is that of a colour image, and images may have others
        raise ValueError(f"its input has {c} channels, not {c1}: write {c} first")
    return ResNetLayer(c, c2, s, is_first, n, e), c2 if is_first else e * c2


def _aifi(ctx: LayerContext, ffn: int = 2048, heads: int = 8) -> Built:
    return _chain(ctx, ctx.inputs[0], lambda c: AIFI(c, ffn, heads))


def _rep_c3(ctx: LayerContext, c2: int, e: float = 1.0) -> Built:
    c2 = ctx.scale.channels(c2)
    return RepC3(ctx.inputs[0], c2, ctx.repeats, e), c2


def _once(ctx: LayerContext) -> None:
    if ctx.repeats != 1:
        raise ValueError(f"it cannot be repeated {ctx.repeats} times: write 1")


def _chain(ctx: LayerContext, c2: int, make: Callable[[int], nn.Module]) -> Built:
    """Return one layer, or a chain of ``ctx.repeats`` of them, each after the first ``c2`` wide on both sides."""
    if ctx.repeats == 1:
        return make(ctx.inputs[0]), c2
    return nn.Sequential(make(ctx.inputs[0]), *(make(c2) for _ in range(ctx.repeats - 1))), c2


LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        "Conv": Layer(_conv),
        "DWConv": Layer(_dwconv),
        "C3k2": Layer(_c3k2),
        "C2PSA": Layer(_c2psa),
        "SPPF": Layer(_sppf),
        "Upsample": Layer(_upsample),
        "nn.Upsample": Layer(_upsample),
        "Concat": Layer(_concat, many=True),
        "HGStem": Layer(_hg_stem),
        "HGBlock": Layer(_hg_block),
        "ResNetLayer": Layer(_resnet_layer),
        "AIFI": Layer(_aifi),
        "RepC3": Layer(_rep_c3),
    }
)
"""Layers that any table may use."""


class Rows(nn.Sequential):
    """Layers in order, each fed by the rows that its table names. A slice of them is a plain chain.

    Attributes:
        sources: indices of the rows that feed each layer; -1 stands for the images.
        save: indices of the rows that others than the next one need.
    """

    sources: tuple[tuple[int, ...], ...] = ()
    save: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Any:
        """Return the maps that feed the last row, of images (B, ch, H, W); a chain returns what its end gives."""
        return maps_for_last(self, self.sources, self.save, x) if self.sources else super().forward(x)


def maps_for_last(
    layers: nn.Sequential, sources: Sequence[tuple[int, ...]], save: Sequence[int], x: Tensor
) -> list[Tensor]:
    """Return the maps that feed the last of some layers, of images (B, ch, H, W); see `Rows`."""
    outputs: dict[int, Tensor] = {}
    last = len(sources) - 1
    for i, layer in enumerate(islice(layers, last)):
        if i > 0 and sources[i] != (i - 1,):
            picked = [x if j == i - 1 else outputs[j] for j in sources[i]]
            x = layer(picked if len(picked) > 1 or sources[i][0] == i - 1 else picked[0])
        else:
            x = layer(x)
        if i in save or i == last - 1:
            outputs[i] = x
    return [outputs[j] for j in sources[-1]]


def build_graph(table: Mapping[str, Any], *, ch: int, nc: int, layers: Mapping[str, Layer] = LAYERS) -> Rows:
    """Build the layers of a checked table.

    Args:
        table: its ``backbone`` and ``head`` are built; builders may read the rest.
        ch: channels of the images.
        nc: classes.
        layers: the kinds of rows there are.

    Raises:
        ModelTableError: a row is malformed, names an unknown layer or row, or its arguments do not fit the layer; there
            are too many of them, or it would be repeated too often.
    """
    if len(table["backbone"]) + len(table["head"]) > ROWS:
        raise ModelTableError(f"{called(table)} has more than {ROWS:,} rows")
    built: list[nn.Module] = []
    widths: list[int] = []
    sources: list[tuple[int, ...]] = []
    save: set[int] = set()
    context = LayerContext(inputs=(), repeats=1, scale=Scale.of(table), nc=nc, table=table)
    for i, row in enumerate([*table["backbone"], *table["head"]]):
        where = f"row {i} of {called(table)}, {shown(row)}"
        origin, repeats, name, args = _split_row(row, where, layers)
        absolute = _absolute_sources(origin, i, where)
        if len(absolute) > 1 and not layers[name].many:
            raise ModelTableError(f"{where}: {name} takes one input, not {len(absolute)}")
        inputs = tuple(ch if j < 0 else widths[j] for j in absolute)
        ctx = replace(context, inputs=inputs, repeats=context.scale.repeats(repeats))
        if ctx.repeats > REPEATS:
            raise ModelTableError(f"{where}: it would be repeated {ctx.repeats} times, and {REPEATS} are the most")
        try:
            layer, width = layers[name].build(ctx, *args)
        except UNFIT as error:
            raise ModelTableError(f"{where}: {name} cannot be built: {said(error)}") from error
        built.append(layer)
        widths.append(width)
        sources.append(absolute)
        listed = origin if isinstance(origin, (list, tuple)) else [origin]
        save.update(j for j, written in zip(absolute, listed, strict=True) if written != -1)
    rows = Rows(*built)
    rows.sources, rows.save = tuple(sources), tuple(sorted(save))
    return rows


def said(error: Exception) -> str:
    """Return what a layer says is wrong, in one line."""
    return " ".join(str(error).split())[:LONGEST]


def _split_row(row: Row, where: str, layers: Mapping[str, Layer]) -> tuple[int | list[int], int, str, list[Any]]:
    """Return the four checked cells of a row."""
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 4:
        raise ModelTableError(f"{where}: a row has four cells, [from, repeats, layer, args]")
    origin, repeats, name, args = row
    if not _is_int(repeats) or repeats < 1:
        raise ModelTableError(f"{where}: repeats is {shown(repeats)}, and must be a whole number of at least 1")
    if not isinstance(name, str) or name not in layers:
        near = nearest(str(name)[:40], layers, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelTableError(
            f"{where}: no layer is called {shown(name)}{hint} Known layers: {', '.join(sorted(layers))}"
        )
    if not isinstance(args, (list, tuple)):
        raise ModelTableError(f"{where}: args is {shown(args)}, and must be a list")
    return origin, repeats, name, [None if a == "None" else a for a in args]  # YAML reads None as a text


def _absolute_sources(origin: int | list[int], i: int, where: str) -> tuple[int, ...]:
    """Return the row indices that feed row ``i``; -1 stands for the image."""
    listed = list(origin) if isinstance(origin, (list, tuple)) else [origin]
    absolute = []
    for j in listed:
        if not _is_int(j):
            raise ModelTableError(f"{where}: from is {shown(j)}, and must be a whole number or a list of them")
        index = i + j if j < 0 else j
        if not -1 <= index < i or (index == -1 and i > 0):
            raise ModelTableError(f"{where}: from names row {j}, and only rows 0 to {i - 1} exist before this one")
        absolute.append(index)
    if not absolute:
        raise ModelTableError(f"{where}: from is empty")
    return tuple(absolute)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
