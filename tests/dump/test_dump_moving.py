# SPDX-License-Identifier: GPL-2.0-only
"""Memory on the move: what migration adds to the references of an anon_vma is no leak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Pte
from rmap.query.fsck import fsck


def changed(image: MemoryImage, name: str, column: str, values: Any) -> MemoryImage:
    """The image with another column in one table."""
    table = image.tables[name]
    columns = {one: table[one] for one in table.column_names}
    columns[column] = values
    return MemoryImage({**image.tables, name: Table(TABLES[name], columns)})


@pytest.mark.parametrize(("extra", "findings"), [(0, 0), (1, 0), (2, 1)])
def test_a_reference_for_each_page_that_moves(
    image: MemoryImage, extra: int, findings: int
) -> None:
    """Five pages of one anon_vma are under migration, and `extra` others use it besides."""
    owner = image.pages["anon_vma"]
    small = image.ptes["pfn"][image.ptes["order"] == 0]
    once = np.flatnonzero(
        (owner >= 0) & (image.pages["mapcount"] == 1) & np.isin(image.pages["pfn"], small)
    )
    family = int(np.bincount(owner[once]).argmax())
    frames = image.pages["pfn"][once[owner[once] == family]][:5]
    assert len(frames) == 5
    flags = image.ptes["flags"].copy()
    moving = np.isin(image.ptes["pfn"], frames) & (image.ptes["order"] == 0)
    assert moving.sum() == 5
    flags[moving] = np.uint32(Pte.MIGRATION)
    refcount = image.tables["anon_vmas"]["refcount"].copy()
    refcount[family] += 5 + extra

    said = changed(changed(image, "ptes", "flags", flags), "anon_vmas", "refcount", refcount)
    assert fsck(said, checks=["anon_vma"]).total == findings
    # Nothing moves: then so many references are too many.
    still = changed(image, "anon_vmas", "refcount", refcount)
    assert fsck(still, checks=["anon_vma"]).total == 1
