# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged: small pages of anonymous memory become a huge one, or stay what they are."""

from __future__ import annotations

import pytest
from hugely import AT, HUGE, NR, PAGE, Hugely, mark, marks

from rmap.mm import bits
from rmap.mm.access import cpu_access
from rmap.mm.huge.khugepaged import Round, khugepaged_scan_mm_slot
from rmap.mm.lru import isolate_lru_page, putback_lru_page
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import PageLRU, lock_page, page_mapcount, unlock_page
from rmap.model import SyscallError

ALL = [mark(i) for i in range(NR)]


def wanted(f: Hugely, pages: int | None = None) -> int:
    """Memory of small pages that asks to be huge."""
    a = f.map(1, pages)
    f.p.madvise(a, HUGE, "hugepage")
    return a


# ---------------------------------------------------------------- it works


@pytest.mark.parametrize("name", ["4.18", "6.1", "6.12"])
def test_512_small_pages_become_a_huge_one(name: str) -> None:
    f = Hugely(name=name)
    a = wanted(f)
    tables = f.stat("nr_pagetable")
    assert f.khugepaged() == 1
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_SUCCEED]
    assert f.is_huge(f.p, a)
    assert marks(f.p, a) == ALL
    head = f.p.pages(a, PAGE)[0]
    assert f.p.pages(a, HUGE) == list(range(head, head + NR))
    assert f.stat("nr_anon_thps") == 1
    assert f.stat("nr_anon_mapped") == NR
    assert f.rss(f.p, bits.MM_ANONPAGES) == NR
    # The page table is not freed, but kept for the day of the split.
    assert f.stat("nr_pagetable") == tables
    assert f.stat("nr_isolated") == 0
    f.sound()


def test_a_huge_page_that_was_collapsed_is_split_like_any_other() -> None:
    f = Hugely()
    a = wanted(f)
    f.khugepaged()
    f.p.munmap(a + 5 * PAGE, PAGE)
    assert not f.is_huge(f.p, a)
    assert marks(f.p, a, 5) == ALL[:5]
    f.sound()
    f.p.exit()
    f.sound()
    assert f.stat("nr_pagetable") == 0


def test_missing_pages_and_the_zero_page_become_zeros_that_count() -> None:
    f = Hugely()
    a = wanted(f, 300)
    f.p.touch(a + 300 * PAGE, 10 * PAGE, write=False)
    assert f.rss(f.p, bits.MM_ANONPAGES) == 300
    assert f.khugepaged() == 1
    assert f.rss(f.p, bits.MM_ANONPAGES) == NR
    assert marks(f.p, a) == ALL[:300] + [bytes(5)] * (NR - 300)
    f.sound()


def test_what_is_in_swap_is_brought_in() -> None:
    f = Hugely()
    a = wanted(f)
    f.p.madvise(a, 20 * PAGE, "pageout")
    assert f.rss(f.p, bits.MM_SWAPENTS) == 20
    assert f.khugepaged() == 1
    assert f.rss(f.p, bits.MM_SWAPENTS) == 0
    assert marks(f.p, a) == ALL
    f.sound()


def test_the_old_pages_are_free_and_no_cpu_remembers_them() -> None:
    f = Hugely()
    a = wanted(f)
    old = f.p.pages(a, HUGE)
    free = f.stat("nr_free_pages")
    f.khugepaged()
    assert f.stat("nr_free_pages") == free
    assert not any(f.k.pg_refcount[page] for page in old)
    # A store through a remembered translation would be lost.
    f.p.write(a, b"new")
    assert f.p.read(a, 5) == b"new00"
    f.sound()


def test_locked_memory_stays_locked() -> None:
    f = Hugely()
    a = wanted(f)
    f.p.mlock(a, HUGE)
    assert f.stat("nr_mlock") == NR
    assert f.khugepaged() == 1
    assert f.stat("nr_mlock") == NR
    assert f.stat("nr_unevictable") == NR
    f.sound()


