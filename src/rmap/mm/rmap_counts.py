# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Mappings come and go: who a page belongs to, and how often it is mapped.

mm/rmap.c:990-1332 and 1882-1926 (v4.18). The caller holds the page-table lock of the entry that it
is making or has just emptied, and where said the page lock; memcg->move_lock is taken inside, for
pages of files.

A page's ``_mapcount`` counts PTEs. A huge page counts apart how often it is mapped whole: an
anonymous one in ``compound_mapcount`` alone, to which PG_double_map adds one in every sub page; one
of a file in every sub page as well; a hugetlb page nowhere else.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        HPAGE_PMD_NR,
        MAPPING_HANDLE_SHIFT,
        NR_ANON_MAPPED,
        NR_ANON_THPS,
        NR_FILE_MAPPED,
        NR_SHMEM_PMDMAPPED,
        PAGE_MAPPING_ANON,
        RMAP_COMPOUND,
        RMAP_EXCLUSIVE,
        PG_anon_exclusive,
        PG_double_map,
        PG_swapbacked,
    )
    from rmap.mm.bug import BUG_PAGE, WARN_ONCE
    from rmap.mm.huge.deferred import deferred_split_huge_page
    from rmap.mm.memcg import lock_page_memcg, unlock_page_memcg
    from rmap.mm.mlock_page import clear_page_mlock
    from rmap.mm.mm_types import AnonVma, Kernel, Vma
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageHead,
        PageHuge,
        PageKsm,
        PageLocked,
        PageMlocked,
        PageSwapBacked,
        PageTransCompound,
        PageTransHuge,
        SetPage,
        TestClearPage,
        compound_head,
        compound_mapcount_add_negative,
        compound_mapcount_inc_and_test,
        compound_mapcount_set,
        hpage_nr_pages,
        mapcount_add_negative,
        mapcount_inc_and_test,
        mapcount_set,
        mod_lruvec_page_state,
        mod_node_page_state,
        page_anon_vma,
        page_mapping,
        page_maybe_dma_pinned,
        page_to_pgoff,
        set_page_index,
        set_page_mapping,
    )
    from rmap.mm.vma import linear_page_index
    from rmap.scalar import flag, i32, i64, u32, u64


# ---------------------------------------------------------------- whom an anonymous page names


def anon_mapping(anon_vma: AnonVma) -> u32:
    """The word that names an anon_vma in page->mapping."""
    return anon_vma.handle << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_ANON


def page_move_anon_rmap(k: Kernel, page: u64, vma: Vma) -> i32:
    """Give a page that only this process uses any more to the VMA's own anon_vma.

    mm/rmap.c:1000 (v4.18). Walks of the page are then spared all relatives' VMAs. The page is
    locked; its index stays. Readers without the lock see the old or the new anon_vma, and either
    finds the mapping, as the new one descends from the old one.

    Locks: needs the page lock and, that the page stays exclusive, the page-table lock of its
    mapping; mmap_sem keeps the VMA's anon_vma.
    """
    anon_vma: AnonVma = vma.anon_vma
    page = compound_head(k, page)
    if k.debug_vm and not PageLocked(k, page):  # L1006
        BUG_PAGE("rmap.c:1006 page_move_anon_rmap: the page is not locked", page)
    if anon_vma is None:  # L1007
        BUG_PAGE("rmap.c:1007 page_move_anon_rmap: the VMA has no anon_vma", page)
    # One store: nobody may see the tag without the anon_vma, or the reverse.
    set_page_mapping(k, page, anon_mapping(anon_vma))  # L1015
    if k.profile.anon_exclusive:
        SetPage(k, page, PG_anon_exclusive)
    if k.tracer is not None:
        k.tracer("page_move_anon_rmap", (page, vma))
    return 0


def __page_set_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64, exclusive: flag) -> i32:
    """Let a page name the VMA's anon_vma, and its place there (mm/rmap.c:1025, v4.18).

    A page that any relative may map as well names the root, whose tree holds all of them.

    Locks: needs the page lock unless the page is new, and the page-table lock of the mapping.
    """
    anon_vma: AnonVma = vma.anon_vma
    if anon_vma is None:  # L1030
        BUG_PAGE("rmap.c:1030 __page_set_anon_rmap: the VMA has no anon_vma", page)
    if exclusive and k.profile.anon_exclusive:
        SetPage(k, page, PG_anon_exclusive)
    if PageAnon(k, page):  # L1032
        return 0
    if not exclusive:  # L1040
        anon_vma = anon_vma.root
    # Two stores: a reader without the page lock may see the new anon_vma with the old index.
    set_page_mapping(k, page, anon_mapping(anon_vma))
    set_page_index(k, page, linear_page_index(k, vma, address))
    return 0


