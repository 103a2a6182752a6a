# SPDX-License-Identifier: GPL-2.0-only
"""A parsed scenario: statements in blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from rmap.scenario.errors import Place
from rmap.scenario.expression import Expression
from rmap.scenario.grammar import Spec, Values
from rmap.scenario.words import Word


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the tables: its words, and its values if no word has holes."""

    place: Place
    text: str
    spec: Spec
    words: tuple[Word, ...]
    values: Values | None


@dataclass(frozen=True, slots=True)
class Query:
    """A quantity, with the words that say of what."""

    text: str
    spec: Spec
    words: tuple[Word, ...]
    values: Values | None


Side = Expression | Query


@dataclass(frozen=True, slots=True)
class Condition:
    """``LEFT OPERATOR RIGHT``, or ``[not] LEFT``, which compares with 0."""

    text: str
    left: Side
    operator: str
    right: Side


@dataclass(frozen=True, slots=True)
class Let:
    """``let NAME = ...``: a number, one of some words, or any living process."""

    place: Place
    text: str
    name: str
    side: Side | None = None
    words: tuple[Word, ...] = ()
    any_process: bool = False


@dataclass(frozen=True, slots=True)
class Print:
    """``print TEXT``."""

    place: Place
    text: str
    word: Word


@dataclass(frozen=True, slots=True)
class Expect:
    """``expect CONDITION``."""

    place: Place
    text: str
    condition: Condition


#: The outcome that ``try STATEMENT`` expects: it may fail, and nothing is said if it does.
ANY = "any"


@dataclass(frozen=True, slots=True)
class ExpectOutcome:
    """``expect OUTCOME: STATEMENT``, or ``try STATEMENT``."""

    place: Place
    text: str
    outcome: str
    call: Call


@dataclass(frozen=True, slots=True)
class Stop:
    """``stop``: the scenario ends here."""

    place: Place
    text: str


@dataclass(slots=True)
class Repeat:
    """``repeat N``."""

    place: Place
    text: str
    count: Side
    body: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class For:
    """``for NAME in A..B``, both included, or ``for NAME in WORD...``."""

    place: Place
    text: str
    name: str
    low: Expression | None
    high: Expression | None
    words: tuple[Word, ...]
    body: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Choose:
    """``choose [WEIGHT] ... or [WEIGHT] ... end``: one branch, by chance."""

    place: Place
    text: str
    branches: list[tuple[int, list[Node]]] = field(default_factory=list)


@dataclass(slots=True)
class If:
    """``if CONDITION ... else ... end``."""

    place: Place
    text: str
    condition: Condition
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


Node = Call | Let | Print | Expect | ExpectOutcome | Stop | Repeat | For | Choose | If


@dataclass(frozen=True, slots=True)
class Program:
    """A scenario: the name it was read under, its settings, its statements.

    ``title`` is its first comment line, ``settings`` the lines about the machine.
    """

    file: str
    title: str
    settings: tuple[Call, ...]
    body: tuple[Node, ...]
