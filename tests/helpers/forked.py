"""New interpreters without the five seconds that torch and its compiler take to import.

Inside ``forked_interpreters()``, and in all that is started there, ``subprocess`` makes a new Python by a fork of the
process that asks. The fork keeps what is installed, torch above all, and drops all else: Eyas is imported anew, the
script is the main module, and descriptors, signals, warnings, loggers, seeds and the environment are those of a new
process. Of real interpreters it differs in what /proc calls it, and in that installed libraries are in memory.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import gc
import importlib
import logging
import multiprocessing.process
import multiprocessing.util
import os
import random
import runpy
import signal
import site
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch._dynamo  # every process that makes an optimizer imports it

INSTALLED = tuple(str(Path(prefix).resolve()) for prefix in {sys.prefix, sys.base_prefix})
DROPPED = {"eyas", "cloudpickle", "pytest", "_pytest", "pluggy", "xdist", "execnet", "hypothesis", "__main__"}


@contextlib.contextmanager
def forked_interpreters() -> Iterator[None]:
    """Let ``subprocess`` fork this process where it would start ``sys.executable``; does nothing but on Linux."""
    if sys.platform != "linux":
        yield
        return
    inner = subprocess._fork_exec  # type: ignore[attr-defined]
    subprocess._fork_exec = ForkExec(inner)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        subprocess._fork_exec = inner  # type: ignore[attr-defined]


@dataclass
class ForkExec:
    """Stands for the function that forks and executes, with the arguments that ``subprocess`` gives to it."""

    inner: Callable[..., int]

    def __call__(self, args: Any, executables: Any, close_fds: bool, keep: Any, cwd: Any, env: Any, *rest: Any) -> int:
        words = [os.fsdecode(word) for word in args]
        program = program_of(words) if words[0] == sys.executable else None
        if program is None:
            return self.inner(args, executables, close_fds, keep, cwd, env, *rest)
        stdin, _, _, stdout, _, stderr, _, failed, _, new_session, group, _, _, _, umask, preexec, *_ = rest
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        faulthandler.cancel_dump_traceback_later()  # a copy without its thread waits for that for ever
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            child = os.fork()
        if child:
            return child
        code = 1
        try:
            if new_session:  # before the descriptors are others: that tells the parent that all is done
                os.setsid()
            if group >= 0:
                os.setpgid(0, group)
            connect((stdin, stdout, stderr), set(keep) - {failed})
            if umask >= 0:
                os.umask(umask)
            if preexec:
                preexec()
            if cwd is not None:
                os.chdir(cwd)
            if env is not None:
                os.environ.clear()
                os.environ.update(os.fsdecode(entry).split("=", 1) for entry in env)  # type: ignore[misc]
            forget()
            code = run(program)
        except BaseException:
            traceback.print_exc()
        finally:
            leave(code)


@dataclass(frozen=True)
class Program:
    """What a command line of Python runs.

    Attributes:
        kind: ``-c``, ``-m`` or ``file``.
        text: the code, the module or the file.
        arguments: those of the program.
        switches: ``-P`` and ``-u``, where given.
    """

    kind: str
    text: str
    arguments: list[str]
    switches: set[str]


def program_of(words: list[str]) -> Program | None:
    """Return the program of a command line; None for one with switches that only a real interpreter has."""
    rest, switches = words[1:], set()
    while rest and rest[0] in ("-P", "-u"):
        switches.add(rest.pop(0))
    if len(rest) > 1 and rest[0] in ("-c", "-m"):
        return Program(rest[0], rest[1], rest[2:], switches)
    return Program("file", rest[0], rest[1:], switches) if rest and not rest[0].startswith("-") else None


# -- in the child ------------------------------------------------------------------------------------------------------
def connect(streams: tuple[int, int, int], keep: set[int]) -> None:
    """Put descriptors where a new process has them, and nothing behind the others.

    They stay open: what this process still holds may close them later, when the number would be another file's.
    """
    moved = [os.dup(fd) if fd >= 0 else fd for fd in streams]
    for place, fd in enumerate(moved):
        if fd >= 0:
            os.dup2(fd, place)
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):  # the one by which we look
                os.fstat(int(name))
                os.dup2(nothing, int(name), inheritable=False)


def forget() -> None:
    """Drop what this process did before, as far as a program could notice."""
    gc.freeze()  # or every collection would look through the memory of the tests, and copy it
    atexit._clear()
    atexit.register(multiprocessing.util._exit_function)  # type: ignore[attr-defined]
    multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]
    multiprocessing.process._children.clear()  # type: ignore[attr-defined]
    tempfile.tempdir = None  # TMPDIR may be another now
    asyncio.set_event_loop_policy(None)  # the loop that this process may have waits for descriptors that are gone
    signal.set_wakeup_fd(-1)
    faulthandler.disable()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            faulthandler.unregister(number)
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    faulthandler.unregister(signal.SIGQUIT)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "eyas"]:
        del logging.root.manager.loggerDict[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if module_of(finder) not in DROPPED]
    for name, module in list(sys.modules.items()):
        if not is_installed(name, module):
            del sys.modules[name]
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__
    importlib.reload(warnings)  # someone may be recording them
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))


def module_of(finder: object) -> str:
    """Return the name of the package that an importer comes from."""
    return (finder if isinstance(finder, type) else type(finder)).__module__.partition(".")[0]


def is_installed(name: str, module: types.ModuleType) -> bool:
    """Whether a module would be there for any program, and not only for the tests."""
    top = name.partition(".")[0]
    if top in DROPPED:
        return False
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(top, module), "__file__", None)
    return file is not None and is_in_prefix(file)


def is_in_prefix(path: str) -> bool:
    """Whether a path is one of this Python's own."""
    return os.path.realpath(path).startswith(INSTALLED)


def run(program: Program) -> int:
    """Run a program as the main module and return its exit code."""
    unbuffered = 1 if "-u" in program.switches else -1
    # Not closed with the objects: one that is forked in turn has others for the same descriptors.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w", unbuffered, closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv[:] = ["-c" if program.kind == "-c" else program.text, *program.arguments]
    sys.path[:] = [*own_paths(program), *filter(is_in_prefix, sys.path)]
    sys.path_importer_cache.clear()
    for folder in filter(os.path.isdir, site.getsitepackages()):  # Debian names some that are not there
        site.addsitedir(folder)  # what *.pth files name
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        if program.kind == "-m":
            runpy._run_module_as_main(program.text)  # type: ignore[attr-defined]
        elif program.kind == "-c":
            exec(compile(program.text, "<string>", "exec", dont_inherit=True), vars(main))
        else:
            main.__file__ = os.path.abspath(program.text)
            exec(compile(Path(program.text).read_bytes(), main.__file__, "exec", dont_inherit=True), vars(main))
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # without this frame
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def own_paths(program: Program) -> list[str]:
    """Return where a program's modules are looked for before those that are installed."""
    first = {"-c": "", "-m": os.getcwd()}.get(program.kind, str(Path(program.text).resolve().parent))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return given if "-P" in program.switches else [first, *given]


def leave(code: int) -> NoReturn:
    """End as an interpreter does, without going back into the tests."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(code)
