# SPDX-License-Identifier: GPL-2.0-only
"""Memory of a device: pages of processes go there and come back, and count all the while."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from faulting import ARENA, PAGE
from migrating import Moving

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.inject import FailPlan
from rmap.mm.lru import put_page
from rmap.mm.pgtable import pte_to_swp_entry, pte_write, swp_type
from rmap.model import BusError, OutOfMemory, Process
from rmap.model.movement import Device
from rmap.sync.core import scheduler


@dataclass
class World:
    """A machine with a device, and a process with two pages of content."""

    f: Moving
    gpu: Device
    a: int

    def entry(self, p: Process, address: int) -> str:
        """What kind of entry of the device an address has, "" for none."""
        pte = self.f.pte(p, address)
        if not self.gpu.page(p, address):
            return ""
        return "write" if swp_type(pte_to_swp_entry(pte)) == bits.SWP_DEVICE_WRITE else "read"


def with_device(pages: int = 8, **how: object) -> World:
    f = Moving(**how)  # type: ignore[arg-type]  # profile, sizes and quirks alike
    gpu = f.m.device(pages)
    a = f.map(4)
    f.p.write(a, b"first")
    f.p.write(a + PAGE, b"second")
    return World(f, gpu, a)


@pytest.fixture
def w() -> World:
    return with_device()


def test_memory_goes_to_the_device_and_comes_back_by_a_fault(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    old = f.page(f.p, a)
    r = f.named(old)
    mapped = f.stat("NR_ANON_MAPPED")
    assert gpu.pull(f.p, a, 2 * PAGE) == 2
    page = gpu.page(f.p, a)
    # It is a page like others: it has an index and an anon_vma, is counted as mapped and resident.
    assert w.entry(f.p, a) == "write"
    assert f.named(page) is r
    assert f.counts(page) == (1, 2), "one reference is the device's"
    assert f.stat("NR_ANON_MAPPED") == mapped
    assert f.anon(f.p) == 2
    assert f.k.pg_refcount[old] == 0
    assert gpu.read(f.p, a, 5) == b"first"
    assert f.sound()
    gpu.write(f.p, a, b"F")
    assert f.p.read(a, 5) == b"First"
    assert gpu.free == 7
    assert f.k.pg_refcount[page] == 1
    # The other one is still there, and comes back to be written to.
    f.p.write(a + PAGE, b"S")
    assert f.p.read(a + PAGE, 6) == b"Second"
    assert gpu.free == 8
    assert f.sound()


def test_push_brings_back_what_a_process_has_there(w: World) -> None:
    assert w.gpu.pull(w.f.p, w.a, PAGE) == 1
    assert w.gpu.push(w.f.p, w.a, 4 * PAGE) == 1, "nothing else is moved"
    assert w.f.p.read(w.a, 5) == b"first"
    assert w.f.sound()


def test_untouched_memory_is_made_at_the_device(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    f.p.read(a + 2 * PAGE, 1)  # the zero page is there, and at the last page nothing
    assert gpu.pull(f.p, a + 2 * PAGE, 2 * PAGE) == 2
    assert w.entry(f.p, a + 2 * PAGE) == w.entry(f.p, a + 3 * PAGE) == "write"
    assert f.anon(f.p) == 4
    gpu.write(f.p, a + 3 * PAGE, b"made there")
    assert f.p.read(a + 3 * PAGE, 10) == b"made there"
    assert f.p.read(a + 2 * PAGE, 3) == bytes(3)
    assert f.sound()


def test_a_full_device_takes_what_it_can() -> None:
    w = with_device(pages=1)
    assert w.gpu.pull(w.f.p, w.a, 2 * PAGE) == 1
    assert w.entry(w.f.p, w.a) == "write"
    assert w.f.page(w.f.p, w.a + PAGE), "the other one has its mapping back"
    assert w.f.p.read(w.a + PAGE, 6) == b"second"
    assert w.f.sound()


# ---------------------------------------------------------------- what processes do to it


def test_fork_shares_a_page_of_the_device(w: World) -> None:
    """The child's entry is a mapping like another: counted, with a reference; both read-only."""
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    page = gpu.page(f.p, a)
    c = f.p.fork()
    assert (w.entry(f.p, a), w.entry(c, a)) == ("read", "read")
    assert gpu.page(c, a) == page
    assert f.counts(page) == (2, 3)
    assert f.anon(c) == 2
    assert f.sound()


def test_in_v4_18_a_shared_page_cannot_come_back(w: World) -> None:
    """The rmap walk does not see the other process's entry, so the page stays mapped there."""
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    c = f.p.fork()
    with pytest.raises(BusError):
        c.read(a, 1)
    assert gpu.push(f.p, a, PAGE) == 0
    # Nothing was lost by trying.
    assert (w.entry(f.p, a), w.entry(c, a)) == ("read", "read")
    assert f.sound()
    c.exit()
    assert f.p.read(a, 5) == b"first", "alone it can"
    assert f.sound()


