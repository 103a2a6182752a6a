# SPDX-License-Identifier: GPL-2.0-only
"""The language of the corpus: programs of processes that map, touch, fork and unmap memory.

One operation a line; ``#`` starts a comment. Processes are ``P0`` (there from the start), ``P1``,
...; offsets and lengths are in pages. Operations are numbered from 1.

======================================  ===========================================================
``mmap P R len KIND [ro|none] [at:N]``  map region R; KIND is ``anon``, ``shared``,
                                        ``file:F:pgoff`` or ``fileprivate:F:pgoff``
``munmap P R off len``
``write P R off len``                   store the operation's number at the start of each page
``read P R off len``
``fork P Q``, ``exit P``
``mprotect P R off len r|rw|none``
``mremap P R off len N [newlen]``       move to the start of region N (``dontunmap``, ``at:N``)
``madvise P R off len ADVICE``          by the names of `ADVICE`
``mlock P R off len``, ``munlock ...``
======================================  ===========================================================

A region's name stands for one page number in all processes, given by the first mmap or mremap that
names it: ``at:N``, else the next multiple of 128. Page numbers count from the start of the arena.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Pages from one region to the next, where a program does not say.
STRIDE = 128
#: Every named file has this many pages, all holes at the start.
FILE_PAGES = 128

KINDS = ("anon", "shared", "file", "fileprivate")
PROTECTIONS = ("none", "r", "rw")
ADVICE = (
    "dontneed",
    "free",
    "dontfork",
    "dofork",
    "wipeonfork",
    "keeponfork",
    "mergeable",
    "unmergeable",
    "hugepage",
    "nohugepage",
)


class LanguageError(ValueError):
    """A line that is no operation: the message names it and says what is wrong."""


@dataclass(frozen=True)
class Operation:
    """One line of a program. Fields that the operation has no use for keep their defaults.

    `page` and `length` are what it is applied to, in pages of the arena.
    """

    number: int
    text: str
    name: str
    process: int
    page: int = 0
    length: int = 0
    kind: str = ""
    file: str = ""
    pgoff: int = 0
    protection: str = "rw"
    advice: str = ""
    child: int = -1
    new_page: int = 0
    new_length: int = 0
    dontunmap: bool = False


def parse(text: str) -> list[Operation]:
    """Return the operations of a program. Raises `LanguageError` naming the first bad line."""
    operations: list[Operation] = []
    regions: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            operations.append(_operation(len(operations) + 1, words, regions))
        except LanguageError as error:
            raise LanguageError(f"line {number}: {line.strip()}: {error}") from None
        except (ValueError, IndexError):
            raise LanguageError(f"line {number}: {line.strip()}: not as documented") from None
    return operations


def _operation(number: int, words: list[str], regions: dict[str, int]) -> Operation:
    """Parse one operation; places the regions that it names first."""
    name, rest = words[0], words[1:]
    text = " ".join(words)
    process = _process(rest[0])
    if name == "exit":
        return Operation(number, text, name, process)
    if name == "fork":
        return Operation(number, text, name, process, child=_process(rest[1]))
    if name == "mmap":
        return _mmap(number, text, process, rest[1:], regions)
    if rest[1] not in regions:
        raise LanguageError(f"no region {rest[1]} so far")
    page, length = regions[rest[1]] + int(rest[2]), int(rest[3])
    if name in ("munmap", "write", "read", "mlock", "munlock"):
        return Operation(number, text, name, process, page, length)
    if name == "mprotect":
        protection = _one_of(rest[4], PROTECTIONS)
        return Operation(number, text, name, process, page, length, protection=protection)
    if name == "madvise":
        advice = _one_of(rest[4], ADVICE)
        return Operation(number, text, name, process, page, length, advice=advice)
    if name == "mremap":
        options = rest[5:]
        lengths = [int(word) for word in options if word.isdigit()]
        _known(options, "dontunmap")
        return Operation(
            number,
            text,
            name,
            process,
            page,
            length,
            new_page=_place(rest[4], options, regions),
            new_length=lengths[-1] if lengths else length,
            dontunmap="dontunmap" in options,
        )
    raise LanguageError(f"no operation {name}")


def _mmap(
    number: int, text: str, process: int, rest: list[str], regions: dict[str, int]
) -> Operation:
    """Parse ``R len KIND [ro|none] [at:N]``."""
    kind, *backing = rest[2].split(":")
    _one_of(kind, KINDS)
    if len(backing) != (2 if kind.startswith("file") else 0):
        raise LanguageError(f"{rest[2]}: a file and its page, as file:F:0, or neither")
    options = rest[3:]
    _known(options, "ro", "none")
    protection = "r" if "ro" in options else "none" if "none" in options else "rw"
    return Operation(
        number,
        text,
        "mmap",
        process,
        page=_place(rest[0], options, regions),
        length=int(rest[1]),
        kind=kind,
        file=backing[0] if backing else "",
        pgoff=int(backing[1]) if backing else 0,
        protection=protection,
    )


def _process(word: str) -> int:
    """Parse ``P7``."""
    if word[:1] != "P" or not word[1:].isdigit():
        raise LanguageError(f"{word} is no process; they are called P0, P1, ...")
    return int(word[1:])


def _one_of(word: str, words: tuple[str, ...]) -> str:
    """Return a word that is one of `words`."""
    if word not in words:
        raise LanguageError(f"{word} is none of {', '.join(words)}")
    return word


def _known(options: list[str], *words: str) -> None:
    """Insist that options are among `words`, numbers, or ``at:N``."""
    for option in options:
        if option not in words and not option.isdigit() and not option.startswith("at:"):
            raise LanguageError(f"{option} is no option here")


def _place(region: str, options: list[str], regions: dict[str, int]) -> int:
    """Return the page of a region, placing it if it was not named before."""
    told = [int(option[3:]) for option in options if option.startswith("at:")]
    place = regions.setdefault(region, told[0] if told else STRIDE * (1 + len(regions)))
    if told and told[0] != place:
        raise LanguageError(f"region {region} is at {place} already")
    return place
