# SPDX-License-Identifier: GPL-2.0-only
"""What /proc/PID/maps calls a VMA that maps no file: [heap], [stack], [anon:...], [vdso]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.source.dump.records import Records, member_offset
from rmap.source.dump.spaces import Spaces

if TYPE_CHECKING:
    from drgn import Program


def vma_names(program: Program, spaces: Spaces) -> list[str]:
    """The names of all VMAs, '' for those that have none."""
    named = member_offset(program, "struct vm_area_struct", "anon_name") is not None
    special = np.flatnonzero((spaces.vmas["file"] == 0) & (spaces.vmas["ops"] != 0)).tolist()
    names = [""] * len(spaces.vmas)
    for row in np.flatnonzero(spaces.vmas["file"] == 0).tolist():
        names[row] = _place(spaces.mm, int(spaces.vma_mm[row]), spaces.vmas, row)
    if named or special:
        for row in np.flatnonzero(spaces.vmas["file"] == 0).tolist():
            if not names[row]:
                names[row] = _given(program, int(spaces.vmas.address[row]))
    return names


def _place(mm: Records, space: int, vmas: Records, row: int) -> str:
    """The heap, from start_brk to brk, and the stack, where start_stack lies."""
    start, end = int(vmas["start"][row]), int(vmas["end"][row])
    if start <= int(mm["brk"][space]) and end >= int(mm["start_brk"][space]):
        return "[heap]"
    if start <= int(mm["start_stack"][space]) < end:
        return "[stack]"
    return ""


def _given(program: Program, address: int) -> str:
    """The name that a process gave it (PR_SET_VMA_ANON_NAME), or the architecture."""
    from drgn import FaultError, Object
    from drgn.helpers.linux.mm import vma_name

    try:
        vma: Any = Object(program, "struct vm_area_struct *", address)
        return str(vma_name(vma).decode("utf-8", "backslashreplace"))
    except (FaultError, LookupError, AttributeError, ValueError):
        return ""
