"""What the criteria share: loss terms with a name and a gain each, and class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from eyas.losses.class_weighting import as_class_weights, weight_classes
from eyas.nn.compilable import Compilable


def one_tensor(method: str, loss: object) -> Tensor:
    """Return a loss as it is.

    Raises:
        ValueError: a method of the user's returned something else than one tensor, such as a pair.
    """
    if not isinstance(loss, Tensor):
        raise ValueError(f"{method} returned a {type(loss).__name__}: return one tensor, the losses before their sum.")
    return loss


class Criterion(Compilable):
    """Named terms, each with a gain.

    Args:
        nc: classes.
        gains: {term: its weight in the loss}, in the order of the loss vector.
        class_weights: factors of the classes (C,) or (1, 1, C), applied to wanted and unwanted terms alike.

    A subclass adds a term of its own by a gain in ``gains`` and a value of the same name in what its terms are made of
    (`DenseCriterion.branch_losses`, `SetCriterion.layer_losses`); it is logged as ``<name>_loss``.
    """

    options: ClassVar[Mapping[str, str]] = {}
    """{term: the option that sets its gain}; terms of a subclass may have none."""

    def __init__(
        self, *, nc: int, gains: Mapping[str, float], class_weights: Tensor | Sequence[float] | None = None
    ) -> None:
        self.nc = nc
        self.gains = {name: float(gain) for name, gain in gains.items()}
        self.class_weights = None if class_weights is None else as_class_weights(class_weights, nc)
        self.areas_seen = 0  # areas to ignore that reached this loss

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the items, in the order of the loss vector."""
        return tuple(f"{name}_loss" for name in self.gains)

    def effects(self) -> dict[str, float]:
        """Return the gains that are applied, by the options that set them."""
        return {self.options[name]: gain for name, gain in self.gains.items() if name in self.options}

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the unreduced box loss (...) of corner boxes (..., 4), both in the same unit."""
        raise NotImplementedError

    def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return the unreduced class loss (..., C) of logits and soft targets in [0, 1], without class weights.

        ``positive`` (..., C) bool says where a class is wanted; without it, where the target is above 0.
        """
        raise NotImplementedError

    def weighted_class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
        """Return `class_loss` times the class weights.

        Raises:
            ValueError: there are class weights, and the class loss is not one value for each class.
        """
        loss = one_tensor("class_loss", self.class_loss(logits, targets, positive))
        if self.class_weights is not None:
            if loss.shape != logits.shape:
                raise ValueError(
                    f"class weights need a class loss of {tuple(logits.shape)}, one value for each logit; that of "
                    f"{type(self).__name__} is {tuple(loss.shape)}. Leave the sum to the criterion."
                )
            self.class_weights = self.class_weights.to(loss.device, non_blocking=True)  # moves once
        return weight_classes(loss, self.class_weights)

    def weigh(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return losses (...) times their gains (..., terms), in the order of the loss vector.

        Raises:
            ValueError: a term without a gain, or a gain without a term.
        """
        if losses.keys() != self.gains.keys():
            raise ValueError(
                f"{type(self).__name__} makes the losses {', '.join(losses)} and has gains for "
                f"{', '.join(self.gains)}: give each loss a gain of its name."
            )
        return torch.stack([losses[name] * gain for name, gain in self.gains.items()], -1)
