"""What a file is held to, besides mAP: every box of the model is there, within a pixel."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eyas import YOLO
from eyas.boxes import xyxy_to_cxcywh
from eyas.export import Card, Exported, ExportError
from eyas.export.base import MAX_DET
from eyas.export.verify import (
    SEEN,
    Agreement,
    agreement,
    allowed_move,
    best_of,
    check_boxes,
    looked_for,
    rows_of,
    sure_of,
    verify_on_noise,
)
from small_export import DETECT, NAMES, SIZE, StateDict, answer, untrained

CARD = Card(names=("a", "b"), stride=(8.0,), imgsz=SIZE, stretch=False, end2end=True)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return untrained(DETECT, tmp_path_factory.mktemp("yolo"))


def box(x: float, score: float, cls: int, y: float = 0.0) -> list[float]:
    return [x, y, x + 10, y + 10, score, cls]


def test_each_box_is_looked_for_by_class_and_place() -> None:
    expected = [torch.tensor([box(0, 0.9, 0), box(30, 0.8, 1)]), torch.zeros(0, 6), torch.tensor([box(5, 0.5, 0)])]
    found = [
        torch.tensor([box(30.25, 0.7, 1), box(30, 0.8, 0), box(0, 0.9, 1), box(0, 0.85, 0, y=0.75)]),
        torch.tensor([box(0, 0.9, 0)]),  # more than expected is no matter: the model has it too, with a lower score
        torch.tensor([box(5, 0.5, 0)]),
    ]
    near = pytest.approx(0.75, abs=1e-4)
    assert agreement(expected, found, CARD) == Agreement(3, 0.75, 0.25, near, pytest.approx(0.1), sure=True)
    missing = agreement(expected, [found[0], found[1], torch.tensor([box(5, 0.5, 1)])], CARD)
    assert missing.shift == missing.beyond == math.inf and missing.typical == 0.75
    for lost in (slice(None), slice(4), slice(4, 5)):
        nowhere = torch.tensor([box(5, 0.5, 0)])
        nowhere[:, lost] = math.nan
        assert agreement(expected, [found[0], found[1], nowhere], CARD).shift == math.inf
    assert agreement([torch.zeros(0, 6)], [torch.zeros(0, 6)], CARD) == Agreement(0, 0.0, 0.0, 0.0, 0.0, sure=False)


def test_of_boxes_in_the_same_place_the_one_with_the_nearest_score_is_meant() -> None:
    """Boxes that are larger than the image are all the same in it."""
    wide = [torch.tensor([[-900.0, -900, 900, 900, 0.9, 0], [-500.0, -500, 500, 500, 0.3, 0]])]
    assert agreement(wide, [wide[0].flip(0)], CARD).score == 0


def test_boxes_are_compared_where_the_image_is() -> None:
    """After a few steps of training, boxes may lie millions of pixels away, and rounding moves them by many."""
    side = float(SIZE)
    away, inverted = [1e7, 1e7, 1.1e7, 1.1e7, 0.9, 0], [50.0, 10, 20, 40, 0.9, 0]
    beside, across = [-9.0, 10, 0, 20, 0.9, 0], [-4000.0, 10, 30, 20, 0.9, 0]
    (rows,) = looked_for([torch.tensor([away, inverted, beside, across])], SIZE)
    assert rows.tolist() == [pytest.approx(across)]
    assert agreement([torch.tensor([away])], [torch.tensor([inverted])], CARD).boxes == 0
    shown = torch.tensor([[0.0, 0, side, side, 0.1, 0], [0.0, 0, side, 20, 0.2, 0], [*away[:4], 0.25, 0]])
    assert looked_for([shown], SIZE)[0].tolist() == [pytest.approx([0, 0, side, 20, 0.2, 0])]


@pytest.mark.parametrize(("precision", "large", "huge"), [("fp32", 1e6, 1e8), ("fp16", 1e3, 1e4), ("int8", 200, 600)])
def test_what_rounding_may_do_depends_on_the_largest_box(precision: str, large: float, huge: float) -> None:
    card = replace(CARD, precision=precision)

    def apart(size: float) -> Agreement:
        """Of a box that is three pixels away, in an image with one of that size."""
        expected = torch.tensor([box(20, 0.9, 0), [100.0, 0, 100 + size, 5, 0.9, 0]])
        return agreement([expected], [torch.tensor([box(23, 0.9, 0)])], card)

    assert apart(10).shift == apart(large).shift == 3 and apart(huge).boxes == 0
    assert apart(large).beyond < 3 - large * 2**-21 and apart(10).beyond > 2.5
    for size in (10, large):  # half of them must be there, whatever rounding does to one
        with pytest.raises(ExportError, match=r"a box is \d\.\d+ px away"):
            check_boxes(apart(size), card, "the x file", 1)


def test_of_more_boxes_than_are_returned_the_last_are_a_matter_of_rounding() -> None:
    many = torch.tensor([box(i / 10, 0.9 - i / 1000, 0) for i in range(MAX_DET)])
    assert len(sure_of(many[:-1])) == MAX_DET - 1 and len(sure_of(many)) == MAX_DET - 51


def test_dense_answers_are_compared_before_nms() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10]])
    dense = torch.cat((xyxy_to_cxcywh(boxes), torch.tensor([[0.2, 0.9], [0.7, 0.1]])), 1).T[None]
    (rows,) = rows_of(dense, end2end=False)
    torch.testing.assert_close(rows, torch.tensor([[0, 0, 10, 10, 0.9, 1], [1, 0, 11, 10, 0.7, 0]]))


def test_int8_is_held_to_half_of_its_boxes_and_others_to_all() -> None:
    far = Agreement(boxes=9, shift=1.75, typical=0.3, beyond=1.5, score=0.1, sure=True)
    with pytest.raises(
        ExportError, match=r"the x file does not answer .* on 7 images a box is 1\.500 px away; at most 1 .*verify=F"
    ):
        check_boxes(far, CARD, "the x file", 7)
    int8 = replace(CARD, precision="int8")
    check_boxes(far, int8, "the x file", 7)
    with pytest.raises(ExportError, match=r"a box is missing"):
        check_boxes(far._replace(typical=math.inf), int8, "the x file", 7)
    check_boxes(far._replace(beyond=1.0), CARD, "the x file", 7)
    check_boxes(far._replace(sure=False), CARD, "the x file", 7)  # a low score decides which boxes there are
    with pytest.raises(ExportError, match=r"a box is 1\.250 px away"):
        check_boxes(far._replace(sure=False, typical=1.25), CARD, "the x file", 7)
    assert (allowed_move(CARD), allowed_move(int8)) == (0.002, 0.01)


def moved(path: Path, by: Tensor) -> Exported:
    right = StateDict().open(path)
    return Exported(right.card, lambda images: right.answer(images) + by)


def test_without_data_boxes_and_scores_are_compared_on_noise(
    yolo: YOLO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = yolo.export(format=StateDict(), imgsz=SIZE)
    assert "Compared on 8 images of noise, for want of data: the state file beside the model" in capsys.readouterr().out
    verify_on_noise(yolo.model, moved(path, torch.zeros(6)), "the file")
    with pytest.raises(ExportError, match=r"on 8 images a box is 2\.\d+ px away"):
        verify_on_noise(yolo.model, moved(path, torch.tensor([2.0, 0, 0, 0, 0, 0])), "the file")
    with pytest.raises(ExportError, match=r"on 8 images of noise a score is 0\.2\d* away"):
        verify_on_noise(yolo.model, moved(path, torch.tensor([0.0, 0, 0, 0, 0.2, 0])), "the file")


def test_a_network_that_scores_all_places_alike_has_no_box_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As those are that were never trained: which of the equal scores are the best is a matter of rounding."""
    monkeypatch.chdir(tmp_path)
    fresh = YOLO("yolo26n")
    path = fresh.export(format=Shuffled(), imgsz=SIZE)
    assert "the model scores all places alike, as an untrained one does, or its boxes are outside" in caplog.text
    with pytest.raises(ExportError, match="on 8 images a box is no number"):
        verify_on_noise(fresh.model, moved(path, torch.full((6,), math.nan)), "the file")


