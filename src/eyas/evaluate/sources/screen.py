"""What is on the screen, with mss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from eyas.evaluate.sources.base import Item, Picture
from eyas.evaluate.sources.video import FPS

PATTERN = re.compile(r"screen(?:\s+\d+)*", re.IGNORECASE)
FORMS = "'screen', 'screen 1' (a monitor), 'screen LEFT TOP WIDTH HEIGHT' or 'screen 1 LEFT TOP WIDTH HEIGHT'"


class Screen(Item):
    """A monitor or a part of it.

    Args:
        text: one of ``FORMS``; monitor 0 is all of them together. Numbers are pixels of that monitor.
        stride: only every so many pictures.

    Raises:
        ValueError: the text has another form.
    """

    live = True

    def __init__(self, text: str, stride: int = 1) -> None:
        numbers = [int(number) for number in text.split()[1:]]
        if len(numbers) not in (0, 1, 4, 5):
            raise ValueError(f"{text!r} is no part of a screen: write {FORMS}")
        self.name, self.stride = text, stride
        self.monitor = numbers[0] if len(numbers) in (1, 5) else 0
        self.part = numbers[-4:] if len(numbers) >= 4 else None
        if self.part and not (self.part[2] and self.part[3]):
            raise ValueError(f"{text!r} has a width or height of 0: write {FORMS}")

    def pictures(self) -> Iterator[Picture]:
        """Take pictures as fast as they are asked for.

        Raises:
            ModuleNotFoundError: mss is not installed.
            ValueError: there is no screen, or no such monitor.
        """
        try:
            import mss
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('pictures of the screen need mss: pip install "eyas[screen]"') from error
        try:
            with mss.MSS() as grabber:
                area = self.area(grabber.monitors)
                number = 0
                while True:
                    shot = np.asarray(grabber.grab(area))[..., :3]  # BGRA
                    if number % self.stride == 0:
                        yield Picture(self.name, np.ascontiguousarray(shot), frame=number + 1, fps=FPS / self.stride)
                    number += 1
        except mss.ScreenShotError as error:
            raise ValueError(f"{self.name}: no picture can be taken of the screen ({error})") from error

    def area(self, monitors: Any) -> dict[str, int]:
        """Left, top, width and height in pixels of the desktop.

        Raises:
            ValueError: there is no such monitor.
        """
        if self.monitor >= len(monitors):
            raise ValueError(f"{self.name}: there is no monitor {self.monitor}; they go up to {len(monitors) - 1}")
        whole = monitors[self.monitor]
        left, top, width, height = self.part or (0, 0, whole["width"], whole["height"])
        return {"left": whole["left"] + left, "top": whole["top"] + top, "width": width, "height": height}
