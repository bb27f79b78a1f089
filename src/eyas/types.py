"""The few shapes that travel between rooms.

Legend used in every docstring: ``B`` images, ``A`` anchors, ``T`` targets, ``C`` classes, ``H, W`` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

CLASSES: Final = 100_000
"""The most classes that a data set or a model may have; the largest public ones have some 20,000."""


class Batch(TypedDict):
    """One batch, from the loader to the criterion (spec core E.9).

    Boxes are ``cx cy w h`` divided by the network input size; rows of all images are concatenated and
    ``batch_idx`` says which image a row belongs to.
    """

    img: Tensor  # (B, 3, H, W) RGB; uint8 from the loader, float in [0, 1] after preprocess_batch
    cls: Tensor  # (T, 1) float32 class ids
    bboxes: Tensor  # (T, 4) float32
    batch_idx: Tensor  # (T,) float32
    ignored: NotRequired[Tensor]  # (M, 4) float32 areas in which finding an object of some classes is no mistake
    ignored_idx: NotRequired[Tensor]  # (M,) int64 image of each area
    ignored_kind: NotRequired[Tensor]  # (M,) int64 row of `ignored_classes`
    ignored_classes: NotRequired[Tensor]  # (S, C) bool: sets of classes, the same in all batches of a data set
    hsv: NotRequired[Tensor | None]  # (B, 3) float32 gains of colours yet to be jittered; None once they are
    max_objects: NotRequired[int]  # most objects in one image, known on the host so that no loss asks the device
    index: NotRequired[Tensor]  # (B,) int64 positions in the dataset
    im_file: NotRequired[list[str]]
    ori_shape: NotRequired[list[tuple[int, int]]]  # (h, w) of the file
    resized_shape: NotRequired[list[tuple[int, int]]]  # (h, w) of the network input
    ratio_pad: NotRequired[list[tuple[tuple[float, float], tuple[float, float]]]]  # (gain h, w), (left, top)


class DenoisingMeta(NamedTuple):
    """Which denoising queries must find which objects; ``P`` positive queries in all."""

    image: Tensor  # (P,) int64
    query: Tensor  # (P,) int64 position on the query axis
    target: Tensor  # (P,) int64 row of the batch's objects
    groups: int  # copies of every image's objects
    split: tuple[int, int]  # queries for denoising, which come first, and for detection


class FineBoxes(NamedTuple):
    """What a head that predicts where the edges of a box lie tells besides the box; ``n`` bins, queries as below."""

    edges: Tensor  # (L, B, Q, 4 n) logits of the bins of left, top, right and bottom
    reference: Tensor  # (B, Q, 4) cx cy w h, without gradient: what the edges are measured from
    first_bboxes: Tensor  # (B, Q, 4) the box before there were distributions
    first_scores: Tensor  # (B, Q, C) logits


class SetPrediction(NamedTuple):
    """What a detector that predicts a set gives: ``L`` layers, ``Q`` queries, denoising ones first while training."""

    dec_bboxes: Tensor  # (L, B, Q, 4) cx cy w h in [0, 1]
    dec_scores: Tensor  # (L, B, Q, C) logits
    enc_bboxes: Tensor  # (B, Q, 4), without denoising queries
    enc_scores: Tensor  # (B, Q, C) logits
    dn_meta: DenoisingMeta | None
    fine: FineBoxes | None = None


LossDict = dict[str, "Tensor"]  # name -> detached scalar, in the order of the loss vector


@dataclass(frozen=True)
class Progress:
    """Where a run stands; the only message that travels against the flow of data.

    Args:
        epoch: current epoch, 0-based.
        epochs: planned length of the run in epochs.
        step: batch within the epoch, 0-based.
        steps: batches in one epoch.
    """

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1

    @property
    def fraction(self) -> float:
        """Share of the run that lies behind, in [0, 1]."""
        done = self.epoch + self.step / max(self.steps, 1)
        return min(max(done / max(self.epochs, 1), 0.0), 1.0)

    @property
    def batches(self) -> int:
        """Batches that lie behind, counted from the start of the run."""
        return self.epoch * self.steps + self.step


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone level promises to the next part: its width and how many input pixels one cell spans."""

    channels: int
    stride: int
