# SPDX-License-Identifier: GPL-2.0-only
"""Broken memory: who is told, with which address, and what everybody finds afterwards."""

from __future__ import annotations

import errno

import pytest
from faulting import ARENA, PAGE, Faulting
from handmade import world
from kernels import Failing

from rmap.mm import bits
from rmap.mm.gup import check_user_page_hwpoison
from rmap.mm.memory_failure import memory_failure
from rmap.mm.page_alloc import alloc_page, alloc_pages
from rmap.mm.pgtable import is_hwpoison_entry, pte_to_swp_entry, swp_offset
from rmap.model import BrokenMemory, Failure, Process, SyscallError


def told(failure: Failure) -> list[tuple[str, str, int]]:
    """Who was told, by which signal, of which address."""
    return [(kill.process.name, kill.code or kill.signal, kill.address) for kill in failure.kills]


def poisoned(f: Faulting, p: Process, address: int) -> int:
    """The page that a poisoned entry names; 0 if the entry is not one."""
    entry = pte_to_swp_entry(f.pte(p, address))
    return swp_offset(entry) if f.pte(p, address) and is_hwpoison_entry(entry) else 0


# ---------------------------------------------------------------- anonymous memory


def test_a_page_breaks_under_three_processes_and_the_one_that_needs_it_is_told_so() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"lost")
    f.p.write(a + PAGE, b"kept")
    child = f.p.fork("child")
    other = f.p.fork("other")
    other.write(a, b"own copy")
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page, action_required=child)
    assert (failure.kind, failure.result, failure.error) == ("dirty_lru", "recovered", 0)
    assert told(failure) == [("p", "BUS_MCEERR_AO", a), ("child", "BUS_MCEERR_AR", a)]
    assert [kill.size for kill in failure.kills] == [PAGE, PAGE]
    # Nothing maps it; where it was, its number is left, and no process counts it.
    assert f.counts(page) == (0, 1)
    assert poisoned(f, f.p, a) == poisoned(f, child, a) == page
    assert f.rss(f.p) == f.rss(child) == (0, 1, 0, 0)
    for p in (f.p, child):
        with pytest.raises(BrokenMemory):
            p.read(a, 1)
        with pytest.raises(BrokenMemory):
            p.write(a, b"x")
        assert p.read(a + PAGE, 4) == b"kept"
    assert other.read(a, 8) == b"own copy"
    assert f.sound()


def test_without_need_or_wish_nobody_is_told_until_the_page_is_touched() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    failure = f.m.memory_failure(f.page(f.p, a))
    assert failure.result == "recovered"
    assert failure.kills == ()
    with pytest.raises(BrokenMemory) as told_late:
        f.p.read(a + 5, 1)
    assert told_late.value.address == a + 5
    assert f.sound()


def test_who_asked_to_be_told_early_is_and_his_children_are() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    late = f.p.fork("late")
    early = f.p.fork("early")
    early.mce_kill = "early"
    grandchild = early.fork("grandchild")
    late.mce_kill = "late"
    assert (f.p.mce_kill, late.mce_kill, grandchild.mce_kill) == ("default", "late", "early")
    failure = f.m.memory_failure(f.page(f.p, a))
    assert told(failure) == [("early", "BUS_MCEERR_AO", a), ("grandchild", "BUS_MCEERR_AO", a)]
    with pytest.raises(ValueError, match="known: early, late, default"):
        late.mce_kill = "never"
    # The sysctl tells everybody, whoever asked for the contrary.
    b = late.mmap(PAGE)
    late.write(b, b"x")
    f.m.early_kill = True
    assert f.m.early_kill
    assert told(f.m.memory_failure(f.page(late, b))) == [("late", "BUS_MCEERR_AO", b)]


def test_a_page_that_was_moved_is_found_where_it_is_now() -> None:
    f = Faulting()
    f.m.early_kill = True
    a = f.map(3)
    f.p.write(a + PAGE, b"x")
    there = f.p.mremap(a + PAGE, PAGE, PAGE, new_addr=ARENA + 64 * PAGE)
    child = f.p.fork("child")
    child.mremap(there, PAGE, PAGE, new_addr=ARENA + 99 * PAGE)
    failure = f.m.memory_failure(f.page(f.p, there))
    assert told(failure) == [
        ("p", "BUS_MCEERR_AO", there), ("child", "BUS_MCEERR_AO", ARENA + 99 * PAGE),
    ]  # fmt: skip
    assert f.sound()


