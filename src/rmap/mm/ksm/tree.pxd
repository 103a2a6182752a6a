# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG, WARN_ONCE
from rmap.mm.content cimport page_bytes
from rmap.mm.ksm.stable cimport Ksm, StableNode, alloc_stable_node, alloc_stable_node_chain
from rmap.mm.ksm.stable cimport free_stable_node, free_stable_node_chain, get_ksm_page
from rmap.mm.ksm.stable cimport is_page_sharing_candidate, is_stable_node_chain, ksm_of
from rmap.mm.ksm.stable cimport page_stable_node, remove_node_from_stable_tree
from rmap.mm.ksm.stable cimport set_page_stable_node, stable_node_chain_add_dup
from rmap.mm.ksm.stable cimport stable_tree_position
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport Kernel
from rmap.mm.page cimport get_page, page_mapped, unlock_page

cdef class NodeFound:
    cdef public u64 page
    cdef public StableNode node, dup

cdef class StablePlace:
    cdef public i64 position
    cdef public flag equal
    cdef public NodeFound found

cpdef i32 memcmp_pages(Kernel k, u64 page, u64 other) except? -1
cdef i32 _look_at(Kernel k, StableNode node, flag prune, NodeFound found) except -1
cdef i32 stable_node_dup(Kernel k, StableNode chain, flag prune, NodeFound found) except -1
cdef i32 _undo_chain(Kernel k, StableNode chain, NodeFound found) except -1
cdef i32 _search(Kernel k, u64 page, flag prune, StablePlace place) except -1
cpdef u64 stable_tree_search(Kernel k, u64 page) except? 0
cpdef StableNode stable_tree_insert(Kernel k, u64 kpage)
cpdef i32 remove_stable_node(Kernel k, StableNode node) except? -1
cpdef i32 remove_all_stable_nodes(Kernel k) except? -1
