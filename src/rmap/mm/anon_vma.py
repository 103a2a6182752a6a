# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""anon_vmas and the chains that tie VMAs to them: mm/rmap.c:78-573 (v4.18), in its order.

Locks, outermost first: mm->mmap_sem (held by every caller that changes a VMA's chain, for write but
in anon_vma_prepare), the rwsem of the *root* anon_vma (which guards the trees, degrees and links of
all its members), mm->page_table_lock (anon_vma_prepare). page_get_anon_vma() and
page_lock_anon_vma_read() come from a page alone and hold nothing but an RCU read section: what they
find may be freed, or be another anon_vma by then, but it is an anon_vma.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        GFP_KERNEL,
        GFP_NOWAIT,
        GFP_NOWARN,
        MAPPING_HANDLE_SHIFT,
        PAGE_MAPPING_ANON,
        PAGE_MAPPING_FLAGS,
    )
    from rmap.mm.bug import BUG, WARN, WARN_ONCE
    from rmap.mm.interval_tree import interval_tree_insert, interval_tree_remove
    from rmap.mm.mm_types import AnonVma, AnonVmaChain, Kernel, Mm, Vma
    from rmap.mm.page import page_mapped, page_mapping_word
    from rmap.mm.vma import find_mergeable_anon_vma, set_vma_anon_vma, vma_anon_vma
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.bits import (
        FIELD_ANON_VMA,
        FIELD_ANON_VMA_REFCOUNT,
        OP_ALLOC,
        OP_FREE,
        OP_READ,
        OP_RMW,
        OP_WRITE,
    )
    from rmap.sync.core import rcu_read_lock, rcu_read_unlock, sched, sched_point


class ReuseRule:
    """Chooses the anon_vma of a forked VMA: an inherited one, or else a new one is made.

    Subclass it, and set ``kernel.reuse_rule`` (or `reuse_rule` of the profile) to an instance to
    try another rule. anon_vma_clone() asks it, oldest anon_vma first, until it says yes.

    >>> class NeverReuse(ReuseRule):
    ...     def may_reuse(self, k, dst, src, anon_vma):
    ...         return False
    """

    def may_reuse(self, k: Kernel, dst: Vma, src: Vma, anon_vma: AnonVma) -> flag:
        """Whether `dst`, which has no anon_vma yet, gets this one of `src`'s chain.

        The rule of v4.18 (mm/rmap.c:289): not the parent's own, and a degree below two, which is
        to mean no VMA and one child; it may as well mean one VMA and no child (CVE-2022-42703).
        With `separate_reuse_counters`, the rule of v6.0, which tells the two apart.
        """
        if k.profile.clone_reuses_only_for_fork and src.anon_vma is None:
            return False
        if k.profile.separate_reuse_counters:
            return (
                src.anon_vma is not None
                and anon_vma.num_children < 2
                and anon_vma.num_active_vmas == 0
            )
        return anon_vma is not src.anon_vma and anon_vma.degree < 2


default_rule = ReuseRule()


# ---------------------------------------------------------------- the slab


def anon_vma_alloc(k: Kernel) -> AnonVma | None:
    """Take an anon_vma from the slab, a root for now; ``None`` without memory (mm/rmap.c:78).

    The slot freed last is reused first, lock and tree as they were left. Its degree counts the
    VMA that it is made for.

    Locks: none; it may sleep, in reclaim, which takes rmap locks.
    """
    if k.inject is not None and k.inject.should_fail("anon_vma"):  # L83
        return None
    anon_vma: AnonVma
    if k.anon_vma_free:
        anon_vma = k.anon_vma_free.pop()
    else:
        anon_vma = anon_vma_ctor(len(k.anon_vmas))
        k.anon_vmas.append(anon_vma)
    if sched.exploring:
        sched_point(OP_ALLOC, FIELD_ANON_VMA_REFCOUNT, anon_vma.handle)
    anon_vma.refcount = 1
    anon_vma.degree = 1
    anon_vma.num_children = 0
    anon_vma.num_active_vmas = 0
    anon_vma.parent = anon_vma
    anon_vma.incarnation += 1
    # Until fork makes it another one's child.
    set_anon_vma_root(anon_vma, anon_vma)
    return anon_vma


