"""What each option really did: one table, option -> where its effect can be seen, and who may have kept it away.

A witness reads the thing that works (the sampler, the optimizer's groups, the validator), never the options. Options of
a component are not here: the component tells them itself (``Callback.witness``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from eyas.augment.letterbox import padded
from eyas.augment.settings import AugmentSettings
from eyas.data.dataset import TrainDataset
from eyas.data.loader import EpochLoader
from eyas.data.sampler import EpochOrder, WeightedOrder
from eyas.evaluate.validator import DetectionValidator
from eyas.losses import Criterion, EndToEndCriterion
from eyas.nn.unwrap import unwrap_model
from eyas.optim import SCHEDULES
from eyas.optim.optimizers import optimizer_class
from eyas.prove import conflicts
from eyas.report.pictures import Pictures
from eyas.report.progress import ConsoleReport
from eyas.run.overrides import names_in, overrides
from eyas.train import messages

if TYPE_CHECKING:
    from eyas.train.trainer import BaseTrainer

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Witness:
    """Where the effect of an option is seen.

    Attributes:
        see: trainer -> plain value, None when no effect can be seen.
        agrees: (trainer, seen value) -> whether that is what the option asks for; None where the two cannot be
            compared.
        methods: methods of the trainer that make the option work; one that is overridden is the first suspect.
        hint: what else may keep the effect away.
    """

    see: Callable[[Any], object]
    agrees: Callable[[Any, Any], bool] | None = None
    methods: tuple[str, ...] = ()
    hint: str = ""


# -- data --------------------------------------------------------------------------------------------------------------
LOADING = ("get_dataloader", "build_dataset", "setup_loaders", "build_index", "augment_settings", "get_dataset")


def train_dataset(trainer: BaseTrainer) -> TrainDataset | None:
    """Return our data set behind the training loader, looked for inside wrappers; None if it is someone else's."""
    found = getattr(trainer.train_loader, "dataset", None)  # a user's loader may be anything
    while found is not None and not isinstance(found, TrainDataset):
        found = getattr(found, "dataset", None)
    return found


def from_dataset(read: Callable[[TrainDataset], object]) -> Callable[[Any], object]:
    """Return a witness that reads our training data set, and sees nothing where there is none."""

    def see(trainer: BaseTrainer) -> object:
        dataset = train_dataset(trainer)
        return None if dataset is None else read(dataset)

    return see


def input_size(trainer: BaseTrainer) -> object:
    """Side in pixels of the images that the loader makes."""
    dataset = train_dataset(trainer)
    return int(trainer.batch["img"].shape[-1]) if dataset is None else dataset.imgsz


def images_per_step(trainer: BaseTrainer) -> object:
    """Images of a full batch over all processes, as the sampler cuts it; of a user's loader, what it says or gave."""
    loader, processes = trainer.train_loader, max(trainer.world_size, 1)
    if isinstance(loader, EpochLoader):
        return loader.sampler.batch  # type: ignore[union-attr]  # of training
    size = getattr(loader, "batch_size", None)
    return (size if isinstance(size, int) else len(trainer.batch["img"])) * processes


def batch_agrees(trainer: BaseTrainer, seen: int) -> bool:
    wanted, processes = trainer.args.batch or seen, max(trainer.world_size, 1)
    if isinstance(trainer.train_loader, EpochLoader):
        return seen == min(wanted, trainer.train_loader.images)
    if isinstance(getattr(trainer.train_loader, "batch_size", None), int):
        return seen in (wanted, wanted * processes)
    return seen <= wanted * processes  # the batch looked at may be the last and smaller one of the epoch


def loader_workers(trainer: BaseTrainer) -> object:
    """Worker processes of the training loader."""
    loader = trainer.train_loader
    return loader.workers if isinstance(loader, EpochLoader) else getattr(loader, "num_workers", None)


def workers_agree(trainer: BaseTrainer, seen: int) -> bool:
    return seen in (trainer.args.workers, min(trainer.args.workers or 0, len(trainer.train_loader)))


def image_order(trainer: BaseTrainer) -> object:
    """What decides how often an image is drawn."""
    order = getattr(getattr(trainer.train_loader, "sampler", None), "order", None)
    return order.name if isinstance(order, WeightedOrder) else None


def repeats(trainer: BaseTrainer) -> object:
    """Largest number of visits that an image gets per epoch."""
    order = getattr(getattr(trainer.train_loader, "sampler", None), "order", None)
    return f"images up to {order.factors.max():.3g} times" if isinstance(order, WeightedOrder) else None


