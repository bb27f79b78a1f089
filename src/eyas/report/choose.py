"""The best epoch by any metric, after a run: computed from what its validations found, without the network.

``predictions/`` of the run holds what each validation found (`eyas.metrics.stored`), so a metric that nobody asked for
while it trained, a threshold, or a part of the classes costs seconds.
"""

from __future__ import annotations

import json
import math
import runpy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyas.callbacks.best import best_epoch
from eyas.callbacks.criterion import MODES, full_key, label, nearest_key
from eyas.callbacks.keep import STEM
from eyas.callbacks.metrics import MetricFunction, one_metric
from eyas.checkpoint import load_checkpoint
from eyas.log import print_table
from eyas.metrics.detection import METRIC_KEYS, DetMetrics
from eyas.metrics.extra import METRICS, SHORT_KEYS, metric_with_column
from eyas.metrics.held import held_named
from eyas.metrics.stored import FOLDER, epochs_in, names_in, read_epoch
from eyas.names import did_you_mean

Names = Mapping[int, str]
Measure = Callable[[DetMetrics], float]


@dataclass(frozen=True)
class Chosen:
    """A run's epochs by a metric.

    Attributes:
        metric: what it is called.
        mode: ``"max"`` or ``"min"``.
        values: 1-based epoch -> value, for every epoch whose validation was kept.
        best: the epoch that is best; 0 where no value is finite.
        weights: epoch -> the file that holds its weights, as far as they were kept.
        copied: where those of the best epoch were copied to; None where they were not kept.
        inexact_below: epoch -> the lowest score of the detections that were kept, where they are not all.
    """

    metric: str
    mode: str
    values: dict[int, float]
    best: int
    weights: dict[int, Path]
    copied: Path | None = None
    inexact_below: dict[int, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return it as JSON; a value that is not finite is null."""
        epochs = [
            {
                "epoch": epoch,
                "value": value if math.isfinite(value) else None,
                "weights": str(self.weights[epoch]) if epoch in self.weights else None,
            }
            for epoch, value in self.values.items()
        ]
        told = {"metric": self.metric, "mode": self.mode, "best": self.best or None, "epochs": epochs}
        return json.dumps(told | {"copied": None if self.copied is None else str(self.copied)}, indent=2)

    def place(self, epoch: int) -> tuple[bool, float, int]:
        """Return what sorts epochs, the best first; those without a finite value come last."""
        value = self.values[epoch]
        finite = math.isfinite(value)
        return not finite, (-value if self.mode == "max" else value) if finite else 0.0, epoch

    def print(self) -> None:
        """Print a row for each epoch, the best first, and what became of its weights."""
        order = sorted(self.values, key=self.place)
        rows: list[list[object]] = [
            [epoch, self.values[epoch], self.weights[epoch].name if epoch in self.weights else None] for epoch in order
        ]
        print_table(f"{self.metric} ({self.mode})", ["epoch", "value", "weights"], rows)
        if self.inexact_below:
            lowest = max(self.inexact_below.values())
            print(
                f"Of some epochs only detections above a score of {lowest:.3g} were kept: exact is what counts those."
            )
        if not self.best:
            print("No epoch has a finite value.")
        elif self.copied is not None:
            print(f"Epoch {self.best} is the best; its weights are copied to {self.copied}.")
        else:
            print(
                f"Epoch {self.best} is the best; its weights were not kept: keep=K or save_period=1 keeps more of them."
            )


def choose(
    run: str | Path,
    metric: str | MetricFunction = "fitness",
    classes: Sequence[str | int] | None = None,
    mode: str = "max",
    out: str | Path | None = None,
) -> Chosen:
    """Return a run's epochs by a metric, and copy the weights of the best one if they were kept.

    Args:
        run: folder of the run; it may still train.
        metric: a name as for ``best_by`` (``"map50"``, ``"f1"``, ``"recall_at_p90"``, ``"map/cat"``), a condition such
            as ``"recall@precision>=0.95"`` (see `eyas.metrics.held`), ``"FILE.py:FUNCTION"``, or a function of a
            processed ``DetMetrics`` that returns a number.
        classes: names or ids of the classes that count; None for all.
        mode: whether ``"max"`` or ``"min"`` is best.
        out: file for the weights; None makes ``weights/chosen.pt`` of the run.

    Raises:
        ValueError: no such run, metric or class, or the run has kept no predictions.
    """
    folder = Path(run)
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} must be max or min.")
    files = epochs_in(folder / FOLDER)
    if not files:
        raise ValueError(
            f"{folder} holds no {FOLDER}/ of a run: name the folder of a run that has validated at least once, "
            "without save_predictions=False."
        )
    names = names_in(next(iter(files.values())))
    ids = None if classes is None else [class_id(wanted, names) for wanted in classes]
    measure, name = measure_of(metric, names), label(metric)
    values, inexact = dict[int, float](), dict[int, float]()
    for epoch, path in files.items():
        kept = read_epoch(path, ids)
        values[epoch] = measure(kept.metrics)
        if not kept.complete:
            inexact[epoch] = kept.exact_from
    best = best_epoch(values, mode)
    weights = weights_in(folder / "weights", files)
    copied = None
    if best in weights:
        copied = folder / "weights" / "chosen.pt" if out is None else Path(out)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights[best], copied)
    told = name if ids is None else f"{name} of {', '.join(names[number] for number in ids)}"
    return Chosen(told, mode, values, best, weights, copied, inexact)


def measure_of(metric: str | MetricFunction, names: Names) -> Measure:
    """Return what computes a metric.

    Raises:
        ValueError: there is none of this name; names the nearest.
    """
    if not isinstance(metric, str):
        return lambda metrics: only_value(metrics, metric)
    if (held := held_named(metric)) is not None:
        return lambda metrics: only_value(metrics, held)
    path, _, function = metric.rpartition(":")
    if path.endswith(".py"):
        own = function_in(Path(path), function)
        return lambda metrics: only_value(metrics, own)
    key = full_key(metric, names)
    if key == "fitness":
        return lambda metrics: float(metrics.fitness)
    if key in METRIC_KEYS:
        return lambda metrics: float(metrics.results_dict[key])
    source = metric_with_column(key, names)
    if source is None:
        near = nearest_key(metric, ["fitness", *METRIC_KEYS, *SHORT_KEYS, *METRICS, "recall_at_p90"])
        hint = f" Did you mean {near!r}?" if near else ""
        raise ValueError(
            f"there is no metric {metric!r} of detections.{hint} There are {', '.join([*SHORT_KEYS, *METRICS])}, "
            "recall_at_pNN, conditions such as recall@precision>=0.95, and FILE.py:FUNCTION."
        )
    return lambda metrics: source(metrics)[key]


def only_value(metrics: DetMetrics, metric: MetricFunction) -> float:
    """Return the number that a metric reports, its first one if it reports several."""
    return next(iter(one_metric(metrics, metric).values()))


def function_in(path: Path, name: str) -> MetricFunction:
    """Return a function of a file of the user's, which is run.

    Raises:
        ValueError: there is no such file, or no such function in it.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path} to take the metric {name} from.")
    found = runpy.run_path(str(path), run_name="metric")
    if not callable(found.get(name)):
        own = [key for key, value in found.items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{path} defines no function {name!r}.{did_you_mean(name, own)}")
    function: MetricFunction = found[name]
    return function


def class_id(wanted: str | int, names: Names) -> int:
    """Return the id of a class by its name, or by its number where no class is called so.

    Raises:
        ValueError: there is no such class; names the nearest.
    """
    for number, name in names.items():
        if name == str(wanted):
            return number
    if str(wanted).isdigit() and int(wanted) in names:
        return int(wanted)
    raise ValueError(f"there is no class {wanted!r}.{did_you_mean(str(wanted), list(names.values()))}")


def weights_in(folder: Path, epochs: Mapping[int, Path]) -> dict[int, Path]:
    """Return the file of weights of each epoch that was kept.

    Only ``best.pt`` and ``last.pt`` have to be opened to know of which epoch they are.
    """
    named = [(epoch, folder / f"{stem}{epoch}.pt") for stem in ("epoch", STEM) for epoch in epochs]
    found = {epoch: path for epoch, path in named if path.exists()}
    for name in ("best.pt", "last.pt"):
        path = folder / name
        if path.exists():
            epoch = int(load_checkpoint(path)["epoch"]) + 1
            if epoch in epochs:
                found.setdefault(epoch, path)
    return found
