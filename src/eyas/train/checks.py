"""Is a number usable? Checks between an epoch and what is decided from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.checkpoint import CheckpointError, broken_parts
from eyas.config import TrainOptions
from eyas.data.content import VERSION, content_of, differences, load_contents
from eyas.data.index import ImageIndex
from eyas.data.loader import own_index
from eyas.log import warn
from eyas.models import Detector, detector_class, model_table
from eyas.nn.norms import norms
from eyas.nn.unwrap import unwrap_model
from eyas.prove.conflicts import ConflictError
from eyas.run.tracking import TrainingDiverged


def plain_floats(metrics: Mapping[str, Any] | None, source: str) -> dict[str, float]:
    """Return metrics as Python floats, so that they can be logged, saved and compared.

    Raises:
        ValueError: a value is not a number.
    """
    plain = {}
    for key, value in (metrics or {}).items():
        try:
            plain[str(key)] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} returned {key}={value!r}, which is not a number.") from error
    return plain


def usable_fitness(fitness: Any) -> float | None:
    """Return a fitness that can be compared; nan would otherwise stay the best for ever."""
    if fitness is None:
        return None
    if not math.isfinite(float(fitness)):
        warn(f"fitness is {float(fitness)}: this epoch cannot be the best.")
        return None
    return float(fitness)


def usable_batch(images: Any) -> int:
    """Return the images per step that ``auto_batch()`` has chosen.

    Raises:
        ValueError: it is no whole number above 0.
    """
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise ValueError(f"auto_batch() returned {images!r}: images per step are a whole number, at least 1.")
    return images


def warn_if_not_portable(model: nn.Module) -> None:
    """Tell the user now if checkpoints of this model will need its class: its table does not describe all of it.

    A class that changes only losses, or how weights are made, is described by its table; one with layers or a forward
    pass of its own is not, and is opened with ``YOLO(path, model_class=ThatClass)``.
    """
    if not isinstance(model, Detector):
        return
    cls, stock = type(model), detector_class(model.yaml)
    if cls is stock:
        return
    with torch.device("meta"):
        described = stock(model.yaml, nc=model.nc, verbose=False)
    own_forward = [n for n in ("forward", "predict", "fuse") if getattr(cls, n) is not getattr(stock, n)]
    own_layers = {k: v.shape for k, v in model.state_dict().items()} != {
        k: v.shape for k, v in described.state_dict().items()
    }
    if own_forward or own_layers:
        what = "layers that its table does not list" if own_layers else f"its own {own_forward[0]}()"
        warn(f"{cls.__name__} has {what}: open its checkpoints with YOLO(path, model_class={cls.__name__}).")


def refuse_single_values(model: nn.Module, side: int | None, images: int | None) -> None:
    """Stop if a layer of the model would have to normalise a single value, which has no spread.

    Args:
        model: to train.
        side: of the smallest images of the run in px, None if that is not known.
        images: in the smallest batch of an epoch in a process, None if that is not known.

    Raises:
        ValueError: one image of one cell comes to normalisation that is not synchronised over processes.
    """
    strides = getattr(unwrap_model(model), "stride", None)  # of a model of ours; a user's may have none
    alone = any(not isinstance(layer, nn.SyncBatchNorm) for _, layer in norms(model))
    if side is None or images != 1 or not isinstance(strides, Tensor) or not alone:
        return
    coarsest = int(strides.max())
    if side < 2 * coarsest:
        raise ValueError(
            f"the smallest batch of an epoch is one image in a process, of {side} px at the least: a single cell of "
            f"{coarsest} px, and batch normalisation cannot train on a single value. Choose a batch that leaves no "
            f"single image at the end of an epoch, or imgsz={2 * coarsest} or more (without multi_scale)."
        )


def refuse_divergence(losses: Mapping[str, float], broken: list[str], epoch: int, rate: float, kept: str) -> None:
    """Stop if something became infinite or nan, on any process.

    Args:
        losses: means of the epoch.
        broken: what else is, in words.
        epoch: 1-based.
        rate: largest learning rate.
        kept: what is saved, as a sentence's part; the main process knows.

    Raises:
        TrainingDiverged: says what, and what to do.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)] + broken
    if broken := dist.agree(broken):
        raise TrainingDiverged(
            f"{', '.join(broken)} became nan or infinite in epoch {epoch}; {dist.agree(kept)}. "
            f"The learning rate was {rate:g}: try a smaller lr0, or amp=False."
        )


