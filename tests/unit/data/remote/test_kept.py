"""The bounded cache, the threads that fill it ahead, and several processes at it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from eyas.data.remote import images, service
from eyas.data.remote.address import Room, held
from eyas.data.remote.ahead import Ahead
from eyas.data.remote.kept import Kept
from eyas.data.remote.mirror import Mirror
from eyas.data.remote.service import RemoteError
from eyas.data.sampler import EpochOrder, EvalBatchSampler, TrainBatchSampler, Turn
from far_away import in_memory, serving


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Room for ten files of 96 bytes."""
    kept = Kept(Room(tmp_path, 1000).root)
    kept.set_limit(Room(tmp_path, 1000))
    return kept


def data_of(number: int) -> bytes:
    return bytes([number]) * 96


def used_at(kept: Kept, name: str, second: int) -> None:
    os.utime(kept.file(name), (second, second))


def test_files_used_longest_ago_go_first(kept: Kept) -> None:
    for number in range(10):
        kept.put(f"k{number}", data_of(number))
        used_at(kept, f"k{number}", 1000 + number)
    assert all(kept.file(f"k{n}").exists() for n in range(10)) and held(kept.root) == 1000
    assert kept.get("k0", 96) == data_of(0) and kept.use("k1")
    kept.put("k10", data_of(10))
    assert [n for n in range(11) if not kept.file(f"k{n}").exists()] == [2, 3], "down to nine tenths"
    assert held(kept.root) == 900 == sum(f.stat().st_size for f in kept.folder.rglob("k*") if f.is_file())


def test_a_file_that_is_read_is_read_to_its_end(kept: Kept) -> None:
    kept.put("k1", data_of(1))
    with kept.file("k1").open("rb") as file:
        kept.set_limit(Room(kept.root.parent, 50))
        assert not kept.file("k1").exists() and held(kept.root) == 0
        assert file.read()[:96] == data_of(1)
    assert kept.get("k1", 96) is None and not kept.use("k1")
    kept.put("k2", data_of(2))
    assert not kept.file("k2").exists(), "what is larger than all of the room is not kept"


@pytest.mark.parametrize("harm", ["cut", "other", "longer", "empty"])
def test_damaged_files_are_not_used(harm: str, kept: Kept) -> None:
    kept.put("k", data_of(3))
    data = kept.file("k").read_bytes()
    changed = {"cut": data[:-1], "other": b"x" + data[1:], "longer": data + b"x", "empty": b""}[harm]
    kept.file("k").write_bytes(changed)
    assert kept.get("k", 96) is None and not kept.file("k").exists()


def test_what_was_left_by_killed_processes_goes(kept: Kept) -> None:
    kept.put("k0", data_of(0))
    old, new = (kept.file("k0").with_name(f".{name}.01234567.tmp") for name in "ab")
    for file in (old, new):
        file.write_bytes(b"x" * 5000)
    os.utime(old, (1, 1))
    (kept.root / "held").unlink()
    kept.put("k1", data_of(1))
    assert not old.exists() and new.exists() and held(kept.root) == 200


# -- several at a time -------------------------------------------------------------------------------------------------
@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "far" / "images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        assert cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (20, 20, 3), np.uint8))
    return folder


def paths_of(url: str, room: str) -> list[str]:
    mirror = Mirror(room)
    folder = mirror.path(f"{url}/images")
    assert mirror.folder(folder)
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


def read_all(paths: list[str], pictures: Path) -> None:
    for path in paths:
        assert images.read(path) == (pictures / os.path.basename(path)).read_bytes()


