# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged makes huge pages of files of shared memory, under whoever maps and uses them."""

from __future__ import annotations

import pytest
from hugely import AT, HUGE, NR, PAGE, Hugely, mark, marks

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.huge import collapse_shmem as module
from rmap.mm.huge.collapse_shmem import collapse_shmem
from rmap.mm.inject import SITES
from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
from rmap.mm.page import get_page, lock_page, unlock_page
from rmap.model import Process
from rmap.sync.core import scheduler

ALL = [mark(i) for i in range(NR)]


class Small(Hugely):
    """A file of small pages, each with its number, mapped by `p` at `a`, that may become huge."""

    def __init__(self, pages: int = NR, filled: int | None = None, **quirks: bool) -> None:
        super().__init__(**quirks)
        self.f = self.m.file("f", pages, shmem=True)
        self.filled = pages if filled is None else filled
        for i in range(self.filled):
            self.f.write(i * PAGE, mark(i))
        self.m.thp.enabled = "always"
        self.f.mapping.huge = bits.SHMEM_HUGE_ALWAYS
        self.a = self.shared(self.p)

    def shared(self, p: Process, kind: str = "file") -> int:
        """Map the file where a PMD can map it, and use what there is of it."""
        a = int(p.mmap(HUGE, kind=kind, file=self.f, addr=AT))
        if self.filled:
            p.touch(a, self.filled * PAGE, write=False)
        return a

    def numbers(self, count: int = NR) -> list[bytes]:
        """What the first bytes of the file's pages are."""
        return [self.f.read(i * PAGE, 5) for i in range(count)]

    def collapse(self) -> int:
        """Collapse the first 512 pages, whatever a scan would say."""
        with self.m.kthread("khugepaged") as k:
            return int(collapse_shmem(k, self.p.mm, self.f.mapping, 0))

    def same(self, cached: dict[int, int], result: int) -> None:
        """That a collapse fails with a result, and leaves everything as it was."""
        assert self.collapse() == result
        assert self.f.cached == cached
        assert self.stat("nr_shmem_thps") == 0
        assert self.stat("nr_shmem") == len(cached)


# ---------------------------------------------------------------- it works


@pytest.mark.parametrize("name", ["4.18", "6.1", "6.12"])
def test_the_pages_of_a_file_become_a_huge_one(name: str) -> None:
    f = Small(name=name)
    old = list(f.f.cached.values())
    f.p.write(f.a + 9 * PAGE, b"nine!")
    tables = f.stat("nr_pagetable")
    assert f.khugepaged() == 1
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_SUCCEED]
    head = f.f.cached[0]
    assert f.f.cached == {i: head + i for i in range(NR)}
    assert f.k.pg_refcount[head] == NR
    assert not any(f.k.pg_refcount[page] for page in old)
    assert f.stat("nr_shmem_thps") == 1
    assert f.stat("nr_shmem") == f.stat("nr_file_pages") == NR
    # Nobody maps it yet, and the page table went, so that the next fault sets a PMD.
    assert f.stat("nr_file_mapped") == 0
    assert f.stat("nr_pagetable") == tables - 1
    want = [*ALL[:9], b"nine!", *ALL[10:]]
    assert marks(f.p, f.a) == want
    assert f.is_huge(f.p, f.a)
    assert f.numbers() == want
    f.sound()


def test_holes_are_filled_and_swap_is_brought_in() -> None:
    f = Small(filled=400)
    f.p.madvise(f.a, 20 * PAGE, "pageout")
    f.m.page_referenced(list(f.f.cached.values()))
    while not any(item < 0 for item in f.f.mapping.i_pages.values()):
        f.m.reclaim(8)
    in_swap = sum(item < 0 for item in f.f.mapping.i_pages.values())
    f.m.khugepaged.max_ptes_swap = in_swap
    f.p.touch(f.a, 400 * PAGE, write=False)
    assert f.khugepaged() == 1
    assert f.numbers() == [*ALL[:400], *[bytes(5)] * 112]
    assert f.stat("nr_shmem") == NR
    f.sound()


