# SPDX-License-Identifier: GPL-2.0-only
"""May we see page frame numbers? Asked up front, because the kernel shows zeros instead of no."""

from __future__ import annotations

import mmap
import os

import numpy as np

from rmap.errors import MissingFeatureError, PrivilegeError
from rmap.source.proc.entries import PAGE_SIZE, PM_FRAME
from rmap.source.proc.files import Denied
from rmap.source.proc.kpage import KPAGECOUNT, KPAGEFLAGS
from rmap.source.proc.pagemap import Pagemap

_ADVICE = (
    "page frame numbers need CAP_SYS_ADMIN in the initial user namespace: run as root (sudo), or "
    "read an image with --image FILE"
)


def require_pfns() -> None:
    """Translate a page of our own, to know that the kernel shows frame numbers.

    Capabilities are not asked: root of a user namespace has all of them, and still sees zeros.

    Raises
    ------
    PrivilegeError
        If it shows zeros, or refuses.
    MissingFeatureError
        If the kernel has no pagemap, kpagecount or kpageflags.
    """
    for path in ("/proc/self/pagemap", KPAGECOUNT, KPAGEFLAGS):
        if not os.path.exists(path):
            raise MissingFeatureError(
                f"there is no {path}: /proc is not mounted, or the kernel was built without "
                "CONFIG_PROC_PAGE_MONITOR"
            )
    try:
        own = _own_frame()
    except Denied:
        own = 0
    if not own:
        raise PrivilegeError(_ADVICE)
    for path in (KPAGECOUNT, KPAGEFLAGS):
        try:
            with open(path, "rb", buffering=0) as file:
                file.read(8)
        except PermissionError:
            raise PrivilegeError(f"may not read {path}: {_ADVICE}") from None


def _own_frame() -> int:
    """Return the frame number that the kernel shows of a page that is certainly there."""
    with mmap.mmap(-1, PAGE_SIZE) as page:
        page[0] = 1
        address = int(np.frombuffer(page, np.uint8).ctypes.data)
        with Pagemap(os.getpid(), buffer=np.empty(1, np.uint64)) as pagemap:
            entries = pagemap.read([(address, address + PAGE_SIZE)])
    return int(entries.words[0] & PM_FRAME) if len(entries) else 0
