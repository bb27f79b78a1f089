"""Which options a run has, and those of a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.checkpoint import CheckpointError, load_checkpoint, refusals_of
from eyas.config import TrainOptions, resolve, with_defaults
from eyas.config.folders import AUTO, project_folder, run_folder
from eyas.config.options import facts
from eyas.config.resolve import check_effective
from eyas.data.place import from_here
from eyas.recipes import Recipe
from eyas.train.folder import is_finished
from eyas.train.setup import Source

LENGTHENING = frozenset({"epochs", "time", "patience"})  # asked for anew, a run that was over goes on


def merge_options(
    cfg: TrainOptions | Mapping[str, Any] | str | Path | None,
    overrides: TrainOptions | Mapping[str, Any] | None,
    recipe: Recipe,
) -> TrainOptions:
    """Return the options of a run: defaults < recipe < ``cfg`` < ``overrides``, each value with its source."""
    if isinstance(overrides, TrainOptions):
        nothing = cfg is None or (isinstance(cfg, TrainOptions) and not any(cfg.is_typed(name) for name, _ in cfg))
        if not nothing:
            raise ValueError("give the options either as cfg or as a ready TrainOptions in overrides, not both.")
        return with_defaults(overrides, recipe.options)
    if isinstance(cfg, TrainOptions):
        options = with_defaults(TrainOptions.from_dict(cfg.to_dict(), cfg.sources()), recipe.options)
        for key, value in (overrides or {}).items():
            setattr(options, key, value)
        check_effective(options)
        return options
    file = Path(cfg) if isinstance(cfg, (str, Path)) else None
    call = {**(cfg if isinstance(cfg, Mapping) else {}), **(overrides or {})}
    return resolve(recipe=recipe.options, file=file, call=call)


def goes_on(options: TrainOptions) -> bool:
    """Whether a run goes on; under ``resume="auto"`` it does where its folder holds something to go on from."""
    return bool(options.resume) and (options.resume != AUTO or find_checkpoint(options).exists())


def resume_options(options: TrainOptions, source: Source | None = None) -> tuple[TrainOptions, dict[str, Any]]:
    """Return the options of the run to continue, with what may change taken over, and its checkpoint.

    A run whose epochs are done and whose end is not, for it was killed there, is completed; under ``resume="auto"`` a
    finished one is, too: its best weights are measured again.

    Args:
        options: what was asked for.
        source: the checkpoint, if it was read before.

    Raises:
        CheckpointError: nothing to resume, or the run is finished.
        ValueError: an option was typed that would make it another training.
    """
    path = find_checkpoint(options)
    checkpoint = source.weights if source is not None and source.model == str(path) else load_checkpoint(path)
    if "state" not in checkpoint:
        raise CheckpointError(f"{path} holds weights only; resume from the last.pt of the run.")
    with refusals_of(path, ValueError):
        known = checkpoint["train_args"]
        known["data"] = from_here(known.get("data"), checkpoint.get("began_in"), path)
        stored = TrainOptions.from_dict(checkpoint["train_args"], checkpoint["train_sources"])
    changed = {name: value for name, value in options if options.is_typed(name) and value != stored.get(name)}
    by_path = isinstance(options.resume, str) and options.resume != AUTO
    where = set() if by_path else {"project", "name", "save_dir", "exist_ok"}
    free = {name for name in changed if facts(name).resumable or name == "data"}  # which the set-up compares
    refused = sorted(set(changed) - free - where)
    if refused:
        raise ValueError(
            f"{', '.join(refused)} cannot change when a run is resumed: it would be another training. "
            f"Leave it out, or start a new run with model={path}."
        )
    for name in sorted(free):
        setattr(stored, name, changed[name])
    stored.accept_data_change = options.accept_data_change  # for this time, and no other
    stored.resume, stored.model, stored.save_dir = str(path), str(path), str(path.parent.parent)
    finished = is_finished(path.parent.parent) and options.resume != AUTO
    if finished:
        check_unfinished(path, checkpoint, changed.get("epochs"), stored.time)
    over = checkpoint["state"].get("over", False)
    checkpoint["state"]["over"] = over and not finished and not changed.keys() & LENGTHENING
    return stored, checkpoint


def check_unfinished(path: Path, checkpoint: dict[str, Any], epochs: int | None, hours: float | None) -> None:
    """Refuse to resume a run that has nothing left to do.

    Raises:
        CheckpointError: all its epochs are done, or its time is spent.
    """
    state = checkpoint["state"]
    if hours is not None:
        if state["elapsed"] >= hours * 3600:
            raise CheckpointError(
                f"{path} is finished: its {hours:g} hours are spent. Give a larger time to train longer."
            )
        return
    done, planned = checkpoint["epoch"] + 1, epochs or state["epochs"]
    if state["step"] == 0 and done >= planned:
        raise CheckpointError(
            f"{path} is finished: {done} of {planned} epochs. Give epochs={2 * planned} to train longer."
        )


def check_trainer(name: str, checkpoint: dict[str, Any]) -> None:
    """Refuse to go on with another trainer than the one that started the run: it would be another training.

    Raises:
        ValueError: names both.
    """
    stored = checkpoint["state"]["trainer"]
    if stored != name:
        raise ValueError(
            f"this run was started by {stored}, and {name} would train it differently. Resume it where that class is "
            "defined: YOLO(last_pt).train(trainer=ThatClass, resume=True)."
        )


def find_checkpoint(options: TrainOptions) -> Path:
    """Return the ``last.pt`` that ``resume`` means: a path, the run named, the model's, or the project's newest."""
    if options.resume == AUTO:
        return run_folder(options) / "weights" / "last.pt"
    if isinstance(options.resume, str):
        return Path(options.resume)
    if options.save_dir or options.name:
        folder = Path(options.save_dir) if options.save_dir else project_folder(options) / str(options.name)
        return folder / "weights" / "last.pt"
    if options.model and options.model.endswith(".pt"):
        return Path(options.model)
    runs = sorted(project_folder(options).glob("*/weights/last.pt"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise CheckpointError(f"resume=True found no weights/last.pt under {project_folder(options)}; give its path.")
    return runs[-1]
