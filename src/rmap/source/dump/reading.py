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
from rmap.source.dump.facts import Facts
from rmap.source.dump.files import Files, read_files
from rmap.source.dump.ksm import Merged, read_ksm
from rmap.source.dump.memmap import read_memory_map
from rmap.source.dump.names import vma_names
from rmap.source.dump.pages import Pages, read_pages
from rmap.source.dump.records import U64
from rmap.source.dump.rss import Counters, read_counters
from rmap.source.dump.spaces import Spaces, read_page_tables, read_spaces
from rmap.source.dump.swap import read_swap
from rmap.source.dump.tasks import Tasks, read_tasks

if TYPE_CHECKING:
    from drgn import Program

Columns = dict[str, Any]
#: What is wrong with a structure that is named by others and whose memory is not there.
NOT_IN_DUMP = "is not in the dump"


@dataclass(frozen=True)
class Reading:
    """What was read of a dump, before it is put into tables."""

    facts: Facts
    tasks: Tasks
    spaces: Spaces
    pages: Pages
    anon: AnonVmas
    files: Files
    merged: Merged
    counters: Counters
    ptes: Columns
    swap: tuple[U64, npt.NDArray[np.int32], list[int]]
    names: list[str]
    missing_tables: int

    @property
    def damage(self) -> list[tuple[str, int, str]]:
        """What could not be followed: object, address, what is wrong with it."""
        return [
            *self.spaces.damage, *self.anon.damage, *self.files.damage, *self.merged.damage,
        ]  # fmt: skip


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
    entries = read_page_tables(program, facts, spaces)
    progress("reverse map", 0, 1)
    merged = read_ksm(program, pages)
    pinned = merged.items["anon_vma"] if len(merged.items) else np.zeros(0, "u8")
    anon = read_anon_vmas(program, spaces, pages, pinned)
    files = read_files(program, spaces, pages)
    sizes = [len(one.address) for one in entries]
    joined: Columns = {
        "mm": np.repeat(np.arange(len(entries), dtype=np.int32), sizes),
        "address": _joined([one.address for one in entries], "u8"),
        "value": _joined([one.value for one in entries], "u8"),
        "order": _joined([one.order for one in entries], "u1"),
    }
    return Reading(
        facts, tasks, spaces, pages, anon, files, merged,
        read_counters(program, facts, spaces, tasks), joined, read_swap(program, facts),
        vma_names(program, spaces), sum(len(one.missing) for one in entries),
    )  # fmt: skip


def _joined(parts: list[Any], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
