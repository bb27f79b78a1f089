"""What a callback, a report or a proof may use of a training: all of it, on one page, without any logic.

The trainer is the one that trains; whatever only looks on, or hangs itself into the loop, is written against this page
and imports no trainer. An attribute that is missing here is the trainer's own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eyas.config import TrainOptions
from eyas.optim import GradientNorms, ModelEMA
from eyas.run.plan import Plan
from eyas.run.tracking import History, LossMeter
from eyas.types import Batch, Progress


class Stage(NamedTuple):
    """A part of the run in which something is not as in the rest; ``start`` and ``end`` are epochs that lie behind."""

    name: str
    start: float
    end: float


class FrozenSpan(NamedTuple):
    """Parameters that a component freezes, by name, and when, in words: ``" until epoch 3"``."""

    names: frozenset[str]
    when: str


class Loader(Protocol):
    """Batches with a length. Ours also follows epochs and knows its images; a user's may be any other."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...


@runtime_checkable
class FollowsEpoch(Protocol):
    """A loader whose order and augmentation are a function of the epoch: what ours adds, and a user's may have."""

    def __iter__(self) -> Iterator[Batch]: ...
    def set_epoch(self, epoch: int, *, mosaic_closed: bool = False, first_batch: int = 0) -> None: ...
    def close(self) -> None: ...


class Component(Protocol):
    """What others may ask of one that hangs in the loop; said in words at ``eyas.callbacks.Callback``."""

    decides: str | None
    options: tuple[str, ...]
    origin: str
    on: str

    def needs(self, adjuster: str) -> bool: ...
    def adjusts(self, adjuster: str) -> bool: ...
    def describe(self, trainer: Run) -> dict[str, object]: ...
    def witness(self, trainer: Run) -> dict[str, object]: ...
    def stages(self, trainer: Run) -> list[Stage]: ...
    def frozen_spans(self, trainer: Run) -> list[FrozenSpan]: ...
    def clip_text(self, trainer: Run) -> str | None: ...
    def schedule_text(self, trainer: Run) -> str | None: ...
    def metric_keys(self, names: Mapping[int, str]) -> list[str]: ...
    def may_add_metrics(self) -> bool: ...


class Hooks(Protocol):
    """Who hangs in the loop, and how often each hook was called; said in words at ``eyas.callbacks.CallbackList``."""

    calls: dict[tuple[str, str], int]
    late: set[tuple[str, str]]

    @property
    def callbacks(self) -> Sequence[Component]: ...
    def registered(self) -> list[tuple[str, str]]: ...
    def by_key(self) -> Mapping[str, Component]: ...


class Compiled(Protocol):
    """What torch.compile has taken of a network, or why not; said in words at ``eyas.train.compiling``."""

    refused: str


