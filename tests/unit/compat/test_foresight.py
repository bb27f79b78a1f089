"""What a script will ask for in vain is said before it runs; nothing is said of what may work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyas.compat import hook
from eyas.compat.foresight import foresee, foretell

HEAD = "from ultralytics import YOLO\nmodel = YOLO('yolo26n.yaml')\nmodel.train(data='d')\n"  # 3 lines


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    hook.install()
    yield
    hook.uninstall()


@pytest.mark.parametrize(
    ("code", "line", "match"),
    [
        ("model.export(format='paddle')", 4, "'paddle'.*'pt2'"),
        ("model.export('edgetpu')", 4, "'edgetpu'"),
        ("model.export(half=True)", 4, "format=torchscript has no half=True"),
        ("model.export('onnx', nms=True)", 4, "nms=True: an end-to-end model needs none"),
        ("model.export('onnx', device=0)", 4, "device=0: files are written and verified on the CPU"),
        ("model.export(format='pt2', half=True)", 4, "half=True"),
        ("for f in ('pt2', 'mnn'):\n    model.export(format=f)", 5, "'mnn'"),
        ("F = 'tfjs'\nmodel.export(format=F, imgsz=x)", 5, "'tfjs'"),
        ("def main():\n    model.tune(data='d')", 5, "hyper-parameters"),
        ("if ok:\n    model.tune('a.mp4')", 5, "hyper-parameters"),
        ("YOLO('best.pt').benchmark()", 4, "speed"),
        ("best: YOLO = YOLO('b.pt').to('cpu')\nbest.embed('x')", 5, "forward hook"),
        ("model('x.jpg', augment=True)", 4, "test-time"),
        ("model.val(half=True)", 4, "half"),
        ("def f(net: YOLO):\n    net.tune()", 5, "tune"),
        ("model.track('a.mp4', persist=True, show=True)", 4, r".show()"),
        ("from ultralytics.solutions import Heatmap", 4, "'solutions'"),
        ("def f():\n    from ultralytics.utils import LOGER", 5, "LOGGER"),
    ],
)
def test_it_is_seen(code: str, line: int, match: str) -> None:
    ((number, text),) = foresee(HEAD + code)
    assert number == line and re.search(match, text), text


@pytest.mark.parametrize(
    "code",
    [
        "model.export(format='pt2', imgsz=64, simplify=True, half=False)",
        "model.export('onnx', half=True, dynamic=True, opset=20, batch=1, simplify=True, device='cpu', imgsz=(64, 64))",
        "model.export('engine', device=0, int8=True, workspace=8, data='d')",
        "model.export()",
        "model.export(format=chosen)",
        "model.export(**settings)",
        "model.val(rect=True, half=False, save_conf=True, save_txt=wanted)",
        "model.predict('x', stream=True, save=True, conf=0.1, show=False)",
        "model.track('x.mp4', persist=True, tracker='bytetrack.yaml', vid_stride=2, save_txt=True)",
        "if False:\n    model.export(format='paddle')",
        "try:\n    model.tune('x')\nexcept AttributeError:\n    pass",
        "if hasattr(model, 'tune'):\n    model.tune()",
        "frame.export(format='paddle')",
        "net = Other()\nnet.track()",
        "def f():\n    from ultralytics.utils.loss import E2ELoss",
        "this is no Python",
    ],
)
def test_nothing_is_said_of_what_may_work(code: str) -> None:
    assert foresee(HEAD + code) == []


def test_a_script_that_does_not_train_is_left_to_fail_at_once() -> None:
    assert foresee("from ultralytics import YOLO\nYOLO('x.pt').export(format='paddle')") == []


def test_other_ways_to_the_class_are_known() -> None:
    code = "import ultralytics as u\nfrom ultralytics import RTDETR as R\nu.YOLO('a').tune()\nR('b').tune()\nx.train()"
    assert [line for line, _ in foresee(code)] == [3, 4]


def test_it_is_one_warning(tmp_path: Path, warnings: list[str]) -> None:
    script = tmp_path / "mine.py"
    script.write_text(HEAD + "model.export(format='paddle')\nmodel.tune('x')\n")
    foretell(script)
    (said,) = warnings
    assert "mine.py" in said and "line 4: model.export()" in said and "line 5: model.tune()" in said
