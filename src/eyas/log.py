"""The library's logger, and its console. Importing this module adds no handler and prints nothing."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, cast

from eyas.notebook import in_notebook, show_once
from eyas.tables import NARROWEST, format_table, html_table

if TYPE_CHECKING:
    from rich.console import Console

LOGGER = logging.getLogger("eyas")


class Stdout:
    """Whatever `sys.stdout` is at the time of writing, for what must not end because of its output.

    Letters that its encoding lacks are written as escapes: names of classes and files have any, and a pipe of Windows,
    or of a job, may have few. Where the reader of a pipe goes away, the rest goes nowhere, which stderr is told.
    """

    @property
    def rich_proxied_file(self) -> Stdout:
        """This: while a live line is shown, rich stands between all others and `sys.stdout`."""
        return self

    def write(self, text: str) -> int:
        """Write a text; return how many characters that were."""
        out = self._now()
        with self._reader_may_be_gone(out):
            try:
                return out.write(text)
            except UnicodeEncodeError as error:
                return out.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        out = self._now()
        with self._reader_may_be_gone(out):
            out.flush()

    def _now(self) -> TextIO:
        return getattr(sys.stdout, "rich_proxied_file", sys.stdout)

    @contextmanager
    def _reader_may_be_gone(self, out: TextIO) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, out.fileno())
            os.close(nowhere)
            print("eyas: nobody reads the output any more; what is running goes on without it.", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)


@cache
def console() -> Console:
    """The one rich console of the process. It writes to whatever `sys.stdout` is at the time of writing."""
    from rich.console import Console

    out = cast(TextIO, Stdout())
    # In a notebook rich would make an output of each line, and take it for a terminal that moves its cursor.
    return Console(file=out, highlight=False, force_jupyter=False, force_terminal=False if in_notebook() else None)


class ConsoleHandler(logging.Handler):
    """Writes records through `console()`, so that a live progress line and log lines never overwrite each other."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, unwrapped and without markup."""
        style = "yellow" if record.levelno >= logging.WARNING else None
        console().print(self.format(record), style=style, markup=False, soft_wrap=True)


def setup_logging(verbose: bool = True, rank: int = 0) -> None:
    """Send this library's log to the console: INFO on the main process when verbose, otherwise warnings only.

    Calling it again changes the level; it never adds a second handler. Nothing but the "eyas" logger is touched.
    """
    if not any(isinstance(handler, ConsoleHandler) for handler in LOGGER.handlers):
        LOGGER.addHandler(ConsoleHandler())
    LOGGER.setLevel(logging.INFO if verbose and rank in (-1, 0) else logging.WARNING)


def warn(message: str) -> None:
    """Log a warning a person should act on."""
    LOGGER.warning("Warning: %s", message)


def command(*words: str) -> str:
    """Return what to type for a command of Eyas, so that a shell reads paths with spaces as they are."""
    return shlex.join(("eyas", *words))


def line_width(out: Console) -> int | None:
    """Columns that a line may have on a terminal, or as the variable COLUMNS says; None in files and pipes."""
    return max(out.width, NARROWEST) if out.is_terminal or "COLUMNS" in os.environ else None


def print_table(title: str, header: list[str], rows: list[list[object]], least: Sequence[str] = ()) -> None:
    """Print a table, in notebooks as HTML; see ``format_table`` for what is left out of one too wide for a terminal."""
    if show_once(html_table(header, rows, title), "\n".join([title, *format_table(header, rows)]).strip()):
        return
    if title:
        console().print(title, style="italic", markup=False, soft_wrap=True)
    names, *lines = format_table(header, rows, line_width(console()), least)
    console().print(names, style="bold", markup=False, soft_wrap=True)
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)
