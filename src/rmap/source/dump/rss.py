# SPDX-License-Identifier: GPL-2.0-only
"""What an address space counts of its own pages: mm->rss_stat, in the form that the kernel has.

Until 6.1 one number for each kind, and some that threads have not handed in yet; since 6.2 a
counter for each CPU, to be summed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.facts import Facts
from rmap.source.dump.records import member_offset
from rmap.source.dump.spaces import Spaces
from rmap.source.dump.tasks import Tasks

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
PAGE_SIZE = 4096
_ALL = 0xFFFF_FFFF_FFFF_FFFF
_KINDS = ("MM_FILEPAGES", "MM_ANONPAGES", "MM_SWAPENTS", "MM_SHMEMPAGES")


@dataclass(frozen=True)
class Counters:
    """Bytes by address space, -1 where they cannot be read."""

    anon: I64
    file: I64
    shmem: I64
    swap: I64


def read_counters(program: Program, facts: Facts, spaces: Spaces, tasks: Tasks) -> Counters:
    """Read the counters of all address spaces."""
    numbers = [facts.constant(kind) for kind in _KINDS]
    pages = np.full((len(_KINDS), len(spaces.mm)), -1, np.int64)
    read = _plain(program, facts) or _of_each_cpu(program)
    for row, address in enumerate(spaces.mm.address.tolist()):
        for kind, number in enumerate(numbers):
            if number is not None:
                pages[kind, row] = read(address, number)
    _add_cached(pages, numbers, spaces, tasks)
    size = np.where(pages < 0, -1, pages * PAGE_SIZE)
    return Counters(anon=size[1], file=size[0], shmem=size[3], swap=size[2])


#: Reads the counter of that number of an address space, -1 if that cannot be done.
Reader = Callable[[int, int], int]


def _tried(read: Reader, mm: int, number: int) -> int:
    import drgn

    try:
        return read(mm, number)
    except (drgn.FaultError, ValueError, OverflowError):
        return -1


def _plain(program: Program, facts: Facts) -> Reader | None:
    """Counters that are one number each; ``None`` if this kernel has others."""
    start = member_offset(program, "struct mm_struct", "rss_stat.count")
    if start is None:
        return None

    def read(mm: int, number: int) -> int:
        word = program.read_u64(mm + start + 8 * number)
        return word - (1 << 64) if word >> 63 else word

    return partial(_tried, read)


def _online(program: Program) -> list[int]:
    """The numbers of the CPUs that run; the mask has room for as many as there can be."""
    symbol = program.symbol("__cpu_online_mask")
    mask = int.from_bytes(
        program.read(symbol.address, program.type("struct cpumask").size or 0), "little"
    )
    return [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]


def _of_each_cpu(program: Program) -> Reader:
    """Counters that are a number, and one more for each CPU, which is where most of it is."""
    from drgn import FaultError

    start = member_offset(program, "struct mm_struct", "rss_stat")
    common = member_offset(program, "struct percpu_counter", "count")
    single = member_offset(program, "struct percpu_counter", "counters")
    if start is None or common is None:
        return lambda mm, number: -1
    size = program.type("struct percpu_counter").size or 0
    bases: list[int] = []
    if single is not None:  # a kernel for one CPU has the common number only
        offsets = program["__per_cpu_offset"]
        try:
            bases = [int(offsets[cpu].value_()) for cpu in _online(program)]
        except FaultError:
            return lambda mm, number: -1

    def read(mm: int, number: int) -> int:
        at = mm + start + size * number
        (total,) = struct.unpack("<q", program.read(at + common, 8))
        counters = program.read_u64(at + single) if single is not None else 0
        for base in bases:
            (of_cpu,) = struct.unpack("<i", program.read((counters + base) & _ALL, 4))
            total += of_cpu
        return int(total)

    return partial(_tried, read)


def _add_cached(pages: I64, numbers: list[int | None], spaces: Spaces, tasks: Tasks) -> None:
    """Add what threads have counted and not handed in."""
    if "rss" not in (tasks.records.values.dtype.names or ()):
        return
    cached = tasks.records["rss"].astype(np.int64)
    rows = {int(at): row for row, at in enumerate(spaces.mm.address.tolist())}
    for task, mm in enumerate(tasks.records["mm"].tolist()):
        if mm in rows:
            for kind, number in enumerate(numbers):
                if number is not None and pages[kind, rows[mm]] >= 0:
                    pages[kind, rows[mm]] += cached[task][number]
