"""One-line steps of a trainer's set-up, as functions: callbacks, where a model comes from, the plan, messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import yaml
from torch import nn

from eyas import dist
from eyas.callbacks import Callback, CallbackList, ClipGradNorm
from eyas.config import TrainOptions
from eyas.models import DetectionModel
from eyas.models.catalog import model_table
from eyas.optim import parameter_groups
from eyas.optim.optimizers import optimizer_class
from eyas.train.checkpoint import load_checkpoint
from eyas.train.pictures import Pictures
from eyas.train.plan import Plan, make_plan
from eyas.train.reporting import ConsoleReport
from eyas.types import Progress

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer


# -- callbacks ---------------------------------------------------------------------------------------------------------
def collect_callbacks(given: Any, options: TrainOptions) -> CallbackList:
    """Return the stock callbacks and the user's; one given by the user replaces the stock one of its class."""
    if isinstance(given, CallbackList):
        mine, functions = given.callbacks, given.functions
    elif isinstance(given, Mapping):
        mine, functions = [], dict(given)
    else:
        mine, functions = list(given or []), {}
    if options.is_typed("clip_grad_norm") and any(isinstance(c, ClipGradNorm) for c in mine):
        raise ValueError(
            "clip_grad_norm and a ClipGradNorm callback both decide how gradients are clipped; give one of them."
        )
    stock = [c for c in stock_callbacks(options) if not any(isinstance(other, type(c)) for other in mine)]
    return CallbackList([*stock, *mine], functions)


def stock_callbacks(options: TrainOptions) -> list[Callback]:
    """Return the components that options ask for."""
    found: list[Callback] = []
    if options.clip_grad_norm > 0:
        found.append(ClipGradNorm(options.clip_grad_norm))
    if dist.is_main():
        found.append(ConsoleReport(enabled=options.verbose))
        if options.plots:
            found.append(Pictures())
    return found


# -- model -------------------------------------------------------------------------------------------------------------
def model_source(options: TrainOptions, resumed: dict[str, Any] | None) -> tuple[Any, Any]:
    """Return ``(cfg, weights)`` for ``get_model``.

    A name or YAML gives ``(path or name, None)``; a checkpoint gives its layer table and itself.

    Raises:
        ValueError: no model was named, or no such model; names the nearest one.
    """
    if resumed is not None:
        return resumed["yaml"], resumed
    if options.model is None:
        raise ValueError("no model was given; for example model=yolo26n, a YAML of layers, or a .pt file.")
    cfg: Any = options.model
    weights = None
    if str(cfg).endswith(".pt"):
        weights = load_checkpoint(cfg)
        cfg = weights["yaml"]
    else:
        model_table(cfg)  # a typing mistake is answered before any data is read
    if isinstance(options.pretrained, str):
        weights = load_checkpoint(options.pretrained)
    return cfg, weights if options.pretrained else None


