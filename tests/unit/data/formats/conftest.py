"""A folder of three tiny images, and a COCO file of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eyas.data import check_dataset
from small_coco import SIZES, Read, content, make_image, read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    for name, size in SIZES.items():
        make_image(tmp_path / "set/train" / name, *size)
    return tmp_path / "set"


@pytest.fixture
def coco(folder: Path) -> Callable[..., Read]:
    """Return a function that writes a COCO file and reads it as a split."""

    def call(*, names: list[str] | None = None, text: str | None = None, **changes: Any) -> Read:
        file = folder / "annotations/instances_train.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content(**changes)) if text is None else text)
        given = {} if names is None else {"names": names}
        described = check_dataset({"path": folder, "train": str(file), **given}, splits=("train",))
        return read(described["train"])

    return call
