"""Selectors, checked against the plain loop over names that each stands for."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyas.models import DetectionModel
from eyas.optim.groups import parameter_groups, split_groups
from eyas.optim.select import depths, layer_count, select


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DetectionModel:
    return DetectionModel(tiny_model, nc=3, verbose=False)


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))


def test_sections_are_those_of_the_model(model: DetectionModel) -> None:
    for section, prefixes in model.sections().items():
        assert select(model, section) == tuple(n for n in names(model) if n.startswith(prefixes)), section
    every = [n for part in ("backbone", "neck", "head") for n in select(model, part)]
    assert every == names(model)


def test_the_backbone_has_eleven_layers_whoever_counts_ten(model: DetectionModel) -> None:
    """peers.md 1e trap 5: freeze=10 leaves the last backbone layer out; the section does not."""
    assert len(model.yaml["backbone"]) == 11
    assert select(model, "backbone") == select(model, 11)
    assert set(select(model, "backbone")) - set(select(model, 10)) == set(select(model, "model.10"))


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 24))
def test_a_number_counts_first_layers(model: DetectionModel, count: int) -> None:
    expected = tuple(n for n in names(model) if int(n.split(".")[1]) < count)
    assert select(model, count) == expected


@settings(deadline=None, max_examples=40)
@given(layers=st.lists(st.integers(0, 23), min_size=1))
def test_a_list_names_single_layers(model: DetectionModel, layers: list[int]) -> None:
    expected = tuple(n for n in names(model) if int(n.split(".")[1]) in layers)
    if expected:
        assert select(model, layers) == expected == select(model, [str(i) for i in layers])
    else:  # only rows without parameters, such as Concat
        with pytest.raises(ValueError, match="selects no parameter"):
            select(model, layers)


@pytest.mark.parametrize("pattern", ["model.*.bn.*", "*.weight", "model.[0-4].*", "model.2?.*"])
def test_a_glob_is_matched_against_whole_names(model: DetectionModel, pattern: str) -> None:
    assert select(model, pattern) == tuple(n for n in names(model) if fnmatchcase(n, pattern))


@pytest.mark.parametrize("pattern", [r"bn\.bias$", r"^model\.(0|1)\.", "cv[23]"])
def test_a_regex_is_searched(model: DetectionModel, pattern: str) -> None:
    assert select(model, f"/{pattern}/") == tuple(n for n in names(model) if re.search(pattern, n))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_prefix_ends_at_a_dot(model: DetectionModel, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names(model)))
    parts = name.split(".")
    prefix = ".".join(parts[: data.draw(st.integers(2, len(parts)))])
    expected = tuple(n for n in names(model) if n == prefix or n.startswith(prefix + "."))
    assert select(model, prefix) == expected == select(model, prefix + ".")
    assert select(model, prefix.removeprefix("model.")) == expected if not prefix[6:].isdecimal() else True


def test_items_of_lists_follow_the_spec(model: DetectionModel) -> None:
    """Spec core A.5: item x of a list stands for the substring ``model.{x}.``."""
    items: list[int | str] = [0, "23.cv2", 4]
    substrings = [f"model.{x}." for x in items]
    assert select(model, items) == tuple(n for n in names(model) if any(s in n for s in substrings))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_order_is_the_models(model: DetectionModel, data: st.DataObject) -> None:
    items = data.draw(st.permutations(["head.cls", "neck", "backbone.p3", 0, "/bias$/"]))
    assert select(model, items) == select(model, sorted(items, key=str))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("bakcbone", "Did you mean 'backbone'"),
        ("model.23.cv9", "Did you mean 'model.23.cv"),
        ("/nothing_here/", "selects no parameter of DetectionModel"),
        ("/(/", "not a regular expression"),
        ("*.nothing", "selects no parameter"),
        ("10", r"first 10 layers, \[10\] means layer 10"),
        ("", "selects no parameter"),
        (".", "selects no parameter"),
        (0, "give 1 to 24"),
        (25, "this model has 24"),
        ([24], "layers 0 to 23"),
        ([-1], "layers 0 to 23"),
        ([], "selects no parameter"),
        ([True], "neither the number of a layer nor a name"),
        ([0, "nek"], "Did you mean 'neck'"),
        (True, "selects no layers"),
        (1.5, "selects no layers"),
        (None, "selects no layers"),
    ],
)
def test_a_selector_without_a_match_is_refused(model: DetectionModel, what: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(model, what)  # type: ignore[arg-type]


def test_any_module_has_names() -> None:
    net = plain()
    assert select(net, "2.0") == ("2.0.weight", "2.0.bias")
    assert select(net, "*.bias") == tuple(n for n in names(net) if n.endswith(".bias"))
    assert select(net, "/^1/") == ("1.weight", "1.bias")
    for numbered in (3, [0]):
        with pytest.raises(ValueError, match="no numbered layers"):
            select(net, numbered)


class Wrapper(nn.Module):
    """Looks like a data-parallel wrapper."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_wrappers_are_looked_through(model: DetectionModel) -> None:
    assert select(Wrapper(model), "head") == select(model, "head")
    assert depths(Wrapper(model)) == depths(model)


