"""DEIMv2 and ECDet: counts, keys, their parts against plain formulas, losses, weights of files and their licence."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from eyas.losses import SetCriterion
from eyas.losses.fine import FineCriterion, LateCriterion
from eyas.models.backbones.tuned import ConvStem, KeysUnbiased, ProjectedPyramid, StemmedViT, tuned_backbone
from eyas.models.catalog import MODELS, build_detector, detector_class, model_table
from eyas.models.deim.v2 import DEIMv2Net, ECDetNet
from eyas.models.deim.v2_decoder import LiteLayer, RootLayer
from eyas.models.encoders import LiteEncoder, SumEncoder
from eyas.models.licences import LicenceError
from eyas.models.lineage import Ancestor
from eyas.models.rtdetr.keys import is_ignored
from eyas.nn.root_norm import RMSNorm
from eyas.optim.select import depths, select
from eyas.types import SetPrediction
from small_sets import objects, stir

# Of the training form with 80 classes (spec detr 4.1, detr-more 8): in all, or in all, backbone, encoder and decoder.
COUNTS = {
    "deimv2-atto": 508_985,
    "deimv2-femto": 983_945,
    "deimv2-pico": 1_539_539,
    "deimv2-n": 3_600_421,
    "deimv2-s": 9_779_838,
    "deimv2-m": 18_357_750,
    "deimv2-l": 32_551_214,
    "deimv2-x": 51_211_736,
}
EC_COUNTS = {
    "ecdet-s": (9_884_102, 5_594_712, 1_367_360, 2_922_030),
    "ecdet-m": (19_431_502, 9_932_064, 3_802_368, 5_697_070),
    "ecdet-l": (32_966_110, 22_463_664, 4_805_376, 5_697_070),
    "ecdet-x": (49_941_982, 29_550_768, 12_592_896, 7_798_318),
}
CONSTANTS, MASK_TOKEN = 2, 384  # that the authors keep among the parameters; the second in L and X alone
FILES = {name: f"de2_{name.split('-')[1]}" for name in COUNTS} | {"ecdet-s": "ec_s"}
KEY_LISTS = Path(__file__).resolve().parents[4] / "shared" / "spec" / "detr-keys"
needs_keys = pytest.mark.skipif(not KEY_LISTS.is_dir(), reason="no key lists beside the repository")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "families.md"


@cache
def on_meta(name: str) -> Any:
    with torch.device("meta"):
        return build_detector(name, verbose=False)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def listed(name: str) -> dict[str, Tensor]:
    """What a file of the authors holds, without values."""
    lines = [line.split("\t") for line in (KEY_LISTS / f"keys_{FILES[name]}.txt").read_text().splitlines() if line]
    return {k: torch.empty(ast.literal_eval(shape), device="meta") for k, shape in lines if "reg_scale" not in k}


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if not is_ignored(key)}


def small(name: str, seed: int = 0, **changes: Any) -> Any:
    """A small model whose statistics and outputs matter."""
    torch.manual_seed(seed)
    model = build_detector(model_table(name) | changes, nc=3, verbose=False)
    stir(model, model)
    return model


def image(height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


# -- sizes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_exact(name: str) -> None:
    left = CONSTANTS + (MASK_TOKEN if name in ("deimv2-l", "deimv2-x") else 0)
    assert count(on_meta(name)) + left == COUNTS[name]


@pytest.mark.parametrize("name", EC_COUNTS)
def test_parameters_of_ecdet_are_exact_in_every_part(name: str) -> None:
    model = on_meta(name)
    whole, backbone, encoder, decoder = EC_COUNTS[name]
    assert (count(model.backbone), count(model.encoder)) == (backbone, encoder)
    assert (count(model) + CONSTANTS, count(model.decoder) + CONSTANTS) == (whole, decoder)


@needs_keys
@pytest.mark.parametrize("name", FILES)
def test_keys_are_those_of_the_authors(name: str) -> None:
    assert shapes(on_meta(name).adapt(listed(name))) == shapes(on_meta(name).state_dict())


def test_names_and_tables() -> None:
    names = [name for name in MODELS if name.startswith(("deimv2", "ecdet"))]
    assert names == [*COUNTS, "deimv2-tiny", *EC_COUNTS, "ecdet-tiny"]
    for name in names:
        table = model_table(name)
        assert detector_class(table) is (DEIMv2Net if name.startswith("deimv2") else ECDetNet)
        assert (table["act"], table["loss"], table["frozen_norms"]) == ("silu", "matchability", False)
    rates = {name: model_table(name)["lr_ratio"] for name in names}
    assert (rates["deimv2-n"], rates["deimv2-s"], rates["deimv2-x"], rates["ecdet-x"]) == (0.5, 0.05, 0.02, 0.005)


@pytest.mark.parametrize("name", [*COUNTS, *EC_COUNTS])
def test_the_page_of_families_says_so(name: str) -> None:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    (row,) = [cells for cells in rows if f"`{name}`" in cells[1] and cells[2].strip()[:1].isdigit()]
    assert row[2].strip() == f"{count(on_meta(name)):,}"


@pytest.mark.parametrize("name", ["deimv2-atto", "deimv2-tiny", "ecdet-tiny"])
def test_every_parameter_is_in_one_part_and_learns_with_and_without_objects(name: str) -> None:
    model = small(name).train()
    names = {key for key, _ in model.named_parameters()}
    parts = [set(select(model, [part])) for part in ("backbone", "neck", "head")]
    assert set().union(*parts) == names == set(depths(model)) and sum(map(len, parts)) == len(names)
    for data in (objects(), {k: v[:0] if isinstance(v, Tensor) else 0 for k, v in objects().items()}):
        model.zero_grad()
        loss, items = model.loss({"img": image(), **data})
        loss.sum().backward()
        assert [key for key, p in model.named_parameters() if p.grad is None] == []
        assert list(items) == list(model.loss_names)


# -- parts against plain formulas -------------------------------------------------------------------------------------
def test_norm_by_the_root_of_the_mean_square() -> None:
    x, norm = torch.randn(3, 5, 8), RMSNorm(8)
    with torch.no_grad():
        norm.scale.uniform_(0.5, 2)
    assert torch.allclose(norm(x), f.rms_norm(x, (8,), norm.scale, 1e-6), atol=1e-6)
    assert norm.half()(x.half()).dtype is torch.float16


@pytest.mark.parametrize("kind", [LiteLayer, RootLayer])
def test_a_layer_thinks_by_a_gated_network(kind: type[LiteLayer]) -> None:
    torch.manual_seed(0)
    layer, x = kind(16, 2, 2, (2, 1), 24, "silu"), torch.randn(2, 4, 16)
    w, b = layer.swish_ffn.w12.weight, layer.swish_ffn.w12.bias
    gate, value = x @ w[:12].T + b[:12], x @ w[12:].T + b[12:]
    change = (gate * gate.sigmoid() * value) @ layer.swish_ffn.w3.weight.T + layer.swish_ffn.w3.bias
    assert torch.allclose(layer.think(x), f.rms_norm(x + change, (16,), None, 1e-6), atol=1e-5)
    seen = torch.randn(2, 4, 16)
    with torch.no_grad():  # a fresh gate takes half of each, and the norm takes the half away
        assert torch.allclose(layer.take(x, seen), f.rms_norm(x + seen, (16,), None, 1e-6), atol=1e-4)


def conv_norm(state: dict[str, Tensor], conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{conv}.weight"]
    x = f.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    mean, var, scale, shift = (state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]


def test_details_of_the_image_beside_the_transformer() -> None:
    """Of tensors under the authors' names, by hand: spec detr 4.2."""
    c, d, out = 8, 64, 64
    theirs = {"sta.stem": ("0", "1", (c, 3, 3, 3)), "sta.conv2": ("0", "1", (2 * c, c, 3, 3))}
    theirs |= {"sta.conv3": ("1", "2", (4 * c, 2 * c, 3, 3)), "sta.conv4": ("1", "2", (4 * c, 4 * c, 3, 3))}
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, (conv, norm, shape) in theirs.items():
        state |= {f"{name}.{conv}.weight": 0.2 * torch.randn(shape)}
        state |= {f"{name}.{norm}.{key}": torch.rand(shape[0]) + 0.5 for key in ("weight", "bias", "running_var")}
        state |= {f"{name}.{norm}.running_mean": torch.randn(shape[0])}
    for i, inner in enumerate((2 * c, 4 * c, 4 * c)):
        state |= {f"convs.{i}.weight": 0.1 * torch.randn(out, d + inner, 1, 1)}
        state |= {f"norms.{i}.{key}": torch.rand(out) + 0.5 for key in ("weight", "bias", "running_var")}
        state |= {f"norms.{i}.running_mean": torch.randn(out)}
    model = build_detector("deimv2-tiny", nc=3, verbose=False).eval()
    model.load({"model": {f"backbone.{key}": value for key, value in state.items()}}, verbose=False)
    maps, pixels = [torch.randn(2, d, 4, 6) for _ in range(3)], image()
    with torch.no_grad():
        found = model.backbone.pyramid.joined(maps, pixels)
        x = f.max_pool2d(f.gelu(conv_norm(state, "sta.stem.0", "sta.stem.1", pixels, 2)), 3, 2, 1)
        eighth = conv_norm(state, "sta.conv2.0", "sta.conv2.1", x, 2)
        sixteenth = conv_norm(state, "sta.conv3.1", "sta.conv3.2", f.gelu(eighth), 2)
        last = conv_norm(state, "sta.conv4.1", "sta.conv4.2", f.gelu(sixteenth), 2)
        for i, (tap, detail) in enumerate(zip(maps, (eighth, sixteenth, last), strict=True)):
            tap = f.interpolate(tap, size=(8 >> i, 12 >> i), mode="bilinear")
            level = conv_norm(state, f"convs.{i}", f"norms.{i}", torch.cat((tap, detail), 1))
            assert level.shape == (2, out, 8 >> i, 12 >> i)
            assert torch.allclose(found[f"p{i + 3}"], level, atol=1e-4)


