# SPDX-License-Identifier: GPL-2.0-only
"""``rmap who -`` with the output of strings(1): whose memory is each text in?

Lines are ``OFFSET TEXT``, as ``strings -t d`` and ``-t x`` print them. They are read and answered a
few thousand at a time, so that it does not matter how many there are. The text is passed through
as it is, byte by byte; what stands before it comes from names that processes gave themselves, and
is made fit for a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from rmap.cli.common import missing, output, remark, say
from rmap.cli.output import Format
from rmap.errors import TargetError

if TYPE_CHECKING:
    from rmap.image import MemoryImage
    from rmap.query.spots import Spot

#: Lines that are answered together.
_BATCH = 8192
#: More of a line than this is not kept: what follows passes through without being looked at.
_LONGEST = 1 << 20
#: How strings(1) prints an offset: at the right of seven columns or more, and a blank.
_PADDED = re.compile(rb" *[0-9a-f]+(?<=[ 0-9a-f]{7}) (?=[^\r\n])")
_LINE = re.compile(rb"[ \t]*([0-9a-fA-F]+)[ \t]")
_LETTERS = re.compile(rb"[ ]*[0-9]*[a-f]")
_RADIX = {"d": 10, "x": 16, "o": 8}
_NAMES = {10: "decimal", 16: "hexadecimal", 8: "octal"}
_OFFSET_LIMIT = 1 << 64


class Radix(StrEnum):
    """What ``--strings`` takes."""

    DECIMAL = "d"
    HEXADECIMAL = "x"
    OCTAL = "o"


class Offsets(StrEnum):
    """What ``--offsets`` takes."""

    PHYSICAL = "physical"
    DUMP = "dump"


@dataclass(frozen=True)
class Texts:
    """Lines of strings(1), of which the first are read already, and how their offsets are meant."""

    first: Sequence[bytes]
    stream: BinaryIO
    radix: int
    guessed: bool

    def lines(self) -> Iterator[bytes]:
        """All lines; of one that is very long, pieces."""
        return chain(self.first, _lines(self.stream))


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return iter(partial(stream.readline, _LONGEST), b"")


def look_for_texts(stream: BinaryIO, radix: Radix | None) -> Texts | bytes:
    """Tell output of strings from a list of targets by its first lines.

    Returns
    -------
    The texts; or if these are targets, all of the stream.
    """
    first = list(islice(_lines(stream), _BATCH))
    if radix is not None:
        return Texts(first, stream, _RADIX[radix], False)
    some = [line for line in first if line.strip()]
    if not some or not all(map(_PADDED.match, some[:100])):
        return b"".join(first) + stream.read()
    letters = any(map(_LETTERS.match, some))
    return Texts(first, stream, 16 if letters else 10, True)


def print_texts(
    image: MemoryImage,
    texts: Texts,
    *,
    format: Format,
    offsets: Offsets,
    dump: Path | None,
    quiet: bool,
) -> int:
    """Print every line with what its memory is; returns the exit status.

    Raises
    ------
    TargetError
        If offsets of a dump are meant and there is none, or it is not an ELF file; or if an offset
        is not a number of the radix.
    """
    to_physical = _translation(offsets, dump)
    if texts.guessed:
        other = "d" if texts.radix == 16 else "x"
        remark(
            f"rmap who: offsets are taken to be {_NAMES[texts.radix]}; if they are not: "
            f"--strings {other}",
            quiet=quiet,
        )
    writer = _WRITERS[format](image)
    explain = _Explainer(image, to_physical)
    writer.begin()
    strange = 0
    for batch in _batches(texts):
        strange += sum(offset is None for offset, *_ in batch)
        writer.write(batch, explain.all(batch))
    writer.end()
    if strange:
        remark(f"rmap who: {strange} lines have no offset, and are as they were", quiet=quiet)
    return 0


#: A line: its offset (None if it has none), what stands before its text, and the text.
Line = tuple[int | None, bytes, bytes]


def _batches(texts: Texts) -> Iterator[list[Line]]:
    lines = texts.lines()
    goes_on = False
    number = 0
    while pieces := list(islice(lines, _BATCH)):
        batch: list[Line] = []
        for piece in pieces:
            if goes_on:
                batch.append((None, b"", piece))
            else:
                number += 1
                batch.append(_parse(piece, texts, number))
            goes_on = not piece.endswith(b"\n")
        yield batch


def _parse(line: bytes, texts: Texts, number: int) -> Line:
    found = _LINE.match(line)
    if found is None:
        return None, b"", line
    try:
        offset = int(found[1], texts.radix)
    except ValueError:
        raise TargetError(
            f"line {number}: {found[1].decode()[:40]} is no {_NAMES[texts.radix]} number; if "
            "offsets are of another kind: --strings d, x or o"
        ) from None
    if offset >= _OFFSET_LIMIT:
        return None, b"", line
    return offset, line[: found.end() - 1], line[found.end() :]


def _translation(offsets: Offsets, dump: Path | None) -> Callable[[Any], tuple[Any, Any]]:
    """From offsets to physical addresses, and whether each is one."""
    import numpy as np

    if offsets is Offsets.PHYSICAL:
        return lambda values: (values, np.ones(len(values), bool))
    if dump is None:
        raise TargetError("--offsets dump: offsets in which file? name it: --dump VMCORE")
    from rmap.source.dump.segments import read_segments

    return read_segments(dump).addresses


class Place(NamedTuple):
    """Where a line's text lies: its physical address, how far into the page, and which that is."""

    physical: int
    into: int
    spot: Spot