def test_an_mlocked_page_is_unmapped_all_the_same() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.mlock(a, PAGE)
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page)
    # PG_mlocked goes with the last mapping, and with it the page's place on the unevictable list.
    assert (failure.kind, failure.result) == ("dirty_lru", "recovered")
    assert poisoned(f, f.p, a) == page
    assert f.sound()
    f.p.munlock(a, PAGE)
    f.p.exit()
    assert f.sound()


def test_a_page_that_holds_nothing_is_no_reason_to_kill() -> None:
    # Given up by MADV_FREE and not written to since: clean, so nothing is lost.
    f = Faulting()
    f.m.early_kill = True
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.madvise(a, PAGE, "free")
    failure = f.m.memory_failure(f.page(f.p, a))
    assert (failure.kind, failure.result, failure.kills) == ("clean_lru", "recovered", ())
    with pytest.raises(BrokenMemory):
        f.p.read(a, 1)


def test_a_page_in_the_swap_cache_that_swap_has_a_copy_of_is_read_again() -> None:
    f = Faulting()
    f.m.early_kill = True
    a = f.map(1)
    f.p.write(a, b"swapped")
    child = f.p.fork("child")
    f.p.madvise(a, PAGE, "pageout")
    assert f.p.read(a, 7) == b"swapped"  # by a read, so that the slot stays good
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result, failure.kills) == ("clean_swapcache", "recovered", ())
    assert f.counts(page) == (0, 1)
    assert (f.p.read(a, 7), child.read(a, 7)) == (b"swapped", b"swapped")
    assert f.page(f.p, a) != page
    assert f.sound()


def test_a_page_in_the_swap_cache_that_is_dirty_waits_there_for_its_users() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    child = f.p.fork("child")
    page = f.page(f.p, a)
    # A pin keeps reclaim from freeing it: unmapped, written, and still in the swap cache.
    with f.p.pin(a, PAGE):
        f.p.madvise(a, PAGE, "pageout")
        assert f.p.pages(a, PAGE) == [0]
    f.k.pg_flags[page] |= bits.PG_dirty
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result, failure.error) == ("dirty_swapcache", "delayed", 0)
    for p in (f.p, child):
        with pytest.raises(BrokenMemory):
            p.read(a, 1)
    assert f.flags(page, bits.PG_swapcache | bits.PG_hwpoison)
    assert not f.flags(page, bits.PG_uptodate)
    assert f.sound()
    # It leaves the swap cache with the last entry, and is nobody's then, but not free.
    f.p.exit()
    child.exit()
    assert f.counts(page) == (0, 1)
    assert not f.flags(page, bits.PG_swapcache)
    assert f.sound()


def test_a_page_that_a_device_holds_is_not_recovered() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    pin = f.p.pin(a, PAGE)
    failure = f.m.memory_failure(page, action_required=f.p)
    assert (failure.kind, failure.result, failure.error) == ("dirty_lru", "failed", -errno.EBUSY)
    # Told of the page, and then that it was not recovered.
    assert told(failure) == [("p", "BUS_MCEERR_AR", a), ("p", "SIGBUS", 0)]
    pin.release()
    assert f.sound()


# ---------------------------------------------------------------- who is killed for good


def test_who_still_has_the_page_must_not_run_on() -> None:
    # try_to_unmap() fails half way: exec's neighbour, a swap count that cannot be had.
    f = Faulting()
    f.m.early_kill = True
    a = f.map(1)
    f.p.write(a, b"x")
    child = f.p.fork("child")
    f.p.madvise(a, PAGE, "pageout")
    f.p.read(a, 1)
    child.read(a, 1)
    page = f.page(f.p, a)
    f.k.pg_flags[page] |= bits.PG_dirty
    f.m.inject = Failing(2, "swap_duplicate")
    failure = f.m.memory_failure(page)
    f.m.inject = None
    assert (failure.kind, failure.result, failure.error) == (
        "unmap_failed", "ignored", -errno.EBUSY,
    )  # fmt: skip
    assert told(failure) == [("p", "SIGKILL", 0), ("child", "SIGKILL", 0)]
    assert not f.p.alive
    assert not child.alive
    assert f.sound()