class Run(Protocol):
    """A training in one process, from ``on_pretrain_routine_end`` on; before that, what is not built yet is missing.

    Attributes:
        args: the options; assigning an unknown name is an error.
        began_in: the working folder, from which relative paths among them are meant.
        plan: what they mean for this run.
        data: description of the data: ``train``, ``val``, ``names``, ``nc`` and what else the user's file holds.
        save_dir, wdir, csv: run folder, folder of weights, ``results.csv``; last, best: latest and best weights.
        device, amp_dtype: where the model is, and the type that autocast computes in, None for float32.
        world_size: processes that train together, 0 for one.
        batch_size: images per step over all processes.
        model: the network, possibly wrapped (``eyas.nn.unwrap.unwrap_model``).
        ema: the average of its weights; None without one.
        optimizer, train_loader, test_loader, validator: as built; each may be of the user's making, and a validator is
            anything that is called as ours.
        callbacks: who hangs in the loop.
        epoch, step: where the run stands, 0-based; epochs: its length, which a ``time`` budget estimates anew.
        start_epoch: where this process began; start_step: batches of that epoch trained before, 0 later;
            resume_from: the checkpoint it went on from, else None.
        from_scratch: whether it began with random weights; holds_given: whether given weights are in the network.
        accumulate: batches for each step of the optimizer.
        batch, loss, loss_items: of the latest step.
        meter, epoch_log, history: means of the losses so far; numbers to add to this epoch's row; all rows.
        notes: what happened to the run that its numbers do not tell, in sentences.
        metrics, fitness: of the latest validation.
        best_fitness, best_epoch, best_files: of the best epoch, 1-based; stem of a file of best weights -> its epoch.
        written: stems of the checkpoints that this process has written.
        stop: set it True to end the run after this epoch; time_is_up: whether the ``time`` budget is spent.
        freeze_layer_names: parts of names; normalisation layers with one of them in their name stay in eval mode.
        compiled: what torch.compile has taken; None where it was not asked for.
        coloured: images whose colours this process has jittered on the device.
        autosave, watch: what saves inside an epoch, and what ends a run that hangs.
        bad_images: the images that could not be loaded and why, by split; of this process, until an epoch ends.
        nan_answer: what is done about a step that is no number; empty while nobody watches for one.
        exception: what was raised, for ``on_exception``.
    """

    args: TrainOptions
    began_in: str
    plan: Plan
    data: dict[str, Any]
    save_dir: Path
    wdir: Path
    csv: Path
    last: Path
    best: Path
    device: torch.device
    amp_dtype: torch.dtype | None
    world_size: int
    batch_size: int
    model: nn.Module
    ema: ModelEMA | None
    optimizer: Optimizer
    gradient_norms: GradientNorms
    train_loader: Loader
    test_loader: Loader
    validator: object
    epoch: int
    step: int
    epochs: int
    start_epoch: int
    start_step: int
    resume_from: dict[str, Any] | None
    from_scratch: bool
    holds_given: bool
    accumulate: int
    batch: Batch
    loss: Tensor
    loss_items: dict[str, Tensor]
    coloured: int
    meter: LossMeter
    epoch_log: dict[str, float]
    history: History
    notes: list[str]
    metrics: dict[str, float]
    fitness: float | None
    best_fitness: float | None
    best_files: dict[str, int]
    written: set[str]
    stop: bool
    time_is_up: bool
    freeze_layer_names: list[str]
    exception: BaseException | None
    effects: Any  # of `eyas.prove`, None until the first validation

    @property
    def callbacks(self) -> Hooks: ...
    @property
    def autosave(self) -> object: ...
    @property
    def watch(self) -> object: ...
    @property
    def best_epoch(self) -> int: ...
    @property
    def bad_images(self) -> dict[str, dict[str, str]]: ...
    @property
    def nan_answer(self) -> str: ...
    @property
    def compiled(self) -> Compiled | None: ...
    def progress(self) -> Progress:
        """Where the run stands."""

    def step_due(self) -> bool:
        """Whether the optimizer steps after this batch."""

    def elapsed(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""

    def running_losses(self) -> dict[str, float]:
        """Mean losses of the epoch so far; waits for the device."""

    def label_loss_items(self, loss_items: dict[str, float]) -> dict[str, float]:
        """Losses under the keys of ``results.csv``."""

    def lf(self, fraction: float) -> float:
        """Multiplier of all rates after this share of the run."""

    def size_of_step(self) -> int | None:
        """Side in pixels that this step's images should have; None if that is not known."""

    def closing_epochs(self) -> int:
        """How many last epochs go without mosaic and mixing."""

    def closing_augmentation(self) -> list[str]:
        """Names of the augmentation that the last part of the run goes without."""

    def progress_string(self) -> str:
        """Text to print at the head of each epoch; empty for none."""

    def plot_training_labels(self) -> None:
        """Draw the labels of the training images."""

    def plot_training_samples(self, batch: Batch, ni: int) -> None:
        """Draw a batch as it is trained on, the ``ni``-th of the run."""

    def plot_metrics(self) -> None:
        """Draw how the numbers of the run moved."""
