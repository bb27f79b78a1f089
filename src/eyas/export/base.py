"""What an export target is given, what it has to do, and what its files are opened as.

Legend: ``B`` images, ``H`` and ``W`` their sides in pixels, ``A`` anchors, ``C`` classes.
"""

from __future__ import annotations

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from eyas import __version__
from eyas.families import family_of
from eyas.models import Detector

LEAST_CELLS = 2  # of the largest stride in a free side: a graph for one would be a graph for one alone
GREY = 114 / 255
MAX_DET = 300  # most detections of an image that a file without NMS answers with
LICENCE = "The code of this network is Eyas', Apache-2.0; its weights belong to who trained them."
PREPROCESSING = {
    False: "RGB, values 0..255 divided by 255, (B, 3, H, W); images keep their aspect: resized to fit, then padded "
    "with grey (114) on both sides alike",
    True: "RGB, values 0..255 divided by 255, (B, 3, H, W); images are stretched to the square",
}
ANSWERS = {
    True: "(B, k, 6): x1 y1 x2 y2 in pixels of the input, score, class; best first; needs no NMS",
    False: "(B, 4 + classes, anchors): cx cy w h in pixels of the input, then class scores; needs NMS",
}


class ExportError(ValueError):
    """A model that a target cannot write, a file that is none of its own, or one that answers otherwise."""


