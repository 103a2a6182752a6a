# SPDX-License-Identifier: GPL-2.0-only
"""Pages that are got without an access: pins, population, and what force may do."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.mm.gup import (
    GupState,
    __mm_populate,
    check_vma_flags,
    find_get_user_pages,
    follow_page_pte,
    get_user_pages,
    put_user_pages,
)
from rmap.mm.mm_types import Vma
from rmap.mm.profile import PROFILES
from rmap.model import SyscallError


def get(f: Faulting, address: int, pages: int, write: bool = False) -> list[int]:
    """get_user_pages() of the first process."""
    with f.m.running(f.p) as k:
        return [int(page) for page in get_user_pages(k, f.p.mm, address, pages, write)]


def force(f: Faulting, address: int, flags: int) -> tuple[int, list[int]]:
    """Look at one page with FOLL_FORCE, as ptrace does; what came of it, and the page."""
    state = GupState(False)
    state.flags = bits.FOLL_FORCE | bits.FOLL_GET | bits.FOLL_TOUCH | flags
    with f.m.running(f.p) as k:
        f.p.mm.mmap_sem.down_read()
        got = find_get_user_pages(k, f.p.mm, address, 1, state)
        f.p.mm.mmap_sem.up_read()
    return int(got), [int(page) for page in state.pages]


def test_a_page_that_is_got_has_a_reference_and_no_mapping_more() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.write(a, b"x")
    pages = get(f, a, 4, write=True)
    assert pages == f.p.pages(a, 4 * PAGE)
    assert [f.counts(page) for page in pages] == [(1, 2)] * 4
    assert f.rss(f.p) == (0, 4, 0, 0)
    f.p.munmap(a, 4 * PAGE)
    assert [f.counts(page) for page in pages] == [(0, 1)] * 4
    put_user_pages(f.k, pages)
    assert [f.counts(page) for page in pages] == [(0, 0)] * 4
    assert f.sound()


def test_to_read_gets_the_zero_page_and_to_write_a_page() -> None:
    f = Faulting()
    a = f.map(1)
    assert get(f, a, 1) == [f.k.zero_page]
    assert f.counts(f.k.zero_page) == (0, 2)
    (page,) = get(f, a, 1, write=True)
    assert page == f.page(f.p, a) != f.k.zero_page
    put_user_pages(f.k, [f.k.zero_page, page])
    assert f.sound()


def test_to_write_breaks_cow_and_to_read_does_not() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    child = f.p.fork()
    got = get(f, a, 1)
    assert got == [page]
    got += get(f, a, 1, write=True)
    assert got[1] == f.page(f.p, a) != page
    assert f.page(child, a) == page
    put_user_pages(f.k, got)
    assert f.sound()


def test_what_a_device_writes_to_a_pinned_page_is_what_is_read() -> None:
    f = Faulting()
    a = f.map(2)
    with f.p.pin(a, 2 * PAGE, write=True) as pin:
        pin.write(pin.pages[1], 5, b"dma")
    assert f.p.read(a + PAGE + 5, 3) == b"dma"
    assert f.sound()


def test_a_range_is_got_as_far_as_it_can_be() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.munmap(a + 2 * PAGE, PAGE)
    pages = get(f, a, 4, write=True)
    assert len(pages) == 2
    assert get(f, a + 2 * PAGE, 1) == []
    f.p.mprotect(a, PAGE, "r")
    assert get(f, a, 1, write=True) == []
    put_user_pages(f.k, pages)
    f.k.inject = Failing(1, "page")
    assert get(f, a + 3 * PAGE, 1, write=True) == []
    assert f.sound()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_force_reads_what_may_become_readable_and_writes_only_to_a_private_copy(
    profile: str,
) -> None:
    f = Faulting(base=profile)
    data = f.file(content=b"text")
    text = f.map(1, kind="fileprivate", file=data, prot="r")
    f.p.read(text, 1)
    cached = f.page(f.p, text)
    assert force(f, text, 0) == (1, [cached])
    got, pages = force(f, text, bits.FOLL_WRITE)
    # The copy is the process's own, and read-only as before.
    assert (got, pages) == (1, [f.page(f.p, text)])
    assert pages != [cached]
    assert f.told(f.p, text) == READ | bits._PAGE_DIRTY
    assert force(f, text, bits.FOLL_WRITE) == (1, pages)
    put_user_pages(f.k, [cached, *pages, *pages])
    shared = f.p.mmap(PAGE, kind="file", file=data, prot="r")
    assert force(f, shared, bits.FOLL_WRITE) == (-bits.EFAULT, [])
    hidden = f.p.mmap(PAGE, prot="none")
    got, pages = force(f, hidden, bits.FOLL_WRITE)
    assert got == 1
    put_user_pages(f.k, pages)
    assert data.read(0, 4) == b"text"
    assert f.sound()


def test_memory_of_a_device_is_not_for_getting() -> None:
    f = Faulting()
    f.map(1)
    (vma,) = f.p.vmas
    for flags, wanted, result in (
        (bits.VM_IO | bits.VM_READ, 0, -bits.EFAULT),
        (bits.VM_PFNMAP | bits.VM_READ, bits.FOLL_FORCE, -bits.EFAULT),
        (bits.VM_READ, 0, 0),
        (bits.VM_READ, bits.FOLL_WRITE, -bits.EFAULT),
        (bits.VM_READ | bits.VM_MAYWRITE, bits.FOLL_WRITE | bits.FOLL_FORCE, 0),
        (bits.VM_SHARED | bits.VM_MAYWRITE, bits.FOLL_WRITE | bits.FOLL_FORCE, -bits.EFAULT),
        (bits.VM_WRITE, 0, -bits.EFAULT),
        (bits.VM_WRITE | bits.VM_MAYREAD, bits.FOLL_FORCE, 0),
    ):
        other = Vma(f.p.mm, vma.vm_start, vma.vm_end, flags, 0)
        assert check_vma_flags(other, wanted) == result


def test_an_entry_that_is_hidden_is_not_followed_but_by_force() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.p.mprotect(a, PAGE, "none")
    (vma,) = f.p.vmas
    assert follow_page_pte(f.k, vma, a, 0) == 0
    assert follow_page_pte(f.k, vma, a, bits.FOLL_FORCE) == page
    assert follow_page_pte(f.k, vma, a + 4096 * PAGE, 0) == 0


# ---------------------------------------------------------------- populating


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_mlock_brings_everything_in_and_locks_it(profile: str) -> None:
    f = Faulting(base=profile)
    data = f.file(content=b"file")
    a = f.map(3)
    f.p.read(a, 1)
    b = f.p.mmap(2 * PAGE, kind="fileprivate", file=data)
    c = f.p.mmap(2 * PAGE, kind="fileprivate", file=data, prot="r")
    d = f.p.mmap(2 * PAGE, kind="shared")
    for start, pages in ((a, 3), (b, 2), (c, 2), (d, 2)):
        f.p.mlock(start, pages * PAGE)
        assert all(f.p.pages(start, pages * PAGE))
        assert all(f.flags(page, bits.PG_mlocked) for page in f.p.pages(start, pages * PAGE))
    # Private memory that may be written to has its copies already; shared pages stay clean.
    assert f.k.zero_page not in f.p.pages(a, 3 * PAGE)
    assert {f.told(f.p, a), f.told(f.p, b)} == {WRITE}
    assert {f.told(f.p, c), f.told(f.p, d) & ~bits._PAGE_RW} == {READ}
    assert f.rss(f.p) == (2, 5, 0, 2)
    assert f.stat("NR_MLOCK") == 9
    f.p.munlock(a, 3 * PAGE)
    assert f.stat("NR_MLOCK") == 6
    f.p.exit()
    f.sound()
    # The file's two pages stay in the cache, and are nobody's to lock.
    assert f.stat("NR_MLOCK") == 0


def test_populate_is_mmap_with_its_faults_taken() -> None:
    f = Faulting()
    a = f.map(4, populate=True)
    assert all(f.p.pages(a, 4 * PAGE))
    faults = f.stat("PGFAULT")
    f.p.touch(a, 4 * PAGE)
    assert f.stat("PGFAULT") == faults
    assert f.stat("NR_MLOCK") == 0
    assert f.sound()


def test_populating_passes_over_holes_and_stops_at_what_cannot_be() -> None:
    f = Faulting()
    a = f.map(8)
    f.p.munmap(a + 2 * PAGE, PAGE)
    f.p.mprotect(a + 5 * PAGE, PAGE, "none")

    def populate(ignore: bool) -> int:
        with f.m.running(f.p) as k:
            return int(__mm_populate(k, f.p.mm, a, 8 * PAGE, ignore))

    assert populate(False) == -bits.EFAULT
    assert [n for n in range(8) if f.page(f.p, a + n * PAGE)] == [0, 1, 3, 4]
    assert populate(True) == 0
    assert [n for n in range(8) if f.page(f.p, a + n * PAGE)] == [0, 1, 3, 4, 6, 7]
    assert f.sound()


def test_mlock_on_fault_locks_what_is_there_and_brings_in_nothing() -> None:
    f = Faulting()
    a = f.map(3)
    f.p.write(a + PAGE, b"x")
    (vma,) = f.p.vmas
    vma.vm_flags |= bits.VM_LOCKED | bits.VM_LOCKONFAULT
    with f.m.running(f.p) as k:
        assert __mm_populate(k, f.p.mm, a, 3 * PAGE, False) == 0
    assert [bool(page) for page in f.p.pages(a, 3 * PAGE)] == [False, True, False]
    assert f.flags(f.page(f.p, a + PAGE), bits.PG_mlocked)
    f.p.touch(a, 3 * PAGE)
    assert f.stat("NR_MLOCK") == 3
    f.p.exit()
    assert f.stat("NR_MLOCK") == 0


def test_a_locked_stack_that_grows_for_a_pin_is_populated() -> None:
    f = Faulting()
    top = f.p.mmap(2 * PAGE, addr=ARENA + 1024 * PAGE, growsdown=True)
    f.p.mlock(top, 2 * PAGE)
    (page,) = get(f, top - 3 * PAGE, 1)
    assert f.p.vmas[0].vm_start == top - 3 * PAGE
    assert f.p.pages(top - 3 * PAGE, 3 * PAGE)[0] == page
    assert all(f.p.pages(top - 3 * PAGE, 3 * PAGE))
    put_user_pages(f.k, [page])
    assert f.sound()


def test_since_pages_are_exclusive_a_pin_for_reading_is_a_pin_of_ones_own_page() -> None:
    f = Faulting(base="6.1")
    a = f.map(2)
    f.p.write(a, b"shared")
    page = f.page(f.p, a)
    child = f.p.fork()
    with f.p.pin(a, 2 * PAGE) as pin:
        mine = f.page(f.p, a)
        assert pin.pages == [mine, f.k.zero_page]
        assert mine != page == f.page(child, a)
        assert f.flags(mine, bits.PG_anon_exclusive)
        # Nobody asked for writing; a write does not take the page away from the device.
        assert f.told(f.p, a) == READ
        f.p.write(a, b"S")
        assert f.page(f.p, a) == mine
        assert pin.read(mine, 0, 6) == b"Shared"
    child.exit()
    assert f.sound()


def test_a_page_that_turns_out_to_be_ones_own_is_pinned_without_a_copy() -> None:
    f = Faulting(base="6.1")
    a = f.map(1)
    f.p.write(a, b"mine")
    page = f.page(f.p, a)
    f.p.fork().exit()
    assert not f.flags(page, bits.PG_anon_exclusive)
    with f.p.pin(a, PAGE) as pin:
        assert pin.pages == [page]
    assert f.flags(page, bits.PG_anon_exclusive)
    assert not f.told(f.p, a) & bits._PAGE_RW
    assert f.sound()


def test_a_pin_of_which_a_part_cannot_be_had_is_none() -> None:
    f = Faulting()
    a = f.map(2)
    with pytest.raises(SyscallError) as caught:
        f.p.pin(a, 3 * PAGE, write=True)
    assert caught.value.errno == bits.EFAULT
    assert [f.counts(page) for page in f.p.pages(a, 2 * PAGE)] == [(1, 1)] * 2
    assert f.sound()
