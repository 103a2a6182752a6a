# SPDX-License-Identifier: GPL-2.0-only
"""A scene as SVG: one self-contained element, without scripts or references to elsewhere."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from rmap.draw.scene import Circle, Line, Rect, Scene, Text

_SANS = "DejaVu Sans, Verdana, Arial, sans-serif"
_MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"


def to_svg(scene: Scene) -> str:
    """Return ``scene`` as the text of an SVG file."""
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_number(scene.width)} {_number(scene.height)}",
            "width": _number(scene.width),
            "height": _number(scene.height),
            "font-family": _SANS,
            "role": "img",
        },
    )
    ET.SubElement(root, "title").text = scene.title
    ET.SubElement(root, "desc").text = scene.description
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    group: ET.Element | None = None
    for shape in scene.shapes:
        if isinstance(shape, Rect) and not shape.outline:
            # A map is thousands of rectangles: those of one colour in a row share its mention.
            if group is None or group.get("fill") != shape.fill:
                group = ET.SubElement(
                    root, "g", {"fill": shape.fill, "shape-rendering": "crispEdges"}
                )
            ET.SubElement(group, "rect", _box(shape))
        else:
            group = None
            _add(root, shape)
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _add(root: ET.Element, shape: Rect | Line | Text | Circle) -> None:
    if isinstance(shape, Text):
        _add_text(root, shape)
    elif isinstance(shape, Circle):
        _add_circle(root, shape)
    elif isinstance(shape, Line):
        ends = {"x1": shape.x1, "y1": shape.y1, "x2": shape.x2, "y2": shape.y2}
        style = {"stroke": shape.colour, "stroke-width": _number(shape.width)}
        ET.SubElement(root, "line", {k: _number(v) for k, v in ends.items()} | style)
    else:
        inner = Rect(shape.x + 0.5, shape.y + 0.5, shape.width - 1, shape.height - 1, shape.fill)
        ET.SubElement(root, "rect", _box(inner) | {"fill": shape.fill, "stroke": shape.outline})


def _add_circle(root: ET.Element, shape: Circle) -> None:
    inner = shape.radius - (shape.width / 2 if shape.outline else 0)
    style = {"cx": shape.x, "cy": shape.y, "r": inner}
    border = (
        {"stroke": shape.outline, "stroke-width": _number(shape.width)} if shape.outline else {}
    )
    numbers = {name: _number(length) for name, length in style.items()}
    ET.SubElement(root, "circle", numbers | {"fill": shape.fill} | border)


def _box(shape: Rect) -> dict[str, str]:
    lengths = {"x": shape.x, "y": shape.y, "width": shape.width, "height": shape.height}
    return {name: _number(length) for name, length in lengths.items()}


def _add_text(root: ET.Element, shape: Text) -> None:
    style = {
        "x": _number(shape.x),
        "y": _number(shape.y),
        "font-size": _number(shape.size),
        "fill": shape.colour,
    }
    if shape.anchor != "start":
        style["text-anchor"] = shape.anchor
    if shape.bold:
        style["font-weight"] = "bold"
    if shape.mono:
        style["font-family"] = _MONO
    ET.SubElement(root, "text", style).text = shape.text


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
