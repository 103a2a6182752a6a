# SPDX-License-Identifier: GPL-2.0-only
"""Taking swap out of use: everybody gets back what is theirs, or everything stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Failing
from pressure import Process, elsewhere, lists_are_sound, machine, squeeze

from rmap.mm.bits import (
    EINTR,
    EINVAL,
    ENOMEM,
    GFP_KERNEL,
    MADV_PAGEOUT,
    MM_ANONPAGES,
    MM_SWAPENTS,
    NR_SWAPCACHE,
    VM_LOCKED,
    PG_dirty,
    PG_locked,
    PG_mlocked,
)
from rmap.mm.filemap import file_read, file_write, make_file
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel
from rmap.mm.page import PageSwapCache, page_anon_vma
from rmap.mm.page_alloc import alloc_page
from rmap.mm.pgtable import pte_dirty, pte_write, pte_young
from rmap.mm.swap_cache import lookup_swap_cache
from rmap.mm.swap_slots import (
    get_nr_swap_pages,
    swap_count,
    swap_duplicate,
    swapon,
    total_swap_pages,
)
from rmap.mm.swapoff import find_next_to_unuse, swapoff


def family(k: Kernel) -> list[Process]:
    """A process, its child and its grandchild, with shared and with own pages, all in swap."""
    p = Process(k)
    p.mmap(0, 8)
    p.fill(0, 8)
    child = p.split()
    child.fill(0, 3, b"child")
    grandchild = child.split(0)
    grandchild.fill(2, 2, b"grandchild")
    assert squeeze(k) == 8 + 3 + 2
    return [p, child, grandchild]


def test_everybody_gets_back_what_is_theirs() -> None:
    k = machine()
    processes = family(k)
    area = k.swap_areas[0]
    assert area.inuse == 13
    assert swapoff(k, 0) == 0
    assert total_swap_pages(k) == k.vm_stat[NR_SWAPCACHE] == 0
    assert not area.slots
    assert not any(area.swap_map[1:])
    for p in processes:
        assert p.present(0, 8) == 8
        assert (p.mm.rss_stat[MM_ANONPAGES], p.mm.rss_stat[MM_SWAPENTS]) == (8, 0)
    # Before anybody faults: the entries are in place, old and read-only, the pages dirty.
    page = processes[0].pfn(7)
    assert k.pg_refcount[page] == 3
    assert k.pg_mapcount[page] == 2
    assert k.pg_flags[page] & PG_dirty
    assert not PageSwapCache(k, page)
    assert page_anon_vma(k, page) is processes[0].vma(0).anon_vma
    for p in processes:
        pte = p.pte(7)
        assert [pte_young(pte), pte_write(pte), pte_dirty(pte)] == [False] * 3
    for p in processes:
        p.check()
        p.store(7, b"new")
        p.check()
    for p in processes:
        p.exit()
    assert k.nr_free == k.nr_pages - 1
    lists_are_sound(k)


def test_a_page_that_still_names_its_anon_vma_is_looked_for_at_one_address() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 8)
    p.fill(0, 8)
    child = p.split()
    child.madvise(3, 1, MADV_PAGEOUT)
    squeeze(k)
    # The parent reads: the page is in the swap cache and named after the root.
    p.load(3)
    page = p.pfn(3)
    assert child.entry(3)
    assert page_anon_vma(k, page) is not None
    looked: list[int] = []
    k.tracer = lambda name, what: looked.append(what[2]) if name == "unuse_pte" else None
    assert swapoff(k, 0) == 0
    k.tracer = None
    assert looked.count(child.at(3)) == 1
    assert child.pfn(3) == page
    p.check()
    child.check()


def test_shared_memory_goes_back_to_its_file() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4, shared=True)
    p.fill(0, 4)
    file = make_file(k, "tmp", 4, True)
    file_write(k, file, 4096, b"unmapped")
    assert squeeze(k) == 5
    assert p.present(0, 4) == 0
    assert min(file.f_mapping.i_pages.values()) < 0
    assert swapoff(k, 0) == 0
    assert all(page > 0 for page in file.f_mapping.i_pages.values())
    assert file_read(k, file, 4096, 8) == b"unmapped"
    # Page tables are left to faults.
    assert p.present(0, 4) == 0
    p.check()
    lists_are_sound(k)


def test_what_does_not_fit_into_memory_stays_in_swap() -> None:
    k = machine(pages=64)
    p = Process(k)
    p.mmap(0, 80)
    p.fill(0, 80)
    assert swapoff(k, 0) == -ENOMEM
    assert total_swap_pages(k) == 256
    p.check()
    p.munmap(40, 40)
    for page in range(40, 80):
        del p.stored[page]
    assert swapoff(k, 0) == 0
    p.check()


@pytest.mark.parametrize("site", ["page", "memcg_charge", "swap_cache"])
def test_a_failing_allocation_loses_nothing(site: str) -> None:
    k = machine()
    processes = family(k)
    for nth in range(1, 14):
        k.inject = Failing(nth, site, once=True)
        error = swapoff(k, 0)
        k.inject = None
        if error == 0:
            break
        assert error == -ENOMEM
        assert k.swap_areas[0].writeok
        squeeze(k)
    for p in processes:
        p.check()
    lists_are_sound(k)


def test_what_is_no_swap_area_is_refused() -> None:
    k = machine(swap=0)
    assert swapoff(k, 0) == -EINVAL
    assert swapoff(k, -1) == -EINVAL
    swapon(k, 8)
    assert swapoff(k, 0) == 0
    assert swapoff(k, 0) == -EINVAL
    # The number of an area that is off is given to the next.
    assert swapon(k, 16) == 0
    assert get_nr_swap_pages(k) == 15


def test_an_entry_that_nobody_has_would_be_looked_for_for_ever() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 2)
    p.fill(0, 2)
    squeeze(k)
    assert swap_duplicate(k, p.entry(1)) == 0
    assert swapoff(k, 0) == -EINTR
    p.check()


def test_a_page_that_is_in_memory_anyway_is_used() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 2)
    p.fill(0, 2)
    child = p.split()
    squeeze(k)
    child.check()
    page = lookup_swap_cache(k, p.entry(0))
    assert page == child.pfn(0)
    put_page(k, page)
    free = k.nr_free
    assert swapoff(k, 0) == 0
    assert k.nr_free == free
    assert p.pfn(0) == page


def test_who_has_mmap_sem_is_waited_for_without_the_page_lock() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 2)
    p.fill(0, 2)
    squeeze(k)
    with elsewhere():
        p.mm.mmap_sem.down_write()
    with pytest.raises(AssertionError, match="waits for mm->mmap_sem"):
        swapoff(k, 0)
    # Waiting was all that it could do; what it held it has let go of.
    assert not any(flags & PG_locked for flags in k.pg_flags)
    with elsewhere():
        p.mm.mmap_sem.up_write()
    p.check()


def test_continuation_pages_are_given_back() -> None:
    k = machine(pages=512)
    p = Process(k)
    p.mmap(0, 1)
    p.fill(0, 1)
    squeeze(k)
    children = [p.split() for _ in range(70)]
    assert swap_count(k, p.entry(0)) == 71
    assert k.swap_areas[0].continuation_pages
    assert swapoff(k, 0) == 0
    for one in [p, *children]:
        one.check()
        one.exit()
    assert k.nr_free == k.nr_pages - 1


def test_locked_memory_stays_locked() -> None:
    for counts in (False, True):
        k = machine(mlock_counts=counts)
        p = Process(k)
        p.mmap(0, 2)
        p.fill(0, 2)
        squeeze(k)
        vma = p.vma(0)
        vma.vm_flags |= VM_LOCKED
        assert swapoff(k, 0) == 0
        # In v4.18 nobody marks them here: reclaim does when it meets them.
        assert bool(k.pg_flags[p.pfn(0)] & PG_mlocked) == counts
        if not counts:
            assert squeeze(k) == 0
        vma.vm_flags &= ~VM_LOCKED
        p.check()


def test_slots_are_looked_through_going_round() -> None:
    k = machine(swap=8)
    area = k.swap_areas[0]
    assert find_next_to_unuse(k, area, 0) == 0
    area.swap_map[3] = 1
    area.swap_map[6] = 0x41
    assert [find_next_to_unuse(k, area, last) for last in (0, 3, 6, 8)] == [3, 6, 3, 3]
    area.swap_map[3] = area.swap_map[6] = 0
    page = alloc_page(k, GFP_KERNEL)
    put_page(k, page)


@given(
    st.lists(st.tuples(st.sampled_from("wfexs"), st.integers(0, 3), st.integers(0, 5)), max_size=40)
)
def test_no_store_is_lost(steps: list[tuple[str, int, int]]) -> None:
    """Writes, forks, exits and swap-outs in any order, then swapoff: what was stored is there."""
    k = machine(pages=300)
    first = Process(k)
    first.mmap(0, 6)
    running = [first]
    for number, (what, which, page) in enumerate(steps):
        p = running[which % len(running)]
        if what == "w":
            p.store(page, b"%d" % number)
        elif what == "f" and len(running) < 6:
            running.append(p.split(which % 2))
        elif what == "e" and len(running) > 1:
            running.remove(p)
            p.exit()
        elif what == "x":
            p.load(page)
        elif what == "s":
            squeeze(k)
    assert swapoff(k, 0) == 0
    for p in running:
        assert p.swapped(0, 6) == 0
        p.check()
        p.exit()
    assert k.nr_free == k.nr_pages - 1
    assert not k.warnings
    lists_are_sound(k)
