# SPDX-License-Identifier: GPL-2.0-only
"""Anonymous memory: first accesses, the zero page, copy on write and reuse."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.mm.mm_types import Kernel, Mm
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import lock_page, page_mapcount, unlock_page
from rmap.mm.profile import PROFILES
from rmap.model import OutOfMemory, Segfault
from rmap.sync.core import Deadlock, scheduler


def test_the_first_write_makes_a_page_that_names_the_vmas_anon_vma() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.write(a + PAGE, b"first")
    page = f.page(f.p, a + PAGE)
    (vma,) = f.p.vmas
    assert f.named(page) is vma.anon_vma
    assert f.k.pg_index[page] == vma.vm_pgoff + 1
    assert f.counts(page) == (1, 1)
    assert f.flags(page, bits.PG_swapbacked | bits.PG_active | bits.PG_lru | bits.PG_uptodate)
    assert f.told(f.p, a + PAGE) == WRITE
    assert f.rss(f.p) == (0, 1, 0, 0)
    assert f.stat("NR_ANON_MAPPED") == 1
    assert f.p.read(a, 3 * PAGE) == bytes(PAGE) + b"first".ljust(PAGE, b"\0") + bytes(PAGE)
    assert f.sound()


def test_a_first_read_maps_the_zero_page_and_nothing_counts_it() -> None:
    f = Faulting()
    a = f.map(3)
    assert f.p.read(a, 2 * PAGE) == bytes(2 * PAGE)
    assert f.k.zero_page
    assert f.page(f.p, a) == f.page(f.p, a + PAGE) == f.k.zero_page
    assert f.told(f.p, a) == READ | bits._PAGE_SPECIAL
    assert f.p.vmas[0].anon_vma is None
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert f.counts(f.k.zero_page) == (0, 1)
    assert f.stat("NR_ANON_MAPPED") == 0
    assert f.sound()


def test_a_write_to_the_zero_page_gets_a_page_of_its_own_and_copies_nothing() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.read(a, 2 * PAGE)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    assert page != f.k.zero_page
    assert f.told(f.p, a) == WRITE
    assert f.rss(f.p) == (0, 1, 0, 0)
    assert f.stat("COW_COPIES") == 0
    # The other page still is everybody's zeros.
    assert f.p.read(a + PAGE, 1) == b"\0"
    assert f.counts(f.k.zero_page) == (0, 1)
    assert f.sound()


def test_a_child_that_writes_gets_a_copy_and_the_parent_then_keeps_the_page() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"shared")
    page = f.page(f.p, a)
    child = f.p.fork()
    # Both may only read now, and the child has not used its entry yet.
    assert f.told(f.p, a) == WRITE & ~bits._PAGE_RW
    assert f.told(child, a) == bits._PAGE_PRESENT | bits._PAGE_DIRTY
    assert f.counts(page) == (2, 2)
    child.write(a + 2, b"CHILD")
    copy = f.page(child, a)
    assert copy != page
    assert f.named(copy) is child.vmas[0].anon_vma
    assert f.named(copy).parent is f.p.vmas[0].anon_vma
    assert f.counts(page) == f.counts(copy) == (1, 1)
    assert f.stat("NR_ANON_MAPPED") == 2
    assert f.stat("COW_COPIES") == 1
    f.p.write(a, b"P")
    assert f.page(f.p, a) == page
    assert f.stat("COW_COPIES") == 1
    assert (f.p.read(a, 7), child.read(a, 7)) == (b"Phared\0", b"shCHILD")
    assert f.sound()


def test_the_last_sharer_takes_the_page_over_with_its_own_anon_vma() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"heirloom")
    page = f.page(f.p, a)
    root = f.named(page)
    child = f.p.fork()
    f.p.exit()
    assert f.named(page) is root
    child.write(a, b"H")
    assert f.page(child, a) == page
    assert f.named(page) is child.vmas[0].anon_vma
    assert f.named(page) is not root
    assert child.read(a, 8) == b"Heirloom"
    assert f.sound()


class Watch(MmuNotifier):
    """Notes how often a page was mapped, and what its entry was, when the flush was announced."""

    def __init__(self, f: Faulting, page: int) -> None:
        super().__init__()
        self.f = f
        self.page = page
        self.seen: list[tuple[int, int]] = []

    def invalidate_range(self, k: Kernel, mm: Mm, start: int, end: int) -> int:
        p = next(p for p in self.f.m.processes.values() if p.mm is mm)
        self.seen.append((page_mapcount(k, self.page), self.f.pte(p, start)))
        return 0


def test_the_old_entry_is_flushed_before_the_old_page_loses_its_mapping() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    child = f.p.fork()
    watch = Watch(f, page)
    mmu_notifier_register(f.k, child.mm, watch)
    child.write(a, b"y")
    # At the flush the entry is empty, and the page still counts both: the parent cannot yet
    # believe that it is alone.
    assert watch.seen == [(2, 0)]
    assert page_mapcount(f.k, page) == 1


def test_secondary_mmus_hear_of_a_copy_in_this_order() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    child = f.p.fork()
    f.k.notifier_log = []
    child.write(a, b"y")
    copied = f.pte(child, a)
    # The processor has set the bits of the store since; the fault set the entry so already.
    assert f.k.notifier_log == [
        ("invalidate_range_start", child.mm.ident, a, a + PAGE),
        ("invalidate_range", child.mm.ident, a, a + PAGE),
        ("change_pte", child.mm.ident, a, copied),
        ("invalidate_range_only_end", child.mm.ident, a, a + PAGE),
    ]


def test_a_pinned_page_is_reused_in_v4_18() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"before")
    page = f.page(f.p, a)
    child = f.p.fork()
    with f.p.pin(a, PAGE):
        child.exit()
        f.p.write(a, b"after")
        assert f.page(f.p, a) == page
    assert f.sound()


def test_since_pages_are_exclusive_a_pin_prevents_reuse_by_others_only() -> None:
    f = Faulting(anon_exclusive=True)
    a = f.map(2)
    f.p.write(a, b"one")
    f.p.write(a + PAGE, b"two")
    first, second = f.p.pages(a, 2 * PAGE)
    assert f.flags(first, bits.PG_anon_exclusive)
    child = f.p.fork()
    assert not f.flags(first, bits.PG_anon_exclusive)
    with f.p.pin(a, PAGE):
        child.exit()
        # Nobody else maps either page. But the first one's second reference could be anybody's.
        f.p.write(a, b"ONE")
        f.p.write(a + PAGE, b"TWO")
        assert f.page(f.p, a) != first
        assert f.page(f.p, a + PAGE) == second
    assert f.flags(f.page(f.p, a), bits.PG_anon_exclusive)
    assert f.flags(second, bits.PG_anon_exclusive)
    assert f.sound()


def test_a_page_that_is_exclusive_is_reused_though_others_hold_references() -> None:
    f = Faulting(anon_exclusive=True)
    a = f.map(1)
    f.p.write(a, b"mine")
    page = f.page(f.p, a)
    f.p.mprotect(a, PAGE, "r")
    with f.p.pin(a, PAGE):
        f.p.mprotect(a, PAGE, "rw")
        f.set_pte(f.p, a, f.pte(f.p, a) & ~bits._PAGE_RW)
        f.p.write(a, b"M")
        assert f.page(f.p, a) == page
    assert f.sound()


def test_whoever_has_a_page_locked_is_waited_for_before_it_is_reused() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.p.fork().exit()
    lock_page(f.k, page)
    # Alone on the machine, nobody would unlock it.
    with pytest.raises(Deadlock, match="PG_locked"):
        f.p.write(a, b"y")
    # The kernel still sleeps there, with mmap_sem; let the test go on without it.
    f.p.task.held.clear()
    f.p.mm.mmap_sem.count = 0
    unlock_page(f.k, page)


def test_what_a_vma_does_not_permit_is_a_segfault_and_changes_nothing() -> None:
    f = Faulting()
    a = f.map(2, prot="r")
    none = f.p.mmap(PAGE, prot="none")
    for address, write in ((a, True), (none, False), (none, True), (a - PAGE, False)):
        with pytest.raises(Segfault) as caught:
            f.p.touch(address, 1, write)
        assert (caught.value.address, caught.value.write) == (address, write)
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert f.p.read(a, 1) == b"\0"
    assert f.sound()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_stack_grows_when_it_is_touched_below_its_end(profile: str) -> None:
    f = Faulting(base=profile)
    top = ARENA + 512 * PAGE
    stack = f.p.mmap(2 * PAGE, addr=top, growsdown=True)
    f.p.write(stack, b"top")
    f.p.write(stack - 3 * PAGE + 7, b"deep")
    (vma,) = f.p.vmas
    assert (vma.vm_start, vma.vm_end) == (stack - 3 * PAGE, stack + 2 * PAGE)
    assert f.p.read(stack, 3) == b"top"
    assert f.p.read(stack - 3 * PAGE + 7, 4) == b"deep"
    assert f.sound()


def test_without_memory_a_fault_leaves_everything_as_it_was() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.write(a, b"x")
    child = f.p.fork()
    f.p.read(a + PAGE, 1)
    for site in ("page", "anon_vma", "anon_vma_chain", "page_table", "memcg_charge"):
        for address in (a, a + PAGE, a + 2 * PAGE):
            f.k.inject = Failing(1, site)
            before = (f.rss(child), f.k.nr_free, f.pte(child, address))
            failed_at = 0
            try:
                child.touch(address, PAGE)
            except OutOfMemory as error:
                failed_at = error.address
            # What was not asked for could not fail.
            assert failed_at == (address if f.k.inject.asked else 0)
            if failed_at:
                after = (f.rss(child), f.k.nr_free, f.pte(child, address))
                assert after == before, site
            f.k.inject = None
            assert f.sound()
    child.write(a, b"y")
    assert (f.p.read(a, 1), child.read(a, 1)) == (b"x", b"y")


def test_a_cgroup_at_its_limit_gets_no_more_pages() -> None:
    f = Faulting(swap=0)
    group = f.m.cgroup("small", 3)
    p = f.m.spawn("greedy", group)
    a = p.mmap(8 * PAGE)
    with pytest.raises(OutOfMemory) as caught:
        p.touch(a, 8 * PAGE)
    assert caught.value.address == a + 3 * PAGE
    assert group.usage == 3
    p.exit()
    assert group.usage == 0
    assert f.sound()


def test_an_entry_that_numa_balancing_has_made_inaccessible_is_made_accessible_again() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"here")
    pte = f.pte(f.p, a)
    hidden = pte & ~(bits._PAGE_PRESENT | bits._PAGE_RW) | bits._PAGE_PROTNONE
    f.p.cpu = 1
    f.set_pte(f.p, a, hidden)
    assert f.p.read(a, 4) == b"here"
    assert f.told(f.p, a) == WRITE & ~bits._PAGE_RW
    f.p.write(a, b"H")
    assert f.pte(f.p, a) == pte
    assert f.p.read(a, 4) == b"Here"


def test_a_fault_holds_mmap_sem_and_no_lock_is_left_when_it_ends() -> None:
    f = Faulting()
    a = f.map(1)
    held: list[list[object]] = []

    def look(name: str, arguments: tuple[object, ...]) -> None:
        if name == "do_anonymous_page":
            held.append(list(scheduler().current.held))

    f.k.tracer = look
    f.p.write(a, b"x")
    assert [[rank for rank, _, _ in locks] for locks in held] == [[2]]
    assert f.p.task.held == []
