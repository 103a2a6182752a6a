# SPDX-License-Identifier: GPL-2.0-only
"""Pages that somebody else provides: registering, asking, providing, waking."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting

from rmap.mm import bits
from rmap.mm.memory import VmFault
from rmap.mm.uffd import UserfaultfdCtx, UserfaultfdWaitQueue, handle_userfault, wake_userfault
from rmap.mm.userfaultfd import (
    mcopy_atomic,
    mfill_zeropage,
    userfaultfd_register,
    userfaultfd_release,
    userfaultfd_unregister,
)
from rmap.model import BusError, Process, SyscallError, UserfaultPending


def layout(f: Faulting) -> list[tuple[int, int, bool]]:
    """The VMAs as pages of the arena, and whether userfaultfd is asked for their pages."""
    return [
        (
            (vma.vm_start - ARENA) // PAGE,
            (vma.vm_end - ARENA) // PAGE,
            bool(vma.vm_flags & bits.VM_UFFD_MISSING),
        )
        for vma in f.p.vmas
    ]


def test_a_registered_range_is_a_vma_of_its_own_until_it_is_not() -> None:
    f = Faulting()
    a = f.map(8)
    fault = f.p.userfaultfd(a + 2 * PAGE, 3 * PAGE)
    assert layout(f) == [(0, 2, False), (2, 5, True), (5, 8, False)]
    assert [vma.vm_userfaultfd_ctx for vma in f.p.vmas] == [None, fault, None]
    fault.unregister(a + 2 * PAGE, 3 * PAGE)
    assert layout(f) == [(0, 8, False)]
    assert f.sound()


def test_an_access_asks_and_fails_until_the_page_is_provided() -> None:
    f = Faulting()
    a = f.map(4)
    fault = f.p.userfaultfd(a, 2 * PAGE)
    for _ in range(2):
        with pytest.raises(UserfaultPending) as caught:
            f.p.read(a + PAGE + 5, 1)
        assert caught.value.address == a + PAGE
    assert fault.faults == [a + PAGE, a + PAGE]
    assert fault.pending == []
    assert f.rss(f.p) == (0, 0, 0, 0)
    fault.copy(a + PAGE, b"given")
    assert f.p.read(a + PAGE, 6) == b"given\0"
    page = f.page(f.p, a + PAGE)
    assert f.named(page) is f.p.vmas[0].anon_vma
    assert f.told(f.p, a + PAGE) == WRITE
    # Behind the range nobody is asked.
    f.p.write(a + 2 * PAGE, b"x")
    assert f.rss(f.p) == (0, 2, 0, 0)
    assert f.sound()


def test_the_zero_page_may_be_provided() -> None:
    f = Faulting()
    a = f.map(1)
    fault = f.p.userfaultfd(a, PAGE)
    fault.zeropage(a)
    assert f.told(f.p, a) == READ | bits._PAGE_SPECIAL
    assert f.p.read(a, 1) == b"\0"
    # The page is there: to copy it on write is nobody's business.
    f.p.write(a, b"x")
    assert fault.faults == []
    assert f.sound()


def test_a_handler_provides_while_the_access_waits() -> None:
    f = Faulting()
    a = f.map(4)

    def provide(process: Process, address: int) -> bytes | None:
        index = (address - a) // PAGE
        return None if index == 3 else f"{process.name}{index}".encode()

    fault = f.p.userfaultfd(a, 4 * PAGE, handler=provide)
    f.p.write(a + 2 * PAGE + 2, b"!")
    assert f.p.read(a, 2) == b"p0"
    assert f.p.read(a + 2 * PAGE, 3) == b"p2!"
    assert f.p.read(a + 3 * PAGE, 3) == bytes(3)
    assert fault.faults == [a + 2 * PAGE, a, a + 3 * PAGE]
    assert f.sound()


def test_what_is_there_is_not_replaced_and_what_is_not_registered_not_provided() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.write(a, b"mine")
    fault = f.p.userfaultfd(a, 2 * PAGE)
    for address, errno in (
        (a, bits.EEXIST),
        (a + 2 * PAGE, bits.ENOENT),
        (a + 8 * PAGE, bits.ENOENT),
        (a + 1, bits.EINVAL),
    ):
        with pytest.raises(SyscallError) as caught:
            fault.copy(address, b"other")
        assert caught.value.errno == errno
    with pytest.raises(SyscallError):
        fault.zeropage(a)
    assert f.p.read(a, 4) == b"mine"
    # A range of several pages is provided up to the first that is there.
    with f.m.running(f.p) as k:
        assert mcopy_atomic(k, f.p.mm, a, bytes(2 * PAGE)) == -bits.EEXIST
        assert mcopy_atomic(k, f.p.mm, a + PAGE, bytes(2 * PAGE)) == -bits.ENOENT
        assert mfill_zeropage(k, f.p.mm, a + PAGE, PAGE) == PAGE
    assert f.sound()


def test_a_range_of_pages_is_provided_at_once() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.userfaultfd(a, 4 * PAGE)
    data = b"".join(bytes([n]) * PAGE for n in (1, 2, 3))[: 3 * PAGE - 10]
    with f.m.running(f.p) as k:
        assert mcopy_atomic(k, f.p.mm, a + PAGE, data) == 3 * PAGE
    assert f.p.read(a + PAGE, 3 * PAGE) == data + bytes(10)
    assert f.sound()


def test_who_may_be_asked() -> None:
    f = Faulting()
    data = f.file()
    a = f.map(2)
    b = f.p.mmap(2 * PAGE, kind="fileprivate", file=data, addr=a + 2 * PAGE)
    f.p.userfaultfd(a, PAGE)
    other = UserfaultfdCtx()

    def register(start: int, length: int) -> int:
        with f.m.running(f.p) as k:
            return -int(userfaultfd_register(k, f.p.mm, start, length, other))

    assert register(a, 2 * PAGE) == bits.EBUSY
    assert register(b, PAGE) == bits.EINVAL  # a file's pages come from the file
    assert register(a + 8 * PAGE, PAGE) == bits.ENOMEM
    assert register(a - 8 * PAGE, PAGE) == bits.EINVAL
    assert register(a, 100) == register(a + 1, PAGE) == register(a, 0) == bits.EINVAL
    assert register(bits.TASK_SIZE, PAGE) == bits.EINVAL
    assert layout(f)[0] == (0, 1, True)
    with f.m.running(f.p) as k:
        assert userfaultfd_unregister(k, f.p.mm, a, 1) == -bits.EINVAL
        assert userfaultfd_unregister(k, f.p.mm, b, PAGE) == -bits.EINVAL


def test_a_hole_of_shared_memory_is_provided_for_all_who_share_it() -> None:
    f = Faulting()
    a = f.map(3, kind="shared")
    fault = f.p.userfaultfd(a, 3 * PAGE)
    with pytest.raises(UserfaultPending):
        f.p.write(a, b"x")
    fault.copy(a, b"shm")
    fault.zeropage(a + PAGE)
    child = f.p.fork()
    assert child.read(a, 3) == f.p.read(a, 3) == b"shm"
    assert child.read(a + PAGE, 1) == b"\0"
    assert f.rss(f.p) == (0, 0, 0, 2)
    assert f.flags(f.page(f.p, a), bits.PG_swapbacked | bits.PG_lru)
    with pytest.raises(SyscallError):
        fault.copy(a, b"again")
    assert f.sound()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_private_mapping_of_shmem_got_the_files_page_writable_in_v4_18(fixed: bool) -> None:
    f = Faulting(uffd_copies_private_shmem=fixed)
    data = f.file(shmem=True)
    a = f.map(1, kind="fileprivate", file=data)
    fault = f.p.userfaultfd(a, PAGE)
    fault.copy(a, b"secret")
    f.p.write(a, b"S")
    # CVE-2018-18397: what was written to a private mapping is in the file.
    assert data.read(0, 6) == (bytes(6) if fixed else b"Secret")
    assert f.p.read(a, 6) == b"Secret"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_page_provided_through_a_read_only_mapping_was_dropped_in_v4_18(fixed: bool) -> None:
    f = Faulting(uffd_dirties_shmem=fixed)
    data = f.file(shmem=True)
    a = f.map(1, prot="r", kind="file", file=data)
    f.p.userfaultfd(a, PAGE).copy(a, b"only here")
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    for _ in range(3):
        f.m.reclaim(1)
    assert f.page(f.p, a) == 0
    # It was clean, so reclaim took what is on "disk" for the same.
    assert data.read(0, 9) == (b"only here" if fixed else bytes(9))


@pytest.mark.parametrize("kind", ["file", "fileprivate"])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_page_was_provided_beyond_the_end_of_a_file_in_v4_18(fixed: bool, kind: str) -> None:
    f = Faulting(uffd_checks_file_size=fixed, uffd_copies_private_shmem=True)
    data = f.file(shmem=True)
    a = f.map(1, kind=kind, file=data, pgoff=data.size // PAGE)
    fault = f.p.userfaultfd(a, PAGE)
    if fixed:
        with pytest.raises(SyscallError, match="Bad address"):
            fault.copy(a, b"beyond")
    else:
        fault.copy(a, b"beyond")
        assert f.p.read(a, 6) == b"beyond"
    assert f.sound()


def test_a_userfault_that_cannot_wait_is_a_bus_error() -> None:
    f = Faulting()
    a = f.map(1)
    fault = f.p.userfaultfd(a, PAGE)
    fault.sigbus = True
    with pytest.raises(BusError):
        f.p.read(a, 1)
    fault.sigbus = False
    (vma,) = f.p.vmas
    with f.m.running(f.p) as k:
        for flags, result in (
            (0, bits.VM_FAULT_SIGBUS),
            (
                bits.FAULT_FLAG_ALLOW_RETRY | bits.FAULT_FLAG_RETRY_NOWAIT,
                bits.VM_FAULT_RETRY,
            ),
        ):
            f.p.mm.mmap_sem.down_read()
            vmf = VmFault(vma, a, flags)
            assert handle_userfault(k, vmf, bits.VM_UFFD_MISSING) == result
            f.p.mm.mmap_sem.up_read()
    assert fault.faults == []


def test_a_pin_asks_as_an_access_does_and_gives_back_what_it_had() -> None:
    f = Faulting()
    a = f.map(3)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    fault = f.p.userfaultfd(a, 3 * PAGE)
    with pytest.raises(UserfaultPending):
        f.p.pin(a, 3 * PAGE)
    assert f.counts(page) == (1, 1)
    with pytest.raises(UserfaultPending):
        f.p.mlock(a, 3 * PAGE)
    fault.copy(a + PAGE, b"1")
    fault.copy(a + 2 * PAGE, b"2")
    with f.p.pin(a, 3 * PAGE) as pin:
        assert pin.pages == f.p.pages(a, 3 * PAGE)
    assert f.sound()


def test_providing_and_unregistering_wake_who_waits_there() -> None:
    f = Faulting()
    a = f.map(4)
    fault = f.p.userfaultfd(a, 4 * PAGE)
    waiting = [UserfaultfdWaitQueue(a + n * PAGE, 0) for n in range(4)]
    fault.pending.extend(waiting)
    fault.copy(a, b"0")
    assert [waiter.is_waken() for waiter in waiting] == [True, False, False, False]
    fault.unregister(a + PAGE, PAGE)
    assert [waiter.is_waken() for waiter in waiting] == [True, True, False, False]
    wake_userfault(f.k, fault, a + 3 * PAGE, a + 4 * PAGE)
    assert [waiter.is_waken() for waiter in waiting] == [True, True, False, True]
    with f.m.running(f.p) as k:
        userfaultfd_release(k, fault)
    assert all(waiter.is_waken() for waiter in waiting)
    assert fault.released
    assert layout(f) == [(0, 4, False)]
    f.p.write(a + 2 * PAGE, b"x")
    assert f.sound()


def test_children_are_not_registered() -> None:
    f = Faulting()
    a = f.map(2)
    fault = f.p.userfaultfd(a, 2 * PAGE)
    child = f.p.fork()
    child.write(a, b"own")
    assert child.read(a, 3) == b"own"
    assert fault.faults == []
    assert f.sound()
