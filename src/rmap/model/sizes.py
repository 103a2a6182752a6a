# SPDX-License-Identifier: GPL-2.0-only
"""Sizes of memory, told in pages or as people write them."""

from __future__ import annotations

from rmap.mm.bits import PAGE_SIZE

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def pages_of(size: int | str) -> int:
    """Return a size in pages: a number is pages already, text is bytes with an optional unit.

    >>> pages_of(16), pages_of("64M"), pages_of("8192")
    (16, 16384, 2)

    Raises ``ValueError`` for text that is no size, or not a whole number of pages.
    """
    if isinstance(size, int):
        return size
    text = size.strip().upper().removesuffix("IB").removesuffix("B")
    unit = UNITS.get(text[-1:], 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isdecimal():
        raise ValueError(f"{size!r} is no size; write 64M, 2G, or a number of pages")
    if int(digits) * unit % PAGE_SIZE:
        raise ValueError(f"{size!r} is not a whole number of pages of {PAGE_SIZE} bytes")
    return int(digits) * unit // PAGE_SIZE
