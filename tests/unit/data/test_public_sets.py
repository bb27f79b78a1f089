"""Public sets from a server of our own: size first, limits, checksums; what broke off goes on from where it was."""

from __future__ import annotations

import hashlib
import http.server
import io
import logging
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eyas.data import build_index, check_dataset, download, public_sets
from eyas.data.download import download_archive, fetch
from eyas.data.public_sets import PUBLIC, Archive, PublicSet
from eyas.data.sizes import readable

CUT = 600  # bytes after which the server breaks off


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, in parts too; breaks off the first `breaks` answers."""

    files: dict[str, bytes]
    breaks = 0
    tag = '"1"'
    tells_length = True
    asked: list[tuple[str, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        server, data = self.server, self.server.files[self.path]
        asked = self.headers.get("Range", "") if self.headers.get("If-Range") == server.tag else ""
        server.asked.append((self.command, self.headers.get("Range", "")))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if server.tag:
            self.send_header("ETag", server.tag)
        if server.tells_length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body and server.breaks:
            server.breaks -= 1
            self.wfile.write(data[start : start + CUT])
        elif body:
            self.wfile.write(data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def picture() -> bytes:
    rng = np.random.default_rng(0)
    return cv2.imencode(".png", rng.integers(0, 256, (24, 24, 3), np.uint8))[1].tobytes()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The set `coco128` from our own server."""
    files = {f"coco128/images/train2017/{i}.png": picture() for i in range(3)}
    labels = {f"coco128/labels/train2017/{i}.txt": b"79 0.5 0.5 0.5 0.5\n" for i in range(3)}
    server.files["/coco128.zip"] = zipped(files | labels)
    moved = PUBLIC["coco128"]._replace(archives=(Archive(address(server, "coco128.zip")),))
    monkeypatch.setitem(PUBLIC, "coco128", moved)
    return server


def test_a_name_fetches_once_and_says_the_size_first(
    small: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "eyas"):
        data = check_dataset("coco128", cache_dir=tmp_path)
    first = caplog.messages[0]
    assert f"The data set coco128: {readable(len(small.files['/coco128.zip']))} from 127.0.0.1" in first
    assert "Terms: " in first and any("val is the same as train" in message for message in caplog.messages)
    assert small.asked == [("HEAD", ""), ("GET", "")]
    index = build_index(data["train"], names=data["names"], cache_dir=tmp_path)
    assert index.report.instances["toothbrush"] == 3 and data["nc"] == 80
    assert check_dataset("coco128", cache_dir=tmp_path) == data and len(small.asked) == 2
    assert sorted(path.name for path in (tmp_path / "datasets").iterdir()) == ["coco128"]


