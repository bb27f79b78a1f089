"""TrainOptions: every option of detection training, validation and prediction, with type, range, default and help.

The field is the only place where an option is described: the command line, `eyas explain` and the reference page in
docs/ are made from it. Options are flat for users; the library passes plain values on to its classes.

A default of None on a field marked "auto" means: chosen by the plan from recipe, model and data. A value that was
typed (in a file, in the call, on the command line, or assigned) is never replaced by the library.
"""

from __future__ import annotations

import difflib
import numbers
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from eyas.config.errors import OptionError, OptionValueError, UnknownOptionError, bad_value, show, unknown_option

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
}

_DEVICE = re.compile(r"cpu|mps|cuda|cuda:\d+|\d+")
_OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop")


# --------------------------------------------------------------------------------------------- values


def _to_plain_scalar(value: object) -> object:
    """NumPy scalars become Python numbers and paths become strings; everything else stays what it is."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _to_int(value: object) -> object:
    """2.0 is a whole number; 2.5 and True are not."""
    value = _to_plain_scalar(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError("too large")  # torch and NumPy hold whole numbers in 64 bits
    return value


def _to_float(value: object) -> object:
    """2 is the number 2.0."""
    value = _to_int(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_list(value: object) -> object:
    """One class index or several."""
    if isinstance(value, tuple | list):
        return [_to_int(item) for item in value]
    value = _to_int(value)
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _to_pair(value: object) -> object:
    if isinstance(value, tuple | list):
        return tuple(_to_plain_scalar(item) for item in value)
    return _to_plain_scalar(value)


def _check_scale(value: float | tuple[float, float]) -> float | tuple[float, float]:
    if isinstance(value, tuple):
        if not 0 < value[0] <= value[1] <= 10:
            raise ValueError("a pair must satisfy 0 < min <= max <= 10")
    elif not 0 <= value <= 1:
        raise ValueError("a number must be between 0 and 1")
    return value


def _to_cache(value: object) -> object:
    return "ram" if value is True else value


def _to_amp(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _to_device(value: object) -> object:
    """[0, 1] and "0,1" are the same two GPUs."""
    if isinstance(value, list | tuple):
        return ",".join(str(_to_device(item)) for item in value)
    value = _to_plain_scalar(value)
    if isinstance(value, str):
        return value.replace(" ", "")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_device(value: str) -> str:
    parts = value.split(",")
    if not all(_DEVICE.fullmatch(part) for part in parts):
        raise ValueError("no such kind of device")
    if len(parts) > 1 and not all(part.isdigit() for part in parts):
        raise ValueError("several devices are given by their numbers; processes=N runs several on a CPU")
    if len(set(parts)) < len(parts):
        raise ValueError("the same device is named twice")
    return value


def _to_optimizer(value: object) -> object:
    """Known names are matched whatever their case; other names are looked up in torch.optim when it is built."""
    if not isinstance(value, str):
        return value
    by_lower = {name.lower(): name for name in _OPTIMIZERS}
    return by_lower.get(value.lower(), value)


def _check_optimizer(value: str) -> str:
    if not value.isidentifier():
        raise ValueError("not the name of an optimizer")
    close = difflib.get_close_matches(value.lower(), [name.lower() for name in _OPTIMIZERS], n=1, cutoff=0.8)
    known = {name.lower(): name for name in _OPTIMIZERS} | {name.lower(): name for name in _TORCH_OPTIMIZERS}
    if close and value.lower() not in known:
        raise ValueError(f"did you mean {known[close[0]]}?")
    return value


# Names that resemble one of ours and are real: they must not be taken for typing mistakes.
_TORCH_OPTIMIZERS = ("Adadelta", "Adafactor", "Adagrad", "ASGD", "LBFGS", "Muon", "Rprop", "SparseAdam")


def _check_data(value: object) -> object:
    """A dataset given as a mapping must be made of plain values, so that it can be saved with the run."""
    if isinstance(value, dict):
        _require_plain(value, depth=0)
    return value


def _require_plain(value: object, depth: int) -> None:
    if depth > 8:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(key, depth + 1)
            _require_plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_plain(item, depth + 1)
    elif not isinstance(value, str | int | float | bool | os.PathLike | None):
        raise ValueError(f"a dataset mapping holds plain values only, not {type(value).__name__}")


def _refuse_option_file(value: str) -> str:
    raise ValueError("option files are read by train(), val(), the command line and resolve(), and do not nest")


def _to_names(value: object) -> object:
    """One name, or several; commas separate names on the command line."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _to_items(value: object) -> object:
    """One item or a list of them."""
    if value is None or isinstance(value, list):
        return value
    return list(value) if isinstance(value, tuple) else [_to_int(value)]


