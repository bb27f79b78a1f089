"""``ultralytics.utils.callbacks``: which functions hang in every run. None do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NoReturn

from eyas.log import LOGGER


class NoDefaults(tuple[Callable[..., object], ...]):
    """The default functions of an event: none, and none can be added, since runs do not share anything."""

    def append(self, fn: Callable[..., object]) -> NoReturn:
        """Say where a function is registered instead.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the default callbacks are the same for every run and cannot be changed; register the function by "
            "model.add_callback(event, fn), or on a trainer by trainer.add_callback(event, fn)."
        )


def default_callbacks() -> MappingProxyType[str, NoDefaults]:
    """Return the events of a run and the functions that hang there by default: none."""
    from eyas.callbacks.base import EVENTS

    return MappingProxyType(dict.fromkeys(EVENTS, NoDefaults()))


def get_default_callbacks() -> defaultdict[str, list[Callable[..., object]]]:
    """Return a mapping of one's own, events to lists of functions, for a trainer's ``_callbacks``."""
    from eyas.callbacks.base import EVENTS

    return defaultdict(list, {event: [] for event in EVENTS})


def add_integration_callbacks(instance: Any) -> None:
    """Attach the trackers that are installed: Eyas attaches those that are asked for, and says so."""
    LOGGER.info('Eyas attaches no trackers by itself; train(loggers=["wandb"]) does, see docs/results.md.')
