"""TrainOptions: every option of detection training, validation and prediction, with type, range, default and help.

The field is the only place where an option is described: the command line, `eyas explain` and the reference page in
docs/ are made from it. Options are flat for users; the library passes plain values on to its classes.

A default of None on a field marked "auto" means: chosen by the plan from recipe, model and data. A value that was
typed (in a file, in the call, on the command line, or assigned) is never replaced by the library.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from eyas.config.errors import OptionError, OptionValueError, UnknownOptionError, bad_value, show, unknown_option
from eyas.config.facts import Facts, Fixed, Rehearsed, Teller, Void, only_with, replaced_by, without
from eyas.config.values import (
    CURVES,
    Amp,
    Cache,
    Classes,
    ClassWeightsOption,
    Criteria,
    Data,
    Device,
    Factors,
    Float,
    Ignored,
    Images,
    Int,
    Mapped,
    Names,
    Optimizer,
    OptionFile,
    Period,
    Scale,
    ScheduleOption,
    Selection,
    SyncBn,
    Text,
    to_plain,
)

Source = Literal["default", "recipe", "file", "call", "command line", "override"]
TYPED: frozenset[str] = frozenset({"file", "call", "command line", "override"})

GROUPS = {
    "run": "What to run, and where its results go",
    "data": "Data and loading",
    "length": "Length of the run",
    "optimizer": "Optimizer and learning rate",
    "averaging": "Weight averaging and gradient clipping",
    "layers": "Freezing, learning rates and normalisation, layer by layer",
    "selection": "What is measured, which epoch is best, when to stop",
    "precision": "Device, precision and reproducibility",
    "loss": "Loss",
    "augmentation": "Augmentation",
    "validation": "Validation and prediction",
    "prediction": "Videos, tiles, files and tracks of a prediction",
}


def _option(
    default: Any,
    help: str,
    *,
    group: str,
    on: str = "train",
    also: str = "",
    void: Void | tuple[Void, ...] = (),
    adjusted_by: str = "",
    facts: Mapping[str, Any],
    **limits: Any,
) -> Any:
    """A field: default, help, and everything else that is known of the option (`Facts`), with ge/gt/le/lt limits.

    `on` names the commands that use it, `also` other names that people know it by, `adjusted_by` hooks and methods;
    several are separated by blanks.
    """
    known = {key: limits.pop(key) for key in tuple(limits) if key not in ("ge", "gt", "le", "lt")}
    found = Facts(
        group=group,
        commands=tuple(on.split()),
        also=tuple(also.split()),
        void=(void,) if isinstance(void, Void) else void,
        adjusted_by=tuple(adjusted_by.split()),
        **{**facts, **known},
    )
    return Field(default, description=help, json_schema_extra={"facts": typing.cast("Any", found)}, **limits)


def _of(group: str, **facts: Any) -> Callable[..., Any]:
    """The fields of a group, and what holds for all of them that do not say otherwise."""
    return partial(_option, group=group, facts=facts)


_run = _of("run")
_data = _of("data", resumable=False, told_by=Teller.LOADER)
_length = _of("length", resumable=True)
_rates = _of("optimizer", resumable=False, told_by=Teller.RATES)
_averaging = _of("averaging", resumable=False, told_by=Teller.COMPONENT)
_layers = _of("layers", resumable=False, told_by=Teller.COMPONENT)
_selection = _of("selection", resumable=False, told_by=Teller.COMPONENT)
_precision = _of("precision", told_by=Teller.PLACE)
_loss = _of("loss", resumable=False, told_by=Teller.CRITERION)
_augmentation = _of("augmentation", resumable=False, told_by=Teller.LOADER, needs="build_dataset")
_validation = _of("validation", resumable=False, told_by=Teller.VALIDATOR)
_finding = partial(_option, group="prediction", on="predict track", facts={})

_ALL = "train val predict track"
_EVAL = "train val"

_NO_WARM_UP = Void(("warmup_epochs",), (0,), "warmup_epochs=0 turns the warm-up off")
_NO_AVERAGE = without("ema", "ema=False turns averaging off")
_NOTHING_FROZEN = without("freeze", "nothing is frozen; add freeze=...")
_NO_PICTURES = Void(("save", "save_frames"), (False,), "no pictures are written; add save=True")
_ONE_VALIDATION = "val=False validates the last epoch only"


# --------------------------------------------------------------------------------------------- the options


class TrainOptions(BaseModel):
    """All options of a run, validated when built and whenever one is assigned.

    Raises `UnknownOptionError` for a name that does not exist and `OptionValueError` for a value that does not fit,
    both `OptionError` and so `ValueError`. `options.source(name)` tells where a value comes from.
    """

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    # ---- run
    model: Text | None = _run(
        None,
        "The network: a catalogue name such as `yolo26n`, an architecture YAML, or a checkpoint `.pt`.",
        on=_ALL,
        expected="a model name or a path",
        also="weights checkpoint",
        resumable=True,
        told_by=Teller.MODEL,
        at_start=True,
    )
    pretrained: bool | Text = _run(
        True,
        "Weights to start from: True keeps those that `model` holds (a name or YAML holds none: random weights), "
        "False always starts from random weights, a path loads that checkpoint. Official RT-DETR models also take the "
        "name of published weights, or their `.pth` file.",
        expected="True, False, a path or a name",
        resumable=False,
        told_by=Teller.MODEL,
        at_start=True,
    )
    backbone: Text | None = _run(
        None,
        "Another backbone for a DETR model than its own: `resnet50-vd`, `hgnetv2-b4`, `vit-s14-dinov2`, "
        "`timm:convnext_tiny`, ... (docs/backbones.md).",
        expected="the name of a backbone",
        auto="the model's own",
        resumable=False,
        told_by=Teller.MODEL,
        at_start=True,
        needs="get_model",
        hint="this model keeps the backbone that it has",
    )
    backbone_weights: Text | None = _run(
        None,
        "Pre-trained weights for the backbone alone: a file of DINO, DINOv2, DINOv3, MAE, CLIP, timm or Hugging Face, "
        "recognised by the names in it, or the name of published ones; `timm` for those that timm publishes.",
        expected="a path or a name",
        auto="random, or those of `pretrained`",
        resumable=False,
        told_by=Teller.MODEL,
        at_start=True,
        needs="get_model",
    )
    accept_licences: Names | None = _run(
        None,
        "Licences of weights that you agree to, where they ask for that: `CC-BY-NC-4.0` (MAE), `DINOv3 License`. "
        "Needed once; remembered beside the cache, and written into the checkpoints.",
        expected="a name or a list of names",
        auto="what was agreed to before, or in EYAS_ACCEPT_LICENCES",
        also="accept_licenses license",
        resumable=True,
        told_by=Teller.MODEL,
        at_start=True,
        needs="get_model",
        hint="no weights of this run are under a licence that asks for consent, or only under others",
    )
    gradient_checkpointing: bool = _run(
        False,
        "Compute again what gradients need instead of keeping it: of YOLO26 what each SiLU was given (0.7 of that "
        "memory, about a tenth more time), of other families the insides of blocks (a quarter to a third of it, 1.2 to "
        "1.35 times the time).",
        also="grad_checkpointing activation_checkpointing",
        resumable=True,
        told_by=Teller.MODEL,
        needs="set_model_attributes",
        hint="nothing in this model can compute again what its gradients need",
    )
    cls_remap: bool = _run(
        True,
        "When weights come from a model with other classes, keep the rows of classes with the same name.",
        resumable=False,
        told_by=Teller.MODEL,
        at_start=True,
        needs="get_model",
        hint="random weights have no classes to follow",
    )
    resume: bool | Text = _run(
        False,
        "Continue an interrupted run: the path of its `last.pt`, or True for the run that `model` is a checkpoint of, "
        "or else the newest run under `project`. `auto` goes on with the run in this one's folder (`save_dir`, or "
        "`project` and `name`), and begins one where there is none: one command for schedulers that queue again.",
        expected="True, False, 'auto' or a path",
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.PLAN,
    )
    accept_data_change: bool = _run(
        False,
        "Continue a run although its images or labels are others than when it was saved; what has changed is written "
        "into the run's notes.",
        void=without("resume", "a run that begins anew has no data to compare with"),
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.DATA,
    )
    cfg: OptionFile | None = _run(
        None,
        "YAML file of options. Options in the call or on the command line win over the file.",
        on=_ALL,
        expected="a path",
        also="config",
        resumable=False,
        told_by=Teller.CALL,
    )
    project: Text | None = _run(
        None,
        "Folder that holds the runs.",
        on=_ALL,
        expected="a path",
        auto="`runs/detect`",
        void=replaced_by("save_dir"),
        resumable=False,
        rehearsed=Fixed(None),
        told_by=Teller.FOLDER,
        at_start=True,
    )
    name: Text | None = _run(
        None,
        "Folder of this run inside `project`; `-2`, `-3`, ... is added when it exists.",
        on=_ALL,
        expected="a text",
        auto="the command, e.g. `train`",
        void=replaced_by("save_dir"),
        resumable=False,
        rehearsed=Fixed(None),
        told_by=Teller.FOLDER,
        at_start=True,
    )
    save_dir: Text | None = _run(
        None,
        "Folder of this run, instead of `project` and `name`.",
        on=_ALL,
        expected="a path",
        auto="made from `project` and `name`",
        also="output output_dir out",
        resumable=False,
        rehearsed=Rehearsed.GIVEN,
        told_by=Teller.FOLDER,
    )
    exist_ok: bool = _run(
        False,
        "Write into the run folder even if it exists.",
        on=_ALL,
        resumable=False,
        rehearsed=Fixed(True),
        told_by=Teller.FOLDER,
        at_start=True,
    )
    save: bool = _run(
        True,
        "Write checkpoints (train), or annotated pictures and videos (predict, track), to the run folder.",
        on="train predict track",
        resumable=True,
        rehearsed=Fixed(True),
        told_by=Teller.LOOP,
        needs="save_model",
    )
    save_period: Int = _run(
        -1,
        "Also keep a checkpoint every this many epochs; -1 or 0 keeps none.",
        void=without("save", "save=False writes no checkpoints"),
        resumable=True,
        rehearsed=Rehearsed.EACH,
        told_by=Teller.LOOP,
        needs="save_model",
        ge=-1,
    )
    save_every: Period = _run(
        "15min",
        "Save inside an epoch too, so often: `90s`, `15min`, `2h`, or a number of optimizer steps. A step waits for a "
        "copy of the state in memory, a thread writes it to `last.pt`. A process that is killed loses no more than "
        "that, and what it goes on with is bit-identical. False saves at the end of epochs only.",
        expected="a time (90s, 15min, 2h), a number of steps, or False",
        void=without("save", "save=False writes no checkpoints"),
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.LOOP,
        hint="a method of the trainer may have replaced what saves",
    )
    plots: bool = _run(
        True,
        "Draw curves, confusion matrix and example pictures.",
        on=_EVAL,
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.REPORT,
    )
    report: bool = _run(
        True,
        "Keep `report.html` in the run folder: curves, results per class, confusion, worst images, plan and effects on "
        "one page, written anew after each validation.",
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.REPORT,
    )
    save_predictions: bool = _run(
        True,
        "Keep what each validation found in `predictions/`, a few MB an epoch at most, from which `eyas best` computes "
        "other metrics later.",
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.REPORT,
    )
    loggers: Names | None = _run(
        None,
        "Where the run is sent to as well: tensorboard, wandb, mlflow, clearml, comet, jsonl (a file of events).",
        expected="a name or a list of names",
        auto="nowhere",
        also="logger",
        resumable=True,
        rehearsed=Fixed(None),
        told_by=Teller.COMPONENT,
    )
    verbose: bool = _run(
        True,
        "Show the model and the table of results per class.",
        on=_ALL,
        resumable=True,
        rehearsed=Fixed(False),
        told_by=Teller.REPORT,
    )

    # ---- data
    data: Data | None = _data(
        None,
        "Data set: a YAML file, a mapping of the same form, or the name of an embedded set (`digits`).",
        on=_EVAL,
        expected="a path, a name or a mapping",
        also="dataset",
        rehearsed=Rehearsed.GIVEN,
        told_by=Teller.DATA,
        needs="get_dataset",
    )
    imgsz: Int = _data(
        640,
        "Side of the square network input in pixels, rounded up to a multiple of the stride (32).",
        on=_ALL,
        also="img img_size image_size imgsize input_size",
        rehearsed=Rehearsed.GIVEN,
        told_by=Teller.BATCH,
        step=32,
        ge=32,
        le=8192,
    )
    batch: Images | None = _data(
        None, "Images per step, over all devices; auto: the most that fit the memory of the GPU on which one process "
        "trains, up to `nbs`.", on=_ALL, expected="a whole number >= 1, or 'auto'",
        auto="16; 8 when training on a CPU, which gains little from larger ones and learns more in more steps; "
        "1 for predict and track",
        also="batch_size bs", rehearsed=Rehearsed.GIVEN, told_by=Teller.BATCH, needs="get_dataloader",
        argument="batch_size", adjusted_by="get_dataloader",
    )  # fmt: skip
    fraction: Float = _data(
        1.0, "Share of the training images to use.", rehearsed=Rehearsed.SHARE, needs="build_dataset", gt=0, le=1
    )
    val_fraction: Float | None = _data(
        None,
        "Share of the training images to hold out for validation, of data without a `val` split. Chosen by the content "
        "of the files: the same images on every machine. `val: 0.1` in the data YAML does the same.",
        on=_EVAL,
        auto="what the data says",
        rehearsed=Fixed(None),
        needs="build_dataset",
        gt=0,
        lt=1,
    )
    ids_start: Int | None = _data(
        None,
        "Class id that label files begin with: 1 where they count from 1. Also a key of the data YAML.",
        on=_EVAL,
        auto="what the data says, else 0; files that seem to count from 1 are asked about",
        needs="build_dataset",
        ge=0,
    )
    single_cls: bool = _data(False, "Treat all classes as one.", on=_EVAL, told_by=Teller.DATA)
    classes: Classes | None = _data(
        None,
        "Class indices to keep; objects of other classes are left out.",
        on=_ALL,
        expected="a class index or a list of them",
        auto="all classes",
        needs="build_dataset",
    )
    ignore: Ignored | None = _data(
        None,
        "Areas in which finding an object is no mistake, in training and validation: True uses those that the data "
        "have (crowds, difficult objects, `annotated` in the data YAML), False takes them as background, a list of "
        "classes adds their objects.",
        on=_EVAL,
        expected="True, False or a list of classes",
        auto="what the data says",
        told_by=Teller.COMPONENT,
        needs="get_dataset",
    )
    cache: Cache = _data(
        False,
        "Keep decoded images in shared memory (`ram` or True) or on disk outside the data folder (`disk`).",
        expected="False, True, 'ram' or 'disk'",
        resumable=True,
        rehearsed=Fixed(False),
        needs="build_dataset",
    )
    remote_cache: Text | None = _data(
        None,
        "How much of images that lie elsewhere (`data` as a URL, or with URLs in it) each host keeps, and where: "
        "`200GB`, `/nvme/eyas`, `/nvme/eyas:200GB`.",
        on=_EVAL,
        expected="a size, a folder or both",
        auto="half of what is free in the cache folder",
        resumable=True,
        rehearsed=Fixed(None),
        needs="get_dataset",
    )
    workers: Int | None = _data(
        None,
        "Processes that load and augment images; 0 loads in the main process.",
        on=_EVAL,
        ge=0,
        le=256,
        auto="from the number of cores",
        also="num_workers",
        resumable=True,
        rehearsed=Fixed(0),
        needs="get_dataloader",
    )

    bad_images: Float = _data(
        0.01,
        "Share of the images of a split that may prove impossible to load: in training the next image of the order "
        "takes the place of each, in validation it is left out, and all are named; more of them end the run. One is "
        "always allowed, unless this is 0.",
        on=_EVAL,
        resumable=True,
        needs="get_dataloader",
        ge=0,
        le=1,
    )
    sampler: Literal["balanced", "repeat"] | None = _data(
        None,
        "Draw images with rare classes more often: balanced draws every class equally often, repeat shows images of "
        "classes in fewer than `sampler_threshold` of the images several times (LVIS).",
        auto="every image once in each epoch",
        needs="get_dataloader",
    )
    sampler_threshold: Float = _data(
        0.1,
        "Share of images below which sampler=repeat repeats a class.",
        void=only_with("sampler", ("repeat",), "it belongs to sampler=repeat"),
        needs="get_dataloader",
        gt=0,
        le=1,
    )

    # ---- length
    epochs: Int | None = _length(
        None,
        "Passes over the training images.",
        auto="from the recipe and the size of the data",
        also="num_epochs max_epochs",
        void=replaced_by("time"),
        rehearsed=Rehearsed.GIVEN,
        told_by=Teller.PLAN,
        ge=1,
    )
    time: Float | None = _length(
        None,
        "Budget in hours; it replaces `epochs`, and the schedule is fitted to it.",
        gt=0,
        auto="no budget",
        rehearsed=Fixed(None),
        told_by=Teller.LOOP,
        needs="should_stop",
    )
    patience: Int = _length(
        100,
        "Stop after this many epochs without a better fitness; 0 never stops.",
        also="early_stopping",
        void=(without("val", _ONE_VALIDATION), replaced_by("stop")),
        rehearsed=Rehearsed.COUNT,
        told_by=Teller.COMPONENT,
        ge=0,
    )

    # ---- optimizer
    optimizer: Optimizer = _rates(
        "auto",
        "auto, SGD, MuSGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, or any class of torch.optim. `auto` chooses "
        "the optimizer and fills in `lr0`, `momentum` and `warmup_bias_lr` where they were not given.",
        expected="the name of an optimizer",
        told_by=Teller.OPTIMIZER,
        needs="build_optimizer",
        argument="name",
    )
    lr0: Float | None = _rates(
        None,
        "Learning rate after warm-up.",
        auto="by the optimizer",
        also="lr learning_rate base_lr",
        told_by=Teller.OPTIMIZER,
        needs="build_optimizer",
        argument="lr",
        adjusted_by="adjust_param_groups build_optimizer",
        gt=0,
        le=100,
    )
    lrf: Float = _rates(
        0.01,
        "Learning rate at the end, as a fraction of `lr0`.",
        also="lr_final",
        void=only_with("schedule", CURVES, "schedule={o.schedule} decides the rate at the end"),
        needs="lf",
        adjusted_by="lf",
        ge=0,
        le=1,
    )
    momentum: Float | None = _rates(
        None,
        "Momentum (SGD, MuSGD, RMSprop) or beta1 (Adam family).",
        auto="by the optimizer",
        also="beta1",
        needs="build_optimizer",
        argument="momentum",
        adjusted_by="adjust_param_groups adjust_rates",
        ge=0,
        lt=1,
    )
    weight_decay: Float = _rates(
        0.0005,
        "Weight decay of weights that are neither biases nor normalisation, for a batch of `nbs`.",
        also="wd",
        told_by=Teller.OPTIMIZER,
        needs="build_optimizer",
        argument="decay",
        adjusted_by="adjust_param_groups build_optimizer",
        ge=0,
        le=10,
    )
    schedule: ScheduleOption = _rates(
        "linear",
        "How the learning rate falls from `lr0` to `lr0 * lrf`: linear, cosine, flat-cosine or step (at 11/12 of the "
        "run); or a torch scheduler as a mapping of its name and arguments, with `per: step` (default), `epoch` or "
        "`val`.",
        expected='linear, cosine, flat-cosine, step or a mapping: {"name": "StepLR", "step_size": 3, "per": "epoch"}',
        also="scheduler lr_scheduler",
        needs="lf",
        adjusted_by="lf",
    )
    cos_lr: bool = _rates(False, "Another spelling of schedule=cosine.", needs="lf", adjusted_by="lf")
    warmup_epochs: Float | None = _rates(
        None,
        "Length of the warm-up in epochs.",
        auto="from the length of the run, at most 3",
        rehearsed=Rehearsed.WARM_UP,
        needs="set_rates",
        ge=0,
    )
    warmup_momentum: Float = _rates(
        0.8,
        "Momentum at the first step of the warm-up.",
        void=_NO_WARM_UP,
        needs="set_rates",
        hint="no group of the optimizer has a momentum that could be warmed up",
        ge=0,
        lt=1,
    )
    warmup_bias_lr: Float | None = _rates(
        None,
        "Learning rate of biases at the first step of the warm-up.",
        auto="by the optimizer",
        void=_NO_WARM_UP,
        needs="set_rates",
        hint='no group of the optimizer is labelled {"param_group": "bias"}',
        ge=0,
        le=100,
    )
    nbs: Int | None = _rates(
        None,
        "Nominal batch: gradients of smaller batches are accumulated up to this many images.",
        auto="64, or less when the run is short",
        told_by=Teller.PLAN,
        ge=1,
    )

    # ---- averaging
    ema: bool = _averaging(True, "Validate and save a moving average of the weights.", told_by=Teller.AVERAGE)
    ema_share: Float | None = _averaging(
        None,
        "Mean age of the averaged weights, as a share of the steps so far: the average of a run of any length looks "
        "back over the same share of it.",
        gt=0,
        le=0.5,
        auto="by the recipe; none where `ema_decay` or `ema_tau` asks for an exponential average",
        void=(_NO_AVERAGE, replaced_by("ema_decay"), replaced_by("ema_tau")),
        told_by=Teller.AVERAGE,
    )
    ema_decay: Float | None = _averaging(
        None,
        "Decay of an exponential average once it is warm: asks for one in the place of `ema_share`.",
        auto="0.9999 where `ema_tau` was given",
        also="ema_momentum",
        void=_NO_AVERAGE,
        told_by=Teller.AVERAGE,
        ge=0,
        lt=1,
    )
    ema_tau: Float | None = _averaging(
        None,
        "Steps over which the decay of an exponential average grows, decay * (1 - exp(-step / tau)): asks for one in "
        "the place of `ema_share`.",
        gt=0,
        auto="where `ema_decay` was given, fitted to the length of the run, at most 2000",
        void=_NO_AVERAGE,
        told_by=Teller.AVERAGE,
    )
    clip_grad_norm: Float = _averaging(
        10.0, "Largest norm of the gradient; 0 does not clip.", also="grad_clip clip_grad max_norm", ge=0
    )
    clip_grad_value: Float = _averaging(
        0.0, "Largest absolute value of each element of the gradient; 0 does not clip.", ge=0
    )
    clip_per_group: bool = _averaging(
        False,
        "Clip the norm of each parameter group by itself instead of the joint norm.",
        void=without("clip_grad_norm", "clip_grad_norm=0 turns clipping off"),
    )

    # ---- layers
    freeze: Selection | None = _layers(
        None,
        "What does not train: a section (`backbone`), a number of first layers, a glob or /regex/ over parameter "
        'names, a list of those, or phases such as [{"what": "backbone", "epochs": 5}].',
        expected="a selector, a list of them, or a list of phases",
        auto="nothing is frozen",
        rehearsed=Rehearsed.PHASES,
    )
    freeze_epochs: Float | None = _layers(
        None,
        "Epochs after which `freeze` ends; below 1, a share of the run.",
        gt=0,
        auto="to the end of the run",
        void=_NOTHING_FROZEN,
        rehearsed=Rehearsed.PHASE_LENGTH,
    )
    freeze_ramp: Float = _layers(
        0.0,
        "Epochs over which the rate of unfrozen layers grows from 0 to its schedule.",
        void=_NOTHING_FROZEN,
        rehearsed=Rehearsed.RAMP,
        ge=0,
    )
    freeze_norm: Literal["hold", "update"] = _layers(
        "hold",
        "Whether statistics of normalisation inside frozen layers are held or go on moving.",
        void=_NOTHING_FROZEN,
    )
    lr_rules: Factors | None = _layers(
        None,
        'Factors on the learning rate by selector, e.g. {"backbone": 0.1, "head.cls": 3.0}; the first match wins.',
        expected="a mapping of selectors to factors",
        auto="one rate for all layers",
    )
    layer_decay: Float | None = _layers(
        None,
        "Factor on the learning rate per level of depth, from the head down: 0.8 trains the first layers slowest.",
        gt=0,
        le=1,
        auto="one rate for all depths",
    )
    decay_rules: Factors | None = _layers(
        None,
        'Factors on the weight decay by selector, e.g. {"head": 0.0}; the first match wins.',
        expected="a mapping of selectors to factors",
        auto="biases and normalisation do not decay, everything else does",
    )
    sync_bn: SyncBn = _layers(
        "auto",
        "Compute batch normalisation over the images of all processes; auto does so for several processes with at most "
        "16 images each.",
        expected="'auto', True or False",
    )

    teacher: Text | None = _layers(
        None,
        "A frozen network to learn from beside the labels: a file of DINOv2, DINOv3, DINO, MAE or CLIP, whose map the "
        "model's deepest one is drawn to; or a larger YOLO26 of the same classes, whose answers count too.",
        expected="a path",
        auto="labels only",
    )
    teacher_gain: Float = _layers(
        1.0,
        "Factor on the weight of the teacher's loss, which suits the size of the model and is adapted once an epoch.",
        void=without("teacher", "there is no teacher; add teacher=..."),
        gt=0,
        le=1000,
    )

    # ---- selection
    metrics: Names | None = _selection(
        None,
        "Metrics to add to each validation, e.g. f1, ap_small, recall_at_p90; `eyas explain metrics` names all.",
        expected="a name or a list of names",
        auto="precision, recall, mAP50 and mAP50-95 only",
    )
    best_by: Criteria | None = _selection(
        None,
        "What `best.pt` is the best of: a metric, or several, each with a file of its own, as names or as "
        '{"metric": "f1", "mode": "max"}.',
        expected="a metric, a mapping, or a list of those",
        auto="0.1 mAP50 + 0.9 mAP50-95",
    )
    keep: Int = _selection(
        0,
        "Also keep the weights of this many best epochs, as `kept<epoch>.pt`; 0 keeps those of the best alone.",
        void=without("val", _ONE_VALIDATION),
        rehearsed=Rehearsed.EACH,
        ge=0,
    )
    stop: Mapped | None = _selection(
        None,
        'When to stop early, instead of `patience`: {"metric": "f1", "mode": "max", "patience": 10, "min_delta": 0, '
        '"start": 0}.',
        expected="a mapping with metric, mode, patience, min_delta, start",
        auto="`patience` epochs without a better fitness",
        void=without("val", _ONE_VALIDATION),
        rehearsed=Rehearsed.STOP_RULE,
    )

    # ---- precision
    device: Device | None = _precision(
        None,
        "Where to compute: `cpu`, `mps`, `cuda`, `cuda:1` or a GPU number; several numbers train in several processes.",
        on=_ALL,
        expected="cpu, mps, cuda, cuda:N, a GPU number or a list of them",
        auto="the first GPU, else the CPU",
        also="gpu gpus",
        resumable=True,
        rehearsed=Fixed("cpu"),
    )
    processes: Int | None = _precision(
        None,
        "Processes that train together on this machine; `batch` is what they share.",
        ge=1,
        le=1024,
        auto="one for each device",
        resumable=True,
        rehearsed=Rehearsed.GIVEN,
    )
    restarts: Int = _precision(
        0,
        "How often several processes are started again from last.pt after one of them died.",
        resumable=True,
        rehearsed=Fixed(0),
        hint="one process is not started again",
        ge=0,
        le=100,
    )
    stall_timeout: Float | None = _precision(
        None,
        "Seconds without progress (a batch, a step, a batch of validation) after which the run is ended, with the "
        "stacks of all its processes and the name of the one that holds it up; 0 waits for ever.",
        auto="10 times the longest step of the first epoch, at least 120; half an hour before that, and between epochs",
        resumable=True,
        rehearsed=Fixed(None),
        hint="a method of the trainer may have replaced what looks on",
        ge=0,
    )
    amp: Amp = _precision(
        True,
        "Mixed precision: bf16, fp16 (GPU only), True for bf16 where the GPU has it and fp16 elsewhere and none on a "
        "CPU, False or fp32 for none. bf16 on a CPU pays where it has AMX or AVX-512 for it; auto asks the processor, "
        "and the network whether it predicts the same.",
        on=_EVAL,
        expected="True, False, 'auto', 'fp16', 'bf16' or 'fp32'",
        also="precision bf16 fp16",
        resumable=False,
        rehearsed=Rehearsed.PRECISION,
    )
    compile: SyncBn = _precision(
        "auto",
        "Let torch.compile fuse the network's layers and its loss: minutes at the start, less in later runs, then "
        "faster steps; auto does so in long runs on a GPU.",
        expected="'auto', True or False",
        resumable=False,
        rehearsed=Fixed(False),
        told_by=Teller.LOOP,
    )
    channels_last: bool | None = _precision(
        None,
        "Memory layout with channels last, which convolutions are faster in.",
        auto="on, except on mps",
        resumable=False,
        hint="no convolution of the model has a layout to choose",
    )
    seed: Int = _precision(0, "Seed of weights, order and augmentation.", resumable=False, ge=0, le=2**63 - 1)
    on_nan: Literal["stop", "skip", "rollback"] = _precision(
        "stop",
        "What to do when a loss, a label or a gradient is nan or infinite: `stop`, or `skip` the step (at most 5 of "
        "50), or `rollback` to the last checkpoint and go on with the data in another order (at most 3 times). The "
        "step is written into the run folder, for `eyas replay`. On a GPU, the last two wait for it in each step.",
        resumable=True,
        told_by=Teller.LOOP,
    )
    deterministic: bool = _precision(True, "Use only kernels that give the same result every time.", resumable=False)

    # ---- loss
    box: Float = _loss(7.5, "Weight of the box overlap loss: CIoU for YOLO, GIoU for RT-DETR.", ge=0)
    cls: Float = _loss(0.5, "Weight of the classification loss.", ge=0)
    dfl: Float = _loss(
        1.5,
        "Weight of the box distance loss: L1 for RT-DETR and heads that predict distances directly, DFL otherwise.",
        ge=0,
    )
    cls_pw: Float = _loss(
        0.0,
        "Class weights count**-cls_pw, normalised to mean 1: 0 is off, 1 balances classes fully.",
        told_by=Teller.COMPONENT,
        ge=0,
        le=1,
    )

    class_weights: ClassWeightsOption | None = _loss(
        None,
        "Weights of the classes in every classification loss: balanced (1 / count), effective (by the effective number "
        "of objects), a list, or a mapping of class names (others weigh 1).",
        expected="'balanced', 'effective', a list or a mapping of class names to weights",
        auto="all classes weigh the same",
        told_by=Teller.COMPONENT,
    )
    class_weights_cap: Float = _loss(
        10.0,
        "Largest ratio between the weights of two classes under balanced and effective.",
        void=only_with(
            "class_weights",
            ("balanced", "effective"),
            "it limits weights that are computed: class_weights=balanced or effective",
        ),
        told_by=Teller.COMPONENT,
        ge=1,
    )
    class_weights_normalize: bool = _loss(
        True,
        "Scale class weights so that their mean over all objects is 1.",
        void=without("class_weights", "there are no class weights"),
        told_by=Teller.COMPONENT,
    )

    # ---- augmentation
    multi_scale: Float = _augmentation(
        0.0,
        "Vary the input size of a batch by +- this share.",
        told_by=Teller.BATCH,
        needs="preprocess_batch",
        adjusted_by="adjust_batch",
        ge=0,
        lt=1,
    )
    hsv_h: Float = _augmentation(0.015, "Hue jitter, as a share of the hue circle.", ge=0, le=1)
    hsv_s: Float = _augmentation(0.7, "Saturation jitter, as a share.", ge=0, le=1)
    hsv_v: Float = _augmentation(0.4, "Brightness jitter, as a share.", ge=0, le=1)
    hsv_on_device: bool = _augmentation(
        False,
        "Jitter colours on the device that trains, not in the workers: they load 1.3 to 1.5 times as fast at 640 px.",
        resumable=False,
        told_by=Teller.BATCH,
        needs="preprocess_batch",
        rehearsed=Fixed(False),
    )
    contrast: Float = _augmentation(0.0, "Contrast jitter, as a share.", ge=0, le=1)
    degrees: Float = _augmentation(0.0, "Rotation by up to +- this many degrees.", ge=0, le=180)
    translate: Float = _augmentation(0.1, "Shift by up to +- this share of the image.", ge=0, le=1)
    scale: Scale = _augmentation(
        0.5,
        "Zoom by a factor in 1 +- scale, or in a given (min, max).",
        expected="a number from 0 to 1, or a pair (min, max)",
    )
    shear: Float = _augmentation(0.0, "Shear by up to +- this many degrees.", ge=0, lt=90)
    perspective: Float = _augmentation(0.0, "Perspective strength; 0.0005 is already visible.", ge=0, le=1)
    flipud: Float = _augmentation(0.0, "Probability of flipping upside down.", ge=0, le=1)
    fliplr: Float = _augmentation(0.5, "Probability of flipping left to right.", ge=0, le=1)
    bgr: Float = _augmentation(0.0, "Probability of swapping the red and blue channels.", ge=0, le=1)
    mosaic: Float = _augmentation(1.0, "Probability of composing an image of four.", ge=0, le=1)
    mixup: Float = _augmentation(0.0, "Probability of blending in a second image.", ge=0, le=1)
    cutmix: Float = _augmentation(0.0, "Probability of pasting in a part of a second image.", ge=0, le=1)
    zoom_out: Float = _augmentation(
        0.0, "Probability of showing an image alone and small, in a frame up to 4 times as wide.", ge=0, le=1
    )
    crop: Float = _augmentation(
        0.0, "Probability of showing a part of an image alone, with an object in it.", ge=0, le=1
    )
    close_mosaic: Int | None = _augmentation(
        None,
        "Last epochs without mosaic, mixup, cutmix, zoom_out and crop; 0 keeps them to the end.",
        auto="from the length of the run, at most 10",
        # RT-DETR's trainer ends multi_scale with them; YOLO's refuses what is left.
        void=without(
            "mosaic mixup cutmix zoom_out crop multi_scale",
            "mosaic, mixup, cutmix, zoom_out and crop are all 0",
            spared=(0,),
        ),
        rehearsed=Rehearsed.COUNT,
        needs=None,
        ge=0,
    )

    # ---- validation
    val: bool = _validation(
        True,
        "Validate during training; the last epoch is always validated. False also trains on data without a `val` "
        "split, and then measures nothing.",
        resumable=True,
        told_by=Teller.LOOP,
        needs="validation_due",
    )
    val_every: Int = _validation(
        1,
        "Validate every this many epochs.",
        void=without("val", _ONE_VALIDATION),
        resumable=True,
        rehearsed=Rehearsed.PERIOD,
        told_by=Teller.LOOP,
        needs="validation_due",
        ge=1,
    )
    split: Literal["train", "val", "test"] = _validation("val", "Split of the data set to evaluate.", on="val")
    conf: Float | None = _validation(
        None,
        "Lowest score of a detection.",
        on=_ALL,
        auto="0.001 for val, 0.25 for predict, 0.1 for track",
        also="threshold confidence conf_thres",
        needs="get_validator",
        ge=0,
        le=1,
    )
    iou: Float = _validation(
        0.7,
        "Overlap above which NMS drops a box (nms=True only).",
        on=_ALL,
        also="iou_thres",
        void=without("nms", "the end-to-end head uses no NMS; add nms=True"),
        needs="get_validator",
        ge=0,
        le=1,
    )
    max_det: Int = _validation(300, "Most detections per image.", on=_ALL, needs="get_validator", ge=1)
    nms: bool | None = _validation(
        None,
        "None or False uses the end-to-end head, which needs no NMS; True uses the one-to-many head followed by NMS.",
        on=_ALL,
        auto="the end-to-end head",
        needs="set_model_attributes",
    )
    agnostic_nms: bool = _validation(
        False, "Suppress overlapping boxes whatever their class.", on=_ALL, needs="set_model_attributes"
    )
    save_json: bool = _validation(
        False,
        "Write `predictions.json` in COCO form: `image_id` is the file's name without suffix, a number where all are, "
        "and `category_id` the class from 0; for labels of COCO's form both are those of their file.",
        on=_EVAL,
        resumable=True,
        needs="evaluate_best",
    )
    save_txt: bool = _validation(
        False, "Write detections as label files.", on=_ALL, resumable=True, needs="evaluate_best"
    )
    save_conf: bool = _validation(
        False,
        "Write scores into those label files too.",
        on=_ALL,
        void=without("save_txt", "scores are written into label files; add save_txt=True"),
        resumable=True,
        needs="evaluate_best",
    )

    # ---- prediction
    tile: Int | None = _finding(
        None,
        "Cut images that are larger than this into square tiles of so many pixels, each of which becomes a network "
        "input of `imgsz`, and join what is found: for small objects in large images.",
        on="val predict track",
        auto="every image is taken whole",
        also="slice slice_size tile_size sahi",
        ge=32,
        le=65536,
    )
    overlap: Float = _finding(
        0.2,
        "Share of a tile that it has in common with the next; objects up to that size are whole in one of them.",
        on="val predict track",
        also="overlap_ratio",
        void=without("tile", "images are not cut; add tile=640"),
        ge=0,
        le=0.9,
    )
    vid_stride: Int = _finding(
        1, "Look at every so many frames only, of videos, streams and the screen.", also="frame_stride", ge=1
    )
    stream_buffer: bool = _finding(
        False, "Look at the frames of a stream in order, as far as they wait, instead of at the newest only."
    )
    save_frames: bool = _finding(False, "Write the frames of videos as annotated pictures too.")
    save_crop: bool = _finding(False, "Write every object that is found as a picture of its own, `crops/<class>/`.")
    show_labels: bool = _finding(True, "Draw class names.", void=_NO_PICTURES)
    show_conf: bool = _finding(True, "Draw scores.", void=_NO_PICTURES)
    line_width: Int | None = _finding(
        None, "Width of drawn lines in pixels.", auto="by the size of the image", void=_NO_PICTURES, ge=1, le=100
    )
    tracker: Text = _finding(
        "bytetrack",
        "What follows objects: `bytetrack`, or a YAML file of its settings.",
        on="track",
        expected="'bytetrack' or a YAML file",
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        _refuse_unknown(values)
        values = pair_schedule(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise explain_invalid(error, {}) from None
        self._sources = dict.fromkeys(values, "call")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        _refuse_unknown({name: value})
        changes = pair_schedule({name: value})
        for key, item in changes.items():
            try:
                super().__setattr__(key, item)
            except ValidationError as error:
                raise explain_invalid(error, {key: "assigned"}) from None
            self._sources[key] = "override"

    def __copy__(self) -> TrainOptions:
        """Options of their own: what is assigned to the copy is not assigned to these."""
        copied = super().__copy__()
        copied._sources = dict(self._sources)
        return copied

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic defines it at run time only
        raise unknown(name)

    def __repr__(self) -> str:
        """What a person has changed; ``print(options)`` shows all."""
        return f"TrainOptions({', '.join(f'{name}={value!r}' for name, value in self if self.is_changed(name))})"

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]  # pydantic documents the same
        for name in option_names():
            yield name, getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an option, or `default` when no option has this name."""
        return getattr(self, name) if name in type(self).model_fields else default

    def source(self, name: str) -> str:
        """Where the value comes from: default, recipe, file, call, command line, or override (assigned later)."""
        if name not in type(self).model_fields:
            raise unknown(name)
        return self._sources.get(name, "default")

    def is_typed(self, name: str) -> bool:
        """True when a person gave this value, so that the library must not replace it.

        None given for an "auto" option asks the library to choose, and so does not count.
        """
        return self.source(name) in TYPED and getattr(self, name) is not None

    def is_changed(self, name: str) -> bool:
        """True when a person gave another value than the default."""
        return self.is_typed(name) and getattr(self, name) != type(self).model_fields[name].default

    def sources(self) -> dict[str, str]:
        """The source of every option that is not at its default, as plain values for a checkpoint."""
        return {name: source for name, source in self._sources.items() if source != "default"}

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values (lists, dicts, numbers, strings), for YAML files and checkpoints."""
        return {name: to_plain(value) for name, value in self}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> TrainOptions:
        """Options from `to_dict()`. Without `sources`, values that differ from the default count as given in a file.

        Raises the same errors as building them anew: a stored value is checked like any other.
        """
        if sources is None:
            defaults = cls().to_dict()
            sources = {name: "file" for name, value in values.items() if defaults.get(name) != to_plain(value)}
        return cls.from_layers(values, sources)

    @classmethod
    def from_layers(
        cls, values: Mapping[str, Any], sources: Mapping[str, str], where: Mapping[str, str] | None = None
    ) -> TrainOptions:
        """Options with a known source for each value; `where` (e.g. "run.yaml:3") is told in errors."""
        _refuse_unknown(values, where or {})
        options = cls.__new__(cls)
        try:
            BaseModel.__init__(options, **pair_schedule(values))  # past our own __init__, which says "call"
        except ValidationError as error:
            raise explain_invalid(error, where or {}) from None
        options._sources = {name: source for name, source in sources.items() if name in cls.model_fields}
        return options


def pair_schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep `schedule` and its other spelling `cos_lr` saying the same thing.

    Raises OptionValueError when both are given and contradict each other.
    """
    paired = dict(values)
    if "schedule" in paired and "cos_lr" in paired:
        if isinstance(paired["cos_lr"], bool) and paired["cos_lr"] != (paired["schedule"] == "cosine"):
            raise OptionValueError(
                f"cos_lr={paired['cos_lr']} contradicts schedule={show(paired['schedule'])}: give one of the two"
            )
    elif "schedule" in paired:
        paired["cos_lr"] = paired["schedule"] == "cosine"
    elif isinstance(paired.get("cos_lr"), bool):
        paired["schedule"] = "cosine" if paired["cos_lr"] else "linear"
    return paired