def test_details_see_the_pixels_as_the_transformer_does() -> None:
    backbone = tuned_backbone("deimv2-vit-tiny").eval()
    seen: dict[str, Tensor] = {}
    backbone.vit.patch_embed.register_forward_pre_hook(lambda _, given: seen.update(patches=given[0]))
    backbone.pyramid.get_submodule("stem").register_forward_pre_hook(lambda _, given: seen.update(details=given[0]))
    levels = backbone(image())
    assert torch.equal(seen["patches"], seen["details"]) and seen["details"].min() < -0.5
    assert {name: level.shape[1:] for name, level in levels.items()} == {
        "p3": (64, 8, 12), "p4": (64, 4, 6), "p5": (64, 2, 3)
    }  # fmt: skip


def test_blocks_whose_maps_are_taken() -> None:
    backbone = tuned_backbone("deimv2-vit-tiny").eval()
    with torch.no_grad():
        taken, last = backbone.vit(image(), (0, 2)).maps, backbone.vit(image(), 3).maps
    assert len(taken) == 2 and torch.equal(taken[0], last[0]) and torch.equal(taken[1], last[2])
    assert not torch.allclose(taken[0], taken[1])


def test_keys_have_no_bias() -> None:
    layer, x = KeysUnbiased(8, 24), torch.randn(5, 8)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(24.0))
    expected = x @ layer.weight.T + torch.cat((torch.arange(8.0), torch.zeros(8), torch.arange(16.0, 24.0)))
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert sum(isinstance(m, KeysUnbiased) for m in on_meta("deimv2-x").modules()) == 12


