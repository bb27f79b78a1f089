"""What part of an input is image: read off the pixels; and that padding changes nothing in encoder and proposals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eyas.augment.letterbox import letterbox_into
from eyas.models.dino.decoder import proposals
from eyas.models.encoders import DeformableEncoder
from eyas.models.encoders.padding import (
    Lines,
    cells_of,
    frame_of,
    into_frame,
    lines_of_image,
    lines_of_map,
    out_of_frame,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_input(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("brightness", [0.61, 1.0, 1.39])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_letterboxed_image_is_found_also_where_it_was_made_brighter(brightness: float, dtype: torch.dtype) -> None:
    out = np.zeros((96, 96, 3), np.uint8)
    fit = letterbox_into(noise(40, 80), out, scale_up=True)
    images = as_input((out * brightness).clip(0, 255).astype(np.uint8)).to(dtype)
    lines = lines_of_image(images)
    rows = torch.arange(96)
    assert lines.rows[0].tolist() == ((rows >= fit.top) & (rows < fit.top + fit.height)).tolist()
    assert lines.columns.all()
    assert frame_of(lines)[0].tolist() == pytest.approx([0, fit.top / 96, 1, fit.height / 96])


@pytest.mark.parametrize("value", [0, 255, 60, 200])
def test_black_white_dark_and_light_borders_are_no_padding(value: int) -> None:
    picture = np.full((64, 64, 3), value, np.uint8)
    picture[20:40, 20:40] = noise(20, 20)
    assert all(lines.all() for lines in lines_of_image(as_input(picture)))


def test_colours_and_lines_inside_are_no_padding_and_nothing_else_than_padding_is_an_image() -> None:
    green = np.full((64, 64, 3), (90, 114, 90), np.uint8)
    band = noise(64, 64)
    band[20:40] = 114
    empty = np.full((64, 64, 3), 114, np.uint8)
    for picture in (green, band, empty):
        assert all(lines.all() for lines in lines_of_image(as_input(picture)))


def test_a_cell_shows_the_image_if_any_of_its_pixels_does() -> None:
    lines = Lines(torch.arange(64)[None] >= 15, torch.arange(96)[None] < 33)
    on_map = lines_of_map(lines, (8, 3))
    assert on_map.rows[0].tolist() == [False] + [True] * 7
    assert on_map.columns[0].tolist() == [True, True, False]
    assert frame_of(on_map)[0].tolist() == pytest.approx([0, 1 / 8, 2 / 3, 7 / 8])


def test_boxes_go_into_the_frame_and_come_back() -> None:
    frame = torch.tensor([[0.25, 0.0, 0.5, 1.0]])
    box = torch.tensor([[0.5, 0.5, 0.25, 0.2]])
    inside = into_frame(box, frame)
    assert inside[0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.2])
    torch.testing.assert_close(out_of_frame(inside, frame), box)


def encoder() -> DeformableEncoder:
    torch.manual_seed(0)
    made = DeformableEncoder([4, 4], hidden=32, layers=2, heads=4, points=2, ffn=32)
    for name, parameter in made.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def shown(side: int, start: int, count: int) -> Tensor:
    return ((torch.arange(side) >= start) & (torch.arange(side) < start + count))[None]


@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 64, 96), (1, 2, 64, 96), (0, 0, 61, 90)])
def test_padding_does_not_leak(top: int, left: int, height: int, width: int) -> None:
    """Maps of an image alone, and the same with junk around them: the same cells, boxes and codes, to rounding.

    Padding is a multiple of the largest cell, 32 px, on the sides where the image begins; where it ends it need not be.
    """
    made, strides = encoder(), (8, 16, 32)
    alone = [torch.randn(1, 32, -(-height // s), -(-width // s), dtype=torch.float64) for s in strides]
    around = [torch.randn(1, 32, 192 // s, 224 // s, dtype=torch.float64) * 1e2 for s in strides]
    places = []
    for small, large, s in zip(alone, around, strides, strict=True):
        y, x = top * 32 // s, left * 32 // s
        large[:, :, y : y + small.shape[2], x : x + small.shape[3]] = small
        mine = torch.zeros(large.shape[2:], dtype=torch.bool)
        mine[y : y + small.shape[2], x : x + small.shape[3]] = True
        places.append(mine.flatten())
    padding = Lines(shown(192, top * 32, height), shown(224, left * 32, width))
    mine = torch.cat(places)
    expected, cells = made.attend(alone, Lines(shown(height, 0, height), shown(width, 0, width)))
    memory, more = made.attend(around, padding)
    torch.testing.assert_close(memory[:, mine], expected, atol=1e-5, rtol=1e-5)
    assert (more.padded[0] == ~mine).all() and not cells.padded.any()
    (boxes, valid), (logits, used) = proposals(cells), proposals(more)
    torch.testing.assert_close(logits[:, mine], boxes, atol=1e-4, rtol=1e-4)
    assert (used[:, mine] == valid).all() and not used[:, ~mine].any()


def test_sizes_of_proposals() -> None:
    """Numbers of spec detr-more 2.3."""
    levels = [Lines(torch.ones(1, n) > 0, torch.ones(1, n) > 0) for n in (8, 4, 2, 1)]
    logits, valid = proposals(cells_of(levels))
    first = [0, 64, 80, 84]  # cells of each level
    assert logits[0, first[0] + 9, 2:].tolist() == pytest.approx([-2.944439] * 2, abs=1e-5)
    assert logits[0, first[2], 2:].tolist() == pytest.approx([-1.386294] * 2, abs=1e-5)
    assert logits[0, first[3], :2].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert valid.all()
