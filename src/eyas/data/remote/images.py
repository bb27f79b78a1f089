"""The bytes of one file elsewhere, through the cache of this host."""

from __future__ import annotations

import hashlib
import io
import os
from typing import NamedTuple

from eyas.data.cache import locked
from eyas.data.files import FileStat
from eyas.data.remote import service
from eyas.data.remote.address import root_of, to_url
from eyas.data.remote.kept import Kept
from eyas.data.remote.service import Facts, RemoteError

_WHOLE = 1 << 16  # bytes of a file that is fetched whole where a part would do: two requests take longer
_BLOCK = 1 << 16  # fewest bytes of a part


class Place(NamedTuple):
    """A file elsewhere as it was when it was listed, and where it is kept."""

    url: str
    facts: Facts
    kept: Kept

    @property
    def key(self) -> str:
        """By what it is kept: another version of a file is another one."""
        return hashlib.sha256(f"{self.url} {self.facts.size} {self.facts.version}".encode()).hexdigest()[:40]


def place_of(path: str, indexed: FileStat | None = None) -> Place:
    """What a path of the mirror stands for.

    Raises:
        RemoteError: it is not listed, or not as it was indexed.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        raise RemoteError(f"{to_url(path)} is not there any more ({error.strerror}).") from None
    found = FileStat(info.st_size, info.st_mtime_ns)
    if indexed is not None and found != indexed:
        raise RemoteError(_changed(to_url(path)))
    return Place(to_url(path), Facts.of_stand_in(found), Kept(root_of(path)))


def read(path: str, indexed: FileStat | None = None) -> bytes:
    """All bytes of the file that a path of the mirror stands for.

    Raises:
        RemoteError: it does not come, is not there any more, or is another than when it was listed.
    """
    place = place_of(path, indexed)
    data = place.kept.get(place.key, place.facts.size)
    return _fetch(place) if data is None else data


def bring(path: str) -> None:
    """Have a file in the cache, and count it as used.

    Raises:
        RemoteError: as `read`.
    """
    place = place_of(path)
    if not place.kept.use(place.key):
        _fetch(place)


def opened(path: str) -> io.BufferedReader | io.BytesIO:
    """A file to read here and there in, of which only the parts that are read are fetched.

    Raises:
        RemoteError: as `read`; reading may raise it too.
    """
    place = place_of(path)
    if place.facts.size <= _WHOLE or place.kept.use(place.key):
        return io.BytesIO(read(path))
    start = _read(place, 0, _BLOCK)
    if len(start) > _BLOCK:  # a server that sends no parts
        return io.BytesIO(_accept(place, start))
    return io.BufferedReader(_Parts(place, start), _BLOCK)


class _Parts(io.RawIOBase):
    """A file in parts, each fetched when it is first read."""

    def __init__(self, place: Place, start: bytes) -> None:
        self.place = place
        self.at = 0
        self.parts = [(0, start)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.place.facts.size}[whence]
        self.at = max(base + offset, 0)
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        stop = min(self.at + len(buffer), self.place.facts.size)
        if stop <= self.at:
            return 0
        part = self._part(stop)
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def _part(self, stop: int) -> bytes:
        """Bytes from here on, at most up to `stop`."""
        for first, data in self.parts:
            if first <= self.at < first + len(data):
                return data[self.at - first : stop - first]
        data = _read(self.place, self.at, stop)
        if len(data) != stop - self.at:
            raise RemoteError(_changed(self.place.url))
        self.parts.append((self.at, data))
        return data


def _fetch(place: Place) -> bytes:
    """Bring a file here; who comes at the same time waits for it."""
    with locked(place.kept.file(place.key)):
        data = place.kept.get(place.key, place.facts.size)
        if data is not None:
            return data
        data = _read(place)
        if len(data) < place.facts.size:  # cut short, or another version: what comes now tells
            data = _read(place)
        return _accept(place, data)


def _read(place: Place, start: int | None = None, stop: int | None = None) -> bytes:
    try:
        return service.read(place.url, start, stop)
    except FileNotFoundError:
        raise RemoteError(f"{place.url} is not there any more; it was when the data set was indexed.") from None


def _accept(place: Place, data: bytes) -> bytes:
    """Keep what has come, if it is what was listed."""
    found = service.facts(place.url)
    if found is None:
        raise RemoteError(f"{place.url} is not there any more; it was when the data set was indexed.")
    if found != place.facts:
        raise RemoteError(_changed(place.url))
    if len(data) != place.facts.size:
        raise RemoteError(f"{place.url} came with {len(data):,} bytes instead of {place.facts.size:,}.")
    place.kept.put(place.key, data)
    return data


def _changed(url: str) -> str:
    return f"{url} has changed since the data set was indexed. Start again: it is listed anew then."
