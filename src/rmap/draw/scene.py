# SPDX-License-Identifier: GPL-2.0-only
"""A drawing as a list of shapes, which every writer can draw.

Lengths are in CSS pixels, the origin is the upper left corner, a text is placed by its baseline.
The fonts of a reader are not known, so widths of text are estimated (:func:`text_width`) on the
wide side, and layouts leave room accordingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

#: Mean advance of a wide sans-serif face (DejaVu Sans, Verdana) over its size.
_ADVANCE = 0.62
_ADVANCE_MONO = 0.605


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled rectangle; ``outline`` is the colour of a thin border inside it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    outline: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text."""

    x: float
    y: float
    text: str
    size: float = 13.0
    colour: str = "#1a1a1a"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False
    mono: bool = False


@dataclass(frozen=True, slots=True)
class Circle:
    """A filled circle by its centre; ``outline`` is the colour of a border inside it."""

    x: float
    y: float
    radius: float
    fill: str
    outline: str = ""
    width: float = 1.0


Shape = Rect | Line | Text | Circle


@dataclass(slots=True)
class Scene:
    """A drawing: its size, its title and description in words, and its shapes, back to front."""

    width: float
    height: float
    title: str
    description: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Put shapes on top of those that are there."""
        self.shapes.extend(shapes)


def text_width(text: str, size: float, *, mono: bool = False) -> float:
    """Return about how wide a text is, in pixels; rather too wide."""
    return len(text) * size * (_ADVANCE_MONO if mono else _ADVANCE)


def wrap(text: str, size: float, width: float) -> Sequence[str]:
    """Break a text at blanks into lines that fit into ``width`` pixels.

    >>> wrap("one two three", 10, 60)
    ['one two', 'three']
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
