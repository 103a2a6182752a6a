# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""MMU notifiers: secondary MMUs (a guest's, a device's) are told what becomes of page tables.

mm/mmu_notifier.c and include/linux/mmu_notifier.h of v4.18. No lock is taken here.
``invalidate_range_start`` and ``_end`` bracket a change from outside of the page-table lock and
may sleep; ``invalidate_range`` comes under it, where an entry was emptied or points elsewhere.

Every call is appended to ``Kernel.notifier_log`` if that is a list, whether anybody listens or not:
``(name, mm.ident, start, end)``, and for ``change_pte`` the new entry in place of the end.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import HPAGE_PMD_SIZE, PAGE_SIZE
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.pgtable import set_pte_at
    from rmap.mm.tlb import (
        pmdp_clear_flush_young,
        ptep_clear_flush,
        ptep_clear_flush_young,
        ptep_test_and_clear_young,
    )
    from rmap.scalar import flag, i32, u64


class MmuNotifier:
    """Somebody with translations of their own (struct mmu_notifier_ops). Override what matters."""

    def invalidate_range_start(self, k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
        """Entries of ``[start, end)`` are about to change: drop them, and let none be made."""
        return 0

    def invalidate_range_end(self, k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
        """They have changed."""
        return 0

    def invalidate_range(self, k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
        """Entries of ``[start, end)`` have just become invalid; the page-table lock is held."""
        return 0

    def clear_flush_young(self, k: Kernel, mm: Mm, start: u64, end: u64) -> flag:
        """Forget that the range was used, and drop translations; whether it was used."""
        return False

    def clear_young(self, k: Kernel, mm: Mm, start: u64, end: u64) -> flag:
        """Forget that the range was used, dropping nothing; whether it was used."""
        return False

    def test_young(self, k: Kernel, mm: Mm, address: u64) -> flag:
        """Whether you used an address since its bits were cleared last; they stay."""
        return False

    def change_pte(self, k: Kernel, mm: Mm, address: u64, pte: u64) -> i32:
        """The entry of an address is about to become another one."""
        return 0


def mmu_notifier_register(k: Kernel, mm: Mm, notifier: MmuNotifier) -> i32:
    """Let somebody hear what becomes of an address space."""
    if mm.notifier is None:
        mm.notifier = []
    mm.notifier.append(notifier)
    return 0


def mmu_notifier_unregister(k: Kernel, mm: Mm, notifier: MmuNotifier) -> i32:
    """Tell them no more. Raises `ValueError` if they are not registered."""
    mm.notifier.remove(notifier)
    if not mm.notifier:
        mm.notifier = None
    return 0


def _log(k: Kernel, name: str, mm: Mm, start: u64, end: u64) -> i32:
    """Note a call."""
    k.notifier_log.append((name, mm.ident, start, end))
    return 0


def mmu_notifier_invalidate_range_start(k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
    """Say that entries of ``[start, end)`` are about to change. No page-table lock is held."""
    if k.notifier_log is not None:
        _log(k, "invalidate_range_start", mm, start, end)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            notifier.invalidate_range_start(k, mm, start, end)
    return 0


def mmu_notifier_invalidate_range_end(k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
    """Say that the change is over, and once more that the range is invalid."""
    if k.notifier_log is not None:
        _log(k, "invalidate_range_end", mm, start, end)
    if mm.notifier is not None:
        _tell_end(k, mm, start, end, False)
    return 0


def mmu_notifier_invalidate_range_only_end(k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
    """Say that the change is over; that the range is invalid was said under the lock."""
    if k.notifier_log is not None:
        _log(k, "invalidate_range_only_end", mm, start, end)
    if mm.notifier is not None:
        _tell_end(k, mm, start, end, True)
    return 0


def _tell_end(k: Kernel, mm: Mm, start: u64, end: u64, only_end: flag) -> i32:
    """Call everybody's ``invalidate_range_end``, behind ``invalidate_range`` if that is due."""
    notifier: MmuNotifier
    for notifier in mm.notifier:
        if not only_end:
            notifier.invalidate_range(k, mm, start, end)
        notifier.invalidate_range_end(k, mm, start, end)
    return 0


def mmu_notifier_invalidate_range(k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
    """Say that entries have just become invalid. The page-table lock is held."""
    if k.notifier_log is not None:
        _log(k, "invalidate_range", mm, start, end)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            notifier.invalidate_range(k, mm, start, end)
    return 0


def _tell_clear_flush_young(k: Kernel, mm: Mm, start: u64, end: u64) -> flag:
    """Age a range in the secondary MMUs; whether any of them used it."""
    if k.notifier_log is not None:
        _log(k, "clear_flush_young", mm, start, end)
    young: flag = False
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            if notifier.clear_flush_young(k, mm, start, end):
                young = True
    return young


def ptep_clear_flush_young_notify(k: Kernel, vma: Vma, address: u64, ptep: u64) -> flag:
    """Clear the accessed bit here and in secondary MMUs, with flushes; whether any was set."""
    young: flag = ptep_clear_flush_young(k, vma, address, ptep)
    mm: Mm = vma.vm_mm
    if mm.notifier is None and k.notifier_log is None:
        return young
    if _tell_clear_flush_young(k, mm, address, address + PAGE_SIZE):
        young = True
    return young


def ptep_clear_young_notify(k: Kernel, vma: Vma, address: u64, ptep: u64) -> flag:
    """Clear the accessed bit here and in secondary MMUs, without flushes; whether any was set."""
    young: flag = ptep_test_and_clear_young(k, vma, address, ptep)
    if _tell_clear_young(k, vma.vm_mm, address, address + PAGE_SIZE):
        young = True
    return young


def pmdp_clear_young_notify(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> flag:
    """`ptep_clear_young_notify` for the PMD of a huge page."""
    young: flag = ptep_test_and_clear_young(k, vma, address, pmdp)
    if _tell_clear_young(k, vma.vm_mm, address, address + HPAGE_PMD_SIZE):
        young = True
    return young


def _tell_clear_young(k: Kernel, mm: Mm, start: u64, end: u64) -> flag:
    """Have secondary MMUs forget uses without flushing; whether any knew of one."""
    young: flag = False
    if k.notifier_log is not None:
        _log(k, "clear_young", mm, start, end)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            if notifier.clear_young(k, mm, start, end):
                young = True
    return young


def mmu_notifier_test_young(k: Kernel, mm: Mm, address: u64) -> flag:
    """Whether any secondary MMU used an address lately."""
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            if notifier.test_young(k, mm, address):
                return True
    return False


def pmdp_clear_flush_young_notify(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> flag:
    """`ptep_clear_flush_young_notify` for the PMD of a huge page."""
    young: flag = pmdp_clear_flush_young(k, vma, address, pmdp)
    if _tell_clear_flush_young(k, vma.vm_mm, address, address + HPAGE_PMD_SIZE):
        young = True
    return young


def ptep_clear_flush_notify(k: Kernel, vma: Vma, address: u64, ptep: u64) -> u64:
    """Empty an entry, flush it here and in secondary MMUs, and return what it was."""
    pte: u64 = ptep_clear_flush(k, vma, address, ptep)
    mmu_notifier_invalidate_range(k, vma.vm_mm, address, address + PAGE_SIZE)
    return pte


def set_pte_at_notify(k: Kernel, mm: Mm, address: u64, ptep: u64, pte: u64) -> i32:
    """Store an entry, telling secondary MMUs first which it will be."""
    if k.notifier_log is not None:
        _log(k, "change_pte", mm, address, pte)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            notifier.change_pte(k, mm, address, pte)
    return set_pte_at(k, mm, address, ptep, pte)