def test_a_stem_of_convolutions_and_no_class_token() -> None:
    stem, x = ConvStem(3, 32).eval(), image()
    expected = x
    with torch.no_grad():
        for i in range(3):
            expected = f.relu(f.conv2d(expected, stem.convs[i].conv.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5)
        expected = f.conv2d(expected, stem.proj.weight, stem.proj.bias, stride=2, padding=1)
        assert torch.allclose(stem(x), expected, atol=1e-5) and expected.shape == (2, 32, 4, 6)
        vit = StemmedViT("ecvit-tiny").eval().vit
        features = vit(x, 2)
    assert features.tokens.shape == (2, 1, 64), "one register"
    assert [m.shape for m in features.maps] == [(2, 64, 4, 6)] * 2 and not hasattr(vit, "cls_token")


@pytest.mark.parametrize(("out", "projected"), [(8, 1), (6, 3)])
def test_the_mean_of_two_maps_at_three_sizes(out: int, projected: int) -> None:
    pyramid = ProjectedPyramid(8, 16, out).eval()
    maps = [torch.randn(1, 8, 4, 6), torch.randn(1, 8, 4, 6)]
    mean = (maps[0] + maps[1]) / 2
    sizes = {"p3": (8, 12), "p4": (4, 6), "p5": (2, 3)}
    expected = {name: f.interpolate(mean, size=size, mode="bilinear") for name, size in sizes.items()}
    for name, layer in zip(list(sizes)[3 - projected :], pyramid.projector, strict=True):
        expected[name] = f.conv2d(expected[name], layer.conv.weight) / (1 + 1e-5) ** 0.5
    with torch.no_grad():
        found = pyramid(maps)
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in sizes)


