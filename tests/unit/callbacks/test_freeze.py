"""Freezing: pure functions against plain loops, and the component in a small loop of its own."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyas.callbacks.freeze import Freeze, Phase, frozen_at, ramp_factor, set_frozen
from eyas.callbacks.rates import LayerRates
from eyas.config import TrainOptions
from eyas.files import digest
from eyas.models import DetectionModel
from eyas.nn.norms import hold_norms, norm_marks, norms, norms_within
from eyas.optim import parameter_groups
from eyas.optim.select import select
from small_run import Net, SmallRun


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> DetectionModel:
    return DetectionModel(tiny_model, nc=3, verbose=False)


class Trainer(SmallRun):
    """A run with one component; ``on_epoch`` is called at the start of each epoch."""

    def __init__(self, freeze: Freeze, epochs: int = 6, model: nn.Module | None = None, **hooks: Any) -> None:
        self.adjusts = hooks.get("adjust", True)
        super().__init__(freeze, epochs=epochs, model=model)
        self.freeze = freeze
        self.on_epoch: Callable[[Any], None] = hooks.get("on_epoch", lambda trainer: None)
        self.callbacks.add_function("on_train_epoch_start", lambda trainer: self.on_epoch(trainer))

    def groups(self) -> list[dict[str, Any]]:
        return super().groups() if self.adjusts else parameter_groups(self.model, lr=0.05, decay=0.01)


def tensors(model: nn.Module, prefix: str = "") -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items() if k.startswith(prefix)}


def trainable(model: nn.Module) -> set[str]:
    return {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}


# -- pure functions ----------------------------------------------------------------------------------------------------
def test_only_changes_are_reported(detector: DetectionModel) -> None:
    model = copy.deepcopy(detector)
    mine = "model.0.conv.weight"
    model.get_parameter(mine).requires_grad_(False)
    names = select(model, 2)
    assert set_frozen(model, names, True) == [n for n in names if n != mine]
    assert set_frozen(model, names, True) == []
    assert set_frozen(model, names, False) == list(names)


def test_a_frozen_parameter_loses_its_gradient() -> None:
    """Weight decay moves every parameter that has a gradient, even one of zeros."""
    model = Net()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    before = tensors(model, "model.0.")
    set_frozen(model, select(model, 1), True)
    optimizer.step()
    assert tensors(model, "model.0.") == before


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d])
def test_every_normalisation_with_statistics_is_held(kind: type[nn.Module]) -> None:
    """peers.md 1e trap 4: SyncBatchNorm is no BatchNorm2d."""

    class Own(kind):  # type: ignore[misc, valid-type]
        pass

    model = nn.ModuleDict({"a": nn.Sequential(kind(2), Own(2)), "b": kind(2), "group": nn.GroupNorm(1, 2)}).train()
    assert hold_norms(model, ["a."]) == 2
    assert [m.training for m in (model["a"][0], model["a"][1], model["b"], model["group"])] == [
        False,
        False,
        True,
        True,
    ]
    assert hold_norms(model, []) == 0


def test_substrings_may_stand_anywhere_in_a_name(detector: DetectionModel) -> None:
    """Spec core A.5: `model.0.` holds the first layer, `.dfl` nothing; a caret ties a part to the start."""
    model = copy.deepcopy(detector).train()
    assert hold_norms(model, [".dfl"]) == 0
    expected = [n for n, _ in norms(model) if "model.0." in n + "." or "cv3" in n + "."]
    assert hold_norms(model, ["model.0.", "cv3"]) == len(expected)
    assert [n for n, m in norms(model) if not m.training] == expected
    assert hold_norms(model, ["^odel.0."]) == 0


@pytest.mark.parametrize("what", ["backbone", 10, "head.cls", ["model.4", "neck"], "*.bn.*", "model.2.cv1"])
def test_marks_hold_exactly_the_normalisation_within(detector: DetectionModel, what: Any) -> None:
    model = copy.deepcopy(detector).train()
    names = set(select(model, what))
    expected = [n for n, m in norms(model) if {f"{n}.{key}" for key, _ in m.named_parameters()} <= names]
    assert norms_within(model, names) == expected
    assert hold_norms(model, norm_marks(model, expected)) == len(expected)
    assert [n for n, m in norms(model) if not m.training] == expected


def test_rows_are_marked_as_a_whole(detector: DetectionModel) -> None:
    held = norms_within(detector, select(detector, 3))
    assert norm_marks(detector, held) == ["model.0.", "model.1.", "model.2."]


def test_marks_are_exact_where_names_are_short() -> None:
    """In a plain Sequential ``1.`` is part of ``11.`` and of ``0.1.``."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(12)), nn.BatchNorm1d(2))
    for name, _ in norms(model):
        assert hold_norms(model.train(), norm_marks(model, [name])) == 1, name


