# SPDX-License-Identifier: GPL-2.0-only
"""Mappings come and go: mapcounts, whom a page names, statistics; small pages and huge ones."""

from __future__ import annotations

import pytest
from handmade import (
    BASE,
    address_of,
    cache,
    crashed,
    family,
    fork,
    hugetlb_file,
    make_file,
    map_cached,
    map_file,
    process,
    touch,
    touch_huge,
    world,
)
from hypothesis import given
from hypothesis import strategies as st
from kernels import RW, make_kernel, make_mm, map_pages, prepare

from rmap.mm.bits import (
    EBUSY,
    GFP_HIGHUSER,
    GUP_PIN_COUNTING_BIAS,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    MAPPING_HANDLE_SHIFT,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_MLOCK,
    NR_SHMEM_PMDMAPPED,
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_KSM,
    PAGE_SIZE,
    RMAP_EXCLUSIVE,
    VM_HUGETLB,
    PG_anon_exclusive,
    PG_double_map,
    PG_head,
    PG_huge,
    PG_mlocked,
    PG_swapbacked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import (
    PageAnon,
    PageDoubleMap,
    PageMlocked,
    PageSwapBacked,
    compound_mapcount,
    lock_page,
    page_mapcount,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_alloc import alloc_page, alloc_pages
from rmap.mm.rmap_counts import (
    do_page_add_anon_rmap,
    hugepage_add_anon_rmap,
    hugepage_add_new_anon_rmap,
    page_add_anon_rmap,
    page_add_file_rmap,
    page_add_new_anon_rmap,
    page_dup_rmap,
    page_move_anon_rmap,
    page_remove_rmap,
    page_try_share_anon_rmap,
)


def names(vma: Vma) -> int:
    """page->mapping of a page that names the VMA's own anon_vma."""
    return int(vma.anon_vma.handle << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_ANON)


# ---------------------------------------------------------------- new anonymous pages


def test_a_new_page_names_the_vma_that_wrote_it() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma, 2)
    assert k.pg_mapping[page] == names(vma)
    assert k.pg_index[page] == vma.vm_pgoff + 2
    assert page_mapcount(k, page) == 1
    assert PageSwapBacked(k, page)
    assert k.vm_stat[NR_ANON_MAPPED] == 1
    assert not k.pg_flags[page] & PG_anon_exclusive


def test_a_new_page_outside_of_the_vma_is_a_bug() -> None:
    k = world()
    vma = process(k)
    prepare(k, vma)
    page = alloc_page(k, GFP_HIGHUSER)
    for address in (vma.vm_start - PAGE_SIZE, vma.vm_end):
        with pytest.raises(KernelBug, match=r"rmap.c:1155"):
            page_add_new_anon_rmap(k, page, vma, address, False)


def test_a_new_page_needs_an_anon_vma_to_name() -> None:
    k = world()
    vma = process(k)
    page = alloc_page(k, GFP_HIGHUSER)
    with pytest.raises(KernelBug, match=r"rmap.c:1030"):
        page_add_new_anon_rmap(k, page, vma, vma.vm_start, False)


def test_part_of_a_huge_page_is_no_new_small_page() -> None:
    k = world(2048)
    vma = process(k)
    prepare(k, vma)
    head = alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER)
    with pytest.raises(KernelBug, match=r"rmap.c:1164"):
        page_add_new_anon_rmap(k, head + 1, vma, vma.vm_start, False)
    with pytest.raises(KernelBug, match=r"rmap.c:1158"):
        page_add_new_anon_rmap(k, alloc_page(k, GFP_HIGHUSER), vma, vma.vm_start, True)


# ---------------------------------------------------------------- more mappings


def test_what_is_shared_again_names_the_root_unless_it_is_exclusive() -> None:
    """A page that comes from swap (L1040): anybody of the family may have it in an entry."""
    k = world()
    parent = process(k)
    prepare(k, parent)
    child = fork(k, parent, "c")
    for flags, owner in ((0, parent), (RMAP_EXCLUSIVE, child)):
        page = alloc_page(k, GFP_HIGHUSER)
        lock_page(k, page)
        do_page_add_anon_rmap(k, page, child, address_of(child, 1), flags)
        unlock_page(k, page)
        assert k.pg_mapping[page] == names(owner)
        assert k.pg_index[page] == child.vm_pgoff + 1
    assert k.vm_stat[NR_ANON_MAPPED] == 2


