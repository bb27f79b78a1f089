"""A teacher: losses in closed form, the weight's rule, what is taught, and what stays behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import small_yolo
from eyas.callbacks.teacher import Teacher, adapted_weight
from eyas.checkpoint import CheckpointError
from eyas.losses.distill import cosine_distance, dense_distillation
from eyas.models import DetectionModel
from eyas.models.backbones.vit import VITS
from eyas.models.licences import LicenceError
from eyas.models.teachers import DetectorTeacher, FoundationTeacher, channels_of, open_teacher
from small_vit import masked_vit, weights


def test_distance_of_maps() -> None:
    a = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 3, 3)
    assert float(cosine_distance(a, 5 * a)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(a, a.flip(1))) == pytest.approx(1)
    half = torch.cat((a[:1], a[1:].flip(1)))
    assert float(cosine_distance(a, half)) == pytest.approx(0.5)


def raw(scores: list[float], boxes: list[list[float]]) -> dict[str, torch.Tensor]:
    """Return answers of one image with one class."""
    return {"scores": torch.tensor(scores).view(1, 1, -1), "boxes": torch.tensor(boxes).T[None]}


def test_distance_of_answers() -> None:
    unit = [1.0, 1.0, 1.0, 1.0]
    teacher = raw([0.0, -20.0], [unit, unit])
    assert float(dense_distillation(raw([0.0, -20.0], [unit, [3.0] * 4]), teacher)) == pytest.approx(0, abs=1e-5)
    # Concentric squares of sides 2 and 4: IoU 1/4, no other term of CIoU; the one anchor that is believed in.
    boxes = dense_distillation(raw([0.0, -20.0], [[2.0] * 4, unit]), teacher)
    assert float(boxes) == pytest.approx(7.5 * 0.75, rel=1e-4)
    # Probability 1/2 against 1/4: a divergence of log(2 / sqrt 3), over a belief of 1/2.
    logit = float(torch.tensor(0.25).logit())
    classes = dense_distillation(raw([logit, -20.0], [unit, unit]), teacher)
    assert float(classes) == pytest.approx(0.5 * 0.5 * float(torch.tensor(4 / 3).log()) / 0.5, rel=1e-4)
    with pytest.raises(ValueError, match="same classes, strides"):
        dense_distillation(raw([0.0], [unit]), teacher)


def test_the_weight_moves_to_the_nearer_edge_of_the_band() -> None:
    band = (11.0, 1.0)
    assert adapted_weight(5.0, 11.5, band, 20.0) == 5.0
    assert adapted_weight(5.0, 0.0, band, 20.0) == 20.0
    new = adapted_weight(5.0, 4.0, band, 20.0)
    assert new == pytest.approx(5.0 * (0.10 * 0.96) / (0.04 * 0.90))
    # If the taught layer's share comes from the teacher alone, w / (w + c), the new weight puts it on the edge.
    rest = 5.0 * 0.96 / 0.04
    assert new / (new + rest) == pytest.approx(0.10)
    assert adapted_weight(5.0, 90.0, band, 20.0) == 0.5 and adapted_weight(5.0, 0.1, band, 20.0) == 50.0


def test_a_transformer_is_told_by_what_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    monkeypatch.delenv("EYAS_ACCEPT_LICENCES", raising=False)
    file = masked_vit(tmp_path / "x.pth")
    with pytest.raises(LicenceError):
        open_teacher(file)
    teacher = open_teacher(file, ["CC-BY-NC-4.0"])
    assert isinstance(teacher, FoundationTeacher) and teacher.ancestors[0].licence == "CC-BY-NC-4.0"
    assert not teacher.train().training and not any(p.requires_grad for p in teacher.parameters())
    assert teacher.features(torch.rand(1, 3, 64, 96), 2, 3).shape == (1, 64, 2, 3)
    torch.save({"x": torch.ones(2)}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match="is no teacher: no vision transformer, and no detector"):
        open_teacher(tmp_path / "y.pth")


def network(nc: int = 2) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(small_yolo.few_layers(), nc=nc, verbose=False).train()


def run_of(model: DetectionModel) -> Any:
    batch = {"img": torch.rand(2, 3, 64, 64)}
    plan = SimpleNamespace(lr0=0.1, weight_decay=0.01)
    return SimpleNamespace(
        model=model, batch=batch, plan=plan, epoch=0, epochs=9, accumulate=1, epoch_log={},
        closing_augmentation=list, closing_epochs=lambda: 0,
    )  # fmt: skip


def test_what_is_taught_and_what_is_left_behind() -> None:
    model = network()
    before = set(model.state_dict())
    callback = Teacher(FoundationTeacher(VITS["vit-tiny"], weights("vit-tiny"), ()))
    run = run_of(model)
    assert callback.adjust_model(run, model) is model
    assert callback.projector is not None and callback.projector.weight.shape == (64, channels_of(model))
    (group,) = callback.adjust_param_groups(run, [])
    assert (group["lr"], len(group["params"])) == (0.1, 2)
    callback.on_pretrain_routine_end(run)
    model(run.batch["img"])
    loss = callback.adjust_loss(run, torch.zeros(()))
    assert float(loss.detach()) == pytest.approx(2 * 5.0 * float(callback._sums[3]))  # type: ignore[index]
    loss.backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert taught and not any(name.startswith(f"model.{len(model.model) - 1}.") for name in taught)
    callback.adjust_gradients(run, list(model.parameters()))
    callback.on_train_epoch_end(run)
    mine = sum(float(p.grad.abs().sum()) for p in model.deepest().parameters() if p.grad is not None)
    whole = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
    assert run.epoch_log["teacher/share"] == pytest.approx(100 * mine / whole, rel=1e-4)
    assert callback.weight == adapted_weight(5.0, run.epoch_log["teacher/share"], (11.0, 1.0), 20.0)
    other = Teacher(FoundationTeacher(VITS["vit-tiny"], weights("vit-tiny"), ()))
    other.adjust_model(run, model)
    other.load_state_dict(callback.state_dict())
    assert other.weight == callback.weight and torch.equal(other.projector.weight, callback.projector.weight)  # type: ignore[union-attr]
    callback.teardown(run)
    assert set(model.state_dict()) == before and not any(m._forward_hooks for m in model.modules())


def test_a_detector_shows_its_answers_to_one_of_the_same_classes() -> None:
    model, twin = network(), network()
    callback = Teacher(DetectorTeacher(twin.eval(), ()))
    run = run_of(model)
    callback.adjust_model(run, model)
    callback.on_pretrain_routine_end(run)
    model(run.batch["img"])
    loss = callback.adjust_loss(run, torch.zeros(()))
    assert loss.requires_grad and float(loss.detach()) > 0
    loss.backward()
    assert all(p.grad is None for p in twin.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.head.parameters())
    with pytest.raises(ValueError, match="it knows other classes"):
        Teacher(DetectorTeacher(network(nc=3).eval(), ())).adjust_model(run, model)
