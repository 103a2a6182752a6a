# SPDX-License-Identifier: GPL-2.0-only
"""Looking up an address in page tables made by hand: 4 and 5 levels, huge pages, protected ones."""

from __future__ import annotations

import struct

import pytest

drgn = pytest.importorskip("drgn", reason="helpers for drgn need drgn")
PAGE = 4096
PRESENT, HUGE, PROTNONE = 1, 1 << 7, 1 << 8
ADDRESS = 0x7F12_3456_7ABC


class Tables:
    """Physical memory that holds page tables; the first page is the topmost."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.memory: dict[int, dict[int, int]] = {0x1000: {}}

    def put(self, address: int, entry: int, level: int) -> None:
        """Put an entry of a level there, and the tables above it."""
        table = 0x1000
        for above in range(self.levels - 1, level, -1):
            slot = address >> 12 + 9 * above & 511
            if slot not in self.memory[table]:
                new = 0x1000 * (len(self.memory) + 1)
                self.memory[new] = {}
                self.memory[table][slot] = new | PRESENT
            table = self.memory[table][slot] & ~0xFFF
        self.memory[table][address >> 12 + 9 * level & 511] = entry

    def pfn(self, address: int) -> int | None:
        """What the helper finds."""
        from rmap import drgn_helpers

        program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        data = b"".join(
            struct.pack("<512Q", *(self.memory.get(at, {}).get(slot, 0) for slot in range(512)))
            for at in range(0, 0x1000 * (len(self.memory) + 1), PAGE)
        )
        program.add_memory_segment(
            0, len(data), lambda address, count, at, physical: data[at : at + count], True
        )
        program.cache["rmap.drgn_helpers.levels"] = self.levels
        found: int | None = drgn_helpers._x86_64_mapped_pfn(program, 0x1000, address)
        return found


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_pages_of_every_size(levels: int, level: int) -> None:
    tables = Tables(levels)
    size = 1 << 9 * level
    frame = 0x123 * size
    tables.put(ADDRESS, frame << 12 | PRESENT | (HUGE if level else 0), level)
    inside = ADDRESS >> 12 & (size - 1)
    assert tables.pfn(ADDRESS) == frame + inside
    assert tables.pfn(ADDRESS ^ 1 << 12 + 9 * level) is None


@pytest.mark.parametrize("level", [0, 1])
def test_protected_pages_are_stored_inverted(level: int) -> None:
    tables = Tables(4)
    frame = 0x456 << 9 * level
    inverted = ~(frame << 12) & 0x000F_FFFF_FFFF_F000
    tables.put(ADDRESS, inverted | PROTNONE | (HUGE if level else 0), level)
    assert tables.pfn(ADDRESS) == frame + (ADDRESS >> 12 & (1 << 9 * level) - 1)


def test_what_is_swapped_is_not_mapped() -> None:
    tables = Tables(4)
    tables.put(ADDRESS, 0x1234 << 59 & (1 << 64) - 1 | 0x5600, 0)
    assert tables.pfn(ADDRESS) is None
