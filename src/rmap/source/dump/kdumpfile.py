# SPDX-License-Identifier: GPL-2.0-only
"""Kdump-compressed dumps as QEMU writes them, made such that libkdumpfile opens them.

They come in makedumpfile's flattened format, which is for pipes: a header, then pieces, each with
its offset in the file that they make. And the header of that file names the architecture only,
which libkdumpfile believes only if the rest of the utsname is there too.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rmap.errors import ImageError

_SIGNATURE = b"makedumpfile\0\0\0\0"
_HEADER = 4096
_KDUMP = b"KDUMP   "
#: Where the header of a kdump-compressed file has its utsname: six fields of 65 bytes.
_UTSNAME, _FIELD, _FIELDS = 12, 65, 6
_NAMES = (b"Linux", b"(none)", b"(unknown)", b"(unknown)")
_PIECE = struct.Struct(">qq")
_END = -1
_CHUNK = 1 << 20
#: A dump is not larger than the memory that a machine can have.
_LARGEST = 1 << 52


def _begins_with(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def is_anonymous(path: Path) -> bool:
    """Whether it is a kdump-compressed file whose header names no system but an architecture."""
    with path.open("rb") as file:
        header = file.read(_UTSNAME + _FIELD * _FIELDS)
    return header.startswith(_KDUMP) and not header[_UTSNAME] and len(header) > _UTSNAME


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A file that can be opened: this one, or a temporary one with pieces and names in place.

    The temporary file has no name any more when this returns; whoever has opened it keeps it.
    Raises ``ImageError`` if the pieces make no sense, ``OSError`` without such a file, or room.
    """
    flattened = _begins_with(path, _SIGNATURE)
    if not flattened and not is_anonymous(path):
        yield path
        return
    handle, name = tempfile.mkstemp(prefix="rmap-", suffix=".vmcore")
    try:
        with os.fdopen(handle, "wb") as target, path.open("rb") as source:
            if flattened:
                _place(source, target, path)
            else:
                shutil.copyfileobj(source, target, _CHUNK)
        if is_anonymous(Path(name)):
            _give_names(Path(name))
        yield Path(name)
    finally:
        os.unlink(name)


def _give_names(path: Path) -> None:
    """Fill the fields of the header's utsname that stand before the machine's."""
    with path.open("r+b") as file:
        for number, text in enumerate(_NAMES):
            file.seek(_UTSNAME + number * _FIELD)
            file.write(text)


def _place(source: BinaryIO, target: BinaryIO, path: Path) -> None:
    """Write each piece to its offset."""
    source.seek(_HEADER)
    while True:
        head = source.read(_PIECE.size)
        if len(head) < _PIECE.size:
            raise ImageError(f"{path}: a flattened dump that is cut short")
        offset, size = _PIECE.unpack(head)
        if offset == _END:
            return
        if not (0 <= offset <= _LARGEST and 0 < size <= _LARGEST):
            raise ImageError(f"{path}: a flattened dump with a piece of {size} bytes at {offset}")
        target.seek(offset)
        while size:
            data = source.read(min(size, _CHUNK))
            if not data:
                raise ImageError(f"{path}: a flattened dump that is cut short")
            target.write(data)
            size -= len(data)
