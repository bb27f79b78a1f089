"""A side of a comparison: a long-lived process that measures when it is asked, in lines of JSON.

A request is ``{"part": NAME, "options": {OPTION: TEXT}, "batches": N, "epochs": N}``, its answer
``[{"what, unit": number}, ...]``. The first line that a side writes is what it runs on. A side that cannot measure ends
with a traceback. This program is always the current one; which `eyas` it measures, ``PYTHONPATH`` decides.
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO

START = 120.0  # seconds in which a process must have imported torch and found its GPU

Answer = Callable[[dict[str, Any]], list[dict[str, float]]]


class SideError(RuntimeError):
    """A side could not measure: it has ended, or was too late."""


class Side:
    """A process that measures; ended, with all that it started, at the end of the ``with`` block.

    Args:
        source: folder that holds the package `eyas` to measure.
        command: the program, to which a folder for its files is added; another one in tests.

    Attributes:
        machine: what the process runs on, as it said itself.

    Raises:
        SideError: it did not start, or imports another `eyas`.
    """

    def __init__(self, source: Path, command: tuple[str, ...] = (sys.executable, __file__)) -> None:
        path = os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.folder = tempfile.TemporaryDirectory()  # it may be ended before it can remove what it wrote
        self.process = subprocess.Popen(
            [*command, self.folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "KINETO_LOG_LEVEL": "99"},  # torch's profiler talks a lot
            text=True,
            start_new_session=True,  # so that its loading processes can be ended with it
        )
        try:
            self.machine = self._read(START)
            if not Path(self.machine["eyas"]).is_relative_to(source.resolve()):
                raise SideError(f"{self.machine['eyas']} is measured in place of what lies in {source}")
        except BaseException:
            self.close()
            raise

    def ask(self, timeout: float | None = None, **request: Any) -> list[dict[str, float]]:
        """Return what the process measured.

        Raises:
            SideError: it could not, or took longer than ``timeout`` seconds; then it has been ended.
        """
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise SideError("the measuring process has ended") from None
        return self._read(timeout)

    def _read(self, timeout: float | None) -> Any:
        assert self.process.stdout is not None
        # One line for each request: nothing that was written before can lie unread behind what select looks at.
        if timeout is not None and not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise SideError(f"ended, for it took longer than {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise SideError(f"the measuring process has ended (status {self.process.wait()}); what it wrote is above")
        return json.loads(line)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the process and what it has started. May be called twice."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # a request that nobody has read
                pipe.close()
        self.folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(lines: Iterable[str], out: TextIO, answer: Answer) -> None:
    """Answer a line of JSON with one, until there are no more."""
    for line in lines:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    import torch

    import eyas

    return {
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "eyas": str(Path(eyas.__file__).resolve()),
    }


def main() -> None:
    """Measure what is asked for on standard input; whatever else is printed goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from parts import Benches

    print(json.dumps(machine()), file=out, flush=True)
    with Benches(Path(sys.argv[1])) as benches:
        serve(sys.stdin, out, benches.answer)


if __name__ == "__main__":
    main()
