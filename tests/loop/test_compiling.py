"""Compiled steps are the steps as they are written: same losses, statistics and weights, with whatever is combined.

A backend that generates no code stands in for inductor, whose compilers take minutes: it traces forward, and runs what
was traced. Which code a graph becomes is torch's to test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, fx, nn

from eyas.callbacks import Callback
from eyas.families import family_of
from eyas.losses import DenseCriterion
from eyas.models import DetectionModel, model_table
from eyas.nn.sync_bn import SyncBatchNorm
from eyas.train import DetectionTrainer, compiling
from graphs import Graphs

# Graphs of a loss: two for each of two branches; the cost of pairs, and the losses of two stacks.
LOSS = {"yolo": 4, "rtdetr": 3}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    backend = Graphs()
    monkeypatch.setattr(compiling, "SETTINGS", {"backend": backend})
    torch.compiler.reset()
    return backend


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, str]:
    """Tables of both families: three convolutions, a block, and a head with one level; tracing them takes seconds."""
    rows: list[Any] = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16)] + [[-1, 1, "C3k2", [16]]]
    decoder = [[3], 1, "RTDETRDecoder", ["nc", 16, 30, 2, 2, 2, 32, 0.0, "relu", -1, 20]]
    for family, head in {"yolo": [[3], 1, "Detect", ["nc"]], "rtdetr": decoder}.items():
        table = {"nc": 10, "end2end": True, "reg_max": 1, "backbone": rows, "head": [head]}
        (tmp_path / f"{family}.yaml").write_text(yaml.safe_dump(table))
    return {family: str(tmp_path / f"{family}.yaml") for family in ("yolo", "rtdetr")}


class Counted(DetectionModel):
    """Keeps how often its loss is asked, and of what."""

    asked = 0

    def loss(self, batch: Any, preds: Any = None) -> Any:
        self.asked += 1
        return super().loss(batch, preds)


class ReadsFiles(DetectionModel):
    def predict_batch(self, batch: Any) -> Any:
        if "im_file" not in batch:
            raise ArithmeticError("no files")
        return super().predict_batch(batch)


class Steps(Callback):
    """Keeps the loss of every step, and how many graphs had run by then."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs
        self.losses: list[float] = []
        self.ran: list[int] = []

    def on_train_batch_end(self, trainer: Any) -> None:
        self.losses.append(float(trainer.loss.detach()))
        self.ran.append(self.graphs.ran)


def both_ways(made: Callable[..., Any], graphs: Graphs, **changes: Any) -> tuple[Any, Any, Steps]:
    """Train as written and compiled; losses and all that is averaged are the same but for rounding."""
    trained, steps = [], []
    for compiles in (False, True):
        watch = Steps(graphs)
        trainer = made(compile=compiles, name=f"compile_{compiles}", val=False, **changes)(watch)
        trainer.train()
        trained.append(trainer)
        steps.append(watch)
    assert len(steps[1].losses) == len(steps[0].losses) > 0
    torch.testing.assert_close(torch.tensor(steps[1].losses), torch.tensor(steps[0].losses), rtol=1e-3, atol=1e-3)
    written, compiled = (trainer.ema.ema.state_dict() for trainer in trained)
    for key, value in written.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-3, msg=key)
    return trained[0], trained[1], steps[1]


def maker(options: Any, model: str, cls: Any = None) -> Callable[..., Any]:
    trainer = cls or family_of(model_table(model)).trainer
    return lambda **changes: lambda watch: trainer(overrides=options(model=model, **changes), _callbacks=[watch])


def test_with_frozen_layers_accumulation_and_batches_of_other_sizes(options: Any, networks: Any, graphs: Any) -> None:
    """14 images leave 2 for the last of 4 batches of 4; every second batch steps; epoch 2 trains the backbone too."""
    made = maker(options, networks["yolo"])
    short = {"epochs": 2, "batch": 4, "fraction": 0.22, "nbs": 8, "optimizer": "SGD", "lr0": 1e-3}
    _, compiled, steps = both_ways(made, graphs, freeze="backbone", freeze_epochs=1, **short)
    assert compiled.compiled.refused == ""
    ran = [after - before for before, after in pairwise(steps.ran)]
    # Rows, head and loss; in the short batch of an epoch the network runs as it is written.
    assert ran[:3] == [2 + LOSS["yolo"], 2 + LOSS["yolo"], LOSS["yolo"]]
    assert ran[4:] == ran[:3]  # between the epochs, the network with all its parameters was compiled


