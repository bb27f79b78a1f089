"""What is about to be trained, as three tables: decisions with who made them, stages of the run, parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from eyas.callbacks.base import ADJUSTERS
from eyas.config import TrainOptions, describe
from eyas.config.options import TYPED
from eyas.log import print_table
from eyas.nn.unwrap import unwrap_model
from eyas.run.overrides import overrides
from eyas.run.protocol import Component, Run, Stage
from eyas.run.reading import read

DECISION_HEADER = ("plan", "value", "why")
STAGE_HEADER = ("stage", "epochs", "share of the run", "timeline")
GROUP_HEADER = ("group", "tensors", "parameters", "learning rate", "decay", "frozen", "clip", "EMA")
# Columns that a narrow terminal goes without, the first of them first.
DECISION_LEAST = ("why",)
STAGE_LEAST = ("timeline", "share of the run")
GROUP_LEAST = ("EMA", "clip", "tensors", "decay", "frozen", "parameters")
BAR = 20  # characters of a timeline
Row = tuple[str, str, str]


def print_overview(run: Run) -> None:
    """Print the tables of a training that is set up."""
    print_table("", list(DECISION_HEADER), [list(row) for row in decision_rows(run)], DECISION_LEAST)
    print_table("", list(STAGE_HEADER), stage_rows(run), STAGE_LEAST)
    print_table("", list(GROUP_HEADER), group_rows(run), GROUP_LEAST)


# -- decisions ---------------------------------------------------------------------------------------------------------
def decision_rows(run: Run) -> list[Row]:
    """Return (decision, value, who made it): the plan's, other options of the user, components, overrides.

    Who is the default, the recipe, ``option (source)``, ``component X`` or ``override``; a component's decision takes
    the place of the plan's of the same name.
    """
    rows: dict[str, tuple[object, str]] = {}
    for choice in run.plan.decisions:
        rows[choice.name] = choice.value, f"option ({choice.by})" if choice.by in TYPED else choice.by
    owned = {name for component in run.callbacks.callbacks for name in component.options}
    for name in other_options(run.args):
        if name not in owned:
            rows.setdefault(name, (run.args.get(name), f"option ({run.args.source(name)})"))
    for component in run.callbacks.callbacks:
        rows |= {name: (value, maker(component)) for name, value in decided_by(component, run).items()}
    rows |= {name: (text, "override") for name, text in replaced_methods(run)}
    return [
        (name, f"{value:g}" if isinstance(value, float) else str(value), who) for name, (value, who) in rows.items()
    ]


def other_options(args: TrainOptions) -> list[str]:
    """Return options that a person changed and that are about the training, not about its place or its pictures."""
    return [name for name, _ in args if args.is_changed(name) and describe(name).group != "run"]


def decided_by(component: Component, run: Run) -> dict[str, object]:
    """Return a component's decisions; of one that tells none, the adjusters by which it can change the training."""
    told = component.describe(run)
    return told or {a: f"{type(component).__name__}.{a}()" for a in ADJUSTERS if component.adjusts(a)}


def maker(component: Component) -> str:
    """Say who asked for a component."""
    if component.origin == "component":
        return f"component {type(component).__name__}"
    return component.origin if component.origin not in TYPED else f"option ({component.origin})"


def replaced_methods(run: Run) -> Iterator[tuple[str, str]]:
    """Yield name and ``Class.method()`` of methods of the user's trainer and model that replace Eyas' own."""
    for name, fn in overrides(type(run)).items():
        yield name, f"{fn.__qualname__}()"
    for name, fn in overrides(type(unwrap_model(run.model))).items():
        if name != "__init__":
            yield name, f"{fn.__qualname__}()"


# -- stages ------------------------------------------------------------------------------------------------------------
def stage_rows(run: Run) -> list[list[object]]:
    """Return one row for each stage of the run, as ``STAGE_HEADER`` names the columns."""
    rows: list[list[object]] = []
    for name, start, end in stages(run):
        low, high = start / run.epochs, min(end / run.epochs, 1.0)
        filled = range(math.floor(low * BAR), math.ceil(high * BAR))
        bar = "".join("#" if i in filled else "." for i in range(BAR))
        rows.append([name, f"{start:.3g} - {min(end, run.epochs):.3g}", f"{low:.0%} - {high:.0%}", bar])
    return rows


