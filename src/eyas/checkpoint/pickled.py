"""A pickle read as data: its instructions are followed, but nothing that it names is imported, called or constructed.

Pickle is a small program for a stack machine. Here every instruction only moves plain values about; a global becomes a
`Name`, an object of any class a `Stub` that holds what it would have been given. The few functions that files of
weights really need are known below, by name, and are answered with values of our own. A file that wants any other
function called is refused: no weights need one, so somebody put it there.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final


class ForeignFileError(ValueError):
    """A file cannot be read as weights, or asks for something that weights never need. Nothing in it was run."""


class CodeInFileError(ForeignFileError):
    """A file asks for something to be called."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names; nobody looked it up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Stub:
    """What an object of some class would have been made from: its arguments, its state, its items."""

    cls: Name
    args: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def attributes(self) -> dict[Any, Any]:
        """The object's attributes, as its state gives them."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state if isinstance(state, dict) else {}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A block of numbers beside the pickle: the name of its file in the archive, its type and its length."""

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor over a block of numbers; offsets, sizes and strides in elements, not checked yet."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


DIMENSIONS: Final = 8  # of a tensor; weights have up to 5
SPARE: Final = 1000  # items that any description may have copied, beside one for each of its bytes


# -- the functions that weights need, answered with values of our own --------------------------------------------------
def _tensor(args: tuple[Any, ...]) -> TensorRef:
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise ForeignFileError("a tensor in it is not described as torch describes tensors")
    storage, offset, size, stride = args[:4]
    shaped = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= DIMENSIONS
    if not shaped or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ForeignFileError("a tensor in it has an impossible shape")
    return TensorRef(storage, offset, size, stride)


def _first(args: tuple[Any, ...]) -> Any:
    if not args:
        raise ForeignFileError("a parameter in it has no tensor")
    return args[0]


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = args[0] if args else []
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise ForeignFileError("a dictionary in it is not made of pairs")
    return {key: value for key, value in pairs if _is_key(key)}


def _sequence(args: tuple[Any, ...]) -> list[Any]:
    return list(args[0]) if args and isinstance(args[0], (list, tuple)) else []  # a set's items too: order is as good


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_sequence(args))


ANSWERS: Final[dict[str, Callable[[tuple[Any, ...]], Any]]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "collections.OrderedDict": _mapping,
    "__builtin__.set": _sequence,
    "builtins.set": _sequence,
    "torch.Size": _size,
}
# Called in sound files, for things that we have no use for: kept as stubs (spec core H.2).
IDLE: Final[frozenset[str]] = frozenset(
    {
        "torch.device",
        "builtins.getattr",
        "__builtin__.getattr",
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "collections.defaultdict",
    }
)
IDLE_PACKAGES: Final[tuple[str, ...]] = ("torch.nn.modules.", "ultralytics.", "__main__.")


def _is_key(key: object) -> bool:
    """Whether a dictionary may have this key; others belong to entries that nothing here reads, and are left out.

    Hashing a tuple of tuples of tuples ... can exhaust the interpreter's stack, so they are not hashed at all.
    """
    return key is None or type(key) in (str, int, float, bool, bytes)


