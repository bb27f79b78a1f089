"""What the entries of a checkpoint must be, checked once where it is read: whoever uses them later need not ask."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from torch import Tensor, uint8

from eyas.checkpoint.errors import CheckpointError
from eyas.device import PRECISIONS
from eyas.types import CLASSES

FORMAT: Final = 1
MADE_UP: Final = "no Eyas writes that: use another checkpoint"
NEEDED: Final = ("model", "yaml", "nc", "names")
NEEDED_TO_RESUME: Final = ("train_args", "train_sources", "train_metrics", "fitness", "epoch")
NEEDED_OF_STATE: Final = (
    *("model", "optimizer", "scaler", "amp", "updates", "epochs", "step", "meter", "best_fitness", "best_files"),
    *("frozen", "freeze_layer_names", "plan", "data", "trainer", "history", "elapsed", "callbacks", "rng"),
)


class Field(NamedTuple):
    """What an entry must be, in words, and whether a value is."""

    what: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is a number, nan and infinity among them."""
    return type(value) in (int, float)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


def is_text(value: Any) -> bool:
    """Whether a value is a text that can be written to a file or a screen."""
    return type(value) is str and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def mapping_of(key: type, holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return the question whether a value is a dictionary with keys of one type and values that hold."""
    return lambda value: isinstance(value, dict) and all(type(k) is key and holds(v) for k, v in value.items())


def list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return the question whether a value is a list of values that hold."""
    return lambda value: type(value) in (list, tuple) and all(map(holds, value))


def is_mapping(value: Any) -> bool:
    """Whether a value is a dictionary by names."""
    return isinstance(value, dict) and all(type(key) is str for key in value)


def is_state(value: Any) -> bool:
    """Whether a value is the state of a network: tensors by name."""
    return is_mapping(value) and any(isinstance(item, Tensor) for item in value.values())


def is_meter(value: Any) -> bool:
    """Whether a value is what the losses of an unfinished epoch sum up to, or None."""
    if value is None:
        return True
    if not is_mapping(value) or not {"names", "sums", "count"} <= value.keys():
        return False
    names, sums = value["names"], value["sums"]
    summed = (
        isinstance(sums, Tensor) and sums.is_floating_point() and sums.ndim in (1, 2) and sums.shape[-1] == len(names)
    )
    return list_of(is_text)(names) and is_count(value["count"]) and (summed or (sums is None and not names))


def is_optimizer(value: Any) -> bool:
    """Whether a value is the state of an optimizer."""
    if not is_mapping(value) or not mapping_of(int, is_mapping)(value.get("state")):
        return False
    groups = value.get("param_groups")
    numbers = list_of(is_count)
    return list_of(lambda group: is_mapping(group) and numbers(group.get("params")))(groups)


def is_best_files(value: Any) -> bool:
    """Whether a value is epochs by the names of files, which lead nowhere else."""
    return mapping_of(str, is_count)(value) and not any({"/", "\\"} & set(name) for name in value)


def is_white(value: Any) -> bool:
    """Whether a value is what is white in images, by their kind."""
    above = mapping_of(str, lambda v: is_number(v) and 0 < v < math.inf)
    return above(value) and value.keys() <= {"whole", "real", "wide"}


def is_generator(value: Any) -> bool:
    """Whether a value is the state of a generator of random numbers."""
    return isinstance(value, Tensor) and value.dtype == uint8 and value.ndim == 1


def is_callbacks(value: Any) -> bool:
    """Whether a value is the settings and the state of callbacks by their names."""
    return mapping_of(
        str, lambda saved: is_mapping(saved) and isinstance(saved.get("settings"), dict) and "state" in saved
    )(value)


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "model": Field("tensors by name", is_state),
        "yaml": Field("a table of layers", is_mapping),
        "nc": Field(f"a number of classes from 1 to {CLASSES:,}", lambda v: is_count(v) and 1 <= v <= CLASSES),
        "names": Field("the names of the classes by number", mapping_of(int, is_text)),
        "model_class": Field("the name of a class", is_text),
        "train_args": Field("options by name", is_mapping),
        "train_sources": Field("where each option is from", mapping_of(str, is_text)),
        "began_in": Field("the way to the folder that a training was started in", is_text),
        "train_metrics": Field("numbers by name", mapping_of(str, is_number)),
        "fitness": Field("a number or none", lambda v: v is None or is_number(v)),
        "epoch": Field("the number of an epoch", is_count),
        "date": Field("a date", is_text),
        "white": Field("values above 0 by kind of image", is_white),
        "val_batch": Field("a number of images", lambda v: is_count(v) and v > 0),
        "licence": Field("the name of a licence", is_text),
        "ancestors": Field("texts by name for each that it descends from", list_of(mapping_of(str, is_text))),
        "state": Field("the state of a run", is_mapping),
    }
)
"""Entry of a checkpoint -> what it must be."""
STATE: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "model": FIELDS["model"],
        "optimizer": Field("the state of an optimizer", is_optimizer),
        "scaler": Field("numbers by name", mapping_of(str, is_number)),
        "amp": Field("fp32, fp16 or bf16", lambda v: v in PRECISIONS.values()),
        "updates": Field("a number of steps", is_count),
        "average_trusted": Field("true or false", lambda v: type(v) is bool),
        "epochs": Field("a number of epochs", is_count),
        "step": Field("a number of batches", is_count),
        "over": Field("true or false", lambda v: type(v) is bool),
        "meter": Field("losses so far, or none", is_meter),
        "best_fitness": FIELDS["fitness"],
        "best_files": Field("epochs by name of a file", is_best_files),
        "frozen": Field("names of parameters", list_of(is_text)),
        "freeze_layer_names": Field("names of layers", list_of(is_text)),
        "plan": Field("a plan", is_mapping),
        "data": Field("digests by name", mapping_of(str, is_text)),
        "bad_images": Field(
            "why images could not be loaded, by split and path", mapping_of(str, mapping_of(str, is_text))
        ),
        "trainer": Field("the name of a class", is_text),
        "history": Field("numbers by name for each epoch", list_of(mapping_of(str, FIELDS["fitness"].holds))),
        "rollbacks": Field("a number of times", is_count),
        "notes": Field("texts", list_of(is_text)),
        "elapsed": Field("seconds", lambda v: is_number(v) and 0 <= v < math.inf),
        "callbacks": Field("settings and state by callback", is_callbacks),
        "rng": Field("the state of a generator", is_generator),
        "cuda_rng": Field("the state of a generator", is_generator),
    }
)
"""Entry of the state of a run -> what it must be."""


