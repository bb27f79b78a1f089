"""A training of a few numbers for tests of what hangs in the loop or looks on: all that ``Run`` says, of real parts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from eyas.callbacks import Callback, CallbackList
from eyas.config import TrainOptions
from eyas.evaluate.validator import DetectionValidator
from eyas.nn.norms import hold_norms
from eyas.optim import SCHEDULES, GradientNorms, ModelEMA, apply_schedule, build_optimizer, parameter_groups
from eyas.report import pictures
from eyas.run.plan import Plan
from eyas.run.tracking import History, LossMeter
from eyas.types import Batch, Progress

NAMES = {0: "cat", 1: "dog"}
RATE = 0.05


class Net(nn.Module):
    """Three rows: two with normalisation, and a head."""

    def __init__(self, sync: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.SyncBatchNorm if sync else nn.BatchNorm1d
        rows = [nn.Sequential(nn.Linear(4, 4), norm(4)) for _ in range(2)]
        self.model = nn.Sequential(*rows, nn.Linear(4, 2))

    def sections(self) -> dict[str, tuple[str, ...]]:
        return {"backbone": ("model.0.", "model.1."), "head": ("model.2.",)}

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class RandomBatches:
    """Batches of 8 "images" of 4 numbers, a function of epoch and step."""

    def __init__(self, batches: int) -> None:
        self.batches, self.epoch = batches, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.batches):
            img = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.epoch * 10 + step)) + 2
            yield {"img": img, "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}


def plan_of(epochs: int, batches: int, accumulate: int, warmup_batches: int) -> Plan:
    return Plan(
        epochs=epochs,
        images=8 * batches,
        batch=8,
        batches=batches,
        accumulate=accumulate,
        updates=epochs * math.ceil(batches / accumulate),
        warmup_batches=warmup_batches,
        optimizer="AdamW",
        lr0=RATE,
        lrf=1.0,
        momentum=0.9,
        weight_decay=0.01,
        warmup_bias_lr=0.0,
        schedule="constant",
        ema_decay=0.9,
        ema_tau=2.0,
        close_mosaic=0,
    )


class SmallRun:
    """Hooks are called where the loop calls them; what a validation finds is given by the test.

    Attributes:
        rates, held: rates of all groups at each batch; number of held normalisation layers in each epoch.
        saved: stem of a file of best weights -> what was written last.
    """

    def __init__(
        self,
        *callbacks: Callback,
        model: nn.Module | None = None,
        epochs: int = 6,
        batches: int = 3,
        accumulate: int = 1,
        warmup_batches: int = 0,
        **options: Any,
    ) -> None:
        self.args = TrainOptions(**options)
        self.began_in = str(Path.cwd())
        self.bad_images: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []
        self.nan_answer = "stop"
        self.callbacks = CallbackList(list(callbacks))
        self.data: dict[str, Any] = {"names": NAMES, "nc": len(NAMES)}
        self.save_dir = Path("run")
        self.wdir, self.csv = self.save_dir / "weights", self.save_dir / "results.csv"
        self.last, self.best = self.wdir / "last.pt", self.wdir / "best.pt"
        self.device = torch.device("cpu")
        self.gradient_norms = GradientNorms()
        self.amp_dtype: torch.dtype | None = None
        self.world_size, self.batch_size = 0, 8
        self.train_loader: Any = RandomBatches(batches)
        self.test_loader: Any = []
        self.epoch = self.step = self.start_epoch = self.start_step = 0
        self.epochs, self.accumulate = epochs, accumulate
        self.resume_from: dict[str, Any] | None = None
        self.from_scratch = self.holds_given = True
        self.effects: Any = None
        self.freeze_layer_names = [".dfl"]
        self.meter, self.history, self.epoch_log = LossMeter(), History(), dict[str, float]()
        self.metrics: dict[str, float] = {}
        self.fitness: float | None = None
        self.best_fitness: float | None = None
        self.best_files = {"best": 0}
        self.written: set[str] = set()
        self.stop = self.time_is_up = False
        self.exception: BaseException | None = None
        self.compiled = None
        self.coloured = 0
        self.autosave = self.watch = None
        self.batch: Batch = next(iter(RandomBatches(1)))
        self.loss, self.loss_items = torch.zeros(()), dict[str, Tensor]()
        self.rates: list[list[float]] = []
        self.held: list[int] = []
        self.saved: dict[str, Any] = {}

        self.model: nn.Module = Net() if model is None else model
        self.plan = plan_of(epochs, batches, accumulate, warmup_batches)
        self.optimizer = build_optimizer("AdamW", self.groups(), lr=RATE, momentum=0.9)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.ema: ModelEMA | None = ModelEMA(self.model, decay=0.9, tau=2)
        self.validator: Any = DetectionValidator(self.test_loader, names=NAMES)

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups that the optimizer is built from."""
        return self.callbacks.adjust("adjust_param_groups", self, parameter_groups(self.model, lr=RATE, decay=0.01))

    # -- what Run says -------------------------------------------------------------------------------------------------
    @property
    def best_epoch(self) -> int:
        return self.best_files["best"]

    def progress(self) -> Progress:
        return Progress(self.epoch, self.epochs, self.step, len(self.train_loader))

    def step_due(self) -> bool:
        return (self.step + 1) % self.accumulate == 0 or self.step + 1 == len(self.train_loader)

    def elapsed(self) -> float:
        return 60.0 * self.epoch

    def running_losses(self) -> dict[str, float]:
        return self.meter.means()

    def label_loss_items(self, loss_items: dict[str, float]) -> dict[str, float]:
        return {f"train/{name}": value for name, value in loss_items.items()}

    def lf(self, fraction: float) -> float:
        return SCHEDULES[self.plan.schedule](fraction, self.plan.lrf)

    def size_of_step(self) -> int | None:
        return None

    def closing_epochs(self) -> int:
        return self.plan.close_mosaic

    def closing_augmentation(self) -> list[str]:
        return ["mosaic"] if self.plan.close_mosaic else []

    def progress_string(self) -> str:
        return ""

    def plot_training_labels(self) -> None:
        pictures.draw_labels(self)

    def plot_training_samples(self, batch: Batch, ni: int) -> None:
        pictures.draw_samples(self, batch, ni)

    def plot_metrics(self) -> None:
        pictures.draw_metrics(self)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def fire(self, event: str) -> None:
        self.callbacks.fire(event, self)

    def adjust(self, adjuster: str, value: Any) -> Any:
        return self.callbacks.adjust(adjuster, self, value)

    def fit(self, until: int | None = None) -> Self:
        """Train up to an epoch, without validation."""
        self.fire("on_pretrain_routine_end")
        for epoch in range(self.start_epoch, self.epochs if until is None else until):
            self.epoch = epoch
            self.train_epoch()
        return self

    def train_epoch(self) -> None:
        self.train_loader.epoch = self.epoch
        self.epoch_log = {}
        self.model.train()
        self.fire("on_train_epoch_start")
        self.held.append(hold_norms(self.model, self.freeze_layer_names))
        for step, batch in enumerate(self.train_loader):
            self.step, self.batch = step, batch
            self.train_batch()
        self.fire("on_train_epoch_end")

    def train_batch(self) -> None:
        progress, warm = self.progress(), 1.0
        if self.plan.warmup_batches:
            warm = min((progress.batches + 1) / self.plan.warmup_batches, 1.0)
        multiplier = self.adjust("adjust_schedule", self.lf(progress.fraction))
        apply_schedule(self.optimizer, multiplier=multiplier, warm=warm, momentum=0.9)
        self.adjust("adjust_rates", self.optimizer.param_groups)
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        self.learn()
        self.fire("on_train_batch_end")

    def learn(self) -> None:
        self.loss = self.adjust("adjust_loss", self.model(self.batch["img"]).square().mean())
        self.loss_items = {"square_loss": self.loss.detach()}
        self.loss.backward()
        self.meter.update(self.loss_items)
        if self.step_due():
            self.adjust("adjust_gradients", list(self.model.parameters()))
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.ema:
                self.ema.update(self.model)

    def validated(self, found: dict[str, float], fitness: float | None = None) -> None:
        """Take what a validation found, choose the best and save it, as the loop does."""
        self.metrics = self.adjust("adjust_metrics", found)
        decided = self.adjust("adjust_fitness", math.nan if fitness is None else fitness)
        self.fitness = decided if math.isfinite(decided) else None
        if self.fitness is not None and (self.best_fitness is None or self.fitness > self.best_fitness):
            self.best_fitness, self.best_files["best"] = self.fitness, self.epoch + 1
        self.fire("on_val_end")
        for stem in [stem for stem, epoch in self.best_files.items() if epoch == self.epoch + 1]:
            self.saved[stem] = self.adjust("adjust_checkpoint", {"epoch": self.epoch})

    # -- in a new process ----------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds after this epoch."""
        assert self.ema is not None
        state = {
            "epoch": self.epoch + 1,
            "model": self.model.state_dict(),
            "ema": (self.ema.ema.state_dict(), self.ema.updates),
            "optimizer": self.optimizer.state_dict(),
            "frozen": [n for n, p in self.model.named_parameters() if not p.requires_grad],
            "freeze_layer_names": self.freeze_layer_names,
            "callbacks": self.callbacks.state_dict(),
        }
        return copy.deepcopy(state)

    def resume(self, state: dict[str, Any]) -> Self:
        """Stand where a state was taken, to go on from there."""
        assert self.ema is not None
        self.resume_from, self.start_epoch, self.epoch = state, state["epoch"], state["epoch"]
        self.model.load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"][0])
        self.ema.updates = state["ema"][1]
        self.optimizer.load_state_dict(state["optimizer"])
        self.freeze_layer_names = state["freeze_layer_names"]
        for name, p in self.model.named_parameters():
            p.requires_grad_(name not in state["frozen"])
        self.callbacks.load_state_dict(state["callbacks"])
        return self


def optimizer_of(groups: Sequence[Sequence[nn.Parameter]]) -> torch.optim.Optimizer:
    """Return an optimizer with these parameters in groups of their own."""
    return torch.optim.SGD([{"params": list(group)} for group in groups], lr=RATE)
