"""SyncBatchNorm in one process, and models made of it; two processes are in tests/multi."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from eyas.callbacks.sync_bn import SyncBatchNorm as Component
from eyas.config import TrainOptions
from eyas.nn import Conv
from eyas.nn.sync_bn import SyncBatchNorm, convert, portable, synchronised_layers

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    shared = nn.BatchNorm2d(4, eps=1e-3, momentum=0.03)
    return nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 4, 1), shared, Conv(4, 4), nn.BatchNorm3d(4))


def test_converted_layers_are_the_same_objects() -> None:
    model = network()
    layers, tensors = list(model.modules()), {**dict(model.named_parameters()), **dict(model.named_buffers())}
    model[1].eval()
    assert convert(model) is model
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(a is b for a, b in zip(layers, model.modules(), strict=True))
    assert after.keys() == tensors.keys() and all(after[name] is tensors[name] for name in tensors)
    assert synchronised_layers(model) == 3  # one is used twice
    assert all(type(m) is SyncBatchNorm for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert (model[1].eps, model[1].momentum, model[1].training, model[1].process_group) == (1e-3, 0.03, False, None)
    assert synchronised_layers(convert(model)) == 3


def test_root_layer_and_layers_of_torch_are_converted_too() -> None:
    assert type(convert(nn.BatchNorm1d(3))) is SyncBatchNorm
    torchs = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    assert type(convert(torchs)[1]) is SyncBatchNorm


def test_a_layer_with_its_own_forward_stays() -> None:
    class Mine(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    class Named(nn.BatchNorm2d):
        pass

    model = convert(nn.Sequential(Mine(2), Named(2), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2)))
    assert [type(m).__name__ for m in model] == ["Mine", "SyncBatchNorm", "GroupNorm", "InstanceNorm2d"]


def test_torchs_layers_are_made_portable_only_off_cuda() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    assert type(portable(model, torch.device("cuda"))[1]) is nn.SyncBatchNorm
    assert type(portable(model, CPU)[1]) is SyncBatchNorm
    plain = network()
    assert type(portable(plain, CPU)[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("track", [True, False])
def test_one_process_is_plain_batch_norm(momentum: float | None, track: bool) -> None:
    plain = nn.BatchNorm2d(3, momentum=momentum, track_running_stats=track)
    ours = convert(copy.deepcopy(plain))
    for training in (True, True, False):
        x = torch.randn(4, 3, 5, 5)
        assert torch.equal(plain.train(training)(x), ours.train(training)(x))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), ours.buffers(), strict=True))


def test_state_fits_plain_batch_norm_and_back() -> None:
    model = convert(network())
    fresh = network()
    assert fresh.load_state_dict(model.state_dict())
    assert model.load_state_dict(fresh.state_dict())


def test_block_is_fused() -> None:
    block = convert(Conv(3, 4, 3)).eval()
    block.bn.running_mean.uniform_(-1, 1), block.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    before = block(x)
    block.fuse()
    assert isinstance(block.bn, nn.Identity)
    torch.testing.assert_close(block(x), before, atol=1e-5, rtol=1e-5)


# -- the component -----------------------------------------------------------------------------------------------------
def trainer(processes: int, batch: int, model: nn.Module | None = None) -> Any:
    return SimpleNamespace(world_size=processes, batch_size=batch, model=network() if model is None else model)


@pytest.mark.parametrize(
    ("mode", "processes", "batch", "layers"),
    [(True, 2, 64, 3), ("auto", 2, 32, 3), ("auto", 2, 34, 0), (False, 2, 8, 0), (True, 0, 8, 0), ("auto", 0, 8, 0)],
)
def test_component_converts_when_asked(mode: Any, processes: int, batch: int, layers: int) -> None:
    run = trainer(processes, batch)
    component = Component(mode)
    assert synchronised_layers(component.adjust_model(run, run.model)) == layers
    assert component.witness(run) == component.describe(run)
    text = component.witness(run)["sync_bn"]
    assert isinstance(text, str)
    assert text.startswith("3 layers over 2" if layers else "one process" if not processes else "each process")


def test_a_model_without_batch_norm_leaves_no_witness() -> None:
    assert Component(True).witness(trainer(2, 8, nn.Linear(2, 2))) == {}


def test_option_is_the_component() -> None:
    modes = {Component.from_options(TrainOptions(sync_bn=mode)).mode for mode in (True, False, "auto")}
    assert modes == {True, False, "auto"}
    with pytest.raises(ValueError, match="True, False or 'auto'"):
        Component("always")  # type: ignore[arg-type]
