# SPDX-License-Identifier: GPL-2.0-only
"""The machine: RAM, CPUs, swap, cgroups, files and processes, and what one may ask of it.

An operation runs as a task on a simulated CPU, one at a time and to its end. (Interleavings of
several are the business of an explorer, which uses the same kernel functions.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.check import Violation, check_kernel
from rmap.mm import fork, page_idle, page_referenced, swap_slots, swapoff, tlb, unmap, vmscan
from rmap.mm import memcg as memcontrol
from rmap.mm.anon_vma import page_lock_anon_vma_read
from rmap.mm.bits import PAGE_SIZE, TLB_ENTRIES
from rmap.mm.bug import KernelWarning
from rmap.mm.filemap import make_file
from rmap.mm.inject import FailPlan
from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
from rmap.mm.mm_types import AnonVma, Kernel, MemCgroup, Mm, Task, Vma
from rmap.mm.page import (
    PageAnon,
    PageSwapBacked,
    PageSwapCache,
    compound_head,
    get_page_unless_zero,
    lock_page,
    page_mapping,
    unlock_page,
)
from rmap.mm.page_alloc import setup_per_zone_wmarks
from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.pgtable import pmd_trans_huge, pte_pfn, pte_present, ptep_get
from rmap.mm.profile import KernelProfile, profile
from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
from rmap.mm.shrink_page_list import ReclaimResult
from rmap.mm.swap import add_to_swap
from rmap.model import broken, movement, thp
from rmap.model.broken import Failure
from rmap.model.cgroup import Cgroup
from rmap.model.errors import check
from rmap.model.file import FileHandle
from rmap.model.hugetlb import Hugetlb
from rmap.model.khugepaged import MOUNT_HUGE, KhugepagedHandle
from rmap.model.ksm import KsmHandle
from rmap.model.process import Process
from rmap.model.running import Running
from rmap.model.sizes import pages_of
from rmap.model.stats import stats_of
from rmap.model.thp import HugePageSettings

if TYPE_CHECKING:
    from rmap.image import MemoryImage
    from rmap.model.load import Loaded

#: With fewer pages the kernel's watermarks would leave nothing to processes; then there are none.
WATERMARKED = 1024
#: Called at every kernel function of interest: its name, and what it was called with.
Tracer = Callable[[str, tuple[Any, ...]], object]


@dataclass(frozen=True, slots=True)
class Mapping:
    """One page-table entry that maps a page."""

    process: Process
    address: int
    vma: Vma


@dataclass(frozen=True, slots=True)
class Walk:
    """What a reverse-map walk met: the VMAs that it visited, and the mappings that it found."""

    visited: int
    mapped: int
    mappings: tuple[Mapping, ...]


class InvariantViolation(AssertionError):
    """After an operation something did not hold that must; `violations` says what."""

    def __init__(self, operation: str, violations: list[Violation]) -> None:
        self.violations = violations
        listed = "\n  ".join(str(violation) for violation in violations)
        super().__init__(f"after {operation}:\n  {listed}")


class Machine:
    """A simulated machine.

    Parameters
    ----------
    ram, swap
        Sizes in pages, or text such as ``"64M"``. Without swap nothing anonymous is reclaimed.
    cpus
        Simulated CPUs, each with a TLB. A process runs on one of them, given out in turn.
    profile
        Which kernel: a name of `rmap.mm.profile.PROFILES`, or a `KernelProfile`.
    seed
        For whatever the machine's user draws by chance: `random` starts from it. The machine
        itself decides nothing by chance.
    checks
        Check after every operation that no lock is left held, and every lock taken against the
        lock order.
    invariants
        Check all of `rmap.check` after every operation as well, which takes time in proportion
        to what is mapped. Raises `InvariantViolation`.
    tlb_entries
        Translations that each CPU remembers, a power of two.

    >>> m = Machine(ram=64)
    >>> p = m.spawn("init")
    >>> p.write(p.mmap(4096), b"x")
    >>> m.mem_stats()["nr_anon_mapped"], m.check()
    (1, [])
    """

    def __init__(
        self, ram: int | str = 16384, cpus: int = 2, swap: int | str = 4096,
        profile: str | KernelProfile = "4.18", seed: int = 0, checks: bool = True,
        invariants: bool = False, tlb_entries: int = TLB_ENTRIES,
    ) -> None:  # fmt: skip
        self.kernel = _boot(pages_of(ram), cpus, pages_of(swap), profile, tlb_entries)
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.checks = checks
        self.invariants = invariants
        self.processes: dict[int, Process] = {}
        self.files: dict[str, FileHandle] = {}
        self.pins: Counter[int] = Counter()
        self.thp = HugePageSettings(self)
        self.loaded: Loaded | None = None
        self._by_mm: dict[int, Process] = {}
        self._next_pid = 1
        self._next_cpu = 0
        self._kthread = Task("kthread", 0, None, 0)
        self._balancing = False
        self.ksm = KsmHandle(self)
        self.khugepaged = KhugepagedHandle(self)
        self.hugetlb = Hugetlb(self)
        self._cgroups: dict[str, Cgroup] = {"/": Cgroup(self, self.kernel.memcgs[0])}

    # ------------------------------------------------------------ running

    def running(self, process: Process) -> Running:
        """Let a process run inside a ``with`` block, which yields the kernel. For operations."""
        process.mm  # noqa: B018  it must be alive
        return Running(self, process.task)

    def kthread(self, name: str) -> Running:
        """Let the kernel do something of its own inside a ``with`` block. For operations."""
        self._kthread.name = name
        return Running(self, self._kthread)

    def run_kswapd(self) -> None:
        """Let kswapd run, if an allocation has woken it. For the end of operations."""
        if not self._balancing:
            self._balancing = True
            try:
                with self.kthread("kswapd") as k:
                    vmscan.kswapd(k)
            finally:
                self._balancing = False

    # ------------------------------------------------------------ processes

    def spawn(self, name: str, cgroup: Cgroup | None = None, cpu: int | None = None) -> Process:
        """Make a process with an empty address space, not a child of any other."""
        memcg = (cgroup or self._cgroups["/"]).memcg
        with self.kthread("spawn") as k:
            mm = fork.mm_alloc(k, name, memcg)
            if mm is None:
                raise MemoryError(f"no memory for the address space of {name}")
        return self.adopt(mm, name, 0, cpu)

    def adopt(self, mm: Mm, name: str, ppid: int, cpu: int | None = None) -> Process:
        """Give an address space a process. For operations that make one."""
        if cpu is None:
            cpu = self._next_cpu
            self._next_cpu = (cpu + 1) % len(self.kernel.tlbs)
        process = Process(self, Task(name, self._next_pid, mm, cpu), ppid)
        self._next_pid += 1
        self.processes[process.pid] = process
        self.kernel.tasks.append(process.task)
        self._by_mm[int(mm.ident)] = process
        return process

    def renumber(self, process: Process, pid: int, ppid: int) -> None:
        """Give a process another pid and parent. Raises ``ValueError`` if the pid is taken."""
        if self.processes.get(pid, process) is not process:
            raise ValueError(f"there is a process {pid} already")
        del self.processes[process.pid]
        process.task.pid = process.pid = pid
        process.ppid = ppid
        self.processes[pid] = process
        self._next_pid = max(self._next_pid, pid + 1)

    def bury(self, process: Process, mm: Mm) -> None:
        """Forget a process that has exited, and what was its address space. For exit."""
        del self.processes[process.pid]
        self.kernel.tasks.remove(process.task)
        self._by_mm.pop(int(mm.ident), None)

    def moved(self, process: Process, old: Mm) -> None:
        """Note that a process has another address space. For exec."""
        self._by_mm.pop(int(old.ident), None)
        self._by_mm[int(process.mm.ident)] = process

    def process_of(self, mm: Mm) -> Process:
        """The process of an address space. Raises ``KeyError`` if it has none."""
        return self._by_mm[int(mm.ident)]

    # ------------------------------------------------------------ files and cgroups

    def file(self, name: str, pages: int | str, shmem: bool = False,
             content: bytes = b"", huge: str = "never") -> FileHandle:  # fmt: skip
        """Make a file of so many pages, with `content` at its beginning on disk.

        A shmem file has no disk: it begins with zeros, and its pages go to swap. `huge` says where
        it is made of huge pages, as the mount option of tmpfs does: ``always``, ``within_size``,
        ``advise`` or ``never``.
        """
        if huge not in MOUNT_HUGE or (huge != "never" and not shmem):
            raise ValueError(f"no file has huge={huge!r}: of shmem, {', '.join(MOUNT_HUGE)}")
        if name in self.files:
            raise ValueError(f"there is a file {name!r} already")
        if shmem and content:
            raise ValueError("a shmem file begins with zeros; write to it instead")
        with self.kthread("create") as k:
            handle = FileHandle(self, make_file(k, name, pages_of(pages), shmem))
            handle.mapping.huge = MOUNT_HUGE[huge]
        for index in range((len(content) + 4095) // 4096):
            handle.mapping.backing[index] = content[index * 4096 : (index + 1) * 4096]
        self.files[name] = handle
        return handle

    def cgroup(self, name: str, limit: int | str | None = None,
               parent: Cgroup | None = None) -> Cgroup:  # fmt: skip
        """Return the memory cgroup of that name, making it if there is none."""
        if name not in self._cgroups:
            above = (parent or self._cgroups["/"]).memcg
            memcg = memcontrol.mem_cgroup_create(self.kernel, name, above, -1)
            self._cgroups[name] = Cgroup(self, memcg)
        if limit is not None:
            self._cgroups[name].limit = limit
        return self._cgroups[name]

    def cgroup_of(self, memcg: MemCgroup) -> Cgroup:
        """Return the cgroup of the kernel's object."""
        for cgroup in self._cgroups.values():
            if cgroup.memcg is memcg:
                return cgroup
        raise KeyError(memcg)

    # ------------------------------------------------------------ memory under pressure

    def reclaim(self, nr_pages: int = 32, cgroup: Cgroup | None = None) -> ReclaimResult:
        """Reclaim pages, of everybody or of one cgroup; returns what was done with how many."""
        with self.kthread("kswapd") as k:
            return vmscan.reclaim(k, cgroup.memcg if cgroup else None, nr_pages)

    def age(self, nr_pages: int = 32, cgroup: Cgroup | None = None) -> int:
        """Move pages that were not used from the active lists to the inactive; returns how many."""
        with self.kthread("kswapd") as k:
            return int(vmscan.age_active_lists(k, cgroup.memcg if cgroup else None, nr_pages))

    def migrate(self, pages: Iterable[int], mode: str = "sync") -> movement.Moved:
        """Move pages to other places, each to any; says where they went and which stayed.

        `mode` is how much may be waited for: "async" for nothing, "light" for page locks, "sync"
        also for pages that are being written. Parts of a huge page stand for the whole.
        """
        return movement.migrate(self, pages, mode)

    def split_huge_page(self, page: int) -> bool:
        """Split a huge page, of which `page` is any part, into small ones; whether it could be.

        It stays whole if anybody has a reference that is no mapping: a pin, isolation.
        ``ValueError`` if the page is no part of one that can be split.
        """
        return thp.split_huge_page(self, page)

    def shrink_deferred(self) -> int:
        """Split huge pages of which parts are unmapped, as reclaim has it done; returns how many.

        The memory of those parts is free then.
        """
        return thp.shrink_deferred(self)

    def device(self, pages: int | str) -> movement.Device:
        """Add a device with memory of its own, to which memory of processes can move."""
        return movement.Device(self, pages_of(pages))

    def compact(self) -> movement.Compacted:
        """Move what can be moved to the end of memory, so that the beginning becomes free."""
        return movement.compact(self)

    def swapoff(self, type: int = 0) -> None:
        """Bring everything back from a swap area and take it out of use. Raises `SyscallError`."""
        with self.kthread("swapoff") as k:
            check(swapoff.swapoff(k, type), f"swapoff of area {type}")

    def swapon(self, size: int | str) -> int:
        """Put another swap area into use; returns its number."""
        with self.kthread("swapon") as k:
            return check(int(swap_slots.swapon(k, pages_of(size), -1)), "swapon")

    def writeback(self, file: FileHandle | None = None) -> int:
        """Clean the dirty pages of a file, or of all, and write them; returns how many."""
        handles = [file] if file is not None else list(self.files.values())
        return sum(handle.writeback() for handle in handles)

    # ------------------------------------------------------------ single pages

    def page_referenced(self, pages: Iterable[int]) -> int:
        """Age pages: how many VMAs used them since they were asked last; clears accessed bits."""
        with self.kthread("kswapd") as k:
            known = isinstance(pages, np.ndarray)
            listed = np.asarray(pages if known else list(pages), np.ulonglong)
            return int(page_referenced.page_referenced_range(k, listed))

    def try_to_unmap(self, page: int, flags: int = 0) -> bool:
        """Unmap a page everywhere, as reclaim does: whether nothing maps it any more.

        An anonymous page gets a swap slot first, if there is one; without it, it stays mapped.
        """
        with self.kthread("unmap") as k:
            # As reclaim has it: what is huge is unmapped part by part.
            if thp.may_be_split(k, page) and not thp.split_huge_page(self, page):
                return False
            if not get_page_unless_zero(k, page):
                return True
            # Off its list, which may be another one afterwards; that reference is enough.
            isolated = isolate_lru_page(k, page) == 0
            if isolated:
                put_page(k, page)
            lock_page(k, page)
            lazy = not PageSwapBacked(k, page)
            ready = not PageAnon(k, page) or lazy or PageSwapCache(k, page) or add_to_swap(k, page)
            done = bool(ready and unmap.try_to_unmap(k, page, flags))
            tlb.try_to_unmap_flush(k)
            unlock_page(k, page)
            if isolated:
                putback_lru_page(k, page)
            else:
                put_page(k, page)
        return done

    def memory_failure(
        self, page: int, action_required: Process | None = None, must_kill: bool = False
    ) -> Failure:
        """Let the memory of a page break, and the kernel deal with it; returns what it did.

        `action_required` is the process that needs the page this moment; without it, the error
        was found by a scrubber. `must_kill`: that process cannot go on in any case. Who is sent
        SIGKILL exits; who is sent SIGBUS is in the result, and goes on if it can.
        """
        return broken.memory_failure(self, page, action_required, must_kill)

    def soft_offline(self, page: int) -> None:
        """Take a page out of use that is about to break: what is on it moves, nobody is killed.

        Raises `SyscallError`, and the page stays in use, if that cannot be.
        """
        broken.soft_offline(self, page)

    def unpoison(self, page: int) -> bool:
        """Let a page be used again whose memory was broken; false if somebody still has it."""
        return broken.unpoison(self, page)

    @property
    def early_kill(self) -> bool:
        """Whether all processes are told of broken memory at once (sysctl); settable.

        Otherwise those are that need the page this moment, or asked for it by
        `Process.mce_kill`; the rest is told on the next touch.
        """
        return bool(self.kernel.early_kill)

    @early_kill.setter
    def early_kill(self, wanted: bool) -> None:
        self.kernel.early_kill = wanted

    def page_idle_mark(self, pages: Iterable[int]) -> None:
        """Mark pages idle (a write to /sys/kernel/mm/page_idle/bitmap)."""
        with self.kthread("idle") as k:
            for page in pages:
                page_idle.page_idle_bitmap_write(k, page)

    def page_idle(self, page: int) -> bool:
        """Whether a page is idle still: marked, and not used since (a read of that bitmap)."""
        with self.kthread("idle") as k:
            return bool(page_idle.page_idle_bitmap_read(k, page))

    # ------------------------------------------------------------ questions

    def walk(self, page: int) -> Walk:
        """Walk the reverse map of a page, and find who maps it; changes nothing.

        A part of a huge page is found where its entry is, or one that maps the whole.
        """
        visitor = _Visitor(page)
        with self.kthread("walk") as k:
            if not 0 < page < len(k.pg_flags):
                raise ValueError(f"{page:#x} is not a page here (0x1-{len(k.pg_flags) - 1:#x})")
            head = compound_head(k, page)
            if PageAnon(k, head) or page_mapping(k, head) is not None:
                lock_page(k, head)
                rmap_walk(k, head, visitor)
                unlock_page(k, head)
        found = [Mapping(self.process_of(vma.vm_mm), at, vma) for vma, at in visitor.found]
        return Walk(visitor.visited, len(found), tuple(found))

    def who_maps(self, page: int) -> list[Mapping]:
        """Who maps a page, and where, by its reverse map."""
        return list(self.walk(page).mappings)

    def mem_stats(self) -> dict[str, int]:
        """Return the kernel's statistics by name (/proc/vmstat)."""
        return stats_of(self.kernel.vm_stat)

    @property
    def warnings(self) -> list[KernelWarning]:
        """What the kernel warned of so far."""
        return list(self.kernel.warnings)

    @property
    def inject(self) -> FailPlan | None:
        """Which allocations fail; settable, ``None`` for none."""
        return self.kernel.inject

    @inject.setter
    def inject(self, plan: FailPlan | None) -> None:
        self.kernel.inject = plan

    def trace(self, callback: Tracer | None) -> None:
        """Call back at every kernel function of interest; ``None`` ends it."""
        self.kernel.tracer = callback

    def check(self) -> list[Violation]:
        """Recount everything that the kernel counts, from scratch; what does not hold."""
        return check_kernel(self.kernel, self.pins)

    def require_invariants(self, operation: str) -> None:
        """Raise `InvariantViolation`, naming the operation, if `check` finds anything."""
        violations = self.check()
        if violations:
            raise InvariantViolation(operation, violations)

    def snapshot(self) -> MemoryImage:
        """Return what the memory looks like now, for every question that an image answers."""
        from rmap.model.snapshot import snapshot

        return snapshot(self)

    @classmethod
    def from_image(cls, image: MemoryImage, **options: Any) -> Machine:
        """Make a machine that is, as far as an image knows, the one that it was taken of.

        `options` are those of the constructor, but `ram` and `swap`.
        """
        from rmap.model.load import load

        return load(image, **options)

    def __repr__(self) -> str:
        return f"<Machine of {self.kernel.nr_pages} pages, {len(self.processes)} processes>"


