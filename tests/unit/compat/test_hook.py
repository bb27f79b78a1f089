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

from eyas.compat import docs, hook, ultralytics


@pytest.fixture(autouse=True)
def installed() -> Iterator[hook.EyasCompatFinder]:
    yield hook.install()
    hook.uninstall()


def test_every_name_that_is_answered_is_there() -> None:
    for module in ultralytics.TABLE:
        for name in ultralytics.answered(module):
            namespace: dict[str, object] = {}
            exec(f"from {module} import {name}", namespace)
            assert namespace[name] is not None, f"{module}.{name}"


def test_every_name_that_is_not_says_what_to_use() -> None:
    for module, names in ultralytics.TABLE.items():
        for name in names.keys() - set(ultralytics.answered(module)):
            with pytest.raises(ImportError, match=rf"^Eyas has no '{name}' of {module}: .+\.$"):
                exec(f"from {module} import {name}", {})
            with pytest.raises(AttributeError, match=f"Eyas has no '{name}'"):
                getattr(importlib.import_module(module), name)
    for module in ultralytics.GONE:
        with pytest.raises(ImportError, match="^Eyas has no "):
            exec(f"from {module}.inner import Anything", {})


REFUSED_LINES = """
from ultralytics import YOLOWorld
from ultralytics.engine.exporter import Exporter
from ultralytics.nn.tasks import attempt_load_weights, attempt_load_one_weight, parse_model, yaml_model_load
from ultralytics.nn.modules import Conv, C2f, Detect, C3k2, SPPF
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.autobatch import check_train_batch_size
from ultralytics.utils.benchmarks import benchmark
from ultralytics.solutions.heatmap import Heatmap
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils.callbacks.wb import callbacks
"""
ANSWERED_LINES = """
from ultralytics import YOLO, RTDETR, checks, settings, __version__
import ultralytics; ultralytics.__version__; ultralytics.settings
import ultralytics; ultralytics.utils.ops.xywh2xyxy; ultralytics.models.yolo.detect.DetectionTrainer
import ultralytics.utils.torch_utils as torch_utils
from ultralytics.models import yolo, rtdetr
from ultralytics.models.yolo import detect
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.models.rtdetr.val import RTDETRValidator, RTDETRDataset
from ultralytics.engine.model import Model
from ultralytics.engine.results import Results, Boxes
from ultralytics.data import YOLODataset, build_dataloader, build_yolo_dataset
from ultralytics.data.augment import Compose, Format, LetterBox, Mosaic, v8_transforms, RandomPerspective
from ultralytics.nn.modules import Conv, Detect, C3k2, SPPF
from ultralytics.nn.modules.block import C2PSA
from ultralytics.utils import LOGGER, RANK, colorstr, ops, callbacks, checks, SETTINGS, TESTS_RUNNING, ROOT
from ultralytics.utils.callbacks import default_callbacks
from ultralytics.utils.plotting import *
from ultralytics.utils.loss import BboxLoss, DFLoss, FocalLoss, VarifocalLoss, E2EDetectLoss, v8DetectionLoss
from ultralytics.utils.torch_utils import smart_inference_mode, torch_distributed_zero_first, de_parallel
"""


@pytest.mark.parametrize("line", REFUSED_LINES.strip().splitlines())
def test_lines_that_are_refused(line: str) -> None:
    with pytest.raises(ImportError, match="^Eyas has no "):
        exec(line, {})


@pytest.mark.parametrize("line", ANSWERED_LINES.strip().splitlines())
def test_lines_that_are_answered(line: str) -> None:
    exec(line, {})


def test_the_page_of_names_is_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "compat.md"
    assert docs.main(["--check", str(page)]) == 0, "run python -m eyas.compat.docs"
    old = tmp_path / "old.md"
    assert docs.main(["--check", str(old)]) == 1 and "is not current" in capsys.readouterr().err
    assert docs.main([str(old)]) == 0 and old.read_bytes() == page.read_bytes()


def test_a_starred_import_brings_what_is_answered() -> None:
    namespace: dict[str, object] = {}
    exec("from ultralytics.utils.metrics import *", namespace)
    assert "bbox_iou" in namespace and "SegmentMetrics" not in namespace


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
    from eyas.compat.predictor import DetectionPredictor
    from eyas.compat.trainers import RTDETRTrainer
    from eyas.compat.validator import DetectionValidator
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
    assert namespace["RTDETRPredictor"] is DetectionPredictor and namespace["RTDETRValidator"] is DetectionValidator


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("from ultralytics import YOLOO", "Did you mean 'YOLO' from ultralytics"),
        ("from ultralytics.utils import LOGER", "Did you mean 'LOGGER'.*It has .*RANK"),
        ("from ultralytics.utils import unwrap_model", "'unwrap_model' from ultralytics.utils.torch_utils"),
        ("import ultralytics.engine.trainr", "Did you mean 'trainer' from ultralytics.engine"),
        ("from ultralytics.nothing.heatmap import Heatmap", "nothing for 'nothing' of ultralytics"),
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


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("import ultralytics.data.build as b; b.YOLODataset = object", r"'YOLODataset' of .*build_dataset\(\)"),
        ("import ultralytics; ultralytics.utils.loss.v8DetectionLoss = object", r"init_criterion\(\)"),
        ("import ultralytics; ultralytics.nn.tasks.MyBlock = object", r"model class of your own.*get_model\(\)"),
        (
            "import ultralytics; ultralytics.models.yolo.detect.train.DetectionTrainer = object",
            r"train\(trainer=Mine\)",
        ),
        ("import ultralytics; ultralytics.utils.plotting.plot_images = print", r"override a method of a trainer"),
        ("import ultralytics; ultralytics.YOLO = object", r"override a method of a trainer"),
    ],
)
def test_names_that_nothing_would_read_cannot_be_set(statement: str, match: str) -> None:
    before = importlib.import_module("ultralytics").YOLO
    with pytest.raises(AttributeError, match=match):
        exec(statement, {})
    assert importlib.import_module("ultralytics").YOLO is before


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
    assert done.returncode == 0 and "ultralytics.utils.instance: Instances" in done.stdout
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
