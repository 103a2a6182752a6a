# SPDX-License-Identifier: GPL-2.0-only
"""Shared mappings made clean and read-only before a page is written out."""

from __future__ import annotations

import pytest
from handmade import (
    CLEAN,
    DIRTY,
    USED,
    WRITE,
    YOUNG,
    address_of,
    cache,
    family,
    make_file,
    map_cached,
    map_file,
    poke,
    process,
    pte_of,
    touch_huge,
    world,
)
from kernels import RW, make_mm, map_pages

from rmap.mm.bits import (
    _PAGE_PSE,
    _PAGE_SOFT_DIRTY,
    HPAGE_PMD_NR,
    PAGE_SIZE,
    RMAP_VMAS_MAPPED,
    RMAP_VMAS_VISITED,
    RMAP_WALKS,
    VM_READ,
    VM_SHARED,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import Kernel, Task, Vma
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_mkclean import PageMkcleanControl, page_mkclean, page_mkclean_one
from rmap.mm.pgtable import pfn_pte, pmd_offset
from rmap.mm.tlb import switch_mm, tlb_entries, tlb_fill


def mkclean(k: Kernel, page: int) -> int:
    """page_mkclean() with the page locked."""
    lock_page(k, page)
    cleaned = page_mkclean(k, page)
    unlock_page(k, page)
    return int(cleaned)


def shared_page(k: Kernel) -> tuple[int, list[Vma]]:
    """P wrote to a page, Q may, S has it privately and T may only read."""
    file = make_file(k)
    page = cache(k, file, 1)
    vmas = []
    for name, flags, bits in (
        ("p", RW | VM_SHARED, CLEAN | YOUNG | DIRTY | WRITE | _PAGE_SOFT_DIRTY),
        ("q", RW | VM_SHARED, CLEAN | WRITE),
        ("s", RW, CLEAN | DIRTY),
        ("t", VM_READ | VM_SHARED, CLEAN | YOUNG),
    ):
        vmas.append(map_file(k, file, name, flags=flags))
        map_cached(k, page, vmas[-1], bits)
    return page, vmas


def test_what_is_dirty_or_writable_is_cleaned_in_shared_vmas() -> None:
    k = world()
    page, vmas = shared_page(k)
    k.notifier_log = []
    assert mkclean(k, page) == 2
    p, q, s, t = (pte_of(k, vma, 1) for vma in vmas)
    # Accessed and soft-dirty stay.
    assert p == pfn_pte(page, CLEAN | YOUNG | _PAGE_SOFT_DIRTY)
    assert q == pfn_pte(page, CLEAN)
    assert s == pfn_pte(page, CLEAN | DIRTY), "private: passed over"
    assert t == pfn_pte(page, CLEAN | YOUNG)
    # One bracket for each VMA that was walked, and nothing in between.
    bracket = (address_of(vmas[0], 1), address_of(vmas[0], 2))
    assert k.notifier_log == [
        (name, vma.vm_mm.ident, *bracket)
        for vma in (vmas[0], vmas[1], vmas[3])
        for name in ("invalidate_range_start", "invalidate_range_end")
    ]
    assert (k.vm_stat[RMAP_VMAS_VISITED], k.vm_stat[RMAP_VMAS_MAPPED]) == (4, 3)
    assert mkclean(k, page) == 0


def test_a_cpu_that_writes_has_to_ask_again() -> None:
    k = world()
    page, vmas = shared_page(k)
    mm = vmas[0].vm_mm
    switch_mm(k, Task("t", 9, None, 1), mm)
    tlb_fill(k, 1, mm, address_of(vmas[0], 1), pte_of(k, vmas[0], 1))
    mkclean(k, page)
    assert tlb_entries(k) == []


def test_there_is_nothing_to_clean_of_pages_without_mappings_or_without_a_file() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 0)
    assert mkclean(k, page) == 0
    anonymous, _ = family(k, 1)
    assert mkclean(k, anonymous) == 0
    map_cached(k, page, map_file(k, file), USED)
    k.pg_mapping[page] = 0
    assert mkclean(k, page) == 0
    assert k.vm_stat[RMAP_WALKS] == 0


def test_the_page_has_to_be_locked() -> None:
    k = world()
    page, _ = shared_page(k)
    with pytest.raises(KernelBug, match=r"rmap.c:975"):
        page_mkclean(k, page)


def test_one_vma_can_be_cleaned_alone_and_is_traced() -> None:
    k = world()
    page, vmas = shared_page(k)
    traced: list[tuple[str, tuple[object, ...]]] = []
    k.tracer = lambda name, arguments: traced.append((name, arguments))
    control = PageMkcleanControl()
    poke(k, vmas[0], 0, 1)
    assert page_mkclean_one(k, page, vmas[0], address_of(vmas[0], 1), control)
    assert page_mkclean_one(k, page, vmas[1], address_of(vmas[1], 1), control)
    assert control.cleaned == 1
    assert [arguments[-1] for name, arguments in traced if name == "page_mkclean_one"] == [0, 1]


def test_the_bracket_ends_with_the_vma() -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR, RW | VM_SHARED)
    head = touch_huge(k, vma)
    control = PageMkcleanControl()
    k.notifier_log = []
    vma.vm_end -= 16 * PAGE_SIZE
    page_mkclean_one(k, head, vma, vma.vm_start, control)
    assert {end for _, _, _, end in k.notifier_log} == {vma.vm_end}


def test_a_pmd_is_cleaned_as_a_whole() -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR, RW | VM_SHARED)
    head = touch_huge(k, vma)
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    control = PageMkcleanControl()
    switch_mm(k, Task("t", 9, None, 1), vma.vm_mm)
    tlb_fill(k, 1, vma.vm_mm, vma.vm_start + PAGE_SIZE, k.pt[pmd])
    page_mkclean_one(k, head, vma, vma.vm_start, control)
    assert (control.cleaned, k.pt[pmd]) == (1, pfn_pte(head, CLEAN | YOUNG | _PAGE_PSE))
    assert tlb_entries(k) == []
    page_mkclean_one(k, head, vma, vma.vm_start, control)
    assert control.cleaned == 1


def test_private_vmas_are_passed_over() -> None:
    k = world()
    control = PageMkcleanControl()
    assert control.invalid_vma(k, process(k))
    assert not control.invalid_vma(k, process(k, flags=RW | VM_SHARED))
