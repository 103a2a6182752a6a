# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A task becomes another program: the new stack, first where it is not to stay (fs/exec.c, v4.18).

The arguments are written into a stack at the very top of an address space that is nobody's yet.
Only the new program's loader knows where the stack belongs, so it is moved afterwards, together
with its page tables; the offset of its VMA stays what it was, and so does the index of its pages.
During the move the pages lie elsewhere than their VMA says. The flags of a temporary stack
(`is_vma_temporary_stack`) tell the walks that must not miss a page to leave it alone.

Locks: mmap_sem of the new mm for write, then what mprotect_fixup(), vma_adjust(),
move_page_tables() and expand_stack() take.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EFAULT,
        ENOMEM,
        MMAP_MIN_ADDR,
        PAGE_MASK,
        PAGE_SIZE,
        RLIMIT_STACK,
        TASK_SIZE,
        VM_SOFTDIRTY,
        VM_STACK_FLAGS,
        VM_STACK_INCOMPLETE_SETUP,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.content import page_write
    from rmap.mm.fork import mm_alloc, mmput
    from rmap.mm.gup import get_user_pages, put_user_page
    from rmap.mm.mm_types import Kernel, Mm, Task, Vma
    from rmap.mm.mmu_gather import MmuGather, tlb_finish_mmu, tlb_gather_mmu
    from rmap.mm.mprotect import mprotect_fixup
    from rmap.mm.mremap import move_page_tables
    from rmap.mm.pgtable import free_pgd_range
    from rmap.mm.stack import expand_downwards, expand_stack
    from rmap.mm.tlb import switch_mm
    from rmap.mm.vma import find_vma, vm_area_alloc
    from rmap.mm.vma_adjust import VmaPointer, insert_vm_struct, vma_adjust
    from rmap.scalar import i32, u64

#: How far below the top of the address space the stack ends, in bytes, unless told otherwise: the
#: kernel draws it by lot, and nothing is here.
STACK_SHIFT = cython.declare(cython.ulonglong, 0x40_1000)
#: What the stack is grown by at once.
STACK_EXPAND = cython.declare(cython.ulonglong, 128 << 10)
#: Bytes of arguments and environment: a quarter of the stack's limit.
MAX_ARG_BYTES = cython.declare(cython.ulonglong, 2 << 20)


class LinuxBinprm:
    """struct linux_binprm: a program on its way to run. `p` is the top of what is on its stack."""

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.vma: Vma = None
        self.p = 0


# ---------------------------------------------------------------- the temporary stack


def bprm_mm_init(k: Kernel, name: str, old: Mm) -> LinuxBinprm | None:
    """Make an address space with a temporary stack of one page (fs/exec.c:259, 365).

    ``None`` without memory. It is charged as `old`'s is.
    """
    mm: Mm = mm_alloc(k, name, old.memcg)
    if mm is None:
        return None
    bprm: LinuxBinprm = LinuxBinprm(mm)
    vm_flags: u64 = VM_SOFTDIRTY | VM_STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP
    vma: Vma = vm_area_alloc(k, mm, TASK_SIZE - PAGE_SIZE, TASK_SIZE, vm_flags, 0)
    if vma is None:
        mmput(k, mm)
        return None
    mm.mmap_sem.down_write()
    if insert_vm_struct(k, mm, vma):
        BUG("exec.c:290 __bprm_mm_init: an empty address space has no room")
    mm.total_vm = 1
    mm.mmap_sem.up_write()
    bprm.vma = vma
    # The topmost word stays zero.
    bprm.p = vma.vm_end - 8
    return bprm


def copy_strings(k: Kernel, bprm: LinuxBinprm, strings: bytes) -> i32:
    """Put arguments onto the temporary stack, last byte topmost (fs/exec.c:513).

    Returns 0, -ENOMEM (the kernel: -E2BIG) beyond a quarter of the stack's limit, or -EFAULT.
    """
    left: u64 = len(strings)
    count: u64
    page: u64
    offset: u64
    if left > MAX_ARG_BYTES:
        return -ENOMEM
    while left:
        # Of the page below p, as much as is left of it.
        count = (bprm.p - 1) % PAGE_SIZE + 1
        if count > left:
            count = left
        bprm.p -= count
        left -= count
        page = _get_arg_page(k, bprm, bprm.p)
        if not page:
            return -EFAULT
        offset = bprm.p % PAGE_SIZE
        page_write(k, page, offset, strings[left : left + count])
        put_user_page(k, page)
    return 0


def _get_arg_page(k: Kernel, bprm: LinuxBinprm, position: u64) -> u64:
    """Fault in a page of the temporary stack, which grows for it; 0 on failure (fs/exec.c:193).

    v4.18 takes no mmap_sem for that, as the mm is nobody's yet; later kernels do, and so does this.
    """
    bprm.mm.mmap_sem.down_read()
    error: i32 = expand_downwards(k, bprm.vma, position)
    bprm.mm.mmap_sem.up_read()
    if error:
        return 0
    pages: list = get_user_pages(k, bprm.mm, position & PAGE_MASK, 1, True)
    return pages[0] if pages else 0


