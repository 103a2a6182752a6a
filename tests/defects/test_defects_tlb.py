# SPDX-License-Identifier: GPL-2.0-only
"""Translations that a processor still has when the page tables say otherwise: D19, D22 and D25.

D19 (4.3 to 4.12). Reclaim empties entries and flushes later, for many at once. mprotect() that
finds such an entry empty has nothing to flush, and returns while the process still writes through
the old, writable translation. 3ea277194daa (4.13) flushes what reclaim owes to this mm first.

D22, CVE-2022-39188. munmap() empties entries, lets rmap forget the VMA, and flushes then. A driver
that takes its pages back meanwhile finds no VMA to unmap them from, and frees them under a
processor that still has the translation. b67fbebd4cf9 (5.19) flushes first for VM_PFNMAP VMAs.

D25 (2022). migrate_vma() replaces entries by migration entries and flushes when it has dropped
their lock. Who zaps such an entry has nothing to flush, and a processor writes on to what was given
up. (MADV_DONTNEED flushes in any case from 4.13 to 4.18.) 60bae7370896 (6.1) does it under the
lock.
"""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting
from interruptions import interrupted

from rmap.mm import bits
from rmap.mm.pgtable import pte_lookup
from rmap.mm.tlb import tlb_lookup
from rmap.mm.zap import unmap_mapping_pages
from rmap.model import Segfault
from rmap.sync.bits import FIELD_TLB, FIELD_TLB_BATCHED, OP_RMW


@pytest.mark.parametrize("fixed", [False, True])
def test_d19_a_process_writes_to_what_it_has_made_read_only(fixed: bool) -> None:
    # As on x86, where aging leaves the translation alone.
    f = Faulting(flush_batched_pending=fixed, clear_young_keeps_tlb=True)
    a = f.map(1)
    f.p.cpu = 1
    f.p.write(a, b"before")
    page = f.page(f.p, a)
    written: list[bool] = []

    def meanwhile(name: str, what: tuple[object, ...]) -> None:
        """Reclaim has unmapped the page, and is yet to flush; the process runs on its CPU."""
        if name != "try_to_unmap" or written:
            return
        f.m.trace(None)
        assert f.pte(f.p, a) & bits._PAGE_PRESENT == 0
        f.p.mprotect(a, PAGE, "r")
        assert (tlb_lookup(f.k, 1, f.p.mm, a) == 0) is fixed
        if not fixed:
            # It would fault if it were not for the translation.
            f.p.write(a, b"after!")
        written.append(not fixed)

    f.m.page_referenced([page])
    f.m.age(4)
    f.m.trace(meanwhile)
    f.m.reclaim(4)
    assert written == [not fixed]
    with pytest.raises(Segfault):
        f.p.write(a, b"after!")
    assert f.p.read(a, 6) == (b"before" if fixed else b"after!")


@pytest.mark.parametrize("fixed", [False, True])
def test_d22_a_driver_frees_a_page_that_a_processor_still_reaches(fixed: bool) -> None:
    f = Faulting(pfnmap_flushed_before_unlink=fixed)
    device = f.file(shmem=True)
    a = f.map(1, kind="file", file=device)
    f.p.write(a, b"x")
    # Its page becomes one that rmap does not count, as remap_pfn_range() maps it.
    f.p.vmas[0].vm_flags |= bits.VM_PFNMAP
    f.set_pte(f.p, a, f.pte(f.p, a) | bits._PAGE_SPECIAL)
    reached: list[bool] = []

    def take_back() -> None:
        """The driver: unmap_mapping_range(), then the page is its own to free."""
        unmap_mapping_pages(f.k, device.mapping, 0, 1, True)
        reached.append(tlb_lookup(f.k, f.p.cpu, f.p.mm, a) != 0)

    # After rmap has forgotten the VMA: before the flush, or, where that came first, at the end.
    moment = (OP_RMW, FIELD_TLB_BATCHED, 2) if fixed else (OP_RMW, FIELD_TLB)
    with interrupted((moment, take_back)):
        f.p.munmap(a, PAGE)
    assert reached == [not fixed]


@pytest.mark.parametrize("fixed", [False, True])
def test_d25_an_entry_is_gone_and_unlocked_and_a_processor_writes_on(fixed: bool) -> None:
    f = Faulting(device_collect_flushes_under_lock=fixed)
    gpu = f.m.device(4)
    a = f.map(1)
    f.p.cpu = 1
    f.p.write(a, b"x")
    ptep = pte_lookup(f.k, f.p.mm, a)
    seen: list[tuple[bool, bool, bool]] = []

    def before_the_flush() -> None:
        """What somebody finds who comes by: who locks the table may trust in what it says."""
        emptied = f.k.pt[ptep] & bits._PAGE_PRESENT == 0
        writable = tlb_lookup(f.k, 1, f.p.mm, a) & bits._PAGE_RW != 0
        seen.append((emptied, writable, f.k.pt_locked[ptep // 512] != 0))

    with interrupted(((OP_RMW, FIELD_TLB), before_the_flush)):
        gpu.pull(f.p, a, PAGE)
    assert seen == [(True, True, fixed)]
    assert f.p.read(a, 1) == b"x"
