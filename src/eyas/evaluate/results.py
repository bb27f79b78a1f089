"""What prediction returns: one `Results` per image, with its boxes in pixels of that image."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, SupportsIndex, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas.log import LOGGER
from eyas.notebook import in_notebook
from eyas.tables import html_table

_PAGE = 640  # pixels that the longer side of a picture has at most in a notebook
_LISTED = 20  # detections that are listed there
_TILE, _TILES = 224, 12  # pixels of the longer side of a picture in a grid, and how many it has


class Boxes:
    """Detections of one image as an array or tensor (n, 6): x1 y1 x2 y2 in pixels, score, class; of tracked objects
    (n, 7): x1 y1 x2 y2 in pixels, id, score, class.

    Args:
        data: (n, 6) or (n, 7), a NumPy array or a tensor; the properties are of the same kind.
        orig_shape: (h, w) of the image.
    """

    def __init__(self, data: NDArray | Tensor, orig_shape: tuple[int, int]) -> None:
        if data.ndim != 2 or data.shape[1] not in (6, 7):
            raise ValueError(
                f"boxes must have shape (n, 6): x1 y1 x2 y2 score class, or (n, 7) with an id before the score, "
                f"not {tuple(data.shape)}"
            )
        self.data = data
        self.orig_shape = (int(orig_shape[0]), int(orig_shape[1]))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Self:
        """A part of the boxes; an integer gives boxes of one."""
        return type(self)(self.data[index].reshape(-1, self.data.shape[1]), self.orig_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={len(self)}, orig_shape={self.orig_shape})"

    @property
    def xyxy(self) -> Any:
        """(n, 4) corners in pixels."""
        return self.data[:, :4]

    @property
    def xywh(self) -> Any:
        """(n, 4) centre, width and height in pixels."""
        x1, y1, x2, y2 = (self.data[:, i] for i in range(4))
        return self._stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])

    @property
    def xyxyn(self) -> Any:
        """(n, 4) corners divided by the image's size."""
        return self._normalized(self.xyxy)

    @property
    def xywhn(self) -> Any:
        """(n, 4) centre, width and height divided by the image's size."""
        return self._normalized(self.xywh)

    @property
    def conf(self) -> Any:
        """(n,) scores in [0, 1]."""
        return self.data[:, -2]

    @property
    def cls(self) -> Any:
        """(n,) class ids, as floats like the rest of the row."""
        return self.data[:, -1]

    @property
    def is_track(self) -> bool:
        """Whether the objects were tracked."""
        return bool(self.data.shape[1] == 7)

    @property
    def id(self) -> Any:
        """(n,) ids of tracked objects, as floats like the rest of the row; None where nothing was tracked."""
        return self.data[:, 4] if self.is_track else None

    def numpy(self) -> Self:
        """The same boxes as a NumPy array."""
        data = self.data.detach().cpu().numpy() if isinstance(self.data, Tensor) else self.data
        return type(self)(data, self.orig_shape)

    def cpu(self) -> Self:
        """The same boxes on the CPU."""
        return type(self)(self.data.cpu(), self.orig_shape) if isinstance(self.data, Tensor) else self

    def _normalized(self, boxes: Any) -> Any:
        h, w = self.orig_shape
        size = [w, h, w, h]
        return boxes / (boxes.new_tensor(size) if isinstance(boxes, Tensor) else np.array(size, boxes.dtype))

    def _stack(self, columns: list[Any]) -> Any:
        return torch.stack(columns, 1) if isinstance(self.data, Tensor) else np.stack(columns, 1)


