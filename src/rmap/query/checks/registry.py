# SPDX-License-Identifier: GPL-2.0-only
"""What a check of ``rmap fsck`` is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rmap.image import MemoryImage

#: Values that a finding may carry, all of which JSON knows.
Fact = int | str


@dataclass(frozen=True, slots=True)
class Mapper:
    """One page-table entry that a finding is about."""

    pids: tuple[int, ...]  #: processes of the address space, ascending
    comm: str  #: command of the first of them
    address: int  #: where it maps the page


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be true of a sound machine."""

    check: str
    what: str  #: one line for people
    facts: Mapping[str, Fact]  #: the same for programs; the names depend on the check
    mappers: tuple[Mapper, ...] = ()
    relation: str = "mapped by"  #: what the mappers are to it, in words


@dataclass(frozen=True, slots=True)
class Tally:
    """How many things of one kind got one verdict."""

    verdict: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found in one image.

    ``total`` is the number of findings, of which ``findings`` has the first: at most as many as
    were asked for. ``hidden`` bounds what the check could not see, in the unit of its sentence
    in ``blind_spot``. A check that could not run at all says why in ``skipped``.
    """

    unit: str  #: what ``examined`` and the tallies count: pages, entries, counters, slots
    examined: int = 0
    tallies: tuple[Tally, ...] = ()
    total: int = 0
    findings: tuple[Finding, ...] = ()
    hidden: int = 0
    blind_spot: str = ""
    skipped: str = ""


#: Examines an image; returns at most the given number of findings, and counts them all.
Run = Callable[[MemoryImage, int], Outcome]


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, a sentence about it, and what does it."""

    name: str
    doc: str
    run: Run


#: All checks by name, in the order in which they run.
CHECKS: dict[str, Check] = {}


def check(name: str, doc: str) -> Callable[[Run], Run]:
    """Register a check. The decorated function stays as it is.

    Raises
    ------
    ValueError
        If there is a check of that name already.

    >>> @check("nothing", "finds nothing")
    ... def nothing(image, limit):
    ...     return Outcome("pages")
    >>> CHECKS.pop("nothing").doc
    'finds nothing'
    """
    if name in CHECKS:
        raise ValueError(f"there is a check {name!r} already")

    def register(run: Run) -> Run:
        CHECKS[name] = Check(name, doc, run)
        return run

    return register
