# SPDX-License-Identifier: GPL-2.0-only
"""Types of a kernel from the BTF that it carries (Documentation/bpf/btf.rst).

BTF is a header, a section of types that refer to each other by number, and a section of strings.
`Btf` reads where each type lies once, and makes drgn's types when they are asked for. Names of C's
integers are those of the compiler (``long unsigned int``), drgn asks for ``unsigned long``.

The data comes out of a dump, so nothing in it is believed: numbers, lengths and names are checked
as they are used, and what is wrong raises `BtfError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drgn import Program, Type, TypeKindSet, TypeMember

MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")

# Kinds (include/uapi/linux/btf.h).
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)
#: Bytes that follow a type by its kind, and bytes for each of its parts.
_FIXED = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, ENUM64: 12, FUNC_PROTO: 8, DATASEC: 12}
#: Kinds whose types have names of their own to be found by; both kinds of enum are one.
_NAMED = {INT: INT, STRUCT: STRUCT, UNION: UNION, ENUM: ENUM, ENUM64: ENUM, TYPEDEF: TYPEDEF,
          FLOAT: FLOAT}  # fmt: skip
#: What compilers call C's integers.
_SPELLING = {
    "unsigned long": "long unsigned int",
    "long": "long int",
    "unsigned long long": "long long unsigned int",
    "long long": "long long int",
    "short": "short int",
    "unsigned short": "short unsigned int",
}
_SIGNED, _BOOL = 1, 4
#: A chain of typedefs and qualifiers that is longer is one that never ends.
_DEPTH = 64


class BtfError(ValueError):
    """The BTF is not what it should be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A type as it stands: its name's place, its kind, parts, a flag, a size or another type."""

    name: int
    kind: int
    parts: int
    flag: bool
    size: int
    body: int


