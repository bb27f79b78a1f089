"""``YOLO`` and ``RTDETR``: train, validate and predict in one object; and the functions behind the command line."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas import dist
from eyas.augment.letterbox import padded
from eyas.callbacks import Callback, CallbackList
from eyas.callbacks.base import EVENTS, check_event
from eyas.checkpoint import load_checkpoint, refusals_of
from eyas.config import TrainOptions, resolve, with_defaults
from eyas.config.errors import OptionValueError, bad_value
from eyas.config.values import to_plain
from eyas.data.dataset import Transform
from eyas.data.depth import White
from eyas.data.place import from_here, seen_from
from eyas.device import random_state_kept, select_device
from eyas.evaluate import assemble
from eyas.evaluate.assemble import batch_beside
from eyas.evaluate.outputs import Outputs
from eyas.evaluate.predictor import Predictor, Step
from eyas.evaluate.results import Results
from eyas.evaluate.tracking import Follower, make_tracker
from eyas.evaluate.validator import DetectionValidator, LoneValidator
from eyas.export import Exported, ExportTarget, export, file_names, find_target, open_exported, target_of
from eyas.export.verify import IMAGES as VERIFIED_IMAGES
from eyas.export.verify import Check, Listener, verify_on_noise
from eyas.export.verify import verify as verify_on_images
from eyas.families import family_of
from eyas.log import LOGGER, setup_logging, warn
from eyas.metrics.detection import DetMetrics
from eyas.models import Detector, detector_class, load_weights, model_table, network_from
from eyas.models.table import ModelTableError, UnknownModelError
from eyas.nn.layout import place_model
from eyas.report.overview import print_overview
from eyas.run.overrides import overrides
from eyas.run.plan import Plan
from eyas.tables import html_table
from eyas.train import BaseTrainer, TrainResult
from eyas.train.options import find_checkpoint, goes_on
from eyas.train.profile import Profile, profile
from eyas.train.setup import CHECKPOINTS, Source, given_weights, model_source
from eyas.train.state import averaged
from eyas.train.venue import venue

# What a trained model remembers as defaults for val() and predict().
REMEMBERED = ("imgsz", "single_cls")
REMEMBERED_DATA = ("data", "ids_start", "val_fraction", "ignore")
PREDICT_CONF, TRACK_CONF = 0.25, 0.1  # lowest scores, where none is given
DRAWN = ("line_width", "show_labels", "show_conf")  # what says how pictures are drawn
_ONLY_ANSWERS = (
    "{} is an exported file: it can be measured (val) and used (predict). For all else open the checkpoint that it was "
    "made from."
)
WHERE = ("project", "name", "save_dir", "exist_ok")  # what says where a run's files lie


class YOLO:
    """A detector: its weights, and what can be done with them.

    Args:
        model: a name such as ``"yolo26n"`` (random weights), a YAML of layers, a checkpoint (``.pt``,
            ``.safetensors``), or a file that ``export`` wrote (``.onnx`` ...), which can be measured and used.
        task: ``"detect"``, the only one.
        verbose: print a summary of the model.
        model_class: class to rebuild a checkpoint with; only for models whose layers their table does not describe.

    ``YOLO(...)`` with a model of the RT-DETR family gives an ``RTDETR``.

    Attributes:
        model: the network; while ``train`` runs the live averaged one, as callbacks see it, afterwards the best.
        trainer, metrics: those of the latest ``train`` or ``val``.
        callbacks: the functions of every event, for every later ``train``.
        ckpt: the checkpoint it was loaded from, ``{}`` for random weights.
        exported: the exported file that it was opened from, None for all else.
    """

    _opened: Source | None = None
    exported: Exported | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> YOLO:
        """Return an object of the class for the model's family; subclasses open whatever family they are given."""
        return cls._of_family(*args, **kwargs) if cls is YOLO and (args or kwargs) else super().__new__(cls)

    @staticmethod
    def _of_family(
        model: str | Path = "yolo26n",
        task: str | None = None,
        verbose: bool = False,
        model_class: type[Detector] | None = None,
    ) -> YOLO:
        exported = open_exported(model)
        if exported is not None:
            self = object.__new__(FACADES.get(exported.card.family, YOLO))
            self.exported = exported
            return self
        source = opened(model)
        self = object.__new__(facade_of(model_class or detector_class(source.table)))
        self._opened = source  # for __init__: a checkpoint is read once
        return self

    def __init__(
        self,
        model: str | Path = "yolo26n",
        task: str | None = None,
        verbose: bool = False,
        model_class: type[Detector] | None = None,
    ) -> None:
        if task not in (None, "detect"):
            raise ValueError(f"task={task!r} is not supported; Eyas detects objects (task='detect').")
        self.name = os.path.expanduser(model)
        self.trainer: BaseTrainer | None = None
        self.metrics: DetMetrics | None = None
        self.callbacks: dict[str, list[Callable[..., object]]] = {event: [] for event in EVENTS}
        self.ckpt: dict[str, Any] = {}
        self.ckpt_path: str | None = None
        self.loaded: str | None = None  # weights that load() brought, for a later train()
        self.model_class = model_class
        self.running: BaseTrainer | None = None  # while train() is on
        self.follower: Follower | None = None  # of the latest track()
        self.exported = self.exported or open_exported(self.name)
        if self.exported is None:
            self.model = self.load_network(self.name, verbose)

    def load_network(self, model: str, verbose: bool) -> Detector:
        """Build the network of a name, YAML or checkpoint."""
        source, self._opened = self._opened or opened(model), None
        if source.weights is None:
            return (self.model_class or detector_class(source.table))(source.table, verbose=verbose)
        self.ckpt, self.ckpt_path = source.weights, model
        with refusals_of(model, ModelTableError):
            return network_from(source.weights, verbose=verbose, model_class=self.model_class)

    @property
    def model(self) -> Detector:
        """The network; of a training that runs in this process the averaged weights, not a copy.

        Raises:
            ValueError: this is an exported file, which holds none.
        """
        if self.exported is not None:
            raise ValueError(_ONLY_ANSWERS.format(self.name))
        return self._network if self.live is None else averaged(self.live)

    @model.setter
    def model(self, network: Detector) -> None:
        self._network = network

    @property
    def live(self) -> BaseTrainer | None:
        """The training that runs in this process and has weights to show, or None."""
        return self.running if self.running is not None and is_set_up(self.running) else None

    @property
    def trainer_class(self) -> type[BaseTrainer]:
        """The stock trainer of the model's family."""
        return family_of(self.model).trainer

    @property
    def family(self) -> str:
        """Name of the model's family."""
        return family_of(self.model).name if self.exported is None else self.exported.card.family

    @property
    def names(self) -> dict[int, str]:
        """Class names by id."""
        return dict((self.exported or self.model).names)

    def __repr__(self) -> str:
        """For example ``YOLO('yolo26n', 80 classes, 2,572,280 parameters)``."""
        if self.exported is not None:
            card = self.exported.card
            return f"{type(self).__name__}({self.name!r}, {len(card.names)} classes, {card.precision}, {card.imgsz} px)"
        return (
            f"{type(self).__name__}({self.name!r}, {self.model.nc} classes, {parameters_of(self.model):,} parameters)"
        )

    def _repr_html_(self) -> str:
        names = ", ".join(map(str, self.names.values()))
        rows: list[tuple[str, object]] = [("model", self.name)]
        if self.exported is None:
            rows += [("parameters", f"{parameters_of(self.model):,}")]
        rows += [("classes", len(self.names)), ("names", textwrap.shorten(names, 200, placeholder=" ..."))]
        if self.metrics is not None:
            rows += [("metrics", self.metrics.box.means_text())]
        return html_table(("", ""), rows, type(self).__name__)

    # -- hooks ---------------------------------------------------------------------------------------------------------
    def add_callback(self, event: str, fn: Callable[..., object]) -> None:
        """Register ``fn(trainer)`` for every later ``train``; an event that never fires is a ``ValueError``."""
        self.callbacks[check_event(event)].append(fn)

    def clear_callback(self, event: str) -> None:
        """Forget the functions of an event."""
        self.callbacks[check_event(event)].clear()

    # -- train, val, predict -------------------------------------------------------------------------------------------
    def train(
        self,
        trainer: type[BaseTrainer] | None = None,
        callbacks: list[Callback] | None = None,
        transforms: Sequence[Transform] = (),
        **options: Any,
    ) -> TrainResult:
        """Train, and keep the best weights in this object.

        Args:
            trainer: a subclass of ``DetectionTrainer``; a class, not an instance.
            callbacks: ``Callback`` instances; one replaces the stock one of its class.
            transforms: callables ``(image, boxes, labels)`` for training images, after all other augmentation; see
                ``eyas.data.dataset.Transform``.
            **options: see ``eyas explain``; ``model`` is this object's.

        Raises:
            ValueError: an unknown option (with the nearest), a bad value, bad data.
        """
        _ = self.model  # an exported file stops here
        if self.running is not None:
            raise ValueError("train() of this object runs already: train another one with a YOLO(...) of its own.")
        if trainer is not None and not (isinstance(trainer, type) and issubclass(trainer, BaseTrainer)):
            raise TypeError(f"trainer takes a subclass of DetectionTrainer, got {trainer!r}; pass the class itself.")
        cls = trainer or self.trainer_class
        if self.model_class is not None and "get_model" not in overrides(cls):
            raise ValueError(
                f"model_class={self.model_class.__name__} is not used by train(): give a trainer whose get_model() "
                "returns such a model."
            )
        given = {"model": self.name, **({"pretrained": self.loaded} if self.loaded else {}), **options}
        resolved = resolve(recipe=cls.recipe.options, call=given, command="train")
        setup_logging(resolved.verbose)
        hooks = CallbackList(list(callbacks or []), self.callbacks)
        self.trainer = cls(overrides=resolved, _callbacks=hooks)
        if transforms:
            self.trainer.transforms = tuple(transforms)
        self.running = self.trainer
        try:
            result = self.trainer.train()
        finally:
            self.running = None
        return self.adopt(result)

    def adopt(self, result: TrainResult) -> TrainResult:
        """Take over the weights of a training, the best ones if there are any; returns the result."""
        path = result.best if result.best_epoch else result.last
        self.ckpt, self.ckpt_path, self.name = load_checkpoint(path), str(path), str(path)
        self.model = self.rebuilt(self.ckpt, self.class_of(result))
        self.metrics, self.loaded = result.detection, None
        return result

    def rebuilt(self, checkpoint: dict[str, Any], cls: type[Detector] | None) -> Detector:
        """Return the network of a checkpoint, of the user's class if that takes the arguments of the stock one."""
        try:
            return network_from(checkpoint, model_class=cls)
        except TypeError as error:
            stock = detector_class(checkpoint["yaml"])
            if cls in (None, stock):
                raise
            warn(f"{cls.__name__} cannot be built as {stock.__name__} is ({error}); the stock class holds its weights.")
            return network_from(checkpoint)

    def class_of(self, result: TrainResult) -> type[Detector] | None:
        """Return the class to rebuild a trained model with: the user's own, known here if not elsewhere."""
        return result.model_class if issubclass(result.model_class, Detector) else self.model_class

    def val(self, **options: Any) -> DetMetrics:
        """Measure the model on a split; defaults for ``data`` and ``imgsz`` are those it was trained with.

        In a callback while ``train`` runs: a copy of the averaged weights, by this process alone. The training is left
        as it is, random numbers included.

        Returns:
            Metrics: ``.box.map50``, ``.box.map``, ``.box.ap``, ``.results_dict``, ``.summary()`` ...
        """
        return self.run_val(self.val_options(resolve(call={"model": self.name, **options}, command="val")))

    def run_val(self, options: TrainOptions) -> DetMetrics:
        """Measure the model under resolved options."""
        options = venue().val_options(options)
        if options.data is None:
            raise ValueError("no data was given, and the model does not remember any; for example data=my.yaml.")
        if self.live is None:
            setup_logging(options.verbose)
            return self.measure(options, DetectionValidator)
        with beside_training(self.live, options.verbose):
            return self.measure(options, LoneValidator)

    def measure(self, options: TrainOptions, kind: type[DetectionValidator]) -> DetMetrics:
        """Measure the model with a validator of one kind."""
        network, device = self.network(), self.device_for(options)
        if isinstance(network, Detector):
            place_model(network, device)  # as in training
        data = assemble.described_data(options, (options.split,))
        if self.running is not None and self.live is None:
            refuse_unbuilt(network.nc, 1 if options.single_cls else len(data["names"]))
        with (
            venue().folder(options, default_name="val") as save_dir,
            assemble.split_loader(
                options, data, device, stretch=network.stretch, rect=network.side is None, white=self.white
            ) as loader,
        ):
            loader.dataset.index.report.print_table()
            quiet = assemble.build_validator(
                options,
                loader,
                names=data["names"],
                save_dir=save_dir,
                device=device,
                kind=kind,
                close_up=assemble.close_up(options, loader.dataset.index.white),
            )
            validator = assemble.with_report(options, quiet, data[options.split])
            validator(model=network)
        self.metrics = validator.metrics
        return validator.metrics

    def network(self) -> Detector | Exported:
        """Return the network to work with, which may be moved and changed: of a training that runs a copy."""
        return self.exported or self.copied_model()

    def copied_model(self) -> Detector:
        """Return the detector, of a training that runs a copy."""
        return self.model if self.live is None else copy.deepcopy(self.model)

    def device_for(self, options: TrainOptions) -> torch.device:
        """Return where to work: as typed, else where a training or an exported file runs, else what there is.

        Raises:
            ValueError: a precision was typed, and that of an exported file is fixed.
        """
        if self.exported is not None:
            if options.is_typed("amp"):
                raise ValueError(f"amp has no effect: the precision of {self.name} is {self.exported.card.precision}")
            return select_device(options.device) if options.is_typed("device") else self.exported.device
        return self.live.device if self.live and not options.is_typed("device") else select_device(options.device)

    def predict(self, source: Any, stream: bool = False, **options: Any) -> list[Results] | Iterator[Results]:
        """Find objects in images, videos, streams and more.

        Args:
            source: file, folder, glob, ``.txt`` list, http(s) address, webcam's number, ``rtsp://`` address,
                ``"screen"``, array ``(H, W, 3)`` BGR uint8, PIL image, or a list of those; see
                ``eyas.evaluate.sources.open_source``.
            stream: yield results one by one instead of returning a list; long videos then need no memory.
            **options: ``conf``, ``iou``, ``imgsz``, ``max_det``, ``classes``, ``device``, ``batch``, ``tile`` ...

        Raises:
            ValueError: an unknown option or a bad value, a source that cannot be read, or one that never ends without
                ``stream=True``.
        """
        resolved = resolve(recipe=self.remembered("predict"), call={"model": self.name, **options}, command="predict")
        return self.predictor(resolved)(source, stream, *self.written(resolved, "predict"))

    __call__ = predict

    def track(
        self,
        source: Any,
        stream: bool = False,
        persist: bool = False,
        tracker: Any = "bytetrack",
        **options: Any,
    ) -> list[Results] | Iterator[Results]:
        """Find objects in the frames of a video and follow them: ``.boxes.id`` of the results says which is which.

        Detections that belong to no object are left out.

        Args:
            source, stream: as for ``predict``.
            persist: go on with the objects of the call before, for frames that are given one by one.
            tracker: ``"bytetrack"``, a YAML file or a mapping of its settings (``eyas.evaluate.tracking.ByteTrack``),
                or an object whose ``update(detections)`` takes and returns ``supervision.Detections``.
            **options: as for ``predict``; ``conf`` is 0.1 unless given, since a tracker has use for weak detections.

        Raises:
            ValueError: as for ``predict``, or there is no such tracker.
        """
        named = {"tracker": str(tracker)} if isinstance(tracker, str | Path) else {}
        call = {"model": self.name, **named, **options}
        resolved = resolve(recipe=self.remembered("predict"), call=call, command="track")
        return self.run_track(resolved, source, stream, persist, tracker)

    def run_track(
        self, options: TrainOptions, source: Any, stream: bool, persist: bool, tracker: Any, pictures: bool = False
    ) -> list[Results] | Iterator[Results]:
        """Track under resolved options; ``pictures`` as for ``written``."""
        if not persist or self.follower is None:
            self.follower = Follower(make_tracker(tracker))
        written = self.written(options, "track", pictures)
        return self.predictor(options, conf=TRACK_CONF)(source, stream, self.follower, *written)

    def predictor(self, options: TrainOptions, conf: float = PREDICT_CONF) -> Predictor:
        """Return what turns pictures into results under resolved options; ``conf`` is for those that set none."""
        return Predictor(
            self.network(),
            imgsz=options.imgsz,
            classes=options.classes,
            device=self.device_for(options),
            batch=assemble.images_at_a_time(options) or 1,
            white=self.white,
            tiling=assemble.tiling(options),
            vid_stride=options.vid_stride,
            stream_buffer=options.stream_buffer,
            **{"conf": conf} | assemble.thresholds(options),
        )

    def written(self, options: TrainOptions, name: str, pictures: bool = False) -> list[Step]:
        """Return what writes the files of a prediction as its results pass; none if none are asked for.

        Args:
            options: resolved options.
            name: folder, where they name none.
            pictures: write pictures though nobody typed ``save``, as a command does.

        Raises:
            ValueError: options say where files go or how pictures are drawn, and none are written.
        """
        pictures = options.save and (pictures or options.is_typed("save"))
        drawn = pictures or options.save_frames
        idle = [] if drawn else [one for one in DRAWN if options.is_changed(one)]
        if idle:
            raise ValueError(f"{', '.join(idle)} say how pictures are drawn, but none are written; add save=True.")
        if not (drawn or options.save_txt or options.save_crop):
            idle = [one for one in WHERE if options.is_typed(one)]
            if idle:
                raise ValueError(f"{', '.join(idle)} say where pictures go, but none are written; add save=True.")
            return []
        outputs = Outputs(
            venue().folder(options, default_name=name),
            pictures=pictures,
            txt=options.save_txt,
            conf=options.save_conf,
            crops=options.save_crop,
            frames=options.save_frames,
            plot={"line_width": options.line_width, "labels": options.show_labels, "conf": options.show_conf},
        )
        return [outputs]

    @property
    def white(self) -> White | None:
        """What was white in the images of more than 8 bits that the model was trained on."""
        if self.exported is not None:
            return White.from_dict(self.exported.card.white) if self.exported.card.white is not None else None
        described = self.live.describe_model() if self.live else self.ckpt
        return White.from_dict(described["white"]) if "white" in described else None

    def val_options(self, asked: TrainOptions) -> TrainOptions:
        """Return the options of a ``val``; what is remembered of the training's data is for that data alone."""
        others = REMEMBERED_DATA if asked.is_typed("data") else ()
        kept = {name: value for name, value in self.remembered("val").items() if name not in others}
        return with_defaults(asked, kept)

    def remembered(self, command: str) -> dict[str, Any]:
        """Defaults of the checkpoint's training, or the one that runs: input size, and for ``val`` data and batch."""
        if self.exported is not None:
            stored = {**self.exported.card.remembered, "imgsz": self.exported.card.imgsz}
            stored["data"] = from_here(stored.get("data"), stored.get("began_in"), self.name)
        elif self.live:
            stored = self.live.args.to_dict()
        else:
            stored = dict(self.ckpt.get("train_args", {}))
            stored["data"] = from_here(stored.get("data"), self.ckpt.get("began_in"), self.ckpt_path or self.name)
        names = (*REMEMBERED, *REMEMBERED_DATA) if command == "val" else REMEMBERED
        found = {name: stored[name] for name in names if stored.get(name) is not None}
        # In the same batches as in training, because kernels round otherwise in others.
        batch = batch_beside(self.live.batch_size) if self.live else self.ckpt.get("val_batch")
        found |= {"batch": batch} if command == "val" and batch else {}
        with refusals_of(self.name, ValueError):  # what is typed may be wrong too, and is no fault of the file
            resolve(recipe=found, command=command)
        return found

    def export(
        self,
        format: str | ExportTarget = "pt2",
        imgsz: int | None = None,
        verify: bool = True,
        data: str | Mapping[str, Any] | None = None,
        fraction: float | None = None,
        **settings: Any,
    ) -> Path:
        """Write the model for another runtime, next to its checkpoint; a model without one, into the current folder.

        Args:
            format: name of a stock target, or an object that is one, see ``eyas.export.ExportTarget``.
            imgsz: side of the square input in pixels; default that of the training.
            verify: compare the file with the model, and fail if it is not as good: on up to 200 labelled images of
                ``data``, or without any on images of noise.
            data: what to verify on, the split ``val``, and what ``int8`` is fitted to, the split ``train``; default
                that of the training.
            fraction: with ``int8``, the share of the training images, or their number, that it is fitted to; default
                200 of them.
            **settings: those of the target, such as ``half``, ``int8``, ``dynamic``, ``batch``, ``opset``.

        Returns:
            Path of the file or folder.

        Raises:
            ExportError: the target cannot write the model, mAP50-95 of the file is off by more than 0.002 (``int8``:
                0.01), or a box by more than a pixel.
            ImportError: a library that the target needs is not installed.
            OptionValueError: no such target or setting, or two that contradict each other.
            ValueError: the file would replace the checkpoint.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            chosen = find_target(format, given)
        except ValueError as error:
            raise OptionValueError(str(error)) from error
        if not isinstance(verify, bool):
            raise bad_value("verify", verify, "True or False")
        fits = bool(given.get("int8"))
        if fraction is not None and not is_part(fraction):
            raise bad_value("fraction", fraction, "a share above 0 and up to 1, or a whole number of images")
        if fraction is not None and not fits:
            raise OptionValueError(
                "fraction is how many images int8 is fitted to: give int8=True too, or leave it out."
            )
        if data is not None and not verify and not fits:
            raise OptionValueError("data is there to verify on, and verify is False: leave one of them out.")
        typed = {"model": self.name, "imgsz": imgsz, "data": data, "device": "cpu", "workers": 0}
        call = {name: value for name, value in typed.items() if value is not None}
        options = venue().val_options(self.val_options(resolve(call=call, command="val")))
        path = beside(Path(self.ckpt_path or Path(self.name).name), chosen.suffix)
        if self.ckpt_path and path == Path(self.ckpt_path):
            raise ValueError(f"a file of suffix {chosen.suffix!r} would take the place of {path}; choose another.")
        if (side := padded(options.imgsz)) != options.imgsz:
            warn(f"imgsz={options.imgsz} is rounded up to {side}, which the strides of the network divide")
        network, white = self.copied_model(), self.white
        kept = {name: value for name, value in self.remembered("val").items() if name != "batch"}
        kept["began_in"] = seen_from(os.curdir, path.absolute().parent)
        with ExitStack() as stack:
            return export(
                network,
                chosen,
                path,
                imgsz=side,
                check=stack.enter_context(self.check_of(options)) if verify else None,
                samples=partial(self.training_images, options, VERIFIED_IMAGES if fraction is None else fraction),
                remembered=to_plain(kept),
                white=None if white is None else white.to_dict(),
            )

    @contextmanager
    def check_of(self, options: TrainOptions) -> Iterator[Check]:
        """Yield what compares an exported file with the model: on labelled images, or on noise for want of any.

        Raises:
            ValueError: data was given, and cannot be read.
        """
        try:
            data = assemble.described_data(options, (options.split,)) if options.data is not None else None
        except (ValueError, OSError) as error:
            if options.is_typed("data"):
                raise
            warn(f"the data of the training is not here, so that the file is compared on noise: {error}")
            data = None
        if data is None:
            yield verify_on_noise
            return
        device, stretch = select_device(options.device), self.model.stretch
        with assemble.square_loader(
            options, data, options.split, device, stretch=stretch, images=VERIFIED_IMAGES, white=self.white
        ) as loader:
            settings = assemble.validator_settings(options, device)
            listener = Listener(loader, names=data["names"], device=device, verbose=False, **settings)
            yield partial(verify_on_images, validator=listener)

    def training_images(self, options: TrainOptions, images: float) -> Iterator[Tensor]:
        """Give so many training images, or such a share, as the network takes them: (1, 3, S, S) in [0, 1].

        Raises:
            ValueError: no data is known.
        """
        if options.data is None:
            raise ValueError("int8 is fitted to images of the training, and none are known: give data=my.yaml.")
        data, device = assemble.described_data(options, ("train",)), select_device(options.device)
        with assemble.square_loader(
            options, data, "train", device, stretch=self.model.stretch, images=images, white=self.white
        ) as loader:
            for batch in loader:
                yield from (batch["img"].float() / 255).split(1)

    # -- the rest ------------------------------------------------------------------------------------------------------
    def load(self, weights: str | Path) -> YOLO:
        """Copy weights from a checkpoint, or published ones by name, where names and shapes fit; returns itself.

        Raises:
            ValueError: a training of this model runs, which they would disturb.
        """
        if self.live:
            raise ValueError(f"load({str(weights)!r}) while train() runs would overwrite the averaged weights.")
        load_weights(self.model, given_weights(weights))
        self.loaded = str(weights)
        return self

    def info(self) -> Any:
        """Summary of the network."""
        return self.model.info()


def beside(path: Path, suffix: str) -> Path:
    """Return where a file of another suffix lies beside a checkpoint; ``_openvino`` as well as ``.onnx``."""
    return path.with_name(path.with_suffix("").name + suffix)


def is_part(fraction: object) -> bool:
    """Whether a value tells a share of some images, or how many."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        return False
    return 0 < fraction <= 1 or (fraction > 1 and float(fraction).is_integer())


