# SPDX-License-Identifier: GPL-2.0-only
"""Memory cgroups: limits of a tree, whose memory a swap slot holds, charges that move."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import Failing, make_kernel
from pressure import Process, lists_are_sound, locked_elsewhere, machine, squeeze

from rmap.mm.bits import (
    EBUSY,
    EINVAL,
    ENOMEM,
    GFP_KERNEL,
    GFP_NOWAIT,
    MADV_PAGEOUT,
    MAPPING_HANDLE_SHIFT,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_SHMEM,
    VM_FAULT_OOM,
    PG_swapbacked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.filemap import make_file
from rmap.mm.lru import isolate_lru_page, lru_cache_add, put_page, putback_lru_page
from rmap.mm.memcg import (
    lock_page_memcg,
    mem_cgroup_create,
    mem_cgroup_is_descendant,
    mem_cgroup_move_account,
    mem_cgroup_try_charge,
    mem_cgroup_uncharge,
    memory_max_write,
    page_counter_uncharge,
    try_charge,
    unlock_page_memcg,
)
from rmap.mm.memcg_move import mem_cgroup_move_task
from rmap.mm.mm_types import Kernel, MemCgroup, Reclaimer
from rmap.mm.page import lock_page, mod_lruvec_page_state, unlock_page
from rmap.mm.page_alloc import alloc_page
from rmap.sync.bits import RANK_MEMCG_MOVE, WRITE_MODE
from rmap.sync.core import LockViolation, assert_held, scheduler


def charged(k: Kernel, memcg: MemCgroup) -> int:
    """Pages that say that they are a cgroup's or one's below it: what `usage` must be."""
    idents = [m.ident for m in k.memcgs if mem_cgroup_is_descendant(m, memcg)]
    return int(np.isin(np.asarray(k.pg_memcg), idents).sum())


def test_a_charge_counts_in_the_whole_branch() -> None:
    k = make_kernel()
    root = k.memcgs[0]
    jobs = mem_cgroup_create(k, "jobs", root, -1)
    job = mem_cgroup_create(k, "jobs/1", jobs, -1)
    other = mem_cgroup_create(k, "other", root, -1)
    page = alloc_page(k, GFP_KERNEL)
    assert mem_cgroup_try_charge(k, page, job, GFP_KERNEL) == 0
    assert [m.usage for m in (root, jobs, job, other)] == [0, 1, 1, 0]
    assert k.pg_memcg[page] == job.ident
    mem_cgroup_uncharge(k, page)
    mem_cgroup_uncharge(k, page)
    assert [m.usage for m in (root, jobs, job, other)] == [0, 0, 0, 0]
    assert mem_cgroup_try_charge(k, page, root, GFP_KERNEL) == 0
    put_page(k, page)
    assert mem_cgroup_is_descendant(job, jobs)
    assert mem_cgroup_is_descendant(job, root)
    assert not mem_cgroup_is_descendant(jobs, job)


def test_freeing_a_page_uncharges_it() -> None:
    k = make_kernel()
    job = mem_cgroup_create(k, "job", k.memcgs[0], -1)
    page = alloc_page(k, GFP_KERNEL)
    mem_cgroup_try_charge(k, page, job, GFP_KERNEL)
    lru_cache_add(k, page)
    with pytest.raises(KernelBug, match="on an LRU list"):
        mem_cgroup_uncharge(k, page)
    assert job.lruvec.size[2] == 1
    put_page(k, page)
    assert job.usage == 0
    lists_are_sound(k)
    with pytest.raises(KernelBug, match="more pages are uncharged"):
        page_counter_uncharge(job, 1)


def test_a_limit_holds_for_all_below() -> None:
    k = make_kernel()
    jobs = mem_cgroup_create(k, "jobs", k.memcgs[0], 3)
    one = mem_cgroup_create(k, "jobs/1", jobs, -1)
    two = mem_cgroup_create(k, "jobs/2", jobs, 2)
    assert try_charge(k, two, GFP_KERNEL, 2) == 0
    assert try_charge(k, two, GFP_KERNEL, 1) == -ENOMEM
    assert try_charge(k, one, GFP_KERNEL, 1) == 0
    assert try_charge(k, one, GFP_KERNEL, 1) == -ENOMEM
    assert (jobs.usage, one.usage, two.usage) == (3, 1, 2)
    # What reclaim itself needs is charged past the limit.
    k.in_reclaim = True
    assert try_charge(k, one, GFP_KERNEL, 1) == 0
    assert jobs.usage == 4


class Giver(Reclaimer):
    """Reclaim that lowers the usage of whatever cgroup it is called for, a few times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked: list[MemCgroup | None] = []

    def try_to_free_pages(self, k: Kernel, memcg: MemCgroup | None, wanted: int) -> int:
        self.asked.append(memcg)
        if memcg is None or self.times == 0:
            return 0
        self.times -= 1
        page_counter_uncharge(memcg, 1)
        return 1


