"""Bad input and bad luck: one clear line or table, exit code 1 or 2, no traceback, nothing started, nothing lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from eyas.callbacks import Callback
from eyas.checkpoint import CheckpointError, SaveError, load_checkpoint, save_checkpoint
from eyas.cli import main
from eyas.run.tracking import TrainingDiverged
from eyas.train import DetectionTrainer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small sound data set of four images."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for i in range(4):
            cv2.imwrite(str(tmp_path / "images" / split / f"{i}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
            (tmp_path / "labels" / split / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["thing", "other"]}))
    return path


def train(data: Path, model: Path | str, project: Path, *more: str) -> int:
    fixed = ("imgsz=64", "batch=4", "workers=0", "plots=false", "device=cpu")
    return main(["train", f"model={model}", f"data={data}", f"project={project}", *fixed, *(more or ("epochs=1",))])


def assert_refused(code: int, project: Path, capsys: pytest.CaptureFixture[str], *words: str, expected: int = 1) -> str:
    """The run was refused with these words, without a traceback, and left nothing behind."""
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert code == expected, text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text
    assert not project.exists() or not any(project.iterdir()), "a refused run leaves nothing in its project"
    return text


def test_an_unknown_option_from_a_real_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eyas", "train", "epochz=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "epochs" in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_folder(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.rmtree(data.parent / "images" / "train")
    code = train(data, tiny_model, tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "images/train", "data.yaml")


def test_an_empty_set(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    for image in (data.parent / "images" / "train").iterdir():
        image.unlink()
    code = train(data, tiny_model, tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "images/train")


def test_label_files_of_garbage(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    for label in (data.parent / "labels" / "train").iterdir():
        label.write_bytes(bytes(range(256)))
    code = train(data, tiny_model, tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "0.txt")


def test_one_bad_row_costs_the_row_and_is_reported(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    (data.parent / "labels" / "train" / "2.txt").write_text(
        "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.1 0.1\n0 0.5 oops 0.1 0.1\n"
    )
    (data.parent / "images" / "train" / "3.png").write_text("this is no image")
    assert train(data, tiny_model, tmp_path / "runs") == 0
    text = capsys.readouterr().out
    assert "2.txt" in text and "3.png" in text
    report = (tmp_path / "runs" / "train" / "dataset_report.json").read_text()
    assert "2.txt" in report and "3.png" in report


def test_class_ids_out_of_range_everywhere(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    for label in (data.parent / "labels" / "train").iterdir():
        label.write_text("9 0.5 0.5 0.5 0.5\n")
    code = train(data, tiny_model, tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "0.txt", "9")


def test_images_that_are_no_images(data: Path, tiny_model: Path, tmp_path: Path, capsys: Any) -> None:
    for image in (data.parent / "images" / "train").iterdir():
        image.write_text("not a picture at all")
    code = train(data, tiny_model, tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "0.png")


def test_a_model_name_with_a_typo(data: Path, tmp_path: Path, capsys: Any) -> None:
    code = train(data, "yolo62n", tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "yolo26n")


def test_weights_that_are_not_there(data: Path, tmp_path: Path, capsys: Any) -> None:
    code = train(data, tmp_path / "yolo26n.pt", tmp_path / "runs")
    assert_refused(code, tmp_path / "runs", capsys, "yolo26n.pt")


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """The system refuses to let the file grow, as a full disk does; what was there is still there and opens."""
    path = tmp_path / "last.pt"
    table = {"backbone": [], "head": []}
    first = {"eyas": {"format": 1, "version": "0"}, "model": {"w": torch.zeros(10)}, "yaml": table}
    first |= {"nc": 1, "names": {0: "a"}, "model_class": "eyas.X"}
    save_checkpoint(first, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(SaveError, match=r"cannot write .*last\.pt .*the previous file is untouched.*resume="):
            save_checkpoint(first | {"model": {"w": torch.ones(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.zeros(10))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"], "no temporary file is left"


@pytest.mark.usefixtures("forked")
def test_a_full_disk_in_a_run_is_one_line(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY)); "
    code = limit + "import sys; from eyas.cli import main; sys.exit(main(sys.argv[1:]))"
    options = [f"model={tiny_model}", f"data={data}", f"project={tmp_path / 'runs'}", "imgsz=64", "batch=4", "epochs=2"]
    command = [sys.executable, "-c", code, "train", *options, "workers=0", "plots=false", "device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr and "nothing was written" in done.stderr and "Traceback" not in done.stderr


def test_a_whole_group_that_is_told_to_stop_saves_and_says_how_to_resume(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """As `timeout`, batch systems and terminals do it: the process, its group, and the workers in it."""
    options = [f"model={tiny_model}", f"data={data}", f"project={tmp_path / 'runs'}", "imgsz=64", "batch=4"]
    command = [
        sys.executable,
        "-u",
        "-m",
        "eyas",
        "train",
        *options,
        "epochs=500",
        "workers=1",
        "plots=false",
        "device=cpu",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if " 2/500" in line:
            break
    os.killpg(process.pid, signal.SIGQUIT)  # shows where all are; nobody ends
    process.send_signal(signal.SIGUSR1)
    for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    last = tmp_path / "runs" / "train" / "weights" / "last.pt"
    assert process.returncode == 130, errors
    assert f"resume={last}" in errors and "Traceback" not in errors
    assert "all saved" in errors and load_checkpoint(last)["state"]["epochs"] == 500
    (tmp_path / "plain").touch()
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}, "as the umask wants it"
    assert not any(path.name == "run.lock" for path in files)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left in the group


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(marker),)

    torch.save({"eyas": {"format": 1, "version": "0"}, "model": Evil()}, path)
    with pytest.raises(CheckpointError, match="holds code, not just tensors, and was not opened"):
        load_checkpoint(path)
    assert not marker.exists()
    with pytest.raises(CheckpointError, match=r"checkpoint\['model'\]\['fn'\] is a builtin"):
        save_checkpoint({"eyas": {}, "model": {"fn": print}}, path)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of Eyas"):
        load_checkpoint(tmp_path / "foreign.pt")


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_checkpoint(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    class Poison(Callback):
        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            return loss * float("nan") if trainer.epoch == 1 else loss

    options = {"model": str(tiny_model), "data": str(data), "project": str(tmp_path / "runs"), "imgsz": 64, "batch": 4}
    options |= {"epochs": 4, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "val": False}
    trainer = DetectionTrainer(overrides=options, _callbacks=[Poison()])
    with pytest.raises(TrainingDiverged, match=r"nan or infinite in epoch [23].*last\.pt holds epoch [12]\..*lr0"):
        trainer.train()
    weights = load_checkpoint(trainer.last)["state"]["model"]
    assert all(torch.isfinite(v).all() for v in weights.values() if v.is_floating_point())
