"""A model becomes a file that is as good as the model, or none."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from eyas.augment.letterbox import padded
from eyas.boxes import cxcywh_to_xyxy
from eyas.evaluate.inference import Network, inference_state
from eyas.evaluate.validator import DetectionValidator
from eyas.export.base import MAX_DET, BoxModel, Card, Exported, ExportError, ExportTarget, Samples, no_samples
from eyas.files import refuse_special
from eyas.log import print_table, warn
from eyas.models import Detector

IMAGES = 200  # that a file is measured on
MAP = "metrics/mAP50-95(B)"
LARGEST_MOVE = 0.002  # of mAP50-95; other kernels of the same precision change far less
LARGEST_MOVE_INT8 = 0.01
LARGEST_SHIFT = 1.0  # pixels of the input that a side of a box may be elsewhere
# Of the longest side of all boxes in an image, how far arithmetic of so many bits may move one. Twice what was measured
# where boxes, after a few steps of training, were many times as large as the image.
ROUNDING = {"fp32": 2**-20, "fp16": 2**-9, "int8": 2**-5}
LARGEST_ROUNDING = 1 / 8  # of the side of an image: where rounding may do more, its boxes are not compared
LARGEST_SCORE = 0.05  # that a score may be away on images without labels, where no mAP tells
SEEN = 0.25  # score of the boxes that are compared
BEST = 10  # boxes of an image that are compared where no score says which count
TIE = 1e-3  # of a score: of those so close to the lowest that were returned, rounding decides which were
NOTHING = (
    "no box could be compared: the model scores all places alike, as an untrained one does, or its boxes are outside "
    "of the images, or so large that rounding alone moves them by pixels"
)
INSTEAD = "verify=False writes it as it is"
NOISE_IMAGES = 8  # images without labels

Check = Callable[[Detector, Exported, str], None]
"""Compares a model with what was made of it, under that name. Raises ExportError: they differ."""


class Agreement(NamedTuple):
    """How far the boxes of a file are from those of its model.

    Attributes:
        boxes: how many of the model's were looked for.
        shift: largest distance of a side, in pixels of the input; infinite if a box has no counterpart.
        typical: the median of those distances.
        beyond: the largest of them, less what rounding may do where boxes are so large.
        score: largest difference of scores.
        sure: whether the model is sure of what was looked for. Of scores that are all low, rounding decides which are
            returned, and which places a decoder looks at.
    """

    boxes: int
    shift: float
    typical: float
    beyond: float
    score: float
    sure: bool


class Listener(DetectionValidator):
    """A validator that keeps what a network answered.

    Attributes:
        answers: one (n, 6) of each image: x1 y1 x2 y2 in pixels of the input, score, class.
    """

    answers: list[Tensor]

    def start(self, network: Any, device: torch.device) -> None:
        """Forget the previous run, answers too."""
        super().start(network, device)
        self.answers = []

    def postprocess(self, found: Tensor, *, end2end: bool) -> list[Tensor]:
        """Keep the answers as they are before NMS, where a hair's breadth decides which of two boxes stays."""
        self.answers += rows_of(found, end2end=end2end)
        return super().postprocess(found, end2end=end2end)


