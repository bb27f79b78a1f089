"""A list of callbacks counts what it calls, calls nothing empty, and travels."""

from __future__ import annotations

from functools import partial
from typing import Any

import cloudpickle
import pytest

from eyas.callbacks import Callback, CallbackList
from small_run import SmallRun


class Double(Callback):
    def adjust_loss(self, trainer: Any, loss: Any) -> Any:
        return 2 * loss

    def on_train_start(self, trainer: Any) -> None:
        trainer.started = True


class Quiet(Callback):
    pass


def note(trainer: Any) -> None:
    pass


def test_calls_are_counted_by_receiver_and_hook() -> None:
    hooks = CallbackList([Double(), Quiet(), Double()], {"on_train_start": [note, note, lambda trainer: None]})
    assert hooks.adjust("adjust_loss", SmallRun(), 1) == 4
    for _ in range(3):
        hooks.fire("on_train_start", SmallRun())
    inner = "test_calls_are_counted_by_receiver_and_hook.<locals>.<lambda>.0"
    assert hooks.calls == {
        ("Double.0", "adjust_loss"): 1,
        ("Double.1", "adjust_loss"): 1,
        ("Double.0", "on_train_start"): 3,
        ("Double.1", "on_train_start"): 3,
        ("note.0", "on_train_start"): 3,
        ("note.1", "on_train_start"): 3,
        (inner, "on_train_start"): 3,
    }
    assert set(hooks.registered()) == set(hooks.calls)


def test_only_hooks_of_ones_own_are_registered_and_called() -> None:
    hooks = CallbackList([Quiet(), Double()])
    assert hooks.registered() == [("Double.0", "adjust_loss"), ("Double.0", "on_train_start")]
    hooks.fire("on_train_end", SmallRun())
    assert hooks.calls == {}


def test_a_hook_set_on_an_instance_counts_as_its_own() -> None:
    quiet, seen = Quiet(), []
    quiet.on_train_end = seen.append  # type: ignore[method-assign]
    hooks = CallbackList([quiet])
    hooks.fire("on_train_end", "trainer")
    assert seen == ["trainer"]
    assert hooks.calls == {("Quiet.0", "on_train_end"): 1}


def test_functions_without_a_name() -> None:
    seen: list[Any] = []
    hooks = CallbackList(functions={"teardown": [partial(seen.append)]})
    hooks.fire("teardown", 1)
    assert hooks.calls == {("partial.0", "teardown"): 1}


def test_what_raises_has_not_run() -> None:
    class Wrong(Callback):
        def adjust_loss(self, trainer: Any, loss: Any) -> Any:
            return None

    hooks = CallbackList([Wrong()])
    with pytest.raises(TypeError, match=r"^Wrong\.adjust_loss\(\) returned None"):
        hooks.adjust("adjust_loss", SmallRun(), 1)
    assert hooks.calls == {}


def test_names_follow_a_list_that_changes() -> None:
    first, second = Double(), Double()
    hooks = CallbackList([first, second])
    assert list(hooks.by_key()) == ["Double.0", "Double.1"]
    hooks.callbacks = [second]
    assert hooks.by_key() == {"Double.0": second}
    hooks.callbacks.insert(0, Quiet())
    assert list(hooks.state_dict()) == ["Quiet.0", "Double.0"]


def test_late_ones_are_known() -> None:
    hooks = CallbackList([Double()])
    hooks.fire("on_train_start", SmallRun())
    hooks.add(Double())
    hooks.add_function("on_train_end", note)
    assert hooks.late == {("Double.1", "on_train_start")}


def test_a_list_travels_with_its_counts() -> None:
    total = 0

    def closure(trainer: Any) -> None:
        nonlocal total
        total += 1

    hooks = CallbackList([Double()], {"on_train_start": [closure]})
    hooks.adjust("adjust_loss", SmallRun(), 1)
    copy = cloudpickle.loads(cloudpickle.dumps(hooks))
    copy.fire("on_train_start", SmallRun())
    assert copy.calls[("Double.0", "adjust_loss")] == 1
    assert sum(copy.calls.values()) == 3
    assert sum(hooks.calls.values()) == 1


def test_what_only_the_main_process_has_is_not_missed_by_the_others() -> None:
    class Speaks(Callback):
        on = "main"
        heard = 0

        def on_train_start(self, trainer: Any) -> None:
            self.heard += 1

        def state_dict(self) -> dict[str, Any]:
            return {"heard": self.heard}

    speaks = Speaks()
    saved = CallbackList([speaks]).state_dict()
    other = CallbackList([speaks, Double()])
    other.leave_to_main()
    other.fire("on_train_start", SmallRun())
    assert speaks.heard == 0 and list(other.by_key()) == ["Double.0"]
    other.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"lacks: Speaks\.0"):
        CallbackList([Double()]).load_state_dict(saved)
