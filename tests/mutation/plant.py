"""Plant small faults one at a time and see whether the tests notice. Run by hand, from anywhere:

    python tests/mutation/plant.py [--only PATTERN] [--jobs N] [--timeout SECONDS]

Every ``tests/mutation/*.toml`` lists faults:

    [[mutant]]
    file = "optim/schedules.py"                        # below src/eyas
    old = "exact text, which occurs once in the file"
    new = "the faulty text"
    loses = "what a user would lose"
    tests = ["tests/unit/optim/test_schedules.py"]     # narrow tests that must fail; `path::test` may be given

Each is applied to a copy of ``src`` outside the repository, and its tests run on that copy. A failure or a hang means
caught; passing tests mean unseen; an old text that is not found exactly once, or a test that is not found, means stale.
The tests run first on the untouched copy, since a test that fails anyway would catch everything.

``--only`` keeps the faults whose list, file or loss contains the pattern. Exits with 1 if any is unseen or stale.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS_FAILED, INTERRUPTED, PASSED = 1, 2, 0  # exit codes of pytest; 2 is also a module that cannot be imported


@dataclass(frozen=True)
class Mutant:
    """One fault of a list; `package` is the name of the list."""

    package: str
    file: str
    old: str
    new: str
    loses: str
    tests: tuple[str, ...]

    def occurrences(self, src: Path) -> int:
        """How often the old text is in its file below the folder `src`; 0 without such a file."""
        path = src / "eyas" / self.file
        return path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0


def load(folder: Path = HERE) -> list[Mutant]:
    """All faults of all lists, in the order of the files and of their lines."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []):
            found.append(Mutant(path.stem, **{**entry, "tests": tuple(entry["tests"])}))
    return found


def run_tests(src: Path, tests: list[str], timeout: float) -> int | None:
    """Exit code of pytest over `tests` with the package from `src`; None if it did not end in time."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(src), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        return done.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if done.returncode is None:
            os.killpg(done.pid, 9)  # with what the tests started
            done.wait()


def plant(mutant: Mutant, src: Path, timeout: float) -> str:
    """Apply one fault to the copy `src`, run its tests, take it back; returns caught, unseen or stale."""
    if mutant.occurrences(src) != 1:
        return "stale"
    path = src / "eyas" / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)
    try:
        code = run_tests(src, list(mutant.tests), timeout)
    finally:
        path.write_text(whole, encoding="utf-8")
    if code in (None, TESTS_FAILED, INTERRUPTED) or code < 0:  # hung; failed; ended by a signal
        return "caught"
    return "unseen" if code == PASSED else "stale"


def plant_all(mutants: list[Mutant], jobs: int, timeout: float) -> Counter[str]:
    """Plant every fault, `jobs` at a time, each job in its own copy; prints a row each."""
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            copies.put(shutil.copytree(ROOT / "src", Path(folder) / str(job)))

        def one(mutant: Mutant) -> str:
            src = copies.get()
            try:
                return plant(mutant, src, timeout)
            finally:
                copies.put(src)

        if mutants and run_tests(ROOT / "src", sorted({t for m in mutants for t in m.tests}), len(mutants) * timeout):
            raise SystemExit("the tests fail without any fault: run them first")
        for mutant, verdict in zip(mutants, pool.map(one, mutants), strict=True):
            count[verdict] += 1
            print(f"{verdict:8}{mutant.package:12}{mutant.file:36}{mutant.loses}", flush=True)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant small faults and see whether the tests notice.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="text in the list's name, the file or the loss")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="faults planted at the same time")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for the tests of one fault")
    args = parser.parse_args()
    mutants = [m for m in load() if args.only in f"{m.package} {m.file} {m.loses}"]
    count = plant_all(mutants, max(args.jobs, 1), args.timeout)
    print(f"{count.total()} faults: " + ", ".join(f"{count[v]} {v}" for v in ("caught", "unseen", "stale")))
    return 1 if count["unseen"] or count["stale"] or not mutants else 0


if __name__ == "__main__":
    sys.exit(main())