def test_since_4_20_the_walk_finds_it_and_5_3_survives_that() -> None:
    w = with_device(pvmw_finds_device_private=True, device_private_subpage=True)
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    c = f.p.fork()
    assert c.read(a, 5) == b"first"
    assert f.page(f.p, a) == f.page(c, a) != 0, "it came back for both"
    assert f.counts(f.page(c, a)) == (2, 2)
    assert f.sound()
    c.write(a, b"F")
    assert (f.p.read(a, 5), c.read(a, 5)) == (b"first", b"First")
    assert f.sound()


def test_from_4_20_to_5_3_the_walk_finds_it_and_takes_the_wrong_page() -> None:
    """L1413-1434 reached for real: the page frame number is read out of a swap entry."""
    w = with_device(pvmw_finds_device_private=True)
    w.gpu.pull(w.f.p, w.a, PAGE)
    c = w.f.p.fork()
    with pytest.raises(KernelBug, match=r"rmap.c:1409"):
        c.read(w.a, 1)
    current = scheduler().current
    current.held.clear()


def test_the_entry_that_unmapping_leaves_for_a_device_page() -> None:
    """L1428: always soft-dirty, as v4.18 looks at the bit that present entries have for it.

    In a swap entry that is part of the type, and both types of devices have it.
    """
    w = with_device(pvmw_finds_device_private=True, device_private_subpage=True)
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    c = f.p.fork()
    seen = []

    def hook(name: str, what: tuple[int, ...]) -> None:
        if name == "try_to_unmap":
            seen.append((f.entry(f.p, a), f.entry(c, a)))
            seen.append(bool(f.pte(f.p, a) & bits._PAGE_SWP_SOFT_DIRTY))

    f.k.tracer = hook
    gpu.push(f.p, a, PAGE)
    f.k.tracer = None
    assert seen == [("read", "read"), True]
    assert f.sound()


@pytest.mark.parametrize("found", [False, True])
def test_who_has_a_page_of_the_device_is_told_since_4_20(found: bool) -> None:
    w = with_device(pvmw_finds_device_private=found)
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    c = f.p.fork()
    walk = f.m.walk(gpu.page(f.p, a))
    assert walk.visited == 2
    assert [m.process for m in walk.mappings] == ([f.p, c] if found else [])


def test_munmap_gives_the_page_back_to_the_device(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, 2 * PAGE)
    f.p.munmap(a, PAGE)
    assert (gpu.free, f.anon(f.p)) == (7, 1)
    f.p.madvise(a + PAGE, PAGE, "dontneed")
    assert (gpu.free, f.anon(f.p)) == (8, 0)
    assert f.p.read(a + PAGE, 6) == bytes(6)
    assert f.sound()


def test_exit_gives_everything_back(w: World) -> None:
    w.gpu.pull(w.f.p, w.a, 4 * PAGE)
    c = w.f.p.fork()
    w.f.p.exit()
    assert w.gpu.free == 4
    c.exit()
    assert w.gpu.free == 8
    assert w.f.stat("NR_ANON_MAPPED") == 0
    assert w.f.sound()


