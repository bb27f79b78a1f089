"""What a loss returns: the loss, and its items for the log, by name or (the older form) as values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn


def named_losses(
    returned: object, network: nn.Module, names: Sequence[str] = ()
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the loss and its items by name; nothing waits for the device.

    Args:
        returned: by a loss: (loss, {name: value}), or the values without names, as a tensor (n,) or () or a sequence.
        network: unwrapped; it or its criterion may tell the names of its losses.
        names: that somebody has given the losses, if any; they come first.

    Values without names take the first names that are as many, else ``loss_0``, ``loss_1`` ...

    Raises:
        ValueError: it is neither of these forms.
    """
    if not (isinstance(returned, tuple | list) and len(returned) == 2 and isinstance(returned[0], Tensor)):
        raise ValueError(f"the loss returned {described(returned)}: {FORM}")
    loss, items = returned
    if isinstance(items, Tensor) and items.ndim < 2:
        items = list(items.detach().reshape(-1))
    if isinstance(items, tuple | list):
        items = dict(zip(names_of(len(items), network, names), items, strict=True))
    if not isinstance(items, Mapping) or not all(isinstance(v, Tensor) and v.numel() == 1 for v in items.values()):
        raise ValueError(f"the loss returned {described(returned[1])} as its second value: {FORM}")
    return loss, items


FORM = "return (loss, {name: tensor}), with a tensor of one value for each name."


def names_of(count: int, network: nn.Module, names: Sequence[str]) -> Sequence[str]:
    """Return a name for each of so many values."""
    told = (names, *told_names(network))
    return next((found for found in told if len(found) == count), [f"loss_{i}" for i in range(count)])


def told_names(network: nn.Module) -> Iterator[tuple[str, ...]]:
    """Yield what criterion and network call their losses; a user's own may not tell."""
    for part in (getattr(network, "criterion", None), network):
        yield tuple(getattr(part, "loss_names", ()))


def described(value: object) -> str:
    """Say what a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {described(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"({', '.join(described(item) for item in value)})"
    return f"a {type(value).__name__}"
