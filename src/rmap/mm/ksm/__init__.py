# SPDX-License-Identifier: GPL-2.0-only
"""Kernel samepage merging (mm/ksm.c, v4.18): pages of equal contents become one page.

A process offers memory by madvise(MADV_MERGEABLE). ksmd goes over all such memory, page by page,
and looks each page up among those merged already (the stable tree) and among those that have
lately not changed (the unstable tree). What it finds equal it maps to one page, write-protected,
which every write copies from again.

A merged page may be mapped anywhere, so rmap cannot find its mappings by an anon_vma and an index.
Its ``mapping`` names a `StableNode` instead, on which each place that ksmd has merged hangs as an
`RmapItem`: address space, address, and the anon_vma of the VMA, which it pins. Places that fork
copied since have no item of their own, and are found through the tree of that anon_vma.

Until ksmd comes by again, a place may be without either, and no walk finds it. A child's, whose
parent's item ksmd has dropped, because the parent wrote there or is gone; and one that comes back
from swap, where the page was found in the swap cache, if ksmd passed meanwhile or mremap() moved
the entry. All that comes of it is that such a page cannot be unmapped.

Modules: `stable` (nodes and items), `tree` (finding a merged page), `slots` (which address spaces
take part), `unmerge` (taking merged pages apart), `merge` (merging two pages), `scan` (ksmd, and
what sysfs can set).
NUMA nodes are not told apart, as with ``merge_across_nodes`` at 1.
"""
