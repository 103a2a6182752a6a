# SPDX-License-Identifier: GPL-2.0-only
"""Device and inode of a file as ``/proc/PID/maps`` shows them.

On btrfs and overlayfs they differ from what ``stat`` says. The kernel answers best itself: map
the file and read one's own ``maps``.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from rmap.errors import TargetError
from rmap.source.proc.maps import parse_maps


def file_identity(path: str) -> tuple[int, int]:
    """Return (device, inode) of the file at ``path``; device is major << 20 | minor.

    An empty file, or one that cannot be mapped, is looked up by ``stat``.

    Raises
    ------
    TargetError
        If the file does not exist or cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TargetError(f"cannot open {path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        try:
            with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
                found = _identity_of(_address_of(view))
        except (ValueError, OSError):
            found = None
        if found is not None:
            return found
        return os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino
    finally:
        os.close(fd)


def _address_of(view: mmap.mmap) -> int:
    """Return the address at which ``view`` is mapped."""
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _identity_of(address: int) -> tuple[int, int] | None:
    with open("/proc/self/maps", "rb") as maps:
        for line in parse_maps(maps.read()):
            if line.start <= address < line.end:
                return line.device, line.inode
    return None
