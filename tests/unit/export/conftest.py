"""Models that several files export, made once for each."""

from __future__ import annotations

import pytest

from eyas import YOLO
from small_export import DETECT, SET_DECODER, own_data, untrained


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return untrained(DETECT, tmp_path_factory.mktemp("yolo"))


@pytest.fixture(scope="module")
def rtdetr(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return untrained(SET_DECODER, tmp_path_factory.mktemp("rtdetr"))


@pytest.fixture(scope="module")
def data(yolo: YOLO, tmp_path_factory: pytest.TempPathFactory) -> str:
    return own_data(yolo.model, tmp_path_factory.mktemp("data") / "own")
