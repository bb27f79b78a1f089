"""Steps over several batches, in epochs whose length is no multiple of them: nothing is lost, nothing leaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.launch.interrupt import Interrupted
from eyas.train import DetectionTrainer


class Ledger(Callback):
    """Notes every step, and sees that each begins with no gradient and that none is left over when an epoch ends."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.open = 0  # batches whose gradients wait for a step

    def adjust_loss(self, trainer: Any, loss: torch.Tensor) -> torch.Tensor:
        assert (self.open > 0) == any(p.grad is not None for p in trainer.model.parameters())
        self.open += 1
        return loss

    def adjust_gradients(self, trainer: Any, parameters: Any) -> Any:
        self.steps.append((trainer.epoch, trainer.step))
        self.open = 0
        return parameters

    def on_train_epoch_end(self, trainer: Any) -> None:
        assert self.open == 0 and all(p.grad is None for p in trainer.model.parameters()), "an epoch ends with a step"


def small(options: Any, **changes: Any) -> dict[str, Any]:
    """Three batches of four images per epoch; a step after every second and at the end of an epoch."""
    base = {"fraction": 0.1875, "batch": 4, "nbs": 8, "epochs": 2, "optimizer": "SGD", "lr0": 0.01, "val": False}
    return options(**(base | changes))


@pytest.mark.parametrize(("nbs", "due"), [(8, [1, 2]), (40, [2])], ids=["two of three", "more than there are"])
def test_a_step_follows_every_nth_batch_and_the_last(options: Any, nbs: int, due: list[int]) -> None:
    ledger = Ledger()
    trainer = DetectionTrainer(overrides=small(options, nbs=nbs, epochs=1 if nbs != 8 else 2), _callbacks=[ledger])
    trainer.train()
    assert ledger.steps == [(epoch, step) for epoch in range(trainer.epochs) for step in due]
    assert trainer.plan.updates == len(ledger.steps) == trainer.ema.updates


def test_a_scheduler_moves_with_the_optimizer(options: Any) -> None:
    """One move for every step of the optimizer: with a step after batches two and three, batch two has batch one's."""
    factors: list[float] = []

    class Watch(Callback):
        def adjust_rates(self, trainer: Any, groups: Any) -> Any:
            factors.append(groups[0]["lr"] / groups[0]["initial_lr"])
            return groups

    schedule = {"name": "StepLR", "step_size": 1, "gamma": 0.5}
    DetectionTrainer(overrides=small(options, schedule=schedule, warmup_epochs=0), _callbacks=[Watch()]).train()
    assert factors == [1.0, 1.0, 0.5, 0.25, 0.25, 0.125]


class PressesCtrlC(Callback):
    def __init__(self, epoch: int, step: int) -> None:
        self.at = epoch, step

    def on_train_batch_start(self, trainer: Any) -> None:
        if (trainer.epoch, trainer.step) == self.at:
            trainer.interrupted.raised = True


def test_ctrl_c_inside_an_accumulation_waits_for_its_step(options: Any) -> None:
    whole = load_checkpoint(DetectionTrainer(overrides=small(options, name="whole")).train().last)
    for pressed, answered in ((0, 1), (2, 2)):
        cut = DetectionTrainer(overrides=small(options, name=f"cut{pressed}"), _callbacks=[PressesCtrlC(1, pressed)])
        with pytest.raises(Interrupted, match=f"epoch 2 after {answered + 1} of 3 batches"):
            cut.train()
        saved = load_checkpoint(cut.last)
        assert (saved["epoch"], saved["state"]["step"]) == (1, answered + 1)
        resumed = load_checkpoint(DetectionTrainer(overrides={"resume": str(cut.last)}).train().last)
        assert resumed["state"]["updates"] == whole["state"]["updates"] == 4
        for part in (lambda c: c["model"], lambda c: c["state"]["model"]):
            assert all(torch.equal(value, part(resumed)[key]) for key, value in part(whole).items())
        losses = [{k: v for k, v in c["state"]["history"][-1].items() if k != "time"} for c in (whole, resumed)]
        assert losses[0] == losses[1]


def test_the_warm_up_rises_batch_by_batch(options: Any) -> None:
    """In rates of each group's own: in a line over three batches, biases from 0, which was assigned at the start."""
    seen: list[dict[str, float]] = []

    class Watch(Callback):
        def on_train_start(self, trainer: Any) -> None:
            trainer.args.warmup_bias_lr = 0.0

        def adjust_rates(self, trainer: Any, groups: Any) -> Any:
            seen.append({group["name"]: group["lr"] for group in groups})
            return groups

    changes = {"warmup_epochs": 1.0, "lrf": 1.0, "lr_rules": {"head": 0.5}}
    DetectionTrainer(overrides=small(options, **changes), _callbacks=[Watch()]).train()
    for name, base in (("weight", 0.01), ("bias", 0.01), ("head.weight", 0.005), ("head.bias", 0.005)):
        assert [rates[name] for rates in seen] == pytest.approx([base / 3, base * 2 / 3, base, base, base, base]), name


class PlainLoader:
    """A user's own: has a length and a data set, and knows nothing of epochs."""

    def __init__(self, batches: list[Any], dataset: Any) -> None:
        self.batches, self.dataset = batches, dataset

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter([dict(batch) for batch in self.batches])


def test_a_users_own_loader_and_model_go_on_where_the_epoch_was_left(options: Any) -> None:
    """The loader begins at its first batch and the model with random weights; a resumed run needs neither to know."""

    class OwnParts(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return super().get_model(cfg, None, verbose)

        def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
            return PlainLoader(list(loader), loader.dataset) if mode == "train" else loader

    o = {key: value for key, value in small(options, epochs=1, nbs=4).items() if key != "workers"}
    whole = load_checkpoint(OwnParts(overrides=o | {"name": "whole"}).train().last)
    cut = OwnParts(overrides=o | {"name": "cut"}, _callbacks=[PressesCtrlC(0, 1)])
    with pytest.raises(Interrupted, match="after 2 of 3 batches"):
        cut.train()
    resumed = load_checkpoint(OwnParts(overrides={"resume": str(cut.last)}).train().last)
    assert all(torch.equal(value, resumed["model"][key]) for key, value in whole["model"].items())
