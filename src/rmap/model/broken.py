# SPDX-License-Identifier: GPL-2.0-only
"""Memory that breaks: what the kernel did about it, and whom it told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmap.mm import bits
from rmap.mm import memory_failure as hwpoison
from rmap.mm.bits import (
    BUS_MCEERR_AR,
    MF_ACTION_REQUIRED,
    MF_MUST_KILL,
    SIGBUS,
    SIGKILL,
)
from rmap.mm.collect_procs import send_signal
from rmap.mm.mm_types import Kernel
from rmap.mm.soft_offline import soft_offline_page
from rmap.model.errors import check
from rmap.model.running import Running

if TYPE_CHECKING:
    from rmap.model.machine import Machine
    from rmap.model.process import Process

#: What pages are called, and what became of them, by the numbers of `rmap.mm.bits`.
KINDS = {
    value: name.removeprefix("MF_MSG_").lower()
    for name, value in vars(bits).items()
    if name.startswith("MF_MSG_")
}
RESULTS = {
    bits.MF_IGNORED: "ignored",
    bits.MF_FAILED: "failed",
    bits.MF_DELAYED: "delayed",
    bits.MF_RECOVERED: "recovered",
}


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal: to whom, which one, and the address that it names.

    `signal` is ``SIGBUS`` or ``SIGKILL``; `code` is ``BUS_MCEERR_AR`` if the process cannot go on
    without the page, ``BUS_MCEERR_AO`` if it may, and empty for SIGKILL, which names no address.
    `size` is how many bytes are lost.
    """

    process: Process
    signal: str
    code: str
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of a page whose memory broke.

    `kind` is what the page was (``dirty_lru``, ``clean_swapcache``, ...; empty if it was known to
    be broken), `result` one of ``recovered``, ``delayed``, ``failed``, ``ignored``. `error` is
    what memory_failure() returned: 0, or a negative errno.
    """

    page: int
    kind: str
    result: str
    error: int
    kills: tuple[Kill, ...]


def memory_failure(
    machine: Machine, page: int, action_required: Process | None, must_kill: bool
) -> Failure:
    """Let a page break. For `Machine.memory_failure`."""
    kernel = machine.kernel
    actions, signals = len(kernel.mf_actions), len(kernel.kills)
    with _running(machine, action_required) as k:
        flags = MF_ACTION_REQUIRED if action_required is not None else 0
        flags |= MF_MUST_KILL * must_kill
        error = int(hwpoison.memory_failure(k, page, flags))
        if action_required is not None and error:
            # do_machine_check(): what the task needs it cannot have, and nobody has told it.
            send_signal(k, action_required.task, SIGBUS, 0, 0, 0)
    kind, result = "", ""
    if len(kernel.mf_actions) > actions:
        _, kind_number, result_number = kernel.mf_actions[-1]
        kind, result = KINDS[kind_number], RESULTS[result_number]
    kills = tuple(_kills(machine, kernel, signals))
    for kill in kills:
        if kill.signal == "SIGKILL" and kill.process.alive:
            kill.process.exit()
    return Failure(page, kind, result, error, kills)


def _running(machine: Machine, process: Process | None) -> Running:
    """Whoever meets the error: the process, or a kernel thread."""
    if process is not None:
        return machine.running(process)
    return machine.kthread("memory_failure")


def _kills(machine: Machine, kernel: Kernel, start: int) -> list[Kill]:
    """The signals sent since there were `start` of them."""
    sent = []
    for kill in kernel.kills[start:]:
        code = ""
        if kill.signal == SIGBUS and kill.code:
            code = "BUS_MCEERR_AR" if kill.code == BUS_MCEERR_AR else "BUS_MCEERR_AO"
        sent.append(
            Kill(
                machine.processes[int(kill.task.pid)],
                "SIGKILL" if kill.signal == SIGKILL else "SIGBUS",
                code,
                int(kill.address),
                1 << int(kill.addr_lsb) if kill.addr_lsb else 0,
            )
        )
    return sent


def soft_offline(machine: Machine, page: int) -> None:
    """Take a page out of use. For `Machine.soft_offline`."""
    with machine.kthread("soft_offline") as k:
        check(int(soft_offline_page(k, page, 0)), f"soft_offline of page {page:#x}")


def unpoison(machine: Machine, page: int) -> bool:
    """Let a page be used again. For `Machine.unpoison`."""
    with machine.kthread("unpoison") as k:
        hwpoison.unpoison_memory(k, page)
    return not machine.kernel.pg_flags[page] & bits.PG_hwpoison
