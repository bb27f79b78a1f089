"""Files that somebody crafted, or that were damaged: each is refused in one line that names it, before it costs.

The files are in `hostile`. Here they meet the reader; ``tests/faults/fuzz.py`` makes more of them, at random.
"""

from __future__ import annotations

import copy
import random
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hostile
import small_yolo
from eyas.api import YOLO
from eyas.checkpoint import CheckpointError, check_plain, load_checkpoint, read_tensors, save_checkpoint
from eyas.checkpoint.fields import FIELDS, NEEDED_OF_STATE, STATE, check_fields
from eyas.models import build_detector

RUN: dict[str, Any] = {
    "train_args": {},
    "train_sources": {},
    "train_metrics": {"mAP": 0.5},
    "fitness": None,
    "epoch": 1,
    "white": {"whole": 255},
    "val_batch": 2,
    "date": "2026-11-28",
}
WHOLE: dict[str, Any] = {
    "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"params": [0], "lr": 0.1}]},
    "scaler": {"scale": 2.0},
    "amp": "fp32",
    "updates": 3,
    "average_trusted": True,
    "over": False,
    "epochs": 5,
    "step": 0,
    "best_fitness": 0.5,
    "meter": {"names": ["box"], "sums": torch.ones(1), "count": 3},
    "best_files": {"best": 1},
    "frozen": ["w"],
    "freeze_layer_names": [".dfl"],
    "plan": {},
    "data": {"train": "5e"},
    "trainer": "x.Y",
    "elapsed": 1.5,
    "bad_images": {"train": {"a.jpg": "gone"}},
    "rollbacks": 1,
    "notes": ["other data were taken"],
    "history": [{"box": 1.0, "map": None}],
    "callbacks": {"EarlyStop": {"settings": {}, "state": None}},
    "rng": torch.zeros(8, dtype=torch.uint8),
    "cuda_rng": torch.zeros(8, dtype=torch.uint8),
}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    torch.manual_seed(0)
    model = build_detector(small_yolo.table(), nc=2, verbose=False)
    about = {"format": 1, "version": "0", "torch": "2"}
    network = {"model": dict(model.state_dict()), "yaml": model.yaml, "nc": 2, "names": {0: "cat", 1: "dog"}}
    return {"eyas": about, **network, "model_class": "eyas.models.detection.DetectionModel", **RUN}


@pytest.fixture(scope="module")
def sound(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "sound.pt"
    save_checkpoint(content, path)
    YOLO(path)
    return path


@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_an_attack_is_refused_by_name(name: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, tells = hostile.ATTACKS[name]
    path = tmp_path / "attack.pt"
    path.write_bytes(make(sound))
    monkeypatch.setattr(torch, "load", None)  # it would follow what the file says
    with pytest.raises(CheckpointError, match=tells) as error:
        YOLO(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 1000


def test_a_flipped_bit_is_noticed_or_did_not_matter(content: dict[str, Any], tmp_path: Path) -> None:
    path, rng = tmp_path / "flipped.pt", random.Random(0)
    small = content | {"model": {"w": torch.arange(300.0)}}
    save_checkpoint(small, path)
    data, changed = path.read_bytes(), 0
    for at in [*range(0, len(data), 97), *rng.sample(range(len(data)), 100)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            changed += str(path) in str(error)
        else:
            assert torch.equal(found.pop("model")["w"], small["model"]["w"])
            assert found == {key: value for key, value in small.items() if key != "model"}
    assert changed > 50


# -- what is sound comes through ---------------------------------------------------------------------------------------
def test_what_torch_writes_is_read_as_torch_reads_it(content: dict[str, Any], tmp_path: Path) -> None:
    block, path = torch.arange(24.0), tmp_path / "kinds.pt"
    kinds = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
    )
    kinds += (torch.bool, torch.complex64, torch.uint16, torch.float8_e5m2)
    layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    tensors = {
        "whole": block,
        "part": block[3:9],
        "strided": block.view(4, 6).T[1:, ::2],
        "expanded": block[:1].expand(5),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.ones(2)),
        "fixed": nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False),
        **{str(kind): block.to(kind) for kind in kinds},
    }
    plain = [None, True, -3, 2**100, 0.1, "ä\n", (), (1, (2,)), {}, {1: "a", None: "b", (1, "x"): 2, 0.5: [1]}]
    save_checkpoint({**content, "model": layers, "extra": {"tensors": tensors, "plain": plain}}, path)
    found, expected = load_checkpoint(path), torch.load(path, weights_only=True)
    assert found["extra"]["plain"] == expected["extra"]["plain"] == plain
    assert type(found["model"]) is OrderedDict and vars(found["model"]) == vars(expected["model"])
    read = found["extra"]["tensors"]
    for name, tensor in expected["extra"]["tensors"].items():
        own = read[name]
        assert (type(own), own.dtype, own.shape, own.stride()) == (
            type(tensor),
            *(tensor.dtype, tensor.shape, tensor.stride()),
        )
        assert own.requires_grad == tensor.requires_grad
        assert own.contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8)), name
    assert read["whole"].untyped_storage().data_ptr() == read["part"].untyped_storage().data_ptr(), "they share numbers"


