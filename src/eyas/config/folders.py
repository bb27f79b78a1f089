"""Where a run's files lie."""

from __future__ import annotations

import re
from pathlib import Path

from eyas.config.options import TrainOptions


def project_folder(options: TrainOptions) -> Path:
    """Folder that holds runs."""
    return Path(options.project) if options.project else Path("runs") / "detect"


def run_folder(options: TrainOptions, *, resuming: bool = False, default_name: str = "train") -> Path:
    """Return the folder of this run; a number is added when the name is taken. Nothing is ever deleted."""
    if options.save_dir:
        return Path(options.save_dir)
    base = project_folder(options) / (options.name or default_name)
    if options.exist_ok or resuming or not base.exists():
        return base
    number = 2
    while (folder := base.with_name(f"{base.name}-{number}")).exists():
        number += 1
    return folder


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
