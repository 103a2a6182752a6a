# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas through faults, forks, copies and exits, every count recomputed from scratch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Failing, make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.anon_vma import (
    ReuseRule,
    anon_vma_clone,
    anon_vma_fork,
    anon_vma_interval_tree_post_update_vma,
    anon_vma_interval_tree_pre_update_vma,
    anon_vma_merge,
    anon_vma_prepare,
    get_anon_vma,
    page_get_anon_vma,
    page_lock_anon_vma_read,
    page_unlock_anon_vma_read,
    put_anon_vma,
    unlink_anon_vmas,
)
from rmap.mm.bits import (
    ENOMEM,
    MAPPING_HANDLE_SHIFT,
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_KSM,
    PAGE_SHIFT,
    VM_READ,
)
from rmap.mm.bug import KernelBug
from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.vma import vm_area_dup
from rmap.sync.core import LockViolation


def fork(k: Kernel, pvma: Vma) -> Vma:
    """What dup_mmap() does to one VMA."""
    mm = make_mm(k)
    vma = vm_area_dup(k, pvma)
    vma.vm_mm = mm
    with writing(pvma.vm_mm, mm):
        assert anon_vma_fork(k, vma, pvma) == 0
    return vma


def copy(k: Kernel, src: Vma) -> Vma:
    """What a split does before it makes the halves smaller."""
    new = vm_area_dup(k, src)
    with writing(src.vm_mm):
        assert anon_vma_clone(k, new, src) == 0
    return new


def exit_vma(k: Kernel, vma: Vma) -> None:
    unlink_anon_vmas(k, vma)


def chain(vma: Vma) -> list[AnonVma]:
    return [avc.anon_vma for avc in vma.anon_vma_chain]


def tree(anon_vma: AnonVma) -> list[Vma]:
    """VMAs in the order of a walk."""
    found = []
    avc = interval_tree_iter_first(anon_vma.rb_root, 0, 2**64 - 1)
    while avc is not None:
        found.append(avc.vma)
        avc = interval_tree_iter_next(avc, 0, 2**64 - 1)
    return found


def check_counts(k: Kernel, vmas: list[Vma], pins: dict[int, int] | None = None) -> None:
    """Every count, tree and link of the forest, from nothing but the VMAs' chains."""
    pins = pins or {}
    edges = [(vma, avc) for vma in vmas for avc in vma.anon_vma_chain]
    alive = [av for av in k.anon_vmas[1:] if av.refcount]
    for av in alive:
        mine = [avc for _, avc in edges if avc.anon_vma is av]
        assert sorted(map(id, tree(av))) == sorted(id(avc.vma) for avc in mine)
        is_root = av.root is av
        members = sum(other.root is av and other is not av for other in alive)
        assert av.refcount == bool(mine) + members + pins.get(av.handle, 0)
        children = sum(
            other.parent is av and other is not av and bool(tree(other)) for other in alive
        )
        children += is_root and bool(mine)
        active = sum(vma.anon_vma is av for vma in vmas)
        assert av.degree == children + active
        assert (av.num_children, av.num_active_vmas) == (children, active)
        assert av.root.root is av.root
        assert av.root.parent is av.root
        assert av.rwsem.count == 0
    for vma in vmas:
        owned = chain(vma)
        assert (vma.anon_vma is None) == (not owned)
        assert len(set(map(id, owned))) == len(owned)
        if owned:
            assert vma.anon_vma in owned
            assert owned[-1] is owned[0].root
            assert all(av.root is owned[-1] and av.parent in owned for av in owned)
        assert all(avc.vma is vma for avc in vma.anon_vma_chain)
    free = [av.handle for av in k.anon_vma_free]
    assert sorted(free) == [av.handle for av in k.anon_vmas[1:] if not av.refcount]


def test_the_first_write_makes_a_root():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    assert (root.refcount, root.degree) == (1, 2)
    assert root.root is root.parent is root
    assert chain(vma) == [root]
    assert tree(root) == [vma]
    assert prepare(k, vma) is root, "a second write finds it"
    check_counts(k, [vma])


def test_fork_ties_the_child_to_the_parents_and_to_its_own():
    k = make_kernel()
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    child = fork(k, parent)
    own = child.anon_vma
    assert (own.refcount, own.degree) == (1, 1)
    assert own.parent is own.root is root
    assert (root.refcount, root.degree) == (2, 3)
    assert chain(child) == [own, root], "newest first"
    assert tree(root) == [parent, child], "the child's edge was made later"
    check_counts(k, [parent, child])


