# SPDX-License-Identifier: GPL-2.0-only
"""try_to_unmap() for migration, broken memory, device memory and huge pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from handmade import (
    CLEAN,
    DIRTY,
    USED,
    WRITE,
    YOUNG,
    cache,
    crashed,
    family,
    make_file,
    map_cached,
    map_file,
    poke,
    process,
    pte_of,
    touch,
    touch_huge,
    world,
)
from kernels import RW, Failing, make_mm, map_pages
from unmapping import (
    check_mlocked,
    in_swap_cache,
    isolate,
    rss,
    shared_by,
    swap_world,
    unmap,
)

from rmap.mm.bits import (
    _PAGE_SOFT_DIRTY,
    HPAGE_PMD_NR,
    HPAGE_PMD_SIZE,
    NR_ANON_MAPPED,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_HWPOISON,
    TTU_IGNORE_MLOCK,
    TTU_MIGRATION,
    TTU_SPLIT_FREEZE,
    TTU_SPLIT_HUGE_PMD,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_RAND_READ,
    VM_SEQ_READ,
    PG_device_private,
    PG_double_map,
    PG_huge,
    PG_hwpoison,
    PG_zone_device,
)
from rmap.mm.bug import KernelBug
from rmap.mm.huge.split_pmd import (
    make_hwpoison_entry,
    make_migration_entry,
    set_pmd_migration_entry,
    split_huge_pmd_address,
)
from rmap.mm.lru import isolate_lru_page
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import (
    PageDirty,
    PageMlocked,
    lock_page,
    page_count,
    page_mapcount,
    unlock_page,
)
from rmap.mm.page_vma_mapped import PageVmaMappedWalk
from rmap.mm.pgtable import (
    pfn_pte,
    pmd_offset,
    pmd_trans_huge,
    swp_entry,
    swp_entry_to_pte,
)
from rmap.mm.unmap import (
    TryToUnmapControl,
    try_to_munlock,
    try_to_unmap,
    try_to_unmap_one,
)

#: What migration asks for.
MIGRATE = TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS


@pytest.fixture
def k() -> Iterator[Kernel]:
    """A kernel with swap; in the end its mlocked pages are counted again."""
    kernel = swap_world()
    yield kernel
    check_mlocked(kernel)


# ---------------------------------------------------------------- migration and broken memory


def test_migration_leaves_entries_that_say_whether_writing_was_allowed(k: Kernel) -> None:
    page, (v, vc) = family(k, 1)
    poke(k, v, pfn_pte(page, USED | _PAGE_SOFT_DIRTY))
    vc.vm_flags |= VM_LOCKED
    k.notifier_log = []
    assert unmap(k, page, MIGRATE)
    write = swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, page)) | 1 << 1
    assert pte_of(k, v) == write
    assert pte_of(k, vc) == swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, page))
    assert rss(v) == rss(vc) == (1, 0, 0, 0), "it will be back"
    assert (k.vm_stat[NR_ANON_MAPPED], page_count(k, page)) == (0, 1)
    assert "invalidate_range" not in [name for name, *_ in k.notifier_log]


def test_migration_of_a_page_of_a_file_leaves_entries_as_well(k: Kernel) -> None:
    file = make_file(k)
    vma = map_file(k, file)
    page = cache(k, file, 0)
    map_cached(k, page, vma, CLEAN | WRITE)
    assert unmap(k, page, MIGRATE)
    assert pte_of(k, vma) == swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, page))
    assert rss(vma) == (0, 0, 1, 0)


def test_migration_puts_the_entry_back_if_the_architecture_refuses(k: Kernel) -> None:
    page, (v, _) = family(k, 1)
    before = pte_of(k, v)
    k.inject = Failing(1, "arch_unmap_one")
    assert not unmap(k, page, MIGRATE)
    assert pte_of(k, v) == before


@pytest.mark.parametrize("flags", [TTU_MIGRATION, TTU_SPLIT_FREEZE])
def test_migration_leaves_a_stack_alone_that_exec_is_moving(k: Kernel, flags: int) -> None:
    stack = process(k, flags=RW | VM_GROWSDOWN | VM_SEQ_READ | VM_RAND_READ)
    page = touch(k, stack)
    entry = pte_of(k, stack)
    assert not unmap(k, page, flags | TTU_IGNORE_ACCESS | TTU_IGNORE_MLOCK)
    assert pte_of(k, stack) == entry
    # Reclaim does not.
    swapped = in_swap_cache(k, page)
    lock_page(k, page)
    assert try_to_unmap(k, page, TTU_IGNORE_ACCESS)
    unlock_page(k, page)
    assert pte_of(k, stack) == swp_entry_to_pte(swapped)


def test_only_both_marks_of_exec_on_a_stack_make_it_temporary(k: Kernel) -> None:
    for flags in (VM_SEQ_READ | VM_RAND_READ, VM_GROWSDOWN | VM_SEQ_READ, VM_GROWSDOWN):
        page = touch(k, process(k, flags=RW | flags))
        assert unmap(k, page, MIGRATE)


@pytest.mark.parametrize("anonymous", [True, False])
def test_broken_memory_leaves_entries_that_say_so(k: Kernel, anonymous: bool) -> None:
    if anonymous:
        page, vmas = family(k, 1)
    else:
        file = make_file(k)
        page = cache(k, file, 0)
        vmas = [map_file(k, file, "p"), map_file(k, file, "q")]
        for vma in vmas:
            map_cached(k, page, vma)
    k.pg_flags[page] |= PG_hwpoison
    k.notifier_log = []
    assert unmap(k, page, TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
    for vma in vmas:
        assert pte_of(k, vma) == swp_entry_to_pte(swp_entry(SWP_HWPOISON, page))
        assert rss(vma) == (0, 0, 0, 0)
    assert "invalidate_range" not in [name for name, *_ in k.notifier_log]


def test_broken_memory_that_swap_has_a_copy_of_is_swapped(k: Kernel) -> None:
    page, (v, _), entry = shared_by(k)
    k.pg_flags[page] |= PG_hwpoison
    assert unmap(k, page, TTU_IGNORE_ACCESS | TTU_IGNORE_HWPOISON)
    assert pte_of(k, v) == swp_entry_to_pte(entry)


def test_special_entries_are_made_of_locked_pages_only(k: Kernel) -> None:
    page, _ = family(k, 0)
    with pytest.raises(KernelBug, match="make_migration_entry"):
        make_migration_entry(k, page, True)
    with pytest.raises(KernelBug, match="make_hwpoison_entry"):
        make_hwpoison_entry(k, page)


# ---------------------------------------------------------------- device memory


def test_public_device_memory_does_not_migrate(k: Kernel) -> None:
    page, (v, _) = family(k, 1)
    k.pg_flags[page] |= PG_zone_device
    before = pte_of(k, v)
    assert not unmap(k, page, MIGRATE)
    assert pte_of(k, v) == before


@pytest.mark.parametrize("soft_dirty", [0, _PAGE_SOFT_DIRTY])
@pytest.mark.parametrize(
    ("repaired", "check"), [(False, r"rmap.c:1409"), (True, "that no device has")]
)
def test_private_device_memory_is_found_but_not_put_here(
    repaired: bool, check: str, soft_dirty: int
) -> None:
    """Its entry is replaced; `test_device_private.py` has machines that have such memory."""
    k = world(device_private_subpage=repaired)
    vma = process(k)
    page = touch(k, vma)
    k.pg_flags[page] |= PG_zone_device | PG_device_private
    isolate(k, page)
    # A peek passes over device memory, so the walk gets here only where an entry changes under it.
    poke(k, vma, pfn_pte(page, CLEAN | soft_dirty))
    with pytest.raises(KernelBug, match=check):
        try_to_unmap_one(k, page, vma, vma.vm_start, TryToUnmapControl(MIGRATE))
    expected = swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, page))
    assert pte_of(k, vma) == expected | (1 << 1 if soft_dirty else 0)
    assert page_mapcount(k, page) == (0 if repaired else 1)
    crashed()


# ---------------------------------------------------------------- huge pages


def huge_world() -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    head = touch_huge(k, vma)
    k.pg_refcount[head] += 1
    lock_page(k, head)
    return k, vma, head


def test_a_pmd_migrates_as_a_whole() -> None:
    k, vma, head = huge_world()
    k.notifier_log = []
    assert try_to_unmap(k, head, MIGRATE)
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    assert k.pt[pmd] == swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, head))
    assert (k.vm_stat[NR_ANON_MAPPED], rss(vma)) == (0, (HPAGE_PMD_NR, 0, 0, 0))
    assert PageDirty(k, head)
    # Its own bracket stands inside of try_to_unmap_one()'s.
    assert [name for name, *_ in k.notifier_log] == [
        "invalidate_range_start",
        "invalidate_range_start",
        "invalidate_range_end",
        "invalidate_range_end",
    ]
    unlock_page(k, head)


def test_soft_dirty_is_kept_when_a_pmd_migrates() -> None:
    k, vma, head = huge_world()
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    k.pt[pmd] = k.pt[pmd] & ~(DIRTY | WRITE) | _PAGE_SOFT_DIRTY
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    pvmw.pmd = pmd
    set_pmd_migration_entry(k, pvmw, head)
    assert k.pt[pmd] == swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, head)) | 1 << 1
    assert not PageDirty(k, head)
    unlock_page(k, head)


def test_a_pmd_that_maps_the_page_is_met_only_where_it_may() -> None:
    k, _, head = huge_world()
    with pytest.raises(KernelBug, match=r"rmap.c:1407"):
        try_to_unmap(k, head, TTU_IGNORE_ACCESS)
    crashed()


def test_a_pmd_is_split_first_if_that_is_asked_for() -> None:
    """Then its entries are looked at one by one, and the first one that was used ends it."""
    k, vma, head = huge_world()
    assert not try_to_unmap(k, head, TTU_SPLIT_HUGE_PMD)
    assert not pmd_trans_huge(k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)])
    assert [pte_of(k, vma, i) & YOUNG for i in (0, 1)] == [0, YOUNG]
    assert (page_mapcount(k, head), page_mapcount(k, head + 511)) == (1, 1)
    unlock_page(k, head)


def test_a_pmd_is_frozen_whole_if_a_huge_page_is_to_be_split() -> None:
    k, vma, head = huge_world()
    frozen = TTU_SPLIT_FREEZE | TTU_SPLIT_HUGE_PMD | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS
    assert try_to_unmap(k, head, frozen)
    for i in (0, 511):
        assert pte_of(k, vma, i) == swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, head + i))
    assert (k.vm_stat[NR_ANON_MAPPED], page_count(k, head)) == (0, 1)
    assert rss(vma) == (HPAGE_PMD_NR, 0, 0, 0), "it will be back"
    unlock_page(k, head)


def test_asking_to_split_a_pmd_that_maps_no_huge_page_does_nothing_but_tell(k: Kernel) -> None:
    page, (v, _), entry = shared_by(k)
    k.notifier_log = []
    assert unmap(k, page, TTU_SPLIT_HUGE_PMD)
    assert pte_of(k, v) == swp_entry_to_pte(entry)
    start = v.vm_start & ~(HPAGE_PMD_SIZE - 1)
    assert k.notifier_log[:2] == [
        (name, v.vm_mm.ident, start, start + HPAGE_PMD_SIZE)
        for name in ("invalidate_range_start", "invalidate_range_only_end")
    ]
    k.notifier_log = []
    split_huge_pmd_address(k, process(k), v.vm_start, False, page)
    assert k.notifier_log == [], "there is not even a table"


def test_ptes_of_a_huge_page_are_refused_without_marking_it_mlocked() -> None:
    k, vma, head = huge_world()
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] = 0
    for i in range(HPAGE_PMD_NR):
        poke(k, vma, pfn_pte(head + i, USED), i)
        k.pg_mapcount[head + i] = 0
    k.pg_lru_prev[head + 1] = 0
    vma.vm_flags |= VM_LOCKED
    assert not try_to_unmap(k, head, 0)
    assert not PageMlocked(k, head)
    unlock_page(k, head)


def test_what_a_huge_page_may_not_be_is_a_bug() -> None:
    k, vma, head = huge_world()
    assert isolate_lru_page(k, head) == 0
    k.pg_flags[head + 1] |= PG_double_map
    with pytest.raises(KernelBug, match=r"rmap.c:1717"):
        try_to_munlock(k, head)
    k.pg_flags[head + 1] ^= PG_double_map
    for i in range(HPAGE_PMD_NR):
        k.pg_flags[head + i] |= PG_huge
    k.pg_index[head] = vma.vm_pgoff // HPAGE_PMD_NR
    k.pg_flags[head] |= PG_hwpoison
    assert try_to_unmap(k, head, TTU_IGNORE_ACCESS)
    assert vma.vm_mm.hugetlb_usage == -HPAGE_PMD_NR, "nobody had counted it"
    unlock_page(k, head)
