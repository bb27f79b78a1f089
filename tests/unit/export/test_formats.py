"""Files of other runtimes answer as the model does, say what it is, and are used like checkpoints."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from eyas import RTDETR, YOLO
from eyas.cli import main
from eyas.config import resolve
from eyas.export import BoxModel, Card, Exported, ExportError, export, find_target
from eyas.export.base import library
from eyas.export.ncnn import INPUT, OUTPUT, Layers, dense
from eyas.export.onnx import Onnx, decoding, halved
from eyas.export.safetensors import SafeTensors
from eyas.export.tensorrt import LENGTH, TensorRt
from eyas.export.tflite import appended
from eyas.export.verify import verify_on_noise
from eyas.models import DetectionModel, UnknownModelError, model_table
from eyas.models.dino.decoder import proposals
from eyas.models.encoders.padding import cells_of, frame_of, lines_of_image, lines_of_map
from small_export import NAMES, SIZE, answer, assert_alike, shaken


@pytest.fixture(scope="module")
def graph(yolo: YOLO) -> Any:
    """The graph of the model in ONNX, made once."""
    pytest.importorskip("onnxscript")
    return Onnx().graph(BoxModel(yolo.model), Onnx().described(Card.of(yolo.model, SIZE)))


@pytest.fixture
def translated(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give that graph to all that ask for the one of this model."""
    monkeypatch.setattr(Onnx, "graph", lambda *_: copy.deepcopy(graph))


def check(yolo: YOLO, opened: YOLO, *, pixels: float = 2e-3) -> None:
    """Facts and answers, for more images than the file takes at a time."""
    assert opened.names == NAMES and opened.exported is not None
    card = opened.exported.card
    assert (card.imgsz, card.end2end, card.stretch) == (SIZE, True, yolo.model.stretch)
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    assert_alike(
        opened.exported(images.to(memory_format=torch.channels_last))[0], answer(yolo.model, images), pixels=pixels
    )


# -- each runtime ------------------------------------------------------------------------------------------------------
def test_onnx(yolo: YOLO, data: str, translated: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    path = yolo.export("onnx", imgsz=SIZE, data=data)
    opened = YOLO(path)
    check(yolo, opened)
    assert type(opened) is YOLO and repr(opened) == f"YOLO({str(path)!r}, 3 classes, fp32, 64 px)"
    assert "<td>3</td>" in opened._repr_html_()
    held = onnx.load(path)
    onnx.checker.check_model(held, full_check=True)
    assert {use.version for use in held.opset_import if not use.domain} == {18}
    texts = {entry.key: entry.value for entry in held.metadata_props}
    assert json.loads(texts["eyas"])["names"] == ["cat", "dog", "owl"] and "Apache-2.0" in texts["licence"]
    assert not any(node.metadata_props for node in held.graph.node)

    assert opened.val(data=data, verbose=False, plots=False, project=str(tmp_path)).box.map > 0.9
    image = cv2.imread(str(Path(data).parent / "images" / "0.png"))
    (here,), (there,) = yolo.predict(image, imgsz=SIZE), opened.predict([np.tile(image, (1, 2, 1)), image])[1:]
    torch.testing.assert_close(there.boxes.data, here.boxes.data, atol=2e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="exported for images of 64 x 64 px, not 96 x 96"):
        opened.predict(image, imgsz=96)
    with pytest.raises(ValueError, match="amp has no effect: the precision of .*best.onnx is fp32"):
        opened.val(data=data, amp=False)
    for forbidden in (lambda: opened.train(data=data), opened.export, opened.info, lambda: opened.load("x.pt")):
        with pytest.raises(ValueError, match="is an exported file: it can be measured .val. and used .predict."):
            forbidden()
    assert main(["train", f"model={path}", f"data={data}"]) == 1
    assert "is an exported file" in capsys.readouterr().err


def test_onnx_in_half_precision(yolo: YOLO, translated: None, data: str) -> None:
    onnx = pytest.importorskip("onnx")
    path = yolo.export("onnx", imgsz=SIZE, data=data, half=True)
    assert YOLO(path).exported.card.precision == "fp16"  # type: ignore[union-attr]
    check(yolo, YOLO(path), pixels=0.2)
    held = onnx.load(path)
    weights = [held_tensor.data_type for held_tensor in held.graph.initializer if len(held_tensor.dims) == 4]
    assert weights and set(weights) == {onnx.TensorProto.FLOAT16}


def test_the_decoding_stays_in_full_precision(graph: Any) -> None:
    """Coordinates of hundreds of pixels have steps of a quarter and more in fp16."""
    onnx = pytest.importorskip("onnx")
    held = halved(copy.deepcopy(graph))
    behind = set(decoding(graph))
    onnx.checker.check_model(held, full_check=True)
    kept = {name for node in held.graph.node if node.name in behind for name in node.output}
    half = [node for node in held.graph.node if node.op_type == "Cast" and node.attribute[0].i == 10]  # FLOAT16
    assert len(kept) > 10 and [node.input[0] for node in half] == ["images"]
    halves = {value.name for value in held.graph.initializer if value.data_type == onnx.TensorProto.FLOAT16}
    assert len(halves) > 10 and not any(
        name in halves for node in held.graph.node if node.name in behind for name in node.input
    )


def test_a_file_is_measured_on_images_of_any_shape(yolo: YOLO, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), np.zeros((20, 40, 3), np.uint8))
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2")
    described = {"path": str(tmp_path), "train": "images", "val": "images", "names": NAMES}
    opened = YOLO(yolo.export("torchscript", imgsz=SIZE, verify=False))
    assert opened.val(data=described, verbose=False, plots=False, project=str(tmp_path)).box.map == 0
    assert len(opened.predict(str(tmp_path / "images"))) == 1