def test_a_page_that_still_names_somebody_goes_on_doing_so() -> None:
    k = world()
    parent = process(k)
    page = touch(k, parent)
    child = fork(k, parent, "c")
    page_remove_rmap(k, page, False)
    page_remove_rmap(k, page, False)
    assert page_mapcount(k, page) == 0
    assert k.pg_mapping[page] == names(parent), "only freeing the page clears it"
    lock_page(k, page)
    do_page_add_anon_rmap(k, page, child, child.vm_start, RMAP_EXCLUSIVE)
    unlock_page(k, page)
    assert k.pg_mapping[page] == names(parent)


def test_one_more_mapping_has_to_fit_what_the_page_says() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    untouched, stranger = process(k, comm="q"), process(k, comm="r")
    prepare(k, stranger)
    lock_page(k, page)
    with pytest.raises(KernelBug, match=r"rmap.c:1070"):
        page_add_anon_rmap(k, page, untouched, untouched.vm_start, False)
    with pytest.raises(KernelBug, match=r"rmap.c:1070"):
        page_add_anon_rmap(k, page, stranger, stranger.vm_start, False)
    with pytest.raises(KernelBug, match=r"rmap.c:1071"):
        page_add_anon_rmap(k, page, vma, address_of(vma, 1), False)
    k.debug_vm = False
    page_add_anon_rmap(k, page, vma, address_of(vma, 1), False)
    assert page_mapcount(k, page) == 5, "the counting comes before the checks"
    unlock_page(k, page)


def test_mapping_an_anonymous_page_once_more_takes_the_page_lock() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    with pytest.raises(KernelBug, match=r"rmap.c:1129"):
        page_add_anon_rmap(k, page, vma, vma.vm_start, False)


def test_a_ksm_page_is_counted_and_otherwise_left_alone() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    k.pg_mapping[page] = PAGE_MAPPING_KSM
    page_add_anon_rmap(k, page, vma, vma.vm_start, False)
    assert page_mapcount(k, page) == 2
    assert k.pg_mapping[page] == PAGE_MAPPING_KSM
    page_remove_rmap(k, page, False)
    page_remove_rmap(k, page, False)
    assert k.vm_stat[NR_ANON_MAPPED] == 0


def test_fork_counts_without_looking() -> None:
    k = world()
    page = alloc_page(k, GFP_HIGHUSER)
    page_dup_rmap(k, page, False)
    page_dup_rmap(k, page, False)
    assert page_mapcount(k, page) == 2
    assert k.vm_stat[NR_ANON_MAPPED] == 0


# ---------------------------------------------------------------- moving


def test_a_page_that_is_the_childs_alone_moves_to_the_childs_anon_vma() -> None:
    k = world()
    parent = process(k)
    page = touch(k, parent, 1)
    child = fork(k, parent, "c")
    page_remove_rmap(k, page, False)
    lock_page(k, page)
    page_move_anon_rmap(k, page, child)
    unlock_page(k, page)
    assert k.pg_mapping[page] == names(child) != names(parent)
    assert k.pg_index[page] == parent.vm_pgoff + 1


def test_a_page_moves_only_locked_and_to_an_anon_vma() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    untouched = process(k, comm="q")
    with pytest.raises(KernelBug, match=r"rmap.c:1006"):
        page_move_anon_rmap(k, page, vma)
    lock_page(k, page)
    with pytest.raises(KernelBug, match=r"rmap.c:1007"):
        page_move_anon_rmap(k, page, untouched)
    unlock_page(k, page)


def test_pages_are_marked_exclusive_where_the_kernel_has_the_mark() -> None:
    k = make_kernel(anon_exclusive=True)
    vma = process(k)
    page = touch(k, vma)
    assert k.pg_flags[page] & PG_anon_exclusive
    assert page_try_share_anon_rmap(k, page) == 0
    assert not k.pg_flags[page] & PG_anon_exclusive
    lock_page(k, page)
    page_move_anon_rmap(k, page, vma)
    unlock_page(k, page)
    assert k.pg_flags[page] & PG_anon_exclusive
    k.pg_refcount[page] += GUP_PIN_COUNTING_BIAS
    assert page_try_share_anon_rmap(k, page) == -EBUSY
    assert k.pg_flags[page] & PG_anon_exclusive


