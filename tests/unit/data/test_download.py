"""Downloads from a real local server, and archives that try to leave their folder."""

from __future__ import annotations

import functools
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eyas.data.dataset_yaml import check_dataset
from eyas.data.download import download_archive, fetch, unpack


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to_file"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/set.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/to_ftp"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/set.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its http address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


DESCRIPTION = yaml.safe_dump({"path": ".", "train": "images/train", "val": "images/val", "names": ["a"]})
FILES = {"set/data.yaml": DESCRIPTION, "set/images/train/a.txt": "1", "set/images/val/b.txt": "2"}


def make_archive(path: Path, files: dict[str, str]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tgz"])
def test_data_may_be_the_address_of_an_archive(served: tuple[Path, str], tmp_path: Path, name: str) -> None:
    folder, address = served
    make_archive(folder / name, FILES)
    checked = check_dataset(f"{address}/{name}", cache_dir=tmp_path / "cache")
    assert [path.name for path in checked["train"]] == ["train"]
    assert tmp_path / "cache" in checked["path"].parents
    (folder / name).unlink()  # the second time nothing is fetched
    assert check_dataset(f"{address}/{name}", cache_dir=tmp_path / "cache") == checked
    assert len(list((tmp_path / "cache/datasets").iterdir())) == 1  # no temporary files left


def test_download_key_fetches_what_is_missing(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    make_archive(folder / "set.zip", FILES)
    content = yaml.safe_load(DESCRIPTION) | {"path": "set", "download": f"{address}/set.zip"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    checked = check_dataset(tmp_path / "mine.yaml", cache_dir=tmp_path / "cache")
    assert (checked["val"][0] / "b.txt").read_text() == "2"
    assert not (tmp_path / "set").exists()


def test_redirects_are_followed_to_http_only(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    make_archive(folder / "set.zip", FILES)
    assert (download_archive(f"{address}/moved.zip", tmp_path / "a") / "set/data.yaml").exists()
    with pytest.raises(ValueError, match="(is no http|Redirection to url 'file:///etc/passwd' is not allowed)"):
        download_archive(f"{address}/to_file.zip", tmp_path / "a")
    with pytest.raises(ValueError, match=r"'ftp://127\.0\.0\.1/set\.zip' is no http"):
        download_archive(f"{address}/to_ftp.zip", tmp_path / "a")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd.zip", "ftp://host/a.zip", "data:text/plain,x.zip", "http:///a.zip"]
)
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no http"):
        download_archive(url, tmp_path)
    with pytest.raises(ValueError, match="no http"):
        fetch(url, tmp_path / "x")


def test_failures_are_told_and_leave_nothing(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    (folder / "bad.zip").write_bytes(b"PK rubbish")
    (folder / "bad.tar").write_bytes(b"rubbish")
    for url, message in [
        (f"{address}/none.zip", "failed: .*(404|Not Found|File not found)"),
        (f"{address}/cut.zip", "broke off after 10 of 1,000 bytes"),
        (f"{address}/bad.zip", "damaged archive"),
        (f"{address}/bad.tar", "damaged archive"),
        (f"{address}/set.rar", "no archive Eyas can open"),
        ("http://127.0.0.1:9/a.zip", "failed: .*refused"),
    ]:
        with pytest.raises(ValueError, match=message):
            download_archive(url, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:evil"])
@pytest.mark.parametrize("archive", ["x.zip", "x.tar"])
def test_archives_cannot_leave_their_folder(tmp_path: Path, archive: str, name: str) -> None:
    make_archive(tmp_path / archive, {"good": "1", name: "2"})
    with pytest.raises(ValueError, match="refused"):
        unpack(tmp_path / archive, tmp_path / "in" / "out")
    assert not list(tmp_path.glob("**/*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match="link or a device; refused"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_links_in_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link; refused"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_archive_that_does_not_fit_is_refused_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    make_archive(tmp_path / "x.zip", {"a": "x" * 2000})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("eyas.data.download.shutil.disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ValueError, match="unpacks to 2,000 bytes, but only 100 are free"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
