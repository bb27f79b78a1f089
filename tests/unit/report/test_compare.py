"""``eyas runs``: what folders hold, side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from eyas.cli import main
from eyas.report.compare import compare, differing, overview, page, read_runs

OPTIONS = {"model": "yolo26n", "data": "/far/away/digits.yaml", "epochs": 3, "lr0": None, "name": "a", "mosaic": 1.0}


def write_run(folder: Path, values: list[float], losses: tuple[float, ...] = (), **options: Any) -> Path:
    """Write the files of a run whose mAP50-95 had these values; a nan was not measured."""
    folder.mkdir(parents=True)
    (folder / "options.yaml").write_text(yaml.safe_dump(OPTIONS | options))
    (folder / "plan.json").write_text(json.dumps({"epochs": 3}))
    rows = ["epoch,time,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss"]
    for n, value in enumerate(values, 1):
        cell = "" if value != value else f"{value}"
        rows.append(f"{n},{60 * n},{value / 2},{cell},{losses[n - 1] if losses else ''}")
    (folder / "results.csv").write_text("\n".join(rows) + "\n")
    os.utime(folder / "results.csv", (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs/detect/train", [0.1, 0.3, 0.2], (3.0, 1.0, 2.0))
    write_run(
        tmp_path / "runs/detect/train-2", [0.5, float("nan")], (9.0, 8.0), lr0=0.02, mosaic=0.0, name="b", epochs=9
    )
    write_run(tmp_path / "runs/other/train", [], plots=False)
    return tmp_path / "runs"


def test_the_best_comes_first_with_what_differs(runs: Path) -> None:
    records = compare([str(runs)])
    assert [record.name for record in records] == ["detect/train-2", "detect/train", "other/train"]
    header, rows = overview(records, "metrics/mAP50-95(B)")
    assert header[:5] + header[6:] == ["name", "model", "data", "epochs", "mAP50-95", "time", "lr0", "mosaic"]
    assert rows[0][:5] + rows[0][6:] == [
        "detect/train-2", "yolo26n", "digits.yaml", "2/3", "0.5000 (epoch 1)", "2:00", "0.02", "0.0",
    ]  # fmt: skip
    assert rows[1][3:5] + rows[1][6:] == ["3/3", "0.3000 (epoch 2)", "3:00", "auto", "1.0"]
    assert rows[2][3:5] + rows[2][6:] == ["0/3", None, None, "auto", "1.0"]


def test_the_smallest_loss_is_the_best(runs: Path) -> None:
    records = compare([str(runs)], by="box_loss")
    assert [(record.name, record.best("val/box_loss")) for record in records][:2] == [
        ("detect/train", (1.0, 2)),
        ("detect/train-2", (8.0, 2)),
    ]


def test_where_runs_lie_is_no_difference(runs: Path) -> None:
    assert differing(read_runs([str(runs)])) == {"lr0": ["auto", "0.02", "auto"], "mosaic": ["1.0", "0.0", "1.0"]}


def test_a_run_that_is_named_twice_comes_once(runs: Path) -> None:
    train = str(runs / "detect" / "train")
    assert [record.name for record in read_runs([train, str(runs / "detect"), train])] == ["train", "train-2"]


def test_the_page_has_a_curve_for_each_run_and_escapes_its_texts(runs: Path, tmp_path: Path) -> None:
    write_run(runs / "<b>bold", [0.2, 0.25], model="<script>x</script>.pt")
    text = page(read_runs([str(runs)]), "metrics/mAP50-95(B)")
    assert "<b>bold" not in text and "<script>x" not in text and "&lt;b&gt;bold" in text
    first = text[text.index("<figure") : text.index("</figure>")]
    assert first.count('class="curve"') + first.count('class="dot"') == 3
    assert "metrics/mAP50-95(B)" in first
    assert "://" not in text


def test_the_command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "html=pages/all.html", "by=mAP50"]) == 0
    out = capsys.readouterr().out
    assert out.index("train-2") < out.index("detect/train ") and "0.2500 (epoch 1)" in out
    assert (tmp_path / "pages" / "all.html").read_text().startswith("<!doctype html>")
    for arguments, code, said in (
        (["nowhere"], 1, "there is no folder nowhere"),
        (["pages"], 1, "there is no run in pages"),
        (["by=mAP51"], 1, "Did you mean 'mAP50'?"),
        (["sort=x"], 2, "runs knows no 'sort'"),
    ):
        assert main(["runs", *arguments]) == code
        assert said in capsys.readouterr().err