def anon_vma_free(k: Kernel, anon_vma: AnonVma) -> i32:
    """Give an anon_vma without references back to the slab (mm/rmap.c:97).

    Whoever got the root's lock by trylock before the last reference went may still have to look
    whether the page is mapped; waiting for the lock lets it finish before the slot is reused.

    Locks: takes the root's rwsem for write for a moment, if somebody holds it. So neither that nor
    a lock inside of it is held.
    """
    if k.debug_vm and anon_vma.refcount:  # L99
        BUG("rmap.c:99 anon_vma_free: the anon_vma has references")
    if k.profile.free_handshake and anon_vma_root(anon_vma).rwsem.is_locked():  # L119
        anon_vma_lock_write(anon_vma)
        anon_vma_unlock_write(anon_vma)
    if sched.exploring:
        sched_point(OP_FREE, FIELD_ANON_VMA, anon_vma.handle)
    if k.tracer is not None:
        k.tracer("anon_vma_free", (anon_vma,))
    k.anon_vma_free.append(anon_vma)  # L124
    return 0


def anon_vma_chain_alloc(k: Kernel, vma: Vma, gfp: u64) -> AnonVmaChain | None:
    """Make an edge, linked to nothing yet; ``None`` without memory (mm/rmap.c:127).

    Locks: none; unless `gfp` forbids it, it may sleep in reclaim, so no rmap lock is held then.
    """
    if k.inject is not None and k.inject.should_fail("anon_vma_chain"):
        return None
    return AnonVmaChain(vma)  # L129


def anon_vma_chain_free(avc: AnonVmaChain) -> i32:
    """Give an edge back, naming nothing any more, lest it still be used (mm/rmap.c:132).

    Locks: none; the edge is out of its tree.
    """
    if avc.rb_linked:
        BUG("rmap.c:132 anon_vma_chain_free: the edge is in a tree")
    avc.anon_vma = None  # L134
    return 0


def anon_vma_chain_link(vma: Vma, avc: AnonVmaChain, anon_vma: AnonVma) -> i32:
    """Tie a VMA to an anon_vma: first in the chain, and into the tree (mm/rmap.c:137).

    The root is locked for write.

    Locks: needs the root's rwsem for write, and mmap_sem for write or page_table_lock.
    """
    anon_vma.root.rwsem.assert_held_write()
    avc.vma = vma
    avc.anon_vma = anon_vma
    vma.anon_vma_chain.insert(0, avc)  # L143
    interval_tree_insert(avc, anon_vma.rb_root)  # L144
    return 0


# ---------------------------------------------------------------- prepare


def anon_vma_prepare(k: Kernel, vma: Vma) -> i32:
    """Make sure that the VMA has an anon_vma, before the first anonymous page goes into it.

    include/linux/rmap.h:146 (v4.18). Returns 0 or -ENOMEM. mmap_sem is held, at least for read.
    """
    if vma_anon_vma(vma) is not None:
        return 0
    return __anon_vma_prepare(k, vma)


def __anon_vma_prepare(k: Kernel, vma: Vma) -> i32:
    """Share a neighbour's anon_vma or make a new one (mm/rmap.c:175). Returns 0 or -ENOMEM.

    The root is locked even if it is new: a stale reader may have its lock already.

    Locks: needs mmap_sem, at least for read; takes the root's rwsem for write, and page_table_lock
    inside of it.
    """
    mm: Mm = vma.vm_mm
    mm.mmap_sem.assert_held_any()
    avc: AnonVmaChain = anon_vma_chain_alloc(k, vma, GFP_KERNEL)
    if avc is None:  # L184
        return -ENOMEM
    anon_vma: AnonVma = find_mergeable_anon_vma(k, vma)
    allocated: AnonVma = None
    if anon_vma is None:  # L189
        anon_vma = anon_vma_alloc(k)
        if anon_vma is None:  # L191
            anon_vma_chain_free(avc)
            return -ENOMEM
        # The link of a root to itself, as its own parent.
        anon_vma.num_children += 1
        allocated = anon_vma

    lock: flag = k.profile.prepare_locks_new or allocated is None
    if lock:
        anon_vma_lock_write(anon_vma)
    # Two threads may fault in the same VMA, both with mmap_sem for read.
    mm.page_table_lock.lock()
    if vma.anon_vma is None:  # L199
        set_vma_anon_vma(vma, anon_vma)
        anon_vma_chain_link(vma, avc, anon_vma)
        # Of a shared one it counts the VMA; of a new one, which counts its VMA, the self-parent.
        anon_vma.degree += 1
        anon_vma.num_active_vmas += 1
        allocated = None
        avc = None
    mm.page_table_lock.unlock()
    if lock:
        anon_vma_unlock_write(anon_vma)

    if allocated is not None:  # L210
        put_anon_vma(k, allocated)
    if avc is not None:  # L212
        anon_vma_chain_free(avc)
    if k.tracer is not None:
        k.tracer("anon_vma_prepare", (vma, vma.anon_vma))
    return 0


