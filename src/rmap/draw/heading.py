# SPDX-License-Identifier: GPL-2.0-only
"""The top of every picture: a title, what one sees in a sentence, and how to read it."""

from __future__ import annotations

from rmap.draw.scene import Scene, Text, wrap

_SOFT = "#555555"


def heading(scene: Scene, sentence: str, reading: str, margin: float) -> float:
    """Write the scene's title and two texts at its top; return where they end."""
    y = margin + 14
    scene.add(Text(margin, y, scene.title, 19, bold=True))
    y += 10
    room = scene.width - 2 * margin
    for text, size, colour in ((sentence, 15.0, "#1a1a1a"), (reading, 13.0, _SOFT)):
        for line in wrap(text, size, room):
            y += size * 1.4
            scene.add(Text(margin, y, line, size, colour))
        y += 5
    return y + 8
