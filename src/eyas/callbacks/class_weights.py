"""Class weights.

What: multiplies the classification loss of each class by a number, in every branch. When: once, before the loss is
built. Default: off. Hazards: weights far from 1 trade precision of frequent classes for recall of rare ones and shift
confidences, so a threshold tuned before no longer fits; together with a balancing sampler both factors multiply.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eyas import dist
from eyas.callbacks.base import Decision, StockCallback
from eyas.data.balance import ImageClasses, combined_factors, describe_combined, sampling_factors
from eyas.data.loader import own_index
from eyas.data.sampler import WeightedOrder
from eyas.log import print_table, warn
from eyas.losses import Criterion, DenseCriterion, EndToEndCriterion
from eyas.names import did_you_mean
from eyas.nn.unwrap import unwrap_model
from eyas.run.protocol import Loader, Run

if TYPE_CHECKING:
    from torch import nn

    from eyas.config import TrainOptions

Numbers = NDArray[np.float64]
CAP = 10.0  # beyond a ratio of ten a handful of boxes, wrong ones included, outweighs everything else
RULES = ("balanced", "effective")
_SHOWN = 15  # rows from each end of a long table


# -- weights from counts -----------------------------------------------------------------------------------------------
def balanced_weights(counts: ArrayLike, cap: float = CAP) -> Numbers:
    """Return ``1 / count`` for each class (C,), at most ``cap`` times the smallest weight.

    Args:
        counts: objects of each class (C,).
        cap: largest ratio between two weights, >= 1.

    Classes without objects get the mean weight of the others; data without objects gives ones.
    """
    count = _counts(counts)
    return _finish(1 / np.maximum(count, 1), count, cap)


def effective_weights(counts: ArrayLike, cap: float = CAP, beta: float | None = None) -> Numbers:
    """Return 1 / effective number of objects of each class (C,) (Cui et al., 2019), bounded as `balanced_weights`.

    The effective number ``(1 - beta^n) / (1 - beta)`` grows like n at first and saturates at ``N = 1 / (1 - beta)``:
    beyond N objects, more of the same teach nothing new. By default N is the geometric mean of the counts, the typical
    class of a long tail, so that frequent classes weigh nearly the same and rare ones nearly ``1 / count``.

    Args:
        counts: objects of each class (C,).
        cap: largest ratio between two weights, >= 1.
        beta: in [0, 1); None follows that rule.
    """
    count = _counts(counts)
    present = count > 0
    if beta is None:
        typical = math.exp(np.log(count[present]).mean()) if present.any() else 1.0
        beta = 1 - 1 / typical
    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta} must lie in [0, 1).")
    effective = (1 - beta ** np.maximum(count, 1)) / (1 - beta)
    return _finish(1 / effective, count, cap)


def power_weights(counts: ArrayLike, power: float, cap: float = math.inf) -> Numbers:
    """Return ``count ** -power`` for each class (C,), divided by the mean over the classes (spec core E.11).

    Args:
        counts: objects of each class (C,).
        power: 0 weighs all classes the same, 1 balances them fully.
        cap: largest ratio between two weights, >= 1; without one, a class of few objects may outweigh all others.
    """
    count = _counts(counts)
    weights = _finish(np.maximum(count, 1) ** -float(power), count, cap)
    return weights / float(weights.mean())


def weights_by_name(mapping: Mapping[Any, float], names: Mapping[int, str]) -> Numbers:
    """Return weights (C,) from a mapping of class names to weights; classes that are not named weigh 1.

    Raises:
        ValueError: no class has such a name; names the nearest one.
    """
    known = [str(names[i]) for i in range(len(names))]
    for name in map(str, mapping):
        if name not in known:
            hint = did_you_mean(name, known) or f" Classes: {', '.join(known[:20])}."
            raise ValueError(f"class_weights names the class {name!r}, which the data does not have.{hint}")
    wanted = {str(name): float(weight) for name, weight in mapping.items()}
    return np.array([wanted.get(name, 1.0) for name in known])


def normalised(weights: ArrayLike, counts: ArrayLike) -> Numbers:
    """Return weights (C,) scaled so that their mean over all objects is 1, which keeps the size of the class loss.

    Raises:
        ValueError: all classes that have objects weigh 0.
    """
    weight, count = np.asarray(weights, np.float64), _counts(counts)
    if not count.any():
        return weight
    total = (weight * count).sum()
    if total <= 0:
        raise ValueError("class_weights gives 0 to every class that has objects: no class would be learnt.")
    return weight * float(count.sum() / total)


def _finish(raw: Numbers, count: Numbers, cap: float) -> Numbers:
    """Limit the ratio between classes that have objects, and give the others the mean of those."""
    if not cap >= 1:
        raise ValueError(f"the cap of class weights is a ratio of at least 1, got {cap}.")
    present = count > 0
    if not present.any():
        return np.ones_like(raw)
    weights: Numbers = np.minimum(raw, cap * raw[present].min())
    weights[~present] = weights[present].mean()
    return weights


def _counts(counts: ArrayLike) -> Numbers:
    count = np.asarray(counts, np.float64)
    assert count.ndim == 1, "one number of objects for each class"
    return count


# -- what a criterion really does --------------------------------------------------------------------------------------
def criterion_parts(criterion: Any) -> dict[str, Any]:
    """Return the parts of a criterion that hold a classification loss, by name."""
    if isinstance(criterion, EndToEndCriterion):
        return {"one2many": criterion.one2many, "one2one": criterion.one2one}
    return {"criterion": criterion}


def used_weights(part: Any, device: torch.device | str = "cpu") -> Tensor | None:
    """Return the class weights (C,) that a part of a criterion applies, on the CPU; None if it applies none.

    Our own criteria are not believed but measured: the gradient of their class loss with their weights over the
    gradient without them. Of any other criterion the attribute ``class_weights`` is read. Waits for the device.
    """
    weights = getattr(part, "class_weights", None)  # a user's own criterion may lack it
    if weights is None:
        return None
    if not isinstance(part, Criterion):
        return torch.as_tensor(weights, dtype=torch.float32).flatten().cpu()
    return _class_gradient(part, 0.0, device) / _class_gradient(_unweighted(part), 0.0, device)


def other_weighting(part: Any, device: torch.device | str = "cpu") -> str | None:
    """Return what else makes classes differ in a part of a criterion, or None: two weightings would multiply."""
    if not isinstance(part, Criterion):
        return None
    for name in ("pos_weight", "weight"):
        if isinstance(part, DenseCriterion) and getattr(part.bce, name, None) is not None:
            return f"criterion.bce with {name}"
    for target in (0.0, 1.0):
        gradient = _class_gradient(_unweighted(part), target, device)
        if not torch.allclose(gradient, gradient[:1].expand_as(gradient), rtol=1e-4):
            return "criterion.class_loss or criterion.bce with weights of its own"
    return None


def _unweighted(part: Criterion) -> Criterion:
    plain = copy.copy(part)
    plain.class_weights = None
    return plain


def _class_gradient(part: Criterion, target: float, device: torch.device | str) -> Tensor:
    """Return the gradient (C,) of the class loss of one anchor or query with all logits at 0, on the CPU."""
    logits = torch.zeros(1, 1, part.nc, device=device, requires_grad=True)
    targets = torch.full_like(logits, target, requires_grad=False)
    with torch.enable_grad():
        loss = part.weighted_class_loss(logits, targets).sum()
        return torch.autograd.grad(loss, logits)[0].flatten().float().cpu()


# -- the component -----------------------------------------------------------------------------------------------------
class ClassWeights(StockCallback):
    """Weigh classes in every classification loss.

    Args:
        weights: ``"balanced"`` (1 / count), ``"effective"`` (1 / effective number), ``("power", p)`` (count ** -p), one
            number for each class, or a mapping of class names to numbers (other classes weigh 1).
        cap: largest ratio between two computed weights, >= 1. None: 10 for ``"balanced"`` and ``"effective"``.
        normalize: scale weights so that their mean over all objects is 1. None: yes, except for ``("power", p)``, whose
            mean over the classes is 1 (spec core E.11).

    Raises:
        ValueError: no such rule, a weight is negative or not finite, or a cap is given with explicit weights.
    """

    decides = Decision.CLASS_WEIGHTS
    options = ("class_weights", "class_weights_cap", "class_weights_normalize", "cls_pw")

    def __init__(
        self,
        weights: str | tuple[str, float] | Sequence[float] | Mapping[str, float] = "balanced",
        cap: float | None = None,
        normalize: bool | None = None,
    ) -> None:
        self.weights = _check_weights(weights)
        if cap is not None and not cap >= 1:
            raise ValueError(f"class_weights_cap={cap} is a ratio between two weights and so at least 1.")
        if cap is not None and not self.computed:
            raise ValueError(f"class_weights_cap={cap} has no effect on weights given one by one; leave it out.")
        self.cap = cap
        self.normalize = not isinstance(self.weights, tuple) if normalize is None else normalize
        self.asked: Tensor | None = None

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for, or None.

        Raises:
            ValueError: both ``class_weights`` and ``cls_pw`` are given, or a detail of class weights without them.
        """
        power = options.cls_pw if options.cls_pw > 0 else None
        weights = options.class_weights
        if power and weights is not None:
            typed = [name for name in ("class_weights", "cls_pw") if options.is_typed(name)]
            if len(typed) != 1:
                raise ValueError(f"class_weights={weights!r} and cls_pw={power} both decide class weights; give one.")
            power, weights = (power, None) if typed == ["cls_pw"] else (None, weights)
        cap = options.class_weights_cap if options.is_changed("class_weights_cap") else None
        if weights is not None:
            return cls(weights, cap=cap, normalize=options.class_weights_normalize)
        if power:
            return cls(("power", power), cap=cap)
        for name in ("class_weights_cap", "class_weights_normalize"):
            if options.is_changed(name):
                raise ValueError(f"{name}={getattr(options, name)} has no effect without class_weights.")
        return None

    @property
    def computed(self) -> bool:
        """Whether the weights follow from the number of objects of each class."""
        return isinstance(self.weights, str | tuple)

    def class_weights(self, counts: ArrayLike | None, names: Mapping[int, str]) -> Numbers:
        """Return the weights (C,) for these classes; ``counts`` may be None where nothing depends on them."""
        weights = self._unscaled(counts, names)
        if self.normalize:
            assert counts is not None, "normalising needs the number of objects of each class"
            return normalised(weights, counts)
        return weights

    def _unscaled(self, counts: ArrayLike | None, names: Mapping[int, str]) -> Numbers:
        if isinstance(self.weights, dict):
            return weights_by_name(self.weights, names)
        if isinstance(self.weights, list):
            if len(self.weights) != len(names):
                raise ValueError(
                    f"class_weights has {len(self.weights)} numbers and the data {len(names)} classes; give one for "
                    "each class, or a mapping of class names to weights."
                )
            return np.array(self.weights)
        assert counts is not None, "computed weights need the number of objects of each class"
        if isinstance(self.weights, tuple):
            return power_weights(counts, self.weights[1], self.cap or math.inf)
        rule = balanced_weights if self.weights == "balanced" else effective_weights
        return rule(counts, self.cap or CAP)

    # -- in the loop ---------------------------------------------------------------------------------------------------
    def settings(self) -> dict[str, Any]:
        return {"weights": self.weights, "cap": self.cap, "normalize": self.normalize}

    def adjust_model(self, trainer: Run, model: nn.Module) -> nn.Module:
        """Give the model its class weights; the loss is built from them later.

        Raises:
            ValueError: the model has class weights already, or counts are needed of a loader that is not ours.
        """
        inner: Any = unwrap_model(model)
        if getattr(inner, "class_weights", None) is not None:  # a user's own model may not know the attribute
            raise ValueError(
                f"{type(inner).__name__} came with class_weights of its own, from a get_model() override, and "
                f"{self._asked_as()} was given too; give one of them."
            )
        names = {int(i): str(name) for i, name in trainer.data["names"].items()}
        counts = self._count(trainer.train_loader, len(names))
        self.asked = torch.as_tensor(self.class_weights(counts, names)).float()
        inner.class_weights = self.asked.clone()
        self._tell(trainer, names)
        return model

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Stop before the first step if the loss that was built does not apply these weights, or applies others too.

        Raises:
            ValueError: names the override or the other weighting.
        """
        self.check(unwrap_model(trainer.model))

    def check(self, model: nn.Module) -> list[float]:
        """Return the weights that the model's criterion applies.

        Raises:
            ValueError: it applies others than those asked for, or a second weighting.
        """
        assert self.asked is not None, "adjust_model comes first"
        device = next(model.parameters()).device
        for name, part in criterion_parts(getattr(model, "criterion", None)).items():
            where = f"the {name} loss" if name != "criterion" else "the loss"
            used = used_weights(part, device)
            if used is None or used.shape != self.asked.shape or not torch.allclose(used, self.asked, rtol=1e-4):
                seen = "none" if used is None else _text(used.tolist())
                # a user's own model may not know the attribute
                example = getattr(model, "weighted_loss", "self.dense_criterion(...)")
                raise ValueError(
                    f"{self._asked_as()} has no effect: {where} of {type(model).__name__} ({type(part).__name__}) "
                    f"applies {seen} instead of {_text(self.asked.tolist())}. An init_criterion() override must build "
                    f"its loss from model.class_weights, for example with {example}; or leave class weights to it "
                    "alone."
                )
            other = other_weighting(part, device)
            if other is not None:
                raise ValueError(
                    f"{self._asked_as()} and {other} both weigh classes in {where} of {type(model).__name__}; the "
                    "factors would multiply. Give one of them."
                )
        return self.asked.tolist()

    # -- what came of it -----------------------------------------------------------------------------------------------
    def describe(self, trainer: Run) -> dict[str, object]:
        """Return the rule and the range of the weights."""
        if self.asked is None:
            return {}
        low, high = self.asked.min().item(), self.asked.max().item()
        return {"class weights": f"{self._asked_as()}: {low:.3g} to {high:.3g}"}

    def witness(self, trainer: Run) -> dict[str, object]:
        """Return the weights measured in the criterion, their largest ratio, and their mean over objects.

        Raises:
            ValueError: the criterion no longer applies what was asked for.
        """
        if self.asked is None:
            return {}
        used = np.array(self.check(unwrap_model(trainer.model)))
        power = isinstance(self.weights, tuple)
        seen: dict[str, object] = {"cls_pw" if power else "class_weights": [round(float(w), 6) for w in used]}
        index = own_index(trainer.train_loader)
        if index is None:
            return seen if self.normalize else seen | {"class_weights_normalize": False}
        counts = index.instances(len(used))
        present = used[counts > 0]
        if self.computed and len(present):
            seen["class_weights_cap"] = round(float(present.max() / present.min()), 6)
        if not power and counts.sum():
            seen["class_weights_normalize"] = round(float((used * counts).sum() / counts.sum()), 6)
        return seen

    def _asked_as(self) -> str:
        """How the user may have written it."""
        if isinstance(self.weights, tuple):
            return f"cls_pw={self.weights[1]:g}"
        return f"class_weights={_text(self.weights) if isinstance(self.weights, list) else repr(self.weights)}"

    def _count(self, loader: Loader, nc: int) -> Numbers | None:
        """Return objects of each class in the training data (C,); None where they are not known and not needed."""
        if (index := own_index(loader)) is not None:
            return index.instances(nc)
        if not self.computed and not self.normalize:
            return None
        raise ValueError(
            f"{self._asked_as()} needs the number of objects of each class, which {type(loader).__name__} does not "
            "tell. Give class_weights as a list or a mapping with class_weights_normalize=False."
        )

    def _tell(self, trainer: Run, names: Mapping[int, str]) -> None:
        """Show the weights once, and warn when a sampler balances classes too."""
        index = own_index(trainer.train_loader)
        if not dist.is_main() or index is None:
            return
        assert self.asked is not None
        weights = self.asked.numpy().astype(np.float64)
        classes = index.image_classes(len(names))
        if trainer.args.verbose:
            print_weights(names, classes, weights)
        order = getattr(getattr(trainer.train_loader, "sampler", None), "order", None)
        if isinstance(order, WeightedOrder):
            sampling = sampling_factors(classes, order.factors)
            combined = combined_factors(sampling, weights)
            warn(describe_combined(names, sampling, weights, combined, sampler=order.name))


def print_weights(names: Mapping[int, str], classes: ImageClasses, weights: Numbers) -> None:
    """Print class, objects, images and weight, the heaviest class first; of many classes only both ends."""
    objects, images = classes.objects(), classes.images_per_class()
    order = np.argsort(-weights, kind="stable").tolist()
    title = "Class weights"
    if len(order) > 2 * _SHOWN:
        title += f": the {_SHOWN} heaviest and the {_SHOWN} lightest of {len(order)} classes"
        order = order[:_SHOWN] + order[-_SHOWN:]
    rows: list[list[object]] = [[names[i], int(objects[i]), int(images[i]), float(weights[i])] for i in order]
    print_table(title, ["class", "instances", "images", "weight"], rows, least=("images", "instances"))


def _check_weights(weights: Any) -> str | tuple[str, float] | list[float] | dict[str, float]:
    if isinstance(weights, str):
        if weights not in RULES:
            hint = did_you_mean(weights, RULES) or f" Known are {' and '.join(RULES)}, a list and a mapping."
            raise ValueError(f"class_weights={weights!r} is no rule for class weights.{hint}")
        return weights
    if isinstance(weights, tuple) and len(weights) == 2 and weights[0] == "power":
        if not (math.isfinite(weights[1]) and weights[1] > 0):
            raise ValueError(f"the power of class weights is a number above 0, got {weights[1]!r}.")
        return ("power", float(weights[1]))
    if isinstance(weights, Mapping):
        found = {str(name): float(weight) for name, weight in weights.items()}
        _check_numbers(list(found.values()))
        return found
    numbers = [float(weight) for weight in weights]
    _check_numbers(numbers)
    return numbers


def _check_numbers(numbers: list[float]) -> None:
    bad = [number for number in numbers if not (math.isfinite(number) and number >= 0)]
    if bad:
        raise ValueError(f"class_weights holds {bad[0]}: weights are finite numbers of at least 0.")
    if not any(numbers):
        raise ValueError("class_weights holds no weight above 0: no class would be learnt.")


def _text(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{number:.3g}" for number in numbers[:6])
    return f"[{shown}{', ...' if len(numbers) > 6 else ''}]"
