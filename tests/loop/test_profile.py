"""``eyas profile`` says where a training spends its time, and is right."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eyas import cli
from eyas.callbacks import Callback
from eyas.train import DetectionTrainer
from eyas.train.profile import LOGGING, PARTS, WAITING, Profile, profile

QUICK = Profile(
    parts=dict(zip(PARTS, (0.01, 0.01, 0.4, 0.5, 0.05, 0.03), strict=True)),
    step=1.0,
    images=8,
    steps=100,
    validation=5.0,
    saving=1.0,
    validations=1.0,
    workers=2,
)
NAP = 0.2


class Naps(Callback):
    def on_train_batch_end(self, trainer: Any) -> None:
        time.sleep(NAP)


def nap(image: Any, boxes: Any, labels: Any) -> Any:
    time.sleep(NAP / 2)
    return image, boxes, labels


class Slow(DetectionTrainer):
    """Its optimizer takes long, and so does everything that it is asked to do by name."""

    def optimizer_step(self) -> None:
        time.sleep(NAP)
        super().optimizer_step()


def measured(options: Any, cls: type[DetectionTrainer] = DetectionTrainer, **changes: Any) -> Profile:
    callbacks = changes.pop("callbacks", None)
    transforms = changes.pop("transforms", ())
    trainer = cls(overrides=options(epochs=2, batch=4, **changes), _callbacks=callbacks)
    trainer.transforms = transforms
    with trainer.prepared():
        return profile(trainer)


@pytest.mark.parametrize(
    ("part", "slow"),
    [(LOGGING, {"callbacks": [Naps()]}), (WAITING, {"transforms": (nap,)}), ("optimizer", {"cls": Slow})],
    ids=["callback", "data", "override"],
)
def test_what_is_slow_is_named(options: Any, part: str, slow: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.train.profile.STEPS", 6)
    found = measured(options, **slow)
    assert found.images == 4 and found.steps == 16
    assert found.parts[part] >= NAP * 0.9
    # On a CPU the parts are those of the very steps that the pace is taken from.
    assert found.step == pytest.approx(sum(found.parts.values()), rel=0.5)
    said = found.advice()[0]
    usual = max(value for name, value in found.parts.items() if name != part)
    if part == WAITING:
        assert "Loading data is the bottleneck" in said
    elif usual < NAP:
        assert f"The bottleneck of a step is {part}" in said


def test_advice_follows_the_shares() -> None:
    (said,) = QUICK.advice()
    assert said.startswith("The bottleneck of a step is backward, not the data: a smaller imgsz or model counts most")
    assert QUICK.epoch() == {"training": 100.0, "validation": 5.0, "saving": 1.0}
    assert "val_every=5" in replace(QUICK, validation=50.0).advice()[1]
    assert len(replace(QUICK, validation=50.0, validations=0.1).advice()) == 1
    assert "save=false" in replace(QUICK, saving=60.0).advice()[1]
    waits = replace(QUICK, parts=QUICK.parts | {WAITING: 0.3})
    assert waits.advice()[0].startswith("Loading data is the bottleneck: ")


def test_the_command_prints_and_leaves_nothing(
    options: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyas.train.profile.STEPS", 3)
    typed = [f"{name}={value}" for name, value in options(val=False, verbose=True).items()]
    assert cli.main(["profile", *typed]) == cli.OK
    said = capsys.readouterr().out
    assert all(part in said for part in (*PARTS, "training", "validation", "saving", "bottleneck")), said
    assert not (tmp_path / "runs").exists()
    assert cli.main(["profile", *typed, "processes=2"]) == cli.FAILED
    assert "profile measures one process" in capsys.readouterr().err
