"""Loaders: batches from worker processes that live as long as the loader."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset

from eyas import dist
from eyas.data.bad_images import SHARE, BadImages
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.errors import SampleError, UnloadableImage
from eyas.data.index import ImageIndex
from eyas.data.numbered import MapStyle, Numbered, SamplesOf
from eyas.data.processes import START_METHOD, forking, usable_cores
from eyas.data.remote.ahead import Ahead
from eyas.data.sampler import EpochOrder, EvalBatchSampler, Order, TrainBatchSampler, Turn, choose_order
from eyas.log import warn
from eyas.parent import LOOK, is_there
from eyas.signals import PATIENT, show_stacks

SHARED_MEMORY = Path("/dev/shm")
STEP_BACK = 5  # on 16 cores, 16 workers slowed the process that launches a GPU's kernels from 755 to 590 images/s
_LINGER = 5.0  # seconds in which a training process that told its own group to stop can save


class BatchMaker(Protocol):
    """A data set that makes whole batches from lists of keys."""

    def __len__(self) -> int: ...
    def make_batch(self, keys: Sequence[Any], /) -> dict[str, Any]: ...


class KeyStream:
    """Batches of keys of the chosen epoch and, where one is expected after it, of that one too.

    Workers then have something to do while the last batches of an epoch are trained, and while it is validated:
    beginning with nothing, 16 of them need 0.8 s for the first batch of 128 mosaics of 640 px.

    Attributes:
        paused: whether it yields nothing.
        expected: what is read after the chosen epoch.
        begun: what the keys yielded last belong to.
    """

    def __init__(self, sampler: TrainBatchSampler | EvalBatchSampler) -> None:
        self.sampler = sampler
        self.paused = False
        self.expected: Turn | None = None
        self.begun: Turn | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Any]]:
        for turn in () if self.paused else self.turns():
            self.begun = turn
            yield from self.sampler.keys(turn)

    def turns(self) -> Iterator[Turn]:
        """Yield what is chosen, then what is expected; what is read only because it is expected has no next yet."""
        chosen = self.sampler.turn
        yield chosen
        if self.sampler.turn == chosen and self.expected is not None:
            yield self.expected

    def upcoming(self, ranks: Sequence[int]) -> Iterator[list[int]]:
        """Yield the images, by index in the data set, that some ranks need for each batch."""
        for turn in self.turns():
            yield from self.sampler.upcoming(turn, ranks)


class EpochLoader:
    """Yields the batches of one epoch for each `iter()`.

    Order and augmentation are a pure function of (seed, epoch, position): the number of workers changes only speed, and
    so does reading ahead into the next epoch.

    Args:
        dataset: makes whole batches from lists of keys.
        sampler: yields the lists of keys.
        workers: worker processes; 0 loads in the calling process. At most one for each batch of an epoch.
        prefetch: batches that each worker prepares ahead.
        pin_memory: page-locked batches, for copies to a GPU.
        bad_images: share of the images that may prove impossible to load.

    Attributes:
        bad: images that proved so.
    """

    def __init__(
        self,
        dataset: BatchMaker,
        sampler: TrainBatchSampler | EvalBatchSampler,
        *,
        workers: int,
        prefetch: int = 4,
        pin_memory: bool = False,
        bad_images: float = SHARE,
    ) -> None:
        # What people see is their own data set, not what makes batches of its samples.
        self.dataset: Any = dataset.dataset if isinstance(dataset, SamplesOf) else dataset
        self.sampler, self.wanted = sampler, workers
        done = "not measured" if isinstance(dataset, EvalDataset) else "the next of the order took its place"
        self.bad = BadImages(len(dataset), share=bad_images, done=done)
        self.workers = max(min(workers, len(sampler)), 0)
        self._keys = KeyStream(sampler)
        self._running: Iterator[_Packed] | None = None  # between two epochs: one that has begun with the expected one
        self.noted: Callable[[bool], None] | None = None  # told before each batch, and at the end, if there is another
        self._loader: DataLoader[Any] | None = DataLoader(
            _Guarded(dataset),  # type: ignore[arg-type]  # it makes whole batches
            batch_sampler=self._keys,
            collate_fn=_identity,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            prefetch_factor=prefetch if self.workers else None,
            multiprocessing_context=START_METHOD if self.workers else None,
            # Pinned for a GPU, which is kept waiting.
            worker_init_fn=partial(_init_worker, parent=os.getpid(), gives_way=pin_memory),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # its own: the loader never draws from the global one
        )
        if self.workers:
            self._start_workers()

    @property
    def epoch(self) -> int:
        """The epoch that the next `iter()` yields."""
        return self.sampler.turn.epoch

    @property
    def images(self) -> int:
        """Images in an epoch, over all ranks; a repeated one counts as often as it is repeated."""
        return self.sampler.images

    def effects(self) -> dict[str, object]:
        """Return how it loads, by option; that a short epoch needs fewer workers is no contradiction."""
        return {"workers": max(self.workers, self.wanted), "bad_images": self.bad.share} | self.sampler.effects()

    def __len__(self) -> int:
        """Batches in an epoch, of this rank."""
        return len(self.sampler)

    def set_epoch(self, epoch: int, *, mosaic_closed: bool = False, first_batch: int = 0) -> None:
        """Choose the epoch that the next `iter()` yields.

        Args:
            epoch: 0-based.
            mosaic_closed: without mosaic, mixup and cutmix (`close_mosaic`).
            first_batch: batches of the epoch to leave out, for a run resumed inside it.
        """
        self.sampler.turn, self._keys.expected = Turn(epoch, mosaic_closed, first_batch), None

    def expect(self, epoch: int, *, mosaic_closed: bool) -> None:
        """Let workers go on with this epoch after the chosen one; if another one is chosen then, it is dropped."""
        if self.workers:
            self._keys.expected = Turn(epoch, mosaic_closed)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches of the chosen epoch.

        Raises:
            SampleError: a sample could not be made; the message names the image file.
            TooManyBadImages: more images than may be cannot be loaded; names the first.
            ValueError: a file was found changed since it was indexed.
            RuntimeError: the loader was closed.
        """
        if self._loader is None:
            raise RuntimeError("this loader is closed")
        index, turn, ahead = own_index(self), self.sampler.turn, self._run_ahead()
        running, self._running = self._running, None
        if running is None or self._keys.begun != turn:
            self._keys.begun = None
            running = iter(self._loader)
        try:
            self._note(True)
            for packed in itertools.islice(running, len(self) - turn.first_batch):
                if index is not None:
                    index.refuse_known_changes()
                if packed.error is not None:
                    if packed.error.detail:
                        packed.error.add_note(packed.error.detail)
                    raise packed.error
                if ahead is not None:
                    ahead.batch_over()
                if packed.bad:
                    self.bad.add(packed.bad)
                if packed.batch is not None:  # else none of its images could be loaded
                    yield packed.batch
                self._note(True)
        finally:
            if ahead is not None:
                ahead.stop()
        self._note(False)
        if dist.world_size() == 1:  # several processes tell once they have joined what they found
            self.bad.tell()
        self._running = running if self._keys.begun != turn else None  # with the next epoch in its workers

    def _run_ahead(self) -> Ahead | None:
        """What fetches images that lie elsewhere before they are needed, in one process of each host."""
        dataset = self.dataset
        if dist.local_rank() != 0 or not isinstance(dataset, Numbered) or (room := dataset.index.room) is None:
            return None
        same = self.sampler.world_size == dist.world_size()
        return Ahead(
            self._keys.upcoming(dist.ranks_here() if same else [self.sampler.rank]),
            path=dataset.index.path,
            size=lambda i: dataset.index.stat(i).size,
            wanted=dataset.store.reads,
            limit=room.limit,
        )

    def debtor(self) -> str:
        """Say which worker process owes the next batch; empty where this process makes it itself."""
        iterator: Any = self._loader._iterator if self._loader is not None else None
        owed = iterator._task_info.get(iterator._rcvd_idx) if iterator is not None and self.workers else None
        if owed is None:
            return ""
        return f"worker {owed[0]} of {self.workers} (pid {iterator._workers[owed[0]].pid}) owes it"

    def _note(self, more: bool) -> None:
        if self.noted is not None:
            self.noted(more)

    def close(self) -> None:
        """End the worker processes. May be called twice."""
        loader, self._loader = self._loader, None
        iterator = loader._iterator if loader is not None else None
        if iterator is not None:
            # Waiting for the garbage collector would keep workers alive as long as someone holds an exception.
            iterator._shutdown_workers()  # type: ignore[attr-defined]
            for worker in getattr(iterator, "_workers", ()):
                worker.kill()  # one that hangs lingers after SIGTERM

    def __enter__(self) -> EpochLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start_workers(self) -> None:
        """Fork now, with an empty epoch, not at the first batch: by then thread pools may run."""
        self._keys.paused = True
        with forking():
            iter(self._loader)  # type: ignore[arg-type]
        self._keys.paused = False


