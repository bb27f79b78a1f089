from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from eyas.config import TrainOptions
from eyas.config.folders import own_folder, run_folder
from eyas.device import amp_dtype, select_device
from eyas.run.tracking import History, LossMeter


def test_the_history_is_always_whole_and_leaves_unmeasured_cells_empty(tmp_path: Path) -> None:
    history = History()
    history.rows.append({"epoch": 1, "train/box_loss": 1 / 3})
    history.rows.append({"epoch": 2, "train/box_loss": 0.25, "metrics/mAP50(B)": 0.5})
    history.write(tmp_path / "results.csv")
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "train/box_loss", "metrics/mAP50(B)"]
    assert rows[0] == {"epoch": "1", "train/box_loss": "0.333333", "metrics/mAP50(B)": ""}
    assert rows[1]["metrics/mAP50(B)"] == "0.5"


def test_the_meter_is_the_mean_and_goes_on_after_a_resume() -> None:
    meter = LossMeter()
    assert meter.means() == {}
    for a, b in ((1.0, 2.0), (3.0, 6.0)):
        meter.update({"a": torch.tensor(a), "b": torch.tensor(b)})
    resumed = LossMeter()
    resumed.load_state_dict(meter.state_dict(), torch.device("cpu"))
    resumed.update({"a": torch.tensor(5.0), "b": torch.tensor(1.0)})
    assert meter.means() == {"a": 2.0, "b": 4.0} and resumed.means() == {"a": 3.0, "b": 3.0}


def test_run_folders_are_numbered_and_never_reused(tmp_path: Path) -> None:
    options = TrainOptions(project=str(tmp_path))
    for expected in ("train", "train-2", "train-3"):
        folder = run_folder(options)
        assert folder.name == expected
        folder.mkdir()
    assert run_folder(TrainOptions(project=str(tmp_path), exist_ok=True)).name == "train"
    assert run_folder(TrainOptions(save_dir=str(tmp_path / "here"))) == tmp_path / "here"


def test_folders_of_validations_are_taken_once_and_go_if_nothing_is_in_them(tmp_path: Path) -> None:
    options = TrainOptions(project=str(tmp_path))
    with own_folder(options, "val") as one, own_folder(options, "val") as two:
        assert [one.name, two.name] == ["val", "val-2"]
        (two / "metrics.csv").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["val-2"]
    with own_folder(TrainOptions(save_dir=str(two)), "val") as again:
        assert again == two and two.is_dir()


def test_devices_and_precision() -> None:
    cpu = select_device("cpu")
    assert cpu.type == "cpu" and amp_dtype(True, cpu) is None and amp_dtype("fp32", cpu) is None
    cuda = torch.device("cuda")
    assert amp_dtype("fp16", cuda) is torch.float16 and amp_dtype("bf16", cuda) is torch.bfloat16
    assert amp_dtype(False, cuda) is None
    assert amp_dtype("bf16", cpu) is torch.bfloat16
    with pytest.raises(ValueError, match="amp='fp16' is for GPUs"):
        amp_dtype("fp16", cpu)
    for wrong in ("gpu7", "cuda:99", [0, 1]):
        with pytest.raises(ValueError, match="device="):
            select_device(wrong)
