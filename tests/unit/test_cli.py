"""The command line: what it prints, its exit codes, and that a mistake starts nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from eyas import YOLO, __version__, cli
from eyas.cli import parse_pairs
from eyas.config import resolve
from eyas.evaluate.sources.opening import open_source


def eyas(*arguments, cwd, **env):
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "eyas", *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run main() in this process, in an empty folder; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EYAS_DEBUG", raising=False)

    def call(*arguments):
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_misspelt_option_starts_nothing(tmp_path):
    done = eyas("train", "epochz=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["eyas: unknown option 'epochz' (command line): did you mean epochs?"]
    assert list(tmp_path.iterdir()) == []


def test_help_needs_neither_torch_nor_pydantic(tmp_path):
    code = (
        "import sys; from eyas.cli import main; main(['--help']); "
        "print('heavy:', {'torch', 'pydantic', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Usage: eyas COMMAND" in done.stdout
    assert done.stdout.endswith("heavy: set()\n")


@pytest.mark.parametrize("typed", [["train", "epochs=0"], ["tune", "model=a", "data=b", "space={lr: [1, 2]}"]])
def test_checking_options_needs_no_torch(tmp_path, typed):
    code = f"import sys; from eyas.cli import main; main({typed}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_name_that_cannot_be_printed_ends_no_command(tmp_path):
    done = eyas("doctor", "猫.yaml", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False) and r"\u732b.yaml" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = f'"{sys.executable}" -m eyas explain | head -n 1'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["help"], ["train", "--help"], ["tune", "-h"], ["explain", "-h"], ["info", "-h"]]
)
def test_help(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(("Eyas", "Usage:"))


def test_no_command_is_wrong_usage(run):
    code, out, _ = run()
    assert code == 2
    assert "Usage" in out


def test_version(run):
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["trian"], "did you mean train?"),
        (
            ["launch"],
            "rehearse, verify-resume, doctor, val, predict, track, export, convert, replay, runs, best, info, explain",
        ),
        (["best"], "name one folder of a run"),
        (["best", "runs", "metrics=f1"], "best knows no 'metrics': it takes metric, classes, mode, out"),
        (["convert", "data=a.yaml", "to=coco"], "convert needs out=..."),
        (["convert", "data=a.yaml", "ot=coco"], "convert knows no 'ot'"),
        (["convert", "data=a.yaml", "to=cocoa", "out=b"], "to=cocoa: expected yolo, coco, voc; did you mean coco?"),
        (["convert", "data=a.yaml", "to=coco", "out=b", "drop_ignored=perhaps"], "expected true or false"),
        (["train", "epochs", "3"], "options are written key=value, as in epochs=..."),
        (["train", "--epochs=3"], "write epochs=3"),
        (["train", "--batch-size=3"], "write batch_size=3"),
        (["train", "epochs=3", "epochs=4"], "epochs is given twice"),
        (["train", "epochs=0"], "epochs=0 (command line): expected an integer >= 1"),
        (["train"], "train needs model=... data=..."),
        (["train", "model=yolo26n"], "train needs data=..."),
        (["val"], "val needs model=..."),
        (["predict", "model=yolo26n"], "predict needs source=..."),
        (["track", "model=yolo26n"], "track needs source=..."),
        (["predict", "model=yolo26n", "source=a.jpg", "overlap=0.1"], "images are not cut; add tile=640"),
        (["predict", "model=yolo26n", "source=a.jpg", "tracker=bytetrack"], "no effect on predict"),
        (["val", "model=a.pt", "lr0=0.1"], "has no effect on val"),
        (["train", "task=detect"], "not supported by Eyas"),
        (["train", "cfg=none.yaml"], "there is no such file"),
        (["info", "modle=yolo26n"], "usage is"),
        (["explain", "lr"], "did you mean lr0?"),
        (["tune", "model=yolo26n"], "tune needs data=..."),
        (["tune", "model=yolo26n", "data=digits", "trails=3"], "did you mean trials?"),
        (["tune", "model=yolo26n", "data=digits", "epochz=3"], "did you mean epochs?"),
        (["tune", "model=yolo26n", "data=digits", "trials=0"], "trials=0: expected a whole number"),
        (["tune", "model=yolo26n", "data=digits", "space={lr: [1, 2]}"], "did you mean lr0?"),
        (["tune", "model=yolo26n", "data=digits", "space={lr0"], "cannot read"),
        (["tune", "model=yolo26n", "data=digits", "metric=f1", "mode=up"], "must be 'max' or 'min'"),
        (["verify-resume", "model=yolo26n", "data=digits", "kills=2.5"], "kills=2.5: expected a whole number from 0"),
        (["export", "model=a.pt", "imgsz=[640"], "imgsz: cannot read"),
        (["best", "run", "classes=[cat"], "classes: cannot read"),
        (["doctor", "a.yaml", "checks=[leaks"], "checks: cannot read"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, tmp_path, arguments, tells):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("eyas: ")
    assert err.count("\n") == 1
    assert tells in err
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder_in_every_option(run, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert resolve(call={"project": "~/runs"}).project == str(home / "runs")
    assert resolve(cli={"resume": "~/last.pt"}).resume == str(home / "last.pt")
    assert parse_pairs(["html=~/d.html", "name=a~b"]) == {"html": str(home / "d.html"), "name": "a~b"}
    assert parse_pairs(["project=~nobody-of-this-name/x"]) == {"project": "~nobody-of-this-name/x"}
    for model, source in (("~/best.pt", "a.jpg"), ("yolo26n", "~/a.jpg")):
        code, _, err = run("predict", f"model={model}", f"source={source}")
        assert code == 1 and str(home) in err
    with pytest.raises(FileNotFoundError, match=str(home)):
        YOLO("~/best.pt")
    with pytest.raises(FileNotFoundError, match=str(home)):
        open_source(["~/a.jpg"])


def test_debug_shows_the_traceback_as_well(run):
    assert "Traceback" not in run("train", "epochs=0")[2]
    assert "Traceback" in run("--debug", "train", "epochs=0")[2]


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_may_be_a_variable(run, monkeypatch, value, shown):
    monkeypatch.setenv("EYAS_DEBUG", value)
    code, _, err = run("train", "epochz=3")
    assert (code, "Traceback" in err) == (2, shown)


@pytest.mark.parametrize("command", ["train", "plan", "profile", "val", "predict", "track"])
def test_an_option_file_may_name_model_and_data(run, monkeypatch, tmp_path, command):
    from eyas import api

    (tmp_path / "run.yaml").write_text("model: yolo26n\ndata: digits\n")
    (tmp_path / "empty.yaml").write_text("imgsz: 64\n")
    source = ["source=a.jpg"] if command in ("predict", "track") else []
    seen = []
    monkeypatch.setattr(api, f"run_{command}", lambda options, *rest: seen.append((options, *rest)))
    assert run(command, "cfg=run.yaml", *source)[0] == 0
    ((options, *rest),) = seen
    assert (options.model, options.data, options.source("data")) == ("yolo26n", "digits", "file")
    assert rest == [name.partition("=")[2] for name in source]
    for arguments in ([], ["cfg=empty.yaml"]):
        code, _, err = run(command, *arguments, *source)
        assert code == 2 and f"{command} needs model=..." in err
    assert len(seen) == 1


@pytest.mark.parametrize("command", ["train", "plan", "profile"])
def test_a_run_that_goes_on_has_model_and_data(run, monkeypatch, command):
    from eyas import api

    seen = []
    monkeypatch.setattr(api, f"run_{command}", seen.append)
    assert run(command, "resume=last.pt")[0] == 0 and seen[0].resume == "last.pt"
    assert run(command, "resume=false")[0] == 2


def test_predict_needs_a_source_whatever_a_file_says(run, tmp_path):
    (tmp_path / "run.yaml").write_text("model: yolo26n\n")
    code, _, err = run("predict", "cfg=run.yaml")
    assert code == 2 and "predict needs source=..." in err


def test_lists_of_options_have_one_whole_sentence_each(run):
    from eyas.config import describe, option_names

    lines = [line for line in run("train", "--help")[1].splitlines() if line.startswith("  ")]
    assert len(lines) > 50 and not [line for line in lines if line.endswith((".", "e.g", "i.e"))]
    for name in option_names():
        text = describe(name).help
        rest = text.removeprefix(cli.first_sentence(text))
        assert rest == "." or (rest.startswith(". ") and (rest[2].isupper() or rest[2] == "`")), f"{name}: {rest}"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Read this. Not this.", "Read this"),
        ("Metrics, e.g. F1 or mAP. More.", "Metrics, e.g. F1 or mAP"),
        ("A rate, i.e. `lr0`, etc. Also others. More.", "A rate, i.e. `lr0`, etc. Also others"),
        ("SGD vs. Adam. More.", "SGD vs. Adam"),
        ("`-2`, `-3`, ... Is added. More.", "`-2`, `-3`, ... Is added"),
        ("See last.pt. More.", "See last.pt"),
        ("Below 0.5 nothing. 0 is off.", "Below 0.5 nothing"),
        ("No full stop", "No full stop"),
    ],
)
def test_the_first_sentence_is_whole(text, first):
    assert cli.first_sentence(text) == first


@pytest.mark.parametrize("columns", [40, 50, 79])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["tune", "-h"], ["rehearse", "-h"], ["explain", "lr0"]]
)
def test_help_fits_the_terminal(run, monkeypatch, columns, arguments):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run(*arguments)
    assert code == 0
    assert [line for line in out.splitlines() if len(line) > columns] == []


def test_explain_tells_everything_about_an_option(run):
    code, out, _ = run("explain", "lr0", "mosaic")
    assert code == 0
    for part in ("lr0: Learning rate", "float, > 0", "auto: ", "optimizer", "used by  train", "mosaic: ", "1.0"):
        assert part in out


def test_explain_lists_groups_and_all_options(run):
    assert "hsv_h" in run("explain", "augmentation")[1]
    assert "lr0" not in run("explain", "augmentation")[1]
    everything = run("explain")[1]
    assert "lr0" in everything and "hsv_h" in everything


@pytest.mark.parametrize(
    ("error", "code", "tells"),
    [
        (ValueError("no such class"), 1, "eyas: no such class\n"),
        (FileNotFoundError(2, "No such file", "a.pt"), 1, "a.pt"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (ImportError("digits needs scikit-learn: pip install ..."), 1, "digits needs scikit-learn"),
        (KeyboardInterrupt("all saved. Continue with: eyas train resume=last.pt"), 130, "eyas train resume=last.pt"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_errors_of_a_run_are_told_without_a_traceback(run, monkeypatch, error, code, tells):
    def fail(arguments):
        raise error

    monkeypatch.setitem(cli._COMMANDS, "train", fail)
    found, _, err = run("train")
    assert found == code
    assert tells in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), ImportError("no name", name="torch")])
def test_unexpected_errors_keep_their_traceback(run, monkeypatch, error):
    def fail(arguments):
        raise error

    monkeypatch.setitem(cli._COMMANDS, "train", fail)
    with pytest.raises(type(error)):
        run("train")


def test_parse_pairs_keeps_equals_signs_in_values():
    assert cli.parse_pairs(["data=a=b.yaml", "name="]) == {"data": "a=b.yaml", "name": ""}


# ------------------------------------------------------------------------------------ through the whole library


def write_set(folder, train="images/train"):
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
    (folder / "set.yaml").write_text(f"train: {train}\nval: images/val\nnames: [cat, dog]\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "data", "tells"),
    [
        ("yolo26q", "set.yaml", "yolo26"),
        ("none.pt", "set.yaml", "none.pt"),
        ("yolo26n", "none.yaml", "none.yaml"),
        ("yolo26n", "set.yaml", "No images for train"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(run, tmp_path, model, data, tells):
    write_set(tmp_path)
    code, _, err = run("train", f"model={model}", f"data={data}", "epochs=1")
    assert code == 1
    assert err.startswith("eyas: ")
    assert tells in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.pt"))


def test_a_missing_image_folder_names_what_was_tried(run, tmp_path):
    write_set(tmp_path, train="imgs/train")
    code, _, err = run("train", "model=yolo26n", "data=set.yaml", "epochs=1")
    assert code == 1
    assert "imgs" in err and "images" in err and err.count("\n") == 1


def test_info_tells_versions_and_the_size_of_a_model(run):
    code, out, _ = run("info", "model=yolo26n")
    assert code == 0
    for part in ("torch", "opencv", "parameters", "2,5"):
        assert part in out


def test_explain_metrics_lists_what_there_is() -> None:
    from eyas.cli import explanation
    from eyas.metrics import METRIC_NAMES

    told = explanation("metrics")
    assert all(f"  {name} " in told for name in METRIC_NAMES)
    assert "ap_small" not in explanation("lr0")


@pytest.mark.parametrize("command", [row[0] for row in cli.COMMAND_ROWS])
def test_every_command_tells_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"eyas {command}" in capsys.readouterr().out


def test_what_was_typed_at_length_is_not_repeated_at_length() -> None:
    with pytest.raises(cli.UsageError) as caught:
        cli.parse_pairs([f"conf={'x' * 5000}", "conf=1"])
    assert "conf is given twice" in str(caught.value) and len(str(caught.value)) < 300
