"""Real tiny trainings of RT-DETR: the loop, the facade and the command line treat it as they treat YOLO."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from eyas.api import RTDETR, YOLO, run_predict, run_train, run_val
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.config import TrainOptions, resolve
from eyas.models import RTDETRDetectionModel
from eyas.report.overview import stage_rows
from eyas.train import DetectionTrainer, RTDETRTrainer, setup

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def set_options(options: Options, tiny_rtdetr: Path) -> Options:
    """Options of a training of the small RT-DETR."""

    def make(**changes: Any) -> dict[str, Any]:
        made = options(**({"model": str(tiny_rtdetr), "fraction": 0.25, "batch": 8, "epochs": 2} | changes))
        return {name: value for name, value in made.items() if name != "project" or "save_dir" not in changes}

    return make


def essence(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return checkpoint["state"]["model"]


def test_the_command_line_trains_validates_and_predicts(set_options: Options, digits_tiny: Path) -> None:
    result = run_train(resolve(cli=set_options()))
    assert result.epochs == 2 and result.best.exists()
    losses = [key for key in result.history[0] if key.startswith("train/")]
    assert losses == ["train/giou_loss", "train/cls_loss", "train/l1_loss"]
    assert all(math.isfinite(value) for row in result.history for value in row.values())
    folder = str(result.save_dir.parent)
    typed = {"model": str(result.best), "workers": 0, "device": "cpu", "plots": False, "project": folder}
    metrics = run_val(resolve(cli=typed, command="val"))
    assert metrics.box.map50 == pytest.approx(result.metrics["metrics/mAP50(B)"], abs=1e-9)
    image = next((digits_tiny.parent / "images").rglob("*.[pj][np]g"))
    typed = {"model": str(result.best), "conf": 0.001, "save": False}
    assert run_predict(resolve(cli=typed, command="predict"), str(image)) == 1
    (found,) = YOLO(result.best).predict(image, conf=0.001)
    height, width = found.orig_shape
    boxes = found.boxes.xyxy
    assert len(boxes) and bool((boxes >= 0).all())
    assert float(boxes[:, [0, 2]].max()) <= width and float(boxes[:, [1, 3]].max()) <= height


def test_the_facade_finds_the_family(set_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    given = set_options(epochs=1)
    model = YOLO(given.pop("model"))
    assert type(model) is RTDETR
    model.train(**given)
    assert type(model.trainer) is RTDETRTrainer
    read: list[Any] = []
    monkeypatch.setattr(setup, "load_checkpoint", lambda path: (read.append(path), load_checkpoint(path))[1])
    assert type(YOLO(model.trainer.best)) is RTDETR
    assert read == [str(model.trainer.best)], "a checkpoint is read once"
    assert type(copy.copy(model)) is RTDETR
    with pytest.raises(ValueError, match="not of the RT-DETR family"):
        RTDETR("yolo26n")


def with_ratio(model: Path, folder: Path) -> Path:
    """The same network, whose backbone learns at a tenth of the rate once its weights are given."""
    path = folder / "ratio.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(model.read_text()) | {"lr_ratio": 0.1}))
    return path


@pytest.mark.parametrize("given", [False, True])
def test_resumed_is_straight_with_denoising(
    set_options: Options, tmp_path: Path, tiny_rtdetr: Path, given: bool
) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            if (trainer.epoch, trainer.step) == (1, 0):
                raise KeyboardInterrupt

    model = with_ratio(tiny_rtdetr, tmp_path)
    if given:
        model = RTDETRTrainer(overrides=set_options(model=str(model), epochs=1)).train().best
    straight = set_options(model=str(model), save_dir=str(tmp_path / "straight"))
    broken = straight | {"save_dir": str(tmp_path / "broken")}
    RTDETRTrainer(overrides=straight).train()
    with pytest.raises(KeyboardInterrupt):
        RTDETRTrainer(overrides=broken, _callbacks=[Stop()]).train()
    RTDETRTrainer(overrides={"resume": str(tmp_path / "broken" / "weights" / "last.pt")}).train()
    one, other = (essence(load_checkpoint(tmp_path / name / "weights" / "last.pt")) for name in ("straight", "broken"))
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_two_runs_are_bit_equal(set_options: Options, tmp_path: Path) -> None:
    for name in ("one", "two"):
        RTDETRTrainer(overrides=set_options(save_dir=str(tmp_path / name), epochs=1, deterministic=True)).train()
    one, two = (essence(load_checkpoint(tmp_path / name / "weights" / "last.pt")) for name in ("one", "two"))
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_random_weights_train_all_layers_alike_and_given_ones_the_backbone_less(
    set_options: Options, tmp_path: Path, tiny_rtdetr: Path
) -> None:
    other = with_ratio(tiny_rtdetr, tmp_path)
    fresh = RTDETRTrainer(overrides=set_options(model=str(other), epochs=1))
    fresh.train()
    assert {group["initial_lr"] for group in fresh.optimizer.param_groups} == {2e-3}
    again = RTDETRTrainer(overrides=set_options(model=str(fresh.best), epochs=1))
    again.train()
    rates = {group["name"]: group["initial_lr"] for group in again.optimizer.param_groups}
    assert len(rates) == 6
    for kind in ("weight", "bn", "bias"):
        assert rates[kind] == pytest.approx(1e-4)
        assert rates[f"backbone.{kind}"] == pytest.approx(1e-5)
    ruled = RTDETRTrainer(overrides=set_options(model=str(fresh.best), epochs=1, lr_rules={"backbone": 0.5}))
    ruled.train()
    rates = {group["name"]: group["initial_lr"] for group in ruled.optimizer.param_groups}
    assert rates["backbone.weight"] == pytest.approx(5e-5), "a rule of the user takes the place of the table's ratio"


def test_the_recipe_and_its_timeline(set_options: Options) -> None:
    trainer = RTDETRTrainer(overrides=set_options(epochs=4))
    assert (trainer.args.clip_grad_norm, trainer.args.box, trainer.args.cls, trainer.args.dfl) == (0.1, 2.0, 1.0, 5.0)
    trainer.train()
    assert trainer.plan.optimizer == "AdamW" and trainer.plan.warmup_bias_lr == 0
    rows = {row[0]: row[1:] for row in stage_rows(trainer)}
    assert rows["with multi_scale"][:2] == ["0 - 3", "0% - 75%"]
    assert rows["without multi_scale"] == ["3 - 4", "75% - 100%", "...............#####"]
    assert trainer.augmentation_closed()
    images = torch.zeros(1, 3, 64, 64)
    assert trainer.rescale(images) is images


def test_only_rules_about_the_backbone_replace_its_ratio(
    set_options: Options, tmp_path: Path, tiny_rtdetr: Path
) -> None:
    given = RTDETRTrainer(overrides=set_options(model=str(with_ratio(tiny_rtdetr, tmp_path)), epochs=1)).train().best
    for rules, factor in (
        ({"decay_rules": {"head.cls": 0.5}}, 0.1),
        ({"lr_rules": {"head.cls": 2.0}}, 0.1),
        ({"lr_rules": {"model.0": 0.5}}, 0.5),
        ({"layer_decay": 0.9}, 0.9**6),
    ):
        trainer = RTDETRTrainer(overrides=set_options(model=str(given), epochs=1, plots=False, **rules))
        trainer.train()
        first = trainer.model.model[0].conv.weight
        rate = next(g["initial_lr"] for g in trainer.optimizer.param_groups if any(p is first for p in g["params"]))
        assert rate == pytest.approx(1e-4 * factor), rules


@pytest.mark.parametrize(
    "give",
    [
        lambda options: {"cfg": TrainOptions(**options)},
        lambda options: {"overrides": TrainOptions(**options)},
        lambda options: {"cfg": TrainOptions(**options), "overrides": {"lrf": 0.1}},
        lambda options: {"overrides": resolve(call=options)},
    ],
)
def test_the_recipe_holds_whatever_form_options_have(set_options: Options, give: Any) -> None:
    args = RTDETRTrainer(**give(set_options(cls=3.0))).args
    assert (args.box, args.cls, args.dfl, args.clip_grad_norm, args.multi_scale) == (2.0, 3.0, 5.0, 0.1, 0.25)
    assert (args.source("box"), args.source("cls")) == ("recipe", "call")


def test_multi_scale_and_close_mosaic_belong_together(set_options: Options) -> None:
    still = {"mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0}
    RTDETRTrainer(overrides=set_options(val=False, multi_scale=0.5)).train()  # first validated in the last part
    RTDETRTrainer(overrides=set_options(close_mosaic=1, **still)).train()  # ends multi_scale alone
    with pytest.raises(ValueError, match="multi_scale=0.5 has no effect: close_mosaic=2"):
        RTDETRTrainer(overrides=set_options(close_mosaic=2, multi_scale=0.5)).train()
    with pytest.raises(ValueError, match="close_mosaic=1 has no effect"):
        YOLO("yolo26n").train(**(set_options(close_mosaic=1, multi_scale=0.5, **still) | {"model": "yolo26n"}))


def test_a_model_of_the_other_family_is_refused_whoever_made_it(set_options: Options, tiny_rtdetr: Path) -> None:
    class Mixed(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return RTDETRDetectionModel(str(tiny_rtdetr), nc=self.data["nc"], verbose=False)

    with pytest.raises(ValueError, match="Mixed does not train a RTDETRDetectionModel; use RTDETRTrainer"):
        Mixed(overrides=set_options()).train()


def test_gains_scale_their_losses(set_options: Options) -> None:
    seen = {}
    for gains in ({}, {"box": 4.0, "cls": 3.0, "dfl": 10.0}):
        trainer = RTDETRTrainer(overrides=set_options(epochs=1, **gains))
        trainer.train()
        seen[bool(gains)] = trainer.model.criterion.gains
    assert seen == {False: {"giou": 2.0, "cls": 1.0, "l1": 5.0}, True: {"giou": 4.0, "cls": 3.0, "l1": 10.0}}

    class Own(RTDETRTrainer):
        def set_model_attributes(self) -> None:
            self.model.nc, self.model.names, self.model.args = self.data["nc"], self.data["names"], self.args

    trainer = Own(overrides=set_options(epochs=1, box=4.0))
    trainer.train()
    assert trainer.model.criterion.gains["giou"] == 4.0, "an override that says nothing of gains keeps those typed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nms": True}, "nms=True has no effect on RT-DETR"),
        ({"model": "yolo26n"}, "RTDETRTrainer does not train a DetectionModel; use DetectionTrainer"),
    ],
)
def test_what_does_not_fit_is_refused(set_options: Options, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RTDETRTrainer(overrides=set_options(**changes)).train()


def test_bit_equal_results_are_refused_by_name_where_they_cannot_be_had() -> None:
    from eyas.train.rtdetr import refuse_deterministic

    with pytest.raises(ValueError, match="deterministic=True cannot be kept on cuda"):
        refuse_deterministic(resolve(call={"deterministic": True}), torch.device("cuda"))
    refuse_deterministic(resolve(call={}), torch.device("cuda"))
    refuse_deterministic(resolve(call={"deterministic": True}), torch.device("cpu"))


def test_yolos_trainer_refuses_the_other_family(set_options: Options) -> None:
    with pytest.raises(ValueError, match="RTDETRTrainer"):
        DetectionTrainer(overrides=set_options()).train()


def test_denoising_and_validation_leave_a_model_of_the_class(set_options: Options) -> None:
    trainer = RTDETRTrainer(overrides=set_options(epochs=1))
    trainer.train()
    assert isinstance(trainer.model, RTDETRDetectionModel)
