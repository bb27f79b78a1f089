"""``YOLO`` and ``RTDETR`` as scripts know them, over Eyas' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from eyas import api
from eyas.checkpoint import save_checkpoint
from eyas.compat.arguments import Arguments, among, spelled
from eyas.compat.results import ScriptResults
from eyas.compat.trainers import script_trainer
from eyas.config.errors import UnsupportedOptionError
from eyas.evaluate.results import ResultList
from eyas.export import ExportTarget, find_target, known_targets, settings_of
from eyas.export.registry import OTHER_NAMES
from eyas.log import LOGGER
from eyas.metrics.detection import DetMetrics
from eyas.train import BaseTrainer, TrainResult
from eyas.train.state import describe_network

LACKING: Mapping[str, str] = {
    "tune": "hyper-parameters are searched by `eyas tune`, or eyas.tune.search(space, model=..., data=...), with "
    "ranges such as {'lr0': {'low': 1e-4, 'high': 1e-2, 'log': True}}",
    "benchmark": "open each exported file, YOLO('best.onnx'): val() says milliseconds per image in .speed",
    "embed": "Eyas gives no embeddings: register a forward hook on a layer of model.model",
    "reset_weights": "for random weights open a model by its name, such as YOLO('yolo26n.yaml')",
    "half": "for lower precision in training give amp=; prediction is in full precision",
    "compile": "give compile=True to train()",
    "set_classes": "the detectors know the classes they were trained for",
}
"""What a model of the incumbent can do and one of Eyas cannot -> what to use."""

EXPORT_LACKS: Mapping[str, str] = {
    "nms": "an end-to-end model needs none, and the others leave it to whoever runs the file",
    "keras": "there is format='tflite'",
    "optimize": "there are half, int8 and simplify",
    "device": "files are written and verified on the CPU; only format='tensorrt' takes the GPU, the one that is there",
}
"""Arguments of an export that Eyas does not take -> why, or what to use."""

EXPORT_OFF: Mapping[str, tuple[object, ...]] = {
    "half": (False, None),
    "int8": (False, None),
    "dynamic": (False, None),
    "nms": (False, None),
    "optimize": (False, None),
    "keras": (False, None),
    "simplify": (True, None),
    "opset": (None,),
    "workspace": (None, 4),
    "device": ("cpu", "", None),
    "batch": (1, None),
    "fraction": (1, None),
    "verbose": (True, False, None),
    "task": ("detect", None),
    "mode": ("export", None),
}
"""Arguments of an export -> values with which they ask for what happens anyway."""


class Outcome(TrainResult):
    """What a training returns: Eyas' result, which answers as the metrics of the best weights too."""

    def __getattr__(self, name: str) -> Any:
        detection: DetMetrics | None = vars(self).get("detection")
        if detection is None or name.startswith("_"):
            raise AttributeError(f"the result of this training has no {name!r}")
        return getattr(detection, name)


