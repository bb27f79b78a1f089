"""The official layout of RT-DETR v1 and v2: counts, keys, parts, weights of files, folding, one step of training."""

from __future__ import annotations

import ast
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eyas.models.catalog import MODELS, detector_class, model_table
from eyas.models.rtdetr.keys import IGNORED, is_ignored, our_name, rename
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.rtdetr.variants import OFFICIAL, VARIANTS, build_backbone, official_table
from eyas.models.table import ModelTableError
from eyas.nn.frozen_norm import FrozenBatchNorm2d
from eyas.optim.select import depths, select

# Total, and in backbone, encoder and decoder, of the training form with 80 classes (spec detr 1.1). The spec gives no
# split for the last; there the parts are counted from the key list.
COUNTS = {
    "r18": (20_184_464, 11_199_968, 4_965_120, 4_019_376),
    "r34": (31_441_668, 21_308_128, 4_965_120, 5_168_420),
    "r50m": (36_593_772, 23_474_016, 5_653_248, 7_466_508),
    "r50": (42_891_372, 23_474_016, 11_950_848, 7_466_508),
    "r101": (76_556_268, 42_413_920, 26_577_536, 7_564_812),
    "hgnetv2-l": (32_925_036, 13_507_680, 11_950_848, 7_466_508),
    "hgnetv2-x": (67_374_188, 33_231_840, 26_577_536, 7_564_812),
    "hgnetv2-h": (125_584_348, 68_847_056, 49_074_176, 7_663_116),
}
FROZEN_STEM = {"r18": 0, "r34": 0, "r50m": 28_512, "r50": 28_512, "r101": 28_512, "hgnetv2-l": 24_928}
KEY_LISTS = Path(__file__).resolve().parents[4] / "shared" / "spec" / "detr-keys"
FILES = {"hgnetv2-l": "hgL", "hgnetv2-x": "hgX", "hgnetv2-h": "hgH"}
V1_FILES = ("r18", "r34", "r50m", "r50", "r101")  # no v1 file of HGNetv2 exists for torch
needs_keys = pytest.mark.skipif(not KEY_LISTS.is_dir(), reason="no key lists beside the repository")


def on_meta(variant: str, **table: Any) -> RTDETRNet:
    with torch.device("meta"):
        return RTDETRNet(official_table(variant) | table, verbose=False)


@pytest.fixture(scope="module")
def r18() -> RTDETRNet:
    """A small model with statistics that matter; tests must not change it."""
    torch.manual_seed(0)
    model = RTDETRNet("rtdetr-r18", nc=3, verbose=False)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return model.eval()


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def blank(nc: int, **settings: Any) -> RTDETRNet:
    """A model whose tensors are all 0: no time is spent on random values that are about to be replaced."""
    with torch.device("meta"):
        model = RTDETRNet("rtdetr-r18", nc=nc, verbose=False, **settings)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.zero_()
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def copy_of(model: RTDETRNet) -> RTDETRNet:
    fresh = blank(model.nc)
    fresh.load_state_dict(model.state_dict())
    return fresh.eval()


# -- sizes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_exact(variant: str) -> None:
    model = on_meta(variant)
    parts = model.backbone, model.encoder, model.decoder
    assert (count_parameters(model), *map(count_parameters, parts)) == COUNTS[variant]
    if variant in FROZEN_STEM:
        assert count_parameters(model) - count_parameters(model, trainable=True) == FROZEN_STEM[variant]


def read_keys(name: str) -> dict[str, tuple[int, ...]]:
    lines = (KEY_LISTS / f"keys_{name}.txt").read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines if line)}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@needs_keys
@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_are_those_of_v2(variant: str) -> None:
    """All but the number of points, a constant that no tensor here holds."""
    listed = read_keys(f"v2_{FILES.get(variant, variant)}")
    assert shapes(on_meta(variant)) == {k: s for k, s in listed.items() if not k.endswith("num_points_scale")}


@needs_keys
@pytest.mark.parametrize("variant", V1_FILES)
def test_keys_are_those_of_v1_after_renaming(variant: str) -> None:
    assert rename(read_keys(f"v1_{variant}")) == shapes(on_meta(variant))


@needs_keys
def test_a_backbone_of_dfine_fits_after_renaming() -> None:
    """D-FINE-L has HGNetv2-B4, frozen as here, under other names."""
    listed = {k: s for k, s in read_keys("df_l").items() if k.startswith("backbone.")}
    own = {k: s for k, s in shapes(on_meta("hgnetv2-l")).items() if k.startswith("backbone.")}
    assert {k: s for k, s in rename(listed).items() if not is_ignored(k)} == own


