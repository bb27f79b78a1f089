"""Learning from a teacher beside the labels.

What: a frozen network looks at the augmented images too, and the detector's deepest map is drawn, through a linear map
that only training has, towards the teacher's: 1 - cosine. A teacher that is a larger detector of the same family also
shows its answers. When: every batch. Default: no teacher.
Hazards: a weight that is too large makes the backbone learn to see and not to find; the gauge keeps the share of the
gradient that falls to the taught layer within a band, once an epoch, alike on every process. A teacher costs a forward
pass of its own, and whatever its licence asks for goes with what it taught.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.callbacks.base import Decision, StockCallback
from eyas.config import TrainOptions
from eyas.losses.distill import cosine_distance, dense_distillation
from eyas.models import DetectionModel, Detector
from eyas.models.lineage import joined
from eyas.models.teachers import DetectorTeacher, TeacherNet, channels_of, open_teacher
from eyas.nn.unwrap import unwrap_model
from eyas.run.protocol import Run

# Millions of parameters up to which a row holds -> weight at the start, weight to fall back to, band of the taught
# layer's share of the gradient in per cent: centre and half width (RT-DETRv4's S, M, L and X; spec detr-more 7).
SIZES: tuple[tuple[float, float, float, float, float], ...] = (
    (15.0, 5.0, 20.0, 11.0, 1.0),
    (25.0, 5.0, 15.0, 3.5, 0.25),
    (45.0, 15.0, 15.0, 2.0, 0.1),
    (float("inf"), 20.0, 20.0, 2.0, 0.25),
)
LEAST, MOST = 0.1, 10.0  # factor on the weight in one epoch
NOTHING = 1e-3  # per cent: a layer that learns as little as that is not taught at all


def adapted_weight(weight: float, share: float, band: tuple[float, float], fallback: float) -> float:
    """Return the weight of the next epoch.

    Args:
        weight: of this epoch.
        share: of the gradient that fell to the taught layer, in per cent.
        band: centre and half width, in per cent.
        fallback: weight where nothing was measured.
    """
    low, high = band[0] - band[1], band[0] + band[1]
    if share < NOTHING:
        return fallback
    if low <= share <= high:
        return weight
    p, edge = share / 100, (low if share < low else high) / 100
    return weight * min(max(edge * (1 - p) / (p * (1 - edge)), LEAST), MOST)


class Teacher(StockCallback):
    """Draw the detector's deepest map towards that of a frozen network.

    Args:
        source: file of a vision transformer (DINO, DINOv2, DINOv3, MAE, CLIP), or of a detector of the same family;
            or a ready `TeacherNet`.
        gain: factor on the weight that suits the size of the detector.
        accepted: names of licences that are agreed to.
    """

    decides = Decision.TEACHER
    options = ("teacher", "teacher_gain")

    def __init__(self, source: str | Path | TeacherNet, gain: float = 1.0, accepted: Collection[str] = ()) -> None:
        if not 0 < gain < float("inf"):
            raise ValueError(f"teacher_gain must be above 0, got {gain}.")
        self.source, self.gain, self.accepted = source, gain, tuple(accepted)
        self.teacher: TeacherNet | None = None
        self.projector: nn.Linear | None = None
        self.weight = self.fallback = 0.0
        self.band = (0.0, 0.0)
        self.taught: frozenset[int] = frozenset()  # ids of the parameters of its deepest map
        self.student: dict[str, Any] = {}  # what the detector made of this batch
        self.steps = 0
        self._hooks: list[Any] = []
        self._sums: Tensor | None = None  # (4,): steps, shares, batches, distances

    @classmethod
    def from_options(cls, options: TrainOptions) -> Self | None:
        """Return the component that the options ask for, None without a teacher."""
        if options.teacher is None:
            return None
        return cls(options.teacher, options.teacher_gain, options.accept_licences or ())

    def settings(self) -> dict[str, Any]:
        return {"source": str(self.source) if isinstance(self.source, str | Path) else "given", "gain": self.gain}

    # -- set-up --------------------------------------------------------------------------------------------------------
    def adjust_model(self, trainer: Run, model: nn.Module) -> nn.Module:
        """Open the teacher, and note in the detector what it descends from now.

        Raises:
            ValueError: the detector does not say what of it can be taught, or is of another family than the teacher.
        """
        network = unwrap_model(model)
        if not isinstance(network, Detector):
            raise ValueError(f"teacher: {type(network).__name__} is no eyas.models.Detector, and has no map to teach")
        self.teacher = self.source if isinstance(self.source, TeacherNet) else open_teacher(self.source, self.accepted)
        self.check_family(network)
        self.teacher.to(next(network.parameters()).device)
        network.ancestors = joined(network.ancestors, self.teacher.ancestors)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        _, start, fallback, *band = next(row for row in SIZES if millions <= row[0])
        self.weight, self.fallback, self.band = start * self.gain, fallback * self.gain, (band[0], band[1])
        self.projector = nn.Linear(channels_of(network), self.teacher.channels).to(next(network.parameters()).device)
        self.projector.load_state_dict(dist.agree({k: v.cpu() for k, v in self.projector.state_dict().items()}))
        return model

    def check_family(self, network: Detector) -> None:
        """Refuse a detector as a teacher where answers of the two cannot be compared.

        Raises:
            ValueError: says why.
        """
        if not isinstance(self.teacher, DetectorTeacher):
            return
        other = self.teacher.detector
        if not (isinstance(network, DetectionModel) and isinstance(other, DetectionModel)):
            raise ValueError(
                f"teacher: a {type(other).__name__} cannot show its answers to a {type(network).__name__}: detectors "
                "teach others of the YOLO26 family only. A vision transformer teaches any."
            )
        if list(other.names.values()) != list(network.names.values()):
            raise ValueError(f"teacher: it knows other classes ({other.nc}) than are to be learnt ({network.nc})")

    def adjust_param_groups(self, trainer: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let the projector learn at the base rate."""
        assert self.projector is not None
        own = {"lr": trainer.plan.lr0, "weight_decay": trainer.plan.weight_decay, "param_group": "weight"}
        return [*groups, {"params": list(self.projector.parameters()), "name": "teacher.projector", **own}]

    def on_pretrain_routine_end(self, trainer: Run) -> None:
        """Look at the detector from now on; its average is a copy from before, which nobody looks at."""
        network: Any = unwrap_model(trainer.model)
        self.taught = frozenset(id(p) for p in network.deepest().parameters())
        self._watch(network.deepest(), "map")
        if isinstance(self.teacher, DetectorTeacher):
            self._watch(network.head, "answers")

    def _watch(self, module: nn.Module, what: str) -> None:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if module.training:
                self.student[what] = output

        self._hooks.append(module.register_forward_hook(note))

    # -- the loop ------------------------------------------------------------------------------------------------------
    def adjust_loss(self, trainer: Run, loss: Tensor) -> Tensor:
        """Add the distance of the two maps, and of the answers."""
        assert self.teacher is not None
        assert self.projector is not None
        own, images = self.student["map"], trainer.batch["img"]
        shown = self.teacher.features(images, *own.shape[-2:])
        projected = self.projector(own.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        distance = cosine_distance(projected, shown)
        self._count(2, distance.detach())
        self.steps += 1
        added = self.weight * distance
        if isinstance(self.teacher, DetectorTeacher):
            pairs = zip(branches(self.student["answers"]), branches(self.teacher.answers), strict=False)
            added = added + self.gain * sum(dense_distillation(a, b) for a, b in pairs)
        if isinstance(unwrap_model(trainer.model), DetectionModel):
            added = added * len(images)  # as the loss of the labels, which is one of all images
        self.student.clear()
        return loss + added

    def adjust_gradients(self, trainer: Run, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Join the projector's gradients of all processes, and read the gauge."""
        assert self.projector is not None
        for p in self.projector.parameters():
            if p.grad is not None:
                p.grad.copy_(dist.mean_over_ranks(p.grad))
        sizes = [(id(p) in self.taught, p.grad.detach().abs().sum()) for p in parameters if p.grad is not None]
        total = torch.stack([size for _, size in sizes]).sum()
        mine = [size for is_taught, size in sizes if is_taught]
        share = torch.stack(mine).sum() / total.clamp(min=1e-12) if mine else torch.zeros_like(total)
        self._count(0, 100 * share.nan_to_num(0.0, 0.0, 0.0))
        return parameters

    def _count(self, where: int, value: Tensor) -> None:
        """Add one value () and how many there are, from ``where`` on; nothing waits for the device."""
        if self._sums is None:
            self._sums = torch.zeros(4, device=value.device)
        self._sums[where] += 1
        self._sums[where + 1] += value.float()

    def on_train_epoch_end(self, trainer: Run) -> None:
        """Set the weight of the next epoch by what all processes have measured in this one."""
        if self._sums is None:
            return
        sums = zip(*dist.gather_all(self._sums.tolist()), strict=True)
        steps, shares, batches, distances = (sum(part) for part in sums)
        share, distance = shares / max(steps, 1), distances / max(batches, 1)
        trainer.epoch_log |= {"teacher/weight": self.weight, "teacher/share": share, "teacher/distance": distance}
        closing = trainer.closing_epochs() if trainer.closing_augmentation() else 0
        if not isinstance(self.teacher, DetectorTeacher):
            late = trainer.epoch + 1 >= trainer.epochs - closing
            self.weight = self.fallback if late else adapted_weight(self.weight, share, self.band, self.fallback)
        self._sums = None

    def teardown(self, trainer: Run) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    # -- what came of it -----------------------------------------------------------------------------------------------
    def describe(self, trainer: Run) -> dict[str, object]:
        if self.teacher is None:
            return {}
        kind, channels = type(self.teacher).__name__, self.teacher.channels
        return {"teacher": f"{kind} of {channels} channels, weight {self.weight:g}, {self.band[0]:g} % aimed at"}

    def witness(self, trainer: Run) -> dict[str, object]:
        if not self.steps:
            return {}
        return {"teacher": f"looked at in {self.steps} steps", "teacher_gain": self.gain}

    def state_dict(self) -> dict[str, Any]:
        if self.projector is None:
            return {}
        return {
            "projector": dict(self.projector.state_dict()),
            "weight": self.weight,
            "steps": self.steps,
            "sums": self._sums,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self.projector is not None
        self.projector.load_state_dict(state["projector"])
        self.weight, self.steps, self._sums = state["weight"], state["steps"], state["sums"]
        if self._sums is not None:
            self._sums = self._sums.to(self.projector.weight.device)


def branches(answers: Any) -> list[dict[str, Tensor]]:
    """Return the raw predictions of each branch of a head, the one without NMS last."""
    return [answers[name] for name in ("one2many", "one2one") if name in answers] or [answers]
