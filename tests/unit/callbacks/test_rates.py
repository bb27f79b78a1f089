"""Rates layer by layer, checked parameter by parameter against the rule said naively."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyas.callbacks.rates import LayerRates, layer_rates
from eyas.config import TrainOptions
from eyas.models import DetectionModel
from eyas.optim import apply_schedule, build_optimizer, check_groups, parameter_groups
from eyas.optim.select import select
from small_run import SmallRun

SELECTORS = ["backbone", "backbone.p3", "neck", "head", "head.cls", "model.*.bn.*", "/bias$/", "model.4", "23.cv3"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DetectionModel:
    return DetectionModel(tiny_model, nc=3, verbose=False)


def default(model: nn.Module, muon: bool = False) -> list[dict[str, Any]]:
    boost = model.sections()["head.cls"] if muon and isinstance(model, DetectionModel) else ()
    return parameter_groups(model, lr=0.01, decay=5e-4, muon=muon, boost=boost)


def values(model: nn.Module, groups: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Return a value by parameter name; every parameter must be in exactly one group."""
    names = {id(p): n for n, p in model.named_parameters()}
    flat = [(names[id(p)], group[key]) for group in groups for p in group["params"]]
    assert sorted(n for n, _ in flat) == sorted(names.values())
    return dict(flat)


@settings(deadline=None, max_examples=30)
@given(
    rules=st.dictionaries(st.sampled_from(SELECTORS), st.sampled_from([0.1, 0.5, 1.0, 3.0]), max_size=4),
    decay=st.sampled_from([None, 0.8, 1.0]),
    decay_rules=st.dictionaries(st.sampled_from(SELECTORS[:5]), st.sampled_from([0.0, 0.5]), max_size=2),
    muon=st.booleans(),
)
def test_every_parameter_has_the_rate_of_the_first_rule_that_matches(
    model: DetectionModel, rules: dict[str, float], decay: float | None, decay_rules: dict[str, float], muon: bool
) -> None:
    before = default(model, muon)
    try:
        after = layer_rates(model, before, rules, decay, decay_rules)
    except ValueError as error:
        assert "has no effect" in str(error)  # a rule behind those that took all of it
        return
    matched = {rule: set(select(model, rule)) for rule in (*rules, *decay_rules)}
    lr, new_lr = values(model, before, "lr"), values(model, after, "lr")
    wd, new_wd = values(model, before, "weight_decay"), values(model, after, "weight_decay")
    for name in lr:
        factor = next((f for rule, f in rules.items() if name in matched[rule]), 1.0)
        factor *= decay ** (23 - int(name.split(".")[1])) if decay else 1.0
        assert new_lr[name] == pytest.approx(lr[name] * factor, rel=1e-12)
        decay_factor = next((f for rule, f in decay_rules.items() if name in matched[rule]), 1.0)
        assert new_wd[name] == wd[name] * decay_factor
    assert values(model, after, "param_group") == values(model, before, "param_group")
    assert len({group["name"] for group in after}) == len(after)


def test_groups_are_named_after_their_rule_and_kind(model: DetectionModel) -> None:
    after = layer_rates(model, default(model), {"backbone": 0.1, "head.cls": 3.0})
    rates = {group["name"]: group["lr"] for group in after}
    assert rates == pytest.approx(
        {
            "backbone.weight": 0.001, "weight": 0.01, "head.cls.weight": 0.03,
            "backbone.bn": 0.001, "bn": 0.01, "head.cls.bn": 0.03,
            "backbone.bias": 0.001, "bias": 0.01, "head.cls.bias": 0.03,
        }
    )  # fmt: skip
    depth = layer_rates(model, default(model), layer_decay=0.5)
    assert {"depth0.weight", "depth23.bias"} <= {group["name"] for group in depth}


def test_groups_without_a_rule_are_untouched(model: DetectionModel) -> None:
    before = default(model)
    after = {g["name"]: g for g in layer_rates(model, before, {"model.0.conv.weight": 0.5})}
    assert after["bn"] == before[1]
    assert "lr_factor" not in after["weight"]