def test_normalisation_without_parameters_follows_what_is_around_it() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), nn.Linear(2, 2))
    assert norms_within(model, ["0.0.weight", "0.0.bias"]) == ["0.1"]
    assert norms_within(model, ["0.0.weight"]) == []


@given(
    start=st.integers(0, 12), length=st.none() | st.integers(1, 12), epoch=st.integers(0, 20), run=st.integers(1, 20)
)
def test_a_phase_is_on_from_start_to_end(start: int, length: int | None, epoch: int, run: int) -> None:
    phases = [Phase("a"), Phase("b", length, start)]
    expected = {0} | ({1} if epoch in range(start, 10**6 if length is None else start + length) else set())
    assert frozen_at(phases, epoch, run) == expected
    assert frozen_at([p.resolved(run) for p in phases], epoch, 3 * run) == expected


@pytest.mark.parametrize(
    ("share", "run", "ends"), [(0.5, 10, 5), (0.25, 10, 2), (0.01, 10, 1), (1, 10, 1), (0.99, 3, 3)]
)
def test_below_one_is_a_share_of_the_run(share: float, run: int, ends: int) -> None:
    assert Phase("a", share).resolved(run).end() == ends
    assert [bool(frozen_at([Phase("a", share)], e, run)) for e in range(run)] == [e < ends for e in range(run)]


@given(end=st.integers(1, 5), ramp=st.sampled_from([0.0, 0.5, 1.0, 3.0]), done=st.floats(0.1, 12))
def test_a_ramp_rises_in_a_line(end: int, ramp: float, done: float) -> None:
    factor = ramp_factor([Phase("a", end, 0, ramp)], done)
    if done <= end or done >= end + ramp:
        assert factor == 1.0
    else:
        assert factor == pytest.approx((done - end) / ramp)


def test_a_part_of_two_phases_follows_the_latest() -> None:
    phases = [Phase("a", 2, 0, ramp=2), Phase("a", 2, 6, ramp=4)]
    assert [ramp_factor(phases, done) for done in (1, 2, 3, 4, 6, 8, 9, 12)] == [1, 1, 0.5, 1, 1, 1, 0.25, 1]


def test_the_digest_sees_every_byte() -> None:
    a = {"w": torch.arange(4.0).reshape(2, 2), "n": torch.tensor(3), "h": torch.zeros(2, dtype=torch.bfloat16)}
    same = {k: v.clone() for k, v in a.items()}
    assert digest(a.items()) == digest(same.items())
    for key in a:
        changed = {k: v.clone() for k, v in a.items()}
        changed[key] += 1
        assert digest(changed.items()) != digest(a.items())
    assert digest([("w", torch.tensor(0.0))]) != digest([("w", torch.tensor(-0.0))])
    image = torch.randn(2, 3, 4, 4)
    assert digest([("w", image)]) == digest([("w", image.to(memory_format=torch.channels_last))])


# -- the component -----------------------------------------------------------------------------------------------------
def test_frozen_tensors_and_buffers_stay_byte_identical_in_model_and_average() -> None:
    """users.md row 5, architecture trap 6."""
    trainer = Trainer(Freeze("backbone"))
    before = {part: tensors(trainer.model, part) for part in ("model.0.", "model.1.", "model.2.")}
    trainer.fit()
    for model in (trainer.model, trainer.ema.ema):
        for part in ("model.0.", "model.1."):
            assert tensors(model, part) == before[part]
        assert tensors(model, "model.2.") != before["model.2."]
    assert trainer.held == [2] * 6


def test_synchronised_statistics_are_held_too() -> None:
    model = Net(sync=True)
    trainer = Trainer(Freeze(1), model=model)
    trainer.freeze.on_pretrain_routine_end(trainer)
    model.train()
    assert hold_norms(model, trainer.freeze_layer_names) == 1
    assert not model.model[0][1].training
    assert model.model[1][1].training


def test_statistics_move_when_asked_to() -> None:
    trainer = Trainer(Freeze("backbone", norm="update"))
    before = tensors(trainer.model)
    trainer.fit()
    assert trainer.freeze_layer_names == [".dfl"]
    moved = {key for key, value in tensors(trainer.model, "model.0.").items() if value != before[key]}
    assert moved == {"model.0.1.running_mean", "model.0.1.running_var", "model.0.1.num_batches_tracked"}
    assert trainer.freeze.witness(trainer)["freeze_norm"] == {"held": 0, "updated": 2}


