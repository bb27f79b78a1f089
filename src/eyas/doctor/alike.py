"""Images that are the same, or nearly: found by a perceptual hash, confirmed by their pixels.

The hash of an image says on which side of 64 random planes its 32 x 32 grey pixels lie (M. Charikar, "Similarity
estimation techniques from rounding algorithms", 2002): of two images whose pixels correlate by r, each bit differs with
probability arccos(r) / pi, whatever is shown. Candidates differ in at most `NEAR_BITS` = 7 bits: nearly all pairs of
r = 0.99, seven of eight of r = 0.97, none of r = 0.6. One of the 8 bytes of their hashes is then equal, so that only
images with an equal byte are compared, in NumPy: for 100,000 images that are no more alike than chance, 8 x 100,000 x
390 pairs of 64-bit numbers instead of 100,000 x 100,000, and again for mirrored images. That takes 3.5 seconds each on
one core. A candidate is confirmed if its pixels do correlate by `ALIKE`.

Measured on 192 scenes of the embedded digits and 31 images of BCCD: every copy as a JPEG of quality 30 or 75, at a
quarter, half or 1.5 times its size, 40 grey levels brighter, at 60 % of its brightness, grey, with noise, or mirrored
is found (they correlate by 0.990 to 1), 96 % of those at half size and quality 40, three of four that were cut by 2 %,
and none cut by 5 %. No two different images were taken for one: among 1,500 scenes, of which many are crops of one
photograph, the two most alike correlate by 0.952, or 0.964 mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eyas.doctor.pixels import SIDE

NEAR_BITS = 7
ALIKE = 0.97  # correlation of 32 x 32 grey pixels
FLAT = 3.0  # grey levels of contrast below which an image is too empty to be told apart by what it shows
_PLANES = 64
_BLOCK = 1 << 22  # comparisons at a time, 32 MB
_ROWS = 4096  # images, or pairs of them, at a time

EQUAL, UPRIGHT, MIRRORED = 1, 2, 3
"""How two images are alike: their files are equal, they show the same, or one shows the other mirrored."""


class Pair(NamedTuple):
    """Two images that show the same, a < b, and how: `EQUAL`, `UPRIGHT` or `MIRRORED`."""

    a: int
    b: int
    how: int


def hash_thumbs(thumbs: np.ndarray) -> np.ndarray:
    """(N,) uint64 hashes of (N, S, S) uint8 grey images; brightness and contrast do not change them."""
    planes = np.random.default_rng(0).normal(size=(SIDE * SIDE, _PLANES))
    planes = (planes - planes.mean(axis=0)).astype(np.float32)  # so that the mean grey value has no say
    hashes = np.zeros(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), _ROWS):
        some = thumbs[start : start + _ROWS]
        values = some.reshape(len(some), SIDE * SIDE).astype(np.float32)
        sides = (values - values.mean(axis=1, keepdims=True)) @ planes > 0
        hashes[start : start + _ROWS] = np.packbits(sides, axis=1).view(np.uint64)[:, 0]
    return hashes


def near(queries: np.ndarray, keys: np.ndarray, bits: int = NEAR_BITS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all (i, j), each once, of which ``queries[i]`` and ``keys[j]`` (uint64) differ in at most ``bits`` <= 7."""
    assert bits < 8, "with more, the 8 bytes of two hashes may all differ"
    query_bytes, key_bytes = (values.view(np.uint8).reshape(-1, 8) for values in (queries, keys))
    for byte in range(8):
        key_groups = _grouped(key_bytes[:, byte])
        for value, rows in enumerate(_grouped(query_bytes[:, byte])):
            columns = key_groups[value]
            step = max(_BLOCK // max(len(columns), 1), 1)
            for start in range(0, len(rows) if len(columns) else 0, step):
                some = rows[start : start + step]
                differ = queries[some, None] ^ keys[None, columns]
                i, j = np.nonzero(np.bitwise_count(differ) <= bits)
                first = _first_equal_byte(differ[i, j]) == byte
                yield some[i[first]], columns[j[first]]


def _grouped(values: np.ndarray) -> list[np.ndarray]:
    """Places of each value 0..255 of (N,) uint8."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, 256)))


def _first_equal_byte(differ: np.ndarray) -> np.ndarray:
    """(n,) number of the first byte that is 0 in (n,) uint64."""
    return (differ.view(np.uint8).reshape(-1, 8) == 0).argmax(axis=1)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) correlation, in [-1, 1], of the pixels of n pairs of images (n, S, S) uint8; 0 where one is a plain area."""
    x, y = (images.reshape(len(images), SIDE * SIDE).astype(np.float32) for images in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.zeros_like(size), where=size > 0)


def find_pairs(thumbs: np.ndarray, digests: np.ndarray, contrast: np.ndarray, part: np.ndarray) -> list[Pair]:
    """Return, for every image and every part of the data, one earlier image of that part that shows the same.

    Args:
        thumbs: (N, S, S) uint8 grey.
        digests: (N,) uint64 hash of each file; 0 for one that is not known.
        contrast: (N,) grey levels; below `FLAT`, only files that are equal count.
        part: (N,) part that each image belongs to, from 0.
    """
    found = _Found(part)
    _pair_equal(digests, found)
    seen = np.flatnonzero(contrast >= FLAT)
    flipped = thumbs[:, :, ::-1]
    hashes = hash_thumbs(thumbs[seen])
    for how, pictures, queries in (
        (UPRIGHT, thumbs, hashes),
        (MIRRORED, flipped, hash_thumbs(flipped[seen])),
    ):
        for i, j in near(queries, hashes):
            for start in range(0, len(i), _ROWS):
                a, b = seen[i[start : start + _ROWS]], seen[j[start : start + _ROWS]]
                wanted = (a < b) & found.lacks(a, b)
                a, b = a[wanted], b[wanted]
                alike = correlation(pictures[a], thumbs[b]) >= ALIKE
                found.add(a[alike], b[alike], how)
    return found.pairs()


class _Found:
    """The first partner found of each image in each part of the data."""

    def __init__(self, part: np.ndarray) -> None:
        self.part = part
        self.partner = np.zeros((len(part), int(part.max(initial=0)) + 1), np.int64)
        self.how = np.zeros(self.partner.shape, np.uint8)

    def lacks(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) whether no partner of b is known yet in the part of a."""
        return self.how[b, self.part[a]] == 0

    def add(self, a: np.ndarray, b: np.ndarray, how: int) -> None:
        self.partner[b, self.part[a]] = a
        self.how[b, self.part[a]] = how

    def pairs(self) -> list[Pair]:
        rows, parts = np.nonzero(self.how)
        columns = self.partner[rows, parts], rows, self.how[rows, parts]
        return [Pair(*pair) for pair in zip(*(column.tolist() for column in columns), strict=True)]


def _pair_equal(digests: np.ndarray, found: _Found) -> None:
    """Pair each file with the first equal one of each part that stands before it."""
    order = np.argsort(digests, kind="stable")
    starts = np.flatnonzero(np.diff(digests[order], prepend=~digests[order[:1]]))
    for members in np.split(order, starts[1:]):
        firsts: dict[int, int] = {}
        for image in members.tolist() if len(members) > 1 and digests[members[0]] else ():
            for first in firsts.values():
                found.add(np.array([first]), np.array([image]), EQUAL)
            firsts.setdefault(int(found.part[image]), image)
