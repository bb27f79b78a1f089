"""The incumbent's weight files: read exactly, without running anything, and refused clearly where that cannot be."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from dresser import NAMES, Dresser
from eyas.checkpoint import CheckpointError, load_checkpoint
from eyas.checkpoint.archive import Archive
from eyas.checkpoint.foreign import read_weights
from eyas.checkpoint.pickled import read_pickle
from eyas.models import DetectionModel, Detector, build_detector, model_table
from eyas.types import CLASSES

PARTS = ("backbone", "head")


# -- files as the incumbent writes them -------------------------------------------------------------------------------
@pytest.fixture
def dresser() -> Dresser:
    return Dresser()


@pytest.fixture
def tiny(tiny_model: Path) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(str(tiny_model), nc=3, names=NAMES, verbose=False).eval()


def detector(dresser: Dresser, child: Any = None, **attributes: Any) -> Any:
    """The smallest network that is read: one normalisation inside a head."""
    head, layers, norm = dresser.cls("head.Detect")(), dresser.cls("layers.Sequential")(), dresser.cls("norm.Norm")()
    network = dresser.cls("net.DetectionModel")()
    norm.__dict__ = {"_parameters": OrderedDict(weight=torch.ones(2), bias=None)}
    head.__dict__ = {"_modules": {"bn": norm, **({"x": child} if child else {})}}
    layers.__dict__ = {"_modules": {"0": head}}
    network.__dict__ = {"_modules": {"model": layers}, "yaml": {"nc": 3}, "names": NAMES, **attributes}
    return network


@pytest.fixture
def set_detector() -> Detector:
    """A small RT-DETR, from a table as the incumbent writes them: with scales, and None as a text."""
    torch.manual_seed(0)
    ours = model_table("rtdetr-tiny")
    rows = {part: [[*row[:3], ["None" if a is None else a for a in row[3]]] for row in ours[part]] for part in PARTS}
    table = {"nc": 80, "scales": {"l": [1.0, 1.0, 1024]}, "scale": "l", "ch": 3, "yaml_file": "rtdetr-l.yaml", **rows}
    return build_detector(table, nc=3, names=NAMES, verbose=False).eval()


@pytest.fixture
def theirs(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> Path:
    path = tmp_path / "theirs.pt"
    content = {"epoch": -1, "ema": None, "model": dresser.network(tiny), "optimizer": None, "version": "8.4"}
    dresser.save(content | {"license": "AGPL-3.0 License", "train_metrics": {"fitness": 0.5}}, path)
    return path


# -- what is read ------------------------------------------------------------------------------------------------------
def test_every_tensor_is_read_exactly(theirs: Path, tiny: DetectionModel) -> None:
    found = read_weights(theirs)
    expected = tiny.state_dict()
    assert list(found["model"]) == list(expected)
    for key, tensor in found["model"].items():
        assert tensor.dtype is (torch.float32 if expected[key].is_floating_point() else torch.int64), key
        wanted = expected[key].half().float() if expected[key].is_floating_point() else expected[key]
        assert torch.equal(tensor, wanted), key
    assert found["nc"] == 3 and found["names"] == NAMES
    assert found["train_args"] == {"imgsz": 96, "data": "pets.yaml"}, "only what serves as a default later"
    assert found["train_metrics"] == {"fitness": 0.5}


def test_a_checkpoint_is_opened_like_one_of_ours(theirs: Path, tiny: DetectionModel) -> None:
    from eyas.api import YOLO

    with pytest.raises(pickle.UnpicklingError):
        torch.load(theirs, weights_only=True)
    model = YOLO(theirs)
    assert model.names == NAMES and model.remembered("val") == {"imgsz": 96, "data": "pets.yaml"}
    tiny.half().float()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.model(images)[0], tiny(images)[0])


def test_a_set_detector_is_opened_too(dresser: Dresser, set_detector: Detector, tmp_path: Path) -> None:
    """Its decoder keeps caches of anchors, empty in a file: tensors over blocks of no numbers (spec core H.3)."""
    from eyas.api import RTDETR, YOLO

    own = {"backbone", "head", "nc", "scales", "scale", "ch", "yaml_file"}  # what the incumbent's tables hold
    network = dresser.network(set_detector, yaml={k: v for k, v in set_detector.yaml.items() if k in own})
    decoder = list(network._modules["model"]._modules.values())[-1]
    assert type(decoder).__name__ == "RTDETRDecoder"
    decoder.anchors, decoder.shapes = torch.empty(0), []
    decoder._buffers["valid_mask"] = torch.empty(0, dtype=torch.bool)
    decoder._non_persistent_buffers_set.add("valid_mask")
    path = tmp_path / "set.pt"
    dresser.save({"epoch": -1, "ema": network, "model": None, "optimizer": None, "version": "8.4"}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    model = RTDETR(path)
    assert type(YOLO(path)) is RTDETR and model.names == NAMES
    assert model.remembered("val") == {"imgsz": 96, "data": "pets.yaml"}
    set_detector.half().float()
    expected = set_detector.state_dict()
    assert list(read_weights(path)["model"]) == list(expected)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.model(images)[0], set_detector(images)[0])


def test_an_empty_tensor_is_read(dresser: Dresser, tmp_path: Path) -> None:
    network = detector(dresser)
    network._modules["model"]._modules["0"].__dict__["_buffers"] = {"anchors": torch.empty(0, 4)}
    dresser.save({"model": network}, tmp_path / "empty.pt")
    assert read_weights(tmp_path / "empty.pt")["model"]["model.0.anchors"].shape == (0, 4)


@pytest.mark.parametrize("dimensions", range(6))
def test_tensors_of_any_layout_are_read(dimensions: int, dresser: Dresser, tmp_path: Path) -> None:
    """Pickle has an instruction of its own for tuples of each length up to three, so sizes and strides have too."""
    shape = (2, 3, 4, 5, 6)[:dimensions]
    plain = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    turned = plain.permute(tuple(reversed(range(dimensions))))
    layer = dresser.cls("layers.Layer")()
    layer.__dict__ = {"_parameters": OrderedDict(plain=plain, turned=turned)}
    dresser.save({"model": detector(dresser, layer)}, tmp_path / "layout.pt")
    state = read_weights(tmp_path / "layout.pt")["model"]
    assert torch.equal(state["model.0.x.plain"], plain) and torch.equal(state["model.0.x.turned"], turned)


def test_the_average_is_preferred(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> None:
    live = dresser.network(tiny)
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.fill_(0.25)
    dresser.save({"model": live, "ema": dresser.network(tiny)}, tmp_path / "both.pt")
    state = read_weights(tmp_path / "both.pt")["model"]
    assert all((state[name] == 0.25).all() for name, _ in tiny.named_parameters())


def test_buffers_outside_the_state_stay_behind(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> None:
    tiny.model[0].register_buffer("scratch", torch.ones(3), persistent=False)
    dresser.save({"model": dresser.network(tiny)}, tmp_path / "buffers.pt")
    assert list(read_weights(tmp_path / "buffers.pt")["model"]) == list(tiny.state_dict())


def test_a_class_of_the_users_own_is_no_obstacle(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> None:
    """Quirk 9 of spec core I: such files cannot be opened elsewhere by the library that wrote them."""
    network = dresser.network(tiny)
    network.__class__ = dresser.cls("my_script.WeightedDetectionModel")
    network.args = dresser.cls("ultralytics.utils.IterableSimpleNamespace")()
    network.args.__dict__ = {"imgsz": 320, "single_cls": False, "box": 7.5}
    network.criterion = dresser.cls("my_script.Loss")()
    dresser.save({"model": network}, tmp_path / "own.pt")
    found = read_weights(tmp_path / "own.pt")
    assert found["train_args"] == {"imgsz": 320, "single_cls": False}


def test_the_licence_in_the_file_is_told(theirs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eyas"):
        read_weights(theirs)
    assert [r.getMessage() for r in caplog.records if "AGPL-3.0 License" in r.getMessage()] != []


# -- a malicious file runs nothing -------------------------------------------------------------------------------------
class Evil:
    """Pickled as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, description: bytes, compression: int = zipfile.ZIP_STORED, **blocks: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", description)
        for key, data in blocks.items():
            file.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return path


