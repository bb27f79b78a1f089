"""A training as scripts run it: what their callbacks read, what their validator overrides, what they get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eyas.api import YOLO as Eyas
from eyas.checkpoint import class_name
from eyas.compat.model import YOLO, Outcome
from eyas.compat.results import ScriptResults
from eyas.compat.trainers import DetectionTrainer
from eyas.compat.validator import DetectionValidator
from eyas.train import DetectionTrainer as Stock
from eyas.train.state import trainer_name

READ = """
on_train_start: t.hyp is t.args
on_train_start: t.stride == 32
on_train_start: t.trainset and t.testset
on_train_start: t.stopper.patience == 100
on_train_start: t.scheduler.base_lrs
on_train_start: [path.name for path in t.plots] == ["labels.jpg"]
on_train_start: t.save_period == -1
on_train_batch_start: t.batch_i == t.step
on_train_batch_start: t.ni == t.epoch * 4 + t.step
on_train_batch_start: t.pbar.total == 4
on_train_batch_end: len(t.loss_items.tolist()) == len(t.loss_items) == len(t.tloss.tolist()) == 3
on_train_batch_end: list(t.loss_names) == list(t.loss_items)
on_train_batch_end: t.label_loss_items(t.tloss.cpu()) == t.label_loss_items(t.tloss)
on_train_epoch_end: list(t.label_loss_items(t.tloss))[0] == "train/box_loss"
on_train_epoch_end: t.scheduler.get_last_lr()[0] == t.lr["lr/pg0"] > 0
on_train_epoch_end: t.scheduler.last_epoch == t.epoch
on_fit_epoch_end: t.validator.confusion_matrix.matrix.shape == (11, 11)
on_fit_epoch_end: t.validator.seen == 16
on_fit_epoch_end: t.validator.stats["conf"].ndim == 1
on_fit_epoch_end: len(t.validator.loss.tolist()) == 3
on_fit_epoch_end: t.validator.speed["inference"] > 0
on_fit_epoch_end: t.validator.jdict == []
on_fit_epoch_end: t.validator.metrics.box.maps.shape == (10,)
on_fit_epoch_end: t.stopper.best_epoch >= 0
on_fit_epoch_end: 0 < t.epoch_time <= t.elapsed() and (t.epoch == 0) == (t.elapsed() - t.epoch_time < 0.01)
on_train_end: t.train_time_start > 0
on_train_end: t.validator.metrics.box.map >= 0
"""
HOOKS = ["init_metrics", "preprocess", "postprocess", "update_metrics", "plot_val_samples", "plot_predictions"]
HOOKS += ["get_stats", "finalize_metrics", "print_results", "get_desc"]


class Told(DetectionValidator):
    """Overrides every hook with the arguments that scripts write."""

    calls: dict[str, int] = {}  # noqa: RUF012  # shared by the test

    def __init__(self, dataloader: Any = None, save_dir: Any = None, args: Any = None, _callbacks: Any = None) -> None:
        super().__init__(dataloader, save_dir, args, _callbacks)


def counted(name: str) -> Callable[..., Any]:
    def hook(self: Told, *args: Any, **kwargs: Any) -> Any:
        self.calls[name] = self.calls.get(name, 0) + 1
        found = getattr(super(Told, self), name)(*args, **kwargs)
        return found | {"metrics/mine": 0.25} if name == "get_stats" else found

    return hook


for hook_name in HOOKS:
    setattr(Told, hook_name, counted(hook_name))


class Trainer(DetectionTrainer):
    def get_validator(self) -> DetectionValidator:
        self.loss_names = ("box_loss", "cls_loss", "dfl_loss")
        return Told(self.test_loader, save_dir=self.save_dir, args=copy(self.args), _callbacks=self.callbacks)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep the console as it is: a training sets it up for its own."""
    handlers = logging.getLogger("eyas").handlers[:]
    yield
    logging.getLogger("eyas").handlers[:] = handlers


