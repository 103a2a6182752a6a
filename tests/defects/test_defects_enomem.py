# SPDX-License-Identifier: GPL-2.0-only
"""What an allocation that fails leaves behind: D4, D5, and a swap slot that leaks until 5.16.

D4 (2015). anon_vma_clone() fails half way and unlinks what it has linked; 3.19 thereby uncounted a
VMA from an anon_vma whose `degree` did not count it yet, "kernel BUG at mm/rmap.c:399!" later on.
Fixed in 4.0 by forgetting dst->anon_vma first.

D5 (2014). From 3.12 on __split_vma() took a failed anon_vma_clone() for success, and its callers
went on with a VMA that was not split. Fixed in 3.18 by c4ea95d7cd08.

The last: try_to_unmap_one() takes a count of the swap slot, and then the architecture cannot save
what it keeps beside the page: the entry is put back, the count not.
"""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.model import SyscallError


@pytest.mark.parametrize("fixed", [False, True])
def test_d4_a_failed_clone_uncounts_what_it_did_not_count(fixed: bool) -> None:
    f = Faulting(failed_clone_forgets_owner=fixed)
    a = f.map(4)
    f.p.touch(a, 4 * PAGE)
    child = f.p.fork("child")
    own = child.vmas[0].anon_vma
    assert own.degree == 1
    # The child's VMA has two edges; for a copy of it the second cannot be had.
    f.m.inject = Failing(2, "anon_vma_chain")
    with pytest.raises(SyscallError, match="mprotect"):
        child.mprotect(a + PAGE, PAGE, "r")
    f.m.inject = None
    if fixed:
        assert own.degree == 1
        assert f.sound()
        return
    assert own.degree == 0
    assert [found.invariant for found in f.m.check()] == ["degree"]
    # Its own VMA owns it still, and the next to be forked takes it over as if none did.
    grandchild = child.fork("grandchild").fork("next")
    assert grandchild.vmas[0].anon_vma is own


@pytest.mark.parametrize("fixed", [False, True])
def test_d5_a_vma_that_could_not_be_split_is_treated_as_if_it_was(fixed: bool) -> None:
    f = Faulting(failed_clone_fails_split=fixed)
    a = f.map(4)
    f.p.touch(a, 4 * PAGE)
    f.m.inject = Failing(1, "anon_vma_chain")
    if fixed:
        with pytest.raises(SyscallError):
            f.p.mprotect(a + PAGE, PAGE, "r")
        writable = True
    else:
        # One page was to become read-only, and the call says that it did.
        f.p.mprotect(a + PAGE, PAGE, "r")
        writable = False
    f.m.inject = None
    assert len(f.p.vmas) == 1
    flags = f.p.vmas[0].vm_flags
    assert (flags & bits.VM_WRITE != 0) is writable, "the whole VMA got the protection of one page"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_swap_slot_leaks_if_the_architecture_cannot_save_its_bits(fixed: bool) -> None:
    f = Faulting(arch_unmap_failure_frees_swap=fixed)
    a = f.map(1)
    f.p.write(a, b"x")
    f.m.inject = Failing(1, "arch_unmap_one", once=True)
    f.p.madvise(a, PAGE, "pageout")
    f.m.inject = None
    assert f.p.read(a, 1) == b"x"
    if fixed:
        assert f.sound()
    else:
        assert [found.invariant for found in f.m.check()] == ["swap-count"]
    f.p.exit()
    assert (f.k.swap_areas[0].inuse == 0) is fixed