def test_onnx_in_integers_is_fitted_to_training_images(
    yolo: YOLO, translated: None, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    seen: list[tuple[int, ...]] = []
    given = BoxModel.__init__

    def counted(self: BoxModel, detector: Any, samples: Callable[[], Any]) -> None:
        given(self, detector, lambda: (seen.append(tuple(image.shape)) or image for image in samples()))

    monkeypatch.setattr(BoxModel, "__init__", counted)
    path = yolo.export("onnx", imgsz=SIZE, data=data, int8=True, fraction=4, verify=False)
    assert seen == [(1, 3, SIZE, SIZE)] * 4
    held = onnx.load(path)
    assert any(node.op_type == "QuantizeLinear" for node in held.graph.node)
    assert YOLO(path).exported.card.precision == "int8"  # type: ignore[union-attr]
    monkeypatch.undo()
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    found, expected = YOLO(path).exported(images)[0][0, 0], answer(yolo.model, images)[0]  # type: ignore[misc]
    near = (expected[:, :4] - found[:4]).abs().amax(1)
    assert near.min() < 3


def test_integers_need_images(yolo: YOLO) -> None:
    with pytest.raises(ValueError, match="int8 is fitted to images of the training, and none are known"):
        list(yolo.training_images(yolo.val_options(resolve(command="val")), 3))
    with pytest.raises(ValueError, match="half and int8 are two precisions"):
        find_target("onnx", {"half": True, "int8": True})
    with pytest.raises(ValueError, match="give int8=True too"):
        yolo.export("onnx", fraction=0.5)


def test_onnx_of_a_set_detector(rtdetr: YOLO) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = rtdetr.export("onnx", imgsz=SIZE)
    check(rtdetr, RTDETR(path))
    assert isinstance(YOLO(path), RTDETR)
    assert any(node.op_type == "GridSample" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("model", ["dfine-tiny", "deimv2-tiny"])
def test_onnx_of_boxes_with_distributions(model: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    table = tmp_path / "fine.yaml"
    table.write_text(yaml.safe_dump(model_table(model) | {"nc": len(NAMES), "queries": 30}))
    torch.manual_seed(0)
    fine = shaken(YOLO(table), tmp_path)
    opened = YOLO(fine.export("onnx", imgsz=SIZE, verify=False))
    check(fine, opened)


def test_openvino(yolo: YOLO, translated: None, data: str) -> None:
    pytest.importorskip("openvino")
    (Path(str(yolo.ckpt_path)).parent / "best_openvino_model").mkdir()  # an earlier one, which makes way
    path = yolo.export("openvino", imgsz=SIZE, data=data)
    assert path.name == "best_openvino_model" and sorted(file.suffix for file in path.iterdir()) == [".bin", ".xml"]
    assert not list(path.parent.glob(".export-*"))
    check(yolo, YOLO(path))


def test_torchscript(yolo: YOLO, data: str) -> None:
    path = yolo.export("torchscript", imgsz=SIZE, data=data, batch=2)
    check(yolo, YOLO(path))
    assert YOLO(path).exported.card.batch == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("half", [False, True])
def test_safetensors_are_a_checkpoint(yolo: YOLO, data: str, half: bool) -> None:
    path = yolo.export("safetensors", imgsz=SIZE, data=data, half=half)
    opened = YOLO(path)
    assert opened.exported is None and opened.names == NAMES and opened.remembered("predict") == {"imgsz": SIZE}
    own, theirs = yolo.model.state_dict(), opened.model.state_dict()
    assert own.keys() == theirs.keys()
    for key, value in own.items():
        expected = value.half().float() if half and value.is_floating_point() else value
        assert torch.equal(theirs[key], expected.to(value.dtype)), key
    assert YOLO(path).model.training is False


class Gained(DetectionModel):
    """A model of a user's own, with a number that no table tells of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.full((), 1.5))

    def predict(self, x: Tensor) -> Any:
        return super().predict(x * self.gain)


class Asking(Gained):
    """One that cannot be built of a table alone."""

    def __init__(self, asked: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_safetensors_of_a_class_of_ones_own(yolo: YOLO, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = Gained(yolo.model.yaml, verbose=False)
    own.load(yolo.model.state_dict(), verbose=False)
    path = export(own, SafeTensors(), tmp_path / "own.safetensors", imgsz=SIZE, check=verify_on_noise)
    assert (
        "Gained has layers that its table does not list: open its checkpoints with YOLO(path, model_cl" in caplog.text
    )
    assert torch.equal(YOLO(path, model_class=Gained).model.gain, own.gain)
    asking = Asking(3, yolo.model.yaml, verbose=False)
    with pytest.raises(ExportError, match=r"by the class of its model, .*Asking, which has to take a table, nc"):
        export(asking, SafeTensors(), tmp_path / "asking.safetensors", imgsz=SIZE, check=verify_on_noise)


# -- ncnn --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("half", [False, True])
def test_ncnn(yolo: YOLO, data: str, half: bool) -> None:
    pytest.importorskip("ncnn")
    path = yolo.export("ncnn", imgsz=SIZE, data=data, half=half)
    assert sorted(file.name for file in path.iterdir()) == ["eyas.json", "model.ncnn.bin", "model.ncnn.param"]
    check(yolo, YOLO(path), pixels=0.2 if half else 2e-3)
    assert "blob 'boxes'" in json.loads((path / "eyas.json").read_text())["answers"]


def test_images_that_cannot_be_copied_are_no_matter_to_ncnn(yolo: YOLO) -> None:
    """After a training they are those of an object that holds threads and files."""
    model = BoxModel(yolo.model, partial(list, threading.Lock()))
    other = dense(model)
    assert other.samples is model.samples and other.detector is not model.detector


class Rooms(nn.Module):
    """What the shallow model has not: attention, pooling, larger and smaller maps, numbers and fixed tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.grouped = nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 2), groups=2)
        self.bias = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(torch.cat((x, x[:, :1]), 1)) * self.bias
        a, b = x.split([2, 6], 1)
        pooled = nn.functional.max_pool2d(b, 3, 1, 1) + nn.functional.interpolate(b[:, :, ::1, :4], scale_factor=(1, 2))
        rows = pooled.flatten(2).permute(0, 2, 1).reshape(1, -1, 2, 3).transpose(1, 2)  # (1, 2, HW, 3)
        weights = (rows @ rows.permute(0, 1, 3, 2) / 4).softmax(-1)
        mixed = (weights @ rows).transpose(1, 2).flatten(2)  # (1, HW, 6)
        return torch.cat((1 - mixed, mixed / (3 + mixed.sigmoid())), 2) - a.flatten(2).transpose(1, 2)[..., :1]


def test_layers_of_ncnn_compute_what_torch_does(tmp_path: Path) -> None:
    ncnn = pytest.importorskip("ncnn")
    model, image = Rooms().eval(), torch.randn(1, 3, 8, 8)
    layers = Layers(half=False)
    with torch.no_grad():
        layers.take(torch.export.export(model, (image,)))
    (tmp_path / "p").write_text(layers.text())
    (tmp_path / "b").write_bytes(b"".join(layers.weights))
    network = ncnn.Net()
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    assert network.load_param(str(tmp_path / "p")) == network.load_model(str(tmp_path / "b")) == 0
    run = network.create_extractor()
    pixels = image[0].numpy()
    run.input(INPUT, ncnn.Mat(pixels))
    with torch.no_grad():
        expected = model(image)[0]
    torch.testing.assert_close(torch.from_numpy(run.extract(OUTPUT)[1].numpy()), expected, atol=1e-4, rtol=1e-4)


def test_what_ncnn_has_no_layer_for_is_named(rtdetr: YOLO) -> None:
    with pytest.raises(ExportError, match=r"ncnn has no layers for the decoder of rtdetr .*Use onnx or openvino"):
        rtdetr.export("ncnn", imgsz=SIZE)
    program = torch.export.export(nn.Softplus(), (torch.zeros(1, 3, 4, 4),))
    with pytest.raises(ExportError, match=r"no layer for aten\.softplus"):
        Layers(half=False).take(program)


# -- files of others, missing libraries, settings ----------------------------------------------------------------------
def test_files_of_others_are_refused(tmp_path: Path) -> None:
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[1,3,8,8] x) => (float[1,3,8,8] y) {y = Relu(x)}'
    )
    onnx.save(made, tmp_path / "theirs.onnx")
    with pytest.raises(
        ExportError, match=r"theirs\.onnx says nothing of classes.*it takes x \[1, 3, 8, 8\].*Export the"
    ):
        YOLO(tmp_path / "theirs.onnx")
    for name in ("broken.onnx", "broken.torchscript", "broken.pt2", "broken.engine", "broken.tflite"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ExportError, match=re.escape(name)):
            YOLO(tmp_path / name)
        with pytest.raises(FileNotFoundError, match="there is no file .*gone"):
            YOLO(tmp_path / name.replace("broken", "gone"))
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match=r"broken\.safetensors is no file of safetensors: it is cut off"):
        YOLO(tmp_path / "broken.safetensors")
    (tmp_path / "a_ncnn_model").mkdir()
    with pytest.raises(ExportError, match=r"a_ncnn_model holds no eyas\.json"):
        YOLO(tmp_path / "a_ncnn_model")


