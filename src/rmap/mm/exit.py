# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A task gives up its address space: exit_mm() of kernel/exit.c (v4.18).

No lock is held; mmput() takes what exit_mmap() needs.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.fork import mmput
    from rmap.mm.mm_types import Kernel, Mm, Task
    from rmap.scalar import i32


def exit_mm(k: Kernel, task: Task) -> i32:
    """Let a task that ends go of its address space, which goes with its last user.

    Its CPU is left as it is, lazily: what it remembers of the address space is flushed when that
    is unmapped, since its bit stands in the mm's set of CPUs until it runs another one.
    """
    mm: Mm = task.mm
    if mm is None:
        return 0
    # A dumper of core would be waited for here.
    mm.mmap_sem.down_read()
    task.mm = None
    mm.mmap_sem.up_read()
    if k.tracer is not None:
        k.tracer("exit_mm", (task, mm))
    return mmput(k, mm)
