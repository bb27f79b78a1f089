"""What travels to the processes of a training, what cannot, and which of several errors is the cause."""

from __future__ import annotations

import importlib.util
import io
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eyas.data import FORMATS
from eyas.files import identity, write_atomic
from eyas.launch import handover
from eyas.launch.interrupt import Interrupted
from eyas.launch.launcher import WorkerError, launch, raise_cause, raise_interrupted
from eyas.run.tracking import TrainingDiverged

LOCK = threading.Lock()


# -- there -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def from_a_file(tmp_path: Path) -> Iterator[Callable[[str, str], types.ModuleType]]:
    """Load a module or package from a file, as scripts do that keep their parts off ``sys.path``."""
    loaded = []

    def load(name: str, source: str) -> types.ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


def test_modules_that_a_new_interpreter_lacks_travel_by_value(from_a_file: Any) -> None:
    module = from_a_file(
        "loss_from_a_file", "GAIN = 3\nclass Loss:\n    def __call__(self, x):\n        return GAIN * x\n"
    )
    shadowed = from_a_file("cv2", "class Mine: ...\n") if "cv2" not in sys.modules else None
    made = types.ModuleType("made_by_hand")
    exec("def double(x):\n    return 2 * x", vars(made))
    sys.modules["made_by_hand"] = made
    try:
        strange = handover.strangers()
        assert module in strange and made in strange and (shadowed is None or shadowed in strange)
        assert not {m.__name__ for m in strange} & {"torch", "numpy", "eyas", "pytest", "yaml"}
        payload, _ = handover.pack(SimpleNamespace(loss=module.Loss(), double=made.double), 2)
    finally:
        del sys.modules["made_by_hand"]
    code = (
        "import sys; from pathlib import Path; from eyas.launch import handover\n"
        "trainer, _ = handover.unpack(Path(sys.argv[1]).read_bytes())\n"
        "assert (trainer.loss(2), trainer.double(2)) == (6, 4)\n"
    )
    path = Path(module.__file__).with_name("payload")
    path.write_bytes(payload)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


def test_pickling_by_value_is_undone(from_a_file: Any) -> None:
    module = from_a_file("another_from_a_file", "def f(): ...\n")
    handover.pack(SimpleNamespace(f=module.f), 2)
    import cloudpickle  # type: ignore[import-untyped]

    assert "another_from_a_file" not in cloudpickle.list_registry_pickle_by_value()


def test_code_keeps_the_name_of_its_file_whatever_cloudpickle_makes_of_it() -> None:
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def fails(x):\n    return [1 / y for y in x]", "/home/me/script.py", "exec"), script)
    file = io.BytesIO()
    pickler = handover.Pickler(file)
    make = pickler.dispatch_table[types.CodeType]

    def nameless(code: types.CodeType) -> Any:
        rebuild, arguments = make(code)
        return rebuild, tuple("<dynamic-code>" if part == code.co_filename else part for part in arguments)

    pickler.dispatch_table = {**pickler.dispatch_table, types.CodeType: nameless}
    pickler.dump(script["fails"])
    with pytest.raises(ZeroDivisionError) as caught:
        pickle.loads(file.getvalue())([0])
    assert {frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)[1:]} == {"/home/me/script.py"}


def test_label_formats_that_the_script_registered_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "mine", lambda entry, root, names: None)
    content, _ = handover.pack(SimpleNamespace(), 2)
    monkeypatch.delitem(FORMATS, "mine")
    handover.unpack(content)
    assert FORMATS["mine"]("labels.xyz", Path(), None) is None


def test_paths_arguments_and_our_importers_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        __module__ = "eyas.somewhere"

        def find_spec(self, *_: Any) -> None: ...

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    monkeypatch.setattr(sys, "path", [*sys.path, "/only/here"])
    monkeypatch.setattr(sys, "argv", ["script.py", "--fast"])
    payload, _ = handover.pack(SimpleNamespace(), 2)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:-1])
    monkeypatch.setattr(sys, "path", sys.path[:-1])
    monkeypatch.setattr(sys, "argv", ["worker"])
    handover.unpack(payload)
    assert sys.path[-1] == "/only/here" and sys.argv == ["script.py", "--fast"]
    assert type(sys.meta_path[0]).__name__ == "Finder"


# -- what cannot travel ------------------------------------------------------------------------------------------------
class Watcher:
    def __init__(self) -> None:
        self.names = ["fine"]
        self.lock = threading.Lock()


class Hooked:
    def on_train_start(self) -> None:
        with LOCK:
            pass