def test_without_memory_to_note_them_nobody_is_told_until_the_touch() -> None:
    for first, expected in ((1, []), (2, ["p"])):
        f = Faulting()
        f.m.early_kill = True
        a = f.map(1)
        f.p.write(a, b"x")
        child = f.p.fork("child")
        f.m.inject = Failing(first, "to_kill")
        failure = f.m.memory_failure(f.page(f.p, a))
        f.m.inject = None
        assert [kill.process.name for kill in failure.kills] == expected
        assert failure.result == "recovered"
        with pytest.raises(BrokenMemory):
            child.read(a, 1)
        assert f.sound()


# ---------------------------------------------------------------- files


def test_a_clean_page_of_a_file_is_dropped_and_read_again() -> None:
    f = Faulting()
    f.m.early_kill = True
    file = f.file(content=b"on disk")
    a = f.map(4, kind="file", file=file)
    q = f.m.spawn("q")
    b = q.mmap(4 * PAGE, kind="file", file=file)
    assert f.p.read(a, 7) == q.read(b, 7) == b"on disk"
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result, failure.kills) == ("clean_lru", "recovered", ())
    assert f.pte(f.p, a) == f.pte(q, b) == 0
    assert f.p.read(a, 7) == b"on disk"
    assert f.page(f.p, a) not in (0, page)
    assert f.counts(page) == (0, 1)
    assert f.sound()


def test_whether_it_is_clean_is_known_only_after_page_mkclean() -> None:
    f = Faulting()
    f.m.early_kill = True
    file = f.file(content=b"on disk")
    a = f.map(4, kind="file", file=file)
    f.p.write(a, b"changed")
    file.writeback()
    f.p.read(a, 1)
    page = f.page(f.p, a)
    # A dirty bit that only the entry has, as a CPU sets it behind everybody's back.
    f.set_pte(f.p, a, f.pte(f.p, a) | bits._PAGE_DIRTY | bits._PAGE_RW)
    assert not f.flags(page, bits.PG_dirty)
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result) == ("dirty_lru", "recovered")
    assert told(failure) == [("p", "BUS_MCEERR_AO", a)]
    assert poisoned(f, f.p, a) == page


def test_a_dirty_page_of_a_file_is_lost_and_fsync_says_so_once() -> None:
    f = Faulting()
    file = f.file(content=b"old")
    a = f.map(4, kind="file", file=file)
    f.p.write(a, b"new")
    q = f.m.spawn("q")
    b = q.mmap(4 * PAGE, "r", kind="file", file=file)
    q.read(b, 1)
    r = f.m.spawn("r")
    c = r.mmap(4 * PAGE, "r", kind="file", file=file)
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page, action_required=q)
    assert (failure.kind, failure.result) == ("dirty_lru", "recovered")
    # Of a file it does not matter whose table has it: whoever maps that place is told.
    assert told(failure) == [
        ("p", "BUS_MCEERR_AO", a), ("q", "BUS_MCEERR_AR", b), ("r", "BUS_MCEERR_AO", c),
    ]  # fmt: skip
    for p, address in ((f.p, a), (q, b)):
        with pytest.raises(BrokenMemory):
            p.read(address, 1)
    # Anybody else reads what was on disk.
    assert r.read(c, 3) == file.read(0, 3) == b"old"
    with pytest.raises(SyscallError, match="fsync") as lost:
        file.writeback()
    assert lost.value.errno == errno.EIO
    assert file.writeback() == 0
    assert f.sound()


def test_a_page_of_shared_memory_becomes_a_hole() -> None:
    f = Faulting()
    file = f.file(shmem=True)
    a = f.map(4, kind="file", file=file)
    f.p.write(a, b"shared")
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page, action_required=f.p)
    assert (failure.kind, failure.result) == ("dirty_lru", "recovered")
    assert told(failure) == [("p", "BUS_MCEERR_AR", a)]
    with pytest.raises(BrokenMemory):
        f.p.read(a, 1)
    # v4.18 tells nobody who comes later: the file reads as zeros there.
    assert file.read(0, 6) == bytes(6)
    assert f.sound()


def test_a_page_of_a_file_that_nobody_maps() -> None:
    f = Faulting()
    file = f.file(content=b"disk")
    file.read(0, 1)
    file.write(PAGE, b"dirty")
    clean, dirty = file.cached[0], file.cached[1]
    assert f.m.memory_failure(clean).kind == "clean_lru"
    assert f.m.memory_failure(dirty).kind == "dirty_lru"
    assert file.cached == {}
    assert file.read(0, 4) == b"disk"
    assert file.read(PAGE, 5) == bytes(5)
    with pytest.raises(SyscallError):
        file.writeback()
    assert f.sound()


