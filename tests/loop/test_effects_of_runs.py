"""What was asked for left a trace in a real run, or the run said so and blamed the right method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.losses import DenseCriterion
from eyas.models import DetectionModel
from eyas.prove.effects import NoEffectError
from eyas.train import DetectionTrainer

TINY = {"epochs": 1, "batch": 8, "fraction": 0.25}


def run(options: Any, cls: type[DetectionTrainer] = DetectionTrainer, /, *hooks: Callback, **changes: Any) -> Any:
    """Train and return the trainer."""
    trainer = cls(overrides=options(**(TINY | changes)), _callbacks=list(hooks))
    trainer.train()
    return trainer


def effects_of(trainer: Any) -> dict[str, Any]:
    """Return what ``effects.json`` says."""
    return json.loads((trainer.save_dir / "effects.json").read_text())


def failing(options: Any, cls: type[DetectionTrainer], /, *hooks: Callback, **changes: Any) -> str:
    """Train, and return what the run was stopped with."""
    with pytest.raises(NoEffectError) as caught:
        run(options, cls, *hooks, **changes)
    return str(caught.value)


# -- settings that work ------------------------------------------------------------------------------------------------
def test_the_stock_trainer_proves_every_setting(options: Any) -> None:
    changed = {
        "optimizer": "SGD",
        "lr0": 0.02,
        "lrf": 0.1,
        "momentum": 0.7,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "warmup_momentum": 0.5,
        "warmup_bias_lr": 0.05,
        "nbs": 16,
        "ema_decay": 0.9,
        "ema_tau": 7.0,
        "mosaic": 0.25,
        "mixup": 0.1,
        "degrees": 5.0,
        "scale": (0.8, 1.2),
        "multi_scale": 0.5,
        "close_mosaic": 1,
        "box": 5.0,
        "cls": 0.4,
        "dfl": 1.0,
        "seed": 4,
        "cache": "ram",
        "single_cls": True,
        "channels_last": False,
        "amp": False,
        "conf": 0.01,
        "iou": 0.6,
        "nms": True,
        "max_det": 50,
        "agnostic_nms": True,
        "save_period": 1,
        "save_txt": True,
        "pretrained": False,
        "clip_grad_norm": 0.0,
    }
    found = effects_of(run(options, **changed))
    seen = {name: setting["seen"] for name, setting in found["settings"].items()}
    assert seen.keys() >= changed.keys()
    assert None not in seen.values()
    assert seen["lr0"] == [0.02]
    assert seen["lrf"] == pytest.approx(0.1)
    assert (seen["schedule"], seen["cos_lr"]) == ("cosine", True)
    assert seen["weight_decay"] == pytest.approx(0.01), "in the option's unit, not in that of a step"
    assert seen["momentum"] == pytest.approx(0.7) and seen["nbs"] == 16 and seen["warmup_epochs"] == 0.5
    assert seen["scale"] == [0.8, 1.2]
    assert seen["clip_grad_norm"] == "off"
    assert seen["close_mosaic"] == 1
    assert found["settings"]["mosaic"] == {"value": 0.25, "source": "call", "seen": 0.25}


def test_groups_hooks_and_frozen_tensors_are_always_recorded(options: Any) -> None:
    class Seen(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            pass

    trainer = run(options, DetectionTrainer, Seen(), epochs=2, freeze="backbone", lr_rules={"head": 2.0})
    found = effects_of(trainer)
    assert found["hooks"]["Seen.0.on_train_batch_end"] == [4], "counts are those of the whole run"
    assert sum(group["tensors"] for group in found["groups"]) == len(trainer.optimizer.state_dict()["state"]) + sum(
        not p.requires_grad for p in trainer.model.parameters()
    )
    rates = {group["initial_lr"] for group in found["groups"]}
    assert max(rates) == pytest.approx(2 * min(rates))
    first, last = found["frozen"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert first["sha256"] == last["sha256"] and first["tensors"] > 0
    assert found["model"] == "eyas.models.detection.DetectionModel"


def test_the_table_is_printed(options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(options, verbose=True, mosaic=0.25)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("What your settings did")
    assert lines[start + 1].split() == ["setting", "value", "from", "seen"]
    assert ["mosaic", "0.25", "call", "0.25"] in [line.split() for line in lines[start:]]


def test_a_resumed_run_is_proved_too(options: Any) -> None:
    class Stop(Callback):
        def on_fit_epoch_end(self, trainer: Any) -> None:
            if trainer.resume_from is None and trainer.epoch == 0:
                raise KeyboardInterrupt

    trainer = DetectionTrainer(overrides=options(**(TINY | {"epochs": 2, "mosaic": 0.5})), _callbacks=[Stop()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    (trainer.save_dir / "effects.json").unlink()
    again = DetectionTrainer(overrides={"resume": str(trainer.last)}, _callbacks=[Stop()])
    again.train()
    found = effects_of(again)
    assert found["settings"]["resume"]["seen"] == "from epoch 2"
    assert found["settings"]["mosaic"]["seen"] == 0.5
    assert found["hooks"]["Stop.0.on_fit_epoch_end"] == [1]


# -- settings that do not ----------------------------------------------------------------------------------------------
def test_an_optimizer_with_other_rates_than_typed(options: Any) -> None:
    class Stubborn(DetectionTrainer):
        def build_optimizer(self, model, name="auto", lr=0.001, momentum=0.9, decay=1e-5, iterations=1e5):  # type: ignore[no-untyped-def]
            optimizer = super().build_optimizer(model, "AdamW", 0.5, momentum, decay, iterations)
            for group in optimizer.param_groups:
                group["lr"] = 0.125
            return optimizer

    text = failing(options, Stubborn, lr0=0.01)
    assert text.startswith("lr0=0.01 (call) has no effect: the run has [0.125]; ")
    assert "Stubborn.build_optimizer() probably decides it itself" in text


def test_an_optimizer_of_another_class(options: Any) -> None:
    class Other(DetectionTrainer):
        def build_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            return super().build_optimizer(*args, **(kwargs | {"name": "SGD"}))

    text = failing(options, Other, optimizer="AdamW")
    assert "optimizer='AdamW' (call)" in text and "the run has SGD" in text and "Other.build_optimizer()" in text


def test_an_override_that_scales_the_given_rate_is_no_contradiction(options: Any) -> None:
    class Slower(DetectionTrainer):
        def build_optimizer(self, model, name="auto", lr=0.001, momentum=0.9, decay=1e-5, iterations=1e5):  # type: ignore[no-untyped-def]
            return super().build_optimizer(model, name, lr * 0.1, momentum, decay, iterations)

    assert effects_of(run(options, Slower, lr0=0.01))["settings"]["lr0"]["seen"] == [0.001]


class PlainLoader:
    """Someone's own loader: batches of another one, without anything that could be asked."""

    def __init__(self, loader: Any) -> None:
        self.batches = list(loader)
        self.dataset = range(16)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class OwnLoader(DetectionTrainer):
    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        return PlainLoader(loader) if mode == "train" else loader


