"""Trainings in cells of a notebook, in a real kernel: what is shown, what carries over, what Ctrl-C leaves."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eyas

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from nbformat import v4  # noqa: E402  # comes with nbclient

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]
SOURCE = Path(eyas.__file__).parents[1]  # that of the package under test, which may be a copy

DEFINED = """
import os
from pathlib import Path
import psutil
from eyas import Callback, DetectionTrainer, YOLO

def shout(text):
    print(text.upper())

class Mine(DetectionTrainer):
    def optimizer_step(self):
        super().optimizer_step()
        self.epoch_log["mine"] = self.epoch + 0.5

class Watch(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer):
        if os.environ.get("MARK"):
            Path(os.environ["MARK"]).touch()

    def on_fit_epoch_end(self, trainer):
        self.seen.append(trainer.epoch)
        shout(f"epoch {trainer.epoch} is over")

given = dict(data="digits-tiny", imgsz=32, fraction=0.125, batch=4, plots=False, report=False, device="cpu")
watch = Watch()
"""
TRAINED = """
result = YOLO(MODEL).train(trainer=Mine, callbacks=[watch], epochs=3, processes=2, workers=0, **given)
assert watch.seen == [0, 1, 2] and [row["mine"] for row in result.history] == [0.5, 1.5, 2.5]
result
"""
ENDLESS = """
os.environ["MARK"] = "{mark}"
YOLO(MODEL).train(trainer=Mine, callbacks=[Watch()], epochs=10000, val=False, name="{mark}", **{{**given, **{options}}})
"""
CALM = """
from eyas.log import console
assert not console().is_terminal and not console().is_jupyter
"""
LEFT = """
print([process.cmdline() for process in psutil.Process().children(recursive=True)])
"""


class Kernel:
    """A kernel that runs one cell after the other in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        resources = {"metadata": {"path": str(folder)}}
        self.client = nbclient.NotebookClient(v4.new_notebook(), timeout=60, allow_errors=True, resources=resources)

    def run(self, source: str, interrupt_at: str = "") -> list[dict[str, Any]]:
        """Return the outputs of a cell, interrupted when a file of this name is there."""
        cell = v4.new_code_cell(source)
        self.client.nb.cells.append(cell)

        async def execute() -> None:
            running = asyncio.ensure_future(self.client.async_execute_cell(cell, len(self.client.nb.cells) - 1))
            while interrupt_at and not running.done():
                await asyncio.sleep(0.05)
                if (self.folder / interrupt_at).exists():
                    await self.client.km.interrupt_kernel()
                    break
            await running

        asyncio.get_event_loop().run_until_complete(execute())
        return cell.outputs

    def succeed(self, source: str) -> list[dict[str, Any]]:
        """Return the outputs of a cell that must not fail."""
        outputs = self.run(source)
        assert not (errors := [output for output in outputs if output["output_type"] == "error"]), errors
        return outputs


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, own_cache: Path, short_model: Path) -> Iterator[Kernel]:
    from forked import forked_interpreters

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    kernel = Kernel(tmp_path_factory.mktemp("notebook"))
    with pytest.MonkeyPatch.context() as patch, forked_interpreters():
        patch.setenv("PYTHONPATH", str(SOURCE))
        patch.delenv("PYTHONWARNINGS", raising=False)
        kernel.client.create_kernel_manager()
        loop.run_until_complete(kernel.client.async_start_new_kernel())
        loop.run_until_complete(kernel.client.async_start_new_kernel_client())
        assert kernel.client.km.provisioner.pgid != os.getpgid(0), "an interrupt would be ours as well"
        kernel.succeed(f"MODEL = {str(short_model)!r}\n{DEFINED}")
        yield kernel
        loop.run_until_complete(kernel.client._async_cleanup_kernel())
    asyncio.set_event_loop(None)
    loop.close()


def html_of(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]


def text_of(outputs: list[dict[str, Any]]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_a_cell_is_no_terminal_whose_lines_are_drawn_anew(kernel: Kernel) -> None:
    kernel.succeed(CALM)


def test_two_processes_show_their_run_below_the_cell(kernel: Kernel) -> None:
    outputs = kernel.succeed(TRAINED)
    shown = html_of(outputs)
    plan, epochs = shown[:2]
    assert "<summary>Plan</summary>" in plan and "Training: " in plan
    assert re.findall(r"<td>(\d)/3</td>", epochs) == ["1", "2", "3"] and "data:image/svg+xml;base64," in epochs
    # It takes the place of the live line, which is not shown where three epochs take less time than it waits.
    assert sum("Best weights: runs/detect/train/weights/best.pt" in part for part in shown) == 1
    assert not any("ETA" in part for part in shown)
    assert any("<caption>What your settings did</caption>" in part for part in shown)
    assert any("<th>mAP50-95</th>" in part and "<td>all</td>" in part for part in shown[2:])
    assert "TrainResult" in shown[-1] and "data:image/jpeg;base64," in shown[-1]
    said = text_of(outputs)
    assert [line for line in said.splitlines() if "EPOCH" in line] == [f"EPOCH {n} IS OVER" for n in range(3)]
    assert "img/s" not in said and len(said.splitlines()) < 15, "the table is not told as text as well"


@pytest.mark.parametrize(
    ("mark", "options"),
    [("alone", {"workers": 2}), ("both", {"workers": 0, "processes": 2})],
    ids=lambda value: str(value),
)
def test_an_interrupt_saves_and_leaves_no_process(kernel: Kernel, mark: str, options: dict[str, int]) -> None:
    outputs = kernel.run(ENDLESS.format(mark=mark, options=options), interrupt_at=mark)
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["Interrupted"]
    last = kernel.folder / "runs" / "detect" / mark / "weights" / "last.pt"
    (error,) = (output for output in outputs if output["output_type"] == "error")
    assert last.exists() and "resume=" in error["evalue"]
    assert text_of(kernel.succeed(LEFT)).strip() == "[]"