def parameters_of(model: Detector) -> int:
    """Count the numbers that a network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


class RTDETR(YOLO):
    """A detector of the RT-DETR family; everything is called as in ``YOLO``."""

    def __init__(
        self,
        model: str | Path = "rtdetr-l",
        task: str | None = None,
        verbose: bool = False,
        model_class: type[Detector] | None = None,
    ) -> None:
        super().__init__(model, task, verbose, model_class)
        if FACADES.get(self.family, YOLO) is not RTDETR:
            raise ValueError(f"{model} is not of the RT-DETR family; open it with YOLO({str(model)!r}).")


def is_set_up(trainer: BaseTrainer) -> bool:
    """Whether a training has built everything, the average of its weights included."""
    return trainer.epochs > 0


def refuse_unbuilt(nc: int, classes: int) -> None:
    """Refuse to measure what a training starts from on data of other classes, before it has built its own model.

    Raises:
        ValueError: the model starts with ``nc`` classes, and the data has another number.
    """
    if nc != classes:
        raise ValueError(
            f"the training has not built its model yet: what it starts from predicts {nc} classes and the data has "
            f"{classes}. Validate in on_pretrain_routine_end or later."
        )


@contextmanager
def beside_training(trainer: BaseTrainer, verbose: bool) -> Iterator[None]:
    """Leave the level of the log and all random numbers to the training that goes on after the block."""
    level = LOGGER.level
    setup_logging(verbose and dist.is_main())
    try:
        with random_state_kept(trainer.device):
            yield
    finally:
        LOGGER.setLevel(level)


FACADES: Mapping[str, type[YOLO]] = {"rtdetr": RTDETR}
"""Family -> class that its models are opened as; those of all others are a ``YOLO``."""


def facade_of(cls: type[Detector]) -> type[YOLO]:
    """Return the class that models of a detector's class are opened as."""
    return FACADES.get(family_of(cls).name, YOLO)