def pickled_id(value: Any) -> bytes:
    """A pickle whose only content is a persistent id."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", value, "0", "cpu", 1) if obj == "here" else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"model": "here"})
    return buffer.getvalue()


def text(value: str) -> bytes:
    """An instruction that pushes a text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def payloads(marker: Path) -> dict[str, bytes]:
    system, command = Evil(os.system, f"touch {marker}"), f"touch {marker}"
    call = b"cposix\nsystem\n(" + text(command) + b"tR"  # os.system(command)
    stub = b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n)\x81"
    return {
        "at the top": pickle.dumps(system, 2),
        "in an entry": pickle.dumps({"model": {"a": [system]}}, 2),
        "by a newer pickle": pickle.dumps({"model": {"a": (system,)}}, 5),
        "by an older pickle": pickle.dumps({"model": system}, 0),
        "eval": pickle.dumps({"model": Evil(eval, f"open({str(marker)!r}, 'w')")}, 2),
        "as a state": stub + call + b"b.",
        "as an argument": b"\x80\x02ctorch.nn.modules.conv\nConv2d\n" + call + b"\x85R.",
        "as a hidden setstate": stub + b"}" + text("__setstate__") + b"cposix\nsystem\nsb" + text(command) + b"b.",
        "in a persistent id": pickled_id(system),
        "as a persistent id": b"\x80\x02" + call + b"Q.",
        "as a textual persistent id": b"Pcommand\n.",
        "by INST": b"(" + text(command) + b"iposix\nsystem\n.",
        "by OBJ": b"(cposix\nsystem\n" + text(command) + b"o.",
        "by NEWOBJ_EX": b"\x80\x04cposix\nsystem\n" + text(command) + b"\x85}\x92.",
        "by the registry": b"\x80\x02\x82\x01(" + text(command) + b"tR.",
        "by getattr": b"\x80\x02cbuiltins\ngetattr\ncposix\n\n" + text("system") + b"\x86R" + text(command) + b"\x85R.",
        "a module imported": b"\x80\x02cantigravity_of_eyas\nfly\n)R.",
        "as items": b"\x80\x02ccollections\nOrderedDict\n" + call + b"\x85R.",
    }


