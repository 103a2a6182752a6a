# SPDX-License-Identifier: GPL-2.0-only
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.sync.core cimport assert_held, lock_acquired, lock_released
from rmap.sync.core cimport sched, sched_point, wait_until

cdef class RwSem:
    cdef public i32 rank
    cdef public u64 ident
    cdef public i32 count
    cpdef i32 down_read(self) except -1
    cpdef flag down_read_trylock(self) except? -1
    cpdef i32 up_read(self) except -1
    cpdef i32 down_write(self) except -1
    cpdef flag down_write_trylock(self) except? -1
    cpdef i32 up_write(self) except -1
    cpdef i32 downgrade_write(self) except -1
    cpdef flag is_locked(self) except? -1
    cpdef i32 assert_held_write(self) except -1
    cpdef i32 assert_held_any(self) except -1

cdef class SpinLock:
    cdef public i32 rank
    cdef public u64 ident
    cdef public flag locked
    cpdef i32 lock(self) except -1
    cpdef flag trylock(self) except? -1
    cpdef i32 unlock(self) except -1
    cpdef i32 assert_held(self) except -1