def closure() -> Callable[[], object]:
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"watch": [Watcher()]},
            ["trainer.watch[0].lock", "self.lock = threading.Lock()", "test_handover.py, line", "_thread.lock"],
        ),
        (
            {"hooks": {"on_train_end": closure()}},
            ["hooks['on_train_end'] -> variable 'lock'", "test_handover.py, line"],
        ),
        ({"hook": Hooked()}, ["global variable 'LOCK'", "Hooked.on_train_start"]),
        ({"hook": partial(print, threading.Lock())}, ["trainer.hook[0]", "_thread.lock"]),
        ({"log": sys.stdout.buffer}, ["trainer.log"]),
    ],
    ids=["attribute", "closure", "global", "partial", "file"],
)
def test_refusal_names_what_cannot_travel(
    parts: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if this file was the user's script: it could not be imported elsewhere.
    monkeypatch.setattr(handover, "strangers", lambda: [sys.modules[__name__]])
    trainer = SimpleNamespace(args=SimpleNamespace(restarts=0), **parts)
    with pytest.raises(ValueError, match="cannot be sent to 2 processes") as caught:
        launch(trainer, 2)
    for word in [*words, "on_pretrain_routine_start"]:
        assert word in str(caught.value)


# -- and back ----------------------------------------------------------------------------------------------------------
class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def report(folder: Path, rank: int, error: BaseException, *, when: float, attempt: int = 0) -> None:
    try:
        raise error
    except BaseException as raised:
        failure = handover.describe_failure(rank, raised)
    object.__setattr__(failure, "time", when)
    write_atomic(handover.failure_file(folder, attempt, rank), pickle.dumps(failure))


def ended(**codes: int) -> Any:
    failures = {
        int(rank[1:]): SimpleNamespace(
            exitcode=code, timestamp=int(rank[1:]), signal_name=lambda c=code: signal.Signals(-c).name
        )
        for rank, code in codes.items()
    }
    return SimpleNamespace(failures=failures)


LOST = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:2341")


def cause(folder: Path, agent: Any, attempt: int = 0) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is what is asked
        raise_cause(folder, agent, 2, attempt)
    return caught.value


def test_the_first_error_is_the_cause(tmp_path: Path) -> None:
    report(tmp_path, 0, KeyError("later"), when=2)
    report(tmp_path, 1, KeyError("first"), when=1)
    error = cause(tmp_path, ended(r0=1, r1=1))
    assert isinstance(error, WorkerError) and error.rank == 1 and "KeyError: 'first'" in str(error)


def test_a_lost_connection_is_a_consequence(tmp_path: Path) -> None:
    report(tmp_path, 0, LOST, when=1)
    report(tmp_path, 1, KeyError("real"), when=2)
    assert "real" in str(cause(tmp_path, ended(r0=1)))
    assert handover.is_lost_peer(torch.distributed.DistBackendError("watchdog"))


@pytest.mark.parametrize("explicit", [False, True], ids=["while handling", "raised from"])
def test_an_error_that_followed_a_lost_connection_is_a_consequence(tmp_path: Path, explicit: bool) -> None:
    """Whatever a process raised once its peer was gone, on purpose or while cleaning up, the peer's is the cause."""
    followed = KeyError("while cleaning up")
    followed.__cause__ = LOST if explicit else None
    try:
        raise LOST
    except RuntimeError:
        report(tmp_path, 0, followed, when=1)
    report(tmp_path, 1, KeyError("real"), when=2)
    assert "real" in str(cause(tmp_path, ended(r0=1, r1=1)))
    assert not handover.is_lost_peer(ValueError("connection closed by peer")), "a user's own words are no symptom"


def test_a_kill_comes_before_what_the_others_then_saw(tmp_path: Path) -> None:
    report(tmp_path, 0, LOST, when=1)
    error = cause(tmp_path, ended(r0=1, r1=-9))
    assert (
        isinstance(error, WorkerError) and error.rank == 1 and "SIGKILL; the machine may be out of memory" in str(error)
    )
    assert "killed by SIGSEGV" in str(cause(tmp_path, ended(r0=1, r1=-11)))


def test_a_traceback_comes_before_an_abort_that_followed(tmp_path: Path) -> None:
    report(tmp_path, 1, KeyError("real"), when=1)
    assert "real" in str(cause(tmp_path, ended(r0=-6, r1=1)))


def test_only_lost_connections_and_only_exit_codes(tmp_path: Path) -> None:
    assert "process 1 of 2 ended with exit code 3" in str(cause(tmp_path, ended(r1=3)))
    report(tmp_path, 0, LOST, when=1)
    assert "Connection closed by peer" in str(cause(tmp_path, ended(r0=1)))


def test_errors_of_earlier_attempts_are_over(tmp_path: Path) -> None:
    report(tmp_path, 1, KeyError("old"), when=1, attempt=0)
    report(tmp_path, 0, KeyError("new"), when=2, attempt=1)
    assert "new" in str(cause(tmp_path, ended(r0=1), attempt=1))


@pytest.mark.parametrize(
    "error", [ValueError("wrong option"), FileNotFoundError(2, "none", "x"), TrainingDiverged("nan")]
)
def test_errors_for_users_keep_their_type(tmp_path: Path, error: Exception) -> None:
    report(tmp_path, 1, error, when=1)
    raised = cause(tmp_path, ended(r1=1))
    assert type(raised) is type(error) and str(raised) == str(error)
    assert isinstance(raised.__cause__, WorkerError) and "Traceback" in str(raised.__cause__)


def test_errors_that_cannot_be_rebuilt_keep_their_text(tmp_path: Path) -> None:
    report(tmp_path, 1, Odd(1, 2), when=1)
    report(tmp_path, 0, LOST, when=0)
    error = cause(tmp_path, ended(r1=1))
    assert isinstance(error, WorkerError) and "Odd: 1 2" in str(error)


def test_interrupts_say_what_is_saved(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM\. Nothing is saved\."):
        raise_interrupted(tmp_path, "SIGTERM", last, before=None)
    last.touch()
    with pytest.raises(Interrupted, match=r"with: eyas train resume=.*last\.pt"):
        raise_interrupted(tmp_path, "SIGINT", last, before=None)
    with pytest.raises(Interrupted, match=r"Nothing is saved\."):  # the file is that of an older run in this folder
        raise_interrupted(tmp_path, "SIGINT", last, before=identity(last))
    report(tmp_path, 0, Interrupted("stopped in epoch 3"), when=1)
    with pytest.raises(Interrupted, match="stopped in epoch 3"):
        raise_interrupted(tmp_path, "SIGINT", last, before=None)
