# SPDX-License-Identifier: GPL-2.0-only
"""Which processes share an address space."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.source.proc.mms import group_by_mm, kcmp_vm


@given(st.dictionaries(st.integers(1, 99), st.integers(0, 5)), st.sets(st.integers(1, 99)))
def test_tasks_of_one_mm_are_grouped_and_broken_ones_are_alone(
    mm_of: dict[int, int], broken: set[int]
) -> None:
    def compare(first: int, second: int) -> int:
        if first in broken or second in broken:
            raise OSError(errno.ESRCH, "gone")
        return (mm_of[first] > mm_of[second]) * 2 or int(mm_of[first] < mm_of[second])

    wanted: dict[object, list[int]] = {}
    for task in sorted(mm_of):
        wanted.setdefault(("alone", task) if task in broken else mm_of[task], []).append(task)
    # Layouts may be equal for different address spaces (fork), never the other way round.
    for layouts in ({t: mm // 3 for t, mm in mm_of.items()}, dict.fromkeys(mm_of, 0)):
        assert group_by_mm(layouts, compare) == sorted(wanted.values())


def test_without_kcmp_nothing_is_shared() -> None:
    def compare(first: int, second: int) -> int:
        raise OSError(errno.ENOSYS, "not built in")

    assert group_by_mm({3: "a", 1: "a", 2: "a"}, compare) == [[1], [2], [3]]


def test_the_kernel_tells_threads_from_children() -> None:
    release = threading.Event()
    names: list[int] = []
    started = threading.Event()

    def live() -> None:
        names.append(threading.get_native_id())
        started.set()
        release.wait(30)

    thread = threading.Thread(target=live)
    thread.start()
    read_end, write_end = os.pipe()
    child = os.posix_spawn(
        "/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0)]
    )
    try:
        assert started.wait(30)
        try:
            kcmp_vm(os.getpid(), os.getpid())
        except OSError as error:
            pytest.skip(f"no kcmp here: {error.strerror}")
        tasks = dict.fromkeys([os.getpid(), names[0], child], 0)
        shared = sorted([os.getpid(), names[0]])
        assert sorted(group_by_mm(tasks)) == sorted([shared, [child]])
    finally:
        release.set()
        thread.join()
        os.close(write_end)
        os.close(read_end)
        os.kill(child, 9)
        os.waitpid(child, 0)
