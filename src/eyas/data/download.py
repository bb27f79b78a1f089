"""Fetching files over http(s), and unpacking data set archives without trusting them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from eyas.data.cache import locked
from eyas.files import replacing
from eyas.log import LOGGER

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK = 1 << 20
_TIMEOUT = 60  # s without any byte


def download_archive(url: str, folder: Path) -> Path:
    """Fetch an archive and unpack it below `folder`, once: a later call returns the same place.

    The folder's name carries a hash of the address. It appears only when everything is unpacked.

    Raises:
        ValueError: no http(s) address, no archive Eyas can open, a failed transfer, or an archive that would write
            outside its folder.
    """
    name = _archive_name(url)
    target = folder / f"{name.split('.')[0]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}."))
    try:
        archive = temporary / name
        fetch(url, archive)
        unpacked = temporary / "unpacked"
        unpack(archive, unpacked)
        try:
            os.rename(unpacked, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def download_file(url: str, target: Path, sha256: str | None = None) -> Path:
    """Fetch a file to `target`, once: a later call, or another process at the same time, finds it there.

    It appears only when it is whole and, with `sha256` (hexadecimal), what was asked for.

    Raises:
        ValueError: no http(s) address, a failed transfer, or another content than `sha256` says. Nothing is left.
    """
    _check_address(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if target.is_file():
            return target
        with replacing(target) as part:
            fetch(url, Path(part.name))
            if sha256 is not None and (found := _sha256(Path(part.name))) != sha256.lower():
                raise ValueError(f"{url} has the SHA-256 {found}, not {sha256}: it is not the file that was published.")
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _archive_name(url: str) -> str:
    _check_address(url)
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not name.lower().endswith(ARCHIVES):
        raise ValueError(f"{url} is no archive Eyas can open; its name must end in one of {', '.join(ARCHIVES)}.")
    return name


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http(s) address; nothing else is downloaded.")


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https alone: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _OnlyHttp(),
    ):
        opener.add_handler(handler)
    return opener


def fetch(url: str, file: Path) -> None:
    """Write the content of an http(s) address to `file`.

    Raises:
        ValueError: a failed or incomplete transfer, or more bytes announced than the disk has room for.
    """
    _check_address(url)
    request = urllib.request.Request(url, headers={"User-Agent": "eyas"})
    LOGGER.info("Downloading %s", url)
    try:
        with _opener().open(request, timeout=_TIMEOUT) as response, file.open("wb") as handle:
            _copy(response, handle, url, shutil.disk_usage(file.parent).free)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise ValueError(f"Downloading {url} failed: {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise ValueError(f"Downloading {url} failed: {getattr(error, 'reason', None) or error}") from error


def _copy(response: HTTPResponse, handle: BinaryIO, url: str, free: int) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from eyas.log import console

    announced = response.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdigit() else None
    if total is not None and total > free:
        raise ValueError(f"{url} has {total:,} bytes, but only {free:,} are free in the cache folder.")
    done = 0
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("download", total=total)
        while block := response.read(_BLOCK):
            handle.write(block)
            done += len(block)
            progress.update(task, completed=done)
    if total is not None and done != total:
        raise ValueError(f"Downloading {url} broke off after {done:,} of {total:,} bytes; try again.")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar file: plain files and folders only, all of them below `folder`.

    Raises:
        ValueError: a member with an absolute path, a path through `..`, a link or a device; a damaged archive; or more
            content than the disk has room for.
    """
    folder.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive.name} is a damaged archive: {error}") from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        _check_room(sum(member.file_size for member in members), folder, archive)
        for member in members:
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{archive.name}: {member.filename} is a link; refused.")
            target = _safe_target(folder, member.filename, archive)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with content.open(member) as source, target.open("wb") as handle:
                shutil.copyfileobj(source, handle, _BLOCK)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        members = content.getmembers()
        _check_room(sum(member.size for member in members), folder, archive)
        for member in members:
            target = _safe_target(folder, member.name, archive)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                target.parent.mkdir(parents=True, exist_ok=True)
                source = content.extractfile(member)
                assert source is not None
                with source, target.open("wb") as handle:
                    shutil.copyfileobj(source, handle, _BLOCK)
            else:
                raise ValueError(f"{archive.name}: {member.name} is a link or a device; refused.")


def _safe_target(folder: Path, name: str, archive: Path) -> Path:
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = any(":" in part for part in path.parts[:1])
    if path.is_absolute() or ".." in path.parts or has_drive:
        raise ValueError(f"{archive.name}: {name} would be written outside the data set's folder; refused.")
    return folder / path


def _check_room(need: int, folder: Path, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(f"{archive.name} unpacks to {need:,} bytes, but only {free:,} are free in {folder}.")
