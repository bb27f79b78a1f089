"""Models leave as files, and only as files that are as good as they are.

The data are labelled with what the model itself finds, so that it is nearly perfect on them without any training, and
whatever answers otherwise is not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from eyas import YOLO
from eyas.config import OptionValueError
from eyas.export import BoxModel, Card, Exported, ExportError, ExportTarget, export, find_target
from eyas.export.pt2 import traced
from eyas.export.verify import as_good, refuse_foreign
from eyas.families import families
from eyas.models import DetectionModel, Detector, detector_class, model_table
from small_export import NAMES, SIZE, StateDict, answer, assert_alike, own_data, shaken


class Shifted(StateDict):
    """A target that writes wrong numbers: boxes of its files are two pixels off."""

    def open(self, path: Path) -> Exported:
        right = super().open(path)
        off = torch.tensor([2.0, 2, 2, 2, 0, 0])
        return Exported(right.card, lambda images: right.answer(images) + off)


@pytest.fixture(scope="module")
def program(yolo: YOLO, data: str) -> Path:
    """A verified file, for images of any size."""
    return yolo.export(imgsz=SIZE - 1, data=data, dynamic=True)


def test_a_program_answers_as_the_model(yolo: YOLO, program: Path) -> None:
    assert program == Path(str(yolo.ckpt_path)).with_suffix(".pt2")
    check_program(yolo.model, program)


def test_a_program_may_take_images_of_other_sizes(yolo: YOLO, program: Path) -> None:
    opened = YOLO(program)
    assert opened.exported is not None and opened.exported.side is None
    with torch.no_grad():
        images = torch.rand(1, 3, 2 * SIZE, SIZE + 32)
        assert_alike(opened.exported(images)[0], yolo.model(images)[0])
        flat = torch.rand(1, 3, 32, SIZE)  # less than it takes: grey is added below, and boxes stay where they are
        whole = torch.cat((flat, torch.full((1, 3, 32, SIZE), 114 / 255)), 2)
        assert_alike(opened.exported(flat)[0], yolo.model(whole)[0])
    assert len(opened.predict(np.zeros((20, 60, 3), np.uint8), imgsz=96)) == 1


def test_a_set_detector_leaves_in_the_same_way(rtdetr: YOLO, tmp_path: Path) -> None:
    check_program(rtdetr.model, rtdetr.export(imgsz=SIZE, data=own_data(rtdetr.model, tmp_path / "own")))


DETECTORS = [cls for family in families().values() for cls in family.detectors]


@pytest.mark.parametrize("cls", DETECTORS, ids=lambda cls: cls.__name__)
def test_every_detector_leaves_for_any_number_of_images(cls: type[Detector], tmp_path: Path) -> None:
    """Its code must not take their number as a constant, which ``len()`` of a tensor is."""
    names = [name for name in cls.tables if detector_class(model_table(name)) is cls]
    smallest = next((name for name in names if name.endswith("-tiny")), names[0])
    table = tmp_path / "few.yaml"
    table.write_text(yaml.safe_dump(model_table(smallest) | {"nc": len(NAMES)}))
    torch.manual_seed(0)
    model = shaken(YOLO(table), tmp_path).model
    whole, images = BoxModel(model), torch.rand(3, 3, SIZE, SIZE)
    assert_alike(traced(whole, Card.of(model, SIZE)).module()(images), whole(images))


def check_program(model: Detector, path: Path) -> None:
    opened = find_target("pt2").open(path)
    assert opened.card.names == tuple(NAMES.values()) and opened.card.imgsz == SIZE and opened.card.end2end
    assert opened.stretch is model.stretch and torch.equal(opened.stride, model.stride)
    for batch in (1, 3):
        images = torch.rand(batch, 3, SIZE, SIZE)
        assert_alike(opened(images)[0], answer(model, images))


def test_a_program_runs_where_eyas_is_not(yolo: YOLO, program: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, SIZE, SIZE)
    np.save(tmp_path / "images.npy", images.numpy())
    script = f"""
