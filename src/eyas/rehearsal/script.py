"""Run the user's file as Python would, with a host for the trainings that it starts."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from eyas import api
from eyas.callbacks import Callback
from eyas.compat import hook
from eyas.config import resolve
from eyas.train import BaseTrainer
from eyas.train.venue import Venue, hosted_by


class Finished(BaseException):
    """What was to be seen has been seen; the rest of the user's file is not run."""


class Host(Venue[BaseTrainer]):
    """Has the trainings that a file starts.

    Attributes:
        started: how many there were so far.
    """

    def __init__(self) -> None:
        self.started = 0


def run_file(
    script: Path, arguments: Sequence[str], options: Mapping[str, Any], trainer: str | None, host: Host
) -> None:
    """Run a file as ``__main__``; if it never trains, train with the classes that it defines.

    Args:
        script: the user's file.
        arguments: its command line.
        options: typed beside it; needed for a file that only defines classes.
        trainer: name of the class to train with, where the file defines several.
        host: has every training.

    Raises:
        BaseException: whatever the file raises.
    """
    module = ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module  # where pickle and inspect look for what the file defines
    sys.argv[:] = [str(script), *arguments]
    sys.path.insert(0, os.fspath(script.parent))
    if imports(script, hook.ROOT):
        hook.install()
    with hosted_by(host):
        try:
            exec(compile(script.read_bytes(), str(script), "exec"), vars(module))
            if host.started == 0:
                train_with_classes(script, module, options, trainer)
        except Finished:
            return


def imports(script: Path, package: str) -> bool:
    """Whether a file imports a package anywhere."""
    names: list[str] = []
    for node in ast.walk(ast.parse(script.read_bytes(), str(script))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return any(name.partition(".")[0] == package for name in names)


# -- a file without a call ---------------------------------------------------------------------------------------------
def train_with_classes(script: Path, module: ModuleType, options: Mapping[str, Any], trainer: str | None) -> None:
    """Train with the trainer and callbacks that a file defines.

    Raises:
        ValueError: it defines none, or several trainers, or model and data were not given.
    """
    trainers = {cls.__name__: cls for cls in leaves(module, BaseTrainer)}
    callbacks = leaves(module, Callback)
    if not trainers and not callbacks:
        raise ValueError(
            f"{script.name} never calls train(), and defines no subclass of DetectionTrainer or Callback to train with."
        )
    if trainer is not None and trainer not in trainers:
        raise ValueError(f"trainer={trainer}: {script.name} defines {', '.join(trainers) or 'no trainer'}.")
    if trainer is None and len(trainers) > 1:
        raise ValueError(f"{script.name} defines the trainers {', '.join(trainers)}; choose one with trainer=NAME.")
    typed = resolve(cli=options, command="train")
    given = {name: typed.get(name) for name in typed.sources()}
    missing = [name for name in ("model", "data") if given.get(name) is None]
    if missing:
        wanted = " and ".join(f"{name}=..." for name in missing)
        raise ValueError(f"{script.name} never calls train(), so it must be told what to train: add {wanted}.")
    chosen = trainers[trainer] if trainer else next(iter(trainers.values()), None)
    api.YOLO(given.pop("model")).train(trainer=chosen, callbacks=[cls() for cls in callbacks], **given)


def leaves(module: ModuleType, base: type) -> list[type]:
    """Return subclasses of ``base`` that a module defines and that no other class there builds on."""
    own = [cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, base)]
    own = [cls for cls in dict.fromkeys(own) if cls.__module__ == module.__name__]
    return [cls for cls in own if not any(other is not cls and issubclass(other, cls) for other in own)]
