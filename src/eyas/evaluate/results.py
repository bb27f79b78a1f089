"""What prediction returns: one `Results` per image, with its boxes in pixels of that image."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyas.tables import html_table

_PAGE = 640  # pixels that the longer side of a picture has at most in a notebook
_LISTED = 20  # detections that are listed there


class Boxes:
    """Detections of one image as an array or tensor (n, 6): x1 y1 x2 y2 in pixels, score, class.

    Args:
        data: (n, 6), a NumPy array or a tensor; the properties are of the same kind.
        orig_shape: (h, w) of the image.
    """

    def __init__(self, data: NDArray | Tensor, orig_shape: tuple[int, int]) -> None:
        if data.ndim != 2 or data.shape[1] != 6:
            raise ValueError(f"boxes must have shape (n, 6): x1 y1 x2 y2 score class, not {tuple(data.shape)}")
        self.data = data
        self.orig_shape = (int(orig_shape[0]), int(orig_shape[1]))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        """A part of the boxes; an integer gives a `Boxes` of one."""
        return Boxes(self.data[index].reshape(-1, 6), self.orig_shape)

    def __repr__(self) -> str:
        return f"Boxes(n={len(self)}, orig_shape={self.orig_shape})"

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
        return self.data[:, 4]

    @property
    def cls(self) -> Any:
        """(n,) class ids, as floats like the rest of the row."""
        return self.data[:, 5]

    def numpy(self) -> Boxes:
        """The same boxes as a NumPy array."""
        data = self.data.detach().cpu().numpy() if isinstance(self.data, Tensor) else self.data
        return Boxes(data, self.orig_shape)

    def cpu(self) -> Boxes:
        """The same boxes on the CPU."""
        return Boxes(self.data.cpu(), self.orig_shape) if isinstance(self.data, Tensor) else self

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
        boxes: (n, 6) x1 y1 x2 y2 in pixels of `orig_img`, score, class.
        speed: milliseconds of preprocess, inference, postprocess.

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
    ) -> None:
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = orig_img.shape[:2]
        self.path = path
        self.names = dict(names)
        self.boxes = Boxes(boxes, self.orig_shape)
        self.speed = dict(speed or {})

    def __len__(self) -> int:
        return len(self.boxes)

    def __str__(self) -> str:
        """For example `street.jpg 480x640: 2 person, 1 dog`."""
        h, w = self.orig_shape
        counts = Counter(self.class_id.tolist())
        found = ", ".join(f"{count} {self.names[cls]}" for cls, count in sorted(counts.items()))
        return f"{Path(self.path).name} {h}x{w}: {found or 'nothing found'}"

    def __repr__(self) -> str:
        return f"Results({self})"

    def _repr_html_(self) -> str:
        """The drawn picture, no larger than a page is wide, and the best detections."""
        h, w = self.orig_shape
        scale = min(1.0, _PAGE / max(h, w))
        drawn = cv2.resize(
            self.plot(), (max(round(w * scale), 1), max(round(h * scale), 1)), interpolation=cv2.INTER_AREA
        )
        picture = base64.b64encode(cv2.imencode(".jpg", drawn)[1].tobytes()).decode()
        found = sorted(self.summary(decimals=1), key=lambda row: -row["confidence"])
        rows = [[row["name"], f"{row['confidence']:.2f}", *row["box"].values()] for row in found[:_LISTED]]
        table = html_table(("class", "score", "x1", "y1", "x2", "y2"), rows, str(self))
        return f'<img src="data:image/jpeg;base64,{picture}">{table}'

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

    def to_supervision(self) -> Any:
        """The detections as a `supervision.Detections`, with class names in its data.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        import supervision

        names = np.array([self.names[cls] for cls in self.class_id.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.xyxy, confidence=self.confidence, class_id=self.class_id, data={"class_name": names}
        )

    def plot(self, *, line_width: int | None = None, labels: bool = True, conf: bool = True) -> NDArray[np.uint8]:
        """The image with its detections drawn, (h, w, 3) uint8 BGR; `orig_img` stays as it is.

        Args:
            line_width: pixels; None chooses by the image's size.
            labels: write class names.
            conf: write scores.
        """
        from eyas.plot.images import draw_boxes

        return draw_boxes(
            self.orig_img,
            self.xyxy,
            self.class_id,
            names=self.names if labels else None,
            score=self.confidence if conf else None,
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
        """One dict per detection: name, class, confidence, box {x1, y1, x2, y2}.

        Args:
            normalize: boxes as shares of the image's size instead of pixels.
            decimals: digits kept.
        """
        boxes = self.boxes.numpy()
        corners = boxes.xyxyn if normalize else boxes.xyxy
        return [
            {
                "name": self.names[cls],
                "class": cls,
                "confidence": round(score, decimals),
                "box": {key: round(value, decimals) for key, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
            }
            for cls, score, box in zip(self.class_id.tolist(), self.confidence.tolist(), corners.tolist(), strict=True)
        ]
