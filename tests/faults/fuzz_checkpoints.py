"""Checkpoints changed at random: whatever was changed, a file is opened or refused in one clear line, and soon.

    PYTHONPATH=tests/helpers python tests/faults/fuzz_checkpoints.py --cases 3000 --seed 1

Small runs are trained, a file of the incumbent is made up, and each case is one of those files, changed. It is opened,
predicts once, and is resumed if it can be (``--resumed``: one in how many). Bytes that are not noticed must not have
mattered. Prints how each kind of change fared, and every case that went wrong; the exit code is 1 if one did.
"""

from __future__ import annotations

import argparse
import copy
import io
import logging
import math
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

import hostile
import small_yolo
from dresser import Dresser
from eyas.api import YOLO
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.config import TrainOptions
from eyas.data.digits import ensure_digits
from eyas.families import family_of
from eyas.models import build_detector, model_table

SECONDS = 10  # that a case may take
MEMORY = 2 * 2**30  # bytes that the process may grow by
ODD: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, -1e300)),
    *(lambda value=value: value for value in (math.nan, math.inf, "", "x", "\ud800", "../x", "9" * 1000, b"x")),
    *(lambda value=value: value for value in ((), (1, 2), "\x1b[2J", "\n" * 50)),
    *(list, dict, lambda: [[[[]]]], lambda: {"a": {"b": 1}}, lambda: [1] * 1000, hostile.laughs),
    *(lambda: torch.zeros(()), lambda: torch.zeros(3), lambda: torch.full((2, 2), torch.nan)),
)


# -- sound files -------------------------------------------------------------------------------------------------------
def trained(model: Path, folder: Path) -> Path:
    """Return the last.pt of a small run."""
    options = {"data": str(ensure_digits("tiny")), "imgsz": 64, "batch": 4, "epochs": 2, "fraction": 0.1, "workers": 0}
    YOLO(model).train(**options, plots=False, device="cpu", save_dir=str(folder), verbose=False)
    return folder / "weights" / "last.pt"


def sound_files(folder: Path) -> dict[str, Path]:
    """Make the files that are changed."""
    tables = {"yolo26": small_yolo.table(), "rtdetr": model_table("rtdetr-tiny")}
    files = {}
    for name, table in tables.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**table, "nc": 10}))
        files[f"{name} last"] = trained(path, folder / name)
    files["yolo26 best"] = folder / "yolo26" / "weights" / "best.pt"
    dresser, theirs = Dresser(), build_detector(tables["yolo26"], nc=3, verbose=False)
    dresser.save({"model": dresser.network(theirs), "train_args": {"imgsz": 96}}, folder / "theirs.pt")
    return {**files, "incumbent": folder / "theirs.pt"}


# -- changes -----------------------------------------------------------------------------------------------------------
def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_at_the_end(data: bytes, rng: random.Random) -> bytes:
    """Flip in what is not covered by a checksum: the directory."""
    start = data.index(b"PK\x01\x02")
    return data[:start] + flip_bytes(data[start:], rng)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def shift(data: bytes, rng: random.Random) -> bytes:
    """Take a piece out, put one in, or put one over another."""
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 64, 4096))
    piece = rng.randbytes(length) if rng.random() < 0.5 else data[rng.randrange(len(data)) :][:length]
    return data[:at] + rng.choice((b"", piece)) + data[at + rng.choice((0, length)) :]


def describe_otherwise(data: bytes, rng: random.Random) -> bytes:
    """Change the description, and its checksum with it."""
    members = hostile.members_of(data)
    description = next(member for member in members if member.name.endswith("/data.pkl"))
    description.data = rng.choice((flip_bytes, flip_bytes, shift, cut))(description.data, rng)
    return hostile.zipped(members)


def lie(data: bytes, rng: random.Random) -> bytes:
    """Let one member lie about itself."""
    members = hostile.members_of(data)
    member = rng.choice(members)
    lies = {
        "crc": 0,
        "size": 2**31,
        "packed": 0,
        "method": 8,
        "flags": 1,
        "offset": 7,
        "name": "archive/../x",
        "data": b"",
    }
    name = rng.choice(list(lies))
    setattr(member, name, lies[name])
    return hostile.zipped(members)


