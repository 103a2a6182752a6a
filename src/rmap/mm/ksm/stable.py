# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Merged pages: their nodes, and the places that hang on them (mm/ksm.c, v4.18).

Locks: the page lock of a merged page guards the list of its node, and what the page's mapping
says; the trees and the counters are ksmd's own, under ksm.thread_mutex. Putting an anon_vma may
take its root's lock.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import put_anon_vma
    from rmap.mm.bits import (
        KSM_FLAG_MASK,
        KSM_RUN_MERGE,
        MAPPING_HANDLE_SHIFT,
        PAGE_MAPPING_KSM,
        PAGE_MASK,
        SEQNR_MASK,
        STABLE_FLAG,
        STABLE_NODE_CHAIN,
        UNSTABLE_FLAG,
    )
    from rmap.mm.bug import BUG, BUG_PAGE, WARN_ONCE
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AnonVma, Kernel, Mm
    from rmap.mm.page import (
        PageKsm,
        PageLocked,
        PageSwapCache,
        get_page_unless_zero,
        lock_page,
        page_mapping_word,
        page_rmapping,
        set_page_mapping,
        unlock_page,
    )
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.bits import (
        FIELD_STABLE_NODE,
        OP_READ,
        OP_WRITE,
        RANK_KSM_MMLIST,
        RANK_KSM_THREAD,
    )
    from rmap.sync.core import sched, sched_point
    from rmap.sync.locks import SpinLock


class RmapItem:
    """struct rmap_item: an address that ksmd cares for.

    The low bits of `address` say in which tree it is: STABLE_FLAG, or UNSTABLE_FLAG and the number
    of the scan that put it there. In the stable tree it hangs on `head` and holds a reference to
    `anon_vma`; these two are stale otherwise.
    """

    def __init__(self, mm: Mm, address: u64) -> None:
        self.mm = mm
        self.address = address
        self.anon_vma: AnonVma = None
        self.head: StableNode = None
        self.oldchecksum = 0

    def __repr__(self) -> str:
        return f"<rmap_item {self.address & ~KSM_FLAG_MASK:#x} of mm {self.mm.ident}>"


class StableNode:
    """struct stable_node: a merged page (`kpfn`), or a chain of nodes for pages that are equal.

    `hlist` has the items of the places where the page is mapped, the newest last: a dict, from
    which any goes at once. A chain has nodes in `dups` instead, the first to be tried first, and
    STABLE_NODE_CHAIN as its `rmap_hlist_len`; `chain` is the chain that a node is in. `held` is
    what the page held when it was entered, by which the node's place in the tree is found.
    `unlisted`, for checkers only, has the addresses at which the page may be mapped without an
    item.
    """

    def __init__(self, handle: u64) -> None:
        self.handle = handle
        self.kpfn = 0
        self.hlist: dict = {}
        self.rmap_hlist_len = 0
        self.dups: list = []
        self.chain: StableNode = None
        self.held = b""
        self.chain_prune_time = 0
        self.unlisted: set = set()

    def __repr__(self) -> str:
        return f"<stable_node {self.handle} of page {self.kpfn:#x}>"


class MmSlot:
    """struct mm_slot: an address space that has mergeable memory; its items by address."""

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.rmap_list: list = []

    def __repr__(self) -> str:
        return f"<mm_slot of {self.mm}>"


class KsmScan:
    """struct ksm_scan: how far ksmd has come. `mm_slot` is ``None`` between two rounds.

    `address` is the next one to look at, `cursor` the place of its item in the slot's list, and
    `seqnr` the number of rounds that are over.
    """

    def __init__(self) -> None:
        self.mm_slot: MmSlot = None
        self.address = 0
        self.cursor = 0
        self.seqnr = 0


class Ksm:
    """All that is static in mm/ksm.c; the counters and settings are those of /sys/kernel/mm/ksm.

    `stable_nodes` is the slab by handle, 0 being NULL; a handle that was freed last is used first.
    `mm_slots` has the address spaces in the order in which ksmd goes over them, `slots_hash` the
    same by `Mm.ident`. `unstable_at` is where the last search of the unstable tree ended: the item
    that it found is the one most often taken out. ksmd's clock, `now`, goes on by
    `sleep_millisecs` with each of its batches.
    """

    def __init__(self) -> None:
        self.stable_nodes: list = [None]
        self.stable_node_free: list = []
        self.stable_tree: list = []
        self.unstable_tree: list = []
        self.unstable_at = 0
        self.mm_slots: list = []
        self.slots_hash: dict = {}
        self.scan = KsmScan()
        self.thread_mutex = SpinLock(RANK_KSM_THREAD, 0)
        self.mmlist_lock = SpinLock(RANK_KSM_MMLIST, 0)
        self.run = KSM_RUN_MERGE
        self.max_page_sharing = 256
        self.use_zero_pages = False
        self.stable_node_chains_prune_millisecs = 2000
        self.sleep_millisecs = 20
        self.now = 0
        self.pages_shared = 0
        self.pages_sharing = 0
        self.pages_unshared = 0
        self.rmap_items = 0
        self.stable_node_chains = 0
        self.stable_node_dups = 0


