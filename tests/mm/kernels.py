# SPDX-License-Identifier: GPL-2.0-only
"""Small machines for the tests of the lower modules, made by hand below any system call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rmap.mm.anon_vma import anon_vma_fork, anon_vma_init, anon_vma_prepare
from rmap.mm.bits import (
    MAPPING_HANDLE_SHIFT,
    PAGE_MAPPING_ANON,
    PAGE_SHIFT,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
)
from rmap.mm.mm_types import AnonVma, Kernel, Mm, Vma
from rmap.mm.pgtable import pte_alloc_row
from rmap.mm.profile import profile
from rmap.mm.vma import vm_area_alloc, vm_area_dup, vma_link_list

RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE


class Failing:
    """Lets allocations fail, from the `first` one asked for on (or that one alone).

    `site` limits it to one kind; `asked` says how many such allocations there were.
    """

    def __init__(self, first: int, site: str = "", *, once: bool = False) -> None:
        self.first = first
        self.site = site
        self.once = once
        self.asked = 0

    def should_fail(self, site: str) -> bool:
        if self.site not in ("", site):
            return False
        self.asked += 1
        return self.asked == self.first or (self.asked > self.first and not self.once)


def make_kernel(pages: int = 256, name: str = "4.18", **quirks: bool) -> Kernel:
    """A kernel with nothing running on it."""
    k = Kernel(pages, profile(name, **quirks))
    anon_vma_init(k)
    return k


def make_mm(k: Kernel, comm: str = "p") -> Mm:
    """An empty address space."""
    mm = Mm(k, k.next_serial(), 0)
    mm.pgd = pte_alloc_row(k, mm)
    mm.comm = comm
    k.mms.append(mm)
    return mm


@contextmanager
def writing(*mms: Mm) -> Iterator[None]:
    """Hold mmap_sems for write."""
    for mm in mms:
        mm.mmap_sem.down_write()
    yield
    for mm in reversed(mms):
        mm.mmap_sem.up_write()


def map_pages(k: Kernel, mm: Mm, first: int, pages: int, flags: int = RW) -> Vma:
    """Map anonymous memory at page `first` of the address space."""
    vma = vm_area_alloc(k, mm, first << PAGE_SHIFT, (first + pages) << PAGE_SHIFT, flags, first)
    with writing(mm):
        vma_link_list(k, mm, vma)
    return vma


def prepare(k: Kernel, vma: Vma) -> AnonVma:
    """Give a VMA its anon_vma, as the first write does."""
    with writing(vma.vm_mm):
        assert anon_vma_prepare(k, vma) == 0
    return vma.anon_vma


def child_with_page(k: Kernel, page: int) -> Vma:
    """The VMA of a child whose own anon_vma a page names, that is mapped once; the parent stays."""
    parent = map_pages(k, make_mm(k), 16, 4)
    prepare(k, parent)
    vma: Vma = vm_area_dup(k, parent)
    vma.vm_mm = make_mm(k)
    with writing(parent.vm_mm, vma.vm_mm):
        anon_vma_fork(k, vma, parent)
    k.pg_mapping[page] = vma.anon_vma.handle << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_ANON
    k.pg_mapcount[page] = 0
    return vma
