# SPDX-License-Identifier: GPL-2.0-only
"""The invariants of huge pages, each violated by a world of huge pages that was broken on purpose.

Like `tests.model.test_check`, with the hand-made world of `tests.model.huge_scene`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rmap.check import check_kernel
from rmap.check.translations import translation
from rmap.mm import bits
from rmap.mm.pgtable import pte_alloc_row
from rmap.mm.tlb import tlb_fill
from tests.model.huge_scene import HUGE, TABLE, HugeScene

PAGE = 4096
Damage = Callable[[HugeScene], None]
DAMAGES: list[tuple[str, Damage]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Say which invariant a damage violates."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((invariant, damage))
        return damage

    return register


# ---------------------------------------------------------------- heads and tails


@breaks("compound")
def a_tail_names_another_head(s: HugeScene) -> None:
    s.k.pg_lru_next[s.alone + 7] = s.both


@breaks("compound")
def a_tail_is_none(s: HugeScene) -> None:
    s.k.pg_flags[s.alone + 511] &= ~bits.PG_tail


@breaks("compound")
def a_small_page_is_a_tail(s: HugeScene) -> None:
    s.k.pg_flags[int(s.k.nr_pages)] |= bits.PG_tail


@breaks("compound")
def a_huge_page_has_another_order(s: HugeScene) -> None:
    s.k.pg_private[s.alone + 1] = 8


@breaks("compound")
def a_tail_has_a_reference(s: HugeScene) -> None:
    s.k.pg_refcount[s.both + 3] += 1


@breaks("compound")
def a_tail_is_on_the_lru(s: HugeScene) -> None:
    s.k.pg_flags[s.alone + 3] |= bits.PG_lru


@breaks("compound")
def the_flag_of_both_mappings_is_in_the_head(s: HugeScene) -> None:
    s.k.pg_flags[s.both] |= bits.PG_double_map


# ---------------------------------------------------------------- how often it is mapped


@breaks("compound-mapcount")
def a_huge_entry_is_not_counted(s: HugeScene) -> None:
    s.k.pg_lru_prev[s.alone + 1] = 0


@breaks("compound-mapcount")
def a_page_is_split_in_one_mm_that_no_other_maps_whole(s: HugeScene) -> None:
    s.k.pt[s.pmd(s.parent, s.private + HUGE)] = 0


@breaks("compound-mapcount")
def a_huge_entry_maps_a_tail(s: HugeScene) -> None:
    s.k.pt[s.pmd(s.parent, s.private)] += PAGE


@breaks("mapcount")
def a_part_is_mapped_by_both_sorts_and_has_no_base_count(s: HugeScene) -> None:
    s.k.pg_mapcount[s.both + 9] -= 1


@breaks("mapcount")
def a_part_of_a_page_counts_its_huge_entry(s: HugeScene) -> None:
    s.k.pg_mapcount[s.alone + 9] += 1


@breaks("mapcount")
def a_part_of_a_file_forgets_its_huge_entry(s: HugeScene) -> None:
    s.k.pg_mapcount[s.box + 9] -= 1


@breaks("refcount")
def a_small_entry_has_no_reference_of_the_head(s: HugeScene) -> None:
    s.k.pg_refcount[s.both] -= 1


@breaks("refcount")
def a_huge_entry_has_no_reference(s: HugeScene) -> None:
    s.k.pg_refcount[s.alone] -= 1


@breaks("refcount")
def the_cache_of_a_huge_page_holds_one_reference_less(s: HugeScene) -> None:
    s.k.pg_refcount[s.box] -= 1


@breaks("copy-on-write")
def a_huge_page_is_writable_of_which_another_maps_a_part(s: HugeScene) -> None:
    s.k.pt[s.pmd(s.parent, s.private + HUGE)] |= bits._PAGE_RW


# ---------------------------------------------------------------- where it is mapped


@breaks("tables")
def a_vma_ends_within_a_huge_entry(s: HugeScene) -> None:
    s.vma(s.parent, s.shared).vm_end -= PAGE


@breaks("reachable")
def a_huge_page_names_a_stranger(s: HugeScene) -> None:
    s.k.pg_mapping[s.alone] = s.k.pg_mapping[s.box]


@breaks("reachable")
def a_part_of_a_huge_page_is_mapped_one_page_too_far(s: HugeScene) -> None:
    at = s.pte(s.child, s.private + HUGE)
    s.k.pt[at], s.k.pt[at + 1] = s.k.pt[at + 1], s.k.pt[at]


@breaks("walks")
def a_huge_page_is_mapped_where_no_walk_comes(s: HugeScene) -> None:
    s.k.pg_index[s.both] += 512


@breaks("file-pages")
def a_huge_page_is_in_the_cache_in_another_order(s: HugeScene) -> None:
    pages = s.file.mapping.i_pages
    pages[4], pages[5] = pages[5], pages[4]


# ---------------------------------------------------------------- what huge entries need


@breaks("deposited")
def a_huge_entry_has_no_table_to_be_split_with(s: HugeScene) -> None:
    s.k.pmd_huge_pte[s.pmd(s.parent, s.private) // TABLE].pop()


@breaks("deposited")
def a_table_is_kept_for_no_huge_entry(s: HugeScene) -> None:
    kept = s.k.pmd_huge_pte[s.pmd(s.parent, s.private) // TABLE]
    kept.append(pte_alloc_row(s.k, s.parent.mm))


@breaks("deposited")
def a_kept_table_is_in_use(s: HugeScene) -> None:
    (row, *_) = s.k.pmd_huge_pte[s.pmd(s.parent, s.private) // TABLE]
    s.k.pt[row * TABLE + 5] = 1


@breaks("tables")
def a_kept_table_is_free_as_well(s: HugeScene) -> None:
    (row, *_) = s.k.pmd_huge_pte[s.pmd(s.parent, s.private) // TABLE]
    s.k.pt_free.append(row)


@breaks("vm-sizes")
def a_kept_table_is_not_counted(s: HugeScene) -> None:
    s.parent.mm.nr_ptes -= 1


@breaks("deferred-split")
def a_huge_page_is_not_put_back_into_the_queue(s: HugeScene) -> None:
    s.k.deferred_split_queue[s.both] = bits.SPLIT_TAKEN


@breaks("deferred-split")
def a_small_page_is_queued(s: HugeScene) -> None:
    s.k.deferred_split_queue[int(s.k.nr_pages)] = bits.SPLIT_QUEUED


@breaks("deferred-split")
def a_page_of_a_file_is_queued(s: HugeScene) -> None:
    s.k.deferred_split_queue[s.box] = bits.SPLIT_QUEUED


@breaks("huge-zero-page")
def a_reference_to_the_huge_zero_page_is_lost(s: HugeScene) -> None:
    s.k.huge_zero_refcount -= 1


@breaks("huge-zero-page")
def an_mm_maps_the_huge_zero_page_without_a_reference(s: HugeScene) -> None:
    s.parent.mm.has_huge_zero_page = False


# ---------------------------------------------------------------- what is counted


@breaks("rss")
def a_huge_page_counts_as_one(s: HugeScene) -> None:
    s.parent.mm.rss_stat[bits.MM_ANONPAGES] -= 511


@breaks("rss")
def shared_memory_is_counted_the_other_way(s: HugeScene) -> None:
    stat = s.parent.mm.rss_stat
    one, other = stat[bits.MM_FILEPAGES], stat[bits.MM_SHMEMPAGES]
    stat[bits.MM_FILEPAGES], stat[bits.MM_SHMEMPAGES] = other, one


def counts(name: str) -> None:
    """A statistic of huge pages that is off by one."""

    def damage(s: HugeScene) -> None:
        s.k.vm_stat[getattr(bits, name)] += 1

    damage.__name__ = f"{name.lower()}_is_off_by_one"
    breaks("vmstat")(damage)


for _name in ("NR_ANON_MAPPED", "NR_ANON_THPS", "NR_SHMEM_THPS", "NR_SHMEM_PMDMAPPED",
              "NR_FILE_MAPPED", "NR_FILE_PAGES", "NR_SHMEM", "NR_PAGETABLE"):  # fmt: skip
    counts(_name)


@breaks("memcg")
def a_cgroup_counts_mapped_pages_of_a_file_by_their_entries(s: HugeScene) -> None:
    s.k.memcgs[0].stat[bits.NR_FILE_MAPPED] -= 511


@breaks("lru")
def a_huge_page_is_one_page_of_its_list(s: HugeScene) -> None:
    lruvec = s.k.root_lruvec
    lruvec.head[bits.LRU_INACTIVE_ANON] = lruvec.tail[bits.LRU_INACTIVE_ANON] = s.alone
    lruvec.size[bits.LRU_INACTIVE_ANON] = 1
    s.k.vm_stat[bits.NR_INACTIVE_ANON] = 512
    s.k.pg_flags[s.alone] |= bits.PG_lru


@breaks("mlocked")
def a_huge_page_is_mlocked_that_nobody_maps(s: HugeScene) -> None:
    s.k.pg_flags[s.alone] |= bits.PG_mlocked
    s.k.pt[s.pmd(s.parent, s.private)] = 0


# ---------------------------------------------------------------- translations


def remember(s: HugeScene, address: int) -> None:
    """Let a CPU have used a part of a huge page."""
    with s.machine.running(s.parent) as k:
        tlb_fill(k, 0, s.parent.mm, address, translation(k, s.parent.mm, address))


@breaks("tlb")
def a_cpu_remembers_a_part_of_a_huge_page_that_was_write_protected(s: HugeScene) -> None:
    remember(s, s.private + 9 * PAGE)
    s.k.pt[s.pmd(s.parent, s.private)] &= ~bits._PAGE_RW


@breaks("tlb")
def a_cpu_remembers_a_part_of_another_huge_page(s: HugeScene) -> None:
    remember(s, s.private + 9 * PAGE)
    s.k.pt[s.pmd(s.parent, s.private)] += HUGE


@pytest.mark.parametrize("profile", ["4.18", "6.1"])
def test_the_world_is_sound(profile: str) -> None:
    scene = HugeScene(profile)
    remember(scene, scene.private + 9 * PAGE)
    assert scene.machine.check() == []


@pytest.mark.parametrize(
    ("invariant", "damage"), [pytest.param(name, run, id=run.__name__) for name, run in DAMAGES]
)
def test_damage_is_found(invariant: str, damage: Damage) -> None:
    scene = HugeScene()
    damage(scene)
    found = {violation.invariant for violation in scene.machine.check()}
    assert invariant in found


def test_an_entry_of_each_sort_that_a_migration_gave_back_counts_for_itself() -> None:
    """Without PG_double_map a small and a huge entry of one page are both first mappings."""
    s = HugeScene()
    s.k.pg_flags[s.both + 1] &= ~bits.PG_double_map
    for page in range(s.both, s.both + 512):
        s.k.pg_mapcount[page] -= 1
    (off,) = check_kernel(s.k, {})
    assert str(off) == "vmstat: NR_ANON_MAPPED 1024, found 1536"
    s.k.vm_stat[bits.NR_ANON_MAPPED] += 512
    assert check_kernel(s.k, {}) == []
