# SPDX-License-Identifier: GPL-2.0-only
"""What a check finds, and the list of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmap.check.recount import Recount


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must be so in every machine at rest, and is not.

    `invariant` is the name of an `Invariant`, `what` one line that says where and how.
    """

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


#: Looks at a recount, and tells in a line each what does not hold.
Check = Callable[["Recount"], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """One invariant: its name, a sentence that states it, and what checks it."""

    name: str
    doc: str
    run: Check


#: All invariants by name, in the order in which they are checked.
INVARIANTS: dict[str, Invariant] = {}


def invariant(name: str, doc: str) -> Callable[[Check], Check]:
    """Register a check; the decorated function stays as it is.

    Raises ``ValueError`` if the name is taken.
    """
    if name in INVARIANTS:
        raise ValueError(f"there is an invariant {name!r} already")

    def register(run: Check) -> Check:
        INVARIANTS[name] = Invariant(name, doc, run)
        return run

    return register
