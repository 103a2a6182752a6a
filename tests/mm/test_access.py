# SPDX-License-Identifier: GPL-2.0-only
"""What a simulated CPU does for a load and a store, and what a missing flush shows as."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.mm import bits
from rmap.mm.access import cpu_access, read_bytes, touch_range
from rmap.mm.bug import KernelBug
from rmap.mm.pgtable import pfn_pte
from rmap.mm.tlb import flush_tlb_page, tlb_lookup
from rmap.model import Segfault

RANGE = st.integers(0, 6 * PAGE - 1).flatmap(
    lambda start: st.tuples(st.just(start), st.integers(1, 6 * PAGE - start))
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(RANGE, st.integers(0, 255), st.booleans()), max_size=10))
def test_bytes_are_loaded_as_they_were_stored(
    steps: list[tuple[tuple[int, int], int, bool]],
) -> None:
    f = Faulting()
    a = f.map(6)
    whole = bytearray(6 * PAGE)
    for (start, length), value, is_store in steps:
        if is_store:
            f.p.write(a + start, bytes([value]) * length)
            whole[start : start + length] = bytes([value]) * length
        else:
            assert f.p.read(a + start, length) == bytes(whole[start : start + length])
    assert f.p.read(a, 6 * PAGE) == bytes(whole)
    assert f.sound()


def test_a_cpu_goes_on_using_what_it_remembers_until_it_is_flushed() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"old")
    f.p.write(a + PAGE, b"new")
    old, new = f.p.pages(a, 2 * PAGE)
    (vma,) = f.p.vmas
    entry = f.pte(f.p, a)
    # A kernel that changed the entry, and forgot the flush.
    f.set_pte(f.p, a, f.pte(f.p, a + PAGE))
    assert f.p.read(a, 3) == b"old"
    with f.m.running(f.p):
        assert cpu_access(f.k, f.p.task, a, True) == old
        flush_tlb_page(f.k, vma, a)
        assert cpu_access(f.k, f.p.task, a, True) == new
    assert f.p.read(a, 3) == b"new"
    f.set_pte(f.p, a, entry)


def test_another_cpu_has_a_memory_of_its_own() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"old")
    f.p.write(a + PAGE, b"new")
    f.p.cpu = 1
    f.set_pte(f.p, a, f.pte(f.p, a + PAGE))
    assert f.p.read(a, 3) == b"new"


def test_a_load_marks_the_entry_accessed_and_a_store_dirty() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.cpu = 1
    clean = f.pte(f.p, a) & ~(bits._PAGE_ACCESSED | bits._PAGE_DIRTY)
    f.set_pte(f.p, a, clean)
    faults = f.stat("PGFAULT")
    f.p.read(a, 1)
    assert f.pte(f.p, a) == clean | bits._PAGE_ACCESSED
    # The first store through what a load has remembered walks once more, for the dirty bit.
    f.p.write(a, b"y")
    assert f.pte(f.p, a) == clean | bits._PAGE_ACCESSED | bits._PAGE_DIRTY
    assert f.stat("PGFAULT") == faults


def test_without_a_walk_no_bit_is_set_again() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    clean = f.pte(f.p, a) & ~(bits._PAGE_ACCESSED | bits._PAGE_DIRTY)
    f.set_pte(f.p, a, clean)
    f.p.write(a, b"y")
    assert f.pte(f.p, a) == clean


def test_a_store_through_a_clean_translation_faults_if_the_entry_forbids_it_by_now() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.p.cpu = 1
    f.set_pte(f.p, a, f.pte(f.p, a) & ~bits._PAGE_DIRTY)
    f.p.read(a, 1)
    with f.m.running(f.p):
        assert tlb_lookup(f.k, 1, f.p.mm, a) & bits._PAGE_RW
    f.set_pte(f.p, a, f.pte(f.p, a) & ~bits._PAGE_RW)
    faults = f.stat("PGFAULT")
    f.p.write(a, b"y")
    assert f.stat("PGFAULT") == faults + 1
    assert f.page(f.p, a) == page
    assert f.told(f.p, a) == WRITE


def test_a_range_is_touched_page_by_page_up_to_what_is_not_permitted() -> None:
    f = Faulting()
    a = f.map(8)
    f.p.munmap(a + 5 * PAGE, PAGE)
    with f.m.running(f.p) as k:
        assert touch_range(k, f.p.task, a + 100, a + 2 * PAGE + 1, True) == 3
        with pytest.raises(Segfault) as caught:
            touch_range(k, f.p.task, a + 2 * PAGE, a + 8 * PAGE, False)
        assert caught.value.address == a + 5 * PAGE
        assert not caught.value.write
        assert touch_range(k, f.p.task, a, a, True) == 0
    assert [f.told(f.p, a + n * PAGE) for n in range(8)] == (
        [WRITE] * 3 + [READ | bits._PAGE_SPECIAL] * 2 + [0] * 3
    )
    assert "a read at 0x100005000 is not permitted" in str(caught.value)


def test_a_store_that_runs_into_an_end_has_stored_what_came_before() -> None:
    f = Faulting()
    a = f.map(2)
    with pytest.raises(Segfault) as caught:
        f.p.write(a + 2 * PAGE - 2, b"abcd")
    assert caught.value.address == a + 2 * PAGE
    assert f.p.read(a + 2 * PAGE - 2, 2) == b"ab"


def test_no_address_beyond_user_space_is_reached() -> None:
    f = Faulting()
    for address in (bits.TASK_SIZE, bits.ULONG_MAX - PAGE + 1):
        with pytest.raises(Segfault):
            f.p.touch(address, 1)


def test_vmas_may_change_between_two_accesses_of_a_range() -> None:
    f = Faulting()
    a = f.map(8)
    f.p.mprotect(a + 2 * PAGE, 2 * PAGE, "r")
    f.p.mprotect(a + 6 * PAGE, 2 * PAGE, "rwx")
    f.p.touch(a, 2 * PAGE)
    with pytest.raises(Segfault):
        f.p.touch(a, 8 * PAGE)
    f.p.touch(a + 4 * PAGE, 4 * PAGE)
    assert f.rss(f.p) == (0, 6, 0, 0)
    assert f.sound()


def test_an_access_that_never_gets_further_is_reported() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.cpu = 1
    # A page of the kernel's own: present and writable, so that no fault changes it.
    f.set_pte(f.p, a, pfn_pte(f.page(f.p, a), bits._PAGE_PRESENT | bits._PAGE_RW))
    with pytest.raises(KernelBug, match="again and again"):
        f.p.read(a, 1)


def test_a_cpu_that_runs_another_process_is_switched_first() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"p")
    other = f.m.spawn("other", cpu=f.p.cpu)
    other.write(other.mmap(PAGE, addr=ARENA), b"o")
    with f.m.running(f.p):
        assert read_bytes(f.k, f.p.task, a, 1) == b"p"
        assert read_bytes(f.k, other.task, a, 1) == b"o"
        assert read_bytes(f.k, f.p.task, a, 1) == b"p"
