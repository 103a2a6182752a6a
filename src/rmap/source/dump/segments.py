# SPDX-License-Identifier: GPL-2.0-only
"""Where in physical memory the bytes of an ELF dump were: its program headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError, TargetError

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
_ELF = b"\x7fELF\x02\x01"
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_LOAD = 1
#: With as many program headers or more, their number is in the first section header.
_MANY = 0xFFFF
#: A dump has a segment for each range of memory; nothing has a million.
_MOST = 1 << 20
_LOST = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Segments:
    """Ranges of a file that are memory, ascending: where they begin, how long, and the address."""

    offset: U64
    size: U64
    physical: U64

    def addresses(self, offsets: U64) -> tuple[U64, Bools]:
        """The physical address of bytes of the file, and whether they are memory at all."""
        if not len(self.offset):
            return offsets, np.zeros(len(offsets), bool)
        at = np.maximum(np.searchsorted(self.offset, offsets, side="right"), 1) - 1
        inside = offsets - self.offset[at]
        there = (offsets >= self.offset[at]) & (inside < self.size[at])
        return np.where(there, self.physical[at] + inside, np.uint64(0)), there


def read_segments(path: Path) -> Segments:
    """Read the program headers of an ELF dump.

    Raises
    ------
    TargetError
        If it is no ELF file: then bytes of it are not bytes of memory.
    ImageError
        If it cannot be read, or is cut short.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_EHDR.size)
            if not head.startswith(_ELF):
                raise TargetError(
                    f"{path} is no ELF file of 64 bits: what lies where in it is not memory as it "
                    "was; give physical offsets"
                )
            header = _EHDR.unpack(head)
            table, sections, count = header[5], header[6], header[10]
            if count == _MANY:
                file.seek(sections)
                count = _SHDR.unpack(file.read(_SHDR.size))[7]
            file.seek(table)
            data = file.read(min(count, _MOST) * _PHDR.size)
            loads = [one for one in _PHDR.iter_unpack(data) if one[0] == _LOAD]
    except struct.error as error:
        raise ImageError(f"{path}: its program headers are cut short") from error
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    # A segment without an address (of the running kernel's core) is no physical memory.
    ranges = sorted((one[2], one[5], one[4]) for one in loads if one[5] and one[4] != _LOST)
    columns = np.array(ranges, "u8").reshape(-1, 3)
    return Segments(columns[:, 0], columns[:, 1], columns[:, 2])