def classes_kept(dataset: TrainDataset) -> object:
    """Class ids that occur in the training labels."""
    return [int(c) for c, n in enumerate(dataset.index.instances()) if n]


def share_of_images(trainer: BaseTrainer) -> object:
    """Images of the training split that are used."""
    dataset = train_dataset(trainer)
    return None if dataset is None else f"{len(dataset.index)} images"


def run_seed(trainer: BaseTrainer) -> object:
    """Seed of order and augmentation; with a user's loader, that of the weights."""
    dataset = train_dataset(trainer)
    if dataset is None:
        return torch.initial_seed()
    order = getattr(getattr(trainer.train_loader, "sampler", None), "order", None)
    return order.seed if isinstance(order, (EpochOrder, WeightedOrder)) else dataset.seed


def seed_agrees(trainer: BaseTrainer, seen: int) -> bool:
    return train_dataset(trainer) is None or seen == trainer.args.seed


def trained_size(trainer: BaseTrainer) -> object:
    """Side in pixels of the latest batch, as the model saw it."""
    return f"{trainer.batch['img'].shape[-1]} px in step {trainer.step + 1}"


def multi_scale_agrees(trainer: BaseTrainer, seen: str) -> bool:
    adjusted = any(hook == "adjust_batch" for _, hook in trainer.callbacks.registered())
    return adjusted or seen == f"{trainer.size_of_step()} px in step {trainer.step + 1}"


def closing(trainer: BaseTrainer) -> object:
    """First epoch without mosaic and mixing, if the loader follows epochs."""
    if train_dataset(trainer) is None or not isinstance(trainer.train_loader, messages.FollowsEpoch):
        return None
    last = trainer.closing_epochs()
    return f"off from epoch {trainer.epochs - last + 1}" if last else "on to the end"


def augmentation(name: str) -> Witness:
    """Return the witness of one value of ``AugmentSettings``."""

    def agrees(trainer: BaseTrainer, seen: object) -> bool:
        wanted = trainer.args.get(name)
        return seen == (list(wanted) if isinstance(wanted, tuple) else wanted)

    def see(dataset: TrainDataset) -> object:
        value = getattr(dataset.settings, name)
        return list(value) if isinstance(value, tuple) else value

    return Witness(from_dataset(see), agrees, LOADING)


# -- optimizer ---------------------------------------------------------------------------------------------------------
OPTIMIZER = ("build_optimizer", "setup_optimizer")
RATES = ("set_rates", "lf")
WARM_UP = ("set_rates", *OPTIMIZER)


def base_rates(trainer: BaseTrainer) -> object:
    """Base rate of every group."""
    return sorted({float(f"{group['initial_lr']:.6g}") for group in trainer.optimizer.param_groups})


def decays(trainer: BaseTrainer) -> object:
    """Weight decay of every group."""
    return sorted({float(f"{group.get('weight_decay', 0.0):.6g}") for group in trainer.optimizer.param_groups})


def argument_used(trainer: BaseTrainer, argument: str) -> bool:
    """Whether groups may rightly hold other values than the plan's: a component scales them, or an override that
    reads the argument does."""
    own = overrides(type(trainer)).get("build_optimizer")
    scaled = any(hook == "adjust_param_groups" for _, hook in trainer.callbacks.registered())
    return scaled or (own is not None and argument in conflicts.reads(own))


def rate_agrees(trainer: BaseTrainer, seen: list[float]) -> bool:
    return argument_used(trainer, "lr") or any(math.isclose(rate, trainer.plan.lr0, rel_tol=1e-5) for rate in seen)


def decay_agrees(trainer: BaseTrainer, seen: list[float]) -> bool:
    # The largest: biases and normalisation have 0 under any setting.
    return argument_used(trainer, "decay") or math.isclose(max(seen), trainer.plan.weight_decay, rel_tol=1e-5)


def momentum(trainer: BaseTrainer) -> object:
    """Momentum or first beta at this step; a warm-up may not be over."""
    group = trainer.optimizer.param_groups[0]
    return group["betas"][0] if "betas" in group else group.get("momentum")


def momentum_agrees(trainer: BaseTrainer, seen: float) -> bool:
    wanted, start = trainer.plan.momentum, trainer.args.warmup_momentum
    if "betas" in trainer.optimizer.param_groups[0]:
        return math.isclose(seen, wanted)
    return min(wanted, start) - 1e-9 <= seen <= max(wanted, start) + 1e-9


def curve(trainer: BaseTrainer) -> object:
    """Factors on the rate at the start, in the middle and at the end of the run."""
    return [float(f"{trainer.lf(share):.6g}") for share in (0.0, 0.5, 1.0)]


