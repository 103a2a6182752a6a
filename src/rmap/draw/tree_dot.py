# SPDX-License-Identifier: GPL-2.0-only
"""An anon_vma forest as Graphviz text: ``rmap tree SCENARIO --format dot | dot -Tsvg``.

Anon_vmas are filled boxes, VMAs plain ones, grouped by process. An edge between anon_vmas leads
from child to parent; one from a VMA is an anon_vma_chain, labelled with its place in the chain,
thick if it leads to the VMA's own anon_vma; a dotted one leads from pages to their owner.
"""

from __future__ import annotations

from collections.abc import Iterator

from rmap.draw.palette import ANON_VMA_COLOURS
from rmap.draw.tree_view import (
    LIMIT,
    Cast,
    View,
    counters,
    describe,
    plural,
    short_name,
    view,
)
from rmap.query.tree import Forest, ForestNode, ForestVma

_ALARM = "#c00000"


def tree_dot(forest: Forest, source: str, limit: int = LIMIT) -> str:
    """Return the text of a Graphviz file; `source` is what the user asked about."""
    families = forest.families[: limit or len(forest.families)]
    cast = Cast(forest)
    lines = [
        "digraph anon_vmas {",
        f"  label={_quote(describe(forest, source))}; labelloc=t; rankdir=RL;",
        '  node [shape=box, fontname="DejaVu Sans", fontsize=11];',
        '  edge [fontname="DejaVu Sans", fontsize=9, color="#555555"];',
    ]
    for family in families:
        lines += _family(cast, view(family, limit))
    left = len(forest.families) - len(families)
    if left:
        text = f"... and {plural(left, 'smaller family', 'smaller families')}"
        lines.append(f"  more [shape=plaintext, label={_quote(text)}];")
    return "\n".join([*lines, "}", ""])


def _family(cast: Cast, shown: View) -> Iterator[str]:
    for at, node in enumerate(shown.nodes):
        yield _node(node, at)
        if node.depth:
            yield f'  a{node.anon_vma} -> a{node.parent} [color="#1a1a1a", arrowhead=empty];'
    for at, folded in enumerate(shown.folded):
        if folded.parent in shown.shown:
            name = f"f{folded.parent}_{at}"
            text = f"{folded.count:,} more\\nlike anon_vma {folded.like.number}"
            yield f'  {name} [label="{text}", style=dashed];'
            yield f"  {name} -> a{folded.parent} [style=dashed, arrowhead=empty];"
    by_mm: dict[int, list[ForestVma]] = {}
    for vma in shown.vmas:
        by_mm.setdefault(vma.mm, []).append(vma)
    for mm, vmas in by_mm.items():
        yield f"  subgraph cluster_{shown.family.root}_{mm} {{"
        yield f'    label={_quote(cast.processes[mm])}; color="#999999"; fontsize=12;'
        for vma in vmas:
            yield f"    {_vma(cast, vma)}"
        yield "  }"
    for vma in shown.vmas:
        yield from _chain(shown, vma)
    yield from _pages(shown)


def _node(node: ForestNode, at: int) -> str:
    fill, ink = ANON_VMA_COLOURS[at % len(ANON_VMA_COLOURS)]
    if node.is_freed:
        fill, ink = _ALARM, "#ffffff"
    text = _escape(f"anon_vma {node.number}\n{counters(node)}\n{plural(node.pages, 'page')}")
    return (
        f'  a{node.anon_vma} [label={text}, style=filled, fillcolor="{fill}", fontcolor="{ink}"];'
    )


def _vma(cast: Cast, vma: ForestVma) -> str:
    place = f"{short_name(vma.name)}\n{vma.start:#x}-{vma.end:#x} {vma.permissions}".strip()
    colour = _ALARM if vma.vma in cast.alarming else "#999999"
    return f'v{vma.vma} [label={_escape(place)}, color="{colour}"];'


def _chain(shown: View, vma: ForestVma) -> Iterator[str]:
    for place, anon_vma in enumerate(vma.chain, 1):
        if anon_vma in shown.shown:
            width = ", penwidth=2.5" if anon_vma == vma.anon_vma else ""
            yield f'  v{vma.vma} -> a{anon_vma} [label="{place}"{width}];'


def _pages(shown: View) -> Iterator[str]:
    visible = {vma.vma for vma in shown.vmas}
    for at, group in enumerate(shown.pages):
        if group.anon_vma not in shown.shown:
            continue
        name = f"p{shown.family.root}_{at}"
        text = f"{plural(group.pages, 'page')}\n{group.where or 'in many places'}"
        yield f"  {name} [label={_escape(text)}, shape=note, fontsize=9];"
        yield f"  {name} -> a{group.anon_vma} [style=dotted, penwidth=1.5];"
        for row in group.vmas:
            if row in visible:
                yield f'  v{row} -> {name} [arrowhead=none, color="#bbbbbb"];'


def _quote(text: str) -> str:
    """Return a string as the language quotes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escape(text: str) -> str:
    """Likewise, for a label of several lines."""
    return _quote(text).replace("\n", "\\n")
