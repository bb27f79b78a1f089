"""Webcams and network streams: a thread reads on while the network works, and keeps the newest frames only."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from eyas.evaluate.sources.base import Item, Picture
from eyas.evaluate.sources.video import fps_of
from eyas.log import LOGGER

SCHEMES = ("rtsp", "rtsps", "rtmp", "tcp", "udp")
BUFFERED = 30  # frames that wait with stream_buffer: a second of most cameras
RETRIES = 5  # attempts to reconnect, each after twice the time of the one before
PAUSE = 1.0  # s before the first


class Stream(Item):
    """A webcam by its number, or the address of a stream.

    Args:
        address: 0 for the first webcam, or such as "rtsp://camera/1".
        stride: only every so many frames.
        buffer: keep the latest frames in order instead of the newest alone; when ``BUFFERED`` wait, the oldest goes.
        retries: attempts to reconnect before a stream that broke off counts as ended.
        pause: seconds before the first of them.
        connect: opens an address; OpenCV by default.
    """

    live = True

    def __init__(
        self,
        address: int | str,
        stride: int = 1,
        *,
        buffer: bool = False,
        retries: int = RETRIES,
        pause: float = PAUSE,
        connect: Callable[[int | str], cv2.VideoCapture] | None = None,
    ) -> None:
        self.address, self.stride, self.buffer = address, stride, buffer
        self.retries, self.pause, self.connect = retries, pause, connect or connected
        self.name = f"webcam {address}" if isinstance(address, int) else address

    def pictures(self) -> Iterator[Picture]:
        """Give frames as they come, until the stream breaks off for good or the caller stops.

        Raises:
            ValueError: it cannot be opened.
        """
        capture = self.connect(self.address)
        if not capture.isOpened():
            capture.release()
            what = (
                "there is no such camera, or another program has it" if isinstance(self.address, int) else "no answer"
            )
            raise ValueError(f"{self.name} cannot be opened: {what}")
        fps = fps_of(capture) / self.stride
        reader = Reader(self, capture)
        try:
            for number, image in reader.frames():
                yield Picture(self.name, image, frame=number, fps=fps)
        finally:
            reader.close()


def connected(address: int | str) -> cv2.VideoCapture:
    """Open a webcam or an address; whoever asked for it looks whether that went well."""
    return cv2.VideoCapture(address)


class Reader:
    """The thread that reads a stream, and the few frames that wait.

    Args:
        stream: what is read, and how.
        capture: its first connection; it is released here.
    """

    def __init__(self, stream: Stream, capture: cv2.VideoCapture) -> None:
        self.stream = stream
        self._waiting: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=BUFFERED if stream.buffer else 1)
        self._change = threading.Condition()
        self._ended = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(capture,), daemon=True, name=f"eyas-{stream.name}")
        self._thread.start()

    def frames(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Give (number from 1, (h, w, 3) uint8 BGR) of the frames that wait, until no more come."""
        while True:
            with self._change:
                while not self._change.wait_for(lambda: self._waiting or self._ended, timeout=1):
                    pass  # a wait without end would not hear Ctrl-C on every system
                if not self._waiting:
                    return
                frame = self._waiting.popleft()
            yield frame

    def close(self) -> None:
        """Let the thread end; a camera that does not answer may keep it a while longer."""
        self._closed.set()
        self._thread.join(timeout=2)

    def _read(self, capture: cv2.VideoCapture) -> None:
        number = 0
        try:
            while True:
                number = self._read_on(capture, number)
                capture.release()
                fresh = None if self._closed.is_set() else self._reconnect(number)
                if fresh is None:
                    return
                capture = fresh
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _read_on(self, capture: cv2.VideoCapture, number: int) -> int:
        """Keep what comes until the connection is lost or nobody wants more; returns the number of the last frame."""
        while not self._closed.is_set() and capture.grab():
            number += 1
            if (number - 1) % self.stream.stride == 0:
                read, image = capture.retrieve()
                if read:
                    with self._change:
                        self._waiting.append((number, np.asarray(image, np.uint8)))
                        self._change.notify_all()
        return number

    def _reconnect(self, number: int) -> cv2.VideoCapture | None:
        """A new connection, or None after as many attempts as are allowed."""
        name, retries = self.stream.name, self.stream.retries
        for attempt in range(retries):
            wait = self.stream.pause * 2**attempt
            LOGGER.warning(
                "%s broke off after frame %d; attempt %d of %d in %g s", name, number, attempt + 1, retries, wait
            )
            if self._closed.wait(wait):
                return None
            capture = self.stream.connect(self.stream.address)
            if capture.isOpened():
                return capture
            capture.release()
        LOGGER.warning("%s ended: %d attempts to reconnect failed after frame %d", name, retries, number)
        return None
