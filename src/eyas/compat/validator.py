"""The validator as scripts know it: built with the options, open at the steps that they override."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from eyas.api import YOLO
from eyas.callbacks import CallbackList
from eyas.compat.arguments import Arguments
from eyas.compat.values import Derived, Losses
from eyas.config import TrainOptions, resolve
from eyas.device import select_device
from eyas.evaluate import assemble, validator
from eyas.evaluate.writers import prediction_rows
from eyas.metrics.confusion import ConfusionMatrix
from eyas.metrics.matching import IOU_THRESHOLDS
from eyas.prove.settings import own_methods

OVERLAPS = (
    "detections are judged at the ten overlaps 0.5, 0.55 ... 0.95. Work out a metric at another one from "
    "self.metrics.stats in get_stats(), or override update_metrics()."
)
COUNTED = ("seen", "stats", "confusion_matrix", "jdict")  # what a run counts; a script may keep its own in their place

Found = Mapping[str, Tensor] | Tensor
"""Detections of one image: ``bboxes`` (n, 4) xyxy in pixels of the network's input, ``conf`` (n,), ``cls`` (n,), or
all in one tensor (n, 6)."""


class DetectionValidator(validator.DetectionValidator):
    """Runs a model over a loader and measures it, through steps that may each be overridden.

    They run in this order: ``init_metrics``, for every batch ``preprocess``, ``postprocess``, ``update_metrics``,
    ``plot_val_samples`` and ``plot_predictions`` where pictures are due, then ``get_stats``, ``finalize_metrics``,
    ``print_results``.

    Args:
        dataloader: yields batches; without one, the split that ``args`` names is loaded for each call.
        save_dir: folder for pictures and files; without one, nothing is written.
        args: the options of a trainer, or arguments as ``val()`` takes them.
        _callbacks: functions of ``on_val_start``, ``on_val_batch_start``, ``on_val_batch_end`` and ``on_val_end``,
            called with the validator when it runs without a trainer; a trainer calls those of its own with itself.
    """

    def __init__(
        self,
        dataloader: Iterable[Any] | None = None,
        save_dir: str | Path | None = None,
        args: TrainOptions | Mapping[str, Any] | SimpleNamespace | None = None,
        _callbacks: CallbackList | Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.args = read_options(args)
        device = select_device(self.args.device)
        settings = assemble.validator_settings(self.args, device)
        loader = () if dataloader is None else dataloader
        super().__init__(loader, names={}, save_dir=save_dir, verbose=False, device=device, **settings)
        self.loads_split = dataloader is None
        self.callbacks = _callbacks or {}
        self.data: dict[str, Any] = {}
        self.batch_i = 0

    def __call__(  # type: ignore[override]  # a name or a path of a model as well, and it may come second
        self, trainer: Any = None, model: nn.Module | str | Path | None = None
    ) -> dict[str, float]:
        """Validate the trainer's averaged weights, with losses, or a model, given itself or by name or file.

        Raises:
            ValueError: no model was given, here or in ``args``.
        """
        if trainer is not None:
            self.device, self.data = trainer.device, trainer.data
            self.names = self.names or dict(trainer.data["names"])
            return super().__call__(trainer)
        with ExitStack() as stack:
            network = self.network_of(model)
            if self.loads_split:
                self.data = assemble.described_data(self.args, (self.args.split,))
                assert self.device is not None
                loader = assemble.split_loader(self.args, self.data, self.device, stretch=network.stretch)
                self.dataloader = stack.enter_context(loader)
            self.names = self.names or dict(self.data.get("names") or network.names)
            self.run_callbacks("on_val_start")
            result = super().__call__(model=network)
            self.run_callbacks("on_val_end")
        return result

    def network_of(self, model: nn.Module | str | Path | None) -> Any:
        """Return the network of a model, or of the one that ``args`` names.

        Raises:
            ValueError: there is none.
        """
        named = self.args.model if model is None else model
        if named is None:
            raise ValueError("a validator needs a model: validator(model='best.pt'), or args=dict(model='best.pt').")
        return YOLO(named).model if isinstance(named, str | Path) else named

    def run_callbacks(self, event: str) -> None:
        """Call the functions of an event with this validator; those of a trainer are the trainer's to call."""
        if not self.training and isinstance(self.callbacks, Mapping):
            for fn in self.callbacks.get(event, ()):
                fn(self)

    # -- the steps -----------------------------------------------------------------------------------------------------
    def start(self, network: Any, device: torch.device) -> None:
        """Forget the previous run, and let ``init_metrics`` make ready for the next one."""
        super().start(network, device)
        self.network = network
        for name in COUNTED:
            vars(self).pop(name, None)  # what a script has put in place of it belongs to the run before
        self.init_metrics(network)
        self.drop_unused()
        self.desc = self.get_desc()

    def drop_unused(self) -> None:
        """Go on with our own counts where ``init_metrics`` of a script has made some that none of its steps uses.

        Raises:
            ValueError: such a one is not as empty as ours, so that somebody meant it.
        """
        used = names_used(type(self))
        for name in [name for name in COUNTED if name in vars(self) and name not in used]:
            if not is_empty(value := vars(self).pop(name)):
                raise ValueError(
                    f"self.{name} = {value!r} of {type(self).__name__}.init_metrics() has no effect: none of its steps "
                    f"uses it. Leave it out, or fill it in update_metrics() and report it from get_stats()."
                )

    def measure(self, network: Any, raw_batch: Mapping[str, Any], step: int, amp_dtype: torch.dtype | None) -> None:
        """Pass one batch through all steps."""
        self.batch_i = step
        self.run_callbacks("on_val_batch_start")
        with self.clock("preprocess"):
            batch = self.preprocess(dict(raw_batch))
        self.input_size = batch["img"].shape[-2:]
        with self.clock("inference"):
            preds = self.infer(network, batch, amp_dtype)
        with self.clock("loss"):
            if self.training:
                self.add_losses(network, batch, preds, amp_dtype)
        with self.clock("postprocess"):
            found = self.postprocess(preds)
        self.update_metrics(found, batch)
        if self.pictures(step):
            self.plot_val_samples(batch, step)
            self.plot_predictions(batch, found, step)
        self.run_callbacks("on_val_batch_end")

    def init_metrics(self, model: nn.Module) -> None:
        """Make ready for a run; everything of the last one is forgotten already."""

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return the batch on its device, images (B, 3, H, W) as floats in [0, 1]."""
        return super().preprocess(batch, self.place)

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:  # type: ignore[override]
        """Return the detections of each image, best score first, from what the model gave."""
        found = self.network.in_pixels(preds[0].float(), *self.input_size)
        rows = super().postprocess(found, end2end=self.network.end2end)
        return [{"bboxes": r[:, :4], "conf": r[:, 4], "cls": r[:, 5], "extra": r[:, 6:]} for r in rows]

    def update_metrics(self, preds: Sequence[Found], batch: Mapping[str, Any]) -> None:
        """Match the detections of one batch with its labels."""
        self.update(batch, [rows(found) for found in preds])

    def plot_val_samples(self, batch: Mapping[str, Any], ni: int) -> None:
        """Draw the labels of a batch."""
        self.plot_labels(drawable(batch), ni)

    def plot_predictions(self, batch: Mapping[str, Any], preds: Sequence[Found], ni: int) -> None:
        """Draw the detections of a batch."""
        self.plot_detections(drawable(batch), [rows(found) for found in preds], ni)

    # -- what scripts read ---------------------------------------------------------------------------------------------
    @Derived
    def seen(self) -> int:
        """Images so far."""
        return len(self.metrics.image_files)

    @Derived
    def stats(self) -> dict[str, Any]:
        """Flat arrays of all matches, once all batches are through."""
        return self.metrics.stats

    @Derived
    def confusion_matrix(self) -> ConfusionMatrix:
        """What was predicted for each true object, once all batches are through."""
        return self.metrics.confusion_matrix

    @Derived
    def jdict(self) -> list[dict[str, Any]]:
        """The rows of ``predictions.json``; empty without ``save_json``."""
        return prediction_rows(self._split(), self.numbers) if self.save_json else []

    @Derived
    def loss(self) -> Losses:
        """Mean validation losses over all images; empty without a trainer."""
        return Losses({name: torch.tensor(value) for name, value in self.mean_losses().items()})

    @property
    def iouv(self) -> Tensor:
        """(10,) overlaps that detections are judged at."""
        return torch.from_numpy(IOU_THRESHOLDS.copy())  # the constant itself may not be written to

    @iouv.setter
    def iouv(self, overlaps: Any) -> None:
        given = torch.as_tensor(overlaps).double().reshape(-1).cpu()
        if len(given) != self.niou or not torch.allclose(given, self.iouv.double(), atol=1e-6):
            raise ValueError(f"iouv={given.tolist()} has no effect: {OVERLAPS}")

    @property
    def niou(self) -> int:
        """How many overlaps detections are judged at."""
        return len(IOU_THRESHOLDS)

    @niou.setter
    def niou(self, count: int) -> None:
        if count != self.niou:
            raise ValueError(f"niou={count} has no effect: {OVERLAPS}")

    @Derived
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)


def names_used(cls: type) -> set[str]:
    """Return the names that a script's steps mention, other than those that only make ready for a run."""
    steps = [inspect.unwrap(fn) for fn in own_methods(cls) if fn.__name__ not in ("__init__", "init_metrics")]
    waiting, found = [fn.__code__ for fn in steps], set[str]()
    while waiting:
        code = waiting.pop()
        found |= {*code.co_names, *(text for text in code.co_consts if isinstance(text, str))}
        waiting += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return found


