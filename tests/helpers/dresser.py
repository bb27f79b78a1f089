"""Files as the incumbent writes them, whole networks as objects, made without it."""

from __future__ import annotations

import copy
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eyas.models import Detector

NAMES = {0: "cat", 1: "dog", 2: "owl"}


class Dresser:
    """Rebuilds a network from objects of made-up classes, whose names are those that its files refer to."""

    def __init__(self) -> None:
        self.modules: dict[str, types.ModuleType] = {}

    def cls(self, path: str) -> type:
        home, _, name = path.rpartition(".")
        for end in (i for i, letter in enumerate(f"{home}.") if letter == "."):  # the packages around it too
            self.modules.setdefault(home[:end], types.ModuleType(home[:end]))
        module = self.modules[home]
        if not hasattr(module, name):
            setattr(module, name, type(name, (), {"__module__": home, "__qualname__": name}))
        return getattr(module, name)

    def save(self, value: Any, path: Path) -> None:
        """Write a file; pickle looks classes up by name, so the made-up modules exist meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for home, module in self.modules.items():
                patch.setitem(sys.modules, home, module)
            torch.save(value, path)

    def dress(self, module: nn.Module, path: str | None = None) -> Any:
        theirs = self.cls(path or f"ultralytics.nn.modules.{type(module).__name__}")()
        theirs.__dict__ = {
            "training": False,
            "_parameters": OrderedDict(module._parameters),
            "_buffers": OrderedDict(module._buffers),
            "_non_persistent_buffers_set": set(module._non_persistent_buffers_set),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict((name, self.dress(child)) for name, child in module._modules.items() if child),
        }
        return theirs

    def network(self, model: Detector, **changes: Any) -> Any:
        theirs = self.dress(copy.deepcopy(model).half(), f"ultralytics.nn.tasks.{type(model).__name__}")
        facts = {"yaml": model.yaml, "names": NAMES, "nc": model.nc, "task": "detect", "stride": model.stride}
        theirs.__dict__.update(facts | {"args": {"imgsz": 96, "data": "pets.yaml", "lr0": 0.01}} | changes)
        return theirs
