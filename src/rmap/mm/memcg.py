# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Memory cgroups: whose page it is, limits, the lock of the statistics (mm/memcontrol.c, v4.18).

The hierarchy is that of the second version: a page counts in its cgroup and in all above it, and
a limit of any of these is met by reclaim from there down. The root has no limit and no usage, so
that a page of the root (`pg_memcg` 0) costs nothing.

The kernel charges in steps (try, then commit or cancel) since it must not fail under a page-table
lock. Here `mem_cgroup_try_charge` does it all, and `mem_cgroup_uncharge`, which freeing a page
calls, also cancels. What the kernel counts at commit (memory.stat's anon and file) is what is
charged, as it is now: it is recounted when asked for, and not stored.

Locks: charging a page that is on an LRU list takes k.lru_lock. `lock_page_memcg` enters an RCU
section and, while charges move, takes memcg->move_lock; k.lru_lock and i_pages locks may follow.
Moving takes the page lock before it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        EINVAL,
        ENOMEM,
        GFP_KERNEL,
        MEM_CGROUP_RECLAIM_RETRIES,
        NR_FILE_DIRTY,
        NR_FILE_MAPPED,
        NR_FILE_PAGES,
        NR_SHMEM,
        NR_WRITEBACK,
        SWAP_CLUSTER_MAX,
        SWP_OFFSET_MASK,
        SWP_TYPE_SHIFT,
        PG_dirty,
        PG_lru,
        PG_writeback,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.mm_inline import (
        add_page_to_lru_list,
        del_page_from_lru_list,
        mem_cgroup_page_lruvec,
        page_lru,
    )
    from rmap.mm.mm_types import AddressSpace, Kernel, MemCgroup, SwapInfo
    from rmap.mm.page import (
        PageAnon,
        PageSwapCache,
        hpage_nr_pages,
        page_mapped,
        page_mapping,
        page_private,
        trylock_page,
        unlock_page,
    )
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.core import rcu_read_lock, rcu_read_unlock, sched


# ---------------------------------------------------------------- the tree


def mem_cgroup_create(k: Kernel, name: str, parent: MemCgroup, limit: i64) -> MemCgroup:
    """Make a cgroup below `parent`, with a limit in pages, or -1 for none.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> k = Kernel(16, profile("4.18"))
    >>> mem_cgroup_create(k, "jobs", k.memcgs[0], 8)
    <memcg jobs>
    """
    memcg: MemCgroup = MemCgroup(len(k.memcgs), name, parent)
    memcg.limit = limit
    k.memcgs.append(memcg)
    return memcg


def mem_cgroup_is_descendant(memcg: MemCgroup, root: MemCgroup) -> flag:
    """Whether a cgroup is `root` or lies below it."""
    while memcg is not None:
        if memcg is root:
            return True
        memcg = memcg.parent
    return False


def memory_max_write(k: Kernel, memcg: MemCgroup, limit: i64) -> i32:
    """Set a limit, and reclaim what is above it as far as that goes (mm/memcontrol.c:5362, v4.18).

    It holds from now on also if that does not suffice, where the kernel would kill somebody.
    """
    retries: i32 = MEM_CGROUP_RECLAIM_RETRIES
    memcg.limit = limit
    while limit >= 0 and memcg.usage > limit and retries > 0:
        if k.reclaimer.try_to_free_pages(k, memcg, memcg.usage - limit) == 0:
            retries -= 1
    return 0


# ---------------------------------------------------------------- charging


def mem_cgroup_try_charge(k: Kernel, page: u64, memcg: MemCgroup, gfp: u64) -> i32:
    """Charge a page to a cgroup; -ENOMEM if it is at a limit and cannot be brought below it.

    A page that came from swap belongs to whoever's memory the slot holds, whoever faults on it,
    and is charged once. mm/memcontrol.c:5534 (v4.18). The page may be on the LRU already, as one
    from swap is; it then changes lists, so no LRU lock is held.
    """
    if k.inject is not None and k.inject.should_fail("memcg_charge"):
        return -ENOMEM
    if PageSwapCache(k, page):
        if k.pg_memcg[page]:
            return 0
        memcg = _swap_owner(k, page_private(k, page), memcg)
    if memcg.ident == 0:
        return 0
    if try_charge(k, memcg, gfp, hpage_nr_pages(k, page)):
        return -ENOMEM
    _commit_charge(k, page, memcg)
    return 0


def _commit_charge(k: Kernel, page: u64, memcg: MemCgroup) -> i32:
    """Make the page a cgroup's, which takes it from one LRU list to another if it is on one."""
    if not k.pg_flags[page] & PG_lru:
        k.pg_memcg[page] = memcg.ident
        return 0
    k.lru_lock.lock()
    if not k.pg_flags[page] & PG_lru:
        k.pg_memcg[page] = memcg.ident
        k.lru_lock.unlock()
        return 0
    del_page_from_lru_list(k, page, mem_cgroup_page_lruvec(k, page), page_lru(k, page))
    k.pg_memcg[page] = memcg.ident
    add_page_to_lru_list(k, page, memcg.lruvec, page_lru(k, page))
    k.lru_lock.unlock()
    return 0


def try_charge(k: Kernel, memcg: MemCgroup, gfp: u64, nr_pages: i64) -> i32:
    """Count pages in a cgroup and all above it, reclaiming where a limit is met; 0 or -ENOMEM.

    mm/memcontrol.c:2075 (v4.18), without its per-CPU stock. What reclaim itself allocates is
    charged past the limit.
    """
    retries: i32 = MEM_CGROUP_RECLAIM_RETRIES
    over: MemCgroup = _over_limit(memcg, nr_pages)
    while over is not None and not k.in_reclaim:
        if not gfp & GFP_KERNEL:
            return -ENOMEM
        freed: i64 = k.reclaimer.try_to_free_pages(
            k, over, nr_pages if nr_pages > SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
        )
        over = _over_limit(memcg, nr_pages)
        if over is not None and freed == 0:
            if retries == 0:
                return -ENOMEM
            retries -= 1
    while memcg.parent is not None:
        memcg.usage += nr_pages
        memcg = memcg.parent
    return 0


def _over_limit(memcg: MemCgroup, nr_pages: i64) -> MemCgroup:
    """The lowest cgroup, from `memcg` up, that `nr_pages` more would bring above its limit."""
    while memcg is not None:
        if memcg.limit >= 0 and memcg.usage + nr_pages > memcg.limit:
            return memcg
        memcg = memcg.parent
    return None


def _swap_owner(k: Kernel, entry: u64, memcg: MemCgroup) -> MemCgroup:
    """Whose memory a slot holds, or `memcg` if nobody's."""
    area: SwapInfo = k.swap_areas[entry >> SWP_TYPE_SHIFT]
    owner: i32 = area.swap_cgroup[entry & SWP_OFFSET_MASK]
    if owner:
        return k.memcgs[owner - 1]
    return memcg


def mem_cgroup_uncharge(k: Kernel, page: u64) -> i32:
    """Give a page back to its cgroup, if it has one; it is off the LRU."""
    memcg: MemCgroup
    if k.pg_memcg[page]:
        if k.pg_flags[page] & PG_lru:
            BUG_PAGE("memcontrol.c:5684 uncharging a page that is on an LRU list", page)
        memcg = k.memcgs[k.pg_memcg[page]]
        page_counter_uncharge(memcg, hpage_nr_pages(k, page))
        k.pg_memcg[page] = 0
    return 0


def mem_cgroup_migrate(k: Kernel, old: u64, new: u64) -> i32:
    """Charge a page that replaces another to the same cgroup, past its limit (memcontrol.c:5772).

    The old one is uncharged when it is freed, which is soon. Both are locked, the new one is on
    no list.
    """
    if k.pg_memcg[new] or not k.pg_memcg[old]:
        return 0
    memcg: MemCgroup = k.memcgs[k.pg_memcg[old]]
    nr_pages: i64 = hpage_nr_pages(k, new)
    k.pg_memcg[new] = memcg.ident
    while memcg.parent is not None:
        memcg.usage += nr_pages
        memcg = memcg.parent
    return 0


def page_counter_uncharge(memcg: MemCgroup, nr_pages: i64) -> i32:
    """Count fewer pages in a cgroup and all above it (mm/page_counter.c)."""
    while memcg.parent is not None:
        if memcg.usage < nr_pages:
            BUG("page_counter.c:30 more pages are uncharged than were charged")
        memcg.usage -= nr_pages
        memcg = memcg.parent
    return 0


# ---------------------------------------------------------------- swap


def mem_cgroup_try_charge_swap(k: Kernel, page: u64, entry: u64) -> i32:
    """Note whose memory a slot will hold; 0, as cgroups have no limit of swap here."""
    area: SwapInfo = k.swap_areas[entry >> SWP_TYPE_SHIFT]
    area.swap_cgroup[entry & SWP_OFFSET_MASK] = k.pg_memcg[page] + 1
    return 0


def mem_cgroup_uncharge_swap(k: Kernel, entry: u64) -> i32:
    """Forget whose memory a slot held."""
    area: SwapInfo = k.swap_areas[entry >> SWP_TYPE_SHIFT]
    area.swap_cgroup[entry & SWP_OFFSET_MASK] = 0
    return 0


# ---------------------------------------------------------------- the lock of the statistics


def lock_page_memcg(k: Kernel, page: u64) -> i32:
    """Keep the page's cgroup what it is, while a statistic of it is changed.

    mm/memcontrol.c:1759 (v4.18). Only while charges move is there a lock to take.
    """
    rcu_read_lock()
    memcg: MemCgroup = k.memcgs[k.pg_memcg[page]]
    while memcg.moving_account > 0:
        memcg.move_lock.lock()
        if memcg is k.memcgs[k.pg_memcg[page]]:
            memcg.move_lock_task = sched.current
            return 0
        memcg.move_lock.unlock()
        memcg = k.memcgs[k.pg_memcg[page]]
    return 0


def unlock_page_memcg(k: Kernel, page: u64) -> i32:
    """Undo `lock_page_memcg`."""
    memcg: MemCgroup = k.memcgs[k.pg_memcg[page]]
    if memcg.move_lock_task is sched.current:
        memcg.move_lock_task = None
        memcg.move_lock.unlock()
    rcu_read_unlock()
    return 0


def mem_cgroup_move_account(k: Kernel, page: u64, source: MemCgroup, target: MemCgroup) -> i32:
    """Move the charge of an isolated page; -EBUSY if it is locked, -EINVAL if not `source`'s.

    mm/memcontrol.c:4658 (v4.18). The caller has counted `source` as moving and charged `target`.
    """
    if source is target:
        BUG("memcontrol.c:4673 a charge moves to where it is")
    if k.pg_flags[page] & PG_lru:
        BUG_PAGE("memcontrol.c:4674 the charge of a page on an LRU list moves", page)
    if not trylock_page(k, page):
        return -EBUSY
    if k.pg_memcg[page] != source.ident:
        unlock_page(k, page)
        return -EINVAL
    nr_pages: i64 = hpage_nr_pages(k, page)
    anon: flag = PageAnon(k, page)
    source.move_lock.lock()
    if not anon and page_mapped(k, page):
        _move_stat(source, target, NR_FILE_MAPPED, nr_pages)
    mapping: AddressSpace = page_mapping(k, page)
    if not anon and mapping is not None and not PageSwapCache(k, page):
        _move_stat(source, target, NR_FILE_PAGES, nr_pages)
        if mapping.shmem:
            _move_stat(source, target, NR_SHMEM, nr_pages)
        elif k.pg_flags[page] & PG_dirty:
            _move_stat(source, target, NR_FILE_DIRTY, nr_pages)
    if k.pg_flags[page] & PG_writeback:
        _move_stat(source, target, NR_WRITEBACK, nr_pages)
    k.pg_memcg[page] = target.ident
    source.move_lock.unlock()
    page_counter_uncharge(source, nr_pages)
    unlock_page(k, page)
    return 0


def _move_stat(source: MemCgroup, target: MemCgroup, item: i32, nr_pages: i64) -> i32:
    source.stat[item] -= nr_pages
    target.stat[item] += nr_pages
    return 0
