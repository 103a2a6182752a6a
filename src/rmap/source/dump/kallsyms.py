# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own table of symbols, out of its memory (kernel/kallsyms.c).

A name is stored as bytes that each stand for a piece of text. Few of the two hundred thousand names
are asked for, so that all are put together at once, in arrays, and looked for in what comes out.
Where the parts of the table lie is in VMCOREINFO since 6.0.

The table comes out of a dump, so nothing in it is believed; what is wrong raises `SymbolError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from drgn import Program, Symbol

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
_TOKENS = 256
#: What a token may stand for at most, and names take: the kernel's own limits are lower.
_TOKEN_TABLE = 1 << 14
_LARGEST_NAMES = 1 << 26
_MOST_SYMBOLS = 1 << 22
_BIG = 0x80
_ADDRESS = 0xFFFF_FFFF_FFFF_FFFF
_PARTS = ("names", "token_table", "token_index", "num_syms", "offsets", "relative_base")
#: Letters of nm(1) that stand for data.
_DATA = "srbgncd"
#: A stored name has a length of at most two bytes, and fewer tokens than letters (KSYM_NAME_LEN).
_MOST_BYTES_A_NAME = 514
_PAGE_MASK = 4095


class SymbolError(LookupError):
    """There is no table of symbols, or it is damaged."""


class Kallsyms:
    """Symbols by name and by address; `find` is a symbol finder of drgn.

    Parameters
    ----------
    program
        Whose memory has the table.
    places
        Addresses by the names of VMCOREINFO's ``SYMBOL()`` lines.

    Raises `SymbolError` if there is no table, ``drgn.FaultError`` if it is not in the dump.
    """

    def __init__(self, program: Program, places: Mapping[str, int]) -> None:
        at = {name: places.get(f"kallsyms_{name}", 0) for name in _PARTS}
        lacking = [name for name, address in at.items() if not address]
        if lacking:
            raise SymbolError(f"VMCOREINFO has no kallsyms_{lacking[0]}")
        self.program = program
        count = program.read_u32(at["num_syms"])
        if not 0 < count <= _MOST_SYMBOLS:
            raise SymbolError(f"kallsyms has {count} symbols")
        tokens, lengths = self._tokens(at)
        stored, owner = _split(self._stored(at, count), count)
        self._found: dict[str, list[int]] = {}
        self._text, self._starts = _expand(stored, owner, tokens, lengths, count)
        offsets = np.frombuffer(program.read(at["offsets"], 4 * count), "<u4")
        base = program.read_u64(at["relative_base"])
        self._addresses = self._absolute(offsets, base, places.get("_stext", 0))
        self._order = np.argsort(self._addresses, kind="stable")
        self._ascending = self._addresses[self._order]

    def _tokens(self, at: Mapping[str, int]) -> tuple[U8, I64]:
        """What each token stands for, as a row of bytes, and how many these are."""
        index = np.frombuffer(self.program.read(at["token_index"], 2 * _TOKENS), "<u2")
        table = self.program.read(at["token_table"], _TOKEN_TABLE)
        texts = [table[start : max(table.find(b"\0", start), start)] for start in index.tolist()]
        lengths = np.array([len(text) for text in texts], np.int64)
        rows = np.zeros((_TOKENS, int(lengths.max(initial=1))), np.uint8)
        for token, text in enumerate(texts):
            rows[token, : len(text)] = np.frombuffer(text, np.uint8)
        return rows, lengths

    def _stored(self, at: Mapping[str, int], count: int) -> bytes:
        """The stored names, and some of what comes behind them."""
        import drgn

        behind = [address for address in at.values() if address > at["names"]]
        size = min(
            min(behind, default=_ADDRESS) - at["names"], count * _MOST_BYTES_A_NAME, _LARGEST_NAMES
        )
        try:
            return self.program.read(at["names"], size)
        except drgn.FaultError:
            return self._piecewise(at["names"], size)

    def _piecewise(self, start: int, size: int) -> bytes:
        """What can be read from an address on, page by page, up to the first that is missing."""
        import drgn

        pieces = []
        at = start
        while at < start + size:
            end = min((at | _PAGE_MASK) + 1, start + size)
            try:
                pieces.append(self.program.read(at, end - at))
            except drgn.FaultError:
                break
            at = end
        return b"".join(pieces)

    def _absolute(self, offsets: npt.NDArray[np.uint32], base: int, stext: int) -> U64:
        """Addresses of symbols: relative to a base, and if negative backwards from it.

        Whether the sign counts (CONFIG_KALLSYMS_ABSOLUTE_PERCPU, until 6.14) is told by the symbol
        whose address VMCOREINFO has.
        """
        plain = np.uint64(base) + offsets.astype("u8")
        signed = offsets.view(np.int32).astype(np.int64)
        backwards = np.uint64(base - 1) - signed.astype("u8")
        mixed = np.where(signed >= 0, offsets.astype("u8"), backwards)
        rows = self._rows("_stext")
        return mixed if any(int(mixed[row]) == stext for row in rows) else plain

    def _rows(self, name: str) -> list[int]:
        """The numbers of the symbols of that name. They are kept: the same are asked for often."""
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> list[int]:
        wanted = name.encode("utf-8", "surrogateescape") + b"\0"
        rows, at = [], self._text.find(wanted)
        while at >= 0:
            row = int(np.searchsorted(self._starts, at, side="right")) - 1
            # In front of a name is the letter of its kind.
            if row >= 0 and int(self._starts[row]) == at - 1:
                rows.append(row)
            at = self._text.find(wanted, at + 1)
        return rows

    def _symbol(self, row: int) -> Symbol:
        import drgn

        start = int(self._starts[row])
        end = self._text.find(b"\0", start)
        name = self._text[start + 1 : end].decode("utf-8", "backslashreplace")
        letter = self._text[start : start + 1].decode("latin-1")
        binding, kind = drgn.SymbolBinding.UNKNOWN, drgn.SymbolKind.UNKNOWN
        if letter in "vw":
            binding = drgn.SymbolBinding.WEAK
        elif letter.isupper():
            binding = drgn.SymbolBinding.GLOBAL
        if letter in "tT":
            kind = drgn.SymbolKind.FUNC
        elif letter.lower() in _DATA or letter == "v":
            kind = drgn.SymbolKind.OBJECT
        address = int(self._addresses[row])
        at = int(np.searchsorted(self._ascending, np.uint64(address), side="right"))
        following = int(self._addresses[self._order[at]]) if at < len(self._order) else address
        return drgn.Symbol(name, address, following - address, binding, kind)

    def find(
        self, program: Program, name: str | None, address: int | None, one: bool
    ) -> list[Symbol]:
        """The symbols of a name, or those that an address lies in; all of them for neither."""
        rows: Any
        if name is not None:
            rows = self._rows(name)
        elif address is not None:
            at = np.searchsorted(self._ascending, np.uint64(address), side="right")
            rows = [int(self._order[at - 1])] if at else []
        else:
            rows = range(len(self._starts))
        return [self._symbol(row) for row in (rows[:1] if one else rows)]


def _split(data: bytes, count: int) -> tuple[U8, I64]:
    """The tokens of all names, and of which name each is. Raises `SymbolError`.

    In front of each name stands how many tokens it has, in one byte or (since 6.1) in two.
    """
    at = 0
    starts, lengths = [], []
    try:
        for _ in range(count):
            length = data[at]
            at += 1
            if length & _BIG:
                length = length & ~_BIG | data[at] << 7
                at += 1
            starts.append(at)
            lengths.append(length)
            at += length
    except IndexError:
        at = len(data) + 1
    if at > len(data):
        raise SymbolError("the names of symbols go on beyond their place")
    size = np.array(lengths, np.int64)
    owner = np.repeat(np.arange(count, dtype=np.int64), size)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
    return np.frombuffer(data, np.uint8)[np.repeat(np.array(starts), size) + within], owner


def _expand(stored: U8, owner: I64, tokens: U8, lengths: I64, count: int) -> tuple[bytes, I64]:
    """All names, each with a NUL behind it, and where each begins."""
    size = lengths[stored]
    total = np.bincount(owner, weights=size, minlength=count).astype(np.int64) + 1
    starts = np.cumsum(total) - total
    # Each piece lies behind all before it, and behind the NULs of the names before.
    place = np.cumsum(size) - size + owner
    text = np.zeros(int(total.sum()), np.uint8)
    for column in range(tokens.shape[1]):
        longer = size > column
        text[place[longer] + column] = tokens[stored[longer], column]
    return text.tobytes(), starts


def vmcoreinfo_symbols(note: bytes) -> dict[str, int]:
    """Addresses by the names of ``SYMBOL()`` lines."""
    found = {}
    for line in note.decode("ascii", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("SYMBOL(") and name.endswith(")"):
            try:
                found[name[7:-1]] = int(value, 16)
            except ValueError:
                continue
    return found
