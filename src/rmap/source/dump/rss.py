# SPDX-License-Identifier: GPL-2.0-only
"""What an address space counts of its own pages: mm->rss_stat, in the form that the kernel has.

Until 6.1 one number for each kind, and some that threads have not handed in yet; since 6.2 a
counter for each CPU, to be summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.source.dump.facts import Facts
from rmap.source.dump.spaces import Spaces
from rmap.source.dump.tasks import Tasks

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
PAGE_SIZE = 4096
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
    for row, address in enumerate(spaces.mm.address.tolist()):
        for kind, number in enumerate(numbers):
            if number is not None:
                pages[kind, row] = _read(program, facts, address, number)
    _add_cached(pages, numbers, spaces, tasks)
    size = np.where(pages < 0, -1, pages * PAGE_SIZE)
    return Counters(anon=size[1], file=size[0], shmem=size[3], swap=size[2])


def _read(program: Program, facts: Facts, mm: int, number: int) -> int:
    """One counter of one address space, -1 if it cannot be read."""
    import drgn
    from drgn.helpers.linux.percpu import percpu_counter_sum

    try:
        stat: Any = drgn.Object(program, "struct mm_struct *", mm).rss_stat
        if facts.has("struct mm_struct", "rss_stat.count"):
            return int(stat.count[number].counter.value_())
        return int(percpu_counter_sum(stat[number].address_of_()))
    except (drgn.FaultError, LookupError, AttributeError, ValueError):
        return -1


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
