"""`BackboneHost`: what a detector whose backbone may be another one has in common with all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.checkpoint import CheckpointError, read_tensors
from eyas.models.backbones.base import Backbone
from eyas.models.backbones.stock import checked_backbone
from eyas.models.backbones.vit import ViTBackbone
from eyas.models.backbones.vit_keys import fitted, read_vit
from eyas.models.detector import Detector
from eyas.models.licences import consent
from eyas.models.lineage import Ancestor, joined
from eyas.models.published import located
from eyas.models.table import Table, called
from eyas.models.weights import check_numbers, copy_state, plain_state
from eyas.names import a_few
from eyas.nn.vit import resized_positions

LOGGER = logging.getLogger("eyas")
OWN = {"frozen_norms": False, "freeze_stem": False, "lr_ratio": None}  # settings that belong to the backbone of before
# What weights may lack or hold beyond a network: counters, constants, and a normalisation that it may go without.
OPTIONAL = ("num_batches_tracked", "periods", "vit.mean", "vit.std", "vit.norm.weight", "vit.norm.bias")


class BackboneHost(Detector):
    """A detector that is built around ``self.backbone``; its table names another one under ``backbone``.

    A subclass has ``backbone`` (None for its own) among the keys of its tables, and `build` makes what
    `eyas.models.backbones.stock.named_backbone` returns where that is given.
    """

    backbone: Backbone
    loaded_backbone: str | None = None  # where its weights are from

    @classmethod
    def with_backbone(cls, table: Table, name: str) -> Table:
        """Return a table with another backbone, and without what was right for the one before.

        Raises:
            ValueError: there is no such backbone.
        """
        return table | OWN | {"backbone": checked_backbone(name)}

    def load_backbone(self, weights: str | Path | Mapping[str, Any], accepted: Collection[str] = ()) -> None:
        """Fill the backbone alone; see `Detector.load_backbone`."""
        offer = self.backbone.offered(weights) if isinstance(weights, str) else None
        known, tensors = self._given(weights) if offer is None else offer
        source = "the given tensors" if isinstance(weights, Mapping) else str(weights)
        said = consent(known.licence, source if offer is None else known.name, accepted)
        self._copy(tensors(), source)
        LOGGER.info("They are %s", known)
        self.ancestors = joined(self.ancestors, (replace(known, consent=said),))

    def _given(self, weights: str | Path | Mapping[str, Any]) -> tuple[Ancestor, Callable[[], Mapping[str, Tensor]]]:
        """Return what is known of weights, and what gives them under the names of the backbone."""
        content, known = weights, Ancestor("weights given by hand")
        if isinstance(weights, str | Path):
            path, known = located(weights, self.published)
            content = read_tensors(path)
        if not isinstance(self.backbone, ViTBackbone):
            return known, lambda: self.backbone.renamed(only_tensors(content), self.adapt)
        found = read_vit(content)
        state = {f"vit.{k}": v for k, v in fitted(found, self.backbone.name, self.backbone.vit.spec).items()}
        origin = found.origin
        trained_on = origin.trained_on or known.trained_on
        return Ancestor(f"backbone: {found}", origin.licence, origin.source, trained_on, known.sha256), lambda: state

    @torch.no_grad()
    def _copy(self, state: Mapping[str, Tensor], source: str) -> None:
        """Copy what fits into the backbone.

        Raises:
            ValueError: a tensor of its body is not in the weights, or is of another size; nothing is changed then.
        """
        own = self.backbone.state_dict()
        wanted = [k for k in own if k.startswith(self.backbone.body) and not k.endswith(OPTIONAL)]
        state = resampled(state, own)
        kernel = next((k for k in wanted if own[k].ndim == 4), "")
        missing = [k for k in wanted if k not in state or (k != kernel and state[k].shape != own[k].shape)]
        if missing:
            raise ValueError(
                f"{source} does not fit the backbone {self.backbone.name or called(self.yaml)}: {a_few(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not in it, or of another size."
            )
        check_numbers(state, own)
        copied = copy_state(own, state, first_conv=kernel)
        self.loaded_backbone = source
        self.classes_kept = self.classes_kept or 0.0
        LOGGER.info("Loaded %d tensors into the backbone from %s", len(copied), source)
        if left := [k for k in state if k not in copied and not k.endswith(OPTIONAL)]:
            LOGGER.warning("Warning: %d tensors of %s are not used: %s", len(left), source, a_few(left))

    def save_memory(self) -> None:
        """Compute again what gradients need, in the backbone and after it; see `Detector.save_memory`."""
        if not self.backbone.save_memory() or self.recomputing_layers():
            super().save_memory()

    def saves_memory(self) -> bool:
        return self.backbone.saves_memory or super().saves_memory()

    def effects(self) -> dict[str, object]:
        """Return what was taken over by option, from weights and into the backbone, and whether memory is saved."""
        told = super().effects() | {"backbone": self.backbone.name}
        if self.loaded_backbone is not None:
            told["backbone_weights"] = self.loaded_backbone
        return told


def resampled(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose position code is of the grid that the network stores it for."""
    key = "vit.pos_embed"
    if key not in state or key not in own or state[key].shape == own[key].shape:
        return dict(state)
    side = round((own[key].shape[1] - 1) ** 0.5)
    return dict(state) | {key: resized_positions(state[key].float(), side, side)}


def only_tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors by name of a file of weights, the averaged ones first.

    Raises:
        CheckpointError: there are none.
    """
    state = plain_state(content)
    if state is None:
        raise CheckpointError("there are no tensors by name in these weights")
    return state
