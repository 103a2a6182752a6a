# SPDX-License-Identifier: GPL-2.0-only
"""The anon_vma forest as a picture: a tree of cards, under it a grid of VMAs by anon_vmas.

Every anon_vma is a card and has a column; every VMA is a row. A dot where they meet is an
anon_vma_chain. To the right of a row lie the VMA's pages, each in the colour of the anon_vma that
``page->mapping`` names. So a chain is read along a row, an interval tree down a column, and a
reverse-map walk goes from a page's colour to the column of that colour, and down.
"""

from __future__ import annotations

from dataclasses import dataclass

from rmap.draw.heading import heading
from rmap.draw.palette import ANON_VMA_COLOURS, tint
from rmap.draw.scene import Circle, Line, Rect, Scene, Text, text_width, wrap
from rmap.draw.tree_pages import PageAxis, page_axis
from rmap.draw.tree_view import (
    LIMIT,
    Cast,
    Folded,
    View,
    describe,
    plural,
    short_name,
    sizes,
    view,
)
from rmap.query.tree import Forest, ForestNode, ForestVma, Strip, strips

_MARGIN = 28.0
_CARD_WIDTH, _CARD_HEIGHT = 102.0, 58.0
_COLUMN = 112.0
_STEP = 46.0  # one generation further down
_ROW = 27.0
_GAP = 30.0
_MIN_WIDTH = 900.0
_INK, _SOFT, _ALARM, _FAINT = "#1a1a1a", "#555555", "#c00000", "#d9d9d9"
_OWN_RADIUS, _CHAIN_RADIUS = 8.0, 5.0
_PAGE_ROWS = 12
_NAMES = 6
_ALONE = 0.45  # of the colour, for a page that is mapped once
#: What stands in a picture for pages that no anon_vma owns: (fill, what it is).
OTHER_PAGES = {
    "swap": ("#4d4d4d", "swapped"),
    "zero": ("#f0e442", "zero page"),
    "file": ("#d8c4b6", "page of a file"),
    "ksm": ("#b9a3d0", "KSM page"),
    "other": ("#ffffff", "not known"),
    "freed": (_ALARM, "owner freed, or another family's"),
}
_READING = (
    "Each card and the column under it is an anon_vma, each row a VMA. A ringed dot is the VMA's "
    "own anon_vma, which its new pages will name; the other dots of a row are the rest of its "
    "chain. Squares are the VMA's pages, in the colour of the anon_vma that each page names, pale "
    "if nobody else maps it: a reverse-map walk of the page looks at the rows with a dot in that "
    "column."
)


@dataclass(frozen=True, slots=True)
class _Column:
    """Where an anon_vma, or a fold of many, stands."""

    x: float  #: its middle
    y: float  #: upper edge of its card
    fill: str
    ink: str


@dataclass(frozen=True, slots=True)
class _Family:
    """A family with what is drawn of it, and the width of its parts."""

    view: View
    columns: tuple[ForestNode | Folded, ...]
    axis: PageAxis
    label_width: float
    cast: Cast

    @property
    def columns_left(self) -> float:
        return _MARGIN + self.label_width + 20

    @property
    def pages_left(self) -> float:
        return self.columns_left + len(self.columns) * _COLUMN + 14

    @property
    def right(self) -> float:
        return self.pages_left + self.axis.width


def draw_forest(forest: Forest, source: str, limit: int = LIMIT) -> Scene:
    """Draw a forest; `source` is what the user asked about."""
    most = limit or len(forest.families)
    cast = Cast(forest)
    families = [_family(forest, cast, view(family, limit)) for family in forest.families[:most]]
    width = max([family.right + _MARGIN for family in families] + [_MIN_WIDTH])
    sentence = describe(forest, source)
    scene = Scene(width, 0, f"anon_vmas of {source}", f"{sentence} {_READING}")
    y = heading(scene, sentence, _READING, _MARGIN)
    for family in families:
        y = _draw_family(scene, forest, family, y + 14)
    left = len(forest.families) - len(families)
    if left > 0:
        y += 26
        text = f"... and {plural(left, 'smaller family', 'smaller families')}"
        scene.add(Text(_MARGIN, y, text, 13, _SOFT))
    scene.height = (_legend(scene, y + 26) if families else y) + _MARGIN
    return scene


