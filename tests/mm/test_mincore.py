# SPDX-License-Identifier: GPL-2.0-only
"""mincore: what an access would not have to wait for, whatever an entry holds."""

from __future__ import annotations

import errno

import pytest
from faulting import PAGE, Faulting

from rmap.mm import bits
from rmap.mm.pgtable import swp_entry, swp_entry_to_pte
from rmap.model import SyscallError


def test_anonymous_memory_is_there_when_it_was_touched() -> None:
    f = Faulting()
    a = f.map(6)
    f.p.write(a, b"x")
    f.p.read(a + PAGE, 1)
    f.p.write(a + 2 * PAGE, b"swapped")
    f.p.write(a + 3 * PAGE, b"read again")
    f.p.madvise(a + 2 * PAGE, 2 * PAGE, "pageout")
    f.p.madvise(a + 3 * PAGE, PAGE, "willneed")
    f.p.write(a + 4 * PAGE, b"broken")
    f.m.memory_failure(f.page(f.p, a + 4 * PAGE))
    # Written, the zero page, in swap, in the swap cache, poisoned, never touched.
    assert f.p.mincore(a, 6 * PAGE) == [True, True, False, True, True, False]
    assert f.p.mincore(a, 1) == [True]
    assert f.sound()


def test_an_entry_that_waits_counts_as_there() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.write(a, b"x")
    entry = f.pte(f.p, a)
    f.set_pte(f.p, a, swp_entry_to_pte(swp_entry(bits.SWP_MIGRATION_READ, f.page(f.p, a))))
    assert f.p.mincore(a, 2 * PAGE) == [True, False]
    f.set_pte(f.p, a, entry)


@pytest.mark.parametrize("shmem", [False, True])
def test_a_file_is_there_as_far_as_it_is_cached(shmem: bool) -> None:
    f = Faulting()
    file = f.file(shmem=shmem)
    a = f.map(8, kind="file", file=file)
    file.write(PAGE, b"cached")
    f.p.read(a + 3 * PAGE, 1)
    assert f.p.mincore(a, 4 * PAGE) == [False, True, False, True]
    if shmem:
        f.p.madvise(a + 3 * PAGE, PAGE, "pageout")
        assert f.p.mincore(a, 4 * PAGE) == [False, True, False, False]
    assert f.sound()


def test_a_huge_page_is_there_as_a_whole() -> None:
    f = Faulting(ram=4096)
    f.m.thp.enabled = "always"
    a = f.p.mmap(1024 * PAGE, addr=1 << 32)
    f.p.write(a, b"x")
    assert f.p.mincore(a + 510 * PAGE, 4 * PAGE) == [True, True, False, False]


def test_what_is_not_mapped_is_an_error() -> None:
    f = Faulting()
    a = f.map(2)
    for address, length, expected in (
        (a, 3 * PAGE, errno.ENOMEM),
        (a - PAGE, PAGE, errno.ENOMEM),
        (a + 1, PAGE, errno.EINVAL),
        (bits.TASK_SIZE, PAGE, errno.ENOMEM),
    ):
        with pytest.raises(SyscallError) as refused:
            f.p.mincore(address, length)
        assert refused.value.errno == expected
