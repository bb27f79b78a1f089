"""Where a run's files lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eyas.config.options import TrainOptions
from eyas.files import make_folder

ELSEWHERE = "Runs go elsewhere with project=FOLDER or save_dir=FOLDER."
AUTO = "auto"  # of resume: go on with the run in the folder, or begin it there


def project_folder(options: TrainOptions) -> Path:
    """Folder that holds runs."""
    return Path(options.project) if options.project else Path("runs") / "detect"


def run_folder(options: TrainOptions, *, resuming: bool = False, default_name: str = "train") -> Path:
    """Return the folder of this run; a number is added when the name is taken. Nothing is ever deleted."""
    if options.save_dir:
        return Path(options.save_dir)
    base = project_folder(options) / (options.name or default_name)
    if options.exist_ok or resuming or options.resume == AUTO or not base.exists():
        return base
    number = 2
    while (folder := base.with_name(f"{base.name}-{number}")).exists():
        number += 1
    return folder


@contextmanager
def own_folder(options: TrainOptions, default_name: str) -> Iterator[Path]:
    """Make the folder of a validation or prediction, which no other takes; it goes if nothing is written there."""
    shared = options.save_dir is not None or options.exist_ok
    folder = run_folder(options, default_name=default_name)
    while not _made(folder) and not shared:
        folder = run_folder(options, default_name=default_name)
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def _made(folder: Path) -> bool:
    """Make a folder, and return whether it was not there: of many who try at the same time, one makes it."""
    try:
        make_folder(folder, ELSEWHERE, exist_ok=False)
    except FileExistsError:
        return False
    return True


def folder_effects(folder: Path, options: TrainOptions, default_name: str = "train") -> dict[str, object]:
    """Return what the folder of a run tells of the options that lead to it: how it is called, and what it lies in."""
    name = Path(options.name or default_name)
    numbered = re.fullmatch(rf"({re.escape(name.name)})-\d+", folder.name)
    depth = len(name.parts)
    own = Path(*folder.parts[-depth:]).with_name(numbered[1] if numbered else folder.name)
    return {
        "project": str(Path(*folder.parts[:-depth])),
        "name": str(own),
        "save_dir": str(folder),
        "exist_ok": options.save_dir is not None or numbered is None,
    }
