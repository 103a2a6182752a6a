# SPDX-License-Identifier: GPL-2.0-only
"""Faults on huge anonymous memory: first accesses, copies, reuse, and what they fall back to."""

from __future__ import annotations

import pytest
from handmade import make_file
from huge import (
    HUGE,
    check_all,
    counts,
    frame,
    head_at,
    huge_kernel,
    huge_space,
    load,
    pmd_at,
    rss,
    store,
)
from kernels import Failing
from spaces import RW, Space

from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_PROTNONE,
    _PAGE_RW,
    _PAGE_SPECIAL,
    COW_COPIES,
    EEXIST,
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    NR_ACTIVE_ANON,
    NR_PAGETABLE,
    THP_ALWAYS,
    THP_DEFRAG_ALWAYS,
    THP_DEFRAG_DEFER,
    THP_DEFRAG_DEFER_MADVISE,
    THP_DEFRAG_MADVISE,
    THP_DEFRAG_NEVER,
    THP_FAULT_ALLOC,
    THP_FAULT_FALLBACK,
    THP_MADVISE,
    THP_NEVER,
    THP_SPLIT_PMD,
    THP_ZERO_PAGE_ALLOC,
    THP_ZERO_PAGE_ALLOC_FAILED,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_WRITE,
    VM_HUGEPAGE,
    VM_SHARED,
    VM_UFFD_MISSING,
    PG_anon_exclusive,
)
from rmap.mm.bug import KernelBug
from rmap.mm.fault import handle_mm_fault
from rmap.mm.huge.fault import (
    do_huge_pmd_anonymous_page,
    do_huge_pmd_numa_page,
    do_huge_pmd_wp_page,
    huge_pmd_set_accessed,
    wp_huge_pmd,
)
from rmap.mm.huge.pgtable import alloc_hugepage_direct_gfpmask
from rmap.mm.lru import put_page
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.memory import VmFault
from rmap.mm.mm_types import Kernel
from rmap.mm.page import (
    compound_mapcount,
    get_page,
    lock_page,
    page_count,
    page_mapcount,
    unlock_page,
)
from rmap.mm.page_alloc import alloc_pages
from rmap.mm.pgtable import pmd_alloc
from rmap.mm.uffd import UserfaultfdCtx, userfaultfd_must_wait
from rmap.mm.userfaultfd import mcopy_atomic, mfill_zeropage, userfaultfd_register
from rmap.sync.core import scheduler


@pytest.fixture
def k() -> Kernel:
    return huge_kernel()


def aimed(space: Space, page: int = 0, flags: int = FAULT_FLAG_WRITE) -> VmFault:
    """A fault that has found its PMD."""
    vmf = VmFault(space.vma(page), space.at(page), flags)
    vmf.aim(space.k, space.at(page), flags)
    vmf.pmd = pmd_alloc(space.k, space.mm, space.at(page))
    return vmf


# ---------------------------------------------------------------- the first access


def test_a_first_write_maps_512_pages_at_once(k: Kernel) -> None:
    space = huge_space(k)
    tables = k.vm_stat[NR_PAGETABLE]
    store(space, 7, b"seven")
    head = head_at(space)
    assert head % HUGE == 0
    assert (compound_mapcount(k, head), k.pg_mapcount[head], page_count(k, head)) == (1, -1, 1)
    assert (counts(k), rss(space)) == ((1, HUGE), (0, HUGE, 0, 0))
    assert k.vm_stat[NR_ACTIVE_ANON] == HUGE
    # Two upper tables, and one that is set aside for a split.
    assert k.vm_stat[NR_PAGETABLE] - tables == 3
    assert k.vm_stat[THP_FAULT_ALLOC] == 1
    assert pmd_at(space) & (_PAGE_RW | _PAGE_DIRTY) == _PAGE_RW | _PAGE_DIRTY
    store(space, 511, b"last")
    assert (load(space, 7), load(space, 511), load(space, 8)) == (b"seven", b"last", b"")
    assert frame(space, 511) == head + 511
    check_all(k, space)


