"""What a recipe is: data that fills whatever the user left unset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptimizerChoice:
    """What ``optimizer=auto`` picks."""

    name: str
    lr0: float
    momentum: float
    warmup_bias_lr: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Numbers a model family trains well with; every one gives way to a value the user typed.

    Args:
        short: optimizer for runs of at most ``long_after`` updates.
        long: optimizer for longer runs.
        long_after: updates above which a run is long.
        fine_tune: factor on the rate when training starts from given weights.
        batch: images per step on an accelerator.
        cpu_batch: images per step on a CPU.
        epochs: length of a run on an accelerator.
        cpu_megapixels: training work on a CPU, images x height x width / 1e6 over the whole run; the number of epochs
            follows from it.
        min_epochs: the work budget never shortens a run below this.
        warmup_epochs: longest warm-up.
        warmup_share: the warm-up takes at most this share of the run.
        nbs: nominal batch, towards which gradients of smaller batches are accumulated.
        min_updates: accumulation towards ``nbs`` starts only where more updates than this remain.
        close_mosaic: last epochs without mosaic and mixing, at most.
        close_share: at most this share of the run.
        ema_tau: slowest ramp of the weight average, in updates.
        ema_share: the ramp takes at most this share of the run.
        sgd_lr0: rate of SGD and its kin where one of them was asked for by name.
        options: defaults of this family that differ from the global ones.
    """

    short: OptimizerChoice
    long: OptimizerChoice
    long_after: int = 10_000
    fine_tune: float = 0.25
    batch: int = 16
    cpu_batch: int = 8
    epochs: int = 100
    cpu_megapixels: float = 1100.0
    min_epochs: int = 10
    warmup_epochs: float = 3.0
    warmup_share: float = 0.05
    nbs: int = 64
    min_updates: int = 4000
    close_mosaic: int = 10
    close_share: float = 0.25
    ema_tau: float = 2000.0
    ema_share: float = 0.2
    sgd_lr0: float = 0.01
    options: Mapping[str, object] = field(default_factory=dict)