def refuse_to_save(checkpoint: dict[str, Any], unbounded: set[str]) -> None:
    """Refuse to write what nobody could use: the file that it would replace may be good.

    Raises:
        CheckpointError: names what is nan or infinite.
    """
    if broken := broken_parts(checkpoint, unbounded):
        raise CheckpointError(
            f"nothing was saved: of the checkpoint, {', '.join(broken)} became nan or infinite. "
            "Training itself is sound if adjust_checkpoint or save_model made them so."
        )


def indices(**loaders: object) -> dict[str, ImageIndex]:
    """Return the images and labels behind each loader of ours; nobody knows what a user's own gives."""
    found = {split: own_index(loader) for split, loader in loaders.items()}
    return {split: index for split, index in found.items() if index is not None}


def changed_data(now: Mapping[str, ImageIndex], resumed: dict[str, Any], file: Path) -> list[str]:
    """Return in words what of the data is not as it was when a run was saved; nothing if all is.

    Args:
        now: images and labels by split.
        resumed: the checkpoint.
        file: in which the run has noted what they held; without it, less can be said.
    """
    state, noted, found = resumed["state"], load_contents(file), list[str]()
    for split, index in now.items():
        before = state.get("data", {}).get(split)
        if before is None or not before.startswith(VERSION) or before == content_of(index).digest():
            continue
        known = noted.get(split)
        if known is None or known.digest() != before:
            found.append(f"{split}: images or labels")
        elif other := differences(known, index, state.get("bad_images", {}).get(split, {})):
            found.append(f"{split}: {', '.join(other)}")
    return found


def refuse_other_data(
    now: Mapping[str, ImageIndex], resumed: dict[str, Any], options: TrainOptions, file: Path
) -> list[str]:
    """Refuse to resume with other data than the run was saved with, unless that was allowed; return what has changed.

    The same data in another place are the same.

    Raises:
        ValueError: it is other data, or nobody can tell.
    """
    before, changed = resumed["state"].get("data", {}), changed_data(now, resumed, file)
    moved = options.data != resumed["train_args"]["data"]
    told = "; ".join(changed)
    if changed and options.accept_data_change:
        warn(f"the data have changed since this run was saved, which was accepted: {told}.")
        return changed
    if changed and moved:
        raise ValueError(
            f"data={options.data} is not the data of this run in another place: they differ in images or labels "
            f"({told}). Leave it out, add accept_data_change=true to go on with them, or start a new run with model= "
            "and the path of the checkpoint."
        )
    comparable = {split for split, digest in before.items() if digest.startswith(VERSION)}
    if moved and not options.accept_data_change and not comparable >= now.keys() > set():
        raise ValueError(
            f"data={options.data} cannot be compared with the data of this run: the checkpoint does not describe it, "
            "or the loader is your own. Leave it out, and put the data where it was."
        )
    if changed:
        raise ValueError(
            f"the data have changed since this run was saved ({told}): it would not be the same training. Put them "
            "back, add accept_data_change=true to go on with them as they are, or start a new run with model= and the "
            "path of the checkpoint."
        )
    return []


def refuse_other_table(model: nn.Module, cfg: Any, options: TrainOptions) -> None:
    """Stop if ``get_model()`` built a network of ours from another table than the one that it was given.

    Raises:
        ConflictError: names both.
    """
    built = getattr(model, "yaml", None)  # of ours; a user's own network may be made from anything
    if not isinstance(built, Mapping) or not built.get("yaml_file") or not options.is_typed("model"):
        return
    asked = model_table(cfg)
    if any(asked.get(key) != built.get(key) for key in ("yaml_file", "scale")):
        raise ConflictError(
            f"model={options.model!r} ({options.source('model')}) has no effect: get_model() made a "
            f"{type(model).__name__} of {Path(built['yaml_file']).stem}. Remove one of the two."
        )


def classes_kept(model: nn.Module) -> float:
    """Return the share of its classes that a network knows from the weights it was given; 1 where nobody can tell."""
    kept = model.classes_kept if isinstance(model, Detector) else None
    return 1.0 if kept is None else kept


def holds(model: nn.Module, weights: Any) -> bool:
    """Whether a network holds a tensor of the weights that it was given; True where they cannot be looked at."""
    state = weights.get("model") if isinstance(weights, Mapping) else None
    if not isinstance(state, Mapping):
        return True
    given: dict[torch.Size, list[Tensor]] = {}
    for tensor in (value for value in state.values() if isinstance(value, Tensor)):  # extra states are anything
        given.setdefault(tensor.shape, []).append(tensor)
    own = [p.detach() for p in model.parameters() if p.ndim > 1]
    return any(torch.equal(p.float().cpu(), t.float().cpu()) for p in own for t in given.get(p.shape, []))
