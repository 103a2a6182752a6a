# SPDX-License-Identifier: GPL-2.0-only
"""Page tables of a machine that is made of an image: small entries, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte, Vm
from rmap.mm import bits
from rmap.mm.bits import NR_PAGETABLE, PAGE_SHIFT
from rmap.mm.mm_types import Kernel, Mm

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

#: Address bits below an entry of the levels that hold tables, from the top.
UPPER_SHIFTS = (39, 30, 21)
TABLE = 512


@dataclass
class Entries:
    """Small entries to be made: ascending by address space and address.

    `pfn` is the page of a present entry, in others the slot (type | offset << 5). `kpf` are the
    flags of the page, 0 for a slot.
    """

    mm: I64
    address: U64
    pfn: I64
    flags: npt.NDArray[np.uint32]
    vma: I64
    place: I64
    file: I64
    kpf: U64

    def __len__(self) -> int:
        return len(self.mm)

    def where(self, rows: Bools | I64) -> Entries:
        """Some of the entries."""
        return Entries(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def without(self, rows: I64) -> Entries:
        """All entries but some."""
        keep = np.ones(len(self), np.bool_)
        keep[rows] = False
        return self.where(keep)

    @property
    def present(self) -> Bools:
        """Whether each entry maps a page."""
        return self.flags & np.uint32(Pte.PRESENT) != 0

    @property
    def zero(self) -> Bools:
        """Whether each entry maps the zero page."""
        return self.present & (self.flags & np.uint32(Pte.SPECIAL) != 0)

    @property
    def mapped(self) -> Entries:
        """Entries that map a page of which mappings are counted."""
        return self.where(self.present & ~self.zero)

    @property
    def slots(self) -> I64:
        """The slot of each entry that holds one."""
        return self.pfn[~self.present & ~self.broken]

    @property
    def broken(self) -> Bools:
        """Whether each entry stands for memory that broke; `pfn` is its page."""
        return self.flags & np.uint32(Pte.HWPOISON) != 0

    @property
    def anon(self) -> Bools:
        """Whether each entry maps an anonymous page."""
        return self.present & ~self.zero & (self.kpf & np.uint64(Kpf.ANON) != 0)

    def files_with_swap_backed_pages(self, count: int) -> Bools:
        """Of each of so many files, whether its pages go to swap: shared memory, tmpfs."""
        backed = self.mapped
        shared = backed.kpf & np.uint64(Kpf.ANON | Kpf.SWAPBACKED) == np.uint64(Kpf.SWAPBACKED)
        found = np.zeros(count, np.bool_)
        found[backed.file[shared & (backed.file >= 0)]] = True
        return found


def read_entries(image: MemoryImage) -> tuple[Entries, dict[str, int]]:
    """Return the small entries that the machine will have, and how many it will not, by reason."""
    table = image.ptes
    # A block of 2**order pages is so many entries, one after the other.
    sizes = np.left_shift(np.int64(1), table["order"].astype(np.int64))
    row = np.repeat(np.arange(len(table), dtype=np.int64), sizes)
    into = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    address = table["address"][row] + (into.astype(np.uint64) << np.uint64(PAGE_SHIFT))
    flags = table["flags"][row].astype(np.uint32)
    present = flags & np.uint32(Pte.PRESENT) != 0
    pfn = table["pfn"][row].astype(np.int64) + np.where(present, into, 0)
    known = image.find_pages(np.where(present, pfn, 0))
    kpf = np.zeros(len(row), np.uint64)
    if len(image.pages):
        kpf = np.where(present & (known >= 0), image.pages["flags"][np.maximum(known, 0)], kpf)
    vma = image.pte_vma[row].astype(np.int64)
    near = np.maximum(vma, 0)
    start = image.vmas["start"][near] if len(image.vmas) else np.zeros(len(row), np.uint64)
    file = image.vmas["file"][near] if len(image.vmas) else np.full(len(row), -1, np.int32)
    place = ((address - start) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    entries = Entries(
        table["mm"][row].astype(np.int64), address, pfn, flags, vma, place,
        np.where(vma >= 0, file, -1).astype(np.int64), kpf,
    )  # fmt: skip
    return _sort_out(entries, known, str(image.machine["source"][0]) == "model")


def _sort_out(entries: Entries, known: I64, model: bool) -> tuple[Entries, dict[str, int]]:
    """Leave out what the model could only get wrong; the first reason that holds counts."""
    zero = entries.kpf & np.uint64(Kpf.ZERO_PAGE) != 0
    special = entries.flags & np.uint32(Pte.SPECIAL) != 0
    other = Pte.MIGRATION | Pte.DEVICE | Pte.GUARD | (Pte(0) if model else Pte.HWPOISON)
    reasons = {
        "outside of every VMA": entries.vma < 0,
        "waits, or is broken": entries.flags & np.uint32(other) != 0,
        "hugetlb": (entries.kpf & np.uint64(Kpf.HUGE) != 0)
        | (entries.flags & np.uint32(Pte.HUGETLB) != 0),
        "ksm": entries.kpf & np.uint64(Kpf.KSM) != 0,
        "device memory": entries.present & ~zero & (special | (known < 0)),
        "kernel memory": entries.present & ~zero & (entries.kpf & np.uint64(Kpf.LRU) == 0)
        & (entries.kpf & np.uint64(Kpf.ANON) == 0) & (entries.file < 0),
    }  # fmt: skip
    keep = np.ones(len(entries), np.bool_)
    left_out = {}
    for name, rows in reasons.items():
        count = int((keep & rows).sum())
        if count:
            left_out[name] = count
        keep &= ~rows
    entries.flags[zero & entries.present] |= np.uint32(Pte.SPECIAL)
    return entries.where(keep), left_out


def write_tables(kernel: Kernel, image: MemoryImage, entries: Entries, mms: Sequence[Mm]) -> None:
    """Make the page tables: first those of the upper levels, then the entries."""
    row = np.array([mm.pgd for mm in mms], np.int64)[entries.mm] if mms else entries.mm
    prefix = entries.mm.astype(np.uint64) << np.uint64(48)
    for shift in UPPER_SHIFTS:
        slot = (entries.address >> np.uint64(shift)).astype(np.int64) & (TABLE - 1)
        # Entries are sorted, so those below one table follow each other.
        key = (prefix | entries.address) >> np.uint64(shift)
        new = np.concatenate((np.ones(min(1, len(key)), np.bool_), key[1:] != key[:-1]))
        first = np.flatnonzero(new)
        tables = int(kernel.pt_next) + np.arange(len(first), dtype=np.int64)
        while (int(kernel.pt_next) + len(first)) * TABLE > len(kernel.pt):
            kernel.grow_tables()
        kernel.pt_next = int(kernel.pt_next) + len(first)
        kernel.vm_stat[NR_PAGETABLE] += len(first)
        for number, count in enumerate(np.bincount(entries.mm[first], minlength=len(mms)).tolist()):
            mms[number].nr_ptes += count
        link = bits._PAGE_PRESENT | bits._PAGE_RW | bits._PAGE_USER
        pt = np.asarray(kernel.pt)
        pt[row[first] * TABLE + slot[first]] = tables.astype(np.uint64) << np.uint64(
            PAGE_SHIFT
        ) | np.uint64(link)
        row = tables[np.cumsum(new) - 1] if len(first) else row
    slot = (entries.address >> np.uint64(PAGE_SHIFT)).astype(np.int64) & (TABLE - 1)
    np.asarray(kernel.pt)[row * TABLE + slot] = _values(kernel, image, entries)


def _values(kernel: Kernel, image: MemoryImage, entries: Entries) -> U64:
    """The entries as the hardware has them."""
    flags, present = entries.flags, entries.present
    vm_flags = image.vmas["flags"][entries.vma] if len(entries) else np.zeros(0, np.uint64)
    value = np.full(len(entries), bits._PAGE_PRESENT | bits._PAGE_USER, np.uint64)
    barred = flags & np.uint32(Pte.PROT_NONE) != 0
    barred |= vm_flags & np.uint64(Vm.READ | Vm.WRITE | Vm.EXEC) == 0
    value[barred] = bits._PAGE_PROTNONE
    writable, dirty = _rights(image, entries, vm_flags)
    for rows, bit in (
        (writable, bits._PAGE_RW),
        (dirty, bits._PAGE_DIRTY),
        (flags & np.uint32(Pte.YOUNG) != 0, bits._PAGE_ACCESSED),
        (flags & np.uint32(Pte.SOFT_DIRTY) != 0, bits._PAGE_SOFT_DIRTY),
        (entries.zero, bits._PAGE_SPECIAL),
        (vm_flags & np.uint64(Vm.EXEC) == 0, bits._PAGE_NX),
    ):
        value[rows] |= np.uint64(bit)
    page = np.where(entries.zero, int(kernel.zero_page), entries.pfn).astype(np.uint64)
    value |= page << np.uint64(PAGE_SHIFT)
    slot = entries.pfn.astype(np.uint64)
    swap = (slot & np.uint64(31)) << np.uint64(bits.SWP_PTE_TYPE_SHIFT)
    swap |= (slot >> np.uint64(5)) << np.uint64(bits.SWP_PTE_OFFSET_SHIFT)
    moved = flags & np.uint32(Pte.SOFT_DIRTY) != 0
    swap[moved] |= np.uint64(bits._PAGE_SWP_SOFT_DIRTY)
    broken = slot << np.uint64(bits.SWP_PTE_OFFSET_SHIFT)
    broken |= np.uint64(bits.SWP_HWPOISON << bits.SWP_PTE_TYPE_SHIFT)
    swap = np.where(entries.broken, broken, swap)
    return np.where(present, value, swap)


def _rights(image: MemoryImage, entries: Entries, vm_flags: U64) -> tuple[Bools, Bools]:
    """Which entries are writable, and which dirty: as the image says, or as is safe."""
    flags = entries.flags
    mapped = entries.present & ~entries.zero
    if str(image.machine["source"][0]) != "proc":
        told = (flags & np.uint32(Pte.WRITE) != 0, flags & np.uint32(Pte.DIRTY) != 0)
        return told[0] & mapped, told[1] & mapped
    counts = np.bincount(entries.pfn[mapped], minlength=1)
    alone = np.zeros(len(entries), np.bool_)
    alone[mapped] = counts[entries.pfn[mapped]] == 1
    own = entries.anon & alone
    backed = entries.kpf & np.uint64(Kpf.SWAPBACKED) != 0
    shared = mapped & ~entries.anon & backed & (vm_flags & np.uint64(Vm.SHARED) != 0)
    writable = (own | shared) & (vm_flags & np.uint64(Vm.WRITE) != 0)
    # What was written is not in swap yet; a lazily freed page (not swap-backed) was not.
    return writable, writable & backed
