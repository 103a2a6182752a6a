# SPDX-License-Identifier: GPL-2.0-only
"""A dump as a `MemoryImage`: everything of it that the tables can hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte
from rmap.source import Progress, no_progress
from rmap.source.dump.anon import AnonVmas, rows_of
from rmap.source.dump.entries import decode
from rmap.source.dump.files import Files
from rmap.source.dump.pages import ANON, Pages
from rmap.source.dump.program import open_dump
from rmap.source.dump.reading import NOT_IN_DUMP, Reading, read
from rmap.source.dump.structure import structure
from rmap.source.proc.swaptypes import flags_of_types

if TYPE_CHECKING:
    pass

Columns = dict[str, Any]
PAGE_SIZE = 4096
_TAGS = np.uint64(3)
#: A swp_entry_t: what an XArray can hold as a value, with 5 bits of type on top.
_CACHE_TYPE = np.uint64(58)
_CACHE_OFFSET = np.uint64((1 << 58) - 1)


def dump_image(
    path: Path, debug: Sequence[Path] = (), progress: Progress | None = None
) -> MemoryImage:
    """Read a crash dump; the parameters and errors are those of `open_dump`.

    >>> image = dump_image(Path("vmcore"))  # doctest: +SKIP
    """
    started = time.time_ns()
    program = open_dump(path, debug)
    reading = read(program, progress or no_progress)
    return tables(reading, time.time_ns() - started)


# ---------------------------------------------------------------- tables


def tables(reading: Reading, duration: int) -> MemoryImage:
    """Put what was read into tables."""
    made = {
        "machine": Table.from_rows(TABLES["machine"], [_machine(reading, duration)]),
        "ram": _ram(reading.pages),
        "processes": _processes(reading),
        "mms": _mms(reading),
        "vmas": _vmas(reading),
        "ptes": _ptes(reading),
        "pages": _pages(reading),
        "files": _files(reading.files),
        "anon_vmas": _anon_vmas(reading.anon),
        "anon_vma_chains": _chains(reading),
        "i_mmap": _i_mmap(reading),
        "swap_slots": _swap_slots(reading),
        **structure(reading),
    }
    return MemoryImage(made)


def _machine(reading: Reading, duration: int) -> Columns:
    facts = reading.facts
    return {
        "kernel_release": facts.release,
        "architecture": "x86_64",
        "page_size": facts.page_size,
        "time_ns": 0,
        "duration_ns": duration,
        "source": "dump",
        "scope": "machine",
        "consistency": "once" if facts.is_running else "exact",
        "page_mapcount": True,
        "missing_pages": reading.pages.map.missing,
        "missing_tables": reading.missing_tables,
        "missing_objects": sum(what == NOT_IN_DUMP for _, _, what in reading.damage),
    }


def _ram(pages: Pages) -> Table:
    ranges = pages.map.ranges
    return Table(
        TABLES["ram"],
        {
            "start_pfn": np.array([low for low, _ in ranges], "u8"),
            "end_pfn": np.array([high for _, high in ranges], "u8"),
        },
    )


def _processes(reading: Reading) -> Table:
    rows = {int(at): row for row, at in enumerate(reading.spaces.mm.address.tolist())}
    return Table.from_rows(
        TABLES["processes"],
        [
            {
                "pid": one.pid, "ppid": one.ppid or -1, "mm": rows.get(one.mm, -1),
                "comm": one.comm, "cmdline": one.cmdline, "uid": one.uid,
                "user": str(one.uid) if one.uid >= 0 else "", "cgroup": one.cgroup,
                "start_time": one.start_time, "threads": len(one.tasks), "status": one.status,
            }
            for one in reading.tasks.processes
        ],
    )  # fmt: skip


def _mms(reading: Reading) -> Table:
    spaces, counters = reading.spaces, reading.counters
    users: dict[int, list[int]] = {}
    for one in reading.tasks.processes:
        users.setdefault(one.mm, []).append(one.pid)
    owners = [users.get(int(at), []) for at in spaces.mm.address.tolist()]
    return Table(
        TABLES["mms"],
        {
            "mm": np.arange(len(spaces.mm), dtype=np.int32),
            "pid": np.array([min(pids, default=-1) for pids in owners], np.int32),
            "users": np.array([len(pids) for pids in owners], np.int32),
            "rss_anon": counters.anon,
            "rss_file": counters.file,
            "rss_shmem": counters.shmem,
            "swap": counters.swap,
            "locked": spaces.mm["locked"].astype(np.int64) * PAGE_SIZE,
        },
    )


def _vmas(reading: Reading) -> Table:
    spaces, files, vmas = reading.spaces, reading.files, reading.spaces.vmas
    file = files.of_vma
    has = file >= 0

    def of_file(column: npt.NDArray[Any], otherwise: Any) -> npt.NDArray[Any]:
        return (
            np.where(has, column[file], otherwise) if len(column) else np.full(len(file), otherwise)
        )

    paths = [files.path[row] if row >= 0 else "" for row in file.tolist()]
    return Table(
        TABLES["vmas"],
        {
            "vma": np.arange(len(vmas), dtype=np.int32),
            "mm": spaces.vma_mm.astype(np.int32),
            "start": vmas["start"],
            "end": vmas["end"],
            "flags": vmas["flags"],
            "pgoff": vmas["pgoff"],
            "device": of_file(files.device, 0).astype("u8"),
            "inode": of_file(files.inode, 0).astype("u8"),
            "path": paths,
            "name": reading.names,
            "file": file.astype(np.int32),
            "anon_vma": reading.anon.row_of(vmas["anon_vma"]).astype(np.int32),
        },
    )


def _ptes(reading: Reading) -> Table:
    """Entries, with what their pages and VMAs say of them."""
    joined, pages = reading.ptes, reading.pages
    types = flags_of_types(reading.facts.release, reading.facts.configuration)
    decoded = decode(joined["value"], joined["order"], types)
    flags = decoded.flags
    present = flags & np.uint32(Pte.PRESENT) != 0
    row = pages.map.row_of(decoded.pfn)
    known = present & (row >= 0)
    kpf = np.where(known, pages.kpf[row], np.uint64(0))
    mapping = np.where(known, pages.mapping[row], np.uint64(0))
    anon = mapping & ANON != 0
    hugetlb = known & pages.hugetlb[row]
    zero = kpf & np.uint64(Kpf.ZERO_PAGE) != 0
    special = present & (~known | zero | (flags & np.uint32(Pte.SPECIAL) != 0))
    flags[special] |= np.uint32(Pte.SPECIAL)
    flags[~special] &= ~np.uint32(Pte.SPECIAL)
    flags[present & ~special & ~anon] |= np.uint32(Pte.FILE)
    flags[hugetlb] |= np.uint32(Pte.HUGETLB)
    flags[known & (pages.mapcount[row] == 1)] |= np.uint32(Pte.EXCLUSIVE)
    return Table(
        TABLES["ptes"],
        {"mm": joined["mm"], "address": joined["address"], "pfn": decoded.pfn,
         "order": joined["order"], "flags": flags},
    )  # fmt: skip


def _pages(reading: Reading) -> Table:
    pages, memory = reading.pages, reading.pages.map
    tag = pages.mapping & _TAGS
    anon = tag == ANON
    pointer = pages.mapping & ~_TAGS
    file = np.where(
        (tag == 0) & (pointer != 0), rows_of(reading.files.mappings.address, pointer), -1
    )
    return Table(
        TABLES["pages"],
        {
            "pfn": memory.pfn,
            "flags": pages.kpf,
            "mapcount": pages.mapcount,
            "changed": np.zeros(len(memory), bool),
            "refcount": memory["refcount"].astype(np.int32),
            "mapping": pages.mapping,
            "index": pages.index,
            "anon_vma": np.where(anon, reading.anon.row_of(pointer), -1).astype(np.int32),
            "file": file.astype(np.int32),
        },
    )


def _files(files: Files) -> Table:
    return Table(
        TABLES["files"],
        {
            "file": np.arange(len(files.mappings), dtype=np.int32),
            "device": files.device,
            "inode": files.inode,
            "path": files.path,
            "deleted": files.deleted,
        },
    )


def _anon_vmas(anon: AnonVmas) -> Table:
    records = anon.anon_vmas
    own = np.arange(len(records), dtype=np.int64)

    def row(column: str) -> npt.NDArray[np.int32]:
        found = anon.row_of(records[column])
        return np.where(found >= 0, found, own).astype(np.int32)

    columns: Columns = {
        "anon_vma": own.astype(np.int32),
        "root": row("root"),
        "parent": row("parent"),
        "refcount": records["refcount"].astype(np.int32),
        "handle": records.address,
    }
    for name in ("degree", "num_children", "num_active_vmas"):
        if name in (records.values.dtype.names or ()):
            columns[name] = records[name].astype(np.int32)
    return Table(TABLES["anon_vmas"], columns)


def _chains(reading: Reading) -> Table:
    """Edges that some VMA's list has, with their places in the trees."""
    anon = reading.anon
    nodes = anon.forest.nodes
    places = _places(nodes.tree)
    order = np.argsort(nodes.records.address)
    found = rows_of(nodes.records.address[order], anon.listed.address)
    tree = np.where(found >= 0, places[order][found], -1) if len(order) else found
    owner = anon.row_of(anon.listed["anon_vma"])
    keep = owner >= 0
    return Table(
        TABLES["anon_vma_chains"],
        {
            "vma": anon.listed_vma[keep].astype(np.int32),
            "anon_vma": owner[keep].astype(np.int32),
            "chain_position": anon.position[keep].astype(np.int32),
            "tree_position": tree[keep].astype(np.int32),
        },
    )


