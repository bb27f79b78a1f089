"""Data sets as if they were far away: in fsspec's memory, and behind a web server of this machine."""

from __future__ import annotations

import functools
import http.server
import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import fsspec

_numbers = itertools.count()


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        asked: (method, path) -> requests.
        sent: bytes of bodies.
        failing: path -> statuses that are answered first, one for each request.
        ranges, pages: whether parts are sent, and folders listed.
    """

    def __init__(self, folder: Path, *, ranges: bool = False, pages: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.ranges, self.pages = ranges, pages
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent = 0
        self.failing: dict[str, list[int]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self._fails("GET"):
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or not self.server.ranges:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        part = data[int(found[1]) : int(found[2]) + 1]
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {found[1]}-{int(found[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        self.server.sent += len(part)

    def do_HEAD(self) -> None:
        if not self._fails("HEAD"):
            super().do_HEAD()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        self.server.sent += len(data)
        outputfile.write(data)

    def list_directory(self, path: Any) -> Any:
        if self.server.pages:
            return super().list_directory(path)
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def _fails(self, method: str) -> bool:
        self.server.asked[method, self.path] += 1
        left = self.server.failing.get(self.path)
        if not left:
            return False
        self.send_error(left.pop(0))
        return True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, **how: bool) -> Iterator[Server]:
    """A server of a folder, until the block ends."""
    server = Server(folder, **how)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_memory(folder: Path) -> str:
    """URL of a copy of a folder in memory."""
    name = f"set{next(_numbers)}"
    system = fsspec.filesystem("memory")
    for file in folder.rglob("*"):
        if file.is_file():
            system.pipe(f"/{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return f"memory://{name}"
