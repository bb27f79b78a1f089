"""The archive that ``torch.save`` writes, read strictly: whoever made a file, its lies are found before they cost.

It is a zip file of one folder whose members are stored as they are, not compressed: ``data.pkl`` describes what the
numbers belong to, ``data/0``, ``data/1``, ... hold them. The directory, at the end, is held against the file before
anything else is read: its members lie one behind the other, so together they are no larger than the file. Every member
that is read is compared with its checksum, which finds a single changed bit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import torch
from torch import Tensor

from eyas.checkpoint.errors import CheckpointError
from eyas.files import opened

MEMBERS: Final = 100_000  # the largest networks, with the state of an optimizer, have some 5,000
DIRECTORY: Final = 32 * 2**20  # bytes
DESCRIPTION: Final = 32 * 2**20  # bytes of data.pkl; the largest networks have 0.5 MiB
CHUNK: Final = 2**20  # bytes that are read and summed up while they are near

HEADER: Final = struct.Struct("<4sHHHHHLLLHH")  # before each member's name and bytes
LINE: Final = struct.Struct("<4sHHHHHHLLLHHHHHLL")  # of the directory
END: Final = struct.Struct("<4sHHHHLLH")
END64: Final = struct.Struct("<4sQHHLLQQQQ")  # the end of large archives; torch writes one always
LOCATOR: Final = struct.Struct("<4sLQL")  # of END64
ALL_16, ALL_32 = 0xFFFF, 0xFFFFFFFF  # "the number is too large for this place"

AGAIN: Final = "copy or download it again"
MISLEADING: Final = f"its directory contradicts the file; {AGAIN}"


class Member(NamedTuple):
    """Where a member lies: its header, its name, and the bytes that it takes; compressed ones cannot be read."""

    header: int
    name: bytes
    size: int
    crc: int
    compressed: bool = False


class Archive:
    """An open archive. Use it in a ``with`` block.

    Args:
        path: the file.
        programs: whether it may be a TorchScript program, too: its numbers are described as those of others are, and
            its code, which is compressed, is never looked at.

    Attributes:
        size: bytes of the file.
        is_program: whether it is one.

    Raises:
        CheckpointError: it is none that ``torch.save`` wrote; says what it is instead, or what is wrong with it.
    """

    def __init__(self, path: Path, programs: bool = False) -> None:
        self.path = path
        self.file = opened(path)
        try:
            self.size = self.file.seek(0, 2)
            self.members = read_directory(self.file, self.size)
            self.is_program = any(name == "constants.pkl" or name.startswith("code/") for name in self.members)
            if self.is_program and not programs:
                raise CheckpointError(
                    "it is a TorchScript program, not weights; use the .pt file that it was made from"
                )
            if any(member.compressed for member in self.members.values()) and not self.is_program:
                raise CheckpointError(
                    "its members are compressed, which torch.save never does: pack it out and in again"
                )
            if self.read("byteorder", b"little") != b"little":
                raise CheckpointError("its numbers are stored big-endian; save it again on a usual machine")
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def description(self) -> bytes:
        """Return the pickle that says what the numbers belong to."""
        if self.members["data.pkl"].size > DESCRIPTION:
            raise CheckpointError(f"its description has more than {DESCRIPTION >> 20} MiB, which no weights need")
        return self.read("data.pkl")

    def read(self, name: str, default: bytes | None = None) -> bytes:
        """Return the bytes of a member."""
        if name not in self.members and default is not None:
            return default
        return self.block(name).numpy().tobytes()

    def block(self, name: str) -> Tensor:
        """Return the bytes of a member, uint8, in memory of their own.

        Raises:
            CheckpointError: it is missing, or its checksum is another.
        """
        member = self.members.get(name)
        if member is None:
            raise CheckpointError(f"its member {name} is missing; {AGAIN}")
        if member.compressed:
            raise CheckpointError(f"its member {name} is compressed, which torch never does to numbers")
        self.file.seek(member.header)
        start = self.file.read(HEADER.size)
        signature, *_, name_size, extra_size = HEADER.unpack(start)
        if signature != b"PK\x03\x04" or self.file.read(name_size) != member.name:
            raise CheckpointError(MISLEADING)
        self.file.seek(extra_size, 1)
        data = torch.empty(member.size, dtype=torch.uint8)
        view, crc = memoryview(data.numpy()), 0  # type: ignore[arg-type]  # numpy's stubs lag
        for at in range(0, member.size, CHUNK):
            piece = view[at : at + CHUNK]
            if self.file.readinto(piece) != len(piece):
                raise CheckpointError(f"it is cut off; {AGAIN}")
            crc = zlib.crc32(piece, crc)
        if crc != member.crc:
            raise CheckpointError(f"the checksum of its member {name} is wrong: something in it has changed; {AGAIN}")
        return data


# -- the directory -----------------------------------------------------------------------------------------------------
def read_directory(file: BinaryIO, size: int) -> dict[str, Member]:
    """Return the members of an archive of ``size`` bytes, by their names in its folder.

    Raises:
        CheckpointError: it is no archive of ``torch.save``, or not all of it is where it says.
    """
    file.seek(0)
    beginning = file.read(512)
    if not beginning.startswith(b"PK\x03\x04"):
        raise CheckpointError(what_it_is(beginning))
    count, start, stop = find_directory(file, size)
    file.seek(start)
    found = list(lines(file.read(stop - start)))
    if len(found) != count:
        raise CheckpointError(MISLEADING)
    members = in_one_folder(found)
    refuse_overlap(found, start)
    return members


def find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return the number of members, and where the directory begins and ends.

    Raises:
        CheckpointError: the file does not end as archives do, or its numbers contradict each other or the file.
    """
    stop = size - END.size
    file.seek(max(stop, 0))
    end = file.read(END.size)
    if not end.startswith(b"PK\x05\x06"):
        file.seek(max(size - 2**16, 0))
        tail = file.read()
        behind = b"PK\x05\x06" in tail[: -END.size]
        what = "there is something behind its end" if behind else "it is damaged or cut off"
        raise CheckpointError(f"{what}; {AGAIN}")
    _, disk, first_disk, here, count, length, start, comment = END.unpack(end)
    before = stop - LOCATOR.size - END64.size
    file.seek(max(before, 0))
    wide, locator = file.read(END64.size), file.read(LOCATOR.size)
    if before >= 0 and locator.startswith(b"PK\x06\x07"):
        narrow, stop = (count, length, start), before
        *_, here, count, length, start = END64.unpack(wide)
        most = (ALL_16, ALL_32, ALL_32)
        same = all(n in (w, m) for n, w, m in zip(narrow, (count, length, start), most, strict=True))
        if not wide.startswith(b"PK\x06\x06") or not same or LOCATOR.unpack(locator)[2] != before:
            raise CheckpointError(MISLEADING)
    if disk or first_disk or comment or here != count or start + length != stop or count * LINE.size > length:
        raise CheckpointError(MISLEADING)
    if count > MEMBERS or length > DIRECTORY:
        raise CheckpointError(f"it has {count:,} members, and no checkpoint more than {MEMBERS:,}")
    return count, start, stop


