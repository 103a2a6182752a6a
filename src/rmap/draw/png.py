# SPDX-License-Identifier: GPL-2.0-only
"""A scene as PNG, drawn by Pillow at twice the size, so that text is sharp on any screen."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

from rmap.draw.scene import Circle, Line, Rect, Scene, Text
from rmap.errors import MissingFeatureError

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

SCALE = 2
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def to_png(scene: Scene) -> bytes:
    """Return ``scene`` as the bytes of a PNG file.

    Raises
    ------
    MissingFeatureError
        If Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingFeatureError(
            "PNG pictures need Pillow: pip install Pillow, or write .svg or .html"
        ) from None
    size = (round(scene.width * SCALE), round(scene.height * SCALE))
    picture = Image.new("RGB", size, "#ffffff")
    draw = ImageDraw.Draw(picture)
    for shape in scene.shapes:
        if isinstance(shape, Rect):
            _rectangle(draw, shape)
        elif isinstance(shape, Line):
            ends = [round(v * SCALE) for v in (shape.x1, shape.y1, shape.x2, shape.y2)]
            draw.line(ends, fill=shape.colour, width=round(shape.width * SCALE))
        elif isinstance(shape, Circle):
            _circle(draw, shape)
        else:
            _text(draw, shape)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def _rectangle(draw: ImageDraw.ImageDraw, shape: Rect) -> None:
    left, top = round(shape.x * SCALE), round(shape.y * SCALE)
    right, bottom = round((shape.x + shape.width) * SCALE), round((shape.y + shape.height) * SCALE)
    if right > left and bottom > top:  # Pillow's rectangles include their last pixel
        box = (left, top, right - 1, bottom - 1)
        draw.rectangle(box, shape.fill, shape.outline or None, SCALE if shape.outline else 0)


def _circle(draw: ImageDraw.ImageDraw, shape: Circle) -> None:
    box = [
        (centre + side * shape.radius) * SCALE for side in (-1, 1) for centre in (shape.x, shape.y)
    ]
    width = round(shape.width * SCALE) if shape.outline else 0
    draw.ellipse(box, shape.fill, shape.outline or None, width)


def _text(draw: ImageDraw.ImageDraw, shape: Text) -> None:
    position = (shape.x * SCALE, shape.y * SCALE)
    # The one face that Pillow brings has no bold: a thin stroke in the same colour thickens it.
    stroke = SCALE * 0.2 if shape.bold else 0
    draw.text(
        position,
        shape.text,
        fill=shape.colour,
        font=_font(shape.size * SCALE),
        anchor=_ANCHORS[shape.anchor],
        stroke_width=stroke,
    )


@cache
def _font(size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
