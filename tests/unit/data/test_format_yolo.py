"""Label files: every rule of the format, and that no text whatever crashes the parser or costs a valid row."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.data.files import without_suffix
from eyas.data.formats import yolo as yl
from eyas.data.formats.yolo import parse_labels

GOOD = b"1 0.5 0.5 0.25 0.125\n"


def kinds(data: bytes, **options) -> list[tuple[int, str]]:
    return [(p.line, p.kind) for p in parse_labels(data, num_classes=3, **options).problems]


def rows(data: bytes, **options) -> list[list[float]]:
    labels = parse_labels(data, num_classes=3, **options)
    assert labels.cls.dtype == labels.boxes.dtype == np.float32
    assert labels.boxes.shape == (len(labels.cls), 4)
    return np.column_stack([labels.cls, labels.boxes]).tolist()


@given(path=st.text(st.sampled_from("a.b/\\ é"), max_size=12))
def test_paths_lose_their_suffix_as_in_os_path(path: str) -> None:
    assert without_suffix(path) == os.path.splitext(path)[0]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_no_rows_is_background(data: bytes) -> None:
    assert rows(data) == []
    assert kinds(data) == []


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        GOOD.rstrip(),
        b"\n" + GOOD + b"\n\n",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        b"  1\t0.5  0.5 0.25   0.125  \n",
        b"1.0 .5 5e-1 +0.25 0.125\n",
        b"1 0.4 0.45 0.6 0.5 0.375 0.4375 0.625 0.5625\n",  # a polygon with these bounds
    ],
)
def test_ways_to_write_the_same_row(data: bytes) -> None:
    np.testing.assert_allclose(rows(data), [[1, 0.5, 0.5, 0.25, 0.125]], atol=1e-6)
    assert kinds(data) == ([(1, yl.OUTLINE)] if len(data.split()) > 5 else [])


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (b"1 0.5 0.5 0.25", yl.BAD_COLUMNS),
        (b"1 0.5 0.5 0.25 0.125 0.9", yl.BAD_COLUMNS),
        (b"1 0.1 0.1 0.2 0.2 0.3 0.3 0.4", yl.BAD_COLUMNS),
        (b"1,0.5,0.5,0.25,0.125", yl.BAD_COLUMNS),
        (b"hello world", yl.BAD_COLUMNS),
        (b"cat 0.5 0.5 0.25 0.125", yl.NOT_A_NUMBER),
        (b"1 0.5 0.5 0.25 nan", yl.NOT_A_NUMBER),
        (b"1 0.5 inf 0.25 0.125", yl.NOT_A_NUMBER),
        (b"1 0.5 1_0 0.25 0.125", yl.NOT_A_NUMBER),
        (b"1 0.5.5 0.5 0.25 0.125", yl.NOT_A_NUMBER),
        (b"1.5 0.5 0.5 0.25 0.125", yl.CLASS_NOT_INTEGER),
        (b"1e999 0.5 0.5 0.25 0.125", yl.CLASS_NOT_INTEGER),
        (b"3 0.5 0.5 0.25 0.125", yl.CLASS_OUT_OF_RANGE),
        (b"-1 0.5 0.5 0.25 0.125", yl.CLASS_OUT_OF_RANGE),
        (b"1 1.011 0.5 0.25 0.125", yl.OUT_OF_RANGE),
        (b"1 0.5 -0.011 0.25 0.125", yl.OUT_OF_RANGE),
        (b"1 320 240 50 60", yl.OUT_OF_RANGE),
        (b"1 0.1 0.1 0.2 0.2 0.3 1.2", yl.OUT_OF_RANGE),
        (b"1 0.5 0.5 -0.001 0.125", yl.NEGATIVE_SIZE),
        (b"1 0.5 0.5 0.25 -3", yl.NEGATIVE_SIZE),
        (b"1 0.5 0.5 0 0.125", yl.ZERO_SIZE),
        (b"1 0.5 0.5 0.25 1e-60", yl.ZERO_SIZE),
        (b"1 0.1 0.1 0.2 0.1 0.3 0.1", yl.ZERO_SIZE),
        (b"2 0.1 0.1 0.2 0.2", yl.DUPLICATE),
        (b"2 0.10 .1 2e-1 0.2", yl.DUPLICATE),
    ],
)
def test_a_bad_row_costs_only_itself(row: bytes, kind: str) -> None:
    """Spec E.3 loses the whole image for most of these; here the good rows around it stay, in their order."""
    data = GOOD + b"\n2 0.1 0.1 0.2 0.2\n" + row + b"\n0 0.3 0.3 0.1 0.1\n"
    assert kinds(data) == [(4, kind)]
    assert [r[0] for r in rows(data)] == [1, 2, 0]


def test_tolerance_and_bounds_are_accepted_unchanged() -> None:
    data = b"0 1.01 -0.01 1.01 1\n2 0 1 0.5 0.5\n"
    np.testing.assert_allclose(rows(data), [[0, 1.01, -0.01, 1.01, 1], [2, 0, 1, 0.5, 0.5]], rtol=1e-6)
    assert kinds(data) == []


def test_single_class_accepts_every_id_and_stores_zero() -> None:
    data = b"7 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.2 0.2\n-1 0.5 0.5 0.2 0.2\n"
    assert [r[0] for r in rows(data, single_cls=True)] == [0, 0]
    assert kinds(data, single_cls=True) == [(3, yl.CLASS_OUT_OF_RANGE)]


def test_rows_that_differ_only_in_class_are_duplicates_for_a_single_class() -> None:
    data = b"0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n"
    assert len(rows(data)) == 2
    assert kinds(data, single_cls=True) == [(2, yl.DUPLICATE)]


def test_pose_rows_are_cut_to_the_box() -> None:
    data = b"1 0.5 0.5 0.25 0.125 " + b" ".join([b"9.9"] * 6) + b"\n"
    assert rows(data, rules=yl.TextRules(keypoints=(3, 2))) == rows(GOOD)


def test_polygons_of_a_pose_set_stay_polygons() -> None:
    polygon = b"1 0.4 0.45 0.6 0.5 0.375 0.4375 0.625 0.5625\n"
    np.testing.assert_allclose(rows(polygon, rules=yl.TextRules(keypoints=(3, 2))), rows(GOOD), atol=1e-6)


def test_polygons_and_boxes_share_a_file() -> None:
    assert len(rows(GOOD + b"0 0.1 0.1 0.3 0.1 0.3 0.4\n")) == 2


def test_utf16_is_named_and_binary_is_reported() -> None:
    assert kinds("1 0.5 0.5 0.2 0.2\n".encode("utf-16")) == [(0, yl.UNREADABLE)]
    assert rows(bytes(range(256))) == []
    assert kinds(bytes(range(256)))


def test_messages_tell_what_to_do() -> None:
    message = parse_labels(b"1 320 240 50 60\n", num_classes=3).problems[0].message
    assert "320" in message
    assert "divide by the image size" in message
    assert "commas" in parse_labels(b"1,2,3\n", num_classes=3).problems[0].message
    assert "classes 0 to 2" in parse_labels(b"3 0.5 0.5 0.1 0.1\n", num_classes=3).problems[0].message


numbers = st.floats(0.0, 1.0, width=32)
sizes = st.floats(0.0009765625, 1.0, width=32)
valid_rows = st.tuples(st.integers(0, 2), numbers, numbers, sizes, sizes)


def write(row: tuple[float, ...]) -> str:
    return " ".join(repr(float(value)) if i else str(value) for i, value in enumerate(row))


def test_numbers_that_stand_alone_are_no_row() -> None:
    for data in (b"0", b"1\n1\n1\n1\n1", b"0 0.5 0.5 0.5 0.5\n1\n1\n1\n1\n1"):
        labels = parse_labels(data, num_classes=3)
        assert len(labels.cls) == data.count(b"0 0.5")
        assert [problem.kind for problem in labels.problems] == ["bad column count"] * (data.count(b"1") or 1)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    labels = parse_labels(data, num_classes=3)
    assert np.isfinite(labels.boxes).all()
    assert (labels.boxes[:, 2:] > 0).all()
    assert ((labels.cls >= 0) & (labels.cls < 3)).all()


@given(st.lists(valid_rows, max_size=12, unique=True), st.data())
@settings(max_examples=200, deadline=None)
def test_valid_rows_survive_any_rubbish_between_them(good: list[tuple[float, ...]], data: st.DataObject) -> None:
    line = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30)
    # Rubbish that happens to be a row is a row; all of it has to be accounted for.
    lines = [text for row in good for text in (write(row), "junk " + data.draw(line))]
    labels = parse_labels("\n".join(lines).encode(), num_classes=3)
    expected = np.array([(c, *box) for c, *box in good], np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(np.column_stack([labels.cls, labels.boxes]), expected)
    assert len(labels.problems) == len(good)


tokens = st.sampled_from(
    ["0", "1", "2", "3", "0.5", "0.25", "1.005", "-0.005", "1.02", "-0.02", "0.0", "1e-1", "x", "1.0"]
)


@given(st.lists(st.lists(tokens, min_size=3, max_size=8).map(" ".join), max_size=6))
@settings(max_examples=400, deadline=None)
def test_fast_and_slow_path_agree(lines: list[str]) -> None:
    data = "\n".join(lines).encode()
    if not data.strip():
        return
    slow = yl._parse_rows(data, yl.ClassIds(3, None, False), None)
    (fast,) = yl._parse_clean([data], yl.ClassIds(3, None, False))
    if fast is None:
        return
    assert slow.problems == []
    np.testing.assert_array_equal(fast.cls, slow.cls)
    np.testing.assert_array_equal(fast.boxes, slow.boxes)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.floats(0.125, 0.875, width=32)), min_size=1, max_size=8),
    st.sets(st.integers(0, 12), min_size=1),
    st.sampled_from([" ", ",broken "]),
)
@settings(max_examples=200, deadline=None)
def test_ids_of_files_become_classes_on_both_paths(found: list[tuple[int, float]], ids: set[int], space: str) -> None:
    """A row that is not clean sends the whole file down the slow path."""
    order = sorted(ids)
    lines = [f"{i} {x} 0.5 0.1 0.1" for i, x in dict.fromkeys(found)]
    data = "\n".join([*lines, f"0{space}0.5 0.5 0.1 0.1" if space != " " else ""]).encode()
    labels = yl.parse_labels(data, num_classes=len(order), rules=yl.TextRules(ids=tuple(order)))
    known = [order.index(i) for i, _ in dict.fromkeys(found) if i in ids]
    assert labels.cls.tolist() == known
    unknown = [p.unknown for p in labels.problems if p.kind == yl.CLASS_OUT_OF_RANGE]
    assert unknown == [i for i, _ in dict.fromkeys(found) if i not in ids]


def test_ids_that_are_none_are_told_with_those_that_are() -> None:
    labels = yl.parse_labels(b"3 0.5 0.5 0.1 0.1\n", num_classes=3, rules=yl.TextRules(ids=(1, 2, 4)))
    assert "class 3; the data set has class ids 1, 2, 4" in labels.problems[0].message
    single = yl.parse_labels(b"3 0.5 0.5 0.1 0.1\n", num_classes=1, single_cls=True, rules=yl.TextRules(ids=(1, 2, 4)))
    assert single.cls.tolist() == [0]


def test_clean_files_take_the_fast_path() -> None:
    data = b"".join(b"%d 0.%03d 0.5 0.25 0.125\r\n" % (i % 3, i) for i in range(500))
    assert yl._parse_clean([data], yl.ClassIds(3, None, False)) != [None]
    assert len(rows(data)) == 500


def test_images_left_out_leave_no_trace_but_that_their_labels_have_an_image(tmp_path: Path) -> None:
    """Label files in capitals cannot be watched by their folders; those of images that were left out need not be."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for i in range(4):
        (tmp_path / "images" / f"{i}.png").touch()
        (tmp_path / "labels" / f"{i}.{'TXT' if i == 3 else 'txt'}").write_bytes(GOOD)
    (tmp_path / "labels" / "stray.txt").write_bytes(GOOD)
    source = yl.YoloText([tmp_path / "images"], num_classes=3)
    source.label_stats([path for path, _ in source.images()][:3])
    assert source.watched() is not None
    assert source.unused_names() == {yl.NO_IMAGE: [str(tmp_path / "labels" / "stray.txt")]}
