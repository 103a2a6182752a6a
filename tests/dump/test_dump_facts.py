# SPDX-License-Identifier: GPL-2.0-only
"""How kernels of different generations say what a page is (include/linux/page-flags.h)."""

from __future__ import annotations

from typing import Any

import pytest

from rmap.source.dump.facts import Facts

#: Enumerators and lines of VMCOREINFO, by the generation that has them.
GENERATIONS: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "6.1": ({"PG_slab": 9}, {"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129"}),
    "6.8": ({"PG_slab": 9, "PG_hugetlb": 8}, {"NUMBER(PG_hugetlb)": "8"}),
    "6.10": (
        {},
        {"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129",
         "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)": "-2049"},
    ),
    "6.11": (
        {"PG_buddy": 0x4000_0000, "PG_hugetlb": 0x0400_0000, "PG_slab": 0x0200_0000,
         "PAGE_TYPE_BASE": 0x8000_0000},
        {},
    ),
    "6.12": ({"PGTY_buddy": 0xF0, "PGTY_hugetlb": 0xF4, "PGTY_slab": 0xF5}, {}),
}  # fmt: skip
#: The word of a page of each type; of a page that is mapped three times; and of a plain one.
WORDS: dict[str, dict[str, int]] = {
    "6.1": {"buddy": 0xFFFF_FF7F},
    "6.8": {"buddy": 0xFFFF_FF7F},
    "6.10": {"buddy": 0xFFFF_FF7F, "hugetlb": 0xFFFF_F7FF},
    "6.11": {"buddy": 0xBFFF_FFFF, "hugetlb": 0xFBFF_FFFF, "slab": 0xFDFF_FFFF},
    "6.12": {"buddy": 0xF0FF_FFFF, "hugetlb": 0xF4FF_FFFF, "slab": 0xF500_0010},
}


class Kernel(Facts):
    """A kernel that consists of what is known of it."""

    def __init__(self, generation: str) -> None:
        program: Any = None
        super().__init__(program)
        self.__dict__["enumerators"], self.__dict__["vmcoreinfo"] = GENERATIONS[generation]

    def constant(self, name: str) -> int | None:
        found: int | None = self.__dict__["enumerators"].get(name)
        return found


@pytest.mark.parametrize("generation", list(GENERATIONS))
def test_pages_are_told_by_their_type(generation: str) -> None:
    facts, words = Kernel(generation), WORDS[generation]
    for kind in ("buddy", "hugetlb", "slab"):
        told = facts.page_type(kind)
        assert (told is not None) == (kind in words)
        if told is not None:
            mask, value = told
            expected = {other: other == kind for other in words}
            assert {other: word & mask == value for other, word in words.items()} == expected
            # Neither a count of mappings nor the one of a page without any is a type.
            assert not any(word & mask == value for word in (0, 2, 0xFFFF_FFFF))


@pytest.mark.parametrize(("generation", "slab", "hugetlb"), [
    ("6.1", 1 << 9, 0), ("6.8", 1 << 9, 1 << 8), ("6.11", 0, 0), ("6.12", 0, 0),
])  # fmt: skip
def test_types_are_no_flags(generation: str, slab: int, hugetlb: int) -> None:
    facts = Kernel(generation)
    assert (facts.flag("PG_slab"), facts.flag("PG_hugetlb")) == (slab, hugetlb)
