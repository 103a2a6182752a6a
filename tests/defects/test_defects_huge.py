# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages: what v4.18 does to them that later kernels do not.

A huge page whose last mapping goes as a whole is queued to be split, though it is about to be
freed (f1fe80d4ae33, 5.5). Its parts can be found and used before they have their place in the file
when it is split (173d9d9fd3dd, 4.20). Whether try_to_unmap() has unmapped all of it is read off the
head (504e070dc08f, 1fb08ac63bee, 5.13). A walk that must not miss it does, when its PMD is being
taken away at the same moment (732ed55823fc, 5.13). page_mkclean() leaves no PMD for a moment
(024eee0e83f0, 5.2). Secondary MMUs hear of one migration twice, nested (bfba8e5cf28f, 4.19). And
munlock by one of two owners makes it evictable for both, until mlock is counted (5.18).
"""

from __future__ import annotations

import pytest
from handmade import (
    CLEAN,
    fork,
    split_by_hand,
    touch,
    touch_huge,
    unmap_part,
    world,
)
from interruptions import interrupted
from kernels import make_mm, map_pages, writing

from rmap.mm.anon_vma import anon_vma_fork
from rmap.mm.bits import (
    _PAGE_PSE,
    HPAGE_PMD_NR,
    TTU_IGNORE_ACCESS,
    TTU_MIGRATION,
    VM_LOCKED,
    PG_mlocked,
)
from rmap.mm.huge.split_page import split_huge_page
from rmap.mm.mlock_page import (
    mlock_vma_page,
    mlock_vma_page_counted,
    munlock_vma_page_counted,
)
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.munlock import munlock_vma_page
from rmap.mm.page import (
    get_page,
    lock_page,
    page_mapped,
    page_mapping_word,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_mkclean import PageMkcleanControl, page_mkclean_one
from rmap.mm.page_vma_mapped import page_mapped_in_vma
from rmap.mm.pgtable import (
    pfn_pte,
    pmd_alloc,
    pmd_offset,
    pte_lock,
    pte_unlock,
    set_pte_at,
)
from rmap.mm.rmap_counts import page_dup_rmap, page_remove_rmap
from rmap.mm.unmap import try_to_unmap
from rmap.mm.vma import vm_area_dup, vma_link_list
from rmap.sync.bits import (
    FIELD_MAPPING,
    FIELD_TLB,
    OP_ACQUIRE,
    OP_RMW,
    OP_WRITE,
    RANK_PTL,
)


def huge(**quirks: bool) -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(4096, **quirks)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_huge_page_is_queued_to_be_split_when_its_last_mapping_goes(fixed: bool) -> None:
    k, vma, head = huge(unmapped_thp_not_queued=fixed)
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    pte_lock(k, pmd)
    page_remove_rmap(k, head, True)
    k.pt[pmd] = 0
    pte_unlock(k, pmd)
    assert total_mapcount(k, head) == 0
    assert list(k.deferred_split_queue) == ([] if fixed else [head])


@pytest.mark.parametrize("fixed", [False, True])
def test_a_part_can_be_had_before_it_has_its_place(fixed: bool) -> None:
    k, vma, head = huge(split_sets_mapping_first=fixed)
    split_by_hand(k, vma, head)
    had: list[bool] = []

    def look() -> None:
        """Somebody who goes by frame numbers takes a reference, and asks what he has."""
        tails = range(head + 1, head + HPAGE_PMD_NR)
        had.append(any(k.pg_refcount[t] and not page_mapping_word(k, t) for t in tails))

    get_page(k, head)
    lock_page(k, head)
    with interrupted(((OP_WRITE, FIELD_MAPPING), look)):
        assert split_huge_page(k, head) == 0
    unlock_page(k, head)
    assert had == [not fixed]


@pytest.mark.parametrize("fixed", [False, True])
def test_whether_all_is_unmapped_is_read_off_the_head(fixed: bool) -> None:
    k, vma, head = huge(unmap_sees_all_parts=fixed)
    split_by_hand(k, vma, head)
    child = fork(k, vma, "child")
    # The child has the head no more, and locks the rest, which reclaim then cannot take from it.
    unmap_part(k, child, 0)
    child.vm_flags |= VM_LOCKED
    k.pg_refcount[head] += 1
    lock_page(k, head)
    unmapped = try_to_unmap(k, head, TTU_MIGRATION | TTU_IGNORE_ACCESS)
    unlock_page(k, head)
    assert page_mapped(k, head)
    assert unmapped is (not fixed)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_walk_misses_a_huge_page_that_is_being_zapped(fixed: bool) -> None:
    """PVMW_SYNC takes the lock of an entry, and there is none: the PMD is empty already."""
    k, vma, head = huge(ttu_sync=fixed)
    k.pg_refcount[head] += 1
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    still: list[bool] = []

    def finish() -> None:
        """The other CPU, in zap_huge_pmd(): it has emptied the PMD, and uncounts the page."""
        page_remove_rmap(k, head, True)
        k.pt_locked[pmd // 512] = 0

    k.pt[pmd] = 0
    k.pt_locked[pmd // 512] = 1
    plan = [((OP_ACQUIRE, RANK_PTL), finish)] if fixed else []
    with interrupted(*plan):
        assert not page_mapped_in_vma(k, head, vma)
        still.append(bool(page_mapped(k, head)))
    if not fixed:
        finish()
    assert still == [not fixed], "found nowhere, and yet mapped"


@pytest.mark.parametrize("fixed", [False, True])
def test_page_mkclean_leaves_no_pmd_for_a_moment(fixed: bool) -> None:
    k, vma, head = huge(mkclean_keeps_pmd=fixed)
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    empty: list[bool] = []
    lock_page(k, head)
    # MADV_DONTNEED, with mmap_sem for read, looks at the PMD without its lock.
    with interrupted(((OP_RMW, FIELD_TLB), lambda: empty.append(k.pt[pmd] == 0))):
        page_mkclean_one(k, head, vma, vma.vm_start, PageMkcleanControl())
    unlock_page(k, head)
    assert empty == [not fixed]


@pytest.mark.parametrize("fixed", [False, True])
def test_secondary_mmus_hear_of_one_migration_twice(fixed: bool) -> None:
    k, _vma, head = huge(pmd_migration_notifies_once=fixed)
    get_page(k, head)
    lock_page(k, head)
    k.notifier_log = []
    assert try_to_unmap(k, head, TTU_MIGRATION | TTU_IGNORE_ACCESS)
    unlock_page(k, head)
    names = [name for name, *_ in k.notifier_log if name.endswith(("start", "end"))]
    once = ["invalidate_range_start", "invalidate_range_end"]
    nested = [once[0], once[0], once[1], once[1]]
    assert names == (once if fixed else nested)


def two_lockers(k: Kernel, small: bool) -> tuple[int, list[Vma]]:
    """A page, small or huge, that two processes map and have locked."""
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    if small:
        page = touch(k, vma)
        child = fork(k, vma, "child")
    else:
        page = touch_huge(k, vma)
        child = vm_area_dup(k, vma)
        child.vm_mm = make_mm(k, "child")
        with writing(vma.vm_mm, child.vm_mm):
            assert anon_vma_fork(k, child, vma) == 0
            vma_link_list(k, child.vm_mm, child)
        pmd = pmd_alloc(k, child.vm_mm, child.vm_start)
        pte_lock(k, pmd)
        set_pte_at(k, child.vm_mm, child.vm_start, pmd, pfn_pte(page, CLEAN | _PAGE_PSE))
        get_page(k, page)
        page_dup_rmap(k, page, True)
        pte_unlock(k, pmd)
    for each in (vma, child):
        each.vm_flags |= VM_LOCKED
    return page, [vma, child]


@pytest.mark.parametrize(("small", "kept"), [(True, True), (False, False)])
def test_munlock_by_one_of_two_unlocks_a_huge_page_for_both(small: bool, kept: bool) -> None:
    """try_to_munlock() finds the other one, and marks the page again only if it is small."""
    k = world(4096)
    page, (vma, other) = two_lockers(k, small)
    lock_page(k, page)
    mlock_vma_page(k, page)
    vma.vm_flags &= ~VM_LOCKED
    munlock_vma_page(k, page)
    unlock_page(k, page)
    assert other.vm_flags & VM_LOCKED
    assert (k.pg_flags[page] & PG_mlocked != 0) is kept


def test_since_mlock_is_counted_it_stays_locked_for_the_other() -> None:
    k = world(4096, mlock_counts=True)
    page, vmas = two_lockers(k, False)
    for vma in vmas:
        mlock_vma_page_counted(k, page, vma, True)
    munlock_vma_page_counted(k, page, vmas[0], True)
    assert k.pg_flags[page] & PG_mlocked
    munlock_vma_page_counted(k, page, vmas[1], True)
    assert not k.pg_flags[page] & PG_mlocked
