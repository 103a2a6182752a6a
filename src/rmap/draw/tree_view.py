# SPDX-License-Identifier: GPL-2.0-only
"""Which part of an anon_vma forest is drawn, and how things are called in it.

A fork server has a thousand children whose anon_vmas are all alike. Of siblings that are leaves
with equal counters a few are shown, the rest is counted; of what is left, the first so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rmap.query.tree import Family, Forest, ForestNode, ForestVma, PageRun
from rmap.text import printable

#: Of siblings alike, so many are shown.
ALIKE = 3
#: Anon_vmas and VMAs of a family, and families, to draw unless told otherwise.
LIMIT = 24


@dataclass(frozen=True, slots=True)
class Folded:
    """Siblings that are not shown since they are like one that is."""

    parent: int
    like: ForestNode
    count: int
    pages: int


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Pages of one owner of which the same can be said.

    `where` is where they lie, empty if in many places. `vmas` are those that map all of them, or,
    if they lie in many places, any of them; `mappings` is how many map each.
    """

    anon_vma: int
    pages: int
    where: str
    mapcount: int
    visited: int
    found: int
    vmas: tuple[int, ...]
    mappings: int


@dataclass(frozen=True, slots=True)
class View:
    """The part of a family that is drawn."""

    family: Family
    nodes: tuple[ForestNode, ...]
    folded: tuple[Folded, ...]
    vmas: tuple[ForestVma, ...]
    pages: tuple[PageGroup, ...]
    left_nodes: int  #: not shown for want of room
    left_vmas: int  #: not shown, for either reason
    left_pages: int  #: pages not shown

    @property
    def shown(self) -> frozenset[int]:
        """The anon_vmas that are drawn."""
        return frozenset(node.anon_vma for node in self.nodes)

    def folded_below(self, anon_vma: int) -> list[Folded]:
        """What is folded among the children of an anon_vma."""
        return [folded for folded in self.folded if folded.parent == anon_vma]


def view(family: Family, limit: int = LIMIT) -> View:
    """Choose what of a family is drawn: at most `limit` anon_vmas, VMAs and page runs (0: all)."""
    most = limit or len(family.nodes) + len(family.vmas) + len(family.pages)
    wanted = {vma for finding in family.findings for vma in finding.vmas}
    telling = {anon_vma for finding in family.findings for anon_vma in finding.anon_vmas}
    telling |= {_home(vma) for vma in family.vmas if vma.vma in wanted}
    hidden, folded = _fold(family.nodes, telling) if limit else (set(), [])
    kept = [node for node in family.nodes if node.anon_vma not in hidden]
    nodes = tuple(n for at, n in enumerate(kept) if at < most or n.anon_vma in telling)
    shown = {node.anon_vma for node in nodes}
    rows = [vma for vma in family.vmas if _home(vma) in shown]
    vmas = tuple(_first(rows, most, wanted))
    pages = page_groups(family, shown, most)
    return View(
        family, nodes, tuple(folded), vmas, tuple(pages[:most]), len(kept) - len(nodes),
        len(family.vmas) - len(vmas), sum(group.pages for group in pages[most:]),
    )  # fmt: skip


def page_groups(family: Family, owners: Collection[int], most: int) -> list[PageGroup]:
    """Return the pages of some owners, put together by owner and counts if they are many runs."""
    shown = [run for run in family.pages if run.anon_vma in owners]
    if len(shown) <= most:
        return [
            PageGroup(run.anon_vma, run.pages, page_place(family, run), run.mapcount, run.visited,
                      run.found, run.vmas, len(run.vmas))
            for run in shown
        ]  # fmt: skip
    alike: dict[tuple[int, ...], list[PageRun]] = {}
    for run in shown:
        key = (run.anon_vma, run.mapcount, run.visited, run.found, len(run.vmas))
        alike.setdefault(key, []).append(run)
    groups = []
    for (anon_vma, mapcount, visited, found, mappings), runs in alike.items():
        pages = sum(run.pages for run in runs)
        where = page_place(family, runs[0]) if len(runs) == 1 else ""
        vmas = tuple(dict.fromkeys(vma for run in runs for vma in run.vmas))
        groups.append(PageGroup(anon_vma, pages, where, mapcount, visited, found, vmas, mappings))
    # Owners in the order of the tree, of each the largest group first.
    place = {node.anon_vma: at for at, node in enumerate(family.nodes)}
    return sorted(groups, key=lambda group: (place[group.anon_vma], -group.pages))


def _home(vma: ForestVma) -> int:
    """The anon_vma by which a VMA is shown or not: its own, or the first of its chain."""
    if vma.anon_vma >= 0:
        return vma.anon_vma
    return vma.chain[0] if vma.chain else -1


def _first(vmas: Sequence[ForestVma], most: int, wanted: set[int]) -> list[ForestVma]:
    """The first so many VMAs, and any that a finding is about."""
    return [vma for at, vma in enumerate(vmas) if at < most or vma.vma in wanted]


def _fold(nodes: Sequence[ForestNode], telling: set[int]) -> tuple[set[int], list[Folded]]:
    """Return the anon_vmas to hide, and a description for each group of them."""
    groups: dict[tuple[int | None, ...], list[ForestNode]] = {}
    for node in nodes:
        leaf = node.depth and not node.children and not node.is_freed
        if leaf and node.anon_vma not in telling:
            counters = (node.refcount, node.degree, node.num_children, node.num_active_vmas)
            alike = (node.parent, *counters, len(node.owners))
            groups.setdefault(alike, []).append(node)
    hidden: set[int] = set()
    folded = []
    for group in groups.values():
        rest = group[ALIKE:]
        if len(rest) > 1:
            hidden.update(node.anon_vma for node in rest)
            pages = sum(node.pages for node in rest)
            folded.append(Folded(group[0].parent, group[0], len(rest), pages))
    return hidden, folded


