# SPDX-License-Identifier: GPL-2.0-only
"""Which processes share an address space (CLONE_VM, vfork): it must be counted once.

``kcmp(KCMP_VM)`` says whether two processes share one, and orders those that do not, so they are
sorted with it. Only processes whose stat shows the same layout are compared: forked ones, and
those that really share. Where the kernel has no kcmp (CONFIG_KCMP), processes are taken to share
nothing: a shared mm is then read once for each of its processes, and its pages show more mappings
than the kernel counts.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Hashable, Mapping

# The numbers of kcmp(2); an architecture that is not listed does without.
_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)

#: Compare the address spaces of two tasks: 0 the same, 1 less, 2 greater. May raise OSError.
Compare = Callable[[int, int], int]


def kcmp_vm(first: int, second: int) -> int:
    """Compare the address spaces of two tasks (process or thread ids).

    Returns
    -------
    0 the same, 1 less, 2 greater, in an order that is as good as any.

    Raises
    ------
    OSError
        If one of them is gone, may not be compared, or the kernel cannot.
    """
    number = _SYS_KCMP.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = int(_libc.syscall(number, first, second, _KCMP_VM, 0, 0))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def group_by_mm(layouts: Mapping[int, Hashable], compare: Compare = kcmp_vm) -> list[list[int]]:
    """Group tasks that share an address space.

    Parameters
    ----------
    layouts
        Task id to a fingerprint that the tasks of one mm have in common.
    compare
        As :func:`kcmp_vm`. A task that it fails for is alone.

    Returns
    -------
    Groups of ascending ids, ordered by their first.

    >>> group_by_mm({1: "a", 2: "b", 3: "a"}, lambda a, b: 0)
    [[1, 3], [2]]
    """
    similar: dict[Hashable, list[int]] = {}
    for task in sorted(layouts):
        similar.setdefault(layouts[task], []).append(task)
    groups = []
    for tasks in similar.values():
        groups.extend([tasks] if len(tasks) == 1 else _split(tasks, compare))
    return sorted(groups)


def _split(tasks: list[int], compare: Compare) -> list[list[int]]:
    """Group tasks of equal layout, leaving out, one by one, those that cannot be compared."""
    alone: list[list[int]] = []
    while True:
        broken: set[int] = set()
        ordered = _sorted(tasks, compare, broken)
        if not broken:
            break
        alone.extend([task] for task in tasks if task in broken)
        tasks = [task for task in tasks if task not in broken]
    groups: list[list[int]] = []
    for task, same in ordered:
        if same:
            groups[-1].append(task)
        else:
            groups.append([task])
    return [sorted(group) for group in groups] + alone


def _sorted(tasks: list[int], compare: Compare, broken: set[int]) -> list[tuple[int, bool]]:
    """Sort tasks; return each with whether it has the same mm as the one before.

    Those that cannot be compared are added to ``broken``, and the result is then of no use.
    """

    def order(first: int, second: int) -> int:
        try:
            result = compare(first, second)
        except OSError:
            broken.update(_culprits(first, second, compare))
            return 0
        return 0 if result == 0 else -1 if result == 1 else 1

    ordered = sorted(tasks, key=functools.cmp_to_key(order))
    pairs = zip([None, *ordered], ordered, strict=False)
    return [(task, before is not None and order(before, task) == 0) for before, task in pairs]


def _culprits(first: int, second: int, compare: Compare) -> set[int]:
    """Which of two tasks cannot be compared with itself; both if it is only the pair."""
    found = set()
    for task in (first, second):
        try:
            compare(task, task)
        except OSError:
            found.add(task)
    return found or {first, second}
