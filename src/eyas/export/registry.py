"""The targets that have a name. Another needs none: its object is passed instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from eyas.export.base import Exported, ExportTarget
from eyas.export.coreml import CoreMl
from eyas.export.ncnn import Ncnn
from eyas.export.onnx import Onnx
from eyas.export.openvino import GRAPH, OpenVino
from eyas.export.pt2 import ExportedProgram
from eyas.export.safetensors import SafeTensors
from eyas.export.tensorrt import TensorRt
from eyas.export.tflite import TfLite
from eyas.export.torchscript import TorchScript
from eyas.names import did_you_mean


class StockTarget(ExportTarget, Protocol):
    """A target with a name: a dataclass, whose fields are its settings.

    Attributes:
        runs: whether its files are opened by ``open``; otherwise they are checkpoints.
    """

    runs: ClassVar[bool]


STOCK: tuple[type[StockTarget], ...] = (
    ExportedProgram, TorchScript, Onnx, OpenVino, Ncnn, SafeTensors, TensorRt, CoreMl, TfLite,
)  # fmt: skip
OTHER_NAMES = {"engine": "tensorrt"}  # what others call them


def known_targets() -> dict[str, type[StockTarget]]:
    """Return the stock targets by name."""
    return {str(stock.name): stock for stock in STOCK}


def find_target(target: str | ExportTarget, settings: Mapping[str, Any] | None = None) -> ExportTarget:
    """Return the stock target of a name with its settings, or a target itself.

    Raises:
        ValueError: no stock target has the name, it has no such setting, or settings contradict each other.
    """
    settings = settings or {}
    if not isinstance(target, str):
        if isinstance(target, type) or not isinstance(target, ExportTarget):
            raise ValueError(
                f"format={target!r} is no target: give one of {', '.join(known_targets())}, or an object with name, "
                "suffix, write() and open(), see eyas.export.ExportTarget"
            )
        if settings:
            raise ValueError(f"{', '.join(settings)}: a target of your own is given its settings where it is made")
        return target
    known = known_targets()
    name = OTHER_NAMES.get(target, target)
    if name not in known:
        raise ValueError(f"format={target!r} is not one of {', '.join(known)}.{did_you_mean(target, known)}")
    has = settings_of(known[name])
    for setting, value in settings.items():
        if setting not in has and value is not False:
            takes = f"its settings are {', '.join(has)}" if has else "it has no settings"
            raise ValueError(f"format={name} has no {setting}={value}: {takes}")
    for setting, value in settings.items():
        if setting in has:
            check_kind(setting, value, has[setting])
    return known[name](**{setting: value for setting, value in settings.items() if setting in has})


def check_kind(setting: str, value: object, kind: str) -> None:
    """Check that a setting has a value of its kind.

    Raises:
        ValueError: it has not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{setting}={value!r} must be true or false")
    if kind == "int" and not (number and isinstance(value, int)):
        raise ValueError(f"{setting}={value!r} must be a whole number of at least 1")
    if kind == "float" and not number:
        raise ValueError(f"{setting}={value!r} must be a number above 0")


def settings_of(target: type[StockTarget]) -> dict[str, str]:
    """Return the settings of a stock target: name -> kind of value."""
    return {field.name: str(field.type) for field in fields(target)}  # type: ignore[arg-type]  # stock are dataclasses


def target_of(path: str | Path) -> ExportTarget | None:
    """Return the stock target whose files are named so, in any case, None for checkpoints and all else."""
    name = Path(path).name.lower()
    if name == GRAPH:
        return OpenVino()
    for stock in STOCK:
        if name.endswith(str(stock.suffix)) and stock.runs:
            return stock()
    return None


def file_names() -> str:
    """Return how the files that targets open are called, in words; those of others are checkpoints."""
    suffixes = [str(stock.suffix) for stock in STOCK if stock.runs]
    files = ", ".join(f"*{suffix}" for suffix in suffixes if suffix.startswith("."))
    return f"{files}, and folders {' and '.join(f'*{suffix}' for suffix in suffixes if not suffix.startswith('.'))}"


def open_exported(path: str | Path) -> Exported | None:
    """Return what runs an exported file, None for what is named otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        ExportError: no target of Eyas wrote it.
        ImportError: a library that it needs is not installed.
    """
    target = target_of(path)
    if target is None:
        return None
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    return target.open(Path(path))
