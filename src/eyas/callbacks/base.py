"""The loop, drawn with every hook in its place, and the class whose methods the hooks call.

::

    train()
    ├─ on_pretrain_routine_start
    ├─ setup:  get_dataset · ADJUST_DATA · get_model · set_model_attributes · auto_batch
    │          get_dataloader (build_dataset) · ADJUST_MODEL · plan · build_optimizer
    │          ADJUST_PARAM_GROUPS · EMA · get_validator · resume_training
    ├─ on_pretrain_routine_end
    ├─ on_train_start · plot_training_labels
    ├─ for each epoch
    │   ├─ on_train_epoch_start · progress_string
    │   ├─ for each batch
    │   │   ├─ on_train_batch_start
    │   │   ├─ ADJUST_SCHEDULE · ADJUST_RATES
    │   │   ├─ preprocess_batch · ADJUST_BATCH
    │   │   ├─ forward · ADJUST_LOSS · backward
    │   │   ├─ when a step is due:  optimizer_step · ADJUST_GRADIENTS
    │   │   └─ on_train_batch_end · plot_training_samples
    │   ├─ on_train_epoch_end
    │   ├─ when due:  on_val_start · validate · ADJUST_METRICS · ADJUST_FITNESS · on_val_end
    │   ├─ save_metrics
    │   ├─ when due:  save_model · ADJUST_CHECKPOINT · on_model_save
    │   └─ on_fit_epoch_end
    ├─ final_eval of the best weights · ADJUST_METRICS
    ├─ on_train_end · plot_metrics
    ├─ on_exception, when something was raised
    └─ teardown, always

**Methods** of the trainer decide, **adjusters** (capitals) take a value and return it or another, **events** observe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar

from eyas.names import did_you_mean
from eyas.run.overrides import overrides
from eyas.run.protocol import FrozenSpan, Run, Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eyas.config import TrainOptions
    from eyas.types import Batch

EVENTS = (
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_val_start",
    "on_val_end",
    "on_model_save",
    "on_fit_epoch_end",
    "on_train_end",
    "on_exception",
    "teardown",
)

UNASKED = frozenset({"default", "recipe"})  # origins of components that nobody asked for
ADJUSTERS = (
    "adjust_data",
    "adjust_model",
    "adjust_param_groups",
    "adjust_batch",
    "adjust_loss",
    "adjust_gradients",
    "adjust_schedule",
    "adjust_rates",
    "adjust_metrics",
    "adjust_fitness",
    "adjust_checkpoint",
)

Event = Callable[[Run], object]
Value = TypeVar("Value")


class Decision(StrEnum):
    """What the components of Eyas decide; a component of the user's may decide something else, in words of its own."""

    BATCH_NORM = "batch normalisation over processes"
    BEST = "the best epoch"
    CLASS_WEIGHTS = "class weights"
    CLIP_NORM = "clipping by norm"
    CLIP_VALUE = "clipping by value"
    FREEZING = "freezing"
    IGNORE = "what is ignored"
    RATES = "layer rates"
    SCHEDULE = "the learning-rate schedule"
    STOP = "early stopping"
    TEACHER = "the teacher"


