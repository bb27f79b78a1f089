"""Which batches are pictured."""

from __future__ import annotations

from pathlib import Path

import torch

from eyas.report.pictures import Pictures
from small_run import SmallRun


class Closes(SmallRun):
    """Mosaic ends as the trainer says, whatever the plan has: under a ``time`` budget the two differ."""

    def closing_epochs(self) -> int:
        return 1


def test_the_first_batches_and_the_first_without_mosaic(tmp_path: Path) -> None:
    run = Closes(Pictures(), epochs=3, batches=4)
    run.save_dir = tmp_path
    for run.epoch in range(3):
        for run.step in range(4):
            run.batch = {
                "img": torch.rand(2, 3, 32, 32),
                "cls": torch.zeros(1, 1),
                "bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]]),
                "batch_idx": torch.zeros(1),
            }
            run.fire("on_train_batch_end")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"train_batch{number}.jpg" for number in (0, 1, 10, 2, 8, 9)]


def test_a_loader_of_the_users_has_no_labels_to_draw(tmp_path: Path) -> None:
    run = SmallRun(Pictures())
    run.save_dir = tmp_path
    run.fire("on_train_start")
    assert list(tmp_path.iterdir()) == []
