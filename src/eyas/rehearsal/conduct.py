"""Start the parts of a rehearsal one after the other, each in an interpreter of its own, and print the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eyas.log import console
from eyas.rehearsal import blame
from eyas.rehearsal.difference import Snapshot, explain
from eyas.rehearsal.report import Outcome, Place, print_heading, print_outcome, print_verdict, read_outcomes

LIMIT = 90.0  # seconds for a part; a usual one takes five to ten, on a busy machine three times that
WRITE_FIRST = 5.0  # seconds before that at which a part that hangs writes where it stands
GRACE = 5.0  # seconds to end after being asked to
IMGSZ = 64  # px: two cells of the coarsest level
LAST_LINES = 8  # of the output of a part that died without a word

REAL = ("worst", "whole", "interrupted")  # parts at the size of the user's run

STAGES = {  # part -> its rows in the table
    "straight": ("one process", "save"),
    "two": ("two processes",),
    "killed": ("kill",),
    "resumed": ("resume",),
    "load": ("load elsewhere",),
    "worst": ("worst-case batch",),
}


def rehearse(
    script: str | Path,
    options: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    trainer: str | None = None,
    imgsz: int = IMGSZ,
    limit: float = LIMIT,
) -> list[Outcome]:
    """Rehearse the training that a file describes, and print a table while it goes on.

    Args:
        script: a file that calls ``train()``, or one that only defines a trainer or callbacks.
        options: texts by name; they win over those of the call. A file that never calls ``train()`` needs ``model``
            and ``data``.
        arguments: command line of the file.
        trainer: name of the trainer's class, where a file defines several and never calls ``train()``.
        imgsz: side of the images in px, except in the last stage, which takes the real one.
        limit: seconds after which a stage is given up.

    Returns:
        One outcome for each stage.

    Raises:
        FileNotFoundError: no such file.
    """
    script = Path(script).resolve()
    if not script.is_file():
        raise FileNotFoundError(f"there is no file {script} to rehearse.")
    began = time.monotonic()
    print_heading(script)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="eyas-rehearsal-", ignore_cleanup_errors=True) as name:
        task: dict[str, object] = {"script": str(script), "arguments": list(arguments), "options": dict(options or {})}
        task |= {"trainer": trainer, "imgsz": imgsz}
        for outcome in run_parts(Path(name).resolve(), task, limit):
            print_outcome(outcome)
            outcomes.append(outcome)
    print_verdict(outcomes, time.monotonic() - began)
    return outcomes


def run_parts(folder: Path, task: Mapping[str, object], limit: float) -> Iterator[Outcome]:
    """Run all parts, as far as they make sense, and yield their outcomes."""
    done: dict[str, Outcome] = {}
    for part, stages in STAGES.items():
        why = reason_to_skip(part, folder, done)
        if why:
            found = [Outcome(stage, "skipped", f"because {why}") for stage in stages]
        else:
            with console().status(f"  {stages[0]} ..."):
                found = run_part(part, folder, task, limit)
        for outcome in found:
            done[outcome.stage] = outcome
            yield outcome


def reason_to_skip(part: str, folder: Path, done: Mapping[str, Outcome]) -> str:
    """Return why a part cannot be tried, empty if it can."""
    if part != "straight" and not (folder / "sample.json").exists():
        return "train() was never reached"
    if part == "killed" and not (folder / "straight-snapshot.json").exists():
        return "one process does not get to its second epoch"
    if part in ("resumed", "load") and not (folder / "answer.pt").exists():
        return "one process does not get to its end"
    if part == "resumed" and done["kill"].status != "ok":
        return "there is no killed run that went like the other"
    return ""


def run_part(part: str, folder: Path, task: Mapping[str, object], limit: float) -> list[Outcome]:
    """Run one part in an interpreter of its own and return its outcomes, whatever becomes of it."""
    began = time.monotonic()
    deadline = time.time() + limit - WRITE_FIRST
    (folder / "task.json").write_text(json.dumps({**task, "folder": "", "deadline": deadline}), encoding="utf-8")
    log = folder / f"{part}.log"
    ended = run_interpreter(part, folder, log, limit)
    found = read_outcomes(folder / f"{part}.json") if ended is not None else []
    if not found:
        was_killed = ended == -signal.SIGKILL and (folder / "killed-snapshot.json").exists() and part == "killed"
        found = [killed(folder) if was_killed else without_report(part, folder, log, ended, limit)]
    missing = STAGES[part][len(found) :]
    found += [Outcome(stage, "skipped", f"because {STAGES[part][0]} failed") for stage in missing]
    rest = sum(outcome.seconds for outcome in found[1:])
    return [replace(found[0], seconds=time.monotonic() - began - rest), *found[1:]]


def run_interpreter(part: str, folder: Path, log: Path, limit: float) -> int | None:
    """Run a part and return its exit code, None if its time was over."""
    process = start_interpreter(part, folder, log)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)


def start_interpreter(part: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a part in an interpreter and a session of its own; what it prints goes into a file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "eyas.rehearsal", part, str(folder)],
            cwd=elsewhere(folder) if part == "load" else None,
            env=environment(part),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part that is still there: asked twice, so that it ends its own processes, then by force."""
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def environment(part: str) -> dict[str, str]:
    """Return the variables of a part: this library can be found, and small networks get one thread."""
    values = dict(os.environ)
    root = str(Path(__file__).parents[2])
    before = "" if part == "load" else values.get("PYTHONPATH", "")  # the user's own folders may be in it
    values["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before)))
    if part not in REAL:
        values.setdefault("OMP_NUM_THREADS", "1")
    return values


def elsewhere(folder: Path) -> Path:
    """Return an empty folder that knows nothing of the user's file."""
    path = folder / "elsewhere"
    path.mkdir(exist_ok=True)
    return path


# -- parts that leave no report ----------------------------------------------------------------------------------------
def killed(folder: Path) -> Outcome:
    """Return what came of the run that was to be killed, now that it is."""
    last = folder / "killed" / "weights" / "last.pt"
    if not last.exists():
        return Outcome("kill", "FAILED", message="No last.pt was there when the second epoch was interrupted.")
    straight, other = (Snapshot.read(folder / f"{run}-snapshot.json") for run in ("straight", "killed"))
    if straight.weights == other.weights:
        return Outcome("kill", "ok", "killed by SIGKILL in epoch 2; until then it went as the first run did")
    why, place = explain(straight, other)
    message = f"Trained twice with the same seed, the first epoch ends with other weights. {why}"
    return Outcome("kill", "FAILED", message=message, place=place)


def without_report(part: str, folder: Path, log: Path, ended: int | None, limit: float) -> Outcome:
    """Return the outcome of a part that left none."""
    stage = STAGES[part][0]
    if ended is None:
        place = hanging(part, folder)
        message = f"It did not end within {limit:.0f} s{'; it stood at this line' if place else ''}."
        return Outcome(stage, "FAILED", message=message, place=place)
    how = f"was ended by signal {-ended} ({signal.Signals(-ended).name})" if ended < 0 else f"ended with code {ended}"
    hint = " Memory may have run out: try a smaller batch or imgsz." if ended == -signal.SIGKILL else ""
    return Outcome(stage, "FAILED", message=f"Its process {how} without a report.{hint}\n{last_lines(log)}".rstrip())


def last_lines(log: Path) -> str:
    """Return the end of what a part printed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])


def hanging(part: str, folder: Path) -> Place | None:
    """Return the line of the user's at which a part stood when its time was over."""
    for path in sorted(folder.glob(f"hang-{part}*.txt")):
        place = blame.place_in(path.read_text(errors="replace"), innermost_first=True)
        if place is not None:
            return place
    return None
