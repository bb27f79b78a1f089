"""Trackers: each is sent a small run and read back with its own library, where that is at hand."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.run.plan import Plan
from eyas.trackers import TRACKERS, Ended, Started, Tracker, Trackers, stream
from eyas.trackers.base import flat
from eyas.trackers.mlflow import allowed
from small_run import SmallRun

OPTIONS = {"model": "yolo26n", "lr0": None, "epochs": 3, "freeze": ["backbone"], "mosaic": 0.5}
PLAN = {"epochs": 3, "lr0": 0.01, "decisions": [{"name": "lr0", "value": 0.01, "by": "auto"}]}
METRICS = {"metrics/mAP50(B)": 0.75, "fitness": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with a picture and weights."""
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "best.pt").write_bytes(b"weights")
    cv2.imwrite(str(run / "labels.jpg"), np.full((8, 12, 3), (0, 0, 255), np.uint8))
    return run


def send(tracker: Tracker, run: Path, epochs: range = range(1, 3), before: str = "", failure: str = "") -> str:
    """Send a run, or the part of one; return what it is called."""
    called = tracker.started(Started(run.name, run, OPTIONS, PLAN, epochs[0] - 1, before))
    for number in epochs:
        tracker.epoch(number, {"train/box_loss": 1 / number, "metrics/mAP50(B)": 0.25 * number})
    tracker.picture(epochs[-1], run / "labels.jpg")
    if not failure:
        tracker.best_model(run / "weights" / "best.pt")
    tracker.ended(Ended(failure, epochs[-1], 2, {} if failure else METRICS))
    return called


def test_every_tracker_is_small() -> None:
    for cls in TRACKERS.values():
        file = sys.modules[cls.__module__].__file__
        assert file is not None
        assert len(Path(file).read_text(encoding="utf-8").splitlines()) <= 80, file


def test_json_lines_tell_the_whole_run(folder: Path) -> None:
    send(TRACKERS["jsonl"](), folder)
    send(TRACKERS["jsonl"](), folder, range(3, 4), before="events.jsonl", failure="ValueError: x")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    first = ["started", "epoch", "epoch", "picture", "best_model", "ended"]
    assert [event["event"] for event in events] == [*first, "started", "epoch", "picture", "ended"]
    assert events[0]["options"] == OPTIONS and events[0]["plan"] == PLAN
    assert events[2] | {"at": 0} == {
        "event": "epoch", "at": 0, "epoch": 2, "values": {"train/box_loss": 0.5, "metrics/mAP50(B)": 0.5},
    }  # fmt: skip
    assert events[4]["path"] == str(Path("weights/best.pt"))
    assert events[5]["metrics"] == METRICS and events[-1]["failure"] == "ValueError: x"
    send(TRACKERS["jsonl"](), folder)  # another run in the same folder
    assert len((folder / "events.jsonl").read_text().splitlines()) == 6


def test_tensorboard_holds_scalars_pictures_and_options(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send(TRACKERS["tensorboard"](), folder)
    found: Any = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("metrics/mAP50(B)")] == [(1, 0.25), (2, 0.5)]
    assert [(e.step, e.value) for e in found.Scalars("best/mAP50(B)")] == [(2, 0.75)]
    (picture,) = found.Images("labels")
    image = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (8, 12, 3) and image[0, 0, 2] > 200  # red stays red
    (text,) = found.Tensors("options/text_summary")
    assert b'"model": "yolo26n"' in text.tensor_proto.string_val[0]


def test_tensorboard_of_a_run_that_goes_on_hides_what_is_trained_again(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send(TRACKERS["tensorboard"](), folder, range(1, 4), failure="KeyboardInterrupt")
    send(TRACKERS["tensorboard"](), folder, range(2, 4), before="tensorboard")  # from last.pt of epoch 1
    found: Any = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("train/box_loss")] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "hawks")
    called = send(TRACKERS["wandb"](), folder)
    assert called and wandb.run is None  # it was closed
    (written,) = folder.rglob("*.wandb")
    assert called in written.name
    data = written.read_bytes()
    for part in (b"train/box_loss", b"metrics/mAP50(B)", b"yolo26n", b"hawks", b"best_epoch", b"-model"):
        assert part in data, part
    assert list(folder.rglob("labels*.jpg")) != [folder / "labels.jpg"]  # a copy goes with the run


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A real one, on a free port of this host; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            said = (folder / "server.log").read_text()
            assert server.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kept", ["in a file", "by a server"])
