# SPDX-License-Identifier: GPL-2.0-only
"""What an address space counts of itself, beside pages: VMAs, their size, its page tables.

mm->map_count, total_vm, locked_vm and pgtables_bytes (include/linux/mm_types.h). What drivers lock
for devices is in locked_vm as well, so there may be more than VMAs say, not less.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Pte, Vm
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.mappers import name_users, users_of
from rmap.query.checks.objects import handle_of, users_of_mm
from rmap.query.checks.registry import Outcome, check

I64 = npt.NDArray[np.int64]
_HUGE = 9


@check("space", "address spaces count their VMAs, their size and their page tables")
def space(image: MemoryImage, limit: int) -> Outcome:
    """Recount every address space."""
    mms = image.mms
    if "map_count" not in mms:
        return Outcome("address spaces", skipped=NO_STRUCTURE)
    found = Collector("space", "address spaces", len(mms), limit)
    subject = Subject(
        lambda row: f"address space of {name_users(*users_of(image, row))}",
        lambda row: handle_of(mms, row, "mm"),
        lambda row: users_of_mm(image, row),
    )
    vmas = image.vmas
    pages = ((vmas["end"] - vmas["start"]) // np.uint64(image.page_size)).astype(np.int64)

    def counts(kind: str, said: I64, wanted: I64, unit: str, at_least: bool = False) -> None:
        wrong = said < wanted if at_least else said != wanted
        found.where(subject, kind, wrong & (said >= 0), lambda row: (
            f"counts {said[row]} {unit}, found {wanted[row]}"), wanted, said)  # fmt: skip

    each = np.bincount(vmas["mm"], minlength=len(mms))
    counts("map_count", mms["map_count"], each, "VMAs")
    if "total_vm" in mms:
        counts("total_vm", mms["total_vm"], _sums(image, pages), "pages of VMAs")
    locked = np.where(vmas["flags"] & np.uint64(Vm.LOCKED) != 0, pages, 0)
    counts("locked", mms["locked"], _sums(image, locked) * image.page_size, "locked bytes", True)
    if "page_tables" in mms and "tables_found" in mms:
        wanted = mms["tables_found"] + _deposited(image) * image.page_size
        counts("pgtables", mms["page_tables"], wanted, "bytes of page tables")
    return found.outcome("address space")


def _sums(image: MemoryImage, pages: I64) -> I64:
    sums = np.zeros(len(image.mms), np.int64)
    np.add.at(sums, image.vmas["mm"], pages)
    return sums


def _deposited(image: MemoryImage) -> I64:
    """Tables that wait behind huge entries of anonymous pages, for the day of their split."""
    ptes = image.ptes
    not_anon = np.uint32(Pte.FILE | Pte.HUGETLB)
    huge = (ptes["order"] == _HUGE) & (ptes["flags"] & not_anon == 0)
    return np.bincount(ptes["mm"][huge], minlength=len(image.mms))
