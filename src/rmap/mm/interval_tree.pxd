# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG
from rmap.mm.mm_types cimport IntervalNode, IntervalRoot, Vma

cpdef u64 node_start(IntervalNode node) except? 0
cpdef u64 node_last(IntervalNode node) except? 0
cpdef i32 interval_tree_insert(IntervalNode node, IntervalRoot root) except -1
cpdef i32 interval_tree_remove(IntervalNode node, IntervalRoot root) except -1
cpdef i32 interval_tree_insert_after(
    IntervalNode node, IntervalNode prev, IntervalRoot root
) except -1
cpdef IntervalNode interval_tree_iter_first(IntervalRoot root, u64 start, u64 last)
cpdef IntervalNode interval_tree_iter_next(IntervalNode node, u64 start, u64 last)

cdef u64 compute_subtree_last(IntervalNode node) except? 0
cdef i32 _change_child(
    IntervalNode old, IntervalNode new, IntervalNode parent, IntervalRoot root
) except -1
cdef i32 _rotate(IntervalNode node, flag left, IntervalRoot root) except -1
cdef i32 _link(
    IntervalNode node, IntervalNode parent, flag left, IntervalRoot root, flag leftmost,
    u64 start, u64 last,
) except -1
cdef i32 _insert_colour(IntervalNode node, IntervalRoot root) except -1
cdef IntervalNode _next(IntervalNode node)
cdef i32 _erase(IntervalNode node, IntervalRoot root) except -1
cdef i32 _recompute(IntervalNode node) except -1
cdef i32 _erase_colour(IntervalNode node, IntervalNode parent, IntervalRoot root) except -1
cdef IntervalNode _subtree_search(IntervalNode node, u64 start, u64 last)
