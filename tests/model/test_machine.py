# SPDX-License-Identifier: GPL-2.0-only
"""The machine as its users see it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable

import pytest

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.profile import profile
from rmap.model import (
    BusError,
    FailPlan,
    Machine,
    OutOfMemory,
    Segfault,
    SyscallError,
    UserfaultPending,
)
from rmap.model.process import protection
from rmap.model.sizes import pages_of
from rmap.model.stats import VM_STAT_NAMES
from rmap.sync.core import LockViolation, scheduler
from tests.model.scene import PAGE, Scene


@pytest.fixture
def m() -> Machine:
    return Machine(ram=256, cpus=2, swap=64, invariants=True)


# ---------------------------------------------------------------- making one


def test_sizes_are_pages_or_text() -> None:
    assert [pages_of(size) for size in (7, "4096", "8K", "64M", "1 GiB".replace(" ", ""))] == [
        7, 1, 2, 16384, 262144,
    ]  # fmt: skip
    for wrong in ("", "M", "1.5M", "100", "-1M"):
        with pytest.raises(ValueError, match=r"size|whole number"):
            pages_of(wrong)


def test_a_machine_has_what_it_was_made_with() -> None:
    m = Machine(ram="4M", cpus=3, swap="1M", profile=profile("4.18", separate_reuse_counters=True))
    assert m.kernel.nr_pages == 1024
    assert len(m.kernel.tlbs) == 3
    assert m.kernel.swap_areas[0].pages == 257  # one of them is the header
    assert m.kernel.profile.name == "4.18+separate_reuse_counters"
    assert m.mem_stats()["nr_free_pages"] == 1024
    assert repr(m) == "<Machine of 1024 pages, 0 processes>"


@pytest.mark.parametrize("wrong", [{"ram": 0}, {"cpus": 0}, {"swap": -1}, {"cpus": 65}])
def test_a_machine_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"machine has"):
        Machine(**wrong)  # type: ignore[arg-type]  # each is an int


def test_machines_are_apart(m: Machine) -> None:
    other = Machine(ram=64)
    p, q = m.spawn("p"), other.spawn("q")
    a, b = p.mmap(PAGE), q.mmap(PAGE)
    p.write(a, b"p")
    q.write(b, b"q")
    assert (p.read(a, 1), q.read(b, 1)) == (b"p", b"q")
    assert scheduler().current.name not in ("p", "q")


def test_statistics_have_their_numbers() -> None:
    assert VM_STAT_NAMES[bits.NR_ANON_MAPPED] == "nr_anon_mapped"
    assert VM_STAT_NAMES[bits.THP_SWPOUT_FALLBACK] == "thp_swpout_fallback"
    assert len(VM_STAT_NAMES) == bits.NR_VM_STATS


# ---------------------------------------------------------------- processes


def test_a_life(m: Machine) -> None:
    p = m.spawn("shell")
    c = p.fork("job")
    assert (p.pid, p.ppid, c.pid, c.ppid) == (1, 0, 2, 1)
    assert c.cpu != p.cpu
    c.exec("program")
    assert (c.name, len(c.vmas)) == ("program", 1)
    assert c.vmas[0].vm_flags & bits.VM_GROWSDOWN
    c.exit()
    assert not c.alive
    assert list(m.processes.values()) == [p]
    assert repr(c) == "<Process 2 program, exited>"
    with pytest.raises(SyscallError) as error:
        c.mmap(PAGE)
    assert error.value.errno == errno.ESRCH


def test_a_process_runs_where_it_is_put(m: Machine) -> None:
    p = m.spawn("p", cpu=1)
    assert p.cpu == 1
    p.cpu = 0
    a = p.mmap(PAGE)
    p.write(a, b"x")
    assert m.kernel.tlbs[0].loaded_mm is p.mm
    with pytest.raises(SyscallError):
        p.cpu = 2


def test_kinds_of_mappings(m: Machine) -> None:
    f = m.file("f", 4, content=b"from disk")
    p = m.spawn("p")
    anon = p.mmap(3 * PAGE)
    shared = p.mmap(PAGE, kind="shared")
    mapped = p.mmap(4 * PAGE, "rw", "file", f)
    own = p.mmap(2 * PAGE, "rw", "fileprivate", f, pgoff=0)
    assert p.read(own, 9) == b"from disk"
    p.write(mapped, b"FROM")
    assert p.read(own, 9) == b"FROM disk"
    p.write(own, b"mine")
    assert p.read(mapped, 9) == b"FROM disk"
    c = p.fork()
    c.write(anon, b"c")
    c.write(shared, b"c")
    assert (p.read(anon, 1), p.read(shared, 1)) == (b"\0", b"c")
    assert f.read(0, 9) == b"FROM disk"
    assert f.disk(0) == b"from disk"
    assert f.writeback() == 1
    assert f.disk(0) == b"FROM disk"


def test_what_a_mapping_must_and_must_not_have(m: Machine) -> None:
    p = m.spawn("p")
    with pytest.raises(ValueError, match="needs a file"):
        p.mmap(PAGE, kind="file")
    with pytest.raises(ValueError, match="has no file"):
        p.mmap(PAGE, file=m.file("f", 1))
    with pytest.raises(ValueError, match="no kind of mapping 'heap'"):
        p.mmap(PAGE, kind="heap")
    with pytest.raises(ValueError, match="letters of rwx"):
        p.mmap(PAGE, "rwz")
    assert protection("none") == protection("") == 0
    with pytest.raises(SyscallError, match="Invalid argument"):
        p.mmap(0)


def test_an_address_is_taken_literally(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE, addr=0x10_0000)
    assert a == 0x10_0000
    p.write(a, b"old")
    assert p.mmap(PAGE, addr=a) == a
    assert p.read(a, 3) == b"\0\0\0"
    assert p.mmap(PAGE) not in range(a, a + 4 * PAGE)


def test_errors_of_accesses(m: Machine) -> None:
    f = m.file("f", 1)
    p = m.spawn("p")
    a = p.mmap(PAGE, "r")
    b = p.mmap(2 * PAGE, "r", "file", f)
    with pytest.raises(Segfault) as error:
        p.write(a, b"x")
    assert (error.value.address, error.value.write) == (a, True)
    with pytest.raises(Segfault):
        p.read(0x5000, 1)
    with pytest.raises(BusError):
        p.read(b + PAGE, 1)
    p.munmap(a, PAGE)
    with pytest.raises(Segfault):
        p.read(a, 1)


def test_memory_that_ends_is_told() -> None:
    m = Machine(ram=24, swap=0)
    p = m.spawn("p")
    a = p.mmap(64 * PAGE)
    with pytest.raises(OutOfMemory):
        p.touch(a, 64 * PAGE)
    assert m.check() == []
    p.exit()
    assert m.mem_stats()["nr_anon_mapped"] == 0


def test_advice_heap_and_stack(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(2 * PAGE)
    p.write(a, b"x")
    p.madvise(a, PAGE, "dontneed")
    assert p.read(a, 1) == b"\0"
    with pytest.raises(ValueError, match="no advice 'now'"):
        p.madvise(a, PAGE, "now")
    heap = p.brk(0)
    assert p.brk(heap + 3 * PAGE) == heap + 3 * PAGE
    p.write(heap, b"heap")
    assert p.brk(heap + PAGE) == heap + PAGE
    assert p.read(heap, 4) == b"heap"
    with pytest.raises(Segfault):
        p.read(heap + PAGE, 1)
    stack = p.mmap(2 * PAGE, addr=0x7000_0000_0000, growsdown=True)
    p.grow_stack(stack - 3 * PAGE)
    assert p.vma_at(stack) is p.vma_at(stack - 3 * PAGE)


def test_locking_and_moving(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE)
    p.mlock(a, 4 * PAGE)
    assert m.mem_stats()["nr_mlock"] == 4
    assert m.reclaim(100).reclaimed == 0
    b = p.mremap(a, 4 * PAGE, 8 * PAGE, new_addr=a + 64 * PAGE)
    assert b == a + 64 * PAGE
    assert m.mem_stats()["nr_mlock"] == 8
    p.munlock(b, 8 * PAGE)
    assert m.mem_stats()["nr_mlock"] == 0


def test_pages_are_read_from_the_tables_and_nothing_is_faulted_in(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE)
    p.touch(a + PAGE, 2 * PAGE)
    pages = p.pages(a, 4 * PAGE)
    assert (pages[0], pages[3]) == (0, 0)
    assert 0 not in pages[1:3]
    assert p.pages(a + PAGE + 17, 1) == pages[1:2]


# ---------------------------------------------------------------- who maps it


def test_who_maps_a_page_and_what_it_costs_to_know(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(2 * PAGE)
    p.write(a, b"x")
    children = [p.fork() for _ in range(5)]
    page = p.pages(a, PAGE)[0]
    children[0].write(a, b"y")
    walk = m.walk(page)
    assert (walk.visited, walk.mapped) == (6, 5)
    assert {mapping.process for mapping in walk.mappings} == {p, *children[1:]}
    assert all(mapping.address == a for mapping in walk.mappings)
    assert m.who_maps(children[0].pages(a, PAGE)[0])[0].process is children[0]
    with pytest.raises(ValueError, match="is not a page here"):
        m.who_maps(257)
    assert m.who_maps(250) == []


def test_who_maps_a_page_after_exec(m: Machine) -> None:
    p = m.spawn("p")
    p.exec("q")
    (stack,) = p.vmas
    (page,) = [page for page in p.pages(stack.vm_start, stack.vm_end - stack.vm_start) if page]
    assert [mapping.process.name for mapping in m.who_maps(page)] == ["q"]


# ---------------------------------------------------------------- memory under pressure


def test_contents_survive_swap_and_swapoff(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(48 * PAGE)
    for number in range(48):
        p.write(a + number * PAGE, bytes([number + 1]))
    c = p.fork()
    assert m.reclaim(32).swapped == 32
    assert m.reclaim(8).swapped >= 8
    assert c.mm.rss_stat[bits.MM_SWAPENTS] >= 40
    assert c.read(a + 5 * PAGE, 1) == b"\x06"
    m.swapoff()
    assert c.mm.rss_stat[bits.MM_SWAPENTS] == 0
    assert [p.read(a + number * PAGE, 1)[0] for number in range(48)] == list(range(1, 49))
    with pytest.raises(SyscallError):
        m.swapoff()
    assert m.swapon(64) == 0


def test_a_cgroup_keeps_to_its_limit(m: Machine) -> None:
    g = m.cgroup("jobs", limit=16)
    assert m.cgroup("jobs") is g
    p = m.spawn("p", g)
    a = p.mmap(40 * PAGE)
    for number in range(40):
        p.write(a + number * PAGE, bytes([number + 1]))
    assert g.usage <= 16
    assert [p.read(a + number * PAGE, 1)[0] for number in range(40)] == list(range(1, 41))
    g.limit = 8
    assert g.usage <= 8
    g.limit = None
    assert g.limit is None


def test_a_write_through_a_clean_mapping_is_noticed(m: Machine) -> None:
    f = m.file("f", 2)
    p = m.spawn("p")
    a = p.mmap(2 * PAGE, "rw", "file", f)
    p.write(a, b"one")
    assert m.writeback() == 1
    assert m.writeback(f) == 0
    p.write(a, b"two")
    assert m.writeback(f) == 1
    assert f.disk(0) == b"two"


def test_truncation_takes_pages_away(m: Machine) -> None:
    f = m.file("f", 4, content=bytes(range(1, 201)) * 100)
    p = m.spawn("p")
    a = p.mmap(4 * PAGE, "rw", "file", f)
    b = p.mmap(4 * PAGE, "rw", "fileprivate", f)
    p.touch(a, 4 * PAGE)
    p.touch(b, 4 * PAGE)
    f.truncate(PAGE)
    for address in (a, b):
        with pytest.raises(BusError):
            p.read(address + PAGE, 1)
        assert p.read(address, 1) == b"\x01"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_swapped_copy_outlived_the_page_that_was_cut_off_in_4_18(fixed: bool) -> None:
    m = Machine(ram=256, swap=64, profile=profile("4.18", zap_drops_swapped_copies=fixed))
    f = m.file("f", 2)
    p = m.spawn("p")
    a = p.mmap(2 * PAGE, "rw", "fileprivate", f)
    p.write(a + PAGE, b"mine")
    p.madvise(a, 2 * PAGE, "pageout")
    f.truncate(PAGE)
    if fixed:
        with pytest.raises(BusError):
            p.read(a + PAGE, 1)
    else:
        assert p.read(a + PAGE, 4) == b"mine"
    assert m.check() == []


def test_idle_pages(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(2 * PAGE)
    p.touch(a, 2 * PAGE)
    used, idle = p.pages(a, 2 * PAGE)
    m.page_idle_mark([used, idle])
    # Nothing was flushed: a CPU that remembers the entry does not mark it again.
    p.read(a, 1)
    assert (m.page_idle(used), m.page_idle(idle)) == (True, True)
    p.cpu = 1 - p.cpu
    p.read(a, 1)
    assert (m.page_idle(used), m.page_idle(idle)) == (False, True)


def test_aging_asks_each_page_once(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE)
    p.touch(a, 4 * PAGE)
    c = p.fork()
    c.touch(a, 2 * PAGE, write=False)
    pages = p.pages(a, 4 * PAGE)
    assert m.page_referenced(pages) == 6
    assert m.page_referenced(pages) == 0
    assert m.age(2) == 2
    assert m.mem_stats()["nr_inactive_anon"] == 2


def test_one_page_is_unmapped_everywhere(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(PAGE)
    p.write(a, b"x")
    c = p.fork()
    page = p.pages(a, PAGE)[0]
    m.page_referenced([page])
    assert m.try_to_unmap(page)
    assert m.who_maps(page) == []
    assert (p.read(a, 1), c.read(a, 1)) == (b"x", b"x")
    assert m.try_to_unmap(200)  # nothing maps a free page


def test_kswapd_runs_when_memory_gets_short() -> None:
    m = Machine(ram=2048, swap=2048)
    p = m.spawn("p")
    a = p.mmap(2040 * PAGE)
    p.touch(a, 2040 * PAGE)
    assert m.mem_stats()["kswapd_runs"] > 0
    assert m.kernel.nr_free >= m.kernel.watermark_low
    assert m.check() == []


# ---------------------------------------------------------------- pins and userfaults


def test_a_pin_keeps_a_page_but_not_its_mapping(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(2 * PAGE)
    p.write(a, b"x")
    with p.pin(a, 2 * PAGE, write=True) as pin:
        page = pin.pages[0]
        assert pin.pages == p.pages(a, 2 * PAGE)
        p.munmap(a, PAGE)
        assert m.kernel.pg_refcount[page] == 1
        assert pin.read(page, 0, 1) == b"x"
        pin.write(page, 1, b"y")
        assert pin.read(page, 0, 2) == b"xy"
    assert m.kernel.pg_refcount[page] == 0
    with pytest.raises(ValueError, match="is not pinned"):
        pin.read(page, 0, 1)


def test_what_a_device_writes_after_madv_free_is_lost_in_4_18(m: Machine) -> None:
    """6c8e2a256915: reclaim does not look at references before it drops a lazily freed page."""
    for kind, kept in (("4.18", False), (profile("4.18", lazyfree_checks_references=True), True)):
        machine = Machine(ram=256, swap=64, profile=kind)
        p = machine.spawn("p")
        a = p.mmap(PAGE)
        p.write(a, b"old")
        p.madvise(a, PAGE, "free")
        with p.pin(a, PAGE, write=False) as pin:
            pin.writable = True
            machine.reclaim(1)
            pin.write(pin.pages[0], 0, b"new")
        assert (p.read(a, 3) == b"new") is kept


def test_a_missing_page_is_asked_for(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE)
    fault = p.userfaultfd(a, 4 * PAGE)
    with pytest.raises(UserfaultPending):
        p.read(a + PAGE, 1)
    assert fault.faults == [a + PAGE]
    fault.copy(a + PAGE, b"served")
    assert p.read(a + PAGE, 6) == b"served"
    with pytest.raises(SyscallError, match="File exists"):
        fault.copy(a + PAGE, b"again")
    fault.zeropage(a)
    assert p.read(a, 1) == b"\0"
    fault.unregister(a, 4 * PAGE)
    p.write(a + 2 * PAGE, b"x")
    with pytest.raises(ValueError, match="no mode 'wp'"):
        p.userfaultfd(a, PAGE, mode="wp")


def test_a_handler_serves_pages(m: Machine) -> None:
    p = m.spawn("p")
    a = p.mmap(4 * PAGE)
    fault = p.userfaultfd(a, 4 * PAGE, handler=lambda _, at: b"%d" % ((at - a) // PAGE))
    assert p.read(a + 3 * PAGE, 1) == b"3"
    p.write(a + 2 * PAGE + 1, b"!")
    assert p.read(a + 2 * PAGE, 2) == b"2!"
    assert fault.faults == [a + 3 * PAGE, a + 2 * PAGE]
    fault.close()
    p.touch(a, PAGE)
    assert len(fault.faults) == 2


# ---------------------------------------------------------------- looking inside


def test_tracing_names_kernel_functions(m: Machine) -> None:
    names: list[str] = []
    m.trace(lambda name, args: names.append(name))
    p = m.spawn("p")
    a = p.mmap(PAGE)
    p.write(a, b"x")
    p.fork()
    m.trace(None)
    p.write(a, b"y")
    assert [name for name in names if name.startswith("anon_vma")] == [
        "anon_vma_prepare",
        "anon_vma_clone",
        "anon_vma_fork",
    ]
    assert "page_add_new_anon_rmap" in names


def test_a_kernel_bug_names_the_check_and_leaves_the_machine_to_look_at() -> None:
    m = Machine(ram=128, swap=32)
    p = m.spawn("p")
    a = p.mmap(PAGE)
    p.write(a, b"x")
    page = p.pages(a, PAGE)[0]
    m.kernel.pg_refcount[page] = 0
    with pytest.raises(KernelBug) as error:
        p.munmap(a, PAGE)
    assert error.value.check
    assert error.value.page == page
    assert m.kernel.pg_refcount[page] == 0
    assert m.check() != []


def test_a_lock_left_held_is_an_error(m: Machine) -> None:
    p = m.spawn("p")
    with pytest.raises(LockViolation, match="ends its operation with locks held"), m.running(p):
        p.mm.mmap_sem.down_read()


def test_checks_can_be_off() -> None:
    m = Machine(ram=64, checks=False)
    p = m.spawn("p")
    with m.running(p):
        assert not scheduler().checking
        p.mm.mmap_sem.down_read()
    assert p.mm.mmap_sem.count == 1


def test_a_rule_of_reuse_is_replaced_in_a_few_lines() -> None:
    from rmap.mm.anon_vma import ReuseRule

    class NeverReuse(ReuseRule):
        def may_reuse(self, k: object, dst: object, src: object, anon_vma: object) -> bool:
            return False

    def chain_lengths(m: Machine) -> list[int]:
        p = m.spawn("p")
        a = p.mmap(PAGE)
        p.write(a, b"x")
        lengths = []
        for _ in range(6):
            c = p.fork()
            p.exit()
            p = c
            vma = p.vma_at(a)
            assert vma is not None
            lengths.append(len(vma.anon_vma_chain))
        return lengths

    plain, never = Machine(ram=128), Machine(ram=128)
    never.kernel.reuse_rule = NeverReuse()
    assert chain_lengths(never) == [2, 3, 4, 5, 6, 7]
    assert max(chain_lengths(plain)) == 3


# ---------------------------------------------------------------- every allocation fails once


def _fork(s: Scene) -> None:
    s.parent.fork()


def _write(s: Scene) -> None:
    s.child.write(s.anon + 3 * PAGE, b"w")


def _new(s: Scene) -> None:
    s.child.write(s.parent.mmap(PAGE, addr=s.anon + 2 * PAGE) + PAGE, b"n")


def _split(s: Scene) -> None:
    s.parent.mprotect(s.anon + 2 * PAGE, 2 * PAGE, "r")


def _unmap(s: Scene) -> None:
    s.parent.munmap(s.anon + 2 * PAGE, 2 * PAGE)


def _move(s: Scene) -> None:
    s.parent.mremap(s.anon, 6 * PAGE, 6 * PAGE, new_addr=s.anon - (1 << 30))


def _lock(s: Scene) -> None:
    s.child.mlock(s.anon, 4 * PAGE)


def _swap_in(s: Scene) -> None:
    s.parent.read(s.swapped, 1)


def _page_out(s: Scene) -> None:
    s.parent.madvise(s.anon, 6 * PAGE, "pageout")


def _file(s: Scene) -> None:
    s.file.write(7 * PAGE, b"f")


def _exec(s: Scene) -> None:
    s.child.exec("program")


def _swapoff(s: Scene) -> None:
    s.machine.swapoff()


@pytest.mark.parametrize(
    "action",
    [
        _fork, _write, _new, _split, _unmap, _move, _lock, _swap_in, _page_out, _file, _exec,
        _swapoff,
    ],
)  # fmt: skip
def test_whichever_allocation_fails_the_machine_stays_sound(
    action: Callable[[Scene], None],
) -> None:
    number = 0
    while True:
        number += 1
        scene = Scene(profile("4.18", arch_unmap_failure_frees_swap=True))
        scene.machine.inject = plan = FailPlan.nth(number)
        with contextlib.suppress(SyscallError, OutOfMemory):
            action(scene)
        scene.machine.inject = None
        assert scene.machine.check() == [], plan.failures
        assert scene.machine.warnings == [], plan.failures
        for process in list(scene.machine.processes.values()):
            process.exit()
        assert scene.machine.check() == [], plan.failures
        if not plan.failed:
            break
    assert number > 1 or action in (_page_out,)


def test_a_swap_slot_leaks_in_4_18_if_the_architecture_cannot_save_its_bits() -> None:
    scene = Scene()
    scene.machine.inject = FailPlan.nth(1, "arch_unmap_one")
    _page_out(scene)
    (found,) = scene.machine.check()
    assert str(found).startswith("swap-count: slot")


def test_a_lazily_freed_page_that_was_written_to_changes_lists_when_it_is_unmapped() -> None:
    m = Machine(ram=64, swap=16)
    p = m.spawn("p")
    a = p.mmap(4096)
    p.write(a, b"old")
    p.madvise(a, 4096, "free")
    p.write(a, b"new")
    (page,) = p.pages(a, 1)
    m.page_referenced([page])
    assert not m.try_to_unmap(page)
    assert m.check() == []
    assert m.mem_stats()["nr_inactive_file"] == 0
    assert p.read(a, 3) == b"new"
