# SPDX-License-Identifier: GPL-2.0-only
"""Fork: what a child shares with its parent, what it does not get, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kernels import Failing, make_kernel
from spaces import Space

from rmap.check import check_kernel, leftovers
from rmap.mm.bits import (
    GUP_PIN_COUNTING_BIAS,
    MADV_DONTFORK,
    MADV_WIPEONFORK,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SWAPENTS,
    NR_ANON_MAPPED,
    PAGE_SHIFT,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    VM_LOCKED,
    VM_UFFD_MISSING,
    PG_anon_exclusive,
)
from rmap.mm.content import page_read, page_write
from rmap.mm.filemap import make_file
from rmap.mm.fork import dup_mm, mm_alloc, mmput
from rmap.mm.gup import pin_user_pages, unpin_user_page
from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel, Task, Vma
from rmap.mm.page import lock_page, page_mapcount, unlock_page
from rmap.mm.pgtable import (
    pte_dirty,
    pte_lookup,
    pte_special,
    pte_to_swp_entry,
    pte_write,
    pte_young,
    set_pte_at,
    swp_entry,
    swp_entry_to_pte,
    swp_offset,
    swp_type,
)
from rmap.mm.rmap_counts import page_remove_rmap
from rmap.mm.swap_slots import swap_count, swapon
from rmap.mm.tlb import make_cpus
from rmap.sync.core import scheduler


def world(**quirks: bool) -> tuple[Kernel, Space]:
    """A kernel with one process."""
    k = make_kernel(512, **quirks)
    make_cpus(k, 1)
    return k, Space(k)


def tree_of(file: object) -> list[Vma]:
    """The VMAs of a file in the order of a walk."""
    node = interval_tree_iter_first(file.f_mapping.i_mmap, 0, 2**64 - 1)
    vmas = []
    while node is not None:
        vmas.append(node.vma)
        node = interval_tree_iter_next(node, 0, 2**64 - 1)
    return vmas


def test_a_page_is_shared_read_only_and_old_in_the_child():
    """Kernel facts, trace 8.2."""
    k, p = world()
    p.mmap(0, 4)
    p.write(0)
    x = p.pfn(0)
    c = p.fork()
    assert c.pfn(0) == x
    assert (page_mapcount(k, x), k.pg_refcount[x]) == (2, 2)
    assert not pte_write(p.pte(0))
    assert not pte_write(c.pte(0))
    assert pte_young(p.pte(0))
    assert not pte_young(c.pte(0))
    assert pte_dirty(p.pte(0))
    assert pte_dirty(c.pte(0))
    assert c.mm.rss_stat[MM_ANONPAGES] == 1
    assert c.mm.hiwater_rss == 1
    assert k.vm_stat[NR_ANON_MAPPED] == 1
    root, own = p.vma(0).anon_vma, c.vma(0).anon_vma
    assert (root.degree, root.refcount, own.degree, own.parent) == (3, 2, 1, root)
    assert check_kernel(k) == []


def test_whoever_writes_gets_a_copy_and_the_last_keeps_the_page():
    """Kernel facts, traces 8.3 and 8.4."""
    k, p = world()
    p.mmap(0, 4)
    p.write(0)
    x = p.pfn(0)
    page_write(k, x, 0, b"parent")
    c = p.fork()
    c.write(0)
    y = c.pfn(0)
    assert y != x
    assert page_read(k, y, 0, 6) == b"parent"
    p.write(0)
    assert p.pfn(0) == x
    assert k.vm_stat[NR_ANON_MAPPED] == 2
    assert check_kernel(k) == []


def test_a_page_nobody_wrote_is_the_zero_page_in_both():
    k, p = world()
    p.mmap(0, 4)
    p.write(1)
    p.read(0)
    c = p.fork()
    assert pte_special(c.pte(0))
    assert c.mm.rss_stat[MM_ANONPAGES] == 1
    assert check_kernel(k) == []


def test_nothing_is_copied_for_a_vma_without_anonymous_pages():
    k, p = world()
    file = make_file(k, "f", 16, False)
    q = Space(k)
    for space in (p, q):
        space.mmap(8, 4, shared=True, file=file)
    p.read(8)
    c = p.fork()
    assert p.pfn(8)
    assert not c.pte(8)
    assert c.mm.rss_stat[MM_FILEPAGES] == 0
    assert [vma.vm_mm for vma in tree_of(file)] == [p.mm, c.mm, q.mm], "behind the parent's"
    assert file.f_mapping.i_mmap_writable == 3
    assert file.f_count == 4
    assert check_kernel(k) == []


def test_a_private_file_mapping_with_a_copy_takes_its_file_pages_along():
    k, p = world()
    p.mmap(8, 4, file=make_file(k, "f", 16, False))
    p.read(8)
    p.write(9)
    c = p.fork()
    assert c.pfn(8) == p.pfn(8)
    assert c.pfn(9) == p.pfn(9)
    assert (c.mm.rss_stat[MM_FILEPAGES], c.mm.rss_stat[MM_ANONPAGES]) == (1, 1)


def test_the_child_does_not_get_what_is_not_for_it():
    k, p = world()
    for region in (0, 8, 16):
        p.mmap(region, 4)
        p.write(region)
    p.madvise(0, 4, MADV_DONTFORK)
    p.madvise(8, 4, MADV_WIPEONFORK)
    p.mlock(16, 4)
    p.vma(16).vm_flags |= VM_UFFD_MISSING
    c = p.fork()
    assert [vma.vm_start >> PAGE_SHIFT for vma in c.mm.vmas] == [p.at(8) >> 12, p.at(16) >> 12]
    assert c.mm.total_vm == 8
    assert c.mm.map_count == 2
    assert not c.pte(8)
    assert c.pfn(16) == p.pfn(16)
    assert not c.vma(16).vm_flags & (VM_LOCKED | VM_UFFD_MISSING)
    assert c.mm.locked_vm == 0
    p.vma(16).vm_flags ^= VM_UFFD_MISSING
    assert check_kernel(k) == []


@pytest.mark.parametrize("fixed", [False, True])
def test_a_wiped_vma_may_get_the_anon_vma_of_the_parents_neighbour(fixed):
    """In v4.18 the copy looks for one to share among the neighbours of the original."""
    _, p = world(dup_clears_neighbours=fixed)
    p.mmap(0, 8)
    p.madvise(0, 8, MADV_WIPEONFORK)
    p.mprotect(4, 4, 1)
    p.write(0)
    assert len(p.mm.vmas) == 2
    c = p.fork()
    assert (c.vma(4).anon_vma is p.vma(0).anon_vma) is not fixed
    assert c.vma(0).anon_vma is not p.vma(0).anon_vma


def test_later_kernels_prepare_nothing_for_a_wiped_vma():
    k, p = world(wipeonfork_prepares_nothing=True)
    p.mmap(0, 8)
    p.write(0)
    p.madvise(0, 8, MADV_WIPEONFORK)
    c = p.fork()
    assert c.vma(0).anon_vma is None
    assert check_kernel(k) == []


# ---------------------------------------------------------------- entries without a page


def test_a_swap_entry_is_counted_and_the_child_found_by_swapoff():
    k, p = world()
    swapon(k, 16, 0)
    p.mmap(0, 4)
    p.write(0)
    entry = to_swap(k, p, 0)
    q = Space(k)
    k.mmlist += [p.mm, q.mm]
    p.mm.on_mmlist = q.mm.on_mmlist = True
    c = p.fork()
    assert pte_to_swp_entry(c.pte(0)) == entry
    assert swap_count(k, entry) == 2
    assert c.mm.rss_stat[MM_SWAPENTS] == 1
    assert k.mmlist == [p.mm, c.mm, q.mm]
    c.exit()
    assert k.mmlist == [p.mm, q.mm]
    assert swap_count(k, entry) == 1
    assert check_kernel(k) == []


def to_swap(k: Kernel, space: Space, page: int) -> int:
    """Put a page's entry where reclaim would, with a slot of its own, and free the page."""
    area = k.swap_areas[0]
    area.swap_map[3] = 1
    area.inuse += 1
    pfn = space.pfn(page)
    entry = swp_entry(0, 3)
    replace(k, space, page, entry)
    space.mm.rss_stat[MM_SWAPENTS] += 1
    put_page(k, pfn)
    return entry


