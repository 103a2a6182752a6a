# SPDX-License-Identifier: GPL-2.0-only
"""Damage to anon_vmas, to the chains between them and VMAs, and to interval trees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab.damage.kinds import Hurt, hurt, kind
from lab.damage.of_pages import NOBODY
from lab.damage.scene import I64, NotHere, Scene
from rmap.source.dump.rbtree import Nodes

ANON_VMA, CHAIN, VMA = "struct anon_vma", "struct anon_vma_chain", "struct vm_area_struct"
POISON = 0x6B
_LEFT, _RIGHT, _PARENT = "rb_left", "rb_right", "__rb_parent_color"


def users_of_vmas(scene: Scene, vmas: I64) -> set[int]:
    """The processes of some rows of ``vmas``."""
    rows = np.unique(scene.image.vmas["mm"][vmas[vmas >= 0]])
    return set().union(*(scene.pids(mm) for mm in rows.tolist())) if len(rows) else set()


def of_anon_vma(scene: Scene, row: int, what: str, *more: int) -> Hurt:
    """The anon_vma is what was damaged; all in its tree are affected."""
    anon = scene.reading.anon
    address = int(anon.anon_vmas.address[row])
    vmas = anon.listed_vma[anon.listed["anon_vma"] == np.uint64(address)]
    return hurt(f"anon_vma {address:#x}: {what}", [address, *more], users_of_vmas(scene, vmas))


def _anon_vma(scene: Scene, *, root: bool, tree: int = 1) -> int:
    """A row: a root or not, with at least so many VMAs in its tree."""
    anon = scene.reading.anon
    own = anon.anon_vmas["root"] == anon.anon_vmas.address
    size = np.bincount(anon.forest.nodes.tree, minlength=len(own))
    rows = np.flatnonzero((own == root) & (size >= tree))
    return scene.one(rows, "there is no such anon_vma")


def _set(scene: Scene, row: int, path: str, value: int) -> None:
    scene.assign(ANON_VMA, int(scene.reading.anon.anon_vmas.address[row]), path, value)


def _add(scene: Scene, row: int, path: str, delta: int) -> None:
    scene.add(ANON_VMA, int(scene.reading.anon.anon_vmas.address[row]), path, delta)


def _other_family(scene: Scene, row: int) -> int:
    """The address of a root of another family."""
    anon = scene.reading.anon.anon_vmas
    others = anon.address[(anon["root"] == anon.address) & (anon["root"] != anon["root"][row])]
    return scene.one(others.tolist(), "there is one family only")


# ---------------------------------------------------------------- anon_vmas


@kind("parent", "an anon_vma names a parent of another family", "anon_vma: parent")
def parent(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=False)
    _set(scene, row, "parent", _other_family(scene, row))
    return of_anon_vma(scene, row, "parent of another family")


@kind("parent-loop", "two anon_vmas are each other's parent", "anon_vma: loop")
def parent_loop(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=False)
    anon = scene.reading.anon.anon_vmas
    mine = np.flatnonzero(anon["root"] == anon["root"][row])
    others = [one for one in mine.tolist() if one != row and anon["root"][one] != anon.address[one]]
    other = scene.one(others, "the family is too small")
    _set(scene, row, "parent", int(anon.address[other]))
    _set(scene, other, "parent", int(anon.address[row]))
    return of_anon_vma(scene, row, "its own grandparent", int(anon.address[other]))


@kind("parent-garbage", "an anon_vma names a parent where there is no memory", "damage: missing")
def parent_garbage(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=False)
    _set(scene, row, "parent", NOBODY)
    return of_anon_vma(scene, row, "parent nowhere")


@kind("root", "an anon_vma names the root of another family", "chain: family", "anon_vma: parent")
def root(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=False)
    _set(scene, row, "root", _other_family(scene, row))
    return of_anon_vma(scene, row, "root of another family")


@kind("root-none", "an anon_vma names a root that is none", "anon_vma: root")
def root_none(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=True, tree=2)
    anon = scene.reading.anon.anon_vmas
    children = np.flatnonzero((anon["root"] == anon.address[row])
                              & (anon.address != anon.address[row]))  # fmt: skip
    child = scene.one(children, "the root has no children")
    _set(scene, row, "root", int(anon.address[child]))
    return of_anon_vma(scene, row, "its child as root", int(anon.address[child]))


@kind("anon-refcount", "an anon_vma has a reference too few", "anon_vma: refcount")
def anon_refcount(scene: Scene) -> Hurt:
    anon = scene.reading.anon.anon_vmas
    rows = np.flatnonzero(anon["refcount"].astype(np.int64) > 1)
    row = scene.one(rows, "no anon_vma has two references")
    _add(scene, row, "refcount.counter", -1)
    return of_anon_vma(scene, row, "refcount - 1")


@kind("anon-freed", "an anon_vma with VMAs in its tree has no reference", "anon_vma: freed")
def anon_freed(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=True)
    _set(scene, row, "refcount.counter", 0)
    return of_anon_vma(scene, row, "refcount = 0")


@kind(
    "anon-poisoned",
    "an anon_vma was freed and overwritten",
    "damage: missing",
    "chain: no anon_vma",
)
def anon_poisoned(scene: Scene) -> Hurt:
    import drgn

    row = _anon_vma(scene, root=False)
    address = int(scene.reading.anon.anon_vmas.address[row])
    for at in range(drgn.sizeof(scene.program.type(ANON_VMA))):
        scene.put(address + at, POISON, 1)
    return of_anon_vma(scene, row, "every byte 0x6b")


def _counter(scene: Scene, name: str) -> Hurt:
    row = _anon_vma(scene, root=True)
    _add(scene, row, name, 1)
    return of_anon_vma(scene, row, f"{name} + 1")


@kind("num-children", "an anon_vma counts a child too many", "anon_vma: num_children")
def num_children(scene: Scene) -> Hurt:
    return _counter(scene, "num_children")


@kind("num-active-vmas", "an anon_vma counts a VMA too many", "anon_vma: num_active_vmas")
def num_active_vmas(scene: Scene) -> Hurt:
    return _counter(scene, "num_active_vmas")


@kind("degree", "an anon_vma's degree is one too many", "anon_vma: degree")
def degree(scene: Scene) -> Hurt:
    return _counter(scene, "degree")


@kind("tree-lost", "the root of an anon_vma's tree is empty", "chain: not in tree")
def tree_lost(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=True, tree=2)
    _set(scene, row, "rb_root.rb_root.rb_node", 0)
    anon = scene.reading.anon
    nodes = anon.forest.nodes
    lost = nodes.records.address[nodes.tree == row].tolist()
    return of_anon_vma(scene, row, "an empty tree", *lost)


@kind("leftmost", "a tree names another node as its leftmost", "tree: leftmost")
def leftmost(scene: Scene) -> Hurt:
    row = _anon_vma(scene, root=True, tree=3)
    nodes = scene.reading.anon.forest.nodes
    mine = nodes.node[nodes.tree == row]
    _set(scene, row, "rb_root.rb_leftmost", int(mine[-1]))
    return of_anon_vma(scene, row, "leftmost is its last node")


# ---------------------------------------------------------------- chains


def _edge(scene: Scene) -> int:
    """The place of an edge in a list, neither first nor last."""
    anon = scene.reading.anon
    size = np.bincount(anon.listed_vma)
    rows = np.flatnonzero((anon.position > 0) & (anon.position < size[anon.listed_vma] - 1))
    return scene.one(rows, "no VMA has three anon_vmas")


def _of_edge(scene: Scene, row: int, what: str, *more: int) -> Hurt:
    anon = scene.reading.anon
    address, vma = int(anon.listed.address[row]), anon.listed_vma[row : row + 1]
    named = [address, int(scene.reading.spaces.vmas.address[vma[0]]), *more]
    return hurt(f"anon_vma_chain {address:#x}: {what}", named, users_of_vmas(scene, vma))


@kind("chain-unlinked-list", "an edge is not in its VMA's list", "chain: not in list")
def chain_unlinked_list(scene: Scene) -> Hurt:
    row = _edge(scene)
    listed = scene.reading.anon.listed
    before, after = int(listed["prev"][row]), int(listed["next"][row])
    scene.put(before, after)
    scene.put(after + 8, before)
    return _of_edge(scene, row, "unlinked from its list")


@kind("chain-prev", "an edge's link back leads elsewhere", "damage: back link")
def chain_prev(scene: Scene) -> Hurt:
    row = _edge(scene)
    address = int(scene.reading.anon.listed.address[row])
    after = int(scene.reading.anon.listed["next"][row])
    scene.put(address + scene.member(CHAIN, "same_vma") + 8, after)
    return _of_edge(scene, row, "same_vma.prev = its next")


@kind("chain-loop", "a VMA's list never ends", "damage: loop")
def chain_loop(scene: Scene) -> Hurt:
    row = _edge(scene)
    link = int(scene.reading.anon.listed.address[row]) + scene.member(CHAIN, "same_vma")
    scene.put(link, link)
    return _of_edge(scene, row, "same_vma.next = itself")


@kind("chain-garbage", "a VMA's list leads to no memory", "damage: missing")
def chain_garbage(scene: Scene) -> Hurt:
    row = _edge(scene)
    link = int(scene.reading.anon.listed.address[row]) + scene.member(CHAIN, "same_vma")
    scene.put(link, NOBODY)
    return _of_edge(scene, row, f"same_vma.next = {NOBODY:#x}", NOBODY)


@kind("chain-vma", "an edge names another VMA", "chain: vma")
def chain_vma(scene: Scene) -> Hurt:
    row = _edge(scene)
    anon, vmas = scene.reading.anon, scene.reading.spaces.vmas
    other = int(vmas.address[(int(anon.listed_vma[row]) + 1) % len(vmas)])
    scene.assign(CHAIN, int(anon.listed.address[row]), "vma", other)
    return _of_edge(scene, row, f"vma = {other:#x}")


@kind("chain-anon-vma", "an edge names another anon_vma", "chain: claims")
def chain_anon_vma(scene: Scene) -> Hurt:
    row = _edge(scene)
    anon = scene.reading.anon
    mine = anon.row_of(anon.listed["anon_vma"][row : row + 1])[0]
    other = _other_family(scene, int(mine))
    scene.assign(CHAIN, int(anon.listed.address[row]), "anon_vma", other)
    return _of_edge(scene, row, f"anon_vma = {other:#x}")


@kind("chain-vma-freed", "an edge names a VMA that is gone", "chain: dangling")
def chain_vma_freed(scene: Scene) -> Hurt:
    row = _edge(scene)
    scene.assign(CHAIN, int(scene.reading.anon.listed.address[row]), "vma", NOBODY)
    return _of_edge(scene, row, f"vma = {NOBODY:#x}")


# ---------------------------------------------------------------- trees of either sort


def _nodes(scene: Scene, files: bool) -> tuple[Nodes, str, str]:
    if files:
        return scene.reading.files.forest.nodes, VMA, "shared.rb"
    return scene.reading.anon.forest.nodes, CHAIN, "rb"


def _of_node(scene: Scene, nodes: Nodes, row: int, what: str, *more: int) -> Hurt:
    address = int(nodes.records.address[row])
    spaces = scene.reading.spaces.vmas.address
    of = nodes.records["vma"][row] if "vma" in (nodes.records.values.dtype.names or ()) else address
    vmas = np.flatnonzero(spaces == np.uint64(of))
    return hurt(f"node {address:#x}: {what}", [address, int(of), *more], users_of_vmas(scene, vmas))


def _link(scene: Scene, nodes: Nodes, row: int, kind: str, path: str, member: str) -> int:
    return int(nodes.records.address[row]) + scene.member(kind, f"{path}.{member}")


def _unlink(scene: Scene, files: bool) -> Hurt:
    """Take a leaf out of its tree, and leave it as it is."""
    nodes, kind, path = _nodes(scene, files)
    leaf = (nodes.left < 0) & (nodes.right < 0) & (nodes.parent >= 0) & nodes.red
    row = scene.one(np.flatnonzero(leaf), "no tree has a red leaf")
    above = int(nodes.parent[row])
    side = _LEFT if nodes.left[above] == row else _RIGHT
    scene.put(_link(scene, nodes, above, kind, path, side), 0)
    return _of_node(scene, nodes, row, "unlinked from its tree")


def _subtree_last(scene: Scene, files: bool) -> Hurt:
    nodes, kind, _ = _nodes(scene, files)
    row = scene.one(np.flatnonzero(nodes.parent >= 0), "no tree has two nodes")
    member = "shared.rb_subtree_last" if files else "rb_subtree_last"
    scene.add(kind, int(nodes.records.address[row]), member, -1)
    return _of_node(scene, nodes, row, "rb_subtree_last - 1")


def _colour(scene: Scene, files: bool) -> Hurt:
    nodes, kind, path = _nodes(scene, files)
    row = scene.one(np.flatnonzero(nodes.red & (nodes.parent >= 0)), "no tree has a red node")
    scene.add(kind, int(nodes.records.address[row]), f"{path}.{_PARENT}", 1)
    above = int(nodes.records.address[nodes.parent[row]])
    hurt = _of_node(scene, nodes, row, "black, not red", above)
    # The tree as a whole is out of balance: all that are in it are affected.
    of_node = nodes.records.address if files else nodes.records["vma"]
    mine = of_node[nodes.tree == nodes.tree[row]]
    vmas = np.flatnonzero(np.isin(scene.reading.spaces.vmas.address, mine))
    return replace(hurt, pids=frozenset(users_of_vmas(scene, vmas)))


def _swapped(scene: Scene, files: bool) -> Hurt:
    """Exchange the children of a node that has two, and is right of some index."""
    nodes, kind, path = _nodes(scene, files)
    first = nodes.records["pgoff"] if files else _first_of_edges(scene, nodes)
    both = np.flatnonzero((nodes.left >= 0) & (nodes.right >= 0))
    unlike = both[first[nodes.left[both]] < first[nodes.right[both]]]
    row = scene.one(unlike, "no node has two children at different indices")
    left, right = (_link(scene, nodes, row, kind, path, side) for side in (_LEFT, _RIGHT))
    one, two = scene.word(left), scene.word(right)
    scene.put(left, two)
    scene.put(right, one)
    tree = nodes.records.address[nodes.tree == nodes.tree[row]].tolist()
    return hurt("the children of a node are exchanged", tree)


def _first_of_edges(scene: Scene, nodes: Nodes) -> I64:
    """The first index of the VMA of each anon_vma_chain."""
    vmas = scene.reading.spaces.vmas
    order = np.argsort(vmas.address)
    at = np.minimum(np.searchsorted(vmas.address[order], nodes.records["vma"]), len(order) - 1)
    return np.asarray(vmas["pgoff"][order][at])


def _parent_pointer(scene: Scene, files: bool) -> Hurt:
    nodes, kind, path = _nodes(scene, files)
    row = scene.one(np.flatnonzero(nodes.parent >= 0), "no tree has two nodes")
    at = _link(scene, nodes, row, kind, path, _PARENT)
    scene.put(at, int(nodes.node[row]) | scene.word(at) & 1)
    return _of_node(scene, nodes, row, "its own parent")


def _loop(scene: Scene, files: bool) -> Hurt:
    nodes, kind, path = _nodes(scene, files)
    row = scene.one(np.flatnonzero((nodes.parent >= 0) & (nodes.left < 0)), "no tree has two nodes")
    top = int(nodes.node[np.flatnonzero((nodes.tree == nodes.tree[row]) & (nodes.parent < 0))[0]])
    scene.put(_link(scene, nodes, row, kind, path, _LEFT), top)
    return _of_node(scene, nodes, row, "rb_left = the top of its tree")


def _garbage(scene: Scene, files: bool) -> Hurt:
    nodes, kind, path = _nodes(scene, files)
    row = scene.one(np.flatnonzero(nodes.left >= 0), "no node has a left child")
    scene.put(_link(scene, nodes, row, kind, path, _LEFT), NOBODY)
    return _of_node(scene, nodes, row, f"rb_left = {NOBODY:#x}", NOBODY)


@kind("tree-unlinked", "an edge is not in its anon_vma's tree", "chain: not in tree")
def tree_unlinked(scene: Scene) -> Hurt:
    return _unlink(scene, False)


@kind("tree-subtree-last", "a node says that its subtree ends earlier", "tree: subtree_last")
def tree_subtree_last(scene: Scene) -> Hurt:
    return _subtree_last(scene, False)


@kind("tree-colour", "a red node is black", "tree: balance")
def tree_colour(scene: Scene) -> Hurt:
    return _colour(scene, False)


@kind("tree-swapped", "the children of a node are exchanged", "tree: order")
def tree_swapped(scene: Scene) -> Hurt:
    return _swapped(scene, False)


@kind("tree-parent", "a node names itself as its parent", "tree: parent")
def tree_parent(scene: Scene) -> Hurt:
    return _parent_pointer(scene, False)


@kind("tree-loop", "a leaf leads back to the top of its tree", "damage: loop")
def tree_loop(scene: Scene) -> Hurt:
    return _loop(scene, False)


@kind("tree-garbage", "a node leads to no memory", "damage: missing")
def tree_garbage(scene: Scene) -> Hurt:
    return _garbage(scene, False)


@kind("i-mmap-unlinked", "a VMA is not in its file's tree", "i_mmap: not in tree")
def i_mmap_unlinked(scene: Scene) -> Hurt:
    return _unlink(scene, True)


@kind("i-mmap-subtree-last", "a VMA says that its subtree ends earlier", "tree: subtree_last")
def i_mmap_subtree_last(scene: Scene) -> Hurt:
    return _subtree_last(scene, True)


@kind("i-mmap-colour", "a red VMA of a file's tree is black", "tree: balance")
def i_mmap_colour(scene: Scene) -> Hurt:
    return _colour(scene, True)


@kind("i-mmap-swapped", "the children of a VMA in a file's tree are exchanged", "tree: order")
def i_mmap_swapped(scene: Scene) -> Hurt:
    return _swapped(scene, True)


@kind("i-mmap-parent", "a VMA in a file's tree names itself as its parent", "tree: parent")
def i_mmap_parent(scene: Scene) -> Hurt:
    return _parent_pointer(scene, True)


@kind("i-mmap-loop", "a leaf of a file's tree leads back to its top", "damage: loop")
def i_mmap_loop(scene: Scene) -> Hurt:
    return _loop(scene, True)


@kind("i-mmap-foreign", "a file's tree has a VMA of another file", "i_mmap: foreign")
def i_mmap_foreign(scene: Scene) -> Hurt:
    nodes, kind, path = _nodes(scene, True)
    row = scene.one(np.flatnonzero(nodes.right < 0), "no file is mapped")
    offset = scene.member(VMA, path)
    vmas = scene.reading.spaces.vmas
    for other in np.flatnonzero(vmas["file"] == 0).tolist():
        address = int(vmas.address[other])
        if not any(scene.word(address + offset + 8 * at) for at in range(3)):
            scene.put(_link(scene, nodes, row, kind, path, _RIGHT), address + offset)
            files = scene.reading.files.mappings.address
            return hurt(f"vma {address:#x}: in the tree of a file that it does not map",
                        [address, int(files[nodes.tree[row]])],
                        users_of_vmas(scene, np.array([other])))  # fmt: skip
    raise NotHere("every VMA is in some tree")


@kind("i-mmap-writable", "a file counts a writable mapping too many", "i_mmap: writable")
def i_mmap_writable(scene: Scene) -> Hurt:
    files = scene.reading.files
    row = scene.one(np.flatnonzero(files.mappings["top"] != 0), "no file is mapped")
    address = int(files.mappings.address[row])
    scene.add("struct address_space", address, "i_mmap_writable.counter", 1)
    vmas = np.flatnonzero(files.of_vma == row)
    return hurt(f"address_space {address:#x}: i_mmap_writable + 1", [address],
                users_of_vmas(scene, vmas))  # fmt: skip
