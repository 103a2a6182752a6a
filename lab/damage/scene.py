# SPDX-License-Identifier: GPL-2.0-only
"""A crash dump in memory that can be written: finds where an object's member lies, and writes it.

The dump's file is never changed: what is written stays in this process, and can be undone. An ELF
core of a kernel is read through drgn; its segments are put in front of those of the file.
"""

from __future__ import annotations

import mmap
import random
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.source import no_progress
from rmap.source.dump.image import image_of, tables
from rmap.source.dump.pages import ANON
from rmap.source.dump.pagetables import PageTables
from rmap.source.dump.program import open_dump
from rmap.source.dump.reading import Reading, read
from rmap.source.dump.records import member_offset, member_type

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_LOAD = 1
_HEADER = struct.Struct("<IIQQQQQQ")


class NotHere(Exception):
    """This dump has nothing that could be damaged in that way; says what it lacks."""


@dataclass(frozen=True)
class Segment:
    """A piece of physical memory, and where the file has it."""

    physical: int
    size: int
    offset: int


def segments_of(data: mmap.mmap | bytes) -> list[Segment]:
    """The physical memory that an ELF core has."""
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    found = []
    for number in range(count):
        kind, _, offset, _, physical, size, _, _ = _HEADER.unpack_from(
            data, table + number * _HEADER.size
        )
        if kind == _LOAD and size:
            found.append(Segment(physical, size, offset))
    return found


