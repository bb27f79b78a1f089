"""Images elsewhere are fetched before they are needed: which ones come next is known from seed and epoch.

One process of each host does it for all of them, with a few threads, in the order of the epoch. It runs ahead of the
training by as many bytes as the cache can well hold, so that nothing that was fetched has gone before it is used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from eyas.data.remote import images
from eyas.data.remote.address import is_remote
from eyas.data.remote.service import RemoteError

THREADS = 16
_SHARE = 0.5  # of the cache that may lie ahead
_PATIENCE = 1.0  # seconds


class Ahead:
    """Fetches the images of some batches, in their order.

    Args:
        batches: numbers of the images of each batch.
        path: of an image.
        size: bytes of an image.
        wanted: whether an image is still read from its file.
        limit: bytes of the cache.
    """

    def __init__(
        self,
        batches: Iterable[list[int]],
        *,
        path: Callable[[int], str],
        size: Callable[[int], int],
        wanted: Callable[[int], bool],
        limit: int,
    ) -> None:
        self.path, self.size, self.wanted = path, size, wanted
        self.room = int(limit * _SHARE)
        self._turn = threading.Condition()
        self._ends: list[int] = []  # bytes of all batches up to the end of each
        self._over = 0  # batches that the training has taken
        self._stopped = False
        self._images = self._in_order(batches)
        self._waiting: tuple[int, int, int] | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def batch_over(self) -> None:
        """Say that the training has taken one more batch."""
        with self._turn:
            self._over += 1
            self._turn.notify_all()

    def stop(self) -> None:
        """End the threads; what is being fetched is waited for a moment."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(timeout=max(until - time.monotonic(), 0))

    def _in_order(self, batches: Iterable[list[int]]) -> Iterator[tuple[int, int, int]]:
        """(image, its batch, bytes of all up to its end) of every image."""
        total = 0
        for number, batch in enumerate(batches):
            self._ends.append(total + sum(map(self.size, batch)))
            for image in batch:
                total += self.size(image)
                yield image, number, total

    def _next(self) -> int | None:
        """The next image, once there is room for it; None at the end."""
        with self._turn:
            while not self._stopped:
                self._waiting = self._waiting or next(self._images, None)
                if self._waiting is None:
                    return None
                image, batch, end = self._waiting
                if batch >= self._over:
                    taken = self._ends[self._over - 1] if self._over else 0
                    if batch > self._over and end - taken > self.room:
                        self._turn.wait()
                        continue
                self._waiting = None
                if batch >= self._over:  # else the training was faster
                    return image
        return None

    def _work(self) -> None:
        while (number := self._next()) is not None:
            path = self.path(number)
            if is_remote(path) and self.wanted(number):
                try:
                    images.bring(path)
                except RemoteError:  # told where the image is used
                    continue
