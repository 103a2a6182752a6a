# SPDX-License-Identifier: GPL-2.0-only
"""An anon_vma forest for the terminal: the tree of each family, its VMAs, its pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmap.draw.tree_view import (
    LIMIT,
    Folded,
    View,
    counters,
    describe,
    page_place,
    plural,
    process_name,
    short_name,
    view,
)
from rmap.query.tree import Family, Forest, ForestNode, ForestVma, Strip, strips
from rmap.text import aligned

_HOW_TO_READ = (
    "CHAIN: the VMA's anon_vmas, newest first; its own, which new pages are given, has a *.",
    "PAGES of a VMA, from its start: n×k are k pages of anon_vma n, z the zero page, s swapped,",
    "f of a file, k of KSM, ? not known, . nothing there.",
    "COUNTED: page_mapcount(); VISITED: VMAs that a walk of such a page looks at, and FOUND in.",
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
    most = limit or len(forest.families)
    for family in forest.families[:most]:
        lines += ["", *_family(forest, view(family, limit))]
    left = len(forest.families) - most
    if left > 0:
        lines += [
            "",
            f"... and {plural(left, 'smaller family', 'smaller families')}; all: --limit 0",
        ]
    if forest.families:
        lines += ["", *(_HOW_TO_READ[1:] if forest.inferred else _HOW_TO_READ)]
    return lines


def _family(forest: Forest, shown: View) -> Iterator[str]:
    family = shown.family
    yield (
        f"Family of anon_vma {family.nodes[0].number}: {plural(len(family.nodes), 'anon_vma')}, "
        f"{plural(len(family.vmas), 'VMA')} of {plural(len(family.pids), 'process')}"
    )
    for finding in family.findings:
        yield f"  !! {finding.text}"
    yield from _branches(shown)
    if shown.left_nodes:
        yield f"  ... and {plural(shown.left_nodes, 'anon_vma')} more"
    numbers = {node.anon_vma: str(node.number) for node in family.nodes}
    if shown.vmas:
        yield ""
        rows = [_vma_row(forest, numbers, vma) for vma in shown.vmas]
        yield from (f"  {line}" for line in aligned(_VMA_TITLES, rows))
    if shown.left_vmas:
        yield f"  ... and {plural(shown.left_vmas, 'VMA')} more"
    if shown.pages:
        yield ""
        rows = list(_page_rows(family, shown, numbers))
        yield from (f"  {line}" for line in aligned(_PAGE_TITLES, rows, _RIGHT))
    if shown.left_pages:
        yield f"  ... and {plural(shown.left_pages, 'run')} of pages more"


def _branches(shown: View) -> Iterator[str]:
    """Draw the tree of anon_vmas with its branches, depth first."""
    below: dict[int, list[ForestNode | Folded]] = {}
    tops: list[ForestNode | Folded] = []
    for node in shown.nodes:
        (below.setdefault(node.parent, []) if node.depth else tops).append(node)
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
    return what if item.owners or item.refcount <= 0 else f"{what}; no VMA has it as its own"


def _vma_row(forest: Forest, numbers: dict[int, str], vma: ForestVma) -> tuple[str, ...]:
    pages = (vma.end - vma.start) // forest.image.page_size
    chain = [
        numbers.get(anon_vma, "?") + "*" * (anon_vma == vma.anon_vma) for anon_vma in vma.chain
    ]
    if vma.anon_vma >= 0 and vma.anon_vma not in vma.chain:
        chain.insert(0, f"({numbers.get(vma.anon_vma, '?')}*)")
    return (
        process_name(vma),
        f"{vma.start:#x}+{pages}",
        vma.permissions,
        short_name(vma.name),
        " ".join(chain),
        _strip_text(strips(forest.image, vma.vma), numbers),
    )


def _strip_text(runs: Sequence[Strip], numbers: dict[int, str]) -> str:
    parts = []
    for run in runs[:_RUNS]:
        sign = numbers.get(run.anon_vma, "?") if run.kind == "anon" else _SIGNS[run.kind]
        parts.append(f"{sign}×{run.pages}" if run.pages > 1 else sign)
    return " ".join(parts) + (" ..." if len(runs) > _RUNS else "")


def _page_rows(family: Family, shown: View, numbers: dict[int, str]) -> Iterator[tuple[str, ...]]:
    vmas = {vma.vma: vma for vma in family.vmas}
    for run in shown.pages:
        names = [process_name(vmas[row]) if row in vmas else "elsewhere" for row in run.vmas]
        listed = " ".join(names[:_NAMES])
        if len(names) > _NAMES:
            listed += f" and {len(names) - _NAMES:,} more"
        yield (
            numbers[run.anon_vma], str(run.pages), page_place(family, run), str(run.mapcount),
            str(run.visited), str(run.found), listed,
        )  # fmt: skip
