"""What each interpreter of a rehearsal does: ``run_part`` is called in it, and leaves its outcomes in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eyas.api import YOLO
from eyas.callbacks import Callback
from eyas.config import TrainOptions, resolve
from eyas.models import build_detector
from eyas.rehearsal import blame
from eyas.rehearsal.difference import Snapshot, changed, explain
from eyas.rehearsal.observe import (
    OWN_FORWARD,
    CompareRanks,
    KeepAnswer,
    KillInSecondEpoch,
    RehearsalError,
    TakeSnapshot,
    TakeSnapshots,
    WatchForHang,
    answer,
)
from eyas.rehearsal.report import Outcome, Place, write_outcomes
from eyas.rehearsal.sample import Sample, choose_sample
from eyas.rehearsal.script import Finished, Host, run_file
from eyas.rehearsal.shorten import EPOCHS, shortened
from eyas.rehearsal.worst import Measured, measure
from eyas.train import BaseTrainer, TrainResult
from eyas.train.plan import images_per_step

Go = Callable[[], TrainResult]


@dataclass(frozen=True)
class Task:
    """What was asked for, as the parent process wrote it.

    Attributes:
        script: the user's file.
        arguments: its command line.
        options: typed beside it, as texts.
        trainer: name of a class in it.
        imgsz: side of the rehearsal's images in px.
        folder: where the parts leave what they have for each other.
        deadline: ``time.time()`` at which a part must have ended.
    """

    script: Path
    arguments: list[str]
    options: dict[str, str]
    trainer: str | None
    imgsz: int
    folder: Path
    deadline: float

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Return the task that lies in a folder."""
        values = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        return cls(**{**values, "script": Path(values["script"]), "folder": folder})

    def weights(self, run: str, name: str = "last.pt") -> Path:
        """Return where a run's weights lie."""
        return self.folder / run / "weights" / name

    def snapshot(self, run: str) -> Path:
        """Return where a run's snapshot lies."""
        return self.folder / f"{run}-snapshot.json"

    def sample(self) -> Sample:
        """Return the images that the first part chose."""
        return Sample(**json.loads((self.folder / "sample.json").read_text(encoding="utf-8")))


class Part(Host):
    """One interpreter's share: what becomes of the trainings that the user's file starts.

    Attributes:
        stage: name of its row in the table.
        real: options of the latest, as the user wants them.
    """

    name = stage = ""
    processes = 1

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.real = TrainOptions()
        self.error: BaseException | None = None

    # -- called by the user's file -------------------------------------------------------------------------------------
    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        """Return the options to train with instead of the user's."""
        self.real = with_typed(given, self.task.options)
        return self.shortened(self.task.sample())

    def train(self, trainer: BaseTrainer, go: Go) -> TrainResult:
        """Train with observers; an error ends the file, whatever it would do about it."""
        self.started += 1
        self.fit_components(trainer)
        for observer in self.observers():
            trainer.callbacks.add(observer)
        try:
            result = self.rehearse(trainer, go)
        except Finished:
            raise
        except BaseException as error:
            self.error = error
            raise Finished from None
        return self.after(result)

    def val_options(self, given: TrainOptions) -> TrainOptions:
        """Return options that measure on the few images, once those are chosen."""
        if self.started:
            given.data, given.plots, given.workers = self.task.sample().few, False, 0
        return given

    def folder(self, options: TrainOptions, default_name: str) -> AbstractContextManager[Path]:
        """Open a folder away from the user's."""
        folder = self.task.folder / "written"
        folder.mkdir(exist_ok=True)
        return nullcontext(folder)

    # -- what parts do differently -------------------------------------------------------------------------------------
    def shortened(self, sample: Sample) -> TrainOptions:
        """Return the user's options at the length of a rehearsal."""
        return shortened(
            self.real,
            data=Path(sample.few),
            folder=self.task.folder / self.name,
            processes=self.processes,
            imgsz=self.task.imgsz,
        )

    def fit_components(self, trainer: BaseTrainer) -> None:
        """Shorten what hangs in the trainer as the options were shortened."""
        for callback in trainer.callbacks.callbacks:
            if callback.origin == "component":  # an option was shortened already
                callback.shorten(self.real.epochs, EPOCHS)

    def observers(self) -> list[Callback]:
        """Return callbacks that watch."""
        return [WatchForHang(self.task.folder, self.name, self.task.deadline)]

    def rehearse(self, trainer: BaseTrainer, go: Go) -> TrainResult:
        """Train."""
        return go()

    def after(self, result: TrainResult) -> TrainResult:
        """Go on with the user's file, or not."""
        raise Finished

    def outcomes(self) -> list[Outcome]:
        """Return what came of it, when the file has ended without an error."""
        return [Outcome(self.stage, "ok", self.detail())]

    def failed(self, error: BaseException) -> list[Outcome]:
        """Return what came of it when something was raised."""
        message, place = blame.message_of(error), blame.place_of(error, self.task.script)
        if place is None and not isinstance(error, ValueError | OSError):
            message, place = f"{message}\nNo line of your file was on the way there.", blame.innermost(error)
        return [Outcome(self.stage, "FAILED", message=message, place=place)]

    def detail(self) -> str:
        """Return what was seen."""
        return ""