def test_two_processes_fetch_each_image_once(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with serving(pictures.parent) as server:
        paths = paths_of(server.url, f"{tmp_path}/cache:1MB")
        context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
        others = [context.Process(target=read_all, args=(paths[k:] + paths[:k], pictures)) for k in (0, 3)]
        for process in others:
            process.start()
        for process in others:
            process.join()
        assert [process.exitcode for process in others] == [0, 0]
        read_all(paths, pictures)
        got = [server.asked["GET", f"/images/{number}.png"] for number in range(12)]
        assert got == [1] * 12


def test_a_cache_that_is_too_small_gives_the_same_images(pictures: Path, tmp_path: Path) -> None:
    size = max(path.stat().st_size for path in pictures.iterdir())
    paths = paths_of(in_memory(pictures.parent), f"{tmp_path}/cache:{3 * size}")
    errors: list[BaseException] = []

    def read(start: int) -> None:
        try:
            read_all((paths[start:] + paths[:start]) * 3, pictures)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    kept = Kept(Path(tmp_path, "cache", "eyas-remote"))
    assert 0 < sum(file.stat().st_size for file in kept.folder.rglob("*") if file.is_file()) <= 3 * size


# -- ahead -------------------------------------------------------------------------------------------------------------
class Watched(Ahead):
    """Notes what it would fetch, and fetches nothing."""

    def _work(self) -> None:
        while (number := self._next()) is not None:
            FETCHED.append(number)


FETCHED: list[int] = []


def watched(batches: list[list[int]], limit: int) -> Watched:
    FETCHED.clear()
    return Watched(batches, path=str, size=lambda i: 10, wanted=lambda i: True, limit=limit)


def settled(count: int) -> list[int]:
    """What is fetched, once so many are or it is certain that they will not be."""
    for _ in range(200):
        if len(FETCHED) >= count:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.02)
    return sorted(FETCHED)


def test_as_much_lies_ahead_as_half_of_the_cache_holds() -> None:
    batches = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    ahead = watched(batches, limit=80)
    assert settled(4) == [0, 1, 2, 3]
    ahead.batch_over()
    assert settled(6) == [0, 1, 2, 3, 4, 5]
    for _ in range(4):
        ahead.batch_over()
    ahead.stop()
    assert not any(thread.is_alive() for thread in ahead._threads)


def test_the_batch_that_is_needed_is_fetched_whatever_its_size() -> None:
    ahead = watched([[0, 1], [2, 3], [4]], limit=1)
    assert settled(2) == [0, 1]
    ahead.batch_over()
    assert settled(4) == [0, 1, 2, 3]
    ahead.stop()


def test_images_come_before_they_are_asked_for(pictures: Path, tmp_path: Path) -> None:
    paths = paths_of(in_memory(pictures.parent), f"{tmp_path}/cache:1MB")
    fetched = [images.place_of(path) for path in paths]
    ahead = Ahead([[0, 1, 2], [3, 4]], path=paths.__getitem__, size=lambda i: 1, wanted=lambda i: i != 4, limit=100)
    for thread in ahead._threads:
        thread.join()
    assert [place.kept.file(place.key).exists() for place in fetched] == [True] * 4 + [False] * 8
    ahead.stop()


def test_faults_ahead_are_left_to_who_needs_the_image(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_of(in_memory(pictures.parent), f"{tmp_path}/cache:1MB")

    def fails(url: str, *_: object) -> bytes:
        raise RemoteError(url)

    monkeypatch.setattr(service, "read", fails)
    ahead = Ahead([[0]], path=paths.__getitem__, size=lambda i: 1, wanted=lambda i: True, limit=100)
    for thread in ahead._threads:
        thread.join()
    with pytest.raises(RemoteError):
        images.read(paths[0])


@pytest.mark.parametrize(("batch", "world"), [(16, 2), (6, 3), (4, 1)])
def test_what_comes_is_what_the_ranks_of_a_host_ask_for(batch: int, world: int) -> None:
    order = EpochOrder(50, seed=3)
    ranks = range(world)
    samplers = [TrainBatchSampler(order, batch=batch, rank=rank, world_size=world) for rank in ranks]
    for closed in (False, True):
        for sampler in samplers:
            sampler.turn = Turn(2, closed, first_batch=1)
        asked = [set[int]() for _ in range(len(samplers[0]) - 1)]
        for sampler in samplers:
            for wanted, keys in zip(asked, sampler, strict=True):
                wanted.update(i for key in keys for i in ((key.index,) if closed else key.partners))
        coming = list(samplers[0].upcoming(samplers[0].turn, ranks))
        assert list(map(set, coming)) == asked and all(len(set(images)) == len(images) for images in coming)


def test_what_comes_in_a_validation_is_what_the_ranks_ask_for() -> None:
    batches = [(np.arange(i, i + 2), (32, 32)) for i in range(0, 14, 2)]
    samplers = [EvalBatchSampler(batches, rank=rank, world_size=3) for rank in range(3)]
    asked = [[key.index for keys in sampler for key in keys] for sampler in samplers]
    assert [i for batch in samplers[2].upcoming(Turn(), [2]) for i in batch] == asked[2]
    together = list(samplers[0].upcoming(Turn(), range(3)))
    assert sorted(i for batch in together for i in batch) == list(range(14))
    assert together[0] == [own[k] for own in asked for k in (0, 1)]