def _family(forest: Forest, cast: Cast, shown: View) -> _Family:
    labels = [(cast.owners[vma.vma], _label(vma)) for vma in shown.vmas]
    width = max(
        [text_width(name, 13) + text_width(place, 11) + 14 for name, place in labels] + [90]
    )
    return _Family(shown, tuple(_in_order(shown)), page_axis(forest, shown), width, cast)


def _in_order(shown: View) -> list[ForestNode | Folded]:
    """Anon_vmas depth first; what is folded stands behind its parent's other children."""
    columns: list[ForestNode | Folded] = []
    open_: list[ForestNode] = []
    for node in shown.nodes:
        while open_ and open_[-1].depth >= node.depth:
            columns += shown.folded_below(open_.pop().anon_vma)
        columns.append(node)
        open_.append(node)
    while open_:
        columns += shown.folded_below(open_.pop().anon_vma)
    return columns


def _label(vma: ForestVma) -> str:
    """Which of its process's VMAs a row is."""
    return f"{short_name(vma.name) or hex(vma.start)} {vma.permissions}"


def _draw_family(scene: Scene, forest: Forest, family: _Family, y: float) -> float:
    shown = family.view
    root = shown.family.nodes[0]
    scene.add(Line(_MARGIN, y, scene.width - _MARGIN, y, _FAINT))
    y += 26
    title = f"Family {root.number}" if forest.inferred else f"Family of anon_vma {root.number}"
    size = sizes(forest, shown.family)
    scene.add(Text(_MARGIN, y, title, 15, bold=True))
    scene.add(Text(_MARGIN + text_width(title, 15) + 18, y, size, 13, _SOFT))
    for finding in shown.family.findings:
        for line in wrap(finding.text, 13, scene.width - 2 * _MARGIN - 20):
            y += 19
            scene.add(Text(_MARGIN, y, line, 13, _ALARM))
    top = y + 22
    depths = [_depth(column) for column in family.columns]
    rows_top = top + max(depths) * _STEP + _CARD_HEIGHT + 22
    rows_bottom = rows_top + len(shown.vmas) * _ROW
    columns = _place(family, top)
    _guides(scene, family, columns, rows_bottom)
    _branches(scene, family, columns)
    for column, item in zip(columns.values(), family.columns, strict=True):
        _card(scene, item, column)
    _axis(scene, family, rows_top)
    for at, vma in enumerate(shown.vmas):
        _row(scene, forest, family, columns, at, vma, rows_top + at * _ROW)
    y = rows_bottom
    hidden = (("VMA", shown.left_vmas), ("anon_vma", shown.left_nodes))
    left = [f"{plural(count, noun)} more" for noun, count in hidden if count]
    if left:
        y += 18
        scene.add(Text(_MARGIN, y, f"... and {' and '.join(left)}", 12, _SOFT))
    return _pages(scene, family, columns, y + 12)


def _depth(item: ForestNode | Folded) -> int:
    return item.depth if isinstance(item, ForestNode) else item.like.depth


def _key(item: ForestNode | Folded) -> tuple[str, int]:
    if isinstance(item, ForestNode):
        return "node", item.anon_vma
    return "fold", item.like.anon_vma


def _place(family: _Family, top: float) -> dict[tuple[str, int], _Column]:
    """Give every column its place and its colour."""
    columns = {}
    number = 0
    for at, item in enumerate(family.columns):
        x = family.columns_left + (at + 0.5) * _COLUMN
        y = top + _depth(item) * _STEP
        if isinstance(item, ForestNode):
            fill, ink = ANON_VMA_COLOURS[number % len(ANON_VMA_COLOURS)]
            if item.is_freed:
                fill, ink = _ALARM, "#ffffff"
            number += 1
        else:
            fill, ink = "#eeeeee", _INK
        columns[_key(item)] = _Column(x, y, fill, ink)
    return columns


def _guides(
    scene: Scene, family: _Family, columns: dict[tuple[str, int], _Column], bottom: float
) -> None:
    """Lead every column down through the rows."""
    for item in family.columns:
        if isinstance(item, ForestNode):
            column = columns[_key(item)]
            colour = tint(column.fill, 0.35)
            scene.add(Line(column.x, column.y + _CARD_HEIGHT, column.x, bottom, colour, width=3.0))


