# SPDX-License-Identifier: GPL-2.0-only
"""Files that are in the page cache and that nobody maps, by name."""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.query.spots import Spots

PAGE = 4096


def unmapped(image: MemoryImage) -> list[int]:
    """Rows of pages of files that nobody maps."""
    pages = image.pages
    return np.flatnonzero((pages["file"] >= 0) & (pages["mapcount"] == 0)).tolist()


def test_cached_files_have_names_and_places(image: MemoryImage) -> None:
    """The guest's initramfs has a program of which nobody maps all pages."""
    pages, files = image.pages, image.files
    rows = unmapped(image)
    paths = {str(files["path"][int(pages["file"][row])]) for row in rows}
    assert "/bin/busybox" in paths
    busybox = [row for row in rows
               if files["path"][int(pages["file"][row])] == "/bin/busybox"]  # fmt: skip
    # Each page of a file is in the cache once.
    places = [int(pages["index"][row]) for row in busybox]
    assert len(places) == len(set(places)) > 20


def test_a_text_in_a_cached_file_is_told_its_place(image: MemoryImage) -> None:
    rows = unmapped(image)[:50]
    frames = image.pages["pfn"][rows]
    for row, spot in zip(rows, Spots(image).explain(frames), strict=True):
        assert spot.mappings == ()
        path = str(image.files["path"][int(image.pages["file"][row])])
        assert spot.path == (path or "(no name)")
        assert spot.offset == int(image.pages["index"][row]) * PAGE