class _Visitor(RmapWalkControl):
    """Counts the VMAs of a walk, and keeps the mappings of one page, which may be part of one."""

    def __init__(self, page: int) -> None:
        super().__init__()
        self.page = page
        self.visited = 0
        self.found: list[tuple[Vma, int]] = []

    def anon_lock(self, k: Kernel, page: int) -> AnonVma | None:
        return page_lock_anon_vma_read(k, page)

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        self.visited += 1
        walk = PageVmaMappedWalk(page, vma, address, 0)
        while page_vma_mapped_walk(k, walk):
            entry = ptep_get(k, walk.pte or walk.pmd)
            if pmd_trans_huge(entry):
                self._note(vma, int(walk.address) + (self.page - page) * PAGE_SIZE)
            elif not pte_present(entry) or pte_pfn(entry) == self.page:
                self._note(vma, int(walk.address))
        return True

    def _note(self, vma: Vma, address: int) -> None:
        """Keep a mapping, unless the VMA ends before the part that is asked for."""
        if vma.vm_start <= address < vma.vm_end:
            self.found.append((vma, address))


def _boot(
    ram: int, cpus: int, swap_pages: int, kind: str | KernelProfile, tlb_entries: int
) -> Kernel:
    """Make a kernel with its CPUs, reclaim and one swap area."""
    if ram < 1 or cpus < 1 or swap_pages < 0:
        raise ValueError("a machine has at least one page and one CPU")
    kernel = Kernel(ram, profile(kind) if isinstance(kind, str) else kind)
    tlb.make_cpus(kernel, cpus, tlb_entries)
    kernel.reclaimer = vmscan.VmscanReclaimer()
    if ram >= WATERMARKED:
        setup_per_zone_wmarks(kernel)
    if swap_pages:
        swap_slots.swapon(kernel, swap_pages + 1, -1)
    return kernel
