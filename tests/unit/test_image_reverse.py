# SPDX-License-Identifier: GPL-2.0-only
"""The index by page, against a dictionary that does the same entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import ImageError
from rmap.image import ReverseMap, Table
from rmap.image import reverse as reverse_module
from rmap.image.arrays import distinct, positions
from rmap.image.counting import group
from rmap.image.flags import Pte
from rmap.image.schema import PTES

ORDERS = (0, 0, 0, 4, 9)


@st.composite
def entries(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries of a few address spaces, small and huge, near each other or far apart."""
    base = draw(st.sampled_from([0, 1 << 12, 1 << 30, 1 << 40]))
    rows = []
    for row in range(draw(st.integers(0, 40))):
        order = draw(st.sampled_from(ORDERS))
        block = draw(st.integers(0, 2000)) + (base >> order)
        flags = draw(st.sampled_from([Pte.PRESENT, Pte.PRESENT | Pte.SPECIAL, Pte.SWAP]))
        rows.append(
            {
                "mm": row // 8,
                "address": (row % 8) << 33,
                "pfn": block << order,
                "order": order,
                "flags": int(flags),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    return Table.from_rows(PTES, rows)


def by_page(rows: list[dict[str, Any]]) -> dict[int, list[int]]:
    """What maps each page: present entries that are not special."""
    found: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row["flags"] & Pte.PRESENT and not row["flags"] & Pte.SPECIAL:
            for page in range(1 << row["order"]):
                found.setdefault(row["pfn"] + page, []).append(number)
    return found


@given(entries(), st.integers(0, 1 << 41))
def test_every_page_has_the_mappings_that_a_dictionary_has(
    rows: list[dict[str, Any]], elsewhere: int
) -> None:
    reverse, expected = ReverseMap(table(rows)), by_page(rows)
    pages = [*expected, elsewhere]
    mappings = reverse.mappings(pages)
    assert reverse.count(pages).tolist() == [len(expected.get(page, [])) for page in pages]
    for at, page in enumerate(pages):
        assert mappings.of(at).tolist() == expected.get(page, [])
    assert mappings.counts.tolist() == reverse.count(pages).tolist()
    assert reverse.mapped_pfns().tolist() == sorted(expected)


@given(entries())
def test_dense_and_sparse_levels_answer_alike(rows: list[dict[str, Any]]) -> None:
    dense = ReverseMap(table(rows))
    pages = dense.mapped_pfns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reverse_module, "_DENSE_BLOCKS_ALWAYS", 0)
        patch.setattr(reverse_module, "_DENSE_BLOCKS_PER_ENTRY", 0)
        sparse = ReverseMap(table(rows))
    assert sparse.mapped_pfns().tolist() == pages.tolist()
    assert sparse.mappings(pages).rows.tolist() == dense.mappings(pages).rows.tolist()


def test_swap_entries_are_an_index_of_their_own() -> None:
    rows = [
        {"mm": mm, "address": 0, "pfn": 7 << 5, "order": 0, "flags": int(Pte.SWAP)}
        for mm in range(2)
    ]
    swapped = ReverseMap(table(rows), having=Pte.SWAP, without=Pte.MIGRATION)
    assert swapped.count([7 << 5]).tolist() == [2]
    assert ReverseMap(table(rows)).count([7 << 5]).tolist() == [0]


def test_more_entries_than_positions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_module, "_MAX_ENTRIES", 1)
    row = {"mm": 0, "address": 0, "pfn": 1, "order": 0, "flags": 1}
    with pytest.raises(ImageError, match="1 page-table entries are more than 1"):
        ReverseMap(table([row]))


@given(st.lists(st.integers(0, 50)))
def test_grouping_is_a_stable_sort(blocks: list[int]) -> None:
    offsets, places = group(np.array(blocks, np.uint32), 51)
    assert places.tolist() == sorted(range(len(blocks)), key=lambda place: blocks[place])
    assert offsets.tolist() == [sum(block < limit for block in blocks) for limit in range(52)]


def test_a_block_beyond_the_span_is_an_error_in_both_modes() -> None:
    with pytest.raises((IndexError, ValueError)):
        group(np.array([5], np.uint32), 3)


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_distinct_and_positions(values: list[int], wanted: list[int]) -> None:
    have = distinct(np.array(values, np.uint64))
    assert have.tolist() == sorted(set(values))
    asked = np.array([*wanted, *values], np.uint64)
    expected = [sorted(set(values)).index(v) if v in values else -1 for v in asked.tolist()]
    assert positions(have, asked).tolist() == expected