def test_where_the_vma_has_not_all_of_the_range_pages_are_small(k: Kernel) -> None:
    space = Space(k)
    space.mmap(1, 2 * HUGE)
    for page in (1, 511, 2 * HUGE):
        store(space, page, b"x")
    assert (head_at(space, 1), head_at(space, 2 * HUGE)) == (0, 0)
    store(space, HUGE, b"y")
    assert head_at(space, HUGE)
    assert counts(k) == (1, 3 + HUGE)
    check_all(k, space)


@pytest.mark.parametrize(
    ("enabled", "advice", "huge"),
    [
        (THP_ALWAYS, None, True),
        (THP_ALWAYS, MADV_NOHUGEPAGE, False),
        (THP_MADVISE, None, False),
        (THP_MADVISE, MADV_HUGEPAGE, True),
        (THP_NEVER, MADV_HUGEPAGE, False),
    ],
)
def test_settings_and_advice_say_where_memory_is_huge(
    k: Kernel, enabled: int, advice: int | None, huge: bool
) -> None:
    k.thp_enabled = enabled
    space = huge_space(k)
    if advice is not None:
        assert space.madvise(0, HUGE, advice) == 0
    space.write(0)
    assert bool(head_at(space)) is huge
    check_all(k, space)


def test_how_hard_a_fault_tries_is_a_matter_of_defrag_and_advice(k: Kernel) -> None:
    vma = huge_space(k).vma(0)
    tries = {}
    for defrag in (
        THP_DEFRAG_NEVER,
        THP_DEFRAG_MADVISE,
        THP_DEFRAG_ALWAYS,
        THP_DEFRAG_DEFER,
        THP_DEFRAG_DEFER_MADVISE,
    ):
        k.thp_defrag = defrag
        vma.vm_flags &= ~VM_HUGEPAGE
        plain = alloc_hugepage_direct_gfpmask(k, vma)
        vma.vm_flags |= VM_HUGEPAGE
        tries[defrag] = (plain & 3, alloc_hugepage_direct_gfpmask(k, vma) & 3)
    # 1: it reclaims and compacts itself; 2: it has kswapd do so; 0: it takes what lies ready.
    assert tries == {
        THP_DEFRAG_NEVER: (0, 0),
        THP_DEFRAG_MADVISE: (0, 1),
        THP_DEFRAG_ALWAYS: (1, 1),
        THP_DEFRAG_DEFER: (2, 2),
        THP_DEFRAG_DEFER_MADVISE: (2, 1),
    }


def test_a_huge_page_that_cannot_be_had_is_small(k: Kernel) -> None:
    space = huge_space(k)
    k.inject = Failing(1, "huge_page")
    store(space, 3, b"x")
    assert (head_at(space), counts(k), k.vm_stat[THP_FAULT_FALLBACK]) == (0, (0, 1), 1)
    check_all(k, space)


def test_scattered_memory_gives_small_pages(k: Kernel) -> None:
    held = [alloc_pages(k, 0, 9) for _ in range(15)]
    space = huge_space(k)
    store(space, 3, b"x")
    assert head_at(space) == 0
    for head in held:
        put_page(k, head)
    check_all(k, space)


def test_a_cgroup_without_room_for_512_pages_gets_small_ones() -> None:
    k = huge_kernel()
    space = huge_space(k)
    space.mm.memcg = mem_cgroup_create(k, "jobs", k.memcgs[0], 100)
    space.write(0)
    assert (head_at(space), space.mm.memcg.usage, k.vm_stat[THP_FAULT_FALLBACK]) == (0, 1, 1)
    space.mm.memcg.limit = HUGE + 1
    space.mmap(HUGE, HUGE)
    space.write(HUGE)
    assert (bool(head_at(space, HUGE)), space.mm.memcg.usage) == (True, HUGE + 1)
    space.exit()
    assert k.memcgs[1].usage == 0


