"""Another user of the same host: plants what they like in folders that all may write, and looks at what is not theirs.

Only root can be two users; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eyas.data import host_memory
from eyas.launch import handover

pytestmark = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs to be root, to be another user")
NOBODY, SOMEBODY = 65534, 54321
PATIENCE = 20


def as_user(number: int, act: Callable[[], object]) -> object:
    """Return what a function returns, or raises, in a process of another user; it has some seconds for it."""
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)  # which ends one that waits for a FIFO
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            try:
                told: object = act()
            except OSError as error:
                told = error
            theirs.send_bytes(pickle.dumps(told))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    theirs.close()
    try:
        return pickle.loads(ours.recv_bytes())
    except EOFError:
        raise AssertionError("it did not come back") from None
    finally:
        os.waitpid(child, 0)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like /tmp, which all may write, and nobody may delete from what is another's; pytest's own is closed."""
    with TemporaryDirectory(prefix="shared-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o1777)
        monkeypatch.setattr("eyas.launch.handover.gettempdir", lambda: name)
        monkeypatch.setattr(host_memory, "_folder", lambda: place)
        yield place


def test_folders_that_another_has_planted_are_left_alone_and_never_waited_for(shared: Path) -> None:
    precious = shared / "precious"
    precious.mkdir()
    (precious / handover.LOCK).touch()

    def plant() -> None:
        for name in ("eyas-fifo", "eyas-file"):
            (shared / name).mkdir()
        os.mkfifo(shared / "eyas-fifo" / handover.LOCK)
        (shared / "eyas-file" / handover.LOCK).touch()
        (shared / "eyas-link").symlink_to(precious)
        os.mkfifo(shared / "eyas-no-folder")

    assert as_user(NOBODY, plant) is None
    (shared / "eyas-dead").mkdir()
    (shared / "eyas-dead" / handover.LOCK).touch()
    signal.alarm(PATIENCE)
    try:
        assert handover.sweep_folders() == [shared / "eyas-dead"], "root, too, sweeps its own only"
    finally:
        signal.alarm(0)
    assert (precious / handover.LOCK).exists() and (shared / "eyas-file").exists()


def test_what_is_handed_over_is_for_one_user(shared: Path) -> None:
    with TemporaryDirectory(prefix=handover.PREFIX, dir=shared) as name:
        folder = Path(name)
        os.close(handover.occupy(folder))
        handover.payload_file(folder).write_bytes(b"secret")
        assert isinstance(as_user(NOBODY, lambda: os.listdir(folder)), PermissionError)
        assert isinstance(as_user(NOBODY, handover.payload_file(folder).read_bytes), PermissionError)
        assert isinstance(as_user(NOBODY, handover.result_file(folder).touch), PermissionError)


def test_memory_that_another_has_planted_is_refused_or_left(shared: Path) -> None:
    """Its names can be guessed: what has one and is another's is neither used nor in the way of anybody."""
    prefix = f"eyas-{SOMEBODY}-"

    def plant() -> None:
        (shared / f"{prefix}old").touch()
        (shared / f"{prefix}old").chmod(0o666)
        os.mkfifo(shared / f"{prefix}fifo", 0o666)
        (shared / f"{prefix}fifo").chmod(0o666)
        (shared / f"{prefix}link").symlink_to("/etc/passwd")
        path = as_somebody("a run")
        path.touch()
        path.chmod(0o666)

    def as_somebody(name: str) -> Path:
        return shared / (prefix + host_memory._path(name).name.rpartition("-")[2])

    assert as_user(NOBODY, plant) is None
    assert as_user(SOMEBODY, host_memory.remove_abandoned) is None
    refused = as_user(SOMEBODY, lambda: host_memory.HostMemory("a run", 100, rank=0, processes=1))
    assert isinstance(refused, OSError)
    assert as_user(SOMEBODY, (shared / f"{prefix}mine").touch) is None
    assert as_user(SOMEBODY, host_memory.remove_abandoned) is None
    assert not (shared / f"{prefix}mine").exists() and (shared / f"{prefix}old").exists()
