"""The one validator: in training with the EMA's weights and losses, or alone with any model.

Legend: B images, n detections of a batch, m ground-truth boxes of a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eyas import dist
from eyas.data.formats import Numbers
from eyas.data.upload import moved
from eyas.evaluate.boxlist import Areas, BoxList, Frame, Split, joined, no_boxes
from eyas.evaluate.close_up import CloseUp
from eyas.evaluate.finder import Finder
from eyas.evaluate.inference import Network, StageClock, bare, inference_state, placed
from eyas.evaluate.shards import Shard, join_shards
from eyas.evaluate.writers import write_label_files, write_predictions_json
from eyas.log import LOGGER, console, print_table, warn
from eyas.losses.items import named_losses
from eyas.metrics.coco import COCO_KEYS
from eyas.metrics.detection import DetMetrics
from eyas.metrics.matching import excused, match_detections
from eyas.models.postprocess import postprocess
from eyas.nn.unwrap import unwrap_model

PICTURED_BATCHES = 3
PICTURED_CONF = 0.25


class DetectionValidator:
    """Runs a model over a loader and measures it (spec core F).

    The validator knows nothing of options or callbacks. One object may be called any number of times;
    each call starts from zero.

    Args:
        dataloader: yields `Batch` dicts of uint8 images with their labels, `im_file`, `ori_shape` and `ratio_pad`.
        names: class names by id, as a dict or a list.
        save_dir: folder for pictures and files; without one, nothing is written.
        conf: only scores above it count; low on purpose, since average precision looks at the whole curve.
        iou: NMS threshold of the one-to-many branch.
        max_det: most detections per image.
        nms: None uses the model's own branch; True one-to-many with NMS, False one-to-one without.
        agnostic_nms: suppression (or the choice of the best class per anchor) across classes.
        single_cls: ignore classes in labels and predictions.
        classes: only these class ids, in labels and predictions; None for all.
        plots: write curves, confusion matrices and pictures of the first batches.
        save_json: write `predictions.json` in COCO's results layout.
        save_txt: write one text file per image, `labels/<image>.txt`: class cx cy w h, normalised.
        save_conf: append the score to each of those rows.
        coco: also compute COCO's twelve numbers (needs faster-coco-eval), as `coco/AP` and so on.
        verbose: print the table of results.
        device: where to run when called with a model; None where the model is.
        amp_dtype: autocast type when called with a model; None for full precision.
        close_up: looks at images that are larger than a tile tile by tile; None takes every image whole.

    Attributes:
        metrics: `DetMetrics` of the last call.
        names: {id: name}.
        speed: milliseconds per image of preprocess, inference, loss, postprocess.
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        *,
        names: Mapping[int, str] | Sequence[str],
        save_dir: str | Path | None = None,
        conf: float = 0.001,
        iou: float = 0.7,
        max_det: int = 300,
        nms: bool | None = None,
        agnostic_nms: bool = False,
        single_cls: bool = False,
        classes: Sequence[int] | None = None,
        plots: bool = False,
        save_json: bool = False,
        save_txt: bool = False,
        save_conf: bool = False,
        coco: bool = False,
        verbose: bool = True,
        device: torch.device | str | None = None,
        amp_dtype: torch.dtype | None = None,
        close_up: CloseUp | None = None,
    ) -> None:
        self.dataloader = dataloader
        self.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        self.save_dir = Path(save_dir) if save_dir is not None else None
        self.conf = conf
        self.iou = iou
        self.max_det = max_det
        self.nms = nms
        self.agnostic_nms = agnostic_nms or single_cls
        self.single_cls = single_cls
        self.classes = None if classes is None else sorted(set(classes))
        self.report(
            plots=plots, save_json=save_json, save_txt=save_txt, save_conf=save_conf, coco=coco, verbose=verbose
        )
        self.device = torch.device(device) if device is not None else None
        self.amp_dtype = amp_dtype
        self.close_up = close_up
        self.training = False
        self.numbers: Numbers | None = None  # of images and classes in an annotation file, for predictions.json
        self.loss_names: tuple[str, ...] = ()
        self.metrics = DetMetrics(self.names, save_dir=self.save_dir)
        self.speed = self.metrics.speed

    def report(
        self, *, plots: bool, save_json: bool, save_txt: bool, save_conf: bool, coco: bool, verbose: bool
    ) -> None:
        """Choose what later calls write and print; the arguments are the constructor's.

        Raises:
            ValueError: there are files to write and no folder for them.
        """
        if (save_json or save_txt) and self.save_dir is None:
            raise ValueError("save_json and save_txt need a folder to write to: give save_dir")
        self.plots = plots
        self.save_json = save_json
        self.save_txt = save_txt
        self.save_conf = save_conf
        self.coco = coco
        self.verbose = verbose

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.names)} classes, {self.metrics!r})"

    def effects(self) -> dict[str, object]:
        """Return what it works with, by the names of the options; files only where it writes them."""
        found: dict[str, object] = {
            "conf": self.conf,
            "iou": self.iou,
            "max_det": self.max_det,
            "nms": self.nms,
            "agnostic_nms": self.agnostic_nms,
            "single_cls": self.single_cls,
        }
        if self.classes is not None:
            found["classes"] = self.classes
        files = {"save_json": self.save_json, "save_txt": self.save_txt, "save_conf": self.save_txt and self.save_conf}
        return found | {name: value for name, value in files.items() if value}

    def __call__(self, trainer: Any = None, *, model: nn.Module | Network | None = None) -> dict[str, float]:
        """Validate the trainer's averaged weights, with losses, or a model, without.

        Args:
            trainer: gives `ema` (or None, then its `model`), `device` and `amp_dtype`.
            model: a `Detector`, left in the mode and on the branch it came with, but moved to `device`; or another
                `Network`, such as an exported model.

        Returns:
            The four metrics, with a trainer `val/<loss>` for each loss item (mean over images), and `fitness`.

        Raises:
            ValueError: not exactly one of trainer and model, the model's classes are not the data's, or it cannot work
                with the validator's settings.
        """
        if (trainer is None) == (model is None):
            raise ValueError("give the validator either a trainer or model=, not both and not neither")
        self.training = trainer is not None
        network: Any
        if trainer is not None:
            network = unwrap_model(trainer.ema.ema if trainer.ema is not None else trainer.model)
            device, amp_dtype = trainer.device, trainer.amp_dtype
            self.loss_names = tuple(getattr(trainer, "loss_names", ()))  # a trainer of another kind may tell none
        else:
            network = bare(model)
            self._check_classes(network)
            device, amp_dtype = placed(network, self.device), self.amp_dtype
        self.start(network, device)
        # no_grad and not inference_mode: a tensor that a user's model caches here may be needed by backward later.
        with torch.no_grad(), inference_state(network, nms=self.nms, max_det=self.max_det, agnostic=self.agnostic_nms):
            for step, raw_batch in enumerate(self._with_progress(self.dataloader)):
                self.measure(network, raw_batch, step, amp_dtype)
        self.gather()
        return self.results()

    def more_keys(self) -> list[str]:
        """Return the keys that every call reports besides the four metrics, the losses and the fitness."""
        return [f"coco/{name}" for name in COCO_KEYS] if self.coco else []

    # ---- the steps, in the order they run -------------------------------------------------------------------------

    def start(self, network: Any, device: torch.device) -> None:
        """Forget the previous run; the next one measures ``network`` on ``device``."""
        self.clock = StageClock(device)
        self.place = device
        self.metrics = DetMetrics(self.names, save_dir=self.save_dir)
        self._losses: dict[str, list[Tensor]] = {}  # each item times B, for each batch, on the device
        self._kept: list[tuple[BoxList, BoxList, Areas, Frame]] = []  # in original pixels, for files and COCO

    def measure(self, network: Any, raw_batch: Mapping[str, Any], step: int, amp_dtype: torch.dtype | None) -> None:
        """Pass one batch through all steps."""
        with self.clock("preprocess"):
            batch = self.preprocess(raw_batch, self.place)
        with self.clock("inference"):
            preds = self.infer(network, batch, amp_dtype)
        with self.clock("loss"):
            if self.training:
                self.add_losses(network, batch, preds, amp_dtype)
        with self.clock("postprocess"):
            found = network.in_pixels(preds[0].float(), *batch["img"].shape[-2:])
            detections = self.postprocess(found, end2end=network.end2end)
        if self.close_up is not None:
            detections = self.look_closer(self.close_up, network, raw_batch, detections, amp_dtype)
        self.update(raw_batch, detections)
        if self.pictures(step):
            self.plot_labels(raw_batch, step)
            self.plot_detections(raw_batch, detections, step)

    def preprocess(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Move the tensors to the device; images to float in [0, 1], channels last."""
        there = moved(batch, device)
        image = there["img"].contiguous(memory_format=torch.channels_last)
        there["img"] = image.float() / 255 if image.dtype == torch.uint8 else image
        return there

    def infer(self, model: Any, batch: Mapping[str, Any], amp_dtype: torch.dtype | None) -> Any:
        """Return (decoded, raw) of the model in eval mode."""
        with _autocast(batch["img"].device, amp_dtype):
            return model(batch["img"])

    def add_losses(self, model: Any, batch: Mapping[str, Any], preds: Any, amp_dtype: torch.dtype | None) -> None:
        """Keep each loss item times B, on the device; the mean over images does not depend on how they were batched."""
        with _autocast(batch["img"].device, amp_dtype):
            _, items = named_losses(model.loss(batch, preds), model, self.loss_names)
        for name, value in items.items():
            self._losses.setdefault(name, []).append(value.detach().float() * len(batch["img"]))

    def postprocess(self, found: Tensor, *, end2end: bool) -> list[Tensor]:
        """Return one (n, 6) per image: xyxy in pixels of the network's input, score, class; best score first."""
        return postprocess(
            found,
            end2end=end2end,
            conf=self.conf,
            iou=self.iou,
            max_det=self.max_det,
            agnostic=self.agnostic_nms,
            classes=self.classes,
        )

    def look_closer(
        self,
        close_up: CloseUp,
        network: Any,
        batch: Mapping[str, Any],
        detections: Sequence[Tensor],
        amp_dtype: torch.dtype | None,
    ) -> list[Tensor]:
        """Return the detections of a batch, where images that are larger than a tile were looked at in tiles."""
        find = Finder(
            network,
            imgsz=close_up.imgsz,
            conf=self.conf,
            iou=self.iou,
            max_det=self.max_det,
            agnostic=self.agnostic_nms,
            multi_label=True,
            classes=self.classes,
            amp_dtype=amp_dtype,
        )
        return close_up(
            find,
            batch,
            detections,
            max_det=self.max_det,
            agnostic=self.agnostic_nms,
            device=self.place,
            clock=self.clock,
        )

    def update(self, batch: Mapping[str, Any], detections: Sequence[Tensor]) -> None:
        """Match one batch with its labels, in pixels of the original images. `batch` is as the loader made it."""
        frame = Frame(batch)
        predicted, truth = frame.to_original(self._predicted(detections)), frame.to_original(self._truth(batch))
        boxes = predicted.boxes, predicted.score, predicted.cls, predicted.image, truth.boxes, truth.cls, truth.image
        right = match_detections(*boxes) >= 0
        areas = self._areas(batch)
        areas = replace(areas, places=frame.to_original(areas.places))
        places = areas.places.boxes, areas.places.cls, areas.places.image
        self.metrics.update(
            tp=right,
            excused=excused(predicted.boxes, predicted.cls, predicted.image, right, *places, areas.classes),
            conf=predicted.score,
            pred_cls=predicted.cls,
            pred_img=predicted.image,
            target_cls=truth.cls,
            target_img=truth.image,
            image_files=batch["im_file"],
            pred_box=predicted.boxes,
            target_box=truth.boxes,
        )
        if self.save_json or self.save_txt or self.coco:
            self._kept.append((predicted, truth, areas, frame))

    def pictures(self, step: int) -> bool:
        """Whether pictures of a batch are wanted, and made by this process."""
        return self.plots and step < PICTURED_BATCHES and self.save_dir is not None and dist.is_main()

    def plot_labels(self, batch: Mapping[str, Any], step: int) -> None:
        """Draw the labels of a batch as the loader made it."""
        self._draw(f"val_batch{step}_labels.jpg", batch, self._truth(batch), None)

    def plot_detections(self, batch: Mapping[str, Any], detections: Sequence[Tensor], step: int) -> None:
        """Draw the detections of a batch that a person would look at."""
        predicted = self._predicted(detections)
        seen = predicted.where(predicted.score > PICTURED_CONF)
        self._draw(f"val_batch{step}_pred.jpg", batch, seen, seen.score)

    def gather(self) -> None:
        """Join what all processes found; afterwards each has the whole, bit for bit as one process would.

        Loaders give each process a run of whole batches, so the order of processes is the order of images. With a group
        of processes, all of them must call the validator, those without a single batch too.
        """
        metrics = self.metrics
        mine = Shard(
            files=metrics.image_files,
            stats=metrics._collected,
            losses={name: torch.stack(values).tolist() for name, values in self._losses.items()},
            kept=self._kept,
            spent=self.clock.per_image(1),
        )
        self._seen = join_shards(self.shards(mine))
        metrics.image_files, metrics._collected, self._kept = self._seen.files, self._seen.stats, self._seen.kept

    def shards(self, mine: Shard) -> list[Shard]:
        """Return what every process found, in the order of their images."""
        return dist.gather_all(mine)

    def results(self) -> dict[str, float]:
        """Compute, print and write everything; returns the dict of floats."""
        values = self.get_stats()
        fitness = values.pop("fitness", self.metrics.fitness)
        result = {**values, **self.mean_losses(), "fitness": fitness}
        self.finalize_metrics()
        if self.coco:
            result |= {f"coco/{name}": value for name, value in self._coco_numbers().items()}
        if self.save_dir is not None and dist.is_main():
            self._write_files(self.save_dir)
        if dist.is_main():
            self.print_results()
        return result

    def get_stats(self) -> dict[str, float]:
        """Compute the metrics of all that was seen, and return them; keys that an override adds are reported too."""
        return self.metrics.process()

    def finalize_metrics(self) -> None:
        """Set what is known only at the end: milliseconds per image."""
        images = max(len(self.metrics.image_files), 1)
        self.speed = self.metrics.speed = {stage: ms / images for stage, ms in self._seen.spent.items()}

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of each loss over all images, as ``val/<loss>``; {} without a trainer."""
        images = len(self.metrics.image_files)
        return {f"val/{name}": math.fsum(sums) / images for name, sums in self._seen.losses.items()}

    def get_desc(self) -> str:
        """Return the title of the table of results."""
        return ""

    def print_results(self) -> None:
        """Under ``verbose``, print one row for all classes and, alone and with several classes, one row per class."""
        if not self.verbose:
            return
        metrics = self.metrics
        header = ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"]
        means = [round(value, 3) for value in metrics.mean_results()]
        rows: list[list[Any]] = [["all", len(metrics.image_files), int(metrics.nt_per_class.sum()), *means]]
        if not self.training and metrics.nc > 1:
            columns = ("Class", "Images", "Instances", "Box-P", "Box-R", "mAP50", "mAP50-95")
            rows += [[row[column] for column in columns] for row in metrics.summary(decimals=3)]
        print_table(self.get_desc(), header, rows, least=("Images", "Instances", "R", "P"))
        if not self.training:
            LOGGER.info("Speed: %s ms per image", ", ".join(f"{ms:.1f} {stage}" for stage, ms in self.speed.items()))
            if metrics.nt_per_class.sum() == 0:
                LOGGER.warning("Warning: no labels in this split, so every metric is 0")

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _check_classes(self, model: Any) -> None:
        if not self.single_cls and model.nc != len(self.names):
            raise ValueError(
                f"the model predicts {model.nc} classes and the data has {len(self.names)}: "
                "validate on the data it was trained for, or train it on this data first"
            )
        self._tell_other_names(getattr(model, "names", None))  # a user's network may have none

    def _tell_other_names(self, known: object) -> None:
        """Warn where the classes of the data are called otherwise than the model's: it may be other data."""
        if self.single_cls or not isinstance(known, Mapping) or known == {i: str(i) for i in range(len(known))}:
            return
        other = [(i, known[i], name) for i, name in self.names.items() if known.get(i, name) != name]
        for i, before, now in other[:1]:
            more = f", and {len(other) - 1} more differ" if other[1:] else ""
            warn(f"class {i} is {before!r} to the model and {now!r} in the data{more}: is it the data that was meant?")

    def _predicted(self, detections: Sequence[Tensor]) -> BoxList:
        """One transfer to the host for the whole batch: the only wait for the device that the metrics need."""
        rows = torch.cat(list(detections)).cpu().numpy()
        image = np.repeat(np.arange(len(detections)), [len(d) for d in detections])
        cls = rows[:, 5].astype(np.int64)
        return BoxList(rows[:, :4], np.zeros_like(cls) if self.single_cls else cls, image, rows[:, 4])

    def _truth(self, batch: Mapping[str, Any]) -> BoxList:
        """Labels in pixels of the network's input."""
        cls = batch["cls"].cpu().numpy().reshape(-1).astype(np.int64)
        truth = BoxList(
            self._corners(batch, "bboxes"),
            np.zeros_like(cls) if self.single_cls else cls,
            batch["batch_idx"].cpu().numpy().astype(np.int64),
            np.ones(len(cls), np.float32),
        )
        return truth if self.classes is None else truth.where(np.isin(cls, self.classes))

    def _areas(self, batch: Mapping[str, Any]) -> Areas:
        """Areas to ignore in pixels of the network's input, none where the batch tells of none."""
        if batch.get("ignored") is None:
            return Areas(no_boxes(), np.zeros((0, len(self.names)), bool))
        places, classes = self._corners(batch, "ignored"), batch["ignored_classes"].cpu().numpy()
        kind, image = (batch[f"ignored_{key}"].cpu().numpy().reshape(-1).astype(np.int64) for key in ("kind", "idx"))
        if self.single_cls:
            classes = np.any(classes, axis=1, keepdims=True)
        return Areas(BoxList(places, kind, image, np.ones(len(kind), np.float32)), classes)

    def _corners(self, batch: Mapping[str, Any], key: str) -> NDArray[np.float32]:
        """Boxes (n, 4) of a batch as corners in pixels of the network's input."""
        height, width = batch["img"].shape[-2:]
        center_size = batch[key].cpu().numpy().reshape(-1, 4) * np.array([width, height, width, height], np.float32)
        center, half = center_size[:, :2], center_size[:, 2:] / 2
        return np.concatenate([center - half, center + half], axis=1)

    def _with_progress(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Show a line on a terminal once the run has taken longer than a second, and remove it at the end."""
        live = self.verbose and dist.is_main() and console().is_terminal
        total, begin, shown = len(loader), time.monotonic(), 0.0  # type: ignore[arg-type]
        for step, batch in enumerate(loader):
            yield batch
            now = time.monotonic()
            if live and now - begin > 1 and now - shown > 0.2:
                console().file.write(f"\r  validating {step + 1}/{total} batches, {now - begin:.0f} s\x1b[K")
                console().file.flush()
                shown = now
        if shown:
            console().file.write("\r\x1b[K")
            console().file.flush()

    def _draw(self, name: str, batch: Mapping[str, Any], boxes: BoxList, score: NDArray[np.float32] | None) -> None:
        from eyas.plot.images import save_batch_picture

        assert self.save_dir is not None
        areas = self._areas(batch)
        save_batch_picture(
            self.save_dir / name,
            batch["img"].cpu().numpy(),
            boxes=boxes.boxes,
            cls=boxes.cls,
            image=boxes.image,
            score=score,
            names=self.names,
            titles=batch["im_file"],
            areas=(areas.places.boxes, areas.places.image),
        )

    def _write_files(self, folder: Path) -> None:
        if not (self.plots or self.save_json or self.save_txt):
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.plots:
            from eyas.plot.confusion import save_confusion_matrices
            from eyas.plot.curves import save_curves

            save_curves(self.metrics.box, self.names, folder)
            save_confusion_matrices(self.metrics.confusion_matrix, folder)
        if self.save_json:
            write_predictions_json(self._split(), folder / "predictions.json", self.numbers)
        if self.save_txt:
            write_label_files(self._split(), folder / "labels", with_score=self.save_conf)

    def _coco_numbers(self) -> dict[str, float]:
        from eyas.metrics.coco import coco_dataset, coco_detections, coco_numbers

        split = self._split()
        found, truth, count = split.predicted, split.truth, len(split.files)
        objects = truth.boxes, truth.cls, truth.image
        dataset = coco_dataset(*objects, num_images=count, names=self.names, crowds=split.areas.by_class())
        return coco_numbers(dataset, coco_detections(found.boxes, found.score, found.cls, found.image))

    def _split(self) -> Split:
        """Everything kept, with image indices of the whole split."""
        first = np.cumsum([0, *(len(frame.size) for *_, frame in self._kept)]).tolist()
        shifted = [
            (found.shifted(i), truth.shifted(i), areas.places.shifted(i))
            for (found, truth, areas, _), i in zip(self._kept, first, strict=False)
        ]
        found, truth, places = (joined([parts[k] for parts in shifted]) for k in range(3))
        tables = [areas.classes for _, _, areas, _ in self._kept]
        return Split(
            predicted=found,
            truth=truth,
            areas=Areas(places, tables[0] if tables else np.zeros((0, len(self.names)), bool)),
            size=np.concatenate([frame.size for *_, frame in self._kept] or [np.zeros((0, 2), np.float32)]),
            files=self.metrics.image_files,
        )


class LoneValidator(DetectionValidator):
    """Measures all images of its loader by itself, whatever other processes do: any of them may call it at any time."""

    def shards(self, mine: Shard) -> list[Shard]:
        """Return what this process found."""
        return [mine]


def _autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