def _to_selection(value: object) -> object:
    """A number counts first layers, a list of numbers names them: the two must stay apart."""
    return list(value) if isinstance(value, tuple) else _to_int(value)


def _to_weights(value: object) -> object:
    """Numbers for classes: a name of a rule, a list, or a mapping of names to numbers."""
    if isinstance(value, Mapping):
        return {str(key): _to_float(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_to_float(item) for item in value]
    return _to_plain_scalar(value)


def _to_factors(value: object) -> object:
    """A mapping of selectors to numbers; order is kept, the first match wins."""
    if isinstance(value, Mapping):
        return {str(key): _to_float(item) for key, item in value.items()}
    return value


def _check_factors(value: dict[str, float]) -> dict[str, float]:
    bad = [key for key, factor in value.items() if factor < 0]
    if bad:
        raise ValueError(f"the factor of {bad[0]!r} is negative")
    return value


def _check_plain(value: Any) -> Any:
    _require_plain(value, depth=0)
    return value


def _to_schedule(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _check_schedule(value: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(value, dict):
        if not isinstance(value.get("name"), str):
            raise ValueError('a torch scheduler is given as {"name": "StepLR", "step_size": 3}')
        _require_plain(value, depth=0)
    elif value not in ("linear", "cosine", "flat-cosine"):
        raise ValueError("known are linear, cosine and flat-cosine; a torch scheduler is a mapping with its name")
    return value


def _to_data(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else _to_plain_scalar(value)


Int = Annotated[int, BeforeValidator(_to_int)]
Float = Annotated[float, BeforeValidator(_to_plain_scalar)]
Text = Annotated[str, BeforeValidator(_to_plain_scalar)]
OptionFile = Annotated[str, BeforeValidator(_to_plain_scalar), AfterValidator(_refuse_option_file)]
Data = Annotated[str | dict[Any, Any], BeforeValidator(_to_data), AfterValidator(_check_data)]
Classes = Annotated[list[int], BeforeValidator(_to_list)]
Cache = Annotated[Literal[False, "ram", "disk"], BeforeValidator(_to_cache)]
Optimizer = Annotated[str, BeforeValidator(_to_optimizer), AfterValidator(_check_optimizer)]
Device = Annotated[str, BeforeValidator(_to_device), AfterValidator(_check_device)]
Names = Annotated[list[str], BeforeValidator(_to_names)]
ClassWeightsOption = Annotated[
    Literal["balanced", "effective"] | list[float] | dict[str, float], BeforeValidator(_to_weights)
]
Factors = Annotated[dict[str, float], BeforeValidator(_to_factors), AfterValidator(_check_factors)]
Criteria = Annotated[list[str | dict[str, Any]], BeforeValidator(_to_items), AfterValidator(_check_plain)]
Selection = Annotated[
    int | str | list[int | str | dict[str, Any]], BeforeValidator(_to_selection), AfterValidator(_check_plain)
]
Mapped = Annotated[dict[str, Any], BeforeValidator(_to_schedule), AfterValidator(_check_plain)]
ScheduleOption = Annotated[str | dict[str, Any], BeforeValidator(_to_schedule), AfterValidator(_check_schedule)]
SyncBn = Annotated[bool | Literal["auto"], BeforeValidator(_to_amp)]
Amp = Annotated[bool | Literal["fp16", "bf16", "fp32"], BeforeValidator(_to_amp)]
Scale = Annotated[float | tuple[float, float], BeforeValidator(_to_pair), AfterValidator(_check_scale)]


def _option(
    default: Any,
    group: str,
    help: str,
    *,
    on: str = "train",
    expected: str = "",
    auto: str = "",
    **limits: Any,
) -> Any:
    """A field: default, group, help, the commands that use it, and ge/gt/le/lt limits.

    `expected` replaces the type text where the type alone says too little; `auto` says what None stands for.
    """
    extra: dict[str, Any] = {"group": group, "commands": on.split(), "expected": expected, "auto": auto}
    return Field(default, description=help, json_schema_extra=extra, **limits)


_ALL = "train val predict"
_EVAL = "train val"


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
    model: Text | None = _option(
        None,
        "run",
        "The network: a catalogue name such as `yolo26n`, an architecture YAML, or a checkpoint `.pt`.",
        on=_ALL,
        expected="a model name or a path",
    )
    pretrained: bool | Text = _option(
        True,
        "run",
        "Weights to start from: True keeps those that `model` holds (a name or YAML holds none: random weights), "
        "False always starts from random weights, a path loads that checkpoint. Official RT-DETR models also take the "
        "name of published weights, or their `.pth` file.",
        expected="True, False, a path or a name",
    )
    cls_remap: bool = _option(
        True, "run", "When weights come from a model with other classes, keep the rows of classes with the same name."
    )
    resume: bool | Text = _option(
        False,
        "run",
        "Continue an interrupted run: the path of its `last.pt`, or True for the run that `model` is a checkpoint of, "
        "or else the newest run under `project`.",
        expected="True, False or a path",
    )
    cfg: OptionFile | None = _option(
        None,
        "run",
        "YAML file of options. Options in the call or on the command line win over the file.",
        on=_ALL,
        expected="a path",
    )
    project: Text | None = _option(
        None, "run", "Folder that holds the runs.", on=_ALL, expected="a path", auto="`runs/detect`"
    )
    name: Text | None = _option(
        None,
        "run",
        "Folder of this run inside `project`; `-2`, `-3`, ... is added when it exists.",
        on=_ALL,
        expected="a text",
        auto="the command, e.g. `train`",
    )
    save_dir: Text | None = _option(
        None,
        "run",
        "Folder of this run, instead of `project` and `name`.",
        on=_ALL,
        expected="a path",
        auto="made from `project` and `name`",
    )
    exist_ok: bool = _option(False, "run", "Write into the run folder even if it exists.", on=_ALL)
    save: bool = _option(
        True, "run", "Write checkpoints (train) or annotated pictures (predict) to the run folder.", on="train predict"
    )
    save_period: Int = _option(-1, "run", "Also keep a checkpoint every this many epochs; -1 or 0 keeps none.", ge=-1)
    plots: bool = _option(True, "run", "Draw curves, confusion matrix and example pictures.", on=_EVAL)
    verbose: bool = _option(True, "run", "Show the model and the table of results per class.", on=_ALL)

    # ---- data
    data: Data | None = _option(
        None,
        "data",
        "Data set: a YAML file, a mapping of the same form, or the name of an embedded set (`digits`).",
        on=_EVAL,
        expected="a path, a name or a mapping",
    )
    imgsz: Int = _option(
        640,
        "data",
        "Side of the square network input in pixels, rounded up to a multiple of the stride (32).",
        on=_ALL,
        ge=32,
        le=8192,
    )
    batch: Int | None = _option(
        None, "data", "Images per step, over all devices.", on=_EVAL, ge=1,
        auto="16; 8 when training on a CPU, which gains little from larger ones and learns more in more steps",
    )  # fmt: skip
    fraction: Float = _option(1.0, "data", "Share of the training images to use.", gt=0, le=1)
    single_cls: bool = _option(False, "data", "Treat all classes as one.", on=_EVAL)
    classes: Classes | None = _option(
        None,
        "data",
        "Class indices to keep; objects of other classes are left out.",
        on=_ALL,
        expected="a class index or a list of them",
        auto="all classes",
    )
    cache: Cache = _option(
        False,
        "data",
        "Keep decoded images in shared memory (`ram` or True) or on disk outside the data folder (`disk`).",
        expected="False, True, 'ram' or 'disk'",
    )
    workers: Int | None = _option(
        None,
        "data",
        "Processes that load and augment images; 0 loads in the main process.",
        on=_EVAL,
        ge=0,
        le=256,
        auto="from the number of cores",
    )

    sampler: Literal["balanced", "repeat"] | None = _option(
        None,
        "data",
        "Draw images with rare classes more often: balanced draws every class equally often, repeat shows images of "
        "classes in fewer than `sampler_threshold` of the images several times (LVIS).",
        auto="every image once in each epoch",
    )
    sampler_threshold: Float = _option(
        0.1, "data", "Share of images below which sampler=repeat repeats a class.", gt=0, le=1
    )

    # ---- length
    epochs: Int | None = _option(
        None, "length", "Passes over the training images.", ge=1, auto="from the recipe and the size of the data"
    )
    time: Float | None = _option(
        None,
        "length",
        "Budget in hours; it replaces `epochs`, and the schedule is fitted to it.",
        gt=0,
        auto="no budget",
    )
    patience: Int = _option(100, "length", "Stop after this many epochs without a better fitness; 0 never stops.", ge=0)

    # ---- optimizer
    optimizer: Optimizer = _option(
        "auto",
        "optimizer",
        "auto, SGD, MuSGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, or any class of torch.optim. `auto` chooses "
        "the optimizer and fills in `lr0`, `momentum` and `warmup_bias_lr` where they were not given.",
        expected="the name of an optimizer",
    )
    lr0: Float | None = _option(
        None, "optimizer", "Learning rate after warm-up.", gt=0, le=100, auto="by the optimizer"
    )
    lrf: Float = _option(0.01, "optimizer", "Learning rate at the end, as a fraction of `lr0`.", ge=0, le=1)
    momentum: Float | None = _option(
        None, "optimizer", "Momentum (SGD, MuSGD, RMSprop) or beta1 (Adam family).", ge=0, lt=1, auto="by the optimizer"
    )
    weight_decay: Float = _option(
        0.0005,
        "optimizer",
        "Weight decay of weights that are neither biases nor normalisation, for a batch of `nbs`.",
        ge=0,
        le=10,
    )
    schedule: ScheduleOption = _option(
        "linear",
        "optimizer",
        "How the learning rate falls from `lr0` to `lr0 * lrf`: linear, cosine or flat-cosine; or a torch scheduler as "
        "a mapping of its name and arguments, with `per: step` (default), `epoch` or `val`.",
        expected='linear, cosine, flat-cosine or a mapping such as {"name": "StepLR", "step_size": 3, "per": "epoch"}',
    )
    cos_lr: bool = _option(False, "optimizer", "Another spelling of schedule=cosine.")
    warmup_epochs: Float | None = _option(
        None, "optimizer", "Length of the warm-up in epochs.", ge=0, auto="from the length of the run, at most 3"
    )
    warmup_momentum: Float = _option(0.8, "optimizer", "Momentum at the first step of the warm-up.", ge=0, lt=1)
    warmup_bias_lr: Float | None = _option(
        None,
        "optimizer",
        "Learning rate of biases at the first step of the warm-up.",
        ge=0,
        le=100,
        auto="by the optimizer",
    )
    nbs: Int | None = _option(
        None,
        "optimizer",
        "Nominal batch: gradients of smaller batches are accumulated up to this many images.",
        ge=1,
        auto="64, or less when the run is short",
    )

    # ---- averaging
    ema: bool = _option(True, "averaging", "Validate and save an exponential moving average of the weights.")
    ema_decay: Float = _option(0.9999, "averaging", "Decay of the moving average once it is warm.", ge=0, lt=1)
    ema_tau: Float | None = _option(
        None,
        "averaging",
        "Steps over which the decay grows: decay * (1 - exp(-step / tau)).",
        gt=0,
        auto="fitted to the length of the run, at most 2000",
    )
    clip_grad_norm: Float = _option(10.0, "averaging", "Largest norm of the gradient; 0 does not clip.", ge=0)
    clip_grad_value: Float = _option(
        0.0, "averaging", "Largest absolute value of each element of the gradient; 0 does not clip.", ge=0
    )
    clip_per_group: bool = _option(
        False, "averaging", "Clip the norm of each parameter group by itself instead of the joint norm."
    )

    # ---- layers
    freeze: Selection | None = _option(
        None,
        "layers",
        "What does not train: a section (`backbone`), a number of first layers, a glob or /regex/ over parameter "
        'names, a list of those, or phases such as [{"what": "backbone", "epochs": 5}].',
        expected="a selector, a list of them, or a list of phases",
        auto="nothing is frozen",
    )
    freeze_epochs: Float | None = _option(
        None,
        "layers",
        "Epochs after which `freeze` ends; below 1, a share of the run.",
        gt=0,
        auto="to the end of the run",
    )
    freeze_ramp: Float = _option(
        0.0, "layers", "Epochs over which the rate of unfrozen layers grows from 0 to its schedule.", ge=0
    )
    freeze_norm: Literal["hold", "update"] = _option(
        "hold", "layers", "Whether statistics of normalisation inside frozen layers are held or go on moving."
    )
    lr_rules: Factors | None = _option(
        None,
        "layers",
        'Factors on the learning rate by selector, e.g. {"backbone": 0.1, "head.cls": 3.0}; the first match wins.',
        expected="a mapping of selectors to factors",
        auto="one rate for all layers",
    )
    layer_decay: Float | None = _option(
        None,
        "layers",
        "Factor on the learning rate per level of depth, from the head down: 0.8 trains the first layers slowest.",
        gt=0,
        le=1,
        auto="one rate for all depths",
    )
    decay_rules: Factors | None = _option(
        None,
        "layers",
        'Factors on the weight decay by selector, e.g. {"head": 0.0}; the first match wins.',
        expected="a mapping of selectors to factors",
        auto="biases and normalisation do not decay, everything else does",
    )
    sync_bn: SyncBn = _option(
        "auto",
        "layers",
        "Compute batch normalisation over the images of all processes; auto does so for several processes with at most "
        "16 images each.",
        expected="'auto', True or False",
    )

    # ---- selection
    metrics: Names | None = _option(
        None,
        "selection",
        "Metrics to add to each validation, e.g. f1, ap_small, recall_at_p90; `eyas explain metrics` names all.",
        expected="a name or a list of names",
        auto="precision, recall, mAP50 and mAP50-95 only",
    )
    best_by: Criteria | None = _option(
        None,
        "selection",
        "What `best.pt` is the best of: a metric, or several, each with a file of its own, as names or as "
        '{"metric": "f1", "mode": "max"}.',
        expected="a metric, a mapping, or a list of those",
        auto="0.1 mAP50 + 0.9 mAP50-95",
    )
    stop: Mapped | None = _option(
        None,
        "selection",
        'When to stop early, instead of `patience`: {"metric": "f1", "mode": "max", "patience": 10, "min_delta": 0, '
        '"start": 0}.',
        expected="a mapping with metric, mode, patience, min_delta, start",
        auto="`patience` epochs without a better fitness",
    )

    # ---- precision
    device: Device | None = _option(
        None,
        "precision",
        "Where to compute: `cpu`, `mps`, `cuda`, `cuda:1` or a GPU number; several numbers train in several processes.",
        on=_ALL,
        expected="cpu, mps, cuda, cuda:N, a GPU number or a list of them",
        auto="the first GPU, else the CPU",
    )
    processes: Int | None = _option(
        None,
        "precision",
        "Processes that train together on this machine; `batch` is what they share.",
        ge=1,
        le=1024,
        auto="one for each device",
    )
    restarts: Int = _option(
        0,
        "precision",
        "How often several processes are started again from last.pt after one of them died.",
        ge=0,
        le=100,
    )
    amp: Amp = _option(
        True,
        "precision",
        "Mixed precision on a GPU: bf16, fp16, True for bf16 where the GPU has it and fp16 elsewhere, False or fp32 "
        "for none. The CPU always computes in fp32.",
        on=_EVAL,
        expected="True, False, 'fp16', 'bf16' or 'fp32'",
    )
    channels_last: bool | None = _option(
        None,
        "precision",
        "Memory layout with channels last, which convolutions are faster in.",
        auto="on, except on mps",
    )
    seed: Int = _option(0, "precision", "Seed of weights, order and augmentation.", ge=0, le=2**63 - 1)
    deterministic: bool = _option(True, "precision", "Use only kernels that give the same result every time.")

    # ---- loss
    box: Float = _option(7.5, "loss", "Weight of the box overlap loss: CIoU for YOLO, GIoU for RT-DETR.", ge=0)
    cls: Float = _option(0.5, "loss", "Weight of the classification loss.", ge=0)
    dfl: Float = _option(
        1.5,
        "loss",
        "Weight of the box distance loss: L1 for RT-DETR and heads that predict distances directly, DFL otherwise.",
        ge=0,
    )
    cls_pw: Float = _option(
        0.0,
        "loss",
        "Class weights count**-cls_pw, normalised to mean 1: 0 is off, 1 balances classes fully.",
        ge=0,
        le=1,
    )

    class_weights: ClassWeightsOption | None = _option(
        None,
        "loss",
        "Weights of the classes in every classification loss: balanced (1 / count), effective (by the effective number "
        "of objects), a list, or a mapping of class names (others weigh 1).",
        expected="'balanced', 'effective', a list or a mapping of class names to weights",
        auto="all classes weigh the same",
    )
    class_weights_cap: Float = _option(
        10.0, "loss", "Largest ratio between the weights of two classes under balanced and effective.", ge=1
    )
    class_weights_normalize: bool = _option(
        True, "loss", "Scale class weights so that their mean over all objects is 1."
    )

    # ---- augmentation
    multi_scale: Float = _option(0.0, "augmentation", "Vary the input size of a batch by +- this share.", ge=0, lt=1)
    hsv_h: Float = _option(0.015, "augmentation", "Hue jitter, as a share of the hue circle.", ge=0, le=1)
    hsv_s: Float = _option(0.7, "augmentation", "Saturation jitter, as a share.", ge=0, le=1)
    hsv_v: Float = _option(0.4, "augmentation", "Brightness jitter, as a share.", ge=0, le=1)
    degrees: Float = _option(0.0, "augmentation", "Rotation by up to +- this many degrees.", ge=0, le=180)
    translate: Float = _option(0.1, "augmentation", "Shift by up to +- this share of the image.", ge=0, le=1)
    scale: Scale = _option(
        0.5,
        "augmentation",
        "Zoom by a factor in 1 +- scale, or in a given (min, max).",
        expected="a number from 0 to 1, or a pair (min, max)",
    )
    shear: Float = _option(0.0, "augmentation", "Shear by up to +- this many degrees.", ge=0, lt=90)
    perspective: Float = _option(0.0, "augmentation", "Perspective strength; 0.0005 is already visible.", ge=0, le=1)
    flipud: Float = _option(0.0, "augmentation", "Probability of flipping upside down.", ge=0, le=1)
    fliplr: Float = _option(0.5, "augmentation", "Probability of flipping left to right.", ge=0, le=1)
    bgr: Float = _option(0.0, "augmentation", "Probability of swapping the red and blue channels.", ge=0, le=1)
    mosaic: Float = _option(1.0, "augmentation", "Probability of composing an image of four.", ge=0, le=1)
    mixup: Float = _option(0.0, "augmentation", "Probability of blending in a second image.", ge=0, le=1)
    cutmix: Float = _option(0.0, "augmentation", "Probability of pasting in a part of a second image.", ge=0, le=1)
    close_mosaic: Int | None = _option(
        None,
        "augmentation",
        "Last epochs without mosaic, mixup and cutmix; 0 keeps them to the end.",
        ge=0,
        auto="from the length of the run, at most 10",
    )

    # ---- validation
    val: bool = _option(True, "validation", "Validate during training; the last epoch is always validated.")
    val_every: Int = _option(1, "validation", "Validate every this many epochs.", ge=1)
    split: Literal["train", "val", "test"] = _option(
        "val", "validation", "Split of the data set to evaluate.", on="val"
    )
    conf: Float | None = _option(
        None, "validation", "Lowest score of a detection.", on=_ALL, ge=0, le=1, auto="0.001 for val, 0.25 for predict"
    )
    iou: Float = _option(0.7, "validation", "Overlap above which NMS drops a box (nms=True only).", on=_ALL, ge=0, le=1)
    max_det: Int = _option(300, "validation", "Most detections per image.", on=_ALL, ge=1)
    nms: bool | None = _option(
        None,
        "validation",
        "None or False uses the end-to-end head, which needs no NMS; True uses the one-to-many head followed by NMS.",
        on=_ALL,
        auto="the end-to-end head",
    )
    agnostic_nms: bool = _option(False, "validation", "Suppress overlapping boxes whatever their class.", on=_ALL)
    save_json: bool = _option(False, "validation", "Write `predictions.json` in COCO form.", on=_EVAL)
    save_txt: bool = _option(False, "validation", "Write detections as label files.", on=_EVAL)
    save_conf: bool = _option(False, "validation", "Write scores into those label files too.", on=_EVAL)

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

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic defines it at run time only
        raise unknown_option(name, option_names())

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]  # pydantic documents the same
        for name in option_names():
            yield name, getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an option, or `default` when no option has this name."""
        return getattr(self, name) if name in type(self).model_fields else default

    def source(self, name: str) -> str:
        """Where the value comes from: default, recipe, file, call, command line, or override (assigned later)."""
        if name not in type(self).model_fields:
            raise unknown_option(name, option_names())
        return self._sources.get(name, "default")

    def is_typed(self, name: str) -> bool:
        """True when a person gave this value, so that the library must not replace it.

        None given for an "auto" option asks the library to choose, and so does not count. Nor does a default that a
        file repeats: files such as a run's own `options.yaml` hold every option.
        """
        source, value = self.source(name), getattr(self, name)
        repeated = source == "file" and value == type(self).model_fields[name].default
        return source in TYPED and value is not None and not repeated

    def is_changed(self, name: str) -> bool:
        """True when a person gave another value than the default."""
        return self.is_typed(name) and getattr(self, name) != type(self).model_fields[name].default

    def sources(self) -> dict[str, str]:
        """The source of every option that is not at its default, as plain values for a checkpoint."""
        return {name: source for name, source in self._sources.items() if source != "default"}

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values (lists, dicts, numbers, strings), for YAML files and checkpoints."""
        return {name: _plain(value) for name, value in self}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], sources: Mapping[str, str] | None = None) -> TrainOptions:
        """Options from `to_dict()`. Without `sources`, values that differ from the default count as given in a file.

        Raises the same errors as building them anew: a stored value is checked like any other.
        """
        if sources is None:
            defaults = cls().to_dict()
            sources = {name: "file" for name, value in values.items() if defaults.get(name) != _plain(value)}
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
    errors = [unknown_option(k, option_names(), (where or {}).get(k, "")) for k in values if k not in _fields()]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UnknownOptionError("\n".join(str(error) for error in errors))


def _fields() -> Mapping[str, Any]:
    return TrainOptions.model_fields


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return _to_plain_scalar(value)


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
    """Names of all options, or of those that a command ("train", "val", "predict") uses, in their order."""
    return [name for name in _fields() if command is None or command in _extra(name)["commands"]]


def describe(name: str) -> OptionInfo:
    """What there is to say about an option. Raises UnknownOptionError with the nearest names."""
    if name not in _fields():
        raise unknown_option(name, option_names())
    field, extra = _fields()[name], _extra(name)
    type_text, range_text = _type_text(field.annotation), _range_text(field.metadata)
    expected = extra["expected"] or f"{_article(type_text)} {range_text}".strip()
    if field.default is None:
        expected += ", or None"
    default = f"auto: {extra['auto']}" if field.default is None and extra["auto"] else repr(field.default)
    return OptionInfo(
        name=name,
        type=type_text,
        range=range_text,
        default=default,
        group=extra["group"],
        help=field.description or "",
        commands=tuple(extra["commands"]),
        auto=extra["auto"],
        expected=expected,
    )


def _extra(name: str) -> dict[str, Any]:
    return typing.cast("dict[str, Any]", _fields()[name].json_schema_extra)


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
            used_by = ", ".join(_extra(name)["commands"])
            raise UnknownOptionError(f"option {name!r}{at} has no effect on {command}; it is used by: {used_by}")
