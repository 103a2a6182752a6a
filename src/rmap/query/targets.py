# SPDX-License-Identifier: GPL-2.0-only
"""What a user asks for: parses the targets of ``rmap who``.

=====================  ======================================================================
``PID``                everything that the process has in its page tables
``PID:ADDR``           the page that holds this address
``PID:ADDR+LEN``       the pages that hold these bytes; ``PID:ADDR,END`` likewise, END excluded
``FILE``               every page of the file that somebody maps
``FILE@OFFSET+LEN``    the pages that hold these bytes; ``FILE@OFFSET,END``, and
                       ``FILE@OFFSET,`` for all from there on
``pfn:N``              a page frame; ``pfn:N+M`` for M of them, ``pfn:N,M`` up to M, excluded
``phys:ADDR``          the page that holds this physical address, as a memory-error report has
                       it; ``phys:ADDR+LEN``, ``phys:ADDR,END``
=====================  ======================================================================

Numbers are decimal, or hexadecimal with ``0x``. Addresses, offsets and lengths are bytes and may
end in K, M or G (1024s). PIDs are decimal.

A path may hold ``@`` and ``:``. What follows its last ``@`` is a range only if it reads as one; a
file called ``a@0+1`` is ``a@0+1@0,``. A file called like a number, or like one of the other
forms, is ``./123``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from rmap.errors import TargetError

FORMS = (
    "PID, PID:ADDR, PID:ADDR+LEN, PID:ADDR,END, FILE, FILE@OFFSET+LEN, FILE@OFFSET,END, "
    "pfn:N, pfn:N+M, pfn:N,M, phys:ADDR, phys:ADDR+LEN"
)
#: Bytes and addresses end here, and pids there (``PID_MAX_LIMIT`` is far below).
_ADDRESS_LIMIT = 1 << 64
_PID_LIMIT = 1 << 31
#: More of a wrong target than this is not shown.
_SHOWN = 80

_NUMBER = re.compile(r"(?:0[xX]([0-9a-fA-F]{1,32})|([0-9]{1,32}))([KMGkmg]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class _Named:
    """``text`` is what the user wrote; two targets are equal if they mean the same."""

    text: str = field(default="", compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", str(self))


@dataclass(frozen=True, slots=True)
class ProcessTarget(_Named):
    """Addresses ``[start, end)`` of a process; all that it has mapped if both are ``None``."""

    pid: int
    start: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        if self.start is None or self.end is None:
            return str(self.pid)
        return f"{self.pid}:{_span(self.start, self.end)}"


@dataclass(frozen=True, slots=True)
class FileTarget(_Named):
    """Bytes ``[start, end)`` of a file; ``end`` is ``None`` for all from ``start`` on."""

    path: str
    start: int = 0
    end: int | None = None

    def __str__(self) -> str:
        if self.start or self.end is not None or _split_path(self.path)[1]:
            return f"{self.path}@{self.start:#x},{'' if self.end is None else f'{self.end:#x}'}"
        return self.path


@dataclass(frozen=True, slots=True)
class FrameTarget(_Named):
    """Page frames ``[start, end)``."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"pfn:{_span(self.start, self.end)}"


@dataclass(frozen=True, slots=True)
class PhysicalTarget(_Named):
    """Physical addresses ``[start, end)``, in bytes."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"phys:{_span(self.start, self.end)}"


Target = ProcessTarget | FileTarget | FrameTarget | PhysicalTarget


def _span(start: int, end: int) -> str:
    """Write a range so that parsing it gives the same again."""
    return f"{start:#x}" if end == start + 1 else f"{start:#x},{end:#x}"


class _Malformed(Exception):
    """Some text is not a target; says why in a few words."""


def parse_target(text: str) -> Target:
    """Parse one target.

    Raises
    ------
    TargetError
        With what is wrong with it, and the accepted forms.

    >>> parse_target("4711:0x400000+8K")
    ProcessTarget(text='4711:0x400000+8K', pid=4711, start=4194304, end=4202496)
    >>> parse_target("/var/lib/a@b").path
    '/var/lib/a@b'
    """
    try:
        return replace(_parse(text), text=text)
    except _Malformed as reason:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise TargetError(f"not a target: {shown!r}: {reason}; accepted: {FORMS}") from None


def parse_targets(lines: Iterable[str]) -> list[Target]:
    """Parse one target a line; blank lines and lines that begin with ``#`` are skipped.

    Raises
    ------
    TargetError
        With the number of the line.

    >>> parse_targets(["# from the log", "pfn:0x10+2", ""])
    [FrameTarget(text='pfn:0x10+2', start=16, end=18)]
    """
    targets = []
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t\r\n")
        if text and not text.startswith("#"):
            try:
                targets.append(parse_target(text))
            except TargetError as error:
                raise TargetError(f"line {number}: {error}") from None
    return targets


def _parse(text: str) -> Target:
    if not text:
        raise _Malformed("it is empty")
    if "\0" in text:
        raise _Malformed("it holds a NUL byte")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "pfn":
        return FrameTarget(*_range(rest, _plain_number))
    if colon and scheme == "phys":
        return PhysicalTarget(*_range(rest, _number))
    if re.fullmatch(r"[0-9]+", scheme):
        pid = _pid(scheme)
        return ProcessTarget(pid, *_range(rest, _number)) if colon else ProcessTarget(pid)
    if _NUMBER.fullmatch(text):
        raise _Malformed("a bare hexadecimal number: write pfn:, phys:, or ./ for a file")
    path, span = _split_path(text)
    if not span:
        return FileTarget(text)
    return FileTarget(path, *_file_range(span))


def _pid(digits: str) -> int:
    pid = int(digits) if len(digits) <= len(str(_PID_LIMIT)) else _PID_LIMIT
    if not 0 < pid < _PID_LIMIT:
        raise _Malformed("no process can have this id (for a file of this name, write ./ first)")
    return pid


def _split_path(text: str) -> tuple[str, str]:
    """Return a path and what follows its last ``@``, if that reads as a range; else ``""``."""
    path, at, span = text.rpartition("@")
    parts = re.fullmatch(rf"{_NUMBER.pattern}(?:\+{_NUMBER.pattern}|,(?:{_NUMBER.pattern})?)", span)
    return (path, span) if at and path and parts else (text, "")


def _file_range(span: str) -> tuple[int, int | None]:
    if not span.endswith(","):
        return _range(span, _number)
    start = _number(span[:-1])
    if start >= _ADDRESS_LIMIT:
        raise _Malformed("the range begins beyond 64 bits")
    return start, None


def _range(text: str, number: Callable[[str], int]) -> tuple[int, int]:
    """Parse ``START``, ``START+LENGTH`` or ``START,END``; a mere START means that one only."""
    first, sign, second = text, "", ""
    if found := re.search(r"[+,]", text):
        first, sign, second = text[: found.start()], found.group(), text[found.end() :]
    start = number(first)
    if not sign:
        end = start + 1
    else:
        end = number(second) + (start if sign == "+" else 0)
    if end <= start:
        raise _Malformed("the range is empty")
    if end > _ADDRESS_LIMIT:
        raise _Malformed("the range ends beyond 64 bits")
    return start, end


def _number(text: str) -> int:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise _Malformed(f"{text[:_SHOWN]!r} is not a number" if text else "a number is missing")
    hexadecimal, decimal, unit = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return value * _UNITS[unit.upper()]


def _plain_number(text: str) -> int:
    if text[-1:] in "KMGkmg" and text:
        raise _Malformed("page frames are counted without a unit")
    return _number(text)
