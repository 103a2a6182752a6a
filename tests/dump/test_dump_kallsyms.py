# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own table of symbols, made by hand and found again."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.source.dump.kallsyms import Kallsyms, SymbolError, vmcoreinfo_symbols

drgn = pytest.importorskip("drgn", reason="making types and symbols needs drgn")

BASE = 0xFFFF_FFFF_8000_0000
AT = 0xFFFF_FFFF_9000_0000
#: Pieces that stand behind tokens which are no letters of their own.
PIECES = {0x80: "page_", 0x81: "init_", 0x82: "special", 0x83: "__per_cpu_"}
STEXT = "T_stext"


def compress(text: str) -> bytes:
    """A letter and a name as tokens."""
    tokens = bytearray()
    while text:
        token, piece = next(
            ((t, p) for t, p in PIECES.items() if text.startswith(p)), (ord(text[0]), text[0])
        )
        tokens.append(token)
        text = text[len(piece) :]
    return bytes(tokens)


def prefix(length: int) -> bytes:
    return bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])


def table(symbols: list[tuple[str, int]], *, percpu: bool) -> dict[str, bytes]:
    """The parts of the table for (letter and name, offset) pairs."""
    names = b"".join(prefix(len(c)) + c for c in (compress(text) for text, _ in symbols))
    pieces = [PIECES.get(token, chr(token) if 32 < token < 127 else "") for token in range(256)]
    index, text = [], b""
    for piece in pieces:
        index.append(len(text))
        text += piece.encode() + b"\0"
    offsets = [
        (BASE - 1 - (BASE + offset)) & 0xFFFF_FFFF if percpu and offset >= 0 else abs(offset)
        for _, offset in symbols
    ]
    return {
        "kallsyms_num_syms": struct.pack("<I", len(symbols)),
        "kallsyms_names": names,
        "kallsyms_token_table": text.ljust(1 << 14, b"\0"),
        "kallsyms_token_index": struct.pack("<256H", *index),
        "kallsyms_offsets": struct.pack(f"<{len(symbols)}I", *offsets),
        "kallsyms_relative_base": struct.pack("<Q", BASE),
    }


def program_of(parts: dict[str, bytes]) -> tuple[Any, dict[str, int]]:
    """A program whose memory has these parts, one behind the other, and where they are."""
    places, at = {}, AT
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    for name, data in parts.items():
        places[name] = at

        def read(address: int, count: int, offset: int, physical: bool, data: bytes = data
                 ) -> bytes:  # fmt: skip
            return data[offset : offset + count]

        program.add_memory_segment(at, len(data), read)
        at += len(data)
    places["_stext"] = BASE
    return program, places


def kallsyms(symbols: list[tuple[str, int]], *, percpu: bool = True) -> Kallsyms:
    return Kallsyms(*program_of(table([(STEXT, 0), *symbols], percpu=percpu)))


def found(table: Kallsyms, name: str) -> list[int]:
    return [one.address for one in table.find(table.program, name, None, False)]


@pytest.mark.parametrize("percpu", [True, False])
def test_names_lead_to_addresses(percpu: bool) -> None:
    symbols = [("Dpage_offset_base", 0x100), ("tspecial_mapping_name", 0x80), ("Dbase", 0x200)]
    if percpu:
        symbols.append(("A__per_cpu_start", -0x40))
    table = kallsyms(symbols, percpu=percpu)
    assert found(table, "page_offset_base") == [BASE + 0x100]
    assert found(table, "special_mapping_name") == [BASE + 0x80]
    # The end of another name is no name, nor is one with its letter.
    assert found(table, "base") == [BASE + 0x200]
    assert found(table, "offset_base") == found(table, "Dbase") == []
    if percpu:
        assert found(table, "__per_cpu_start") == [0x40]


def test_addresses_lead_to_names() -> None:
    table = kallsyms([("Tfirst", 0x100), ("tsecond", 0x180), ("Wthird", 0x400)])
    (symbol,) = table.find(table.program, None, BASE + 0x17F, False)
    assert (symbol.name, symbol.address, symbol.size) == ("first", BASE + 0x100, 0x80)
    assert symbol.kind == drgn.SymbolKind.FUNC
    assert table.find(table.program, None, BASE - 1, True) == []
    assert [one.name for one in table.find(table.program, None, None, False)] == [
        "_stext", "first", "second", "third",
    ]  # fmt: skip


def test_long_names_have_two_bytes_of_length() -> None:
    name = "x" * 300
    table = kallsyms([(f"T{name}", 8), ("Tnext", 16)])
    assert found(table, name) == [BASE + 8]
    assert found(table, "next") == [BASE + 16]


NAMES = st.text(st.sampled_from("abcdefgp_ig0"), min_size=1, max_size=12)


@given(st.lists(st.tuples(st.sampled_from("TtDdbB"), NAMES, st.integers(0, 1 << 30)), max_size=30))
def test_every_name_is_found(symbols: list[tuple[str, str, int]]) -> None:
    table = kallsyms([(letter + name, offset) for letter, name, offset in symbols])
    for _, name, _ in symbols:
        expected = [BASE + offset for _, other, offset in symbols if other == name]
        assert found(table, name) == expected


@given(st.data())
@settings(max_examples=150)
def test_damage_is_told(data: st.DataObject) -> None:
    """Any byte may be another one: there is an answer, or an error that is meant."""
    parts = table([(STEXT, 0), ("Tpage_x", 16), ("dinit_y", 32)], percpu=True)
    name = data.draw(st.sampled_from(sorted(parts)))
    wrong = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 4))):
        wrong[data.draw(st.integers(0, min(len(wrong), 600) - 1))] = data.draw(st.integers(0, 255))
    program, places = program_of(parts | {name: bytes(wrong)})
    allowed: tuple[type[Exception], ...] = (SymbolError, drgn.FaultError)
    answer: Any = None
    try:
        answer = found(Kallsyms(program, places), "page_x")
    except allowed as error:
        answer = error
    assert isinstance(answer, list | SymbolError | drgn.FaultError)


def test_without_the_places_there_is_no_table() -> None:
    program, places = program_of(table([(STEXT, 0)], percpu=True))
    del places["kallsyms_offsets"]
    with pytest.raises(SymbolError, match="kallsyms_offsets"):
        Kallsyms(program, places)
    note = b"SYMBOL(_stext)=ffffffff81000000\nOSRELEASE=6.1\nSYMBOL(x)=zz\n"
    assert vmcoreinfo_symbols(note) == {"_stext": 0xFFFFFFFF81000000}
