"""What a table may ask for, in files and in mappings; `hostile` has more of them, in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import small_yolo
from eyas.models import ModelTableError, build_detector
from eyas.models.bounds import Allowance, Passage
from eyas.models.graph import Scale
from eyas.nn import Upsample


def numbers_of(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in [*module.parameters(), *module.buffers()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 6), nn.Embedding(7, 8)),
        lambda: nn.MultiheadAttention(8, 2),
        lambda: [torch.ones(2, 3), torch.zeros((4, 5)), torch.randn(6), torch.full([2], 1.0), torch.ones(3).clone()],
    ],
)
def test_every_number_is_counted_before_it_is_made(make: Any) -> None:
    made = make()
    exactly = numbers_of(made) if isinstance(made, nn.Module) else 6 + 20 + 6 + 2 + 3 + 3
    with Allowance(exactly + 1):  # batch normalisation counts its batches
        make()
    with pytest.raises(ValueError, match="more than"), Allowance(exactly - 1):
        make()


def test_many_small_tensors_are_counted_too() -> None:
    with pytest.raises(ValueError, match="20,000 tensors"), Allowance():
        nn.ParameterList(torch.empty(0) for _ in range(20_001))


def test_maps_are_looked_at_before_they_are_made() -> None:
    passage, image = Passage(), torch.zeros(1, 4, 64, 64)
    passage.before(nn.Conv2d(4, 8, 3), image)
    passage.before(nn.Identity(), [image, image])
    with pytest.raises(ValueError, match="for an image of 64 px"):
        passage.before(Upsample(1000), image)
    with pytest.raises(ValueError, match="beyond what any detector"):
        passage.before(nn.MultiheadAttention(64, 64), torch.zeros(1, 64, 64, 64))


def changed(**entries: Any) -> dict[str, Any]:
    return {**small_yolo.table(), **entries}


def first_row(row: list[Any]) -> dict[str, Any]:
    return changed(backbone=[row, *small_yolo.table()["backbone"][1:]])


@pytest.mark.parametrize(
    ("table", "tells"),
    [
        (changed(nc=10**9), "nc is 1000000000, and must be a whole number from 1 to 100,000"),
        (changed(nc=0), "nc is 0"),
        (changed(nc="80"), "nc is '80'"),
        (changed(scales={"n": [1e9, 1, 64]}), "its scale is no"),
        (changed(scales={"n": ["x"]}), "its scale is no"),
        (changed(scales=3), "scales is 3, and must be a mapping"),
        (changed(scales=[1]), r"scales is \[1\], and must be a mapping"),
        (changed(scale=[1]), r"scale \[1\] is not among its scales n"),
        (changed(backbone=[[-1, 1, "Conv", [8]]] * 1000), "has more than 1,000 rows"),
        (changed(backbone=[[-1, 10**9, "Conv", [8]]]), "row 0 .*repeated 500000000 times, and 128 are the most"),
        (
            changed(backbone=[[-1, 1, "Conv", [10**9]]], scales={"n": [1, 1, 1e12]}),
            "row 0 .* more than 300,000,000 numbers",
        ),
        (changed(backbone=[[-1, 1, ["Conv"], [8]]]), r"no layer is called \['Conv'\]"),
        (changed(backbone=[[-1, 1, "Conv", [8, 3, 1, 5]]]), "a padding of 5 is more than half of its kernel"),
        (changed(backbone=[[-1, 1, "SPPF", [8, 1001]]]), "its window is at most 63 wide"),
        (changed(backbone=[[-1, 1, "Conv", ["x" * 5000]]]), r"row 0 .*xxx \.\.\.: Conv cannot be built"),
        ({"arch": "rtdetr", "variant": "r18", "queries": 10**9}, "queries is 1000000000, .* at most 10,000"),
        ({"arch": "rtdetr", "variant": "r18", "eval_layer": 7}, "eval_layer is 7"),
        ({"arch": "rtdetr", "variant": "r18", "eval_layer": None}, "eval_layer is None"),
        (first_row([-1, 1, "Conv", [8, 3, "x" * 5000]]), "row 0 .* cannot be"),
        ({"arch": "rtdetr", "variant": "r" * 5000}, r"variant is 'rrr.*rrr \.\.\.\. There are r18"),
        ({"arch": "x" * 5000}, r"arch is 'xxx.*xxx \.\.\., and must be"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_table_that_asks_for_too_much_names_its_file(table: dict[str, Any], tells: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(table))
    with pytest.raises(ModelTableError, match=tells) as error:
        build_detector(file, verbose=False)
    assert str(file) in str(error.value) and len(str(error.value)) < 1000
    with pytest.raises(ModelTableError, match=tells):
        build_detector(table, verbose=False)


def test_a_scale_is_three_numbers() -> None:
    assert Scale.checked({"scales": {"n": [0.5, 0.25, 1024]}, "scale": "n"}, "here").channels(64) == 16
    for wrong in ([0, 1, 8], [1, float("nan"), 8], [1, 1, -1], [1, 1], None):
        with pytest.raises(ModelTableError, match=r"here: its scale is no \[depth, width, most channels\]"):
            Scale.checked({"scales": {"n": wrong}, "scale": "n"}, "here")
