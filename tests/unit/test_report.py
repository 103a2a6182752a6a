# SPDX-License-Identifier: GPL-2.0-only
"""What `rmap report` adds up, told as stories: who shares what, and what comes back."""

from __future__ import annotations

import pytest

from rmap.errors import PrivilegeError, QueryError, TargetError
from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.query.report import Group, Report, report
from tests.images import ANON, FILE, PAGE, SHMEM, SPECIAL, ZERO, World, swap_entry

HEAP = 0x400000
TABLE = 0x7F0000000000
HUGE_PAGE = 512 * PAGE


def group(answer: Report, key: str | int) -> Group:
    (found,) = [g for g in answer.groups if g.key == str(key)]
    return found


def shell_and_child(pages: int = 4) -> World:
    """A shell with a heap forks, and the child writes to the last page of it."""
    world = World()
    shell = world.process(100, "bash")
    shell.vma(HEAP, pages=pages, name="[heap]").map(HEAP, *range(0x20, 0x20 + pages))
    world.pages(0x20, pages)
    child = shell.fork(101)
    child.remap(HEAP + (pages - 1) * PAGE, 0x28)
    world.pages(0x28)
    return world


def test_fork_shares_what_nobody_wrote() -> None:
    answer = report(shell_and_child().build())
    child = group(answer, 101)
    assert child.rss.anon == child.rss.total == 4 * PAGE
    assert child.uss.total == PAGE
    assert child.pss.total == PAGE + 3 * PAGE // 2
    assert child.guss.total == PAGE
    assert answer.total.rss.total == 8 * PAGE
    assert answer.total.guss.total == 5 * PAGE, "each page once, once both are gone"


def test_command_group_owns_what_its_processes_share_among_themselves() -> None:
    (bash,) = report(shell_and_child().build(), by="command").groups
    assert (bash.key, bash.label, bash.pids, bash.mms) == ("bash", "bash", (100, 101), 2)
    assert bash.guss.total == 5 * PAGE
    assert bash.uss.total == 2 * PAGE


def test_pss_is_rounded_down_for_each_mapping_and_once_more_at_the_end() -> None:
    world = World()
    for pid in (1, 2, 3):
        process = world.process(pid)
        process.vma(HEAP, pages=1).map(HEAP, 0x20)
        process.vma(TABLE, pages=1, path="/lib/a").map(TABLE, 0x21)
    world.pages(0x20, 1, ANON)
    world.pages(0x21, 1, FILE)
    third = (PAGE << 12) // 3
    pss = group(report(world.build()), 1).pss
    assert pss.anon == pss.file == third >> 12 == 1365
    assert pss.total == (2 * third) >> 12 == 2730
    total = report(world.build()).total.pss
    assert total.anon == (3 * third) >> 12 == PAGE - 1, "what the rounding loses stays lost"


def test_rounding_of_the_total_may_exceed_the_sum_of_the_kinds() -> None:
    world = World()
    process = world.process(1)
    process.vma(HEAP, pages=1).map(HEAP, 0x20)
    process.vma(TABLE, pages=2, path="/lib/a").map(TABLE, 0x21)
    world.pages(0x20, 1, ANON, mapcount=3)
    world.pages(0x21, 1, FILE, mapcount=3 * 7)
    pss = group(report(world.build()), 1).pss
    shares = (PAGE << 12) // 3, (PAGE << 12) // 21
    assert (pss.anon, pss.file) == (shares[0] >> 12, shares[1] >> 12)
    assert pss.total == sum(shares) >> 12


def test_unread_process_takes_its_share_of_pss() -> None:
    world = World()
    world.process(1, "init", status="denied")
    process = world.process(2, "cron")
    process.vma(TABLE, pages=2, path="/lib/libc").map(TABLE, 0x20, 0x21)
    world.pages(0x20, 1, FILE, mapcount=2)
    world.pages(0x21, 1, FILE)
    answer = report(world.build())
    cron = group(answer, 2)
    assert (cron.rss.file, cron.pss.file, cron.uss.file, cron.guss.file) == (
        2 * PAGE, PAGE * 3 // 2, PAGE, PAGE,
    )  # fmt: skip
    assert (answer.unattributed.size, answer.unattributed.mappings) == (PAGE, 1)
    assert (answer.unattributed.file, answer.unattributed.unfound) == (PAGE, 0)
    assert [(u.status, u.processes) for u in answer.unread] == [("denied", ((1, "init"),))]


