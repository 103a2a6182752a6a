# SPDX-License-Identifier: GPL-2.0-only
"""Splitting huge pages: what has to be so for it, what becomes of the parts, who may stop it."""

from __future__ import annotations

import pytest
from handmade import (
    CLEAN,
    YOUNG,
    address_of,
    at,
    crashed,
    fork,
    fork_huge,
    make_file,
    map_file,
    pte_of,
    split_by_hand,
    touch_huge,
    unmap_huge,
    unmap_part,
    world,
)
from kernels import Failing, make_mm, map_pages
from pressure import elsewhere, lists_are_sound

from rmap.mm.anon_vma import unlink_anon_vmas
from rmap.mm.bits import (
    EBUSY,
    GFP_HIGHUSER,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    MAPPING_HANDLE_SHIFT,
    MM_ANONPAGES,
    MM_SHMEMPAGES,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_INACTIVE_ANON,
    NR_SHMEM,
    NR_SHMEM_THPS,
    SHRINK_STOP,
    THP_DEFERRED_SPLIT_PAGE,
    THP_SPLIT_PAGE,
    THP_SPLIT_PAGE_FAILED,
    THP_SPLIT_PMD,
    PG_dirty,
    PG_idle,
    PG_isolated,
    PG_lru,
    PG_swapbacked,
    PG_tail,
    PG_uptodate,
    PG_writeback,
    PG_young,
)
from rmap.mm.bug import KernelBug
from rmap.mm.content import page_bytes, page_write
from rmap.mm.huge.deferred import deferred_split_huge_page
from rmap.mm.huge.split_page import (
    can_split_huge_page,
    deferred_split_count,
    deferred_split_scan,
    split_huge_page,
    split_huge_page_to_list,
)
from rmap.mm.lru import isolate_lru_page, lru_cache_add, put_page, putback_lru_page
from rmap.mm.memcg import mem_cgroup_create, mem_cgroup_try_charge
from rmap.mm.mm_types import File, Kernel, Vma
from rmap.mm.page import (
    PageTail,
    compound_head,
    compound_mapcount,
    compound_order,
    get_page,
    lock_page,
    page_mapcount,
    page_trans_huge_mapcount,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_alloc import alloc_page, alloc_pages
from rmap.mm.pgtable import (
    is_migration_entry,
    is_swap_pte,
    pfn_pte,
    pte_lock,
    pte_pfn,
    pte_to_swp_entry,
    pte_unlock,
    pte_write,
    pte_young,
    set_pte_at,
)
from rmap.mm.rmap_counts import page_add_file_rmap, page_remove_rmap
from rmap.mm.vma import mm_counter

RAM = 4096


def huge(k: Kernel | None = None, comm: str = "p") -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(RAM) if k is None else k
    vma = map_pages(k, make_mm(k, comm), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma)


def by_ptes(k: Kernel | None = None) -> tuple[Kernel, Vma, int]:
    """The same mapped by PTEs."""
    k, vma, head = huge(k)
    split_by_hand(k, vma, head)
    return k, vma, head


def split(k: Kernel, page: int) -> int:
    """Split as who has found the page does: pinned and locked meanwhile."""
    get_page(k, page)
    lock_page(k, page)
    result = split_huge_page(k, page)
    unlock_page(k, page)
    put_page(k, page)
    return result


def is_whole(k: Kernel, head: int) -> bool:
    """Whether a page still is huge, with all of its tails."""
    tails = all(PageTail(k, head + i) for i in range(1, HPAGE_PMD_NR))
    return compound_order(k, head) == HPAGE_PMD_ORDER and tails


# ---------------------------------------------------------------- how often it is mapped


def test_the_part_that_is_mapped_most_counts() -> None:
    k, vma, head = huge()
    assert page_trans_huge_mapcount(k, head) == 1
    split_by_hand(k, vma, head)
    assert (page_trans_huge_mapcount(k, head + 9), total_mapcount(k, head)) == (1, 512)
    fork(k, vma, "c")
    unmap_part(k, vma, 3)
    assert (page_trans_huge_mapcount(k, head), total_mapcount(k, head)) == (2, 1023)
    assert (page_mapcount(k, head + 3), page_mapcount(k, head + 4)) == (1, 2)
    small = alloc_page(k, GFP_HIGHUSER)
    assert page_trans_huge_mapcount(k, small) == 0


# ---------------------------------------------------------------- the story of one huge page


def test_shared_split_in_one_process_left_by_the_other_and_split_itself() -> None:
    """From the first fault to the last small page, with every number at every step."""
    k, parent, head = huge()
    stats = (NR_ANON_MAPPED, NR_ANON_THPS)

    def seen() -> tuple[int, int, int, int, int]:
        """PMDs, stored count of a sub page, references, and the two statistics."""
        mapped, thps = (k.vm_stat[item] for item in stats)
        return (
            compound_mapcount(k, head), k.pg_mapcount[head + 3], k.pg_refcount[head], mapped, thps
        )  # fmt: skip

    assert seen() == (1, -1, 1, 512, 1)
    child = fork_huge(k, parent, "c")
    assert seen() == (2, -1, 2, 512, 1)
    assert [vma.vm_mm.rss_stat[MM_ANONPAGES] for vma in (parent, child)] == [512, 512]

    split_by_hand(k, child, head)
    assert seen() == (1, 1, 513, 512, 1)
    assert (page_mapcount(k, head + 3), total_mapcount(k, head)) == (2, 513)

    unmap_huge(k, parent)
    assert seen() == (0, 0, 512, 512, 0)
    assert total_mapcount(k, head) == 512
    assert deferred_split_count(k) == 0

    unmap_part(k, child, 9)
    assert seen() == (0, 0, 511, 511, 0)
    assert list(k.deferred_split_queue) == [head]

    get_page(k, head)
    lock_page(k, head)
    assert (k.pg_refcount[head], total_mapcount(k, head)) == (512, 511)
    assert can_split_huge_page(k, head)
    frozen: list[tuple[int, int, int]] = []

    def tracer(name: str, what: tuple[object, ...]) -> None:
        if name == "try_to_unmap":
            entries = sum(is_migration_pte(pte_of(k, child, i)) for i in range(HPAGE_PMD_NR))
            frozen.append((entries, k.vm_stat[NR_ANON_MAPPED], k.pg_refcount[head]))

    k.tracer = tracer
    free = k.nr_free
    assert split_huge_page(k, head) == 0
    k.tracer = None
    assert frozen == [(511, 0, 1)]
    unlock_page(k, head)
    put_page(k, head)
    assert k.nr_free == free + 1
    assert [i for i in range(HPAGE_PMD_NR) if page_mapcount(k, head + i) != 1] == [9]
    assert k.vm_stat[NR_ANON_MAPPED] == 511
    assert child.vm_mm.rss_stat[MM_ANONPAGES] == 511
    lists_are_sound(k)


def is_migration_pte(pte: int) -> bool:
    """Whether an entry waits for its page."""
    return is_swap_pte(pte) and is_migration_entry(pte_to_swp_entry(pte))


@pytest.mark.parametrize("pmds", [1, 2, 3])
def test_pmds_are_split_with_the_page(pmds: int) -> None:
    """However many processes map it whole, and one of them by PTEs as well."""
    k, vma, head = huge()
    vmas = [vma, *(fork_huge(k, vma, f"c{i}") for i in range(pmds))]
    split_by_hand(k, vmas[-1], head)
    unmap_part(k, vmas[-1], 0)
    assert split(k, head) == 0
    for i in range(HPAGE_PMD_NR):
        count = pmds + (i > 0)
        assert (page_mapcount(k, head + i), k.pg_refcount[head + i]) == (count, count)
    assert [vma.vm_mm.rss_stat[MM_ANONPAGES] for vma in vmas] == [512] * pmds + [511]
    assert k.vm_stat[NR_ANON_MAPPED] == HPAGE_PMD_NR
    assert k.vm_stat[NR_ANON_THPS] == 0
    assert k.vm_stat[THP_SPLIT_PMD] == pmds + 1
    assert not k.pmd_huge_pte
    assert all(pte_pfn(pte_of(k, v, 7)) == head + 7 for v in vmas)
    assert not any(pte_write(pte_of(k, v, 7)) for v in vmas)
    lists_are_sound(k)


def test_a_page_that_is_pinned_is_not_even_split_in_page_tables() -> None:
    k, _, head = huge()
    get_page(k, head)
    assert split(k, head) == -EBUSY
    assert k.vm_stat[THP_SPLIT_PMD] == 0


# ---------------------------------------------------------------- it succeeds


def test_a_huge_page_becomes_512_small_ones() -> None:
    k, vma, head = by_ptes()
    for i in (0, 1, 511):
        page_write(k, head + i, 0, b"part %d" % i)
    assert split(k, head + 5) == 0
    for i in range(HPAGE_PMD_NR):
        page = head + i
        assert not k.pg_flags[page] & PG_tail
        assert compound_head(k, page) == page
        assert (page_mapcount(k, page), k.pg_refcount[page]) == (1, 1)
        assert k.pg_mapping[page] == k.pg_mapping[head]
        assert k.pg_index[page] == vma.vm_pgoff + i
        assert k.pg_flags[page] & (PG_lru | PG_uptodate | PG_swapbacked | PG_dirty) == (
            PG_lru | PG_uptodate | PG_swapbacked | PG_dirty
        ), "the entries were dirty, which the page remembers as a whole"
        pte = pte_of(k, vma, i)
        assert pte_pfn(pte) == page
        assert pte_write(pte)
        assert not pte_young(pte), "a migration entry does not say so"
    assert [page_bytes(k, head + i) for i in (0, 1, 511)] == [b"part 0", b"part 1", b"part 511"]
    assert vma.vm_mm.rss_stat[MM_ANONPAGES] == HPAGE_PMD_NR
    assert k.vm_stat[NR_ANON_MAPPED] == HPAGE_PMD_NR
    assert (k.vm_stat[THP_SPLIT_PAGE], k.vm_stat[THP_SPLIT_PAGE_FAILED]) == (1, 0)
    lists_are_sound(k)


def test_the_parts_lie_beside_their_head_on_its_list() -> None:
    k, _vma, older = by_ptes()
    newer = int(alloc_page(k, GFP_HIGHUSER))
    k.pg_flags[newer] |= PG_swapbacked
    lru_cache_add(k, newer)
    assert k.root_lruvec.size[0] == HPAGE_PMD_NR + 1
    assert split(k, older) == 0
    order = []
    page = k.root_lruvec.tail[0]
    while page:
        order.append(page)
        page = k.pg_lru_prev[page]
    assert order == [*range(older, older + HPAGE_PMD_NR), newer]
    assert k.vm_stat[NR_INACTIVE_ANON] == HPAGE_PMD_NR + 1
    lists_are_sound(k)


def test_parts_that_nothing_maps_are_freed() -> None:
    k, vma, head = by_ptes()
    free = k.nr_free
    for part in (0, 7, 8):
        unmap_part(k, vma, part)
    assert k.nr_free == free, "a huge page is freed as a whole, or not at all"
    assert split(k, head + 7) == 0
    assert k.nr_free == free + 3
    assert k.vm_stat[NR_ANON_MAPPED] == total(k, head) == 509
    lists_are_sound(k)


def total(k: Kernel, head: int) -> int:
    """Mappings of what was a huge page."""
    return sum(page_mapcount(k, head + i) for i in range(HPAGE_PMD_NR))


def test_the_caller_keeps_the_part_that_he_named_and_no_other() -> None:
    k, vma, head = by_ptes()
    for part in range(HPAGE_PMD_NR):
        if part != 300:
            unmap_part(k, vma, part)
    page = head + 300
    get_page(k, page)
    lock_page(k, page)
    assert split_huge_page(k, page) == 0
    assert k.pg_refcount[page] == 2
    unlock_page(k, page)
    put_page(k, page)
    assert [i for i in range(HPAGE_PMD_NR) if k.pg_refcount[head + i]] == [300]


def test_each_part_is_charged_to_whom_the_whole_was() -> None:
    k = world(RAM)
    memcg = mem_cgroup_create(k, "g", k.memcgs[0], -1)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    head = touch_huge(k, vma)
    assert mem_cgroup_try_charge(k, head, memcg, 1) == 0
    split_by_hand(k, vma, head)
    assert memcg.usage == HPAGE_PMD_NR
    assert split(k, head) == 0
    assert {k.pg_memcg[head + i] for i in range(HPAGE_PMD_NR)} == {memcg.ident}
    unmap_part(k, vma, 2)
    assert memcg.usage == HPAGE_PMD_NR - 1
    lists_are_sound(k)


def test_idle_and_young_are_passed_on() -> None:
    k, _, head = by_ptes()
    k.pg_flags[head] |= PG_idle | PG_young
    assert split(k, head) == 0
    assert all(k.pg_flags[head + i] & PG_idle for i in range(HPAGE_PMD_NR))
    assert all(k.pg_flags[head + i] & PG_young for i in range(HPAGE_PMD_NR))


def test_relatives_keep_what_they_share() -> None:
    k, vma, head = by_ptes()
    children = [fork(k, vma, f"c{i}") for i in range(2)]
    unmap_part(k, vma, 4)
    unmap_part(k, children[0], 5)
    assert split(k, head) == 0
    for owner, gone in ((vma, 4), (children[0], 5), (children[1], -1)):
        for part in range(HPAGE_PMD_NR):
            pte = pte_of(k, owner, part)
            assert pte_pfn(pte) == (0 if part == gone else head + part)
    assert [page_mapcount(k, head + i) for i in (3, 4, 5)] == [3, 2, 2]
    assert [k.pg_refcount[head + i] for i in (3, 4, 5)] == [3, 2, 2]


def test_who_isolated_the_page_gets_its_parts_as_well() -> None:
    k, _vma, head = by_ptes()
    assert isolate_lru_page(k, head) == 0
    lock_page(k, head)
    pages: list[int] = []
    assert split_huge_page_to_list(k, head, pages) == 0
    unlock_page(k, head)
    assert pages == list(range(head + HPAGE_PMD_NR - 1, head, -1))
    for page in [head, *pages]:
        assert k.pg_refcount[page] == 2
        assert k.pg_flags[page] & (PG_lru | PG_isolated) == PG_isolated
        putback_lru_page(k, page)
    lists_are_sound(k)


def test_who_isolated_the_page_and_asked_for_nothing_finds_the_parts_on_the_list() -> None:
    k, _vma, head = by_ptes()
    assert isolate_lru_page(k, head) == 0
    lock_page(k, head)
    assert split_huge_page(k, head) == 0
    unlock_page(k, head)
    assert k.root_lruvec.size[0] == HPAGE_PMD_NR - 1
    putback_lru_page(k, head)
    lists_are_sound(k)


# ---------------------------------------------------------------- it fails


def test_a_reference_of_somebody_else_forbids_it() -> None:
    k, _, head = by_ptes()
    assert not can_split_huge_page(k, head), "whoever asks has a reference himself"
    get_page(k, head + 9)
    assert can_split_huge_page(k, head)
    assert split(k, head) == -EBUSY
    assert is_whole(k, head)
    assert total_mapcount(k, head) == HPAGE_PMD_NR
    assert k.vm_stat[THP_SPLIT_PAGE_FAILED] == 1
    put_page(k, head + 9)
    assert split(k, head) == 0


def test_who_has_isolated_it_forbids_it() -> None:
    k, _, head = by_ptes()
    assert isolate_lru_page(k, head) == 0
    assert split(k, head) == -EBUSY
    putback_lru_page(k, head)
    assert split(k, head) == 0


def test_a_page_that_is_being_written_is_not_split() -> None:
    k, _, head = by_ptes()
    k.pg_flags[head] |= PG_writeback
    assert split(k, head) == -EBUSY
    # That is not even counted.
    assert k.vm_stat[THP_SPLIT_PAGE_FAILED] == 0
    assert is_whole(k, head)


def test_a_page_that_nothing_maps_has_no_anon_vma_to_lock() -> None:
    k, vma, head = by_ptes()
    get_page(k, head)
    for part in range(HPAGE_PMD_NR):
        unmap_part(k, vma, part)
    lock_page(k, head)
    assert split_huge_page(k, head) == -EBUSY
    unlock_page(k, head)
    free = k.nr_free
    put_page(k, head)
    assert k.nr_free == free + HPAGE_PMD_NR
    assert deferred_split_count(k) == 0


def test_a_reference_that_comes_late_is_found_when_references_are_frozen() -> None:
    """Between the first look and the freeze somebody takes a reference: all is mapped again."""
    k, vma, head = by_ptes()
    unmap_part(k, vma, 0)

    def tracer(name: str, what: tuple[object, ...]) -> None:
        if name == "try_to_unmap":
            k.pg_refcount[head] += 1

    k.tracer = tracer
    assert split(k, head) == -EBUSY
    k.tracer = None
    assert is_whole(k, head)
    assert total_mapcount(k, head) == 511
    assert k.vm_stat[NR_ANON_MAPPED] == 511
    assert pte_pfn(pte_of(k, vma, 77)) == head + 77
    assert list(k.deferred_split_queue) == [head]
    put_page(k, head)
    assert split(k, head) == 0
    assert deferred_split_count(k) == 0


def test_only_a_locked_huge_page_can_be_split() -> None:
    k, _, head = by_ptes()
    with pytest.raises(KernelBug, match="the page is not locked"):
        split_huge_page(k, head)
    small = alloc_page(k, GFP_HIGHUSER)
    lock_page(k, small)
    with pytest.raises(KernelBug, match="not huge"):
        split_huge_page(k, small)
    k.huge_zero_page = head
    with pytest.raises(KernelBug, match="huge zero page"):
        split_huge_page(k, head)
    crashed()


def test_a_mapping_that_is_missed_is_a_bug() -> None:
    """A part is mapped where no walk comes: in a VMA that is not on the tree any more."""
    k, vma, head = by_ptes()
    child = fork(k, vma, "c")
    vma.vm_mm.mmap_sem.down_write()
    unlink_anon_vmas(k, child)
    vma.vm_mm.mmap_sem.up_write()
    with pytest.raises(KernelBug, match="a mapping of the huge page remains"):
        split(k, head)
    crashed()


@pytest.mark.parametrize("fixed", [False, True])
def test_v4_18_looks_at_the_head_only_and_notices_later(fixed: bool) -> None:
    """The head is unmapped in the process that no walk finds; a tail is not.

    Since 5.13 the split fails instead.
    """
    k, vma, head = by_ptes(world(RAM, unmap_sees_all_parts=fixed))
    child = fork(k, vma, "c")
    unmap_part(k, child, 0)
    vma.vm_mm.mmap_sem.down_write()
    unlink_anon_vmas(k, child)
    vma.vm_mm.mmap_sem.up_write()
    if fixed:
        assert split(k, head) == -EBUSY
        assert is_whole(k, head)
        assert pte_pfn(pte_of(k, vma, 5)) == head + 5
        return
    with pytest.raises(KernelBug, match="total_mapcount"):
        split(k, head)
    crashed()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_part_that_the_architecture_refuses_to_unmap_is_a_bug_until_5_13(fixed: bool) -> None:
    k, vma, head = by_ptes(world(RAM, unmap_sees_all_parts=fixed))
    k.inject = Failing(1, "arch_unmap_one", once=True)
    if fixed:
        assert split(k, head) == -EBUSY
        assert is_whole(k, head)
        assert total_mapcount(k, head) == HPAGE_PMD_NR
        assert pte_pfn(pte_of(k, vma, 5)) == head + 5
        return
    with pytest.raises(KernelBug, match="a mapping of the huge page remains"):
        split(k, head)
    crashed()


# ---------------------------------------------------------------- pages of files


def shmem_huge(k: Kernel, file: File, size: int = HPAGE_PMD_NR) -> int:
    """A huge page of shared memory at the start of a file, which has a size."""
    head = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    mapping = file.f_mapping
    mapping.size_pages = size
    k.pg_mapping[head] = mapping.handle << MAPPING_HANDLE_SHIFT
    k.pg_index[head] = 0
    k.pg_flags[head] |= PG_swapbacked | PG_uptodate | PG_dirty
    for i in range(HPAGE_PMD_NR):
        mapping.i_pages[i] = head + i
    mapping.nrpages += HPAGE_PMD_NR
    k.pg_refcount[head] += HPAGE_PMD_NR - 1
    for item in (NR_FILE_PAGES, NR_SHMEM):
        k.vm_stat[item] += HPAGE_PMD_NR
        k.memcgs[0].stat[item] += HPAGE_PMD_NR
    k.vm_stat[NR_SHMEM_THPS] += 1
    lru_cache_add(k, head)
    return head


def map_part(k: Kernel, vma: Vma, head: int, part: int) -> None:
    """Map one part of a huge page of a file by a PTE."""
    ptep = at(k, vma, part)
    lock_page(k, head)
    pte_lock(k, ptep)
    page_add_file_rmap(k, head + part, False)
    get_page(k, head)
    set_pte_at(k, vma.vm_mm, address_of(vma, part), ptep, pfn_pte(head + part, CLEAN | YOUNG))
    vma.vm_mm.rss_stat[mm_counter(k, head)] += 1
    pte_unlock(k, ptep)
    unlock_page(k, head)


def test_a_huge_page_of_shared_memory_is_unmapped_and_split() -> None:
    k = world(RAM)
    file = make_file(k, shmem=True)
    head = shmem_huge(k, file)
    vma = map_file(k, file, pages=HPAGE_PMD_NR, first=HPAGE_PMD_NR)
    for part in (0, 3, 511):
        map_part(k, vma, head, part)
    assert k.vm_stat[NR_FILE_MAPPED] == 3
    page_write(k, head + 3, 0, b"three")
    assert split(k, head + 3) == 0
    # Faults will find the pages in the page cache again.
    assert [pte_of(k, vma, part) for part in (0, 3, 511)] == [0, 0, 0]
    assert (k.vm_stat[NR_FILE_MAPPED], vma.vm_mm.rss_stat[MM_SHMEMPAGES]) == (0, 0)
    for i in range(HPAGE_PMD_NR):
        assert file.f_mapping.i_pages[i] == head + i
        assert k.pg_refcount[head + i] == 1
        assert k.pg_index[head + i] == i
        assert k.pg_mapping[head + i] == file.f_mapping.handle << MAPPING_HANDLE_SHIFT
    assert page_bytes(k, head + 3) == b"three"
    assert (k.vm_stat[NR_SHMEM_THPS], k.vm_stat[NR_SHMEM]) == (0, HPAGE_PMD_NR)
    lists_are_sound(k)


def test_parts_behind_the_end_of_the_file_leave_it() -> None:
    k = world(RAM)
    file = make_file(k, shmem=True)
    head = shmem_huge(k, file, size=100)
    free = k.nr_free
    assert split(k, head) == 0
    assert sorted(file.f_mapping.i_pages) == list(range(100))
    assert file.f_mapping.nrpages == k.vm_stat[NR_SHMEM] == k.vm_stat[NR_FILE_PAGES] == 100
    assert k.nr_free == free + HPAGE_PMD_NR - 100
    lists_are_sound(k)


def test_a_page_that_left_its_file_is_not_split() -> None:
    k = world(RAM)
    file = make_file(k, shmem=True)
    head = shmem_huge(k, file)
    k.pg_mapping[head] = 0
    assert split(k, head) == -EBUSY
    k.pg_mapping[head] = file.f_mapping.handle << MAPPING_HANDLE_SHIFT
    # It went when it was unmapped already, and looked at once more under the lock.
    file.f_mapping.i_pages[0] = 0
    assert split(k, head) == -EBUSY
    assert is_whole(k, head)
    file.f_mapping.i_pages[0] = head
    get_page(k, head)
    assert split(k, head) == -EBUSY
    put_page(k, head)
    assert split(k, head) == 0


# ---------------------------------------------------------------- when memory is short


def test_a_page_with_unmapped_parts_is_split_by_the_shrinker() -> None:
    k, vma, _ = by_ptes()
    assert deferred_split_scan(k, 10) == SHRINK_STOP
    unmap_part(k, vma, 9)
    unmap_part(k, vma, 10)
    assert (deferred_split_count(k), k.vm_stat[THP_DEFERRED_SPLIT_PAGE]) == (1, 1)
    free = k.nr_free
    assert deferred_split_scan(k, 10) == 1
    assert k.nr_free == free + 2
    assert deferred_split_count(k) == 0
    assert k.vm_stat[THP_SPLIT_PAGE] == 1


def test_pages_in_use_go_back_to_the_end_of_the_queue() -> None:
    k = world(8 * HPAGE_PMD_NR)
    pages = []
    for name in "abcd":
        _, vma, head = huge(k, name)
        split_by_hand(k, vma, head)
        unmap_part(k, vma, 0)
        pages.append(head)
    a, b, c, d = pages
    assert list(k.deferred_split_queue) == [a, b, c, d]
    get_page(k, a)
    with elsewhere():
        lock_page(k, b)
    assert deferred_split_scan(k, 3) == 1
    assert list(k.deferred_split_queue) == [d, b, a], "taken in turn, put back in reverse"
    assert set(k.deferred_split_queue.values()) == {0}
    with elsewhere():
        unlock_page(k, b)
    put_page(k, a)
    assert deferred_split_scan(k, 3) == 3


def test_a_page_that_goes_while_the_shrinker_has_it_is_forgotten() -> None:
    k, vma, head = by_ptes()
    unmap_part(k, vma, 0)

    def tracer(name: str, what: tuple[object, ...]) -> None:
        # The rest is unmapped as soon as the shrinker has failed.
        if name == "split_huge_page" and what[1]:
            for part in range(1, HPAGE_PMD_NR):
                unmap_part(k, vma, part)
            k.pg_refcount[head] -= 1

    k.tracer = tracer
    get_page(k, head)
    assert deferred_split_scan(k, 1) == SHRINK_STOP
    k.tracer = None
    assert k.pg_refcount[head] == 0
    assert not k.deferred_split_queue


def test_a_page_without_references_is_taken_off_and_left_to_who_frees_it() -> None:
    k, _, head = by_ptes()
    deferred_split_huge_page(k, head)
    references = k.pg_refcount[head]
    k.pg_refcount[head] = 0
    assert deferred_split_scan(k, 1) == SHRINK_STOP
    assert not k.deferred_split_queue
    k.pg_refcount[head] = references


def test_only_huge_pages_are_queued() -> None:
    k, _, head = huge()
    with pytest.raises(KernelBug):
        deferred_split_huge_page(k, head + 1)
    small = alloc_page(k, GFP_HIGHUSER)
    with pytest.raises(KernelBug, match="not huge"):
        deferred_split_huge_page(k, small)


@pytest.mark.parametrize("fixed", [False, True])
def test_until_5_5_a_page_is_queued_when_its_last_mapping_goes(fixed: bool) -> None:
    k, _vma, head = huge(world(RAM, unmapped_thp_not_queued=fixed))
    page_remove_rmap(k, head, True)
    assert deferred_split_count(k) == (0 if fixed else 1)
    put_page(k, head)
    # Nobody ever sees it there: it is taken off when it is freed.
    assert deferred_split_count(k) == 0
    assert k.vm_stat[THP_DEFERRED_SPLIT_PAGE] == (0 if fixed else 1)
