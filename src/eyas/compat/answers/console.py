"""What scripts write to the terminal with: ``colorstr`` and ``TQDM``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from eyas.names import did_you_mean

COLORS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
STYLES = {
    **{name: f"\033[{30 + i}m" for i, name in enumerate(COLORS)},
    **{f"bright_{name}": f"\033[{90 + i}m" for i, name in enumerate(COLORS)},
    "bold": "\033[1m",
    "underline": "\033[4m",
    "end": "\033[0m",
}


def colorstr(*words: str) -> str:
    """Return the last word in the colours and styles that the others name; blue and bold when there are none.

    Raises:
        ValueError: no such colour or style.
    """
    *styles, text = words if len(words) > 1 else ("blue", "bold", *words)
    unknown = [style for style in styles if style not in STYLES]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is no colour or style.{did_you_mean(unknown[0], STYLES)} Known are {', '.join(STYLES)}."
        )
    return "".join(STYLES[style] for style in styles) + f"{text}{STYLES['end']}"


class TQDM:
    """A progress bar over an iterable, or moved on by `update`; it is drawn where the output is a terminal.

    Args:
        iterable: what is gone through; None for a bar that `update` moves.
        desc: text in front. total: steps; None takes the length of ``iterable``. disable: draw nothing.
        initial: steps that lie behind. leave: keep the full bar on the screen.

    How it looks (``bar_format``, ``unit``, ``ncols`` and the like) is Eyas' own affair.

    Attributes:
        n: steps done. total: steps in all, or None.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        leave: bool = True,
        *,
        disable: bool = False,
        initial: int = 0,
        **looks: Any,
    ) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from eyas.log import console

        self.iterable = iterable
        self.n, self.total = initial, total if total is not None or iterable is None else _length(iterable)
        self.desc, self.note = desc or "", ""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=console(), transient=not leave)
        self.task = self.bar.add_task(self.desc, total=self.total, completed=initial)
        if not disable and console().is_terminal:
            self.bar.start()

    def __iter__(self) -> Iterator[Any]:
        if self.iterable is None:
            raise ValueError("TQDM was given nothing to go through: pass an iterable, or move the bar by update().")
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def __len__(self) -> int:
        return self.total or 0

    def __enter__(self) -> TQDM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Move on by ``n`` steps."""
        self.n += n
        self.bar.update(self.task, completed=self.n)

    def set_description(self, desc: str | None = None) -> None:
        """Change the text in front."""
        self.desc = desc or ""
        self._describe()

    def set_postfix(self, **values: Any) -> None:
        """Show values beside the text."""
        self.note = "  ".join(f"{name}={value}" for name, value in values.items())
        self._describe()

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(text, markup=False)

    def close(self) -> None:
        """Take the bar off the screen, or leave it as it is. May be called twice."""
        if self.bar.live.is_started:  # rich ends even a bar that was never drawn with an empty line
            self.bar.stop()

    def _describe(self) -> None:
        self.bar.update(self.task, description=f"{self.desc} {self.note}".strip())


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]  # a generator has none
    except TypeError:
        return None
