"""DINO: exact sizes, names of both layouts, what decoder and denoising compute, weights of files."""

from __future__ import annotations

import ast
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas.models.backbones import RESNET, ResNet
from eyas.models.catalog import detector_class, model_table
from eyas.models.dino.decoder import DINODecoder
from eyas.models.dino.keys import DETREX, ORIGINAL, layout_of, our_name, rename
from eyas.models.dino.net import DINONet, normalised
from eyas.models.dino.variants import VARIANTS, dino_table
from eyas.models.pixels import IMAGENET
from eyas.models.rtdetr.anchors import inverse_sigmoid
from eyas.models.table import ModelTableError
from eyas.nn.frozen_norm import FrozenBatchNorm2d
from eyas.optim.select import depths, select

KEYS = Path(__file__).resolve().parents[4] / "shared" / "spec" / "detr-keys" / "keys_dino_r50_4s.txt"
needs_keys = pytest.mark.skipif(not KEYS.is_file(), reason="no key lists beside the repository")


def on_meta(name: str, nc: int, **table: Any) -> DINONet:
    with torch.device("meta"):
        return DINONet(dino_table(name) | table, nc=nc, verbose=False)


@pytest.fixture(scope="module")
def original() -> DINONet:
    return on_meta("r50-original", 91)


@pytest.fixture(scope="module")
def detrex() -> DINONet:
    return on_meta("r50", 80)


@pytest.fixture(scope="module")
def tiny() -> DINONet:
    """A small model whose outputs say something; tests must not change it."""
    return lively(DINONet("dino-tiny", nc=3, verbose=False))


def lively(model: DINONet) -> DINONet:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "head" in name or "sampling_offsets" in name or "attention_weights" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def count(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def scene(images: int = 2, size: int = 64) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    boxes = torch.cat((torch.rand(3, 2, generator=g) * 0.4 + 0.3, torch.rand(3, 2, generator=g) * 0.2 + 0.1), 1)
    return {
        "img": torch.rand(images, 3, size, size, generator=g),
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": boxes,
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "max_objects": 2,
    }


# -- sizes and names --------------------------------------------------------------------------------------------------
def test_parameters_of_the_original_are_exact(original: DINONet) -> None:
    assert count(original) == 46_893_182
    assert count(original, trainable=True) == 46_670_782
    frozen = {name: p.numel() for name, p in original.named_parameters() if not p.requires_grad}
    assert sum(frozen.values()) == 9_408 + 212_992
    assert all(name.startswith(("backbone.conv1.", "backbone.layer1.")) for name in frozen)
    parts = original.encoder, original.decoder
    assert count(original.backbone) == 23_454_912
    assert count(parts[0].input_proj) == 5_639_168 and count(parts[0].layers) == 7_693_056
    assert count(parts[1].layers) == 6 * 1_545_856 and count(parts[1].query_pos_head) == 197_120
    assert sum(map(count, (parts[1].dec_bbox_head, parts[1].dec_score_head))) == 132_612 + 23_387
    assert count(parts[1].query_content) == 230_400 and count(parts[1].denoising_class_embed) == 23_552


def test_parameters_of_detrex_are_exact(detrex: DINONet) -> None:
    assert count(detrex) == 47_650_316
    assert count(detrex) - count(detrex, trainable=True) == 9_408, "the stem"
    heads = detrex.decoder
    assert sum(map(count, (heads.dec_score_head, heads.enc_score_head))) == 143_920
    assert sum(map(count, (heads.dec_bbox_head, heads.enc_bbox_head))) == 928_284
    assert count(heads.denoising_class_embed) == 20_480


def test_the_page_of_families_says_so(detrex: DINONet) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "families.md").read_text(encoding="utf-8")
    assert f"| `dino-r50` | {count(detrex):,} |" in page
    assert f"| `dino-r50-original` | {count(on_meta('r50-original', 80)):,} |" in page


