"""The decoder of the RT-DETR family on small random maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.models.rtdetr import OFFICIAL, RTDETRDecoder
from eyas.models.rtdetr.anchors import inverse_sigmoid
from eyas.models.rtdetr.decoder import BoxState, DecoderLayer, DeltaBox
from eyas.types import SetPrediction

NC = 3


def decoder(**changes: Any) -> RTDETRDecoder:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"nc": NC, "hidden": 16, "queries": 12, "points": 2, "heads": 2, "layers": 3, "ffn": 32}
    head = RTDETRDecoder((8, 12), **sizes | changes)
    with torch.no_grad():  # fresh heads move no box; these do
        for p in head.parameters():
            p += 0.1 * torch.randn_like(p)
    return head


def maps(images: int = 2, size: int = 6) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(images, c, size // k, size // k, generator=g) for c, k in ((8, 1), (12, 2))]


def objects(rows: int = 3) -> dict[str, Any]:
    return {
        "batch_idx": torch.zeros(rows),
        "cls": torch.ones(rows, 1),
        "bboxes": torch.full((rows, 4), 0.4),
        "max_objects": rows,
    }


def test_shapes_while_training() -> None:
    head = decoder(num_denoising=7)
    pred = head(maps(), objects())
    assert isinstance(pred, SetPrediction)
    assert pred.dn_meta is not None
    assert pred.dn_meta.split == (12, 12), "two groups of twice three slots"
    assert pred.dec_bboxes.shape == (3, 2, 24, 4)
    assert pred.dec_scores.shape == (3, 2, 24, NC)
    assert pred.enc_bboxes.shape == (2, 12, 4)
    assert pred.enc_scores.shape == (2, 12, NC)
    assert pred.enc_bboxes.min() > 0 and pred.enc_bboxes.max() < 1


def test_every_parameter_learns_with_and_without_objects() -> None:
    """Processes whose images have no object must not leave parameters without gradient."""
    for data in (objects(), objects(0), None):
        head = decoder()
        pred = head(maps(), data)
        assert (pred.dn_meta is None) == (data is None or not data["max_objects"])
        sum(t.sum() for t in pred[:4]).backward()
        assert [n for n, p in head.named_parameters() if p.grad is None] == []
        assert torch.equal(head.denoising_class_embed.weight.grad != 0, torch.zeros(NC, 16) != 0) == (
            pred.dn_meta is None
        )


@pytest.mark.parametrize("data", [None, objects()])
def test_decoder_layers_do_not_teach_the_choice_of_queries(data: dict[str, Any] | None) -> None:
    """Content and boxes of the chosen cells are constants to the layers; only the encoder's own loss teaches them."""
    choosing = ("enc_output", "enc_score_head", "enc_bbox_head")
    head = decoder()
    pred = head(maps(), data)
    (pred.dec_bboxes.sum() + pred.dec_scores.sum()).backward(retain_graph=True)
    taught = {n for n, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(n.startswith(choosing) for n in taught)
    assert any(n.startswith("input_proj") for n in taught), "the image is seen by every layer"
    (pred.enc_bboxes.sum() + pred.enc_scores.sum()).backward()
    assert all(p.grad.any() for n, p in head.named_parameters() if n.startswith(choosing) and "weight" in n)


def test_cells_at_the_edge_of_a_large_map_are_not_chosen_by_what_they_show() -> None:
    """Of 51 columns the outer ones have their centre within 0.01 of the border: no box starts there."""
    head = decoder(queries=300).eval()
    seen: list[torch.Tensor] = []
    head.enc_output.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    g = torch.Generator().manual_seed(1)
    images = [torch.randn(2, 8, 2, 51, generator=g), torch.randn(2, 12, 1, 26, generator=g)]
    y, pred = head(images)
    shown = seen[0].any(-1)
    assert shown.shape == (2, 128)
    first = torch.arange(102).view(2, 51)
    outer = torch.cat((first[:, 0], first[:, 50]))
    expected = torch.ones(128, dtype=torch.bool)
    expected[outer] = False
    assert torch.equal(shown, expected.expand(2, -1))
    assert pred.enc_bboxes.shape[1] == 128, "all cells are queries here, those too"
    assert y.isfinite().all() and pred.dec_scores.isfinite().all()


def test_real_queries_do_not_see_denoising_ones() -> None:
    head = decoder().train()
    for m in head.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eval()
    with_noise, without = head(maps(), objects()), head(maps())
    queries = with_noise.dn_meta.split[0]
    torch.testing.assert_close(with_noise.dec_scores[:, :, queries:], without.dec_scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(with_noise.dec_bboxes[:, :, queries:], without.dec_bboxes, atol=1e-5, rtol=1e-5)
    assert torch.equal(with_noise.enc_scores, without.enc_scores)
    head.num_denoising = 0
    assert head(maps(), objects()).dn_meta is None


def test_chosen_cells_are_those_with_the_best_class() -> None:
    head = decoder().eval()
    with torch.no_grad():
        memory, shapes = head._memory(maps())
        assert shapes == [(6, 6), (3, 3)]
        _, pred = head(maps())
        every = head.enc_score_head(head.enc_output(memory)).amax(-1)
    expected = every.sort(descending=True).values[:, :12]
    torch.testing.assert_close(pred.enc_scores.amax(-1), expected)


def test_fewer_cells_than_queries() -> None:
    head = decoder(queries=300).eval()
    y, pred = head(maps())
    assert pred.dec_bboxes.shape == (1, 2, 45, 4)
    assert y.shape == (2, 45 * NC, 6)
    assert head.train()(maps(), objects()).enc_bboxes.shape == (2, 45, 4)


def test_detections_equal_a_sort_of_all_scores() -> None:
    head = decoder().eval()
    head.max_det = 7
    y, pred = head(maps())
    for image in range(2):
        rows = [
            (*pred.dec_bboxes[0, image, q].tolist(), pred.dec_scores[0, image, q, c].sigmoid().item(), float(c))
            for q in range(12)
            for c in range(NC)
        ]
        rows.sort(key=lambda row: -row[4])
        torch.testing.assert_close(y[image], torch.tensor(rows[:7]))
    head.agnostic_nms = True
    y = head(maps())[0]
    for image in range(2):
        rows = []
        for q in range(12):  # one detection of a query
            scores = pred.dec_scores[0, image, q].sigmoid().tolist()
            label = scores.index(max(scores))
            rows.append((*pred.dec_bboxes[0, image, q].tolist(), scores[label], float(label)))
        rows.sort(key=lambda row: -row[4])
        torch.testing.assert_close(y[image], torch.tensor(rows[:7]))
    assert len(set(y[..., 5].flatten().tolist())) > 1


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_inference_gives_the_chosen_layer(layer: int) -> None:
    head = decoder(num_denoising=0, eval_layer=layer)
    for m in head.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eval()
    every = head(maps())
    _, pred = head.eval()(maps())
    torch.testing.assert_close(pred.dec_bboxes[0], every.dec_bboxes[layer])
    torch.testing.assert_close(pred.dec_scores[0], every.dec_scores[layer])
    assert pred.dn_meta is None
    with pytest.raises(ValueError, match="eval_layer is 3"):
        decoder(eval_layer=3)


def test_look_forward_twice() -> None:
    """A layer's box teaches the layer before, and only that; where it looks is without gradient."""
    torch.manual_seed(0)
    head = DeltaBox(3, 4)
    x = torch.randn(1, 2, 4)
    state = BoxState(torch.full((1, 2, 4), 0.3))
    all_boxes = []
    for i in range(3):
        assert not state.reference.requires_grad
        boxes, state = head.step(i, x, state)
        all_boxes.append(boxes)
    all_boxes[2].sum().backward()
    taught = [any(p.grad is not None for p in mlp.parameters()) for mlp in head]
    assert taught == [False, True, True]
    expected = inverse_sigmoid(torch.tensor(0.3)) + sum(mlp(x) for mlp in head)
    torch.testing.assert_close(all_boxes[2], expected.sigmoid(), atol=1e-6, rtol=1e-5)


def test_half_precision_sums_are_clamped() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 1, 1, 16)
    inputs = torch.randn(1, 3, 8), torch.zeros(1, 3, 8), torch.full((1, 3, 4), 0.5), torch.randn(1, 4, 8)
    with torch.no_grad():
        layer.linear2.bias.fill_(6e4)
        layer.norm2.weight.fill_(2e4)
    seen: list[torch.Tensor] = []
    layer.norm3.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    layer(*inputs, [(2, 2)], None)
    layer.half()
    out = layer(*(t.half() for t in inputs), [(2, 2)], None)
    full, half = seen
    assert full.max() > 65504, "in float32 nothing is clamped"
    assert half.dtype is torch.float16
    assert half.max() == 65504
    assert out.isfinite().all()


def test_bfloat16_autocast_keeps_boxes_in_float32() -> None:
    head = decoder()
    with torch.autocast("cpu", torch.bfloat16):
        pred = head(maps(), objects())
        y, _ = head.eval()(maps())
    assert pred.dec_bboxes.dtype is pred.enc_bboxes.dtype is y.dtype is torch.float32
    assert pred.dec_bboxes.isfinite().all()


def test_two_layouts_differ_in_names_only() -> None:
    numbered, official = decoder().eval(), decoder(names=OFFICIAL).eval()
    theirs = official.state_dict()
    renames = {".0.0.": ".0.conv.", ".0.1.": ".0.norm.", ".1.0.": ".1.conv.", ".1.1.": ".1.norm."}
    state = {}
    for key, value in numbered.state_dict().items():
        for old, new in renames.items():
            if key.startswith("input_proj"):
                key = key.replace(old, new)
        key = key.replace("enc_output.0", "enc_output.proj").replace("enc_output.1", "enc_output.norm")
        state[key] = torch.cat((value, torch.zeros(1, 16))) if "class_embed" in key else value
    assert set(state) == set(theirs)
    official.load_state_dict(state)
    for a, b in zip(numbered(maps())[1][:4], official(maps())[1][:4], strict=True):
        assert torch.equal(a, b)
    fresh = RTDETRDecoder((8,), nc=NC, hidden=16, heads=2, names=OFFICIAL)
    assert fresh.denoising_class_embed.weight.shape == (NC + 1, 16)
    assert not fresh.denoising_class_embed.weight[NC].any()


def test_points_for_each_level() -> None:
    head = decoder(points=[3, 1])
    assert head.decoder.layers[0].cross_attn.sampling_offsets.out_features == 2 * 4 * 2
    assert head(maps(), objects()).dec_bboxes.isfinite().all()


def test_inverse_sigmoid() -> None:
    x = torch.tensor([-1.0, 0, 0.2, 0.5, 1, 2])
    assert inverse_sigmoid(x).tolist() == pytest.approx([-11.5129, -11.5129, -1.3863, 0, 11.5129, 11.5129], abs=1e-3)


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match="choose a divisor of 16"):
        decoder(heads=3)


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [("queries", 0, 1), ("queries", -3, 1), ("queries", 2.5, 1), ("num_denoising", -1, 0), ("num_denoising", True, 0)],
)
def test_numbers_of_queries_are_checked(key: str, value: float, least: int) -> None:
    with pytest.raises(ValueError, match=f"{key} is {value}, and must be a whole number of at least {least}"):
        decoder(**{key: value})
