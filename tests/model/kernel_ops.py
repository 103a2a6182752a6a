# SPDX-License-Identifier: GPL-2.0-only
"""Operations that no process asks for: merging, moving, splitting, collapsing, breaking pages.

None of them changes what processes see, but for memory that breaks.
"""

from __future__ import annotations

import contextlib

import numpy as np

from rmap.mm.bits import (
    MAPPING_HANDLE_SHIFT,
    PAGE_MAPPING_FLAGS,
    SWP_HWPOISON,
    PG_head,
    PG_huge,
    PG_hwpoison,
    PG_lru,
    PG_reserved,
)
from rmap.mm.huge import split_page as split
from rmap.mm.huge.split_page import deferred_split_scan
from rmap.mm.lru import put_page
from rmap.mm.mm_types import AddressSpace
from rmap.mm.page import (
    compound_head,
    get_page_unless_zero,
    page_to_pgoff,
    trylock_page,
    unlock_page,
)
from rmap.mm.pgtable import (
    is_swap_pte,
    non_swap_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    swp_offset,
    swp_type,
)
from rmap.model import Machine, Process, SyscallError
from tests.model.layout import PAGE, at
from tests.model.looking import Looking, Op, entry_of

#: So many pages are broken at once.
BROKEN = 3


def split_huge_page(machine: Machine, page: int) -> bool:
    """Split the huge page that a page is part of, if it is one; whether it was split."""
    with machine.kthread("split") as k:
        head = int(compound_head(k, page))
        if not k.pg_flags[head] & PG_head or k.pg_flags[head] & PG_huge:
            return False
        if not get_page_unless_zero(k, head):
            return False
        done = False
        if trylock_page(k, head):
            done = split.split_huge_page(k, head) == 0
            unlock_page(k, head)
        put_page(k, head)
        return done


