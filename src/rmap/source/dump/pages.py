# SPDX-License-Identifier: GPL-2.0-only
"""Page frames as /proc/kpageflags and /proc/kpagecount would show them, from struct page.

fs/proc/page.c and include/linux/mm.h, with the rules of the kernel at hand: which bits mark a page
of slab, of hugetlb, a free one, and how mappings of a huge page are counted, has changed. All of it
is done for all pages at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Kpf
from rmap.source.dump.facts import Facts
from rmap.source.dump.memmap import MemoryMap
from rmap.source.dump.records import U64, Bools, member_offset

if TYPE_CHECKING:
    from drgn import Program

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
ANON, MOVABLE, KSM = np.uint64(1), np.uint64(2), np.uint64(3)
_TAGS = np.uint64(3)
_TAIL = np.uint64(1)
#: Page flags that are shown under a name of their own.
_FLAGS: tuple[tuple[str, Kpf], ...] = (
    ("PG_locked", Kpf.LOCKED), ("PG_error", Kpf.ERROR), ("PG_referenced", Kpf.REFERENCED),
    ("PG_uptodate", Kpf.UPTODATE), ("PG_dirty", Kpf.DIRTY), ("PG_lru", Kpf.LRU),
    ("PG_active", Kpf.ACTIVE), ("PG_writeback", Kpf.WRITEBACK), ("PG_reclaim", Kpf.RECLAIM),
    ("PG_swapbacked", Kpf.SWAPBACKED), ("PG_unevictable", Kpf.UNEVICTABLE),
    ("PG_mlocked", Kpf.MLOCKED), ("PG_hwpoison", Kpf.HWPOISON), ("PG_reserved", Kpf.RESERVED),
    ("PG_private", Kpf.PRIVATE), ("PG_private_2", Kpf.PRIVATE_2), ("PG_idle", Kpf.IDLE),
    ("PG_mappedtodisk", Kpf.OWNER_2), ("PG_owner_2", Kpf.OWNER_2),
    ("PG_owner_priv_1", Kpf.OWNER_PRIVATE), ("PG_arch_1", Kpf.ARCH),
    ("PG_uncached", Kpf.UNCACHED), ("PG_arch_2", Kpf.ARCH_2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pages:
    """All page frames: rows as those of the memory map.

    `head` is the row of the compound page's head (its own for a small page, -1 if that is not in
    the dump), `order` that compound page's order, `hugetlb` and `typed` say that the page is such,
    `mapping` and `index` are the head's and the page's place.
    """

    map: MemoryMap
    head: I64
    order: npt.NDArray[np.uint8]
    hugetlb: Bools
    typed: Bools
    mapping: U64
    index: U64
    entire: I32
    mapcount: I32
    kpf: U64


def read_pages(program: Program, facts: Facts, memory: MemoryMap) -> Pages:
    """Work out what the frames are."""
    head = _heads(memory)
    order = _orders(program, facts, memory, head)
    typed, kind = _types(facts, memory)
    hugetlb = _hugetlb(program, facts, memory, head, order, kind)
    # A typed page keeps its type where others count mappings; hugetlb's heads are typed and mapped.
    typed &= ~hugetlb
    slab = _slab(facts, memory, kind)
    # What a page that is free, or one of slab, has in its place, is no mapping. A tail has the type
    # and the references of its head.
    free = memory["refcount"][head] == 0
    other = (typed | slab)[head] | free & (memory["mapcount"] < 0)
    mapping = np.where(other, np.uint64(0), memory["mapping"][head])
    index = _indices(facts, memory, head, order, hugetlb)
    entire = _entire(program, facts, memory, head, order)
    mapcount = _mapcounts(facts, memory, head, order, hugetlb, typed | slab, mapping, entire)
    kpf = _kpf(facts, memory, head, order, hugetlb, kind, slab, mapping, mapcount)
    return Pages(memory, head, order, hugetlb, typed, mapping, index, entire, mapcount, kpf)


def _heads(memory: MemoryMap) -> I64:
    """The row of each page's head; of a tail whose head is not there its own."""
    word = memory["compound_head"]
    tail = word & _TAIL != 0
    rows = np.arange(len(memory), dtype=np.int64)
    heads = memory.row_of(memory.pfn_of(word[tail] - _TAIL))
    rows[tail] = np.where(heads >= 0, heads, rows[tail])
    return rows


def _is_head(facts: Facts, memory: MemoryMap) -> Bools:
    return memory["flags"] & np.uint64(facts.flag("PG_head")) != 0


