# SPDX-License-Identifier: GPL-2.0-only
"""From what was read in ``/proc`` to the tables of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Kpf, Pte, Vm
from rmap.image.image import MemoryImage
from rmap.image.schema import TABLES
from rmap.image.table import Table
from rmap.source.proc.contents import Contents, frames_of
from rmap.source.proc.files import Denied, Gone, read_file
from rmap.source.proc.kpage import KernelPages, Ranges
from rmap.source.proc.maps import MapsLine, parse_maps, parse_vm_flags
from rmap.source.proc.pagemap import PAGE_SIZE
from rmap.source.proc.survey import Process

U64 = npt.NDArray[np.uint64]

#: Mapped by the kernel into every process, by frame number and not counted.
_PFN_MAPPED_NAMES = ("[vvar]", "[vvar_vclock]")
_NOT_COUNTED = np.uint64(Kpf.ZERO_PAGE | Kpf.NOPAGE)
_PUD_ORDER = 18
_PMD_ORDER = 9
_BLOCKS = 1 << (_PUD_ORDER - _PMD_ORDER)


@dataclass(slots=True)
class Findings:
    """What the passes found.

    ``groups`` are the processes of each address space (one is in ``contents`` by its first pid),
    ``changed`` the frames that did not stand still.
    """

    groups: list[list[int]]
    contents: Mapping[int, Contents]
    pages: KernelPages
    changed: U64
    ram: Ranges

    def suspects(self) -> list[int]:
        """Processes that map a page of RAM which the kernel counts as mapped by nobody."""
        uncounted = (self.pages.counts == 0) & (self.pages.flags & _NOT_COUNTED == 0)
        changed = self.pages.rows(self.changed)
        uncounted[changed[changed >= 0]] = False
        found = []
        for pid, contents in self.contents.items():
            rows = self.pages.rows(frames_of(contents.entries))
            if uncounted[rows[rows >= 0]].any():
                found.append(pid)
        return found


def read_vm_flags(pid: int) -> dict[int, int]:
    """Return the VM_ bits of each VMA by its start; none if the process has gone."""
    try:
        return parse_vm_flags(read_file(pid, "smaps"))
    except (Gone, Denied):
        return {}


def build(
    machine: Mapping[str, Any],
    processes: list[Process],
    found: Findings,
    exact: Mapping[int, Mapping[int, int]],
) -> MemoryImage:
    """Make the tables. ``exact`` has VM_ bits by pid and VMA start, where they are known."""
    lines, line_mm = _all_lines(found)
    flags = np.array([line.flags for line in lines], np.uint64)
    for row, mm in enumerate(line_mm):
        known = exact.get(found.groups[mm][0])
        if known:
            flags[row] = known.get(lines[row].start, int(flags[row]))
    files, file_ids = _files(lines)
    vmas = _vmas(lines, line_mm, flags, file_ids)
    return MemoryImage(
        {
            "machine": Table.from_rows(TABLES["machine"], [machine]),
            "ram": Table(
                TABLES["ram"],
                {
                    "start_pfn": [start for start, _ in found.ram],
                    "end_pfn": [end for _, end in found.ram],
                },
            ),
            "processes": _processes(processes, found.groups),
            "mms": _mms(processes, found.groups),
            "vmas": vmas,
            "ptes": _ptes(found, vmas),
            "pages": _pages(found),
            "files": files,
        }
    )


def _all_lines(found: Findings) -> tuple[list[MapsLine], list[int]]:
    lines: list[MapsLine] = []
    owners: list[int] = []
    for mm, group in enumerate(found.groups):
        some = parse_maps(found.contents[group[0]].maps)
        lines.extend(some)
        owners.extend([mm] * len(some))
    return lines, owners


def _files(lines: list[MapsLine]) -> tuple[Table, list[int]]:
    """One row for each device and inode; and the file of each line, -1 without."""
    ids: dict[tuple[int, int], int] = {}
    first: list[MapsLine] = []
    of_line = []
    for line in lines:
        if not (line.inode or line.device):
            of_line.append(-1)
            continue
        key = line.device, line.inode
        if key not in ids:
            ids[key] = len(first)
            first.append(line)
        of_line.append(ids[key])
    columns = {
        "file": list(range(len(first))),
        "device": [line.device for line in first],
        "inode": [line.inode for line in first],
        "path": [line.path for line in first],
        "deleted": np.array([line.deleted for line in first], np.bool_),
    }
    return Table(TABLES["files"], columns), of_line


def _vmas(lines: list[MapsLine], owners: list[int], flags: U64, files: list[int]) -> Table:
    return Table(
        TABLES["vmas"],
        {
            "vma": np.arange(len(lines), dtype=np.int32),
            "mm": owners,
            "start": np.array([line.start for line in lines], np.uint64),
            "end": np.array([line.end for line in lines], np.uint64),
            "flags": flags,
            "pgoff": np.array([line.offset // PAGE_SIZE for line in lines], np.uint64),
            "device": np.array([line.device for line in lines], np.uint64),
            "inode": np.array([line.inode for line in lines], np.uint64),
            "path": [line.path for line in lines],
            "name": [line.name for line in lines],
            "file": files,
        },
    )


def _processes(processes: list[Process], groups: list[list[int]]) -> Table:
    mm_of = {pid: mm for mm, group in enumerate(groups) for pid in group}
    rows = [
        {
            "pid": process.pid,
            "ppid": process.stat.ppid if process.stat else -1,
            "mm": mm_of.get(process.pid, -1),
            "comm": process.stat.comm if process.stat else "",
            "cmdline": process.cmdline,
            "uid": process.status.uid if process.status else -1,
            "user": process.user,
            "cgroup": process.cgroup,
            "start_time": process.stat.start_time if process.stat else -1,
            "threads": process.stat.threads if process.stat else -1,
            "status": process.state,
        }
        for process in processes
    ]
    return Table.from_rows(TABLES["processes"], rows)


def _mms(processes: list[Process], groups: list[list[int]]) -> Table:
    status_of = {process.pid: process.status for process in processes}
    rows = []
    for mm, group in enumerate(groups):
        status = status_of[group[0]]
        row = {"mm": mm, "pid": group[0], "users": len(group)}
        for counter in ("rss_anon", "rss_file", "rss_shmem", "swap", "locked"):
            row[counter] = getattr(status, counter) if status else -1
        rows.append(row)
    return Table.from_rows(TABLES["mms"], rows)


def _ptes(found: Findings, vmas: Table) -> Table:
    entries = [found.contents[group[0]].entries for group in found.groups]
    columns: dict[str, npt.NDArray[Any]] = {
        "mm": np.repeat(
            np.arange(len(entries), dtype=np.int32), [len(e.addresses) for e in entries]
        ),
        "address": _concatenate([e.addresses for e in entries], np.uint64),
        "pfn": _concatenate([e.pfns for e in entries], np.uint64),
        "order": _concatenate([e.orders for e in entries], np.uint8),
        "flags": _concatenate([e.flags for e in entries], np.uint32),
    }
    _mark_by_page(columns, found.pages)
    _mark_pfn_mapped(columns, vmas)
    _join_gigantic(columns, found.pages)
    return Table(TABLES["ptes"], columns)


def _concatenate(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _page_flags(pages: KernelPages, pfns: U64) -> U64:
    """KPF_ flags of each frame; KPF_NOPAGE for a frame that is not RAM."""
    rows = pages.rows(pfns)
    if not len(pages.flags):
        return np.full(len(pfns), int(Kpf.NOPAGE), np.uint64)
    return np.where(rows >= 0, pages.flags[rows], np.uint64(Kpf.NOPAGE))


def _mark_by_page(columns: dict[str, npt.NDArray[Any]], pages: KernelPages) -> None:
    """Mark entries whose page tells that they are special, or of hugetlbfs."""
    flags = columns["flags"]
    present = np.flatnonzero(flags & np.uint32(Pte.PRESENT))
    kpf = _page_flags(pages, columns["pfn"][present])
    flags[present[kpf & _NOT_COUNTED != 0]] |= np.uint32(Pte.SPECIAL)
    flags[present[kpf & np.uint64(Kpf.HUGE) != 0]] |= np.uint32(Pte.HUGETLB)


def _mark_pfn_mapped(columns: dict[str, npt.NDArray[Any]], vmas: Table) -> None:
    """Mark entries of VMAs that map frame numbers and not pages."""
    named = np.isin(vmas["name"], _PFN_MAPPED_NAMES)
    rows = np.flatnonzero(named | (vmas["flags"] & np.uint64(Vm.PFNMAP) != 0))
    for row in rows.tolist():
        low, high = np.searchsorted(columns["mm"], [vmas["mm"][row], vmas["mm"][row] + 1])
        inside = columns["address"][low:high]
        first, last = np.searchsorted(inside, [vmas["start"][row], vmas["end"][row]])
        block = columns["flags"][low + first : low + last]
        block[block & np.uint32(Pte.PRESENT) != 0] |= np.uint32(Pte.SPECIAL)


def _join_gigantic(columns: dict[str, npt.NDArray[Any]], pages: KernelPages) -> None:
    """Make 512 PMD-sized blocks of a 1 GiB hugetlb page the one entry that they are.

    Its first frame is a compound head, the first frames of the other blocks are tails.
    """
    hugetlb = (columns["flags"] & np.uint32(Pte.HUGETLB) != 0) & (columns["order"] == _PMD_ORDER)
    aligned = columns["pfn"] & np.uint64((1 << _PUD_ORDER) - 1) == 0
    heads = np.flatnonzero(hugetlb & aligned)
    drop = np.zeros(len(hugetlb), np.bool_)
    for head in heads.tolist():
        block = slice(head, head + _BLOCKS)
        pfns = columns["pfn"][block]
        if len(pfns) < _BLOCKS or not hugetlb[block].all():
            continue
        if (np.diff(pfns) != np.uint64(1 << _PMD_ORDER)).any():
            continue
        second = _page_flags(pages, pfns[1:2])
        if int(second[0]) & Kpf.COMPOUND_TAIL:
            columns["order"][head] = _PUD_ORDER
            drop[head + 1 : head + _BLOCKS] = True
    if drop.any():
        for name in columns:
            columns[name] = columns[name][~drop]


def _pages(found: Findings) -> Table:
    pages = found.pages
    changed = np.zeros(len(pages.pfns), np.bool_)
    rows = pages.rows(found.changed)
    changed[rows[rows >= 0]] = True
    return Table(
        TABLES["pages"],
        {
            "pfn": pages.pfns,
            "flags": pages.flags,
            "mapcount": pages.counts,
            "changed": changed,
        },
    )
