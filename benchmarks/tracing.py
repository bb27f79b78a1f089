"""What a piece of work asks of the device, and what it keeps: calls of operators, kernels, tensors for backward."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

Event = dict[str, Any]  # of Chrome's trace format, which torch writes: "cat", "name", "ts" and "dur" in microseconds


def traced(work: Callable[[], object], device: torch.device) -> list[Event]:
    """Return what torch's profiler saw of ``work()``, on the device too."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        work()
        if cuda:
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]


def operators(events: Iterable[Event]) -> int:
    """Return the calls of torch's operators, those that operators make themselves included."""
    return sum(event.get("cat") == "cpu_op" and event["name"].startswith("aten::") for event in events)


def kernels(events: Iterable[Event]) -> list[tuple[float, float]]:
    """Return begin and end, in microseconds, of each kernel that ran on a GPU; copies are none."""
    return [(event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") == "kernel"]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how much of the axis some intervals cover, which may overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


def bytes_kept(work: Callable[[], object], besides: Collection[torch.Tensor]) -> int:
    """Return the bytes of memory that ``work()`` saves for its backward pass.

    Args:
        work: a forward pass whose result it keeps.
        besides: tensors that exist anyway, such as parameters: their memory does not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(kept.values())