def place_model(model: nn.Module, device: torch.device, channels_last: bool | None) -> nn.Module:
    """Return the model on its device, channels last unless refused: a step of YOLO26n is 1.2 times faster so on a CPU,
    and tensor cores of a GPU want it too."""
    if channels_last is False or (channels_last is None and device.type == "mps"):
        return model.to(device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lag


# -- plan, groups, schedule --------------------------------------------------------------------------------------------
def plan_for(trainer: BaseTrainer) -> Plan:
    """Derive the plan from a trainer whose loaders are built; a resumed run keeps the plan it was started with."""
    if trainer.resume_from is not None:
        return resumed_plan(trainer, trainer.resume_from["state"])
    images = len(trainer.train_loader.dataset)
    return make_plan(
        trainer.args,
        trainer.recipe,
        images=images,
        batch=min(trainer.batch_size, images),
        batches=len(trainer.train_loader),
        on_cpu=trainer.device.type == "cpu",
        from_scratch=trainer.from_scratch,
    )


def batch_size(trainer: BaseTrainer) -> int:
    """Return images per step: as typed, as the resumed run had it, or as the recipe chooses for the device."""
    if trainer.args.batch is not None:
        return trainer.args.batch
    if trainer.resume_from is not None:
        return trainer.resume_from["state"]["plan"]["batch"]
    return trainer.recipe.cpu_batch if trainer.device.type == "cpu" else trainer.recipe.batch


def resumed_plan(trainer: BaseTrainer, state: dict[str, Any]) -> Plan:
    """Return the plan of the run that goes on, over more epochs if asked for.

    Raises:
        ValueError: the training split has changed.
    """
    plan = Plan.from_dict(state["plan"])
    if len(trainer.train_loader) != plan.batches:
        raise ValueError(
            f"the training split changed since this run was started: {plan.batches} batches per epoch then, "
            f"{len(trainer.train_loader)} now. Restore the data, or start a new run."
        )
    typed = trainer.args.epochs if trainer.args.source("epochs") == "override" else None
    return replace(plan, epochs=typed or state["epochs"])


def closing_epochs(trainer: BaseTrainer) -> int:
    """Return how many last epochs go without mosaic; under a ``time`` budget the length of the run is an estimate."""
    close = trainer.plan.close_mosaic
    timed = trainer.args.time is not None and not trainer.args.is_typed("close_mosaic")
    return min(close, round(trainer.epochs * trainer.recipe.close_share)) if timed else close


def default_groups(model: nn.Module, name: str, lr: float, decay: float) -> list[dict[str, Any]]:
    """Return the stock parameter groups; MuSGD orthogonalises matrices and speeds up the class branches (spec B.5)."""
    if optimizer_class(name).__name__ == "MuSGD":
        boost = model.sections()["head.cls"] if isinstance(model, DetectionModel) else ()
        return parameter_groups(model, lr=lr, decay=decay, muon=True, boost=boost)
    return parameter_groups(model, lr=lr, decay=decay)


def epochs_within(hours: float, elapsed: float, done: int) -> int:
    """Return how many epochs fit the budget, from the mean length of those done so far (spec core B.13)."""
    return max(math.ceil(hours * 3600 / (elapsed / done)), done)


# -- messages to loader and criterion ----------------------------------------------------------------------------------
@runtime_checkable
class FollowsEpoch(Protocol):
    """A loader whose order and augmentation are a function of the epoch."""

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int, *, mosaic_closed: bool = False, first_batch: int = 0) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class FollowsProgress(Protocol):
    """A criterion that changes with progress."""

    def set_progress(self, progress: Progress) -> None: ...


def tell_loader(loader: Any, epoch: int, mosaic_closed: bool, first_batch: int) -> None:
    """Send the epoch to our own loader; a user's plain loader has no such door and needs none."""
    if isinstance(loader, FollowsEpoch):
        loader.set_epoch(epoch, mosaic_closed=mosaic_closed, first_batch=first_batch)


def batches_from(loader: Any, first_batch: int) -> Iterable[Any]:
    """Return the rest of an epoch; our own loader was told where to start, a user's plain one is run up to there."""
    if isinstance(loader, FollowsEpoch):
        return loader
    return itertools.islice(loader, first_batch, None)


def tell_criterion(criterion: Any, progress: Progress) -> None:
    """Send progress to a criterion that follows it."""
    if isinstance(criterion, FollowsProgress):
        criterion.set_progress(progress)


def close_loader(loader: Any) -> None:
    """End a loader's worker processes."""
    if isinstance(loader, FollowsEpoch):
        loader.close()


# -- files -------------------------------------------------------------------------------------------------------------
def write_description(trainer: BaseTrainer) -> None:
    """Write ``options.yaml`` and ``plan.json`` into the run folder."""
    if not dist.is_main():
        return
    options = yaml.safe_dump(trainer.args.to_dict(), sort_keys=False, allow_unicode=True)
    (trainer.save_dir / "options.yaml").write_text(options, encoding="utf-8")
    trainer.plan.write(trainer.save_dir / "plan.json")
