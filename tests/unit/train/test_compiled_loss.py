"""What torch.compile may take of a loss: every family's, for any number of objects; a user's own where he says so."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from eyas.assign import HungarianMatcher
from eyas.losses import DenseCriterion, EndToEndCriterion, SetCriterion
from eyas.losses.dense import SupervisedAnchors
from eyas.models import Detector, detector_class, model_table
from eyas.train.compiled_loss import CompiledLoss
from eyas.train.compiling import made_up
from graphs import Graphs

ROWS: dict[str, Any] = {"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 8]]], "head": [[[0], 1, "Detect", ["nc"]]]}
DISTRIBUTIONS = ROWS | {"end2end": False, "reg_max": 4}
TWO_BRANCHES = ROWS | {"end2end": True, "reg_max": 1}


@pytest.fixture
def graphs() -> Iterator[Graphs]:
    torch.compiler.reset()
    yield Graphs()
    torch.compiler.set_stance("default")


def network_of(table: Any) -> Detector:
    table = model_table(table)
    torch.manual_seed(0)
    network: Detector = detector_class(table)(table, nc=3, verbose=False).train()
    network.criterion = network.init_criterion()
    network.fit_criterion()
    return network


def lose(network: Detector, objects: int, images: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of made-up images, and the gradients of all weights."""
    torch.manual_seed(1)
    network.zero_grad()
    loss, _ = network.loss(made_up(network, images, 64, objects))
    loss.sum().backward()
    return loss.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]


def tried(network: Detector, graphs: Graphs) -> CompiledLoss:
    """Try the loss of a network for two numbers of objects, and let nothing be compiled any more."""
    loss = CompiledLoss(network.criterion, {"backend": graphs})
    with loss.trying():
        for objects in (6, 10):
            loss.settle(objects == 10)
            lose(network, objects)
    torch.compiler.set_stance("eager_on_recompile")
    return loss


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TWO_BRANCHES, id="two-branches"),
        pytest.param(DISTRIBUTIONS, id="dfl"),
        "rtdetr-tiny",
        "dino-tiny",
        "dfine-n",
        "deimv2-atto",
    ],
)
def test_every_family_s_loss_is_the_same_for_any_number_of_objects(model: Any, graphs: Graphs) -> None:
    network = network_of(model)
    written = {objects: lose(network, objects) for objects in (0, 1, 5, 31)}
    loss = tried(network, graphs)
    assert loss.refused == ""
    made = graphs.made
    for objects, (value, gradients) in written.items():
        before = graphs.ran
        compiled, others = lose(network, objects)
        assert graphs.ran > before or objects < 2  # none and one are cases of their own, and run as written
        torch.testing.assert_close(compiled, value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)
    assert graphs.made == made
    before = graphs.ran
    loss.release()
    lose(network, 5)
    assert graphs.ran == before


class Counting(DenseCriterion):
    """A loss that keeps something, and whose class does not say that it may be compiled."""

    seen = 0

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        self.seen += 1
        return super().box_loss(pred, target)


class Agreeing(DenseCriterion):
    compiled_methods = DenseCriterion.compiled_methods

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().box_loss(pred, target) ** 2


class ByNumber(Agreeing):
    """One whose code is another for every number of objects."""

    compiled_methods = DenseCriterion.compiled_methods

    def branch_losses(self, anchors: SupervisedAnchors) -> dict[str, Tensor]:
        losses = super().branch_losses(anchors)
        return losses | {"box": losses["box"] * len(self.objects_seen)}

    def objects(self, *given: Any, **named: Any) -> Any:
        self.objects_seen = [*range(len(given[0]["cls"]))]
        return super().objects(*given, **named)


class Random(Agreeing):
    compiled_methods = DenseCriterion.compiled_methods

    def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().box_loss(pred, target) * torch.rand(()) ** 4


def with_loss(cls: type[DenseCriterion]) -> Detector:
    network = network_of(DISTRIBUTIONS)
    network.criterion = cls(nc=3, strides=[8.0], reg_max=4)
    return network


def test_a_loss_of_ones_own_is_called_for_nothing_only_where_it_agrees(graphs: Graphs) -> None:
    network = with_loss(Counting)
    loss = CompiledLoss(network.criterion, {"backend": graphs})
    assert "Counting does not say what of it can be compiled (compiled_methods)" in loss.refused
    with loss.trying():
        lose(network, 6)
    assert network.criterion.seen == 1 and graphs.ran == 0
    agreed = tried(with_loss(Agreeing), graphs)
    assert agreed.refused == "" and graphs.ran > 0


