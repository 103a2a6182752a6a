# SPDX-License-Identifier: GPL-2.0-only
"""A machine with processes that fault, for the tests of faults, zap, files and accesses."""

from __future__ import annotations

from typing import Any

from rmap.mm import bits
from rmap.mm.mm_types import AnonVma, Kernel
from rmap.mm.page import page_mapcount
from rmap.mm.pgtable import pte_lookup
from rmap.mm.profile import profile
from rmap.model import FileHandle, Machine, Process

PAGE = 4096
#: Where the tests map: the first page of a page table, so that they know where it ends.
ARENA = 1 << 32
#: What an entry permits or tells, as the tests compare it.
TOLD = (
    bits._PAGE_PRESENT
    | bits._PAGE_RW
    | bits._PAGE_ACCESSED
    | bits._PAGE_DIRTY
    | bits._PAGE_SPECIAL
    | bits._PAGE_PROTNONE
)
READ = bits._PAGE_PRESENT | bits._PAGE_ACCESSED
WRITE = READ | bits._PAGE_RW | bits._PAGE_DIRTY


class Faulting:
    """A machine, its kernel and one process; statistics count from the beginning of the test."""

    def __init__(self, ram: int = 512, swap: int = 64, base: str = "4.18", **quirks: bool) -> None:
        kind = profile(base, **quirks)
        self.m = Machine(ram=ram, cpus=2, swap=swap, profile=kind)
        self.k: Kernel = self.m.kernel
        self.p = self.m.spawn("p")
        self.before = list(self.k.vm_stat)

    def map(self, pages: int, **how: Any) -> int:
        """Map memory at the arena's beginning, for the first process."""
        return self.p.mmap(pages * PAGE, addr=ARENA, **how)

    def stat(self, name: str) -> int:
        """A statistic by its name in `rmap.mm.bits`, as a change since the beginning."""
        item = getattr(bits, name)
        return int(self.k.vm_stat[item]) - int(self.before[item])

    def pte(self, p: Process, address: int) -> int:
        """The entry of an address, 0 if there is no table."""
        at = pte_lookup(self.k, p.mm, address)
        return int(self.k.pt[at]) if at else 0

    def told(self, p: Process, address: int) -> int:
        """What the entry of an address permits and tells."""
        return self.pte(p, address) & TOLD

    def set_pte(self, p: Process, address: int, pte: int) -> None:
        """Store an entry by hand, without a flush."""
        self.k.pt[pte_lookup(self.k, p.mm, address)] = pte

    def page(self, p: Process, address: int) -> int:
        """The page that an address maps, 0 if none."""
        return p.pages(address, 1)[0]

    def counts(self, page: int) -> tuple[int, int]:
        """Mappings and references of a page."""
        return page_mapcount(self.k, page), int(self.k.pg_refcount[page])

    def flags(self, page: int, flags: int) -> bool:
        """Whether a page has all of these flags."""
        return int(self.k.pg_flags[page]) & flags == flags

    def named(self, page: int) -> AnonVma:
        """The anon_vma that an anonymous page names."""
        word = int(self.k.pg_mapping[page])
        assert word & bits.PAGE_MAPPING_FLAGS == bits.PAGE_MAPPING_ANON
        anon_vma: AnonVma = self.k.anon_vmas[word >> bits.MAPPING_HANDLE_SHIFT]
        return anon_vma

    def rss(self, p: Process) -> tuple[int, int, int, int]:
        """File, anonymous, swapped and shmem pages of a process."""
        file, anon, swapped, shmem = (int(count) for count in p.mm.rss_stat)
        return file, anon, swapped, shmem

    def sound(self) -> bool:
        """Whether everything that the kernel counts is what a recount finds."""
        assert self.m.check() == []
        assert self.m.warnings == []
        return True

    def file(self, pages: int = 8, content: bytes = b"", shmem: bool = False) -> FileHandle:
        """A file."""
        return self.m.file(f"file{len(self.m.files)}", pages, shmem, content)
