"""The loop is what the drawing in ``callbacks/base.py`` says, for callbacks, functions and overrides alike."""

from __future__ import annotations

import re
from typing import Any

import pytest

from eyas.callbacks import ADJUSTERS, EVENTS, Callback, base
from eyas.train import DetectionTrainer

METHODS = (
    "get_dataset",
    "get_model",
    "set_model_attributes",
    "auto_batch",
    "get_dataloader",
    "build_dataset",
    "build_optimizer",
    "get_validator",
    "resume_training",
    "plot_training_labels",
    "progress_string",
    "preprocess_batch",
    "optimizer_step",
    "plot_training_samples",
    "validate",
    "save_metrics",
    "save_model",
    "final_eval",
    "plot_metrics",
)


def recording_trainer(calls: list[str]) -> type[DetectionTrainer]:
    """Return a trainer whose overridable methods write their names down and then do what they always do."""

    def spy(name: str) -> Any:
        inherited = getattr(DetectionTrainer, name)

        def method(self: DetectionTrainer, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return inherited(self, *args, **kwargs)

        return method

    return type("Recorder", (DetectionTrainer,), {name: spy(name) for name in METHODS})


def recording_callback(calls: list[str]) -> Callback:
    """Return a callback that writes down every hook."""

    class Recorder(Callback):
        pass

    for name in ADJUSTERS:
        setattr(Recorder, name, lambda self, trainer, value, name=name: (calls.append(name), value)[1])
    for name in EVENTS:
        setattr(Recorder, name, lambda self, trainer, name=name: calls.append(name))
    return Recorder()


def drawn_order() -> list[str]:
    """Return the hooks in the order of the drawing, without what only happens when something is raised."""
    drawing = (base.__doc__ or "").split("::")[1].split("**Methods**")[0]
    known = {*EVENTS, *ADJUSTERS, *METHODS} - {"on_exception"}
    return [word for word in re.findall(r"[a-z_]+", drawing.lower()) if word in known]


@pytest.fixture
def calls(options: Any) -> list[str]:
    recorded: list[str] = []
    trainer = recording_trainer(recorded)(
        overrides=options(epochs=2, batch=None, fraction=0.25, plots=True), _callbacks=[recording_callback(recorded)]
    )
    trainer.train()
    return recorded


def test_every_hook_fires_in_the_drawn_order(calls: list[str]) -> None:
    first_seen = list(dict.fromkeys(calls))
    assert set(first_seen) == set(drawn_order())
    assert first_seen == list(dict.fromkeys(drawn_order()))


def test_hooks_repeat_as_often_as_the_drawing_says(calls: list[str]) -> None:
    epochs, batches = 2, 4
    for name in (
        *("on_train_epoch_start", "progress_string", "on_train_epoch_end", "validate"),
        *("save_metrics", "on_fit_epoch_end", "save_model"),
    ):
        assert calls.count(name) == epochs, name
    assert calls.count("adjust_metrics") == epochs + 1, "the final evaluation too"
    for name in (
        "on_train_batch_start",
        "adjust_schedule",
        "adjust_rates",
        "preprocess_batch",
        "adjust_batch",
        "adjust_loss",
        "optimizer_step",
        "adjust_gradients",
    ):
        assert calls.count(name) == batches, name
    for name in (
        *("get_model", "auto_batch", "build_optimizer", "resume_training", "adjust_model", "on_train_start"),
        *("plot_training_labels", "final_eval", "plot_metrics", "on_train_end", "teardown"),
    ):
        assert calls.count(name) == 1, name
    assert calls.count("get_dataloader") == 2


def test_a_batch_runs_from_event_to_event(calls: list[str]) -> None:
    start = calls.index("on_train_batch_start")
    batch = calls[start : calls.index("on_train_batch_end") + 1]
    assert batch == [
        "on_train_batch_start",
        "adjust_schedule",
        "adjust_rates",
        "preprocess_batch",
        "adjust_batch",
        "adjust_loss",
        "optimizer_step",
        "adjust_gradients",
        "on_train_batch_end",
    ]
    assert calls[start + len(batch)] == "plot_training_samples"


def test_a_plain_function_sees_the_trainer_as_it_is(options: Any) -> None:
    seen: dict[str, Any] = {}

    def look(trainer: DetectionTrainer) -> None:
        seen["epoch"] = trainer.epoch
        seen["names"] = trainer.data["names"]
        seen["nc"] = trainer.model.nc
        seen["args_are_the_models"] = trainer.model.args is trainer.args
        seen["first_layer"] = next(name for name, _ in trainer.model.named_parameters())
        seen["rates"] = [group["lr"] for group in trainer.optimizer.param_groups]

    trainer = DetectionTrainer(overrides=options(epochs=1))
    trainer.add_callback("on_train_epoch_end", look)
    trainer.train()
    assert seen["epoch"] == 0 and seen["nc"] == 10 and seen["names"][3] == "3"
    assert seen["args_are_the_models"] and seen["first_layer"].startswith("model.0.")
    assert len(seen["rates"]) == 3


def test_an_event_that_never_fires_is_refused_with_the_nearest(options: Any) -> None:
    trainer = DetectionTrainer(overrides=options())
    with pytest.raises(ValueError, match="Did you mean 'on_train_epoch_end'"):
        trainer.add_callback("on_train_epoch_ends", print)


def test_an_exception_reaches_callbacks_and_teardown_fires_last(options: Any) -> None:
    seen: list[str] = []

    class Breaks(Callback):
        def on_train_batch_end(self, trainer: Any) -> None:
            raise RuntimeError("on purpose")

        def on_exception(self, trainer: Any) -> None:
            seen.append(str(trainer.exception))

        def teardown(self, trainer: Any) -> None:
            seen.append("teardown")

    with pytest.raises(RuntimeError, match="on purpose"):
        DetectionTrainer(overrides=options(), _callbacks=[Breaks()]).train()
    assert seen == ["on purpose", "teardown"]


def test_a_callback_class_instead_of_an_instance_is_explained(options: Any) -> None:
    with pytest.raises(TypeError, match=r"pass Callback\(\)"):
        DetectionTrainer(overrides=options(), _callbacks=[Callback])


def test_an_adjuster_that_forgets_to_return_is_named(options: Any) -> None:
    class Forgets(Callback):
        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            loss * 2

    with pytest.raises(TypeError, match=r"Forgets\.adjust_loss\(\) returned None"):
        DetectionTrainer(overrides=options(), _callbacks=[Forgets()]).train()