def test_a_backbone_is_that_of_everybody() -> None:
    with torch.device("meta"):
        nets = {name: ResNet(name) for name in RESNET}
    classifier = {"resnet18": 513_000, "resnet34": 513_000, "resnet50": 2_049_000, "resnet101": 2_049_000}
    published = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160}
    assert {name: count(nets[name]) + classifier[name] for name in classifier} == published
    for net in nets.values():
        maps = net(torch.empty(1, 3, 64, 96, device="meta"))
        assert {n: (m.shape[1], 64 // m.shape[2]) for n, m in maps.items()} == {
            n: (level.channels, level.stride) for n, level in net.levels.items()
        }


def test_a_folded_backbone_gives_the_same() -> None:
    torch.manual_seed(0)
    for name in ("resnet10-16", "resnet18"):
        net = ResNet(name).eval()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.uniform_(-0.2, 0.2)
                m.running_var.uniform_(0.5, 1.5)
        x = torch.rand(1, 3, 64, 64)
        before = net(x)["p5"]
        for m in list(net.modules()):
            if hasattr(m, "fuse"):
                m.fuse()
        assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        torch.testing.assert_close(net(x)["p5"], before, atol=1e-4, rtol=1e-4)


def read_keys() -> dict[str, tuple[int, ...]]:
    lines = KEYS.read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines if line)}


@needs_keys
def test_keys_are_those_of_the_authors_after_renaming(original: DINONet) -> None:
    listed = read_keys()
    assert len(listed) == 626 and layout_of(listed) == ORIGINAL
    assert rename(listed) == shapes(original)
    assert rename({f"module.{key}": shape for key, shape in listed.items()}) == shapes(original)
    shared = {key: our_name(key, ORIGINAL) for key in listed if re.search(r"(bbox|class)_embed\.\d", key)}
    assert len(shared) == 2 * 6 * (6 + 2) and len(set(shared.values())) == 6 + 2


def detrex_name(key: str) -> str:
    """Spec detr-more 2.4, from the authors' names, for what is not an output."""
    key = re.sub(r"^backbone\.0\.body\.conv1\.", "backbone.stem.conv1.", key)
    key = re.sub(r"^backbone\.0\.body\.bn1\.", "backbone.stem.conv1.norm.", key)
    key = re.sub(r"^backbone\.0\.body\.layer(\d)\.", lambda m: f"backbone.res{int(m[1]) + 1}.", key)
    key = re.sub(r"^(backbone\.res\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm.", key)
    key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    key = re.sub(r"^input_proj\.3\.(\d)\.", lambda m: f"neck.extra_convs.0.{('conv', 'norm')[int(m[1])]}.", key)
    key = re.sub(r"^input_proj\.(\d)\.(\d)\.", lambda m: f"neck.convs.{m[1]}.{('conv', 'norm')[int(m[2])]}.", key)
    key = key.replace("transformer.level_embed", "transformer.level_embeds")
    key = re.sub(r"(layers\.\d)\.linear1\.", r"\1.ffns.0.layers.0.0.", key)
    key = re.sub(r"(layers\.\d)\.linear2\.", r"\1.ffns.0.layers.1.", key)
    if ".encoder." in key:
        key = (
            key.replace(".self_attn.", ".attentions.0.").replace(".norm1.", ".norms.0.").replace(".norm2.", ".norms.1.")
        )
    else:
        key = key.replace(".self_attn.", ".attentions.0.attn.").replace(".cross_attn.", ".attentions.1.")
        for theirs, index in (("norm2", 0), ("norm1", 1), ("norm3", 2)):
            key = re.sub(rf"(decoder\.layers\.\d)\.{theirs}\.", rf"\1.norms.{index}.", key)
    return key


