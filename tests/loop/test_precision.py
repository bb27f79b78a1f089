"""Training in bfloat16 on a CPU: the same run as in float32, but for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.families import family_of
from eyas.models import DetectionModel, build_detector, model_table
from eyas.models.catalog import MODELS
from eyas.train import DetectionTrainer, precision
from eyas.train.compiling import floats


class Losses(Callback):
    """Keeps the loss of every step, and the types that convolutions answered with."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.types: set[torch.dtype] = set()

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda module, args, out: self.types.add(out.dtype))

    def on_train_batch_end(self, trainer: Any) -> None:
        self.seen.append(float(trainer.loss.detach()))


@pytest.mark.parametrize("model", ["yolo26n", "rtdetr-tiny"])
def test_the_first_steps_in_bf16_lose_what_those_in_fp32_lose(options: Any, tiny_model: Any, model: str) -> None:
    table = str(tiny_model) if model == "yolo26n" else model
    losses = {}
    for amp, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        watch = Losses()
        trained = options(model=table, epochs=1, val=False, amp=amp, name=amp, lr0=1e-3, optimizer="AdamW")
        trainer = family_of(model_table(table)).trainer(overrides=trained, _callbacks=[watch])
        trainer.train()
        assert watch.types == {dtype}
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        losses[amp] = torch.tensor(watch.seen)
    # bfloat16 has 8 bits of mantissa: 0.4 % a rounding.
    torch.testing.assert_close(losses["bf16"], losses["fp32"], rtol=0.03, atol=0)
    assert not torch.equal(losses["bf16"], losses["fp32"])


def test_auto_takes_bf16_where_the_processor_has_it_and_keeps_it_where_another_has_not(
    options: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = options(model=str(tiny_model), epochs=2, time=None, val=False, amp="auto", workers=0)
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    trainer = DetectionTrainer(overrides=short | {"name": "plain"})
    with trainer.prepared():
        assert trainer.amp_dtype is None and not trainer.amp
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    trainer = DetectionTrainer(overrides=short | {"name": "able"})
    trainer.add_callback("on_model_save", lambda trainer: setattr(trainer, "stop", True))
    trainer.train()
    assert trainer.amp_dtype is torch.bfloat16
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: False)
    again = DetectionTrainer(overrides={"resume": str(trainer.last)})
    with again.prepared():
        assert again.amp_dtype is torch.bfloat16 and again.amp


class AsksEarly(DetectionTrainer):
    """Looks at the precision where the batch is chosen: what measures memory does, and a user's hook may."""

    def auto_batch(self) -> int:
        self.seen = self.amp, self.amp_dtype
        return super().auto_batch()


def test_the_precision_is_known_before_the_batch_is_chosen(options: Any, tiny_model: Any) -> None:
    trainer = AsksEarly(overrides=options(model=str(tiny_model), batch=None, amp="bf16"))
    with trainer.prepared():
        assert trainer.seen == (True, torch.bfloat16)


class Coarse(DetectionModel):
    """Computes something else in bfloat16."""

    def predict_batch(self, batch: Any) -> Any:
        rounded = torch.is_autocast_enabled("cpu")
        return tuple(part * (2 if rounded else 1) for part in floats(super().predict_batch(batch)))


@pytest.mark.parametrize("name", [*sorted(model for model in MODELS if model.endswith("-tiny")), "yolo26n"])
def test_auto_takes_bf16_with_a_model_of_every_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    assert precision.refusal(build_detector(name, nc=3, verbose=False).train(), 64) == ""


def test_auto_refuses_what_predicts_something_else_and_leaves_the_network_as_it_was(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16_instructions", lambda: True)
    for cls, expected in ((Coarse, None), (DetectionModel, torch.bfloat16)):
        network = cls(str(tiny_model), nc=3, verbose=False).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert precision.choose(network, 64) is expected
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
    assert "differs by 1" in precision.refusal(Coarse(str(tiny_model), nc=3, verbose=False).train(), 64)
