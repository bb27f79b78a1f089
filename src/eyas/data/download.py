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
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from eyas.data.cache import locked
from eyas.data.sizes import readable, to_bytes
from eyas.files import replacing
from eyas.log import LOGGER

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK = 1 << 20
_TIMEOUT = 60  # s without any byte
_ATTEMPTS = 3
_PARTIAL, _NOTHING_MORE = 206, 416  # answers of a server
LIMIT, DEFAULT_LIMIT = "EYAS_MAX_DOWNLOAD", "5GB"


def download_archive(url: str, folder: Path, *, md5: str | None = None) -> Path:
    """Fetch an archive and unpack it below `folder`, once: a later call, or another process at the same time, finds
    it there. What a broken download has brought is kept, and the next call fetches the rest.

    The folder's name carries a hash of the address. It appears only when everything is unpacked.

    Args:
        url: its address.
        folder: where it is kept.
        md5: of the archive, hexadecimal, where it is known.

    Raises:
        ValueError: no http(s) address, no archive Eyas can open, a larger one than `download_limit` allows, a failed
            transfer, another content than `md5` says, or an archive that would write outside its folder.
    """
    name = _archive_name(url)
    target = archive_folder(url, folder)
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if target.is_dir():
            return target
        archive = folder / f".{target.name}.{name}"
        fetch_on(url, archive)
        try:
            if md5 is not None and (found := _digest(archive, "md5")) != md5:
                raise ValueError(f"{url} has the MD5 {found}, not {md5}: it is not the file that was published.")
            _unpack_whole(archive, target)
        except NoRoom:
            raise
        except ValueError:
            archive.unlink()
            raise
        archive.unlink()
    return target


