"""What the main process changes in what it was sent comes back to whoever holds it; what cannot is named."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eyas.launch import handover

SEEN: list[Any] = []
TOTAL = 0


class Logger:
    """A user's object with a bit of everything."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.by_class: Counter[str] = Counter()
        self.groups: defaultdict[str, list[int]] = defaultdict(list)
        self.last, self.names = deque([0], maxlen=2), {"a"}
        self.count, self.note, self.gone = 0, "", "soon"
        self.held: Any = None


def travelled(trainer: Any) -> tuple[Any, Any]:
    """The trainer as another process has it, and what takes the changes back to this one."""
    content, sent = handover.pack(trainer, 2)
    there, arrived = handover.unpack(content)
    return there, lambda: sent.take_back(arrived.changes())


def test_attributes_and_containers_come_back_in_place() -> None:
    here = SimpleNamespace(log=Logger(), metrics={})
    rows, groups = here.log.rows, here.log.groups
    there, come_back = travelled(here)
    log = there.log
    log.rows += [(1, 2.5), {"map": np.float64(0.5), "box": [1, None, b"x"]}]
    log.by_class["cat"] += 2
    log.groups["x"].append(3)
    log.last.append(1), log.last.append(2)
    log.names.add("b")
    log.count, log.note, log.late = 7, "new", torch.tensor([1.0, 2.0], requires_grad=True) * 2
    log.array = np.arange(3)
    del log.gone
    there.metrics["fitness"] = 0.25
    assert here.log.rows == [], "the copy is another one"
    assert come_back() == []
    assert here.log.rows is rows and rows == [(1, 2.5), {"map": 0.5, "box": [1, None, b"x"]}]
    assert here.log.groups is groups and groups == {"x": [3]} and groups.default_factory is list
    assert here.log.by_class == {"cat": 2} and list(here.log.last) == [1, 2] and here.log.names == {"a", "b"}
    assert (here.log.count, here.log.note, here.metrics) == (7, "new", {"fitness": 0.25})
    assert here.log.late.tolist() == [2, 4] and not here.log.late.requires_grad and here.log.array.tolist() == [0, 1, 2]
    assert not hasattr(here.log, "gone")


def test_what_was_one_object_stays_one() -> None:
    shared: list[Any] = []
    here = SimpleNamespace(first=Logger(), second=Logger(), shared=shared)
    here.first.held = here.second.held = shared
    there, come_back = travelled(here)
    there.first.held.append(there.second)  # an object that was sent, inside a list that was sent
    there.second.rows = there.shared
    come_back()
    assert shared == [here.second] and here.first.held is shared and here.second.rows is shared


def test_variables_of_closures_and_globals_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SEEN", [])
    monkeypatch.setitem(globals(), "TOTAL", 0)
    seen, losses, count = SEEN, list[int](), 0

    def callback(trainer: Any) -> None:
        global TOTAL
        nonlocal count
        count += 1
        TOTAL += 2
        losses.append(count)
        SEEN.append(trainer)

    monkeypatch.setattr(callback, "__module__", "__main__")  # as if this file was the user's script
    there, come_back = travelled(SimpleNamespace(hooks={"on_train_end": [callback]}))
    for step in range(3):
        there.hooks["on_train_end"][0](step)
    assert (count, TOTAL, losses, seen) == (0, 0, [], [])
    assert come_back() == []
    assert (count, TOTAL, losses, SEEN) == (3, 6, [1, 2, 3], [0, 1, 2]) and SEEN is seen


def test_what_cannot_come_back_is_named_and_the_rest_comes() -> None:
    here = SimpleNamespace(log=Logger())
    there, come_back = travelled(here)
    there.log.rows.append(threading.Lock())
    there.log.count, there.log.model = 3, torch.nn.Linear(2, 2)
    there.log.large = torch.zeros(2**23)
    there.model = torch.nn.Linear(2, 2)  # the trainer's own
    assert sorted(come_back()) == ["Logger.large", "Logger.model", "Logger.rows"]
    assert here.log.count == 3 and here.log.rows == [] and not hasattr(here.log, "model")


def test_nothing_that_was_left_alone_is_touched() -> None:
    here = SimpleNamespace(log=Logger(), limits=[1, 2], device=torch.device("cpu"))
    there, come_back = travelled(here)
    here.limits.append(3)  # meanwhile, in a thread of the script
    assert there.limits == [1, 2] and come_back() == []
    assert here.limits == [1, 2, 3]
