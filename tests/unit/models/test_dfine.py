"""D-FINE: counts, keys, first outputs, parts, weights of files, folding, one step of training."""

from __future__ import annotations

import ast
import logging
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eyas.boxes import cxcywh_to_xyxy
from eyas.models.catalog import MODELS, detector_class, model_table, reader_of
from eyas.models.dfine.decoder import EdgeConfidence, Gateway
from eyas.models.dfine.model import DFineNet
from eyas.models.dfine.variants import VARIANTS, dfine_table
from eyas.models.rtdetr.anchors import inverse_sigmoid
from eyas.models.rtdetr.keys import is_ignored, rename
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.table import ModelTableError, UnknownModelError
from eyas.optim.select import depths, select
from small_sets import objects, stir

# Total, and in backbone, encoder and decoder, of the training form with 80 classes (spec detr 2.1). The authors keep
# the constants `up` and `reg_scale` of the decoder among the parameters; here they are none.
COUNTS = {
    "n": (3_782_693, 1_850_396, 703_824, 1_228_473),
    "s": (10_321_877, 1_850_396, 4_021_504, 4_449_977),
    "m": (19_590_064, 6_026_626, 7_799_040, 5_764_398),
    "l": (31_244_152, 13_507_680, 9_343_232, 8_393_240),
    "x": (62_621_560, 33_231_840, 20_700_032, 8_689_688),
}
CONSTANTS = 2
KEY_LISTS = Path(__file__).resolve().parents[4] / "shared" / "spec" / "detr-keys"
needs_keys = pytest.mark.skipif(not KEY_LISTS.is_dir(), reason="no key lists beside the repository")


@cache
def on_meta(variant: str) -> DFineNet:
    with torch.device("meta"):
        return DFineNet(dfine_table(variant), verbose=False)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def read_keys(name: str) -> dict[str, tuple[int, ...]]:
    lines = (KEY_LISTS / f"keys_{name}.txt").read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines if line)}


@pytest.fixture(scope="module")
def tiny() -> DFineNet:
    """A small model with statistics that matter; tests must not change it."""
    torch.manual_seed(0)
    model = DFineNet("dfine-tiny", nc=3, verbose=False)
    stir(model, model.decoder)
    return model.eval()


def image(size: int = 64, images: int = 2) -> Tensor:
    return torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(1))


# -- sizes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_are_exact(variant: str) -> None:
    model = on_meta(variant)
    whole, backbone, encoder, decoder = COUNTS[variant]
    assert (count(model.backbone), count(model.encoder)) == (backbone, encoder)
    assert (count(model) + CONSTANTS, count(model.decoder) + CONSTANTS) == (whole, decoder)


def test_work_is_as_published() -> None:
    """To 5 %: the published number is that of the folded model."""
    assert on_meta("n").flops(640) / 1e9 == pytest.approx(7, rel=0.05)


@needs_keys
@pytest.mark.parametrize("variant", COUNTS)
def test_keys_are_those_of_the_authors(variant: str) -> None:
    listed = {key: shape for key, shape in rename(read_keys(f"df_{variant}")).items() if not is_ignored(key)}
    own = {key: tuple(t.shape) for key, t in on_meta(variant).state_dict().items() if not is_ignored(key)}
    assert own == listed


def test_names_and_tables() -> None:
    assert {name for name in MODELS if name.startswith("dfine")} == {f"dfine-{v}" for v in VARIANTS}
    table = model_table("dfine-s")
    assert detector_class(table) is DFineNet and table["lr_ratio"] == 0.5 and not table["frozen_norms"]
    assert [v for v in VARIANTS if dfine_table(v)["frozen_norms"]] == ["l", "x"]
    with pytest.raises(ModelTableError, match=r"variant is 'y'. There are n, s, m, l, x, tiny"):
        model_table({"arch": "dfine", "variant": "y"})
    with pytest.raises(ModelTableError, match="'quries' means nothing in the table of n. Did you mean 'queries'"):
        model_table({"arch": "dfine", "variant": "n", "quries": 10})
    with pytest.raises(ModelTableError, match="act is 'gelu', and must be 'relu' or 'silu'"):
        model_table({"arch": "dfine", "variant": "n", "act": "gelu"})


