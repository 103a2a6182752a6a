# SPDX-License-Identifier: GPL-2.0-only
"""A machine made of an image, to ask what the kernel would do with a real machine's memory.

Pages keep their frame numbers, processes their pids. What an image of `/proc` does not tell is
filled in on the safe side, and counted in `Loaded`:

* anon_vmas and vm_pgoff of anonymous memory: from shared pages (`rmap.model.families`);
* whether an entry is writable, dirty or young: writable where writing is permitted and the page
  nobody else's, an anonymous page dirty, none young; so reclaim finds nothing in use;
* order on the LRU lists: by frame number; cgroup of a page: that of a process that maps it;
* contents: zeros.

Transparent huge pages and memory that broke are what they were if the image is a model's; of other
images huge entries are taken apart into small ones. What the model could only get wrong is left out
of page tables: KSM pages, hugetlb pages, frames of devices, and entries that wait for a migration.
Pages that somebody maps who could not be read are pinned, so that they are not freed; all other
pages in use are reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.check import Recount
from rmap.check.counters import expected_memcg, expected_rss, expected_vmstat
from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.mm import bits
from rmap.mm.bits import MAX_SWAPFILES, NR_MM_COUNTERS, PAGE_SHIFT, SWAP_MAP_MAX, VM_LOCKED
from rmap.mm.filemap import make_file
from rmap.mm.i_mmap import vma_link_file
from rmap.mm.mm_types import File, MemCgroup, Mm, Vma
from rmap.mm.pgtable import swp_entry
from rmap.mm.swap_slots import swap_duplicate, swapon
from rmap.mm.vma import vma_link_list, vma_pages, vma_set_page_prot
from rmap.mm.vma_adjust import get_file
from rmap.model.load_anon import read_anon_vmas
from rmap.model.load_entries import Entries, read_entries, write_tables
from rmap.model.load_huge import HugeLoader
from rmap.model.load_pages import PageFiller
from rmap.model.sizes import pages_of

if TYPE_CHECKING:
    from rmap.model.machine import Machine

I64 = npt.NDArray[np.int64]

#: vm_flags that the model does not know, or that would bind it to what is not there.
FOREIGN_FLAGS = bits.VM_UFFD_MISSING | bits.VM_UFFD_WP


@dataclass
class Loaded:
    """What became of an image: entries and pages that the machine has, and has not.

    `huge` entries were taken apart, `left_out` counts small entries by the reason, `misfits` are
    mappings that contradict others about where their page belongs. `unattributed` pages are
    mapped by somebody who could not be read, `reserved` ones are in use otherwise. `known` says
    whether the image had anon_vmas.
    """

    entries: int
    huge: int
    left_out: dict[str, int]
    misfits: int
    unattributed: int
    reserved: int
    known: bool


def load(image: MemoryImage, swap: int | str = 0, **options: Any) -> Machine:
    """Make a machine of an image.

    Parameters
    ----------
    image
        Of any source. ``machine.loaded`` says what it did not tell.
    swap
        Free swap slots, in pages or as text, in an area of their own behind those of the image.
    options
        Of `Machine`: ``cpus``, ``profile``, ``seed``, ``checks``, ``invariants``.
    """
    from rmap.model.machine import Machine

    ends = [*image.ram["end_pfn"].tolist(), *(image.pages["pfn"][-1:] + np.uint64(1)).tolist(), 1]
    # One page more than there is, in case the image does not know the zero page.
    machine = Machine(ram=max(ends), swap=0, **options)
    _Loader(machine, image).run(pages_of(swap))
    return machine


class _Loader:
    """One load: the image, the machine, and which row became which object."""

    def __init__(self, machine: Machine, image: MemoryImage) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.image = image
        self.groups: dict[str, MemCgroup] = {"/": self.kernel.memcgs[0]}

    def run(self, swap: int) -> None:
        """Make everything, lowest first, and count what the kernel counts."""
        image, k = self.image, self.kernel
        with self.machine.kthread("load"):
            entries, left_out = read_entries(image)
            mms = self._make_mms()
            files = self._make_files(entries)
            anon = read_anon_vmas(k, image, entries)
            entries = entries.without(anon.misfits)
            vmas = self._make_vmas(mms, files, anon.pgoff)
            anon.link(k, vmas)
            self._make_areas(entries, swap)
            self._find_zero_page()
            write_tables(k, image, entries, mms)
            huge = HugeLoader(k, image)
            huge.fold(mms)
            filled = PageFiller(k, image, entries, anon, files, mms, huge).fill()
            self._count_slots(entries)
        self.machine.pins.update(filled.pinned)
        self._count()
        self.machine.loaded = Loaded(
            entries=len(entries),
            huge=int((image.ptes["order"] > 0).sum()) - huge.folded,
            left_out=left_out,
            misfits=len(anon.misfits),
            unattributed=len(filled.pinned),
            reserved=filled.reserved,
            known=anon.known,
        )

    # ------------------------------------------------------------ processes

    def _make_mms(self) -> list[Mm]:
        """Make an address space for each of the image, with the process of lowest pid."""
        rows = {int(row): pid for row, pid in enumerate(self.image.mms["pid"].tolist())}
        processes = self.image.processes
        of_pid = {pid: row for row, pid in enumerate(processes["pid"].tolist())}
        mms = []
        for number in range(len(self.image.mms)):
            row = of_pid.get(rows[number], -1)
            comm, cgroup, ppid = "", "/", 0
            if row >= 0:
                comm, cgroup = str(processes["comm"][row]), str(processes["cgroup"][row])
                ppid = max(int(processes["ppid"][row]), 0)
            group = self.machine.cgroup_of(self._group(cgroup))
            process = self.machine.spawn(comm, group)
            self.machine.renumber(process, rows[number] if row >= 0 else process.pid, ppid)
            mms.append(process.mm)
        return mms

    def _group(self, path: str) -> MemCgroup:
        """Return the cgroup of a path, made with all above it."""
        if path not in self.groups:
            above, _, _ = path.rstrip("/").rpartition("/")
            parent = self.machine.cgroup_of(self._group(above or "/"))
            self.groups[path] = self.machine.cgroup(path, parent=parent).memcg
        return self.groups[path]

    # ------------------------------------------------------------ files and VMAs

    def _make_files(self, entries: Entries) -> list[File]:
        """Make the files, as long as the last page that is mapped of them or cached."""
        image = self.image
        of_vma = image.vmas["file"]
        pages = (image.vmas["end"] - image.vmas["start"]) >> np.uint64(PAGE_SHIFT)
        sizes = np.zeros(len(image.files), np.int64)
        mapped = of_vma >= 0
        ends = (image.vmas["pgoff"] + pages).astype(np.int64)
        np.maximum.at(sizes, of_vma[mapped], ends[mapped])
        if "file" in image.pages and "index" in image.pages:
            cached = image.pages["file"] >= 0
            ends = image.pages["index"][cached].astype(np.int64) + 1
            np.maximum.at(sizes, image.pages["file"][cached], ends)
        shmem = entries.files_with_swap_backed_pages(len(image.files))
        files = []
        for row in range(len(image.files)):
            told = image.files.row(row)
            file = make_file(self.kernel, told["path"], int(sizes[row]), bool(shmem[row]))
            file.inode, file.anonymous = told["inode"], told["deleted"]
            files.append(file)
        return files

    def _make_vmas(self, mms: Sequence[Mm], files: Sequence[File], pgoff: I64) -> list[Vma]:
        """Make and link the VMAs, into the trees of their files in the order that they had."""
        k, table = self.kernel, self.image.vmas
        vmas = []
        for row in range(len(table)):
            mm = mms[int(table["mm"][row])]
            flags = int(table["flags"][row]) & ~FOREIGN_FLAGS
            start, end = int(table["start"][row]), int(table["end"][row])
            vma = Vma(mm, start, end, flags, int(pgoff[row]))
            vma.ident = k.next_serial()
            if table["file"][row] >= 0:
                vma.vm_file = files[int(table["file"][row])]
                get_file(vma.vm_file)
            name = str(table["name"][row])
            vma.name = name
            mm.mmap_sem.down_write()
            vma_link_list(k, mm, vma)
            vma_set_page_prot(k, vma)
            mm.mmap_sem.up_write()
            mm.total_vm += vma_pages(vma)
            mm.locked_vm += vma_pages(vma) if flags & VM_LOCKED else 0
            if name == "[heap]":
                mm.start_brk, mm.brk = start, end
            vmas.append(vma)
        for file in files:
            # One that has no name any more ends with the last VMA that maps it.
            file.f_count -= file.anonymous and file.f_count > 1
        for row in self._in_tree_order():
            vma = vmas[row]
            if vma.vm_file is not None:
                mapping = vma.vm_file.f_mapping
                mapping.i_mmap_rwsem.down_write()
                vma_link_file(vma)
                mapping.i_mmap_rwsem.up_write()
        return vmas

    def _in_tree_order(self) -> list[int]:
        """VMAs in the order in which to link them into the trees of files."""
        table = self.image.tables["i_mmap"]
        known = table["vma"][np.lexsort((table["tree_position"], table["file"]))].tolist()
        return known + sorted(set(range(len(self.image.vmas))) - set(known))

    def _find_zero_page(self) -> None:
        """Let the zero page be that of the image, or else the page that it does not have."""
        pages = self.image.pages
        both = np.uint64(Kpf.ZERO_PAGE | Kpf.THP)
        zero = pages["pfn"][pages["flags"] & both == np.uint64(Kpf.ZERO_PAGE)]
        self.kernel.zero_page = int(zero[0]) if len(zero) else int(self.kernel.nr_pages)

    # ------------------------------------------------------------ swap

    def _make_areas(self, entries: Entries, swap: int) -> None:
        """Make the swap areas with the slots that entries hold, and one that is free.

        What else the former have is not known, so nothing more goes into them.
        """
        slots = self.image.tables["swap_slots"]
        known = np.concatenate((slots["entry"].astype(np.int64), entries.slots))
        types = known & 31
        for area in range(int(types.max(initial=-1)) + 1):
            offsets = known[types == area] >> 5
            swapon(self.kernel, int(offsets.max(initial=0)) + 1, -1)
            self.kernel.swap_areas[area].writeok = False
        if swap and len(self.kernel.swap_areas) < MAX_SWAPFILES:
            swapon(self.kernel, swap + 1, -1)

    def _count_slots(self, entries: Entries) -> None:
        """Count the entries that hold each slot; large counts take pages of their own."""
        for entry, count in zip(*np.unique(entries.slots, return_counts=True), strict=True):
            area, slot = self.kernel.swap_areas[int(entry) & 31], int(entry) >> 5
            area.inuse += not area.swap_map[slot]
            area.swap_map[slot] |= min(int(count), SWAP_MAP_MAX)
            for _ in range(SWAP_MAP_MAX, int(count)):
                swap_duplicate(self.kernel, swp_entry(area.type, slot))

    # ------------------------------------------------------------ counters

    def _count(self) -> None:
        """Set every counter to what it should be, by the recount that checks them."""
        k = self.kernel
        facts = Recount(k)
        for mm, counts in zip(facts.mms, expected_rss(facts), strict=True):
            for member in range(NR_MM_COUNTERS):
                mm.rss_stat[member] = counts[member]
            mm.hiwater_rss = sum(counts) - counts[bits.MM_SWAPENTS]
        for name, value in expected_vmstat(facts).items():
            k.vm_stat[getattr(bits, name)] = value
        for group, usage, stats in expected_memcg(facts):
            group.usage = usage if group.parent is not None else 0
            for name, value in stats.items():
                group.stat[getattr(bits, name)] = value
