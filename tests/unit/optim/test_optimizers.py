from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyas.optim import (
    ModelEMA,
    MuSGD,
    PowerAverage,
    apply_schedule,
    build_optimizer,
    by_hand,
    check_base_rates,
    check_groups,
    cosine,
    flat_cosine,
    linear,
    note_rates,
    optimizer_names,
    parameter_groups,
    take_over_changes,
)
from eyas.optim.musgd import orthogonalise
from eyas.optim.schedules import SCHEDULES


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.LazyLinear(4))


def built_model() -> nn.Module:
    model = small_model()
    model(torch.zeros(1, 3, 5, 5))
    return model


def test_musgd_matches_the_golden_steps() -> None:
    """Spec core J.6; the orthogonalisation is in bfloat16, so 1e-2."""
    p = nn.Parameter(0.01 * torch.arange(54, dtype=torch.float32).reshape(2, 3, 3, 3))
    start = p.detach().clone()
    groups = [{"params": [p], "param_group": "muon"}]
    optimizer = MuSGD(groups, lr=0.1, momentum=0.9, weight_decay=5e-4)
    for t in (0, 1):
        p.grad = torch.sin(0.3 * torch.arange(54, dtype=torch.float32) + t).reshape(p.shape)
        optimizer.step()
    change = (p.detach() - start).flatten()
    expected = torch.tensor([-0.16364, -0.26963, -0.35154, -0.40209, -0.4167, -0.3941])
    torch.testing.assert_close(change[:6], expected, atol=1e-2, rtol=0)
    assert change.abs().sum().item() == pytest.approx(14.19277, rel=1e-2)