def test_only_tensors_are_taken_from_files_of_weights(tmp_path: Path) -> None:
    path, date = tmp_path / "theirs.pth", torch.device("cpu")  # no plain value
    torch.save({"model": OrderedDict(w=torch.ones(2)), "ema": {"module": {"w": torch.zeros(2)}}, "on": date}, path)
    found = read_tensors(path)
    assert found["model"]["w"].tolist() == [1, 1] and found["ema"]["module"]["w"].tolist() == [0, 0]
    assert "on" not in found or found["on"] == {}


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"x",
        10**50,
        torch.device("cpu"),
        torch.zeros(2).to_sparse(),
        torch.empty(2, device="meta"),
    ],
    ids=["object", "set", "bytes", "number", "device", "sparse", "meta"],
)
def test_what_could_not_be_read_is_not_written(content: dict[str, Any], value: object, tmp_path: Path) -> None:
    check_plain(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\['mine'\]"):
        save_checkpoint(content | {"mine": value}, tmp_path / "never.pt")
    assert not (tmp_path / "never.pt").exists()


# -- entries -----------------------------------------------------------------------------------------------------------
WRONG: dict[str, list[Any]] = {
    "model": [[], {}, {"w": 1}, {1: torch.ones(1)}],
    "optimizer": [
        {},
        {"state": {}},
        {"state": {"a": {}}, "param_groups": []},
        {"state": {}, "param_groups": [{"params": ["a"]}]},
    ],
    "scaler": [{"scale": "x"}],
    "amp": ["fp64", None],
    "updates": [-1, True],
    "average_trusted": [1],
    "over": [0, None],
    "epochs": [0.5],
    "step": [None],
    "meter": [{}, {"names": ["a"], "sums": torch.ones(2), "count": 1}, {"names": ["a"], "sums": None, "count": 1}],
    "best_fitness": ["x"],
    "best_files": [{"../best": 1}, {"best": -1}],
    "frozen": [[1]],
    "freeze_layer_names": ["abc"],
    "plan": [[]],
    "data": [{"train": 1}],
    "trainer": [None],
    "history": [[{"box": "x"}], {}],
    "elapsed": [float("nan"), -1.0],
    "bad_images": [[], {"train": ["a.jpg"]}, {"train": {"a.jpg": 1}}],
    "rollbacks": [-1, 0.5],
    "notes": ["other", [1]],
    "callbacks": [{"X": {}}, {"X": {"settings": [], "state": 1}}],
    "rng": [torch.zeros(3), torch.zeros(2, 2, dtype=torch.uint8), b"x"],
    "cuda_rng": [3],
}


@pytest.mark.parametrize("name", STATE)
def test_an_entry_of_a_run_that_is_missing_or_of_another_type(name: str, content: dict[str, Any]) -> None:
    whole = content | {"state": WHOLE | {"model": content["model"]}}
    check_fields(whole)
    for wrong in WRONG[name]:
        with pytest.raises(
            CheckpointError, match=rf"its entry 'state\.{name}' should be {re.escape(STATE[name].what)}"
        ):
            check_fields(whole | {"state": whole["state"] | {name: wrong}})
    if name in NEEDED_OF_STATE:
        with pytest.raises(CheckpointError, match=rf"its entry 'state\.{name}' is missing"):
            check_fields(whole | {"state": {key: value for key, value in whole["state"].items() if key != name}})


def test_what_only_a_resume_needs(content: dict[str, Any]) -> None:
    check_fields({key: value for key, value in content.items() if key not in RUN})
    whole = content | {"state": WHOLE | {"model": content["model"]}}
    for name in ("train_args", "train_sources", "train_metrics", "fitness", "epoch"):
        with pytest.raises(CheckpointError, match=f"'{name}' is missing"):
            check_fields({key: value for key, value in whole.items() if key != name})


@pytest.mark.parametrize(
    "wrong", [object(), "\ud800", [torch.ones(1)], {1: {2: 3}}], ids=["object", "text", "tensor", "keys"]
)
def test_no_entry_takes_everything(wrong: object, content: dict[str, Any]) -> None:
    for name in FIELDS:
        with pytest.raises(CheckpointError, match=name):
            check_fields(copy.copy(content) | {name: wrong})
