"""Who listens, by the kernel's tables."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path


def listening(processes: list[int]) -> dict[int, list[tuple[str, int]]]:
    """Addresses and ports on which processes listen, by process: sockets in the kernel's tables that are theirs."""
    owner = {}
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the one by which we look
                owner[os.readlink(handle)] = process
    found: dict[int, list[tuple[str, int]]] = {process: [] for process in processes}
    for table in ("tcp", "tcp6"):
        for line in (Path("/proc/net") / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in owner:
                number, port = local.split(":")
                words = [struct.unpack("<I", bytes.fromhex(number[i : i + 8]))[0] for i in range(0, len(number), 8)]
                packed = b"".join(struct.pack(">I", word) for word in words)
                address = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
                found[owner[f"socket:[{inode}]"]].append((address, int(port, 16)))
    return found
