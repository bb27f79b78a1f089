"""Every option of training: where its effect is kept away the run is refused, where it is not the run is not.

Most is known as soon as a run is set up, and refused then; what shows only in the first epoch, after it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import nn

from eyas.augment.settings import AugmentSettings
from eyas.callbacks import Callback
from eyas.config import OptionValueError, TrainOptions, option_names
from eyas.data.dataset_yaml import check_dataset
from eyas.data.index import build_index
from eyas.data.loader import build_train_loader
from eyas.data.store import ImageStore
from eyas.models import DetectionModel
from eyas.optim import ModelEMA
from eyas.prove.effects import NoEffectError
from eyas.report.page import RunPage
from eyas.report.pictures import Pictures
from eyas.report.predictions import Predictions
from eyas.report.progress import ConsoleReport
from eyas.train import DetectionTrainer, RTDETRTrainer
from eyas.train.autosave import Autosave
from eyas.train.watch import Watch
from small_vit import masked_vit

TINY = {"epochs": 2, "batch": 8, "fraction": 0.125}
AUGMENTATION = {
    "hsv_h": 0.1, "hsv_s": 0.1, "hsv_v": 0.1, "degrees": 5.0, "translate": 0.2, "scale": (0.8, 1.2), "shear": 2.0,
    "perspective": 0.0004, "flipud": 0.5, "fliplr": 0.2, "bgr": 0.5, "mosaic": 0.5, "mixup": 0.5, "cutmix": 0.5,
    "zoom_out": 0.5, "crop": 0.5, "contrast": 0.2,
}  # fmt: skip


# -- ways to keep an effect away ---------------------------------------------------------------------------------------
class OtherModel(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return DetectionModel("yolo26n", nc=self.data["nc"], names=self.data["names"], verbose=False)


class ForgetsWeights(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return DetectionModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


class KeepsAll(DetectionTrainer):
    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        network: Any = self.model
        for layer in network.recomputing_layers():
            layer.saves_memory = False


class OwnRemap(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = DetectionModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)
        model.load(weights)
        return model


class StartsAnew(DetectionTrainer):
    def resume_training(self, checkpoint: Any) -> None:
        pass


class Elsewhere(DetectionTrainer):
    def set_folder(self, folder: Path) -> None:
        super().set_folder(folder.parent / "else" / "where-2")


class Numbered(DetectionTrainer):
    def set_folder(self, folder: Path) -> None:
        super().set_folder(folder.with_name("train-2"))


class SavesLast(DetectionTrainer):
    def save_model(self) -> bool:
        self.wdir.mkdir(exist_ok=True)
        torch.save({}, self.last)
        return True


class NeverSavesInside(DetectionTrainer):
    def setup(self) -> None:
        super().setup()
        self.autosave = Autosave(False, self.write_last)


class LooksAway(DetectionTrainer):
    def setup(self) -> None:
        super().setup()
        self.watch = Watch(0, self.debtor, self.end_stalled)


class NeverCompiles(DetectionTrainer):
    def compile_model(self) -> None:
        pass


class KeepsNone(DetectionTrainer):
    def keeps_this_epoch(self) -> bool:
        return False


class Draws(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callbacks.add(Pictures())


class WritesAPage(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callbacks.add(RunPage())


class KeepsPredictions(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callbacks.add(Predictions())


class Speaks(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callbacks.callbacks = [
            ConsoleReport() if isinstance(c, ConsoleReport) else c for c in self.callbacks.callbacks
        ]


class OwnDescription(DetectionTrainer):
    def get_dataset(self) -> dict[str, Any]:
        return check_dataset("digits-tiny")


class ManyClasses(DetectionTrainer):
    def get_dataset(self) -> dict[str, Any]:
        return check_dataset(self.args.data)


class SmallImages(DetectionTrainer):
    def imgsz(self) -> int:
        return 32


class SmallBatch(DetectionTrainer):
    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        return super().get_dataloader(dataset_path, 4, rank, mode)


class OwnIndex(DetectionTrainer):
    def build_index(self, img_path: Any, mode: str) -> Any:
        return build_index(img_path, names=self.data["names"], split=mode)


class OwnStore(DetectionTrainer):
    def image_store(self, index: Any) -> Any:
        return ImageStore(index, imgsz=self.imgsz())


class OwnLoader(DetectionTrainer):
    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        if mode == "val":
            return DetectionTrainer.build_dataset(self, dataset_path, mode)
        return build_train_loader(self.build_dataset(dataset_path), batch=batch_size, workers=0, seed=self.args.seed)


class Plain(DetectionTrainer):
    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        dataset: Any = super().build_dataset(img_path, mode, batch)
        dataset.settings, dataset.seed = AugmentSettings(), 0
        return dataset


class OwnBatch(DetectionTrainer):
    def train_batch(self, batch: Any) -> None:
        self.batch = self.preprocess_batch(batch)
        loss, self.loss_items = self.named_losses(self.model(self.batch))
        self.loss = loss.sum()
        self.loss.backward()
        self.optimizer_step()
        self.meter.update(self.loss_items)


class OwnPixels(DetectionTrainer):
    def preprocess_batch(self, batch: Any) -> Any:
        return batch | {"img": batch["img"].float() / 255}


class OwnPlan(DetectionTrainer):
    def make_plan(self) -> Any:
        return replace(super().make_plan(), epochs=3, warmup_batches=0, accumulate=1)


class Endless(DetectionTrainer):
    def should_stop(self) -> bool:
        return self.epoch >= 2


class NoComponents(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.callbacks.callbacks = [c for c in self.callbacks.callbacks if not c.options]


class OwnOptimizer(DetectionTrainer):
    def build_optimizer(self, model: nn.Module, name: str = "", lr: float = 0, momentum: float = 0, decay: float = 0, iterations: float = 0) -> Any:  # fmt: skip  # noqa: E501
        return torch.optim.SGD(model.parameters(), lr=0.01)


class OtherRates(DetectionTrainer):
    def build_optimizer(self, model: nn.Module, name: str = "", lr: float = 0, momentum: float = 0, decay: float = 0, iterations: float = 0) -> Any:  # fmt: skip  # noqa: E501
        return super().build_optimizer(model, "SGD", 0.125, momentum, 0.25, iterations)


class Stubborn(DetectionTrainer):
    def set_rates(self) -> None:
        super().set_rates()
        for group in self.optimizer.param_groups:
            group["momentum"] = 0.55


class OwnCurve(DetectionTrainer):
    def lf(self, fraction: float) -> float:
        return 1.0


class OwnWarmUp(DetectionTrainer):
    def set_rates(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 * self.lf(self.progress().fraction)


class OwnAverage(DetectionTrainer):
    def setup(self) -> None:
        super().setup()
        self.ema = ModelEMA(self.model, decay=0.5, tau=3.0)


class OwnStep(DetectionTrainer):
    def optimizer_step(self) -> None:
        self.scaler.step(self.optimizer)
        self.optimizer.zero_grad()


class OnMeta(DetectionTrainer):
    def setup(self) -> None:
        super().setup()
        self.model = self.model.to("meta")


class Alone(DetectionTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = 0


class HalfPrecision(DetectionTrainer):
    def setup(self) -> None:
        super().setup()
        self.amp_dtype = torch.bfloat16


class LaidOut(DetectionTrainer):
    def set_model_attributes(self) -> None:
        super().set_model_attributes()
        self.model = self.model.to(memory_format=torch.channels_last)


class AlwaysTheSame(DetectionTrainer):
    """As on a GPU, where kernels were made deterministic by someone."""

    def setup(self) -> None:
        super().setup()
        self.device = torch.device("cuda")
        torch.use_deterministic_algorithms(True)

    def close_loaders(self) -> None:
        torch.use_deterministic_algorithms(False)
        self.device = torch.device("cpu")
        super().close_loaders()


class FlatModel(DetectionModel):
    def init_criterion(self) -> Any:
        stock = super().init_criterion()
        for part in (stock.one2many, stock.one2one):
            part.gains = dict.fromkeys(part.gains, 1.0)
        return stock


class FlatLoss(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        return FlatModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)


class LosesWeights(DetectionTrainer):
    """Makes the criterion anew when its class weights are in."""

    def start_epoch_here(self) -> None:
        model: Any = self.model
        model.class_weights, model.criterion = None, None
        model.criterion = model.init_criterion()
        super().start_epoch_here()


class KeepsNothingAside(DetectionTrainer):
    def build_index(self, img_path: Any, mode: str) -> Any:
        self.data["ignore"] = False
        return super().build_index(img_path, mode)


class OneSize(DetectionTrainer):
    def rescale(self, images: torch.Tensor) -> torch.Tensor:
        return images


class NeverCloses(DetectionTrainer):
    def closing_epochs(self) -> int:
        return 0


class OwnValidation(DetectionTrainer):
    def validation_due(self) -> bool:
        return True


class EveryEpoch(DetectionTrainer):
    def validation_due(self) -> bool:
        return super().validation_due() or True


class OtherThresholds(DetectionTrainer):
    def get_validator(self) -> Any:
        validator: Any = super().get_validator()
        validator.conf, validator.iou, validator.max_det = 0.3, 0.3, 3
        validator.nms, validator.agnostic_nms = None, False
        return validator


class OwnEnd(DetectionTrainer):
    def evaluate_best(self, model: nn.Module) -> dict[str, float]:
        return {}


class SkipsAdjusters(DetectionTrainer):
    def validate_epoch(self) -> None:
        self.metrics, self.fitness = self.validate()


class Leaks(Callback):
    def on_train_batch_end(self, trainer: Any) -> None:
        with torch.no_grad():
            next(p for p in trainer.model.parameters() if not p.requires_grad).add_(1.0)


# -- one case for each option ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """How the effect of an option is kept away.

    Attributes:
        value: another one than the default.
        by: trainer that ignores it.
        beside: options without which it would be void anyway.
        callbacks: classes of callbacks that get in the way.
        later: whether this shows only in the first epoch.
        said: how the error begins where a component or one of its hooks tells it.
    """

    value: Any
    by: type[DetectionTrainer] = DetectionTrainer
    beside: dict[str, Any] = field(default_factory=dict)
    callbacks: tuple[type[Callback], ...] = ()
    later: bool = False
    said: str = ""


CASES: dict[str, Case] = {
    "model": Case("{model}", OtherModel),
    "pretrained": Case("{weights}", ForgetsWeights),
    "backbone": Case("vit-tiny"),
    "backbone_weights": Case("{masked}"),
    "accept_licences": Case(["CC-BY-NC-4.0"]),
    "gradient_checkpointing": Case(True, KeepsAll),
    "cls_remap": Case(False, OwnRemap, {"pretrained": "{weights}"}),
    "project": Case("{folder}/mine", Elsewhere),
    "name": Case("mine", Elsewhere),
    "save_dir": Case("{folder}/own", Elsewhere, {"project": None}),
    "exist_ok": Case(True, Numbered),
    "save": Case(False, SavesLast),
    "save_period": Case(1, KeepsNone, later=True),
    "save_every": Case("2h", NeverSavesInside),
    "plots": Case(False, Draws),
    "report": Case(False, WritesAPage),
    "save_predictions": Case(False, KeepsPredictions),
    "loggers": Case(["jsonl"], NoComponents),
    "verbose": Case(False, Speaks),
    "data": Case("{data}", OwnDescription),
    "imgsz": Case(64, SmallImages),
    "batch": Case(8, SmallBatch),
    "fraction": Case(0.25, OwnIndex),
    "val_fraction": Case(0.25, OwnIndex, {"data": "{unsplit}"}),
    "ids_start": Case(1, OwnIndex, {"data": "{unsplit}", "val": False}),
    "single_cls": Case(True, ManyClasses),
    "classes": Case([1, 3], OwnIndex),
    "cache": Case("ram", OwnStore),
    "remote_cache": Case("{folder}/kept:1GB", ManyClasses, {"data": "{elsewhere}"}),
    "workers": Case(1, OwnLoader),
    "bad_images": Case(0.5, OwnLoader),
    "sampler": Case("balanced", OwnLoader),
    "sampler_threshold": Case(0.9, OwnLoader, {"sampler": "repeat"}),
    "epochs": Case(2, OwnPlan),
    "time": Case(1.0, Endless, {"epochs": None}),
    "patience": Case(5, SkipsAdjusters, later=True),
    "optimizer": Case("AdamW", OtherRates),
    "lr0": Case(0.02, OtherRates),
    "lrf": Case(0.1, OwnCurve),
    "momentum": Case(0.7, Stubborn, {"optimizer": "SGD", "warmup_epochs": 0.0}, later=True),
    "weight_decay": Case(0.01, OtherRates),
    "schedule": Case("flat-cosine", OwnCurve),
    "cos_lr": Case(True, OwnCurve),
    "warmup_epochs": Case(1.0, OwnPlan),
    "warmup_momentum": Case(0.5, OwnWarmUp, {"optimizer": "SGD", "warmup_epochs": 1.0}),
    "warmup_bias_lr": Case(0.05, OwnWarmUp, {"warmup_epochs": 1.0}),
    "nbs": Case(16, OwnPlan),
    "ema": Case(False, OwnAverage),
    "ema_share": Case(0.2, OwnAverage, later=True),
    "ema_decay": Case(0.9, OwnAverage, later=True),
    "ema_tau": Case(7.0, OwnStep, {"clip_grad_norm": 0.0}, later=True),
    "clip_grad_norm": Case(1.0, OwnStep),
    "clip_grad_value": Case(1.0, OwnStep),
    "clip_per_group": Case(True, OwnStep),
    "freeze": Case("backbone", callbacks=(Leaks,), later=True),
    "freeze_epochs": Case(1.0, NoComponents, {"freeze": "backbone"}),
    "freeze_ramp": Case(1.0, NoComponents, {"freeze": "backbone", "freeze_epochs": 1.0}),
    "freeze_norm": Case("update", NoComponents, {"freeze": "backbone"}),
    "lr_rules": Case({"head": 0.5}, OwnOptimizer),
    "layer_decay": Case(0.8, OwnOptimizer),
    "decay_rules": Case({"head": 0.0}, OwnOptimizer),
    "sync_bn": Case(True, NoComponents),
    "teacher": Case("{weights}", NoComponents),
    "teacher_gain": Case(2.0, NoComponents, {"teacher": "{weights}"}),
    "metrics": Case(["f1"], SkipsAdjusters, later=True),
    "keep": Case(2, SkipsAdjusters, later=True),
    "best_by": Case(["f1"], SkipsAdjusters, later=True, said="BestBy: adjust_metrics was registered"),
    "stop": Case({"metric": "f1"}, SkipsAdjusters, later=True),
    "device": Case("cpu", OnMeta),
    "processes": Case(2, Alone),
    "restarts": Case(1),
    "stall_timeout": Case(600.0, LooksAway),
    "amp": Case(False, HalfPrecision),
    "compile": Case(True, NeverCompiles, later=True),
    "channels_last": Case(False, LaidOut),
    "seed": Case(4, Plain),
    "on_nan": Case("skip", OwnBatch, {"epochs": 1}, later=True),
    "deterministic": Case(False, AlwaysTheSame),
    "hsv_on_device": Case(True, OwnPixels),
    "box": Case(5.0, FlatLoss),
    "cls": Case(0.4, FlatLoss),
    "dfl": Case(2.0, FlatLoss),
    "ignore": Case(["3"], KeepsNothingAside),
    "cls_pw": Case(0.5, LosesWeights, later=True, said="cls_pw"),
    "class_weights": Case("balanced", LosesWeights, later=True, said="class_weights"),
    "class_weights_cap": Case(3.0, LosesWeights, {"class_weights": "balanced"}, later=True, said="class_weights"),
    "class_weights_normalize": Case(
        False, LosesWeights, {"class_weights": "balanced"}, later=True, said="class_weights"
    ),
    "multi_scale": Case(0.5, OneSize, {"imgsz": 96}, later=True),
    **{name: Case(value, Plain) for name, value in AUGMENTATION.items()},
    "close_mosaic": Case(1, NeverCloses),
    "val": Case(False, OwnValidation),
    "val_every": Case(2, EveryEpoch, later=True),
    "conf": Case(0.01, OtherThresholds),
    "iou": Case(0.6, OtherThresholds, {"nms": True}),
    "max_det": Case(50, OtherThresholds),
    "nms": Case(True, OtherThresholds),
    "agnostic_nms": Case(True, OtherThresholds),
    "save_json": Case(True, OwnEnd),
    "save_txt": Case(True, OwnEnd),
    "save_conf": Case(True, OwnEnd, {"save_txt": True}),
}


@pytest.fixture(scope="module")
def finished(digits_tiny: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``last.pt`` of a run of one epoch."""
    given = {"model": str(tiny_model), "data": str(digits_tiny), "imgsz": 32, "epochs": 1, "batch": 8, "workers": 0}
    trainer = StartsAnew(
        overrides=given | {"fraction": 0.125, "plots": False, "verbose": False, "device": "cpu"}
        | {"save_dir": str(tmp_path_factory.mktemp("run"))}
    )  # fmt: skip
    trainer.train()
    return trainer.last


