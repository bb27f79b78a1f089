"""The index: what is found on disk, what is reported, and when a cached index may be used."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from eyas.data import image_header as ih
from eyas.data.dataset_yaml import check_dataset
from eyas.data.decode import read_image
from eyas.data.files import list_images
from eyas.data.formats import yolo as yl
from eyas.data.formats.yolo import TextRules, label_path
from eyas.data.image_header import MISSING_IMAGE
from eyas.data.index import NO_USABLE_ROW, ImageIndex, build_index
from eyas.data.odd_names import ABSOLUTE_PATH, BELOW_DATA, OTHER_FORM, WINDOWS_PATH
from eyas.data.processes import START_METHOD, spread
from eyas.data.report import Problem
from eyas.data.store import ImageStore

NAMES = {0: "cat", 1: "dog", 2: "owl"}
BCCD = Path(__file__).parents[3].parent / "shared" / "data" / "bccd"


def picture(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (3, 3), 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images of growing width in images/train, labels in labels/train, of which one is empty and one missing."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "train").mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"data/images/train/{i}.{'png' if i % 2 else 'jpg'}"), picture(30, 40 + i, i))
        text = "".join(f"{(i + k) % 3} 0.5 0.5 0.{k + 1} 0.2\n" for k in range(i))
        if i:
            (tmp_path / f"data/labels/train/{i}.txt").write_text(text if i > 1 else "\n")
    return tmp_path / "data"


def build(data: Path, **options) -> ImageIndex:
    options = {"names": NAMES, "cache_dir": data.parent / "cache", **options}
    return build_index([data / "images" / "train"], **options)


def kinds(index: ImageIndex) -> dict[str, int]:
    return dict(index.report.counts)


def same(a: ImageIndex, b: ImageIndex) -> None:
    for name in ("path_bytes", "path_offsets", "shapes", "orientations", "label_offsets", "cls", "boxes"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y)
    assert a.report == b.report
    assert a.fingerprint == b.fingerprint


def test_arrays_hold_what_is_on_disk(data: Path) -> None:
    index = build(data)
    assert len(index) == 6
    assert [Path(index.path(i)).name for i in range(6)] == ["0.jpg", "1.png", "2.jpg", "3.png", "4.jpg", "5.png"]
    assert index.shapes.dtype == np.int32
    np.testing.assert_array_equal(index.shapes, [(30, 40 + i) for i in range(6)])
    assert index.objects().tolist() == [0, 0, 2, 3, 4, 5]
    assert index.max_objects() == 5
    cls, boxes = index.labels(3)
    np.testing.assert_array_equal(cls, [0, 1, 2])
    np.testing.assert_allclose(boxes[:, 2], [0.1, 0.2, 0.3])
    assert index.instances(5).tolist() == [5, 4, 5, 0, 0]
    report = index.report
    assert (report.images, report.background, report.boxes) == (6, 2, 14)
    assert report.instances == {"cat": 5, "dog": 4, "owl": 5}
    assert not report.counts
    with pytest.raises(IndexError):
        index.path(6)


def test_the_data_folder_is_left_as_it_was(data: Path) -> None:
    (data / "images/train/cut.jpg").write_bytes((data / "images/train/0.jpg").read_bytes()[:-2])
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in data.rglob("*") if path.is_file()}
    build(data)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in data.rglob("*") if path.is_file()}


@pytest.mark.parametrize("workers", [1, 3])
def test_cache_gives_the_same_index(data: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "labels/train/2.txt").write_text("9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    fresh = build(data, workers=workers)
    assert len(list((data.parent / "cache" / "index").iterdir())) == 1
    monkeypatch.setattr("eyas.data.index._scan", lambda *_: pytest.fail("scanned again"))
    same(fresh, build(data))


@pytest.fixture
def messy(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and labels with every kind of trouble, in chunks of three images."""
    monkeypatch.setattr("eyas.data.index._CHUNK", 3)
    images, labels = data / "images/train", data / "labels/train"
    whole = (images / "0.jpg").read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "noend": whole[:-2], "empty": b"", "text": b"no image", "fine": whole}
    for name, content in contents.items():
        (images / f"{name}.jpg").write_bytes(content)
        (labels / f"{name}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    cv2.imwrite(str(images / "deep.png"), np.full((30, 40), 40_000, np.uint16))
    cv2.imwrite(str(images / "dark.png"), np.zeros((30, 40), np.uint16))
    (images / "gone.jpg").symlink_to(data / "nowhere")
    (labels / "2.txt").write_text("9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\nx\n")
    (labels / "3.txt").write_text("0 0.5 0.5 7 0.1\n")
    (labels / "4.txt").unlink()
    (labels / "4.txt").mkdir()
    (labels / "5.txt").rename(labels / "5.TXT")
    return data


@pytest.mark.skipif(START_METHOD != "fork", reason="starts workers by fork")
@pytest.mark.parametrize("options", [{}, {"single_cls": True}, {"classes": [1, 0]}, {"split": "val"}])
def test_several_processes_make_the_same_index(messy: Path, options: dict) -> None:
    one, several = (build(messy, workers=w, cache_dir=messy.parent / str(w), **options) for w in (1, 3))
    same(one, several)
    assert len(one.report.counts) >= 8 and 4 < len(one) < 12
    np.testing.assert_array_equal(one.stats, several.stats)
    np.testing.assert_array_equal(one.peaks, several.peaks)
    np.testing.assert_array_equal(one.depths, several.depths)
    assert (one.cache_key, one.chosen, one.white) == (several.cache_key, several.chosen, several.white)


@pytest.mark.skipif(START_METHOD != "fork", reason="starts workers by fork")
def test_several_processes_are_for_many_images(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def watched(work, tasks, processes):
        started.append(processes)
        return spread(work, tasks, processes)

    monkeypatch.setattr("eyas.data.index.spread", watched)
    monkeypatch.setattr("eyas.data.index.usable_cores", lambda: 2)
    few = build(data)
    monkeypatch.setattr("eyas.data.index._MANY", 6)
    many = build(data, cache_dir=data.parent / "another")
    assert started == [2]
    same(few, many)


class Remembering(yl.YoloText):
    """Keeps in mind what it was asked, as a format of the user's may."""

    stateless = False

    def __init__(self, place: Path) -> None:
        super().__init__([place], num_classes=3)
        self.asked: list[str] = []

    def labels_of(self, images, stats, headers):
        self.asked += images
        return super().labels_of(images, stats, headers)

    def problems(self):
        return [Problem("all", 0, "images asked for", ", ".join(self.asked))]


@pytest.mark.skipif(START_METHOD != "fork", reason="starts workers by fork")
def test_a_source_that_keeps_something_is_asked_in_this_process(messy: Path) -> None:
    one, several = Remembering(messy / "images/train"), Remembering(messy / "images/train")
    same(
        build_index(one, names=NAMES, cache_dir=messy.parent / "1", workers=1),
        build_index(several, names=NAMES, cache_dir=messy.parent / "3", workers=3),
    )
    assert one.asked == several.asked == sorted(one.asked) and len(one.asked) > 8


UNGUARDED = """
import sys
from pathlib import Path
from eyas.data.index import build_index
with Path("runs.txt").open("a") as file:
    file.write("once ")
print(len(build_index([sys.argv[1]], names={0: "a", 1: "b", 2: "c"}, cache_dir="cache", workers=2)))
"""


def test_a_script_without_a_guard_runs_once(data: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, "script.py", str(data / "images/train")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "6\n", "")
    assert (tmp_path / "runs.txt").read_text() == "once "


def test_each_setting_keeps_a_cache_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[dict] = [{}, {"single_cls": True}, {"classes": [1]}, {"split": "val"}, {"fraction": 4}]
    for setting in settings:
        build(data, **setting)
    monkeypatch.setattr("eyas.data.index._scan", lambda *_: pytest.fail("scanned again"))
    for setting in settings:
        build(data, **setting)


def test_cache_holds_no_pickle(data: Path) -> None:
    build(data)
    (file,) = (data.parent / "cache" / "index").iterdir()
    with np.load(file, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


def changes() -> list:
    def edit_label(data: Path) -> dict:
        file = data / "labels/train/2.txt"
        file.write_text(file.read_text().replace("0.1", "0.3"))  # same size
        os.utime(file, ns=(1, 1))
        return {}

    def add_label(data: Path) -> dict:
        (data / "labels/train/0.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        return {}

    def remove_label(data: Path) -> dict:
        (data / "labels/train/5.txt").unlink()
        return {}

    def add_image(data: Path) -> dict:
        cv2.imwrite(str(data / "images/train/9.png"), picture())
        return {}

    def replace_image(data: Path) -> dict:
        cv2.imwrite(str(data / "images/train/3.png"), picture(50, 60))
        return {}

    def rename_class(data: Path) -> dict:
        return {"names": {**NAMES, 1: "wolf"}}

    def fewer_classes(data: Path) -> dict:
        return {"names": {0: "cat", 1: "dog"}}

    def one_class(data: Path) -> dict:
        return {"single_cls": True}

    def some_classes(data: Path) -> dict:
        return {"classes": [1]}

    return [v for v in locals().values() if callable(v)]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_every_change_makes_the_cache_stale(data: Path, change) -> None:
    before = build(data)
    options = change(data)
    after = build(data, **options)
    assert after.cache_key != before.cache_key
    assert after.fingerprint != before.fingerprint
    shutil.rmtree(data.parent / "cache")
    same(after, build(data, **options))


def test_damaged_cache_is_ignored_with_a_warning(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    fresh = build(data)
    (file,) = (data.parent / "cache" / "index").iterdir()
    for content in (file.read_bytes()[:200], b"rubbish", b""):
        file.write_bytes(content)
        same(fresh, build(data))
        assert "damaged index cache" in caplog.text


def test_a_cache_folder_that_cannot_be_written_costs_only_a_warning(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert len(build(data, cache_dir=tmp_path / "file")) == 6
    assert "not cached" in caplog.text


def test_fingerprint_does_not_depend_on_the_place(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "elsewhere" / "copy")
    here, there = build(data), build(tmp_path / "elsewhere" / "copy")
    assert here.fingerprint == there.fingerprint
    assert here.cache_key != there.cache_key


def test_bad_rows_are_reported_by_file_and_line(data: Path) -> None:
    file = data / "labels/train/4.txt"
    file.write_text("0 0.5 0.5 0.1 0.1\n\n7 0.5 0.5 0.1 0.1\n1 0.5 0.5 0 0.1\n2 0.5 0.5 0.1 0.1\n")
    index = build(data)
    assert [(p.file, p.line, p.kind) for p in index.report.problems] == [
        (str(file), 3, yl.CLASS_OUT_OF_RANGE),
        (str(file), 4, yl.ZERO_SIZE),
    ]
    assert index.labels(4)[0].tolist() == [0, 2]


def png_with(data: Path, name: str, content: bytes) -> None:
    (data / "images/train" / name).write_bytes(content)


def test_images_that_are_no_images_are_dropped_and_reported(data: Path) -> None:
    folder = data / "images/train"
    whole = (folder / "0.jpg").read_bytes()
    (folder / "a_text.jpg").write_text("<html>not found</html>")
    (folder / "b_empty.png").write_bytes(b"")
    (folder / "c_half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d_half.png").write_bytes((folder / "1.png").read_bytes()[:-100])
    (folder / "e_small.png").write_bytes(cv2.imencode(".png", picture(9, 40))[1].tobytes())
    (folder / "f_head.jpg").write_bytes(whole[:20])
    Image.fromarray(picture()).save(folder / "g.gif")
    Image.fromarray(picture()).save(folder / "g.pcx")
    (folder / "g.pcx").rename(folder / "g_pcx.jpg")
    (folder / "notes.ini").write_text("nothing to see")
    shutil.copy(folder / "0.jpg", folder / "0.jpg_large")
    (folder / "h_folder.jpg").mkdir()
    (folder / "._hidden.jpg").write_bytes(b"mac")
    index = build(data)
    assert len(index) == 7
    found = {Path(p.file).name: p.kind for p in index.report.problems}
    assert found == {
        "a_text.jpg": ih.NOT_AN_IMAGE,
        "b_empty.png": ih.NOT_AN_IMAGE,
        "c_half.jpg": ih.TRUNCATED,
        "d_half.png": ih.TRUNCATED,
        "e_small.png": ih.TOO_SMALL,
        "f_head.jpg": ih.NOT_AN_IMAGE,
        "g_pcx.jpg": ih.UNSUPPORTED,
    }
    assert index.report.left_out == {ih.NOT_AN_IMAGE: 3, ih.TRUNCATED: 2, ih.TOO_SMALL: 1, ih.UNSUPPORTED: 1}
    assert index.report.unused == {
        "hidden file": 1,
        "not an image (.ini)": 1,
        "image under another suffix (.jpg_large)": 1,
    }
    assert any("<html>" in p.message for p in index.report.problems)


def test_jpeg_that_only_lacks_its_end_marker_is_kept_and_noted(data: Path) -> None:
    whole = (data / "images/train/0.jpg").read_bytes()
    (data / "images/train/x.jpg").write_bytes(whole[:-2])
    (data / "images/train/y.jpg").write_bytes(whole + b"\0" * 10_000)  # something long behind the picture
    index = build(data)
    assert len(index) == 8
    assert kinds(index) == {ih.NO_END_MARKER: 1}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_shapes_follow_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture(30, 40)).save(tmp_path / f"x.{suffix}", exif=exif)
    header, problem = ih.read_header(str(tmp_path / f"x.{suffix}"))
    assert problem is None
    assert header is not None
    assert header[:2] == ((30, 40) if orientation < 5 else (40, 30))
    assert header.orientation == (1 if suffix == "tiff" else orientation)  # every reader turns TIFF itself


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_means_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture(30, 40)).save(tmp_path / "x.jpg", exif=exif)
    assert ih.read_header(str(tmp_path / "x.jpg")) == (ih.ImageHeader(30, 40, 1), None)


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10)])
def test_the_smallest_image_is_kept(tmp_path: Path, height: int, width: int) -> None:
    Image.fromarray(picture(height, width)).save(tmp_path / "x.png")
    assert ih.read_header(str(tmp_path / "x.png")) == (ih.ImageHeader(height, width, 1), None)


def test_nothing_left_tells_why(data: Path) -> None:
    for file in (data / "images/train").iterdir():
        file.write_text("no image")
    with pytest.raises(ValueError, match="None of the images for train can be used") as error:
        build(data)
    assert "0.jpg: not an image" in str(error.value)


def test_training_set_without_a_box_is_an_error_with_the_first_problems(data: Path) -> None:
    for file in (data / "labels/train").iterdir():
        file.write_text("complete garbage here\n")
    with pytest.raises(ValueError, match="have no box") as error:
        build(data)
    assert "1.txt:1: bad column count" in str(error.value)
    val = build(data, split="val").report
    assert (val.images, val.background, val.left_out) == (1, 1, {NO_USABLE_ROW: 5})


def test_training_set_without_label_files_is_an_error_that_names_the_place(data: Path) -> None:
    shutil.rmtree(data / "labels")
    with pytest.raises(ValueError, match="None of the 6 training images has a label file") as error:
        build(data)
    assert str(data / "labels/train/0.txt") in str(error.value)
    assert len(build(data, split="val")) == 6


def test_empty_folder_tells_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"No images for train in .* folder is empty"):
        build_index([tmp_path / "images"], names=NAMES, cache_dir=tmp_path)
    (tmp_path / "images" / "read.me").write_text("")
    with pytest.raises(ValueError, match=r"holds read\.me"):
        build_index([tmp_path / "images"], names=NAMES, cache_dir=tmp_path)


