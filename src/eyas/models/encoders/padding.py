"""Which part of an input is image, and which is padding that makes it a rectangle (spec detr-more 2.2, items 4 and 6).

Networks with masks look at the image alone. Where it lies is read off the pixels, not handed on beside them: training,
validation, prediction and exported files then need nothing but images, and agree.

Legend: ``B`` images, ``H, W`` pixels, ``h, w`` cells of a map, ``N`` cells of all maps, ``L`` maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

# Inputs are filled up with grey 114 of 255, which augmentation of brightness makes darker or lighter by up to 0.4 of
# it. White pages and black bars are thus no padding, whatever shows one of them up to the edge.
DARKEST, LIGHTEST = 0.6 * 114 / 255 - 0.01, 1.4 * 114 / 255 + 0.01
SAME = 0.5 / 255  # difference between grey values that are one and the same


class Lines(NamedTuple):
    """Which rows and which columns of pixels or cells show something of the image; those form one rectangle."""

    rows: Tensor  # (B, h) bool
    columns: Tensor  # (B, w) bool


@torch.no_grad()
def lines_of_image(images: Tensor) -> Lines:
    """Return the rows and columns of images (B, C, H, W), values in [0, 1], that are no padding.

    Padding are the lines at the borders that are one medium grey all along. An image of nothing else has none.
    """
    return Lines(_shown(images), _shown(images.transpose(2, 3)))


def _shown(images: Tensor) -> Tensor:
    """Return (B, H): whether a row lies between the first and the last that is not padding."""
    low, high = images.amin((1, 3)), images.amax((1, 3))
    filled = (high - low < SAME) & (low > DARKEST) & (high < LIGHTEST)
    own = (~filled).long()
    seen = own.cumsum(1)
    everything = seen[:, -1:]
    return ((seen > 0) & (seen - own < everything)) | (everything == 0)


def lines_of_map(lines: Lines, shape: tuple[int, int]) -> Lines:
    """Return the rows and columns of a map (h, w) whose cells show at least one line of pixels of the image."""
    return Lines(*(_any_in(own, cells) for own, cells in zip(lines, shape, strict=True)))


def _any_in(lines: Tensor, cells: int) -> Tensor:
    """Return (B, cells): whether any of the lines (B, S) that a cell spans is true."""
    edges = torch.arange(cells + 1, device=lines.device) * lines.shape[1] // cells
    seen = pad(lines.long().cumsum(1), (1, 0))[:, edges]
    return seen[:, 1:] > seen[:, :-1]


def frame_of(lines: Lines) -> Tensor:
    """Return x y of the corner, width and height (B, 4) of the image, as shares of the map or of the input."""
    rows, columns = lines
    starts = [(own.long().cumsum(1) == 0).sum(1) / own.shape[1] for own in (columns, rows)]
    sides = [own.sum(1) / own.shape[1] for own in (columns, rows)]
    return torch.stack((*starts, *sides), -1)


def into_frame(boxes: Tensor, frame: Tensor) -> Tensor:
    """Return boxes (..., 4) cx cy w h in shares of the input as shares of the image, whose ``frame`` (..., 4) is."""
    return torch.cat(((boxes[..., :2] - frame[..., :2]) / frame[..., 2:], boxes[..., 2:] / frame[..., 2:]), -1)


def out_of_frame(boxes: Tensor, frame: Tensor) -> Tensor:
    """Return boxes (..., 4) cx cy w h in shares of the image as shares of the input; reverse of `into_frame`."""
    return torch.cat((frame[..., :2] + boxes[..., :2] * frame[..., 2:], boxes[..., 2:] * frame[..., 2:]), -1)


class Cells(NamedTuple):
    """Where the cells of all maps lie; levels one after the other, inside a level rows before columns."""

    shapes: list[tuple[int, int]]  # of the maps
    points: Tensor  # (B, N, 2) float32 x y of centres, in shares of the image
    padded: Tensor  # (B, N) bool, True where there is nothing of the image
    frames: Tensor  # (B, L, 4) float32, see `frame_of`


def cells_of(levels: Sequence[Lines]) -> Cells:
    """Return where the cells of maps lie, of which ``levels`` show the image."""
    shapes = [(level.rows.shape[1], level.columns.shape[1]) for level in levels]
    frames = torch.stack([frame_of(level) for level in levels], 1)
    points, padded = [], []
    for level, (height, width), frame in zip(levels, shapes, frames.unbind(1), strict=True):
        x = (torch.arange(width, device=frame.device) + 0.5) / width
        y = (torch.arange(height, device=frame.device) + 0.5) / height
        x, y = (x - frame[:, :1]) / frame[:, 2:3], (y - frame[:, 1:2]) / frame[:, 3:]
        grid = (x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width))
        points.append(torch.stack(grid, -1).flatten(1, 2))
        padded.append(~(level.rows[:, :, None] & level.columns[:, None]).flatten(1))
    return Cells(shapes, torch.cat(points, 1), torch.cat(padded, 1), frames)