def lines(directory: bytes) -> Iterator[Member]:
    """Yield the members of a directory in its order.

    Raises:
        CheckpointError: it is no directory, or a member is stored in another way than torch does.
    """
    at = 0
    while at + LINE.size <= len(directory):
        line = LINE.unpack_from(directory, at)
        signature, _, _, flags, method, _, _, crc, packed, size, names, extras, comments, *_, header = line
        name, extra = at + LINE.size, at + LINE.size + names
        at = extra + extras + comments
        if signature != b"PK\x01\x02":
            break
        if flags & 1:
            raise CheckpointError("it is encrypted, which torch.save never does")
        size, packed, header = wide_numbers(directory[extra : extra + extras], size, packed, header)
        if packed != size and not method:
            raise CheckpointError(f"the size of a member contradicts itself; {AGAIN}")
        yield Member(header, directory[name:extra], packed, crc, compressed=method != 0)
    if at != len(directory):
        raise CheckpointError(MISLEADING)


def wide_numbers(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Return the numbers of a line, those beyond 32 bits from its extra fields."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1 and len(field) % 8 == 0:
            wide = list(struct.unpack(f"<{len(field) // 8}Q", field))
            size, packed, header = (wide.pop(0) if n == ALL_32 and wide else n for n in (size, packed, header))
    return size, packed, header


def refuse_overlap(members: list[Member], end: int) -> None:
    """Refuse members that do not lie one behind the other, from the beginning of the file to ``end``.

    Raises:
        CheckpointError: two share bytes, or one lies outside.
    """
    ordered = sorted(members)
    if ordered[0].header != 0:
        raise CheckpointError(MISLEADING)
    limits = [member.header for member in ordered[1:]] + [end]
    for member, limit in zip(ordered, limits, strict=True):
        if member.header + HEADER.size + len(member.name) + member.size > limit:
            raise CheckpointError(f"a member of it reaches beyond its place; {AGAIN}")


def in_one_folder(members: list[Member]) -> dict[str, Member]:
    """Return members by their names in the one folder that they are all in.

    Raises:
        CheckpointError: they are not in one, one is there twice, or these are no members of a file of weights.
    """
    names = [member.name.decode("utf-8", "replace") for member in members]
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if not folders:
        raise CheckpointError("it is a zip archive, but not one of torch.save")
    for name in names:
        parts = name.split("/")
        if not name.startswith(folders[0]) or not {"", ".", ".."}.isdisjoint(parts):
            raise CheckpointError(f"the name of its member {name[:80]!a} is none that torch.save gives")
    found = {name.removeprefix(folders[0]): member for name, member in zip(names, members, strict=True)}
    if len(found) != len(members):
        raise CheckpointError("it has two members of one name, which torch.save never writes")
    return found


def what_it_is(start: bytes) -> str:
    """Say what a file is that begins with these bytes and is no zip archive."""
    text = start.lstrip().lower()
    if not start:
        return "it is empty; the download or the disk failed"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, not weights: the download was answered with an error page; fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the weights; run `git lfs pull`"
    if text.startswith((b"{", b"%yaml", b"nc:", b"#")):
        return "it is text, not weights"
    if start[:1] == b"\x80":
        return "it is a plain pickle, not an archive of torch.save; save it again with torch 1.6 or later"
    if b"onnx" in text or b"pytorch" in text or start[:1] == b"\x08":
        return "it seems to be an ONNX model, not weights; use the .pt file that it was exported from"
    return "it is no archive of torch.save"
