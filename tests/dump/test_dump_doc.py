# SPDX-License-Identifier: GPL-2.0-only
"""docs/dumps.md says what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmap.query.checks import CHECKS

TEXT = (Path(__file__).parents[2] / "docs" / "dumps.md").read_text(encoding="utf-8")


def test_every_check_is_explained() -> None:
    assert [name for name in CHECKS if f"`{name}`" not in TEXT] == []


def test_every_helper_is_named() -> None:
    pytest.importorskip("drgn", reason="helpers for drgn need drgn")
    from rmap import drgn_helpers

    assert [name for name in drgn_helpers.__all__ if f"`{name}(" not in TEXT] == []
