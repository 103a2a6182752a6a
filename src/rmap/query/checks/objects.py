# SPDX-License-Identifier: GPL-2.0-only
"""How findings call objects of the kernel: by what they are, where they lie, and whose they are."""

from __future__ import annotations

from rmap.image import MemoryImage
from rmap.query.checks.mappers import name_users, users_of


def anon_vma_name(image: MemoryImage, row: int) -> str:
    """``anon_vma 0xffff888003a41340``, or its number in a model."""
    if row < 0:
        return "an anon_vma that is not known"
    table = image.tables["anon_vmas"]
    handle = int(table["handle"][row]) if "handle" in table else row
    return f"anon_vma {handle:#x}"


def vma_name(image: MemoryImage, row: int) -> str:
    """``the VMA 0x7f00-0x7f08 of pid 12 (sh)``."""
    if row < 0:
        return "a VMA that is not known"
    start, end = int(image.vmas["start"][row]), int(image.vmas["end"][row])
    users = name_users(*users_of(image, int(image.vmas["mm"][row])))
    return f"the VMA {start:#x}-{end:#x} of {users}"


def file_name(image: MemoryImage, row: int) -> str:
    """``the file /usr/bin/sh``, or its inode."""
    if row < 0:
        return "a file that is not known"
    path = str(image.files["path"][row])
    return f"the file {path}" if path else f"the file of inode {int(image.files['inode'][row])}"