def test_source_that_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a folder"):
        build_index([tmp_path / "nowhere"], names=NAMES, cache_dir=tmp_path)


def test_labels_that_are_there_but_no_files_leave_their_images_out(data: Path) -> None:
    for i in (2, 3):
        (data / f"labels/train/{i}.txt").unlink()
    (data / "labels/train/2.txt").mkdir()
    (data / "labels/train/3.txt").symlink_to(data / "nowhere.txt")
    index = build(data)
    assert [Path(index.path(i)).stem for i in range(len(index))] == ["0", "1", "4", "5"]
    assert index.report.left_out == {NO_USABLE_ROW: 2}
    said = {(Path(problem.file).name, problem.kind): problem.message for problem in index.report.problems}
    assert said["2.txt", yl.UNREADABLE] == "a folder, not a file"
    assert said["3.txt", yl.UNREADABLE] == "a link to a file that is not there"


def test_a_link_that_leads_nowhere_is_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"x\.png: missing image: a link to a file that is not there"):
        read_image(tmp_path / "x.png")


def test_lists_name_images_and_miss_some(data: Path) -> None:
    (data / "lists").mkdir()
    text = "\ufeff../images/train/2.jpg\n\n./../images/train/3.png\n" + str(data / "images/train/gone.jpg") + "\n"
    (data / "lists/train.txt").write_text(text, encoding="utf-8")
    index = build_index([data / "lists/train.txt"], names=NAMES, cache_dir=data.parent / "cache")
    assert [Path(index.path(i)).name for i in range(len(index))] == ["2.jpg", "3.png"]
    assert index.objects().tolist() == [2, 3]
    assert kinds(index) == {MISSING_IMAGE: 1}


