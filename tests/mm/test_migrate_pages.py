# SPDX-License-Identifier: GPL-2.0-only
"""Pages move while they are in use, and nobody who uses them sees anything of it."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE
from migrating import Moving

from rmap.mm import bits
from rmap.mm.inject import FailPlan
from rmap.mm.pgtable import pte_write
from rmap.mm.swap_cache import end_swap_writes
from rmap.mm.swap_slots import swap_count
from rmap.model import Process


@pytest.fixture
def f() -> Moving:
    return Moving()


# ---------------------------------------------------------------- anonymous memory


def test_an_anonymous_page_moves_with_contents_and_identity(f: Moving) -> None:
    a = f.map(4)
    f.p.write(a + PAGE, b"content")
    old = f.page(f.p, a + PAGE)
    r = f.named(old)
    index = f.k.pg_index[old]
    in_use = f.in_use()
    new = f.moved(old)
    assert f.page(f.p, a + PAGE) == new != old
    assert f.named(new) is r
    assert f.k.pg_index[new] == index
    assert f.counts(new) == (1, 1)
    assert f.flags(new, bits.PG_swapbacked | bits.PG_active | bits.PG_uptodate | bits.PG_dirty)
    assert f.p.read(a + PAGE, 7) == b"content"
    # The old one is free: nothing has become of it but that.
    assert f.k.pg_refcount[old] == 0
    assert f.in_use() == in_use
    assert f.sound()


def test_8_11_migration_of_a_shared_page(f: Moving) -> None:
    """Trace 8.11: the page that P has written and shares with C by fork."""
    a = f.map(4)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    r = f.named(x)
    c = f.p.fork("C")
    assert (r.refcount, f.counts(x)) == (2, (2, 2))
    mapped = f.stat("NR_ANON_MAPPED")

    def in_place() -> None:
        # Isolated the page had 3 references; both entries read-only, the mappings are gone.
        assert f.entry(f.p, a) == f.entry(c, a) == "read"
        assert f.entry_page(f.p, a) == f.entry_page(c, a) == x
        assert f.counts(x) == (0, 1)
        assert f.stat("NR_ANON_MAPPED") == mapped - 1
        assert (f.anon(f.p), f.anon(c)) == (1, 1)
        assert r.refcount == 3, "pinned while nothing maps the page"

    n = f.while_moving(x, in_place).moved[x]
    assert f.named(n) is r
    assert f.k.pg_index[n] == f.p.vmas[0].vm_pgoff
    assert f.counts(n) == (2, 2)
    assert f.page(f.p, a) == f.page(c, a) == n
    assert f.stat("NR_ANON_MAPPED") == mapped
    assert (f.anon(f.p), f.anon(c)) == (1, 1)
    assert r.refcount == 2
    assert f.sound()


def test_8_11_the_old_page_names_its_anon_vma_until_it_is_freed(f: Moving) -> None:
    a = f.map(1)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    word = f.k.pg_mapping[x]
    words: list[int] = []

    def hook(name: str, what: tuple[int, ...]) -> None:
        if name == "remove_migration_ptes":
            words.append(int(f.k.pg_mapping[x]))

    f.k.tracer = hook
    n = f.moved(x)
    f.k.tracer = None
    assert words == [word]
    assert (f.k.pg_mapping[x], f.k.pg_mapping[n]) == (0, word)


def test_8_11_a_fork_while_entries_are_in_place(f: Moving) -> None:
    """The child gets the entry, counts the page as resident, and the walk back finds it."""
    a = f.map(4)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    c = f.p.fork("C")
    born = []

    def fork() -> None:
        d = f.p.fork("D")
        born.append(d)
        assert [f.entry(q, a) for q in (f.p, c, d)] == ["read"] * 3
        assert f.anon(d) == 1
        assert f.counts(x) == (0, 1), "an entry holds neither a reference nor a mapping"

    n = f.while_moving(x, fork).moved[x]
    (d,) = born
    assert [f.page(q, a) for q in (f.p, c, d)] == [n] * 3
    assert f.counts(n) == (3, 3)
    assert f.sound()
    d.write(a, b"d")
    assert (f.p.read(a, 1), d.read(a, 1)) == (b"x", b"d")


def test_a_fork_turns_write_entries_into_read_entries(f: Moving) -> None:
    a = f.map(1)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    born = []

    def fork() -> None:
        assert f.entry(f.p, a) == "write"
        born.append(f.p.fork("D"))
        assert f.entry(f.p, a) == f.entry(born[0], a) == "read"

    n = f.while_moving(x, fork).moved[x]
    assert f.counts(n) == (2, 2)
    assert not pte_write(f.pte(f.p, a))
    assert not pte_write(f.pte(born[0], a))
    f.p.write(a, b"p")
    assert (f.p.read(a, 1), born[0].read(a, 1)) == (b"p", b"x")
    assert f.sound()


def test_a_fork_of_shared_memory_leaves_write_entries_alone(f: Moving) -> None:
    a = f.map(1, kind="shared")
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    born = []

    def fork() -> None:
        assert f.entry(f.p, a) == "write"
        born.append(f.p.fork("D"))
        assert f.entry(f.p, a) == "write"
        # What the file can give again is not copied at all.
        assert f.entry(born[0], a) == ""

    f.while_moving(x, fork)
    assert pte_write(f.pte(f.p, a))
    born[0].write(a, b"d")
    assert f.p.read(a, 1) == b"d"
    assert f.sound()


def test_8_11_who_unmaps_meanwhile_has_nothing_to_get_back(f: Moving) -> None:
    a = f.map(4)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    c = f.p.fork("C")

    def unmap() -> None:
        c.munmap(a, PAGE)
        assert f.anon(c) == 0

    n = f.while_moving(x, unmap).moved[x]
    assert f.counts(n) == (1, 1)
    assert f.page(f.p, a) == n
    assert f.sound()


def test_if_everybody_unmaps_meanwhile_the_page_is_moved_to_be_freed(f: Moving) -> None:
    """The anon_vma lives on by the migration's reference alone, and goes with it."""
    a = f.map(1)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    r = f.named(x)
    in_use = f.in_use()

    def exit() -> None:
        f.p.exit()
        assert r.refcount == 1

    f.while_moving(x, exit)
    assert r.refcount == 0
    assert f.in_use() < in_use
    assert f.sound()


