"""What prediction returns, as scripts know it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from eyas.config import TrainOptions
from eyas.config.folders import run_folder
from eyas.evaluate.results import Boxes, Results


class ScriptBoxes(Boxes):
    """Detections of one image, with what scripts ask of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 6), or (n, 7) of tracked objects."""
        return tuple(self.data.shape)

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
        given = result.orig_img, result.path, result.names, result.boxes.data, result.speed, result.frame, result.fps
        found = cls(*given)
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
        return self.with_boxes(boxes.data)

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

    def tojson(self, normalize: bool = False, decimals: int = 5) -> str:
        """``summary()`` as JSON."""
        return self.to_json(normalize, decimals)

    def save(self, filename: str | Path | None = None, *args: Any, **plot_options: Any) -> str:  # type: ignore[override]
        """Write the drawn image; returns its path as a text."""
        return str(super().save(filename, *args, **plot_options))

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Append one line per detection to a file: class cx cy w h [score] [id], normalised; returns its path."""
        return str(super().save_txt(txt_file, save_conf))