def test_lists_whose_lines_start_at_the_folder_of_the_data(data: Path) -> None:
    (data / "lists").mkdir()
    (data / "lists/train.txt").write_text("images/train/2.jpg\n")
    listed = {"names": NAMES, "cache_dir": data.parent / "cache"}
    index = build_index([data / "lists/train.txt"], rules=TextRules(root=data), **listed)
    assert Path(index.path(0)) == data / "images/train/2.jpg"
    with pytest.raises(ValueError, match=r"All 1 images for train that .*train\.txt names are missing, for example"):
        build_index([data / "lists/train.txt"], **listed)


DECOMPOSED = pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds both forms of a name")


@pytest.mark.parametrize(
    ("line", "place", "kind"),
    [
        ("data/obj_train_data/é.png", "obj_train_data/é.png", BELOW_DATA),
        (".\\images\\train\\2.jpg", "images/train/2.jpg", WINDOWS_PATH),
        ("data\\obj_train_data\\é.png", "obj_train_data/é.png", BELOW_DATA),
        ("C:\\mine\\set\\images\\train\\2.jpg", "images/train/2.jpg", ABSOLUTE_PATH),
        ("/home/of/another/set/images/train/2.jpg", "images/train/2.jpg", ABSOLUTE_PATH),
        ("c:/mine/data/images/train/2.jpg", "images/train/2.jpg", ABSOLUTE_PATH),
        pytest.param("d\u00e9j\u00e0/ガ.png", normalize("NFD", "d\u00e9j\u00e0/ガ.png"), OTHER_FORM, marks=DECOMPOSED),
        pytest.param("d\u00e9\\a.png", "de\u0301/a.png", OTHER_FORM, marks=DECOMPOSED),
        pytest.param("de\u0301/a.png", "d\u00e9/a.png", OTHER_FORM, marks=DECOMPOSED),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="names with backslashes")
def test_lists_as_other_tools_and_systems_write_them(data: Path, line: str, place: str, kind: str) -> None:
    (data / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "images/train/2.jpg", data / place) if place != "images/train/2.jpg" else None
    (data / "list.txt").write_text(f"{line}\nimages/train/4.jpg\n", encoding="utf-8")
    index = build_index([data / "list.txt"], names=NAMES, split="val", cache_dir=data.parent / "cache")
    assert {index.path(i) for i in range(2)} == {str(data / place), str(data / "images/train/4.jpg")}
    assert kinds(index) == {kind: 1} and f"1 of the images, such as {line}: " in index.report.problems[0].message


def test_a_path_of_another_machine_is_not_found_by_its_name_alone(data: Path) -> None:
    (data / "images/train/list.txt").write_text("/home/of/another/val/2.jpg\n/home/of/another/images/train/3.png\n")
    lists = [data / "images/train/list.txt"]
    index = build_index(lists, names=NAMES, split="val", cache_dir=data.parent / "cache", rules=TextRules(root=data))
    assert [index.path(i) for i in range(len(index))] == [str(data / "images/train/3.png")]
    assert kinds(index) == {ABSOLUTE_PATH: 1, "missing image": 1}


def test_a_list_means_what_it_says_where_that_is_there(data: Path) -> None:
    for folder in ("data/obj", "obj", "data/data/obj"):
        (data / folder).mkdir(parents=True)
        shutil.copy(data / "images/train/2.jpg", data / folder / "a.jpg")
    (data / "list.txt").write_text("data/obj/a.jpg\ndata/data/obj/a.jpg\n")
    index = build_index([data / "list.txt"], names=NAMES, split="val", cache_dir=data.parent / "cache")
    assert index.path(0) == str(data / "data/data/obj/a.jpg") and index.path(1) == str(data / "data/obj/a.jpg")
    assert kinds(index) == {}


@DECOMPOSED
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_file_may_have_its_name_in_another_unicode_form(data: Path, form: str) -> None:
    image, label = data / normalize(form, "images/train/\u00e9.jpg"), data / "labels/train/x.txt"
    (data / "images/train/2.jpg").rename(image)
    (data / "labels/train/2.txt").rename(label)
    assert build(data).report.unused == {yl.NO_IMAGE: 1}
    label = label.rename(data / normalize("NFD" if form == "NFC" else "NFC", "labels/train/\u00e9.txt"))
    index = build(data)
    assert index.report.unused == {} and index.objects()[-1] == 2
    label.write_text("rubbish\n")
    assert [problem.file for problem in build(data).report.problems] == [str(label)]


def test_the_names_that_labelimg_writes_are_no_labels(data: Path) -> None:
    (data / "labels/train/classes.txt").write_text("cat\ndog\n")
    assert build(data).report.unused == {}
    shutil.copy(data / "images/train/2.jpg", data / "images/train/classes.jpg")
    (data / "labels/train/classes.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    assert build(data).objects()[-1] == 1, "but of an image of the name they are"


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_are_all_missing_are_said_to_be_missing(data: Path, split: str) -> None:
    (data / "list.txt").write_text("C:\\gone\\20.jpg\nC:\\gone\\30.png\n")
    with pytest.raises(ValueError, match="All 2 images .* are missing.* written with backslashes"):
        build_index([data / "list.txt"], names=NAMES, split=split, cache_dir=data.parent / "cache")


def test_label_files_are_found_however_their_suffix_is_written(data: Path) -> None:
    labels = data / "labels/train"
    plain = build(data)
    (labels / "2.txt").rename(labels / "2.TXT")
    (labels / "3.txt").rename(labels / "3.Txt")
    shutil.copy(labels / "5.txt", labels / "4.TXT")
    index = build(data)
    assert index.objects().tolist() == plain.objects().tolist(), "beside a .txt, another spelling is not read"
    (labels / "2.TXT").write_text("rubbish\n")
    assert [problem.file for problem in build(data).report.problems] == [str(labels / "2.TXT")]


def test_label_files_without_an_image_are_counted(data: Path) -> None:
    for name in ("orphan.txt", "notes.TXT"):
        (data / "labels/train" / name).write_text("cat\n")
    (data / "images/train/readme.txt").write_text("no label: they stand in labels/")
    expected = {yl.NO_IMAGE: 2, "not an image (.txt)": 1}
    assert build(data).report.unused == build(data).report.unused == expected, "scanned or loaded"
    assert build(data, fraction=2).report.unused == expected
    (data / "images/train/new.ini").write_text("")
    assert build(data).report.unused == expected | {"not an image (.ini)": 1}
    (data / "list.txt").write_text(f"{data}/images/train/2.jpg\n")
    assert not build_index([data / "list.txt"], names=NAMES, cache_dir=data.parent / "cache").report.unused


def test_labels_beside_the_images_are_no_unused_files(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), picture())
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "classes.txt").write_text("cat\n")
    index = build_index([folder], names=NAMES, cache_dir=tmp_path / "cache")
    assert (index.report.boxes, index.report.unused) == (1, {})


