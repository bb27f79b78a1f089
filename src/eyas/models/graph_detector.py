"""`GraphDetector`: a detector built from a table of numbered layers, whatever its head (spec core A.7, C)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eyas.models.bounds import NUMBERS, Allowance, Passage
from eyas.models.detector import Detector
from eyas.models.graph import (
    BN_EPS,
    BN_MOMENTUM,
    LAYERS,
    UNFIT,
    Layer,
    Rows,
    Scale,
    build_graph,
    maps_for_last,
    said,
)
from eyas.models.table import ModelTableError, Table, called, last_layer, shown

PROBE_SIZE = 256  # pixels of the image that is sent through a new model to learn its strides


class GraphDetector(Detector):
    """A detector built from a table of numbered layers, the last of which is its head.

    A subclass sets ``head_layer`` and ``layers``, and implements `start_head` and what else `Detector` asks for; its
    head has ``SECTIONS``: part ("box", "cls") -> names of the head's modules in it.

    Attributes:
        head_layer: what the last row of its tables calls the head.
        layers: kinds of rows that only its tables have, the head among them.
        most_numbers: weights and buffers that a table may ask for; more is taken for a mistake, or for malice.
        model: the layers in order; the last is the head.
        save: indices of layers whose outputs later layers need.
    """

    head_layer: ClassVar[str]
    layers: ClassVar[Mapping[str, Layer]]
    most_numbers: ClassVar[int] = NUMBERS

    @classmethod
    def builds(cls, table: Mapping[str, Any]) -> bool:
        """Whether this class builds a table: one of rows, the last of which is its head."""
        return "arch" not in table and last_layer(table) == cls.head_layer

    @classmethod
    def checked(cls, table: Table, where: str) -> Table:
        """Return a table of rows with its defaults filled in.

        Raises:
            ModelTableError: it has no rows, no such scale, or another head.
        """
        if "arch" in table:
            raise ModelTableError(f"{table['yaml_file']} is no table of layers: build it with build_detector()")
        for part in ("backbone", "head"):
            if not isinstance(table.get(part), list):
                raise ModelTableError(f"{where}: {part} is missing or no list: write rows [from, repeats, layer, args]")
        scales = table.get("scales")
        if scales:
            if not isinstance(scales, Mapping):
                raise ModelTableError(f"{where}: scales is {shown(scales)}, and must be a mapping of names")
            chosen = table.setdefault("scale", next(iter(scales)))
            if chosen not in list(scales):
                known = ", ".join(map(str, scales))
                raise ModelTableError(f"{where}: scale {shown(chosen)} is not among its scales {known}")
        Scale.checked(table, where)
        table.setdefault("nc", 80)
        table.setdefault("end2end", False)
        return table

    def build(self, table: Mapping[str, Any]) -> None:
        """Make the layers of the table, and learn their strides."""
        last = last_layer(table)
        if last != self.head_layer and (last or not table["head"]):  # a malformed row is named below
            raise ModelTableError(
                f"the last row of {called(table)} must be {self.head_layer} for a {type(self).__name__}, not "
                f"{last or 'missing'}: build_detector() finds the class for a table"
            )
        with Allowance(self.most_numbers):
            rows = build_graph(table, ch=table["channels"], nc=self.nc, layers={**LAYERS, **self.layers})
        self.model: nn.Sequential = rows
        self.sources = rows.sources
        self.save = list(rows.save)
        for m in self.modules():
            if type(m) is nn.BatchNorm2d:
                m.eps, m.momentum = BN_EPS, BN_MOMENTUM
        self._reductions = self._probe(table["channels"])
        self.start_head([float(self._reductions[j]) for j in self.sources[-1]])

    def start_head(self, strides: list[float]) -> None:
        """Set ``stride`` and the head's first values; ``strides`` are pixels per cell of the maps that feed it."""
        raise NotImplementedError

    # --- parts -----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Any:
        """The head, the last layer."""
        return self.model[-1]

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the model's parts, see `Detector.sections`; the neck is what lies between backbone and last layer."""
        depth, last = len(self.yaml["backbone"]), len(self.model) - 1
        parts = {"backbone": _prefixes(range(depth))}
        for i in range(depth):
            level = f"backbone.p{max(self._reductions[i].bit_length() - 1, 0)}"
            parts[level] = (*parts.get(level, ()), f"model.{i}.")
        parts["neck"] = _prefixes(range(depth, last))
        parts["head"] = _prefixes([last])
        for part, branches in self.head.SECTIONS.items():
            parts[f"head.{part}"] = tuple(f"model.{last}.{branch}." for branch in branches)
        return parts

    def compiled_parts(self) -> tuple[nn.Module, ...]:
        """Return the rows before the head, and the head."""
        return self.model, self.head

    def deepest(self) -> nn.Module:
        """Return the row that makes the smallest map that feeds the head."""
        return self.model[self.sources[-1][-1]]

    # --- forward ---------------------------------------------------------------------------------------------------

    def head_inputs(self, x: Tensor) -> list[Tensor]:
        """Return the maps that feed the head, of images (B, ch, H, W)."""
        if isinstance(self.model, Rows):
            return self.model(x)
        return maps_for_last(self.model, self.sources, self.save, x)  # somebody has put a chain of their own there

    @torch.no_grad()
    def _probe(self, ch: int) -> tuple[int, ...]:
        """Return pixels per cell of every layer before the head, found by sending one blank image through.

        Raises:
            ModelTableError: the maps of a layer do not fit the next, or would be too large.
        """
        training, passage = self.training, Passage()
        heights: list[int] = []
        hooks = []
        for m in islice(self.model, len(self.model) - 1):
            hooks.append(m.register_forward_pre_hook(lambda m, args: passage.before(m, args[0])))
            hooks.append(m.register_forward_hook(lambda _m, _i, y: heights.append(y.shape[-2])))
        self.eval()
        try:
            self.head_inputs(torch.zeros(1, ch, PROBE_SIZE, PROBE_SIZE, device=next(self.parameters()).device))
        except UNFIT as error:
            i = len(heights)
            table = self.yaml
            row = shown([*table["backbone"], *table["head"]][i])
            raise ModelTableError(f"row {i} of {called(table)}, {row}: it cannot be run: {said(error)}") from error
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()
        return tuple(PROBE_SIZE // h for h in heights)


def _prefixes(layers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"model.{i}." for i in layers)