def opened(model: str | Path) -> Source:
    """Return the table of a model's name, YAML or checkpoint, and what the checkpoint holds.

    Raises:
        UnknownModelError, ModelTableError, CheckpointError: there is no such model, or its file cannot be read.
    """
    try:
        source = model_source(TrainOptions(model=str(model)), None)
    except UnknownModelError as error:
        if not os.path.exists(model):
            raise
        checkpoints = ", ".join(f"*{suffix}" for suffix in CHECKPOINTS)
        raise UnknownModelError(
            f"{model} is there, but is not called like what Eyas opens: {checkpoints} (checkpoints), *.yaml (tables of "
            f"layers), or {file_names()} (exported)"
        ) from error
    with refusals_of(model, *(() if source.weights is None else (ModelTableError,))):
        return source._replace(table=model_table(source.table))


# -- behind the command line -------------------------------------------------------------------------------------------
# Each takes the options that the command line was resolved to, whose sources say so.
def run_train(asked: TrainOptions) -> TrainResult:
    """``eyas train key=value ...``."""
    return trainer_from(asked).train()


def trainer_from(asked: TrainOptions, callbacks: Sequence[Callback] = ()) -> BaseTrainer:
    """Return the trainer of the family whose model is named, or resumed."""
    setup_logging(asked.verbose)
    if not goes_on(asked) and target_of(str(asked.model)) is not None:
        raise ValueError(_ONLY_ANSWERS.format(asked.model))
    source = resumed_source(asked) if goes_on(asked) else model_source(asked, None)
    trainer = family_of(model_table(source.table)).trainer
    return trainer.from_source(source, overrides=asked, _callbacks=list(callbacks) or None)


