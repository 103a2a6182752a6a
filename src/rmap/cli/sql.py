# SPDX-License-Identifier: GPL-2.0-only
"""``rmap sql``: SQL over the tables of an image."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import FormatOption, RawOption, emit
from rmap.cli.output import Column, Document, Format, Records, Unit

if TYPE_CHECKING:
    from rmap.query.sql import Answer

EPILOG = """\
Examples:

\b
  rmap sql m.zip                                     tables, views and their columns
  rmap sql m.zip "select comm, sum(bytes) from mappings where present group by all"
  rmap sql m.zip "select addr(address), pfn from mappings where pid = 1 order by 1"

addr(x) prints a number as an address. Files, network and settings are closed to queries."""

#: DuckDB types whose values are numbers.
_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM")


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image to ask.")],
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="One SQL statement that returns rows.")
    ] = None,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
) -> int:
    """Ask an image in SQL; without a query, list its tables."""
    from rmap.image import read_image
    from rmap.query import sql

    read = read_image(image)
    if query is None:
        emit(_catalogue({name: len(table) for name, table in read.tables.items()}), format, raw=raw)
    else:
        emit(_document(sql.query(read, query)), format, raw=raw)
    return 0


def _document(answer: Answer) -> Document:
    columns = [Column(name, name, _unit(kind)) for name, kind in answer.columns]
    rows = [[_value(value) for value in row] for row in answer.rows]
    notes = ["no rows"] if not rows else []
    return Document("rmap.sql/1", [Records("rows", columns, rows, notes=notes)])


def _unit(kind: str) -> Unit:
    if kind == "BOOLEAN":
        return Unit.BOOL
    scalar = not kind.endswith("]")
    return Unit.COUNT if scalar and any(name in kind for name in _NUMBERS) else Unit.TEXT


def _value(value: Any) -> Any:
    """Return a value of DuckDB as JSON can hold it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    return value.hex() if isinstance(value, bytes) else str(value)


def _catalogue(sizes: dict[str, int]) -> Document:
    from rmap.query import sql

    lines = sql.catalogue()
    tables = [(name, kind, sizes.get(name), doc) for name, column, kind, doc in lines if not column]
    columns = [line for line in lines if line[1]]
    return Document(
        "rmap.sql-tables/1",
        [
            Records(
                "columns",
                (
                    Column("table", "TABLE"),
                    Column("column", "COLUMN"),
                    Column("type", "TYPE"),
                    Column("doc", "MEANING"),
                ),
                columns,
            ),
            Records(
                "tables",
                (
                    Column("table", "TABLE"),
                    Column("kind", "KIND"),
                    Column("rows", "ROWS", Unit.COUNT),
                    Column("doc", "WHAT A ROW IS"),
                ),
                tables,
            ),
        ],
    )
