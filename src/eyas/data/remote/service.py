"""What lies elsewhere, asked through fsspec: names, facts and bytes.

Nothing is kept between calls but fsspec's own connections, which it makes anew in a forked process.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from eyas.data.files import FileStat
from eyas.log import LOGGER

Result = TypeVar("Result")

_TICK = 1000  # ns
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before another try
THREADS = 32  # that ask for many small things at a time
# What tells one version of a file from the next, the surest first, as file systems call it.
_VERSIONS = (
    "ETag", "etag", "Content-MD5", "md5Hash", "generation", "LastModified", "last_modified", "Last-Modified", "updated",
    "mtime", "modified", "created",
)  # fmt: skip
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
    "http": "http", "https": "http",
}  # fmt: skip
_ABSENT = (404, 410)
_DENIED = (401, 403, 407)
_PASSING = (408, 425, 429)  # of the errors that servers blame on who asks
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws or the machine's role; FSSPEC_S3_ANON=true for a public "
    "bucket",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`; FSSPEC_GS_TOKEN=anon for a "
    "public bucket",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class RemoteError(ValueError):
    """What was asked for elsewhere did not come; the message names the URL, why, and what to do."""


class Facts(NamedTuple):
    """What is known of a file from outside: bytes, and a number that stands for its version."""

    size: int
    version: int

    @property
    def copy(self) -> FileStat:
        """What a copy of it looks like from outside."""
        return FileStat(self.size, self.version)

    @property
    def stand_in(self) -> FileStat:
        """What the empty file looks like that stands in for it: a microsecond younger than a copy."""
        return FileStat(self.size, self.version + _TICK)

    @classmethod
    def of_stand_in(cls, stat: FileStat) -> Facts:
        """The facts of what a file stands in for."""
        return cls(stat.size, stat.mtime_ns - _TICK)


def find(url: str) -> dict[str, Facts]:
    """Facts of all files below a folder, by path from there; none if there is no such folder, or it cannot be listed.

    Raises:
        RemoteError: no answer, no access, or no such kind of storage.
    """
    try:
        return _find_pages(url) if url.startswith(("http://", "https://")) else _find(url)
    except FileNotFoundError:
        return {}


def facts(url: str) -> Facts | None:
    """Facts of a file; None if it is not there.

    Raises:
        RemoteError: as `find`.
    """
    try:
        info = _trying(url, lambda: _call(url, "info"))
    except FileNotFoundError:
        return None
    if info.get("type") == "directory":
        return None
    if info.get("size") is None:  # a server that tells no length
        info = {**info, "size": len(read(url))}
    return _facts(info)


def read(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Bytes of a file, [start, stop) of them; a server that sends no parts sends all.

    Raises:
        RemoteError: as `find`.
        FileNotFoundError: it is not there.
    """
    return _trying(url, lambda: bytes(_call(url, "cat_file", start=start, end=stop)))


def _call(url: str, method: str, **arguments: Any) -> Any:
    """Ask the file system of a URL; listings of its own would not show what has changed since."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, use_listings_cache=False)
    return getattr(system, method)(path, **arguments)


def _find(url: str) -> dict[str, Facts]:
    from fsspec.core import url_to_fs

    found = _trying(url, lambda: _call(url, "find", detail=True))
    base = _trying(url, lambda: url_to_fs(url)[1]).rstrip("/") + "/"
    below = {name[len(base) :]: info for name, info in found.items() if name.startswith(base)}
    return {name: _facts(info) for name, info in below.items() if _is_safe(name)}


def _find_pages(url: str) -> dict[str, Facts]:
    """Files that the index pages of a server link to; what they are is asked one by one."""
    from concurrent.futures import ThreadPoolExecutor

    base = url.rstrip("/") + "/"
    folders, names = [base], dict[str, str]()
    seen = set(folders)
    while folders:
        folder = folders.pop()
        for entry in _trying(folder, lambda folder=folder: _call(folder, "ls", detail=True)):  # type: ignore[misc]
            link = entry["name"]
            name = unquote(link.removeprefix(base))
            if not link.startswith(base) or "?" in link or "#" in link or not _is_safe(name.rstrip("/")):
                continue
            if not link.endswith("/"):
                names[name] = link
            elif link not in seen:
                seen.add(link)
                folders.append(link)
    with ThreadPoolExecutor(THREADS) as pool:
        known = zip(names, pool.map(facts, names.values()), strict=True)
        return {name: found for name, found in known if found is not None}


def _is_safe(name: str) -> bool:
    """Whether a name leads to a place below where it starts."""
    return all(part not in ("", ".", "..") and "\0" not in part and "\\" not in part for part in name.split("/"))


def _facts(info: Mapping[str, Any]) -> Facts:
    text = _version(next((info[key] for key in _VERSIONS if info.get(key)), ""))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    # A time that every file system can keep, to the microsecond, and long past: nothing has changed just now.
    return Facts(int(info["size"]), (10**8 * 10**6 + number % (9 * 10**8 * 10**6)) * 1000)


def _version(told: object) -> str:
    """A version as one text, however a listing and a question about one file write it."""
    if isinstance(told, datetime):
        told = told.timestamp()
    text = str(told).removeprefix("W/").strip('"')
    try:
        return str(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return text


def _trying(url: str, call: Callable[[], Result]) -> Result:
    """Call again after a while when a fault may pass.

    Raises:
        RemoteError: it does not.
        FileNotFoundError: there is no such thing.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except RemoteError:
            raise
        except Exception as error:  # every file system has errors of its own, some derived from nothing else
            cause = _cause(error)
            if isinstance(cause, FileNotFoundError):
                raise cause from error
            if pause is None or not _may_pass(cause):
                raise RemoteError(_explained(url, cause)) from error
            LOGGER.debug("%s: %s; trying again in %g s", url, cause, pause)
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _cause(error: Exception) -> Exception:
    """What went wrong; fsspec calls whatever a web server refuses a file that is not there."""
    inner = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(inner, Exception):
        return error
    absent = isinstance(inner, LookupError | FileNotFoundError) or _status(inner) in _ABSENT  # memory looks into a dict
    return error if absent else inner


def _status(error: Exception) -> int | None:
    """What a server answered, where an error tells."""
    told = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((status for status in told if isinstance(status, int)), None)


def _is_denied(error: Exception) -> bool:
    named = any(word in type(error).__name__ for word in ("Credential", "Auth"))
    return isinstance(error, PermissionError) or _status(error) in _DENIED or named


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if isinstance(error, ImportError | NotImplementedError | TypeError) or _is_denied(error):
        return False
    if isinstance(error, ValueError) and status is None:  # no such protocol, no such address
        return False
    return status is None or status >= 500 or status in _PASSING


def _explained(url: str, error: Exception) -> str:
    protocol = url.partition("://")[0]
    extra = _EXTRAS.get(protocol)
    if isinstance(error, ImportError):
        need = f'pip install "eyas[{extra}]"' if extra else str(error)
        return f"{url}: a package is missing that reads {protocol}://: {need}"
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return f"{url}: there is no {protocol}://; s3, gs, az, http and what else fsspec knows can be read."
    told = f"{type(error).__name__}: {error}".rstrip(": ")
    if _is_denied(error):
        where = _CREDENTIALS.get(extra or "", f"fsspec's settings for {protocol} (FSSPEC_{protocol.upper()}_...)")
        return f"{url}: access was refused ({told}). Credentials are taken from {where}."
    status = _status(error)
    if status is not None:
        return f"{url}: the server refuses ({told})."
    return f"{url} does not answer, after {len(PAUSES) + 1} tries ({told})."
