"""The one table of the incumbent's import paths, and the small things behind it that Eyas itself has no use for.

An entry is a text ``"module:attribute"``, looked up when a script first asks for the name, a `Fresh` that makes a new
value each time it is asked for, or the object itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from eyas import dist

ROOT = "ultralytics"


# -- what Eyas itself has no use for -----------------------------------------------------------------------------------
class ProcessNumber(int):
    """The number of this process among those that train together, -1 when there is only one.

    It travels as "the number of whoever unpickles it": a script's ``RANK`` is right in every process.
    """

    def __reduce__(self) -> tuple[Callable[[], ProcessNumber], tuple[()]]:
        return (rank, ())


class LocalProcessNumber(ProcessNumber):
    """The same, counted on this host."""

    def __reduce__(self) -> tuple[Callable[[], ProcessNumber], tuple[()]]:
        return (local_rank, ())


def rank() -> ProcessNumber:
    """Number of this process, -1 when it trains alone."""
    return ProcessNumber(dist.rank() if dist.world_size() > 1 else -1)


def local_rank() -> LocalProcessNumber:
    """Number of this process on its host, -1 when it trains alone."""
    return LocalProcessNumber(dist.local_rank() if dist.world_size() > 1 else -1)


COLORS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
STYLES = {
    **{name: f"\033[{30 + i}m" for i, name in enumerate(COLORS)},
    **{f"bright_{name}": f"\033[{90 + i}m" for i, name in enumerate(COLORS)},
    "bold": "\033[1m",
    "underline": "\033[4m",
    "end": "\033[0m",
}


def colorstr(*words: str) -> str:
    """Return the last word in the colours and styles that the others name; blue and bold when there are none.

    Raises:
        ValueError: no such colour or style.
    """
    *styles, text = words if len(words) > 1 else ("blue", "bold", *words)
    unknown = [style for style in styles if style not in STYLES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no colour or style: known are {', '.join(STYLES)}")
    return "".join(STYLES[style] for style in styles) + f"{text}{STYLES['end']}"


class IterableSimpleNamespace(SimpleNamespace):
    """Values by attribute; iterating gives pairs."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        return getattr(self, key, default)


def default_options() -> Any:
    """Return options of which none is typed: as a ``cfg`` they change nothing."""
    from eyas.config import TrainOptions

    return TrainOptions()


def default_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return default_options().to_dict()


class EarlyStopping:
    """Says when ``patience`` epochs have passed without a better fitness; 0 never stops. ``stopper(epoch, fitness)``.

    Eyas' own way is ``patience=`` or ``stop=``.
    """

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience
        self.best_fitness: float | None = None
        self.best_epoch = 0
        self.possible_stop = False

    def __call__(self, epoch: int, fitness: float | None) -> bool:
        """Return whether to stop after this 0-based epoch; an epoch without a fitness is not judged."""
        if fitness is None:
            return False
        if self.best_fitness is None or fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
        waited = epoch - self.best_epoch
        self.possible_stop = bool(self.patience) and waited >= self.patience - 1
        return bool(self.patience) and waited >= self.patience


# -- the table ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fresh:
    """An entry that is made when it is asked for."""

    make: Callable[[], object]


TABLE: Mapping[str, Mapping[str, object]] = {
    "ultralytics": {
        "YOLO": "eyas.compat.model:YOLO",
        "RTDETR": "eyas.compat.model:RTDETR",
    },
    "ultralytics.engine.trainer": {
        "BaseTrainer": "eyas.train:BaseTrainer",
    },
    "ultralytics.models": {
        "YOLO": "eyas.compat.model:YOLO",
        "RTDETR": "eyas.compat.model:RTDETR",
    },
    "ultralytics.models.yolo.detect": {
        "DetectionPredictor": "eyas.evaluate:Predictor",
        "DetectionTrainer": "eyas.compat.trainers:DetectionTrainer",
        "DetectionValidator": "eyas.compat.validator:DetectionValidator",
    },
    "ultralytics.models.rtdetr": {
        "RTDETR": "eyas.compat.model:RTDETR",
        "RTDETRPredictor": "eyas.evaluate:Predictor",  # one for both families: the model says how its outputs are read
        "RTDETRValidator": "eyas.compat.validator:DetectionValidator",
    },
    "ultralytics.models.rtdetr.train": {
        "RTDETRTrainer": "eyas.compat.trainers:RTDETRTrainer",
    },
    "ultralytics.nn.tasks": {
        "DetectionModel": "eyas.models:DetectionModel",
        "RTDETRDetectionModel": "eyas.models:RTDETRDetectionModel",
    },
    "ultralytics.utils": {
        "DEFAULT_CFG": Fresh(default_options),
        "DEFAULT_CFG_DICT": Fresh(default_dict),
        "IterableSimpleNamespace": IterableSimpleNamespace,
        "LOCAL_RANK": Fresh(local_rank),
        "LOGGER": "eyas.log:LOGGER",
        "RANK": Fresh(rank),
        "colorstr": colorstr,
    },
    "ultralytics.utils.loss": {
        "E2ELoss": "eyas.compat.losses:E2ELoss",
        "v8DetectionLoss": "eyas.compat.losses:v8DetectionLoss",
    },
    "ultralytics.utils.torch_utils": {
        "EarlyStopping": EarlyStopping,
        "ModelEMA": "eyas.optim:ModelEMA",
        "unwrap_model": "eyas.nn.unwrap:unwrap_model",
    },
}

MODULES = frozenset(path.rsplit(".", n)[0] for path in TABLE for n in range(path.count(".") + 1))
"""Every module that can be imported: those of the table, and the packages that they are in."""


def lookup(module: str, name: str) -> object:
    """Return what the table has for a name.

    Raises:
        KeyError: the table has no such name there.
    """
    entry = TABLE.get(module, {})[name]
    if isinstance(entry, Fresh):
        return entry.make()
    if not isinstance(entry, str):
        return entry
    home, attribute = entry.split(":")
    return getattr(import_module(home), attribute)
