"""The learning-rate schedule: any function of progress, any scheduler of torch.

What: gives the factor on every group's own base rate; ratios between groups are kept and the warm-up comes on top.
When: asked before every batch; a torch scheduler moves on after each optimizer step, epoch or validation.
Default: a line from 1 to ``lrf`` over the run.
Hazards: rates in a scheduler's arguments (``eta_min``, ``max_lr``) are shares of the base rate, not rates; a scheduler
with a length of its own does not follow a run that is made longer. Missing lengths are filled in from the plan.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from eyas.callbacks.base import Callback, Decision, StockCallback
from eyas.callbacks.criterion import Criterion, Function
from eyas.config.errors import refuse_unknown
from eyas.names import did_you_mean
from eyas.run.protocol import Run
from eyas.types import Progress

if TYPE_CHECKING:
    from eyas.config import TrainOptions

PERIODS = ("step", "epoch", "val")
TINY = 1e-9  # below zero by rounding, as a recursive cosine ends


def usable_factor(factor: Any, source: str) -> float:
    """Return a factor on the learning rate.

    Raises:
        ValueError: not a finite number >= 0.
    """
    try:
        value = float(factor)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} gave {factor!r}, which is no factor on the learning rate.") from error
    if not math.isfinite(value) or value < -TINY:
        raise ValueError(f"{source} gave {value}; a factor on the learning rate is finite and not negative.")
    return max(value, 0.0)


class Schedule(Callback):
    """Let a function of progress be the schedule.

    Args:
        fn: ``fn(progress) -> factor`` on all base rates, 1 for the base rate itself; ``progress`` is an
            ``eyas.types.Progress``: ``fraction`` (0 to 1), ``epoch``, ``epochs``, ``step``, ``steps``, ``batches``.
    """

    decides = Decision.SCHEDULE
    options = ("schedule", "cos_lr", "lrf")

    def __init__(self, fn: Callable[[Progress], float]) -> None:
        if isinstance(fn, type) or not callable(fn):
            raise ValueError(f"Schedule takes a function of progress, got {fn!r}.")
        self.fn = fn
        self.name = getattr(fn, "__name__", type(fn).__name__)

    def settings(self) -> dict[str, Any]:
        return {"function": getattr(self.fn, "__qualname__", type(self.fn).__name__)}

    def adjust_schedule(self, trainer: Run, multiplier: float) -> float:
        return usable_factor(self.fn(trainer.progress()), f"Schedule({self.name})")

    def describe(self, trainer: Run) -> dict[str, object]:
        return {"schedule": f"{self.name}(progress)"}


class TorchSchedule(StockCallback):
    """Let a scheduler of torch be the schedule.

    It drives an optimizer of its own whose rate starts at 1, so that what it makes of that rate is the factor.
    Arguments that say how long the run is (``T_max``, ``total_steps``) are filled in where they are missing, ``max_lr``
    with 1; momentum is left alone.

    Args:
        scheduler: name of a class in ``torch.optim.lr_scheduler``, such a class, or ``fn(optimizer) -> scheduler``.
        per: ``"step"`` (of the optimizer), ``"epoch"`` or ``"val"``: what it moves on after. None takes val for
            ``ReduceLROnPlateau``, step for all others.
        metric: what a plateau is looked for in: key, short name or function, as for `BestBy`; None takes the fitness,
            and then ``threshold`` is absolute: the fitness of a "min" criterion is negative, where shares fail. A
            validation without a finite value is no move.
        **kwargs: arguments of the scheduler.
    """

    decides = Decision.SCHEDULE
    options = ("schedule", "cos_lr", "lrf")

    def __init__(
        self,
        scheduler: str | type[LRScheduler] | Callable[[Optimizer], LRScheduler],
        per: str | None = None,
        metric: str | Function | None = None,
        **kwargs: Any,
    ) -> None:
        factory = scheduler_class(scheduler) if isinstance(scheduler, str) else scheduler
        if not callable(factory):
            raise ValueError(f"TorchSchedule takes a name, a class or a function of an optimizer, got {scheduler!r}.")
        self.factory: Callable[..., LRScheduler] = factory
        self.name = getattr(factory, "__name__", type(factory).__name__)
        self.is_class = isinstance(factory, type)
        on_plateau = isinstance(factory, type) and issubclass(factory, ReduceLROnPlateau)
        self.per = per or ("val" if on_plateau else "step")
        if self.per not in PERIODS:
            raise ValueError(f"{self.name}: per={per!r} must be one of {', '.join(PERIODS)}.")
        if kwargs and not self.is_class:
            raise ValueError(f"{self.name} builds its scheduler itself; give it {', '.join(kwargs)} there.")
        if metric is not None and self.is_class and not on_plateau:
            raise ValueError(f"{self.name} looks at no metric; leave metric={metric!r} out.")
        if on_plateau and self.per != "val":
            raise ValueError(f"{self.name} looks at a metric, so it moves on per validation: leave per={per!r} out.")
        if self.is_class:
            known = tuple(name for name in parameters(factory) if name not in ("optimizer", "last_epoch"))
            refuse_unknown(kwargs, known, self.name)
        self.kwargs = dict(kwargs)
        self.criterion = Criterion(
            metric if metric is not None else "fitness", kwargs.get("mode") if on_plateau else None
        )
        if on_plateau:
            self.kwargs.setdefault("mode", self.criterion.mode)
            if self.criterion.metric == "fitness":
                self.kwargs.setdefault("threshold_mode", "abs")
        self.moves = 0
        self.length = 0  # moves in the whole run; 0 until it is known
        self.values: list[float] = []  # what a plateau was looked for in, one per move
        self.factors: list[float] = []  # first and last
        if self.is_class:
            self.build(length=1000)  # a wrong argument is found before any data is read

    @classmethod
    def from_options(cls, options: TrainOptions) -> TorchSchedule | None:
        """Return the component of a mapping ``schedule``; names such as "cosine" need none."""
        if isinstance(options.schedule, str):
            return None
        wanted = dict(options.schedule)
        return cls(wanted.pop("name"), **wanted)

    # -- building ------------------------------------------------------------------------------------------------------
    def build(self, length: int) -> tuple[Optimizer, LRScheduler]:
        """Return an optimizer of one parameter at rate 1 and the scheduler on it.

        Args:
            length: moves in the whole run.

        Raises:
            ValueError: a required argument is missing, or torch refuses one.
        """
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        arguments = filled(self.factory, self.kwargs, length) if self.is_class else {}
        try:
            scheduler = self.factory(optimizer, **arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name} cannot be built: {error}") from error
        if not isinstance(scheduler, LRScheduler):
            raise ValueError(f"{self.name} returned {scheduler!r}, which is no scheduler of torch.")
        return optimizer, scheduler

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Build the scheduler, and bring it to where a resumed run stands by making the same moves again."""
        if not self.length or trainer.args.source("epochs") == "override":  # a `time` budget estimates epochs anew
            self.length = moves_of_run(trainer, self.per)
        self.optimizer, self.scheduler = self.build(self.length)
        self.optimizer.step()  # torch warns of schedulers that move before their optimizer
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if self.per != "val":
                raise ValueError(f"{self.name} looks at a metric, so it moves on per validation: give per='val'.")
            self.criterion.resolve(trainer, "schedule")
        total = self.scheduler.total_steps if isinstance(self.scheduler, OneCycleLR) else math.inf
        if total < self.length and not trainer.args.time:
            raise ValueError(
                f"{self.name} ends after {total} moves and the run makes {self.length} "
                f"(per {self.per}); leave total_steps out to follow the run."
            )
        done, values = self.moves, self.values
        self.moves, self.values = 0, []
        for i in range(done):
            self.advance(values[i] if values else math.nan)

    # -- moving on -----------------------------------------------------------------------------------------------------
    def adjust_schedule(self, trainer: Run, multiplier: float) -> float:
        factor = usable_factor(self.optimizer.param_groups[0]["lr"], self.name)
        self.factors = [*self.factors[:1], factor]
        return factor

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        return self.criterion.add_to(trainer, metrics)

    def on_train_batch_end(self, trainer: Run) -> None:
        if self.per == "step" and trainer.step_due():
            self.advance()

    def on_train_epoch_end(self, trainer: Run) -> None:
        if self.per == "epoch":
            self.advance()

    def on_val_end(self, trainer: Run) -> None:
        if self.per != "val":
            return
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.advance()
            return
        value = self.criterion.value(trainer, trainer.fitness, "schedule")
        if math.isfinite(value):  # torch would count nan as a validation without a gain
            self.advance(value)

    @property
    def last_move(self) -> float:
        """After how many moves the scheduler has reached its end; infinite if it has none."""
        if self.is_class and follows_run(self.factory, self.kwargs):
            return self.length - 1
        return self.scheduler.total_steps - 1 if isinstance(self.scheduler, OneCycleLR) else math.inf

    def advance(self, value: float = math.nan) -> None:
        """Move on by one; a schedule that has an end holds its last value in a run that lasts longer."""
        if self.moves >= self.last_move:
            return
        self.moves += 1
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.values.append(value)
            self.scheduler.step(value)
        else:
            self.scheduler.step()

    # -- what it decided -----------------------------------------------------------------------------------------------
    def describe(self, trainer: Run) -> dict[str, object]:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        on = f" of {self.criterion}" if "mode" in self.kwargs and self.per == "val" else ""
        return {"schedule": f"{self.name}({arguments}) per {self.per}{on}"}

    def witness(self, trainer: Run) -> dict[str, object]:
        if not self.factors:
            return {}
        factors = {"first": self.factors[0], "last": self.factors[-1]}
        return {"schedule": {"name": self.name, "per": self.per, "moves": self.moves, **factors}}

    def state_dict(self) -> dict[str, Any]:
        """Return the moves made; a scheduler's own state may hold functions, and repeating its moves is as exact."""
        moves = {"moves": self.moves, "length": self.length, "values": list(self.values)}
        return {"name": self.name, "per": self.per, **moves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the moves; they are made again once the scheduler is built.

        Raises:
            ValueError: the run was started with another scheduler.
        """
        if (state["name"], state["per"]) != (self.name, self.per):
            raise ValueError(
                f"schedule: the run was started with {state['name']} per {state['per']}, and cannot go on with "
                f"{self.name} per {self.per}."
            )
        self.moves, self.values = state["moves"], list(state["values"])
        self.length = state.get("length", 0)


def scheduler_class(name: str) -> type[LRScheduler]:
    """Return a scheduler of torch by the name of its class.

    Raises:
        ValueError: no such scheduler; names the nearest one.
    """
    known = {
        key: value
        for key, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, LRScheduler) and value is not LRScheduler and key[0] != "_"
    }
    if name in known:
        return known[name]
    hint = did_you_mean(name, known, cutoff=0.4)
    raise ValueError(f"torch has no scheduler {name!r}.{hint} Schedulers: {', '.join(sorted(known))}.")


def parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a scheduler's class by name."""
    return dict(inspect.signature(factory).parameters)


def length_argument(factory: Callable[..., Any], given: dict[str, Any]) -> str | None:
    """Return the argument that must say how long the run is and was not given, or None."""
    if factory is OneCycleLR:
        return None if given.keys() & {"total_steps", "epochs"} else "total_steps"
    known = parameters(factory)
    return next((n for n in ("T_max", "total_steps") if n in known and is_missing(known[n], given)), None)


def follows_run(factory: Callable[..., Any], given: dict[str, Any]) -> bool:
    """Whether a scheduler's length is that of the run."""
    return length_argument(factory, given) is not None


def is_missing(parameter: inspect.Parameter, given: dict[str, Any]) -> bool:
    """Whether an argument is required and was not given."""
    return parameter.default is parameter.empty and parameter.name not in given


def filled(factory: Callable[..., Any], given: dict[str, Any], length: int) -> dict[str, Any]:
    """Return arguments with what follows from the run: its length, the base rate as the peak, momentum left alone."""
    known, arguments = parameters(factory), dict(given)
    name = length_argument(factory, given)
    if name is not None:
        arguments[name] = length
    if "max_lr" in known and is_missing(known["max_lr"], given):
        arguments["max_lr"] = 1.0
    if "cycle_momentum" in known:
        arguments["cycle_momentum"] = False
    return arguments


def moves_of_run(trainer: Run, per: str) -> int:
    """Return how many moves the whole run makes."""
    if per == "step":
        return trainer.epochs * math.ceil(trainer.plan.batches / trainer.plan.accumulate)
    if per == "epoch":
        return trainer.epochs
    return math.ceil(trainer.epochs / trainer.args.val_every) if trainer.args.val else 1
