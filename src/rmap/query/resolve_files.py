# SPDX-License-Identifier: GPL-2.0-only
"""File targets to places: which page frames hold the pages of a file.

The image knows a file by the VMAs that map it. An entry at address *a* of such a VMA maps page
``vm_pgoff + (a - vm_start) / PAGE_SIZE`` of the file, unless its page is anonymous: then a write
to a private mapping has put a copy there. So only what somebody maps is found; pages that are
in the page cache and mapped by nobody are not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rmap.errors import TargetError
from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Kpf, Pte
from rmap.query.places import (
    I64,
    U64,
    Places,
    Problem,
    State,
    concatenate,
    make_places,
    no_places,
)
from rmap.query.targets import FileTarget

#: Gives (device, inode) of a path as maps shows them; None or TargetError if there is none.
Identify = Callable[[str], tuple[int, int] | None]
Numbered = list[tuple[int, FileTarget]]

#: Offsets of pages end here, at 2**64 bytes of 4 KiB pages.
_LAST_PAGE = 1 << 52


def resolve_files(
    image: MemoryImage, targets: Numbered, identify: Identify | None, problems: list[Problem]
) -> Places:
    """Return the places of file targets; what cannot be answered is added to ``problems``."""
    by_path: dict[str, Numbered] = {}
    for number, target in targets:
        by_path.setdefault(target.path, []).append((number, target))
    by_files: dict[tuple[int, ...], Numbered] = {}
    for path, some in by_path.items():
        try:
            files = find_files(image, path, identify)
        except TargetError as error:
            problems += [Problem(number, error) for number, _ in some]
        else:
            by_files.setdefault(files, []).extend(some)
    vmas = _vmas_by_file(image) if by_files else {}
    return concatenate([
        _file_places(image, [v for file in files for v in vmas.get(file, [])], some)
        for files, some in by_files.items()
    ])  # fmt: skip


def find_files(image: MemoryImage, path: str, identify: Identify | None) -> tuple[int, ...]:
    """Return the rows of ``image.files`` that are the file at ``path``.

    A file that exists is known by device and inode, under whatever path it is mapped; it may be
    in no row, mapped by nobody. One that does not (any more) is known by its path.

    Raises
    ------
    TargetError
        If there is neither such a file nor such a path in the image.
    """
    missing: TargetError | None = None
    identity = None
    if identify is not None:
        try:
            identity = identify(path)
        except TargetError as error:
            missing = error
    if identity is not None:
        same = (image.files["device"] == identity[0]) & (image.files["inode"] == identity[1])
        return tuple(np.flatnonzero(same).tolist())
    files = tuple(np.flatnonzero(image.files["path"] == path).tolist())
    if files:
        return files
    if missing is not None:
        raise TargetError(f"{missing}; and nobody maps a file of this name")
    raise TargetError(
        f"no file {path!r} is mapped in this image; give its absolute path as maps shows it"
    )


def _vmas_by_file(image: MemoryImage) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for vma, file in enumerate(image.vmas["file"].tolist()):
        if file >= 0:
            rows.setdefault(file, []).append(vma)
    return rows


def _file_places(image: MemoryImage, vmas: list[int], targets: Numbered) -> Places:
    """Resolve targets in one file, which some VMAs map."""
    size = image.page_size
    starts = [t.start // size for _, t in targets]
    ends = [_LAST_PAGE if t.end is None else -(-t.end // size) for _, t in targets]
    offsets, pfns, lengths = file_pages(image, vmas, min(starts), max(ends))
    reach = np.maximum.accumulate(offsets + lengths) if len(offsets) else offsets
    parts = []
    for (number, target), start, end in zip(targets, starts, ends, strict=True):
        low, high = np.searchsorted(reach, start, side="right"), np.searchsorted(offsets, end)
        some = slice(int(low), max(int(low), int(high)))
        first, pfn, length = offsets[some], pfns[some], lengths[some]
        cut_off = np.maximum(start - first, 0)
        stop = np.minimum(first + length, end)
        first, pfn = first + cut_off, pfn + cut_off.astype(np.uint64)
        inside = first < stop
        first, pfn, stop = first[inside], pfn[inside], stop[inside]
        position = first.astype(np.uint64) * np.uint64(size)
        parts.append(make_places(number, State.PRESENT, position, stop - first, pfn=pfn))
        if target.end is not None:
            parts.append(_unmapped(number, start, end, first, stop, size))
    return concatenate(parts)


def _unmapped(number: int, start: int, end: int, first: I64, stop: I64, size: int) -> Places:
    """Return the pages of a range of a file that nobody maps."""
    opens = np.concatenate((np.array([start]), np.maximum.accumulate(stop)))
    closes = np.concatenate((first, np.array([end])))
    gap = opens < closes
    if not gap.any():
        return no_places()
    position = opens[gap].astype(np.uint64) * np.uint64(size)
    return make_places(number, State.HOLE, position, (closes - opens)[gap])


def file_pages(image: MemoryImage, vmas: list[int], start: int, end: int) -> tuple[I64, U64, I64]:
    """Return where pages ``[start, end)`` of a file are, as its VMAs map them.

    Returns
    -------
    (offsets, pfns, lengths) of stretches, by ascending (offset, pfn), all in pages. Stretches
    overlap only where VMAs show different page frames for one page of the file.
    """
    empty = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
    found = [_vma_entries(image, vma, start, end) for vma in vmas]
    rows = np.concatenate([r for r, _ in found]) if found else empty[0]
    if not len(rows):
        return empty
    offsets = np.concatenate([o for _, o in found])
    kept = _pages_of_the_file(image, rows)
    rows, offsets = rows[kept], offsets[kept]
    pfns, orders = image.ptes["pfn"][rows], image.ptes["order"][rows]
    offsets, pfns, orders = _distinct(offsets, pfns, orders)
    lengths = np.int64(1) << orders.astype(np.int64)
    if len(orders) and orders.min() != orders.max():
        # Entries of several sizes for the same pages: only page by page are they comparable.
        pfns = np.repeat(pfns, lengths) + ranges(np.zeros_like(lengths), lengths).astype(np.uint64)
        offsets = ranges(offsets, lengths)
        offsets, pfns, _ = _distinct(offsets, pfns, np.zeros(len(pfns), np.uint8))
        lengths = np.ones(len(pfns), np.int64)
    return offsets, pfns, lengths


def _vma_entries(image: MemoryImage, vma: int, start: int, end: int) -> tuple[I64, I64]:
    """Return (pte rows, offsets in the file in pages) of a VMA's entries for a range of pages."""
    size = image.page_size
    first, last = int(image.vmas["start"][vma]), int(image.vmas["end"][vma])
    pgoff = int(image.vmas["pgoff"][vma])
    low = max(first, first + (start - pgoff) * size)
    high = min(last, first + (end - pgoff) * size)
    if low >= high:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    found = image.find_ptes(int(image.vmas["mm"][vma]), low, high)
    rows = np.arange(found.start, found.stop)
    # A huge entry may begin before the VMA in an image that is damaged: then the offset is, too.
    pages = image.ptes["address"][found].astype(np.int64) - first
    return rows, pgoff + pages // size


