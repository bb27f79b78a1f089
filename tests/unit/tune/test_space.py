"""The space of a search: what is understood, and what is refused before the first trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.config import OptionError, TrainOptions, UnknownOptionError, resolve
from eyas.tune.space import DEFAULT, Choice, Range, check_space, parse_space, trial_options

LR = {"low": 1e-4, "high": 1e-2, "log": True}


def test_ranges_and_choices_are_understood() -> None:
    given = {"lr0": LR, "imgsz": {"low": 64, "high": 128, "step": 32}, "degrees": {"low": 0, "high": 30}}
    space = parse_space(given | {"optimizer": ["SGD", "AdamW"], "freeze": [None, ["backbone"]]})
    assert space["lr0"] == Range(1e-4, 1e-2, log=True)
    assert space["imgsz"] == Range(64, 128, step=32, whole=True)
    assert space["degrees"] == Range(0, 30), "whole ends of an option that takes any number"
    assert space["optimizer"] == Choice(("SGD", "AdamW"))
    assert space["freeze"] == Choice((None, ["backbone"]))
    assert {name: values.plain() for name, values in space.items()}["lr0"] == LR
    assert (str(space["lr0"]), str(space["degrees"])) == ("0.0001 to 0.01, over orders of magnitude", "0 to 30")


def test_a_file_holds_the_same(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("lr0: {low: 1e-4, high: 1e-2, log: true}\nmosaic: [0.0, 1.0]\n")
    assert parse_space(tmp_path / "space.yaml") == parse_space({"lr0": LR, "mosaic": [0.0, 1.0]})
    (tmp_path / "wrong.yaml").write_text("mosaic: [0.0, 1.0]\nlr0: 3\n")
    with pytest.raises(OptionError, match=r"wrong\.yaml:2: lr0=3: expected a range"):
        parse_space(tmp_path / "wrong.yaml")


def test_the_space_of_those_who_name_none_is_one() -> None:
    space = parse_space(None)
    check_space(space, TrainOptions(model="yolo26n", data="digits"))
    assert list(space) == list(DEFAULT)
    assert all(space["lr0"].low < rate < space["lr0"].high for rate in (0.002, 0.004, 0.01)), "those of the recipes"


@pytest.mark.parametrize(
    ("given", "tells"),
    [
        ({"lr": LR}, "did you mean lr0?"),
        ({"mosiac": [0, 1]}, "did you mean mosaic?"),
        ({"lr0": {"low": 1e-4, "hihg": 1}}, "Did you mean 'high'?"),
        ({"lr0": {"low": 1e-4}}, "high=None: expected a number"),
        ({"lr0": {"low": True, "high": 2}}, "low=True: expected a number"),
        ({"lr0": {"low": 0.1, "high": 0.1}}, "must be below"),
        ({"lr0": {"low": -1, "high": 1}}, "lr0=-1"),
        ({"momentum": {"low": 0, "high": 0.9, "log": True}}, "a low above 0"),
        ({"lr0": LR | {"step": 1e-3}}, "no step"),
        ({"lr0": LR | {"log": 1}}, "log=1: expected true or false"),
        ({"mosaic": {"low": 0, "high": 1.5}}, "mosaic=1.5"),
        ({"mosaic": {"low": 0, "high": 1, "step": 0.3}}, "no whole number of steps"),
        ({"patience": {"low": 1, "high": 2.5}}, "whole number"),
        ({"optimizer": {"low": 0, "high": 1}}, "has no range"),
        ({"optimizer": ["SGD", "Adm"]}, "did you mean Adam?"),
        ({"mosaic": [0.5]}, "at least two different values"),
        ({"mosaic": [0.5, 0.5]}, "at least two different values"),
        ({"mosaic": 0.5}, "expected a range"),
        ({"seed": [0, 1]}, "the best seed is luck"),
        ({"save_dir": ["a", "b"]}, "beside the file of their study"),
        ({"split": ["train", "val"]}, "no effect on train"),
        ({}, "expected a mapping"),
        ([1], "expected a mapping"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_trial(given: Any, tells: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_space(given)
    assert tells in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_is_none_is_told_as_everywhere() -> None:
    with pytest.raises(UnknownOptionError):
        parse_space({"lr": LR})


@pytest.mark.parametrize(
    ("given", "options", "tells"),
    [
        ({"lr0": LR}, {"lr0": 0.1}, "lr0=0.1 is given, and searched"),
        ({"freeze_epochs": {"low": 1, "high": 5}}, {}, "nothing is frozen"),
        ({"mosaic": [0.5, 1.0]}, {"freeze_norm": "update"}, "nothing is frozen"),
    ],
)
def test_what_no_trial_would_feel_is_refused(given: Any, options: dict[str, Any], tells: str) -> None:
    with pytest.raises(OptionError, match=tells):
        check_space(parse_space(given), TrainOptions(**options))


def test_what_some_trials_do_not_feel_is_left_out_of_those() -> None:
    base = resolve(call={"close_mosaic": 2})
    space = parse_space({"mosaic": [0.0, 1.0], "sampler": [None, "repeat"], "sampler_threshold": [0.2, 0.3]})
    check_space(space, base)
    with_all = trial_options(base, {"mosaic": 1.0, "sampler": "repeat", "sampler_threshold": 0.3})
    assert (with_all.close_mosaic, with_all.sampler_threshold) == (2, 0.3)
    without = trial_options(base, {"mosaic": 0.0, "sampler": None, "sampler_threshold": 0.3})
    assert (without.mosaic, without.source("mosaic")) == (0.0, "call")
    assert not without.is_typed("close_mosaic") and not without.is_typed("sampler_threshold")


def test_both_spellings_of_a_schedule_stay_one() -> None:
    options = trial_options(resolve(call={"cos_lr": False}), {"schedule": "cosine"})
    assert (options.schedule, options.cos_lr) == ("cosine", True)