class ScriptModel(api.YOLO):
    """What scripts call on a model and read from it, over a model of Eyas; mixed into one."""

    task = "detect"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arguments = Arguments()
        self.chosen_device: str | None = None
        self.unsaved: str | None = None  # what has changed the weights since they were last in a file

    def __getattr__(self, name: str) -> NoReturn:
        if name in LACKING:
            raise AttributeError(f"this model has no {name}(): {LACKING[name]}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def trainer_class(self) -> type[BaseTrainer]:
        """The stock trainer of the model's family, as scripts know it."""
        return script_trainer(super().trainer_class)

    # -- train, val, predict, export -----------------------------------------------------------------------------------
    def train(self, trainer: type[BaseTrainer] | None = None, **arguments: Any) -> TrainResult:  # type: ignore[override]
        """Train; see `eyas.api.YOLO.train`.

        Raises:
            ValueError: the network holds weights that no file has, which a training would not start from.
        """
        if self.unsaved and not arguments.get("resume"):
            raise ValueError(
                f"train() starts from {self.loaded or self.name}, not from what {self.unsaved} brought. Save it and "
                "start from the file: model.save('start.pt'), then YOLO('start.pt').train(...)."
            )
        mine = {name: arguments.pop(name) for name in ("callbacks", "transforms") if name in arguments}
        result = super().train(trainer, **mine, **self.arguments.read("train", arguments))
        return Outcome(**vars(result))

    def val(self, validator: None = None, **arguments: Any) -> DetMetrics:
        """Measure the model; see `eyas.api.YOLO.val`.

        Raises:
            ValueError: a validator was given.
        """
        if validator is not None:
            raise ValueError("val() takes no validator: return it from get_validator() of a trainer.")
        return super().val(**self.placed(self.arguments.read("val", arguments)))

    def predict(self, source: Any = None, stream: bool = False, predictor: None = None, **arguments: Any) -> Any:
        """Find objects in images; see `eyas.api.YOLO.predict`.

        Raises:
            ValueError: no source or a predictor was given.
        """
        if source is None:
            raise ValueError("predict() needs a source: a file, a folder, a video, an array or a list of those.")
        if predictor is not None:
            raise ValueError("predict() takes no predictor: use eyas.evaluate.Predictor(model.model, ...) directly.")
        settings = self.placed(self.arguments.read("predict", arguments))
        results = map(ScriptResults.of, super().predict(source, stream, **settings))
        return results if stream else ResultList(results)

    __call__ = predict

    def track(  # type: ignore[override]
        self, source: Any = None, stream: bool = False, persist: bool = False, **arguments: Any
    ) -> Any:
        """Find objects in frames and follow them; see `eyas.api.YOLO.track`.

        Raises:
            ValueError: no source was given.
        """
        if source is None:
            raise ValueError("track() needs a source: a video, a stream, or a frame with persist=True.")
        tracker = arguments.pop("tracker", None) or "bytetrack"
        settings = self.placed(self.arguments.read("track", arguments))
        results = map(ScriptResults.of, super().track(source, stream, persist, tracker, **settings))
        return results if stream else ResultList(results)

    def placed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with the device that ``to()`` chose, unless they name one."""
        return arguments if self.chosen_device is None else {"device": self.chosen_device} | arguments

    def export(self, format: str | ExportTarget = "torchscript", **arguments: Any) -> Path:  # type: ignore[override]
        """Write the model for another runtime; see `eyas.api.YOLO.export`.

        Raises:
            ValueError: Eyas does not write that format, or an argument asks for what it does not do.
        """
        target = check_format(format)
        return super().export(target, **export_arguments(target, arguments, self.arguments))

    # -- weights -------------------------------------------------------------------------------------------------------
    def save(self, filename: str | Path = "saved_model.pt") -> Path:
        """Write the network into a checkpoint that ``YOLO(path)`` opens; returns its path."""
        path = Path(filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {key: value for key, value in self.ckpt.items() if key != "state"}
        save_checkpoint(known | describe_network(self.model), path)
        return path

    def load(self, weights: str | Path = "yolo26n.pt") -> ScriptModel:
        """Copy weights from a checkpoint, or published ones by name; returns itself."""
        super().load(weights)
        self.unsaved = None
        return self

    def load_state_dict(self, state: Mapping[str, Tensor], strict: bool = True) -> Any:
        """Copy tensors into the network, as a module does; ``train()`` asks for them to be saved first.

        Raises:
            ValueError: a training of this model runs, which they would disturb.
        """
        self.refuse_while_training("load_state_dict()")
        self.unsaved = "load_state_dict()"
        return self.model.load_state_dict(state, strict=strict)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's tensors by name."""
        return dict(self.model.state_dict())

    def parameters(self) -> Iterator[nn.Parameter]:
        """Give the network's parameters."""
        return self.model.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give the network's parameters with their names."""
        return self.model.named_parameters()

    def modules(self) -> Iterator[nn.Module]:
        """Give the network's modules."""
        return self.model.modules()

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Give the network's modules with their names."""
        return self.model.named_modules()

    def refuse_while_training(self, what: str) -> None:
        """Stop what would change the averaged weights of a training from a callback.

        Raises:
            ValueError: a training of this model runs.
        """
        if self.live is not None:
            raise ValueError(f"{what} while train() runs would disturb the averaged weights; call it afterwards.")

    # -- device and mode -----------------------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def to(self, device: str | int | torch.device) -> ScriptModel:
        """Move the network; ``val()`` and ``predict()`` run there unless they name a device. Returns itself.

        Raises:
            ValueError: a training of this model runs, which that would disturb.
        """
        self.refuse_while_training("to()")
        self.model.to(device)
        self.chosen_device = str(device)
        return self

    def cpu(self) -> ScriptModel:
        """Move the network to the CPU; returns itself."""
        return self.to("cpu")

    def cuda(self, device: int = 0) -> ScriptModel:
        """Move the network to a GPU; returns itself."""
        return self.to(f"cuda:{device}")

    def eval(self) -> ScriptModel:
        """Put the network into evaluation mode, in which the averaged one of a training is; returns itself."""
        if self.live is None:
            self.model.eval()
        return self

    def float(self) -> ScriptModel:
        """Return itself: the network is in float32."""
        return self

    def fuse(self) -> ScriptModel:
        """Return itself, and say that results do not depend on it."""
        LOGGER.info("fuse() changes nothing here: an exported model is fused, one in Python keeps its layers")
        return self

    # -- facts ---------------------------------------------------------------------------------------------------------
    @property
    def overrides(self) -> dict[str, Any]:
        """What later calls start from."""
        return {"model": self.name, "task": self.task, **self.remembered("val")}

    @property
    def train_args(self) -> dict[str, Any]:
        """The options that the network was trained with, ``{}`` for random weights."""
        return dict(self.ckpt.get("train_args", {}))

    @property
    def cfg(self) -> str | None:
        """The name or YAML that the network was built from; None for a checkpoint."""
        return None if self.ckpt_path else self.name

    @property
    def model_name(self) -> str:
        """What the network was opened as."""
        return self.name

    def info(self, detailed: bool = False, verbose: bool = True, imgsz: int = 640) -> Any:
        """Summary of the network."""
        return super().info()

    def reset_callbacks(self) -> None:
        """Forget all functions of all events."""
        for event in tuple(self.callbacks):
            self.clear_callback(event)


class YOLO(ScriptModel):
    """A detector as scripts know it."""


class RTDETR(ScriptModel, api.RTDETR):
    """A detector of the RT-DETR family as scripts know it."""


def check_format(target: str | ExportTarget) -> str | ExportTarget:
    """Return a target that Eyas writes.

    Raises:
        ValueError: it does not; says which it does.
    """
    known = (*known_targets(), *OTHER_NAMES)
    if isinstance(target, str) and target not in known:
        raise ValueError(
            f"Eyas does not export to {target!r}: there is format={' or '.join(map(repr, known))}, and a target of "
            "your own (see eyas.export.ExportTarget)."
        )
    return target


def export_arguments(target: str | ExportTarget, given: Mapping[str, Any], arguments: Arguments) -> dict[str, Any]:
    """Return the arguments of an export that mean something to Eyas.

    Raises:
        UnsupportedOptionError: one asks for what Eyas does not do.
        ValueError: the target has no such setting.
    """
    on_gpu = target in ("tensorrt", "engine")
    left_out = {
        name: value for name, value in given.items() if asks_nothing(name, value) or (on_gpu and name == "device")
    }
    kept = dict(spelled({name: value for name, value in given.items() if name not in left_out}))
    settings = {name for stock in known_targets().values() for name in settings_of(stock)}
    unknown = [name for name in kept if name not in settings and name not in ("imgsz", "verify", "data", "fraction")]
    if unknown:
        name = unknown[0]
        why = EXPORT_LACKS.get(name, f"it takes imgsz, verify, data, fraction and {', '.join(sorted(settings))}")
        raise UnsupportedOptionError(f"export() does not take {name}={kept[name]!r}: {why}.")
    find_target(target, {name: value for name, value in kept.items() if name in settings})
    arguments.tell("export", left_out)
    return kept


def asks_nothing(name: str, value: object) -> bool:
    """Whether an argument of an export asks for what happens anyway."""
    return name in EXPORT_OFF and among(value, EXPORT_OFF[name])