def test_every_parameter_is_in_one_part() -> None:
    model = on_meta("n")
    names = {name for name, _ in model.named_parameters()}
    parts = [set(select(model, [part])) for part in ("backbone", "neck", "head")]
    assert set().union(*parts) == names and sum(map(len, parts)) == len(names)
    inner = select(model, ["head.box"]), select(model, ["head.cls"])
    assert all(inner) and not set(inner[0]) & set(inner[1])
    assert set(depths(model)) == names


# -- first outputs ----------------------------------------------------------------------------------------------------
def test_a_fresh_model_leaves_boxes_where_they_start() -> None:
    torch.manual_seed(0)
    model = DFineNet("dfine-tiny", nc=3, verbose=False).train()
    pred = model.predict(image(), objects())
    real = pred.dn_meta.split[0]
    for boxes in (pred.fine.first_bboxes[:, real:], pred.dec_bboxes[0][:, real:]):
        assert torch.allclose(boxes, pred.enc_bboxes, atol=1e-2)
    assert (pred.fine.edges.unflatten(-1, (4, -1)).softmax(-1) - 1 / 33).abs().max() < 0.2
    assert pred.dec_scores.sigmoid().mean() < 0.03


def test_a_fresh_gate_takes_half_of_each() -> None:
    x, seen = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    assert torch.allclose(Gateway(8)(x, seen), nn.LayerNorm(8)(x + seen), atol=1e-3)


def test_confidence_reads_the_four_most_probable_bins_and_their_mean() -> None:
    layer = EdgeConfidence(hidden=20)
    assert layer(torch.randn(3, 4 * 33)).abs().max() == 0, "0 at first"
    with torch.no_grad():  # the sum of what it reads
        layer.reg_conf.layers[0].weight.copy_(torch.eye(20))
        layer.reg_conf.layers[0].bias.zero_()
        layer.reg_conf.layers[1].weight.fill_(1.0)
    told = torch.full((4, 33), -1e4)
    told[:, :5] = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04]).log()
    assert layer(told.flatten()).item() == pytest.approx(4 * (0.96 + 0.24), rel=1e-5)


# -- forward ----------------------------------------------------------------------------------------------------------
def test_outputs_while_training_and_not(tiny: DFineNet) -> None:
    pred = tiny.train().predict(image(), objects())
    real, queries = pred.dn_meta.split
    assert (real, queries) == (2 * 2 * 12, 84), "12 groups of two slots, and all cells of so small an image"
    assert pred.dec_bboxes.shape == (2, 2, real + queries, 4) and pred.fine.edges.shape == (2, 2, real + queries, 132)
    assert not pred.fine.reference.requires_grad and pred.fine.first_bboxes.requires_grad
    tiny.eval()
    with torch.no_grad():
        found, pred = tiny.predict(image())
    assert found.shape == (2, 100, 6) and pred.dec_bboxes.shape == (1, 2, 84, 4)
    assert (found[..., 2:4] >= 0).all() and (found[..., 4].diff(dim=1) <= 0).all()
    corners = tiny.in_pixels(found, 64, 64)[..., :4]
    assert torch.allclose(corners, cxcywh_to_xyxy(found[..., :4]) * 64)


def test_layers_add_up_their_distributions(tiny: DFineNet) -> None:
    """The last layer's box follows from its logits, measured from the first box."""
    from eyas.nn.edges import bin_distances, expected_distances, move_edges

    with torch.no_grad():
        _, pred = tiny.predict(image())
    distances = expected_distances(pred.fine.edges[-1], bin_distances(4.0))
    assert torch.allclose(move_edges(pred.fine.first_bboxes, distances, 4.0), pred.dec_bboxes[-1], atol=1e-6)