def _branches(scene: Scene, family: _Family, columns: dict[tuple[str, int], _Column]) -> None:
    """Draw a line from every parent to its children: out at its right side, down on each."""
    for item in family.columns:
        parent = columns.get(("node", item.parent))
        if parent is None or (isinstance(item, ForestNode) and not item.depth):
            continue
        child = columns[_key(item)]
        y = parent.y + _CARD_HEIGHT / 2
        scene.add(
            Line(parent.x + _CARD_WIDTH / 2, y, child.x, y, _SOFT, width=1.5),
            Line(child.x, y - 0.75, child.x, child.y, _SOFT, width=1.5),
        )


def _card(scene: Scene, item: ForestNode | Folded, column: _Column) -> None:
    left, top = column.x - _CARD_WIDTH / 2, column.y
    scene.add(Rect(left, top, _CARD_WIDTH, _CARD_HEIGHT, "#ffffff", _SOFT))
    scene.add(Rect(left + 1, top + 1, _CARD_WIDTH - 2, 18, column.fill))
    if isinstance(item, Folded):
        lines = [f"{item.count:,} more", f"like {item.like.number}", "", plural(item.pages, "page")]
    else:
        name = f"anon_vma {item.number}" if item.refcount >= 0 else f"family {item.number}"
        lines = [name, *_counter_lines(item)]
    scene.add(Text(column.x, top + 14, lines[0], 11.5, column.ink, "middle", bold=True))
    for at, line in enumerate(lines[1:]):
        scene.add(Text(column.x, top + 30 + at * 11.5, line, 9.5, _SOFT, "middle"))


def _counter_lines(node: ForestNode) -> list[str]:
    refcount, pages = f"refcount {node.refcount}", plural(node.pages, "page")
    if node.refcount <= 0:
        return ["FREED" if node.is_freed else "(inferred)", "", pages]
    if node.degree is not None:
        return [refcount, f"degree {node.degree}", pages]
    if node.num_children is not None:
        return [refcount, f"children {node.num_children}, act. {node.num_active_vmas}", pages]
    return [refcount, "", pages]


def _axis(scene: Scene, family: _Family, top: float) -> None:
    """Name the stretches of pages, above the first row."""
    if family.view.vmas:
        scene.add(Text(family.pages_left, top - 22, "pages, by page->index", 11, _SOFT))
    for stretch in family.axis.stretches:
        x = family.pages_left + stretch.left
        scene.add(Text(x, top - 6, stretch.label, 10, _SOFT, mono=True))


def _row(
    scene: Scene, forest: Forest, family: _Family,
    columns: dict[tuple[str, int], _Column], at: int, vma: ForestVma, top: float,
) -> None:  # fmt: skip
    middle = top + _ROW / 2
    shown = family.view
    previous = shown.vmas[at - 1] if at else None
    if previous is None or previous.mm != vma.mm:
        scene.add(Line(_MARGIN, top, family.right, top, _FAINT))
    alarming = vma.vma in family.cast.alarming
    ink = _ALARM if alarming else _INK
    scene.add(Text(_MARGIN, middle + 4.5, family.cast.owners[vma.vma], 13, ink, bold=True))
    right = _MARGIN + family.label_width
    scene.add(
        Text(right, middle + 4.5, _label(vma), 11, _ALARM if alarming else _SOFT, "end", mono=True)
    )
    _chain(scene, columns, vma, middle, alarming)
    _strip(scene, forest, family, columns, vma, top)


def _chain(
    scene: Scene, columns: dict[tuple[str, int], _Column], vma: ForestVma, y: float, alarming: bool
) -> None:
    """Draw the dots of a row, and the line that makes them a chain."""
    dots = [(a, columns[("node", a)]) for a in vma.chain if ("node", a) in columns]
    if not dots:
        return
    xs = [column.x for _, column in dots]
    scene.add(Line(min(xs), y, max(xs), y, _SOFT, width=1.5))
    for anon_vma, column in dots:
        if anon_vma == vma.anon_vma:
            ring = _ALARM if alarming else _INK
            scene.add(Circle(column.x, y, _OWN_RADIUS, column.fill, ring, width=2.0))
        else:
            scene.add(Circle(column.x, y, _CHAIN_RADIUS, column.fill, "#ffffff"))


