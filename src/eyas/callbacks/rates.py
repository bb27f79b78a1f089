"""Learning rates and weight decay layer by layer.

What: multiplies the rate, or the weight decay, of chosen parameters by a factor. The optimizer's groups are split so
that every parameter is in exactly one, with a name that says why; kinds (weight, bn, bias) stay apart.
When: once, while the optimizer is built; warm-up and schedule multiply each group's own base rate, so ratios stay.
Default: one rate for all layers.
Hazards: with a small factor *and* a short warm-up a pretrained backbone hardly moves; ``optimizer=auto`` chooses a base
rate for fine-tuning already, and factors come on top of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from eyas.callbacks.base import Decision, StockCallback
from eyas.config import TrainOptions
from eyas.nn.unwrap import unwrap_model
from eyas.optim.groups import split_groups
from eyas.optim.select import depths, select
from eyas.run.protocol import Run


@dataclass(frozen=True)
class Rate:
    """What one parameter's rate and decay are multiplied by, and the words for it in its group's name."""

    label: str = ""
    factor: float = 1.0
    decay_factor: float = 1.0
    reasons: frozenset[str] = frozenset()


def first_match(model: nn.Module, rules: Mapping[str, float], what: str = "rules") -> dict[str, str]:
    """Return parameter name -> the selector that applies to it: the first that matches.

    Raises:
        ValueError: a rule matches nothing, or nothing that an earlier rule has not taken; it is named.
    """
    chosen: dict[str, str] = {}
    for selector in rules:
        try:
            names = select(model, selector)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
        free = [name for name in names if name not in chosen]
        if not free:
            takers = ", ".join(repr(taker) for taker in dict.fromkeys(chosen[name] for name in names))
            raise ValueError(
                f"{what}: {selector!r} has no effect: all {len(names)} parameters it matches are taken by "
                f"earlier rules ({takers}), and the first match wins. Put it before them, or leave it out."
            )
        chosen |= dict.fromkeys(free, selector)
    return chosen


def layer_rates(
    model: nn.Module,
    groups: list[dict[str, Any]],
    rules: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    decay_rules: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return optimizer groups, split by rule and depth, with ``lr`` and ``weight_decay`` multiplied.

    Args:
        model: its parameters are those in the groups.
        groups: keys ``params``, ``lr``, ``weight_decay`` and, if there, ``name``; every other key is kept.
        rules: selector -> factor on the rate, > 0; the first match wins.
        layer_decay: factor on the rate per level below the head, in (0, 1]: ``layer_decay ** (top - level)``.
        decay_rules: selector -> factor on the weight decay, >= 0; the first match wins.

    Returns:
        Groups; those that a rule touches are called ``<rule>.<old name>`` and hold ``lr_factor``.

    Raises:
        ValueError: a rule without effect.
    """
    rates = parameter_rates(model, decaying(groups), rules, layer_decay, decay_rules)
    return [_changed(rate, group, i) for i, (rate, group) in enumerate(split_groups(groups, rate_of(model, rates)))]