def test_ordinary_norms_have_the_same_names() -> None:
    frozen, ordinary = on_meta("r50"), on_meta("r50", frozen_norms=False, freeze_stem=False)
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) == 3 + 16 * 3 + 4
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in ordinary.modules())
    more = shapes(ordinary).keys() - shapes(frozen).keys()
    assert len(more) == 55 and all(k.startswith("backbone.") and k.endswith("num_batches_tracked") for k in more)
    assert all(p.requires_grad for p in ordinary.parameters())
    assert count_parameters(ordinary.backbone) == 23_527_264


def test_names_of_files_and_ours() -> None:
    assert our_name("encoder.input_proj.2.0.weight") == "encoder.input_proj.2.conv.weight"
    assert our_name("encoder.input_proj.2.1.running_var") == "encoder.input_proj.2.norm.running_var"
    assert our_name("decoder.enc_output.0.bias") == "decoder.enc_output.proj.bias"
    assert our_name("decoder.enc_output.1.weight") == "decoder.enc_output.norm.weight"
    assert our_name("decoder.input_proj.0.conv.weight") == "decoder.input_proj.0.conv.weight"
    assert our_name("backbone.stem.stem2a.conv.weight") == "backbone.stem.stem2a.conv.1.weight"
    assert our_name("backbone.stem.stem2a.bn.weight") == "backbone.stem.stem2a.bn.weight"
    assert our_name("backbone.stages.0.blocks.1.aggregation.1.bn.bias") == (
        "backbone.stages.0.blocks.1.aggregation_excitation_conv.bn.bias"
    )
    assert rename({"module.decoder.x": 1, "module.encoder.y": 2}) == {"decoder.x": 1, "encoder.y": 2}
    assert rename({"conv1.conv1_1.conv.weight": 1}) == {"backbone.conv1.conv1_1.conv.weight": 1}
    assert all(is_ignored(f"a.b.{name}") for name in IGNORED)
    assert not is_ignored("decoder.anchors_head.weight")


# -- tables -----------------------------------------------------------------------------------------------------------
def test_catalogue_has_all_of_both_versions() -> None:
    assert set(OFFICIAL) == {f"{family}-{v}" for family in ("rtdetr", "rtdetrv2") for v in VARIANTS}
    assert set(OFFICIAL) <= set(MODELS)
    v1, v2 = model_table("rtdetr-r18"), model_table("rtdetrv2-r18.yaml")
    assert {k for k in v1 if v1[k] != v2[k]} == {"yaml_file", "lr_ratio"}
    assert detector_class(v1) is detector_class(v2) is RTDETRNet
    assert (v1["lr_ratio"], v2["lr_ratio"]) == (0.1, 1.0)
    assert (model_table("rtdetr-r101")["lr_ratio"], model_table("rtdetrv2-r34")["lr_ratio"]) == (0.01, 0.5)
    assert {v for v in VARIANTS if official_table(v)["frozen_norms"]} == set(VARIANTS) - {"r18", "r34"}


def test_a_table_rebuilds_the_model() -> None:
    with torch.device("meta"):
        model = RTDETRNet("rtdetrv2-r34", nc=4, ch=1, names=list("abcd"), verbose=False)
        again = RTDETRNet(model.yaml, ch=1, verbose=False)
    assert again.yaml == model.yaml and again.nc == 4 and model.names[3] == "d"
    assert shapes(again) == shapes(model)
    assert model.state_dict()["backbone.conv1.conv1_1.conv.weight"].shape == (32, 1, 3, 3)
    assert model.stretch and model.end2end and model.stride.tolist() == [32.0]


def test_mistakes_in_a_table_are_named() -> None:
    with pytest.raises(ModelTableError, match="'frozen_norm' means nothing .*Did you mean 'frozen_norms'"):
        RTDETRNet(official_table("r18") | {"frozen_norm": True})
    with pytest.raises(ModelTableError, match="variant is 'r51'. Did you mean 'r50'"):
        RTDETRNet({"arch": "rtdetr", "variant": "r51"})
    for key, value, least in (("queries", 0, 1), ("num_denoising", -1, 0), ("queries", "many", 1)):
        with pytest.raises(
            ModelTableError, match=f"{key} is {value!r}, and must be a whole number of at least {least}"
        ):
            RTDETRNet({"arch": "rtdetr", "variant": "r18", key: value})
    with pytest.raises(ValueError, match="needs no NMS"):
        on_meta("r18").set_head_attr(end2end=False)