class _Explainer:
    """Explains lines; a page that many of them are in once."""

    def __init__(self, image: MemoryImage, to_physical: Callable[[Any], tuple[Any, Any]]) -> None:
        from rmap.query.spots import Spots

        self.spots = Spots(image)
        self.size = image.page_size
        self.to_physical = to_physical

    def all(self, batch: list[Line]) -> list[Place | None]:
        """Say of each line what its memory is."""
        import numpy as np

        offsets = np.array([offset or 0 for offset, *_ in batch], "u8")
        physical, there = self.to_physical(offsets)
        there &= np.array([offset is not None for offset, *_ in batch], bool)
        size = np.uint64(self.size)
        pages, numbers = np.unique(physical // size, return_inverse=True)
        wanted = np.zeros(len(pages), bool)
        wanted[numbers[there]] = True
        spots = dict(zip(np.flatnonzero(wanted).tolist(), self.spots.explain(pages[wanted]),
                         strict=True))  # fmt: skip
        into = (physical % size).tolist()
        return [
            Place(at, inside, spots[number]) if is_there else None
            for at, inside, number, is_there in zip(
                physical.tolist(), into, numbers.tolist(), there.tolist(), strict=True
            )
        ]


class _Lines:
    """For people: the offset, what is there, and the text, with tabs between them."""

    def __init__(self, image: MemoryImage) -> None:
        self._known: dict[int, tuple[str, int, list[tuple[str, int, str]]]] = {}

    def begin(self) -> None:
        """There is nothing above the first line."""

    def end(self) -> None:
        """Nor below the last."""

    def write(self, batch: list[Line], places: list[Place | None]) -> None:
        """Write some lines."""
        parts: list[bytes] = []
        self._known.clear()
        for (offset, before, text), place in zip(batch, places, strict=True):
            if offset is None:
                parts.append(text)
            else:
                said = self._say(place).encode("utf-8", "backslashreplace")
                parts.append(b"%b\t%b\t%b" % (before, said, text))
        output(b"".join(parts))

    def _say(self, place: Place | None) -> str:
        if place is None:
            return "of the dump itself, no memory"
        spot = place.spot
        # Spots live as long as their batch, and so do their numbers.
        known = self._known.get(id(spot))
        if known is None:
            known = self._known[id(spot)] = _prepare(spot)
        what, offset, mappings = known
        if offset >= 0:
            what = f"{what}{offset + place.into:#x}"
        if not mappings:
            return what
        into = place.into
        return f"{what}: " + "; ".join(
            [f"{who}{address + into:#x}{name}" for who, address, name in mappings]
        )


def _prepare(spot: Spot) -> tuple[str, int, list[tuple[str, int, str]]]:
    """What is said of a page, but for how far into it a text is."""
    from rmap.text import printable

    what = f"{spot.kind} {printable(spot.path)}+" if spot.offset >= 0 else spot.kind
    mappings = [
        (
            f"{','.join(map(str, one.pids)) or '?'} {printable(one.comm)} ",
            one.address,
            f" {printable(one.name)}" if one.name and one.name != spot.path else "",
        )
        for one in spot.mappings
    ]
    if spot.offset >= 0 and not mappings:
        return f"not mapped, {what}", spot.offset, mappings
    return what, spot.offset, mappings


def _facts(place: Place | None) -> tuple[int | None, str, str | None, int | None]:
    """The physical address, the kind, the file and the place in it."""
    if place is None:
        return None, "of the dump itself", None, None
    spot = place.spot
    if spot.offset < 0:
        return place.physical, spot.kind, None, None
    return place.physical, spot.kind, spot.path, spot.offset + place.into


def _text(data: bytes) -> str:
    return data.removesuffix(b"\n").decode("utf-8", "surrogateescape")


class _Json:
    """For programs: one object, whose list of lines is written as it is made."""

    def __init__(self, image: MemoryImage) -> None:
        self.facts = {"page_size": image.page_size, **missing(image)}
        self.between = ""

    def begin(self) -> None:
        """What stands before the lines."""
        import json

        facts = "".join(f'\n "{name}": {json.dumps(fact)},' for name, fact in self.facts.items())
        say(f'{{\n "schema": "rmap.texts/1",{facts}\n "texts": [')

    def end(self) -> None:
        """What stands behind them."""
        say(("\n " if self.between else "") + "]\n}\n", flush=True)

    def write(self, batch: list[Line], places: list[Place | None]) -> None:
        """Write some lines, each as an object."""
        import json

        parts = []
        for (offset, _, text), place in zip(batch, places, strict=True):
            if offset is None:
                continue
            physical, kind, path, where = _facts(place)
            row = {
                "offset": hex(offset),
                "physical": None if physical is None else hex(physical),
                "kind": kind,
                "path": path,
                "path_offset": None if where is None else hex(where),
                "mappings": [] if place is None else [
                    {"pids": list(one.pids), "comm": one.comm,
                     "address": hex(one.address + place.into), "name": one.name}
                    for one in place.spot.mappings
                ],
                "text": _text(text),
            }  # fmt: skip
            parts.append(f"{self.between}\n  {json.dumps(row)}")
            self.between = ","
        say("".join(parts))


class _Csv:
    """For programs: a row a mapping, or one for a text that nobody has."""

    _COLUMNS = (
        "offset", "physical", "kind", "path", "path_offset", "pids", "comm", "address", "name",
        "text",
    )  # fmt: skip

    def __init__(self, image: MemoryImage) -> None:
        del image

    def begin(self) -> None:
        """The names of the columns."""
        say(",".join(self._COLUMNS) + "\n")

    def end(self) -> None:
        """Nothing stands below the last row."""

    def write(self, batch: list[Line], places: list[Place | None]) -> None:
        """Write some lines as rows."""
        import csv
        import io

        from rmap.text import printable

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for (offset, _, text), place in zip(batch, places, strict=True):
            if offset is None:
                continue
            physical, kind, path, where = _facts(place)
            head = (
                hex(offset), "" if physical is None else hex(physical), kind,
                printable(path or ""), "" if where is None else hex(where),
            )  # fmt: skip
            shown = printable(_text(text))
            if place is None or not place.spot.mappings:
                writer.writerow((*head, "", "", "", "", shown))
                continue
            writer.writerows(
                (*head, " ".join(map(str, one.pids)), printable(one.comm),
                 hex(one.address + place.into), printable(one.name), shown)
                for one in place.spot.mappings
            )  # fmt: skip
        say(out.getvalue())


_WRITERS: dict[Format, Callable[[Any], _Lines | _Json | _Csv]] = {
    Format.TABLE: _Lines, Format.JSON: _Json, Format.CSV: _Csv,
}  # fmt: skip
