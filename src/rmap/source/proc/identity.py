# SPDX-License-Identifier: GPL-2.0-only
"""Device and inode of a file as ``/proc/PID/maps`` shows them.

On btrfs and overlayfs they differ from what ``stat`` says. The kernel answers best itself: map
the file and read one's own ``maps``.
"""

from __future__ import annotations

import mmap
import os
import stat

import numpy as np

from rmap.errors import PrivilegeError, TargetError
from rmap.source.proc.maps import parse_maps


def file_identity(path: str) -> tuple[int, int]:
    """Return (device, inode) of the file at ``path``; device is major << 20 | minor.

    A file that cannot be mapped (an empty one, a directory) and a device are looked up by
    ``stat``: opening a device could have effects.

    Raises
    ------
    TargetError
        If there is no such file.
    PrivilegeError
        If it may not be opened.

    >>> file_identity("/dev/null")[1] == os.stat("/dev/null").st_ino
    True
    """
    try:
        status = os.stat(path)
        mapped = _mapped_identity(path) if stat.S_ISREG(status.st_mode) else None
    except PermissionError:
        raise PrivilegeError(f"may not open {path}: run as its owner or as root") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TargetError(f"cannot open {path!r}: {reason}") from None
    if mapped is not None:
        return mapped
    return os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino


def _mapped_identity(path: str) -> tuple[int, int] | None:
    """Map the first page and look it up; None if the file cannot be mapped."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not os.fstat(fd).st_size:
            return None
        try:
            view = mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_READ)
        except (ValueError, OSError):
            return None
        with view:
            return _identity_at(int(np.frombuffer(view, np.uint8).ctypes.data))
    finally:
        os.close(fd)


def _identity_at(address: int) -> tuple[int, int] | None:
    with open("/proc/self/maps", "rb") as maps:
        for line in parse_maps(maps.read()):
            if line.start <= address < line.end:
                return line.device, line.inode
    return None
