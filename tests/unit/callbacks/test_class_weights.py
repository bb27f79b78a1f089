"""Class weights: the numbers, the component in a trainer's place, and all ways in which they could have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eyas.augment.settings import AugmentSettings
from eyas.callbacks import class_weights as module
from eyas.callbacks.class_weights import (
    ClassWeights,
    balanced_weights,
    criterion_parts,
    effective_weights,
    normalised,
    power_weights,
    used_weights,
    weights_by_name,
)
from eyas.config import TrainOptions
from eyas.data import ImageStore, build_index, check_dataset
from eyas.data.dataset import TrainDataset
from eyas.data.loader import build_train_loader
from eyas.losses import DenseCriterion, SetCriterion
from eyas.models import DetectionModel, RTDETRDetectionModel
from small_run import SmallRun

counts_of_classes = st.lists(st.integers(0, 10**7), min_size=1, max_size=30)


# -- numbers -----------------------------------------------------------------------------------------------------------
def test_balanced_weights_by_hand() -> None:
    np.testing.assert_allclose(balanced_weights([100, 50, 25], cap=10), [1 / 100, 1 / 50, 1 / 25])
    np.testing.assert_allclose(balanced_weights([1000, 100, 1], cap=10), [1 / 1000, 1 / 100, 1 / 100])
    np.testing.assert_allclose(balanced_weights([10, 0, 5]), [0.1, 0.15, 0.2])


def test_effective_weights_by_hand() -> None:
    """Against the closed form at a given beta, and saturation by the geometric mean otherwise."""
    weights = effective_weights([1, 2, 3], cap=1e9, beta=0.9)
    np.testing.assert_allclose(1 / weights, [1, 1 + 0.9, 1 + 0.9 + 0.81])
    counts = np.array([10_000, 100, 1])  # geometric mean 100
    effective = 1 / effective_weights(counts, cap=1e9)
    expected = [sum((1 - 1 / 100) ** k for k in range(n)) for n in counts]
    np.testing.assert_allclose(effective, expected, rtol=1e-9)
    assert effective[0] < 100.001 and effective[2] == pytest.approx(1)
    np.testing.assert_allclose(effective_weights([1, 1, 1]), 1)
    with pytest.raises(ValueError, match="beta=1"):
        effective_weights([1], beta=1)


@given(counts_of_classes, st.floats(1, 100))
def test_computed_weights_are_finite_bounded_and_favour_rare_classes(counts: list[int], cap: float) -> None:
    count = np.array(counts)
    present = count > 0
    for weights in (balanced_weights(counts, cap), effective_weights(counts, cap), power_weights(counts, 0.5, cap)):
        assert np.isfinite(weights).all() and (weights > 0).all()
        if not present.any():
            assert (weights == 1).all()
            continue
        some = weights[present]
        assert some.max() <= some.min() * cap * (1 + 1e-9)
        assert (np.diff(some[np.argsort(count[present])]) <= 1e-12).all()
        np.testing.assert_allclose(weights[~present], some.mean())
        scaled = normalised(weights, counts)
        assert (scaled * count).sum() / count.sum() == pytest.approx(1)


def test_power_weights_follow_the_spec() -> None:
    """count ** -p over the mean of all classes; a class without objects has the mean of the others (core E.11)."""
    raw = np.array([4.0, 16, 64]) ** -0.5
    raw = np.insert(raw, 1, raw.mean())
    np.testing.assert_allclose(power_weights([4, 0, 16, 64], 0.5), raw / raw.mean())
    np.testing.assert_allclose(power_weights([0, 0], 1.0), [1, 1])


def test_weights_by_name() -> None:
    names = {0: "car", 1: "bus", 2: "tram"}
    assert weights_by_name({"tram": 3, "car": 0.5}, names).tolist() == [0.5, 1, 3]
    with pytest.raises(ValueError, match=r"'trem'.*Did you mean 'tram'"):
        weights_by_name({"trem": 3}, names)
    with pytest.raises(ValueError, match="Classes: car, bus, tram"):
        weights_by_name({"zzz": 3}, names)


def test_normalising() -> None:
    np.testing.assert_allclose(normalised([1, 3], [30, 10]), [1 / 1.5, 2])
    np.testing.assert_allclose(normalised([1, 3], [0, 0]), [1, 3])
    with pytest.raises(ValueError, match="no class would be learnt"):
        normalised([0, 3], [5, 0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": "balance"}, "Did you mean 'balanced'"),
        ({"weights": [1.0, -1]}, "holds -1"),
        ({"weights": {"a": float("inf")}}, "holds inf"),
        ({"weights": [0.0, 0.0]}, "no class would be learnt"),
        ({"weights": ("power", 0)}, "above 0"),
        ({"weights": "balanced", "cap": 0.5}, "at least 1"),
        ({"weights": [1.0, 2.0], "cap": 5}, "no effect on weights given one by one"),
    ],
)
def test_arguments_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassWeights(**given)


# -- from options ------------------------------------------------------------------------------------------------------
def from_options(**given: Any) -> ClassWeights | None:
    return ClassWeights.from_options(TrainOptions(**given))


def test_options_and_component_are_built_alike() -> None:
    def same(made: ClassWeights | None, expected: ClassWeights) -> None:
        assert made is not None and vars(made) == vars(expected)

    assert from_options() is None and from_options(cls_pw=0.0) is None
    same(from_options(class_weights="balanced"), ClassWeights("balanced"))
    same(from_options(class_weights="effective", class_weights_cap=4), ClassWeights("effective", cap=4.0))
    same(from_options(class_weights=[1, 2], class_weights_normalize=False), ClassWeights([1, 2], normalize=False))
    same(from_options(class_weights={"a": 2}, cls_pw=0.0), ClassWeights({"a": 2.0}))
    same(from_options(cls_pw=0.5), ClassWeights(("power", 0.5)))
    same(from_options(cls_pw=0.5, class_weights_cap=3), ClassWeights(("power", 0.5), cap=3.0))


def test_powers_have_their_mean_over_classes_and_all_others_over_objects() -> None:
    counts, names = np.array([90, 9, 1]), {0: "a", 1: "b", 2: "c"}
    assert ClassWeights(("power", 0.5)).class_weights(counts, names).mean() == pytest.approx(1)
    for component in (ClassWeights(("power", 0.5), normalize=True), ClassWeights(), ClassWeights([1, 2, 3])):
        assert np.average(component.class_weights(counts, names), weights=counts) == pytest.approx(1)


def test_contradictions_between_options() -> None:
    with pytest.raises(ValueError, match=r"class_weights='balanced' and cls_pw=0.5 both"):
        from_options(class_weights="balanced", cls_pw=0.5)
    with pytest.raises(ValueError, match=r"class_weights_cap=3.0 has no effect without class_weights"):
        from_options(class_weights_cap=3)
    with pytest.raises(ValueError, match="class_weights_normalize=False has no effect"):
        from_options(class_weights_normalize=False)
    with pytest.raises(ValueError, match="no effect on weights given one by one"):
        from_options(class_weights=[1, 2], class_weights_cap=3)
    copied = TrainOptions.from_dict(TrainOptions(cls_pw=0.5).to_dict())
    assert ClassWeights.from_options(copied) is not None  # a run's args.yaml may be given again


# -- in a trainer's place ----------------------------------------------------------------------------------------------
class Trainer(SmallRun):
    """A run on real data, with one component."""

    def run(self, component: ClassWeights) -> None:
        self.model = component.adjust_model(self, self.model)
        self.model.criterion = self.model.init_criterion()
        component.on_pretrain_routine_end(self)


@pytest.fixture
def trainer(digits_tiny: Path, tiny_model: Path) -> Iterator[Trainer]:
    data = check_dataset(digits_tiny)
    index = build_index(data["train"], names=data["names"])
    dataset = TrainDataset(index, ImageStore(index, imgsz=64), imgsz=64, settings=AugmentSettings())
    loader = build_train_loader(dataset, batch=16, workers=0, seed=0)
    model = DetectionModel(tiny_model, nc=data["nc"], names=data["names"], verbose=False)
    run = Trainer(model=model, verbose=False)
    run.train_loader, run.data = loader, data
    yield run
    loader.close()


def counts_of(trainer: Trainer) -> np.ndarray:
    return trainer.train_loader.dataset.index.instances(10)


@pytest.mark.parametrize("weights", ["balanced", "effective", [1.0, 2.0] * 5, {"3": 4.0}, ("power", 0.5)])
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_reach_both_branches_and_are_witnessed(trainer: Trainer, weights: Any, normalize: bool) -> None:
    component = ClassWeights(weights, normalize=normalize)
    trainer.run(component)
    counts, names = counts_of(trainer), trainer.data["names"]
    expected = component.class_weights(counts, names)
    parts = criterion_parts(trainer.model.criterion)
    assert list(parts) == ["one2many", "one2one"]
    for part in parts.values():
        np.testing.assert_allclose(part.class_weights.flatten(), expected, rtol=1e-6)
        measured = used_weights(part)
        assert measured is not None
        np.testing.assert_allclose(measured, expected, rtol=1e-6)
    seen = component.witness(trainer)
    key = "cls_pw" if isinstance(weights, tuple) else "class_weights"
    np.testing.assert_allclose(seen[key], expected, atol=1e-5)
    mean = (expected * counts).sum() / counts.sum()
    assert (mean == pytest.approx(1)) or not normalize
    if key == "class_weights":
        assert seen["class_weights_normalize"] == pytest.approx(mean, abs=1e-5)
    assert set(seen) <= set(ClassWeights.options)
    assert "class weights" in component.describe(trainer)


def test_a_list_of_another_length(trainer: Trainer) -> None:
    with pytest.raises(ValueError, match="2 numbers and the data 10 classes"):
        trainer.run(ClassWeights([1.0, 2.0]))


def test_a_foreign_loader_tells_no_counts(trainer: Trainer) -> None:
    trainer.train_loader = [1, 2]
    with pytest.raises(ValueError, match="list does not tell.*class_weights_normalize=False"):
        ClassWeights("balanced").adjust_model(trainer, trainer.model)
    component = ClassWeights({"3": 4.0}, normalize=False)
    trainer.run(component)
    seen = component.witness(trainer)
    assert seen == {"class_weights": [1, 1, 1, 4, 1, 1, 1, 1, 1, 1], "class_weights_normalize": False}


def test_a_model_with_weights_of_its_own(trainer: Trainer) -> None:
    trainer.model.class_weights = torch.ones(10)
    with pytest.raises(ValueError, match=r"came with class_weights.*get_model\(\) override.*class_weights='balanced'"):
        ClassWeights("balanced").adjust_model(trainer, trainer.model)


class OwnLoss(nn.Module):
    def forward(self, preds: Any, batch: Any) -> Any: ...


class Ignores(DenseCriterion):
    def weighted_class_loss(self, logits: Any, targets: Any, positive: Any = None) -> Any:
        return self.class_loss(logits, targets, positive)


@pytest.mark.parametrize("kind", ["own", "ignores", "without"])
def test_a_loss_that_ignores_the_weights_stops_the_run(trainer: Trainer, kind: str) -> None:
    model = trainer.model
    dense = {"nc": 10, "strides": model.stride.tolist()}
    made = {
        "own": OwnLoss,
        "ignores": lambda: Ignores(**dense, class_weights=model.class_weights),
        "without": lambda: DenseCriterion(**dense),
    }
    model.init_criterion = made[kind]
    with pytest.raises(ValueError, match=r"class_weights='balanced' has no effect: the loss .* init_criterion\(\)"):
        trainer.run(ClassWeights("balanced"))


def test_the_way_out_that_is_named_is_one_of_the_family(trainer: Trainer) -> None:
    """`dense_criterion` belongs to YOLO; what is named for a set detector does work there."""
    trainer.model.init_criterion = OwnLoss
    with pytest.raises(ValueError, match=r"for example with self\.dense_criterion\(\.\.\.\); or leave"):
        trainer.run(ClassWeights("balanced"))
    table = {"nc": 10, "backbone": [[-1, 1, "Conv", [8, 3, 8]]], "head": [[[0], 1, "RTDETRDecoder", ["nc", 16, 5]]]}

    def set_detector() -> RTDETRDetectionModel:
        return RTDETRDetectionModel(table, nc=10, names=trainer.data["names"], verbose=False)

    model = trainer.model = set_detector()
    model.init_criterion = lambda: SetCriterion(nc=10)
    named = r"super\(\)\.init_criterion\(\) or SetCriterion\(\.\.\., class_weights=self\.class_weights\); or leave"
    with pytest.raises(ValueError, match=rf"(?s)has no effect.*{named}") as error:
        trainer.run(ClassWeights("balanced"))
    assert "dense_criterion" not in str(error.value)
    model = trainer.model = set_detector()
    model.init_criterion = lambda: SetCriterion(nc=10, class_weights=model.class_weights)
    trainer.run(ClassWeights("balanced"))
    trainer.model = set_detector()
    trainer.run(ClassWeights("balanced"))


@pytest.mark.parametrize("kind", ["pos_weight", "weight", "function"])
def test_two_weightings_stop_the_run_before_the_first_step(trainer: Trainer, kind: str) -> None:
    """A user swaps the loss of elements for a weighted one: with class weights on top, the factors would multiply."""
    stock = trainer.model.init_criterion
    alpha = torch.linspace(1, 2, 10)
    plain = nn.BCEWithLogitsLoss(reduction="none")
    bce: Any = {
        "pos_weight": nn.BCEWithLogitsLoss(pos_weight=alpha, reduction="none"),
        "weight": nn.BCEWithLogitsLoss(weight=alpha, reduction="none"),
        "function": lambda x, t: plain(x, t) * alpha,
    }[kind]

    def init_criterion() -> Any:
        criterion = stock()
        criterion.one2one.bce = bce
        return criterion

    trainer.model.init_criterion = init_criterion
    other = "weights of its own" if kind == "function" else f"criterion.bce with {kind}"
    with pytest.raises(ValueError, match=rf"class_weights='balanced' and .*{other} both weigh classes in the one2one"):
        trainer.run(ClassWeights("balanced"))


def test_a_loss_replaced_later_is_noticed_by_the_witness(trainer: Trainer) -> None:
    component = ClassWeights("balanced")
    trainer.run(component)
    assert component.witness(trainer)
    trainer.model.criterion = DenseCriterion(nc=10, strides=trainer.model.stride.tolist())
    with pytest.raises(ValueError, match="has no effect"):
        component.witness(trainer)


def test_another_loss_of_elements_is_weighted_too(trainer: Trainer) -> None:
    """A focal loss without weights of its own is no second weighting."""
    stock = trainer.model.init_criterion

    def focal(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        bce = nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
        return bce * (x.sigmoid() - t).abs().square()

    def init_criterion() -> Any:
        criterion = stock()
        criterion.one2many.bce = criterion.one2one.bce = focal
        return criterion

    trainer.model.init_criterion = init_criterion
    trainer.run(ClassWeights("balanced"))


def test_the_table_shows_classes_by_weight(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.args.verbose = True
    trainer.run(ClassWeights("balanced"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Class weights"
    assert lines[1].split() == ["class", "instances", "images", "weight"]
    rows = [line.split() for line in lines[2:12]]
    weights = [float(row[3]) for row in rows]
    assert weights == sorted(weights, reverse=True)
    index = trainer.train_loader.dataset.index
    for name, instances, images, _ in rows:
        c = int(name)
        assert int(instances) == counts_of(trainer)[c]
        assert int(images) == sum(c in index.labels(i)[0] for i in range(len(index)))


def test_a_table_of_many_classes_shows_both_ends(capsys: pytest.CaptureFixture[str]) -> None:
    classes = module.ImageClasses.from_labels(np.arange(100), np.arange(101), 100)
    module.print_weights({i: f"c{i}" for i in range(100)}, classes, np.linspace(1, 2, 100))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 32 and "15 heaviest and the 15 lightest of 100" in lines[0]
    assert lines[2].split()[0] == "c99" and lines[-1].split()[0] == "c0"


def test_with_a_sampler_the_combined_factors_are_shown(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    dataset = trainer.train_loader.dataset
    trainer.run(ClassWeights("balanced"))
    assert not caplog.records
    trainer.model.class_weights = None
    trainer.train_loader = build_train_loader(dataset, batch=16, workers=0, seed=0, sampler="balanced")
    component = ClassWeights("balanced")
    trainer.run(component)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "sampler=balanced and class weights both favour rare classes" in message
    assert message.count(" x ") == 7 and "factors multiply (sampling x weight)" in message