def test_mprotect_makes_the_entry_one_for_reading(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    f.p.mprotect(a, PAGE, "r")
    assert w.entry(f.p, a) == "read"
    assert f.p.read(a, 5) == b"first"
    assert not pte_write(f.pte(f.p, a))
    f.p.mprotect(a, PAGE, "rw")
    f.p.write(a, b"F")
    assert f.sound()


def test_mremap_takes_the_entry_along(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    page = gpu.page(f.p, a)
    to = ARENA + (64 << 20)
    f.p.mremap(a, PAGE, PAGE, new_addr=to)
    assert gpu.page(f.p, to) == page
    assert f.sound()
    assert f.p.read(to, 5) == b"first"
    assert f.sound()


def test_swapoff_and_reclaim_pass_over_it(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    f.p.madvise(a, 2 * PAGE, "pageout")
    f.m.reclaim(8)
    assert w.entry(f.p, a) == "write"
    f.m.swapoff()
    assert gpu.read(f.p, a, 5) == b"first"
    assert f.p.read(a + PAGE, 6) == b"second"
    assert f.sound()


def test_a_pin_brings_the_page_back(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    with f.p.pin(a, PAGE, write=True):
        page = f.page(f.p, a)
        assert 0 < page <= f.k.nr_pages
        # What is pinned does not go to the device, and has its mapping back.
        assert gpu.pull(f.p, a, PAGE) == 0
        assert f.page(f.p, a) == page
    assert gpu.pull(f.p, a, PAGE) == 1
    assert f.sound()


def test_mlocked_memory_goes_and_comes_back(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    f.p.mlock(a, 2 * PAGE)
    assert f.stat("NR_MLOCK") == 2
    assert gpu.pull(f.p, a, 2 * PAGE) == 2
    f.p.read(a, 1)
    assert f.flags(f.page(f.p, a), bits.PG_mlocked)
    f.p.munlock(a, 2 * PAGE)
    assert f.p.read(a, 5) == b"first"


# ---------------------------------------------------------------- what does not go there


def test_files_shared_memory_and_swap_cache_stay(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    b = f.p.mmap(PAGE, kind="shared")
    f.p.write(b, b"shared")
    assert gpu.pull(f.p, b, PAGE) == 0
    assert f.p.read(b, 6) == b"shared"
    hole = f.p.mmap(PAGE, kind="shared")
    assert gpu.pull(f.p, hole, PAGE) == 0, "only anonymous memory is made there"
    f.p.fork()
    f.p.madvise(a, PAGE, "pageout")
    for _ in range(3):
        f.m.age(8)
        f.m.reclaim(8)
    assert gpu.pull(f.p, a, PAGE) == 0, "what is in swap"
    f.p.read(a, 1)
    assert f.flags(f.page(f.p, a), bits.PG_swapcache)
    assert gpu.pull(f.p, a, PAGE) == 0, "and what swap has a copy of"
    assert f.p.read(a, 5) == b"first"
    assert gpu.free == 8
    assert f.sound()


def test_a_page_that_a_family_shares_goes_for_all_of_it(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    c = f.p.fork()
    assert gpu.pull(f.p, a, PAGE) == 1
    assert gpu.page(f.p, a) == gpu.page(c, a) != 0
    assert f.counts(gpu.page(c, a)) == (2, 3)
    assert f.sound()


@pytest.mark.parametrize("plan", ["page:nth=1", "migration_target:nth=1"])
def test_without_memory_to_come_back_to_the_fault_fails(w: World, plan: str) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    f.m.inject = FailPlan.from_text(plan)
    with pytest.raises(OutOfMemory):
        f.p.read(a, 1)
    f.m.inject = None
    assert w.entry(f.p, a) == "write"
    assert f.p.read(a, 5) == b"first"
    assert f.sound()


def test_a_broken_device_takes_its_users_along(w: World) -> None:
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    gpu.memory.broken = True
    with pytest.raises(BusError):
        f.p.read(a, 1)
    assert w.entry(f.p, a) == "write"
    assert f.sound()


@pytest.mark.parametrize(
    "plan",
    ["device_page:nth=2", "anon_vma:nth=1", "page_table:nth=1", "memcg_charge:nth=1"],
)
def test_what_fails_on_the_way_there_stays(plan: str) -> None:
    w = with_device()
    f, gpu = w.f, w.gpu
    q = f.m.spawn("q")
    b = q.mmap(4 * PAGE)
    f.m.inject = FailPlan.from_text(plan)
    moved = gpu.pull(q, b, 3 * PAGE)
    f.m.inject = None
    assert moved < 3
    assert gpu.free == 8 - moved
    assert q.read(b, 3 * PAGE) == bytes(3 * PAGE)
    assert f.sound()


def test_a_cgroup_pays_for_its_memory_wherever_it_is(w: World) -> None:
    f, gpu = w.f, w.gpu
    group = f.m.cgroup("g")
    q = f.m.spawn("q", group)
    b = q.mmap(4 * PAGE)
    q.touch(b, 2 * PAGE)
    assert gpu.pull(q, b, 3 * PAGE) == 3
    assert group.memcg.usage == 3
    assert f.sound()
    q.read(b, 1)
    q.exit()
    assert group.memcg.usage == 0
    assert f.sound()


def test_a_free_page_of_a_device_cannot_be_put(w: World) -> None:
    with pytest.raises(KernelBug, match="that is free"):
        put_page(w.f.k, w.gpu.memory.start)


@pytest.mark.parametrize("repaired", [False, True])
def test_the_dirty_bit_of_what_goes_to_a_device_was_lost_until_6_1(repaired: bool) -> None:
    w = with_device(device_collect_keeps_dirty=repaired)
    f, gpu, a = w.f, w.gpu, w.a
    f.k.pg_flags[f.page(f.p, a)] &= ~bits.PG_dirty
    gpu.pull(f.p, a, PAGE)
    assert f.flags(gpu.page(f.p, a), bits.PG_dirty) == repaired


@pytest.mark.parametrize("base", ["6.1", "6.12"])
def test_later_kernels_keep_a_page_exclusive_there_and_back(base: str) -> None:
    w = with_device(base=base)
    f, gpu, a = w.f, w.gpu, w.a
    gpu.pull(f.p, a, PAGE)
    assert f.flags(gpu.page(f.p, a), bits.PG_anon_exclusive)
    f.p.read(a, 1)
    assert f.flags(f.page(f.p, a), bits.PG_anon_exclusive)
    gpu.pull(f.p, a, PAGE)
    c = f.p.fork()
    assert not f.flags(gpu.page(f.p, a), bits.PG_anon_exclusive)
    assert c.read(a, 5) == f.p.read(a, 5) == b"first"
    assert f.sound()
