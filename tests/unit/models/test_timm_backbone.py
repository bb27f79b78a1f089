"""Backbones of timm, whose place a stand-in takes: levels, parts, weights and their licences, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.models.backbones.from_timm import TimmBackbone
from eyas.models.backbones.stock import checked_backbone
from eyas.models.catalog import build_detector
from eyas.models.licences import LicenceError
from eyas.models.rtdetr.official import RTDETRNet
from eyas.models.table import ModelTableError
from eyas.optim.select import depths
from standin_timm import Card, standin

TABLE = {"arch": "rtdetr", "variant": "r18", "queries": 10, "num_denoising": 0, "nc": 3, "backbone": "timm:tinynet"}


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path))
    monkeypatch.delenv("EYAS_ACCEPT_LICENCES", raising=False)
    return use(monkeypatch)


def use(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> Any:
    module = standin(**facts)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def detector(**table: Any) -> RTDETRNet:
    model = build_detector(TABLE | table, verbose=False)
    assert isinstance(model, RTDETRNet)
    return model


@pytest.mark.parametrize("output_fmt", ["NCHW", "NHWC"])
def test_maps_are_named_by_their_sizes(output_fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, output_fmt=output_fmt, card=Card(fixed_input_size=True))
    backbone = TimmBackbone("timm:tinynet")
    maps = backbone(torch.rand(2, 3, 64, 96))
    shapes = {
        level: (2, spec.channels, 64 // spec.stride, 96 // spec.stride) for level, spec in backbone.levels.items()
    }
    assert {level: tuple(x.shape) for level, x in maps.items()} == shapes
    assert [(level, spec.channels, spec.stride) for level, spec in backbone.levels.items()] == [
        ("p2", 4, 4), ("p3", 8, 8), ("p4", 16, 16), ("p5", 32, 32),
    ]  # fmt: skip


def test_pixels_are_normalised_as_the_network_learnt_them(timm: Any) -> None:
    backbone = TimmBackbone("timm:tinynet")
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    with torch.no_grad():
        stem = backbone.net.stages_0[0](backbone.net.stem_0.bias.view(1, -1, 1, 1))  # of pixels that are 0 inside
        assert torch.allclose(backbone(mean)["p2"], stem.expand(1, -1, 8, 8), atol=1e-6)
    assert TimmBackbone("timm:tinynet", ch=1).mean.flatten().tolist() == pytest.approx([0.4])


def test_parts_are_what_each_map_needs_beyond_the_one_before(timm: Any) -> None:
    model = detector()
    assert {name: parts for name, parts in model.sections().items() if name.startswith("backbone")} == {
        "backbone": ("backbone.net.",),
        "backbone.p2": ("backbone.net.stem_0.", "backbone.net.stages_0."),
        "backbone.p3": ("backbone.net.stages_1.",),
        "backbone.p4": ("backbone.net.downsample_2.", "backbone.net.stages_2."),
        "backbone.p5": ("backbone.net.stages_3.",),
    }
    by_name = depths(model)
    assert by_name["backbone.net.stem_0.weight"] < by_name["backbone.net.downsample_2.weight"]
    assert by_name["backbone.net.stages_3.0.weight"] < by_name["encoder.input_proj.0.conv.weight"]


def test_a_detector_learns_through_it(timm: Any) -> None:
    model = detector().train()
    assert timm.fetched == 0, "random weights, and nothing fetched, unless they are asked for"
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    batch = {"img": torch.rand(1, 3, 64, 64), "cls": torch.zeros(1, 1), "bboxes": boxes, "batch_idx": torch.zeros(1)}
    model.loss(batch | {"max_objects": 1})[0].sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if ".net." in name and "stages_0" not in name)


def test_published_weights_bring_their_licence(timm: Any) -> None:
    model = detector()
    model.load_backbone("timm")
    assert timm.fetched == 1
    assert all(bool((p == 0.125).all()) for p in model.backbone.net.parameters())
    (link,) = model.ancestors
    assert (link.name, link.licence, link.trained_on) == ("backbone: timm/tinynet.some_in1k", "apache-2.0", "some_in1k")
    assert link.source == "huggingface.co/timm/tinynet.some_in1k" and not link.consent
    assert model.effects()["backbone_weights"] == "timm"


def test_their_licence_asks_for_consent_before_they_are_fetched(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = use(monkeypatch, card=Card(license="cc-by-nc-4.0"))
    model = detector()
    with pytest.raises(LicenceError, match=r"timm/tinynet.some_in1k: their licence is CC-BY-NC-4.0.*accept_licences"):
        model.load_backbone("timm")
    assert timm.fetched == 0 and model.ancestors == ()
    model.load_backbone("timm", ["CC-BY-NC-4.0"])
    assert "accepted on" in model.ancestors[0].consent
    use(monkeypatch, card=Card(license="cc-by-nc-sa-4.0"))
    with pytest.raises(LicenceError, match="cc-by-nc-sa-4.0: non-commercial"):
        detector().load_backbone("timm")


def test_a_file_of_timm_has_points_where_its_maps_have_none(timm: Any, tmp_path: Path) -> None:
    model = detector()
    state = {key: torch.full_like(value, 0.5) for key, value in model.backbone.net.state_dict().items()}
    file = tmp_path / "tinynet.pth"
    torch.save({key.replace("s_", "s.").replace("m_0", "m.0"): value for key, value in state.items()}, file)
    model.load_backbone(file)
    assert all(bool((p == 0.5).all()) for name, p in model.backbone.net.named_parameters() if "downsample" not in name)
    assert model.ancestors[0].name == "tinynet.pth" and model.ancestors[0].licence == ""


def test_what_cannot_be_used_is_said(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (
        ("timm:tinyneet", r"timm has no network 'tinyneet'\. Did you mean 'tinynet'\?"),
        ("timm:tinynet.mine", r"Invalid pretrained tag \(mine\)"),
    ):
        with pytest.raises(ModelTableError, match=said):
            detector(backbone=name)
    assert checked_backbone("TIMM:tinynet.some_in1k") == "timm:tinynet.some_in1k"
    with pytest.raises(ModelTableError, match=r"timm:tinynet has no 'pyramid'"):
        detector(backbone={"name": "timm:tinynet", "pyramid": "plain"})
    use(monkeypatch, px=(16, 16, 16, 16))
    with pytest.raises(ModelTableError, match=r"has maps of 16, 16, 16, 16 px a cell, and none for p3"):
        detector()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r'backbone=timm:tinynet needs timm: pip install "eyas\[timm\]"$'):
        detector()
