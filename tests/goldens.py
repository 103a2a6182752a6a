# SPDX-License-Identifier: GPL-2.0-only
"""Golden files: what a command printed when somebody last looked at it and found it right.

``pytest --update-golden`` writes them anew; ``git diff`` then shows what changed.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).with_name("golden")


class Golden:
    """Compares outputs with golden files, or replaces these."""

    def __init__(self, *, update: bool) -> None:
        self.update = update

    def check_same(self, name: str, actual: str) -> None:
        """Assert that ``actual`` is what the golden file ``name`` holds."""
        path = DIRECTORY / name
        if self.update:
            DIRECTORY.mkdir(exist_ok=True)
            path.write_text(actual, encoding="utf-8")
            return
        assert path.is_file(), f"no golden file {path}: run pytest --update-golden"
        expected = path.read_text(encoding="utf-8")
        assert actual == expected, f"{name} differs; if it is right: pytest --update-golden"
