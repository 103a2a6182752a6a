# SPDX-License-Identifier: GPL-2.0-only
"""What /proc/PID/maps calls a VMA that maps no file: [heap], [stack], [anon:...], [vdso]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rmap.source.dump.records import Bools, Layout, Records, read_records
from rmap.source.dump.spaces import Spaces

if TYPE_CHECKING:
    from drgn import Program

_NAMED: dict[str, str | tuple[str, ...]] = {"given": "anon_name", "private": "vm_private_data"}


def vma_names(program: Program, spaces: Spaces) -> list[str]:
    """The names of all VMAs, '' for those that have none."""
    mm, vmas = spaces.mm, spaces.vmas
    names = [""] * len(vmas)
    unnamed = vmas["file"] == 0
    for name, here in (("[heap]", _is_heap(mm, spaces)), ("[stack]", _is_stack(mm, spaces))):
        for row in np.flatnonzero(unnamed & here).tolist():
            names[row] = name
        unnamed &= ~here
    rows = np.flatnonzero(unnamed)
    layout = Layout(program, "struct vm_area_struct", _NAMED)
    read = read_records(layout, vmas.address[rows])
    nothing = np.zeros(len(rows), "u8")
    given = read["given"] if layout.has("given") else nothing
    private = read["private"] if layout.has("private") else nothing
    found: dict[tuple[int, int, int], str] = {}
    columns = (rows, given, vmas["ops"][rows], private)
    for row, pointer, ops, data in zip(*(one.tolist() for one in columns), strict=True):
        if pointer or ops:
            # VMAs with the same of all three, such as every process's vdso, have the same name.
            key = (pointer, ops, data)
            if key not in found:
                found[key] = _given(program, int(vmas.address[row]))
            names[row] = found[key]
    return names


def _is_heap(mm: Records, spaces: Spaces) -> Bools:
    """From start_brk to brk."""
    vmas, row = spaces.vmas, spaces.vma_mm
    return (vmas["start"] <= mm["brk"][row]) & (vmas["end"] >= mm["start_brk"][row])


def _is_stack(mm: Records, spaces: Spaces) -> Bools:
    """Where start_stack lies."""
    vmas, top = spaces.vmas, mm["start_stack"][spaces.vma_mm]
    return (vmas["start"] <= top) & (top < vmas["end"])


def _given(program: Program, address: int) -> str:
    """The name that a process gave it (PR_SET_VMA_ANON_NAME), or the architecture."""
    from drgn import FaultError, Object
    from drgn.helpers.linux.mm import vma_name

    try:
        vma: Any = Object(program, "struct vm_area_struct *", address)
        return str(vma_name(vma).decode("utf-8", "backslashreplace"))
    except (FaultError, LookupError, AttributeError, ValueError):
        return ""
