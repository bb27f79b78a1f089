from __future__ import annotations

import types

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from eyas.data.depth import White
from eyas.evaluate import Predictor
from eyas.evaluate.sources import open_source
from eyas.models import DetectionModel, build_detector

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DetectionModel("yolo26n.yaml", nc=2, names=NAMES, verbose=False)


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, picture):
    for name in ("b.png", "a.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def rows(results):
    return [result.boxes.data for result in results]


@pytest.mark.parametrize(("classes", "missing"), [([2], 2), ([-1], -1), ([0, 99], 99)])
def test_a_class_that_the_model_does_not_know_is_refused(model, classes, missing):
    with pytest.raises(ValueError, match=f"no class {missing}; ids go from 0 to 1"):
        Predictor(model, classes=classes)


def test_every_kind_of_source_gives_the_same_boxes(model, folder, picture):
    predict = Predictor(model, imgsz=64, conf=0.0, max_det=5)
    expected = rows(predict(picture))[0]
    assert len(expected) == 5
    rgb = Image.fromarray(picture[:, :, ::-1])
    sources = {
        "path": folder / "a.png",
        "text": str(folder / "a.png"),
        "folder": folder,
        "glob": str(folder / "*.png"),
        "pil": rgb,
        "list": [picture, folder / "a.png", rgb],
    }
    counts = {"folder": 3, "glob": 2, "list": 3}
    for kind, source in sources.items():
        results = predict(source)
        assert len(results) == counts.get(kind, 1), kind
        assert all(torch.equal(row, expected) for row in rows(results)), kind
    assert [result.path for result in predict(sources["list"])] == ["image0", str(folder / "a.png"), "image2"]


def test_boxes_are_in_pixels_of_the_image(model, picture):
    """The same picture twice as large gives boxes twice as large, within the resampling's blur."""
    smooth = cv2.GaussianBlur(cv2.resize(picture[:6, :12], (96, 48), interpolation=cv2.INTER_CUBIC), (0, 0), 2)
    large = cv2.resize(smooth, (192, 96), interpolation=cv2.INTER_CUBIC)
    predict = Predictor(model, imgsz=96, conf=0.0, max_det=1)
    (one,), (two,) = predict(smooth), predict(large)
    assert one.xyxy[:, [0, 2]].max() <= 96 and one.xyxy[:, [1, 3]].max() <= 48
    np.testing.assert_allclose(2 * one.xyxy, two.xyxy, atol=4)


def test_batches_of_equal_and_mixed_shapes(model, picture):
    one = Predictor(model, imgsz=64, conf=0.0, max_det=5)
    three = Predictor(model, imgsz=64, conf=0.0, max_det=5, batch=3)
    for a, b in zip(one([picture] * 4), three([picture] * 4), strict=True):
        torch.testing.assert_close(a.boxes.data, b.boxes.data, rtol=1e-4, atol=1e-3)
    tall = np.ascontiguousarray(picture.transpose(1, 0, 2))
    mixed = three([picture, tall])
    assert [result.orig_shape for result in mixed] == [(48, 96), (96, 48)]
    assert three.find.inputs([picture, tall])[0].shape == (2, 3, 64, 64)
    assert three.find.inputs([picture] * 2)[0].shape == (2, 3, 32, 64)


def seen_by(model, image, **options):
    """What reaches the network, (B, 3, H, W) in [0, 1]."""
    seen = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        Predictor(model, **options)(image)
    finally:
        hook.remove()
    (images,) = seen
    return images


def test_small_images_are_enlarged(model):
    images = seen_by(model, np.full((16, 32, 3), 255, np.uint8), imgsz=64)
    assert images.shape == (1, 3, 32, 64) and (images == 1).all()  # no grey around it


def test_a_model_of_squares_gets_a_square(tiny_rtdetr):
    """RT-DETR is trained on stretched images; a single wide one is no reason for a rectangle."""
    squares = build_detector(str(tiny_rtdetr), nc=2, names=NAMES, verbose=False)
    images = seen_by(squares, np.full((48, 96, 3), 255, np.uint8), imgsz=64)
    assert images.shape == (1, 3, 64, 64) and (images == 1).all()


def test_nms_gives_one_class_for_each_anchor(model, picture):
    """A threshold of 1 suppresses nothing, so a row for each anchor is left: 4x8, 2x4 and 1x2 of a 32x64 input."""
    found = Predictor(model, imgsz=64, conf=0.0, nms=True, iou=1.0, max_det=1000)(picture)[0]
    assert len(found) == 32 + 8 + 2


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_pil_images_are_turned_as_their_orientation_says(picture, orientation, quarters):
    """`quarters`: counterclockwise turns that make the stored pixels upright."""
    image = Image.fromarray(picture[:, :, ::-1])
    image.getexif()[0x0112] = orientation
    ((found,),) = [item.pictures() for item in open_source(image)]
    np.testing.assert_array_equal(found.pixels, np.rot90(picture, quarters))


def test_stream_is_lazy(model, picture):
    stream = Predictor(model, imgsz=64, conf=0.0)([picture] * 3, stream=True)
    assert isinstance(stream, types.GeneratorType)
    assert len(next(stream)) > 0
    model.train()
    next(stream)
    assert model.training  # each batch leaves the model as it found it
    model.eval()


def test_options_reach_the_model(model, picture):
    every = Predictor(model, imgsz=64, conf=0.0)(picture)[0]
    threshold = float(np.median(every.confidence))
    strict = Predictor(model, imgsz=64, conf=threshold)(picture)[0]
    assert 0 < len(strict) < len(every) and strict.confidence.min() > threshold
    dogs = Predictor(model, imgsz=64, conf=0.0, classes=[1])(picture)[0]
    assert set(dogs.class_id.tolist()) == {1}
    dense = Predictor(model, imgsz=64, conf=0.0, nms=True, iou=0.5)(picture)[0]
    assert len(dense) > 0 and model.end2end
    assert Predictor(model, imgsz=70).imgsz == 96  # rounded up to the stride
    assert set(every.speed) == {"preprocess", "inference", "postprocess"}


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), None])
def test_grey_images(model, shape):
    image = np.zeros(shape, np.uint8) if shape else Image.new("L", (60, 40))
    assert Predictor(model, imgsz=64)(image)[0].orig_img.shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("no/such.jpg", FileNotFoundError, "no file or folder no/such.jpg"),
        ("nowhere/*.jpg", FileNotFoundError, "finds no image"),
        ("ftp://example.org/a.jpg", ValueError, "addresses of ftp:// are not read; those of http, https, rtsp"),
        (np.zeros((3, 40, 60), np.uint8), ValueError, r"transpose\(1, 2, 0\)"),
        (np.zeros((40, 60, 4), np.uint8), ValueError, r"shape \(40, 60, 4\)"),
        (np.zeros((0, 60, 3), np.uint8), ValueError, "shape"),
        (np.zeros((40, 60, 3), np.float32), ValueError, "float32: give uint8"),
        (np.zeros((2, 40, 60, 3), np.uint8), ValueError, r"list\(array\)"),
        ([], ValueError, "empty"),
        (7.5, ValueError, "is a float"),
        ([np.zeros((4, 4, 3), np.uint8), None], ValueError, "item 1 of the list is a NoneType"),
    ],
)
def test_mistakes_are_told(source, error, words):
    with pytest.raises(error, match=words):
        open_source(source)


