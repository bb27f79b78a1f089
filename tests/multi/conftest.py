"""Two processes and a real gloo group for any function, without the seconds that a new interpreter takes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
import torch._dynamo  # takes seconds, and is imported by DistributedDataParallel in every process that has not yet

from eyas import dist

Run = Callable[..., list[Any]]


@pytest.fixture
def in_ranks() -> Run:
    """``in_ranks(function, processes=2)``: what the function returns in each process, in order of ranks."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork")
    return run_in_ranks


@pytest.fixture
def free_port() -> int:
    return find_port()


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def run_in_ranks(function: Callable[[], Any], processes: int = 2) -> list[Any]:
    port = find_port()
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        context.Process(target=be_rank, args=(function, r, processes, port, pipes[r][1])) for r in range(processes)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        for worker in workers:
            worker.start()
    try:
        answers = []
        for rank, (receiver, _) in enumerate(pipes):
            assert receiver.poll(60), f"rank {rank} did not answer"
            answers.append(pickle.loads(receiver.recv_bytes()))
    finally:
        for worker in workers:
            worker.kill() if len(answers) < processes else worker.join(30)
            worker.join()
    for rank, (result, error) in enumerate(answers):
        assert error is None, f"rank {rank}:\n{error}"
        del result
    return [result for result, _ in answers]


def be_rank(function: Callable[[], Any], rank: int, processes: int, port: int, sender: Connection) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    names |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    try:
        assert dist.start("cpu")
        answer = function(), None
        dist.finish()
    except BaseException:
        answer = None, traceback.format_exc()
    sender.send_bytes(pickle.dumps(answer))