# ---------------------------------------------------------------- clone, fork, unlink


def lock_anon_vma_root(k: Kernel, root: AnonVma, anon_vma: AnonVma) -> AnonVma:
    """Lock the root of the next anon_vma of a chain, unless it is locked as `root` (L231).

    All anon_vmas of a chain have one root; a second one is worth a warning.

    Locks: needs that `root`, if any, is locked for write; takes the root's rwsem for write. What
    allocates has to give it back before it sleeps.
    """
    new_root: AnonVma = anon_vma.root
    if new_root is not root:  # L234
        if root is not None:  # L235
            WARN_ONCE(k.warnings, "rmap.c:235 lock_anon_vma_root: a chain with two roots")
            root.rwsem.up_write()
        new_root.rwsem.down_write()
    return new_root


def unlock_anon_vma_root(root: AnonVma) -> i32:
    """Unlock what lock_anon_vma_root() locked, if anything (mm/rmap.c:243).

    Locks: needs the root's rwsem for write, and gives it back.
    """
    if root is not None:  # L245
        root.rwsem.up_write()
    return 0


def anon_vma_clone(k: Kernel, dst: Vma, src: Vma) -> i32:
    """Tie `dst` to every anon_vma of `src` (mm/rmap.c:261). Returns 0 or -ENOMEM, undone.

    The oldest comes first, so the chains come out in the same order. If `dst` has no anon_vma, as
    at fork, one of those that the `ReuseRule` permits becomes its own. Without that, a process
    that forks and exits for ever would leave an ever longer chain.

    Locks: needs mmap_sem of `src` for write; takes the root's rwsem for write, and lets it go where
    it has to sleep for memory.
    """
    src.vm_mm.mmap_sem.assert_held_write()
    rule: ReuseRule = default_rule if k.reuse_rule is None else k.reuse_rule
    root: AnonVma = None
    avc: AnonVmaChain
    pavc: AnonVmaChain
    anon_vma: AnonVma
    i: i64
    for i in range(len(src.anon_vma_chain) - 1, -1, -1):  # L266
        pavc = src.anon_vma_chain[i]
        # To wait for memory under the root's lock would be to wait for reclaim, which wants it.
        avc = anon_vma_chain_alloc(k, dst, GFP_NOWAIT | GFP_NOWARN)
        if avc is None:  # L270
            unlock_anon_vma_root(root)
            root = None
            avc = anon_vma_chain_alloc(k, dst, GFP_KERNEL)
            if avc is None:  # L274
                # Its degree does not count dst yet, and unlink_anon_vmas() would uncount it.
                if k.profile.failed_clone_forgets_owner:
                    dst.anon_vma = None  # L305
                unlink_anon_vmas(k, dst)
                return -ENOMEM
        anon_vma = pavc.anon_vma
        root = lock_anon_vma_root(k, root, anon_vma)
        anon_vma_chain_link(dst, avc, anon_vma)
        if dst.anon_vma is None and rule.may_reuse(k, dst, src, anon_vma):  # L289
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:  # L293
        dst.anon_vma.degree += 1
        dst.anon_vma.num_active_vmas += 1
    unlock_anon_vma_root(root)
    if k.tracer is not None:
        k.tracer("anon_vma_clone", (dst, src))
    return 0


