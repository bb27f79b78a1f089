"""Choose where to train, in what precision and how reproducibly."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from eyas import dist


def select_device(device: object = None) -> torch.device:
    """Return the device to use.

    Args:
        device: ``None`` (a GPU if there is one, else the CPU), ``"cpu"``, ``"mps"``, an index such as ``0`` or ``"0"``,
            or ``"cuda:0"``.

    Raises:
        ValueError: no such device here, or several were asked for.
    """
    if device is None or device == "":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, (list, tuple)) or "," in str(device):
        raise ValueError(f"device={device!r} names several devices, and only training uses several. Pick one of them.")
    text = str(device).lower()
    text = f"cuda:{text}" if text.isdigit() else text
    try:
        chosen = torch.device(text)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a device; use cpu, mps, 0, 1, ... or cuda:0.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device='mps' is not available on this machine.")
    return chosen


def process_devices(device: str | None, processes: int | None) -> list[str | None]:
    """Return the device of each process on this machine; one process unless several devices or processes are given.

    Args:
        device: as the option: None, a name, a GPU number, or several numbers such as ``"0,1"``.
        processes: as the option; on a CPU any number, on GPUs as many as there are devices.

    Raises:
        ValueError: no such device, or the two do not fit each other or the launcher that started this process.
    """
    launched = dist.world_size() > 1
    count = dist.local_world_size() if launched else processes
    if launched and processes is not None and processes != count:
        raise ValueError(f"processes={processes}, but this process was launched as one of {count} on this machine.")
    named = device.split(",") if device else []
    if len(named) > 1 and count not in (None, len(named)):
        raise ValueError(f"device={device} names {len(named)} devices for {count} processes; give one for each.")
    found: list[str | None] = list(named) if len(named) > 1 else spread(device, count or 1)
    for one in found:
        select_device(one)
    return found


def spread(device: str | None, count: int) -> list[str | None]:
    """Return one device for each of ``count`` processes that share no GPU."""
    if count == 1 or select_device(device).type == "cpu":
        return [device] * count
    if device not in (None, "cuda"):
        raise ValueError(f"device={device} is one device for {count} processes; name {count}, or leave device out.")
    return [str(number) for number in range(count)]


def check_amp(amp: bool | str, device: torch.device) -> None:
    """Refuse float16 on a CPU, whose gradients need a scaler that only GPUs have; this asks nothing of a GPU."""
    if device.type == "cpu" and amp == "fp16":
        raise ValueError("amp='fp16' is for GPUs; a CPU computes in float32, or with amp=bf16 in bfloat16.")


def amp_dtype(amp: bool | str, device: torch.device) -> torch.dtype | None:
    """Return the type for autocast, or ``None`` for full precision.

    ``True`` means bfloat16 where the GPU has it, float16 elsewhere, and float32 on a CPU: which processor has
    instructions for bfloat16 differs from machine to machine, and a run must not learn otherwise where it goes on.
    So does ``"auto"`` here; in a training `eyas.train.precision` decides that once for all of a run.

    Raises:
        ValueError: float16 was asked for on a CPU.
    """
    check_amp(amp, device)
    if amp == "bf16":
        return torch.bfloat16
    if amp in (False, "fp32") or device.type == "cpu":
        return None
    if amp == "fp16":
        return torch.float16
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float16


PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16", None: "fp32"}
"""Type for autocast -> what options and checkpoints call it."""


def has_bf16_instructions() -> bool:
    """Whether this processor computes in bfloat16 itself (AVX-512 or AMX), and so faster than in float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step: what it draws (denoising, dropout) is a function of where the run stands.

    A resumed run then draws what an uninterrupted one would, in every process, without storing each one's generator.
    """
    torch.manual_seed(step_seed(seed, epoch, step, rank))


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Return the seed of torch's generators in one step of one process."""
    return int(np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1, np.uint64)[0])


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Give every generator of random numbers back as it was before the block: torch's, NumPy's and Python's own."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # users' code may draw from it
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def reproducible(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Use deterministic GPU kernels inside the block, where asked for; a CPU is deterministic as it is."""
    if device.type != "cuda" or not deterministic:
        yield
        return
    # cuBLAS needs a fixed workspace to be reproducible, and reads this once, before its first matrix product.
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace or ":4096:8"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic
    memory: Any = torch.utils.deterministic  # its switch is set by name: torch's stubs do not know it
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    memory.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic = cudnn
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        memory.fill_uninitialized_memory = fill


def peak_memory(device: str | torch.device | None) -> float:
    """Return the most bytes used so far: reserved by torch on a GPU, else resident in this process.

    nan where the system does not tell (Windows).
    """
    if device is not None and str(device).startswith("cuda"):
        return float(torch.cuda.max_memory_reserved(device))
    if sys.platform == "win32":
        return math.nan
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