def explain_invalid(error: ValidationError, where: Mapping[str, str]) -> OptionError:
    """Pydantic's report as one line per option."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=True):
        name = str(item["loc"][0])
        reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
        if name not in lines or reason:
            given = _given(error, name, item)
            lines[name] = str(bad_value(name, given, describe(name).expected, where.get(name, ""), reason))
    return OptionValueError("\n".join(lines.values()))


def _given(error: ValidationError, name: str, item: Any) -> object:
    """The whole value of the option, also when pydantic complains about one element of it."""
    return item["input"] if len(item["loc"]) == 1 or not isinstance(item["loc"][-1], int) else _Element(item)


class _Element:
    """Shows the offending element of a list together with its place in it."""

    def __init__(self, item: Any) -> None:
        self._text = f"[... {show(item['input'])} at {item['loc'][-1]} ...]"

    def __repr__(self) -> str:
        return self._text


def _refuse_unknown(values: Mapping[Any, Any], where: Mapping[str, str] | None = None) -> None:
    errors = [unknown(k, (where or {}).get(k, "")) for k in values if k not in _fields()]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UnknownOptionError("\n".join(str(error) for error in errors))


def _fields() -> Mapping[str, Any]:
    return TrainOptions.model_fields


# --------------------------------------------------------------------------------------------- describing them


@dataclass(frozen=True)
class OptionInfo:
    """One option as a person reads it."""

    name: str
    type: str
    range: str
    default: str
    group: str
    help: str
    commands: tuple[str, ...]
    auto: str
    expected: str


def option_names(command: str | None = None) -> list[str]:
    """Names of all options, or of those that a command ("train", "val", "predict", "track") uses, in their order."""
    return [name for name in _fields() if command is None or command in facts(name).commands]


def describe(name: str) -> OptionInfo:
    """What there is to say about an option. Raises UnknownOptionError with the nearest names."""
    if name not in _fields():
        raise unknown(name)
    field, known = _fields()[name], facts(name)
    type_text, range_text = _type_text(field.annotation), _range_text(field.metadata)
    expected = known.expected or f"{_article(type_text)} {range_text}".strip()
    if field.default is None:
        expected += ", or None"
    default = f"auto: {known.auto}" if field.default is None and known.auto else repr(field.default)
    return OptionInfo(
        name=name,
        type=type_text,
        range=range_text,
        default=default,
        group=known.group,
        help=field.description or "",
        commands=known.commands,
        auto=known.auto,
        expected=expected,
    )


def facts(name: str) -> Facts:
    """What is known of an option beside its type, range, default and help. Raises UnknownOptionError."""
    if name not in _fields():
        raise unknown(name)
    return typing.cast("dict[str, Facts]", _fields()[name].json_schema_extra)["facts"]


def synonyms() -> dict[str, str]:
    """Names that people know options by, which difflib would not find -> the options."""
    return {other: name for name in _fields() for other in facts(name).also}


def unknown(name: object, where: str = "") -> UnknownOptionError:
    """The error for an option that does not exist."""
    return unknown_option(name, option_names(), where, synonyms())


def _type_text(annotation: Any) -> str:
    """`int`, `float`, `bool | str`, `"a" | "b"`, `list of int`, `(float, float)`; None is told by the default."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_text(args[0])
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_type_text(arg) for arg in args if arg is not type(None))
    if origin is Literal:
        return " | ".join(str(arg) for arg in args)
    if origin is list:
        return f"list of {_type_text(args[0])}"
    if origin is tuple:
        return f"({', '.join(_type_text(arg) for arg in args)})"
    return "mapping" if origin is dict else annotation.__name__


def _range_text(metadata: Iterable[Any]) -> str:
    signs = {"Ge": (">=", "ge"), "Gt": (">", "gt"), "Le": ("<=", "le"), "Lt": ("<", "lt")}
    found = [(item, *signs[type(item).__name__]) for item in metadata if type(item).__name__ in signs]
    return " and ".join(f"{sign} {getattr(item, key)}" for item, sign, key in found)


def _article(type_text: str) -> str:
    names = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a text"}
    return names.get(type_text, "one of " + type_text.replace(" | ", ", "))


def check_command(values: Iterable[str], command: str, where: Mapping[str, str] | None = None) -> None:
    """Raise UnknownOptionError for options that exist but that this command would ignore."""
    usable = set(option_names(command))
    for name in values:
        if name in _fields() and name not in usable:
            at = f" ({where[name]})" if where and where.get(name) else ""
            used_by = ", ".join(facts(name).commands)
            raise UnknownOptionError(f"option {name!r}{at} has no effect on {command}; it is used by: {used_by}")
