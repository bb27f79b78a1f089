"""Proof of effect: what was asked for against what was seen, at the first validation, in ``effects.json``.

A setting that a person changed, a component they asked for and a hook they registered must each leave a witness by
then. One that did not is an error now, after minutes, instead of a riddle after days.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from eyas import dist
from eyas.callbacks.base import UNASKED, Callback
from eyas.callbacks.stock import FIRST, LAST
from eyas.checkpoint import class_name
from eyas.config import TrainOptions
from eyas.files import digest, write_atomic
from eyas.log import print_table
from eyas.nn.unwrap import unwrap_model
from eyas.prove import conflicts
from eyas.prove.witnesses import WITNESSES, Witness
from eyas.report.pictures import Pictures
from eyas.report.progress import ConsoleReport
from eyas.run.overrides import overrides

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

# Hooks that have fired by the end of the first validation -> methods of the trainer that call them, nearest first.
STEP = ("train_batch", "train_epoch", "run_epoch", "fit")
DUE: dict[str, tuple[str, ...]] = {
    "on_pretrain_routine_start": ("prepare", "fit"),
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
# Those that fire only once: who registers after that is never called.
ONCE = ("on_pretrain_routine_start", "adjust_model", "adjust_param_groups", "on_pretrain_routine_end", "on_train_start")
ANY_HOOK = ("run_callbacks", "adjust")


class NoEffectError(ValueError):
    """Something that was asked for did nothing."""


@dataclass
class Effects:
    """What was seen of everything that was asked for.

    Attributes:
        epoch: 1-based epoch after which this was written.
        processes: processes that trained.
        trainer, model: classes, with their modules.
        overrides: methods of the user's classes that replace Eyas' own.
        settings: option -> ``value``, ``source``, ``seen``, for all that a person changed.
        components: component -> option -> what was seen, whoever asked for it.
        hooks: "receiver.hook" -> calls on each rank, None where only the main process has it.
        groups: one row for each group of the optimizer.
        frozen: one row for each time this was written: ``epoch``, ``tensors``, ``values``, ``sha256``.
    """

    epoch: int
    processes: int
    trainer: str
    model: str
    overrides: list[str]
    settings: dict[str, dict[str, Any]]
    components: dict[str, dict[str, Any]]
    hooks: dict[str, list[int | None]]
    groups: list[dict[str, Any]]
    frozen: list[dict[str, Any]]

    def rows(self) -> list[list[object]]:
        """Setting, value, source and what was seen, as short texts."""
        return [[name, short(s["value"]), s["source"], short(s["seen"])] for name, s in self.settings.items()]

    def to_json(self) -> str:
        """Return everything as JSON; values that are not plain are told by their text."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"


# -- the three calls of the trainer ------------------------------------------------------------------------------------
def prove(trainer: BaseTrainer) -> None:
    """After the first validation of this process: check that everything had an effect, write it, print it.

    All processes come here together and all stop alike.

    Raises:
        NoEffectError: one line for each setting, component or hook without a witness.
    """
    if trainer.effects is not None or not has_stepped(trainer):
        return
    calls = dist.gather_all(hook_calls(trainer))
    effects = collect(trainer, calls)
    problems = [*missing_witnesses(trainer, effects), *missing_calls(trainer, calls)]
    trainer.effects = effects
    write(trainer, effects)  # also when it proves nothing: it shows what was seen
    if problems := dist.agree(problems):
        raise NoEffectError("\n".join(problems))
    if trainer.args.verbose and dist.is_main() and effects.settings:
        print_table("What your settings did", ["setting", "value", "from", "seen"], effects.rows())


def record(trainer: BaseTrainer) -> None:
    """At the end of the run: bring counts and witnesses up to date."""
    if trainer.effects is None:  # nothing was trained, so there is nothing to tell
        return
    effects = collect(trainer, dist.gather_all(hook_calls(trainer)))
    effects.frozen = [*trainer.effects.frozen, *effects.frozen]
    trainer.effects = effects
    write(trainer, effects)