def is_empty(value: Any) -> bool:
    """Whether a count asks for nothing else than ours: nothing is in it, and it counts by our thresholds."""
    if isinstance(value, ConfusionMatrix):
        plain = ConfusionMatrix(value.names)
        return (value.conf, value.iou) == (plain.conf, plain.iou) and not value.matrix.any()
    if isinstance(value, Mapping):
        return all(is_empty(item) for item in value.values())
    return value is None or (isinstance(value, int | list | tuple) and not value)


def read_options(args: TrainOptions | Mapping[str, Any] | SimpleNamespace | None) -> TrainOptions:
    """Return what a validator is given as its options.

    Raises:
        OptionError: an argument is none of ``val()``, or asks for what Eyas does not do.
    """
    if isinstance(args, TrainOptions):
        return args
    given = vars(args) if isinstance(args, SimpleNamespace) else dict(args or {})
    return resolve(call=Arguments().read("val", given), command="val")


def rows(found: Found) -> Tensor:
    """Return detections of one image as (n, 6): xyxy, score, class."""
    if isinstance(found, Tensor):
        return found[:, :6]
    return torch.cat([found["bboxes"], found["conf"][:, None], found["cls"][:, None].to(found["conf"])], dim=1)


def drawable(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch with uint8 images."""
    image = batch["img"]
    return {**batch, "img": (image * 255).round().clamp(0, 255).to(torch.uint8) if image.is_floating_point() else image}