def __page_check_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64) -> i32:
    """Insist that what the page says about itself fits the VMA that maps it once more.

    mm/rmap.c:1054 (v4.18, CONFIG_DEBUG_VM).

    Locks: needs the page lock, and the page-table lock of the mapping.
    """
    if not k.debug_vm:
        return 0
    anon_vma: AnonVma = page_anon_vma(k, page)
    if anon_vma is None or vma.anon_vma is None or anon_vma.root is not vma.anon_vma.root:  # L1070
        BUG_PAGE("rmap.c:1070 __page_check_anon_rmap: the page is of another family", page)
    if page_to_pgoff(k, page) != linear_page_index(k, vma, address):  # L1071
        BUG_PAGE("rmap.c:1071 __page_check_anon_rmap: the page has another index", page)
    return 0


# ---------------------------------------------------------------- new mappings


def page_add_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64, compound: flag) -> i32:
    """Count one more mapping of an anonymous page, which is locked (or a KSM page).

    mm/rmap.c:1087 (v4.18). `compound`: it is a PMD that maps a huge page.

    Locks: needs the page lock, but of a merged page; and the page-table lock of the mapping.
    """
    flags: i32 = 0
    if compound:  # L1090
        flags = RMAP_COMPOUND
    return do_page_add_anon_rmap(k, page, vma, address, flags)


def do_page_add_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64, flags: i32) -> i32:
    """The same, with `flags` of ``RMAP_``: exclusive says that no relative maps the page.

    mm/rmap.c:1098 (v4.18). Counts first and names the anon_vma afterwards: for a moment the page
    is mapped while its mapping still is what it was. The address may not be in the VMA any more,
    where migration meets vma_adjust().

    Locks: needs the page lock, but of a merged page; and the page-table lock of the mapping.
    """
    compound: flag = flags & RMAP_COMPOUND != 0
    first: flag
    if compound:  # L1104
        if k.debug_vm and not PageLocked(k, page):  # L1106
            BUG_PAGE("rmap.c:1106 do_page_add_anon_rmap: the huge page is not locked", page)
        if not PageTransHuge(k, page):  # L1107
            BUG_PAGE("rmap.c:1107 do_page_add_anon_rmap: the page is not huge", page)
        first = compound_mapcount_inc_and_test(k, page)
    else:
        first = mapcount_inc_and_test(k, page)
    if first:  # L1114
        nr: i64 = hpage_nr_pages(k, page) if compound else 1
        if compound:  # L1122
            mod_node_page_state(k, NR_ANON_THPS, 1)
        mod_node_page_state(k, NR_ANON_MAPPED, nr)
    if k.tracer is not None:
        k.tracer("do_page_add_anon_rmap", (page, vma, address, flags))
    if PageKsm(k, page):  # L1126
        return 0
    if k.debug_vm and not PageLocked(k, page):  # L1129
        BUG_PAGE("rmap.c:1129 do_page_add_anon_rmap: the page is not locked", page)
    if first:  # L1132
        return __page_set_anon_rmap(k, page, vma, address, flags & RMAP_EXCLUSIVE != 0)
    return __page_check_anon_rmap(k, page, vma, address)


def page_add_new_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64, compound: flag) -> i32:
    """Count the first mapping of a page that was just allocated, and need not be locked.

    mm/rmap.c:1150 (v4.18). LRU, memcg and rss are the caller's business.

    Locks: needs the page-table lock of the mapping; nobody else knows the page.
    """
    nr: i64 = hpage_nr_pages(k, page) if compound else 1
    if address < vma.vm_start or address >= vma.vm_end:  # L1155
        BUG_PAGE("rmap.c:1155 page_add_new_anon_rmap: the address is outside of the VMA", page)
    # Nobody else knows the page yet, so the flag needs no atomic operation.
    k.pg_flags[page] |= PG_swapbacked
    if compound:  # L1157
        if not PageTransHuge(k, page):  # L1158
            BUG_PAGE("rmap.c:1158 page_add_new_anon_rmap: the page is not huge", page)
        compound_mapcount_set(k, page, 0)
        mod_node_page_state(k, NR_ANON_THPS, 1)
    else:
        if PageTransCompound(k, page):  # L1164
            BUG_PAGE("rmap.c:1164 page_add_new_anon_rmap: part of a huge page", page)
        mapcount_set(k, page, 0)
    mod_node_page_state(k, NR_ANON_MAPPED, nr)
    if k.tracer is not None:
        k.tracer("page_add_new_anon_rmap", (page, vma, address, compound))
    return __page_set_anon_rmap(k, page, vma, address, True)


