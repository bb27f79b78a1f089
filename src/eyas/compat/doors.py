"""Where a script puts code of its own: the methods that a training does call, for every part of the incumbent's names.

A script that sets a name of a module, or a method of a class that answers one, would otherwise change nothing unseen.
"""

from __future__ import annotations

from collections.abc import Mapping

DOORS: Mapping[str, str] = {
    "data": "return a data set or loader of your own from build_dataset() or get_dataloader() of a trainer, or give "
    "transforms= to train()",
    "loss": "return a loss of your own from init_criterion() of a model, which get_model() of a trainer builds",
    "metrics": "return a validator of your own from get_validator() of a trainer, with its get_stats() overridden",
    "nn": "layers of your own are a model class of your own, which get_model() of a trainer returns",
    "callbacks": "register functions by add_callback(event, fn) of a model or trainer",
    "engine": "subclass the class, override its methods, and pass a trainer as train(trainer=Mine)",
    "cfg": "pass options to train(), val() and predict()",
}
"""Part -> the door, as the rest of a sentence."""

GENERAL = (
    "override a method of a trainer (build_dataset(), get_dataloader(), get_model(), get_validator(), ...) instead"
)

PARTS: Mapping[str, str] = {
    "ultralytics.data": "data",
    "ultralytics.utils.instance": "data",
    "ultralytics.utils.loss": "loss",
    "ultralytics.utils.tal": "loss",
    "ultralytics.models.utils": "loss",
    "ultralytics.utils.metrics": "metrics",
    "ultralytics.utils.ops": "metrics",
    "ultralytics.nn": "nn",
    "ultralytics.utils.callbacks": "callbacks",
    "ultralytics.engine": "engine",
    "ultralytics.models": "engine",
    "ultralytics.cfg": "cfg",
    "eyas.compat.answers.augment": "data",
    "eyas.compat.answers.build": "data",
    "eyas.compat.answers.dataset": "data",
    "eyas.compat.answers.instance": "data",
    "eyas.compat.answers.loss": "loss",
    "eyas.compat.losses": "loss",
    "eyas.compat.answers.tal": "loss",
    "eyas.compat.answers.metrics": "metrics",
    "eyas.compat.answers.cfg": "cfg",
}
"""Module, with those below it -> the part that it is of."""


def door(module: str) -> str:
    """Return what to do instead of changing a module or a class in it; the nearest module above it decides."""
    while module:
        if module in PARTS:
            return DOORS[PARTS[module]]
        module = module.rpartition(".")[0]
    return GENERAL
