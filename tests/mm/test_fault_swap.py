# SPDX-License-Identifier: GPL-2.0-only
"""Coming back from swap: who gets the page, who gets a copy, and what is looked at twice."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.mm.fault_swap import ksm_might_need_to_copy
from rmap.mm.memory import wait_on_page_locked
from rmap.mm.migrate.entries import migration_entry_wait
from rmap.mm.page import PageSwapCache, lock_page, unlock_page
from rmap.mm.pgtable import is_swap_pte, pte_lookup, pte_to_swp_entry, swp_entry, swp_entry_to_pte
from rmap.mm.swap_slots import swap_count
from rmap.model import BusError, OutOfMemory, Process
from rmap.sync.core import Deadlock


def swapped(f: Faulting, p: Process, address: int) -> int:
    """The swap entry of an address, which must be one."""
    pte = f.pte(p, address)
    assert is_swap_pte(pte)
    return int(pte_to_swp_entry(pte))


def shared_in_swap(f: Faulting) -> tuple[int, Process, int]:
    """A page of parent and child, in swap and nowhere else: its address, the child, its entry."""
    a = f.map(1)
    f.p.write(a, b"shared")
    child = f.p.fork()
    f.p.madvise(a, PAGE, "pageout")
    entry = swapped(f, f.p, a)
    assert swapped(f, child, a) == entry
    assert swap_count(f.k, entry) == 2
    assert f.rss(f.p) == f.rss(child) == (0, 0, 1, 0)
    assert f.stat("NR_SWAPCACHE") == 0
    return a, child, entry


def test_what_was_written_is_what_comes_back() -> None:
    f = Faulting()
    a = f.map(8)
    for n in range(8):
        f.p.write(a + n * PAGE + n, bytes([n + 1]))
    f.p.madvise(a, 8 * PAGE, "pageout")
    assert f.rss(f.p) == (0, 0, 8, 0)
    assert [f.p.read(a + n * PAGE + n, 2) for n in range(8)] == [
        bytes([n + 1, 0]) for n in range(8)
    ]
    assert f.rss(f.p) == (0, 8, 0, 0)
    assert f.stat("PGMAJFAULT") == 8
    assert f.sound()


def test_a_shared_page_that_is_read_names_the_root() -> None:
    f = Faulting()
    a, child, entry = shared_in_swap(f)
    assert child.read(a, 6) == b"shared"
    page = f.page(child, a)
    # The parent may map it as well, some day.
    assert f.named(page) is f.p.vmas[0].anon_vma
    assert f.k.pg_index[page] == f.p.vmas[0].vm_pgoff
    assert f.counts(page) == (1, 2)  # the entry's reference and the swap cache's
    assert PageSwapCache(f.k, page)
    assert f.told(child, a) == READ
    assert swap_count(f.k, entry) == 1
    assert f.rss(child) == (0, 1, 0, 0)
    assert f.p.read(a, 6) == b"shared"
    assert f.page(f.p, a) == page
    assert f.counts(page) == (2, 3)
    assert swap_count(f.k, entry) == 0
    assert f.stat("PGMAJFAULT") == 1
    assert f.sound()


def test_a_shared_page_that_is_written_to_is_copied() -> None:
    f = Faulting()
    a, child, entry = shared_in_swap(f)
    child.write(a, b"S")
    copy = f.page(child, a)
    assert f.named(copy) is child.vmas[0].anon_vma
    assert f.told(child, a) == WRITE
    assert swap_count(f.k, entry) == 1
    # What was read stays in the swap cache for the parent, mapped by nobody.
    (cached,) = [int(page) for page in f.k.swap_areas[0].cache if page]
    assert f.counts(cached) == (0, 1)
    assert (child.read(a, 6), f.p.read(a, 6)) == (b"Shared", b"shared")
    assert f.page(f.p, a) == cached
    assert f.sound()


def test_the_only_user_gets_the_page_for_itself_and_the_slot_is_free() -> None:
    f = Faulting()
    a, child, entry = shared_in_swap(f)
    f.p.exit()
    child.write(a, b"S")
    page = f.page(child, a)
    assert f.named(page) is child.vmas[0].anon_vma
    assert f.counts(page) == (1, 1)
    assert not PageSwapCache(f.k, page)
    assert f.flags(page, bits.PG_dirty)
    assert f.told(child, a) == WRITE
    assert swap_count(f.k, entry) == 0
    assert f.k.swap_areas[0].inuse == 0
    assert child.read(a, 6) == b"Shared"
    assert f.sound()


def test_a_page_that_still_is_in_the_swap_cache_needs_no_reading() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"here")
    page = f.page(f.p, a)
    f.k.pt[pte_lookup(f.k, f.p.mm, a)] &= ~bits._PAGE_ACCESSED
    assert f.m.try_to_unmap(page)
    assert f.counts(page) == (0, 1)
    assert f.p.read(a, 4) == b"here"
    assert f.page(f.p, a) == page
    assert f.counts(page) == (1, 2)
    assert f.stat("PGMAJFAULT") == 0
    # A write takes it out of the swap cache, as nobody else can have it.
    f.p.write(a, b"H")
    assert f.page(f.p, a) == page
    assert f.counts(page) == (1, 1)
    assert f.sound()


def test_an_mlocked_area_gives_the_slot_back_at_once() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"locked")
    f.p.madvise(a, PAGE, "pageout")
    entry = swapped(f, f.p, a)
    f.p.mlock(a, PAGE)
    page = f.page(f.p, a)
    assert not PageSwapCache(f.k, page)
    assert swap_count(f.k, entry) == 0
    assert f.flags(page, bits.PG_mlocked | bits.PG_unevictable)
    assert f.p.read(a, 6) == b"locked"
    assert f.sound()


def test_a_synchronous_device_is_read_past_the_swap_cache() -> None:
    f = Faulting()
    f.k.swap_areas[0].synchronous = True
    a, child, _ = shared_in_swap(f)
    child.read(a, 1)
    assert PageSwapCache(f.k, f.page(child, a))
    child.exit()
    f.p.read(a, 1)
    f.p.madvise(a, PAGE, "pageout")
    f.p.write(a, b"S")
    page = f.page(f.p, a)
    assert not PageSwapCache(f.k, page)
    assert f.counts(page) == (1, 1)
    assert f.named(page) is f.p.vmas[0].anon_vma
    assert f.p.read(a, 6) == b"Shared"
    assert f.k.swap_areas[0].inuse == 0
    assert f.sound()


def test_soft_dirty_survives_swap() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    assert f.pte(f.p, a) & bits._PAGE_SOFT_DIRTY
    f.p.madvise(a, PAGE, "pageout")
    assert f.pte(f.p, a) & bits._PAGE_SWP_SOFT_DIRTY
    f.p.read(a, 1)
    assert f.pte(f.p, a) & bits._PAGE_SOFT_DIRTY


@pytest.mark.parametrize("site", ["page", "memcg_charge", "swap_cache"])
def test_without_memory_the_entry_stays_what_it_was(site: str) -> None:
    f = Faulting()
    a, child, entry = shared_in_swap(f)
    f.k.inject = Failing(1, site)
    for write in (False, True):
        with pytest.raises(OutOfMemory):
            child.touch(a, PAGE, write)
        assert swapped(f, child, a) == entry
        assert f.sound()
    f.k.inject = None
    assert child.read(a, 6) == f.p.read(a, 6) == b"shared"
    assert f.sound()


def test_an_unreadable_page_is_a_bus_error() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.k.pt[pte_lookup(f.k, f.p.mm, a)] &= ~bits._PAGE_ACCESSED
    f.m.try_to_unmap(page)
    f.k.pg_flags[page] &= ~bits.PG_uptodate
    with pytest.raises(BusError):
        f.p.read(a, 1)
    assert f.counts(page) == (0, 1)
    f.k.pg_flags[page] |= bits.PG_uptodate
    assert f.p.read(a, 1) == b"x"
    assert f.sound()


def test_entries_of_other_kinds() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    pte, page = f.pte(f.p, a), f.page(f.p, a)
    f.p.cpu = 1
    f.set_pte(f.p, a, swp_entry_to_pte(swp_entry(bits.SWP_HWPOISON, page)))
    with pytest.raises(BusError):
        f.p.read(a, 1)
    f.set_pte(f.p, a, pte)
    # A page that is being moved is waited for; unlocked, it has arrived.
    moving = swp_entry_to_pte(swp_entry(bits.SWP_MIGRATION_READ, page))
    at = pte_lookup(f.k, f.p.mm, a)
    migration_entry_wait(f.k, at)
    f.set_pte(f.p, a, moving)
    lock_page(f.k, page)
    with pytest.raises(Deadlock, match="PG_locked"):
        migration_entry_wait(f.k, at)
    unlock_page(f.k, page)
    wait_on_page_locked(f.k, page)
    # The wait that nobody ended has kept its reference.
    assert f.counts(page) == (1, 2)
    f.k.pg_refcount[page] -= 1
    f.set_pte(f.p, a, pte)
    assert f.sound()


def test_a_page_that_names_another_family_is_copied_for_this_one() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"content")
    page = f.page(f.p, a)
    (vma,) = f.p.vmas
    assert ksm_might_need_to_copy(f.k, page, vma, a) == page
    # At another index, or in another family, rmap would look for it in the wrong place.
    copies = [ksm_might_need_to_copy(f.k, page, vma, a + PAGE)]
    other = f.m.spawn("other")
    b = other.mmap(PAGE, addr=ARENA)
    other.write(b, b"x")
    copies.append(ksm_might_need_to_copy(f.k, page, other.vmas[0], b))
    assert page not in copies
    for copy in copies:
        assert f.k.content[copy] == b"content"
        assert f.flags(copy, bits.PG_locked | bits.PG_dirty | bits.PG_uptodate)
        assert f.counts(copy) == (0, 1)
        unlock_page(f.k, copy)


# ---------------------------------------------------------------- since pages are exclusive


def test_an_exclusive_page_stays_exclusive_through_swap() -> None:
    f = Faulting(anon_exclusive=True)
    a = f.map(2)
    f.p.write(a, b"one")
    f.p.write(a + PAGE, b"two")
    f.p.madvise(a, 2 * PAGE, "pageout")
    assert f.pte(f.p, a) & bits._PAGE_SWP_EXCLUSIVE
    f.p.read(a, 1)
    f.p.write(a + PAGE, b"T")
    for address, told in ((a, READ), (a + PAGE, WRITE)):
        page = f.page(f.p, address)
        assert f.flags(page, bits.PG_anon_exclusive)
        assert f.named(page) is f.p.vmas[0].anon_vma
        assert f.told(f.p, address) == told
    assert (f.p.read(a, 3), f.p.read(a + PAGE, 3)) == (b"one", b"Two")
    assert f.sound()


def test_a_shared_page_is_exclusive_again_when_only_one_reference_is_left() -> None:
    f = Faulting(anon_exclusive=True)
    a, child, _ = shared_in_swap(f)
    assert not f.pte(f.p, a) & bits._PAGE_SWP_EXCLUSIVE
    child.read(a, 1)
    page = f.page(child, a)
    assert not f.flags(page, bits.PG_anon_exclusive)
    f.p.exit()
    child.write(a, b"S")
    assert f.page(child, a) == page
    assert f.flags(page, bits.PG_anon_exclusive)
    assert child.read(a, 6) == b"Shared"
    assert f.sound()
