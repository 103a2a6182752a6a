# SPDX-License-Identifier: GPL-2.0-only
"""Two pages become one: who may be merged, what it costs and counts, and what a write brings."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE
from merging import Merging

from rmap.mm import bits
from rmap.mm.gup import get_user_pages, put_user_pages
from rmap.mm.ksm.merge import try_to_merge_one_page
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import PageKsm, lock_page, unlock_page
from rmap.mm.rmap_walk import page_address_in_vma

PROFILES = ("4.18", "6.1", "6.12")
KSM = bits.PAGE_MAPPING_KSM


@pytest.fixture(params=PROFILES)
def f(request: pytest.FixtureRequest) -> Merging:
    return Merging(base=request.param)


def test_8_18_equal_pages_of_two_processes_become_one() -> None:
    """Trace 8.18: X of P and Y of Q become K; Q forks D; a walk; a write in D."""
    f = Merging()
    q = f.offer(b"same", name="Q")
    p = f.offer(b"same", name="P")
    x, y = f.of(p), f.of(q)
    own_p, own_q = p.vmas[0].anon_vma, q.vmas[0].anon_vma
    assert (own_p.refcount, own_q.refcount) == (1, 1)
    f.rounds(1)
    assert (f.of(p), f.of(q)) == (x, y)
    f.rounds(1)
    # X is upgraded where it is, and Y replaced and freed.
    assert f.of(p) == f.of(q) == x
    assert f.k.pg_refcount[y] == 0
    assert f.counts(x) == (2, 2)
    node = f.node(x)
    assert f.k.pg_mapping[x] == node.handle << bits.MAPPING_HANDLE_SHIFT | KSM
    assert node.kpfn == x
    assert f.told(p, ARENA) == READ
    assert f.told(q, ARENA) == READ
    places = {(item.mm, item.address & bits.PAGE_MASK, item.anon_vma) for item in node.hlist}
    assert places == {(p.mm, ARENA, own_p), (q.mm, ARENA, own_q)}
    # Each item pins the anon_vma of its VMA.
    assert (own_p.refcount, own_q.refcount) == (2, 2)
    d = q.fork("D")
    assert f.counts(x) == (3, 3)
    assert len(node.hlist) == 2
    # First the places of the items, then Q's tree once more for D.
    assert f.walked(x) == [("P", 0), ("Q", 0), ("D", 0)]
    assert f.sound()
    before = f.stat("COW_COPIES")
    d.write(ARENA, b"D")
    assert f.stat("COW_COPIES") == before + 1
    assert f.counts(x) == (2, 2)
    assert (p.read(ARENA, 4), q.read(ARENA, 4), d.read(ARENA, 4)) == (b"same", b"same", b"Dame")
    assert f.named(f.of(d)) is d.vmas[0].anon_vma
    assert f.sound()
    assert f.gone()


def test_a_merged_page_is_never_reused_not_even_by_the_last_who_maps_it(f: Merging) -> None:
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    q.write(ARENA, b"Q")
    assert f.counts(page) == (1, 1)
    p.write(ARENA, b"P")
    assert f.of(p) != page
    assert f.k.pg_refcount[page] == 0
    assert (p.read(ARENA, 4), q.read(ARENA, 4)) == (b"Pame", b"Qame")
    # The node of the freed page is found stale by whoever comes by.
    assert f.counted() == (1, 1, 0, 0)
    f.rounds()
    assert f.counted() == (0, 0, 2, 0)
    assert f.sound()
    assert f.gone()


def test_pages_within_one_process_and_many_places(f: Merging) -> None:
    p = f.offer(b"a", b"b", b"a", b"a", b"b", b"c")
    f.rounds(3)
    a, b = f.of(p, 0), f.of(p, 1)
    assert [f.of(p, i) for i in range(5)] == [a, b, a, a, b]
    assert f.counted() == (2, 3, 1, 0)
    assert f.counts(a) == (3, 3)
    assert f.rss(p) == (0, 6, 0, 0)
    assert f.stat("NR_ANON_MAPPED") == 3
    assert f.sound()
    child = p.fork("child")
    f.rounds(1)
    # ksmd has given the child items of its own, by which the walk meets each place twice.
    assert f.counts(a) == (6, 6)
    assert f.counted() == (2, 8, 1, 1)
    assert sorted(set(f.walked(a))) == [(name, i) for name in ("child", "p1") for i in (0, 2, 3)]
    assert f.sound()
    child.exec("other")
    assert f.sound()
    assert f.gone()


def test_what_changes_too_fast_is_volatile_and_what_stays_unshared() -> None:
    f = Merging()
    p = f.offer(b"a", b"b")
    for turn in range(3):
        p.write(f.at(0), b"%d" % turn)
        f.rounds(1)
        assert f.counted() == (0, 0, min(turn, 1), 2 - min(turn, 1))
    f.rounds(1)
    assert f.counted() == (0, 0, 2, 0)
    assert f.sound()


def test_merged_means_read_only_clean_and_dirty_in_the_page(f: Merging) -> None:
    p, q = f.offer(b"same"), f.offer(b"same")
    assert f.told(p, ARENA) == f.told(q, ARENA) == WRITE
    f.rounds()
    page = f.of(p)
    for process in (p, q):
        assert f.told(process, ARENA) & (bits._PAGE_RW | bits._PAGE_DIRTY) == 0
    # Otherwise reclaim would drop it instead of writing it to swap.
    assert f.flags(page, bits.PG_dirty)
    assert not f.flags(page, bits.PG_anon_exclusive)
    assert PageKsm(f.k, page)
    assert f.sound()


def test_a_page_that_somebody_else_holds_is_not_merged(f: Merging) -> None:
    p, q = f.offer(b"same"), f.offer(b"same")
    with p.pin(ARENA, PAGE):
        f.rounds(3)
        assert f.of(p) != f.of(q)
        # Its entry is what it was: a write needs no fault.
        assert f.told(p, ARENA) == WRITE
        assert f.sound()
    f.rounds(1)
    assert f.of(p) == f.of(q)
    assert f.sound()


def test_a_reference_to_a_merged_page_does_not_keep_others_from_merging_into_it() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    with f.m.running(p) as k:
        pages = get_user_pages(k, p.mm, ARENA, 1, False)
    r = f.offer(b"same")
    f.rounds()
    assert f.of(r) == page
    put_user_pages(f.k, pages)
    assert f.counts(page) == (3, 3)
    assert q.read(ARENA, 4) == b"same"
    assert f.sound()


def test_a_page_that_is_locked_is_left_for_the_next_round() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    page = f.of(q)
    lock_page(f.k, page)
    f.rounds(3)
    assert f.of(p) != f.of(q)
    unlock_page(f.k, page)
    f.rounds(1)
    assert f.of(p) == f.of(q)
    assert f.sound()


@pytest.mark.parametrize("kind", ["shared", "file", "fileprivate"])
def test_advice_about_what_cannot_be_merged_is_taken_and_ignored(kind: str) -> None:
    f = Merging()
    file = f.file(2, b"x" * PAGE * 2)
    p = f.m.spawn("p")
    a = p.mmap(2 * PAGE, kind=kind, file=None if kind == "shared" else file)
    p.madvise(a, 2 * PAGE, "mergeable")
    wanted = kind == "fileprivate"
    assert bool(p.vmas[0].vm_flags & bits.VM_MERGEABLE) is wanted
    assert bool(p.mm.flags & bits.MMF_VM_MERGEABLE) is wanted


def test_private_copies_of_a_file_are_merged_and_its_own_pages_are_not(f: Merging) -> None:
    file = f.file(3, b"x" * PAGE * 3)
    p = f.m.spawn("p")
    a = p.mmap(3 * PAGE, kind="fileprivate", file=file, addr=ARENA)
    for i in (0, 1):
        p.write(a + i * PAGE, b"copy")
    p.read(a + 2 * PAGE, 1)
    p.madvise(a, 3 * PAGE, "mergeable")
    f.rounds()
    assert f.of(p, 0) == f.of(p, 1) != f.of(p, 2)
    assert f.counted() == (1, 1, 0, 0)
    assert f.sound()
    file.truncate(0)
    f.rounds(1)
    assert f.counted() == (0, 0, 0, 0)
    assert f.sound()


def test_pages_of_zeros_become_the_zero_page_if_that_is_wanted(f: Merging) -> None:
    f.m.ksm.use_zero_pages = True
    p = f.offer(b"\0", b"x", b"\0")
    was = [f.of(p, i) for i in range(3)]
    assert f.rss(p) == (0, 3, 0, 0)
    f.rounds()
    assert f.rss(p) == (0, 1, 0, 0)
    for i in (0, 2):
        pte = f.pte(p, f.at(i))
        assert pte & bits._PAGE_SPECIAL
        assert not pte & bits._PAGE_RW
        assert f.k.pg_refcount[was[i]] == 0
    # Nothing is shared, as KSM counts: the zero page is nobody's.
    assert f.counted()[:2] == (0, 0)
    assert p.read(ARENA, 3) == bytes(3)
    p.write(ARENA, b"mine")
    assert f.rss(p) == (0, 2, 0, 0)
    assert f.sound()
    assert f.gone()


def test_without_that_pages_of_zeros_are_merged_as_any() -> None:
    f = Merging()
    p = f.offer(b"\0", b"\0")
    f.rounds()
    assert f.of(p, 0) == f.of(p, 1) != f.k.zero_page
    assert f.counted() == (1, 1, 0, 0)


def test_memory_that_is_locked_stays_so_when_it_is_merged(f: Merging) -> None:
    p, q = f.offer(b"same"), f.offer(b"same")
    p.mlock(ARENA, PAGE)
    f.rounds()
    page = f.of(p)
    assert f.of(q) == page
    assert f.flags(page, bits.PG_mlocked | bits.PG_unevictable) or f.flags(page, bits.PG_mlocked)
    assert f.stat("NR_MLOCK") == 1
    assert f.sound()
    p.munlock(ARENA, PAGE)
    assert f.stat("NR_MLOCK") == 0
    assert f.sound()


def test_a_locked_place_whose_page_goes_makes_the_other_mlocked() -> None:
    """v4.18 moves the mark by hand, and the page that is locked becomes the other one."""
    for first in (True, False):
        f = Merging()
        p, q = f.offer(b"same"), f.offer(b"same")
        (p if first else q).mlock(ARENA, PAGE)
        f.rounds()
        page = f.of(p)
        assert f.of(q) == page
        assert f.flags(page, bits.PG_mlocked)
        assert f.sound()
        assert f.gone()


def test_secondary_mmus_hear_what_merging_does() -> None:
    f = Merging()
    told: list[tuple[str, int]] = []

    class Guest(MmuNotifier):
        def invalidate_range_start(self, k, mm, start, end):
            told.append(("start", int(start)))
            return 0

        def invalidate_range_end(self, k, mm, start, end):
            told.append(("end", int(start)))
            return 0

        def change_pte(self, k, mm, address, pte):
            told.append(("change", int(pte) & (bits._PAGE_RW | bits._PAGE_DIRTY)))
            return 0

    q = f.offer(b"same")
    p = f.offer(b"same")
    f.rounds(1)
    for process in (p, q):
        mmu_notifier_register(f.k, process.mm, Guest())
    f.rounds(1)
    once = [("start", ARENA), ("change", 0), ("end", ARENA)]
    # X is write-protected; so is Y, and then replaced.
    assert told == once * 3


def test_a_merged_page_belongs_at_no_address_by_its_mapping() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    for process in (p, q):
        assert page_address_in_vma(f.k, page, process.vmas[0]) == bits.PAGE_NOT_IN_VMA


def test_merging_is_refused_where_the_page_is_not_what_it_was() -> None:
    """Pages that differ after all, that are no anonymous ones, and that the VMA does not map."""
    f = Merging()
    p = f.offer(b"a", b"b")
    (vma,) = p.vmas
    a, b = f.of(p, 0), f.of(p, 1)
    file = f.file(1, b"a")
    mapped = p.mmap(PAGE, kind="file", file=file)
    p.read(mapped, 1)
    other = f.offer(b"c")
    with f.m.kthread("ksmd") as k:
        vma.vm_mm.mmap_sem.down_read()
        for page, kpage in ((a, b), (f.page(p, mapped), a), (f.of(other), a)):
            # As ksmd has it, by a reference of its own.
            k.pg_refcount[page] += 1
            assert try_to_merge_one_page(k, vma, page, kpage) == -bits.EFAULT
            k.pg_refcount[page] -= 1
        assert try_to_merge_one_page(k, vma, a, a) == 0
        vma.vm_mm.mmap_sem.up_read()
    # a was made read-only and clean before it was compared; its next write finds it its own.
    assert f.told(p, f.at(0)) == READ
    p.write(f.at(0), b"A")
    assert f.of(p, 0) == a
    assert f.sound()
