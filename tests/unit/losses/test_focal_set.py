"""The loss of DINO: numbers of spec detr-more 1.1, and what is taught."""

from __future__ import annotations

import pytest
import torch

from eyas.losses import FocalSetCriterion, SetCriterion
from eyas.types import DenoisingMeta, SetPrediction

BATCH = {"batch_idx": torch.tensor([0.0]), "cls": torch.tensor([[1.0]]), "bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}


def prediction(box: list[float], logit: float, layers: int = 2) -> SetPrediction:
    """One query and one denoising query of one image, alike everywhere; two classes, of which 1 is wanted."""
    scores = torch.tensor([-3.0, logit]).repeat(layers, 1, 2, 1)
    boxes = torch.tensor(box).repeat(layers, 1, 2, 1)
    nothing = torch.zeros(1, dtype=torch.int64)
    return SetPrediction(
        boxes, scores, boxes[0, :, 1:], scores[0, :, 1:], DenoisingMeta(nothing, nothing, nothing, 1, (1, 1))
    )


@pytest.mark.parametrize(("z", "wanted", "unwanted"), [(-2.0, 0.412520, 0.00135267), (0.3, 0.0250983, 0.211443)])
def test_cells_of_the_class_loss(z: float, wanted: float, unwanted: float) -> None:
    """Half the weight of the table's negatives: those are alike but for 0.75 = 1 - alpha."""
    criterion = FocalSetCriterion(nc=2)
    logits = torch.full((1, 1, 1, 2), z)
    positive = torch.tensor([[[[True, False]]]])
    loss = criterion.class_loss(logits, torch.zeros_like(logits), positive).flatten()
    assert loss.tolist() == pytest.approx([wanted, unwanted], rel=1e-5)


def test_every_output_is_taught_alike() -> None:
    """Class 1, box 5, GIoU 2 for each of encoder, layers and denoising layers: spec detr-more 2.1."""
    box, z, layers = [0.5, 0.5, 0.1, 0.2], 0.3, 6
    losses, items = FocalSetCriterion(nc=2)(prediction(box, z, layers), BATCH)
    other = FocalSetCriterion(nc=2).class_loss(torch.tensor([[[[-3.0]]]]), torch.zeros(1, 1, 1, 1)).item()
    outputs = 2 * layers + 1
    expected = [2 * (1 - 0.5), 0.0250983 + other, 5 * 0.1]  # half of the object's area, and inside of it
    assert outputs * len(losses) == 39
    assert losses.tolist() == pytest.approx([outputs * value for value in expected], rel=1e-5)
    assert list(items) == ["giou_loss", "cls_loss", "l1_loss"]
    assert [float(v) for v in items.values()] == pytest.approx(expected, rel=1e-5)


def test_how_well_a_box_fits_makes_no_difference_to_its_class() -> None:
    far, near = ([0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2])
    by_box = [FocalSetCriterion(nc=2)(prediction(box, 0.3), BATCH)[0][1] for box in (far, near)]
    assert float(by_box[0]) == pytest.approx(float(by_box[1]), rel=1e-6)
    assert float(SetCriterion(nc=2)(prediction(far, 0.3), BATCH)[0][1]) != pytest.approx(float(by_box[0]))


def test_weights_of_classes_multiply_their_columns() -> None:
    one, three = (
        FocalSetCriterion(nc=2, class_weights=[1.0, w])(prediction([0.5, 0.5, 0.2, 0.2], 0.3), BATCH)[0][1]
        for w in (1.0, 3.0)
    )
    assert float(three - one) == pytest.approx(2 * 5 * 0.0250983, rel=1e-4)


def test_another_loss_of_classes_is_refused() -> None:
    with pytest.raises(TypeError, match="matchability"):
        FocalSetCriterion(nc=2, matchability=1.5)