class Results:
    """Detections of one image.

    Args:
        orig_img: (h, w, 3) uint8 BGR.
        path: file of the image, or a name such as "image0" for an array.
        names: class names by id.
        boxes: (n, 6) x1 y1 x2 y2 in pixels of `orig_img`, score, class; (n, 7) with ids, as `Boxes` takes them.
        speed: milliseconds of preprocess, inference, postprocess.
        frame: number, from 1, of the frame of a video or the page of a file; None for an image of its own.
        fps: frames per second of the video that it is of.

    Attributes:
        saved_in: folder that ``predict(save=True)`` has written its picture into; None without that.
    """

    saved_in: Path | None = None

    def __init__(
        self,
        orig_img: NDArray[np.uint8],
        path: str,
        names: Mapping[int, str],
        boxes: NDArray | Tensor,
        speed: Mapping[str, float] | None = None,
        frame: int | None = None,
        fps: float | None = None,
    ) -> None:
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = orig_img.shape[:2]
        self.path = path
        self.names = dict(names)
        self.boxes = Boxes(boxes, self.orig_shape)
        self.speed = dict(speed or {})
        self.frame = frame
        self.fps = fps

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        """For example `street.jpg 480x640: 2 person, 1 dog`, or `street.mp4 frame 7 480x640: ...`."""
        h, w = self.orig_shape
        counts = Counter(self.class_id.tolist())
        found = ", ".join(f"{count} {self.names[cls]}" for cls, count in sorted(counts.items()))
        part = "" if self.frame is None else f" {'page' if self.fps is None else 'frame'} {self.frame}"
        return f"{Path(self.path).name}{part} {h}x{w}: {found or 'nothing found'}"

    def __repr__(self) -> str:
        return f"Results({self})"

    def _repr_html_(self) -> str:
        """The drawn picture, no larger than a page is wide, and the best detections."""
        found = sorted(self.summary(decimals=1), key=lambda row: -row["confidence"])
        rows = [[row["name"], f"{row['confidence']:.2f}", *row["box"].values()] for row in found[:_LISTED]]
        table = html_table(("class", "score", "x1", "y1", "x2", "y2"), rows, str(self))
        return self.picture(_PAGE, enlarged=False) + table

    def picture(self, side: int, enlarged: bool = True) -> str:
        """The drawn image as part of a page of HTML.

        Args:
            side: pixels that its longer side has.
            enlarged: False leaves a smaller image as it is.
        """
        from eyas.plot.inline import jpeg, sized

        image, scale = sized(self.orig_img, side, enlarged)
        rows = self.boxes.numpy().data * np.array([scale] * 4 + [1] * (self.boxes.data.shape[1] - 4))
        return jpeg(Results(image, self.path, self.names, rows).plot(), str(self))

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """(n, 4) float32 corners in pixels."""
        return np.ascontiguousarray(self.boxes.numpy().xyxy, dtype=np.float32)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(n,) float32 scores."""
        return np.ascontiguousarray(self.boxes.numpy().conf, dtype=np.float32)

    @property
    def class_id(self) -> NDArray[np.int64]:
        """(n,) int64 class ids."""
        return self.boxes.numpy().cls.astype(np.int64)

    @property
    def track_id(self) -> NDArray[np.int64] | None:
        """(n,) int64 ids of tracked objects; None where nothing was tracked."""
        return self.boxes.numpy().id.astype(np.int64) if self.boxes.is_track else None

    def with_boxes(self, boxes: NDArray | Tensor) -> Self:
        """The result with other boxes, (n, 6) or (n, 7)."""
        other = type(self)(self.orig_img, self.path, self.names, boxes, self.speed, self.frame, self.fps)
        other.saved_in = self.saved_in
        return other

    def to_supervision(self) -> Any:
        """The detections as a `supervision.Detections`, with class names in its data and ids of tracked objects.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('to_supervision() needs supervision: pip install "eyas[track]"') from error

        names = np.array([self.names[cls] for cls in self.class_id.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id,
            tracker_id=self.track_id,
            data={"class_name": names},
        )

    def plot(self, *, line_width: int | None = None, labels: bool = True, conf: bool = True) -> NDArray[np.uint8]:
        """The image with its detections drawn, (h, w, 3) uint8 BGR; `orig_img` stays as it is.

        Args:
            line_width: pixels; None chooses by the image's size.
            labels: write class names, and ids of tracked objects.
            conf: write scores.
        """
        from eyas.plot.images import draw_boxes

        return draw_boxes(
            self.orig_img,
            self.xyxy,
            self.class_id,
            names=self.names if labels else None,
            score=self.confidence if conf else None,
            ids=self.track_id if labels else None,
            line_width=line_width,
        )

    def save(self, path: str | Path | None = None, **plot_options: Any) -> Path:
        """Write the drawn image; without a path, `<name>_pred.jpg` in the working folder. Folders are made.

        Raises:
            ValueError: the file's suffix is no image format.
            OSError: the file cannot be written.
        """
        path = Path(path) if path is not None else Path(f"{Path(self.path).stem}_pred.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            written = cv2.imwrite(str(path), self.plot(**plot_options))
        except cv2.error:
            raise ValueError(f"cannot save a picture as {path.name!r}: end the name in .jpg or .png") from None
        if not written:
            raise OSError(f"cannot write {path}")
        return path

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """One dict per detection: name, class, confidence, box {x1, y1, x2, y2}, and track_id of tracked objects.

        Args:
            normalize: boxes as shares of the image's size instead of pixels.
            decimals: digits kept.
        """
        boxes = self.boxes.numpy()
        corners = boxes.xyxyn if normalize else boxes.xyxy
        rows: list[dict[str, Any]] = [
            {
                "name": self.names[cls],
                "class": cls,
                "confidence": round(score, decimals),
                "box": {key: round(value, decimals) for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
            }
            for cls, score, box in zip(self.class_id.tolist(), self.confidence.tolist(), corners.tolist(), strict=True)
        ]
        for row, number in zip(rows, [] if self.track_id is None else self.track_id.tolist(), strict=False):
            row["track_id"] = number
        return rows

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """``summary()`` as JSON."""
        return json.dumps(self.summary(normalize, decimals), indent=2)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """``summary()`` as text: a line for each detection, with the corners of its box in columns x1, y1, x2, y2."""
        text = io.StringIO()
        columns = [
            "name",
            "class",
            "confidence",
            "x1",
            "y1",
            "x2",
            "y2",
            *(["track_id"] if self.boxes.is_track else []),
        ]
        lines = csv.DictWriter(text, columns, lineterminator="\n")
        lines.writeheader()
        for row in self.summary(normalize, decimals):
            lines.writerow({key: value for key, value in row.items() if key != "box"} | row["box"])
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """``summary()`` as a table of pandas, or of polars where pandas is not installed; a box is one cell.

        Raises:
            ModuleNotFoundError: neither is installed.
        """
        rows = self.summary(normalize, decimals)
        columns = ["name", "class", "confidence", "box", *(["track_id"] if self.boxes.is_track else [])]
        for library in ("pandas", "polars"):
            if find_spec(library):
                return import_module(library).DataFrame(rows or {column: [] for column in columns})
        raise ModuleNotFoundError("to_df() needs pandas or polars: pip install pandas; summary() gives the same rows")

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> Path | str:
        """Append one line per detection to a file: class cx cy w h [score] [id], normalised; returns its path.

        Without a detection nothing is written, and the file may not be there.
        """
        boxes, path = self.boxes.numpy(), Path(txt_file)
        columns = [boxes.xywhn, *([boxes.conf[:, None]] if save_conf else [])]
        ids = [""] * len(self) if self.track_id is None else [f" {number}" for number in self.track_id.tolist()]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not len(self):
            return path
        with path.open("a", encoding="utf-8") as file:
            for cls, row, tail in zip(self.class_id.tolist(), np.hstack(columns).tolist(), ids, strict=True):
                file.write(" ".join([str(cls), *(f"{value:g}" for value in row)]) + f"{tail}\n")
        return path

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Write each detection's part of the image as ``<save_dir>/<class>/<file name>``, numbered from the second."""
        for number, (cls, box) in enumerate(zip(self.class_id.tolist(), self.xyxy.round().astype(int), strict=True), 1):
            x1, y1, x2, y2 = box.clip(0).tolist()
            part = self.orig_img[y1:y2, x1:x2]
            if part.size:
                name = Path(file_name)
                tail = "" if number == 1 else f"_{number}"
                folder = re.sub(r"[/\\:]|^\.+$", "_", self.names[cls])  # a name is no way out of the folder
                path = Path(save_dir) / folder / f"{name.stem}{tail}{name.suffix or '.jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), part)

    def show(self, **plot_options: Any) -> None:
        """Show the drawn image: in a notebook below the cell, else in the system's viewer.

        Where there is no display, it only says so.
        """
        from PIL import Image

        drawn = Image.fromarray(self.plot(**plot_options)[..., ::-1])
        if in_notebook():
            from IPython.display import display  # a notebook has it

            display(drawn)
        elif has_display():
            drawn.show(self.path)
        else:
            LOGGER.warning("there is no display to show %s on: .save('found.jpg') writes the picture", self.path)


class ResultList(list[Results]):
    """Results of several images, which a notebook shows as a grid."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Results: ...

    @overload
    def __getitem__(self, index: slice) -> ResultList: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Results | ResultList:
        """One of them, or a part as a list of the same kind."""
        return ResultList(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def _repr_html_(self) -> str:
        from eyas.plot.inline import side_by_side

        tiles = [result.picture(_TILE) for result in self[:_TILES]]
        more = f"<p>and {len(self) - _TILES} more</p>" if len(self) > _TILES else ""
        return side_by_side(tiles) + more


def has_display() -> bool:
    """Whether the system can open a window."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