def _orders(program: Program, facts: Facts, memory: MemoryMap, head: I64
            ) -> npt.NDArray[np.uint8]:  # fmt: skip
    """The order of the compound page that each page is part of: written in the first tail."""
    order = np.zeros(len(memory), np.uint8)
    heads = np.flatnonzero(_is_head(facts, memory))
    order[heads] = memory.words(memory.pfn[heads], *_order_place(program)) & np.uint64(0xFF)
    order[order > 18] = 0
    return order[head]


def _order_place(program: Program) -> tuple[int, int]:
    """Where the order of a compound page stands: bytes after the head's start, and how many."""
    size = program.type("struct page").size
    for kind, path, base in (
        ("struct folio", "_folio_order", 0),
        ("struct page", "compound_order", size),
        ("struct folio", "_flags_1", 0),
    ):
        at = member_offset(program, kind, path)
        if at is not None:
            return base + at, 1
    raise LookupError("neither struct folio nor struct page has the order of a compound page")


def _types(facts: Facts, memory: MemoryMap) -> tuple[Bools, npt.NDArray[np.int64]]:
    """Which pages are typed, and the word that says as what."""
    word = memory["mapcount"].astype(np.int64)
    return word < -1, word & 0xFFFF_FFFF


def _is_type(facts: Facts, kind: npt.NDArray[np.int64], name: str) -> Bools:
    """Whether pages are typed as something, by the word that says so."""
    told = facts.page_type(name)
    if told is None:
        return np.zeros(len(kind), bool)
    mask, value = told
    return np.asarray(kind & mask == value)


def _slab(facts: Facts, memory: MemoryMap, kind: npt.NDArray[np.int64]) -> Bools:
    """Pages of slab: by their type, or by their flag."""
    mask = facts.flag("PG_slab")
    if facts.page_type("slab") is None and mask:
        return np.asarray(memory["flags"] & np.uint64(mask) != 0)
    return _is_type(facts, kind, "slab")


def _hugetlb(
    program: Program, facts: Facts, memory: MemoryMap, head: I64,
    order: npt.NDArray[np.uint8], kind: npt.NDArray[np.int64],
) -> Bools:  # fmt: skip
    """Pages of hugetlb: by the head's type, by its destructor, or by a flag of its first tail."""
    huge = np.zeros(len(memory), bool)
    if facts.page_type("hugetlb") is not None:
        return np.asarray(_is_type(facts, kind, "hugetlb")[head])
    heads = np.flatnonzero(_is_head(facts, memory))
    size = program.type("struct page").size
    if facts.hugetlb_destructor is not None:
        at = member_offset(program, "struct page", "compound_dtor")
        where = (
            size + at if at is not None else member_offset(program, "struct folio", "_folio_dtor")
        )
        if where is None:
            return huge
        huge[heads] = memory.words(memory.pfn[heads], where, 1) == facts.hugetlb_destructor
    elif facts.flag("PG_hugetlb"):
        flags = memory.words(memory.pfn[heads], size, 8)
        huge[heads] = flags & np.uint64(facts.flag("PG_hugetlb")) != 0
    return np.asarray(huge[head])


def _indices(facts: Facts, memory: MemoryMap, head: I64, order: npt.NDArray[np.uint8],
             hugetlb: Bools) -> U64:  # fmt: skip
    """page_to_pgoff(): the head's index and how far behind the head the page is."""
    index = memory["index"][head].copy()
    shift = order[hugetlb].astype("u8")
    in_base_pages = facts.hugetlb_index_in_base_pages
    if in_base_pages is None:
        # A place in a file of huge pages that is no multiple of their size can only count these.
        in_base_pages = bool(np.all(index[hugetlb] >> shift << shift == index[hugetlb]))
    if not in_base_pages:
        index[hugetlb] <<= shift
    return np.asarray(index + (memory.pfn - memory.pfn[head]))


def _entire(program: Program, facts: Facts, memory: MemoryMap, head: I64,
            order: npt.NDArray[np.uint8]) -> I32:  # fmt: skip
    """How often the compound page of each page is mapped as a whole."""
    path = facts.compound_mapcount_path
    kind = "struct folio" if path.startswith("_entire") else "struct page"
    offset = member_offset(program, kind, path)
    assert offset is not None
    if kind == "struct page":
        offset += program.type("struct page").size
    heads = np.flatnonzero(_is_head(facts, memory))
    entire = np.zeros(len(memory), np.int32)
    stored = memory.words(memory.pfn[heads], offset, 4).astype(np.uint32).view(np.int32)
    entire[heads] = (stored.astype(np.int64) + 1).astype(np.int32)
    return np.asarray(entire[head])


