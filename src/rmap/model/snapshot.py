# SPDX-License-Identifier: GPL-2.0-only
"""A `MemoryImage` of a machine: everything that an image can know, as it is now.

Page tables, trees and lists are read from their roots by `rmap.check.recount`, so an image shows a
broken machine as it is: a freed anon_vma that something still names has a row, with refcount 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.check import Recount
from rmap.check.entries import I64, Entries
from rmap.check.pages import most_mapped
from rmap.check.recount import slot_count, tree_nodes
from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte
from rmap.mm import bits
from rmap.mm.bits import (
    MAPPING_HANDLE_SHIFT,
    MAX_SWAPFILES,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_FLAGS,
    PAGE_SIZE,
    SWAP_MAP_BAD,
    SWAP_MAP_SHMEM,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    VM_GROWSDOWN,
)
from rmap.mm.mm_types import AddressSpace, AnonVma, MemCgroup, Vma
from rmap.model.structure import Structure

if TYPE_CHECKING:
    from rmap.model.machine import Machine

Row = dict[str, Any]

#: Devices that files are said to be on: a disk, and the kernel's own tmpfs.
DISK = 8 << 20 | 1
TMPFS = 5
#: Flags of a page: ours, and what /proc/kpageflags calls them.
PAGE_FLAGS = (
    (bits.PG_locked, Kpf.LOCKED),
    (bits.PG_error, Kpf.ERROR),
    (bits.PG_referenced, Kpf.REFERENCED),
    (bits.PG_uptodate, Kpf.UPTODATE),
    (bits.PG_dirty, Kpf.DIRTY),
    (bits.PG_lru, Kpf.LRU),
    (bits.PG_active, Kpf.ACTIVE),
    (bits.PG_slab, Kpf.SLAB),
    (bits.PG_writeback, Kpf.WRITEBACK),
    (bits.PG_reclaim, Kpf.RECLAIM),
    (bits.PG_swapcache, Kpf.SWAPCACHE),
    (bits.PG_swapbacked, Kpf.SWAPBACKED),
    (bits.PG_head, Kpf.COMPOUND_HEAD),
    (bits.PG_tail, Kpf.COMPOUND_TAIL),
    (bits.PG_huge, Kpf.HUGE),
    (bits.PG_unevictable, Kpf.UNEVICTABLE),
    (bits.PG_hwpoison, Kpf.HWPOISON),
    (bits.PG_idle, Kpf.IDLE),
    (bits.PG_reserved, Kpf.RESERVED),
    (bits.PG_mlocked, Kpf.MLOCKED),
)
#: Of these, what each page of a huge one has for itself.
OWN_FLAGS = (Kpf.COMPOUND_HEAD, Kpf.COMPOUND_TAIL, Kpf.HWPOISON)
#: Bits of an entry, present or not: the hardware's, and ours.
ENTRY_FLAGS = (
    (bits._PAGE_RW, Pte.WRITE),
    (bits._PAGE_DIRTY, Pte.DIRTY),
    (bits._PAGE_ACCESSED, Pte.YOUNG),
    (bits._PAGE_SPECIAL, Pte.SPECIAL),
    (bits._PAGE_PROTNONE, Pte.PROT_NONE),
    (bits._PAGE_SOFT_DIRTY, Pte.SOFT_DIRTY),
)


def snapshot(machine: Machine) -> MemoryImage:
    """Return an image of a machine; no operation may be under way."""
    return _Snapshot(machine).image()


class _Snapshot:
    """The tables of one image while they are made, and which object is which row."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.facts = Recount(machine.kernel)
        self.vma_rows = {id(vma): row for row, vma in enumerate(self.facts.vmas)}
        self.files = self.facts.mappings
        self.file_rows = {int(mapping.handle): row for row, mapping in enumerate(self.files)}
        self.anon_vmas = self._known_anon_vmas()
        self.anon_rows = {int(av.handle): row for row, av in enumerate(self.anon_vmas)}

    def _known_anon_vmas(self) -> list[AnonVma]:
        """Live anon_vmas, and freed ones that something still leads to, by their handles."""
        known = {int(av.handle): av for av in self.facts.live_anon_vmas}
        named = [avc.anon_vma for _, avc in self.facts.chains]
        words = np.unique(self.facts.mapping[self.facts.mapped.pfn])
        plain = words[words & np.uint32(PAGE_MAPPING_FLAGS) == PAGE_MAPPING_ANON]
        slots = self.kernel.anon_vmas
        named += [slots[word >> MAPPING_HANDLE_SHIFT] for word in plain.tolist()]
        while named:
            av = named.pop()
            if int(av.handle) not in known:
                known[int(av.handle)] = av
            named += [other for other in (av.root, av.parent) if int(other.handle) not in known]
        return [known[handle] for handle in sorted(known)]

    def image(self) -> MemoryImage:
        """Make all tables."""
        rows: dict[str, Iterable[Row]] = {
            "machine": [self._machine()],
            "ram": [{"start_pfn": 1, "end_pfn": int(self.kernel.nr_pages) + 1}],
            "processes": self._processes(),
            "mms": self._mms(),
            "vmas": [self._vma(row, vma) for row, vma in enumerate(self.facts.vmas)],
            "files": [self._file(row, mapping) for row, mapping in enumerate(self.files)],
            "anon_vmas": self._anon_vma_rows(),
            "anon_vma_chains": self._chains(),
            "i_mmap": self._i_mmap(),
            "swap_slots": self._swap_slots(),
            "compounds": self._compounds(),
        }
        tables = {name: Table.from_rows(TABLES[name], listed) for name, listed in rows.items()}
        tables |= Structure(self.facts, self.vma_rows, self.file_rows, self.anon_rows).tables()
        tables["ptes"] = Table(TABLES["ptes"], self._ptes())
        tables["pages"] = Table(TABLES["pages"], self._pages())
        return MemoryImage(tables)

    def _machine(self) -> Row:
        return {
            "kernel_release": self.kernel.profile.name,
            "architecture": "x86_64",
            "page_size": PAGE_SIZE,
            "time_ns": 0,
            "duration_ns": 0,
            "source": "model",
            "scope": "machine",
            "consistency": "exact",
            "page_mapcount": True,
        }

    # ------------------------------------------------------------ processes

    def _processes(self) -> Iterable[Row]:
        mm_rows = {id(mm): row for row, mm in enumerate(self.facts.mms)}
        for pid, process in sorted(self.machine.processes.items()):
            yield {
                "pid": pid,
                "ppid": process.ppid or -1,
                "mm": mm_rows[id(process.mm)],
                "comm": process.name,
                "cmdline": process.name,
                "uid": 0,
                "user": "root",
                "cgroup": cgroup_path(process.mm.memcg),
                "start_time": -1,
                "threads": 1,
                "status": "ok",
            }

    def _mms(self) -> Iterable[Row]:
        pids = {id(process.mm): pid for pid, process in self.machine.processes.items()}
        for row, mm in enumerate(self.facts.mms):
            rss = mm.rss_stat
            yield {
                "mm": row,
                "pid": pids.get(id(mm), -1),
                "users": int(id(mm) in pids),
                "rss_anon": rss[MM_ANONPAGES] * PAGE_SIZE,
                "rss_file": rss[MM_FILEPAGES] * PAGE_SIZE,
                "rss_shmem": rss[MM_SHMEMPAGES] * PAGE_SIZE,
                "swap": rss[MM_SWAPENTS] * PAGE_SIZE,
                "locked": mm.locked_vm * PAGE_SIZE,
                "map_count": mm.map_count,
                "total_vm": mm.total_vm,
            }

    def _vma(self, row: int, vma: Vma) -> Row:
        file = vma.vm_file
        mapping = file.f_mapping if file is not None else None
        return {
            "vma": row,
            "mm": int(self.facts.vma_mm[row]),
            "start": vma.vm_start,
            "end": vma.vm_end,
            "flags": vma.vm_flags,
            "pgoff": vma.vm_pgoff,
            "device": _device(mapping) if mapping is not None else 0,
            "inode": file.inode if file is not None else 0,
            "path": file.name if file is not None else "",
            "name": _name(vma),
            "file": self.file_rows[int(mapping.handle)] if mapping is not None else -1,
            "anon_vma": -1 if vma.anon_vma is None else self.anon_rows[int(vma.anon_vma.handle)],
        }

    def _file(self, row: int, mapping: AddressSpace) -> Row:
        host = mapping.host
        return {
            "file": row,
            "device": _device(mapping),
            "inode": host.inode if host is not None else 0,
            "path": mapping.name,
            "deleted": host is not None and bool(host.anonymous),
            "writable": int(mapping.i_mmap_writable),
        }

    # ------------------------------------------------------------ entries and pages

    def _ptes(self) -> dict[str, Any]:
        facts, entries = self.facts, self.facts.entries
        present = entries.present
        zero = present & (entries.order > 0) & (entries.pfn == facts.huge_zero_page)
        special = zero | (entries.value & np.uint64(bits._PAGE_SPECIAL) != 0)
        flags = np.where(present, int(Pte.PRESENT), int(Pte.SWAP)).astype(np.uint32)
        for bit, ours in ENTRY_FLAGS:
            flags[present & (entries.value & np.uint64(bit) != 0)] |= int(ours)
        flags[zero] |= int(Pte.SPECIAL)
        moved = ~present & (entries.value & np.uint64(bits._PAGE_SWP_SOFT_DIRTY) != 0)
        flags[moved] |= int(Pte.SOFT_DIRTY)
        mapped = np.where(present & ~special, entries.pfn, 0)
        flags[(mapped > 0) & ~facts.anon[mapped]] |= int(Pte.FILE)
        flags[(mapped > 0) & (most_mapped(facts, mapped, entries.order) == 1)] |= int(Pte.EXCLUSIVE)
        other = ~present & (entries.swap_type >= MAX_SWAPFILES)
        flags[other] &= ~np.uint32(Pte.SWAP)  # they hold a page, and no slot
        flags[other] |= _special_kinds(entries).astype(np.uint32)[other]
        in_hugetlb = np.array(
            [bool(vma.vm_flags & bits.VM_HUGETLB) for vma in facts.vmas] + [False]
        )
        flags[in_hugetlb[entries.vma]] |= int(Pte.HUGETLB)
        slots = entries.swap_type | entries.swap_offset << 5
        ordinary = entries.swap_type < MAX_SWAPFILES
        return {
            "mm": entries.mm.astype(np.int32),
            "address": entries.address,
            "pfn": np.where(
                present, entries.pfn, np.where(ordinary, slots, entries.swap_offset)
            ).astype(np.uint64),
            "order": entries.order,
            "flags": flags,
        }

    def _pages(self) -> dict[str, Any]:
        k, facts = self.kernel, self.facts
        pages = slice(1, int(k.nr_pages) + 1)
        words = facts.mapping[pages].astype(np.int64)
        handles = words >> MAPPING_HANDLE_SHIFT
        flags = self._kpage_flags()[pages]
        return {
            "pfn": np.arange(1, int(k.nr_pages) + 1, dtype=np.uint64),
            "flags": flags,
            "mapcount": self._mapcounts()[pages],
            "changed": np.zeros(len(words), np.bool_),
            "refcount": np.array(np.asarray(k.pg_refcount)[pages]),
            "mapping": words.astype(np.uint64),
            "index": facts.pgoff[pages],
            "anon_vma": np.where(
                facts.plain_anon[pages], _rows_of(self.anon_rows, handles), -1
            ).astype(np.int32),
            "file": np.where(
                ~facts.anon[pages] & (words != 0), _rows_of(self.file_rows, handles), -1
            ).astype(np.int32),
        }

    def _compounds(self) -> Iterable[Row]:
        """Huge pages and those of hugetlb, with the count of entries that map them as a whole."""
        for head in sorted(int(head) for head in self.facts.heads):
            yield {
                "pfn": head,
                "order": self.facts.order(head),
                "entire": int(self.kernel.pg_lru_prev[head + 1]),
            }

    def _mapcounts(self) -> npt.NDArray[np.int32]:
        """page_mapcount() of every page frame, by the kernel's own counters."""
        k, facts = self.kernel, self.facts
        counts = np.asarray(k.pg_mapcount) + np.int32(1)
        for head in facts.heads:
            whole = int(k.pg_lru_prev[head + 1]) - bool(facts.double_mapped[head])
            if facts.anon[head] or facts.hugetlb[head]:
                counts[head : head + (1 << facts.order(head))] += np.int32(whole)
        return counts

    def _kpage_flags(self) -> npt.NDArray[np.uint64]:
        """KPF_ bits of every page frame, as fs/proc/page.c makes them of a page.

        Those of a huge page are its head's, but for what is each page's own.
        """
        k, facts = self.kernel, self.facts
        flags = np.zeros(len(facts.mapping), np.uint64)
        for ours, theirs in PAGE_FLAGS:
            own = theirs in OWN_FLAGS
            flagged = facts.flagged(ours)
            flags[flagged if own else flagged[facts.head]] |= np.uint64(theirs)
        mapped = np.zeros(len(flags), np.bool_)
        mapped[facts.head[facts.map_counts > 0]] = True
        flags[mapped[facts.head]] |= np.uint64(Kpf.MMAP)
        flags[facts.anon] |= np.uint64(Kpf.ANON)
        flags[facts.mapping & np.uint32(PAGE_MAPPING_FLAGS) == PAGE_MAPPING_FLAGS] |= np.uint64(
            Kpf.KSM
        )
        flags[np.asarray(k.pg_refcount) == 0] |= np.uint64(Kpf.BUDDY)
        large = facts.flagged(bits.PG_head | bits.PG_tail)
        flags[large & ~facts.hugetlb] |= np.uint64(Kpf.THP)
        flags[large] &= ~np.uint64(Kpf.BUDDY)
        if k.zero_page:
            flags[k.zero_page] |= np.uint64(Kpf.ZERO_PAGE)
        if k.huge_zero_page:
            flags[facts.head == k.huge_zero_page] |= np.uint64(Kpf.ZERO_PAGE)
        return flags

    # ------------------------------------------------------------ trees and slots

    def _anon_vma_rows(self) -> Iterable[Row]:
        for row, av in enumerate(self.anon_vmas):
            yield {
                "anon_vma": row,
                "root": self.anon_rows[int(av.root.handle)],
                "parent": self.anon_rows[int(av.parent.handle)],
                "refcount": av.refcount,
                "handle": av.handle,
                "degree": av.degree,
                "num_children": av.num_children,
                "num_active_vmas": av.num_active_vmas,
            }

    def _chains(self) -> Iterable[Row]:
        places = {
            id(node): place
            for nodes in self.facts.trees.values()
            for place, node in enumerate(nodes)
        }
        for row, vma in enumerate(self.facts.vmas):
            for place, avc in enumerate(vma.anon_vma_chain):
                yield {
                    "vma": row,
                    "anon_vma": self.anon_rows[int(avc.anon_vma.handle)],
                    "chain_position": place,
                    "tree_position": places.get(id(avc), -1),
                }

    def _i_mmap(self) -> Iterable[Row]:
        for row, mapping in enumerate(self.files):
            for place, node in enumerate(tree_nodes(mapping.i_mmap)):
                if id(node.vma) in self.vma_rows:
                    yield {
                        "file": row,
                        "vma": self.vma_rows[id(node.vma)],
                        "tree_position": place,
                    }

    def _swap_slots(self) -> Iterable[Row]:
        rows = []
        for area in self.facts.areas:
            for slot in np.flatnonzero(np.asarray(area.swap_map)).tolist():
                byte = int(area.swap_map[slot])
                if byte == SWAP_MAP_BAD:
                    continue
                shared = byte & ~bits.SWAP_HAS_CACHE == SWAP_MAP_SHMEM
                rows.append(
                    {
                        "entry": int(area.type) | slot << 5,
                        "count": 0 if shared else slot_count(area, slot),
                        "cache_pfn": int(area.cache[slot]) or -1,
                        "cached": bool(byte & bits.SWAP_HAS_CACHE),
                    }
                )
        return sorted(rows, key=lambda row: row["entry"])


