"""Fuzzed checkpoints: those of `hostile`, and those of small runs and of the incumbent, changed at random."""

from __future__ import annotations

import copy
import math
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

import hostile
import small_yolo
from dresser import Dresser
from eyas.api import YOLO
from eyas.checkpoint import load_checkpoint
from eyas.config import TrainOptions
from eyas.data.digits import ensure_digits
from eyas.families import family_of
from eyas.models import build_detector, model_table
from fuzzing import BYTES, ODD, Case, cut, flip, inside, places, put, remove, shift, swap, swap_number

TENSORS = (lambda: torch.zeros(()), lambda: torch.zeros(3), lambda: torch.full((2, 2), torch.nan))
RESUMED = 3  # one in how many last.pt is resumed, not opened
RTDETR: dict[str, Any] = {
    "nc": 10,
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16, 16, 16)],
    "head": [[-1, 1, "Conv", [16, 1, 1]], [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 2, 32]]],
}


# -- sound files -------------------------------------------------------------------------------------------------------
def trained(table: dict[str, Any], folder: Path) -> Path:
    """Return the folder of the weights of a small run."""
    folder.mkdir()
    model = folder / "model.yaml"
    model.write_text(yaml.safe_dump({**table, "nc": 10}))
    options: dict[str, Any] = {
        "data": str(ensure_digits("tiny")),
        "imgsz": 64,
        "batch": 4,
        "epochs": 2,
        "save_period": 1,
        "workers": 0,
    }
    YOLO(model).train(**options, fraction=0.1, plots=False, device="cpu", save_dir=str(folder / "run"), verbose=False)
    return folder / "run" / "weights"


def of_the_incumbent(path: Path) -> Path:
    """Write a file as the incumbent does."""
    dresser, network = Dresser(), build_detector(small_yolo.table(), nc=3, verbose=False)
    dresser.save({"model": dresser.network(network), "train_args": {"imgsz": 96}}, path)
    return path


# -- changes -----------------------------------------------------------------------------------------------------------
def flip_directory(data: bytes, rng: random.Random) -> bytes:
    """Flip bits of what no checksum covers."""
    start = data.index(b"PK\x01\x02")
    return data[:start] + flip(data[start:], rng)


def describe_otherwise(data: bytes, rng: random.Random) -> bytes:
    """Change the description, and its checksum with it."""
    members = hostile.members_of(data)
    description = next(member for member in members if member.name.endswith("/data.pkl"))
    description.data = rng.choice((flip, flip, shift, cut))(description.data, rng)
    return hostile.zipped(members)


LIES = {"crc": 0, "size": 2**31, "packed": 0, "method": 8, "flags": 1, "offset": 7, "name": "archive/../x", "data": b""}


def lie(data: bytes, rng: random.Random) -> bytes:
    """Let one member lie about itself."""
    members = hostile.members_of(data)
    name = rng.choice(list(LIES))
    setattr(rng.choice(members), name, LIES[name])
    return hostile.zipped(members)


def change_tensor(content: Any, rng: random.Random) -> None:
    """Give a tensor another type, shape or value."""
    place = rng.choice([p for p in places(content) if isinstance(inside(content, p), torch.Tensor)])
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
    """Put another number, or an odd value, into the table of layers."""
    swap_number(content["yaml"], rng) if rng.random() < 0.7 else swap(content["yaml"], rng)


ARCHIVE = {"directory flipped": flip_directory, "description changed": describe_otherwise, "lying member": lie}
CONTENT: Mapping[str, Callable[[Any, random.Random], None]] = {
    "entry removed": remove,
    "value swapped": lambda content, rng: swap(content, rng, (*ODD, *TENSORS)),
    "tensor changed": change_tensor,
    "table changed": change_table,
}


# -- use ---------------------------------------------------------------------------------------------------------------
def open_and_predict(path: Path) -> None:
    """Do with a file what people do."""
    yolo = YOLO(path)
    yolo.remembered("val")
    yolo.white  # noqa: B018
    repr(yolo)
    with torch.no_grad():
        yolo.model.predict(torch.zeros(1, 3, 64, 64))


def resume(path: Path) -> None:
    """Set up the rest of a run."""
    family = family_of(model_table(load_checkpoint(path)["yaml"]))
    trainer = family.trainer(overrides=TrainOptions(resume=str(path), verbose=False))
    with trainer.prepared():
        trainer.loss_names  # noqa: B018


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


class Checkpoints:
    """Files of weights and of whole runs; bytes that are changed must be noticed, or not have mattered."""

    def __init__(self, folder: Path) -> None:
        yolo, rtdetr = trained(small_yolo.table(), folder / "yolo"), trained(RTDETR, folder / "rtdetr")
        self.files = {
            "best": yolo / "best.pt",
            "last": yolo / "epoch1.pt",
            "rtdetr last": rtdetr / "epoch1.pt",
            "incumbent": of_the_incumbent(folder / "theirs.pt"),
        }
        self.read = {name: load_checkpoint(path) for name, path in self.files.items()}
        self.raw = {name: torch.load(p, weights_only=True) for name, p in self.files.items() if name != "incumbent"}
        self.path = folder / "case" / "weights" / "last.pt"
        self.put(self.files["last"].read_bytes())
        resume(self.path)  # or what is changed would be refused for another reason

    def case(self, rng: random.Random) -> Case:
        """Return a changed file; every third run that is changed in its content is resumed, not opened."""
        change = rng.choice((*BYTES, *ARCHIVE, *CONTENT, "crafted"))
        name = rng.choice(list(self.raw if change in CONTENT else self.files))
        self.put(self.made(change, name, rng))
        if change in CONTENT and name.endswith("last") and rng.randrange(RESUMED) == 0:
            return Case(f"{change}, resumed", lambda: resume(self.path), "")  # data that is gone may be to blame
        return Case(change, lambda: self.use(change in BYTES, name), str(self.path))

    def put(self, data: bytes) -> None:
        """Write a file where runs keep theirs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.files["best"], self.path.with_name("best.pt"))
        self.path.write_bytes(data)

    def made(self, change: str, name: str, rng: random.Random) -> bytes:
        """Return the bytes of a changed file."""
        if change == "crafted":
            return rng.choice(list(hostile.ATTACKS.values()))[0](self.files["best"])
        if change not in CONTENT:
            return {**BYTES, **ARCHIVE}[change](self.files[name].read_bytes(), rng)
        content = copy.deepcopy(self.raw[name])
        for _ in range(rng.choice((1, 1, 3))):
            CONTENT[change](content, rng)
        return hostile.saved(content)

    def use(self, unsealed: bool, name: str) -> None:
        """Open a file and predict; what has the old checksums must be what it was."""
        open_and_predict(self.path)
        if unsealed:
            assert same(load_checkpoint(self.path), self.read[name]), "it was opened, and is another"
