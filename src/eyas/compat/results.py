"""What prediction returns, as scripts know it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import torch

from eyas.config import TrainOptions
from eyas.config.folders import run_folder
from eyas.evaluate.results import Boxes, Results


class ScriptBoxes(Boxes):
    """Detections of one image; nothing is tracked, so that none has an ``id``."""

    id = None
    is_track = False

    def __getitem__(self, index: Any) -> ScriptBoxes:
        """A part of the boxes; an integer gives one."""
        return ScriptBoxes(self.data[index].reshape(-1, 6), self.orig_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 6)."""
        return tuple(self.data.shape)

    def numpy(self) -> ScriptBoxes:
        """The same boxes as a NumPy array."""
        return ScriptBoxes(super().numpy().data, self.orig_shape)

    def to(self, device: Any) -> ScriptBoxes:
        """The same boxes as a tensor on a device."""
        return ScriptBoxes(torch.as_tensor(self.data).to(device), self.orig_shape)

    def cpu(self) -> ScriptBoxes:
        """The same boxes on the CPU."""
        return self.to("cpu")

    def cuda(self) -> ScriptBoxes:
        """The same boxes on a GPU."""
        return self.to("cuda")


class ScriptResults(Results):
    """Detections of one image; there are boxes and nothing else."""

    masks = probs = keypoints = obb = None
    boxes: ScriptBoxes

    @classmethod
    def of(cls, result: Results) -> ScriptResults:
        """Return Eyas' own result as scripts know it."""
        found = cls(result.orig_img, result.path, result.names, result.boxes.data, result.speed)
        found.saved_in = result.saved_in
        return found

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.boxes = ScriptBoxes(self.boxes.data, self.orig_shape)

    def __getitem__(self, index: Any) -> ScriptResults:
        """The result with a part of its boxes."""
        return self.having(self.boxes[index])

    def having(self, boxes: ScriptBoxes) -> ScriptResults:
        """Return the result with other boxes."""
        result = type(self)(self.orig_img, self.path, self.names, boxes.data, self.speed)
        result.saved_in = self.saved_in
        return result

    # -- where it is ---------------------------------------------------------------------------------------------------
    def cpu(self) -> ScriptResults:
        """The result with its boxes on the CPU."""
        return self.having(self.boxes.cpu())

    def numpy(self) -> ScriptResults:
        """The result with its boxes as a NumPy array."""
        return self.having(self.boxes.numpy())

    def to(self, device: Any) -> ScriptResults:
        """The result with its boxes on a device."""
        return self.having(self.boxes.to(device))

    def cuda(self) -> ScriptResults:
        """The result with its boxes on a GPU."""
        return self.to("cuda")

    @property
    def save_dir(self) -> str:
        """Folder that the picture was written into, or would be by ``predict(save=True)``; it may not be there."""
        return str(self.saved_in or run_folder(TrainOptions(), default_name="predict"))

    # -- as text and files ---------------------------------------------------------------------------------------------
    def verbose(self) -> str:
        """What was found in words, for example ``2 persons, 1 dog, ``."""
        counts = sorted(Counter(self.class_id.tolist()).items())
        return "".join(f"{n} {self.names[cls]}{'s' * (n > 1)}, " for cls, n in counts) or "(no detections), "

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """``summary()`` as JSON."""
        return json.dumps(self.summary(normalize, decimals), indent=2)

    tojson = to_json

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """``summary()`` as text: a line for each detection, with the corners of its box in columns x1, y1, x2, y2."""
        text = io.StringIO()
        lines = csv.DictWriter(text, ["name", "class", "confidence", "x1", "y1", "x2", "y2"], lineterminator="\n")
        lines.writeheader()
        for row in self.summary(normalize, decimals):
            lines.writerow({key: value for key, value in row.items() if key != "box"} | row["box"])
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """``summary()`` as a table of pandas.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas as pd  # type: ignore[import-untyped]  # no stubs

        return pd.DataFrame(self.summary(normalize, decimals))

    def save(self, filename: str | Path | None = None, *args: Any, **plot_options: Any) -> str:  # type: ignore[override]
        """Write the drawn image; returns its path as a text."""
        return str(super().save(filename, *args, **plot_options))

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Append one line per detection to a file: class cx cy w h [score], normalised; returns its path."""
        boxes, path = self.boxes.numpy(), Path(txt_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for cls, box, score in zip(self.class_id.tolist(), boxes.xywhn.tolist(), boxes.conf.tolist(), strict=True):
                numbers = [*box, score] if save_conf else box
                file.write(" ".join([str(cls), *(f"{value:g}" for value in numbers)]) + "\n")
        return str(path)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Write each detection's part of the image as ``<save_dir>/<class>/<file name>``, numbered."""
        for number, (cls, box) in enumerate(zip(self.class_id.tolist(), self.xyxy.round().astype(int), strict=True)):
            x1, y1, x2, y2 = box.clip(0).tolist()
            part = self.orig_img[y1:y2, x1:x2]
            if part.size:
                name = Path(file_name)
                path = Path(save_dir) / self.names[cls] / f"{name.stem}{number or ''}{name.suffix or '.jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), part)

    def show(self, **plot_options: Any) -> None:
        """Open the drawn image in the system's viewer."""
        from PIL import Image

        Image.fromarray(self.plot(**plot_options)[..., ::-1]).show(self.path)