@needs_keys
def test_keys_are_those_of_detrex_after_renaming(detrex: DINONet) -> None:
    names = {detrex_name(key) for key in read_keys() if not re.search(r"(bbox|class)_embed\.", key)}
    layers = [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    for i in range(7):
        names |= {f"bbox_embed.{i}.{end}" for end in layers} | {f"class_embed.{i}.{end}" for end in ("weight", "bias")}
        names |= {f"transformer.decoder.bbox_embed.{i}.{end}" for end in layers}
    assert layout_of(names) == DETREX
    assert {our_name(name, DETREX) for name in names} == set(shapes(detrex))


def test_norms_of_decoder_layers_change_places() -> None:
    """The authors' second one follows self-attention, which comes first."""
    theirs = "transformer.decoder.layers.4.norm{}.weight"
    assert [our_name(theirs.format(i), ORIGINAL) for i in (1, 2, 3)] == [
        f"decoder.layers.4.norm{i}.weight" for i in (2, 1, 3)
    ]
    assert our_name("transformer.encoder.layers.4.norm1.weight", ORIGINAL) == "encoder.layers.4.norm1.weight"


def test_names_that_need_no_list() -> None:
    assert rename({"conv1.weight": 1, "layer1.0.bn1.bias": 2}) == {
        "backbone.conv1.weight": 1,
        "backbone.layer1.0.bn1.bias": 2,
    }
    own = {"backbone.conv1.weight": 1, "decoder.norm.weight": 2}
    assert layout_of(own) is None and rename(own) == own


def test_tables() -> None:
    assert detector_class(model_table("dino-r50")) is DINONet
    for table, said in (
        ({"variant": "r60"}, r"variant is 'r60'. Did you mean 'r50'\?"),
        ({"variant": "tiny", "query": 3}, "'query' means nothing in the table of tiny. Did you mean 'queries'"),
        ({"variant": "tiny", "queries": 0}, "queries is 0"),
        ({"variant": "tiny", "backbone": "resnet51"}, "no backbone is called 'resnet51'. Did you mean 'resnet50'"),
    ):
        with pytest.raises(ModelTableError, match=said):
            DINONet({"arch": "dino", **table}, verbose=False)
    other = on_meta("tiny", 5, backbone="resnet18")
    assert other.backbone.levels["p5"].channels == 512


def test_frozen_norms_and_parts(detrex: DINONet) -> None:
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in detrex.modules()) == 53
    assert not any(isinstance(m, nn.BatchNorm2d) for m in detrex.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in on_meta("tiny", 3).modules())
    names = [name for name, _ in detrex.named_parameters()]
    parts = detrex.sections()
    for name in names:
        assert sum(name.startswith(parts[part]) for part in ("backbone", "neck", "head")) == 1, name
    assert parts["backbone.p2"] == ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    assert len(select(detrex, "head.cls")) == 2 * (6 + 1) + 1
    assert max(depths(detrex).values()) == 1 + 16


def test_how_it_starts() -> None:
    model = DINONet("dino-tiny", nc=7, verbose=False)
    head = model.decoder
    for layer in (head.enc_score_head, *head.dec_score_head):
        assert layer.bias.tolist() == pytest.approx([-math.log(99)] * 7)
    assert all(not mlp.layers[-1].weight.any() and not mlp.layers[-1].bias.any() for mlp in head.dec_bbox_head)
    assert all(not p[0].bias.any() for p in model.encoder.input_proj)
    for table in (head.query_content.weight, model.encoder.level_embed, head.denoising_class_embed.weight):
        assert float(table.detach().std()) == pytest.approx(1, abs=0.15)


# -- what it computes -------------------------------------------------------------------------------------------------
def test_boxes_look_forward_twice(tiny: DINONet) -> None:
    """Each layer's box from what the layers gave out, recomputed: what is taught sees normalised queries, what the
    next layer looks at does not."""
    tiny.train()
    outputs: list[Tensor] = []
    places: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, out: Tensor) -> None:
        outputs.append(out)
        places.append(given[2])

    hooks = [layer.register_forward_hook(keep) for layer in tiny.decoder.layers]
    x = scene()["img"]
    preds = tiny.predict(x)
    for hook in hooks:
        hook.remove()
    head = tiny.decoder
    before = after = places[0][:, :, 0]  # of a whole image without padding, alike on all levels
    for i, x in enumerate(outputs):
        assert not places[i].requires_grad
        torch.testing.assert_close(places[i], after.detach()[:, :, None].expand(-1, -1, 4, -1))
        box = (head.dec_bbox_head[i](head.norm(x)) + inverse_sigmoid(before)).sigmoid()
        torch.testing.assert_close(preds.dec_bboxes[i], box)
        torch.testing.assert_close(preds.dec_scores[i], head.dec_score_head[i](head.norm(x)))
        after = (head.dec_bbox_head[i](x) + inverse_sigmoid(after.detach())).sigmoid()
        before = after
    weight = head.dec_bbox_head[1].layers[0].weight
    (by_next,) = torch.autograd.grad(preds.dec_bboxes[2].sum(), weight, retain_graph=True)
    assert by_next.abs().sum() > 0, "a box is taught by the layer after its own"
    (by_later,) = torch.autograd.grad(preds.dec_bboxes[2].sum(), head.dec_bbox_head[0].layers[0].weight)
    assert not by_later.any(), "and by no later one"