def curve_agrees(trainer: BaseTrainer, seen: list[float]) -> bool:
    if "lf" in overrides(type(trainer)):  # it calls the stock one, or it would have been refused
        return True
    schedule = SCHEDULES[trainer.plan.schedule]
    wanted = [schedule(share, trainer.args.lrf) for share in (0.0, 0.5, 1.0)]
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in zip(seen, wanted, strict=True))


def warm_up(trainer: BaseTrainer) -> object:
    """Length of the warm-up."""
    return f"{trainer.plan.warmup_batches} batches"


def warm_up_agrees(trainer: BaseTrainer, seen: str) -> bool:
    return seen == f"{round((trainer.args.warmup_epochs or 0) * trainer.plan.batches)} batches"


def warm_groups(trainer: BaseTrainer, has: Callable[[dict[str, Any]], bool]) -> object:
    """How many groups a start value of the warm-up reaches; a run may be too short for a warm-up of its own."""
    if not trainer.plan.warmup_batches:
        return "no warm-up in so short a run"
    groups = sum(has(group) for group in trainer.optimizer.param_groups)
    return f"{groups} groups over {warm_up(trainer)}" if groups else None


# -- model, loss, precision --------------------------------------------------------------------------------------------
LOSS = ("setup_criterion", "get_model", "set_model_attributes")


def criterion_of(trainer: BaseTrainer) -> Any:
    """Return the criterion that is called in a step."""
    return getattr(unwrap_model(trainer.model), "criterion", None)  # a user's model may keep its loss elsewhere


def gain(name: str) -> Witness:
    """Return the witness of a gain: the one in our criterion; a user's criterion must at least mention it."""

    def see(trainer: BaseTrainer) -> object:
        criterion = criterion_of(trainer)
        part = criterion.one2one if isinstance(criterion, EndToEndCriterion) else criterion
        if isinstance(part, Criterion):
            return part.effects()[name]
        mentioned = any(name in names_in(fn) for fn in user_loss_code(trainer))
        return f"read by {type(part).__name__}" if mentioned else None

    def agrees(trainer: BaseTrainer, seen: object) -> bool:
        return isinstance(seen, str) or seen == trainer.args.get(name)

    return Witness(see, agrees, LOSS)


def user_loss_code(trainer: BaseTrainer) -> Iterator[Callable[..., Any]]:
    """Yield the functions of a user's criterion and of the model that made it."""
    model, criterion = unwrap_model(trainer.model), criterion_of(trainer)
    for cls in (*type(criterion).__mro__, *type(model).__mro__):
        if cls not in (object, nn.Module):
            yield from (value for value in vars(cls).values() if hasattr(value, "__code__"))


def network(trainer: BaseTrainer) -> str:
    """Class and size of the model."""
    model = unwrap_model(trainer.model)
    return f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"


def start_weights(trainer: BaseTrainer) -> object:
    """What the run started from."""
    if trainer.resume_from is not None:
        return "those of the run that goes on"
    return "random" if trainer.from_scratch else "given"


def start_agrees(trainer: BaseTrainer, seen: str) -> bool:
    return trainer.resume_from is not None or seen == ("given" if trainer.args.pretrained else "random")


def is_channels_last(trainer: BaseTrainer) -> object:
    """Memory layout of the first real convolution; others look the same in both layouts."""
    for weight in trainer.model.parameters():
        if weight.ndim == 4 and weight.shape[1] > 1 and weight.shape[2:].numel() > 1:
            return weight.is_contiguous(memory_format=torch.channels_last)
    return "no convolution to lay out"


def precision(trainer: BaseTrainer) -> object:
    """Type that the forward pass computes in."""
    return str(trainer.amp_dtype or torch.float32).removeprefix("torch.")


def precision_agrees(trainer: BaseTrainer, seen: str) -> bool:
    wanted = HALF.get(str(trainer.args.amp), torch.float32)
    return trainer.args.amp is True or seen == str(wanted).removeprefix("torch.")


def place(trainer: BaseTrainer) -> object:
    """Device of the weights."""
    return str(next(trainer.model.parameters()).device)


def place_agrees(trainer: BaseTrainer, seen: str) -> bool:
    names = (trainer.args.device or seen).split(",")
    wanted = [f"cuda:{name}" if name.isdigit() else name for name in names]
    return any(seen == name or seen.partition(":")[0] == name for name in wanted)


