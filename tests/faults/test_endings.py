"""A run that hangs is ended, and who was killed is named; nobody is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eyas import dist
from eyas.data.errors import LoaderGoneError
from eyas.launch.handover import LostPeerError
from eyas.launch.interrupt import InterruptFlag, Stalled
from eyas.train import ending, watch
from eyas.train.watch import LEAST, UNMEASURED, Report, Stage, Watch

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")

SCRIPT = """
import os, signal, sys, time
from eyas import YOLO, Callback

def hang(image, boxes, labels):
    time.sleep(600)

class Kills(Callback):
    def on_train_batch_end(self, trainer):
        if trainer.step == 1 and os.environ.get("RANK", "0") == sys.argv[4]:
            os.kill(trainer.train_loader._loader._iterator._workers[0].pid, signal.SIGKILL)

what = sys.argv[3]
YOLO(sys.argv[1]).train(
    data=sys.argv[2], callbacks=[Kills()] if what == "kill" else [], transforms=[hang] if what == "hang" else [],
    stall_timeout=2.0 if what == "hang" else None, imgsz=32, fraction=0.25, epochs=300, batch=4, workers=1,
    processes=int(sys.argv[5]), plots=False, report=False, verbose=False, device="cpu", save_dir="run",
)
"""


def run(folder: Path, model: Path, data: Path, *arguments: object) -> str:
    """Run the script, see that it fails and leaves nobody, and return what it wrote to its error output."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(model), str(data), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert_nobody_in(folder)
    assert not list(folder.glob("eyas-*"))
    return done.stderr


def assert_nobody_in(folder: Path, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_in(folder):
        assert time.monotonic() < deadline, f"left over: {left}"
        time.sleep(0.1)


def processes_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return [number for number in found if number != os.getpid()]


@pytest.mark.usefixtures("forked")
def test_a_worker_that_hangs_is_named_with_its_stack(digits_tiny: Path, short_model: Path, tmp_path: Path) -> None:
    said = run(tmp_path, short_model, digits_tiny, "hang", 0, 1)
    assert "waits for its next batch in epoch 1, batch 1: worker 0 of 1 (pid" in said.splitlines()[-1]
    assert said.splitlines()[-1].startswith("eyas.launch.interrupt.Stalled: no progress for")
    assert "in hang" in said and "which loads its images" in said


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("rank", [None, 1])
def test_a_worker_that_is_killed_is_named_and_no_socket(
    digits_tiny: Path, short_model: Path, tmp_path: Path, rank: int | None
) -> None:
    said = run(tmp_path, short_model, digits_tiny, "kill", rank or 0, 1 if rank is None else 2)
    last = said.splitlines()[-1]
    assert "which loads images, was killed by SIGKILL" in last and "GiB of memory are free" in last
    assert "gloo" not in last


@pytest.mark.usefixtures("forked")
def test_workers_end_soon_after_a_parent_that_dies_as_soon_as_it_has_them(digits_tiny: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from eyas.data.dataset_yaml import check_dataset
from eyas.data.index import build_index
from eyas.data.dataset import EvalDataset
from eyas.data.loader import build_eval_loader
from eyas.data.store import ImageStore
data = check_dataset(sys.argv[1])
index = build_index(data["train"], names=data["names"], split="train")
loader = build_eval_loader(EvalDataset(index, ImageStore(index, imgsz=32), imgsz=32, batch=4), workers=8)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(digits_tiny)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_nobody_in(tmp_path)


# -- who is to blame ---------------------------------------------------------------------------------------------------
def test_words_of_libraries_are_told_in_our_own() -> None:
    killed = ending.cause_of(RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. "))
    assert isinstance(killed, LoaderGoneError) and "process 123, which loads images, was killed by SIGKILL" in str(
        killed
    )
    ended = ending.cause_of(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"))
    assert isinstance(ended, LoaderGoneError) and "process 7, 8, which loads images, ended" in str(ended)
    lost = ending.cause_of(RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:2341"))
    assert isinstance(lost, LostPeerError) and "gloo" not in str(lost)
    own = ValueError("connection closed by peer")
    assert ending.cause_of(own) is own


def test_the_end_of_a_worker_that_torch_tells_while_it_is_looked_for_is_told_in_our_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(loader: object, seconds: float) -> dict[int, int]:
        raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")  # as its handler of SIGCHLD

    monkeypatch.setattr(ending, "fallen_workers", interrupted)
    told = ending.cause_of(ConnectionResetError(104, "Connection reset by peer"), object())
    assert isinstance(told, LoaderGoneError) and "process 123" in str(told)


def test_a_pace_that_was_measured_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: now)
    looks = Watch(None, lambda stage: "", print)
    for _ in looks.over_batches(range(3), epoch=0, first=0):
        now += 30
        assert looks.limit(Stage.TRAINING) == UNMEASURED
    looks.announce()
    assert looks.longest == 30 and looks.limit(Stage.LOADING) == 300 and looks.limit(Stage.BETWEEN) == UNMEASURED
    looks.longest = 1.0
    assert looks.limit(Stage.VALIDATING) == LEAST
    assert Watch(7.0, lambda stage: "", print).limit(Stage.BETWEEN) == 7.0


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            [Report(1, 11, 2, 4, Stage.LOADING, "worker 0 of 2 (pid 5) owes it", True)],
            r"process 1 \(pid 11\) .*worker 0",
        ),
        ([], "process 1 does not answer"),
        ([Report(1, 11, 2, 4, Stage.LOADING, "", False)], "^$"),
    ],
    ids=["behind", "silent", "only slow"],
)
def test_who_is_behind_all_others_holds_the_run_up(
    monkeypatch: pytest.MonkeyPatch, others: list[Report], said: str
) -> None:
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    looks = Watch(5.0, lambda stage: "", print)
    looks.epoch, looks.step, looks.stage = 2, 4, Stage.TRAINING
    monkeypatch.setattr(looks, "exchange", lambda own: [own, *others])
    assert re.search(said, looks.verdict(late=True))


def test_an_error_that_another_thread_has_found_is_raised_once() -> None:
    flag = InterruptFlag()
    flag.error = Stalled("here")
    with pytest.raises(Stalled, match="here"):
        flag.handle(signal.SIGINT, None)
    flag.handle(signal.SIGINT, None)
    assert flag.raised, "and then a request is one again"


def test_where_nothing_has_to_be_saved_a_request_is_answered_at_once() -> None:
    flag = InterruptFlag()
    flag.at_once = "stopped before the first step."
    with pytest.raises(KeyboardInterrupt, match="before the first step"):
        flag.handle(signal.SIGUSR1, None)
    flag.handle(signal.SIGTERM, None)  # the same request, to the group


def test_a_person_in_a_debugger_is_no_hang() -> None:
    looks = Watch(5.0, lambda stage: "", print)
    assert not looks.is_debugged()
    found: dict[str, Any] = {}
    exec(compile("found['seen'] = looks.is_debugged()", "/lib/python/pdb.py", "exec"), {"found": found, "looks": looks})
    assert found["seen"]
