"""What validation and prediction share: a network made ready for inference, and timing that does not stop a GPU.

Legend: B images, H and W their size in pixels.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eyas.nn.unwrap import unwrap_model

STAGES = ("preprocess", "inference", "loss", "postprocess")


class Network(Protocol):
    """What can be measured besides a ``Detector``, such as an exported model: images in, boxes out.

    Attributes:
        nc, names: classes.
        stride: pixels per cell of each level; sides of images are multiples of the largest.
        stretch: whether images are stretched to the square input; otherwise they keep their aspect.
        side: of the square that every image must be, in pixels; None where any multiples of the stride will do.
        end2end: whether results need no NMS.
        device: where it takes images.
    """

    @property
    def nc(self) -> int: ...
    @property
    def names(self) -> dict[int, str]: ...
    @property
    def stride(self) -> Tensor: ...
    @property
    def stretch(self) -> bool: ...
    @property
    def side(self) -> int | None: ...
    @property
    def end2end(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor, /) -> tuple[Tensor, object]:
        """Return detections of images (B, 3, H, W) with values in [0, 1], as `postprocess` takes them, and anything."""

    def in_pixels(self, found: Tensor, height: int, width: int) -> Tensor:
        """Return its detections in pixels of an input of ``height`` x ``width``."""

    def ready(self, *, nms: bool | None, max_det: int, agnostic: bool) -> AbstractContextManager[object]:
        """Answer with these settings inside the block; they are those of `inference_state`.

        Raises:
            ValueError: it was made with others.
        """


def placed(network: nn.Module | Network, device: torch.device | None) -> torch.device:
    """Move a module to a device, None for where it is; return where the network takes images.

    Raises:
        ValueError: it cannot be moved there.
    """
    if isinstance(network, nn.Module):
        device = device or home(network)
        network.to(device)
        return device
    if device is not None and device.type != network.device.type:
        raise ValueError(f"this {type(network).__name__} was made for {network.device} and does not run on {device}")
    return network.device


def bare(network: Any) -> Any:
    """Return a `Detector` without the wrappers around it, or another `Network` as it is."""
    return unwrap_model(network) if isinstance(network, nn.Module) else network


def home(network: nn.Module | Network) -> torch.device:
    """Return where a network takes images now."""
    return next(network.parameters()).device if isinstance(network, nn.Module) else network.device


def inference_state(
    network: nn.Module | Network, *, nms: bool | None, max_det: int, agnostic: bool
) -> AbstractContextManager[object]:
    """Have a network answer with the wanted settings inside the block, and leave it as it was found.

    Args:
        network: a `Detector`, or what makes itself ready.
        nms: None keeps the network's own choice of branch; True one-to-many with NMS, False one-to-one without.
        max_det: most detections per image that an end-to-end head returns, >= 1.
        agnostic: one class per anchor in an end-to-end head.

    Raises:
        ValueError: the network has no branch of the wanted kind.
    """
    if isinstance(network, nn.Module):
        return module_ready(network, nms=nms, max_det=max_det, agnostic=agnostic)
    return network.ready(nms=nms, max_det=max_det, agnostic=agnostic)


@contextmanager
def module_ready(model: Any, *, nms: bool | None, max_det: int, agnostic: bool) -> Iterator[None]:
    """Put a model in eval mode with the wanted head settings.

    Every module's own mode is restored, since parts of a live model may be frozen in eval mode.
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