class Shuffled(StateDict):
    """Of equal scores, its files return others than the model does."""

    def open(self, path: Path) -> Exported:
        right = super().open(path)
        return Exported(right.card, lambda images: right.answer(images.flip(-1))[:, ::2])


def test_only_boxes_clearly_above_the_lowest_are_looked_for() -> None:
    rows = torch.tensor([box(0, 0.5, 0), box(1, 0.3001, 0), box(2, 0.3, 1), box(3, 0.31, 0)])
    assert best_of(rows)[:, 0].tolist() == [0, 3]
    many = torch.tensor([box(i, 0.1 + i / 100, 0) for i in range(20)])
    assert best_of(many)[:, 0].tolist() == list(range(19, 9, -1))
    assert not len(best_of(many[:0])) and not len(best_of(many[:1]))


def test_a_model_that_is_sure_of_nothing_is_held_to_its_best_boxes(data: str, tmp_path: Path) -> None:
    timid = untrained(DETECT, tmp_path)
    with torch.no_grad():
        for key, value in timid.model.head.named_parameters():
            value.sub_(6.0 if key.startswith("one2one_cv3") and key.endswith("2.bias") else 0.0)
    assert 0 < answer(timid.model, torch.rand(1, 3, SIZE, SIZE))[..., 4].max() < SEEN
    other = tmp_path / "other"
    shutil.copytree(Path(data).parent, other)
    for label in (other / "labels").iterdir():
        label.write_text("0 0.02 0.02 0.01 0.01")  # where nothing is found, so that no mAP tells
    described = {"path": str(other), "train": "images", "val": "images", "names": NAMES}
    timid.export(format=StateDict(), imgsz=SIZE, data=described)
    with pytest.raises(ExportError, match=r"a box is 2\.\d+ px away"):
        timid.export(format=Aside(), imgsz=SIZE, data=described)


class Aside(StateDict):
    """Its files see every box two pixels to the right."""

    def open(self, path: Path) -> Exported:
        return moved(path, torch.tensor([2.0, 0, 2.0, 0, 0, 0]))


def test_data_of_the_training_that_is_gone_is_told_and_data_that_was_given_must_be_there(
    yolo: YOLO, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="gone"):
        yolo.export(format=StateDict(), imgsz=SIZE, data="gone.yaml")
    monkeypatch.setattr(yolo, "ckpt", {"train_args": {"data": "gone.yaml", "imgsz": SIZE}})
    yolo.export(format=StateDict())
    assert "the data of the training is not here, so that the file is compared on noise" in caplog.text