def test_an_image_whose_rows_are_all_dropped_is_left_out(data: Path) -> None:
    (data / "labels/train/2.txt").write_text("9 0.5 0.5 0.1 0.1\nx\n")
    (data / "labels/train/3.txt").write_text("9 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    for index in (build(data), build(data), build(data, split="val")):  # scanned, loaded
        assert [Path(index.path(i)).stem for i in range(len(index))] == ["0", "1", "3", "4", "5"]
        assert (index.report.left_out, index.report.background) == ({NO_USABLE_ROW: 1}, 2)
        assert "1 image left out (no usable label row 1)" in index.report.summary()
    chosen = build(data, classes=[2])
    assert len(chosen) == 5 and chosen.report.background > 2, "rows of classes that are not asked for are no bad rows"


def test_labels_that_count_from_1_are_asked_about(data: Path) -> None:
    for i in range(2, 6):
        (data / f"labels/train/{i}.txt").write_text("".join(f"{k} 0.5 0.5 0.{k} 0.2\n" for k in (1, 2, 3)))
    for split in ("train", "val", "val"):  # never from the cache
        with pytest.raises(
            ValueError, match="go up to 3 and none is 0, but .* 0 to 2: ids start at 1. Add ids_start=1"
        ):
            build(data, split=split)
    renumbered = build(data, rules=TextRules(ids=(1, 2, 3)))
    assert renumbered.report.instances == dict.fromkeys(NAMES.values(), 4)
    assert renumbered.report.choices["label_ids"] == [1, 2, 3]
    assert "ids 1, 2, 3 in label files stand for the classes 0 to 2" in renumbered.report.notes
    kept = build(data, rules=TextRules(ids=(0, 1, 2)))
    assert kept.report.instances == {"cat": 0, "dog": 4, "owl": 4} and kept.report.notes == []
    gaps = build(data, rules=TextRules(ids=(1, 3, 7)))
    assert gaps.report.instances == {"cat": 4, "dog": 4, "owl": 0}
    assert len({index.cache_key for index in (renumbered, kept, gaps)}) == 3
    (data / "labels/train/2.txt").write_text("0 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1 0.1\n")
    assert build(data).report.counts == {yl.CLASS_OUT_OF_RANGE: 4}, "where there is a 0, the others are mistakes"
    assert build(data, single_cls=True, names={0: "item"}).report.boxes == 10


def test_one_class_that_is_called_1(data: Path) -> None:
    for i in range(2, 6):
        (data / f"labels/train/{i}.txt").write_text("1 0.5 0.5 0.1 0.2\n")
    with pytest.raises(ValueError, match="ids start at 1"):
        build(data, names={0: "cat"})


@pytest.mark.parametrize("place", ["label/train/2.txt", "labels/train/2.xml", "labels/2.txt"])
def test_labels_in_another_place_or_format_are_pointed_at(data: Path, place: str) -> None:
    shutil.rmtree(data / "labels")
    (data / place).parent.mkdir(parents=True)
    (data / place).write_text("0 0.5 0.5 0.1 0.1\n")
    for name in ("0.jpg", "1.png"):
        (data / "images/train" / name).unlink()
    with pytest.raises(ValueError, match="has a label file") as error:
        build(data)
    assert (f"There is {data / place}, which is not looked for" in str(error.value)) == (place != "labels/2.txt")


def test_huge_images_cost_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), picture())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # of 1,200
    index = build_index([tmp_path], names=NAMES, split="val", cache_dir=tmp_path / "cache")
    assert len(index) == 1 and ImageStore(index, imgsz=40).load(0).shape == (30, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert ih.read_header(str(tmp_path / "x.png"))[1] == (
        ih.TOO_LARGE,
        "more than 1,000 px; scale it down, or cut it into tiles",
    )


def test_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\n\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        list_images([tmp_path / "list.txt"])


def test_folders_are_searched_recursively_and_links_to_parents_end(data: Path) -> None:
    (data / "images/train/deep/er").mkdir(parents=True)
    shutil.copy(data / "images/train/0.jpg", data / "images/train/deep/er/X.JPG")
    (data / "images/train/deep/up").symlink_to(data / "images")
    assert len(list_images([data / "images" / "train"])) < 100
    (data / "images/train/deep/up").unlink()
    assert len(list_images([data / "images" / "train"])) == 7


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.b.jpg", "/d/labels/train/a.b.txt"),
        ("/images/x/images/y.png", "/images/x/labels/y.txt"),
        ("/photos/y.png", "/photos/y.txt"),
        ("/d/train/images/y.png", "/d/train/labels/y.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert label_path(image) == label


def test_classes_keep_images_and_ids(data: Path) -> None:
    index = build(data, classes=[2])
    assert len(index) == 6
    assert set(index.cls.tolist()) == {2}
    assert index.report.boxes == 5
    with pytest.raises(ValueError, match="no class 7; ids go from 0 to 2"):
        build(data, classes=[7])


def test_single_class_renames_all_objects(data: Path) -> None:
    index = build(data, single_cls=True, names={0: "item"})
    assert set(index.cls.tolist()) == {0}
    assert not index.report.counts


def test_single_class_of_chosen_classes(data: Path) -> None:
    index = build(data, single_cls=True, names={0: "item"}, classes=[2])
    assert index.report.boxes == 5
    assert set(index.cls.tolist()) == {0}


def test_fraction_is_spread_and_nested(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(40):
        cv2.imwrite(str(tmp_path / f"images/{i:02}.png"), picture(12, 12))

    def chosen(fraction: float) -> set[str]:
        index = build_index([tmp_path / "images"], names=NAMES, fraction=fraction, split="val", cache_dir=tmp_path)
        return {index.path(i) for i in range(len(index))}

    few, many = chosen(0.25), chosen(0.5)
    assert (len(few), len(many), len(chosen(7)), len(chosen(1.0)), len(chosen(0.001))) == (10, 20, 7, 40, 1)
    assert few < many
    assert len(chosen(0.045)) == 2, "1.8 images"
    assert few != {str(tmp_path / f"images/{i:02}.png") for i in range(10)}
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="fraction"):
            chosen(wrong)


def test_names_that_are_not_utf8(data: Path) -> None:
    name = os.fsencode(str(data / "images/train")) + b"/caf\xe9.jpg"
    with open(name, "wb") as file:
        file.write((data / "images/train/0.jpg").read_bytes())
    index = build(data)
    assert os.fsencode(index.path(6)) == name
    index.report.write(data / "report.json")


def test_report_file(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "labels/train/2.txt").write_text("5 0.5 0.5 0.1 0.1\n")
    index, val = build(data), build(data, split="val")
    index.report.write(data / "dataset_report.json", val.report)
    content = json.loads((data / "dataset_report.json").read_text())["splits"]
    assert set(content) == {"train", "val"}
    train = content["train"]
    assert (train["images"], train["background"], train["boxes"]) == (5, 2, 12)
    assert train["images_left_out"] == {NO_USABLE_ROW: 1}
    assert train["problem_counts"] == {yl.CLASS_OUT_OF_RANGE: 1}
    assert train["problems"][0]["line"] == 1
    assert train["problems_not_listed"] == 0
    index.report.print_table()
    assert "class out of range" in capsys.readouterr().out
    assert "1 problem (class out of range 1)" in index.report.summary()


def test_a_flood_of_problems_keeps_exact_counts_and_few_rows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.data.report.MAX_ROWS", 50)
    (data / "labels/train/2.txt").write_text("x y\n" * 1000)
    report = build(data).report
    assert report.counts == {yl.BAD_COLUMNS: 1000}
    assert len(report.problems) == 50
    assert report.to_dict()["problems_not_listed"] == 950
    assert report.lines(limit=3)[-1] == "... and 997 more"


def test_pickled_index_is_equal(data: Path) -> None:
    index = build(data)
    copy = pickle.loads(pickle.dumps(index))
    same(index, copy)
    assert copy.path(3) == index.path(3)


def _sum_in_child(index: ImageIndex, queue) -> None:
    queue.put((len(index), float(index.boxes.sum()), index.path(5)))


def test_spawned_process_reads_the_index(data: Path) -> None:
    index = build(data)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_sum_in_child, args=(index, queue))
    process.start()
    assert queue.get(timeout=60) == (6, float(index.boxes.sum()), index.path(5))
    process.join()


def test_index_of_background_images_only_is_picklable(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), picture())
    index = build_index([tmp_path / "images"], names=NAMES, split="val", cache_dir=tmp_path)
    copy = pickle.loads(pickle.dumps(index))
    assert copy.labels(0)[1].shape == (0, 4)
    assert copy.max_objects() == 0


