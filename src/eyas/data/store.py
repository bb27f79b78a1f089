"""Decoded images by index, from files or from a cache of pixels that all processes share."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eyas import dist
from eyas.data import host_memory
from eyas.data.cache import cache_root, locked
from eyas.data.decode import load_image
from eyas.data.host_memory import HostMemory
from eyas.data.index import ImageIndex
from eyas.files import replacing
from eyas.log import LOGGER

CacheMode = Literal[False, "ram", "disk"]
_CACHE_VERSION = 2  # raise it when decoding or resizing changes
_RAM_SHARE = 0.8  # of the free memory; the rest is left for training itself
_DISK_SHARE = 0.9


class ImageStore:
    """Images of an index, resized so that the long side is `imgsz` (spec E.5).

    With a cache, whoever decodes an image first (any worker process) stores it for all. `"ram"` is one buffer in shared
    memory, one for all processes that train together on this host; `"disk"` one file outside the data folder, kept for
    later runs. When an image set does not fit, `"ram"` falls back to `"disk"` and that to no cache, with a warning that
    names the sizes.

    Args:
        index: the split.
        imgsz: px of the long side.
        cache: False, "ram" (or True) or "disk".
        stretch: make both sides `imgsz`.
        cache_dir: see `eyas.data.cache.cache_root`.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        imgsz: int,
        cache: bool | str = False,
        stretch: bool = False,
        cache_dir: str | Path | None = None,
    ) -> None:
        if cache not in (False, True, "ram", "disk"):
            raise ValueError(f"cache={cache!r} must be False, True, 'ram' or 'disk'.")
        if imgsz < 1:
            raise ValueError(f"imgsz={imgsz} must be a positive number of pixels.")
        self.index = index
        self.imgsz = imgsz
        self.stretch = stretch
        self.wanted: CacheMode = ("disk" if cache == "disk" else "ram") if cache else False
        self.cache_mode: CacheMode = False
        self._pixels: PixelCache | None = None
        if self.wanted:
            self._open_cache(self.wanted, cache_root(cache_dir) / "images")

    def __len__(self) -> int:
        return len(self.index)

    def effects(self) -> dict[str, object]:
        """Return where it keeps images, by option; a cache that does not fit was warned of, and counts as one."""
        return {"cache": self.wanted}

    def resized_shapes(self) -> np.ndarray:
        """(N, 2) int64 (h, w) of every loaded image."""
        shapes = self.index.shapes.astype(np.float64)
        if self.stretch:
            return np.full(shapes.shape, self.imgsz, np.int64)
        ratio = self.imgsz / shapes.max(1, keepdims=True)
        return np.clip(np.ceil(shapes * ratio), 1, self.imgsz).astype(np.int64)

    def load(self, i: int) -> np.ndarray:
        """Image i, (h, w, 3) uint8 BGR, read-only: it may be the shared cache itself; copy before changing it.

        Raises:
            ValueError: the file cannot be decoded any more or was replaced by one of another size.
        """
        self.index.refuse_changed(i)
        image = self._pixels.get(i) if self._pixels else None
        if image is None:
            image = self._decode(i)
            if self._pixels:
                self._pixels.put(i, image)
        image.flags.writeable = False
        return image

    def reads(self, i: int) -> bool:
        """Whether image i is still to be read from its file: it is in no cache of pixels."""
        return self._pixels is None or not self._pixels.marks[i]

    def fill(self, workers: int | None = None) -> None:
        """Decode every image that is not cached yet, with threads (OpenCV releases the interpreter lock)."""
        if self._pixels is None:
            return
        missing = np.flatnonzero(self._pixels.marks == 0)
        with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(self.load, missing.tolist()):
                pass

    @property
    def cached(self) -> int:
        """Number of images in the cache."""
        return int(np.count_nonzero(self._pixels.marks)) if self._pixels else 0

    def _decode(self, i: int) -> np.ndarray:
        height, width = self.index.shapes[i].tolist()
        return load_image(
            self.index.path(i),
            shape=(height, width),
            orientation=int(self.index.orientations[i]),
            white=self.index.white_of(i),
            imgsz=self.imgsz,
            stretch=self.stretch,
            indexed=self.index.stat(i),
        )

    def _open_cache(self, mode: Literal["ram", "disk"], folder: Path) -> None:
        shapes = self.resized_shapes()
        need = PixelCache.total_bytes(shapes)
        if mode == "ram" and self._open_memory(shapes, need):
            return
        file = folder / f"{self._cache_name()}.pixels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if not file.exists() and need > free * _DISK_SHARE:
                LOGGER.warning(
                    "cache=disk needs %s but %s are free in %s; caching no images. Set EYAS_CACHE to a larger disk.",
                    _size(need), _size(free), folder,
                )  # fmt: skip
                return
            self._pixels, self.cache_mode = PixelCache.in_file(file, shapes), "disk"
        except OSError as error:
            LOGGER.warning("cache=disk cannot be used, so no images are cached: %s. Set EYAS_CACHE.", error)

    def _open_memory(self, shapes: np.ndarray, need: int) -> bool:
        """Open the cache in memory, if there is room: one buffer for all processes of this training on this host."""
        processes = dist.local_world_size()
        name = f"{self._cache_name()} {processes} {dist.run_id()}"
        if processes > 1 and not host_memory.SUPPORTED:
            LOGGER.warning("cache=ram cannot be shared by several processes on this system; using cache=disk.")
            return False
        free = free_shared_memory()
        # Where another process has made it already, it was found to fit, and is not made again.
        if need > free * _RAM_SHARE and not (processes > 1 and HostMemory.exists(name)):
            LOGGER.warning("cache=ram needs %s but %s of memory are free; using cache=disk.", _size(need), _size(free))
            return False
        if processes > 1:
            self._pixels = PixelCache.on_host(shapes, name, rank=dist.local_rank(), processes=processes)
        else:
            self._pixels = PixelCache.in_memory(shapes)
        self.cache_mode = "ram"
        return True

    def _cache_name(self) -> str:
        content = self.index.cache_key or self.index.fingerprint
        key = f"{_CACHE_VERSION} {content} {self.imgsz} {self.stretch} {tuple(self.index.white)}"
        return hashlib.sha256(key.encode()).hexdigest()[:24]


