# SPDX-License-Identifier: GPL-2.0-only
"""Write which function of mm/rmap.c needs and takes which locks: ``python tools/locks_doc.py``.

The docstring of each says it in a paragraph that begins with ``Locks:``. From these the table in
``docs/reading-rmap.md`` is made; a test compares.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import rmap.mm
from rmap.mm.rmap import LISTING

PATH = Path(__file__).resolve().parent.parent / "docs" / "reading-rmap.md"
MODEL = Path(rmap.mm.__path__[0])
BEGIN, END = "<!-- locks: by tools/locks_doc.py -->\n", "<!-- end of locks -->\n"
PARAGRAPH = re.compile(r"^Locks: (.+?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def docstring(name: str, module: str) -> str:
    """What is said of a function of the listing. A callback is a method, which names it first.

    Raises `LookupError` if there is no such function or it has no docstring.
    """
    tree = ast.parse((MODEL / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if text and (node.name == name or text.startswith(f"{name}():")):
                return text
    raise LookupError(f"{module}.py: {name}() has no docstring")


def locks(name: str, module: str) -> str:
    """What the docstring of a function says of locks, in one line; empty if nothing."""
    found = PARAGRAPH.search(docstring(name, module))
    return " ".join(found[1].split()) if found else ""


def table() -> str:
    """The rows, in the order of the listing."""
    lines = ["| line | function | locks |", "|---|---|---|"]
    lines += [f"| {line} | `{name}` | {locks(name, module)} |" for line, name, module in LISTING]
    return "\n".join(lines) + "\n"


def document(text: str) -> str:
    """A text with the table between its two marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PATH.write_text(document(PATH.read_text(encoding="utf-8")), encoding="utf-8")
