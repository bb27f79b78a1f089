"""Decoding, resizing, and the pixel caches that processes share."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from eyas.data import store as store_module
from eyas.data.decode import load_image, read_image, resize, resized_shape
from eyas.data.index import ImageIndex, build_index
from eyas.data.store import ImageStore, PixelCache


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture without fine detail, so that JPEG and scaling change it little."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, shape in enumerate([(60, 90), (90, 60), (64, 64), (33, 100), (16, 20)]):
        cv2.imwrite(str(folder / f"{i}.{'jpg' if i % 2 else 'png'}"), smooth(*shape, i))
    return build_index([folder], names={0: "a"}, split="val", cache_dir=tmp_path / "cache")


def open_store(index: ImageIndex, tmp_path: Path, **options) -> ImageStore:
    return ImageStore(index, **{"imgsz": 64, "cache_dir": tmp_path / "cache", **options})


@pytest.mark.parametrize(
    ("shape", "imgsz", "expected"),
    [
        ((480, 640), 640, (480, 640)),
        ((480, 640), 320, (240, 320)),
        ((333, 500), 640, (427, 640)),  # 426.24 is rounded up
        ((10, 1000), 64, (1, 64)),
        ((16, 20), 64, (52, 64)),  # 51.2; small images grow
    ],
)
def test_long_side_becomes_imgsz_and_the_other_is_rounded_up(shape, imgsz, expected) -> None:
    assert resized_shape(shape, imgsz) == expected
    assert resized_shape(shape[::-1], imgsz) == expected[::-1]
    assert resized_shape(shape, imgsz, stretch=True) == (imgsz, imgsz)


def test_loaded_images_are_bgr_uint8_of_the_predicted_shape(index: ImageIndex, tmp_path: Path) -> None:
    store = open_store(index, tmp_path)
    assert len(store) == 5
    for i, shape in enumerate(store.resized_shapes().tolist()):
        image = store.load(i)
        assert image.dtype == np.uint8
        assert image.shape == (*shape, 3)
        assert tuple(shape) == resized_shape(tuple(index.shapes[i]), 64)
        full = cv2.resize(cv2.imread(index.path(i)), shape[::-1], interpolation=cv2.INTER_LINEAR)
        assert np.abs(image.astype(int) - full).mean() < 3
    assert open_store(index, tmp_path, stretch=True).load(3).shape == (64, 64, 3)


def test_image_of_the_right_size_is_untouched(index: ImageIndex, tmp_path: Path) -> None:
    np.testing.assert_array_equal(open_store(index, tmp_path).load(2), cv2.imread(index.path(2)))


@pytest.mark.parametrize("cache", [False, "ram", "disk"])
def test_images_are_read_only_in_every_mode(index: ImageIndex, tmp_path: Path, cache: bool | str) -> None:
    store = open_store(index, tmp_path, cache=cache)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            store.load(0)[0] = 0


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4, 7.9, 8, 11])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_scaled_decoding_gives_the_same_picture(tmp_path: Path, factor: float, suffix: str) -> None:
    height, width = int(101 * factor), int(160 * factor)
    cv2.imwrite(str(tmp_path / f"x.{suffix}"), smooth(height, width))
    path = str(tmp_path / f"x.{suffix}")
    image = load_image(path, shape=(height, width), imgsz=160)
    reference = cv2.resize(smooth(height, width), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - reference).mean() < 2.5


@pytest.mark.parametrize("long", [130, 256, 600, 1001])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_jpeg_is_decoded_no_smaller_than_its_shorter_side_is_shown(tmp_path: Path, long: int, axis: int) -> None:
    """Stretched to a square, a picture 64 px high or wide keeps stripes of single pixels across that side."""
    stripes = np.repeat(255 * (np.arange(64, dtype=np.uint8)[:, None] % 2), long, axis=1)
    picture = np.repeat((stripes if axis == 0 else stripes.T)[..., None], 3, axis=2)
    path = str(tmp_path / "stripes.jpg")
    cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    image = load_image(path, shape=picture.shape[:2], imgsz=64, stretch=True)
    assert image.shape == (64, 64, 3)
    assert image.std() > 100  # of at most 127.5; stripes that were averaged are grey


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(127, 256, 1), (128, 256, 2), (255, 256, 2), (511, 256, 4), (512, 512, 8)]
)
def test_a_jpeg_is_decoded_as_small_as_it_may_be(
    tmp_path: Path, height: int, width: int, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding dominates the loading of large images: it starts at the smallest size that is large enough."""
    path = str(tmp_path / "x.jpg")
    cv2.imwrite(path, smooth(height, width))
    decoded: list[tuple[int, ...]] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *args, real=cv2.imdecode: decoded.append((i := real(*args)).shape) or i)
    load_image(path, shape=(height, width), imgsz=64, stretch=True)
    assert decoded == [(-(-height // factor), -(-width // factor), 3)]


@pytest.mark.parametrize(("height", "width"), [(2, 8), (8, 2), (4, 4)])
def test_every_pixel_counts_where_an_image_shrinks_to_half(height: int, width: int) -> None:
    """Each pixel that is left is the mean of those it stands for."""
    blocks = np.random.default_rng(0).integers(0, 256, (16, height, 16, width, 3), dtype=np.uint8)
    image = blocks.reshape(16 * height, 16 * width, 3)
    np.testing.assert_allclose(resize(image, (16, 16)), blocks.mean((1, 3)), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("imgsz", [40, 200])
def test_exif_orientation_agrees_with_pillow(tmp_path: Path, orientation: int, suffix: str, imgsz: int) -> None:
    """Also at half size, where JPEG is decoded scaled (odd sides: scaled sizes are rounded up)."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth(81, 121)[..., ::-1]).save(tmp_path / f"x.{suffix}", exif=exif)
    path = str(tmp_path / f"x.{suffix}")
    index = build_index([tmp_path / f"x.{suffix}"], names={0: "a"}, split="val", cache_dir=tmp_path / "cache")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[..., ::-1]
    assert tuple(index.shapes[0]) == expected.shape[:2]
    loaded = ImageStore(index, imgsz=imgsz).load(0)
    expected = cv2.resize(expected, loaded.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(loaded.astype(int) - expected).mean() < 4
    assert read_image(path).shape[:2] == tuple(index.shapes[0])


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    values = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / f"x.{suffix}"), values)
    image = load_image(str(tmp_path / f"x.{suffix}"), shape=(64, 64), imgsz=64)
    np.testing.assert_array_equal(image, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("L", "jpg"), ("P", "png"), ("RGBA", "png"), ("1", "png"), ("CMYK", "jpg")]
)
def test_every_colour_mode_becomes_three_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    Image.fromarray(smooth(48, 64)).convert(mode).save(tmp_path / f"x.{suffix}")
    assert load_image(str(tmp_path / f"x.{suffix}"), shape=(48, 64), imgsz=64).shape == (48, 64, 3)


def test_jpeg_without_end_marker_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    cv2.imwrite(str(path), smooth(48, 64))
    whole = load_image(str(path), shape=(48, 64), imgsz=64)
    path.write_bytes(path.read_bytes()[:-2])
    np.testing.assert_array_equal(load_image(str(path), shape=(48, 64), imgsz=64), whole)


def test_errors_name_the_file(index: ImageIndex, tmp_path: Path) -> None:
    store = open_store(index, tmp_path)
    path = Path(index.path(2))
    cv2.imwrite(str(path), smooth(20, 30))
    with pytest.raises(ValueError, match=r"2\.png: 30 x 20 px, but 64 x 64 when it was indexed"):
        store.load(2)
    path.write_text("rubbish")
    with pytest.raises(ValueError, match=r"2\.png: the image cannot be decoded"):
        store.load(2)
    with pytest.raises(ValueError, match=r"2\.png: not an image"):
        read_image(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"2\.png: the image cannot be read any more \(No such file"):
        store.load(2)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cache_is_filled_by_the_first_load_and_then_needs_no_file(
    index: ImageIndex, tmp_path: Path, cache: str
) -> None:
    plain, store = open_store(index, tmp_path), open_store(index, tmp_path, cache=cache)
    expected = [plain.load(i).copy() for i in range(5)]
    assert store.cache_mode == cache
    assert store.cached == 0
    store.load(1)
    assert store.cached == 1
    store.fill()
    assert store.cached == 5
    for i in range(5):
        Path(index.path(i)).unlink()
        np.testing.assert_array_equal(store.load(i), expected[i])


def test_true_means_ram(index: ImageIndex, tmp_path: Path) -> None:
    assert open_store(index, tmp_path, cache=True).cache_mode == "ram"
    with pytest.raises(ValueError, match="cache='rom' must be"):
        open_store(index, tmp_path, cache="rom")
    with pytest.raises(ValueError, match="imgsz=0"):
        open_store(index, tmp_path, imgsz=0)


def _load_all(store: ImageStore, queue) -> None:
    queue.put([int(store.load(i).sum()) for i in range(len(store))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_one_process_decodes_all_have(index: ImageIndex, tmp_path: Path, cache: str, method: str) -> None:
    store = open_store(index, tmp_path, cache=cache)
    sums = [int(open_store(index, tmp_path).load(i).sum()) for i in range(5)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()

    process = context.Process(target=_load_all, args=(store, queue))
    process.start()
    assert queue.get(timeout=60) == sums
    process.join()
    assert store.cached == 5
    for i in range(5):
        Path(index.path(i)).unlink()
    assert [int(store.load(i).sum()) for i in range(5)] == sums


def test_disk_cache_serves_later_runs_and_no_other_data(index: ImageIndex, tmp_path: Path) -> None:
    open_store(index, tmp_path, cache="disk").fill()
    assert open_store(index, tmp_path, cache="disk").cached == 5
    assert open_store(index, tmp_path, cache="disk", imgsz=32).cached == 0
    assert open_store(index, tmp_path, cache="disk", stretch=True).cached == 0
    cv2.imwrite(index.path(0), smooth(60, 90, seed=9))
    changed = build_index([tmp_path / "images"], names={0: "a"}, split="val", cache_dir=tmp_path / "cache")
    assert open_store(changed, tmp_path, cache="disk").cached == 0
    assert not [file for file in (tmp_path / "images").iterdir() if file.suffix not in (".jpg", ".png")]


def test_stretched_pixels_and_others_are_kept_side_by_side(index: ImageIndex, tmp_path: Path) -> None:
    """Whoever trains with both in turn finds what each decoded."""
    open_store(index, tmp_path, cache="disk").fill()
    open_store(index, tmp_path, cache="disk", stretch=True).fill()
    assert open_store(index, tmp_path, cache="disk").cached == 5
    assert open_store(index, tmp_path, cache="disk", stretch=True).cached == 5


def test_damaged_pixels_on_disk_are_decoded_again(index: ImageIndex, tmp_path: Path) -> None:
    store = open_store(index, tmp_path, cache="disk")
    store.fill()
    expected = store.load(3).copy()
    assert store._pixels is not None
    store._pixels.pixels[store._pixels.offsets[3] + 5] ^= 255
    store._pixels.pixels.base.flush()
    np.testing.assert_array_equal(open_store(index, tmp_path, cache="disk").load(3), expected)


def test_store_is_pickled_without_pixels(index: ImageIndex, tmp_path: Path) -> None:
    store = open_store(index, tmp_path, cache="disk")
    store.fill()
    copy = pickle.loads(pickle.dumps(store))
    assert copy.cached == 5
    assert len(pickle.dumps(store)) < 10_000
    np.testing.assert_array_equal(copy.load(1), store.load(1))


def say(free: int) -> Callable[[], int]:
    return lambda: free


def test_ram_that_is_too_small_falls_back_to_disk_with_the_sizes(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "free_shared_memory", say(10_000))
    store = open_store(index, tmp_path, cache="ram")
    assert store.cache_mode == "disk"
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "cache=ram needs 0.0 MiB but 0.0 MiB of memory are free; using cache=disk."


def test_disk_that_is_too_small_means_no_cache_and_no_failure(
    index: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = store_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    store = open_store(index, tmp_path, cache="disk")
    assert store.cache_mode is False
    assert "caching no images. Set EYAS_CACHE" in caplog.text
    assert store.load(0).shape[1] == 64


def test_free_memory_is_plausible() -> None:
    assert 2**20 < store_module.free_shared_memory() < 2**50


def test_a_cache_on_disk_that_cannot_be_made_is_done_without(
    index: ImageIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").touch()
    store = ImageStore(index, imgsz=32, cache="disk", cache_dir=tmp_path / "no folder")
    assert store.cache_mode is False and "cache=disk cannot be used" in caplog.text
    assert store.load(0).shape[-1] == 3


def test_a_cache_on_disk_has_its_room_from_the_start(tmp_path: Path) -> None:
    """A page of a mapped file for which there is none ends the process by SIGBUS."""
    PixelCache.in_file(tmp_path / "x.pixels", np.full((40, 2), 100))
    info = (tmp_path / "x.pixels").stat()
    assert info.st_blocks * 512 >= info.st_size == 40 * (4 + 30_000)