def anon_vma_fork(k: Kernel, vma: Vma, pvma: Vma) -> i32:
    """Tie a child's VMA to the parent's anon_vmas and to one of its own (mm/rmap.c:315).

    The former are for pages that are still shared, the latter for those it will write. Returns 0
    or -ENOMEM, undone.

    Locks: needs mmap_sem of the parent for write; takes the root's rwsem for write, twice.
    """
    if pvma.anon_vma is None:  # L322
        return 0
    # The copy of the parent's; what replaces it is chosen by the clone, or made below.
    vma.anon_vma = None
    error: i32 = anon_vma_clone(k, vma, pvma)
    if error:  # L333
        return error
    if vma.anon_vma is not None:  # L337
        return 0

    anon_vma: AnonVma = anon_vma_alloc(k)
    if anon_vma is None:  # L342
        unlink_anon_vmas(k, vma)
        return -ENOMEM
    avc: AnonVmaChain = anon_vma_chain_alloc(k, vma, GFP_KERNEL)
    if avc is None:  # L345
        put_anon_vma(k, anon_vma)
        unlink_anon_vmas(k, vma)  # L372
        return -ENOMEM
    anon_vma.num_active_vmas += 1
    set_anon_vma_root(anon_vma, pvma.anon_vma.root)
    anon_vma.parent = pvma.anon_vma
    # The lock of all is in the root, so the root has to live as long as any of them.
    get_anon_vma(anon_vma.root)  # L359
    vma.anon_vma = anon_vma
    anon_vma_lock_write(anon_vma)
    anon_vma_chain_link(vma, avc, anon_vma)
    anon_vma.parent.degree += 1
    anon_vma.parent.num_children += 1
    anon_vma_unlock_write(anon_vma)
    if k.tracer is not None:
        k.tracer("anon_vma_fork", (vma, pvma, anon_vma))
    return 0


def unlink_anon_vmas(k: Kernel, vma: Vma) -> i32:
    """Untie a VMA from all its anon_vmas, and free those that it was the last of (mm/rmap.c:376).

    No page that the VMA maps may name them any more. The newest goes first: the root, whose lock
    it takes to free the others, is the last.

    Locks: needs mmap_sem for write, or that nobody else uses the mm any more; takes the root's
    rwsem for write, and again for what it frees.
    """
    if k.tracer is not None:
        k.tracer("unlink_anon_vmas", (vma,))
    _unlink_chain(k, vma)
    # What is left names empty anon_vmas, whose end needs the root's lock once more.
    avc: AnonVmaChain
    anon_vma: AnonVma
    for avc in vma.anon_vma_chain:  # L412
        anon_vma = avc.anon_vma
        if k.debug_vm and _is_counted(k, anon_vma):  # L415
            WARN(k.warnings, "rmap.c:415 unlink_anon_vmas: a count is left on an empty anon_vma")
        put_anon_vma(k, anon_vma)
        anon_vma_chain_free(avc)
    vma.anon_vma_chain = []
    return 0


def _is_counted(k: Kernel, anon_vma: AnonVma) -> flag:
    """Whether VMAs or children are counted, by whichever counts the rule of reuse looks at."""
    if k.profile.separate_reuse_counters:
        return anon_vma.num_children != 0 or anon_vma.num_active_vmas != 0
    return anon_vma.degree != 0


def _unlink_chain(k: Kernel, vma: Vma) -> i32:
    """Take a VMA's edges out of their trees; those of trees that are empty then stay on the chain.

    The first half of unlink_anon_vmas(), under the root's lock.
    """
    root: AnonVma = None
    avc: AnonVmaChain
    anon_vma: AnonVma
    left: list = []
    for avc in vma.anon_vma_chain:  # L385
        anon_vma = avc.anon_vma
        root = lock_anon_vma_root(k, root, anon_vma)
        interval_tree_remove(avc, anon_vma.rb_root)
        if anon_vma.rb_root.rb_node is None:  # L395
            anon_vma.parent.degree -= 1
            anon_vma.parent.num_children -= 1
            left.append(avc)
        else:
            anon_vma_chain_free(avc)
    vma.anon_vma_chain = left
    if vma.anon_vma is not None:  # L403
        vma.anon_vma.degree -= 1
        vma.anon_vma.num_active_vmas -= 1
        if k.profile.unlink_clears_anon_vma:
            vma.anon_vma = None
    unlock_anon_vma_root(root)
    return 0


def anon_vma_ctor(handle: u64) -> AnonVma:
    """Construct a slot of the slab: once for the slot, not for each allocation (mm/rmap.c:423).

    Locks: none; what it makes has its lock free, and keeps it from one use to the next.
    """
    return AnonVma(handle)  # L427