def test_a_set_detector_with_denoising_in_bfloat16(options: Any, networks: Any, graphs: Any) -> None:
    made = maker(options, networks["rtdetr"])
    short = {"epochs": 1, "fraction": 0.5, "multi_scale": 0.0, "optimizer": "SGD", "lr0": 1e-3}
    _, compiled, steps = both_ways(made, graphs, amp="bf16", **short)
    assert compiled.compiled.refused == ""
    each = 3 + LOSS["rtdetr"]  # rows, two layers of the decoder, and the loss
    assert steps.ran[-1] - steps.ran[0] == each * (len(steps.ran) - 1)


@pytest.mark.parametrize("family", ["yolo", "rtdetr"])
def test_over_fifty_steps_losses_are_the_same(family: str, options: Any, networks: Any, graphs: Any) -> None:
    """With sizes that change, bfloat16, accumulation, and a backbone that is frozen and thawed."""
    made = maker(options, networks[family])
    mixed = {"multi_scale": 0.5, "amp": "bf16", "freeze": "backbone", "freeze_epochs": 2, "nbs": 16}
    _, compiled, steps = both_ways(made, graphs, epochs=7, batch=8, fraction=1.0, optimizer="SGD", lr0=1e-3, **mixed)
    assert compiled.compiled.refused == "" and len(steps.losses) == 56
    assert steps.ran[-1] >= ({"yolo": 2, "rtdetr": 3}[family] + LOSS[family]) * len(steps.losses)


@pytest.mark.parametrize("family", ["yolo", "rtdetr"])
def test_what_is_compiled_computes_nothing_again_by_itself(
    family: str, options: Any, networks: Any, graphs: Any
) -> None:
    made = maker(options, networks[family])
    short = {"epochs": 1, "fraction": 0.25, "multi_scale": 0.0, "optimizer": "SGD", "lr0": 1e-3}
    _, compiled, steps = both_ways(made, graphs, gradient_checkpointing=True, **short)
    assert compiled.compiled.refused == ""
    each = {"yolo": 2, "rtdetr": 3}[family] + LOSS[family]
    assert steps.ran[-1] - steps.ran[0] == each * (len(steps.ran) - 1)  # once a step


def test_it_goes_on_where_it_stopped(options: Any, networks: Any, graphs: Any) -> None:
    class Stops(Callback):
        def on_fit_epoch_end(self, trainer: Any) -> None:
            if trainer.epoch == 0:
                raise InterruptedError

    made = maker(options, networks["yolo"])
    whole = made(compile=True, epochs=2, fraction=0.25, name="whole")(Steps(graphs))
    whole.train()
    with pytest.raises(InterruptedError):
        made(compile=True, epochs=2, fraction=0.25, name="halves")(Stops()).train()
    torch.compiler.reset()
    halves = DetectionTrainer(overrides={"resume": str(whole.save_dir.with_name("halves") / "weights" / "last.pt")})
    halves.train()
    assert halves.args.compile is True
    mine, other = whole.ema.ema.state_dict(), halves.ema.ema.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert {layer.momentum for layer in whole.model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.03}


