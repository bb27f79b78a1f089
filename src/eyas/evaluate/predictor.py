"""Prediction on images, videos, streams and more: one `Results` per picture, in the order they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas.data.depth import White
from eyas.data.index import check_classes
from eyas.evaluate.finder import Finder
from eyas.evaluate.inference import Network, StageClock, bare, home, inference_state, placed
from eyas.evaluate.results import ResultList, Results
from eyas.evaluate.sources import Item, Picture, Reading, check_listable, finds_files, open_source
from eyas.evaluate.tiling import Tiling
from eyas.log import LOGGER

if TYPE_CHECKING:
    from eyas.models import Detector

Step = Callable[[Iterator[Results]], Iterator[Results]]
"""What results pass through on their way out, such as a tracker."""


class Predictor:
    """Finds objects in images.

    Args:
        model: a detection model; it stays in the mode and on the branch it came with, but moves to `device`. Or
            another `Network`, such as an exported model.
        imgsz: length of the longer side of the network's input in pixels, rounded up to a multiple of the stride.
        conf: lowest score that is returned, in [0, 1).
        iou: NMS threshold of the one-to-many branch.
        max_det: most detections per image.
        nms: None uses the model's own branch; True one-to-many with NMS, False one-to-one without.
        agnostic_nms: suppression (or the choice of the best class per anchor) across classes.
        classes: only these class ids; None for all.
        device: where to run; None where the model is.
        batch: images per forward pass. Images of one shape are padded no more than the stride asks for; mixed shapes
            share a square.
        amp_dtype: autocast type, or None for full precision.
        white: what is white in images of more than 8 bits; None: each image's own values tell.
        tiling: cuts images that are larger than a tile; None takes every image whole.
        vid_stride: of videos, streams and screens only every so many frames.
        stream_buffer: of a stream, keep the latest frames in order instead of only the newest.

    Raises:
        ValueError: a batch without images, or a class that the model does not know.
    """

    def __init__(
        self,
        model: Detector | Network,
        *,
        imgsz: int = 640,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        nms: bool | None = None,
        agnostic_nms: bool = False,
        classes: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        batch: int = 1,
        amp_dtype: torch.dtype | None = None,
        white: White | None = None,
        tiling: Tiling | None = None,
        vid_stride: int = 1,
        stream_buffer: bool = False,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self.model = bare(model)
        check_classes(classes, self.model.names)
        self.find = Finder(
            self.model,
            imgsz=imgsz,
            conf=conf,
            iou=iou,
            max_det=max_det,
            agnostic=agnostic_nms,
            multi_label=False,
            classes=classes,
            amp_dtype=amp_dtype,
        )
        self.imgsz = self.find.imgsz
        self.max_det = max_det
        self.nms = nms
        self.agnostic_nms = agnostic_nms
        self.device = torch.device(device) if device is not None else home(self.model)
        self.batch = batch
        self.tiling = tiling
        self.reading = Reading(vid_stride, stream_buffer, white)

    def __call__(self, source: Any, stream: bool = False, *steps: Step) -> ResultList | Iterator[Results]:
        """Predict every picture of `source`.

        Args:
            source: what `eyas.evaluate.sources.open_source` takes: files, folders, videos, addresses, arrays ...
            stream: give the results one by one as a generator; no more than a batch of pictures is then in memory.
            steps: what the results pass through before they are returned.

        Raises:
            FileNotFoundError: a file or folder does not exist, or a glob finds nothing.
            ValueError: a folder without images or with broken ones only, a file that is no image, an array of another
                shape or type, or a source that never ends without `stream`. Of several files that a folder, a glob or
                a list finds, broken ones are left out and named in the log; where each was named, and the results are
                read beside a list of them, the first one is an error.
        """
        items, broken = open_source(source, self.reading), Broken(skip=finds_files(source))
        if not stream:
            check_listable(items)
        results = self._results(items, broken)
        for step in steps:
            results = step(results)
        return results if stream else ResultList(results)

    def _results(self, items: Sequence[Item], broken: Broken) -> Iterator[Results]:
        placed(self.model, self.device)
        pictures = _pictures(items, broken)
        while True:
            clock = StageClock(self.device)
            with clock("preprocess"):
                taken = list(islice(pictures, self.batch))
            if not taken:
                break
            rows = self._rows([picture.pixels for picture in taken], clock)
            speed = clock.per_image(len(taken))
            speed.pop("loss")
            for picture, found in zip(taken, rows, strict=True):
                yield Results(
                    picture.pixels, picture.path, self.model.names, found, speed, frame=picture.frame, fps=picture.fps
                )
        broken.report(of=len(items))

    @torch.no_grad()
    def _rows(self, images: Sequence[NDArray[np.uint8]], clock: StageClock) -> list[Tensor]:
        """Rows (n, 6) of each image. No state is held between two batches of a stream: whoever reads it may train the
        model in between."""

        def find(parts: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
            return self.find(parts, self.device, clock)

        with inference_state(self.model, nms=self.nms, max_det=self.max_det, agnostic=self.agnostic_nms):
            if self.tiling is None:
                return find(images)
            return self.tiling.find_all(
                images, find, batch=self.batch, max_det=self.max_det, agnostic=self.agnostic_nms
            )


def _pictures(items: Sequence[Item], broken: Broken) -> Iterator[Picture]:
    """Read item after item, picture after picture."""
    for item in items:
        try:
            yield from item.pictures()
        except (OSError, ValueError, cv2.error) as error:
            broken.add(item.name, error)


class Broken:
    """Files that could not be read.

    Args:
        skip: leave them out; else the first is an error.
    """

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self.reasons: list[str] = []

    def add(self, name: str, error: Exception) -> None:
        """Note a file.

        Raises:
            ValueError: it may not be left out.
        """
        reason = str(error) if name in str(error) else f"{name}: {error}"
        if not self.skip:
            raise ValueError(reason) from error
        self.reasons.append(reason)
        LOGGER.warning("left out: %s", reason)

    def report(self, *, of: int) -> None:
        """Say how many were left out.

        Raises:
            ValueError: all of them were.
        """
        if len(self.reasons) == of:
            raise ValueError(f"none of the {of} files can be read, for example {self.reasons[0]}")
        if self.reasons:
            LOGGER.warning("%d of %d files were left out, because they cannot be read", len(self.reasons), of)
