"""What stands below the cell of a notebook while a model trains: plan, live line, table of epochs, curves, the end.

The parts are replaced, never added to, so the output of a cell stays small however long the run is: of its epochs the
latest and the best are shown, and the curves hold a bounded number of points. All epochs are in ``results.csv``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape

from eyas.notebook import Screen
from eyas.report.charts import Row
from eyas.report.console import RunConsole, Standing, Table
from eyas.report.inline import curves
from eyas.tables import html_table

PERIOD = 0.5  # seconds between two pictures of an epoch that goes on
ROWS = 12  # latest epochs in the table
BEST = "best"  # title of a column


class RunPanel(RunConsole):
    """Shows a run in parts of HTML; what only a line can say is printed.

    Args:
        screen: where the parts are shown.
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock=clock)
        self.screen = screen
        self._rows: list[tuple[int, Mapping[str, str]]] = []  # 1-based epoch and its cells
        self._best = 0
        self._curves = ""

    def start(self, header: str, tables: Sequence[Table]) -> None:
        """Show what is about to run: one line, and tables that open when they are asked for."""
        folded = (
            f"<details><summary>{escape(table.title)}</summary>{html_table(table.header, table.rows)}</details>"
            for table in tables
        )
        self.screen.show("plan", f"<p><b>{escape(header)}</b></p>{''.join(folded)}", header)
        self._show_epochs()  # parts stay in the order in which they came: this one above the live line

    @property
    def period(self) -> float:
        """Seconds between two looks at an epoch that goes on."""
        return PERIOD

    def tell(self, standing: Standing) -> None:
        """Show how far an epoch has come, below the epochs before it."""
        text = "  ".join(standing.parts.values())
        bar = f'<progress value="{standing.done}" max="{standing.batches}"></progress>'
        self.screen.show("live", f"<div>{bar} {escape(text)}</div>", text)

    def draw(self, history: Sequence[Row], best: int) -> None:
        """Take the curves of the epochs so far, and which is the best; they are shown with the next row."""
        self._curves, self._best = curves(history, best or None), best

    def show_row(self, cells: Mapping[str, str], is_wider: bool) -> None:
        """Show an epoch's numbers."""
        kept = [row for row in self._rows[1 - ROWS :] if row[0] != self._best]
        kept = [row for row in self._rows if row[0] == self._best][:1] + kept
        self._rows = [*kept, (self._epoch + 1, cells)]
        self._show_epochs()

    def finish(self, lines: Sequence[str]) -> None:
        """Show the end of the run in place of the live line: best epoch, where the files are."""
        said = "".join(f"<div>{escape(line)}</div>" for line in lines)
        self.screen.show("live", said, "\n".join(lines))

    def close(self) -> None:
        """Nothing is to be given back."""

    def _show_epochs(self) -> None:
        rows = [[cells.get(name, "-") for name in self._columns] + ["●" * (n == self._best)] for n, cells in self._rows]
        table = html_table((*self._columns, BEST), rows) if rows else ""
        last = self._rows[-1][1] if self._rows else {}
        self.screen.show("epochs", table + self._curves, "  ".join(f"{k} {v}" for k, v in last.items()))
