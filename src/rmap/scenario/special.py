# SPDX-License-Identifier: GPL-2.0-only
"""Operations on pages that are not plain: huge, merged, moved, broken."""

from __future__ import annotations

import errno
from collections.abc import Callable

from rmap.model import Process, SyscallError
from rmap.model.broken import Failure
from rmap.model.movement import Device
from rmap.scenario.errors import WordError
from rmap.scenario.expression import PAGE_SIZE
from rmap.scenario.grammar import Values
from rmap.scenario.state import State

#: What moving a page costs: two copies, and a walk each for taking and giving back.
_MOVE_COST = 40


def _pages(state: State, v: Values) -> list[int]:
    """The page frames of a line's range, those that are mapped; each once."""
    process = state.process(v["process"])
    length = v.get("len", 1)
    state.charge(_MOVE_COST * length)
    address = state.address(process, v["region"], v["off"])
    found = process.pages(address, length * PAGE_SIZE) if length else []
    return [page for page in dict.fromkeys(found) if page]


def _page(state: State, v: Values) -> int:
    """The page frame of a line's place. Raises `WordError` if nothing is mapped there."""
    found = _pages(state, v)
    if not found:
        raise WordError(f"{v['process']} has no page at {v['region']}+{v['off']}")
    return found[0]


# ------------------------------------------------------------ huge pages


def op_thp(state: State, v: Values) -> None:
    state.machine.thp.enabled = v["mode"]


def op_shmemthp(state: State, v: Values) -> None:
    state.machine.thp.shmem_enabled = v["mode"]


def op_khugepaged(state: State, v: Values) -> None:
    state.charge_machine()
    everything = 8 * state.machine.kernel.nr_pages
    state.machine.khugepaged(everything if v["pages"] is None else v["pages"])


def op_split(state: State, v: Values) -> None:
    page = _page(state, v)
    state.charge(512)
    if not state.machine.split_huge_page(page):
        raise SyscallError(errno.EBUSY, f"split {v['process']} {v['region']} {v['off']}")


def op_shrink(state: State, v: Values) -> None:
    state.charge_machine()
    state.machine.shrink_deferred()


def op_hugetlb(state: State, v: Values) -> None:
    size = v.get("size", "2M")
    state.charge(v["pages"] * 512)
    state.machine.hugetlb.pool(v["pages"], size)


# ------------------------------------------------------------ merged pages


def op_ksmd(state: State, v: Values) -> None:
    state.charge_machine()
    state.machine.ksm.scan(v["pages"])


def op_ksm(state: State, v: Values) -> None:
    ksm = state.machine.ksm
    if "zeros" in v:
        ksm.use_zero_pages = v["zeros"]
    if v.get("sharing") is not None:
        ksm.max_page_sharing = v["sharing"]
    if "run" in v:
        state.charge_machine()
        ksm.run = v["run"]


# ------------------------------------------------------------ pages that move


def op_migrate(state: State, v: Values) -> None:
    state.machine.migrate(_pages(state, v))


def op_compact(state: State, v: Values) -> None:
    state.charge_machine()
    state.machine.compact()


def op_device(state: State, v: Values) -> None:
    if state.device is not None:
        raise WordError("there is a device already")
    state.charge(v["pages"])
    state.device = state.machine.device(v["pages"])


def op_todevice(state: State, v: Values) -> None:
    device = _device(state)
    device.pull(*_range(state, v))


def op_fromdevice(state: State, v: Values) -> None:
    device = _device(state)
    device.push(*_range(state, v))


def _device(state: State) -> Device:
    """The device. Raises `WordError` if there is none."""
    if state.device is None:
        raise WordError("there is no device; make one with: device N")
    return state.device


def _range(state: State, v: Values) -> tuple[Process, int, int]:
    """A line's process, first address and bytes."""
    process = state.process(v["process"])
    state.charge(_MOVE_COST * v["len"])
    return process, state.address(process, v["region"], v["off"]), v["len"] * PAGE_SIZE


# ------------------------------------------------------------ pages that break


def op_poison(state: State, v: Values) -> None:
    page = _page(state, v)
    process = state.process(v["process"])
    needed = process if v.get("needed") else None
    names = {one.pid: name for name, one in state.processes.items() if one.alive}
    failure = state.machine.memory_failure(page, needed)
    state.remarks += _told(state, failure, names)
    for name, one in state.processes.items():
        if not one.alive and name in names.values():
            state.bury(name)


def _told(state: State, failure: Failure, names: dict[int, str]) -> list[str]:
    """What the kernel did, and a line for each signal."""
    kind = failure.kind.replace("_", " ") or "broken already"
    lines = [f"page {failure.page:#x} ({kind}): {failure.result or 'nothing to do'}"]
    for kill in failure.kills:
        where = f" ({kill.code}) at {state.places.place(kill.address)}" if kill.code else ""
        lines.append(
            f"{names.get(kill.process.pid, kill.process.name)} is sent {kill.signal}{where}"
        )
    return lines


def op_offline(state: State, v: Values) -> None:
    state.machine.soft_offline(_page(state, v))


SPECIAL: dict[str, Callable[[State, Values], None]] = {
    "thp": op_thp,
    "shmemthp": op_shmemthp,
    "khugepaged": op_khugepaged,
    "split": op_split,
    "shrink": op_shrink,
    "hugetlb": op_hugetlb,
    "ksmd": op_ksmd,
    "ksm": op_ksm,
    "migrate": op_migrate,
    "compact": op_compact,
    "device": op_device,
    "todevice": op_todevice,
    "fromdevice": op_fromdevice,
    "poison": op_poison,
    "offline": op_offline,
}
