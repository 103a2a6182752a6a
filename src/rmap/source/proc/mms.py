# SPDX-License-Identifier: GPL-2.0-only
"""Which processes share an address space (CLONE_VM, vfork): it must be counted once.

``kcmp(KCMP_VM)`` says whether two processes share one, and orders those that do not, so a group
is sorted with it. Only processes whose stat shows the same layout are compared. Where the kernel
has no kcmp (CONFIG_KCMP), processes are taken to share nothing: a shared mm is then read once for
each of its processes, and its pages show more mappings than the kernel counts.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Hashable, Mapping

_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)

#: Compare two processes: 0 the same mm, 1 or 2 an order between different ones.
Compare = Callable[[int, int], int]


def kcmp_vm(first: int, second: int) -> int:
    """Compare the address spaces of two processes.

    Returns
    -------
    0 the same, 1 less, 2 greater, 3 different without an order.

    Raises
    ------
    OSError
        If one of them is gone, may not be compared, or the kernel cannot.
    """
    number = _SYS_KCMP.get(os.uname().machine)
    if number is None:
        raise OSError(38, "no kcmp on this architecture")
    result = int(_libc.syscall(number, first, second, _KCMP_VM, 0, 0))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def group_by_mm(layouts: Mapping[int, Hashable], compare: Compare = kcmp_vm) -> list[list[int]]:
    """Group processes that share an address space.

    Parameters
    ----------
    layouts
        Process id to a fingerprint that processes of one mm have in common.
    compare
        As :func:`kcmp_vm`; an ``OSError`` counts as "different".

    Returns
    -------
    Groups of ascending ids, ordered by their first.

    >>> group_by_mm({1: "a", 2: "b", 3: "a"}, lambda a, b: 0)
    [[1, 3], [2]]
    """
    similar: dict[Hashable, list[int]] = {}
    for pid in sorted(layouts):
        similar.setdefault(layouts[pid], []).append(pid)
    groups = []
    for pids in similar.values():
        groups.extend([pids] if len(pids) == 1 else _split(pids, compare))
    return sorted(groups)


def _split(pids: list[int], compare: Compare) -> list[list[int]]:
    def order(first: int, second: int) -> int:
        try:
            result = compare(first, second)
        except OSError:
            result = 3
        if result == 0:
            return 0
        # Without an order from the kernel, the ids give one.
        return -1 if result == 1 or (result == 3 and first < second) else 1

    groups: list[list[int]] = []
    for pid in sorted(pids, key=functools.cmp_to_key(order)):
        if groups and order(groups[-1][0], pid) == 0:
            groups[-1].append(pid)
        else:
            groups.append([pid])
    return [sorted(group) for group in groups]