def test_page_that_only_unread_processes_map_is_unattributed_and_unfound() -> None:
    world = World()
    world.process(1, "init", status="denied")
    world.pages(0x20, 3, ANON, mapcount=1)
    world.pages(0x23, 1, ANON, mapcount=1, changed=True)
    answer = report(world.build())
    assert answer.unattributed.size == answer.unattributed.unfound == 3 * PAGE
    assert answer.unattributed.anon == 3 * PAGE
    assert answer.changed == PAGE
    assert answer.groups == ()


def test_page_mapped_twice_by_one_process_counts_twice_in_rss() -> None:
    world = World()
    process = world.process(7)
    process.vma(TABLE, pages=1, path="/f").map(TABLE, 0x20)
    process.vma(TABLE + 0x10000, pages=1, path="/f").map(TABLE + 0x10000, 0x20)
    world.pages(0x20, 1, FILE)
    only = group(report(world.build()), 7)
    assert only.rss.file == 2 * PAGE
    assert only.pss.file == PAGE
    assert only.uss.file == 0, "the kernel calls it shared"
    assert only.guss.file == PAGE, "yet all of it is this process's"


def two_that_share_an_mm() -> World:
    world = World()
    leader = world.process(10, "java")
    leader.vma(HEAP, pages=2).map(HEAP, 0x20, 0x21)
    leader.vfork(11)
    world.pages(0x20, 2)
    return world


def test_shared_address_space_counts_once_in_a_group() -> None:
    answer = report(two_that_share_an_mm().build(), by="command")
    java = group(answer, "java")
    assert (java.pids, java.mms) == ((10, 11), 1)
    assert java.rss.total == java.guss.total == 2 * PAGE


def test_shared_address_space_does_not_go_with_one_of_its_processes() -> None:
    answer = report(two_that_share_an_mm().build())
    for pid in (10, 11):
        assert group(answer, pid).rss.total == group(answer, pid).uss.total == 2 * PAGE
        assert group(answer, pid).guss.total == 0, "the other one keeps it"
    assert answer.total.rss.total == answer.total.guss.total == 2 * PAGE
    assert answer.shared.size.tolist() == [[2 * PAGE] * 2] * 2


def test_user_of_an_address_space_outside_the_report_keeps_it() -> None:
    world = two_that_share_an_mm()
    assert report(world.build(), pids=[10, 11]).total.guss.total == 2 * PAGE
    assert report(world.build(), pids=[10]).total.guss.total == 0
    world.mms[0]["users"] = 3  # one more, of which the image has no process
    assert report(world.build()).total.guss.total == 0


def huge_page_and_a_child_that_wrote() -> World:
    """A huge page; a forked child maps it by single entries, but for a page it wrote to."""
    world = World()
    parent = world.process(1, "db")
    parent.vma(TABLE, pages=512).map_huge(TABLE, 0x200)
    child = world.process(2, "db")
    child.vma(TABLE, pages=512).map(TABLE, *range(0x200, 0x3FF), 0x20)
    world.folio(0x200, 9)
    world.pages(0x20)
    return world


def test_huge_page_mapped_by_one_entry_and_by_many() -> None:
    answer = report(huge_page_and_a_child_that_wrote().build())
    parent, child = group(answer, 1), group(answer, 2)
    assert parent.rss.anon == child.rss.anon == HUGE_PAGE
    assert parent.uss.anon == child.uss.anon == PAGE
    assert parent.pss.anon == child.pss.anon == 511 * PAGE // 2 + PAGE
    assert parent.guss.anon == child.guss.anon == PAGE
    assert answer.total.guss.anon == HUGE_PAGE + PAGE
    assert answer.shared.size.tolist() == [
        [HUGE_PAGE, 511 * PAGE],
        [511 * PAGE, HUGE_PAGE],
    ]


