# SPDX-License-Identifier: GPL-2.0-only
"""Comparing a machine with its oracle: VMAs, contents wherever they are, and every invariant.

Nothing is faulted in: a look changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from rmap.check import Violation
from rmap.check.translations import translation
from rmap.mm.bits import HPAGE_RESV_UNMAPPED, SWP_HWPOISON, VM_HUGETLB, VM_MAYSHARE, VM_SHARED
from rmap.mm.mm_types import AddressSpace
from rmap.mm.page import page_private
from rmap.mm.pgtable import (
    is_swap_pte,
    non_swap_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    swp_offset,
    swp_type,
)
from rmap.model import FileHandle, Machine, Process
from tests.model.layout import PAGE, at, number_of, places_of, told_of
from tests.model.oracle import Space, Spot, Store

#: Of a file, so many pages are looked at, and those that were written.
SCANNED = 16


class Op(NamedTuple):
    """An operation: whose, where, how many places, and a number with a meaning of its own.

    `page` is a place; for operations that make a process it is the number of that.
    """

    name: str
    who: int = 0
    page: int = 0
    pages: int = 1
    arg: int = 0


class Wrong(AssertionError):
    """The machine is not what it must be."""


def entry_of(process: Process, place: int) -> int:
    """What the page tables have for the first page of a place, out of a huge entry too."""
    return translation(process.machine.kernel, process.mm, at(place))


class Looking:
    """The part of `tests.model.world.World` that looks at its machine."""

    machine: Machine
    spaces: dict[int, Space]
    alive: dict[int, Process]
    files: list[tuple[FileHandle, Store]]
    hugetlb_files: list[tuple[FileHandle, Store]]

    def verify(self) -> None:
        """Compare everything. Raises `Wrong`, naming what differs."""
        violations: list[Violation | str] = list(self.machine.check())
        violations += [f"warning: {warning}" for warning in self.machine.warnings]
        for process in self.alive.values():
            violations += self.compare(process)
        for handle, store in [*self.files, *self.hugetlb_files]:
            violations += self.compare_file(handle, store)
        if violations:
            raise Wrong("\n".join(str(violation) for violation in violations))

    def compare(self, process: Process) -> list[str]:
        """VMAs and contents of a process against its dictionary."""
        space = self.spaces[process.pid]
        mapped = {page: vma for vma in process.vmas for page in places_of(vma)}
        problems = [
            f"page {page} of {process}: a VMA or an entry in the oracle, not both"
            for page in sorted(set(mapped) ^ set(space))
        ]
        for page in sorted(set(mapped) & set(space)):
            spot, vma = space[page], mapped[page]
            told = (told_of(vma)[0], not vma.vm_flags & VM_SHARED)
            if told != (spot.prot, spot.private):
                problems.append(f"page {page} of {process} is {told}, expected {spot}")
            found = self.peek(process, page, spot)
            if spot.exists and found is not None and found not in spot.values():
                problems.append(f"page {page} of {process} holds {found}, not {spot.values()}")
        return problems

    def compare_file(self, handle: FileHandle, store: Store) -> list[str]:
        """Contents of a file against its store."""
        return [
            f"page {index} of {handle} holds {self.peek_file(handle.mapping, index)}, "
            f"not {store.values.get(index, 0)}"
            for index in sorted({*range(min(store.size, SCANNED)), *store.values})
            if self.peek_file(handle.mapping, index) != store.values.get(index, 0)
        ]

    def peek(self, process: Process, page: int, spot: Spot) -> int | None:
        """The value of a page, wherever it is; nothing is faulted in. ``None`` for a broken one."""
        pte = entry_of(process, page)
        if pte_present(pte):
            return self.peek_page(int(pte_pfn(pte)))
        if is_swap_pte(pte):
            entry = int(pte_to_swp_entry(pte))
            if not non_swap_entry(entry):
                return self.peek_slot(entry)
            return None if swp_type(entry) == SWP_HWPOISON else self.peek_page(swp_offset(entry))
        vma = process.vma_at(at(page))
        if vma is None or vma.vm_file is None:
            return 0
        private = vma.vm_flags & VM_HUGETLB and not vma.vm_flags & VM_MAYSHARE
        if private and spot.own is not None and vma.resv_flags & HPAGE_RESV_UNMAPPED:
            # Taken away for whoever was promised it; who lost it is killed when he comes. A child
            # of his finds what the file has.
            return None
        index = vma.vm_pgoff + (at(page) - vma.vm_start) // PAGE
        return self.peek_file(vma.vm_file.f_mapping, index)

    def peek_page(self, page: int) -> int:
        """The value of a page frame; zero pages have none."""
        return number_of(self.machine.kernel.content.get(page, b""))

    def peek_file(self, mapping: AddressSpace, index: int) -> int:
        """The value of a page of a file: in its cache, in swap, or on disk."""
        if mapping.hstate is not None:
            head = mapping.i_pages.get(index >> mapping.hstate.order, 0)
            return self.peek_page(head + index % (1 << mapping.hstate.order)) if head else 0
        item = mapping.i_pages.get(index, 0)
        if item > 0:
            return self.peek_page(item)
        return self.peek_slot(-item) if item else number_of(mapping.backing.get(index, b""))

    def peek_slot(self, entry: int) -> int:
        """The value of a swap slot: in the swap cache, or written out."""
        k = self.machine.kernel
        area, slot = k.swap_areas[swp_type(entry)], swp_offset(entry)
        page = int(area.cache[slot])
        if page:
            assert page_private(k, page) == entry
            return number_of(k.content.get(page, b""))
        return number_of(area.slots.get(slot, b""))