class PixelCache:
    """One uint8 buffer with every image in its place, and a mark per image: 0 = empty, else a checksum of its pixels.

    The checksum is verified once per process and image, so an image that another process is still writing, or that a
    crash of the machine left half written in a file, is decoded again instead of used.

    Attributes:
        marks: (N,) uint32.
        pixels: (bytes,) uint8.
    """

    def __init__(
        self, shapes: np.ndarray, *, tensor: Any = None, file: Path | None = None, memory: HostMemory | None = None
    ) -> None:
        self.shapes = shapes
        self.offsets = _offsets(shapes)
        self.tensor = tensor
        self.file = file
        self.memory = memory
        self._map()

    @staticmethod
    def total_bytes(shapes: np.ndarray) -> int:
        """Bytes for images of these (N, 2) shapes."""
        return int(_offsets(shapes)[-1])

    @classmethod
    def in_memory(cls, shapes: np.ndarray) -> PixelCache:
        """A buffer in shared memory; pages are taken as images arrive."""
        import torch

        storage = torch.UntypedStorage._new_shared(cls.total_bytes(shapes))
        return cls(shapes, tensor=torch.tensor([], dtype=torch.uint8).set_(storage))

    @classmethod
    def on_host(cls, shapes: np.ndarray, name: str, *, rank: int, processes: int) -> PixelCache:
        """A buffer in memory that all processes of this host share; see `HostMemory` for the arguments."""
        return cls(shapes, memory=HostMemory(name, cls.total_bytes(shapes), rank=rank, processes=processes))

    @classmethod
    def in_file(cls, file: Path, shapes: np.ndarray) -> PixelCache:
        """A file that all processes of the machine map; made if it is missing or of another size.

        Its room is taken at once: a disk that is full when a page of a mapped file is written ends the process.

        Raises:
            OSError: it cannot be made, or there is no room.
        """
        total = cls.total_bytes(shapes)
        with locked(file):  # two processes that both make it would write into two files
            if not file.exists() or file.stat().st_size != total:
                with replacing(file) as handle:
                    _allocate(handle.fileno(), total)
        return cls(shapes, file=file)

    def get(self, i: int) -> np.ndarray | None:
        """A view of image i, or None when it is not cached."""
        mark = int(self.marks[i])
        if not mark:
            return None
        image = self._view(i)
        if not self._verified[i]:
            if _checksum(image) != mark:
                return None
            self._verified[i] = True
        return image

    def put(self, i: int, image: np.ndarray) -> None:
        """Store image i. Two processes may do so at once: they write the same bytes."""
        self._view(i)[:] = image
        self.marks[i] = _checksum(image)
        self._verified[i] = True

    def _view(self, i: int) -> np.ndarray:
        height, width = self.shapes[i]
        return self.pixels[self.offsets[i] : self.offsets[i + 1]].reshape(height, width, 3)

    def _map(self) -> None:
        if self.file is not None:
            buffer: np.ndarray = np.memmap(self.file, np.uint8, mode="r+")
        elif self.memory is not None:
            buffer = self.memory.buffer
        else:
            buffer = self.tensor.numpy()
        self.pixels = np.asarray(buffer)
        self.marks = self.pixels[: 4 * len(self.shapes)].view(np.uint32)
        self._verified = np.zeros(len(self.shapes), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("shapes", "offsets", "tensor", "file", "memory")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()


def _allocate(handle: int, total: int) -> None:
    """Give an open file so many bytes, of zeros, where the system can also keep room for them."""
    os.ftruncate(handle, total)
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        os.posix_fallocate(handle, 0, total)


def _offsets(shapes: np.ndarray) -> np.ndarray:
    """(N+1,) int64 byte positions of the images behind the N marks of 4 bytes."""
    sizes = np.prod(shapes, axis=1, dtype=np.int64) * 3
    return np.concatenate([[0], np.cumsum(sizes)]) + 4 * len(shapes)


def _checksum(image: np.ndarray) -> int:
    """Non-zero Adler-32 of the pixels; 3 GB/s, a few per cent of the time that decoding takes."""
    return zlib.adler32(np.ascontiguousarray(image).data) or 1


def free_shared_memory() -> int:
    """Bytes that can be put into shared memory now: free memory, the container's limit, and the size of /dev/shm."""
    limits = [_free_memory()]
    if sys.platform == "linux":
        limits += [_cgroup_free(), shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else sys.maxsize]
    return min(limits)


def _free_memory() -> int:
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            values = dict(line.split(":", 1) for line in file)
        return int(values["MemAvailable"].split()[0]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # macOS: no figure for free memory; half is a safe guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return sys.maxsize


def _cgroup_free() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if limit == "max" else int(limit) - used


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
