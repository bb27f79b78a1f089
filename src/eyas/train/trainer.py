"""THE loop. It fits one screen and speaks in verbs; every verb is a method or a hook (see ``eyas.callbacks.base``)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import yaml
from torch import Tensor, nn
from torch.optim import Optimizer

from eyas import dist, files
from eyas.checkpoint import load_checkpoint, refusals_of, save_checkpoint, unbounded_buffers
from eyas.config import TrainOptions
from eyas.config.folders import AUTO, run_folder
from eyas.data.bad_images import BadImages
from eyas.data.content import FILE, content_of, save_contents
from eyas.data.loader import EpochLoader, shield_workers
from eyas.data.upload import Upload
from eyas.device import PRECISIONS, amp_dtype, check_amp, process_devices, reproducible, seed_step, select_device
from eyas.evaluate.assemble import batch_beside
from eyas.evaluate.validator import DetectionValidator
from eyas.files import write_atomic
from eyas.launch.interrupt import Interrupted, InterruptFlag, Stalled, catch_interrupts
from eyas.log import LOGGER, command, setup_logging, warn
from eyas.losses.items import named_losses
from eyas.nn.layout import place_model
from eyas.nn.norms import GrowingStatistics, StatisticsBeside, hold_norms
from eyas.nn.unwrap import unwrap_model
from eyas.optim import (
    SCHEDULES,
    GradientNorms,
    ModelEMA,
    apply_schedule,
    build_optimizer,
    check_base_rates,
    check_groups,
    note_rates,
    take_over_changes,
)
from eyas.optim.optimizers import optimizer_class
from eyas.prove import conflicts, effects, uncalled
from eyas.recipes import YOLO26, Fitted, Recipe
from eyas.report import pictures
from eyas.run.plan import Plan
from eyas.run.tracking import History, LossMeter
from eyas.tables import html_table
from eyas.train import (
    autosave,
    batch_size,
    checks,
    compiling,
    components,
    divergence,
    ending,
    folder,
    loading,
    memory,
    messages,
    options,
    parallel,
    plan,
    precision,
    setup,
    state,
)
from eyas.train.recorder import Recorder
from eyas.train.requests import Request, Requests
from eyas.train.result import TrainResult
from eyas.train.setup import Source
from eyas.train.venue import venue
from eyas.train.watch import Stage, Watch
from eyas.types import Batch, Progress


class BaseTrainer:
    """Trains a model; subclass it to change what it does, or hang callbacks into it to change or watch how.

    Args:
        cfg: base options: ``TrainOptions``, a mapping, the path of a YAML file, or nothing.
        overrides: options over those.
        _callbacks: ``Callback`` instances, a mapping of events to functions, or a ready ``CallbackList``.

    Attributes:
        args: the options; assigning an unknown name is an error.
        model: what ``get_model`` returned, later possibly replaced or wrapped; use this, not a copy.
        epoch, step: where the run stands, 0-based.
        world_size: processes that train together, 0 for one.
        stop: set it True in a callback to end the run after this epoch.
        freeze_layer_names: parts of names; normalisation layers with one of them in their name stay in eval mode.
        epoch_log: numbers that callbacks add to this epoch's row of ``results.csv``.
        best_files: stem of a file of best weights -> its 1-based epoch so far; ``"best"`` is the main one.
        transforms: callables ``(image, boxes, labels)`` for training images, after all other augmentation.
        best_fitness, fitness, metrics: of the best epoch, of the latest validation, and its numbers.
    """

    recipe: Recipe = YOLO26
    transforms: tuple[Any, ...] = ()
    _source: Source | None = None
    model: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    plan: Plan
    batch: Batch
    loss: Tensor
    interrupted: InterruptFlag
    autosave: autosave.Autosave
    watch: Watch
    upload: Upload

    def __init__(
        self,
        cfg: TrainOptions | Mapping[str, Any] | str | Path | None = None,
        overrides: TrainOptions | Mapping[str, Any] | None = None,
        _callbacks: components.Given = None,
    ) -> None:
        self.args = venue().train_options(options.merge_options(cfg, overrides, self.recipe), type(self))
        self.began_in = str(Path.cwd())
        self.resume_from: dict[str, Any] | None = None
        if options.goes_on(self.args):
            self.args, self.resume_from = options.resume_options(self.args, self._source)
            state.check_stored(self.resume_from, self.args.resume)
            options.check_trainer(state.trainer_name(type(self)), self.resume_from)
        if self.args.optimizer.lower() != "auto":
            optimizer_class(self.args.optimizer)  # a name that is none is refused before data is read
        self.callbacks = components.collect_callbacks(_callbacks, self.args)
        self.devices = process_devices(self.args.device, self.args.processes)
        self.device = select_device(self.devices[0])
        check_amp(self.args.amp, self.device)
        processes = max(dist.world_size(), len(self.devices))
        self.world_size = processes if processes > 1 else 0
        self.set_folder(run_folder(self.args, resuming=self.resume_from is not None))
        # A folder that was asked for is used as it is; one with a number is taken when the run begins.
        named = self.args.exist_ok or self.args.save_dir is not None or self.args.resume == AUTO
        self.owns_folder = named or self.resume_from is not None
        self.model = self.args.model  # type: ignore[assignment]  # the user's word for it, until the set-up
        self.train_loader: Any = None
        self.test_loader: Any = None
        self.data: dict[str, Any] = {}
        self.contents: dict[str, str] = {}  # hash of images and labels, by split
        self.ema: ModelEMA | None = None
        self.statistics: GrowingStatistics | None = None
        self.compiled: compiling.Compiled | None = None
        self.validator: Any = None
        self.history = History()
        self.recorder = Recorder(at_once=True)
        self.gradient_norms = GradientNorms()
        self.rollbacks = 0  # times that the run went back to its last checkpoint; the order of the data follows
        self.notes: list[str] = []  # what happened to the run that its numbers do not tell
        self.meter = LossMeter()
        self.epoch = self.step = self.start_epoch = self.start_step = 0
        self.epochs = 0
        self.freeze_layer_names = [".dfl"]
        self.epoch_log: dict[str, float] = {}
        self.best_fitness: float | None = None
        self.best_files: dict[str, int] = {"best": 0}
        self.written: set[str] = set()
        self.coloured = 0  # images whose colours were jittered on the device
        self.passes = 1  # parts that batches are passed in at least, by what has happened to processes before
        self.saved = ""  # how far the run had come that last.pt holds; empty before there is one
        self.unbounded: set[str] = set()  # buffers that hold infinity by design
        self.fitness: float | None = None
        self.metrics: dict[str, float] = {}
        self.loss_items: dict[str, Tensor] = {}
        self.loss_names: tuple[str, ...] = ()
        self.fits: Fitted = {}
        self.stop = self.validated = self.time_is_up = self.is_over = False
        self.effects: effects.Effects | None = None
        self.elapsed_before = self.time_spent = self.validation_seconds = 0.0
        self.requests = Requests(several=self.world_size > 0)
        self.exception: BaseException | None = None
        self.leave = ending.leave_at_once

    @classmethod
    def from_source(cls, source: Source, **arguments: Any) -> Self:
        """Return a trainer, made of the other arguments, that does not read again what its model is made from."""
        trainer = cls.__new__(cls)
        trainer._source = source
        cls.__init__(trainer, **arguments)
        return trainer

    def __repr__(self) -> str:
        """For example ``DetectionTrainer(yolo26n on digits, epoch 3 of 12, runs/detect/train)``."""
        epoch = f"epoch {self.epoch + 1} of {self.epochs}" if self.epochs else "not set up"
        return f"{type(self).__name__}({self.args.model} on {self.args.data}, {epoch}, {self.save_dir})"

    def _repr_html_(self) -> str:
        rows = [("best epoch", self.best_epoch or None), ("best fitness", self.best_fitness), *self.metrics.items()]
        return html_table(("", ""), rows, repr(self))

    # -- the loop ------------------------------------------------------------------------------------------------------
    def train(self) -> TrainResult:
        """Run the training and return its outcome."""
        return venue().train(self, self.run_everywhere)

    def run_everywhere(self) -> TrainResult:
        """Be the training, in as many processes as it asks for."""
        if len(self.devices) > 1 and dist.world_size() == 1:
            from eyas.launch.launcher import launch  # torch's launcher takes a while to import, and few runs need it

            self.take_folder()
            try:
                return memory.launched(self, partial(launch, self, processes=len(self.devices)))
            finally:
                folder.give_up(self.save_dir)  # as far as its main process has not
        return self.run_here()

    def run_here(self) -> TrainResult:
        """Be one process of the training."""
        with self.prepared():
            self.fit()
        if self.owns_group:  # not after an error: the others would report a lost connection instead of that error
            dist.finish()
        return self.result()

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Be one process of the training, set up for its first step; whatever happens, ``teardown`` fires last."""
        with catch_interrupts() as self.interrupted, self.placed():
            try:
                self.prepare()
                yield
            except BaseException as error:
                self.exception = ending.cause_of(error, self.train_loader, self.test_loader)
                self.run_callbacks("on_exception")
                if self.exception is not error:
                    raise self.exception from error
                raise
            finally:
                self.close_loaders()
                self.autosave.settle()
                self.release_model()
                self.run_callbacks("teardown")

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Be in this process's place, which nobody else takes, with what saves and watches the run."""
        self.interrupted.at_once = "stopped before the first step. The same command starts again."
        self.take_place()
        self.autosave = autosave.Autosave(self.args.save_every if self.args.save else False, self.write_last)
        self.watch = Watch(self.args.stall_timeout, self.debtor, self.end_stalled)
        writer = folder.sole_writer(self.save_dir) if dist.is_main() else nullcontext()
        with writer, reproducible(self.is_deterministic(), self.device):
            yield

    def fit(self) -> None:
        """Run the epochs, evaluate the best weights."""
        self.begin()
        with self.watch:
            self.epoch, self.stop = self.first_epoch()
            while not self.stop:
                try:
                    self.run_epoch()
                except divergence.RolledBack:
                    self.roll_back()
                    continue
                self.stop = dist.any_rank(self.stop)  # a callback may have asked after the epoch, in one process
                self.epoch += not self.stop
            self.end()

    def run_epoch(self) -> None:
        """Train on every batch once, validate when due, log, save."""
        self.train_epoch()
        self.mend_folder()
        self.validated = self.validation_due()
        if self.validated:
            self.validate_epoch()
        self.stop = self.should_stop()
        self.log_epoch()
        if self.save_model():
            self.run_callbacks("on_model_save")
        self.watch.announce()
        if self.validated or (self.stop and not self.validates()):
            effects.prove(self)  # after saving: what was trained is not lost when a setting proves to be void
        self.run_callbacks("on_fit_epoch_end")

    def train_epoch(self) -> None:
        """Train on every batch once."""
        self.start_epoch_here()
        began = time.monotonic()
        for step, batch in enumerate(self.watched_batches(), self.start_step):
            self.step = step
            self.train_batch(batch)
            if self.answer_requests():
                break
        self.end_epoch_here(time.monotonic() - began)
        self.run_callbacks("on_train_epoch_end")

    def train_batch(self, batch: Batch) -> None:
        """One forward and backward pass, and the optimizer's step when due; never waits for the device."""
        seed_step(self.args.seed, self.epoch, self.step, dist.rank())
        self.run_callbacks("on_train_batch_start")
        self.set_rates()
        self.set_statistics()
        self.batch = self.adjust("adjust_batch", self.preprocess_batch(batch))
        divergence.before_batch(self)
        memory.learn(self)
        sound = divergence.note_losses(self)
        if self.step_due() and divergence.may_step(self, sound):
            self.optimizer_step()
        self.gradient_norms.forget()
        if sound:
            self.meter.update(self.loss_items)
        self.run_callbacks("on_train_batch_end")

    def forward_backward(self, share: float, last: bool) -> None:
        """Pass ``self.batch``, a whole one or a part; ``share``: what its loss counts, ``last``: of its batch."""
        with parallel.sync_when(self.model, last and self.step_due()):
            with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp):
                loss, self.loss_items = self.named_losses(self.model(self.batch))
            self.loss = self.adjust("adjust_loss", self.total_loss(loss))
            self.scaler.scale(self.loss if share == 1 else self.loss * share).backward()
        self.settle_statistics()

    # -- what the loop says --------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Build everything that the first step needs, and stop here if two things fight over one decision."""
        self.run_callbacks("on_pretrain_routine_start")
        uncalled.refuse_uncalled([self, *self.callbacks.callbacks])
        conflicts.refuse_conflicts(self)
        self.setup()
        uncalled.refuse_uncalled(uncalled.parts(unwrap_model(self.model), self.validator))
        uncalled.tell_idle(self)
        self.run_callbacks("on_pretrain_routine_end")
        check_base_rates(self.optimizer)
        effects.prove_setup(self)

    def begin(self) -> None:
        """Start the clock of the run; one that goes on has spent a part of its ``time``."""
        self.started = time.monotonic()
        self.interrupted.at_once = None
        self.autosave.restart()
        self.keep_time()
        self.run_callbacks("on_train_start")
        check_base_rates(self.optimizer)

    def end(self) -> None:
        """Evaluate the best weights, and say that the run is over."""
        self.interrupted.at_once = f"stopped after the last epoch. Complete it with: {self.resume_command()}"
        self.final_eval()
        self.run_callbacks("on_train_end")
        effects.record(self)
        if dist.is_main():
            folder.note_end(self.save_dir, self.outcome())

    def first_epoch(self) -> tuple[int, bool]:
        """Return where the run begins, and whether it is over: it crashed after its last epoch, and lacks the end."""
        over = self.is_over or self.start_epoch >= self.epochs
        return self.start_epoch - over, self.stop or over

    def start_epoch_here(self) -> None:
        """Put the model into training mode, except for what is frozen, and tell everyone which epoch it is."""
        self.epoch_log = {}
        self.model.train()
        self.run_callbacks("on_train_epoch_start")
        hold_norms(unwrap_model(self.model), self.freeze_layer_names)
        self.compile_model()
        self.wrap_model()
        self.send_progress()

    def batches(self) -> Iterable[Batch]:
        """Return the batches of this epoch that are still to be trained on."""
        batches = messages.batches_from(self.train_loader, self.start_step)
        first = self.epoch == self.start_epoch
        return loading.watched(batches) if first and loading.may_be_unshared(self.train_loader) else batches

    def watched_batches(self) -> Iterator[Batch]:
        """Return the same, and let somebody notice if they come no more."""
        return self.watch.over_batches(self.batches(), self.epoch, self.start_step)

    def debtor(self, stage: Stage) -> str:
        """Say which process this one waits for at a stage; empty for none."""
        loaders = {Stage.LOADING: self.train_loader, Stage.VALIDATING: self.test_loader}
        return loading.debtor(loaders.get(stage))

    def end_stalled(self, error: Stalled) -> None:
        """End a run that hangs."""
        ending.end_stalled(error, self.interrupted, self.watch.watched, self.leave)

    def end_epoch_here(self, seconds: float) -> None:
        """Join what the processes have counted; ``seconds`` is how long this one trained."""
        divergence.settle(self)
        self.start_step = 0
        self.requests.set_pace(len(self.train_loader) // self.accumulate, seconds)
        self.meter.reduce()
        self.join_bad_images()

    def setup(self) -> None:
        """Build everything, in the order that is the contract."""
        torch.manual_seed(self.args.seed)
        self.set_precision(amp_dtype(self.args.amp, self.device))
        self.upload = Upload(self.device)
        source = self.model_source()
        self.data = self.find_data()
        self.setup_model(source.table, source.weights)
        self.model = place_model(self.model, self.device, self.args.channels_last)
        self.set_model_attributes()
        self.model = parallel.portable_norms(self.model, self.device)
        self.setup_loaders()
        self.compare_data()
        self.model = self.adjust("adjust_model", self.model)
        self.choose_precision()
        self.plan = memory.passed_in(self.make_plan(), self.passes, "a step of this run did not fit the memory")
        checks.refuse_single_values(self.model, self.smallest_side(), loading.smallest_batch(self.train_loader))
        self.epochs, self.accumulate = self.plan.epochs, self.plan.accumulate
        self.setup_criterion()
        self.setup_optimizer()
        self.unbounded = unbounded_buffers(unwrap_model(self.model))
        if self.plan.from_scratch or not self.plan.classes_kept:  # others are statistics of the same objects, and kept
            self.statistics = GrowingStatistics(self.model)
        if self.args.ema:
            self.ema = setup.averaged(self.model, self.plan)
        self.validator = self.get_validator() if self.validates() else None
        self.recorder = divergence.recorder_of(self)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        self.resume_training(self.resume_from)
        self.write_description()

    def choose_precision(self) -> None:
        """Under ``amp=auto``, choose the type for autocast on a CPU; a run keeps it, also on another processor."""
        if self.args.amp != "auto" or self.device.type != "cpu":
            return
        if self.resume_from is None:
            self.set_precision(precision.choose(unwrap_model(self.model), self.every_side()[-1]))
        else:
            self.set_precision(next(d for d, name in PRECISIONS.items() if name == self.resume_from["state"]["amp"]))

    def set_precision(self, dtype: torch.dtype | None) -> None:
        """Set the type for autocast, None for float32."""
        self.amp_dtype, self.amp = dtype, dtype is not None

    def take_place(self) -> None:
        """Take this process's place among all: its device, the group of processes, the folder they share."""
        if dist.world_size() > 1:
            self.device = select_device(self.devices[dist.local_rank() % len(self.devices)])
        if self.device.type == "cuda":
            number = torch.cuda.current_device() if self.device.index is None else self.device.index
            self.device = torch.device("cuda", number)
            torch.cuda.set_device(self.device)
        self.owns_group = dist.start(self.device.type)
        if self.owns_group and dist.is_main() and (risk := dist.exposure()):
            warn(risk)
        if dist.is_main():
            self.take_folder()
        self.set_folder(dist.agree(self.save_dir))
        state.refuse_other_start(self.resume_from, self.last)
        if not dist.is_main():
            self.callbacks.leave_to_main()
            setup_logging(verbose=False)

    def take_folder(self) -> None:
        """Make the run's folder its own: under the next number, where another run has taken the name meanwhile."""
        while not (self.owns_folder or folder.claim(self.save_dir)):
            taken = self.save_dir
            self.set_folder(run_folder(self.args))
            self.owns_folder = self.save_dir == taken  # an override leads all runs there: they take turns
        self.owns_folder = True

    def set_folder(self, folder: Path) -> None:
        """Set where this run's files lie."""
        self.save_dir, self.wdir = folder, folder / "weights"
        self.last, self.best = self.wdir / "last.pt", self.wdir / "best.pt"
        self.csv = folder / "results.csv"
        self.found = files.identity(self.last)  # of a run before this one

    def wrap_model(self) -> None:
        """Wrap the model for several processes, anew when other parameters train than before."""
        if self.world_size:
            self.model = parallel.wrapped(self.model, self.device)

    def compile_model(self) -> None:
        """Let torch.compile take the network's parts where the plan says so; anew when other parameters train."""
        if not self.plan.compile:
            return
        network = unwrap_model(self.model)
        if self.compiled is None:
            self.compiled = compiling.Compiled(network)
            if self.statistics is not None and not self.compiled.refused:
                self.statistics = StatisticsBeside(network)
        if self.compiled.is_stale():
            parallel.release(self.model)
            self.model = network
            images = self.plan.batch // max(self.world_size, 1)
            self.compiled.follow(images, self.every_side(), torch.autocast(self.device.type, self.amp_dtype, self.amp))

    def release_model(self) -> None:
        """Give the network back with its layers' own momentum, and as it is written: others may train it on."""
        if self.statistics is not None:
            self.statistics.release()
        if self.compiled is not None:
            self.compiled.release()

    def named_losses(self, returned: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its items by name, of what the model returned; see `eyas.losses.items.named_losses`."""
        loss, items = named_losses(returned, unwrap_model(self.model), self.loss_names)
        return loss, dict(items)

    def total_loss(self, loss: Tensor) -> Tensor:
        """Return the scalar to differentiate: times the processes, because their gradients are averaged."""
        return loss.sum() * self.world_size if self.world_size else loss.sum()

    def model_source(self) -> Source:
        """Return what the model is made from: its table and weights; a wrong name is found before data is read."""
        known, self._source = self._source, None
        if isinstance(self.model, nn.Module):
            return Source(None, None)
        if known is not None and self.resume_from is None and known.is_of(self.args):
            return known
        return setup.model_source(self.args, self.resume_from)

    def setup_model(self, cfg: Any, weights: Any) -> None:
        """Turn ``self.model`` from a name, path or checkpoint into a module; a module stays what it is."""
        self.backbone_alone = weights is None and self.args.backbone_weights is not None
        self.from_scratch, self.holds_given = weights is None and not self.backbone_alone, True
        if not isinstance(self.model, nn.Module):
            with setup.naming_the_file(self.args, weights):
                self.model = self.get_model(cfg=cfg, weights=weights, verbose=self.args.verbose and dist.is_main())
            checks.refuse_other_table(self.model, cfg, self.args)
            self.holds_given = checks.holds(self.model, weights)
            checks.warn_if_not_portable(self.model)

    def setup_loaders(self) -> None:
        """Build both loaders; only then, with data and model sound, is the run folder made."""
        self.batch_size = self.images_per_step()
        loader = self.get_dataloader(self.data["train"], self.batch_size, rank=dist.rank(), mode="train")
        self.train_loader = loading.adopted(loader, batch=self.batch_size)
        self.batch_size = loading.images_per_step(self.train_loader) or self.batch_size
        val_batch = batch_beside(self.batch_size)
        if self.validates():
            self.test_loader = self.get_dataloader(self.data["val"], val_batch, rank=dist.rank(), mode="val")
        shield_workers(self.train_loader)
        shield_workers(self.test_loader)
        if isinstance(self.test_loader, EpochLoader):
            self.test_loader.noted = self.watch.validates
        self.wdir.mkdir(parents=True, exist_ok=True)

    def validates(self) -> bool:
        """Whether anything is measured at all: under ``val=False``, data without a split for that will do."""
        return bool(self.args.val or self.data.get("val"))

    def find_data(self) -> dict[str, Any]:
        """Return the data description; say what to do where that of a run which goes on is gone."""
        try:
            return self.adjust("adjust_data", self.get_dataset())
        except (ValueError, OSError) as error:
            if self.resume_from is None:
                raise
            raise ValueError(f"{error}\nIf the data of this run has moved, add data= and where it is.") from error

    def compare_data(self) -> None:
        """Note what the images and labels are, and refuse others than those with which a resumed run began."""
        if not dist.is_main():
            return
        now = checks.indices(train=self.train_loader, val=self.test_loader)
        if self.resume_from is not None:
            self.notes = list(self.resume_from["state"].get("notes", []))
            if changed := checks.refuse_other_data(now, self.resume_from, self.args, self.save_dir / FILE):
                at = state.position(self.resume_from)
                self.notes.append(f"after {at}, other data were accepted: {'; '.join(changed)}")
        found = {split: content_of(index) for split, index in now.items()}
        self.contents = {split: content.digest() for split, content in found.items()}
        if found:
            save_contents(self.save_dir / FILE, found)

    def images_per_step(self) -> int:
        """Return images per step over all processes: as the resumed run had it, as typed, or as ``auto_batch`` says."""
        typed = self.args.batch if isinstance(self.args.batch, int) else None
        if self.resume_from is not None:
            return typed or self.resume_from["state"]["plan"]["batch"]
        return typed or checks.usable_batch(dist.agree(self.auto_batch()))

    def setup_optimizer(self) -> None:
        """Build the optimizer from the plan and remember every group's own base rate."""
        self.optimizer = self.build_optimizer(
            model=self.model,
            name=self.plan.optimizer,
            lr=self.plan.lr0,
            momentum=self.plan.momentum,
            decay=self.plan.weight_decay,
            iterations=self.plan.updates,
        )
        check_groups(unwrap_model(self.model), self.optimizer)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        note_rates(self.optimizer)
        self.optimizer.zero_grad()

    def setup_criterion(self) -> None:
        """Build the criterion, unless the model brought one: before the optimizer, in case it has parameters."""
        model = unwrap_model(self.model)
        if model.criterion is None:
            model.criterion = model.init_criterion()

    def make_plan(self) -> Plan:
        """Derive the run's plan from options, recipe and data; a resumed run keeps the one it was started with."""
        if self.resume_from is not None:
            stored = self.resume_from["state"]
            typed = self.args.epochs if self.args.source("epochs") == "override" else None
            first = Plan.from_dict(stored["plan"])
            accepted = self.args.accept_data_change
            return plan.resumed_plan(
                first, typed or stored["epochs"], batches=len(self.train_loader), accepted=accepted
            )
        images = loading.images_per_epoch(self.train_loader, self.batch_size)
        return plan.make_plan(
            self.args,
            self.recipe,
            images=images,
            batch=min(self.batch_size, images),
            batches=len(self.train_loader),
            device=self.device.type,
            sides=len(self.every_side()),
            from_scratch=self.from_scratch,
            backbone_alone=self.backbone_alone,
            processes=max(self.world_size, 1),
            parameters=sum(p.numel() for p in unwrap_model(self.model).parameters()) / 1e6,
            classes_kept=checks.classes_kept(unwrap_model(self.model)),
            fitted=self.fits,
            closing=self.closing_augmentation(),
        )

    def write_description(self) -> None:
        """Write ``options.yaml`` and ``plan.json`` into the run folder."""
        if dist.is_main():
            folder.note_begin(self.save_dir)
            text = yaml.safe_dump(self.args.to_dict(), sort_keys=False, allow_unicode=True)
            write_atomic(self.save_dir / folder.DESCRIPTION, text.encode())
            self.plan.write(self.save_dir / "plan.json")

    def mend_folder(self) -> None:
        """Make the run's folder again where somebody has deleted it; the best weights so far are lost with it."""
        lost = dist.agree(
            [stem for stem, n in self.best_files.items() if n and not (self.wdir / f"{stem}.pt").exists()]
        )
        if dist.is_main() and not (self.save_dir / folder.DESCRIPTION).exists():
            self.wdir.mkdir(parents=True, exist_ok=True)
            self.write_description()
            warn(f"{self.save_dir} was deleted while the run wrote it, and is made again.")
        if lost:
            self.best_files |= dict.fromkeys(lost, 0)
            self.best_fitness = self.best_fitness if self.best_epoch else None
            warn(f"{', '.join(lost)}.pt of {self.save_dir} is gone: the best is now that of the epochs to come.")

    def progress(self) -> Progress:
        """Where the run stands."""
        return Progress(self.epoch, self.epochs, self.step, len(self.train_loader))

    def send_progress(self) -> None:
        """Tell loader and criterion where the run stands; the only message against the flow of data."""
        if self.start_step == 0:  # a run resumed inside an epoch goes on counting
            self.meter = LossMeter()
        loading.seed_loader(self.args.seed + self.rollbacks, self.epoch)
        loading.reorder(self.train_loader, self.rollbacks)
        messages.tell_loader(self.train_loader, self.epoch, self.augmentation_closed(), self.start_step)
        if self.epoch + 1 < self.epochs:
            messages.tell_next(self.train_loader, self.epoch + 1, self.closes_by(self.epoch + 1))
        for model in (unwrap_model(self.model), *([self.ema.ema] if self.ema else [])):
            messages.tell_criterion(model.criterion, Progress(self.epoch, self.epochs))

    def augmentation_closed(self) -> bool:
        """Whether this epoch belongs to the last part of the run, without mosaic and mixing."""
        return self.closes_by(self.epoch)

    def closes_by(self, epoch: int) -> bool:
        """Whether mosaic and mixing are planned to have ended in an epoch."""
        return epoch >= self.epochs - self.closing_epochs()

    def closing_epochs(self) -> int:
        """Return how many last epochs go without mosaic and mixing; under a ``time`` budget the run is an estimate."""
        estimated = self.args.time is not None and not self.args.is_typed("close_mosaic")
        close = self.plan.close_mosaic
        return min(close, round(self.epochs * self.recipe.close_share)) if estimated else close

    def closing_augmentation(self) -> list[str]:
        """Return names of the augmentation that the last part of the run goes without."""
        return []

    def smallest_side(self) -> int | None:
        """Return the side in pixels of the smallest images of the run; None if that is not known."""
        return None

    def every_side(self) -> tuple[int, ...]:
        """Return the sides in pixels that images of the run have."""
        return (self.args.imgsz,)

    def size_of_step(self) -> int | None:
        """Return the side in pixels that this step's images should have; None if that is not known."""
        return None

    def is_deterministic(self) -> bool:
        """Whether kernels must give the same result every time."""
        return self.args.deterministic

    def set_rates(self) -> None:
        """Set learning rates and momenta of this batch: a function of progress, times what somebody has set by hand."""
        check_base_rates(self.optimizer)
        take_over_changes(self.optimizer)
        bias_lr = self.args.warmup_bias_lr
        apply_schedule(
            self.optimizer,
            multiplier=self.adjust("adjust_schedule", self.lf(self.share_done())),
            warm=self.warm_up_done(),
            bias_lr=self.plan.warmup_bias_lr if bias_lr is None else bias_lr,
            warm_momentum=self.args.warmup_momentum,
            momentum=self.plan.momentum,
        )
        self.adjust("adjust_rates", self.optimizer.param_groups)
        note_rates(self.optimizer)

    def share_done(self) -> float:
        """Share of the run that lies behind, in [0, 1]: of its epochs, or of its ``time``, however many fit into it."""
        return self.progress().fraction if self.args.time is None else min(self.time_spent, 1.0)

    def warm_up_done(self) -> float:
        """Share of the warm-up that is done with this batch, in (0, 1]; it may not outlast its part of the ``time``."""
        done, length = self.progress().batches + 1, self.plan.warmup_batches
        warm = done / length if done <= length else 1.0
        if self.args.time is None or self.args.is_typed("warmup_epochs"):
            return warm
        return min(max(warm, self.share_done() / self.recipe.warmup_share), 1.0)

    def set_statistics(self) -> None:
        """Set how fast normalisation follows this batch, as a function of progress alone."""
        if self.statistics is not None:
            self.statistics.follow(self.progress().batches)

    def settle_statistics(self) -> None:
        """Let normalisation take this batch in, where its layers do not do that themselves."""
        if self.statistics is not None:
            self.statistics.settle()

    def lf(self, fraction: float) -> float:
        """Multiplier of all rates after this share of the run, in (0, 1]."""
        return SCHEDULES[self.plan.schedule](fraction, self.plan.lrf)

    def step_due(self) -> bool:
        """Whether the optimizer steps after this batch: every ``accumulate`` batches, and at the end of an epoch."""
        return (self.step + 1) % self.accumulate == 0 or self.step + 1 == len(self.train_loader)

    def validation_due(self) -> bool:
        """Whether this epoch ends with a validation; the last one always does, where there is anything to measure."""
        if not self.validates():
            return False
        last = self.epoch + 1 >= self.epochs or self.time_is_up or dist.any_rank(self.stop)
        return last or (self.args.val and (self.epoch + 1) % self.args.val_every == 0)

    def validate_epoch(self) -> None:
        """Validate, and decide whether this epoch is the best; ties keep the earlier."""
        self.run_callbacks("on_val_start")
        parallel.share_statistics(self.model, self.ema)
        best_before = self.best_fitness  # an override of validate() may write best_fitness itself (architecture trap 3)
        began = time.monotonic()
        metrics, fitness = self.validate()
        self.validation_seconds = time.monotonic() - began
        self.join_bad_images()
        self.metrics = checks.plain_floats(self.adjust("adjust_metrics", metrics), "validate()")
        conflicts.refuse_second_fitness(self, fitness)
        self.fitness = self.judge(fitness)
        self.metrics, self.fitness = dist.agree((self.metrics, self.fitness))
        improved = self.fitness is not None and (best_before is None or self.fitness > best_before)
        self.best_fitness = self.fitness if improved else best_before
        self.best_epoch = self.epoch + 1 if improved else self.best_epoch
        self.run_callbacks("on_val_end")

    def judge(self, fitness: float | None) -> float | None:
        """Return what decides whether this epoch is the best, or None if nothing can."""
        own = checks.usable_fitness(fitness)
        decided = float(self.adjust("adjust_fitness", math.nan if own is None else own))
        return decided if math.isfinite(decided) else None

    def should_stop(self) -> bool:
        """Whether this was the last epoch: planned end, no time left, or a callback asked for it on any process."""
        if self.args.time is not None:
            self.epochs = dist.agree(plan.epochs_within(self.args.time, self.elapsed(), self.epoch + 1))
        return dist.any_rank(self.stop or self.epoch + 1 >= self.epochs or self.time_is_up)

    def log_epoch(self) -> None:
        """Add this epoch's row to the history and to ``results.csv``.

        Raises:
            TrainingDiverged: a loss or a weight is not finite; the last checkpoint is the one before it happened.
        """
        losses = self.meter.means()
        self.loss_names = tuple(losses)
        row = {"epoch": self.epoch + 1, "time": round(self.elapsed(), 2), **self.label_loss_items(losses)}
        row |= self.metrics if self.validated else {}
        row |= checks.plain_floats(self.epoch_log, "epoch_log")
        row |= {f"lr/pg{i}": group["lr"] for i, group in enumerate(self.optimizer.param_groups)}
        self.history.rows.append(row)
        if dist.is_main():
            self.save_metrics({name: value for name, value in row.items() if name not in ("epoch", "time")})
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        checks.refuse_divergence(losses, state.broken(self, self.unbounded), self.epoch + 1, rate, self.kept())

    def roll_back(self) -> None:
        """Take up the last checkpoint again, to go on from there with the data in another order."""
        self.rollbacks += 1
        state.restore_state(self, load_checkpoint(self.last))
        self.epoch = self.start_epoch

    @property
    def nan_answer(self) -> str:
        """What is done about a step that is no number; empty while nobody watches for one."""
        return self.args.on_nan if self.recorder.steps else ""

    def bad_by_split(self) -> dict[str, BadImages]:
        """Return what counts the images that could not be loaded, for each split that a loader of ours reads."""
        loaders = {"train": self.train_loader, "val": self.test_loader}
        return {split: loader.bad for split, loader in loaders.items() if isinstance(loader, EpochLoader)}

    @property
    def bad_images(self) -> dict[str, dict[str, str]]:
        """The images that could not be loaded and why, by split: of this process, until all have joined theirs."""
        return {split: dict(bad.found) for split, bad in self.bad_by_split().items()}

    def join_bad_images(self) -> dict[str, dict[str, str]]:
        """Count the images that could not be loaded in any process; return those that are new, by split.

        Raises:
            TooManyBadImages: more than ``bad_images`` allows.
        """
        return {split: bad.join() for split, bad in self.bad_by_split().items()}

    def running_losses(self) -> dict[str, float]:
        """Mean losses of the epoch so far; waits for the device."""
        return self.meter.means()

    def elapsed(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""
        return self.elapsed_before + time.monotonic() - self.started

    def out_of_time(self) -> bool:
        """Whether the ``time`` budget is spent, by this process's clock."""
        return self.args.time is not None and self.elapsed() >= self.args.time * 3600

    def answer_requests(self) -> bool:
        """Save, and leave if a process was asked to; return whether the time is up. All processes answer alike."""
        due = self.step_due()
        if due:
            self.autosave.count()
        asks = self.requests.due(self.step, len(self.train_loader), self.accumulate, due)
        if not asks and not (due and self.autosave.counted()):
            return False
        if due:
            self.answer(Request(dist.highest(self.request())))
        self.keep_time()
        self.time_is_up = self.args.time is not None and dist.agree(self.out_of_time())
        return self.time_is_up

    def request(self) -> Request:
        """Return what this process wants done after this batch."""
        if self.interrupted:
            return Request.LEAVE
        ahead = self.validation_seconds if self.step + 1 == len(self.train_loader) else 0.0
        wanted = self.autosave.counted() or self.autosave.is_late(ahead)
        return Request.SAVE if dist.is_main() and wanted and not self.autosave.is_writing() else Request.NOTHING

    def answer(self, request: Request) -> None:
        """Do what one of the processes wants done."""
        if request is Request.LEAVE:
            self.save_and_leave()
        elif request is Request.SAVE:
            self.save_inside()

    def save_inside(self) -> None:
        """Save the exact state between two batches, while training goes on."""
        self.meter.gather()
        self.join_bad_images()
        self.autosave.restart()
        if dist.is_main():
            self.autosave.begin(self.checkpoint(finished_epoch=False))

    def write_last(self, checkpoint: dict[str, Any]) -> None:
        """Write ``last.pt``."""
        self.write(checkpoint, self.last)

    def keep_time(self) -> None:
        """Agree among the processes on how much of the ``time`` for training, that without validation, is spent."""
        if self.args.time is not None:
            seconds = 3600 * self.args.time
            self.time_spent = dist.agree(self.elapsed() / max(seconds - self.validation_seconds, seconds / 2))

    def save_and_leave(self) -> None:
        """Answer Ctrl-C: save the exact state between two batches and say how to go on."""
        self.meter.gather()
        self.join_bad_images()
        broken = dist.agree(state.broken(self, self.unbounded))
        if dist.is_main() and not broken:
            self.autosave.settle()
            self.write(self.checkpoint(finished_epoch=False), self.last)
        lost = f"of which nothing is saved, for {', '.join(broken)} became nan or infinite; {self.kept()}"
        then = f" Continue with: {self.resume_command()}" if self.saved else ""
        said = dist.agree(  # the others wait here until the file is written
            f"stopped in epoch {self.epoch + 1} after {self.step + 1} of {len(self.train_loader)} batches, "
            f"{lost if broken else 'all saved'}.{then}"
        )
        dist.barrier()
        raise Interrupted(said)

    def resume_command(self) -> str:
        """Return what to type to go on with this run."""
        return command("train", f"resume={self.last}")

    def kept(self) -> str:
        """Say what ``last.pt`` holds of this run; only the main process knows."""
        return f"{self.last} holds {self.saved}" if self.saved else "no checkpoint was written yet"

    def final_eval(self) -> None:
        """Validate the best weights once more, with pictures."""
        if self.best_epoch:
            model = state.averaged(self)
            best: Any = dist.agree(load_checkpoint(self.best) if dist.is_main() else None)
            model.load_state_dict(best["model"])
            metrics = self.adjust("adjust_metrics", self.evaluate_best(model))
            metrics.pop("fitness", None)  # what chose the best stays: it may be of the user's own making
            self.metrics = best["train_metrics"] | checks.plain_floats(metrics, "the final evaluation")

    def evaluate_best(self, model: nn.Module) -> dict[str, float]:
        """Return metrics of the best weights."""
        return self.validator(model=model)

    def result(self) -> TrainResult:
        """Return what ``train`` returns."""
        return TrainResult(
            metrics=self.metrics,
            fitness=self.best_fitness,
            best_epoch=self.best_epoch,
            epochs=self.epoch + 1,
            save_dir=self.save_dir,
            best=self.best,
            last=self.last,
            history=self.history.rows,
            plan=self.plan,
            detection=self.validator.metrics if isinstance(self.validator, DetectionValidator) else None,
            model_class=type(unwrap_model(self.model)),
        )

    def outcome(self) -> dict[str, object]:
        """Return what ``result.json`` says of a run that has ended, in plain values."""
        said = {"epochs": self.epoch + 1, "best_epoch": self.best_epoch, "fitness": self.best_fitness}
        return said | {"seconds": round(self.elapsed(), 1), "metrics": self.metrics}

    @property
    def best_epoch(self) -> int:
        """1-based epoch of the best weights so far; 0 before there are any."""
        return self.best_files["best"]

    @best_epoch.setter
    def best_epoch(self, epoch: int) -> None:
        self.best_files["best"] = epoch

    def close_loaders(self) -> None:
        """End the worker processes."""
        messages.close_loader(self.train_loader)
        messages.close_loader(self.test_loader)

    # -- hooks ---------------------------------------------------------------------------------------------------------
    def add_callback(self, event: str, fn: Any) -> None:
        """Register ``fn(trainer)`` for an event; an event that never fires is a ``ValueError``."""
        self.callbacks.add_function(event, fn)

    def set_callback(self, event: str, fn: Any) -> None:
        """Replace the plain functions of an event by one."""
        self.callbacks.functions[event] = []
        self.add_callback(event, fn)

    def run_callbacks(self, event: str) -> None:
        """Fire an event."""
        self.callbacks.fire(event, self)

    def adjust(self, adjuster: str, value: Any) -> Any:
        """Pass a value through every callback's adjuster."""
        return self.callbacks.adjust(adjuster, self, value)

    # -- methods a subclass may override -------------------------------------------------------------------------------
    def get_dataset(self) -> dict[str, Any]:
        """Return the data description: ``train, val, names, nc, ...``."""
        raise NotImplementedError(f"{type(self).__name__} must define get_dataset()")

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """Return the model for ``cfg`` (a table of layers; also a name or path), with ``weights`` loaded if given."""
        raise NotImplementedError(f"{type(self).__name__} must define get_model()")

    def set_model_attributes(self) -> None:
        """Give the model what it must know; may replace ``self.model`` (it is on its device, not yet wrapped)."""

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return an iterable of batches with a length; ``mode`` is ``"train"`` or ``"val"``."""
        raise NotImplementedError(f"{type(self).__name__} must define get_dataloader()")

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """Return the data set behind a loader."""
        raise NotImplementedError(f"{type(self).__name__} must define build_dataset()")

    def get_validator(self) -> Any:
        """Return the validator: called with the trainer or with ``model=``, it returns numbers, ``fitness`` too."""
        raise NotImplementedError(f"{type(self).__name__} must define get_validator()")

    def auto_batch(self) -> int:
        """Return images per step over all processes, asked where no batch was given; the model is on its device."""
        if self.args.batch == "auto":
            return batch_size.largest_batch(self)
        on_cpu = self.device.type == "cpu"
        return plan.images_per_step(self.args, self.recipe, on_cpu, processes=max(self.world_size, 1))

    def preprocess_batch(self, batch: Batch) -> Batch:
        """Return the batch on the device, images in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define preprocess_batch()")

    def build_optimizer(
        self,
        model: nn.Module,
        name: str = "auto",
        lr: float = 0.001,
        momentum: float = 0.9,
        decay: float = 1e-5,
        iterations: float = 1e5,
    ) -> Optimizer:
        """Return the optimizer; each group's ``lr`` becomes the base that schedules multiply.

        Args:
            model: possibly wrapped.
            name: class name; ``"auto"`` was already decided by the plan.
            lr: base rate.
            momentum: momentum or first beta.
            decay: weight decay, scaled to the real batch.
            iterations: optimizer steps in the run.
        """
        groups = self.default_groups(unwrap_model(model), name, lr, decay)
        return build_optimizer(name, self.adjust("adjust_param_groups", groups), lr=lr, momentum=momentum)

    def default_groups(self, network: nn.Module, name: str, lr: float, decay: float) -> list[dict[str, Any]]:
        """Return the parameter groups that ``build_optimizer`` starts from."""
        return setup.default_groups(network, name, lr, decay)

    def optimizer_step(self) -> None:
        """Unscale, adjust gradients (clipping), step, clear gradients, follow with the average."""
        self.scaler.unscale_(self.optimizer)
        self.adjust("adjust_gradients", list(self.model.parameters()))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)

    def validate(self) -> tuple[dict[str, float], float | None]:
        """Return ``(metrics, fitness)`` of the averaged weights; never writes ``best_fitness``.

        Until the average has once been as good as the live weights, both are measured, and where it is behind, it
        starts again from them: what is validated, saved and called the best is the better of the two.
        """
        on_trial = self.ema is not None and not self.ema.trusted
        live = self.validator(model=unwrap_model(self.model)).get("fitness") if on_trial else None
        metrics = self.validator(self)
        averaged = metrics.get("fitness")  # a validator of the user's own may know none
        if live is not None and averaged is not None and self.average_restarts(*dist.agree((live, averaged))):
            metrics = self.validator(self)
        return metrics, metrics.pop("fitness", None)

    def average_restarts(self, live: float, averaged: float) -> bool:
        """Trust the average from now on if it is as good as the live weights; else let it start again from them."""
        assert self.ema is not None
        self.ema.trusted = averaged >= live > 0
        if averaged < live:
            self.ema.restart(self.model)
            LOGGER.info("the live weights score %.4f, their average %.4f: it starts again from them", live, averaged)
        return averaged < live

    def save_model(self) -> bool:
        """Write best weights, ``last.pt`` and ``epochN.pt`` when due, each atomically; returns whether one was written.

        ``save=False`` keeps only the best weights, and the last ones at the end. Only the main process writes.
        """
        best = [self.wdir / f"{stem}.pt" for stem, epoch in self.best_files.items() if epoch == self.epoch + 1]
        if not (self.args.save or self.stop or best):
            return False
        self.autosave.restart()
        if dist.is_main():
            self.autosave.settle()
            checkpoint = self.checkpoint(finished_epoch=True)
            # First, so that a last.pt that calls this epoch the best never stands beside an older best.pt.
            self.write({k: v for k, v in checkpoint.items() if k != "state"}, *best)
            if self.args.save or self.stop:
                keep = [self.wdir / f"epoch{self.epoch + 1}.pt"] if self.keeps_this_epoch() else []
                self.write(checkpoint, self.last, *keep)
        return True

    def write(self, checkpoint: dict[str, Any], *paths: Path) -> None:
        """Write a checkpoint to each file, and remember that it was written.

        Raises:
            CheckpointError: something in it is not a finite number; the files that were there stay.
        """
        checks.refuse_to_save(checkpoint, self.unbounded)
        self.wdir.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
        save_checkpoint(checkpoint, *paths)
        self.written |= {path.stem for path in paths}
        self.saved = state.position(checkpoint) if self.last in paths else self.saved

    def keeps_this_epoch(self) -> bool:
        """Whether ``save_period`` asks for a file of this epoch."""
        return self.args.save_period > 0 and (self.epoch + 1) % self.args.save_period == 0

    def label_loss_items(self, loss_items: dict[str, float] | None = None, prefix: str = "train") -> Any:
        """Return ``{"train/box_loss": value, ...}``, or the list of those names when no items are given."""
        if loss_items is None:
            return [f"{prefix}/{name}" for name in self.loss_names]
        return {f"{prefix}/{name}": round(float(value), 5) for name, value in loss_items.items()}

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Write this epoch's row of ``results.csv`` with these numbers in it; asked in the main process alone."""
        self.history.rows[-1] |= checks.plain_floats(metrics, "save_metrics()")
        self.history.write(self.csv)

    def progress_string(self) -> str:
        """Return text to print at the head of each epoch; none, because the console heads its own table."""
        return ""

    def plot_training_labels(self) -> None:
        """Draw the labels of the training images; asked under ``plots``, before the first epoch."""
        pictures.draw_labels(self)

    def plot_training_samples(self, batch: Batch, ni: int) -> None:
        """Draw a batch as it is trained on, the ``ni``-th of the run; asked under ``plots`` for a few of them."""
        pictures.draw_samples(self, batch, ni)

    def plot_metrics(self) -> None:
        """Draw how the numbers of the run moved; asked under ``plots``, at its end."""
        pictures.draw_metrics(self)

    # -- checkpoint and resume -----------------------------------------------------------------------------------------
    def checkpoint(self, finished_epoch: bool) -> dict[str, Any]:
        """Return everything about this run as tensors and plain values; ``state`` is what only a resume needs."""
        checkpoint = self.describe_model() | {"val_batch": batch_beside(self.batch_size)}
        checkpoint["state"] = state.training_state(self, finished_epoch)
        return self.adjust("adjust_checkpoint", checkpoint)

    def describe_model(self) -> dict[str, Any]:
        """Return the part of a checkpoint that inference needs."""
        return state.describe_model(self)

    def resume_here(self, causes: Iterable[BaseException] = ()) -> None:
        """Go on from this run's ``last.pt`` after a crash; from where it was to start if there is none yet.

        ``causes``: what has ended its processes before.
        """
        self.passes = max(self.passes, memory.parts_after(causes))
        written = files.identity(self.last)
        if written is not None and (self.resume_from is not None or written != self.found):
            self.resume_from = load_checkpoint(self.last)

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Take up the run exactly where the checkpoint left it; None for a run that begins."""
        if ckpt is not None:
            with refusals_of(self.last):
                state.restore_state(self, ckpt)
            self.saved = state.position(ckpt)
            self.rollbacks = ckpt["state"].get("rollbacks", 0)
