# SPDX-License-Identifier: GPL-2.0-only
"""One way out for every command: records with typed columns, as a table, as JSON or as CSV.

============  =====================================================================
table         for people: numbers with units (plain with ``--raw``), text escaped
json          ``{"schema": "rmap.who/1", ...}``: plain numbers, exact text
csv           one table with a header line: plain numbers, text escaped
============  =====================================================================

Addresses, page frame numbers and flag words are hexadecimal in all three, in JSON as strings: the
number of a JSON reader is often a double, which holds 53 bits. A value that is not known is ``-``
in a table, ``null`` in JSON and empty in CSV. The order of keys, rows and tables is part of the
schema; the same image gives the same bytes. A change that could break a reader raises the number
at the end of the schema's name.

What is not a terminal gets lines as wide as they need to be: nothing is cut or folded there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import IO, Any

from rmap.text import human_bytes, printable

#: Rich lays a table out cell by cell, ~50 us each: longer ones are printed plainly.
_RICH_ROWS = 1000
_GAP = "  "


class Format(StrEnum):
    """What ``--format`` takes."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Unit(Enum):
    """What a column holds: decides how its values are written and aligned."""

    TEXT = "text"
    COUNT = "count"
    BYTES = "bytes"
    HEX = "hex"
    RATIO = "ratio"
    BOOL = "bool"

    @property
    def is_right(self) -> bool:
        """Whether values stand at the right of their column."""
        return self in (Unit.COUNT, Unit.BYTES, Unit.HEX, Unit.RATIO)


class Audience(Enum):
    """Whom a table is for: a matrix is for people, the same as pairs for programs."""

    ALL = "all"
    PEOPLE = "people"  # --format table
    PROGRAMS = "programs"  # --format json and csv


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its key in JSON and CSV, its title in a table, and what it holds.

    A ``detail`` is left out of tables: people get what fits on a screen.
    """

    key: str
    title: str
    unit: Unit = Unit.TEXT
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Records:
    """Rows of equal shape: a table, a list of JSON objects, or a CSV file.

    ``rows`` are sequences of plain Python values, one for each column; ``None`` is unknown.
    ``title`` stands above the table, ``notes`` are lines below it.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    notes: Sequence[str] = ()
    audience: Audience = Audience.ALL
    #: Rows for people at the end, such as a total; programs find them among the facts.
    footer: Sequence[Sequence[Any]] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What a command answers: facts (single values), then tables; CSV holds the first."""

    schema: str
    tables: Sequence[Records]
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Lines above and below the tables, for people only.
    heading: Sequence[str] = ()
    notes: Sequence[str] = ()


def write(
    document: Document,
    format: Format,
    *,
    raw: bool = False,
    out: IO[str] | None = None,
) -> None:
    """Write ``document`` to ``out`` (standard output)."""
    out = sys.stdout if out is None else out
    if format is Format.JSON:
        _write_json(document, out)
    elif format is Format.CSV:
        _write_csv(document.tables[0], out)
    else:
        _write_tables(document, raw, out)


def cell(value: Any, unit: Unit, *, raw: bool = False) -> str:
    """Return a value as a table shows it.

    >>> cell(4096, Unit.BYTES), cell(4096, Unit.BYTES, raw=True), cell(255, Unit.HEX)
    ('4.0 KiB', '4096', '0xff')
    """
    if value is None:
        return "-"
    if value == "":  # said in the row above
        return ""
    if unit is Unit.BYTES and not raw:
        return human_bytes(value)
    if unit is Unit.RATIO and not raw:
        return f"{100 * value:.1f} %"
    if unit is Unit.BOOL and not raw:
        return "yes" if value else "no"
    return _plain(value, unit)


def _plain(value: Any, unit: Unit) -> str:
    """Return a value as CSV holds it."""
    if value is None:
        return ""
    if unit is Unit.HEX:
        return hex(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return printable(" ".join(str(item) for item in value))
    return printable(str(value))


def _write_json(document: Document, out: IO[str]) -> None:
    """Write one object: one row a line, so that a diff of two answers is readable."""
    import json

    members = [("schema", json.dumps(document.schema))]
    members += [(key, json.dumps(value)) for key, value in document.facts.items()]
    for table in document.tables:
        if table.audience is Audience.PEOPLE:
            continue
        rows = ",\n  ".join(json.dumps(row) for row in _json_rows(table))
        members.append((table.name, f"[\n  {rows}\n ]" if rows else "[]"))
    body = ",\n ".join(f"{json.dumps(key)}: {text}" for key, text in members)
    out.write(f"{{\n {body}\n}}\n")


def _json_rows(table: Records) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        yield {
            column.key: hex(value) if column.unit is Unit.HEX and value is not None else value
            for column, value in zip(table.columns, row, strict=True)
        }


def _write_csv(table: Records, out: IO[str]) -> None:
    import csv

    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.key for column in table.columns)
    units = [column.unit for column in table.columns]
    for row in table.rows:
        writer.writerow(_plain(value, unit) for value, unit in zip(row, units, strict=True))


def _write_tables(document: Document, raw: bool, out: IO[str]) -> None:
    if document.heading:
        out.writelines(f"{printable(line)}\n" for line in document.heading)
    shown = [table for table in document.tables if table.audience is not Audience.PROGRAMS]
    separate = bool(document.heading)
    for table in shown:
        if not (table.title or table.rows or table.notes):
            continue
        if separate:
            out.write("\n")
        separate = True
        if table.title:
            out.write(f"{printable(table.title)}\n")
        if table.rows:
            _write_rows(table, raw, out)
        out.writelines(f"{printable(line)}\n" for line in table.notes)
    if document.notes:
        out.write("\n")
        out.writelines(f"{printable(line)}\n" for line in document.notes)


def _write_rows(table: Records, raw: bool, out: IO[str]) -> None:
    columns = [column for column in table.columns if not column.detail]
    places = [at for at, column in enumerate(table.columns) if not column.detail]
    cells = [
        [cell(row[at], column.unit, raw=raw) for at, column in zip(places, columns, strict=True)]
        for row in (*table.rows, *table.footer)
    ]
    if out.isatty() and len(cells) <= _RICH_ROWS:
        _write_rich(columns, cells, out)
    else:
        out.writelines(_plain_lines(columns, cells))


def _plain_lines(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of an aligned table: as wide as needed, no trailing blanks."""
    lines = [[column.title for column in columns], *cells]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            " " * (width - _width(text)) + text
            if column.unit.is_right
            else text + " " * (width - _width(text))
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        yield _GAP.join(padded).rstrip() + "\n"


def _width(text: str) -> int:
    """Return the number of terminal cells that ``text`` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _write_rich(columns: Sequence[Column], cells: Iterable[Sequence[str]], out: IO[str]) -> None:
    """Write a table for a terminal: headers stand out, long text folds inside its column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    style = "" if os.environ.get("NO_COLOR") else "bold"
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=style)
    for column in columns:
        right = column.unit.is_right
        shown.add_column(
            Text(column.title), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in cells:
        shown.add_row(*map(Text, row))  # Text, not str: markup in a name stays what it is
    Console(file=out, highlight=False).print(shown)
