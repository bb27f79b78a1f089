"""``ultralytics.utils.plotting``: Eyas' pictures by the incumbent's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eyas.compat.answers.metrics import as_names
from eyas.plot.images import FONT, save_batch_picture, write_image, write_label
from eyas.plot.labels import save_labels_picture
from eyas.plot.results import save_results_picture
from eyas.plot.style import class_rgb

Color = tuple[int, int, int]
Told = Callable[[Path], object] | None


class Colors:
    """The colour of each class: ``colors(i)`` is (r, g, b) in 0..255, ``colors(i, True)`` (b, g, r)."""

    n = 20

    @property
    def palette(self) -> list[Color]:
        """The first colours, (r, g, b)."""
        return [self(i) for i in range(self.n)]

    def __call__(self, i: int, bgr: bool = False) -> Color:
        r, g, b = (round(255 * value) for value in class_rgb(int(i)))
        return (b, g, r) if bgr else (r, g, b)

    @staticmethod
    def hex2rgb(h: str) -> Color:
        """Return the colour of a text such as ``#04f2aa``."""
        r, g, b = bytes.fromhex(h.removeprefix("#"))
        return r, g, b


colors = Colors()


class Annotator:
    """Draws boxes and texts onto an image, in place where it is an array that may be written to.

    Args:
        im: (h, w, 3) uint8 BGR, or a PIL image.
        line_width: pixels; None chooses by the size of the image.
        example, font_size, font, pil: kept for callers of the incumbent's class: one font is used.

    Attributes:
        im: the image drawn on. lw: width of lines in pixels.
    """

    def __init__(
        self,
        im: Any,
        line_width: int | None = None,
        font_size: float | None = None,
        font: str = "Arial.ttf",
        pil: bool = False,
        example: str = "abc",
    ) -> None:
        if not isinstance(im, np.ndarray):  # a PIL image
            im = np.asarray(im.convert("RGB"))[..., ::-1]
        writable = im.flags.writeable and im.flags.c_contiguous
        self.im: NDArray[np.uint8] = im if writable else np.array(im, order="C")
        self.lw = line_width or max(round(sum(self.im.shape[:2]) / 2 * 0.003), 2)

    def box_label(
        self, box: Any, label: str = "", color: Color = (128, 128, 128), txt_color: Color = (255, 255, 255)
    ) -> None:
        """Draw corners (4,) in pixels, and a text above. Its colour follows the patch, so that it can be read.

        Args:
            color: (b, g, r).
        """
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(self.im, (x1, y1), (x2, y2), color, self.lw, cv2.LINE_AA)
        if label:
            write_label(self.im, label, (x1, y1), color, self.lw)

    def rectangle(
        self, xy: Sequence[float], fill: Color | None = None, outline: Color | None = None, width: int = 1
    ) -> None:
        """Draw corners (4,) in pixels, filled or not; colours are (b, g, r)."""
        x1, y1, x2, y2 = (round(float(value)) for value in xy)
        if fill is not None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), fill, -1)
        if outline is not None or fill is None:
            cv2.rectangle(self.im, (x1, y1), (x2, y2), outline or (0, 0, 0), width, cv2.LINE_AA)

    def text(self, xy: Sequence[float], text: str, txt_color: Color = (255, 255, 255), anchor: str = "top") -> None:
        """Write at a point, the text's upper left corner, or with ``anchor="bottom"`` its lower left one."""
        size, thick = max(self.lw / 3, 0.42), max(self.lw - 1, 1)
        height = cv2.getTextSize(text, FONT, size, thick)[0][1] if anchor == "top" else 0
        cv2.putText(self.im, text, (round(xy[0]), round(xy[1]) + height), FONT, size, txt_color, thick, cv2.LINE_AA)

    def result(self, pil: bool = False) -> Any:
        """Return the image, an array (h, w, 3) BGR, or a PIL image."""
        if not pil:
            return self.im
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(self.im[..., ::-1]))

    def save(self, filename: str | Path = "image.jpg") -> None:
        """Write the image."""
        write_image(Path(filename), self.im)