def ksm_of(k: Kernel) -> Ksm:
    """The kernel's KSM; it is there from the first time that somebody asks for it."""
    if k.ksm is None:
        k.ksm = Ksm()
    return k.ksm


def ksm_test_exit(mm: Mm) -> flag:
    """Whether the address space is going: its last user left, and its pages are or will be gone."""
    return mm.mm_users == 0


# ---------------------------------------------------------------- the slabs


def alloc_rmap_item(k: Kernel, mm: Mm, address: u64) -> RmapItem | None:
    """Make an item that is in no tree; ``None`` without memory."""
    if k.inject is not None and k.inject.should_fail("rmap_item"):
        return None
    ksm: Ksm = ksm_of(k)
    ksm.rmap_items += 1
    return RmapItem(mm, address)


def free_rmap_item(k: Kernel, rmap_item: RmapItem) -> i32:
    """Give an item back, which is in no tree."""
    ksm: Ksm = ksm_of(k)
    ksm.rmap_items -= 1
    rmap_item.mm = None
    return 0


def alloc_stable_node(k: Kernel) -> StableNode | None:
    """Make a node; ``None`` without memory."""
    if k.inject is not None and k.inject.should_fail("stable_node"):
        return None
    ksm: Ksm = ksm_of(k)
    handle: u64 = len(ksm.stable_nodes)
    if ksm.stable_node_free:
        handle = ksm.stable_node_free.pop()
    else:
        ksm.stable_nodes.append(None)
    node: StableNode = StableNode(handle)
    ksm.stable_nodes[handle] = node
    return node


def free_stable_node(k: Kernel, node: StableNode) -> i32:
    """Give a node back, on which nothing hangs any more."""
    if node.rmap_hlist_len and node.rmap_hlist_len != STABLE_NODE_CHAIN:
        BUG("ksm.c free_stable_node: items hang on the node")
    ksm: Ksm = ksm_of(k)
    ksm.stable_nodes[node.handle] = None
    ksm.stable_node_free.append(node.handle)
    return 0


# ---------------------------------------------------------------- a page's node


def page_stable_node(k: Kernel, page: u64) -> StableNode:
    """The node of a merged page; ``None`` for other pages, and for one that has none (yet).

    A page that names a node which was freed is the end of the kernel, here a `KernelBug`.
    """
    if not PageKsm(k, page):
        return None
    handle: u64 = page_rmapping(k, page)
    if not handle:
        return None
    ksm: Ksm = ksm_of(k)
    node: StableNode = ksm.stable_nodes[handle]
    if node is None:
        BUG_PAGE("ksm.c page_stable_node: the page names a node that was freed", page)
    return node


def stable_node_mapping(node: StableNode | None) -> u32:
    """The word that names a node in page->mapping; that of no node is a merged page's as well."""
    if node is None:
        return PAGE_MAPPING_KSM
    return node.handle << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_KSM


def set_page_stable_node(k: Kernel, page: u64, node: StableNode | None) -> i32:
    """Make a page a merged one, of that node. It is locked."""
    if not PageLocked(k, page):
        BUG_PAGE("ksm.c set_page_stable_node: the page is not locked", page)
    return set_page_mapping(k, page, stable_node_mapping(node))


