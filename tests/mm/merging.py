# SPDX-License-Identifier: GPL-2.0-only
"""A machine whose processes offer memory to KSM, for the tests of merging."""

from __future__ import annotations

from faulting import ARENA, PAGE, Faulting

from rmap.mm.ksm.scan import ksm_scan_thread
from rmap.mm.ksm.stable import Ksm, StableNode, ksm_of, page_stable_node
from rmap.model import Process


class Merging(Faulting):
    """Processes with a page for each content, mergeable, at the arena's beginning."""

    def __init__(self, ram: int = 256, swap: int = 64, base: str = "4.18", **quirks: bool) -> None:
        super().__init__(ram, swap, base, **quirks)
        self.m.ksm.run = "run"
        self.ksm: Ksm = ksm_of(self.k)

    def offer(self, *contents: bytes, name: str = "") -> Process:
        """A new process with pages that hold these, mergeable."""
        process = self.m.spawn(name or f"p{len(self.m.processes)}")
        process.mmap(len(contents) * PAGE, addr=ARENA)
        for i, content in enumerate(contents):
            process.write(self.at(i), content)
        process.madvise(ARENA, len(contents) * PAGE, "mergeable")
        return process

    def at(self, page: int) -> int:
        """The address of a page of the arena."""
        return ARENA + page * PAGE

    def of(self, process: Process, page: int = 0) -> int:
        """The frame that a process maps at a page of the arena."""
        return self.page(process, self.at(page))

    def rounds(self, count: int = 2) -> None:
        """Let ksmd go over everything so often."""
        for _ in range(count):
            ksmd_round(self)

    def node(self, page: int) -> StableNode | None:
        """The node that a page names."""
        return page_stable_node(self.k, page)

    def counted(self) -> tuple[int, int, int, int]:
        """Pages shared, sharing, unshared and volatile."""
        ksm = self.m.ksm
        return ksm.pages_shared, ksm.pages_sharing, ksm.pages_unshared, ksm.pages_volatile

    def walked(self, page: int) -> list[tuple[str, int]]:
        """Who maps a page by its walk, in its order: names, and pages of the arena."""
        found = self.m.who_maps(page)
        return [(one.process.name, (one.address - ARENA) // PAGE) for one in found]

    def mapped(self, page: int) -> set[tuple[str, int]]:
        """Who maps a page by all page tables."""
        return {
            (process.name, i)
            for process in self.m.processes.values()
            for vma in process.vmas
            for i in range((vma.vm_start - ARENA) // PAGE, (vma.vm_end - ARENA) // PAGE)
            if self.of(process, i) == page
        }

    def sound(self) -> bool:
        """Besides, the walk of every merged page finds exactly who maps it."""
        for node in self.ksm.stable_nodes:
            if node is None or not node.hlist or self.node(node.kpfn) is not node:
                continue
            # By several items of one address, a place may be met more than once.
            assert set(self.walked(node.kpfn)) == self.mapped(node.kpfn)
        return super().sound()

    def gone(self) -> bool:
        """Let all processes exit, and see that nothing is left of them when ksmd has been by."""
        from rmap.check import leftovers

        for process in list(self.m.processes.values()):
            process.exit()
        self.m.ksm.run = "stop"
        self.m.ksm.run = "unmerge"
        assert leftovers(self.k, self.m.pins) == []
        assert [node for node in self.ksm.stable_nodes if node is not None] == []
        assert self.ksm.mm_slots == []
        assert self.ksm.slots_hash == {}
        self.m.ksm.run = "run"
        return super().sound()


def ksmd_round(f: Merging) -> int:
    """One round of ksmd, of however many batches."""
    before = f.m.ksm.full_scans
    done = 0
    while f.ksm.mm_slots and f.m.ksm.full_scans == before:
        with f.m.kthread("ksmd") as k:
            done += int(ksm_scan_thread(k, 1 << 20))
    return done