def stages(run: Run) -> Iterator[Stage]:
    """Yield what is not the same all through the run: the trainer's own stages and those of every component."""
    plan = run.plan
    if plan.warmup_batches:
        yield Stage("warm-up", 0, plan.warmup_batches / plan.batches)
    if run.ema and plan.ema_share is None:
        # After 3 tau the average's decay is within 5 % of its limit.
        yield Stage("average takes hold", 0, 3 * plan.ema_tau * run.epochs / plan.updates)
    for component in run.callbacks.callbacks:
        yield from component.stages(run)
    closing = run.epochs - run.closing_epochs()
    if names := run.closing_augmentation():
        yield Stage(f"with {', '.join(names)}", 0, closing)
        yield Stage(f"without {', '.join(names)}", closing, run.epochs)


# -- groups ------------------------------------------------------------------------------------------------------------
def group_rows(run: Run) -> list[list[object]]:
    """Return one row for each group of the real optimizer, as ``GROUP_HEADER`` names the columns."""
    clip, average = clip_text(run), run.ema.summary() if run.ema else "off"
    return [
        [
            group.get("name", f"group{number}"),
            len(group["params"]),
            sum(parameter.numel() for parameter in group["params"]),
            rate_text(run, group),
            f"{group.get('weight_decay', 0.0):.3g}",
            frozen_text(run, group["params"]),
            clip,
            average,
        ]
        for number, group in enumerate(run.optimizer.param_groups)
    ]


def rate_text(run: Run, group: dict[str, Any]) -> str:
    """Say how a group's rate runs, such as ``0 -> 0.004 -> 4e-05 linear``: at the start, at its height, at the end."""
    base = group["initial_lr"]
    for component in run.callbacks.callbacks:
        if text := component.schedule_text(run):
            return f"{base:.3g} x {text}"
    own = overrides(type(run)).get("lf")
    name = f"{own.__qualname__}()" if own is not None else run.plan.schedule
    factors = [run.lf(percent / 100) for percent in range(101)]
    points = [base * factors[0], base * max(factors), base * factors[-1]]
    if run.plan.warmup_batches:
        points[0] = warm_start(run) if group.get("param_group") == "bias" else 0.0
    texts = [f"{point:.3g}" for point in points]
    return f"{' -> '.join(text for i, text in enumerate(texts) if text not in texts[:i])} {name}"


def warm_start(run: Run) -> float:
    """Return the rate of biases where the warm-up starts."""
    typed = run.args.warmup_bias_lr
    return run.plan.warmup_bias_lr if typed is None else typed


def frozen_text(run: Run, parameters: list[nn.Parameter]) -> str:
    """Say what of a group is frozen, and until when; a dash for nothing."""
    named, ids = list(unwrap_model(run.model).named_parameters()), {id(parameter) for parameter in parameters}
    here = {name for name, parameter in named if id(parameter) in ids}
    spans = [span for component in run.callbacks.callbacks for span in component.frozen_spans(run)]
    texts = [how_many(len(names), len(here)) + span.when for span in spans if (names := here & span.names)]
    planned = frozenset[str]().union(*(span.names for span in spans))
    still = [name for name, p in named if name in here and name not in planned and not p.requires_grad]
    if still:
        texts.append(f"{how_many(len(still), len(here))} (requires_grad=False)")
    return ", ".join(texts) or "-"


def how_many(part: int, whole: int) -> str:
    """Say how many tensors of a group are meant."""
    return "all" if part == whole else f"{part} of {whole}"


def clip_text(run: Run) -> str:
    """Say how gradients are clipped."""
    step = overrides(type(run)).get("optimizer_step")
    if step is not None:
        reading = read(type(run), step)
        if "optimizer_step" not in reading.stock and "adjust_gradients" not in reading.adjusters:
            return f"{step.__qualname__}()"
    texts = [text for component in run.callbacks.callbacks if (text := component.clip_text(run))]
    return ", ".join(texts) or "off"
