"""Batch normalisation over the images of all processes, on a GPU through torch's own kernels, elsewhere through ours.

Legend: ``B`` images of this process, ``C`` channels, ``*`` positions, ``W`` processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that also works on a CPU: (B, C, *) -> (B, C, *).

    In training, mean and variance are those of the images of all processes, weighted by how many each has. In
    evaluation, and without a group of processes, it is plain batch normalisation. Its state dict is that of
    ``BatchNorm2d``: a checkpoint of one fits the other.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, *) to (B, C, *).

        Raises:
            ValueError: while training, all processes together have only one value for each channel.
        """
        if input.is_cuda:
            return super().forward(input)
        self._check_input_dim(input)
        if not self._must_exchange():
            # torch's SyncBatchNorm would look for other processes, and refuse a CPU if there are any.
            return _BatchNorm.forward(self, input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, var, count = global_statistics(x, self.process_group)
        if count <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        self._update_running(mean, var, count)
        output: Tensor = _Normalise.apply(x, self.weight, self.bias, mean, var, count, self.eps, self.process_group)
        return output.to(input.dtype)

    def _must_exchange(self) -> bool:
        distributed = torch.distributed
        if not self.training or not distributed.is_available() or not distributed.is_initialized():
            return False
        return distributed.get_world_size(self.process_group) > 1

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, count: float) -> None:
        """Move the running statistics towards this batch's, with the unbiased variance, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        step = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), step)


def global_statistics(x: Tensor, group: Any = None) -> tuple[Tensor, Tensor, float]:
    """Return mean (C,) and biased variance (C,) of (B, C, *) over all processes, in float64, and values per channel.

    Every process sends its own mean, variance and count; joining them by Chan's rule loses no digits, as the difference
    of mean square and squared mean would. A process may have no image.
    """
    channels, count = x.shape[1], x.numel() // max(x.shape[1], 1)
    local = torch.zeros(2 * channels + 1, dtype=torch.float64)
    if count:
        # Ten times faster than torch.var_mean on channels last.
        mean, var = torch.batch_norm_update_stats(x.detach(), None, None, 0.0)
        local[:channels], local[channels:-1] = mean, var
    local[-1] = count
    parts = [torch.empty_like(local) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(parts, local, group=group)
    table = torch.stack(parts)  # (W, 2 C + 1)
    counts = table[:, -1:]
    total = counts.sum()
    share = counts / total.clamp(min=1)
    means, variances = table[:, :channels], table[:, channels:-1]
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean) ** 2)).sum(0)
    return mean, var, float(total)


class _Normalise(torch.autograd.Function):
    """Normalise with given statistics that depend on the inputs of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: float,
        eps: float,
        group: Any,
    ) -> Tensor:
        mean, var = mean.to(x.dtype), var.to(x.dtype)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.group = count, eps, group
        return _normalised(x, weight, bias, mean, var, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        if x.numel():
            # In evaluation mode this kernel gives the part of the gradient that takes the statistics as constant, and
            # this process's sums of grad * normalised x and of grad.
            grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                grad, x, scale, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
        else:
            grad_x, grad_weight, grad_bias = torch.zeros_like(x), torch.zeros_like(mean), torch.zeros_like(mean)
        if ctx.needs_input_grad[0]:
            sums = torch.stack((grad_weight, grad_bias)).double()
            torch.distributed.all_reduce(sums, group=ctx.group)
            mean_weight, mean_bias = (sums / ctx.count).to(x.dtype)
            # The rest comes through mean and variance; it is itself a normalisation of x, and as fast as one.
            slope = scale * torch.rsqrt(var + ctx.eps)
            grad_x -= _normalised(x, slope * mean_weight, slope * mean_bias, mean, var, ctx.eps)
        return (
            grad_x if ctx.needs_input_grad[0] else None,
            grad_weight if ctx.needs_input_grad[1] else None,
            grad_bias if ctx.needs_input_grad[2] else None,
            *(None,) * 5,
        )


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias, in the memory layout of x."""
    if not x.numel():
        return torch.empty_like(x)
    return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)


# -- models ------------------------------------------------------------------------------------------------------------
def convert(model: nn.Module) -> nn.Module:
    """Make every ``BatchNorm1d/2d/3d`` and torch ``SyncBatchNorm`` of a model a `SyncBatchNorm`; returns the model.

    The layers stay the same objects, with the same parameters, buffers, hooks and settings; only their class changes.
    A second call changes nothing. A subclass with a forward pass of its own is left as it is.
    """
    return _become(model, lambda m: isinstance(m, _BatchNorm) and type(m).forward in _STOCK_FORWARDS)


def portable(model: nn.Module, device: torch.device) -> nn.Module:
    """Make torch's ``SyncBatchNorm`` layers ours where torch's would refuse to work: anywhere but on CUDA."""
    if device.type == "cuda":
        return model
    return _become(model, lambda m: isinstance(m, nn.SyncBatchNorm) and type(m).forward in _STOCK_FORWARDS)


_STOCK_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def _become(model: nn.Module, chosen: Callable[[nn.Module], bool]) -> nn.Module:
    for module in list(model.modules()):
        if chosen(module):
            plain: Any = module
            plain.process_group = getattr(plain, "process_group", None)  # only torch's SyncBatchNorm has one
            # As torch's lazy layers do: whoever holds the layer, its parameters or its hooks goes on holding them.
            plain.__class__ = SyncBatchNorm
    return model


def synchronised_layers(model: nn.Module) -> int:
    """Count the layers that normalise over all processes."""
    return sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
