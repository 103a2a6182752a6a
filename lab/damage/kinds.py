# SPDX-License-Identifier: GPL-2.0-only
"""What a kind of damage is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lab.damage.scene import Scene


@dataclass(frozen=True, slots=True)
class Hurt:
    """What was damaged, and so what a finding has to name.

    `named` are numbers of which a finding's facts must have one: the address of the object, a
    page frame, an address in a process. `pids` are the processes of which it must name one; empty
    if nobody in particular is affected.
    """

    what: str
    named: frozenset[int]
    pids: frozenset[int]


def hurt(what: str, named: Iterable[int], pids: Iterable[int] = ()) -> Hurt:
    """Say what was damaged."""
    return Hurt(what, frozenset(int(one) for one in named), frozenset(pids))


#: Damages a dump. Raises `NotHere` if there is nothing to be damaged so.
Do = Callable[[Scene], Hurt]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of damage: its name, a sentence, what does it, and which checks have to find it."""

    name: str
    doc: str
    do: Do
    checks: frozenset[str]


#: All kinds by name, in the order in which they were told.
KINDS: dict[str, Kind] = {}


def kind(name: str, doc: str, *checks: str) -> Callable[[Do], Do]:
    """Register a kind of damage; one of `checks` (``check: kind of finding``) has to find it."""
    if name in KINDS:
        raise ValueError(f"there is a kind {name!r} already")

    def register(do: Do) -> Do:
        KINDS[name] = Kind(name, doc, do, frozenset(checks))
        return do

    return register
