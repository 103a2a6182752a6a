# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages of shared memory: who gets them, who maps them, and how they end."""

from __future__ import annotations

from typing import Any

import pytest
from hugely import AT, HUGE, NR, PAGE, Hugely, mark, marks

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.huge.split_page import split_huge_page
from rmap.mm.lru import put_page
from rmap.mm.page import compound_mapcount, get_page, lock_page, page_mapcount, unlock_page
from rmap.mm.page_cache import find_get_page, page_cache_item
from rmap.mm.shrinker import UnusedHugeShrinker
from rmap.model import BusError, FileHandle, Process
from rmap.sync.core import scheduler


class Shmem(Hugely):
    """A file of shared memory that is made of huge pages."""

    def __init__(self, pages: int = 2 * NR, huge: str = "always", **options: Any) -> None:
        super().__init__(**options)
        self.f = self.m.file("f", pages, shmem=True, huge=huge)

    def shared(self, p: Process | None = None, huge: int = 2, prot: str = "rw") -> int:
        """Map the file from its beginning, shared."""
        return int((p or self.p).mmap(huge * HUGE, prot, kind="file", file=self.f, addr=AT))

    def head(self, index: int = 0) -> int:
        """The page of the file at an index."""
        return int(page_cache_item(self.f.mapping, index))

    def thps(self) -> tuple[int, int, int]:
        """Huge pages of shmem, those that PMDs map, and small pages that are mapped."""
        return (
            self.stat("nr_shmem_thps"),
            self.stat("nr_shmem_pmdmapped"),
            self.stat("nr_file_mapped"),
        )


def number(f: FileHandle, first: int = 0, count: int = NR) -> None:
    """Write its number into each page of a file."""
    for i in range(first, first + count):
        f.write(i * PAGE, mark(i))


def numbers(f: FileHandle, first: int = 0, count: int = NR) -> list[bytes]:
    """What the first bytes of pages of a file are."""
    return [f.read(i * PAGE, 5) for i in range(first, first + count)]


ALL = [mark(i) for i in range(NR)]


# ---------------------------------------------------------------- being mapped


@pytest.mark.parametrize("name", ["4.18", "6.1", "6.12"])
def test_a_fault_fills_two_megabytes_and_maps_them_by_a_pmd(name: str) -> None:
    f = Shmem(name=name)
    a = f.shared()
    f.p.write(a + 7 * PAGE, b"seven")
    assert f.is_huge(f.p, a)
    head = f.head()
    assert f.f.cached == {i: head + i for i in range(NR)}
    assert f.k.pg_refcount[head] == NR + 1
    assert f.thps() == (1, 1, NR)
    assert f.stat("nr_file_pages") == f.stat("nr_shmem") == NR
    assert f.f.read(7 * PAGE, 5) == b"seven"
    # All of it can be reached without another fault.
    faults = f.stat("pgfault")
    f.p.touch(a, HUGE)
    assert f.stat("pgfault") == faults
    f.sound()


def test_a_second_process_maps_the_same_page() -> None:
    f = Shmem()
    a = f.shared()
    f.p.write(a, b"one")
    q = f.m.spawn("q")
    f.shared(q)
    assert q.read(a, 3) == b"one"
    head = f.head()
    assert compound_mapcount(f.k, head) == 2
    assert [page_mapcount(f.k, head + i) for i in (0, 9)] == [2, 2]
    assert f.thps() == (1, 1, NR)
    assert {m.process.pid for m in f.m.who_maps(head)} == {f.p.pid, q.pid}
    q.exit()
    assert f.thps() == (1, 1, NR)
    f.p.exit()
    assert f.thps() == (1, 0, 0)
    f.sound()


def test_a_child_faults_the_pmd_in_again() -> None:
    f = Shmem()
    a = f.shared()
    f.p.write(a, b"one")
    child = f.p.fork()
    assert not f.is_huge(child, a)
    assert child.read(a, 3) == b"one"
    assert f.is_huge(child, a)
    f.sound()


def test_v4_18_counts_the_pmd_as_a_page_of_a_disk_file() -> None:
    f = Shmem()
    a = f.shared()
    f.p.write(a, b"x")
    assert f.rss(f.p, bits.MM_FILEPAGES) == NR
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == 0
    # PTEs count right, so that what a split takes out of one counter comes back into another.
    f.p.mprotect(a + PAGE, PAGE, "r")
    f.p.touch(a, HUGE, write=False)
    assert f.rss(f.p, bits.MM_FILEPAGES) == 0
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == NR


