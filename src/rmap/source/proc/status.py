# SPDX-License-Identifier: GPL-2.0-only
"""What a process says of itself: ``status``, ``stat``, ``cmdline``, ``cgroup``.

A command name is any bytes: blanks, parentheses, newlines. In ``stat`` it stands between the
first ``(`` and the last ``)``; in ``status`` newlines and backslashes of it are escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from rmap.source.proc.maps import decode_text

_KIB = 1024
#: Fields of stat behind the command name that tell one address space from another: the bounds
#: of code, stack, data, heap, arguments and environment (fields 26-28 and 45-51 of proc(5)).
_LAYOUT_FIELDS = (23, 24, 25, 42, 43, 44, 45, 46, 47, 48)


@dataclass(frozen=True, slots=True)
class Stat:
    """``/proc/PID/stat``: what of it is needed. ``layout`` is equal for equal address spaces."""

    comm: str
    state: str
    ppid: int
    threads: int
    start_time: int
    layout: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """``/proc/PID/status``: owner and memory counters in bytes (-1 where there is no mm)."""

    uid: int
    rss_anon: int
    rss_file: int
    rss_shmem: int
    swap: int
    locked: int


def parse_stat(text: bytes) -> Stat:
    """Parse ``/proc/PID/stat``. Raises ValueError if it is not of that form.

    >>> parse_stat(b"7 (a) b) S 1 " + b" ".join([b"0"] * 48)).comm
    'a) b'
    """
    head, close, tail = text.rpartition(b")")
    _, bracket, comm = head.partition(b"(")
    if not close or not bracket:
        raise ValueError("no command name in stat")
    fields = tail.split()
    if len(fields) <= max(_LAYOUT_FIELDS):
        raise ValueError(f"only {len(fields)} fields in stat")
    return Stat(
        comm=decode_text(comm),
        state=fields[0].decode("ascii", "replace"),
        ppid=int(fields[1]),
        threads=int(fields[17]),
        start_time=int(fields[19]),
        layout=tuple(int(fields[i]) for i in _LAYOUT_FIELDS),
    )


def parse_status(text: bytes) -> Status:
    """Parse ``/proc/PID/status``; a line that is missing leaves -1.

    >>> parse_status(b"Uid:\\t7\\t7\\t7\\t7\\nRssAnon:\\t  8 kB\\n").rss_anon
    8192
    """
    values: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        key, _, value = line.partition(b":")
        values.setdefault(key, value)  # the first: a name cannot forge a later line, but may try
    uid = values.get(b"Uid", b"").split()

    def size(key: bytes) -> int:
        words = values.get(key, b"").split()
        return int(words[0]) * _KIB if words and words[0].isdigit() else -1

    return Status(
        uid=int(uid[0]) if uid and uid[0].isdigit() else -1,
        rss_anon=size(b"RssAnon"),
        rss_file=size(b"RssFile"),
        rss_shmem=size(b"RssShmem"),
        swap=size(b"VmSwap"),
        locked=size(b"VmLck"),
    )


def parse_cmdline(text: bytes) -> str:
    """Join the arguments of ``/proc/PID/cmdline`` by blanks.

    >>> parse_cmdline(b"cat\\0file\\0")
    'cat file'
    """
    return decode_text(text.rstrip(b"\0").replace(b"\0", b" "))


def parse_cgroup(text: bytes) -> str:
    """Return the path in the hierarchy that accounts memory: v1's ``memory``, else v2's.

    >>> parse_cgroup(b"4:memory:/a\\n0::/b\\n")
    '/a'
    """
    unified = ""
    for line in text.split(b"\n"):
        parts = line.split(b":", 2)
        if len(parts) == 3:
            if b"memory" in parts[1].split(b","):
                return decode_text(parts[2])
            if parts[0] == b"0":
                unified = decode_text(parts[2])
    return unified