def test_nothing_larger_than_allowed_is_begun(small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(download.LIMIT, "1kB")
    with pytest.raises(
        ValueError, match=r"The data set coco128 has [\d.]+ kB, and a download may have 1 kB\. Set EYAS_MAX"
    ):
        check_dataset("coco128", cache_dir=tmp_path)
    assert small.asked == [("HEAD", "")] and not (tmp_path / "datasets/coco128").exists()
    monkeypatch.setenv(download.LIMIT, "lots")
    with pytest.raises(ValueError, match="EYAS_MAX_DOWNLOAD=lots: write a size such as"):
        check_dataset("coco128", cache_dir=tmp_path)


def test_coco_itself_is_refused_without_a_word_to_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sizes are known, and more than a download has unless it is allowed to."""
    monkeypatch.delenv(download.LIMIT, raising=False)
    monkeypatch.setattr(download, "_opener", lambda: pytest.fail("the network was asked"))
    with pytest.raises(
        ValueError, match=r"coco has 20\.4 GB, and a download may have 5 GB\. Set EYAS_MAX_DOWNLOAD=21GB"
    ):
        check_dataset("coco", cache_dir=tmp_path)


def test_a_size_that_is_not_told_is_counted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/a"], server.tells_length = b"x" * 3000, False
    fetch(address(server, "a"), tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 3000
    monkeypatch.setenv(download.LIMIT, "2kB")
    with pytest.raises(ValueError, match="What comes from .* has 3 kB"):
        fetch(address(server, "a"), tmp_path / "b")


def test_a_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.files["/set.zip"] = zipped({"a.png": picture(), "b.png": picture()})
    size = len(server.files["/set.zip"])
    assert size > 4 * CUT
    server.breaks = 3
    with pytest.raises(ValueError, match=f"broke off after 1,800 of {size:,} bytes"):
        download_archive(address(server, "set.zip"), tmp_path)
    assert [asked for _, asked in server.asked] == ["", "bytes=600-", "bytes=1200-"]
    folder = download_archive(address(server, "set.zip"), tmp_path)
    assert (folder / "b.png").read_bytes() == picture() and server.asked[-1] == ("GET", "bytes=1800-")
    assert [path for path in tmp_path.iterdir() if path != folder] == []


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["/set.zip"], server.breaks = zipped({"a.png": picture()}), 3
    with pytest.raises(ValueError, match="broke off"):
        download_archive(address(server, "set.zip"), tmp_path)
    server.files["/set.zip"], server.tag = zipped({"a.png": b"new" * 1000}), '"2"'
    assert (download_archive(address(server, "set.zip"), tmp_path) / "a.png").read_bytes() == b"new" * 1000


def test_a_server_that_tells_no_version_is_asked_for_all_of_it(server: Server, tmp_path: Path) -> None:
    server.files["/set.zip"], server.breaks, server.tag = zipped({"a.png": picture()}), 2, ""
    assert (download_archive(address(server, "set.zip"), tmp_path) / "a.png").read_bytes() == picture()
    assert [asked for _, asked in server.asked] == ["", "", ""]


def test_an_archive_that_came_whole_is_not_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died, or the disk was full, before it was unpacked."""
    server.files["/set.zip"] = zipped({"a.png": picture()})
    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", lambda *_: (_ for _ in ()).throw(download.NoRoom("full")))
        with pytest.raises(ValueError, match="full"):
            download_archive(address(server, "set.zip"), tmp_path)
    assert (download_archive(address(server, "set.zip"), tmp_path) / "a.png").exists()
    assert len(server.asked) == 2


def test_another_content_than_published_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/set.zip"] = zipped({"a.png": picture()})
    with pytest.raises(ValueError, match="has the MD5 .* not the file that was published"):
        download_archive(address(server, "set.zip"), tmp_path, md5="0" * 32)
    assert list(tmp_path.iterdir()) == []
    right = hashlib.md5(server.files["/set.zip"], usedforsecurity=False).hexdigest()
    assert download_archive(address(server, "set.zip"), tmp_path, md5=right).is_dir()


def voc_archive(year: int, names: dict[str, str]) -> bytes:
    base, files = f"VOCdevkit/VOC{year}", dict[str, bytes]()
    for part in {*names.values()}:
        listed = "".join(f"{name}\n" for name, own in names.items() if own == part)
        files[f"{base}/ImageSets/Main/{part}.txt"] = listed.encode()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>24</xmax><ymax>12</ymax></bndbox>"
    for name in names:
        files[f"{base}/JPEGImages/{name}.png"] = picture()
        thing = f"<annotation><object><name>dog</name>{box}</object></annotation>"
        files[f"{base}/Annotations/{name}.xml"] = thing.encode()
    return tarred(files)


def test_voc_joins_its_years(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [(2007, {"a": "trainval"}), (2007, {"b": "test"}), (2012, {"c": "trainval", "d": "trainval"})]
    archives = []
    for known, (year, names) in zip(PUBLIC["voc"].archives, parts, strict=True):
        name = known.url.rpartition("/")[2]
        data = server.files[f"/{name}"] = voc_archive(year, names)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        archives.append(known._replace(url=address(server, name), md5=md5, size=None))
    monkeypatch.setitem(PUBLIC, "voc", PUBLIC["voc"]._replace(archives=tuple(archives)))
    data = check_dataset("voc", cache_dir=tmp_path)
    train, val = (
        build_index(data[split], names=data["names"], split=split, cache_dir=tmp_path) for split in ("train", "val")
    )
    assert (len(train), len(val)) == (3, 1) and train.report.counts == {} and train.report.instances["dog"] == 3
    assert train.boxes[0].tolist() == [0.5, 0.25, 1, 0.5], "pixels count from 1"


@pytest.mark.parametrize("name", list(PUBLIC))
def test_every_set_has_what_its_description_names(name: str) -> None:
    public: PublicSet = PUBLIC[name]
    assert {*public.content} == {"train", "val", "names"} and public.terms
    assert len(public.content["names"]) == len({*public.content["names"]}) == (20 if name == "voc" else 80)
    for archive in public.archives:
        assert archive.md5 is None or len(archive.md5) == 32
        assert download.archive_folder(archive.url, Path("x")).parent == Path("x")


def test_a_set_that_the_disk_has_no_room_for(small: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = public_sets.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(public_sets.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ValueError, match="coco128 takes about .* only 100 bytes are free"):
        check_dataset("coco128", cache_dir=tmp_path)
    assert small.asked == [("HEAD", "")]


def test_the_nearest_name_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {"cache_dir": tmp_path}
    with pytest.raises(ValueError, match=r"Did you mean coco128\?.*Downloaded on request: coco128, coco, voc"):
        check_dataset("coco-128", **arguments)