class Straight(Part):
    """One process, from beginning to end, and the files that it leaves; the only part that runs all of the file."""

    name, stage = "straight", "one process"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.seen = ""
        self.result: TrainResult | None = None

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        self.real = with_typed(given, self.task.options)
        folder = self.task.folder / f"data{self.started}"
        folder.mkdir(exist_ok=True)
        sample = choose_sample(self.real, folder, batch=real_batch(self.real, trainer))
        if self.started == 0:
            (self.task.folder / "sample.json").write_text(json.dumps(asdict(sample)), encoding="utf-8")
        options = self.shortened(sample)
        if self.started:
            options.save_dir = str(self.task.folder / f"{self.name}{self.started}")
        return options

    def observers(self) -> list[Callback]:
        if self.started > 1:
            return []
        return [
            TakeSnapshot(self.task.snapshot(self.name), self.task.script),
            KeepAnswer(self.task.folder / "answer.pt", self.task.imgsz),
        ]

    def rehearse(self, trainer: BaseTrainer, go: Go) -> TrainResult:
        result = go()
        if self.result is None:
            self.result, self.seen = result, describe_effects(trainer)
        return result

    def after(self, result: TrainResult) -> TrainResult:
        return result

    def detail(self) -> str:
        sample = self.task.sample()
        more = f", and {self.started - 1} more trainings" if self.started > 1 else ""
        return f"{EPOCHS} epochs of {sample.images} images at {self.task.imgsz} px{more}; in effect: {self.seen}"

    def outcomes(self) -> list[Outcome]:
        return [*super().outcomes(), self.saved()]

    def failed(self, error: BaseException) -> list[Outcome]:
        found = super().failed(error)
        if self.result is None or self.error is not None:
            return found
        note = "\nThis is below train(), which was done."
        if isinstance(error, FileNotFoundError):
            note += " A rehearsal writes into a folder of its own: take paths from the result of train()."
        return [replace(found[0], message=found[0].message + note), self.saved()]

    def saved(self) -> Outcome:
        """Return whether both files open without running any code."""
        began = time.perf_counter()
        for path in (self.task.weights(self.name), self.task.weights(self.name, "best.pt")):
            if not path.exists():
                return Outcome("save", "FAILED", message=f"{path.name} was not written by the end of the run.")
            torch.load(path, weights_only=True)
        size = self.task.weights(self.name, "best.pt").stat().st_size / 2**20
        detail = f"last.pt and best.pt ({size:.1f} MiB) hold tensors and plain values only"
        return Outcome("save", "ok", detail, seconds=time.perf_counter() - began)


class Two(Part):
    """Two processes share the same batches."""

    name, stage = "two", "two processes"
    processes = 2

    def observers(self) -> list[Callback]:
        return [*super().observers(), CompareRanks()]

    def detail(self) -> str:
        return "the same weights and decisions on both ranks after each epoch"


class Killed(Part):
    """A run that is killed in its second epoch; that it gets to the end is the failure."""

    name, stage = "killed", "kill"

    def observers(self) -> list[Callback]:
        taken = TakeSnapshot(self.task.snapshot(self.name), self.task.script)
        return [*super().observers(), taken, KillInSecondEpoch()]

    def outcomes(self) -> list[Outcome]:
        message = "The run ended before a batch of its second epoch was trained, so there was nothing to interrupt."
        return [Outcome(self.stage, "FAILED", message=message)]


