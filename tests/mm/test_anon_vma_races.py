# SPDX-License-Identifier: GPL-2.0-only
"""What another CPU can do in between, branch by branch; each order is one the explorer can find."""

from __future__ import annotations

import pytest
from interruptions import interrupted
from kernels import child_with_page, make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.anon_vma import (
    anon_vma_fork,
    anon_vma_free,
    anon_vma_prepare,
    page_get_anon_vma,
    page_lock_anon_vma_read,
    page_unlock_anon_vma_read,
    put_anon_vma,
    unlink_anon_vmas,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.page import mapcount_add_negative
from rmap.mm.vma import vm_area_dup
from rmap.sync.bits import (
    FIELD_ANON_VMA_REFCOUNT,
    FIELD_MAPCOUNT,
    OP_ACQUIRE,
    OP_READ,
    OP_RMW,
    OP_TRY,
    RANK_ANON_VMA,
)

PAGE = 5
TRYLOCK = (OP_TRY, RANK_ANON_VMA)
LOCK = (OP_ACQUIRE, RANK_ANON_VMA)
REFCOUNT = (OP_RMW, FIELD_ANON_VMA_REFCOUNT)
MAPPED_AGAIN = (OP_READ, FIELD_MAPCOUNT, 1)


class Family:
    """A parent, and a child with a page of its own."""

    def __init__(self, **quirks: bool) -> None:
        k: Kernel = make_kernel(8, **quirks)
        self.k = k
        self.child: Vma = child_with_page(k, PAGE)
        self.own: AnonVma = self.child.anon_vma
        self.root: AnonVma = self.own.root

    def unmap(self) -> None:
        assert mapcount_add_negative(self.k, PAGE)

    def exit(self) -> None:
        self.unmap()
        unlink_anon_vmas(self.k, self.child)

    def lock(self) -> None:
        self.root.rwsem.down_write()

    def unlock(self) -> None:
        self.root.rwsem.up_write()


def test_two_threads_fault_in_one_vma_and_the_second_gives_its_anon_vma_back():
    k = make_kernel()
    mm = make_mm(k)
    vma = map_pages(k, mm, 16, 4)

    def other_thread() -> None:
        mm.mmap_sem.down_read()
        assert anon_vma_prepare(k, vma) == 0
        mm.mmap_sem.up_read()

    mm.mmap_sem.down_read()
    with interrupted((LOCK, other_thread)):
        assert anon_vma_prepare(k, vma) == 0
    mm.mmap_sem.up_read()
    root = vma.anon_vma
    assert (root.refcount, root.degree, len(vma.anon_vma_chain)) == (1, 2, 1)
    assert [av.handle for av in k.anon_vma_free] == [3 - root.handle]


def test_unmapped_before_the_trylock():
    f = Family()
    with interrupted((TRYLOCK, f.unmap)):
        assert page_lock_anon_vma_read(f.k, PAGE) is None


def test_the_lock_is_taken_so_it_is_waited_for_with_a_reference():
    f = Family()
    with interrupted((TRYLOCK, f.lock), (LOCK, f.unlock)):
        assert page_lock_anon_vma_read(f.k, PAGE) is f.own
    assert (f.own.refcount, f.root.rwsem.count) == (1, 1)
    page_unlock_anon_vma_read(f.own)


def test_freed_while_the_lock_is_taken():
    f = Family()

    def exit() -> None:
        f.unlock()
        f.exit()

    with interrupted((TRYLOCK, f.lock), (REFCOUNT, exit)):
        assert page_lock_anon_vma_read(f.k, PAGE) is None
    assert f.own.refcount == 0


def test_unmapped_while_the_lock_is_taken():
    f = Family()

    def unmap() -> None:
        f.unlock()
        f.unmap()

    with interrupted((TRYLOCK, f.lock), (MAPPED_AGAIN, unmap)):
        assert page_lock_anon_vma_read(f.k, PAGE) is None
    assert f.own.refcount == 1


def test_the_reference_is_the_last_one_by_the_time_it_has_the_lock():
    f = Family()

    def exit() -> None:
        f.unlock()
        f.exit()

    with interrupted((TRYLOCK, f.lock), (LOCK, exit)):
        assert page_lock_anon_vma_read(f.k, PAGE) is None
    assert f.k.anon_vma_free == [f.own]
    assert f.root.refcount == 1


def test_a_pin_of_what_was_unmapped_meanwhile_is_given_back():
    f = Family()
    with interrupted((REFCOUNT, f.unmap)):
        assert page_get_anon_vma(f.k, PAGE) is None
    assert f.own.refcount == 1


def test_a_pin_that_comes_too_late_finds_no_references():
    f = Family()
    with interrupted((REFCOUNT, f.exit)):
        assert page_get_anon_vma(f.k, PAGE) is None
    assert f.own.refcount == 0


def test_without_the_second_look_the_pin_is_somebody_elses():
    f = Family(page_mapped_recheck=False)
    with interrupted((REFCOUNT, f.unmap)):
        pinned = page_get_anon_vma(f.k, PAGE)
    assert pinned is f.own
    put_anon_vma(f.k, pinned)


def test_whoever_frees_waits_for_the_readers_of_the_root():
    f = Family()
    waited = []

    def leave() -> None:
        waited.append(True)
        f.root.rwsem.up_read()

    looks = (OP_READ, RANK_ANON_VMA)
    f.unmap()
    with interrupted((looks, f.root.rwsem.down_read), (LOCK, leave)):
        unlink_anon_vmas(f.k, f.child)
    assert waited
    assert f.k.anon_vma_free == [f.own]


# ---------------------------------------------------------------- what must not be


def test_a_chain_with_two_roots_is_warned_of():
    k = make_kernel()
    one, other = (map_pages(k, make_mm(k), 16, 4) for _ in range(2))
    prepare(k, one)
    prepare(k, other)
    one.anon_vma_chain += other.anon_vma_chain
    other.anon_vma_chain = []
    unlink_anon_vmas(k, one)
    assert [warning.check for warning in k.warnings][:1] == [
        "rmap.c:235 lock_anon_vma_root: a chain with two roots"
    ]


@pytest.mark.parametrize("separate", [False, True])
def test_a_count_that_is_left_is_warned_of(separate):
    k = make_kernel(separate_reuse_counters=separate)
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    if separate:
        root.num_children += 1
    else:
        root.degree += 1
    unlink_anon_vmas(k, vma)
    (warning,) = k.warnings
    assert warning.check == "rmap.c:415 unlink_anon_vmas: a count is left on an empty anon_vma"


def test_an_anon_vma_with_references_is_not_freed():
    k = make_kernel()
    root = prepare(k, map_pages(k, make_mm(k), 16, 4))
    with pytest.raises(KernelBug, match="has references"):
        anon_vma_free(k, root)


def test_a_vma_without_edges_has_nothing_to_unlink_or_to_fork():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    unlink_anon_vmas(k, vma)
    with writing(vma.vm_mm):
        child = vm_area_dup(k, vma)
        assert anon_vma_fork(k, child, vma) == 0
    assert child.anon_vma is None
    assert len(k.anon_vmas) == 1
