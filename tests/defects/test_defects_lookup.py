# SPDX-License-Identifier: GPL-2.0-only
"""Finding a page's anon_vma without a lock: D7, D9, and what v4.18 does about them.

anon_vmas come from a slab whose objects stay anon_vmas when they are freed (SLAB_TYPESAFE_BY_RCU),
so a lookup may hold a pointer to one that has gone, or has become another.

D7 (2008). Up to 2.6.27 anon_vma_prepare() linked into an anon_vma that it had just been given
without locking it, since nobody else could know it; but a lookup with a stale pointer to the same
object may have its lock, and walk it. d9d332e0874f locks new objects too.

D9 (2011). page_lock_anon_vma() took a reference that was not zero, or a lock that it got, for proof
that the object was still the page's. eee0f252c653 looks at page_mapped() once more when it has the
lock: an anon_vma of a mapped page has not been freed. And whoever frees one waits for who holds the
lock of its root.
"""

from __future__ import annotations

import pytest
from handmade import crashed
from interruptions import interrupted
from kernels import child_with_page, make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.anon_vma import (
    anon_vma_prepare,
    page_get_anon_vma,
    page_lock_anon_vma_read,
    put_anon_vma,
    unlink_anon_vmas,
)
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.page import mapcount_add_negative
from rmap.sync.bits import (
    FIELD_ANON_VMA_REFCOUNT,
    FIELD_VMA_ANON_VMA,
    OP_ACQUIRE,
    OP_READ,
    OP_RMW,
    OP_TRY,
    RANK_ANON_VMA,
)
from rmap.sync.core import LockViolation

PAGE = 5


LOOKS = (OP_READ, FIELD_VMA_ANON_VMA)
LOCK = (OP_ACQUIRE, RANK_ANON_VMA)
REFERENCE = (OP_RMW, FIELD_ANON_VMA_REFCOUNT)


@pytest.mark.parametrize("fixed", [False, True])
def test_d7_a_new_anon_vma_is_linked_into_while_somebody_walks_it(fixed: bool) -> None:
    k = make_kernel()
    gone = map_pages(k, make_mm(k), 16, 4)
    slot: AnonVma = prepare(k, gone)
    with writing(gone.vm_mm):
        unlink_anon_vmas(k, gone)
    assert k.anon_vma_free == [slot]
    k.profile.prepare_locks_new = fixed
    vma = map_pages(k, make_mm(k), 16, 4)
    vma.vm_mm.mmap_sem.down_read()
    # A lookup that had read the old page->mapping gets the lock, before it looks again.
    if fixed:
        with interrupted((LOOKS, slot.rwsem.down_read), (LOCK, slot.rwsem.up_read)):
            assert anon_vma_prepare(k, vma) == 0
        vma.vm_mm.mmap_sem.up_read()
        assert vma.anon_vma is slot
        return
    unlocked = pytest.raises(LockViolation, match="needs anon_vma->rwsem")
    with unlocked, interrupted((LOOKS, slot.rwsem.down_read)):
        anon_vma_prepare(k, vma)
    assert (vma.anon_vma, slot.rwsem.count) == (slot, 1), "the lookup would walk a changing tree"
    crashed()


class Child:
    """A process whose page names its own anon_vma, and its exit; the parent stays."""

    def __init__(self, **quirks: bool) -> None:
        k: Kernel = make_kernel(8, **quirks)
        self.k = k
        self.vma: Vma = child_with_page(k, PAGE)
        self.own: AnonVma = self.vma.anon_vma
        self.root: AnonVma = self.own.root

    def exit(self) -> None:
        """Unmap the page, free the anon_vma, and let the next process have the slot."""
        assert mapcount_add_negative(self.k, PAGE)
        unlink_anon_vmas(self.k, self.vma)
        self.other = map_pages(self.k, make_mm(self.k), 64, 4)
        prepare(self.k, self.other)
        assert self.other.anon_vma is self.own


@pytest.mark.parametrize("fixed", [False, True])
def test_d9_a_lock_is_no_proof_of_identity(fixed: bool) -> None:
    """The lookup has read page->mapping; then all that happens, and it gets a lock, somebody's."""
    child = Child(page_mapped_recheck=fixed)
    k = child.k
    with interrupted(((OP_TRY, RANK_ANON_VMA), child.exit)):
        found = page_lock_anon_vma_read(k, PAGE)
    if fixed:
        assert found is None
        assert (child.root.rwsem.count, child.own.rwsem.count) == (0, 0)
        return
    # The page is nobody's; the anon_vma is a stranger's, and the lock is not even its own: the
    # root was read before.
    assert found is child.own is child.other.anon_vma
    assert found.incarnation == 2
    assert (child.root.rwsem.count, found.root.rwsem.count) == (1, 0)
    with pytest.raises(LockViolation):
        found.root.rwsem.up_read()
    crashed()


@pytest.mark.parametrize("fixed", [False, True])
def test_d9_a_reference_is_no_proof_of_identity(fixed: bool) -> None:
    child = Child(page_mapped_recheck=fixed)
    k = child.k
    with interrupted((REFERENCE, child.exit)):
        pinned = page_get_anon_vma(k, PAGE)
    if fixed:
        assert pinned is None
        assert child.own.refcount == 1
    else:
        assert pinned is child.own
        assert pinned.incarnation == 2
        put_anon_vma(k, pinned)


@pytest.mark.parametrize("fixed", [False, True])
def test_d9_who_frees_waits_for_who_has_the_lock(fixed: bool) -> None:
    """The lookup has the lock and no reference, and page_mapped() was true a moment ago."""
    child = Child(free_handshake=fixed)
    k = child.k
    assert mapcount_add_negative(k, PAGE)
    freed_under_it = []

    def leave() -> None:
        freed_under_it.append(child.own in k.anon_vma_free)
        child.root.rwsem.count = 0

    def enter() -> None:
        child.root.rwsem.count = 1

    moments = ((REFERENCE, enter), (LOCK, leave)) if fixed else ((REFERENCE, enter),)
    with interrupted(*moments):
        unlink_anon_vmas(k, child.vma)
    if not fixed:
        leave()
    assert freed_under_it == [not fixed]
    assert k.anon_vma_free == [child.own]