def short_name(name: str) -> str:
    """Return a VMA's name as it stands in a drawing.

    >>> short_name("[anon:heap]"), short_name("/usr/lib/libc.so.6"), short_name("[stack]")
    ('heap', 'libc.so.6', '[stack]')
    """
    if name.startswith("[anon:") and name.endswith("]"):
        return printable(name[6:-1])
    return printable(name.rpartition("/")[2])


class Cast:
    """What things are called in the drawings of a forest, and which of them are alarming.

    Attributes
    ----------
    numbers
        Of anon_vmas, by id.
    processes, owners
        Names of processes, by address space and by VMA. Where several have one name, the pid tells
        them apart.
    alarming
        VMAs that a finding is about.
    """

    def __init__(self, forest: Forest) -> None:
        nodes = [node for family in forest.families for node in family.nodes]
        vmas = [vma for family in forest.families for vma in family.vmas]
        self.numbers = {node.anon_vma: node.number for node in nodes}
        names = {vma.mm: (printable(vma.comm) or str(vma.pid), vma.pid) for vma in vmas}
        often = Counter(name for name, _ in names.values())
        self.processes = {
            mm: name if often[name] == 1 else f"{name}:{pid}" for mm, (name, pid) in names.items()
        }
        self.owners = {vma.vma: self.processes[vma.mm] for vma in vmas}
        self.alarming = frozenset(vma for finding in forest.findings for vma in finding.vmas)

    def mapped_by(self, group: PageGroup, most: int) -> str:
        """List who maps pages, or say how many do."""
        if len(group.vmas) != group.mappings:
            every = f"{group.mappings:,} of " if group.mappings > 1 else "one of "
            return f"{every}{plural(len(group.vmas), 'VMA')}"
        names = [self.owners.get(vma, "elsewhere") for vma in group.vmas]
        listed = ", ".join(names[:most]) or "nobody"
        return f"{listed} and {len(names) - most:,} more" if len(names) > most else listed


def page_place(family: Family, run: PageRun) -> str:
    """Say which pages a run is: where they lie in memory with a name, else their indexes."""
    last = run.index + run.pages - 1
    for vma in family.vmas:
        if vma.vma in run.vmas and vma.name:
            # A region that was split has several VMAs of its name, and begins with the first.
            same = [one for one in family.vmas if (one.mm, one.name) == (vma.mm, vma.name)]
            start = min(one.start for one in same)
            shift = vma.pgoff - (vma.start - start) // family.page_size
            span = f"{run.index - shift}"
            if run.pages > 1:
                span += f"..{last - shift}"
            return f"{short_name(vma.name)}+{span}"
    return f"{run.index:#x}..{last:#x}" if run.pages > 1 else f"{run.index:#x}"


def counters(node: ForestNode) -> str:
    """Return the counters of an anon_vma, those that are known."""
    if node.is_freed:
        return "FREED"
    if node.refcount < 0:
        return "root of the family"
    parts = [f"refcount {node.refcount}"]
    if node.degree is not None:
        parts.append(f"degree {node.degree}")
    if node.num_children is not None:
        parts.append(f"children {node.num_children}")
    if node.num_active_vmas is not None:
        parts.append(f"active VMAs {node.num_active_vmas}")
    return ", ".join(parts)


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a number and its noun.

    >>> plural(1, "page"), plural(2, "process"), plural(2, "family", "families")
    ('1 page', '2 processes', '2 families')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {nouns or noun + ('es' if noun.endswith('s') else 's')}"


#: Said of a forest that was concluded from shared pages.
INFERRED = (
    "Inferred: no anon_vma is visible in /proc, but VMAs that map the same anonymous page hang on "
    "the anon_vmas of one family. Each family is shown with its root alone; the kernel may have "
    "one more for every fork."
)


def describe(forest: Forest, source: str) -> str:
    """Say in a few sentences what a drawing of a forest shows."""
    families = forest.families
    note = f" {INFERRED}" if forest.inferred else ""
    if not families:
        return f"{source}: no anon_vma, since nothing private was ever written.{note}"
    vmas = sum(len(family.vmas) for family in families)
    pids = {pid for family in families for pid in family.pids}
    verb = "hangs" if vmas == 1 else "hang"
    hanging = f"on which {plural(vmas, 'VMA')} of {plural(len(pids), 'process')} {verb}"
    number = plural(len(families), "family", "families")
    if forest.inferred:
        text = f"{source}: {number} of anon_vmas, {hanging}."
    else:
        nodes = sum(len(family.nodes) for family in families)
        text = f"{source}: {plural(nodes, 'anon_vma')} in {number}, {hanging}."
    return f"{text} {walk_sentence(forest)}".rstrip() + note


def sizes(forest: Forest, family: Family) -> str:
    """Say how large a family is."""
    nodes = "" if forest.inferred else f"{plural(len(family.nodes), 'anon_vma')}, "
    vmas, pids = plural(len(family.vmas), "VMA"), plural(len(family.pids), "process")
    return f"{nodes}{vmas} of {pids}"


def walk_sentence(forest: Forest) -> str:
    """Say what a reverse-map walk of the forest's pages costs."""
    runs = [run for family in forest.families for run in family.pages]
    pages = sum(run.pages for run in runs)
    if not pages:
        return ""
    visited = sum(run.pages * run.visited for run in runs)
    found = sum(run.pages * run.found for run in runs)
    bound = "no more than " if forest.inferred else ""
    return (
        f"They own {plural(pages, 'mapped page')}; a reverse-map walk of one looks at "
        f"{bound}{visited / pages:.1f} VMAs on average and finds {found / pages:.1f} mappings."
    )
