# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport rcu_read_lock, rcu_read_unlock, sched, sched_point
from rmap.sync.locks cimport RwSem, SpinLock
from rmap.mm.bug cimport BUG, WARN, WARN_ONCE
from rmap.mm.interval_tree cimport interval_tree_insert, interval_tree_remove
from rmap.mm.inline cimport page_mapped, page_mapping_word
from rmap.mm.mm_types cimport AnonVma, AnonVmaChain, Kernel, Mm, Vma
from rmap.mm.vma cimport find_mergeable_anon_vma, set_vma_anon_vma, vma_anon_vma

cdef class ReuseRule:
    cpdef flag may_reuse(self, Kernel k, Vma dst, Vma src, AnonVma anon_vma) except? -1

cdef ReuseRule default_rule

cpdef AnonVma anon_vma_alloc(Kernel k)
cpdef i32 anon_vma_free(Kernel k, AnonVma anon_vma) except -1
cdef AnonVmaChain anon_vma_chain_alloc(Kernel k, Vma vma, u64 gfp)
cdef i32 anon_vma_chain_free(AnonVmaChain avc) except -1
cdef i32 anon_vma_chain_link(Vma vma, AnonVmaChain avc, AnonVma anon_vma) except -1
cpdef i32 anon_vma_prepare(Kernel k, Vma vma) except -1
cpdef i32 __anon_vma_prepare(Kernel k, Vma vma) except -1
cdef AnonVma lock_anon_vma_root(Kernel k, AnonVma root, AnonVma anon_vma)
cdef i32 unlock_anon_vma_root(AnonVma root) except -1
cpdef i32 anon_vma_clone(Kernel k, Vma dst, Vma src) except -1
cpdef i32 anon_vma_fork(Kernel k, Vma vma, Vma pvma) except -1
cpdef i32 unlink_anon_vmas(Kernel k, Vma vma) except -1
cdef flag _is_counted(Kernel k, AnonVma anon_vma) except? -1
cdef i32 _unlink_chain(Kernel k, Vma vma) except -1
cdef AnonVma anon_vma_ctor(u64 handle)
cpdef AnonVma page_get_anon_vma(Kernel k, u64 page)
cpdef AnonVma page_lock_anon_vma_read(Kernel k, u64 page)
cdef AnonVma _mapped_anon_vma(Kernel k, u64 page)
cdef flag _still_mapped(Kernel k, u64 page) except? -1
cpdef i32 page_unlock_anon_vma_read(AnonVma anon_vma) except -1
cpdef i32 __put_anon_vma(Kernel k, AnonVma anon_vma) except -1

cpdef i32 get_anon_vma(AnonVma anon_vma) except -1
cpdef i32 put_anon_vma(Kernel k, AnonVma anon_vma) except -1
cdef flag anon_vma_get_unless_zero(AnonVma anon_vma) except? -1
cdef flag anon_vma_dec_and_test(AnonVma anon_vma) except? -1
cdef AnonVma anon_vma_root(AnonVma anon_vma)
cdef i32 set_anon_vma_root(AnonVma anon_vma, AnonVma root) except -1
cpdef i32 anon_vma_lock_read(AnonVma anon_vma) except -1
cpdef i32 anon_vma_unlock_read(AnonVma anon_vma) except -1
cpdef i32 anon_vma_lock_write(AnonVma anon_vma) except -1
cpdef i32 anon_vma_unlock_write(AnonVma anon_vma) except -1
cpdef i32 anon_vma_interval_tree_pre_update_vma(Kernel k, Vma vma) except -1
cpdef i32 anon_vma_interval_tree_post_update_vma(Kernel k, Vma vma) except -1
cpdef i32 anon_vma_merge(Kernel k, Vma vma, Vma next) except -1
