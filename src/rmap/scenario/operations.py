# SPDX-License-Identifier: GPL-2.0-only
"""What each operation of a scenario does to the machine.

An operation takes the state and the values of its line. What the kernel refuses is raised as the
model raises it (`rmap.model.errors`); what the scenario got wrong is a `WordError`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from rmap.mm.inject import FailPlan, Rule
from rmap.mm.pgtable import pte_pfn, pte_present
from rmap.model import BusError, OutOfMemory, Process, Segfault, SyscallError, UserfaultPending
from rmap.scenario import limits
from rmap.scenario.errors import WordError
from rmap.scenario.expression import PAGE_SIZE
from rmap.scenario.grammar import MapKind, Values
from rmap.scenario.special import SPECIAL
from rmap.scenario.state import HEAP, Budget, State
from rmap.scenario.statements import PROTECTIONS

if TYPE_CHECKING:
    from rmap.model.userfault import Userfault

#: An access of one page costs as much as this many pages in a compiled loop.
_ACCESS_COST = 20
#: An anon_vma_chain is an object, and takes the room of so many page-table entries.
_CHAIN_COST = 50


class Stopped(Exception):
    """An access that a signal ended: after how many pages, and by what."""

    def __init__(self, done: int, error: Exception) -> None:
        super().__init__(str(error))
        self.done = done
        self.error = error


def _range(state: State, v: Values) -> tuple[Process, int, int]:
    """The process, first address and bytes of a line that names a range."""
    process = state.process(v["process"])
    return process, state.address(process, v["region"], v["off"]), v["len"] * PAGE_SIZE


def _each_page(state: State, v: Values, access: Callable[[Process, int], object]) -> None:
    """Access pages one after the other, until one fails."""
    process, address, length = _range(state, v)
    for done in range(length // PAGE_SIZE):
        state.charge(_ACCESS_COST)
        try:
            access(process, address + done * PAGE_SIZE)
        except (Segfault, BusError, OutOfMemory, UserfaultPending) as error:
            raise Stopped(done, error) from error


def _stamp(state: State) -> bytes:
    """What a write stores: the number of the operation."""
    return (state.operation & 0xFFFF_FFFF).to_bytes(4, "little")


# ------------------------------------------------------------ processes


def op_spawn(state: State, v: Values) -> None:
    state.may_make_process(v["process"])
    process = state.machine.spawn(v["process"], state.cgroup(v.get("cgroup")))
    state.add_process(v["process"], process)


def op_fork(state: State, v: Values) -> None:
    parent = state.process(v["process"])
    state.may_make_process(v["child"])
    chains = sum(len(vma.anon_vma_chain) for vma in parent.mm.vmas)
    state.charge(state.mapped(parent) + _CHAIN_COST * chains + 1)
    state.add_process(v["child"], parent.fork(v["child"]))


def op_exec(state: State, v: Values) -> None:
    process = state.process(v["process"])
    state.charge(state.mapped(process) + 1)
    try:
        process.exec(v["name"])
    finally:
        if not process.alive:  # it failed when the old program was gone
            state.bury(v["process"])


def op_cpu(state: State, v: Values) -> None:
    state.process(v["process"]).cpu = v["cpu"]


def op_exit(state: State, v: Values) -> None:
    process = state.process(v["process"])
    state.charge(state.mapped(process) + 1)
    process.exit()
    state.bury(v["process"])


# ------------------------------------------------------------ address space


def op_mmap(state: State, v: Values) -> None:
    process = state.process(v["process"])
    kind: MapKind = v["kind"]
    base = state.place(v["region"], v["len"], v.get("at"))
    state.charge_range(process, v["len"])
    process.mmap(
        v["len"] * PAGE_SIZE,
        v.get("prot", "rw"),
        "anon" if kind.kind == "stack" else kind.kind,
        None if kind.file is None else state.file(kind.file),
        kind.pgoff,
        state.address(process, v["region"], 0) if base is not None else None,
        growsdown=kind.kind == "stack",
    )


def op_munmap(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge_range(process, v["len"])
    process.munmap(address, length)


def op_mprotect(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge_range(process, v["len"])
    process.mprotect(address, length, PROTECTIONS[v["prot"]])


def op_mremap(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    new_length = v["len"] if v["newlen"] is None else v["newlen"]
    state.place(v["new"], new_length, v.get("at"))
    state.charge_range(process, v["len"] + new_length)
    process.mremap(
        address,
        length,
        new_length * PAGE_SIZE,
        state.address(process, v["new"], 0),
        v.get("dontunmap", False),
    )


def op_madvise(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge_range(process, v["len"])
    process.madvise(address, length, v["advice"])


def op_mlock(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge(v["len"] + 1)
    process.mlock(address, length)


def op_munlock(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge_range(process, v["len"])
    process.munlock(address, length)


def op_brk(state: State, v: Values) -> None:
    process = state.process(v["process"])
    state.charge_range(process, v["len"])
    mm = process.mm
    if not mm.start_brk:
        # A process that never was exec'd has no heap yet: it gets one, as a region of its own.
        state.place(HEAP, limits.RAM_PAGES, None)
        mm.start_brk = mm.brk = state.address(process, HEAP, 0)
    wanted = int(mm.start_brk) + v["len"] * PAGE_SIZE
    if process.brk(wanted) != wanted:
        raise SyscallError(errno.ENOMEM, f"brk of {process.name}")


def op_userfaultfd(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    registered = process.userfaultfd(address, length)
    state.userfaults.setdefault(process.pid, []).append(registered)


def op_provide(state: State, v: Values) -> None:
    process, address, _ = _range(state, v)
    state.charge(v["len"] * _ACCESS_COST)
    registered: list[Userfault] = state.userfaults.get(process.pid, [])
    if not registered:
        raise WordError(f"{process.name} has no userfaultfd; register pages first: userfaultfd")
    for page in range(v["len"]):
        if v.get("zero"):
            registered[-1].zeropage(address + page * PAGE_SIZE)
        else:
            registered[-1].copy(address + page * PAGE_SIZE, _stamp(state))


# ------------------------------------------------------------ access


def op_write(state: State, v: Values) -> None:
    stamp = _stamp(state)
    _each_page(state, v, lambda process, address: process.write(address, stamp))


def op_read(state: State, v: Values) -> None:
    _each_page(state, v, lambda process, address: process.read(address, 4))


def op_touch(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge(v["len"] + 1)
    process.touch(address, length, v.get("write", True))


def op_pin(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    if v["pin"] in state.pins:
        raise WordError(f"the pin {v['pin']} is held already; give it back first: unpin")
    if len(state.pins) >= limits.PINS:
        raise Budget(f"more than {limits.PINS} pins")
    state.charge(v["len"] + 1)
    state.pins[v["pin"]] = process.pin(address, length, v.get("write", True))


def op_unpin(state: State, v: Values) -> None:
    if v["pin"] not in state.pins:
        raise WordError(f"there is no pin {v['pin']}; take it with: pin {v['pin']} P R OFF LEN")
    state.pins.pop(v["pin"]).release()


# ------------------------------------------------------------ files


def op_file(state: State, v: Values) -> None:
    huge = v.get("huge", "never")
    state.make_file(v["file"], v["len"], shmem=v.get("shmem", huge != "never"), huge=huge)


def op_fread(state: State, v: Values) -> None:
    state.charge(v["len"] * _ACCESS_COST)
    state.known_file(v["file"]).read(v["off"] * PAGE_SIZE, v["len"] * PAGE_SIZE)


def op_fwrite(state: State, v: Values) -> None:
    file = state.known_file(v["file"])
    for page in range(v["len"]):
        state.charge(_ACCESS_COST)
        file.write((v["off"] + page) * PAGE_SIZE, _stamp(state))


def op_truncate(state: State, v: Values) -> None:
    file = state.known_file(v["file"])
    state.charge(len(file.mapping.i_pages) + 1)
    file.truncate(v["len"] * PAGE_SIZE)


def op_writeback(state: State, v: Values) -> None:
    file = state.known_file(v["file"]) if v["file"] is not None else None
    files = [file] if file is not None else list(state.files.values())
    state.charge(sum(len(one.mapping.i_pages) for one in files) + 1)
    state.machine.writeback(file)


# ------------------------------------------------------------ reclaim and failure


def op_cgroup(state: State, v: Values) -> None:
    name = v["cgroup"]
    if name not in state.cgroups and len(state.cgroups) >= limits.CGROUPS:
        raise Budget(f"more than {limits.CGROUPS} cgroups")
    parent = state.cgroup(v.get("in"))
    if parent is not None and name in state.cgroups:
        raise WordError(f"the cgroup {name} is there already; it cannot be moved")
    state.cgroups[name] = state.machine.cgroup(name, v.get("limit"), parent)


def op_age(state: State, v: Values) -> None:
    pages = state.machine.kernel.nr_pages if v["pages"] is None else v["pages"]
    state.charge(min(pages, state.machine.kernel.nr_pages) + 1)
    state.machine.age(pages, state.cgroup(v.get("cgroup")))


def op_idle(state: State, v: Values) -> None:
    process, address, length = _range(state, v)
    state.charge(v["len"] * _ACCESS_COST)
    entries = [process.pte(at) for at in range(address, address + length, PAGE_SIZE)]
    state.machine.page_idle_mark([int(pte_pfn(pte)) for pte in entries if pte_present(pte)])


def op_swapoff(state: State, v: Values) -> None:
    state.charge(sum(state.mapped(state.processes[name]) for name in state.living) + 1)
    state.machine.swapoff()


def op_inject(state: State, v: Values) -> None:
    if v["site"] == "off":
        state.machine.inject = None
        return
    chosen = [key for key in ("nth", "every", "chance") if v.get(key) is not None]
    if len(chosen) != 1 or not v[chosen[0]]:
        raise WordError("say when, once: nth:N, every:N or chance:N, with N above 0")
    key, number = chosen[0], v[chosen[0]]
    rule = Rule(
        v["site"],
        nth=number if key == "nth" else 0,
        every=number if key == "every" else 0,
        probability=number / 100 if key == "chance" else 0.0,
        seed=state.seed,
    )
    before = state.machine.inject
    state.machine.inject = FailPlan((*(before.rules if before else ()), rule))


#: Every operation by its name, but reclaim, whose outcome the runner keeps.
OPERATIONS: dict[str, Callable[[State, Values], None]] = {
    "spawn": op_spawn,
    "fork": op_fork,
    "exec": op_exec,
    "cpu": op_cpu,
    "exit": op_exit,
    "mmap": op_mmap,
    "munmap": op_munmap,
    "mprotect": op_mprotect,
    "mremap": op_mremap,
    "madvise": op_madvise,
    "mlock": op_mlock,
    "munlock": op_munlock,
    "brk": op_brk,
    "userfaultfd": op_userfaultfd,
    "provide": op_provide,
    "write": op_write,
    "read": op_read,
    "touch": op_touch,
    "pin": op_pin,
    "unpin": op_unpin,
    "file": op_file,
    "fread": op_fread,
    "fwrite": op_fwrite,
    "truncate": op_truncate,
    "writeback": op_writeback,
    "cgroup": op_cgroup,
    "age": op_age,
    "idle": op_idle,
    "swapoff": op_swapoff,
    "inject": op_inject,
    **SPECIAL,
}
