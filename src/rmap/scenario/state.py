# SPDX-License-Identifier: GPL-2.0-only
"""What a running scenario knows: its machine, and what the names in it stand for."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from rmap.mm.bits import RMAP_VMAS_MAPPED, RMAP_VMAS_VISITED, RMAP_WALKS, VM_GROWSDOWN
from rmap.mm.mm_types import Mm
from rmap.model import Cgroup, FileHandle, Machine, Pin, Process, Walk
from rmap.model.movement import Device
from rmap.model.userfault import Userfault
from rmap.scenario import limits
from rmap.scenario.errors import Place, WordError
from rmap.scenario.expression import PAGE_SIZE, Scope, Value
from rmap.scenario.naming import ARENA, RegionNames

#: Between regions, unless they are longer.
STRIDE = 128
#: Pages of a huge page, to which longer regions are aligned.
HUGE = 512
#: Pages of a file that nobody made.
FILE_PAGES = 128
FIRST_PROCESS = "P0"
_WALK_STATS = (RMAP_WALKS, RMAP_VMAS_VISITED, RMAP_VMAS_MAPPED)
HEAP, STACK = "[heap]", "[stack]"


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """One reclaim: what was asked for, and what became of the pages, by the words of the model."""

    place: Place
    cgroup: str
    wanted: int
    counts: dict[str, int]


class Budget(WordError):
    """The scenario asks for more than it may (`rmap.scenario.limits`)."""


class State:
    """The machine of a run, and everything that has a name."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.variables: dict[str, Value] = {}
        self.scope = Scope(self.variables, Random(seed))
        self.seed = seed
        self.processes: dict[str, Process] = {}
        self.made = 0
        self._living: dict[str, Process] = {}
        self._names: dict[int, str] = {}
        self.regions: dict[str, int] = {}
        self._places = RegionNames({})
        self._beyond = 0
        self.files: dict[str, FileHandle] = {}
        self.pins: dict[str, Pin] = {}
        #: By pid, the ranges that a process registered.
        self.userfaults: dict[int, list[Userfault]] = {}
        self.cgroups: dict[str, Cgroup] = {}
        self.operation = 0
        self.page_steps = 0
        self._visited = 0
        self._tables = int(machine.kernel.pt_next)
        self.last_reclaim: Reclaimed | None = None
        self.device: Device | None = None
        #: What an operation has to say of itself.
        self.remarks: list[str] = []

    # ------------------------------------------------------------ names

    def process(self, name: str) -> Process:
        """The process of that name, living or not; `P0` is there from the start.

        Raises
        ------
        WordError
            If there never was one.
        """
        found = self.processes.get(name)
        if found is None and name == FIRST_PROCESS:
            found = self.add_process(name, self.machine.spawn(name))
        if found is None:
            known = ", ".join(list(self.processes)[:8]) or FIRST_PROCESS
            raise WordError(f"there is no process {name}; there are {known}")
        return found

    def may_make_process(self, name: str) -> None:
        """See that a process of that name may be made.

        Raises
        ------
        WordError
            If it lives already, or there were too many.
        """
        if name in self.processes and self.processes[name].alive:
            raise WordError(f"there is a process {name} already; choose another name")
        if self.made >= limits.PROCESSES:
            raise Budget(f"more than {limits.PROCESSES} processes")

    def add_process(self, name: str, process: Process) -> Process:
        """Give a process its name."""
        self.made += 1
        self.processes[name] = self._living[name] = process
        self._names[process.pid] = name
        return process

    def bury(self, name: str) -> None:
        """Note that a process has exited."""
        self._living.pop(name, None)
        # The machine looks at all others.
        self.charge(len(self._living) // 4)

    def name_of(self, mm: Mm) -> str:
        """What the scenario calls the process of an address space; ``new`` while it is forked."""
        try:
            return self._names.get(self.machine.process_of(mm).pid, "new")
        except KeyError:
            return "new"

    @property
    def living(self) -> list[str]:
        """Names of the processes that live, in the order in which they were made."""
        self.charge(len(self._living) // 16)
        return list(self._living)

    @property
    def places(self) -> RegionNames:
        """Regions by where they lie."""
        if len(self._places.names) != len(self.regions):
            self._places = RegionNames(self.regions)
        return self._places

    def place(self, name: str, length: int, at: int | None) -> int:
        """Return the page index of a region, giving it a place if it has none.

        Raises
        ------
        WordError
            If it lies elsewhere, or there are too many.
        """
        if name in self.regions:
            if at is not None and self.regions[name] != at:
                raise WordError(f"region {name} lies at page {self.regions[name]}, not at {at}")
            return self.regions[name]
        if len(self.regions) >= limits.REGIONS:
            raise Budget(f"more than {limits.REGIONS} regions")
        if at is None:
            at = STRIDE * (1 + len(self.regions)) + self._beyond
            if length >= HUGE:
                # Where entries of 2 MiB can map it.
                self._beyond += -at % HUGE
                at += -at % HUGE
            self._beyond += max(0, -(-length // STRIDE) - 1) * STRIDE
        if at + length > limits.PAGE_NUMBER:
            raise Budget(f"region {name} would end beyond page {limits.PAGE_NUMBER}")
        self.regions[name] = at
        return at

    def address(self, process: Process, region: str, off: int) -> int:
        """Return the address of a page of a region.

        Raises
        ------
        WordError
            If there is no such region.
        """
        if region == STACK:
            return self._stack(process) + off * PAGE_SIZE
        if region == HEAP and process.mm.start_brk:
            return int(process.mm.start_brk) + off * PAGE_SIZE
        base = self.regions.get(region)
        if base is None:
            known = ", ".join(list(self.regions)[:8])
            hint = f"there are {known}" if known else "the first mmap that names one places it"
            raise WordError(f"there is no region {region}; {hint}")
        return ARENA + (base + off) * PAGE_SIZE

    def _stack(self, process: Process) -> int:
        """The start of the lowest VMA that grows down."""
        self.charge(len(process.mm.vmas) // 16)
        for vma in process.vmas:
            if vma.vm_flags & VM_GROWSDOWN:
                return int(vma.vm_start)
        raise WordError(f"{process.name} has no stack; exec makes one, or: mmap P S 4 stack")

    def file(self, name: str) -> FileHandle:
        """The file of that name; one that nobody made is 128 pages of shared memory."""
        if name not in self.files:
            self.make_file(name, FILE_PAGES, shmem=True)
        return self.files[name]

    def make_file(self, name: str, pages: int, *, shmem: bool, huge: str = "never") -> None:
        """Make a file; `huge` is the option of the mount that shared memory is on.

        Raises
        ------
        WordError
            If there is one of that name, or there are too many.
        """
        if name in self.files:
            raise WordError(f"there is a file {name} already")
        if len(self.files) >= limits.FILES:
            raise Budget(f"more than {limits.FILES} files")
        self.files[name] = self.machine.file(name, pages, shmem=shmem, huge=huge)

    def known_file(self, name: str) -> FileHandle:
        """The file of that name, which must have been made or mapped."""
        if name not in self.files:
            raise WordError(f"there is no file {name}; make it with: file {name} LEN")
        return self.files[name]

    def cgroup(self, name: str | None) -> Cgroup | None:
        """The cgroup of that name; None for None.

        Raises
        ------
        WordError
            If there is none.
        """
        if name is None:
            return None
        if name not in self.cgroups:
            raise WordError(f"there is no cgroup {name}; make it with: cgroup {name} limit:SIZE")
        return self.cgroups[name]

    def walk(self, page: int) -> Walk:
        """Walk the reverse map of a page for the scenario's sake: neither counted nor traced."""
        kernel = self.machine.kernel
        stat, tracer = kernel.vm_stat, kernel.tracer
        before = [stat[member] for member in _WALK_STATS]
        kernel.tracer = None
        walk = self.machine.walk(page)
        kernel.tracer = tracer
        for member, value in zip(_WALK_STATS, before, strict=True):
            stat[member] = value
        self.charge(walk.visited + 1)
        return walk

    # ------------------------------------------------------------ bounds

    def charge(self, pages: int) -> None:
        """Count page steps.

        Raises
        ------
        Budget
            If there were too many.
        """
        self.page_steps += pages
        if self.page_steps > limits.PAGE_STEPS:
            raise Budget(f"more than {limits.PAGE_STEPS:,} pages touched, copied or visited")

    def charge_growth(self) -> None:
        """Count what an operation did beside what it was charged for before.

        That is what reverse-map walks visited, and page tables: each is as large as 512 entries.
        """
        kernel = self.machine.kernel
        visited, tables = int(kernel.vm_stat[RMAP_VMAS_VISITED]), int(kernel.pt_next)
        grown = max(tables - self._tables, 0)
        self._tables += grown
        self.charge(visited - self._visited + grown * 512)
        self._visited = visited

    def charge_machine(self) -> None:
        """Count a look at the whole machine: its pages, and all that is mapped."""
        kernel = self.machine.kernel
        vmas = sum(len(mm.vmas) for mm in kernel.mms)
        mapped = sum(sum(mm.rss_stat) for mm in kernel.mms)
        self.charge(int(kernel.nr_pages) + mapped + 20 * vmas)

    def charge_range(self, process: Process, length: int) -> None:
        """Count a range, of which no more than what the process maps is looked at."""
        if process.alive:
            self.charge(min(length, self.mapped(process) + len(process.mm.vmas)) + 1)

    @staticmethod
    def mapped(process: Process) -> int:
        """Pages and swap entries of a process."""
        return sum(process.mm.rss_stat)