@pytest.fixture(scope="module")
def elsewhere(digits_tiny: Path) -> str:
    """URL of the same data in memory, as if it were far away."""
    fsspec.filesystem("memory").put(f"{digits_tiny.parent}/", "/every_option", recursive=True)
    return f"memory://every_option/{digits_tiny.name}"


@pytest.fixture
def typed(options: Any, digits_tiny: Path, tiny_model: Path, tmp_path: Path, finished: Path, elsewhere: str) -> Any:
    """Return options of a tiny training, with those of a case."""
    unsplit = tmp_path / "unsplit.yaml"
    unsplit.write_text(f"train: {digits_tiny.parent}/images/train\nnc: 10\n")
    places = {"model": tiny_model, "data": digits_tiny, "folder": tmp_path, "weights": finished, "unsplit": unsplit}
    places["masked"] = masked_vit(tmp_path / "masked.pth")
    places |= {"elsewhere": elsewhere}

    def make(**changes: Any) -> dict[str, Any]:
        filled = {k: v.format(**places) if isinstance(v, str) else v for k, v in changes.items()}
        given = options(**(TINY | {"imgsz": 32} | filled))
        return {name: value for name, value in given.items() if value is not None}

    return make


def test_every_option_has_a_case() -> None:
    elsewhere = {"cfg", "resume", "accept_data_change"}  # below, and in test_resume
    assert CASES.keys() | elsewhere == set(option_names("train"))


