# SPDX-License-Identifier: GPL-2.0-only
"""May we see page frame numbers? Asked up front, because the kernel shows zeros instead of no."""

from __future__ import annotations

import mmap
import os

import numpy as np

from rmap.errors import MissingFeatureError, PrivilegeError
from rmap.source.proc.files import Denied
from rmap.source.proc.pagemap import PAGE_SIZE, Pagemap

_ADVICE = (
    "page frame numbers need CAP_SYS_ADMIN in the initial user namespace: run as root (sudo), or "
    "read an image with --image FILE"
)


def require_pfns() -> None:
    """Translate a page of our own, to know that the kernel shows frame numbers.

    Raises
    ------
    PrivilegeError
        If it shows zeros, or refuses.
    MissingFeatureError
        If the kernel has no pagemap, kpagecount or kpageflags.
    """
    for path in ("/proc/self/pagemap", "/proc/kpagecount", "/proc/kpageflags"):
        if not os.path.exists(path):
            raise MissingFeatureError(f"no {path}: the kernel lacks CONFIG_PROC_PAGE_MONITOR")
    with mmap.mmap(-1, PAGE_SIZE) as page:
        page[0] = 1
        address = int(np.frombuffer(page, np.uint8).ctypes.data)
        try:
            with Pagemap(os.getpid()) as pagemap:
                entries = pagemap.read([(address, address + PAGE_SIZE)])
        except Denied:
            raise PrivilegeError(_ADVICE) from None
    if not len(entries.pfns) or not int(entries.pfns[0]):
        raise PrivilegeError(_ADVICE)
    for path in ("/proc/kpagecount", "/proc/kpageflags"):
        try:
            with open(path, "rb") as file:
                file.read(8)
        except PermissionError:
            raise PrivilegeError(f"may not read {path}: {_ADVICE}") from None
