# SPDX-License-Identifier: GPL-2.0-only
"""The file that most processes share: a good first thing to ask about."""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage


def most_mapped_file(image: MemoryImage) -> str | None:
    """Return the path of the file that the most address spaces map, None if none is mapped.

    Of several, the first by path. That is nearly always the C library or its loader.

    >>> most_mapped_file(MemoryImage({})) is None
    True
    """
    vmas = image.vmas
    of_files = vmas["file"] >= 0
    pairs = np.unique(np.stack((vmas["file"][of_files], vmas["mm"][of_files])), axis=1)
    if not pairs.size:
        return None
    users = np.bincount(pairs[0], minlength=len(image.files))
    best = np.flatnonzero(users == users.max())
    return min(str(path) for path in image.files["path"][best])