# ---------------------------------------------------------------- other pages


def test_a_free_page_is_never_given_out_again() -> None:
    f = Faulting(ram=64)
    a = f.map(1)
    f.p.write(a, b"x")
    freed = f.page(f.p, a)
    f.p.munmap(a, PAGE)
    for page in (freed, 63):
        failure = f.m.memory_failure(page)
        assert (failure.kind, failure.result, failure.error) == ("buddy", "delayed", 0)
    assert f.m.mem_stats()["nr_free_pages"] == f.k.nr_free
    b = f.p.mmap(48 * PAGE)
    f.p.touch(b, 48 * PAGE)
    assert not {freed, 63} & set(f.p.pages(b, 48 * PAGE))
    assert f.k.num_poisoned_pages == 2
    assert f.sound()


def test_no_run_of_pages_has_a_broken_one_in_it() -> None:
    k = world(4096)
    assert memory_failure(k, 600, 0) == memory_failure(k, 1024, 0) == 0
    heads = []
    while head := int(alloc_pages(k, bits.GFP_HIGHUSER, bits.HPAGE_PMD_ORDER)):
        heads.append(head)
    assert heads == [1536, 2048, 2560, 3072, 3584]
    # What lies around the broken pages is for smaller wants.
    small = [int(alloc_page(k, bits.GFP_HIGHUSER)) for _ in range(4096 - 5 * 512 - 2)]
    assert len(set(small)) == len(small)
    assert not {0, 600, 1024} & set(small)
    assert alloc_page(k, bits.GFP_HIGHUSER) == 0


def test_what_is_known_to_be_broken_is_not_dealt_with_twice() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.m.memory_failure(page)
    again = f.m.memory_failure(page)
    assert (again.kind, again.error, again.kills) == ("", 0, ())
    assert f.k.num_poisoned_pages == 1
    assert f.sound()


def test_the_zero_page_is_the_kernels_own() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.read(a, 1)
    failure = f.m.memory_failure(f.k.zero_page)
    assert (failure.kind, failure.result, failure.error) == ("kernel", "failed", -errno.EBUSY)
    assert f.p.read(a, 1) == b"\0"
    assert f.sound()


@pytest.mark.parametrize("page", [0, 513])
def test_a_page_that_there_is_not(page: int) -> None:
    f = Faulting()
    assert f.m.memory_failure(page).error == -errno.ENXIO
    assert not f.k.mf_actions


def test_a_page_of_a_device_is_of_no_kind_that_is_known() -> None:
    f = Faulting()
    gpu = f.m.device(4)
    a = f.map(1)
    f.p.write(a, b"x")
    gpu.pull(f.p, a, PAGE)
    page = gpu.page(f.p, a)
    with pytest.raises(SyscallError) as refused:
        f.m.soft_offline(page)
    assert refused.value.errno == errno.EIO
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result, failure.error) == ("unknown", "failed", -errno.EBUSY)
    assert gpu.page(f.p, a) == page


def merged(f: Faulting) -> tuple[list[tuple[Process, int]], int]:
    """A page that KSM made one of three, of two processes."""
    q = f.m.spawn("q")
    places = [(f.p, f.map(1)), (f.p, f.p.mmap(PAGE)), (q, q.mmap(PAGE))]
    for p, address in places:
        p.write(address, b"same")
        p.madvise(address, PAGE, "mergeable")
    for _ in range(3):
        f.m.ksm.scan()
    page = f.page(*places[0])
    assert [f.page(p, address) for p, address in places] == [page] * 3
    return places, page


def test_a_merged_page_is_more_than_4_18_can_handle() -> None:
    f = Faulting()
    f.m.early_kill = True
    places, page = merged(f)
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result, failure.error) == (
        "unmap_failed", "ignored", -errno.EBUSY,
    )  # fmt: skip
    # Nobody is told, and all go on reading it.
    assert failure.kills == ()
    assert [f.page(p, address) for p, address in places] == [page] * 3
    assert f.flags(page, bits.PG_hwpoison)
    assert f.sound()


