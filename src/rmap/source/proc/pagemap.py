# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/PID/pagemap``: one 64-bit word a page of address space.

A hole costs 2.5 ns a page to read, a present page 41 ns; the ioctl PAGEMAP_SCAN (since 6.7) skips
holes at 0.06 ns a page, but costs as much as a read where pages are present. So ranges are read
as they are, and only very large ones are scanned first.

A pagemap word does not tell whether the page is mapped by a PTE or by a PMD; PAGEMAP_SCAN does.
It is asked only for the blocks that could be one: 512 consecutive frames, aligned, at an aligned
address. Where the kernel has no PAGEMAP_SCAN, such a block stays 512 entries; every count is
the same.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Pte
from rmap.source.proc.files import Gone, path_of, process_errors

U64 = npt.NDArray[np.uint64]

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
PMD_PAGES = 512
PMD_ORDER = 9

# Documentation/admin-guide/mm/pagemap.rst
_PFN_MASK = np.uint64((1 << 55) - 1)
_PRESENT = 1 << 63
_SWAPPED = 1 << 62
_GUARD = 1 << 58
_ANY = np.uint64(_PRESENT | _SWAPPED | _GUARD)
_FLAG_OF_BIT = (
    (63, Pte.PRESENT),
    (62, Pte.SWAP),
    (61, Pte.FILE),
    (58, Pte.GUARD),
    (57, Pte.UFFD_WP),
    (56, Pte.EXCLUSIVE),
    (55, Pte.SOFT_DIRTY),
)
#: The 16 bits 48-63 of a word, to the Pte flags they mean; the lower ones of them belong to the
#: frame number and are masked out.
_FLAGS_OF_TOP = np.zeros(1 << 9, np.uint32)
for _bit, _flag in _FLAG_OF_BIT:
    _FLAGS_OF_TOP[(np.arange(1 << 9) >> (_bit - 55)) & 1 == 1] |= np.uint32(_flag)

_SWAP_TYPE_MASK = np.uint64(0x1F)
_SWAP_TYPE_BITS = np.uint64(5)
#: Swap types from here up are not swap areas: migration, hwpoison and device entries, markers.
#: The kernel's MAX_SWAPFILES depends on its configuration; 23 is the smallest there has been.
FIRST_SPECIAL_SWAP_TYPE = 23

#: Ranges longer than this are scanned for what is populated before they are read.
SCAN_PAGES = 1 << 18
#: Two ranges closer than this are read as one: a hole this long costs less than a system call.
JOIN_PAGES = 512
#: Words read at once.
CHUNK_PAGES = 1 << 20