# ---------------------------------------------------------------- mappings that go


def test_the_last_mapping_takes_the_page_out_of_the_statistics() -> None:
    k = world()
    page, _ = family(k, 2)
    for left in (2, 1, 0):
        assert k.vm_stat[NR_ANON_MAPPED] == 1
        page_remove_rmap(k, page, False)
        assert page_mapcount(k, page) == left
    assert k.vm_stat[NR_ANON_MAPPED] == 0


@pytest.mark.parametrize("counted", [False, True])
def test_the_last_mapping_takes_mlock_along_unless_vmas_count_it(counted: bool) -> None:
    k = world(mlock_counts=counted)
    anonymous = touch(k, process(k))
    file = make_file(k)
    cached = cache(k, file, 0)
    map_cached(k, cached, map_file(k, file))
    for page in (anonymous, cached):
        k.pg_flags[page] |= PG_mlocked
        k.vm_stat[NR_MLOCK] += 1
        page_remove_rmap(k, page, False)
        assert PageMlocked(k, page) == counted
    assert k.vm_stat[NR_MLOCK] == (2 if counted else 0)


def test_a_page_of_a_file_counts_in_its_memcg_from_first_to_last_mapping() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 1)
    vmas = [map_file(k, file, comm) for comm in "pq"]
    for vma in vmas:
        map_cached(k, page, vma)
        assert k.vm_stat[NR_FILE_MAPPED] == 1 == k.memcgs[0].stat[NR_FILE_MAPPED]
    assert page_mapcount(k, page) == 2
    page_remove_rmap(k, page, False)
    assert k.vm_stat[NR_FILE_MAPPED] == 1
    page_remove_rmap(k, page, False)
    assert k.vm_stat[NR_FILE_MAPPED] == 0 == k.memcgs[0].stat[NR_FILE_MAPPED]
    assert k.pg_mapping[page] == file.f_mapping.handle << MAPPING_HANDLE_SHIFT


# ---------------------------------------------------------------- huge pages


def huge_world() -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma)


def test_the_counts_of_a_huge_page_through_fork_split_and_exit() -> None:
    """The numbers of a THP that is shared, split in one process, and left by the other."""
    k, _, head = huge_world()
    stats = (NR_ANON_THPS, NR_ANON_MAPPED)
    assert (compound_mapcount(k, head), k.pg_mapcount[head]) == (1, -1)
    assert [k.vm_stat[item] for item in stats] == [1, 512]

    page_dup_rmap(k, head, True)  # fork
    assert (compound_mapcount(k, head), total_mapcount(k, head)) == (2, 2)

    # The child's PMD is split: every sub page gets a PTE mapping, and one more as base.
    for i in range(HPAGE_PMD_NR):
        k.pg_mapcount[head + i] += 2
    k.pg_flags[head + 1] |= PG_double_map
    page_remove_rmap(k, head, True)
    assert compound_mapcount(k, head) == 1
    assert page_mapcount(k, head + 3) == 2
    assert total_mapcount(k, head) == 513
    assert [k.vm_stat[item] for item in stats] == [1, 512]

    page_remove_rmap(k, head, True)  # the parent exits
    assert not PageDoubleMap(k, head)
    assert (total_mapcount(k, head), list(k.deferred_split_queue)) == (512, [])
    assert [k.vm_stat[item] for item in stats] == [0, 512]

    page_remove_rmap(k, head + 7, False)
    assert k.vm_stat[NR_ANON_MAPPED] == 511
    assert list(k.deferred_split_queue) == [head]
    page_remove_rmap(k, head + 8, False)
    assert list(k.deferred_split_queue) == [head]


def test_a_huge_page_that_nothing_maps_any_more_is_queued_as_well() -> None:
    k, vma, head = huge_world()
    k.pg_flags[head] |= PG_mlocked
    k.vm_stat[NR_MLOCK] += HPAGE_PMD_NR
    lock_page(k, head)
    page_add_anon_rmap(k, head, vma, vma.vm_start, True)
    unlock_page(k, head)
    assert (compound_mapcount(k, head), k.vm_stat[NR_ANON_THPS]) == (2, 1)
    page_remove_rmap(k, head, True)
    page_remove_rmap(k, head, True)
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED], k.vm_stat[NR_MLOCK]) == (0, 0, 0)
    assert list(k.deferred_split_queue) == [head]
    # Migration brings it back.
    lock_page(k, head)
    page_add_anon_rmap(k, head, vma, vma.vm_start, True)
    unlock_page(k, head)
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (1, HPAGE_PMD_NR)


