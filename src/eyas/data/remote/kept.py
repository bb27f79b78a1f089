"""A bounded cache of files that several processes of a host fill and read at the same time.

Each file appears whole and under its last name, with a checksum behind its bytes: what is cut short or damaged is not
used. A file that is used gets the time of that; when all of them are more than may be, those that were used longest ago
go first. One that is being read is read to its end all the same, since only its name goes.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

from eyas.data.cache import locked
from eyas.data.remote.address import Room, held, root_of
from eyas.data.sizes import readable
from eyas.files import replacing, sweep
from eyas.log import LOGGER

_CHECK = 4  # bytes of the checksum
_FILLED_TO = 0.9  # of the limit, after files were removed: so that the next one need not look again


class Kept:
    """What a host keeps of files elsewhere.

    Args:
        root: `Room.root`. How much may lie there stands in a file `limit`, for all processes alike.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "kept"

    @property
    def limit(self) -> int:
        """Bytes that may be kept; none where nobody has said so."""
        try:
            return int((self.root / "limit").read_text())
        except (OSError, ValueError):
            return 0

    def set_limit(self, room: Room) -> None:
        """Say how much may be kept, and let go of what is more.

        Raises:
            ValueError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.root / "limit") as file:
                file.write(str(room.limit).encode())
        except OSError as error:
            raise ValueError(
                f"What comes from elsewhere cannot be kept in {self.root}: {error.strerror or error}. Set EYAS_CACHE "
                "or remote_cache to a folder that can be written."
            ) from None
        if held(self.root) > room.limit:
            self._count(0)

    def file(self, key: str) -> Path:
        """Where the file of a key lies, if it does."""
        return self.folder / key[:2] / key

    def use(self, key: str) -> bool:
        """Whether a file is here; it counts as used now."""
        try:
            os.utime(self.file(key))
        except OSError:
            return False
        return True

    def get(self, key: str, size: int) -> bytes | None:
        """The bytes of a file; None if it is not here, or not sound."""
        path = self.file(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            LOGGER.debug("%s: %s", path, error)
            return None
        body = memoryview(data)[:-_CHECK]
        if len(body) != size or zlib.crc32(body) != int.from_bytes(data[-_CHECK:], "big"):
            path.unlink(missing_ok=True)
            return None
        return bytes(body)

    def put(self, key: str, data: bytes) -> None:
        """Keep a file, if there is room for it at all; a disk that is full has less room from then on."""
        if len(data) > self.limit:
            return
        path = self.file(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(data)
                file.write(zlib.crc32(data).to_bytes(_CHECK, "big"))
            self._count(len(data) + _CHECK)
        except OSError as error:
            limit = int(held(self.root) * _FILLED_TO)
            LOGGER.warning("%s: %s. From now on %s are kept there.", self.root, error.strerror, readable(limit))
            with suppress(OSError):
                (self.root / "limit").write_text(str(limit))
                self._count(0)

    def _count(self, added: int) -> None:
        """Add to what is held, and remove what was not used for longest if that is too much."""
        record = self.root / "held"
        with locked(record):
            total = held(self.root) + added
            if not record.exists() or total > self.limit:
                total = self._removed_oldest()
            with replacing(record) as file:
                file.write(str(total).encode())

    def _removed_oldest(self) -> int:
        """Count all files anew, remove those used longest ago if they are too many, and return the bytes that stay."""
        files = self._files()
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return total
        for _, size, path in sorted(files):
            if total <= self.limit * _FILLED_TO:
                break
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except PermissionError:  # Windows: somebody reads it
                continue
            total -= size
        return total

    def _files(self) -> list[tuple[int, int, str]]:
        """(time of last use in ns, bytes, path) of all files."""
        found = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            sweep(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith((".tmp", ".lock")):
                        continue
                    with suppress(FileNotFoundError):
                        info = entry.stat()
                        found.append((info.st_mtime_ns, info.st_size, entry.path))
        return found


def room_of(path: str) -> Room:
    """The room in which what a path of the mirror stands for is kept."""
    root = root_of(path)
    return Room(root.parent, Kept(root).limit)