class Callback:
    """Changes or observes a training without subclassing the trainer; override what you need.

    One instance serves one run. Callbacks run on every process; one that writes files asks ``eyas.dist.is_main()``.
    One with state has ``state_dict`` and ``load_state_dict`` so that it survives a resume.

    Attributes:
        decides: the one decision that this component makes, a ``Decision`` or words; two components that make the same
            one are refused. None for those that decide nothing.
        options: names of the options that ask for this component; typed beside an instance of it, they are refused.
        on: ``"all"`` processes, or ``"main"`` for one that only the main process needs, such as a report.
        origin: who asked for it: ``"component"``, or the source of the option (``"default"``, ``"command line"``...).
    """

    decides: str | None = None
    options: tuple[str, ...] = ()
    origin: str = "component"
    on: str = "all"

    # -- adjusters: return the value, or another of the same kind ------------------------------------------------------
    def adjust_data(self, trainer: Run, data: dict[str, Any]) -> dict[str, Any]:
        """Return the checked description of the data (``eyas.data.check_dataset``); nothing has been read by it yet."""
        return data

    def adjust_model(self, trainer: Run, model: nn.Module) -> nn.Module:
        """Return the model to train; it sits on its device and is not wrapped yet."""
        return model

    def adjust_param_groups(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the optimizer's groups; keys ``params, lr, weight_decay, param_group, name``."""
        return groups

    def adjust_batch(self, trainer: Run, batch: Batch) -> Batch:
        """Return the batch as the model will see it: on the device, float images."""
        return batch

    def adjust_loss(self, trainer: Run, loss: Tensor) -> Tensor:
        """Return the scalar that is differentiated."""
        return loss

    def adjust_gradients(self, trainer: Run, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Change ``.grad`` of the parameters in place; gradients are unscaled and complete for this step."""
        return parameters

    def adjust_schedule(self, trainer: Run, multiplier: float) -> float:
        """Return the factor on all base rates at this step, 1 at the start of a usual run; warm-up comes on top."""
        return multiplier

    def adjust_rates(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Change ``lr`` or ``momentum`` of the optimizer's groups for this step; they were just set by the schedule."""
        return groups

    def adjust_metrics(self, trainer: Run, metrics: dict[str, float]) -> dict[str, float]:
        """Return the metrics of this validation; keys added here reach the log, the history and the result."""
        return metrics

    def adjust_fitness(self, trainer: Run, fitness: float) -> float:
        """Return what decides whether this epoch is the best: larger is better. nan stands for none."""
        return fitness

    def adjust_checkpoint(self, trainer: Run, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the checkpoint; tensors and plain values only."""
        return checkpoint

    # -- events: observe, return nothing -------------------------------------------------------------------------------
    def on_pretrain_routine_start(self, trainer: Run) -> None:
        """Before anything is built."""

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Everything is built, and restored when resuming."""

    def on_train_start(self, trainer: Run) -> None:
        """Before the first epoch."""

    def on_train_epoch_start(self, trainer: Run) -> None:
        """``trainer.epoch`` is set and the model is in training mode; a part put into eval mode here stays so."""

    def on_train_batch_start(self, trainer: Run) -> None:
        """Before a batch is prepared."""

    def on_train_batch_end(self, trainer: Run) -> None:
        """After backward, and after the optimizer's step if one was due."""

    def on_train_epoch_end(self, trainer: Run) -> None:
        """After the last batch, before validation."""

    def on_val_start(self, trainer: Run) -> None:
        """Before a validation inside training."""

    def on_val_end(self, trainer: Run) -> None:
        """``trainer.metrics`` and ``trainer.fitness`` are this validation's."""

    def on_model_save(self, trainer: Run) -> None:
        """After checkpoints were written."""

    def on_fit_epoch_end(self, trainer: Run) -> None:
        """The epoch is over: validated, logged and saved."""

    def on_train_end(self, trainer: Run) -> None:
        """After the final evaluation."""

    def on_exception(self, trainer: Run) -> None:
        """Something was raised; ``trainer.exception`` holds it."""

    def teardown(self, trainer: Run) -> None:
        """Always last."""

    # -- what it decided, and what came of it --------------------------------------------------------------------------
    def describe(self, trainer: Run) -> dict[str, object]:
        """Return decisions for the plan, name -> value, once everything is built."""
        return {}

    def needs(self, adjuster: str) -> bool:
        """Whether this component is void when one of its adjusters is never called; some can do without."""
        return True

    def adjusts(self, adjuster: str) -> bool:
        """Whether this component has an adjuster of its own that it cannot do without."""
        return getattr(type(self), adjuster) is not getattr(Callback, adjuster) and self.needs(adjuster)

    def witness(self, trainer: Run) -> dict[str, object]:
        """Return what was really seen of each option in ``options`` so far; one that had no effect is left out.

        Asked after the first validation; plain values only. A typed option without a witness stops the run.
        """
        return {}

    # -- for the tables of a run, asked once everything is built -------------------------------------------------------
    def stages(self, trainer: Run) -> list[Stage]:
        """Return the parts of the run in which this component makes something different."""
        return []

    def frozen_spans(self, trainer: Run) -> list[FrozenSpan]:
        """Return which parameters this component freezes, and when."""
        return []

    def clip_text(self, trainer: Run) -> str | None:
        """Say how this component clips gradients, such as ``norm 10``; None if it does not."""
        return None

    def schedule_text(self, trainer: Run) -> str | None:
        """Say by what this component multiplies the base rates; None if it does not decide their schedule."""
        if self.decides != Decision.SCHEDULE:
            return None
        return str(self.describe(trainer).get("schedule", type(self).__name__))

    # -- for those that choose by a metric -----------------------------------------------------------------------------
    def metric_keys(self, names: Mapping[int, str]) -> list[str]:
        """Return keys that this component is sure to add to the metrics, given the class names by id."""
        return []

    def may_add_metrics(self) -> bool:
        """Whether it may add others, which only the first validation can tell: as any adjuster of a user's may."""
        return "adjust_metrics" in overrides(type(self))

    # -- a rehearsal ---------------------------------------------------------------------------------------------------
    def shorten(self, total: int | None, epochs: int) -> None:
        """Fit what was given in epochs into a rehearsal of ``epochs``; the user's run has ``total``, None if unknown.

        Called before anything is built, on components that no option asked for.
        """

    # -- state ---------------------------------------------------------------------------------------------------------
    def settings(self) -> dict[str, Any]:
        """Return plain values without which a resumed run would be another training; it is refused if they differ."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that a resume needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""


class StockCallback(Callback):
    """A component that options can ask for as well."""

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for, or None."""
        raise NotImplementedError


def check_settings(key: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume with a callback that would train differently.

    Raises:
        ValueError: names what differs.
    """
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        was, is_ = (", ".join(f"{n}={values.get(n)!r}" for n in differing) for values in (before, now))
        raise ValueError(f"{key}: the run was started with {was}, and cannot go on with {is_}. Give the same callback.")


def check_event(event: str) -> str:
    """Return ``event`` if it is one that fires.

    Raises:
        ValueError: unknown event; names the nearest one.
    """
    if event in EVENTS:
        return event
    hint = did_you_mean(event, EVENTS)
    raise ValueError(f"{event!r} is not an event of the trainer.{hint} Events: {', '.join(EVENTS)}.")


class CallbackList:
    """The callbacks and plain functions of one run, in the order they were added.

    Attributes:
        calls: how often each (receiver, hook) ran in this process. A receiver is a callback's class, or a function's
            name, and its number among those of that name.
        fired: hooks that were announced in this process, heard or not.
        late: (receiver, hook) of those that were added after the hook had fired for the first time.
    """

    def __init__(
        self, callbacks: list[Callback] | None = None, functions: dict[str, list[Event]] | None = None
    ) -> None:
        self.callbacks: list[Callback] = []
        self.left: set[str] = set()  # keys of those that only the main process has
        self.functions: dict[str, list[Event]] = {event: [] for event in EVENTS}
        self.calls: dict[tuple[str, str], int] = {}
        self.fired: set[str] = set()
        self.late: set[tuple[str, str]] = set()
        self._keys: tuple[list[Callback], list[str]] = ([], [])
        for callback in callbacks or []:
            self.add(callback)
        for event, fns in (functions or {}).items():
            for fn in fns:
                self.add_function(event, fn)

    def add(self, callback: Callback) -> None:
        """Append a callback; an instance, not a class.

        Raises:
            TypeError: not a ``Callback`` instance.
        """
        if not isinstance(callback, Callback):
            hint = f"{callback.__name__}()" if isinstance(callback, type) else "a subclass of eyas.Callback"
            raise TypeError(f"callbacks takes Callback instances, got {callback!r}; pass {hint}.")
        before = set(self.registered())
        self.callbacks.append(callback)
        self._note_late(before)

    def leave_to_main(self) -> None:
        """Drop what only the main process needs: this is another one."""
        self.left = {key for key, callback in self.by_key().items() if callback.on != "all"}
        self.callbacks = [callback for callback in self.callbacks if callback.on == "all"]

    def add_function(self, event: str, fn: Event) -> None:
        """Register ``fn(trainer)`` for an event; raises ``ValueError`` for an event that never fires."""
        before = set(self.registered())
        self.functions[check_event(event)].append(fn)
        self._note_late(before)

    def fire(self, event: str, trainer: Run) -> None:
        """Tell everyone that ``event`` happened: callbacks first, then plain functions."""
        self.fired.add(event)
        for receiver, method in self._methods(event):
            method(trainer)
            self._count(receiver, event)
        for receiver, fn in self._named_functions(event):
            fn(trainer)
            self._count(receiver, event)

    def adjust(self, adjuster: str, trainer: Run, value: Value) -> Value:
        """Pass ``value`` through every callback's adjuster.

        Raises:
            TypeError: an adjuster returned nothing.
        """
        self.fired.add(adjuster)
        for receiver, method in self._methods(adjuster):
            value = method(trainer, value)
            if value is None:
                name = receiver.rpartition(".")[0]
                raise TypeError(f"{name}.{adjuster}() returned None; return the value, changed or not.")
            self._count(receiver, adjuster)
        return value

    def registered(self) -> list[tuple[str, str]]:
        """Return (receiver, hook) of every hook that somebody has: what ``calls`` must know once all have fired."""
        return [
            (receiver, hook)
            for hook in (*ADJUSTERS, *EVENTS)
            for receiver, _ in (*self._methods(hook), *self._named_functions(hook))
        ]

    def _methods(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Callbacks' own methods for a hook; the empty ones of the base class are neither called nor counted."""
        empty = getattr(Callback, hook)
        methods = ((key, getattr(callback, hook)) for key, callback in zip(self.keys(), self.callbacks, strict=True))
        return [(key, method) for key, method in methods if getattr(method, "__func__", None) is not empty]

    def _named_functions(self, event: str) -> list[tuple[str, Event]]:
        """Plain functions of an event by name, and by order among those of one name."""
        functions = self.functions.get(event, ())
        names = [getattr(fn, "__qualname__", type(fn).__name__) for fn in functions]  # a partial has no name
        keys = (f"{name}.{names[:i].count(name)}" for i, name in enumerate(names))
        return list(zip(keys, functions, strict=True))

    def _note_late(self, before: set[tuple[str, str]]) -> None:
        self.late |= {(receiver, hook) for receiver, hook in self.registered() if hook in self.fired} - before

    def _count(self, receiver: str, hook: str) -> None:
        self.calls[receiver, hook] = self.calls.get((receiver, hook), 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Settings and state of all callbacks, keyed by class name and order."""
        return {key: {"settings": c.settings(), "state": c.state_dict()} for key, c in self.by_key().items()}

    def by_key(self) -> dict[str, Callback]:
        """Callbacks by class name, and by order among those of one class: stock ones may come and go."""
        return dict(zip(self.keys(), self.callbacks, strict=True))

    def keys(self) -> list[str]:
        """Class name and order of every callback, in order; made anew only when the callbacks have changed."""
        known, keys = self._keys
        if len(known) != len(self.callbacks) or any(a is not b for a, b in zip(known, self.callbacks, strict=True)):
            names = [type(callback).__name__ for callback in self.callbacks]
            keys = [f"{name}.{names[:i].count(name)}" for i, name in enumerate(names)]
            self._keys = list(self.callbacks), keys
        return keys

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give every callback its state back; callbacks are matched by class and order.

        Raises:
            ValueError: the run was saved with other callbacks that had settings or state, or with other settings.
        """
        mine = self.by_key()
        lost = [key for key, saved in state.items() if (saved["settings"] or saved["state"]) and key not in mine]
        lost = [key for key in lost if key not in self.left]
        if lost:
            raise ValueError(
                f"the run was started with callbacks that this one lacks: {', '.join(lost)}. Resume it where they are "
                "given: YOLO(last_pt).train(callbacks=[...], resume=True)."
            )
        for key, callback in mine.items():
            if key in state:
                check_settings(key, state[key]["settings"], callback.settings())
                callback.load_state_dict(state[key]["state"])