@pytest.mark.parametrize("site", ["anon_vma", "mm_slot"])
def test_without_memory_for_small_things_the_fault_fails(k: Kernel, site: str) -> None:
    space = huge_space(k)
    k.inject = Failing(1, site, once=True)
    assert space.fault(0, True) == VM_FAULT_OOM
    space.write(0)
    assert counts(k) == (1, HUGE)
    check_all(k, space)


@pytest.mark.parametrize("write", [True, False])
def test_without_a_table_to_set_aside_the_fault_fails(k: Kernel, write: bool) -> None:
    space = huge_space(k)
    vmf = aimed(space, flags=FAULT_FLAG_WRITE if write else 0)
    k.inject = Failing(1, "page_table")
    space.mm.mmap_sem.down_read()
    assert do_huge_pmd_anonymous_page(k, vmf) == VM_FAULT_OOM
    space.mm.mmap_sem.up_read()
    assert (counts(k), k.pmd_huge_pte) == ((0, 0), {})
    k.inject = None
    check_all(k, space)


@pytest.mark.parametrize("write", [True, False])
def test_who_comes_second_to_a_pmd_gives_everything_back(k: Kernel, write: bool) -> None:
    space = huge_space(k)
    vmf = aimed(space, flags=FAULT_FLAG_WRITE if write else 0)
    space.write(0)
    tables = k.vm_stat[NR_PAGETABLE]
    space.mm.mmap_sem.down_read()
    assert do_huge_pmd_anonymous_page(k, vmf) == 0
    space.mm.mmap_sem.up_read()
    assert (counts(k), k.vm_stat[NR_PAGETABLE]) == ((1, HUGE), tables)
    check_all(k, space)


# ---------------------------------------------------------------- zeros


def test_a_first_read_maps_the_huge_zero_page(k: Kernel) -> None:
    space = huge_space(k)
    space.read(9)
    assert pmd_at(space) & _PAGE_RW == 0
    assert head_at(space) == k.huge_zero_page != 0
    assert (counts(k), rss(space)) == ((0, 0), (0, 0, 0, 0))
    assert k.vm_stat[THP_ZERO_PAGE_ALLOC] == 1
    child = space.fork()
    assert head_at(child) == k.huge_zero_page
    assert k.huge_zero_refcount == 3, "its own, and one of each address space"
    store(child, 4, b"own")
    assert (load(child, 4), load(space, 4), counts(k)) == (b"own", b"", (1, HUGE))
    check_all(k, space, child)


def test_reads_can_do_without_the_huge_zero_page(k: Kernel) -> None:
    k.thp_use_zero_page = False
    space = huge_space(k)
    space.read(9)
    assert (counts(k), k.huge_zero_page) == ((1, HUGE), 0)
    check_all(k, space)


@pytest.mark.parametrize("site", ["huge_page", "page"])
def test_without_the_huge_zero_page_a_read_maps_a_small_one(k: Kernel, site: str) -> None:
    space = huge_space(k)
    space.write(0)
    space.mmap(HUGE, HUGE)
    k.inject = Failing(1, site, once=True)
    space.read(HUGE)
    assert k.vm_stat[THP_ZERO_PAGE_ALLOC_FAILED] == 1
    assert space.pte(HUGE) & _PAGE_SPECIAL
    check_all(k, space)


def test_a_write_to_zeros_without_memory_takes_one_small_page(k: Kernel) -> None:
    space = huge_space(k)
    space.read(0)
    k.inject = Failing(1, "huge_page")
    store(space, 5, b"x")
    assert (head_at(space), counts(k), k.vm_stat[THP_SPLIT_PMD]) == (0, (0, 1), 1)
    assert space.pfn(6) == k.zero_page
    check_all(k, space)


# ---------------------------------------------------------------- access bits, NUMA hints


