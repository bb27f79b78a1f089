"""What is about to be trained, as three tables: decisions with who made them, stages of the run, parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from eyas.callbacks.base import ADJUSTERS, Callback
from eyas.callbacks.freeze import Freeze
from eyas.config import TrainOptions, describe
from eyas.config.options import TYPED
from eyas.log import print_table
from eyas.nn.unwrap import unwrap_model
from eyas.prove import conflicts
from eyas.run.overrides import overrides

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

DECISION_HEADER = ("plan", "value", "why")
STAGE_HEADER = ("stage", "epochs", "share of the run", "timeline")
GROUP_HEADER = ("group", "tensors", "parameters", "learning rate", "decay", "frozen", "clip", "EMA")
SCHEDULE = "the learning-rate schedule"
BAR = 20  # characters of a timeline
Row = tuple[str, str, str]


def print_overview(trainer: BaseTrainer) -> None:
    """Print the tables of a trainer that is set up."""
    print_table("", list(DECISION_HEADER), [list(row) for row in decision_rows(trainer)])
    print_table("", list(STAGE_HEADER), stage_rows(trainer))
    print_table("", list(GROUP_HEADER), group_rows(trainer))


# -- decisions ---------------------------------------------------------------------------------------------------------
def decision_rows(trainer: BaseTrainer) -> list[Row]:
    """Return (decision, value, who made it): the plan's, other options of the user, components, overrides.

    Who is the default, the recipe, ``option (source)``, ``component X`` or ``override``; a component's decision takes
    the place of the plan's of the same name.
    """
    rows: dict[str, tuple[object, str]] = {}
    for decision in trainer.plan.decisions:
        rows[decision.name] = decision.value, f"option ({decision.by})" if decision.by in TYPED else decision.by
    owned = {name for callback in trainer.callbacks.callbacks for name in callback.options}
    for name in other_options(trainer.args):
        if name not in owned:
            rows.setdefault(name, (trainer.args.get(name), f"option ({trainer.args.source(name)})"))
    for callback in trainer.callbacks.callbacks:
        rows |= {name: (value, maker(callback)) for name, value in decided_by(callback, trainer).items()}
    rows |= {name: (text, "override") for name, text in replaced_methods(trainer)}
    return [
        (name, f"{value:g}" if isinstance(value, float) else str(value), who) for name, (value, who) in rows.items()
    ]


def other_options(args: TrainOptions) -> list[str]:
    """Return options that a person changed and that are about the training, not about its place or its pictures."""
    return [name for name, _ in args if args.is_changed(name) and describe(name).group != "run"]


def decided_by(callback: Callback, trainer: BaseTrainer) -> dict[str, object]:
    """Return a component's decisions; of one that tells none, the adjusters by which it can change the training."""
    told = callback.describe(trainer)
    return told or {a: f"{type(callback).__name__}.{a}()" for a in ADJUSTERS if conflicts.adjusts(callback, a)}


def maker(callback: Callback) -> str:
    """Say who asked for a component."""
    if callback.origin == "component":
        return f"component {type(callback).__name__}"
    return callback.origin if callback.origin not in TYPED else f"option ({callback.origin})"


def replaced_methods(trainer: BaseTrainer) -> Iterator[tuple[str, str]]:
    """Yield name and ``Class.method()`` of methods of the user's trainer and model that replace Eyas' own."""
    for name, fn in overrides(type(trainer)).items():
        yield name, f"{fn.__qualname__}()"
    for name, fn in overrides(type(unwrap_model(trainer.model))).items():
        if name != "__init__" and not fn.__module__.startswith("torch."):
            yield name, f"{fn.__qualname__}()"


# -- stages ------------------------------------------------------------------------------------------------------------
def stage_rows(trainer: BaseTrainer) -> list[list[object]]:
    """Return one row for each stage of the run, as ``STAGE_HEADER`` names the columns."""
    rows: list[list[object]] = []
    for name, start, end in stages(trainer):
        low, high = start / trainer.epochs, min(end / trainer.epochs, 1.0)
        filled = range(math.floor(low * BAR), math.ceil(high * BAR))
        bar = "".join("#" if i in filled else "." for i in range(BAR))
        rows.append([name, f"{start:.3g} - {min(end, trainer.epochs):.3g}", f"{low:.0%} - {high:.0%}", bar])
    return rows