def test_mprotect_takes_the_right_to_write_from_an_entry(f: Moving) -> None:
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    x = f.page(f.p, a)

    def forbid() -> None:
        assert f.entry(f.p, a) == "write"
        f.p.mprotect(a, PAGE, "r")
        assert f.entry(f.p, a) == "read"

    f.while_moving(x, forbid)
    assert f.told(f.p, a) == READ & ~bits._PAGE_ACCESSED
    # Allowed to write again, it takes a fault, which finds nobody else.
    f.p.mprotect(a, PAGE, "rw")
    page = f.page(f.p, a)
    f.p.write(a, b"x")
    assert f.page(f.p, a) == page
    assert f.told(f.p, a) == WRITE
    assert f.sound()


def test_mremap_takes_entries_along_and_rmap_finds_them_there(f: Moving) -> None:
    a = f.map(1)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    to = ARENA + (64 << 20)

    def move() -> None:
        f.p.mremap(a, PAGE, PAGE, new_addr=to)
        assert f.entry(f.p, to) == "write"

    n = f.while_moving(x, move).moved[x]
    assert f.page(f.p, to) == n
    assert f.p.read(to, 1) == b"x"
    assert f.sound()


def test_mlock_waits_for_the_page_and_finds_it_at_its_new_place(f: Moving) -> None:
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    f.p.mlock(a, 2 * PAGE)
    assert f.stat("NR_MLOCK") == 2
    x = f.page(f.p, a)
    assert f.flags(x, bits.PG_mlocked)

    def gone() -> None:
        # The last unmap takes the mark off, the new mapping puts it on.
        assert f.stat("NR_MLOCK") == 1

    n = f.while_moving(x, gone).moved[x]
    assert f.stat("NR_MLOCK") == 2
    assert f.flags(n, bits.PG_mlocked | bits.PG_unevictable | bits.PG_lru)
    assert f.sound()


def test_the_young_bit_is_lost_and_the_dirty_bit_kept_in_the_page(f: Moving) -> None:
    a = f.map(1)
    f.p.touch(a, PAGE)
    x = f.page(f.p, a)
    f.k.pg_flags[x] &= ~bits.PG_dirty
    n = f.moved(x)
    assert f.flags(n, bits.PG_dirty)
    assert f.told(f.p, a) == bits._PAGE_PRESENT | bits._PAGE_RW


# ---------------------------------------------------------------- swap, files, shared memory