# -- the machine -------------------------------------------------------------------------------------------------------
PUSH: Final = (
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
FIXED: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SKIP: Final = ("PROTO", "FRAME")
_MARK: Final = object()


def read_pickle(data: bytes) -> Any:
    """Follow a pickle's instructions and return what it describes, in plain values, `Name`, `Stub` and `TensorRef`.

    Raises:
        ForeignFileError: it is damaged, wants a function called that no weights need, or is no pickle of torch.save.
    """
    return _Machine().run(data)


class _Machine:
    """The stack machine; `STEPS` says which method answers which instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = SPARE  # items that calls may still copy

    def run(self, data: bytes) -> Any:
        self.budget = len(data) + SPARE  # every item takes a byte at least, and is copied once
        try:
            with warnings.catch_warnings():  # pickletools warns of a broken name where it could refuse it
                warnings.simplefilter("error", DeprecationWarning)
                return self.follow(data)
        except (ValueError, IndexError, DeprecationWarning) as error:
            if isinstance(error, ForeignFileError):
                raise
            raise ForeignFileError(f"its description is damaged: {error}") from None

    def follow(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in PUSH:
                self.stack.append(FIXED.get(name, argument))
            elif name == "STOP":
                return self.pop()
            elif name not in SKIP:
                self.step(name, argument)
        raise ForeignFileError("its description ends too early")

    def step(self, name: str, argument: Any) -> None:
        if name not in STEPS:
            raise ForeignFileError(f"it uses the pickle instruction {name}, which torch.save never writes")
        STEPS[name](self, argument)

    def pop(self) -> Any:
        if not self.stack:
            raise ForeignFileError("its description is damaged")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise ForeignFileError("its description is damaged")

    # containers
    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def empty_list(self, _: Any) -> None:
        self.stack.append([])

    def empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def tuple1(self, _: Any) -> None:
        self.stack.append((self.pop(),))

    def tuple2(self, _: Any) -> None:
        second = self.pop()
        self.stack.append((self.pop(), second))

    def tuple3(self, _: Any) -> None:
        third, second = self.pop(), self.pop()
        self.stack.append((self.pop(), second, third))

    def tuple_(self, _: Any) -> None:
        found = self.pop_to_mark()
        self.stack.append((*found,))

    def frozenset_(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def append(self, _: Any) -> None:
        self.extend([self.pop()])

    def appends(self, _: Any) -> None:
        self.extend(self.pop_to_mark())

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if isinstance(target, (list, Stub)):
            (target if isinstance(target, list) else target.items).extend(values)
            self.stack.append(target)
        else:
            raise ForeignFileError("its description is damaged: items for something that has none")

    def setitem(self, _: Any) -> None:
        value = self.pop()
        self.update([self.pop(), value])

    def setitems(self, _: Any) -> None:
        self.update(self.pop_to_mark())

    def update(self, flat: list[Any]) -> None:
        target = self.pop()
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(target, dict):
            target.update((key, value) for key, value in pairs if _is_key(key))
        elif isinstance(target, Stub):
            target.items.extend(pairs)
        else:
            raise ForeignFileError("its description is damaged: entries for something that has none")
        self.stack.append(target)

    # memory
    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ForeignFileError("its description is damaged")
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # names, objects and calls
    def global_(self, text: str) -> None:
        self.stack.append(Name(*text.split(" ", 1)))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ForeignFileError("its description is damaged: a name that is no text")
        self.stack.append(Name(module, name))

    def newobj(self, _: Any) -> None:
        args, cls = self.pop(), self.pop()
        if not isinstance(cls, Name):
            raise ForeignFileError("its description is damaged: an object without a class")
        self.stack.append(Stub(cls, args))

    def reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(args, tuple):
            raise CodeInFileError("it asks to call something that is no function")
        self.charge(args)
        self.stack.append(_answer(function, args))

    def charge(self, args: tuple[Any, ...]) -> None:
        """Pay for what a call may copy: remembered arguments could be copied again and again."""
        if args and isinstance(args[0], (list, tuple, dict)):
            self.budget -= len(args[0])
        if self.budget < 0:
            raise ForeignFileError("its description copies itself without end")

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Stub):
            target.state = state
        elif not isinstance(target, dict):  # a dictionary's own attributes are of no use here
            raise ForeignFileError("its description is damaged: a state for something that has none")
        self.stack.append(target)

    def binpersid(self, _: Any) -> None:
        """A block of numbers: ("storage", type, key, device, length)."""
        match self.pop():
            case ("storage", Name(module="torch", name=kind), str(key), str(), int(numel)) if numel >= 0:
                self.stack.append(StorageRef(key, kind, numel))
            case _:
                raise ForeignFileError("it refers to something beside it that is no block of numbers")


STEPS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _Machine.mark,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_SET": _Machine.empty_list,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "TUPLE": _Machine.tuple_,
    "FROZENSET": _Machine.frozenset_,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "NEWOBJ": _Machine.newobj,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.binpersid,
}


def _answer(function: Name, args: tuple[Any, ...]) -> Any:
    """Return what stands for a call; the function itself is never looked up."""
    name = str(function)
    if name in ANSWERS:
        return ANSWERS[name](args)
    if name in IDLE or name.startswith(IDLE_PACKAGES):
        return Stub(function, args)
    raise CodeInFileError(f"it asks to call {name}, which no weights need; do not trust where it came from")
