"""Fuzzed YAML files: model tables, data sets and options."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

import small_yolo
from eyas.config import TrainOptions, resolve
from eyas.data.dataset_yaml import check_dataset
from eyas.models import build_detector, model_table
from fuzzing import Case, changed_yaml


class Tables:
    """Tables of layers; a network is built from each, and predicts once."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "table.yaml"
        tables = [small_yolo.table(), model_table("rtdetr-tiny"), model_table("rtdetr-r18")]
        self.sound = [{key: value for key, value in table.items() if key != "yaml_file"} for table in tables]

    def case(self, rng: random.Random) -> Case:
        """Return a changed table."""
        sound = self.sound[rng.choices(range(3), (6, 3, 1))[0]]
        change, data = changed_yaml(sound, rng)
        self.file.write_bytes(data)
        return Case(change, self.use, str(self.file))

    def use(self) -> None:
        """Build the network, and predict."""
        model = build_detector(self.file, verbose=False).eval()
        size = max(64, int(model.stride.max()))
        with torch.no_grad():
            model.predict(torch.zeros(1, 3, size, size))


class DataSets:
    """Descriptions of data sets."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "data.yaml"
        for split in ("train", "valid", "test"):
            (folder / "images" / split).mkdir(parents=True)
        common: dict[str, Any] = {"path": ".", "train": "images/train", "val": ["images/valid"]}
        self.sound = [
            {**common, "names": {0: "cat", 1: "dog", 2: "1"}, "test": None, "channels": 3, "kpt_shape": [17, 3]},
            {**common, "names": ["cat", "dog"], "nc": 2, "ids_start": 1, "value_range": 4095},
            {**common, "names": {3: "cat", 7: "dog"}, "val": 0.1},
        ]

    def case(self, rng: random.Random) -> Case:
        """Return a changed description."""
        change, data = changed_yaml(rng.choice(self.sound), rng)
        self.file.write_bytes(data)
        return Case(change, lambda: check_dataset(self.file), str(self.file))


class Options:
    """Files of options."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "file.yaml"
        some = {"class_weights": {"cat": 2, "dog": 1.5}, "freeze": [0, 1], "lr_rules": {"backbone": 0.1}}
        self.sound = [
            TrainOptions().to_dict() | {"model": "yolo26n", "data": "digits"},
            some | {"epochs": 3, "lr0": 1e-3},
        ]

    def case(self, rng: random.Random) -> Case:
        """Return a changed file."""
        change, data = changed_yaml(rng.choice(self.sound), rng)
        self.file.write_bytes(data)
        return Case(change, lambda: resolve(file=self.file), "file")  # or: epochs=3 (file) ...
