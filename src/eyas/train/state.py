"""What a checkpoint says about a run, and how a run takes it up again."""

from __future__ import annotations

import datetime
import math
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eyas import __version__, dist
from eyas.callbacks import CallbackList
from eyas.checkpoint import FORMAT, CheckpointError, broken_parts, class_name, refusals_of
from eyas.checkpoint.finite import moments, not_finite
from eyas.data.bad_images import BadImages
from eyas.data.place import seen_from
from eyas.device import PRECISIONS
from eyas.models import Detector
from eyas.models.lineage import described, read_ancestors
from eyas.models.weights import check_numbers
from eyas.nn.unwrap import unwrap_model
from eyas.run.plan import Plan
from eyas.run.protocol import Run

# What code raises that is given values of another kind than it has stored.
UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError)
LONGEST = 300  # letters of such an error that are told
MOMENTS = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"}
)
"""What optimizers keep for every number of a parameter."""


class Resumable(Run, Protocol):
    """A run that can be written down whole and taken up again: what that needs beyond ``Run``."""

    scaler: torch.amp.GradScaler
    amp_dtype: torch.dtype | None
    start_step: int
    is_over: bool
    elapsed_before: float
    contents: dict[str, str]
    rollbacks: int

    @property
    def callbacks(self) -> CallbackList: ...
    def bad_by_split(self) -> dict[str, BadImages]: ...


def averaged(trainer: Run) -> Any:
    """Return the network that a run validates and saves: the average of its weights, or the live one without any."""
    return unwrap_model(trainer.ema.ema if trainer.ema else trainer.model)


def describe_network(network: Any) -> dict[str, Any]:
    """Return the part of a checkpoint that any network has, trained or not: its weights and how to build it."""
    return {
        "eyas": {"format": FORMAT, "version": __version__, "torch": str(torch.__version__)},
        "model": dict(network.state_dict()),
        "yaml": network.yaml,
        "model_class": class_name(type(network)),
        "nc": network.nc,
        "names": dict(network.names),
        **(described(network.ancestors) if isinstance(network, Detector) else {}),
    }