def test_a_file_is_known_by_its_name_in_any_case_and_others_are_told_what_names_there_are(
    yolo: YOLO, tmp_path: Path
) -> None:
    path = yolo.export("torchscript", imgsz=SIZE, verify=False)
    loud, bare = tmp_path / "NET.TorchScript", tmp_path / "net"
    shutil.copy(path, loud)
    shutil.copy(path, bare)
    assert YOLO(loud).exported is not None
    for place in (bare, tmp_path):
        with pytest.raises(UnknownModelError, match=r"is there, but is not called like .*\*\.pt, .*\*_openvino_model"):
            YOLO(place)
    with pytest.raises(UnknownModelError, match="no model is called"):
        YOLO(tmp_path / "gone")


def test_what_a_folder_of_openvino_lacks_is_named(yolo: YOLO, translated: None) -> None:
    pytest.importorskip("openvino")
    path = yolo.export("openvino", imgsz=SIZE, verify=False)
    assert YOLO(path / "model.xml").names == NAMES
    graph, weights = path / "model.xml", path / "model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ExportError, match=r"OpenVINO cannot read .*model\.bin: it is cut off"):
        YOLO(path)
    weights.unlink()
    with pytest.raises(ExportError, match=r"there is no .*model\.bin: a folder of OpenVINO holds"):
        YOLO(path)
    weights.write_bytes(whole)
    graph.write_text(graph.read_text()[:500])
    with pytest.raises(ExportError, match=r"OpenVINO cannot read .*model\.xml: it is cut off"):
        YOLO(path)