def test_the_repaired_counter() -> None:
    f = Shmem(shmem_pmd_counts_shmem=True)
    a = f.shared()
    f.p.write(a, b"x")
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == NR
    f.p.mprotect(a + PAGE, PAGE, "r")
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == 0
    f.p.touch(a, HUGE, write=False)
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == NR
    f.p.munmap(a, HUGE)
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == f.rss(f.p, bits.MM_FILEPAGES) == 0
    f.sound()


def test_where_a_pmd_does_not_fit_ptes_map_the_huge_page() -> None:
    f = Shmem()
    a = f.p.mmap(HUGE, kind="file", file=f.f, addr=AT + PAGE)
    f.p.write(a, b"x")
    assert not f.is_huge(f.p, a)
    f.p.touch(a, 10 * PAGE, write=False)
    assert f.thps() == (1, 0, 10)
    assert f.rss(f.p, bits.MM_SHMEMPAGES) == 10
    f.sound()


def test_where_a_page_table_is_ptes_map_the_huge_page() -> None:
    f = Shmem(huge="never")
    a = f.shared()
    f.p.write(a, b"small")
    f.f.punch(0, PAGE)
    f.f.mapping.huge = bits.SHMEM_HUGE_ALWAYS
    f.p.write(a, b"huge.")
    assert f.head() + 5 == f.head(5)
    assert not f.is_huge(f.p, a)
    assert f.thps() == (1, 0, 1)
    f.sound()


def test_mappings_are_laid_so_that_a_pmd_fits() -> None:
    f = Shmem(pages=4 * NR)
    f.p.mmap(3 * PAGE)
    a = f.p.mmap(2 * HUGE, kind="file", file=f.f)
    assert a % HUGE == 0
    b = f.p.mmap(2 * HUGE, kind="file", file=f.f, pgoff=5)
    assert b % HUGE == 5 * PAGE
    f.m.thp.shmem_enabled = "deny"
    c = f.p.mmap(2 * HUGE + 3 * PAGE, kind="file", file=f.f)
    assert c % HUGE
    f.p.touch(c, PAGE)
    assert f.thps()[0] == 0
    f.sound()


def test_fault_around_maps_all_of_a_huge_page_or_only_its_head() -> None:
    f = Shmem()
    f.k.fault_around = 16
    number(f.f)
    a = f.shared(prot="r")
    f.p.read(a + 5 * PAGE, 1)
    assert f.is_huge(f.p, a)
    q = f.m.spawn("q")
    b = q.mmap(HUGE, "r", kind="file", file=f.f, addr=AT + PAGE)
    # Tails name no file, by which v4.18 tells whether they were truncated.
    q.read(b + 5 * PAGE, 1)
    q.read(b + 40 * PAGE, 1)
    assert [i for i, page in enumerate(q.pages(b, HUGE)) if page] == [0, 5, 40]
    f.sound()


# ---------------------------------------------------------------- private mappings


def test_a_write_to_a_private_mapping_copies_one_small_page() -> None:
    f = Shmem()
    number(f.f)
    a = f.p.mmap(HUGE, kind="fileprivate", file=f.f, addr=AT)
    assert f.p.read(a, 5) == mark(0)
    assert f.is_huge(f.p, a)
    f.p.write(a + 3 * PAGE, b"mine!")
    assert not f.is_huge(f.p, a)
    assert marks(f.p, a) == [*ALL[:3], b"mine!", *ALL[4:]]
    assert numbers(f.f) == ALL
    assert f.rss(f.p, bits.MM_ANONPAGES) == 1
    f.sound()


def test_a_first_write_to_a_private_mapping_maps_no_pmd() -> None:
    f = Shmem()
    number(f.f)
    a = f.p.mmap(HUGE, kind="fileprivate", file=f.f, addr=AT)
    f.p.write(a + 3 * PAGE, b"mine!")
    assert f.thps() == (1, 0, 0)
    assert marks(f.p, a) == [*ALL[:3], b"mine!", *ALL[4:]]
    f.sound()


# ---------------------------------------------------------------- who gets one


def huge_after_write(f: Shmem, offset: int = 0) -> bool:
    """Whether a write(2) makes a huge page."""
    f.f.write(offset, b"x")
    return f.stat("nr_shmem_thps") == 1


def test_the_option_of_the_mount() -> None:
    assert huge_after_write(Shmem(huge="always"))
    assert not huge_after_write(Shmem(huge="never"))
    assert not huge_after_write(Shmem(huge="advise"))
    assert huge_after_write(Shmem(pages=NR, huge="within_size"), 5 * PAGE)
    assert not huge_after_write(Shmem(pages=2 * NR - 1, huge="within_size"), (NR + 5) * PAGE)
    assert huge_after_write(Shmem(pages=20, huge="always"))