def test_files_that_are_no_images(model, tmp_path):
    with pytest.raises(ValueError, match="no image or video in the folder"):
        Predictor(model, imgsz=64)(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"this is text")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        Predictor(model, imgsz=64)(tmp_path / "broken.jpg")
    with pytest.raises(ValueError, match="at least 1"):
        Predictor(model, batch=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_broken_files_of_a_folder_are_left_out_counted_and_named(model, folder, caplog, batch):
    (folder / "aa.png").write_bytes(b"")
    (folder / "sub/z.jpg").write_bytes((folder / "a.png").read_bytes()[:40])
    predict = Predictor(model, imgsz=64, batch=batch)
    names = [str(folder / name) for name in ("a.png", "b.png", "sub/c.png")]
    assert [result.path for result in predict(folder)] == names
    said = caplog.text
    assert str(folder / "aa.png") in said and str(folder / "sub/z.jpg") in said
    assert "2 of 5 files were left out" in said
    assert [result.path for result in predict(str(folder / "*.png"))] == names[:2]
    assert [result.path for result in predict([folder, names[0]])] == [*names, names[0]]


def test_files_that_were_named_one_by_one_are_not_left_out(model, folder):
    (folder / "aa.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"aa\.png: not an image: the file is empty"):
        Predictor(model, imgsz=64)([folder / "a.png", folder / "aa.png"])


def test_a_folder_of_broken_files_only(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 files can be read, for example .*a\.png: not an image"):
        Predictor(model, imgsz=64)(tmp_path)


def test_the_white_of_the_training_is_that_of_later_images(model, tmp_path):
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((40, 60), 800, np.uint16))
    known, unknown = (Predictor(model, imgsz=64, white=white)(tmp_path) for white in (White(4095.0), None))
    assert (known[0].orig_img.max(), unknown[0].orig_img.max()) == (800 // 16, 800 // 4)
