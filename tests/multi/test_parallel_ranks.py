"""Gradients and statistics over two processes, while layers are frozen and thawed."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas import dist
from eyas.losses import DenseCriterion
from eyas.nn.sync_bn import convert
from eyas.nn.unwrap import unwrap_model
from eyas.optim import ModelEMA
from eyas.train import parallel

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def train(model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(unwrap_model(model).parameters(), lr=0.1)
    for step in range(steps):
        data = torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * step + dist.rank()))
        model(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def spread(model: nn.Module) -> dict[str, float]:
    """Largest difference between the processes in each tensor."""
    states = dist.gather_all({k: v.numpy() for k, v in unwrap_model(model).state_dict().items()})
    return {name: float(abs(states[0][name] - states[1][name]).max()) for name in states[0]}


def test_trap_2_freeze_and_ddp(in_ranks: Any) -> None:
    """A layer that is thawed after wrapping drifts apart between processes; wrapped by us, it does not (peers 1e)."""

    def naive() -> dict[str, float]:
        model = network()
        model[0].requires_grad_(False)
        wrapper = nn.parallel.DistributedDataParallel(model)
        train(wrapper, 2)
        model[0].requires_grad_(True)
        train(wrapper, 3)
        return spread(wrapper)

    def ours() -> dict[str, float]:
        model: nn.Module = network()
        model[0].requires_grad_(False)
        model = parallel.wrapped(model, CPU)
        train(model, 2)
        unwrap_model(model)[0].requires_grad_(True)
        model = parallel.wrapped(model, CPU)
        train(model, 3)
        return spread(model)

    drift = in_ranks(naive)[0]
    assert drift["0.weight"] > 1e-4 and drift["2.weight"] < drift["0.weight"]
    assert set(in_ranks(ours)[0].values()) == {0.0}


def test_wrapped_only_when_needed_and_the_old_wrapper_is_gone(in_ranks: Any) -> None:
    def check() -> list[bool]:
        inner = network()
        model = parallel.wrapped(inner, CPU)
        facts = [unwrap_model(model) is inner, parallel.wrapped(model, CPU) is model]
        train(model, 1)
        held, reducer = model, weakref.ref(model.reducer)
        inner[0].requires_grad_(False)
        model = parallel.wrapped(model, CPU)
        facts += [model is not held, unwrap_model(model) is inner, reducer() is None]
        wrapper = weakref.ref(held)
        del held
        gc.collect()
        inner.requires_grad_(False)
        return [*facts, wrapper() is None, not parallel.needs_wrapping(inner)]

    assert in_ranks(check) == [[True] * 7] * 2


def test_alone_nothing_is_wrapped() -> None:
    model = network()
    assert parallel.wrapped(model, CPU) is model
    with parallel.sync_when(model, due=False):
        parallel.share_statistics(model)


def test_gradients_are_exchanged_only_when_a_step_is_due(in_ranks: Any) -> None:
    def check() -> tuple[bool, bool, float]:
        inner = network()
        model = parallel.wrapped(inner, CPU)
        data = [torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
        mine = data[2 * dist.rank() : 2 * dist.rank() + 2]
        with parallel.sync_when(model, due=False):
            model(mine[0]).sum().backward()
        first = dist.gather_all(inner[0].weight.grad.tolist())
        with parallel.sync_when(model, due=True):
            model(mine[1]).sum().backward()
        second = dist.gather_all(inner[0].weight.grad.tolist())
        alone = network()
        sum(alone(part).sum() for part in data).backward()
        error = (inner[0].weight.grad * 2 - alone[0].weight.grad).abs().max().item()
        return first[0] != first[1], second[0] == second[1], error

    for apart, together, error in in_ranks(check):
        assert apart and together and error < 1e-5


@pytest.mark.parametrize("synchronised", [False, True])
def test_statistics_come_from_the_main_process(in_ranks: Any, synchronised: bool) -> None:
    def check() -> tuple[int, float, float, float]:
        norm: nn.Module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        norm = convert(norm) if synchronised else norm
        model = parallel.wrapped(norm, CPU)
        ema = ModelEMA(model)
        model(torch.full((2, 2, 3, 3), float(dist.rank())) + torch.rand(2, 2, 3, 3)).sum().backward()
        before = norm[1].running_mean.clone()
        ema.update(model)
        apart = max(spread(model).values())
        parallel.share_statistics(model, ema)
        kept = dist.rank() > 0 or torch.equal(before, norm[1].running_mean)
        assert kept and int(norm[1].num_batches_tracked) == 1
        return len(parallel.own_buffers(model)), apart, max(spread(model).values()), max(spread(ema.ema).values())

    for own, apart, after, average in in_ranks(check):
        assert own == (0 if synchronised else 3)
        assert (apart == 0) == synchronised
        assert after == average == 0


# -- the loss ----------------------------------------------------------------------------------------------------------
class Detector(nn.Module):
    """A convolution, a normalisation and a dense head on one level of 8 px cells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4 + 3, 1)
        self.criterion = DenseCriterion(nc=3, strides=(8,), topk=4)

    def forward(self, batch: dict[str, Tensor]) -> Any:
        out = self.head(self.norm(self.stem(batch["img"])))
        flat = out.flatten(2)
        return self.criterion({"boxes": flat[:, :4] + 2, "scores": flat[:, 4:], "feats": [out]}, batch)