class _ScanArgument(ctypes.Structure):
    """``struct pm_scan_arg`` (``include/uapi/linux/fs.h``)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        )
    )


_PAGEMAP_SCAN = 3 << 30 | ctypes.sizeof(_ScanArgument) << 16 | ord("f") << 8 | 16
_IS_PRESENT = 1 << 3
_IS_SWAPPED = 1 << 4
_IS_HUGE = 1 << 6
_VECTOR_LENGTH = 1 << 14
_region_type = np.dtype([("start", "u8"), ("end", "u8"), ("categories", "u8")])


@dataclass(slots=True)
class Entries:
    """The page-table entries of one address space, by ascending address.

    ``words`` are the pagemap words; ``orders`` is 0, or 9 where one PMD maps the block.
    """

    addresses: U64
    words: U64
    orders: npt.NDArray[np.uint8]

    @property
    def flags(self) -> npt.NDArray[np.uint32]:
        """Pte bits of each entry."""
        flags = _FLAGS_OF_TOP[(self.words >> np.uint64(55)).astype(np.int64)]
        special = (flags & np.uint32(Pte.SWAP)) != 0
        special &= (self.words & _SWAP_TYPE_MASK) >= FIRST_SPECIAL_SWAP_TYPE
        if special.any():
            flags = np.where(special, flags | np.uint32(Pte.MIGRATION), flags)
        return flags

    @property
    def pfns(self) -> U64:
        """Frame number of each present entry; the swap entry (type | offset << 5) of others."""
        return self.words & _PFN_MASK


def no_entries() -> Entries:
    """The entries of an empty address space."""
    empty = np.empty(0, np.uint64)
    return Entries(empty, empty, np.empty(0, np.uint8))


class Pagemap:
    """One open ``/proc/PID/pagemap``.

    Raises `Gone` or `Denied` when opened or read.

    >>> with Pagemap(os.getpid()) as pagemap:  # doctest: +SKIP
    ...     pagemap.read([(0x400000, 0x500000)])
    """

    #: Whether this kernel has PAGEMAP_SCAN; None until it was tried.
    _can_scan: bool | None = None

    def __init__(self, pid: int, task: int | None = None) -> None:
        with process_errors():
            self._fd = os.open(path_of(pid, "pagemap", task), os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Pagemap:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, ranges: list[tuple[int, int]]) -> Entries:
        """Return what the entries of ``ranges`` (ascending, disjoint addresses) hold.

        All are of order 0, as ``pagemap`` shows them; see :meth:`fold_huge`.
        """
        positions, words = [], []
        for first, last in self._populated(join_ranges(ranges)):
            for start in range(first, last, CHUNK_PAGES):
                found = self._read_words(start, min(CHUNK_PAGES, last - start))
                used = np.flatnonzero(found & _ANY)
                if len(used):
                    words.append(found if len(used) == len(found) else found[used])
                    positions.append(used.astype(np.uint64) + np.uint64(start))
        if not words:
            return no_entries()
        pages, entries = np.concatenate(positions), np.concatenate(words)
        return Entries(pages << np.uint64(PAGE_SHIFT), entries, np.zeros(len(pages), np.uint8))

    def _read_words(self, page: int, count: int) -> U64:
        with process_errors():
            data = os.pread(self._fd, count * 8, page * 8)
        if not data:
            raise Gone("its memory is gone")
        return np.frombuffer(data, np.uint64, len(data) // 8)

    def _populated(self, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Replace long ranges of pages by their populated parts, where the kernel can tell."""
        parts: list[tuple[int, int]] = []
        for first, last in ranges:
            if last - first <= SCAN_PAGES:
                parts.append((first, last))
                continue
            found = self._scan(first, last, _IS_PRESENT | _IS_SWAPPED)
            if found is None:
                parts.append((first, last))
                continue
            pages = zip(
                (found["start"] >> PAGE_SHIFT).tolist(),
                (found["end"] >> PAGE_SHIFT).tolist(),
                strict=True,
            )
            parts.extend(_join(list(pages)))
        return parts

    def _scan(self, first: int, last: int, categories: int) -> npt.NDArray[np.void] | None:
        """Return the regions of pages of any of ``categories``; None if the kernel can't tell."""
        if Pagemap._can_scan is False:
            return None
        vector = np.empty(_VECTOR_LENGTH, _region_type)
        argument = _ScanArgument(
            size=ctypes.sizeof(_ScanArgument),
            end=last << PAGE_SHIFT,
            vec=vector.ctypes.data,
            vec_len=_VECTOR_LENGTH,
            category_anyof_mask=categories,
            return_mask=categories,
        )
        found, start = [], first << PAGE_SHIFT
        while start < last << PAGE_SHIFT:
            argument.start = start
            try:
                with process_errors():
                    count = fcntl.ioctl(self._fd, _PAGEMAP_SCAN, argument)
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                Pagemap._can_scan = False
                return None
            Pagemap._can_scan = True
            found.append(vector[:count].copy())
            start = argument.walk_end
        return np.concatenate(found) if found else np.empty(0, _region_type)

    def fold_huge(self, entries: Entries) -> Entries:
        """Return ``entries`` with each block that one PMD maps as a single entry of order 9."""
        heads = candidates(entries.addresses >> np.uint64(PAGE_SHIFT), entries.words)
        if not len(heads):
            return entries
        addresses = entries.addresses[heads]
        huge = np.zeros(len(heads), np.bool_)
        for group in _runs(addresses):
            first = int(addresses[group.start]) >> PAGE_SHIFT
            last = (int(addresses[group.stop - 1]) >> PAGE_SHIFT) + PMD_PAGES
            regions = self._scan(first, last, _IS_HUGE)
            if regions is None:
                return entries
            if len(regions):
                at = np.searchsorted(regions["start"], addresses[group], side="right") - 1
                ends = regions["end"][np.maximum(at, 0)]
                huge[group] = (at >= 0) & (addresses[group] < ends)
        heads = heads[huge]
        keep = np.ones(len(entries.words), np.bool_)
        keep[(heads[:, None] + np.arange(1, PMD_PAGES)).ravel()] = False
        orders = entries.orders.copy()
        orders[heads] = PMD_ORDER
        return Entries(entries.addresses[keep], entries.words[keep], orders[keep])


def join_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Turn ranges of addresses into ranges of pages, those close to each other joined.

    >>> join_ranges([(0x1000, 0x2000), (0x3000, 0x4000)])
    [(1, 4)]
    """
    return _join([(start >> PAGE_SHIFT, end >> PAGE_SHIFT) for start, end in ranges])


def _join(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and first - joined[-1][1] <= JOIN_PAGES:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined


def candidates(pages: U64, words: U64) -> npt.NDArray[np.int64]:
    """Return where 512 entries follow that one PMD could hold.

    That is: an aligned page, an aligned frame, and 511 more of both in sequence, all present.
    """
    if len(pages) < PMD_PAGES:
        return np.empty(0, np.int64)
    low = np.uint64(PMD_PAGES - 1)
    first, last = pages[: -PMD_PAGES + 1], pages[PMD_PAGES - 1 :]
    heads = np.flatnonzero((first & low == 0) & (last - first == low))
    pfns = words & _PFN_MASK
    present = (words >> np.uint64(63)).astype(np.bool_)
    heads = heads[present[heads] & (pfns[heads] & low == 0)]
    # Only the last word can be compared for all at once; the few that pass are looked through.
    heads = heads[pfns[heads + PMD_PAGES - 1] - pfns[heads] == low]
    steps = np.arange(PMD_PAGES)
    sequence = np.array(
        [
            bool(
                present[head : head + PMD_PAGES].all()
                and (pfns[head : head + PMD_PAGES] - pfns[head] == steps).all()
            )
            for head in heads.tolist()
        ],
        np.bool_,
    )
    return heads[sequence]


def _runs(addresses: U64) -> list[slice]:
    """Group blocks that follow each other closely, so that one scan serves many."""
    cuts = np.flatnonzero(np.diff(addresses) > np.uint64(16 * PMD_PAGES * PAGE_SIZE)) + 1
    bounds = [0, *cuts.tolist(), len(addresses)]
    return [slice(a, b) for a, b in pairwise(bounds)]