def write_yolo_from_voc(voc: Path, file: Path, names: dict[str, int]) -> None:
    root = ElementTree.parse(voc).getroot()
    width, height = (int(root.findtext(f"size/{key}", "0")) for key in ("width", "height"))
    rows = []
    for item in root.iter("object"):
        x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax"))
        box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
        rows.append(f"{names[item.findtext('name', '')]} " + " ".join(f"{value:.6f}" for value in box))
    file.write_text("\n".join(rows) + "\n")


@pytest.mark.skipif(not BCCD.is_dir(), reason="../shared/data/bccd is not there")
def test_bccd_degenerate_boxes_are_reported(tmp_path: Path) -> None:
    """BCCD's source annotations hold two boxes of one point among 4,888; both are reported and nothing else is lost."""
    (tmp_path / "bccd/labels").mkdir(parents=True)
    (tmp_path / "bccd/images").symlink_to(BCCD / "images")
    for split in ("train", "val", "test"):
        (tmp_path / "bccd/labels" / split).mkdir()
        for voc in (BCCD / "voc" / split).glob("*.xml"):
            file = tmp_path / "bccd/labels" / split / f"{voc.stem}.txt"
            write_yolo_from_voc(voc, file, {"RBC": 0, "WBC": 1, "Platelets": 2})
    names = {0: "RBC", 1: "WBC", 2: "Platelets"}
    index = build_index([tmp_path / "bccd/images"], names=names, cache_dir=tmp_path / "cache")
    assert len(index) == 364
    assert index.report.boxes == 4886
    assert [(Path(p.file).name, p.kind) for p in index.report.problems] == [
        ("BloodImage_00343.txt", yl.ZERO_SIZE),
        ("BloodImage_00338.txt", yl.ZERO_SIZE),
    ]


@pytest.mark.skipif(not BCCD.is_dir(), reason="../shared/data/bccd is not there")
def test_bccd_as_shipped_is_clean(tmp_path: Path) -> None:
    checked = check_dataset(BCCD / "bccd.yaml", splits=("train", "val", "test"))
    sources = [*checked["train"], *checked["val"], *checked["test"]]
    report = build_index(sources, names=checked["names"], cache_dir=tmp_path).report
    assert (report.images, report.background, report.boxes) == (364, 0, 4886)
    assert not report.counts


def test_keypoints_are_read_anew(data: Path) -> None:
    """A row of two points with three values each has as many numbers as a polygon of five corners."""
    (data / "labels/train/2.txt").write_text("0 0.5 0.5 0.2 0.2 0.1 0.1 1 0.9 0.9 1\n")
    polygon, pose = build(data), build(data, rules=TextRules(keypoints=(2, 3)))
    assert polygon.report.boxes == pose.report.boxes == 13
    assert polygon.fingerprint != pose.fingerprint and polygon.cache_key != pose.cache_key
    np.testing.assert_allclose(pose.labels(2)[1], [[0.5, 0.5, 0.2, 0.2]])
