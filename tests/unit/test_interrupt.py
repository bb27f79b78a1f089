"""Which signals are one request to stop, and which is the second."""

from __future__ import annotations

import signal

import pytest

from eyas.launch.interrupt import ONE_REQUEST, InterruptFlag


def test_signals_that_arrive_together_are_one_request(capfd: pytest.CaptureFixture[str]) -> None:
    flag = InterruptFlag()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        flag.handle(number, None)
        assert flag
    assert capfd.readouterr().err.count("Stopping after this step") == 1
    flag.since -= ONE_REQUEST
    with pytest.raises(KeyboardInterrupt):
        flag.handle(signal.SIGINT, None)