class Resumed(Part):
    """Goes on from the ``last.pt`` of the killed run."""

    name, stage = "resumed", "resume"

    def shortened(self, sample: Sample) -> TrainOptions:
        return TrainOptions(resume=str(self.task.weights("killed")))

    def observers(self) -> list[Callback]:
        return [*super().observers(), TakeSnapshot(self.task.snapshot(self.name), self.task.script)]

    def outcomes(self) -> list[Outcome]:
        straight, resumed = (live_weights(self.task.weights(run)) for run in ("straight", "killed"))
        name, distance = farthest(straight, resumed)
        before, after = (Snapshot.read(self.task.snapshot(run)) for run in ("straight", self.name))
        if distance == 0:
            lost = ", ".join(changed(before, after))
            more = f"; lost by then, as no checkpoint holds it: {lost}" if lost else ""
            return [Outcome(self.stage, "ok", f"the same weights as without the interruption, bit for bit{more}")]
        why, place = explain(before, after)
        message = f"Resumed from last.pt, the run ends with other weights ({name} differs by {distance:.2g}). {why}"
        return [Outcome(self.stage, "FAILED", message=message, place=place)]


class Whole(Part):
    """The user's run as it is, at its own length and size, from beginning to end."""

    name, stage = "whole", "the run"

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        """Return the user's options; files go to a folder of ours, and nothing is told to trackers."""
        self.real = with_typed(given, self.task.options)
        values = self.real.to_dict() | {"save_dir": str(self.task.folder / self.name), "plots": False, "loggers": None}
        return TrainOptions.from_dict(values, self.real.sources())

    def val_options(self, given: TrainOptions) -> TrainOptions:
        """Return them as they are."""
        return given

    def fit_components(self, trainer: BaseTrainer) -> None:
        """Leave them as they are."""

    def observers(self) -> list[Callback]:
        return [TakeSnapshots(self.task.folder / f"{self.name}-epochs", self.task.script)]


class Interrupted(Whole):
    """The same run, which goes on from where it was killed."""

    name, stage = "interrupted", "interrupted"

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        last = self.task.weights(self.name)
        return TrainOptions(resume=str(last)) if last.exists() else super().train_options(given, trainer)


class Worst(Part):
    """A step at the real size with the fullest images, and one without any object."""

    name, stage = "worst", "worst-case batch"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.measured: Measured | None = None

    def train_options(self, given: TrainOptions, trainer: type[BaseTrainer]) -> TrainOptions:
        options = super().train_options(given, trainer)
        options.batch = real_batch(self.real, trainer)
        return options

    def shortened(self, sample: Sample) -> TrainOptions:
        folder = self.task.folder / self.name
        return shortened(self.real, data=Path(sample.fullest), folder=folder, processes=1, imgsz=self.real.imgsz)

    def rehearse(self, trainer: BaseTrainer, go: Go) -> TrainResult:
        self.measured = measure(trainer)
        raise Finished

    def detail(self) -> str:
        assert self.measured is not None
        return self.measured.text(most=self.task.sample().objects)


