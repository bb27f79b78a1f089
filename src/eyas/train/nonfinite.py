"""Where a number that is none comes from: one step of a network taken again, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from eyas.checkpoint.finite import not_finite
from eyas.names import a_few


@dataclass(frozen=True)
class Origin:
    """What of a step is nan or infinite.

    Attributes:
        inputs: entries of the batch.
        weights: parameters and buffers, before the step.
        layer: the first whose output is, although what it was given is not; "" for none.
        terms: of the loss.
        gradients: of parameters, the last layer's first.
        error: what the network or its loss raised, if they did.
    """

    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    layer: str = ""
    terms: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    error: str = ""

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        told = []
        for what, names in (("in the batch", self.inputs), ("in the weights before the step", self.weights)):
            if names:
                told.append(f"{what}: {a_few(names)}")
        if self.layer:
            told.append(f"first in the output of the layer {self.layer}")
        if self.terms:
            told.append(f"in the loss {a_few(self.terms)}")
        elif self.gradients:
            told.append(f"not in the loss, but in the gradients of {a_few(self.gradients)}")
        if self.error:
            told.append(f"it ended in {self.error}")
        return "; ".join(told) or "neither in the network nor in its loss: what is around them made it"


def origin(
    network: nn.Module, batch: Mapping[str, Any], losses: Callable[[], tuple[Tensor, Mapping[str, Tensor]]]
) -> Origin:
    """Take a step's forward and backward pass, and return what of it is nan or infinite.

    Gradients of the network are those of this pass afterwards. Waits for the device at every layer.

    Args:
        network: unwrapped, in the mode that it trains in.
        batch: as the network sees it.
        losses: calls the network on it, and returns the loss to differentiate and its terms.
    """
    inputs = tuple(not_finite({name: value for name, value in batch.items() if isinstance(value, Tensor)}))
    weights = tuple(not_finite(dict(network.named_parameters())))
    network.zero_grad()
    with watched(network) as first:
        try:
            loss, terms = losses()
            broken = tuple(not_finite(dict(terms))) or (() if bool(loss.isfinite().all()) else ("loss",))
            loss.sum().backward()
        except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:  # as of indices made of nan
            return Origin(inputs, weights, "".join(first[:1]), error=f"{type(error).__name__}: {error}"[:300])
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return Origin(inputs, weights, "".join(first[:1]), broken, tuple(reversed(not_finite(gradients))))


@contextmanager
def watched(network: nn.Module) -> Iterator[list[str]]:
    """Inside the block, names of layers are listed whose output is not finite while what they are given is."""
    found: list[str] = []
    hooks = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            if not found and not sound(output) and sound(given):
                found.append(f"{name} ({type(module).__name__})")

        return look

    try:
        for name, module in network.named_modules():
            if name and not any(True for _ in module.children()):
                hooks.append(module.register_forward_hook(watch(name)))
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def sound(values: Any) -> bool:
    """Whether all floating tensors in nested lists and mappings are finite."""
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool(values.isfinite().all())
    if isinstance(values, Mapping):
        return all(map(sound, values.values()))
    return all(map(sound, values)) if isinstance(values, (tuple, list)) else True
