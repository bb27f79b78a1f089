"""SIGQUIT shows where a process is, whatever its threads are doing, and the process goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

BUSY = """
import signal, sys, threading, time
from eyas.signals import show_stacks

def work():
    while True:
        exec(compile("def deep(n):\\n return deep(n - 1) if n else 0\\ndeep(300)", "made", "exec"), {})

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
before = signal.getsignal(signal.SIGQUIT)
end = show_stacks()
print("ready", flush=True)
for line in sys.stdin:
    break
end()
assert signal.getsignal(signal.SIGQUIT) is before and signal.set_wakeup_fd(-1) == -1
print("went on")
"""


def test_threads_that_run_while_their_stacks_are_shown_are_no_danger(tmp_path: Path) -> None:
    """faulthandler's own handler reads frames and code that other threads are leaving: about 100 signals ended this."""
    shown = tmp_path / "stacks.txt"
    with shown.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for _ in range(600):
        process.send_signal(signal.SIGQUIT)
        time.sleep(0.001)
    said, _ = process.communicate("end\n", timeout=60)
    assert (process.returncode, said) == (0, "went on\n")
    assert shown.read_text().count("in deep") > 40