def determinism(trainer: BaseTrainer) -> object:
    """Whether kernels are deterministic; a CPU's always are."""
    return torch.are_deterministic_algorithms_enabled() if trainer.device.type == "cuda" else "always so on this device"


def averaging(attribute: str) -> Callable[[Any], object]:
    """Return a witness that reads the moving average."""
    return lambda trainer: None if trainer.ema is None else getattr(trainer.ema, attribute)


# -- run and validation ------------------------------------------------------------------------------------------------
def folder(trainer: BaseTrainer) -> object:
    """The run folder."""
    return str(trainer.save_dir)


def validator(attribute: str) -> Callable[[Any], object]:
    """Return a witness that reads our validator."""
    return lambda trainer: (
        getattr(trainer.validator, attribute) if isinstance(trainer.validator, DetectionValidator) else None
    )


def validated_epoch(trainer: BaseTrainer) -> object:
    """The epoch that was validated just now."""
    return f"validated after epoch {trainer.epoch + 1} of {trainer.epochs}"


def validated_when_due(trainer: BaseTrainer, seen: str) -> bool:
    last = trainer.epoch + 1 >= trainer.epochs or trainer.time_is_up
    return last or (trainer.args.val and (trainer.epoch + 1) % trainer.args.val_every == 0)


def written_at_the_end(trainer: BaseTrainer) -> object:
    """Files of the final evaluation, which only our validator writes."""
    return "by the final evaluation" if isinstance(trainer.validator, DetectionValidator) else None


def checkpoints(trainer: BaseTrainer) -> object:
    """Which files ``save_model`` writes; None where an override does not call the stock one."""
    own = overrides(type(trainer)).get("save_model")
    if own is not None and "save_model" not in names_in(own):
        return None
    period = f", and every {trainer.args.save_period} epochs" if trainer.args.save_period > 0 else ""
    return ("best and last weights" if trainer.args.save else "best weights, and the last at the end") + period


def pictures(trainer: BaseTrainer) -> object:
    """Whether pictures are drawn."""
    return any(isinstance(callback, Pictures) for callback in trainer.callbacks.callbacks)


def console(trainer: BaseTrainer) -> object:
    """Whether the run speaks on the console."""
    reports = [c for c in trainer.callbacks.callbacks if isinstance(c, ConsoleReport)]
    return "console on" if any(report.console.enabled for report in reports) else "console off"


def option_file(trainer: BaseTrainer) -> object:
    """Options that came from a file."""
    return sorted(name for name, source in trainer.args.sources().items() if source == "file")


def resumed(trainer: BaseTrainer) -> object:
    """Where the run went on."""
    return None if trainer.resume_from is None else f"from epoch {trainer.start_epoch + 1}"


# -- the table ---------------------------------------------------------------------------------------------------------
def same(name: str, cast: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, Any], bool]:
    """Return the comparison of a seen value with the option's."""
    return lambda trainer, seen: bool(seen == cast(trainer.args.get(name)))


def under(name: str) -> Callable[[Any, Any], bool]:
    """Return whether the run folder has the option in its path; a run that goes on stays where it lies."""

    def agrees(trainer: BaseTrainer, seen: str) -> bool:
        path = str(Path(trainer.args.get(name)))
        return trainer.resume_from is not None or path in seen

    return agrees


