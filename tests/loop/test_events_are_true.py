"""An event fires when what it announces has happened, each time, and never otherwise."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from eyas.callbacks import EVENTS, Callback
from eyas.checkpoint import load_checkpoint
from eyas.launch.interrupt import Interrupted
from eyas.losses.end_to_end import one_to_many_weight
from eyas.train import DetectionTrainer


def small(options: Any, **changes: Any) -> dict[str, Any]:
    """Two batches of eight images per epoch."""
    return options(**({"fraction": 0.25, "batch": 8, "epochs": 3, "optimizer": "SGD", "lr0": 0.001} | changes))


class Witness(Callback):
    """Holds every event against the files and numbers that it speaks of."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.files: dict[str, int] = {}
        self.saved: dict[int, set[str]] = {}
        self.numbers: Any = None
        for event in EVENTS:
            setattr(self, event, self.noting(event, getattr(self, f"see_{event}", None)))

    def noting(self, event: str, see: Any) -> Any:
        def note(trainer: Any) -> None:
            self.events.append((event, trainer.epoch))
            if see:
                see(trainer)

        return note

    def epochs_of(self, event: str) -> list[int]:
        return [epoch for name, epoch in self.events if name == event]

    def changed_files(self, trainer: Any) -> set[str]:
        """Return checkpoints written since this was asked last; each is a new file, so its number changes."""
        now = {path.name: path.stat().st_ino for path in sorted(Path(trainer.wdir).glob("*.pt"))}
        changed = {name for name in now if now[name] != self.files.get(name)}
        self.files = now
        return changed

    def see_on_train_start(self, trainer: Any) -> None:
        self.changed_files(trainer)

    def see_on_val_start(self, trainer: Any) -> None:
        assert self.events[-2] == ("on_train_epoch_end", trainer.epoch)
        self.numbers = trainer.metrics

    def see_on_val_end(self, trainer: Any) -> None:
        assert trainer.metrics is not self.numbers and "metrics/mAP50(B)" in trainer.metrics

    def see_on_model_save(self, trainer: Any) -> None:
        self.saved[trainer.epoch] = self.changed_files(trainer)
        assert self.saved[trainer.epoch], "something was saved"
        for name in self.saved[trainer.epoch]:
            assert load_checkpoint(trainer.wdir / name)["epoch"] == trainer.epoch, name

    def see_on_fit_epoch_end(self, trainer: Any) -> None:
        assert not self.changed_files(trainer), "what was saved was announced"
        assert trainer.history.rows[-1]["epoch"] == trainer.epoch + 1

    def see_on_train_end(self, trainer: Any) -> None:
        assert self.events[-2][0] == "on_fit_epoch_end"


@pytest.mark.parametrize(
    ("changes", "validated", "saved"),
    [
        ({"val_every": 2, "save_period": 2}, [1, 2], {0: "last", 1: "best epoch2 last", 2: "last"}),
        ({"save": False, "val_every": 2, "epochs": 4}, [1, 3], {1: "best", 3: "last"}),
        ({"save": False, "val": False}, [2], {2: "best last"}),
    ],
    ids=["val_every", "save=False", "neither"],
)
def test_events_of_a_run(options: Any, changes: dict[str, Any], validated: list[int], saved: dict[int, str]) -> None:
    scores = iter([1.0, 0.5, 0.25, 0.0])

    class First(DetectionTrainer):  # the first validated epoch is the best
        def validate(self) -> Any:
            return super().validate()[0], next(scores)

    witness = Witness()
    trainer = First(overrides=small(options, **changes), _callbacks=[witness])
    trainer.train()
    every = list(range(trainer.epochs))
    assert witness.epochs_of("on_val_start") == witness.epochs_of("on_val_end") == validated
    assert {e: " ".join(sorted(Path(n).stem for n in names)) for e, names in witness.saved.items()} == saved
    assert witness.epochs_of("on_model_save") == list(saved)
    for event in ("on_train_epoch_start", "on_train_epoch_end", "on_fit_epoch_end"):
        assert witness.epochs_of(event) == every, event
    for event in ("on_train_batch_start", "on_train_batch_end"):
        assert witness.epochs_of(event) == sorted(every * 2), event
    for event in ("on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start", "on_train_end", "teardown"):
        assert len(witness.epochs_of(event)) == 1, event
    assert not witness.epochs_of("on_exception") and witness.events[-1][0] == "teardown"


