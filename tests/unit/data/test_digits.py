"""The embedded data set: the same everywhere, nothing shared between its splits, boxes where the ink is."""

from __future__ import annotations

import builtins
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits need scikit-learn: pip install eyas[demo]")
pytest.importorskip("skimage", reason="the digits need scikit-image: pip install eyas[demo]")

from eyas.data import digits
from eyas.data.dataset_yaml import check_dataset
from eyas.data.index import build_index


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits.ensure_digits("tiny", cache_dir=tmp_path_factory.mktemp("cache")).parent


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_is_an_ordinary_data_set(tiny: Path, tmp_path: Path) -> None:
    checked = check_dataset(tiny / "digits.yaml")
    assert checked["names"] == {i: str(i) for i in range(10)}
    sources = (tiny / "README.txt").read_text()
    assert all(name in sources for names in digits.PHOTOGRAPHS.values() for name in names)
    assert all(
        word in sources for word in ("CC0", "public domain", "CC BY 4.0", "No glyph and no photograph is in both")
    )
    for split, count in (("train", 64), ("val", 16)):
        index = build_index(checked[split], names=checked["names"], split=split, cache_dir=tmp_path)
        assert len(index) == count
        assert (index.shapes == 128).all()
        assert not index.report.counts
        assert 1 <= index.objects().min() <= index.max_objects() <= 6
        photographs = {Path(index.path(i)).stem.split("_", 1)[1] for i in range(count)}
        assert photographs == set(digits.PHOTOGRAPHS[split])


def test_its_name_is_enough(tiny: Path) -> None:
    checked = check_dataset("digits-tiny", cache_dir=tiny.parents[1])
    assert checked["yaml_file"] == tiny / "digits.yaml"


def test_it_is_made_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_build", lambda *_: pytest.fail("made again"))
    assert digits.ensure_digits("tiny", cache_dir=tiny.parents[1]) == tiny / "digits.yaml"


def test_another_process_makes_the_same_files(tiny: Path, tmp_path: Path) -> None:
    code = "from eyas.data import ensure_digits; ensure_digits('tiny')"
    environment = {**os.environ, "EYAS_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = str(Path(digits.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert digest(tmp_path / "datasets" / tiny.name) == digest(tiny)


def test_tiny_is_the_start_of_the_default_set() -> None:
    few, many = (list(digits.make_scenes("val", count)) for count in (3, 6))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.image, b.image)


def test_splits_share_no_glyph_and_no_photograph() -> None:
    glyphs = {split: {glyph.id for glyph in digits.load_glyphs(split)} for split in ("train", "val")}
    assert not glyphs["train"] & glyphs["val"]
    assert len(glyphs["train"] | glyphs["val"]) == 1797
    # Not even an identical drawing under another number.
    inks = {split: {glyph.ink.tobytes() for glyph in digits.load_glyphs(split)} for split in ("train", "val")}
    assert not inks["train"] & inks["val"]
    assert not set(digits.PHOTOGRAPHS["train"]) & set(digits.PHOTOGRAPHS["val"])
    used = {split: list(digits.make_scenes(split, 40)) for split in ("train", "val")}
    for split, scenes in used.items():
        assert {i for scene in scenes for i in scene.glyph_ids} <= glyphs[split]
        assert {scene.photograph for scene in scenes} <= set(digits.PHOTOGRAPHS[split])


def test_every_class_is_in_both_splits() -> None:
    for split in ("train", "val"):
        counts = np.bincount([glyph.label for glyph in digits.load_glyphs(split)])
        assert len(counts) == 10
        assert counts.min() >= 30


def test_boxes_are_the_tight_extent_of_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose scenes with and without ink: where they differ is where the boxes are, to the anti-aliased pixel."""
    scenes = list(digits.make_scenes("train", 30))
    monkeypatch.setattr(
        digits, "_draw", lambda rng, *_: (rng.uniform(), rng.random(), rng.uniform(-1, 1, 3), rng.uniform())
    )
    blanks = list(digits.make_scenes("train", 30))
    checked = 0
    for scene, blank in zip(scenes, blanks, strict=True):
        change = np.abs(scene.image.astype(int) - blank.image).max(2)
        inside = np.zeros((128, 128), bool)
        for _, cx, cy, w, h in scene.rows * [1, 128, 128, 128, 128]:
            x1, y1, x2, y2 = (round(v) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            assert 0 <= x1 < x2 <= 128
            assert 0 <= y1 < y2 <= 128
            patch = change[y1:y2, x1:x2]
            for edge in (patch[0], patch[-1], patch[:, 0], patch[:, -1]):
                assert edge.max() >= 8
            inside[y1:y2, x1:x2] = True
            checked += 1
        assert change[~inside].max(initial=0) == 0
    assert checked > 60


def test_ink_is_legible_and_sizes_vary() -> None:
    heights = np.concatenate([scene.rows[:, 4] for scene in digits.make_scenes("train", 100)]) * 128
    assert 12 <= heights.min() < 18
    assert 44 < heights.max() <= 54


def test_overlap_is_small() -> None:
    for scene in digits.make_scenes("val", 60):
        boxes = [
            (round(x - w / 2), round(y - h / 2), round(x + w / 2), round(y + h / 2))
            for _, x, y, w, h in scene.rows * [1, 128, 128, 128, 128]
        ]
        for i, box in enumerate(boxes):
            assert all(digits._overlap(box, other) <= digits.MAX_OVERLAP + 0.02 for other in boxes[:i])


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("opened a socket"))
    digits.ensure_digits("tiny", cache_dir=tmp_path)


def test_a_run_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digits, "_write_scene", stop)
        with pytest.raises(KeyboardInterrupt):
            digits.ensure_digits("tiny", cache_dir=tmp_path)
    assert list((tmp_path / "datasets").iterdir()) == []
    made = digits.ensure_digits("tiny", cache_dir=tmp_path)
    assert made.exists() and made.parent.stat().st_mode == made.parent.parent.stat().st_mode, "as the umask wants it"


@pytest.mark.parametrize("package", ["sklearn.datasets", "skimage.data"])
def test_missing_library_tells_the_command(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: object, **options: object):
        if name.startswith(package):
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'pip install "eyas\[demo\]"'):
        digits.ensure_digits("tiny", cache_dir=tmp_path)


def test_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of default, tiny"):
        digits.ensure_digits("huge", cache_dir=tmp_path)