def test_it_is_charged_to_who_is_scanned() -> None:
    f = Small(filled=0)
    g, h = f.m.cgroup("g"), f.m.cgroup("h")
    f.f.mapping.huge = bits.SHMEM_HUGE_NEVER
    q = f.m.spawn("q", cgroup=g)
    f.shared(q)
    q.touch(AT, HUGE)
    assert g.usage == NR
    r = f.m.spawn("r", cgroup=h)
    f.shared(r)
    with f.m.kthread("khugepaged") as k:
        assert collapse_shmem(k, r.mm, f.f.mapping, 0) == bits.SCAN_SUCCEED
    assert (g.usage, h.usage) == (0, NR)
    f.sound()


def test_page_tables_stay_where_they_must() -> None:
    f = Small()
    private = f.m.spawn("private")
    f.shared(private, "fileprivate")
    private.write(AT, b"mine!")
    askew = f.m.spawn("askew")
    b = askew.mmap(HUGE, kind="file", file=f.f, addr=AT + PAGE)
    askew.touch(b, HUGE, write=False)
    busy = f.m.spawn("busy")
    f.shared(busy)
    busy.mm.mmap_sem.down_read()
    assert f.collapse() == bits.SCAN_SUCCEED
    busy.mm.mmap_sem.up_read()
    assert marks(private, AT) == [b"mine!", *ALL[1:]]
    for p, a in ((private, AT), (askew, b), (busy, AT)):
        assert p.read(a + 7 * PAGE, 5) == mark(7)
        assert not f.is_huge(p, a)
    assert f.p.read(f.a, 5) == mark(0)
    assert f.is_huge(f.p, f.a)
    f.sound()


# ---------------------------------------------------------------- the scan says no


def test_what_a_scan_of_a_file_refuses() -> None:
    f = Small()
    page = f.f.cached[5]
    get_page(f.k, page)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_PAGE_COUNT]
    put_page(f.k, page)
    isolate_lru_page(f.k, page)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_PAGE_LRU]
    putback_lru_page(f.k, page)
    f.f.punch(0, PAGE)
    f.m.khugepaged.max_ptes_none = 0
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_EXCEED_NONE_PTE]
    f.p.touch(f.a, PAGE)
    assert f.khugepaged() == 1
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_PAGE_COMPOUND]


def test_too_much_of_a_file_in_swap() -> None:
    f = Small()
    f.m.page_referenced(list(f.f.cached.values()))
    f.m.khugepaged.max_ptes_swap = 0
    while not any(item < 0 for item in f.f.mapping.i_pages.values()):
        f.m.reclaim(8)
    assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_EXCEED_SWAP_PTE]
    f.sound()


@pytest.mark.parametrize(
    ("mount", "setting", "advice", "made"),
    [
        ("never", "never", "hugepage", 0),
        ("always", "deny", "hugepage", 0),
        ("never", "force", "normal", 1),
        ("advise", "never", "normal", 0),
        ("advise", "never", "hugepage", 1),
        ("within_size", "never", "normal", 1),
        ("always", "never", "nohugepage", 0),
    ],
)
def test_which_files_are_looked_at(mount: str, setting: str, advice: str, made: int) -> None:
    f = Small()
    f.f.mapping.huge = bits.SHMEM_HUGE_NEVER
    f.f.mapping.huge = {
        "never": bits.SHMEM_HUGE_NEVER,
        "always": bits.SHMEM_HUGE_ALWAYS,
        "advise": bits.SHMEM_HUGE_ADVISE,
        "within_size": bits.SHMEM_HUGE_WITHIN_SIZE,
    }[mount]
    f.m.thp.shmem_enabled = setting
    f.p.madvise(f.a, HUGE, advice)
    assert f.khugepaged() == made


# ---------------------------------------------------------------- it goes wrong half-way