def test_a_charge_above_a_limit_reclaims_from_where_the_limit_is() -> None:
    k = make_kernel()
    jobs = mem_cgroup_create(k, "jobs", k.memcgs[0], 4)
    one = mem_cgroup_create(k, "jobs/1", jobs, -1)
    assert try_charge(k, jobs, GFP_KERNEL, 4) == 0
    giver = Giver(1)
    k.reclaimer = giver
    assert try_charge(k, one, GFP_NOWAIT, 1) == -ENOMEM
    assert giver.asked == []
    assert try_charge(k, one, GFP_KERNEL, 1) == 0
    assert giver.asked == [jobs]
    assert try_charge(k, one, GFP_KERNEL, 1) == -ENOMEM
    assert len(giver.asked) == 1 + 6
    giver.times = 1
    memory_max_write(k, jobs, 2)
    # One page came back, the other not: the limit holds all the same.
    assert (jobs.limit, jobs.usage) == (2, 3)
    giver.times = 9
    memory_max_write(k, jobs, 1)
    assert (jobs.limit, jobs.usage, giver.times) == (1, 1, 7)


def test_a_charge_can_be_made_to_fail() -> None:
    k = make_kernel()
    k.inject = Failing(1, "memcg_charge")
    page = alloc_page(k, GFP_KERNEL)
    assert mem_cgroup_try_charge(k, page, k.memcgs[0], GFP_KERNEL) == -ENOMEM


# ---------------------------------------------------------------- with processes


def test_a_process_lives_within_its_limit_by_swapping() -> None:
    k = machine()
    job = mem_cgroup_create(k, "job", k.memcgs[0], 16)
    outside = Process(k)
    outside.mmap(0, 8)
    outside.fill(0, 8)
    p = Process(k, memcg=job)
    p.mmap(0, 64)
    p.fill(0, 64)
    assert job.usage <= 16
    assert job.usage == charged(k, job)
    assert p.swapped(0, 64) >= 48
    # Others are not touched.
    assert outside.present(0, 8) == 8
    p.check()
    assert job.usage <= 16
    p.exit()
    assert job.usage == charged(k, job) == 0
    assert not any(k.swap_areas[0].swap_cgroup)
    lists_are_sound(k)


def test_without_swap_a_limit_is_out_of_memory() -> None:
    k = machine(swap=0)
    job = mem_cgroup_create(k, "job", k.memcgs[0], 16)
    p = Process(k, memcg=job)
    p.mmap(0, 32)
    p.write(0, 16)
    assert p.fault(16, True) & VM_FAULT_OOM
    assert job.usage == 16
    p.exit()
    assert k.nr_free == k.nr_pages - 1


def test_a_page_from_swap_is_charged_to_whom_it_belonged() -> None:
    k = machine()
    root = k.memcgs[0]
    one = mem_cgroup_create(k, "one", root, -1)
    two = mem_cgroup_create(k, "two", root, -1)
    p = Process(k, memcg=one)
    p.mmap(0, 4)
    p.fill(0, 4)
    child = p.split()
    child.mm.memcg = two
    squeeze(k)
    assert p.swapped(0, 4) == child.swapped(0, 4) == 4
    assert one.usage == 0
    # The child reads it, but it is the memory of one.
    child.check()
    assert (one.usage, two.usage) == (4, 0)
    assert (charged(k, one), charged(k, two)) == (4, 0)
    p.check()
    assert one.usage == 4
    # A copy is its own.
    child.store(0, b"mine")
    assert two.usage == 1
    lists_are_sound(k)


def test_reclaim_of_a_cgroup_takes_its_pages_and_those_below() -> None:
    k = machine()
    jobs = mem_cgroup_create(k, "jobs", k.memcgs[0], -1)
    groups = [mem_cgroup_create(k, f"jobs/{i}", jobs, -1) for i in range(2)]
    groups.append(mem_cgroup_create(k, "other", k.memcgs[0], -1))
    processes = [Process(k, memcg=group) for group in groups]
    for p in processes:
        p.mmap(0, 8)
        p.fill(0, 8)
    assert jobs.usage == 16
    assert squeeze(k, jobs) == 16
    assert [p.present(0, 8) for p in processes] == [0, 0, 8]
    assert (jobs.usage, groups[2].usage) == (0, 8)


