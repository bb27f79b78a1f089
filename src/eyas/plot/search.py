"""What a search has found: for every option, how good the trials were by its value."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from eyas.plot.style import ACCENT, SECOND, new_figure, save_figure, shortened, tidy

COLUMNS = 3


def save_search_picture(
    path: Path,
    *,
    values: Sequence[float],
    options: Mapping[str, Sequence[object]],
    log: Collection[str],
    metric: str,
    best: int,
) -> Path:
    """Draw a panel for each option: a dot for each trial, the best one in another colour.

    Args:
        path: picture to write.
        values: of the metric, one of each trial, (n,).
        options: name -> values of the trials, each (n,); what is no number stands as a word.
        log: options over orders of magnitude.
        metric: name of the values.
        best: index of the best trial.
    """
    columns = min(len(options), COLUMNS)
    rows = math.ceil(len(options) / columns)
    figure = new_figure(3.4 * columns, 2.9 * rows)
    for i, (name, tried) in enumerate(options.items()):
        axis = figure.add_subplot(rows, columns, i + 1)
        tidy(axis, title=name, y=shortened(metric) if i % columns == 0 else "")
        places, words = placed(tried)
        axis.plot(places, values, "o", markersize=5, color=ACCENT, alpha=0.6)
        axis.plot(places[best], values[best], "o", markersize=8, color=SECOND)
        if words:
            axis.set_xticks(range(len(words)), words)
        elif name in log:
            axis.set_xscale("log")
    return save_figure(figure, path)


def placed(tried: Sequence[object]) -> tuple[list[float], list[str]]:
    """Return where values stand on an axis, and the words under it; numbers stand for themselves."""
    numbers = [float(v) for v in tried if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(tried):
        return numbers, []
    words = list(dict.fromkeys(map(str, tried)))
    return [float(words.index(str(v))) for v in tried], [shortened(word, 12) for word in words]
