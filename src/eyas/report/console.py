"""What people look at while a model trains: the plan, a live line, one table row per epoch, the end.

On a terminal the running epoch is one line that is redrawn; anywhere else (a file, a pipe, a CI log) there are only
plain lines: one per epoch, and one about every ten seconds inside a long epoch. No thread is used: the line is
redrawn from `batch()`, because a drawing thread that holds a lock while worker processes are forked can block them.
`panel.py` shows the same in notebooks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from eyas.device import peak_memory
from eyas.log import console, line_width
from eyas.tables import Rows, duration, format_table

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.live import Live

    from eyas.report.charts import Row

LIVE_PERIOD = 0.25  # seconds between redraws; each one reads the losses, which waits for the device
PLAIN_PERIOD = 10.0  # seconds between lines of a long epoch when the output is no terminal
_HEADER_EVERY = 25  # rows after which the names of the columns are repeated
INDENT = "  "
# What a narrow terminal shows last: these columns of a row go first, then others from the right.
_LEAST = ("lr", "img/s", "R", "P", "time")
_ALWAYS = ("epoch", "mAP50", "mAP50-95")

_SHORT = {
    "metrics/precision(B)": "P",
    "metrics/recall(B)": "R",
    "metrics/mAP50(B)": "mAP50",
    "metrics/mAP50-95(B)": "mAP50-95",
    "lr/pg0": "lr",
}


class Table(NamedTuple):
    """What a run is about to do.

    Attributes:
        title: what it tells, where tables have titles.
        header: names of its columns.
        rows: its cells.
        least: columns that a narrow terminal goes without, the first of them first.
    """

    title: str
    header: Sequence[str]
    rows: Rows
    least: Sequence[str]


class Standing(NamedTuple):
    """How far an epoch has come.

    Attributes:
        done, batches: of this epoch.
        parts: what is said of it, by name.
        least: names of parts that a narrow terminal goes without, the first of them first.
    """

    done: int
    batches: int
    parts: Mapping[str, str]
    least: Sequence[str]


class RunConsole:
    """Prints a run. All methods do nothing when `enabled` is False (other ranks, verbose=False).

    Args:
        device: the device whose memory is shown; None or the CPU shows the memory of this process.
        enabled: False prints nothing.
        out: rich console to print on; the library's own by default.
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        *,
        enabled: bool = True,
        out: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.enabled = enabled
        self._out = out
        self._clock = clock
        self._live: Live | None = None
        self._columns: list[str] = []
        self._rows_since_header = 0
        self._epoch, self._epochs, self._batches = 0, 1, 1
        self._epoch_began = self._last_batch = self._last_shown = clock()
        self._images = 0
        self._epoch_seconds: list[float] = []

    @property
    def out(self) -> Console:
        """The rich console printed on."""
        return self._out if self._out is not None else console()

    def start(self, header: str, tables: Sequence[Table]) -> None:
        """Print what is about to run: one line, then tables of decisions, stages and groups."""
        self.message(header)
        for table in tables:
            self.table(table.header, table.rows, table.least)
            self.message("")

    def table(self, header: Sequence[str], rows: Rows, least: Sequence[str]) -> None:
        """Print an indented table, without those of its columns that a narrow terminal has no room for."""
        width = line_width(self.out)
        for line in format_table(header, rows, None if width is None else width - len(INDENT), least):
            self.message(INDENT + line)

    def epoch_start(self, epoch: int, epochs: int, batches: int) -> None:
        """Begin a 0-based epoch of `batches` batches."""
        self._epoch, self._epochs, self._batches = epoch, epochs, max(batches, 1)
        self._epoch_began = self._last_batch = self._last_shown = self._clock()
        self._images = 0

    def batch(self, step: int, losses: Callable[[], dict[str, float]], images: int, boxes: int) -> None:
        """After batch `step` (0-based) of the epoch. `losses()` is called only when something is drawn."""
        now = self._last_batch = self._clock()
        self._images += images
        if not self.enabled:
            return
        if now - self._last_shown >= self.period:
            self._last_shown = now
            self.tell(self._standing(step, losses(), boxes, now))

    @property
    def period(self) -> float:
        """Seconds between two looks at an epoch that goes on."""
        return LIVE_PERIOD if self.out.is_terminal else PLAIN_PERIOD

    def tell(self, standing: Standing) -> None:
        """Show how far an epoch has come."""
        line = fitted(standing.parts, standing.least, line_width(self.out))
        if self.out.is_terminal:
            self._draw(line)
        else:
            self.message(line)

    def epoch_end(self, row: Mapping[str, float]) -> None:
        """Show the row of an epoch. Keys are those of results.csv; unknown ones are left out.

        Time (of the whole epoch) and speed (of its training part) are measured here. A metric that is missing or NaN
        was not measured in this epoch and is shown as a dash.
        """
        self._erase()
        seconds = self._clock() - self._epoch_began
        self._epoch_seconds.append(seconds)
        if not self.enabled:
            return
        cells = self._cells(row, seconds)
        missing = [name for name in cells if name not in self._columns]
        self._columns = _ordered([*self._columns, *missing])
        self.show_row(cells, is_wider=bool(missing))

    def show_row(self, cells: Mapping[str, str], is_wider: bool) -> None:
        """Show an epoch's numbers by the names of their columns; ``is_wider`` if some of those came with it."""
        if is_wider or self._rows_since_header >= _HEADER_EVERY:
            self._print_row({name: name for name in self._columns}, bold=True)
            self._rows_since_header = 0
        self._print_row(cells)
        self._rows_since_header += 1

    def draw(self, history: Sequence[Row], best: int) -> None:
        """Take the rows of all epochs and the 1-based best of them, for curves; lines of text have no room for them."""

    def message(self, text: str) -> None:
        """Print a line; a live line stays below it."""
        if self.enabled:
            self.out.print(text, markup=False, highlight=False, soft_wrap=True)

    def finish(self, lines: Sequence[str]) -> None:
        """Print the end of the run: best epoch, where the files are."""
        self._erase()
        self.message("")
        for line in lines:
            self.message(line)

    def close(self) -> None:
        """Give the terminal back. Safe to call at any time and more than once."""
        self._erase()

    # ------------------------------------------------------------------------------------------ parts

    def _standing(self, step: int, losses: Mapping[str, float], boxes: int, now: float) -> Standing:
        elapsed = max(now - self._epoch_began, 1e-9)
        done = min(step + 1, self._batches)
        left = elapsed / done * (self._batches - done)
        mean_epoch = sum(self._epoch_seconds) / len(self._epoch_seconds) if self._epoch_seconds else elapsed + left
        run_left = left + mean_epoch * (self._epochs - self._epoch - 1)
        parts = {
            "epoch": f"epoch {self._epoch + 1}/{self._epochs}",
            "batch": f"{done}/{self._batches}",
            **{name: f"{_short(name)} {value:.4g}" for name, value in losses.items()},
            "boxes": f"boxes {boxes}",
            "speed": f"{self._images / elapsed:.1f} img/s",
            **({"memory": f"{memory / 2**30:.1f} GB"} if math.isfinite(memory := peak_memory(self.device)) else {}),
            "ETA": f"ETA {duration(left)}, run {duration(run_left)}",
        }
        least = ["memory", "boxes", "speed", *reversed([*losses]), "batch", "epoch"]
        return Standing(done, self._batches, parts, least)

    def _draw(self, line: str) -> None:
        from rich.live import Live
        from rich.text import Text

        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(text, console=self.out, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(text, refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _cells(self, row: Mapping[str, float], seconds: float) -> dict[str, str]:
        """The row by column name, formatted."""
        cells = {"epoch": f"{self._epoch + 1}/{self._epochs}"}
        for key, value in row.items():
            if key.startswith(("train/", "metrics/")) or key == "lr/pg0":
                cells[_short(key)] = _number(key, value)
        cells["img/s"] = f"{self._images / max(self._last_batch - self._epoch_began, 1e-9):.1f}"
        cells["time"] = duration(seconds)
        return cells

    def _print_row(self, cells: Mapping[str, str], bold: bool = False) -> None:
        row = {name: cells.get(name, "-").rjust(max(9, len(name))) for name in self._columns}
        text = fitted(row, _less_wanted(self._columns), line_width(self.out), gap=" ")
        style = "bold" if bold else None
        self.out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def fitted(parts: Mapping[str, str], least: Sequence[str], width: int | None, gap: str = "  ") -> str:
    """Join parts into a line of at most ``width`` characters, without those of ``least``, in its order, if need be."""
    kept = dict(parts)
    for name in least:
        if width is None or len(gap.join(kept.values())) <= width:
            break
        kept.pop(name, None)
    return gap.join(kept.values())


def _less_wanted(columns: Sequence[str]) -> list[str]:
    """Columns of a row in the order in which a narrow terminal goes without them."""
    others = [name for name in reversed(columns) if name not in (*_LEAST, *_ALWAYS)]
    return [*_LEAST, *others]


def _short(key: str) -> str:
    """`train/box_loss` as `box`, `metrics/mAP50(B)` as `mAP50`."""
    if key in _SHORT:
        return _SHORT[key]
    return key.rpartition("/")[2].removesuffix("(B)").removesuffix("_loss")


def _number(key: str, value: float | None) -> str:
    if value is None or value != value:  # NaN: not measured
        return "-"
    if key.startswith("metrics/"):
        return f"{value:.4f}"
    return f"{value:.3g}" if key.startswith("lr/") else f"{value:.4g}"


def _ordered(columns: Sequence[str]) -> list[str]:
    """Columns that came later go before lr, img/s and time, which close the row."""
    tail = ("lr", "img/s", "time")
    return [name for name in columns if name not in tail] + [name for name in tail if name in columns]
