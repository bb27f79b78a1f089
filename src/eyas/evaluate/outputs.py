"""The files of a prediction: annotated pictures and videos, label files, and cut-out objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2

from eyas.evaluate.results import Results
from eyas.log import LOGGER

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of pictures in colour that every OpenCV writes; what was read from another format is written as .jpg."""
CODECS = ((".mp4", "mp4v"), (".avi", "MJPG"))  # every OpenCV writes the second


class Outputs:
    """Writes files for results as they pass.

    In the folder: pictures under their own names (`street.jpg`, also of `street.heic`), videos as one (`street.mp4`),
    pages of a file as `scan_2.jpg`; `labels/street.txt`, of frames and pages `labels/street_7.txt`;
    `crops/<class>/street.jpg`; frames as pictures `street_frames/7.jpg`. Files of equal names get a number in front.

    Args:
        place: opens the folder.
        pictures: write annotated pictures and videos.
        txt: write detections as label files.
        conf: with their scores.
        crops: write every detection's part of the picture.
        frames: write the frames of videos as annotated pictures too.
        plot: arguments of `Results.plot`.
    """

    def __init__(
        self,
        place: AbstractContextManager[Path],
        *,
        pictures: bool = True,
        txt: bool = False,
        conf: bool = False,
        crops: bool = False,
        frames: bool = False,
        plot: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = place
        self.pictures, self.txt, self.conf, self.crops, self.frames = pictures, txt, conf, crops, frames
        self.plot = dict(plot or {})

    def __call__(self, results: Iterator[Results]) -> Iterator[Results]:
        """Pass results on, and write their files; a video is finished when its last frame, or all, have passed."""
        names, written, video = Names(), 0, VideoFile()
        with self.place as folder, video:
            for result in results:
                self._write(result, folder, names.of(result), video)
                written += 1
                result.saved_in = folder
                yield result
            LOGGER.info("%d %s in %s", written, "pictures" if self.pictures else "results", folder)

    def _write(self, result: Results, folder: Path, name: Path, video: VideoFile) -> None:
        """Write the files of one result."""
        part = "" if result.frame is None else f"_{result.frame}"
        if self.txt and len(result):
            result.save_txt(folder / "labels" / f"{name.stem}{part}.txt", self.conf)
        if self.crops:
            result.save_crop(folder / "crops", f"{name.stem}{part}.jpg")
        is_video = result.fps is not None
        if self.pictures and is_video:
            video.write(folder / name.stem, result.plot(**self.plot), result.fps or 0)
        elif self.pictures:
            result.save(folder / f"{name.stem}{part}{name.suffix}", **self.plot)
        if self.frames and is_video:
            result.save(folder / f"{name.stem}_frames" / f"{result.frame}.jpg", **self.plot)


class Names:
    """Gives every file of a source a name of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: tuple[str, Path] | None = None
        self._count = 0

    def of(self, result: Results) -> Path:
        """The name of a result's file, with a suffix; frames of one video share it."""
        if result.frame not in (None, 1) and self._last is not None and self._last[0] == result.path:
            return self._last[1]
        name = file_name(result.path) or f"image{self._count}"
        suffix = Path(name).suffix  # an array has no file's name
        name = name if suffix.lower() in PICTURES or result.fps is not None else f"{name.removesuffix(suffix)}.jpg"
        name = name if Path(name).stem not in self._taken else f"{self._count}_{name}"
        self._taken.add(Path(name).stem)
        self._count += 1
        self._last = result.path, Path(name)
        return self._last[1]


def file_name(path: str) -> str:
    """The last part of a path or an address."""
    return Path(PurePosixPath(unquote(urlsplit(path).path)).name if "://" in path else path).name


class VideoFile:
    """The one video that is being written; another name ends it and begins the next."""

    def __init__(self) -> None:
        self.opened: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, path: Path, frame: Any, fps: float) -> None:
        """Append a frame (h, w, 3) uint8 BGR to a video; one of another size is fitted to the first.

        Args:
            path: of the video, without a suffix.
            frame: the picture.
            fps: frames per second.

        Raises:
            OSError: the file cannot be written.
        """
        if path != self.opened or self._writer is None:
            self.close()
            self._size = frame.shape[1], frame.shape[0]
            self._writer, self.opened = _writer(path, fps, self._size), path
        fitted = frame if (frame.shape[1], frame.shape[0]) == self._size else cv2.resize(frame, self._size)
        self._writer.write(fitted)

    def close(self) -> None:
        """Finish the video."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None


def _writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    for suffix, codec in CODECS:
        file = path.parent / f"{path.name}{suffix}"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
        writer.release()
    raise OSError(f"cannot write a video {path}{CODECS[0][0]}")
