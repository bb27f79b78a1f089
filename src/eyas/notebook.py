"""What stands below the cell of a notebook: parts of HTML that are replaced as work goes on.

A process that a cell has launched has no cell. It leaves its parts in a folder, and the process of the cell shows them.
IPython is never imported here but where a kernel runs already.
"""

from __future__ import annotations

import contextvars
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

PLACE = "EYAS_DISPLAY"
"""Environment variable: ``text`` asks for plain lines in notebooks too; launched processes find their folder in it."""
PLAIN = "text"
PERIOD = 0.2  # seconds between two looks at what launched processes show


class Screen(Protocol):
    """Where parts are shown, one below the other, in the order in which they came first."""

    def show(self, part: str, html: str, text: str) -> None:
        """Show a part, in place of what it was; ``text`` is for those who cannot show HTML."""


class Cell:
    """The output of the cell that runs now."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}  # name -> id of its output

    def show(self, part: str, html: str, text: str) -> None:
        """Show a part."""
        from IPython.display import display

        new = part not in self.parts
        number = self.parts.setdefault(part, secrets.token_hex(8))
        display({"text/html": html, "text/plain": text}, raw=True, display_id=number, update=not new)


class Folder:
    """Files that another process shows with ``mirrored``.

    Args:
        path: where they lie; it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, part: str, html: str, text: str) -> None:
        """Leave a part, whole or not at all."""
        content = json.dumps({"at": time.time_ns(), "part": part, "html": html, "text": text})
        temporary = self.path / f".{part}"
        with suppress(FileNotFoundError):  # the cell was ended, and its folder has gone: nobody looks on
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, self.path / f"{part}.json")


def screen() -> Screen | None:
    """Return where HTML can be shown; None where there are only lines of text."""
    place = os.environ.get(PLACE)
    if place:
        return None if place == PLAIN else Folder(Path(place))
    return Cell() if in_notebook() else None


def show_once(html: str, text: str) -> bool:
    """Show something that stays; returns False where there is no notebook, and nothing was shown."""
    here = screen()
    if here is None:
        return False
    here.show(secrets.token_hex(8), html, text)
    return True


def in_notebook() -> bool:
    """Whether what is shown appears below the cell of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None  # a shell in a terminal has none


@contextmanager
def mirrored(folder: Path) -> Iterator[None]:
    """Let processes that are started inside the block show below the cell that runs now, if one does.

    Args:
        folder: where they leave what they show; it is made.
    """
    here, finished = screen(), threading.Event()
    if not isinstance(here, Cell):
        yield
        return
    folder.mkdir()
    os.environ[PLACE] = str(folder)
    thread = in_this_cell(follow, folder, here, finished)
    try:
        yield
    finally:
        del os.environ[PLACE]
        finished.set()
        thread.join()


def follow(folder: Path, shown_on: Screen, finished: threading.Event) -> None:
    """Show what is left in a folder until finished, and once more then."""
    seen: dict[Path, int] = {}
    while not finished.wait(PERIOD):
        show_new(folder, shown_on, seen)
    show_new(folder, shown_on, seen)


def show_new(folder: Path, shown_on: Screen, seen: dict[Path, int]) -> None:
    """Show the parts that are other than when they were seen, in the order in which they were left."""
    parts = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("[!.]*.json")}
    for path, part in sorted(parts.items(), key=lambda item: item[1]["at"]):
        if seen.get(path) != part["at"]:
            seen[path] = part["at"]
            shown_on.show(part["part"], part["html"], part["text"])


def in_this_cell(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread whose output belongs to the cell that runs now: kernels keep that in the context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work, *arguments), daemon=True)
    thread.start()
    return thread