def export(
    model: Detector,
    target: ExportTarget,
    path: Path,
    *,
    imgsz: int,
    check: Check | None,
    samples: Samples = no_samples,
    remembered: Mapping[str, Any] | None = None,
    white: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model, compare what was written with it, and return its path, where nothing changes on failure.

    Args:
        model: it is not changed, but may move to another device.
        target: what kind of file.
        path: of the file or folder; an earlier one in its place is replaced.
        imgsz: side of its square input in pixels, rounded up to a multiple of 32.
        check: see `verify` and `verify_on_noise`; None leaves the file unverified.
        samples: images for targets that fit themselves to some.
        remembered, white: what the file remembers of the training, see `Card`.

    Raises:
        ExportError: the target cannot write the model, the file answers otherwise, or what stands at ``path`` is no
            earlier file of its kind.
        OSError: what stands at ``path`` is no file or folder, or its folder is not there.
    """
    refuse_special(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}, where {path.name} would be written")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        card = Card.of(model, padded(imgsz), remembered=remembered, white=white)
        target.write(BoxModel(model, samples), draft, card)
        refuse_foreign(path, draft)
        if check is not None:
            check(model, target.open(draft), f"the {target.name} file")
        put(draft, path, aside=Path(folder) / "earlier")
    return path


def refuse_foreign(path: Path, draft: Path) -> None:
    """Stop where a file or folder stands in the place of a ``draft`` that is no earlier one of its kind.

    Raises:
        ExportError: names what an export of this kind does not write.
    """
    foreign = sorted(names_in(path) - names_in(draft))
    if foreign or (draft.is_dir() and path.is_file()):
        what = f"a folder with {foreign[0]!r}" if foreign else "a file"
        raise ExportError(
            f"{path} is {what}, which no export of this kind has written, and is left alone: move it, or delete it"
        )


def names_in(folder: Path) -> set[str]:
    """Return names of all files in a folder, by their way from there; none of a file."""
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}


def put(draft: Path, path: Path, aside: Path) -> None:
    """Put a file or folder in a place, and what was there ``aside``."""
    if path.is_dir():
        os.replace(path, aside)
    elif draft.is_dir():
        path.unlink(missing_ok=True)
    os.replace(draft, path)


def verify(model: Detector, written: Exported, what: str, *, validator: Listener) -> None:
    """Measure a model and what was made of it on labelled images.

    Raises:
        ExportError: mAP50-95 has moved by more than 0.002 (0.01 for int8) or is no number, or a box is elsewhere.
    """
    before = validator(model=model)[MAP]
    expected = validator.answers
    after = validator(model=written)[MAP]
    found = agreement(expected, validator.answers, written.card)
    images, allowed = len(validator.metrics.image_files), allowed_move(written.card)
    tell(f"Verified on {images} images: {what} beside the model", found, written.card, (before, after, allowed))
    if not as_good(after, before, allowed):
        raise ExportError(
            f"{what} is not as good as the model, and was removed: on {images} images its mAP50-95 is {after:.4f}, the "
            f"model's {before:.4f}; at most {allowed} may lie between them. {INSTEAD}"
        )
    check_boxes(found, written.card, what, images)
    if not found.boxes:
        warn(NOTHING)
    if before <= LARGEST_MOVE:
        warn(f"the model's mAP50-95 on {images} images is {before:.4f}, too low to tell a wrong file from a right one")


def verify_on_noise(model: Detector, written: Exported, what: str) -> None:
    """Compare the best boxes of a model and of what was made of it, on images of blurred noise.

    Raises:
        ExportError: a box or a score is elsewhere.
    """
    images = noise(model.yaml["channels"], written.card.imgsz)
    found = agreement(answers(model, images), answers(written, images), written.card)
    tell(
        f"Compared on {len(images)} images of noise, for want of data: {what} beside the model",
        found,
        written.card,
        None,
    )
    check_boxes(found, written.card, what, len(images))
    if not found.score <= LARGEST_SCORE:
        raise ExportError(
            f"{what} does not answer as the model does, and was removed: on {len(images)} images of noise a score is "
            f"{found.score:.3f} away. {INSTEAD}"
        )
    if not found.boxes:
        warn(NOTHING)


def looked_for(answers: Sequence[Tensor], side: int) -> list[Tensor]:
    """Return, of the ``answers`` (n, 6) to images of ``side`` px, the boxes that any file has to return the same.

    Those that the model is sure of; where there are none, because it learned little, the best of each image. What lies
    outside of the image, or has no area in it, is nothing that it found, and may be millions of pixels away.
    """
    sure = [within(sure_of(rows), side) for rows in answers]
    return sure if any(map(len, sure)) else [best_of(within(rows, side)) for rows in answers]


def sure_of(rows: Tensor) -> Tensor:
    """Return those of an image's ``rows`` (n, 6) with a score above `SEEN`.

    Of so many that some were left out, the last are left out too: a file may return others with nearly their scores.
    """
    many = len(rows) >= MAX_DET
    least = max(SEEN, rows[:, 4].min().item() + LARGEST_SCORE) if many else SEEN
    return rows[rows[:, 4] > least]


def best_of(rows: Tensor) -> Tensor:
    """Return those of an image's ``rows`` (n, 6) with the best scores, as far as any file has to return the same.

    A network that was never trained scores all places alike: which of them are returned is a matter of rounding.
    """
    if not len(rows):
        return rows
    clear = rows[rows[:, 4] > rows[:, 4].min() * (1 + TIE)]
    return clear[clear[:, 4].topk(min(BEST, len(clear))).indices]


def within(rows: Tensor, side: int) -> Tensor:
    """Return those of ``rows`` (n, 6) that have an area inside of an image of ``side`` px."""
    inside = clipped(rows, side)
    return rows[(inside[:, 2:4] > inside[:, :2]).all(1)]


def clipped(rows: Tensor, side: int) -> Tensor:
    """Return ``rows`` (n, 6) with boxes that end where an image of ``side`` px does; what is no number stays none."""
    return torch.cat((rows[:, :4].clamp(0, side), rows[:, 4:]), 1)


def answers(network: Detector | Network, images: Tensor) -> list[Tensor]:
    """Return one (n, 6) of each image: x1 y1 x2 y2 in pixels, score, class."""
    with torch.no_grad(), inference_state(network, nms=None, max_det=MAX_DET, agnostic=False):
        found = network(images)[0].float()
        return rows_of(network.in_pixels(found, *images.shape[-2:]), end2end=network.end2end)


def noise(channels: int, side: int) -> Tensor:
    """Return images (8, channels, side, side) of blurred noise with values in [0, 1], always the same."""
    coarse = torch.rand(NOISE_IMAGES, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, (side, side), mode="bilinear")


def rows_of(found: Tensor, *, end2end: bool) -> list[Tensor]:
    """Return one (n, 6) of each image on the CPU: x1 y1 x2 y2, score, class; of dense answers the best class of each
    anchor."""
    if end2end:
        return list(found.cpu())
    dense = found.cpu().transpose(1, 2)  # (B, A, 4 + C)
    score, label = dense[..., 4:].max(-1, keepdim=True)
    return list(torch.cat((cxcywh_to_xyxy(dense[..., :4]), score, label.float()), -1))


def agreement(expected: Sequence[Tensor], found: Sequence[Tensor], card: Card) -> Agreement:
    """Look for the boxes of a model among those that a file with that card found in the same image, by class and place.

    ``expected`` and ``found`` have one (n, 6) for each image, all that was answered: x1 y1 x2 y2, score, class. Boxes
    are compared as far as they lie in the image. Where none is to be looked for, see `looked_for`, it only counts that
    what was found are numbers.
    """
    side, rounding = card.imgsz, [ROUNDING[card.precision] * longest_side(rows) for rows in expected]
    plain = [rows[: len(rows) * (may <= LARGEST_ROUNDING * side)] for rows, may in zip(expected, rounding, strict=True)]
    pairs = [
        (*nearest_box(clipped(rows, side), clipped(others, side)), torch.full((len(rows),), may), rows[:, 4])
        for rows, others, may in zip(looked_for(plain, side), found, rounding, strict=True)
        if len(rows)
    ]
    if not pairs:
        apart = 0.0 if all(bool(rows.isfinite().all()) for rows in found) else math.inf
        return Agreement(0, apart, apart, apart, apart, sure=False)
    shift, score, may, own = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    beyond = shift - may
    return Agreement(
        len(shift), shift.max().item(), shift.median().item(), beyond.max().item(), score.max().item(),
        sure=bool((own > SEEN).any()),
    )  # fmt: skip


def longest_side(rows: Tensor) -> float:
    """Return the longest side of all boxes (n, 6), 0 for none."""
    return (rows[:, 2:4] - rows[:, :2]).abs().max().item() if len(rows) else 0.0


def nearest_box(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each of ``rows`` (n, 6), the distance (n,) of its farthest side from that of the nearest box of its
    class in ``others`` (m, 6), and the difference (n,) of their scores; infinite where there is none. Of boxes in about
    the same place, it is the one with the nearest score."""
    none = torch.tensor([[math.inf] * 6])
    none[0, 5] = -1
    others = torch.cat((others, none))
    distance = (rows[:, None, :4] - others[None, :, :4]).abs().amax(-1)
    distance = distance.masked_fill(rows[:, None, 5] != others[None, :, 5], math.inf)
    score = (rows[:, None, 4] - others[None, :, 4]).abs()
    distance = distance.masked_fill((distance + score).isnan(), math.inf)
    score = score.nan_to_num(math.inf)
    index = (distance + score).min(1).indices[:, None]
    return distance.gather(1, index)[:, 0], score.gather(1, index)[:, 0]


def tell(title: str, found: Agreement, card: Card, maps: tuple[float, float, float] | None) -> None:
    """Print what was compared, and how far it is apart."""
    rows: list[list[object]] = []
    if maps is not None:
        before, after, allowed = maps
        rows += [["mAP50-95", f"{before:.4f}", f"{after:.4f}", f"{abs(after - before):.4f}", f"{allowed}"]]
    limit = "1 for half of them" if counts_half(found, card) else "1 and rounding" if card.precision == "fp16" else "1"
    shown = f"{found.shift:.3f}, half of them {found.typical:.3f}"
    rows += [[f"sides of {found.boxes} boxes (px)", "", "", shown, limit]]
    rows += [["their scores", "", "", f"{found.score:.4f}", ""]]
    print_table(title, ["compared", "model", "file", "largest difference", "allowed"], rows)


def check_boxes(found: Agreement, card: Card, what: str, images: int) -> None:
    """Stop where boxes are elsewhere: half of them; and, but for int8, which rounds each for itself, and where the
    model is sure of none, the worst of them too.

    Raises:
        ExportError: by more than a pixel, the worst by more than rounding may do beyond that.
    """
    shift = found.typical if counts_half(found, card) else max(found.typical, found.beyond)
    if not shift <= LARGEST_SHIFT:
        far = f"{shift:.3f} px away" if math.isfinite(shift) else "missing" if found.boxes else "no number"
        raise ExportError(
            f"{what} does not answer as the model does, and was removed: on {images} images a box is {far}; at most "
            f"{LARGEST_SHIFT:.0f} px is allowed. {INSTEAD}"
        )


def counts_half(found: Agreement, card: Card) -> bool:
    """Whether a file is held to half of the boxes alone."""
    return card.precision == "int8" or not found.sure


def allowed_move(card: Card) -> float:
    """Return how far mAP50-95 of a file may be from that of its model."""
    return LARGEST_MOVE_INT8 if card.precision == "int8" else LARGEST_MOVE


def as_good(after: float, before: float, allowed: float = LARGEST_MOVE) -> bool:
    """Whether one mAP50-95 is close enough to the other; what is no number is not."""
    return abs(after - before) <= allowed
