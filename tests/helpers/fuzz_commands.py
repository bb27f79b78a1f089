"""Fuzzed command lines: what people mistype is answered by a line and an exit code, never by a traceback."""

from __future__ import annotations

import io
import os
import random
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import yaml

import small_yolo
from eyas.cli import FAILED, INTERRUPTED, OK, USAGE, main
from eyas.data.digits import ensure_digits
from fuzz_checkpoints import trained
from fuzzing import MARKS, Case

ODD = (
    "",
    "x",
    "-1",
    "0",
    "1e999",
    "nan",
    "[",
    "{a: ",
    "~",
    "null",
    "true",
    "*",
    "../..",
    "\x1b[2J",
    "é",
    "\udcff",
    "9" * 500,
    "x" * 5000,
    "[1, 2]",
    "{a: 1}",
    "&a [*a]",
    "!!python/name:os.system",
    "None",
    "a=b",
    "auto",
)
KEYS = ("model", "data", "imgsz", "batch", "epochs", "lr0", "device", "source", "format", "metric", "classes", "conf",
        "workers", "amp", "freeze", "resume", "save_dir", "cfg", "split", "x", "img_sz", "--model", "")  # fmt: skip
FLAGS = ("--help", "-h", "--debug=1", "--version", "help", "--", "-", "=", "==", "train", "best.pt", "a.py", "\0")
COMMANDS = ("plan", "info", "explain", "predict", "val", "best", "runs", "replay", "doctor", "convert")
LONG = ("train", "tune", "profile", "rehearse", "verify-resume", "track", "export")
"""Commands of minutes: what is typed for them is read, and they are not run."""


class CommandLines:
    """Command lines that are changed a little, and run where nothing they do matters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        weights = trained(small_yolo.table(), folder / "trained")
        self.folder.mkdir()
        (self.folder / "best.pt").write_bytes((weights / "best.pt").read_bytes())
        (weights.parent).rename(self.folder / "run")
        (self.folder / "model.yaml").write_text(yaml.safe_dump({**small_yolo.table(), "nc": 10}))
        data = ensure_digits("tiny")
        self.sound = [
            ["plan", "model=model.yaml", f"data={data}", "imgsz=32", "epochs=2", "fraction=0.1", "workers=0"],
            ["info", "best.pt"],
            ["explain", "lr0"],
            ["predict", "model=best.pt", "source=images/missing.png", "imgsz=32", "device=cpu"],
            ["val", "model=best.pt", "data=missing.yaml", "imgsz=32", "device=cpu"],
            ["best", "run", "metric=fitness", "out=chosen.pt"],
            ["runs", "run"],
            ["replay", "run/nan_step_1"],
            ["doctor", "missing.yaml", "imgsz=32"],
            ["convert", "data=missing.yaml", "to=coco", "out=converted"],
            *([name, "model=missing.pt", "data=missing.yaml", "epochs=1"] for name in LONG),
        ]  # fmt: skip

    def case(self, rng: random.Random) -> Case:
        """Return a changed command line."""
        words = list(rng.choice(self.sound))
        change = ""
        for _ in range(rng.choice((1, 1, 2, 4))):
            change = rng.choice(("value", "key", "dropped", "twice", "added", "letters", "flag"))
            at = rng.randrange(1, len(words)) if len(words) > 1 else 0
            key, equals, value = words[at].partition("=")
            if change == "value":
                words[at] = f"{key}={rng.choice(ODD)}" if equals else rng.choice(ODD)
            elif change == "key":
                words[at] = f"{rng.choice(KEYS)}={value}"
            elif change == "dropped" and len(words) > 1:
                del words[at]
            elif change == "twice":
                words.insert(at + 1, words[at])
            elif change == "added":
                words.append(f"{rng.choice(KEYS)}={rng.choice(ODD)}")
            elif change == "letters":
                place = rng.randrange(len(words[at]) + 1)
                words[at] = words[at][:place] + rng.choice(MARKS) + words[at][place + rng.choice((0, 1)) :]
            else:
                words.insert(rng.randrange(len(words) + 1), rng.choice(FLAGS))
        command = words[0] if words and words[0] in (*COMMANDS, *LONG) else "none"
        return Case(f"{command}, {change}", lambda: self.use(words), "")

    def use(self, words: list[str]) -> None:
        """Run it.

        Raises:
            ValueError: it was refused; what was said.
        """
        said, before = io.StringIO(), os.getcwd()
        os.chdir(self.folder)
        try:
            with redirect_stderr(said), redirect_stdout(said):
                code = main(words)
        finally:
            os.chdir(before)
        assert code in (OK, FAILED, USAGE, INTERRUPTED), f"exit code {code} of {words}"
        assert "Traceback" not in said.getvalue(), f"{words}: {said.getvalue()}"
        if code != OK:
            assert said.getvalue().strip(), f"exit code {code} of {words} without a word"
            raise ValueError(said.getvalue())