class Btf:
    """The types of a kernel.

    Parameters
    ----------
    data
        The section ``.BTF``.

    Raises `BtfError` if it is none, or damaged.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise BtfError("there are not even the bytes of its header")
        magic, version, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(
            data
        )
        if magic != MAGIC or version != 1:
            raise BtfError(f"it begins with {magic:#x}, version {version}; BTF is {MAGIC:#x}, 1")
        start, end = header + types, header + types + types_size
        text = header + strings
        if end > len(data) or text + strings_size > len(data):
            raise BtfError("it is cut short")
        self.data = data
        self.text = data[text : text + strings_size]
        self.entries = [Entry(0, 0, 0, False, 0, 0)]
        self.names: dict[tuple[int, str], int] = {}
        self.enumerators: dict[str, int] = {}
        self._read(start, end)

    def _read(self, at: int, end: int) -> None:
        """Note where each type is, and what can be found by name."""
        while at < end:
            if at + _TYPE.size > end:
                raise BtfError(f"type {len(self.entries)} is cut short")
            name, info, size = _TYPE.unpack_from(self.data, at)
            kind, parts = info >> 24 & 31, info & 0xFFFF
            if not INT <= kind <= ENUM64:
                raise BtfError(f"type {len(self.entries)} is of kind {kind}, which is not known")
            entry = Entry(name, kind, parts, bool(info >> 31), size, at + _TYPE.size)
            number = len(self.entries)
            self.entries.append(entry)
            at = entry.body + _FIXED.get(kind, 0) + parts * _EACH.get(kind, 0)
            if at > end:
                raise BtfError(f"type {number} is cut short")
            if name and kind in _NAMED:
                self.names.setdefault((_NAMED[kind], self.string(name)), number)
            if _NAMED.get(kind) == ENUM:
                for label, _ in self.enum_values(number):
                    self.enumerators.setdefault(label, number)

    def string(self, offset: int) -> str:
        """The string at an offset of the string section. Raises `BtfError` for no such place."""
        end = self.text.find(b"\0", offset)
        if offset >= len(self.text) or end < 0:
            raise BtfError(f"a name is at {offset}, beyond its strings")
        return self.text[offset:end].decode("utf-8", "backslashreplace")

    def entry(self, number: int) -> Entry:
        """A type by its number. Raises `BtfError` if there is none."""
        if not 0 <= number < len(self.entries):
            raise BtfError(f"a type refers to type {number} of {len(self.entries)}")
        return self.entries[number]

    def find(self, kind: int, name: str) -> int | None:
        """The number of the type of that kind and name, ``None`` if there is none."""
        found = self.names.get((kind, name))
        return found if found is not None else self.names.get((kind, _SPELLING.get(name, name)))

    def parts(self, number: int, layout: str) -> Iterator[tuple[int, ...]]:
        """The parts of a type, each read as `layout` (of `struct`)."""
        entry = self.entry(number)
        yield from struct.iter_unpack(
            layout, self.data[entry.body : entry.body + entry.parts * struct.calcsize(layout)]
        )

    def enum_values(self, number: int) -> Iterator[tuple[str, int]]:
        """The enumerators of an enum, with their values."""
        entry = self.entry(number)
        if entry.kind == ENUM:
            for name, value in self.parts(number, "<Ii" if entry.flag else "<II"):
                yield self.string(name), value
            return
        for name, low, high in self.parts(number, "<IIi" if entry.flag else "<III"):
            yield self.string(name), high << 32 | low


class BtfTypes:
    """Makes drgn's types of those of a `Btf`; `find` is a type finder of drgn.

    Parameters
    ----------
    program
        Whose types they are.
    btf
        Where they come from.
    """

    def __init__(self, program: Program, btf: Btf) -> None:
        import drgn

        self.drgn = drgn
        self.program = program
        self.btf = btf
        self._made: dict[int, Type] = {}
        kinds = drgn.TypeKind
        self._kinds = {
            kinds.INT: INT, kinds.BOOL: INT, kinds.FLOAT: FLOAT, kinds.STRUCT: STRUCT,
            kinds.UNION: UNION, kinds.ENUM: ENUM, kinds.TYPEDEF: TYPEDEF,
        }  # fmt: skip
        self._makers: dict[int, Callable[[int, Entry], Type]] = {
            INT: self._int, FLOAT: self._float, PTR: self._pointer, ARRAY: self._array,
            STRUCT: self._compound, UNION: self._compound, ENUM: self._enum, ENUM64: self._enum,
            FWD: self._forward, TYPEDEF: self._typedef, CONST: self._qualified,
            VOLATILE: self._qualified, RESTRICT: self._qualified, FUNC: self._same,
            TYPE_TAG: self._same, FUNC_PROTO: self._function,
        }  # fmt: skip

    def find(
        self, program: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        """The type that drgn asks for, ``None`` if BTF has none of that name."""
        if filename:
            return None
        for kind in kinds:
            number = self.btf.find(self._kinds[kind], name) if kind in self._kinds else None
            if number is not None:
                made = self.make(number)
                if made.kind == kind:
                    return made
        return None

    def enumerator(self, name: str) -> Any | None:
        """The constant of that name as an object of drgn, ``None`` if no enum has it."""
        number = self.btf.enumerators.get(name)
        if number is None:
            return None
        value = dict(self.btf.enum_values(number))[name]
        return self.drgn.Object(self.program, self.make(number), value)

    def make(self, number: int, depth: int = 0) -> Type:
        """The type of a number. Raises `BtfError` where the types are no types."""
        if number not in self._made:
            if depth > _DEPTH:
                raise BtfError(f"type {number} refers to itself")
            entry = self.btf.entry(number)
            if number == 0:
                return self.program.void_type()
            if entry.kind not in self._makers:
                raise BtfError(f"type {number} is of kind {entry.kind}, which is no type")
            self._depth = depth
            self._made[number] = self._makers[entry.kind](number, entry)
        return self._made[number]

    def _name(self, entry: Entry) -> str | None:
        return self.btf.string(entry.name) if entry.name else None

    def _next(self, entry: Entry) -> Type:
        """The type that another one refers to."""
        return self.make(entry.size, self._depth + 1)

    def _int(self, number: int, entry: Entry) -> Type:
        (encoding,) = struct.unpack_from("<I", self.btf.data, entry.body)
        kind = encoding >> 24 & 15
        name = self._name(entry) or "int"
        if kind & _BOOL:
            return self.program.bool_type(name, entry.size)
        return self.program.int_type(name, entry.size, bool(kind & _SIGNED))

    def _float(self, number: int, entry: Entry) -> Type:
        return self.program.float_type(self._name(entry) or "float", entry.size)

    def _pointer(self, number: int, entry: Entry) -> Type:
        return self.program.pointer_type(self._next(entry))

    def _array(self, number: int, entry: Entry) -> Type:
        element, _, count = _TYPE.unpack_from(self.btf.data, entry.body)
        return self.program.array_type(self.make(element, self._depth + 1), count or None)

    def _compound(self, number: int, entry: Entry) -> Type:
        """A struct or a union; its members' types are made when they are looked at."""
        members = [
            self._member(entry, *part) for part in self.btf.parts(number, "<III")
        ]  # fmt: skip
        make = self.program.struct_type if entry.kind == STRUCT else self.program.union_type
        return make(self._name(entry), entry.size, members)

    def _member(self, entry: Entry, name: int, number: int, offset: int) -> TypeMember:
        bits = offset >> 24 if entry.flag else 0
        where = offset & 0xFFFFFF if entry.flag else offset
        label = self.btf.string(name) if name else None
        if bits:
            field = partial(self._bit_field, number, bits)
            return self.drgn.TypeMember(field, label, where)
        return self.drgn.TypeMember(partial(self.make, number), label, where)

    def _bit_field(self, number: int, bits: int) -> Any:
        return self.drgn.Object(self.program, self.make(number), bit_field_size=bits)

    def _enum(self, number: int, entry: Entry) -> Type:
        values = list(self.btf.enum_values(number))
        name = self._name(entry)
        if not values:
            return self.program.enum_type(name)
        whole = {1: "char", 2: "short", 4: "int", 8: "long"}.get(entry.size)
        if whole is None:
            raise BtfError(f"an enum has {entry.size} bytes")
        compatible = self.program.int_type(
            whole if entry.flag else f"unsigned {whole}", entry.size, entry.flag
        )
        labels = [self.drgn.TypeEnumerator(label, value) for label, value in values]
        return self.program.enum_type(name, compatible, labels)

    def _forward(self, number: int, entry: Entry) -> Type:
        make = self.program.union_type if entry.flag else self.program.struct_type
        return make(self._name(entry))

    def _typedef(self, number: int, entry: Entry) -> Type:
        return self.program.typedef_type(self._name(entry) or "", self._next(entry))

    def _qualified(self, number: int, entry: Entry) -> Type:
        one = self.drgn.Qualifiers
        kind = {CONST: one.CONST, VOLATILE: one.VOLATILE, RESTRICT: one.RESTRICT}[entry.kind]
        plain = self._next(entry)
        return plain.qualified(plain.qualifiers | kind)

    def _same(self, number: int, entry: Entry) -> Type:
        return self._next(entry)

    def _function(self, number: int, entry: Entry) -> Type:
        given = list(self.btf.parts(number, "<II"))
        variadic = bool(given) and given[-1] == (0, 0)
        parameters = [
            self.drgn.TypeParameter(partial(self.make, kind), self.btf.string(name) or None)
            for name, kind in (given[:-1] if variadic else given)
        ]
        return self.program.function_type(self._next(entry), parameters, variadic)