def test_augmentation_that_a_foreign_loader_never_sees(options: Any) -> None:
    text = failing(options, OwnLoader, mosaic=0.5, workers=None)
    assert text.splitlines()[-1].startswith("mosaic=0.5 (call) has no effect: ")
    assert "OwnLoader.get_dataloader() probably decides it itself" in text


def test_a_foreign_loader_is_fine_while_nothing_of_it_is_typed(options: Any) -> None:
    given = options(**TINY)
    del given["workers"], given["fraction"]
    trainer = OwnLoader(overrides=given)
    trainer.train()
    settings = effects_of(trainer)["settings"]
    assert settings["imgsz"]["seen"] == 64
    assert settings["batch"]["seen"] <= 8


def test_a_data_set_with_other_augmentation_than_typed(options: Any) -> None:
    class Closed(DetectionTrainer):
        def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
            dataset: Any = super().build_dataset(img_path, mode, batch)
            if mode == "train":
                dataset.settings = dataset.settings.closed()
            return dataset

    text = failing(options, Closed, mosaic=0.5)
    assert text.startswith("mosaic=0.5 (call) has no effect: the run has 0; ")
    assert "Closed.build_dataset()" in text


def test_a_loss_that_does_not_read_its_gain(options: Any) -> None:
    class Flat(DetectionModel):
        def init_criterion(self) -> Any:
            stock = super().init_criterion()
            for part in (stock.one2many, stock.one2one):
                part.gains = dict.fromkeys(part.gains, 1.0)
            return stock

    class FlatTrainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return Flat(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

    text = failing(options, FlatTrainer, box=5.0)
    assert "box=5.0 (call)" in text and "the run has 1" in text


def test_a_foreign_loss_must_mention_the_gain(options: Any) -> None:
    class Foreign:
        def __init__(self, inner: DenseCriterion, args: Any) -> None:
            self.inner, self.factor = inner, args.box

        def __call__(self, preds: Any, batch: Any) -> Any:
            raw = preds[1] if isinstance(preds, tuple) else preds
            loss, items = self.inner(raw["one2many"], batch)
            return loss * self.factor, items

    class Model(DetectionModel):
        def init_criterion(self) -> Any:
            return Foreign(self.dense_criterion(topk=10), self.args)

    class Trainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return Model(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

    assert effects_of(run(options, Trainer, box=5.0))["settings"]["box"]["seen"] == "read by Foreign"
    text = failing(options, Trainer, dfl=2.0)
    assert text.startswith("dfl=2.0 (call) has no effect") and "get_model()" in text


def test_cls_remap_without_weights_does_nothing(options: Any) -> None:
    assert "random weights have no classes to follow" in failing(options, DetectionTrainer, cls_remap=False)


# -- hooks -------------------------------------------------------------------------------------------------------------
class Watch(Callback):
    def on_train_batch_end(self, trainer: Any) -> None:
        pass

    def adjust_loss(self, trainer: Any, loss: Any) -> Any:
        return loss


class OwnStep(DetectionTrainer):
    """Writes the step anew, and forgets the hooks."""

    def train_batch(self, batch: Any) -> None:
        self.run_callbacks("on_train_batch_start")
        self.set_rates()
        self.batch = self.preprocess_batch(batch)
        loss, self.loss_items = self.model(self.batch)
        self.loss = loss.sum()
        self.scaler.scale(self.loss).backward()
        self.optimizer_step()
        self.meter.update(self.loss_items)


def test_hooks_that_an_override_skips(options: Any) -> None:
    lines = failing(options, OwnStep, Watch()).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Watch: adjust_loss was registered and has not been called: OwnStep.train_batch() ")
    assert "self.adjust('adjust_loss', ...)" in lines[0]
    assert "self.run_callbacks('on_train_batch_end')" in lines[1]


def test_the_same_override_is_fine_without_hooks(options: Any) -> None:
    assert effects_of(run(options, OwnStep))["overrides"] == ["OwnStep.train_batch"]


def test_a_function_that_an_override_skips(options: Any) -> None:
    def watch(trainer: Any) -> None:
        pass

    trainer = OwnStep(overrides=options(**TINY))
    trainer.add_callback("on_train_batch_end", watch)
    with pytest.raises(NoEffectError, match=r"watch: on_train_batch_end was registered and has not been called"):
        trainer.train()


def test_what_was_seen_is_on_disk_after_an_error(options: Any, tmp_path: Path) -> None:
    trainer = OwnStep(overrides=options(**TINY), _callbacks=[Watch()])
    with pytest.raises(NoEffectError):
        trainer.train()
    assert effects_of(trainer)["hooks"]["Watch.0.adjust_loss"] == [0]


def test_proving_changes_no_weight(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proved = run(options).model.state_dict()
    monkeypatch.setattr("eyas.prove.effects.prove", lambda trainer: None)
    plain = run(options).model.state_dict()
    assert all(torch.equal(proved[key], plain[key]) for key in plain)
