"""The launcher's rendezvous with nobody but itself.

torch's own ones open a port on all addresses of the host, ask whoever connects for no password, and unpickle what they
find there. One launcher on one host has nobody to meet: its notes stay in its memory, and nothing listens.
"""

from __future__ import annotations

from contextlib import suppress

from torch.distributed import HashStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

BACKEND = "eyas-alone"


class Alone(RendezvousHandler):
    """One launcher, which is number 0 of 1; its processes find each other elsewhere (`eyas.dist`)."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self.run_id = parameters.run_id
        self.closed = False

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return an empty store at every start; its address is where nothing is."""
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    def is_closed(self) -> bool:
        return self.closed

    def set_closed(self) -> None:
        self.closed = True

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self.run_id

    def shutdown(self) -> bool:
        self.set_closed()
        return True


def register() -> None:
    """Make the launcher know it by name; again and again does no harm."""
    with suppress(ValueError):  # this module was loaded anew: the class that torch keeps from before does the same
        rendezvous_handler_registry.register(BACKEND, Alone)