class Scene:
    """A dump, what was read of it while it was healthy, and ways to write to it.

    Parameters
    ----------
    path
        An ELF core.
    debug
        As for `open_dump`.
    """

    def __init__(self, path: Path, debug: Sequence[Path] = ()) -> None:
        self.program: Program = open_dump(path, debug)
        with path.open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.segments = segments_of(self.memory)
        #: Pieces of the file that were read, where somebody wants to know (`watching`).
        self.touched: set[tuple[int, int]] | None = None
        for segment in self.segments:
            self.program.add_memory_segment(
                segment.physical, segment.size, _Reader(self, segment), True
            )
        self._written: list[tuple[int, bytes]] = []
        self.reading: Reading = read(self.program, no_progress)
        self.image: MemoryImage = tables(self.reading, 0)

    # ------------------------------------------------------------ places

    def offset(self, physical: int) -> int:
        """Where the file has a physical address. Raises `NotHere`."""
        for segment in self.segments:
            if segment.physical <= physical < segment.physical + segment.size:
                return segment.offset + physical - segment.physical
        raise NotHere(f"physical address {physical:#x} is not in the dump")

    def place(self, address: int) -> int:
        """Where the file has one of the kernel's addresses. Raises `NotHere`.

        drgn walks the kernel's own page tables; what it reads last is the byte that was asked for.
        """
        import drgn

        before = self.touched
        self.touched = set()
        try:
            self.program.read(address, 1)
            return next(at for at, count in self.touched if count == 1)
        except drgn.FaultError as error:
            raise NotHere(str(error)) from error
        finally:
            self.touched = before

    def member(self, kind: str, path: str) -> int:
        """Where a struct has a member. Raises `NotHere` where it has none of that name."""
        offset = member_offset(self.program, kind, path)
        if offset is None:
            raise NotHere(f"{kind} of this kernel has no {path}")
        return offset

    def size(self, kind: str, path: str) -> int:
        """Bytes of a member."""
        import drgn

        return drgn.sizeof(member_type(self.program, kind, path))

    # ------------------------------------------------------------ reading and writing

    def word(self, address: int, size: int = 8) -> int:
        """A number in the kernel's memory, as it is now."""
        at = self.place(address)
        return int.from_bytes(self.memory[at : at + size], "little")

    def word_physical(self, physical: int, size: int = 8) -> int:
        """A number in physical memory, as it is now."""
        at = self.offset(physical)
        return int.from_bytes(self.memory[at : at + size], "little")

    def put(self, address: int, value: int, size: int = 8) -> None:
        """Write a number to the kernel's memory."""
        self.put_file(self.place(address), _bytes(value, size))

    def put_physical(self, physical: int, value: int, size: int = 8) -> None:
        """Write a number to physical memory."""
        self.put_file(self.offset(physical), _bytes(value, size))

    def put_file(self, at: int, data: bytes) -> None:
        """Write to what the file says at an offset."""
        self._written.append((at, self.memory[at : at + len(data)]))
        self.memory[at : at + len(data)] = data

    def get(self, kind: str, address: int, path: str) -> int:
        """A member of an object."""
        return self.word(address + self.member(kind, path), self.size(kind, path))

    def assign(self, kind: str, address: int, path: str, value: int) -> None:
        """Write a member of an object."""
        self.put(address + self.member(kind, path), value, self.size(kind, path))

    def add(self, kind: str, address: int, path: str, delta: int) -> None:
        """Add to a member of an object."""
        self.assign(kind, address, path, self.get(kind, address, path) + delta)

    def undo(self) -> None:
        """Make the dump as it was."""
        while self._written:
            at, data = self._written.pop()
            self.memory[at : at + len(data)] = data

    def copy(self, path: Path) -> None:
        """Write the dump as it is now to a file."""
        path.write_bytes(self.memory)

    # ------------------------------------------------------------ looking again

    def look(self) -> MemoryImage:
        """Read the dump as it is now, from the beginning."""
        return image_of(self.program, "the damaged dump", time.time_ns(), no_progress)

    @contextmanager
    def watching(self) -> Iterator[set[tuple[int, int]]]:
        """Note which pieces of the file are read: offset and length of each."""
        self.touched = set()
        try:
            yield self.touched
        finally:
            self.touched = None

    # ------------------------------------------------------------ what there is

    @cached_property
    def tables(self) -> PageTables:
        return PageTables(self.program, self.reading.facts.levels)

    def page(self, pfn: int) -> int:
        """The address of a struct page."""
        memory = self.reading.pages.map
        return memory.base + pfn * memory.size

    def pids(self, mm: int) -> set[int]:
        """The processes of a row of ``mms``."""
        rows = self.image.processes_of_mm.get(mm, [])
        return set(self.image.processes["pid"][rows].tolist())

    def entry(self, row: int) -> int:
        """The physical address of the entry that is a row of ``ptes``."""
        from drgn.helpers.linux.mm import virt_to_phys

        ptes = self.image.ptes
        pgd = int(self.reading.spaces.mm["pgd"][int(ptes["mm"][row])])
        at = int(virt_to_phys(self.program, pgd).value_())
        address, order = int(ptes["address"][row]), int(ptes["order"][row])
        for level in range(self.reading.facts.levels - 1, -1, -1):
            at += (address >> (12 + 9 * level) & 511) * 8
            if 9 * level == order:
                return at
            table = self.tables.table(at & ~0xFFF)
            assert table is not None
            at = int(table[(at & 0xFFF) // 8]) & 0x000F_FFFF_FFFF_F000
        raise AssertionError("an entry lies on one of the levels")

    def mapped(self, *, anon: bool | None = None, order: int = 0, times: int | None = None,
               merged: bool = False, flags: int = 0, hugetlb: bool = False) -> I64:  # fmt: skip
        """Rows of ``ptes`` that map such pages.

        `times` is how often the kernel counts the page, `flags` bits that the entry has to have.
        """
        ptes, pages = self.image.ptes, self.reading.pages
        row = pages.map.row_of(ptes["pfn"])
        good = (ptes["flags"] & np.uint32(0x81) == 1) & (row >= 0) & (ptes["order"] == order)
        good &= ptes["flags"] & np.uint32(flags) == np.uint32(flags)
        tag = pages.mapping[row] & np.uint64(3)
        good &= (tag == 3) == merged
        if anon is not None:
            good &= (tag & ANON != 0) == anon
            good &= pages.mapping[row] != 0
        good &= pages.hugetlb[row] == hugetlb
        if times is not None:
            good &= pages.mapcount[row] == times
        return np.flatnonzero(good)

    def small(self, rows: I64) -> I64:
        """Of rows of ``ptes`` those whose page is no part of a larger one."""
        pages = self.reading.pages
        return rows[pages.order[pages.map.row_of(self.image.ptes["pfn"][rows])] == 0]

    def one(self, rows: I64 | Sequence[int], lacking: str, place: float = 0.5) -> int:
        """One of some rows. Raises `NotHere` if there are none."""
        if not len(rows):
            raise NotHere(lacking)
        return int(rows[int((len(rows) - 1) * place)])


class _Reader:
    """Reads one segment for drgn."""

    def __init__(self, scene: Scene, segment: Segment) -> None:
        self.scene = scene
        self.segment = segment

    def __call__(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        at = self.segment.offset + offset
        if self.scene.touched is not None:
            self.scene.touched.add((at, count))
        return self.scene.memory[at : at + count]


def _bytes(value: int, size: int) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def flips(scene: Scene, pieces: set[tuple[int, int]], count: int, seed: int
          ) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Bits to flip among bytes that were read: offsets in the file and numbers of bits.

    Each piece has the same chance, whatever its length: otherwise nearly all would hit the memory
    map and page tables, which are read in large pieces.
    """
    chance = random.Random(seed)
    ordered = sorted(pieces)
    for _ in range(count):
        at, length = chance.choice(ordered)
        yield at + chance.randrange(length), chance.randrange(8)


def flip(scene: Scene, at: int, bit: int) -> None:
    """Flip one bit of the file."""
    scene.put_file(at, bytes([scene.memory[at] ^ 1 << bit]))
