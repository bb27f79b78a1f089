"""The library's logger, its console, and plain tables. Importing this module adds no handler and prints nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LOGGER = logging.getLogger("eyas")


@cache
def console() -> Console:
    """The one rich console of the process. It writes to whatever `sys.stdout` is at the time of writing."""
    from rich.console import Console

    return Console(highlight=False)


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


def format_cell(value: object) -> str:
    """A table cell as text: floats with up to four significant digits after a leading zero, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of an aligned plain-text table: numbers to the right, everything else to the left."""
    cells = [[format_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    right = [_is_numeric_column(rows, i) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return [line(header), *(line(row) for row in cells)]


def print_table(title: str, header: list[str], rows: list[list[object]]) -> None:
    """Print a table: ruled on a terminal, aligned plain text everywhere else (files, pipes, CI logs)."""
    if console().is_terminal:
        _print_rich_table(title, header, rows)
        return
    for line in ([title] if title else []) + format_table(header, rows):
        console().print(line, markup=False, soft_wrap=True)


def _is_numeric_column(rows: Sequence[Sequence[object]], i: int) -> bool:
    values = [row[i] for row in rows if row[i] is not None and row[i] != "-"]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _print_rich_table(title: str, header: list[str], rows: list[list[object]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="right" if _is_numeric_column(rows, i) else "left")
    for row in rows:
        table.add_row(*(Text(format_cell(value)) for value in row))
    console().print(table)
