"""A trained model as a second opinion: what it finds in the images of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from eyas.doctor.case import Split
from eyas.doctor.finding import Seen

if TYPE_CHECKING:
    from eyas.api import YOLO

FAINT = 0.05  # score from which on something counts as found at all
MOST = 300  # detections of an image
IMGSZ = 640  # px, for a model that remembers no other


class SecondOpinion:
    """A trained model that looks at images of a data set.

    Args:
        model: checkpoint.
        names: classes of the data set by id; those of the model are matched by name.
        imgsz: length of the long side of its input, px; None: that of its training.
        device: where it runs; None: the best there is.

    Raises:
        ValueError: the model knows no class of the data set.
    """

    def __init__(
        self, model: str, names: Mapping[int, str], *, imgsz: int | None = None, device: str | int | None = None
    ) -> None:
        from eyas.api import YOLO

        self.yolo: YOLO = YOLO(model)
        ids = {name: i for i, name in names.items()}
        self.class_of = {i: ids[name] for i, name in self.yolo.names.items() if name in ids}
        if not self.class_of:
            raise ValueError(
                f"model={model} knows {', '.join(self.yolo.names.values())}, and the data set has "
                f"{', '.join(names.values())}: no class is the same, so it has no opinion on these labels."
            )
        self.imgsz = imgsz or self.yolo.remembered("predict").get("imgsz", IMGSZ)
        self.device = device

    def look_at(self, split: Split) -> Iterator[tuple[int, tuple[Seen, ...]]]:
        """Yield each image that can be decoded, by number, and what is found in it, in classes of the data set."""
        images = [i for i in range(len(split)) if i not in split.pixels.broken]
        if not images:
            return
        where = {} if self.device is None else {"device": self.device}
        paths = [split.index.path(i) for i in images]
        results = self.yolo.predict(paths, stream=True, conf=FAINT, max_det=MOST, imgsz=self.imgsz, **where)
        for i, result in zip(images, results, strict=True):
            rows = zip(result.xyxy.tolist(), result.class_id.tolist(), result.confidence.tolist(), strict=True)
            seen = [Seen((x1, y1, x2, y2), self.class_of.get(cls, -1), score) for (x1, y1, x2, y2), cls, score in rows]
            yield i, tuple(found for found in seen if found.cls >= 0)
