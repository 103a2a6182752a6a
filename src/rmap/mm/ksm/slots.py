# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which address spaces ksmd goes over: they enter, fork and leave (mm/ksm.c, v4.18).

Locks: ksm.mmlist_lock for the list of address spaces. Of an address space that leaves, mmap_sem is
taken for write for a moment, so that ksmd is done with it before its pages go.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import ENOMEM, KSM_RUN_UNMERGE, MMF_VM_MERGEABLE
    from rmap.mm.ksm.stable import Ksm, MmSlot, ksm_of
    from rmap.mm.mm_types import Kernel, Mm
    from rmap.scalar import flag, i32, i64


def ksm_enter(k: Kernel, mm: Mm) -> i32:
    """Let ksmd go over an address space from now on (__ksm_enter()). 0 or -ENOMEM.

    Behind the one that ksmd is at, so that it settles down first: who forks often execs at once.
    While pages are being unmerged it must not be missed, though, and comes last.
    """
    ksm: Ksm = ksm_of(k)
    if k.inject is not None and k.inject.should_fail("mm_slot"):
        return -ENOMEM
    slot: MmSlot = MmSlot(mm)
    ksm.mmlist_lock.lock()
    ksm.slots_hash[mm.ident] = slot
    if ksm.run & KSM_RUN_UNMERGE or ksm.scan.mm_slot is None:
        ksm.mm_slots.append(slot)
    else:
        ksm.mm_slots.insert(ksm.mm_slots.index(ksm.scan.mm_slot), slot)
    ksm.mmlist_lock.unlock()
    mm.flags |= MMF_VM_MERGEABLE
    mm.mm_count += 1
    return 0


def ksm_fork(k: Kernel, mm: Mm, oldmm: Mm) -> i32:
    """Let ksmd go over a child's address space as over its parent's. 0 or -ENOMEM."""
    if oldmm.flags & MMF_VM_MERGEABLE:
        return ksm_enter(k, mm)
    return 0


def ksm_exit(k: Kernel, mm: Mm) -> i32:
    """The last user of an address space has left it; its pages are about to go (__ksm_exit()).

    If ksmd has items in it, they and what is left of the address space stay until ksmd comes by;
    it is the next one that it goes to. mm->mm_users is 0 by now, by which ksmd knows.
    """
    if not mm.flags & MMF_VM_MERGEABLE:
        return 0
    ksm: Ksm = ksm_of(k)
    easy_to_free: flag = False
    ksm.mmlist_lock.lock()
    slot: MmSlot = ksm.slots_hash.get(mm.ident)
    if slot is not None and ksm.scan.mm_slot is not slot:
        ksm.mm_slots.remove(slot)
        if not slot.rmap_list:
            del ksm.slots_hash[mm.ident]
            easy_to_free = True
        elif ksm.scan.mm_slot is None:
            ksm.mm_slots.insert(0, slot)
        else:
            ksm.mm_slots.insert(ksm.mm_slots.index(ksm.scan.mm_slot) + 1, slot)
    ksm.mmlist_lock.unlock()
    if easy_to_free:
        mm.flags &= ~MMF_VM_MERGEABLE
        # Not the last reference: the caller's comes after it.
        mm.mm_count -= 1
    elif slot is not None:
        mm.mmap_sem.down_write()
        mm.mmap_sem.up_write()
    return 0


def next_slot(k: Kernel, slot: MmSlot | None) -> MmSlot | None:
    """The slot behind one, ``None`` at the end; the first one behind ``None``."""
    ksm: Ksm = ksm_of(k)
    at: i64 = 0
    if slot is not None:
        at = ksm.mm_slots.index(slot) + 1
    if at < len(ksm.mm_slots):
        return ksm.mm_slots[at]
    return None


def forget_slot(k: Kernel, slot: MmSlot) -> i32:
    """Take a slot off the list; its items are gone. ksm.mmlist_lock is held."""
    ksm: Ksm = ksm_of(k)
    ksm.mmlist_lock.assert_held()
    ksm.mm_slots.remove(slot)
    del ksm.slots_hash[slot.mm.ident]
    slot.mm.flags &= ~MMF_VM_MERGEABLE
    return 0
