"""The doctor: every planted fault is found where it is, and nothing in a sound data set."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import sick_data as sick
from eyas import cli
from eyas.doctor import examine
from eyas.doctor.checks.registry import WHAT
from eyas.doctor.finding import SEVERITIES, counted, finding, percent
from eyas.doctor.render.as_json import to_dict
from eyas.doctor.render.page import MAX_PICTURES, page

PLANTED = ("cup", "jug", "rare", "ghost", "none")
IMGSZ = 128  # the images' own size, so that px are px


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound data set of 64 and 14 images."""
    return sick.Set(tmp_path_factory.mktemp("sound")).fill(64, 14)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A data set with one fault of each kind, and where they are."""
    made = sick.Set(tmp_path_factory.mktemp("faulty"), PLANTED).fill(64, 14)
    return made, sick.plant(made)


@pytest.fixture(scope="module")
def diagnosis(faulty):
    return examine(faulty[0].yaml, imgsz=IMGSZ)


def of_kind(diagnosis, kind):
    return [found for found in diagnosis.findings if found.kind == kind]


def files(found):
    return {Path(place.file).name for place in found.places}


def test_nothing_is_found_in_a_sound_data_set(sound):
    assert examine(sound.yaml, imgsz=IMGSZ).findings == ()


def test_nothing_is_found_in_the_embedded_digits(digits_tiny):
    assert examine("digits-tiny", imgsz=IMGSZ).findings == ()


def test_every_planted_fault_is_found_where_it_is_and_nothing_else(faulty, diagnosis):
    found: dict[str, set[str]] = {}
    for each in diagnosis.findings:
        found[each.kind] = found.get(each.kind, set()) | files(each)
    assert found == faulty[1]


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        ("same file in two splits", "error"),
        ("class not in train", "error"),
        ("broken image", "error"),
        ("bad column count", "error"),
        ("same scene in two splits", "warning"),
        ("duplicate box", "warning"),
        ("nearly the same image", "note"),
        ("EXIF rotation", "note"),
    ],
)
def test_what_is_certainly_wrong_is_an_error(diagnosis, kind, severity):
    assert {found.severity for found in of_kind(diagnosis, kind)} == {severity}


def test_the_worst_come_first(diagnosis):
    order = [SEVERITIES.index(found.severity) for found in diagnosis.findings]
    assert order == sorted(order) and len(set(order)) == 3


def test_a_leak_names_the_image_in_train(diagnosis):
    (near,) = of_kind(diagnosis, "same scene in two splits")
    beside = {Path(place.file).name: (Path(place.beside.file).name, place.what) for place in near.places}
    assert beside == {"mirrored.png": ("001.jpg", "mirrored"), "small.jpg": ("002.jpg", "nearly the same")}


def test_findings_name_the_labels_and_the_line(diagnosis):
    (twice,) = of_kind(diagnosis, "duplicate box")
    assert twice.places[0].labels == (0, 1) and twice.places[0].what.startswith("cup, IoU 0.9")
    (tiny,) = of_kind(diagnosis, "tiny box")
    assert tiny.places[0].labels == (1,) and tiny.places[0].what == f"6.0 px at imgsz={IMGSZ}"
    (bad,) = of_kind(diagnosis, "bad column count")
    assert bad.places[0].line == 2
    (few,) = of_kind(diagnosis, "few examples")
    assert "rare 1" in few.sentence


def test_tiny_depends_on_imgsz(faulty):
    assert [
        found.kind for found in examine(faulty[0].yaml, imgsz=256, checks=["sizes"]).findings if "tiny" in found.kind
    ] == []
    (tiny,) = of_kind(examine(faulty[0].yaml, imgsz=64, checks=["sizes"]), "tiny box")
    assert tiny.count == 1 and "imgsz=192" in tiny.action  # 8 px of 6 at 128 need 170


def test_a_listed_image_may_be_listed_twice(sound, tmp_path):
    lines = [str(path) for path in sorted(sound.image("train", "x").parent.iterdir())]
    (tmp_path / "train.txt").write_text("\n".join([*lines, lines[0]]))
    data = {"train": str(tmp_path / "train.txt"), "val": str(sound.folder / "images/val"), "names": list(sick.NAMES)}
    assert examine(data, imgsz=IMGSZ, checks=["leaks", "duplicates"]).findings == ()


def test_a_split_that_cannot_be_used_is_an_error_and_the_others_are_looked_at(tmp_path):
    made = sick.Set(tmp_path / "set").fill(3, 0)
    made.add("val", "bad.jpg", b"no image", None)
    found = examine(made.yaml, imgsz=IMGSZ, checks=["files"])
    assert [each.kind for each in found.findings] == ["split cannot be used"] and list(found.case.splits) == ["train"]


def test_a_split_without_boxes_is_an_error(tmp_path):
    made = sick.Set(tmp_path / "set").fill(12, 0)
    made.add("val", "bare.jpg", sick.picture(99), "")
    found = examine(made.yaml, imgsz=IMGSZ, checks=["classes"])
    assert [(each.kind, each.severity) for each in found.findings] == [("split without boxes", "error")]


# -- which checks are made ---------------------------------------------------------------------------------------------
def test_checks_are_chosen_and_left_out(faulty):
    assert {f.check for f in examine(faulty[0].yaml, imgsz=IMGSZ, checks=["exif", "classes"]).findings} == {
        "exif",
        "classes",
    }
    assert examine(faulty[0].yaml, imgsz=IMGSZ, checks=["exif", "sizes"], skip=["sizes"]).checks == ("exif",)
    assert examine(faulty[0].yaml, skip=[name for name in WHAT if name != "exif"]).case.imgsz == 640


@pytest.mark.parametrize(
    ("given", "tells"),
    [
        ({"checks": ["leak"]}, "Did you mean 'leaks'?"),
        ({"skip": ["odds"]}, "skip: there is no check 'odds'"),
        ({"checks": ["model"]}, "add model=best.pt"),
        ({"checks": ["odd"], "skip": ["odd"]}, "no check to make"),
        ({"checks": ["odd"], "model": "a.pt"}, "model=a.pt has no effect"),
    ],
)
def test_a_choice_without_effect_is_refused(sound, given, tells):
    with pytest.raises(ValueError, match="check") as caught:
        examine(sound.yaml, **given)
    assert tells in str(caught.value)


# -- what is written ---------------------------------------------------------------------------------------------------
class Tags(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_small(diagnosis):
    text = page(diagnosis)
    assert len(text.encode()) < 3_000_000
    read = Tags(text)
    assert read.tags.count("section") == len(diagnosis.findings)
    assert "script" not in read.tags
    assert read.sources and all(source.startswith("data:image/jpeg;base64,") for source in read.sources)
    for found in diagnosis.findings:
        assert found.sentence in read.text
    pictured = [min(sum(p.image is not None for p in found.places), MAX_PICTURES) for found in diagnosis.findings]
    assert read.tags.count("figure") == sum(pictured)


def test_pictures_share_the_room_there_is(diagnosis, monkeypatch):
    from eyas.doctor.render import page as module

    monkeypatch.setattr(module, "MAX_BYTES", 60_000)
    text = page(diagnosis)
    assert 0 < Tags(text).tags.count("figure") < 20 and len(text) < 100_000


def test_names_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    made = sick.Set(tmp_path / "set", ["cup", f"'{evil}'"]).fill(1, 1)
    made.add("train", "<img src=x onerror=y>.jpg", sick.picture(300), [(1, 40, 40, 24, 24), (1, 40.5, 40, 24, 24)])
    found = examine(made.yaml, imgsz=IMGSZ, checks=["overlaps", "classes"])
    read = Tags(page(found))
    assert "script" not in read.tags and evil in read.text and "<img src=x onerror=y>.jpg" in read.text
    assert all(source.startswith("data:") for source in read.sources)


def test_json_holds_every_finding_and_its_boxes(diagnosis):
    values = json.loads(json.dumps(to_dict(diagnosis)))
    assert values["version"] == 1 and values["imgsz"] == IMGSZ and values["splits"]["val"]["images"] == 18
    assert sum(values["counts"].values()) == len(values["findings"]) == len(diagnosis.findings)
    (twice,) = [found for found in values["findings"] if found["kind"] == "duplicate box"]
    (place,) = twice["places"]
    assert twice["count"] == 1 and twice["places_not_listed"] == 0 and place["split"] == "train"
    assert [(label["number"], label["class"]) for label in place["labels"]] == [(1, "cup"), (2, "cup")]
    np.testing.assert_allclose(
        [label["xyxy"] for label in place["labels"]], [[28, 28, 52, 52], [28.5, 28, 52.5, 52]], atol=0.06
    )
    (leak,) = [found for found in values["findings"] if found["kind"] == "same file in two splits"]
    assert leak["places"][0]["beside"]["split"] == "train"


def test_a_finding_keeps_some_places_and_counts_all(diagnosis):
    place = (
        diagnosis.findings[0].places[0] if diagnosis.findings[0].places else of_kind(diagnosis, "tiny box")[0].places[0]
    )
    many = finding("odd", "kind", "note", "sentence", "action", [place] * 1500)
    assert (len(many.places), many.count) == (1000, 1500)


def test_numbers_read_well():
    assert (counted(1, "box", "boxes"), counted(1234, "box", "boxes")) == ("1 box", "1,234 boxes")
    assert [percent(n, 1000) for n in (0, 0.5, 3, 12, 500)] == ["0 %", "less than 0.1 %", "0.3 %", "1.2 %", "50 %"]


# -- the command -------------------------------------------------------------------------------------------------------
def test_the_command_exits_by_what_it_finds(faulty, sound, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad, good = str(faulty[0].yaml), f"data={sound.yaml}"
    assert cli.main(["doctor", good, f"imgsz={IMGSZ}", "strict=true"]) == 0
    out = capsys.readouterr().out
    assert "Nothing found" in out and "html=" not in out
    assert cli.main(["doctor", bad, f"imgsz={IMGSZ}", "checks=[leaks, exif]", "json=a.json", "html=a.html"]) == 1
    out = capsys.readouterr().out
    assert "error: same file in two splits [leaks]" in out and "copy.jpg" in out and "1 error, 1 warning, 1 note" in out
    assert json.loads(Path("a.json").read_text())["checks"] == ["leaks", "exif"]
    assert Path("a.html").read_text().startswith("<!doctype html>")
    assert cli.main(["doctor", bad, "checks=overlaps"]) == 0
    assert cli.main(["doctor", bad, "checks=overlaps", "strict=true"]) == 1
    assert cli.main(["doctor", bad, "checks=exif", "strict=true"]) == 0


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        ([], "doctor needs data=..."),
        (["x.yaml", "htlm=a.html"], "doctor knows no 'htlm': did you mean html?"),
        (["x.yaml", "epochs=3"], "doctor knows no 'epochs'"),
        (["x.yaml", "y.yaml"], "data is given twice"),
        (["x.yaml", "--strict"], "options are written key=value"),
        (["x.yaml", "strict=maybe"], "expected true or false"),
        (["x.yaml", "checks=[1]"], "expected a name, or a list"),
        (["x.yaml", "checks=[]"], "expected a name, or a list"),
        (["x.yaml", "checks=leak"], "Did you mean 'leaks'?"),
        (["x.yaml", "html=nowhere/a.html"], "in a folder that exists"),
        (["x.yaml", "device=cpu"], "no effect on doctor without a model"),
        (["x.yaml", "imgsz=0"], "imgsz=0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, tells, capsys):
    assert cli.main(["doctor", *arguments]) == 2
    err = capsys.readouterr().err
    assert tells in err and err.count("\n") == 1


def test_help_lists_every_check_and_option(capsys):
    assert cli.main(["doctor", "--help"]) == 0
    out = capsys.readouterr().out
    for name in (*WHAT, *cli.DOCTOR_OPTIONS, *cli.DOCTOR_SHARED):
        assert f"\n  {name} " in out
