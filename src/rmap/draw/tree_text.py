# SPDX-License-Identifier: GPL-2.0-only
"""An anon_vma forest for the terminal: the tree of each family, its VMAs, its pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmap.draw.tree_view import (
    LIMIT,
    Cast,
    Folded,
    View,
    counters,
    describe,
    plural,
    short_name,
    sizes,
    view,
)
from rmap.query.tree import Forest, ForestNode, ForestVma, Strip, strips
from rmap.text import aligned, printable

_HOW_TO_READ = (
    "CHAIN: the VMA's anon_vmas, newest first; its own, which new pages are given, has a *.",
    "PAGES of a VMA, from its start: n×k are k pages of anon_vma n, z the zero page, s swapped,",
    "f of a file, k of KSM, ? not known, . nothing there.",
    "COUNTED: page_mapcount(); VISITED: VMAs that a walk of such a page looks at, and FOUND in.",
)
_BY_PARENT = (
    "Processes by parent. Where an area was written before a fork, the anon_vma of the child's VMA",
    "is below that of the parent's in the same way (or is one that the kernel used again):",
)
_SIGNS = {"none": ".", "file": "f", "ksm": "k", "zero": "z", "swap": "s", "other": "?"}
_VMA_TITLES = ("PROCESS", "VMA", "PERM", "NAME", "CHAIN", "PAGES")
_PAGE_TITLES = ("OWNER", "PAGES OF IT", "WHERE", "COUNTED", "VISITED", "FOUND", "MAPPED BY")
#: Runs of pages of one VMA, and names of VMAs that map a page, that fit on a line.
_RUNS = 24
_NAMES = 8
_RIGHT = frozenset(("OWNER", "PAGES OF IT", "VISITED", "COUNTED", "FOUND"))


def tree_text(forest: Forest, source: str, limit: int = LIMIT) -> list[str]:
    """Return the lines of the drawing; `source` is what the user asked about."""
    lines = [describe(forest, source)]
    cast = Cast(forest)
    most = limit or len(forest.families)
    if forest.inferred and forest.families:
        lines += ["", *_BY_PARENT]
        lines += _processes(forest, limit)
    for family in forest.families[:most]:
        lines += ["", *_family(forest, cast, view(family, limit))]
    left = len(forest.families) - most
    if left > 0:
        lines += [
            "",
            f"... and {plural(left, 'smaller family', 'smaller families')}; all: --limit 0",
        ]
    if forest.families:
        lines += ["", *(_HOW_TO_READ[1:] if forest.inferred else _HOW_TO_READ)]
    return lines


def _processes(forest: Forest, limit: int) -> Iterator[str]:
    """Draw the processes of a forest by their parents."""
    table = forest.image.processes
    pids = {pid for family in forest.families for pid in family.pids}
    rows = {int(pid): row for row, pid in enumerate(table["pid"].tolist()) if pid in pids}
    below: dict[int, list[int]] = {}
    for pid, row in rows.items():
        parent = int(table["ppid"][row])
        is_child = parent in rows and parent != pid
        below.setdefault(parent if is_child else -1, []).append(pid)
    waiting = [(pid, "", "") for pid in reversed(below.get(-1, []))]
    drawn = 0
    while waiting and (not limit or drawn < limit):
        pid, prefix, stem = waiting.pop()
        drawn += 1
        yield f"  {prefix}{printable(str(table['comm'][rows[pid]]))} {pid}"
        children = below.get(pid, [])
        for child in reversed(children):
            fork, line = ("└─ ", "   ") if child is children[-1] else ("├─ ", "│  ")
            waiting.append((child, stem + fork, stem + line))
    if drawn < len(rows):
        yield f"  ... and {plural(len(rows) - drawn, 'process')} more"


def _family(forest: Forest, cast: Cast, shown: View) -> Iterator[str]:
    family = shown.family
    yield f"Family {family.nodes[0].number}: {sizes(forest, family)}"
    for finding in family.findings:
        yield f"  !! {finding.text}"
    yield from _branches(shown)
    if shown.left_nodes:
        yield f"  ... and {plural(shown.left_nodes, 'anon_vma')} more"
    if shown.vmas:
        yield ""
        rows = [_vma_row(forest, cast, vma) for vma in shown.vmas]
        yield from (f"  {line}" for line in aligned(_VMA_TITLES, rows))
    if shown.left_vmas:
        yield f"  ... and {plural(shown.left_vmas, 'VMA')} more"
    if shown.pages:
        yield ""
        rows = list(_page_rows(shown, cast))
        yield from (f"  {line}" for line in aligned(_PAGE_TITLES, rows, _RIGHT))
    if shown.left_pages:
        yield f"  ... and {plural(shown.left_pages, 'page')} more"


def _branches(shown: View) -> Iterator[str]:
    """Draw the tree of anon_vmas with its branches, depth first."""
    below: dict[int, list[ForestNode | Folded]] = {}
    tops: list[ForestNode | Folded] = []
    for node in shown.nodes:
        is_below = node.depth and node.parent in shown.shown
        (below.setdefault(node.parent, []) if is_below else tops).append(node)
    for folded in shown.folded:
        if folded.parent in shown.shown:
            below.setdefault(folded.parent, []).append(folded)
    waiting = [(item, "", "") for item in reversed(tops)]
    while waiting:
        item, prefix, stem = waiting.pop()
        yield f"  {prefix}{_node_text(item)}"
        children = below.get(item.anon_vma, []) if isinstance(item, ForestNode) else []
        for child in reversed(children):
            is_last = child is children[-1]
            fork, line = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            waiting.append((child, stem + fork, stem + line))


def _node_text(item: ForestNode | Folded) -> str:
    if isinstance(item, Folded):
        pages = plural(item.pages, "page")
        return f"... {item.count:,} more like anon_vma {item.like.number}, {pages} together"
    what = f"anon_vma {item.number}: {counters(item)}, {plural(item.pages, 'page')}"
    if item.refcount < 0:
        return f"its root, and others that cannot be seen: {plural(item.pages, 'page')}"
    return what if item.owners or item.refcount <= 0 else f"{what}; no VMA has it as its own"


def _vma_row(forest: Forest, cast: Cast, vma: ForestVma) -> tuple[str, ...]:
    pages = (vma.end - vma.start) // forest.image.page_size
    chain = [
        f"{cast.numbers[anon_vma]}{'*' if anon_vma == vma.anon_vma else ''}"
        for anon_vma in vma.chain
    ]
    if vma.anon_vma >= 0 and vma.anon_vma not in vma.chain:
        chain.insert(0, f"({cast.numbers[vma.anon_vma]}*)")
    return (
        cast.owners[vma.vma],
        f"{vma.start:#x}+{pages}",
        vma.permissions,
        short_name(vma.name),
        " ".join(chain),
        _strip_text(strips(forest.image, vma.vma), cast),
    )


def _strip_text(runs: Sequence[Strip], cast: Cast) -> str:
    parts = []
    for run in runs[:_RUNS]:
        owner = str(cast.numbers.get(run.anon_vma, "?"))
        sign = owner if run.kind == "anon" else _SIGNS[run.kind]
        parts.append(f"{sign}×{run.pages}" if run.pages > 1 else sign)
    return " ".join(parts) + (" ..." if len(runs) > _RUNS else "")


def _page_rows(shown: View, cast: Cast) -> Iterator[tuple[str, ...]]:
    for group in shown.pages:
        yield (
            str(cast.numbers[group.anon_vma]), f"{group.pages:,}", group.where or "many places",
            str(group.mapcount), str(group.visited), str(group.found),
            cast.mapped_by(group, _NAMES),
        )  # fmt: skip