def test_a_cgroup_pays_for_the_huge_page() -> None:
    f = Hugely()
    g = f.m.cgroup("g", limit=2 * NR)
    f.p = f.m.spawn("q", cgroup=g)
    wanted(f, 300)
    assert g.usage == 300
    assert f.khugepaged() == 1
    assert g.usage == NR
    f.p.exit()
    assert g.usage == 0
    f.sound()


# ---------------------------------------------------------------- it is not worth it


def refused(f: Hugely, a: int) -> int:
    """That nothing was collapsed nor changed; why."""
    before = [f.p.read(a + i * PAGE, 5) for i in range(NR)]
    pages = f.p.pages(a, HUGE)
    assert f.khugepaged() == 0
    assert f.p.pages(a, HUGE) == pages
    assert [f.p.read(a + i * PAGE, 5) for i in range(NR)] == before
    assert f.stat("nr_isolated") == 0
    f.sound()
    return f.results[-1]


def test_too_many_missing_pages() -> None:
    f = Hugely()
    a = f.map(1, 300)
    f.p.madvise(a, HUGE, "hugepage")
    f.m.khugepaged.max_ptes_none = 100
    f.results.clear()
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_EXCEED_NONE_PTE]
    f.sound()


def test_too_many_pages_in_swap() -> None:
    f = Hugely()
    a = wanted(f)
    f.p.madvise(a, 20 * PAGE, "pageout")
    f.m.khugepaged.max_ptes_swap = 19
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_EXCEED_SWAP_PTE]
    f.sound()


def test_memory_that_was_only_read() -> None:
    f = Hugely()
    a = wanted(f, 1)
    f.p.mprotect(a, HUGE, "r")
    assert refused(f, a) == bits.SCAN_PAGE_RO


def test_a_page_that_another_process_has_too() -> None:
    f = Hugely()
    a = wanted(f)
    child = f.p.fork()
    f.p.touch(a, 511 * PAGE)
    child.touch(a, 511 * PAGE)
    assert refused(f, a) == bits.SCAN_PAGE_COUNT
    child.exit()
    assert f.khugepaged() == 1
    f.sound()


def test_a_page_that_is_pinned() -> None:
    f = Hugely()
    a = wanted(f)
    with f.p.pin(a + 7 * PAGE, PAGE, write=True):
        assert refused(f, a) == bits.SCAN_PAGE_COUNT
    assert f.khugepaged() == 1


def test_a_page_that_is_locked() -> None:
    f = Hugely()
    a = wanted(f)
    page = f.p.pages(a, HUGE)[9]
    lock_page(f.k, page)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_PAGE_LOCK]
    unlock_page(f.k, page)
    f.sound()


def test_a_page_that_somebody_has_isolated() -> None:
    f = Hugely()
    a = wanted(f)
    page = f.p.pages(a, HUGE)[9]
    isolate_lru_page(f.k, page)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_PAGE_LRU]
    putback_lru_page(f.k, page)
    f.sound()


def test_memory_that_was_not_used_lately() -> None:
    f = Hugely()
    a = wanted(f)
    f.m.page_referenced(f.p.pages(a, HUGE))
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_LACK_REFERENCED_PAGE]
    # v4.18 wants half of them young, and says so only after it has taken a huge page for it.
    f.p.touch(a, 255 * PAGE)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_FAIL]
    assert not f.is_huge(f.p, a)
    f.p.touch(a, 256 * PAGE)
    assert f.khugepaged() == 1
    f.sound()


class Used(MmuNotifier):
    """A device that has used everything."""

    def used(self, k: object, mm: object, address: int) -> bool:
        return True

    test_young = used


def test_what_a_device_used_counts_as_used() -> None:
    f = Hugely()
    a = wanted(f)
    f.m.page_referenced(f.p.pages(a, HUGE))
    mmu_notifier_register(f.k, f.p.mm, Used())
    assert f.khugepaged() == 1
    f.sound()


