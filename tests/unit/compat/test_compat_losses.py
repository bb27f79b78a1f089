"""The incumbent's loss classes: the numbers of Eyas' own criteria, open at the places that scripts reach into."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from eyas import dist
from eyas.compat.losses import E2ELoss, v8DetectionLoss
from eyas.config import TrainOptions
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
    assert criterion.gains == {"box": 5.0, "cls": 0.7, "l1": 2.0} and criterion.hyp == model.args
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


def losses_of(criterion: v8DetectionLoss, raw: Any, batch: dict[str, Tensor]) -> Tensor:
    return criterion.get_assigned_targets_and_loss(raw, batch)[1]


@pytest.fixture(params=[1, 4])
def branch(
    request: pytest.FixtureRequest, tiny_model: Path, batch: dict[str, Tensor]
) -> tuple[DetectionModel, dict[str, Any]]:
    """A model with so many bins for a distance, and what its one-to-many branch says of the batch."""
    torch.manual_seed(0)
    table = yaml.safe_load(tiny_model.read_text()) | {"reg_max": request.param}
    model = DetectionModel(table, nc=3, verbose=False)
    with torch.no_grad():
        raw = model(batch["img"])["one2many"]
    return model, raw


def test_a_bbox_loss_that_is_assigned_is_asked(branch: Any, batch: dict[str, Tensor]) -> None:
    """In the form of nine arguments and in the older one of seven, and the stock one gives the stock numbers."""
    model, raw = branch
    criterion = v8DetectionLoss(model)
    plain, stock, seen = losses_of(criterion, raw, batch), criterion.bbox_loss, []

    class Doubled(nn.Module):
        def forward(self, *values: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(values)
            box, third = stock(*values)
            return box * 2, third * 3

    criterion.bbox_loss = Doubled()
    torch.testing.assert_close(losses_of(criterion, raw, batch), plain * torch.tensor([2.0, 1.0, 3.0]))
    dist, boxes, points, targets, scores, total, mask, size, stride = seen[0]
    assert dist.shape == (2, len(points), 4 * criterion.reg_max) and boxes.shape == targets.shape == (2, len(points), 4)
    assert scores.shape == (2, len(points), 3) and mask.dtype == torch.bool and mask.any()
    assert size.tolist() == [64, 64] and stride.shape == (len(points), 1)
    torch.testing.assert_close(scores.sum().clamp(min=1), total)
    criterion.bbox_loss = lambda pred, boxes, points, target, scores, total, mask: (total * 0 + 1, total * 0)
    assert losses_of(criterion, raw, batch).tolist() == [7.5, plain[1], 0]


class Padded:
    """The stock assigner in the incumbent's form."""

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner

    def __call__(self, scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, targets: Tensor, mask: Tensor):
        image, slot = mask[..., 0].nonzero(as_tuple=True)
        flat = labels[image, slot, 0].long(), targets[image, slot], image
        found = self.assigner(scores.logit(), boxes, points, *flat)
        index = torch.where(found.foreground, slot[found.owner.clamp(min=0)], 0)
        return found.labels, found.boxes, found.scores(scores.shape[-1]), found.foreground, index


def test_an_assigner_in_the_incumbents_form_is_asked(branch: Any, batch: dict[str, Tensor]) -> None:
    model, raw = branch
    batch = batch | {"batch_idx": torch.tensor([1.0, 0, 1])}
    criterion = v8DetectionLoss(model)
    assigned, plain, _ = criterion.get_assigned_targets_and_loss(raw, batch)
    criterion.assigner = Padded(criterion.assigner)
    again, losses, _ = criterion.get_assigned_targets_and_loss(raw, batch)
    assert torch.equal(again.owner, assigned.owner) and assigned.foreground.any()
    torch.testing.assert_close(losses, plain)
    nobody = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    assert losses_of(criterion, raw, nobody)[0] == 0