def collect(trainer: BaseTrainer, calls: list[dict[str, int]] | None = None) -> Effects:
    """Return what can be seen now.

    Args:
        trainer: after at least one step.
        calls: calls of each hook for every rank; this process's alone by default.
    """
    components = {key: callback.witness(trainer) for key, callback in trainer.callbacks.by_key().items()}
    seen = {name: value for witness in components.values() for name, value in witness.items()}
    args = trainer.args
    return Effects(
        epoch=trainer.epoch + 1,
        processes=max(trainer.world_size, 1),
        trainer=class_name(type(trainer)),
        model=class_name(type(unwrap_model(trainer.model))),
        overrides=[fn.__qualname__ for fn in overrides(type(trainer)).values()],
        settings={
            name: {"value": args.get(name), "source": args.source(name), "seen": see(trainer, name, seen)}
            for name in changed_options(args)
        },
        components={key: witness for key, witness in components.items() if witness},
        hooks=hook_table(calls or [hook_calls(trainer)]),
        groups=group_facts(trainer),
        frozen=[frozen_facts(unwrap_model(trainer.model), trainer.epoch + 1)],
    )


def write(trainer: BaseTrainer, effects: Effects) -> None:
    """Write ``effects.json`` into the run folder, on the main process."""
    if dist.is_main():
        write_atomic(trainer.save_dir / "effects.json", effects.to_json().encode())


def has_stepped(trainer: BaseTrainer) -> bool:
    """Whether this process has trained: a run resumed between the last batch and the validation has not yet."""
    if trainer.resume_from is None or trainer.epoch > trainer.start_epoch:
        return True
    return bool(trainer.resume_from["state"]["step"] < len(trainer.train_loader))


# -- settings ----------------------------------------------------------------------------------------------------------
def changed_options(args: TrainOptions) -> list[str]:
    """Return options that a person set to something else than the default."""
    return [name for name, _ in args if args.is_changed(name)]


def owners() -> dict[str, type[Callback]]:
    """Return the component's class of every option that asks for one."""
    return {name: cls for cls in (*FIRST, *LAST) for name in cls.options}


def see(trainer: BaseTrainer, name: str, from_components: dict[str, object]) -> object:
    """Return what was seen of an option, None if nothing was.

    A component tells it where one is there; else the table; else the component's absence is the effect, as of
    ``clip_grad_norm=0``.
    """
    if name in from_components:
        return from_components[name]
    if any(name in callback.options for callback in trainer.callbacks.callbacks):
        return None
    if name in WITNESSES:
        return WITNESSES[name].see(trainer)
    owner = setup_owner(name)
    return f"no {owner.__name__}" if owner.from_options(trainer.args) is None else None


def setup_owner(name: str) -> Any:
    """Return the component's class of an option; every option has one or stands in the table (a test holds it)."""
    return owners()[name]


def missing_witnesses(trainer: BaseTrainer, effects: Effects) -> list[str]:
    """Return a line for every changed setting that left no witness, or one that contradicts it."""
    lines = []
    for name, setting in effects.settings.items():
        told = any(name in callback.options for callback in trainer.callbacks.callbacks)
        witness = Witness(lambda trainer: None) if told else WITNESSES.get(name, Witness(lambda trainer: None))
        asked = f"{name}={setting['value']!r} ({setting['source']})"
        if setting["seen"] is None and (reader := read_by(trainer, name, witness)):
            setting["seen"] = f"read by {reader}()"
        elif setting["seen"] is None:
            lines.append(f"{asked} has had no effect by the first validation: {suspect(trainer, name, witness)}")
        elif witness.agrees is not None and not witness.agrees(trainer, setting["seen"]):
            lines.append(
                f"{asked} has had no effect by the first validation: the run has {short(setting['seen'])}; "
                f"{suspect(trainer, name, witness)}"
            )
    return lines


def read_by(trainer: BaseTrainer, name: str, witness: Witness) -> str | None:
    """Return the user's method that mentions an option where nothing can be looked at, as in an own data set."""
    own = overrides(type(trainer))
    readers = (own[method] for method in witness.methods if method in own)
    return next((fn.__qualname__ for fn in readers if name in conflicts.names_reached(type(trainer), fn)), None)


