# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The stable tree: merged pages, found by what they hold (mm/ksm.c, v4.18).

Locks: ksm.thread_mutex guards the tree. Looking at a page takes a reference to it, and at the end
of a search the page lock for a moment.

The kernel's trees are red-black trees. Here they are lists in the same order, searched by halves:
it is other nodes that a search passes on its way, and the same one that it finds, unless contents
change under an unstable tree.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import EBUSY
    from rmap.mm.bug import BUG, WARN_ONCE
    from rmap.mm.content import page_bytes
    from rmap.mm.ksm.stable import (
        Ksm,
        StableNode,
        alloc_stable_node,
        alloc_stable_node_chain,
        free_stable_node,
        free_stable_node_chain,
        get_ksm_page,
        is_page_sharing_candidate,
        is_stable_node_chain,
        ksm_of,
        page_stable_node,
        remove_node_from_stable_tree,
        set_page_stable_node,
        stable_node_chain_add_dup,
        stable_tree_position,
    )
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import Kernel
    from rmap.mm.page import get_page, page_mapped, unlock_page
    from rmap.scalar import flag, i32, i64, u64


def memcmp_pages(k: Kernel, page: u64, other: u64) -> i32:
    """Compare what two pages hold: less than, equal to or greater than 0, as memcmp() says."""
    mine: bytes = page_bytes(k, page)
    its: bytes = page_bytes(k, other)
    if mine == its:
        return 0
    # Zeros at the end are left out, and are what is least: the order stays that of whole pages.
    return -1 if mine < its else 1


class NodeFound:
    """What a step of a search came to: a page with a reference, 0 if the tree has changed.

    `node` is what is in the tree there now, `dup` the node that may be added to, ``None`` if
    there is none that is not full.
    """

    def __init__(self) -> None:
        self.page = 0
        self.node: StableNode = None
        self.dup: StableNode = None


def _look_at(k: Kernel, node: StableNode, prune: flag, found: NodeFound) -> i32:
    """Find a page to compare with at a node of the tree: chain(), and chain_prune()."""
    anybody: StableNode
    found.node = node
    found.dup = None
    found.page = 0
    if is_stable_node_chain(node):
        stable_node_dup(k, node, prune, found)
    elif is_page_sharing_candidate(k, node, 0):
        found.dup = node
        found.page = get_ksm_page(k, node, False)
    if found.dup is not None:
        return 0
    # All are full: any of them will do to go on, they hold the same.
    anybody = node
    if is_stable_node_chain(node):
        if not node.dups:
            return free_stable_node_chain(k, node)
        anybody = node.dups[0]
    found.page = get_ksm_page(k, anybody, False)
    return 0


def stable_node_dup(k: Kernel, chain: StableNode, prune: flag, found: NodeFound) -> i32:
    """Find the node of a chain that is to be added to, into `found`: the fullest that is not full.

    Going over all of them is put off for a while (stable_node_chains_prune_millisecs); until then
    the first that will do is taken. A chain that turns out to have one node left is undone.
    """
    ksm: Ksm = ksm_of(k)
    dup: StableNode
    page: u64
    alive: i64 = 0
    if prune and ksm.now >= chain.chain_prune_time + ksm.stable_node_chains_prune_millisecs:
        chain.chain_prune_time = ksm.now
    else:
        prune = False
    for dup in list(chain.dups):
        page = get_ksm_page(k, dup, False)
        if not page:
            continue
        alive += 1
        if is_page_sharing_candidate(k, dup, 0):
            if found.dup is None or dup.rmap_hlist_len > found.dup.rmap_hlist_len:
                if found.dup is not None:
                    put_page(k, found.page)
                found.dup = dup
                found.page = page
                if not prune:
                    break
                continue
        put_page(k, page)
    dup = found.dup
    if dup is None:
        return 0
    if prune and alive == 1:
        return _undo_chain(k, chain, found)
    if chain.dups[0] is not dup and is_page_sharing_candidate(k, dup, 1):
        # First, where the next search finds it at once.
        chain.dups.remove(dup)
        chain.dups.insert(0, dup)
    return 0


def _undo_chain(k: Kernel, chain: StableNode, found: NodeFound) -> i32:
    """Put the one node that is left of a chain into the tree by itself."""
    ksm: Ksm = ksm_of(k)
    if len(chain.dups) != 1:
        BUG("ksm.c stable_node_dup: a chain of several nodes is taken for one of one")
    ksm.stable_tree[stable_tree_position(ksm, chain)] = found.dup
    chain.dups = []
    found.dup.chain = None
    found.node = found.dup
    ksm.stable_node_chains -= 1
    ksm.stable_node_dups -= 1
    return free_stable_node(k, chain)


