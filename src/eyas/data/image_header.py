"""What can be known of an image without decoding it: size, orientation, and whether the file is whole."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from eyas.data.depth import BYTE, REAL, WHOLE, WIDE
from eyas.data.files import FileStat, read_start_and_sample
from eyas.data.image_file import open_image_file, sample_image_file
from eyas.data.remote.address import is_remote
from eyas.data.remote.service import RemoteError
from eyas.data.report import kept_kind, lost_kind
from eyas.files import what_is_there

MISSING_IMAGE = lost_kind("missing image")
NOT_AN_IMAGE = lost_kind("not an image")
UNSUPPORTED = lost_kind("unsupported image format")
TRUNCATED = lost_kind("truncated image")
TOO_SMALL = lost_kind("image too small")
TOO_LARGE = lost_kind("image too large")
SEVERAL = kept_kind("several pictures in one file")
NO_END_MARKER = kept_kind("JPEG without end marker")

MIN_SIDE = 10  # px, spec E.3
FORMATS = frozenset((
    "AVIF", "BMP", "DIB", "DNG", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP",
))  # fmt: skip
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _SAMPLE_FORMAT, _FLOATS = 258, 339, 3  # TIFF tags, and what the second says of floats
_ORIENTATION = 274  # EXIF tag
_JPEG_END = b"\xff\xd9"
_START = 16_384  # bytes of a file in which a plain JPEG has its header, colour profile included
_END = 4096  # bytes in which a picture that is whole has its end
_FRAMES = frozenset(b"\xc0\xc1\xc2")  # markers before width and height: baseline, extended, progressive
# Tables, restarts, comments, and applications' own data: marker -> fewest bytes that Pillow can read.
_SKIPPED = {0xC4: 0, 0xDD: 0, 0xFE: 0, 0xE0: 14, 0xE1: 0, 0xE2: 14, 0xEE: 12}
_QUANTISATION, _SCAN = 0xDB, 0xDA


class ImageHeader(NamedTuple):
    """height and width in px as a viewer shows the image, i.e. after its EXIF orientation (1..8, 1 = upright); depth
    of its values, see `eyas.data.depth`."""

    height: int
    width: int
    orientation: int
    depth: int = BYTE


class ImageProblem(NamedTuple):
    """Why an image is dropped (or, for `NO_END_MARKER` and `SEVERAL`, only noted)."""

    kind: str
    message: str


def read_header(path: str) -> tuple[ImageHeader | None, ImageProblem | None]:
    """Header of an image file, or None and why it is unusable. Never raises for any file content.

    Raises:
        RemoteError: the file lies elsewhere, and does not come.
    """
    plain, _ = _look_once(path)
    return (plain, None) if plain is not None else _read_by_pillow(path)


def look_at(path: str, stat: FileStat) -> tuple[ImageHeader | None, ImageProblem | None, bytes]:
    """What `read_header` returns, and what tells the file from others (`sample_image_file`), by opening it once.

    Args:
        path: of the image.
        stat: what the file is from outside.

    Raises:
        OSError: the file went just now.
        RemoteError: as `read_header`.
    """
    plain, sample = _look_once(path)
    if plain is not None:
        return plain, None, sample
    header, trouble = _read_by_pillow(path)
    if header is None:
        return None, trouble, b""
    return header, trouble, sample or sample_image_file(path, stat)


def _look_once(path: str) -> tuple[ImageHeader | None, bytes]:
    """Header of a plain JPEG, or None, and the sample of a file, by opening it once; none of both where that fails."""
    if is_remote(path):
        return None, b""
    try:
        start, sample = read_start_and_sample(path, _START)
    except OSError:  # Pillow's way tells it in words
        return None, b""
    return _plain_jpeg(start, sample[-_END:]), sample


def _read_by_pillow(path: str) -> tuple[ImageHeader | None, ImageProblem | None]:
    try:
        with open_image_file(path) as file, Image.open(file) as image:
            return _check(file, image)
    except RemoteError:
        raise
    except UnidentifiedImageError:
        return None, _unknown(path)
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return None, ImageProblem(TOO_LARGE, f"more than {most:,} px; scale it down, or cut it into tiles")
    except FileNotFoundError:
        return None, ImageProblem(MISSING_IMAGE, what_is_there(path) if os.path.lexists(path) else "no such file")
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        MemoryError,
        OverflowError,
        struct.error,
    ) as error:
        # What Pillow's readers raise for broken headers, some of which tell of gigabytes; see test_index.py.
        return None, ImageProblem(NOT_AN_IMAGE, f"{type(error).__name__}: {error}")


def why_no_file(path: str) -> ImageProblem:
    """Say what stands where an image should that is no file."""
    if not os.path.lexists(path):
        hint = "; written with backslashes, as on Windows" if "\\" in path else ""
        return ImageProblem(MISSING_IMAGE, f"listed but not there{hint}")
    return ImageProblem(NOT_AN_IMAGE if os.path.exists(path) else MISSING_IMAGE, what_is_there(path))


def _plain_jpeg(start: bytes, end: bytes) -> ImageHeader | None:
    """Header of a JPEG with nothing unusual about it, as nearly all are; None leaves the file to Pillow.

    Pillow finds the same in 100 us, this takes 10: with a million images, that is a minute and a half.
    """
    size = _plain_size(start)
    if size is None or min(size) < MIN_SIDE or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 0):
        return None
    return ImageHeader(*size, orientation=1) if _JPEG_END in end else None


def _plain_size(start: bytes) -> tuple[int, int] | None:
    """(height, width) that the header of a plain JPEG tells."""
    if not start.startswith(b"\xff\xd8\xff"):
        return None
    size, at, marker = None, 2, 0
    while marker != _SCAN:
        if at + 4 > len(start) or start[at] != 0xFF:
            return None
        marker, after = start[at + 1], at + 2 + (start[at + 2] << 8 | start[at + 3])
        segment = start[at + 4 : after]
        if len(segment) != after - at - 4 or not _is_usual(marker, segment) or (marker in _FRAMES and size):
            return None
        if marker in _FRAMES:
            size = segment[1] << 8 | segment[2], segment[3] << 8 | segment[4]
        at = after
    return size


def _is_usual(marker: int, segment: bytes) -> bool:
    """Whether a part of a JPEG's header is as in nearly all: one or three channels of 8 bits, not turned."""
    least = _SKIPPED.get(marker)
    if least is not None:
        return len(segment) >= least and not segment.startswith((b"Exif", b"MPF"))
    if marker == _QUANTISATION:  # tables of 64 bytes, each with its number before it
        return len(segment) % 65 == 0 and max(segment[::65], default=0) < 16
    if marker in _FRAMES:
        return len(segment) >= 6 and segment[0] == 8 and segment[5] in (1, 3) and len(segment) == 6 + 3 * segment[5]
    return marker == _SCAN and len(segment) in (6, 8, 10)  # of one to three channels


