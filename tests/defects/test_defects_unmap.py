# SPDX-License-Identifier: GPL-2.0-only
"""What try_to_unmap_one() gets wrong, or did: a mapping that is lost, a mark that comes too late.

A page that is swap-backed and has no swap slot, which must not be, is warned of, and then its entry
stays empty although mapcount and rss count it. No release restores it.

mlock under reclaim, D32 (2015). A VM_LOCKED VMA keeps its page, and reclaim marks it so. Before
b87537d9e2fe (4.4) it did that without the page-table lock, under mmap_sem, which an exiting process
does not take: the page could lose its last mapping, be marked mlocked then, and be freed so, "Bad
page state".
"""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting
from interruptions import interrupted

from rmap.mm.bits import (
    TTU_IGNORE_ACCESS,
    PG_mlocked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.lru import put_page
from rmap.mm.mlock_page import clear_page_mlock
from rmap.mm.page import get_page, lock_page, unlock_page
from rmap.mm.unmap import try_to_unmap
from rmap.mm.zap import zap_page_range
from rmap.sync.bits import FIELD_PAGE_FLAGS, OP_RMW


@pytest.mark.parametrize("fixed", [False, True])
def test_a_swap_backed_page_without_a_slot_loses_its_mapping(fixed: bool) -> None:
    f = Faulting(warn_path_restores_pte=fixed)
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    with f.m.kthread("reclaim") as k:
        lock_page(k, page)
        assert not try_to_unmap(k, page, TTU_IGNORE_ACCESS)
        unlock_page(k, page)
    assert [warning.check[:11] for warning in f.m.warnings] == ["rmap.c:1535"]
    assert f.counts(page) == (1, 1)
    assert f.rss(f.p) == (0, 1, 0, 0)
    assert f.p.read(a, 1) == (b"x" if fixed else b"\0")
    found = {violation.invariant for violation in f.m.check()}
    assert found == (set() if fixed else {"mapcount", "refcount", "rss", "vmstat"})


@pytest.mark.parametrize("fixed", [False, True])
def test_d32_a_page_is_marked_mlocked_after_its_last_mapping_went(fixed: bool) -> None:
    f = Faulting(mlock_under_ptl=fixed)
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.mlock(a, PAGE)
    page = f.page(f.p, a)
    # That the mark is missing happens when the page was isolated while it was locked.
    with f.m.kthread("isolate") as k:
        lock_page(k, page)
        clear_page_mlock(k, page)
        unlock_page(k, page)

    def exit() -> None:
        """exit_mmap() of the process, as far as it gets while the walk has the anon_vma's lock."""
        zap_page_range(f.k, f.p.vmas[0], a, PAGE)

    with f.m.kthread("reclaim") as k:
        get_page(k, page)
        lock_page(k, page)
        if fixed:
            # The zap would have to wait for the table, and then finds the mark and clears it.
            try_to_unmap(k, page, TTU_IGNORE_ACCESS)
            exit()
        else:
            with interrupted(((OP_RMW, FIELD_PAGE_FLAGS), exit)):
                try_to_unmap(k, page, TTU_IGNORE_ACCESS)
        assert f.counts(page) == (0, 1)
        assert f.flags(page, PG_mlocked) is (not fixed)
        unlock_page(k, page)
        if fixed:
            put_page(k, page)
            return
        with pytest.raises(KernelBug, match="flags set that must not be"):
            put_page(k, page)