import sys, numpy, torch
extra = {{"eyas.json": ""}}
program = torch.export.load({str(program)!r}, extra_files=extra).module()
numpy.save("boxes.npy", program(torch.from_numpy(numpy.load("images.npy"))).numpy())
assert not [name for name in sys.modules if name.partition(".")[0] == "eyas"]
print(extra["eyas.json"])
"""
    run = [sys.executable, "-I", "-c", script]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card.items() >= {
        "names": ["cat", "dog", "owl"], "stride": [8.0, 16.0, 32.0], "imgsz": SIZE, "stretch": False, "end2end": True,
        "batch": None, "dynamic": True, "precision": "fp32", "family": "yolo26",
    }.items()  # fmt: skip
    assert "padded with grey (114)" in card["preprocessing"] and "RGB" in card["preprocessing"]
    assert "needs no NMS" in card["answers"] and "Apache-2.0" in card["licence"] and card["version"]
    assert_alike(torch.from_numpy(np.load(tmp_path / "boxes.npy")), answer(yolo.model, images))


def test_a_target_of_ones_own_is_an_object_that_is_passed(
    yolo: YOLO, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target: ExportTarget = StateDict()
    before = {key: value.clone() for key, value in yolo.model.state_dict().items()}
    path = yolo.export(format=target, imgsz=SIZE, data=data)
    assert path.suffix == ".state"
    said = capsys.readouterr().out
    assert "Verified on 6 images: the state file beside the model" in said
    assert re.search(r"mAP50-95 +0\.9\d+ +0\.9\d+ +0\.0000 +0\.002\n", said)
    assert re.search(r"sides of [1-9]\d* boxes \(px\) +0\.000, half of them 0\.000 +1\n", said)
    images = torch.rand(2, 3, SIZE, SIZE)
    found, nothing = target.open(path)(images)
    assert_alike(found, answer(yolo.model, images))
    assert nothing is None
    after = yolo.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], value) for key, value in before.items())


def test_wrong_numbers_are_refused_and_leave_nothing(yolo: YOLO, data: str) -> None:
    path = Path(str(yolo.ckpt_path)).with_suffix(".state")
    path.write_text("an earlier file")
    with pytest.raises(
        ExportError, match=r"the state file is not as good .* on 6 images its mAP50-95 is 0\.\d+, the model's 0\.9"
    ):
        yolo.export(format=Shifted(), imgsz=SIZE, data=data)
    assert path.read_text() == "an earlier file"
    assert not list(path.parent.glob(".export-*"))
    yolo.export(format=Shifted(), imgsz=SIZE, verify=False)
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(("after", "good"), [(0.5019, True), (0.4981, True), (0.5021, False), (0.4979, False)])
def test_how_far_a_file_may_be_from_its_model(after: float, good: bool) -> None:
    assert as_good(after, 0.5) is good
    assert not as_good(float("nan"), 0.5)


def test_a_model_that_finds_nothing_is_told_to_prove_nothing(
    yolo: YOLO, data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(data).parent
    shutil.copytree(other, tmp_path / "other")
    for label in (tmp_path / "other" / "labels").iterdir():
        label.write_text("0 0.02 0.02 0.01 0.01")
    described = {"path": str(tmp_path / "other"), "train": "images", "val": "images", "names": NAMES}
    yolo.export(format=StateDict(), imgsz=SIZE, data=described)
    assert "mAP50-95 on 6 images is 0.0000, too low to tell a wrong file from a right one" in caplog.text


def test_images_of_any_shape_are_squares_to_model_and_file(rtdetr: YOLO, yolo: YOLO, tmp_path: Path) -> None:
    """A file takes no rectangles, and 200 images are enough."""
    folder = tmp_path / "wide"
    (folder / "images").mkdir(parents=True)
    for i in range(203):
        cv2.imwrite(str(folder / "images" / f"{i:03}.png"), np.zeros((20, 40, 3), np.uint8))
    described = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
    sizes: list[torch.Size] = []

    class Watched(StateDict):
        def open(self, path: Path) -> Exported:
            right = super().open(path)
            return Exported(right.card, lambda images: sizes.append(images.shape) or right.answer(images))

    yolo.export(format=Watched(), imgsz=SIZE, data=described)
    assert {tuple(size[1:]) for size in sizes} == {(3, SIZE, SIZE)} and sum(size[0] for size in sizes) == 200


def test_a_file_answers_only_as_it_was_written(yolo: YOLO, tmp_path: Path) -> None:
    path = yolo.export(format=StateDict(), imgsz=SIZE, verify=False)
    opened = StateDict().open(path)
    with pytest.raises(ValueError, match="exported for images of 64 x 64 px, not 32 x 64"):
        opened(torch.zeros(1, 3, 32, 64))
    opened.ready(nms=False, max_det=100, agnostic=False).__enter__()
    for settings, message in (
        ({"nms": True, "max_det": 300, "agnostic": False}, "exported without NMS: leave nms unset"),
        (
            {"nms": None, "max_det": 301, "agnostic": False},
            "at most 300 detections.*max_det=301 and agnostic_nms=False would have no",
        ),
        ({"nms": None, "max_det": 300, "agnostic": True}, "max_det=300 and agnostic_nms=True would have no effect"),
    ):
        with pytest.raises(ValueError, match=message):
            opened.ready(**settings).__enter__()
    single = Exported(replace(opened.card, names=("item",)), opened.answer)
    single.ready(nms=None, max_det=300, agnostic=True).__enter__()
    dense = Exported(replace(opened.card, end2end=False), opened.answer)
    dense.ready(nms=True, max_det=1000, agnostic=True).__enter__()
    with pytest.raises(ValueError, match="exported for NMS"):
        dense.ready(nms=False, max_det=300, agnostic=False).__enter__()


class Undecided(DetectionModel):
    """A model whose way depends on what it sees."""

    def predict(self, x: Tensor) -> object:
        return super().predict(x if x.sum() > 0 else -x)


def test_what_cannot_be_traced_is_named(yolo: YOLO, tmp_path: Path) -> None:
    model = Undecided(yolo.model.yaml, verbose=False)
    with pytest.raises(
        ExportError,
        match=r"torch\.export cannot follow a Undecided \(yolo26\): .*data-dependent.* may work: format=torchscript",
    ):
        export(model, find_target("pt2"), tmp_path / "a.pt2", imgsz=SIZE, check=None)
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_someone_else_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))
    torch.export.save(program, tmp_path / "other.pt2")
    with pytest.raises(ExportError, match=r"other.pt2 holds no eyas.json"):
        find_target("pt2").open(tmp_path / "other.pt2")


def test_what_no_export_wrote_is_left_alone(yolo: YOLO, tmp_path: Path) -> None:
    place = tmp_path / "a.state"
    place.mkdir()
    export(yolo.model, StateDict(), place, imgsz=SIZE, check=None)  # an empty folder is nobody's
    assert place.is_file()
    place.unlink()
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(
        ExportError, match=r"a\.state is a folder with 'notes\.txt', which no export of this kind has wr"
    ):
        export(yolo.model, StateDict(), place, imgsz=SIZE, check=None)
    assert (place / "notes.txt").read_text() == "mine" and list(tmp_path.iterdir()) == [place]
    refuse_foreign(place, place)
    with pytest.raises(ExportError, match=r"notes\.txt is a file, which no export"):
        refuse_foreign(place / "notes.txt", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone, where a\.state would be written"):
        export(yolo.model, StateDict(), tmp_path / "gone" / "a.state", imgsz=SIZE, check=None)


def test_a_program_says_what_it_takes(program: Path, tmp_path: Path) -> None:
    opened = find_target("pt2").open(program)
    with pytest.raises(ValueError, match=r"best\.pt2 takes no 1 images of 8224 x 64 px: Guard failed"):
        opened(torch.zeros(1, 3, 8224, 64))
    opened.stretch = True
    with pytest.raises(ValueError, match="takes sides of at least 64 px, not 32 x 64: give imgsz=64"):
        opened(torch.zeros(1, 3, 32, 64))


def test_a_damaged_program_is_one_line(program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, place = program.read_bytes(), tmp_path / "cut.pt2"
    for held in (b"", b"nothing", whole[: len(whole) // 2], whole[:-100], whole.replace(b"graph", b"gnaph")):
        place.write_bytes(held)
        with pytest.raises(
            ExportError, match=r"cut\.pt2 is no exported program that this PyTorch reads: it is cut off"
        ):
            find_target("pt2").open(place)
    assert capfd.readouterr() == ("", "")


def test_arguments_without_sense_are_refused(yolo: YOLO) -> None:
    for none in (None, 3, object(), StateDict):
        with pytest.raises(OptionValueError, match=r"is no target: give one of pt2, .* or an object with name, suffix"):
            yolo.export(format=none)  # type: ignore[arg-type]
    for word in ("maybe", None, 1):
        with pytest.raises(OptionValueError, match="verify=.*: expected True or False"):
            yolo.export(verify=word)  # type: ignore[arg-type]
    for part in (0, -1, 1.5, "all", True):
        with pytest.raises(
            OptionValueError, match="fraction=.*: expected a share above 0 and up to 1, or a whole number"
        ):
            yolo.export("onnx", int8=True, fraction=part)
    with pytest.raises(ValueError, match=r"format='pt' is not one of pt2, .*\. Did you mean 'pt2'\?"):
        yolo.export(format="pt")
    target = StateDict()
    target.suffix = ".pt"
    with pytest.raises(ValueError, match=r"suffix '.pt' would take the place of .*best.pt"):
        yolo.export(format=target, imgsz=SIZE, verify=False)
    with pytest.raises(ValueError, match="data is there to verify on"):
        yolo.export(data="digits-tiny", verify=False)
