"""The tree on this host that stands for what lies elsewhere.

Label files and descriptions are copied. For every other file, images above all, an empty file stands in its place that
looks the same from outside: its name, its size (which takes no room on the disk), and as time of change a number that
stands for its version. A listing that finds the same facts leaves the tree as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from eyas import dist
from eyas.data.cache import locked
from eyas.data.files import ABSENT, FileStat, stat_of
from eyas.data.progress import with_progress
from eyas.data.remote import service
from eyas.data.remote.address import Room, room_for, to_path, to_url
from eyas.data.remote.kept import Kept
from eyas.data.remote.service import THREADS, Facts, RemoteError
from eyas.data.sizes import readable
from eyas.files import replacing
from eyas.log import LOGGER

Result = TypeVar("Result")

LABELS = (".txt", ".xml", ".yaml", ".yml")  # copied wherever they are; files of many images only if they are named


class Mirror:
    """What of elsewhere has been asked for, as it is now.

    Args:
        remote_cache, cache_dir: where the tree stands and how much of images is kept, see `room_for`.

    Attributes:
        urls: what was mirrored, in order.
    """

    def __init__(self, remote_cache: str | None = None, cache_dir: str | Path | None = None) -> None:
        self._given = remote_cache, cache_dir
        self.urls: dict[str, None] = {}
        self._listed: dict[str, bool] = {}

    @cached_property
    def room(self) -> Room:
        """Where all of it is kept."""
        return room_for(*self._given)

    def path(self, url: str) -> str:
        """The path that stands for a URL; its room is open from here on.

        Raises:
            ValueError: it is no address, or the room cannot be written.
        """
        if not self.urls:
            Kept(self.room.root).set_limit(self.room)
        path = to_path(url, self.room)
        self.urls.setdefault(to_url(path))
        return path

    def folder(self, path: str) -> bool:
        """Bring the tree below a folder up to date, labels included; False if there is nothing, or nothing is told.

        Raises:
            RemoteError: no answer, or no access.
        """
        above = [folder for folder, there in self._listed.items() if there and path.startswith(f"{folder}{os.sep}")]
        return os.path.isdir(path) if above else self._once(path, self._list)

    def file(self, path: str) -> bool:
        """Bring a file here whole; False if there is none.

        Raises:
            RemoteError: no answer, or no access.
        """
        return self._once(path, self._copy)

    def named(self, paths: Iterable[str]) -> None:
        """Bring files up to date by their names, where no listing has told of them: labels whole, images as stand-ins.

        Raises:
            RemoteError: no answer, or no access.
        """
        places = list(dict.fromkeys(paths))
        found = dict(zip(places, _at_once(lambda path: service.facts(to_url(path)), places, "Looking for files")))
        for path in [path for path, facts in found.items() if facts is None]:
            Path(path).unlink(missing_ok=True)
        changed = {path: facts for path, facts in found.items() if facts and _differs(path, stat_of(path), facts)}
        _take(changed)

    def _once(self, path: str, bring: Callable[[str], bool]) -> bool:
        """Do it once for each description, and once for all processes of a run on this host."""
        if path not in self._listed:
            record = self.room.root / "listed" / hashlib.sha256(f"{bring.__name__} {path}".encode()).hexdigest()[:32]
            run = f"{dist.run_id()} {dist.restarts()} {os.getppid()}" if dist.local_world_size() > 1 else ""
            with locked(record):
                told = _load(record) if run else {}
                if told.get("run") != run or not run:
                    told = {"run": run, "there": bring(path)}
                    if run:
                        record.parent.mkdir(parents=True, exist_ok=True)
                        with replacing(record) as file:
                            file.write(json.dumps(told).encode())
            self._listed[path] = bool(told["there"])
        return self._listed[path]

    def _list(self, path: str) -> bool:
        url = to_url(path)
        found, have = service.find(url), _tree(path)
        if not found:
            return False
        for name in have.keys() - found.keys():
            os.unlink(os.path.join(path, name))
        LOGGER.info("%s: %s files", url, f"{len(found):,}")
        places = {name: os.path.join(path, name) for name in found}
        _take({places[n]: facts for n, facts in found.items() if _differs(n, have.get(n, ABSENT), facts)})
        return True

    def _copy(self, path: str) -> bool:
        found = service.facts(to_url(path))
        if found is not None and stat_of(path) != found.copy:
            _copied(path, found)
        return found is not None


def is_label(path: str) -> bool:
    """Whether a file is copied wherever it is."""
    return path.lower().endswith(LABELS)


def _differs(path: str, stat: FileStat, facts: Facts) -> bool:
    """Whether what is here stands for another version, or for none."""
    return stat not in ((facts.copy,) if is_label(path) else (facts.copy, facts.stand_in))


def _take(files: Mapping[str, Facts]) -> None:
    """Copy labels, and let empty files stand in for the others.

    Raises:
        RemoteError: a label does not come.
    """
    labels = [path for path in files if is_label(path)]
    if labels:
        LOGGER.info("%s labels are copied (%s)", f"{len(labels):,}", readable(sum(files[p].size for p in labels)))
    for path in files.keys() - labels:
        _write(path, files[path], None)
    _at_once(lambda path: _copied(path, files[path]), labels, "Copying labels")


def _copied(path: str, facts: Facts) -> None:
    """Copy a file.

    Raises:
        RemoteError: it does not come as it was listed.
    """
    try:
        data = service.read(to_url(path))
    except FileNotFoundError:
        data = b""
    if len(data) != facts.size:
        raise RemoteError(f"{to_url(path)} has changed while it was copied. Start again.")
    _write(path, facts, data)


def _write(path: str, facts: Facts, data: bytes | None) -> None:
    """Write a file that looks as its original from outside: with its bytes, or none."""
    stat = facts.stand_in if data is None else facts.copy
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(Path(path)) as file:
            if data is None:
                file.truncate(facts.size)
            else:
                file.write(data)
            file.flush()
            os.utime(file.name, ns=(stat.mtime_ns, stat.mtime_ns))
    except OSError as error:
        raise RemoteError(f"{to_url(path)} cannot have a file on this host: {error.strerror} ({path}).") from None


def _at_once(work: Callable[[str], Result], places: Sequence[str], title: str) -> list[Result]:
    """What is done for each of many places, at the same time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(with_progress(pool.map(work, places), title=title, total=len(places)))


def _tree(folder: str) -> dict[str, FileStat]:
    """All files below a folder, by their path from there."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            place = os.path.join(path, name)
            found[os.path.relpath(place, folder).replace(os.sep, "/")] = stat_of(place)
    return found


def _load(record: Path) -> dict[str, object]:
    try:
        told = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
