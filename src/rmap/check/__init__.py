# SPDX-License-Identifier: GPL-2.0-only
"""What must be so in every machine at rest, counted again from scratch.

The kernel keeps the same facts in several places: page tables and page counts, VMAs and trees,
lists and their sizes. A reverse map that is right is one in which they agree. `check_kernel` reads
page tables, trees and lists from their roots (`rmap.check.recount`) and compares; it never
believes a counter. The invariants are those of `INVARIANTS`, each with a name and a sentence.

>>> from rmap.mm.mm_types import Kernel
>>> from rmap.mm.profile import profile
>>> k = Kernel(16, profile("4.18"))
>>> check_kernel(k)
[]
>>> k.pg_mapcount[3] = 0
>>> print(check_kernel(k)[0])
mapcount: page 0x3: mapcount 1, 0 entries map it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rmap.check import (
    compound,
    counters,
    hugetlb,
    leaks,
    merged,
    pages,
    topology,
    translations,
    trees,
    waiting,
)
from rmap.check.leaks import leftovers
from rmap.check.recount import Recount
from rmap.check.translations import FlushViolation, FlushWatch
from rmap.check.violation import INVARIANTS, Invariant, Violation
from rmap.mm.mm_types import Kernel

__all__ = [
    "INVARIANTS",
    "FlushViolation",
    "FlushWatch",
    "Invariant",
    "Recount",
    "Violation",
    "check_kernel",
    "compound",
    "counters",
    "hugetlb",
    "leaks",
    "leftovers",
    "merged",
    "pages",
    "topology",
    "translations",
    "trees",
    "waiting",
]


def check_kernel(
    kernel: Kernel, pins: Mapping[int, int] | None = None, only: Collection[str] = ()
) -> list[Violation]:
    """Return everything that does not hold.

    Parameters
    ----------
    kernel
        Must be at rest: no operation under way.
    pins
        References held from outside the kernel (get_user_pages), by page frame number. If they
        are not given, a page may have more references than are found.
    only
        Names of `INVARIANTS`; without any, all.

    Raises ``KeyError`` for a name that is none.
    """
    facts = Recount(kernel, pins)
    chosen = [INVARIANTS[name] for name in only] if only else list(INVARIANTS.values())
    return [Violation(one.name, what) for one in chosen for what in one.run(facts)]
