"""Values of options: what people write, made into one form and checked. One type for each kind of option."""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from eyas.config.errors import bad_value
from eyas.names import nearest

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_UNITS = {"s": 1, "min": 60, "h": 3600}  # seconds
_DEVICE = re.compile(r"cpu|mps|cuda|cuda:\d+|\d+")
CURVES = ("linear", "cosine", "flat-cosine", "step")
_OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop")


def _to_plain_scalar(value: object) -> object:
    """NumPy scalars become Python numbers and paths become strings; everything else stays what it is."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _to_int(value: object) -> object:
    """2.0 is a whole number; 2.5 and True are not."""
    value = _to_plain_scalar(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("too large")  # torch and NumPy hold whole numbers in 64 bits
    return value


def _to_float(value: object) -> object:
    """2 is the number 2.0."""
    value = _to_int(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_list(value: object) -> object:
    """One class index or several."""
    if isinstance(value, tuple | list):
        return [_to_int(item) for item in value]
    value = _to_int(value)
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _to_pair(value: object) -> object:
    if isinstance(value, tuple | list):
        return tuple(_to_plain_scalar(item) for item in value)
    return _to_plain_scalar(value)


def _check_scale(value: float | tuple[float, float]) -> float | tuple[float, float]:
    if isinstance(value, tuple):
        if not 0 < value[0] <= value[1] <= 10:
            raise ValueError("a pair must satisfy 0 < min <= max <= 10")
    elif not 0 <= value <= 1:
        raise ValueError("a number must be between 0 and 1")
    return value


def whole_number(name: str, value: object, least: int) -> int:
    """Return a count that somebody gave, unless it is none.

    Raises:
        OptionValueError: it is no whole number, or below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad_value(name, value, f"a whole number from {least} on")
    return value


def duration(text: str) -> float:
    """Return the seconds of a text such as ``"90s"``, ``"15min"`` or ``"1.5h"``.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("a time is a number with its unit: 90s, 15min, 1.5h")
    return float(found[1]) * _UNITS[found[2]]


def _check_period(value: str | int | bool) -> str | int | bool:
    if value is True:
        raise ValueError("say how often")
    if isinstance(value, str):
        if duration(value) <= 0:
            raise ValueError("must be above 0; False turns it off")
    elif value is not False and value < 1:
        raise ValueError("must be at least 1 step; False turns it off")
    return value


def _check_images(value: int | str) -> int | str:
    if isinstance(value, int) and value < 1:
        raise ValueError("must be at least 1")
    return value


def _to_cache(value: object) -> object:
    return "ram" if value is True else value


def _to_amp(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _to_device(value: object) -> object:
    """[0, 1] and "0,1" are the same two GPUs."""
    if isinstance(value, list | tuple):
        return ",".join(str(_to_device(item)) for item in value)
    value = _to_plain_scalar(value)
    if isinstance(value, str):
        return value.replace(" ", "")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_device(value: str) -> str:
    parts = value.split(",")
    if not all(_DEVICE.fullmatch(part) for part in parts):
        raise ValueError("no such kind of device")
    if len(parts) > 1 and not all(part.isdigit() for part in parts):
        raise ValueError("several devices are given by their numbers; processes=N runs several on a CPU")
    if len(set(parts)) < len(parts):
        raise ValueError("the same device is named twice")
    return value


def _to_optimizer(value: object) -> object:
    """Known names are matched whatever their case; other names are looked up in torch.optim when it is built."""
    if not isinstance(value, str):
        return value
    by_lower = {name.lower(): name for name in _OPTIMIZERS}
    return by_lower.get(value.lower(), value)


def _check_optimizer(value: str) -> str:
    if not value.isidentifier():
        raise ValueError("not the name of an optimizer")
    close = nearest(value.lower(), map(str.lower, _OPTIMIZERS), cutoff=0.8)
    known = {name.lower(): name for name in _OPTIMIZERS} | {name.lower(): name for name in _TORCH_OPTIMIZERS}
    if close and value.lower() not in known:
        raise ValueError(f"did you mean {known[close[0]]}?")
    return value


# Names that resemble one of ours and are real: they must not be taken for typing mistakes.
_TORCH_OPTIMIZERS = ("Adadelta", "Adafactor", "Adagrad", "ASGD", "LBFGS", "Muon", "Rprop", "SparseAdam")


def _check_data(value: object) -> object:
    """A dataset given as a mapping must be made of plain values, so that it can be saved with the run."""
    if isinstance(value, dict):
        _require_plain(value, depth=0)
    return value


def _require_plain(value: object, depth: int) -> None:
    if depth > 8:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(key, depth + 1)
            _require_plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_plain(item, depth + 1)
    elif not isinstance(value, str | int | float | bool | os.PathLike | None):
        raise ValueError(f"a dataset mapping holds plain values only, not {type(value).__name__}")


def _refuse_option_file(value: str) -> str:
    raise ValueError("option files are read by train(), val(), the command line and resolve(), and do not nest")


def _to_names(value: object) -> object:
    """One name, or several; commas separate names on the command line."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _to_ignored(value: object) -> object:
    """Whether, or which classes by name or id."""
    return value if isinstance(value, bool) else _to_names(value if isinstance(value, str) else _to_items(value))


