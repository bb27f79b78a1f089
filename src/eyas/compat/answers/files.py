"""``ultralytics.utils.files`` and ``.downloads``: free names, and files from an address."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eyas.data.download import ARCHIVES, download_file, unpack
from eyas.files import expanded
from eyas.names import did_you_mean


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """Return ``path``, or with the lowest number from 2 up that is free (``runs/exp`` -> ``runs/exp2``).

    Args:
        path: file or folder; a file's number stands before its suffix.
        exist_ok: take ``path`` though it is there.
        sep: text in front of the number.
        mkdir: make the folder.
    """
    path = Path(path)
    if path.exists() and not exist_ok:
        stem, suffix = (path.with_suffix(""), path.suffix) if path.is_file() else (path, "")
        numbered = (Path(f"{stem}{sep}{number}{suffix}") for number in itertools.count(2))
        path = next(candidate for candidate in numbered if not candidate.exists())
    if mkdir:
        path.mkdir(parents=True, exist_ok=True)
    return path


def download(
    url: str | Sequence[str],
    dir: str | Path = ".",
    unzip: bool = True,
    delete: bool = False,
    curl: bool = False,
    threads: int = 1,
    retry: int = 3,
    exist_ok: bool = True,
) -> None:
    """Fetch files into a folder and unpack archives there; what is there already is not fetched again.

    Args:
        url: http(s) address, or several.
        dir: folder, made where it is missing.
        unzip: unpack zip and tar archives into ``dir``. delete: remove an archive afterwards.
        curl, threads, retry: kept for callers of the incumbent's function; files are fetched one after the other.
        exist_ok: False refuses to find a file there.

    Raises:
        ValueError: no http(s) address, a failed transfer, or an archive that would write outside ``dir``.
        FileExistsError: ``exist_ok`` is False, and the file is there.
    """
    folder = Path(dir)
    for address in [url] if isinstance(url, str | Path) else url:
        target = folder / Path(str(address).partition("?")[0]).name
        if target.exists() and not exist_ok:
            raise FileExistsError(f"{target} is there already.")
        safe_download(str(address), target, unzip=unzip, delete=delete)


def safe_download(
    url: str, file: str | Path | None = None, dir: str | Path | None = None, unzip: bool = True, delete: bool = False
) -> Path:
    """Fetch one file, see `download`, and return where it is; an archive is unpacked beside it.

    Args:
        url: http(s) address. file: where to; None for the address' own name in ``dir``, or here.

    Raises:
        ValueError: as `download`.
    """
    target = Path(file) if file is not None else Path(dir or ".") / Path(str(url).partition("?")[0]).name
    download_file(str(url), target)
    if unzip and target.name.lower().endswith(ARCHIVES):
        unpack_into(target, target.parent)
        if delete:
            target.unlink()
    return target


def unpack_into(archive: Path, folder: Path) -> None:
    """Unpack an archive beside what a folder holds already."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        unpack(archive, Path(fresh) / "unpacked")
        shutil.copytree(Path(fresh) / "unpacked", folder, dirs_exist_ok=True)


def check_file(file: str | Path, suffix: str | Sequence[str] = "", download: bool = False, hard: bool = True) -> str:
    """Return the path of a file that is there; ``""`` stays as it is, and addresses are for `download`.

    Raises:
        FileNotFoundError: it is not there; names the nearest file beside it. With ``hard=False`` "" is returned.
        ValueError: its suffix is none of ``suffix``.
    """
    text = str(file).strip()
    wanted = [suffix] if isinstance(suffix, str) else list(suffix)
    path = expanded(text)
    if not text or path.is_file():
        if text and any(wanted) and path.suffix.lower() not in wanted:
            raise ValueError(f"{text} must end in {' or '.join(wanted)}.")
        return text and str(path)
    if not hard:
        return ""
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FileNotFoundError(f"there is no file {path.absolute()}.{did_you_mean(path.name, beside)}")


def check_yaml(file: str | Path, suffix: str | Sequence[str] = (".yaml", ".yml"), hard: bool = True) -> str:
    """Return the path of a YAML file that is there, see `check_file`."""
    return check_file(file, suffix, hard=hard)
