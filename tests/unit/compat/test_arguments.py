"""Arguments that scripts pass out of habit: left out when they ask for what happens anyway, and never otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eyas.compat.arguments import Arguments
from eyas.config import resolve
from eyas.config.errors import UNSUPPORTED, OptionError

# Spec core G: every argument there is, at its default.
DEFAULTS: dict[str, Any] = {
    "epochs": 100,
    "time": None,
    "patience": 100,
    "batch": 16,
    "imgsz": 640,
    "save": True,
    "save_period": -1,
    "cache": False,
    "device": None,
    "workers": 8,
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
    "rect": False,
    "cos_lr": False,
    "close_mosaic": 10,
    "resume": False,
    "amp": True,
    "fraction": 1.0,
    "profile": False,
    "freeze": None,
    "multi_scale": 0.0,
    "compile": False,
    "channels_last": None,
    "val": True,
    "split": "val",
    "save_json": False,
    "conf": None,
    "iou": 0.7,
    "max_det": 300,
    "quantize": None,
    "dnn": False,
    "plots": True,
    "nms": None,
    "augment": False,
    "agnostic_nms": False,
    "classes": None,
    "visualize": False,
    "save_txt": False,
    "save_conf": False,
    "show_labels": True,
    "show_conf": True,
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
    "box": 7.5,
    "cls": 0.5,
    "dfl": 1.5,
    "cls_pw": 0.0,
    "nbs": 64,
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
    "copy_paste": 0.0,
    "copy_paste_mode": "flip",
    "distill_model": None,
    "dis": 6.0,
    "cfg": None,
    "overlap_mask": True,
    "mask_ratio": 4,
    "dropout": 0.0,
    "source": None,
    "vid_stride": 1,
    "stream_buffer": False,
    "embed": None,
    "retina_masks": False,
    "show": False,
    "save_frames": False,
    "save_crop": False,
    "show_boxes": True,
    "line_width": None,
    "format": "torchscript",
    "optimize": False,
    "dynamic": False,
    "simplify": True,
    "opset": None,
    "workspace": None,
    "pose": 12.0,
    "kobj": 1.0,
    "rle": 1.0,
    "angle": 1.0,
    "dlog": 1.0,
    "dgrad": 0.5,
    "dlam": 1.0,
    "auto_augment": "randaugment",
    "erasing": 0.4,
    "tracker": "tracktrack.yaml",
    "task": "detect",
    "mode": "train",
    "augmentations": None,
}
OF_OLD = {"device": "", "multi_scale": False, "save_hybrid": False, "label_smoothing": 0.0, "image_weights": False} | {
    "fl_gamma": 0.0,
    "v5loader": False,
    "half": False,
    "int8": False,
    "crop_fraction": 1.0,
    "keras": False,
    "imgsz": (640, 640),
    "min_memory": False,
    "hide_labels": False,
    "hide_conf": False,
    "boxes": True,
}


def read(command: str, **given: Any) -> dict[str, Any]:
    kept = Arguments().read(command, given)
    resolve(call=kept, command=command)
    return kept


@pytest.mark.parametrize("given", [DEFAULTS, DEFAULTS | OF_OLD], ids=["of today", "of old"])
def test_all_defaults_together_are_taken(given: dict[str, Any]) -> None:
    kept = read("train", **given)
    assert kept["imgsz"] == 640 and kept["epochs"] == 100 and kept["multi_scale"] == 0.0
    assert not kept.keys() & UNSUPPORTED.keys()


@pytest.mark.parametrize("command", ["val", "predict", "track"])
def test_the_usual_arguments_of_other_commands_are_taken(command: str) -> None:
    usual = {"half": False, "dnn": False, "augment": False, "rect": True, "visualize": False, "mode": command}
    usual |= {"save_txt": False, "single_cls": False, "plots": True, "show": False, "device": "", "batch": 1}
    assert read(command, **usual, conf=0.4, imgsz=[320, 320])["conf"] == 0.4


@pytest.mark.parametrize(
    ("command", "given", "match"),
    [
        ("train", {"rect": True}, "training batches are square"),
        ("train", {"multi_scale": True}, "multi_scale=0.5"),
        ("train", {"label_smoothing": 0.1}, "nothing to smooth"),
        ("train", {"dropout": 0.1}, "dropout"),
        ("train", {"copy_paste": 0.3}, "use mixup or cutmix"),
        ("train", {"fl_gamma": 1.5}, "class_weights"),
        ("train", {"image_weights": True}, "sampler='balanced'"),
        ("train", {"task": "segment"}, "one task"),
        ("train", {"mode": "val"}, "mode"),
        ("train", {"split": "test"}, "no effect on train"),
        ("train", {"device": "gpu"}, "no such kind of device"),
        ("train", {"imgsz": (640, 480)}, "imgsz"),
        ("train", {"half": True}, "amp"),
        ("train", {"compile": "max-autotune"}, "compile"),
        ("val", {"compile": True}, "no effect on val"),
        ("train", {"save_hybrid": True}, "meaningless"),
        ("train", {"augment": 1}, "test-time"),
        ("val", {"rect": False}, "rect"),
        ("val", {"epochs": 3}, "no effect on val"),
        ("predict", {"save_json": True}, "no effect on predict"),
        ("train", {"vid_stride": 2}, "no effect on train"),
        ("val", {"save_crop": True}, "no effect on val"),
        ("predict", {"show": True}, r"\.show\(\)"),
        ("predict", {"hide_labels": True}, "plot"),
        ("train", {"imgz": 640}, "did you mean imgsz"),
    ],
)
def test_what_asks_for_something_else_is_refused(command: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        read(command, **given)


def test_one_notice_names_all_of_them_and_each_once(warnings: list[str]) -> None:
    arguments = Arguments()
    for _ in range(2):
        arguments.read("train", {"task": "detect", "rect": False, "epochs": 3})
    arguments.read("predict", {"half": False, "task": "detect"})
    assert len(warnings) == 2, warnings
    assert "task='detect', rect=False" in warnings[0] and "epochs" not in warnings[0]
    assert "half=False" in warnings[1] and "task" not in warnings[1]


def test_a_file_of_arguments_is_read_alike(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("task: detect\nepochs: 7\nrect: false\nlrf: 0.1\n")
    kept = read("train", cfg=str(tmp_path / "args.yaml"), epochs=3)
    assert kept == {"epochs": 3, "lrf": 0.1}
    (tmp_path / "args.yaml").write_text("rect: true\n")
    with pytest.raises(OptionError, match="rect"):
        read("train", cfg=tmp_path / "args.yaml")
