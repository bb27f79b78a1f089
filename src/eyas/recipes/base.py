"""What a recipe is: data that fills whatever the user left unset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

GREATEST_FACTOR = 4.0  # on the rate, for large batches: 16 times the images
Fitted = dict[str, tuple[object, str]]  # option -> value, and why


@dataclass(frozen=True)
class Situation:
    """What a run has to work with; recipes are functions of it.

    Attributes:
        epochs: length of the run.
        steps: batches in the whole run.
        images: training images.
        names: of the classes.
        objects: labelled objects per image.
        from_scratch: whether the weights are random.
    """

    epochs: int
    steps: int
    images: int
    names: tuple[str, ...]
    objects: float
    from_scratch: bool = True


def as_typed(situation: Situation) -> Fitted:
    """Fit nothing: options are as typed, or at their defaults."""
    return {}


@dataclass(frozen=True)
class OptimizerChoice:
    """What ``optimizer=auto`` picks.

    Attributes:
        name: class name.
        lr0: base rate.
        momentum: momentum, or the first beta.
        warmup_bias_lr: rate of biases at the first step.
        images: images per step up to which ``lr0`` is meant: beyond, the rate grows with their root, as the noise of a
            gradient falls with it; None for a rate that holds for any.
        parameters: millions that a network of random weights has up to which ``lr0`` is meant: the rate of larger ones
            falls with the cube root of their size; None for a rate that holds for any.
    """

    name: str
    lr0: float
    momentum: float
    warmup_bias_lr: float = 0.0
    images: int | None = None
    parameters: float | None = None

    def rate(self, images: int, parameters: float | None = None) -> tuple[float, str]:
        """Return the rate for steps over so many images, of a random network of so many million parameters, and why."""
        rate, why = self.lr0, f"{self.lr0:g} for {self.name}"
        if self.images is not None:
            factor = min(max(images / self.images, 1.0) ** 0.5, GREATEST_FACTOR)
            rate, why = rate * factor, f"{why}, x {factor:.3g} for {images} images per step"
        if self.parameters is not None and parameters is not None:
            factor = min(self.parameters / parameters, 1.0) ** (1 / 3)
            rate, why = rate * factor, f"{why}, x {factor:.3g} for {parameters:.3g} million parameters"
        return rate, why


@dataclass(frozen=True)
class Recipe:
    """Numbers a model family trains well with; every one gives way to a value the user typed.

    Args:
        short: optimizer for runs of at most ``long_after`` updates.
        long: optimizer for longer runs.
        long_after: updates above which a run is long.
        fine_tune: factor on the rate when training starts from given weights that know all classes.
        new_classes: the same where they know none of them.
        batch: images per step on an accelerator.
        cpu_batch: images per step on a CPU.
        epochs: length of a run on an accelerator.
        cpu_megapixels: training work on a CPU, images x height x width / 1e6 over the whole run; the number of epochs
            follows from it,
        cpu_steps: or from so many steps, where those are less work.
        min_epochs: the work budget never shortens a run below this.
        warmup_epochs: longest warm-up.
        warmup_share: the warm-up takes at most this share of the run.
        nbs: nominal batch, towards which gradients of smaller batches are accumulated.
        min_updates: accumulation towards ``nbs`` starts only where more updates than this remain.
        close_mosaic: last epochs without mosaic and mixing, at most.
        close_share: at most this share of the run.
        ema_share: mean age of the averaged weights, as a share of the steps so far.
        ema_decay: final decay of an exponential average, where one was asked for.
        ema_tau: slowest ramp of an exponential average, in updates.
        ema_ramp: that ramp takes at most this share of the run.
        sgd_lr0: rate of SGD and its kin where one of them was asked for by name.
        fit: what fits options of augmentation and loss to the data and the length of the run.
        options: defaults of this family that differ from the global ones.
    """

    short: OptimizerChoice
    long: OptimizerChoice
    long_after: int = 10_000
    fine_tune: float = 0.25
    new_classes: float = 1.0
    batch: int = 16
    cpu_batch: int = 8
    epochs: int = 100
    cpu_megapixels: float = 1100.0
    cpu_steps: int = 2500
    min_epochs: int = 10
    warmup_epochs: float = 3.0
    warmup_share: float = 0.05
    nbs: int = 64
    min_updates: int = 4000
    close_mosaic: int = 10
    close_share: float = 0.25
    ema_share: float = 0.05
    ema_decay: float = 0.9999
    ema_tau: float = 2000.0
    ema_ramp: float = 0.2
    sgd_lr0: float = 0.01
    fit: Callable[[Situation], Fitted] = as_typed
    options: Mapping[str, object] = field(default_factory=dict)
