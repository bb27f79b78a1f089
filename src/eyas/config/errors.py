"""What can be wrong with an option, told in one line: its name, what was given and where, what to write instead."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from eyas.names import did_you_mean, nearest


class OptionError(ValueError):
    """Any mistake in the options. Its message has one line per mistake and is meant for people."""


class UnknownOptionError(OptionError, AttributeError):
    """An option of this name does not exist. Also an AttributeError, because `options.nmae` is an attribute access."""


class UnsupportedOptionError(UnknownOptionError):
    """A well-known option of other trainers that has no effect here, and is therefore refused, with the reason."""


class OptionValueError(OptionError):
    """The value given for an option has the wrong type, is out of range, or contradicts another option."""


_OTHER_TASK = "it belongs to another task; Eyas trains object detectors"
_EXPORT = "it configures an export: `eyas export` and YOLO(...).export() take it"
_NO_EXPORT = "it configures an export that Eyas does not write; `eyas export --help` shows those that it does"
_SHOW = "nothing opens windows by itself; call the result's .show(), .plot() or .save()"

# Known options of other trainers that would have no effect here. Accepting them silently would be a lie.
UNSUPPORTED = {
    "task": "Eyas has one task, detection; leave it out",
    "mode": "the mode is the command (`eyas train`, `eyas val`) or the method called; leave it out",
    "source": "it belongs to prediction: `eyas predict source=...` or YOLO(...).predict(source)",
    "rect": "training batches are square; validation already uses rectangular batches",
    "copy_paste": "it needs segmentation masks; use mixup or cutmix",
    "copy_paste_mode": "it needs segmentation masks; use mixup or cutmix",
    "augmentations": "give callables on (image, boxes, labels) in Python: YOLO(...).train(transforms=[...])",
    "auto_augment": "it belongs to classification; use hsv_*, degrees, translate, scale, mosaic, mixup",
    "erasing": "it belongs to classification; use cutmix",
    "augment": "test-time augmentation is not supported",
    "visualize": "feature pictures are not supported; use plots=True for validation pictures",
    "profile": "`eyas val model=best.onnx` times an exported model, `eyas profile` the parts of a training",
    "distill_model": "use teacher: a file of a frozen network to learn from",
    "dis": "use teacher_gain, a factor on the weight of what teacher=FILE teaches",
    "quantize": "quantisation is not supported; for lower precision in training use amp",
    "half": "use amp for lower precision in training; an export takes half",
    "int8": "it configures an export: `eyas export model=best.pt format=onnx int8=true`",
    "dnn": "the OpenCV DNN backend is not supported",
    "end2end": "use nms: nms=True is one-to-many + NMS, nms=False the end-to-end head",
    "label_smoothing": "the detection loss uses soft targets from the assigner; there is nothing to smooth",
    "save_hybrid": "it put ground truth into predictions and so made metrics meaningless",
    "crop_fraction": _OTHER_TASK,
    "keras": _NO_EXPORT,
    "overlap_mask": _OTHER_TASK,
    "mask_ratio": _OTHER_TASK,
    "retina_masks": _OTHER_TASK,
    "dropout": _OTHER_TASK,
    "pose": _OTHER_TASK,
    "kobj": _OTHER_TASK,
    "rle": _OTHER_TASK,
    "angle": _OTHER_TASK,
    "dlog": "it belongs to the loss of another task",
    "dgrad": "it belongs to the loss of another task",
    "dlam": "it belongs to the loss of another task",
    "embed": "embeddings are not supported",
    "show": _SHOW,
    "show_boxes": _SHOW,
    "format": _EXPORT,
    "optimize": _NO_EXPORT,
    "dynamic": _EXPORT,
    "simplify": _EXPORT,
    "opset": _EXPORT,
    "workspace": _EXPORT,
}


def nearest_options(name: str, names: Iterable[str], synonyms: Mapping[str, str], n: int = 3) -> list[str]:
    """Real names that `name` was probably meant to be, best first. Case and `-` versus `_` do not count.

    `synonyms` maps names that other tools use for the same thing to real ones.
    """
    plain = name.lower().replace("-", "_")
    known = list(names)
    synonym = synonyms.get(plain)
    if synonym in known:
        return [synonym]
    return nearest(plain, known, n=n)


def unknown_option(name: object, names: Iterable[str], where: str, synonyms: Mapping[str, str]) -> UnknownOptionError:
    """The error for an option that does not exist: why it is refused if it is a known one, else the nearest names."""
    text = str(name) if isinstance(name, str) else show(name)
    text = text if len(text) <= 60 else text[:57] + "..."
    if text in UNSUPPORTED:
        return UnsupportedOptionError(f"option {text!r}{_at(where)} is not supported by Eyas: {UNSUPPORTED[text]}")
    close = nearest_options(text, names, synonyms)
    hint = f"did you mean {_or(close)}?" if close else "`eyas explain` lists all options"
    return UnknownOptionError(f"unknown option {text!r}{_at(where)}: {hint}")


def refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Stop at a key that a mapping may not have.

    Raises:
        ValueError: names the nearest one.
    """
    for key in given:
        if key not in known:
            raise ValueError(f"{where} has no {key!r}.{did_you_mean(key, known)} Known: {', '.join(known)}.")


def bad_value(name: str, value: object, expected: str, where: str = "", reason: str = "") -> OptionValueError:
    """The error for a value of the wrong type or out of range."""
    because = f" ({reason})" if reason else ""
    return OptionValueError(f"{name}={show(value)}{_at(where)}: expected {expected}{because}")


def show(value: object) -> str:
    """A short one-line repr that cannot fail, whatever a user passed."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"<an integer of {value.bit_length()} bits>"
    shorten = reprlib.Repr()
    shorten.maxstring = shorten.maxother = 60
    try:
        return " ".join(shorten.repr(value).split())
    except ValueError:  # a nested integer too long for Python to print
        return f"<{type(value).__name__}>"


def _at(where: str) -> str:
    return f" ({where})" if where else ""


def _or(names: list[str]) -> str:
    return " or ".join(names)
