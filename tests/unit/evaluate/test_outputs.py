"""The files of a prediction, and what results say as tables and texts."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from eyas.evaluate import Results
from eyas.evaluate import results as results_module
from eyas.evaluate.outputs import Outputs

NAMES = {0: "cat", 1: "a/../dog"}
ROWS = [[10.0, 10, 30, 40, 0.9, 0], [4, 4, 12, 12, 0.5, 0], [50, 20, 62, 44, 0.25, 1]]
TRACKED = [[*row[:4], number, *row[4:]] for number, row in enumerate(ROWS, 3)]


def result(path: str, frame: int | None = None, fps: float | None = None, rows: Any = ROWS, size: int = 64) -> Results:
    image = np.random.default_rng(0).integers(0, 256, (48, size, 3), dtype=np.uint8)
    return Results(image, path, NAMES, torch.tensor(rows).reshape(len(rows), -1 if rows else 6), frame=frame, fps=fps)


def written(folder: Path, results: list[Results], **settings: Any) -> list[str]:
    """Files that are there when all results have passed, which come out as they went in."""
    passed = list(Outputs(nullcontext(folder), **settings)(iter(results)))
    assert passed == results and all(found.saved_in == folder for found in passed)
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_pictures_videos_and_pages(tmp_path: Path) -> None:
    video = [result("/v/street.avi", number, 5.0) for number in (1, 2, 4)]
    other = [result("/w/street.mov", 1, 5.0)]
    pages = [result("scan.tif", 1), result("scan.tif", 2)]
    single = [result("/a/one.png"), result("/b/one.png"), result("image4"), result("http://h/x%20y.jpg?z=1")]
    files = written(tmp_path, [*video, *other, *pages, *single])
    assert files == [
        *("1_street.mp4", "4_one.png", "image4.jpg", "one.png", "scan_1.tif", "scan_2.tif", "street.mp4", "x y.jpg"),
    ]
    capture = cv2.VideoCapture(str(tmp_path / "street.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (3, 5)
    capture.release()
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "one.png")), single[0].plot())


def test_what_is_read_from_any_format_is_written_in_one_that_pictures_have(tmp_path: Path) -> None:
    names = ("a.pgm", "b.heic", "c.tga", "d.MPO", "e.JPG", "f.webp", "frame.php", "g.b.avif")
    files = written(tmp_path, [result(f"/in/{name}") for name in names])
    assert files == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.JPG", "f.webp", "frame.jpg", "g.b.jpg"]
    assert all(cv2.imread(str(tmp_path / file)) is not None for file in files)


def test_a_frame_of_another_size_is_fitted(tmp_path: Path) -> None:
    written(tmp_path, [result("cam", 1, 5.0), result("cam", 2, 5.0, size=96)])
    capture = cv2.VideoCapture(str(tmp_path / "cam.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (2, 64)
    capture.release()


def test_label_files_crops_and_frames(tmp_path: Path) -> None:
    shots = [result("v.mp4", 7, 5.0, TRACKED), result("v.mp4", 8, 5.0, []), result("p.jpg")]
    files = written(tmp_path, shots, pictures=False, txt=True, conf=True, crops=True, frames=True)
    stems = {"a_.._dog": ("p_3", "v_7_3"), "cat": ("p", "p_2", "v_7", "v_7_2")}
    crops = [f"crops/{name}/{stem}.jpg" for name, of_class in stems.items() for stem in of_class]
    assert files == [*crops, "labels/p.txt", "labels/v_7.txt", "v_frames/7.jpg", "v_frames/8.jpg"]
    first = (tmp_path / "labels" / "v_7.txt").read_text().splitlines()[0].split()
    assert first[0] == "0" and first[-1] == "3" and len(first) == 7
    np.testing.assert_allclose(
        [float(value) for value in first[1:6]], [20 / 64, 25 / 48, 20 / 64, 30 / 48, 0.9], rtol=1e-5
    )
    assert len((tmp_path / "labels" / "p.txt").read_text().splitlines()[0].split()) == 6
    assert cv2.imread(str(tmp_path / "crops" / "cat" / "p.jpg")).shape == (30, 20, 3)


def test_a_video_is_whole_though_nobody_reads_to_the_end(tmp_path: Path) -> None:
    passing = Outputs(nullcontext(tmp_path))(result("v.mp4", n, 5.0) for n in range(1, 9))
    assert [next(passing).frame for _ in range(2)] == [1, 2]
    passing.close()  # type: ignore[attr-defined]
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    capture.release()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    monkeypatch.setattr(results_module, "find_spec", lambda name: name == library)
    found = result("a.jpg", rows=TRACKED)
    table = found.to_df()
    assert type(table).__module__.startswith(library) and len(table) == 3
    assert list(table.columns) == ["name", "class", "confidence", "box", "track_id"]
    assert list(table["track_id"]) == [3, 4, 5] and table["box"][0] == found.summary()[0]["box"]
    assert list(result("a.jpg", rows=[]).to_df().columns) == ["name", "class", "confidence", "box"]


def test_texts_and_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    found = result("a.jpg", rows=TRACKED)
    assert json.loads(found.to_json(normalize=True)) == found.summary(normalize=True)
    assert found.to_csv().splitlines()[1] == "cat,0,0.9,10.0,10.0,30.0,40.0,3"
    assert str(result("v.mp4", 7, 5.0)) == "v.mp4 frame 7 48x64: 2 cat, 1 a/../dog" and "page 7" in str(
        result("v.tif", 7)
    )
    assert (result("a.jpg").plot() != found.plot()).any(), "ids are drawn"
    monkeypatch.setattr(results_module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas or polars"):
        found.to_df()


def test_without_a_display_that_is_said(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    result("a.jpg").show()
    assert "no display to show a.jpg" in caplog.text and ".save(" in caplog.text


def test_a_notebook_shows_below_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType, SimpleNamespace

    shown: list[Any] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=object()), raising=False)
    monkeypatch.setattr(display, "display", shown.append, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    result("a.jpg").show(conf=False)
    np.testing.assert_array_equal(np.asarray(shown[0])[..., ::-1], result("a.jpg").plot(conf=False))
