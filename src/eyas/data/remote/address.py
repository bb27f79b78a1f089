"""URLs of data, the paths on this host that stand for them, and the folder in which these lie."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from eyas.data.cache import cache_root
from eyas.data.sizes import readable, to_bytes
from eyas.files import expanded

MARK = "eyas-remote"  # a folder of this name holds nothing but what this package puts there
_TREE = f"{os.sep}{MARK}{os.sep}tree{os.sep}"
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)
_SHARE = 0.5  # of the free disk that images from afar may take unless told otherwise


class Room(NamedTuple):
    """Where what comes from afar is kept, and how much of it.

    Attributes:
        folder: holds the folder `MARK`.
        limit: bytes of images; label files come on top.
    """

    folder: Path
    limit: int

    @property
    def root(self) -> Path:
        """The folder in which all of it lies."""
        return self.folder / MARK

    @property
    def text(self) -> str:
        """The room as `parse_room` reads it."""
        return f"{self.folder}:{self.limit}B"

    def __str__(self) -> str:
        return f"up to {readable(self.limit)} in {self.root}"


def parse_room(text: str) -> tuple[Path | None, int | None]:
    """Return folder and bytes of a text such as 200GB, /nvme/eyas or /nvme/eyas:200GB; None for what it leaves out.

    Raises:
        ValueError: it is empty, or allows no byte.
    """
    folder, _, size = text.rpartition(":")
    limit = to_bytes(size)
    if limit is None:
        folder, limit = text, None
    if limit == 0 or (limit is None and not folder.strip()):
        raise ValueError(f"remote_cache={text!r} is a size, a folder or both: 200GB, /nvme/eyas, /nvme/eyas:200GB.")
    return expanded(folder).absolute() if folder else None, limit


def room_for(text: str | None, cache_dir: str | Path | None = None) -> Room:
    """Return the room that a text gives, see `parse_room`; what it leaves out is chosen.

    That is the folder of all caches, and half of what is free on its disk, with what the room holds already.
    """
    folder, limit = parse_room(text) if text else (None, None)
    folder = folder or cache_root(cache_dir).absolute()
    if limit is None:
        there = folder
        while not there.is_dir():
            there = there.parent
        limit = int(shutil.disk_usage(there).free * _SHARE) + held(folder / MARK)
    return Room(folder, limit)


def held(root: Path) -> int:
    """Bytes that are kept below `root`, as they were last counted."""
    try:
        return int((root / "held").read_text())
    except (OSError, ValueError):
        return 0


def is_url(place: object) -> bool:
    """Whether a place of a description is elsewhere."""
    return isinstance(place, str) and _URL.match(place) is not None


def is_remote(path: str) -> bool:
    """Whether a path of this host stands for something elsewhere."""
    return _TREE in path


def to_path(url: str, room: Room) -> str:
    """The path on this host that stands for a URL.

    Raises:
        ValueError: the URL names nothing, or leads out of where it starts.
    """
    found = _URL.match(url)
    assert found is not None, url
    protocol, rest = found.groups()
    parts = (unquote(rest) if _is_http(protocol) else rest).strip("/").split("/")
    if "::" in url or not parts[0] or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{url} is no address of a file or folder: protocol://place/folder/file.")
    return os.path.join(room.root, "tree", protocol, *parts)


def to_url(path: str) -> str:
    """The URL that a path of `to_path` stands for."""
    protocol, _, rest = path.partition(_TREE)[2].replace(os.sep, "/").partition("/")
    if not _is_http(protocol):
        return f"{protocol}://{rest}"
    host, _, below = rest.partition("/")
    return f"{protocol}://{host}/{quote(below)}"


def led_to(path: str, name: str) -> str:
    """The path of what a name leads to from a path of `to_path`.

    Raises:
        ValueError: it leads out of what is elsewhere.
    """
    found = os.path.normpath(os.path.join(path, name.replace("\\", "/").rstrip("/")))
    if found.partition(_TREE)[0] != path.partition(_TREE)[0] or found.partition(_TREE)[2].count(os.sep) < 1:
        raise ValueError(f"{name} leads out of {shown(path)}.")
    return found


def first_remote(paths: bytes) -> int:
    """Where in the bytes of some paths one is found that stands for something elsewhere; -1 for nowhere."""
    return paths.find(os.fsencode(_TREE))


def root_of(path: str) -> Path:
    """The folder `Room.root` in which a path of `to_path` lies."""
    return Path(path.partition(_TREE)[0], MARK)


def shown(path: str) -> str:
    """A path as people know it: the URL, for one that stands for something elsewhere."""
    return to_url(path) if is_remote(path) else path


def _is_http(protocol: str) -> bool:
    return protocol in ("http", "https")
