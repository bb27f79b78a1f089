"""TrainOptions: values, sources, assignment, errors."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from eyas.config import (
    GROUPS,
    OptionError,
    OptionValueError,
    TrainOptions,
    UnknownOptionError,
    UnsupportedOptionError,
    describe,
    option_names,
    resolve,
)
from eyas.config.errors import UNSUPPORTED
from eyas.config.options import facts, synonyms

# Defaults of spec core G that hold here unchanged; None there or "auto" here is tested separately.
SPEC_DEFAULTS = {
    "patience": 100,
    "batch": None,  # auto: 16, or 8 where a CPU trains
    "imgsz": 640,
    "save": True,
    "save_period": -1,
    "cache": False,
    "device": None,
    "project": None,
    "name": None,
    "exist_ok": False,
    "pretrained": True,
    "cls_remap": True,
    "optimizer": "auto",
    "verbose": True,
    "seed": 0,
    "deterministic": True,
    "single_cls": False,
    "cos_lr": False,
    "resume": False,
    "amp": True,
    "fraction": 1.0,
    "multi_scale": 0.0,
    "channels_last": None,
    "val": True,
    "split": "val",
    "save_json": False,
    "conf": None,
    "iou": 0.7,
    "max_det": 300,
    "plots": True,
    "nms": None,
    "agnostic_nms": False,
    "classes": None,
    "save_txt": False,
    "save_conf": False,
    "lrf": 0.01,
    "weight_decay": 0.0005,
    "warmup_momentum": 0.8,
    "box": 7.5,
    "cls": 0.5,
    "dfl": 1.5,
    "cls_pw": 0.0,
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.5,
    "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0,
    "fliplr": 0.5,
    "bgr": 0.0,
    "mosaic": 1.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
AUTO = (
    *("epochs", "lr0", "momentum", "warmup_epochs", "warmup_bias_lr", "close_mosaic", "workers", "nbs"),
    *("ema_share", "ema_decay", "ema_tau"),
)


def test_defaults_are_those_of_the_specification():
    options = TrainOptions()
    assert {name: options.get(name) for name in SPEC_DEFAULTS} == SPEC_DEFAULTS


@pytest.mark.parametrize("name", AUTO)
def test_auto_options_say_what_they_stand_for(name):
    assert TrainOptions().get(name) is None
    assert describe(name).auto
    assert describe(name).default.startswith("auto: ")


@pytest.mark.parametrize("name", option_names())
def test_every_option_is_described(name):
    info = describe(name)
    assert info.help.endswith(".")
    assert info.group in GROUPS
    assert info.expected
    assert set(info.commands) <= {"train", "val", "predict", "track"} and info.commands


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("epochs", 3.0, 3),
        ("epochs", np.int64(3), 3),
        ("lr0", np.float32(0.5), 0.5),
        ("lr0", 1, 1.0),
        ("project", Path("a/b"), "a/b"),
        ("classes", 2, [2]),
        ("classes", (0, np.int64(4)), [0, 4]),
        ("cache", True, "ram"),
        ("amp", "BF16", "bf16"),
        ("device", 0, "0"),
        ("device", [1], "1"),
        ("scale", [0.5, 1.5], (0.5, 1.5)),
        ("optimizer", "adamw", "AdamW"),
        ("optimizer", "Adagrad", "Adagrad"),
        ("data", {"names": {0: "a"}}, {"names": {0: "a"}}),
    ],
)
def test_values_are_normalised(name, given, kept):
    value = TrainOptions(**{name: given}).get(name)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("epochs", "3"),
        ("patience", -1),
        ("patience", None),
        ("nbs", 0),
        ("max_det", 0),
        ("iou", 70),
        ("iou", -0.1),
        ("seed", -1),
        ("seed", 2**64),
        ("batch", -1),
        pytest.param("batch", 10**5000, id="batch-huge"),
        ("imgsz", 31),
        ("imgsz", [640, 640]),
        ("fraction", 0),
        ("fraction", 1.5),
        ("lr0", math.nan),
        ("lr0", math.inf),
        ("lr0", 0),
        ("momentum", 1.0),
        ("mosaic", 1.1),
        ("scale", 1.5),
        ("scale", (1.5, 0.5)),
        ("scale", (0.5,)),
        ("save", 1),
        ("save", "yes"),
        ("nms", 0),
        ("cache", "disc"),
        ("amp", "fp8"),
        ("amp", None),
        ("device", "0,cpu"),
        ("device", [0, 0]),
        ("device", "gpu"),
        ("classes", ["cat"]),
        ("schedule", "exponential"),
        ("optimizer", "AdmW"),
        ("optimizer", "no such"),
        ("split", "validation"),
        ("data", {"names": object()}),
        ("cfg", "a.yaml"),
    ],
)
def test_bad_values_are_one_line_with_name_value_and_expectation(name, value):
    with pytest.raises(OptionValueError) as caught:
        TrainOptions(**{name: value})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name}=")
    assert "expected" in message
    assert len(message) < 300
    assert "pydantic" not in message


def test_every_bad_value_gets_its_own_line():
    with pytest.raises(OptionValueError) as caught:
        TrainOptions(epochs=0, lr0="fast", batch=4)
    assert [line.split("=")[0] for line in str(caught.value).splitlines()] == ["epochs", "lr0"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("epochz", "epochs"), ("EPOCHS", "epochs"), ("learning_rate", "lr0"), ("batch-size", "batch"), ("imgz", "imgsz")],
)
def test_unknown_names_are_answered_with_the_nearest(wrong, right):
    with pytest.raises(UnknownOptionError, match=f"{wrong}.*did you mean {right}"):
        TrainOptions(**{wrong: 3})


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_options_of_other_trainers_are_refused_with_a_reason(name):
    assert name not in option_names()
    with pytest.raises(UnsupportedOptionError, match=f"'{name}' is not supported by Eyas: .+"):
        TrainOptions(**{name: 1})


@pytest.mark.parametrize("name", option_names("train"))
def test_every_option_of_training_states_its_facts(name):
    known = facts(name)
    assert known.resumable is not None, "may a run that goes on change it?"
    assert known.told_by is not None, "who tells what it did?"
    others = {other for void in known.void for other in void.others}
    assert others <= set(option_names()) - {name}
    assert known.argument is None or known.needs is not None


def test_synonyms_lead_to_real_options():
    assert not set(synonyms()) & set(option_names())
    for name, other in [("learning_rate", "lr0"), ("weights", "model"), ("fp16", "amp"), ("out", "save_dir")]:
        assert synonyms()[name] == other
    listed = [other for name in option_names() for other in facts(name).also]
    assert len(listed) == len(set(listed)) == 50, "a name leads to one option"


def test_assignment_is_validated_and_remembered():
    options = TrainOptions(epochs=3)
    options.lr0 = 0.1
    assert (options.source("epochs"), options.source("lr0"), options.source("batch")) == ("call", "override", "default")
    assert options.is_typed("lr0") and not options.is_typed("batch")
    with pytest.raises(OptionValueError, match="lr0='x' .assigned."):
        options.lr0 = "x"
    assert options.lr0 == 0.1
    with pytest.raises(UnknownOptionError, match="epochs"):
        options.epochz = 3
    assert not hasattr(options, "epochz")


def test_unknown_names_are_attribute_errors_too():
    options = TrainOptions()
    with pytest.raises(AttributeError, match="did you mean lr0"):
        _ = options.lr
    with pytest.raises(ValueError, match="did you mean lr0"):
        options.source("lr")
    assert options.get("lr") is None
    assert options.get("lr", 5) == 5
    assert getattr(options, "lr", 7) == 7


def test_none_for_an_auto_option_leaves_the_choice_to_the_library():
    assert not TrainOptions(lr0=None).is_typed("lr0")


def test_both_spellings_of_the_cosine_schedule_agree():
    assert TrainOptions(cos_lr=True).schedule == "cosine"
    assert TrainOptions(cos_lr=False).schedule == "linear"
    assert TrainOptions(schedule="cosine").cos_lr is True
    assert TrainOptions(schedule="flat-cosine").cos_lr is False
    options = TrainOptions()
    options.cos_lr = True
    assert options.schedule == "cosine" and options.source("schedule") == "override"
    with pytest.raises(OptionValueError, match="contradicts"):
        TrainOptions(cos_lr=True, schedule="linear")


def test_iteration_gives_names_and_values():
    options = TrainOptions(epochs=3)
    assert [name for name, _ in options] == option_names()
    assert dict(options)["epochs"] == 3


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_keep_values_and_sources(clone):
    options = TrainOptions(epochs=3, scale=(0.5, 1.5))
    twin = clone(options)
    assert twin.to_dict() == options.to_dict()
    assert twin.sources() == options.sources()
    twin.lr0 = 0.5
    assert options.lr0 is None


def test_plain_values_survive_yaml_and_come_back():
    options = TrainOptions(epochs=3, scale=(0.5, 1.5), classes=[1], data={"names": {0: "a"}, "path": Path("x")})
    plain = yaml.safe_load(yaml.safe_dump(options.to_dict(), sort_keys=False))
    again = TrainOptions.from_dict(plain, options.sources())
    assert again.to_dict() == options.to_dict()
    assert again.source("epochs") == "call"
    guessed = TrainOptions.from_dict(plain)
    assert guessed.source("epochs") == "file" and guessed.source("batch") == "default"


def test_stored_values_are_checked_like_any_other():
    with pytest.raises(OptionError):
        TrainOptions.from_dict({"epochs": -1})
    with pytest.raises(UnknownOptionError):
        TrainOptions.from_dict({"epochz": 1})


def test_a_file_that_holds_every_option_was_written_by_a_run_and_its_defaults_ask_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("mosaic: 1.0\nlrf: 0.5\n")
    assert resolve(file=file).is_typed("mosaic"), "a person wrote this file, and it means what it says"
    file.write_text(yaml.safe_dump(resolve(call={"lrf": 0.5}).to_dict()))
    options = resolve(file=file)
    assert options.is_typed("lrf")
    assert [name for name in option_names("train") if options.is_typed(name)] == ["lrf"]
    assert resolve(call={"patience": 100}).is_typed("patience"), "a call means what it says"