def test_base_counts_that_were_the_last_ones_unmap_their_sub_pages() -> None:
    k, _, head = huge_world()
    # PTEs map only sub pages 0 and 1 beside the PMD.
    for i in range(HPAGE_PMD_NR):
        k.pg_mapcount[head + i] += 1 + (i < 2)
    k.pg_flags[head + 1] |= PG_double_map
    page_remove_rmap(k, head, True)
    assert k.vm_stat[NR_ANON_MAPPED] == 2
    assert total_mapcount(k, head) == 2


def test_a_huge_page_is_mapped_whole_only_if_it_is_huge_and_locked() -> None:
    k, vma, head = huge_world()
    with pytest.raises(KernelBug, match=r"rmap.c:1106"):
        page_add_anon_rmap(k, head, vma, vma.vm_start, True)
    small = alloc_page(k, GFP_HIGHUSER)
    lock_page(k, small)
    with pytest.raises(KernelBug, match=r"rmap.c:1107"):
        page_add_anon_rmap(k, small, vma, vma.vm_start, True)
    unlock_page(k, small)
    with pytest.raises(KernelBug, match=r"rmap.c:1183"):
        page_add_file_rmap(k, small, True)
    with pytest.raises(KernelBug, match=r"rmap.c:1214"):
        page_remove_rmap(k, small, True)


def shmem_huge(k: Kernel) -> int:
    """A huge page of shared memory in the page cache."""
    file = make_file(k, shmem=True)
    head = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    k.pg_mapping[head] = file.f_mapping.handle << MAPPING_HANDLE_SHIFT
    k.pg_flags[head] |= PG_swapbacked
    file.f_mapping.i_pages[0] = head
    return head


def test_a_huge_page_of_shared_memory_counts_every_sub_page() -> None:
    k = world(4096)
    head = shmem_huge(k)
    stats = (NR_SHMEM_PMDMAPPED, NR_FILE_MAPPED)
    page_add_file_rmap(k, head, True)
    page_add_file_rmap(k, head, True)
    assert (compound_mapcount(k, head), page_mapcount(k, head + 5)) == (2, 2)
    assert total_mapcount(k, head) == 2
    assert [k.vm_stat[item] for item in stats] == [1, 512]

    # A PTE maps a sub page as well. That such a page was locked in memory is forgotten.
    lock_page(k, head)
    k.pg_flags[head] |= PG_mlocked
    k.vm_stat[NR_MLOCK] += HPAGE_PMD_NR
    page_add_file_rmap(k, head, False)
    unlock_page(k, head)
    assert (PageDoubleMap(k, head), k.vm_stat[NR_MLOCK], k.warnings) == (True, 0, [])
    page_add_file_rmap(k, head + 5, False)
    assert [warning.check[:11] for warning in k.warnings] == ["rmap.c:1196"]

    page_remove_rmap(k, head, True)
    assert [k.vm_stat[item] for item in stats] == [1, 512]
    page_remove_rmap(k, head, True)
    assert [k.vm_stat[item] for item in stats] == [0, 2]
    page_remove_rmap(k, head, False)
    page_remove_rmap(k, head + 5, False)
    assert (k.vm_stat[NR_FILE_MAPPED], total_mapcount(k, head)) == (0, 0)


def test_the_last_pmd_ends_mlock_even_if_ptes_map_every_sub_page() -> None:
    k = world(4096)
    head = shmem_huge(k)
    page_add_file_rmap(k, head, True)
    for i in range(HPAGE_PMD_NR):
        k.pg_mapcount[head + i] += 1
    k.pg_flags[head] |= PG_mlocked
    k.vm_stat[NR_MLOCK] += HPAGE_PMD_NR
    page_remove_rmap(k, head, True)
    assert (k.vm_stat[NR_MLOCK], k.vm_stat[NR_FILE_MAPPED]) == (0, 512)


