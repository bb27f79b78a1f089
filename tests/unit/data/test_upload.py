"""A batch on its way to a device: all of it arrives, and beside a GPU's work it goes on a stream of its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from eyas.data.upload import Upload, moved

CPU = torch.device("cpu")


def batch() -> dict[str, Any]:
    return {"img": torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2), "im_file": ["a.jpg"], "max_objects": 2}


def test_tensors_arrive_and_all_else_stays() -> None:
    given = batch()
    there = Upload(CPU)(given)
    assert list(there) == list(given)
    assert torch.equal(there["img"], given["img"]) and there["img"].dtype == torch.uint8
    assert (there["im_file"], there["max_objects"]) == (["a.jpg"], 2)


def test_nothing_is_copied_on_a_cpu() -> None:
    given = batch()
    upload = Upload(CPU)
    assert upload.stream is None
    assert upload(given)["img"] is given["img"]


def test_what_computes_waits_for_what_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what a GPU is told; what it does then is tested on one (tests/gpu)."""
    told: list[str] = []

    class Stream:
        def wait_stream(self, other: object) -> None:
            told.append("the step waits for the copy" if other is copies and self is not copies else "wrong")

    @contextmanager
    def inside(stream: object) -> Any:
        told.append("copying begins" if stream is copies else "wrong")
        yield
        told.append("copying is asked for")

    upload, copies = Upload(CPU), Stream()
    monkeypatch.setattr(upload, "stream", copies)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr("eyas.data.upload.moved", lambda *given: told.append("copy") or moved(*given))
    assert torch.equal(upload(batch())["img"], batch()["img"])
    assert told == ["copying begins", "copy", "copying is asked for", "the step waits for the copy"]
