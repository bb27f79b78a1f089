"""Trainings in two processes from a user's script: nothing of the script is lost, errors are real, nobody is left.

Most have interpreters that are forked: three real ones take twelve seconds to import what they need.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eyas
from eyas.launch.launcher import STACKS
from sockets import listening

SCRIPT = Path(__file__).with_name("standins.py")
SOURCE = Path(eyas.__file__).parents[1]  # that of the package under test, which may be a copy
forked = pytest.mark.usefixtures("forked")


def start(folder: Path, what: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONWARNINGS", None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), what],
        env=environment | {"TMPDIR": str(folder.parent)},
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], folder: Path) -> tuple[dict[str, Any], str]:
    """Wait for the script; return its report and output, and see that all its processes are gone."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert_nobody_left(folder)
    return json.loads((folder / "report.json").read_text()), out + err


def assert_nobody_left(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while left := processes_of(folder):
        assert time.monotonic() < deadline, f"left over: {left}"
        time.sleep(0.1)
    assert not list(folder.parent.glob("eyas-*"))  # the temporary folder


def processes_of(folder: Path) -> list[int]:
    """Processes that work in the folder of a test."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder.parent:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return [number for number in found if number != os.getpid()]


def test_the_kernels_tables_show_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::", 0), family=socket.AF_INET6) as all_:
        expected = [("127.0.0.1", one.getsockname()[1]), ("::", all_.getsockname()[1])]
        assert listening([os.getpid()])[os.getpid()] == expected


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 45
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} never came"
        time.sleep(0.05)


def run(tmp_path: Path, what: str) -> tuple[dict[str, Any], str]:
    folder = tmp_path / "run"
    return finish(start(folder, what), folder)


pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")


def test_a_script_travels_whole_and_runs_once(tmp_path: Path) -> None:
    report, output = run(tmp_path, "runs")
    expected = [[rank, "a global of the script", 4, 10.0, "runs", str(tmp_path)] for rank in range(2)]
    assert report == {"seen": expected, "same_class": True, "function": "a global of the script"}
    assert output.strip() == "line of rank 0"


@forked
def test_where_output_is_captured_the_main_process_is_streamed(tmp_path: Path) -> None:
    report, output = run(tmp_path, "captured")
    assert report == {"text": "line of rank 0\n"}
    assert output == ""


@forked
def test_the_real_traceback_of_the_process_that_failed(tmp_path: Path) -> None:
    report, output = run(tmp_path, "raises")
    assert (report["kind"], report["rank"]) == ("WorkerError", 1)
    assert report["text"].startswith("process 1 of 2 failed: CustomError: the real reason\n\nTraceback")
    assert "standins.py" in report["traceback"] and "in fail" in report["traceback"]
    assert output == ""  # said once, by the error


@forked
def test_a_killed_process_ends_the_run(tmp_path: Path) -> None:
    began = time.monotonic()
    report, _ = run(tmp_path, "dies")
    assert time.monotonic() - began < 60
    assert report["text"].startswith("process 1 of 2 was killed by SIGKILL; the machine may be out of memory.")
    assert report["traceback"] == "last words"


@forked
def test_a_process_that_died_is_restarted_and_resumed(tmp_path: Path) -> None:
    report, _ = run(tmp_path, "dies once")
    assert report == {"resumed": True, "restarts": 1}


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@forked
def test_nothing_listens_beyond_this_host_and_what_a_stranger_sends_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "waits")
    wait_for(folder / "ready-0", folder / "ready-1")
    ports = listening(processes_of(folder))
    addresses = [entry for found in ports.values() for entry in found]
    assert len(ports) >= 3 and not ports[process.pid], "the launcher listens nowhere"
    assert {address for address, _ in addresses} == {"127.0.0.1"}, "gloo's processes do, for each other"
    for address in addresses:
        with socket.create_connection(address, timeout=5) as stranger:
            stranger.sendall(pickle.dumps(Planted(tmp_path / "opened")))
    (private,) = tmp_path.glob("eyas-*")
    assert private.stat().st_mode & 0o077 == 0, "the file in which they met is out of reach"
    process.send_signal(signal.SIGINT)
    assert finish(process, folder)[0]["kind"] == "Interrupted"
    assert not (tmp_path / "opened").exists()


@forked
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_request_to_stop_saves_and_leaves_nobody(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    process = start(folder, "waits")
    wait_for(folder / "ready-0", folder / "ready-1")
    process.send_signal(number)
    time.sleep(0.02)  # `timeout` tells the process and its group, long before all have ended
    process.send_signal(number)
    report, _ = finish(process, folder)
    assert report == {"kind": "Interrupted", "text": f"saved; continue with: eyas train resume={folder / 'last.pt'}"}
    assert not (folder / "ran-0-1").exists()  # asked to stop, not crashed: no restart


def test_asked_where_they_are_all_show_their_stacks_and_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "waits")
    wait_for(folder / "ready-0", folder / "ready-1")
    process.send_signal(signal.SIGQUIT)
    time.sleep(STACKS + 1)
    process.send_signal(signal.SIGHUP)
    report, said = finish(process, folder)
    assert report["kind"] == "Interrupted"
    assert "in launch" in said, "the launcher's"
    assert said.count("in body") == 2 and "Process 1:\n" in said, "those of both processes"


@forked
def test_a_process_told_to_stop_by_itself_stops_all(tmp_path: Path) -> None:
    report, _ = run(tmp_path, "preempted")
    assert report["kind"] == "Interrupted" and report["text"].startswith("saved;")
    assert not (tmp_path / "run" / "ran-0-1").exists()


@forked
def test_workers_end_with_the_process_that_launched_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "waits")
    wait_for(folder / "ready-0", folder / "ready-1")
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 20
    while processes_of(folder):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.1)
