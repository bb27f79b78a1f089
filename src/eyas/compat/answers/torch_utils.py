"""``ultralytics.utils.torch_utils`` over Eyas' own (spec core A.10)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from eyas import device as devices
from eyas.callbacks.stop import out_of_patience
from eyas.checkpoint import load_checkpoint, save_checkpoint
from eyas.log import LOGGER
from eyas.models import Detector
from eyas.nn.unwrap import unwrap_model
from eyas.optim.schedules import cosine

TORCH_1_9 = TORCH_1_13 = TORCH_2_0 = TORCH_2_1 = TORCH_2_4 = True  # at least this version, which Eyas needs anyway


# -- devices -----------------------------------------------------------------------------------------------------------
def select_device(
    device: str | int | torch.device | None = "", newline: bool = False, verbose: bool = True
) -> torch.device:
    """Return the device to use, see `eyas.device.select_device`; ``verbose`` logs it, ``newline`` with a line after it.

    Raises:
        ValueError: no such device here, or several: those are for ``train(device=...)``.
    """
    chosen = devices.select_device(device)
    if verbose:
        name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else str(chosen)
        LOGGER.info("torch %s, %s%s", torch.__version__, name, "\n" * newline)
    return chosen


def autocast(enabled: bool, device: str = "cuda") -> torch.autocast:
    """Return torch's autocast for a kind of device."""
    return torch.autocast(device, enabled=enabled)


def time_sync() -> float:
    """Return seconds on a clock, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch; ``deterministic`` also chooses deterministic kernels where there are any.

    For what a script draws itself: a training of Eyas is seeded by ``seed=`` and ``deterministic=`` of ``train()``.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the generator that scripts draw from
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic


# -- models ------------------------------------------------------------------------------------------------------------
def is_parallel(model: nn.Module) -> bool:
    """Whether a model is wrapped for several devices or processes."""
    return isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)


def get_num_params(model: nn.Module) -> int:
    """Return how many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def get_num_gradients(model: nn.Module) -> int:
    """Return how many of its parameters are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def get_flops(model: nn.Module, imgsz: int | Sequence[int] = 640) -> float:
    """Return the billions of operations of one image's forward pass at a square of ``imgsz`` pixels.

    Raises:
        TypeError: not a detector of Eyas. ValueError: a rectangle.
    """
    return detector_in(model).flops(square(imgsz)) / 1e9


def model_info(
    model: nn.Module, detailed: bool = False, verbose: bool = True, imgsz: int | Sequence[int] = 640
) -> tuple[int, int, int, float]:
    """Return layers, parameters, parameters with gradient and GFLOPs; ``verbose`` logs them.

    Args:
        detailed: log a line for each parameter, too.
        imgsz: side of the square image that GFLOPs are counted for.
    """
    if detailed:
        for name, p in model.named_parameters():
            LOGGER.info("%-60s %12d  %-20s %s", name, p.numel(), tuple(p.shape), "" if p.requires_grad else "frozen")
    network = detector_in(model)
    gflops = network.info(square(imgsz))["gflops"] if verbose else get_flops(network, imgsz)
    layers = sum(not list(module.children()) for module in network.modules())
    return layers, get_num_params(network), get_num_gradients(network), gflops


def model_info_for_loggers(trainer: Any) -> dict[str, float]:
    """Return parameters, GFLOPs at the input size of the run, and milliseconds of inference per image, for a log."""
    network = unwrap_model(trainer.model)
    speed = trainer.validator.speed["inference"] if trainer.validator is not None else 0.0
    return {
        "model/parameters": get_num_params(network),
        "model/GFLOPs": round(get_flops(network, trainer.args.imgsz), 3),
        "model/speed_PyTorch(ms)": round(speed, 3),
    }


def detector_in(model: nn.Module) -> Detector:
    """Return the detector inside wrappers.

    Raises:
        TypeError: it is none of Eyas'.
    """
    network = unwrap_model(model)
    if not isinstance(network, Detector):
        raise TypeError(f"{type(network).__name__} is not a detector of Eyas, whose operations can be counted.")
    return network


def square(imgsz: int | Sequence[int]) -> int:
    """Return the one side of a square size."""
    sides = {imgsz} if isinstance(imgsz, int) else set(imgsz)
    if len(sides) != 1:
        raise ValueError(f"imgsz={imgsz}: operations are counted for a square; give one number of pixels.")
    return sides.pop()


def intersect_dicts(
    da: Mapping[str, torch.Tensor], db: Mapping[str, torch.Tensor], exclude: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Return the tensors of ``da`` whose name, without any of ``exclude`` in it, and shape ``db`` has as well."""
    alike = (key for key, value in da.items() if key in db and value.shape == db[key].shape)
    return {key: da[key] for key in alike if not any(part in key for part in exclude)}


def copy_attr(a: object, b: object, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
    """Copy the public attributes of ``b`` to ``a``: only those of ``include``, if any, and none of ``exclude``."""
    for key, value in vars(b).items():
        if not key.startswith("_") and key not in exclude and (not include or key in include):
            setattr(a, key, value)


def strip_optimizer(f: str | Path = "best.pt", s: str = "", updates: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Leave only what inference needs in a checkpoint of Eyas, and return it.

    Args:
        f: the checkpoint. s: file to write; ``f`` itself when empty. updates: entries to add, plain values.

    Raises:
        FileNotFoundError: no such file. CheckpointError: it cannot be read, or ``updates`` are no plain values.
        ValueError: it is a file of another library, which would be lost.
    """
    checkpoint = load_checkpoint(f)
    if not s and "read_from" in checkpoint["eyas"]:
        raise ValueError(f"{f} is a file of {checkpoint['eyas']['read_from']}, and stays as it is: give another as s=.")
    kept = {key: value for key, value in checkpoint.items() if key != "state"} | dict(updates or {})
    save_checkpoint(kept, Path(s or f))
    return kept


# -- training ----------------------------------------------------------------------------------------------------------
def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Return ``f(x)`` that goes along half a cosine from ``y1`` at 0 to ``y2`` at ``steps``."""
    return lambda x: y2 + (y1 - y2) * cosine(x / steps, 0.0)


class EarlyStopping:
    """Says when ``patience`` epochs have passed without a better fitness; 0 never stops. ``stopper(epoch, fitness)``.

    Eyas' own way is ``patience=`` or ``stop=``.
    """

    def __init__(self, patience: int = 100) -> None:
        self.patience = patience
        self.best_fitness: float | None = None
        self.best_epoch = 0
        self.possible_stop = False

    def __call__(self, epoch: int, fitness: float | None) -> bool:
        """Return whether to stop after this epoch; an epoch without a fitness is not judged."""
        if fitness is None:
            return False
        if self.best_fitness is None or fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = fitness, epoch
        self.possible_stop = out_of_patience(epoch + 1, self.best_epoch, self.patience)
        return out_of_patience(epoch, self.best_epoch, self.patience)
