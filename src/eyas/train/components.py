"""Which callbacks hang in a run's loop: those that its options ask for, the user's, and the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eyas.callbacks import Callback, CallbackList
from eyas.callbacks.base import StockCallback
from eyas.callbacks.stock import FIRST, LAST
from eyas.config import TrainOptions
from eyas.prove.conflicts import refuse_option_beside_component
from eyas.report.page import RunPage
from eyas.report.pictures import Pictures
from eyas.report.predictions import Predictions
from eyas.report.progress import ConsoleReport
from eyas.trackers import Trackers

REPORTS = (ConsoleReport, Pictures, RunPage, Predictions)
Given = CallbackList | Mapping[str, list[Callable[..., object]]] | Sequence[Callback] | None


def collect_callbacks(given: Given, options: TrainOptions) -> CallbackList:
    """Return the stock callbacks and the user's; one given by the user takes the place of the stock one of its class.

    Raises:
        ConflictError: an option was typed that asks for what a given component decides.
    """
    if isinstance(given, CallbackList):
        mine, functions = list(given.callbacks), given.functions
    elif isinstance(given, Mapping):
        mine, functions = [], dict(given)
    else:
        mine, functions = list(given or []), {}
    CallbackList(mine)  # refuses classes and strangers before they are looked at
    refuse_option_beside_component(mine, options)
    first = [c for cls in FIRST for c in place(cls, mine, options)]
    last = [c for cls in LAST for c in place(cls, mine, options)]
    own = [c for c in mine if not isinstance(c, (*FIRST, *LAST, *REPORTS, Trackers))]
    sent = place(Trackers, mine, options)  # last, so that what the reports draw is sent too
    return CallbackList([*first, *own, *last, *reports(mine, options), *sent], functions)


def place(cls: type[StockCallback], mine: list[Callback], options: TrainOptions) -> list[Callback]:
    """Return the user's components of a stock class, else the one that the options ask for, if they do."""
    given: list[Callback] = [c for c in mine if isinstance(c, cls)]
    if given:
        return given
    component = cls.from_options(options)
    if component is None or (component.decides and any(c.decides == component.decides for c in mine)):
        return []
    sources = [options.source(name) for name in sorted(cls.options, key=options.is_typed, reverse=True)]
    component.origin = next((source for source in sources if source != "default"), "default")
    return [component]


def reports(mine: list[Callback], options: TrainOptions) -> list[Callback]:
    """Return what people look at; a report of the user's class replaces the stock one."""
    found: list[Callback] = [ConsoleReport(enabled=options.verbose)]
    found += [Pictures()] if options.plots else []
    found += [RunPage()] if options.report else []
    found += [Predictions()] if options.save_predictions else []
    for stock in found:
        stock.origin = "default"
    return [next((c for c in mine if isinstance(c, type(stock))), stock) for stock in found]
