"""The network that a checkpoint describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyas.checkpoint import CheckpointError
from eyas.models.catalog import detector_class
from eyas.models.detector import Detector
from eyas.models.lineage import own_chain


def network_from(
    checkpoint: Mapping[str, Any], verbose: bool = False, model_class: type[Detector] | None = None
) -> Detector:
    """Rebuild the network of a checkpoint.

    The file's table and tensors are enough; ``model_class`` is for models with layers that no table describes.

    Raises:
        CheckpointError: the class builds other tensors than the file holds.
    """
    cls = model_class or detector_class(checkpoint["yaml"])
    model = cls(checkpoint["yaml"], nc=checkpoint["nc"], names=checkpoint["names"], verbose=verbose)
    copied = model.load(checkpoint, remap=False, verbose=False)
    model.ancestors = own_chain(checkpoint)  # it is the checkpoint, and no descendant of it
    described = model.state_dict().keys()
    left = [key for key in checkpoint["model"] if key not in described and not key.startswith("criterion.")]
    name = checkpoint.get("model_class", "ThatClass").rpartition(".")[2]
    if copied != len(described) or left:
        raise CheckpointError(
            f"the checkpoint fills {copied} of the {len(described)} tensors of a {cls.__name__}, and "
            f"{len(left)} of its own fit none{f' ({left[0]})' if left else ''}: it "
            f"was written by {checkpoint.get('model_class', 'a model')}, with layers that no table describes. Open it "
            f"where that class is defined: YOLO(path, model_class={name})."
        )
    return model.eval()
