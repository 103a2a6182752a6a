# SPDX-License-Identifier: GPL-2.0-only
"""Bits of the flag columns: VMA flags, page-table entry flags, and the page flags of /proc.

The values of ``VM_*`` are the kernel's on x86-64, those of ``KPF_*`` the stable ones of
``include/uapi/linux/kernel-page-flags.h``. The ``PTE_*`` bits are rmap's own: one set for every
source, whatever the hardware calls them.
"""

from __future__ import annotations

from enum import IntFlag


class Vm(IntFlag):
    """``vm_flags`` of a VMA (``include/linux/mm.h``), with the two letters that smaps prints."""

    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    SHARED = 0x8
    MAYREAD = 0x10
    MAYWRITE = 0x20
    MAYEXEC = 0x40
    MAYSHARE = 0x80
    GROWSDOWN = 0x100
    UFFD_MISSING = 0x200
    PFNMAP = 0x400
    UFFD_WP = 0x1000
    LOCKED = 0x2000
    IO = 0x4000
    SEQ_READ = 0x8000
    RAND_READ = 0x10000
    DONTCOPY = 0x20000
    DONTEXPAND = 0x40000
    LOCKONFAULT = 0x80000
    ACCOUNT = 0x100000
    NORESERVE = 0x200000
    HUGETLB = 0x400000
    SYNC = 0x800000
    WIPEONFORK = 0x2000000
    DONTDUMP = 0x4000000
    SOFTDIRTY = 0x8000000
    MIXEDMAP = 0x10000000
    HUGEPAGE = 0x20000000
    NOHUGEPAGE = 0x40000000
    MERGEABLE = 0x80000000


#: The two-letter names in the VmFlags line of smaps (``fs/proc/task_mmu.c``).
VM_LETTERS: dict[str, Vm] = {
    "rd": Vm.READ,
    "wr": Vm.WRITE,
    "ex": Vm.EXEC,
    "sh": Vm.SHARED,
    "mr": Vm.MAYREAD,
    "mw": Vm.MAYWRITE,
    "me": Vm.MAYEXEC,
    "ms": Vm.MAYSHARE,
    "gd": Vm.GROWSDOWN,
    "pf": Vm.PFNMAP,
    "lo": Vm.LOCKED,
    "io": Vm.IO,
    "sr": Vm.SEQ_READ,
    "rr": Vm.RAND_READ,
    "dc": Vm.DONTCOPY,
    "de": Vm.DONTEXPAND,
    "lf": Vm.LOCKONFAULT,
    "ac": Vm.ACCOUNT,
    "nr": Vm.NORESERVE,
    "ht": Vm.HUGETLB,
    "sf": Vm.SYNC,
    "wf": Vm.WIPEONFORK,
    "dd": Vm.DONTDUMP,
    "sd": Vm.SOFTDIRTY,
    "mm": Vm.MIXEDMAP,
    "hg": Vm.HUGEPAGE,
    "nh": Vm.NOHUGEPAGE,
    "mg": Vm.MERGEABLE,
    "um": Vm.UFFD_MISSING,
    "uw": Vm.UFFD_WP,
}


class Pte(IntFlag):
    """What a page-table entry says. Bits that a source cannot see stay 0."""

    PRESENT = 1 << 0  #: maps a page (a PROT_NONE entry counts as present, as in the kernel)
    SWAP = 1 << 1  #: holds a swap entry: ``pfn`` is type | offset << 5
    FILE = 1 << 2  #: the page belongs to a file or to shared memory
    EXCLUSIVE = 1 << 3  #: the kernel says it is mapped here only
    SOFT_DIRTY = 1 << 4
    UFFD_WP = 1 << 5
    GUARD = 1 << 6  #: a guard region marker
    SPECIAL = 1 << 7  #: not reverse-mapped: zero page, VM_PFNMAP
    WRITE = 1 << 8
    DIRTY = 1 << 9
    YOUNG = 1 << 10
    PROT_NONE = 1 << 11
    MIGRATION = 1 << 12  #: ``pfn`` is the page under migration
    HWPOISON = 1 << 13
    DEVICE = 1 << 14  #: device-private or device-exclusive entry
    HUGETLB = 1 << 15


class Kpf(IntFlag):
    """Page flags as ``/proc/kpageflags`` shows them."""

    LOCKED = 1 << 0
    ERROR = 1 << 1
    REFERENCED = 1 << 2
    UPTODATE = 1 << 3
    DIRTY = 1 << 4
    LRU = 1 << 5
    ACTIVE = 1 << 6
    SLAB = 1 << 7
    WRITEBACK = 1 << 8
    RECLAIM = 1 << 9
    BUDDY = 1 << 10
    MMAP = 1 << 11
    ANON = 1 << 12
    SWAPCACHE = 1 << 13
    SWAPBACKED = 1 << 14
    COMPOUND_HEAD = 1 << 15
    COMPOUND_TAIL = 1 << 16
    HUGE = 1 << 17
    UNEVICTABLE = 1 << 18
    HWPOISON = 1 << 19
    NOPAGE = 1 << 20
    KSM = 1 << 21
    THP = 1 << 22
    OFFLINE = 1 << 23
    ZERO_PAGE = 1 << 24
    IDLE = 1 << 25
    PGTABLE = 1 << 26
    RESERVED = 1 << 32
    MLOCKED = 1 << 33
    OWNER_2 = 1 << 34
    PRIVATE = 1 << 35
    PRIVATE_2 = 1 << 36
    OWNER_PRIVATE = 1 << 37
    ARCH = 1 << 38
    UNCACHED = 1 << 39
    SOFTDIRTY = 1 << 40
    ARCH_2 = 1 << 41


def names(flags: type[IntFlag], value: int) -> list[str]:
    """Return the lower-case names of the bits set in ``value``, lowest bit first.

    >>> names(Kpf, 0x1001)
    ['locked', 'anon']
    """
    return [bit.name.lower() for bit in flags if bit & value and bit.name]


def permissions(vm_flags: int) -> str:
    """Return the four letters of ``/proc/PID/maps`` for ``vm_flags``.

    >>> permissions(Vm.READ | Vm.WRITE)
    'rw-p'
    """
    return "".join(
        (
            "r" if vm_flags & Vm.READ else "-",
            "w" if vm_flags & Vm.WRITE else "-",
            "x" if vm_flags & Vm.EXEC else "-",
            "s" if vm_flags & Vm.MAYSHARE else "p",
        )
    )