class PressesCtrlC(Callback):
    def on_train_batch_end(self, trainer: Any) -> None:
        trainer.interrupted.raised = True


class FailsBefore(Callback):
    def on_pretrain_routine_start(self, trainer: Any) -> None:
        raise KeyError("on purpose")


@pytest.mark.parametrize(("cause", "error"), [(PressesCtrlC, Interrupted), (FailsBefore, KeyError)])
def test_a_run_that_does_not_end_well_says_so_and_nothing_else(
    options: Any, cause: type[Callback], error: type[BaseException]
) -> None:
    witness = Witness()
    trainer = DetectionTrainer(overrides=small(options), _callbacks=[witness, cause()])
    with pytest.raises(error):
        trainer.train()
    assert isinstance(trainer.exception, error)
    names = [name for name, _ in witness.events]
    assert names[-2:] == ["on_exception", "teardown"] and names.count("on_exception") == names.count("teardown") == 1
    assert not {"on_train_end", "on_fit_epoch_end", "on_model_save", "on_train_epoch_end"} & set(names)


def test_what_a_resumed_run_announces(options: Any) -> None:
    """The set-up is over when the state is back, and only what happens again is announced again."""
    cut = DetectionTrainer(overrides=small(options, epochs=2, nbs=8), _callbacks=[PressesCtrlC()])
    with pytest.raises(Interrupted):
        cut.train()
    updates: list[int] = []
    witness = Witness()
    trainer = DetectionTrainer(overrides={"resume": str(cut.last)}, _callbacks=[witness])
    trainer.add_callback("on_pretrain_routine_end", lambda t: updates.append(t.ema.updates))
    trainer.train()
    assert updates == [1]
    assert witness.epochs_of("on_train_batch_end") == [0, 1, 1]
    assert witness.epochs_of("on_train_epoch_start") == [0, 1]


def test_functions_are_added_or_put_in_place_of_those_there(options: Any) -> None:
    called: list[str] = []
    trainer = DetectionTrainer(overrides=small(options))
    trainer.add_callback("on_pretrain_routine_start", lambda t: called.append("first"))
    trainer.add_callback("on_pretrain_routine_start", lambda t: called.append("second"))
    trainer.add_callback("teardown", lambda t: called.append("untouched"))
    trainer.run_callbacks("on_pretrain_routine_start")
    assert called == ["first", "second"]
    trainer.set_callback("on_pretrain_routine_start", lambda t: called.append("alone"))
    trainer.run_callbacks("on_pretrain_routine_start")
    trainer.run_callbacks("teardown")
    assert called == ["first", "second", "alone", "untouched"]
    with pytest.raises(ValueError, match="Did you mean 'on_train_start'"):
        trainer.set_callback("on_train_strat", print)


@pytest.mark.parametrize("own", [False, True], ids=["stock", "by another number"])
def test_the_result_holds_the_best_epochs_numbers_and_what_chose_it(options: Any, own: bool) -> None:
    """The final evaluation is of the best weights; its stock fitness is nowhere, what chose the best stays."""
    weights: list[float] = []

    class Falls(Callback):
        def adjust_metrics(self, trainer: Any, metrics: dict[str, float]) -> dict[str, float]:
            model = trainer.ema.ema
            weights.append(float(model.model[0].conv.weight.sum()))
            return metrics | {"my/weight": weights[-1]}

        def adjust_fitness(self, trainer: Any, fitness: float) -> float:
            return -5.0 - trainer.epoch if own else fitness

    result = DetectionTrainer(overrides=small(options, epochs=2, lr0=0.05), _callbacks=[Falls()]).train()
    assert "fitness" not in result.metrics and len(weights) == 3
    assert math.isfinite(result.fitness) and (result.fitness == -5.0) == own
    best = load_checkpoint(result.best)
    assert best["fitness"] == result.fitness and best["epoch"] + 1 == result.best_epoch
    assert result.metrics["my/weight"] == weights[2] == weights[result.best_epoch - 1] != weights[2 - result.best_epoch]
    if own:
        assert result.best_epoch == 1
    row = result.history[result.best_epoch - 1]
    for key in ("metrics/mAP50(B)", "metrics/recall(B)", "val/box_loss"):
        assert result.metrics[key] == pytest.approx(row[key], rel=1e-5), key


