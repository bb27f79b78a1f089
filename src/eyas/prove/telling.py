"""What a run itself tells of its options, where no part of it could: from what it has and does, never from the options.

Parts tell of themselves (``eyas.run.told``): data set, loader, criterion, average, network, validator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.utils.data import DataLoader

from eyas import dist
from eyas.config.folders import AUTO, folder_effects
from eyas.data.dataset import TrainDataset
from eyas.data.numbered import data_sets
from eyas.data.share import extent
from eyas.device import PRECISIONS, step_seed
from eyas.nn.unwrap import unwrap_model
from eyas.optim import SCHEDULES
from eyas.run.protocol import Run
from eyas.run.told import Rounded, Tells, Words

Told = dict[str, object]


def tellings(run: Run) -> list[Mapping[str, object]]:
    """Return what everyone tells: the parts of a run that know of themselves, and the run."""
    parts = [part.effects() for part in tellers(run) if isinstance(part, Tells) and callable(part.effects)]
    at_hand = [part(run) for part in (*ALWAYS, *(TRAINED if run.loss_items else ()))]
    return [told for told in (*parts, *at_hand) if isinstance(told, Mapping)]


def tellers(run: Run) -> Iterator[object]:
    """Yield the parts of a run that may know of themselves; a user's own may be anything."""
    network = unwrap_model(run.model)
    yield from (run.train_loader, *data_sets(run.train_loader), network, getattr(network, "criterion", None))
    yield from (run.ema, run.validator, run.autosave, run.watch, *run.callbacks.callbacks)


# -- known as soon as the run is set up --------------------------------------------------------------------------------
def folder(run: Run) -> Told:
    """Where its files lie."""
    return folder_effects(run.save_dir, run.args)


def place(run: Run) -> Told:
    """Where, in how many processes, in what precision and how reproducibly it computes."""
    launched = dist.world_size() > 1  # a plan is made in one process, for as many as there will be
    told: Told = {
        "device": str(next(run.model.parameters()).device),
        "processes": dist.local_world_size() if launched else max(run.world_size, 1),
        "amp": PRECISIONS.get(run.amp_dtype),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if run.device.type != "cuda":
        told["deterministic"] = Words("always so on this device")
    if run.world_size:
        told["restarts"] = dist.restart_limit() if launched else Words("several processes to come")
    return told


def layout(run: Run) -> Told:
    """Memory layout of the first real convolution; others look the same in both layouts."""
    for weight in run.model.parameters():
        if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2:].numel() > 1:
            return {"channels_last": weight.is_contiguous(memory_format=torch.channels_last)}
    return {}


def source(run: Run) -> Told:
    """What the network is, and what its weights were at the start."""
    network = unwrap_model(run.model)
    told: Told = {"pretrained": not run.from_scratch and run.holds_given}
    if run.holds_given:
        told["model"] = Words(f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters")
    if run.resume_from is not None:
        epochs_done = run.resume_from["epoch"] + (run.resume_from["state"]["step"] == 0)
        told |= {"resume": Words(f"from epoch {run.start_epoch + 1}")} if run.start_epoch == epochs_done else {}
    elif run.args.resume == AUTO:
        told["resume"] = Words("begun here")
    return told


def data(run: Run) -> Told:
    """How many classes it tells apart."""
    told: Told = {"data": Words(f"{len(run.data['names'])} classes"), "single_cls": len(run.data["names"]) == 1}
    if run.resume_from is not None:
        told["accept_data_change"] = Words(run.notes[-1] if run.notes else "nothing had changed")
    return told


def length(run: Run) -> Told:
    """How long it is, and how it is divided."""
    plan, images = run.plan, run.plan.batch
    told: Told = {
        "epochs": run.epochs,
        "warmup_epochs": steps_of(plan.warmup_batches, 1 / plan.batches),
        "nbs": steps_of(run.accumulate, images) if run.accumulate > 1 else Rounded(images, 0, 1.5 * images),
    }
    if any(isinstance(part, TrainDataset) for part in data_sets(run.train_loader)):
        told["close_mosaic"] = run.closing_epochs()
    return told


def steps_of(count: int, size: float) -> Rounded:
    """Return ``count`` whole steps: half a step more or less would have been rounded to the same."""
    return Rounded(count * size, (count - 0.5) * size, (count + 0.5) * size)


def optimizer(run: Run) -> Told:
    """Class, base rates and decay; the decay in the option's unit, for a step over ``nbs`` images."""
    groups = run.optimizer.param_groups
    images = run.plan.batch * run.accumulate
    # The largest: biases and normalisation have 0 under any setting.
    decay = max(float(group.get("weight_decay", 0.0)) for group in groups)
    return {
        "optimizer": type(run.optimizer).__name__,
        "lr0": sorted({float(f"{group['initial_lr']:.6g}") for group in groups}),
        "weight_decay": decay * run.plan.nbs / images,
    }


def curve(run: Run) -> Told:
    """How the rate falls."""
    schedule, last = SCHEDULES[run.plan.schedule], run.lf(1.0)
    shares = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8)
    agrees = all(math.isclose(run.lf(x), schedule(x, last), rel_tol=1e-5, abs_tol=1e-9) for x in shares)
    name = run.plan.schedule if agrees else "another curve"
    return {"lrf": last, "schedule": name, "cos_lr": name == "cosine"}