def test_hugetlb_stands_apart() -> None:
    world = World()
    hugetlb = Kpf.HUGE | Kpf.COMPOUND_HEAD
    flags = Pte.PRESENT | Pte.FILE | Pte.HUGETLB
    for pid in (1, 2):
        process = world.process(pid)
        process.vma(TABLE, pages=512, path="/huge").map_huge(TABLE, 0x200, flags=flags)
    world.pages(0x200, 512, hugetlb)
    one = group(report(world.build()), 1)
    assert (one.rss.hugetlb, one.pss.hugetlb, one.uss.hugetlb) == (HUGE_PAGE, HUGE_PAGE // 2, 0)
    assert one.rss.total == one.pss.total == one.rss.file == 0
    assert report(world.build()).total.guss.hugetlb == HUGE_PAGE


def test_hugetlb_page_table_that_two_processes_share() -> None:
    # The kernel counts the table's mapping once, so more is found than counted.
    world = World()
    for pid in (1, 2):
        process = world.process(pid)
        process.vma(TABLE, pages=512, path="/huge").map_huge(TABLE, 0x200)
    world.pages(0x200, 512, Kpf.HUGE, mapcount=1)
    answer = report(world.build())
    assert group(answer, 1).guss.hugetlb == 0, "the other process has it too"
    assert answer.total.guss.hugetlb == HUGE_PAGE


def test_zero_page_and_pfn_maps_are_not_resident() -> None:
    world = World()
    process = world.process(1)
    process.vma(HEAP, pages=3).map(HEAP, 0x20, 0x20, 0x21, flags=SPECIAL)
    world.pages(0x20, 1, ZERO)
    world.pages(0x21, 1, Kpf.RESERVED)
    only = group(report(world.build()), 1)
    assert only.rss.total == only.pss.total == only.guss.total == 0


def test_swap_is_shared_like_memory() -> None:
    world = World()
    parent = world.process(1)
    parent.vma(HEAP, pages=2).swap(HEAP, 5, 6)
    child = parent.fork(2)
    child.unmap(HEAP)
    parent_group = group(report(world.build()), 1)
    assert (parent_group.swap, parent_group.swap_pss) == (2 * PAGE, PAGE * 3 // 2)
    world.swap_slots = [{"entry": swap_entry(6), "count": 4, "cache_pfn": -1}]
    assert group(report(world.build()), 1).swap_pss == PAGE + PAGE // 4, "the kernel knows of 4"
    assert group(report(world.build()), 1).rss.total == 0


def test_guard_and_poison_markers_are_no_swap() -> None:
    world = World()
    process = world.process(1)
    process.vma(HEAP, pages=2).swap(HEAP, 5)
    process.pte(HEAP + PAGE, swap_entry(5), flags=Pte.SWAP | Pte.GUARD)
    only = group(report(world.build()), 1)
    assert (only.swap, only.swap_pss) == (PAGE, PAGE)


def test_migrating_page_is_resident_as_smaps_counts_it() -> None:
    world = World()
    process = world.process(1)
    process.vma(HEAP, pages=1)
    process.pte(HEAP, 0x20, flags=Pte.SWAP | Pte.MIGRATION)
    world.pages(0x20, 1, SHMEM)
    only = group(report(world.build()), 1)
    assert (only.rss.shmem, only.pss.shmem, only.uss.shmem, only.swap) == (PAGE, PAGE, 0, 0)


def test_unknown_mapcount_is_estimated_and_said_so() -> None:
    world = World()
    for pid in (1, 2):
        process = world.process(pid)
        process.vma(HEAP, pages=2).map(HEAP, 0x20)
        process.pte(HEAP + PAGE, 0x30 + pid)  # pages that the image does not describe
    world.pages(0x20, mapcount=-1)
    one = group(report(world.build(scope="processes")), 1)
    assert one.estimated == 2 * PAGE
    assert one.pss.anon == PAGE + PAGE // 2
    assert one.uss.anon == PAGE


def libraries() -> MemoryImage:
    """Three commands: all map libc, two map libssl, each has a heap of its own size."""
    world = World()
    for number, comm in enumerate(("nginx", "curl", "cat")):
        process = world.process(10 + number, comm, cgroup=f"/{comm}", uid=number % 2)
        pages = 12 >> number
        process.vma(HEAP, pages=pages).map(HEAP, *range(0x100 * number, 0x100 * number + pages))
        world.pages(0x100 * number, pages)
        process.vma(TABLE, pages=2, path="/libc").map(TABLE, 0x400, 0x401)
        if comm != "cat":
            process.vma(TABLE + 0x10000, pages=1, path="/libssl").map(TABLE + 0x10000, 0x402)
    world.pages(0x400, 3, FILE)
    return world.build()


def test_matrix_names_the_largest_and_sums_up_the_others() -> None:
    image = libraries()
    full = report(image, by="command").shared
    assert (full.keys, full.others) == (("nginx", "curl", "cat"), False)
    assert (full.size // PAGE).tolist() == [[15, 3, 2], [3, 9, 2], [2, 2, 5]]
    short = report(image, by="command", top=1).shared
    assert (short.keys, short.others) == (("nginx",), True)
    assert (short.size // PAGE).tolist() == [[15, 3], [3, 12]], "9 + 5 - libc"


def test_chosen_processes_still_share_with_the_others() -> None:
    answer = report(libraries(), pids=[11])
    assert [g.key for g in answer.groups] == ["11"]
    assert (answer.shared.keys, answer.shared.others) == (("11",), True)
    assert (answer.shared.size // PAGE).tolist() == [[9, 3], [3, 18]]
    shares = 6 * (PAGE << 12) + 2 * ((PAGE << 12) // 3) + (PAGE << 12) // 2
    assert group(answer, 11).pss.total == shares >> 12


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("process", ["10", "11", "12"]),
        ("user", ["root", "1"]),
        ("cgroup", ["/nginx", "/curl", "/cat"]),
    ],
)
def test_groups_by(by: str, keys: list[str]) -> None:
    answer = report(libraries(), by=by)  # type: ignore[arg-type]  # a str of the parameters
    assert [g.key for g in answer.groups] == keys
    assert [g.label for g in answer.groups][:1] == ["nginx" if by == "process" else keys[0]]


def test_equal_groups_stand_in_the_order_of_pids() -> None:
    world = World()
    for pid in (100, 20, 3):
        world.process(pid).vma(HEAP, pages=1).map(HEAP, pid)
        world.pages(pid)
    assert [g.key for g in report(world.build()).groups] == ["3", "20", "100"]


def test_kinds_of_the_whole_machine() -> None:
    answer = report(shell_and_child().build())
    kinds = {kind.kind: (kind.size // PAGE, kind.mapped, kind.found) for kind in answer.kinds}
    assert answer.whole_machine
    assert kinds == {"anon": (5, 5 * PAGE, 5 * PAGE), "free": (0x1000 - 5, 0, 0)}
    assert not report(shell_and_child().build(scope="processes")).whole_machine


def test_averaged_mapcounts_leave_nothing_unattributed_in_large_folios() -> None:
    world = World()
    world.process(1, status="denied")
    world.folio(0x200, 2, mapcount=3)
    world.pages(0x20, mapcount=1)
    assert report(world.build(page_mapcount=False)).unattributed.mappings == 1
    assert report(world.build(page_mapcount=True)).unattributed.mappings == 13


def test_image_without_processes() -> None:
    answer = report(World(ram=[(0, 16)]).build())
    assert answer.groups == ()
    assert answer.total.rss.total == 0
    assert answer.shared.size.shape == (0, 0)


def test_questions_that_cannot_be_answered() -> None:
    world = two_that_share_an_mm()
    world.process(1, "init", status="denied")
    world.process(2, "kthreadd", status="kernel")
    image = world.build()
    with pytest.raises(TargetError, match="no process 99"):
        report(image, pids=[99])
    with pytest.raises(PrivilegeError, match="process 1 may not be read"):
        report(image, pids=[1])
    with pytest.raises(TargetError, match=r"process 2 has no memory .*kernel"):
        report(image, pids=[2])
    with pytest.raises(QueryError, match="cannot group by 'colour'"):
        report(image, by="colour")  # type: ignore[arg-type]  # what is refused
    for top in (0, 64):
        with pytest.raises(QueryError, match="from 1 to 63"):
            report(image, top=top)
