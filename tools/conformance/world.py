# SPDX-License-Identifier: GPL-2.0-only
"""The state of a machine in the corpus's form: VMAs, anon_vmas, files, pages, entries.

A world is plain lists, so that two are equal exactly if the machines are, whatever their page
frames and handles. Things are named by their place in a list, in the order in which they are met:

``status``     ``[operation, code, pages]`` of operations that failed: -errno, or 1000 + signal
``live``       the processes there are, ascending
``vmas``       ``[process, start, end, flags, pgoff, file, anon_vma, chain]`` by process and
               address; the chain from the head of vma->anon_vma_chain on
``anon_vmas``  ``[root, parent, refcount, num_children, num_active_vmas, tree]``, the VMAs of the
               tree in order
``files``      ``[name, tree]`` of what is mapped, the VMAs of address_space->i_mmap in order
``pages``      ``[kind, owner, index, mapcount, refcount, flags, value]``: kind ``a`` with an
               anon_vma for an owner, ``f`` with a file, or ``z``, the zero page, of which nothing
               is told; flags ``x`` PG_anon_exclusive, ``m`` PG_mlocked, ``s`` PG_swapbacked;
               value the first 32 bits of the contents
``ptes``       ``[process, page, id of the page, bits]``: 1 writable, 2 dirty, 4 accessed,
               8 PROT_NONE

All places are in pages from the start of the arena. An index of anonymous memory is counted from
there too, so that memory that never moved has pgoff == start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rmap.mm import bits
from rmap.mm.mm_types import (
    AddressSpace,
    AnonVma,
    File,
    IntervalNode,
    IntervalRoot,
    Kernel,
    Mm,
    Vma,
)
from rmap.mm.page import PageAnon, page_anon_vma, page_mapping
from rmap.mm.pgtable import pte_lookup, pte_pfn, pte_present
from tools.conformance.corpus import World

#: Address of page 0 of a program.
ARENA = 1 << 44
_ARENA_PAGE = ARENA >> bits.PAGE_SHIFT

_VMA_WORDS = (
    (bits.VM_LOCKED, "lo"),
    (bits.VM_DONTCOPY, "dc"),
    (bits.VM_WIPEONFORK, "wf"),
    (bits.VM_MERGEABLE, "mg"),
    (bits.VM_HUGEPAGE, "hg"),
    (bits.VM_NOHUGEPAGE, "nh"),
    (bits.VM_ACCOUNT, "ac"),
)
_PAGE_LETTERS = (
    (bits.PG_anon_exclusive, "x"),
    (bits.PG_mlocked, "m"),
    (bits.PG_swapbacked, "s"),
)
_PTE_BITS = (
    (bits._PAGE_RW, 1),
    (bits._PAGE_DIRTY, 2),
    (bits._PAGE_ACCESSED, 4),
    (bits._PAGE_PROTNONE, 8),
)


def world(kernel: Kernel, mms: dict[int, Mm], status: list[list[int]]) -> World:
    """Describe a machine.

    Parameters
    ----------
    kernel
        The machine's kernel.
    mms
        The address space of each process that is alive, by its number.
    status
        What failed so far, handed through.
    """
    return _Describer(kernel, dict(sorted(mms.items()))).world(status)


class _Describer:
    """The lists of a world while they are made, and what has got its number already."""

    def __init__(self, kernel: Kernel, mms: dict[int, Mm]) -> None:
        self.kernel = kernel
        self.mms = mms
        self.vmas: list[Vma] = [vma for mm in mms.values() for vma in mm.vmas]
        self.vma_ids = {id(vma): number for number, vma in enumerate(self.vmas)}
        self.anon_vmas: list[AnonVma] = []
        self.anon_vma_ids: dict[int, int] = {}
        self.file_names: dict[int, str] = {}
        self.mappings: list[AddressSpace] = []
        self.pages: list[list[Any]] = []
        self.page_ids: dict[int, int] = {}

    def world(self, status: list[list[int]]) -> World:
        """Describe everything, in the order that the numbers are defined by."""
        vmas = [self.vma(p, vma) for p, mm in self.mms.items() for vma in mm.vmas]
        ptes = list(self.ptes())
        for anon_vma in list(self.anon_vmas):
            self.anon_vma_id(anon_vma.root)
            self.anon_vma_id(anon_vma.parent)
        return {
            "status": [list(entry) for entry in status],
            "live": list(self.mms),
            "vmas": vmas,
            "anon_vmas": [self.anon_vma(anon_vma) for anon_vma in self.anon_vmas],
            "files": [
                [self.file_names[mapping.handle], self.tree(mapping.i_mmap)]
                for mapping in self.mappings
            ],
            "pages": self.pages,
            "ptes": ptes,
        }

    def vma(self, process: int, vma: Vma) -> list[Any]:
        """Describe a VMA."""
        own = None if vma.anon_vma is None else self.anon_vma_id(vma.anon_vma)
        return [
            process,
            (vma.vm_start - ARENA) >> bits.PAGE_SHIFT,
            (vma.vm_end - ARENA) >> bits.PAGE_SHIFT,
            vma_flags(vma.vm_flags),
            vma.vm_pgoff - (0 if vma.vm_file is not None else _ARENA_PAGE),
            None if vma.vm_file is None else self.file_name(vma.vm_file),
            own,
            [self.anon_vma_id(avc.anon_vma) for avc in vma.anon_vma_chain],
        ]

    def anon_vma_id(self, anon_vma: AnonVma) -> int:
        """Return the number of an anon_vma, the next one if it had none."""
        number = self.anon_vma_ids.setdefault(anon_vma.handle, len(self.anon_vmas))
        if number == len(self.anon_vmas):
            self.anon_vmas.append(anon_vma)
        return number

    def anon_vma(self, anon_vma: AnonVma) -> list[Any]:
        """Describe an anon_vma."""
        return [
            self.anon_vma_id(anon_vma.root),
            self.anon_vma_id(anon_vma.parent),
            anon_vma.refcount,
            anon_vma.num_children,
            anon_vma.num_active_vmas,
            self.tree(anon_vma.rb_root),
        ]

    def tree(self, root: IntervalRoot) -> list[int]:
        """Return the VMAs of an interval tree in order; -1 for one that no process has."""
        return [self.vma_ids.get(id(node.vma), -1) for node in in_order(root.rb_node)]

    def file_name(self, file: File) -> str:
        """Return the name of a mapped file; shared anonymous memory is numbered."""
        mapping = file.f_mapping
        if mapping.handle not in self.file_names:
            anonymous = sum(name.startswith("shm#") for name in self.file_names.values())
            name = f"shm#{anonymous}" if file.anonymous else file.name
            self.file_names[mapping.handle] = name
            self.mappings.append(mapping)
        return self.file_names[mapping.handle]

    def ptes(self) -> Iterator[list[int]]:
        """Describe every entry that maps a page, and each page when it is met first."""
        for process, mm in self.mms.items():
            for vma in mm.vmas:
                for address in range(vma.vm_start, vma.vm_end, bits.PAGE_SIZE):
                    slot = pte_lookup(self.kernel, mm, address)
                    pte = self.kernel.pt[slot] if slot else 0
                    if pte_present(pte):
                        place = (address - ARENA) >> bits.PAGE_SHIFT
                        page = self.page_id(pte_pfn(pte), vma)
                        yield [process, place, page, pte_bits(pte)]

    def page_id(self, page: int, vma: Vma) -> int:
        """Return the number of a page, the next one if it had none."""
        number = self.page_ids.setdefault(page, len(self.pages))
        if number == len(self.pages):
            self.pages.append(self.page(page, vma))
        return number

    def page(self, page: int, vma: Vma) -> list[Any]:
        """Describe a page, which `vma` maps."""
        kernel = self.kernel
        if page == kernel.zero_page:
            return ["z", None, None, None, None, "", 0]
        owner: int | str
        anonymous = PageAnon(kernel, page)
        if anonymous:
            owner = self.anon_vma_id(page_anon_vma(kernel, page))
        else:
            mapping = page_mapping(kernel, page)
            owner = self.file_names.get(mapping.handle, mapping.name)
        return [
            "a" if anonymous else "f",
            owner,
            kernel.pg_index[page] - (0 if vma.vm_file is not None else _ARENA_PAGE),
            kernel.pg_mapcount[page] + 1,
            kernel.pg_refcount[page],
            "".join(letter for bit, letter in _PAGE_LETTERS if kernel.pg_flags[page] & bit),
            int.from_bytes(kernel.content.get(page, b"")[:4], "little"),
        ]


def vma_flags(flags: int) -> str:
    """Return VM flags as the corpus writes them.

    >>> vma_flags(bits.VM_READ | bits.VM_WRITE | bits.VM_LOCKED)
    'rw-p lo'
    """
    access = zip("rwx", (bits.VM_READ, bits.VM_WRITE, bits.VM_EXEC), strict=True)
    letters = "".join(letter if flags & bit else "-" for letter, bit in access)
    sharing = "s" if flags & bits.VM_SHARED else "p"
    return " ".join([letters + sharing, *(word for bit, word in _VMA_WORDS if flags & bit)])


def pte_bits(pte: int) -> int:
    """Return the bits of a page-table entry that a world tells."""
    return sum(told for bit, told in _PTE_BITS if pte & bit)


def in_order(node: IntervalNode | None) -> Iterator[IntervalNode]:
    """Yield the nodes of a subtree in order."""
    if node is not None:
        yield from in_order(node.rb_left)
        yield node
        yield from in_order(node.rb_right)
