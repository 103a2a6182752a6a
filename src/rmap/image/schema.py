# SPDX-License-Identifier: GPL-2.0-only
"""The tables of a memory image: names, columns, types, units, and the order of their rows.

This module is the documentation of the format as much as its definition: ``rmap sql`` shows
these tables, the Parquet files hold them, every source fills them. A column marked *optional*
may be absent (the source does not know it); all others are always there, with the stated value
for "unknown".

Rules that hold for every image (checked when one is read):

* ids (``mm``, ``vma``, ``file``, ``anon_vma``) are row numbers of the table they name; -1 is none;
* ``processes`` ascend by ``pid``, ``vmas`` by (``mm``, ``start``) without overlap, ``ptes`` by
  (``mm``, ``address``), ``pages`` and ``ram`` by page frame number;
* an entry of order *k* maps ``2**k`` pages, and its address and pfn are aligned to that;
* text is valid Unicode: bytes that are not UTF-8 stand as ``\\xNN``.

The schema version grows by one whenever a reader of the old version would misunderstand the new.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1

#: Column types: numpy dtype names, and "text" for Unicode strings.
TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type, and what it means (with its unit)."""

    name: str
    dtype: str
    doc: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table: its name, what a row is, its columns, and the columns it is sorted by."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    sorted_by: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return the column called ``name`` (KeyError if there is none)."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name!r}")


def _table(name: str, doc: str, sorted_by: str, *columns: Column) -> TableSchema:
    return TableSchema(name, doc, columns, tuple(sorted_by.split()))


def _opt(name: str, dtype: str, doc: str) -> Column:
    return Column(name, dtype, doc, optional=True)


_C = Column

MACHINE = _table(
    "machine",
    "One row: the machine and the moment.",
    "",
    _C("kernel_release", TEXT, "as uname -r prints it"),
    _C("architecture", TEXT, "as uname -m prints it"),
    _C("page_size", "int64", "bytes in a base page"),
    _C("time_ns", "int64", "when the snapshot began, ns since 1970 UTC"),
    _C("duration_ns", "int64", "how long it took, ns"),
    _C("source", TEXT, "what it was read from: proc, model or dump"),
    _C("scope", TEXT, "machine (every process, all RAM) or processes (only those asked for)"),
    _C(
        "consistency",
        TEXT,
        "passes (read twice and compared), frozen (stopped), exact, or once (read while it ran)",
    ),
    _C("page_mapcount", "bool", "mapcounts are kept for every page, not averaged over a folio"),
    _opt("missing_pages", "int64", "page frames whose descriptors are not in the dump"),
    _opt("missing_tables", "int64", "page tables that are not in the dump"),
    _opt("missing_objects", "int64", "other structures that are named and not in the dump"),
    _opt("memmap", "uint64", "address of the struct page of frame 0"),
    _opt("page_struct", "int64", "bytes of a struct page"),
)

RAM = _table(
    "ram",
    "One row a range of physical memory that has page descriptors.",
    "start_pfn",
    _C("start_pfn", "uint64", "first page frame number"),
    _C("end_pfn", "uint64", "one past the last"),
)

PROCESSES = _table(
    "processes",
    "One row a process (thread group) that was seen, readable or not.",
    "pid",
    _C("pid", "int32", "process id (thread group id)"),
    _C("ppid", "int32", "parent's pid, -1 unknown"),
    _C("mm", "int32", "its address space, -1 if it has none or it could not be read"),
    _C("comm", TEXT, "command name"),
    _C("cmdline", TEXT, "arguments joined by blanks"),
    _C("uid", "int64", "real user id, -1 unknown"),
    _C("user", TEXT, "name of that user, or the number"),
    _C("cgroup", TEXT, "path in the hierarchy that holds memory (v2, or v1 memory)"),
    _C("start_time", "int64", "clock ticks since boot, -1 unknown"),
    _C("threads", "int32", "number of threads, -1 unknown"),
    _C("status", TEXT, "ok, kernel (no memory of its own), zombie, vanished, denied, or self"),
    _opt("handle", "uint64", "address of its leader's task_struct"),
)

MMS = _table(
    "mms",
    "One row an address space (mm_struct); processes made with CLONE_VM share one.",
    "mm",
    _C("mm", "int32", "id"),
    _C("pid", "int32", "lowest pid of the processes that use it"),
    _C("users", "int32", "number of processes that use it"),
    _C("rss_anon", "int64", "kernel's own counter, bytes, -1 unknown"),
    _C("rss_file", "int64", "likewise"),
    _C("rss_shmem", "int64", "likewise"),
    _C("swap", "int64", "likewise: swapped anonymous memory"),
    _C("locked", "int64", "likewise: mlocked memory"),
    _opt("handle", "uint64", "its address"),
    _opt("map_count", "int64", "mm->map_count: VMAs, as the kernel counts them"),
    _opt("total_vm", "int64", "mm->total_vm: pages of VMAs, as the kernel counts them"),
    _opt(
        "page_tables",
        "int64",
        "mm->pgtables_bytes: page tables, as the kernel counts them, -1 unknown",
    ),
    _opt("tables_found", "int64", "bytes of the page tables below the top that were found"),
)