def test_a_script_finds_what_it_reads_and_its_overrides_are_called(
    options: Callable[..., dict[str, Any]], tmp_path: Path, quiet: None
) -> None:
    wrong: list[str] = []
    heard: set[str] = set()
    reads = [line.partition(": ")[::2] for line in READ.strip().splitlines()]
    events = {event for event, _ in reads}
    arguments = options(epochs=2, plots=True, task="detect", rect=False, device="cpu", save_hybrid=False)
    model = YOLO(arguments.pop("model"))

    def probe(event: str) -> Callable[[Any], None]:
        def read(t: Any) -> None:
            heard.add(event)
            wrong.extend(text for at, text in reads if at == event and not eval(text, {"t": t}))

        return read

    for event in events:
        model.add_callback(event, probe(event))
    result = model.train(trainer=Trainer, **arguments)
    assert not wrong
    assert heard == events
    # two epochs, whose live weights may be measured too, and the final evaluation with pictures; one batch each
    steps = dict.fromkeys(HOOKS, Told.calls["init_metrics"]) | {"plot_val_samples": 1, "plot_predictions": 1}
    assert Told.calls == steps and Told.calls["init_metrics"] >= 3
    assert result.metrics["metrics/mine"] == 0.25
    assert (result.save_dir / "val_batch0_labels.jpg").is_file() and (result.save_dir / "val_batch0_pred.jpg").is_file()

    assert isinstance(result, Outcome)
    assert result.results_dict["metrics/mAP50(B)"] == result.box.map50 and result.maps.shape == (10,)  # type: ignore[attr-defined]
    assert result.names == model.names and set(result.speed) >= {"inference"} and result.class_result  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'mapps'"):
        result.mapps  # noqa: B018
    of_the_script(model, tmp_path)


def of_the_script(model: YOLO, folder: Path) -> None:
    """What scripts do with a trained model."""
    assert model.task == "detect" and model.device == torch.device("cpu") and model.cfg is None
    assert model.overrides["imgsz"] == 64 and model.train_args["epochs"] == 2 and model.to("cpu").eval().fuse() is model
    assert dict(model.named_parameters()).keys() <= model.state_dict().keys()
    copied = YOLO(model.save(folder / "new" / "copy.pt"))
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), model.parameters(), strict=True))
    assert copied.names == model.names and copied.remembered("val")["imgsz"] == 64
    image = np.zeros((64, 64, 3), np.uint8)
    (found,) = model(image, conf=0.0001, verbose=False, half=False)
    assert isinstance(found, ScriptResults) and found.boxes.id is None and found.masks is None
    (followed,) = model.track(image, conf=0.0001, persist=True, tracker="bytetrack.yaml", show=False)
    assert isinstance(followed, ScriptResults) and followed.boxes.is_track
    again = Eyas(str(folder / "new" / "copy.pt")).predict(image, conf=0.0001)[0]
    assert np.array_equal(found.numpy().boxes.data, again.boxes.numpy().data)


def test_weights_that_only_memory_has_do_not_get_lost_unsaid(tiny_model: Path, digits_tiny: Path) -> None:
    model = YOLO(str(tiny_model))
    model.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=r"model\.save\('start\.pt'\)"):
        model.train(data=str(digits_tiny))
    for name in ("tune", "benchmark", "reset_weights", "embed"):
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="hyper-parameters"):
        model.tune  # noqa: B018
    with pytest.raises(ValueError, match="'paddle'.*'pt2'"):
        model.export(format="paddle")
    with pytest.raises(ValueError, match="half=True"):
        model.export(format="pt2", half=True)


def test_a_run_of_a_stock_trainer_goes_on_without_the_script() -> None:
    class Own(DetectionTrainer):
        pass

    assert trainer_name(DetectionTrainer) == class_name(Stock) == "eyas.train.detection.DetectionTrainer"
    assert trainer_name(Own) == class_name(Own)


def test_a_trainer_started_by_itself_reads_the_same_arguments(options: Callable[..., dict[str, Any]]) -> None:
    given = options(task="detect", mode="train", rect=False, name="alone")
    trainer = DetectionTrainer(overrides=given)
    assert trainer.args.name == "alone" and trainer.args.imgsz == 64
    with pytest.raises(ValueError, match="square"):
        DetectionTrainer(overrides=given | {"rect": True})
    with pytest.raises(ValueError, match="adjust_rates"):
        trainer.scheduler = None
    with pytest.raises(ValueError, match="patience="):
        trainer.stopper = None
