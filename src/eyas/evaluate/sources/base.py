"""What every kind of source is: a name, and pictures that are read when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eyas.data.depth import White


@dataclass(frozen=True)
class Picture:
    """One image on its way to the network.

    Attributes:
        path: its file or address, or a name such as "image0" for an array.
        pixels: (h, w, 3) uint8 BGR.
        frame: number, from 1, of the frame of a video or the page of a file; None for an image of its own.
        fps: pictures per second of a video, those only that are read; None for everything else.
    """

    path: str
    pixels: NDArray[np.uint8]
    frame: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Reading:
    """How sources are read.

    Attributes:
        vid_stride: of videos, streams and screens only every so many frames, >= 1.
        stream_buffer: keep the latest frames of a stream in order instead of only the newest.
        white: what is white in images of more than 8 bits; None: each image's own values tell.
    """

    vid_stride: int = 1
    stream_buffer: bool = False
    white: White | None = None

    def __post_init__(self) -> None:
        if self.vid_stride < 1:
            raise ValueError(f"vid_stride must be at least 1, not {self.vid_stride}")


class Item(ABC):
    """One entry of a source.

    Attributes:
        name: what it is called in messages.
        live: whether it goes on until somebody stops it.
    """

    name: str
    live = False

    @abstractmethod
    def pictures(self) -> Iterator[Picture]:
        """Read its pictures one by one; none is kept here.

        Raises:
            OSError, ValueError: it cannot be read.
        """

    def memory(self) -> int:
        """Bytes that all its pictures take together, where that is much; else 0."""
        return 0
