# SPDX-License-Identifier: GPL-2.0-only
"""A machine and its oracle, moved together by operations that are plain data.

An `Op` is a name and four small numbers. What it does depends only on them and on the state, and
one that makes no sense at the moment (of a process that has exited, of a page that is not mapped)
does nothing. A new process gets the number that the operation says. So any part of a list of
operations is a scenario too, in which the others mean what they meant: what shrinking needs.

After each operation `World.verify` compares: every address space's VMAs with the oracle's pages,
every page's contents with the oracle's values, by a look that faults nothing in, and everything
that `rmap.check` knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from rmap.check import FlushWatch, leftovers
from rmap.mm.bits import HPAGE_RESV_UNMAPPED, VM_SHARED, PG_mlocked, PG_reserved, PG_tail
from rmap.mm.inject import SITES
from rmap.mm.page import PageAnon
from rmap.mm.pgtable import is_swap_pte, pte_pfn, pte_present
from rmap.mm.profile import KernelProfile
from rmap.model import (
    BrokenMemory,
    BusError,
    FailPlan,
    FileHandle,
    Machine,
    OutOfMemory,
    Pin,
    Process,
    Segfault,
    SyscallError,
    UserfaultPending,
)
from tests.model import oracle
from tests.model.kernel_ops import KernelOps
from tests.model.layout import (
    BASE,
    BLOCK,
    CELLS,
    HEAP,
    HUGE_WINDOW,
    OFFSETS,
    PAGE,
    STACK,
    STACK_PAGES,
    WINDOW,
    at,
    in_huge,
    in_hugetlb,
    number_of,
    place_of,
    places_of,
    room,
    size,
    told_of,
)
from tests.model.looking import Op, Wrong, entry_of
from tests.model.oracle import Space, Spot, Store

PROTS = ("rw", "rw", "r", "rw", "none", "rw", "rwx")
FILE_PAGES = 12
#: The file for the huge window, of shared memory.
BOX_PAGES = 2 * BLOCK
#: Values that any store may store, so that pages are equal now and then; 0 is one of them.
COMMON = 3
#: With so much memory a world has a huge window.
HUGE_RAM = 1500
#: And with so much it has a pool of huge pages.
HUGETLB_RAM = 4500
#: More than a walk draws, so that shrinking may leave exits out.
MAX_PROCESSES = 16


#: Allocations that are made to fail; the other sites stand for what only other machines have.
FAILING = ("*", *(site for site in SITES if site != "arch_unmap_one"))
#: Operations that may fault in what they do not access.
POPULATING = {"mmap", "mlock", "mprotect", "mremap", "pin", "userfault", "device"}
#: Advice, that which changes most more often.
ADVICE = (
    "dontneed", "free", "dontneed", "free", "cold", "pageout", "dontfork", "dofork", "wipeonfork",
    "keeponfork", "sequential", "random", "normal", "willneed", "mergeable", "mergeable",
    "unmergeable", "hugepage", "nohugepage",
)  # fmt: skip


class World(KernelOps):
    """A small machine with an oracle.

    Parameters
    ----------
    profile
        Which kernel.
    ram, swap
        In pages. With little of it, memory gets short.
    watched
        Look into TLBs in the middle of operations, too.
    """

    def __init__(
        self, profile: str | KernelProfile = "4.18", ram: int = 400, swap: int = 96,
        watched: bool = False,
    ) -> None:  # fmt: skip
        self.machine = Machine(ram=ram, cpus=2, swap=swap, profile=profile, tlb_entries=64)
        self.swap = swap
        self.spaces: dict[int, Space] = {}
        self.alive: dict[int, Process] = {}
        self.born: set[int] = set()
        self.pins: list[Pin] = []
        self.value = COMMON
        self.files: list[tuple[FileHandle, Store]] = []
        for number, shmem in enumerate((False, True)):
            handle = self.machine.file(f"file{number}", FILE_PAGES, shmem=shmem)
            self.files.append((handle, Store(FILE_PAGES)))
        if ram >= HUGE_RAM:
            box = self.machine.file("box", BOX_PAGES, shmem=True, huge="always")
            self.files.append((box, Store(BOX_PAGES)))
        self.hugetlb_files: list[tuple[FileHandle, Store]] = []
        if ram >= HUGETLB_RAM:
            self.machine.hugetlb.pool(5)
            handle = self.machine.hugetlb.file("pages", 4)
            self.hugetlb_files.append((handle, Store(4 * BLOCK)))
        self.group = self.machine.cgroup("small", limit=ram // 8)
        if watched:
            self.machine.trace(FlushWatch(self.machine.kernel))
        self.do(Op("spawn", page=1))

    # ------------------------------------------------------------ running

    def do(self, op: Op) -> None:
        """Do one operation to the machine and to the oracle."""
        action: Callable[[Op], None] = getattr(self, f"do_{op.name}")
        action(op)
        process = self.process(op)
        hugetlb = op.name in ("read", "write") and in_hugetlb(op.page)
        if process is not None and (op.name in POPULATING or hugetlb):
            self.note_copies(process)

    def note_copies(self, process: Process) -> None:
        """Note which pages of private file mappings became copies without a store.

        Locking or populating memory that is writable makes the copies at once; what is written
        to the file later does not reach them.
        """
        k = self.machine.kernel
        for page, spot in self.spaces[process.pid].items():
            if spot.private and spot.store is not None and spot.own is None:
                pte = entry_of(process, page)
                if self.is_broken(process, page):
                    continue
                if is_swap_pte(pte) or (pte_present(pte) and PageAnon(k, pte_pfn(pte))):
                    spot.own = spot.store.values.get(spot.index, 0)

        if self.hugetlb_files:
            self.note_stolen()

    def note_stolen(self) -> None:
        """Note which huge pages were taken away for who was promised them.

        Who lost one is killed when he comes, but a child of his finds zeros. So does he himself if
        he has the file twice: unmap_ref_private() looks in every VMA of the file for the address
        that was written to, and marks the VMA that it looked for and not the one that lies there.
        """
        for process in self.alive.values():
            stolen = any(vma.resv_flags & HPAGE_RESV_UNMAPPED for vma in process.vmas)
            for place, spot in self.spaces[process.pid].items():
                if in_hugetlb(place) and spot.own is not None and not entry_of(process, place):
                    spot.freed = spot.freed or stolen

    def process(self, op: Op) -> Process | None:
        """The process that an operation is of, ``None`` if it does not live."""
        return self.alive.get(op.who)

    def may_start(self, op: Op) -> bool:
        """Whether an operation may make a process: of a number that never was, and not too many."""
        return len(self.alive) < MAX_PROCESSES and op.page not in self.born

    def start(self, number: int, process: Process, space: Space) -> None:
        """Take a new process in."""
        process.cpu = number % 2
        self.born.add(number)
        self.machine.renumber(process, number, process.ppid)
        self.alive[number] = process
        self.spaces[number] = space

    def attempt(self, process: Process, action: Callable[[], object]) -> bool:
        """Whether a system call succeeds. After one that fails, what is mapped is looked up."""
        try:
            action()
        except (SyscallError, OutOfMemory):
            self.resync(process)
            return False
        return True

    def resync(self, process: Process) -> None:
        """Let the oracle have what a failing call left mapped; contents stay what they are."""
        space = self.spaces[process.pid]
        mapped = {page: vma for vma in process.vmas for page in places_of(vma)}
        for page in list(space):
            vma = mapped.get(page)
            if vma is None or bool(vma.vm_flags & VM_SHARED) == space[page].private:
                del space[page]
            else:
                told = told_of(vma)
                space[page].prot, space[page].dontfork, space[page].wipeonfork = told

    # ------------------------------------------------------------ processes

    def do_spawn(self, op: Op) -> None:
        if not self.may_start(op):
            return
        try:
            process = self.machine.spawn("p", self.group if op.arg % 2 else None)
        except MemoryError:
            return
        process.mm.start_brk = process.mm.brk = BASE + HEAP * PAGE
        self.start(op.page, process, {})

    def do_fork(self, op: Op) -> None:
        process = self.process(op)
        if process is None or not self.may_start(op):
            return
        try:
            child = process.fork()
        except SyscallError:
            return
        self.start(op.page, child, oracle.fork(self.spaces[process.pid]))

    def do_exec(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        try:
            process.exec("program")
        except SyscallError:
            if not process.alive:  # there was no way back
                del self.alive[process.pid], self.spaces[process.pid]
        else:
            process.mm.start_brk = process.mm.brk = BASE + HEAP * PAGE
            self.spaces[process.pid] = {
                page: Spot(told_of(vma)[0]) for vma in process.vmas for page in places_of(vma)
            }

    def do_exit(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        process.exit()
        del self.alive[process.pid], self.spaces[process.pid]

    # ------------------------------------------------------------ memory

    def do_mmap(self, op: Op) -> None:
        """Map a range in the place of what is there."""
        process = self.process(op)
        if process is None:
            return
        kind = ("anon", "anon", "shared", "file", "fileprivate")[op.arg % 5]
        prot = PROTS[op.arg // 5 % len(PROTS)]
        handle, store = self.files[-1 if in_huge(op.page) else op.arg // 25 % 2]
        if in_hugetlb(op.page):
            if not self.hugetlb_files:
                return
            kind = {"anon": "hugetlb", "shared": "hugetlbshared"}.get(kind, kind)
            handle, store = self.hugetlb_files[0]
        file = handle if kind in ("file", "fileprivate") else None
        pgoff = self.offset_for(op) if file else 0
        length = size(op.page, op.pages)

        def mapping() -> None:
            process.mmap(
                length, prot, kind, file, pgoff, addr=at(op.page),
                locked=op.arg // 200 % 8 == 1, populate=op.arg // 200 % 8 == 2,
            )  # fmt: skip

        if not self.attempt(process, mapping):
            return
        if in_hugetlb(op.page) and file:  # mapped for writing, a file becomes as long as that
            store.size = int(handle.mapping.size_pages)
        space = self.spaces[process.pid]
        behind = store if file else None
        if kind in ("shared", "hugetlbshared"):
            behind = Store(length // PAGE)
        for place in range(op.page, op.page + op.pages):
            index = (at(place) - at(op.page)) // PAGE + pgoff
            private = kind in ("anon", "hugetlb", "fileprivate")
            space[place] = Spot(prot, behind, index if behind else 0, private)

    def offset_for(self, op: Op) -> int:
        """Where in its file a mapping begins: in the huge window mostly as suits a huge page."""
        number = op.arg // 50 % 4
        if in_hugetlb(op.page):
            return number * BLOCK
        if in_huge(op.page):
            return OFFSETS[(op.page - CELLS) % len(OFFSETS)] + (0, BLOCK, 0, 1)[number]
        return number

    def do_munmap(self, op: Op) -> None:
        process = self.process(op)
        if process is None or on_stack(op.page):
            return  # the rest of a stack would grow back
        if self.attempt(process, lambda: process.munmap(at(op.page), size(op.page, op.pages))):
            oracle.drop(self.spaces[process.pid], op.page, op.pages)

    def do_mprotect(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        prot = PROTS[op.arg % len(PROTS)]
        if self.attempt(
            process, lambda: process.mprotect(at(op.page), size(op.page, op.pages), prot)
        ):
            for page in range(op.page, op.page + op.pages):
                self.spaces[process.pid][page].prot = prot

    def do_mremap(self, op: Op) -> None:
        process = self.process(op)
        if process is None or on_stack(op.page):
            return  # a stack that was moved here would grow over its neighbours
        wanted = 1 + op.arg % 6
        fixed = op.arg // 6 % 2 == 1
        target = op.arg // 12 % (HEAP - 6)
        if in_huge(op.page):  # to the same cells of another block, or made shorter
            wanted = op.pages if fixed else 1 + op.arg % op.pages
            target = CELLS + (op.page - CELLS + op.arg // 12 % 3 * len(OFFSETS)) % HUGE_WINDOW
            if wanted > room(target):
                return
        elif in_hugetlb(op.page):
            return
        length = wanted * PAGE if not in_huge(op.page) else size(op.page, wanted)
        found = []

        def moving() -> None:
            new_addr = at(target) if fixed else None
            bytes_now = size(op.page, op.pages)
            found.append(process.mremap(at(op.page), bytes_now, length, new_addr=new_addr))

        if self.attempt(process, moving):
            space = self.spaces[process.pid]
            if not fixed and wanted <= op.pages:  # in place, whatever is mapped there
                oracle.drop(space, op.page + wanted, op.pages - wanted)
            else:
                oracle.move(space, op.page, op.pages, place_of(found[0]), wanted)
                self.keep_source(process, op, place_of(found[0]))

    def keep_source(self, process: Process, op: Op, target: int) -> None:
        """A move is not undone because its source cannot be split off: that stays, empty."""
        plan = self.machine.inject
        space = self.spaces[process.pid]
        if plan is None or not plan.failed:
            return
        for number in range(op.pages):
            page = op.page + number
            if page not in space and process.vma_at(at(page)) is not None:
                moved = space.get(target + number, space[target])
                space[page] = replace(moved, own=None, freed=False)

    def do_brk(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        before = process.mm.brk
        wanted = BASE + (HEAP + op.arg % (WINDOW - HEAP)) * PAGE
        if before < BASE + HEAP * PAGE:
            return
        after = process.brk(wanted)
        space = self.spaces[process.pid]
        self.resync(process)
        first, last = place_of(before), place_of(after)
        for page in range(first, last):
            space[page] = Spot("rw")

    def do_stack(self, op: Op) -> None:
        """Map a stack, or grow it by touching below it."""
        process = self.process(op)
        if process is None:
            return
        space = self.spaces[process.pid]
        first = place_of(STACK)
        if first not in space:
            if self.attempt(
                process,
                lambda: process.mmap(STACK_PAGES * PAGE, addr=STACK, growsdown=True),
            ):
                space.update((first + number, Spot("rw")) for number in range(STACK_PAGES))
            return
        last = min(page for page in space if page >= first - 64)
        vma = process.vma_at(at(last))
        if vma is None or space[last].prot != "rw":
            return
        below = last - 1 - op.arg % 2
        lowest = vma.vm_start
        with contextlib.suppress(Segfault, OutOfMemory):
            process.grow_stack(at(below))
        for page in range(place_of(vma.vm_start), place_of(lowest)):
            space[page] = Spot("rw", dontfork=space[last].dontfork,
                               wipeonfork=space[last].wipeonfork)  # fmt: skip

    def do_madvise(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        name = ADVICE[op.arg % len(ADVICE)]
        space = self.spaces[process.pid]
        pages = [page for page in range(op.page, op.page + op.pages) if page in space]
        if name == "free":  # whatever becomes of it, the kernel may forget from now on
            for page in pages:
                if space[page].private and space[page].store is None:
                    space[page].freed = space[page].own is not None
        try:
            process.madvise(at(op.page), size(op.page, op.pages), name)
        except (SyscallError, OutOfMemory):
            self.resync(process)
            if name == "dontneed":  # done up to the hole, or not at all
                for page in pages:
                    self.settle(process, page)
            return
        if name == "dontneed":
            oracle.forget(space, op.page, op.pages)
        self.resync(process)

    def settle(self, process: Process, page: int) -> None:
        """Believe what is there, of a page that may or may not have been forgotten."""
        spot = self.spaces[process.pid].get(page)
        if spot is not None and spot.private and spot.own is not None:
            found = self.peek(process, page, spot)
            beneath = 0 if spot.store is None else spot.store.values.get(spot.index, 0)
            if found != spot.own and found == beneath:
                spot.own = None

    def do_mlock(self, op: Op) -> None:
        process = self.process(op)
        if process is not None:
            self.attempt(process, lambda: process.mlock(at(op.page), size(op.page, op.pages)))

    def do_munlock(self, op: Op) -> None:
        process = self.process(op)
        if process is not None:
            self.attempt(process, lambda: process.munlock(at(op.page), size(op.page, op.pages)))

    # ------------------------------------------------------------ loads and stores

    def expected_error(self, process: Process, page: int, *, write: bool) -> type[Exception] | None:
        """What a load or store must end with."""
        spot = self.spaces[process.pid].get(page)
        if spot is None or spot.prot == "none" or (write and "w" not in spot.prot):
            return Segfault
        if not spot.exists:
            return BusError
        return BrokenMemory if self.is_broken(process, page) else None

    def access(
        self, process: Process, page: int, action: Callable[[], None], *, write: bool
    ) -> bool:
        """Whether an access went through; one that ends otherwise than it must is wrong."""
        expected = self.expected_error(process, page, write=write)
        try:
            action()
        except (Segfault, BusError) as error:
            if in_hugetlb(page) and type(error) is BusError and expected is None:
                return False  # the pool has no page for it
            if expected is None or type(error) is not expected:
                raise Wrong(
                    f"{error!r} at page {page} of {process}, expected {expected}"
                ) from error
            return False
        except (OutOfMemory, UserfaultPending):
            return False
        if in_huge(page) and expected is BusError:
            # A huge page of shared memory may reach beyond the end of its file.
            return write and self.spaces[process.pid][page].private
        if expected is not None:
            raise Wrong(f"an access to page {page} of {process} went through, not {expected}")
        return True

    def do_write(self, op: Op) -> None:
        """Store a value of its own in each page of a range, up to the first that refuses."""
        process = self.process(op)
        if process is None:
            return
        for page in range(op.page, op.page + op.pages):
            value = op.arg // 4 % COMMON if op.arg % 4 == 0 else self.next_value()
            data = value.to_bytes(8, "little")
            if not self.access(process, page, partial(process.write, at(page), data), write=True):
                return
            self.spaces[process.pid][page].write(value)

    def next_value(self) -> int:
        """A value that nothing has."""
        self.value += 1
        return self.value

    def do_read(self, op: Op) -> None:
        """Load from each page of a range, up to the first that refuses."""
        process = self.process(op)
        if process is None:
            return
        found: list[bytes] = []

        def reading(page: int) -> None:
            found.append(process.read(at(page), 8))

        for page in range(op.page, op.page + op.pages):
            if not self.access(process, page, partial(reading, page), write=False):
                return
            value, values = number_of(found.pop()), self.spaces[process.pid][page].values()
            if value not in values:
                raise Wrong(f"page {page} of {process} reads {value}, not one of {values}")

    def do_pin(self, op: Op) -> None:
        process = self.process(op)
        if process is None or len(self.pins) >= 4:
            return
        try:
            self.pins.append(
                process.pin(at(op.page), size(op.page, op.pages), write=op.arg % 2 == 1)
            )
        except (SyscallError, OutOfMemory, Segfault, BusError, UserfaultPending):
            return

    def do_unpin(self, op: Op) -> None:
        if self.pins:
            self.pins.pop(op.arg % len(self.pins)).release()

    def do_userfault(self, op: Op) -> None:
        """Register a range, fill a page in, and unregister what was registered."""
        process = self.process(op)
        if process is None:
            return
        try:
            fault = process.userfaultfd(at(op.page), size(op.page, op.pages))
        except SyscallError:
            self.resync(process)
            return
        spot = self.spaces[process.pid].get(op.page)
        self.value += 1
        try:
            fault.copy(at(op.page), self.value.to_bytes(8, "little"))
        except (SyscallError, OutOfMemory):
            self.resync(process)
        else:
            if spot is None:
                raise Wrong(f"UFFDIO_COPY to page {op.page}, which is not mapped")
            spot.write(self.value)
        self.attempt(process, lambda: fault.unregister(at(op.page), size(op.page, op.pages)))

    # ------------------------------------------------------------ files

    def do_file_write(self, op: Op) -> None:
        handle, store = self.files[op.arg % len(self.files)]
        index = self.index_in(store, op)
        self.value += 1
        try:
            handle.write(index * PAGE, self.value.to_bytes(8, "little"))
        except (SyscallError, OutOfMemory):
            return
        if index < store.size:
            store.values[index] = self.value

    def do_file_read(self, op: Op) -> None:
        handle, store = self.files[op.arg % len(self.files)]
        index = self.index_in(store, op)
        try:
            found = int.from_bytes(handle.read(index * PAGE, 8), "little")
        except (SyscallError, OutOfMemory):
            return
        if found != store.values.get(index, 0):
            raise Wrong(f"{handle} reads {found} at {index}, not {store.values.get(index, 0)}")

    def do_truncate(self, op: Op) -> None:
        """Cut a file short, or make it as long as it was; private copies of what is cut go too."""
        handle, store = self.files[op.arg % len(self.files)]
        whole = BOX_PAGES if handle is self.files[-1][0] else FILE_PAGES
        pages = whole if op.arg // 6 % 2 else self.index_in(store, op)
        handle.truncate(pages * PAGE)
        before = store.size
        self.cut(store, pages)
        if whole == BOX_PAGES:
            for index in range(before, pages):  # what was stored beyond the end shows now
                store.values[index] = self.peek_file(handle.mapping, index)

    def index_in(self, store: Store, op: Op) -> int:
        """A page of a file: of the one for the huge window, mostly one where a cell may begin."""
        if store is not self.files[-1][1] or len(self.files) < 3:
            return op.page % FILE_PAGES
        return OFFSETS[op.page % len(OFFSETS)] + op.arg // 12 % 2 * BLOCK

    def do_writeback(self, op: Op) -> None:
        handle = self.files[op.arg % 3][0] if op.arg % 3 < 2 else None  # shared memory has no disk
        with contextlib.suppress(SyscallError):  # told once of what broke and was not written
            self.machine.writeback(handle)

    # ------------------------------------------------------------ memory pressure

    def do_reclaim(self, op: Op) -> None:
        """Reclaim, perhaps after asking all pages whether they were used."""
        group = self.group if op.arg // 48 % 4 == 1 else None
        if op.arg // 192 % 2:
            k = self.machine.kernel
            asked = np.asarray(k.pg_mapcount) >= 0
            # Where mlocks are counted, one that is known is not asked for: it would count twice.
            asked &= np.asarray(k.pg_flags) & np.uint32(PG_mlocked | PG_tail | PG_reserved) == 0
            self.machine.page_referenced(np.flatnonzero(asked).tolist())
        self.machine.reclaim(1 + op.arg % 48, group)

    def do_age(self, op: Op) -> None:
        self.machine.age(1 + op.arg % 32, self.group if op.arg // 32 % 2 else None)

    def do_swapoff(self, op: Op) -> None:
        try:
            self.machine.swapoff(0)
        except SyscallError:
            return
        self.machine.swapon(self.swap)

    def do_idle(self, op: Op) -> None:
        process = self.process(op)
        if process is None:
            return
        pages = [page for page in process.pages(at(op.page), size(op.page, op.pages)) if page]
        if op.arg % 2:
            self.machine.page_idle_mark(pages)
        else:
            for page in pages:
                self.machine.page_idle(page)

    def do_fail(self, op: Op) -> None:
        """Let an allocation of the next operations fail; 0 ends that."""
        number = op.arg % 12
        site = FAILING[op.arg // 12 % len(FAILING)]
        self.machine.inject = FailPlan.nth(number, site) if number else None

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Let everybody exit. Raises `Wrong` if anything of them is left."""
        self.machine.inject = None
        for pid in list(self.alive):
            self.do(Op("exit", pid))
        while self.pins:
            self.pins.pop().release()
        for _ in range(2):  # what ksmd knew of them goes when it comes by
            self.machine.ksm.scan()
        self.verify()
        left = leftovers(self.machine.kernel)
        if left:
            raise Wrong("left when all have exited:\n" + "\n".join(left))


def on_stack(place: int) -> bool:
    """Whether a place is of the stack, or where the kernel moved something to."""
    return place >= WINDOW and not in_huge(place) and not in_hugetlb(place)
