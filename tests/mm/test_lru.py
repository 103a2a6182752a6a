# SPDX-License-Identifier: GPL-2.0-only
"""The LRU lists, and marking pages mlocked, as of v4.18 and with the counts of v5.18."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import cache, crashed, make_file, process, touch, world
from hypothesis import given
from hypothesis import strategies as st
from kernels import RW, make_kernel, make_mm, map_pages
from pressure import lists_are_sound

from rmap.mm.bits import (
    EBUSY,
    GFP_KERNEL,
    LRU_ACTIVE_ANON,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    NR_ACTIVE_ANON,
    NR_INACTIVE_FILE,
    NR_MLOCK,
    NR_UNEVICTABLE,
    PGACTIVATE,
    PGDEACTIVATE,
    PGLAZYFREE,
    PGROTATED,
    UNEVICTABLE_PGCULLED,
    UNEVICTABLE_PGMLOCKED,
    UNEVICTABLE_PGMUNLOCKED,
    UNEVICTABLE_PGRESCUED,
    UNEVICTABLE_PGSTRANDED,
    VM_IO,
    VM_LOCKED,
    PG_active,
    PG_dirty,
    PG_idle,
    PG_isolated,
    PG_lru,
    PG_mlocked,
    PG_referenced,
    PG_swapbacked,
    PG_unevictable,
)
from rmap.mm.bug import KernelBug
from rmap.mm.lru import (
    activate_page,
    deactivate_page,
    isolate_lru_page,
    lru_cache_add,
    lru_cache_add_active_or_unevictable,
    mark_page_accessed,
    mark_page_lazyfree,
    page_evictable,
    put_page,
    putback_lru_page,
    release_pages,
    rotate_reclaimable_page,
)
from rmap.mm.mlock_page import (
    clear_page_mlock,
    mlock_page,
    mlock_vma_page,
    mlock_vma_page_counted,
    munlock_page,
    munlock_vma_page_counted,
    page_mlock_count,
)
from rmap.mm.mm_types import Kernel
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_alloc import alloc_page, alloc_pages


def new(k: Kernel, *, anon: bool = True) -> int:
    """A page that is not on the LRU yet."""
    page = int(alloc_page(k, GFP_KERNEL))
    if anon:
        k.pg_flags[page] |= PG_swapbacked
    return page


def order(k: Kernel, lru: int) -> list[int]:
    """The pages of a list of the root cgroup, newest first."""
    pages, page = [], k.memcgs[0].lruvec.head[lru]
    while page:
        pages.append(page)
        page = k.pg_lru_next[page]
    return pages


def test_pages_go_to_the_list_of_their_kind_newest_first() -> None:
    k = make_kernel()
    anon, file, other = new(k), new(k, anon=False), new(k)
    for page in (anon, file, other):
        lru_cache_add(k, page)
    assert order(k, LRU_INACTIVE_ANON) == [other, anon]
    assert order(k, LRU_INACTIVE_FILE) == [file]
    k.pg_flags[page := new(k)] |= PG_active
    lru_cache_add(k, page)
    assert order(k, LRU_ACTIVE_ANON) == [page]
    assert k.vm_stat[NR_ACTIVE_ANON] == k.vm_stat[NR_INACTIVE_FILE] == 1
    lists_are_sound(k)
    with pytest.raises(KernelBug, match="on a list"):
        lru_cache_add(k, anon)


def test_the_last_reference_takes_a_page_off_its_list() -> None:
    k = make_kernel()
    pages = [new(k) for _ in range(3)]
    for page in pages:
        lru_cache_add(k, page)
    k.pg_refcount[pages[1]] += 1
    put_page(k, pages[0])
    put_page(k, pages[1])
    assert order(k, LRU_INACTIVE_ANON) == [pages[2], pages[1]]
    put_page(k, pages[1])
    put_page(k, pages[2])
    lists_are_sound(k)
    assert k.nr_free == k.nr_pages


def test_many_references_are_dropped_together() -> None:
    k = make_kernel(1024)
    singles = [new(k) for _ in range(100)]
    for page in singles[:90]:
        lru_cache_add(k, page)
    head = int(alloc_pages(k, GFP_KERNEL, 4))
    held = singles[7]
    k.pg_refcount[held] += 1
    together = memoryview(np.array([*singles[:40], head + 3, *singles[40:]], np.uintc))
    release_pages(k, together, len(together))
    assert order(k, LRU_INACTIVE_ANON) == [held]
    assert k.nr_free == k.nr_pages - 1
    lists_are_sound(k)
    release_pages(k, memoryview(np.array([held], np.uintc)), 1)
    assert k.nr_free == k.nr_pages


def test_new_anonymous_pages_start_active_until_5_9() -> None:
    for inactive, lru in ((False, LRU_ACTIVE_ANON), (True, LRU_INACTIVE_ANON)):
        k = make_kernel(new_anon_inactive=inactive)
        vma = map_pages(k, make_mm(k), 16, 4)
        page = new(k)
        lru_cache_add_active_or_unevictable(k, page, vma)
        assert order(k, lru) == [page]


def test_isolating_takes_a_reference_and_putting_back_drops_it() -> None:
    k = make_kernel()
    page = new(k)
    assert isolate_lru_page(k, page) == -EBUSY
    lru_cache_add(k, page)
    assert isolate_lru_page(k, page) == 0
    assert k.pg_refcount[page] == 2
    assert k.pg_flags[page] & (PG_lru | PG_isolated) == PG_isolated
    assert isolate_lru_page(k, page) == -EBUSY
    assert order(k, LRU_INACTIVE_ANON) == []
    putback_lru_page(k, page)
    assert k.pg_refcount[page] == 1
    assert order(k, LRU_INACTIVE_ANON) == [page]
    # Whoever put the last reference meanwhile leaves the freeing to the putback.
    assert isolate_lru_page(k, page) == 0
    put_page(k, page)
    assert k.pg_refcount[page] == 1
    putback_lru_page(k, page)
    assert k.nr_free == k.nr_pages
    lists_are_sound(k)


def test_a_page_that_is_freed_while_isolated_is_a_bad_page() -> None:
    k = make_kernel()
    page = new(k)
    lru_cache_add(k, page)
    isolate_lru_page(k, page)
    put_page(k, page)
    with pytest.raises(KernelBug, match="flags set"):
        put_page(k, page)


def test_a_second_access_activates() -> None:
    k = make_kernel()
    page = new(k, anon=False)
    lru_cache_add(k, page)
    k.pg_flags[page] |= PG_idle
    mark_page_accessed(k, page)
    assert k.pg_flags[page] & (PG_referenced | PG_active | PG_idle) == PG_referenced
    mark_page_accessed(k, page)
    assert k.pg_flags[page] & (PG_referenced | PG_active) == PG_active
    assert order(k, LRU_ACTIVE_FILE) == [page]
    mark_page_accessed(k, page)
    mark_page_accessed(k, page)
    assert k.vm_stat[PGACTIVATE] == 1
    deactivate_page(k, page)
    assert order(k, LRU_INACTIVE_FILE) == [page]
    assert not k.pg_flags[page] & (PG_active | PG_referenced)
    deactivate_page(k, page)
    activate_page(k, page)
    activate_page(k, page)
    assert (k.vm_stat[PGACTIVATE], k.vm_stat[PGDEACTIVATE]) == (2, 1)
    lists_are_sound(k)


def test_a_page_off_the_lru_is_not_moved() -> None:
    k = make_kernel()
    page = new(k)
    activate_page(k, page)
    deactivate_page(k, page)
    mark_page_lazyfree(k, page)
    rotate_reclaimable_page(k, page)
    assert k.pg_flags[page] == PG_swapbacked


def test_lazily_freed_pages_move_to_the_inactive_file_list() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    activate_page(k, page)
    k.pg_flags[page] |= PG_referenced
    mark_page_lazyfree(k, page)
    assert not k.pg_flags[page] & (PG_swapbacked | PG_active | PG_referenced)
    assert order(k, LRU_INACTIVE_FILE) == [page]
    assert k.vm_stat[PGLAZYFREE] == k.memcgs[0].stat[PGLAZYFREE] == 1
    mark_page_lazyfree(k, page)
    assert k.vm_stat[PGLAZYFREE] == 1
    lists_are_sound(k)


def test_a_written_page_is_rotated_to_the_end_that_reclaim_looks_at() -> None:
    k = make_kernel()
    pages = [new(k, anon=False) for _ in range(3)]
    for page in pages:
        lru_cache_add(k, page)
    activate_page(k, pages[2])
    rotate_reclaimable_page(k, pages[2])
    assert order(k, LRU_INACTIVE_FILE) == [pages[1], pages[0], pages[2]]
    assert k.vm_stat[PGROTATED] == 1
    k.pg_flags[pages[1]] |= PG_dirty
    rotate_reclaimable_page(k, pages[1])
    assert order(k, LRU_INACTIVE_FILE)[0] == pages[1]
    lists_are_sound(k)


def test_pages_of_an_unevictable_file_are_on_the_unevictable_list() -> None:
    k = world()
    file = make_file(k)
    file.f_mapping.unevictable = True
    page = cache(k, file, 0)
    assert not page_evictable(k, page)
    assert order(k, LRU_UNEVICTABLE) == [page]
    file.f_mapping.unevictable = False
    assert isolate_lru_page(k, page) == 0
    assert k.pg_flags[page] & PG_unevictable
    putback_lru_page(k, page)
    assert order(k, LRU_INACTIVE_FILE) == [page]
    assert k.vm_stat[UNEVICTABLE_PGRESCUED] == 1


@given(st.lists(st.tuples(st.sampled_from("adlriptm"), st.integers(0, 5)), max_size=60))
def test_lists_stay_sound(steps: list[tuple[str, int]]) -> None:
    """Whatever is done to pages, each is on the list that its flags say, and counted there."""
    k = make_kernel(16)
    pages = [new(k, anon=bool(i % 2)) for i in range(6)]
    isolated: set[int] = set()
    for page in pages:
        lru_cache_add(k, page)
    for what, which in steps:
        page = pages[which]
        if what == "a":
            activate_page(k, page)
        elif what == "d":
            deactivate_page(k, page)
        elif what == "l":
            k.pg_mapping[page] |= 1
            mark_page_lazyfree(k, page)
        elif what == "r":
            rotate_reclaimable_page(k, page)
        elif what == "i":
            if isolate_lru_page(k, page) == 0:
                isolated.add(page)
        elif what == "p" and page in isolated:
            isolated.discard(page)
            putback_lru_page(k, page)
        elif what == "t":
            mark_page_accessed(k, page)
        elif what == "m":
            k.pg_flags[page] ^= PG_mlocked
        lists_are_sound(k)
        assert all(bool(k.pg_flags[page] & PG_lru) == (page not in isolated) for page in pages)


# ---------------------------------------------------------------- mlock, v4.18


def test_mlock_and_its_end_move_a_page() -> None:
    k = make_kernel()
    page = new(k)
    lru_cache_add(k, page)
    with pytest.raises(KernelBug, match=r"mlock\.c:89"):
        mlock_vma_page(k, page)
    lock_page(k, page)
    mlock_vma_page(k, page)
    mlock_vma_page(k, page)
    unlock_page(k, page)
    assert k.vm_stat[NR_MLOCK] == k.vm_stat[UNEVICTABLE_PGMLOCKED] == 1
    assert order(k, LRU_UNEVICTABLE) == [page]
    assert k.vm_stat[NR_UNEVICTABLE] == k.vm_stat[UNEVICTABLE_PGCULLED] == 1
    clear_page_mlock(k, page)
    clear_page_mlock(k, page)
    assert k.vm_stat[NR_MLOCK] == 0
    assert order(k, LRU_INACTIVE_ANON) == [page]
    assert k.pg_refcount[page] == 1
    lists_are_sound(k)


def test_an_isolated_page_that_is_mlocked_is_put_back_as_unevictable() -> None:
    k = make_kernel()
    page = new(k)
    lru_cache_add(k, page)
    isolate_lru_page(k, page)
    lock_page(k, page)
    mlock_vma_page(k, page)
    unlock_page(k, page)
    assert k.pg_refcount[page] == 2
    putback_lru_page(k, page)
    assert order(k, LRU_UNEVICTABLE) == [page]
    # And one that is isolated when the mark goes is stranded until it is put back.
    isolate_lru_page(k, page)
    clear_page_mlock(k, page)
    assert k.vm_stat[UNEVICTABLE_PGSTRANDED] == 1
    putback_lru_page(k, page)
    assert order(k, LRU_INACTIVE_ANON) == [page]


def test_a_new_page_of_a_locked_vma_is_mlocked_at_once() -> None:
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4, RW | VM_LOCKED)
    page = new(k)
    lru_cache_add_active_or_unevictable(k, page, vma)
    assert k.pg_flags[page] & (PG_mlocked | PG_unevictable | PG_active) == (
        PG_mlocked | PG_unevictable
    )
    assert k.vm_stat[NR_MLOCK] == 1
    special = map_pages(k, make_mm(k), 16, 4, RW | VM_LOCKED | VM_IO)
    page = new(k)
    lru_cache_add_active_or_unevictable(k, page, special)
    assert k.pg_flags[page] & (PG_mlocked | PG_active) == PG_active


def test_a_page_that_is_freed_mlocked_is_a_bad_page_until_5_18() -> None:
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4, RW | VM_LOCKED)
    page = new(k)
    lru_cache_add_active_or_unevictable(k, page, vma)
    with pytest.raises(KernelBug, match="flags set"):
        put_page(k, page)
    k = make_kernel(mlock_counts=True)
    page = new(k)
    lru_cache_add_active_or_unevictable(k, page, vma)
    put_page(k, page)
    assert k.vm_stat[NR_MLOCK] == 0
    assert k.nr_free == k.nr_pages
    lists_are_sound(k)


# ---------------------------------------------------------------- mlock, v5.18


def test_mlock_is_counted_while_the_page_is_unevictable() -> None:
    k = make_kernel(mlock_counts=True)
    locked = map_pages(k, make_mm(k), 16, 4, RW | VM_LOCKED)
    plain = map_pages(k, make_mm(k), 16, 4)
    page = new(k)
    lru_cache_add(k, page)
    mlock_vma_page_counted(k, page, plain, False)
    assert k.vm_stat[NR_MLOCK] == 0
    for count in (1, 2, 3):
        mlock_vma_page_counted(k, page, locked, False)
        assert page_mlock_count(k, page) == count
        assert k.vm_stat[NR_MLOCK] == 1
    assert k.memcgs[0].lruvec.size[LRU_UNEVICTABLE] == 1
    lists_are_sound(k)
    for count in (2, 1, 0):
        munlock_vma_page_counted(k, page, locked, False)
        munlock_vma_page_counted(k, page, plain, False)
        assert page_mlock_count(k, page) == count
    assert k.vm_stat[NR_MLOCK] == 0
    assert k.vm_stat[UNEVICTABLE_PGMUNLOCKED] == k.vm_stat[UNEVICTABLE_PGRESCUED] == 1
    assert order(k, LRU_INACTIVE_ANON) == [page]
    lists_are_sound(k)


def test_a_new_page_of_a_locked_vma_starts_with_a_count_of_one() -> None:
    k = make_kernel(mlock_counts=True)
    vma = map_pages(k, make_mm(k), 16, 4, RW | VM_LOCKED)
    page = new(k)
    lru_cache_add_active_or_unevictable(k, page, vma)
    assert page_mlock_count(k, page) == 1
    mlock_page(k, page)
    assert page_mlock_count(k, page) == 2


def test_off_the_lru_mlocks_are_not_counted_so_the_count_may_be_too_low() -> None:
    k = make_kernel(mlock_counts=True)
    page = new(k)
    lru_cache_add(k, page)
    isolate_lru_page(k, page)
    mlock_page(k, page)
    mlock_page(k, page)
    assert page_mlock_count(k, page) == 0
    putback_lru_page(k, page)
    assert page_mlock_count(k, page) == 1
    munlock_page(k, page)
    # Another VMA still has it locked. Reclaim will find that one and mark the page again.
    assert not k.pg_flags[page] & PG_mlocked
    isolate_lru_page(k, page)
    mlock_page(k, page)
    munlock_page(k, page)
    putback_lru_page(k, page)
    assert order(k, LRU_INACTIVE_ANON) == [page]
    lists_are_sound(k)


def test_the_lru_lock_is_let_go() -> None:
    k = make_kernel()
    page = new(k)
    k.lru_lock.lock()
    with pytest.raises(AssertionError, match="zone_lru_lock"):
        lru_cache_add(k, page)
    crashed()