def _strip(
    scene: Scene, forest: Forest, family: _Family,
    columns: dict[tuple[str, int], _Column], vma: ForestVma, top: float,
) -> None:  # fmt: skip
    axis, left = family.axis, family.pages_left
    height, y = _ROW - 9, top + 4.5
    last = vma.pgoff + (vma.end - vma.start) // forest.image.page_size
    start, end = axis.place(vma.pgoff), axis.place(last)
    scene.add(Rect(left + start - 1, y - 1, end - start + 2, height + 2, "#ffffff", "#b0b0b0"))
    index = vma.pgoff
    for run in strips(forest.image, vma.vma, by_sharing=True):
        after = index + run.pages
        if run.kind != "none":
            fill, ink, sign = _look(family, columns, run)
            for begin, stop in axis.cells(index, after):
                width = max(stop - begin - axis.gap, 0.75)
                scene.add(Rect(left + begin, y, width, height, fill))
                if axis.is_roomy:
                    middle = left + begin + width / 2
                    scene.add(Text(middle, y + height - 5.5, sign, 9, ink, "middle"))
        index = after


def _look(
    family: _Family, columns: dict[tuple[str, int], _Column], run: Strip
) -> tuple[str, str, str]:
    """Return fill, ink and sign of pages."""
    if run.kind != "anon":
        sign = {"swap": "s", "zero": "z"}.get(run.kind, "")
        return OTHER_PAGES[run.kind][0], "#ffffff" if run.kind == "swap" else _INK, sign
    number = family.cast.numbers.get(run.anon_vma)
    column = columns.get(("node", run.anon_vma))
    if column is None and number is None:
        return OTHER_PAGES["other"][0], _INK, "?"
    if column is None:
        members = {node.anon_vma for node in family.view.family.nodes}
        # Folded, or a stranger's.
        return (
            ("#bbbbbb", _INK, "") if run.anon_vma in members else (_ALARM, "#ffffff", str(number))
        )
    if run.shared:
        return column.fill, column.ink, str(number)
    return tint(column.fill, _ALONE), _INK, str(number)


def _pages(
    scene: Scene, family: _Family, columns: dict[tuple[str, int], _Column], y: float
) -> float:
    """List the pages under the rows: whose, where, and what a walk of them would do."""
    groups = family.view.pages[:_PAGE_ROWS]
    for group in groups:
        y += 17
        column = columns.get(("node", group.anon_vma))
        scene.add(Rect(_MARGIN, y - 9.5, 11, 11, column.fill if column else "#bbbbbb"))
        text = (
            f"{plural(group.pages, 'page')} at {group.where or 'many places'}: mapped by "
            f"{family.cast.mapped_by(group, _NAMES)}; a walk looks at "
            f"{plural(group.visited, 'VMA')} and finds {group.found:,}"
        )
        for at, line in enumerate(wrap(text, 11.5, scene.width - 2 * _MARGIN - 18)):
            y += 15 if at else 0
            scene.add(Text(_MARGIN + 18, y, line, 11.5, _SOFT))
    left = family.view.left_pages + sum(group.pages for group in family.view.pages[_PAGE_ROWS:])
    if left > 0:
        y += 17
        scene.add(Text(_MARGIN + 18, y, f"... and {plural(left, 'page')} more", 11.5, _SOFT))
    return y + 10


def _legend(scene: Scene, y: float) -> float:
    """Explain dots and squares in one line or two; return where it ends."""
    scene.add(Line(_MARGIN, y - 14, scene.width - _MARGIN, y - 14, _FAINT))
    x, y = _MARGIN, y + 4
    fill = ANON_VMA_COLOURS[0][0]
    entries: list[tuple[str, str]] = [
        ("own", "the VMA's own anon_vma"),
        ("chain", "rest of its chain"),
    ]
    entries += [("page", "page, in its owner's colour"), ("alone", "page mapped only here")]
    entries += [(kind, text) for kind, (_, text) in OTHER_PAGES.items() if kind != "other"]
    for kind, text in entries:
        width = 24 + text_width(text, 12) + 16
        if x + width > scene.width - _MARGIN:
            x, y = _MARGIN, y + 22
        if kind == "own":
            scene.add(Circle(x + 8, y, _OWN_RADIUS, fill, _INK, width=2.0))
        elif kind == "chain":
            scene.add(Circle(x + 8, y, _CHAIN_RADIUS, fill, "#ffffff"))
        else:
            colours = {"page": fill, "alone": tint(fill, _ALONE)}
            colour = colours.get(kind) or OTHER_PAGES[kind][0]
            scene.add(Rect(x + 1, y - 7, 14, 14, colour))
        scene.add(Text(x + 24, y + 4, text, 12, _SOFT))
        x += width
    return y + 10