def test_every_allocation_may_fail_and_nothing_is_lost() -> None:
    for site in SITES:
        f = Small(filled=450, collapse_shmem_repairs=True)
        with f.failing(f"{site}:nth=1") as plan:
            f.khugepaged()
            asked = plan.calls[site]
        assert (site in ("huge_page", "page", "memcg_charge")) == (asked > 0)
        assert f.numbers() == [*ALL[:450], *[bytes(5)] * 62]
        assert f.f.mapping.nrpages == len(f.f.cached)
        f.sound()
        failed = f.stat("nr_shmem_thps") == 0
        assert failed == (asked > 0)
        assert f.khugepaged() == failed
        assert f.numbers() == [*ALL[:450], *[bytes(5)] * 62]


def test_swap_that_cannot_be_read_puts_everything_back() -> None:
    f = Small()
    f.m.page_referenced(list(f.f.cached.values()))
    while sum(item < 0 for item in f.f.mapping.i_pages.values()) < 40:
        f.m.reclaim(8)
    f.m.khugepaged.max_ptes_swap = 500
    f.p.touch(f.a, PAGE)
    with f.failing("page:nth=5"):
        assert f.khugepaged() == 0
    assert f.results == [bits.SCAN_SUCCEED, bits.SCAN_FAIL]
    f.sound()
    assert f.numbers() == ALL
    f.sound()


def test_a_page_that_is_locked_in_the_middle_puts_everything_back() -> None:
    f = Small()
    cached = f.f.cached
    lock_page(f.k, cached[300])
    f.same(cached, bits.SCAN_PAGE_LOCK)
    unlock_page(f.k, cached[300])
    # The pages before it were unmapped, and are faulted in again.
    assert f.stat("nr_file_mapped") == NR - 300
    assert marks(f.p, f.a) == ALL
    f.sound()


def test_a_page_that_is_isolated_or_has_a_reference_puts_everything_back() -> None:
    f = Small()
    cached = f.f.cached
    isolate_lru_page(f.k, cached[300])
    f.same(cached, bits.SCAN_DEL_PAGE_LRU)
    putback_lru_page(f.k, cached[300])
    get_page(f.k, cached[400])
    f.same(cached, bits.SCAN_PAGE_COUNT)
    put_page(f.k, cached[400])
    assert f.numbers() == ALL
    f.sound()
    assert f.collapse() == bits.SCAN_SUCCEED


@pytest.mark.parametrize("repaired", [False, True])
def test_holes_that_were_filled_in_vain_stay_counted_in_v4_18(repaired: bool) -> None:
    f = Small(filled=0, collapse_shmem_repairs=repaired)
    f.f.mapping.huge = bits.SHMEM_HUGE_NEVER
    f.f.write(10 * PAGE, b"x")
    page = f.f.cached[10]
    get_page(f.k, page)
    f.same({10: page}, bits.SCAN_PAGE_COUNT)
    assert f.f.mapping.nrpages == (1 if repaired else 11)
    put_page(f.k, page)


@pytest.mark.parametrize("repaired", [False, True])
def test_a_file_that_was_emptied_meanwhile_is_filled_again_by_v4_18(repaired: bool) -> None:
    f = Small(collapse_shmem_repairs=repaired)
    f.f.truncate(0)
    result = f.collapse()
    if repaired:
        assert result == bits.SCAN_TRUNCATED
        assert f.f.cached == {}
        f.sound()
    else:
        assert result == bits.SCAN_SUCCEED
        assert f.stat("nr_shmem") == NR


@pytest.mark.parametrize("repaired", [False, True])
def test_a_file_that_has_a_huge_page_by_now_crashes_v4_18(repaired: bool) -> None:
    f = Small(collapse_shmem_repairs=repaired)
    assert f.collapse() == bits.SCAN_SUCCEED
    if repaired:
        assert f.collapse() == bits.SCAN_PAGE_COMPOUND
        assert f.numbers() == ALL
        f.sound()
        return
    with pytest.raises(KernelBug, match="part of a huge page"):
        f.collapse()
    scheduler().current.held.clear()


def test_a_place_that_is_not_aligned_is_a_bug() -> None:
    f = Small()
    with pytest.raises(KernelBug, match="not aligned"):
        module.collapse_shmem(f.k, f.p.mm, f.f.mapping, 1)