def _pages_of_the_file(image: MemoryImage, rows: I64) -> np.typing.NDArray[np.bool_]:
    """Return which entries map a page of the file itself, not an anonymous copy."""
    flags = image.ptes["flags"][rows]
    page = image.find_pages(image.ptes["pfn"][rows])
    of_file = (flags & np.uint32(Pte.FILE)) != 0
    if len(image.pages):
        kpf = image.pages["flags"][np.maximum(page, 0)]
        not_anon = (kpf & np.uint64(Kpf.ANON | Kpf.ZERO_PAGE)) == 0
        of_file = np.where(page >= 0, not_anon, of_file)
    return of_file & ((flags & np.uint32(Pte.PRESENT)) != 0)


def _distinct(
    offsets: I64, pfns: U64, orders: np.typing.NDArray[np.uint8]
) -> tuple[I64, U64, np.typing.NDArray[np.uint8]]:
    """Sort by (offset, pfn, order) and drop what is there twice."""
    by = np.lexsort((orders, pfns, offsets))
    offsets, pfns, orders = offsets[by], pfns[by], orders[by]
    new = np.ones(len(by), np.bool_)
    new[1:] = (offsets[1:] != offsets[:-1]) | (pfns[1:] != pfns[:-1]) | (orders[1:] != orders[:-1])
    return offsets[new], pfns[new], orders[new]
