"""How a training gets from the process that asked for it to the processes that do it, and its outcome back.

Whole trainers travel by cloudpickle: what the user's script, notebook or closures define goes by value, so the script
is never run again. Nothing here outlives the run: all files lie in a temporary folder that only these processes know.
"""

from __future__ import annotations

import inspect
import io
import os
import pickle
import re
import shutil
import stat
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # has no stubs
import torch

from eyas.data.formats import FORMATS
from eyas.files import hold, opened, write_atomic
from eyas.launch.return_trip import Arrived, Sent
from eyas.log import warn
from eyas.models.catalog import register_detector, registered_detectors
from eyas.names import a_few

PICKLING_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError, OSError)

PREFIX = "eyas-"  # of the folders' names, in the system's folder for temporary files
LOCK = "in-use"  # held by every process of the run

NAMED = 6  # of what stays behind

# What gloo says when the process at the other end is gone; NCCL and the store have an exception class for it.
LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl")


class LostPeerError(ConnectionError):
    """Another process of the run is gone; said in place of what libraries say of their sockets."""


# -- the files ---------------------------------------------------------------------------------------------------------
def payload_file(folder: Path) -> Path:
    """Where the trainer lies."""
    return folder / "trainer.pkl"


def result_file(folder: Path) -> Path:
    """Where the main process leaves its result, and what it has changed in what it was sent."""
    return folder / "result.pkl"


def failure_file(folder: Path, attempt: int, rank: int) -> Path:
    """Where a process leaves the reason of its end."""
    return folder / f"failure-{attempt}-{rank}.pkl"


def process_file(folder: Path, rank: int) -> Path:
    """Where a process leaves its number."""
    return folder / f"process-{rank}"


def occupy(folder: Path) -> int:
    """Return an open file that keeps the folder from being swept away as long as it, or this process, is there."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    hold(handle, shared=True)
    return handle


def sweep_folders() -> list[Path]:
    """Delete the folders of this user's runs that were killed with all their processes, and return them."""
    swept = []
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if not is_own_folder(folder):
                continue  # another user may have put there what they like, such as a FIFO for whoever looks
            with opened(folder / LOCK) as file:
                if not hold(file.fileno()):
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder)
    return swept


def is_own_folder(path: Path) -> bool:
    """Whether it is a folder of this user's, and no link to one."""
    info = path.lstat()
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()


# -- there -------------------------------------------------------------------------------------------------------------
def pack(trainer: Any, processes: int) -> tuple[bytes, Sent]:
    """Return a trainer that is not set up yet, what its imports need, and what was registered here, as bytes.

    The second value knows the objects in it again, to take back what becomes of them.

    Raises:
        ValueError: something in it cannot be pickled; names what and where.
    """
    with by_value(strangers()):
        try:
            file = io.BytesIO()
            pickler = Pickler(file)
            pickler.dump((registered_detectors(), dict(FORMATS), trainer))
        except PICKLING_ERRORS as error:
            raise ValueError(
                f"this training cannot be sent to {processes} processes: {describe_culprit(trainer, error)} "
                "Make it in on_pretrain_routine_start, which runs in every process, or keep it out of what the "
                "trainer, its callbacks and its model refer to."
            ) from error
    finders = [finder for finder in sys.meta_path if is_ours(finder)]
    around = {"path": sys.path, "argv": sys.argv, "finders": cloudpickle.dumps(finders)}
    return pickle.dumps({**around, "trainer": file.getvalue()}), pickler.sent()


def unpack(content: bytes) -> tuple[Any, Arrived]:
    """Return the trainer, after this interpreter was made to find modules, detectors and label formats as the first.

    The second value tells later what was changed in it.
    """
    outer = pickle.loads(content)
    sys.path[:] = outer["path"]
    sys.argv[:] = outer["argv"]
    sys.meta_path[:0] = [finder for finder in pickle.loads(outer["finders"]) if finder not in sys.meta_path]
    unpickler = pickle.Unpickler(io.BytesIO(outer["trainer"]))
    detectors, formats, trainer = unpickler.load()
    FORMATS.update(formats)
    for cls in detectors:
        register_detector(cls)
    return trainer, Arrived(unpickler.memo.copy(), trainer)


def is_ours(finder: object) -> bool:
    """Whether an importer belongs to this library: those of others install themselves at start-up."""
    module = finder.__module__ if isinstance(finder, type) else type(finder).__module__
    return module.partition(".")[0] == "eyas"


