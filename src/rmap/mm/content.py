# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What is in a page. Kept without trailing zeros, so a page of zeros takes no space at all.

``Kernel.content`` maps a page to its bytes. Copying a page (COW, swap, writeback, migration)
copies them, so whatever a walk gets wrong shows as wrong data in the end. A store by a CPU and a
load by another may race: each access here is one scheduling point.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import PAGE_SIZE
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import Kernel
    from rmap.scalar import i32, i64, u64
    from rmap.sync.bits import FIELD_CONTENT, OP_READ, OP_WRITE
    from rmap.sync.core import sched, sched_point


def page_bytes(k: Kernel, page: u64) -> bytes:
    """The bytes of a page without its trailing zeros."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_CONTENT, page)
    data: bytes = k.content.get(page, b"")
    return data


def set_page_bytes(k: Kernel, page: u64, data: bytes) -> i32:
    """Fill a page: `data` from its start, zeros behind. More than a page is a bug."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_CONTENT, page)
    if len(data) > PAGE_SIZE:
        BUG_PAGE("content beyond the end of a page", page)
    data = data.rstrip(b"\0")
    if data:
        k.content[page] = data
    else:
        k.content.pop(page, None)
    return 0


def page_read(k: Kernel, page: u64, offset: i64, length: i64) -> bytes:
    """`length` bytes of a page from `offset` on.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> k = Kernel(16, profile("4.18"))
    >>> page_write(k, 3, 1, b"ab"), page_read(k, 3, 0, 4)
    (0, b'\\x00ab\\x00')
    """
    if sched.exploring:
        sched_point(OP_READ, FIELD_CONTENT, page)
    return load(k, page, offset, length)


def page_write(k: Kernel, page: u64, offset: i64, data: bytes) -> i32:
    """Store `data` in a page from `offset` on; the rest stays."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_CONTENT, page)
    return store(k, page, offset, data)


def load(k: Kernel, page: u64, offset: i64, length: i64) -> bytes:
    """`page_read` without its scheduling point, for a caller that has announced the access."""
    data: bytes = k.content.get(page, b"")
    return data[offset : offset + length].ljust(length, b"\0")


def store(k: Kernel, page: u64, offset: i64, data: bytes) -> i32:
    """`page_write` without its scheduling point, for a caller that has announced the access."""
    if offset + len(data) > PAGE_SIZE:
        BUG_PAGE("content beyond the end of a page", page)
    old: bytes = k.content.get(page, b"")
    new: bytes = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
    new = new.rstrip(b"\0")
    if new:
        k.content[page] = new
    else:
        k.content.pop(page, None)
    return 0


def copy_page_content(k: Kernel, dst: u64, src: u64) -> i32:
    """copy_highpage(): make `dst` hold what `src` holds."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_CONTENT, src)
        sched_point(OP_WRITE, FIELD_CONTENT, dst)
    if not k.content:
        return 0
    data: bytes = k.content.get(src)
    if data is None:
        k.content.pop(dst, None)
    else:
        k.content[dst] = data
    return 0


def clear_page_content(k: Kernel, page: u64) -> i32:
    """clear_highpage(): make a page hold zeros."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_CONTENT, page)
    if k.content:
        k.content.pop(page, None)
    return 0
