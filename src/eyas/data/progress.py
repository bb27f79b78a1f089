"""A bar for work that is done in parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from eyas.log import console

Part = TypeVar("Part")
_PATIENCE = 1.0  # seconds that work may take without a bar


def with_progress(parts: Iterable[Part], *, title: str, total: int, each: int = 1) -> Iterator[Part]:
    """Pass parts on; draw a bar once they have taken longer than a second and the output is a terminal.

    Args:
        parts: what is done, one after the other.
        title: what the bar says.
        total: images of all parts.
        each: images of a part; the last one may have fewer.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    counts = MofNCompleteColumn(table_column=Column(no_wrap=True))  # so that a narrow terminal shortens the bar
    left = TimeRemainingColumn(table_column=Column(no_wrap=True))
    columns = TextColumn("{task.description}"), BarColumn(), counts, left
    progress = Progress(*columns, console=console(), transient=True)
    start, done, task = time.monotonic(), 0, None
    try:
        for part in parts:
            yield part
            done = min(done + each, total)
            if task is None and time.monotonic() - start > _PATIENCE and console().is_terminal:
                progress.start()
                task = progress.add_task(title, total=total)
            if task is not None:
                progress.update(task, completed=done)
    finally:
        if task is not None:  # rich ends even a bar that was never drawn with an empty line
            progress.stop()