def remove(content: Any, rng: random.Random) -> None:
    """Take an entry out, wherever in it."""
    *path, key = rng.choice(list(hostile.places(content)))
    outer = inside(content, path)
    if isinstance(outer, tuple):
        put(content, path, outer[:key] + outer[key + 1 :])
    else:
        del outer[key]


def swap(content: Any, rng: random.Random) -> None:
    """Put an odd value, or one from elsewhere, in the place of another."""
    places = list(hostile.places(content))
    shallow = [place for place in places if len(place) <= 2 or place[0] not in ("model", "state")]
    place = rng.choice(shallow if rng.random() < 0.5 else places)
    value = rng.choice(ODD)() if rng.random() < 0.8 else copy.deepcopy(inside(content, rng.choice(shallow)))
    put(content, place, value)


def change_tensor(content: Any, rng: random.Random) -> None:
    """Give a tensor another type, shape or value."""
    tensors = [place for place in hostile.places(content) if isinstance(inside(content, place), torch.Tensor)]
    place = rng.choice(tensors)
    tensor = inside(content, place)
    changes: tuple[Callable[[], Any], ...] = (
        lambda: tensor.to(rng.choice((torch.int8, torch.float64, torch.complex64, torch.bool, torch.bfloat16))),
        lambda: tensor.float() * rng.choice((math.nan, math.inf, 0.0)),
        lambda: tensor.flatten()[: rng.randrange(tensor.numel() + 1)],
        lambda: tensor[None].expand(rng.choice((0, 1, 2, 10**6)), *tensor.shape),
        lambda: torch.zeros(1).expand(10**5, 10**5),
        lambda: tensor.T if tensor.ndim == 2 else tensor[None],
    )
    put(content, place, rng.choice(changes)())


def change_table(content: Any, rng: random.Random) -> None:
    """Put another number or an odd value into the table of layers."""
    places = list(hostile.places(content["yaml"]))
    place = rng.choice(places)
    numbers = (0, -1, 2, 7, 64, 1000, 10**5, 10**9, 10**30, 0.1, 1e9, math.nan)
    value = rng.choice(numbers) if rng.random() < 0.7 else rng.choice(ODD)()
    put(content, ("yaml", *place), value)


def inside(value: Any, path: Any) -> Any:
    for key in path:
        value = value[key]
    return value


def put(content: Any, place: Any, value: Any) -> None:
    """Put a value in a place; tuples on the way are made anew."""
    *path, key = place
    outer = inside(content, path)
    if isinstance(outer, tuple):
        put(content, path, (*outer[:key], value, *outer[key + 1 :]))
    else:
        outer[key] = value


BYTES = {"flipped": flip_bytes, "directory flipped": flip_at_the_end, "cut off": cut, "shifted": shift}
ARCHIVE = {"description changed": describe_otherwise, "lying member": lie}
CONTENT = {
    "entry removed": remove,
    "value swapped": swap,
    "tensor changed": change_tensor,
    "table changed": change_table,
}


# -- cases -------------------------------------------------------------------------------------------------------------
@dataclass
class Tally:
    """How a kind of change fared."""

    fates: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise ``TimeoutError`` in a block that takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, type by type and bit by bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride()
        return alike and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


def use(path: Path) -> None:
    """Do with a file what people do."""
    yolo = YOLO(path)
    yolo.remembered("val")
    yolo.white  # noqa: B018
    repr(yolo)
    with torch.no_grad():
        yolo.model.predict(torch.zeros(1, 3, 64, 64))


def resume(path: Path) -> None:
    """Set up the rest of the run."""
    family = family_of(model_table(load_checkpoint(path)["yaml"]))
    trainer = family.trainer(overrides=TrainOptions(resume=str(path), verbose=False))
    with trainer.prepared():
        trainer.loss_names  # noqa: B018


def clear(error: ValueError, path: Path) -> bool:
    """Whether an error is one line or a few, and says which file is wrong."""
    return str(path) in str(error) and len(str(error)) < 2000


