# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32
from rmap.mm.fork cimport mmput
from rmap.mm.mm_types cimport Kernel, Mm, Task

cpdef i32 exit_mm(Kernel k, Task task) except -1
