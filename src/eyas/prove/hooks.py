"""Was every hook called that somebody hangs in? And which method of the user's leaves one out?"""

from __future__ import annotations

from collections.abc import Iterable

from eyas.callbacks.base import UNASKED
from eyas.nn.unwrap import unwrap_model
from eyas.run.overrides import is_stock, overrides
from eyas.run.protocol import Component, Run

# Hooks that have fired by the end of the first validation -> methods of the trainer that call them, nearest first.
STEP = ("train_batch", "train_epoch", "run_epoch", "fit")
DUE: dict[str, tuple[str, ...]] = {
    "on_pretrain_routine_start": ("prepare", "fit"),
    "adjust_data": ("find_data", "setup", "prepare", "fit"),
    "adjust_model": ("setup", "prepare", "fit"),
    "adjust_param_groups": ("build_optimizer", "setup_optimizer", "setup"),
    "on_pretrain_routine_end": ("prepare", "fit"),
    "on_train_start": ("fit",),
    "on_train_epoch_start": ("start_epoch_here", "train_epoch", "run_epoch", "fit"),
    "on_train_batch_start": STEP,
    "adjust_schedule": ("set_rates", *STEP),
    "adjust_rates": ("set_rates", *STEP),
    "adjust_batch": STEP,
    "adjust_loss": STEP,
    "adjust_gradients": ("optimizer_step", *STEP),
    "on_train_batch_end": STEP,
    "on_train_epoch_end": ("train_epoch", "run_epoch", "fit"),
    "on_val_start": ("validate_epoch", "run_epoch", "fit"),
    "adjust_metrics": ("validate_epoch", "run_epoch", "fit"),
    "adjust_fitness": ("judge", "validate_epoch", "run_epoch", "fit"),
    "on_val_end": ("validate_epoch", "run_epoch", "fit"),
}
VALIDATION = ("on_val_start", "adjust_metrics", "adjust_fitness", "on_val_end")
# Those that fire only once: who registers after that is never called.
ONCE = (
    "on_pretrain_routine_start",
    "adjust_data",
    "adjust_model",
    "adjust_param_groups",
    "on_pretrain_routine_end",
    "on_train_start",
)
ANY_HOOK = ("run_callbacks", "adjust")


def hook_calls(trainer: Run) -> dict[str, int]:
    """Return "receiver.hook" -> calls in this process, 0 included, of everything that is registered."""
    calls = trainer.callbacks.calls
    return {f"{receiver}.{hook}": calls.get((receiver, hook), 0) for receiver, hook in trainer.callbacks.registered()}


def hook_table(calls: list[dict[str, int]]) -> dict[str, list[int | None]]:
    """Return "receiver.hook" -> calls on each rank."""
    names = dict.fromkeys(name for rank in calls for name in rank)
    return {name: [rank.get(name) for rank in calls] for name in names}


def missing_calls(trainer: Run, calls: list[dict[str, int]]) -> list[str]:
    """Return a line for every hook that should have run by now on some rank and has not."""
    callbacks, lines = trainer.callbacks, []
    by_key = callbacks.by_key()
    for receiver, hook in callbacks.registered():
        callback = by_key.get(receiver)
        waiting = (receiver, hook) in callbacks.late and hook not in ONCE
        if hook not in DUE or waiting or (callback is not None and not asked_for(callback, hook)):
            continue
        ranks = calls[:1] if callback is not None and callback.on == "main" else calls
        idle = [number for number, rank in enumerate(ranks) if not rank.get(f"{receiver}.{hook}")]
        if idle:
            lines.append(uncalled(trainer, receiver, hook, idle))
    return lines


def without_validation(trainer: Run) -> list[str]:
    """Return a line for everyone who waits for a validation in a run that has nothing to measure."""
    if trainer.validator is not None:
        return []
    by_key = trainer.callbacks.by_key()
    waiting = {
        receiver: hook
        for receiver, hook in trainer.callbacks.registered()
        if hook in VALIDATION and (receiver not in by_key or asked_for(by_key[receiver], hook))
    }
    return [
        f"{receiver}: {hook} is never called: val=False, and the data has no split val. Give it one, or "
        "val_fraction=0.1 to hold out a tenth of the training images."
        for receiver, hook in waiting.items()
    ]


def uncalled(trainer: Run, receiver: str, hook: str, ranks: list[int]) -> str:
    """Say which hook was not called where, and who probably skipped it."""
    where = f" on rank {', '.join(map(str, ranks))}" if trainer.world_size else ""
    line = f"{receiver.rpartition('.')[0]}: {hook} was registered and has not been called{where}: "
    if (receiver, hook) in trainer.callbacks.late:
        return line + "it was added after the hook had fired, which happens once. Add it before train()."
    guilty = overriding(trainer, (*DUE[hook], *ANY_HOOK))
    call = f"self.adjust({hook!r}, ...)" if hook.startswith("adjust_") else f"self.run_callbacks({hook!r})"
    if guilty is None:
        return line + f"nothing called {call}."
    return line + f"{guilty} probably leaves out {call}. Call it there, or super()."


def asked_for(callback: Component, hook: str) -> bool:
    """Whether a person asked for a callback and it needs a hook: not stock reports and the components of defaults."""
    return callback.origin not in UNASKED and callback.needs(hook)


def overriding(run: Run, methods: Iterable[str]) -> str | None:
    """Return the first of these methods that the user's trainer overrides, or how the user's model makes its loss."""
    own = overrides(type(run))
    for name in methods:
        if name in own:
            return f"{own[name].__qualname__}()"
    init = getattr(type(unwrap_model(run.model)), "init_criterion", None)
    if "setup_criterion" in methods and init is not None and not is_stock(init):
        return f"{init.__qualname__}()"
    return None