def test_proj_hyp_stride_and_class_weights_count_when_they_are_assigned(branch: Any, batch: dict[str, Tensor]) -> None:
    model, raw = branch
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    criterion = v8DetectionLoss(model)
    plain = losses_of(criterion, raw, batch)
    if criterion.use_dfl:
        criterion.proj = criterion.proj * 2
        assert losses_of(criterion, raw, batch)[0] != plain[0]
        criterion.proj = criterion.proj / 2
    else:
        with pytest.raises(ValueError, match="proj has no effect"):
            criterion.proj = torch.arange(1.0)
    criterion.hyp.box = 15.0  # in place
    torch.testing.assert_close(losses_of(criterion, raw, batch), plain * torch.tensor([2.0, 1, 1]))
    criterion.hyp = {"box": 7.5, "cls": 1.0, "dfl": 3.0, "mine": 1}
    torch.testing.assert_close(losses_of(criterion, raw, batch), plain * torch.tensor([1.0, 2, 2]))
    criterion.gains["box"], criterion.hyp = 1.0, criterion.hyp  # fitted to the data
    assert losses_of(criterion, raw, batch)[0] == pytest.approx(plain[0] / 7.5)
    criterion.hyp = SimpleNamespace(box=7.5)
    torch.testing.assert_close(losses_of(criterion, raw, batch), plain * torch.tensor([1.0, 2, 2]))
    criterion.hyp = SimpleNamespace(mine=2)
    criterion.stride, criterion.no, criterion.use_dfl = criterion.stride * 2, criterion.no, criterion.use_dfl
    assert criterion.strides == [16, 32, 64]
    with pytest.raises(ValueError, match="no=3 has no effect"):
        criterion.no = 3


def test_gains_set_in_a_loss_are_its_own_and_those_of_the_run_count_as_well(model: DetectionModel) -> None:
    class Own(v8DetectionLoss):
        def __init__(self, model: nn.Module, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
            super().__init__(model, tal_topk, tal_topk2)
            self.hyp.box = 15.0

    model.args, model.gains = TrainOptions(cls=0.7), {"box": 7.5, "cls": 0.9}
    criterion = E2ELoss(model, Own)
    assert criterion.effects() == {"box": 15.0, "cls": 0.9, "dfl": 1.5}, "both branches, before they are called"
    assert model.args.box == 7.5 and not model.args.is_typed("box")
    model.args.dfl = 3.0
    assert criterion.effects() == {"box": 15.0, "cls": 0.9, "dfl": 3.0}
    criterion.one2one.hyp = model.args
    assert criterion.effects() == {"box": 15.0, "cls": 0.9, "dfl": 3.0}, "the run's options are what it has already"


def test_overrides_of_preprocess_and_bbox_decode_count(branch: Any, batch: dict[str, Tensor]) -> None:
    model, raw = branch

    class Passes(v8DetectionLoss):
        def preprocess(self, targets: Tensor, batch_size: int, scale_tensor: Tensor) -> Tensor:
            return super().preprocess(targets, batch_size, scale_tensor)

    class Larger(v8DetectionLoss):
        def preprocess(self, targets: Tensor, batch_size: int, scale_tensor: Tensor) -> Tensor:
            return super().preprocess(targets[:1], batch_size, scale_tensor)

        def bbox_decode(self, anchor_points: Tensor, pred_dist: Tensor) -> Tensor:
            return super().bbox_decode(anchor_points, pred_dist * 2 + 1)  # softmax takes no notice of a sum

    plain = losses_of(v8DetectionLoss(model), raw, batch)
    torch.testing.assert_close(losses_of(Passes(model), raw, batch), plain)
    one = {name: value[:1] for name, value in batch.items()}
    assert losses_of(Larger(model), raw, batch)[0] != losses_of(v8DetectionLoss(model), raw, one)[0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nc", 5, "nc=5 has no effect on this loss: the model's head makes it 3"),
        ("reg_max", 3, "reg_max=3 has no effect on this loss: the model's head makes it 1"),
        ("bce", None, r"bce=None cannot be called: .* asks it at every step; or override class_loss\(\)"),
        ("assigner", None, "assigner=None cannot be called"),
        ("bbox_loss", 1.0, r"bbox_loss=1\.0 cannot be called"),
        ("topk", 1, r"topk=1 has no effect .* chooses 10 anchors for each object\. Set assigner\.topk"),
        ("class_weights", [1.0, 2.0], "class_weights has 2 values and the model 3 classes"),
    ],
)
def test_what_could_not_count_is_refused_when_it_is_assigned(
    model: DetectionModel, name: str, value: object, said: str
) -> None:
    criterion = v8DetectionLoss(model)
    with pytest.raises(ValueError, match=said):
        setattr(criterion, name, value)
    with pytest.raises(ValueError, match=said):
        type("OfTheClass", (v8DetectionLoss,), {name: value})(model)
    criterion.nc, criterion.reg_max, criterion.topk, criterion.class_weights = 3, 1, 10, None
    criterion.topk = 0.25  # a script's own