def test_the_child_exits_first():
    k = make_kernel()
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    child = fork(k, parent)
    own = child.anon_vma
    exit_vma(k, child)
    assert (root.refcount, root.degree) == (1, 2)
    assert own.refcount == own.degree == 0
    assert k.anon_vma_free == [own]
    check_counts(k, [parent])


def test_the_parent_exits_first_and_its_anon_vma_stays_for_the_child():
    k = make_kernel()
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    child = fork(k, parent)
    own = child.anon_vma
    exit_vma(k, parent)
    assert (root.refcount, root.degree) == (2, 2)
    assert tree(root) == [child]
    exit_vma(k, child)
    assert root.refcount == own.refcount == root.degree == own.degree == 0
    assert k.anon_vma_free == [own, root], "the root goes last: its lock frees the others"
    assert k.warnings == []


def test_a_pin_on_the_childs_keeps_the_root_for_its_lock():
    k = make_kernel()
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    child = fork(k, parent)
    own = child.anon_vma
    get_anon_vma(own)
    exit_vma(k, parent)
    exit_vma(k, child)
    assert (own.refcount, root.refcount) == (1, 1)
    put_anon_vma(k, own)
    assert k.anon_vma_free == [own, root]


def test_a_freed_slot_is_the_next_to_be_used():
    k = make_kernel()
    first = map_pages(k, make_mm(k), 16, 1)
    slot = prepare(k, first)
    exit_vma(k, first)
    second = map_pages(k, make_mm(k), 99, 1)
    assert prepare(k, second) is slot
    assert slot.incarnation == 2
    check_counts(k, [second])


def test_a_process_that_forks_and_exits_for_ever_has_a_short_chain():
    """Reuse: without it every generation would add an anon_vma to the chain."""
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    prepare(k, vma)
    for _ in range(50):
        child = fork(k, vma)
        exit_vma(k, vma)
        vma = child
    assert len(vma.anon_vma_chain) <= 3
    check_counts(k, [vma])


def test_a_rule_of_ones_own_in_a_few_lines():
    class NeverReuse(ReuseRule):
        def may_reuse(self, k, dst, src, anon_vma):
            return False

    k = make_kernel()
    k.reuse_rule = NeverReuse()
    vma = map_pages(k, make_mm(k), 16, 4)
    prepare(k, vma)
    for _ in range(50):
        child = fork(k, vma)
        exit_vma(k, vma)
        vma = child
    assert len(vma.anon_vma_chain) == 51
    check_counts(k, [vma])


def test_a_rule_may_come_with_the_profile():
    class AlwaysReuse(ReuseRule):
        def may_reuse(self, k, dst, src, anon_vma):
            return True

    k = make_kernel()
    prof = k.profile
    prof.reuse_rule = AlwaysReuse()
    k = Kernel(16, prof)
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    assert fork(k, parent).anon_vma is root


def two_owners(k: Kernel) -> tuple[AnonVma, AnonVma]:
    """CVE-2022-42703: the anon_vmas of two live children of one process."""
    p = map_pages(k, make_mm(k, "P"), 16, 4)
    prepare(k, p)
    c1 = fork(k, p)
    a1 = c1.anon_vma
    c2 = fork(k, c1)
    a2 = c2.anon_vma
    exit_vma(k, c1)
    assert a1.degree == 1
    c3 = fork(k, c2)
    assert c3.anon_vma is a1
    exit_vma(k, c2)
    assert (a2.degree, tree(a2)) == (0, [c3])
    c4 = fork(k, c3)
    assert c4.anon_vma is a2
    c5 = fork(k, c3)
    check_counts(k, [p, c3, c4, c5])
    return c4.anon_vma, c5.anon_vma


def test_a_reused_leaf_is_reused_again_while_its_owner_lives():
    first, second = two_owners(make_kernel())
    assert first is second


def test_separate_counters_tell_an_owner_from_a_child():
    first, second = two_owners(make_kernel(separate_reuse_counters=True))
    assert first is not second


def test_a_copy_takes_the_edges_and_counts_once_more():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    half = copy(k, vma)
    assert half.anon_vma is root
    assert (root.refcount, root.degree) == (1, 3)
    check_counts(k, [vma, half])
    with writing(vma.vm_mm):
        anon_vma_merge(k, vma, half)
    assert root.degree == 2
    check_counts(k, [vma])