VMAS = _table(
    "vmas",
    "One row a virtual memory area.",
    "mm start",
    _C("vma", "int32", "id"),
    _C("mm", "int32", "address space"),
    _C("start", "uint64", "first address"),
    _C("end", "uint64", "one past the last"),
    _C("flags", "uint64", "VM_ bits, see rmap.image.flags"),
    _C("pgoff", "uint64", "vm_pgoff: offset in the file in pages; 0 for anonymous memory in /proc"),
    _C("device", "uint64", "device of the file: major << 20 | minor; 0 without file"),
    _C("inode", "uint64", "inode of the file, 0 without file"),
    _C("path", TEXT, "path of the file as mapped, '' without file"),
    _C("name", TEXT, "[heap], [stack], [anon:...], [vdso]; '' without name"),
    _C("file", "int32", "file, -1 without"),
    _opt("anon_vma", "int32", "vma->anon_vma, -1 if none"),
    _opt("handle", "uint64", "its address"),
)

PTES = _table(
    "ptes",
    "One row a page-table entry that holds something: a page, a swap or a migration entry.",
    "mm address",
    _C("mm", "int32", "address space"),
    _C("address", "uint64", "first address that the entry maps"),
    _C("pfn", "uint64", "page frame number; in a swap entry type | offset << 5"),
    _C("order", "uint8", "the entry maps 2**order pages: 0 PTE, 9 PMD, 18 PUD (x86-64)"),
    _C("flags", "uint32", "PTE_ bits, see rmap.image.flags"),
)

PAGES = _table(
    "pages",
    "One row a page frame: all RAM (scope machine), or the pages that ptes name.",
    "pfn",
    _C("pfn", "uint64", "page frame number"),
    _C("flags", "uint64", "KPF_ bits of /proc/kpageflags, see rmap.image.flags"),
    _C("mapcount", "int32", "times the kernel says it is mapped, -1 unknown"),
    _C("changed", "bool", "its mappings changed while they were read: not comparable"),
    _opt("refcount", "int32", "references, -1 unknown"),
    _opt("mapping", "uint64", "page->mapping as it is, tag bits included"),
    _opt("index", "uint64", "page->index"),
    _opt("anon_vma", "int32", "the anon_vma that page->mapping names, -1 none"),
    _opt("file", "int32", "the file that page->mapping names, -1 none"),
    _opt("exclusive", "bool", "PG_anon_exclusive (since 5.19)"),
)

FILES = _table(
    "files",
    "One row a file (inode) that some VMA maps; of a dump, also those in the page cache.",
    "",
    _C("file", "int32", "id"),
    _C("device", "uint64", "major << 20 | minor"),
    _C("inode", "uint64", "inode number"),
    _C("path", TEXT, "path under which it was first seen, without ' (deleted)'"),
    _C("deleted", "bool", "it has no name any more"),
    _opt("handle", "uint64", "address of its struct address_space"),
    _opt("writable", "int32", "i_mmap_writable: its shared writable mappings; negative: denied"),
    _opt("leftmost", "uint64", "the VMA that its tree names as its leftmost, 0 none"),
)

ANON_VMAS = _table(
    "anon_vmas",
    "One row an anon_vma. Sources that cannot see them leave the table empty.",
    "anon_vma",
    _C("anon_vma", "int32", "id"),
    _C("root", "int32", "root of its tree (itself for a root)"),
    _C("parent", "int32", "parent (itself for a root)"),
    _C("refcount", "int32", "references"),
    _opt("handle", "uint64", "what page->mapping names it by: an address, in a model a slab slot"),
    _opt("degree", "int32", "children plus VMAs that own it (before 6.0)"),
    _opt("num_children", "int32", "since 6.0"),
    _opt("num_active_vmas", "int32", "since 6.0"),
    _opt("leftmost", "uint64", "the anon_vma_chain that its tree names as its leftmost, 0 none"),
)

ANON_VMA_CHAINS = _table(
    "anon_vma_chains",
    "One row an anon_vma_chain: an edge between a VMA and an anon_vma.",
    "",
    _C("vma", "int32", "VMA"),
    _C("anon_vma", "int32", "anon_vma"),
    _C("chain_position", "int32", "place in vma->anon_vma_chain, from the head"),
    _C("tree_position", "int32", "place in the in-order walk of the anon_vma's interval tree"),
)