def decaying(groups: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return ids of the parameters that have a weight decay."""
    return {id(p) for group in groups if group.get("weight_decay", 0.0) for p in group["params"]}


def rate_of(model: nn.Module, rates: Mapping[str, Rate]) -> Callable[[nn.Parameter], Rate]:
    """Return a function from a parameter to its ``Rate``; one that is not the model's own keeps its rate."""
    by_id = {id(p): rates[name] for name, p in unwrap_model(model).named_parameters()}
    plain = Rate()
    return lambda parameter: by_id.get(id(parameter), plain)


def parameter_rates(
    model: nn.Module,
    decays: set[int],
    rules: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    decay_rules: Mapping[str, float] | None = None,
) -> dict[str, Rate]:
    """Return the ``Rate`` of every parameter by name; ``decays`` holds the ids of those with a weight decay.

    Raises:
        ValueError: a rule without effect.
    """
    model = unwrap_model(model)
    by_rule = first_match(model, rules or {}, "lr_rules")
    levels = depths(model) if layer_decay is not None else {}
    top = max(levels.values(), default=0)
    by_decay = first_match(model, decay_rules or {}, "decay_rules")
    by_decay = {name: rule for name, p in model.named_parameters() if (rule := by_decay.get(name)) and id(p) in decays}
    idle = [rule for rule in decay_rules or {} if rule not in by_decay.values()]
    if idle:
        raise ValueError(
            f"decay_rules: {idle[0]!r} has no effect: no parameter it applies to has a weight decay "
            f"(biases and normalisation have none)."
        )
    found = {}
    for name, _ in model.named_parameters():
        words, reasons, factor = [], set(), 1.0
        if name in by_rule:
            words.append(by_rule[name])
            reasons.add("lr_rules")
            factor *= (rules or {})[by_rule[name]]
        if layer_decay is not None:
            words.append(f"depth{levels[name]}")
            reasons.add("layer_decay")
            factor *= layer_decay ** (top - levels[name])
        if name in by_decay:
            reasons.add("decay_rules")
            words += [by_decay[name]] if by_decay[name] not in words else []
        decay_factor = (decay_rules or {})[by_decay[name]] if name in by_decay else 1.0
        found[name] = Rate(".".join(words), factor, decay_factor, frozenset(reasons))
    return found


def _changed(rate: Rate, group: dict[str, Any], position: int) -> dict[str, Any]:
    """Return a group as its rate says; one without a rate stays as it is."""
    if not rate.reasons:
        return group
    changed = {**group, "name": f"{rate.label}.{group.get('name', f'group{position}')}"}
    if rate.reasons & {"lr_rules", "layer_decay"}:
        changed["lr"] = group["lr"] * rate.factor
        changed["lr_factor"] = group.get("lr_factor", 1.0) * rate.factor
    if "decay_rules" in rate.reasons:
        changed["weight_decay"] = group["weight_decay"] * rate.decay_factor
    return changed


class LayerRates(StockCallback):
    """Give parts of the model their own learning rate or weight decay.

    Args:
        rules: selector (see ``eyas.optim.select``) -> factor on the rate, > 0; the first match wins.
        layer_decay: factor per level of depth below the head, in (0, 1].
        decay_rules: selector -> factor on the weight decay, >= 0; the first match wins.

    Raises:
        ValueError: nothing is asked for, or a factor is out of range.
    """

    decides = Decision.RATES
    options = ("lr_rules", "layer_decay", "decay_rules")

    def __init__(
        self,
        rules: Mapping[str, float] | None = None,
        layer_decay: float | None = None,
        decay_rules: Mapping[str, float] | None = None,
    ) -> None:
        if not rules and not decay_rules and layer_decay is None:
            raise ValueError("LayerRates changes nothing; give rules, layer_decay or decay_rules.")
        for selector, factor in (rules or {}).items():
            if not (math.isfinite(factor) and factor > 0):
                hint = f" To keep it from learning, give freeze={selector!r}." if factor == 0 else ""
                raise ValueError(f"lr_rules: the factor of {selector!r} must be above 0, got {factor}.{hint}")
        for selector, factor in (decay_rules or {}).items():
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"decay_rules: the factor of {selector!r} must be at least 0, got {factor}.")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {layer_decay}.")
        self.rules = dict(rules or {})
        self.layer_decay = layer_decay
        self.decay_rules = dict(decay_rules or {})
        self.rates: dict[str, Rate] = {}
        self.base: dict[str, tuple[float, float]] = {}  # name -> rate and decay before the factors

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for, None without any of them."""
        if not options.lr_rules and not options.decay_rules and options.layer_decay is None:
            return None
        return cls(options.lr_rules, options.layer_decay, options.decay_rules)

    def settings(self) -> dict[str, Any]:
        rules, decay_rules = list(self.rules.items()), list(self.decay_rules.items())  # their order counts
        return {"rules": rules, "layer_decay": self.layer_decay, "decay_rules": decay_rules}

    def adjust_param_groups(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        model = unwrap_model(trainer.model)
        settings = (self.rules, self.layer_decay, self.decay_rules)
        self.rates = parameter_rates(model, decaying(groups), *settings)
        names = {id(p): name for name, p in model.named_parameters()}
        self.base = {
            names[id(p)]: (group["lr"], group.get("weight_decay", 0.0))
            for group in groups
            for p in group["params"]
            if id(p) in names
        }
        return layer_rates(model, groups, *settings)

    def sets_rate_of(self, model: nn.Module, part: str) -> bool:
        """Whether rates inside a part of the model (a selector) are decided here."""
        if self.layer_decay is not None:
            return True
        ruled = first_match(model, self.rules, "lr_rules")
        return bool(ruled) and not ruled.keys().isdisjoint(select(model, part))

    def describe(self, trainer: Run) -> dict[str, object]:
        rows: dict[str, object] = {}
        if self.rules:
            rows["layer rates"] = ", ".join(f"{rule} x {factor:g}" for rule, factor in self.rules.items())
        if self.layer_decay is not None:
            rows["layer decay"] = f"x {self.layer_decay:g} per level below the head"
        if self.decay_rules:
            rows["decay rules"] = ", ".join(f"{rule} x {factor:g}" for rule, factor in self.decay_rules.items())
        return rows

    def witness(self, trainer: Run) -> dict[str, object]:
        """Return, for each option, group name -> factor found in the real optimizer; parameters are known by identity.

        A factor that is not there, because the groups are of someone else's making, leaves its option out.
        """
        names = {id(p): name for name, p in unwrap_model(trainer.model).named_parameters()}
        seen: dict[str, dict[str, float]] = {option: {} for option in self.options}
        wrong: set[str] = set()
        for i, group in enumerate(trainer.optimizer.param_groups):
            for name in (names[id(p)] for p in group["params"] if names.get(id(p)) in self.base):
                rate, (lr, decay) = self.rates[name], self.base[name]
                ratio = group.get("initial_lr", group["lr"]) / lr if lr else rate.factor
                wanted = {"lr_rules": (ratio, rate.factor), "layer_decay": (ratio, rate.factor)}
                wanted["decay_rules"] = (group["weight_decay"] / decay if decay else 1.0, rate.decay_factor)
                for option in rate.reasons:
                    found, factor = wanted[option]
                    seen[option][group.get("name", f"group{i}")] = found
                    wrong |= set() if math.isclose(found, factor, rel_tol=1e-6, abs_tol=1e-12) else {option}
        return {option: values for option, values in seen.items() if values and option not in wrong}
