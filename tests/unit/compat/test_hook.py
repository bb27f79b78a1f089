"""Imports of the incumbent's names: what the table has is found, and everything else is answered helpfully."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas import dist
from eyas.compat import hook, ultralytics


@pytest.fixture(autouse=True)
def installed() -> Iterator[hook.EyasCompatFinder]:
    yield hook.install()
    hook.uninstall()


HERE = [(module, name) for module, names in ultralytics.TABLE.items() for name in names]


@pytest.mark.parametrize(("module", "name"), HERE)
def test_every_name_of_the_table_is_there(module: str, name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from {module} import {name}", namespace)
    assert namespace[name] is not None


def test_classes_are_eyas_own_or_stand_on_them() -> None:
    import eyas

    namespace: dict[str, object] = {}
    exec(
        "from ultralytics import YOLO\n"
        "from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator\n"
        "from ultralytics.engine.trainer import BaseTrainer\n"
        "from ultralytics.nn.tasks import DetectionModel\n"
        "import ultralytics.utils.torch_utils as torch_utils, ultralytics",
        namespace,
    )
    for name in ("YOLO", "DetectionTrainer", "DetectionValidator", "BaseTrainer", "DetectionModel"):
        found = namespace[name]
        assert isinstance(found, type) and issubclass(found, getattr(eyas, name)), name
    assert sys.modules["ultralytics"].YOLO is namespace["YOLO"]


def test_the_set_detectors_have_the_same_validator_and_predictor() -> None:
    from eyas.compat.model import RTDETR
    from eyas.compat.trainers import RTDETRTrainer
    from eyas.compat.validator import DetectionValidator
    from eyas.evaluate import Predictor
    from eyas.models import RTDETRDetectionModel

    namespace: dict[str, object] = {}
    exec(
        "from ultralytics.models.rtdetr import RTDETR, RTDETRPredictor, RTDETRValidator\n"
        "from ultralytics.models.rtdetr.train import RTDETRTrainer\n"
        "from ultralytics.nn.tasks import RTDETRDetectionModel",
        namespace,
    )
    assert namespace["RTDETR"] is RTDETR and namespace["RTDETRTrainer"] is RTDETRTrainer
    assert namespace["RTDETRDetectionModel"] is RTDETRDetectionModel
    assert namespace["RTDETRPredictor"] is Predictor and namespace["RTDETRValidator"] is DetectionValidator


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("from ultralytics import YOLOO", "Did you mean 'YOLO' from ultralytics"),
        ("from ultralytics.utils import LOGER", "Did you mean 'LOGGER'.*It has .*RANK"),
        ("from ultralytics.utils import unwrap_model", "'unwrap_model' from ultralytics.utils.torch_utils"),
        ("import ultralytics.engine.trainr", "Did you mean 'trainer' from ultralytics.engine"),
        ("from ultralytics.solutions.heatmap import Heatmap", "nothing for 'solutions' of ultralytics"),
        ("import ultralytics.YOLO", "is a name, not a module: from ultralytics import YOLO"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(statement: str, match: str) -> None:
    with pytest.raises(ImportError, match=match):
        exec(statement, {})


def test_unknown_attributes_are_attribute_errors() -> None:
    module = importlib.import_module("ultralytics.utils")
    assert not hasattr(module, "LOGER")
    with pytest.raises(AttributeError, match="LOGGER"):
        _ = module.LOGER


def test_installing_twice_is_installing_once_and_first() -> None:
    finder = hook.install()
    assert hook.install() is finder is sys.meta_path[0]
    assert sum(isinstance(f, hook.EyasCompatFinder) for f in sys.meta_path) == 1
    assert finder.find_spec("os") is None and finder.find_spec("ultralyticsx") is None


def test_uninstalling_leaves_nothing() -> None:
    importlib.import_module("ultralytics.utils.loss")
    hook.uninstall()
    assert not [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]
    assert not any(isinstance(f, hook.EyasCompatFinder) for f in sys.meta_path)


def test_the_finder_travels() -> None:
    copy = pickle.loads(pickle.dumps(hook.install()))
    assert isinstance(copy, hook.EyasCompatFinder)
    assert copy.find_spec("ultralytics.nn.tasks") is not None


# -- the small things --------------------------------------------------------------------------------------------------
def test_rank_is_minus_one_alone_and_true_in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ultralytics.rank() == -1 and ultralytics.rank() in {-1, 0}
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "rank", lambda: 1)
    monkeypatch.setattr(dist, "local_rank", lambda: 0)
    assert ultralytics.rank() == 1 and ultralytics.local_rank() == 0
    monkeypatch.setattr(dist, "rank", lambda: 0)
    assert ultralytics.rank() == 0


def test_rank_is_the_receivers_own_after_a_journey(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = pickle.dumps((ultralytics.rank(), ultralytics.local_rank()))
    monkeypatch.setattr(dist, "world_size", lambda: 4)
    monkeypatch.setattr(dist, "rank", lambda: 3)
    monkeypatch.setattr(dist, "local_rank", lambda: 1)
    assert pickle.loads(sent) == (3, 1)


def test_colorstr() -> None:
    assert ultralytics.colorstr("x") == "\033[34m\033[1mx\033[0m"
    assert ultralytics.colorstr("red", "x") == "\033[31mx\033[0m"
    assert ultralytics.colorstr("bright_green", "underline", "a b") == "\033[92m\033[4ma b\033[0m"
    with pytest.raises(ValueError, match="'reed' is no colour"):
        ultralytics.colorstr("reed", "x")


def test_default_options_have_nothing_typed() -> None:
    options = ultralytics.default_options()
    assert not any(options.is_typed(name) for name, _ in options)
    assert ultralytics.default_dict()["imgsz"] == options.imgsz


def test_namespace_and_early_stopping() -> None:
    space = ultralytics.IterableSimpleNamespace(a=1, b=2)
    assert list(space) == [("a", 1), ("b", 2)] and space.get("c", 3) == 3
    stopper = ultralytics.EarlyStopping(patience=2)
    assert [stopper(epoch, fitness) for epoch, fitness in enumerate([0.1, 0.3, 0.2, None, 0.3])] == [
        *(False, False, False, False, True)
    ]
    assert stopper.best_epoch == 1
    assert not any(ultralytics.EarlyStopping(patience=0)(epoch, 0.0) for epoch in range(50))


# -- the command -------------------------------------------------------------------------------------------------------
def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eyas.compat", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_script_is_main_with_its_arguments_folder_and_neighbours(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "neighbour.py").write_text("ANSWER = 42\n")
    (tmp_path / "scripts" / "main.py").write_text(
        "import os, sys\n"
        "from ultralytics.utils import LOGGER, RANK\n"
        "from neighbour import ANSWER\n"
        "LOGGER.info(f'{__name__} {sys.argv} {os.getcwd()} {ANSWER} {RANK}')\n"
        "raise SystemExit(5)\n"
    )
    done = run(tmp_path, os.path.join("scripts", "main.py"), "a", "--help")
    assert done.returncode == 5, done.stderr
    path = os.path.join("scripts", "main.py")
    assert done.stdout.strip() == f"__main__ {[path, 'a', '--help']} {tmp_path} 42 -1"


def test_an_error_is_shown_from_the_scripts_own_line_on(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def inner():\n    1 / 0\n\ninner()\n")
    done = run(tmp_path, "main.py")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[:2] == ["Traceback (most recent call last):", '  File "main.py", line 4, in <module>']
    assert lines[-1] == "ZeroDivisionError: division by zero" and "runpy" not in done.stderr
    (tmp_path / "broken.py").write_text("for\n")
    done = run(tmp_path, "broken.py")
    assert done.returncode == 1 and 'File "broken.py", line 1' in done.stderr and "runpy" not in done.stderr


def test_help_and_wrong_use(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0 and "ultralytics.utils.loss: E2ELoss, v8DetectionLoss" in done.stdout
    assert run(tmp_path).returncode == 2
    done = run(tmp_path, "nowhere.py")
    assert done.returncode == 2 and "no script nowhere.py" in done.stderr


def test_one_import_line_does_the_same(tmp_path: Path) -> None:
    code = (
        "import eyas.compat, sys\n"
        "assert 'torch' not in sys.modules and not any('Eyas' in type(f).__name__ for f in sys.meta_path)\n"
        "import eyas.compat.activate\n"
        "assert 'torch' not in sys.modules\n"
        "from ultralytics.utils import LOGGER\n"
        "LOGGER.info('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "heard\n"