# ---------------------------------------------------------------- statistics and moving


def test_the_lock_of_statistics_is_taken_only_while_charges_move() -> None:
    k = make_kernel()
    job = mem_cgroup_create(k, "job", k.memcgs[0], -1)
    page = alloc_page(k, GFP_KERNEL)
    mem_cgroup_try_charge(k, page, job, GFP_KERNEL)
    lock_page_memcg(k, page)
    assert not job.move_lock.locked
    assert scheduler().current.rcu_depth == 1
    unlock_page_memcg(k, page)
    job.moving_account = 1
    lock_page_memcg(k, page)
    assert_held(RANK_MEMCG_MOVE, job.ident, WRITE_MODE)
    unlock_page_memcg(k, page)
    with pytest.raises(LockViolation):
        assert_held(RANK_MEMCG_MOVE, job.ident, WRITE_MODE)
    assert scheduler().current.rcu_depth == 0


def test_a_moved_charge_takes_its_statistics_along() -> None:
    k = make_kernel()
    one = mem_cgroup_create(k, "one", k.memcgs[0], -1)
    two = mem_cgroup_create(k, "two", k.memcgs[0], -1)
    file = make_file(k, "f", 4, True)
    page = alloc_page(k, GFP_KERNEL)
    k.pg_flags[page] |= PG_swapbacked
    mem_cgroup_try_charge(k, page, one, GFP_KERNEL)
    k.pg_mapping[page] = file.f_mapping.handle << MAPPING_HANDLE_SHIFT
    k.pg_mapcount[page] = 0
    for item in (NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM):
        mod_lruvec_page_state(k, page, item, 1)
    lru_cache_add(k, page)
    with pytest.raises(KernelBug, match="LRU list moves"):
        mem_cgroup_move_account(k, page, one, two)
    isolate_lru_page(k, page)
    assert mem_cgroup_move_account(k, page, two, one) == -EINVAL
    lock_page(k, page)
    assert mem_cgroup_move_account(k, page, one, two) == -EBUSY
    unlock_page(k, page)
    try_charge(k, two, GFP_KERNEL, 1)
    assert mem_cgroup_move_account(k, page, one, two) == 0
    putback_lru_page(k, page)
    assert (one.usage, two.usage, k.pg_memcg[page]) == (0, 1, two.ident)
    for item in (NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM):
        assert (one.stat[item], two.stat[item], k.vm_stat[item]) == (0, 1, 1)
    lists_are_sound(k)


def test_a_process_takes_its_charges_along() -> None:
    k = machine()
    root = k.memcgs[0]
    one = mem_cgroup_create(k, "one", root, -1)
    two = mem_cgroup_create(k, "two", root, -1)
    p = Process(k, memcg=one)
    p.mmap(0, 8)
    p.fill(0, 8)
    p.mmap(8, 4, shared=True)
    p.fill(8, 4)
    p.madvise(0, 3, MADV_PAGEOUT)
    assert p.swapped(0, 8) == 3
    assert one.usage == 9
    assert mem_cgroup_move_task(k, p.mm, two) == 9
    assert (one.usage, two.usage) == (0, 9)
    assert (charged(k, one), charged(k, two)) == (0, 9)
    assert one.moving_account == 0
    # What is in swap will be charged to the new one, too.
    p.check()
    assert (one.usage, two.usage) == (0, 12)
    for item in (NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM):
        assert one.stat[item] == 0
        assert two.stat[item] == 4
    lists_are_sound(k)


def test_a_process_that_does_not_fit_stays() -> None:
    k = machine(swap=0)
    one = mem_cgroup_create(k, "one", k.memcgs[0], -1)
    two = mem_cgroup_create(k, "two", k.memcgs[0], 4)
    p = Process(k, memcg=one)
    p.mmap(0, 8)
    p.fill(0, 8)
    assert mem_cgroup_move_task(k, p.mm, two) == -ENOMEM
    assert p.mm.memcg is one
    assert (one.usage, two.usage) == (8, 0)
    assert mem_cgroup_move_task(k, p.mm, one) == 0
    # A page that somebody has locked is left behind.
    two.limit = -1
    with locked_elsewhere(k, p.pfn(0)):
        assert mem_cgroup_move_task(k, p.mm, two) == 7
    assert (one.usage, two.usage) == (1, 7)
    lists_are_sound(k)