@pytest.mark.parametrize("write", [True, False])
def test_a_fault_on_what_is_there_needs_no_more_than_bits(k: Kernel, write: bool) -> None:
    space = huge_space(k)
    space.write(0)
    vmf = aimed(space, 3, FAULT_FLAG_WRITE if write else 0)
    k.pt[vmf.pmd] &= ~(_PAGE_ACCESSED | _PAGE_DIRTY)
    before = pmd_at(space)
    huge_pmd_set_accessed(k, vmf, before + 1)
    assert pmd_at(space) == before, "the PMD was another one meanwhile"
    assert space.fault(3, write) == 0
    # Without a write nothing is stored: the processor sets the accessed bit by itself.
    assert pmd_at(space) & (_PAGE_ACCESSED | _PAGE_DIRTY) == (
        _PAGE_ACCESSED | _PAGE_DIRTY if write else 0
    )
    check_all(k, space)


def test_a_pmd_that_forbids_what_its_vma_permits_is_repaired(k: Kernel) -> None:
    space = huge_space(k)
    space.write(0)
    vmf = aimed(space, 3, 0)
    usable = pmd_at(space)
    k.pt[vmf.pmd] = usable & ~1 | _PAGE_PROTNONE
    hint = pmd_at(space)
    assert do_huge_pmd_numa_page(k, vmf, usable) == 0
    assert pmd_at(space) == hint, "it was no hint when it was looked at"
    assert space.fault(3, False) == 0
    assert pmd_at(space) & (1 | _PAGE_PROTNONE | _PAGE_RW) == 1
    space.write(3)
    assert pmd_at(space) & _PAGE_RW
    check_all(k, space)


def test_a_hint_on_a_page_without_references_is_left_alone(k: Kernel) -> None:
    space = huge_space(k)
    space.write(0)
    head = head_at(space)
    vmf = aimed(space, 3, 0)
    lock_page(k, head)
    k.pg_refcount[head] = 0
    assert do_huge_pmd_numa_page(k, vmf, pmd_at(space)) == 0
    k.pg_refcount[head] = 1
    unlock_page(k, head)
    check_all(k, space)


# ---------------------------------------------------------------- writes to shared pages


def shared(k: Kernel) -> tuple[Space, Space, int]:
    """A parent and a child that share a huge page with content."""
    parent = huge_space(k)
    store(parent, 0, b"zero")
    store(parent, 9, b"nine")
    return parent, parent.fork(), head_at(parent)


def test_a_write_copies_the_huge_page_and_the_other_process_keeps_it(k: Kernel) -> None:
    parent, child, head = shared(k)
    copies = k.vm_stat[COW_COPIES]
    tlb_gen = child.mm.tlb_gen
    store(child, 0, b"child")
    new = head_at(child)
    assert new not in (0, head)
    assert (load(child, 0), load(child, 9)) == (b"child", b"nine")
    assert (load(parent, 0), load(parent, 9)) == (b"zero", b"nine")
    assert (compound_mapcount(k, head), compound_mapcount(k, new), page_count(k, head)) == (1, 1, 1)
    assert (counts(k), rss(child)) == ((2, 2 * HUGE), (0, HUGE, 0, 0))
    assert k.vm_stat[COW_COPIES] - copies == HUGE
    assert child.mm.tlb_gen > tlb_gen
    check_all(k, parent, child)


def test_who_is_left_alone_with_a_huge_page_reuses_it(k: Kernel) -> None:
    parent, child, head = shared(k)
    mapping = k.pg_mapping[head]
    store(child, 0, b"child")
    store(parent, 0, b"parent")
    assert head_at(parent) == head
    assert pmd_at(parent) & (_PAGE_RW | _PAGE_DIRTY) == _PAGE_RW | _PAGE_DIRTY
    assert (k.pg_mapping[head], counts(k)) == (mapping, (2, 2 * HUGE)), "rmap is not moved"
    check_all(k, parent, child)