def test_a_page_of_the_swap_cache_keeps_its_slot(f: Moving) -> None:
    a = f.map(1)
    f.p.write(a, b"swapped")
    c = f.p.fork()
    f.p.madvise(a, PAGE, "pageout")
    for _ in range(3):
        f.m.age(8)
        f.m.reclaim(8)
    assert f.page(f.p, a) == 0
    f.p.read(a, 1)
    x = f.page(f.p, a)
    (slot,) = [n for n in range(1, 64) if f.k.swap_areas[0].cache[n] == x]
    assert f.counts(x) == (1, 2)
    n = f.moved(x)
    assert f.k.swap_areas[0].cache[slot] == n
    assert f.flags(n, bits.PG_swapcache)
    assert f.counts(n) == (1, 2)
    assert swap_count(f.k, slot) == 1
    assert c.read(a, 7) == b"swapped"
    assert f.page(c, a) == n
    assert f.sound()


def test_a_page_of_the_swap_cache_that_nobody_maps_moves_too(f: Moving) -> None:
    f = Moving(swap=64)
    a = f.map(1)
    f.p.write(a, b"swapped")
    c = f.p.fork()
    f.p.madvise(a, PAGE, "pageout")
    for _ in range(3):
        f.m.age(8)
        f.m.reclaim(8)
    f.p.read(a, 1)
    x = f.page(f.p, a)
    f.p.munmap(a, PAGE)
    assert f.counts(x) == (0, 1)
    n = f.moved(x)
    assert f.counts(n) == (0, 1)
    assert c.read(a, 7) == b"swapped"
    assert f.page(c, a) == n
    assert f.sound()


@pytest.mark.parametrize("shmem", [False, True])
def test_a_page_of_a_file_moves_for_all_who_map_it(f: Moving, shmem: bool) -> None:
    file = f.file(4, shmem=shmem)
    a = f.map(4, kind="file", file=file)
    q = f.m.spawn("q")
    b = q.mmap(2 * PAGE, kind="fileprivate", file=file, pgoff=1)
    f.p.write(a + PAGE, b"data")
    assert q.read(b, 4) == b"data"
    x = f.page(f.p, a + PAGE)
    assert f.counts(x) == (2, 3)
    dirty = f.stat("NR_FILE_DIRTY")
    n = f.moved(x)
    assert f.counts(n) == (2, 3)
    assert f.page(f.p, a + PAGE) == f.page(q, b) == n
    assert file.read(PAGE, 4) == b"data"
    assert f.flags(n, bits.PG_dirty)
    assert f.stat("NR_FILE_DIRTY") == dirty
    assert f.sound()
    if not shmem:
        assert file.writeback() == 1
    f.p.write(a + PAGE, b"more")
    assert q.read(b, 4) == b"more"


def test_a_page_that_only_the_cache_has_moves(f: Moving) -> None:
    file = f.file(2, b"on disk")
    assert file.read(0, 7) == b"on disk"
    x = file.mapping.i_pages[0]
    n = f.moved(x)
    assert file.mapping.i_pages[0] == n
    assert file.read(0, 7) == b"on disk"
    assert f.sound()


def test_a_file_system_that_cannot_migrate_writes_dirty_pages_first(f: Moving) -> None:
    file = f.file(2)
    file.mapping.writes_to_migrate = True
    a = f.map(2, kind="file", file=file)
    f.p.write(a, b"dirty")
    f.p.touch(a + PAGE, PAGE, write=False)
    dirty, clean = f.page(f.p, a), f.page(f.p, a + PAGE)
    # Who may not wait leaves a dirty page alone.
    result = f.m.migrate([dirty, clean], "light")
    assert result.stayed == (dirty,)
    assert list(result.moved) == [clean]
    assert f.page(f.p, a) == dirty
    assert pte_write(f.pte(f.p, a)), "it has its mapping back"
    assert f.sound()
    n = f.moved(dirty)
    assert file.mapping.backing[0][:5] == b"dirty"
    assert not f.flags(n, bits.PG_dirty)
    assert f.p.read(a, 5) == b"dirty"