def _check(file: BinaryIO, image: Image.Image) -> tuple[ImageHeader | None, ImageProblem | None]:
    if image.format not in FORMATS:
        return None, ImageProblem(UNSUPPORTED, f"the file holds {image.format} data; convert it to JPEG or PNG")
    orientation = _orientation(image)
    width, height = image.size if orientation < 5 else image.size[::-1]
    if min(width, height) < MIN_SIDE:
        return None, ImageProblem(TOO_SMALL, f"{width} x {height} px; both sides must be at least {MIN_SIDE}")
    problem = None
    if image.format in ("JPEG", "MPO"):
        problem = _check_jpeg_end(file)
    elif image.format == "PNG" and b"IEND" not in _tail(file, _END):
        problem = ImageProblem(TRUNCATED, "the PNG has no end; copy or save it again")
    elif image.format != "JPEG2000" and getattr(image, "is_animated", False):
        problem = ImageProblem(SEVERAL, "the first one is used")
    if problem and problem.kind == TRUNCATED:
        return None, problem
    return ImageHeader(height, width, orientation, _depth(file, image)), problem


def _depth(file: BinaryIO, image: Image.Image) -> int:
    """Depth of the values, which Pillow's mode tells of images of one channel only."""
    if image.mode == "F":
        return REAL
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of TIFF files only
        floats, bits = _FLOATS in _numbers(tags.get(_SAMPLE_FORMAT, 1)), max(_numbers(tags.get(_BITS, 1)))
        return REAL if floats else BYTE if bits <= 8 else WHOLE if bits <= 16 else WIDE
    if image.mode.startswith("I"):
        return WHOLE
    if image.format != "PNG":
        return BYTE
    file.seek(24)
    return WHOLE if file.read(1) == b"\x10" else BYTE


def _numbers(tag: int | tuple[int, ...]) -> tuple[int, ...]:
    return tag if isinstance(tag, tuple) else (tag,)


def _orientation(image: Image.Image) -> int:
    # TIFF readers turn the picture themselves, and Pillow reports the turned size. The other test: Pillow decodes the
    # whole picture when asked for the EXIF data of a PNG that has none in its header.
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        return 1  # damaged EXIF data do not make the picture unusable
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tail(file: BinaryIO, count: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - count))
    return file.read()


def _unknown(path: str) -> ImageProblem:
    with open_image_file(path) as file:
        start = file.read(12)
    if start.startswith(_TIFF_STARTS):
        return ImageProblem(UNSUPPORTED, "a TIFF of values or channels that no reader here knows; save it as 8 bits")
    return ImageProblem(NOT_AN_IMAGE, f"the file starts with {start!r}" if start else "the file is empty")


def _check_jpeg_end(file: BinaryIO) -> ImageProblem | None:
    """Only a file whose end looks wrong is decoded."""
    if _JPEG_END in _tail(file, _END):
        return None
    import cv2

    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    if cv2.imdecode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None and _JPEG_END in data.tobytes():
        return None  # something long follows the picture, e.g. the film of a motion photo
    image = cv2.imdecode(close_jpeg(data), cv2.IMREAD_GRAYSCALE)
    # Where data are missing the decoder repeats one value; a real picture's last rows hold at least noise.
    if image is None or np.ptp(image[-8:, image.shape[1] // 2 :]) == 0:
        return ImageProblem(TRUNCATED, "the JPEG breaks off; copy or save it again")
    return ImageProblem(NO_END_MARKER, "kept; the picture itself is complete")


def close_jpeg(data: np.ndarray) -> np.ndarray:
    """The bytes (n,) uint8 with an end marker appended, in memory only."""
    return np.append(data, np.frombuffer(_JPEG_END, np.uint8))