def anon_vma_init(k: Kernel) -> None:
    """Make the slab of anon_vmas, empty (mm/rmap.c:432). Handle 0 is NULL.

    Locks: none; nothing else runs yet.
    """
    k.anon_vmas = [None]  # L434
    k.anon_vma_free = []


# ---------------------------------------------------------------- from a page


def _mapped_anon_vma(k: Kernel, page: u64) -> AnonVma:
    """What an anonymous page that is mapped names, in whatever state it is; else ``None``."""
    word: u32 = page_mapping_word(k, page)
    if word & PAGE_MAPPING_FLAGS != PAGE_MAPPING_ANON:  # L471 L515
        return None
    if not page_mapped(k, page):  # L473 L517
        return None
    return k.anon_vmas[word >> MAPPING_HANDLE_SHIFT]


def _still_mapped(k: Kernel, page: u64) -> flag:
    """Whether the page is mapped yet, so that its anon_vma cannot have been freed meanwhile."""
    return not k.profile.page_mapped_recheck or page_mapped(k, page)


def page_get_anon_vma(k: Kernel, page: u64) -> AnonVma:
    """Take a reference to the page's anon_vma (mm/rmap.c:464).

    ``None`` if the page is not anonymous, is a KSM page, or is not mapped. If the page moved to
    another anon_vma meanwhile, that is a child of this one.

    Locks: none but RCU; the last reference may come to be its own, so no rmap lock is held.
    """
    rcu_read_lock()
    anon_vma: AnonVma = _mapped_anon_vma(k, page)
    if anon_vma is None:
        rcu_read_unlock()
        return None
    if not anon_vma_get_unless_zero(anon_vma):  # L477
        rcu_read_unlock()
        return None
    # The slot may have been another's by the time of the increment; type-stable memory makes that
    # harmless, and this is what notices.
    if not _still_mapped(k, page):  # L489
        rcu_read_unlock()
        put_anon_vma(k, anon_vma)
        return None
    rcu_read_unlock()
    return anon_vma


def page_lock_anon_vma_read(k: Kernel, page: u64) -> AnonVma:
    """Lock the page's anon_vma for read and return it; ``None`` as page_get_anon_vma() says.

    mm/rmap.c:507. With luck one atomic operation: the trylock. Otherwise a reference keeps the
    anon_vma while this waits for the lock. What maps the page has to be verified by the walk.
    Give it back by page_unlock_anon_vma_read().

    Locks: takes the root's rwsem for read, which the caller keeps. Inside the page lock if that is
    held, as it need not be.
    """
    rcu_read_lock()
    anon_vma: AnonVma = _mapped_anon_vma(k, page)
    if anon_vma is None:
        rcu_read_unlock()
        return None
    root: AnonVma = anon_vma_root(anon_vma)
    if root.rwsem.down_read_trylock():  # L522
        # Still mapped: it is the page's, and anon_vma_free() waits for the lock held here.
        if not _still_mapped(k, page):  # L528
            root.rwsem.up_read()
            anon_vma = None
        rcu_read_unlock()
        return anon_vma

    if not anon_vma_get_unless_zero(anon_vma):  # L536
        rcu_read_unlock()
        return None
    if not _still_mapped(k, page):  # L541
        rcu_read_unlock()
        put_anon_vma(k, anon_vma)
        return None
    rcu_read_unlock()
    anon_vma_lock_read(anon_vma)
    if anon_vma_dec_and_test(anon_vma):  # L551
        # put_anon_vma() would wait for the lock that is held here.
        anon_vma_unlock_read(anon_vma)
        __put_anon_vma(k, anon_vma)
        return None
    return anon_vma


def page_unlock_anon_vma_read(anon_vma: AnonVma) -> i32:
    """Give back what page_lock_anon_vma_read() locked (mm/rmap.c:569).

    Locks: needs the root's rwsem for read, and gives it back.
    """
    return anon_vma_unlock_read(anon_vma)  # L571