def test_advice_decides_where_the_mount_leaves_it_to_that() -> None:
    f = Shmem(huge="advise")
    a = f.shared()
    f.p.touch(a, PAGE)
    assert f.thps()[0] == 0
    f.p.madvise(a + HUGE, HUGE, "hugepage")
    f.p.touch(a + HUGE, PAGE)
    assert f.thps()[0] == 1
    g = Shmem(huge="always")
    b = g.shared()
    g.p.madvise(b, HUGE, "nohugepage")
    g.p.touch(b, 2 * HUGE)
    assert not g.is_huge(g.p, b)
    assert g.is_huge(g.p, b + HUGE)
    g.sound()


@pytest.mark.parametrize(
    ("word", "huge"),
    [("always", True), ("never", False), ("force", True), ("deny", False), ("within_size", True)],
)
def test_the_setting_is_the_mount_of_anonymous_shared_memory(word: str, huge: bool) -> None:
    f = Hugely()
    f.m.thp.shmem_enabled = word
    a = f.p.mmap(HUGE, kind="shared")
    f.p.write(a, b"x")
    assert f.is_huge(f.p, a) == huge
    f.p.exit()
    assert f.stat("nr_shmem_thps") == f.stat("nr_shmem") == 0
    f.sound()


def test_force_and_deny_overrule_every_mount() -> None:
    f = Shmem(huge="never")
    f.m.thp.shmem_enabled = "force"
    assert huge_after_write(f)
    g = Shmem(huge="always")
    g.m.thp.shmem_enabled = "deny"
    assert not huge_after_write(g)


def test_where_a_page_is_already_the_rest_comes_in_small_pages() -> None:
    f = Shmem(huge="never")
    f.f.write(9 * PAGE, b"x")
    f.f.mapping.huge = bits.SHMEM_HUGE_ALWAYS
    f.f.write(0, b"y")
    assert f.thps()[0] == 0
    f.f.write(NR * PAGE, b"z")
    assert f.thps()[0] == 1
    f.sound()


def test_a_huge_page_that_cannot_be_had_or_paid_for() -> None:
    f = Shmem()
    with f.failing("huge_page:nth=1"):
        f.f.write(0, b"x")
    assert f.thps()[0] == 0
    with f.failing("memcg_charge:nth=1"):
        f.f.write(NR * PAGE, b"x")
    assert f.thps()[0] == 0
    assert f.stat("nr_shmem") == 2
    with f.failing("page:every=1"), pytest.raises(OSError, match="write"):
        f.f.write(5 * PAGE, b"x")
    assert f.stat("nr_shmem") == 2
    f.sound()


def test_a_cgroup_pays_for_all_of_it() -> None:
    f = Shmem(swap=0)
    g = f.m.cgroup("g", limit=NR + 10)
    q = f.m.spawn("q", cgroup=g)
    a = f.shared(q)
    q.write(a, b"x")
    assert g.usage == NR
    # There is no room for another one, but for small pages.
    q.write(a + HUGE, b"y")
    assert g.usage == NR + 1
    f.sound()


# ---------------------------------------------------------------- the file API


def test_write_and_read_through_a_huge_page() -> None:
    f = Shmem()
    number(f.f)
    assert numbers(f.f) == ALL
    a = f.shared()
    assert marks(f.p, a) == ALL
    f.p.write(a + 100 * PAGE - 2, b"across")
    assert f.f.read(100 * PAGE - 2, 6) == b"across"
    f.f.write(200 * PAGE - 3, b"back")
    assert f.p.read(a + 200 * PAGE - 3, 4) == b"back"
    assert f.f.read(NR * PAGE - 1, 10) == bytes(10)
    assert f.thps() == (1, 1, NR)
    f.sound()


# ---------------------------------------------------------------- becoming shorter


def test_truncation_in_the_middle_zeroes_the_rest_and_keeps_the_page() -> None:
    f = Shmem()
    number(f.f, 0, 2 * NR)
    a = f.shared()
    f.p.touch(a, 2 * HUGE, write=False)
    f.f.truncate(100 * PAGE)
    assert f.thps() == (1, 0, 0)
    assert marks(f.p, a, 100) == ALL[:100]
    with pytest.raises(BusError):
        f.p.read(a + HUGE, 1)
    # A PMD maps the page again, and with it what lies beyond the end.
    assert f.is_huge(f.p, a)
    assert f.p.read(a + 100 * PAGE, 5) == bytes(5)
    f.f.truncate(2 * HUGE)
    assert numbers(f.f, 100, NR) == [bytes(5)] * NR
    f.sound()


