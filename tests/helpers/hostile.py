"""Checkpoints that were crafted or damaged, each made from a sound one: what a reader of files from others meets.

`ATTACKS` names one file for each kind of harm, and says what its refusal must speak of. They are made with torch and
`struct` alone, never with what they attack.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Content = dict[str, Any]


# -- archives written byte by byte -------------------------------------------------------------------------------------
@dataclass
class Member:
    """One member of an archive, and the lies that are told about it; None tells the truth."""

    name: str
    data: bytes
    crc: int | None = None
    size: int | None = None  # when it is unpacked
    packed: int | None = None
    method: int = 0
    flags: int = 0
    offset: int | None = None  # of its own header
    extra: bytes = b""

    def header(self, offset: int | None = None) -> bytes:
        """Return its header, or its line of the directory if it lies at ``offset``."""
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        packed = len(self.data) if self.packed is None else self.packed
        size = len(self.data) if self.size is None else self.size
        name = self.name.encode()
        facts = struct.pack("<HHHHLLL", self.flags, self.method, 0, 0, crc, packed, size)
        if offset is None:
            return b"PK\x03\x04\x00\x00" + facts + struct.pack("<HH", len(name), 0) + name
        place = offset if self.offset is None else self.offset
        lengths = struct.pack("<HHHHHLL", len(name), len(self.extra), 0, 0, 0, 0, place)
        return b"PK\x01\x02\x00\x00\x00\x00" + facts + lengths + name + self.extra


def zipped(members: list[Member], count: int | None = None, tail: bytes = b"", before: bytes = b"") -> bytes:
    """Return an archive; ``count`` is how many members it says to have, ``before`` lies between directory and end."""
    body, lines = io.BytesIO(), []
    for member in members:
        lines.append(member.header(body.tell()))
        body.write(member.header() + member.data)
    start, directory = body.tell(), b"".join(lines)
    number = min(len(members) if count is None else count, 0xFFFF)
    end = struct.pack("<HHHHLLH", 0, 0, number, number, len(directory), start, 0)
    return body.getvalue() + directory + before + b"PK\x05\x06" + end + tail


def members_of(archive: Path | bytes) -> list[Member]:
    """Return what an archive of ``torch.save`` holds."""
    with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive) as file:
        return [Member(info.filename, file.read(info)) for info in file.infolist()]


def rewritten(sound: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Return the archive with another description, whose checksum is right."""
    members = members_of(sound)
    for member in members:
        if member.name.endswith("/data.pkl"):
            member.data = change(member.data)
    return zipped(members)


def saved(content: Any) -> bytes:
    """Return what ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def changed(sound: Path, change: Callable[[Content], object]) -> bytes:
    """Return the checkpoint after a change to its content, written by torch."""
    content = torch.load(sound, weights_only=True)
    change(content)
    return saved(content)


def text(value: str) -> bytes:
    """Return the instruction of a pickle that pushes a text."""
    data = value.encode()
    return b"X" + struct.pack("<L", len(data)) + data


def with_entry(key: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Return a change that gives the described dictionary one entry more, both written as instructions."""
    return lambda description: description[:-1] + key + value + b"s."


# -- places in a checkpoint --------------------------------------------------------------------------------------------
def first_weight(content: Content) -> str:
    """Return the name of the first weight of a convolution."""
    return next(name for name, tensor in content["model"].items() if tensor.ndim == 4)


