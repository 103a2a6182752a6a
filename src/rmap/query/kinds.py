# SPDX-License-Identifier: GPL-2.0-only
"""What a page is, told from its flags in ``/proc/kpageflags``: the one place that decides it.

The flags of one page may name several kinds. The first of these that holds is the kind:

=========  =========================================================================
hwpoison   KPF_HWPOISON: taken out of use, whatever it was
offline    KPF_OFFLINE: given back to a hypervisor (balloon, virtio-mem)
free       KPF_BUDDY
slab       KPF_SLAB
pgtable    KPF_PGTABLE
zero       KPF_ZERO_PAGE: the zero page, small or huge
hugetlb    KPF_HUGE
ksm        KPF_KSM (such a page has KPF_ANON too)
anon_huge  KPF_ANON and KPF_THP: anonymous, in a large folio
anon       KPF_ANON
shmem      KPF_SWAPBACKED: tmpfs, memfd, System V and shared anonymous memory
file       KPF_LRU, KPF_MMAP or KPF_THP: the page cache of other files
reserved   KPF_RESERVED, or KPF_NOPAGE: firmware, the kernel's image, no page at all
other      none of these: the kernel's own, or free and held back by one CPU
=========  =========================================================================

What the flags do not tell, and so this does not either:

* KPF_THP is set for a large folio of any order, 16 KiB as well as 2 MiB. Its size is to be seen
  from heads and tails: `rmap.query.folios`.
* A page that was read from swap ahead of any use has no owner yet, and looks like shmem.
* Pages of drivers that are mapped to user space (KPF_MMAP off the LRU) count as file: the
  kernel counts them so in RSS.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]


class Kind(IntEnum):
    """Kinds of pages; ``Kind(code).name.lower()`` is the name that users see."""

    ANON = 0
    ANON_HUGE = 1
    FILE = 2
    SHMEM = 3
    KSM = 4
    HUGETLB = 5
    ZERO = 6
    SLAB = 7
    PGTABLE = 8
    FREE = 9
    OFFLINE = 10
    HWPOISON = 11
    RESERVED = 12
    OTHER = 13


#: Names by code.
KIND_NAMES = tuple(kind.name.lower() for kind in Kind)

#: Kinds whose pages belong to an anon_vma; RssAnon counts them.
ANONYMOUS = (Kind.ANON, Kind.ANON_HUGE, Kind.KSM)

# The last that holds wins: the order of the table above, upside down.
_RULES: tuple[tuple[Kind, Kpf], ...] = (
    (Kind.RESERVED, Kpf.RESERVED | Kpf.NOPAGE),
    (Kind.FILE, Kpf.LRU | Kpf.MMAP | Kpf.THP),
    (Kind.SHMEM, Kpf.SWAPBACKED),
    (Kind.ANON, Kpf.ANON),
    (Kind.KSM, Kpf.KSM),
    (Kind.HUGETLB, Kpf.HUGE),
    (Kind.ZERO, Kpf.ZERO_PAGE),
    (Kind.PGTABLE, Kpf.PGTABLE),
    (Kind.SLAB, Kpf.SLAB),
    (Kind.FREE, Kpf.BUDDY),
    (Kind.OFFLINE, Kpf.OFFLINE),
    (Kind.HWPOISON, Kpf.HWPOISON),
)
_ANON_THP = np.uint64(Kpf.ANON | Kpf.THP)
#: Flags that every page of a large or compound page has.
_LARGE = np.uint64(Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL | Kpf.THP)
#: Pages are classified this many at a time, which keeps the steps between in the cache.
_CHUNK = 1 << 18


def classify(flags: npt.ArrayLike) -> U8:
    """Return the :class:`Kind` of pages with these KPF_ flags, as ``uint8`` codes.

    >>> [KIND_NAMES[code] for code in classify([Kpf.ANON | Kpf.KSM, Kpf.LRU, 0])]
    ['ksm', 'file', 'other']
    """
    wanted = np.asarray(flags, np.uint64)
    kinds = np.full(len(wanted), Kind.OTHER, np.uint8)
    for start in range(0, len(wanted), _CHUNK):
        part, out = wanted[start : start + _CHUNK], kinds[start : start + _CHUNK]
        for kind, bits in _RULES:
            out[(part & np.uint64(bits)) != 0] = kind
            if kind is Kind.ANON:
                out[(part & _ANON_THP) == _ANON_THP] = Kind.ANON_HUGE
    return kinds


def page_kinds(image: MemoryImage) -> U8:
    """Return the kind of every row of ``image.pages``."""
    return classify(image.pages["flags"])


def is_large(flags: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether pages with these KPF_ flags are parts of something larger than a page."""
    return (np.asarray(flags, np.uint64) & _LARGE) != 0