def plot_images(
    labels: Any = None,
    batch_idx: Any = None,
    cls: Any = None,
    bboxes: Any = None,
    confs: Any = None,
    paths: Sequence[str] | None = None,
    fname: str | Path = "images.jpg",
    names: Any = None,
    on_plot: Told = None,
    conf_thres: float = 0.25,
    *,
    images: Any = None,
    **others: Any,
) -> Path:
    """Write the first 16 images of a batch with their boxes as one sheet; returns its path.

    Args:
        labels: a batch with ``img``, ``cls``, ``bboxes``, ``batch_idx``, and perhaps ``conf`` and ``im_file``; or
            (older calls) its images, and all else one by one.
        images: (B, 3, H, W) RGB, uint8 or float in [0, 1].
        batch_idx: (n,) image of each box. cls: (n,) classes.
        bboxes: (n, 4) centre and size, as shares of the image, or in pixels where one is above 1.1.
        confs: (n,) scores; those up to ``conf_thres`` are left out. names: by class. on_plot: told of the picture.
    """
    if others:
        raise ValueError(f"plot_images does not take {', '.join(others)}: it draws boxes.")
    pictures = images if images is not None else labels
    if isinstance(labels, Mapping):
        pictures = labels["img"] if images is None else images
        batch_idx, cls, bboxes = (labels.get(name) for name in ("batch_idx", "cls", "bboxes"))
        confs, paths = labels.get("conf", confs), paths or labels.get("im_file")
    image, ids, boxes = _rows(batch_idx), _rows(cls), _rows(bboxes).reshape(-1, 4)
    pixels = _rows(pictures)
    scores = None if confs is None else _rows(confs)
    keep = np.ones(len(boxes), bool) if scores is None else scores > conf_thres
    path = save_batch_picture(
        Path(fname),
        pixels,
        boxes=_corners(boxes, pixels.shape[-2:])[keep],
        cls=ids.reshape(-1).astype(np.int64)[keep],
        image=image.reshape(-1).astype(np.int64)[keep],
        names=as_names(names) or {int(i): str(int(i)) for i in ids.reshape(-1)},
        score=None if scores is None else scores[keep],
        titles=paths or (),
    )
    if on_plot is not None:
        on_plot(path)
    return path


def _rows(values: Any) -> NDArray:
    if values is None:
        return np.zeros(0, np.float32)
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _corners(boxes: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Return corners in pixels of centre and size, which may be shares of the image."""
    shares = not len(boxes) or boxes.max() <= 1.1  # shares may stick out a little
    scaled = boxes * (np.array([shape[1], shape[0], shape[1], shape[0]]) if shares else 1)
    centre, half = scaled[:, :2], scaled[:, 2:] / 2
    return np.concatenate((centre - half, centre + half), 1)


def plot_labels(boxes: Any, cls: Any, names: Any = (), save_dir: str | Path = "", on_plot: Told = None) -> Path:
    """Write labels.jpg: classes, and where boxes (n, 4) cx cy w h in shares of the image are; returns its path."""
    ids = _rows(cls).reshape(-1)
    known = as_names(names) or {int(i): str(int(i)) for i in np.unique(ids)}
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    path = save_labels_picture(ids, _rows(boxes), known, Path(save_dir) / "labels.jpg")
    if on_plot is not None:
        on_plot(path)
    return path


def plot_results(file: str | Path = "path/to/results.csv", dir: str | Path = "", on_plot: Told = None) -> Path:
    """Write results.png beside a run's table; returns its path.

    Args:
        file: ``results.csv``, or empty to look into ``dir``.

    Raises:
        FileNotFoundError: there is no table. ValueError: it has no rows.
    """
    table = Path(dir) / "results.csv" if dir else Path(file)
    if not table.is_file():
        raise FileNotFoundError(f"there is no table of a run at {table.absolute()}.")
    path = save_results_picture(table)
    if on_plot is not None:
        on_plot(path)
    return path