def test_writing_instead_of_moving_misses_the_mappings_that_are_entries(f: Moving) -> None:
    """Before a write all mappings are to be read-only, so that the next store is noticed.

    But page_mkclean() does not look at migration entries, which are all there is at that moment,
    and they come back writable: v4.18 reads like that, and no release is known to differ.
    """
    file = f.file(1)
    file.mapping.writes_to_migrate = True
    a = f.map(1, kind="file", file=file)
    f.p.write(a, b"dirty")
    f.moved(f.page(f.p, a))
    assert [violation.invariant for violation in f.m.check()] == ["dirty-tracking"]
    f.p.write(a, b"again")
    assert not f.flags(f.page(f.p, a), bits.PG_dirty)
    # What was stored is found at the latest when the page is unmapped.
    page = f.page(f.p, a)
    f.p.munmap(a, PAGE)
    assert f.flags(page, bits.PG_dirty)
    assert f.sound()


# ---------------------------------------------------------------- what stays where it is


def test_a_pinned_page_stays_and_has_its_mappings_back(f: Moving) -> None:
    a = f.map(1)
    f.p.write(a, b"x")
    c = f.p.fork()
    x = f.page(f.p, a)
    with f.p.pin(a, PAGE):
        result = f.m.migrate([x])
    assert (result.moved, result.stayed) == ({}, (x,))
    assert f.page(f.p, a) == f.page(c, a) == x
    assert f.counts(x) == (2, 2)
    assert f.stat("PGMIGRATE_FAIL") == 1
    assert f.sound()
    assert f.m.migrate([x]).stayed == ()


def test_a_page_that_is_written_is_not_waited_for_unless_asked(f: Moving) -> None:
    area = f.k.swap_areas[0]
    area.deferred = True
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.madvise(a, PAGE, "pageout")
    (x,) = area.pending
    assert f.flags(x, bits.PG_writeback)
    for mode in ("async", "light"):
        result = f.m.migrate([x], mode)
        assert result.stayed == (x,)
    end_swap_writes(f.k, area)
    assert f.m.migrate([x], "async").stayed == ()
    assert f.p.read(a, 1) == b"x"
    assert f.sound()


def test_pages_that_are_no_ones_to_move_stay(f: Moving) -> None:
    """Free pages, the zero page, pages off the LRU."""
    a = f.map(1)
    f.p.read(a, 1)
    result = f.m.migrate([f.k.zero_page, 300])
    assert (result.moved, set(result.stayed)) == ({}, {f.k.zero_page, 300})


def test_the_stack_that_exec_moves_is_left_alone(f: Moving) -> None:
    """Its pages lie where rmap does not look: entries there would never be found again."""
    a = f.map(1)
    f.p.write(a, b"x")
    x = f.page(f.p, a)
    f.p.vmas[0].vm_flags |= bits.VM_GROWSDOWN | bits.VM_STACK_INCOMPLETE_SETUP
    assert f.m.migrate([x]).stayed == (x,)
    assert f.page(f.p, a) == x
    f.p.vmas[0].vm_flags &= ~bits.VM_STACK_INCOMPLETE_SETUP
    assert f.m.migrate([x]).stayed == ()


def test_a_page_that_is_freed_before_its_turn_is_done(f: Moving) -> None:
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    pages = f.p.pages(a, 2 * PAGE)
    acted = []

    def hook(name: str, what: tuple[int, ...]) -> None:
        if name == "unmap_and_move" and not acted:
            acted.append(what)
            f.p.munmap(a + PAGE, PAGE)

    f.k.tracer = hook
    result = f.m.migrate(pages)
    f.k.tracer = None
    assert list(result.moved) == [pages[0]]
    assert f.k.pg_refcount[pages[1]] == 0
    assert f.stat("PGMIGRATE_SUCCESS") == 2
    assert f.sound()


# ---------------------------------------------------------------- no memory, cgroups


@pytest.mark.parametrize("nth", [1, 2])
def test_without_a_page_to_go_to_the_rest_stays(f: Moving, nth: int) -> None:
    a = f.map(3)
    f.p.touch(a, 3 * PAGE)
    pages = f.p.pages(a, 3 * PAGE)
    f.m.inject = FailPlan.from_text(f"migration_target:nth={nth}")
    result = f.m.migrate(pages)
    f.m.inject = None
    assert list(result.moved) == pages[: nth - 1]
    assert result.stayed == tuple(pages[nth - 1 :])
    assert f.stat("NR_ISOLATED") == 0
    assert f.sound()


def test_the_architecture_may_refuse_a_part_of_the_mappings(f: Moving) -> None:
    """Some entries are replaced already: they get the page back, wherever the walk stopped."""
    a = f.map(1)
    f.p.write(a, b"x")
    c = f.p.fork()
    x = f.page(f.p, a)
    f.m.inject = FailPlan.from_text("arch_unmap_one:every=2")
    result = f.m.migrate([x])
    f.m.inject = None
    assert result.stayed == (x,)
    assert f.page(f.p, a) == f.page(c, a) == x
    assert f.counts(x) == (2, 2)
    assert f.sound()


