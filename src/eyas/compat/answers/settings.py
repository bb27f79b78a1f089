"""``settings``: where things are. Eyas keeps none on the disk, so that what is asked for must be so already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eyas.data.cache import cache_root
from eyas.files import expanded
from eyas.log import LOGGER
from eyas.names import did_you_mean

LOGGERS = ("clearml", "comet", "mlflow", "tensorboard", "wandb")  # that the option loggers knows
TRACKERS = (*LOGGERS, "dvc", "neptune", "raytune")
INSTEAD = {
    "datasets_dir": "write the folder into the data's YAML as path: (downloads go below the folder EYAS_CACHE)",
    "weights_dir": "give the file's path to YOLO() or to pretrained=",
    "runs_dir": "give project= to train(), val() and predict()",
    "hub": "there is no hub",
    "sync": "nothing is ever sent anywhere",
    **dict.fromkeys(
        TRACKERS, "write a callback that sends trainer.metrics (docs/trainer.md), and register it by add_callback()"
    ),
    **{name: f'send a run there with train(loggers=["{name}"])' for name in LOGGERS},
}
"""What to do where a setting of the incumbent would be changed."""


class Settings(Mapping[str, Any]):
    """Read-only: what holds for every run. Setting a value to what it is anyway is welcome, any other an error."""

    def __getitem__(self, key: str) -> Any:
        values = self._values()
        if key not in values:
            raise KeyError(f"there is no setting {key!r}.{did_you_mean(key, values)} There are {', '.join(values)}.")
        return values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return f"Settings({self._values()})"

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *values: Mapping[str, Any], **more: Any) -> None:
        """Take settings that are so already.

        Raises:
            KeyError: no such setting. ValueError: it is otherwise here; says what to do.
        """
        for key, value in [*(pair for given in values for pair in given.items()), *more.items()]:
            if not _same(self[key], value):
                raise ValueError(
                    f"the setting {key}={value!r} has no effect here, where it is {self[key]!r}: {INSTEAD[key]}."
                )

    def reset(self) -> None:
        """Nothing was changed, so there is nothing to take back."""
        LOGGER.info("Eyas keeps no settings on the disk; nothing had to be reset.")

    def _values(self) -> dict[str, Any]:
        places = {"datasets_dir": str(cache_root() / "datasets"), "weights_dir": str(Path.cwd()), "runs_dir": "runs"}
        return {**places, "sync": False, "hub": False, **dict.fromkeys(TRACKERS, False)}


def _same(is_so: object, asked: object) -> bool:
    if isinstance(is_so, str) and isinstance(asked, str | Path):
        return Path(is_so).absolute() == expanded(asked).absolute()
    return is_so == asked


settings = Settings()
