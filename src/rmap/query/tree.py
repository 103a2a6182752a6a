# SPDX-License-Identifier: GPL-2.0-only
"""The anon_vma forest of an image: which VMAs hang on which anon_vmas, and whose the pages are.

A **family** is a tree of anon_vmas: a root, which the first write to a new area made, and one for
each fork after it (or fewer, where the kernel used an old one again). Every VMA of the family has a
*chain* of anon_vmas, its own first; every anon_vma has an interval *tree* of the VMAs that have it
in their chain. ``page->mapping`` names an anon_vma; whoever maps the page is in its tree.

So three things must be so (``mm/rmap.c``), and what is not is told as a `Finding`:

* VMAs with the same ``vma->anon_vma`` have the same chain. Merging takes it for granted;
  CVE-2022-42703 is what happens if it is not so.
* Who maps a page has the page's anon_vma in its chain; else a walk does not find the mapping.
* A page's anon_vma, and every one in a chain, is allocated.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte, permissions
from rmap.query.groups import group_processes
from rmap.query.walks import walks

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: What an entry can hold; `Strip.kind`.
_KINDS = ("none", "anon", "file", "ksm", "zero", "swap", "other")


@dataclass(frozen=True, slots=True)
class ForestVma:
    """A VMA that hangs on anon_vmas. `chain` is in the order of the list, newest first."""

    vma: int  #: row of ``vmas``
    mm: int
    pid: int
    comm: str
    start: int
    end: int
    pgoff: int
    permissions: str
    name: str
    anon_vma: int  #: its own, -1 if none
    chain: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForestNode:
    """An anon_vma. Counters that the source does not know are None."""

    anon_vma: int
    number: int  #: what it is called: the slab slot of a model, else the id in the image
    parent: int
    depth: int
    children: tuple[int, ...]
    tree: tuple[int, ...]  #: VMAs in its interval tree, in order
    owners: tuple[int, ...]  #: VMAs whose vma->anon_vma it is
    pages: int  #: mapped pages whose mapping names it
    refcount: int  #: -1 unknown
    degree: int | None
    num_children: int | None
    num_active_vmas: int | None

    @property
    def is_freed(self) -> bool:
        """Whether it was given back to the slab, and something leads to it all the same."""
        return self.refcount == 0


@dataclass(frozen=True, slots=True)
class PageRun:
    """Pages of one owner with consecutive indexes that the same VMAs map.

    `visited` is how many VMAs a walk of each of them looks at, `found` in how many of these it
    finds the page; `vmas` are those that map it, `pfn` is the first page's frame.
    """

    anon_vma: int
    index: int
    pages: int
    pfn: int
    mapcount: int
    visited: int
    found: int
    vmas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """A stretch of a VMA: ``kind`` is anon, file, ksm, zero, swap, other or none.

    `anon_vma` is the owner of anonymous pages, -1 elsewhere and where it is not in the image;
    `shared` says that each of them is mapped elsewhere as well, where that was asked for.
    """

    kind: str
    pages: int
    anon_vma: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: a sentence, and the VMAs and anon_vmas it is about."""

    rule: str  #: same-chain, owner-in-chain or allocated
    text: str
    vmas: tuple[int, ...] = ()
    anon_vmas: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """A tree of anon_vmas: `nodes` depth first from the root, `vmas` by process and address."""

    root: int
    nodes: tuple[ForestNode, ...]
    vmas: tuple[ForestVma, ...]
    pages: tuple[PageRun, ...]
    findings: tuple[Finding, ...]
    page_size: int

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes that have a VMA in it, ascending."""
        return tuple(sorted({vma.pid for vma in self.vmas}))


@dataclass(frozen=True, slots=True)
class Forest:
    """All families that were asked for, largest first (by VMAs, then by root).

    `inferred` says that the image has no anon_vmas, and what stands here was concluded from shared
    pages (`rmap.query.infer`).
    """

    image: MemoryImage
    families: tuple[Family, ...]
    inferred: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all families."""
        return tuple(finding for family in self.families for finding in family.findings)


