"""Trainings on data sets and loaders of the user's own, in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from eyas.data.numbered import collate
from eyas.train import DetectionTrainer


class Squares(Dataset):
    """Noise with one box, in the samples that scripts for the incumbent make."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, Any]:
        noise = torch.Generator().manual_seed(i)
        return {
            "img": (torch.rand(3, 64, 64, generator=noise) * 255).to(torch.uint8),
            "cls": torch.tensor([[float(i % 10)]]),
            "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
            "batch_idx": torch.zeros(1),
        }


class OwnDataset(DetectionTrainer):
    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        return Squares()


class OwnLoader(DetectionTrainer):
    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        if mode == "val":
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        return DataLoader(Squares(), batch_size=batch_size, shuffle=True, collate_fn=collate)


@pytest.mark.parametrize("cls", [OwnDataset, OwnLoader])
def test_a_map_style_data_set_is_trained_on(cls: type[DetectionTrainer], options: Any) -> None:
    trainer = cls(overrides=options(epochs=1, batch=5, save=False))  # imgsz, batch and workers are typed, and told
    result = trainer.train()
    assert (trainer.plan.images, trainer.plan.batch, trainer.plan.batches) == (12, 5, 3)
    assert isinstance(trainer.train_loader.dataset, Squares)
    assert "val/box_loss" in result.metrics and result.history[0]["train/box_loss"] > 0


def test_a_worker_of_torchs_own_loader_is_told(options: Any) -> None:
    with pytest.raises(ValueError, match=r"workers=3 \(call\) has no effect: the run has 0; OwnLoader.get_dataload"):
        OwnLoader(overrides=options(epochs=1, batch=5, workers=3)).train()
