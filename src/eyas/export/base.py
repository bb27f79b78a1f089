"""What an export target is given, what it has to do, and what its files are opened as.

Legend: ``B`` images, ``S`` side of the square input in pixels, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from eyas.models import Detector

MAX_DET = 300  # most detections of an image that a file without NMS answers with


class ExportError(RuntimeError):
    """A model that a target cannot write, a file that is none of its own, or one that answers otherwise."""


@dataclass(frozen=True)
class Card:
    """What whoever runs an exported model has to know; every target stores it in its file, as ``text()``.

    Attributes:
        names: classes in the order of their ids.
        stride: pixels per cell of each level.
        imgsz: side S of the square input in pixels.
        stretch: whether images are stretched to the square; otherwise they keep their aspect and are padded with grey.
        end2end: whether answers are at most ``MAX_DET`` detections (B, k, 6) x1 y1 x2 y2 score class, best first;
            otherwise (B, 4 + C, A) cx cy w h and class scores, which need NMS. Boxes are in pixels of the input.
    """

    names: tuple[str, ...]
    stride: tuple[float, ...]
    imgsz: int
    stretch: bool
    end2end: bool

    @classmethod
    def of(cls, model: Detector, imgsz: int) -> Card:
        """Return the card of a model at an input size, on the branch that it is set to."""
        names, stride = tuple(model.names[i] for i in range(model.nc)), tuple(model.stride.tolist())
        return cls(names, stride, imgsz, model.stretch, model.end2end)

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Card:
        """Return the card of a ``text()``."""
        facts = json.loads(text)
        return cls(**facts | {"names": tuple(facts["names"]), "stride": tuple(facts["stride"])})


class BoxModel(nn.Module):
    """A detector reduced to what a runtime computes: a fused fp32 copy on the CPU, images in, boxes in pixels out.

    Attributes:
        detector: the copy, for targets that look inside.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).cpu().float().fuse()
        self.detector.set_head_attr(max_det=MAX_DET, agnostic_nms=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes of images (B, 3, S, S) with values in [0, 1], as `Card.end2end` says."""
        return self.detector.in_pixels(self.detector(images)[0], *images.shape[-2:])


class Exported:
    """A file that was opened: the `eyas.evaluate.inference.Network` that the validator measures.

    Args:
        card: what the file says of itself.
        answer: images (B, 3, S, S) with values in [0, 1] on ``device`` -> boxes, as `Card.end2end` says.
        device: where it runs.
    """

    stretch: bool
    end2end: bool

    def __init__(self, card: Card, answer: Callable[[Tensor], Tensor], device: torch.device | None = None) -> None:
        self.card, self.answer = card, answer
        self.nc, self.names = len(card.names), dict(enumerate(card.names))
        self.stride = torch.tensor(card.stride)
        self.stretch, self.end2end = card.stretch, card.end2end
        self.device = device or torch.device("cpu")

    def __call__(self, images: Tensor, /) -> tuple[Tensor, None]:
        """Return boxes of images (B, 3, S, S) with values in [0, 1], and nothing else.

        Raises:
            ValueError: images of another size.
        """
        side = self.card.imgsz
        if images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise ValueError(f"this model was exported for images of {side} x {side} px, not {height} x {width}")
        return self.answer(images), None

    def in_pixels(self, found: Tensor, height: int, width: int) -> Tensor:
        """Return boxes as they are: in pixels."""
        return found

    @contextmanager
    def ready(self, *, nms: bool | None, max_det: int, agnostic: bool) -> Iterator[None]:
        """Answer with these settings inside the block.

        Raises:
            ValueError: the file was written with others.
        """
        end2end = self.card.end2end
        if nms is not None and nms == end2end:
            raise ValueError(f"this model was exported {'without' if nms else 'for'} NMS: leave nms unset")
        if end2end and (max_det > MAX_DET or (agnostic and self.nc > 1)):
            raise ValueError(
                f"this model was exported for at most {MAX_DET} detections, of all classes that a place may show: "
                f"max_det={max_det} and agnostic_nms={agnostic} would have no effect"
            )
        yield


class ExportTarget(Protocol):
    """A kind of file. An object of any class with these is one: pass it to ``export(target=...)``.

    Attributes:
        name: what people ask for.
        suffix: of its files, with the dot.
    """

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Write the model, with its card, as one file.

        Raises:
            ExportError: the runtime cannot compute this model; names both.
        """

    def open(self, path: Path) -> Exported:
        """Return what runs a written file.

        Raises:
            ExportError: it is none that this target wrote.
        """