def check_fields(checkpoint: Any) -> None:
    """Refuse what is no checkpoint of Eyas, or a damaged one.

    Raises:
        CheckpointError: names the entry, and says what it should be.
    """
    if not isinstance(checkpoint, dict) or "eyas" not in checkpoint or "model" not in checkpoint:
        raise CheckpointError("it is not a checkpoint of Eyas (no 'eyas' and 'model' entries)")
    about = checkpoint["eyas"]
    if not is_mapping(about) or not is_count(about.get("format")) or not is_text(about.get("version")):
        raise CheckpointError("its entry 'eyas' does not say format and version")
    if about["format"] > FORMAT:
        raise CheckpointError(f"it was written by a newer Eyas ({about['version'][:20]}); please update")
    check_entries(checkpoint, FIELDS, NEEDED, "")
    if sorted(checkpoint["names"]) != list(range(checkpoint["nc"])):
        raise CheckpointError(f"it has {checkpoint['nc']} classes, and 'names' does not name these; {MADE_UP}")
    if "state" in checkpoint:
        check_entries(checkpoint, {}, NEEDED_TO_RESUME, "")
        check_entries(checkpoint["state"], STATE, NEEDED_OF_STATE, "state.")


def check_entries(values: Mapping[str, Any], fields: Mapping[str, Field], needed: tuple[str, ...], where: str) -> None:
    """Refuse entries that are missing or of another kind.

    Raises:
        CheckpointError: names the first.
    """
    for name in needed:
        if name not in values:
            raise CheckpointError(f"its entry '{where}{name}' is missing; {MADE_UP}")
    for name, field in fields.items():
        if name in values and not field.holds(values[name]):
            raise CheckpointError(
                f"its entry '{where}{name}' should be {field.what}, not {reprlib.repr(values[name])}; {MADE_UP}"
            )
