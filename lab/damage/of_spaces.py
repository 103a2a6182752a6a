# SPDX-License-Identifier: GPL-2.0-only
"""Damage to VMAs, address spaces, processes, merged pages and swap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab.damage.kinds import Hurt, hurt, kind
from lab.damage.of_pages import NOBODY, anon_entry, file_entry, of_page
from lab.damage.of_trees import users_of_vmas
from lab.damage.scene import NotHere, Scene
from rmap.image.flags import Pte, Vm

VMA, MM, TASK = "struct vm_area_struct", "struct mm_struct", "struct task_struct"
PAGE = 4096


def _of_vma(scene: Scene, row: int, what: str, *more: int) -> Hurt:
    address = int(scene.reading.spaces.vmas.address[row])
    start = int(scene.image.vmas["start"][row])
    pids = scene.pids(int(scene.image.vmas["mm"][row]))
    return hurt(f"vma {address:#x}: {what}", [address, start, *more], pids)


def _of_mm(scene: Scene, row: int, what: str, *more: int) -> Hurt:
    address = int(scene.reading.spaces.mm.address[row])
    return hurt(f"mm {address:#x}: {what}", [address, *more], scene.pids(row))


def _set(scene: Scene, row: int, path: str, value: int) -> None:
    scene.assign(VMA, int(scene.reading.spaces.vmas.address[row]), path, value)


def _add(scene: Scene, row: int, path: str, delta: int) -> None:
    scene.add(VMA, int(scene.reading.spaces.vmas.address[row]), path, delta)


def _anon_vma(scene: Scene) -> int:
    """The row of a VMA that maps an anonymous page."""
    return int(scene.image.pte_vma[anon_entry(scene)])


# ---------------------------------------------------------------- VMAs


@kind("vma-anon-vma", "a VMA has another's anon_vma as its own", "chain: own")
def vma_anon_vma(scene: Scene) -> Hurt:
    row = _anon_vma(scene)
    vmas, anon = scene.reading.spaces.vmas, scene.reading.anon
    mine = set(anon.listed["anon_vma"][anon.listed_vma == row].tolist())
    others = [one for one in vmas["anon_vma"].tolist() if one and one not in mine]
    _set(scene, row, "anon_vma", scene.one(others, "there is no other anon_vma"))
    return _of_vma(scene, row, "another's anon_vma")


@kind("vma-anon-vma-none", "a VMA with a chain has no anon_vma", "chain: no anon_vma")
def vma_anon_vma_none(scene: Scene) -> Hurt:
    row = _anon_vma(scene)
    _set(scene, row, "anon_vma", 0)
    return _of_vma(scene, row, "anon_vma = NULL")


@kind("vma-anon-vma-older", "a VMA has another of its own chain as its anon_vma",
      "anon_vma: num_active_vmas", "anon_vma: degree", "chain: unequal")  # fmt: skip
def vma_anon_vma_older(scene: Scene) -> Hurt:
    anon, vmas = scene.reading.anon, scene.reading.spaces.vmas
    for row in np.unique(anon.listed_vma[anon.position > 0]).tolist():
        mine = anon.listed["anon_vma"][anon.listed_vma == row]
        other = [at for at in mine.tolist() if at != int(vmas["anon_vma"][row])]
        if other:
            _set(scene, row, "anon_vma", other[-1])
            return _of_vma(scene, row, f"anon_vma = {other[-1]:#x}, which is in its chain",
                           other[-1], int(vmas["anon_vma"][row]))  # fmt: skip
    raise NotHere("no VMA has two anon_vmas")


@kind("vma-pgoff", "a VMA begins at another index", "reach: index")
def vma_pgoff(scene: Scene) -> Hurt:
    entry = anon_entry(scene)
    row = int(scene.image.pte_vma[entry])
    _add(scene, row, "vm_pgoff", 1)
    ptes = scene.image.ptes
    mine = np.flatnonzero(scene.image.pte_vma == row)
    return _of_vma(scene, row, "vm_pgoff + 1", *ptes["address"][mine].tolist())


@kind("vma-start", "a VMA begins elsewhere than the tree of its mm says", "damage: range")
def vma_start(scene: Scene) -> Hurt:
    row = _anon_vma(scene)
    _add(scene, row, "vm_start", PAGE)
    return _of_vma(scene, row, "vm_start + 4096")


@kind("vma-end", "a VMA ends elsewhere than the tree of its mm says", "damage: range")
def vma_end(scene: Scene) -> Hurt:
    row = _anon_vma(scene)
    _add(scene, row, "vm_end", -PAGE)
    return _of_vma(scene, row, "vm_end - 4096")


@kind("vma-mm", "a VMA names another address space", "damage: owner")
def vma_mm(scene: Scene) -> Hurt:
    row = _anon_vma(scene)
    mm = scene.reading.spaces.mm.address
    mine = scene.reading.spaces.vma_mm[row]
    _set(scene, row, "vm_mm", int(mm[(int(mine) + 1) % len(mm)]))
    return _of_vma(scene, row, "another vm_mm")


@kind("vma-file", "a VMA names another file", "i_mmap: not in tree", "i_mmap: foreign")
def vma_file(scene: Scene) -> Hurt:
    row = int(scene.image.pte_vma[file_entry(scene)])
    vmas, files = scene.reading.spaces.vmas, scene.reading.files
    others = np.flatnonzero((files.of_vma >= 0) & (files.of_vma != files.of_vma[row]))
    other = scene.one(others, "there is one file only")
    _set(scene, row, "vm_file", int(vmas["file"][other]))
    return _of_vma(scene, row, "another vm_file")


@kind("vma-flags", "a VMA whose pages may be written may not", "state: write")
def vma_flags(scene: Scene) -> Hurt:
    entry = anon_entry(scene, 1, int(Pte.WRITE))
    row = int(scene.image.pte_vma[entry])
    path = "vm_flags" if scene.reading.facts.has(VMA, "vm_flags") else "__vm_flags"
    _set(scene, row, path, int(scene.image.vmas["flags"][row]) & ~int(Vm.WRITE))
    mine = np.flatnonzero(scene.image.pte_vma == row)
    return _of_vma(scene, row, "without VM_WRITE", *scene.image.ptes["address"][mine].tolist())


# ---------------------------------------------------------------- address spaces


@kind("rss", "an address space counts a page too many", "rss")
def rss(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    address = int(scene.reading.spaces.mm.address[row])
    number = scene.reading.facts.constant("MM_ANONPAGES")
    assert number is not None
    base = address + scene.member(MM, "rss_stat")
    if scene.reading.facts.has(MM, "rss_stat.count"):
        scene.put(base + 8 * number, scene.word(base + 8 * number) + 1)
    else:
        one = scene.program.type("struct percpu_counter").size
        assert one is not None
        at = base + one * number + scene.member("struct percpu_counter", "count")
        scene.put(at, scene.word(at) + 1)
    return _of_mm(scene, row, "MM_ANONPAGES + 1")


@kind("map-count", "an address space counts a VMA too many", "space: map_count")
def map_count(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    scene.add(MM, int(scene.reading.spaces.mm.address[row]), "map_count", 1)
    return _of_mm(scene, row, "map_count + 1")


@kind("total-vm", "an address space counts a page of its VMAs too many", "space: total_vm")
def total_vm(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    scene.add(MM, int(scene.reading.spaces.mm.address[row]), "total_vm", 1)
    return _of_mm(scene, row, "total_vm + 1")


@kind("pgtables-bytes", "an address space counts a page table too many", "space: pgtables")
def pgtables_bytes(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    scene.add(MM, int(scene.reading.spaces.mm.address[row]), "pgtables_bytes.counter", PAGE)
    return _of_mm(scene, row, "pgtables_bytes + 4096")


@kind("pgd", "an address space's page tables are nowhere", "damage: missing")
def pgd(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    scene.assign(MM, int(scene.reading.spaces.mm.address[row]), "pgd", NOBODY)
    return _of_mm(scene, row, "pgd nowhere")


@kind("pgd-other", "an address space's page tables are another page", "damage: table",
      "damage: missing", "mapcount")  # fmt: skip
def pgd_other(scene: Scene) -> Hurt:
    row = int(scene.image.ptes["mm"][anon_entry(scene)])
    mm = scene.reading.spaces.mm
    scene.assign(MM, int(mm.address[row]), "pgd", int(mm.address[row]) & ~0xFFF)
    return _of_mm(scene, row, "pgd is the page of the mm itself")


def _maple(scene: Scene) -> tuple[int, int]:
    """The row of an mm whose tree has a node, and that node's address."""
    roots = scene.reading.spaces.mm["root"]
    if "root" not in (scene.reading.spaces.mm.values.dtype.names or ()):
        raise NotHere("this kernel has no maple trees")
    rows = np.flatnonzero((roots & np.uint64(3)) == 2)
    row = scene.one(rows, "no address space has a node")
    return row, int(roots[row]) & ~0xFF


