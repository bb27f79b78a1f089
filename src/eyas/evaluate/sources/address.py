"""An image or a video behind an http(s) address; nothing is fetched but what a person named by its address."""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from eyas.data.download import check_address, opened, save
from eyas.data.files import IMAGE_SUFFIXES
from eyas.evaluate.sources.base import Item, Picture, Reading
from eyas.evaluate.sources.images import ImageFile
from eyas.evaluate.sources.stream import Stream
from eyas.evaluate.sources.video import VIDEO_SUFFIXES, Video

LARGEST = 2 << 30  # bytes
LIVE = ("multipart/x-mixed-replace", "application/vnd.apple.mpegurl", "application/x-mpegurl")  # MJPEG, HLS


class Address(Item):
    """An image, a video, or a stream of pictures (MJPEG, HLS): what the server says it is counts, then its name.

    Args:
        url: its http(s) address.
        reading: how it is read.
        largest: bytes; more is not fetched.

    Raises:
        ValueError: it is no http(s) address.
    """

    def __init__(self, url: str, reading: Reading, largest: int = LARGEST) -> None:
        check_address(url)
        self.url, self.reading, self.largest, self.name = url, reading, largest, url

    @property
    def live(self) -> bool:  # type: ignore[override]  # of others it is known beforehand
        """Whether the server sends a stream; an address that does not answer is none."""
        try:
            with opened(self.url) as response:
                return response.headers.get_content_type() in LIVE
        except ValueError:
            return False

    def pictures(self) -> Iterator[Picture]:
        """Fetch it into a file that goes afterwards, and read that; a stream is read as it comes.

        Raises:
            ValueError: a failed transfer, more than `largest` bytes, or neither image nor video.
        """
        with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
            with opened(self.url) as response:
                kind = response.headers.get_content_type()
                if kind not in LIVE:
                    file = Path(folder) / f"fetched{self._suffix(kind)}"
                    save(response, file, self.url, most=self.largest)
            yield from self._item(kind, str(file) if kind not in LIVE else "").pictures()

    def _item(self, kind: str, file: str) -> Item:
        if kind in LIVE:
            return Stream(self.url, self.reading.vid_stride, buffer=self.reading.stream_buffer)
        if Path(file).suffix in VIDEO_SUFFIXES:
            return Video(file, self.reading.vid_stride, self.name)
        return ImageFile(file, self.reading.white, self.name)

    def _suffix(self, kind: str) -> str:
        """That of a file of this kind, as the address has it where the server does not say."""
        named = PurePosixPath(unquote(urlsplit(self.url).path)).suffix.lower()
        known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        told = mimetypes.guess_extension(kind) or ""
        for suffix in (named, told):
            if suffix in known and not kind.startswith("text/"):
                return suffix
        raise ValueError(f"{self.url} is neither an image nor a video, but {kind}")