def test_what_is_asked_of_nobody_may_be_none(model: DetectionModel, batch: dict[str, Tensor]) -> None:
    class Own(v8DetectionLoss):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.bce = None

        def class_loss(self, logits: Tensor, targets: Tensor, positive: Tensor | None = None) -> Tensor:
            return (logits - targets) ** 2

    with torch.no_grad():
        assert losses_of(Own(model), model(batch["img"])["one2many"], batch)[1] > 0


def test_methods_in_the_place_of_attributes_and_functions_in_the_place_of_methods_count(
    branch: Any, batch: dict[str, Tensor]
) -> None:
    model, raw = branch
    stock = v8DetectionLoss(model)
    plain, padded = losses_of(stock, raw, batch), Padded(stock.assigner)

    class Methods(v8DetectionLoss):
        class_weights = (2.0, 2.0, 2.0)

        def bce(self, logits: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * 3

        def assigner(self, *values: Tensor) -> Any:
            asked.append(len(values))
            return padded(*values)

        def bbox_loss(self, *values: Tensor) -> tuple[Tensor, Tensor]:
            return values[5] * 0 + 1, values[5] * 0

    asked: list[int] = []
    expected = torch.tensor([7.5, 6 * plain[1], 0])
    torch.testing.assert_close(losses_of(Methods(model), raw, batch), expected)
    assert asked == [6]
    stock.class_weights = [2.0] * 3
    stock.preprocess = lambda targets, images, size: v8DetectionLoss.preprocess(stock, targets[:1], images, size)
    one = {name: value[:1] for name, value in batch.items()}
    expected = losses_of(v8DetectionLoss(model), raw, one) * torch.tensor([1.0, 2.0, 1.0])
    torch.testing.assert_close(losses_of(stock, raw, batch), expected)


def test_losses_of_another_kind_are_refused_in_words(branch: Any, batch: dict[str, Tensor]) -> None:
    model, raw = branch
    for name, value, said in (
        ("box_loss", (torch.ones(1), torch.ones(1)), "box_loss returned a tuple: return one tensor"),
        ("class_loss", [torch.ones(1)], "class_loss returned a list: return one tensor"),
        ("distance_loss", 1.0, "distance_loss returned a float: return one tensor"),
        ("bbox_loss", torch.ones(()), "bbox_loss returned a Tensor: return two losses"),
    ):
        criterion = v8DetectionLoss(model)
        setattr(criterion, name, lambda *_, value=value: value)
        with pytest.raises(ValueError, match=said):
            losses_of(criterion, raw, batch)


def test_the_loss_of_one_branch_trains_both_of_an_end_to_end_model(
    model: DetectionModel, batch: dict[str, Tensor]
) -> None:
    expected = E2ELoss(model)(model(batch["img"]), batch)
    model.criterion = v8DetectionLoss(model)
    model.fit_criterion()
    loss, items = model.loss(batch)
    assert torch.equal(loss, expected[0]) and items == expected[1]
    model.criterion.set_progress(Progress(4, 5))
    assert model.criterion.o2m == one_to_many_weight(4, 5)
    model.criterion = v8DetectionLoss(model)
    model.criterion.assigner = Padded(model.criterion.assigner)
    with pytest.raises(ValueError, match="Padded cannot be asked for"):
        model.fit_criterion()
