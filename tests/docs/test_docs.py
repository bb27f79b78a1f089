"""The documentation is executed: every block of code of every page, every example, and what the pages say of files.

A page is a story: its ``python`` blocks share one namespace and its ``eyas ...`` shell lines run between them, in
order, in a temporary folder. A block below ``<!-- not run: reason -->`` is only checked: Python must compile, options
must exist. A shell line may end in ``# exits 2`` to say which exit code it gives.

All is run as it is written, with three exceptions that keep it to minutes. Except in the quickstart, ``yolo26n`` has
nine rows, and trainings draw no pictures; of those in several processes on a page the first has them, which are forked.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from eyas.callbacks import ADJUSTERS, EVENTS, base
from eyas.cli import main, parse_pairs
from eyas.config import TrainOptions, resolve
from eyas.models import build_detector, catalog
from eyas.models.catalog import MODELS
from eyas.models.rtdetr.published import PUBLISHED
from eyas.train import BaseTrainer
from eyas.train.venue import Venue, hosted_by
from forked import forked_interpreters

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
QUICKSTART = ROOT / "docs" / "quickstart.md"
SHELLS = ("sh", "bash", "shell")
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is the 1-based line of its first row of code."""

    page: Path
    line: int
    language: str
    code: str
    run: bool


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found: list[Block] = []
    marker = fence = ""
    start, rows = 0, list[str]()
    for number, row in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not fence and row.startswith("```"):
            fence, start, rows = row.removeprefix("```").strip() or "text", number + 1, []
        elif fence and row.startswith("```"):
            found.append(Block(page, start, fence, "\n".join(rows), NOT_RUN.fullmatch(marker) is None))
            fence = marker = ""
        elif fence:
            rows.append(row)
        elif row.strip():
            marker = row.strip()
    assert not fence, f"{page}:{start}: the block is never closed"
    return found


