# SPDX-License-Identifier: GPL-2.0-only
"""From what was read in ``/proc`` to the tables of an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Kpf, Pte, Vm
from rmap.image.schema import TABLES
from rmap.image.table import Table
from rmap.source.proc.contents import Space
from rmap.source.proc.entries import PAGE_SIZE, PMD_ORDER, PUD_ORDER, U64, decode
from rmap.source.proc.kpage import KernelPages
from rmap.source.proc.maps import DELETED, MapsLine, parse_maps
from rmap.source.proc.ram import Ranges
from rmap.source.proc.survey import Process

Columns = dict[str, npt.NDArray[Any]]

_NOT_A_PAGE = np.uint64(Kpf.ZERO_PAGE | Kpf.NOPAGE)
_BLOCKS = 1 << (PUD_ORDER - PMD_ORDER)


def ram_table(ranges: Ranges) -> Table:
    """Build ``ram``."""
    starts, ends = zip(*ranges, strict=True) if ranges else ((), ())
    return Table(TABLES["ram"], {"start_pfn": list(starts), "end_pfn": list(ends)})


def processes_table(processes: Iterable[Process], spaces: list[Space]) -> Table:
    """Build ``processes``, in any order given, ascending by pid."""
    mm_of = {process.pid: mm for mm, space in enumerate(spaces) for process in space.processes}
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
        for process in sorted(processes, key=lambda process: process.pid)
    ]
    return Table.from_rows(TABLES["processes"], rows)


def mms_table(spaces: list[Space]) -> Table:
    """Build ``mms``: one row a space, in their order."""
    rows = []
    for mm, space in enumerate(spaces):
        first = space.processes[0]
        row = {"mm": mm, "pid": first.pid, "users": len(space.processes)}
        for counter in ("rss_anon", "rss_file", "rss_shmem", "swap", "locked"):
            row[counter] = getattr(first.status, counter) if first.status else -1
        rows.append(row)
    return Table.from_rows(TABLES["mms"], rows)


def vmas_and_files(spaces: list[Space]) -> tuple[Table, Table]:
    """Build ``vmas`` and ``files``."""
    lines: list[MapsLine] = []
    owners: list[int] = []
    flags: list[int] = []
    known: dict[bytes, MapsLine] = {}
    for mm, space in enumerate(spaces):
        some = parse_maps(space.contents.maps, known)
        some = [_really_deleted(line, space) if line.deleted else line for line in some]
        exact = space.contents.vm_flags
        lines.extend(some)
        owners.extend([mm] * len(some))
        flags.extend([exact.get(line.start, line.flags) for line in some])
    files, of_line = _files(lines)
    columns = {
        "vma": np.arange(len(lines), dtype=np.int32),
        "mm": np.array(owners, np.int32),
        "start": _column([line.start for line in lines]),
        "end": _column([line.end for line in lines]),
        "flags": _column(flags),
        "pgoff": _column([line.offset // PAGE_SIZE for line in lines]),
        "device": _column([line.device for line in lines]),
        "inode": _column([line.inode for line in lines]),
        "path": [line.path for line in lines],
        "name": [line.name for line in lines],
        "file": np.array(of_line, np.int32),
    }
    return Table(TABLES["vmas"], columns), files


def _really_deleted(line: MapsLine, space: Space) -> MapsLine:
    """Tell a file without a name from one whose name ends as if it had none.

    Such a file is there under its whole name, with the same inode. (Devices may differ, see
    `rmap.source.proc.identity`.)
    """
    name = os.fsencode(line.path + DELETED)
    if not line.path.startswith("/") or line.name:
        return line
    root = os.fsencode(f"/proc/{space.processes[0].reader_id}/root")
    try:
        there = os.lstat(root + name).st_ino == line.inode
    except (OSError, ValueError):
        there = False
    return line._replace(path=line.path + DELETED, deleted=False) if there else line


def _column(values: list[int]) -> U64:
    return np.array(values, np.uint64)


def _files(lines: list[MapsLine]) -> tuple[Table, list[int]]:
    """One row for each device and inode; and the file of each line, -1 without."""
    ids: dict[tuple[int, int], int] = {}
    first: list[MapsLine] = []
    of_line = []
    for line in lines:
        if not (line.inode or line.device):
            of_line.append(-1)
            continue
        file = ids.setdefault((line.device, line.inode), len(first))
        if file == len(first):
            first.append(line)
        of_line.append(file)
    columns = {
        "file": np.arange(len(first), dtype=np.int32),
        "device": _column([line.device for line in first]),
        "inode": _column([line.inode for line in first]),
        "path": [line.path for line in first],
        "deleted": np.array([line.deleted for line in first], np.bool_),
    }
    return Table(TABLES["files"], columns), of_line


def ptes_table(spaces: list[Space], pages: KernelPages, vmas: Table) -> Table:
    """Build ``ptes``; ``pages`` tell what is of hugetlbfs, and what is not reverse-mapped."""
    entries = [space.contents.entries for space in spaces]
    sizes = [len(some) for some in entries]
    frames, flags = decode(_concatenate([some.words for some in entries], np.uint64))
    columns: Columns = {
        "mm": np.repeat(np.arange(len(entries), dtype=np.int32), sizes),
        "address": _concatenate([some.addresses for some in entries], np.uint64),
        "pfn": frames,
        "order": _concatenate([some.orders for some in entries], np.uint8),
        "flags": flags,
    }
    present = np.flatnonzero(flags & np.uint32(Pte.PRESENT))
    kpf = pages.flags_of(frames[present])
    flags[present[kpf & np.uint64(Kpf.HUGE) != 0]] |= np.uint32(Pte.HUGETLB)
    flags[present[not_reverse_mapped(flags[present], kpf)]] |= np.uint32(Pte.SPECIAL)
    _mark_shared_pfn_maps(columns, vmas)
    return Table(TABLES["ptes"], _join_gigantic(columns, pages))


def _concatenate(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def not_reverse_mapped(flags: npt.NDArray[np.uint32], kpf: U64) -> npt.NDArray[np.bool_]:
    """Whether the kernel leaves out these present entries of its reverse map.

    The kernel calls a page *normal* or not by entry and VMA (``vm_normal_page``). pagemap shows it
    indirectly: a normal page is either anonymous, which its page flags tell, or it has the file
    bit. So an entry with neither maps a frame as such: the zero page, [vvar], device memory.
    """
    anonymous = kpf & np.uint64(Kpf.ANON) != 0
    normal = anonymous | (flags & np.uint32(Pte.FILE) != 0)
    return ~normal | (kpf & _NOT_A_PAGE != 0)


def _mark_shared_pfn_maps(columns: Columns, vmas: Table) -> None:
    """Mark the entries of VMAs that are known to map frames as such (exact VM_ bits only).

    This finds what `not_reverse_mapped` cannot: anonymous pages mapped through /dev/mem. In a
    private VMA of that kind anonymous pages are its own copies, and normal.
    """
    kinds = np.uint64(Vm.PFNMAP | Vm.SHARED)
    for row in np.flatnonzero(vmas["flags"] & kinds == kinds).tolist():
        low, high = np.searchsorted(columns["mm"], [vmas["mm"][row], vmas["mm"][row] + 1])
        inside = columns["address"][low:high]
        first, last = np.searchsorted(inside, [vmas["start"][row], vmas["end"][row]])
        block = columns["flags"][low + first : low + last]
        block[block & np.uint32(Pte.PRESENT) != 0] |= np.uint32(Pte.SPECIAL)


def _join_gigantic(columns: Columns, pages: KernelPages) -> Columns:
    """Make 512 PMD-sized blocks of a 1 GiB hugetlb page the one entry that they are.

    Its first frame is a compound head, the first frames of the other blocks are tails.
    """
    hugetlb = (columns["flags"] & np.uint32(Pte.HUGETLB) != 0) & (columns["order"] == PMD_ORDER)
    aligned = (columns["pfn"] | columns["address"] // np.uint64(PAGE_SIZE)) & np.uint64(
        (1 << PUD_ORDER) - 1
    ) == 0
    keep = np.ones(len(hugetlb), np.bool_)
    for head in np.flatnonzero(hugetlb & aligned).tolist():
        block = slice(head, head + _BLOCKS)
        pfns = columns["pfn"][block]
        whole = len(pfns) == _BLOCKS and hugetlb[block].all()
        if whole and (np.diff(pfns) == np.uint64(1 << PMD_ORDER)).all():
            second = int(pages.flags_of(pfns[1:2])[0])
            if second & Kpf.COMPOUND_TAIL:
                columns["order"][head] = PUD_ORDER
                keep[head + 1 : head + _BLOCKS] = False
    return columns if keep.all() else {name: array[keep] for name, array in columns.items()}


def pages_table(pages: KernelPages, changed: U64) -> Table:
    """Build ``pages``; ``changed`` are the frames whose mappings did not stand still."""
    marks = np.zeros(len(pages.pfns), np.bool_)
    rows = pages.find(changed)
    marks[rows[rows >= 0]] = True
    columns: Mapping[str, npt.NDArray[Any]] = {
        "pfn": pages.pfns,
        "flags": pages.flags,
        "mapcount": pages.counts,
        "changed": marks,
    }
    return Table(TABLES["pages"], columns)