def test_depth_is_the_row_of_the_layer_table(model: DetectionModel) -> None:
    found = depths(model)
    assert list(found) == names(model)
    assert found == {n: int(n.split(".")[1]) for n in names(model)}
    assert found["model.0.conv.weight"] == 0
    assert {found[n] for n in select(model, "head")} == {23} == {layer_count(model) - 1}


class Levelled(nn.Module):
    """Names its levels itself: ``a`` with ``b``, then ``c``; ``d`` is in none."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.a, self.b, self.d = (nn.Linear(1, 1, bias=False) for _ in range(4))

    def parameter_levels(self) -> tuple[tuple[str, ...], ...]:
        return ("a.", "b."), ("c.",)


def test_numbers_count_the_levels_of_a_model_that_names_them() -> None:
    net = Levelled()
    assert select(net, 1) == ("a.weight", "b.weight") == select(net, [0]) == select(net, ["0"])
    assert select(net, [1]) == ("c.weight", "d.weight"), "what is in no level is at the top"
    assert select(net, 2) == tuple(names(net)) == select(Wrapper(net), [0, 1])
    for what in (1, 2):
        assert set(select(net, what)) == {n for n, level in depths(net).items() if level < what}
    for wrong, message in (
        (0, "give 1 to 2"),
        (3, "this model has 2"),
        ([2], "layers 0 to 1"),
        ([-1], "layers 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            select(net, wrong)


def test_what_lies_outside_the_rows_is_at_the_top() -> None:
    net = nn.Module()
    net.model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net.scale = nn.Parameter(torch.ones(1))
    assert depths(net) == {"scale": 2, "model.0.weight": 0, "model.0.bias": 0, "model.2.weight": 2, "model.2.bias": 2}


def test_a_model_without_rows_has_no_depth() -> None:
    with pytest.raises(ValueError, match="Linear has no numbered layers"):
        depths(nn.Linear(2, 2))


@settings(deadline=None, max_examples=40)
@given(keys=st.lists(st.integers(0, 3), min_size=6, max_size=6), sizes=st.lists(st.integers(0, 4), max_size=4))
def test_splitting_keeps_every_parameter_once(keys: list[int], sizes: list[int]) -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(6)]
    key = {id(p): k for p, k in zip(parameters, keys, strict=True)}
    cuts = [0, *sorted(min(6, s + i) for i, s in enumerate(sizes)), 6]
    groups = [{"params": parameters[a:b], "lr": 0.1, "x": i} for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    before = [dict(g) for g in groups]
    split = split_groups(groups, lambda p: key[id(p)])
    assert groups == before
    assert sorted(id(p) for _, g in split for p in g["params"]) == sorted(map(id, parameters))
    for k, group in split:
        assert group["params"]
        assert all(key[id(p)] == k for p in group["params"])
        places = [[id(q) for q in parameters].index(id(p)) for p in group["params"]]
        assert places == sorted(places)
        source = groups[group["x"]]
        assert {name: v for name, v in group.items() if name != "params"} == {
            name: v for name, v in source.items() if name != "params"
        }


def test_one_key_changes_nothing() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.BatchNorm1d(2)))
    groups = parameter_groups(net, lr=0.1, decay=0.01)
    assert [group for _, group in split_groups(groups, lambda p: None)] == groups


def test_a_name_at_the_start_wins_over_the_same_name_behind_model() -> None:
    net = nn.ModuleDict({"neck": nn.Linear(2, 2), "model": nn.ModuleDict({"neck": nn.Linear(2, 2)})})
    assert select(net, "neck") == ("neck.weight", "neck.bias")
    assert select(net["model"], "neck") == ("neck.weight", "neck.bias")


def test_what_lies_outside_the_rows_is_as_deep_as_the_head() -> None:
    net = nn.ModuleDict({"model": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), "extra": nn.Linear(2, 2)})
    found = {name.rpartition(".")[0]: depth for name, depth in depths(net).items()}
    assert found == {"model.0": 0, "model.2": 2, "extra": 2}