def _leaf(scene: Scene) -> tuple[int, int]:
    """The row of an mm, and a leaf of its tree."""
    row, _ = _maple(scene)
    entry = int(scene.reading.spaces.mm["root"][row])
    while entry >> 3 & 15 != 1:
        entry = scene.word((entry & ~0xFF) + scene.member("struct maple_node", "ma64.slot"))
    return row, entry & ~0xFF


@kind("maple-slot", "a slot of a maple tree leads to no memory", "damage: missing")
def maple_slot(scene: Scene) -> Hurt:
    row, node = _leaf(scene)
    at = node + scene.member("struct maple_node", "mr64.slot") + 8
    at += 0 if scene.word(at) else 8
    scene.put(at, NOBODY)
    return hurt(f"maple node {node:#x}: a slot = {NOBODY:#x}", [node, NOBODY], scene.pids(row))


@kind("maple-twice", "two slots of a maple tree have one VMA", "damage: loop")
def maple_twice(scene: Scene) -> Hurt:
    row, node = _leaf(scene)
    first = node + scene.member("struct maple_node", "mr64.slot")
    used = [first + 8 * slot for slot in range(8) if scene.word(first + 8 * slot)]
    if len(used) < 2:
        raise NotHere("the leaf has one VMA")
    vma = scene.word(used[0])
    scene.put(used[1], vma)
    return hurt(f"maple node {node:#x}: the VMA {vma:#x} twice", [node, vma], scene.pids(row))


