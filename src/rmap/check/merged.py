# SPDX-License-Identifier: GPL-2.0-only
"""Merged pages: the nodes they name, the places that hang on these, and what KSM counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.check.recount import Recount, name_vma
from rmap.check.violation import invariant
from rmap.mm.bits import (
    _PAGE_RW,
    KSM_FLAG_MASK,
    MAPPING_HANDLE_SHIFT,
    PAGE_MAPPING_FLAGS,
    PAGE_MAPPING_KSM,
    SEQNR_MASK,
    STABLE_FLAG,
    STABLE_NODE_CHAIN,
    UNSTABLE_FLAG,
)
from rmap.mm.ksm.stable import Ksm, RmapItem, StableNode


def _word(node: StableNode) -> int:
    return int(node.handle) << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_KSM


def _nodes_in_tree(ksm: Ksm) -> list[StableNode]:
    """Every node that the stable tree leads to, chains included."""
    return [*ksm.stable_tree, *(dup for node in ksm.stable_tree for dup in node.dups)]


@invariant("ksm-nodes", "nodes are in the stable tree once, in its order, as their pages name them")
def ksm_nodes(facts: Recount) -> Iterator[str]:
    """The stable tree and the slab of nodes. A node whose page is gone stays until it is met."""
    ksm: Ksm | None = facts.kernel.ksm
    if ksm is None:
        return
    listed = _nodes_in_tree(ksm)
    if len(set(listed)) != len(listed) or set(listed) != set(facts.stable_nodes):
        yield f"{len(listed)} nodes are in the stable tree, {len(facts.stable_nodes)} allocated"
    for node in facts.stable_nodes:
        yield from _node_problems(facts, node)
    previous: tuple[bytes, StableNode] | None = None
    for node in ksm.stable_tree:
        alive = [one for one in (node, *node.dups) if facts.mapping[one.kpfn] == _word(one)]
        contents = {facts.kernel.content.get(int(one.kpfn), b"") for one in alive}
        if len(contents) > 1:
            yield f"pages of the chain {node.handle} hold {len(contents)} different things"
        for content in contents:
            if previous is not None and previous[0] >= content:
                yield f"{node} comes behind {previous[1]} in the tree, and holds no more"
            previous = content, node


def _node_problems(facts: Recount, node: StableNode) -> Iterator[str]:
    """Tell what is wrong with one node."""
    if node.rmap_hlist_len == STABLE_NODE_CHAIN:
        if node.hlist or node.chain is not None:
            yield f"the chain {node.handle} has items, or is in a chain"
        if any(dup.chain is not node for dup in node.dups):
            yield f"the chain {node.handle} has a node that does not know it"
        return
    if node.rmap_hlist_len != len(node.hlist) or node.dups:
        yield f"{node}: rmap_hlist_len {node.rmap_hlist_len}, found {len(node.hlist)}"
    for item in node.hlist:
        if item.head is not node or not item.address & STABLE_FLAG:
            yield f"{node} has {item}, which is on {item.head}"


@invariant("ksm-counters", "what KSM counts equals a recount of its items and nodes")
def ksm_counters(facts: Recount) -> Iterator[str]:
    """The files of /sys/kernel/mm/ksm."""
    ksm: Ksm | None = facts.kernel.ksm
    if ksm is None:
        return
    items: list[RmapItem] = [item for slot in ksm.mm_slots for item in slot.rmap_list]
    stable = {item for item in items if item.address & STABLE_FLAG}
    unstable = [item for item in items if item.address & UNSTABLE_FLAG]
    fresh = {item for item in unstable if not (ksm.scan.seqnr - item.address) & SEQNR_MASK}
    held = [node for node in facts.stable_nodes if node.hlist]
    found = {
        "rmap_items": len(items),
        "pages_shared": len(held),
        "pages_sharing": len(stable) - len(held),
        "pages_unshared": len(unstable),
        "stable_node_chains": sum(node.rmap_hlist_len < 0 for node in facts.stable_nodes),
        "stable_node_dups": sum(node.chain is not None for node in facts.stable_nodes),
    }
    for name, count in found.items():
        if getattr(ksm, name) != count:
            yield f"{name} {getattr(ksm, name)}, found {count}"
    if stable != {item for _, item in facts.merged_items}:
        yield f"{len(stable)} items are in the stable tree, {len(facts.merged_items)} on its nodes"
    if ksm.scan.mm_slot is not None and fresh != set(ksm.unstable_tree):
        yield f"{len(fresh)} items are in the unstable tree, which has {len(ksm.unstable_tree)}"
    if {int(slot.mm.ident) for slot in ksm.mm_slots} != set(ksm.slots_hash):
        yield f"{len(ksm.mm_slots)} address spaces are listed, {len(ksm.slots_hash)} hashed"


@invariant("ksm-reachable", "an entry that maps a merged page is read-only, and found by its walk")
def ksm_reachable(facts: Recount) -> Iterator[str]:
    """I15. A page without a node is on its way to one, or back; nothing finds where it is mapped.

    Until ksmd comes by, a place may be without an item: where one was dropped, and where the page
    came back from swap. Nor is a place ever found that shared the page by fork, and has no item of
    its own, if the item that made the page a merged one is of a child.
    """
    mapped = facts.mapped
    words = facts.mapping[mapped.pfn]
    merged = words & np.uint32(PAGE_MAPPING_FLAGS) == PAGE_MAPPING_KSM
    places: dict[tuple[int, int], set[int]] = {}
    for node, item in facts.merged_items:
        key = int(node.handle), int(item.address) & ~KSM_FLAG_MASK
        places.setdefault(key, set()).add(int(item.anon_vma.handle))
    nodes = {int(node.handle): node for node in facts.stable_nodes}
    slots = facts.kernel.ksm.mm_slots if facts.kernel.ksm is not None else []
    looked_at = {
        (int(slot.mm.ident), int(item.address) & ~KSM_FLAG_MASK)
        for slot in slots
        for item in slot.rmap_list
    }
    for row in np.flatnonzero(merged & (mapped.vma >= 0)).tolist():
        page, address = int(mapped.pfn[row]), int(mapped.address[row])
        vma = facts.vmas[mapped.vma[row]]
        where = f"page {page:#x} is mapped at {address:#x} in {name_vma(vma)}"
        if int(mapped.value[row]) & _PAGE_RW:
            yield f"{where}, writable, and is a merged page"
        handle = int(words[row]) >> MAPPING_HANDLE_SHIFT
        if not handle:
            continue
        own = nodes.get(handle)
        if own is None or own.kpfn != page:
            yield f"{where}, and names a node that is freed or of another page"
            continue
        ties = {int(avc.anon_vma.handle) for avc in vma.anon_vma_chain}
        found = ties & places.get((handle, address), set()) or address in own.unlisted
        if not found and (int(vma.vm_mm.ident), address) in looked_at:
            yield f"{where}, where no walk comes"