def csp(block: Any, x: Tensor) -> Tensor:
    past, through = block.conv1(x).chunk(2, 1)
    for unit in block.bottlenecks:
        through = f.silu(unit.conv1(through) + unit.conv2(through))
    return past + through


def elan(block: Any, x: Tensor) -> Tensor:
    first, second = block.cv1(x).chunk(2, 1)
    parts = [first, second]
    for step in (block.cv2, block.cv3):
        x = csp(step[0], parts[-1])
        parts.append(step[1](x) if len(step) > 1 else x)
    return block.cv4(torch.cat(parts, 1))


def test_maps_are_added() -> None:
    torch.manual_seed(0)
    encoder = SumEncoder([8, 8], hidden=8, ffn=16, heads=2, expansion=1.0, depth_mult=0.34).eval()
    large, small_map = torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)
    with torch.no_grad():
        found = encoder([large, small_map])
        lateral = encoder.lateral_convs[0](encoder.encoder[0](small_map))
        upper = elan(encoder.fpn_blocks[0], large + f.interpolate(lateral, scale_factor=2))
        lower = elan(encoder.pan_blocks[0], lateral + encoder.downsample_convs[0](upper))
    assert torch.allclose(found[0], upper, atol=1e-5) and torch.allclose(found[1], lower, atol=1e-5)
    assert not list(encoder.input_proj.parameters()) and len(encoder.fpn_blocks[0].cv2) == 1


def test_two_maps_out_of_one() -> None:
    torch.manual_seed(0)
    encoder, x = LiteEncoder(6, hidden=8, expansion=0.5, depth_mult=0.34).eval(), torch.randn(1, 6, 4, 6)
    silu = f.silu
    with torch.no_grad():
        found = encoder([x])
        state = encoder.state_dict()
        large = conv_norm(state, "input_proj.0.conv", "input_proj.0.norm", x)
        low = silu(conv_norm(state, "down_sample1.1.conv", "down_sample1.1.norm", f.avg_pool2d(large, 3, 2, 1)))
        low = silu(conv_norm(state, "bi_fusion.cv.conv", "bi_fusion.cv.norm", low + low.mean((2, 3), keepdim=True)))
        upper = elan(encoder.fpn_block, large + f.interpolate(low, scale_factor=2))
        down = silu(conv_norm(state, "down_sample2.1.conv", "down_sample2.1.norm", f.avg_pool2d(upper, 3, 2, 1)))
        lower = elan(encoder.pan_block, low + down)
    assert torch.allclose(found[0], upper, atol=1e-5) and torch.allclose(found[1], lower, atol=1e-5)


def test_where_queries_start_is_coded_once_and_lite_layers_share_their_box_head() -> None:
    model, calls = small("deimv2-atto").eval(), []
    model.decoder.query_pos_head.register_forward_hook(lambda *_: calls.append("code"))
    model.decoder.dec_bbox_head[0].register_forward_hook(lambda *_: calls.append("box"))
    with torch.no_grad():
        model.predict(image())
    assert calls == ["code", "box", "box", "box"] and len(model.decoder.dec_bbox_head) == 1
    assert len(model.decoder.dec_score_head) == 3 and not list(model.decoder.enc_output.parameters())


