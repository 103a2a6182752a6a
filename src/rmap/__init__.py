# SPDX-License-Identifier: GPL-2.0-only
"""Linux's reverse mapping: given a physical page, who maps it, and where.

Two nouns carry the package. A *memory image* says what a machine's memory looked like at one
moment; the live machine, a crash dump and a file each give one, and questions are asked of it.
A *machine* is the executable model of ``mm/rmap.c`` (v4.18), which acts.

Part of the package may be compiled. Which half runs is decided here, before any other module of
the package is imported: see :mod:`rmap._modes`.
"""

from __future__ import annotations

from rmap import _modes

__version__ = "0.1.0"

_modes.install()


def version_line() -> str:
    """What ``rmap --version`` prints.

    >>> version_line()  # doctest: +SKIP
    'rmap 0.1.0 (compiled core: 12 modules)'
    """
    return f"rmap {__version__} ({_modes.describe()})"
