# SPDX-License-Identifier: GPL-2.0-only
"""Types of a kernel from the BTF that it carries (Documentation/bpf/btf.rst).

BTF is a header, a section of types that refer to each other by number, and a section of strings.
`Btf` reads where each type lies once, `BtfTypes` makes drgn's types when they are asked for. Names
of C's integers are those of the compiler (``long unsigned int``), drgn asks for ``unsigned long``.

The data comes out of a dump, so nothing in it is believed: numbers, lengths and names are checked
as they are used, and what is wrong raises `BtfError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from drgn import Object, Program, Type, TypeKindSet, TypeMember

I64 = npt.NDArray[np.int64]
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

    A kernel has more than a hundred thousand, of which few are asked for: where each lies is
    worked out in arrays, and names are looked for in the section of strings when they are wanted.

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
        words = np.frombuffer(data, "<u4", types_size // 4, start)
        #: Words of the section of types, and where in it each type begins; type 0 is void.
        self._words = words
        self._at = _places(words, types_size)
        self._start = start
        none = np.zeros(1, np.int64)
        self._kind = np.append(none, words[self._at + 1] >> 24 & 31)
        self._name = np.append(none, words[self._at])
        self._found: dict[tuple[int, str], int | None] = {}

    def __len__(self) -> int:
        return len(self._name)

    @cached_property
    def _labels(self) -> tuple[I64, I64]:
        """The names of all enumerators, as offsets of strings, and the enum of each."""
        names, owners = [], []
        for kind, size in ((ENUM, 2), (ENUM64, 3)):
            numbers = np.flatnonzero(self._kind == kind)
            first = self._at[numbers - 1]
            counts = self._words[first + 1].astype(np.int64) & 0xFFFF
            owner = np.repeat(numbers, counts)
            within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
            names.append(self._words[np.repeat(first + 3, counts) + within * size])
            owners.append(owner)
        # By the number of their enum: of two of one name the first counts.
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        return np.concatenate(names).astype(np.int64)[order], owner[order]

    def string(self, offset: int) -> str:
        """The string at an offset of the string section. Raises `BtfError` for no such place."""
        end = self.text.find(b"\0", offset)
        if offset >= len(self.text) or end < 0:
            raise BtfError(f"a name is at {offset}, beyond its strings")
        return self.text[offset:end].decode("utf-8", "backslashreplace")

    def _offsets(self, name: str) -> Iterator[int]:
        """All places of a string, first those where it stands alone; it may end another one."""
        wanted = name.encode() + b"\0"
        for alone in (True, False):
            at = self._search(wanted, 0, alone)
            while at >= 0:
                yield at
                at = self._search(wanted, at + 1, alone)

    def _search(self, wanted: bytes, start: int, alone: bool) -> int:
        if not alone:
            return self.text.find(wanted, start)
        found = self.text.find(b"\0" + wanted, max(start - 1, 0))
        return found + 1 if found >= 0 else -1

    def entry(self, number: int) -> Entry:
        """A type by its number. Raises `BtfError` if there is none."""
        if not 0 <= number < len(self):
            raise BtfError(f"a type refers to type {number} of {len(self)}")
        if number == 0:
            return Entry(0, 0, 0, False, 0, 0)
        at = int(self._at[number - 1])
        name, info, size = (int(word) for word in self._words[at : at + 3])
        body = self._start + 4 * at + _TYPE.size
        return Entry(name, info >> 24 & 31, info & 0xFFFF, bool(info >> 31), size, body)

    def find(self, kind: int, name: str) -> int | None:
        """The number of the type of that kind and name, ``None`` if there is none."""
        key = (kind, name)
        if key not in self._found:
            found = self._find(kind, name)
            other = _SPELLING.get(name)
            if found is None and other is not None:
                found = self._find(kind, other)
            self._found[key] = found
        return self._found[key]

    def _find(self, kind: int, name: str) -> int | None:
        if not name:
            return None
        of_kind = np.isin(self._kind, [one for one, meant in _NAMED.items() if meant == kind])
        for offset in self._offsets(name):
            numbers = np.flatnonzero(of_kind & (self._name == offset))
            if len(numbers):
                return int(numbers[0])
        return None

    def enum_of(self, label: str) -> int | None:
        """The number of the enum that has an enumerator of that name, ``None`` if none has."""
        names, owners = self._labels
        for offset in self._offsets(label):
            found = np.flatnonzero(names == offset)
            if len(found):
                return int(owners[found[0]])
        return None

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


def _places(words: npt.NDArray[np.uint32], size: int) -> I64:
    """Where each type begins, in words. Raises `BtfError` where there is none, or not all of it.

    How long a type is stands in its second word. So it is worked out for every word as if a type
    began there, and the real ones are those that one comes to from the first.
    """
    fixed, each = np.zeros(32, np.int64), np.zeros(32, np.int64)
    for of_kind, size_of_it in _FIXED.items():
        fixed[of_kind] = size_of_it // 4
    for of_kind, size_of_it in _EACH.items():
        each[of_kind] = size_of_it // 4
    second = words[1:].astype(np.int64)
    kind = second >> 24 & 31
    known = (kind >= INT) & (kind <= ENUM64)
    length = np.where(known, 3 + fixed[kind] + (second & 0xFFFF) * each[kind], 0)
    steps: list[int] = length.tolist()
    at = 0
    places: list[int] = []
    while at < len(words) or at * 4 < size:
        number = len(places) + 1
        if at + 3 > len(words):
            raise BtfError(f"type {number} is cut short")
        if not steps[at]:
            raise BtfError(f"type {number} is of kind {kind[at]}, which is not known")
        places.append(at)
        at += steps[at]
        if at > len(words):
            raise BtfError(f"type {number} is cut short")
    return np.array(places, np.int64)


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
        self._constants: dict[str, Object | None] = {}
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

    @property
    def made(self) -> list[int]:
        """Numbers of the types that were made so far."""
        return list(self._made)

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

    def enumerator(self, name: str) -> Object | None:
        """The constant of that name as an object of drgn, ``None`` if no enum has it."""
        if name not in self._constants:
            self._constants[name] = self._enumerator(name)
        return self._constants[name]

    def _enumerator(self, name: str) -> Object | None:
        number = self.btf.enum_of(name)
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
