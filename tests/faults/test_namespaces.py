"""Several hosts, as network namespaces of the test's own: what another one can connect to, and what it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

IP = shutil.which("ip")
OWN, OTHER = "10.177.0.1", "10.178.0.1"  # of the first host: the address of the run, and one of another network
PEER = "10.177.0.2"


def ip(*arguments: str) -> None:
    subprocess.run([str(IP), *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them."""
    if IP is None or os.name != "posix" or os.getuid() != 0:
        pytest.skip("needs iproute2, and to be root")
    names = f"eyas-{os.getpid()}-a", f"eyas-{os.getpid()}-b"
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, addresses in zip(names, ((OWN, OTHER), (PEER, "10.178.0.2")), strict=True):
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
            for address in addresses:
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


MEETS = """
import sys
from eyas import dist
dist.start()
assert dist.agree(dist.world_size()) == 2
print("met", flush=True)
sys.stdin.readline()
dist.agree(0)
dist.finish()
"""
LOOKS = """
import socket, sys
for address in sys.argv[1].split(","):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
        print(address)
    except OSError:
        pass
"""


def start(host: str, rank: int, master: str, **more: str) -> subprocess.Popen[str]:
    here = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": master, "MASTER_PORT": "29517"}
    return subprocess.Popen(
        [str(IP), "netns", "exec", host, sys.executable, "-c", MEETS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **here, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ports(host: str) -> set[int]:
    """Return all ports of a host on which somebody listens."""
    shown = subprocess.run(
        [str(IP), "netns", "exec", host, "cat", "/proc/net/tcp", "/proc/net/tcp6"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = [line.split() for line in shown.stdout.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def reached(hosts: tuple[str, str], processes: list[subprocess.Popen[str]]) -> set[str]:
    """Return at which addresses of the first host the second one finds somebody, while the processes are together."""
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "met\n"
        listening = ports(hosts[0])
        assert listening, "gloo listens somewhere"
        addresses = ",".join(f"{host}:{port}" for host in (OWN, OTHER) for port in listening)
        looked = subprocess.run(
            [str(IP), "netns", "exec", hosts[1], sys.executable, "-c", LOOKS, addresses],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return {line.rpartition(":")[0] for line in looked.stdout.split()}
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            try:
                process.wait(60)
            finally:
                process.kill()
                process.communicate()


def test_processes_of_one_host_are_out_of_reach_for_another(hosts: tuple[str, str], tmp_path: Path) -> None:
    """Those of the library's own launcher, which meet in a file, and those that somebody starts on the loopback."""
    both = {"LOCAL_WORLD_SIZE": "2"}
    by_file = [start(hosts[0], i, "nowhere", EYAS_MEETING_FILE=str(tmp_path / "m"), **both) for i in range(2)]
    assert reached(hosts, by_file) == set()
    assert reached(hosts, [start(hosts[0], i, "127.0.0.1", **both) for i in range(2)]) == set()


def test_processes_of_several_hosts_listen_on_the_address_of_the_run_alone(hosts: tuple[str, str]) -> None:
    more = {"GLOO_SOCKET_IFNAME": "cable", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    assert reached(hosts, [start(hosts[i], i, OWN, **more) for i in range(2)]) == {OWN}