def test_parameters_learn_in_the_very_next_step_after_the_switch(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(Freeze("backbone", 2))
    before = tensors(trainer.model, "model.0.")
    with caplog.at_level(logging.INFO, logger="eyas"):
        trainer.fit(until=2)
        assert tensors(trainer.model, "model.0.") == before
        trainer.start_epoch, trainer.train_loader.batches = 2, 1
        trainer.fit(until=3)
    assert all(value != before[key] for key, value in tensors(trainer.model, "model.0.").items() if "bias" not in key)
    assert trainer.held == [2, 2, 0]
    assert trainer.freeze_layer_names == [".dfl"]
    assert [record.message for record in caplog.records] == [
        "Epoch 1: froze backbone (8 tensors)",
        "Epoch 3: unfroze backbone (8 tensors)",
    ]


def test_every_parameter_is_in_the_optimizer_from_the_start() -> None:
    """peers.md 1e trap 1, with rates per layer beside it."""
    freeze, rates = Freeze("backbone", 2, ramp=1), LayerRates({"backbone": 0.1})
    model = Net()
    trainer = SmallRun(model=model, epochs=5)
    groups = rates.adjust_param_groups(
        trainer, freeze.adjust_param_groups(trainer, parameter_groups(model, lr=1, decay=0))
    )
    inside = sorted(id(p) for group in groups for p in group["params"])
    assert inside == sorted(id(p) for p in model.parameters())
    assert {group["name"] for group in groups} >= {"backbone.weight/frozen until 2", "weight"}
    for group in groups:
        frozen = group["name"].startswith("backbone.")
        assert (group.get("frozen_until"), group["lr"]) == ((2, 0.1) if frozen else (None, 1))


@pytest.mark.parametrize("ramp", [0.0, 2.0])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_resumed_before_at_and_after_the_switch(cut: int, ramp: float) -> None:
    """users.md row 7, peers.md 1e trap 3, architecture trap 7."""

    def make() -> Trainer:
        return Trainer(Freeze(phases=[{"what": "backbone", "epochs": 0.5, "ramp": ramp}]))

    straight = make().fit()
    first = make().fit(until=cut)
    second = make().resume(first.state()).fit()
    assert tensors(second.model) == tensors(straight.model)
    assert tensors(second.ema.ema) == tensors(straight.ema.ema)
    assert first.rates + second.rates == straight.rates
    assert second.freeze.witness(second) == straight.freeze.witness(straight)
    assert second.freeze_layer_names == straight.freeze_layer_names


def test_a_run_that_grows_does_not_freeze_again() -> None:
    """Half of 4 epochs was over after 2; going on to 12 epochs does not make it 6."""
    first = Trainer(Freeze("backbone", 0.5), epochs=4).fit()
    second = Trainer(Freeze("backbone", 0.5), epochs=12).resume(first.state())
    second.fit(until=5)
    assert trainable(second.model) == {"0", "1", "2"}


def script_05(trainer: Any) -> None:
    if trainer.epoch == 2:
        for p in trainer.model.parameters():
            p.requires_grad = True
        trainer.freeze_layer_names = [".dfl"]


def test_a_users_own_unfreezing_is_not_undone() -> None:
    """What the guide does: freeze without an end, and a function that ends it."""
    trainer = Trainer(Freeze(2), on_epoch=script_05).fit(until=3)
    assert trainable(trainer.model) == {"0", "1", "2"}
    assert trainer.held == [2, 2, 0]
    resumed = Trainer(Freeze(2), on_epoch=script_05).resume(trainer.state()).fit()
    straight = Trainer(Freeze(2), on_epoch=script_05).fit()
    assert tensors(resumed.model) == tensors(straight.model)
    assert trainable(resumed.model) == {"0", "1", "2"}
    assert "freeze" in resumed.freeze.witness(resumed)


def test_requires_grad_of_others_is_never_touched() -> None:
    """users.md row 6."""
    model = Net()
    model.model[0][0].weight.requires_grad_(False)
    before = tensors(model, "model.0.0.weight")
    trainer = Trainer(Freeze("backbone", 2), model=model).fit()
    assert not model.model[0][0].weight.requires_grad
    assert model.model[0][0].bias.requires_grad
    assert tensors(trainer.model, "model.0.0.weight") == before


def test_phases_hand_over() -> None:
    phases = [{"what": "backbone", "epochs": 2}, {"what": 1, "epochs": 2, "start": 2}, {"what": "head", "start": 4}]
    trainer = Trainer(Freeze(phases=phases))
    seen = []
    trainer.on_epoch = lambda t: seen.append((trainable(t.model), list(t.freeze_layer_names)))
    trainer.fit()
    dfl = ".dfl"
    assert seen[::2] == [({"2"}, [dfl, "model.0.", "model.1."]), ({"1", "2"}, [dfl, "model.0."]), ({"0", "1"}, [dfl])]
    assert seen[1::2] == seen[::2]
    rows = trainer.freeze.describe(trainer)
    assert rows == {
        "freeze 1": "backbone until epoch 2 (8 tensors, 2 norms held)",
        "freeze 2": "first 1 layers from epoch 3 until epoch 4 (4 tensors, 1 norms held)",
        "freeze 3": "head from epoch 5 (2 tensors, 0 norms held)",
    }
    assert trainer.freeze.stages(trainer) == [("backbone frozen", 0, 2), ("1 frozen", 2, 4), ("head frozen", 4, 6)]
    spans = trainer.freeze.frozen_spans(trainer)
    assert [len(names) for names, _ in spans] == [8, 4, 2]
    assert [when for _, when in spans] == [" until epoch 2", " from epoch 3 until epoch 4", " from epoch 5"]


def test_overlapping_phases_unfreeze_only_at_the_last_end() -> None:
    phases = [{"what": "backbone", "epochs": 3}, {"what": 1, "start": 1, "epochs": 4}]
    trainer = Trainer(Freeze(phases=phases))
    seen = []
    trainer.on_epoch = lambda t: seen.append(trainable(t.model))
    trainer.fit()
    assert seen == [{"2"}] * 3 + [{"1", "2"}] * 2 + [{"0", "1", "2"}]


def test_a_ramp_raises_the_rate_of_the_unfrozen_part_only() -> None:
    trainer = Trainer(Freeze("backbone", 2, ramp=2))
    trainer.fit()
    names = [group["name"] for group in trainer.optimizer.param_groups]
    frozen = names.index("weight/frozen until 2")
    rates = [row[frozen] / 0.05 for row in trainer.rates]
    assert rates == pytest.approx([1.0] * 6 + [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0] + [1.0] * 6)
    assert {row[names.index("weight")] for row in trainer.rates} == {0.05}
    assert trainer.freeze.witness(trainer)["freeze_ramp"] == {"groups": [n for n in names if "frozen" in n]}


def test_without_a_ramp_groups_stay_what_they_are() -> None:
    model = Net()
    groups = parameter_groups(model, lr=0.1, decay=0.01)
    assert Freeze(1, 2).adjust_param_groups(SmallRun(model=model, epochs=5), groups) == groups


def test_a_ramp_on_a_users_own_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"freeze_ramp has no effect: build_optimizer\(\) made its own groups"):
        Trainer(Freeze("backbone", 2, ramp=1), adjust=False).fit()
    Trainer(Freeze("backbone", 2), adjust=False).fit()


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (Freeze("*"), "nothing would be left to train in epoch 1: all 10 trainable parameters"),
        (Freeze(phases=[{"what": "head"}, {"what": 2, "start": 4}]), "nothing would be left to train in epoch 5"),
        (Freeze("backbone", 7), "unfrozen after epoch 7, but the run has 6 epochs"),
        (Freeze("backbone", 6, ramp=1), "unfrozen after epoch 6"),
        (Freeze(phases=[{"what": 1, "start": 6}]), "frozen from epoch 7 on"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(freeze: Freeze, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(freeze).fit()


def test_a_selector_without_a_match_is_refused_while_building() -> None:
    with pytest.raises(ValueError, match="Did you mean 'backbone'"):
        Trainer(Freeze("bakcbone"))


def test_the_witness_is_the_hash_at_first_and_now() -> None:
    trainer = Trainer(Freeze("backbone", 4)).fit(until=1)
    (seen,) = trainer.freeze.witness(trainer)["freeze"]  # type: ignore[misc]
    assert seen["identical"] is True
    assert seen["sha256"] == seen["sha256 at first"] == digest(trainer.freeze.tensors_of(trainer.model, 0))
    assert (seen["tensors"], seen["frozen"], seen["norms held"]) == (8, 8, 2)
    assert trainer.freeze.witness(trainer)["freeze_epochs"] == {"until epoch": [4]}
    with torch.no_grad():
        trainer.model.model[0][1].running_mean += 1e-3
    assert "freeze" not in trainer.freeze.witness(trainer)


def test_the_witness_after_the_end_is_that_of_the_end() -> None:
    trainer = Trainer(Freeze("backbone", 2)).fit()
    (seen,) = trainer.freeze.witness(trainer)["freeze"]  # type: ignore[misc]
    assert (seen["identical"], seen["frozen"], seen["norms held"]) == (True, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either what to freeze or a list of phases"),
        ({"what": 1, "phases": [{"what": 1}]}, "either what to freeze or a list of phases"),
        ({"phases": [{"what": 1}], "epochs": 2}, "belong into each phase"),
        ({"phases": []}, "empty"),
        ({"phases": [1]}, "a phase is a mapping"),
        ({"phases": [{"what": 1, "epoch": 3}]}, "no 'epoch'. Did you mean 'epochs'"),
        ({"phases": [{"epochs": 3}]}, "does not say what"),
        ({"what": 1, "epochs": 1.5}, "must be whole"),
        ({"what": 1, "epochs": 0}, "freezes nothing"),
        ({"what": 1, "epochs": -1}, "at least 0"),
        ({"what": 1, "epochs": True}, "must be a number"),
        ({"what": 1, "epochs": float("nan")}, "must be a number"),
        ({"what": 1, "ramp": 1}, "never unfrozen"),
        ({"what": 1, "epochs": 2, "ramp": -1}, "at least 0"),
        ({"what": 1, "norm": "keep"}, "'hold' or 'update'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Freeze(**arguments)


def test_options_make_the_same_component() -> None:
    def phases(**options: Any) -> list[Phase]:
        component = Freeze.from_options(TrainOptions(**options))
        assert component is not None
        return component.phases

    assert Freeze.from_options(TrainOptions()) is None
    assert phases(freeze="backbone", freeze_epochs=5) == Freeze("backbone", 5).phases
    assert phases(freeze=10, freeze_epochs=0.5, freeze_ramp=2) == Freeze(10, 0.5, ramp=2.0).phases
    assert phases(freeze=[0, "neck"], freeze_norm="update") == Freeze([0, "neck"], norm="update").phases
    two = [{"what": "backbone", "epochs": 2}, {"what": 1, "start": 2, "norm": "update"}]
    assert phases(freeze=two) == Freeze(phases=two).phases
    assert phases(freeze=[{"what": 1}], freeze_norm="update") == Freeze(1, norm="update").phases


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_epochs": 5}, "freeze_epochs without freeze"),
        ({"freeze_ramp": 1.0, "freeze_norm": "update"}, "freeze_ramp and freeze_norm without freeze"),
        ({"freeze": [{"what": 1}], "freeze_epochs": 5}, "freeze_epochs and the phases in freeze decide the same"),
        ({"freeze": [{"what": 1, "norm": "hold"}], "freeze_norm": "update"}, "freeze_norm and the phases in freeze"),
        ({"freeze": [{"what": 1}, 3]}, "mixes phases with layers"),
    ],
)
def test_options_that_fight_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Freeze.from_options(TrainOptions(**options))


@settings(deadline=None, max_examples=40)
@given(
    spans=st.lists(
        st.tuples(st.sampled_from([1, "model.1", "backbone"]), st.integers(0, 5), st.integers(1, 5)), max_size=3
    ),
    cut=st.integers(1, 5),
)
def test_what_is_frozen_is_a_function_of_progress(spans: list[tuple[Any, int, int]], cut: int) -> None:
    """Whatever the phases, straight or resumed, each epoch has exactly those parameters frozen that a phase covers."""
    phases = [{"what": w, "start": s, "epochs": min(n, 6 - s)} for w, s, n in spans] or [{"what": 1}]
    seen: dict[int, set[str]] = {}

    def record(trainer: Any) -> None:
        seen[trainer.epoch] = {n for n, p in trainer.model.named_parameters() if not p.requires_grad}

    first = Trainer(Freeze(phases=phases), on_epoch=record).fit(until=cut)
    second = Trainer(Freeze(phases=phases), on_epoch=record).resume(first.state()).fit()
    for epoch, frozen in seen.items():
        on = [p for p in phases if epoch in range(p.get("start", 0), p.get("start", 0) + p.get("epochs", 99))]
        assert frozen == {name for p in on for name in select(second.model, p["what"])}, epoch
