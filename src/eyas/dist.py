"""Who am I among the processes of this run, and what do the others say?

The only reader of RANK, LOCAL_RANK and WORLD_SIZE. Without a process group every exchange is the identity, so that code
that uses it needs no case for one process. torch is imported only where it is used.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

# A process waits this long for another one, for example while that one reads all labels or writes a cache. A process
# that dies is noticed at once by its launcher; this limit is for those that hang.
PATIENCE = timedelta(minutes=30)

# Names the file in which the processes of this library's own launcher meet; only this user can open its folder.
MEETING_FILE = "EYAS_MEETING_FILE"


def rank() -> int:
    """Number of this process among all, 0-based."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its host, 0-based."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many of them run on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ranks_here() -> range:
    """Numbers of the processes on this host, as launchers give them out: one host after the other."""
    first = rank() - local_rank()
    return range(first, first + local_world_size())


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
    """Join the group that RANK and WORLD_SIZE describe; return whether this call did so.

    Does nothing in a single process, or when the user's script has started a group itself. Plain values are exchanged
    over gloo, which never waits for a GPU; tensors on a GPU over NCCL. Both are kept to this host's loopback device
    where all processes run on one host: whatever listens elsewhere is open to others, for it asks for no password.
    """
    if world_size() == 1 or is_initialised():
        return False
    import torch

    backend = "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo"
    _choose_interface()
    store = _meeting_store()
    store.set_timeout(PATIENCE)
    # A store may outlive a restart, and with it the addresses of the processes that died.
    own = torch.distributed.PrefixStore(f"start_{restarts()}", store)
    torch.distributed.init_process_group(backend, store=own, rank=rank(), world_size=world_size(), timeout=PATIENCE)
    return True


def store() -> torch.distributed.Store | None:
    """Return where the processes of the group leave notes for each other; None without a group."""
    if not is_initialised():
        return None
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def exposure() -> str | None:
    """Return in one line what the group opens to the network; None if nothing of it listens beyond this host."""
    if MEETING_FILE in os.environ or (on_one_host() and not _is_served()):
        return None
    address, port = _master()
    listens = f"{address}:{port}"
    if _is_served():
        listens = f"port {port} of {address}, all its addresses: torchrun listens there"
    elif _own_address(address) is None and is_main():
        listens = f"port {port}, all addresses of this host: {address} is none of them"
    return (
        f"the processes of this run meet at {listens}, and trust whoever connects: let a firewall keep all others "
        "from the ports of these hosts (docs/trainer.md)."
    )


def on_one_host() -> bool:
    """Whether all processes of this run are on this host; False where nobody says so."""
    return MEETING_FILE in os.environ or local_world_size() == world_size() or _is_loopback(_master()[0])


def _meeting_store() -> torch.distributed.Store:
    """Return where the processes find each other: a file, or a port of MASTER_ADDR and of no other address."""
    from torch.distributed import FileStore, TCPStore, rendezvous

    if file := os.environ.get(MEETING_FILE):
        return FileStore(f"{file}-{restarts()}", world_size())
    address, port = _master()
    own = _own_address(address) if is_main() and not _is_served() else None
    if own is None:  # another holds the store, or nobody can listen on the address, as on that of a service
        return next(rendezvous("env://", timeout=PATIENCE))[0]
    server = socket.create_server((own[1], port), family=own[0])
    return TCPStore(address, port, world_size(), True, PATIENCE, multi_tenant=True, master_listen_fd=server.detach())


def _is_served() -> bool:
    """Whether the launcher holds the store, as torchrun does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _master() -> tuple[str, int]:
    """Address and port of the store, where it is not a file."""
    return os.environ.get("MASTER_ADDR", "localhost"), int(os.environ.get("MASTER_PORT", "0"))


def _is_loopback(address: str) -> bool:
    """Whether an address means this host on whatever host it is read; a name that only resolves so does not."""
    return address in ("localhost", "::1") or address.startswith("127.")


def _own_address(address: str) -> tuple[socket.AddressFamily, str] | None:
    """Return the address of this host that a name means to all others, IPv4 first; None if it means none of its own.

    A host's own name often leads to 127.0.1.1 on itself, where no other host would find it.
    """
    with suppress(OSError):
        for family, *_, place in sorted(socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)):
            number = str(place[0])
            if _is_loopback(number) and not _is_loopback(address):
                continue
            with suppress(OSError), socket.socket(family) as trial:
                trial.bind((number, 0))
                return family, number
    return None


def _choose_interface() -> None:
    """Let gloo and NCCL listen on the loopback device only; processes on several hosts, where the user says."""
    if on_one_host() and sys.platform != "win32":
        device = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if device is not None:
            os.environ |= {"GLOO_SOCKET_IFNAME": device, "NCCL_SOCKET_IFNAME": f"={device}"}


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
    return bool(highest(int(flag)))


def highest(value: int) -> int:
    """Return the highest value of any process."""
    if not is_initialised():
        return value
    import torch

    # With gloo in the group a GPU is left alone: asking costs no wait for its queue.
    on_host = "cpu:" in torch.distributed.get_backend_config()
    raised = torch.tensor(value, device="cpu" if on_host else "cuda")
    torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
    return int(raised)


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