def test_one_shared_part_keeps_the_whole_from_being_reused(k: Kernel) -> None:
    parent, child, head = shared(k)
    assert child.munmap(1, HUGE - 1) == 0
    assert (page_mapcount(k, head), page_mapcount(k, head + 1)) == (2, 1)
    store(parent, 5, b"five")
    assert head_at(parent) not in (0, head)
    assert (load(child, 0), load(parent, 0), load(parent, 9)) == (b"zero", b"zero", b"nine")
    check_all(k, parent, child)


def test_without_a_huge_page_512_small_copies_are_made(k: Kernel) -> None:
    parent, child, head = shared(k)
    k.inject = Failing(1, "huge_page")
    store(child, 0, b"child")
    assert head_at(child) == 0
    assert (load(child, 0), load(child, 9)) == (b"child", b"nine")
    assert {page_mapcount(k, child.pfn(i)) for i in range(HUGE)} == {1}
    assert (counts(k), rss(child), page_count(k, head)) == (
        (1, 2 * HUGE),
        (0, HUGE, 0, 0),
        1,
    )
    assert k.vm_stat[THP_SPLIT_PMD] == 0, "copied, not split"
    check_all(k, parent, child)


@pytest.mark.parametrize("site", ["page", "memcg_charge"])
def test_without_512_small_pages_the_pmd_is_split_and_one_page_copied(k: Kernel, site: str) -> None:
    parent, child, head = shared(k)

    class Plan:
        """No huge page, and not all of the small ones either."""

        asked = 0

        def should_fail(self, asked: str) -> bool:
            if asked == "huge_page":
                return True
            self.asked += asked == site
            return asked == site and self.asked == 100

    k.inject = Plan()
    store(child, 0, b"child")
    assert (head_at(child), k.vm_stat[THP_SPLIT_PMD], rss(child)[1]) == (0, 1, HUGE)
    assert (load(child, 0), load(child, 9), load(parent, 0)) == (b"child", b"nine", b"zero")
    assert child.pfn(9) == head + 9
    assert counts(k) == (1, HUGE + 1)
    check_all(k, parent, child)


def test_a_copy_that_the_cgroup_has_no_room_for_is_one_small_page(k: Kernel) -> None:
    parent, child, head = shared(k)
    child.mm.memcg = mem_cgroup_create(k, "jobs", k.memcgs[0], 100)
    store(child, 0, b"child")
    assert (head_at(child), k.vm_stat[THP_SPLIT_PMD], child.mm.memcg.usage) == (0, 1, 1)
    assert page_count(k, head) == HUGE
    check_all(k, parent, child)


def test_a_pmd_that_changed_under_a_write_is_looked_at_again(k: Kernel) -> None:
    parent, child, head = shared(k)
    vmf = aimed(child)
    before = pmd_at(child)
    assert child.mprotect(0, HUGE, 0) == child.mprotect(0, HUGE, RW) == 0
    child.mm.mmap_sem.down_read()
    assert do_huge_pmd_wp_page(k, vmf, before + 1) == 0
    child.mm.mmap_sem.up_read()
    assert (head_at(child), page_count(k, head)) == (head, 2)
    check_all(k, parent, child)


def test_a_write_before_there_is_an_anon_vma_is_a_bug(k: Kernel) -> None:
    space = huge_space(k)
    vmf = aimed(space)
    with pytest.raises(KernelBug, match="has no anon_vma"):
        do_huge_pmd_wp_page(k, vmf, 0)
    scheduler().current.held.clear()


# ---------------------------------------------------------------- 5.19: exclusive pages


def test_since_5_19_a_write_to_a_shared_huge_page_copies_one_small_page() -> None:
    k = huge_kernel(name="6.1")
    parent, child, head = shared(k)
    assert not k.pg_flags[head] & PG_anon_exclusive
    store(child, 0, b"child")
    assert (head_at(child), head_at(parent), counts(k)) == (0, head, (1, HUGE + 1))
    assert (load(child, 0), load(child, 9), load(parent, 0)) == (b"child", b"nine", b"zero")
    check_all(k, parent, child)