def test_order_inside_groups_is_kept(model: DetectionModel) -> None:
    place = {id(p): i for group in default(model) for i, p in enumerate(group["params"])}
    for group in layer_rates(model, default(model), {"/cv1/": 0.5}, layer_decay=0.9):
        places = [place[id(p)] for p in group["params"]]
        assert places == sorted(places)


def test_a_rule_that_matches_nothing_is_refused(model: DetectionModel) -> None:
    with pytest.raises(ValueError, match=r"lr_rules: 'bakbone' selects no parameter.*'backbone'"):
        layer_rates(model, default(model), {"bakbone": 0.1})
    with pytest.raises(ValueError, match=r"decay_rules: 'nek' selects no parameter"):
        layer_rates(model, default(model), decay_rules={"nek": 0.1})


def test_a_rule_behind_one_that_takes_all_is_refused(model: DetectionModel) -> None:
    with pytest.raises(ValueError, match=r"'head.cls' has no effect.*earlier rules \('head'\)"):
        layer_rates(model, default(model), {"head": 0.1, "head.cls": 3.0})


def test_a_decay_rule_on_what_does_not_decay_is_refused(model: DetectionModel) -> None:
    with pytest.raises(ValueError, match=r"decay_rules: '\*.bn.\*' has no effect: no parameter"):
        layer_rates(model, default(model), decay_rules={"*.bn.*": 0.0})


def test_layer_decay_needs_layers() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no numbered layers"):
        layer_rates(net, default(net), layer_decay=0.8)
    assert values(net, layer_rates(net, default(net), {"weight": 0.5}), "lr") == {"weight": 0.005, "bias": 0.01}


def test_muons_boosted_groups_keep_their_own_factor(model: DetectionModel) -> None:
    before = default(model, muon=True)
    after = values(model, layer_rates(model, before, {"head": 0.5}), "lr")
    assert {after[n] for n in select(model, "head.cls")} == {0.01 * 3 * 0.5}
    assert {after[n] for n in select(model, "head.box")} == {0.01 * 0.5}
    assert {after[n] for n in select(model, "backbone")} == {0.01}


@pytest.mark.parametrize("name", ["MuSGD", "AdamW", "SGD", "RMSprop"])
def test_ratios_stay_through_warm_up_and_schedule(model: DetectionModel, name: str) -> None:
    component = LayerRates({"backbone": 0.1}, layer_decay=0.9)
    trainer = SmallRun(model=model)
    groups = component.adjust_param_groups(trainer, default(model, muon=name == "MuSGD"))
    optimizer = build_optimizer(name, groups, lr=0.01, momentum=0.9)
    check_groups(model, optimizer)
    plain_optimizer = build_optimizer(name, default(model, muon=name == "MuSGD"), lr=0.01, momentum=0.9)
    for o in (optimizer, plain_optimizer):
        for group in o.param_groups:
            group["initial_lr"] = group["lr"]
    wanted = {n: rate.factor for n, rate in component.rates.items()}
    for warm, multiplier in ((0.25, 1.0), (1.0, 0.7), (1.0, 0.01)):
        for o in (optimizer, plain_optimizer):
            apply_schedule(o, multiplier=multiplier, warm=warm)
        now = values(model, optimizer.param_groups, "lr")
        base = values(model, plain_optimizer.param_groups, "lr")
        assert {n: now[n] / base[n] for n in now} == pytest.approx(wanted)


def test_the_witness_finds_factors_in_the_real_optimizer(model: DetectionModel) -> None:
    component = LayerRates({"backbone": 0.1, "head": 2.0}, decay_rules={"neck": 0.0})
    trainer = SmallRun(model=model)
    groups = component.adjust_param_groups(trainer, default(model))
    trainer.optimizer = torch.optim.AdamW(groups)
    seen = component.witness(trainer)
    assert set(seen) == {"lr_rules", "decay_rules"}
    assert seen["lr_rules"] == pytest.approx(
        {f"{part}.{kind}": f for part, f in (("backbone", 0.1), ("head", 2.0)) for kind in ("weight", "bn", "bias")}
    )
    assert seen["decay_rules"] == {"neck.weight": 0.0}