def _read_kpfn(node: StableNode) -> u64:
    """READ_ONCE(stable_node->kpfn), which migration may change."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_STABLE_NODE, node.handle)
    return node.kpfn


def get_ksm_page(k: Kernel, node: StableNode, lock_it: flag) -> u64:
    """The page of a node, with a reference and, if wanted, locked; 0 if it is gone.

    A node has no reference to its page, which may be freed at any time, and be another's. So it is
    the page's mapping that says whether this is the page still, before and after the reference is
    taken. If it is not, the node is of no use any more and is freed here, unless the page has just
    moved elsewhere.
    """
    expected: u32 = stable_node_mapping(node)
    kpfn: u64
    page: u64
    while True:
        kpfn = _read_kpfn(node)
        page = _get_if_still(k, kpfn, expected)
        if page and lock_it:
            lock_page(k, page)
            if page_mapping_word(k, page) != expected:
                unlock_page(k, page)
                put_page(k, page)
                page = 0
        if page:
            return page
        if _read_kpfn(node) == kpfn:
            break
    if k.tracer is not None:
        k.tracer("stable_node_stale", (kpfn,))
    remove_node_from_stable_tree(k, node)
    return 0


def _get_if_still(k: Kernel, page: u64, expected: u32) -> u64:
    """The page with a reference, if it is still the node's; else 0.

    A page of the swap cache that has no references for the moment is being moved, and comes back.
    """
    if page_mapping_word(k, page) != expected:
        return 0
    while not get_page_unless_zero(k, page):
        if page_mapping_word(k, page) != expected or not PageSwapCache(k, page):
            return 0
    if page_mapping_word(k, page) != expected:
        put_page(k, page)
        return 0
    return page


def ksm_migrate_page(k: Kernel, newpage: u64, oldpage: u64) -> i32:
    """A merged page has moved: let its node name the new page, and the old one no node.

    Both are locked, and the new one's mapping is set. In this order, since get_ksm_page() looks at
    the mapping first and at the node afterwards.
    """
    if not PageLocked(k, oldpage):
        BUG_PAGE("ksm.c ksm_migrate_page: the old page is not locked", oldpage)
    if not PageLocked(k, newpage):
        BUG_PAGE("ksm.c ksm_migrate_page: the new page is not locked", newpage)
    if page_mapping_word(k, newpage) != page_mapping_word(k, oldpage):
        BUG_PAGE("ksm.c ksm_migrate_page: the new page has another mapping", newpage)
    node: StableNode = page_stable_node(k, newpage)
    if node is None:
        return 0
    if node.kpfn != oldpage:
        BUG_PAGE("ksm.c ksm_migrate_page: the node is of another page", oldpage)
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_STABLE_NODE, node.handle)
    node.kpfn = newpage
    if k.tracer is not None:
        k.tracer("ksm_migrate_page", (newpage, oldpage))
    return set_page_stable_node(k, oldpage, None)


# ---------------------------------------------------------------- chains


def is_stable_node_chain(node: StableNode) -> flag:
    """Whether it is a chain, which has no page of its own."""
    return node.rmap_hlist_len == STABLE_NODE_CHAIN


def stable_tree_position(ksm: Ksm, node: StableNode) -> i64:
    """Where in the tree a node or chain is: rb_erase() and its like know it by themselves."""
    low: i64 = 0
    high: i64 = len(ksm.stable_tree)
    middle: i64
    other: StableNode
    while low < high:
        middle = (low + high) >> 1
        other = ksm.stable_tree[middle]
        if other is node:
            return middle
        if other.held < node.held:
            low = middle + 1
        else:
            high = middle
    return ksm.stable_tree.index(node)


def stable_node_chain_add_dup(k: Kernel, dup: StableNode, chain: StableNode) -> i32:
    """Put a node at the front of a chain."""
    if dup.chain is not None:
        BUG("ksm.c stable_node_chain_add_dup: the node is in a chain")
    if not is_stable_node_chain(chain):
        BUG("ksm.c stable_node_chain_add_dup: not a chain")
    ksm: Ksm = ksm_of(k)
    dup.chain = chain
    chain.dups.insert(0, dup)
    ksm.stable_node_dups += 1
    return 0


def stable_node_dup_del(k: Kernel, dup: StableNode) -> i32:
    """Take a node out of its chain, or out of the tree itself."""
    if is_stable_node_chain(dup):
        BUG("ksm.c stable_node_dup_del: a chain")
    ksm: Ksm = ksm_of(k)
    if dup.chain is None:
        del ksm.stable_tree[stable_tree_position(ksm, dup)]
        return 0
    dup.chain.dups.remove(dup)
    dup.chain = None
    ksm.stable_node_dups -= 1
    return 0


def alloc_stable_node_chain(k: Kernel, dup: StableNode) -> StableNode | None:
    """Put a chain where a node is in the tree, and the node into it; ``None`` without memory."""
    ksm: Ksm = ksm_of(k)
    chain: StableNode = alloc_stable_node(k)
    if chain is None:
        return None
    chain.rmap_hlist_len = STABLE_NODE_CHAIN
    chain.chain_prune_time = ksm.now
    ksm.stable_node_chains += 1
    chain.held = dup.held
    ksm.stable_tree[stable_tree_position(ksm, dup)] = chain
    stable_node_chain_add_dup(k, dup, chain)
    return chain


def free_stable_node_chain(k: Kernel, chain: StableNode) -> i32:
    """Take a chain that has become empty out of the tree."""
    ksm: Ksm = ksm_of(k)
    if chain.dups:
        BUG("ksm.c free_stable_node_chain: the chain is not empty")
    del ksm.stable_tree[stable_tree_position(ksm, chain)]
    ksm.stable_node_chains -= 1
    return free_stable_node(k, chain)


def is_page_sharing_candidate(k: Kernel, node: StableNode, more: i32) -> flag:
    """Whether places may be added, with `more` to come before them.

    A page that is mapped nowhere is about to be freed. One that is mapped at very many places
    takes very long to walk, so that there is a limit, beyond which an equal page is merged apart.
    """
    ksm: Ksm = ksm_of(k)
    if node.rmap_hlist_len < 0:
        BUG("ksm.c is_page_sharing_candidate: not a node with a page")
    return node.rmap_hlist_len != 0 and node.rmap_hlist_len + more < ksm.max_page_sharing


# ---------------------------------------------------------------- items come and go


def stable_tree_append(k: Kernel, rmap_item: RmapItem, node: StableNode, bypass: flag) -> i32:
    """Hang an item on the node of the page that its place maps now. The page is locked.

    The item holds a reference to the anon_vma. `bypass`: the page was shared by fork, which asks
    for no limit.
    """
    ksm: Ksm = ksm_of(k)
    if node.rmap_hlist_len < 0:
        BUG("ksm.c stable_tree_append: not a node with a page")
    node.rmap_hlist_len += 1
    if not bypass and node.rmap_hlist_len > ksm.max_page_sharing:
        WARN_ONCE(k.warnings, "ksm.c stable_tree_append: more places than max_page_sharing")
    if k.tracer is not None:
        k.tracer("stable_tree_append", (node.kpfn, rmap_item.mm, rmap_item.address))
    rmap_item.head = node
    rmap_item.address |= STABLE_FLAG
    node.hlist[rmap_item] = None
    if len(node.hlist) > 1:
        ksm.pages_sharing += 1
    else:
        ksm.pages_shared += 1
    return 0


def _leave_node(k: Kernel, node: StableNode, rmap_item: RmapItem, last: flag) -> i32:
    """Let an item that was taken off a node's list be in no tree, and its anon_vma go."""
    ksm: Ksm = ksm_of(k)
    if last:
        ksm.pages_shared -= 1
    else:
        ksm.pages_sharing -= 1
    node.rmap_hlist_len -= 1
    put_anon_vma(k, rmap_item.anon_vma)
    rmap_item.address &= ~KSM_FLAG_MASK
    return 0


