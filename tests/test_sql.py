# SPDX-License-Identifier: GPL-2.0-only
"""SQL over an image: what it can see, and all that it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from machines import EVIL_PATH, LIBC, PAGE, small_machine

from rmap.errors import QueryError
from rmap.image import TABLES
from rmap.image.flags import Kpf, Pte, permissions
from rmap.query.sql import VIEWS, catalogue, query

IMAGE = small_machine()


def test_every_table_of_the_schema_can_be_asked() -> None:
    for name, table in IMAGE.tables.items():
        assert query(IMAGE, f"select count(*) from {name}").rows == [(len(table),)]


def test_mappings_know_process_address_and_file() -> None:
    answer = query(
        IMAGE,
        f"select pid, addr(address), pfn, permissions from mappings where path = '{LIBC}' "
        "order by pid, address",
    )
    assert answer.rows == [
        (100, "0x7f0000000000", 0x10, "r-xp"),
        (100, "0x7f0000001000", 0x11, "r-xp"),
        (101, "0x7f0000000000", 0x10, "r-xp"),
        (666, "0x7f0000000000", 0x10, "r-xp"),
    ]


def test_mappings_agree_with_a_naive_walk() -> None:
    """Each entry, its process and the VMA around it, found the slow way."""
    processes = {row["mm"]: row["pid"] for row in map(IMAGE.processes.row, range(4))}
    vmas = [IMAGE.vmas.row(at) for at in range(len(IMAGE.vmas))]
    expected = []
    for entry in map(IMAGE.ptes.row, range(len(IMAGE.ptes))):
        (vma,) = [
            v for v in vmas if v["mm"] == entry["mm"] and v["start"] <= entry["address"] < v["end"]
        ]
        expected.append(
            (
                processes[entry["mm"]],
                entry["address"],
                PAGE << entry["order"],
                bool(entry["flags"] & Pte.SWAP),
                permissions(vma["flags"]),
                vma["path"],
            )
        )
    columns = "pid, address, bytes, swapped, permissions, path"
    assert sorted(query(IMAGE, f"select {columns} from mappings").rows) == sorted(expected)
    assert any(row[-1] == EVIL_PATH for row in expected)


def test_page_flags_are_columns() -> None:
    rows = query(IMAGE, "select pfn from page_flags where ksm and anon").rows
    assert rows == [(0x50,)]
    (free,) = query(IMAGE, "select count(*) from page_flags where buddy").rows[0]
    assert free == sum(bool(flags & Kpf.BUDDY) for flags in IMAGE.pages["flags"].tolist())


def test_the_catalogue_tells_of_every_column_that_there_is() -> None:
    lines = {(table, column) for table, column, _, _ in catalogue()}
    for name in [*TABLES, *(view.name for view in VIEWS)]:
        shown = query(IMAGE, f"select * from {name} limit 0").columns
        assert {(name, column) for column, _ in shown} <= lines
    assert all(doc for _, _, _, doc in catalogue())


def test_repeated_names_are_told_apart() -> None:
    assert [name for name, _ in query(IMAGE, "select 1 as a, 2 as a").columns] == ["a", "a_2"]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/*')",
        "select getenv('PATH')",
        "select * from sqlite_scan('/tmp/a', 'b')",
        "copy ptes to '/tmp/rmap-test-copy'",
        "attach '/tmp/rmap-test-attach'",
        "export database '/tmp/rmap-test-export'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "create table t (a int)",
        "drop view ptes",
        "call pragma_version()",
        "select 1; select 2",
        "",
    ],
)
def test_a_query_reaches_nothing_but_the_image(sql: str) -> None:
    with pytest.raises(QueryError, match=r"^SQL: [^\n]+$"):
        query(IMAGE, sql)
    assert not list(Path("/tmp").glob("rmap-test-*"))


def test_python_variables_are_no_tables() -> None:
    rows = IMAGE.ptes  # a replacement scan would look for such a name
    with pytest.raises(QueryError, match="rows"):
        query(IMAGE, "select * from rows")
    assert len(rows)


@pytest.mark.parametrize("sql", ["selec 1", "select * from nothing", "select 'x'::int"])
def test_errors_are_one_line_without_the_drawing(sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        query(IMAGE, sql)
    assert not re.search(r"\n|LINE \d|\^", str(caught.value))