def batch_of(images: list[int]) -> dict[str, Tensor]:
    """Images with 0, 1, 2, ... objects."""
    rows = []
    for place, image in enumerate(images):
        generator = torch.Generator().manual_seed(image)
        for _ in range(image % 3):
            centre, size = (
                torch.rand(2, generator=generator) * 0.4 + 0.3,
                torch.rand(2, generator=generator) * 0.3 + 0.2,
            )
            rows.append([place, float(image % 3), *centre.tolist(), *size.tolist()])
    table = torch.tensor(rows).reshape(-1, 6)
    pictures = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(image)) for image in images]
    return {"img": torch.stack(pictures), "batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": table[:, 2:]}


BATCHES = [
    ([0, 1, 2, 4], [5, 7, 8, 3]),
    ([1, 2], [5, 7, 8]),  # shared unevenly
    ([0, 3, 6], [9, 12, 15]),  # no object anywhere
    ([0, 3], [4, 6]),  # one object in all
]


def run(model: Any, shares: list[list[int]], factor: int) -> list[list[float]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []
    for share in shares:
        loss, items = model(batch_of(share))
        (loss.sum() * factor).backward()
        total = dist.gather_all([loss.tolist(), torch.stack(list(items.values())).tolist()])
        sums = torch.tensor([part[0] for part in total]).sum(0)
        means = torch.tensor([part[1] for part in total]).mean(0)
        seen.append([*sums.tolist(), *means.tolist()])
        optimizer.step()
        optimizer.zero_grad()
    return seen


def test_losses_and_steps_of_two_processes_are_those_of_one(in_ranks: Any) -> None:
    torch.manual_seed(0)
    start = Detector()

    def part() -> tuple[list[list[float]], list[float]]:
        model = parallel.wrapped(convert(copy.deepcopy(start)), CPU)
        seen = run(model, [shares[dist.rank()] for shares in BATCHES], factor=2)
        assert set(spread(model).values()) == {0.0}
        return seen, torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()

    first, second = in_ranks(part)
    assert first == second
    alone = copy.deepcopy(start)
    expected = run(alone, [a + b for a, b in BATCHES], factor=1)
    for found, wanted in zip(first[0], expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    weights = torch.cat([p.detach().flatten() for p in alone.parameters()]).tolist()
    assert first[1] == pytest.approx(weights, abs=1e-5)
    assert expected[2][0] == 0  # without objects there is no box loss, and the divisor is 1


def test_validation_exchanges_nothing(in_ranks: Any) -> None:
    def check() -> bool:
        if dist.rank() == 1:
            return True  # a process with fewer batches
        with torch.no_grad():
            torch.manual_seed(0)
            return bool(Detector().eval()(batch_of([1, 2]))[0].isfinite().all())

    assert in_ranks(check) == [True, True]
