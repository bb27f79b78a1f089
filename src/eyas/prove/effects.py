"""Proof of effect: what was asked for against what was seen, at the first validation, in ``effects.json``.

A setting that a person changed, a component they asked for and a hook they registered must each leave a witness by
then. One that did not is an error now, after minutes, instead of a riddle after days.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from eyas import dist
from eyas.checkpoint import class_name
from eyas.files import digest, write_atomic
from eyas.log import print_table
from eyas.nn.unwrap import unwrap_model
from eyas.optim import by_hand
from eyas.prove.hooks import hook_calls, hook_table, missing_calls
from eyas.prove.settings import Setting, settings, short
from eyas.run.overrides import overrides
from eyas.run.protocol import Run


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


# -- the calls of the trainer ------------------------------------------------------------------------------------------
def prove_setup(trainer: Run) -> None:
    """Before the first step: check what can be known by now, so that no run is refused for it after hours.

    All processes come here together and all stop alike.

    Raises:
        NoEffectError: one line for each setting that is contradicted, or that nobody tells of who should.
    """
    lines = [line for setting in settings(trainer) if (line := setting.problem(trainer, trained=False))]
    if lines := dist.agree(lines):
        raise NoEffectError("\n".join(lines))


def prove(trainer: Run) -> None:
    """After the first validation of this process: check that everything had an effect, write it, print it.

    All processes come here together and all stop alike.

    Raises:
        NoEffectError: one line for each setting, component or hook without an effect.
    """
    if trainer.effects is not None or not has_stepped(trainer):
        return
    calls, found = dist.gather_all(hook_calls(trainer)), settings(trainer)
    problems = [line for setting in found if (line := setting.problem(trainer, trained=True))]
    problems += missing_calls(trainer, calls)
    effects = trainer.effects = collect(trainer, calls, found)
    write(trainer, effects)  # also when it proves nothing: it shows what was seen
    if problems := dist.agree(problems):
        raise NoEffectError("\n".join(problems))
    if trainer.args.verbose and dist.is_main() and effects.settings:
        print_table("What your settings did", ["setting", "value", "from", "seen"], effects.rows())


def record(trainer: Run) -> None:
    """At the end of the run: bring counts and what was seen up to date."""
    if trainer.effects is None:  # nothing was trained, so there is nothing to tell
        return
    effects = collect(trainer, dist.gather_all(hook_calls(trainer)), settings(trainer))
    effects.frozen = [*trainer.effects.frozen, *effects.frozen]
    trainer.effects = effects
    write(trainer, effects)


def collect(trainer: Run, calls: list[dict[str, int]], found: list[Setting]) -> Effects:
    """Return what can be seen after at least one step; ``calls`` are those of each hook on every rank."""
    components = {key: component.witness(trainer) for key, component in trainer.callbacks.by_key().items()}
    return Effects(
        epoch=trainer.epoch + 1,
        processes=max(trainer.world_size, 1),
        trainer=class_name(type(trainer)),
        model=class_name(type(unwrap_model(trainer.model))),
        overrides=[fn.__qualname__ for fn in overrides(type(trainer)).values()],
        settings={s.name: {"value": s.value, "source": s.source, "seen": s.seen} for s in found},
        components={key: witness for key, witness in components.items() if witness},
        hooks=hook_table(calls),
        groups=group_facts(trainer),
        frozen=[frozen_facts(unwrap_model(trainer.model), trainer.epoch + 1)],
    )


def write(trainer: Run, effects: Effects) -> None:
    """Write ``effects.json`` into the run folder, on the main process."""
    if dist.is_main():
        write_atomic(trainer.save_dir / "effects.json", effects.to_json().encode())


def has_stepped(trainer: Run) -> bool:
    """Whether this process has trained: a run resumed between the last batch and the validation has not yet."""
    if trainer.resume_from is None or trainer.epoch > trainer.start_epoch:
        return True
    return bool(trainer.resume_from["state"]["step"] < len(trainer.train_loader))


# -- facts that are always recorded ------------------------------------------------------------------------------------
def group_facts(trainer: Run) -> list[dict[str, Any]]:
    """Return name, rates (and the factor that somebody has set on them), decay and size of each optimizer group."""
    return [
        {
            "name": group.get("name", f"group{number}"),
            "lr": group["lr"],
            "initial_lr": group["initial_lr"],
            "lr_by_hand": by_hand(group),
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
