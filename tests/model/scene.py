# SPDX-License-Identifier: GPL-2.0-only
"""A machine with a little of everything, for tests that look at one."""

from __future__ import annotations

from rmap.mm.mm_types import Vma
from rmap.mm.pgtable import pte_lookup
from rmap.mm.profile import KernelProfile
from rmap.model import Machine, Process

PAGE = 4096


class Scene:
    """A parent and its child, files, shared memory, swap, a cgroup, something locked."""

    def __init__(self, profile: str | KernelProfile = "4.18") -> None:
        self.machine = Machine(ram=512, cpus=2, swap=64, profile=profile)
        self.k = self.machine.kernel
        self.file = self.machine.file("data", 8)
        self.group = self.machine.cgroup("group")
        self.parent = self.machine.spawn("parent", self.group)
        self.anon = self.parent.mmap(8 * PAGE)
        self.shared = self.parent.mmap(4 * PAGE, "rw", "shared")
        self.mapped = self.parent.mmap(4 * PAGE, "rw", "file", self.file)
        self.own = self.parent.mmap(4 * PAGE, "rw", "fileprivate", self.file, pgoff=2)
        for address, pages in ((self.anon, 8), (self.shared, 4), (self.mapped, 2), (self.own, 1)):
            self.parent.touch(address, pages * PAGE)
        self.parent.read(self.own + PAGE, 1)
        self.child = self.parent.fork("child")
        self.child.write(self.anon, b"mine")
        self.child.read(self.anon + PAGE, 1)
        self.child.touch(self.mapped, PAGE)
        self.locked = self.parent.mmap(PAGE, locked=True)
        self.parent.mprotect(self.anon + 6 * PAGE, PAGE, "r")
        self.swapped = self.parent.mmap(2 * PAGE)
        self.parent.touch(self.swapped, 2 * PAGE)
        self.parent.madvise(self.swapped, 2 * PAGE, "pageout")

    def page(self, process: Process, address: int) -> int:
        """The page that is mapped at an address."""
        return process.pages(address, 1)[0]

    def vma(self, process: Process, address: int) -> Vma:
        """The VMA of an address."""
        vma = process.vma_at(address)
        assert vma is not None
        return vma

    def set_pte(self, process: Process, address: int, value: int) -> None:
        """Put something into a page table, behind everybody's back."""
        self.k.pt[pte_lookup(self.k, process.mm, address)] = value
