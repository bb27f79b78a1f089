"""An interpreter that is forked is, to a program, a new one: what ``forked`` promises, beside a real one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eyas.data.formats import FORMATS
from forked import forked_interpreters

PROGRAM = """
import atexit, json, logging, os, random, signal, sys, tempfile, threading, warnings
import torch
import eyas, neighbour
from eyas.data.formats import FORMATS

logging.getLogger("eyas").error("said on stderr")
print(json.dumps({
    "argv": sys.argv, "main": __name__, "file": globals().get("__file__"),
    "path": [os.path.realpath(path) for path in sys.path], "cwd": os.getcwd(), "neighbour": neighbour.__file__,
    "environment": dict(os.environ), "temporary": tempfile.gettempdir(),
    "eyas": eyas.__file__, "formats": list(FORMATS), "tests": sorted({"pytest", "forked"} & sys.modules.keys()),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
    "threads": threading.active_count(), "torch": torch.get_num_threads(),
    "drawn": [random.random(), torch.initial_seed()],
    "session": os.getsid(0) == os.getpid(), "parent": os.getppid(),
    "open": {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2} <= {os.devnull},
}))
atexit.register(print, "at the end")
warnings.warn("a warning", UserWarning)
threading.Thread(target=lambda: print("a thread")).start()
print(input(), file=sys.stderr)
sys.exit("gone")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").touch()
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def _used() -> Iterator[None]:
    """Leave traces in this process of what tests do."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None), dict(FORMATS)
    FORMATS["mine"] = lambda *_: None  # type: ignore[assignment]
    random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    signal.signal(signal.SIGUSR1, before[0])
    FORMATS.clear()
    FORMATS.update(before[1])


def started(folder: Path, *command: str, fork: bool, **how: Any) -> tuple[int, Any, list[str], str]:
    """Run a program; return its exit code, its report, and what else it said."""
    with forked_interpreters() if fork else contextlib.nullcontext():
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, input="typed\n", capture_output=True, text=True, check=False, **how
        )
    report, *rest = done.stdout.splitlines() or ["null"]
    return done.returncode, json.loads(report), sorted(rest), done.stderr


@pytest.mark.usefixtures("_used")
@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
@pytest.mark.parametrize(
    "command", [("program.py", "a", "b"), ("-P", "-m", "program"), ("-c", PROGRAM)], ids=["file", "module", "code"]
)
def test_a_program_sees_what_it_would_see_in_a_new_interpreter(folder: Path, command: tuple[str, ...]) -> None:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    how = {"env": environment, "start_new_session": True}
    real = started(folder, *command, fork=False, **how)
    assert real[0] == 1 and real[2] == ["a thread", "at the end"] and real[1]["environment"]
    drawn = [real[1].pop("drawn")]
    code, report, *said = started(folder, *command, fork=True, **how)
    drawn += [report.pop("drawn"), [random.random(), torch.initial_seed()]]
    assert all(len(set(numbers)) == 3 for numbers in zip(*drawn, strict=True)), "seeds are not this process's"
    assert {key: (value, real[1][key]) for key, value in report.items() if value != real[1][key]} == {}
    assert (code, *said) == (real[0], *real[2:])


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
@pytest.mark.parametrize(
    "code", ["1 / 0", "raise KeyboardInterrupt", "import os; os.kill(os.getpid(), 9)", "import no"]
)
def test_it_ends_as_a_new_one_does(tmp_path: Path, code: str) -> None:
    assert started(tmp_path, "-c", code, fork=True) == started(tmp_path, "-c", code, fork=False)


def test_outside_the_block_interpreters_are_real(tmp_path: Path) -> None:
    for fork in (True, False):
        with forked_interpreters() if fork else contextlib.nullcontext():
            code = "import sys; print(int('torch' in sys.modules))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert int(done.stdout) == (fork and sys.platform == "linux")


def test_a_session_of_its_own_is_there_when_the_call_returns() -> None:
    with forked_interpreters():
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
        assert os.getpgid(process.pid) == process.pid, "a signal to its group would be one to the tests"
        process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
