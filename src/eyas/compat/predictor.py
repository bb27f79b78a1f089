"""The predictor as scripts know it: Eyas' own, which says what to use where it is called as the incumbent's."""

from __future__ import annotations

from typing import Any

from torch import nn

from eyas.config.errors import show
from eyas.evaluate import Predictor


class DetectionPredictor(Predictor):
    """Finds objects in images; see `eyas.evaluate.Predictor` for its arguments.

    Raises:
        ValueError: there is no network, or there are arguments of the incumbent's; says what to use.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        foreign = settings.keys() & {"cfg", "overrides", "_callbacks"}
        if foreign or not isinstance(given[0] if given else settings.get("model"), nn.Module):
            raise ValueError(instead(settings.get("overrides")))
        super().__init__(*given, **settings)


def instead(overrides: Any) -> str:
    """Return what to call for arguments as the incumbent's predictor takes them."""
    asked = dict(overrides) if isinstance(overrides, dict) else {}
    name, source = asked.pop("model", "best.pt"), asked.pop("source", "images")
    options = "".join(f", {key}={show(value)}" for key, value in asked.items())
    return (
        f"a predictor takes no cfg, overrides or _callbacks: use YOLO({show(name)}).predict({show(source)}{options}), "
        "or give it a network, DetectionPredictor(model.model)."
    )
