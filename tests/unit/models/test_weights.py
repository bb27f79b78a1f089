"""Loading weights into a model that differs: in classes, their order, their number, or input channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.models import DetectionModel
from eyas.models.weights import class_rows, copy_state

TABLE: dict[str, Any] = {
    "nc": 3,
    "end2end": True,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[-1], 1, "Detect", ["nc"]]],
}


def net(names: list[str] | None = None, *, seed: int = 0, nc: int | None = None, ch: int = 3) -> DetectionModel:
    torch.manual_seed(seed)
    return DetectionModel(TABLE, ch=ch, nc=nc or len(names or "abc"), names=names, verbose=False)


def same(a: DetectionModel, b: DetectionModel) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("form", ["module", "state", "model", "ema", "module-in-checkpoint"])
def test_every_form_of_weights(form: str) -> None:
    source, target = net(seed=1), net(seed=2)
    state, decoy = source.state_dict(), net(seed=3).state_dict()
    weights: Any = {
        "module": source,
        "state": state,
        "model": {"model": state, "ema": None, "epoch": 3},
        "ema": {"model": decoy, "ema": state},
        "module-in-checkpoint": {"model": source},
    }[form]
    assert target.load(weights) == len(state)
    assert same(source, target)


def test_no_tensors_is_an_error() -> None:
    for nothing in ({}, {"model": None}, {"model": {"a": 1}}):
        with pytest.raises(ValueError, match="hold no tensors"):
            net().load(nothing)


def test_half_precision_source() -> None:
    source, target = net(seed=1).half(), net(seed=2)
    target.load(source)
    assert target.model[0].conv.weight.dtype is torch.float32
    assert torch.equal(target.model[0].conv.weight, source.model[0].conv.weight.float())


def test_classes_follow_their_names() -> None:
    source = net(["cat", "dog", "fox"], seed=1)
    target = net(["Fox ", "owl", "CAT"], seed=2)
    fresh = target.head.cv3[0][2].weight.clone()
    target.load({"model": source.state_dict(), "names": source.names})
    for branch in ("cv3", "one2one_cv3"):
        got, given = getattr(target.head, branch)[0][2], getattr(source.head, branch)[0][2]
        for into, out_of in ((0, 2), (2, 0)):
            assert torch.equal(got.weight[into], given.weight[out_of])
            assert torch.equal(got.bias[into], given.bias[out_of])
    assert torch.equal(target.head.cv3[0][2].weight[1], fresh[1])
    assert torch.equal(target.head.cv2[0][2].weight, source.head.cv2[0][2].weight)


def test_remap_can_be_off_and_needs_real_names() -> None:
    source, target = net(["cat", "dog", "fox"], seed=1), net(["fox", "dog", "cat"], seed=2)
    target.load(source, remap=False)
    assert same(source, target)
    placeholder = net(seed=3)
    placeholder.load(source)
    assert same(source, placeholder)


def test_fewer_classes_take_rows_by_name() -> None:
    source, target = net(["cat", "dog", "fox", "owl"], seed=1), net(["owl", "dog"], seed=2)
    target.load(source)
    assert torch.equal(target.head.cv3[0][2].weight, source.head.cv3[0][2].weight[[3, 1]])
    unnamed = net(nc=2, seed=3)
    before = unnamed.head.cv3[0][2].weight.clone()
    unnamed.load(source)
    assert torch.equal(unnamed.head.cv3[0][2].weight, before)


def test_placeholders_keep_their_rows_where_classes_were_added() -> None:
    source, target = net(nc=5, seed=1), net(nc=10, seed=2)
    fresh = target.head.cv3[0][2].weight.clone()
    target.load({"model": source.state_dict(), "names": source.names})
    got = target.head.cv3[0][2].weight
    assert torch.equal(got[:5], source.head.cv3[0][2].weight) and torch.equal(got[5:], fresh[5:])
    assert target.classes_kept == 0.5


@pytest.mark.parametrize(
    ("given", "own", "kept"),
    [
        (["cat", "dog", "fox"], ["cat", "dog", "fox"], 1.0),
        (["cat", "dog", "fox"], ["fox", "owl", "cat", "hen"], 0.5),
        (["cat", "dog", "fox"], ["hen", "owl"], 0.0),
        (["cat", "dog", "fox"], ["0", "1"], 0.0),  # unnamed, and of another number
    ],
)
def test_a_model_tells_the_share_of_its_classes_that_weights_know(
    given: list[str], own: list[str], kept: float
) -> None:
    source, target = net(given, seed=1), net(own, seed=2)
    assert target.classes_kept is None
    target.load({"model": source.state_dict(), "names": source.names})
    assert target.classes_kept == kept


def test_class_branch_is_rebuilt_at_the_sources_width() -> None:
    """80-class weights in a 3-class n model keep a hidden width of 80: the figure of spec core C.8."""
    source = DetectionModel("yolo26n", nc=80, verbose=False)
    target = DetectionModel("yolo26n", nc=3, verbose=False)
    target.end2end = True
    copied = target.load(source, verbose=False)
    assert sum(p.numel() for p in target.parameters()) == 2_534_858
    assert copied == 708 - 2 * 3 * 2  # all but weight and bias of the final convolutions
    assert torch.equal(target.head.one2one_cv3[0][1][1].conv.weight, source.head.one2one_cv3[0][1][1].conv.weight)
    norms = [m for m in target.head.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.03)}
    assert target.head.cv3[0][2].bias[0].item() == pytest.approx(-8.2529, abs=1e-3)
    loss, _ = target(
        {
            "img": torch.rand(1, 3, 64, 64),
            "batch_idx": torch.zeros(0),
            "cls": torch.zeros(0, 1),
            "bboxes": torch.zeros(0, 4),
        }
    )
    assert loss.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_input_channels(channels: int) -> None:
    source, target = net(seed=1), net(seed=2, ch=channels)
    before = target.model[0].conv.weight.clone()
    assert target.load(source) == len(source.state_dict())
    got, given = target.model[0].conv.weight, source.model[0].conv.weight
    if channels == 1:
        torch.testing.assert_close(got, given.sum(1, keepdim=True))
    else:
        shared = min(channels, 3)
        assert torch.equal(got[:, :shared], given[:, :shared])
        assert torch.equal(got[:, shared:], before[:, shared:])


def test_other_shapes_are_left_alone() -> None:
    target = {"a": torch.zeros(2, 2), "b": torch.zeros(3), "c": torch.zeros(1)}
    assert copy_state(target, {"a": torch.ones(2, 3), "b": torch.ones(3), "d": torch.ones(1)}) == ["b"]
    assert target["a"].sum() == 0


def test_class_rows() -> None:
    assert class_rows({0: "0", 1: "1"}, {0: "a", 1: "b"}) is None
    assert class_rows({0: "a", 1: "b"}, {0: "A", 1: " b"}) is None
    assert class_rows({0: "a", 1: "b"}, {0: "b", 1: "z", 2: "a"}) == [(0, 1), (2, 0)]
    assert class_rows({0: "a"}, {0: "z"}) == []
    assert class_rows({0: "Cat ", 1: "dog"}, {0: "dog", 1: "cat"}) == [(0, 1), (1, 0)]
    assert class_rows({0: "a", 1: "b", 2: "a"}, {0: "b", 1: "a"}) == [(0, 1), (1, 0)], "the first of two of one name"
    assert class_rows({0: "0", 1: "b"}, {0: "b", 1: "0"}) == [(0, 1), (1, 0)], "a class may be called 0"
