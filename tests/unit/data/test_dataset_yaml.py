"""Data set descriptions: what is understood, and that every mistake is named with its place and a way out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.data.class_names import read_classes
from eyas.data.dataset_yaml import check_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        (tmp_path / "set" / "images" / split).mkdir(parents=True)
    return tmp_path / "set"


def write(root: Path, name: str = "data.yaml", **content) -> Path:
    content = {"train": "images/train", "val": "images/valid", "names": ["cat", "dog"], **content}
    file = root / name
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return file


def test_paths_are_relative_to_the_yaml(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check_dataset("set/data.yaml") if write(root) else {}
    assert checked["path"] == root
    assert checked["train"] == [root / "images/train"]
    assert checked["val"] == [root / "images/valid"]
    assert checked["test"] == []
    assert (checked["names"], checked["nc"], checked["channels"]) == ({0: "cat", 1: "dog"}, 2, 3)
    assert checked["keypoints"] is None
    assert checked["yaml_file"] == Path("set/data.yaml")


@pytest.mark.parametrize("path", [".", "..", "", None, "set", "absolute"])
def test_path_key(root: Path, path: str | None) -> None:
    """`path: set` inside the folder `set` is what exports write when they mean this folder."""
    (root / "sub").mkdir()
    folder = root / "sub" if path == ".." else root
    file = write(folder, path=str(root) if path == "absolute" else path)
    assert check_dataset(file)["train"] == [root / "images/train"]


def test_ways_to_name_a_data_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(root)
    monkeypatch.chdir(root)
    mapping = yaml.safe_load(file.read_text()) | {"path": root}
    for name in (file, str(file), root, "data", "data.yaml", mapping):
        assert check_dataset(name)["train"] == [root / "images/train"]


def test_lists_and_text_files(root: Path) -> None:
    (root / "more.txt").write_text("images/train/a.jpg\n")
    checked = check_dataset(write(root, train=["images/train", "more.txt"], test="images/test"))
    assert checked["train"] == [root / "images/train", root / "more.txt"]
    assert checked["test"] == [root / "images/test"]


def test_exports_that_start_with_dots(root: Path) -> None:
    assert check_dataset(write(root, train="../images/train"))["train"] == [root / "images/train"]


@pytest.mark.parametrize("alias", ["validation", "valid"])
def test_other_names_of_val(root: Path, alias: str, caplog: pytest.LogCaptureFixture) -> None:
    checked = check_dataset(write(root, val=None, **{alias: "images/valid"}))
    assert checked["val"] == [root / "images/valid"]
    assert f"key '{alias}' is read as 'val'" in caplog.text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"names": {0: "a", "1": "b"}}, {0: "a", 1: "b"}),
        ({"names": {1: "b", 0: "a"}}, {0: "a", 1: "b"}),
        ({"names": ["a", 7]}, {0: "a", 1: "7"}),
        ({"names": ["a", "b"], "nc": 2}, {0: "a", 1: "b"}),
        ({"names": None, "nc": 2}, {0: "class_0", 1: "class_1"}),
        ({"names": None, "nc": "2"}, {0: "class_0", 1: "class_1"}),
    ],
)
def test_names(root: Path, given: dict, expected: dict[int, str]) -> None:
    assert check_dataset(write(root, **given))["names"] == expected


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({}, None),
        ({"names": {0: "a", 1: "b"}}, None),
        ({"ids_start": 0}, (0, 1)),
        ({"ids_start": 1}, (1, 2)),
        ({"names": {0: "a", 1: "b"}, "ids_start": 1}, (1, 2)),
        ({"names": {1: "a", 2: "b"}}, (1, 2)),
        ({"names": {1: "a", 2: "b"}, "ids_start": 1}, (1, 2)),
        ({"names": {7: "b", 2: "a"}}, (2, 7)),
        ({"names": None, "nc": 2, "ids_start": 3}, (3, 4)),
    ],
)
def test_ids_of_label_files(root: Path, given: dict, ids: tuple[int, ...] | None) -> None:
    checked = check_dataset(write(root, **given))
    assert (checked["ids"], checked["nc"], list(checked["names"])) == (ids, 2, [0, 1])
    if "ids_start" in given:
        without = check_dataset(write(root, **given | {"ids_start": None}), ids_start=given["ids_start"])
        assert without["ids"] == ids, "the option says what the key says"


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 500), st.text(min_size=1), min_size=1), st.none() | st.integers(0, 500))
def test_any_mapping_of_names_is_read_in_order_or_refused(names: dict[int, str], start: int | None) -> None:
    content = {"names": names, "ids_start": start}
    twice = len(set(names.values())) < len(names)
    gaps = sorted(names) != list(range(len(names)))
    if twice or (gaps and start not in (None, min(names))):
        with pytest.raises(ValueError, match="twice" if twice else "ids_start"):
            read_classes(content, "here")
        return
    classes = read_classes(content, "here")
    assert list(classes.names) == list(range(len(names)))
    ids = classes.ids or tuple(range(len(names)))
    assert list(ids) == sorted(set(ids))
    assert ids[0] == (min(names) if start is None else start)
    if gaps:
        assert {ids[c]: name for c, name in classes.names.items()} == names


def test_validation_on_the_training_images_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = "val is the same as train"
    for val, splits in ((None, ("train",)), (0.1, ("train", "val")), ("images/valid", ("train", "val"))):
        check_dataset(write(root, val=val), splits=splits)
        assert said not in caplog.text
    check_dataset(write(root, train="images/train", val="images/train"), splits=("val",))
    assert said not in caplog.text
    for val in ("images/train", ["./images/train"]):
        caplog.clear()
        check_dataset(write(root, train="images/train", val=val), splits=("train", "val"))
        assert said in caplog.text


def test_a_share_in_place_of_a_split_is_held_out(root: Path) -> None:
    for checked in (
        check_dataset(write(root, val=0.1)),
        check_dataset(write(root, val=None), val_fraction=0.1),
        check_dataset(write(root, val=None, valid=0.1)),
    ):
        assert (checked["val"], checked["val_fraction"]) == (checked["train"], 0.1)
    assert check_dataset(write(root, val=0.2), val_fraction=0.1)["val_fraction"] == 0.1
    with pytest.raises(ValueError, match="val_fraction=0.1 would hold out training images, but the data has val: "):
        check_dataset(write(root), val_fraction=0.1)


def test_an_optional_split_must_exist_once_it_is_named(root: Path) -> None:
    assert check_dataset(write(root, val=None), splits=("train",), optional=("val",))["val"] == []
    with pytest.raises(ValueError, match="val: images/nowhere does not exist"):
        check_dataset(write(root, val="images/nowhere"), splits=("train",), optional=("val",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\ntrain: b\nval: a\nnames: [x]\n", "line 2: key 'train' was given in line 1 already"),
        ("train: a\nval: a\nnames: {0: x, 0: y}\n", "line 3: key '0' was given in line 3 already"),
        ('path: "C:\\data"\ntrain: a\nval: a\nnames: [x]\n', "escape.* In double quotes, YAML reads a backslash"),
    ],
)
def test_what_yaml_itself_would_take_or_garble(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        check_dataset(tmp_path / "d.yaml")


def test_exports_that_begin_with_the_name_of_their_own_folder(root: Path) -> None:
    assert check_dataset(write(root, train=f"{root.name}/images/train"))["train"] == [root / "images/train"]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.booleans())
def test_names_come_in_the_order_of_their_ids(order: list[int], text: bool) -> None:
    """Whoever lists the names lists class 0 first, whatever the order in the file."""
    names = {str(i) if text else i: f"name {i}" for i in order}
    checked = check_dataset({"names": names, "train": ".", "val": "."})
    assert list(checked["names"].items()) == [(i, f"name {i}") for i in range(6)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": None}, "key 'names' .* is missing"),
        ({"names": None, "nams": ["a"]}, "Did you mean nams"),
        ({"names": "cat"}, r"must be a list like \[cat, dog\]"),
        ({"names": []}, "must be a list"),
        ({"names": {"cat": 0}}, "has the key 'cat'; keys are class ids"),
        ({"names": ["a", "b", "a"]}, "names has 'a' twice, as class 0 and 2"),
        ({"names": {0: "a", "00": "b"}}, "class id 0 twice, as 'a' and 'b'"),
        ({"names": {1: "a", 2: "b"}, "ids_start": 0}, "ids_start=0, but the ids in names start at 1"),
        ({"ids_start": -1}, "ids_start=-1 must be a whole class id, at least 0"),
        ({"ids_start": True}, "ids_start=True must be a whole class id"),
        ({"val": 1.0}, "val=1.0 must be a folder of images, or a share"),
        ({"val": ""}, "key 'val' .* is missing.*val: 0.1.*val=false"),
        ({"value_range": "bright"}, "value_range='bright' must be the value of white"),
        ({"train": r"images\train"}, r"written with backslashes, as on Windows; .*: images/train"),
        ({"path": r"C:\cells"}, r"written with backslashes, as on Windows, and C: is a drive there.*: C:/cells"),
        ({"train": "images\train"}, "control characters. In double quotes, YAML reads a backslash"),
        ({"names": [True, "b"]}, "read as True; put it in quotes"),
        ({"names": ["a", None]}, "class 1 is read as None"),
        ({"nc": 3}, "nc=3, but names lists 2 classes"),
        ({"nc": 0}, "nc=0 must be a whole number"),
        ({"nc": "many"}, "nc='many' must be"),
        ({"channels": 1}, "channels=1 is not supported"),
        ({"kpt_shape": [17]}, "kpt_shape=.* two whole numbers"),
        ({"kpt_shape": [0, 3]}, r"kpt_shape=\[0, 3\] must be two whole numbers"),
        ({"train": None}, "key 'train' .* is missing"),
        ({"train": None, "trian": "images/train"}, "Did you mean trian"),
        ({"train": {"a": 1}}, "train: .*unknown key 'a'; known are annotations, images"),
        ({"train": 5}, "must be a folder, a .txt list"),
        ({"path": ["x"]}, "path=.* must be a folder"),
        ({"names": None, "nc": 10**9}, "nc=1000000000 must be a whole number of classes, at least 1, at most 100,000"),
        ({"names": None, "nc": "9" * 5000}, r"nc='9+\.\.\.9+' must be a whole number"),
        ({"names": {2**31: "a"}}, "has the key 2147483648; keys are class ids"),
        ({"names": {"9" * 5000: "a"}}, r"has the key '9+\.\.\.9+'; keys"),
        ({"ids_start": 2**31}, "ids_start=2147483648 must be a whole class id"),
        ({"names": [["a" * 5000] * 50]}, r"class 0 is read as \['a+\.\.\.a+', .*\.\.\.\]; put it in quotes"),
        ({"train": "x" * 5000}, r"train='x+\.\.\.x+' is no path that a file can have"),
        ({"train": "x" * 400}, "train: x+ does not exist"),
        ({"path": "x" * 400}, "folder path=x+ does not exist"),
        ({"path": "/\0"}, "path='/.x00' is no path that a file can have"),
        ({"val": "~nobody-of-this-name/x"}, "val='~nobody-of-this-name/x' is no path"),
        ({"channels": list(range(5000))}, r"channels=\[0, 1, 2, 3, 4, 5, \.\.\.\] is not supported"),
    ],
)
def test_mistakes_are_named(root: Path, given: dict, message: str) -> None:
    file = write(root, **given)
    with pytest.raises(ValueError, match=message) as error:
        check_dataset(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("key", ["path", "train", "val", "test", "names", "nc", "channels", "kpt_shape", "download"])
def test_a_bomb_of_aliases_in_any_key_is_not_unpacked(root: Path, key: str) -> None:
    file = write(root, **{key: None})
    aliases = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    file.write_text(f"{file.read_text()}a0: &a0 [x]\n{aliases}{key}: *a11\n")
    with pytest.raises(ValueError, match="data.yaml, line .*more than 100,000 values"):
        check_dataset(file)


def test_missing_image_folder_names_key_places_contents_and_nearest(root: Path) -> None:
    with pytest.raises(ValueError, match="val: images/vald does not exist") as error:
        check_dataset(write(root, val="images/vald"))
    text = str(error.value)
    assert f"Tried {root / 'images/vald'}" in text
    assert "holds test, train, valid" in text
    assert f"Did you mean {root / 'images/valid'}?" in text


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds both forms of a name")
def test_a_folder_may_have_its_name_in_another_unicode_form(root: Path) -> None:
    (root / "images/train").rename(root / "images/e\u0301")
    assert check_dataset(write(root, train="images/\u00e9"))["train"] == [root / "images/e\u0301"]


def test_missing_root_lists_what_was_tried(root: Path) -> None:
    with pytest.raises(ValueError, match="folder path=sett does not exist") as error:
        check_dataset(write(root.parent, path="sett"))
    assert f"Tried {root.parent / 'sett'}" in str(error.value)
    assert f"Did you mean {root}?" in str(error.value)


def test_an_absolute_root_that_is_missing_is_not_replaced_by_the_folder_of_the_yaml(root: Path) -> None:
    gone = root.parent / "gone" / root.name
    with pytest.raises(ValueError, match=f"folder path={gone} does not exist"):
        check_dataset(write(root, path=str(gone)))


def test_only_the_splits_asked_for_must_exist(root: Path) -> None:
    file = write(root, train="gone", test="gone")
    assert check_dataset(file, splits=("val",))["train"] == []
    with pytest.raises(ValueError, match="test: gone does not exist"):
        check_dataset(file, splits=("test",))


def test_no_such_file_names_the_nearest(root: Path) -> None:
    write(root, "animals.yaml")
    with pytest.raises(ValueError, match=r"no such file. Tried .*animal\.yaml. Did you mean animals.yaml"):
        check_dataset(root / "animal.yaml")
    with pytest.raises(ValueError, match=r"Did you mean digits\?"):
        check_dataset("digit")


def test_a_tilde_is_the_home_of_somebody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    write(root)
    assert check_dataset("~/data.yaml")["train"] == [root / "images/train"]
    with pytest.raises(ValueError, match=r"^data=~nobody-of-this-name/x: there is no home folder ~nobody-of-this-name"):
        check_dataset("~nobody-of-this-name/x")
    with pytest.raises(ValueError, match="data: train: ~nobody-of-this-name/i: there is no home folder"):
        check_dataset(
            {"train": {"annotations": "x", "images": "~nobody-of-this-name/i"}, "names": ["a"]}, splits=("train",)
        )
    root.rename(root.parent / "~nobody-of-this-name")
    monkeypatch.chdir(root.parent)
    assert check_dataset("./~nobody-of-this-name")["nc"] == 2


def test_folder_with_several_or_no_yaml(root: Path) -> None:
    with pytest.raises(ValueError, match="holds no YAML file"):
        check_dataset(root)
    write(root)
    write(root, "other.yml")
    with pytest.raises(ValueError, match=r"several YAML files \(data.yaml, other.yml\)"):
        check_dataset(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [a\nval: b\n", "line 2: no valid YAML"),
        (b"- a\n", "holds a list; expected keys"),
        (b"", "holds nothing; expected keys"),
        (b"train: \xff\n", "not UTF-8"),
        (b"train: !!python/object/apply:os.system ['true']\n", "line 1: the tag .*os.system"),
    ],
)
def test_files_that_are_no_description(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_dataset(tmp_path / "x.yaml")


def test_a_weights_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"described by a .yaml file"):
        check_dataset(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "script", ["import os\nos.mkdir('ran')", "bash get.sh", "file:///etc/passwd", "http://x/a.zip\nimport os"]
)
def test_download_scripts_are_never_run(root: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match="never runs code from a data set"):
        check_dataset(write(root, val="gone", download=script))
    assert not (root / "ran").exists()
    assert check_dataset(write(root, download=script))["nc"] == 2  # not needed, not looked at


def test_pose_sets_give_their_keypoint_shape(root: Path) -> None:
    assert check_dataset(write(root, kpt_shape=[17, 3]))["keypoints"] == (17, 3)