def cgroup_path(memcg: MemCgroup) -> str:
    """Return the path of a cgroup from the root."""
    names = []
    while memcg.parent is not None:
        names.append(memcg.name.strip("/"))
        memcg = memcg.parent
    return "/" + "/".join(reversed(names))


def _device(mapping: AddressSpace) -> int:
    return TMPFS if mapping.shmem else DISK


def _name(vma: Vma) -> str:
    """What /proc/PID/maps calls a VMA without a file."""
    if vma.name or vma.vm_file is not None:
        return str(vma.name)
    if vma.vm_flags & VM_GROWSDOWN:
        return "[stack]"
    mm = vma.vm_mm
    return "[heap]" if vma.vm_start <= mm.brk and vma.vm_end >= mm.start_brk > 0 else ""


def _special_kinds(entries: Entries) -> I64:
    """Flags of entries that are not present, by the special type that they may be of."""
    kind = entries.swap_type
    moving = (kind == SWP_MIGRATION_READ) | (kind == SWP_MIGRATION_WRITE)
    flags = np.where(moving, int(Pte.MIGRATION), 0)
    flags = np.where(kind == SWP_HWPOISON, int(Pte.HWPOISON), flags)
    return np.where(kind > SWP_MIGRATION_WRITE, int(Pte.DEVICE), flags)


def _rows_of(rows: dict[int, int], handles: I64) -> I64:
    """The row of each handle, -1 where there is none."""
    table = np.full(max([0, *rows, int(handles.max(initial=0))]) + 1, -1, np.int64)
    table[list(rows)] = list(rows.values())
    return table[handles]
