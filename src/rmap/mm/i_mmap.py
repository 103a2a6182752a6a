# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The VMAs that map a file: who enters and leaves ``mapping->i_mmap`` (parts of mm/mmap.c, v4.18).

Locks: mapping->i_mmap_rwsem for write. `unlink_file_vma` takes it; the others need it held.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import VM_SHARED
    from rmap.mm.interval_tree import interval_tree_insert, interval_tree_remove
    from rmap.mm.mm_types import AddressSpace, Vma
    from rmap.scalar import i32


def vma_link_file(vma: Vma) -> i32:
    """Enter a VMA into the tree of its file, if it has one: __vma_link_file()."""
    if vma.vm_file is None:
        return 0
    mapping: AddressSpace = vma.vm_file.f_mapping
    mapping.i_mmap_rwsem.assert_held_write()
    if vma.vm_flags & VM_SHARED:
        mapping.i_mmap_writable += 1
    interval_tree_insert(vma.shared, mapping.i_mmap)
    return 0


def remove_shared_vm_struct(vma: Vma, mapping: AddressSpace) -> i32:
    """Take a VMA out of the tree of its file: __remove_shared_vm_struct()."""
    mapping.i_mmap_rwsem.assert_held_write()
    if vma.vm_flags & VM_SHARED:
        mapping.i_mmap_writable -= 1
    interval_tree_remove(vma.shared, mapping.i_mmap)
    return 0


def unlink_file_vma(vma: Vma) -> i32:
    """Hide a VMA that goes away from walks over its file, before its page tables are freed."""
    if vma.vm_file is None:
        return 0
    mapping: AddressSpace = vma.vm_file.f_mapping
    mapping.i_mmap_rwsem.down_write()
    remove_shared_vm_struct(vma, mapping)
    mapping.i_mmap_rwsem.up_write()
    return 0