def __put_anon_vma(k: Kernel, anon_vma: AnonVma) -> i32:
    """Free an anon_vma whose last reference went, and drop its reference to its root.

    mm/rmap.c:1722. Never under the root's lock.

    Locks: takes the root's rwsem for write for a moment, if somebody holds it. So neither that nor
    a lock inside of it is held.
    """
    root: AnonVma = anon_vma.root
    anon_vma_free(k, anon_vma)
    if root is not anon_vma and anon_vma_dec_and_test(root):  # L1727
        anon_vma_free(k, root)
    return 0


# ---------------------------------------------------------------- include/linux/rmap.h, mm/mmap.c


def get_anon_vma(anon_vma: AnonVma) -> i32:
    """Take one more reference."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_ANON_VMA_REFCOUNT, anon_vma.handle)
    anon_vma.refcount += 1
    return 0


def put_anon_vma(k: Kernel, anon_vma: AnonVma) -> i32:
    """Drop a reference, and free the anon_vma with the last (include/linux/rmap.h:110)."""
    if anon_vma_dec_and_test(anon_vma):
        __put_anon_vma(k, anon_vma)
    return 0


def anon_vma_get_unless_zero(anon_vma: AnonVma) -> flag:
    """atomic_inc_not_zero(&anon_vma->refcount): what is freed must not be revived."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_ANON_VMA_REFCOUNT, anon_vma.handle)
    if anon_vma.refcount == 0:
        return False
    anon_vma.refcount += 1
    return True


def anon_vma_dec_and_test(anon_vma: AnonVma) -> flag:
    """atomic_dec_and_test(&anon_vma->refcount). Below none is a bug of whoever counts."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_ANON_VMA_REFCOUNT, anon_vma.handle)
    if anon_vma.refcount <= 0:
        BUG("rmap.h:112 put_anon_vma: the anon_vma has no references")
    anon_vma.refcount -= 1
    return anon_vma.refcount == 0


def anon_vma_root(anon_vma: AnonVma) -> AnonVma:
    """READ_ONCE(anon_vma->root) of one that may be freed or made anew this moment."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_ANON_VMA, anon_vma.handle)
    return anon_vma.root


def set_anon_vma_root(anon_vma: AnonVma, root: AnonVma) -> i32:
    """Store anon_vma->root, which a stale reader may be about to read."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_ANON_VMA, anon_vma.handle)
    anon_vma.root = root
    return 0


def anon_vma_lock_read(anon_vma: AnonVma) -> i32:
    """Lock the anon_vma's tree, that is its root, for read."""
    return anon_vma.root.rwsem.down_read()


def anon_vma_unlock_read(anon_vma: AnonVma) -> i32:
    """Unlock the anon_vma's root from read."""
    return anon_vma.root.rwsem.up_read()


def anon_vma_lock_write(anon_vma: AnonVma) -> i32:
    """Lock the anon_vma's tree, that is its root, for write."""
    return anon_vma.root.rwsem.down_write()


def anon_vma_unlock_write(anon_vma: AnonVma) -> i32:
    """Unlock the anon_vma's root from write."""
    return anon_vma.root.rwsem.up_write()


def anon_vma_interval_tree_pre_update_vma(k: Kernel, vma: Vma) -> i32:
    """Take a VMA whose range is about to change out of all its trees (mm/mmap.c:472).

    The root is locked for write, from here to anon_vma_interval_tree_post_update_vma().
    """
    avc: AnonVmaChain
    for avc in vma.anon_vma_chain:
        avc.anon_vma.root.rwsem.assert_held_write()
        interval_tree_remove(avc, avc.anon_vma.rb_root)
    return 0


def anon_vma_interval_tree_post_update_vma(k: Kernel, vma: Vma) -> i32:
    """Put a VMA back into its trees by its new range (mm/mmap.c:481)."""
    avc: AnonVmaChain
    for avc in vma.anon_vma_chain:
        avc.anon_vma.root.rwsem.assert_held_write()
        interval_tree_insert(avc, avc.anon_vma.rb_root)
    return 0


def anon_vma_merge(k: Kernel, vma: Vma, next: Vma) -> i32:
    """Untie a VMA that was merged into `vma` (include/linux/rmap.h:155). Another's is a bug."""
    if k.debug_vm and vma.anon_vma is not next.anon_vma:
        BUG("rmap.h:157 anon_vma_merge: the VMAs have different anon_vmas")
    return unlink_anon_vmas(k, next)