class Load(Part):
    """Another interpreter, elsewhere, opens the best weights; the user's file is not run at all."""

    name, stage = "load", "load elsewhere"

    def run(self) -> list[Outcome]:
        """Open, validate, predict, and compare with what the trained model said.

        Raises:
            Exception: whatever goes wrong while the file is opened or used.
        """
        known = torch.load(self.task.folder / "answer.pt", weights_only=True)
        path, lines = self.task.weights("straight", "best.pt"), known["lines"]
        try:
            yolo = YOLO(path)
        except ValueError as error:
            place = self.unknown_layer(path, lines)
            return [Outcome(self.stage, "FAILED", message=blame.message_of(error), place=place)]
        model = deepcopy(yolo.model)
        model.load_state_dict(known["weights"], strict=False)  # those of best.pt, but for the statistics of layers
        now = answer(model, self.task.imgsz)
        if now.shape != known["answer"].shape or not torch.allclose(now, known["answer"], rtol=1e-4, atol=1e-6):
            message = (
                f"Without {known['class']} the same weights give other boxes: layers or a forward pass of its own are "
                f"not in the file. Open it where the class is defined, with YOLO(path, model_class={known['class']})."
            )
            place = self.unknown_layer(path, lines)
            return [Outcome(self.stage, "FAILED", message=message, place=place)]
        few = self.task.sample().few
        metrics = yolo.val(data=few, imgsz=self.task.imgsz, device="cpu", workers=0, plots=False, verbose=False,
                           save_dir=str(self.task.folder / "val"))  # fmt: skip
        images = Path(few).with_name("val.txt").read_text(encoding="utf-8").splitlines()
        boxes = sum(
            len(result.boxes) for result in yolo.predict(images, imgsz=self.task.imgsz, conf=0.001, device="cpu")
        )
        seen = f"opened, validated (mAP50 {metrics.box.map50:.2g}), predicted ({boxes} boxes), without your file"
        return [Outcome(self.stage, "ok", seen)]

    def unknown_layer(self, path: Path, lines: Mapping[str, Any]) -> Place | None:
        """Return the line of the first layer that the model's table does not describe, or of a forward pass."""
        stored = torch.load(path, weights_only=True)
        described = build_detector(stored["yaml"], nc=stored["nc"], verbose=False).state_dict()
        strange = [name for name in stored["model"] if name not in described]
        names = [part for name in strange for part in name.split(".")]
        return next((Place(**lines[name]) for name in (*names, *OWN_FORWARD, "class") if name in lines), None)


PARTS: dict[str, type[Part]] = {
    part.name: part for part in (Straight, Two, Killed, Resumed, Load, Worst, Whole, Interrupted)
}


def run_part(name: str, folder: Path) -> None:
    """Do one part and write its outcomes."""
    part = PARTS[name](Task.read(folder))
    try:
        outcomes = part.run() if isinstance(part, Load) else run_users_file(part)
    except BaseException as error:
        outcomes = part.failed(error)
    write_outcomes(folder / f"{name}.json", outcomes)


def run_users_file(part: Part) -> list[Outcome]:
    """Run the user's file in a part and return what came of it."""
    task = part.task
    try:
        run_file(task.script, task.arguments, task.options, task.trainer, part)
    except SystemExit as error:
        if part.started == 0:
            raise RehearsalError(f"the file ended with exit code {error.code} before it trained.") from error
    if part.error is not None:
        return part.failed(part.error)
    return part.outcomes()


# -- small things ------------------------------------------------------------------------------------------------------
def with_typed(options: TrainOptions, typed: Mapping[str, str]) -> TrainOptions:
    """Return the options of a call with those that were typed beside the file."""
    given = resolve(cli=typed, command="train")
    for name in given.sources():
        setattr(options, name, given.get(name))
    return options


def real_batch(options: TrainOptions, trainer: type[BaseTrainer]) -> int:
    """Return how many images one process of the user's run sees at a step."""
    processes = options.processes or len((options.device or "").split(","))
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    return -(-images_per_step(options, trainer.recipe, on_cpu, processes) // processes)


def describe_effects(trainer: BaseTrainer) -> str:
    """Return how much of the user's was seen to work."""
    assert trainer.effects is not None
    stock = {key for key, c in trainer.callbacks.by_key().items() if type(c).__module__.startswith("eyas.")}
    hooks = [hook for receiver, hook in trainer.callbacks.registered() if receiver not in stock]
    counts = {"setting": trainer.effects.settings, "hook": hooks, "override": trainer.effects.overrides}
    return ", ".join(f"{len(found)} {name}{'s' * (len(found) != 1)}" for name, found in counts.items())


def live_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a model as it was trained, and of its average."""
    checkpoint = torch.load(path, weights_only=True)
    average = {f"average of {name}": tensor for name, tensor in checkpoint["model"].items()}
    return dict(checkpoint["state"]["model"]) | average


def farthest(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> tuple[str, float]:
    """Return the tensor that differs most, and by how much; 0 only if all are equal bit for bit."""
    found = ("", 0.0)
    for name, tensor in one.items():
        if not torch.equal(tensor, other[name]):
            distance = float((tensor.double() - other[name].double()).abs().max())
            found = max(found, (name, distance), key=lambda item: item[1])
    return found