def stages(trainer: BaseTrainer) -> Iterator[tuple[str, float, float]]:
    """Yield (name, start, end) of what is not the same all through the run, in epochs that lie behind."""
    plan = trainer.plan
    if plan.warmup_batches:
        yield "warm-up", 0, plan.warmup_batches / plan.batches
    if trainer.ema:
        # After 3 tau the average's decay is within 5 % of its limit.
        yield "average takes hold", 0, 3 * plan.ema_tau * trainer.epochs / plan.updates
    for freeze in (callback for callback in trainer.callbacks.callbacks if isinstance(callback, Freeze)):
        for phase in freeze.resolved:
            yield f"{phase.what} frozen", float(phase.start), float(phase.end() or trainer.epochs)
    closing = trainer.closing_epochs()
    if names := trainer.closing_augmentation():
        yield f"with {', '.join(names)}", 0, trainer.epochs - closing
        yield f"without {', '.join(names)}", trainer.epochs - closing, trainer.epochs


# -- groups ------------------------------------------------------------------------------------------------------------
def group_rows(trainer: BaseTrainer) -> list[list[object]]:
    """Return one row for each group of the real optimizer, as ``GROUP_HEADER`` names the columns."""
    clip, average = clip_text(trainer), f"{trainer.ema.decay_limit:g}" if trainer.ema else "off"
    return [
        [
            group.get("name", f"group{number}"),
            len(group["params"]),
            sum(parameter.numel() for parameter in group["params"]),
            rate_text(trainer, group),
            f"{group.get('weight_decay', 0.0):.3g}",
            frozen_text(trainer, group["params"]),
            clip,
            average,
        ]
        for number, group in enumerate(trainer.optimizer.param_groups)
    ]


def rate_text(trainer: BaseTrainer, group: dict[str, Any]) -> str:
    """Say how a group's rate runs, such as ``0 -> 0.004 -> 4e-05 linear``: at the start, at its height, at the end."""
    base = group["initial_lr"]
    for callback in trainer.callbacks.callbacks:
        if callback.decides == SCHEDULE:
            return f"{base:.3g} x {callback.describe(trainer).get('schedule', type(callback).__name__)}"
    own = overrides(type(trainer)).get("lf")
    name = f"{own.__qualname__}()" if own is not None else trainer.plan.schedule
    factors = [trainer.lf(percent / 100) for percent in range(101)]
    points = [base * factors[0], base * max(factors), base * factors[-1]]
    if trainer.plan.warmup_batches:
        points[0] = warm_start(trainer) if group.get("param_group") == "bias" else 0.0
    texts = [f"{point:.3g}" for point in points]
    return f"{' -> '.join(text for i, text in enumerate(texts) if text not in texts[:i])} {name}"


def warm_start(trainer: BaseTrainer) -> float:
    """Return the rate of biases where the warm-up starts."""
    typed = trainer.args.warmup_bias_lr
    return trainer.plan.warmup_bias_lr if typed is None else typed


def frozen_text(trainer: BaseTrainer, parameters: list[nn.Parameter]) -> str:
    """Say what of a group is frozen, and until when; a dash for nothing."""
    model, ids = unwrap_model(trainer.model), {id(parameter) for parameter in parameters}
    here = {name for name, parameter in model.named_parameters() if id(parameter) in ids}
    texts: list[str] = []
    planned: set[str] = set()
    for freeze in (callback for callback in trainer.callbacks.callbacks if isinstance(callback, Freeze)):
        for number, phase in enumerate(freeze.resolved):
            names = here & set(freeze.names_of(model, [number]))
            planned |= names
            if names:
                texts.append(how_many(len(names), len(here)) + phase.text())
    still = [n for n, p in model.named_parameters() if n in here and n not in planned and not p.requires_grad]
    if still:
        texts.append(f"{how_many(len(still), len(here))} (requires_grad=False)")
    return ", ".join(texts) or "-"


def how_many(part: int, whole: int) -> str:
    """Say how many tensors of a group are meant."""
    return "all" if part == whole else f"{part} of {whole}"


def clip_text(trainer: BaseTrainer) -> str:
    """Say how gradients are clipped."""
    step = overrides(type(trainer)).get("optimizer_step")
    if step is not None and not {"optimizer_step", "adjust_gradients"} & conflicts.names_in(step):
        return f"{step.__qualname__}()"
    texts = [
        f"{name.removeprefix('clipping by ')} {value}"
        for callback in trainer.callbacks.callbacks
        for name, value in callback.describe(trainer).items()
        if name.startswith("clipping by ")
    ]
    return ", ".join(texts) or "off"
