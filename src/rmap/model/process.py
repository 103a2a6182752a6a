# SPDX-License-Identifier: GPL-2.0-only
"""A process of a machine: system calls, loads and stores.

Each method is one operation of the simulated task: it becomes the running task, does its work in
`rmap.mm`, and must have given back every lock when it ends.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from rmap.mm import (
    access,
    clear_refs,
    execve,
    exit,
    fork,
    gup,
    madvise,
    mincore,
    mlock,
    mmap,
    mprotect,
    mremap,
)
from rmap.mm.bits import (
    HPAGE_PMD_ORDER,
    HPAGE_PUD_ORDER,
    MADV_COLD,
    MADV_DOFORK,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_HUGEPAGE,
    MADV_HWPOISON,
    MADV_KEEPONFORK,
    MADV_MERGEABLE,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_SOFT_OFFLINE,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_HUGE_1GB,
    MAP_HUGE_2MB,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SIZE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from rmap.mm.hugetlb.pgtable import huge_pte_offset
from rmap.mm.mm_types import Mm, Task, Vma
from rmap.mm.pgtable import pmd_present, pte_lookup, pte_pfn, pte_present, pud_offset
from rmap.model.errors import SyscallError, check
from rmap.model.pin import Pin
from rmap.model.userfault import Userfault

if TYPE_CHECKING:
    from rmap.model.file import FileHandle
    from rmap.model.machine import Machine

#: Kinds of mappings, as `Process.mmap` takes them: what they are to mmap(2).
KINDS = {
    "anon": MAP_PRIVATE | MAP_ANONYMOUS,
    "shared": MAP_SHARED | MAP_ANONYMOUS,
    "file": MAP_SHARED,
    "fileprivate": MAP_PRIVATE,
    "hugetlb": MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB,
    "hugetlbshared": MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB,
    "hugetlb1G": MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB,
    "hugetlb1Gshared": MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB,
}
#: Advice by name, as `Process.madvise` takes it.
ADVICE = {
    "normal": MADV_NORMAL,
    "random": MADV_RANDOM,
    "sequential": MADV_SEQUENTIAL,
    "willneed": MADV_WILLNEED,
    "dontneed": MADV_DONTNEED,
    "free": MADV_FREE,
    "cold": MADV_COLD,
    "pageout": MADV_PAGEOUT,
    "dontfork": MADV_DONTFORK,
    "dofork": MADV_DOFORK,
    "wipeonfork": MADV_WIPEONFORK,
    "keeponfork": MADV_KEEPONFORK,
    "mergeable": MADV_MERGEABLE,
    "unmergeable": MADV_UNMERGEABLE,
    "hugepage": MADV_HUGEPAGE,
    "nohugepage": MADV_NOHUGEPAGE,
    "hwpoison": MADV_HWPOISON,
    "soft_offline": MADV_SOFT_OFFLINE,
}
#: What `Process.clear_refs` can clear, as the kernel numbers it.
CLEAR_REFS = {"all": 1, "anon": 2, "mapped": 3, "soft-dirty": 4}
_PROTECTION = {"r": PROT_READ, "w": PROT_WRITE, "x": PROT_EXEC, "-": 0}


def protection(text: str) -> int:
    """Return PROT_ bits of letters such as ``"rw"``; ``""`` and ``"none"`` permit nothing.

    >>> protection("rw")
    3
    """
    if text == "none":
        return 0
    bits = 0
    for letter in text:
        if letter not in _PROTECTION:
            raise ValueError(f"{text!r} is no protection; write letters of rwx, or none")
        bits |= _PROTECTION[letter]
    return bits


class Process:
    """A process; made by `Machine.spawn` and `Process.fork`.

    `pid` and `ppid` are its number and its parent's, `task` the kernel's object, `alive` is false
    once it has exited. Lengths and addresses are in bytes. Any method raises `SyscallError` with
    ``ESRCH`` if the process has exited.
    """

    def __init__(self, machine: Machine, task: Task, ppid: int) -> None:
        self.machine = machine
        self.task = task
        self.pid = int(task.pid)
        self.ppid = ppid
        self.alive = True

    # ------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """Its name (comm); exec changes it."""
        return str(self.task.name)

    @property
    def mm(self) -> Mm:
        """Its address space, the kernel's object."""
        mm = self.task.mm
        if not self.alive or mm is None:
            raise SyscallError(errno.ESRCH, f"process {self.pid} ({self.name})")
        return mm

    @property
    def vmas(self) -> list[Vma]:
        """Its VMAs by address, the kernel's objects."""
        return list(self.mm.vmas)

    @property
    def cpu(self) -> int:
        """The CPU it runs on; settable (sched_setaffinity(2))."""
        return int(self.task.cpu)

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        if not 0 <= cpu < len(self.machine.kernel.tlbs):
            raise SyscallError(errno.EINVAL, f"run {self.name} on CPU {cpu}")
        self.task.cpu = cpu

    def vma_at(self, address: int) -> Vma | None:
        """The VMA that covers an address, ``None`` if none does."""
        for vma in self.mm.vmas:
            if vma.vm_start <= address < vma.vm_end:
                return vma
        return None

    def pte(self, address: int) -> int:
        """The page-table entry of an address as it is, 0 where there is none.

        Where an entry maps a huge page, that entry, but with the page frame of the small page
        that lies at the address.
        """
        kernel = self.machine.kernel
        at = pte_lookup(kernel, self.mm, address)
        if at:
            return int(kernel.pt[at])
        order = self.order(address)
        if not order:
            return 0
        entry = int(kernel.pt[huge_pte_offset(kernel, self.mm, address, PMD_SIZE)])
        if not pmd_present(entry):
            return entry
        return entry + (address // PAGE_SIZE % (1 << order)) * PAGE_SIZE

    def order(self, address: int) -> int:
        """log2 of the pages that the entry of an address maps or stands for: 0, 9 or 18."""
        kernel = self.machine.kernel
        at = huge_pte_offset(kernel, self.mm, address, PMD_SIZE)
        if not at or not kernel.pt[at]:
            return 0
        return HPAGE_PUD_ORDER if at == pud_offset(kernel, self.mm, address) else HPAGE_PMD_ORDER

    def pages(self, address: int, length: int) -> list[int]:
        """Page frame number of each page of a range, 0 where no page is mapped. Faults nothing."""
        first, end = address // PAGE_SIZE * PAGE_SIZE, address + length
        entries = [self.pte(at) for at in range(first, end, PAGE_SIZE)]
        return [int(pte_pfn(pte)) if pte_present(pte) else 0 for pte in entries]

    # ------------------------------------------------------------ address space

    def mmap(
        self, length: int, prot: str = "rw", kind: str = "anon", file: FileHandle | None = None,
        pgoff: int = 0, addr: int | None = None, flags: int = 0, *, locked: bool = False,
        populate: bool = False, growsdown: bool = False,
    ) -> int:  # fmt: skip
        """Map memory; returns its address.

        Parameters
        ----------
        length
            In bytes, rounded up to pages.
        prot
            Letters of ``rwx``, or ``none``.
        kind
            ``anon`` (private), ``shared`` (anonymous, shared with children), ``file`` (shared)
            or ``fileprivate``; the last two need `file`. Of huge pages out of a pool: ``hugetlb``
            (private), ``hugetlbshared``; the same with ``1G`` behind ``hugetlb`` of the larger.
        pgoff
            Offset in the file, in pages.
        addr
            Exactly there, in the place of what is there (MAP_FIXED). Without it the kernel
            chooses.
        flags
            Further ``MAP_`` bits; the most used ones have names.
        """
        if kind not in KINDS:
            raise ValueError(f"no kind of mapping {kind!r}; known: {', '.join(KINDS)}")
        if (file is None) != (KINDS[kind] & MAP_ANONYMOUS != 0):
            raise ValueError(
                f"a mapping of kind {kind} {'needs a' if file is None else 'has no'} file"
            )
        bits = KINDS[kind] | flags | (MAP_FIXED if addr is not None else 0)
        bits |= MAP_LOCKED * locked | MAP_POPULATE * populate | MAP_GROWSDOWN * growsdown
        what = f"mmap {length:#x} bytes"
        with self.machine.running(self):
            return check(
                mmap.vm_mmap_pgoff(
                    self.machine.kernel, self.mm, addr or 0, length, protection(prot), bits,
                    file.file if file is not None else None, pgoff,
                ),
                what,
            )  # fmt: skip

    def munmap(self, address: int, length: int) -> None:
        """Unmap a range."""
        with self.machine.running(self) as k:
            check(mmap.vm_munmap(k, self.mm, address, length), f"munmap {address:#x}")

    def mprotect(self, address: int, length: int, prot: str) -> None:
        """Change what may be done with a range."""
        with self.machine.running(self) as k:
            check(
                mprotect.do_mprotect(k, self.mm, address, length, protection(prot)),
                f"mprotect {address:#x} {prot}",
            )

    def mremap(self, address: int, old_length: int, new_length: int, new_addr: int | None = None,
               dontunmap: bool = False) -> int:  # fmt: skip
        """Resize or move a mapping; returns where it is now.

        With `new_addr` it goes exactly there, in the place of what is there. `dontunmap` leaves
        the old range mapped, without its pages (since Linux 5.7).
        """
        bits = MREMAP_MAYMOVE | (MREMAP_FIXED if new_addr is not None else 0)
        bits |= MREMAP_DONTUNMAP * dontunmap
        with self.machine.running(self) as k:
            return check(
                mremap.do_mremap(k, self.mm, address, old_length, new_length, bits, new_addr or 0),
                f"mremap {address:#x}",
            )

    def brk(self, address: int) -> int:
        """Set the end of the heap; returns the end that it has now, as the system call does."""
        with self.machine.running(self) as k:
            return int(mmap.sys_brk(k, self.mm, address))

    def madvise(self, address: int, length: int, advice: str) -> None:
        """Advise about a range, by a name of `ADVICE`."""
        if advice not in ADVICE:
            raise ValueError(f"no advice {advice!r}; known: {', '.join(ADVICE)}")
        with self.machine.running(self) as k:
            check(
                madvise.do_madvise(k, self.mm, address, length, ADVICE[advice]),
                f"madvise {address:#x} {advice}",
            )

    def clear_refs(self, what: str = "all") -> None:
        """Forget the uses of ``"all"``, ``"anon"`` or ``"mapped"`` pages, or what was written to.

        The last is ``"soft-dirty"``. It is what a write to /proc/PID/clear_refs does.
        """
        if what not in CLEAR_REFS:
            raise ValueError(f"nothing to clear called {what!r}; known: {', '.join(CLEAR_REFS)}")
        with self.machine.running(self) as k:
            check(clear_refs.clear_refs_write(k, self.mm, CLEAR_REFS[what]), "clear_refs")

    def mincore(self, address: int, length: int) -> list[bool]:
        """Say of each page of a range whether it is in memory, mapped or in a cache (mincore(2)).

        Raises `SyscallError` where nothing is mapped.
        """
        vec = bytearray((length + PAGE_SIZE - 1) >> PAGE_SHIFT)
        with self.machine.running(self) as k:
            check(mincore.do_mincore(k, self.mm, address, length, vec), f"mincore {address:#x}")
        return [byte != 0 for byte in vec]

    def mlock(self, address: int, length: int) -> None:
        """Keep a range in memory; brings all of it in."""
        with self.machine.running(self) as k:
            check(mlock.do_mlock(k, self.mm, address, length), f"mlock {address:#x}")

    def munlock(self, address: int, length: int) -> None:
        """Let a range go again."""
        with self.machine.running(self) as k:
            check(mlock.do_munlock(k, self.mm, address, length), f"munlock {address:#x}")

    def userfaultfd(
        self, address: int, length: int, mode: str = "missing",
        handler: Callable[[Process, int], bytes | None] | None = None,
    ) -> Userfault:  # fmt: skip
        """Be told of missing pages in a range instead of getting zeroed ones.

        A missing page calls `handler` with the process and the page's address; what it returns
        becomes the page (``None``: a zeroed one). Without a handler the access raises
        `UserfaultPending`, and is to be tried again after `Userfault.copy`.
        """
        return Userfault(self, address, length, mode, handler)

    @property
    def mce_kill(self) -> str:
        """When it is told of broken memory (prctl(PR_MCE_KILL)): ``early``, ``late``, ``default``.

        Settable; children inherit it. In v4.18 ``late`` does not help against the sysctl.
        """
        if not self.task.mce_process:
            return "default"
        return "early" if self.task.mce_early else "late"

    @mce_kill.setter
    def mce_kill(self, policy: str) -> None:
        if policy not in ("early", "late", "default"):
            raise ValueError(f"no policy {policy!r}; known: early, late, default")
        self.task.mce_process = policy != "default"
        self.task.mce_early = policy == "early"

    # ------------------------------------------------------------ life

    def fork(self, name: str | None = None) -> Process:
        """Make a child with a copy of the address space. `name` defaults to its own."""
        with self.machine.running(self) as k:
            mm = fork.dup_mm(k, self.mm)
            if mm is None:
                raise SyscallError(errno.ENOMEM, f"fork of {self.name}")
        child = self.machine.adopt(mm, name or self.name, self.pid)
        child.task.mce_process, child.task.mce_early = self.task.mce_process, self.task.mce_early
        return child

    def exec(self, name: str) -> None:
        """Become another program, with an address space that holds nothing but a stack.

        Raises `SyscallError`. If that comes too late to go back, the process is killed.
        """
        old = self.mm
        with self.machine.running(self) as k:
            error = execve.do_execve(k, self.task, name)
        if self.mm is not old:
            self.machine.moved(self, old)
            self.task.name = name
            if error:
                self.exit()
        check(error, f"exec of {name}")

    def exit(self) -> None:
        """End, and give back all that it maps."""
        mm = self.mm
        with self.machine.running(self) as k:
            exit.exit_mm(k, self.task)
        self.alive = False
        self.machine.bury(self, mm)

    # ------------------------------------------------------------ loads and stores

    def read(self, address: int, length: int) -> bytes:
        """Load bytes. Raises `Segfault`, `BusError`, `OutOfMemory` or `UserfaultPending`."""
        with self.machine.running(self) as k:
            return bytes(access.read_bytes(k, self.task, address, length))

    def write(self, address: int, data: bytes) -> None:
        """Store bytes. Raises as `read` does; what was stored before the error stays."""
        with self.machine.running(self) as k:
            access.write_bytes(k, self.task, address, data)

    def touch(self, address: int, length: int, write: bool = True) -> None:
        """Access each page of a range once, in a compiled loop; contents stay. Raises as `read`."""
        with self.machine.running(self) as k:
            access.touch_range(k, self.task, address, address + length, write)

    def grow_stack(self, address: int) -> None:
        """Touch an address below a VMA that grows down, as a deep call does."""
        self.touch(address, 1)

    def pin(self, address: int, length: int, write: bool = False) -> Pin:
        """Take references to the pages of a range, faulting them in (get_user_pages).

        The `Pin` is a context manager; a device may use it to read and write the pages. Raises
        `SyscallError` if not all of them can be had.
        """
        first = address >> PAGE_SHIFT << PAGE_SHIFT
        count = (address + length - first + PAGE_SIZE - 1) >> PAGE_SHIFT
        with self.machine.running(self) as k:
            pages = gup.pin_user_pages(k, self.mm, first, count, write)
            if len(pages) < count:
                for page in pages:
                    gup.unpin_user_page(k, page)
                raise SyscallError(errno.EFAULT, f"pin of {length} bytes at {address:#x}")
            return Pin(self.machine, [int(page) for page in pages], write)

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.name}{'' if self.alive else ', exited'}>"
