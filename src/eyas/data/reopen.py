"""Opening the index of a large data set without looking at every file.

The folders and lists of a data set tell by their own times that no file in them came, went or got another name. Where
those times are as they were, the cached index is taken at once, and every image and its labels are compared with what
was indexed before they are used: at the first use, and by a thread from the start. What that finds at once makes the
index anew; what it finds later ends the run, since batches of the old one may have been used.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eyas.data.errors import ChangedFile
from eyas.data.files import ABSENT, stat_of
from eyas.data.formats import LabelSource
from eyas.files import replacing
from eyas.log import LOGGER

LARGE = 50_000  # images; to look at every file of fewer takes about a second
_TICK = 2 * 10**9  # ns; the coarsest times of change that file systems keep: within one tick, a second change is unseen
_PATIENCE = 0.5  # seconds
_PER_FOLDER = 10  # images; with fewer in a folder, folders are no shorter a way


class Watch(NamedTuple):
    """What must be as it was for a cached index to hold.

    Attributes:
        asked: hash of source, settings and class names.
        key: of the index.
        unused: {reason: number} of files that are neither images nor labels.
        unused_names: {reason: paths of the first of these}.
        times: {folder, list, or file of an image that was left out: time of its last change in ns}.
    """

    asked: str
    key: str
    unused: dict[str, int]
    unused_names: dict[str, list[str]]
    times: dict[str, int]

    def holds(self, asked: str) -> bool:
        """Whether the same is asked for, and nothing that is watched has changed."""
        return self.asked == asked and all(_time(place) == time for place, time in self.times.items())


def asked_for(source: LabelSource, settings: Mapping[str, Any]) -> str:
    """Hash of what an index is made from, files aside."""
    names = None if source.names is None else dict(source.names)  # under single_cls, others than in the settings
    return hashlib.sha256(json.dumps([settings, source.identity, names]).encode()).hexdigest()


def load_watch(file: Path) -> Watch | None:
    """Read what was saved beside an index; None if there is nothing, or nothing sound."""
    try:
        return Watch(**json.loads(_beside(file).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def save_watch(
    file: Path,
    source: LabelSource,
    settings: Mapping[str, Any],
    *,
    key: str,
    images: int,
    left_out: Collection[str],
    since: int,
) -> None:
    """Save what tells that an index still holds, if that is shorter than to look at every file.

    Args:
        file: of the index.
        source: asked before for images and the stats of their labels.
        settings: of the index.
        key: of the index.
        images: of the index.
        left_out: images that are not in it: whoever mends one, or its labels, must find it in the next run.
        since: time in ns at which the source was asked.
    """
    places = source.watched()
    if places is None:
        return
    times = {place: _time(place) for place in (*places, *left_out, *map(source.label_file, left_out))}
    if len(times) * _PER_FOLDER > images:
        return
    if max(times.values(), default=0) > since - _TICK:
        return  # a file that comes in the same tick would leave no trace
    unused, named = dict(source.unused()), source.unused_names()
    content = Watch(asked_for(source, settings), key, unused, named, times)._asdict()
    try:
        with replacing(_beside(file)) as handle:
            handle.write(json.dumps(content).encode())
    except OSError as error:
        LOGGER.warning("Every file is looked at the next time too: %s (%s).", _beside(file), error)


class Unseen:
    """Images of an index that was opened without a look at every file.

    Args:
        source: tells where the labels of an image stand.
        stats: (N, 4) int64: size and time in ns of each image, then of its label file.
        file: of the index.
    """

    def __init__(self, source: LabelSource, stats: np.ndarray, file: Path) -> None:
        self.source = source
        self.stats = stats
        self.file = file
        self.seen = np.zeros(len(stats), bool)
        self.changed: str | None = None

    def look_at(self, i: int, paths: Callable[[int], str]) -> None:
        """Refuse image i if it or its labels are not those that were indexed; ``paths`` gives its path.

        An image that is gone is let pass: it cannot be loaded.

        Raises:
            ChangedFile: names the file.
        """
        if self.seen[i]:
            return
        image = paths(i)
        label = self.source.label_file(image)
        size, mtime, label_size, label_mtime = self.stats[i].tolist()
        for place, indexed in ((image, (size, mtime)), (label, (label_size, label_mtime))):
            now = stat_of(place)
            if now != indexed:
                if place == image and now == ABSENT:
                    return  # it will not be loaded either, and is counted there
                _beside(self.file).unlink(missing_ok=True)
                raise ChangedFile(
                    f"{place} has changed since the data set was indexed. Start again: all files are looked at then."
                )
        self.seen[i] = True

    def look_at_all(self, paths: Callable[[int], str]) -> None:
        """Look at every image in a thread of its own, and wait a moment for what it finds at once.

        What it finds, then or later, is raised by `refuse_changed`.
        """

        def look() -> None:
            try:
                for i in range(len(self.stats)):
                    self.look_at(i, paths)
            except ChangedFile as error:
                self.changed = str(error)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(_PATIENCE)

    def refuse_changed(self) -> None:
        """Raise ChangedFile if a change was found."""
        if self.changed is not None:
            raise ChangedFile(self.changed)


def _beside(file: Path) -> Path:
    return file.with_suffix(".watch.json")


def _time(place: str) -> int:
    """Time of the last change in ns; -1 for what is not there."""
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return -1