def test_a_missing_library_is_one_line(yolo: YOLO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r'^format=onnx needs onnx, which is not installed: pip install "eyas\[onnx\]"$'
    ):
        yolo.export("onnx", imgsz=SIZE)
    with pytest.raises(ImportError, match=r"^format=x needs no_such_thing, .*: pip install no-such-thing$"):
        library("no_such_thing", "", "format=x")
    for target in ("tensorrt", "coreml", "tflite"):
        try:
            yolo.export(target, imgsz=SIZE)
        except (ImportError, ExportError) as error:
            assert f"format={target}" in str(error) or "Core ML runs on macOS" in str(error)


def test_an_engine_begins_with_its_card(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    path.write_bytes(LENGTH.pack(2) + b"{}" + b"engine")
    from eyas.export.tensorrt import card_and_engine

    assert card_and_engine(path) == ("{}", b"engine")
    assert TensorRt(half=True).suffix == ".engine"
    assert find_target("engine") == TensorRt()


def test_a_card_behind_a_graph_is_found(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "a.tflite"
    path.write_bytes(b"a graph")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("eyas.json", "{}")
    assert path.read_bytes().startswith(b"a graph") and appended(path) == "{}"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pt2", {"half": True}, "format=pt2 has no half=True: its settings are dynamic"),
        ("onnx", {"half": "yes"}, "half='yes' must be true or false"),
        ("onnx", {"batch": 0}, "batch=0 must be a whole number of at least 1"),
        ("tensorrt", {"workspace": "big"}, "workspace='big' must be a number above 0"),
        ("onnx", {"opset": 11}, "opset=11 is not written: choose 18 to 23"),
        ("onx", {}, "format='onx' is not one of .* Did you mean 'onnx'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_target(name, settings)
    assert find_target("pt2", {"half": False}) == find_target("pt2")


def test_the_card_of_later_and_broken_files() -> None:
    card = Card(names=("a",), stride=(8.0,), imgsz=64, stretch=False, end2end=True, remembered={"data": "d.yaml"})
    later = json.dumps(json.loads(card.text()) | {"something": "new"})
    assert Card.from_text(later) == card
    for text in ("", "{}", '{"names": 3}'):
        with pytest.raises(ExportError, match="what this file says of itself cannot be read"):
            Card.from_text(text)


def test_a_static_batch_is_filled_and_split() -> None:
    card = Card(names=("a",), stride=(8.0,), imgsz=64, stretch=False, end2end=True, batch=2)
    sizes: list[int] = []

    def answered(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.mean((1, 2, 3))[:, None, None].expand(-1, 1, 6)

    images = torch.rand(5, 3, 64, 64)
    found = Exported(card, answered)(images)[0]
    assert sizes == [2, 2, 2]
    torch.testing.assert_close(found[:, 0, 0], images.mean((1, 2, 3)))


def test_the_command(yolo: YOLO, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yolo.export("safetensors", imgsz=SIZE)
    capsys.readouterr()
    assert main(["export", f"model={path}", "format=torchscript", f"imgsz={SIZE}"]) == 0
    assert path.with_suffix(".torchscript").is_file()
    assert "Compared on 8 images of noise" in capsys.readouterr().out
    assert main(["export", f"model={path}", "fromat=onnx"]) == 2
    assert "export knows no 'fromat'" in (said := capsys.readouterr().err) and "Did you mean 'format'?" in said
    assert main(["export", f"model={path}", "format=pt2", "half=true"]) == 2
    assert "format=pt2 has no half=True" in capsys.readouterr().err
    for wrong in ("verify=maybe", "verify=none", "int8=true fraction=0"):
        assert main(["export", f"model={path}", "format=onnx", *wrong.split()]) == 2
        assert "expected" in capsys.readouterr().err
    assert main(["export"]) == 2
    assert main(["export", "--help"]) == 0
    assert "fitted to images of the training" in capsys.readouterr().out


class Reading(nn.Module):
    """From images to all that DINO reads off their padding, for two maps."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = lines_of_image(images)
        cells = cells_of([lines_of_map(image, (4, 6)), lines_of_map(image, (3, 3))])
        logits, _ = proposals(cells)
        return frame_of(image), cells.padded, logits.clamp(-20, 20)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_reads_the_same_padding(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    images[1, :, :9] = images[1, :, :, 40:] = 114 / 255
    path = tmp_path / "reading.onnx"
    torch.onnx.export(Reading().eval(), (images,), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    for found, expected in zip(answers, Reading()(images), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
