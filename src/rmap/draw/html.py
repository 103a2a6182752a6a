# SPDX-License-Identifier: GPL-2.0-only
"""A scene as one HTML page: the SVG, and a few lines of script that tell what is under the mouse.

The page loads nothing and sends nothing. Its data stand in it as JSON, in which ``<`` is escaped,
so no name can end the element that holds it.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from rmap.draw.scene import Scene
from rmap.draw.svg import to_svg

_STYLE = """
body { margin: 1rem; background: #fff; color: #1a1a1a; font: 14px sans-serif; }
svg { max-width: 100%; height: auto; }
#tip { position: fixed; display: none; padding: .5rem .7rem; background: #fff; font-size: 13px;
       border: 1px solid #555; box-shadow: 2px 2px 6px #0003; white-space: pre;
       pointer-events: none; font-family: monospace; }
"""

# A panel is {x, y: [top of each row], columns, width, height}; a cell's lines are made from
# counts of pages: [category, pages, ...] for each layer.
_SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const svg = document.querySelector("svg"), tip = document.getElementById("tip");
const hex = (n) => "0x" + n.toString(16);
const units = ["B", "KiB", "MiB", "GiB", "TiB"];
function human(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit++; }
  return (unit ? bytes.toFixed(1) : bytes) + " " + units[unit];
}
function describe(cell) {
  const first = (data.rows[Math.floor(cell / data.columns)]
                 + (cell % data.columns) * data.cell_pages) * data.page_size;
  const lines = [hex(first) + " - " + hex(first + data.cell_pages * data.page_size)];
  for (const layer of data.layers) {
    lines.push("");
    const held = layer.cells[cell];
    for (let i = 0; i < held.length; i += 2)
      lines.push(layer.names[held[i]].padEnd(24)
                 + human(held[i + 1] * data.page_size).padStart(10));
    if (!held.length) lines.push("no RAM");
  }
  return lines.join("\\n");
}
function find(x, y) {
  for (const panel of data.panels) {
    const column = Math.floor((x - panel.x) / panel.width);
    const row = panel.y.findIndex((top) => y >= top && y < top + panel.height);
    if (column >= 0 && column < data.columns && row >= 0) return row * data.columns + column;
  }
  return -1;
}
svg.addEventListener("mousemove", (event) => {
  const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
  const cell = find((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  tip.style.display = cell < 0 ? "none" : "block";
  if (cell < 0) return;
  tip.textContent = describe(cell);
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
});
svg.addEventListener("mouseleave", () => { tip.style.display = "none"; });
"""


def to_html(scene: Scene, data: dict[str, Any]) -> str:
    """Return a page with ``scene`` and, for its script, ``data`` about what lies where."""
    safe = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{escape(scene.title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f'{to_svg(scene)}<div id="tip"></div>\n'
        f'<script type="application/json" id="data">{safe}</script>\n'
        f"<script>{_SCRIPT}</script>\n</body></html>\n"
    )
