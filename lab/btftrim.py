# SPDX-License-Identifier: GPL-2.0-only
"""Types of a kernel, without those that nobody asked for.

Some types are kept as they are, and what they hold by value. A struct that is only pointed to
becomes a forward declaration if it has a name, else void; so does a function.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from rmap.source.dump import btf as kinds
from rmap.source.dump.btf import Btf, Entry

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_COMPOUND = (kinds.STRUCT, kinds.UNION)
_ENUMS = (kinds.ENUM, kinds.ENUM64)
_FLAG = 1 << 31
_THROUGH = (kinds.TYPEDEF, kinds.VOLATILE, kinds.CONST, kinds.RESTRICT, kinds.TYPE_TAG)


def trim(btf: Btf, wanted: Iterable[int]) -> bytes:
    """A section ``.BTF`` with the types of these numbers."""
    trimmer = _Trimmer(btf, wanted)
    for number in sorted(trimmer.whole):
        trimmer.refer(number)
    return trimmer.section()


class _Trimmer:
    def __init__(self, btf: Btf, wanted: Iterable[int]) -> None:
        self.btf = btf
        self.whole = self._held(wanted)
        self.new: dict[int, int] = {0: 0}
        self.types: list[bytes] = []
        self.forward: dict[tuple[int, str], int] = {}
        self.strings = {"": 0}
        self.text = bytearray(b"\0")

    def _held(self, wanted: Iterable[int]) -> set[int]:
        """These types and all that they hold by value."""
        found: set[int] = set()
        pending = list(wanted)
        while pending:
            number = pending.pop()
            if number in found or number == 0:
                continue
            found.add(number)
            entry = self.btf.entry(number)
            if entry.kind in _COMPOUND:
                pending += [part[1] for part in self.btf.parts(number, "<III")]
            elif entry.kind == kinds.ARRAY:
                pending += _TYPE.unpack_from(self.btf.data, entry.body)[:2]
            elif entry.kind in _THROUGH:
                pending.append(entry.size)
        return found

    def string(self, offset: int) -> int:
        """The place of a name in the new section of strings."""
        name = self.btf.string(offset) if offset else ""
        if name not in self.strings:
            self.strings[name] = len(self.text)
            self.text += name.encode() + b"\0"
        return self.strings[name]

    def refer(self, number: int) -> int:
        """The new number of a type, which is written if it was not yet."""
        if number in self.new:
            return self.new[number]
        entry = self.btf.entry(number)
        if entry.kind in (kinds.FUNC, kinds.FUNC_PROTO, kinds.VAR, kinds.DATASEC, kinds.DECL_TAG):
            return 0
        if entry.kind in _COMPOUND and number not in self.whole:
            return self._forward(entry)
        # The number comes first: a struct may point to itself.
        self.types.append(b"")
        place = self.new[number] = len(self.types)
        self.types[place - 1] = self._write(number, entry)
        return place

    def _forward(self, entry: Entry) -> int:
        if not entry.name:
            return 0
        key = (entry.kind, self.btf.string(entry.name))
        if key not in self.forward:
            union = _FLAG if entry.kind == kinds.UNION else 0
            self.types.append(_TYPE.pack(self.string(entry.name), kinds.FWD << 24 | union, 0))
            self.forward[key] = len(self.types)
        return self.forward[key]

    def _write(self, number: int, entry: Entry) -> bytes:
        info = entry.kind << 24 | entry.parts | (_FLAG if entry.flag else 0)
        name = self.string(entry.name)
        body = entry.body
        if entry.kind in (kinds.INT, kinds.FLOAT, *_COMPOUND, *_ENUMS, kinds.FWD):
            head = _TYPE.pack(name, info, entry.size)
        elif entry.kind == kinds.ARRAY:
            element, index, count = _TYPE.unpack_from(self.btf.data, body)
            return _TYPE.pack(name, info, 0) + _TYPE.pack(
                self.refer(element), self.refer(index), count
            )
        else:
            return _TYPE.pack(name, info, self.refer(entry.size))
        if entry.kind == kinds.INT:
            return head + self.btf.data[body : body + 4]
        if entry.kind in _COMPOUND:
            for label, kind, offset in self.btf.parts(number, "<III"):
                head += _TYPE.pack(self.string(label), self.refer(kind), offset)
        if entry.kind in _ENUMS:
            rest = "I" if entry.kind == kinds.ENUM else "II"
            for label, *value in self.btf.parts(number, "<I" + rest):
                head += struct.pack("<I" + rest, self.string(label), *value)
        return head

    def section(self) -> bytes:
        """Everything that was written, as one section."""
        types = b"".join(self.types)
        header = _HEADER.pack(kinds.MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types),
                              len(self.text))  # fmt: skip
        return header + types + bytes(self.text)