def replace(k: Kernel, space: Space, page: int, entry: int) -> None:
    """Unmap an anonymous page and leave a special entry in its place."""
    address = space.at(page)
    pfn = space.pfn(page)
    set_pte_at(k, space.mm, address, pte_lookup(k, space.mm, address), swp_entry_to_pte(entry))
    page_remove_rmap(k, pfn, False)
    space.mm.rss_stat[MM_ANONPAGES] -= 1


def test_a_page_on_its_way_elsewhere_is_waited_for_by_both_and_read_only():
    k, p = world()
    p.mmap(0, 4)
    p.write(0)
    pfn = p.pfn(0)
    replace(k, p, 0, swp_entry(SWP_MIGRATION_WRITE, pfn))
    p.mm.rss_stat[MM_ANONPAGES] += 1
    with page_locked_by_another(k, pfn):
        c = p.fork()
    for space in (p, c):
        entry = pte_to_swp_entry(space.pte(0))
        assert (swp_type(entry), swp_offset(entry)) == (SWP_MIGRATION_READ, pfn)
        assert space.mm.rss_stat[MM_ANONPAGES] == 1
    assert page_mapcount(k, pfn) == 0, "entries of migration count no mapping"
    with page_locked_by_another(k, pfn):
        c.exit()
        p.exit()
    put_page(k, pfn)
    assert leftovers(k) == []