def test_what_an_epoch_is_told_and_what_it_logs(options: Any) -> None:
    """Mosaic is over for the last epochs, both criteria know which epoch it is, and a number is logged where it is."""
    closed: list[bool] = []
    weights: list[tuple[float, float]] = []

    class Watched(DetectionTrainer):
        def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
            tell = loader.set_epoch

            def set_epoch(epoch: int, *, mosaic_closed: bool = False, first_batch: int = 0) -> None:
                closed.extend([mosaic_closed] if mode == "train" else [])
                tell(epoch, mosaic_closed=mosaic_closed, first_batch=first_batch)

            loader.set_epoch = set_epoch
            return loader

    class Logs(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            if trainer.step == 0:
                weights.append((trainer.model.criterion.o2m, trainer.ema.ema.criterion.o2m))
                trainer.epoch_log[f"my/epoch{trainer.epoch}"] = 1.0

    trainer = Watched(overrides=small(options, close_mosaic=2), _callbacks=[Logs()])
    rows = trainer.train().history
    assert closed == [False, True, True]
    assert weights == [(one_to_many_weight(epoch, 3),) * 2 for epoch in range(3)] and len(set(weights)) == 3
    assert [[key for key in row if key.startswith("my/")] for row in rows] == [[f"my/epoch{i}"] for i in range(3)]


def test_time_goes_on_over_a_resume(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.monotonic

    class LongThenCrash(Callback):
        def on_train_batch_start(self, trainer: Any) -> None:
            monkeypatch.setattr(time, "monotonic", lambda: real() + 5000)

        def on_fit_epoch_end(self, trainer: Any) -> None:
            raise KeyError("on purpose")

    cut = DetectionTrainer(overrides=small(options, epochs=2), _callbacks=[LongThenCrash()])
    with pytest.raises(KeyError):
        cut.train()
    monkeypatch.undo()
    rows = DetectionTrainer(overrides={"resume": str(cut.last)}).train().history
    assert 5000 <= rows[0]["time"] < rows[1]["time"] < 6000


def test_a_restarted_run_goes_on_from_its_own_file(options: Any, tmp_path: Path) -> None:
    """As after a crash of one process: the trainer as it was sent goes on, here to the end, which is all that lacks."""

    class CrashesAtTheEnd(Callback):
        def on_fit_epoch_end(self, trainer: Any) -> None:
            raise KeyError("on purpose")

    o = small(options, epochs=1, save_dir=str(tmp_path / "run"), project=None)
    first, again = DetectionTrainer(overrides=o, _callbacks=[CrashesAtTheEnd()]), DetectionTrainer(overrides=o)
    trained: list[int] = []
    again.add_callback("on_train_batch_start", lambda t: trained.append(t.step))
    again.resume_here()
    assert again.resume_from is None, "nothing there yet: it starts"
    with pytest.raises(KeyError):
        first.train()
    os.utime(first.last, (0, 0))  # the clock of the disk is not that of the host
    again.resume_here()
    result = again.train()
    assert not trained and (result.epochs, result.best_epoch, len(result.history)) == (1, 1, 1)
    later = DetectionTrainer(overrides=o)
    later.resume_here()
    assert later.resume_from is None, "what lay there before is another run's"
