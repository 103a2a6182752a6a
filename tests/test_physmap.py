# SPDX-License-Identifier: GPL-2.0-only
"""Physical memory in cells: no page is lost, and colours cover what they stand for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import ANON, Builder, small_machine

from rmap.errors import QueryError
from rmap.image import MemoryImage
from rmap.query.physmap import COLUMNS, DEGREES, MAX_ROWS, UNKNOWN, physmap, take_turns

GIB = 1 << 18  # pages


def bare_machine(ram: list[tuple[int, int]]) -> MemoryImage:
    """A machine of which only the RAM is known."""
    return Builder().build(ram, scope="processes")


def test_every_page_is_in_one_cell_of_each_layer() -> None:
    image = small_machine()
    memory = physmap(image)
    assert memory.ram_pages == len(image.pages) == 0x400
    for layer in (memory.kinds, memory.sharing):
        assert int(layer.pages.sum()) == int(layer.counts.sum()) == memory.ram_pages
    assert int(memory.kind_degrees.sum()) == memory.ram_pages


def test_sharing_is_what_the_kernel_counts() -> None:
    image = small_machine()
    memory = physmap(image)
    counts = image.pages["mapcount"]
    edges = [*DEGREES, 1 << 31]
    expected = [int(((counts >= a) & (counts < b)).sum()) for a, b in pairwise(edges)]
    assert memory.sharing.pages.tolist() == [*expected, 0]


def test_where_the_kernel_does_not_count_the_page_tables_do() -> None:
    b = Builder()
    for mm in (b.process(1, "a"), b.process(2, "b")):
        b.vma(mm, 0x1000, 1, 3)
        b.map(mm, 0x1000, 5)
    b.page(5, ANON, mapcount=-1)
    memory = physmap(b.build([(0, 16)]))
    assert memory.sharing.pages.tolist() == [15, 0, 1, 0, 0, 0, 0]


def test_a_cell_holds_the_pages_of_its_addresses() -> None:
    image = small_machine()
    memory = physmap(image)
    first = memory.row_pfns[:, None] + np.arange(COLUMNS, dtype=np.uint64) * np.uint64(
        memory.cell_pages
    )
    for cell, start in enumerate(first.ravel().tolist()):
        held = (image.pages["pfn"] >= start) & (image.pages["pfn"] < start + memory.cell_pages)
        assert memory.kinds.counts[cell].sum() == held.sum()


def test_ram_that_the_image_does_not_hold_is_told_as_such() -> None:
    memory = physmap(bare_machine([(0, 1000)]))
    assert memory.kinds.names[-1] == UNKNOWN
    assert memory.kinds.pages.tolist() == [0] * (len(memory.kinds.names) - 1) + [1000]


def test_without_ram_ranges_the_pages_tell_where_memory_is() -> None:
    b = Builder()
    b.page(10, ANON, 5, mapcount=1)
    b.page(100, ANON, 1, mapcount=1)
    assert physmap(b.build([], scope="processes")).ram_pages == 6


def test_an_image_without_memory_cannot_be_drawn() -> None:
    with pytest.raises(QueryError, match="no RAM"):
        physmap(bare_machine([]))


def test_device_memory_outside_ram_is_not_drawn() -> None:
    b = Builder()
    b.page(0x5000, ANON, 3, mapcount=1)
    b.page(0x1, ANON, 1, mapcount=1)
    assert int(physmap(b.build([(0, 64)], scope="processes")).kinds.counts.sum()) == 64


@pytest.mark.parametrize(
    ("ram", "gaps"),
    [
        ([(1, 0x9F), (0x100, GIB)], 0),
        ([(1, 0x9F), (0x100, 3 * GIB), (4 * GIB, 25 * GIB)], 1),
        ([(1, 3 * GIB), (4 * GIB, 33 * GIB), (64 * GIB, 96 * GIB)], 2),
    ],
)
def test_holes_cost_no_rows(ram: list[tuple[int, int]], gaps: int) -> None:
    memory = physmap(bare_machine(ram))
    assert MAX_ROWS / 3 < len(memory.row_pfns) <= MAX_ROWS
    assert len(memory.gaps) == gaps
    assert memory.ram_pages == sum(end - start for start, end in ram)
    for start, end in memory.gaps:
        assert any(end == first for first, _ in ram)
        assert any(start == last for _, last in ram)


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 1 << 22)), min_size=1, max_size=12))
def test_any_ram_fits(pieces: list[tuple[int, int]]) -> None:
    ram, at = [], 0
    for size, hole in pieces:
        at += hole
        ram.append((at, at + size))
        at += size
    memory = physmap(bare_machine(ram))
    assert len(memory.row_pfns) <= MAX_ROWS
    assert (np.diff(memory.row_pfns) >= memory.row_pages).all()
    assert int(memory.kinds.counts.sum()) == memory.ram_pages == sum(size for size, _ in pieces)
    breaks = np.count_nonzero(np.diff(memory.row_pfns) > memory.row_pages)
    assert len(memory.gaps) == breaks


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=60))
def test_turns_are_fair_all_along_the_way(rows: list[list[int]]) -> None:
    counts = np.array(rows, np.int64)
    shown = take_turns(counts)
    due = np.zeros(3)
    for row, choice in zip(rows, shown.tolist(), strict=True):
        if not sum(row):
            assert choice == -1
            continue
        assert row[choice] > 0  # never what is not there
        due += np.array(row) / sum(row)
        due[choice] -= 1
        assert np.abs(due.sum()) < 1e-6


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9))
def test_an_even_mix_covers_its_share_of_the_area(a: int, b: int, c: int) -> None:
    counts = np.tile(np.array([a, b, c]), (200, 1))
    area = np.bincount(take_turns(counts), minlength=3)
    assert np.abs(area - 200 * np.array([a, b, c]) / (a + b + c)).max() <= 2
