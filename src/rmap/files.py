# SPDX-License-Identifier: GPL-2.0-only
"""Writing files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

from rmap.errors import RmapError


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` aside and rename it to ``path``.

    What is there and is no regular file (a terminal, a pipe) is written to directly.

    Raises
    ------
    RmapError
        If it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise RmapError(f"cannot write {path}: {error.strerror or error}") from error