@contextmanager
def page_locked_by_another(k: Kernel, page: int) -> Iterator[None]:
    """Let another task, which migrates it, hold the page lock."""
    sched = scheduler()
    mine, other = sched.current, Task("migration", 9, None)
    sched.current = other
    lock_page(k, page)
    sched.current = mine
    yield
    sched.current = other
    unlock_page(k, page)
    sched.current = mine


# ---------------------------------------------------------------- the end, and no memory


def test_the_last_user_takes_everything_along():
    k, p = world()
    free = k.nr_free
    p.mmap(0, 600)
    p.write(0, 8)
    c = p.fork()
    c.write(3, 4)
    g = c.fork()
    for space in (c, p, g):
        space.exit()
        assert space.mm.dead
        assert check_kernel(k) == []
    assert k.mms == []
    assert k.nr_free == free
    assert leftovers(k) == []
    assert k.warnings == []


def test_an_address_space_has_as_many_users_as_are_counted():
    _, p = world()
    p.mm.mm_users += 1
    p.mmap(0, 4)
    p.exit()
    assert not p.mm.dead
    p.exit()
    assert p.mm.dead


def test_an_address_space_that_still_counts_pages_is_warned_of():
    k, p = world()
    p.mm.rss_stat[MM_FILEPAGES] = 3
    p.exit()
    (warning,) = k.warnings
    assert warning.check == "fork.c:595 check_mm: rss counter 0 is 3, not 0"


def forest(k: Kernel) -> list[tuple[object, ...]]:
    return [
        (av.handle, av.refcount, av.degree, av.num_children, av.num_active_vmas)
        for av in k.anon_vmas[1:]
        if av.refcount
    ]


def counts(k: Kernel, p: Space) -> list[object]:
    """All that a failed fork leaves as it was; entries may have been write-protected by then."""
    return [
        forest(k),
        list(k.vm_stat)[:20],
        list(k.pg_mapcount),
        list(k.pg_refcount),
        list(p.mm.rss_stat),
        p.layout(),
        k.mms[:],
        k.mmlist[:],
        [list(area.swap_map) for area in k.swap_areas],
        [file.f_count for file in k.files],
    ]


