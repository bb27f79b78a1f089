"""Prediction on files, folders, globs, arrays and PIL images, one `Results` per image in the order given."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eyas.augment.letterbox import letterbox_into
from eyas.boxes import unletterbox
from eyas.data.decode import read_image, resize
from eyas.data.depth import White
from eyas.data.files import IMAGE_SUFFIXES, list_images
from eyas.data.index import check_classes
from eyas.evaluate.inference import StageClock, inference_state
from eyas.evaluate.results import Results
from eyas.log import LOGGER
from eyas.models.postprocess import postprocess
from eyas.nn.unwrap import unwrap_model

if TYPE_CHECKING:
    from eyas.models import Detector

Located = tuple[str, "str | NDArray[np.uint8]"]
"""Name of an image, and its file or its pixels."""


class Predictor:
    """Finds objects in images.

    Args:
        model: a detection model; it stays in the mode and on the branch it came with, but moves to `device`.
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

    Raises:
        ValueError: a batch without images, or a class that the model does not know.
    """

    def __init__(
        self,
        model: Detector,
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
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self.model: Detector = unwrap_model(model)  # type: ignore[assignment]
        check_classes(classes, self.model.names)
        self.stride = int(max(self.model.stride))
        self.imgsz = math.ceil(imgsz / self.stride) * self.stride
        self.conf = conf
        self.iou = iou
        self.max_det = max_det
        self.nms = nms
        self.agnostic_nms = agnostic_nms
        self.classes = classes
        self.device = torch.device(device) if device is not None else next(self.model.parameters()).device
        self.batch = batch
        self.amp_dtype = amp_dtype
        self.white = white

    def __call__(self, source: Any, stream: bool = False) -> list[Results] | Iterator[Results]:
        """Predict every image of `source`.

        Args:
            source: an image file, a folder (searched through, hidden files skipped), a glob such as `shots/*.png`, an
                array (h, w, 3) uint8 BGR or (h, w) grey, a PIL image, or a list of any of these.
            stream: give the results one by one as a generator, so that a long list needs no memory.

        Raises:
            FileNotFoundError: a file or folder does not exist, or a glob finds nothing.
            ValueError: a folder without images or with broken ones only, a file that is no image, an array of another
                shape or type. Of several files that a folder or a glob finds, broken ones are left out and named in the
                log; where each was named, and the results are read beside a list of them, the first one is an error.
        """
        found, broken = locate(source), Broken(skip=finds_files(source))
        results = self._stream(found, broken)
        return results if stream else list(results)

    def _stream(self, found: Sequence[Located], broken: Broken) -> Iterator[Results]:
        self.model.to(self.device)
        for first in range(0, len(found), self.batch):
            clock = StageClock(self.device)
            with clock("preprocess"):
                opened = [
                    (name, self._pixels_of(name, item, broken)) for name, item in found[first : first + self.batch]
                ]
                names = [name for name, image in opened if image is not None]
                images = [image for _, image in opened if image is not None]
                if not images:
                    continue
                inputs, ratio_pads = self._inputs(images)
            rows = self._detect(inputs, clock)
            speed = clock.per_image(len(images))
            speed.pop("loss")
            for name, image, ratio_pad, found_rows in zip(names, images, ratio_pads, rows, strict=True):
                boxes = unletterbox(found_rows[:, :4], ratio_pad, image.shape[:2])
                yield Results(image, name, self.model.names, torch.cat([boxes, found_rows[:, 4:]], dim=1), speed)

        broken.report(of=len(found))

    def _pixels_of(self, name: str, item: str | NDArray[np.uint8], broken: Broken) -> NDArray[np.uint8] | None:
        """(h, w, 3) uint8 BGR, or None for a file that is left out."""
        if not isinstance(item, str):
            return item
        try:
            return read_image(item, self.white)
        except (OSError, ValueError, cv2.error) as error:
            broken.add(name, error)
            return None

    @torch.no_grad()
    def _detect(self, inputs: torch.Tensor, clock: StageClock) -> list[torch.Tensor]:
        """Rows (n, 6) of each image in pixels of the input, on the CPU. No state is held between two batches of a
        stream: whoever reads it may train the model in between."""
        with inference_state(self.model, nms=self.nms, max_det=self.max_det, agnostic=self.agnostic_nms):
            with clock("inference"):
                images = inputs.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
                with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                    preds = self.model(images.float() / 255)[0].float()
                preds = self.model.in_pixels(preds, *images.shape[-2:])
            with clock("postprocess"):
                rows = postprocess(
                    preds,
                    end2end=self.model.end2end,
                    conf=self.conf,
                    iou=self.iou,
                    max_det=self.max_det,
                    agnostic=self.agnostic_nms,
                    multi_label=False,
                    classes=self.classes,
                )
                return [row.cpu() for row in rows]

    def _inputs(self, images: Sequence[NDArray[np.uint8]]) -> tuple[torch.Tensor, list[Any]]:
        """One (B, 3, H, W) uint8 RGB tensor, letterboxed or stretched; each image's ((gain_h, gain_w), (left, top))."""
        height, width = self._input_shape([image.shape[:2] for image in images])
        out = np.empty((len(images), height, width, 3), dtype=np.uint8)
        ratio_pads = []
        for image, target in zip(images, out, strict=True):
            h, w = image.shape[:2]
            if self.model.stretch:
                image = resize(image, (height, width))
            fit = letterbox_into(image, target, scale_up=True)
            ratio_pads.append(((fit.height / h, fit.width / w), (fit.left, fit.top)))
        return torch.from_numpy(out).permute(0, 3, 1, 2), ratio_pads

    def _input_shape(self, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """(H, W): the smallest multiple of the stride that holds images of one shape; a square for mixed ones."""
        if len(set(shapes)) > 1 or self.model.stretch:
            return self.imgsz, self.imgsz
        h, w = shapes[0]
        ratio = self.imgsz / max(h, w)
        height, width = (math.ceil(max(round(side * ratio), 1) / self.stride) * self.stride for side in (h, w))
        return height, width


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


def finds_files(source: Any) -> bool:
    """Whether a source, or one in a list, is a folder or a glob: the images in it were not named one by one."""
    if isinstance(source, list | tuple):
        return any(finds_files(item) for item in source)
    return isinstance(source, str | os.PathLike) and not os.path.isfile(source)


def locate(source: Any) -> list[Located]:
    """Name and file or pixels of every image of a source; `Predictor.__call__` says what it may be and what is raised.

    Files are looked for here and opened later, one batch at a time.
    """
    if isinstance(source, str | os.PathLike):
        return [(path, path) for path in _files(os.fspath(source))]
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("the list of images is empty: give at least one file, array or PIL image")
        found: list[Located] = []
        for item in source:
            if isinstance(item, str | os.PathLike):
                found += locate(item)
            else:
                found.append((f"image{len(found)}", _pixels(item, f"item {len(found)} of the list")))
        return found
    if isinstance(source, np.ndarray) and source.ndim == 4:
        raise ValueError(f"an array of shape {source.shape} holds several images: give list(array) instead")
    return [("image0", _pixels(source, "the array"))]


def _files(path: str) -> list[str]:
    """Image files that a path names, sorted."""
    if os.path.isdir(path):
        files = [file for file, _ in list_images([path])]
        if not files:
            raise ValueError(f"there is no image in the folder {path}: known are {', '.join(sorted(IMAGE_SUFFIXES))}")
        return files
    if os.path.isfile(path):
        return [path]
    if "://" in path:
        raise ValueError(f"{path} is an address: download the image first and give its file")
    if glob.has_magic(path):
        found = glob.glob(path, recursive=True)
        files = sorted(file for file in found if Path(file).suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(file))
        if not files:
            raise FileNotFoundError(f"the pattern {path} finds no image")
        return files
    raise FileNotFoundError(f"there is no file or folder {path} (looked in {os.getcwd()})")


def _pixels(image: Any, what: str) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR of an array or PIL image."""
    if not isinstance(image, np.ndarray):
        image = _from_pil(image, what)
    if image.dtype != np.uint8:
        raise ValueError(f"{what} has values of type {image.dtype}: give uint8 values 0..255")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        hint = ": transpose(1, 2, 0) puts channels last" if image.ndim == 3 and image.shape[0] in (1, 3) else ""
        raise ValueError(
            f"{what} has shape {image.shape}, an image has (height, width, 3), BGR, or (height, width){hint}"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image)


def _from_pil(image: Any, what: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise ValueError(f"{what} is a {kind}: give a file name, an array (height, width, 3) uint8 BGR or a PIL image")
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])