def test_mlflow_on_this_machine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    with mlflow_server(tmp_path) if kept == "by a server" else nullcontext(f"sqlite:///{tmp_path}/mlflow.db") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        read_back_from_mlflow(mlflow, folder, monkeypatch)


def read_back_from_mlflow(mlflow: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a run, and a part of it again, and read it through MLflow's own client."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "hawks")
    called = send(TRACKERS["mlflow"](), folder)
    client = mlflow.MlflowClient()
    run = client.get_run(called)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "hawks"
    assert run.data.params == {"model": "yolo26n", "epochs": "3", "freeze": "['backbone']", "mosaic": "0.5"}
    assert [(m.step, m.value) for m in client.get_metric_history(called, "metrics/mAP50_B")] == [(1, 0.25), (2, 0.5)]
    assert run.data.metrics["best/metrics/mAP50_B"] == 0.75
    files = {file.path for part in ("", "pictures", "weights") for file in client.list_artifacts(called, part)}
    assert files == {"plan.json", "pictures", "weights", "pictures/labels.jpg", "weights/best.pt"}
    assert mlflow.active_run() is None
    assert send(TRACKERS["mlflow"](), folder, range(3, 4), before=called, failure="ValueError: x") == called
    run = client.get_run(called)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "ValueError: x")
    assert [m.step for m in client.get_metric_history(called, "train/box_loss")] == [1, 2, 3]


