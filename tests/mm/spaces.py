# SPDX-License-Identifier: GPL-2.0-only
"""Address spaces driven by system calls, for the tests of what changes VMAs.

Addresses and lengths are in pages of an arena, so that a test reads ``space.mmap(4, 8)``.
"""

from __future__ import annotations

from rmap.mm.bits import (
    FAULT_FLAG_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE_SHIFT,
    PROT_READ,
    PROT_WRITE,
    VM_EXEC,
    VM_FAULT_ERROR,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from rmap.mm.fault import handle_mm_fault
from rmap.mm.fork import dup_mm, mm_alloc, mmput
from rmap.mm.madvise import do_madvise
from rmap.mm.mlock import do_mlock, do_munlock
from rmap.mm.mm_types import File, Kernel, Mm, Vma
from rmap.mm.mmap import vm_mmap_pgoff, vm_munmap
from rmap.mm.mprotect import do_mprotect
from rmap.mm.mremap import do_mremap
from rmap.mm.pgtable import pte_lookup, pte_pfn, pte_present
from rmap.mm.vma import find_vma

ARENA = 1 << 32
RW = PROT_READ | PROT_WRITE


class Space:
    """One address space; its methods are system calls, and return what those return."""

    def __init__(self, k: Kernel, mm: Mm | None = None) -> None:
        self.k = k
        self.mm = mm_alloc(k, "p", k.memcgs[0]) if mm is None else mm
        assert self.mm is not None

    def at(self, page: int) -> int:
        """The address of a page."""
        return (ARENA + page) << PAGE_SHIFT

    def page(self, address: int) -> int:
        """The page of an address."""
        return (address >> PAGE_SHIFT) - ARENA

    def mmap(
        self,
        page: int,
        pages: int,
        prot: int = RW,
        *,
        shared: bool = False,
        file: File | None = None,
        pgoff: int = 0,
        flags: int = MAP_FIXED,
    ) -> int:
        kind = MAP_SHARED if shared else MAP_PRIVATE
        kind |= 0 if file is not None else MAP_ANONYMOUS
        length = pages << PAGE_SHIFT
        where = self.at(page) if page >= 0 else 0
        return vm_mmap_pgoff(self.k, self.mm, where, length, prot, kind | flags, file, pgoff)

    def munmap(self, page: int, pages: int) -> int:
        return vm_munmap(self.k, self.mm, self.at(page), pages << PAGE_SHIFT)

    def mprotect(self, page: int, pages: int, prot: int) -> int:
        return do_mprotect(self.k, self.mm, self.at(page), pages << PAGE_SHIFT, prot)

    def madvise(self, page: int, pages: int, advice: int) -> int:
        return do_madvise(self.k, self.mm, self.at(page), pages << PAGE_SHIFT, advice)

    def mlock(self, page: int, pages: int) -> int:
        return do_mlock(self.k, self.mm, self.at(page), pages << PAGE_SHIFT)

    def munlock(self, page: int, pages: int) -> int:
        return do_munlock(self.k, self.mm, self.at(page), pages << PAGE_SHIFT)

    def mremap(
        self, page: int, pages: int, to: int, new_pages: int | None = None, dontunmap: bool = False
    ) -> int:
        """Move to a given page."""
        flags = MREMAP_MAYMOVE | MREMAP_FIXED | (MREMAP_DONTUNMAP if dontunmap else 0)
        new = pages if new_pages is None else new_pages
        return do_mremap(
            self.k, self.mm, self.at(page), pages << PAGE_SHIFT, new << PAGE_SHIFT, flags,
            self.at(to),
        )  # fmt: skip

    def resize(self, page: int, pages: int, new_pages: int, flags: int = MREMAP_MAYMOVE) -> int:
        """Let mremap choose where the range goes."""
        return do_mremap(
            self.k, self.mm, self.at(page), pages << PAGE_SHIFT, new_pages << PAGE_SHIFT, flags, 0
        )

    def fault(self, page: int, write: bool) -> int:
        """What a fault at a page results in; -1 without a VMA that permits it."""
        vma = find_vma(self.k, self.mm, self.at(page))
        need = VM_WRITE if write else VM_READ | VM_WRITE | VM_EXEC
        if vma is None or vma.vm_start > self.at(page) or not vma.vm_flags & need:
            return -1
        self.mm.mmap_sem.down_read()
        flags = FAULT_FLAG_WRITE if write else 0
        result = handle_mm_fault(self.k, vma, self.at(page), flags)
        self.mm.mmap_sem.up_read()
        return result

    def write(self, page: int, pages: int = 1) -> None:
        for i in range(page, page + pages):
            assert not self.fault(i, True) & VM_FAULT_ERROR

    def read(self, page: int, pages: int = 1) -> None:
        for i in range(page, page + pages):
            assert not self.fault(i, False) & VM_FAULT_ERROR

    def fork(self) -> Space:
        child = dup_mm(self.k, self.mm)
        assert child is not None
        return Space(self.k, child)

    def exit(self) -> None:
        mmput(self.k, self.mm)

    def pte(self, page: int) -> int:
        """The entry of a page, 0 if there is none."""
        ptep = pte_lookup(self.k, self.mm, self.at(page))
        return self.k.pt[ptep] if ptep else 0

    def pfn(self, page: int) -> int:
        """The frame that is mapped at a page, 0 if none is."""
        pte = self.pte(page)
        return pte_pfn(pte) if pte_present(pte) else 0

    def vma(self, page: int) -> Vma:
        """The VMA of a page."""
        vma = find_vma(self.k, self.mm, self.at(page))
        assert vma is not None
        assert vma.vm_start <= self.at(page)
        return vma

    def layout(self) -> list[str]:
        """The VMAs: ``"4-8 rw-p 4"``, range, permissions, page offset (of the arena, if anon)."""
        lines = []
        for vma in self.mm.vmas:
            flags = "".join(
                letter if vma.vm_flags & bit else "-"
                for letter, bit in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC))
            )
            flags += "s" if vma.vm_flags & VM_SHARED else "p"
            pgoff = vma.vm_pgoff - (ARENA if vma.vm_file is None else 0)
            start, end = self.page(vma.vm_start), self.page(vma.vm_end)
            lines.append(f"{start}-{end} {flags} {pgoff}")
        return lines
