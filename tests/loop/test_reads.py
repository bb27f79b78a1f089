"""A command reads each of its files once: checkpoints, tables of layers, descriptions of data and files of options.

A file of options is read whenever options are resolved, so that one read of it means that they were resolved once.
"""

from __future__ import annotations

import builtins
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eyas.api import trainer_from
from eyas.cli import main
from eyas.config import resolve

Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tiny_model: Path, digits_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files that commands are given; the checkpoints are of a run of one epoch."""
    folder = tmp_path_factory.mktemp("reads")
    common = ["imgsz=64", "workers=0", "device=cpu", "plots=false", "verbose=false", "fraction=0.25", "batch=8"]
    typed = [f"model={tiny_model}", f"data={digits_tiny}", "epochs=1", f"save_dir={folder / 'run'}", *common]
    assert main(["train", *typed]) == 0
    weights = folder / "run" / "weights"
    options = folder / "options-of-mine.yaml"
    lines = [f"model={weights / 'best.pt'}", *typed[1:3], *common]
    options.write_text("".join(line.replace("=", ": ") + "\n" for line in lines))
    image = next((digits_tiny.parent / "images" / "val").iterdir())
    return {
        "best": weights / "best.pt",
        "last": weights / "last.pt",
        "table": tiny_model,
        "data": digits_tiny,
        "options": options,
        "image": image,
    }


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each checkpoint and YAML file is opened to be read."""
    counts: Counter[Path] = Counter()
    real: Callable[..., Any] = open

    def counted(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if isinstance(file, str | os.PathLike) and "r" in mode and Path(file).suffix in (".pt", ".yaml"):
            counts[Path(file)] += 1
        return real(file, mode, *rest, **options)

    opened_by_number: Callable[..., int] = os.open

    def counted_too(file: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) == 0 and Path(file).suffix in (".pt", ".yaml"):
            counts[Path(file)] += 1
        return opened_by_number(file, flags, *rest, **options)

    monkeypatch.setattr(os, "open", counted_too)  # as our own readers do
    monkeypatch.setattr(builtins, "open", counted)  # as torch.load does
    monkeypatch.setattr(io, "open", counted)  # as pathlib does
    return counts


PLAN = "data={data} epochs=1 imgsz=64 workers=0 device=cpu batch=8 verbose=false"
COMMANDS = {
    f"plan model={{best}} {PLAN}": {"best", "data"},
    f"plan model={{table}} {PLAN}": {"table", "data"},
    f"plan model={{table}} pretrained={{best}} {PLAN}": {"table", "best", "data"},
    f"train model={{best}} {PLAN} plots=false fraction=0.25": {"best", "data"},
    "train resume={last} epochs=2": {"last", "data"},
    "plan cfg={options}": {"options", "best", "data"},
    "val cfg={options}": {"options", "best", "data"},
    "val model={best} workers=0 device=cpu plots=false": {"best", "data"},
    "predict model={best} source={image} device=cpu": {"best"},
    "info model={best}": {"best"},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_file_is_read_once(
    command: str, files: Files, reads: Counter[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reads.clear()
    assert main(command.format(**files).split()) == 0
    assert {files[name] for name in COMMANDS[command]} <= reads.keys()
    assert set(reads.values()) == {1}, "also of what a training has written itself"


def test_what_is_asked_for_later_wins_over_what_was_read(files: Files) -> None:
    typed = {"model": str(files["best"]), "data": str(files["data"]), "device": "cpu"}
    trainer = trainer_from(resolve(cli=typed))
    trainer.args.pretrained = False
    assert trainer.model_source().weights is None
    trainer = trainer_from(resolve(cli=typed))
    trainer.args.model = str(files["table"])
    assert trainer.model_source().model == str(files["table"])
    assert trainer_from(resolve(cli=typed)).model_source().weights["epoch"] == 0
