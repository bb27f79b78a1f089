"""Training in bfloat16 on a CPU: the same run as in float32, but for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.callbacks import Callback
from eyas.families import family_of
from eyas.models import model_table


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