@dataclass(frozen=True)
class Card:
    """What whoever runs an exported model has to know; every target stores it in its file, as ``text()``.

    Attributes:
        names: classes in the order of their ids.
        stride: pixels per cell of each level.
        imgsz: side of the square input in pixels; where sides are free, the one that it was made with.
        stretch: whether images are stretched to the square; otherwise they keep their aspect and are padded with grey.
        end2end: whether answers are at most ``MAX_DET`` detections (B, k, 6) x1 y1 x2 y2 score class, best first;
            otherwise (B, 4 + C, A) cx cy w h and class scores, which need NMS. Boxes are in pixels of the input.
        batch: images that the file takes at a time; None for any number.
        dynamic: whether sides may be any multiples of the largest stride.
        precision: "fp32", "fp16" or "int8".
        family: of the model.
        version: of Eyas.
        licence: of code and weights.
        remembered: options of the training that ``val`` and ``predict`` start from.
        white: what is white in images of more than 8 bits, None where they tell themselves.
    """

    names: tuple[str, ...]
    stride: tuple[float, ...]
    imgsz: int
    stretch: bool
    end2end: bool
    batch: int | None = None
    dynamic: bool = False
    precision: str = "fp32"
    family: str = ""
    version: str = __version__
    licence: str = LICENCE
    remembered: Mapping[str, Any] = field(default_factory=dict)
    white: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        model: Detector,
        imgsz: int,
        *,
        remembered: Mapping[str, Any] | None = None,
        white: Mapping[str, Any] | None = None,
    ) -> Card:
        """Return the card of a model at an input size, on the branch that it is set to."""
        return cls(
            names=tuple(model.names[i] for i in range(model.nc)),
            stride=tuple(model.stride.tolist()),
            imgsz=imgsz,
            stretch=model.stretch,
            end2end=model.end2end,
            family=family_of(model).name,
            remembered=remembered or {},
            white=white,
        )

    def text(self, answers: str | None = None) -> str:
        """Return it as JSON, with what preprocessing and answers are in words; ``answers``: where a file has others."""
        told = {"preprocessing": PREPROCESSING[self.stretch], "answers": answers or ANSWERS[self.end2end]}
        return json.dumps(asdict(self) | told)

    @classmethod
    def from_text(cls, text: str) -> Card:
        """Return the card of a ``text()``.

        Raises:
            ExportError: it is none.
        """
        try:
            facts = json.loads(text)
            kept = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
            return cls(**kept | {"names": tuple(facts["names"]), "stride": tuple(facts["stride"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ExportError(f"what this file says of itself cannot be read: {error}") from error


Samples = Callable[[], Iterable[Tensor]]
"""Gives images of the user's (1, 3, S, S) with values in [0, 1], which precision of integers is fitted to."""


def no_samples() -> Iterable[Tensor]:
    """Stop what needs images.

    Raises:
        ExportError: always.
    """
    raise ExportError("int8 is fitted to images, and there are none: give data=my.yaml")


class BoxModel(nn.Module):
    """A detector reduced to what a runtime computes: a fused fp32 copy on the CPU, images in, boxes in pixels out.

    Args:
        detector: is not changed.
        samples: images for targets that fit themselves to some.

    Attributes:
        detector: the copy, for targets that look inside.
        weights: the tensors of the model as it is trained, not fused, for targets that hold no graph.
        samples: as given.
    """

    def __init__(self, detector: Detector, samples: Samples = no_samples) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).cpu().float()
        self.weights = {key: value.clone() for key, value in self.detector.state_dict().items()}
        self.samples = samples
        self.detector.fuse().set_head_attr(max_det=MAX_DET, agnostic_nms=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes of images (B, 3, H, W) with values in [0, 1], as `Card.end2end` says."""
        return self.detector.in_pixels(self.detector(images)[0], *images.shape[-2:])

    def example(self, card: Card, images: int) -> Tensor:
        """Return grey images (``images``, channels, S, S) to follow the model with."""
        return torch.full((images, self.detector.yaml["channels"], card.imgsz, card.imgsz), 0.5)


class Exported:
    """A file that was opened: the `eyas.evaluate.inference.Network` that validator and predictor run.

    Args:
        card: what the file says of itself.
        answer: images (B, 3, H, W) with values in [0, 1] on ``device`` -> boxes, as `Card.end2end` says; B is
            `Card.batch` unless that is None.
        device: where it runs.
    """

    stretch: bool
    end2end: bool

    def __init__(self, card: Card, answer: Callable[[Tensor], Tensor], device: torch.device | None = None) -> None:
        self.card, self.answer = card, answer
        self.nc, self.names = len(card.names), dict(enumerate(card.names))
        self.stride = torch.tensor(card.stride)
        self.stretch, self.end2end = card.stretch, card.end2end
        self.side = None if card.dynamic else card.imgsz
        self.device = device or torch.device("cpu")

    def __call__(self, images: Tensor, /) -> tuple[Tensor, None]:
        """Return boxes of any number of images (B, 3, H, W) with values in [0, 1], and nothing else.

        Raises:
            ValueError: images of another size.
        """
        side = self.side
        if side is not None and images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise ValueError(f"this model was exported for images of {side} x {side} px, not {height} x {width}")
        images = images if side is not None else self.widened(images)
        if self.card.batch is None:
            return self.answer(images), None
        parts = images.split(self.card.batch)
        return torch.cat([self.answer(self.filled(part))[: len(part)] for part in parts]), None

    def widened(self, images: Tensor) -> Tensor:
        """Return images with grey below and to the right of those that are too small for free sides; boxes stay.

        Raises:
            ValueError: the model sees images stretched, where grey would make others of them.
        """
        least = LEAST_CELLS * int(max(self.card.stride))
        height, width = images.shape[-2:]
        if height >= least and width >= least:
            return images
        if self.stretch:
            raise ValueError(
                f"this file takes sides of at least {least} px, not {height} x {width}: give imgsz={least}"
            )
        return pad(images, (0, max(least - width, 0), 0, max(least - height, 0)), value=GREY)

    def filled(self, images: Tensor) -> Tensor:
        """Return images with black ones behind them, as many as the file takes."""
        missing = (self.card.batch or 0) - len(images)
        return torch.cat((images, images.new_zeros(missing, *images.shape[1:]))) if missing > 0 else images

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


@runtime_checkable
class ExportTarget(Protocol):
    """A kind of file. An object of any class with these is one: pass it to ``export(format=...)``.

    Attributes:
        name: what people ask for.
        suffix: what the names of its files end with: a dot and letters, or ``_`` and letters for a folder.
    """

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        """Write the model, with its card, as one file or one folder.

        Raises:
            ExportError: the runtime cannot compute this model; names both.
        """

    def open(self, path: Path) -> Exported:
        """Return what runs a written file.

        Raises:
            ExportError: it is none that this target wrote.
        """


def library(module: str, extra: str, why: str) -> ModuleType:
    """Return a library that only some targets need, which the ``extra`` of Eyas of that name brings, "" for none.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the library is here, and lacks another one
        how = f'pip install "eyas[{extra}]"' if extra else f"pip install {module.partition('.')[0].replace('_', '-')}"
        raise ImportError(f"{why} needs {module.partition('.')[0]}, which is not installed: {how}") from None


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Silence warnings, and what loggers of these names say below errors."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def untraceable(model: BoxModel, by: str, error: Exception, instead: str = "") -> ExportError:
    """Return the error of a model that ``by`` cannot follow; ``instead``: what may work, a sentence."""
    kind, reason = type(model.detector), str(error).strip().partition("\n")[0]
    return ExportError(f"{by} cannot follow a {kind.__name__} ({kind.family}): {reason} {instead}".rstrip())