def test_truncation_at_a_border_frees_huge_pages_whole() -> None:
    f = Shmem()
    number(f.f, 0, 2 * NR)
    free = f.stat("nr_free_pages")
    f.f.truncate(HUGE)
    assert f.stat("nr_free_pages") == free + NR
    assert f.thps()[0] == 1
    f.f.truncate(0)
    assert f.f.cached == {}
    assert f.thps()[0] == 0
    f.sound()


def test_what_lies_beyond_the_end_is_given_back_when_memory_is_short() -> None:
    f = Shmem()
    number(f.f)
    f.f.truncate(100 * PAGE)
    assert f.k.shmem_shrinklist == [f.f.mapping]
    free = f.stat("nr_free_pages")
    shrinker = UnusedHugeShrinker()
    with f.m.kthread("kswapd") as k:
        assert shrinker.count_objects(k) == 1
        assert shrinker.scan_objects(k, 10) == 1
        assert shrinker.scan_objects(k, 10) == bits.SHRINK_STOP
    assert f.stat("nr_free_pages") == free + NR - 100
    assert sorted(f.f.cached) == list(range(100))
    assert numbers(f.f, 0, 100) == ALL[:100]
    f.sound()


def test_a_file_that_ends_in_a_huge_page_from_the_start_is_noted_too() -> None:
    f = Shmem(pages=10)
    f.f.write(0, b"x")
    assert f.thps()[0] == 1
    assert f.k.shmem_shrinklist == [f.f.mapping]
    head = f.head()
    # Somebody else has a reference: it cannot be split now, and stays noted.
    get_page(f.k, head)
    with f.m.kthread("kswapd") as k:
        assert UnusedHugeShrinker().scan_objects(k, 10) == 0
        put_page(k, head)
        lock_page(k, head)
        assert UnusedHugeShrinker().scan_objects(k, 10) == 0
        unlock_page(k, head)
        assert UnusedHugeShrinker().scan_objects(k, 10) == 1
    assert sorted(f.f.cached) == list(range(10))
    f.sound()


def test_a_file_that_grows_to_a_border_has_nothing_to_give_back() -> None:
    f = Shmem(pages=10)
    f.f.write(0, b"x")
    f.f.truncate(HUGE)
    with f.m.kthread("kswapd") as k:
        assert UnusedHugeShrinker().scan_objects(k, 10) == 0
    assert f.k.shmem_shrinklist == []
    assert f.thps()[0] == 1
    f.f.truncate(HUGE - PAGE)
    assert f.k.shmem_shrinklist == [f.f.mapping]
    f.f.truncate(0)
    with f.m.kthread("kswapd") as k:
        assert UnusedHugeShrinker().scan_objects(k, 10) == 0
    assert not f.f.mapping.shrinkable


def test_a_hole_frees_whole_huge_pages_and_zeroes_parts() -> None:
    f = Shmem(pages=3 * NR)
    number(f.f, 0, 3 * NR)
    a = f.shared(huge=3)
    f.p.touch(a, 3 * HUGE, write=False)
    f.f.punch(500 * PAGE, (NR + 20) * PAGE)
    assert f.thps()[0] == 2
    want = [mark(i) if i < 500 or i >= NR + 520 else bytes(5) for i in range(3 * NR)]
    assert marks(f.p, a, 3 * NR) == want
    f.sound()


def test_a_hole_leaves_private_copies_alone() -> None:
    f = Shmem()
    number(f.f)
    a = f.p.mmap(HUGE, kind="fileprivate", file=f.f, addr=AT)
    f.p.write(a, b"mine!")
    f.f.punch(0, HUGE)
    assert marks(f.p, a) == [b"mine!", *[bytes(5)] * (NR - 1)]
    f.sound()


# ---------------------------------------------------------------- splits, swap, mlock


def test_a_part_that_is_unmapped_splits_the_pmd_and_not_the_page() -> None:
    f = Shmem()
    number(f.f)
    a = f.shared()
    f.p.touch(a, HUGE, write=False)
    f.p.munmap(a + 3 * PAGE, PAGE)
    # The PTEs are not filled: they can be faulted in again.
    assert f.thps() == (1, 0, 0)
    assert marks(f.p, a, 3) == ALL[:3]
    assert f.thps() == (1, 0, 3)
    f.sound()


def test_a_split_page_is_small_pages_of_the_same_file() -> None:
    f = Shmem()
    number(f.f)
    a = f.shared()
    f.p.touch(a, HUGE, write=False)
    with f.m.kthread("split") as k:
        head = find_get_page(k, f.f.mapping, 0)
        lock_page(k, head)
        assert split_huge_page(k, head) == 0
        unlock_page(k, head)
        put_page(k, head)
    assert f.thps() == (0, 0, 0)
    assert marks(f.p, a) == ALL
    assert f.thps() == (0, 0, NR)
    assert numbers(f.f) == ALL
    f.sound()


