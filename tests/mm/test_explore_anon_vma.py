# SPDX-License-Identifier: GPL-2.0-only
"""page_lock_anon_vma_read() against the last process's exit and the reuse of its slot.

The page belongs to a child's own anon_vma, whose root, and with it the lock, is the parent's. The
child unmaps in two halves: while it unlinks the first, the root is locked for write although the
page is mapped, which is what sends the walker the slow way. Then it exits, and the slot of its
anon_vma is given to somebody else at once. Whatever the order: a walker that was told that it has
the anon_vma must have it until it lets go.
"""

from __future__ import annotations

from functools import partial

from kernels import make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.anon_vma import (
    anon_vma_alloc,
    anon_vma_clone,
    anon_vma_fork,
    page_lock_anon_vma_read,
    page_unlock_anon_vma_read,
    unlink_anon_vmas,
)
from rmap.mm.bits import MAPPING_HANDLE_SHIFT, PAGE_MAPPING_ANON
from rmap.mm.mm_types import AnonVma, Task
from rmap.mm.page import mapcount_add_negative
from rmap.mm.vma import vm_area_dup
from rmap.sync.bits import FIELD_CONTENT, OP_READ
from rmap.sync.core import sched_point
from rmap.sync.explore import Cpu, World, error_text, explore, replay

PAGE = 5
#: Interleavings of the two CPUs: the same compiled and not.
SCHEDULES = {"as it is": 8110, "no recheck": 6732, "no handshake": 5259}


class Exit:
    """The parent lives; the child, with two VMAs of one anon_vma, is about to exit."""

    def __init__(self, **quirks: bool) -> None:
        k = self.k = make_kernel(8, **quirks)
        parent = map_pages(k, make_mm(k, "parent"), 16, 4)
        self.root = prepare(k, parent)
        mm = make_mm(k, "child")
        self.rest = vm_area_dup(k, parent)
        self.rest.vm_mm = mm
        with writing(parent.vm_mm, mm):
            anon_vma_fork(k, self.rest, parent)
            self.half = vm_area_dup(k, self.rest)
            anon_vma_clone(k, self.half, self.rest)
        self.own: AnonVma = self.rest.anon_vma
        k.pg_mapping[PAGE] = self.own.handle << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_ANON
        k.pg_mapcount[PAGE] = 0

    def walk(self) -> None:
        """Lock the page's anon_vma, look at it for a while, and let go."""
        anon_vma = page_lock_anon_vma_read(self.k, PAGE)
        if anon_vma is None:
            return
        self.must_have(anon_vma)
        sched_point(OP_READ, FIELD_CONTENT, PAGE)
        self.must_have(anon_vma)
        page_unlock_anon_vma_read(anon_vma)

    def must_have(self, anon_vma: AnonVma) -> None:
        assert anon_vma is self.own
        assert anon_vma not in self.k.anon_vma_free, "the walker's anon_vma was freed"
        assert anon_vma.incarnation == 1, "the walker's anon_vma is another one"

    def exit(self) -> None:
        """Unmap half of the VMA, then the rest with the page, and let the slot be reused."""
        unlink_anon_vmas(self.k, self.half)
        assert mapcount_add_negative(self.k, PAGE)
        unlink_anon_vmas(self.k, self.rest)
        anon_vma_alloc(self.k)

    def finish(self) -> None:
        assert self.root.rwsem.count == self.own.rwsem.count == 0, "a lock is left"
        assert self.root.refcount == 1
        # Freed in any case, by whoever had it last; reused if that was in time.
        assert (self.own in self.k.anon_vma_free) == (self.own.incarnation == 1)
        assert self.own.refcount == self.own.incarnation - 1


def world(**quirks: bool) -> World:
    at = Exit(**quirks)
    return World(
        [
            Cpu("walker", at.walk, Task("walker", 1, None)),
            Cpu("exit", at.exit, Task("exit", 2, None)),
        ],
        at.finish,
    )


def test_a_walker_keeps_what_it_locked():
    result = explore(world)
    assert result.complete
    assert result.findings == []
    assert result.runs == SCHEDULES["as it is"]


def test_without_the_second_look_at_page_mapped_it_may_have_lost_it():
    result = explore(partial(world, page_mapped_recheck=False))
    assert result.complete
    assert result.runs == SCHEDULES["no recheck"]
    assert sorted((f.error, f.count) for f in result.findings) == [
        ("AssertionError: the walker's anon_vma is another one", 446),
        ("AssertionError: the walker's anon_vma was freed", 98),
    ]


def test_without_the_handshake_the_slow_way_may_have_lost_it():
    """The walker drops its reference while the exit still has one: only the lock it holds is left,
    and the exit must look for it."""
    result = explore(partial(world, free_handshake=False))
    assert result.complete
    assert result.runs == SCHEDULES["no handshake"]
    assert sorted((f.error, f.count) for f in result.findings) == [
        ("AssertionError: the walker's anon_vma is another one", 24),
        ("AssertionError: the walker's anon_vma was freed", 12),
    ]


def test_a_finding_is_replayed_from_its_schedule():
    broken = partial(world, free_handshake=False)
    (first, *_) = explore(broken, max_runs=SCHEDULES["no handshake"]).findings
    again = replay(broken, first.run.schedule)
    assert error_text(again.error) == first.error
    assert again.steps == first.run.steps
    assert "free anon_vma 0x2" in str(first)