def _places(tree: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each node's place in its tree; nodes of one tree are next to each other."""
    if not len(tree):
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.concatenate([[True], tree[1:] != tree[:-1]]))
    start = np.repeat(first, np.diff(np.append(first, len(tree))))
    return np.arange(len(tree), dtype=np.int64) - start


def _i_mmap(reading: Reading) -> Table:
    nodes = reading.files.forest.nodes
    order = np.argsort(reading.spaces.vmas.address)
    found = rows_of(reading.spaces.vmas.address[order], nodes.records.address)
    vma = np.where(found >= 0, order[found], -1) if len(order) else found
    keep = vma >= 0
    return Table(
        TABLES["i_mmap"],
        {
            "file": nodes.tree[keep].astype(np.int32),
            "vma": vma[keep].astype(np.int32),
            "tree_position": _places(nodes.tree)[keep].astype(np.int32),
        },
    )


def _entries_of_cache(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Entries (type | offset << 5) of page->private, which has the type in front of the offset."""
    return words >> _CACHE_TYPE | (words & _CACHE_OFFSET) << np.uint64(5)


def _swap_slots(reading: Reading) -> Table:
    entries, counts, _ = reading.swap
    pages = reading.pages
    cached = pages.kpf & np.uint64(Kpf.SWAPCACHE) != 0
    frames = pages.map.pfn[cached]
    names = _entries_of_cache(pages.map["private"][cached])
    order = np.argsort(names)
    found = rows_of(names[order], entries)
    cache = np.where(found >= 0, frames[order][found].astype(np.int64), -1) if len(order) else found
    sequence = np.argsort(entries)
    return Table(
        TABLES["swap_slots"],
        {"entry": entries[sequence], "count": counts[sequence], "cache_pfn": cache[sequence]},
    )
