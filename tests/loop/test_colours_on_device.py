"""``hsv_on_device``: what workers leave undone, the trainer does, by the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from eyas.augment.apply_torch import jitter_hsv
from eyas.callbacks import Callback
from eyas.train import DetectionTrainer
from eyas.train.parts import in_parts

SHORT = {"epochs": 1, "fraction": 0.5, "val": False, "hsv_h": 0.1, "optimizer": "SGD", "lr0": 1e-3}


class Pixels(Callback):
    """Keeps the images of every step."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any) -> None:
        self.images.append(trainer.batch["img"].clone())


def trained(options: dict[str, Any]) -> tuple[DetectionTrainer, Pixels]:
    pixels = Pixels()
    trainer = DetectionTrainer(overrides=options, _callbacks=[pixels])
    trainer.train()
    return trainer, pixels


def test_images_are_those_of_the_workers_but_for_rounding(options: Any) -> None:
    _, by_workers = trained(options(**SHORT))
    trainer, by_device = trained(options(**SHORT, hsv_on_device=True))
    assert len(by_device.images) == len(by_workers.images) > 1
    for mine, theirs in zip(by_device.images, by_workers.images, strict=True):
        assert float((mine - theirs).abs().max()) <= 12 / 255 and float((mine - theirs).abs().mean()) < 2 / 255
    assert trainer.effects.settings["hsv_on_device"]["seen"] is True
    plain = trained(options(**SHORT, hsv_s=0.0, hsv_v=0.0) | {"hsv_h": 0.0})[1]
    assert float((plain.images[0] - by_device.images[0]).abs().mean()) > 4 / 255, "there is something to be seen"


def test_the_number_of_workers_changes_nothing(options: Any) -> None:
    weights = [
        trained(options(**SHORT, hsv_on_device=True, workers=workers))[0].ema.ema.state_dict() for workers in (0, 2)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_batch_says_what_is_left_to_do_and_a_sample_has_it_behind_it(options: Any) -> None:
    trainer = DetectionTrainer(overrides=options(**SHORT, hsv_on_device=True))
    with trainer.prepared():
        loader: Any = trainer.train_loader
        batch = next(iter(loader))
        assert batch["hsv"].shape == (16, 3) and batch["img"].dtype == torch.uint8
        ready = trainer.preprocess_batch(batch)
        assert ready["hsv"] is None
        assert torch.equal(ready["img"], jitter_hsv(batch["img"].float() / 255, batch["hsv"]))
        assert trainer.preprocess_batch(ready | {"img": batch["img"]})["hsv"] is None, "it is done once"
        dataset = loader.dataset
        keys = [dataset.key_of(i) for i in range(3)]
        raw, whole = dataset.make_batch(keys), dataset.finished(keys)
        assert "hsv" not in whole and "hsv" not in dataset[0]
        assert (whole["img"] != raw["img"]).any()
        sizes = [len(part["hsv"]) for part in in_parts(batch, 3)]
        assert sum(sizes) == 16 and [part["hsv"] for part in in_parts(ready, 2)] == [None, None]


class Transforms(DetectionTrainer):
    transforms = (lambda image, boxes, labels: (image, boxes, labels),)


@pytest.mark.parametrize(
    ("cls", "changes", "said"), [(Transforms, {}, "transforms see images"), (DetectionTrainer, {"bgr": 0.5}, "bgr")]
)
def test_what_must_come_after_colours_is_refused(
    cls: type[DetectionTrainer], changes: Any, said: str, options: Any
) -> None:
    with pytest.raises(ValueError, match=f"hsv_on_device=true leaves that to the training device, but {said}"):
        cls(overrides=options(**SHORT, hsv_on_device=True, workers=0) | changes).train()
    cls(overrides=options(**SHORT) | changes | {"fraction": 0.25}).train()


class OwnLoader(DetectionTrainer):
    """Whose samples come by number, with their colours jittered."""

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        if mode == "val":
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        return DataLoader(dataset, batch_size=batch_size, collate_fn=dataset.collate_fn)


def test_a_loader_of_ones_own_leaves_nothing_to_the_device_and_that_is_said(options: Any) -> None:
    with pytest.raises(ValueError, match="hsv_on_device"):
        OwnLoader(overrides=options(**SHORT, hsv_on_device=True)).train()


class Drops(DetectionTrainer):
    """Whose batches keep what a loss needs, and nothing else."""

    def preprocess_batch(self, batch: Any) -> Any:
        ready = super().preprocess_batch(batch)
        return {name: ready[name] for name in ("img", "cls", "bboxes", "batch_idx", "max_objects")}


class Doubles(DetectionTrainer):
    def preprocess_batch(self, batch: Any) -> Any:
        return super().preprocess_batch(batch | {"img": torch.cat((batch["img"], batch["img"]))})


def test_batches_that_drop_the_gains_are_no_false_alarm_and_added_images_are_refused(options: Any) -> None:
    trainer = Drops(overrides=options(**SHORT, hsv_on_device=True))
    trainer.train()
    assert trainer.coloured == 32
    with pytest.raises(ValueError, match=r"32 images came to preprocess_batch, and colours were drawn for 16\."):
        Doubles(overrides=options(**SHORT, hsv_on_device=True)).train()
