"""The file of a study: what has been tried, in SQLite, as Optuna keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

STUDY = "eyas"
"""Name of the one study in a file."""
STARTING = 5
"""Trials that are never given up: there must be something to compare with."""


def need_optuna() -> None:
    """Raise an ImportError that says what to install, if Optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ImportError('eyas tune asks Optuna which options to try next: pip install "eyas[tune]"') from None


@dataclass(frozen=True)
class StudyFile:
    """A study that is open.

    Attributes:
        study: what Optuna knows of it.
        storage: the file.
    """

    study: optuna.Study
    storage: optuna.storages.RDBStorage

    def trial(self, number: int) -> optuna.Trial:
        """Return a trial that has begun, in this process or another."""
        import optuna

        place = self.storage.get_study_id_from_name(STUDY)
        return optuna.Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(place, number))


@contextmanager
def opened(file: Path, mode: str) -> Iterator[StudyFile]:
    """Open the study of a file inside the block, or begin one there that looks for the ``mode`` of its values.

    A trial is given up when its best value so far is worse than the median of what others had at the same epoch.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file.absolute()}")
    try:
        study = optuna.create_study(
            study_name=STUDY,
            storage=storage,
            direction="maximize" if mode == "max" else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTING),
            load_if_exists=True,
        )
        yield StudyFile(study, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()
        optuna.logging.set_verbosity(level)