def weight(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Content], None]:
    """Return a change of one weight, where it is trained and where it is averaged."""

    def apply(content: Content) -> None:
        name = first_weight(content)
        content["model"][name] = change(content["model"][name])
        if "state" in content:
            content["state"]["model"][name] = change(content["state"]["model"][name])

    return apply


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a change of one number of a tensor."""

    def apply(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous().clone(memory_format=torch.contiguous_format)
        tensor.view(-1)[0] = value
        return tensor

    return apply


def put(**entries: Any) -> Callable[[Content], None]:
    """Return a change of whole entries."""
    return lambda c: c.update(entries)


def table(**entries: Any) -> Callable[[Content], None]:
    """Return a change of entries of the table of layers."""
    return lambda content: content["yaml"].update(entries)


def row(*cells: Any, at: int = 1) -> Callable[[Content], None]:
    """Return a change of one row of the table, whose channels are neither scaled nor bounded then."""

    def apply(content: Content) -> None:
        backbone = [list(r) for r in content["yaml"]["backbone"]]
        backbone[at] = list(cells)
        content["yaml"].update(backbone=backbone, scales={"n": [1.0, 1.0, float("inf")]}, scale="n")

    return apply


def laughs() -> list[Any]:
    """Return a list of two lists of two lists ..., which are few objects and 2 ** 50 values."""
    inner: list[Any] = []
    for _ in range(50):
        inner = [inner, inner]
    return inner


# -- the files ---------------------------------------------------------------------------------------------------------
Maker = Callable[[Path], bytes]


def content(change: Callable[[Content], object]) -> Maker:
    """Return what makes a checkpoint with other content, written by torch."""
    return lambda sound: changed(sound, change)


def entry(value: bytes, key: bytes = text("x")) -> Maker:
    """Return what makes a checkpoint with one entry more, written as instructions."""
    return lambda sound: rewritten(sound, with_entry(key, value))


def member(*more: Member, **lies: Any) -> Maker:
    """Return what makes a checkpoint with more members, and lies about them."""
    return lambda sound: zipped([*members_of(sound), *more], **lies)


def numbers(kind: str, numel: int, size: tuple[int, ...], stride: tuple[int, ...], *blocks: bytes) -> Maker:
    """Return what makes a checkpoint of one tensor, over blocks of numbers of one's own."""
    return lambda _: of_one_weight(tensor(kind, numel, size, stride), *blocks)


def flipped(end: str) -> Maker:
    """Return what changes one bit in the first long member whose name has this end, or is in this folder."""

    def make(sound: Path) -> bytes:
        data = bytearray(sound.read_bytes())
        with zipfile.ZipFile(sound) as file:
            info = next(i for i in file.infolist() if end in i.filename and i.file_size > 64)
        name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
        data[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 1
        return bytes(data)

    return make


def bomb(sound: Path) -> bytes:
    """Two megabytes that unpack to two gigabytes of zeros, all of which a tensor claims."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)) * 128 + packer.flush()
    parts = members_of(of_one_weight(tensor("FloatStorage", 1 << 29, (1 << 29,), (1,))))
    return zipped([*parts, Member("archive/data/0", packed, crc=0, size=1 << 31, method=8)])


def compressed(sound: Path) -> bytes:
    """Everything sound, but packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for part in members_of(sound):
            file.writestr(part.name, part.data)
    return buffer.getvalue()


def absolute(sound: Path) -> bytes:
    """Every name begins at the root of the disk."""
    parts = members_of(sound)
    for part in parts:
        part.name = f"/{part.name}"
    return zipped(parts)


def overlapping(sound: Path) -> bytes:
    """Nine members more, whose bytes are those of the largest one, which are there once."""
    parts = members_of(sound)
    kernel = max(parts, key=lambda part: len(part.data))
    place = zipped(parts).index(kernel.header())
    for i in range(9):
        again = Member(f"{kernel.name}{i}", b"", zlib.crc32(kernel.data), len(kernel.data), offset=place)
        again.packed = len(kernel.data)
        parts.append(again)
    return zipped(parts)


def zip64(parts: list[Member], count: int, size: int, start: int) -> bytes:
    """A second end of the directory, for large files, that says something else than the first."""
    place = len(b"".join(part.header() + part.data + part.header(0) for part in parts))
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    return zipped(parts, 0xFFFF, before=record + struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1))


