"""One-line steps of a trainer's set-up, as functions: callbacks, where a model comes from, the plan, messages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import yaml
from torch import nn

from eyas import dist
from eyas.callbacks import (
    BestBy,
    Callback,
    CallbackList,
    ClassWeights,
    ClipGradNorm,
    ClipGradValue,
    EarlyStop,
    Freeze,
    LayerRates,
    MetricReport,
    SyncBatchNorm,
    TorchSchedule,
)
from eyas.callbacks.base import StockCallback
from eyas.checkpoint import load_checkpoint
from eyas.config import TrainOptions
from eyas.data.loader import EpochLoader
from eyas.models import DetectionModel
from eyas.models.catalog import model_table
from eyas.models.rtdetr.published import PUBLISHED, is_name, published
from eyas.optim import parameter_groups
from eyas.optim.optimizers import optimizer_class
from eyas.prove.conflicts import refuse_option_beside_component
from eyas.report.pictures import Pictures
from eyas.report.progress import ConsoleReport
from eyas.run.plan import Plan
from eyas.train.plan import make_plan
from eyas.types import Progress

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer


# -- callbacks ---------------------------------------------------------------------------------------------------------
# Components that options ask for, in the order in which they work: those that change the model and its groups, then
# what was measured; after the user's own callbacks come clipping (the last word on gradients), choices and reports.
FIRST: tuple[type[StockCallback], ...] = (SyncBatchNorm, Freeze, LayerRates, ClassWeights, MetricReport)
LAST: tuple[type[StockCallback], ...] = (ClipGradNorm, ClipGradValue, TorchSchedule, BestBy, EarlyStop)


def collect_callbacks(given: Any, options: TrainOptions) -> CallbackList:
    """Return the stock callbacks and the user's; one given by the user takes the place of the stock one of its class.

    Raises:
        ConflictError: an option was typed that asks for what a given component decides.
    """
    if isinstance(given, CallbackList):
        mine, functions = list(given.callbacks), given.functions
    elif isinstance(given, Mapping):
        mine, functions = [], dict(given)
    else:
        mine, functions = list(given or []), {}
    CallbackList(mine)  # refuses classes and strangers before they are looked at
    refuse_option_beside_component(mine, options)
    first = [c for cls in FIRST for c in place(cls, mine, options)]
    last = [c for cls in LAST for c in place(cls, mine, options)]
    own = [c for c in mine if not isinstance(c, (*FIRST, *LAST, ConsoleReport, Pictures))]
    return CallbackList([*first, *own, *last, *reports(mine, options)], functions)


def place(cls: type[StockCallback], mine: list[Callback], options: TrainOptions) -> list[Callback]:
    """Return the user's components of a stock class, else the one that the options ask for, if they do."""
    given: list[Callback] = [c for c in mine if isinstance(c, cls)]
    if given:
        return given
    component = cls.from_options(options)
    if component is None or (component.decides and any(c.decides == component.decides for c in mine)):
        return []
    sources = [options.source(name) for name in sorted(cls.options, key=options.is_typed, reverse=True)]
    component.origin = next((source for source in sources if source != "default"), "default")
    return [component]


def reports(mine: list[Callback], options: TrainOptions) -> list[Callback]:
    """Return what people look at; a report of the user's class replaces the stock one."""
    found: list[Callback] = [ConsoleReport(enabled=options.verbose)]
    found += [Pictures()] if options.plots else []
    return [next((c for c in mine if isinstance(c, type(stock))), stock) for stock in found]


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
        weights = given_weights(options.pretrained)
    return cfg, weights if options.pretrained else None


def given_weights(source: str | Path) -> Any:
    """Return weights to start from: a checkpoint's content, or the name or ``.pth`` file that the model itself reads.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it holds no checkpoint.
        UnknownWeightsError: neither published weights nor a file have this name; offers the nearest.
    """
    if str(source) in PUBLISHED or Path(source).suffix == ".pth":
        return source
    return published(str(source)).name if is_name(source) else load_checkpoint(source)


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
    loader = trainer.train_loader
    images = loader.images if isinstance(loader, EpochLoader) else len(loader.dataset)
    return make_plan(
        trainer.args,
        trainer.recipe,
        images=images,
        batch=min(trainer.batch_size, images),
        batches=len(trainer.train_loader),
        on_cpu=trainer.device.type == "cpu",
        from_scratch=trainer.from_scratch,
        processes=max(trainer.world_size, 1),
    )


def batch_size(trainer: BaseTrainer) -> int:
    """Return images per step over all processes: as typed, as the resumed run had it, or what suits the devices."""
    if trainer.args.batch is not None:
        return trainer.args.batch
    if trainer.resume_from is not None:
        return trainer.resume_from["state"]["plan"]["batch"]
    processes = max(trainer.world_size, 1)
    return (
        max(trainer.recipe.cpu_batch, processes) if trainer.device.type == "cpu" else trainer.recipe.batch * processes
    )


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
        boost = model.sections()["head.cls"] if isinstance(model, DetectionModel) and not model.stretch else ()
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
