# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which pages reclaim looks at, and how many (mm/vmscan.c, v4.18).

Each cgroup has an inactive and an active list of anonymous memory and of files. Reclaim takes
pages from the old end of the inactive lists, refills these from the active ones, and looks at an
ever larger part of each list, priority by priority, until it has freed enough.

Locks: k.lru_lock while pages are taken off lists and put back; none while they are worked on.

Where the kernel has threads of its own, the model has calls: `kswapd`, which a machine makes when
an allocation has woken it, and the flusher threads, which come by at the end of a pass that met
dirty pages of files, as they do every few seconds. Each pass visits the cgroups from the top.
"""

from __future__ import annotations

import math

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ALLOCSTALL,
        DEF_PRIORITY,
        KSWAPD_RUNS,
        LRU_ACTIVE,
        LRU_ACTIVE_ANON,
        LRU_ACTIVE_FILE,
        LRU_FILE,
        LRU_INACTIVE_ANON,
        LRU_INACTIVE_FILE,
        NR_ACTIVE_FILE,
        NR_INACTIVE_FILE,
        NR_ISOLATED,
        PAGE_SHIFT,
        PGDEACTIVATE,
        PGSCAN,
        PGSTEAL,
        SCAN_ANON,
        SCAN_EQUAL,
        SCAN_FILE,
        SCAN_FRACT,
        SWAP_CLUSTER_MAX,
        TTU_IGNORE_ACCESS,
        VM_EXEC,
        PG_active,
        PG_dirty,
        PG_head,
        PG_isolated,
        PG_lru,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import (
        destroy_compound_page,
        page_evictable,
        put_single_page,
        putback_lru_page,
    )
    from rmap.mm.memcg import mem_cgroup_is_descendant
    from rmap.mm.migrate.compaction import direct_compact
    from rmap.mm.mm_inline import (
        add_page_to_lru_list,
        del_page_from_lru_list,
        mem_cgroup_page_lruvec,
        page_is_file_cache,
        page_lru,
        page_off_lru,
    )
    from rmap.mm.mm_types import Kernel, LruVec, MemCgroup, Reclaimer
    from rmap.mm.page import (
        ClearPage,
        SetPage,
        get_page_unless_zero,
        hpage_nr_pages,
        page_mapped,
        put_page_testzero,
    )
    from rmap.mm.page_referenced import page_referenced
    from rmap.mm.shrink_page_list import ReclaimResult, ScanControl, shrink_page_list
    from rmap.mm.shrinker import shrink_slab
    from rmap.mm.swap_slots import get_nr_swap_pages, total_swap_pages
    from rmap.mm.writeback import wakeup_flusher_threads
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- taking off and putting back


def isolate_lru_pages(
    k: Kernel, nr_to_scan: i64, lruvec: LruVec, lru: i32, sc: ScanControl, result: list
) -> i64:
    """Take up to `nr_to_scan` of the oldest pages off a list; returns how many are in `result`.

    mm/vmscan.c:1620 (v4.18). k.lru_lock is held. Each has a reference then. What cannot be taken
    goes to the new end of the list. A huge page counts with all of its parts.
    """
    k.lru_lock.assert_held()
    scanned: i64 = 0
    taken: i64 = 0
    page: u64 = lruvec.tail[lru]
    newer: u64
    while page and scanned < nr_to_scan and taken < nr_to_scan:
        newer = k.pg_lru_prev[page]
        scanned += 1
        if k.pg_flags[page] & (PG_lru | PG_unevictable) != PG_lru:
            BUG_PAGE("vmscan.c:1710 a page on this list is not PG_lru, or is unevictable", page)
        del_page_from_lru_list(k, page, lruvec, lru)
        if (not sc.may_unmap and page_mapped(k, page)) or not get_page_unless_zero(k, page):
            add_page_to_lru_list(k, page, lruvec, lru)
        else:
            ClearPage(k, page, PG_lru)
            SetPage(k, page, PG_isolated)
            result.append(page)
            taken += hpage_nr_pages(k, page)
        page = newer
    k.vm_stat[NR_ISOLATED] += taken
    lruvec.recent_scanned[1 if lru >= LRU_FILE else 0] += taken
    return taken


def _put_on_list(k: Kernel, page: u64) -> flag:
    """Put an isolated page on its list and drop the reference; whether it was the last.

    k.lru_lock is held. Without references the page is off the list again, to be freed.
    """
    lruvec: LruVec = mem_cgroup_page_lruvec(k, page)
    if k.pg_flags[page] & PG_lru:
        BUG_PAGE("vmscan.c:1795 an isolated page is on an LRU list", page)
    ClearPage(k, page, PG_isolated)
    SetPage(k, page, PG_lru)
    add_page_to_lru_list(k, page, lruvec, page_lru(k, page))
    if not put_page_testzero(k, page):
        return False
    ClearPage(k, page, PG_lru)
    del_page_from_lru_list(k, page, lruvec, page_off_lru(k, page))
    return True


def putback_inactive_pages(k: Kernel, pages: list) -> i32:
    """Put back what was not reclaimed; `pages` keeps those that nobody else had any more.

    mm/vmscan.c:1782 (v4.18). k.lru_lock is held, and dropped for pages that became unevictable.
    """
    unreferenced: list = []
    page: u64
    file: i32
    lruvec: LruVec
    for page in pages:
        if not page_evictable(k, page):
            k.lru_lock.unlock()
            putback_lru_page(k, page)
            k.lru_lock.lock()
            continue
        if k.pg_flags[page] & PG_active:
            lruvec = mem_cgroup_page_lruvec(k, page)
            file = 1 if page_is_file_cache(k, page) else 0
            lruvec.recent_rotated[file] += hpage_nr_pages(k, page)
        if _put_on_list(k, page):
            unreferenced.append(page)
    pages[:] = unreferenced
    return 0


def _free_list(k: Kernel, pages: list) -> i32:
    page: u64
    for page in pages:
        if k.pg_flags[page] & PG_head:
            destroy_compound_page(k, page)
        else:
            put_single_page(k, page)
    return 0


# ---------------------------------------------------------------- one list


def shrink_inactive_list(
    k: Kernel, nr_to_scan: i64, lruvec: LruVec, sc: ScanControl, lru: i32
) -> i64:
    """Reclaim from the old end of an inactive list; returns how many pages (:1868, v4.18)."""
    pages: list = []
    unqueued: i64 = sc.result.unqueued_dirty
    k.lru_lock.lock()
    taken: i64 = isolate_lru_pages(k, nr_to_scan, lruvec, lru, sc, pages)
    k.vm_stat[PGSCAN] += taken
    lruvec.memcg.stat[PGSCAN] += taken
    k.lru_lock.unlock()
    if taken == 0:
        return 0
    reclaimed: i64 = shrink_page_list(k, pages, sc, 0, False)
    k.lru_lock.lock()
    k.vm_stat[PGSTEAL] += reclaimed
    lruvec.memcg.stat[PGSTEAL] += reclaimed
    putback_inactive_pages(k, pages)
    k.vm_stat[NR_ISOLATED] -= taken
    k.lru_lock.unlock()
    _free_list(k, pages)
    if sc.result.unqueued_dirty - unqueued == taken:
        wakeup_flusher_threads(k)
    sc.nr_taken += taken
    if lru >= LRU_FILE:
        sc.nr_file_taken += taken
    return reclaimed


def shrink_active_list(
    k: Kernel, nr_to_scan: i64, lruvec: LruVec, sc: ScanControl, lru: i32
) -> i64:
    """Move old active pages to the inactive list, used or not; returns how many (:2046, v4.18).

    Only programs stay, if they were run. Pages are not locked here, so that what is said of them
    is a hint; the accessed bits are cleared, which is what matters.
    """
    hold: list = []
    active: list = []
    inactive: list = []
    rotated: i64 = 0
    k.lru_lock.lock()
    taken: i64 = isolate_lru_pages(k, nr_to_scan, lruvec, lru, sc, hold)
    k.lru_lock.unlock()
    page: u64
    for page in hold:
        if not page_evictable(k, page):
            putback_lru_page(k, page)
            continue
        if page_referenced(k, page, False, sc.target_mem_cgroup, sc.referenced):
            rotated += hpage_nr_pages(k, page)
            if sc.referenced.vm_flags & VM_EXEC and page_is_file_cache(k, page):
                active.append(page)
                continue
        ClearPage(k, page, PG_active)
        inactive.append(page)
    k.lru_lock.lock()
    lruvec.recent_rotated[1 if lru >= LRU_FILE else 0] += rotated
    _move_to_lru(k, active)
    deactivated: i64 = _move_to_lru(k, inactive)
    k.vm_stat[PGDEACTIVATE] += deactivated
    lruvec.memcg.stat[PGDEACTIVATE] += deactivated
    k.vm_stat[NR_ISOLATED] -= taken
    k.lru_lock.unlock()
    sc.result.deactivated += deactivated
    sc.result.rotated += rotated
    _free_list(k, active)
    _free_list(k, inactive)
    return deactivated


def _move_to_lru(k: Kernel, pages: list) -> i64:
    """Put pages on their lists; returns how many (move_active_pages_to_lru(), :1999, v4.18).

    `pages` keeps those without references.
    """
    unreferenced: list = []
    moved: i64 = 0
    nr_pages: i64
    page: u64
    for page in pages:
        nr_pages = hpage_nr_pages(k, page)
        if _put_on_list(k, page):
            unreferenced.append(page)
        else:
            moved += nr_pages
    pages[:] = unreferenced
    return moved


def inactive_list_is_low(k: Kernel, lruvec: LruVec, file: i32) -> flag:
    """Whether the inactive list is too short to tell what is used often (mm/vmscan.c:2160).

    Up to 1 GiB it should have half of all pages, at 10 GiB a quarter, and so on with the root.
    """
    if not file and not total_swap_pages(k):
        return False
    base: i32 = LRU_INACTIVE_FILE if file else LRU_INACTIVE_ANON
    inactive: i64 = lruvec.size[base]
    active: i64 = lruvec.size[base + LRU_ACTIVE]
    gigabytes: i64 = (inactive + active) >> (30 - PAGE_SHIFT)
    ratio: i64 = 1
    if gigabytes:
        ratio = math.isqrt(10 * gigabytes)
    return inactive * ratio < active


def shrink_list(k: Kernel, lru: i32, nr_to_scan: i64, lruvec: LruVec, sc: ScanControl) -> i64:
    """Scan one list, an active one only if its inactive one is low (mm/vmscan.c:2205)."""
    if lru == LRU_ACTIVE_ANON or lru == LRU_ACTIVE_FILE:
        if inactive_list_is_low(k, lruvec, 1 if lru >= LRU_FILE else 0):
            shrink_active_list(k, nr_to_scan, lruvec, sc, lru)
        return 0
    return shrink_inactive_list(k, nr_to_scan, lruvec, sc, lru)


# ---------------------------------------------------------------- how much of which


def _scan_balance(k: Kernel, lruvec: LruVec, sc: ScanControl) -> i32:
    """Whether to scan anonymous memory, files, or both: one of ``SCAN_`` (mm/vmscan.c:2231)."""
    if not sc.may_swap or get_nr_swap_pages(k) <= 0:
        return SCAN_FILE
    if sc.target_mem_cgroup is not None and not k.swappiness:
        return SCAN_FILE
    if not sc.priority and k.swappiness:
        # Close to giving up: no cleverness.
        return SCAN_EQUAL
    inactive: i64
    if sc.target_mem_cgroup is None:
        files: i64 = k.vm_stat[NR_ACTIVE_FILE] + k.vm_stat[NR_INACTIVE_FILE]
        if files + k.nr_free <= k.watermark_high:
            # With hardly any file pages left they would be scanned over and over.
            inactive = lruvec.size[LRU_INACTIVE_ANON]
            if not inactive_list_is_low(k, lruvec, 0) and inactive >> sc.priority:
                return SCAN_ANON
    inactive = lruvec.size[LRU_INACTIVE_FILE]
    if not inactive_list_is_low(k, lruvec, 1) and inactive >> sc.priority:
        return SCAN_FILE
    return SCAN_FRACT


def _fraction(k: Kernel, lruvec: LruVec, file: i32) -> i64:
    """The weight of anonymous memory or of files: swappiness, and how little of it was in use."""
    base: i32 = LRU_INACTIVE_FILE if file else LRU_INACTIVE_ANON
    pages: i64 = lruvec.size[base] + lruvec.size[base + LRU_ACTIVE]
    weight: i64 = 200 - k.swappiness if file else k.swappiness
    k.lru_lock.lock()
    if lruvec.recent_scanned[file] > pages // 4:
        lruvec.recent_scanned[file] //= 2
        lruvec.recent_rotated[file] //= 2
    weight = weight * (lruvec.recent_scanned[file] + 1) // (lruvec.recent_rotated[file] + 1)
    k.lru_lock.unlock()
    return weight


def get_scan_count(k: Kernel, lruvec: LruVec, sc: ScanControl) -> list:
    """How many pages of each list to scan at this priority (mm/vmscan.c:2231, v4.18)."""
    balance: i32 = _scan_balance(k, lruvec, sc)
    anon: i64 = 1
    files: i64 = 1
    whole: i64 = 1
    if balance == SCAN_FRACT:
        anon = _fraction(k, lruvec, 0)
        files = _fraction(k, lruvec, 1)
        whole = anon + files + 1
    elif balance == SCAN_FILE:
        anon = 0
    elif balance == SCAN_ANON:
        files = 0
    counts: list = []
    lru: i32
    scan: i64
    for lru in range(LRU_INACTIVE_ANON, LRU_ACTIVE_FILE + 1):
        scan = lruvec.size[lru] >> sc.priority
        counts.append(scan * (files if lru >= LRU_FILE else anon) // whole)
    return counts


def shrink_node_memcg(k: Kernel, memcg: MemCgroup, sc: ScanControl) -> i32:
    """Scan the lists of one cgroup by turns (mm/vmscan.c:2401, v4.18).

    When enough is reclaimed, the kind of which less is left to scan is let off, and of the other
    only as great a part is scanned as was of the first.
    """
    lruvec: LruVec = memcg.lruvec
    counts: list = get_scan_count(k, lruvec, sc)
    targets: list = list(counts)
    reclaimed: i64 = 0
    scan: i64
    lru: i32
    direct: flag = sc.target_mem_cgroup is None and not sc.kswapd
    adjusted: flag = direct and sc.priority == DEF_PRIORITY
    while counts[LRU_INACTIVE_ANON] or counts[LRU_ACTIVE_FILE] or counts[LRU_INACTIVE_FILE]:
        for lru in range(LRU_INACTIVE_ANON, LRU_ACTIVE_FILE + 1):
            scan = counts[lru]
            if scan:
                scan = min(scan, SWAP_CLUSTER_MAX)
                counts[lru] -= scan
                reclaimed += shrink_list(k, lru, scan, lruvec, sc)
        if reclaimed < sc.nr_to_reclaim or adjusted:
            continue
        if not _adjust(counts, targets):
            break
        adjusted = True
    sc.nr_reclaimed += reclaimed
    if inactive_list_is_low(k, lruvec, 0):
        shrink_active_list(k, SWAP_CLUSTER_MAX, lruvec, sc, LRU_ACTIVE_ANON)
    return 0


def _adjust(counts: list, targets: list) -> flag:
    """Stop scanning the kind that is nearly done, and the other in proportion; false if done."""
    files: i64 = counts[LRU_INACTIVE_FILE] + counts[LRU_ACTIVE_FILE]
    anon: i64 = counts[LRU_INACTIVE_ANON] + counts[LRU_ACTIVE_ANON]
    if not files or not anon:
        return False
    lru: i32 = LRU_INACTIVE_ANON if files > anon else LRU_INACTIVE_FILE
    other: i32 = LRU_INACTIVE_FILE if files > anon else LRU_INACTIVE_ANON
    left: i64 = min(files, anon)
    goal: i64 = targets[lru] + targets[lru + LRU_ACTIVE] + 1
    percentage: i64 = left * 100 // goal
    counts[lru] = 0
    counts[lru + LRU_ACTIVE] = 0
    scanned: i64
    remaining: i64
    for lru in range(other, other + LRU_ACTIVE + 1):
        scanned = targets[lru] - counts[lru]
        remaining = targets[lru] * (100 - percentage) // 100
        counts[lru] = max(remaining - scanned, 0)
    return True


# ---------------------------------------------------------------- everybody, or a cgroup


def shrink_node(k: Kernel, sc: ScanControl) -> i32:
    """Make one pass at the current priority over all cgroups concerned (mm/vmscan.c:2639)."""
    root: MemCgroup = sc.target_mem_cgroup
    stat: ReclaimResult = sc.result
    writeback: i64 = stat.writeback
    unqueued: i64 = stat.unqueued_dirty
    sc.nr_taken = 0
    sc.nr_file_taken = 0
    memcg: MemCgroup
    for memcg in k.memcgs:
        if root is not None and not mem_cgroup_is_descendant(memcg, root):
            continue
        shrink_node_memcg(k, memcg, sc)
        # A limit is met as soon as enough is gone; global pressure is shared by all.
        if root is not None and sc.nr_reclaimed >= sc.nr_to_reclaim:
            break
    if root is None:
        shrink_slab(k, sc.priority)
    if sc.kswapd:
        writeback = stat.writeback - writeback
        sc.under_writeback = writeback != 0 and writeback == sc.nr_taken
        sc.dirty_pages = stat.unqueued_dirty - unqueued == sc.nr_file_taken
    if stat.unqueued_dirty != unqueued:
        wakeup_flusher_threads(k)
    return 0


def do_try_to_free_pages(k: Kernel, sc: ScanControl) -> i64:
    """Scan ever larger parts of the lists until enough is freed; returns how much (:2961)."""
    was_in_reclaim: flag = k.in_reclaim
    k.in_reclaim = True
    sc.priority = DEF_PRIORITY
    while sc.priority >= 0:
        sc.nr_scanned = 0
        shrink_node(k, sc)
        if sc.nr_reclaimed >= sc.nr_to_reclaim:
            break
        sc.priority -= 1
    k.in_reclaim = was_in_reclaim
    if k.tracer is not None:
        k.tracer("try_to_free_pages", (sc.target_mem_cgroup, sc.nr_reclaimed))
    return sc.nr_reclaimed


def reclaim(k: Kernel, memcg: MemCgroup | None, nr_pages: i64) -> ReclaimResult:
    """Free at least `nr_pages` pages, of a cgroup and those below it, or of anybody (``None``).

    try_to_free_pages() and try_to_free_mem_cgroup_pages(), mm/vmscan.c:3176 and :3263 (v4.18). No
    lock may be held but mmap_sems and page locks.
    """
    sc: ScanControl = ScanControl(nr_pages, memcg)
    if memcg is None:
        k.vm_stat[ALLOCSTALL] += 1
    do_try_to_free_pages(k, sc)
    return sc.result


class VmscanReclaimer(Reclaimer):
    """Reclaim for allocations and charges; a machine sets it as ``Kernel.reclaimer``."""

    def try_to_free_pages(self, k: Kernel, memcg: MemCgroup | None, wanted: i64) -> i64:
        """Free `wanted` pages, of `memcg` or of anybody; returns how many it freed."""
        return reclaim(k, memcg, wanted).reclaimed

    def compact(self, k: Kernel, order: i32, wait: flag) -> flag:
        """Move pages so that a run of 2**`order` becomes free; whether it is worth looking."""
        return direct_compact(k, order, wait)


def kswapd(k: Kernel) -> ReclaimResult:
    """Reclaim until the high watermark is met, if an allocation has asked for it.

    balance_pgdat(), mm/vmscan.c:3484 (v4.18).
    """
    sc: ScanControl = ScanControl(max(k.watermark_high, SWAP_CLUSTER_MAX), None)
    sc.kswapd = True
    sc.priority = DEF_PRIORITY
    if not k.kswapd_woken:
        return sc.result
    k.kswapd_woken = False
    k.vm_stat[KSWAPD_RUNS] += 1
    k.in_reclaim = True
    before: i64
    while sc.priority >= 1 and k.nr_free <= k.watermark_high:
        before = sc.nr_reclaimed
        _age_active_anon(k, sc)
        sc.nr_scanned = 0
        shrink_node(k, sc)
        if sc.nr_scanned < sc.nr_to_reclaim or sc.nr_reclaimed == before:
            sc.priority -= 1
    k.in_reclaim = False
    return sc.result


def _age_active_anon(k: Kernel, sc: ScanControl) -> i32:
    """Let anonymous memory age even if none of it is reclaimed (mm/vmscan.c:3381)."""
    memcg: MemCgroup
    if total_swap_pages(k):
        for memcg in k.memcgs:
            if inactive_list_is_low(k, memcg.lruvec, 0):
                shrink_active_list(k, SWAP_CLUSTER_MAX, memcg.lruvec, sc, LRU_ACTIVE_ANON)
    return 0


def age_active_lists(k: Kernel, memcg: MemCgroup | None, nr_pages: i64) -> i64:
    """Age up to `nr_pages` of each active list of a cgroup and those below, or of all.

    Returns how many pages are inactive now that were active. Not a function of the kernel's: what
    shrink_node() does to active lists, without asking whether the inactive ones are low.
    """
    sc: ScanControl = ScanControl(nr_pages, memcg)
    group: MemCgroup
    for group in k.memcgs:
        if memcg is None or mem_cgroup_is_descendant(group, memcg):
            _age_list(k, nr_pages, group.lruvec, sc, LRU_ACTIVE_ANON)
            _age_list(k, nr_pages, group.lruvec, sc, LRU_ACTIVE_FILE)
    return sc.result.deactivated


def _age_list(k: Kernel, nr_pages: i64, lruvec: LruVec, sc: ScanControl, lru: i32) -> i32:
    """Age the oldest pages of a list, a cluster at a time; programs that stay are met once."""
    left: i64 = min(nr_pages, lruvec.size[lru])
    moved: i64
    while left > 0:
        moved = shrink_active_list(k, min(left, SWAP_CLUSTER_MAX), lruvec, sc, lru)
        # More at once if they were huge.
        left -= max(moved, SWAP_CLUSTER_MAX)
    return 0


# ---------------------------------------------------------------- pages that somebody chose


def reclaim_pages(k: Kernel, pages: list) -> i64:
    """Reclaim isolated pages, as MADV_PAGEOUT does, and put back the others (mm/vmscan.c, v5.4).

    Returns how many were reclaimed.
    """
    sc: ScanControl = ScanControl(len(pages), None)
    sc.priority = DEF_PRIORITY
    page: u64
    for page in pages:
        ClearPage(k, page, PG_active)
    reclaimed: i64 = shrink_page_list(k, pages, sc, 0, False)
    for page in pages:
        putback_lru_page(k, page)
    pages.clear()
    return reclaimed


def reclaim_clean_pages_from_list(k: Kernel, pages: list) -> i64:
    """Free the clean file pages of a list of isolated pages, used or not (mm/vmscan.c:1525).

    What an allocation of contiguous memory does before it migrates the rest, which `pages` keeps.
    """
    sc: ScanControl = ScanControl(len(pages), None)
    sc.priority = DEF_PRIORITY
    clean: list = []
    others: list = []
    page: u64
    for page in pages:
        if page_is_file_cache(k, page) and not k.pg_flags[page] & PG_dirty:
            ClearPage(k, page, PG_active)
            clean.append(page)
        else:
            others.append(page)
    reclaimed: i64 = shrink_page_list(k, clean, sc, TTU_IGNORE_ACCESS, True)
    pages[:] = clean + others
    return reclaimed
