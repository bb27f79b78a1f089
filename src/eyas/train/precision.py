"""`amp=auto` on a CPU: bfloat16 where the processor has instructions for it and the network predicts the same in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eyas import dist
from eyas.device import has_bf16_instructions
from eyas.log import LOGGER
from eyas.models import Detector
from eyas.train.compiling import tried
from eyas.train.trials import beginning

IMAGES = 2  # the fewest whose normalisation is like that of a batch
TOLERANCE = 0.05  # of the size of what is predicted; all models of Eyas are within 0.01


def choose(network: nn.Module, side: int) -> torch.dtype | None:
    """Return bfloat16 if it pays and does no harm, None for float32; the same in all processes, which must call it.

    Args:
        network: tried on made-up images, forward and backward; it stays as it is.
        side: of the images of the run, in pixels.
    """
    refused = refusal(network, side)
    if dist.any_rank(bool(refused)):
        LOGGER.info("amp=auto: float32, for %s", refused or "another process says so")
        return None
    LOGGER.info("amp=auto: bfloat16, which this processor has instructions for")
    return torch.bfloat16


def refusal(network: nn.Module, side: int) -> str:
    """Return why bfloat16 is not to be used; empty if nothing is known against it."""
    if not has_bf16_instructions():
        return "this processor has no instructions for bfloat16"
    if not isinstance(network, Detector):
        return f"{type(network).__name__} has no predict_batch to compare by"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = tried(network, IMAGES, side)
        apart = difference_in_size(rounded, tried(network, IMAGES, side))
    except Exception as error:  # a user's model's: anything may come
        return f"it could not be tried ({beginning(error)})"
    return "" if apart <= TOLERANCE else f"in bfloat16 the size of its predictions differs by {apart:.2g}"


def difference_in_size(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the largest difference of the norms of two ways to predict the same, relative to the second.

    Of sets of queries it is the same whatever their order, which rounding decides where scores are nearly equal.
    """
    pairs = [(a.detach().float().norm(), b.detach().float().norm()) for a, b in zip(some, others, strict=True)]
    return float(torch.stack([(a - b).abs() / b.clamp(min=1e-12) for a, b in pairs]).max())
