"""Names, files and tables of layers: what is accepted, and what each mistake is told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from eyas.models import MODELS, DetectionModel, ModelTableError, UnknownModelError, model_table, resolve_model
from eyas.models.graph import Scale
from eyas.models.yolo26 import yolo26_table
from eyas.nn import C3k

TINY: dict[str, Any] = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 2, "C3k2", [16]]],
    "head": [[[-1], 1, "Detect", ["nc"]]],
}


def tiny(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TINY), **changes}


@pytest.mark.parametrize("name", ["yolo26s", "yolo26s.yaml", "YOLO26s.pt", "yolo26S"])
def test_names_resolve(name: str) -> None:
    assert resolve_model(name) == "yolo26s"


def test_family_means_its_smallest_member() -> None:
    assert resolve_model("yolo26") == "yolo26n"


@pytest.mark.parametrize(
    ("wrong", "near"), [("yolo26z", "yolo26"), ("yol026n.yaml", "yolo26n"), ("yolov26m", "yolo26m")]
)
def test_typo_gets_the_nearest_name(wrong: str, near: str) -> None:
    with pytest.raises(UnknownModelError, match=near):
        resolve_model(wrong)
    with pytest.raises(UnknownModelError, match="known models are yolo26n"):
        DetectionModel(wrong, verbose=False)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("rtdetr-r50-o365", r"published weights.*RTDETR\('rtdetr-r50'\)\.load\('rtdetr-r50-o365'\)"),
        ("resnet18-vd", r"published weights.*model=rtdetr-r18 pretrained=resnet18-vd"),
        (
            "My/X.pth",
            r"My/X.pth holds weights only.*RTDETR\('rtdetr-r50'\)\.load\('My/X.pth'\), or model=.* pretrained=My",
        ),
        ("rtdetrv2_r34vd_120e_coco_ema.pth", r"weights only.*RTDETR\('rtdetrv2-r34'\)\.load\("),
    ],
)
def test_weights_are_no_model(weights: str, message: str) -> None:
    with pytest.raises(UnknownModelError, match=message):
        model_table(weights)


def test_missing_file_is_named() -> None:
    with pytest.raises(UnknownModelError, match="nowhere/model.yaml does not exist"):
        model_table("nowhere/model.yaml")


def test_tables_are_fresh() -> None:
    first = model_table("yolo26n")
    first["backbone"].clear()
    assert len(model_table("yolo26n")["backbone"]) == 11
    given = tiny()
    DetectionModel(given, nc=7, verbose=False)
    assert given == TINY, "the caller's table was changed"


def test_user_file_with_scales(tmp_path: Path) -> None:
    table = {k: v for k, v in yolo26_table().items() if k not in ("scale", "yaml_file")}
    (tmp_path / "mine26.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    by_file = DetectionModel(tmp_path / "mine26s.yaml", nc=4, verbose=False)
    built_in = DetectionModel("yolo26s.yaml", nc=4, verbose=False)
    assert by_file.yaml["scale"] == "s"
    assert {k: v.shape for k, v in by_file.state_dict().items()} == {
        k: v.shape for k, v in built_in.state_dict().items()
    }
    first = DetectionModel(tmp_path / "mine26.yaml", nc=4, verbose=False)
    assert first.yaml["scale"] == "n"


def test_yaml_values_are_taken_as_yaml_gives_them(tmp_path: Path) -> None:
    text = """
nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [-1, 1, C3k2, [16, True, 0.5]]
head:
  - [[1, 2], 1, Concat, [1]]
  - [[-1], 1, Detect, [nc]]