def resumed_source(asked: TrainOptions) -> Source:
    """Return what the model of the run to continue is made from."""
    path = find_checkpoint(asked)
    checkpoint = load_checkpoint(path)
    return Source(checkpoint["yaml"], checkpoint, str(path))


def run_plan(asked: TrainOptions) -> Plan:
    """``eyas plan key=value ...``: build all that a training would be, print it, train nothing, leave no folder.

    Several processes are planned for, not started.

    Raises:
        ValueError: whatever ``eyas train`` would be stopped by before its first step.
    """
    trainer = trainer_from(asked)
    with passing_folder(trainer), trainer.prepared():
        print_overview(trainer)
    return trainer.plan


@contextmanager
def passing_folder(trainer: BaseTrainer) -> Iterator[None]:
    """Let a trainer write into a folder that goes when the block ends, whatever it was told about folders.

    A run that goes on finds its best weights there too, without which it would refuse to.
    """
    options, usual = trainer.args, TrainOptions()
    sources = {name: source for name, source in options.sources().items() if name not in WHERE}
    trainer.args = TrainOptions.from_dict(options.to_dict() | {name: usual.get(name) for name in WHERE}, sources)
    with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
        given = trainer.wdir if trainer.resume_from else None
        trainer.set_folder(Path(folder))
        if given is not None:
            shutil.copytree(given, trainer.wdir, ignore=shutil.ignore_patterns("last.pt", "epoch*.pt"))
        yield