def run_page(page: Path, folder: Path) -> dict[str, Any]:
    """Execute a page in `folder`; returns the names that its Python blocks left behind."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for block in blocks_of(page):
            if block.language == "python":
                code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
                if block.run:
                    exec(code, namespace)
            elif block.language in SHELLS:
                run_shell(block)
    return namespace


def run_shell(block: Block) -> None:
    """Run the lines of a shell block that call Eyas, or only check their options."""
    for number, line in enumerate(block.code.splitlines(), block.line):
        if not line.startswith("eyas "):
            continue
        arguments = shlex.split(line, comments=True)[1:]
        if block.run:
            stated = re.search(r"# exits (\d+)", line)
            assert main(arguments) == (int(stated[1]) if stated else 0), f"{block.page}:{number}: {line}"
        else:
            check_command_line(arguments)


def check_command_line(arguments: list[str]) -> None:
    """Raise for a command or an option that does not exist."""
    command, *rest = arguments
    assert command in ("train", "val", "predict", "track"), f"`eyas {command}` is cheap enough to be run"
    pairs = parse_pairs(rest)
    pairs.pop("source", None)
    pairs.pop("cfg", None)  # a file that the reader has and we have not
    resolve(cli=pairs, command=command)


class Smaller(Venue[BaseTrainer]):
    """Draws nothing, gives processes that are started the network of a file, and starts them for few trainings only.

    Args:
        model: what ``yolo26n`` is for them; a name that only this process knows would not do.
        launches: how many trainings may have several processes; later ones find out that one is enough.
    """

    def __init__(self, model: Path, launches: int) -> None:
        self.model, self.launches = model, launches

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        given.plots = False
        if (given.processes or 1) > 1:
            given.model = str(self.model) if given.model == "yolo26n" else given.model
            given.processes = given.processes if self.launches else 1
            self.launches = max(self.launches - 1, 0)
        return given


@contextlib.contextmanager
def smaller(model: Path, launches: int) -> Iterator[None]:
    """Let ``yolo26n`` have fewer layers, and few trainings several processes."""
    table = yaml.safe_load(model.read_text())
    with pytest.MonkeyPatch.context() as patch, hosted_by(Smaller(model, launches)), forked_interpreters():
        patch.setitem(catalog._tables, "yolo26n", lambda: copy.deepcopy(table))
        yield


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, own_cache: Path, short_model: Path) -> Any:
    """Return a function that executes a page once and gives its folder and names."""

    @functools.cache
    def execute(page: Path) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp(page.stem)
        with contextlib.nullcontext() if page == QUICKSTART else smaller(short_model, launches=1):
            return folder, run_page(page, folder)

    return execute


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs(executed: Any, page: Path) -> None:
    executed(page)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_runs(example: Path, tmp_path: Path, own_cache: Path, short_model: Path) -> None:
    with contextlib.chdir(tmp_path), smaller(short_model, launches=2):
        runpy.run_path(str(example), run_name="__main__")


def test_there_is_something_to_test() -> None:
    assert {page.stem for page in PAGES} >= {"README", "quickstart", "trainer", "rtdetr", "cli", "data", "options"}
    assert {example.name for example in EXAMPLES} >= {"own_metric.py", "two_learning_rates.py"}
    for name in ("docs/needs/metrics.md", "docs/quickstart.md", "docs/trainer.md", "docs/rtdetr.md"):
        assert sum(block.run and block.language == "python" for block in blocks_of(ROOT / name)) >= 3, name


# -- a page that is wrong is found -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "```python\nfrom eyas import YOLOO\n```",
        "```python\nvalue = 1\n```\n\n```python\nassert value == 2\n```",
        "<!-- not run: only compiled -->\n```python\nfor\n```",
        "```sh\neyas explain epochz\n```",
        "```sh\neyas explain epochs  # exits 2\n```",
        "<!-- not run: only checked -->\n```sh\neyas train model=yolo26n data=my.yaml epochz=3\n```",
        "```python\nvalue = 1\n",
    ],
)
def test_a_broken_page_fails(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, AttributeError, ImportError, SyntaxError, ValueError)):
        run_page(page, tmp_path)


def test_an_error_points_to_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nvalue = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page, tmp_path)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 5)


# -- what the pages state ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_the_drawing_of_the_loop_is_the_one_in_the_code() -> None:
    drawn = next(block.code for block in blocks_of(ROOT / "docs" / "trainer.md") if block.code.startswith("train()"))
    in_code = (base.__doc__ or "").split("::")[1].split("**Methods**")[0]
    assert drawn.split() == in_code.split()
    assert [row.lstrip() for row in drawn.splitlines()] == [row.strip() for row in in_code.strip().splitlines()]


def test_the_trainer_page_names_every_hook() -> None:
    text = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
    rows = "\n".join(row for row in text.splitlines() if row.startswith("| `"))
    missing = [name for name in (*EVENTS, *ADJUSTERS) if f"`{name}`" not in rows]
    assert missing == []


def rows_of_tables(page: Path) -> list[list[str]]:
    """Return the cells of the table rows of a page that begin with a `name`."""
    rows = [row for row in page.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_rtdetr_page_lists_every_model_as_it_is() -> None:
    stated: dict[str, tuple[int, float]] = {}
    for first, *_, count, ratios in rows_of_tables(ROOT / "docs" / "rtdetr.md"):
        if re.fullmatch(r"[\d,]{6,}", count):
            names, shares = re.findall(r"`([^`]+)`", first), [float(text) for text in re.findall(r"[\d.]+", ratios)]
            stated |= {name: (int(count.replace(",", "")), shares[i % len(shares)]) for i, name in enumerate(names)}
    real = {}
    for name in (name for name in MODELS if name.startswith("rtdetr")):
        count = real.get(name.replace("rtdetrv2-", "rtdetr-"), (None,))[0]  # both versions are one network
        if count is None:
            with torch.device("meta"):
                count = sum(p.numel() for p in build_detector(name, verbose=False).parameters())
        real[name] = count, MODELS[name]()["lr_ratio"]
    assert stated == real


def test_the_rtdetr_page_lists_every_published_file() -> None:
    rows = [cells for cells in rows_of_tables(ROOT / "docs" / "rtdetr.md") if "Apache-2.0" in cells]
    for name, model, trained_on, ap, licence in rows:
        entry = PUBLISHED[name.strip("`")]
        assert f"`{entry.model}`" in model, name
        assert (trained_on, ap, licence) == (entry.trained_on, str(entry.ap or ""), entry.licence), name
    assert [row[0].strip("`") for row in rows] == list(PUBLISHED)


def test_the_quickstart_lists_every_file_of_a_run(executed: Any) -> None:
    page = QUICKSTART
    folder, _ = executed(page)
    run = folder / "runs" / "detect" / "train"
    text = page.read_text(encoding="utf-8").split("<!-- files of a run -->")[1].split("\n\n#")[0]
    first_cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    stated = {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    written = {os.path.relpath(file, run).replace(os.sep, "/") for file in run.rglob("*") if file.is_file()}
    assert written - stated == set(), "written, but not in the table"
    assert stated - written == set(), "in the table, but not written"