# ---------------------------------------------------------------- the point of no return


def exec_mmap(k: Kernel, task: Task, mm: Mm) -> i32:
    """Let a task run the new address space, and let go of the old one (fs/exec.c:1009)."""
    old: Mm = task.mm
    old.mmap_sem.down_read()
    switch_mm(k, task, mm)
    old.mmap_sem.up_read()
    return mmput(k, old)


def setup_arg_pages(k: Kernel, bprm: LinuxBinprm, stack_top: u64) -> i32:
    """Move the stack to where it belongs, and make it an ordinary one (fs/exec.c:664).

    Returns 0 or a negative errno, after which the task can only be killed.
    """
    vma: Vma = bprm.vma
    mm: Mm = bprm.mm
    stack_top &= PAGE_MASK
    if stack_top < MMAP_MIN_ADDR or vma.vm_end - vma.vm_start >= stack_top - MMAP_MIN_ADDR:
        return -ENOMEM
    shift: u64 = vma.vm_end - stack_top
    bprm.p -= shift
    mm.mmap_sem.down_write()
    error: i32 = _place_stack(k, vma, shift)
    mm.mmap_sem.up_write()
    return error


def _place_stack(k: Kernel, vma: Vma, shift: u64) -> i32:
    """What setup_arg_pages() does under mmap_sem. Returns 0 or a negative errno."""
    vm_flags: u64 = VM_STACK_FLAGS | vma.vm_mm.def_flags | VM_STACK_INCOMPLETE_SETUP
    prev: VmaPointer = VmaPointer(None)
    error: i32 = mprotect_fixup(k, vma, prev, vma.vm_start, vma.vm_end, vm_flags)
    if error:
        return error
    if prev.vma is not vma:
        BUG("exec.c:717 setup_arg_pages: the stack became another VMA")
    if shift:
        error = shift_arg_pages(k, vma, shift)
        if error:
            return error
    # Two bits that no entry depends on; mprotect_fixup() would be too much for that.
    if vma.vm_flags & VM_STACK_INCOMPLETE_SETUP:
        vma.vm_flags &= ~VM_STACK_INCOMPLETE_SETUP
    base: u64 = vma.vm_start - STACK_EXPAND
    if vma.vm_end - vma.vm_start + STACK_EXPAND > RLIMIT_STACK:
        base = vma.vm_end - RLIMIT_STACK
    return -EFAULT if expand_stack(k, vma, base) else 0


def shift_arg_pages(k: Kernel, vma: Vma, shift: u64) -> i32:
    """Move the stack's VMA and page tables downwards by `shift` (fs/exec.c:603).

    Returns 0 or a negative errno; what was moved by then is left to the end of the process. The
    VMA covers old and new place during the move, with its offset as it was: what a walk then takes
    for a page's address is the new one. mmap_sem is held for write.
    """
    mm: Mm = vma.vm_mm
    old_start: u64 = vma.vm_start
    old_end: u64 = vma.vm_end
    length: u64 = old_end - old_start
    new_start: u64 = old_start - shift
    new_end: u64 = old_end - shift
    if find_vma(k, mm, new_start) is not vma:
        return -EFAULT
    if vma_adjust(k, vma, new_start, old_end, vma.vm_pgoff, None):
        return -ENOMEM
    if move_page_tables(k, vma, old_start, vma, new_start, length, False) != length:
        return -ENOMEM
    tlb: MmuGather = tlb_gather_mmu(k, mm, old_start, old_end)
    ceiling: u64 = 0 if vma.vm_next is None else vma.vm_next.vm_start
    # Where old and new place overlap, only what lies behind the new one.
    first: u64 = new_end if new_end > old_start else old_start
    free_pgd_range(k, mm, first, old_end, new_end, ceiling)
    tlb_finish_mmu(k, tlb, old_start, old_end)
    vma_adjust(k, vma, new_start, new_end, vma.vm_pgoff, None)
    if k.tracer is not None:
        k.tracer("shift_arg_pages", (vma, old_start, new_start))
    return 0


def do_execve(
    k: Kernel, task: Task, name: str, strings: bytes = b"", stack_shift: u64 = STACK_SHIFT
) -> i32:
    """Let a task become the program `name`, with an address space that holds but a stack.

    Parameters
    ----------
    strings
        What stands on the stack below the program's name: arguments and environment.
    stack_shift
        How far below the top of the address space the stack ends, in bytes.

    Returns 0 or a negative errno. On failure the task is what it was, unless the failure came
    when the old address space was gone: then it has the new one, unfit to run, and is to be killed.
    """
    bprm: LinuxBinprm = bprm_mm_init(k, name, task.mm)
    if bprm is None:
        return -ENOMEM
    error: i32 = copy_strings(k, bprm, strings + name.encode() + b"\0")
    if error:
        mmput(k, bprm.mm)
        return error
    exec_mmap(k, task, bprm.mm)
    error = setup_arg_pages(k, bprm, TASK_SIZE - stack_shift)
    if k.tracer is not None:
        k.tracer("do_execve", (task, name, error))
    return error
