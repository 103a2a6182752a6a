# SPDX-License-Identifier: GPL-2.0-only
"""How answers leave: tables, JSON, CSV, and text that came from strangers."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.cli import output
from rmap.cli.output import Column, Document, Format, Records, Unit
from rmap.text import human_bytes, printable, short_bytes

COLUMNS = (
    Column("comm", "COMMAND"),
    Column("address", "ADDRESS", Unit.HEX),
    Column("bytes", "SIZE", Unit.BYTES),
    Column("share", "SHARE", Unit.RATIO),
    Column("shared", "SHARED", Unit.BOOL),
)
ROWS = [("cat", 0x7F00_0000_1000, 8192, 0.25, True), ("kworker/u16:0", 0, 12, 1.0, False)]


def written(format: Format, rows: list[Any], *, raw: bool = False, terminal: bool = False) -> str:
    """What `write` writes for one table of `rows`."""
    out = io.StringIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]  # plays a terminal
    document = Document("rmap.test/1", [Records("rows", COLUMNS, rows)], {"pages": 3})
    output.write(document, format, raw=raw, out=out)
    return out.getvalue()


def test_a_table_is_aligned_and_has_units() -> None:
    assert written(Format.TABLE, ROWS).splitlines() == [
        "COMMAND               ADDRESS     SIZE    SHARE  SHARED",
        "cat            0x7f0000001000  8.0 KiB   25.0 %  yes",
        "kworker/u16:0             0x0     12 B  100.0 %  no",
    ]


def test_raw_takes_the_units_away() -> None:
    assert written(Format.TABLE, ROWS, raw=True).splitlines()[1:] == [
        "cat            0x7f0000001000  8192   0.25  true",
        "kworker/u16:0             0x0    12    1.0  false",
    ]


def test_json_has_a_schema_plain_numbers_and_addresses_as_text() -> None:
    answer = json.loads(written(Format.JSON, ROWS))
    assert list(answer) == ["schema", "pages", "rows"]
    assert answer["schema"] == "rmap.test/1"
    assert answer["rows"][0] == {
        "comm": "cat",
        "address": "0x7f0000001000",
        "bytes": 8192,
        "share": 0.25,
        "shared": True,
    }
    assert json.loads(written(Format.JSON, []))["rows"] == []


def test_csv_has_a_header_and_plain_numbers() -> None:
    assert written(Format.CSV, ROWS).splitlines() == [
        "comm,address,bytes,share,shared",
        "cat,0x7f0000001000,8192,0.25,true",
        "kworker/u16:0,0x0,12,1.0,false",
    ]


def test_what_is_unknown_is_a_dash_null_or_nothing() -> None:
    row = [("cat", None, None, None, None)]
    assert written(Format.TABLE, row).splitlines()[1].split() == ["cat", "-", "-", "-", "-"]
    assert json.loads(written(Format.JSON, row))["rows"][0]["address"] is None
    assert written(Format.CSV, row).splitlines()[1] == "cat,,,,"


def test_nothing_is_cut_where_no_terminal_is() -> None:
    long = "/" + "x" * 5000
    assert long in written(Format.TABLE, [(long, 1, 1, 1, True)])


def test_a_terminal_gets_every_character_folded() -> None:
    long = "/" + "z" * 500
    shown = written(Format.TABLE, [(long, 1, 1, 0.5, True)], terminal=True)
    assert shown.count("z") == 500


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_names_are_shown_not_obeyed(terminal: bool) -> None:
    name = "\x1b[31m[bold]a[/bold]\n\r\x07\u202e\x9b0m"
    shown = written(Format.TABLE, [(name, 1, 1, 1, True)], terminal=terminal)
    # What the terminal's own look is made of may hold escapes; the name may not add any.
    plain = written(Format.TABLE, [("a", 1, 1, 1, True)], terminal=terminal)
    assert shown.count("\x1b") == plain.count("\x1b")
    assert r"\x1b[31m[bold]a[/bold]\x0a\x0d\x07\u202e\x9b0m" in shown


@given(st.text())
def test_every_text_stays_on_its_line_in_every_format(name: str) -> None:
    row = [(name, 1, 1, 1.0, True)]
    assert len(written(Format.TABLE, row).split("\n")) == 3
    (line,) = list(csv.reader(io.StringIO(written(Format.CSV, row))))[1:]
    assert line[0] == printable(name)
    assert json.loads(written(Format.JSON, row))["rows"][0]["comm"] == name


@given(st.text())
def test_printable_text_prints_and_is_left_alone(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()


@given(st.integers(0, 1 << 62))
def test_units_are_within_half_of_the_last_digit(count: int) -> None:
    number, unit = human_bytes(count).split()
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
    assert abs(float(number) * factor - count) <= 0.0501 * factor
    assert float(number) < 1024


def test_round_sizes_lose_their_decimal() -> None:
    assert [short_bytes(n) for n in (0, 4096, 5 << 29)] == ["0", "4 KiB", "2.5 GiB"]
