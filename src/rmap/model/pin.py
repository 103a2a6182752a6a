# SPDX-License-Identifier: GPL-2.0-only
"""References to pages that a device or the kernel holds (get_user_pages)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rmap.mm import content, gup
from rmap.mm.page import compound_head, lock_page, unlock_page
from rmap.mm.page_dirty import set_page_dirty

if TYPE_CHECKING:
    from rmap.model.machine import Machine


class Pin:
    """Pinned pages; made by `Process.pin`. Leaving its ``with`` block releases it.

    `pages` are the page frame numbers, in the order of the range. A pin keeps a page from being
    freed, not from being unmapped: what a device writes to a page that is not the process's any
    more is lost to it.
    """

    def __init__(self, machine: Machine, pages: list[int], writable: bool) -> None:
        self.machine = machine
        self.pages = pages
        self.writable = writable
        self.released = False
        self._count(1)

    def _count(self, sign: int) -> None:
        """Tell the machine of the references that these are, for its checks."""
        k = self.machine.kernel
        for page in self.pages:
            # The references to any part of a huge page are its head's.
            self.machine.pins[compound_head(k, page)] += sign * gup.pin_references(k, page)
        self.machine.pins += Counter()

    def read(self, page: int, offset: int, length: int) -> bytes:
        """Read by DMA: bytes of one of the pages, past every page table."""
        self._require(page)
        return bytes(content.page_read(self.machine.kernel, page, offset, length))

    def write(self, page: int, offset: int, data: bytes) -> None:
        """Write by DMA, past every page table; the page becomes dirty at the release."""
        self._require(page)
        if not self.writable:
            raise ValueError("the pages were pinned for reading only")
        content.page_write(self.machine.kernel, page, offset, data)

    def _require(self, page: int) -> None:
        if self.released or page not in self.pages:
            raise ValueError(f"page {page:#x} is not pinned by this")

    def release(self) -> None:
        """Give the references back; pages pinned for writing are dirty (set_page_dirty_lock)."""
        if self.released:
            return
        self.released = True
        self._count(-1)
        with self.machine.kthread("unpin") as k:
            for page in self.pages:
                if self.writable:
                    lock_page(k, page)
                    set_page_dirty(k, page)
                    unlock_page(k, page)
                gup.unpin_user_page(k, page)

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Pin of {len(self.pages)} pages{', released' if self.released else ''}>"