def test_the_charge_goes_along(f: Moving) -> None:
    group = f.m.cgroup("g", limit=4)
    p = f.m.spawn("p", group)
    a = p.mmap(4 * PAGE)
    p.touch(a, 4 * PAGE)
    pages = p.pages(a, 4 * PAGE)
    assert group.memcg.usage == 4
    result = f.m.migrate(pages)
    assert len(result.moved) == 4, "past the limit, as long as there are two of each"
    assert group.memcg.usage == 4
    assert {f.k.pg_memcg[page] for page in result.moved.values()} == {group.memcg.ident}
    assert f.sound()


@pytest.mark.parametrize("base", ["6.1", "6.12"])
def test_since_5_19_a_page_stays_exclusive_when_it_moves(base: str) -> None:
    f = Moving(base=base)
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    pages = f.p.pages(a, 2 * PAGE)
    f.p.mprotect(a, PAGE, "r")
    for page, new in f.m.migrate(pages).moved.items():
        assert f.flags(new, bits.PG_anon_exclusive)
        assert page in pages
    c = f.p.fork()
    for new in f.m.migrate(f.p.pages(a, 2 * PAGE)).moved.values():
        assert not f.flags(new, bits.PG_anon_exclusive)
    assert c.pages(a, 2 * PAGE) == f.p.pages(a, 2 * PAGE)
    assert f.sound()


@pytest.mark.parametrize("base", ["6.1", "6.12"])
def test_since_5_19_mprotect_and_fork_know_what_an_entry_remembers(base: str) -> None:
    f = Moving(base=base)
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    x = f.page(f.p, a)

    def forbid() -> None:
        f.p.mprotect(a, PAGE, "r")
        assert f.pte(f.p, a) & bits._PAGE_SWP_EXCLUSIVE

    n = f.while_moving(x, forbid).moved[x]
    assert f.flags(n, bits.PG_anon_exclusive)

    def share() -> None:
        assert f.pte(f.p, a) & bits._PAGE_SWP_EXCLUSIVE
        f.p.fork()
        assert not f.pte(f.p, a) & bits._PAGE_SWP_EXCLUSIVE

    n = f.while_moving(n, share).moved[n]
    assert not f.flags(n, bits.PG_anon_exclusive)
    assert f.counts(n) == (2, 2)
    assert f.sound()


# ---------------------------------------------------------------- merged pages


def merged(f: Moving, processes: int = 2) -> tuple[int, list[tuple[Process, int]]]:
    """A page that KSM has merged, and where it is mapped: at another place in each process."""
    where = []
    for number in range(processes):
        q = f.m.spawn(f"q{number}")
        a = q.mmap(4 * PAGE, addr=ARENA + (number << 22))
        q.write(a + number * PAGE, b"same")
        q.madvise(a, 4 * PAGE, "mergeable")
        where.append((q, a + number * PAGE))
    for _ in range(3):
        f.m.ksm.scan()
    (page,) = {f.page(q, a) for q, a in where}
    return page, where


def test_a_merged_page_moves_and_its_node_with_it(f: Moving) -> None:
    page, where = merged(f)

    def in_place() -> None:
        assert [f.entry(q, a) for q, a in where] == ["read"] * 2

    new = f.while_moving(page, in_place).moved[page]
    assert {f.page(q, a) for q, a in where} == {new}
    assert f.counts(new) == (2, 2)
    assert f.k.pg_mapping[new] & bits.PAGE_MAPPING_FLAGS == bits.PAGE_MAPPING_KSM
    assert f.sound()
    # The next one with the same contents joins it at its new place.
    q = f.m.spawn("late")
    a = q.mmap(PAGE)
    q.write(a, b"same")
    q.madvise(a, PAGE, "mergeable")
    for _ in range(3):
        f.m.ksm.scan()
    assert f.page(q, a) == new
    assert f.sound()


def test_a_merged_page_that_cannot_move_stays_merged(f: Moving) -> None:
    page, where = merged(f)
    q, a = where[0]
    with q.pin(a, PAGE):
        assert f.m.migrate([page]).stayed == (page,)
    assert {f.page(q, a) for q, a in where} == {page}
    assert f.counts(page) == (2, 2)
    assert f.sound()