def workers(run: Run) -> Told:
    """Processes that load for torch's own loader; ours tells it itself."""
    return {"workers": run.train_loader.num_workers} if isinstance(run.train_loader, DataLoader) else {}


def average(run: Run) -> Told:
    """Whether weights are averaged; how is told by the average."""
    return {"ema": run.ema is not None}


def reports(run: Run) -> Told:
    """That nobody draws or speaks, where no report tells that it does."""
    told = {name for c in run.callbacks.callbacks if isinstance(c, Tells) for name in c.effects()}
    return dict.fromkeys({"plots", "report", "verbose"} - told, False)


def files(run: Run) -> Told:
    """Files of detections, which a validator of ours writes at the end of the run."""
    ours = isinstance(run.validator, Tells)
    return dict.fromkeys(("save_json", "save_txt", "save_conf"), Words("by the final evaluation")) if ours else {}


def seeds(run: Run) -> Told:
    """That what is drawn in a step follows from the seed; order and augmentation are told by the data."""
    drawn = step_seed(run.args.seed, run.epoch, run.step, dist.rank())
    return {"seed": Words("weights and steps")} if not run.loss_items or torch.initial_seed() == drawn else {}


# -- known once it has trained -----------------------------------------------------------------------------------------
def batch(run: Run) -> Told:
    """Size and number of the images of the latest step; a loader or data set of ours knows better what they are."""
    count, side, processes = run.batch["img"].shape[0], run.batch["img"].shape[-1], max(run.world_size, 1)
    as_drawn = side == run.size_of_step()
    words = Words(f"{side} px in step {run.step + 1}")
    told: Told = {"multi_scale": words if as_drawn else 0.0}
    told["hsv_on_device"] = run.coloured > 0
    if not any(isinstance(part, Tells) for part in data_sets(run.train_loader)):
        told["imgsz"] = words if as_drawn and run.args.multi_scale else side
    if not isinstance(run.train_loader, Tells):
        size = extent(run.train_loader, processes).batch
        # Where a loader does not tell, the batch looked at may be the last and smaller one of the epoch.
        told["batch"] = size or Rounded(count * processes, count, math.inf)
    return told


def momentum(run: Run) -> Told:
    """Momentum, or the first beta, and what the warm-up starts from, worked out from where this step is in it."""
    group, plan, progress = run.optimizer.param_groups[0], run.plan, run.progress()
    warm = (progress.batches + 1) / plan.warmup_batches if progress.batches < plan.warmup_batches else 1.0
    words = f"over {plan.warmup_batches} batches" if plan.warmup_batches else "no warm-up in so short a run"
    told: Told = {}
    if any(g.get("param_group") == "bias" for g in run.optimizer.param_groups) or not plan.warmup_batches:
        told["warmup_bias_lr"] = Words(words)
    if "betas" in group:
        told["momentum"] = group["betas"][0]
    if "momentum" in group:
        start, now = run.args.warmup_momentum, group["momentum"]
        told["momentum"] = start + (now - start) / warm
        told["warmup_momentum"] = (now - plan.momentum * warm) / (1 - warm) if warm < 1 else Words(words)
    elif not plan.warmup_batches:
        told["warmup_momentum"] = Words(words)
    return told


def validations(run: Run) -> Told:
    """When it validates, as the first validation shows."""
    last = run.epoch + 1 >= run.epochs or run.time_is_up or run.stop
    if last or run.resume_from is not None:
        what = "validated" if run.validator is not None else "nothing to validate"
        when = Words(f"{what} after epoch {run.epoch + 1} of {run.epochs}")
        return {"val": not last, "val_every": when}
    return {"val": True, "val_every": first_validation(run)}


def first_validation(run: Run) -> int:
    """Return the 1-based epoch of the first validation."""
    validated = [row["epoch"] for row in run.history.rows if any(key.startswith("metrics/") for key in row)]
    return int(validated[0]) if validated else run.epoch + 1


def checkpoints(run: Run) -> Told:
    """Which files it writes, as those that it has written show."""
    if run.stop or run.resume_from is not None or not dist.is_main():
        return dict.fromkeys(("save", "save_period"), Words("the last weights are written at the end"))
    kept = sorted(int(stem.removeprefix("epoch")) for stem in run.written if re.fullmatch(r"epoch\d+", stem))
    period = kept[0] if kept else Rounded(run.epoch + 2, run.epoch + 2, math.inf)
    return {"save": "last" in run.written, "save_period": period}


def compiler(run: Run) -> Told:
    """Whether torch.compile has taken the network, or why not."""
    if run.compiled is None:
        return {"compile": False}
    return {"compile": Words(run.compiled.refused) if run.compiled.refused else True}


def watch(run: Run) -> Told:
    """What it does about a step that is no number, where somebody watches for one."""
    return {"on_nan": run.nan_answer} if run.nan_answer else {}


def spent(run: Run) -> Told:
    """How much of the time budget is gone; a run that goes on beyond it tells nothing."""
    late = run.args.time is not None and run.elapsed() > run.args.time * 3600 and not run.stop
    return {} if late else {"time": Words(f"{run.elapsed() / 3600:.3g} hours spent")}


Part = Callable[[Run], Told]
ALWAYS: tuple[Part, ...] = (
    folder, place, layout, source, data, length, optimizer, curve, workers, average, reports, files, seeds,
)  # fmt: skip
TRAINED: tuple[Part, ...] = (batch, momentum, validations, checkpoints, compiler, watch, spent)
