"""A user's script: stand-ins for trainers, started in two processes. Run as ``python standins.py FOLDER WHAT``.

Not a test, and never imported: whatever is defined here lives in ``__main__``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

FOLDER, WHAT = Path(sys.argv[1]), sys.argv[2]
FOLDER.mkdir(exist_ok=False)  # a script that is run a second time ends here

from eyas import dist  # noqa: E402
from eyas.launch.interrupt import Interrupted  # noqa: E402
from eyas.launch.launcher import WorkerError, launch  # noqa: E402

(FOLDER / "helpers.py").write_text(
    "from dataclasses import dataclass\n\nSCALE = 10\n\n@dataclass\nclass Loss:\n    gain: float\n"
    "    def __call__(self, x):\n        return self.gain * SCALE * x\n"
)
spec = importlib.util.spec_from_file_location("helpers_from_a_file", FOLDER / "helpers.py")
helpers = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = helpers
spec.loader.exec_module(helpers)

SEEN = {"in": "a global of the script"}


def counter(start):
    count = start

    def increase():
        nonlocal count
        count += 1
        return count

    return increase


class Trainer:
    """What `launch` needs of a trainer."""

    def __init__(self, restarts=0):
        self.args = SimpleNamespace(restarts=restarts, resume=False)
        self.last = FOLDER / "last.pt"
        self.resumed = False
        self.loss = helpers.Loss(gain=0.5)
        self.count = counter(3)
        self.callback = lambda trainer: (SEEN["in"], trainer.count(), trainer.loss(2.0))

    def resume_here(self, causes=()):
        self.resumed = self.last.exists()

    def run_here(self):
        assert dist.start("cpu")
        (FOLDER / f"ran-{dist.rank()}-{dist.restarts()}").write_text(str(os.getpid()))
        dist.barrier()
        result = self.body()
        dist.barrier()
        dist.finish()
        return result

    def body(self):
        print(f"line of rank {dist.rank()}", flush=True)
        seen = dist.gather_all([dist.rank(), *self.callback(self), sys.argv[2], os.getcwd()])
        return SimpleNamespace(seen=seen, kind=Trainer, function=lambda: SEEN["in"])


class CustomError(Exception):
    """One that no other process can import."""


class Raises(Trainer):
    def body(self):
        if dist.rank() == 1:
            self.fail()
        dist.barrier()

    def fail(self):
        raise CustomError("the real reason")


class Dies(Trainer):
    def body(self):
        if dist.rank() == 1:
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()


class DiesOnce(Trainer):
    def body(self):
        if dist.restarts() == 0:
            self.last.touch()
            dist.barrier()
            if dist.rank() == 1:
                os._exit(7)
            time.sleep(60)
        return SimpleNamespace(resumed=self.resumed, restarts=dist.restarts())


class Waits(Trainer):
    """Answers the first Ctrl-C as training does: all processes save, then say so."""

    def body(self):
        asked = []
        signal.signal(signal.SIGINT, lambda *_: asked.append(1))
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        (FOLDER / f"ready-{dist.rank()}").touch()
        while not dist.any_rank(bool(asked) or self.preempted()):
            time.sleep(0.05)
        self.last.touch()
        dist.barrier()
        raise Interrupted(f"saved; continue with: eyas train resume={self.last}")

    def preempted(self):
        return WHAT == "preempted" and dist.rank() == 1


def report(**facts):
    (FOLDER / "report.json").write_text(json.dumps(facts))


before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
environment = dict(os.environ)
try:
    if WHAT == "runs":
        result = launch(Trainer(), 2)
        report(seen=result.seen, same_class=result.kind is Trainer, function=result.function())
    elif WHAT == "captured":
        with contextlib.redirect_stdout(io.StringIO()) as text:
            launch(Trainer(), 2)
        report(text=text.getvalue())
    elif WHAT == "raises":
        launch(Raises(), 2)
    elif WHAT == "dies":
        launch(Dies(), 2)
    elif WHAT == "dies once":
        result = launch(DiesOnce(restarts=1), 2)
        report(resumed=result.resumed, restarts=result.restarts)
    else:
        launch(Waits(restarts=1), 2)
except WorkerError as error:
    report(kind=type(error).__name__, text=str(error), rank=error.rank, traceback=error.text)
except Interrupted as error:
    report(kind="Interrupted", text=str(error))
assert before == {name: signal.getsignal(name) for name in before}
assert environment == dict(os.environ)
