# SPDX-License-Identifier: GPL-2.0-only
"""The memory map: every struct page of the machine, read in large pieces.

What is missing in the dump (excluded, or never there) has no rows; how much that is is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.source.dump.records import U64, Bools, Layout

if TYPE_CHECKING:
    from drgn import Program

#: struct pages that are read in one piece, where nothing is missing.
_PIECE = 1 << 15
_COLUMNS: dict[str, str | tuple[str, ...]] = {
    "flags": ("flags", "flags.f"),
    "mapping": "mapping",
    "index": ("index", "__folio_index"),
    "compound_head": ("compound_head", "compound_info"),
    "mapcount": "_mapcount.counter",
    "refcount": "_refcount.counter",
    "private": "private",
    "memcg": ("memcg_data", "mem_cgroup"),
}


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The struct pages that could be read, by ascending page frame number.

    `base` is the address of the struct page of frame 0, of which `size` is the size. `missing`
    counts frames that the machine has and whose struct page is not in the dump.
    """

    pfn: U64
    values: npt.NDArray[np.void]
    base: int
    size: int
    ranges: tuple[tuple[int, int], ...]
    missing: int

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        return self.values[column]

    def __len__(self) -> int:
        return len(self.pfn)

    def words(self, pfns: U64, offset: int, size: int) -> U64:
        """Numbers of some bytes that lie behind the start of the struct page of each frame.

        They may lie in the one of a following frame; 0 where that one is missing.
        """
        rows = self.row_of(pfns + np.uint64(offset // self.size))
        first = offset % self.size
        data = self.values.view(np.uint8).reshape(-1, self.size)[rows, first : first + size]
        padded = np.zeros((len(pfns), 8), np.uint8)
        padded[:, :size] = data
        padded[rows < 0] = 0
        return padded.view("<u8").reshape(-1)

    def pfn_of(self, pages: U64) -> U64:
        """The frames of addresses of struct pages."""
        return (pages - np.uint64(self.base)) // np.uint64(self.size)

    def row_of(self, pfns: U64) -> npt.NDArray[np.int64]:
        """The rows of frames, -1 for those that have none."""
        at = np.searchsorted(self.pfn, pfns)
        found = at < len(self.pfn)
        found[found] = self.pfn[at[found]] == pfns[found]
        return np.where(found, at, -1)


def page_layout(program: Program) -> Layout:
    """The members of struct page that are read."""
    return Layout(program, "struct page", _COLUMNS).require("flags", "mapping", "mapcount")


def read_memory_map(program: Program) -> MemoryMap:
    """Read all struct pages."""
    from drgn.helpers.linux.mm import for_each_valid_page_range

    layout = page_layout(program)
    pieces: list[tuple[int, bytes, Bools]] = []
    ranges: list[tuple[int, int]] = []
    base = 0
    for start, end, page0 in _until_torn(for_each_valid_page_range(program)):
        base = int(page0.value_())
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
        for first in range(start, end, _PIECE):
            count = min(_PIECE, end - first)
            pieces.append((first, *_read(program, base + first * layout.size, count, layout.size)))
    if not pieces:
        empty = np.zeros(0, layout.dtype)
        return MemoryMap(np.zeros(0, "u8"), empty, base, layout.size, (), 0)
    present = np.concatenate([there for _, _, there in pieces])
    frames = np.concatenate(
        [np.arange(first, first + len(there), dtype="u8") for first, _, there in pieces]
    )
    data = np.frombuffer(b"".join(data for _, data, _ in pieces), np.uint8)
    missing = int(len(present) - present.sum())
    if missing:
        # As bytes: what no column covers has to stay as well.
        frames, data = frames[present], data.reshape(-1, layout.size)[present].reshape(-1)
    values = data.view(layout.dtype)
    return MemoryMap(frames, values, base, layout.size, tuple(ranges), missing)


def _until_torn(ranges: Iterator[Any]) -> Iterator[Any]:
    """Ranges of pages, as far as the kernel's own record of them is in the dump."""
    import drgn

    try:
        yield from ranges
    except drgn.FaultError:
        return


def _read(program: Program, address: int, count: int, size: int) -> tuple[bytes, Bools]:
    """Read `count` structs in a row; where some are missing, by halves down to single ones."""
    import drgn

    try:
        return program.read(address, count * size), np.ones(count, bool)
    except drgn.FaultError:
        if count == 1:
            return bytes(size), np.zeros(1, bool)
    half = count // 2
    low, low_there = _read(program, address, half, size)
    high, high_there = _read(program, address + half * size, count - half, size)
    return low + high, np.concatenate([low_there, high_there])