# -- losses -----------------------------------------------------------------------------------------------------------
def test_lite_models_are_taught_boxes_and_classes_alone() -> None:
    """The first box is one more layer's to a loss that knows of no distributions."""
    model = small("deimv2-atto", num_denoising=0).train()
    criterion = model.init_criterion()
    assert type(criterion) is LateCriterion and list(criterion.gains) == ["giou", "cls", "l1"]
    pred = model.predict(image(), objects())
    boxes = torch.cat((pred.fine.first_bboxes[None], pred.dec_bboxes))
    scores = torch.cat((pred.fine.first_scores[None], pred.dec_scores))
    plain = SetPrediction(boxes, scores, pred.enc_bboxes, pred.enc_scores, None, None)
    loss, items = criterion(pred, objects())
    wanted, shown = SetCriterion(nc=3, matchability=1.5)(plain, objects())
    assert torch.allclose(loss, wanted, rtol=1e-5) and items.keys() == shown.keys()
    assert all(torch.allclose(items[name], shown[name]) for name in items)


def test_the_end_of_a_run_matches_otherwise_in_deimv2_alone() -> None:
    for name, kind in (("deimv2-tiny", LateCriterion), ("ecdet-tiny", FineCriterion)):
        model = small(name).train()
        criterion = model.init_criterion()
        assert type(criterion) is kind and list(criterion.gains) == ["giou", "cls", "l1", "fgl", "ddf"]


# -- weights ----------------------------------------------------------------------------------------------------------
def as_published(model: Any) -> dict[str, Tensor]:
    """The state of deimv2-tiny or deimv2-atto as a file of the authors has it."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace("conv.1.weight", "conv.weight") if ".stem2" in key else key
        key = key.replace("aggregation_squeeze_conv", "aggregation.0")
        key = key.replace("aggregation_excitation_conv", "aggregation.1")
        key = key.replace("backbone.vit.", "backbone.dinov3._model.").replace("pyramid.mix.0.conv", "convs.0")
        state[key] = value
    for name in ("vit.mean", "vit.std"):
        state.pop(f"backbone.{name}".replace("vit.", "dinov3._model."), None)
    if model.sizes.lite:
        head = {k: v for k, v in state.items() if k.startswith("decoder.dec_bbox_head.0.")}
        state |= {k.replace("head.0.", f"head.{i}."): v for k, v in head.items() for i in (1, 2)}
    return state | {"decoder.up": torch.tensor([0.5]), "decoder.reg_scale": torch.tensor([4.0])}


@pytest.mark.parametrize("name", ["deimv2-atto", "deimv2-tiny"])
def test_a_file_of_the_authors_is_recognised_and_loads_whole(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, path = small(name), tmp_path / "theirs.pth"
    torch.save({"ema": {"module": as_published(model)}}, path)
    fresh = build_detector(name, nc=3, verbose=False)
    with caplog.at_level("WARNING", "eyas"):
        assert fresh.load(path, verbose=False) >= len(shapes(model.state_dict()))
    assert caplog.text == "" and fresh.is_filled_by(as_published(model))
    theirs = model.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in fresh.state_dict().items())


def test_the_model_of_a_file_is_known_by_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {name: DEIMv2Net.tables[name] for name in ("deimv2-n", "deimv2-femto", "deimv2-atto")}
    monkeypatch.setattr(DEIMv2Net, "tables", tables)
    torch.save(as_published(small("deimv2-atto")), tmp_path / "w.pth")
    assert DEIMv2Net.model_for(tmp_path / "w.pth") == "deimv2-atto"


def test_what_begins_with_dinov3_is_under_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EYAS_ACCEPT_LICENCES", raising=False)
    table, file = model_table("deimv2-s"), Ancestor("w.pth")
    with pytest.raises(LicenceError, match=r"w\.pth: their licence is DINOv3 License"):
        DEIMv2Net.agreed(file, table)
    known = DEIMv2Net.agreed(file, table, ["dinov3 license"])
    assert known.licence == "DINOv3 License" and "dinov3" in known.source and "accept_licences" in known.consent
    assert DEIMv2Net.agreed(file, model_table("deimv2-n")).licence == ""
    published = ECDetNet.published["ecdet-s"]
    assert published.licence == "Apache-2.0" and "DINOv3" in published.trained_on
    assert ECDetNet.agreed(file, model_table("ecdet-s")).licence == ""