def test_queries_are_learnt_and_their_boxes_chosen(tiny: DINONet) -> None:
    """Boxes begin at the cells that score best; what queries are does not depend on the image."""
    tiny.train()
    seen: list[Tensor] = []
    hook = tiny.decoder.layers[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    preds = tiny.predict(scene()["img"])
    hook.remove()
    queries = preds.enc_bboxes.shape[1]
    assert queries == min(100, 64 + 16 + 4 + 1)
    torch.testing.assert_close(seen[0], tiny.decoder.query_content.weight[:queries].expand(2, -1, -1))
    best = preds.enc_scores.amax(-1)
    assert (best.diff(dim=1) <= 0).all()


def test_evaluation_gives_the_last_layer_and_training_all(tiny: DINONet) -> None:
    x = scene()["img"]
    tiny.train()
    with torch.no_grad():
        taught = tiny.predict(x)
        tiny.decoder.eval()
        detections, last = tiny.decoder(*tiny_memory(tiny, x))
    torch.testing.assert_close(last.dec_bboxes, taught.dec_bboxes[-1:])
    assert detections.shape == (2, 85, 6)
    assert (detections[..., 4].diff(dim=1) <= 0).all()
    tiny.train()


def tiny_memory(model: DINONet, x: Tensor) -> tuple[Any, ...]:
    from eyas.models.encoders.padding import frame_of, lines_of_image

    lines = lines_of_image(x)
    maps = model.backbone(normalised(x))
    return (*model.encoder([maps[level] for level in ("p3", "p4", "p5")], lines), frame_of(lines))


@pytest.mark.parametrize(
    ("most", "groups", "total"), [(1, 100, 200), (3, 33, 198), (7, 14, 196), (33, 3, 198), (100, 1, 200)]
)
def test_denoising_groups(tiny: DINONet, most: int, groups: int, total: int) -> None:
    """Spec detr-more 1.2. Slots of the image with fewer objects are empty: no content, and logits of 0."""
    head: DINODecoder = tiny.decoder.train()
    image = torch.cat((torch.zeros(most), torch.ones(1)))
    boxes = torch.full((most + 1, 4), 0.5)
    batch = {"batch_idx": image, "cls": torch.zeros(most + 1, 1), "bboxes": boxes, "max_objects": most}
    frame = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4)
    made = head._denoising(batch, frame, head.query_content.weight[:10].expand(2, -1, -1))
    assert made is not None
    assert (made.meta.groups, made.meta.split) == (groups, (total, 10))
    assert made.blocked.shape == (total + 10, total + 10)
    empty = made.content[1].abs().sum(-1) == 0
    assert int(empty.sum()) == total - 2 * groups
    assert not made.boxes[1][empty].any()


def test_denoising_boxes_are_shares_of_the_image(tiny: DINONet) -> None:
    """The image is the right half of the input; without noise an object's box is where it was put."""
    head: DINODecoder = tiny.decoder.train()
    batch = {
        "batch_idx": torch.zeros(1),
        "cls": torch.zeros(1, 1),
        "bboxes": torch.tensor([[0.75, 0.5, 0.2, 0.3]]),
        "max_objects": 1,
    }
    frame = torch.tensor([[[0.5, 0.0, 0.5, 1.0]]])
    noise, head.box_noise = head.box_noise, 0.0
    made = head._denoising(batch, frame, head.query_content.weight[:10][None])
    head.box_noise = noise
    assert made is not None
    assert made.boxes[0, 0].sigmoid().tolist() == pytest.approx([0.5, 0.5, 0.4, 0.3], abs=1e-5)


