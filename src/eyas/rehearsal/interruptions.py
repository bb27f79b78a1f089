"""``eyas verify-resume``: the user's own run, killed at random moments, must end as if nobody had touched it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eyas.log import console
from eyas.rehearsal.conduct import end, last_lines, start_interpreter
from eyas.rehearsal.difference import Snapshot, changed, explain
from eyas.rehearsal.observe import began_file
from eyas.rehearsal.report import Outcome, Place, print_heading, print_outcome, print_verdict, read_outcomes

POLL = 0.02  # seconds between looks at a run that is to be killed
SAME = "the same bits"
ENDED = "it had ended before its time was over"
TYPED = """from eyas.cli import main

main({arguments!r})
"""


@dataclass(frozen=True)
class Verification:
    """What is run, and how often it is killed.

    Attributes:
        task: what each interpreter is to run, see `eyas.rehearsal.parts.Task`.
        kills: how often the second run is killed.
        moments: seed of the moments.
        folder: for what the runs leave.
    """

    task: Mapping[str, object]
    kills: int
    moments: int
    folder: Path

    def outcomes(self) -> Iterator[Outcome]:
        """Run it whole, run it with interruptions, compare; yields a row for each."""
        whole, seconds = self.to_the_end("whole")
        yield whole
        if whole.failed:
            return
        draw = random.Random(self.moments)
        for number in range(1, self.kills + 1):
            killed = self.kill_after(draw.uniform(0.0, seconds / self.kills), f"kill {number}")
            yield killed
            if killed.failed:
                return
            if killed.detail == ENDED:
                break
        else:
            rest, _ = self.to_the_end("interrupted")
            yield rest
            if rest.failed:
                return
        yield compared(self.folder)

    def to_the_end(self, part: str) -> tuple[Outcome, float]:
        """Run a part undisturbed; returns what came of it, and the seconds for which it trained."""
        began, process = time.time(), self.start(part)
        with console().status("  the run, whole ..." if part == "whole" else "  the rest of the run ..."):
            try:
                code = process.wait()
            finally:
                end(process)
        found = read_outcomes(self.folder / f"{part}.json")
        took, marker = time.time() - began, began_file(self.epochs(part))
        trained = time.time() - marker.stat().st_mtime if marker.exists() else took
        if not found:
            text = f"Its process ended with code {code} without a report.\n{last_lines(self.log(part))}"
            return Outcome(STAGE[part], "FAILED", message=text, seconds=took), trained
        return Outcome(**{**vars(found[0]), "stage": STAGE[part], "seconds": took}), trained

    def kill_after(self, seconds: float, stage: str) -> Outcome:
        """Run it again from where it stands, and kill it so long after training began, with all its processes."""
        marker, began = began_file(self.epochs("interrupted")), time.time()
        marker.unlink(missing_ok=True)
        process = self.start("interrupted")
        try:
            with console().status(f"  {stage} ..."):
                while process.poll() is None and not marker.exists():
                    time.sleep(POLL)
                if marker.exists():
                    wait_for(process, seconds)
                ended = process.poll()
                kill(process)
        finally:
            end(process)
        took = time.time() - began
        if ended is None:
            detail = f"killed by SIGKILL {seconds:.1f} s after training began"
            return Outcome(stage, "ok", f"{detail}; {self.standing()}", seconds=took)
        found = [outcome for outcome in read_outcomes(self.folder / "interrupted.json") if outcome.failed]
        if found or not marker.exists():
            text = found[0].message if found else f"It ended before it trained.\n{last_lines(self.log('interrupted'))}"
            place = found[0].place if found else None
            return Outcome(stage, "FAILED", message=text, place=place, seconds=took)
        return Outcome(stage, "ok", ENDED, seconds=took)

    def start(self, part: str) -> subprocess.Popen[bytes]:
        """Start a part."""
        deadline = time.time() + 30 * 24 * 3600  # a run of the user's own is waited for
        task = {**self.task, "folder": "", "deadline": deadline}
        (self.folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        self.folder.joinpath(f"{part}.json").unlink(missing_ok=True)
        return start_interpreter(part, self.folder, self.log(part))

    def standing(self) -> str:
        """Return what the next attempt will begin with."""
        last = self.folder / "interrupted" / "weights" / "last.pt"
        return "last.pt is there" if last.exists() else "nothing had been saved yet"

    def epochs(self, part: str) -> Path:
        """Return where a part leaves what it held at the head of each epoch."""
        return self.folder / f"{part}-epochs"

    def log(self, part: str) -> Path:
        """Return where it goes what a part prints."""
        return self.folder / f"{part}.log"


STAGE = {"whole": "the run", "interrupted": "its end"}


def verify_resume(
    script: str | Path | None,
    options: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    trainer: str | None = None,
    *,
    kills: int = 3,
    moments: int = 0,
) -> list[Outcome]:
    """Train as a file or options say, once undisturbed and once killed at random moments; compare every bit.

    Args:
        script: a file that calls ``train()``, or one that only defines a trainer or callbacks; None for `eyas train`
            with the options.
        options: texts by name; they win over those of the call. Choose ``epochs`` and ``fraction`` for a run whose
            length suits: it is trained twice.
        arguments: command line of the file.
        trainer: name of the trainer's class, where a file defines several and never calls ``train()``.
        kills: how often the second run is killed and resumed, at least 1.
        moments: seed of the moments, each a share of the first run's length from where training begins.

    Returns:
        One outcome for each row of the table that is printed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no kill.
    """
    if kills < 1:
        raise ValueError(f"kills={kills}: a run that is never killed proves nothing; give 1 or more.")
    typed = dict(options or {})
    began, outcomes = time.monotonic(), list[Outcome]()
    with tempfile.TemporaryDirectory(prefix="eyas-rehearsal-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        if script is None:
            script = folder / "train.py"
            script.write_text(TYPED.format(arguments=["train", *(f"{key}={text}" for key, text in typed.items())]))
            print_heading(Path("eyas train"), "Interruptions")
        else:
            script = Path(script).resolve()
            if not script.is_file():
                raise FileNotFoundError(f"there is no file {script} to train with.")
            print_heading(script, "Interruptions")
        task = {"script": str(script), "arguments": list(arguments), "options": typed, "trainer": trainer, "imgsz": 0}
        for outcome in Verification(task, kills, moments, folder).outcomes():
            print_outcome(outcome)
            outcomes.append(outcome)
    print_verdict(outcomes, time.monotonic() - began)
    return outcomes


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for the end of a process, so long at most."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those of its session at once, as the kernel does where memory is out."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def compared(folder: Path) -> Outcome:
    """Return whether both runs ended with the same weights, averages and moments; if not, why."""
    began = time.monotonic()
    whole, other = (tensors_of(folder / run / "weights" / "last.pt") for run in ("whole", "interrupted"))
    different = [name for name, tensor in whole.items() if name not in other or not torch.equal(tensor, other[name])]
    different += [name for name in other if name not in whole]
    if not different:
        detail = f"all {len(whole)} tensors of weights, average and optimizer are equal, bit for bit"
        return Outcome(SAME, "ok", detail, seconds=time.monotonic() - began)
    why, place = first_difference(folder)
    count = f", the first of {len(different)} tensors that differ" if len(different) > 1 else ""
    message = f"With interruptions the run ends with another {different[0]}{count}. {why}"
    return Outcome(SAME, "FAILED", message=message, place=place, seconds=time.monotonic() - began)


def first_difference(folder: Path) -> tuple[str, Place | None]:
    """Return what was another at the head of the first epoch in which the two runs were not the same."""
    for epoch in range(1, 1 + len(list((folder / "whole-epochs").glob("*.json")))):
        one, other = (folder / f"{run}-epochs" / f"{epoch}.json" for run in ("whole", "interrupted"))
        if not (one.exists() and other.exists()):
            continue
        straight, resumed = Snapshot.read(one), Snapshot.read(other)
        if straight.weights != resumed.weights or changed(straight, resumed):
            why, place = explain(straight, resumed)
            return f"Epoch {epoch} is the first that begins otherwise. {why}", place
    return (
        "Every epoch began alike; look into the last one, and for state in files, closures or other modules.",
        None,
    )


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by where they stand in it."""
    return dict(walk(torch.load(path, weights_only=True), ""))


def walk(value: object, where: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in nested dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from walk(item, f"{where}.{number}")
