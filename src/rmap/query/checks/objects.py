# SPDX-License-Identifier: GPL-2.0-only
"""How findings call objects of the kernel: by what they are, where they lie, and whose they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage, Table
from rmap.query.checks.collect import Subject
from rmap.query.checks.mappers import (
    MAX_MAPPERS,
    mapper_of,
    mappers_of_page,
    name_users,
    users_of,
)
from rmap.query.checks.registry import Fact, Mapper

I64 = npt.NDArray[np.int64]


def anon_vma_name(image: MemoryImage, row: int) -> str:
    """``anon_vma 0xffff888003a41340``, or its number in a model."""
    if row < 0:
        return "an anon_vma that is not known"
    table = image.tables["anon_vmas"]
    handle = int(table["handle"][row]) if "handle" in table else row
    return f"anon_vma {handle:#x}"


def vma_name(image: MemoryImage, row: int) -> str:
    """``the VMA 0x7f00-0x7f08 of pid 12 (sh)``."""
    if row < 0:
        return "a VMA that is not known"
    start, end = int(image.vmas["start"][row]), int(image.vmas["end"][row])
    users = name_users(*users_of(image, int(image.vmas["mm"][row])))
    return f"the VMA {start:#x}-{end:#x} of {users}"


def file_name(image: MemoryImage, row: int) -> str:
    """``the file /usr/bin/sh``, or its inode."""
    if row < 0:
        return "a file that is not known"
    path = str(image.files["path"][row])
    return f"the file {path}" if path else f"the file of inode {int(image.files['inode'][row])}"


# ---------------------------------------------------------------- facts


def handle_of(table: Table, row: int, kind: str) -> dict[str, Fact]:
    """What an object is and where it lies, as far as the image knows."""
    facts: dict[str, Fact] = {"object": kind}
    if row >= 0 and "handle" in table:
        facts["address"] = int(table["handle"][row])
    return facts


def page_facts(image: MemoryImage, pfn: int) -> dict[str, Fact]:
    """A page: its frame, and the address of its struct page."""
    facts: dict[str, Fact] = {"pfn": pfn}
    if "memmap" in image.machine:
        facts["object"] = "page"
        size = int(image.machine["page_struct"][0])
        facts["address"] = int(image.machine["memmap"][0]) + pfn * size
    return facts


def entry_subject(image: MemoryImage) -> Subject:
    """Entries of page tables, by their rows."""
    ptes = image.ptes
    return Subject(
        lambda row: (
            f"the entry at {int(ptes['address'][row]):#x} of "
            f"{name_users(*users_of(image, int(ptes['mm'][row])))}"
        ),
        lambda row: {
            "object": "entry", "address": int(ptes["address"][row]), "pfn": int(ptes["pfn"][row]),
        },
        lambda row: (mapper_of(image, row),),
    )  # fmt: skip


# ---------------------------------------------------------------- whom it affects


def users_of_mm(image: MemoryImage, mm: int) -> tuple[Mapper, ...]:
    """The processes of an address space."""
    return () if mm < 0 else (Mapper(*users_of(image, mm), 0),)


def users_of_vmas(image: MemoryImage, rows: npt.ArrayLike) -> tuple[Mapper, ...]:
    """The processes of some VMAs, each with the VMA's first address."""
    known = np.unique(np.asarray(rows, np.int64))
    return tuple(
        Mapper(*users_of(image, int(image.vmas["mm"][row])), int(image.vmas["start"][row]))
        for row in known[known >= 0][:MAX_MAPPERS].tolist()
    )


def vmas_of_anon_vma(image: MemoryImage, row: int) -> I64:
    """The VMAs in its tree, or that have it in their list."""
    nodes, listed = image.tables["tree_nodes"], image.tables["chain_nodes"]
    return np.concatenate([
        nodes["vma"][nodes["anon_vma"] == row], listed["vma"][listed["claims_anon_vma"] == row],
    ]).astype(np.int64)  # fmt: skip


def users_of_anon_vma(image: MemoryImage, row: int) -> tuple[Mapper, ...]:
    """The processes whose VMAs have it."""
    return () if row < 0 else users_of_vmas(image, vmas_of_anon_vma(image, row))


def users_of_file(image: MemoryImage, row: int) -> tuple[Mapper, ...]:
    """The processes that map a file."""
    if row < 0:
        return ()
    return users_of_vmas(image, np.flatnonzero(image.vmas["file"] == row))


def users_of_page(image: MemoryImage, pfn: int) -> tuple[Mapper, ...]:
    """The processes that map a page."""
    return mappers_of_page(image, pfn)
