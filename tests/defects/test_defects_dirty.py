# SPDX-License-Identifier: GPL-2.0-only
"""Writes that get lost: D26 and D27.

D26, the corruption of December 2006. 2.6.19 introduced page_mkclean(), which finds who maps a page
of a file, and makes it read-only while the page is written out. A page that was dirty only in a
page table, since the file system had cleaned it by itself, was made clean there and not written.
7658cc289288: what page_mkclean() finds makes the page dirty.

D27. MADV_FREE lets reclaim drop a page that was not written to since. A device that got the page
by get_user_pages() before, and has not written yet, then writes into a page that nobody maps, and
the process reads zeros. Since 802a3a92ad7a (4.12); 6c8e2a256915 (5.18) compares references and
mappings.
"""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting

from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_dirty import cancel_dirty_page
from rmap.mm.writeback import clear_page_dirty_for_io, file_writepage
from rmap.model import FileHandle


def cleaned_by_itself(f: Faulting, file: FileHandle) -> None:
    """A file system that writes its buffers when it likes, and then calls the page clean."""
    page = file.cached[0]
    with f.m.kthread("fs") as k:
        file.mapping.backing[0] = b"first"
        lock_page(k, page)
        cancel_dirty_page(k, page)
        unlock_page(k, page)


def writes_by_its_own_list(f: Faulting, file: FileHandle) -> bool:
    """The same file system again: it knows that the page was handed out for writing."""
    page = file.cached[0]
    with f.m.kthread("fs") as k:
        lock_page(k, page)
        if clear_page_dirty_for_io(k, page):
            file_writepage(k, page, file.mapping)
            return True
        unlock_page(k, page)
        return False


@pytest.mark.parametrize("fixed", [False, True])
def test_d26_what_only_a_page_table_knows_is_not_written(fixed: bool) -> None:
    f = Faulting(mkclean_dirties_page=fixed)
    file = f.file()
    a = f.map(1, kind="file", file=file)
    f.p.write(a, b"first")
    cleaned_by_itself(f, file)
    # Writable still, so that this write is not noticed but by the entry's dirty bit.
    f.p.write(a, b"then this")
    assert writes_by_its_own_list(f, file) is fixed
    # The entry is clean now in any case. Reclaim drops a page that nobody has written to.
    for _ in range(3):
        f.m.page_referenced(file.cached.values())
        f.m.age(8)
        f.m.reclaim(8)
    assert file.cached == {}
    assert f.p.read(a, 9) == (b"then this" if fixed else b"first\0\0\0\0")


@pytest.mark.parametrize("fixed", [False, True])
def test_d27_what_a_device_writes_after_madv_free_is_lost(fixed: bool) -> None:
    f = Faulting(lazyfree_checks_references=fixed)
    a = f.map(1)
    f.p.write(a, b"old")
    f.p.madvise(a, PAGE, "free")
    with f.p.pin(a, PAGE) as pin:
        # The buffer of a read by DMA, which is on its way.
        pin.writable = True
        f.m.reclaim(1)
        pin.write(pin.pages[0], 0, b"new")
    assert f.p.read(a, 3) == (b"new" if fixed else bytes(3))
