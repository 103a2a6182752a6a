# SPDX-License-Identifier: GPL-2.0-only
"""What a process says of itself: ``status``, ``stat``, ``cmdline``, ``cgroup``.

A command name is any bytes: blanks, parentheses, newlines. In ``stat`` it stands as it is between
the first ``(`` and the last ``)``; in ``status`` newlines and backslashes of it are escaped, so it
cannot forge a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmap.source.proc.files import Malformed
from rmap.source.proc.maps import decode_text

_KIB = 1024
_NUMBER = re.compile(rb"[0-9]{1,18}")
#: PF_KTHREAD of the task's flags (``include/linux/sched.h``).
_PF_KTHREAD = 0x00200000
#: Fields of stat behind the command name, counted from the state, which is number 3 in proc(5).
_PPID, _FLAGS, _MINFLT, _MAJFLT, _THREADS, _START_TIME = 1, 6, 7, 9, 17, 19
#: What tells address spaces apart: the bounds of code, stack, data, heap, arguments and
#: environment (fields 26-28 and 45-51 of proc(5)). The kernel keeps them in the mm.
_LAYOUT = (23, 24, 25, 42, 43, 44, 45, 46, 47, 48)


@dataclass(frozen=True, slots=True)
class Stat:
    """``/proc/PID/stat``: what of it is needed.

    ``layout`` is equal for equal address spaces, ``faults`` all page faults so far.
    """

    comm: str
    state: str
    ppid: int
    threads: int
    start_time: int
    kernel_thread: bool
    faults: int
    layout: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """``/proc/PID/status``: owner and memory counters in bytes (-1 where there is no mm).

    ``tgid`` is the process that a task is a thread of, -1 unknown.
    """

    tgid: int
    uid: int
    rss_anon: int
    rss_file: int
    rss_shmem: int
    swap: int
    locked: int


def parse_stat(text: bytes) -> Stat:
    """Parse ``/proc/PID/stat``.

    Raises
    ------
    Malformed
        If it is not of the documented form.

    >>> parse_stat(b"7 (a) b) S 1 " + b" ".join([b"0"] * 48)).comm
    'a) b'
    """
    head, close, tail = text.rpartition(b")")
    _, bracket, comm = head.partition(b"(")
    fields = tail.split()
    try:
        numbers = [int(field) for field in fields[1 : max(_LAYOUT) + 1]]
    except ValueError:
        numbers = []
    if not close or not bracket or len(numbers) < max(_LAYOUT):
        raise Malformed(f"not the form of /proc/PID/stat: {decode_text(text)!r}")
    return Stat(
        comm=decode_text(comm),
        state=fields[0].decode("ascii", "replace"),
        ppid=numbers[_PPID - 1],
        threads=numbers[_THREADS - 1],
        start_time=numbers[_START_TIME - 1],
        kernel_thread=bool(numbers[_FLAGS - 1] & _PF_KTHREAD),
        faults=numbers[_MINFLT - 1] + numbers[_MAJFLT - 1],
        layout=tuple([numbers[i - 1] for i in _LAYOUT]),
    )


def parse_status(text: bytes) -> Status:
    """Parse ``/proc/PID/status``; a line that is missing leaves -1.

    >>> parse_status(b"Uid:\\t7\\t7\\t7\\t7\\nRssAnon:\\t  8 kB\\n").rss_anon
    8192
    """
    values: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        key, _, value = line.partition(b":")
        values.setdefault(key, value)

    def number(key: bytes) -> int:
        words = values.get(key, b"").split()
        return int(words[0]) if words and _NUMBER.fullmatch(words[0]) else -1

    def size(key: bytes) -> int:
        kilobytes = number(key)
        return kilobytes * _KIB if kilobytes >= 0 else -1

    return Status(
        tgid=number(b"Tgid"),
        uid=number(b"Uid"),
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
