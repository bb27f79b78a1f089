"""The line that is to blame, from tracebacks, messages and the source."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from eyas.rehearsal import blame
from eyas.train import DetectionTrainer

SOURCE = """
import random
import threading

total = 0
seen = []
LIMIT = 3


class Counter:
    def __init__(self):
        self.count = 0
        self.lock = threading.Lock()

    def step(self, trainer):
        self.count += 1
        trainer.own_number = self.count
        return sorted([1, "a"])


def remember(x):
    global total
    total += random.random()
    seen.append(x)
    LIMIT = x
    return LIMIT
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    module = ModuleType("mine_of_a_test")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "mine_of_a_test", module)
    exec(compile(SOURCE, str(path), "exec"), vars(module))
    return module


def raised_by(call: Any) -> BaseException:
    try:
        call()
    except TypeError as error:
        return error
    raise AssertionError


def test_the_innermost_frame_of_the_users_is_named(module: ModuleType, tmp_path: Path) -> None:
    error = raised_by(lambda: module.Counter().step(ModuleType("trainer")))
    place = blame.place_of(error, tmp_path / "mine.py")
    assert place is not None
    assert (place.file, place.code) == (str(tmp_path / "mine.py"), 'return sorted([1, "a"])')
    assert SOURCE.splitlines()[place.line - 1].strip() == place.code


def test_installed_packages_python_and_this_library_are_not_the_users() -> None:
    for file in (pytest.__file__, ModuleType.__module__, blame.__file__, sys.modules["json"].__file__, "<string>"):
        assert not blame.is_users(str(file))


def test_a_line_that_only_the_message_names_is_found(module: ModuleType) -> None:
    error = ValueError("trainer.lock (mine.py, line 13: self.lock = threading.Lock()) is a _thread.lock")
    place = blame.place_of(error, Path(str(module.__file__)))
    assert place is not None and place.code == "self.lock = threading.Lock()"


def test_attributes_are_known_by_the_line_that_changes_them_later(module: ModuleType) -> None:
    lines = blame.attribute_lines(module.Counter)
    assert {name: place.code for name, place in lines.items()} == {
        "count": "self.count += 1",
        "lock": "self.lock = threading.Lock()",
    }


def test_what_functions_set_on_the_trainer_and_on_globals_is_found(module: ModuleType) -> None:
    script = Path(str(module.__file__))
    assert blame.trainer_lines(script)["own_number"].code == "trainer.own_number = self.count"
    codes = {name: place.code for name, place in blame.global_lines(script).items()}
    assert codes == {"total": "total += random.random()", "seen": "seen.append(x)", "LIMIT": "LIMIT = 3"}


def test_a_draw_from_global_random_numbers_is_found(module: ModuleType) -> None:
    script = Path(str(module.__file__))
    place = blame.random_call(script, "random")
    assert place is not None and place.code == "total += random.random()"
    assert blame.random_call(script, "numpy.random") is None


def test_what_the_user_sets_on_a_trainer_is_told_from_what_eyas_sets(module: ModuleType) -> None:
    class Mine(DetectionTrainer): ...

    stock = blame.stock_attributes(Mine)
    assert {"epoch", "best_fitness", "started", "fits"} <= stock and "own_number" not in stock
    place = blame.setting_line("own_number", [str(module.__file__)])
    assert place is not None and place.code == "trainer.own_number = self.count"
    assert blame.setting_line("epoch", [str(module.__file__), str(blame.__file__)]) is None