def test_a_merged_page_moves_before_it_breaks() -> None:
    f = Faulting()
    places, page = merged(f)
    f.m.soft_offline(page)
    assert len({f.page(p, address) for p, address in places} - {page}) == 1
    assert [p.read(address, 4) for p, address in places] == [b"same"] * 3
    assert f.counts(page) == (0, 0)
    assert f.sound()


# ---------------------------------------------------------------- poisoned entries


def test_a_poisoned_entry_goes_the_ways_of_other_entries() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"x")
    f.p.write(a + PAGE, b"y")
    page = f.page(f.p, a)
    f.m.memory_failure(page)
    # fork copies it,
    child = f.p.fork("child")
    assert poisoned(f, child, a) == page
    # mprotect leaves it alone,
    f.p.mprotect(a, 2 * PAGE, "r")
    f.p.mprotect(a, 2 * PAGE, "rw")
    assert poisoned(f, f.p, a) == page
    # mremap moves it,
    b = f.p.mremap(a, PAGE, PAGE, new_addr=ARENA + 64 * PAGE)
    assert poisoned(f, f.p, b) == page
    # no pin and no mlock gets it,
    with pytest.raises(SyscallError) as refused:
        f.p.pin(b, PAGE)
    assert refused.value.errno == errno.EFAULT
    assert check_user_page_hwpoison(f.k, f.p.mm, b)
    assert not check_user_page_hwpoison(f.k, f.p.mm, a + PAGE)
    assert not check_user_page_hwpoison(f.k, f.p.mm, b + PAGE)
    # swapoff does not look at it,
    f.m.swapoff()
    # and with it goes the memory of the error: the place can be had anew.
    f.p.madvise(b, PAGE, "dontneed")
    assert f.p.read(b, 1) == b"\0"
    child.madvise(a, PAGE, "free")
    assert poisoned(f, child, a) == page
    child.exit()
    assert f.counts(page) == (0, 1)
    assert f.sound()


def test_madv_hwpoison_breaks_page_after_page() -> None:
    f = Faulting()
    a = f.map(3)
    f.p.write(a, b"x")
    f.p.write(a + PAGE, b"y")
    f.p.write(a + 2 * PAGE, b"z")
    pages = f.p.pages(a, 3 * PAGE)
    f.p.madvise(a, 2 * PAGE, "hwpoison")
    assert [poisoned(f, f.p, a + n * PAGE) for n in range(3)] == [*pages[:2], 0]
    assert f.k.kills == []
    assert f.p.read(a + 2 * PAGE, 1) == b"z"
    # What is broken cannot be faulted in, and so not broken again.
    with pytest.raises(SyscallError) as refused:
        f.p.madvise(a, PAGE, "hwpoison")
    assert refused.value.errno == errno.EFAULT
    assert f.sound()


def test_madv_hwpoison_of_a_page_that_is_known_goes_on_behind_it() -> None:
    f = Faulting()
    file = f.file(content=b"x" * PAGE + b"y" * PAGE)
    a = f.map(2, kind="file", file=file)
    assert f.p.read(a, 1) == b"x"
    first = f.page(f.p, a)
    f.k.pg_flags[first] |= bits.PG_hwpoison
    f.p.madvise(a, 2 * PAGE, "hwpoison")
    assert f.page(f.p, a) == first
    assert f.k.num_poisoned_pages == 1
    f.k.pg_flags[first] &= ~bits.PG_hwpoison
    assert f.sound()


# ---------------------------------------------------------------- taking it back


def test_a_page_that_nobody_has_is_free_again() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    free = f.m.mem_stats()["nr_free_pages"]
    f.m.memory_failure(page)
    assert f.m.unpoison(page)
    assert f.k.num_poisoned_pages == 0
    assert f.m.mem_stats()["nr_free_pages"] == free + 1
    # The entry does not know of that.
    with pytest.raises(BrokenMemory):
        f.p.read(a, 1)
    # A free page that was broken in its place is as before.
    assert f.m.memory_failure(page).kind == "buddy"
    assert f.m.unpoison(page)
    assert f.m.unpoison(page)
    assert f.sound()


def test_a_page_that_somebody_has_stays_broken() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    pin = f.p.pin(a, PAGE)
    f.m.memory_failure(page)
    assert not f.m.unpoison(page)
    pin.release()
    assert f.m.unpoison(page)
    assert f.sound()
