# SPDX-License-Identifier: GPL-2.0-only
"""The picture of physical memory: cells in rows of ascending addresses, what they are, how shared.

From top to bottom: a title, a sentence that says what one sees, one that says how to read it, one
or two panels of cells with addresses beside them and holes as labelled gaps, and under each panel
its legend with the bytes of every colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rmap.draw.heading import heading
from rmap.draw.palette import DEGREE_COLOURS, kind_colour
from rmap.draw.scene import Line, Rect, Scene, Text, text_width
from rmap.image import MemoryImage
from rmap.query.physmap import COLUMNS, UNKNOWN, Layer, PhysMap
from rmap.text import human_bytes, printable, short_bytes

_MARGIN = 28.0
_GUTTER = 30.0
_GAP_HEIGHT = 22.0
_CELL_WIDTH = {1: 8.0, 2: 5.0}
_PANEL_HEIGHT = 640.0
_ROW_HEIGHTS = (6.0, 12.0)
_AXIS_SIZE = 11.0
_TICK_DISTANCE = 20.0
_SWATCH = 14.0
_LEGEND_LINE = 21.0
_SOFT = "#555555"


@dataclass(frozen=True, slots=True)
class _Panel:
    """One way to look at the cells: a heading, the layer, and a colour for each category."""

    heading: str
    layer: Layer
    colours: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where rows and panels lie."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    cell_width: float
    row_height: float

    @property
    def panel_width(self) -> float:
        return COLUMNS * self.cell_width

    @property
    def right(self) -> float:
        return self.xs[-1] + self.panel_width

    @property
    def bottom(self) -> float:
        return self.ys[-1] + self.row_height


def draw_memory(
    image: MemoryImage, memory: PhysMap, layers: Sequence[str]
) -> tuple[Scene, dict[str, Any]]:
    """Draw ``memory``.

    Parameters
    ----------
    image
        Whence ``memory`` was made; gives the title its machine.
    layers
        ``"kind"``, ``"sharing"`` or both: a panel for each.

    Returns
    -------
    The scene, and the data that :func:`rmap.draw.html.to_html` needs for its pointer.
    """
    panels = [_panels(memory)[name] for name in layers]
    sentence, reading = describe(memory), _how_to_read(memory, layers)
    left = _MARGIN + _axis_width(memory)
    cell_width = _CELL_WIDTH[len(panels)]
    panel_width = COLUMNS * cell_width
    xs = tuple(left + at * (panel_width + _GUTTER) for at in range(len(panels)))
    width = xs[-1] + panel_width + _axis_width(memory) * 0.7 + _MARGIN
    scene = Scene(width, 0, _title(image, memory), f"{sentence} {reading}")
    top = heading(scene, sentence, reading, _MARGIN)
    ys, row_height = _rows(memory, round(top + 30))
    frame = _Frame(xs, ys, cell_width, row_height)
    for x, panel in zip(xs, panels, strict=True):
        scene.add(Text(x, top + 18, panel.heading, 15, bold=True))
        _cells(scene, panel, frame, x)
    _axis(scene, memory, frame)
    _holes(scene, memory, frame)
    ends = [_legend(scene, memory, panel, frame, x) for x, panel in zip(xs, panels, strict=True)]
    scene.height = max(ends) + _MARGIN
    return scene, _pointer_data(memory, panels, frame)


def _panels(memory: PhysMap) -> dict[str, _Panel]:
    kinds = [kind_colour(name) for name in memory.kinds.names]
    degrees = [*DEGREE_COLOURS, kind_colour(UNKNOWN)]
    return {
        "kind": _Panel("What it is", memory.kinds, kinds),
        "sharing": _Panel("How often it is mapped", memory.sharing, degrees),
    }


def _title(image: MemoryImage, memory: PhysMap) -> str:
    machine = image.machine.row(0)
    when = datetime.fromtimestamp(machine["time_ns"] // 10**9, UTC)
    size = human_bytes(memory.ram_pages * memory.page_size)
    system = printable(f"Linux {machine['kernel_release']} {machine['architecture']}")
    return f"Physical memory: {size} of RAM, {system}, {when:%Y-%m-%d %H:%M} UTC"


def describe(memory: PhysMap) -> str:
    """Say in a sentence or two what the picture shows."""
    total = max(memory.ram_pages, 1)
    order = sorted(range(len(memory.kinds.names)), key=lambda kind: -memory.kinds.pages[kind])
    largest = [
        f"{_percent(int(memory.kinds.pages[kind]), total)} is {memory.kinds.names[kind]}"
        for kind in order[:3]
        if memory.kinds.pages[kind]
    ]
    size = human_bytes(total * memory.page_size)
    text = f"Of {size} of RAM, {_enumerate(largest)}."
    mapped = int(memory.kind_degrees[:, 1:].sum())
    shared_by_kind = memory.kind_degrees[:, 2:].sum(axis=1)
    shared = int(shared_by_kind.sum())
    text += f" Processes map {human_bytes(mapped * memory.page_size)} ({_percent(mapped, total)})"
    if not shared:
        return f"{text}, none of it more than once."
    kind = int(shared_by_kind.argmax())
    share = _percent(int(shared_by_kind[kind]), shared)
    amount = human_bytes(shared * memory.page_size)
    return f"{text}, {amount} of it more than once; {share} of that is {memory.kinds.names[kind]}."


def _percent(part: int, whole: int) -> str:
    """Return a share in words that never round something to nothing, or nearly all to all."""
    share = 100 * part / whole
    if 0 < share < 1:
        return "less than 1 %"
    if 99 < share < 100:
        return "over 99 %"
    return f"{share:.0f} %"


def _share(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def _enumerate(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return f"{''.join(parts)}"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _how_to_read(memory: PhysMap, layers: Sequence[str]) -> str:
    cell = short_bytes(memory.cell_pages * memory.page_size)
    row = short_bytes(memory.row_pages * memory.page_size)
    text = f"A cell is {cell} of physical addresses, which run from left to right and then down"
    text += f"; a row is {row}."
    if memory.cell_pages > 1:
        text += (
            " A cell that holds several kinds of pages shows one of them; neighbours take turns,"
            " so each colour covers as much area as there is memory of it."
        )
    if "sharing" in layers:
        text += " The darker a cell in the map of sharing, the more page tables map its pages."
    return text


def _rows(memory: PhysMap, top: int) -> tuple[tuple[float, ...], float]:
    """Return the upper edge of every row, and the height of a row."""
    count = len(memory.row_pfns)
    low, high = _ROW_HEIGHTS
    height = min(max(round(_PANEL_HEIGHT / count), low), high)
    after_gap = _rows_after_gaps(memory)
    ys, y = [], float(top)  # a whole number: edges stay sharp, and distances exact
    for row in range(count):
        if row in after_gap:
            y += _GAP_HEIGHT
        ys.append(y)
        y += height
    return tuple(ys), height


def _rows_after_gaps(memory: PhysMap) -> dict[int, tuple[int, int]]:
    """Return the first row below each gap, with the gap."""
    first = [int(pfn) for pfn in memory.row_pfns]
    breaks = [r for r in range(1, len(first)) if first[r] - first[r - 1] > memory.row_pages]
    return dict(zip(breaks, memory.gaps, strict=True))


def _cells(scene: Scene, panel: _Panel, frame: _Frame, x: float) -> None:
    for row, y in enumerate(frame.ys):
        shown = panel.layer.shown[row * COLUMNS : (row + 1) * COLUMNS].tolist()
        for start, end, category in _runs(shown):
            if category >= 0:
                left, width = x + start * frame.cell_width, (end - start) * frame.cell_width
                scene.add(Rect(left, y, width, frame.row_height, panel.colours[category]))


def _runs(values: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, value) of every run of equal values.

    >>> list(_runs([7, 7, 1]))
    [(0, 2, 7), (2, 3, 1)]
    """
    start = 0
    for at in range(1, len(values) + 1):
        if at == len(values) or values[at] != values[start]:
            yield start, at, values[start]
            start = at


