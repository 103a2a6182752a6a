# SPDX-License-Identifier: GPL-2.0-only
"""Many structs at once: where their members lie, and their values as columns.

Which members there are is asked of the types of the dump, never of a version. An address that
cannot be read, for whatever reason, is noted and its row stays zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
_UNSIGNED = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
_SIGNED = {1: "i1", 2: "i2", 4: "i4", 8: "i8"}


#: Members that lie this near to each other are read together.
_GAP = 256
#: The kernel has the upper half of the addresses. A dump that knows no virtual addresses says that
#: its memory begins at 0, so that what follows a null pointer would be read as physical memory.
_KERNEL = 1 << 63
_LAST_WORD = (1 << 64) - 8


class MissingMember(LookupError):
    """A struct has none of the members that were asked for."""


def member_offset(program: Program, kind: str, path: str) -> int | None:
    """Where a member lies in a struct, in bytes; ``None`` if it has none, or there is no struct.

    `path` may go through members: ``shared.rb.rb_left``.
    """
    import drgn

    try:
        return drgn.offsetof(program.type(kind), path)
    except (LookupError, TypeError):
        # No such member; or one on the way is no struct (any more).
        return None


def member_type(program: Program, kind: str, path: str) -> Any:
    """The type of a member, without typedefs. Raises ``LookupError``."""
    import drgn

    found: Any = program.type(kind)
    for name in path.replace("[", ".[").split("."):
        while found.kind == drgn.TypeKind.TYPEDEF:
            found = found.type
        found = found.type if name.startswith("[") else found.member(name).type
    while found.kind == drgn.TypeKind.TYPEDEF:
        found = found.type
    return found


@dataclass(frozen=True)
class Layout:
    """A struct whose members can be read as columns.

    `members` is column to member, or to several of which the first that exists is taken. Columns
    of members that do not exist are not in `dtype`, and not in what is read.
    """

    program: Program
    kind: str
    members: Mapping[str, str | tuple[str, ...]]
    dtype: np.dtype[np.void] = field(init=False)

    def __post_init__(self) -> None:
        names, formats, offsets = [], [], []
        for column, paths in self.members.items():
            for path in (paths,) if isinstance(paths, str) else paths:
                offset = member_offset(self.program, self.kind, path)
                if offset is not None:
                    names.append(column)
                    formats.append(self._format(path))
                    offsets.append(offset)
                    break
        shape = {"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size}
        dtype: np.dtype[np.void] = np.dtype(shape)  # type: ignore[call-overload] # a dict of lists
        object.__setattr__(self, "dtype", dtype)

    def _format(self, path: str) -> str:
        """The numpy format of a member: a number, an array of numbers, or raw bytes."""
        import drgn

        found = member_type(self.program, self.kind, path)
        count = 1
        while found.kind == drgn.TypeKind.ARRAY:
            count *= found.length or 0
            found = found.type
            while found.kind == drgn.TypeKind.TYPEDEF:
                found = found.type
        if found.kind in (drgn.TypeKind.INT, drgn.TypeKind.ENUM):
            signed = found.kind == drgn.TypeKind.INT and found.is_signed
            one = (_SIGNED if signed else _UNSIGNED)[found.size or drgn.sizeof(found)]
        elif found.kind in (drgn.TypeKind.POINTER, drgn.TypeKind.BOOL):
            one = _UNSIGNED[drgn.sizeof(found)]
        else:
            one, count = f"V{drgn.sizeof(found)}", 1
        return f"({count},)<{one}" if count > 1 else one if one.startswith("V") else f"<{one}"

    @property
    def size(self) -> int:
        """Bytes of the struct."""
        import drgn

        return drgn.sizeof(self.program.type(self.kind))

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Where the members lie, as offsets and lengths; those near to each other are one."""
        fields = sorted(
            (place[1], place[0].itemsize) for place in (self.dtype.fields or {}).values()
        )
        pieces: list[tuple[int, int]] = []
        for offset, length in fields:
            if pieces and offset <= sum(pieces[-1]) + _GAP:
                first = pieces[-1][0]
                pieces[-1] = (first, max(sum(pieces[-1]), offset + length) - first)
            else:
                pieces.append((offset, length))
        return pieces

    def has(self, column: str) -> bool:
        """Whether there is such a member."""
        return column in (self.dtype.names or ())

    def require(self, *columns: str) -> Layout:
        """This, if it has the columns. Raises `MissingMember` otherwise."""
        for column in columns:
            if not self.has(column):
                raise MissingMember(f"{self.kind} has no member {self.members[column]}")
        return self


@dataclass(frozen=True, slots=True)
class Records:
    """Structs that were read: their addresses, their members as columns, and which are there."""

    address: U64
    values: npt.NDArray[np.void]
    present: Bools

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        return self.values[column]

    def __len__(self) -> int:
        return len(self.address)


def is_kernel_address(address: int) -> bool:
    """Whether a pointer or number can be there: in the upper half, and not beyond the end."""
    return _KERNEL <= address <= _LAST_WORD


def read_word(program: Program, address: int) -> int | None:
    """A pointer or number in the kernel's memory; ``None`` if it is not there."""
    import drgn

    if not is_kernel_address(address):
        return None
    try:
        return int.from_bytes(program.read(address, 8), "little")
    except (drgn.FaultError, ValueError, OverflowError):
        return None


def read_records(layout: Layout, addresses: Iterable[int] | U64) -> Records:
    """Read the structs at some addresses, each by itself."""
    import drgn

    where = np.asarray(addresses if isinstance(addresses, np.ndarray) else list(addresses), "u8")
    size, pieces = layout.size, layout.pieces
    data = bytearray(len(where) * size)
    present = np.ones(len(where), bool)
    read = layout.program.read
    for row, address in enumerate(where.tolist()):
        start = row * size
        if address < _KERNEL:
            present[row] = False
            continue
        try:
            for offset, length in pieces:
                data[start + offset : start + offset + length] = read(address + offset, length)
        except (drgn.FaultError, ValueError, OverflowError):
            present[row] = False
    return Records(where, np.frombuffer(bytes(data), layout.dtype), present)


def rows_of(known: U64, wanted: U64) -> I64:
    """Where values lie in an ascending array, -1 for those that do not."""
    at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    return np.where(known[at] == wanted, at, -1).astype(np.int64)