def test_the_thin_member_scores_its_third_layer() -> None:
    decoders = {v: on_meta(v).decoder for v in ("r50m", "r50", "r18")}
    assert {v: d.eval_layer for v, d in decoders.items()} == {"r50m": 2, "r50": 5, "r18": 2}
    assert len(decoders["r50m"].decoder.layers) == 6 and len(decoders["r18"].decoder.layers) == 3


# -- parts ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", ["r18", "r50", "hgnetv2-h"])
def test_every_parameter_is_in_one_section_and_one_level(variant: str) -> None:
    model = on_meta(variant)
    sections = model.sections()
    names = [n for n, _ in model.named_parameters()]
    for name in names:
        assert sum(name.startswith(sections[part]) for part in ("backbone", "neck", "head")) == 1
        inside = [p for p in sections if p.startswith("backbone.") and name.startswith(sections[p])]
        assert len(inside) == name.startswith("backbone.")
    assert [p for p in sections if p.startswith("backbone.")] == [f"backbone.p{k}" for k in (2, 3, 4, 5)]
    assert all(select(model, part) for part in sections)
    classes = {n for n in names if "score_head" in n or "class_embed" in n}
    assert set(select(model, "head.cls")) == classes
    assert set(select(model, "head.box")) == {n for n in names if "bbox_head" in n}
    assert classes <= model.class_keys()
    rows = {shapes(model)[key][0] for key in model.class_keys()}
    assert rows == {80, 81}


def test_depth_grows_from_the_stem_to_the_decoder() -> None:
    levels = depths(on_meta("r18"))
    assert levels["backbone.conv1.conv1_1.conv.weight"] == 0
    assert levels["backbone.res_layers.0.blocks.0.branch2a.conv.weight"] == 1
    assert levels["backbone.res_layers.3.blocks.1.branch2b.norm.bias"] == 8
    assert levels["encoder.input_proj.0.conv.weight"] == levels["decoder.dec_score_head.0.bias"] == 9
    assert set(levels.values()) == set(range(10))
    hgnet = depths(on_meta("hgnetv2-l"))
    first = "backbone.stages.2.blocks.0.layers.0.conv1.conv.weight"
    assert hgnet["backbone.stages.2.downsample.conv.weight"] == hgnet[first] == 3
    assert max(hgnet.values()) == 1 + 1 + 1 + 3 + 1


def test_whole_numbers_select_levels() -> None:
    """``freeze=9`` of r18: the stem and its eight blocks, the backbone; a list names single levels."""
    model = on_meta("r18")
    assert set(select(model, 1)) == {n for n, _ in model.named_parameters() if n.startswith("backbone.conv1.")}
    assert select(model, 9) == select(model, "backbone")
    assert select(model, 10) == tuple(n for n, _ in model.named_parameters())
    assert select(model, [2]) == select(model, "backbone.res_layers.0.blocks.1")
    assert select(model, [0, 1]) == select(model, 2)
    assert set(select(model, [9])) == set(select(model, ["neck", "head"]))
    assert select(on_meta("r50"), 17) == select(on_meta("r50"), "backbone")
    with pytest.raises(ValueError, match="the first 11 layers: this model has 10; give 1 to 10"):
        select(model, 11)


# -- start ------------------------------------------------------------------------------------------------------------
def test_start_values(r18: RTDETRNet) -> None:
    state = RTDETRNet("rtdetr-r18", nc=7, verbose=False).state_dict()
    for key, value in state.items():
        if "score_head" in key and key.endswith("bias"):
            torch.testing.assert_close(value, torch.full_like(value, -math.log(99)))
        if "bbox_head" in key and "layers.2" in key:
            assert not value.any()
    layer = "decoder.decoder.layers.{}.linear1.weight"
    limit = math.sqrt(6 / (256 + 1024))
    assert 0.99 * limit < float(state[layer.format(0)].abs().max()) <= limit
    assert torch.equal(state[layer.format(0)], state[layer.format(2)])
    table = state["decoder.denoising_class_embed.weight"]
    assert table.shape == (8, 256) and not table[7].any()
    assert float(table[:7].std()) == pytest.approx(1, abs=0.1)