def _mapcounts(
    facts: Facts, memory: MemoryMap, head: I64, order: npt.NDArray[np.uint8], hugetlb: Bools,
    typed: Bools, mapping: U64, entire: I32,
) -> I32:  # fmt: skip
    """What /proc/kpagecount shows: page_mapcount(), by the rules of this kernel."""
    own = (memory["mapcount"].astype(np.int64) + 1).astype(np.int32)
    compound = order > 0
    count = own + np.where(compound, entire, 0).astype(np.int32)
    if facts.has_double_map:
        # Until 6.1 a PMD mapping of a file counts in every sub page as well, and an anonymous huge
        # page that PMDs and PTEs map has one more in each.
        anon = mapping & ANON != 0
        count = np.where(compound & ~anon & ~hugetlb, own, count)
        double = _first_tail_flag(facts, memory, head, "PG_double_map")
        count = count - (compound & anon & ~hugetlb & double)
    count = np.where(hugetlb, entire, count)
    return np.where(typed, 0, count).astype(np.int32)


def _first_tail_flag(facts: Facts, memory: MemoryMap, head: I64, name: str) -> Bools:
    """Whether the first tail of each page's compound page has a flag."""
    tail = memory.row_of(memory.pfn[head] + np.uint64(1))
    flags = np.where(tail >= 0, memory["flags"][tail], np.uint64(0))
    return np.asarray(flags & np.uint64(facts.flag(name)) != 0)


def _kpf(
    facts: Facts, memory: MemoryMap, head: I64, order: npt.NDArray[np.uint8], hugetlb: Bools,
    kind: npt.NDArray[np.int64], slab: Bools, mapping: U64, mapcount: I32,
) -> U64:  # fmt: skip
    """The bits of /proc/kpageflags."""
    flags = memory["flags"]
    kpf = np.zeros(len(memory), "u8")

    def put(bit: Kpf, where: Any) -> None:
        kpf[where] |= np.uint64(bit)

    tail = memory["compound_head"] & _TAIL != 0
    if facts.tail_flags_mean_nothing:
        poison = np.uint64(facts.flag("PG_hwpoison"))
        flags = np.where(tail, flags[head] & ~poison | flags & poison, flags)
    for name, bit in _FLAGS:
        mask = facts.flag(name)
        if mask:
            put(bit, flags & np.uint64(mask) != 0)
    compound = order > 0
    swapcache = np.uint64(facts.flag("PG_swapcache") | facts.flag("PG_swapbacked"))
    put(Kpf.SWAPCACHE, flags & swapcache == swapcache)
    put(Kpf.COMPOUND_HEAD, _is_head(facts, memory))
    put(Kpf.COMPOUND_TAIL, tail)
    put(Kpf.HUGE, hugetlb)
    lru = flags[head] & np.uint64(facts.flag("PG_lru")) != 0
    put(Kpf.THP, compound & ~hugetlb & (lru | (mapping & ANON != 0)))
    put(Kpf.ANON, mapping & ANON != 0)
    put(Kpf.KSM, mapping & _TAGS == KSM)
    put(Kpf.MMAP, mapcount > 0)
    put(Kpf.SLAB, slab[head])
    put(Kpf.BUDDY, _is_type(facts, kind, "buddy"))
    put(Kpf.OFFLINE, _is_type(facts, kind, "offline"))
    put(Kpf.PGTABLE, _is_type(facts, kind, "table"))
    for first, count in facts.zero_pages:
        put(Kpf.ZERO_PAGE, (memory.pfn >= first) & (memory.pfn < first + count))
    return kpf


@dataclass(frozen=True, slots=True)
class Compounds:
    """Compound pages that are no slab: rows of their heads, and what the kernel counts of them.

    `large` and `parts` are ``None`` in kernels that do not count so.
    """

    head: I64
    order: npt.NDArray[np.uint8]
    entire: I32
    large: I32 | None
    parts: I32 | None


def read_compounds(program: Program, facts: Facts, pages: Pages) -> Compounds:
    """Read the counts of huge pages that lie in their tails."""
    memory = pages.map
    heads = np.flatnonzero(
        _is_head(facts, memory) & (pages.order > 0) & ~pages.typed
        & (pages.kpf & np.uint64(Kpf.SLAB) == 0)
    )  # fmt: skip

    def counts(path: str) -> I32 | None:
        at = member_offset(program, "struct folio", path)
        if at is None:
            return None
        return memory.words(memory.pfn[heads], at, 4).astype(np.uint32).view(np.int32)

    large, parts = counts("_large_mapcount.counter"), counts("_nr_pages_mapped.counter")
    if large is not None:
        large = (large.astype(np.int64) + 1).astype(np.int32)
    return Compounds(heads, pages.order[heads], pages.entire[heads], large, parts)