def test_merging_what_belongs_to_another_anon_vma_is_a_bug():
    k = make_kernel()
    one, other = (map_pages(k, make_mm(k), 16, 4) for _ in range(2))
    prepare(k, one)
    prepare(k, other)
    with pytest.raises(KernelBug, match="different anon_vmas"):
        anon_vma_merge(k, one, other)


def test_a_neighbour_of_other_rights_shares_its_anon_vma():
    k = make_kernel()
    mm = make_mm(k)
    vma = map_pages(k, mm, 16, 4)
    after = map_pages(k, mm, 20, 4, vma.vm_flags & ~VM_READ)
    root = prepare(k, vma)
    assert prepare(k, after) is root
    assert (root.refcount, root.degree) == (1, 3)
    check_counts(k, [vma, after])


def test_a_neighbour_that_was_forked_does_not_share():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    prepare(k, vma)
    child = fork(k, vma)
    with writing(child.vm_mm):
        child.vm_mm.vmas.append(child)
        child.vm_mm.mmap = child
    after = map_pages(k, child.vm_mm, 20, 4)
    assert prepare(k, after) is not child.anon_vma
    check_counts(k, [vma, child, after])


def test_a_linked_vma_changes_its_range_between_pre_and_post_update():
    k = make_kernel()
    mm = make_mm(k)
    vma = map_pages(k, mm, 16, 8)
    root = prepare(k, vma)
    half = copy(k, vma)
    with writing(mm):
        root.rwsem.down_write()
        anon_vma_interval_tree_pre_update_vma(k, vma)
        assert tree(root) == [half]
        vma.vm_start += 4 << PAGE_SHIFT
        vma.vm_pgoff += 4
        anon_vma_interval_tree_post_update_vma(k, vma)
        root.rwsem.up_write()
    assert vma in tree(root)
    avc = vma.anon_vma_chain[0]
    assert (avc.cached_start, avc.cached_last) == (20, 23)


# ---------------------------------------------------------------- properties


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["map", "prepare", "fork", "fork", "copy", "exit", "pin", "unpin"]),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(STEPS, st.booleans(), st.booleans())
def test_counts_are_what_the_forest_says(steps, separate, clears):
    k = make_kernel(separate_reuse_counters=separate, unlink_clears_anon_vma=clears)
    vmas = [map_pages(k, make_mm(k), 16, 4)]
    pins: dict[int, int] = {}
    for step, which in steps:
        vma = vmas[which % len(vmas)] if vmas else None
        if step == "map":
            vmas.append(map_pages(k, make_mm(k), 16 + which, 4))
        elif vma is None:
            continue
        elif step == "prepare":
            prepare(k, vma)
        elif step == "fork":
            vmas.append(fork(k, vma))
        elif step == "copy":
            vmas.append(copy(k, vma))
        elif step == "exit":
            exit_vma(k, vma)
            assert vma.anon_vma_chain == []
            vmas.remove(vma)
        elif step == "pin" and vma.anon_vma is not None:
            get_anon_vma(vma.anon_vma)
            pins[vma.anon_vma.handle] = pins.get(vma.anon_vma.handle, 0) + 1
        elif step == "unpin" and pins:
            handle = sorted(pins)[which % len(pins)]
            put_anon_vma(k, k.anon_vmas[handle])
            pins[handle] -= 1
            if not pins[handle]:
                del pins[handle]
        check_counts(k, vmas, pins)
    for vma in vmas:
        exit_vma(k, vma)
    for handle, count in pins.items():
        for _ in range(count):
            put_anon_vma(k, k.anon_vmas[handle])
    assert len(k.anon_vma_free) == len(k.anon_vmas) - 1
    assert k.warnings == []


def everything(k: Kernel, vmas: list[Vma]) -> list[object]:
    """All that a failed call must leave as it was."""
    return [
        [(v.ident, v.anon_vma, [(a, a.anon_vma) for a in v.anon_vma_chain]) for v in vmas],
        [
            (av, av.refcount, av.degree, av.num_children, av.num_active_vmas, tree(av))
            for av in k.anon_vmas[1:]
            if av.refcount
        ],
    ]


