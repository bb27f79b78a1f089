"""The detection head (spec core C.2). Sub-module names are state-dict keys.

Legend: ``B`` images, ``A`` anchors over all levels (P3, P4, P5; inside a level rows before columns), ``C`` classes.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from eyas.boxes import distances_to_boxes, xyxy_to_cxcywh
from eyas.losses.points import anchor_points
from eyas.models.bounds import Allowance
from eyas.models.graph import BN_EPS, BN_MOMENTUM
from eyas.models.postprocess import topk_detections
from eyas.nn import Conv, DWConv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

RawPredictions = dict[str, Any]  # "boxes" (B, 4 reg_max, A), "scores" (B, C, A) logits, "feats" list of maps


class DFL(nn.Module):
    """Expectation of a distribution over ``reg_max`` distances: (B, 4 reg_max, A) -> (B, 4, A)."""

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(reg_max, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data.copy_(torch.arange(reg_max, dtype=torch.float32).view(1, reg_max, 1, 1))
        self.reg_max = reg_max

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 4 reg_max, A) logits to (B, 4, A) distances in [0, reg_max - 1]."""
        b, _, a = x.shape
        return self.conv(x.view(b, 4, self.reg_max, a).transpose(1, 2).softmax(1)).view(b, 4, a)


class Detect(nn.Module):
    """Anchor-free head with a one-to-many branch and, when ``end2end``, a one-to-one branch that needs no NMS.

    ``end2end`` after construction selects the branch that inference decodes; both are always computed, since the
    losses of validation need both, until `fuse` drops one.
    """

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "box": ("cv2", "one2one_cv2", "dfl"),
        "cls": ("cv3", "one2one_cv3"),
    }

    def __init__(self, channels: Sequence[int], *, nc: int = 80, reg_max: int = 1, end2end: bool = True) -> None:
        super().__init__()
        self.nc = nc
        self.reg_max = reg_max
        self.nl = len(channels)
        self.no = nc + 4 * reg_max
        self.stride = torch.zeros(self.nl, device="cpu")
        self.max_det = 300
        self.agnostic_nms = False
        self.end2end = end2end
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        self.cv2: nn.ModuleList | None = nn.ModuleList(box_branch(c, box_width, 4 * reg_max) for c in channels)
        class_width = max(channels[0], min(nc, 100))
        self.cv3: nn.ModuleList | None = nn.ModuleList(class_branch(c, class_width, nc) for c in channels)
        self.dfl = DFL(reg_max) if reg_max > 1 else nn.Identity()
        self.one2one_cv2 = copy.deepcopy(self.cv2) if end2end else None
        self.one2one_cv3 = copy.deepcopy(self.cv3) if end2end else None

    @property
    def has_one2one(self) -> bool:
        """Whether the NMS-free branch exists."""
        return self.one2one_cv2 is not None

    @property
    def class_branches(self) -> list[nn.ModuleList]:
        """The class branches that exist, one-to-many first."""
        return [b for b in (self.cv3, self.one2one_cv3) if b is not None]

    @property
    def box_branches(self) -> list[nn.ModuleList]:
        """The box branches that exist, one-to-many first."""
        return [b for b in (self.cv2, self.one2one_cv2) if b is not None]

    def forward(self, feats: list[Tensor]) -> Any:
        """Return raw predictions while training, else (decoded, raw).

        Raw is {"one2many": R, "one2one": R}, or R alone with a single branch. The one-to-one branch gets detached
        maps while training, so that only one-to-many assignments shape the trunk.
        """
        feats = list(feats)
        raw: dict[str, RawPredictions] = {}
        if self.cv2 is not None and self.cv3 is not None:
            raw["one2many"] = self._branch(feats, self.cv2, self.cv3)
        if self.one2one_cv2 is not None and self.one2one_cv3 is not None:
            maps = [f.detach() for f in feats] if self.training else feats
            raw["one2one"] = self._branch(maps, self.one2one_cv2, self.one2one_cv3)
        result = raw if self.has_one2one else raw["one2many"]
        return result if self.training else (self.decode(raw), result)

    def _branch(self, feats: list[Tensor], box: nn.ModuleList, cls: nn.ModuleList) -> RawPredictions:
        return {
            "boxes": _join([layer(f) for layer, f in zip(box, feats, strict=True)]),
            "scores": _join([layer(f) for layer, f in zip(cls, feats, strict=True)]),
            "feats": feats,
        }

    def decode(self, raw: dict[str, RawPredictions]) -> Tensor:
        """Return detections of the selected branch.

        End-to-end: (B, min(max_det, A), 6) x1 y1 x2 y2 in input pixels, score, class. Otherwise (B, 4 + C, A)
        cx cy w h in input pixels, then class scores in [0, 1].
        """
        use_one2one = "one2one" in raw and (self.end2end or "one2many" not in raw)
        part = raw["one2one" if use_one2one else "one2many"]
        points, strides = anchor_points(part["feats"], self.stride.tolist())
        boxes = distances_to_boxes(self.dfl(part["boxes"]).transpose(1, 2), points) * strides  # (B, A, 4)
        scores = part["scores"].sigmoid()
        if use_one2one:
            return topk_detections(boxes, scores.transpose(1, 2), self.max_det, agnostic=self.agnostic_nms)
        return torch.cat((xyxy_to_cxcywh(boxes).transpose(1, 2), scores), 1)

    @torch.no_grad()
    def init_biases(self, imgsz: int = 640) -> None:
        """Start from about five objects in an image of ``imgsz`` px, and from distances of two cells to each side."""
        for branch in self.box_branches:
            for i in range(self.nl):
                branch.get_parameter(f"{i}.2.bias").fill_(2.0)
        for branch in self.class_branches:
            for i, stride in enumerate(self.stride.tolist()):
                branch.get_parameter(f"{i}.2.bias").fill_(math.log(5 / self.nc / (imgsz / stride) ** 2))

    def rebuild_class_branches(self, width: int) -> None:
        """Replace the class branches by fresh ones of hidden width ``width``, on the same device and dtype."""
        old = self.class_branches[0]
        reference = old.get_parameter("0.2.weight")
        channels = [old.get_parameter(f"{i}.0.0.conv.weight").shape[0] for i in range(self.nl)]
        with Allowance():  # the width comes from a file
            fresh = nn.ModuleList(class_branch(c, width, self.nc) for c in channels)
        for m in fresh.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eps, m.momentum = BN_EPS, BN_MOMENTUM
        fresh = fresh.to(reference.device, reference.dtype).train(self.training)
        if self.cv3 is not None:
            self.cv3 = fresh
        if self.one2one_cv3 is not None:
            self.one2one_cv3 = copy.deepcopy(fresh)
        self.init_biases()

    def answer_densely(self) -> None:
        """Give the boxes of all anchors of the branch that inference uses, (B, 4 + C, A), and choose none of them."""
        self.drop_unused_branch()
        if self.one2one_cv2 is not None:
            self.cv2, self.cv3 = self.one2one_cv2, self.one2one_cv3
            self.one2one_cv2 = self.one2one_cv3 = None
        self.end2end = False

    def drop_unused_branch(self) -> None:
        """Keep only the branch that inference uses."""
        if not self.has_one2one:
            return
        if self.end2end:
            self.cv2 = self.cv3 = None
        else:
            self.one2one_cv2 = self.one2one_cv3 = None


def box_branch(c: int, width: int, outputs: int) -> nn.Sequential:
    """Return the box tower of one level: (B, c, H, W) -> (B, outputs, H, W)."""
    return nn.Sequential(Conv(c, width, 3), Conv(width, width, 3), nn.Conv2d(width, outputs, 1))


def class_branch(c: int, width: int, nc: int) -> nn.Sequential:
    """Return the class tower of one level, depthwise separable: (B, c, H, W) -> (B, nc, H, W)."""
    return nn.Sequential(
        nn.Sequential(DWConv(c, c, 3), Conv(c, width, 1)),
        nn.Sequential(DWConv(width, width, 3), Conv(width, width, 1)),
        nn.Conv2d(width, nc, 1),
    )


def _join(maps: list[Tensor]) -> Tensor:
    """Join levels (B, c, H, W) to (B, c, A). In memory it is (B, A, c): a plain copy of channels-last maps."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1).transpose(1, 2)
