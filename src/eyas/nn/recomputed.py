"""Parts of networks that compute again what their gradient needs, instead of keeping it.

Cheap: autograd keeps what goes into a normalisation and what goes into the SiLU after it. The second follows from the
first, by a scale and a shift for each channel (`NormSiLU`). Dear, and saving most: a whole block keeps nothing but what
it was given, and runs a second time (`Recomputed`).

Legend: ``B`` images, ``C`` channels, ``H`` x ``W`` positions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_norm = torch.ops.aten._batch_norm_impl_index  # what nn.BatchNorm2d ends in: cuDNN's kernels or torch's own
_norm_backward = torch.ops.aten._batch_norm_impl_index_backward


class NormSiLU(torch.autograd.Function):
    """SiLU of a batch's normalisation: (B, C, H, W) -> (B, C, H, W); only its input is kept, and what has C numbers.

    The arguments after ``x`` are scale, shift, running mean and running variance of (C,), momentum and epsilon; the
    running ones are moved, as `torch.nn.functional.batch_norm` does in training.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
    ) -> Tensor:
        """Return the activated maps."""
        cudnn = torch.backends.cudnn.enabled
        y, own_mean, own_rate, reserve, kernel = _norm(x, scale, shift, mean, var, True, momentum, eps, cudnn)
        ctx.save_for_backward(x, scale, shift, mean, var, own_mean, own_rate, reserve)
        ctx.eps, ctx.kernel = eps, kernel
        return silu(y, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the maps, the scale and the shift."""
        x, scale, shift, mean, var, own_mean, own_rate, reserve = ctx.saved_tensors
        own_var = own_rate.pow(-2).sub_(ctx.eps)  # what is kept of the batch is one over its deviation
        y, *_ = torch.native_batch_norm(x, scale, shift, own_mean, own_var, False, 0.0, ctx.eps)
        into = torch.ops.aten.silu_backward(gradient, y)
        wanted = ctx.needs_input_grad[:3]
        of_batch = (own_mean, own_rate, True, ctx.eps, wanted, reserve)
        return *_norm_backward(ctx.kernel, x, into, scale, mean, var, *of_batch), None, None, None, None


def norm_then_act(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """Return ``act(norm(x))``, and keep less of it for the gradient where both are what `NormSiLU` computes.

    Other modules run as they are, and so do a normalisation in eval mode and modules that somebody's hooks look at;
    a compiler chooses by itself what it computes again.
    """
    plain = type(norm) is not nn.BatchNorm2d or type(act) is not nn.SiLU or not norm.training
    if plain or torch.compiler.is_compiling() or hooked(norm) or hooked(act) or not torch.is_grad_enabled():
        return act(norm(x))
    assert isinstance(norm, nn.BatchNorm2d)
    mean, var, counted = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if mean is None or var is None or counted is None or norm.momentum is None or not norm.affine:
        return act(norm(x))
    if x.numel() == x.shape[1]:  # one value of a channel has no variance, which torch's layer refuses by name
        return act(norm(x))
    counted.add_(1)
    return NormSiLU.apply(x, norm.weight, norm.bias, mean, var, norm.momentum, norm.eps)


def hooked(module: nn.Module) -> bool:
    """Whether somebody wants to be told of what a module is given or returns, or of their gradients."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


class Recomputed(nn.Module):
    """A block that draws no random numbers and, where asked, runs a second time for its gradient. Base of such blocks.

    It runs once, as it is written, where somebody's hooks look at a module inside it, and in a compiler.

    Attributes:
        saves_memory: whether it was asked for.
    """

    saves_memory: bool = False

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run; while training, keep of it only what it was given, where that was asked for."""
        twice = self.saves_memory and self.training and torch.is_grad_enabled()
        compiled = torch.compiler.is_compiling() or self._compiled_call_impl is not None
        if not twice or compiled or any(map(hooked, self.modules())):
            return super().__call__(*given, **named)
        settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False, "context_fn": self.around}
        return checkpoint(super().__call__, *given, **settings, **named)

    def around(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what surrounds the first run, and the second."""
        return nullcontext(), statistics_held([module for module in self.modules() if isinstance(module, _NormBase)])


@contextmanager
def statistics_held(norms: list[_NormBase]) -> Iterator[None]:
    """Let normalisation see a batch a second time, and count it once."""
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    before = [count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        if counts:
            torch._foreach_copy_(counts, before)
