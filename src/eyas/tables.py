"""Tables as plain text, fitted to the width of a screen, and as HTML for notebooks."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from html import escape

NARROWEST = 40  # columns of a screen; on a narrower one lines are broken by the terminal
ROOM = 24  # characters that a column of texts keeps before another column is left out for it
GAP = "  "
Rows = Sequence[Sequence[object]]


def format_cell(value: object) -> str:
    """A table cell as text: floats with up to four significant digits after a leading zero, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """`0:07`, `12:34` or `1:02:03`."""
    total = max(round(seconds), 0)
    hours, minutes = divmod(total // 60, 60)
    return f"{hours}:{minutes:02d}:{total % 60:02d}" if hours else f"{minutes}:{total % 60:02d}"


def format_table(header: Sequence[str], rows: Rows, width: int | None = None, least: Sequence[str] = ()) -> list[str]:
    """Lines of an aligned plain-text table: numbers to the right, everything else to the left.

    Args:
        header: names of the columns; empty names for all of them mean that no header is wanted.
        rows: one cell for each column.
        width: characters that a line may have; None for any number. Long texts go on below, inside their column.
        least: columns that may be left out of a table that is too wide, the first of them first.
    """
    kept = list(range(len(header)))
    if width is not None:
        for name in least:
            if fits(header, rows, kept, width):
                break
            kept = [i for i in kept if header[i] != name]
    names, cells = [header[i] for i in kept], [[format_cell(row[i]) for i in kept] for row in rows]
    lines = [names, *cells] if any(names) else cells
    widths = [max((shown_width(line[i]) for line in lines), default=0) for i in range(len(names))]
    if width is not None:
        widths = narrowed(widths, width, room=0)
    right = [_is_numeric_column(rows, i) for i in kept]
    return [text for line in lines for text in _folded(line, widths, right)]


def fits(header: Sequence[str], rows: Rows, kept: Sequence[int], width: int) -> bool:
    """Whether the columns ``kept`` fit into a line while every text has the room it needs."""
    widths = [max(shown_width(format_cell(line[i])) for line in [header, *rows]) for i in kept]
    return _total(narrowed(widths, width, ROOM)) <= width


def narrowed(widths: Sequence[int], width: int, room: int) -> list[int]:
    """Take from the widest columns until a line fits, or until none is wider than ``room``."""
    widths = list(widths)
    while _total(widths) > width and max(widths) > max(room, 1):
        widths[widths.index(max(widths))] -= 1
    return widths


def fold(text: str, width: int) -> list[str]:
    """Break a text into lines, at blanks where there are any."""
    wide = shown_width(text)
    if wide <= width:
        return [text]
    return textwrap.wrap(text, max(width if wide == len(text) else width // 2, 1)) or [""]


def shown_width(text: str) -> int:
    """Columns that a text takes on a screen: two for each character of East Asian scripts, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def html_table(header: Sequence[str], rows: Rows, title: str = "") -> str:
    """A table for a notebook; every text is escaped."""

    def line(tag: str, cells: Sequence[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(format_cell(cell))}</{tag}>" for cell in cells) + "</tr>"

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    head = f"<thead>{line('th', header)}</thead>" if any(header) else ""
    return f"<table>{caption}{head}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def _folded(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """One row as lines: more than one if a cell is longer than its column is wide."""
    parts = [fold(cell, w) for cell, w in zip(cells, widths, strict=True)]
    lines = []
    for n in range(max(map(len, parts), default=0)):
        row = [part[n] if n < len(part) else "" for part in parts]
        padded = (_padded(cell, w, r) for cell, w, r in zip(row, widths, right, strict=True))
        lines.append(GAP.join(padded).rstrip())
    return lines


def _padded(cell: str, width: int, right: bool) -> str:
    blanks = " " * (width - shown_width(cell))
    return blanks + cell if right else cell + blanks


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _is_numeric_column(rows: Rows, i: int) -> bool:
    values = [row[i] for row in rows if row[i] is not None and row[i] != "-"]
    return bool(values) and all(isinstance(value, int | float) for value in values)
