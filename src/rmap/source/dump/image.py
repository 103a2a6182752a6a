# SPDX-License-Identifier: GPL-2.0-only
"""A dump as a `MemoryImage`: everything of it that the tables can hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError
from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte
from rmap.source import Progress, no_progress
from rmap.source.dump.anon import AnonVmas
from rmap.source.dump.entries import decode
from rmap.source.dump.files import Files
from rmap.source.dump.pages import ANON, Pages
from rmap.source.dump.program import open_dump
from rmap.source.dump.reading import Reading, read
from rmap.source.dump.records import rows_of
from rmap.source.dump.spaces import Spaces
from rmap.source.dump.structure import structure
from rmap.source.dump.swap import entry_of
from rmap.source.proc.swaptypes import flags_of_types

if TYPE_CHECKING:
    from drgn import Program

Columns = dict[str, Any]
PAGE_SIZE = 4096
_TAGS = np.uint64(3)


def dump_image(
    path: Path, debug: Sequence[Path] = (), progress: Progress | None = None
) -> MemoryImage:
    """Read a crash dump; the parameters and errors are those of `open_dump`.

    >>> image = dump_image(Path("vmcore"))  # doctest: +SKIP
    """
    started = time.time_ns()
    return image_of(open_dump(path, debug), str(path), started, progress or no_progress)


def image_of(program: Program, name: str, started: int, progress: Progress) -> MemoryImage:
    """Read the kernel of a program; `started` is when that began, ns.

    Raises `ImageError`, which names `name`, if what everything begins with is damaged: the memory
    map, types, the first task. What comes after that is tolerated, and noted in the image.
    """
    import drgn

    try:
        return tables(read(program, progress), time.time_ns() - started)
    except (drgn.FaultError, LookupError, ValueError, OverflowError) as error:
        raise ImageError(f"{name}: damaged beyond reading: {error}") from error


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
        "compounds": _compounds(reading),
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
        "missing_objects": sum(one.kind == "missing" for one in reading.damage)
        - reading.missing_tables,
        "memmap": reading.pages.map.base,
        "page_struct": reading.pages.map.size,
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
                "handle": int(reading.tasks.records.address[one.tasks[0]]),
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
            "locked": _signed(spaces.mm["locked"]) * PAGE_SIZE,
            "handle": spaces.mm.address,
            "map_count": spaces.mm["map_count"].astype(np.int64),
            "total_vm": _signed(spaces.mm["total"]),
            "page_tables": _page_tables(spaces),
            "tables_found": reading.table_bytes,
        },
    )


def _signed(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Numbers of pages, of which garbage may be larger than the counters of an image."""
    return np.minimum(values.astype("u8"), np.uint64(1 << 50)).astype(np.int64)


def _page_tables(spaces: Spaces) -> npt.NDArray[np.int64]:
    if "pgtables" not in (spaces.mm.values.dtype.names or ()):
        return np.full(len(spaces.mm), -1, np.int64)
    return spaces.mm["pgtables"].astype(np.int64)


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
            "start": spaces.start,
            "end": spaces.end,
            "flags": vmas["flags"],
            "pgoff": vmas["pgoff"],
            "device": of_file(files.device, 0).astype("u8"),
            "inode": of_file(files.inode, 0).astype("u8"),
            "path": paths,
            "name": reading.names,
            "file": file.astype(np.int32),
            "anon_vma": reading.anon.row_of(vmas["anon_vma"]).astype(np.int32),
            "handle": vmas.address,
        },
    )


def _ptes(reading: Reading) -> Table:
    """Entries, with what their pages and VMAs say of them."""
    joined, pages = reading.ptes, reading.pages
    types = flags_of_types(reading.facts.release, reading.facts.configuration)
    decoded = decode(joined["value"], joined["order"], types)
    flags = decoded.flags
    # No page lies so; the entry is garbage, or of a table that is none.
    huge = joined["order"].astype("u8")
    pfn = decoded.pfn >> huge << huge
    present = flags & np.uint32(Pte.PRESENT) != 0
    row = pages.map.row_of(pfn)
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
        {"mm": joined["mm"], "address": joined["address"], "pfn": pfn,
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
            **_exclusive(reading),
        },
    )


def _exclusive(reading: Reading) -> Columns:
    mask = reading.facts.flag("PG_anon_exclusive")
    if not mask:
        return {}
    pages = reading.pages
    anon = pages.mapping & ANON != 0
    return {"exclusive": anon & (pages.map["flags"] & np.uint64(mask) != 0)}


def _compounds(reading: Reading) -> Table:
    compounds = reading.compounds
    columns: Columns = {
        "pfn": reading.pages.map.pfn[compounds.head],
        "order": compounds.order,
        "entire": compounds.entire,
    }
    if compounds.large is not None:
        columns["large"] = compounds.large
    if compounds.parts is not None:
        columns["parts"] = compounds.parts
    return Table(TABLES["compounds"], columns)


def _files(files: Files) -> Table:
    return Table(
        TABLES["files"],
        {
            "file": np.arange(len(files.mappings), dtype=np.int32),
            "device": files.device,
            "inode": files.inode,
            "path": files.path,
            "deleted": files.deleted,
            "handle": files.mappings.address,
            "writable": files.mappings["writable"].astype(np.int32),
            "leftmost": _structs(files.mappings["leftmost"], files.rb_offset),
        },
    )


def _structs(nodes: npt.NDArray[np.uint64], offset: int) -> npt.NDArray[np.uint64]:
    """The structs that nodes of trees lie in; 0 stays."""
    return np.where(nodes == 0, nodes, nodes - np.uint64(offset))


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
            columns[name] = np.minimum(records[name].astype("u8"), np.uint64(1 << 30)).astype(
                np.int32
            )
    columns["leftmost"] = _structs(records["leftmost"], anon.rb_offset)
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


def _swap_slots(reading: Reading) -> Table:
    """Slots in use, and those that only a page of the swap cache names."""
    swap, pages = reading.swap, reading.pages
    cached = pages.kpf[pages.head] & np.uint64(Kpf.SWAPCACHE) != 0
    frames = pages.map.pfn[cached]
    # A large page has consecutive slots, and its head the first of them.
    ahead = frames - pages.map.pfn[pages.head[cached]]
    names = entry_of(pages.map["private"][pages.head[cached]] + ahead)
    order = np.argsort(names)
    entry = np.union1d(swap.entry, names)
    slot, page = rows_of(swap.entry, entry), rows_of(names[order], entry)

    def of_slot(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.where(slot >= 0, column[slot], 0) if len(column) else np.zeros(len(entry))

    held = swap.held
    counts = np.full(len(entry), -1)
    if held is not None:
        values, times = np.unique(held, return_counts=True)
        at = rows_of(values, entry)
        counts = np.where(at >= 0, times[at], 0) if len(values) else np.zeros(len(entry))
    return Table(
        TABLES["swap_slots"],
        {
            "entry": entry,
            "count": of_slot(swap.count).astype(np.int32),
            "cache_pfn": np.where(page >= 0, frames[order][page].astype(np.int64), -1)
            if len(order) else np.full(len(entry), -1),
            "cached": of_slot(swap.cached).astype(bool),
            "shmem": of_slot(swap.shmem).astype(np.int32),
            "shmem_found": counts.astype(np.int32),
        },
    )  # fmt: skip
