# SPDX-License-Identifier: GPL-2.0-only
"""How a line is read: what each word of it has to be, and what is said if it is not.

A `Spec` describes one kind of line (``mmap PROCESS REGION LENGTH KIND [ro] [at:N]``) by its
parameters, in order, and its options, in any order after the required parameters. `bind` makes
values of words. What stands in the tables `rmap.scenario.statements` and
`rmap.scenario.quantities` is all there is to know about the language; docs/scenarios.md is
compared with them by a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmap.scenario.errors import WordError
from rmap.scenario.expression import number_of
from rmap.scenario.limits import NUMBER, PAGE_NUMBER
from rmap.scenario.words import Word

_NAME = re.compile(r"[A-Za-z_\[][A-Za-z0-9_.\-\[\]]{0,62}")
#: What is mapped without a file; those of hugetlb are in huge pages out of a pool.
_PLAIN_KINDS = (
    "anon", "shared", "stack", "hugetlb", "hugetlbshared", "hugetlb1G", "hugetlb1Gshared",
)  # fmt: skip
_PATH = re.compile(r"[A-Za-z_/][A-Za-z0-9_.\-/]{0,254}")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a word may be: its name in the usage, and the conversion of its text."""

    name: str
    convert: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: its key among the values, what it may be, and whether it may be left out."""

    key: str
    kind: Kind
    optional: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One kind of line.

    ``flags`` are words that stand for a value of a key; ``keyed`` are options ``key:VALUE``.
    ``operates`` is true for what counts as an operation: it changes or asks the machine's memory.
    """

    name: str
    summary: str
    params: tuple[Param, ...] = ()
    flags: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    keyed: Mapping[str, Kind] = field(default_factory=dict)
    operates: bool = True

    @property
    def usage(self) -> str:
        """The line as a manual shows it."""
        parts = [self.name]
        parts += [f"[{p.kind.name}]" if p.optional else p.kind.name for p in self.params]
        by_key: dict[str, list[str]] = {}
        for word, (key, _) in self.flags.items():
            by_key.setdefault(key, []).append(word)
        parts += [f"[{'|'.join(words)}]" for words in by_key.values()]
        parts += [f"[{key}:{kind.name}]" for key, kind in self.keyed.items()]
        return " ".join(parts)

    @property
    def required(self) -> int:
        """How many words it needs after its name."""
        return sum(not param.optional for param in self.params)


Values = dict[str, Any]


def bind(spec: Spec, words: Sequence[Word]) -> Values:
    """Return the values of a line's words, by the keys of its parameters and options.

    A word with holes is taken on trust where one may stand, and has no value: what is the same
    everywhere is checked before anything runs, the rest when its holes are filled.

    Raises
    ------
    WordError
        Saying which word is wrong, and what the line should look like.
    """
    values: Values = {param.key: param.default for param in spec.params}
    if len(words) < spec.required:
        missing = spec.params[len(words)].kind.name
        raise WordError(f"{missing} is missing; the line is: {spec.usage}")
    for param, word in zip(spec.params, words[: spec.required], strict=False):
        values[param.key] = _convert(spec, param.kind, word)
    waiting = [param for param in spec.params if param.optional]
    for word in words[spec.required :]:
        _bind_option(spec, word, waiting, values)
    return values


def _bind_option(spec: Spec, word: Word, waiting: list[Param], values: Values) -> None:
    """Give one of the words after the required ones its place."""
    key, colon, rest = word.text.partition(":")
    if word.is_literal and word.text in spec.flags:
        name, value = spec.flags[word.text]
        values[name] = value
    elif colon and key in spec.keyed:
        values[key] = _convert(spec, spec.keyed[key], Word(rest, word.pieces))
    elif waiting:
        param = waiting.pop(0)
        values[param.key] = _convert(spec, param.kind, word)
    elif word.is_literal:
        raise WordError(f"{word.text!r} is one word too many; the line is: {spec.usage}")


def _convert(spec: Spec, kind: Kind, word: Word) -> Any:
    if not word.is_literal:
        return None
    try:
        return kind.convert(word.text)
    except WordError as error:
        raise WordError(f"{error}; the line is: {spec.usage}") from None


def name_of(what: str) -> Callable[[str], str]:
    """Return a conversion that takes a name of something."""

    def convert(text: str) -> str:
        if not _NAME.fullmatch(text):
            raise WordError(
                f"{text!r} cannot be the name of a {what}: letters, digits, _ . - and brackets, "
                "a letter first, at most 63"
            )
        return text

    return convert


def path_of(what: str) -> Callable[[str], str]:
    """Return a conversion that takes the name of a file or of a cgroup, slashes included."""

    def convert(text: str) -> str:
        if not _PATH.fullmatch(text):
            raise WordError(
                f"{text!r} cannot be the name of a {what}: letters, digits, _ . - and /, a letter "
                "or a / first, at most 255"
            )
        return text

    return convert


def number_in(low: int, high: int, what: str) -> Callable[[str], int]:
    """Return a conversion that takes a number between two bounds, both included."""

    def convert(text: str) -> int:
        value = number_of(text)
        if not low <= value <= high:
            raise WordError(f"{what} {text} is not between {low} and {high}")
        return value

    return convert


def one_of(what: str, choices: Sequence[str]) -> Callable[[str], str]:
    """Return a conversion that takes one of a few words."""

    def convert(text: str) -> str:
        if text not in choices:
            raise WordError(f"{text!r} is no {what}; there are {', '.join(choices)}")
        return text

    return convert


@dataclass(frozen=True, slots=True)
class MapKind:
    """What a mapping maps: ``kind`` as the model calls it, and for a file its name and offset."""

    kind: str
    file: str | None = None
    pgoff: int = 0


def map_kind(text: str) -> MapKind:
    """Convert ``anon``, ``shared``, ``stack``, ``hugetlb``, ``file:F:N`` and their like."""
    kind, *rest = text.split(":")
    if kind in _PLAIN_KINDS and not rest:
        return MapKind(kind)
    if kind in ("file", "fileprivate") and len(rest) == 2:
        return MapKind(kind, FILE.convert(rest[0]), PGOFF.convert(rest[1]))
    raise WordError(
        f"{text!r} is nothing that can be mapped; write {', '.join(_PLAIN_KINDS)}, file:F:PGOFF or "
        "fileprivate:F:PGOFF"
    )


PROCESS = Kind("PROCESS", name_of("process"))
REGION = Kind("REGION", name_of("region"))
FILE = Kind("FILE", path_of("file"))
CGROUP = Kind("CGROUP", path_of("cgroup"))
OFFSET = Kind("OFF", number_in(-PAGE_NUMBER, PAGE_NUMBER, "the offset"))
LENGTH = Kind("LEN", number_in(0, PAGE_NUMBER, "the length"))
PLACE = Kind("N", number_in(0, PAGE_NUMBER, "the page number"))
PGOFF = Kind("PGOFF", number_in(0, PAGE_NUMBER, "the offset in the file"))
COUNT = Kind("N", number_in(0, NUMBER, "the number"))
KIND = Kind("KIND", map_kind)
