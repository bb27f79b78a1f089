"""Which weights are measured and saved: the average, or the live ones while that is not yet as good."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eyas.nn.unwrap import unwrap_model
from eyas.train import DetectionTrainer


class Counting(DetectionTrainer):
    """Counts validations of a bare model, which are those of the live weights; a score that grows with them."""

    asked = 0
    scores = (0.2, 0.5)  # of the live weights, of the average

    def get_validator(self) -> Any:
        validator, trainer = super().get_validator(), self

        def measure(run: Any = None, *, model: Any = None) -> dict[str, float]:
            numbers = validator(run) if model is None else validator(model=model)
            live = model is not None and model is unwrap_model(trainer.model)
            trainer.asked += live
            same = trainer.ema is not None and all(
                torch.equal(a, b) for a, b in zip(trainer.ema.ema.parameters(), trainer.model.parameters(), strict=True)
            )
            return numbers | {"fitness": trainer.scores[0] if live or same else trainer.scores[1]}

        return measure


def test_an_average_that_is_as_good_is_trusted_from_then_on(options: Any) -> None:
    trainer = Counting(overrides=options(epochs=3))
    result = trainer.train()
    assert trainer.asked == 1 and trainer.ema is not None and trainer.ema.trusted
    assert result.fitness == 0.5


def test_an_average_that_is_behind_starts_again_from_the_live_weights(options: Any, caplog: Any) -> None:
    equal: list[bool] = []

    class Behind(Counting):
        scores = (0.5, 0.2)

        def validate(self) -> Any:
            found = super().validate()
            assert self.ema is not None
            pairs = zip(self.ema.ema.parameters(), self.model.parameters(), strict=True)
            equal.append(all(torch.equal(a, b) for a, b in pairs))
            return found

    trainer = Behind(overrides=options(epochs=2))
    result = trainer.train()
    assert trainer.asked == 2 and equal == [True, True], "asked until it wins, and equal after every restart"
    assert trainer.ema is not None and not trainer.ema.trusted and result.fitness == 0.5


@pytest.mark.parametrize("typed", [{"ema": False}, {"ema_decay": 0.9}, {"ema_tau": 10.0}])
def test_no_question_where_there_is_no_average_or_one_that_was_asked_for(options: Any, typed: dict[str, Any]) -> None:
    class InValidation(Counting):
        def validate(self) -> Any:
            found = super().validate()
            assert self.asked == 0
            return found

    InValidation(overrides=options(epochs=1, **typed)).train()