def strangers() -> list[types.ModuleType]:
    """Return imported modules that a new interpreter would not find by their name: they must travel by value."""
    known = sys.stdlib_module_names | {"__main__", "__mp_main__", "eyas"}
    modules = [
        (name, module)
        for name, module in list(sys.modules.items())
        if isinstance(module, types.ModuleType) and ("." not in name or name.partition(".")[0] not in sys.modules)
    ]
    return [module for name, module in modules if name.partition(".")[0] not in known and is_stranger(name, module)]


def is_stranger(name: str, module: types.ModuleType) -> bool:
    """Whether importing ``name`` anew would not give this module of Python code."""
    file = getattr(module, "__file__", None)
    if module.__name__ != name or (file is not None and not file.endswith(".py")):
        return False
    if file is None:  # a namespace package, or made by hand; what extension modules make by hand is not Python
        return getattr(module, "__spec__", None) is None and defines_python(module)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec.origin is None or os.path.realpath(spec.origin) != os.path.realpath(file)
    return True


def defines_python(module: types.ModuleType) -> bool:
    """Whether a module holds a function, or a class with one, that was written in it."""
    values = list(vars(module).values())
    own = [value for value in values if isinstance(value, type) and value.__module__ == module.__name__]
    functions = [f for f in (*values, *(v for c in own for v in vars(c).values())) if isinstance(f, types.FunctionType)]
    return any(function.__globals__ is vars(module) for function in functions)


@contextmanager
def by_value(modules: list[types.ModuleType]) -> Iterator[None]:
    """Pickle classes and functions of these modules whole inside the block, not by name."""
    modules = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


# -- what cannot travel ------------------------------------------------------------------------------------------------
def describe_culprit(trainer: Any, error: BaseException) -> str:
    """Say which value cannot be pickled, and where it was put there."""
    value, path, owner = trainer, "trainer", trainer
    seen: set[int] = set()
    while (step := first_unpicklable(value, seen)) is not None:
        label, child = step
        owner = value if label.startswith(".") else owner
        value, path = child, path + label
    attribute = re.search(r"\.(\w+)(\[[^.]*\])?$", path)
    where = assignment_line(type(owner), attribute[1]) if attribute else ""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{path}{where} is a {kind}, which cannot be pickled ({error})."


def first_unpicklable(value: Any, seen: set[int]) -> tuple[str, Any] | None:
    """Return the first part of a value that cannot be pickled, and how it hangs on it; None for a value without."""
    for label, child in parts_of(value):
        if id(child) not in seen:
            seen.add(id(child))
            if not can_be_pickled(child):
                return label, child
    return None


def can_be_pickled(value: Any) -> bool:
    """Whether a value survives alone."""
    try:
        cloudpickle.dumps(value)
    except PICKLING_ERRORS:
        return False
    return True


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what pickling a value would follow, with labels that read on from the value's own name."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__self__), ("", value.__func__))
    elif isinstance(value, partial):
        yield from (("", value.func), ("", value.args), ("", value.keywords))
    elif isinstance(value, types.FunctionType):
        code, where = value.__code__, f", which {value.__qualname__} uses ({place(value.__code__)})"
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            yield f" -> variable {name!r}{where}", cell.cell_contents
        for name in sorted(global_names(code) & value.__globals__.keys()):
            yield f" -> global variable {name!r}{where}", value.__globals__[name]
    elif isinstance(value, type):
        for name, member in vars(value).items():
            plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            yield f".{name}", plain.fget if isinstance(plain, property) else plain
        yield from ((f" -> base class {base.__name__}", base) for base in value.__bases__)
    else:
        yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())
        yield f" -> class {type(value).__name__}", type(value)