@pytest.mark.parametrize("name", CASES)
def test_an_effect_that_is_kept_away_ends_the_run(name: str, typed: Any) -> None:
    case = CASES[name]
    given = typed(**case.beside, **{name: case.value})
    trainer = case.by(overrides=given, _callbacks=[cls() for cls in case.callbacks])
    with pytest.raises(ValueError, match=rf"(?m)^{case.said or f'{name}='}"):
        trainer.run_here()
    assert bool(trainer.loss_items) == case.later, "what can be known before the first step is said before it"


def test_a_run_that_is_not_taken_up_is_refused(finished: Path) -> None:
    trainer = StartsAnew(overrides={"resume": str(finished), "epochs": 3})
    with pytest.raises(NoEffectError, match=r"resume='.*' \(override\) has no effect: StartsAnew.resume_training\(\)"):
        trainer.run_here()


def test_an_option_file_is_taken_apart_or_refused(typed: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mosaic: 0.25\n")
    with pytest.raises(OptionValueError, match="cfg="):
        TrainOptions(cfg=str(file))
    trainer = DetectionTrainer(overrides=typed(cfg=str(file)))
    assert (trainer.args.mosaic, trainer.args.source("mosaic"), trainer.args.cfg) == (0.25, "file", None)


# -- no false alarms ---------------------------------------------------------------------------------------------------
TOGETHER = {
    "averages and clips": {
        "optimizer": "SGD", "lr0": 0.02, "lrf": 0.1, "momentum": 0.7, "weight_decay": 0.01, "schedule": "flat-cosine",
        "warmup_epochs": 1.5, "warmup_momentum": 0.5, "warmup_bias_lr": 0.05, "nbs": 3, "ema_decay": 0.9,
        "ema_tau": 7.0, "clip_grad_norm": 1.0, "clip_grad_value": 1.0, "clip_per_group": True, "freeze": "backbone",
        "freeze_epochs": 1.0, "freeze_ramp": 0.5, "freeze_norm": "update", "lr_rules": {"head": 0.5},
        "layer_decay": 0.9, "decay_rules": {"head": 0.0}, "sync_bn": True, "metrics": ["f1"], "best_by": ["f1"],
        "stop": {"metric": "f1", "patience": 2}, "val_every": 2, "epochs": 3, "save_period": 1, "seed": 4,
        "class_weights": "balanced", "class_weights_cap": 3.0, "class_weights_normalize": False, "fraction": 0.3,
        "multi_scale": 0.5, "imgsz": 50, "deterministic": False, "box": 5.0, "cls": 0.4, "dfl": 2.0, "compile": False,
        "hsv_on_device": False, "save_every": 3, "stall_timeout": 600.0, **AUGMENTATION,
    },
    "neither": {
        "ema": False, "cls_pw": 0.5, "save": False, "cos_lr": True, "optimizer": "Adam",
        "momentum": 0.8, "patience": 5, "save_txt": True, "save_conf": True, "clip_grad_norm": 0.0,
        "sampler": "repeat", "sampler_threshold": 0.9, "single_cls": False, "classes": [3, 1], "ignore": ["5"],
        "close_mosaic": 1, "loggers": ["jsonl"], "keep": 1, "save_predictions": True,
        "workers": 2, "cache": "disk", "pretrained": "{weights}",
        "cls_remap": False, "batch": 100, "bad_images": 0.0, "on_nan": "rollback",
        "nms": True, "iou": 0.6, "conf": 0.01, "max_det": 50, "hsv_on_device": True,
    },
    "against the clock": {"time": 1e-5, "epochs": None, "exist_ok": True, "name": "mine", "save_period": 0},
    "one validation": {"val": False, "ema_share": 0.2, "agnostic_nms": True, "amp": "fp32", "channels_last": False,
                       "save_json": True, "save_dir": "{folder}/own", "project": None, "single_cls": True,
                       "device": "cpu"},
    "another backbone": {
        "model": "rtdetr-r18", "backbone": "vit-tiny", "backbone_weights": "{masked}", "imgsz": 64, "epochs": 1,
        "accept_licences": ["cc-by-nc-4.0"], "gradient_checkpointing": True, "teacher": "{masked}", "teacher_gain": 2.0,
        "fraction": 0.1, "val": False,
    },
    "held out": {"data": "{unsplit}", "val_fraction": 0.25, "ids_start": 0},
    "elsewhere": {"data": "{elsewhere}", "remote_cache": "{folder}/kept:1GB", "workers": 1},
}  # fmt: skip


def test_every_option_is_proved_in_an_unmodified_run_as_well(options: Any) -> None:
    elsewhere = {
        "resume",
        "accept_data_change",
        "cfg",
        "processes",
        "restarts",
    }  # above, in test_effects_of_runs and in tests/multi
    assert set().union(*TOGETHER.values(), options(), TINY) | elsewhere == set(option_names("train"))


@pytest.mark.parametrize("name", TOGETHER)
def test_an_unmodified_run_is_not_refused(name: str, typed: Any) -> None:
    given = typed(**TOGETHER[name])
    trainer = (RTDETRTrainer if given["model"].startswith("rtdetr") else DetectionTrainer)(overrides=given)
    trainer.train()
    assert trainer.effects is not None
    assert [s for s, entry in trainer.effects.settings.items() if entry["seen"] is None] == []


def test_a_run_in_the_working_folder_is_not_refused(
    typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with DetectionTrainer(overrides=typed(project=".", name="here")).prepared():
        assert (tmp_path / "here").is_dir()


def test_names_of_other_things_excuse_no_option(typed: Any) -> None:
    class Reads(DetectionTrainer):
        def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
            with suppress(AttributeError):
                img_path.scale(2).cache()
            return list(range(8))

    with pytest.raises(ValueError, match="has no effect") as caught:
        Reads(overrides=typed(scale=0.2, cache="ram")).run_here()
    lines = str(caught.value).splitlines()
    assert {line.partition("=")[0] for line in lines} >= {"scale", "cache"}
