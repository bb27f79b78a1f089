"""SyncBatchNorm over two processes against BatchNorm over their joined images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas import dist
from eyas.nn.sync_bn import SyncBatchNorm, convert

SHAPES = {"maps": (8, 5, 4, 3), "vectors": (8, 5)}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def steps(norm: nn.Module, batches: list[Tensor], grads: list[Tensor]) -> dict[str, Tensor]:
    """Outputs, gradients and statistics of some steps, as one dict of tensors."""
    seen = {}
    for i, (batch, grad) in enumerate(zip(batches, grads, strict=True)):
        x = batch.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        out = norm(x)
        out.backward(grad)
        seen |= {f"out{i}": out.detach(), f"grad{i}": x.grad}
    return seen | {f"{k}.grad": p.grad for k, p in norm.named_parameters()} | dict(norm.state_dict())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("first", [4, 3, 0], ids=["equal", "unequal", "empty"])
@pytest.mark.parametrize("momentum", [0.03, None])
def test_two_processes_are_one(
    in_ranks: Any, dtype: torch.dtype, shape: str, first: int, momentum: float | None
) -> None:
    generator = torch.Generator().manual_seed(1)
    size = SHAPES[shape]
    batches = [torch.randn(size, generator=generator, dtype=dtype) * 3 + 2 for _ in range(3)]
    grads = [torch.randn(size, generator=generator, dtype=dtype) for _ in range(3)]
    if shape == "maps":
        batches = [b.contiguous(memory_format=torch.channels_last) for b in batches]
    plain = (nn.BatchNorm2d if shape == "maps" else nn.BatchNorm1d)(5, eps=1e-3, momentum=momentum).to(dtype)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)

    def part() -> dict[str, Tensor]:
        share = slice(0, first) if dist.rank() == 0 else slice(first, None)
        ours = convert(copy.deepcopy(plain))
        seen = steps(ours, [b[share] for b in batches], [g[share] for g in grads])
        if shape == "maps" and first:
            assert seen["out0"].is_contiguous(memory_format=torch.channels_last)
            assert seen["grad0"].is_contiguous(memory_format=torch.channels_last)
        return {name: value.numpy() for name, value in seen.items()}

    parts = [{name: torch.from_numpy(value) for name, value in part.items()} for part in in_ranks(part)]
    expected = steps(copy.deepcopy(plain), batches, grads)
    for name, value in expected.items():
        if name.startswith(("out", "grad")):
            found = torch.cat([part[name] for part in parts])
        elif name.endswith(".grad"):
            found = parts[0][name] + parts[1][name]
        else:
            assert torch.equal(parts[0][name], parts[1][name])
            found = parts[0][name]
        scale = max(float(value.abs().max()), 1.0)
        torch.testing.assert_close(
            found / scale, value / scale, atol=TOLERANCE[dtype], rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_gradients_are_finite_differences(in_ranks: Any) -> None:
    def check() -> tuple[list[float], list[float]]:
        torch.manual_seed(dist.rank())
        norm = SyncBatchNorm(2).double()
        x = torch.randn(2 + dist.rank(), 2, 2, 2, dtype=torch.float64, requires_grad=True)
        factor = torch.randn_like(x)

        def total() -> Tensor:
            return ((norm(x) ** 3) * factor).sum()

        (analytic,) = torch.autograd.grad(total(), x)
        numeric = []
        for owner in range(2):  # moving an input of one process moves the outputs of both
            for i in range(16):
                values = []
                for step in (1e-6, -1e-6):
                    with torch.no_grad():
                        if dist.rank() == owner:
                            x.view(-1)[i] += step
                        values.append(sum(dist.gather_all(total().item())))
                        if dist.rank() == owner:
                            x.view(-1)[i] -= step
                if dist.rank() == owner:
                    numeric.append((values[0] - values[1]) / 2e-6)
        return analytic.flatten()[:16].tolist(), numeric

    for analytic, numeric in in_ranks(check):
        assert analytic == pytest.approx(numeric, abs=1e-7, rel=1e-6)


def test_frozen_scales_and_layers_without_them_still_exchange(in_ranks: Any) -> None:
    def check() -> list[bool]:
        torch.manual_seed(3)
        joined = torch.randn(6, 2, 3, 3, dtype=torch.float64)
        weight = torch.randn_like(joined)
        share = slice(0, 2) if dist.rank() == 0 else slice(2, None)
        found = []
        for affine in (True, False):
            plain = nn.BatchNorm2d(2, affine=affine).double().requires_grad_(False)
            whole, part = joined.clone().requires_grad_(), joined[share].clone().requires_grad_()
            (plain(whole) * weight).sum().backward()
            (convert(copy.deepcopy(plain))(part) * weight[share]).sum().backward()
            found.append(torch.allclose(part.grad, whole.grad[share], atol=1e-12))
        return found

    assert in_ranks(check) == [[True, True]] * 2


def test_evaluation_and_held_layers_exchange_nothing(in_ranks: Any) -> None:
    def check() -> bool:
        plain = nn.BatchNorm2d(2).eval()
        plain.running_mean.fill_(dist.rank())
        ours, x = convert(copy.deepcopy(plain)), torch.randn(2, 2, 3, 3)
        if dist.rank() == 0:  # the other process does not come along, and is not waited for
            assert torch.equal(ours(x), plain(x))
        return torch.equal(ours.running_mean, plain.running_mean)

    assert in_ranks(check) == [True, True]


def test_one_value_in_all_processes_is_refused(in_ranks: Any) -> None:
    def check() -> str:
        norm = SyncBatchNorm(2)
        try:
            norm(torch.ones(1 - dist.rank(), 2))
        except ValueError as error:
            return str(error)
        return ""

    assert all("more than 1 value" in message for message in in_ranks(check))