def test_what_padding_looks_like_makes_no_difference(tiny: DINONet) -> None:
    x = scene(1)["img"]
    x[:, :, 44:] = 114 / 255
    darker = x.clone()
    darker[:, :, 44:] = 90 / 255
    white = x.clone()
    white[:, :, 44:] = 1.0
    tiny.eval()
    with torch.no_grad():
        one, two, other = (tiny.predict(images)[0] for images in (x, darker, white))
    tiny.train()
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, other)
    inside = (one[..., 1] >= 0) & (one[..., 1] <= 44 / 64 + 1e-6)
    assert inside.all(), "no centre lies in padding"


def test_loss_reaches_all_that_is_trained_with_objects_and_without() -> None:
    model = lively(DINONet("dino-tiny", nc=3, verbose=False)).train()
    batch = scene()
    for few in (batch, batch | {name: batch[name][:0] for name in ("cls", "bboxes", "batch_idx")} | {"max_objects": 0}):
        model.zero_grad()
        losses, items = model.loss(few)
        losses.sum().backward()
        assert all(math.isfinite(float(value)) for value in items.values())
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_pixels_are_those_of_imagenet() -> None:
    mean, std = (torch.tensor(values) for values in IMAGENET)
    x = mean[None, :, None, None].expand(1, 3, 2, 2)
    assert not normalised(x).any()
    assert normalised(x + std[:, None, None]).flatten().tolist() == pytest.approx([1.0] * 12)
    assert normalised(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)


# -- weights ----------------------------------------------------------------------------------------------------------
def small(variant: str, nc: int = 3, **names: Any) -> DINONet:
    """A network of the shape of "tiny", with the outputs of a layout."""
    return DINONet(dino_table(variant), nc=nc, verbose=False, **names)


def as_detrex(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state under detrex's names, as far as these tests look."""
    named = {}
    for key, value in state.items():
        key = re.sub(r"^encoder\.input_proj\.3\.", "neck.extra_convs.0.", key)
        key = re.sub(r"^encoder\.input_proj\.(\d)\.", r"neck.convs.\1.", key)
        key = re.sub(
            r"^decoder\.layers\.(\d)\.norm(\d)\.",
            lambda m: f"transformer.decoder.layers.{m[1]}.norms.{int(m[2]) - 1}.",
            key,
        )
        key = re.sub(r"^decoder\.enc_score_head\.", "class_embed.6.", key)
        named[key] = value
    return named


def test_a_file_of_detrex_fits_and_that_of_the_authors_is_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    given, model = small("tiny"), small("tiny")
    path = tmp_path / "dino.pth"
    torch.save({"model": as_detrex(given.state_dict()), "iteration": 3}, path)
    with caplog.at_level(logging.WARNING, "eyas"):
        assert model.load(str(path)) == len(model.state_dict())
    assert not caplog.records
    theirs = given.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())
    original = {"input_proj.0.0.weight": torch.zeros(64, 16, 1, 1), "label_enc.weight": torch.zeros(4, 64)}
    with pytest.raises(ValueError, match="layout of dino-r50-original, and dino-tiny has .*load them into dino-r50-or"):
        model.load({"model": original})


def test_the_weights_of_a_backbone_fill_it(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    net, model = ResNet("resnet10-16"), small("tiny")
    state = net.state_dict()
    assert model.load(state) == len(state)
    assert all(torch.equal(value, state[key]) for key, value in model.backbone.state_dict().items())


def test_rows_of_classes_follow_their_names() -> None:
    one = small("tiny", 3, names=["a", "b", "c"])
    other = small("tiny", 2, names=["c", "a"])
    other.load(one)
    for key in one.class_keys():
        assert torch.equal(other.state_dict()[key], one.state_dict()[key][[2, 0]]), key


def test_the_layouts_differ_where_the_spec_says() -> None:
    ours, theirs = VARIANTS["r50"], VARIANTS["r50-original"]
    assert (ours.temperature, ours.offset, ours.box_noise) == (10_000.0, -0.5, 1.0)
    assert (theirs.temperature, theirs.offset, theirs.box_noise) == (20.0, 0.0, 0.4)
