"""Objects that are blended into other images of a batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eyas.callbacks import CopyBlend
from eyas.callbacks.copy_blend import blended


def batch() -> Any:
    """A bright object in the dark image 0, and a small one in the grey image 1."""
    images = torch.zeros(2, 3, 40, 80)
    images[1] = 0.5
    images[0, :, 10:20, 20:50] = 1.0
    return {
        "img": images,
        "cls": torch.tensor([[2.0], [1.0]]),
        "bboxes": torch.tensor([[35 / 80, 15 / 40, 30 / 80, 10 / 40], [0.1, 0.1, 4 / 80, 4 / 40]]),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "max_objects": 1,
    }


def run(**changes: Any) -> Any:
    return SimpleNamespace(**({"epoch": 0, "step": 0, "args": SimpleNamespace(seed=0)} | changes))


def test_the_object_stands_where_its_box_says() -> None:
    before = batch()
    after = blended(before, torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.99, 0.0, 0.5]]))
    assert torch.equal(before["img"], batch()["img"]), "what was given is left alone"
    assert after["cls"].flatten().tolist() == [2, 1, 2] and after["batch_idx"].tolist() == [0, 1, 1]
    assert after["max_objects"] == 2 and after["bboxes"].dtype == torch.float32
    cx, cy, w, h = (after["bboxes"][2] * torch.tensor([80, 40, 80, 40])).tolist()
    assert (w, h) == pytest.approx((30, 10)), "the rim is not in the box"
    inside = after["img"][1, 0, round(cy - h / 2) : round(cy + h / 2), round(cx - w / 2) : round(cx + w / 2)]
    assert inside.shape == (10, 30) and inside.unique().tolist() == pytest.approx([0.75]), "half of either"
    rest = after["img"][1, 0].clone()
    rest[round(cy - h / 2) : round(cy + h / 2), round(cx - w / 2) : round(cx + w / 2)] = 0.5
    assert sorted(rest.unique().tolist()) == pytest.approx([0.25, 0.5]), "a dark rim, and the image as it was"
    assert torch.equal(after["img"][0], before["img"][0])


def test_what_is_pasted_depends_on_the_step_alone() -> None:
    part = CopyBlend(1.0)
    once, again, later = (part.adjust_batch(run(step=step), batch()) for step in (3, 3, 4))
    assert torch.equal(once["bboxes"], again["bboxes"]) and not torch.equal(once["bboxes"], later["bboxes"])
    assert len(once["cls"]) == 2 + 2 * 3 and set(once["cls"][2:].flatten().tolist()) == {2.0}, "large objects alone"
    assert ((once["bboxes"][:, :2] > 0) & (once["bboxes"][:, :2] < 1)).all() and part.pasted == 18
    assert part.state_dict() == {"pasted": 18}


def test_when_it_leaves_a_batch_alone() -> None:
    given = batch()
    assert CopyBlend(1.0, start=2).adjust_batch(run(), given) is given
    assert CopyBlend(1.0, stop=2).adjust_batch(run(epoch=2), given) is given
    assert CopyBlend(1.0, least=10**4).adjust_batch(run(), given) is given
    nothing = batch() | {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    assert CopyBlend(1.0).adjust_batch(run(), nothing) is nothing
    often = [CopyBlend(0.5).adjust_batch(run(step=step), given) is given for step in range(60)]
    assert 15 < sum(often) < 45


def test_numbers_that_mean_nothing_are_refused() -> None:
    for wrong in ({"chance": 0.0}, {"chance": 1.5}, {"objects": 0}, {"start": 3, "stop": 3}):
        with pytest.raises(ValueError, match="chance is above 0 and at most 1"):
            CopyBlend(**wrong)
