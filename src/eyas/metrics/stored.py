"""What validations found, as files from which any metric can be computed later: `eyas best`.

Detections of an epoch are one file, the ground truth of all epochs is another. A detection takes about 30 bytes before
compression; of more than ``MOST``, those with the highest scores are kept, and everything that counts detections above
the lowest of these scores stays exact.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyas.files import replacing
from eyas.metrics.detection import DetMetrics
from eyas.metrics.matching import IOU_THRESHOLDS

MOST = 200_000  # detections of an epoch: 6 MB before compression
FOLDER = "predictions"
Arrays = dict[str, NDArray]
_TRUTH = ("target_cls", "target_img", "target_box")
_FOUND = ("conf", "pred_cls", "pred_img", "pred_box")


class Kept(NamedTuple):
    """What a file holds of an epoch.

    Attributes:
        metrics: processed, as after the validation.
        complete: whether all detections are there.
        exact_from: the lowest score that is there, where not all are; else 0.
    """

    metrics: DetMetrics
    complete: bool
    exact_from: float


def write_epoch(folder: Path, epoch: int, metrics: DetMetrics, most: int = MOST) -> Path:
    """Write what a validation has found, and its ground truth unless that is there; both whole or not at all.

    Args:
        folder: of the run's predictions; it is made.
        epoch: 1-based.
        metrics: processed.
        most: detections that are kept.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stats = metrics.stats
    truth_file = write_truth(folder, metrics)
    kept = np.arange(len(stats["conf"]))
    if len(kept) > most:
        kept = np.sort(np.argsort(-stats["conf"], kind="stable")[:most])
    found = {key: stats[key][kept] for key in _FOUND}
    found |= {key: np.packbits(stats[key][kept], axis=1) for key in ("tp", "excused")}
    about = {"truth": truth_file.name, "detections": len(stats["conf"])}
    return write(folder / f"epoch{epoch}.npz", narrowed(found) | {"about": as_bytes(about)})


def write_truth(folder: Path, metrics: DetMetrics) -> Path:
    """Write the ground truth unless it is there; that of data which changed in a run's life beside the first."""
    truth = {key: metrics.stats[key] for key in _TRUTH}
    about = {"names": list(metrics.names.items()), "files": metrics.image_files}
    known = digest(truth | {"about": as_bytes(about)})
    path = folder / "truth.npz"
    if path.exists() and from_bytes(read(path, "about")["about"])["digest"] != known:
        path = folder / f"truth-{known}.npz"
    return path if path.exists() else write(path, narrowed(truth) | {"about": as_bytes(about | {"digest": known})})


def read_epoch(path: Path, classes: Collection[int] | None = None) -> Kept:
    """Return what a validation had found.

    Args:
        path: a file of ``write_epoch``.
        classes: ids of the classes that are looked at; None for all.

    Raises:
        ValueError: a file is damaged, or the one of the ground truth is missing.
    """
    found = read(path)
    about = from_bytes(found["about"])
    truth = read(path.parent / str(about["truth"]))
    of = from_bytes(truth["about"])
    metrics = DetMetrics(_names(of))
    width = len(IOU_THRESHOLDS)
    bits = {key: np.unpackbits(found[key], axis=1, count=width).astype(bool) for key in ("tp", "excused")}
    seen = chosen(found["pred_cls"], classes)
    true = chosen(truth["target_cls"], classes)
    metrics.update(
        **{key: found[key][seen] for key in _FOUND},
        **{key: rows[seen] for key, rows in bits.items()},
        **{key: truth[key][true] for key in _TRUTH},
        image_files=[str(file) for file in of["files"]],
    )
    metrics.process()
    complete = int(about["detections"]) == len(found["conf"])
    return Kept(metrics, complete, 0.0 if complete else float(found["conf"].min()))


def names_in(path: Path) -> dict[int, str]:
    """Return the classes of a validation by their ids, without computing anything of it.

    Raises:
        ValueError: as `read_epoch`.
    """
    truth = from_bytes(read(path, "about")["about"])["truth"]
    return _names(from_bytes(read(path.parent / str(truth), "about")["about"]))


def _names(about: dict[str, Any]) -> dict[int, str]:
    return {int(number): str(name) for number, name in about["names"]}


def epochs_in(folder: Path) -> dict[int, Path]:
    """Return the files of a folder by their 1-based epochs, in order."""
    found = {
        int(match[1]): path for path in folder.glob("epoch*.npz") if (match := re.fullmatch(r"epoch(\d+)", path.stem))
    }
    return dict(sorted(found.items()))


def chosen(ids: NDArray, classes: Collection[int] | None) -> NDArray[np.bool_]:
    """Return which rows are of these classes."""
    return np.ones(len(ids), bool) if classes is None else np.isin(ids, list(classes))


# -- files -------------------------------------------------------------------------------------------------------------
def narrowed(arrays: Mapping[str, NDArray]) -> Arrays:
    """Return whole numbers in four bytes each: there are fewer images and classes than that."""
    return {key: value.astype(np.int32) if value.dtype == np.int64 else value for key, value in arrays.items()}


def digest(arrays: Mapping[str, NDArray]) -> str:
    """Return a short hash of what arrays hold."""
    total = hashlib.sha256()
    for key, value in arrays.items():
        total.update(f"{key} {value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()[:16]


def write(path: Path, arrays: Mapping[str, NDArray]) -> Path:
    """Write arrays into a file, whole or not at all."""
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stubs take the file's arrays for switches
    return path


def read(path: Path, *names: str) -> Arrays:
    """Return the arrays of a file, or those of these names.

    Raises:
        ValueError: it is missing, damaged, or none of ours.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return {key: file[key] for key in names or file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}); it is written by each validation of a training.") from error


def as_bytes(value: object) -> NDArray[np.uint8]:
    """Return a plain value as an array: files of arrays hold nothing else."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def from_bytes(content: NDArray[np.uint8]) -> dict[str, Any]:
    """Return what ``as_bytes`` was given."""
    value: dict[str, Any] = json.loads(content.tobytes())
    return value
