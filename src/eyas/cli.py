"""The command line: `eyas COMMAND key=value ...`.

It parses and reports, and leaves the work to `eyas.api`. Options are checked before anything heavy is imported, so a
typing mistake is answered at once and nothing is started.

Exit codes: 0 done, 1 the run failed for a reason its message tells, or `doctor` found errors, 2 wrong usage, 130
interrupted by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas import __version__
from eyas.tables import NARROWEST, format_table

if TYPE_CHECKING:
    from eyas.api import YOLO
    from eyas.config import TrainOptions

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
LONGEST_SHOWN = 100  # letters of what was typed that an error repeats

COMMAND_ROWS = (
    ("train", "train a detector", "eyas train model=yolo26n data=digits imgsz=128 epochs=12"),
    ("plan", "what a training would do, without training", "eyas plan model=yolo26n data=digits epochs=12"),
    ("profile", "where a training spends its time", "eyas profile model=yolo26n data=digits imgsz=128"),
    ("tune", "search for options, trial after trial", "eyas tune model=yolo26n data=digits imgsz=128 epochs=12"),
    ("rehearse", "try a training script of yours in two minutes", "eyas rehearse my_trainer.py"),
    (
        "verify-resume",
        "kill your training at random moments, and compare every bit",
        "eyas verify-resume my_trainer.py epochs=3 kills=3",
    ),
    ("doctor", "what is wrong with a data set", "eyas doctor digits imgsz=128 html=report.html"),
    ("val", "measure a trained model", "eyas val model=runs/detect/train/weights/best.pt data=digits"),
    (
        "predict",
        "find objects in images and videos",
        "eyas predict model=runs/detect/train/weights/best.pt source=photos/",
    ),
    ("track", "follow objects through a video", "eyas track model=runs/detect/train/weights/best.pt source=street.mp4"),
    ("export", "a model as a file for another runtime", "eyas export model=best.pt format=onnx"),
    ("convert", "a data set in another label format", "eyas convert data=my.yaml to=coco out=my-coco"),
    ("replay", "the step that ended a run in nan, taken again on a CPU", "eyas replay runs/detect/train/nan_step_37"),
    ("runs", "compare the runs in folders, in the terminal or as one page", "eyas runs runs/detect html=compare.html"),
    ("best", "the best epoch of a run by any metric", 'eyas best runs/detect/train metric="recall@precision>=0.95"'),
    ("info", "versions, devices, the size of a model, and what it descends from", "eyas info best.pt"),
    ("explain", "what an option does; without a name, all of them", "eyas explain lr0"),
)
# Options of `doctor` alone, and those that it shares with a training or validation.
DOCTOR_OPTIONS = {
    "html": "writes one page with pictures into this file",
    "json": "writes all findings, for programs, into this file",
    "checks": "makes these checks only, as in checks=[leaks,sizes]",
    "skip": "leaves these checks out",
    "strict": "exits with 1 for warnings too",
}
BEST_OPTIONS = {
    "metric": "fitness, or as for best_by, or recall@precision>=0.95 and its kind, or FILE.py:FUNCTION",
    "classes": "names of the classes that count, as in classes=[cat,dog]",
    "mode": "max or min",
    "out": "file for the weights, else weights/chosen.pt of the run",
}
DOCTOR_SHARED = ("data", "imgsz", "model", "device", "ids_start", "val_fraction")
EXPORT_ROWS = (
    ("model", "", "the checkpoint"),
    ("format", "pt2", "onnx, openvino, torchscript, ncnn, safetensors, tensorrt, coreml, tflite or pt2"),
    ("imgsz", "as trained", "side of the square input in pixels"),
    ("half", "false", "fp16 weights, and arithmetic where the runtime has it"),
    ("int8", "false", "integers of 8 bits, fitted to images of the training"),
    ("fraction", "200 images", "share of the training images, or their number, that int8 is fitted to"),
    ("dynamic", "false", "images of other sizes too, any number of them where the runtime can"),
    ("batch", "1", "images at a time"),
    ("opset", "18", "version of ONNX's operators"),
    ("simplify", "true", "fold constants of an ONNX graph"),
    ("workspace", "4", "GiB that TensorRT may use while it builds"),
    ("verify", "true", "compare the file with the model, and write none that is not as good"),
    ("data", "as trained", "what to verify on, the split val; int8 is fitted to the split train"),
)
TUNE_SETTINGS = {
    "space": (
        "six options",
        "what is searched: {lr0: {low: 1e-4, high: 0.01, log: true}, mosaic: [0, 1]}, or a file",
    ),
    "trials": ("30", "how many trials there shall be, those of an earlier call included"),
    "metric": ("fitness", "what is looked for, named as in best_by"),
    "mode": ("auto", "max, or min as for a loss"),
    "study": ("runs/tune/study.db", "file of the study; the same command goes on where it stopped"),
    "prune": ("true", "gives up trials that are behind the median of those before"),
}
SWITCH_ROWS = (
    ("cfg=FILE", "reads options from a YAML file; those on the command line win"),
    ("--debug", "shows the traceback of an error (also EYAS_DEBUG=1)"),
    ("--version", "prints the version"),
)
# A full stop ends a sentence where another begins behind it: not in an ellipsis, not behind "e.g" or "etc".
SENTENCE_END = re.compile(r"(?<=[^.\s])\.\s+(?=[A-Z0-9`\"'(\[])")
ABBREVIATION = re.compile(r"\b(?:(?:[A-Za-z]\.)+[A-Za-z]|approx|ca|cf|etc|incl|resp|vs)$", re.IGNORECASE)


class UsageError(Exception):
    """The command line cannot be understood. Its message is one line for a person."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("EYAS_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a name that cannot be printed ends no command
    try:
        return _dispatch(arguments)
    except UsageError as error:
        return _report(error, USAGE, debug)
    except KeyboardInterrupt as interrupt:
        print(interruption_message(interrupt), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output is gone, as in `eyas explain | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ImportError as error:
        if error.name is not None:  # a broken installation or a bug; a package we ask for ourselves has no name set
            raise
        return _report(error, FAILED, debug)
    except (ValueError, OSError) as error:
        return _report(error, USAGE if _is_option_error(error) else FAILED, debug)


def interruption_message(interrupt: KeyboardInterrupt) -> str:
    """What to say after Ctrl-C; the trainer's own interruption says what was saved and how to go on."""
    return f"Interrupted: {interrupt}" if str(interrupt) else "Interrupted."


def parse_pairs(arguments: Sequence[str]) -> dict[str, str]:
    """`["epochs=3", "data=x.yaml"]` as a dict. Raises UsageError for anything that is no key=value or comes twice."""
    pairs: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"cannot read {_cut(argument)!r}: options are written key=value{_maybe_option(argument)}")
        if name.startswith("-"):
            raise UsageError(
                f"cannot read {_cut(argument)!r}: write {name.lstrip('-').replace('-', '_')}={_cut(value)}"
            )
        if name in pairs:
            raise UsageError(f"{name} is given twice: {name}={_cut(pairs[name])} and {name}={_cut(value)}")
        pairs[name] = os.path.expanduser(value)  # not every shell does so behind a `=`
    return pairs


def _cut(text: str) -> str:
    """A text, or the beginning of a long one."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


# ------------------------------------------------------------------------------------------------- commands


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        _print_help()
        return OK if arguments else USAGE
    if arguments[0] in ("--version", "-V"):
        print(__version__)
        return OK
    name, rest = arguments[0], arguments[1:]
    if name not in _COMMANDS:
        raise UsageError(f"unknown command {name!r}{_nearest_command(name)}")
    if "--help" in rest or "-h" in rest:
        _print_command_help(name)
        return OK
    return _COMMANDS[name](rest)


def _train(arguments: list[str]) -> int:
    options = _training(arguments, "train")
    from eyas import api

    api.run_train(options)
    return OK


def _plan(arguments: list[str]) -> int:
    options = _training(arguments, "plan")
    from eyas import api

    api.run_plan(options)
    return OK


def _profile(arguments: list[str]) -> int:
    options = _training(arguments, "profile")
    from eyas import api

    api.run_profile(options)
    return OK


def _tune(arguments: list[str]) -> int:
    pairs = parse_pairs(arguments)
    _refuse_misspelt_setting(pairs)
    typed = {name: pairs.pop(name) for name in TUNE_SETTINGS if name in pairs}
    options = _resolved(pairs, "train")
    _require("tune", model=options.model, data=options.data)
    given = {name: text if name == "study" else _value(name, text) for name, text in typed.items()}
    from eyas.tune.space import parse_space

    space = parse_space(given.pop("space", None))  # type: ignore[arg-type]  # what is none is refused there
    if "study" in given:
        given["file"] = Path(str(given.pop("study")))
    from eyas.tune import Search, run_search

    found = run_search(Search(options, space, **given))  # type: ignore[arg-type]  # checked there
    return OK if found.best else FAILED


def _verify_resume(arguments: list[str]) -> int:
    script, typed, rest = _split_script(arguments, "verify-resume")
    options = parse_pairs(typed)
    from eyas.config import whole_number

    typed_counts = {name: options.pop(name) for name in ("kills", "moments") if name in options}
    counts = {name: whole_number(name, _value(name, text), 0) for name, text in typed_counts.items()}
    trainer = options.pop("trainer", None)
    given = _resolved(options, "train")
    if script is None:
        _require("verify-resume", model=given.model, data=given.data)
    from eyas.rehearsal.interruptions import verify_resume

    outcomes = verify_resume(script, options, rest, trainer, **counts)
    return OK if all(outcome.status == "ok" for outcome in outcomes) else FAILED


def _rehearse(arguments: list[str]) -> int:
    script, typed, rest = _split_script(arguments, "rehearse")
    if script is None:
        raise UsageError("rehearse takes one file, got none; see `eyas rehearse --help`")
    options = parse_pairs(typed)
    trainer = options.pop("trainer", None)
    _resolved(options, "train")
    from eyas.rehearsal.conduct import rehearse

    outcomes = rehearse(script, options, rest, trainer)
    return OK if all(outcome.status == "ok" for outcome in outcomes) else FAILED


def _doctor(arguments: list[str]) -> int:
    pairs = parse_pairs([f"data={name}" if "=" not in name and name[:1] != "-" else name for name in arguments])
    own = {name: pairs.pop(name) for name in DOCTOR_OPTIONS if name in pairs}
    for name in pairs:
        if name not in DOCTOR_SHARED:
            raise UsageError(f"doctor knows no {name!r}{_nearest_of_doctor(name)}; see `eyas doctor --help`")
    options = _resolved(pairs, "val")
    _require("doctor", data=options.data)
    if options.is_typed("device") and not options.model:
        raise UsageError(f"device={options.device} has no effect on doctor without a model, which alone runs there")
    strict, json, html = _switch(own, "strict"), _file_to_write(own, "json"), _file_to_write(own, "html")
    checks, skip = _names(own, "checks"), _names(own, "skip") or []
    from eyas.doctor import examine
    from eyas.doctor.examine import choose
    from eyas.doctor.render.as_json import write_json
    from eyas.doctor.render.page import write_page
    from eyas.doctor.render.table import print_diagnosis
    from eyas.log import LOGGER, setup_logging

    try:
        choose(checks, skip, options.model)
    except ValueError as error:
        raise UsageError(str(error)) from None
    setup_logging()
    diagnosis = examine(
        options.data or "",
        imgsz=options.imgsz if options.is_typed("imgsz") else None,
        model=options.model,
        checks=checks,
        skip=skip,
        ids_start=options.ids_start,
        val_fraction=options.val_fraction,
        device=options.device,
    )
    print_diagnosis(diagnosis)
    for path, write in ((json, write_json), (html, write_page)):
        if path:
            write(diagnosis, path)
            LOGGER.info("Written: %s", path)
    if diagnosis.findings and not html:
        LOGGER.info("html=doctor.html writes a page with pictures.")
    return FAILED if diagnosis.fails(strict) else OK


def _val(arguments: list[str]) -> int:
    options = _resolved(parse_pairs(arguments), "val")
    _require("val", model=options.model)
    from eyas import api

    api.run_val(options)
    return OK


def _predict(arguments: list[str]) -> int:
    options, source = _searched(arguments, "predict")
    from eyas import api

    api.run_predict(options, source)
    return OK


def _export(arguments: list[str]) -> int:
    from eyas.names import did_you_mean

    pairs = parse_pairs(arguments)
    known = [name for name, _, _ in EXPORT_ROWS]
    for name in pairs:
        if name not in known:
            raise UsageError(f"export knows no {name!r}: it takes {', '.join(known)}.{did_you_mean(name, known)}")
    _require("export", model=pairs.get("model"))
    texts = {name: text for name, text in pairs.items() if name in ("model", "format", "data")}
    values: dict[str, Any] = {name: _value(name, text) for name, text in pairs.items() if name not in texts}
    from eyas import api

    api.run_export(**texts, **values)
    return OK


def _convert(arguments: list[str]) -> int:
    pairs = parse_pairs(arguments)
    known = ("data", "to", "out", "images", "drop_ignored", "ids_start")
    for name in pairs:
        if name not in known:
            raise UsageError(f"convert knows no {name!r}; see `eyas convert --help`{_nearest_of(name, known)}")
    _require("convert", **{name: pairs.get(name) for name in ("data", "to", "out")})
    switches = {"true": True, "false": False}
    drop_ignored, ids_start = pairs.get("drop_ignored", "false").lower(), pairs.get("ids_start", "none")
    if drop_ignored not in switches:
        raise UsageError(f"drop_ignored={drop_ignored}: expected true or false")
    if ids_start != "none" and not (ids_start.isascii() and ids_start.isdigit()):
        raise UsageError(f"ids_start={ids_start}: expected an integer >= 0")
    from eyas.data.convert import IMAGES, WRITERS, convert
    from eyas.log import setup_logging

    for name, allowed in (("to", (*WRITERS,)), ("images", IMAGES)):
        if name in pairs and pairs[name] not in allowed:
            raise UsageError(f"{name}={pairs[name]}: expected {', '.join(allowed)}{_nearest_of(pairs[name], allowed)}")
    setup_logging()
    convert(
        pairs["data"],
        pairs["to"],
        pairs["out"],
        images=pairs.get("images", "copy"),
        drop_ignored=switches[drop_ignored],
        ids_start=None if ids_start == "none" else int(ids_start),
    )
    return OK


def _track(arguments: list[str]) -> int:
    options, source = _searched(arguments, "track")
    from eyas import api

    api.run_track(options, source)
    return OK


def _searched(arguments: list[str], command: str) -> tuple[TrainOptions, str]:
    """The options of a search for objects, and where it searches."""
    pairs = parse_pairs(arguments)
    source = pairs.pop("source", "")
    options = _resolved(pairs, command)
    _require(command, model=options.model, source=source)
    return options, source


def _runs(arguments: list[str]) -> int:
    folders = [argument for argument in arguments if "=" not in argument and not argument.startswith("-")]
    pairs = parse_pairs([argument for argument in arguments if argument not in folders])
    unknown = [name for name in pairs if name not in ("by", "html")]
    if unknown:
        raise UsageError(f"runs knows no {unknown[0]!r}: usage is `eyas runs [FOLDER ...] [by=METRIC] [html=FILE]`")
    from eyas.report.compare import compare

    compare(folders or ["runs"], **pairs)
    return OK


def _replay(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-") or "=" in arguments[0]:
        raise UsageError("usage is `eyas replay FOLDER`, with a folder nan_step_<n> of a run")
    from eyas.log import setup_logging
    from eyas.train.replay import replay

    setup_logging()
    return OK if replay(arguments[0]) else FAILED


def _best(arguments: list[str]) -> int:
    folders = [argument for argument in arguments if "=" not in argument and not argument.startswith("-")]
    pairs = parse_pairs([argument for argument in arguments if argument not in (*folders, "--json")])
    unknown = [name for name in pairs if name not in BEST_OPTIONS]
    if unknown:
        raise UsageError(f"best knows no {unknown[0]!r}: it takes {', '.join(BEST_OPTIONS)}; see `eyas best --help`")
    if len(folders) != 1:
        raise UsageError("name one folder of a run: eyas best runs/detect/train metric=f1")
    from eyas.report.choose import choose

    wanted = _value("classes", pairs.pop("classes")) if "classes" in pairs else None
    names = wanted if wanted is None or isinstance(wanted, list) else [wanted]
    chosen = choose(folders[0], classes=None if names is None else [str(name) for name in names], **pairs)
    if "--json" in arguments:
        print(chosen.to_json())
    else:
        chosen.print()
    return OK if chosen.best else FAILED


def _info(arguments: list[str]) -> int:
    pairs = parse_pairs([a if "=" in a else f"model={a}" for a in arguments])  # `eyas info best.pt`
    unknown = [name for name in pairs if name != "model"]
    if unknown:
        raise UsageError(f"info knows no {unknown[0]!r}: usage is `eyas info [MODEL]`")
    from eyas.log import print_table

    print_table("", ["what", "value"], [[*row] for row in _environment_rows() + _model_rows(pairs.get("model"))])
    return OK


def _explain(arguments: list[str]) -> int:
    from eyas.config import GROUPS

    if not arguments:
        _print_options(None)
        return OK
    for name in arguments:
        if name in GROUPS and name not in _option_names():
            _print_options(None, group=name)
        else:
            _print_text(explanation(name))
    return OK


def explanation(name: str) -> str:
    """All there is to say about an option, as text. Raises UnknownOptionError naming the nearest options."""
    from eyas.config import GROUPS, describe

    info = describe(name)
    allowed = f"{info.type}, {info.range}" if info.range else info.type
    lines = [
        f"{info.name}: {info.help}",
        f"  type     {allowed}{' or none (auto)' if info.auto else ''}",
        f"  default  {info.default}",
        f"  group    {info.group} ({GROUPS[info.group]})",
        f"  used by  {', '.join(info.commands)}",
    ]
    if name == "metrics":
        from eyas.metrics import METRIC_NAMES

        lines += [f"  {metric:<16} {text}" for metric, text in METRIC_NAMES.items()]
    return "\n".join(lines)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "plan": _plan,
    "profile": _profile,
    "tune": _tune,
    "rehearse": _rehearse,
    "verify-resume": _verify_resume,
    "doctor": _doctor,
    "val": _val,
    "predict": _predict,
    "track": _track,
    "export": _export,
    "convert": _convert,
    "replay": _replay,
    "runs": _runs,
    "best": _best,
    "info": _info,
    "explain": _explain,
}


# ------------------------------------------------------------------------------------------------- helpers


def _training(arguments: list[str], command: str) -> TrainOptions:
    """The options of a training that begins, or goes on."""
    options = _resolved(parse_pairs(arguments), "train")
    if not options.resume:
        _require(command, model=options.model, data=options.data)
    return options


def _resolved(pairs: dict[str, str], command: str) -> TrainOptions:
    """The options that were typed, and those of the file that ``cfg`` names."""
    from eyas.config import resolve

    return resolve(cli=pairs, command=command)


def _split_script(arguments: list[str], command: str) -> tuple[str | None, list[str], list[str]]:
    """The file, if one was named, the options for us, and behind `--` those for the file."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    files = [argument for argument in arguments[:end] if "=" not in argument and not argument.startswith("-")]
    if len(files) > 1:
        raise UsageError(f"{command} takes one file, got {' and '.join(files)}; see `eyas {command} --help`")
    options = [argument for argument in arguments[:end] if argument not in files]
    return (files[0] if files else None), options, arguments[end + 1 :]


def _value(name: str, text: str) -> object:
    """What was typed for a setting that is no option of a training."""
    from eyas.config import parse_value

    try:
        return parse_value(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def _refuse_misspelt_setting(pairs: dict[str, str]) -> None:
    """Answer `trails=3` with the setting of `tune` that was meant, rather than with an option of trainings."""
    from eyas.names import nearest

    for name in pairs.keys() - TUNE_SETTINGS.keys() - set(_option_names()):
        if close := nearest(name, TUNE_SETTINGS, cutoff=0.7):
            raise UsageError(f"tune knows no {name!r}: did you mean {close[0]}?")


def _require(command: str, **given: object) -> None:
    missing = " ".join(f"{name}=..." for name, value in given.items() if not value)
    if missing:
        raise UsageError(f"{command} needs {missing}; see `eyas {command} --help`")


def _switch(given: dict[str, str], name: str) -> bool:
    """True or false, as typed; false where nothing was."""
    value = _value(name, given.get(name, "false"))
    if not isinstance(value, bool):
        raise UsageError(f"{name}={given[name]}: expected true or false")
    return value


def _names(given: dict[str, str], name: str) -> list[str] | None:
    """One name, or a list of them; None where nothing was typed."""
    if name not in given:
        return None
    value = _value(name, given[name])
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(each, str) for each in names):
        raise UsageError(f"{name}={given[name]}: expected a name, or a list such as [leaks,sizes]")
    return [str(each) for each in names]


def _file_to_write(given: dict[str, str], name: str) -> str | None:
    """A file that can be written, by name; None where nothing was typed."""
    path = given.get(name)
    if path is None:
        return None
    folder = os.path.dirname(path) or "."
    if not path or os.path.isdir(path) or not os.path.isdir(folder):
        raise UsageError(f"{name}={path}: expected a file to write, in a folder that exists")
    return path


def _nearest_of_doctor(name: str) -> str:
    from eyas.names import nearest

    close = nearest(name, [*DOCTOR_OPTIONS, *DOCTOR_SHARED])
    return f": did you mean {close[0]}?" if close else ""


def _print_doctor() -> None:
    """The checks of `doctor`, and its options."""
    from eyas.config import describe
    from eyas.doctor.checks.registry import WHAT

    _print_text("\nChecks")
    _print_rows(("check", "help"), [*WHAT.items()])
    _print_text("\nOptions")
    shared = [(name, first_sentence(describe(name).help)) for name in DOCTOR_SHARED]
    _print_rows(("option", "help"), [*DOCTOR_OPTIONS.items(), *shared])
    _print_text("\nIt exits with 1 if it finds errors, with 0 if there is nothing, or nothing worse than warnings.")


def _maybe_option(argument: str) -> str:
    from eyas.config.errors import nearest_options
    from eyas.config.options import synonyms

    close = nearest_options(argument.lstrip("-"), _option_names(), synonyms(), n=1)
    return f", as in {close[0]}=..." if close else ", as in epochs=50"


def _option_names() -> list[str]:
    from eyas.config import option_names

    return option_names()


def _nearest_command(name: str) -> str:
    from eyas.names import nearest

    close = nearest(name, _COMMANDS, cutoff=0.65)
    return f": did you mean {close[0]}?" if close else f"; the commands are {', '.join(_COMMANDS)}"


def _nearest_of(name: str, known: Sequence[str]) -> str:
    from eyas.names import nearest

    close = nearest(name, known)
    return f"; did you mean {close[0]}?" if close else ""


def _print_help() -> None:
    _print_text(f"Eyas {__version__}: train object detectors, with a trainer you can change.")
    print("\nUsage: eyas COMMAND [key=value ...]\n\nCommands")
    _print_rows(("command", "help", "example"), COMMAND_ROWS, least=("example",))
    print()
    _print_text(
        "Every command shows its options with --help. Values are numbers, true/false, none, text, lists as [0,1],\n"
        "or mappings as {a:1}; quote the last two for your shell."
    )
    _print_rows(("switch", "help"), SWITCH_ROWS)
    print()
    _print_text("Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.")


def _screen_width() -> int | None:
    """Columns of the terminal, or those that the variable COLUMNS states; None in files and pipes."""
    shown = sys.stdout.isatty() or "COLUMNS" in os.environ
    return max(shutil.get_terminal_size().columns, NARROWEST) if shown else None


def _print_text(text: str) -> None:
    """Print lines, each broken at blanks where the terminal ends."""
    width = _screen_width()
    for line in text.splitlines():
        indent = " " * 11 if line.startswith("  ") else ""
        print(textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False) if width else line)


def _print_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], least: tuple[str, ...] = ()) -> None:
    """Print rows without their header, indented; on a narrow terminal without the columns of ``least``."""
    width = _screen_width()
    for line in format_table(header, rows, width and width - 2, least)[1:]:
        print(f"  {line}")


def _print_command_help(command: str) -> None:
    usage = {
        "train": "eyas train model=NAME data=DATA [key=value ...]",
        "plan": "eyas plan model=NAME data=DATA [key=value ...]",
        "profile": "eyas profile model=NAME data=DATA [key=value ...]",
        "doctor": "eyas doctor DATA [key=value ...]",
        "tune": "eyas tune model=NAME data=DATA [space=SPACE] [trials=30] [metric=fitness] [key=value ...]",
        "rehearse": "eyas rehearse FILE.py [key=value ...] [-- ARGUMENTS OF THE FILE]",
        "verify-resume": "eyas verify-resume [FILE.py] [kills=3] [moments=0] [key=value ...] [-- ARGUMENTS]",
        "val": "eyas val model=CHECKPOINT or exported FILE [data=DATA] [key=value ...]",
        "predict": "eyas predict model=CHECKPOINT or exported FILE source=SOURCE [key=value ...]",
        "track": "eyas track model=CHECKPOINT or exported FILE source=VIDEO [key=value ...]",
        "export": "eyas export model=CHECKPOINT [format=FORMAT] [key=value ...]",
        "convert": "eyas convert data=DATA to=yolo|coco|voc out=FOLDER [images=link] [drop_ignored=true] [ids_start=N]",
        "replay": "eyas replay FOLDER, a nan_step_<n> of a run",
        "runs": "eyas runs [FOLDER ...] [by=METRIC] [html=FILE]",
        "info": "eyas info [MODEL]",
        "best": "eyas best RUN [metric=METRIC] [classes=NAMES] [mode=max|min] [out=FILE] [--json]",
        "explain": "eyas explain [OPTION or GROUP ...]",
    }
    _print_text(f"Usage: {usage[command]}")
    if command in ("predict", "track"):
        _print_text(
            "\nsource is an image, a video, a folder, a pattern such as 'photos/*.jpg', a .txt list of those, an\n"
            "http(s) address of an image or video, a stream (rtsp://...), a webcam (0), or the screen."
        )
    if command == "runs":
        _print_text(
            "\nA folder is a run, or holds some; without any, it is runs/. The best come first, by mAP50-95 or by the\n"
            "column of results.csv that by= names; options that differ are columns. html= writes a page with curves."
        )
    if command == "best":
        print()
        _print_rows(("option", "help"), list(BEST_OPTIONS.items()))
        _print_text(
            "\nIt computes the metric from what each validation found, and copies the weights of the best epoch."
        )
    if command == "plan":
        _print_text("\nIt builds what train would, up to the first step, prints it, and leaves no folder.")
    if command == "profile":
        _print_text(
            "\nIt trains some steps, validates and saves once, prints what took how long, and leaves no folder."
        )
    if command == "export":
        print()
        _print_rows(("option", "default", "help"), EXPORT_ROWS, least=("default",))
        _print_text("\nThe file lies beside the checkpoint; docs/export.md says what each format can do.")
    if command == "tune":
        _print_text("\nEvery trial is a training with these options, and has values of its own for what is searched.\n")
        _print_rows(("setting", "default", "help"), [(name, *row) for name, row in TUNE_SETTINGS.items()])
    if command == "rehearse":
        _print_text(
            "\nIt runs FILE.py with two epochs of a few of its images: in one process, in two, killed, resumed,\n"
            "opened elsewhere, and one step at full size. key=value wins over what the file says. A file that\n"
            "never calls train() needs model= and data=, and trainer=CLASS if it defines several."
        )
    if command == "verify-resume":
        _print_text(
            "\nIt trains as FILE.py, or key=value, says: once undisturbed, and once killed kills= times at random\n"
            "moments (moments= is their seed) and resumed each time. Weights, average and optimizer must be equal in\n"
            "the end, bit for bit; if not, it names the first tensor and what the file left out of its checkpoints.\n"
            "epochs= and fraction= choose a length that suits."
        )
    if command == "convert":
        _print_text(
            "\nIt writes labels in another format into a new folder, with copies of the images, or links to them\n"
            "(images=link). Areas to ignore are carried; drop_ignored=true leaves them out."
        )
    if command == "doctor":
        _print_doctor()
    if command in ("train", "plan", "profile", "tune", "rehearse", "verify-resume", "val", "predict", "track"):
        _print_options(command if command in ("val", "predict", "track") else "train")


def _print_options(command: str | None, group: str | None = None) -> None:
    """Options by group, one a line: name, default, first sentence of the help."""
    from eyas.config import GROUPS, describe, option_names

    infos = [describe(name) for name in option_names(command)]
    for key, title in GROUPS.items():
        members = [info for info in infos if info.group == key]
        if members and group in (None, key):
            _print_text(f"\n{title} ({key})")
            rows = [
                (info.name, "auto" if info.auto else info.default.strip("'"), first_sentence(info.help))
                for info in members
            ]
            _print_rows(("option", "default", "help"), rows, least=("default",))
    _print_text("\n`eyas explain OPTION` tells type, range and more.")


def first_sentence(text: str) -> str:
    """The first sentence of a text, without its full stop."""
    for end in SENTENCE_END.finditer(text):
        if not ABBREVIATION.search(text[: end.start()]):
            return text[: end.start()]
    return text.removesuffix(".")


def _environment_rows() -> list[tuple[str, str]]:
    import platform

    import cv2
    import numpy
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        ("eyas", __version__),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("opencv", cv2.__version__),
        ("numpy", numpy.__version__),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("GPU", ", ".join(gpus) or "none; training runs on the CPU"),
    ]


def _model_rows(model: str | None) -> list[tuple[str, str]]:
    if model is None:
        return []
    from eyas.api import YOLO

    opened = YOLO(model)
    facts = opened.info()
    rows = [("model", model), *((name, f"{value:,}") for name, value in facts.items())]
    return [*rows, *_passport_rows(opened)]


def _passport_rows(opened: YOLO) -> list[tuple[str, str]]:
    """Return what the code and the weights of a model descend from, with licences as far as they are known."""
    from eyas import __version__

    rows = [("code", f"Eyas {__version__}, licence Apache-2.0")]
    rows += [("weights from", str(link)) for link in opened.model.ancestors]
    if not opened.model.ancestors:
        rows.append(("weights from", "random values, or weights that say nothing of themselves"))
    data = opened.ckpt.get("train_args", {}).get("data")
    return [*rows, *([("trained on", str(data))] if data else [])]


def _is_option_error(error: Exception) -> bool:
    from eyas.config.errors import OptionError

    return isinstance(error, OptionError)


def _report(error: Exception, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    print(f"eyas: {message}", file=sys.stderr)
    return code