def batch_maker(dataset: Any, *, imgsz: int, seed: int, batch: int) -> TrainDataset | EvalDataset | SamplesOf:
    """Return a data set as our loaders need it: ours as it is, any other that gives samples by number through them.

    Args:
        dataset: ours, or a map-style one of the user's; one of ours with a `__getitem__` of its own counts as such.
        imgsz: px of a side of the images.
        seed: seed of the run.
        batch: images in a batch of evaluation.

    Raises:
        ValueError: it has no length, or gives nothing by number.
    """
    stock = isinstance(dataset, TrainDataset | EvalDataset) and type(dataset).__getitem__ is Numbered.__getitem__
    if stock or isinstance(dataset, SamplesOf):
        return dataset
    # torch's iterable data sets have a __getitem__ too, which only raises.
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, MapStyle):
        raise ValueError(
            f"build_dataset() returned a {type(dataset).__name__}, which gives no samples by number: it needs "
            "__len__() and __getitem__(i). For a stream, return a DataLoader of your own from get_dataloader()."
        )
    return SamplesOf(dataset, imgsz=imgsz, seed=seed, batch=batch)


def build_train_loader(
    dataset: TrainDataset | SamplesOf,
    *,
    batch: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    shuffle: bool = True,
    sampler: str | None = None,
    threshold: float = 0.1,
    bad_images: float = SHARE,
) -> EpochLoader:
    """Loader of augmented training batches.

    Args:
        dataset: the training data.
        batch: global batch, over all ranks; at most an epoch's images are used. The last batch may be smaller.
        workers: worker processes of this rank.
        seed: seed of the order.
        rank, world_size: this rank takes a contiguous share of every global batch.
        pin_memory: page-locked batches, for copies to a GPU.
        shuffle: False keeps the order of the data set.
        sampler: None visits every image once in an epoch, "balanced" draws all classes equally often, "repeat" visits
            images of rare classes several times; an epoch's length is then the sum of the repeats.
        threshold: share of images below which "repeat" repeats a class.
        bad_images: share of images that may prove impossible to load.

    Raises:
        ValueError: no such sampler, or one that would change nothing.
    """
    order: Order = EpochOrder(len(dataset), seed, shuffle)
    if sampler is not None:
        if not shuffle:
            raise ValueError(f"sampler={sampler!r} draws images at random and cannot keep their order; drop one.")
        if not isinstance(dataset, TrainDataset):
            raise ValueError(
                f"sampler={sampler!r} needs the classes of every image, which {type(dataset.dataset).__name__} does "
                "not tell; draw them in get_dataloader() with a sampler of your own."
            )
        order = choose_order(sampler, dataset.index.image_classes(), threshold=threshold, seed=seed)
    batches = TrainBatchSampler(order, batch=batch, rank=rank, world_size=world_size)
    prefetch = _prefetch(4, workers, 3 * -(-batches.batch // world_size) * dataset.imgsz**2)
    return EpochLoader(
        dataset, batches, workers=workers, prefetch=prefetch, pin_memory=pin_memory, bad_images=bad_images
    )


def build_eval_loader(
    dataset: EvalDataset | SamplesOf,
    *,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    bad_images: float = SHARE,
) -> EpochLoader:
    """Loader of letterboxed batches, as `dataset.batches` lists them.

    Args:
        dataset: the evaluation data.
        workers: worker processes of this rank.
        rank, world_size: this rank takes a contiguous run of whole batches.
        pin_memory: page-locked batches, for copies to a GPU.
        bad_images: share of images that may prove impossible to load.
    """
    sampler = EvalBatchSampler(dataset.batches, rank=rank, world_size=world_size)
    largest = max((3 * len(indices) * shape[0] * shape[1] for indices, shape in sampler.batches), default=0)
    return EpochLoader(
        dataset,
        sampler,
        workers=workers,
        prefetch=_prefetch(2, workers, largest),
        pin_memory=pin_memory,
        bad_images=bad_images,
    )


def own_index(loader: object) -> ImageIndex | None:
    """Return the images and labels of the data set of ours that a loader reads; None for any other."""
    dataset = loader.dataset if isinstance(loader, EpochLoader | DataLoader) else None
    return dataset.index if isinstance(dataset, Numbered) else None


def default_workers(workers: int | None, device: torch.device) -> int:
    """Return worker processes: as typed, else what this process's share of the cores is good for.

    Beside a GPU that is all but one, which launches kernels, up to 16: on 16 cores 8 workers make 870 mosaics of 640 px
    a second and 16 make 2,360. Where the CPU computes, it is one for two cores, up to 4.
    """
    if workers is not None:
        return workers
    own = usable_cores() // dist.local_world_size()
    return min(16, max(1, own - 1)) if device.type == "cuda" else max(1, min(4, own // 2))


class _Packed:
    """What travels from a worker: a batch, or the error in its place. Only tensors are pinned, lists stay lists."""

    def __init__(
        self, batch: dict[str, Any] | None, error: SampleError | None = None, bad: dict[str, str] | None = None
    ) -> None:
        self.batch, self.error, self.bad = batch, error, bad

    def pin_memory(self) -> _Packed:
        if self.batch is not None:
            self.batch = {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in self.batch.items()}
        return self


class _Guarded:
    """Hands errors over as values. Raised in a worker, they would arrive as a traceback inside a message."""

    def __init__(self, dataset: BatchMaker) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[Any]) -> _Packed:
        try:
            return _Packed(self.dataset.make_batch(keys), bad=self._bad())
        except UnloadableImage as error:
            if isinstance(self.dataset, EvalDataset):
                return _Packed(None, bad=self._bad())
            return _Packed(None, SampleError(str(error), error.detail))
        except SampleError as error:
            return _Packed(None, SampleError(str(error), error.detail))

    def _bad(self) -> dict[str, str]:
        return self.dataset.take_bad() if isinstance(self.dataset, Numbered) else {}


def _identity(packed: Any) -> Any:
    return packed


def fallen_workers(loader: object, seconds: float) -> dict[int, int]:
    """Return worker processes of a loader that have ended though it needs them: process id -> exit code.

    Args:
        loader: ours or torch's; any other has none that we know.
        seconds: how long to wait for the first of them: a connection breaks before its process is known to be dead.
    """
    running: Any = loader._loader if isinstance(loader, EpochLoader) else loader
    iterator = running._iterator if isinstance(running, DataLoader) else None
    workers = getattr(iterator, "_workers", [])  # an iterator of this process has none
    if workers:
        wait([worker.sentinel for worker in workers], seconds)
    return {worker.pid: worker.exitcode for worker in workers if worker.exitcode is not None}


def shield_workers(loader: object) -> None:
    """Let the worker processes of a user's own loader, too, leave requests to stop to the training process."""
    if isinstance(loader, DataLoader) and loader.num_workers and not isinstance(loader.worker_init_fn, _Shielded):
        loader.worker_init_fn = _Shielded(loader.worker_init_fn)


class _Shielded:
    """Starts a worker as its user wants it, and leaves requests to stop to the training process."""

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self.start, self.parent = start, os.getpid()

    def __call__(self, number: int) -> None:
        _leave_stopping_to_parent(self.parent)
        if self.start is not None:
            self.start(number)


def _leave_stopping_to_parent(parent: int) -> None:
    """Ignore requests to stop, which often reach a whole group of processes; show stacks when asked to.

    The training process needs its workers until it has saved, then ends them; they end by themselves when it is gone,
    which torch's workers notice neither at once nor always: one whose parent dies before it has asked who that is
    takes the next one for it. So ``parent`` is the number that the training process has for itself.
    """
    for number in (signal.SIGINT, *PATIENT):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS: who sent a signal is not known there
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before threads begin: they inherit it
    show_stacks()
    threading.Thread(target=_follow_parent, args=(parent,), daemon=True).start()


def _follow_parent(parent: int) -> None:
    """End with the training process, or a while after it has asked, as Python does at its end: it may have told its
    whole group, and then needs its workers until it has saved.
    """
    while is_there(parent) and _sender_of_sigterm(LOOK) != parent:
        pass
    if is_there(parent):
        time.sleep(_LINGER)
    os._exit(0)


def _sender_of_sigterm(seconds: float) -> int | None:
    """Return who has sent SIGTERM within some time; None if nobody has, or where that is not known."""
    if not hasattr(signal, "sigtimedwait"):
        time.sleep(seconds)
        return None
    received = signal.sigtimedwait({signal.SIGTERM}, seconds)
    return None if received is None else received.si_pid


def _init_worker(_: int, *, parent: int, gives_way: bool = False) -> None:
    """One thread each: workers are the parallelism. ``gives_way``: the training process comes first on a full host."""
    _leave_stopping_to_parent(parent)
    if gives_way and os.name == "posix":
        os.nice(STEP_BACK)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _prefetch(wanted: int, workers: int, batch_bytes: int) -> int:
    """Batches to prepare ahead: fewer when shared memory is small, where too many end in a bus error.

    A container has 64 MB of it by default.
    """
    if not workers or not batch_bytes or not SHARED_MEMORY.is_dir():
        return wanted
    free = shutil.disk_usage(SHARED_MEMORY).free
    # Batches of training and of validation wait side by side, in each process of this host.
    own = 0.8 * free / 2 / dist.local_world_size()
    # One batch more than prefetched is alive in the training process, and one is being built in each worker.
    fitting = int(own / batch_bytes / workers) - 2
    if fitting < 1:
        warn(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MB free, which may be too little for {workers} workers "
            f"with batches of {batch_bytes / 2**20:.0f} MB; if the run ends in a bus error, use workers=0 "
            "or a larger --shm-size"
        )
    return max(min(wanted, fitting), 1)
