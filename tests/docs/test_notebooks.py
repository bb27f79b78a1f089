"""The notebooks of ``examples/`` run, what they show came of the code beside it, and they tell nothing of a machine.

They are run as documentation is: in this process, with a network of nine rows, on the smallest data, for few epochs.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eyas.cli import main
from eyas.config import TrainOptions
from eyas.models import catalog
from eyas.train import BaseTrainer
from eyas.train.venue import Venue, hosted_by
from notebooks import MOST, NOTEBOOKS, codes, digest, read, without_paths

# A path from the root of a machine: `/` and a folder, at the start of a word, or `C:\`. Those of an address, a closing
# tag and `~/.cache` begin with something else.
MACHINE = re.compile(r"(?<![\w.~/<])(?:file://)?/\w[^/<>\s\"]*/[^<\s\"]*|\b[A-Za-z]:\\")
SHELL = re.compile(r"^!(eyas .*)$", re.MULTILINE)


class Shorter(Venue[BaseTrainer]):
    """Trainings of as few epochs as the story needs, of small images."""

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        if not given.resume:
            given.epochs, given.imgsz, given.fraction = min(given.epochs or 2, 5), 64, 0.5
        return given


@contextlib.contextmanager
def shorter(model: Path) -> Iterator[None]:
    table = yaml.safe_load(model.read_text())
    with pytest.MonkeyPatch.context() as patch, hosted_by(Shorter()):
        patch.setitem(catalog._tables, "yolo26n", lambda: table)
        yield


def shell(line: str) -> None:
    """Run a command of a cell; a comment tells its exit code."""
    stated = re.search(r"# exits (\d+)", line)
    assert main(shlex.split(line, comments=True)[1:]) == (int(stated[1]) if stated else 0), line


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_cell_runs(path: Path, tmp_path: Path, own_cache: Path, short_model: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "shell": shell}
    with contextlib.chdir(tmp_path), shorter(short_model):
        for number, code in enumerate(codes(read(path)), 1):
            small = SHELL.sub(lambda found: f"shell({found[1]!r})", code).replace('"digits"', '"digits-tiny"')
            exec(compile(small, f"{path.name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_stored_came_of_the_code_beside_it(path: Path) -> None:
    notebook = read(path)
    said = "python tests/helpers/notebooks.py runs it anew"
    assert notebook["metadata"]["eyas"]["code"] == digest(notebook), said
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), said
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    html = ["".join(output["data"].get("text/html", "")) for output in outputs if "data" in output]
    assert sum("data:image/jpeg" in part for part in html) >= 2 and any("image/svg+xml" in part for part in html)
    assert any("<th>mAP50-95</th>" in part for part in html)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_and_names_no_machine(path: Path) -> None:
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8")).replace("\\n", "\n")
    assert not (found := MACHINE.search(text)), found
    assert path.stat().st_size < MOST


def test_paths_are_replaced_and_changed_code_is_noticed() -> None:
    assert without_paths("in /x/run/a and /x", {"/x/run/": "", "/x": "."}) == "in a and ."
    cache = Path.home() / ".cache/eyas"
    for bad in (f'"{cache}"', f"in {cache}", cache.as_uri(), r"C:\Users"):
        assert MACHINE.search(bad), bad
    assert not MACHINE.search("runs/detect/train ~/.cache/eyas 1/3 img/s </td></tr> https://example.org/home/a")
    cells = [{"cell_type": "code", "source": ["a = 1\n", "b"]}, {"cell_type": "markdown", "source": ["text"]}]
    other = [{"cell_type": "code", "source": ["a = 2\n", "b"]}]
    assert codes({"cells": cells}) == ["a = 1\nb"] and digest({"cells": cells}) != digest({"cells": other})
    assert {path.name for path in NOTEBOOKS} == {"train.ipynb", "your_data.ipynb"}