@pytest.mark.parametrize("name", payloads(Path("x")))
def test_nothing_in_a_malicious_file_runs(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = archive(tmp_path / "evil.pt", payloads(marker)[name])
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_weights(path)
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        load_checkpoint(path)
    assert not marker.exists()


def test_the_payloads_are_real(tmp_path: Path) -> None:
    """What is refused above does run where a pickle is simply loaded."""
    marker = tmp_path / "ran"
    for name in ("at the top", "in an entry", "by a newer pickle", "by INST", "by OBJ", "as items"):
        with contextlib.suppress(AttributeError, ImportError, TypeError, pickle.UnpicklingError):
            pickle.loads(payloads(marker)[name])
        assert marker.exists(), name
        marker.unlink()


def test_a_call_hidden_in_a_sound_file_is_found(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    network = dresser.network(tiny)
    network._modules["model"]._modules["3"].act = Evil(os.mkdir, str(marker))
    dresser.save({"model": network}, tmp_path / "hidden.pt")
    with pytest.raises(CheckpointError, match=r"holds code, not just tensors.*posix\.mkdir"):
        load_checkpoint(tmp_path / "hidden.pt")
    assert not marker.exists()


def test_a_call_hidden_in_a_set_detector_is_found(dresser: Dresser, set_detector: Detector, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    network = dresser.network(set_detector)
    list(network._modules["model"]._modules.values())[-1].anchors = Evil(os.mkdir, str(marker))
    dresser.save({"model": network}, tmp_path / "hidden.pt")
    with pytest.raises(CheckpointError, match=r"holds code, not just tensors.*posix\.mkdir"):
        load_checkpoint(tmp_path / "hidden.pt")
    assert not marker.exists()


# -- a file that lies about sizes --------------------------------------------------------------------------------------
def tensor_pickle(kind: bytes, numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """{"model": a Detect network with one tensor}, written by hand."""

    def number(n: int) -> bytes:
        return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride)
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    head = b"chead\nDetect\n)\x81}" + text("_parameters") + b"}" + text("weight") + tensor + b"ssb"
    layers = b"clayers\nSequential\n)\x81}" + text("_modules") + b"}" + text("0") + head + b"ssb"
    network = b"cnet\nDetectionModel\n)\x81}" + text("_modules") + b"}" + text("model") + layers + b"ssb"
    return b"\x80\x02}" + text("model") + network + b"s."


@pytest.mark.parametrize(
    ("description", "block", "match"),
    [
        (tensor_pickle(b"FloatStorage", 4, (4,), (1,)), b"\0" * 8, "another length"),
        (tensor_pickle(b"FloatStorage", 2, (4,), (1,)), b"\0" * 8, "beyond its numbers"),
        (tensor_pickle(b"FloatStorage", 2, (2,), (1,), offset=1), b"\0" * 8, "beyond its numbers"),
        (tensor_pickle(b"FloatStorage", 2, (2,), (9,)), b"\0" * 8, "beyond its numbers"),
        (tensor_pickle(b"FloatStorage", 2, (10**9, 10**9), (0, 0)), b"\0" * 8, "beyond its numbers"),
        (tensor_pickle(b"FloatStorage", 2, (-1,), (1,)), b"\0" * 8, "impossible shape"),
        (tensor_pickle(b"FloatStorage", 2, (1, 2), (1,)), b"\0" * 8, "impossible shape"),
        (tensor_pickle(b"FloatStorage", 2, (1,) * 90, (1,) * 90), b"\0" * 8, "impossible shape"),
        (tensor_pickle(b"ComplexFloatStorage", 1, (1,), (1,)), b"\0" * 8, "complex64"),
        (tensor_pickle(b"FloatStorage", 2, (2,), (1,)), b"\0" * 8, "table of layers is missing"),  # itself sound
    ],
)
def test_sizes_that_do_not_fit(description: bytes, block: bytes, match: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "sizes.pt", description, _0=block)
    with pytest.raises(CheckpointError, match=match):
        read_weights(path)


def test_a_missing_block_of_numbers(tmp_path: Path) -> None:
    path = archive(tmp_path / "gone.pt", tensor_pickle(b"FloatStorage", 2, (2,), (1,)))
    with pytest.raises(CheckpointError, match="data/0 is missing"):
        read_weights(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.pt", pickle.dumps({"model": 1}, 2), zipfile.ZIP_DEFLATED, _0=b"\0" * 10_000_000)
    assert bomb.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="compressed"):
        read_weights(bomb)


def test_one_block_used_again_and_again(dresser: Dresser, tmp_path: Path) -> None:
    """A tensor costs 20 bytes of description; ten thousand of one large block would fill the memory."""
    block = torch.zeros(1000)
    head = dresser.cls("head.Detect")()
    head.__dict__ = {"_parameters": OrderedDict((f"w{i}", block) for i in range(10_000))}
    layers, network = dresser.cls("layers.Sequential")(), dresser.cls("net.DetectionModel")()
    layers.__dict__, network.__dict__ = {"_modules": {"0": head}}, {"_modules": {"model": layers}}
    dresser.save({"model": network}, tmp_path / "again.pt")
    with pytest.raises(CheckpointError, match="beyond its numbers"):
        read_weights(tmp_path / "again.pt")


def test_a_block_is_read_once(dresser: Dresser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of single numbers taken in turn from two blocks must not read them thousands of times."""
    blocks = torch.arange(5000.0), torch.arange(5000.0) + 0.5
    many = dresser.cls("layers.Many")()
    many.__dict__ = {"_parameters": OrderedDict((f"w{i}", blocks[i % 2][i : i + 1]) for i in range(3000))}
    dresser.save({"model": detector(dresser, many)}, tmp_path / "many.pt")
    reads: list[str] = []
    block = Archive.block
    monkeypatch.setattr(Archive, "block", lambda self, name: reads.append(name) or block(self, name))
    state = read_weights(tmp_path / "many.pt")["model"]
    assert [state[f"model.0.x.w{i}"].item() for i in range(3000)] == [i + i % 2 / 2 for i in range(3000)]
    assert len([name for name in reads if name.startswith("data/")]) == 3


def test_tensors_that_repeat_without_end(dresser: Dresser, tmp_path: Path) -> None:
    leaf, group = dresser.cls("layers.Leaf")(), dresser.cls("layers.Group")()
    leaf.__dict__ = {"_parameters": OrderedDict((f"w{i}", torch.empty(0)) for i in range(400))}
    group.__dict__ = {"_modules": {str(i): leaf for i in range(400)}}
    dresser.save({"model": detector(dresser, group)}, tmp_path / "repeat.pt")
    with pytest.raises(CheckpointError, match="repeat without end"):
        read_weights(tmp_path / "repeat.pt")


@pytest.mark.parametrize("function", ["torch\nSize", "builtins\nset", "collections\nOrderedDict"])
def test_a_description_that_copies_itself(function: str) -> None:
    """A remembered argument of 2,000 items, given to a call again and again by 4 bytes each time."""
    items = b"}(" + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(2000)) + b"u"
    items = items if "Ordered" in function else b"](" + b"N" * 2000 + b"e"
    start = b"\x80\x02c" + function.encode() + b"\nq\x00" + items + b"\x85q\x01"
    call = b"h\x00h\x01R"
    assert len(read_pickle(start + call + b".")) == 2000
    with pytest.raises(CheckpointError, match="copies itself without end"):
        read_pickle(start + call * 1000 + b".")


def test_modules_and_values_that_nest_without_end(dresser: Dresser, tmp_path: Path) -> None:
    loop = dresser.cls("net.Loop")()
    loop.__dict__ = {"_modules": {"again": loop}}
    dresser.save({"model": detector(dresser, loop)}, tmp_path / "loop.pt")
    doubled = dresser.cls("net.Loop")()
    for _ in range(50):  # 2 ** 50 modules from fifty
        outer = dresser.cls("net.Loop")()
        outer.__dict__ = {"_modules": {"a": doubled, "b": doubled}}
        doubled = outer
    dresser.save({"model": detector(dresser, doubled)}, tmp_path / "doubled.pt")
    laughs: list[Any] = []
    for _ in range(50):
        laughs = [laughs, laughs]
    dresser.save({"model": detector(dresser, yaml=laughs)}, tmp_path / "laughs.pt")
    for name in ("loop", "doubled", "laughs"):
        with pytest.raises(CheckpointError, match="without end"):
            read_weights(tmp_path / f"{name}.pt")


def test_a_key_nested_deeply_is_not_hashed(tmp_path: Path) -> None:
    deep = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."
    with pytest.raises(CheckpointError, match="no 'model'"):
        read_weights(archive(tmp_path / "deep.pt", deep))


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"\x80\x02",
        b"garbage",
        b"\x80\x02.",
        b"\x80\x02a.",
        b"\x80\x02)R.",
        b"\x80\x02h\x07.",
        b"\x80\x02}K\x01K\x02u.",
    ],
)
def test_garbage_is_refused(description: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="garbage.pt"):
        read_weights(archive(tmp_path / "garbage.pt", description))


def test_any_flipped_byte_is_read_or_refused(dresser: Dresser, tmp_path: Path) -> None:
    """Nothing but CheckpointError leaves the reader, wherever the description is damaged."""
    path = tmp_path / "flipped.pt"
    dresser.save({"model": detector(dresser), "version": "8"}, path)
    with zipfile.ZipFile(path) as file:
        description, block = file.read("flipped/data.pkl"), file.read("flipped/data/0")
    refused = 0
    for position in range(len(description)):
        for flip in (0x01, 0x2F):
            damaged = bytearray(description)
            damaged[position] ^= flip
            try:
                read_weights(archive(path, bytes(damaged), _0=block))
            except CheckpointError:
                refused += 1
    assert refused > len(description)


# -- what it is instead ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<html>404 Not Found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b'{"message": "rate limit"}', "text"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "ONNX"),
        (b"\x00\x01\x02 no idea", "no archive of torch.save"),
        (b"PK\x03\x04 and then nothing", "damaged or cut off"),
    ],
)
def test_other_files_are_named(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"other\.pt.*{match}"):
        load_checkpoint(path)


def test_a_plain_pickle_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(CheckpointError, match="plain pickle"):
        read_weights(tmp_path / "plain.pt")


def test_torchscript_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"script/{name}", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_weights(tmp_path / "script.pt")


def test_other_archives_are_named(dresser: Dresser, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as file:
        file.writestr("cat.jpg", b"\xff\xd8")
    with pytest.raises(CheckpointError, match="not one of torch.save"):
        load_checkpoint(tmp_path / "photos.pt")
    dresser.save({"model": OrderedDict(weight=torch.zeros(2))}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="tensors without the network"):
        read_weights(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("head", "task", "match"),
    [
        ("Segment", "segment", "task 'segment'"),
        ("Pose", "pose", "task 'pose'"),
        ("Classify", "classify", "task 'classify'"),
        ("Novel", "detect", "ends in Novel, not in a detection head .Detect or RTDETRDecoder"),
    ],
)
def test_other_tasks_are_named(dresser: Dresser, head: str, task: str, match: str, tmp_path: Path) -> None:
    network = detector(dresser, task=task)
    network._modules["model"]._modules["0"].__class__ = dresser.cls(f"ultralytics.nn.modules.head.{head}")
    dresser.save({"model": network}, tmp_path / "task.pt")
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(tmp_path / "task.pt")


def test_a_fused_network_and_wrong_names(dresser: Dresser, tiny: DetectionModel, tmp_path: Path) -> None:
    dresser.save({"model": dresser.network(copy.deepcopy(tiny).fuse())}, tmp_path / "fused.pt")
    with pytest.raises(CheckpointError, match="folded"):
        read_weights(tmp_path / "fused.pt")
    gap = {0: "cat", 1: "dog", 3: "owl"}
    for changes in ({"names": {0: "cat"}}, {"names": gap}, {"nc": "three"}, {"names": {"a": "cat"}}, {"yaml": None}):
        dresser.save({"model": detector(dresser, **changes)}, tmp_path / "names.pt")
        with pytest.raises(CheckpointError, match="classes|numbered|table"):
            read_weights(tmp_path / "names.pt")
    dresser.save({"model": detector(dresser, names=list(NAMES.values()))}, tmp_path / "list.pt")
    assert read_weights(tmp_path / "list.pt")["names"] == NAMES


@pytest.mark.parametrize("nc", [0, -1, True, 10**9, pytest.param(10**5000, id="huge"), CLASSES + 1])
def test_an_impossible_number_of_classes(dresser: Dresser, nc: int, tmp_path: Path) -> None:
    for names in (NAMES, None):
        dresser.save({"model": detector(dresser, nc=nc, names=names)}, tmp_path / "classes.pt")
        with pytest.raises(CheckpointError, match="number of classes"):
            read_weights(tmp_path / "classes.pt")


def test_numbers_that_are_none(dresser: Dresser, tmp_path: Path) -> None:
    laughs: list[Any] = []
    for _ in range(50):
        laughs = [laughs, laughs]
    metrics = {"fitness": 0.5, "epochs": 3, "huge": 10**400, 10**5000: 1.0, "text": "1", "true": True}
    dresser.save({"model": detector(dresser), "train_metrics": metrics, "version": laughs}, tmp_path / "numbers.pt")
    found = read_weights(tmp_path / "numbers.pt")
    assert found["train_metrics"] == {"fitness": 0.5, "epochs": 3.0}
    assert found["eyas"]["read_from"] == "ultralytics"
    dresser.save({"model": detector(dresser, names={float("inf"): "cat"})}, tmp_path / "infinite.pt")
    with pytest.raises(CheckpointError, match="not numbered"):
        read_weights(tmp_path / "infinite.pt")


# -- against independent numbers ---------------------------------------------------------------------------------------
PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"
REFERENCE = PARITY / "reference-yolo26n.pt"


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no parity cases beside the repository")
def test_a_real_file_gives_the_stated_outputs() -> None:
    import importlib.util

    import numpy as np

    spec = importlib.util.spec_from_file_location("parity_fill", PARITY / "fill.py")
    assert spec is not None and spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    with np.load(PARITY / "cases" / "reference-yolo26n.npz") as case:
        expected = dict(case)
    checkpoint = load_checkpoint(REFERENCE)
    model = DetectionModel(checkpoint["yaml"], nc=checkpoint["nc"], names=checkpoint["names"], verbose=False)
    assert model.load(checkpoint, remap=False, verbose=False) == len(model.state_dict()) == 708
    with torch.no_grad():
        detections, raw = model.eval()(fill.image(1, 128, 128, 0))
    found = {"end2end_detections": detections}
    found |= {f"{b}_{part}": raw[b][part] for b in ("one2one", "one2many") for part in ("boxes", "scores")}
    for name, value in found.items():
        difference = np.abs(value.numpy() - expected[name]).max() / np.abs(expected[name]).max()
        assert difference < 1e-5, name