def global_names(code: types.CodeType) -> set[str]:
    """Return the global names that a function, or one inside it, mentions."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*(global_names(const) for const in inner))


def place(code: types.CodeType) -> str:
    """Return file and line of a function."""
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"


def assignment_line(cls: type, attribute: str) -> str:
    """Return where a class assigns an attribute, as far as its source can be read."""
    try:
        file, (lines, first) = inspect.getsourcefile(cls), inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return ""
    for number, line in enumerate(lines, first):
        if re.search(rf"\bself\.{attribute}\b[^=]*=[^=]", line):
            return f" ({Path(file or '').name}, line {number}: {line.strip()})"
    return ""


# -- and back ----------------------------------------------------------------------------------------------------------
class Pickler(cloudpickle.Pickler):
    """cloudpickle's, with one variable that several closures share still shared at the other end.

    As it is, every function is rebuilt with variables of its own, so one callback would count and another read 0.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.cells: dict[int, types.CellType] = {}
        self.stand_ins: dict[int, object] = {}  # id of what travels -> the variable, or the variables, it stands for

    def reducer_override(self, thing: Any) -> Any:
        """Let code keep the name of its file, which some versions of cloudpickle leave out: tracebacks show it."""
        if isinstance(thing, types.CodeType):
            make, arguments = self.dispatch_table[types.CodeType](thing)
            return code_of_file, (thing.co_filename, make, arguments)
        return super().reducer_override(thing)

    def _function_getnewargs(self, function: Any) -> Any:
        code, variables, *head, closure = super()._function_getnewargs(function)
        self.stand_ins[id(variables)] = function.__globals__
        if function.__closure__ is not None:
            closure = tuple(self.stand_in(cell) for cell in function.__closure__)
        return (code, variables, *head, closure)

    def stand_in(self, cell: types.CellType) -> types.CellType:
        """Return the variable that travels in place of one of a closure, always the same."""
        travels = self.cells.setdefault(id(cell), types.CellType())
        self.stand_ins[id(travels)] = cell
        return travels

    def sent(self) -> Sent:
        """Return the objects that were pickled, by their number."""
        return Sent(self.memo.copy(), self.stand_ins)


def code_of_file(file: str, make: Callable[..., types.CodeType], arguments: tuple[Any, ...]) -> types.CodeType:
    """Return the code that ``make(*arguments)`` gives, as that of a file."""
    return make(*arguments).replace(co_filename=file)


def dumps(value: Any) -> bytes:
    """Return a trainer or a result as bytes; it may hold functions and classes that the user's script defines."""
    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def write_outcome(folder: Path, result: Any, arrived: Arrived) -> None:
    """Leave the result, and what was changed in the trainer and around it."""
    write_atomic(result_file(folder), pickle.dumps((dumps(result), arrived.changes())))


def read_outcome(folder: Path, sent: Sent) -> Any:
    """Return the result, after what the main process changed in the trainer and around it was changed here too."""
    result, changes = pickle.loads(result_file(folder).read_bytes())
    if left := sent.take_back(changes):
        warn(
            f"left behind in the processes of the training: {a_few(left, NAMED)}. Plain values, arrays and tensors "
            "come back from the main one."
        )
    return pickle.loads(result)


@dataclass(frozen=True)
class Failure:
    """Why a process ended.

    Attributes:
        rank: its number.
        time: when it happened, seconds since the epoch.
        text: the traceback, as Python prints it.
        message: the error in one line.
        lost_peer: another process was gone, so this is a consequence and not the cause.
        error: the exception, pickled; None if it cannot be.
    """

    rank: int
    time: float
    text: str
    message: str
    lost_peer: bool
    error: bytes | None

    def exception(self) -> BaseException | None:
        """Return the exception itself, where it can be rebuilt."""
        return unpickled(self.error) if self.error is not None else None


def describe_failure(rank: int, error: BaseException) -> Failure:
    """Return what another process must know about an error."""
    message = "".join(traceback.format_exception_only(error)).strip()
    text = "".join(traceback.format_exception(error)).rstrip()
    return Failure(rank, time.time(), text, message, is_lost_peer(error), pickled(error))


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error, or what led to it, is that another process did not answer."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).lower()
        if isinstance(cause, torch.distributed.DistError | LostPeerError):
            return True
        if isinstance(cause, RuntimeError) and any(word in text for word in LOST):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def pickled(error: BaseException) -> bytes | None:
    """Return an exception as bytes; None if it would not come back as what it is."""
    try:
        content = cloudpickle.dumps(error)
    except PICKLING_ERRORS:
        return None
    return content if type(unpickled(content)) is type(error) else None


def unpickled(content: bytes) -> BaseException | None:
    """Return an exception from bytes; constructors that want other arguments than the message fail."""
    try:
        return pickle.loads(content)
    except (*PICKLING_ERRORS, ImportError, KeyError):
        return None


def read_failures(folder: Path) -> dict[int, list[Failure]]:
    """Return what processes reported, by attempt, in the order in which it happened."""
    found: dict[int, list[Failure]] = {}
    for path in folder.glob("failure-*.pkl"):
        found.setdefault(int(path.stem.split("-")[1]), []).append(pickle.loads(path.read_bytes()))
    return {attempt: sorted(failures, key=lambda f: f.time) for attempt, failures in sorted(found.items())}


def causes(folder: Path) -> list[BaseException]:
    """Return the exceptions that have ended processes so far, as far as they could be handed over."""
    reported = (failure.exception() for failures in read_failures(folder).values() for failure in failures)
    return [error for error in reported if error is not None]
