"""What a run does when a loss or a gradient is no number: it stops, leaves the step out, or goes back.

In every case the step is named, with its images, the first layer and the term of the loss, and what reproduces it lies
in ``nan_step_<n>/`` (``eyas replay``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eyas import dist
from eyas.data.dataset import TrainDataset
from eyas.data.loader import EpochLoader
from eyas.device import random_state_kept, seed_step
from eyas.log import command, warn
from eyas.nn.unwrap import unwrap_model
from eyas.run.tracking import TrainingDiverged
from eyas.train import state
from eyas.train.nonfinite import Origin, origin
from eyas.train.recorder import MOST_ROLLBACKS, MOST_SKIPPED, Recorder, Step, write_record

LABELS = ("cls", "bboxes")  # of a batch: an object that is no number matches nothing, and is lost without a trace
SHOWN = 8  # images of a message


class Watched(state.Resumable, Protocol):
    """A run that is watched: what that needs beyond one that can be resumed."""

    recorder: Recorder
    amp: bool
    saved: str
    unbounded: set[str]

    def kept(self) -> str: ...
    def checkpoint(self, finished_epoch: bool) -> dict[str, Any]: ...
    def preprocess_batch(self, batch: Any) -> Any: ...
    def named_losses(self, returned: Any) -> tuple[Tensor, dict[str, Tensor]]: ...


class RolledBack(Exception):
    """A step was no number, and the run is to go on from its last checkpoint."""


def recorder_of(trainer: Watched) -> Recorder:
    """Return what remembers the steps of a run: known at once where that costs no wait, or is asked for."""
    return Recorder(at_once=trainer.device.type != "cuda" or trainer.args.on_nan != "stop")


def before_batch(trainer: Watched) -> None:
    """Remember what a forward pass changes, where that may have to be undone, and the labels as they are."""
    first = trainer.step % trainer.accumulate == 0 or trainer.step == trainer.start_step
    if trainer.recorder.at_once and first:
        trainer.recorder.keep_buffers(unwrap_model(trainer.model))
    batch: Any = trainer.batch
    trainer.recorder.labels = {name: batch[name] for name in LABELS if isinstance(batch.get(name), Tensor)}
    if "cls" in trainer.recorder.labels:  # a class that is no number would be an index out of any bounds
        trainer.batch = {**batch, "cls": batch["cls"].nan_to_num()}  # type: ignore[typeddict-item]


def note_losses(trainer: Watched) -> bool:
    """Note the losses of this batch; return False if they are known to be no numbers."""
    files = trainer.batch.get("im_file", ())
    sound = {name: value.isfinite().all() for name, value in trainer.recorder.labels.items()}
    return trainer.recorder.add(
        Step(trainer.epoch, trainer.step, files, trainer.loss.detach(), dict(trainer.loss_items), sound)
    )


def may_step(trainer: Watched, sound: bool) -> bool:
    """Note the gradients, and return whether the optimizer may take them; ``sound``: whether the losses were.

    Raises:
        TrainingDiverged: they are no numbers, and the run is to stop, or was patient for too long.
        RolledBack: they are no numbers, and the run is to go back.
    """
    recorder = trainer.recorder
    unsound = recorder.add_gradients(trainer.optimizer, trainer.gradient_norms, scaled=trainer.scaler.is_enabled())
    if unsound is None and not sound:
        unsound = recorder.steps[-1]
    if not (dist.any_rank(unsound is not None) if trainer.world_size and recorder.at_once else unsound):
        return True
    step = unsound or recorder.steps[-1]
    patient = trainer.args.on_nan != "stop" and recorder.skipped() < MOST_SKIPPED
    if trainer.args.on_nan == "rollback":
        patient = bool(dist.agree(trainer.saved)) and trainer.rollbacks < MOST_ROLLBACKS
    first = not any(trainer.save_dir.glob("nan_step_*"))
    told = told_by_all(record(trainer, step) if not patient or first else about(step, None), unsound is not None)
    if not patient:
        raise diverged(trainer, told)
    trainer.optimizer.zero_grad()
    recorder.put_back_buffers()
    done = "left out" if trainer.args.on_nan == "skip" else f"the run goes back to {dist.agree(trainer.saved)}"
    trainer.notes.append(f"{told}: {done}")
    if dist.is_main():
        warn(f"{told}: {done} (on_nan={trainer.args.on_nan}).")
    if trainer.args.on_nan == "rollback":
        raise RolledBack
    step.skipped = recorder.steps[-1].skipped = True
    return False


def settle(trainer: Watched) -> None:
    """Wait until all steps of an epoch are known, and stop if one was no number.

    Raises:
        TrainingDiverged: names it.
    """
    if step := trainer.recorder.first_unsound(wait=True):
        raise diverged(trainer, record(trainer, step))


def diverged(trainer: Watched, told: str) -> TrainingDiverged:
    """Return the error that ends the run."""
    rate = max(group["lr"] for group in trainer.optimizer.param_groups)
    return TrainingDiverged(
        f"{told}. {trainer.kept() or 'nothing was saved'}. The learning rate was {rate:g}: try a smaller lr0, or "
        "amp=False; on_nan=skip or on_nan=rollback goes on."
    )


def told_by_all(text: str, mine: bool) -> str:
    """Return what those processes say whose step it was."""
    everyone = dist.gather_all(text if mine else "")
    return "; ".join(dict.fromkeys(filter(None, everyone))) or text


def about(step: Step, found: Origin | None) -> str:
    """Return a sentence on a step that was no number."""
    labels = [f"{name} of the batch" for name, sound in step.labels.items() if not bool(sound)]
    terms = [name for name, value in step.losses.items() if not bool(value.isfinite())]
    groups = [name for name, value in step.norms.items() if not bool(value.isfinite())]
    what = ", ".join(labels + terms) or ("the loss" if not bool(step.loss.isfinite()) else "")
    what = what or f"the gradients of group {', '.join(groups)}"
    files = [Path(file).name for file in step.files[:SHOWN]]
    images = f" with the images {', '.join(files)}{', ...' if len(step.files) > SHOWN else ''}" if files else ""
    where = f" ({found})" if found is not None else ""
    return f"{what} became nan or infinite in epoch {step.epoch + 1}, step {step.step + 1}{images}{where}"


def record(trainer: Watched, step: Step) -> str:
    """Find out what of a step is no number, write what reproduces it, and return a sentence on both."""
    is_latest = step is trainer.recorder.steps[-1]
    batch = {**trainer.batch, **trainer.recorder.labels} if is_latest else batch_again(trainer, step.epoch, step.step)
    found = look_again(trainer, step, batch) if batch is not None else None
    trainer.optimizer.zero_grad()
    trainer.recorder.put_back_buffers()
    told = about(step, found)
    number = step.epoch * len(trainer.train_loader) + step.step + 1
    mine = f"_process_{dist.rank()}" if dist.rank() else ""
    folder = trainer.save_dir / f"nan_step_{number}{mine}"
    exact = is_latest and not state.broken(trainer, trainer.unbounded)
    earlier = trainer.last if trainer.last.exists() else None
    try:
        write_record(
            folder,
            report=where_it_stood(trainer, step, told, "before the step" if exact else trainer.saved),
            steps=[*trainer.recorder.steps],
            batch=batch or {},
            checkpoint=(lambda: trainer.checkpoint(finished_epoch=False)) if exact else earlier,
            origin=found,
        )
    except (OSError, ValueError) as error:
        warn(f"{folder} could not be written ({error}).")
        return told
    return f"{told}; `{command('replay', str(folder))}` takes it again"


def look_again(trainer: Watched, step: Step, batch: Mapping[str, Any]) -> Origin | None:
    """Take a step's passes again, in this process alone; None where others would have to take part."""
    network = unwrap_model(trainer.model)
    if trainer.world_size:
        return None  # normalisation and the criterion ask the other processes, which are elsewhere

    def losses() -> tuple[Tensor, Mapping[str, Tensor]]:
        with torch.autocast(trainer.device.type, dtype=trainer.amp_dtype, enabled=trainer.amp):
            return trainer.named_losses(network(batch))

    with random_state_kept(trainer.device):
        seed_step(trainer.args.seed, step.epoch, step.step, dist.rank())
        return origin(network, batch, losses)


