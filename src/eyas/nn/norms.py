"""Normalisation layers of a model by name: which lie within a selection, and which are held in eval mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from eyas.nn.unwrap import unwrap_model


def hold_norms(model: nn.Module, substrings: Iterable[str]) -> int:
    """Put normalisation with running statistics into eval mode where its name says so; return how many.

    Call it after ``model.train()``. Synchronised normalisation counts as what it is, whatever its class.

    Args:
        model: wrappers are looked through.
        substrings: parts of ``<dotted name>.``; one that begins with ``^`` counts at the start of the name only.
    """
    marks = tuple(substrings)
    held = [module for name, module in norms(model) if _is_marked(name, marks)]
    for module in held:
        module.eval()
    return len(held)


def norms(model: nn.Module) -> list[tuple[str, _NormBase]]:
    """Return the normalisation layers with running statistics, by dotted name."""
    return [(name, module) for name, module in unwrap_model(model).named_modules() if isinstance(module, _NormBase)]


class GrowingStatistics:
    """Running statistics that look back over a share of the steps so far, until that is longer than their own window.

    A momentum of 0.03 remembers about 33 steps, and the weights of the first of them are random: a run of 80 steps is
    then measured with statistics of weights that it no longer has. Growing as ``1 - (1 - 1/n)^6`` at step n, their mean
    age is a seventh of the steps so far, as in ``eyas.optim.PowerAverage``, and never more than their own window.

    Args:
        model: wrappers are looked through; layers without a momentum, which average over all steps, are left alone.
    """

    EXPONENT = 6

    def __init__(self, model: nn.Module) -> None:
        kept = (layer for _, layer in norms(model) if layer.running_mean is not None)
        self.layers = [(layer, layer.momentum) for layer in kept if layer.momentum is not None]
        self.grown = False

    def follow(self, step: int) -> None:
        """Set the momentum of a step, counted from 0 over the whole run: a function of it alone."""
        if self.grown:
            return  # a hundred assignments to modules in every step of a long run would cost a third of a millisecond
        young = self.momentum(step)
        for layer, own in self.layers:
            layer.momentum = max(own, young)
        self.grown = all(young <= own for _, own in self.layers)

    def momentum(self, step: int) -> float:
        """Return what a step has to say in the statistics, in (0, 1]."""
        return float(1 - (1 - 1 / (step + 1)) ** self.EXPONENT)

    def settle(self) -> None:
        """Be told that the layers have seen the batch; they have already moved their statistics."""

    def release(self) -> None:
        """Give the layers their own momentum back."""
        for layer, own in self.layers:
            layer.momentum = own


class StatisticsBeside(GrowingStatistics):
    """The same, computed beside the layers: in compiled ones a momentum is a constant, and each new one would cost
    minutes. Layers note the batch's own statistics, which are then mixed with those before it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.groups: dict[float, list[Tensor]] = {}
        for layer, own in self.layers:
            layer.momentum = 1.0
            for statistic in (layer.running_mean, layer.running_var):
                assert statistic is not None
                self.groups.setdefault(own, []).append(statistic)

    def follow(self, step: int) -> None:
        """Keep the statistics as they are before this step, counted from 0 over the whole run."""
        self.young = self.momentum(step)
        self.before = {own: [statistic.clone() for statistic in group] for own, group in self.groups.items()}

    @torch.no_grad()
    def settle(self) -> None:
        """Mix the statistics of the batch with those before it."""
        for own, group in self.groups.items():
            torch._foreach_lerp_(group, self.before[own], 1 - max(own, self.young))


def norms_within(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return names of the normalisation layers that lie within a selection of parameters.

    A layer does when all its parameters are selected; one without parameters, when all those of the nearest module
    around it that has some are.
    """
    model, chosen = unwrap_model(model), set(names)
    own = {
        name: {f"{name}.{key}" if name else key for key, _ in m.named_parameters()} for name, m in model.named_modules()
    }
    found = []
    for name, _ in norms(model):
        around = name
        while around and not own[around]:
            around = around.rpartition(".")[0]
        if own[around] and own[around] <= chosen:
            found.append(name)
    return found


def norm_marks(model: nn.Module, held: Sequence[str]) -> list[str]:
    """Return substrings for ``hold_norms`` that hold just these layers; ``"model.3."`` for a whole row of the table."""
    every = [name for name, _ in norms(model)]
    marks: dict[str, None] = {}
    for name in held:
        row = re.match(r"model\.\d+\.", name)
        candidates = ([row[0]] if row else []) + [f"{name}.", f"^{name}."]
        exact = (mark for mark in candidates if all(n in held for n in every if _is_marked(n, (mark,))))
        marks[next(exact)] = None
    return list(marks)


def _is_marked(name: str, marks: tuple[str, ...]) -> bool:
    dotted = f"{name}."
    return any(dotted.startswith(mark[1:]) if mark.startswith("^") else mark in dotted for mark in marks)
