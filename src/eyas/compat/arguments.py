"""Arguments that scripts pass out of habit: those that ask for what happens anyway are left out, and that is said.

A value that asks for something else is never left out: it goes on to Eyas' own options, which refuse it with what to
use instead, or is refused here where they have no such name.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyas.config import TrainOptions
from eyas.config.errors import OptionValueError, UnsupportedOptionError, show
from eyas.config.options import facts, option_names
from eyas.config.resolve import read_option_file
from eyas.log import LOGGER

OTHER_TASKS = frozenset(
    (
        *("overlap_mask", "mask_ratio", "retina_masks", "pose", "kobj", "rle", "angle", "dlog", "dgrad", "dlam"),
        "copy_paste_mode",
    )
)
"""They tune masks, key points or rotated boxes; whatever their value, they say nothing about boxes."""

OF_TRACKING = frozenset(("tracker", "persist"))
"""They tune tracks; whatever their value, they say nothing about boxes where nothing is tracked."""

EXPORT_ONLY = frozenset(("format", "optimize", "dynamic", "simplify", "opset", "workspace", "keras"))
"""They configure an export; whatever their value, training, validation and prediction go without one."""

OFF: Mapping[str, tuple[object, ...]] = {
    "task": ("detect", None),
    "source": (None,),
    # training
    "label_smoothing": (0, None),
    "dropout": (0, None),
    "copy_paste": (0, None),
    "fl_gamma": (0, None),
    "image_weights": (False, None),
    "anchors": (None,),
    "v5loader": (False, None),
    "min_memory": (False, None),
    "augmentations": (None, [], ()),
    "auto_augment": ("randaugment", None, "", False),  # of classification, and never used for boxes
    "erasing": (0.4, 0, None),  # likewise
    "crop_fraction": (1, None),
    "profile": (False, None),
    "distill_model": (None, "", False),
    "dis": (6, None),
    # precision and inference
    "half": (False, None),
    "int8": (False, None),
    "quantize": (None, False, 32, "fp32"),
    "dnn": (False, None),
    "augment": (False, None),
    "end2end": (None,),
    "save_hybrid": (False, None),
    "visualize": (False, None),
    "embed": (None, [], ()),
    # pictures
    "show": (False, None),
    "show_boxes": (True, None),
    "boxes": (True, None),
    "hide_labels": (False, None),
    "hide_conf": (False, None),
    "line_thickness": (None, 3),
}
"""Argument -> values with which it asks for what happens anyway, whatever is called."""

OF_COMMAND: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "train": {"mode": ("train", None), "rect": (False, None)},
    "val": {"mode": ("val", None), "rect": (True, None), "compile": (False, None)},
    "predict": {"mode": ("predict", None), "rect": (True, None), "compile": (False, None)},
    "track": {"mode": ("track", None), "rect": (True, None), "compile": (False, None)},
}
"""The same, of arguments whose meaning depends on the command."""

INSTEAD: Mapping[str, str] = {
    "fl_gamma": "there is no focal loss; cls= weighs the loss of classes, class_weights= the classes",
    "image_weights": "use sampler='balanced'",
    "anchors": "the detectors have no anchor boxes",
    "v5loader": "there is one loader",
    "min_memory": "use a smaller batch",
    "boxes": "use the result's .plot() and .save()",
    "hide_labels": "use show_labels=False, or the result's .plot(labels=False)",
    "hide_conf": "use show_conf=False, or the result's .plot(conf=False)",
    "line_thickness": "use line_width=",
}
"""Argument that Eyas' own options do not know, or know no better answer to -> what to use instead."""


class Arguments:
    """Reads what one script object is called with; each argument that is left out is told once.

    Args:
        spoken: argument -> values that are told already; two objects that share it tell an argument once.
    """

    def __init__(self, spoken: dict[str, object] | None = None) -> None:
        self.spoken = {} if spoken is None else spoken

    def read(self, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``command`` that mean something to Eyas, in its own spelling.

        Raises:
            UnsupportedOptionError, OptionValueError: one asks for what Eyas does not do; says what to use.
        """
        kept = {name: value for name, value in spelled(from_file(given)) if not neutral(command, name, value)}
        for name in kept:
            if name in INSTEAD:
                raise UnsupportedOptionError(f"option {name!r} is not supported by Eyas: {INSTEAD[name]}")
        self.tell(command, {name: value for name, value in given.items() if name not in kept and name != "cfg"})
        return kept

    def tell(self, command: str, left_out: Mapping[str, Any]) -> None:
        """Say which arguments change nothing, in one line."""
        new = {name: value for name, value in left_out.items() if name not in self.spoken}
        self.spoken.update(new)
        if new:
            listed = ", ".join(f"{name}={show(value)}" for name, value in new.items())
            LOGGER.warning("%s() does these anyway, or has no use for them: %s", command, listed)


def neutral(command: str, name: str, value: object) -> bool:
    """Whether an argument asks for what happens anyway."""
    if name in OTHER_TASKS or name in EXPORT_ONLY:
        return True
    values = OF_COMMAND[command].get(name, OFF.get(name))
    if values is not None:
        return among(value, values)
    if name == "device":
        return value == ""
    if name == "workers" and command in ("predict", "track"):
        return isinstance(value, int) and value >= 0  # who reads changes no result
    if name in OF_TRACKING and command != "track":
        return True
    of_another = name in option_names() and command not in facts(name).commands
    return of_another and among(value, (TrainOptions().get(name), None))


def among(value: object, values: Container[object] | Sequence[object]) -> bool:
    """Whether a value is one of those, where 0 and 0.0 are the same and False is neither."""
    assert isinstance(values, tuple)
    return any(isinstance(value, bool) == isinstance(other, bool) and value == other for other in values)


def spelled(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give arguments in Eyas' spelling where it differs and the meaning does not.

    Raises:
        OptionValueError: a value that has no counterpart.
    """
    for name, value in given.items():
        if name == "multi_scale" and isinstance(value, bool):
            if value:
                raise OptionValueError("multi_scale=True: say by which share sizes vary, for example multi_scale=0.5")
            yield name, 0.0
        elif name == "imgsz" and isinstance(value, list | tuple) and len(set(value)) == 1:
            yield name, value[0]
        elif name == "compile" and value == "default":
            yield name, True
        else:
            yield name, value


def from_file(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments together with those of the YAML file that ``cfg`` names; the call wins."""
    file = given.get("cfg")
    if not isinstance(file, str | Path):
        return dict(given)
    values, _ = read_option_file(file)
    return values | {name: value for name, value in given.items() if name != "cfg"}
