"""Weights without code: what is written is read again, and what is broken is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eyas.checkpoint import CheckpointError, load_checkpoint, read_tensors
from eyas.checkpoint.safetensors import LENGTH, SafeTensorsError, read_safetensors, write_safetensors

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(7, dtype=torch.int64),
    "c": torch.tensor([1.5, -2], dtype=torch.float16),
    "d": torch.zeros(0, 4),
    "e": torch.tensor([True, False, True]),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, TENSORS, {"hello": "wörld"})
    tensors, texts = read_safetensors(path)
    assert texts == {"hello": "wörld"} and tensors.keys() == TENSORS.keys()
    for key, value in TENSORS.items():
        assert tensors[key].dtype == value.dtype and torch.equal(tensors[key], value), key


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """Read by the words of the specification: length, JSON, then the numbers where the JSON says."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": torch.tensor([1.0, 2.0])}, {})
    held = path.read_bytes()
    length = int.from_bytes(held[:8], "little")
    header = json.loads(held[8 : 8 + length])
    assert header["x"] == {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} and length % 8 == 0
    assert held[8 + length :] == bytes.fromhex("0000803f00000040")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        7,
    ],
)
def test_a_table_that_lies_is_refused(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "a.safetensors"
    table = json.dumps({"x": entry}).encode()
    path.write_bytes(LENGTH.pack(len(table)) + table + bytes(8))
    with pytest.raises(SafeTensorsError, match=r"a\.safetensors is no file of safetensors"):
        read_safetensors(path)


def test_weights_of_others_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, TENSORS, {"format": "pt"})
    assert read_tensors(path).keys() == TENSORS.keys()
    with pytest.raises(CheckpointError, match="holds 5 tensors and no description of a model"):
        load_checkpoint(path)