# -- forward, loss, folding -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(64, 64), (96, 70)])
def test_detections(r18: RTDETRNet, size: tuple[int, int]) -> None:
    with torch.no_grad():
        y, raw = r18(torch.rand(2, 3, *size))
    cells = sum(math.ceil(size[0] / s) * math.ceil(size[1] / s) for s in (8, 16, 32))
    assert y.shape == (2, min(300, 3 * cells), 6)
    assert raw.dec_scores.shape == (1, 2, cells, 3) and raw.dn_meta is None
    assert y[..., :5].min() >= 0 and y[..., :5].max() <= 1
    assert bool((y[:, :-1, 4] >= y[:, 1:, 4]).all())
    pixels = r18.in_pixels(torch.tensor([[[0.5, 0.5, 0.5, 0.2, 0.9, 1.0]]]), 100, 200)
    torch.testing.assert_close(pixels, torch.tensor([[[50.0, 40.0, 150.0, 60.0, 0.9, 1.0]]]))


def test_folding_keeps_the_output(r18: RTDETRNet) -> None:
    model = copy_of(r18)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)[1]
        assert not model.is_fused()
        after = model.fuse()(x)[1]
    assert model.is_fused()
    assert not any("norm.weight" in k and "input_proj" in k for k in model.state_dict())
    # Queries may change places where their scores are almost equal: compare them sorted.
    for name in ("dec_scores", "dec_bboxes"):
        a, b = (getattr(p, name).flatten(0, 2).sum(-1).sort().values for p in (before, after))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_frozen_model_is_not_fused_before_it_is() -> None:
    model = on_meta("r50")
    for part in (model.encoder, model.decoder):
        for m in part.modules():
            for name, child in m.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(m, name, nn.Identity())
    assert not model.is_fused()


def batch_of(images: int = 2, size: int = 64) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "img": torch.rand(images, 3, size, size, generator=g),
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": torch.rand(3, 4, generator=g) * 0.3 + 0.3,
        "max_objects": 2,
    }


def test_the_loss_is_the_papers_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = RTDETRNet("rtdetr-r18", nc=3, verbose=False).train()
    loss, items = model(batch_of())
    assert loss.shape == (3,) and list(items) == ["giou_loss", "cls_loss", "l1_loss"]
    assert bool(torch.isfinite(loss).all())
    loss.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    criterion = model.criterion
    assert (criterion.alpha, criterion.gamma) == (0.75, 2.0)
    assert criterion.gains == {"giou": 2.0, "cls": 1.0, "l1": 5.0}


def test_gains_are_those_of_the_model() -> None:
    model = on_meta("r18")
    model.gains = {"box": 3.0, "cls": 0.5, "dfl": 7.0}
    assert model.init_criterion().gains == {"giou": 3.0, "cls": 0.5, "l1": 7.0}


def test_a_frozen_backbone_stays_as_it_is_while_the_rest_trains() -> None:
    """Two steps of training change neither the stem nor any statistic of the backbone."""
    torch.manual_seed(0)
    model = RTDETRNet(official_table("r50"), nc=3, verbose=False).train()
    still = {
        k: v.clone()
        for k, v in model.state_dict().items()
        if k.startswith("backbone.") and ("norm" in k or "conv1_" in k)
    }
    moving = model.backbone.res_layers[0].blocks[0].branch2a.conv.weight
    before = moving.detach().clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    loss, _ = model(batch_of())
    loss.sum().backward()
    optimizer.step()
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in still.items())
    assert not torch.equal(moving, before)


