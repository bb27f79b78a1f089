"""The model in several processes: gradients averaged over all of them, whatever is frozen and thawed on the way."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eyas import dist
from eyas.nn import sync_bn
from eyas.nn.unwrap import unwrap_model
from eyas.optim.ema import ModelEMA


class DataParallel(DistributedDataParallel):
    """torch's wrapper, which remembers for which parameters it averages gradients.

    Attributes:
        trained: names of the parameters that were trainable when it was made; it serves no others.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            # Gradients lie in the buffers that are sent, which saves a copy. Safe because zero_grad() sets them None.
            gradient_as_bucket_view=True,
        )
        # Statistics of synchronised layers are the same everywhere as they are. Set here, because the argument of this
        # name is deprecated from torch 2.13 on, and its successor unknown before.
        self.broadcast_buffers = bool(own_buffers(model))
        self.trained = trainable_names(model)

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        """torch refuses its SyncBatchNorm on a CPU; ours, a subclass of it, works there."""
        if not all(isinstance(m, sync_bn.SyncBatchNorm) for m in module.modules() if isinstance(m, nn.SyncBatchNorm)):
            super()._passing_sync_batchnorm_handle(module)


def wrap(model: nn.Module, device: torch.device) -> DataParallel:
    """Return a model that averages its gradients over all processes."""
    return DataParallel(model, device)


def wrapped(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model as it must be for the next step: wrapped for exactly the parameters that train now.

    A wrapper hooks into the parameters that are trainable when it is made. Those thawed later would go on with each
    process's own gradients, and the processes drift apart without a word.
    """
    if not needs_wrapping(model):
        return model
    inner = unwrap_model(model)
    release(model)
    return wrap(inner, device)


def needs_wrapping(model: nn.Module) -> bool:
    """Whether gradients of the model as it is would not be averaged: there is a group, and no wrapper that fits."""
    if not dist.is_initialised() or not trainable_names(model):
        return False
    return not isinstance(model, DataParallel) or model.trained != trainable_names(model)


def release(model: nn.Module) -> None:
    """Take a wrapper's hooks off its parameters, although somebody still holds the wrapper."""
    if isinstance(model, DistributedDataParallel):
        holder: Any = model
        holder.reducer = holder.logger = None  # the hooks live as long as the reducer, which the logger holds too
        gc.collect()


def trainable_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that train."""
    return tuple(name for name, p in unwrap_model(model).named_parameters() if p.requires_grad)


def sync_when(model: nn.Module, due: bool) -> AbstractContextManager[None]:
    """Put forward and backward into this: processes exchange gradients only when an optimizer step is due."""
    return nullcontext() if due or not isinstance(model, DistributedDataParallel) else model.no_sync()


def portable_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with torch's ``SyncBatchNorm`` layers made to work on this device."""
    return sync_bn.portable(model, device)


# -- statistics --------------------------------------------------------------------------------------------------------
def own_buffers(model: nn.Module) -> list[Tensor]:
    """Return the buffers that differ between processes after a step: all but those of synchronised layers."""
    modules = (m for m in unwrap_model(model).modules() if not isinstance(m, nn.SyncBatchNorm))
    return [buffer for module in modules for buffer in module.buffers(recurse=False)]


def share_statistics(model: nn.Module, ema: ModelEMA | None = None) -> None:
    """Give all processes the main one's buffers, of model and average: what is validated must be what is saved."""
    if dist.is_initialised():
        broadcast_buffers(model)
        if ema is not None:
            broadcast_buffers(ema.ema)


@torch.no_grad()
def broadcast_buffers(model: nn.Module) -> None:
    """Overwrite this process's unsynchronised buffers by the main one's, in one message for each type."""
    by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in own_buffers(model):
        by_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    for buffers in by_kind.values():
        joined = torch.cat([buffer.reshape(-1) for buffer in buffers])
        torch.distributed.broadcast(joined, src=0)
        for buffer, part in zip(buffers, joined.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
