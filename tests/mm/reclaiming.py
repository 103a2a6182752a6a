# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of reclaim reclaim: cold anonymous pages, clean file pages; and one at a time."""

from __future__ import annotations

from typing import Any

from pressure import (
    Process,
    lists_are_sound,
)

from rmap.mm.bits import (
    MADV_COLD,
    PROT_READ,
    SHRINK_FREE,
    PG_isolated,
)
from rmap.mm.filemap import make_file
from rmap.mm.lru import deactivate_page, isolate_lru_page, putback_lru_page
from rmap.mm.mm_types import File, Kernel
from rmap.mm.shrink_page_list import ReclaimResult, ScanControl, shrink_page_list


def anon(k: Kernel, pages: int = 4, *, cold: bool = True) -> Process:
    """A process with anonymous pages, by default on the inactive list and not used lately."""
    p = Process(k)
    p.mmap(0, pages)
    p.fill(0, pages)
    if cold:
        p.madvise(0, pages, MADV_COLD)
    return p


def mapped_file(k: Kernel, pages: int = 4, prot: int = PROT_READ) -> tuple[File, Process]:
    """A clean file that a process has read through a mapping."""
    file = make_file(k, "f", pages, False)
    for index in range(pages):
        file.f_mapping.backing[index] = b"file %02d" % index
    p = Process(k)
    p.mmap(0, pages, prot, shared=True, file=file)
    for index in range(pages):
        assert p.load(index, 7) == b"file %02d" % index
    return file, p


def shrink(
    k: Kernel, page: int, sc: ScanControl | None = None, *, force: bool = False
) -> tuple[int, ReclaimResult]:
    """Isolate one page, reclaim it if possible, put it back if not: the verdict, the counts."""
    sc = sc or ScanControl(1, None)
    verdicts: list[int] = []

    def tracer(name: str, what: tuple[Any, ...]) -> None:
        if name == "shrink_page":
            verdicts.append(what[1])

    assert isolate_lru_page(k, page) == 0
    pages = [page]
    before, k.tracer = k.tracer, tracer
    freed = shrink_page_list(k, pages, sc, 0, force)
    k.tracer = before
    assert freed == (verdicts[0] == SHRINK_FREE)
    if pages:
        assert k.pg_refcount[page] >= 1
        putback_lru_page(k, page)
    assert not k.pg_flags[page] & PG_isolated
    lists_are_sound(k)
    return verdicts[0], sc.result


def cold(k: Kernel, p: Process, page: int = 0) -> int:
    """The frame at a page, made inactive and old."""
    p.madvise(page, 1, MADV_COLD)
    pfn = p.pfn(page)
    deactivate_page(k, pfn)
    return pfn
