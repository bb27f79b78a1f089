"""A pickle read as data: its instructions are followed, but nothing that it names is imported, called or constructed.

Pickle is a small program for a stack machine. Here every instruction only moves plain values about; a global becomes a
`Name`, an object of any class a `Stub` that holds what it would have been given. The few functions that files of
weights really need are known below, by name, and are answered with values of our own. A file that wants any other
function called is refused: no weights need one, so somebody put it there.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eyas.checkpoint.errors import CheckpointError, CodeInFileError


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names; nobody looked it up."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Module and name."""
        return f"{self.module}.{self.name}"

    def __str__(self) -> str:
        """Module and name, for people: at most a line."""
        path = self.path
        return path if path.isprintable() and len(path) <= SHOWN else f"{path[:SHOWN]!a}..."


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
    """A block of numbers beside the pickle: the name of its member in the archive, its type and its length."""

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor over a block of numbers; offsets, sizes and strides in elements, not checked against the block yet.

    ``dtype`` is the name of the type of its elements where that of the block does not say it, else None.
    """

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None
    requires_grad: bool = False
    is_parameter: bool = False


INSTRUCTIONS: Final = 1_000_000  # the largest networks, with the state of an optimizer, take some 150,000
DIMENSIONS: Final = 8  # of a tensor; weights have up to 5
SIDE: Final = 2**48  # of a tensor: more than any memory has, and far from the end of 64 bits
SPARE: Final = 1000  # items that any description may have copied, beside one for each of its bytes
KEY_BITS, KEY_LENGTH = 61, 2**16  # of a key: numbers with fewer bits have different hashes
SHOWN: Final = 80  # letters of a name


# -- the functions that weights need, answered with values of our own --------------------------------------------------
def _tensor(args: tuple[Any, ...]) -> TensorRef:
    """(block, offset, size, stride, requires_grad, hooks, flags): what its block says of its elements holds."""
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise CheckpointError("a tensor in it is not described as torch describes tensors")
    storage, offset, size, stride = args[:4]
    shaped = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= DIMENSIONS
    if not shaped or not all(type(n) is int and 0 <= n < SIDE for n in (offset, *size, *stride)):
        raise CheckpointError("a tensor in it has an impossible shape")
    if len(args) > 6 and args[6]:
        raise CheckpointError("a tensor in it is conjugated or negated when it is read, which no weights are")
    return TensorRef(storage, offset, size, stride, requires_grad=len(args) > 4 and args[4] is True)


def _tensor_of_type(args: tuple[Any, ...]) -> TensorRef:
    """As `_tensor`, with the type of the elements before the flags."""
    match args[6:7]:
        case (Name(module="torch", name=dtype),):
            return replace(_tensor((*args[:6], *args[7:])), dtype=dtype)
    raise CheckpointError("a tensor in it is not described as torch describes tensors")


def _parameter(args: tuple[Any, ...]) -> Any:
    """(tensor, requires_grad, hooks)."""
    if not args:
        raise CheckpointError("a parameter in it has no tensor")
    if not isinstance(args[0], TensorRef):
        return args[0]
    return replace(args[0], is_parameter=True, requires_grad=len(args) > 1 and args[1] is True)


def _mapping(args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    pairs = args[0] if args else []
    if isinstance(pairs, dict):
        return OrderedDict(pairs)
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise CheckpointError("a dictionary in it is not made of pairs")
    return OrderedDict((_key(key), value) for key, value in pairs)


def _sequence(args: tuple[Any, ...]) -> list[Any]:
    return list(args[0]) if args and isinstance(args[0], (list, tuple)) else []  # a set's items too: order is as good


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_sequence(args))


ANSWERS: Final[dict[str, Callable[[tuple[Any, ...]], Any]]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
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
        "collections.Counter",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
    }
)
IDLE_PACKAGES: Final[tuple[str, ...]] = (
    *("torch.nn.modules.", "torch._utils._rebuild_", "torch.jit._pickle.", "ultralytics.", "__main__."),
)


@dataclass(frozen=True, slots=True, eq=False)
class OddKey:
    """A key of a dictionary that is no plain value, or a large one, and is therefore neither hashed nor compared.

    Hashing a tuple of tuples of tuples ... exhausts the interpreter's stack; comparing long texts, and numbers or
    tuples that were chosen to have one hash, takes as long as whoever wrote them likes.
    """

    key: Any


def is_key(key: object) -> bool:
    """Whether a dictionary may have this key as it is."""
    if type(key) is int:
        return key.bit_length() < KEY_BITS
    if type(key) in (str, bytes):
        return len(key) <= KEY_LENGTH  # type: ignore[arg-type]
    return key is None or type(key) in (float, bool)


def _key(key: Any) -> Any:
    return key if is_key(key) else OddKey(key)


# -- the machine -------------------------------------------------------------------------------------------------------
PUSH: Final = (
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
FIXED: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SKIP: Final = ("PROTO", "FRAME")
OPCODES: Final = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg else None)
    for opcode in pickletools.opcodes
}
"""Instructions by their byte: the name, and what reads the argument."""
NO_OPCODE: Final = ("", None)
_MARK: Final = object()


def read_pickle(data: bytes) -> Any:
    """Follow a pickle's instructions and return what it describes, in plain values, `Name`, `Stub` and `TensorRef`.

    Raises:
        CheckpointError: it is damaged, wants a function called that no weights need, or is no pickle of torch.save.
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
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"its description is damaged: {str(error)[:SHOWN]}") from None

    def follow(self, data: bytes) -> Any:
        stream = io.BytesIO(data)
        for _ in range(INSTRUCTIONS):
            name, read = OPCODES.get(stream.read(1), NO_OPCODE)
            argument = read(stream) if read else None
            if name in PUSH:
                self.stack.append(FIXED.get(name, argument))
            elif name == "STOP":
                return self.pop()
            elif name not in SKIP:
                self.step(name, argument)
        raise CheckpointError(f"its description has more than {INSTRUCTIONS:,} parts, which no weights need")

    def step(self, name: str, argument: Any) -> None:
        if not name:
            raise CheckpointError("its description is damaged, or ends too early")
        if name not in STEPS:
            raise CheckpointError(f"it uses the pickle instruction {name}, which torch.save never writes")
        STEPS[name](self, argument)

    def pop(self) -> Any:
        if not self.stack:
            raise CheckpointError("its description is damaged")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                found = self.stack[i + 1 :]
                del self.stack[i:]
                return found
        raise CheckpointError("its description is damaged")

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
            raise CheckpointError("its description is damaged: items for something that has none")

    def setitem(self, _: Any) -> None:
        value = self.pop()
        self.update([self.pop(), value])

    def setitems(self, _: Any) -> None:
        self.update(self.pop_to_mark())

    def update(self, flat: list[Any]) -> None:
        target = self.pop()
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        elif isinstance(target, Stub):
            target.items.extend(pairs)
        else:
            raise CheckpointError("its description is damaged: entries for something that has none")
        self.stack.append(target)

    # memory
    def get(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError("its description is damaged")
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
            raise CheckpointError("its description is damaged: a name that is no text")
        self.stack.append(Name(module, name))

    def newobj(self, _: Any) -> None:
        args, cls = self.pop(), self.pop()
        if not isinstance(cls, Name):
            raise CheckpointError("its description is damaged: an object without a class")
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
            raise CheckpointError("its description copies itself without end")

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Stub):
            target.state = state
        elif isinstance(target, OrderedDict) and isinstance(state, dict) and "_metadata" in state:
            target._metadata = state["_metadata"]  # type: ignore[attr-defined]  # the versions of a module's layers
        elif not isinstance(target, dict):  # other attributes of a dictionary are of no use here
            raise CheckpointError("its description is damaged: a state for something that has none")
        self.stack.append(target)

    def binpersid(self, _: Any) -> None:
        """A block of numbers: ("storage", type, key, device, length)."""
        match self.pop():
            case ("storage", Name(module="torch" | "torch.storage", name=kind), str(key), str(), int(numel)) if (
                0 <= numel < SIDE
            ):
                self.stack.append(StorageRef(key, kind, numel))
            case _:
                raise CheckpointError("it refers to something beside it that is no block of numbers")


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
    path = function.path
    if path in ANSWERS:
        return ANSWERS[path](args)
    if path in IDLE or path.startswith(IDLE_PACKAGES):
        return Stub(function, args)
    raise CodeInFileError(f"it asks to call {function}, which no weights need; do not trust where it came from")