def test_what_gradients_reach(tiny: DFineNet) -> None:
    """The last layer's edges teach every box head, but neither the first box nor the choice of queries."""
    model = DFineNet("dfine-tiny", nc=3, verbose=False).train()
    model.load_state_dict(tiny.state_dict())
    pred = model.predict(image(), objects())
    pred.fine.edges[-1].sum().backward()
    taught = {name for name, p in model.decoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(n.startswith("dec_bbox_head.0") for n in taught) and any(n.startswith("dec_bbox_head.1") for n in taught)
    assert not any(n.startswith(("pre_bbox_head", "enc_bbox_head", "enc_score_head")) for n in taught)


def test_every_parameter_learns_with_and_without_objects(tiny: DFineNet) -> None:
    for data in (objects(), {k: v[:0] if isinstance(v, Tensor) else 0 for k, v in objects().items()}):
        model = DFineNet("dfine-tiny", nc=3, verbose=False).train()
        loss, items = model.loss({"img": image(), **data})
        loss.sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        assert list(items) == list(model.loss_names)


def test_folding_changes_nothing(tiny: DFineNet) -> None:
    model = DFineNet("dfine-tiny", nc=3, verbose=False).eval()
    model.load_state_dict(tiny.state_dict())
    with torch.no_grad():
        before = model.predict(image())[0]
        model.fuse()
        after = model.predict(image())[0]
    assert model.is_fused() and torch.allclose(before, after, atol=1e-4)


# -- weights ----------------------------------------------------------------------------------------------------------
def as_published(model: DFineNet) -> dict[str, Tensor]:
    """The state as a file of the authors has it, constants and counters included."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace("conv.1.weight", "conv.weight") if ".stem2" in key else key
        key = key.replace("aggregation_squeeze_conv", "aggregation.0")
        state[key.replace("aggregation_excitation_conv", "aggregation.1")] = value
    for part in ("decoder.", "decoder.decoder."):
        state |= {f"{part}up": torch.tensor([0.5]), f"{part}reg_scale": torch.tensor([4.0])}
    return state


def test_a_file_of_the_authors_loads_whole(tiny: DFineNet, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "dfine.pth"
    torch.save({"ema": {"module": as_published(tiny)}, "last_epoch": 3}, path)
    model = DFineNet("dfine-tiny", nc=3, verbose=False)
    with caplog.at_level(logging.INFO, "eyas"):
        copied = model.load(path)
    assert copied == len(model.state_dict()) and "Warning" not in caplog.text
    theirs = tiny.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())


def test_the_class_and_the_model_of_a_file_are_known_by_its_tensors(
    tiny: DFineNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cls, names in ((RTDETRNet, ("rtdetr-r18",)), (DFineNet, ("dfine-n", "dfine-tiny"))):  # all take seconds
        monkeypatch.setattr(cls, "tables", {name: cls.tables[name] for name in names})
    path = tmp_path / "theirs.pth"
    torch.save({"model": as_published(tiny)}, path)
    assert DFineNet.model_for(path) == "dfine-tiny" and reader_of(path) is DFineNet
    with pytest.raises(UnknownModelError, match=r"write YOLO\('dfine-tiny'\).load\("):
        model_table(path)
    assert not tiny.is_filled_by(as_published(tiny) | {"decoder.reg_scale": torch.tensor([8.0])}), "other boxes"


def test_a_box_head_of_another_reach_is_refused(tiny: DFineNet) -> None:
    state = as_published(tiny) | {"decoder.reg_scale": torch.tensor([8.0])}
    with pytest.raises(ValueError, match=r"no weights of tiny: their reg_scale is 8, and must be 4"):
        DFineNet("dfine-tiny", nc=3, verbose=False).load({"model": state})


def test_the_first_box_is_a_step_from_where_the_query_starts(tiny: DFineNet) -> None:
    """Its logits are those of the chosen cell plus what the head says."""
    with torch.no_grad():
        _, pred = tiny.predict(image())
        moved = inverse_sigmoid(pred.fine.first_bboxes) - inverse_sigmoid(pred.enc_bboxes)
    assert moved.abs().max() > 1e-3 and torch.isfinite(moved).all()
