# SPDX-License-Identifier: GPL-2.0-only
"""What a page-table entry that is not present means: swapped, under migration, poisoned, a marker.

All of them are shaped like swap entries: a type of 5 bits and an offset. The lower types are
swap areas; the topmost ones are taken away for other uses, and how many depends on the kernel's
configuration (``include/linux/swap.h``). From the top::

    1 type         a page that could not be read back, 5.19 to 6.1; later a marker
    1 type         a marker (guard region, uffd-wp, poison): since 6.2 always, before that since
                   5.19 with CONFIG_PTE_MARKER
    2 to 4 types   device memory, with CONFIG_DEVICE_PRIVATE: 2, since 5.14 4, since 6.15 3
    2 or 3 types   migration, with CONFIG_MIGRATION: since 5.19 3
    1 type         hardware poison, with CONFIG_MEMORY_FAILURE
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Pte

TYPE_BITS = 5
_TYPES = 1 << TYPE_BITS
#: Without knowledge of the configuration: what distributions build.
_DEFAULTS = {
    "CONFIG_DEVICE_PRIVATE": True,
    "CONFIG_MIGRATION": True,
    "CONFIG_MEMORY_FAILURE": True,
    "CONFIG_PTE_MARKER": True,
}


def version_of(release: str) -> tuple[int, int]:
    """Return the version in a kernel release, (0, 0) if it has none.

    >>> version_of("6.18.44-fc-v595")
    (6, 18)
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def flags_of_types(release: str, config: bytes | None) -> npt.NDArray[np.uint32]:
    """Return for each of the 32 types the Pte flag that it means.

    Parameters
    ----------
    release
        As ``uname -r`` prints it.
    config
        The kernel's configuration, None unknown.

    A marker's flag is 0: what it marks is in the entry's other bits.

    >>> table = flags_of_types("6.18", b"CONFIG_MIGRATION=y\\n")
    >>> [Pte(int(table[t])).name for t in (0, 27, 28, 30)]
    ['SWAP', 'SWAP', 'MIGRATION', 'MIGRATION']
    """

    def has(option: str) -> bool:
        if config is None:
            return _DEFAULTS[option]
        return f"\n{option}=y\n".encode() in b"\n" + config

    table = np.full(_TYPES, int(Pte.SWAP), np.uint32)
    top = _TYPES
    # A release that says nothing is taken for a recent one.
    version = version_of(release) if version_of(release) > (0, 0) else (6, 12)
    device = 3 if version >= (6, 15) else 4 if version >= (5, 14) else 2
    first_markers = (5, 19) <= version <= (6, 1)
    marker = has("CONFIG_PTE_MARKER") if first_markers else version >= (6, 2)
    for flag, count in (
        (0, int(first_markers)),
        (0, int(marker)),
        (int(Pte.DEVICE), device if has("CONFIG_DEVICE_PRIVATE") else 0),
        (int(Pte.MIGRATION), (3 if version >= (5, 19) else 2) if has("CONFIG_MIGRATION") else 0),
        (int(Pte.HWPOISON), 1 if has("CONFIG_MEMORY_FAILURE") else 0),
    ):
        table[top - count : top] = flag
        top -= count
    return table
