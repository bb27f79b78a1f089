"""Published weights: where a file is, under which licence, and how it gets into the cache. Eyas ships none.

Which weights there are is said by the family whose models read them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eyas.checkpoint.file import existing
from eyas.data.cache import cache_root
from eyas.files import sha256_of
from eyas.log import LOGGER
from eyas.models.lineage import Ancestor
from eyas.names import nearest


@dataclass(frozen=True)
class Published:
    """One file of weights.

    Args:
        name: what it is called here.
        url: where it is.
        model: name of the model that it fits, in the catalogue.
        source: the project that published it.
        trained_on: data it was trained with, in order.
        licence: SPDX name.
        ap: box AP on COCO val2017 at 640 px in that project's table; None if it has none.
        sha256: of the file; None if not known, then only its length is checked.
    """

    name: str
    url: str
    model: str
    source: str
    trained_on: str = "COCO"
    licence: str = "Apache-2.0"
    ap: float | None = None
    sha256: str | None = None

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


class UnknownWeightsError(ValueError):
    """Neither a published file has this name, nor one on the disk."""


def find_published(name: str, entries: Mapping[str, Published]) -> Published:
    """Return the entry of a name, in any case.

    Raises:
        UnknownWeightsError: there is none; offers the nearest.
    """
    key = name.strip().lower()
    if key in entries:
        return entries[key]
    near = nearest(key, entries)
    hint = f"did you mean {near[0]!r}? " if near else ""
    no_file = "" if Path(name).is_file() else ", and no file is"
    raise UnknownWeightsError(
        f"no published weights are called {name!r}{no_file}: {hint}there are {', '.join(entries)}."
    )


def is_name(source: str | Path) -> bool:
    """Whether weights are given by a name: a text without folder and suffix that is no file."""
    path = Path(source)
    return isinstance(source, str) and not path.suffix and path.parent == Path() and not path.is_file()


def published_elsewhere(path: str | Path) -> bool:
    """Whether a file is named like weights that other projects publish, which Eyas neither ships nor fetches."""
    return re.fullmatch(r"(yolo|rtdetr)[\w.-]*\.pt", Path(path).name.lower()) is not None


def model_of(source: str | Path, entries: Mapping[str, Published]) -> str:
    """Return the name of the model that weights fit, known by their name or that of their file; "" if they are not."""
    key = Path(source).name.lower()
    return next((entry.model for entry in entries.values() if key in (entry.name, entry.file.lower())), "")


def located(weights: str | Path, entries: Mapping[str, Published]) -> tuple[Path, Ancestor]:
    """Return a file of weights, and what is known of it; published ones, by name, are fetched if they are not here.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownWeightsError: neither a published file has this name, nor one on the disk.
    """
    if not is_name(weights):
        path = existing(weights)
        return path, Ancestor(path.name, sha256=sha256_of(path))
    entry = find_published(str(weights), entries)
    path = fetch(entry)
    return path, Ancestor(entry.name, entry.licence, entry.source, entry.trained_on, sha256_of(path))


def fetch(entry: Published, cache_dir: str | Path | None = None) -> Path:
    """Return the path of a published file, fetched into the cache the first time.

    Its licence is logged then, and its size and checksum.

    A file of the same name that was put there by hand is used as it is.

    Raises:
        ValueError: it cannot be fetched, for example without a network, or is not what was published. Nothing is left.
    """
    from eyas.data.download import download_file  # brings the machinery of downloads, which few need

    path = cache_root(cache_dir) / "weights" / entry.file
    if path.is_file():
        return path
    LOGGER.info("%s: weights by %s under %s, trained on %s", entry.name, entry.source, entry.licence, entry.trained_on)
    try:
        download_file(entry.url, path, sha256=entry.sha256)
    except ValueError as error:
        raise ValueError(
            f"{error}\nWithout a network, fetch {entry.url} elsewhere and put it at {path}, or give the path of a file."
        ) from error
    LOGGER.info("%s: %s bytes, sha256 %s, kept at %s", entry.name, f"{path.stat().st_size:,}", sha256_of(path), path)
    return path