def test_memory_in_which_userfaultfd_waits_for_faults() -> None:
    f = Hugely()
    a = wanted(f, NR - 1)
    u = f.p.userfaultfd(a, HUGE)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_EXCEED_NONE_PTE]
    u.zeropage(a + HUGE - PAGE)
    f.sound()


def test_memory_that_does_not_ask_for_it() -> None:
    f = Hugely()
    f.map(2)
    f.p.madvise(AT, HUGE, "hugepage")
    f.p.madvise(AT, HUGE, "nohugepage")
    assert f.khugepaged() == 0
    f.m.thp.enabled = "always"
    assert f.khugepaged() == 1
    assert not f.is_huge(f.p, AT)
    assert f.is_huge(f.p, AT + HUGE)
    f.m.thp.enabled = "never"
    assert f.khugepaged() == 0


def test_memory_without_an_aligned_stretch() -> None:
    f = Hugely()
    f.m.thp.enabled = "always"
    a = f.p.mmap(2 * HUGE - 2 * PAGE, addr=AT + PAGE)
    f.p.touch(a, 2 * HUGE - 2 * PAGE)
    f.p.madvise(a, 2 * HUGE - 2 * PAGE, "hugepage")
    assert f.khugepaged() == 0
    assert f.results == []


# ---------------------------------------------------------------- it goes wrong half-way


def test_a_huge_page_that_cannot_be_had() -> None:
    f = Hugely()
    a = wanted(f)
    with f.failing("huge_page:every=1"):
        assert refused(f, a) == bits.SCAN_ALLOC_HUGE_PAGE_FAIL
    assert f.stat("thp_collapse_alloc_failed") == 1
    assert f.khugepaged() == 1
    assert f.stat("thp_collapse_alloc") == 1


def test_after_the_second_failure_the_round_is_over() -> None:
    f = Hugely()
    f.map(3)
    f.p.madvise(AT, 3 * HUGE, "hugepage")
    with f.failing("huge_page:every=1") as plan:
        assert f.khugepaged() == 0
        assert plan.calls["huge_page"] == 2
    # It goes on where it was, and then comes to what failed.
    assert f.m.khugepaged(NR) == 1
    assert f.is_huge(f.p, AT + 2 * HUGE)
    assert f.khugepaged() == 2


def test_a_charge_that_fails() -> None:
    f = Hugely()
    g = f.m.cgroup("g", limit=NR + 100)
    f.p = f.m.spawn("q", cgroup=g)
    a = wanted(f)
    with f.failing("memcg_charge:nth=1"):
        assert refused(f, a) == bits.SCAN_CGROUP_CHARGE_FAIL
    assert g.usage == NR
    f.sound()


def test_swap_that_cannot_be_read() -> None:
    f = Hugely()
    a = wanted(f)
    f.p.madvise(a, 20 * PAGE, "pageout")
    with f.failing("page:nth=4"):
        assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_FAIL]
    assert 0 < f.rss(f.p, bits.MM_SWAPENTS) < 20
    assert f.khugepaged() == 1
    assert marks(f.p, a) == ALL
    f.sound()


def test_no_memory_to_note_a_process() -> None:
    f = Hugely()
    a = f.map(1)
    with f.failing("mm_slot:every=1"), pytest.raises(SyscallError, match="madvise"):
        f.p.madvise(a, HUGE, "hugepage")
    assert f.khugepaged() == 0
    f.p.madvise(a, HUGE, "hugepage")
    assert f.khugepaged() == 1


def test_a_fork_without_memory_to_note_the_child() -> None:
    f = Hugely()
    wanted(f)
    with f.failing("mm_slot:every=1"), pytest.raises(SyscallError, match="fork"):
        f.p.fork()
    f.sound()
    f.p.fork()
    assert len(f.k.khugepaged.mm_head) == 2


class SwapCached(Hugely):
    """A page is in the swap cache, mapped read-only here and in swap for a child."""

    def __init__(self) -> None:
        super().__init__()
        self.a = wanted(self)
        self.child = self.p.fork()
        self.p.touch(self.a + PAGE, HUGE - PAGE)
        self.child.munmap(self.a + PAGE, HUGE - PAGE)
        self.p.madvise(self.a, PAGE, "pageout")
        self.p.read(self.a, 1)