VALIDATING = ("get_validator", "validate")
WITNESSES: dict[str, Witness] = {
    # run
    "model": Witness(network, methods=("get_model",)),
    "pretrained": Witness(start_weights, start_agrees, ("get_model", "setup_model")),
    "cls_remap": Witness(
        lambda t: None if t.from_scratch else "rows follow names" if t.args.cls_remap else "rows as they are",
        methods=("get_model",),
        hint="random weights have no classes to follow",
    ),
    "resume": Witness(resumed),
    "cfg": Witness(option_file),
    "project": Witness(folder, under("project")),
    "name": Witness(folder, under("name")),
    "save_dir": Witness(folder),
    "exist_ok": Witness(folder),
    "save": Witness(checkpoints, methods=("save_model",)),
    "save_period": Witness(checkpoints, methods=("save_model",)),
    "plots": Witness(pictures, same("plots")),
    "verbose": Witness(console),
    # data
    "data": Witness(lambda t: f"{len(t.data['names'])} classes", methods=("get_dataset",)),
    "imgsz": Witness(input_size, same("imgsz", padded), LOADING),
    "batch": Witness(images_per_step, batch_agrees, LOADING),
    "fraction": Witness(share_of_images, methods=LOADING),
    "single_cls": Witness(lambda t: len(t.data["names"]) == 1, same("single_cls"), ("get_dataset",)),
    "classes": Witness(
        from_dataset(classes_kept),
        lambda t, seen: t.args.single_cls or set(seen) <= set(t.args.classes),
        LOADING,
    ),
    "cache": Witness(from_dataset(lambda d: d.store.cache_mode or "does not fit"), methods=LOADING),
    "workers": Witness(loader_workers, workers_agree, LOADING),
    "sampler": Witness(image_order, same("sampler"), LOADING),
    "sampler_threshold": Witness(repeats, methods=LOADING),
    # length
    "epochs": Witness(lambda t: t.epochs, same("epochs"), ("make_plan",)),
    "time": Witness(lambda t: f"{t.elapsed() / 3600:.3g} hours spent", methods=("should_stop", "out_of_time")),
    # optimizer
    "optimizer": Witness(
        lambda t: type(t.optimizer).__name__,
        lambda t, seen: seen == optimizer_class(t.args.optimizer).__name__,
        OPTIMIZER,
    ),
    "lr0": Witness(base_rates, rate_agrees, OPTIMIZER),
    "lrf": Witness(curve, curve_agrees, RATES),
    "momentum": Witness(momentum, momentum_agrees, OPTIMIZER),
    "weight_decay": Witness(decays, decay_agrees, OPTIMIZER),
    "schedule": Witness(curve, curve_agrees, RATES),
    "cos_lr": Witness(curve, curve_agrees, RATES),
    "warmup_epochs": Witness(warm_up, warm_up_agrees, ("set_rates",)),
    "warmup_momentum": Witness(lambda t: warm_groups(t, lambda g: "momentum" in g), methods=WARM_UP),
    "warmup_bias_lr": Witness(
        lambda t: warm_groups(t, lambda g: g.get("param_group") == "bias"),
        methods=WARM_UP,
        hint='no group of the optimizer is labelled {"param_group": "bias"}',
    ),
    "nbs": Witness(
        lambda t: f"{t.accumulate} batches per step",
        lambda t, seen: seen == f"{max(round(t.args.nbs / t.plan.batch), 1)} batches per step",
        ("step_due", "make_plan"),
    ),
    # averaging
    "ema": Witness(lambda t: t.ema is not None, same("ema"), ("setup",)),
    "ema_decay": Witness(averaging("decay_limit"), same("ema_decay"), ("setup", "optimizer_step")),
    "ema_tau": Witness(averaging("tau"), same("ema_tau"), ("setup", "optimizer_step")),
    # precision
    "device": Witness(place, place_agrees),
    "processes": Witness(lambda t: max(t.world_size, 1), lambda t, seen: seen >= t.args.processes),
    "restarts": Witness(
        lambda t: f"up to {t.args.restarts}" if t.world_size else None, hint="one process is not started again"
    ),
    "amp": Witness(precision, precision_agrees),
    "channels_last": Witness(
        is_channels_last, lambda t, seen: isinstance(seen, str) or seen == t.args.channels_last, ("get_model",)
    ),
    "seed": Witness(run_seed, seed_agrees, LOADING),
    "deterministic": Witness(determinism, lambda t, seen: isinstance(seen, str) or seen == t.args.deterministic),
    # loss
    "box": gain("box"),
    "cls": gain("cls"),
    "dfl": gain("dfl"),
    # augmentation
    **{name: augmentation(name) for name in AugmentSettings.__dataclass_fields__},
    "multi_scale": Witness(trained_size, multi_scale_agrees, ("preprocess_batch", "rescale")),
    "close_mosaic": Witness(closing, methods=(*LOADING, "send_progress")),
    # validation
    "val": Witness(validated_epoch, validated_when_due, ("validation_due",)),
    "val_every": Witness(validated_epoch, validated_when_due, ("validation_due",)),
    "conf": Witness(validator("conf"), same("conf"), VALIDATING),
    "iou": Witness(validator("iou"), same("iou"), VALIDATING),
    "max_det": Witness(validator("max_det"), same("max_det"), VALIDATING),
    "nms": Witness(validator("nms"), same("nms"), VALIDATING),
    "agnostic_nms": Witness(
        validator("agnostic_nms"), lambda t, seen: seen == (t.args.agnostic_nms or t.args.single_cls), VALIDATING
    ),
    "save_json": Witness(written_at_the_end, methods=(*VALIDATING, "evaluate_best")),
    "save_txt": Witness(written_at_the_end, methods=(*VALIDATING, "evaluate_best")),
    "save_conf": Witness(written_at_the_end, methods=(*VALIDATING, "evaluate_best")),
}
