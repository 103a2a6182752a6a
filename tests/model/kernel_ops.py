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
    PG_hwpoison,
    PG_lru,
    PG_reserved,
)
from rmap.mm.ksm.stable import page_stable_node
from rmap.mm.mm_types import AddressSpace
from rmap.mm.page import (
    PageKsm,
    compound_head,
    page_to_pgoff,
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
from rmap.model import Process, SyscallError
from rmap.model.hugetlb import HugetlbFile
from rmap.model.movement import Device
from tests.model.layout import BLOCK, HUGE_SIZE, PAGE, at, size
from tests.model.looking import Looking, Op, entry_of
from tests.model.oracle import Store

#: Pages of the device.
DEVICE_PAGES = 12
#: So many pages are broken at once.
BROKEN = 3


class KernelOps(Looking):
    """The part of `tests.model.world.World` that is the kernel's own business."""

    gpu: Device | None = None

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
        with contextlib.suppress(ValueError):  # a small page, or one of a pool
            self.machine.split_huge_page(page)

    def do_shrink(self, op: Op) -> None:
        """Split what is queued for that."""
        self.machine.shrink_deferred()

    # ------------------------------------------------------------ huge pages of a pool

    def do_pool(self, op: Op) -> None:
        """Make the pool larger or smaller; cut its file, or make a hole in it."""
        if not self.hugetlb_files:
            return
        handle, store = self.hugetlb_files[0]
        assert isinstance(handle, HugetlbFile)
        number = op.arg // 4 % 7
        if op.arg % 4 == 0:
            self.machine.hugetlb.pool(number + 1)
        elif op.arg % 4 == 1:
            self.machine.hugetlb.overcommit(number // 2)
        elif op.arg % 4 == 2:
            with contextlib.suppress(SyscallError):
                handle.truncate(number * HUGE_SIZE)
                self.cut(store, number * BLOCK)
        else:
            handle.punch_hole(number * HUGE_SIZE, HUGE_SIZE)
            store.values.pop(number * BLOCK, None)
            for space in self.spaces.values():
                for spot in space.values():
                    if spot.store is store and spot.index == number * BLOCK:
                        spot.own = None

    def cut(self, store: Store, pages: int) -> None:
        """A file was made so long; private copies of what is beyond are lost as well."""
        for space in self.spaces.values():
            for spot in space.values():
                if spot.store is store and spot.index >= pages:
                    spot.own, spot.freed = None, False
        store.truncate(pages)

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

    def do_device(self, op: Op) -> None:
        """Move some of a process to a device's memory, or back."""
        process = self.alive.get(op.who)
        if process is None:
            return
        if self.gpu is None:
            self.gpu = self.machine.device(DEVICE_PAGES)
        move = self.gpu.push if op.arg % 4 == 0 else self.gpu.pull
        if any(self.is_forgotten(process, op.page + page) for page in range(op.pages)):
            return
        with contextlib.suppress(SyscallError):
            move(process, at(op.page), size(op.page, op.pages))

    def is_forgotten(self, process: Process, place: int) -> bool:
        """Whether a merged page is there of which KSM knows no place any more.

        migrate_vma() empties the entry before it asks whether the page can move, and would find no
        walk that leads back to it: in the kernel the entry waits for ever.
        """
        k = self.machine.kernel
        pte = entry_of(process, place)
        if not pte_present(pte) or not PageKsm(k, pte_pfn(pte)):
            return False
        node = page_stable_node(k, pte_pfn(pte))
        return node is None or not node.hlist

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

    def do_offline(self, op: Op) -> None:
        """Take a page out of use before it breaks: nobody loses anything."""
        k = self.machine.kernel
        page = self.some_page(op)
        broken = int((np.asarray(k.pg_flags) & np.uint32(PG_hwpoison) != 0).sum())
        if page and broken < BROKEN and not k.pg_flags[page] & PG_reserved:
            with contextlib.suppress(SyscallError):
                self.machine.soft_offline(page)

    def believe(self, mapping: AddressSpace, index: int) -> None:
        """Take for a page of a file what is there now: on disk, or nothing."""
        files = [*self.files, *self.hugetlb_files]
        stores = [store for handle, store in files if handle.mapping is mapping]
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
        mapping = vma.vm_file.f_mapping
        item = mapping.i_pages.get(index >> mapping.hstate.order if mapping.hstate else index, 0)
        if item < 0:
            return self.is_broken_slot(-item)
        return bool(item and self.machine.kernel.pg_flags[item] & PG_hwpoison)
