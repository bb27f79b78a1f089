"""Exchanges between two processes, and the identities that they are in one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from eyas import dist
from sockets import listening


def test_two_processes_exchange_what_they_know(in_ranks: Any) -> None:
    def know() -> dict[str, Any]:
        me = dist.rank()
        mine = torch.tensor([1.0, 3.0]) * (me + 1)
        with torch.no_grad():
            alone = dist.mean_over_ranks(mine)
        return {
            "agree": dist.agree({"rank": me}),
            "any": [dist.any_rank(me == 1), dist.any_rank(False)],
            "all": dist.gather_all(f"rank {me}"),
            "mean": dist.mean_over_ranks(mine).tolist(),
            "untouched": mine.tolist() == [me + 1, 3 * (me + 1)],
            "no grad": alone is mine,
            "again": dist.start("cpu"),
            "heard": sorted({address for address, _ in listening([os.getpid()])[os.getpid()]}),
            "exposed": dist.exposure(),
        }

    expected = {
        "agree": {"rank": 0},
        "any": [True, False],
        "all": ["rank 0", "rank 1"],
        "mean": [1.5, 4.5],
        "untouched": True,
        "no grad": True,
        "again": False,
        "heard": ["127.0.0.1"],  # gloo, and the store of the first
        "exposed": None,
    }
    assert in_ranks(know) == [expected, expected]


def test_one_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    value, tensor = object(), torch.ones(2)
    assert (dist.rank(), dist.local_rank(), dist.world_size(), dist.local_world_size(), dist.restarts()) == (
        0,
        0,
        1,
        1,
        0,
    )
    assert dist.is_main()
    assert not dist.start("cpu")
    assert not dist.is_initialised()
    assert dist.agree(value) is value
    assert dist.gather_all(value) == [value]
    assert dist.mean_over_ranks(tensor) is tensor
    assert dist.any_rank(True) and not dist.any_rank(False)
    dist.barrier()
    dist.finish()


def test_asking_who_i_am_needs_no_torch() -> None:
    code = "import sys; from eyas import dist; dist.agree(1); dist.any_rank(True); dist.barrier(); dist.finish();"
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True, timeout=60)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LOCAL_WORLD_SIZE": "2"}, None),
        ({"MASTER_ADDR": "127.0.0.1"}, None),
        ({"MASTER_ADDR": "::1"}, None),
        ({"EYAS_MEETING_FILE": "/nowhere"}, None),
        ({"MASTER_ADDR": "192.0.2.7"}, "meet at port 29500, all addresses of this host: 192.0.2.7 is none of them"),
        ({"MASTER_ADDR": "192.0.2.7", "RANK": "1"}, "meet at 192.0.2.7:29500, and trust whoever connects"),
        (
            {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "TORCHELASTIC_USE_AGENT_STORE": "True"},
            "meet at port 29500 of localhost, all its addresses: torchrun listens there",
        ),
    ],
)
def test_what_is_open_to_the_network_is_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str | None
) -> None:
    here = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
    for name, value in (here | variables).items():
        monkeypatch.setenv(name, value)
    line = dist.exposure()
    assert line is said is None or (said in line and "firewall" in line and "\n" not in line)
