"""Where a model comes from, where it is put, and the groups that its parameters start in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from eyas.checkpoint import load_checkpoint, refusals_of
from eyas.config import TrainOptions
from eyas.models import Detector, detector_class, model_table
from eyas.models.catalog import published_weights, ways_without
from eyas.models.published import find_published, is_name, published_elsewhere
from eyas.models.table import ModelTableError
from eyas.optim import ModelEMA, PowerAverage, parameter_groups
from eyas.optim.optimizers import optimizer_class
from eyas.run.plan import Plan

CHECKPOINTS = (".pt", ".safetensors")  # what names of their files end with


class Source(NamedTuple):
    """What a model is made from.

    Attributes:
        table: its layers.
        weights: a checkpoint's content, the name or file of published weights, or None for random ones.
        model: the option that says so; of a run that goes on, the path of its checkpoint.
        pretrained: the other one.
    """

    table: Any
    weights: Any
    model: str | None = None
    pretrained: bool | str = True

    def is_of(self, options: TrainOptions) -> bool:
        """Whether it is what these options ask for."""
        return (self.model, self.pretrained) == (options.model, options.pretrained)


def model_source(options: TrainOptions, resumed: dict[str, Any] | None) -> Source:
    """Return what ``get_model`` is given: the table of a name, YAML or checkpoint, and the weights to start from.

    Raises:
        ValueError: no model was named, or no such model; names the nearest one.
    """
    if resumed is not None:
        return Source(resumed["yaml"], resumed, options.model)
    if options.model is None:
        raise ValueError("no model was given; for example model=yolo26n, a YAML of layers, or a .pt file.")
    weights: Any = own_checkpoint(options.model) if options.model.endswith(CHECKPOINTS) else None
    table = model_table(options.model) if weights is None else weights["yaml"]
    if options.backbone is not None:
        table = detector_class(table).with_backbone(table, options.backbone)
    if isinstance(options.pretrained, str):
        weights = given_weights(options.pretrained)
    return Source(table, weights if options.pretrained else None, options.model, options.pretrained)


def naming_the_file(options: TrainOptions, weights: Any) -> AbstractContextManager[None]:
    """Return a context that says which file is refused where a model is made from ``weights`` of `model_source`."""
    if weights is None:
        return nullcontext()
    if isinstance(weights, str | Path):
        return refusals_of(weights)
    if isinstance(options.pretrained, str) and not options.resume:
        return refusals_of(options.pretrained)
    return refusals_of(str(options.model), ModelTableError)  # the table is in it too


def given_weights(source: str | Path) -> Any:
    """Return weights to start from: a checkpoint's content, or the name or ``.pth`` file that the model itself reads.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it holds no checkpoint.
        UnknownWeightsError: neither published weights nor a file have this name; offers the nearest.
    """
    entries = published_weights()
    if str(source) in entries or Path(source).suffix == ".pth":
        return source
    return find_published(str(source), entries).name if is_name(source) else own_checkpoint(source)


def own_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, see `load_checkpoint`.

    Raises:
        FileNotFoundError: no such file; for weights that others publish under this name, says what there is instead.
    """
    if not Path(path).is_file() and published_elsewhere(path):
        raise FileNotFoundError(ways_without(path))
    return load_checkpoint(path)


def averaged(model: nn.Module, plan: Plan) -> ModelEMA:
    """Return the average of the weights that the plan asks for."""
    if plan.ema_share is not None:
        return PowerAverage(model, share=plan.ema_share)
    return ModelEMA(model, decay=plan.ema_decay, tau=plan.ema_tau)


def default_groups(model: nn.Module, name: str, lr: float, decay: float) -> list[dict[str, Any]]:
    """Return the stock parameter groups; MuSGD orthogonalises matrices and speeds up what the model names."""
    if optimizer_class(name).__name__ == "MuSGD":
        boost = model.faster_parts() if isinstance(model, Detector) else ()
        return parameter_groups(model, lr=lr, decay=decay, muon=True, boost=boost)
    return parameter_groups(model, lr=lr, decay=decay)
