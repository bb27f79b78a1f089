"""Every decision of the loop is the same in all processes, whichever of them had the reason for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas import dist
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.files import digest
from eyas.launch.interrupt import Interrupted
from eyas.optim import unwrap_model
from eyas.run.tracking import TrainingDiverged
from eyas.train import DetectionTrainer

Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def train(in_ranks: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path) -> Train:
    """``train(callback, **options)``: how a run of two batches per epoch ended, told by each of two processes."""

    def run(callback: Callback, **changes: Any) -> list[dict[str, Any]]:
        options = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25, "batch": 8}
        options |= {"workers": 0, "device": "cpu", "plots": False, "verbose": False, "optimizer": "SGD", "nbs": 8}
        options |= {"lr0": 0.001, "sync_bn": False, "save_dir": str(tmp_path / "run"), **changes}
        return in_ranks(lambda: told(DetectionTrainer(overrides=options, _callbacks=[callback])))

    return run


def told(trainer: DetectionTrainer) -> dict[str, Any]:
    """Train, and say all that this process believes to have happened."""
    end = "finished"
    try:
        trainer.train()
    except (Interrupted, TrainingDiverged) as error:
        end = f"{type(error).__name__}: {error}"
    return {
        "end": end,
        "at": (trainer.epoch, trainer.step),
        "epochs": [row["epoch"] for row in trainer.history.rows],
        "planned": trainer.epochs,
        "best": (dict(trainer.best_files), trainer.best_fitness, trainer.fitness),
        "validated": trainer.validated,
        "rows": [{k: v for k, v in row.items() if k != "time"} for row in trainer.history.rows],
        "weights": digest(unwrap_model(trainer.model).named_parameters()),
    }


def alike(stories: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one story that both processes tell."""
    for key in stories[0]:
        assert repr(stories[0][key]) == repr(stories[1][key]), key  # as text: nan is not equal to itself
    return stories[0]


class Here(Callback):
    """Does something in one process, at one moment."""

    def __init__(self, rank: int, event: str, act: Callable[[Any], None], epoch: int = 0, step: int | None = None):
        self.where = rank, epoch, step
        self.act = act
        setattr(self, event, self.when_it_is_time)

    def when_it_is_time(self, trainer: Any) -> None:
        rank, epoch, step = self.where
        if (dist.rank(), trainer.epoch) == (rank, epoch) and step in (None, trainer.step):
            self.act(trainer)


def ask_to_stop(trainer: Any) -> None:
    trainer.stop = True


def press_ctrl_c(trainer: Any) -> None:
    trainer.interrupted.raised = True


@pytest.mark.parametrize(("event", "epoch"), [("on_train_batch_end", 2), ("on_fit_epoch_end", 0)])
def test_a_stop_that_one_process_asks_for(train: Train, event: str, epoch: int) -> None:
    story = alike(train(Here(1, event, ask_to_stop, epoch), epochs=5, val_every=2))
    assert (story["end"], story["at"], len(story["epochs"])) == ("finished", (epoch, 1), epoch + 1)
    assert story["validated"] or epoch == 0, "the last epoch is, whoever made it the last while it ran"


def test_ctrl_c_in_one_process(train: Train, tmp_path: Path) -> None:
    """Pressed during the first batch; the answer waits for the optimizer's step, which is a batch later."""
    story = alike(train(Here(1, "on_train_batch_end", press_ctrl_c, step=0), epochs=2, nbs=16))
    assert story["at"] == (0, 1) and story["end"].startswith("Interrupted: stopped in epoch 1 after 2 of 2"), story
    assert load_checkpoint(tmp_path / "run" / "weights" / "last.pt")["state"]["step"] == 2


def test_the_time_is_that_of_the_main_process(train: Train) -> None:
    """Another process's clock runs ahead by hours in the first epoch, and nobody minds; then the main one's does."""

    class Clocks(Callback):
        def on_train_batch_start(self, trainer: Any) -> None:
            if (trainer.epoch, trainer.step) == (1 - dist.rank(), 0):
                real = time.monotonic
                time.monotonic = lambda: real() + 1e5

    story = alike(train(Clocks(), time=1.0))
    assert (story["end"], story["epochs"], story["planned"]) == ("finished", [1, 2], 2)


def test_what_each_process_finds_and_draws(train: Train, tmp_path: Path) -> None:
    """The best epoch and the numbers are the main process's; what a step draws is each one's own, and never twice."""

    class Own(Callback):
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def adjust_batch(self, trainer: Any, batch: Any) -> Any:
            self.drawn.append(float(torch.rand(())))
            return batch

        def adjust_metrics(self, trainer: Any, metrics: dict[str, float]) -> dict[str, float]:
            return metrics | {"my/rank": float(dist.rank())}

        def adjust_fitness(self, trainer: Any, fitness: float) -> float:
            return ([1.0, 2.0], [4.0, 3.0])[dist.rank()][trainer.epoch]

        def on_fit_epoch_end(self, trainer: Any) -> None:
            assert set(dist.gather_all(trainer.metrics["my/rank"])) == {0.0}

        def on_train_end(self, trainer: Any) -> None:
            everybodys = [value for drawn in dist.gather_all(self.drawn) for value in drawn]
            assert len(everybodys) == 8 and len(set(everybodys)) == 8, everybodys

    story = alike(train(Own(), epochs=2))
    assert story["best"] == ({"best": 2}, 2.0, 2.0)
    assert load_checkpoint(tmp_path / "run" / "weights" / "best.pt")["epoch"] == 1


def test_a_loss_that_is_not_finite_in_one_process(train: Train) -> None:
    class Breaks(Callback):
        def adjust_loss(self, trainer: Any, loss: torch.Tensor) -> torch.Tensor:
            if dist.rank() == 1:
                trainer.loss_items = {name: item * float("nan") for name, item in trainer.loss_items.items()}
            return loss

    story = alike(train(Breaks(), epochs=2))
    assert story["end"].startswith("TrainingDiverged: box_loss, ") and story["epochs"] == []


def test_weights_that_are_not_finite_in_the_main_process(train: Train) -> None:
    def spoil(trainer: Any) -> None:
        next(unwrap_model(trainer.model).parameters()).data.fill_(float("nan"))

    first, second = train(Here(0, "on_val_end", spoil), epochs=2)
    assert first["end"] == second["end"] and first["end"].startswith("TrainingDiverged: the weights")


def test_what_is_validated_and_what_steps_is_the_same_model(train: Train) -> None:
    """Three batches with a step after the second and the third; each process has statistics of its own until then."""

    class Compares(Callback):
        def __init__(self) -> None:
            self.apart = False

        def on_train_batch_end(self, trainer: Any) -> None:
            if trainer.step > 0:  # steps after the second batch and after the last
                weights = digest(unwrap_model(trainer.model).named_parameters())
                assert len(set(dist.gather_all(weights))) == 1, f"weights after batch {trainer.step + 1}"
            buffers = digest(unwrap_model(trainer.model).named_buffers())
            self.apart |= len(set(dist.gather_all(buffers))) == 2

        def on_val_end(self, trainer: Any) -> None:
            for name, model in (("model", unwrap_model(trainer.model)), ("average", trainer.ema.ema)):
                assert len(set(dist.gather_all(digest(model.state_dict().items())))) == 1, name
            assert self.apart, "there was something to share"

    options = {"fraction": 0.375, "nbs": 16, "epochs": 2}  # 24 images: three batches of eight
    assert alike(train(Compares(), **options))["epochs"] == [1, 2]
