# SPDX-License-Identifier: GPL-2.0-only
"""Where the random operations work: numbers of places in an address space, and their addresses.

A place has one value. In the small window, and on the stack, a place is a page. In the huge window
it is a *cell*, one of a few unequal parts of a block of 512 pages, whose value is in its first
page; so the borders of VMAs cut huge pages here and there, and an oracle has little to remember.
In the window of hugetlb a place is a huge page.
"""

from __future__ import annotations

from bisect import bisect_right

from rmap.mm.bits import VM_DONTCOPY, VM_EXEC, VM_READ, VM_WIPEONFORK, VM_WRITE
from rmap.mm.mm_types import Vma

PAGE = 4096
BLOCK = 512
HUGE_SIZE = BLOCK * PAGE
#: The small window, of which the last pages are the heap's.
WINDOW = 40
HEAP = 32
BASE = 0x1000_0000
#: The stack is far away, as a gap is kept below it; it may grow by a few pages.
STACK = 0x7000_0000_0000
STACK_PAGES = 2
#: The huge window: its places from so many on, its blocks, and where in a block cells begin.
CELLS = 100
OFFSETS = (0, 1, 2, 3, 8, 64, 255, 256, 257, 384, 510, 511)
BLOCKS = 3
HUGE_BASE = 0x4000_0000
HUGE_WINDOW = BLOCKS * len(OFFSETS)
#: The window of hugetlb.
HUGETLB = 200
HUGETLB_BASE = 0x8000_0000
HUGETLB_WINDOW = 6


def in_huge(place: int) -> bool:
    """Whether a place is a cell of the huge window."""
    return CELLS <= place < CELLS + HUGE_WINDOW


def in_hugetlb(place: int) -> bool:
    """Whether a place is a huge page of hugetlb."""
    return HUGETLB <= place < HUGETLB + HUGETLB_WINDOW


def at(place: int) -> int:
    """The address of a place."""
    if in_huge(place):
        block, cell = divmod(place - CELLS, len(OFFSETS))
        return HUGE_BASE + block * HUGE_SIZE + OFFSETS[cell] * PAGE
    if in_hugetlb(place):
        return HUGETLB_BASE + (place - HUGETLB) * HUGE_SIZE
    return BASE + place * PAGE


def end_of(place: int) -> int:
    """The address behind a place."""
    if in_huge(place):
        block, cell = divmod(place - CELLS, len(OFFSETS))
        ends = (*OFFSETS[1:], BLOCK)
        return HUGE_BASE + block * HUGE_SIZE + ends[cell] * PAGE
    return at(place) + (HUGE_SIZE if in_hugetlb(place) else PAGE)


def size(place: int, places: int) -> int:
    """How many bytes so many places are, from one on."""
    return end_of(place + places - 1) - at(place)


def place_of(address: int) -> int:
    """The place that an address is in."""
    if HUGE_BASE <= address < HUGE_BASE + BLOCKS * HUGE_SIZE:
        block, into = divmod(address - HUGE_BASE, HUGE_SIZE)
        return CELLS + block * len(OFFSETS) + bisect_right(OFFSETS, into // PAGE) - 1
    if HUGETLB_BASE <= address < HUGETLB_BASE + HUGETLB_WINDOW * HUGE_SIZE:
        return HUGETLB + (address - HUGETLB_BASE) // HUGE_SIZE
    return (address - BASE) // PAGE


def room(place: int) -> int:
    """How many places there are in a window from one on."""
    for first, count in ((0, WINDOW), (CELLS, HUGE_WINDOW), (HUGETLB, HUGETLB_WINDOW)):
        if first <= place < first + count:
            return first + count - place
    return 1


def places_of(vma: Vma) -> range:
    """The places of a VMA."""
    return range(place_of(vma.vm_start), place_of(vma.vm_end - 1) + 1)


def told_of(vma: Vma) -> tuple[str, bool, bool]:
    """Protection, dontfork and wipeonfork of a VMA, as the oracle tells them."""
    flags = vma.vm_flags
    letters = "".join(
        letter for letter, bit in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC)) if flags & bit
    )
    return letters or "none", bool(flags & VM_DONTCOPY), bool(flags & VM_WIPEONFORK)


def number_of(data: bytes) -> int:
    """The value that a page's contents stand for."""
    return int.from_bytes(data[:8], "little")
