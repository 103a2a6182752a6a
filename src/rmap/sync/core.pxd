# SPDX-License-Identifier: GPL-2.0-only
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64

cdef class Context:
    cdef public str name
    cdef public i32 cpu
    cdef public list held
    cdef public i32 rcu_depth

cdef class Scheduler:
    cdef public flag checking
    cdef public flag exploring
    cdef public Context current
    cdef public object switch

cdef Scheduler sched

cpdef i32 sched_point(i32 op, i32 kind, u64 ident) except -1
cpdef i32 wait_until(i32 kind, u64 ident, object free) except -1
cpdef i32 lock_acquired(i32 rank, u64 ident, i32 mode, flag tried) except -1
cpdef i32 lock_released(i32 rank, u64 ident, i32 mode) except -1
cpdef i32 assert_held(i32 rank, u64 ident, i32 mode) except -1
cpdef i32 rcu_read_lock() except -1
cpdef i32 rcu_read_unlock() except -1