def keys_of(loader: EpochLoader, epoch: int, step: int) -> list[Any]:
    """Return the keys of a batch: what its images are, and are augmented by, is a function of them."""
    sampler = loader.sampler
    return list(next(sampler.keys(replace(sampler.turn, epoch=epoch, first_batch=step))))


def batch_again(trainer: Watched, epoch: int, step: int) -> Any:
    """Make the batch of an earlier step again, as it comes to the device; None where a user's own loader made it."""
    loader = trainer.train_loader
    if not isinstance(loader, EpochLoader) or not isinstance(loader.dataset, TrainDataset):
        return None
    here = trainer.epoch, trainer.step
    trainer.epoch, trainer.step = epoch, step  # the size of its images may follow from them
    try:
        return trainer.preprocess_batch(loader.dataset.make_batch(keys_of(loader, epoch, step)))
    finally:
        trainer.epoch, trainer.step = here


def where_it_stood(trainer: Watched, step: Step, told: str, weights: str) -> dict[str, Any]:
    """Return what a replay needs to know beside tensors, as plain values."""
    network: Any = unwrap_model(trainer.model)
    class_weights = getattr(network, "class_weights", None)  # of a network of the user's own there may be none
    return {
        "told": told,
        "epoch": step.epoch,
        "step": step.step,
        "epochs": trainer.epochs,
        "seed": trainer.args.seed,
        "rank": dist.rank(),
        "images": list(step.files),
        "weights": weights,
        "amp": str(trainer.amp_dtype or "").removeprefix("torch."),
        "scale": float(trainer.scaler.get_scale()),
        "accumulate": trainer.accumulate,
        "rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "gains": getattr(network, "gains", None),
        "class_weights": None if class_weights is None else torch.as_tensor(class_weights).flatten().tolist(),
        "augmentation": augmentation(trainer, step),
    }


def augmentation(trainer: Watched, step: Step) -> list[dict[str, Any]]:
    """Return how each image of a batch was augmented; nothing for data of the user's own."""
    loader = trainer.train_loader
    if not isinstance(loader, EpochLoader) or not isinstance(loader.dataset, TrainDataset):
        return []
    dataset = loader.dataset
    drawn = []
    for key in keys_of(loader, step.epoch, step.step):
        params = asdict(dataset.params(key))
        params = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in params.items()}
        drawn.append(params | {"files": [dataset.index.path(i) for i in params["sources"]]})
    return drawn
