"""Where a run's files lie."""

from __future__ import annotations

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
