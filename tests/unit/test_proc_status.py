# SPDX-License-Identifier: GPL-2.0-only
"""What processes say of themselves, and call themselves."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import RmapError
from rmap.source.proc.maps import decode_text
from rmap.source.proc.status import parse_cgroup, parse_cmdline, parse_stat, parse_status

comms = st.binary(min_size=0, max_size=15).filter(lambda name: b"\0" not in name)
counts = st.integers(0, (1 << 63) - 1)


@given(comms, st.lists(counts, min_size=49, max_size=52), st.sampled_from("RSDTtZXI"))
def test_any_name_leaves_the_fields_of_stat_where_they_are(
    comm: bytes, fields: list[int], state: str
) -> None:
    numbers = " ".join(map(str, fields))
    stat = parse_stat(b"77 (" + comm + b") " + f"{state} {numbers}\n".encode())

    assert stat.comm == decode_text(comm)
    assert stat.state == state
    # proc(5) counts from 1, and the list begins with field 4.
    assert stat.ppid == fields[4 - 4]
    assert stat.kernel_thread == bool(fields[9 - 4] & 0x200000)
    assert stat.faults == fields[10 - 4] + fields[12 - 4]
    assert (stat.threads, stat.start_time) == (fields[20 - 4], fields[22 - 4])
    assert stat.layout[:3] == tuple(fields[26 - 4 : 29 - 4])
    assert stat.layout[3:] == tuple(fields[45 - 4 : 52 - 4])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_clearly_or_read(text: bytes) -> None:
    refused = "stat"
    try:
        parse_stat(text)
    except RmapError as error:
        refused = str(error)
    assert "stat" in refused
    status = parse_status(text)
    assert min(status.uid, status.rss_anon, status.swap) >= -1
    assert "\0" not in parse_cmdline(text)
    assert isinstance(parse_cgroup(text), str)


@given(st.integers(0, 1 << 32), st.integers(0, 1 << 40), st.integers(1, 1 << 22))
def test_a_name_cannot_forge_a_line_of_status(uid: int, kilobytes: int, tgid: int) -> None:
    # A newline in a name is written as two characters, as proc_task_name does.
    text = (
        f"Name:\tx\\nUid:\t0\nUmask:\t0022\nTgid:\t{tgid}\nUid:\t{uid}\t0\t0\t0\n"
        f"RssAnon:\t{kilobytes} kB\nRssFile:\t4 kB\n"
    )
    status = parse_status(text.encode())
    assert (status.uid, status.tgid) == (uid, tgid)
    assert (status.rss_anon, status.rss_file) == (kilobytes * 1024, 4096)
    assert (status.rss_shmem, status.swap, status.locked) == (-1, -1, -1)


def test_our_own_files_are_read() -> None:
    with open("/proc/self/stat", "rb") as stat_file, open("/proc/self/status", "rb") as status_file:
        stat, status = parse_stat(stat_file.read()), parse_status(status_file.read())
    assert stat.ppid == os.getppid()
    assert not stat.kernel_thread
    assert (status.tgid, status.uid) == (os.getpid(), os.getuid())
    assert status.rss_anon > 0


def test_arguments_and_cgroups() -> None:
    assert parse_cmdline(b"sh\0-c\0a b\0\0") == "sh -c a b"
    assert parse_cgroup(b"0::/unified\n") == "/unified"
    assert parse_cgroup(b"5:cpu,memory:/v1: odd\n0::/\n") == "/v1: odd"
    assert parse_cgroup(b"") == ""
