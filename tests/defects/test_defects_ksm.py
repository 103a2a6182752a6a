# SPDX-License-Identifier: GPL-2.0-only
"""Merged pages that somebody writes to, or whose node is gone: D23 and two crashes of mm/ksm.c.

D23 (4.5 to 4.12). MADV_FREE makes entries clean, a write to clear_refs makes them read-only, and
both flush once they are through. KSM that comes by meanwhile finds an entry that is read-only and
clean, as it would make it, and flushes nothing either. So a processor goes on writing, through the
translation that it has, to a page that is by then other processes' as well. b3a81d0841a9 and
99baac21e458 (4.13): who changes entries announces the flush, and KSM makes it.

A page of zeros whose VMA goes while ksmd looks at it (4.12 to 5.6): the VMA is looked up again and
used without asking whether it was found. 56df70a63ed5 (5.7).

A merged page that names a node which was freed (4.13 to 6.9): where a chain for pages that hold the
same cannot be allocated, the node goes, and the page had its name already. 90e823498881 (6.10).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faulting import ARENA, PAGE
from merging import Merging

from rmap.mm import bits
from rmap.mm.access import write_bytes
from rmap.mm.bug import KernelBug
from rmap.mm.clear_refs import clear_refs_write
from rmap.mm.inject import FailPlan
from rmap.mm.ksm.merge import cmp_and_merge_page
from rmap.mm.madvise import do_madvise
from rmap.mm.mm_types import Task
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import PageKsm
from rmap.mm.tlb import tlb_lookup
from rmap.model.running import Running


class BeforeTheFlush(MmuNotifier):
    """Lets others act when an address space's entries have changed, and are not flushed yet."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)

    def invalidate_range_end(self, k, mm, start, end):
        if self.acts:
            self.acts.pop(0)()
        return 0


@pytest.mark.parametrize("fixed", [False, True])
def test_d23_a_process_writes_into_a_page_that_was_merged_under_it(fixed: bool) -> None:
    f = Merging(ksm_honours_flush_pending=fixed)
    q = f.offer(b"same", name="q")
    p = f.offer(b"same", name="p")
    p.cpu = 1
    p.clear_refs("soft-dirty")
    p.write(ARENA, b"same")
    f.rounds(1)
    page = f.of(p)
    stale: list[bool] = []

    def thread(name: str) -> Running:
        """Another thread of p, on the other CPU."""
        return Running(f.m, Task(name, 50, p.mm, 0))

    def clear_refs() -> None:
        with thread("criu") as k:
            assert clear_refs_write(k, p.mm, bits.CLEAR_REFS_SOFT_DIRTY) == 0

    def merge_and_write() -> None:
        f.rounds(1)
        assert f.of(q) == f.of(p) == page
        assert PageKsm(f.k, page)
        stale.append(tlb_lookup(f.k, 1, p.mm, ARENA) & bits._PAGE_RW != 0)
        with f.m.running(p) as k:
            write_bytes(k, p.task, ARENA, b"mine")

    mmu_notifier_register(f.k, p.mm, BeforeTheFlush(clear_refs, merge_and_write))
    with thread("free") as k:
        assert do_madvise(k, p.mm, ARENA, PAGE, bits.MADV_FREE) == 0
    assert stale == [not fixed]
    assert p.read(ARENA, 4) == b"mine"
    # The other process never wrote anything.
    assert q.read(ARENA, 4) == (b"same" if fixed else b"mine")
    assert (f.of(p) == f.of(q)) is not fixed
    assert f.m.check() == []


@pytest.mark.parametrize("fixed", [False, True])
def test_a_page_of_zeros_has_lost_its_vma(fixed: bool) -> None:
    f = Merging(ksm_zero_page_checks_vma=fixed)
    f.m.ksm.use_zero_pages = True
    p = f.offer(b"\0")
    f.rounds(1)
    page = f.of(p)
    (item,) = f.ksm.mm_slots[0].rmap_list
    with f.m.kthread("ksmd") as k:
        # ksmd has come by the page, and goes on without mmap_sem.
        k.pg_refcount[page] += 1
        p.munmap(ARENA, PAGE)
        if fixed:
            assert cmp_and_merge_page(k, page, item) == 0
        else:
            with pytest.raises(KernelBug, match="the VMA is gone, and NULL is followed"):
                cmp_and_merge_page(k, page, item)
            p.mm.mmap_sem.up_read()
        k.pg_refcount[page] -= 1


@pytest.mark.parametrize("fixed", [False, True])
def test_a_merged_page_names_a_node_that_was_freed(fixed: bool) -> None:
    """It stays so if there is no memory for copies either; then whoever walks it is lost."""
    f = Merging(ksm_names_node_last=fixed)
    f.m.ksm.max_page_sharing = 2
    f.offer(b"same", b"same")
    f.rounds(2)
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds(1)
    short = FailPlan.from_text("stable_node:nth=2 page:every=1")
    f.m.inject = short
    f.rounds(1)
    f.m.inject = None
    page = f.of(p)
    assert f.of(q) == page
    assert PageKsm(f.k, page)
    if fixed:
        # A page without a node: nobody finds who maps it, until they write to it.
        assert f.walked(page) == []
        assert f.m.check() == []
        return
    with pytest.raises(KernelBug, match="the page names a node that was freed"):
        f.m.walk(page)
    # Without the lock that the crash left held, for the check to say what else is wrong.
    f.k.pg_flags[page] &= ~bits.PG_locked
    assert {violation.invariant for violation in f.m.check()} == {"ksm-reachable"}
