# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages that are split, in machines that run: what processes stored is still there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.mm.bits import HPAGE_PMD_NR, PG_anon_exclusive
from rmap.mm.page import compound_order
from rmap.mm.profile import profile
from rmap.model import Machine, Process

PAGE = 4096
HUGE = HPAGE_PMD_NR * PAGE
AT = 1 << 30


def machine(ram: int = 8192, swap: int = 0, base: str = "4.18", **quirks: bool) -> Machine:
    """A machine whose anonymous memory is huge where it can be."""
    m = Machine(ram=ram, swap=swap, profile=profile(base, **quirks))
    m.thp.enabled = "always"
    return m


def one(m: Machine) -> tuple[Process, int, int]:
    """A process with a huge page: itself, the address, the head."""
    p = m.spawn("p")
    a = p.mmap(HUGE, addr=AT)
    p.write(a, b"first")
    (head,) = p.pages(a, 1)
    assert compound_order(m.kernel, head) == 9
    return p, a, head


def sound(m: Machine) -> None:
    assert m.check() == []
    assert m.warnings == []


@pytest.mark.parametrize("base", ["4.18", "6.1", "6.12"])
def test_a_huge_page_is_split_and_goes_on_as_it_was(base: str) -> None:
    m = machine(base=base)
    p, a, head = one(m)
    p.write(a + HUGE - 4, b"last")
    child = p.fork()
    assert m.split_huge_page(head + 100)
    sound(m)
    assert compound_order(m.kernel, head) == 0
    assert p.pages(a, HUGE) == child.pages(a, HUGE) == list(range(head, head + HPAGE_PMD_NR))
    child.write(a, b"child")
    assert (p.read(a, 5), child.read(a, 5)) == (b"first", b"child")
    assert (p.read(a + HUGE - 4, 4), child.read(a + HUGE - 4, 4)) == (b"last", b"last")
    assert [(w.process, w.address) for w in m.who_maps(head)] == [(p, a)]
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_a_pinned_huge_page_stays_whole(base: str) -> None:
    m = machine(base=base)
    p, a, head = one(m)
    with p.pin(a, 4, write=True):
        assert not m.split_huge_page(head)
        assert compound_order(m.kernel, head) == 9
        sound(m)
    assert m.split_huge_page(head)
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1", "6.12"])
@pytest.mark.parametrize("prot", ["r", "rw"])
def test_what_was_ours_alone_is_ours_after_the_split(base: str, prot: str) -> None:
    """Writes go to the parts themselves, also where the entries forbade them meanwhile."""
    m = machine(base=base)
    p, a, head = one(m)
    p.mprotect(a, HUGE, prot)
    assert m.split_huge_page(head)
    if base != "4.18":
        assert all(m.kernel.pg_flags[head + i] & PG_anon_exclusive for i in (0, 1, 511))
    p.mprotect(a, HUGE, "rw")
    p.write(a + 7 * PAGE, b"seven")
    assert p.pages(a, HUGE) == list(range(head, head + HPAGE_PMD_NR))
    assert m.mem_stats()["cow_copies"] == 0
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_what_was_shared_is_copied_after_the_split(base: str) -> None:
    m = machine(base=base)
    p, a, head = one(m)
    child = p.fork()
    assert m.split_huge_page(head)
    assert not m.kernel.pg_flags[head + 7] & PG_anon_exclusive
    p.write(a + 7 * PAGE, b"seven")
    assert p.pages(a + 7 * PAGE, 1) != [head + 7]
    assert child.read(a + 7 * PAGE, 5) == bytes(5)
    child.exit()
    p.write(a, b"again")
    assert p.pages(a, 1) == [head]
    sound(m)


def test_only_huge_pages_can_be_split() -> None:
    m = machine()
    p, _a, head = one(m)
    assert m.split_huge_page(head)
    for page in (head, 0, 1 << 30):
        with pytest.raises(ValueError, match="no part of a transparent huge page"):
            m.split_huge_page(page)
    b = p.mmap(HUGE, addr=AT + HUGE)
    p.read(b, 1)
    with pytest.raises(ValueError, match="or of zeros"):
        m.split_huge_page(m.kernel.huge_zero_page + 1)
    # No rmap knows who maps it.
    assert m.try_to_unmap(m.kernel.huge_zero_page)
    assert p.pages(b, 1) == [m.kernel.huge_zero_page]


def test_memory_of_parts_that_are_unmapped_comes_back_when_it_is_asked_for() -> None:
    m = machine()
    p, a, _head = one(m)
    assert m.shrink_deferred() == 0
    free = m.mem_stats()["nr_free_pages"]
    p.munmap(a + 100 * PAGE, 50 * PAGE)
    assert m.mem_stats()["nr_free_pages"] == free
    sound(m)
    assert m.shrink_deferred() == 1
    assert m.mem_stats()["nr_free_pages"] == free + 50
    assert p.read(a, 5) == b"first"
    sound(m)


def test_reclaim_swaps_huge_pages_part_by_part_and_faults_bring_parts_back() -> None:
    m = machine(swap=2048)
    p, a, head = one(m)
    for i in range(0, HPAGE_PMD_NR, 50):
        p.write(a + i * PAGE, b"%03d" % i)
    m.page_referenced([head])
    m.age(HPAGE_PMD_NR)
    assert m.reclaim(32).swapped >= 1
    m.reclaim(HPAGE_PMD_NR)
    sound(m)
    assert p.pages(a, HUGE).count(0) > 0
    for i in range(0, HPAGE_PMD_NR, 50):
        assert p.read(a + i * PAGE, 3) == b"%03d" % i
    sound(m)


