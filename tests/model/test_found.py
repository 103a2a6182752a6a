# SPDX-License-Identifier: GPL-2.0-only
"""What long runs of `tests.model.soak` have found, cut down: operations that once went wrong."""

from __future__ import annotations

import pytest

from rmap.mm.profile import profile
from tests.model.looking import Op
from tests.model.soak import FIXED, replay

FOUND = {
    "the second page of a huge file page keeps PG_double_map when it is split": [
        Op("boot", 1, 0, 3200, 1500),
        Op("mmap", 1, 100, 1, 3),
        Op("write", 1, 100, 1, 0),
        Op("split", 1, 0, 1, 0),
    ],
    "PMD and PTEs that a migration gave back are counted, and then the PMD is split": [
        Op("boot", 2, 0, 2200, 1500),
        Op("thp"),
        Op("mmap", 1, 100, 18, 0),
        Op("write", 1, 104),
        Op("fork", 1, 4),
        Op("mmap", 1, 108, 1, 0),
        Op("migrate", 1),
        Op("write", 4, 100),
    ],
    "a huge page of a file is dirty, which nobody counts": [
        Op("boot", 2, 0, 4600, 16),
        Op("mmap", 1, 200, 1, 3),
        Op("write", 1, 200),
    ],
    "a page of hugetlbfs that is not its file's first is found": [
        Op("boot", 1, 0, 4600, 64),
        Op("mmap", 1, 200, 3, 3),
        Op("fork", 1, 5),
        Op("write", 5, 200, 3),
        Op("read", 1, 202),
    ],
    "MADV_WILLNEED finds nowhere to read huge pages from": [
        Op("boot", 1, 0, 5200, 64),
        Op("mmap", 1, 200),
        Op("madvise", 1, 200, 1, 4364),
    ],
    "a page that a child lets KSM merge is its parent's too, where no walk comes": [
        Op("mmap", 1, 0, 16),
        Op("write", 1, 0, 16),
        Op("fork", 1, 2),
        Op("madvise", 2, 0, 2, 3530),
        Op("ksm", 6, 0, 1, 2234),
    ],
    "a page that was taken out of use is free, is dropped by the allocator, and mended": [
        Op("mmap", 1, 0, 16),
        Op("write", 1),
        Op("offline", 1),
        Op("migrate", 1),
        Op("mend", 1),
    ],
    "a page of shmem broke, and its marks are dropped with the table as khugepaged collapses": [
        Op("boot", 0, 0, 2200, 600),
        Op("thp"),
        Op("mmap", 1, 100, 36, 2),
        Op("write", 1, 103, 9),
        Op("thp", 2, 0, 1, 437),
        Op("break", 3),
        Op("collapse", 5),
    ],
    "a child of who lost a huge page of a file finds what the file has by then": [
        Op("boot", 2, 0, 4600, 128),
        Op("mmap", 1, 200, 3, 4),
        Op("write", 1, 200, 2, 1),
        Op("write", 1, 0, 1, 1),
        Op("write", 1, 0, 1, 1),
        Op("write", 1, 200, 5, 1),
        Op("fork", 1, 2),
        Op("mmap", 1, 201, 1, 2938),
        Op("write", 2, 0, 1, 1),
        Op("write", 1, 200, 3, 1),
        Op("fork", 2, 3),
    ],
    "of a file mapped twice a huge page is taken away, and the other mapping is marked": [
        Op("boot", 2, 0, 4600, 128),
        Op("mmap", 1, 200, 1, 4),
        Op("mmap", 1, 201, 3),
        Op("mmap", 1, 202, 1, 2234),
        Op("write", 1, 200, 3, 4700),
        Op("fork", 1, 2),
        Op("write", 1, 201, 3),
    ],
    "an anon_vma that only KSM keeps outlives its parent": [
        Op("mmap", 1, 0, 8),
        Op("write", 1, 0, 8),
        Op("fork", 1, 2),
        Op("fork", 2, 3),
        Op("madvise", 3, 0, 2, 280),
        Op("ksm", 3, 0, 1, 14),
        Op("exit", 2),
        Op("exit", 3),
    ],
    "KSM knows no place of a merged page any more, which is not to move to a device": [
        Op("mmap", 1, 5, 4),
        Op("write", 1, 5, 4),
        Op("fork", 1, 2),
        Op("fork", 2, 3),
        Op("exit", 1),
        Op("madvise", 2, 7, 2, 1420),
        Op("ksm", 6, 0, 1, 2372),
        Op("exit", 2),
        Op("ksm", 7),
        Op("device", 3, 7, 2),
    ],
    "a huge entry is made PROT_NONE": [
        Op("boot", 1, 0, 3200, 600),
        Op("mmap", 1, 100, 36, 3),
        Op("write", 1, 100, 12, 1),
        Op("mprotect", 1, 100, 12, 2314),
    ],
}


#: The same, where mlocks are counted.
LATER = {
    "memory of a device that was mlocked is unmapped": [
        Op("mmap", 1, 7),
        Op("write", 1, 7),
        Op("mlock", 1, 7),
        Op("device", 1, 7, 1, 1),
    ],
}


@pytest.mark.parametrize("what", LATER)
def test_it_goes_right_later(what: str) -> None:
    error = replay(LATER[what], profile("6.12"))
    assert error is None, error


@pytest.mark.parametrize("what", FOUND)
def test_it_goes_right(what: str) -> None:
    error = replay(FOUND[what], FIXED)
    assert error is None, error
