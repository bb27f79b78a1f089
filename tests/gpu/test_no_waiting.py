"""Nothing in a training step may wait for the device; held here without one, by watching which operations run.

On a GPU an operation waits when the host needs its result: a tensor that becomes a number or decides a shape, and a
tensor made from host values. ``test_gpu.py`` asks CUDA itself; this test finds the same operations on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eyas.train import DetectionTrainer, RTDETRTrainer
from eyas.train.recorder import Recorder, Step

WAITING = {
    "aten::_local_scalar_dense": "a tensor became a number",
    "aten::equal": "a tensor became a bool",
    "aten::lift_fresh": "a tensor was made from host values",
    "aten::nonzero": "a shape depends on values",
    "aten::masked_select": "a shape depends on values",
    "aten::_unique2": "a shape depends on values",
    "aten::bincount": "a shape depends on values",
    "aten::repeat_interleave": "a shape depends on values",
}
# With deterministic=True, CUDA sends these through a sorted index_put that reads the largest index on the host.
WAITING_IF_DETERMINISTIC = ("aten::scatter.src", "aten::scatter_.src", "aten::scatter_add")


class Watch(TorchDispatchMode):
    """Collects the operations inside the block that would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        full, plain = func.name(), func.name().partition(".")[0].rstrip("_")
        if plain in WAITING:
            self.seen.append(f"{full}: {WAITING[plain]}")
        if full.startswith(WAITING_IF_DETERMINISTIC):
            self.seen.append(f"{full}: waits under deterministic algorithms")
        if plain in ("aten::index", "aten::index_put") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            self.seen.append(f"{full}: a mask as index")
        return func(*args, **(kwargs or {}))


class LaterRecorder(Recorder):
    """Hears whether a step was finite when the device gets there, as on a GPU: not within these tests."""

    def known_by_now(self, step: Step, finite: torch.Tensor) -> None:
        assert finite.shape == ()


@contextmanager
def started(
    model: Path, data: Path, tmp_path: Path, cls: type[DetectionTrainer] = DetectionTrainer, **options: Any
) -> Iterator[tuple[DetectionTrainer, list[Any]]]:
    """Yield a trainer in its first epoch, as its own loop would have it, and the batches of that epoch."""
    base = {"model": str(model), "data": str(data), "imgsz": 64, "batch": 16, "workers": 0, "device": "cpu"}
    quiet = {"plots": False, "verbose": False, "epochs": 2, "project": str(tmp_path / "runs")}
    trainer = cls(overrides=base | quiet | options)
    with trainer.prepared():
        trainer.send_progress()
        trainer.model.train()
        trainer.recorder = LaterRecorder(at_once=False)
        yield trainer, list(trainer.train_loader)


def without_objects(batch: Any) -> Any:
    """Return the batch as one of background images."""
    empty = {key: batch[key][:0] for key in ("cls", "bboxes", "batch_idx")}
    return batch | empty | {"max_objects": 0}


def test_the_watch_sees_what_waits() -> None:
    x = torch.arange(4.0)
    with Watch() as watch:
        float(x.sum())
        x[x > 1]
        torch.tensor([1.0])
        x.clone().scatter_(0, torch.zeros(4, dtype=torch.int64), x)
    assert len(watch.seen) == 4, watch.seen


@pytest.mark.parametrize("optimizer", ["MuSGD", "SGD", "AdamW"])
@pytest.mark.parametrize("objects", [True, False])
def test_a_training_step_asks_the_device_nothing(
    tiny_model: Path, digits_tiny: Path, tmp_path: Path, optimizer: str, objects: bool
) -> None:
    options = {"optimizer": optimizer, "multi_scale": 0.5}
    with started(tiny_model, digits_tiny, tmp_path, **options) as (trainer, batches):
        trainer.train_batch(batches[0])  # what is done once may wait
        batch = batches[1] if objects else without_objects(batches[1])
        with Watch() as watch:
            trainer.train_batch(batch)
    assert sorted(set(watch.seen)) == []


@pytest.mark.parametrize("objects", [True, False])
def test_a_step_of_rtdetr_waits_for_its_matching_alone(
    tiny_rtdetr: Path, digits_tiny: Path, tmp_path: Path, objects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = []
    to_host = torch.Tensor.cpu
    with started(tiny_rtdetr, digits_tiny, tmp_path, RTDETRTrainer) as (trainer, batches):
        trainer.train_batch(batches[0])
        with Watch() as watch, monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", lambda tensor: transfers.append(tensor.shape) or to_host(tensor))
            trainer.train_batch(batches[1] if objects else without_objects(batches[1]))
    # Deterministic algorithms are never on for this family on a GPU.
    assert sorted({seen for seen in watch.seen if "deterministic" not in seen}) == []
    assert len(transfers) == objects
