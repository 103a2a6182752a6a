# SPDX-License-Identifier: GPL-2.0-only
"""The lines of ``/proc/PID/maps``.

::

    55d0c0a00000-55d0c0a21000 rw-p 00001000 fe:00 1234    /usr/bin/cat
    start        end          perm offset   dev   inode   name

With a device or an inode the name is a file's path: ``\\012`` stands for a newline in it, and
`` (deleted)`` is put behind it if the file has no name any more. Without, it is one of the
kernel's own names (``[heap]``, ``[stack]``, ``[vdso]``, ``[anon:...]``) or empty. So a file called
``[heap]`` or ``1000-2000`` is no trouble. Shared anonymous memory is a deleted file of the
kernel's own, ``/dev/zero (deleted)``, and shows as ``[anon_shmem:...]`` where it was given a name.

What the line alone does not tell: whether a name really ends in `` (deleted)``, or really holds
the four characters ``\\012``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rmap.image.flags import VM_LETTERS, Vm
from rmap.source.proc.files import Malformed

_LINE = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][sp]) ([0-9a-f]{1,16}) "
    rb"([0-9a-f]{1,8}):([0-9a-f]{1,8}) ([0-9]{1,20}) *(.*)",
    re.DOTALL,
)
_RANGE = re.compile(rb"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ", re.MULTILINE)
#: What the kernel puts behind the path of a file that has no name any more.
DELETED = " (deleted)"
_DELETED = DELETED.encode()
_NAMED_SHMEM = b"[anon_shmem:"
_SHMEM_PATH = "/dev/zero"
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


def decode_text(raw: bytes) -> str:
    """Return bytes of a name as text; what is not UTF-8 stands as ``\\xNN``.

    >>> decode_text(b"caf\\xc3\\xa9 \\xff")
    'café \\\\xff'
    """
    return raw.decode("utf-8", "backslashreplace")


def parse_line(line: bytes) -> MapsLine:
    """Parse one line without its newline.

    Raises
    ------
    Malformed
        If it is not of the documented form.

    >>> parse_line(b"1000-3000 rw-p 00000000 00:00 0      [heap]").name
    '[heap]'
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed(f"not a line of /proc/PID/maps: {decode_text(line)!r}")
    start, end, letters, offset, major, minor, number, raw = match.groups()
    device = int(major, 16) << 20 | int(minor, 16)
    inode = int(number)
    path, name, deleted = _names(raw.replace(b"\\012", b"\n"), bool(device or inode))
    return MapsLine(
        start=int(start, 16),
        end=int(end, 16),
        flags=_PERMISSIONS[letters],
        offset=int(offset, 16),
        device=device,
        inode=inode,
        path=path,
        name=name,
        deleted=deleted,
    )


def _names(raw: bytes, of_file: bool) -> tuple[str, str, bool]:
    """Return (path, name, deleted)."""
    if not of_file:
        return "", decode_text(raw), False
    if raw.startswith(_NAMED_SHMEM):
        return _SHMEM_PATH, decode_text(raw), True
    deleted = raw.endswith(_DELETED)
    return decode_text(raw.removesuffix(_DELETED) if deleted else raw), "", deleted


def parse_maps(text: bytes, known: dict[bytes, MapsLine] | None = None) -> list[MapsLine]:
    """Parse the whole of a ``maps`` file; the kernel's own vsyscall page is left out.

    Parameters
    ----------
    text
        The file.
    known
        Lines parsed before, which is added to: processes forked from one another have most lines
        in common, and a look-up is much cheaper than parsing.

    Raises `Malformed` for a line of another form.
    """
    known = {} if known is None else known
    lines = []
    for raw in text.split(b"\n"):
        line = known.get(raw)
        if line is None:
            if not raw:
                continue
            line = known[raw] = parse_line(raw)
        if line.start < _USER_END:
            lines.append(line)
    return lines


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