def test_since_5_19_a_page_with_one_reference_is_made_exclusive_again() -> None:
    k = huge_kernel(name="6.1")
    parent, child, head = shared(k)
    child.exit()
    store(parent, 3, b"three")
    assert head_at(parent) == head
    assert k.pg_flags[head] & PG_anon_exclusive
    check_all(k, parent)


def test_since_5_19_a_reference_of_somebody_else_forces_a_split() -> None:
    k = huge_kernel(name="6.1")
    parent, child, head = shared(k)
    child.exit()
    get_page(k, head)
    store(parent, 3, b"three")
    assert (head_at(parent), load(parent, 3), load(parent, 9)) == (0, b"three", b"nine")
    put_page(k, head)
    check_all(k, parent)


def test_since_5_19_zeros_are_split_before_they_are_written_to() -> None:
    k = huge_kernel(name="6.1")
    space = huge_space(k)
    space.read(0)
    store(space, 5, b"x")
    assert (head_at(space), counts(k)) == (0, (0, 1))
    check_all(k, space)


def unshare(space: Space, page: int) -> int:
    """A fault that makes a page this process's alone, without leave to write to it."""
    space.mm.mmap_sem.down_read()
    result = handle_mm_fault(space.k, space.vma(page), space.at(page), FAULT_FLAG_UNSHARE)
    space.mm.mmap_sem.up_read()
    return int(result)


def test_a_page_is_unshared_without_becoming_writable() -> None:
    k = huge_kernel(name="6.1")
    parent, child, head = shared(k)
    assert unshare(child, 9) == VM_FAULT_WRITE
    assert child.pfn(9) != head + 9
    assert not child.pte(9) & _PAGE_RW
    child.exit()
    assert unshare(parent, 9) == 0
    assert k.pg_flags[head] & PG_anon_exclusive
    assert not pmd_at(parent) & _PAGE_RW
    check_all(k, parent)


# ---------------------------------------------------------------- userfaultfd


@pytest.mark.parametrize("write", [True, False])
def test_a_userfaultfd_is_asked_before_a_huge_page_appears(k: Kernel, write: bool) -> None:
    space = huge_space(k)
    ctx = UserfaultfdCtx()
    assert userfaultfd_register(k, space.mm, space.at(0), HUGE << 12, ctx) == 0
    tables = k.vm_stat[NR_PAGETABLE]
    space.mm.mmap_sem.down_read()
    vma = space.vma(0)
    flags = FAULT_FLAG_ALLOW_RETRY | (FAULT_FLAG_WRITE if write else 0)
    assert handle_mm_fault(k, vma, space.at(3), flags) & VM_FAULT_RETRY, "mmap_sem is given up"
    assert (counts(k), pmd_at(space)) == ((0, 0), 0)
    assert k.vm_stat[NR_PAGETABLE] - tables == 2, "only the upper tables stay"
    check_all(k)


def test_nothing_can_be_provided_where_a_huge_page_is(k: Kernel) -> None:
    space = huge_space(k)
    space.write(0)
    assert userfaultfd_register(k, space.mm, space.at(0), HUGE << 12, UserfaultfdCtx()) == 0
    assert mcopy_atomic(k, space.mm, space.at(3), b"x") == -EEXIST
    assert mfill_zeropage(k, space.mm, space.at(3)) == -EEXIST
    assert not userfaultfd_must_wait(k, space.mm, space.at(3), VM_UFFD_MISSING)
    check_all(k)


# ---------------------------------------------------------------- files


def test_a_write_to_a_shared_pmd_that_forbids_it_is_a_bug(k: Kernel) -> None:
    space = huge_space(k)
    space.write(0)
    vmf = aimed(space)
    vmf.vma.vm_file = make_file(k)
    vmf.vma.vm_flags |= VM_SHARED
    with pytest.raises(KernelBug, match="a shared mapping that forbids writing"):
        wp_huge_pmd(k, vmf, pmd_at(space))
