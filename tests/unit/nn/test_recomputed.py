"""Layers that compute again what their SiLU was given learn the same as those that keep it, and keep less."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyas.models import build_detector
from eyas.nn import Conv
from eyas.nn.conv_norm import ConvNorm
from eyas.nn.recomputed import NormSiLU, Recomputed, norm_then_act, statistics_held

BOXES = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.2, 0.3]])


def batch(images: int = 2, side: int = 64) -> dict[str, Any]:
    """Return images of noise with an object each."""
    torch.manual_seed(0)
    numbers = {"cls": torch.zeros(images, 1), "batch_idx": torch.arange(float(images)), "max_objects": 1}
    return {"img": torch.rand(images, 3, side, side), "bboxes": BOXES.repeat(images, 1)[:images], **numbers}


def learned(layer: nn.Module, x: Tensor, autocast: bool = False) -> list[Tensor]:
    """Return what a layer gives, the gradients of its input and parameters, and its statistics afterwards."""
    given = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(given)
    out.float().pow(3).mean().backward()
    grads = [p.grad for p in layer.parameters() if p.grad is not None]
    assert given.grad is not None
    return [out.detach(), given.grad, *grads, *layer.buffers()]


def kept(model: nn.Module) -> int:
    """Return the numbers that a model's loss keeps for its gradient beside weights, each memory counted once."""
    storages: dict[int, int] = {}
    alive = []
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.loss(batch())  # type: ignore[operator]
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layer", [Conv(3, 8, 3), ConvNorm(3, 8, 3, act=nn.SiLU())], ids=["Conv", "ConvNorm"])
def test_a_layer_learns_the_same(layer: nn.Module, autocast: bool) -> None:
    plain, saving = copy.deepcopy(layer).train(), copy.deepcopy(layer).train()
    saving.saves_memory = True
    x = 3 * torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1)) + 1
    for a, b in zip(learned(plain, x, autocast), learned(saving, x, autocast), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    x, scale, shift = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in ((2, 3, 4, 5), (3,), (3,)))

    def activated(*learning: Tensor) -> Tensor:
        statistics = torch.zeros(3, dtype=torch.double), torch.ones(3, dtype=torch.double)
        return NormSiLU.apply(*learning, *statistics, 0.1, 1e-3)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(activated, (x, scale, shift))


def test_only_what_trains_gets_a_gradient() -> None:
    layer = Conv(3, 8, 3).train()
    layer.saves_memory = True
    layer.bn.weight.requires_grad_(False)
    layer(torch.rand(2, 3, 8, 8)).mean().backward()
    assert layer.bn.weight.grad is None
    assert layer.bn.bias.grad is not None and layer.conv.weight.grad is not None


def is_recomputed(norm: nn.Module, act: nn.Module) -> bool:
    out = norm_then_act(norm, act, torch.rand(2, 8, 4, 4, requires_grad=True))
    return "NormSiLU" in type(out.grad_fn).__name__


def test_whoever_differs_or_is_looked_at_runs_as_it_is() -> None:
    assert is_recomputed(nn.BatchNorm2d(8), nn.SiLU())
    assert not is_recomputed(nn.BatchNorm2d(8).eval(), nn.SiLU())  # frozen
    assert not is_recomputed(nn.BatchNorm2d(8), nn.ReLU())
    assert not is_recomputed(nn.SyncBatchNorm(8).eval(), nn.SiLU())
    assert not is_recomputed(nn.BatchNorm2d(8, momentum=None), nn.SiLU())
    assert not is_recomputed(nn.BatchNorm2d(8, track_running_stats=False), nn.SiLU())
    assert not is_recomputed(nn.BatchNorm2d(8, affine=False), nn.SiLU())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_then_act(nn.BatchNorm2d(8), nn.SiLU(), torch.rand(1, 8, 1, 1, requires_grad=True))
    for watched in (0, 1):
        pair = nn.BatchNorm2d(8), nn.SiLU()
        seen: list[Tensor] = []
        pair[watched].register_forward_hook(lambda module, given, out: seen.append(out))  # noqa: B023
        assert not is_recomputed(*pair) and len(seen) == 1
    with torch.no_grad():
        assert norm_then_act(nn.BatchNorm2d(8), nn.SiLU(), torch.rand(2, 8, 4, 4)).grad_fn is None


