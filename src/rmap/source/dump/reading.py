# SPDX-License-Identifier: GPL-2.0-only
"""Everything of a dump, read in the order in which one thing leads to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError
from rmap.source import Progress
from rmap.source.dump.anon import AnonVmas, read_anon_vmas
from rmap.source.dump.damage import Damage
from rmap.source.dump.facts import Facts
from rmap.source.dump.files import Files, read_files
from rmap.source.dump.ksm import Merged, read_ksm
from rmap.source.dump.lru import lru_damage
from rmap.source.dump.memmap import read_memory_map
from rmap.source.dump.names import vma_names
from rmap.source.dump.pages import Compounds, Pages, read_compounds, read_pages
from rmap.source.dump.rss import Counters, read_counters
from rmap.source.dump.slab import Slabs
from rmap.source.dump.spaces import Spaces, read_page_tables, read_spaces
from rmap.source.dump.swap import Swap, read_swap
from rmap.source.dump.tablepages import Credibility, table_damage
from rmap.source.dump.tasks import Tasks, read_tasks

if TYPE_CHECKING:
    from drgn import Program

Columns = dict[str, Any]
I64 = npt.NDArray[np.int64]
#: Levels of page tables that mm->pgtables_bytes counts, from below.
_COUNTED = 3


@dataclass(frozen=True)
class Reading:
    """What was read of a dump, before it is put into tables."""

    facts: Facts
    tasks: Tasks
    spaces: Spaces
    pages: Pages
    compounds: Compounds
    anon: AnonVmas
    files: Files
    merged: Merged
    counters: Counters
    ptes: Columns
    table_bytes: I64
    swap: Swap
    names: list[str]
    missing_tables: int
    damage: tuple[Damage, ...]


def read(program: Program, progress: Progress) -> Reading:
    """Read everything.

    Raises `ImageError` if what leads to all else, as the map of page frames, is not in the dump.
    """
    import drgn

    try:
        return _read(program, progress)
    except drgn.FaultError as error:
        raise ImageError(
            f"what leads to everything else is not in the dump: no memory at {error.address:#x}"
        ) from error


def _read(program: Program, progress: Progress) -> Reading:
    facts = Facts(program)
    _ = facts.page_size
    progress("memory map", 0, 1)
    memory = read_memory_map(program)
    if not len(memory):
        raise ImageError("the map of page frames is not in the dump")
    pages = read_pages(program, facts, memory)
    progress("processes", 0, 1)
    tasks = read_tasks(program, facts)
    spaces = read_spaces(program, tasks.mms())
    progress("page tables", 0, 1)
    entries = read_page_tables(program, facts, spaces, Credibility(pages))
    progress("reverse map", 0, 1)
    merged = read_ksm(program, pages)
    pinned = merged.items["anon_vma"] if len(merged.items) else np.zeros(0, "u8")
    anon = read_anon_vmas(program, spaces, pages, pinned)
    files = read_files(program, spaces, pages)
    found: list[Damage] = []
    swap = read_swap(program, facts, found)
    damage = (
        *found, *tasks.damage, *spaces.damage, *anon.damage, *files.damage, *merged.damage,
        *table_damage(entries, spaces.mm.address, pages), *lru_damage(program, pages),
        *_strays(program, pages, spaces, anon),
    )  # fmt: skip
    sizes = [len(one.address) for one in entries]
    joined: Columns = {
        "mm": np.repeat(np.arange(len(entries), dtype=np.int32), sizes),
        "address": _joined([one.address for one in entries], "u8"),
        "value": _joined([one.value for one in entries], "u8"),
        "order": _joined([one.order for one in entries], "u1"),
    }
    return Reading(
        facts, tasks, spaces, pages, read_compounds(program, facts, pages), anon, files, merged,
        read_counters(program, facts, spaces, tasks), joined,
        np.array([4096 * int((one.level < _COUNTED).sum()) for one in entries], np.int64),
        swap,
        vma_names(program, spaces), sum(len(one.missing) for one in entries), damage,
    )  # fmt: skip


def _strays(program: Program, pages: Pages, spaces: Spaces, anon: AnonVmas) -> list[Damage]:
    """Objects that do not lie where objects of their kind do."""
    slabs = Slabs(program, pages)
    return [
        *slabs.strays("vma", spaces.vmas.address),
        *slabs.strays("anon_vma", anon.anon_vmas.address),
        *slabs.strays("anon_vma_chain", np.union1d(
            anon.listed.address, anon.forest.nodes.records.address)),
    ]  # fmt: skip


def _joined(parts: list[Any], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
