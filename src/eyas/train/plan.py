"""What the options mean for this run: derived once, frozen, printed and saved as ``plan.json``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace

from eyas.config import TrainOptions
from eyas.data.index import ImageIndex
from eyas.optim.optimizers import optimizer_class
from eyas.recipes import Fitted, OptimizerChoice, Recipe, Situation
from eyas.run.plan import Choice, Plan

# Batches from which compiling for one size of images is taken to pay on a GPU: an estimate, about two minutes against
# 12 ms a batch. On two cores it does not: 339 s for YOLO26n at 128 px, and 1.13 times the speed.
COMPILING_PAYS = 10_000


class _Choices:
    """Takes the user's value where one was typed, else the automatic one, and remembers who won."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.decisions: list[Choice] = []

    def take(self, name: str, automatic: object, why: str) -> object:
        typed = self.options.is_typed(name) and self.options.get(name) is not None
        value = self.options.get(name) if typed else automatic
        self.note(name, value, self.options.source(name) if typed else why)
        return value

    def take_number(self, name: str, automatic: float, why: str) -> float:
        return float(self.take(name, automatic, why))  # type: ignore[arg-type]  # the option's type is a number

    def take_whole(self, name: str, automatic: int, why: str) -> int:
        return int(self.take(name, automatic, why))  # type: ignore[call-overload]  # the option's type is a whole number

    def note(self, name: str, value: object, why: str) -> None:
        self.decisions.append(Choice(name, value, why))


def automatic_epochs(recipe: Recipe, images: int, imgsz: int, batch: int, on_cpu: bool) -> tuple[int, str]:
    """Return a run length and its reason: the recipe's on an accelerator, on a CPU what work and steps suit it."""
    if not on_cpu:
        return recipe.epochs, "recipe"
    affordable = math.floor(recipe.cpu_megapixels / (images * imgsz * imgsz / 1e6))
    enough = math.ceil(recipe.cpu_steps / math.ceil(images / batch))
    epochs = min(max(min(affordable, enough), recipe.min_epochs), recipe.epochs)
    if enough < affordable:
        return epochs, f"auto: about {recipe.cpu_steps} steps suit a CPU"
    return epochs, f"auto: about {recipe.cpu_megapixels:g} megapixels of training suit a CPU"


