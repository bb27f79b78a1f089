"""What a training does: it learns, it decides, it returns, and overrides see what the architecture promises."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from eyas import YOLO
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.train import DetectionTrainer
from eyas.train.plan import make_plan


def test_small_data_learns(options: Any, digits_tiny: Path, tmp_path: Path) -> None:
    """Spec core I.1: 10 images, batch 4, 5 epochs and defaults must move every parameter that gets a gradient."""
    data = yaml.safe_load(digits_tiny.read_text())
    images = sorted((digits_tiny.parent / data["train"]).rglob("*.*"))[:10]
    (tmp_path / "ten.txt").write_text("\n".join(str(p) for p in images))
    ten = tmp_path / "ten.yaml"
    ten.write_text(yaml.safe_dump({"train": "ten.txt", "val": "ten.txt", "names": data["names"]}))
    before: dict[str, torch.Tensor] = {}
    had_gradient: set[str] = set()

    class Watch(Callback):
        def adjust_gradients(self, trainer: Any, parameters: Any) -> Any:
            had_gradient.update(k for k, v in trainer.model.named_parameters() if v.grad is not None and v.grad.any())
            return parameters

    def remember(trainer: DetectionTrainer) -> None:
        before.update({k: v.detach().clone() for k, v in trainer.model.named_parameters()})

    trainer = DetectionTrainer(overrides=options(data=str(ten), batch=4, epochs=5), _callbacks=[Watch()])
    trainer.add_callback("on_train_start", remember)
    trainer.train()
    still = [k for k, v in trainer.model.named_parameters() if torch.equal(before[k], v)]
    assert trainer.plan.accumulate == 1 and trainer.plan.warmup_batches < trainer.plan.updates
    assert not had_gradient & set(still), "whatever was asked to move, moved"
    # The coarser levels of so small a network input may never be chosen for a box.
    assert [k for k in before if k not in had_gradient and "cv2.1." not in k and "cv2.2." not in k] == []


def test_loss_falls_and_the_result_says_what_happened(options: Any) -> None:
    yolo = YOLO(options()["model"])
    changes = {k: v for k, v in options(epochs=6, lr0=0.01, mosaic=0.0, plots=True).items() if k != "model"}
    result = yolo.train(**changes)
    losses = [row["train/cls_loss"] for row in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5, 6] and result.epochs == 6
    assert set(result.metrics) >= {
        "metrics/precision(B)",
        "metrics/recall(B)",
        "metrics/mAP50(B)",
        "metrics/mAP50-95(B)",
    }
    best = load_checkpoint(result.best)
    assert best["epoch"] + 1 == result.best_epoch
    for key, value in yolo.model.state_dict().items():
        assert torch.equal(value, best["model"][key]), key

    folder = result.save_dir
    expected = (
        "options.yaml plan.json results.csv results.png dataset_report.json labels.jpg train_batch0.jpg "
        "val_batch0_labels.jpg val_batch0_pred.jpg BoxPR_curve.png BoxF1_curve.png confusion_matrix.png "
        "weights/last.pt weights/best.pt"
    )
    missing = [name for name in expected.split() if not (folder / name).is_file()]
    assert missing == []
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(rows) == 6 and float(rows[-1]["train/cls_loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert (
        list(rows[0])[:3] == ["epoch", "time", "train/box_loss"] and "val/box_loss" in rows[0] and "lr/pg0" in rows[0]
    )
    assert json.loads((folder / "plan.json").read_text())["epochs"] == 6
    assert yaml.safe_load((folder / "options.yaml").read_text())["lr0"] == 0.01


def test_best_follows_an_override_of_validate_on_any_scale(options: Any) -> None:
    """Architecture trap 3: negative scores, and best_fitness written by the override before the loop looks."""
    scores = iter([-5.0, -2.0, -2.0, -9.0])

    class ByMyScore(DetectionTrainer):
        def validate(self) -> Any:
            metrics, _ = super().validate()
            fitness = next(scores)
            if self.best_fitness is None or fitness > self.best_fitness:
                self.best_fitness = fitness
            return metrics | {"my/score": fitness}, fitness

    trainer = ByMyScore(overrides=options(epochs=4))
    result = trainer.train()
    assert result.best_epoch == 2, "ties keep the earlier"
    assert load_checkpoint(result.best)["epoch"] == 1
    assert result.fitness == -2.0
    assert [row["my/score"] for row in result.history] == [-5.0, -2.0, -2.0, -9.0]


def test_a_subclass_may_replace_the_optimizer_whole(options: Any) -> None:
    """Architecture trap 8: groups without labels keep their ratio through warm-up and schedule."""
    ratios: list[float] = []

    class TwoRates(DetectionTrainer):
        def build_optimizer(self, model: Any, name: str = "auto", lr: float = 0.001, **kwargs: Any) -> Any:
            assert name == "AdamW" and lr == 0.004, "what auto chose arrives here"
            back = [p for n, p in model.named_parameters() if int(n.split(".")[1]) < 11]
            rest = [p for n, p in model.named_parameters() if int(n.split(".")[1]) >= 11]
            return torch.optim.AdamW([{"params": back, "lr": lr * 0.1}, {"params": rest, "lr": lr}])

    def note(trainer: Any) -> None:
        slow, fast = (g["lr"] for g in trainer.optimizer.param_groups)
        ratios.append(fast / slow)

    trainer = TwoRates(overrides=options(epochs=2, warmup_epochs=0.5))
    trainer.add_callback("on_train_batch_end", note)
    trainer.train()
    assert ratios == pytest.approx([10.0] * 8)


def test_a_parameter_left_out_of_the_optimizer_stops_the_run(options: Any) -> None:
    class Forgets(DetectionTrainer):
        def build_optimizer(self, model: Any, **kwargs: Any) -> Any:
            return torch.optim.SGD([p for n, p in model.named_parameters() if "model.23." in n], lr=0.1)

    with pytest.raises(ValueError, match=r"in no optimizer group.*model\.0\.conv\.weight"):
        Forgets(overrides=options()).train()


def test_optimizer_step_may_be_written_by_hand(options: Any) -> None:
    """Architecture trap 2: the scaler exists, and a hand-written step gives the stock training bit for bit."""

    class ByHand(DetectionTrainer):
        def optimizer_step(self) -> None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=10.0)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            if self.ema:
                self.ema.update(self.model)

    stock, by_hand = DetectionTrainer(overrides=options(epochs=2)), ByHand(overrides=options(epochs=2))
    stock.train()
    by_hand.train()
    for (key, a), b in zip(stock.model.state_dict().items(), by_hand.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_set_model_attributes_may_replace_the_model(options: Any) -> None:
    """Architecture trap 1: what training, EMA and checkpoints use is the replacement."""

    class Converts(DetectionTrainer):
        def set_model_attributes(self) -> None:
            super().set_model_attributes()
            self.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.model)

    class Stop(Exception):
        pass

    def check(trainer: Any) -> None:
        for model in (trainer.model, trainer.ema.ema):
            assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules())
        raise Stop

    trainer = Converts(overrides=options())
    trainer.add_callback("on_train_start", check)
    with pytest.raises(Stop):
        trainer.train()


def test_a_users_model_with_a_replaced_bce(options: Any) -> None:
    """Architecture trap 9: ``criterion.bce`` is called unreduced when the loss is computed."""
    shapes: list[tuple[int, ...]] = []

    class Weighted(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            model = super().get_model(cfg, weights, verbose)
            inner = torch.nn.BCEWithLogitsLoss(pos_weight=torch.full((self.data["nc"],), 2.0), reduction="none")

            def bce(logits: Any, targets: Any) -> Any:
                shapes.append(tuple(logits.shape))
                return inner(logits, targets)

            stock = type(model).init_criterion

            def init_criterion() -> Any:
                assert model.nc == 10 and model.names[9] == "9" and model.args is self.args  # trap 10
                criterion = stock(model)
                criterion.one2many.bce = criterion.one2one.bce = bce
                return criterion

            model.init_criterion = init_criterion
            return model

    Weighted(overrides=options(epochs=1, ema=False)).train()
    assert shapes and all(len(s) == 3 and s[2] == 10 for s in shapes)


def test_assigning_options_inside_an_override(options: Any) -> None:
    """Architecture trap 14."""
    trainer = DetectionTrainer(overrides=options())
    trainer.args.warmup_bias_lr = 0.0
    with pytest.raises(ValueError, match="warmup_bias_lr"):
        trainer.args.warmup_bias_lrr = 0.0


def test_plan_obeys_typed_values_and_fits_the_rest(options: Any) -> None:
    trainer = DetectionTrainer(overrides=options(nbs=64, lr0=0.123, epochs=7, warmup_epochs=1.0, close_mosaic=2))
    plan = make_plan(trainer.args, trainer.recipe, images=64, batch=16, batches=4)
    assert (plan.accumulate, plan.lr0, plan.epochs, plan.warmup_batches, plan.close_mosaic) == (4, 0.123, 7, 4, 2)
    assert plan.weight_decay == pytest.approx(0.0005)
    by = {d.name: d.by for d in plan.decisions}
    assert by["lr0"] == "call" and "auto" in by["optimizer"]


def test_accumulation_to_nbs_equals_one_large_batch(options: Any) -> None:
    """Two half batches per step give the gradients of the whole batch where the loss is a plain sum over images."""

    class PerImage(Callback):
        def on_train_batch_start(self, trainer: Any) -> None:
            for module in trainer.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()  # statistics of a batch are not a sum over images

        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            raw = trainer.model.predict(trainer.batch["img"])
            return sum(branch["scores"].square().sum() + branch["boxes"].square().sum() for branch in raw.values())

    def gradient(batch: int) -> torch.Tensor:
        grads: list[torch.Tensor] = []

        class Keep(DetectionTrainer):
            def optimizer_step(self) -> None:
                grads.append(self.model.model[0].conv.weight.grad.clone())
                super().optimizer_step()

        o = options(batch=batch, nbs=32, epochs=1, mosaic=0.0, clip_grad_norm=0.0, val=False)
        Keep(overrides=o, _callbacks=[PerImage()]).train()
        return grads[0]

    small, large = gradient(16), gradient(32)
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4 * large.abs().max().item())


def test_patience_val_every_and_save_period(options: Any) -> None:
    class Flat(DetectionTrainer):
        def validate(self) -> Any:
            metrics, _ = super().validate()
            return metrics, 0.5

    result = Flat(overrides=options(epochs=20, patience=4, val_every=2, save_period=2)).train()
    assert result.epochs == 6, "best in epoch 2, patience over in epoch 6"
    validated = ["metrics/mAP50(B)" in row for row in result.history]
    assert validated == [False, True, False, True, False, True]
    assert sorted(p.name for p in result.last.parent.glob("epoch*.pt")) == ["epoch2.pt", "epoch4.pt", "epoch6.pt"]


def test_time_budget_ends_the_run(options: Any) -> None:
    result = DetectionTrainer(overrides={k: v for k, v in options(time=8 / 3600).items() if k != "epochs"}).train()
    assert result.history[-1]["time"] < 20
    assert result.history[-1]["lr/pg0"] < 0.2 * result.plan.lr0, "annealed, however many epochs fitted into the time"
    assert result.last.exists() and "metrics/mAP50(B)" in result.metrics


def test_batches_without_any_object(options: Any, tmp_path: Path) -> None:
    """Background images are images; a whole epoch of them trains and validates."""
    import cv2
    import numpy as np

    for i in range(6):
        for split in ("train", "val"):
            folder = tmp_path / "empty" / "images" / split
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), 40 * i, np.uint8))
    labels = tmp_path / "empty" / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("1 0.5 0.5 0.4 0.4\n")
    file = tmp_path / "empty" / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a", "b"]}))
    result = DetectionTrainer(overrides=options(data=str(file), batch=2, epochs=2, mosaic=0.0)).train()
    assert all(torch.isfinite(torch.tensor(row["train/cls_loss"])) for row in result.history)


@pytest.mark.parametrize("optimizer", ["SGD", "MuSGD", "Adam", "NAdam", "RAdam", "RMSprop"])
def test_optimizers_train(options: Any, optimizer: str) -> None:
    result = DetectionTrainer(overrides=options(optimizer=optimizer, lr0=1e-4, epochs=1, val=False)).train()
    assert result.plan.optimizer == optimizer


def test_multi_scale_and_mixing_train(options: Any) -> None:
    sizes: set[int] = set()

    def note(trainer: Any) -> None:
        sizes.add(trainer.batch["img"].shape[-1])

    o = options(imgsz=96, multi_scale=0.5, mixup=0.5, cutmix=0.5, degrees=10.0, shear=5.0, perspective=0.0005, epochs=2)
    trainer = DetectionTrainer(overrides=o)
    trainer.add_callback("on_train_batch_end", note)
    trainer.train()
    assert len(sizes) > 1 and all(s % 32 == 0 for s in sizes)


def test_a_fitness_that_is_nan_is_never_the_best(options: Any, caplog: pytest.LogCaptureFixture) -> None:
    scores = iter([float("nan"), -1.0, None])

    class Odd(DetectionTrainer):
        def validate(self) -> Any:
            return super().validate()[0], next(scores)

    result = Odd(overrides=options()).train()
    assert (result.best_epoch, result.fitness) == (2, -1.0)
    assert "fitness is nan" in caplog.text


def test_without_any_fitness_the_last_weights_are_adopted(options: Any) -> None:
    class Blind(DetectionTrainer):
        def validate(self) -> Any:
            return super().validate()[0], None

    yolo = YOLO(options()["model"])
    changes = {k: v for k, v in options(epochs=1).items() if k != "model"}
    result = yolo.train(trainer=Blind, **changes)
    assert result.best_epoch == 0 and not result.best.exists()
    assert torch.equal(
        yolo.model.state_dict()["model.0.conv.weight"], load_checkpoint(result.last)["model"]["model.0.conv.weight"]
    )


def test_save_false_still_keeps_the_best_weights(options: Any) -> None:
    scores = iter([1.0, 2.0, 0.5])

    class SecondIsBest(DetectionTrainer):
        def validate(self) -> Any:
            return super().validate()[0], next(scores)

    result = SecondIsBest(overrides=options(save=False)).train()
    assert load_checkpoint(result.best)["epoch"] + 1 == result.best_epoch == 2
    assert load_checkpoint(result.last)["epoch"] + 1 == 3


def test_a_component_of_the_user_replaces_the_stock_one_of_its_class(options: Any) -> None:
    from eyas.callbacks import ClipGradNorm

    class Mine(ClipGradNorm):
        pass

    trainer = DetectionTrainer(overrides=options(), _callbacks=[Mine(0.5)])
    clips = [c for c in trainer.callbacks.callbacks if isinstance(c, ClipGradNorm)]
    assert [type(c) for c in clips] == [Mine]
    bare = DetectionTrainer(overrides=options(), _callbacks=[Callback()])
    assert any(isinstance(c, ClipGradNorm) for c in bare.callbacks.callbacks), "an unrelated callback replaces nothing"
    with pytest.raises(ValueError, match="both decide clipping by norm"):
        DetectionTrainer(overrides=options(clip_grad_norm=1.0), _callbacks=[Mine(0.5)])


def test_clipping_is_the_same_through_option_component_and_override(options: Any) -> None:
    from eyas.callbacks import ClipGradNorm

    class ByHand(DetectionTrainer):
        def optimizer_step(self) -> None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=0.1)
            super().optimizer_step()

    runs = (
        DetectionTrainer(overrides=options(epochs=1, clip_grad_norm=0.1)),
        DetectionTrainer(overrides=options(epochs=1), _callbacks=[ClipGradNorm(0.1)]),
        ByHand(overrides=options(epochs=1, clip_grad_norm=0)),
        DetectionTrainer(overrides=options(epochs=1)),
    )
    for run in runs:
        run.train()
    option, component, override, stock = (run.model.state_dict() for run in runs)
    for key, value in option.items():
        assert torch.equal(value, component[key]) and torch.equal(value, override[key]), key
    assert not torch.equal(option["model.0.conv.weight"], stock["model.0.conv.weight"])


def test_single_cls_and_a_table_without_the_end_to_end_branch(options: Any, tmp_path: Path) -> None:
    table = yaml.safe_load(Path(options()["model"]).read_text()) | {"end2end": False}
    (tmp_path / "dense.yaml").write_text(yaml.safe_dump(table))
    o = options(model=str(tmp_path / "dense.yaml"), single_cls=True, classes=[3, 4], epochs=1, cls_pw=0.5)
    trainer = DetectionTrainer(overrides=o)
    trainer.train()
    assert trainer.model.nc == 1 and trainer.data["names"] == {0: "item"}
    truth = trainer.validator.metrics.nt_per_class.sum()
    assert truth == trainer.test_loader.dataset.index.instances(1).sum() > 0


def test_class_weights_reach_the_loss_of_both_branches(options: Any) -> None:
    trainer = DetectionTrainer(overrides=options(epochs=1, cls_pw=1.0))
    trainer.train()
    counts = torch.as_tensor(trainer.train_loader.dataset.index.instances(10), dtype=torch.float32)
    for branch in (trainer.model.criterion.one2many, trainer.model.criterion.one2one):
        weights = branch.class_weights.flatten()
        torch.testing.assert_close(weights * counts, (weights * counts).mean().expand(10))
        assert weights.mean().item() == pytest.approx(1.0)


def test_users_transforms_see_every_training_image(options: Any) -> None:
    yolo = YOLO(options()["model"])
    changes = {k: v for k, v in options(epochs=1).items() if k != "model"}
    seen: list[tuple[int, ...]] = []
    reds: list[float] = []

    def only_red(image: Any, boxes: Any, labels: Any) -> Any:
        seen.append((*image.shape, boxes.shape[1]))
        image = image.copy()
        image[..., 1:] = 0
        return image, boxes, labels

    yolo.add_callback("on_train_batch_end", lambda t: reds.append(float(t.batch["img"][:, 1:].sum())))
    yolo.train(transforms=[only_red], **changes)
    assert seen == [(64, 64, 3, 4)] * 64 and reds == [0.0] * 4


def test_options_that_the_optimizer_or_device_cannot_use_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="warmup_momentum=0.5 has no effect on AdamW"):
        DetectionTrainer(overrides=options(warmup_momentum=0.5)).train()
    with pytest.raises(ValueError, match="outlasts the run"):
        DetectionTrainer(overrides=options(warmup_epochs=5.0)).train()
    with pytest.raises(ValueError, match="amp='fp16' is for GPUs"):
        DetectionTrainer(overrides=options(amp="fp16"))
    with pytest.raises(ValueError, match="Did you mean"):
        DetectionTrainer(overrides=options(optimizer="Adadeltaa"))