def _axis_width(memory: PhysMap) -> float:
    last = int(memory.row_pfns[-1]) * memory.page_size
    return text_width(hex(last), _AXIS_SIZE, mono=True) + 16


def _axis(scene: Scene, memory: PhysMap, frame: _Frame) -> None:
    """Label rows: hexadecimal addresses at the left, the same in units at the right."""
    step = 1
    while step * frame.row_height < _TICK_DISTANCE:
        step *= 2
    blocks = {0, *_rows_after_gaps(memory)}
    last = -_TICK_DISTANCE
    for row, y in enumerate(frame.ys):
        number = int(memory.row_pfns[row]) // memory.row_pages
        # The first row of a block always has a label; one that would touch it gives way.
        if row not in blocks and (number % step or y - last < _TICK_DISTANCE):
            continue
        last = y
        address = int(memory.row_pfns[row]) * memory.page_size
        left, right = frame.xs[0], frame.right
        scene.add(
            Line(left - 6, y + 0.5, left - 1, y + 0.5, _SOFT),
            Line(right + 1, y + 0.5, right + 6, y + 0.5, _SOFT),
            Text(left - 9, y + 4, hex(address), _AXIS_SIZE, _SOFT, "end", mono=True),
            Text(right + 9, y + 4, short_bytes(address), _AXIS_SIZE, _SOFT),
        )