@pytest.mark.parametrize(("cls", "said"), [(ByNumber, "torch.compile failed"), (Random, "results differ by")])
def test_a_loss_that_is_another_one_when_compiled_runs_as_written(
    cls: type[DenseCriterion], said: str, graphs: Graphs
) -> None:
    network = with_loss(cls)
    value, _ = lose(network, 9)
    loss = tried(network, graphs)
    assert cls.__name__ in loss.refused and said in loss.refused
    torch.testing.assert_close(lose(network, 9)[0], value, rtol=0, atol=0)


def test_a_function_that_somebody_sets_while_it_trains_is_used_and_stays(graphs: Graphs) -> None:
    network = network_of("rtdetr-tiny")
    criterion: SetCriterion = network.criterion
    loss = tried(network, graphs)
    calls: list[int] = []

    def own(stack: Any, objects: Any) -> Any:
        calls.append(1)
        return SetCriterion.layer_losses(criterion, stack, objects)

    criterion.layer_losses = own  # type: ignore[method-assign]
    lose(network, 6)
    assert calls and copy.copy(criterion).layer_losses is own
    loss.release()
    assert criterion.layer_losses is own and vars(criterion.matcher).keys() == {"gains", "alpha", "gamma"}


class OwnMatcher(HungarianMatcher):
    """Inherits the word, and does not say it."""


class OwnSet(SetCriterion):
    """Likewise."""


class OwnBranches(EndToEndCriterion):
    """Likewise."""


def own(*given: Any) -> Any:
    raise AssertionError


def dense(**changes: Any) -> DenseCriterion:
    criterion = DenseCriterion(nc=2, strides=[8.0])
    vars(criterion).update(changes)
    return criterion


SILENT = "{} does not say what of it can be compiled (compiled_methods)."


@pytest.mark.parametrize(
    ("criterion", "why"),
    [
        (SetCriterion(nc=2), ""),
        (SetCriterion(nc=2, matcher=OwnMatcher()), SILENT.format("OwnMatcher")),
        (SetCriterion(nc=2, matcher=own), SILENT.format("function")),  # type: ignore[arg-type]
        (OwnSet(nc=2), SILENT.format("OwnSet")),
        (EndToEndCriterion(dense(), dense()), ""),
        (EndToEndCriterion(own, dense()), SILENT.format("function")),
        (OwnBranches(dense(), dense()), SILENT.format("OwnBranches")),
        (dense(bce=own), SILENT.format("function")),
        (EndToEndCriterion(dense(), dense(assigner=own)), SILENT.format("function")),
        (dense(box_loss=own), "somebody has set DenseCriterion.box_loss to a function."),
        (own, SILENT.format("function")),
    ],
)
def test_a_loss_with_anything_of_ones_own_in_it_runs_as_written_and_that_is_said(criterion: Any, why: str) -> None:
    loss = CompiledLoss(criterion, {"backend": Graphs()})
    assert loss.refused == why and bool(loss.methods) == (not why)


def test_a_network_that_does_not_ask_its_loss_is_told(graphs: Graphs) -> None:
    network = network_of(DISTRIBUTIONS)
    loss = CompiledLoss(network.criterion, {"backend": graphs})
    with loss.trying():
        pass
    assert loss.refused == "nobody calls DenseCriterion.mean_losses." and loss.taken == []


class OwnError(Exception):
    """Of no kind that torch or Eyas would raise."""


def test_what_cannot_judge_made_up_images_runs_as_written(graphs: Graphs) -> None:
    network = with_loss(Agreeing)
    loss = CompiledLoss(network.criterion, {"backend": graphs})
    with loss.trying():
        raise OwnError("no files")
    assert loss.refused == "Agreeing.mean_losses: it cannot judge made-up images (no files)." and loss.taken == []


def test_copies_are_as_written(graphs: Graphs) -> None:
    network = network_of(TWO_BRANCHES)
    loss = tried(network, graphs)
    many = network.criterion.one2many
    assert {"supervised", "mean_losses"} <= vars(many).keys()
    for copied in (copy.copy(many), copy.deepcopy(many), pickle.loads(pickle.dumps(many))):
        assert not {"supervised", "mean_losses", "_forms"} & vars(copied).keys()
        assert vars(copied).keys() == vars(many).keys() - {"supervised", "mean_losses", "_forms"}
    loss.release()
    assert not {"supervised", "mean_losses"} & vars(many).keys()