@pytest.mark.parametrize(
    ("name", "share"),
    [("yolo26n", 0.78), ("rtdetr-tiny", 0.4), ("rtdetr-r18", 0.4), ("dfine-n", 0.4), ("dino-tiny", 0.4)],
)
def test_a_network_keeps_less_and_learns_the_same(name: str, share: float) -> None:
    """To rounding: what a SiLU was given is computed by another formula, and a block is only run again."""
    torch.manual_seed(0)
    plain = build_detector(name, nc=3, verbose=False).train()
    saving = copy.deepcopy(plain)
    saving.save_memory()
    assert (plain.effects()["gradient_checkpointing"], saving.effects()["gradient_checkpointing"]) == (False, True)
    assert kept(saving) < share * kept(plain)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        torch.manual_seed(1)  # noise of denoising queries
        model.zero_grad()
        model.loss(batch())[0].sum().backward()
    theirs = dict(saving.named_parameters())
    learned = [key for key, parameter in plain.named_parameters() if parameter.grad is not None]
    assert learned == [key for key, parameter in theirs.items() if parameter.grad is not None]
    pairs = [(parameter.grad, theirs[key].grad) for key, parameter in plain.named_parameters() if key in learned]
    apart = torch.stack([(a - b).norm() for a, b in pairs]).norm()  # type: ignore[operator, union-attr]
    assert apart < 1e-4 * torch.stack([a.norm() for a, _ in pairs]).norm()  # type: ignore[union-attr]
    for (key, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=key)  # statistics and counts, too: a batch is seen twice, and counted once


class Pair(Recomputed):
    """A block that counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.norm(self.conv(x)).relu()


def runs_of(block: Pair) -> int:
    """Return how often a block runs for one gradient."""
    block.runs = 0
    block(torch.rand(2, 3, 4, 4, requires_grad=True)).sum().backward()
    return block.runs


def test_a_block_runs_again_only_where_asked_and_where_nobody_looks() -> None:
    block = Pair()
    assert runs_of(block) == 1
    block.saves_memory = True
    assert runs_of(block) == 2
    assert runs_of(block.eval()) == 1  # type: ignore[arg-type]
    block.train()
    seen: list[Tensor] = []
    handle = block.conv.register_forward_hook(lambda module, given, out: seen.append(out))
    assert (runs_of(block), len(seen)) == (1, 1)  # a list that a user fills does not get everything twice
    handle.remove()
    assert runs_of(block) == 2
    block.compile(backend="eager")
    assert runs_of(block) == 1


@pytest.mark.parametrize("momentum", [0.3, None])
def test_statistics_move_once(momentum: float | None) -> None:
    block, x = Pair(), torch.rand(4, 3, 5, 5)
    block.norm.momentum = momentum
    once = copy.deepcopy(block)
    block.saves_memory = True
    for b in (block, once):
        b(x).sum().backward()
    assert block.runs == 2
    assert (block.norm.momentum, int(block.norm.num_batches_tracked or 0)) == (momentum, 1)
    assert torch.equal(block.norm.running_mean, once.norm.running_mean)  # type: ignore[arg-type]
    assert torch.equal(block.norm.running_var, once.norm.running_var)  # type: ignore[arg-type]


def test_no_layer_inside_a_block_computes_again_by_itself() -> None:
    model = build_detector("rtdetr-r18", nc=3, verbose=False)
    found = model.recomputing_layers()
    blocks = [layer for layer in found if isinstance(layer, Recomputed)]
    assert blocks and len(set(found)) == len(found) > len(blocks)
    assert not {m for block in blocks for m in block.modules() if m is not block} & set(found)


def test_statistics_are_given_back_where_the_second_run_fails() -> None:
    norm = nn.BatchNorm2d(3)
    with pytest.raises(RuntimeError), statistics_held([norm]):
        raise RuntimeError
    assert norm.momentum == 0.1


def test_a_network_that_has_nothing_to_compute_again_says_so() -> None:
    model = build_detector("yolo26n", nc=3, verbose=False)
    for layer in model.modules():
        if isinstance(layer, Conv):
            layer.act = nn.ReLU()
    with pytest.raises(ValueError, match="gradient_checkpointing=True: .*yolo26n.* no layers that can compute again"):
        model.save_memory()
