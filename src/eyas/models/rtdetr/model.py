"""`RTDETRDetectionModel`: RT-DETR built from a table of numbered layers (spec core A.7, C.3, C.4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from eyas.models.detection import DetectionModel
from eyas.models.detector import Detector
from eyas.models.rtdetr.base import STRIDE, SetDetector
from eyas.models.rtdetr.decoder import RTDETRDecoder


class RTDETRDetectionModel(SetDetector, DetectionModel):
    """A set detector built from a table of numbered layers, whose last is `RTDETRDecoder`.

    The class loss has the constants that this layout is known with, 0.25 and 1.5; its weight carries no gradient, as
    in the paper (spec core I.23).
    """

    head_class: ClassVar[type[nn.Module]] = RTDETRDecoder
    varifocal: ClassVar[tuple[float, float]] = (0.25, 1.5)

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "rtdetr-l.yaml",
        ch: int = 3,
        nc: int | None = None,
        names: Mapping[int, str] | list[str] | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(cfg, ch, nc, names, verbose)

    @property
    def head(self) -> RTDETRDecoder:  # type: ignore[override]
        """The decoder, the last layer."""
        return self.model[-1]  # type: ignore[return-value]

    def predict(self, x: Tensor, batch: Mapping[str, Any] | None = None) -> Any:
        """Return predictions for images (B, ch, H, W), see `forward`; ``batch`` has objects for denoising queries."""
        return self.head(self._head_inputs(x), batch)

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state as it is: no layer depends on the number of classes in more than its rows."""
        return state

    def fuse(self) -> Self:
        """Prepare for inference: fold normalisations into convolutions. Returns itself."""
        return Detector.fuse(self)

    def _start_head(self) -> None:
        self.stride = torch.tensor([STRIDE], device="cpu")