# -- weights ----------------------------------------------------------------------------------------------------------
def as_v1(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Write a state with the names of a v1 file, and with the tensors such a file has more."""
    pairs = [("enc_output.proj", "enc_output.0"), ("enc_output.norm", "enc_output.1")]
    out = {}
    for key, value in state.items():
        if key.startswith("encoder.input_proj."):
            key = key.replace(".conv.", ".0.").replace(".norm.", ".1.")
        for new, old in pairs:
            key = key.replace(new, old)
        out[key] = value
    return out | {"decoder.anchors": torch.zeros(1, 8400, 4), "decoder.valid_mask": torch.ones(1, 8400, 1)}


def as_v2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    points = {f"decoder.decoder.layers.{i}.cross_attn.num_points_scale": torch.full((12,), 0.25) for i in range(3)}
    return dict(state) | points


@pytest.mark.parametrize("version", [1, 2])
def test_published_files_fill_the_whole_model(
    r18: RTDETRNet, tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    named = (as_v1 if version == 1 else as_v2)(r18.state_dict())
    if version == 1:
        content = {"ema": {"module": named, "updates": 7}, "model": {k: v * 0 for k, v in named.items()}}
    else:
        content = {"model": named, "last_epoch": 3}
    file = tmp_path / "published.pth"
    torch.save(content, file)
    model = blank(3)
    with caplog.at_level(logging.INFO, logger="eyas"):
        assert model.load(file) == len(model.state_dict())
    assert same(model, r18)
    constants = 2 if version == 1 else 3  # in the file, and not in the model
    told = f"Loaded {len(named) - constants} of {len(model.state_dict())} tensors from the given weights"
    assert [r.message for r in caplog.records] == [told]
    # The content itself, a state and the text of a path do as well.
    for weights in (content, named, str(file)):
        assert model.load(weights, verbose=False) == len(model.state_dict())


def test_another_number_of_classes_drops_the_class_heads_and_says_so(
    r18: RTDETRNet, caplog: pytest.LogCaptureFixture
) -> None:
    model = blank(5)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="eyas"):
        copied = model.load({"model": as_v1(r18.state_dict())})
    classes = model.class_keys()
    assert copied == len(fresh) - len(classes)
    assert "Class outputs start afresh" in caplog.text and "than 5" in caplog.text
    given = r18.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key in classes else given[key])


def test_classes_follow_their_names(r18: RTDETRNet) -> None:
    source = {"model": dict(r18.state_dict()), "names": ["cat", "dog", "bird"]}
    model = blank(4, names=["fish", "Bird", "cat", "x"])
    model.load(source, verbose=False)
    ours, theirs = (m.state_dict()["decoder.dec_score_head.1.weight"] for m in (model, r18))
    assert torch.equal(ours[1], theirs[2]) and torch.equal(ours[2], theirs[0])
    labels = model.state_dict()["decoder.denoising_class_embed.weight"]
    assert torch.equal(labels[1], r18.state_dict()["decoder.denoising_class_embed.weight"][2])
    assert not labels[4].any()  # the padding row


def test_what_does_not_fit_is_named(r18: RTDETRNet, caplog: pytest.LogCaptureFixture) -> None:
    state = dict(r18.state_dict()) | {"decoder.something.weight": torch.ones(1)}
    state["encoder.lateral_convs.0.conv.weight"] = torch.ones(2, 2, 1, 1)
    del state["encoder.lateral_convs.1.conv.weight"]
    model = blank(3)
    with caplog.at_level(logging.WARNING, logger="eyas"):
        model.load(state)
    assert "2 tensors of the weights do not fit" in caplog.text
    assert "decoder.something.weight" in caplog.text and "encoder.lateral_convs.0.conv.weight" in caplog.text
    assert "1 tensors are not in the weights: encoder.lateral_convs.1.conv.weight" in caplog.text


def test_weights_of_something_else_change_nothing(r18: RTDETRNet) -> None:
    model = copy_of(r18)
    with pytest.raises(
        ValueError, match="no weights of r18: none of their 1 tensors fits .backbone.model.0.conv.weight"
    ):
        model.load({"model": {"model.0.conv.weight": torch.ones(3)}})
    assert same(model, r18)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        model.load("nowhere.pth")
    with pytest.raises(ValueError, match="no published weights are called 'rtdetr-r19'.*did you mean 'rtdetr-r18'"):
        model.load("rtdetr-r19")


def test_a_file_of_a_backbone_fills_the_backbone_alone(r18: RTDETRNet, tmp_path: Path) -> None:
    own = {k.removeprefix("backbone."): v for k, v in r18.state_dict().items() if k.startswith("backbone.")}
    torch.save(own, tmp_path / "backbone.pth")
    model = blank(9)
    assert model.load(tmp_path / "backbone.pth", verbose=False) == len(own)


def test_an_ordinary_file_fits_a_frozen_model() -> None:
    """Published backbones have the counter of ordinary normalisation, which a frozen one lacks."""
    torch.manual_seed(0)
    ordinary = build_backbone("vd50")
    for m in ordinary.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
    frozen = on_meta("r50").to_empty(device="cpu")
    assert frozen.load(ordinary, verbose=False) == len(frozen.backbone.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        a, b = (m.eval()(x)["p5"] for m in (ordinary, frozen.backbone))
    torch.testing.assert_close(a, b)


def test_a_file_is_recognised_by_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("rtdetr-l", "rtdetr-r18", "rtdetrv2-r18", "rtdetr-r34", "rtdetrv2-r34")  # the first is of another class
    monkeypatch.setattr(RTDETRNet, "tables", {name: RTDETRNet.tables[name] for name in few})
    state = on_meta("r34", nc=7).state_dict()
    assert RTDETRNet.recognised(state) == "rtdetr-r34"
    del state["backbone.conv1.conv1_1.conv.weight"]
    assert RTDETRNet.recognised(state) == ""
