# SPDX-License-Identifier: GPL-2.0-only
"""What the functions of mm/rmap.c say of locks: each says it, and insists where it can tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handmade import address_of, cache, family, make_file, map_cached, map_file, world
from kernels import make_mm, map_pages

from rmap.mm.anon_vma import __anon_vma_prepare as prepare_anon_vma
from rmap.mm.anon_vma import anon_vma_clone, anon_vma_fork, page_unlock_anon_vma_read
from rmap.mm.bits import TTU_RMAP_LOCKED
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_mkclean import page_mkclean
from rmap.mm.rmap import LISTING
from rmap.mm.rmap_counts import (
    do_page_add_anon_rmap,
    hugepage_add_anon_rmap,
    page_add_anon_rmap,
    page_move_anon_rmap,
)
from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk, rmap_walk_locked
from rmap.mm.unmap import try_to_munlock, try_to_unmap
from rmap.sync.core import LockViolation, scheduler
from tools import locks_doc


@pytest.mark.parametrize(("name", "module"), [(name, module) for _, name, module in LISTING])
def test_a_function_of_the_listing_says_which_locks_it_needs_and_takes(
    name: str, module: str
) -> None:
    said = locks_doc.locks(name, module)
    assert said.startswith(("none", "needs ", "takes ")), f"{module}.py: {name}(): {said!r}"


def test_the_table_for_readers_is_what_the_docstrings_say() -> None:
    text = locks_doc.PATH.read_text(encoding="utf-8")
    assert text == locks_doc.document(text), "run: python tools/locks_doc.py"


# ---------------------------------------------------------------- without its lock


class Anonymous:
    """A page that a parent shares with a child; nothing is locked."""

    def __init__(self) -> None:
        self.k: Kernel = world()
        self.page, (self.parent, self.child) = family(self.k, 1)
        self.address = address_of(self.parent, 0)


class OfFile:
    """A page of a file that a process maps; nothing is locked."""

    def __init__(self) -> None:
        self.k: Kernel = world()
        file = make_file(self.k)
        self.page = cache(self.k, file, 0)
        self.vma: Vma = map_file(self.k, file)
        map_cached(self.k, self.page, self.vma)


def prepare_without_mmap_sem() -> None:
    k = world()
    prepare_anon_vma(k, map_pages(k, make_mm(k), 16, 4))


def clone_without_mmap_sem() -> None:
    a = Anonymous()
    anon_vma_clone(a.k, a.child, a.parent)


def fork_without_mmap_sem() -> None:
    a = Anonymous()
    anon_vma_fork(a.k, a.child, a.parent)


def unlock_what_is_not_locked() -> None:
    a = Anonymous()
    page_unlock_anon_vma_read(a.parent.anon_vma)


def move_without_page_lock() -> None:
    a = Anonymous()
    page_move_anon_rmap(a.k, a.page, a.parent)


def add_without_page_lock() -> None:
    a = Anonymous()
    page_add_anon_rmap(a.k, a.page, a.parent, a.address, False)


def do_add_without_page_lock() -> None:
    a = Anonymous()
    do_page_add_anon_rmap(a.k, a.page, a.parent, a.address, 0)


def add_hugetlb_without_page_lock() -> None:
    a = Anonymous()
    hugepage_add_anon_rmap(a.k, a.page, a.parent, a.address)


def unmap_without_page_lock() -> None:
    a = Anonymous()
    try_to_unmap(a.k, a.page, 0)


def munlock_without_page_lock() -> None:
    a = Anonymous()
    try_to_munlock(a.k, a.page)


def clean_without_page_lock() -> None:
    f = OfFile()
    page_mkclean(f.k, f.page)


def walk_a_file_without_page_lock() -> None:
    f = OfFile()
    rmap_walk(f.k, f.page, RmapWalkControl())


def walk_locked_without_the_rmap_lock() -> None:
    a = Anonymous()
    rmap_walk_locked(a.k, a.page, RmapWalkControl())


REFUSED: list[tuple[Callable[[], None], type[Exception], str]] = [
    (prepare_without_mmap_sem, LockViolation, "needs mm->mmap_sem"),
    (clone_without_mmap_sem, LockViolation, r"needs mm->mmap_sem .* for write"),
    (fork_without_mmap_sem, LockViolation, r"needs mm->mmap_sem .* for write"),
    (unlock_what_is_not_locked, LockViolation, "anon_vma->rwsem"),
    (move_without_page_lock, KernelBug, "rmap.c:1006"),
    (add_without_page_lock, KernelBug, "rmap.c:1129"),
    (do_add_without_page_lock, KernelBug, "rmap.c:1129"),
    (add_hugetlb_without_page_lock, KernelBug, "rmap.c:1911"),
    (unmap_without_page_lock, LockViolation, "needs PG_locked"),
    (munlock_without_page_lock, KernelBug, "rmap.c:1716"),
    (clean_without_page_lock, KernelBug, "rmap.c:975"),
    (walk_a_file_without_page_lock, KernelBug, "rmap.c:1832"),
    (walk_locked_without_the_rmap_lock, LockViolation, "needs anon_vma->rwsem"),
]


@pytest.mark.parametrize(
    ("call", "error", "said"), REFUSED, ids=[c.__name__ for c, _, _ in REFUSED]
)
def test_without_its_lock_it_refuses(
    call: Callable[[], None], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        call()
    assert scheduler().current.held == []


def test_a_rmap_lock_of_the_callers_is_the_right_one() -> None:
    """TTU_RMAP_LOCKED is a promise, and a lie is found."""
    a = Anonymous()
    lock_page(a.k, a.page)
    with pytest.raises(LockViolation, match="needs anon_vma->rwsem"):
        try_to_unmap(a.k, a.page, TTU_RMAP_LOCKED)
    unlock_page(a.k, a.page)