def describe_model(trainer: Run) -> dict[str, Any]:
    """Return the part of a checkpoint that inference needs: averaged weights, layer table, names, options, numbers."""
    return describe_network(averaged(trainer)) | {
        "train_args": trainer.args.to_dict(),
        "train_sources": trainer.args.sources(),
        "began_in": seen_from(trainer.began_in, trainer.wdir),
        "train_metrics": dict(trainer.metrics),
        "fitness": trainer.fitness,
        "epoch": trainer.epoch,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def training_state(trainer: Resumable, finished_epoch: bool) -> dict[str, Any]:
    """Return what only a resume needs; ``step`` is the next batch of ``epoch``, 0 when the epoch is complete."""
    state = {
        "model": dict(unwrap_model(trainer.model).state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "amp": PRECISIONS[trainer.amp_dtype],
        "updates": trainer.ema.updates if trainer.ema else 0,
        "average_trusted": trainer.ema.trusted if trainer.ema else True,
        "epochs": trainer.epochs,
        "step": 0 if finished_epoch else trainer.step + 1,
        "over": finished_epoch and trainer.stop,
        "meter": None if finished_epoch else trainer.meter.state_dict(),
        "best_fitness": trainer.best_fitness,
        "best_files": dict(trainer.best_files),
        "frozen": [name for name, p in unwrap_model(trainer.model).named_parameters() if not p.requires_grad],
        "freeze_layer_names": list(trainer.freeze_layer_names),
        "plan": trainer.plan.to_dict(),
        "data": dict(trainer.contents),
        "bad_images": trainer.bad_images,
        "trainer": trainer_name(type(trainer)),
        "history": trainer.history.rows,
        "notes": list(trainer.notes),
        "rollbacks": trainer.rollbacks,
        "elapsed": trainer.elapsed(),
        "callbacks": trainer.callbacks.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if trainer.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state(trainer.device)
    return state


def broken(trainer: Resumable, unbounded: set[str]) -> list[str]:
    """Return what of a run is nan or infinite, in words: its weights, buffers, average, or the optimizer's state."""
    weights = dict(unwrap_model(trainer.model).state_dict())
    state = {"model": weights, "optimizer": trainer.optimizer.state_dict()}
    return broken_parts({"model": dict(averaged(trainer).state_dict()), "state": state}, unbounded)


def position(checkpoint: dict[str, Any]) -> str:
    """Say how far a run had come when its checkpoint was written."""
    epoch, step = checkpoint["epoch"] + 1, checkpoint["state"]["step"]
    return f"epoch {epoch}" if step == 0 else f"epoch {epoch} up to batch {step}"


def refuse_other_start(checkpoint: dict[str, Any] | None, path: Path) -> None:
    """Refuse a run of which some processes go on and others begin, or go on from elsewhere.

    Raises:
        CheckpointError: the processes do not read the same file.
    """
    found = dist.gather_all("none" if checkpoint is None else position(checkpoint))
    if len(set(found)) > 1:
        told = ", ".join(f"process {rank}: {where}" for rank, where in enumerate(found))
        raise CheckpointError(
            f"the processes do not find the same checkpoint at {path} ({told}). All of them must reach one folder."
        )


def trainer_name(cls: type) -> str:
    """Return the name under which a run remembers its trainer: that of the class whose training it is."""
    return class_name(vars(cls).get("same_training_as", cls))


def check_stored(checkpoint: dict[str, Any], path: object) -> None:
    """Refuse a run whose stored plan no run has, or which stopped where none does.

    Raises:
        CheckpointError: names the file.
    """
    with refusals_of(str(path), ValueError):
        plan, step = Plan.from_dict(checkpoint["state"]["plan"]), checkpoint["state"]["step"]
        if step > plan.batches:
            raise CheckpointError(f"it stopped after {step} batches of an epoch that has {plan.batches}")


def restore_state(trainer: Resumable, checkpoint: dict[str, Any]) -> None:
    """Put a run back exactly where ``training_state`` left it.

    Raises:
        CheckpointError: what is stored does not fit this run.
    """
    state = checkpoint["state"]
    restore_networks(trainer, checkpoint)
    check_best_files(trainer.wdir, state["best_files"])
    trainer.best_fitness, trainer.best_files = state["best_fitness"], dict(state["best_files"])
    trainer.freeze_layer_names = list(state["freeze_layer_names"])
    restore_frozen(unwrap_model(trainer.model), state["frozen"])
    trainer.history.rows = list(state["history"])
    for split, bad in trainer.bad_by_split().items():
        bad.take_over(state.get("bad_images", {}).get(split, {}))
    with taken_back("state of the callbacks"):
        trainer.callbacks.load_state_dict(state["callbacks"])
    trainer.elapsed_before = state["elapsed"]
    trainer.metrics, trainer.fitness = dict(checkpoint["train_metrics"]), checkpoint["fitness"]
    trainer.start_step = state["step"]
    trainer.is_over = state.get("over", False)  # earlier versions did not say
    trainer.start_epoch = checkpoint["epoch"] + (1 if state["step"] == 0 else 0)
    if state["meter"] is not None:
        trainer.meter.load_state_dict(state["meter"], trainer.device)
    with taken_back("state of random numbers"):
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and trainer.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], trainer.device)


def restore_networks(trainer: Resumable, checkpoint: dict[str, Any]) -> None:
    """Put network, average, optimizer and the scale of gradients back to where a checkpoint has them.

    Raises:
        CheckpointError: what is stored does not fit this run.
    """
    state = checkpoint["state"]
    load_weights(unwrap_model(trainer.model), state["model"])
    for network in (unwrap_model(trainer.model), averaged(trainer)):
        if isinstance(network, Detector):
            network.ancestors = read_ancestors(checkpoint)
    if trainer.ema:
        load_weights(trainer.ema.ema, checkpoint["model"])
        trainer.ema.updates = state["updates"]
        trainer.ema.trusted = state.get("average_trusted", True)  # runs of earlier versions did not ask
    check_optimizer(trainer.optimizer, state["optimizer"])
    with taken_back("state of the optimizer", ValueError):
        trainer.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:  # empty unless the run so far used float16
        with taken_back("scale of gradients"):
            trainer.scaler.load_state_dict(state["scaler"])


def load_weights(model: nn.Module, state: dict[str, Any]) -> None:
    """Give a network exactly the tensors that were stored.

    Raises:
        CheckpointError: they do not fit it, or are no numbers.
    """
    check_numbers({key: value for key, value in state.items() if isinstance(value, Tensor)}, model.state_dict())
    with taken_back("state of the network"):
        model.load_state_dict(state)


@contextmanager
def taken_back(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say what of a stored run does not fit this one, where it is taken back.

    Raises:
        CheckpointError: where the block raised what code does that is given values of another kind, or ``kinds``.
    """
    unfit: tuple[type[Exception], ...] = (*UNFIT, *kinds)
    try:
        yield
    except unfit as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise CheckpointError(f"its {what} does not fit this run ({type(error).__name__}: {reason})") from error


def check_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Refuse the state of an optimizer that the first step would fail with.

    Raises:
        CheckpointError: an option is of another kind than this optimizer's, or a moment of another shape or not finite.
    """
    for own, group in zip(optimizer.param_groups, stored["param_groups"], strict=False):
        for name in own.keys() - {"params"}:
            if (name == "lr" and name not in group) or (name in group and not same_kind(group[name], own[name])):
                raise CheckpointError(f"its optimizer has {reprlib.repr(group.get(name))} for {name}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = [index for group in stored["param_groups"] for index in group["params"]]
    for index, parameter in zip(order, parameters, strict=False):
        for name, value in stored["state"].get(index, {}).items():
            shape = value.shape if isinstance(value, Tensor) else ()
            if name in MOMENTS and shape != parameter.shape:
                raise CheckpointError(f"the {name} of parameter {index} has the shape {tuple(shape)}")
    if broken := not_finite(moments(stored)):
        raise CheckpointError(f"the state of its optimizer is nan or infinite ({broken[0]})")


def same_kind(value: Any, other: Any) -> bool:
    """Whether an option of an optimizer may take the place of another one."""
    if isinstance(other, (tuple, list)):
        same = isinstance(value, (tuple, list)) and len(value) == len(other)
        return same and all(map(same_kind, value, other))
    if type(other) in (int, float):
        return type(value) in (int, float) and math.isfinite(value)
    if other is None or type(other) is bool:
        return value is None or type(value) is bool
    return isinstance(value, type(other))


def check_best_files(wdir: Path, files: dict[str, int]) -> None:
    """Refuse to go on without the best weights so far: the end of the run could not give them.

    Raises:
        CheckpointError: a file of best weights does not lie beside ``last.pt``.
    """
    lost = [f"{stem}.pt of epoch {n}" for stem, n in files.items() if n and not (wdir / f"{stem}.pt").exists()]
    if lost and dist.is_main():
        raise CheckpointError(f"{', '.join(lost)} should lie in {wdir}; move a run with its whole folder.")


def restore_frozen(model: nn.Module, frozen: list[str]) -> None:
    """Freeze exactly the parameters that were frozen when the run was saved, whoever had frozen them."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
