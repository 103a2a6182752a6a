# SPDX-License-Identifier: GPL-2.0-only
"""The lines of ``/proc/PID/maps``.

::

    55d0c0a00000-55d0c0a21000 rw-p 00001000 fe:00 1234    /usr/bin/cat
    start        end          perm offset   dev   inode   name

The name is a file's path if the inode is not 0, with ``\\012`` for a newline in it and
`` (deleted)`` behind it if it has no name any more. With inode 0 it is one of the kernel's own
names (``[heap]``, ``[stack]``, ``[vdso]``, ``[anon:...]``) or empty. A file may be called
``[heap]`` or ``1000-2000``; only the inode tells. Shared anonymous memory looks like a deleted
file: ``/dev/zero (deleted)``, with an inode.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from rmap.errors import MissingFeatureError
from rmap.image.flags import VM_LETTERS, Vm

_RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_DELETED = b" (deleted)"
#: The vsyscall page belongs to the kernel's half and is in no process's page table.
_USER_END = 1 << 63
_PERMISSIONS = {
    letters.encode(): int(
        (Vm.READ if letters[0] == "r" else 0)
        | (Vm.WRITE if letters[1] == "w" else 0)
        | (Vm.EXEC if letters[2] == "x" else 0)
        | (Vm.SHARED | Vm.MAYSHARE if letters[3] == "s" else 0)
    )
    for letters in (f"{r}{w}{x}{s}" for r in "r-" for w in "w-" for x in "x-" for s in "sp")
}


class MapsLine(NamedTuple):
    """One VMA as ``maps`` shows it: addresses, VM_ flags, offset in bytes, file, name."""

    start: int
    end: int
    flags: int
    offset: int
    device: int
    inode: int
    path: str
    name: str
    deleted: bool


class BadMapsLine(MissingFeatureError):
    """A line that is not of the documented form: a kernel that this rmap does not know."""


def decode_text(raw: bytes) -> str:
    """Return bytes of a name as text; what is not UTF-8 stands as ``\\xNN``.

    >>> decode_text(b"caf\\xc3\\xa9 \\xff")
    'café \\\\xff'
    """
    return raw.decode("utf-8", "backslashreplace")


def unescape(raw: bytes) -> bytes:
    """Undo the only escape of ``maps``: ``\\012`` is a newline.

    A backslash itself is not escaped by the kernel, so a name that really holds the four
    characters ``\\012`` cannot be told from a newline.

    >>> unescape(b"/tmp/a\\\\012b")
    b'/tmp/a\\nb'
    """
    return raw.replace(b"\\012", b"\n") if b"\\012" in raw else raw


def parse_line(line: bytes) -> MapsLine:
    """Parse one line without its newline.

    Raises
    ------
    BadMapsLine
        If it is not of the documented form.

    >>> parse_line(b"1000-3000 rw-p 00000000 00:00 0      [heap]").name
    '[heap]'
    """
    fields = line.split(b" ", 5)
    try:
        start, end = fields[0].split(b"-")
        major, minor = fields[3].split(b":")
        flags = _PERMISSIONS[fields[1]]
        first, last, offset = int(start, 16), int(end, 16), int(fields[2], 16)
        device = int(major, 16) << 20 | int(minor, 16)
        inode = int(fields[4])
    except (ValueError, KeyError, IndexError):
        raise BadMapsLine(f"not a line of maps: {line!r}") from None
    raw = fields[5].lstrip(b" ") if len(fields) > 5 else b""
    path = name = ""
    deleted = False
    if inode or device:
        deleted = raw.endswith(_DELETED)
        path = decode_text(unescape(raw.removesuffix(_DELETED)))
    else:
        name = decode_text(unescape(raw))
    return MapsLine(first, last, flags, offset, device, inode, path, name, deleted)


def parse_maps(text: bytes) -> list[MapsLine]:
    """Parse the whole of a ``maps`` file; the kernel's own vsyscall page is left out.

    Raises `BadMapsLine` for a line of another form.
    """
    lines = [_parse_known_line(line) for line in text.split(b"\n") if line]
    return [line for line in lines if line.start < _USER_END]


#: Forked processes have the same lines; a parsed one is immutable.
_parse_known_line = lru_cache(maxsize=1 << 14)(parse_line)


def vma_ranges(text: bytes) -> list[tuple[int, int]]:
    """Return only the (start, end) of each line: several times faster than `parse_maps`.

    >>> vma_ranges(b"1000-3000 rw-p 00000000 00:00 0 \\n")
    [(4096, 12288)]
    """
    found = [(int(a, 16), int(b, 16)) for a, b in _RANGE.findall(text)]
    return [(start, end) for start, end in found if start < _USER_END]


def parse_vm_flags(smaps: bytes) -> dict[int, int]:
    """Return the VM_ bits of each VMA of ``/proc/PID/smaps``, by its start address.

    >>> parse_vm_flags(b"1000-2000 rw-p 0 00:00 0 \\nVmFlags: rd wr lo \\n") == {0x1000: 0x2003}
    True
    """
    flags: dict[int, int] = {}
    start = None
    for line in smaps.split(b"\n"):
        head = _RANGE.match(line)
        if head:
            start = int(head[1], 16)
        elif start is not None and line.startswith(b"VmFlags:"):
            bits = 0
            for letters in line.split()[1:]:
                bits |= VM_LETTERS.get(letters.decode("ascii", "replace"), 0)
            flags[start] = bits
            start = None
    return flags