def run_profile(asked: TrainOptions) -> Profile:
    """``eyas profile key=value ...``: train some steps, validate and save once, print how long each part takes.

    Nothing is kept.

    Raises:
        ValueError: whatever ``eyas train`` would be stopped by before its first step; several processes.
    """
    trainer = trainer_from(asked)
    if trainer.world_size:
        raise ValueError("profile measures one process: leave out processes=, and name one device.")
    with passing_folder(trainer), trainer.prepared():
        found = profile(trainer)
    found.print()
    return found


def run_val(asked: TrainOptions) -> DetMetrics:
    """``eyas val key=value ...``."""
    yolo = YOLO(asked.model or "yolo26n")
    return yolo.run_val(yolo.val_options(asked))


def run_predict(asked: TrainOptions, source: str) -> int:
    """``eyas predict source=... key=value ...``: writes annotated pictures and videos into the run folder.

    Returns:
        Number of pictures that were looked at.
    """
    yolo = YOLO(asked.model or "yolo26n")
    options = with_defaults(asked, yolo.remembered("predict"))
    setup_logging(options.verbose)
    written = yolo.written(options, "predict", pictures=True)
    return told(yolo.predictor(options)(source, True, *written))


def run_track(asked: TrainOptions, source: str) -> int:
    """``eyas track source=... key=value ...``: the same, of objects that are followed from frame to frame."""
    yolo = YOLO(asked.model or "yolo26n")
    options = with_defaults(asked, yolo.remembered("predict"))
    setup_logging(options.verbose)
    return told(yolo.run_track(options, source, stream=True, persist=False, tracker=options.tracker, pictures=True))


def told(results: Iterable[Results]) -> int:
    """Say what each picture holds, one line each, as it comes; returns how many there were."""
    count = 0
    for result in results:
        LOGGER.info("%s", result)
        count += 1
    return count


def run_export(model: str, **arguments: Any) -> Path:
    """``eyas export key=value ...``."""
    setup_logging(True)
    path = YOLO(model).export(**arguments)
    LOGGER.info("Exported to %s", path)
    return path
