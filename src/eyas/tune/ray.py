"""The same trainings on a Ray cluster: one over many workers, or a search with a trial on each GPU.

A thin layer over Ray Train and Ray Tune, which are asked for when they are used (``pip install "eyas[ray]"``). What a
worker does is ``eyas train`` with the same options; Ray gives it its place, and keeps what it reports. Tests look at
what is handed to Ray and do without a cluster. By hand it was run under Ray 2.60 on one machine without a GPU: a
training of two workers and a search of two trials. Several machines, GPUs and the loss of a worker were not at hand.

::

    torch_trainer({"model": "yolo26n", "data": "/shared/my.yaml"}, workers=8, use_gpu=True).fit()
    tuner({"model": "yolo26n", "data": "/shared/my.yaml", "epochs": 50}, space, trials=64).fit().get_best_result()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eyas import api, dist
from eyas.callbacks import Callback
from eyas.callbacks.criterion import Criterion
from eyas.config import TrainOptions, resolve
from eyas.run.protocol import Run
from eyas.tune.space import Choice, Range, check_space, parse_space, trial_options

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.tune import Tuner

BACKENDS = {True: "cpu:gloo,cuda:nccl", False: "gloo"}
"""With GPUs or without: Eyas exchanges plain values over gloo in any case, and tensors over NCCL where they are."""

Report = Callable[[dict[str, float], Path | None], None]


class RayReport(Callback):
    """Tells Ray the numbers of each epoch, in every process, for Ray lets none go on alone.

    Args:
        report: takes the numbers, and in the main process the folder of checkpoints, once it is written.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_fit_epoch_end(self, trainer: Run) -> None:
        losses = trainer.label_loss_items(trainer.running_losses())
        fitness = math.nan if trainer.fitness is None else trainer.fitness
        numbers = {"epoch": float(trainer.epoch + 1), **losses, **trainer.metrics, "fitness": fitness}
        self.report(numbers, trainer.wdir if dist.is_main() and trainer.last.exists() else None)


# -- one training over many workers ------------------------------------------------------------------------------------
def torch_trainer(
    options: Mapping[str, Any],
    *,
    workers: int,
    use_gpu: bool,
    resources: Mapping[str, float] | None = None,
    storage: str | None = None,
    name: str | None = None,
    failures: int = 3,
) -> TorchTrainer:
    """Return a ``TorchTrainer`` that trains once, over all workers, as torchrun would.

    Args:
        options: of the training; ``batch`` is what all workers share, ``save_dir`` a folder on each machine.
        workers: processes, one for each GPU.
        use_gpu: whether each has one.
        resources: of each worker, such as ``{"CPU": 8}``.
        storage: where checkpoints and results are kept, which all machines reach.
        name: of the run in the storage.
        failures: how often Ray may begin again, from the last checkpoint, after losing a worker or a machine.

    Raises:
        ImportError: Ray is not installed.
        ValueError: an option that does not exist, or a value that does not fit.
    """
    train = needed("train")
    from ray.train.torch import TorchConfig, TorchTrainer

    resolve(call=options, command="train")
    return TorchTrainer(
        train_worker,
        train_loop_config=dict(options),
        torch_config=TorchConfig(backend=BACKENDS[use_gpu]),
        scaling_config=train.ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker=dict(resources) if resources else None
        ),
        run_config=train.RunConfig(
            name=name, storage_path=storage, failure_config=train.FailureConfig(max_failures=failures)
        ),
    )


def train_worker(options: dict[str, Any]) -> None:
    """Be one process of a training that Ray has started, or started again."""
    train = needed("train")
    before = train.get_checkpoint()
    with TemporaryDirectory(prefix="eyas-") as own:  # of those that read only: nobody else writes what they read
        folder = Path(options.get("save_dir", "runs/ray")) if dist.is_main() else Path(own)
        call = options if before is None else continued(folder, before)
        api.trainer_from(resolve(call=call, command="train"), [RayReport(partial(report_epoch, train))]).train()