def _holes(scene: Scene, memory: PhysMap, frame: _Frame) -> None:
    """Say in each gap between rows what is missing there."""
    for row, (start, end) in _rows_after_gaps(memory).items():
        y = frame.ys[row] - _GAP_HEIGHT / 2
        first, last = start * memory.page_size, end * memory.page_size
        text = f"no RAM: {first:#x} to {last:#x} ({short_bytes(last - first)})"
        for x in frame.xs:
            middle, half = x + frame.panel_width / 2, text_width(text, _AXIS_SIZE) / 2 + 6
            scene.add(
                Text(middle, y + 4, text, _AXIS_SIZE, _SOFT, "middle"),
                Line(x, y, middle - half, y, "#bbbbbb"),
                Line(middle + half, y, x + frame.panel_width, y, "#bbbbbb"),
            )


def _legend(scene: Scene, memory: PhysMap, panel: _Panel, frame: _Frame, x: float) -> float:
    """Draw the legend of a panel in two columns; return where it ends."""
    layer = panel.layer
    present = [category for category in range(len(layer.names)) if layer.pages[category]]
    top = frame.bottom + 24
    lines = (len(present) + 1) // 2
    column_width = frame.panel_width / 2
    for place, category in enumerate(present):
        left = x + place // lines * column_width
        y = top + place % lines * _LEGEND_LINE
        pages = int(layer.pages[category])
        size, share = human_bytes(pages * memory.page_size), _share(pages, memory.ram_pages)
        scene.add(
            Rect(left, y, _SWATCH, _SWATCH, panel.colours[category], "#888888"),
            Text(left + 22, y + 11.5, layer.names[category]),
            Text(left + column_width - 86, y + 11.5, size, anchor="end"),
            Text(left + column_width - 22, y + 11.5, share, 13, _SOFT, "end"),
        )
    return top + lines * _LEGEND_LINE


def _pointer_data(memory: PhysMap, panels: Sequence[_Panel], frame: _Frame) -> dict[str, Any]:
    """Return what the page's script needs to describe the cell under the pointer."""
    return {
        "columns": COLUMNS,
        "cell_pages": memory.cell_pages,
        "page_size": memory.page_size,
        "rows": memory.row_pfns.tolist(),
        "panels": [
            {"x": x, "y": frame.ys, "width": frame.cell_width, "height": frame.row_height}
            for x in frame.xs
        ],
        "layers": [
            {"names": layer.names, "cells": [_sparse(counts) for counts in layer.counts.tolist()]}
            for layer in (panel.layer for panel in panels)
        ],
    }


def _sparse(counts: Sequence[int]) -> list[int]:
    """Return category and pages of each category that a cell holds, most pages first."""
    held = sorted((-pages, category) for category, pages in enumerate(counts) if pages)
    return [value for pages, category in held for value in (category, -pages)]
