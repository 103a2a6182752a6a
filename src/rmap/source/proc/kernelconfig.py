# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel's configuration, where it is published."""

from __future__ import annotations

import gzip
import os
from functools import cache


@cache
def kernel_config() -> bytes | None:
    """Return the text of the configuration: ``/proc/config.gz``, else ``/boot/config-RELEASE``.

    None if neither can be read: nothing but guesses depends on it.
    """
    try:
        with gzip.open("/proc/config.gz", "rb") as packed:
            return packed.read()
    except OSError:
        pass
    try:
        with open(f"/boot/config-{os.uname().release}", "rb") as plain:
            return plain.read()
    except OSError:
        return None


def keeps_page_mapcounts(config: bytes | None) -> bool:
    """Whether the kernel counts the mappings of every page of a large folio.

    With CONFIG_NO_PAGE_MAPCOUNT (since 6.15, experimental) ``kpagecount`` shows an average over
    the folio. Where the configuration is not known, the usual one is assumed.

    >>> keeps_page_mapcounts(b"CONFIG_NO_PAGE_MAPCOUNT=y\\n")
    False
    """
    return config is None or b"\nCONFIG_NO_PAGE_MAPCOUNT=y\n" not in b"\n" + config
