"""The launcher's own rendezvous: known to torch by name, however often this library is loaded."""

import importlib

from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry

from eyas.launch import meeting


def test_a_library_loaded_anew_in_one_process_still_launches() -> None:
    """As a notebook's autoreload does it: the class is another one, torch's registry is the same."""
    meeting.register()
    importlib.reload(meeting)
    meeting.register()
    handler = rendezvous_handler_registry.create_handler(RendezvousParameters(meeting.BACKEND, "", "run", 1, 1))
    assert handler.get_backend() == meeting.BACKEND and handler.next_rendezvous().world_size == 1