def has_anon_vmas(image: MemoryImage) -> bool:
    """Whether the image's source could see anon_vmas (``/proc`` cannot)."""
    return len(image.tables["anon_vmas"]) > 0 or str(image.machine["source"][0]) == "model"


def forest(image: MemoryImage, pids: Collection[int] | None = None) -> Forest:
    """Compute the anon_vma forest; that of an image without anon_vmas is inferred.

    Parameters
    ----------
    pids
        Only families that one of these processes has a VMA in; all if None.

    Raises
    ------
    TargetError
        If a pid is not in the image or has no memory.
    PrivilegeError
        If the memory of one of ``pids`` could not be read.
    """
    wanted: set[int] | None = None
    if pids is not None:
        grouping = group_processes(image, "process", pids)
        wanted = set(grouping.member_mms.tolist())
    is_inferred = not has_anon_vmas(image)
    if is_inferred:
        from rmap.query.infer import inferred

        image = inferred(image)
    grower = _Grower(image)
    families = [grower.family(root) for root in grower.roots_of(wanted)]
    families.sort(key=lambda family: (-len(family.vmas), family.root))
    return Forest(image, tuple(families), is_inferred)


def strips(image: MemoryImage, vma: int, *, by_sharing: bool = False) -> list[Strip]:
    """Return what the page-table entries of a VMA hold, from its start to its end, in runs.

    With `by_sharing` anonymous pages that are mapped once are told from those mapped elsewhere.
    """
    start, end = int(image.vmas["start"][vma]), int(image.vmas["end"][vma])
    rows = image.find_ptes(int(image.vmas["mm"][vma]), start, end)
    address = image.ptes["address"][rows]
    size = np.uint64(image.page_size) << image.ptes["order"][rows].astype(np.uint64)
    # A huge entry may begin before the VMA or reach beyond it.
    first = np.maximum(address, np.uint64(start))
    last = np.minimum(address + size, np.uint64(end))
    kinds, owners = _entries(image, rows)
    shared = np.zeros(len(kinds), np.bool_)
    if by_sharing:
        anon = kinds == _KINDS.index("anon")
        shared[anon] = image.reverse.count(image.ptes["pfn"][rows][anon]) > 1
    runs: list[Strip] = []
    at = start
    for low, high in _equal_runs(first, last, kinds, owners * 2 + shared):
        begin, stop = int(first[low]), int(last[high])
        _append(runs, _KINDS[0], (begin - at) // image.page_size, -1)
        pages = (stop - begin) // image.page_size
        _append(runs, _KINDS[kinds[low]], pages, int(owners[low]), bool(shared[low]))
        at = stop
    _append(runs, _KINDS[0], (end - at) // image.page_size, -1)
    return runs


def _append(runs: list[Strip], kind: str, pages: int, owner: int, shared: bool = False) -> None:
    if pages:
        runs.append(Strip(kind, pages, owner, shared))


def _equal_runs(first: U64, last: U64, kinds: I64, marks: I64) -> Iterator[tuple[int, int]]:
    """Yield the first and the last entry of runs that adjoin and hold the same."""
    if not len(first):
        return
    joined = (first[1:] == last[:-1]) & (kinds[1:] == kinds[:-1]) & (marks[1:] == marks[:-1])
    cuts = np.flatnonzero(~joined) + 1
    lows = [0, *cuts.tolist()]
    highs = [*(cuts - 1).tolist(), len(first) - 1]
    yield from zip(lows, highs, strict=True)


def _entries(image: MemoryImage, rows: slice) -> tuple[I64, I64]:
    """Return what page-table entries hold, as a place in `_KINDS`, and their pages' owners."""
    flags = image.ptes["flags"][rows]
    page = image.find_pages(image.ptes["pfn"][rows])
    known = (page >= 0) & (flags & np.uint32(Pte.PRESENT) != 0)
    kpf = np.where(known, image.pages["flags"][np.maximum(page, 0)], np.uint64(0))
    kinds = np.full(len(flags), _KINDS.index("other"), np.int64)
    kinds[known] = _KINDS.index("file")
    kinds[kpf & np.uint64(Kpf.ANON) != 0] = _KINDS.index("anon")
    kinds[kpf & np.uint64(Kpf.KSM) != 0] = _KINDS.index("ksm")
    swapped = (flags & np.uint32(Pte.SWAP) != 0) & (flags & np.uint32(Pte.PRESENT) == 0)
    kinds[swapped] = _KINDS.index("swap")
    kinds[flags & np.uint32(Pte.SPECIAL) != 0] = _KINDS.index("zero")
    owners = np.full(len(flags), -1, np.int64)
    if "anon_vma" in image.pages:
        anon = kinds == _KINDS.index("anon")
        owners[anon] = image.pages["anon_vma"][page[anon]]
    return kinds, owners


class _Grower:
    """What all families of an image are made of, computed once."""

    def __init__(self, image: MemoryImage) -> None:
        self.image = image
        table = image.tables["anon_vmas"]
        self.parent = table["parent"].tolist()
        self.root = table["root"].tolist()
        self.number = (table["handle"] if "handle" in table else table["anon_vma"]).tolist()
        self.refcount = table["refcount"].tolist()
        self.degree, self.num_children, self.num_active_vmas = (
            table[name].tolist() if name in table else [None] * len(table)
            for name in ("degree", "num_children", "num_active_vmas")
        )
        edges = image.tables["anon_vma_chains"]
        self.chains = _lists(edges["vma"], edges["chain_position"], edges["anon_vma"])
        self.trees = _lists(edges["anon_vma"], edges["tree_position"], edges["vma"])
        self.children: dict[int, list[int]] = {}
        for anon_vma, parent in enumerate(self.parent):
            if parent != anon_vma:
                self.children.setdefault(parent, []).append(anon_vma)
        self.owners: dict[int, list[int]] = {}
        if "anon_vma" in image.vmas:
            for vma, anon_vma in enumerate(image.vmas["anon_vma"].tolist()):
                if anon_vma >= 0:
                    self.owners.setdefault(anon_vma, []).append(vma)

    def roots_of(self, mms: set[int] | None) -> list[int]:
        """The roots, ascending: all, or those of families that one of some mms has a VMA in."""
        if mms is None:
            return sorted(set(self.root))
        rows = [row for row, mm in enumerate(self.image.vmas["mm"].tolist()) if mm in mms]
        hanging = {anon_vma for row in rows for anon_vma in self.chains.get(row, ())}
        return sorted({self.root[anon_vma] for anon_vma in hanging})

    @cached_property
    def members(self) -> dict[int, list[int]]:
        """The anon_vmas of each root, ascending."""
        members: dict[int, list[int]] = {}
        for anon_vma, root in enumerate(self.root):
            members.setdefault(root, []).append(anon_vma)
        return members

    @cached_property
    def page_counts(self) -> I64:
        """Mapped pages that name each anon_vma."""
        pages = self.image.pages
        if "anon_vma" not in pages:
            return np.zeros(len(self.parent), np.int64)
        rows = np.flatnonzero(pages["anon_vma"] >= 0)
        mapped = rows[self.image.reverse.count(pages["pfn"][rows]) > 0]
        return np.bincount(pages["anon_vma"][mapped], minlength=len(self.parent)).astype(np.int64)

    def family(self, root: int) -> Family:
        """Put one family together."""
        order = self._depth_first(root)
        nodes = tuple(self._node(anon_vma, depth) for anon_vma, depth in order)
        members = {node.anon_vma for node in nodes}
        rows = {vma for node in nodes for vma in (*node.tree, *node.owners)}
        vmas = sorted(map(self._vma, rows), key=lambda vma: (vma.pid, vma.mm, vma.start))
        pages = self._page_runs(sorted(members))
        findings = self._findings(vmas, pages)
        return Family(root, nodes, tuple(vmas), pages, findings, self.image.page_size)

    def _depth_first(self, root: int) -> list[tuple[int, int]]:
        """Members of a family with their depths; those no parent leads to stand at the end."""
        order: list[tuple[int, int]] = []
        seen: set[int] = set()
        for start in (root, *self.members[root]):
            waiting = [(start, 0)]
            while waiting:
                anon_vma, depth = waiting.pop()
                if anon_vma in seen:
                    continue
                seen.add(anon_vma)
                order.append((anon_vma, depth))
                below = reversed(self.children.get(anon_vma, []))
                waiting += [(child, depth + 1) for child in below]
        return order

    def _node(self, anon_vma: int, depth: int) -> ForestNode:
        return ForestNode(
            anon_vma=anon_vma,
            number=self.number[anon_vma],
            parent=self.parent[anon_vma],
            depth=depth,
            children=tuple(self.children.get(anon_vma, ())),
            tree=tuple(self.trees.get(anon_vma, ())),
            owners=tuple(self.owners.get(anon_vma, ())),
            pages=int(self.page_counts[anon_vma]),
            refcount=self.refcount[anon_vma],
            degree=self.degree[anon_vma],
            num_children=self.num_children[anon_vma],
            num_active_vmas=self.num_active_vmas[anon_vma],
        )

    def _vma(self, row: int) -> ForestVma:
        vmas, processes = self.image.vmas, self.image.processes
        mm = int(vmas["mm"][row])
        users = self.image.processes_of_mm.get(mm, [])
        return ForestVma(
            vma=row,
            mm=mm,
            pid=int(self.image.mms["pid"][mm]),
            comm=str(processes["comm"][users[0]]) if users else "",
            start=int(vmas["start"][row]),
            end=int(vmas["end"][row]),
            pgoff=int(vmas["pgoff"][row]),
            permissions=permissions(int(vmas["flags"][row])),
            name=str(vmas["name"][row] or vmas["path"][row]),
            anon_vma=int(vmas["anon_vma"][row]) if "anon_vma" in vmas else -1,
            chain=tuple(self.chains.get(row, ())),
        )

    @cached_property
    def _walks(self) -> dict[int, int]:
        """Row of a page to the VMAs that a walk of it visits."""
        found = walks(self.image)
        return dict(zip(found.rows.tolist(), found.visited.tolist(), strict=True))

    @cached_property
    def _pages_by_owner(self) -> dict[int, list[int]]:
        """Rows of the pages of each anon_vma, by index."""
        pages = self.image.pages
        by_owner: dict[int, list[int]] = {}
        if "anon_vma" in pages and "index" in pages:
            rows = np.flatnonzero(pages["anon_vma"] >= 0)
            order = np.lexsort((pages["pfn"][rows], pages["index"][rows]))
            for row in rows[order].tolist():
                by_owner.setdefault(int(pages["anon_vma"][row]), []).append(row)
        return by_owner

    def _page_runs(self, anon_vmas: Sequence[int]) -> tuple[PageRun, ...]:
        runs: list[PageRun] = []
        last: dict[Hashable, int] = {}
        for anon_vma in anon_vmas:
            rows = self._pages_by_owner.get(anon_vma, [])
            if not rows:
                continue
            pages = self.image.pages
            mappings = self.image.reverse.mappings(pages["pfn"][rows])
            vmas = self.image.vmas_of_ptes(mappings.rows).tolist()
            offsets = mappings.offsets.tolist()
            for at, row in enumerate(rows):
                mapping = tuple(vmas[offsets[at] : offsets[at + 1]])
                found = sum(anon_vma in self.chains.get(vma, ()) for vma in mapping)
                run = PageRun(
                    anon_vma, int(pages["index"][row]), 1, int(pages["pfn"][row]),
                    int(pages["mapcount"][row]), self._walks.get(row, 0), found, mapping,
                )  # fmt: skip
                if mapping:
                    _join(runs, last, run)
        return tuple(runs)

    def _findings(self, vmas: Sequence[ForestVma], pages: Sequence[PageRun]) -> tuple[Finding, ...]:
        found = list(self._unequal_chains(vmas))
        by_row = {vma.vma: vma for vma in vmas}
        for run in pages:
            mapping = [by_row.get(row) or self._vma(row) for row in run.vmas if row >= 0]
            if mapping and self.refcount[run.anon_vma] == 0:
                found.append(self._freed_owner(run, mapping[0]))
                continue
            found += [self._outside(run, vma) for vma in mapping if run.anon_vma not in vma.chain]
        return (*found, *self._freed_in_chains(vmas))

    def _unequal_chains(self, vmas: Sequence[ForestVma]) -> list[Finding]:
        """VMAs with one anon_vma of their own have one chain."""
        by_owner: dict[int, list[ForestVma]] = {}
        for vma in vmas:
            if vma.anon_vma >= 0:
                by_owner.setdefault(vma.anon_vma, []).append(vma)
        found = []
        for anon_vma, owners in sorted(by_owner.items()):
            first = owners[0]
            other = next((vma for vma in owners if vma.chain != first.chain), None)
            if other is not None:
                text = (
                    f"{called(first)} and {called(other)} both have anon_vma "
                    f"{self.number[anon_vma]} as their own, but their chains differ: "
                    f"{self._numbers(first.chain)} and {self._numbers(other.chain)}"
                )
                found.append(Finding("same-chain", text, (first.vma, other.vma), (anon_vma,)))
        return found

    def _outside(self, run: PageRun, vma: ForestVma) -> Finding:
        number = self.number[run.anon_vma]
        text = (
            f"page {run.pfn:#x} names anon_vma {number} as its owner, and {called(vma)}, which "
            f"maps it, has chain {self._numbers(vma.chain)}: a walk does not find that mapping"
        )
        return Finding("owner-in-chain", text, (vma.vma,), (run.anon_vma,))

    def _freed_owner(self, run: PageRun, vma: ForestVma) -> Finding:
        number = self.number[run.anon_vma]
        text = (
            f"page {run.pfn:#x}, mapped by {called(vma)}, names anon_vma {number} as its owner, "
            "which was freed: the next walk uses it after that"
        )
        return Finding("allocated", text, (vma.vma,), (run.anon_vma,))

    def _freed_in_chains(self, vmas: Sequence[ForestVma]) -> Iterator[Finding]:
        """Anon_vmas that a VMA leads to although they were freed."""
        for vma in vmas:
            for anon_vma in dict.fromkeys((vma.anon_vma, *vma.chain)):
                if anon_vma >= 0 and self.refcount[anon_vma] == 0:
                    text = (
                        f"{called(vma)} leads to anon_vma {self.number[anon_vma]}, which was freed"
                    )
                    yield Finding("allocated", text, (vma.vma,), (anon_vma,))

    def _numbers(self, chain: Sequence[int]) -> str:
        return " ".join(str(self.number[anon_vma]) for anon_vma in chain) or "none"


def called(vma: ForestVma) -> str:
    """Say which VMA it is: process, name, addresses."""
    name = f" {vma.name}" if vma.name else ""
    return f"{vma.comm or vma.pid}{name} {vma.start:#x}-{vma.end:#x}"


def _join(runs: list[PageRun], last: dict[Hashable, int], run: PageRun) -> None:
    """Append a run of one page, or make the last run of pages like it longer."""
    alike = (run.anon_vma, run.mapcount, run.visited, run.found, run.vmas)
    at = last.get(alike)
    if at is not None and runs[at].index + runs[at].pages == run.index:
        runs[at] = replace(runs[at], pages=runs[at].pages + 1)
        return
    last[alike] = len(runs)
    runs.append(run)


def _lists(
    keys: npt.NDArray[np.int32], positions: npt.NDArray[np.int32], values: npt.NDArray[np.int32]
) -> dict[int, list[int]]:
    """Group values by key, each group in the order of its positions."""
    lists: dict[int, list[int]] = {}
    order = np.lexsort((positions, keys))
    for key, value in zip(keys[order].tolist(), values[order].tolist(), strict=True):
        lists.setdefault(key, []).append(value)
    return lists