def test_a_loss_and_a_step_of_ones_own_take_part(options: Any, networks: Any, graphs: Any) -> None:
    class Softer(DenseCriterion):
        def box_loss(self, pred: Tensor, target: Tensor) -> Tensor:
            return super().box_loss(pred, target) ** 2

    class Own(DetectionModel):
        def init_criterion(self) -> Any:
            return Softer(nc=self.nc, strides=self.stride.tolist(), topk=10)

    class OwnTrainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return Own(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

        def optimizer_step(self) -> None:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
            super().optimizer_step()

    made = maker(options, networks["yolo"], OwnTrainer)
    _, _, steps = both_ways(made, graphs, epochs=1, fraction=0.5, optimizer="SGD", lr0=1e-3)
    assert steps.ran[1] - steps.ran[0] == 2


@pytest.mark.parametrize("fault", ["cannot compile", "means something else"])
def test_what_goes_wrong_is_said_and_the_run_goes_on(
    options: Any, networks: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    def fails(graph: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        def run(*args: Any) -> Any:
            graph.forward(*args)  # it moves the statistics, and fails then
            raise NameError("no compiler was found\nand much more")

        return run

    torch.compiler.reset()
    backend: Any = fails if fault == "cannot compile" else Graphs(factor=1.5)
    monkeypatch.setattr(compiling, "SETTINGS", {"backend": backend})
    _, compiled, _ = both_ways(maker(options, networks["yolo"]), Graphs(), epochs=1, fraction=0.25)
    said = "no compiler was found" if fault == "cannot compile" else "its predictions differ by"
    assert said in compiled.compiled.refused
    assert f"The network runs as it is written: {compiled.compiled.refused}" in caplog.text
    assert compiled.effects.rows  # the option had a reason not to take effect, and nobody was refused


def test_what_is_known_not_to_compile_is_said_once_and_the_compiler_left_alone(
    options: Any, networks: Any, graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that exchanges statistics, with a loss that does not say that it may be called for nothing."""

    class Own(DenseCriterion):
        """Inherits the word, and does not say it."""

    class OwnModel(DetectionModel):
        def init_criterion(self) -> Any:
            return Own(nc=self.nc, strides=self.stride.tolist())

    class OwnTrainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            model = OwnModel(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)
            model.model[0].bn = SyncBatchNorm(8)
            return model

    class Compiles(Callback):
        def on_train_epoch_end(self, trainer: Any) -> None:
            torch.compile(lambda x: x + 1, backend=graphs)(torch.ones(2))

    short = {"epochs": 2, "fraction": 0.25, "val": False, "freeze": "backbone", "freeze_epochs": 1}
    trainer = OwnTrainer(overrides=options(model=networks["yolo"], compile=True, **short), _callbacks=[Compiles()])
    trainer.train()
    assert caplog.text.count("The network runs as it is written: synchronised normalisation") == 1
    assert caplog.text.count("The loss runs as it is written: Own does not say") == 1
    assert "compiling for" not in caplog.text and graphs.made > 0, "what others compile is compiled"


@pytest.mark.parametrize(
    ("cls", "said"),
    [(Counted, "The loss runs as it is written: Counted.loss is not that of Eyas."), (ReadsFiles, "(no files)")],
)
def test_a_model_of_ones_own_is_trained_as_it_would_be(
    cls: type[DetectionModel], said: str, options: Any, networks: Any, graphs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class OwnTrainer(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return cls(cfg, nc=self.data["nc"], names=self.data["names"], verbose=False)

    short = {"epochs": 1, "fraction": 0.5, "optimizer": "SGD", "lr0": 1e-3}
    written, compiled, _ = both_ways(maker(options, networks["yolo"], OwnTrainer), graphs, **short)
    assert said in caplog.text
    assert getattr(compiled.model, "asked", 0) == getattr(written.model, "asked", 0)


def test_networks_that_cannot_be_compiled_say_why() -> None:
    assert "compiled_parts" in compiling.refusal(nn.Linear(2, 2))
    network = DetectionModel("yolo26n", nc=2, verbose=False)
    assert compiling.refusal(network) == ""
    network.model[0].bn = SyncBatchNorm(16)
    assert "sync_bn=false" in compiling.refusal(network)


def test_it_leaves_the_compiler_as_it_was(options: Any, networks: Any, graphs: Graphs) -> None:
    trainer = maker(options, networks["yolo"])(compile=True, epochs=1, fraction=0.25, val=False)(Steps(graphs))
    trainer.train()
    before = graphs.made
    torch.compile(lambda x: x + 1, backend=graphs)(torch.ones(2))
    assert graphs.made == before + 1
    trainer.model.train()(torch.zeros(1, 3, 64, 64))
    assert graphs.made == before + 1, "the network is as it is written"
