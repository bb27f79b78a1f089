"""Who am I among the processes of this run, and what do the others say?

The only reader of RANK, LOCAL_RANK and WORLD_SIZE. Without a process group every exchange is the identity, so that code
that uses it needs no case for one process. torch is imported only where it is used.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

# A process waits this long for another one, for example while that one reads all labels or writes a cache. A process
# that dies is noticed at once by its launcher; this limit is for those that hang.
PATIENCE = timedelta(minutes=30)


def rank() -> int:
    """Number of this process among all, 0-based."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its host, 0-based."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many of them run on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and speaks to people."""
    return rank() == 0


def run_id() -> str:
    """A text that all processes of this run know, and other runs on this host have not at the same time."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return " ".join(os.environ.get(name, "-") for name in names)


def restarts() -> int:
    """How often the launcher has started the processes of this run again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def restart_limit() -> int | None:
    """How often the launcher may start the processes again; None without a launcher that says so."""
    limit = os.environ.get("TORCHELASTIC_MAX_RESTARTS")
    return None if limit is None else int(limit)


# -- the group of processes --------------------------------------------------------------------------------------------
def start(device: torch.device | str = "cpu") -> bool:
    """Join the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe; return whether this call did so.

    Does nothing in a single process, or when the user's script has started a group itself. Plain values are exchanged
    over gloo, which never waits for a GPU; tensors on a GPU over NCCL.
    """
    if world_size() == 1 or is_initialised():
        return False
    import torch

    backend = "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo"
    store, number, size = next(torch.distributed.rendezvous("env://", timeout=PATIENCE))
    store.set_timeout(PATIENCE)
    # The launcher's store outlives a restart, and with it the addresses of the processes that died.
    own = torch.distributed.PrefixStore(f"start_{restarts()}", store)
    torch.distributed.init_process_group(backend, store=own, rank=number, world_size=size, timeout=PATIENCE)
    return True


def finish() -> None:
    """Leave the group, if there is one."""
    if is_initialised():
        import torch

        torch.distributed.destroy_process_group()


def is_initialised() -> bool:
    """Whether there is a group of processes; a process that has not imported torch has none."""
    module: Any = sys.modules.get("torch.distributed")
    return module is not None and module.is_available() and module.is_initialized()


# -- exchanges: every process must call them, in the same order --------------------------------------------------------
def agree(value: T) -> T:
    """Return the main process's value, which must be picklable, on all processes."""
    if not is_initialised():
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any process."""
    if not is_initialised():
        return flag
    import torch

    # With gloo in the group a GPU is left alone: asking costs no wait for its queue.
    on_host = "cpu:" in torch.distributed.get_backend_config()
    raised = torch.tensor(int(flag), device="cpu" if on_host else "cuda")
    torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
    return bool(raised)


def gather_all(value: T) -> list[T]:
    """Return the values of all processes, in order of their ranks, on all processes."""
    if not is_initialised():
        return [value]
    import torch

    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Return the mean of a floating tensor over all processes; no gradient flows back through it.

    The identity without a group, and where gradients are off: in validation each process works on batches of its own,
    and some have more of them than others.
    """
    import torch

    if not is_initialised() or not torch.is_grad_enabled():
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def barrier() -> None:
    """Wait until all processes are here."""
    gather_all(None)
