"""Processes without a common parent share one cache in memory, which leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
import pytest

from eyas.data import host_memory
from eyas.data.host_memory import HostMemory
from eyas.data.index import ImageIndex, build_index
from eyas.data.store import ImageStore, PixelCache

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no memory without a name on Windows")
SPAWN = multiprocessing.get_context("spawn")
SIDE = 128


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    return tmp_path


def open_index(folder: Path) -> ImageIndex:
    return build_index([folder / "images"], names={0: "a"}, split="val", cache_dir=folder / "cache")


def become(rank: int, run: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", TORCHELASTIC_RUN_ID=run
    )


def names_left() -> set[Path]:
    return set(host_memory._folder().glob(host_memory._prefix() + "*"))


def rank_of_two(rank: int, folder: Path, barrier: Barrier, queue) -> None:
    """Rank 0 decodes all images and removes the files; rank 1 can only have them from the cache."""
    become(rank, str(folder))
    barrier.wait()
    store = ImageStore(open_index(folder), imgsz=SIDE, cache="ram", cache_dir=folder / "cache")
    barrier.wait()
    if rank == 0:
        store.fill()
        for path in (folder / "images").iterdir():
            path.unlink()
    barrier.wait()
    sums = [int(store.load(i).sum()) for i in range(len(store))]
    assert store._pixels is not None and store._pixels.memory is not None
    info = os.fstat(store._pixels.memory._handle)
    queue.put((rank, store.cache_mode, sums, (info.st_dev, info.st_ino), info.st_nlink, info.st_blocks * 512))
    barrier.wait()


def test_two_processes_have_one_cache(folder: Path) -> None:
    plain = ImageStore(open_index(folder), imgsz=SIDE)
    expected = [int(plain.load(i).sum()) for i in range(8)]
    before = names_left()
    barrier, queue = SPAWN.Barrier(2), SPAWN.Queue()
    ranks = [SPAWN.Process(target=rank_of_two, args=(rank, folder, barrier, queue)) for rank in range(2)]
    for process in ranks:
        process.start()
    first, second = sorted(queue.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    assert first[1] == second[1] == "ram"
    assert first[2] == second[2] == expected
    assert first[3] == second[3], "both map the same file"
    assert first[4] == second[4] == 0, "which has no name any more"
    size = PixelCache.total_bytes(plain.resized_shapes())
    assert size <= first[5] < 1.2 * size, "and takes the memory of one cache"
    assert names_left() == before


def come_alone_and_die(folder: Path, how: int) -> None:
    become(0, str(folder))
    store = ImageStore(open_index(folder), imgsz=SIDE, cache="ram", cache_dir=folder / "cache")
    store.fill()
    if how:
        os.kill(os.getpid(), how)


@pytest.mark.parametrize("how", [0, signal.SIGKILL])
def test_a_process_that_ends_before_the_others_come_leaves_nothing(folder: Path, how: int) -> None:
    before = names_left()
    process = SPAWN.Process(target=come_alone_and_die, args=(folder, how))
    process.start()
    process.join()
    left = names_left() - before
    assert len(left) == (1 if how else 0)
    host_memory.remove_abandoned()  # what the next training begins with
    assert not left & names_left()


def test_memory_in_use_is_not_abandoned() -> None:
    name = f"test {os.getpid()}"
    memory = HostMemory(name, 100, rank=0, processes=2)
    host_memory.remove_abandoned()
    assert HostMemory.exists(name)
    memory.buffer[7] = 5
    again = HostMemory(name, 100, rank=0, processes=2)  # the same process again is not the second one
    assert HostMemory.exists(name) and again.buffer[7] == 5
    other = HostMemory(name, 100, rank=1, processes=2)
    assert not HostMemory.exists(name)
    assert other.buffer[7] == 5 and other.buffer[8] == 0
    fresh = HostMemory(name, 100, rank=0, processes=2)
    assert fresh.buffer[7] == 0
    del fresh
    assert not HostMemory.exists(name)


def test_a_foreign_file_is_not_taken(tmp_path: Path) -> None:
    path = host_memory._path("foreign test")
    path.write_bytes(b"something else")
    try:
        with pytest.raises(OSError, match="not shared memory of this training"):
            host_memory._attach(path, 100, rank=0, processes=2)
        path.unlink()
        (tmp_path / "target").write_bytes(b"")
        path.symlink_to(tmp_path / "target")
        with pytest.raises(OSError, match="symbolic"):
            host_memory._attach(path, 100, rank=0, processes=2)
    finally:
        path.unlink()


def read_all(store: ImageStore, queue) -> None:
    queue.put([int(store.load(i).sum()) for i in range(len(store))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_of_a_rank_share_it_too(folder: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    stores = []
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        stores.append(ImageStore(open_index(folder), imgsz=SIDE, cache="ram", cache_dir=folder / "cache"))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read_all, args=(stores[0], queue))
    process.start()
    sums = queue.get(timeout=60)
    process.join()
    assert stores[0].cached == stores[1].cached == 8
    for path in (folder / "images").iterdir():
        path.unlink()
    assert [int(stores[1].load(i).sum()) for i in range(8)] == sums


def test_too_little_memory_sends_all_processes_to_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("eyas.data.store.free_shared_memory", lambda: 1000)
    stores = []
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        stores.append(ImageStore(open_index(folder), imgsz=SIDE, cache="ram", cache_dir=folder / "cache"))
    assert [store.cache_mode for store in stores] == ["disk", "disk"]
    stores[0].fill()
    assert stores[1].cached == 8


def scan_at_once(folder: Path, barrier: Barrier, queue) -> None:
    import time

    from eyas.data import index

    scan, scans = index._scan, []

    def slow_scan(*args):
        scans.append(1)
        time.sleep(0.3)
        return scan(*args)

    index._scan = slow_scan
    barrier.wait()
    queue.put((len(scans), len(open_index(folder)), len(scans)))


def test_one_process_scans_and_the_others_read_what_it_found(folder: Path) -> None:
    barrier, queue = SPAWN.Barrier(3), SPAWN.Queue()
    ranks = [SPAWN.Process(target=scan_at_once, args=(folder, barrier, queue)) for _ in range(3)]
    for process in ranks:
        process.start()
    found = [queue.get(timeout=60) for _ in ranks]
    for process in ranks:
        process.join()
    assert [images for _, images, _ in found] == [8, 8, 8]
    assert sum(after for _, _, after in found) == 1
    assert not list((folder / "cache").rglob("*.lock"))