def failing_call(k: Kernel, call: str, vma: Vma, plan: Failing) -> tuple[int, Vma]:
    """Prepare, clone or fork `vma`; the result, and the VMA that was to be given a chain."""
    mm = make_mm(k)
    new = vma if call == "prepare" else vm_area_dup(k, vma)
    k.inject = plan
    with writing(vma.vm_mm, mm):
        if call == "prepare":
            return anon_vma_prepare(k, vma), vma
        if call == "clone":
            return anon_vma_clone(k, new, vma), new
        new.vm_mm = mm
        return anon_vma_fork(k, new, vma), new


@pytest.mark.parametrize("call", ["prepare", "clone", "fork"])
def test_without_memory_everything_is_as_before(call):
    """Every allocation of the call fails in turn, with all that follow it."""
    for first in range(1, 20):
        k = make_kernel()
        vma = map_pages(k, make_mm(k), 16, 4)
        vmas = [vma]
        if call != "prepare":
            prepare(k, vma)
            for _ in range(3):
                vmas.append(fork(k, vmas[-1]))
        before = everything(k, vmas)
        result, target = failing_call(k, call, vmas[-1], Failing(first))
        if result == 0:
            break
        assert result == -ENOMEM
        assert target.anon_vma_chain == []
        assert call == "clone" or target.anon_vma is None
        assert everything(k, vmas) == before
        assert k.warnings == []
    else:
        pytest.fail("the call asks for more memory than it can")
    assert first == {"prepare": 3, "clone": 5, "fork": 7}[call]


def test_a_refusal_without_waiting_is_tried_again_without_the_lock():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    prepare(k, vma)
    child = fork(k, vma)
    k.inject = Failing(2, "anon_vma_chain", once=True)
    grandchild = fork(k, child)
    assert k.inject.asked == 4, "two edges, the second asked for twice, and its own"
    check_counts(k, [vma, child, grandchild])


# ---------------------------------------------------------------- from a page


def anon_page(k: Kernel, page: int, anon_vma: AnonVma, *, tag: int = PAGE_MAPPING_ANON) -> int:
    k.pg_mapping[page] = anon_vma.handle << MAPPING_HANDLE_SHIFT | tag
    k.pg_mapcount[page] = 0
    return page


def test_a_mapped_page_gives_its_anon_vma_locked_or_pinned():
    k = make_kernel()
    parent = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, parent)
    own = fork(k, parent).anon_vma
    page = anon_page(k, 5, own)
    assert page_lock_anon_vma_read(k, page) is own
    assert (root.rwsem.count, own.rwsem.count) == (1, 0), "the lock is the root's"
    page_unlock_anon_vma_read(own)
    assert page_get_anon_vma(k, page) is own
    assert own.refcount == 2
    put_anon_vma(k, own)


@pytest.mark.parametrize("how", ["unmapped", "file", "ksm", "none", "freed"])
def test_other_pages_give_nothing(how):
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    page = anon_page(k, 5, root, tag=PAGE_MAPPING_KSM if how == "ksm" else PAGE_MAPPING_ANON)
    if how == "unmapped":
        k.pg_mapcount[page] = -1
    elif how == "file":
        k.pg_mapping[page] = root.handle << MAPPING_HANDLE_SHIFT
    elif how == "none":
        k.pg_mapping[page] = 0
    elif how == "freed":
        exit_vma(k, vma)
    assert page_get_anon_vma(k, page) is None
    if how == "freed":
        # Memory is type-stable, so the lock of what is free can be had; only the page, which is
        # wrongly mapped here, could have told.
        assert page_lock_anon_vma_read(k, page) is root
        page_unlock_anon_vma_read(root)
    else:
        assert page_lock_anon_vma_read(k, page) is None


def test_chains_change_only_under_their_locks():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    with pytest.raises(LockViolation, match="needs mm->mmap_sem"):
        anon_vma_prepare(k, vma)
    prepare(k, vma)
    with pytest.raises(LockViolation, match=r"needs mm->mmap_sem .* for write"):
        anon_vma_clone(k, vm_area_dup(k, vma), vma)
    with pytest.raises(LockViolation, match=r"needs anon_vma->rwsem .* for write"):
        anon_vma_interval_tree_pre_update_vma(k, vma)


def test_a_reference_too_few_is_a_bug():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    exit_vma(k, vma)
    with pytest.raises(KernelBug, match="no references"):
        put_anon_vma(k, root)