def archive_folder(url: str, folder: Path) -> Path:
    """Where `download_archive` unpacks what it fetches from an address."""
    return folder / f"{_archive_name(url).split('.')[0]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _unpack_whole(archive: Path, target: Path) -> None:
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        unpack(archive, temporary / "unpacked")
        try:
            os.rename(temporary / "unpacked", target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster, where locks are not to be had
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def download_file(url: str, target: Path, sha256: str | None = None) -> Path:
    """Fetch a file to `target`, once: a later call, or another process at the same time, finds it there.

    It appears only when it is whole and, with `sha256` (hexadecimal), what was asked for.

    Raises:
        ValueError: no http(s) address, a failed transfer, or another content than `sha256` says. Nothing is left.
    """
    check_address(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if target.is_file():
            return target
        with replacing(target) as part:
            fetch(url, Path(part.name))
            if sha256 is not None and (found := _digest(Path(part.name), "sha256")) != sha256.lower():
                raise ValueError(f"{url} has the SHA-256 {found}, not {sha256}: it is not the file that was published.")
    return target


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _archive_name(url: str) -> str:
    check_address(url)
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not name.lower().endswith(ARCHIVES):
        raise ValueError(f"{url} is no archive Eyas can open; its name must end in one of {', '.join(ARCHIVES)}.")
    return name


def check_address(url: str) -> None:
    """Raise ValueError for what is no http(s) address."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http(s) address; nothing else is downloaded.")


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        check_address(newurl)
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
        ValueError: a failed or incomplete transfer, more bytes announced than the disk has room for, or more than
            `download_limit` allows.
    """
    with opened(url) as response, file.open("wb") as handle:
        _copy(response, handle, url, 0, _announced(response))


def fetch_on(url: str, file: Path) -> None:
    """Write the content of an http(s) address to `file`, from where an earlier call broke off.

    A server that tells no version of its file, or has another one by now, is asked for all of it. A transfer that
    breaks off is taken up again a few times.

    Raises:
        ValueError: as `fetch`. What has come is kept where it can be gone on with.
    """
    version_of = file.with_name(f"{file.name}.version")
    for attempt in range(_ATTEMPTS):
        try:
            _fetch_rest(url, file, version_of)
            break
        except _BrokenOff:
            if not version_of.exists():
                file.unlink(missing_ok=True)
            if attempt == _ATTEMPTS - 1:
                raise
            LOGGER.info("The connection broke off; trying again")
    version_of.unlink(missing_ok=True)


def size_of(url: str) -> int | None:
    """Bytes at an http(s) address, as its server announces them; None if it does not.

    Raises:
        ValueError: no answer.
    """
    with opened(url, method="HEAD") as response:
        return _announced(response)


class NoRoom(ValueError):
    """The disk has no room for it."""


class _BrokenOff(ValueError):
    """The transfer ended before its time."""


def download_limit() -> int:
    """The most bytes that one download may have: $EYAS_MAX_DOWNLOAD, such as 30GB, else 5 GB.

    Raises:
        ValueError: the variable is no size.
    """
    text = os.environ.get(LIMIT) or DEFAULT_LIMIT
    limit = to_bytes(text)
    if limit is None:
        raise ValueError(f"{LIMIT}={text}: write a size such as 500MB or 30GB.")
    return limit


def refuse_large(what: str, size: int) -> None:
    """Refuse a download of more than `download_limit`, before it starts.

    Raises:
        ValueError: says how large it is and what allows it.
    """
    if size > download_limit():
        allow = f"{-(-size // 10**9)}GB"
        raise ValueError(
            f"{what} has {readable(size)}, and a download may have {readable(download_limit())}. "
            f"Set {LIMIT}={allow} in the environment to allow it."
        )


@contextmanager
def opened(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> Iterator[HTTPResponse]:
    """Open an http(s) address; what goes wrong inside the block is told as what it is.

    Raises:
        ValueError: no http(s) address, no answer, or a failed transfer.
    """
    check_address(url)
    request = urllib.request.Request(url, headers={"User-Agent": "eyas", **(headers or {})}, method=method)
    try:
        with _opener().open(request, timeout=_TIMEOUT) as response:
            yield response
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise ValueError(f"Downloading {url} failed: {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        why = getattr(error, "reason", None) or error
        kind = ValueError if isinstance(error, urllib.error.URLError) else _BrokenOff
        raise kind(f"Downloading {url} failed: {why}") from error


def _fetch_rest(url: str, file: Path, version_of: Path) -> None:
    have = file.stat().st_size if file.exists() and version_of.exists() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": version_of.read_text()} if have else {}
    try:
        with opened(url, headers) as response:
            start, total = have, _announced(response)
            if response.status == _PARTIAL:
                total = None if total is None else have + total
                LOGGER.info("Going on from %s", readable(have))
            else:  # all of it: another version, or a server that sends no parts
                start = 0
            _keep_version(response, version_of)
            with file.open("ab" if start else "wb") as handle:
                _copy(response, handle, url, start, total)
    except ValueError as error:
        cause = error.__cause__
        if have and isinstance(cause, urllib.error.HTTPError) and cause.code == _NOTHING_MORE:
            if cause.headers.get("Content-Range") == f"bytes */{have}":
                return
            file.unlink()
            raise _BrokenOff(f"Downloading {url} failed: what came before is longer than all of it.") from error
        raise


def _keep_version(response: HTTPResponse, version_of: Path) -> None:
    """Remember what tells this version of a file from a later one; a weak tag tells too little."""
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if version:
        version_of.write_text(version)
    else:
        version_of.unlink(missing_ok=True)


def _announced(response: HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def save(response: HTTPResponse, file: Path, url: str, most: int) -> None:
    """Write what an address answers to a file.

    Args:
        response: of `opened`.
        file: where to.
        url: for messages.
        most: bytes.

    Raises:
        ValueError: an incomplete transfer, more bytes than `most`, or than the disk has room for.
    """
    with file.open("wb") as handle:
        _copy(response, handle, url, 0, _announced(response), most)


def _copy(
    response: HTTPResponse, handle: BinaryIO, url: str, done: int, total: int | None, most: int | None = None
) -> None:
    """Write what comes behind the `done` bytes that are there, of `total`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from eyas.log import console

    LOGGER.info("Downloading %s (%s)", url, "size unknown" if total is None else readable(total))
    refuse_large(url, total or 0)
    free = shutil.disk_usage(Path(handle.name).parent).free
    if total is not None and total - done > free:
        raise NoRoom(f"{url} has {total:,} bytes, but only {free:,} are free in the cache folder.")
    if most is not None and (total or 0) > most:
        raise ValueError(f"{url} has {total:,} bytes, more than {most:,}: download it yourself and give the file.")
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task("download", total=total, completed=done)
        while block := response.read(_BLOCK):
            handle.write(block)
            done += len(block)
            if total is None:
                refuse_large(f"What comes from {url}", done)
            if most is not None and done > most:
                raise ValueError(f"{url} has more than {most:,} bytes: download it yourself and give the file.")
            progress.update(task, completed=done)
    if total is not None and done != total:
        raise _BrokenOff(f"Downloading {url} broke off after {done:,} of {total:,} bytes; try again.")


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
        raise NoRoom(f"{archive.name} unpacks to {need:,} bytes, but only {free:,} are free in {folder}.")
