"""Headers of plain JPEGs are read without Pillow, and say what Pillow says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eyas.data import image_header
from eyas.data.files import FileStat, sample_of
from eyas.data.image_header import ImageHeader, look_at, read_header


def jpeg(width: int = 41, height: int = 32, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels[..., :3]).convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG", **options)  # type: ignore[arg-type]
    return out.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return jpeg(exif=exif)


def by_pillow(path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(image_header, "_plain_jpeg", lambda start, end: None)
        return read_header(str(path))


def of_16_bit_tables() -> bytes:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xdb") + 4] |= 0x10
    return bytes(data)


PLAIN: dict[str, Callable[[], bytes]] = {
    "colour": jpeg,
    "grey": lambda: jpeg(mode="L"),
    "progressive": lambda: jpeg(progressive=True),
    "with a profile": lambda: jpeg(icc_profile=bytes(3000)),
    "with a comment": lambda: jpeg(comment=b"a comment"),
    "large": lambda: jpeg(3000, 2000),
}
OTHERS: dict[str, Callable[[], bytes]] = {
    "turned": turned,
    "four channels": lambda: jpeg(mode="CMYK"),
    "a long profile": lambda: jpeg(icc_profile=bytes(90_000)),
    "tables of 16 bits": of_16_bit_tables,
    "no end": lambda: jpeg()[:-2],
    "cut": lambda: jpeg(300, 300)[:2000],
    "tiny": lambda: jpeg(5, 5),
    "empty": lambda: b"",
    "start only": lambda: b"\xff\xd8\xff",
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_it_says_what_pillow_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "image.jpg"
    file.write_bytes((PLAIN | OTHERS)[name]())
    said = read_header(str(file))
    assert said == by_pillow(file, monkeypatch)
    size = FileStat(file.stat().st_size, 0)
    assert look_at(str(file), size) == (*said, sample_of(str(file)) if said[0] else b"")
    data = file.read_bytes()
    assert (image_header._plain_jpeg(data[:16_384], data[-4096:]) is not None) == (name in PLAIN)


def test_plain_ones_never_reach_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object) -> object:
        raise AssertionError("opened by Pillow")

    file = tmp_path / "image.jpg"
    file.write_bytes(jpeg(40, 30))
    monkeypatch.setattr(Image, "open", refuse)
    assert read_header(str(file)) == (ImageHeader(30, 40, 1), None)


WHOLE = [make() for make in (*PLAIN.values(), turned)][:-2]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_header_is_judged_as_pillow_does(
    data: bytes, changes: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = bytearray(data)
    for place, value in changes:
        broken[place % len(broken)] = value
    file = tmp_path / "image.jpg"
    file.write_bytes(broken)
    assert read_header(str(file)) == by_pillow(file, monkeypatch)