class Recorder:
    """Takes any call, and remembers it: stands for libraries that want a server."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.id = "id-1"

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return "key-1" if name == "get_key" else self

        return call


@pytest.mark.parametrize(
    ("name", "module", "scalar", "model", "close"),
    [
        ("clearml", "clearml", "report_scalar", "upload_artifact", "close"),
        ("comet", "comet_ml", "log_metrics", "log_model", "end"),
    ],
)
def test_those_that_want_a_server_are_called_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, scalar: str, model: str, close: str
) -> None:
    """Only the order of the calls: what their servers make of them, no test here can tell."""
    recorder = Recorder()
    fake: Any = types.ModuleType(module)
    fake.__spec__ = types.SimpleNamespace(name=module)
    fake.Task, fake.start = recorder, recorder.start
    monkeypatch.setitem(sys.modules, module, fake)
    assert send(TRACKERS[name](), folder) == ("id-1" if name == "clearml" else "key-1")
    names = [call[0] for call in recorder.calls]
    assert names.count(scalar) >= 2 and names[-1] == close
    assert names.index(scalar) < names.index(model)
    recorder.calls.clear()
    send(TRACKERS[name](), folder, before="id-1", failure="ValueError: x")
    assert "id-1" in recorder.calls[0][2].values()
    assert model not in [call[0] for call in recorder.calls]
    assert "ValueError: x" in str(recorder.calls[-2:])


def test_names_and_values_are_made_to_fit() -> None:
    assert flat({"a": None, "b": True, "c": [1], "d": "x" * 999}) == {"b": True, "c": "[1]", "d": "x" * 250}
    assert allowed("metrics/mAP50(B)") == "metrics/mAP50_B"


# -- the stream --------------------------------------------------------------------------------------------------------
class Told(Tracker):
    """Remembers what it is told."""

    name = "told"

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []
        self.fails = fails

    def note(self, event: str, *what: Any) -> None:
        self.events.append((event, *what))
        if self.fails in (event, "all"):
            raise ConnectionError("no server\nsecond line")

    def started(self, run: Started) -> str:
        self.note("started", run.epoch, run.before)
        return f"{self.name}-7"

    def epoch(self, number: int, values: Any) -> None:
        self.note("epoch", number, dict(values))

    def picture(self, epoch: int, path: Path) -> None:
        self.note("picture", path.name)

    def best_model(self, path: Path) -> None:
        self.note("best_model", path.name)

    def ended(self, run: Ended) -> None:
        self.note("ended", run.failure, dict(run.metrics))


class Other(Told):
    name = "other"


def small(folder: Path, callback: Trackers) -> Any:
    """A run in a folder, that begins."""
    run: Any = SmallRun(callback, epochs=3)
    run.save_dir, run.best = folder, folder / "weights" / "best.pt"
    assert isinstance(run.plan, Plan)
    run.fire("on_train_start")
    return run


def one_epoch(run: Any, **row: float) -> None:
    run.history.rows.append({"epoch": run.epoch + 1, **row})
    run.fire("on_fit_epoch_end")
    run.epoch += 1


def test_one_stream_of_events(folder: Path) -> None:
    told, other = Told(), Other()
    run = small(folder, Trackers(told, other))
    one_epoch(run, loss=1.0, broken=math.nan)
    cv2.imwrite(str(folder / "new.png"), np.zeros((2, 2, 3), np.uint8))
    one_epoch(run, loss=0.5)
    run.best_files["best"], run.metrics = 2, METRICS
    run.epoch = 1
    run.fire("on_train_end")
    assert told.events == other.events == [
        ("started", 0, ""),
        ("epoch", 1, {"loss": 1.0}),  # neither nan nor the number of the epoch
        ("epoch", 2, {"loss": 0.5}),
        ("picture", "new.png"),  # those that were there before belong to another run
        ("best_model", "best.pt"),
        ("ended", "", METRICS),
    ]  # fmt: skip
    run.fire("on_exception")
    assert told.events[-1] == ("ended", "", METRICS), "a run ends once"


def test_a_run_that_goes_on_keeps_its_name(folder: Path) -> None:
    small(folder, Trackers(Told()))
    again = Told()
    run: Any = SmallRun(Trackers(again), epochs=3)
    run.save_dir, run.resume_from, run.start_epoch = folder, {"epoch": 1}, 2
    run.fire("on_train_start")
    assert again.events == [("started", 2, "told-7")]
    assert run.callbacks.callbacks[0].witness(run) == {"loggers": {"told": "knows that the run has begun"}}
    (folder / stream.NAMES_FILE).write_text("[]")  # broken: it begins anew
    run.fire("on_train_start")
    assert again.events[-1] == ("started", 2, "")


@pytest.mark.parametrize(("fails", "calls"), [("started", 1), ("epoch", 4), ("all", 1)])
def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(
    folder: Path, fails: str, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Told(fails), Other()
    callback = Trackers(bad, good)
    run = small(folder, callback)
    for number in range(5):
        one_epoch(run, loss=float(number))
    run.exception = ValueError("over")
    run.fire("on_exception")
    assert len(bad.events) == calls  # three failures in a row are enough
    assert [event[0] for event in good.events] == ["started", *["epoch"] * 5, "ended"]
    assert good.events[-1] == ("ended", "ValueError: over", {})
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Warning: nothing is sent to told (ConnectionError: no server); the training goes on."]
    assert callback.witness(run)["loggers"] == {"told": "ConnectionError: no server", "other": "5 epochs sent"}


def test_an_interrupt_is_not_swallowed(folder: Path) -> None:
    class Interrupts(Told):
        def epoch(self, number: int, values: Any) -> None:
            raise KeyboardInterrupt

    run = small(folder, Trackers(Interrupts()))
    with pytest.raises(KeyboardInterrupt):
        one_epoch(run, loss=1.0)


def test_a_wrong_name_and_a_missing_package_are_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no tracker 'wandbb'. Did you mean 'wandb'\?"):
        Trackers("wandbb")
    with pytest.raises(ValueError, match="names jsonl twice"):
        Trackers("jsonl", "JSONL")
    with pytest.raises(ValueError, match="at least one"):
        Trackers()
    monkeypatch.setattr("eyas.trackers.base.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "eyas[comet]"')):
        Trackers("comet")
