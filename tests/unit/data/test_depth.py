"""Images of more than 8 bits: what is white in a data set, and that every reader sees the same picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyas.data import image_header as ih
from eyas.data.decode import read_image
from eyas.data.depth import BYTE, REAL, WHOLE, WIDE, White, find_white, peak_of, to_bytes, white_above
from eyas.data.index import NO_PICTURE, ImageIndex, build_index
from eyas.data.store import ImageStore


def scene(white: float) -> np.ndarray:
    """(40, 60) values of a gradient with a bright square, from 0 to 0.9 of white."""
    image = np.linspace(0.2, 0.5, 60)[None].repeat(40, 0)
    image[10:30, 20:40] = 0.9
    return image * white


def same_as_8_bits(image: np.ndarray, tolerance: float = 1.0) -> None:
    assert image.dtype == np.uint8 and image.shape == (40, 60, 3)
    assert np.abs(image.astype(float) - scene(255)[..., None]).max() <= tolerance


def index_of(folder: Path, **options) -> ImageIndex:
    return build_index([folder / "images"], names={0: "a"}, split="val", cache_dir=folder / "cache", **options)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_bits_in_files_of_16(tmp_path: Path, bits: int, suffix: str) -> None:
    if suffix == "pgm" and bits == 8:
        pytest.skip("a file of 8 bits")
    (tmp_path / "images").mkdir()
    values = scene(2**bits - 1).astype(np.uint16)
    if suffix == "pgm":  # it says what is white
        head = f"P5 60 40 {2**bits - 1}\n".encode()
        (tmp_path / "images/x.pgm").write_bytes(head + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"images/x.{suffix}")
    index = index_of(tmp_path)
    same_as_8_bits(ImageStore(index, imgsz=60).load(0))
    same_as_8_bits(read_image(index.path(0)))


@pytest.mark.parametrize("white", [1.0, 255.0, 4095.0, 65535.0, 2.2])
def test_floats(tmp_path: Path, white: float) -> None:
    (tmp_path / "images").mkdir()
    image = scene(white).astype(np.float32)
    if white == 2.2:  # of no number of bits: its own largest value is white
        image[0, 0] = white
    Image.fromarray(image).save(tmp_path / "images/x.tif")
    index = index_of(tmp_path)
    assert index.white == White(None, pytest.approx(white))
    loaded = ImageStore(index, imgsz=60).load(0)
    np.testing.assert_array_equal(read_image(index.path(0)), loaded)
    same_as_8_bits(np.where(np.arange(60 * 40).reshape(40, 60, 1) > 0, loaded, read_image(index.path(0))[0, 1]), 2.0)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_colours_of_16_bits_with_and_without_transparency(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "images").mkdir()
    blue, rest = scene(4095).astype(np.uint16), np.zeros((40, 60), np.uint16)
    cv2.imwrite(str(tmp_path / f"images/a.{suffix}"), np.dstack([blue, rest, rest]))
    cv2.imwrite(str(tmp_path / f"images/b.{suffix}"), np.dstack([blue, rest, rest, rest + 4095]))
    index = index_of(tmp_path)
    assert index.white == White(4095, None)
    for i in range(2):
        image = ImageStore(index, imgsz=60).load(i)
        assert np.abs(image[..., 0] - scene(255)).max() <= 1 and not image[..., 1:].any()


def test_a_data_set_has_one_white_and_keeps_dark_images_dark(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, white in (("dark", 400), ("light", 4095)):
        Image.fromarray(scene(white).astype(np.uint16)).save(tmp_path / f"images/{name}.png")
    index = index_of(tmp_path)
    assert index.white == White(4095, None)
    assert ImageStore(index, imgsz=60).load(0).max() == 400 * 0.9 // 16
    assert ["12-bit" in note or "4095 is white" in note for note in index.report.notes] == [True]
    assert ["nearly black" in doubt and "value_range: 1023" in doubt for doubt in index.report.doubts] == [True]
    assert index.report.to_dict()["choices"]["white"] == {"whole": 4095}
    given = index_of(tmp_path, white=White.everywhere(1023))
    assert ImageStore(given, imgsz=60).load(0).max() == 360 // 4
    assert ["go beyond white" in doubt for doubt in given.report.doubts] == [True]


def test_wider_integers_do_not_darken_images_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/colour.png"), np.dstack([scene(65535).astype(np.uint16)] * 3))
    Image.fromarray(scene(254000).astype(np.int32)).save(tmp_path / "images/counts.tif")
    Image.fromarray(scene(1.0).astype(np.float32)).save(tmp_path / "images/shares.tif")
    index = index_of(tmp_path)
    assert index.white == White(65535, 1.0, 262143) == White.from_dict(index.white.to_dict())
    store = ImageStore(index, imgsz=60)
    colour, counts, shares = (store.load(i) for i in range(3))
    same_as_8_bits(colour)
    same_as_8_bits(shares)
    assert counts.max() == int(254000 * 0.9) // 1024
    said = [f"{kind}, with values up to" for kind in ("of 9 to 16 bits", "of floats", "of more than 16 bits")]
    assert [part in note for part, note in zip(said, index.report.notes, strict=True)] == [True] * 3
    assert not index.report.doubts


def test_pixels_that_are_kept_belong_to_one_white(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(scene(4095).astype(np.uint16)).save(tmp_path / "images/x.png")
    brightest = []
    for white in (White(4095), White(65535), White(4095)):
        store = ImageStore(index_of(tmp_path, white=white), imgsz=60, cache="disk", cache_dir=tmp_path / "cache")
        brightest.append(store.load(0).max())
    assert brightest[0] == brightest[2] == 230 and brightest[1] == 14


def test_values_that_are_no_picture_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("below", -500.0), ("rounding", -1e-4)):
        image = scene(1.0).astype(np.float32)
        image[0, 0] = value
        Image.fromarray(image).save(tmp_path / f"images/{name}.tif")
    index = index_of(tmp_path)
    assert [Path(index.path(i)).stem for i in range(len(index))] == ["rounding"]
    assert index.report.left_out == {NO_PICTURE: 3}
    with pytest.raises(ValueError, match=r"below\.tif: values from -500 to"):
        read_image(tmp_path / "images/below.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bits(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(scene(65535).astype(np.uint16)).save(tmp_path / "x.png", exif=exif)
    Image.fromarray(scene(255).astype(np.uint8)).save(tmp_path / "y.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "x.png"), read_image(tmp_path / "y.png"), atol=1)


def test_ordinary_images_are_of_bytes(tmp_path: Path) -> None:
    grey = scene(255).astype(np.uint8)
    for mode, suffix in (("L", "png"), ("RGB", "jpg"), ("P", "gif"), ("CMYK", "tif"), ("1", "png"), ("RGBA", "webp")):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"x.{suffix}")
        header, problem = ih.read_header(str(tmp_path / f"x.{suffix}"))
        assert (problem, header and header.depth) == (None, BYTE)
        assert read_image(tmp_path / f"x.{suffix}").shape == (40, 60, 3)


def test_of_several_pictures_the_first_is_used_and_that_is_said(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((40, 60), value, np.uint8)) for value in (200, 20))
    for suffix in ("gif", "tif"):
        first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
        header, problem = ih.read_header(str(tmp_path / f"x.{suffix}"))
        assert header is not None and problem is not None and problem.kind == ih.SEVERAL
        assert read_image(tmp_path / f"x.{suffix}").mean() == 200


positive = st.floats(0, 1e9, allow_nan=False)


@given(peak=positive, depth=st.sampled_from([WHOLE, REAL, WIDE]))
@settings(max_examples=200, deadline=None)
def test_white_lies_above_the_peak_and_not_far(peak: float, depth: int) -> None:
    peak = peak if depth == REAL else float(int(peak))
    white = white_above(peak, depth)
    assert peak <= white * 1.01
    if (peak > 255 and depth != REAL) or (peak > 1.01 and depth == REAL):
        assert white <= 4 * peak + 3, "nothing becomes nearly black"
    assert white_above(white, depth) == white


@given(st.lists(st.tuples(st.sampled_from([BYTE, WHOLE, REAL, WIDE]), positive), max_size=8))
@settings(max_examples=100, deadline=None)
def test_the_white_of_a_set_is_that_of_its_brightest(images: list[tuple[int, float]]) -> None:
    depths = np.array([depth for depth, _ in images], np.uint8)
    peaks = np.array([peak for _, peak in images])
    white = find_white(depths, peaks)
    for depth in (WHOLE, REAL, WIDE):
        own = [white_above(peak, depth) for kind, peak in images if kind == depth]
        assert white.of(depth) == (white_above(max(p for k, p in images if k == depth), depth) if own else None)
    assert white.of(BYTE) is None
    assert White.from_dict(white.to_dict()) == white


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.sampled_from([255, 1023, 4095, 16383, 65535]))
@settings(max_examples=100, deadline=None)
def test_of_n_bits_the_highest_8_stay(values: list[int], white: int) -> None:
    image = np.array([values], np.uint16)
    shift = (white + 1).bit_length() - 9
    np.testing.assert_array_equal(to_bytes(image, white), np.minimum(image >> shift, 255))


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
@settings(max_examples=100, deadline=None)
def test_any_values_have_a_peak_or_a_reason(values: list[float]) -> None:
    peak = peak_of(np.array([values], np.float32))
    if isinstance(peak, str):
        assert not np.isfinite(values).all() or min(values) < 0
    else:
        assert peak == max(*values, 0.0)
        assert to_bytes(np.array([values], np.float32), white_above(peak, REAL)).dtype == np.uint8
