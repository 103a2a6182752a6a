# SPDX-License-Identifier: GPL-2.0-only
"""Pages of page tables: is each what its struct page says, and is it where it should be once?

Every table of PTEs and PMDs has a page that is typed so (pagetable_pte_ctor() and its like). A
table belongs to one place of one address space; only hugetlb shares tables of PMDs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Kpf
from rmap.source.dump.damage import Damage
from rmap.source.dump.pages import Pages
from rmap.source.dump.pagetables import Entries
from rmap.source.dump.records import U64, Bools

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
#: Levels of the tables that are typed, counted from below: PTEs, PMDs.
_TYPED = 2
_PMDS = 1


#: What a page that is a table of some level cannot be.
_ELSE = Kpf.SLAB | Kpf.BUDDY | Kpf.LRU | Kpf.ANON | Kpf.MMAP | Kpf.HUGE | Kpf.OFFLINE


class Credibility:
    """Says which physical addresses can be tables of a level, by what their pages are.

    Pages of tables of PTEs are typed so in every kernel that carries BTF; those of upper levels may
    not be, but they are nothing else either. What the dump does not know of is believed.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def __call__(self, tables: U64, level: int) -> Bools:
        row = self.pages.map.row_of(tables >> np.uint64(12))
        kpf = self.pages.kpf[row]
        typed = kpf & np.uint64(Kpf.PGTABLE) != 0
        good = typed | (kpf & np.uint64(_ELSE) == 0) if level else typed
        return np.asarray((row < 0) | good)


def table_damage(entries: list[Entries], mm: U64, pages: Pages) -> list[Damage]:
    """Look at the tables of all address spaces; `mm` are the addresses of these."""
    damage = [
        Damage("mm", int(mm[row]), f"a page table at physical {at:#x} is not in the dump",
               found=at, mm=row)
        for row, one in enumerate(entries)
        for at in one.missing.tolist()
    ]  # fmt: skip
    damage += [
        Damage(
            "mm",
            int(mm[row]),
            f"its page tables lead to physical {at:#x}, which is none, or was met before",
            "table",
            found=at,
            mm=row,
        )
        for row, one in enumerate(entries)
        for at in one.strange.tolist()
    ]
    tables = np.concatenate([np.zeros(0, "u8"), *(one.tables for one in entries)])
    level = np.concatenate([np.zeros(0, "u1"), *(one.level for one in entries)])
    owner = np.repeat(np.arange(len(entries)), [len(one.tables) for one in entries])
    row = pages.map.row_of(tables >> np.uint64(12))
    table = pages.kpf[row] & np.uint64(Kpf.PGTABLE) != 0
    for at in np.flatnonzero((row >= 0) & (level < _TYPED) & ~table).tolist():
        damage.append(_of_table(tables, level, owner, at, "is in use as one, and not typed so"))
    for at in np.flatnonzero(_again(tables) & ~_shared(tables, level, entries)).tolist():
        damage.append(_of_table(tables, level, owner, at, "is in two places"))
    return damage


def _of_table(tables: U64, level: U8, owner: I64, at: int, what: str) -> Damage:
    return Damage("page table", int(tables[at]), f"(level {level[at]}) {what}", "table",
                  mm=int(owner[at]))  # fmt: skip


def _again(tables: U64) -> Bools:
    """Which tables were met before."""
    again = np.ones(len(tables), bool)
    again[np.unique(tables, return_index=True)[1]] = False
    return again


def _shared(tables: U64, level: U8, entries: list[Entries]) -> Bools:
    """Tables of PMDs that have huge entries only, as those have that hugetlb shares."""
    huge = np.concatenate([np.zeros(0, "u8"), *(one.table[one.order == 9] for one in entries)])
    return np.asarray((level == _PMDS) & np.isin(tables, huge))