def _to_items(value: object) -> object:
    """One item or a list of them."""
    if value is None or isinstance(value, list):
        return value
    return list(value) if isinstance(value, tuple) else [_to_int(value)]


def _to_selection(value: object) -> object:
    """A number counts first layers, a list of numbers names them: the two must stay apart."""
    return list(value) if isinstance(value, tuple) else _to_int(value)


def _to_weights(value: object) -> object:
    """Numbers for classes: a name of a rule, a list, or a mapping of names to numbers."""
    if isinstance(value, Mapping):
        return _by_text(value)
    if isinstance(value, tuple | list):
        return [_to_float(item) for item in value]
    return _to_plain_scalar(value)


def _to_factors(value: object) -> object:
    """A mapping of selectors to numbers; order is kept, the first match wins."""
    return _by_text(value) if isinstance(value, Mapping) else value


def _by_text(value: Mapping[Any, Any]) -> dict[str, object]:
    """Numbers by text; the keys 1 and "1" are the same."""
    found = {str(key): _to_float(item) for key, item in value.items()}
    if len(found) < len(value):
        raise ValueError("two keys are the same text")
    return found


def _check_factors(value: dict[str, float]) -> dict[str, float]:
    bad = [key for key, factor in value.items() if factor < 0]
    if bad:
        raise ValueError(f"the factor of {bad[0]!r} is negative")
    return value


def _check_plain(value: Any) -> Any:
    _require_plain(value, depth=0)
    return value


def _to_schedule(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _check_schedule(value: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(value, dict):
        if not isinstance(value.get("name"), str):
            raise ValueError('a torch scheduler is given as {"name": "StepLR", "step_size": 3}')
        _require_plain(value, depth=0)
    elif value not in CURVES:
        raise ValueError("known are linear, cosine, flat-cosine and step; a torch scheduler is a mapping with its name")
    return value


def _to_data(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else _to_plain_scalar(value)


Int = Annotated[int, BeforeValidator(_to_int)]
Images = Annotated[int | Literal["auto"], BeforeValidator(_to_int), AfterValidator(_check_images)]
Float = Annotated[float, BeforeValidator(_to_plain_scalar)]
Text = Annotated[str, BeforeValidator(_to_plain_scalar), AfterValidator(os.path.expanduser)]
"""A `~` at the beginning is the home folder, as a shell has it; no name of ours begins with one."""
OptionFile = Annotated[str, BeforeValidator(_to_plain_scalar), AfterValidator(_refuse_option_file)]
Data = Annotated[str | dict[Any, Any], BeforeValidator(_to_data), AfterValidator(_check_data)]
Classes = Annotated[list[int], BeforeValidator(_to_list)]
Ignored = Annotated[bool | list[str | int], BeforeValidator(_to_ignored)]
Cache = Annotated[Literal[False, "ram", "disk"], BeforeValidator(_to_cache)]
Period = Annotated[bool | int | str, BeforeValidator(_to_int), AfterValidator(_check_period)]
Optimizer = Annotated[str, BeforeValidator(_to_optimizer), AfterValidator(_check_optimizer)]
Device = Annotated[str, BeforeValidator(_to_device), AfterValidator(_check_device)]
Names = Annotated[list[str], BeforeValidator(_to_names)]
ClassWeightsOption = Annotated[
    Literal["balanced", "effective"] | list[float] | dict[str, float], BeforeValidator(_to_weights)
]
Factors = Annotated[dict[str, float], BeforeValidator(_to_factors), AfterValidator(_check_factors)]
Criteria = Annotated[list[str | dict[str, Any]], BeforeValidator(_to_items), AfterValidator(_check_plain)]
Selection = Annotated[
    int | str | list[int | str | dict[str, Any]], BeforeValidator(_to_selection), AfterValidator(_check_plain)
]
Mapped = Annotated[dict[str, Any], BeforeValidator(_to_schedule), AfterValidator(_check_plain)]
ScheduleOption = Annotated[str | dict[str, Any], BeforeValidator(_to_schedule), AfterValidator(_check_schedule)]
SyncBn = Annotated[bool | Literal["auto"], BeforeValidator(_to_amp)]
Amp = Annotated[bool | Literal["auto", "fp16", "bf16", "fp32"], BeforeValidator(_to_amp)]
Scale = Annotated[float | tuple[float, float], BeforeValidator(_to_pair), AfterValidator(_check_scale)]


def to_plain(value: Any) -> Any:
    """Lists, dicts, numbers and texts only, for YAML files and checkpoints."""
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    return _to_plain_scalar(value)
