"""Which signals are one request to stop, and which is the second; and which asks where a run is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from eyas.data import loader
from eyas.launch.interrupt import ONE_REQUEST, InterruptFlag, catch_interrupts
from eyas.signals import PATIENT, STOPPING


def test_signals_that_arrive_together_are_one_request(capfd: pytest.CaptureFixture[str]) -> None:
    flag = InterruptFlag()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        flag.handle(number, None)
        assert flag
    assert capfd.readouterr().err.count("Stopping after this step") == 1
    flag.since -= ONE_REQUEST
    with pytest.raises(KeyboardInterrupt):
        flag.handle(signal.SIGINT, None)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_every_signal_of_schedulers_and_terminals_is_a_request_to_stop(name: str) -> None:
    number = getattr(signal, name)
    before = {each: signal.getsignal(each) for each in STOPPING}
    with catch_interrupts() as asked:
        assert not asked
        os.kill(os.getpid(), number)
        assert asked
    assert {each: signal.getsignal(each) for each in STOPPING} == before


@pytest.mark.parametrize("number", PATIENT)
def test_those_that_repeat_themselves_never_cut_a_save_short(number: signal.Signals) -> None:
    flag = InterruptFlag()
    for _ in range(3):
        flag.handle(number, None)
        flag.since -= ONE_REQUEST
    assert flag


def test_what_is_ignored_or_answered_by_others_stays_so() -> None:
    """`nohup` ignores SIGHUP; a user's script may have a meaning of its own for SIGUSR1."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        with catch_interrupts() as asked:
            for number in (signal.SIGHUP, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            assert not asked and heard == [1]
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_a_terminal_that_is_gone_is_no_reason_not_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(number: int, text: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    flag = InterruptFlag()
    flag.handle(signal.SIGHUP, None)
    assert flag


def test_asked_where_it_is_a_run_shows_its_stacks_and_those_of_its_workers_and_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_waits_with_shown_stacks, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(10)
    with catch_interrupts() as asked:
        os.kill(os.getpid(), signal.SIGQUIT)
        time.sleep(2)  # what is read while somebody writes is torn: once, when all have written
        said = capfd.readouterr().err
        assert "and_goes_on" in said and "_waits_with_shown_stacks" in said
        assert not asked and worker.is_alive()
    worker.kill()
    worker.join()


def _waits_with_shown_stacks(ready: Any) -> None:
    loader._leave_stopping_to_parent(os.getppid())
    for number in PATIENT:
        os.kill(os.getpid(), number)
    ready.set()
    time.sleep(60)