def test_a_page_of_the_swap_cache_whose_slot_another_process_has() -> None:
    f = SwapCached()
    page = f.p.pages(f.a, PAGE)[0]
    assert page_mapcount(f.k, page) == 1
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_SWAP_CACHE_PAGE]
    assert marks(f.p, f.a) == ALL
    assert PageLRU(f.k, page)
    f.sound()
    f.child.exit()
    assert f.khugepaged() == 1
    assert marks(f.p, f.a) == ALL
    f.sound()


# ---------------------------------------------------------------- going through processes


def test_a_round_goes_on_where_the_last_one_stopped() -> None:
    f = Hugely(ram=8192)
    f.map(4)
    f.p.madvise(AT, 4 * HUGE, "hugepage")
    made = [f.m.khugepaged(1) for _ in range(4)]
    assert made == [1, 1, 1, 1]
    assert all(f.is_huge(f.p, AT + i * HUGE) for i in range(4))
    assert f.m.khugepaged.full_scans == 0
    f.m.khugepaged(1)
    assert f.m.khugepaged.full_scans == 1
    assert f.m.khugepaged.pages_collapsed == 4


def test_processes_come_in_turn_and_children_are_looked_at_as_well() -> None:
    f = Hugely(ram=8192)
    a = wanted(f)
    child = f.p.fork()
    child.touch(a, HUGE)
    f.p.touch(a, HUGE)
    assert f.khugepaged() == 2
    assert f.is_huge(f.p, a)
    assert f.is_huge(child, a)
    assert marks(child, a) == ALL
    f.sound()


def test_a_process_that_has_died_is_forgotten() -> None:
    f = Hugely(ram=8192)
    f.map(2)
    f.p.madvise(AT, 2 * HUGE, "hugepage")
    f.m.khugepaged(1)
    # khugepaged is in the middle of it.
    assert f.k.khugepaged.scan_mm is not None
    f.p.exit()
    assert len(f.k.khugepaged.mm_head) == 1
    assert f.khugepaged() == 0
    assert f.k.khugepaged.mm_head == []
    assert f.k.khugepaged.scan_mm is None
    other = f.m.spawn("other")
    f.p = other
    wanted(f)
    other.exit()
    assert f.k.khugepaged.mm_head == []
    f.sound()


def test_a_process_whose_mmap_sem_is_taken_is_passed_over() -> None:
    f = Hugely()
    wanted(f)
    f.p.mm.mmap_sem.down_write()
    assert f.khugepaged() == 0
    f.p.mm.mmap_sem.up_write()
    assert f.khugepaged() == 1


def test_what_grows_by_a_merge_comes_to_khugepaged() -> None:
    f = Hugely()
    f.m.thp.enabled = "never"
    f.map(1)
    f.m.thp.enabled = "always"
    assert f.k.khugepaged.mm_head == []
    f.p.mmap(HUGE, addr=AT + HUGE)
    assert f.k.khugepaged.mm_head == [f.p.mm]


def test_a_scan_alone_takes_no_huge_page() -> None:
    f = Hugely()
    f.map(1, 1)
    f.p.madvise(AT, HUGE, "hugepage")
    f.m.khugepaged.max_ptes_none = 0
    with f.m.kthread("khugepaged") as k:
        round_ = Round(NR)
        khugepaged_scan_mm_slot(k, round_)
        assert not round_.released
        assert round_.progress >= NR
    assert f.stat("thp_collapse_alloc") == 0


def test_a_load_after_the_collapse_goes_by_the_pmd() -> None:
    f = Hugely()
    a = wanted(f)
    f.khugepaged()
    head = f.p.pages(a, PAGE)[0]
    with f.m.running(f.p) as k:
        assert cpu_access(k, f.p.task, a + 3 * PAGE, False) == head + 3
