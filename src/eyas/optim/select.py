"""Name parts of a model: from a selector to parameter names, and the depth of every parameter.

A selector is one of

- a section of ``model.sections()``: ``"backbone"``, ``"backbone.p3"``, ``"neck"``, ``"head"``, ``"head.cls"``;
- a number N: the first N layers, ``model.0.`` to ``model.{N-1}.``, or the first N levels of a model that names its
  levels itself (`HasLevels`): those of `depths`;
- a list: whole numbers name single layers, texts are selectors; the union of all;
- a glob over whole parameter names: ``"model.*.bn.*"``;
- a regular expression between slashes, searched in parameter names: ``"/bn[12]?\\.bias$/"``;
- a name, or the start of names up to a dot: ``"model.23.cv2"``; ``"23.cv2"`` means the same (spec core A.5).

Every model has names; sections and numbers need a model that has sections, and numbered layers or levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from torch import nn

from eyas.names import did_you_mean
from eyas.nn.unwrap import unwrap_model

Selector = int | str | Sequence[int | str]

LAYER = re.compile(r"model\.(\d+)(?=\.|$)")


@runtime_checkable
class HasSections(Protocol):
    """A model that describes its own parts."""

    def sections(self) -> dict[str, tuple[str, ...]]: ...


@runtime_checkable
class HasLevels(Protocol):
    """A model without a table of rows that says itself how deep its parts are."""

    def parameter_levels(self) -> Sequence[tuple[str, ...]]:
        """Return groups of prefixes of parameter names, from the image upwards; each is one level."""
        ...


def select(model: nn.Module, what: Selector) -> tuple[str, ...]:
    """Return the names of the parameters that a selector means, in the model's order.

    Args:
        model: wrappers of data parallelism and compilation are looked through; names never start with ``module.``.
        what: see the head of this file.

    Raises:
        ValueError: nothing is selected, or the selector is none; names the nearest section or prefix.
    """
    model = unwrap_model(model)
    names = [name for name, _ in model.named_parameters()]
    if isinstance(what, str):
        chosen = _by_text(model, names, what)
    elif isinstance(what, int) and not isinstance(what, bool):
        chosen = _by_layers(model, names, range(_checked_count(model, what)))
    elif isinstance(what, Sequence):
        chosen = _by_items(model, names, what)
    else:
        raise ValueError(
            f"{what!r} selects no layers; give a section, a number of layers, a list, a glob or a /regex/."
        )
    return tuple(name for name in names if name in chosen)


def depths(model: nn.Module) -> dict[str, int]:
    """Return the level of every parameter for layer-wise decay: 0 next to the image, the highest at the head.

    Each row of the layer table is one level, ``model.<i>.`` is level ``i``, rows without parameters counted too, so a
    level can be read off the table. The head, one row, is the highest level, and so is what lies outside the rows.
    A model without rows may name its levels itself (`HasLevels`).

    Raises:
        ValueError: the model has neither numbered layers nor levels.
    """
    model = unwrap_model(model)
    if isinstance(model, HasLevels):
        levels = model.parameter_levels()
        names = [name for name, _ in model.named_parameters()]
        return {n: next((i for i, group in enumerate(levels) if n.startswith(group)), len(levels) - 1) for n in names}
    top = layer_count(model) - 1
    if top < 0:
        raise ValueError(
            f"{type(model).__name__} has no numbered layers (model.0, model.1, ...), so its depth is not known; "
            f"give rates by name instead."
        )
    found = ((name, LAYER.match(name)) for name, _ in model.named_parameters())
    return {name: int(match[1]) if match else top for name, match in found}


def layer_count(model: nn.Module) -> int:
    """Return how many rows the layer table has: modules called ``model.<i>``; 0 without any."""
    matches = (LAYER.fullmatch(name) for name, _ in unwrap_model(model).named_modules())
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _checked_count(model: nn.Module, count: int, index: bool = False) -> int:
    """Return a number of first layers, or the index of one, if the model has as many."""
    layers = len(model.parameter_levels()) if isinstance(model, HasLevels) else layer_count(model)
    if not layers:
        raise ValueError(
            f"{count} layers: {type(model).__name__} has no numbered layers (model.0, ...); select by name."
        )
    if index and not 0 <= count < layers:
        raise ValueError(f"layer {count}: this model has layers 0 to {layers - 1}.")
    if not index and not 0 < count <= layers:
        raise ValueError(f"the first {count} layers: this model has {layers}; give 1 to {layers}.")
    return count


def _by_layers(model: nn.Module, names: list[str], layers: Sequence[int]) -> set[str]:
    if isinstance(model, HasLevels):
        return {name for name, level in depths(model).items() if level in layers}
    prefixes = tuple(f"model.{i}." for i in layers)
    return {name for name in names if name.startswith(prefixes)}


def _by_items(model: nn.Module, names: list[str], items: Sequence[int | str]) -> set[str]:
    """Return the union of a list; a layer without parameters may stand in it, a list of nothing else may not."""
    chosen: set[str] = set()
    for item in items:
        number = int(item) if isinstance(item, str) and item.isdecimal() else item
        if isinstance(number, int) and not isinstance(number, bool):
            chosen |= _by_layers(model, names, [_checked_count(model, number, index=True)])
        elif isinstance(number, str):
            chosen |= _by_text(model, names, number)
        else:
            raise ValueError(f"{item!r} in {list(items)!r} is neither the number of a layer nor a name.")
    if not chosen:
        raise ValueError(f"{list(items)!r} selects no parameter.")
    return chosen


def _by_text(model: nn.Module, names: list[str], text: str) -> set[str]:
    if text.isdecimal():
        raise ValueError(
            f"{text!r} can be read in two ways: {text} without quotes means the first {text} layers, [{text}] means "
            f"layer {text}."
        )
    sections = model.sections() if isinstance(model, HasSections) else {}
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        chosen = _by_regex(names, text[1:-1])
    elif text in sections:
        chosen = {name for name in names if name.startswith(sections[text])}
    elif any(sign in text for sign in "*?["):
        chosen = {name for name in names if fnmatchcase(name, text)}
    else:
        chosen = _by_prefix(names, text)
    if not chosen:
        raise ValueError(f"{text!r} selects no parameter of {type(model).__name__}.{_hint(text, names, sections)}")
    return chosen


def _by_regex(names: list[str], pattern: str) -> set[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"/{pattern}/ is not a regular expression: {error}.") from None
    return {name for name in names if compiled.search(name)}


def _by_prefix(names: list[str], text: str) -> set[str]:
    """Return names that are, or start with, a dotted text; else those that hold it behind ``model.`` (spec A.5)."""
    start = text.rstrip(".")
    if not start:
        return set()
    direct = {name for name in names if f"{name}.".startswith(f"{start}.")}
    return direct or {name for name in names if f"model.{start}." in f"{name}."}


def _hint(text: str, names: list[str], sections: dict[str, tuple[str, ...]]) -> str:
    prefixes = dict.fromkeys(name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1))
    known = f" Sections: {', '.join(sections)}." if sections else ""
    return did_you_mean(text.strip("/"), [*sections, *prefixes], n=2, cutoff=0.5) + known
