"""A label format that only the tests know, one CSV for all images of a split, goes through a whole training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eyas import YOLO
from eyas.data import FORMATS, LabelSource, build_index, check_dataset
from eyas.data.files import FileStat, stat_of
from eyas.data.formats import LabelProblem, Labels
from eyas.data.image_header import ImageHeader
from eyas.train import DetectionTrainer


class Table(LabelSource):
    """Rows ``path,class,cx,cy,w,h``; an image without objects has a row with nothing behind its path."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, list[tuple[int, list[str]]]] = {}
        with file.open(newline="") as handle:
            for line, (path, *row) in enumerate(csv.reader(handle), start=1):
                self.rows.setdefault(path, []).append((line, row))

    def __str__(self) -> str:
        return str(self.file)

    @property
    def identity(self) -> list[object]:
        return ["table", 1, str(self.file)]

    def images(self) -> list[tuple[str, FileStat]]:
        return sorted((path, stat_of(path)) for path in self.rows)

    def label_stats(self, images: Sequence[str]) -> list[FileStat]:
        return [stat_of(str(self.file))] * len(images)

    def label_file(self, image: str) -> str:
        return str(self.file)

    def labels(self, image: str, stat: FileStat, header: ImageHeader) -> Labels:
        good, problems = [], []
        for line, row in self.rows[image]:
            try:
                good += [[float(text) for text in row]] if row else []
            except ValueError as error:
                problems.append(LabelProblem(line, "not a number", str(error)))
        rows = np.array(good, np.float32).reshape(-1, 5)
        return Labels(rows[:, 0], rows[:, 1:], problems)


def open_table(entry: object, root: Path, names: Mapping[int, str] | None) -> LabelSource | None:
    file = root / str(entry)
    return Table(file) if file.suffix == ".csv" and file.is_file() else None


@pytest.fixture
def tables(digits_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded data set, described by two CSV files in a folder of their own."""
    monkeypatch.setitem(FORMATS, "table", open_table)
    data = check_dataset(digits_tiny)
    for split in ("train", "val"):
        index = build_index(data[split], names=data["names"], split=split)
        with (tmp_path / f"{split}.csv").open("w", newline="") as handle:
            for i in range(len(index)):
                rows = np.column_stack(index.labels(i)).tolist()
                csv.writer(handle).writerows([index.path(i), *row] for row in rows or [[]])
    file = tmp_path / "tables.yaml"
    file.write_text(yaml.safe_dump({"train": "train.csv", "val": "val.csv", "names": data["names"]}))
    return file


def test_it_trains_and_validates_as_the_same_labels_in_text_do(options: Any, tables: Path) -> None:
    text, table = (
        DetectionTrainer(overrides=options(epochs=1, fraction=0.5, **more)) for more in ({}, {"data": str(tables)})
    )
    text.train()
    table.train()
    rows = [(trainer.save_dir / "results.csv").read_text().splitlines() for trainer in (text, table)]
    header = rows[0][0].split(",")
    compared = [i for i, name in enumerate(header) if name.startswith(("train/", "val/", "metrics/"))]
    values = [[row.split(",")[i] for i in compared] for _, row in rows]
    assert len(compared) >= 10 and values[0] == values[1]
    measured = YOLO(table.best).val(data=str(tables), imgsz=64, workers=0, plots=False, device="cpu", batch=32)
    assert measured.box.map50 == pytest.approx(table.metrics["metrics/mAP50(B)"], abs=1e-6)


def test_a_bad_row_is_reported_by_file_and_line_and_a_changed_file_is_read_anew(options: Any, tables: Path) -> None:
    file = tables.parent / "train.csv"

    def train() -> dict[str, Any]:
        trainer = DetectionTrainer(overrides=options(epochs=1, fraction=0.25, data=str(tables)))
        trainer.train()
        return json.loads((trainer.save_dir / "dataset_report.json").read_text())["splits"]["train"]

    whole = train()
    assert not whole["problem_counts"]
    first = file.read_text().splitlines()
    bad = [line.rpartition(",")[0] + ",wide" if "," in line else line for line in first]
    file.write_text("\n".join(bad[:40] + first[40:]) + "\n")
    report = train()
    assert report["problem_counts"]["not a number"] == len(report["problems"]) == whole["boxes"] - report["boxes"] > 0
    for problem in report["problems"]:
        assert problem["file"] == str(file) and bad[problem["line"] - 1].endswith(",wide")
        assert problem["message"] == "could not convert string to float: 'wide'"
