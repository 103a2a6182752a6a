# SPDX-License-Identifier: GPL-2.0-only
"""Broken memory in a huge page: it is split, and only the broken part of it is lost."""

from __future__ import annotations

from handmade import fork, pte_of, split_by_hand, touch_huge, world
from kernels import make_mm, map_pages

from rmap.mm.bits import (
    EBUSY,
    HPAGE_PMD_NR,
    MF_COUNT_INCREASED,
    MF_IGNORED,
    MF_MSG_DIRTY_LRU,
    MF_MSG_KERNEL_HIGH_ORDER,
    MF_RECOVERED,
    MM_ANONPAGES,
    PAGE_SIZE,
    PG_head,
    PG_hwpoison,
    PG_tail,
)
from rmap.mm.content import page_bytes, page_write
from rmap.mm.memory_failure import memory_failure
from rmap.mm.mm_types import Kernel, Task, Vma
from rmap.mm.page import get_page, page_mapcount
from rmap.mm.pgtable import (
    is_hwpoison_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    swp_offset,
)


def huge_family(**quirks: bool) -> tuple[Kernel, list[Vma], int]:
    """A process and its child, which map a huge page by PTEs."""
    k = world(4096, **quirks)
    vma = map_pages(k, make_mm(k, "p"), HPAGE_PMD_NR, HPAGE_PMD_NR)
    head = touch_huge(k, vma)
    split_by_hand(k, vma, head)
    vmas = [vma, fork(k, vma, "child")]
    for pid, each in enumerate(vmas):
        k.tasks.append(Task(each.vm_mm.comm, pid, each.vm_mm))
    k.early_kill = True
    for i in range(HPAGE_PMD_NR):
        page_write(k, head + i, 0, b"part %d" % i)
    return k, vmas, head


def poisoned(k: Kernel, vma: Vma) -> list[int]:
    """Which parts of a VMA are poisoned entries."""
    found = []
    for i in range(HPAGE_PMD_NR):
        pte = pte_of(k, vma, i)
        if pte and not pte_present(pte) and is_hwpoison_entry(pte_to_swp_entry(pte)):
            assert swp_offset(pte_to_swp_entry(pte)) % HPAGE_PMD_NR == i
            found.append(i)
    return found


def test_a_broken_part_is_told_of_by_its_own_address() -> None:
    k, vmas, head = huge_family()
    assert memory_failure(k, head + 5, 0) == 0
    assert k.mf_actions == [(head + 5, MF_MSG_DIRTY_LRU, MF_RECOVERED)]
    assert [(kill.task.name, kill.address, kill.addr_lsb) for kill in k.kills] == [
        (vma.vm_mm.comm, vma.vm_start + 5 * PAGE_SIZE, 12) for vma in vmas
    ]
    for vma in vmas:
        assert poisoned(k, vma) == [5]
        assert vma.vm_mm.rss_stat[MM_ANONPAGES] == HPAGE_PMD_NR - 1
    for i in range(HPAGE_PMD_NR):
        assert not k.pg_flags[head + i] & (PG_head | PG_tail)
        assert k.pg_flags[head + i] & PG_hwpoison == (PG_hwpoison if i == 5 else 0)
        if i != 5:
            assert pte_pfn(pte_of(k, vmas[1], i)) == head + i
            assert page_mapcount(k, head + i) == 2
            assert page_bytes(k, head + i) == b"part %d" % i
    assert k.pg_refcount[head + 5] == 1


def test_a_broken_head_takes_every_part_along() -> None:
    # The split leaves migration entries, but for pages that are broken; and v4.18 looks at the
    # head to know that. The parts are freed, with nobody told: nothing maps the page any more.
    k, vmas, head = huge_family()
    free = k.nr_free
    assert memory_failure(k, head, 0) == 0
    assert [poisoned(k, vma) for vma in vmas] == [list(range(HPAGE_PMD_NR))] * 2
    assert k.kills == []
    assert k.nr_free == free + HPAGE_PMD_NR - 1
    assert k.num_poisoned_pages == 1


def test_later_only_the_head_itself_is_lost() -> None:
    # The split now leaves a poisoned entry for the head only, and still nobody is collected.
    k, vmas, head = huge_family(poison_by_subpage=True)
    assert memory_failure(k, head, 0) == 0
    for vma in vmas:
        assert poisoned(k, vma) == [0]
        assert all(pte_present(pte_of(k, vma, i)) for i in range(1, HPAGE_PMD_NR))
    assert page_bytes(k, head + 511) == b"part 511"


def test_a_huge_page_that_somebody_holds_is_left_whole_and_not_broken() -> None:
    k, vmas, head = huge_family()
    get_page(k, head)
    assert memory_failure(k, head + 9, 0) == -EBUSY
    assert k.num_poisoned_pages == 0
    assert not k.pg_flags[head + 9] & PG_hwpoison
    assert k.pg_flags[head] & PG_head
    assert page_mapcount(k, head + 9) == 2
    assert poisoned(k, vmas[0]) == []
    assert not k.poisoned


def test_a_huge_page_of_shared_memory_is_refused() -> None:
    k, _vmas, head = huge_family()
    word = int(k.pg_mapping[head])
    k.pg_mapping[head] = 1 << 2
    assert memory_failure(k, head + 9, 0) == -EBUSY
    assert k.mf_actions == [(head + 9, MF_MSG_KERNEL_HIGH_ORDER, MF_IGNORED)]
    # Handed over with a reference, it gets as far as being split, and no further.
    get_page(k, head)
    assert memory_failure(k, head + 10, MF_COUNT_INCREASED) == -EBUSY
    assert not k.pg_flags[head + 10] & PG_hwpoison
    k.pg_mapping[head] = word
