"""What the options mean for one run: a record, derived once, printed, and saved as ``plan.json``."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from eyas.files import write_atomic
from eyas.tables import html_table

NUMBERS = (int, float)
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": NUMBERS,
    "float | None": (*NUMBERS, type(None)),
    "str": (str,),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "tuple[Choice, ...]": (tuple,),
}
"""What the values of a field with this annotation are."""
DIVISORS = ("batch", "batches", "accumulate", "nbs", "passes")  # by which something is divided


@dataclass(frozen=True)
class Choice:
    """One derived value and who decided it."""

    name: str
    value: object
    by: str


@dataclass(frozen=True, repr=False)
class Plan:
    """Everything the loop needs that is not an option as typed.

    Attributes:
        epochs: length of the run.
        images: training images per epoch.
        batch: images of a batch, over all processes.
        batches: batches per epoch.
        accumulate: batches per optimizer step.
        passes: parts in which a batch is passed through the network; more than one where memory was short.
        nbs: images of a step for which the option ``weight_decay`` is meant.
        updates: optimizer steps in the whole run.
        warmup_batches: forward passes until the rate has reached its schedule.
        optimizer: class name.
        lr0: base rate, before schedule and group factors.
        lrf: share of ``lr0`` left at the end.
        momentum: momentum, or the first beta.
        weight_decay: decay per step, scaled to the real batch.
        warmup_bias_lr: rate of biases at the first step.
        schedule: name of the learning-rate curve.
        ema_decay: final decay of an exponential weight average.
        ema_tau: updates over which that decay ramps up.
        ema_share: mean age of the averaged weights as a share of the steps so far; None for an exponential average.
        close_mosaic: last epochs without mosaic and mixing.
        classes_kept: share of the classes that the given weights know.
        compile: whether torch.compile takes the network.
        fitted: options of augmentation and loss that were fitted to data and length, by name.
        from_scratch: whether the run began with random weights.
        decisions: all of it with reasons, for people.
    """

    epochs: int
    images: int
    batch: int
    batches: int
    accumulate: int
    updates: int
    warmup_batches: int
    optimizer: str
    lr0: float
    lrf: float
    momentum: float
    weight_decay: float
    warmup_bias_lr: float
    schedule: str
    ema_decay: float
    ema_tau: float
    close_mosaic: int
    ema_share: float | None = None
    from_scratch: bool = True
    classes_kept: float = 1.0
    nbs: int = 64
    compile: bool = False
    passes: int = 1
    fitted: dict[str, Any] = field(default_factory=dict)
    decisions: tuple[Choice, ...] = ()

    def __repr__(self) -> str:
        """For example ``Plan(12 epochs, 144 batches of 16, AdamW, lr0 0.004)``."""
        return f"Plan({self.epochs} epochs, {self.batches} batches of {self.batch}, {self.optimizer}, lr0 {self.lr0:g})"

    def _repr_html_(self) -> str:
        return html_table(("plan", "value", "why"), self.rows(), repr(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Return the plan that ``to_dict`` described.

        Raises:
            ValueError: these are no values of a plan; names the first that is none.
        """
        try:
            plan = cls(**{**values, "decisions": tuple(Choice(**d) for d in values["decisions"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the plan of this run cannot be read: {error}") from error
        for known in fields(cls):
            value = getattr(plan, known.name)
            least = 1 if known.name in DIVISORS else 0
            if type(value) not in TYPES[str(known.type)] or (type(value) in NUMBERS and not least <= value < math.inf):
                raise ValueError(f"the plan of this run has {reprlib.repr(value)} for {known.name}, which no plan has")
        return plan

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value and reason of every decision, as text."""
        return [(d.name, f"{d.value:g}" if isinstance(d.value, float) else str(d.value), d.by) for d in self.decisions]

    def write(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_atomic(path, json.dumps(self.to_dict(), indent=2).encode())