def accumulation(options: TrainOptions, recipe: Recipe, batch: int, batches: int) -> tuple[int, str]:
    """Return passes per optimizer step; a short run is not starved of steps to reach ``nbs`` (spec core I.1)."""
    nominal = max(round((options.nbs or recipe.nbs) / batch), 1)
    if options.is_typed("nbs"):
        return nominal, f"nbs={options.nbs} ({options.source('nbs')})"
    allowed = min(max(batches // recipe.min_updates, 1), nominal)
    if allowed < nominal:
        return allowed, f"auto: {nominal} would leave only {batches // nominal} steps in the run"
    return nominal, f"auto: towards {recipe.nbs} images per step"


def choose_optimizer(options: TrainOptions, recipe: Recipe, updates: int) -> tuple[OptimizerChoice, str]:
    """Return the optimizer to use and why; for a named one, the rate that suits its kind."""
    if options.optimizer.lower() == "auto":
        is_long = updates > recipe.long_after
        choice = recipe.long if is_long else recipe.short
        return choice, f"auto: {updates} steps, {'more' if is_long else 'not more'} than {recipe.long_after}"
    name = optimizer_class(options.optimizer).__name__
    sgd_like = name in ("SGD", "MuSGD", "ASGD")
    base = recipe.long if sgd_like else recipe.short
    warm_bias = 0.1 if name == "SGD" else base.warmup_bias_lr
    rate = recipe.sgd_lr0 if sgd_like else base.lr0
    momentum = 0.937 if name == "SGD" else base.momentum
    chosen = replace(base, name=name, lr0=rate, momentum=momentum, warmup_bias_lr=warm_bias)
    return chosen, options.source("optimizer")


def refuse_void_options(options: TrainOptions, optimizer: str) -> None:
    """Stop if an option was typed that the optimizer cannot use.

    Raises:
        ValueError: names the option and the optimizer.
    """
    accepted = inspect.signature(optimizer_class(optimizer)).parameters
    needs = {"momentum": {"momentum", "betas"}, "warmup_momentum": {"momentum"}, "weight_decay": {"weight_decay"}}
    for name, any_of in needs.items():
        if options.is_typed(name) and not any_of & set(accepted):
            raise ValueError(f"{name}={options.get(name)} has no effect on {optimizer}; leave it out.")


def make_plan(
    options: TrainOptions,
    recipe: Recipe,
    *,
    images: int,
    batch: int,
    batches: int,
    device: str = "cpu",
    sides: int = 1,
    from_scratch: bool = True,
    backbone_alone: bool = False,
    processes: int = 1,
    parameters: float = 1.0,
    classes_kept: float = 1.0,
    fitted: Fitted | None = None,
    closing: Sequence[str] = (),
) -> Plan:
    """Derive the plan of a run.

    Args:
        options: as resolved; typed values always win.
        recipe: automatic choices of the model family.
        images: images of the training split.
        batch: images in a full batch, over all processes.
        batches: batches in one epoch.
        device: kind of device: cpu, cuda or mps.
        sides: how many sizes images have.
        from_scratch: whether the weights are random; given weights are changed more gently.
        backbone_alone: whether only a backbone was given: neck and head have all to learn, and the backbone has a rate
            of its own.
        processes: how many share each batch.
        parameters: of the network, in millions.
        classes_kept: share of the classes that the given weights know.
        fitted: what ``fit_options`` returned.
        closing: what ends with the last part of the run, such as mosaic.

    Raises:
        ValueError: unknown optimizer.
    """
    choices, nbs = _Choices(options), options.nbs or recipe.nbs
    epochs = choices.take_whole("epochs", *automatic_epochs(recipe, images, options.imgsz, batch, device == "cpu"))
    note_batches(choices, epochs, images, batch, batches, processes)
    accumulate = choose_accumulation(choices, recipe, batch, epochs * batches)
    updates = epochs * math.ceil(batches / accumulate)
    choice = choose_usable_optimizer(choices, recipe, updates)
    return Plan(  # what is decided in here is told in this order
        epochs=epochs,
        images=images,
        batch=batch,
        batches=batches,
        accumulate=accumulate,
        updates=updates,
        optimizer=choice.name,
        lr0=choose_rate(
            choices,
            recipe,
            choice,
            batch * accumulate,
            None if from_scratch or backbone_alone else classes_kept,
            parameters,
        ),
        lrf=choices.take_number("lrf", options.lrf, options.source("lrf")),
        momentum=choices.take_number("momentum", choice.momentum, f"for {choice.name}"),
        schedule=choose_schedule(choices),
        warmup_bias_lr=choices.take_number("warmup_bias_lr", choice.warmup_bias_lr, f"for {choice.name}"),
        warmup_batches=choose_warmup(choices, recipe, epochs, batches),
        weight_decay=scaled_decay(choices, nbs, batch * accumulate),
        nbs=nbs,
        ema_share=choose_share(choices, recipe),
        ema_decay=choose_decay(choices, recipe),
        ema_tau=choose_tau(choices, recipe, updates),
        fitted=tell_fitted(choices, fitted or {}),
        close_mosaic=choose_closing(choices, recipe, epochs, closing),
        compile=choose_compiling(choices, epochs * batches, device, sides),
        from_scratch=from_scratch,
        classes_kept=classes_kept,
        decisions=tuple(choices.decisions),
    )


def note_batches(choices: _Choices, epochs: int, images: int, batch: int, batches: int, processes: int) -> None:
    """Tell how the images are cut; see ``make_plan`` for the arguments."""
    options = choices.options
    typed = options.source("batch") if options.is_typed("batch") else "recipe"
    choices.note("batch", batch, "auto: the most that fit the memory, up to nbs" if options.batch == "auto" else typed)
    if processes > 1:
        asked = next((name for name in ("processes", "device") if options.is_typed(name)), None)
        choices.note("processes", processes, options.source(asked) if asked else "launcher")
    choices.note("steps", f"{batches} batches of {batch} per epoch, {epochs * batches} in all", f"{images} images")


def choose_accumulation(choices: _Choices, recipe: Recipe, batch: int, batches: int) -> int:
    """Return passes per optimizer step in a run of so many batches."""
    accumulate, why = accumulation(choices.options, recipe, batch, batches)
    choices.note("accumulate", accumulate, why)
    return accumulate


def choose_usable_optimizer(choices: _Choices, recipe: Recipe, updates: int) -> OptimizerChoice:
    """Return the optimizer of a run of so many steps.

    Raises:
        ValueError: unknown optimizer, or an option that it cannot use.
    """
    choice, why = choose_optimizer(choices.options, recipe, updates)
    choices.note("optimizer", choice.name, why)
    refuse_void_options(choices.options, choice.name)
    return choice


def choose_rate(
    choices: _Choices, recipe: Recipe, choice: OptimizerChoice, images: int, kept: float | None, parameters: float
) -> float:
    """Return the base rate for steps over so many images; given weights change more gently, the more they know.

    ``kept`` is the share of the classes that a given detector knows, None where none was given.
    """
    rate, why = choice.rate(images, parameters if kept is None else None)
    if kept is not None:
        factor = recipe.fine_tune**kept * recipe.new_classes ** (1 - kept)
        rate, why = rate * factor, f"{why}, x {factor:.3g} for given weights that know {kept:.0%} of the classes"
    return choices.take_number("lr0", rate, why)


def choose_schedule(choices: _Choices) -> str:
    """Return the name of the rate's curve; a torch scheduler is a component that takes over a constant one."""
    options = choices.options
    choices.note("schedule", options.schedule, options.source("cos_lr" if options.cos_lr else "schedule"))
    return options.schedule if isinstance(options.schedule, str) else "constant"


def choose_warmup(choices: _Choices, recipe: Recipe, epochs: int, batches: int) -> int:
    """Return the passes until the rate has reached its schedule.

    Raises:
        ValueError: a typed warm-up outlasts the run.
    """
    automatic = round(min(recipe.warmup_epochs, recipe.warmup_share * epochs), 3)
    warm = choices.take_number("warmup_epochs", automatic, f"auto: at most {recipe.warmup_share:.0%} of the run")
    passes = round(warm * batches)
    if passes >= epochs * batches and choices.options.is_typed("warmup_epochs"):
        raise ValueError(f"warmup_epochs={warm:g} outlasts the run of {epochs} epochs: lr0 would never be reached.")
    return passes


def scaled_decay(choices: _Choices, nbs: int, images: int) -> float:
    """Return the weight decay of one optimizer step over so many images."""
    asked = choices.options.weight_decay
    decay = asked * images / nbs
    choices.note("weight_decay", decay, f"{asked:g} x {images} images per step / {nbs}")
    return decay


def is_exponential(options: TrainOptions) -> bool:
    """Whether the weights' average has a decay of its own: one was asked for."""
    return options.ema_decay is not None or options.ema_tau is not None


def choose_share(choices: _Choices, recipe: Recipe) -> float | None:
    """Return over which share of the run so far weights are averaged; None for an exponential average."""
    if is_exponential(choices.options):
        return None
    why = "auto: the average looks back over this share of the run so far, however long that is"
    return choices.take_number("ema_share", recipe.ema_share, why)


def choose_decay(choices: _Choices, recipe: Recipe) -> float:
    """Return the final decay of an exponential average; told where there is one."""
    if not is_exponential(choices.options):
        return recipe.ema_decay
    return choices.take_number("ema_decay", recipe.ema_decay, "recipe")


def choose_tau(choices: _Choices, recipe: Recipe, updates: int) -> float:
    """Return over how many steps an exponential average takes hold; told where there is one."""
    tau = min(recipe.ema_tau, max(updates * recipe.ema_ramp, 1.0))
    if not is_exponential(choices.options):
        return tau
    return choices.take_number("ema_tau", tau, f"auto: at most {recipe.ema_ramp:.0%} of {updates} steps")


def tell_fitted(choices: _Choices, fitted: Fitted) -> dict[str, object]:
    """Return the options that were fitted to data and length, and tell why."""
    for name, (value, why) in fitted.items():
        choices.note(name, value, why)
    return {name: value for name, (value, _) in fitted.items()}


def told_source(plan: Plan, urls: str, kept: str) -> Plan:
    """Return the plan of a run whose images lie elsewhere, which says so: from where, and what is kept on this host."""
    others = tuple(choice for choice in plan.decisions if choice.name != "data")
    return replace(plan, decisions=(Choice("data", urls, f"stays there; {kept}"), *others))


def choose_closing(choices: _Choices, recipe: Recipe, epochs: int, closing: Sequence[str]) -> int:
    """Return how many last epochs go without mosaic and mixing; told where there is something to end."""
    close = min(recipe.close_mosaic, round(epochs * recipe.close_share))
    if not closing and not choices.options.is_typed("close_mosaic"):
        return close
    return choices.take_whole(
        "close_mosaic", close, f"auto: at most {recipe.close_share:.0%} of the run, without {', '.join(closing)}"
    )


def choose_compiling(choices: _Choices, batches: int, device: str, sides: int) -> bool:
    """Return whether torch.compile takes the network, in a run of so many batches; told where it does."""
    asked = choices.options.compile
    if asked != "auto":
        choices.note("compile", asked, choices.options.source("compile"))
        return asked
    pays = device == "cuda" and batches >= COMPILING_PAYS * sides
    if pays:
        choices.note("compile", True, f"auto: in {batches} batches it makes up for the minutes that it takes")
    return pays


# -- before the plan ---------------------------------------------------------------------------------------------------
def fit_options(
    options: TrainOptions, recipe: Recipe, index: ImageIndex, *, batch: int, on_cpu: bool, from_scratch: bool
) -> Fitted:
    """Return the options of augmentation and loss that nobody typed, as the recipe fits them to data and length.

    A typed ``close_mosaic`` speaks of a mosaic that there is. Under a ``time`` budget the length is an estimate.
    """
    images = len(index)
    epochs = options.epochs or automatic_epochs(recipe, images, options.imgsz, batch, on_cpu)[0]
    situation = Situation(
        epochs=epochs,
        steps=epochs * math.ceil(images / batch),
        images=images,
        names=tuple(index.names.values()),
        objects=len(index.boxes) / images,
        from_scratch=from_scratch,
    )
    decided = {"mosaic"} if options.is_typed("close_mosaic") else set()
    fitted = recipe.fit(situation)
    return {name: how for name, how in fitted.items() if name not in decided and not options.is_typed(name)}


# -- on the way --------------------------------------------------------------------------------------------------------
def images_per_step(options: TrainOptions, recipe: Recipe, on_cpu: bool, processes: int) -> int:
    """Return images per step over all processes: as typed, else what suits the devices."""
    if isinstance(options.batch, int):
        return options.batch
    return max(recipe.cpu_batch, processes) if on_cpu else recipe.batch * processes


def resumed_plan(plan: Plan, epochs: int, batches: int, *, accepted: bool = False) -> Plan:
    """Return the plan of the run that goes on, over more epochs if asked for.

    Args:
        plan: that the run was started with.
        epochs: its length now.
        batches: of one epoch now.
        accepted: whether the data may be others than they were.

    Raises:
        ValueError: the training split has changed.
    """
    if batches != plan.batches and not accepted:
        raise ValueError(
            f"the training split changed since this run was started: {plan.batches} batches per epoch then, "
            f"{batches} now. Restore the data, or start a new run."
        )
    return replace(plan, epochs=epochs, batches=batches)


def epochs_within(hours: float, elapsed: float, done: int) -> int:
    """Return how many epochs fit the budget, from the mean length of those done so far (spec core B.13)."""
    return max(math.ceil(hours * 3600 / (elapsed / done)), done)
