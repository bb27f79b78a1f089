"""What validation and prediction share: a model made ready for inference, and timing that does not stop a GPU."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from eyas.models import Detector

STAGES = ("preprocess", "inference", "loss", "postprocess")


@contextmanager
def inference_state(model: Detector, *, nms: bool | None, max_det: int, agnostic: bool) -> Iterator[None]:
    """Put a model in eval mode with the wanted head settings, and leave it as it was found.

    Every module's own mode is restored, since parts of a live model may be frozen in eval mode.

    Args:
        nms: None keeps the model's own choice of branch; True one-to-many with NMS, False one-to-one without.
        max_det: most detections per image that an end-to-end head returns, >= 1.
        agnostic: one class per anchor in an end-to-end head.

    Raises:
        ValueError: the model has no branch of the wanted kind.
    """
    modes = [(module, module.training) for module in model.modules()]
    head = model.head
    before = {"end2end": model.end2end, "max_det": head.max_det, "agnostic_nms": head.agnostic_nms}
    wanted = model.end2end if nms is None else not nms
    try:
        model.eval()
        model.set_head_attr(end2end=wanted, max_det=max_det, agnostic_nms=agnostic)
        yield
    finally:
        model.set_head_attr(**before)
        for module, training in modes:
            module.training = training


class StageClock:
    """Milliseconds of each stage. On a GPU it records events and reads them at the end, so that nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self.on_cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((stage, start, end))
        else:
            begin = time.perf_counter()
            yield
            self._seconds[stage] += time.perf_counter() - begin

    def per_image(self, images: int) -> dict[str, float]:
        """Milliseconds per image of every stage; waits for the device."""
        if self._events:
            torch.cuda.synchronize()
        for stage, start, end in self._events:
            self._seconds[stage] += start.elapsed_time(end) / 1000
        self._events.clear()
        return {stage: 1000 * self._seconds[stage] / max(images, 1) for stage in STAGES}