def remove_node_from_stable_tree(k: Kernel, node: StableNode) -> i32:
    """Free a node whose page is gone, and let all items that hang on it be in no tree."""
    rmap_item: RmapItem
    if node.rmap_hlist_len < 0:
        BUG("ksm.c remove_node_from_stable_tree: not a node with a page")
    left: i64 = len(node.hlist)
    for rmap_item in reversed(node.hlist):
        left -= 1
        _leave_node(k, node, rmap_item, left == 0)
    node.hlist = {}
    stable_node_dup_del(k, node)
    return free_stable_node(k, node)


def remove_unstable_items(k: Kernel, items: list) -> i32:
    """Take all of many items out of the unstable tree at once, as far as they are in it."""
    ksm: Ksm = ksm_of(k)
    rmap_item: RmapItem
    gone: set = set()
    kept: list = []
    for rmap_item in items:
        if rmap_item.address & UNSTABLE_FLAG:
            gone.add(rmap_item)
            rmap_item.address &= ~KSM_FLAG_MASK
            ksm.pages_unshared -= 1
    if gone:
        for rmap_item in ksm.unstable_tree:
            if rmap_item not in gone:
                kept.append(rmap_item)
        ksm.unstable_tree = kept
    return 0


def _erase_unstable(ksm: Ksm, rmap_item: RmapItem) -> i32:
    """Take an item out of the unstable tree."""
    at: i64 = ksm.unstable_at
    if at >= len(ksm.unstable_tree) or ksm.unstable_tree[at] is not rmap_item:
        at = ksm.unstable_tree.index(rmap_item)
    del ksm.unstable_tree[at]
    return 0


def remove_rmap_item_from_tree(k: Kernel, rmap_item: RmapItem) -> i32:
    """Take an item out of whichever tree it is in. It takes the page lock of a merged page."""
    ksm: Ksm = ksm_of(k)
    node: StableNode
    page: u64
    if rmap_item.address & STABLE_FLAG:
        node = rmap_item.head
        page = get_ksm_page(k, node, True)
        if not page:
            # With the node all of its items are out of the tree, this one as well.
            return 0
        del node.hlist[rmap_item]
        # A child may map the page there that ksmd has not come to yet.
        node.unlisted.add(rmap_item.address & PAGE_MASK)
        unlock_page(k, page)
        put_page(k, page)
        _leave_node(k, node, rmap_item, not node.hlist)
    elif rmap_item.address & UNSTABLE_FLAG:
        # The tree is made anew in each round, so that only items of this one are in it.
        if rmap_item.address & SEQNR_MASK == ksm.scan.seqnr & SEQNR_MASK:
            _erase_unstable(ksm, rmap_item)
        ksm.pages_unshared -= 1
        rmap_item.address &= ~KSM_FLAG_MASK
    return 0
