"""Input changed at random: whatever was changed, it is taken or refused in one clear line, soon, and in little memory.

    PYTHONPATH=tests/helpers python tests/faults/fuzz.py --cases 1000 --seed 1 --only checkpoints

Case ``n`` of a kind is the same for a seed wherever it is run, so that ``--first n --cases 1`` runs it again. Cases run
in a child process, which may crash or hang without harm. Prints how each kind of change fared, and what went wrong; the
exit code is 1 if anything did. Another kind of input is a class as `fuzzing.Kind` says, and a line in `KINDS`.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from fuzz_checkpoints import Checkpoints
from fuzz_commands import CommandLines
from fuzz_data import Images, Labels, SpecialFiles
from fuzz_yaml import DataSets, Options, Tables
from fuzzing import Case, Kind

KINDS: Mapping[str, type[Kind]] = {
    "checkpoints": Checkpoints,
    "tables": Tables,
    "data": DataSets,
    "options": Options,
    "labels": Labels,
    "images": Images,
    "special": SpecialFiles,
    "commands": CommandLines,
}
SECONDS = 20  # of processor time that a case may take
MEMORY = 2 * 2**30  # bytes that a child may grow by
LONGEST = 2000  # letters of a refusal
FATES = ("taken", "refused", "wrong")


class Verdict(NamedTuple):
    """How a case fared."""

    number: int
    change: str
    fate: str
    seconds: float
    reason: str = ""


# -- in the child ------------------------------------------------------------------------------------------------------
def work(kind: Kind, seed: int, numbers: list[int], parent: Connection) -> None:
    """Judge cases; tell of each before it is run, and how it fared."""
    logging.disable(logging.CRITICAL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    for number in numbers:
        case = kind.case(random.Random(f"{seed} {number}"))
        parent.send(Verdict(number, case.change, "wrong", 0.0, "the process ended"))
        began = time.process_time()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            fate, reason = judged(case)
        parent.send(Verdict(number, case.change, fate, time.process_time() - began, reason))


def judged(case: Case) -> tuple[str, str]:
    """Use an input; return its fate, and why."""
    try:
        case.use()
    except (ValueError, FileNotFoundError) as error:
        clear = case.names in str(error) and len(str(error)) < LONGEST
        return ("refused", "") if clear else ("wrong", f"unclear: {type(error).__name__}: {error}")
    except BaseException as error:  # what this looks for
        return "wrong", f"{type(error).__name__}: {error}"
    return "taken", ""


# -- in the parent -----------------------------------------------------------------------------------------------------
def verdicts(kind: Kind, seed: int, numbers: list[int]) -> Iterator[Verdict]:
    """Yield how cases fared, in a child that is replaced when it ends or hangs."""
    fork = multiprocessing.get_context("fork")
    while numbers:
        here, there = fork.Pipe(duplex=False)
        child = fork.Process(target=work, args=(kind, seed, numbers, there))
        child.start()
        there.close()
        current = None
        try:
            while numbers:
                current = Verdict(numbers[0], "", "wrong", 0.0, "it could not be made") if current is None else current
                if not here.poll(5 * SECONDS):
                    current = current._replace(seconds=5.0 * SECONDS, reason="it hangs")
                    break
                told = here.recv()
                current = told if told.reason == "the process ended" else None
                if current is None:
                    yield told
                    numbers = numbers[1:]
        except EOFError:
            pass
        child.kill()
        child.join()
        if current is not None:
            yield current
            numbers = numbers[1:]


@dataclass
class Tally:
    """How a kind of change fared."""

    fates: Counter[str] = field(default_factory=Counter)
    slowest: Verdict | None = None
    wrong: list[Verdict] = field(default_factory=list)

    def count(self, verdict: Verdict) -> None:
        """Count a case; a refusal, or its lack, that took too long is wrong too."""
        if verdict.fate != "wrong" and verdict.seconds > SECONDS:
            verdict = verdict._replace(fate="wrong", reason=f"it took {verdict.seconds:.0f} s")
        self.fates[verdict.fate] += 1
        if self.slowest is None or verdict.seconds > self.slowest.seconds:
            self.slowest = verdict
        if verdict.fate == "wrong":
            self.wrong.append(verdict)

    def row(self) -> str:
        """Return cases, fates, and the slowest with its number."""
        counts = "".join(f"{self.fates[fate]:>9}" for fate in FATES)
        slowest = f"{self.slowest.seconds:.1f} s (case {self.slowest.number})" if self.slowest else ""
        return f"{self.fates.total():>7}{counts}   {slowest}"


def main(arguments: list[str] | None = None) -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            (home := Path(folder) / name).mkdir()
            with redirect_stdout(io.StringIO()):
                kind = KINDS[name](home)
            tallies: dict[str, Tally] = {}
            for verdict in verdicts(kind, asked.seed, list(range(asked.first, asked.first + asked.cases))):
                tallies.setdefault(verdict.change, Tally()).count(verdict)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
            print(f"\n{name:30}{'cases':>7}{''.join(f'{fate:>9}' for fate in FATES)}   slowest")
            for change in sorted(tallies):
                print(f"  {change:28}{tallies[change].row()}")
            print(f"  largest memory so far: {peak:.0f} MiB")
            found = [case for tally in tallies.values() for case in tally.wrong]
            for case in sorted(found):
                print(f"  WRONG {case.number}, {case.change}: {' '.join(case.reason.split())[:300]}")
            sys.stdout.flush()
            wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
