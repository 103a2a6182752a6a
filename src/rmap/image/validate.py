# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the schema, checked on an image that came from outside.

Queries index one table by ids found in another and search sorted columns; on a foreign image
that broke a rule they would answer wrongly or crash. So every rule is checked once, at the door.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError
from rmap.image.image import MemoryImage
from rmap.image.table import Table

#: Column that refers to a row of another table: (table, column, referred table).
_REFERENCES = (
    ("processes", "mm", "mms"),
    ("vmas", "mm", "mms"),
    ("vmas", "file", "files"),
    ("vmas", "anon_vma", "anon_vmas"),
    ("ptes", "mm", "mms"),
    ("pages", "anon_vma", "anon_vmas"),
    ("pages", "file", "files"),
    ("anon_vmas", "root", "anon_vmas"),
    ("anon_vmas", "parent", "anon_vmas"),
    ("anon_vma_chains", "vma", "vmas"),
    ("anon_vma_chains", "anon_vma", "anon_vmas"),
    ("i_mmap", "file", "files"),
    ("i_mmap", "vma", "vmas"),
    ("tree_nodes", "anon_vma", "anon_vmas"),
    ("tree_nodes", "file", "files"),
    ("tree_nodes", "vma", "vmas"),
    ("tree_nodes", "parent", "tree_nodes"),
    ("tree_nodes", "left", "tree_nodes"),
    ("tree_nodes", "right", "tree_nodes"),
    ("chain_nodes", "vma", "vmas"),
    ("chain_nodes", "claims_vma", "vmas"),
    ("chain_nodes", "claims_anon_vma", "anon_vmas"),
    ("ksm_items", "mm", "mms"),
    ("ksm_items", "anon_vma", "anon_vmas"),
    ("damage", "mm", "mms"),
)
#: References that may be -1, "none".
_MAY_BE_NONE = {
    ("processes", "mm"),
    ("vmas", "file"),
    ("vmas", "anon_vma"),
    ("pages", "anon_vma"),
    ("pages", "file"),
    *(("tree_nodes", column) for column in ("anon_vma", "file", "vma", "parent", "left", "right")),
    ("chain_nodes", "claims_vma"),
    ("chain_nodes", "claims_anon_vma"),
    ("ksm_items", "mm"),
    ("ksm_items", "anon_vma"),
    ("damage", "mm"),
}
#: Tables whose id column is the row number.
_IDS = (("mms", "mm"), ("vmas", "vma"), ("files", "file"), ("anon_vmas", "anon_vma"))
#: An entry of order 18 maps 1 GiB of 4 KiB pages; 24 leaves room for other architectures.
MAX_ORDER = 24


def validate_image(image: MemoryImage, where: str) -> None:
    """Check every rule of `rmap.image.schema`.

    Raises
    ------
    ImageError
        Naming ``where``, the table, and the first row that breaks a rule.
    """
    _validate_machine(image.machine, where)
    for table, column in _IDS:
        ids = image.tables[table][column]
        _require(ids == np.arange(len(ids)), where, table, f"{column} is not the row number")
    for table, column, referred in _REFERENCES:
        if column in image.tables[table]:
            lowest = -1 if (table, column) in _MAY_BE_NONE else 0
            values = image.tables[table][column]
            good = (values >= lowest) & (values < len(image.tables[referred]))
            _require(good, where, table, f"{column} names no row of {referred}")
    _validate_sorted(image.processes, "pid", where)
    _validate_sorted(image.pages, "pfn", where)
    _validate_sorted(image.tables["compounds"], "pfn", where)
    _validate_sorted(image.tables["swap_slots"], "entry", where)
    _validate_ram(image.ram, where)
    _validate_vmas(image.vmas, where)
    _validate_ptes(image.ptes, image.page_size, where)


def _require(good: npt.NDArray[np.bool_], where: str, table: str, problem: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise ImageError(f"{where}: table {table} breaks the schema at row {row}: {problem}")


def _validate_machine(machine: Table, where: str) -> None:
    if len(machine) != 1:
        raise ImageError(f"{where}: table machine has {len(machine)} rows, not 1")
    size = int(machine["page_size"][0])
    if size < 4096 or size > 1 << 20 or size & (size - 1):
        raise ImageError(f"{where}: table machine states a page size of {size} bytes")


def _later(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each value is larger than the one before (true for the first)."""
    return np.concatenate((np.ones(min(1, len(values)), np.bool_), values[1:] > values[:-1]))


def _same(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each value equals the one before (false for the first)."""
    return np.concatenate((np.zeros(min(1, len(values)), np.bool_), values[1:] == values[:-1]))


def _validate_sorted(table: Table, column: str, where: str) -> None:
    _require(_later(table[column]), where, table.schema.name, f"{column} does not ascend")


def _validate_ram(ram: Table, where: str) -> None:
    start, end = ram["start_pfn"], ram["end_pfn"]
    _require(start < end, where, "ram", "an empty range")
    clear = np.concatenate((np.ones(min(1, len(ram)), np.bool_), start[1:] >= end[:-1]))
    _require(clear, where, "ram", "ranges overlap or do not ascend")


def _validate_vmas(vmas: Table, where: str) -> None:
    mm, start, end = vmas["mm"], vmas["start"], vmas["end"]
    _require(start < end, where, "vmas", "an empty range")
    clear = np.concatenate((np.zeros(min(1, len(vmas)), np.bool_), start[1:] >= end[:-1]))
    good = _later(mm) | (_same(mm) & clear)
    _require(good, where, "vmas", "not in order of (mm, start), or overlapping")


def _validate_ptes(ptes: Table, page_size: int, where: str) -> None:
    mm, address, order = ptes["mm"], ptes["address"], ptes["order"]
    good = _later(mm) | (_same(mm) & _later(address))
    _require(good, where, "ptes", "not in order of (mm, address)")
    _require(order <= MAX_ORDER, where, "ptes", f"order above {MAX_ORDER}")
    base = np.uint64(page_size - 1)
    _require((address & base) == 0, where, "ptes", "address is not page aligned")
    huge = np.flatnonzero(order)
    pages = (np.uint64(1) << order[huge].astype(np.uint64)) - np.uint64(1)
    aligned = (address[huge] // np.uint64(page_size)) & pages == 0
    aligned &= (ptes["pfn"][huge] & pages) == 0
    _require(aligned, where, "ptes", "a huge entry that is not aligned to its size")