class StablePlace:
    """Where a search of the stable tree ended: at an equal page (`found`), or at `position`."""

    def __init__(self) -> None:
        self.position = 0
        self.equal = False
        self.found = NodeFound()


def _search(k: Kernel, page: u64, prune: flag, place: StablePlace) -> i32:
    """Find a page's place in the stable tree, beginning anew whenever a stale node goes."""
    ksm: Ksm = ksm_of(k)
    found: NodeFound = place.found
    low: i64 = 0
    high: i64 = len(ksm.stable_tree)
    middle: i64
    order: i32
    place.equal = False
    while low < high:
        middle = (low + high) >> 1
        _look_at(k, ksm.stable_tree[middle], prune, found)
        if not found.page:
            low = 0
            high = len(ksm.stable_tree)
            continue
        order = memcmp_pages(k, page, found.page)
        put_page(k, found.page)
        if order < 0:
            high = middle
        elif order > 0:
            low = middle + 1
        else:
            place.equal = True
            break
    place.position = low
    return 0


def stable_tree_search(k: Kernel, page: u64) -> u64:
    """The merged page that holds what a page holds, with a reference; 0 if there is none.

    A merged page finds itself: fork has mapped it where there is no item. Where all pages that
    hold the same are full there is none either; two more will have to find each other.
    """
    if page_stable_node(k, page) is not None:
        get_page(k, page)
        return page
    place: StablePlace = StablePlace()
    kpage: u64
    while True:
        _search(k, page, True, place)
        if not place.equal or place.found.dup is None:
            return 0
        # Locked and unlocked: whoever is moving the page away will see the reference.
        kpage = get_ksm_page(k, place.found.dup, True)
        if kpage:
            unlock_page(k, kpage)
            return kpage


def stable_tree_insert(k: Kernel, kpage: u64) -> StableNode | None:
    """Enter a page that was just made a merged one, and is locked; ``None`` without memory.

    v4.18 lets the page name its node before that is in the tree. If then no chain can be made for
    it, the page goes on naming a node that was freed (90e823498881).
    """
    ksm: Ksm = ksm_of(k)
    place: StablePlace = StablePlace()
    _search(k, kpage, False, place)
    node: StableNode = alloc_stable_node(k)
    if node is None:
        return None
    chain: StableNode
    node.kpfn = kpage
    node.held = page_bytes(k, kpage)
    if not k.profile.ksm_names_node_last:
        set_page_stable_node(k, kpage, node)
    if not place.equal:
        ksm.stable_tree.insert(place.position, node)
    else:
        chain = place.found.node
        if not is_stable_node_chain(chain):
            chain = alloc_stable_node_chain(k, chain)
            if chain is None:
                free_stable_node(k, node)
                return None
        stable_node_chain_add_dup(k, node, chain)
    if k.profile.ksm_names_node_last:
        set_page_stable_node(k, kpage, node)
    return node


# ---------------------------------------------------------------- taking all of it down


def remove_stable_node(k: Kernel, node: StableNode) -> i32:
    """Free the node of a page that nothing maps any more; -EBUSY if something still does."""
    page: u64 = get_ksm_page(k, node, True)
    error: i32 = 0
    if not page:
        return 0
    if page_mapped(k, page):
        # Its last mapping is just about to go, with an address space that was left already.
        if not k.profile.ksm_expects_exit:
            WARN_ONCE(k.warnings, "ksm.c remove_stable_node: the page is mapped")
        error = -EBUSY
    else:
        set_page_stable_node(k, page, None)
        remove_node_from_stable_tree(k, node)
    unlock_page(k, page)
    put_page(k, page)
    return error


def remove_all_stable_nodes(k: Kernel) -> i32:
    """Empty the stable tree; -EBUSY if some page is still mapped, at which this ends."""
    ksm: Ksm = ksm_of(k)
    node: StableNode
    dup: StableNode
    while ksm.stable_tree:
        node = ksm.stable_tree[0]
        if not is_stable_node_chain(node):
            if remove_stable_node(k, node):
                return -EBUSY
            continue
        for dup in list(node.dups):
            if remove_stable_node(k, dup):
                return -EBUSY
        free_stable_node_chain(k, node)
    return 0