def continued(folder: Path, checkpoint: Any) -> dict[str, Any]:
    """Return the options of a training that goes on from Ray's checkpoint, which is put into a folder of the run."""
    weights = folder / "weights"
    checkpoint.to_directory(str(weights))
    return {"resume": str(weights / "last.pt")}


def report_epoch(train: ModuleType, numbers: dict[str, float], weights: Path | None) -> None:
    """Report an epoch to Ray Train, with the checkpoints where there are some."""
    train.report(numbers, checkpoint=train.Checkpoint.from_directory(str(weights)) if weights else None)


# -- a search ----------------------------------------------------------------------------------------------------------
def tuner(
    options: Mapping[str, Any],
    space: Mapping[str, Any] | str | Path | None = None,
    *,
    trials: int = 30,
    metric: str = "fitness",
    mode: str | None = None,
    resources: Mapping[str, float] | None = None,
    scheduler: Any = None,
    search_algorithm: Any = None,
    storage: str | None = None,
    name: str | None = None,
) -> Tuner:
    """Return a ``Tuner`` that searches as ``eyas tune`` does, with as many trials at a time as the cluster holds.

    Args:
        options: of all trials; paths are read on the machine that a trial runs on.
        space: see `eyas.tune.parse_space`.
        trials, metric, mode: see `eyas.tune.Search`; a metric is named as in ``results.csv``.
        resources: of each trial, such as ``{"cpu": 8, "gpu": 1}``.
        scheduler: what gives trials up, such as ``ray.tune.schedulers.ASHAScheduler()``; None lets all come to an end.
        search_algorithm: what chooses values, such as ``ray.tune.search.optuna.OptunaSearch()``; None draws them.
        storage, name: where results are kept.

    Raises:
        ImportError: Ray is not installed.
        ValueError: as `eyas.tune.search`.
    """
    tune = needed("tune")
    base, found = resolve(call=options, command="train"), parse_space(space)
    check_space(found, base)
    function = partial(train_trial, base=base)
    return tune.Tuner(
        tune.with_resources(function, dict(resources)) if resources else function,
        param_space={name: domain(values, tune) for name, values in found.items()},
        tune_config=tune.TuneConfig(
            metric=metric,
            mode=Criterion(metric, mode).mode,
            num_samples=trials,
            scheduler=scheduler,
            search_alg=search_algorithm,
        ),
        run_config=tune.RunConfig(name=name, storage_path=storage),
    )


def train_trial(values: dict[str, Any], base: TrainOptions) -> None:
    """Be a trial that Ray has started."""
    tune = needed("tune")
    own = values | {"save_dir": str(Path(tune.get_context().get_trial_dir()) / "run")}
    api.trainer_from(trial_options(base, own), [RayReport(partial(report_trial, tune))]).train()


def report_trial(tune: ModuleType, numbers: dict[str, float], weights: Path | None) -> None:
    """Report an epoch to Ray Tune; checkpoints stay in the folder of the trial."""
    tune.report(numbers)


def domain(values: Range | Choice, tune: ModuleType) -> Any:
    """Return values in Ray's form; its upper ends are not included for whole numbers, ours are."""
    if isinstance(values, Choice):
        return tune.choice(list(values.values))
    low, high = values.low, values.high
    if values.whole:
        low, high = int(low), int(high)
        if values.log:
            return tune.lograndint(low, high + 1)
        return tune.qrandint(low, high, int(values.step)) if values.step else tune.randint(low, high + 1)
    if values.log:
        return tune.loguniform(low, high)
    return tune.quniform(low, high, values.step) if values.step else tune.uniform(low, high)


def needed(part: str) -> ModuleType:
    """Return ``ray.train`` or ``ray.tune``.

    Raises:
        ImportError: it is not installed; says what to install.
    """
    try:
        return import_module(f"ray.{part}")
    except ImportError:
        raise ImportError('trainings on a Ray cluster need Ray: pip install "eyas[ray]"') from None
