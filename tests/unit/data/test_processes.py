"""Work spread over processes: results in order, and a clear end whoever ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from eyas.data.processes import START_METHOD, can_fork, spread

pytestmark = pytest.mark.skipif(START_METHOD != "fork", reason="starts workers by fork")
TASKS = [range(k, k + 3) for k in range(23)]


def sum_of(task: range) -> tuple[int, int]:
    """A task's sum, and who made it; some take longer than those after them."""
    time.sleep(0.002 * (task.start % 3 == 0))
    return sum(task), os.getpid()


@pytest.mark.parametrize("processes", [1, 2, 5, 40])
def test_results_come_in_the_order_of_the_tasks(processes: int) -> None:
    results = list(spread(sum_of, TASKS, processes))
    assert [total for total, _ in results] == [sum(task) for task in TASKS]
    assert os.getpid() not in {worker for _, worker in results}
    assert not multiprocessing.active_children()


def test_all_of_them_work() -> None:
    assert len({worker for _, worker in spread(sum_of, TASKS * 3, 3)}) == 3


def test_large_results_block_nobody() -> None:
    found = list(spread(lambda task: bytes(task) * 1_000_000, TASKS, 2))
    assert found == [bytes(task) * 1_000_000 for task in TASKS]


def test_workers_see_what_cannot_be_pickled() -> None:
    found = [lambda k=k: k + 1 for k in range(40)]
    assert list(spread(lambda task: found[task.start](), TASKS, 2)) == [task.start + 1 for task in TASKS]


def test_one_that_is_killed_ends_the_work_with_its_reason() -> None:
    def work(task: range) -> int:
        if task.start == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return task.start

    with pytest.raises(ChildProcessError, match="ended from outside by SIGKILL, as the system does when memory"):
        list(spread(work, TASKS, 2))
    assert not multiprocessing.active_children()


def test_one_that_is_killed_between_two_tasks_is_missed_too() -> None:
    results = spread(sum_of, TASKS * 40, 2)
    os.kill(next(results)[1], signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="SIGKILL"):
        list(results)


def test_an_error_in_one_ends_the_work(capfd: pytest.CaptureFixture[str]) -> None:
    def work(task: range) -> float:
        return 1 / (task.start - 5)

    with pytest.raises(ChildProcessError, match="exit code 1; what it said"):
        list(spread(work, TASKS, 2))
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_are_the_parents_to_answer(number: signal.Signals) -> None:
    def work(task: range) -> range:
        os.kill(os.getpid(), number)
        return task

    assert list(spread(work, TASKS, 2)) == TASKS


def test_who_stops_listening_ends_them() -> None:
    with closing(spread(sum_of, TASKS * 4000, 2)) as results:
        assert next(results)[0] == 3
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


def test_they_do_not_outlive_their_parent(tmp_path: Path) -> None:
    script = (
        "import os, time\nfrom eyas.data.processes import spread\n"
        "def work(task):\n    open(str(os.getpid()), 'a').close()\n    time.sleep(1)\n"
        "list(spread(work, [range(1)] * 100, 3))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def wait_until(true: object) -> None:
    end = time.monotonic() + 30
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_of_somebody_starts_none() -> None:
    receiving, sending = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=lambda: sending.send(can_fork()), daemon=True)
    process.start()
    assert receiving.recv() is False and can_fork()
    process.join()
