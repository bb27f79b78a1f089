"""Video files, frame by frame, with OpenCV."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from eyas.evaluate.sources.base import Item, Picture
from eyas.log import LOGGER

VIDEO_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm",
    ".wmv",
))  # fmt: skip
MISSES = 50  # frames in a row that cannot be read: there is nothing more to come
NAMED = 8  # frames that a message lists
FPS = 30.0  # of files and cameras that do not tell


class Video(Item):
    """A video file.

    Args:
        file: where it lies.
        stride: only every so many frames, beginning with the first.
        name: what its pictures are called; None: the file.
    """

    def __init__(self, file: str, stride: int = 1, name: str | None = None) -> None:
        self.file, self.stride, self.name = file, stride, name or file

    def pictures(self) -> Iterator[Picture]:
        """Read its frames; those that cannot be read are left out, counted and named.

        Raises:
            ValueError: it cannot be opened, or has no frame that can be read.
        """
        capture = self._open()
        try:
            announced, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), fps_of(capture) / self.stride
            last, broken = 0, []
            for number, image in _frames(capture, announced, self.stride):
                if image is None:
                    broken.append(number)
                else:
                    last = number
                    yield Picture(self.name, image, frame=number, fps=fps)
        finally:
            capture.release()
        self._report(broken, last, announced)

    def memory(self) -> int:
        """Bytes of all frames that are read."""
        capture = cv2.VideoCapture(self.file)
        sides = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        frames, width, height = (max(int(capture.get(side)), 0) for side in sides)
        capture.release()
        return frames // self.stride * width * height * 3

    def _open(self) -> cv2.VideoCapture:
        with open(self.file, "rb"):  # OpenCV does not say that a file is not there, or not for us to read
            pass
        capture = cv2.VideoCapture(self.file)
        if not capture.isOpened():
            capture.release()
            raise ValueError(f"{self.name}: the video cannot be opened; it is damaged, or of a kind that OpenCV lacks")
        return capture

    def _report(self, broken: list[int], last: int, announced: int) -> None:
        """Say what was not read, once all was."""
        if not last:
            raise ValueError(f"{self.name}: the video has no frame that can be read")
        inside = [number for number in broken if number < last]
        if inside:
            listed = ", ".join(map(str, inside[:NAMED])) + (", ..." if len(inside) > NAMED else "")
            LOGGER.warning(
                "%s: %d of %d frames were left out, because they cannot be read: %s",
                self.name, len(inside), last, listed,
            )  # fmt: skip
        if announced - last > self.stride:
            LOGGER.warning("%s: the video ends at frame %d; its header announces %d", self.name, last, announced)


def _frames(capture: cv2.VideoCapture, announced: int, stride: int) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
    """Give (number from 1, (h, w, 3) uint8 BGR) of every `stride`-th frame; None for any that cannot be read.

    A damaged frame looks like the end of the file, so the end is believed only where it was announced.
    """
    number = misses = 0
    while True:
        grabbed = capture.grab()
        misses = 0 if grabbed else misses + 1
        if misses > MISSES or (not grabbed and number >= announced):
            return
        number += 1
        if not grabbed:
            yield number, None
        elif (number - 1) % stride == 0:
            read, image = capture.retrieve()
            yield number, np.asarray(image, np.uint8) if read else None


def fps_of(capture: cv2.VideoCapture) -> float:
    """Frames per second, ``FPS`` where a file or camera does not tell."""
    told = float(capture.get(cv2.CAP_PROP_FPS))
    return told if 0 < told < 1000 else FPS
