"""The incumbent's loss classes over Eyas' criteria, for scripts that subclass them (spec core A.8, D.2, D.4).

Legend: ``B`` images, ``A`` anchors, ``C`` classes, ``T`` objects of the batch, ``N`` most objects in an image.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.assign import Assignment, TaskAlignedAssigner
from eyas.boxes import cxcywh_to_xyxy
from eyas.losses import DenseCriterion, EndToEndCriterion
from eyas.losses.class_weighting import as_class_weights
from eyas.losses.dense import SupervisedAnchors
from eyas.losses.end_to_end import END, START
from eyas.types import Progress


class v8DetectionLoss(DenseCriterion):
    """The loss of one branch, with everything taken from the model.

    Args:
        model: an unwrapped model on its device; its last layer says strides, classes and bins, and its ``gains`` and
            ``class_weights``, if any, what losses and classes weigh.
        tal_topk: anchors chosen for each object.
        tal_topk2: anchors kept for each object; None keeps all chosen ones.

    Attributes, which may be replaced after ``super().__init__()`` and count from then on:
        bce: logits and targets (B, A, C) to unreduced losses (B, A, C).
        bbox_loss: called as `StockBoxes` is, returns the box loss and the third one.
        assigner: of Eyas, or called as `assign_padded` says.
        proj: distances (reg_max,) in cells that the bins stand for; needs more than one.
        hyp: a copy of the run's options, which is this loss's own; ``box``, ``cls`` and ``dfl`` of another object, or
            changed in this one or in the run's, are gains.
        stride: pixels per cell of each level.
        class_weights: factors of the classes (C,), or None.
        device: where the model is.

    A subclass may also have ``bce``, ``assigner`` and ``bbox_loss`` as methods. What could not count is refused when it
    is assigned.

    `__call__` goes through `loss`, and that through `get_assigned_targets_and_loss`; any of them may be overridden, and
    so may `preprocess` and `bbox_decode`.
    """

    def __init__(self, model: nn.Module, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        network: Any = model
        head = network.model[-1]
        self.decided = {"nc": head.nc, "reg_max": head.reg_max}
        self.given: Any = network.args
        self._hyp: Any = copy.copy(self.given)
        gains = {f"{name}_gain": gain for name, gain in (network.gains or {}).items()}
        super().__init__(
            nc=head.nc,
            strides=head.stride.tolist(),
            reg_max=head.reg_max,
            topk=tal_topk,
            topk2=tal_topk2,
            class_weights=network.class_weights,
            **gains,
        )
        self.device = next(model.parameters()).device
        self.asked = self.asked_of(self.given), self.asked_of(self.hyp)
        self.bbox_loss: Any = StockBoxes(self)
        self._proj = torch.arange(self.reg_max, dtype=torch.float32, device=self.device)
        self.take_from_class()

    # -- attributes of scripts -----------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self).get("decided", {}):
            refuse_other(name, value, self.decided[name])
        elif name in ASKED_IN and not callable(value):
            refuse_uncallable(self, name, value)
        elif name == "topk":
            refuse_topk(self, value)
        elif name == "class_weights" and value is not None and "nc" in vars(self):
            value = as_class_weights(value, self.nc)
        super().__setattr__(name, value)

    def take_from_class(self) -> None:
        """Let methods and values of a subclass count that have the names of attributes."""
        own = type(self).__mro__[: type(self).__mro__.index(v8DetectionLoss)]
        for name in {name for cls in own for name in vars(cls)} & {*ASKED_IN, *self.decided, "topk", "class_weights"}:
            value = getattr(type(self), name)
            if inspect.isfunction(value) and name in ASKED_IN:
                delattr(self, name)
            elif not isinstance(value, property):
                setattr(self, name, value)

    @property
    def hyp(self) -> Any:
        """A copy of the run's options, or what a script has put in its place."""
        return self._hyp

    @hyp.setter
    def hyp(self, values: Any) -> None:
        if values is not self._hyp and values is not self.given:  # gains fitted to the data are not in the options
            self._hyp, self.asked = values, (self.asked[0], {})

    @property
    def proj(self) -> Tensor:
        """Distances (reg_max,) in cells that the bins stand for."""
        return self._proj

    @proj.setter
    def proj(self, values: Tensor) -> None:
        if not self.use_dfl:
            raise ValueError("proj has no effect: reg_max is 1, so that distances are predicted directly.")
        if values.shape != (self.reg_max,):
            raise ValueError(f"proj holds one distance for each of {self.reg_max} bins, got {tuple(values.shape)}.")
        self._proj = values

    @property
    def stride(self) -> Tensor:
        """Pixels per cell of each level."""
        return torch.tensor(self.strides)

    @stride.setter
    def stride(self, values: Tensor) -> None:
        self.strides = [float(value) for value in values]

    @property
    def no(self) -> int:
        """Outputs for each anchor."""
        return super().no

    @no.setter
    def no(self, value: int) -> None:
        refuse_other("no", value, self.no)

    @property
    def use_dfl(self) -> bool:
        """Whether distances are predicted as distributions."""
        return super().use_dfl

    @use_dfl.setter
    def use_dfl(self, value: bool) -> None:
        refuse_other("use_dfl", value, self.use_dfl)

    # -- the steps -----------------------------------------------------------------------------------------------------
    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items."""
        return self.loss(self.parse_output(preds), batch)

    def loss(self, raw: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector (3,) times B, and detached items, of raw predictions.

        In several processes B is the mean over them, as in `DenseCriterion`.
        """
        _, losses, items = self.get_assigned_targets_and_loss(raw, batch)
        return losses * dist.mean_over_ranks(losses.new_full((), raw["boxes"].shape[0])), items

    def get_assigned_targets_and_loss(  # type: ignore[override]  # one value more than ours, as scripts expect
        self, raw: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[Assignment, Tensor, dict[str, Tensor]]:
        """Return the assignment, the weighted losses (3,) not yet times B, and those by name."""
        assigned, losses = super().get_assigned_targets_and_loss(raw, batch)
        return assigned, losses, dict(zip(self.loss_names, losses.detach(), strict=True))

    def preprocess(self, targets: Tensor, batch_size: int, scale_tensor: Tensor) -> Tensor:
        """Return classes and corners in pixels (B, N, 5), padded by zeros, of rows (T, 6): image, class, cx cy w h.

        ``scale_tensor`` (4,) is width, height, width, height of the input in pixels.
        """
        corners = cxcywh_to_xyxy(targets[:, 2:] * scale_tensor)
        return pad_rows(torch.cat((targets[:, 1:2], corners), 1), targets[:, 0].long(), batch_size)

    def bbox_decode(self, anchor_points: Tensor, pred_dist: Tensor) -> Tensor:
        """Return corner boxes (B, A, 4) in cells of cell centres (A, 2) and outputs (B, A, 4 reg_max)."""
        return super().decode_boxes(pred_dist, anchor_points)

    # -- what is asked of them -----------------------------------------------------------------------------------------
    def objects(self, batch: Mapping[str, Any], size: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return classes, corners in pixels and images of the objects, as an override of `preprocess` leaves them."""
        if getattr(self.preprocess, "__func__", None) is v8DetectionLoss.preprocess:
            return super().objects(batch, size, images)
        columns = (batch["batch_idx"].view(-1, 1), batch["cls"].view(-1, 1), batch["bboxes"].view(-1, 4))
        rows = torch.cat([column.to(size.device).float() for column in columns], 1)
        padded = self.preprocess(rows, images, size)
        image, slot = (padded[..., 1:].sum(-1) > 0).nonzero(as_tuple=True)
        return padded[image, slot, 0].long(), padded[image, slot, 1:], image

    def assign(
        self, scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, targets: Tensor, image: Tensor
    ) -> Assignment:
        """Return who answers for which object, asked of Eyas' assigner or of one in the incumbent's form."""
        if isinstance(self.assigner, TaskAlignedAssigner):
            return super().assign(scores, boxes, points, labels, targets, image)
        return assign_padded(self.assigner, scores, boxes, points, labels, targets, image)

    def decode_boxes(self, outputs: Tensor, points: Tensor) -> Tensor:
        """Return corner boxes (B, A, 4) in cells, as `bbox_decode` makes them."""
        return self.bbox_decode(points, outputs)

    def decode_distances(self, outputs: Tensor) -> Tensor:
        """Return distances (B, A, 4) in cells: the mean of ``proj`` over the bins, if there are several."""
        if not self.use_dfl:
            return outputs
        return outputs.unflatten(-1, (4, self.reg_max)).softmax(-1) @ self.proj.to(outputs)

    def mean_losses(self, anchors: SupervisedAnchors, norm: Tensor) -> dict[str, Tensor]:
        """Return each loss (), two of which a ``bbox_loss`` of the script's may make."""
        losses = super().mean_losses(anchors, norm)
        if not isinstance(self.bbox_loss, StockBoxes):
            losses["box"], losses[self.third] = ask_boxes(self.bbox_loss, anchors, self.nc, norm)
        return losses

    def weigh(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return losses times their gains, those of ``hyp`` where it was changed since this loss was made."""
        self.take_over_gains()
        return super().weigh(losses)

    def effects(self) -> dict[str, float]:
        """Return the gains that are applied, by the options that set them."""
        self.take_over_gains()
        return super().effects()

    def take_over_gains(self) -> None:
        """Make what was changed in the run's options or in ``hyp`` since the last call a gain; ``hyp`` has its way."""
        asked = self.asked_of(self.given), self.asked_of(self.hyp)
        for before, now in zip(self.asked, asked, strict=True):
            self.gains |= {name: float(gain) for name, gain in now.items() if gain != before.get(name)}
        self.asked = asked

    def asked_of(self, hyp: Any) -> dict[str, float]:
        """Return what options, or what a script puts in their place, say of the gains; nothing where none is named."""
        named = self.options.items()
        found = {name: hyp.get(o) if isinstance(hyp, Mapping) else getattr(hyp, o, None) for name, o in named}
        return {name: gain for name, gain in found.items() if name in self.gains and gain is not None}


class StockBoxes:
    """What ``bbox_loss`` is until a script assigns another: box loss and third loss of its criterion."""

    def __init__(self, criterion: DenseCriterion) -> None:
        self.criterion = criterion

    def __call__(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Tensor,
        fg_mask: Tensor,
        imgsz: Tensor,
        stride: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return two losses (), weighted by the target's score and divided by their sum.

        Args:
            pred_dist: (B, A, 4 reg_max) outputs of the head. pred_bboxes, target_bboxes: (B, A, 4) corners in cells.
            anchor_points: (A, 2) in cells. target_scores: (B, A, C). target_scores_sum: (). fg_mask: (B, A).
            imgsz: (2,) height and width, stride: (A, 1), both in pixels.
        """
        weight, owner = target_scores.sum(-1) * fg_mask, fg_mask.long() - 1
        unit = torch.tensor([0.0, 0.0, 1.0, 1.0], device=weight.device)  # background is compared with itself
        pred_bboxes, target_bboxes = (torch.where(fg_mask[..., None], b, unit) for b in (pred_bboxes, target_bboxes))
        taught = SupervisedAnchors(
            target_scores,
            pred_dist,
            pred_bboxes,
            target_bboxes,
            anchor_points,
            stride,
            imgsz.flip(0).repeat(2),
            Assignment(target_bboxes, torch.zeros_like(owner), weight, owner),
        )
        box = (self.criterion.box_loss(pred_bboxes, target_bboxes) * weight).sum()
        return box / target_scores_sum, (self.criterion.distance_loss(taught) * weight).sum() / target_scores_sum


def ask_boxes(
    bbox_loss: Callable[..., tuple[Tensor, Tensor]], anchors: SupervisedAnchors, nc: int, norm: Tensor
) -> tuple[Tensor, Tensor]:
    """Return box and third loss () of a script's ``bbox_loss``; older ones take neither image size nor strides."""
    values = (
        anchors.outputs,
        anchors.boxes,
        anchors.points,
        anchors.target_boxes,
        anchors.assigned.scores(nc),
        norm,
        anchors.assigned.foreground,
        anchors.size[:2].flip(0),
        anchors.stride,
    )
    losses = bbox_loss(*values[: positional(bbox_loss)])
    try:
        box, third = losses
    except (TypeError, ValueError):
        raise ValueError(
            f"bbox_loss returned a {type(losses).__name__}: return two losses (), the box loss and the third one. One "
            "for each anchor comes from an override of box_loss()."
        ) from None
    return box, third


def positional(fn: Callable[..., object]) -> int | None:
    """Return how many arguments a function or a module's ``forward`` takes by position, None for any number."""
    kinds = [p.kind for p in inspect.signature(getattr(fn, "forward", fn)).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


class ScoredAssignment(Assignment):
    """An assignment whose soft targets (B, A, C) were given whole."""

    target_scores: Tensor

    def scores(self, nc: int) -> Tensor:
        """Return soft class targets (B, A, nc)."""
        return self.target_scores


def assign_padded(
    assigner: Callable[..., Any],
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    labels: Tensor,
    targets: Tensor,
    image: Tensor,
) -> Assignment:
    """Return the assignment of an assigner in the incumbent's form; arguments as of `TaskAlignedAssigner`.

    It is called with probabilities (B, A, C), corners (B, A, 4) in pixels, points (A, 2), classes (B, N, 1), corners
    (B, N, 4) and a mask (B, N, 1) of objects, and returns classes (B, A), corners (B, A, 4) in pixels, soft targets
    (B, A, C), which anchors answer for an object (B, A), and for which of its image (B, A). Padding waits for the
    device.
    """
    if not len(labels):
        return TaskAlignedAssigner()(scores, boxes, points, labels, targets, image)
    rows = torch.arange(len(labels), device=targets.device)[:, None]
    padded = pad_rows(torch.cat((labels[:, None], targets, rows), 1), image, len(scores))
    objects = padded[..., :1], padded[..., 1:5], padded[..., 1:5].sum(-1, keepdim=True) > 0
    found = assigner(scores.sigmoid(), boxes, points, *objects)
    foreground = found[3].bool()
    owner = torch.where(foreground, padded[..., 5].long().gather(1, found[4].long()), -1)
    assigned = ScoredAssignment(found[1] * foreground[..., None], found[0].long(), found[2].sum(-1) * foreground, owner)
    assigned.target_scores = found[2].to(scores)
    return assigned


def pad_rows(rows: Tensor, image: Tensor, images: int) -> Tensor:
    """Return rows (T, k) of the images (T,) that they belong to as (B, N, k), padded by zeros, in their order."""
    counts = torch.bincount(image, minlength=images)
    order = image.argsort(stable=True)
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image[order]]
    padded = rows.new_zeros(images, int(counts.max()), rows.shape[1])
    padded[image[order], slot] = rows[order]
    return padded


# Attributes that are called, and the methods that ask them: where one of these is replaced, they may be anything.
ASKED_IN = {
    "bce": ("class_loss", "weighted_class_loss", "branch_losses"),
    "assigner": ("assign", "supervised"),
    "bbox_loss": (),
}
WHOLE = ("mean_losses", "get_assigned_targets_and_loss", "loss", "__call__")  # replaced, they need not ask any


def refuse_uncallable(criterion: v8DetectionLoss, name: str, value: object) -> None:
    """Refuse what cannot be called under a name that the loss calls.

    Raises:
        ValueError: no method that would ask it is replaced.
    """
    cls = type(criterion)
    if all(getattr(cls, method) is getattr(v8DetectionLoss, method) for method in (*ASKED_IN[name], *WHOLE)):
        instead = f"; or override {ASKED_IN[name][0]}()" if ASKED_IN[name] else ""
        raise ValueError(f"{name}={value!r} cannot be called: {cls.__name__} asks it at every step{instead}.")


def refuse_topk(criterion: v8DetectionLoss, value: object) -> None:
    """Refuse another number of anchors for each object than the assigner chooses.

    Raises:
        ValueError: it is a whole number, and another.
    """
    chosen = getattr(vars(criterion).get("assigner"), "topk", None)  # a user's own may have none
    if isinstance(value, int) and chosen is not None and value != chosen:
        raise ValueError(
            f"topk={value} has no effect on this loss: its assigner chooses {chosen} anchors for each object. Set "
            "assigner.topk; if it is meant for something of your own, choose another name."
        )


def refuse_other(name: str, value: object, real: object) -> None:
    """Refuse a value that only the model decides.

    Raises:
        ValueError: it is another than the model's.
    """
    if value != real:
        raise ValueError(f"{name}={value!r} has no effect on this loss: the model's head makes it {real!r}.")


class E2ELoss(EndToEndCriterion):
    """The weighted sum of a one-to-many and a one-to-one loss.

    Args:
        model: an unwrapped model on its device.
        loss_fn: called as ``loss_fn(model, tal_topk=10)`` and ``loss_fn(model, tal_topk=7, tal_topk2=1)``.

    Attributes:
        one2many, one2one: the branches. o2m, o2o: their weights now; ``total`` is their sum.
        updates: epochs that lie behind. o2m_copy, final_o2m: weight of the first branch at the start and at the end.

    The trainer sends progress, which calls `update` once for each epoch that has passed: an override of `update` or
    `decay` counts, and a resumed run is where it would have been.
    """

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Any] = v8DetectionLoss) -> None:
        super().__init__(loss_fn(model, tal_topk=10), loss_fn(model, tal_topk=7, tal_topk2=1))
        network: Any = model
        self.hyp: Any = network.args
        self.epochs: int | None = None
        self.updates = 0
        self.passed = 0
        self.total = 1.0
        self.o2m_copy, self.final_o2m = START, END

    def set_progress(self, progress: Progress) -> None:
        """Update once for every epoch that has passed since the last call."""
        self.epochs = progress.epochs
        for _ in range(progress.epoch - self.passed):
            self.update()
        self.passed = max(progress.epoch, self.passed)

    def update(self) -> None:
        """Set the weights of the next epoch."""
        self.updates += 1
        self.o2m = self.decay(self.updates)
        self.o2o = max(self.total - self.o2m, 0.0)

    def decay(self, x: int) -> float:
        """Return the weight of the one-to-many branch after ``x`` epochs."""
        epochs = self.epochs if self.epochs is not None else self.hyp.epochs
        return max(1 - x / max(epochs - 1, 1), 0.0) * (self.o2m_copy - self.final_o2m) + self.final_o2m