def test_a_fork_that_finds_no_memory_leaves_everything_as_it_was():
    """Every allocation fails in turn, with all that follow it."""
    failures = 0
    while True:
        k, p = world()
        swapon(k, 16, 0)
        p.mmap(0, 8)
        p.write(0, 2)
        p.mmap(16, 4, file=make_file(k, "f", 16, False))
        p.write(16)
        p.mmap(1024, 4)
        p.write(1024)
        p.madvise(1024, 4, MADV_WIPEONFORK)
        older = p.fork()
        older.exit()
        k.mmlist.append(p.mm)
        p.mm.on_mmlist = True
        to_swap(k, p, 1)
        before = counts(k, p)
        k.inject = Failing(failures + 1)
        child = dup_mm(k, p.mm)
        k.inject = None
        if child is not None:
            break
        failures += 1
        assert counts(k, p) == before
        assert check_kernel(k) == []
        assert k.warnings == []
        p.write(0, 2)
    # mm, pgd; per VMA itself, its edges and anon_vma; tables; the count of the swap entry.
    assert failures > 12
    assert check_kernel(k) == []


def test_no_address_space_without_memory():
    k, _ = world()
    for site in ("mm", "page_table"):
        k.inject = Failing(1, site)
        assert mm_alloc(k, "x", k.memcgs[0]) is None
    k.inject = None
    mm = mm_alloc(k, "x", k.memcgs[0])
    assert mm in k.mms
    mmput(k, mm)


def test_a_swap_count_that_never_fits_ends_the_fork():
    k, p = world()
    swapon(k, 16, 0)
    p.mmap(0, 4)
    p.write(0)
    to_swap(k, p, 0)
    k.mmlist.append(p.mm)
    p.mm.on_mmlist = True
    k.inject = Failing(1, "swap_duplicate")
    assert dup_mm(k, p.mm) is None
    k.inject = None
    assert check_kernel(k) == []


# ---------------------------------------------------------------- pins


def test_v4_18_lets_a_device_lose_its_page():
    """The parent writes after the fork, and gets the copy; the device keeps the page."""
    k, p = world()
    p.mmap(0, 4)
    p.write(0)
    (page,) = pin_user_pages(k, p.mm, p.at(0), 1, True)
    c = p.fork()
    p.write(0)
    assert p.pfn(0) != page == c.pfn(0)
    unpin_user_page(k, page)
    assert check_kernel(k) == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_later_kernels_copy_a_pinned_page_for_the_child(exclusive):
    k, p = world(fork_copies_pinned=True, anon_exclusive=exclusive)
    p.mmap(0, 4)
    p.write(0, 2)
    (page,) = pin_user_pages(k, p.mm, p.at(0), 1, True)
    page_write(k, page, 0, b"by device")
    assert k.pg_refcount[page] == GUP_PIN_COUNTING_BIAS + 1
    c = p.fork()
    assert c.pfn(0) != page
    assert page_read(k, c.pfn(0), 0, 9) == b"by device"
    assert pte_write(p.pte(0))
    assert pte_write(c.pte(0))
    assert c.pfn(1) == p.pfn(1)
    assert c.mm.rss_stat[MM_ANONPAGES] == 2
    p.write(0)
    assert p.pfn(0) == page
    unpin_user_page(k, page)
    assert check_kernel(k) == []


def test_without_memory_for_the_copy_of_a_pinned_page_fork_fails():
    k, p = world(fork_copies_pinned=True, anon_exclusive=True)
    p.mmap(0, 4)
    p.write(0, 2)
    (page,) = pin_user_pages(k, p.mm, p.at(0), 1, True)
    k.inject = Failing(1, "page")
    assert dup_mm(k, p.mm) is None
    k.inject = None
    assert p.pfn(0) == page
    unpin_user_page(k, page)
    assert check_kernel(k) == []


def test_sharing_takes_exclusiveness_away():
    k, p = world(fork_copies_pinned=True, anon_exclusive=True)
    p.mmap(0, 4)
    p.write(0)
    x = p.pfn(0)
    assert k.pg_flags[x] & PG_anon_exclusive
    p.fork()
    assert not k.pg_flags[x] & PG_anon_exclusive