def test_v4_18_knows_no_huge_pages_of_other_files() -> None:
    k = world(4096)
    head = shmem_huge(k)
    k.pg_flags[head] ^= PG_swapbacked
    with pytest.raises(KernelBug, match=r"rmap.c:1192"):
        page_add_file_rmap(k, head, True)
    crashed()
    with pytest.raises(KernelBug, match=r"rmap.c:1232"):
        page_remove_rmap(k, head, True)
    crashed()


def test_hugetlb_pages_are_in_no_statistics() -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, 2 * HPAGE_PMD_NR, RW | VM_HUGETLB)
    vma.vm_file = hugetlb_file(k)
    head = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    for page in range(head, head + HPAGE_PMD_NR):
        k.pg_flags[page] |= PG_huge
    address = vma.vm_start + HPAGE_PMD_NR * PAGE_SIZE
    with pytest.raises(KernelBug, match=r"rmap.c:1911"):
        hugepage_add_anon_rmap(k, head, vma, address)
    lock_page(k, head)
    with pytest.raises(KernelBug, match=r"rmap.c:1912"):
        hugepage_add_anon_rmap(k, head, vma, address)
    with pytest.raises(KernelBug, match=r"rmap.c:1893"):
        hugepage_add_new_anon_rmap(k, head, vma, address)
    with pytest.raises(KernelBug, match=r"rmap.c:1922"):
        hugepage_add_new_anon_rmap(k, head, vma, vma.vm_end)
    unlock_page(k, head)
    prepare(k, vma)
    child = fork(k, vma, "c")
    lock_page(k, head)

    hugepage_add_new_anon_rmap(k, head, child, address)
    assert (compound_mapcount(k, head), k.pg_mapping[head]) == (1, names(child))
    assert k.pg_index[head] == 2, "in huge pages"
    hugepage_add_anon_rmap(k, head, vma, address)
    assert (compound_mapcount(k, head), k.pg_mapping[head]) == (2, names(child))
    page_remove_rmap(k, head, True)
    page_remove_rmap(k, head, True)
    # What migration brings back names the root; and keeps its name if it has one.
    hugepage_add_anon_rmap(k, head, child, address)
    assert k.pg_mapping[head] == names(child)
    page_remove_rmap(k, head, True)
    k.pg_mapping[head] = 0
    hugepage_add_anon_rmap(k, head, child, address)
    assert k.pg_mapping[head] == names(vma)
    unlock_page(k, head)
    assert not any(k.vm_stat[item] for item in (NR_ANON_MAPPED, NR_ANON_THPS, NR_FILE_MAPPED))


def test_shared_hugetlb_pages_count_only_as_a_whole() -> None:
    k = world(4096)
    head = shmem_huge(k)
    k.pg_flags[head] |= PG_huge
    page_dup_rmap(k, head, True)
    page_dup_rmap(k, head, True)
    page_remove_rmap(k, head, True)
    assert (compound_mapcount(k, head), k.pg_mapcount[head]) == (1, -1)
    assert k.vm_stat[NR_FILE_MAPPED] == 0
    assert k.pg_flags[head] & PG_head


# ---------------------------------------------------------------- a property


@given(st.lists(st.booleans(), max_size=40), st.booleans())
def test_a_page_is_in_the_statistics_while_something_maps_it(steps: list[bool], anon: bool) -> None:
    k = world()
    if anon:
        vma = process(k)
        page = touch(k, vma)
    else:
        file = make_file(k)
        vma = map_file(k, file)
        page = cache(k, file, 0)
        map_cached(k, page, vma)
    count = 1
    for more in steps:
        lock_page(k, page)
        if more and anon:
            page_add_anon_rmap(k, page, vma, BASE * PAGE_SIZE, False)
        elif more:
            page_add_file_rmap(k, page, False)
        elif count:
            page_remove_rmap(k, page, False)
        unlock_page(k, page)
        count = max(count + (1 if more else -1), 0)
        assert page_mapcount(k, page) == count
        assert k.vm_stat[NR_ANON_MAPPED if anon else NR_FILE_MAPPED] == (count > 0)
        assert k.vm_stat[NR_FILE_MAPPED if anon else NR_ANON_MAPPED] == 0
        assert PageAnon(k, page) == anon
