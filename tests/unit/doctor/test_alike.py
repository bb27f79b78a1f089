"""Images that show the same: found whatever was done to them, and no others, and as a comparison of all finds them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sick_data as sick
from eyas.doctor.alike import EQUAL, MIRRORED, NEAR_BITS, UPRIGHT, correlation, find_pairs, hash_thumbs, near
from eyas.doctor.pixels import SIDE

COUNT = 40


def thumb(image):
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def as_jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "JPEG": (lambda image: as_jpeg(image, 30), UPRIGHT),
    "half": (lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), UPRIGHT),
    "quarter": (lambda image: cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), UPRIGHT),
    "enlarged": (lambda image: cv2.resize(image, None, fx=1.5, fy=1.5), UPRIGHT),
    "brighter": (lambda image: cv2.convertScaleAbs(image, beta=25), UPRIGHT),
    "darker": (lambda image: cv2.convertScaleAbs(image, alpha=0.6), UPRIGHT),
    "grey": (lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), UPRIGHT),
    "mirrored": (lambda image: image[:, ::-1].copy(), MIRRORED),
    "mirrored JPEG": (lambda image: as_jpeg(image[:, ::-1].copy(), 40), MIRRORED),
}


@pytest.fixture(scope="module")
def digits(digits_tiny):
    """Scenes of the embedded data: small pictures that look alike, often crops of one photograph."""
    files = sorted((digits_tiny.parent / "images" / "train").iterdir())[:COUNT]
    return [cv2.imread(str(file)) for file in files]


def pairs_of(thumbs, digests=None, part=None):
    thumbs = np.stack(thumbs)
    digests = np.arange(1, len(thumbs) + 1, dtype=np.uint64) if digests is None else np.array(digests, np.uint64)
    part = np.zeros(len(thumbs), np.int64) if part is None else np.array(part)
    return find_pairs(thumbs, digests, thumbs.reshape(len(thumbs), -1).std(axis=1), part)


def test_different_images_are_not_alike(digits):
    assert pairs_of(list(map(thumb, digits))) == []
    assert pairs_of([thumb(sick.picture(seed)) for seed in range(COUNT)]) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_alike_to_its_original_alone(digits, change):
    changed, how = CHANGES[change]
    thumbs = [thumb(image) for image in digits] + [thumb(changed(image)) for image in digits]
    assert pairs_of(thumbs) == [(i, COUNT + i, how) for i in range(COUNT)]


def test_one_partner_of_each_part_is_named(digits):
    one, other = thumb(digits[0]), thumb(digits[1])
    found = pairs_of([one, one, one, other, one], part=[0, 0, 1, 1, 2])
    partners = {(b, [0, 0, 1, 1, 2][a]) for a, b, _ in found}
    assert partners == {(1, 0), (2, 0), (4, 0), (4, 1)} and all(a < b for a, b, _ in found)


def test_equal_files_are_equal_whatever_they_show(digits):
    plain = np.full((SIDE, SIDE), 90, np.uint8)
    assert pairs_of([plain, plain, thumb(digits[0])], digests=[5, 5, 6]) == [(0, 1, EQUAL)]
    assert pairs_of([plain, plain], digests=[5, 6]) == []  # nothing to tell them apart by, or together
    assert pairs_of([plain, plain], digests=[0, 0]) == []  # files that could not be read


def test_the_hash_does_not_change_with_brightness_and_contrast(digits):
    thumbs = np.stack([thumb(image) for image in digits])
    # Values of exact halves, so that nothing is rounded.
    np.testing.assert_array_equal(hash_thumbs(thumbs // 4 * 2 + 20), hash_thumbs(thumbs // 4))
    assert len(np.unique(hash_thumbs(thumbs))) == COUNT


def test_correlation_is_that_of_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, SIDE, SIDE), dtype=np.uint8)
    b[1], b[2] = a[1], 255 - a[2]
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(correlation(a, b), expected, atol=1e-5)
    assert correlation(np.zeros_like(a), b).tolist() == [0] * 5


# Few values for each byte, so that there are near ones; whole bytes and single bits differ.
HASHES = st.lists(
    st.tuples(st.sampled_from([0, 0x0123456789ABCDEF, 2**64 - 1]), st.sets(st.integers(0, 63), max_size=9))
)


@settings(deadline=None, max_examples=30)
@given(HASHES, HASHES, st.integers(0, NEAR_BITS))
def test_near_finds_what_comparing_all_finds_once_each(first, second, bits):
    queries, keys = (
        np.array([base ^ sum(1 << b for b in flips) for base, flips in v], np.uint64) for v in (first, second)
    )
    found = [pair for i, j in near(queries, keys, bits) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    expected = [
        (i, j)
        for i, query in enumerate(queries.tolist())
        for j, key in enumerate(keys.tolist())
        if (query ^ key).bit_count() <= bits
    ]
    assert sorted(found) == expected


def test_near_works_in_blocks(monkeypatch):
    from eyas.doctor import alike

    hashes = np.repeat(np.arange(3, dtype=np.uint64) << np.uint64(60), 5)
    whole = sorted(np.concatenate([np.stack(pair, 1) for pair in near(hashes, hashes)]).tolist())
    monkeypatch.setattr(alike, "_BLOCK", 4)
    assert sorted(np.concatenate([np.stack(pair, 1) for pair in near(hashes, hashes)]).tolist()) == whole