def page_add_file_rmap(k: Kernel, page: u64, compound: flag) -> i32:
    """Count one more mapping of a page of a file (mm/rmap.c:1179, v4.18).

    Locks: needs the page-table lock of the mapping; the page lock only of a part of a huge page.
    Takes memcg->move_lock, and inside of it, for an mlocked page, the LRU lock.
    """
    nr: i64 = 1
    if compound and not PageTransHuge(k, page):  # L1183
        BUG_PAGE("rmap.c:1183 page_add_file_rmap: the page is not huge", page)
    lock_page_memcg(k, page)
    if compound:  # L1185
        nr = _add_huge_file_rmap(k, page)
    else:
        if PageTransCompound(k, page) and page_mapping(k, page) is not None:  # L1195
            if k.debug_vm and not PageLocked(k, page):  # L1196
                WARN_ONCE(k.warnings, "rmap.c:1196 page_add_file_rmap: the page is not locked")
            SetPage(k, compound_head(k, page) + 1, PG_double_map)
            if PageMlocked(k, page) and not k.profile.mlock_counts:  # L1199
                clear_page_mlock(k, compound_head(k, page))
        if not mapcount_inc_and_test(k, page):  # L1202
            nr = 0
    if nr:
        mod_lruvec_page_state(k, page, NR_FILE_MAPPED, nr)
    unlock_page_memcg(k, page)
    if k.tracer is not None:
        k.tracer("page_add_file_rmap", (page, compound))
    return 0


def _add_huge_file_rmap(k: Kernel, page: u64) -> i64:
    """Count a PMD that maps a huge page of a file; returns how many sub pages it maps first."""
    nr: i64 = 0
    i: u64
    for i in range(HPAGE_PMD_NR):
        if mapcount_inc_and_test(k, page + i):  # L1187
            nr += 1
    if not compound_mapcount_inc_and_test(k, page):  # L1190
        # Another PMD maps all of it already, so none of the sub pages was new.
        return 0
    if not PageSwapBacked(k, page):
        BUG_PAGE("rmap.c:1192 page_add_file_rmap: a huge page of a file that is not shmem", page)
    mod_node_page_state(k, NR_SHMEM_PMDMAPPED, 1)
    return nr


# ---------------------------------------------------------------- mappings that go


def page_remove_file_rmap(k: Kernel, page: u64, compound: flag) -> i32:
    """Count one mapping of a page of a file less (mm/rmap.c:1210, v4.18).

    Locks: needs the page-table lock of the mapping; takes memcg->move_lock, and inside of it, for
    an mlocked page, the LRU lock.
    """
    if compound and not PageHead(k, page):  # L1214
        BUG_PAGE("rmap.c:1214 page_remove_file_rmap: not the head of a huge page", page)
    lock_page_memcg(k, page)
    # What nothing maps any more; less than none where somebody still maps the page as it was.
    nr: i64 = 1
    if PageHuge(k, page):  # L1218
        # Always mapped whole, and in no statistics.
        compound_mapcount_add_negative(k, page)
        nr = -1
    elif compound:  # L1225
        nr = _remove_huge_file_rmap(k, page)
    elif not mapcount_add_negative(k, page):  # L1235
        nr = -1
    if nr >= 0:
        mod_lruvec_page_state(k, page, NR_FILE_MAPPED, -nr)
        if PageMlocked(k, page) and not k.profile.mlock_counts:  # L1246
            clear_page_mlock(k, page)
    unlock_page_memcg(k, page)
    return 0


def _remove_huge_file_rmap(k: Kernel, page: u64) -> i64:
    """Take away a PMD that maps a huge page of a file; how many sub pages are left unmapped.

    -1 if another PMD maps the page, which then maps all of them.
    """
    nr: i64 = 0
    i: u64
    for i in range(HPAGE_PMD_NR):
        if mapcount_add_negative(k, page + i):  # L1227
            nr += 1
    if not compound_mapcount_add_negative(k, page):  # L1230
        return -1
    if not PageSwapBacked(k, page):
        BUG_PAGE("rmap.c:1232 page_remove_file_rmap: a huge page of a file not shmem", page)
    mod_node_page_state(k, NR_SHMEM_PMDMAPPED, -1)
    return nr


def page_remove_anon_compound_rmap(k: Kernel, page: u64) -> i32:
    """Take away a PMD that maps an anonymous huge page (mm/rmap.c:1252, v4.18).

    Locks: needs the PMD lock of the mapping; takes the LRU lock for an mlocked page, and then the
    lock of the split queue.
    """
    if not compound_mapcount_add_negative(k, page):  # L1256
        return 0
    if PageHuge(k, page):  # L1260
        return 0
    mod_node_page_state(k, NR_ANON_THPS, -1)
    nr: i64 = 0
    i: u64
    if TestClearPage(k, page + 1, PG_double_map):  # L1268
        # PTEs map sub pages as well: take the base count off, and see which have none left.
        for i in range(HPAGE_PMD_NR):
            if mapcount_add_negative(k, page + i):  # L1274
                nr += 1
    else:
        nr = HPAGE_PMD_NR
    if PageMlocked(k, page) and not k.profile.mlock_counts:  # L1281
        clear_page_mlock(k, page)
    if nr:  # L1284
        mod_node_page_state(k, NR_ANON_MAPPED, -nr)
        if nr < HPAGE_PMD_NR or not k.profile.unmapped_thp_not_queued:
            # Also when nothing maps it any more: then it is queued to be taken off again at once.
            deferred_split_huge_page(k, page)
    return 0