class KernelOps(Looking):
    """The part of `tests.model.world.World` that is the kernel's own business."""

    # ------------------------------------------------------------ which page

    def page_at(self, process: Process, place: int) -> int:
        """The page frame of a place, 0 if none is mapped there."""
        pte = entry_of(process, place)
        return int(pte_pfn(pte)) if pte_present(pte) else 0

    def some_page(self, op: Op) -> int:
        """A page in use: that of a place, or any that is on an LRU list."""
        process = self.alive.get(op.who)
        page = self.page_at(process, op.page) if process is not None else 0
        if not page or op.arg % 5 == 0:
            flags = np.asarray(self.machine.kernel.pg_flags)
            listed = np.flatnonzero(flags & np.uint32(PG_lru))
            page = int(listed[op.arg % len(listed)]) if len(listed) else 0
        return page

    # ------------------------------------------------------------ merging

    def do_ksm(self, op: Op) -> None:
        """Let ksmd look at some pages, or at a round; change its settings; take all apart."""
        ksm = self.machine.ksm
        if op.arg % 16 == 0:
            with contextlib.suppress(SyscallError):
                ksm.run = "unmerge"
            ksm.run = "run"
        elif op.arg % 16 == 1:
            ksm.use_zero_pages = op.arg // 16 % 2 == 1
        elif op.arg % 16 == 2:
            with contextlib.suppress(SyscallError):
                ksm.max_page_sharing = (2, 3, 256)[op.arg // 16 % 3]
        else:
            ksm.scan(1 + op.arg // 16 % 40 if op.arg % 2 else None)

    # ------------------------------------------------------------ huge pages

    def do_thp(self, op: Op) -> None:
        """Say where memory is to be huge."""
        thp = self.machine.thp
        if op.arg // 4 % 2 == 0:
            thp.enabled = ("always", "madvise", "never", "always")[op.arg % 4]
        else:
            thp.shmem_enabled = ("always", "within_size", "advise", "never")[op.arg % 4]
        thp.use_zero_page = op.arg // 8 % 4 != 1

    def do_collapse(self, op: Op) -> None:
        """Let khugepaged look at some pages."""
        self.machine.khugepaged.state.max_ptes_none = (511, 511, 200, 0)[op.arg // 3 % 4]
        self.machine.khugepaged((64, 700, 4096)[op.arg % 3])

    def do_split(self, op: Op) -> None:
        """Split the huge page of a place."""
        page = self.some_page(op)
        if page:
            split_huge_page(self.machine, page)

    def do_shrink(self, op: Op) -> None:
        """Split what is queued for that."""
        with self.machine.kthread("shrink") as k:
            deferred_split_scan(k, 1 + op.arg % 8)

    # ------------------------------------------------------------ moving

    def do_migrate(self, op: Op) -> None:
        """Move the page of a place, or of many."""
        process = self.alive.get(op.who)
        pages = [self.some_page(op)]
        if process is not None:
            pages += [self.page_at(process, place) for place in range(op.page, op.page + op.pages)]
        mode = ("sync", "light", "async")[op.arg % 3]
        self.machine.migrate([page for page in pages if page], mode)

    def do_compact(self, op: Op) -> None:
        """Move pages together, so that a huge page may find room."""
        self.machine.compact()

    # ------------------------------------------------------------ broken memory

    def do_break(self, op: Op) -> None:
        """Let a page break: contents that were nowhere else are lost."""
        k = self.machine.kernel
        page = self.some_page(op)
        if not page or len(k.poisoned) >= BROKEN or k.pg_flags[page] & PG_reserved:
            return
        head = int(compound_head(k, page))
        word, index = int(k.pg_mapping[head]), int(page_to_pgoff(k, page))
        user = self.alive.get(op.who) if op.arg % 3 == 1 else None
        failure = self.machine.memory_failure(page, user)
        for kill in failure.kills:
            if not kill.process.alive:
                del self.alive[kill.process.pid], self.spaces[kill.process.pid]
        if word and not word & PAGE_MAPPING_FLAGS:
            self.believe(k.mappings[word >> MAPPING_HANDLE_SHIFT], index)

    def believe(self, mapping: AddressSpace, index: int) -> None:
        """Take for a page of a file what is there now: on disk, or nothing."""
        stores = [store for handle, store in self.files if handle.mapping is mapping]
        for process in self.alive.values():
            for place, spot in self.spaces[process.pid].items():
                vma = process.vma_at(at(place)) if spot.store is not None else None
                if vma is not None and vma.vm_file is not None and spot.store is not None:
                    stores += [spot.store] * (vma.vm_file.f_mapping is mapping)
        for store in stores:
            if index < store.size:
                store.values[index] = self.peek_file(mapping, index)

    def do_mend(self, op: Op) -> None:
        """Let a broken page be used again."""
        k = self.machine.kernel
        broken = np.flatnonzero(np.asarray(k.pg_flags) & np.uint32(PG_hwpoison)).tolist()
        if broken:
            self.machine.unpoison(broken[op.arg % len(broken)])

    def is_broken(self, process: Process, place: int) -> bool:
        """Whether who comes to a place finds memory that broke."""
        pte = entry_of(process, place)
        if pte_present(pte):
            return False
        if not is_swap_pte(pte):
            return self.is_broken_in_file(process, place)
        entry = int(pte_to_swp_entry(pte))
        if non_swap_entry(entry):
            return bool(swp_type(entry) == SWP_HWPOISON)
        return self.is_broken_slot(entry)

    def is_broken_slot(self, entry: int) -> bool:
        """Whether the swap cache has broken memory for a slot."""
        k = self.machine.kernel
        page = int(k.swap_areas[swp_type(entry)].cache[swp_offset(entry)])
        return bool(page and k.pg_flags[page] & PG_hwpoison)

    def is_broken_in_file(self, process: Process, place: int) -> bool:
        """The same of the file that is mapped there."""
        vma = process.vma_at(at(place))
        if vma is None or vma.vm_file is None:
            return False
        index = vma.vm_pgoff + (at(place) - vma.vm_start) // PAGE
        item = vma.vm_file.f_mapping.i_pages.get(index, 0)
        if item < 0:
            return self.is_broken_slot(-item)
        return bool(item and self.machine.kernel.pg_flags[item] & PG_hwpoison)