@kind("maple-pivot", "a pivot of a maple tree is not after the one before", "damage: range",
      "damage: order")  # fmt: skip
def maple_pivot(scene: Scene) -> Hurt:
    row, node = _leaf(scene)
    at = node + scene.member("struct maple_node", "mr64.pivot")
    scene.put(at + 8, scene.word(at) - PAGE)
    return hurt(f"maple node {node:#x}: a pivot", [node], scene.pids(row))


@kind("maple-root", "the root of a maple tree is garbage", "damage: missing")
def maple_root(scene: Scene) -> Hurt:
    row, _ = _maple(scene)
    address = int(scene.reading.spaces.mm.address[row])
    scene.assign(MM, address, "mm_mt.ma_root", NOBODY | 0x1E)
    return hurt(f"mm {address:#x}: ma_root nowhere", [address, NOBODY, NOBODY | 0x1E],
                scene.pids(row))  # fmt: skip


# ---------------------------------------------------------------- tasks


def _task(scene: Scene) -> tuple[int, int]:
    """The pid and the task_struct of a process that has memory."""
    rows = [one for one in scene.reading.tasks.processes if one.mm and one.tasks]
    if len(rows) < 3:
        raise NotHere("there are too few processes")
    one = rows[len(rows) // 2]
    return one.pid, int(scene.reading.tasks.records.address[one.tasks[0]])


@kind("task-loop", "the list of tasks never ends", "damage: loop", "damage: back link")
def task_loop(scene: Scene) -> Hurt:
    pid, task = _task(scene)
    link = task + scene.member(TASK, "tasks")
    scene.put(link, link)
    return hurt(f"task {task:#x}: tasks.next = itself", [task], [pid])


@kind("task-unlinked", "a process is not in the list of tasks", "damage: unlisted")
def task_unlinked(scene: Scene) -> Hurt:
    pid, task = _task(scene)
    link = task + scene.member(TASK, "tasks")
    after, before = scene.word(link), scene.word(link + 8)
    scene.put(before, after)
    scene.put(after + 8, before)
    return hurt(f"task {task:#x}: unlinked from tasks", [task], [pid])


@kind("task-mm", "a process's address space is nowhere", "damage: missing")
def task_mm(scene: Scene) -> Hurt:
    pid, task = _task(scene)
    scene.assign(TASK, task, "mm", NOBODY)
    return hurt(f"task {task:#x}: mm = {NOBODY:#x}", [task, NOBODY], [pid])


# ---------------------------------------------------------------- merged pages


def _item(scene: Scene) -> tuple[str, str, int]:
    """The names of the structs of KSM, and the row of an item that is not the last of its mm."""
    merged = scene.reading.merged
    if not len(merged.items):
        raise NotHere("nothing is merged")
    prefix = (
        "struct ksm_" if scene.reading.facts.has("struct ksm_rmap_item", "hlist") else "struct "
    )
    following = merged.items["list"] if "list" in (merged.items.values.dtype.names or ()) else None
    rows = np.arange(len(merged.items))
    if following is not None:
        rows = np.flatnonzero(np.isin(following, merged.items.address))
    return f"{prefix}rmap_item", f"{prefix}stable_node", scene.one(rows, "no item is followed")


def _of_item(scene: Scene, row: int, what: str, *more: int) -> Hurt:
    merged = scene.reading.merged
    address = int(merged.items.address[row])
    mm = np.flatnonzero(scene.reading.spaces.mm.address == merged.items["mm"][row])
    pids = {pid for one in mm.tolist() for pid in scene.pids(one)}
    node = int(merged.nodes.address[merged.node[row]])
    return hurt(f"rmap_item {address:#x}: {what}", [address, node, *more], pids)


@kind("ksm-address", "a merged page's place is another", "damage: order")
def ksm_address(scene: Scene) -> Hurt:
    item, _, row = _item(scene)
    address = int(scene.reading.merged.items.address[row])
    scene.add(item, address, "address", 1 << 44)
    return _of_item(scene, row, "another address")


@kind("ksm-anon-vma", "a merged page's place is found through another anon_vma",
      "anon_vma: refcount", "merged: anon_vma")  # fmt: skip
def ksm_anon_vma(scene: Scene) -> Hurt:
    item, _, row = _item(scene)
    anon, merged = scene.reading.anon.anon_vmas, scene.reading.merged
    mine = int(merged.items["anon_vma"][row])
    roots = {int(at): int(top) for at, top in zip(anon.address, anon["root"], strict=True)}
    others = [at for at in roots if roots[at] != roots.get(mine)]
    other = scene.one(others, "there is no other family")
    scene.assign(item, int(merged.items.address[row]), "anon_vma", other)
    hurt = _of_item(scene, row, f"anon_vma = {other:#x}", other, mine)
    listed = scene.reading.anon
    vmas = listed.listed_vma[np.isin(listed.listed["anon_vma"], np.array([other, mine], "u8"))]
    return replace(hurt, pids=hurt.pids | users_of_vmas(scene, vmas))


@kind("ksm-kpfn", "a node of KSM names another page", "merged: kpfn")
def ksm_kpfn(scene: Scene) -> Hurt:
    _, node, row = _item(scene)
    merged = scene.reading.merged
    at = int(merged.nodes.address[merged.node[row]])
    pfn = scene.get(node, at, "kpfn")
    scene.add(node, at, "kpfn", 1)
    return hurt(f"stable_node {at:#x}: kpfn + 1", [at, pfn])


@kind("ksm-node", "a merged page names a node that is nowhere", "damage: missing")
def ksm_node(scene: Scene) -> Hurt:
    rows = scene.mapped(merged=True)
    row = scene.one(rows, "nothing is merged")
    pfn = int(scene.image.ptes["pfn"][row])
    scene.assign("struct page", scene.page(pfn), "mapping", NOBODY | 3)
    return of_page(scene, pfn, f"page {pfn:#x}: mapping = {NOBODY:#x} | KSM")


@kind("ksm-loop", "the list of a node of KSM never ends", "damage: loop")
def ksm_loop(scene: Scene) -> Hurt:
    item, _, row = _item(scene)
    link = int(scene.reading.merged.items.address[row]) + scene.member(item, "hlist")
    scene.put(link, link)
    return _of_item(scene, row, "hlist.next = itself")


@kind("ksm-unlinked", "a place is not in the list of its node", "damage: length")
def ksm_unlinked(scene: Scene) -> Hurt:
    item, _, row = _item(scene)
    link = int(scene.reading.merged.items.address[row]) + scene.member(item, "hlist")
    after, before = scene.word(link), scene.word(link + 8)
    scene.put(before, after)
    if after:
        scene.put(after + 8, before)
    return _of_item(scene, row, "unlinked from its node")


# ---------------------------------------------------------------- swap


@kind("swap-count", "a slot of swap counts a reference too many", "swap")
def swap_count(scene: Scene) -> Hurt:
    swap = scene.reading.swap
    entry = int(swap.entry[scene.one(np.flatnonzero(swap.count > 0), "nothing is swapped")])
    area = scene.program["swap_info"][entry & 31]
    at = int(area.swap_map.value_()) + (entry >> 5)
    scene.put(at, scene.word(at, 1) + 1, 1)
    return hurt(f"slot {entry >> 5:#x}: count + 1", [entry])
