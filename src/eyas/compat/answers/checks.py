"""``ultralytics.utils.checks``: what is installed, and whether sizes and versions fit. Nothing is ever installed."""

from __future__ import annotations

import math
import operator
import os
import platform
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import eyas
from eyas.augment.letterbox import STRIDE
from eyas.device import amp_dtype, select_device
from eyas.log import LOGGER, warn

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"(==|!=|>=|<=|>|<)?\s*([^\s,]+)")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)")


def checks(verbose: bool = True, device: str | int | torch.device | None = "") -> None:
    """Log what Eyas runs on: versions, processor, memory, device."""
    chosen = select_device(device)
    where = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else str(chosen)
    LOGGER.info(
        "Eyas %s, Python %s, torch %s, %s", eyas.__version__, platform.python_version(), torch.__version__, where
    )
    if verbose:
        LOGGER.info("%s, %s CPUs", platform.platform(), os.cpu_count())


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without trailing zeros: ``"2.1.0+cu121"`` is (2, 1)."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    if found is None:
        raise ValueError(f"{version!r} is not a version such as 1.2.3.")
    numbers = [int(part) for part in found[1].split(".")]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def check_version(
    current: str = "0.0.0",
    required: str = "0.0.0",
    name: str = "version",
    hard: bool = False,
    verbose: bool = False,
    msg: str = "",
) -> bool:
    """Return whether a version fulfils rules such as ``">=1.8,<2"``; a bare number means "at least".

    Args:
        current: a version, or the name of an installed package.
        required: the rules, with commas between them; none is always fulfilled.
        name: of what, for messages. hard: a rule that is broken is an error. verbose: warn of it. msg: added to both.

    Raises:
        ModuleNotFoundError: ``current`` names a package that is not installed, or with ``hard``, a rule is broken.
        ValueError: something is no version.
    """
    if current and not current[0].isdigit():
        name, current = current, installed_version(current)
    broken = [
        f"{sign or '>='}{version}"
        for sign, version in _RULE.findall(required)
        if not COMPARE[sign or ">="](release(current), release(version))
    ]
    if broken and (hard or verbose):
        text = f"{name} {', '.join(broken)} is needed, and {current} is here. {msg}".rstrip()
        if hard:
            raise ModuleNotFoundError(text)
        warn(text)
    return not broken


def installed_version(package: str) -> str:
    """Return the version of an installed package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package}", name=package) from None


def check_python(minimum: str = "3.8.0", hard: bool = True, verbose: bool = False) -> bool:
    """Return whether Python is at least of a version, see `check_version`."""
    return check_version(platform.python_version(), minimum, name="Python", hard=hard, verbose=verbose)


def check_requirements(
    requirements: str | Path | Sequence[str | Path],
    exclude: Sequence[str] = (),
    install: bool = True,
    cmds: str = "",
) -> bool:
    """Return whether packages are installed; what is missing is named with the command that brings it.

    Args:
        requirements: ``"package>=1.0"``, several of them, or a file of them, one a line.
        exclude: packages not to look for.
        install: kept for callers of the incumbent's function: Eyas never installs anything.
        cmds: arguments for pip, for the message.
    """
    missing = [rule for rule in _listed(requirements) if _name(rule) not in exclude and not _is_installed(rule)]
    if missing:
        quoted = " ".join(f'"{rule}"' for rule in missing)
        warn(f"not installed: {', '.join(missing)}. Eyas installs nothing; pip install {quoted} {cmds}".rstrip())
    return not missing


def _listed(requirements: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(requirements, Path):
        lines = requirements.read_text(encoding="utf-8").splitlines()
        return [rule for line in lines if (rule := line.partition("#")[0].strip())]
    return [requirements] if isinstance(requirements, str) else [str(rule) for rule in requirements]


def _name(rule: str) -> str:
    found = _REQUIREMENT.match(rule.strip())
    if found is None:
        raise ValueError(f"{rule!r} is not a requirement such as package>=1.0.")
    return found[1]


def _is_installed(rule: str) -> bool:
    found = _REQUIREMENT.match(rule.strip())
    assert found is not None, "its name was read before"
    try:
        return check_version(found[1], found[2].strip())
    except ModuleNotFoundError:
        return False


def check_imgsz(
    imgsz: int | Sequence[int],
    stride: int | torch.Tensor = STRIDE,
    min_dim: int = 1,
    max_dim: int = 2,
    floor: int = 0,
) -> int | list[int]:
    """Return an image size rounded up to multiples of the stride, with a warning where it changes.

    Args:
        imgsz: side in pixels, or (height, width).
        stride: pixels per cell; of several, the largest counts.
        min_dim: 2 gives a list of two also for one side. max_dim: 1 gives one side, the longest.
        floor: the least side.

    Raises:
        ValueError: not a number of pixels, or more than two.
    """
    step = int(stride.max() if isinstance(stride, torch.Tensor) else stride)
    sides = [imgsz] if isinstance(imgsz, int) else list(imgsz)
    if not 1 <= len(sides) <= 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise ValueError(f"imgsz={imgsz!r} must be a side in pixels, such as 640, or a height and a width.")
    sides = [max(sides)] if max_dim == 1 else sides
    rounded = [max(math.ceil(side / step) * step, floor) for side in sides]
    if rounded != sides:
        warn(f"imgsz={imgsz} must be a multiple of the stride {step}; it is taken as {rounded}.")
    if len(rounded) == 1:
        return rounded * 2 if min_dim == 2 else rounded[0]
    return rounded


def check_amp(model: torch.nn.Module) -> bool:
    """Return whether Eyas trains a model in half precision where it is: on a GPU. Nothing is tried or downloaded."""
    return amp_dtype(True, next(model.parameters()).device) is not None
