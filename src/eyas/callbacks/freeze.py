"""Freeze parts of a model, for good or for the first epochs.

What: frozen parameters take no gradient, and normalisation inside the frozen part keeps its statistics; both stay
byte-identical, in the average of the weights too. When: decided before the first step and at the start of an epoch, as
a function of progress alone, so that a resumed run is where an uninterrupted one would be. Frozen parameters are in the
optimizer from the start, so that unfreezing changes nothing but their gradient. Default: nothing is frozen.
Hazards: with ``norm="update"`` a frozen backbone's statistics follow the new data and its outputs change although its
weights do not. Unfreezing at full rate can undo what the head has learnt: give a ramp or a smaller rate. Only what this
component froze is unfrozen by it; a ``requires_grad`` set by anyone else is never touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from torch import Tensor, nn

from eyas.callbacks.base import Decision, StockCallback
from eyas.config import TrainOptions
from eyas.files import digest
from eyas.log import LOGGER
from eyas.names import did_you_mean
from eyas.nn.norms import norm_marks, norms_within
from eyas.nn.unwrap import unwrap_model
from eyas.optim.groups import split_groups
from eyas.optim.select import Selector, select
from eyas.run.protocol import FrozenSpan, Run, Stage


# -- pure functions, usable in anyone's loop ---------------------------------------------------------------------------
def set_frozen(model: nn.Module, names: Iterable[str], frozen: bool) -> list[str]:
    """Set ``requires_grad`` of the named parameters; return the names of those for which that was a change.

    A parameter that is frozen loses its gradient too: weight decay and momentum move every parameter that has one.
    """
    wanted, changed = set(names), []
    for name, parameter in unwrap_model(model).named_parameters():
        if name in wanted and parameter.requires_grad == frozen:
            parameter.requires_grad_(not frozen)
            parameter.grad = None
            changed.append(name)
    return changed


@dataclass(frozen=True)
class Phase:
    """One part of the model and when it is frozen.

    Args:
        what: a selector, see ``eyas.optim.select``.
        epochs: how long; below 1 a share of the run, from 1 on a whole number of epochs, None to the end of the run.
        start: epochs before it; below 1 a share of the run.
        ramp: epochs over which the rate of this part grows from 0 to its schedule once it is unfrozen.
        norm: ``"hold"`` keeps the statistics of normalisation inside, ``"update"`` lets them move.

    Raises:
        ValueError: a value out of its range.
    """

    what: Selector
    epochs: float | None = None
    start: float = 0
    ramp: float = 0.0
    norm: str = "hold"

    def __post_init__(self) -> None:
        for name, value, least in (("epochs", self.epochs, 0), ("start", self.start, 0), ("ramp", self.ramp, 0)):
            if value is None and name == "epochs":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise ValueError(f"Freeze: {name} must be a number of epochs, at least 0, got {value!r}.")
            if name != "ramp" and value > 1 and value != int(value):
                raise ValueError(f"Freeze: {name}={value} must be whole, or below 1 for a share of the run.")
        if self.epochs == 0:
            raise ValueError("Freeze: epochs=0 freezes nothing; leave it out to freeze to the end of the run.")
        if self.ramp and self.epochs is None:
            raise ValueError(f"Freeze: ramp={self.ramp} has no effect on what is never unfrozen; give epochs too.")
        if self.norm not in ("hold", "update"):
            raise ValueError(f"Freeze: norm must be 'hold' or 'update', got {self.norm!r}.")

    def resolved(self, run: int) -> Phase:
        """Return this phase in whole epochs of a run of ``run`` epochs; a share of it is at least one epoch long."""
        start = round(self.start * run) if self.start < 1 else int(self.start)
        length = self.epochs if self.epochs is None else _whole(self.epochs, run)
        return replace(self, start=start, epochs=length)

    def end(self) -> int | None:
        """Return the first epoch (0-based) after this resolved phase, None if it has no end."""
        return None if self.epochs is None else int(self.start + self.epochs)

    def shortened(self, total: int | None, epochs: int) -> Phase:
        """Return this phase of a run of ``total`` epochs for one of ``epochs``, at least 2; None: the total is unknown.

        One that ends inside the run ends after the first epoch.
        """
        end = self.resolved(total).end() if total is not None else 0
        ends = self.epochs is not None and (total is None or end is None or end < total)
        start = 1 if self.start and not ends else 0
        length = self.epochs if self.epochs is None else 1 if ends else epochs - start
        ramp = self.ramp * epochs / total if total is not None else min(self.ramp, 0.5)
        return replace(self, start=start, epochs=length, ramp=min(ramp, 1.0))

    def text(self) -> str:
        """Return when, for people: epochs counted from 1."""
        since = f" from epoch {int(self.start) + 1}" if self.start else ""
        until = f" until epoch {self.end()}" if self.epochs is not None else ""
        return since + until or " throughout"


def _whole(epochs: float, run: int) -> int:
    return max(round(epochs * run), 1) if epochs < 1 else int(epochs)


def frozen_at(phases: Sequence[Phase], epoch: int, epochs: int) -> set[int]:
    """Return which phases are on in an epoch (0-based) of a run of ``epochs``: a pure function of progress."""
    found = set()
    for i, phase in enumerate(p.resolved(epochs) for p in phases):
        end = phase.end()
        if phase.start <= epoch and (end is None or epoch < end):
            found.add(i)
    return found


def ramp_factor(phases: Sequence[Phase], epochs_done: float) -> float:
    """Return the factor on the rate of a part after its latest phase, in [0, 1]; 1 before and while it is frozen.

    Args:
        phases: resolved phases of this part.
        epochs_done: epochs that lie behind when this step is over.
    """
    over = [phase for phase in phases if (end := phase.end()) is not None and end < epochs_done]
    if not over:
        return 1.0
    last = max(over, key=lambda phase: phase.end() or 0)
    return min((epochs_done - (last.end() or 0)) / last.ramp, 1.0) if last.ramp else 1.0


# -- the component -----------------------------------------------------------------------------------------------------
class Freeze(StockCallback):
    """Freeze parts of the model in phases.

    Args:
        what: a selector, see ``eyas.optim.select``; ``"backbone"``, 10, ``["backbone", "neck"]``...
        epochs, ramp, norm: see ``Phase``.
        phases: several, instead of the four above: mappings with the keys ``what, epochs, start, ramp, norm``.

    Raises:
        ValueError: neither or both of ``what`` and ``phases``, or a value out of its range.
    """

    decides = Decision.FREEZING
    options = ("freeze", "freeze_epochs", "freeze_ramp", "freeze_norm")

    def __init__(
        self,
        what: Selector | None = None,
        epochs: float | None = None,
        *,
        ramp: float = 0.0,
        norm: str = "hold",
        phases: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if (what is None) == (phases is None):
            raise ValueError("Freeze takes either what to freeze or a list of phases.")
        if phases is not None and (epochs is not None or ramp):
            raise ValueError("Freeze: epochs and ramp belong into each phase when there are phases.")
        self.phases = [Phase(what, epochs, 0, ramp, norm)] if what is not None else _phases(phases or [], norm)
        self.resolved: list[Phase] = []  # whole epochs, fixed when the run starts
        self.active: set[int] = set()  # phases that are on
        self.own: list[str] = []  # parameters that this component froze, and nobody else
        self.marks: list[str] = []  # what it added to trainer.freeze_layer_names
        self.before: dict[str, str] = {}  # phase -> hash of its tensors when they were frozen
        self.after: dict[str, str] = {}  # phase -> the same when they were unfrozen

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for, None without ``freeze``.

        Raises:
            ValueError: an option that only counts beside another one, or that the phases already decide.
        """
        typed = [name for name in ("freeze_epochs", "freeze_ramp", "freeze_norm") if options.is_typed(name)]
        freeze = options.freeze
        if freeze is None:
            if typed:
                raise ValueError(f"{' and '.join(typed)} without freeze has no effect; say what to freeze.")
            return None
        items = freeze if isinstance(freeze, list) else []
        phases = [item for item in items if isinstance(item, dict)]
        if not phases:
            what: Any = freeze  # numbers and names only, now
            return cls(what, options.freeze_epochs, ramp=options.freeze_ramp, norm=options.freeze_norm)
        if len(phases) < len(items):
            raise ValueError("freeze mixes phases with layers; give a list of either.")
        beside = [name for name in typed if name != "freeze_norm" or all("norm" in phase for phase in phases)]
        if beside:
            raise ValueError(
                f"{' and '.join(beside)} and the phases in freeze decide the same; write it into each phase "
                f"({', '.join(repr(name.removeprefix('freeze_')) for name in beside)})."
            )
        return cls(phases=phases, norm=options.freeze_norm)

    def shorten(self, total: int | None, epochs: int) -> None:
        """Keep every switch that lies inside the user's run inside the rehearsal."""
        self.phases = [phase.shortened(total, epochs) for phase in self.phases]

    # -- while everything is built -------------------------------------------------------------------------------------
    def adjust_param_groups(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give parts with a ramp groups of their own; without one, groups need not know of freezing."""
        self.resolve(trainer.epochs)
        model = unwrap_model(trainer.model)
        parts = self.ramped_parts(model)
        by_id = {id(p): parts[name] for name, p in model.named_parameters() if name in parts}
        split = split_groups(groups, lambda parameter: by_id.get(id(parameter), ()))
        return [self.ramped(group, part, i) if part else group for i, (part, group) in enumerate(split)]

    def ramped_parts(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Return parameter name -> its phases, for parameters with a ramp in one of them."""
        found: dict[str, tuple[int, ...]] = {}
        for i, phase in enumerate(self.phases):
            for name in select(model, phase.what):
                found[name] = (*found.get(name, ()), i)
        return {name: part for name, part in found.items() if any(self.phases[i].ramp for i in part)}

    def ramped(self, group: dict[str, Any], part: tuple[int, ...], position: int) -> dict[str, Any]:
        """Return a group that knows its phases, and until when it is frozen (None: to the end)."""
        ends = [self.resolved[i].end() for i in part]
        until = None if None in ends else max(end for end in ends if end is not None)
        name = f"{group.get('name', f'group{position}')}/frozen until {until or 'the end'}"
        return {**group, "name": name, "frozen_until": until, "freeze_phases": list(part)}

    def resolve(self, epochs: int) -> None:
        """Turn shares of the run into whole epochs, once: a later estimate of its length moves no switch."""
        if not self.resolved:
            self.resolved = [phase.resolved(epochs) for phase in self.phases]

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Freeze before the first step, or go on where a resumed run was."""
        self.resolve(trainer.epochs)
        if trainer.resume_from is None:
            self.refuse_void(trainer)
        self.refuse_ramp_without_groups(trainer)
        self.refuse_nothing_left(trainer)
        self.switch(trainer, trainer.start_epoch)

    def on_train_epoch_start(self, trainer: Run) -> None:
        """Act only where a phase begins or ends: in between, others may freeze and unfreeze as they like."""
        self.switch(trainer, trainer.epoch)

    def needs(self, adjuster: str) -> bool:
        """Only a ramp acts through the groups; freezing itself has no use for them."""
        return adjuster != "adjust_param_groups" or any(phase.ramp for phase in self.phases)

    def refuse_void(self, trainer: Run) -> None:
        """Stop if a phase lies beyond the run; the length of a run under a ``time`` budget is only an estimate."""
        if trainer.args.time is not None:
            return
        for phase in self.resolved:
            if phase.start >= trainer.epochs:
                raise ValueError(f"Freeze: {phase.what!r} would be frozen from epoch {phase.start + 1:g} on, "
                                 f"but the run has {trainer.epochs} epochs.")  # fmt: skip
            end = phase.end()
            if end is not None and (end > trainer.epochs or (end == trainer.epochs and phase.ramp)):
                raise ValueError(
                    f"Freeze: {phase.what!r} would be unfrozen after epoch {end}, but the run has {trainer.epochs} "
                    f"epochs. Give fewer, a share of the run such as 0.5, or none to freeze it to the end."
                )

    def refuse_ramp_without_groups(self, trainer: Run) -> None:
        """Stop if a ramp has no groups to act on, because the optimizer's are of someone else's making."""
        model = unwrap_model(trainer.model)
        parts = self.ramped_parts(model)
        ready = {id(p) for g in trainer.optimizer.param_groups if g.get("freeze_phases") for p in g["params"]}
        missing = [name for name, p in model.named_parameters() if name in parts and id(p) not in ready]
        if missing:
            raise ValueError(
                f"freeze_ramp has no effect: build_optimizer() made its own groups, and {missing[0]} is in none that "
                f"Freeze has split off. Pass the groups through self.adjust('adjust_param_groups', groups), or leave "
                f"the ramp out."
            )

    def refuse_nothing_left(self, trainer: Run) -> None:
        """Stop if in some epoch of the run nothing would learn."""
        model = unwrap_model(trainer.model)
        open_names = {name for name, p in model.named_parameters() if p.requires_grad} | set(self.own)
        turns = {trainer.start_epoch, *(int(p.start) for p in self.resolved), *(p.end() or 0 for p in self.resolved)}
        for epoch in sorted(turn for turn in turns if trainer.start_epoch <= turn < trainer.epochs):
            names = self.names_of(model, frozen_at(self.resolved, epoch, trainer.epochs))
            if open_names <= set(names):
                raise ValueError(
                    f"Freeze: nothing would be left to train in epoch {epoch + 1}: all {len(open_names)} trainable "
                    f"parameters are frozen. Freeze less."
                )

    # -- while it runs -------------------------------------------------------------------------------------------------
    def switch(self, trainer: Run, epoch: int) -> None:
        """Freeze and unfreeze what changes between the phases that were on and those of this epoch."""
        on = frozen_at(self.resolved, epoch, trainer.epochs)
        if on == self.active:
            return
        model = unwrap_model(trainer.model)
        was, now = self.names_of(model, self.active), self.names_of(model, on)
        for i in sorted(self.active - on):
            self.after[str(i)] = self.proof(model, i)
        gone = set(self.own) - set(now)
        opened = set_frozen(model, gone, frozen=False)
        closed = set_frozen(model, set(now) - set(was), frozen=True)
        self.own = [name for name in self.own if name not in gone] + closed
        self.mark(trainer, model, on)
        for i in sorted(on - self.active):
            self.before[str(i)] = self.proof(model, i)
        for verb, names, phases in (("froze", closed, on - self.active), ("unfroze", opened, self.active - on)):
            if names:
                what = ", ".join(_words(self.phases[i].what) for i in sorted(phases))
                LOGGER.info("Epoch %d: %s %s (%d tensors)", epoch + 1, verb, what, len(names))
        self.active = on

    def mark(self, trainer: Run, model: nn.Module, on: set[int]) -> None:
        """Keep ``trainer.freeze_layer_names`` in step; entries of others stay."""
        marks = norm_marks(model, self.held_norms(model, on))
        kept = [mark for mark in trainer.freeze_layer_names if mark not in self.marks or mark in marks]
        new = [mark for mark in marks if mark not in self.marks and mark not in kept]
        trainer.freeze_layer_names = [*kept, *new]
        self.marks = marks

    def adjust_rates(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let the rate of an unfrozen part grow; the first step after the switch already moves it."""
        progress = trainer.progress()
        done = progress.epoch + (progress.step + 1) / max(progress.steps, 1)
        for group in groups:
            if group.get("freeze_phases"):
                group["lr"] *= ramp_factor([self.resolved[i] for i in group["freeze_phases"]], done)
        return groups

    # -- what belongs to a phase ---------------------------------------------------------------------------------------
    def names_of(self, model: nn.Module, phases: Iterable[int]) -> tuple[str, ...]:
        """Return the parameters that these phases freeze."""
        return tuple(dict.fromkeys(name for i in sorted(phases) for name in select(model, self.phases[i].what)))

    def held_norms(self, model: nn.Module, phases: Iterable[int]) -> list[str]:
        """Return the normalisation layers whose statistics these phases hold."""
        held = (norms_within(model, self.names_of(model, [i])) for i in phases if self.phases[i].norm == "hold")
        return list(dict.fromkeys(name for names in held for name in names))

    def tensors_of(self, model: nn.Module, phase: int) -> list[tuple[str, Tensor]]:
        """Return what a phase keeps from changing: parameters, and buffers of held normalisation."""
        names, held = set(self.names_of(model, [phase])), tuple(f"{n}." for n in self.held_norms(model, [phase]))
        parameters = [(name, p) for name, p in model.named_parameters() if name in names]
        return parameters + [(name, b) for name, b in model.named_buffers() if held and name.startswith(held)]

    def proof(self, model: nn.Module, phase: int) -> str:
        """Return the hash of what a phase keeps, empty if someone else has unfrozen some of it."""
        tensors = self.tensors_of(model, phase)
        return "" if any(t.requires_grad for _, t in tensors) else digest(tensors)

    # -- plan, proof, state --------------------------------------------------------------------------------------------
    def stages(self, trainer: Run) -> list[Stage]:
        ends = [phase.end() or trainer.epochs for phase in self.resolved]
        return [Stage(f"{p.what} frozen", p.start, end) for p, end in zip(self.resolved, ends, strict=True)]

    def frozen_spans(self, trainer: Run) -> list[FrozenSpan]:
        model = unwrap_model(trainer.model)
        return [FrozenSpan(frozenset(self.names_of(model, [i])), p.text()) for i, p in enumerate(self.resolved)]

    def describe(self, trainer: Run) -> dict[str, object]:
        self.resolve(trainer.epochs)
        model, rows = unwrap_model(trainer.model), dict[str, object]()
        for i, phase in enumerate(self.resolved):
            held = len(self.held_norms(model, [i]))
            norm = f"{held} norms held" if phase.norm == "hold" else "norms updated"
            text = f"{_words(phase.what)}{phase.text()} ({len(self.names_of(model, [i]))} tensors, {norm})"
            text += f", rate grows over {phase.ramp:g} epochs" if phase.ramp else ""
            rows["freeze" if len(self.resolved) == 1 else f"freeze {i + 1}"] = text
        return rows

    def witness(self, trainer: Run) -> dict[str, object]:
        """Return hashes of what is frozen, when it was frozen and now or when it was unfrozen; when; with what norms.

        ``freeze`` is left out if something frozen has moved.
        """
        model = unwrap_model(trainer.model)
        seen = [self.phase_seen(model, i) for i in range(len(self.resolved))]
        found: dict[str, object] = {}
        if all(phase.get("identical", True) for phase in seen):
            found["freeze"] = seen
        if any(phase.end() is not None for phase in self.resolved):
            found["freeze_epochs"] = {"until epoch": [phase.end() for phase in self.resolved]}
        ramped = [g.get("name", "") for g in trainer.optimizer.param_groups if g.get("freeze_phases")]
        if ramped:
            found["freeze_ramp"] = {"groups": ramped}
        inside = len({name for i in range(len(seen)) for name in norms_within(model, self.names_of(model, [i]))})
        if inside:
            held = len(self.held_norms(model, range(len(seen))))
            found["freeze_norm"] = {"held": held, "updated": inside - held}
        return found

    def phase_seen(self, model: nn.Module, phase: int) -> dict[str, Any]:
        """Return what is known of one phase: sizes, and its hashes once it has begun."""
        names, key = set(self.names_of(model, [phase])), str(phase)
        on = phase in self.active
        seen: dict[str, Any] = {
            "what": _words(self.phases[phase].what) + self.resolved[phase].text(),
            "tensors": len(names),
            "frozen": sum(not p.requires_grad for name, p in model.named_parameters() if name in names),
            "norms held": len(self.held_norms(model, [phase])) if on else 0,
        }
        first, now = self.before.get(key), self.proof(model, phase) if on else self.after.get(key)
        if first and now:
            seen |= {"sha256 at first": first, "sha256": now, "identical": now == first}
        return seen

    def settings(self) -> dict[str, Any]:
        return {"phases": [asdict(phase) for phase in self.phases]}

    def state_dict(self) -> dict[str, Any]:
        return {
            "phases": [{"start": phase.start, "epochs": phase.epochs} for phase in self.resolved],
            "active": sorted(self.active),
            "own": list(self.own),
            "marks": list(self.marks),
            "before": dict(self.before),
            "after": dict(self.after),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back whose doing what was.

        Raises:
            ValueError: the run was started with another number of phases.
        """
        if len(state["phases"]) != len(self.phases):
            raise ValueError(
                f"this run was started with {len(state['phases'])} phases of freezing, and now there are "
                f"{len(self.phases)}; give the same."
            )
        self.resolved = [replace(p, **times) for p, times in zip(self.phases, state["phases"], strict=True)]
        self.active, self.own, self.marks = set(state["active"]), list(state["own"]), list(state["marks"])
        self.before, self.after = dict(state["before"]), dict(state["after"])


def _phases(given: Sequence[Mapping[str, Any]], norm: str) -> list[Phase]:
    """Return phases from mappings.

    Raises:
        ValueError: none, or a mapping with an unknown key or without ``what``.
    """
    if not given:
        raise ValueError("Freeze: the list of phases is empty.")
    known = [field.name for field in fields(Phase)]
    for phase in given:
        if not isinstance(phase, Mapping):
            raise ValueError(f"Freeze: a phase is a mapping with the keys {', '.join(known)}, got {phase!r}.")
        unknown = [key for key in phase if key not in known]
        if unknown:
            hint = did_you_mean(unknown[0], known)
            raise ValueError(f"Freeze: a phase has no {unknown[0]!r}.{hint} It has {', '.join(known)}.")
        if "what" not in phase:
            raise ValueError(f"Freeze: the phase {dict(phase)!r} does not say what to freeze.")
    return [Phase(**{"norm": norm, **phase}) for phase in given]


def _words(what: Selector) -> str:
    if isinstance(what, int):
        return f"first {what} layers"
    return what if isinstance(what, str) else ", ".join(f"layer {x}" if isinstance(x, int) else x for x in what)
