# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32
from rmap.mm.interval_tree cimport interval_tree_insert, interval_tree_remove
from rmap.mm.mm_types cimport AddressSpace, Vma

cpdef i32 vma_link_file(Vma vma) except -1
cpdef i32 remove_shared_vm_struct(Vma vma, AddressSpace mapping) except -1
cpdef i32 unlink_file_vma(Vma vma) except -1
