# SPDX-License-Identifier: GPL-2.0-only
"""Swap: slots and their counts, the swap cache, reuse; swap-out and swap-in by the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Failing, make_kernel
from pressure import (
    lists_are_sound,
    locked_elsewhere,
)

from rmap.mm.bits import (
    COUNT_CONTINUED,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    EPERM,
    GFP_KERNEL,
    NR_FILE_PAGES,
    NR_SWAPCACHE,
    PSWPIN,
    PSWPOUT,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    SWAP_MAP_MAX,
    SWAP_MAP_SHMEM,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    PG_dirty,
    PG_locked,
    PG_swapbacked,
    PG_swapcache,
    PG_uptodate,
    PG_writeback,
)
from rmap.mm.bug import KernelBug
from rmap.mm.content import page_bytes, set_page_bytes
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel
from rmap.mm.page import (
    PageSwapCache,
    get_page,
    lock_page,
    page_mapping,
    page_private,
    unlock_page,
)
from rmap.mm.page_alloc import alloc_page
from rmap.mm.pgtable import swp_entry, swp_offset, swp_type
from rmap.mm.swap import (
    add_to_swap,
    free_page_and_swap_cache,
    free_swap_and_cache,
    get_swap_page,
    reuse_swap_page,
    swap_writepage,
    try_to_free_swap,
)
from rmap.mm.swap_cache import (
    add_to_swap_cache,
    delete_from_swap_cache,
    end_swap_writes,
    lookup_swap_cache,
    read_swap_cache,
)
from rmap.mm.swap_slots import (
    add_swap_count_continuation,
    get_nr_swap_pages,
    page_swapcount,
    put_swap_page,
    swap_count,
    swap_duplicate,
    swap_free,
    swap_shmem_alloc,
    swapcache_prepare,
    swapon,
    total_swap_pages,
    vm_swap_full,
)


def kernel(slots: int = 16, pages: int = 256, **quirks: bool) -> Kernel:
    """A kernel with swap but without processes."""
    k = make_kernel(pages, **quirks)
    assert swapon(k, slots + 1) == 0
    return k


def new(k: Kernel, data: bytes = b"") -> int:
    """A page as reclaim has it: anonymous as far as swap cares, up to date."""
    page = int(alloc_page(k, GFP_KERNEL))
    k.pg_flags[page] |= PG_swapbacked | PG_uptodate
    set_page_bytes(k, page, data)
    return page


def taken(k: Kernel) -> int:
    """An entry of a slot that one page table refers to, and no page."""
    page = new(k)
    entry = get_swap_page(k, page)
    assert swap_duplicate(k, entry) == 0
    put_swap_page(k, page, entry)
    put_page(k, page)
    return int(entry)


def byte(k: Kernel, entry: int) -> int:
    return int(k.swap_areas[swp_type(entry)].swap_map[swp_offset(entry)])


# ---------------------------------------------------------------- areas and slots


def test_slots_are_given_out_from_the_first() -> None:
    k = kernel(4)
    page = new(k)
    assert k.swap_areas[0].swap_map[0] == SWAP_MAP_BAD
    entries = [get_swap_page(k, page) for _ in range(5)]
    assert entries == [swp_entry(0, i) for i in (1, 2, 3, 4)] + [0]
    assert [byte(k, entry) for entry in entries[:4]] == [SWAP_HAS_CACHE] * 4
    put_swap_page(k, page, entries[1])
    assert get_swap_page(k, page) == entries[1]
    assert (total_swap_pages(k), get_nr_swap_pages(k)) == (4, 0)


def test_areas_are_used_by_priority_and_those_of_the_same_by_turns() -> None:
    k = make_kernel()
    assert [swapon(k, 3, prio) for prio in (-1, 5, 5, -1)] == [0, 1, 2, 3]
    assert [area.prio for area in k.swap_areas] == [-2, 5, 5, -3]
    page = new(k)
    types = [swp_type(get_swap_page(k, page)) for _ in range(8)]
    assert types == [1, 2, 1, 2, 0, 0, 3, 3]
    assert get_swap_page(k, page) == 0


def test_there_are_27_areas_at_most() -> None:
    k = make_kernel()
    assert [swapon(k, 2) for _ in range(27)] == list(range(27))
    assert swapon(k, 2) == -EPERM


def test_swap_is_full_when_less_than_half_is_free() -> None:
    assert not vm_swap_full(make_kernel())
    k = kernel(4)
    page = new(k)
    full = []
    for _ in range(4):
        get_swap_page(k, page)
        full.append(vm_swap_full(k))
    assert full == [False, False, True, True]


def test_taking_a_slot_can_be_made_to_fail() -> None:
    k = kernel()
    page = new(k)
    k.inject = Failing(1, "swap_slot")
    assert get_swap_page(k, page) == 0
    k.inject = Failing(1, "swap_cache")
    lock_page(k, page)
    assert not add_to_swap(k, page)
    unlock_page(k, page)
    assert k.swap_areas[0].inuse == 0
    assert k.pg_refcount[page] == 1
    entry = taken(k)
    k.inject = Failing(1, "swap_duplicate")
    assert swap_duplicate(k, entry) == -ENOMEM
    k.inject = Failing(1, "page")
    assert read_swap_cache(k, entry, None) == 0


# ---------------------------------------------------------------- counts


def test_a_slot_counts_entries_and_its_page() -> None:
    k = kernel()
    entry = taken(k)
    assert byte(k, entry) == 1
    assert swap_duplicate(k, entry) == 0
    assert byte(k, entry) == 2
    assert swapcache_prepare(k, entry) == 0
    assert byte(k, entry) == 0x42
    assert swapcache_prepare(k, entry) == -EEXIST
    swap_free(k, entry)
    swap_free(k, entry)
    assert byte(k, entry) == SWAP_HAS_CACHE
    # An entry can come back while a page stands for the slot: this is how a page is unmapped.
    assert swap_duplicate(k, entry) == 0
    swap_free(k, entry)
    put_swap_page(k, 0, entry)
    assert byte(k, entry) == 0
    assert swapcache_prepare(k, entry) == -ENOENT
    assert swap_duplicate(k, entry) == -ENOENT
    assert not k.warnings


def test_what_is_no_entry_of_a_slot_is_refused() -> None:
    k = kernel(4)
    assert swap_duplicate(k, swp_entry(SWP_MIGRATION_READ, 5)) == -EINVAL
    assert swap_duplicate(k, swp_entry(SWP_HWPOISON, 5)) == -EINVAL
    assert swap_duplicate(k, swp_entry(3, 1)) == -EINVAL
    assert swap_duplicate(k, swp_entry(0, 99)) == -EINVAL
    assert swap_duplicate(k, swp_entry(0, 0)) == -ENOENT
    assert free_swap_and_cache(k, swp_entry(SWP_MIGRATION_READ, 5)) == 1
    assert not k.warnings
    # These are reported, as page tables have become nonsense.
    swap_free(k, swp_entry(0, 2))
    assert free_swap_and_cache(k, swp_entry(0, 99)) == 0
    assert free_swap_and_cache(k, swp_entry(7, 1)) == 0
    assert [warning.check[:16] for warning in k.warnings] == [
        "swapfile.c:1109 ",
        "swapfile.c:1112 ",
        "swapfile.c:1094 ",
    ]


def test_counts_above_62_carry_into_continuation_pages() -> None:
    k = kernel()
    entry = taken(k)
    free = k.nr_free
    for _ in range(SWAP_MAP_MAX - 1):
        assert swap_duplicate(k, entry) == 0
    assert byte(k, entry) == SWAP_MAP_MAX
    assert k.nr_free == free
    assert swap_duplicate(k, entry) == 0
    assert byte(k, entry) == COUNT_CONTINUED
    assert swap_count(k, entry) == 63
    assert k.nr_free == free - 1
    swap_free(k, entry)
    assert byte(k, entry) == SWAP_MAP_MAX
    assert swap_duplicate(k, entry) == 0
    # The page is there already, for every slot of the same 4096.
    assert k.nr_free == free - 1
    # 63 * 128 is where the next digit begins.
    for _ in range(63 * 128 - 63):
        assert swap_duplicate(k, entry) == 0
    assert swap_count(k, entry) == 63 * 128
    assert k.nr_free == free - 2


def test_without_memory_for_a_continuation_duplicating_fails() -> None:
    k = kernel(pages=2)
    entry = taken(k)
    hoard = [alloc_page(k, GFP_KERNEL) for _ in range(2)]
    for _ in range(SWAP_MAP_MAX - 1):
        assert swap_duplicate(k, entry) == 0
    assert swap_duplicate(k, entry) == -ENOMEM
    assert swap_count(k, entry) == SWAP_MAP_MAX
    put_page(k, hoard[0])
    assert add_swap_count_continuation(k, entry, GFP_KERNEL) == 0
    assert swap_duplicate(k, entry) == 0
    # Brought twice, the second page is not needed and given back.
    put_page(k, hoard[1])
    swap_free(k, entry)
    assert add_swap_count_continuation(k, entry, GFP_KERNEL) == 0
    assert k.nr_free == 1


@given(st.lists(st.integers(-70, 90), max_size=30))
def test_a_count_is_what_was_added_and_taken(steps: list[int]) -> None:
    k = kernel(pages=64)
    entry = taken(k)
    count = 1
    for step in steps:
        for _ in range(max(step, 1 - count), 0):
            swap_free(k, entry)
            count -= 1
        for _ in range(step):
            assert swap_duplicate(k, entry) == 0
            count += 1
        assert swap_count(k, entry) == count
        low = byte(k, entry)
        assert bool(low & COUNT_CONTINUED) == (count > SWAP_MAP_MAX)
    for _ in range(count):
        swap_free(k, entry)
    assert byte(k, entry) == 0
    assert not k.swap_areas[0].continuation


def test_what_shmem_keeps_is_no_count() -> None:
    k = kernel()
    page = new(k)
    entry = get_swap_page(k, page)
    assert swap_shmem_alloc(k, entry) == 0
    assert byte(k, entry) == SWAP_MAP_SHMEM | SWAP_HAS_CACHE
    assert swap_count(k, entry) == 1
    assert swap_duplicate(k, entry) == -EINVAL
    swap_free(k, entry)
    assert byte(k, entry) == SWAP_HAS_CACHE


# ---------------------------------------------------------------- the swap cache


def test_a_page_enters_and_leaves_the_swap_cache() -> None:
    k = kernel()
    page = new(k)
    lock_page(k, page)
    assert add_to_swap(k, page)
    entry = page_private(k, page)
    assert entry == swp_entry(0, 1)
    assert byte(k, entry) == SWAP_HAS_CACHE
    assert k.pg_refcount[page] == 2
    assert PageSwapCache(k, page)
    assert k.pg_flags[page] & PG_dirty
    space = k.swap_areas[0].address_space
    assert page_mapping(k, page) is space
    assert space.nrpages == k.vm_stat[NR_SWAPCACHE] == k.vm_stat[NR_FILE_PAGES] == 1
    assert lookup_swap_cache(k, entry) == page
    put_page(k, page)
    with pytest.raises(KernelBug, match=r"swap_state\.c:129"):
        add_to_swap_cache(k, page, entry)
    delete_from_swap_cache(k, page)
    assert not k.pg_flags[page] & PG_swapcache
    assert k.pg_refcount[page] == 1
    assert page_private(k, page) == byte(k, entry) == 0
    assert space.nrpages == k.vm_stat[NR_SWAPCACHE] == k.vm_stat[NR_FILE_PAGES] == 0
    assert lookup_swap_cache(k, entry) == 0
    with pytest.raises(KernelBug, match=r"swap_state\.c:190"):
        delete_from_swap_cache(k, page)
    space.i_pages_lock.unlock()
    unlock_page(k, page)


def test_what_add_to_swap_insists_on() -> None:
    k = kernel()
    page = new(k)
    with pytest.raises(KernelBug, match=r"swap_state\.c:218"):
        add_to_swap(k, page)
    lock_page(k, page)
    k.pg_flags[page] ^= PG_uptodate
    with pytest.raises(KernelBug, match=r"swap_state\.c:219"):
        add_to_swap(k, page)
    k.pg_flags[page] ^= PG_uptodate | PG_swapbacked
    with pytest.raises(KernelBug, match=r"swap_state\.c:130"):
        add_to_swap(k, page)
    unlock_page(k, page)


def test_content_goes_to_the_slot_and_comes_back() -> None:
    k = kernel()
    page = new(k, b"to be kept")
    lock_page(k, page)
    add_to_swap(k, page)
    entry = page_private(k, page)
    assert swap_duplicate(k, entry) == 0
    swap_writepage(k, page)
    assert not k.pg_flags[page] & (PG_locked | PG_writeback)
    assert k.swap_areas[0].slots == {1: b"to be kept"}
    lock_page(k, page)
    delete_from_swap_cache(k, page)
    unlock_page(k, page)
    put_page(k, page)
    back = read_swap_cache(k, entry, None)
    assert page_bytes(k, back) == b"to be kept"
    assert k.pg_flags[back] & (PG_uptodate | PG_locked) == PG_uptodate
    assert k.pg_refcount[back] == 2
    assert byte(k, entry) == 0x41
    # The second reader finds the page.
    assert read_swap_cache(k, entry, None) == back
    assert (k.vm_stat[PSWPOUT], k.vm_stat[PSWPIN]) == (1, 1)
    put_page(k, back)
    put_page(k, back)
    lists_are_sound(k)


def test_nobody_reads_a_slot_that_is_not_in_use() -> None:
    k = kernel()
    assert read_swap_cache(k, swp_entry(0, 3), None) == 0
    assert k.nr_free == k.nr_pages


def test_a_page_that_nobody_refers_to_is_not_written() -> None:
    k = kernel()
    page = new(k, b"x")
    lock_page(k, page)
    add_to_swap(k, page)
    swap_writepage(k, page)
    assert not PageSwapCache(k, page)
    assert not k.pg_flags[page] & PG_locked
    assert k.vm_stat[PSWPOUT] == 0
    assert k.swap_areas[0].inuse == 0


def test_a_slot_is_freed_with_the_last_entry_unless_it_is_being_written() -> None:
    k = kernel()
    area = k.swap_areas[0]
    area.deferred = True
    page = new(k, b"x")
    lock_page(k, page)
    add_to_swap(k, page)
    entry = page_private(k, page)
    assert swap_duplicate(k, entry) == 0
    assert not try_to_free_swap(k, page)
    swap_writepage(k, page)
    assert k.pg_flags[page] & PG_writeback
    assert not area.slots
    lock_page(k, page)
    swap_free(k, entry)
    assert not try_to_free_swap(k, page)
    with pytest.raises(KernelBug, match=r"swap_state\.c:191"):
        delete_from_swap_cache(k, page)
    area.address_space.i_pages_lock.unlock()
    assert end_swap_writes(k, area) == 1
    assert area.slots == {1: b"x"}
    k.pg_flags[page] &= ~PG_dirty
    assert try_to_free_swap(k, page)
    assert k.pg_flags[page] & PG_dirty
    assert not area.slots
    unlock_page(k, page)


# ---------------------------------------------------------------- letting go


def swapped(k: Kernel, *, mapped: bool = False) -> tuple[int, int]:
    """A page of the swap cache and its entry, which one page table has; nobody has a reference."""
    page = new(k)
    lock_page(k, page)
    add_to_swap(k, page)
    entry = page_private(k, page)
    assert swap_duplicate(k, entry) == 0
    if mapped:
        k.pg_mapcount[page] = 0
        get_page(k, page)
    unlock_page(k, page)
    put_page(k, page)
    return page, int(entry)


def test_the_last_entry_takes_the_page_along() -> None:
    k = kernel()
    _, entry = swapped(k)
    assert free_swap_and_cache(k, entry) == 1
    assert byte(k, entry) == 0
    assert k.nr_free == k.nr_pages


def test_a_page_that_is_mapped_keeps_its_slot_while_there_are_enough() -> None:
    k = kernel(4)
    page, entry = swapped(k, mapped=True)
    assert free_swap_and_cache(k, entry) == 1
    assert byte(k, entry) == SWAP_HAS_CACHE
    assert swap_duplicate(k, entry) == 0
    for _ in range(2):
        get_swap_page(k, page)
    assert free_swap_and_cache(k, entry) == 1
    assert byte(k, entry) == 0
    assert not PageSwapCache(k, page)
    assert k.pg_flags[page] & PG_dirty


def test_a_page_that_somebody_has_locked_stays_in_the_swap_cache() -> None:
    k = kernel()
    page, entry = swapped(k)
    with locked_elsewhere(k, page):
        assert free_swap_and_cache(k, entry) == 1
    assert byte(k, entry) == SWAP_HAS_CACHE
    # Whoever drops a reference to it next takes it out.
    get_page(k, page)
    free_page_and_swap_cache(k, page)
    assert byte(k, entry) == 0
    assert k.nr_free == k.nr_pages


def test_when_swap_is_nearly_full_slots_that_only_a_page_has_are_taken() -> None:
    k = kernel(3)
    first, entry = swapped(k, mapped=True)
    free_swap_and_cache(k, entry)
    page = new(k)
    assert get_swap_page(k, page)
    assert get_swap_page(k, page)
    with locked_elsewhere(k, first):
        assert get_swap_page(k, page) == 0
    k.swap_areas[0].lowest = 1
    assert get_swap_page(k, page) == entry
    assert not PageSwapCache(k, first)


# ---------------------------------------------------------------- reuse


def test_a_page_may_be_reused_by_its_only_user() -> None:
    k = kernel()
    page = new(k)
    with pytest.raises(KernelBug, match=r"swapfile\.c:1624"):
        reuse_swap_page(k, page)
    lock_page(k, page)
    k.pg_mapcount[page] = 0
    assert reuse_swap_page(k, page) == 1
    k.pg_mapcount[page] = 1
    assert reuse_swap_page(k, page) == 0
    k.pg_mapcount[page] = 0
    add_to_swap(k, page)
    entry = page_private(k, page)
    swap_duplicate(k, entry)
    assert reuse_swap_page(k, page) == 0
    # Pins do not count.
    get_page(k, page)
    swap_free(k, entry)
    k.pg_flags[page] &= ~PG_dirty
    assert reuse_swap_page(k, page) == 1
    assert not PageSwapCache(k, page)
    assert k.pg_flags[page] & PG_dirty
    unlock_page(k, page)


@pytest.mark.parametrize("stable", [False, True])
def test_a_page_under_writeback_is_reused_if_the_device_can_bear_it(stable: bool) -> None:
    k = kernel()
    area = k.swap_areas[0]
    area.deferred, area.stable_writes = True, stable
    page = new(k)
    lock_page(k, page)
    add_to_swap(k, page)
    entry = page_private(k, page)
    swap_duplicate(k, entry)
    swap_writepage(k, page)
    lock_page(k, page)
    swap_free(k, entry)
    k.pg_mapcount[page] = 0
    assert page_swapcount(k, page) == 0
    assert reuse_swap_page(k, page) == (0 if stable else 1)
    assert PageSwapCache(k, page)
    unlock_page(k, page)
    end_swap_writes(k, area)