def test_no_witness_when_someone_else_made_the_groups(model: DetectionModel) -> None:
    component = LayerRates({"backbone": 0.1}, layer_decay=0.9)
    trainer = SmallRun(model=model)
    trainer.optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    assert component.witness(trainer) == {}
    component.adjust_param_groups(trainer, default(model))
    assert component.witness(trainer) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "changes nothing"),
        ({"rules": {}}, "changes nothing"),
        ({"rules": {"backbone": 0.0}}, "freeze='backbone'"),
        ({"rules": {"backbone": -1.0}}, "must be above 0"),
        ({"rules": {"backbone": float("nan")}}, "must be above 0"),
        ({"decay_rules": {"head": -0.1}}, "at least 0"),
        ({"layer_decay": 0.0}, "above 0 and at most 1"),
        ({"layer_decay": 1.5}, "above 0 and at most 1"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerRates(**arguments)


def test_options_make_the_same_component() -> None:
    assert LayerRates.from_options(TrainOptions()) is None
    options = TrainOptions(lr_rules={"backbone": 0.1}, layer_decay=0.8, decay_rules={"head": 0})
    component = LayerRates.from_options(options)
    assert component is not None
    assert (component.rules, component.layer_decay, component.decay_rules) == ({"backbone": 0.1}, 0.8, {"head": 0.0})
    assert component.describe(SmallRun()) == {
        "layer rates": "backbone x 0.1",
        "layer decay": "x 0.8 per level below the head",
        "decay rules": "head x 0",
    }


@pytest.mark.parametrize("muon", [False, True])
def test_factors_multiply_over_all_who_set_them(model: DetectionModel, muon: bool) -> None:
    """A family's own ratio, a rule and the depth, one over the other: the warm-up of biases knows the product."""
    first = layer_rates(model, default(model, muon), {"backbone": 0.1})
    groups = layer_rates(model, first, {"backbone.p3": 0.5, "head": 3.0}, layer_decay=0.9)
    lr, factor = values(model, groups, "lr"), {}
    for group in groups:
        names = {id(p): n for n, p in model.named_parameters()}
        factor |= {names[id(p)]: group["lr_factor"] for p in group["params"]}
    for name in lr:
        depth = 0.9 ** (23 - int(name.split(".")[1]))
        wanted = depth * (0.1 if name in select(model, "backbone") else 1.0)
        wanted *= 0.5 if name in select(model, "backbone.p3") else 3.0 if name in select(model, "head") else 1.0
        boosted = 3.0 if muon and name in select(model, "head.cls") else 1.0
        assert lr[name] == pytest.approx(0.01 * wanted * boosted), name
        assert factor[name] == pytest.approx(wanted), "factors on a rate, which the rate itself is not"
    optimizer = torch.optim.SGD(groups, lr=0.01)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    apply_schedule(optimizer, multiplier=1.0, warm=0.0, bias_lr=0.2)
    started = values(model, optimizer.param_groups, "lr")
    for name, value in values(model, groups, "param_group").items():
        assert started[name] == pytest.approx(0.2 * factor[name] if value == "bias" else 0.0), name


@pytest.mark.parametrize(
    ("arguments", "decided"),
    [
        ({"rules": {"backbone.p3": 0.1}}, True),
        ({"rules": {"head": 0.1}}, False),
        ({"layer_decay": 0.9}, True),
        ({"decay_rules": {"backbone": 0.0}}, False),
    ],
)
def test_whether_rates_of_a_part_are_decided_here(
    model: DetectionModel, arguments: dict[str, Any], decided: bool
) -> None:
    assert LayerRates(**arguments).sets_rate_of(model, "backbone") is decided