def suspect(trainer: BaseTrainer, name: str, witness: Witness) -> str:
    """Say who probably made a setting void, and what to do."""
    methods = (*witness.methods, *(m for hook in component_hooks(trainer, name) for m in DUE.get(hook, ())))
    if guilty := overriding(trainer, methods):
        return f"{guilty} probably decides it itself. Use the option there, or leave it out."
    if witness.hint:
        return f"{witness.hint}. Leave it out."
    return "something changed it after the set-up; look for callbacks that do, or leave it out."


def component_hooks(trainer: BaseTrainer, name: str) -> list[str]:
    """Return the hooks of the component that an option asks for."""
    keys = [key for key, callback in trainer.callbacks.by_key().items() if name in callback.options]
    return [hook for receiver, hook in trainer.callbacks.registered() if receiver in keys]


def overriding(trainer: BaseTrainer, methods: tuple[str, ...]) -> str | None:
    """Return the first of these methods that the user's trainer overrides, or how the user's model makes its loss."""
    own = overrides(type(trainer))
    for name in methods:
        if name in own:
            return f"{own[name].__qualname__}()"
    if "setup_criterion" in methods:
        init = getattr(type(unwrap_model(trainer.model)), "init_criterion", None)
        if init is not None and not init.__module__.startswith("eyas."):
            return f"{init.__qualname__}()"
    return None


# -- hooks -------------------------------------------------------------------------------------------------------------
def hook_calls(trainer: BaseTrainer) -> dict[str, int]:
    """Return "receiver.hook" -> calls in this process, 0 included, of everything that is registered."""
    calls = trainer.callbacks.calls
    return {f"{receiver}.{hook}": calls.get((receiver, hook), 0) for receiver, hook in trainer.callbacks.registered()}


def hook_table(calls: list[dict[str, int]]) -> dict[str, list[int | None]]:
    """Return "receiver.hook" -> calls on each rank."""
    names = dict.fromkeys(name for rank in calls for name in rank)
    return {name: [rank.get(name) for rank in calls] for name in names}


def missing_calls(trainer: BaseTrainer, calls: list[dict[str, int]]) -> list[str]:
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


def uncalled(trainer: BaseTrainer, receiver: str, hook: str, ranks: list[int]) -> str:
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


def asked_for(callback: Callback, hook: str) -> bool:
    """Whether a person asked for a callback and it needs a hook: not stock reports and the components of defaults."""
    return callback.origin not in UNASKED and type(callback) not in (ConsoleReport, Pictures) and callback.needs(hook)


# -- facts that are always recorded ------------------------------------------------------------------------------------
def group_facts(trainer: BaseTrainer) -> list[dict[str, Any]]:
    """Return name, rates, decay and size of each group of the optimizer."""
    return [
        {
            "name": group.get("name", f"group{number}"),
            "lr": group["lr"],
            "initial_lr": group["initial_lr"],
            "weight_decay": group.get("weight_decay", 0.0),
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
        }
        for number, group in enumerate(trainer.optimizer.param_groups)
    ]


def frozen_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters that do not train, and the buffers of modules that have such parameters and no others."""
    found: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        still = {name: p for name, p in own.items() if not p.requires_grad}
        held = dict(module.named_buffers(recurse=False)) if own and len(still) == len(own) else {}
        found |= {f"{prefix}.{name}": tensor for name, tensor in (still | held).items()}
    return found


def frozen_facts(model: nn.Module, epoch: int) -> dict[str, Any]:
    """Return how much is frozen after an epoch, and a hash of its names and bytes: equal hashes, equal tensors."""
    tensors = frozen_tensors(model)
    return {
        "epoch": epoch,
        "tensors": len(tensors),
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "sha256": digest(tensors.items()) if tensors else None,
    }


def short(value: object, width: int = 60) -> str:
    """A value as one short text."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {short(item)}" for key, item in value.items())
    elif isinstance(value, list):
        text = f"[{', '.join(short(item) for item in value)}]"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= width else text[: width - 3] + "..."