def test_musgd_without_muon_groups_is_torchs_nesterov_sgd() -> None:
    ours, theirs = built_model(), built_model()
    a = MuSGD(ours.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    b = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
    for step in range(4):
        x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five rounds of a x + b (x x^T) x + c (x x^T)^2 x on the wide form of a matrix of norm 1."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / np.linalg.norm(x)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * (x @ x.T @ x) + 2.0315 * (x @ x.T @ x @ x.T @ x)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


@pytest.mark.parametrize("shape", [(4, 3, 3, 2), (2, 3, 5, 3), (3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("factors", [(0.2, 1.0), (0.7, 0.3)])
@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_musgd_step_by_step(shape: tuple[int, ...], factors: tuple[float, float], decay: float) -> None:
    """Spec core B.5 in float64: both parts look ahead, only the SGD part decays, tall filters take longer steps."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(shape)
    p = nn.Parameter(torch.tensor(start, dtype=torch.float32))
    groups = [{"params": [p], "param_group": "muon"}]
    optimizer = MuSGD(groups, lr=0.1, momentum=0.9, weight_decay=decay, muon=factors[0], sgd=factors[1])
    value, fast, slow = start.copy(), np.zeros(shape), np.zeros(shape)
    for _ in range(3):
        grad = rng.standard_normal(shape)
        p.grad = torch.tensor(grad, dtype=torch.float32)
        optimizer.step()
        fast = 0.9 * fast + 0.1 * grad
        ahead = 0.1 * grad + 0.9 * fast
        direction = newton_schulz(ahead.reshape(shape[0], -1)).reshape(shape)
        value = value - 0.1 * factors[0] * max(1.0, shape[-2] / shape[-1]) ** 0.5 * direction
        decayed = grad + decay * value
        slow = 0.9 * slow + decayed
        value = value - 0.1 * factors[1] * (decayed + 0.9 * slow)
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-4, atol=1e-5)


def test_musgd_calls_its_closure_with_gradients_and_skips_parameters_without_any() -> None:
    moved, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = MuSGD([{"params": [moved, still], "param_group": "muon"}], lr=0.1)

    def closure() -> float:
        loss = moved.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(moved, torch.ones(2, 2)) and torch.equal(still, torch.ones(2, 2))
    assert optimizer.step() is None


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 50])[:, None, None]
    near = orthogonalise(matrices)
    values = torch.linalg.svdvals(near)
    assert values.min() > 0.5 and values.max() < 1.4
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.cosine_similarity(near.flatten(1), (u @ vh).flatten(1)).min() > 0.95


def test_musgd_moves_each_matrix_as_if_it_were_alone() -> None:
    """Matrices of one shape are orthogonalised together, whatever lies between them in the group."""
    shapes = [(4, 6), (6, 4), (4, 2, 3, 1), (4, 6), (3, 2, 1, 1), (6, 4)]
    start = [torch.randn(*shape, generator=torch.Generator().manual_seed(n)) for n, shape in enumerate(shapes)]
    together, alone = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = [MuSGD([{"params": p, "param_group": "muon"}], lr=0.1) for p in (together, *([one] for one in alone))]
    for step in range(2):
        for p, q, value in zip(together, alone, start, strict=True):
            p.grad = q.grad = (value * (step + 1)).sin()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_schedules_at_known_points() -> None:
    assert linear(0, 0.01) == 1 and linear(1, 0.01) == pytest.approx(0.01) and linear(0.5, 0.1) == pytest.approx(0.55)
    assert cosine(0, 0.01) == 1 and cosine(1, 0.01) == pytest.approx(0.01) and cosine(0.5, 0.0) == pytest.approx(0.5)
    assert flat_cosine(0.3, 0.01) == 1 and flat_cosine(0.75, 0.0) == pytest.approx(0.5)
    assert flat_cosine(1, 0.01) == pytest.approx(0.01)


def test_schedule_keeps_the_ratio_between_groups_and_warms_up() -> None:
    a, b, bias = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    groups = [
        {"params": [a], "lr": 0.01, "initial_lr": 0.01},
        {"params": [b], "lr": 0.1, "initial_lr": 0.1},
        {"params": [bias], "lr": 0.1, "initial_lr": 0.1, "param_group": "bias"},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for multiplier, warm in ((1.0, 0.25), (0.8, 1.0), (0.05, 1.0)):
        apply_schedule(optimizer, multiplier=multiplier, warm=warm, bias_lr=0.2, warm_momentum=0.8, momentum=0.9)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[1] / rates[0] == pytest.approx(10)
        assert rates[1] == pytest.approx(0.1 * multiplier * warm)
        assert rates[2] == pytest.approx(0.2 + (0.1 * multiplier - 0.2) * warm)
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.8 + 0.1 * warm)


GROUPS = st.fixed_dictionaries(
    {"initial_lr": st.floats(1e-5, 1.0)},
    optional={"lr_factor": st.floats(0.0, 10.0), "param_group": st.sampled_from(["bias", "weight", "bn", "muon"])},
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(GROUPS, min_size=1, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from(["SGD", "Adam"]),
)
def test_a_warm_up_is_a_line_from_each_groups_start(
    groups: list[dict], multiplier: float, warm: float, bias_lr: float, name: str
) -> None:
    """Biases start at `warmup_bias_lr`, slowed as their group is slowed; everything else at 0."""
    given_groups = [{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups]
    optimizer = build_optimizer(name, given_groups, lr=0.1, momentum=0.9)
    apply_schedule(optimizer, multiplier=multiplier, warm=warm, bias_lr=bias_lr, warm_momentum=0.6, momentum=0.95)
    for asked, group in zip(groups, optimizer.param_groups, strict=True):
        end = asked["initial_lr"] * multiplier
        start = bias_lr * asked.get("lr_factor", 1.0) if asked.get("param_group") == "bias" else 0.0
        assert group["lr"] == pytest.approx((1 - warm) * start + warm * end, abs=1e-12)
        assert group["initial_lr"] == asked["initial_lr"]
        if name == "SGD":
            assert group["momentum"] == pytest.approx((1 - warm) * 0.6 + warm * 0.95)
        else:
            assert group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("final", [0.0, 0.01, 1.0])
def test_schedules_stay_at_their_ends_and_never_rise(final: float) -> None:
    for schedule in (linear, cosine, flat_cosine):
        values = [schedule(x / 40, final) for x in range(60)]
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(values))
        assert values[0] == 1 and values[40:] == pytest.approx([final] * 20)
    assert [flat_cosine(x, final, flat=0.2) for x in (0.1, 0.2, 1.0)] == pytest.approx([1, 1, final])
    assert flat_cosine(0.6, 0.0, flat=0.2) == pytest.approx(0.5)
    assert SCHEDULES["constant"](0.9, final) == 1
    assert [SCHEDULES["step"](epoch / 12, final) for epoch in (0, 10, 10.99, 11, 12)] == [1, 1, 1, final, final]


def test_every_parameter_is_in_exactly_one_group_and_only_weights_decay() -> None:
    model = built_model()
    groups = parameter_groups(model, lr=0.1, decay=0.02)
    assert sorted(g["name"] for g in groups) == ["bias", "bn", "weight"]
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {g["name"]: g["weight_decay"] for g in groups} == {"weight": 0.02, "bn": 0.0, "bias": 0.0}
    assert [len(g["params"]) for g in groups] == [2, 1, 3]


def test_what_decays_is_a_weight_whatever_normalises() -> None:
    """Spec core B.5: no bias decays, no scale of any normalisation, and no logit scale; with MuSGD matrices do."""
    model = nn.Sequential(
        *(nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True), nn.RMSNorm(4)),
        nn.Conv1d(4, 4, 3),
        nn.Linear(4, 4),
    )
    model.register_parameter("logit_scale", nn.Parameter(torch.tensor(1.0)))
    for muon, decaying in ((False, {"5.weight", "6.weight"}), (True, {"5.weight", "6.weight"})):
        groups = parameter_groups(model, lr=0.1, decay=0.02, muon=muon)
        ids = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
        assert {n for n, p in model.named_parameters() if ids[id(p)] == 0.02} == decaying
        assert set(ids.values()) == {0.0, 0.02}
        assert {g["name"] for g in groups} == {"weight", "bn", "bias"} | ({"muon"} if muon else set())


def test_a_boost_is_for_the_named_parts_alone() -> None:
    model = nn.ModuleDict({"cls": nn.Linear(2, 2), "cls2": nn.Linear(2, 2)})
    groups = parameter_groups(model, lr=0.1, decay=0.0, boost=("cls.",), boost_factor=5.0)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert found == {"cls.weight": 0.5, "cls.bias": 0.5, "cls2.weight": 0.1, "cls2.bias": 0.1}


def test_a_shared_parameter_is_grouped_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    groups = parameter_groups(model, lr=0.1, decay=0.02)
    assert {g["name"]: len(g["params"]) for g in groups} == {"weight": 1, "bias": 2}
    torch.optim.SGD(groups)


def test_frozen_parameters_are_grouped_too() -> None:
    model = built_model()
    model[0].weight.requires_grad_(False)
    assert any(p is model[0].weight for g in parameter_groups(model, lr=0.1, decay=0) for p in g["params"])


def test_yolo26n_groups_have_the_counts_of_the_spec() -> None:
    """Spec core B.5: AdamW 126 weight / 114 bn / 126 bias, here in this order; MuSGD 24 + 90 ... boosted and rest."""
    from eyas.models import DetectionModel

    model = DetectionModel("yolo26n", verbose=False)
    plain = {g["name"]: len(g["params"]) for g in parameter_groups(model, lr=1, decay=0)}
    assert plain == {"weight": 126, "bn": 114, "bias": 126}
    boosted = parameter_groups(model, lr=1, decay=0, muon=True, boost=model.sections()["head.cls"])
    counts = {g["name"]: len(g["params"]) for g in boosted}
    assert counts == {"bn": 90, "bn.boosted": 24, "bias": 96, "bias.boosted": 30, "muon": 96, "muon.boosted": 30}
    assert {g["lr"] for g in boosted if g["name"].endswith("boosted")} == {3.0}


def test_a_parameter_without_a_group_or_in_two_is_named() -> None:
    model = built_model()
    optimizer = torch.optim.SGD([model[0].weight, *model[1].parameters()], lr=0.1)
    with pytest.raises(ValueError, match=r"3 parameters are in no optimizer group.*0\.bias, 4\.weight"):
        check_groups(model, optimizer)
    model[0].bias.requires_grad_(False)
    model[4].requires_grad_(False)
    check_groups(model, optimizer)
    optimizer.param_groups.append({"params": [model[0].weight]})
    with pytest.raises(ValueError, match=r"in two groups: 0\.weight"):
        check_groups(model, optimizer)


@pytest.mark.parametrize("name", sorted(optimizer_names()))
def test_every_optimizer_by_name_takes_a_step(name: str) -> None:
    model = built_model()
    optimizer = build_optimizer(name.lower(), parameter_groups(model, lr=0.01, decay=0.0), lr=0.01, momentum=0.9)
    before = model[0].weight.detach().clone()
    model(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model[0].weight)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_momentum_means_what_each_optimizer_calls_it(momentum: float) -> None:
    def settings_of(name: str) -> dict:
        return build_optimizer(name, [{"params": [nn.Parameter(torch.ones(1))]}], lr=0.1, momentum=momentum).defaults

    for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax"):
        assert settings_of(name)["betas"] == (momentum, 0.999)
    for name in ("SGD", "RMSprop", "MuSGD"):
        assert settings_of(name)["momentum"] == momentum
    assert settings_of("SGD")["nesterov"] is (momentum > 0)
    assert all(settings_of(name)["lr"] == 0.1 for name in optimizer_names())


def test_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'AdamW'"):
        build_optimizer("AdamWW", [], lr=0.1, momentum=0.9)


def test_ema_follows_its_closed_form() -> None:
    """Spec core B.9: d(u) at 1, 10, 1000, 10000 updates; and the average of a constant target."""
    ema = ModelEMA(nn.Linear(2, 2))
    assert [round(ema.decay(u), 6) for u in (1, 10, 1000, 10000)] == [0.0005, 0.004987, 0.39343, 0.993163]
    source = nn.BatchNorm1d(3)
    ema = ModelEMA(source, decay=0.9, tau=5.0)
    start = ema.ema.running_mean.clone()
    target = torch.tensor([1.0, 2.0, 3.0])
    source.running_mean.copy_(target)
    left = 1.0
    for update in range(1, 8):
        ema.update(source)
        left *= 0.9 * (1 - math.exp(-update / 5.0))
    torch.testing.assert_close(ema.ema.running_mean, target + (start - target) * left)
    assert ema.updates == 7 and not any(p.requires_grad for p in ema.ema.parameters())


@pytest.mark.parametrize("share", [0.02, 0.06, 0.25, 0.5])
def test_a_power_average_weighs_steps_by_its_closed_form(share: float) -> None:
    """Step k of u has the part (k^g - (k-1)^g) / u^g, g = 1/share - 1; half of all weighs every step alike."""
    live = nn.Linear(1, 1, bias=False).double()
    average = PowerAverage(live, share=share)
    values = torch.linspace(-2, 3, 40, dtype=torch.float64).sin()
    exponent = 1 / share - 1
    for steps, value in enumerate(values, 1):
        live.weight.data.fill_(value)
        average.update(live)
        k = torch.arange(1, steps + 1, dtype=torch.float64)
        parts = (k**exponent - (k - 1) ** exponent) / steps**exponent
        torch.testing.assert_close(parts.sum(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(average.ema.weight.squeeze(), (parts * values[:steps]).sum())
    if share == 0.5:
        torch.testing.assert_close(average.ema.weight.squeeze(), values.mean())


@pytest.mark.parametrize("share", [0.02, 0.06, 0.25, 0.5])
def test_the_mean_age_of_a_power_average_is_its_share_of_any_run(share: float) -> None:
    for steps in (2000, 20_000):
        k, exponent = torch.arange(1, steps + 1, dtype=torch.float64) / steps, 1 / share - 1
        parts = k**exponent - (k - 1 / steps) ** exponent
        age = float((parts * (1 - k)).sum())
        assert age == pytest.approx(share, abs=2 / steps)


def test_an_average_starts_again_where_asked() -> None:
    live = nn.BatchNorm1d(3)
    average = PowerAverage(live, share=0.1)
    for value in (1.0, 5.0):
        live.running_mean.fill_(value)
        live.weight.data.fill_(value)
        average.update(live)
    assert 1 < average.ema.weight[0] < 5 and 1 < average.ema.running_mean[0] < 5
    average.restart(live)
    assert torch.equal(average.ema.weight, live.weight) and torch.equal(average.ema.running_mean, live.running_mean)
    assert average.updates == 2


def test_the_average_follows_a_model_that_takes_anothers_place() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    ema = ModelEMA(first, decay=0.5, tau=1e-3)
    ema.update(first)
    ema.update(second)
    torch.testing.assert_close(ema.ema.weight, (first.weight + second.weight) / 2)


def test_ema_leaves_what_does_not_move_byte_identical() -> None:
    source = nn.Linear(64, 64)
    ema = ModelEMA(source)
    before = ema.ema.weight.clone()
    for _ in range(50):
        ema.update(source)
    assert torch.equal(before, ema.ema.weight)


@pytest.mark.parametrize("name", ["SGD", "MuSGD", "Adam", "AdamW", "RMSprop"])
def test_parameters_that_thaw_later_join_those_with_momentum(name: str) -> None:
    layer = nn.Linear(3, 3)
    optimizer = build_optimizer(name, [{"params": list(layer.parameters())}], lr=0.1, momentum=0.9)
    layer.bias.requires_grad_(False)
    before = layer.bias.detach().clone()
    for step in range(4):
        layer.bias.requires_grad_(step >= 2)
        layer(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(layer.bias, before) is (step < 2)


def test_a_rate_or_momentum_set_between_two_steps_is_kept() -> None:
    """The ratio multiplies all that follow, an adjuster's does not; a group at 0 has its schedule to compare with."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "initial_lr": lr} for lr in (0.01, 0.1, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    mine, other, idle = optimizer.param_groups
    note_rates(optimizer)

    def step(multiplier: float, adjuster: float = 1.0) -> list[float]:
        take_over_changes(optimizer)
        apply_schedule(optimizer, multiplier=multiplier, momentum=0.9)
        idle["lr"] *= adjuster
        note_rates(optimizer)
        return [group["lr"] for group in optimizer.param_groups]

    mine["lr"] = 0.02  # before the first step
    assert step(1.0, adjuster=0.5) == pytest.approx([0.02, 0.1, 0.05])
    assert step(0.5) == pytest.approx([0.01, 0.05, 0.05])
    mine["lr"] *= 0.1
    idle["lr"], other["momentum"] = 0.0, 0.7
    assert step(0.25) == pytest.approx([0.0005, 0.025, 0])
    idle["lr"] = 0.1
    assert step(0.25) == pytest.approx([0.0005, 0.025, 0.1])
    assert [by_hand(group) for group in optimizer.param_groups] == pytest.approx([0.2, 1, 4])
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.7, 0.9]
    again = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))]} for _ in groups], lr=1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (optimizer, again):
        each.param_groups[0]["lr"] = 0.004  # set by whom a resume interrupts
    step(0.1)
    rates, optimizer = [group["lr"] for group in optimizer.param_groups], again
    idle = again.param_groups[2]
    assert step(0.1) == rates


def test_an_optimizer_without_base_rates_is_refused_with_the_door_to_use() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "initial_lr": 0.1}], lr=0.1)
    check_base_rates(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match=r"\(SGD\) was replaced.*build_optimizer\(\)"):
        check_base_rates(optimizer)


def test_a_rate_set_while_the_schedule_is_at_0_is_refused_with_the_door_to_use() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    apply_schedule(optimizer, multiplier=0.0)
    note_rates(optimizer)
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(ValueError, match="adjust_rates"):
        take_over_changes(optimizer)