def test_shared_memory_is_swapped_out_in_pieces_and_comes_back() -> None:
    f = Shmem(ram=4096, swap=4096)
    number(f.f)
    a = f.shared()
    f.p.write(a + 5 * PAGE, b"five!")
    f.m.page_referenced([f.head()])
    while f.stat("nr_shmem"):
        assert f.m.reclaim(NR).reclaimed
    assert f.thps() == (0, 0, 0)
    want = [*ALL[:5], b"five!", *ALL[6:]]
    assert numbers(f.f) == want
    assert marks(f.p, a) == want
    f.sound()


def test_locked_shared_memory_is_mlocked_as_one() -> None:
    f = Shmem()
    a = f.shared()
    f.p.mlock(a, HUGE)
    assert f.is_huge(f.p, a)
    assert f.stat("nr_mlock") == NR
    assert f.stat("nr_unevictable") == NR
    f.p.munlock(a, HUGE)
    assert f.stat("nr_mlock") == 0
    f.sound()


def test_who_maps_a_piece_by_ptes_ends_mlock_of_the_whole() -> None:
    """L1199: what PTEs map as well stays evictable, as mlock would miss when these go."""
    f = Shmem()
    a = f.shared()
    f.p.mlock(a, HUGE)
    assert f.stat("nr_mlock") == NR
    q = f.m.spawn("q")
    b = q.mmap(HUGE - PAGE, kind="file", file=f.f, pgoff=1, addr=AT)
    q.read(b, 1)
    assert f.is_huge(f.p, a)
    assert (f.stat("nr_mlock"), f.stat("nr_unevictable")) == (0, 0)
    f.sound()


def test_who_maps_a_piece_by_ptes_and_the_whole_by_a_pmd() -> None:
    f = Shmem()
    number(f.f)
    a = f.shared()
    f.p.touch(a, PAGE, write=False)
    q = f.m.spawn("q")
    b = q.mmap(HUGE - PAGE, kind="file", file=f.f, pgoff=1, addr=AT)
    q.touch(b, HUGE - PAGE, write=False)
    head = f.head()
    assert f.thps() == (1, 1, NR)
    assert [page_mapcount(f.k, head + i) for i in (0, 1)] == [1, 2]
    f.p.exit()
    assert f.thps() == (1, 0, NR - 1)
    f.sound()


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_written_through_a_pmd_is_lost_when_that_is_zapped(kept: bool) -> None:
    f = Shmem(zap_dirties_huge_shmem=kept)
    a = f.shared()
    # A read fault makes the page, clean, and maps it writable: no fault tells of the write.
    f.p.read(a, 1)
    f.p.write(a, b"kept?")
    f.p.munmap(a, 2 * HUGE)
    assert bool(f.k.pg_flags[f.head()] & bits.PG_dirty) == kept
    f.m.page_referenced([f.head()])
    while f.stat("nr_shmem"):
        assert f.m.reclaim(NR).reclaimed
    assert f.f.read(0, 5) == (b"kept?" if kept else bytes(5))
    f.sound()


def test_what_was_written_through_a_pmd_is_kept_when_that_is_split() -> None:
    f = Shmem()
    a = f.shared()
    f.p.read(a, 1)
    f.p.write(a, b"kept!")
    f.p.munmap(a + PAGE, 2 * HUGE - PAGE)
    assert f.k.pg_flags[f.head()] & bits.PG_dirty


@pytest.mark.parametrize("found", [False, True])
def test_parts_in_the_second_table_are_missed_where_the_first_does_not_exist(found: bool) -> None:
    f = Shmem(walk_crosses_tables=found)
    number(f.f)
    f.p.mmap(HUGE, kind="file", file=f.f, addr=AT + PAGE)
    # The last page alone is used: it lies in the next 2 MiB.
    f.p.touch(AT + HUGE, PAGE, write=False)
    head = f.head()
    assert f.m.walk(head + NR - 1).mapped == found
    if not found:
        get_page(f.k, head)
        lock_page(f.k, head)
        with pytest.raises(KernelBug, match="total_mapcount"):
            split_huge_page(f.k, head)
        scheduler().current.held.clear()
        return
    with f.m.kthread("split") as k:
        get_page(k, head)
        lock_page(k, head)
        assert split_huge_page(k, head) == 0
        unlock_page(k, head)
        put_page(k, head)
    assert marks(f.p, AT + PAGE) == ALL
    f.sound()
