# SPDX-License-Identifier: GPL-2.0-only
"""SQL over the tables of an image, by DuckDB, in a closed room.

The tables are those of :mod:`rmap.image.schema`, handed over as Arrow without copying numbers,
and a few views that join them (:data:`VIEWS`). A query comes from whoever types it and may be
pasted from anywhere, so the engine gets no files, no network, no extensions, no environment, and
cannot be told otherwise: its configuration is locked before the first query. One statement that
returns rows is what it takes.

>>> from rmap.image import MemoryImage
>>> answer = query(MemoryImage({}), "select count(*) as entries from ptes")
>>> answer.columns, answer.rows
([('entries', 'BIGINT')], [(0,)])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rmap.errors import QueryError
from rmap.image import TABLES, MemoryImage
from rmap.image.flags import Kpf, Pte, Vm
from rmap.image.store import to_arrow

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class View:
    """A view over the tables: its name, what a row is, its columns' meaning, its query."""

    name: str
    doc: str
    columns: tuple[tuple[str, str], ...]
    select: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query; columns are (name, DuckDB type), names made unique."""

    columns: list[tuple[str, str]]
    rows: list[tuple[Any, ...]]


def _bit(column: str, bit: int) -> str:
    return f"({column} & {bit}) <> 0"


def _letter(bit: int, yes: str, no: str) -> str:
    return f"case when {_bit('v.flags', bit)} then '{yes}' else '{no}' end"


def _inside(column: str) -> str:
    """``column`` of the VMA that the ASOF join found, if it reaches as far as the address."""
    return f'case when e.address < v."end" then {column} end'


_PERMISSIONS = " || ".join(
    (
        _letter(Vm.READ, "r", "-"),
        _letter(Vm.WRITE, "w", "-"),
        _letter(Vm.EXEC, "x", "-"),
        _letter(Vm.MAYSHARE, "s", "p"),
    )
)

# An ASOF join takes the last VMA that starts at or below the address: one merge of two sorted
# tables, where comparing ranges would look at every pair.
_MAPPINGS = f"""
select p.pid, p.comm, p.uid, p."user", p.cgroup, e.mm, e.address, e.pfn,
       1::bigint << e."order" as pages, (1::bigint << e."order") * m.page_size as bytes,
       {_bit("e.flags", Pte.PRESENT)} as present, {_bit("e.flags", Pte.SWAP)} as swapped,
       {_bit("e.flags", Pte.SPECIAL)} as special, e.flags,
       {_inside("v.vma")} as vma, {_inside(_PERMISSIONS)} as permissions,
       {_inside("v.path")} as path, {_inside("v.name")} as name
from ptes e
asof left join vmas v on e.mm = v.mm and e.address >= v.start
join processes p on p.mm = e.mm
cross join machine m
"""

VIEWS: tuple[View, ...] = (
    View(
        "mappings",
        "One row a page-table entry and process: who maps what, where.",
        (
            ("pid", "process; each process that shares an address space has its own rows"),
            ("comm", "command name"),
            ("uid", "real user id"),
            ("user", "name of that user"),
            ("cgroup", "control group"),
            ("mm", "address space"),
            ("address", "first address that the entry maps"),
            ("pfn", "page frame number, or swap entry"),
            ("pages", "pages that the entry maps"),
            ("bytes", "the same in bytes"),
            ("present", "holds a page"),
            ("swapped", "holds a swap entry"),
            ("special", "not reverse-mapped: zero page, PFN map"),
            ("flags", "PTE_ bits"),
            ("vma", "the VMA that covers the address, null if none does"),
            ("permissions", "of the VMA, as in /proc/PID/maps"),
            ("path", "file of the VMA, '' without"),
            ("name", "name of the VMA, such as [heap]"),
        ),
        _MAPPINGS,
    ),
    View(
        "page_flags",
        "One row a page frame: the bits of pages.flags as columns.",
        (
            ("pfn", "page frame number"),
            ("mapcount", "times the kernel says it is mapped, -1 unknown"),
            *((flag.name.lower(), f"KPF_{flag.name}") for flag in Kpf if flag.name),
        ),
        "select pfn, mapcount, "
        + ", ".join(f'{_bit("flags", flag)} as "{flag.name.lower()}"' for flag in Kpf if flag.name)
        + " from pages",
    ),
)

_MACROS = ("create macro addr(x) as format('0x{:x}', x)",)


def _connect(image: MemoryImage) -> duckdb.DuckDBPyConnection:
    """Return a connection that knows the image and nothing else."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
        },
    )
    for name, table in image.tables.items():
        connection.register(name, to_arrow(table))
    for view in VIEWS:
        connection.execute(f"create view {view.name} as {view.select}")
    for macro in _MACROS:
        connection.execute(macro)
    connection.execute("set python_enable_replacements = false")
    connection.execute("set lock_configuration = true")
    return connection


def query(image: MemoryImage, sql: str) -> Answer:
    """Run one SQL statement over the tables and views of ``image``.

    Raises
    ------
    QueryError
        If it is not one statement that returns rows, or DuckDB refuses it.
    """
    import duckdb

    with _connect(image) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1:
                raise QueryError(f"SQL: {len(statements)} statements; give one")
            kind = statements[0].type
            if kind != duckdb.StatementType.SELECT:  # describe, show, from, with are SELECT too
                raise QueryError(f"SQL: {kind.name} is not a question: use select, describe, show")
            cursor = connection.execute(statements[0])
            names = _unique([str(column[0]) for column in cursor.description or ()])
            types = [str(column[1]) for column in cursor.description or ()]
            return Answer(list(zip(names, types, strict=True)), cursor.fetchall())
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except duckdb.Error as error:
            raise QueryError(f"SQL: {_one_line(str(error))}") from error


def _one_line(message: str) -> str:
    """Return the part of a DuckDB error that says what is wrong, without the drawing below it."""
    return message.split("\n\nLINE")[0]


def _unique(names: list[str]) -> list[str]:
    """Number repeated names, since a row becomes a JSON object.

    >>> _unique(["a", "b", "a"])
    ['a', 'b', 'a_2']
    """
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result


def catalogue() -> list[tuple[str, str, str, str]]:
    """Return (table, column, type, meaning) of all tables and views; '' as column: the table."""
    lines = []
    for schema in TABLES.values():
        lines.append((schema.name, "", "table", schema.doc))
        lines += [
            (schema.name, c.name, c.dtype, c.doc + (" (may be absent)" if c.optional else ""))
            for c in schema.columns
        ]
    for view in VIEWS:
        lines.append((view.name, "", "view", view.doc))
        lines += [(view.name, name, "", doc) for name, doc in view.columns]
    return lines