def test_unmapping_a_huge_page_as_reclaim_does_splits_it() -> None:
    m = machine(swap=2048)
    p, a, head = one(m)
    m.page_referenced([head])
    assert m.try_to_unmap(head + 3)
    pages = p.pages(a, HUGE)
    assert [i for i, page in enumerate(pages) if not page] == [3]
    assert p.read(a, 5) == b"first"
    with p.pin(p.mmap(HUGE, addr=AT + HUGE), 4, write=True) as pin:
        assert not m.try_to_unmap(pin.pages[0])
    sound(m)


def test_idle_tracking_sees_a_huge_page_as_one() -> None:
    m = machine()
    p, a, head = one(m)
    child = p.fork()
    m.page_idle_mark([head, head + 7])
    assert m.page_idle(head)
    # A tail is on no list, and has no mark of its own.
    assert not m.page_idle(head + 7)
    child.read(a + 9 * PAGE, 1)
    assert not m.page_idle(head)
    # What idle tracking took, aging is told.
    p.read(a, 1)
    m.page_idle_mark([head])
    assert m.page_referenced([head]) == 1
    assert m.page_referenced([head]) == 0


def test_aging_counts_vmas_whatever_they_map_it_by() -> None:
    m = machine()
    p, a, head = one(m)
    children = [p.fork() for _ in range(3)]
    m.page_referenced([head])
    for q in children:
        q.read(a, 1)
    # Splits a PMD, which was young, as the entries are then; and the VMA, which is two.
    children[0].munmap(a + 5 * PAGE, PAGE)
    assert m.page_referenced([head]) == 4
    assert m.page_referenced([head]) == 0
    sound(m)


# ---------------------------------------------------------------- any structure of mappings


STEP = st.tuples(
    st.sampled_from(["fork", "write", "unmap", "free", "protect", "exit", "split", "move"]),
    st.integers(0, 5),
    st.integers(0, HPAGE_PMD_NR - 1),
    st.integers(1, 40),
)


@given(
    st.sampled_from(["4.18", "6.1"]), st.lists(STEP, max_size=12), st.integers(0, HPAGE_PMD_NR - 1)
)
def test_whoever_maps_what_of_it_a_split_changes_nothing_that_can_be_read(
    base: str, steps: list[tuple[str, int, int, int]], part: int
) -> None:
    """Processes share a huge page by PMDs and by PTEs, and some parts are nobody's."""
    m = machine(ram=16384, base=base)
    p, _a, _head = one(m)
    stored: dict[Process, dict[int, bytes]] = {p: {0: b"first"}}
    for number, (what, which, first, count) in enumerate(steps):
        q = list(stored)[which % len(stored)]
        words = stored[q]
        last = min(first + count, HPAGE_PMD_NR)
        here = AT + first * PAGE
        length = (last - first) * PAGE
        mapped = {
            page for vma in q.vmas for page in range(vma.vm_start // PAGE, vma.vm_end // PAGE)
        }
        whole = all(here // PAGE + i in mapped for i in range(last - first))
        if what == "fork" and len(stored) < 5:
            stored[q.fork()] = dict(words)
        elif what == "write" and q.vma_at(here):
            q.mprotect(here, PAGE, "rw")
            q.write(here, b"%05d" % number)
            words[first] = b"%05d" % number
        elif what == "unmap":
            q.munmap(here, length)
            for i in range(first, last):
                words.pop(i, None)
        elif what == "free" and whole:
            q.madvise(here, length, "dontneed")
            for i in range(first, last):
                words.pop(i, None)
        elif what == "protect" and whole:
            q.mprotect(here, length, "r")
        elif what == "exit" and len(stored) > 1:
            del stored[q]
            q.exit()
        elif what == "move" and (vma := q.vma_at(here)) and here + length <= vma.vm_end:
            to = q.mmap(length, addr=AT + 8 * HUGE + number * HUGE)
            q.mremap(here, length, length, new_addr=to)
            q.mremap(to, length, length, new_addr=here)
        elif what == "split":
            _split_all(m, q)
    for q in list(stored):
        for page in {page for page in q.pages(AT, HUGE) if page}:
            if compound_order(m.kernel, page) == 9:
                m.split_huge_page(page + part)
    assert m.check() == []
    k = m.kernel
    for q, words in stored.items():
        for page in q.pages(AT, HUGE):
            assert not page or compound_order(k, page) == 0
        for i, word in words.items():
            assert q.read(AT + i * PAGE, 5) == word
    # Nothing is left of it in the queue, and all memory comes back in the end.
    for q in list(stored):
        q.exit()
    assert not k.deferred_split_queue
    assert m.check() == []
    assert m.mem_stats()["nr_anon_mapped"] == 0


def _split_all(m: Machine, q: Process) -> None:
    """Split what the process maps that is huge."""
    for page in {page for page in q.pages(AT, HUGE) if page}:
        if compound_order(m.kernel, page) == 9:
            m.split_huge_page(page)
