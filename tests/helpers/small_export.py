"""Small models that are nearly perfect on data of their own, and what is compared with the files that they become."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor

from eyas import YOLO
from eyas.evaluate.inference import inference_state
from eyas.export import BoxModel, Card, Exported
from eyas.models import Detector, build_detector

SIZE = 64
NAMES = {0: "cat", 1: "dog", 2: "owl"}
CHOSEN = 5  # objects of an image
DETECT = [[2, 3, 4], 1, "Detect", ["nc"]]
SET_DECODER = [[2, 3, 4], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 1, 32]]


class StateDict:
    """A target of a user's own: weights and table of the model, run by its classes."""

    name, suffix = "state", ".state"

    def write(self, model: BoxModel, path: Path, card: Card) -> None:
        torch.save({"state": model.state_dict(), "table": model.detector.yaml, "card": card.text()}, path)

    def open(self, path: Path) -> Exported:
        held = torch.load(path, weights_only=True)
        model = BoxModel(build_detector(held["table"], verbose=False))
        model.load_state_dict(held["state"])
        return Exported(Card.from_text(held["card"]), torch.no_grad()(model))


def untrained(head: list[object], folder: Path) -> YOLO:
    """A model of five convolutions and a head, whose boxes and scores differ from place to place."""
    path = folder / "shallow.yaml"
    trunk = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16, 16, 16)]
    path.write_text(yaml.safe_dump({"nc": len(NAMES), "end2end": True, "backbone": trunk, "head": [head]}))
    torch.manual_seed(0)
    return shaken(YOLO(path), folder)


def shaken(yolo: YOLO, folder: Path) -> YOLO:
    """The same model with boxes and scores that differ from place to place; its files go into a folder."""
    yolo.model.names = NAMES
    yolo.model.start_outputs(SIZE)
    yolo.model.train()
    with torch.no_grad():
        for key, value in yolo.model.head.named_parameters():
            value.mul_(0.2 if key.startswith("one2one_cv2") and key.endswith("2.bias") else 1)  # boxes of half a cell
            value.add_(0.3 * torch.randn_like(value))
        for _ in range(20):  # averages of the normalisations; those that it starts with let nothing through
            yolo.model(torch.rand(4, 3, SIZE, SIZE))
    yolo.model.eval()
    yolo.ckpt_path = str(folder / "best.pt")  # files go beside it
    return yolo


def own_data(model: Detector, folder: Path) -> str:
    """YAML of noisy squares of ``SIZE`` px, labelled with the best that the model finds in each."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(6):
        cells = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        found = answer(model, torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)[0, :CHOSEN]
        low, high = found[:, :2].clamp(0, SIZE) / SIZE, found[:, 2:4].clamp(0, SIZE) / SIZE
        rows = torch.cat((found[:, 5:], (low + high) / 2, high - low), 1).tolist()
        text = "\n".join(f"{int(cls)} " + " ".join(f"{v:.7f}" for v in box) for cls, *box in rows)
        (folder / "labels" / f"{i}.txt").write_text(text)
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"path": str(folder), "train": "images", "val": "images", "names": NAMES}))
    return str(path)


def answer(model: Detector, images: Tensor) -> Tensor:
    """What the model itself answers, in pixels."""
    with torch.no_grad(), inference_state(model, nms=None, max_det=300, agnostic=False):
        return model.in_pixels(model(images)[0], SIZE, SIZE)


def assert_alike(found: Tensor, expected: Tensor, *, pixels: float = 2e-3) -> None:
    """The best detections are the same; others, whose scores hardly differ, may change places."""
    assert found.shape == expected.shape and expected[..., :4].std() > 1
    torch.testing.assert_close(found[:, :10], expected[:, :10], atol=pixels, rtol=1e-4)
