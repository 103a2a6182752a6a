# SPDX-License-Identifier: GPL-2.0-only
"""What a reader met and could not follow, or what contradicts itself where only a reader sees it.

Links to no memory, loops, links back that lead elsewhere: an image has objects, not links, so a
reader of memory notes them as it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: A number (written in hexadecimal), words, or nothing where there is none.
Value = int | str


@dataclass(frozen=True, slots=True)
class Damage:
    """One object with something wrong.

    `kind` is one of ``missing`` (a link leads to no memory), ``loop`` (an object is met twice),
    ``back link``, ``range``, ``owner``, ``table``, ``order``, ``length``, ``unlisted``, ``slab``,
    ``entry``. `mm` is the row of the address space that is affected, -1 if another thing says so.
    """

    object: str
    address: int
    what: str
    kind: str = "missing"
    expected: Value = ""
    found: Value = ""
    mm: int = -1


def missing(kind: str, addresses: Iterable[int]) -> list[Damage]:
    """Objects that are not in the dump."""
    return [Damage(kind, int(at), "is not in the dump") for at in addresses]


def repeated(kind: str, addresses: Iterable[int], what: str = "is met twice in lists"
             ) -> list[Damage]:  # fmt: skip
    """Objects that are met again, where nothing may be met twice."""
    return [Damage(kind, int(at), what, "loop") for at in addresses]


def as_text(value: Value) -> str:
    """A value as the ``damage`` table has it."""
    return value if isinstance(value, str) else f"{value:#x}"
