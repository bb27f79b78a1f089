"""The incumbent's loss classes: the numbers of Eyas' own criteria, open at the places that scripts reach into."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas import dist
from eyas.compat.losses import E2ELoss, v8DetectionLoss
from eyas.losses.end_to_end import one_to_many_weight
from eyas.models import DetectionModel
from eyas.types import Progress


@pytest.fixture
def model(tiny_model: Path) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(str(tiny_model), nc=3, verbose=False)
    model.args = SimpleNamespace(box=5.0, cls=0.7, dfl=2.0, epochs=5)
    model.gains = {"box": 5.0, "cls": 0.7, "dfl": 2.0}
    return model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "img": torch.rand(2, 3, 64, 64, generator=generator),
        "batch_idx": torch.tensor([0.0, 0, 1]),
        "cls": torch.tensor([[0.0], [2], [1]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.3], [0.6, 0.4, 0.5, 0.6]]),
    }


def test_the_loss_is_that_of_the_model_itself(model: DetectionModel, batch: dict[str, Tensor]) -> None:
    preds = model(batch["img"])
    loss, items = E2ELoss(model)(preds, batch)
    expected, expected_items = model.init_criterion()(preds, batch)
    assert torch.equal(loss, expected)
    assert list(items) == ["box_loss", "cls_loss", "l1_loss"]
    assert all(torch.equal(items[k], expected_items[k]) for k in items)


def test_images_are_the_mean_over_processes(
    model: DetectionModel, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch of an epoch may be shared unevenly: here this process has 2 images and the other one 4."""
    preds = model(batch["img"])
    alone = v8DetectionLoss(model)(preds["one2many"], batch)[0]
    monkeypatch.setattr(dist, "mean_over_ranks", lambda t: t.new_full((), 3) if t == 2 else t)
    torch.testing.assert_close(v8DetectionLoss(model)(preds["one2many"], batch)[0], alone * 1.5)
    assert torch.equal(E2ELoss(model)(preds, batch)[0], model.init_criterion()(preds, batch)[0])


def test_values_come_from_the_model(model: DetectionModel) -> None:
    model.class_weights = torch.tensor([1.0, 2.0, 3.0])
    criterion = v8DetectionLoss(model, tal_topk=7, tal_topk2=1)
    assert criterion.gains == {"box": 5.0, "cls": 0.7, "l1": 2.0} and criterion.hyp is model.args
    assert (criterion.nc, criterion.reg_max, criterion.no, criterion.use_dfl) == (3, 1, 7, False)
    assert criterion.stride.tolist() == [8, 16, 32] and criterion.device == torch.device("cpu")
    assert criterion.class_weights is not None and criterion.class_weights.flatten().tolist() == [1, 2, 3]
    assert (criterion.assigner.topk, criterion.assigner.topk2) == (7, 1)
    model.gains = model.class_weights = None
    assert v8DetectionLoss(model).gains == {"box": 7.5, "cls": 0.5, "l1": 1.5}


def test_class_weights_of_the_model_double_their_gradient(model: DetectionModel, batch: dict[str, Tensor]) -> None:
    preds = model(batch["img"])
    scores = preds["one2one"]["scores"].detach().requires_grad_()
    raw = preds["one2one"] | {"scores": scores}

    def gradient(weights: Tensor | None) -> Tensor:
        model.class_weights = weights
        loss = v8DetectionLoss(model)(raw, batch)[0][1]
        return torch.autograd.grad(loss, scores)[0]

    plain, weighted = gradient(None), gradient(torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 2.0, 1.0])[:, None])


def test_trap_9_bce_is_swapped_after_init_and_both_branches_are_built_by_loss_fn(
    model: DetectionModel, batch: dict[str, Tensor]
) -> None:
    calls: list[dict[str, Any]] = []

    class Weighted(v8DetectionLoss):
        def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
            super().__init__(model, tal_topk=tal_topk, tal_topk2=tal_topk2)
            weight = torch.tensor([2.0, 3.0, 1.0]).to(self.device)
            self.bce = nn.BCEWithLogitsLoss(pos_weight=weight, reduction="none")

    def build(model: Any, **settings: Any) -> Weighted:
        calls.append(settings)
        return Weighted(model, **settings)

    criterion = E2ELoss(model, loss_fn=build)
    assert calls == [{"tal_topk": 10}, {"tal_topk": 7, "tal_topk2": 1}]
    assert isinstance(criterion.one2many, Weighted) and isinstance(criterion.one2one, Weighted)
    preds = model(batch["img"])
    weighted, plain = criterion(preds, batch)[0], E2ELoss(model)(preds, batch)[0]
    assert weighted[1] > plain[1]
    assert torch.equal(weighted[[0, 2]], plain[[0, 2]])


def test_overrides_in_between_count(model: DetectionModel, batch: dict[str, Tensor]) -> None:
    class Doubled(v8DetectionLoss):
        def get_assigned_targets_and_loss(self, raw: Any, batch: Any) -> Any:
            assigned, losses, items = super().get_assigned_targets_and_loss(raw, batch)
            return assigned, losses * 2, items

    class Shifted(v8DetectionLoss):
        def loss(self, raw: Any, batch: Any) -> Any:
            losses, items = super().loss(raw, batch)
            return losses + 1, items | {"extra": losses.detach().sum()}

    preds = model(batch["img"])
    plain = E2ELoss(model)(preds, batch)[0]
    torch.testing.assert_close(E2ELoss(model, loss_fn=Doubled)(preds, batch)[0], plain * 2)
    shifted, items = E2ELoss(model, loss_fn=Shifted)((None, preds), batch)
    torch.testing.assert_close(shifted, plain + 1)
    assert "extra" in items


def test_weights_follow_progress_and_update_agrees(model: DetectionModel) -> None:
    told, counted = E2ELoss(model), E2ELoss(model)
    for epoch in range(5):
        told.set_progress(Progress(epoch, 5))
        assert (told.o2m, told.updates) == (counted.o2m, counted.updates)
        assert told.o2m == pytest.approx(one_to_many_weight(epoch, 5))
        assert told.o2o == pytest.approx(1 - told.o2m)
        counted.update()
    resumed = E2ELoss(model)
    resumed.set_progress(Progress(3, 5))
    assert resumed.o2m == pytest.approx(one_to_many_weight(3, 5))


def test_an_override_of_update_or_decay_counts(model: DetectionModel) -> None:
    class Halving(E2ELoss):
        def update(self) -> None:
            self.o2m *= 0.5
            self.o2o = 1 - self.o2m

    class Constant(E2ELoss):
        def decay(self, x: int) -> float:
            return 0.5

    halving, constant = Halving(model), Constant(model)
    for criterion in (halving, constant):
        criterion.set_progress(Progress(0, 5))
        assert criterion.o2m == 0.8
        criterion.set_progress(Progress(2, 5))
        criterion.set_progress(Progress(2, 5))
    assert halving.o2m == pytest.approx(0.2)
    assert constant.o2m == constant.o2o == 0.5


def test_a_copy_of_the_model_takes_its_own_criterion_along(model: DetectionModel, batch: dict[str, Tensor]) -> None:
    model.criterion = E2ELoss(model)
    twin = copy.deepcopy(model)
    twin.criterion.set_progress(Progress(4, 5))
    assert twin.criterion.o2m != model.criterion.o2m
    assert torch.equal(model.eval().loss(batch)[1]["cls_loss"], twin.eval().loss(batch)[1]["cls_loss"])
