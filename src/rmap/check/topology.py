# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas, their chains and their families (mm/rmap.c:78-420, v4.18)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rmap.check.recount import Recount, name_vma
from rmap.check.violation import invariant
from rmap.mm.mm_types import Vma


def _chain(vma: Vma) -> list[int]:
    """Handles of the anon_vmas on a VMA's chain, from its head."""
    return [int(avc.anon_vma.handle) for avc in vma.anon_vma_chain]


@invariant("chain-or-none", "a VMA has an anon_vma if and only if its chain is not empty (I1)")
def chain_or_none(facts: Recount) -> Iterator[str]:
    """I1."""
    for vma in facts.vmas:
        if (vma.anon_vma is None) != (not vma.anon_vma_chain):
            yield f"{name_vma(vma)} has anon_vma {vma.anon_vma} and chain {_chain(vma)}"


@invariant("own-on-chain", "a VMA's anon_vma is on its chain (I2)")
def own_on_chain(facts: Recount) -> Iterator[str]:
    """I2."""
    for vma in facts.vmas:
        if vma.anon_vma is not None and int(vma.anon_vma.handle) not in _chain(vma):
            yield f"{name_vma(vma)} owns {vma.anon_vma}, its chain is {_chain(vma)}"


@invariant("one-family", "a chain has one root, which comes last, and with each its parent (I3)")
def one_family(facts: Recount) -> Iterator[str]:
    """I3."""
    for vma in facts.vmas:
        chain = _chain(vma)
        if not chain:
            continue
        roots = {int(avc.anon_vma.root.handle) for avc in vma.anon_vma_chain}
        if len(roots) > 1 or chain[-1] not in roots:
            yield f"{name_vma(vma)}: chain {chain}, roots {sorted(roots)}"
        lost = {int(avc.anon_vma.parent.handle) for avc in vma.anon_vma_chain} - set(chain)
        if lost:
            yield f"{name_vma(vma)}: chain {chain} lacks the parents {sorted(lost)}"


@invariant("edges", "each edge is on one chain and in one tree, between live ends (I4, I5)")
def edges(facts: Recount) -> Iterator[str]:
    """I4, and the first half of I5."""
    live = {int(av.handle) for av in facts.live_anon_vmas}
    chained: dict[int, set[int]] = {}
    for vma, avc in facts.chains:
        handle = int(avc.anon_vma.handle)
        chained.setdefault(handle, set()).add(id(avc))
        if avc.vma is not vma:
            yield f"an edge on the chain of {name_vma(vma)} names {avc.vma}"
        if handle not in live or facts.kernel.anon_vmas[handle] is not avc.anon_vma:
            yield f"{name_vma(vma)}: an edge names anon_vma {handle}, which is free"
    for vma in facts.vmas:
        twice = [handle for handle, count in Counter(_chain(vma)).items() if count > 1]
        if twice:
            yield f"{name_vma(vma)}: two edges to anon_vma {twice[0]}"
    for handle, nodes in facts.trees.items():
        treed = {id(node) for node in nodes}
        for node in nodes:
            if id(node) not in chained.get(handle, set()):
                yield f"the tree of anon_vma {handle} has an edge of {node.vma} that is no chain's"
        if len(chained.get(handle, set()) - treed):
            yield f"an edge to anon_vma {handle} is not in its tree"


@invariant("life", "an anon_vma lives while its tree holds something or its family lives (I5)")
def life(facts: Recount) -> Iterator[str]:
    """The second half of I5, and what a freed slot must be like."""
    members = _members(facts)
    for av in facts.live_anon_vmas:
        handle = int(av.handle)
        if not facts.trees[handle] and not members[handle]:
            yield f"anon_vma {handle} lives, with an empty tree and no family"
    for av in facts.kernel.anon_vma_free:
        if av.refcount or av.rb_root.rb_node is not None or av.rwsem.count:
            yield f"freed anon_vma {av.handle}: refcount {av.refcount}, or a tree, or locked"
    if len(facts.free_anon_vmas) != len(facts.kernel.anon_vma_free):
        yield "an anon_vma is on the free list twice"


def _members(facts: Recount) -> Counter[int]:
    """How many other live anon_vmas have each as their root, and how many merged places pin it."""
    roots = Counter(int(av.root.handle) for av in facts.live_anon_vmas if av.root is not av)
    return roots + Counter(int(item.anon_vma.handle) for _, item in facts.merged_items)


@invariant("anon-refcount", "an anon_vma's refcount is 1 for its tree, 1 for each of its root (I8)")
def anon_refcount(facts: Recount) -> Iterator[str]:
    """I8 and kernel rule of references: tree, family, places that KSM merged, no other pins."""
    members = _members(facts)
    live = {int(av.handle) for av in facts.live_anon_vmas}
    for av in facts.live_anon_vmas:
        handle = int(av.handle)
        found = bool(facts.trees[handle]) + members[handle]
        if found != av.refcount:
            yield f"anon_vma {handle}: refcount {av.refcount}, found {found}"
        if av.root.root is not av.root or av.root.parent is not av.root:
            yield f"anon_vma {handle}: root {av.root.handle} is not a root"
        if int(av.root.handle) not in live:
            yield f"anon_vma {handle}: its root {av.root.handle} is freed"
        # With its last VMA it left its parent, which nobody looks at again: KSM may keep it longer.
        if facts.trees[handle] and int(av.parent.handle) not in live:
            yield f"anon_vma {handle}: its parent {av.parent.handle} is freed"


def _children(facts: Recount) -> Counter[int]:
    """How many anon_vmas with something in their tree have each as parent; a root has itself."""
    return Counter(int(av.parent.handle) for av in facts.live_anon_vmas if facts.trees[av.handle])


@invariant("degree", "degree, num_children and num_active_vmas equal a recount (I9)")
def degree(facts: Recount) -> Iterator[str]:
    """I9."""
    children = _children(facts)
    for av in facts.live_anon_vmas:
        owners = len(facts.owners.get(int(av.handle), ()))
        found = (owners + children[int(av.handle)], children[int(av.handle)], owners)
        counted = (av.degree, av.num_children, av.num_active_vmas)
        if found != counted:
            yield (
                f"anon_vma {av.handle}: degree, children and active VMAs are "
                f"{', '.join(map(str, counted))}, found {', '.join(map(str, found))}"
            )


@invariant("same-chain", "VMAs that own the same anon_vma have the same chain (CVE-2022-42703)")
def same_chain(facts: Recount) -> Iterator[str]:
    """What merging VMAs relies on, in the words of d0e9fe1758f2."""
    for handle, vmas in facts.owners.items():
        first = _chain(vmas[0])
        for vma in vmas[1:]:
            if _chain(vma) != first:
                yield (
                    f"{name_vma(vmas[0])} and {name_vma(vma)} own anon_vma {handle}, "
                    f"with chains {first} and {_chain(vma)}"
                )
