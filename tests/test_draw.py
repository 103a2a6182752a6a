# SPDX-License-Identifier: GPL-2.0-only
"""Pictures of memory: what is drawn where, that it overlaps nothing, and that files are valid."""

from __future__ import annotations

import io
import json
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from machines import Builder, small_machine
from PIL import Image

from rmap.draw import palette
from rmap.draw.html import to_html
from rmap.draw.memory import draw_memory
from rmap.draw.png import SCALE, to_png
from rmap.draw.scene import Rect, Scene, Text, text_width
from rmap.draw.svg import to_svg
from rmap.image import MemoryImage
from rmap.query.physmap import COLUMNS, physmap

GIB = 1 << 18
RAM = {
    "small": [(0x0, 0x100), (0x200, 0x500)],
    "1 GiB": [(1, 0x9F), (0x100, GIB)],
    "24 GiB": [(1, 0x9F), (0x100, 3 * GIB), (4 * GIB, 25 * GIB)],
    "64 GiB, two nodes": [(1, 3 * GIB), (4 * GIB, 33 * GIB), (64 * GIB, 96 * GIB)],
    "16 pieces": [(at * GIB, at * GIB + GIB // 4) for at in range(0, 32, 2)],
}


def machine(name: str) -> MemoryImage:
    """An image of that size; all but the small one know only where RAM is."""
    return small_machine() if name == "small" else Builder().build(RAM[name], scope="processes")


def drawn(name: str, layers: tuple[str, ...] = ("kind", "sharing")) -> Scene:
    """The scene for a machine of that size."""
    image = machine(name)
    return draw_memory(image, physmap(image), layers)[0]


def box(text: Text) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text, as wide as a wide font would set it."""
    width = text_width(text.text, text.size, mono=text.mono)
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, text.y - text.size * 0.75, left + width, text.y + text.size * 0.25


@pytest.mark.parametrize("layers", [("kind", "sharing"), ("kind",), ("sharing",)])
@pytest.mark.parametrize("name", RAM)
def test_texts_overlap_nothing_and_stay_inside(name: str, layers: tuple[str, ...]) -> None:
    scene = drawn(name, layers)
    boxes = [(text.text, *box(text)) for text in scene.shapes if isinstance(text, Text)]
    for _, left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= scene.width
        assert bottom <= scene.height
    for (a, l1, t1, r1, b1), (b, l2, t2, r2, b2) in combinations(boxes, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1, f"{a!r} overlaps {b!r}"
    for rect in (shape for shape in scene.shapes if isinstance(shape, Rect)):
        for text, left, top, right, bottom in boxes:
            apart = right <= rect.x or left >= rect.x + rect.width
            assert apart or bottom <= rect.y or top >= rect.y + rect.height, text


@pytest.mark.parametrize("name", RAM)
def test_texts_are_legible(name: str) -> None:
    assert min(shape.size for shape in drawn(name).shapes if isinstance(shape, Text)) >= 11


def test_cells_lie_where_their_addresses_are() -> None:
    image = small_machine()
    memory = physmap(image)
    scene, data = draw_memory(image, memory, ["kind"])
    (panel,) = data["panels"]
    for cell, category in enumerate(memory.kinds.shown.tolist()):
        x = panel["x"] + (cell % COLUMNS + 0.5) * panel["width"]
        y = panel["y"][cell // COLUMNS] + panel["height"] / 2
        hits = [
            shape.fill
            for shape in scene.shapes
            if isinstance(shape, Rect)
            and shape.x <= x < shape.x + shape.width
            and shape.y <= y < shape.y + shape.height
        ]
        name = memory.kinds.names[category]
        assert hits == ([] if category < 0 else [palette.kind_colour(name)])


@pytest.mark.parametrize("name", ["1 GiB", "24 GiB"])
def test_addresses_stand_at_even_steps(name: str) -> None:
    hexes = [
        int(shape.text, 16)
        for shape in drawn(name).shapes
        if isinstance(shape, Text) and re.fullmatch(r"0x[0-9a-f]+", shape.text)
    ]
    above = [address for address in hexes if address >= 1 << 32] or hexes  # beyond the hole
    assert len(above) > 8
    assert len({b - a for a, b in pairwise(above)}) == 1


def test_the_legend_accounts_for_every_page() -> None:
    image = small_machine()
    scene, _ = draw_memory(image, physmap(image), ["sharing"])
    shares = [
        float(match[1])
        for shape in scene.shapes
        if isinstance(shape, Text) and (match := re.fullmatch(r"([\d.]+) %", shape.text))
    ]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_holes_are_named_with_their_addresses() -> None:
    texts = [shape.text for shape in drawn("24 GiB").shapes if isinstance(shape, Text)]
    assert texts.count("no RAM: 0xc0000000 to 0x100000000 (1 GiB)") == 2  # one in each panel


def test_the_sentence_says_what_is_there() -> None:
    scene = drawn("small")
    assert "Of 4.0 MiB of RAM" in scene.description
    assert "of it more than once" in scene.description
    assert "A cell is 4 KiB" in scene.description


def test_svg_is_valid_and_refers_to_nothing() -> None:
    text = to_svg(drawn("small"))
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "href" not in text
    assert "script" not in text
    assert text == to_svg(drawn("small"))  # the same image, the same bytes


def test_a_hostile_kernel_release_breaks_no_file() -> None:
    image = small_machine()
    image.machine["kernel_release"][0] = "</svg>\x00<script>\x1b&"
    scene, data = draw_memory(image, physmap(image), ["kind"])
    assert "<script>\\x1b&" in (ET.fromstring(to_svg(scene))[0].text or "")
    assert to_html(scene, data).count("<script>") == 1


def test_html_carries_the_pages_of_every_cell() -> None:
    image = small_machine()
    memory = physmap(image)
    scene, data = draw_memory(image, memory, ["kind", "sharing"])
    page = to_html(scene, data)
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org)", page)
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    for layer, told in zip((memory.kinds, memory.sharing), json.loads(text)["layers"], strict=True):
        counts = np.zeros_like(layer.counts)
        for cell, held in enumerate(told["cells"]):
            counts[cell, held[::2]] = held[1::2]
        assert (counts == layer.counts).all()


def test_png_has_the_size_and_the_colours() -> None:
    scene = drawn("small")
    with Image.open(io.BytesIO(to_png(scene))) as picture:
        assert picture.size == (round(scene.width * SCALE), round(scene.height * SCALE))
        cells = [shape for shape in scene.shapes if isinstance(shape, Rect)]
        for cell in cells:
            middle = ((cell.x + cell.width / 2) * SCALE, (cell.y + cell.height / 2) * SCALE)
            assert "#{:02x}{:02x}{:02x}".format(*picture.getpixel(middle)) == cell.fill


def lightness(colour: str) -> float:
    """Relative luminance of a colour (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_more_sharing_is_darker() -> None:
    steps = [lightness(colour) for colour in palette.DEGREE_COLOURS]
    assert steps == sorted(steps, reverse=True)
    assert all(a > b * 1.15 for a, b in pairwise(steps))
