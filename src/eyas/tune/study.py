"""A study: trial after trial, each a whole training with options of its own, kept in a file from which it goes on.

A study that was stopped is the study that was not: what a trial tries is a function of the seed, its number and what
came of the trials before it, never of a generator that lives in a process.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eyas import api, dist
from eyas.callbacks import Callback
from eyas.callbacks.criterion import MODES, Criterion
from eyas.config import OptionValueError, TrainOptions, resolve, whole_number, with_defaults
from eyas.launch.interrupt import Interrupted
from eyas.log import LOGGER, setup_logging
from eyas.run.tracking import TrainingDiverged
from eyas.train import BaseTrainer, TrainResult
from eyas.train.folder import sole_writer
from eyas.tune.report import Row, rows_of, short, told, write_report
from eyas.tune.space import OF_THE_STUDY, Space, check_space, parse_space, trial_options
from eyas.tune.storage import StudyFile, need_optuna, opened
from eyas.tune.watch import Watch

if TYPE_CHECKING:
    from optuna import Trial

FILE = Path("runs") / "tune" / "study.db"
QUIET: Mapping[str, Any] = {"plots": False, "verbose": False}
"""What trials do without where nobody asked for it: a study prints a line of each."""

Train = Callable[[TrainOptions, Watch], TrainResult]


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        options: what all trials share; ``seed`` too, and the search itself begins from it.
        space: what they differ by.
        trials: how many there shall be in all, those of earlier calls included, >= 1.
        metric: what is looked for, named as in ``best_by``; the value of a trial is that of its best weights.
        mode: ``"max"`` or ``"min"``; None takes min for a loss.
        file: SQLite file of the study; its trials and results lie in the folder beside it that has its name.
        prune: whether trials are given up that are behind.
    """

    options: TrainOptions
    space: Space
    trials: int = 30
    metric: str = "fitness"
    mode: str | None = None
    file: Path = FILE
    prune: bool = True
    criterion: Criterion = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in (None, *MODES):
            raise OptionValueError(f"mode={self.mode!r}: must be 'max' or 'min'")
        object.__setattr__(self, "criterion", Criterion(self.metric, self.mode))

    @property
    def folder(self) -> Path:
        """Where trials and results lie."""
        return self.file.with_suffix("")

    def check(self) -> None:
        """Refuse what could not work, before anything is started.

        Raises:
            ValueError: says what.
        """
        whole_number("trials", self.trials, 1)
        if not isinstance(self.prune, bool):
            raise OptionValueError(f"prune={self.prune!r}: expected true or false")
        if "://" in str(self.file) or not self.file.suffix:
            raise OptionValueError(f"study={str(self.file)!r}: expected a file, such as runs/tune/study.db")
        for name, why in OF_THE_STUDY.items():
            if self.options.is_typed(name) and self.options.get(name) is not False:
                raise OptionValueError(f"{name} says nothing to a study: {why}")
        if dist.world_size() > 1:
            raise ValueError("a study runs in one process, which starts others itself: device=0,1 or processes=2.")
        check_space(self.space, self.options)
        if self.prune:
            self.check_pruning()

    def check_pruning(self) -> None:
        """Refuse to give trials up where they cannot be compared on their way."""
        lengths = [name for name in ("epochs", "time") if name in self.space]
        if lengths:
            raise OptionValueError(f"trials that differ in {lengths[0]} are at no epoch comparable: add prune=false")
        if not self.options.val:
            raise OptionValueError("val=false measures last epochs only, when nothing can be given up: add prune=false")

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for two trials to be of one study, as plain values."""
        options = {name: value for name, value in self.options.to_dict().items() if self.options.is_typed(name)}
        space = {name: values.plain() for name, values in self.space.items()}
        found = {"metric": self.metric, "mode": self.criterion.mode, "options": options, "space": space}
        return json.loads(json.dumps(found))


@dataclass(frozen=True)
class Found:
    """What a study has found.

    Attributes:
        rows: all trials.
        best: the best of them, None if none came to an end.
        folder: where ``trials.csv``, ``best.yaml`` and the pictures lie.
    """

    rows: list[Row]
    best: Row | None
    folder: Path


def search(
    space: Mapping[str, Any] | str | Path | None = None,
    *,
    trials: int = 30,
    metric: str = "fitness",
    mode: str | None = None,
    study: str | Path = FILE,
    prune: bool = True,
    trainer: type[BaseTrainer] | None = None,
    callbacks: Callable[[], Sequence[Callback]] | None = None,
    **options: Any,
) -> Found:
    """Search for options, or go on with a search: what ``eyas tune`` does, with a trainer of your own.

    Args:
        space: see `parse_space`.
        trials, metric, mode, prune: see `Search`; study: its ``file``.
        trainer: class of the trainer; None takes that of the model's family.
        callbacks: returns new callbacks for a trial, for one serves one run.
        **options: of all trials, ``model`` and ``data`` among them.

    Raises:
        ValueError: a name, value or range that is none; the file holds another study; the first trials already fail.
        ImportError: Optuna is not installed.
        Interrupted: the search was stopped; the same call goes on.
    """

    def train(given: TrainOptions, watch: Watch) -> TrainResult:
        hooks = [watch, *(callbacks() if callbacks else ())]
        made = trainer(overrides=given, _callbacks=hooks) if trainer else api.trainer_from(given, hooks)
        return made.train()

    asked = resolve(call=options, command="train")
    return run_search(Search(asked, parse_space(space), trials, metric, mode, Path(study), prune), train)


def train_stock(options: TrainOptions, watch: Watch) -> TrainResult:
    """Train as ``eyas train`` does."""
    return api.trainer_from(options, [watch]).train()


def run_search(search: Search, train: Train = train_stock) -> Found:
    """Run trials until there are as many as were asked for, and report; raises as `search`."""
    search.check()
    need_optuna()
    is_new = not search.file.exists()
    if is_new and search.folder.exists():
        raise ValueError(f"{search.folder} is there, and {search.file} is not: give study= another name.")
    # One process at a time: the trial that runs in another would look like one that was lost.
    with sole_writer(search.folder), opened(search.file, search.criterion.mode) as record:
        take_up(record, search)
        drop_lost(record)
        while (done := len(rows_that_count(record))) < search.trials:
            setup_logging(search.options.verbose)
            number = next_trial(record, search)
            LOGGER.info("trial %d, %d of %d: %s", number, done + 1, search.trials, values_text(record, number))
            try:
                run_trial(record, search, number, train)
            except KeyboardInterrupt as stop:
                raise Interrupted(interrupted(record, search, number)) from stop
            setup_logging(search.options.verbose)
            LOGGER.info("%s", told(rows_of(record.study)[number]))
        rows = rows_of(record.study)
    setup_logging(search.options.verbose)
    return Found(rows, write_report(search, rows), search.folder)


# -- the file ----------------------------------------------------------------------------------------------------------
def take_up(record: StudyFile, search: Search) -> None:
    """Note what a new study is about, or see that an old one is about the same.

    Raises:
        ValueError: it is not; names what differs.
    """
    now = search.identity()
    before = record.study.user_attrs.get("identity")
    if before is None:
        record.study.set_user_attr("identity", now)
    elif before != now:
        differing = [key for key in ("metric", "mode") if before[key] != now[key]]
        for part in ("options", "space"):
            names = sorted({*before[part], *now[part]})
            differing += [name for name in names if before[part].get(name) != now[part].get(name)]
        others = " and another ".join(dict.fromkeys(differing))
        raise ValueError(
            f"{search.file} holds another study, with another {others}: its trials do not compare with new "
            "ones. Give study= another file, or the options with which it began."
        )


def drop_lost(record: StudyFile) -> None:
    """Close trials that ended without a word, with their process; they do not count, and others take their place."""
    from optuna.trial import TrialState

    for trial in record.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "goes_on" not in trial.user_attrs:
            record.study.tell(trial.number, state=TrialState.FAIL)


def rows_that_count(record: StudyFile) -> list[Row]:
    """Return the trials that came to an end of their own: complete, given up, or failed."""
    return [row for row in rows_of(record.study) if row.state in ("complete", "pruned", "failed")]


# -- a trial -----------------------------------------------------------------------------------------------------------
def next_trial(record: StudyFile, search: Search) -> int:
    """Return the number of the trial that waits to go on, or of a new one with its values chosen."""
    from optuna.samplers import TPESampler

    waiting = [row.number for row in rows_of(record.study) if row.state == "stopped"]
    if waiting:
        return waiting[0]
    # One generator for each trial: a study that is taken up again would otherwise repeat its first draws.
    record.study.sampler = TPESampler(seed=(search.options.seed + len(rows_that_count(record))) % 2**32)
    trial = record.study.ask()
    values = {name: choice.suggest(name, trial) for name, choice in search.space.items()}
    trial.set_user_attr("values", values)
    trial.set_user_attr("seed", search.options.seed)
    return trial.number


def run_trial(record: StudyFile, search: Search, number: int, train: Train) -> None:
    """Train with the values of a trial, and tell the study what came of it.

    Raises:
        ValueError, OSError, RuntimeError: of the training, while no trial has come to an end yet: then it is the study
            that cannot work, more likely than the values of this trial.
    """
    from optuna.trial import TrialState

    if (twin := twin_of(record, number)) is not None:
        take_over(record, number, twin)
        return
    watch = Watch(search.metric, search.mode, search.file, number, search.prune, record)
    trial = record.trial(number)
    try:
        result = train(options_of(trial, search), watch)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        trial.set_user_attr("error", first_line(error))
        record.study.tell(number, state=TrialState.FAIL)
        if not is_of_the_trial(error) and not any(row.state != "failed" for row in rows_that_count(record)):
            raise
        free_memory()
        return
    value = watch.seen.get(result.best_epoch, math.nan)
    trial.set_user_attr("epochs", result.epochs)
    trial.set_user_attr("best", str(result.best))
    if watch.pruned:
        record.study.tell(number, state=TrialState.PRUNED)
    elif math.isfinite(value):
        record.study.tell(number, value)
    else:
        trial.set_user_attr("error", f"{search.metric} had no finite value")
        record.study.tell(number, state=TrialState.FAIL)


def twin_of(record: StudyFile, number: int) -> int | None:
    """Return the number of a complete trial with the values of this one; None without any.

    Where few values are searched some come again, and with one seed it would be the same training.
    """
    rows = rows_of(record.study)
    same = (row.number for row in rows if row.state == "complete" and row.values == rows[number].values)
    return next(same, None)


def take_over(record: StudyFile, number: int, twin: int) -> None:
    """End a trial with what came of another of the same values."""
    trial, other = record.trial(number), record.study.get_trials(deepcopy=False)[twin]
    for name in ("epochs", "best"):
        trial.set_user_attr(name, other.user_attrs[name])
    LOGGER.info("the values are those of trial %d, whose result counts; nothing is trained", twin)
    record.study.tell(number, other.value)


def options_of(trial: Trial, search: Search) -> TrainOptions:
    """Return the options of a trial that begins, or goes on from where it was stopped."""
    if "goes_on" in trial.user_attrs:
        return resolve(call={"resume": trial.user_attrs["goes_on"]}, command="train")
    own = trial.user_attrs["values"] | {"save_dir": str(folder_of(search, trial.number))}
    return trial_options(with_defaults(search.options, QUIET), own)


def folder_of(search: Search, number: int) -> Path:
    """Return where a trial lies."""
    return search.folder / f"trial-{number}"


def values_text(record: StudyFile, number: int) -> str:
    """Return the values that a trial tries, in one line."""
    values = record.study.get_trials(deepcopy=False)[number].user_attrs["values"]
    return " ".join(f"{name}={short(value)}" for name, value in values.items())


def interrupted(record: StudyFile, search: Search, number: int) -> str:
    """Note whether a trial that was stopped can go on, and return what to say."""
    last = folder_of(search, number) / "weights" / "last.pt"
    done = f"{len(rows_that_count(record))} of {search.trials} trials are done"
    if not last.exists():
        drop_lost(record)
        return f"{done}, and trial {number} had saved nothing yet. The same command goes on."
    record.trial(number).set_user_attr("goes_on", str(last))
    return f"{done}, and trial {number} is saved. The same command goes on, exactly where it was."


def is_of_the_trial(error: BaseException) -> bool:
    """Whether an error is one that some values bring about and others do not."""
    return isinstance(error, TrainingDiverged | torch.OutOfMemoryError | MemoryError)


def first_line(error: BaseException) -> str:
    """Return what went wrong, for a table."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"[:200]


def free_memory() -> None:
    """Give back what a training that failed has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
