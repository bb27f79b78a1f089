"""Random faults over short trainings: nothing is lost beyond the promise, and nothing is left behind.

    python tests/faults/chaos.py --faults 200 --seed 1

Each fault hits a training of its own, of either family, in one process or two, that saves after every step. The same
command then goes on to the end, and what it has come to is compared bit for bit with a run that nothing had hit.
``docs/reliability.md`` says what is promised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1] / "src")]

import small_yolo  # noqa: E402
from eyas.checkpoint import load_checkpoint  # noqa: E402
from eyas.tables import format_table  # noqa: E402
from forked import forked_interpreters  # noqa: E402
from sockets import listening  # noqa: E402

EPOCHS, IMAGES, BATCH = 3, 16, 4
STEPS = IMAGES // BATCH  # of an epoch
PATIENCE = 120.0  # seconds for what takes a few
LOST = 4  # steps at most that pass while the copy of the one before is written
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from eyas import YOLO, Callback, dist

options = json.loads(sys.argv[1])
if limit := options.pop("limit", None):
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

class Notes(Callback):
    def on_train_batch_end(self, trainer):
        if dist.is_main():
            Path("step").write_text(str(trainer.epoch * len(trainer.train_loader) + trainer.step + 1))
        time.sleep(0.05)  # as steps of real trainings last, beside which a fault is quick

try:
    YOLO(options.pop("model")).train(callbacks=[Notes()], **options)
except KeyboardInterrupt as error:
    print(error, file=sys.stderr)
    sys.exit(130)
except (ValueError, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


@dataclass(frozen=True)
class Setup:
    """A training: its family, its processes and the workers of each."""

    family: str
    processes: int
    workers: int

    def __str__(self) -> str:
        return f"{self.family}, {self.processes} x {self.workers} workers"


@dataclass(frozen=True)
class Fault:
    """What happens to it: a kind, and the step after which it does."""

    kind: str
    setup: Setup
    step: int


@dataclass
class Outcome:
    """What became of it."""

    fault: Fault
    code: int | None = None
    lost: int = 0
    wrong: list[str] = field(default_factory=list)


# kind -> exit codes of the run that it hits; None where it goes on to its end.
CODES: dict[str, set[int]] = {
    **{f"{name} to the {whom}": {130} for name in SIGNALS for whom in ("process", "group")},
    "kill -9 of the process": {-signal.SIGKILL},
    "kill -9 of a rank": {1},
    "kill -9 of a loader": {1},
    "kill -9 of all": {-signal.SIGKILL},
    "SIGQUIT": {0},
    "a loader that hangs": {1},
    "no room": {1},
    "the folder deleted": {0},
}


def possible(setup: Setup) -> list[str]:
    """Return the kinds of faults that a training can meet."""
    without = set()
    if setup.processes == 1:
        without.add("kill -9 of a rank")
    if setup.workers == 0:
        without |= {"kill -9 of a loader", "a loader that hangs"}
    return [kind for kind in CODES if kind not in without]


def faults(count: int, seed: int, only: str = "") -> Iterator[Fault]:
    """Yield so many faults, always the same of one seed; ``only`` those whose kind holds a text."""
    if not any(only in kind for kind in CODES):
        raise SystemExit(f"no kind of fault holds {only!r}: {', '.join(CODES)}")
    dice = random.Random(seed)
    while count:
        setup = Setup(dice.choice(("yolo", "rtdetr")), dice.choice((1, 2)), dice.choice((0, 2)))
        fault = Fault(dice.choice(possible(setup)), setup, dice.randrange(1, (EPOCHS - 1) * STEPS))
        if only in fault.kind:
            count -= 1
            yield fault


class Chaos:
    """Runs trainings, hits them and looks at what is left.

    Args:
        folder: of all their files.
        data: YAML of the images.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.models = {"yolo": folder / "yolo.yaml", "rtdetr": folder / "tiny-rtdetr.yaml"}
        self.models["yolo"].write_text(yaml.safe_dump(small_yolo.few_layers()))
        self.models["rtdetr"].write_text(yaml.safe_dump(small_rtdetr()))
        self.script = folder / "script.py"
        self.script.write_text(SCRIPT)
        self.straight: dict[tuple[str, int], dict[str, Any]] = {}
        self.count = 0

    def hit(self, fault: Fault) -> Outcome:
        """Let a fault happen, go on, and return what became of it."""
        self.count += 1
        place = self.folder / f"fault-{self.count}"
        place.mkdir()
        outcome = Outcome(fault)
        hangs = {"stall_timeout": 3.0} if fault.kind == "a loader that hangs" else {}
        limit = {"limit": 30_000} if fault.kind == "no room" else {}
        run = self.start(fault.setup, place, **hangs, **limit)
        try:
            if fault.kind != "no room":
                wait_for(place, fault.step, run)
                outcome.wrong += beyond_this_host(place)
                self.strike(fault, run, place)
            _, said = run.communicate(timeout=PATIENCE)
            outcome.code = run.returncode
            if outcome.code not in CODES[fault.kind]:
                outcome.wrong.append(f"exit code {outcome.code}: {said[-600:]}")
            if fault.kind == "no room" and not ("cannot write" in said and "MiB are free" in said):
                outcome.wrong.append(f"no word of the need and the free space: {said[-600:]}")
            if "Traceback" in said or "gloo" in said:
                outcome.wrong.append(f"a traceback, or a library's words: {said[-600:]}")
            outcome.wrong += self.left_behind(place)
            outcome.lost = self.lost(fault, place)
            allowed = LOST if fault.kind.startswith(("kill", "a loader")) else 0
            outcome.wrong += [f"{outcome.lost} steps lost"] if outcome.lost > allowed else []
            outcome.wrong += self.goes_on(fault, place)
        except subprocess.TimeoutExpired:
            outcome.wrong.append("it did not end")
        finally:
            for number in processes_in(place):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        if not outcome.wrong:
            shutil.rmtree(place)
        return outcome

    def start(self, setup: Setup, place: Path, **more: Any) -> subprocess.Popen[str]:
        """Begin a training in a folder, or go on with it: always the same command."""
        options = {"model": str(self.models[setup.family]), "data": str(self.data), "imgsz": 32, "batch": BATCH}
        options |= {"epochs": EPOCHS, "fraction": 0.25, "workers": setup.workers, "processes": setup.processes}
        options |= {"device": "cpu", "plots": False, "report": False, "verbose": False, "save_dir": "run"}
        options |= {"resume": "auto", "save_every": 1} | more
        return subprocess.Popen(
            [sys.executable, str(self.script), json.dumps(options)],
            cwd=place,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(place), "PYTHONPATH": str(HERE.parents[1] / "src")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def strike(self, fault: Fault, run: subprocess.Popen[str], place: Path) -> None:
        """Do what the fault is."""
        name, _, whom = fault.kind.partition(" to the ")
        if whom:
            send = os.killpg if whom == "group" else os.kill
            send(run.pid, signal.Signals[name])
        elif fault.kind == "SIGQUIT":
            os.kill(run.pid, signal.SIGQUIT)
        elif fault.kind == "the folder deleted":
            shutil.rmtree(place / "run")
        elif fault.kind == "kill -9 of the process":
            os.kill(run.pid, signal.SIGKILL)
        elif fault.kind == "kill -9 of all":
            for number in processes_in(place):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        else:
            ranks = children(run.pid) if fault.setup.processes > 1 else [run.pid]
            victim = ranks[-1] if fault.kind == "kill -9 of a rank" else (children(ranks[-1]) or ranks)[0]
            os.kill(victim, signal.SIGSTOP if fault.kind == "a loader that hangs" else signal.SIGKILL)

    def left_behind(self, place: Path) -> list[str]:
        """Return who still runs, when all should have ended: soon, but ranks whose launcher was killed may save."""
        deadline = time.monotonic() + 40
        while left := processes_in(place):
            if time.monotonic() > deadline:
                return [f"left over: {left}"]
            time.sleep(0.1)
        return []

    def lost(self, fault: Fault, place: Path) -> int:
        """Return how many steps were taken and are not in last.pt."""
        last = place / "run" / "weights" / "last.pt"
        taken = int((place / "step").read_text()) if (place / "step").exists() else 0
        if not last.exists():
            return 0 if fault.kind in ("no room", "the folder deleted") else taken
        saved = load_checkpoint(last)
        return taken - saved["epoch"] * STEPS - (saved["state"]["step"] or STEPS)

    def goes_on(self, fault: Fault, place: Path) -> list[str]:
        """Let the same command go on to the end, and return what is not as if nothing had happened."""
        run = self.start(fault.setup, place)
        _, said = run.communicate(timeout=PATIENCE)
        if run.returncode != 0:
            return [f"does not go on: {said[-600:]}"]
        wrong = differences(self.reference(fault.setup), load_checkpoint(place / "run" / "weights" / "last.pt"))
        files = [str(path.relative_to(place)) for path in place.rglob("*.tmp")]
        folders = [path.name for path in place.glob("eyas-*")]
        wrong += [f"left behind: {', '.join(files + folders)}"] if files or folders else []
        return wrong if (place / "run" / "result.json").exists() else [*wrong, "no result.json"]

    def reference(self, setup: Setup) -> dict[str, Any]:
        """Return what a run comes to that nothing hits; the workers make no difference."""
        key = setup.family, setup.processes
        if key not in self.straight:
            place = self.folder / f"straight-{setup.family}-{setup.processes}"
            place.mkdir()
            run = self.start(Setup(setup.family, setup.processes, 0), place, save_every=False)
            _, said = run.communicate(timeout=PATIENCE)
            assert run.returncode == 0, said
            self.straight[key] = load_checkpoint(place / "run" / "weights" / "last.pt")
        return self.straight[key]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what differs between two finished runs; clocks excepted."""
    pairs = {"average": (one["model"], other["model"]), "weights": (one["state"]["model"], other["state"]["model"])}
    wrong = [f"{part}: {key}" for part, (a, b) in pairs.items() for key in a if not torch.equal(a[key], b[key])][:1]
    for index, state in one["state"]["optimizer"]["state"].items():
        found = other["state"]["optimizer"]["state"][index]
        wrong += [f"optimizer: {index} {key}" for key, value in state.items() if not torch.equal(value, found[key])][:1]
    rows = [[{k: v for k, v in row.items() if k != "time"} for row in run["state"]["history"]] for run in (one, other)]
    return wrong + (["results.csv differs"] if rows[0] != rows[1] else [])


def wait_for(place: Path, step: int, run: subprocess.Popen[str]) -> None:
    """Wait until a training has taken so many steps, and saved one."""
    deadline = time.monotonic() + PATIENCE
    while run.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            if int((place / "step").read_text()) >= step and (place / "run" / "weights" / "last.pt").exists():
                return
        time.sleep(0.005)
    raise subprocess.TimeoutExpired(run.args, PATIENCE)


def processes_in(place: Path) -> list[int]:
    """Return the processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == place:
                found.append(int(entry.name))
    return found


def children(number: int) -> list[int]:
    """Return the processes that a process has started, in order."""
    with suppress(OSError):
        text = " ".join(path.read_text() for path in Path(f"/proc/{number}/task").glob("*/children"))
        return sorted(map(int, text.split()))
    return []


def beyond_this_host(place: Path) -> list[str]:
    """Return sockets of a training that others could reach."""
    found = {address for entries in listening(processes_in(place)).values() for address, _ in entries}
    return [f"listens on {address}" for address in found - {"127.0.0.1", "::1"}]


def small_rtdetr() -> dict[str, Any]:
    """Return the table of an RT-DETR of five convolutions and two decoder layers."""
    backbone = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16, 16, 16)]
    decoder = [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 2, 32]]
    return {"nc": 10, "backbone": backbone, "head": [[-1, 1, "Conv", [16, 1, 1]], decoder]}


def table(outcomes: list[Outcome]) -> str:
    """Return a row for each kind of fault."""
    rows = []
    for kind in CODES:
        mine = [outcome for outcome in outcomes if outcome.fault.kind == kind]
        codes = ", ".join(str(code) for code in sorted({outcome.code or 0 for outcome in mine}))
        wrong = sum(bool(outcome.wrong) for outcome in mine)
        if mine:
            rows.append([kind, len(mine), codes, max(outcome.lost for outcome in mine), wrong])
    return "\n".join(format_table(("fault", "times", "exit codes", "most steps lost", "broken promises"), rows))


def main() -> int:
    """Let faults happen, print what became of them, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Random faults over short trainings.")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    asked = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name, forked_interpreters():
        os.environ["EYAS_CACHE"] = f"{name}/cache"
        from eyas.data.digits import ensure_digits

        chaos = Chaos(Path(name).resolve(), ensure_digits("tiny"))
        for fault in faults(asked.faults, asked.seed, asked.only):
            outcomes.append(chaos.hit(fault))
            for line in outcomes[-1].wrong:
                print(f"{fault.kind} of {fault.setup}, after step {fault.step}: {line}", flush=True)
    print(table(outcomes))
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