def page_remove_rmap(k: Kernel, page: u64, compound: flag) -> i32:
    """Count one mapping of a page less. Its entry is empty already; the reference stays.

    mm/rmap.c:1297 (v4.18). An anonymous page goes on naming its anon_vma: clearing that could
    overwrite what a mapper sets who has counted already, and swapoff finds addresses by it. It
    can be relied on only while the page is mapped; freeing the page clears it.

    Locks: needs the page-table lock of the mapping, not the page lock; takes what clearing the
    mlock mark, the cgroup of a file's page and the split queue take.
    """
    if k.tracer is not None:
        k.tracer("page_remove_rmap", (page, compound))
    if not PageAnon(k, page):  # L1299
        return page_remove_file_rmap(k, page, compound)
    if compound:  # L1302
        return page_remove_anon_compound_rmap(k, page)
    if not mapcount_add_negative(k, page):  # L1306
        return 0
    mod_node_page_state(k, NR_ANON_MAPPED, -1)
    if PageMlocked(k, page) and not k.profile.mlock_counts:  # L1316
        clear_page_mlock(k, page)
    if PageTransCompound(k, page):  # L1319
        deferred_split_huge_page(k, compound_head(k, page))
    return 0


def page_dup_rmap(k: Kernel, page: u64, compound: flag) -> i32:
    """Count a mapping that fork copies (include/linux/rmap.h, v4.18)."""
    if compound:
        compound_mapcount_inc_and_test(k, page)
    else:
        mapcount_inc_and_test(k, page)
    return 0


def page_try_share_anon_rmap(k: Kernel, page: u64) -> i32:
    """Make an exclusive page one that may be shared, as its entry goes; -EBUSY if it is pinned.

    include/linux/rmap.h (v5.19). The page table alone will not tell any more whose it is.
    """
    if page_maybe_dma_pinned(k, page):
        return -EBUSY
    ClearPage(k, page, PG_anon_exclusive)
    return 0


# ---------------------------------------------------------------- hugetlb pages


def __hugepage_set_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64, exclusive: flag) -> i32:
    """Let a private hugetlb page name the VMA's anon_vma (mm/rmap.c:1888, v4.18).

    Locks: needs the page lock unless the page is new, and the page-table lock of the mapping.
    """
    anon_vma: AnonVma = vma.anon_vma
    if anon_vma is None:  # L1893
        BUG_PAGE("rmap.c:1893 __hugepage_set_anon_rmap: the VMA has no anon_vma", page)
    if exclusive and k.profile.anon_exclusive:
        SetPage(k, page, PG_anon_exclusive)
    if PageAnon(k, page):  # L1895
        return 0
    if not exclusive:  # L1897
        anon_vma = anon_vma.root
    set_page_mapping(k, page, anon_mapping(anon_vma))
    set_page_index(k, page, linear_page_index(k, vma, address))
    return 0


def hugepage_add_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64) -> i32:
    """Count one more mapping of a private hugetlb page, which is locked (mm/rmap.c:1905).

    Locks: needs the page lock, and the page-table lock of the mapping.
    """
    if not PageLocked(k, page):  # L1911
        BUG_PAGE("rmap.c:1911 hugepage_add_anon_rmap: the page is not locked", page)
    if vma.anon_vma is None:  # L1912
        BUG_PAGE("rmap.c:1912 hugepage_add_anon_rmap: the VMA has no anon_vma", page)
    # The address may not be in the VMA any more, where migration meets vma_adjust().
    first: flag = compound_mapcount_inc_and_test(k, page)
    if first:  # L1915
        __hugepage_set_anon_rmap(k, page, vma, address, False)
    return 0


def hugepage_add_new_anon_rmap(k: Kernel, page: u64, vma: Vma, address: u64) -> i32:
    """Count the first mapping of a new private hugetlb page (mm/rmap.c:1919, v4.18).

    Locks: needs the page-table lock of the mapping; nobody else knows the page.
    """
    if address < vma.vm_start or address >= vma.vm_end:  # L1922
        BUG_PAGE("rmap.c:1922 hugepage_add_new_anon_rmap: outside of the VMA", page)
    compound_mapcount_set(k, page, 0)
    return __hugepage_set_anon_rmap(k, page, vma, address, True)  # L1924
