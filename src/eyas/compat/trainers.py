"""The stock trainers as scripts know them: what they read from a trainer, and how they start one themselves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from eyas import dist, train
from eyas.callbacks.stop import EarlyStop
from eyas.compat.arguments import Arguments
from eyas.compat.patched import tell_patched
from eyas.compat.validator import DetectionValidator
from eyas.compat.values import Derived, Losses
from eyas.config import TrainOptions
from eyas.log import LOGGER
from eyas.nn.unwrap import unwrap_model
from eyas.train.components import Given

PICTURES = (".jpg", ".png")


class Stopper:
    """What decides early stopping, as scripts read it; ``patience`` may be changed while the run goes on."""

    def __init__(self, stop: EarlyStop) -> None:
        self._stop = stop

    @property
    def patience(self) -> int:
        """Epochs without improvement; 0 never stops."""
        return self._stop.patience

    @patience.setter
    def patience(self, epochs: int) -> None:
        self._stop.patience = epochs

    @property
    def best_fitness(self) -> float:
        """The best value so far, 0 before there is one."""
        return self._stop.best or 0.0

    @property
    def best_epoch(self) -> int:
        """0-based epoch of the best value."""
        return max(self._stop.best_epoch - 1, 0)

    @property
    def possible_stop(self) -> bool:
        """Whether the next epoch may be the last."""
        if not self._stop.patience or self._stop.last is None:
            return False
        return self._stop.last[0] - self._stop.best_epoch >= self._stop.patience - 1


class Scheduler:
    """The learning rates as scripts ask a scheduler for them; Eyas works each out from the progress of the run."""

    def __init__(self, trainer: train.BaseTrainer) -> None:
        self._trainer = trainer

    @property
    def last_epoch(self) -> int:
        """0-based epoch."""
        return self._trainer.epoch

    @property
    def base_lrs(self) -> list[float]:
        """Rate of every group before schedule and warm-up."""
        return [group["initial_lr"] for group in self._trainer.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Return the rate of every group at this step."""
        return [group["lr"] for group in self._trainer.optimizer.param_groups]

    def step(self) -> NoReturn:
        """Refuse: rates follow the progress of the run, not a counter."""
        refuse_scheduler()