class Fuzz:
    """Cases, one after the other."""

    def __init__(self, folder: Path, seed: int, resumed: int) -> None:
        self.files = sound_files(folder)
        self.content = {name: load_checkpoint(path) for name, path in self.files.items()}
        self.raw = {name: torch.load(p, weights_only=True) for name, p in self.files.items() if name != "incumbent"}
        self.folder, self.seed, self.resumed = folder, seed, resumed
        self.tallies: dict[str, Tally] = {name: Tally() for name in (*BYTES, *ARCHIVE, *CONTENT, "resumed")}
        self.wrong: list[str] = []

    def run(self, number: int) -> None:
        """Make, open and judge one case."""
        rng = random.Random(f"{self.seed} {number}")
        kind = rng.choice((*BYTES, *ARCHIVE, *CONTENT))
        name = rng.choice(list(self.raw if kind in CONTENT else self.files))
        run = self.folder / "case"
        path = run / "weights" / "last.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.files["yolo26 best"], path.with_name("best.pt"))
        path.write_bytes(self.made(kind, name, rng))
        opened = self.judge(f"{number}: {name}, {kind}", kind, path, use)
        if opened and kind in BYTES and not same(load_checkpoint(path), self.content[name]):
            self.wrong.append(f"{number}: {name}, {kind}: opened, and is another")
        if opened and kind in CONTENT and name.endswith("last") and number % self.resumed == 0:
            self.judge(f"{number}: {name}, {kind}, resumed", "resumed", path, resume)

    def made(self, kind: str, name: str, rng: random.Random) -> bytes:
        """Return the bytes of a case."""
        if kind not in CONTENT:
            return (BYTES | ARCHIVE)[kind](self.files[name].read_bytes(), rng)
        content = copy.deepcopy(self.raw[name])
        for _ in range(rng.choice((1, 1, 3))):
            CONTENT[kind](content, rng)
        return hostile.saved(content)

    def judge(self, case: str, kind: str, path: Path, what: Callable[[Path], None]) -> bool:
        """Do something with a file; note how that went, and return whether it was opened."""
        began, fate = time.perf_counter(), "opened"
        try:
            with at_most(SECONDS), redirect_stdout(io.StringIO()):
                what(path)
        except CheckpointError as error:
            fate = "refused" if clear(error, path) else "wrong"
            reason = f"unclear: {error}"
        except (ValueError, FileNotFoundError) as error:  # of a resumed run: data that is gone, other callbacks
            fate = "refused" if kind == "resumed" and len(str(error)) < 2000 else "wrong"
            reason = f"{type(error).__name__}: {error}"
        except Exception as error:  # what this looks for
            fate, reason = "wrong", f"{type(error).__name__}: {error}"
        if fate == "wrong":
            self.wrong.append(f"{case}: {' '.join(reason.split())[:300]}")
        tally = self.tallies[kind]
        tally.fates[fate] += 1
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
        return fate == "opened"

    def table(self) -> str:
        """Return how all kinds fared."""
        lines = [f"{'change':22}{'cases':>7}{'opened':>8}{'refused':>9}{'wrong':>7}{'slowest':>10}"]
        for kind, tally in self.tallies.items():
            fates = "".join(
                f"{tally.fates[fate]:>{width}}" for fate, width in (("opened", 8), ("refused", 9), ("wrong", 7))
            )
            lines.append(f"{kind:22}{sum(tally.fates.values()):>7}{fates}{tally.slowest:>9.1f}s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        return "\n".join([*lines, f"largest memory: {peak:.0f} MiB"])


def main(arguments: list[str] | None = None) -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--resumed", type=int, default=3, help="one in how many is resumed too")
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), asked.seed, asked.resumed)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        current = Path(folder) / "current"
        for number in range(asked.first, asked.first + asked.cases):
            current.write_text(str(number))
            fuzz.run(number)
    print(fuzz.table())
    print("\n".join(fuzz.wrong) or "nothing went wrong")
    return 1 if fuzz.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
