# SPDX-License-Identifier: GPL-2.0-only
"""Types out of BTF, made by hand: found by name, made for drgn, and what damage does."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.source.dump import btf as kinds
from rmap.source.dump.btf import Btf, BtfError, BtfTypes

drgn = pytest.importorskip("drgn", reason="making types and symbols needs drgn")


class Writer:
    """Writes BTF: types by number from 1 on, and strings."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.text = b"\0"

    def string(self, text: str) -> int:
        at = len(self.text)
        self.text += text.encode() + b"\0"
        return at if text else 0

    def type(self, name: str, kind: int, size: int, body: bytes = b"", parts: int = 0,
             flag: int = 0) -> int:  # fmt: skip
        info = flag << 31 | kind << 24 | parts
        self.types.append(struct.pack("<III", self.string(name), info, size) + body)
        return len(self.types)

    def struct(self, name: str, size: int, members: list[tuple[str, int, int]]) -> int:
        body = b"".join(struct.pack("<III", self.string(n), t, at * 8) for n, t, at in members)
        return self.type(name, kinds.STRUCT, size, body, len(members))

    def enum(self, name: str, values: list[tuple[str, int]], *, wide: bool = False) -> int:
        if wide:
            parts = [(self.string(n), v & 0xFFFF_FFFF, v >> 32) for n, v in values]
            body = b"".join(struct.pack("<III", *part) for part in parts)
            return self.type(name, kinds.ENUM64, 8, body, len(values))
        body = b"".join(struct.pack("<II", self.string(n), v) for n, v in values)
        return self.type(name, kinds.ENUM, 4, body, len(values))

    def data(self) -> bytes:
        types = b"".join(self.types)
        header = struct.pack("<HBBIIIII", kinds.MAGIC, 1, 0, 24, 0, len(types), len(types),
                             len(self.text))  # fmt: skip
        return header + types + self.text


def small() -> bytes:
    """A list of pages, and two enums."""
    one = Writer()
    number = one.type("long unsigned int", kinds.INT, 8, struct.pack("<I", 64))
    small = one.type("int", kinds.INT, 4, struct.pack("<I", 1 << 24 | 32))
    page = one.type("", kinds.PTR, 5)
    one.type("pages_t", kinds.TYPEDEF, 5)
    one.struct("page", 32, [("flags", number, 0), ("next", page, 8), ("order", 7, 16)])
    one.struct("not_a_page", 4, [("page", small, 0)])
    one.type("", kinds.ARRAY, 0, struct.pack("<III", small, small, 4))
    one.enum("kind", [("ANON", 0), ("FILE", 1), ("KSM", 3)])
    one.enum("wide", [("HUGE", 1 << 40), ("ANON", 9)], wide=True)
    return one.data()


@pytest.fixture
def program() -> Any:
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    types = BtfTypes(program, Btf(small()))
    program.register_type_finder("test", types.find, enable_index=0)
    return program


def test_types_are_made_when_they_are_asked_for(program: Any) -> None:
    page = program.type("struct page")
    assert (page.size, [member.name for member in page.members or ()]) == (
        32, ["flags", "next", "order"],
    )  # fmt: skip
    assert page.member("next").type.type.tag == "page"
    assert page.member("order").type.length == 4
    assert drgn.offsetof(page, "next") == 8
    assert program.type("pages_t").type.tag == "page"


def test_a_name_is_the_whole_name(program: Any) -> None:
    assert program.type("struct not_a_page").size == 4
    for name in ("struct a_page", "struct", "enum page", "struct kind"):
        with pytest.raises((LookupError, SyntaxError)):
            program.type(name)


def test_integers_by_the_names_that_c_has(program: Any) -> None:
    assert program.type("unsigned long").size == 8


def test_constants_of_the_first_enum_that_has_them() -> None:
    types = BtfTypes(drgn.Program(drgn.Platform(drgn.Architecture.X86_64)), Btf(small()))
    values = {name: types.enumerator(name) for name in ("ANON", "KSM", "HUGE", "NONE", "AN")}
    assert {name: None if one is None else one.value_() for name, one in values.items()} == {
        "ANON": 0, "KSM": 3, "HUGE": 1 << 40, "NONE": None, "AN": None,
    }  # fmt: skip


def test_what_is_no_btf() -> None:
    data = small()
    for wrong, says in (
        (b"", "header"), (b"\0" * 64, "begins with"), (data[:40], "cut short"),
        (data[:12] + struct.pack("<II", 1 << 20, 0) + data[20:], "cut short"),
        (data[:24] + struct.pack("<II", 0, 25 << 24) + data[32:], "kind 25"),
    ):  # fmt: skip
        with pytest.raises(BtfError, match=says):
            Btf(wrong)


@given(st.integers(0, len(small()) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_a_wrong_byte_is_found_or_does_no_harm(at: int, change: int) -> None:
    """Types are made, or `BtfError` (through drgn) says what is wrong; nothing else, no loop."""
    data = bytearray(small())
    data[at] ^= change
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    outcome: object = None
    try:
        types = BtfTypes(program, Btf(bytes(data)))
        for number in range(1, len(types.btf)):
            made = types.make(number)
            if made.kind == drgn.TypeKind.STRUCT and made.members is not None:
                outcome = [member.type for member in made.members]
        types.enumerator("ANON")
    except (BtfError, ValueError, LookupError, struct.error, OverflowError, TypeError) as error:
        outcome = error
    assert outcome is None or isinstance(outcome, list | Exception)