"""
    (tmp_path / "net.yaml").write_text(text)
    model = DetectionModel(tmp_path / "net.yaml", verbose=False)
    assert model.nc == 2
    assert model.stride.tolist() == [1]
    assert not model.end2end
    with pytest.raises(ValueError, match="no one-to-one branch"):
        model.end2end = True


def test_repeated_plain_layers_and_distributional_head() -> None:
    table = tiny(reg_max=4, backbone=[[-1, 1, "Conv", [8, 3, 2]], [-1, 3, "Conv", [8, 3]], [-1, 1, "SPPF", [8, 5]]])
    model = DetectionModel(table, verbose=False)
    assert "model.1.2.conv.weight" in model.state_dict()
    assert "model.3.dfl.conv.weight" in model.state_dict()
    assert not model.get_parameter("model.3.dfl.conv.weight").requires_grad


def test_scale_rules() -> None:
    scale = Scale(depth=0.5, width=0.25, max_channels=512)
    assert [scale.repeats(n) for n in (1, 2, 3, 6)] == [1, 1, 2, 3]
    assert [scale.channels(c) for c in (64, 100, 1024)] == [16, 32, 128]
    assert [Scale(depth=2).repeats(n) for n in (1, 2, 3)] == [1, 4, 6]


@pytest.mark.parametrize(("letter", "blocks"), [("n", 0), ("s", 0), ("m", 2), ("l", 2), ("x", 2)])
def test_larger_scales_are_built_of_c3k(letter: str, blocks: int) -> None:
    model = DetectionModel(tiny(scales={letter: [1, 1, 64]}), verbose=False)
    assert sum(isinstance(m, C3k) for m in model.model[2].modules()) == blocks


ROW_ERRORS = [
    ([-1, 1, "Conv2", [8]], "did you mean Conv"),
    ([-1, 1, "__import__('os')", []], "no layer is called"),
    ([-1, 1, "Conv"], "four cells"),
    ("Conv", "four cells"),
    ([-1, 0, "Conv", [8]], "repeats is 0"),
    ([-1, "2", "Conv", [8]], "repeats is '2'"),
    ([-1, 1, "Conv", 8], "args is 8"),
    ([7, 1, "Conv", [8]], "names row 7"),
    ([-9, 1, "Conv", [8]], "names row -9"),
    ([-3, 1, "Conv", [8]], "names row -3"),  # one before row 0: the image
    (["-1", 1, "Conv", [8]], "from is '-1'"),
    ([[], 1, "Concat", [1]], "from is empty"),
    ([[0, 1], 1, "Conv", [8]], "takes one input"),
    ([-1, 1, "Conv", [8, 3, 2, 1, 1, 1, True, "extra"]], "Conv cannot be built"),
    ([-1, 1, "Conv", ["8"]], "Conv cannot be built"),
    ([-1, 1, "C2PSA", [32]], "keeps its width"),
    ([-1, 1, "nn.Upsample", [64, 2]], "takes a factor"),
    ([-1, 1, "Detect", [5]], "write nc"),
]


@pytest.mark.parametrize(("row", "message"), ROW_ERRORS, ids=[m for _, m in ROW_ERRORS])
def test_a_wrong_row_is_named(row: Any, message: str) -> None:
    table = tiny()
    table["backbone"].insert(2, row)
    with pytest.raises(ModelTableError, match="row 2 ") as error:
        DetectionModel(table, verbose=False)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": None}, "head is missing"),
        ({"head": [[-1, 1, "Conv", [8]]]}, "must be Detect"),
        ({"scales": {"n": [1, 1, 64]}, "scale": "q"}, "scale 'q' is not among"),
    ],
)
def test_a_wrong_table_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelTableError, match=message):
        DetectionModel(tiny(**changes), verbose=False)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "b.yaml").write_text("a: [1\n")
    with pytest.raises(ModelTableError, match="holds no mapping"):
        model_table(tmp_path / "a.yaml")
    with pytest.raises(ModelTableError, match="b.yaml, line 2: no valid YAML"):
        model_table(tmp_path / "b.yaml")


def test_catalogue() -> None:
    yolo, numbered = [f"yolo26{s}" for s in "nsmlx"], ["l", "x", "resnet50", "resnet101", "tiny"]
    official = ["r18", "r34", "r50m", "r50", "r101", "hgnetv2-l", "hgnetv2-x", "hgnetv2-h"]
    assert list(MODELS) == [
        *yolo, *(f"rtdetr-{n}" for n in numbered), *(f"rtdetr-{n}" for n in official),
        *(f"rtdetrv2-{n}" for n in official), *(f"dfine-{n}" for n in ("n", "s", "m", "l", "x", "tiny")),
        *(f"deim-dfine-{n}" for n in "nsmlx"), "deim-tiny",
        *(f"deim-rtdetrv2-{n}" for n in ("r18", "r34", "r50", "r101", "r50m")),
        *(f"deimv2-{n}" for n in ("atto", "femto", "pico", "n", "s", "m", "l", "x", "tiny")),
        *(f"ecdet-{n}" for n in ("s", "m", "l", "x", "tiny")),
        "dino-r50", "dino-r50-original", "dino-tiny",
    ]  # fmt: skip
    for name, table in MODELS.items():
        assert model_table(name) == table() != model_table("yolo26n" if name != "yolo26n" else "yolo26s")
        assert model_table(table()) == {**model_table(table()), **table()}, "rebuilding changes a table"
        assert table()["yaml_file"] == f"{name}.yaml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "detr"}, "arch is 'detr'"),
        ({"arch": "rtdetr", "variant": "r19"}, "Did you mean 'r18'"),
        ({"arch": "rtdetr", "variant": "r18", "query": 3}, "Did you mean 'queries'"),
    ],
)
def test_a_wrong_table_without_rows_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelTableError, match=message):
        model_table(changes)