def countless(sound: Path) -> bytes:
    """Three hundred thousand members without anything in them; every number fits the others."""
    nothing, times = Member("archive/x", b""), 300_000
    line = nothing.header(0)
    ends = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, times, times, len(line) * times, 39)
    ends += struct.pack("<4sLQL", b"PK\x06\x07", 0, 39 + len(line) * times, 1)
    last = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(line) * times, 39, 0)
    return nothing.header() + line * times + ends + last


def tensor(kind: str, numel: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return the instructions that describe a tensor over the block ``data/0`` of ``numel`` numbers."""

    def number(n: int) -> bytes:
        return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)

    def several(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(numel) + b"tQ"
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + several(size) + several(stride)
    return start + b"\x89ccollections\nOrderedDict\n)RtR"


def of_one_weight(weight: bytes, *blocks: bytes) -> bytes:
    """Return a checkpoint that describes one weight, with blocks of numbers of one's own."""
    about = b"}" + text("format") + b"K\x01s" + text("version") + text("0") + b"s"
    description = b"\x80\x02}" + text("eyas") + about + b"s" + text("model") + b"}" + text("w") + weight + b"ss."
    parts = [Member("archive/data.pkl", description)]
    return zipped([*parts, *(Member(f"archive/data/{i}", block) for i, block in enumerate(blocks))])


def shared(block: torch.Tensor) -> Maker:
    """Return what makes a checkpoint with ten thousand tensors more, of one block of numbers."""
    return content(lambda c: c["model"].update({f"w{i}": block for i in range(10_000)}))


def old_format(value: Any) -> bytes:
    """Return what torch wrote before version 1.6: pickles one after the other."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def old_deep_key(sound: Path) -> bytes:
    """An old file whose content has a key that cannot be hashed."""
    start = old_format({})
    return start[: start.rindex(b"\x80\x02")] + b"\x80\x02}" + deep(1_000_000) + b"K\x01s.\x80\x02]."


def deep(depth: int) -> bytes:
    """Return the instructions of a tuple in a tuple in a tuple ..."""
    return b")" + b"\x85" * depth


ARCHIVES: dict[str, tuple[Maker, str]] = {
    "a flipped bit in the numbers": (flipped("/data/"), "checksum of its member data/.* is wrong"),
    "a flipped bit in the description": (flipped("data.pkl"), "checksum of its member data.pkl is wrong"),
    "cut off in the middle": (lambda p: p.read_bytes()[: p.stat().st_size // 2], "damaged or cut off"),
    "cut off by one byte": (lambda p: p.read_bytes()[:-1], "damaged or cut off"),
    "something behind it": (lambda p: p.read_bytes() + bytes(10), "something behind its end"),
    "something before it": (lambda p: b"MZ program" + p.read_bytes(), "no archive of torch.save"),
    "a bomb of zeros": (bomb, "compressed"),
    "compressed members": (compressed, "compressed"),
    "an encrypted member": (member(Member("archive/x", b"x", flags=1)), "encrypted"),
    "two members of one name": (lambda p: zipped([*members_of(p), members_of(p)[0]]), "two members of one name"),
    "an absolute name": (absolute, "name of its member '/archive"),
    "a name that climbs": (member(Member("archive/../../x", b"x")), "name of its member 'archive/../../x'"),
    "two archives in one": (member(Member("other/data.pkl", b"\x80\x02}.")), "name of its member 'other/data.pkl'"),
    "members without end": (countless, "300,[0-9]* members"),
    "fewer members than it says": (member(count=60_000), "directory contradicts the file"),
    "more members than it says": (member(count=3), "directory contradicts the file"),
    "members over each other": (overlapping, "reaches beyond its place"),
    "a member beyond the end": (member(Member("archive/x", b"x", offset=1 << 31)), "reaches beyond its place"),
    "a directory of 2 ** 60 members": (lambda p: zip64(members_of(p), 1 << 60, 1 << 63, 0), "directory contradicts"),
    "a directory at 2 ** 63": (lambda p: zip64(members_of(p), 5, 1 << 20, 1 << 63), "directory contradicts"),
    "a member of 2 ** 62 bytes": (
        member(Member("archive/x", b"x", size=0xFFFFFFFF, extra=struct.pack("<HHQ", 1, 8, 1 << 62))),
        "size of a member contradicts",
    ),
    "an old file": (lambda p: old_format(torch.load(p, weights_only=True)), "torch 1.6"),
    "an old file with a deep key": (old_deep_key, "torch 1.6"),
}
"""Archives that lie, or are damaged."""
DESCRIPTIONS: dict[str, tuple[Maker, str]] = {
    "a key nested without end": (entry(b"K\x01", key=deep(300_000)), "has a key that is no text"),
    "a value nested without end": (entry(deep(300_000)), "nested in values"),
    "lists nested without end": (entry(b"]" * 200_000 + b"a" * 199_999), "nested in values"),
    "lists in lists, doubled fifty times": (content(put(x=laughs())), "nested in values"),
    "a list that holds itself": (entry(b"]r\x00\x00\x10\x00j\x00\x00\x10\x00a"), "nested in values"),
    "thirty million instructions": (entry(b"(" + b"}" * 30_000_000 + b"t"), "more than 1,000,000 parts"),
    "ten million numbers": (entry(b"](" + b"K\x01" * 10_000_000 + b"e"), "more than 1,000,000 parts"),
    "a text of 34 MB": (lambda p: entry(text("x" * 34_000_000))(p), "more than 32 MiB"),
    "a number of a million digits": (
        entry(b"\x8b" + struct.pack("<L", 400_000) + b"\x7f" * 400_000),
        "too many digits",
    ),
    "a name that cannot be written": (content(lambda c: c["names"].update({0: "\ud800"})), "names of the classes"),
    "a text without its quotes": (entry(b"S" + b"x" * 5000 + b"\n"), "its description is damaged"),
    "an instruction torch never writes": (entry(b"I5\n"), "instruction INT"),
    "a call": (entry(b"cos\nsystem\n" + text("touch ran") + b"\x85R"), "holds code"),
    "a function": (entry(b"cos\nsystem\n"), "is os.system"),
}
"""Descriptions that cost more than they should, or want something run."""
TENSORS: dict[str, tuple[Maker, str]] = {
    "more numbers than there are": (numbers("FloatStorage", 1 << 40, (4,), (1,), bytes(16)), "another length"),
    "a tensor beyond its numbers": (numbers("FloatStorage", 4, (5,), (1,), bytes(16)), "beyond its numbers"),
    "a tensor of 2 ** 80 numbers": (
        numbers("FloatStorage", 4, (1 << 40, 1 << 40), (0, 0), bytes(16)),
        "beyond its",
    ),
    "a side of 2 ** 62": (numbers("FloatStorage", 4, (0, 1 << 62), (0, 0), bytes(16)), "impossible shape"),
    "a negative step": (numbers("FloatStorage", 4, (4,), (-1,), bytes(16)), "impossible shape"),
    "ninety dimensions": (numbers("FloatStorage", 4, (1,) * 90, (1,) * 90, bytes(16)), "impossible shape"),
    "numbers of an unknown kind": (numbers("NoStorage", 4, (4,), (1,), bytes(16)), "unknown type 'NoStorage'"),
    "numbers that are missing": (numbers("FloatStorage", 4, (4,), (1,)), "data/0 is missing"),
    "one number expanded": (shared(torch.zeros(1).expand(1000, 1000)), "beyond its numbers, or share them"),
    "one block used again and again": (shared(torch.zeros(1_000_000)), "beyond its numbers, or share them"),
    "a weight of nan": (content(weight(filled(torch.nan))), "nan or infinite"),
    "a weight of infinity": (content(weight(filled(torch.inf))), "nan or infinite"),
    "integer weights": (content(weight(lambda t: t.to(torch.int32))), "is torch.int32"),
    "complex weights": (content(weight(lambda t: t.to(torch.complex64))), "is torch.complex64"),
    "a weight of another shape": (content(weight(lambda t: torch.zeros(3000, 3000))), "fills 401 of the 402"),
    "no weights": (content(lambda c: c["model"].clear()), "'model' should be tensors by name"),
    "weights that are a list": (content(put(model=[1, 2])), "'model' should be tensors by name"),
}
"""Numbers that are not there, not numbers, or too many."""
TABLES: dict[str, tuple[Maker, str]] = {
    "two thousand rows": (content(table(backbone=[[-1, 1, "Conv", [8, 3, 1]]] * 2000)), "more than 1,000 rows"),
    "a row repeated a billion times": (content(row(-1, 10**9, "Conv", [8, 3, 1])), "repeated 1000000000 times"),
    "channels without end": (content(row(-1, 1, "Conv", [10**9, 3, 2])), "row 1 .* 300,000,000 numbers"),
    "channels that no integer holds": (content(row(-1, 1, "Conv", [10**30, 3, 2])), "row 1 .* 300,000,000 numbers"),
    "layers without end in a layer": (content(row(-1, 100, "C3k2", [16, True, 1e9])), "row 1 .* 300,000,000 numbers"),
    "a kernel of a million": (content(row(-1, 1, "Conv", [8, 1_000_001, 2])), "row 1 .* 300,000,000 numbers"),
    "a padding of a million": (content(row(-1, 1, "Conv", [8, 3, 2, 1_000_000])), "row 1 .* padding"),
    "a scale of a million": (content(table(scales={"n": [1e6, 1e6, 1e9]}, scale="n")), "scale"),
    "a scale of nan": (content(table(scales={"n": [float("nan"), float("nan"), 1]}, scale="n")), "scale"),
    "a map a million times larger": (
        content(row(-1, 1, "Upsample", [None, 1000])),
        "row 1 .* beyond what any",
    ),
    "wide maps at full size": (content(row(-1, 1, "Conv", [4096, 1, 1], at=0)), "row 0 .* beyond what any"),
    "attention at full size": (content(row(-1, 1, "AIFI", [64, 1], at=0)), "row 0 .* beyond what any"),
    "hours of work": (content(row(-1, 9, "Conv", [512, 3, 1], at=0)), "row 0 .* beyond what any"),
    "maps that do not fit": (content(row([-1, 0], 1, "Concat", [1], at=2)), "row 2 .* cannot be run"),
    "an unknown layer": (content(row(-1, 1, "os.system", ["ls"])), "no layer is called 'os.system'"),
    "arguments of another type": (content(row(-1, 1, "Conv", ["ls", {}])), "row 1 .* cannot be built"),
}
"""Tables of layers that would build what nothing can hold, or nothing at all."""
FIELDS: dict[str, tuple[Maker, str]] = {
    f"without {name}": (content(lambda c, name=name: c.pop(name)), f"'{name}'")  # type: ignore[misc]
    for name in ("eyas", "yaml", "nc", "names", "model")
} | {
    f"{name} of another type": (content(put(**{name: wrong})), f"'{name}'")
    for name, wrong in {
        "eyas": {"format": "one"},
        "yaml": "yolo26n",
        "nc": 10**9,
        "names": {"a": "b"},
        "train_args": [1],
        "epoch": "x",
        "train_metrics": {"a": "b"},
        "fitness": "y",
        "white": {"z": 1},
        "val_batch": -1,
        "model_class": 3,
        "state": 1,
    }.items()
}
"""Entries that are missing, or of another type."""
ATTACKS = ARCHIVES | DESCRIPTIONS | TENSORS | TABLES | FIELDS
"""Name -> what makes the bytes of a file from a sound checkpoint, and what its refusal says."""
