"""Real tiny trainings of DINO: the loop, the facade and files treat it as they treat the others."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eyas import YOLO
from eyas.callbacks import Callback
from eyas.checkpoint import load_checkpoint
from eyas.export import BoxModel
from eyas.models.dino.net import DINONet
from eyas.train import DINOTrainer


class Stop(Callback):
    def on_train_batch_end(self, trainer: Any) -> None:
        if (trainer.epoch, trainer.step) == (1, 0):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def given(digits_tiny: Path) -> dict[str, Any]:
    """Options of two epochs of two steps, with denoising and sizes that change."""
    return {
        "model": "dino-tiny", "data": str(digits_tiny), "imgsz": 64, "fraction": 0.25, "batch": 8, "epochs": 2,
        "workers": 0, "device": "cpu", "plots": False, "verbose": False,
        "lr_rules": {"backbone": 0.5, "head.cls": 2.0}, "freeze": "backbone.p2", "class_weights": {"3": 2.0},
        "ignore": ["7"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> DINOTrainer:
    trainer = DINOTrainer(overrides=given | {"save_dir": str(tmp_path_factory.mktemp("dino") / "run")})
    trainer.train()
    return trainer


def test_it_trains_by_its_recipe_and_as_options_say(trained: DINOTrainer) -> None:
    losses = [f"{split}/{name}_loss" for split in ("train", "val") for name in ("giou", "cls", "l1")]
    assert all(math.isfinite(row[name]) for row in trained.history.rows for name in losses)
    assert (trained.plan.schedule, trained.plan.lrf, trained.args.clip_grad_norm) == ("step", 0.1, 0.1)
    rates = {group["name"]: group["initial_lr"] for group in trained.optimizer.param_groups}
    assert rates["backbone.weight"] == pytest.approx(2e-3 / 2) and rates["head.cls.weight"] == pytest.approx(2e-3 * 2)
    frozen = [name for name, p in trained.model.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith(trained.model.sections()["backbone.p2"]) for name in frozen)
    norms = [m for name, m in trained.model.named_modules() if name.startswith("backbone.layer1.") and "bn" in name]
    assert norms and all(not m.training and int(m.num_batches_tracked) == 0 for m in norms)
    told = json.loads((trained.save_dir / "effects.json").read_text())["settings"]
    assert all(told[name]["seen"] for name in ("ignore", "class_weights", "lr_rules", "freeze"))


def test_resumed_is_straight(trained: DINOTrainer, given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        DINOTrainer(overrides=given | {"save_dir": str(tmp_path / "broken")}, _callbacks=[Stop()]).train()
    last = tmp_path / "broken" / "weights" / "last.pt"
    DINOTrainer(overrides={"resume": str(last)}).train()
    one, other = (load_checkpoint(path)["state"]["model"] for path in (trained.last, last))
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


ELSEWHERE = """
import json, sys
from eyas import YOLO
best, image = sys.argv[1:]
yolo = YOLO(best)
metrics = yolo.val(plots=False, verbose=False, workers=0, device="cpu", save_dir="val")
boxes = yolo.predict(image, conf=0.01, imgsz=64, device="cpu")[0].boxes.xyxy
print(json.dumps([type(yolo.model).__name__, metrics.box.map50, boxes.tolist()]))
"""


def test_its_file_opens_in_a_process_that_has_seen_nothing(trained: DINOTrainer, forked: None, tmp_path: Path) -> None:
    """An image that is wider than high, whose boxes lie in it and not in the padding above and below."""
    image = tmp_path / "wide.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(trained.best), str(image)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    kind, map50, boxes = json.loads(done.stdout.splitlines()[-1])
    best = load_checkpoint(trained.best)["train_metrics"]["metrics/mAP50(B)"]
    assert kind == "DINONet" and map50 == best > 0
    assert all(0 <= x1 <= x2 <= 90 and 0 <= y1 <= y2 <= 40 for x1, y1, x2, y2 in boxes) and boxes


def test_a_file_that_leaves_gives_the_same_boxes(trained: DINOTrainer) -> None:
    """Masks travel in the graph: what padding looks like makes no difference to the file, and that it is there does."""
    model = YOLO(trained.best)
    assert type(model.model) is DINONet
    opened = YOLO(model.export("torchscript", imgsz=64, verify=False)).exported
    assert opened is not None
    folded = BoxModel(model.model)  # cells that score almost alike would change places with other rounding
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    answers = []
    for grey in (114, 90, 255):
        image[:, :, :9] = image[:, :, 50:] = grey / 255
        answers.append(opened(image)[0])
        torch.testing.assert_close(answers[-1], folded(image), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


def test_given_weights_keep_what_was_frozen_and_random_ones_are_all_trained(
    trained: DINOTrainer, given: dict[str, Any], tmp_path: Path
) -> None:
    frozen = ("frozen_norms", "freeze_stem", "freeze_p2")
    of = DINOTrainer.table_to_train
    assert [of("dino-r50-original", from_scratch=False)[key] for key in frozen] == [True] * 3
    assert [of("dino-r50-original", from_scratch=True)[key] for key in frozen] == [False] * 3
    plain = {key: value for key, value in given.items() if key not in ("lr_rules", "freeze", "class_weights", "ignore")}
    trainer = DINOTrainer(overrides=plain | {"model": str(trained.best), "save_dir": str(tmp_path / "again")})
    with trainer.prepared():
        rates = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates["backbone.weight"] == pytest.approx(0.1 * rates["weight"])
    assert rates["weight"] == pytest.approx(1e-4)
