"""The trainer of detectors: what model, data, batches and validation are for boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from eyas import dist
from eyas.augment.apply_torch import jitter_hsv
from eyas.augment.letterbox import STRIDE, padded
from eyas.augment.multiscale import batch_size_px, every_px, smallest_px
from eyas.augment.settings import ENDING, AugmentSettings
from eyas.data.bad_images import KIND
from eyas.data.dataset import EvalDataset, TrainDataset
from eyas.data.depth import White
from eyas.data.index import ImageIndex
from eyas.data.loader import EpochLoader, batch_maker, build_train_loader, default_workers, own_index
from eyas.data.numbered import SamplesOf
from eyas.data.report import DatasetReport, Problem
from eyas.data.store import ImageStore
from eyas.evaluate import assemble
from eyas.evaluate.validator import DetectionValidator
from eyas.models import Detector, detector_class, load_weights, model_table
from eyas.nn.unwrap import unwrap_model
from eyas.recipes import Fitted
from eyas.run.plan import Plan
from eyas.train.plan import fit_options, told_source
from eyas.train.trainer import BaseTrainer
from eyas.types import Batch

GAINS = ("box", "cls", "dfl")  # options that weigh the losses; every family says what they mean to it


class DetectionTrainer(BaseTrainer):
    """Trains YOLO-style detectors. Override any method; each is short and may be built on with ``super()``.

    Attributes:
        family: name of the family whose models are trained, and no others (``eyas.families``).
        stretch: whether images are stretched to the square input.
        white: what is white in training images of more than 8 bits, and so in all others.
    """

    family: str = "yolo26"
    typed_gains: dict[str, float] | None = None
    stretch: bool = False
    white: White | None = None

    def get_dataset(self) -> dict[str, Any]:
        """Return the checked data description (``eyas.data.check_dataset``); one class under ``single_cls``."""
        if self.args.data is None:
            raise ValueError("no data was given; for example data=my.yaml, or data=digits for the embedded set.")
        needed: tuple[str, ...] = ("train", "val") if self.args.val else ("train",)
        return assemble.described_data(self.args, needed, optional=("val",))

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """Return the family's model for the data's classes, with ``weights`` loaded if given."""
        table = self.table_to_train(cfg, from_scratch=not weights and self.args.backbone_weights is None)
        cls = detector_class(table)
        check_family(self, cls)
        model = cls(table, nc=self.data["nc"], names=self.data["names"], verbose=verbose)
        model.start_outputs(self.imgsz())
        if weights:
            load_weights(model, weights, remap=self.args.cls_remap, accepted=self.args.accept_licences or ())
        if self.args.backbone_weights is not None and self.resume_from is None:
            model.load_backbone(self.args.backbone_weights, self.args.accept_licences or ())
        return model

    @staticmethod
    def table_to_train(cfg: Any, from_scratch: bool) -> dict[str, Any]:
        """Return the table of the model to train, which may depend on whether its weights are random."""
        return model_table(cfg)

    def setup_model(self, cfg: Any, weights: Any) -> None:
        """Turn ``self.model`` into a module, and refuse one of the other family, whoever made it."""
        super().setup_model(cfg, weights)
        check_family(self, type(unwrap_model(self.model)))

    def make_plan(self) -> Plan:
        """Derive the run's plan; refuse a ``close_mosaic`` that would end nothing."""
        if self.args.is_typed("close_mosaic") and self.args.close_mosaic and not self.closing_augmentation():
            raise ValueError(
                f"close_mosaic={self.args.close_mosaic} has no effect: there is none of {', '.join(ENDING)} to end."
            )
        plan, index = super().make_plan(), own_index(self.train_loader)
        if index is None or index.room is None:
            return plan
        return told_source(plan, ", ".join(self.data.get("remote", ())), str(index.room))

    def set_model_attributes(self) -> None:
        """Give the model its classes, the gains of its losses, the options and its head's settings."""
        model: Any = unwrap_model(self.model)
        model.nc = self.data["nc"]
        model.names = self.data["names"]
        model.gains = self.typed_gains = self.gains()  # fitted to the data once that is known, in setup_criterion()
        model.args = self.args  # for the user's own init_criterion()
        if self.args.gradient_checkpointing:
            model.save_memory()
        model.set_head_attr(max_det=self.args.max_det, agnostic_nms=self.args.agnostic_nms)
        if self.args.nms is not None:  # unset, the layer table decides
            model.set_head_attr(end2end=not self.args.nms)

    def setup_criterion(self) -> None:
        """Build the criterion, with the gains of options and data, also where an override has left them out."""
        model: Any = unwrap_model(self.model)
        if isinstance(model, Detector) and model.gains in (None, self.typed_gains):  # else an override has set others
            model.gains = self.gains()
        super().setup_criterion()
        if isinstance(model, Detector):
            model.fit_criterion()

    def gains(self) -> dict[str, float]:
        """Return the weights of the losses by name."""
        return {name: self.fitted(name) for name in GAINS}

    def imgsz(self) -> int:
        """Network input side in pixels: ``imgsz`` rounded up to a multiple of 32."""
        return padded(self.args.imgsz)

    def augment_settings(self) -> AugmentSettings:
        """Return what augmentation may do: options as typed, and the others as fitted to data and length."""
        return AugmentSettings(**{name: self.fitted(name) for name in AugmentSettings.__dataclass_fields__})

    def fitted(self, name: str) -> Any:
        """Return an option's value: as fitted to data and length where it was, else as it stands."""
        return self.fits[name][0] if name in self.fits else getattr(self.args, name)

    def fit_options(self, index: ImageIndex) -> Fitted:
        """Return what suits the training images; a resumed run keeps what it was started with."""
        if self.resume_from is not None:
            stored = Plan.from_dict(self.resume_from["state"]["plan"])
            return {
                choice.name: (choice.value, choice.by) for choice in stored.decisions if choice.name in stored.fitted
            }
        on_cpu, scratch = self.device.type == "cpu", self.from_scratch
        return fit_options(self.args, self.recipe, index, batch=self.batch_size, on_cpu=on_cpu, from_scratch=scratch)

    def build_index(self, img_path: Any, mode: str) -> ImageIndex:
        """Return images and labels of a split as flat arrays; a ``fraction`` of them only to train on."""
        fraction = self.args.fraction if mode == "train" else 1.0
        return assemble.split_index(self.args, self.data, img_path, mode, fraction, self.white)

    def colours_on_device(self) -> bool:
        """Whether `preprocess_batch` jitters colours, and not the workers.

        Raises:
            ValueError: it was asked for, and something must come after it that workers do.
        """
        after = "transforms see images whose colours are jittered" if self.transforms else ""
        after = after or ("bgr swaps channels after that" if self.fitted("bgr") else "")
        if self.args.hsv_on_device and after:
            raise ValueError(f"hsv_on_device=true leaves that to the training device, but {after}: set it to false.")
        return self.args.hsv_on_device

    def closing_augmentation(self) -> list[str]:
        """Return which of mosaic, mixing and reframing are on, and end before the run does."""
        return [name for name in ENDING if self.fitted(name)]

    def image_store(self, index: ImageIndex) -> ImageStore:
        """Return what loads images at the network's input size."""
        return ImageStore(index, imgsz=self.imgsz(), cache=self.args.cache, stretch=self.stretch)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> TrainDataset | EvalDataset:
        """Return the data set of a split: augmented for ``"train"``, letterboxed for ``"val"``.

        An override may return any data set that gives samples by number, see ``eyas.data.numbered.SamplesOf``.
        """
        index = self.build_index(img_path, mode)
        store = self.image_store(index)
        if mode == "train":
            self.white = index.white
            self.fits = self.fit_options(index)
            return TrainDataset(
                index,
                store,
                imgsz=self.imgsz(),
                settings=self.augment_settings(),
                seed=self.args.seed,
                transforms=self.transforms,
                hsv_apart=self.colours_on_device(),
            )
        return assemble.eval_dataset(index, store, batch)

    def get_dataloader(
        self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> EpochLoader:
        """Return the loader of a split.

        Args:
            dataset_path: the entry of the split in the data description.
            batch_size: images of a step over all processes.
            rank: number of this process, which loads its share of every batch.
            mode: ``"train"`` or ``"val"``.
        """
        if mode not in ("train", "val"):
            raise ValueError(f"mode={mode!r} must be 'train' or 'val'.")
        built = self.build_dataset(dataset_path, mode, batch_size)
        dataset = batch_maker(built, imgsz=self.imgsz(), seed=self.args.seed, batch=batch_size)
        if isinstance(dataset, EvalDataset) or (mode == "val" and isinstance(dataset, SamplesOf)):
            return assemble.eval_loader(self.args, dataset, self.device, rank, dist.world_size())
        return build_train_loader(
            dataset,
            batch=batch_size,
            workers=default_workers(self.args.workers, self.device),
            rank=rank,
            world_size=dist.world_size(),
            pin_memory=self.device.type == "cuda",
            seed=self.args.seed,
            sampler=self.args.sampler,
            threshold=self.args.sampler_threshold,
            bad_images=self.args.bad_images,
        )

    def setup_loaders(self) -> None:
        """Build both loaders, and report what is wrong with the data before anything is trained."""
        super().setup_loaders()
        if dist.is_main():
            for report in self.data_reports():
                report.print_table()
            self.write_data_reports()

    def data_reports(self) -> list[DatasetReport]:
        """Return what was found in the data of each split that a loader of ours reads."""
        indices = (own_index(loader) for loader in (self.train_loader, self.test_loader))
        return [index.report for index in indices if index is not None]

    def write_data_reports(self) -> None:
        """Write ``dataset_report.json`` into the run folder."""
        if reports := self.data_reports():
            reports[0].write(self.save_dir / "dataset_report.json", *reports[1:])

    def join_bad_images(self) -> dict[str, dict[str, str]]:
        """Count and tell images that could not be loaded, and add them to the report of the data."""
        new = super().join_bad_images()
        if any(new.values()) and dist.is_main():
            for report in self.data_reports():
                report.add(Problem(path, 0, KIND, why) for path, why in new.get(report.split, {}).items())
            self.write_data_reports()
        return new

    def get_validator(self) -> DetectionValidator:
        """Return the validator of the validation split."""
        return assemble.build_validator(
            self.args, self.test_loader, names=self.data["names"], save_dir=self.save_dir, device=self.device
        )

    def evaluate_best(self, model: nn.Module) -> dict[str, float]:
        """Return metrics of the best weights; pictures, files and the table per class are made here, once."""
        if isinstance(self.validator, DetectionValidator):  # a user's may be anything that can be called
            assemble.with_report(self.args, self.validator, self.data["val"])
        return super().evaluate_best(model)

    def describe_model(self) -> dict[str, Any]:
        """Return what inference needs, and what is white in images of more than 8 bits."""
        return super().describe_model() | ({"white": self.white.to_dict()} if self.white else {})

    def preprocess_batch(self, batch: Batch) -> Batch:
        """Return the batch on the device, images float in [0, 1], at this batch's size under ``multi_scale``."""
        moved: Any = self.upload(batch)
        moved["img"] = moved["img"].float().div_(255)
        if moved.get("hsv") is not None:
            moved |= {"img": self.jitter(moved["img"], moved["hsv"]), "hsv": None}
        if (
            self.args.channels_last is False
        ):  # the loader's images are channels last, and convolutions would follow them
            moved["img"] = moved["img"].contiguous()
        if self.fitted("multi_scale"):
            moved["img"] = self.rescale(moved["img"])
        return moved

    def jitter(self, images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        """Change the colours of images (B, 3, H, W) by the gains (B, 3) that workers have drawn for them."""
        if len(gains) != len(images):
            raise ValueError(
                f"hsv_on_device=true: {len(images)} images came to preprocess_batch, and colours were drawn for "
                f"{len(gains)}. Who adds images or leaves some out leaves colours to the workers: set it to false."
            )
        self.coloured += len(images)
        return jitter_hsv(images, gains)

    def size_of_step(self) -> int:
        """Side in pixels of this step's images: what (seed, epoch, step) draw under ``multi_scale``."""
        return batch_size_px(self.imgsz(), self.fitted("multi_scale"), STRIDE, self.args.seed, self.epoch, self.step)

    def smallest_side(self) -> int:
        """Side in pixels of the smallest images of the run."""
        return smallest_px(self.imgsz(), self.fitted("multi_scale"), STRIDE)

    def every_side(self) -> tuple[int, ...]:
        """Sides in pixels that images of this run have."""
        return every_px(self.imgsz(), self.fitted("multi_scale"), STRIDE)

    def rescale(self, images: torch.Tensor) -> torch.Tensor:
        """Resize (B, 3, H, W) to the size of this step; normalised boxes stay true."""
        size = self.size_of_step()
        if size == images.shape[-1]:
            return images
        return interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def check_family(trainer: DetectionTrainer, cls: type[nn.Module]) -> None:
    """Refuse a model of another family: its images would be trained in another shape than it predicts them, or worse.

    Raises:
        ValueError: names both, and the trainer to use.
    """
    if issubclass(cls, Detector) and cls.family not in ("", trainer.family):
        right = f"{cls.trained_by}, or {cls.opened_by}(...)"
        raise ValueError(f"{type(trainer).__name__} does not train a {cls.__name__}; use {right}.")