I_MMAP = _table(
    "i_mmap",
    "One row a VMA in the interval tree of a file.",
    "",
    _C("file", "int32", "file"),
    _C("vma", "int32", "VMA"),
    _C("tree_position", "int32", "place in the in-order walk"),
)

SWAP_SLOTS = _table(
    "swap_slots",
    "One row a swap slot in use.",
    "entry",
    _C("entry", "uint64", "type | offset << 5, as in ptes.pfn"),
    _C("count", "int32", "references from page tables"),
    _C("cache_pfn", "int64", "page that the swap cache holds for it, -1 none"),
    _opt("cached", "bool", "the slot says that the swap cache has a page of it"),
    _opt("shmem", "int32", "references from files of shared memory, as the slot says: 0 or 1"),
    _opt("shmem_found", "int32", "such references that were found, -1 unknown"),
)

TREE_NODES = _table(
    "tree_nodes",
    "One row a node of an interval tree as it lies in memory, for checks. Sources that cannot see "
    "them leave the table empty.",
    "",
    _C("anon_vma", "int32", "whose tree it is in, -1 a file's"),
    _C("file", "int32", "whose tree it is in, -1 an anon_vma's"),
    _C("node", "uint64", "what it is by address: an anon_vma_chain, or (of a file) a VMA"),
    _C("vma", "int32", "the VMA that it is of, -1 none that is known"),
    _C("claims", "int32", "the anon_vma or file that it says it belongs to, -1 none that is known"),
    _C("parent", "int32", "row of the node above it, -1 none"),
    _C("left", "int32", "row of the node to its left below, -1 none"),
    _C("right", "int32", "likewise to its right"),
    _C("parent_right", "bool", "what it says its parent is, is its parent"),
    _C("red", "bool", "its colour"),
    _C("first", "uint64", "first index that it covers"),
    _C("last", "uint64", "last index that it covers"),
    _C("subtree_last", "uint64", "what it says is the last index below it"),
)

CHAIN_NODES = _table(
    "chain_nodes",
    "One row an anon_vma_chain in the list of a VMA as it lies in memory, for checks.",
    "",
    _C("vma", "int32", "whose list it is in"),
    _C("position", "int32", "place in the list, from the head"),
    _C("node", "uint64", "the anon_vma_chain by address"),
    _C("claims_vma", "int32", "the VMA that it says it is of, -1 none that is known"),
    _C("claims_anon_vma", "int32", "the anon_vma that it says it belongs to, -1 none"),
)

KSM_ITEMS = _table(
    "ksm_items",
    "One row a place where KSM merged a page (struct rmap_item).",
    "",
    _C("node", "uint64", "the stable node that it hangs on, as page->mapping names it"),
    _C("pfn", "uint64", "the page of that node, 0 unknown"),
    _C("mm", "int32", "address space, -1 none that is known"),
    _C("address", "uint64", "where in it"),
    _C("anon_vma", "int32", "the anon_vma through which it is found, -1 none that is known"),
    _opt("handle", "uint64", "its address"),
)

COMPOUNDS = _table(
    "compounds",
    "One row a compound page, for checks: a huge page, or what else has a head and tails.",
    "pfn",
    _C("pfn", "uint64", "its head"),
    _C("order", "uint8", "it has 2**order pages"),
    _C("entire", "int32", "mappings of it as a whole, as the kernel counts them"),
    _opt("large", "int32", "_large_mapcount + 1: all entries that map some of it (since 6.10)"),
    _opt(
        "parts",
        "int32",
        "_nr_pages_mapped: pages that PTEs map, and 0x800000 if it is mapped as"
        " a whole (since 6.2)",
    ),
)

DAMAGE = _table(
    "damage",
    "One row something that the source met and could not follow, or that contradicts itself: a "
    "link to no memory, a loop, a link back that leads elsewhere.",
    "",
    _C("object", TEXT, "what it is: anon_vma, vma, rmap_item, ..."),
    _C("address", "uint64", "where it lies"),
    _C("what", TEXT, "what is wrong with it"),
    _opt("kind", TEXT, "missing, loop, back link, range, owner, table, order, ..."),
    _opt("expected", TEXT, "what should be there, '' if there is no telling"),
    _opt("found", TEXT, "what is there"),
    _opt("mm", "int32", "the address space that is affected, -1 none that is known"),
)

#: All tables, in the order in which files and SQL show them.
TABLES: dict[str, TableSchema] = {
    table.name: table
    for table in (
        MACHINE,
        RAM,
        PROCESSES,
        MMS,
        VMAS,
        PTES,
        PAGES,
        FILES,
        ANON_VMAS,
        ANON_VMA_CHAINS,
        I_MMAP,
        SWAP_SLOTS,
        TREE_NODES,
        CHAIN_NODES,
        KSM_ITEMS,
        COMPOUNDS,
        DAMAGE,
    )
}