def refuse_scheduler() -> NoReturn:
    """Say how rates are decided.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "the trainer has no scheduler to step or to replace: rates follow the progress of the run. Override lf() or "
        "give schedule= for another curve, and a callback with adjust_rates() to set rates at every step."
    )


class Bar:
    """The progress of an epoch as scripts read it; it is drawn by the trainer itself."""

    def __init__(self, trainer: train.BaseTrainer) -> None:
        self.n, self.total = trainer.step, len(trainer.train_loader)
        self.desc = f"{trainer.epoch + 1}/{trainer.epochs}"

    def write(self, text: str) -> None:
        """Log a line."""
        LOGGER.info("%s", text)


class ScriptTrainer(train.BaseTrainer):
    """What scripts pass to a trainer and read from it, over a trainer of Eyas; mixed into one.

    ``loss_items`` and ``tloss`` are ``Losses``: dictionaries that answer as tensors too.
    """

    def __init__(
        self,
        cfg: TrainOptions | Mapping[str, Any] | str | Path | None = None,
        overrides: TrainOptions | Mapping[str, Any] | None = None,
        _callbacks: Given = None,
    ) -> None:
        arguments = Arguments()
        if isinstance(cfg, Mapping):
            cfg = arguments.read("train", cfg)
        elif isinstance(cfg, str | Path):
            cfg = arguments.read("train", {"cfg": cfg})
        if isinstance(overrides, Mapping):
            overrides = arguments.read("train", overrides)
        super().__init__(cfg, overrides, _callbacks)

    def setup(self) -> None:
        """Build everything, and warn of what the script has changed in vain."""
        super().setup()
        if dist.is_main():
            network: Any = unwrap_model(self.model)
            tell_patched(network.criterion)

    # -- losses --------------------------------------------------------------------------------------------------------
    @property
    def loss_items(self) -> Losses:
        """Losses of the latest batch, on the device."""
        return self._loss_items

    @loss_items.setter
    def loss_items(self, items: Mapping[str, Tensor]) -> None:
        self._loss_items = Losses(items)
        self.loss_names = tuple(items)

    @Derived
    def tloss(self) -> Losses:
        """Mean losses of the epoch so far, on the device."""
        if self.meter.sums is None:
            return Losses()
        return Losses(zip(self.meter.names, self.meter.sums / self.meter.count, strict=True))

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Return losses under the keys of ``results.csv``; they may come as a tensor or a list, in their order."""
        if loss_items is not None and not isinstance(loss_items, Mapping):
            loss_items = dict(zip(self.loss_items, loss_items, strict=True))
        return super().label_loss_items(loss_items, prefix)

    # -- where the run stands ------------------------------------------------------------------------------------------
    @Derived
    def batch_i(self) -> int:
        """0-based number of the batch in its epoch."""
        return self.step

    @Derived
    def ni(self) -> int:
        """0-based number of the batch in the run."""
        return self.epoch * len(self.train_loader) + self.step

    @Derived
    def epoch_time(self) -> float:
        """Seconds since the end of the epoch before this one."""
        if self.train_time_start is None:
            return 0.0
        before = [row["time"] for row in self.history.rows if row["epoch"] <= self.epoch]
        return self.elapsed() - max(before, default=0.0)

    @Derived
    def train_time_start(self) -> float | None:
        """Time at which the run began, as ``time.time()`` gives it; None before that."""
        return time.time() - self.elapsed() if "started" in vars(self) else None

    @Derived
    def pbar(self) -> Bar:
        """The progress of this epoch."""
        return Bar(self)

    # -- rates and stopping --------------------------------------------------------------------------------------------
    @Derived
    def lr(self) -> dict[str, float]:
        """Rates of all groups, under the keys of ``results.csv``."""
        return {f"lr/pg{i}": group["lr"] for i, group in enumerate(self.optimizer.param_groups)}

    @property
    def scheduler(self) -> Scheduler:
        """The learning rates."""
        return Scheduler(self)

    @scheduler.setter
    def scheduler(self, scheduler: object) -> None:
        refuse_scheduler()

    @property
    def stopper(self) -> Stopper:
        """What decides early stopping."""
        return Stopper(next(c for c in self.callbacks.callbacks if isinstance(c, EarlyStop)))

    @stopper.setter
    def stopper(self, stopper: object) -> None:
        raise ValueError(
            "the trainer asks no stopper that a script assigns: give patience= or stop={...}, a component "
            "callbacks=[EarlyStop(...)], or set trainer.stop = True in a callback."
        )

    # -- what it works with --------------------------------------------------------------------------------------------
    @Derived
    def hyp(self) -> TrainOptions:
        """The options."""
        return self.args

    @Derived
    def stride(self) -> int:
        """What sides of images are multiples of, in pixels."""
        model: Any = unwrap_model(self.model)
        return max(int(max(model.stride)), 32)

    @Derived
    def trainset(self) -> Any:
        """The images to train on, as the data description names them."""
        return self.data["train"]

    @Derived
    def testset(self) -> Any:
        """The images to validate on, as the data description names them."""
        return self.data["val"]

    @property
    def save_period(self) -> int:
        """Epochs between the checkpoints that are kept; it is the option, and may be changed while the run goes on."""
        return self.args.save_period

    @save_period.setter
    def save_period(self, epochs: int) -> None:
        self.args.save_period = epochs

    @Derived
    def plots(self) -> dict[Path, dict[str, Any]]:
        """Pictures of the run so far, and when each was drawn."""
        found = sorted(path for path in self.save_dir.glob("*") if path.suffix in PICTURES)
        return {path: {"data": None, "timestamp": path.stat().st_mtime} for path in found}

    # -- validation ----------------------------------------------------------------------------------------------------
    def get_validator(self) -> DetectionValidator:
        """Return the validator of the validation split, open at the steps that scripts know."""
        return DetectionValidator(self.test_loader, save_dir=self.save_dir, args=self.args, _callbacks=self.callbacks)


class DetectionTrainer(ScriptTrainer, train.DetectionTrainer):
    """The stock trainer of YOLO26, as scripts know it."""

    same_training_as = train.DetectionTrainer


class RTDETRTrainer(ScriptTrainer, train.RTDETRTrainer):
    """The stock trainer of RT-DETR, as scripts know it."""

    same_training_as = train.RTDETRTrainer


def script_trainer(stock: type[train.BaseTrainer]) -> type[train.BaseTrainer]:
    """Return the trainer of a family as scripts know it; one that they do not know as it is."""
    known: dict[type, type[train.BaseTrainer]] = {
        train.DetectionTrainer: DetectionTrainer,
        train.RTDETRTrainer: RTDETRTrainer,
    }
    return known.get(stock, stock)
