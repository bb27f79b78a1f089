"""The frame of a page, its parts, and that none of it can stop a run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.detection import DetMetrics
from eyas.report.html import document, folded, section, table, tiles
from eyas.report.page import MOST_CLASSES, RunPage, confusion, per_class
from small_run import SmallRun

EVIL = "<script>alert('\"x\"')</script>"
VOID = {"meta", "link", "rect", "line", "path", "circle", "image", "use"}


class Balance(HTMLParser):
    """Checks that tags close in order, and collects what may lead out of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def check(text: str) -> Balance:
    """Return the parsed page, which is well-formed, loads nothing, and holds one script, whose hash it allows."""
    found = Balance(text)
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{known}'" in text and "default-src 'none'" in text
    return found


def test_every_text_is_escaped() -> None:
    body = section(EVIL, table((EVIL,), [[EVIL]]), tiles([(EVIL, EVIL)]), folded(EVIL, "<p>x</p>"))
    check(document(EVIL, body))


def test_only_a_page_of_a_run_that_trains_opens_itself_anew() -> None:
    assert 'data-again="30"' in document("t", "", again=30)
    assert 'data-again="0"' in document("t", "")


def test_numbers_stand_to_the_right_and_empty_parts_are_left_out() -> None:
    text = table(("name", "n"), [["a", 1], ["b", None]])
    assert text.count('<td class="n">') == 2 and '<th class="n">n</th>' in text
    assert (table(("a",), []), section("t", "", ""), folded("t", "")) == ("", "", "")


def validated(classes: int, names: dict[int, str] | None = None) -> DetMetrics:
    """Return metrics of an image with an object of each class, of which every second is found."""
    ids = np.arange(classes)
    boxes = np.stack([ids * 10.0, ids * 0.0, ids * 10.0 + 8, ids * 0.0 + 8], 1)
    metrics = DetMetrics(names or {int(i): f"class {i}" for i in ids})
    half = ids[::2]
    metrics.update(
        tp=np.ones((len(half), 10), bool), conf=np.full(len(half), 0.9), pred_cls=half, pred_img=half * 0,
        target_cls=ids, target_img=ids * 0, image_files=["a.jpg"], pred_box=boxes[::2], target_box=boxes,
    )  # fmt: skip
    metrics.process()
    return metrics


def test_of_many_classes_the_weakest_are_shown() -> None:
    found = per_class(validated(MOST_CLASSES + 10))
    assert found.count("<tr>") == MOST_CLASSES + 1
    assert f"The {MOST_CLASSES} weakest of {MOST_CLASSES + 10} classes" in found
    assert "<td>class 1</td>" in found and f"<td>class {MOST_CLASSES + 8}</td>" not in found
    assert "weakest" not in per_class(validated(4))


def test_a_matrix_of_few_classes_and_pairs_of_many() -> None:
    few = confusion(validated(4).confusion_matrix)
    cells = re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", few)
    assert [name for name, _ in cells] == ["class 0", "class 1", "class 2", "class 3", "background"]
    counts = [re.findall(r">(\d*)</td>", row) for _, row in cells]
    assert counts[0] == ["1", "", "", "", ""] and counts[4] == ["", "1", "", "1", ""]  # missed: 1 and 3
    matrix = ConfusionMatrix({i: f"c{i}" for i in range(40)})
    matrix.matrix[7, 3], matrix.matrix[40, 5], matrix.matrix[2, 2] = 9, 4, 100
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td class=\"n\">(\d+)</td>", confusion(matrix))
    assert rows == [("c3", "c7", "9"), ("c5", "background", "4")]  # true, predicted
    assert confusion(ConfusionMatrix({0: "a"})) == ""


# -- of a run ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A run of numbers in a folder with an unusual name, whose classes have unusual ones."""
    made: Any = SmallRun(RunPage(), epochs=3, model=None)
    made.save_dir = tmp_path / 'it\'s a "run" <1>'
    made.save_dir.mkdir()
    made.data["names"] = {0: EVIL, 1: "Füchse 狐"}
    made.validator.metrics = validated(2, made.data["names"])
    return made


def epoch(run: Any, value: float) -> str:
    run.fire("on_train_epoch_start")
    run.fire("on_train_epoch_end")
    run.history.rows.append({"epoch": run.epoch + 1, "time": 2.0 * (run.epoch + 1), "metrics/mAP50(B)": value})
    run.best_files["best"] = 1
    run.fire("on_val_end")
    run.fire("on_fit_epoch_end")
    return text_of(run)


def text_of(run: Any) -> str:
    return (run.save_dir / "report.html").read_text(encoding="utf-8")


def test_the_page_is_there_before_the_first_epoch_and_follows_the_run(run: Any) -> None:
    run.fire("on_train_start")
    page = text_of(run)
    check(page)
    assert "Numbers come with the end of the first epoch" in page and "<h2>Plan</h2>" in page
    page = epoch(run, 0.5)
    check(page)
    assert "1 of 3" in page and "<h2>Confusion</h2>" in page and ">training</span>" in page
    assert "Of the weights after epoch 1." in page and "Füchse 狐" in page and "best: 1" in page
    run.epoch = 1
    page = epoch(run, 0.25)
    assert "2 of 3" in page and "images per second" in page
    run.fire("on_train_end")
    page = text_of(run)
    check(page)
    assert ">finished</span>" in page and 'data-again="0"' in page
    assert "Of the weights after epoch 1." in page  # the best ones, which were measured last
    assert [path.name for path in run.save_dir.iterdir()] == ["report.html"]


def test_a_run_that_stops_says_why(run: Any) -> None:
    run.fire("on_exception")
    assert list(run.save_dir.iterdir()) == []  # nothing was trained: nothing is left behind
    run.fire("on_train_start")
    run.exception = ValueError("a <wrong> thing\nand more")
    run.fire("on_exception")
    assert "stopped: ValueError, a &lt;wrong&gt; thing</span>" in text_of(run)


def test_a_page_that_cannot_be_written_is_said_once(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    run.save_dir.rmdir()
    run.fire("on_train_start")
    with pytest.raises(FileNotFoundError):
        epoch(run, 0.5)  # the test's own reading: the run has gone on
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("Warning: report.html could not be written (FileNotFoundError: ")
    assert said.endswith("; the training goes on.")
    run.save_dir.mkdir()
    run.epoch = 1
    assert "2 of 3" in epoch(run, 0.5)  # it is attempted again


def test_a_validator_of_the_users_own_leaves_its_parts_out(run: Any) -> None:
    run.validator = lambda *args: {}
    run.fire("on_train_start")
    page = epoch(run, 0.5)
    check(page)
    assert "<h2>Confusion</h2>" not in page and "<h2>Curves</h2>" in page
