# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which kernel the model is: v4.18 with its defects, or with what later kernels changed.

A `KernelProfile` is a set of named quirks. Code asks for the quirk it depends on
(``if k.profile.anon_exclusive:``) and never for a version, so a profile can be mixed: v4.18 with
the one fix whose effect is in question.

>>> profile("4.18").anon_exclusive
False
>>> profile("4.18", lazyfree_checks_references=True).name
'4.18+lazyfree_checks_references'
"""

from __future__ import annotations

from dataclasses import dataclass

import cython

if not cython.compiled:
    pass


class UnknownQuirk(ValueError):
    """There is no profile, or no quirk, of that name."""


@dataclass(frozen=True)
class Quirk:
    """One behaviour that kernels differ in.

    `since` is the first release that has it (0 for "no release": a fix taken out again, or not
    there yet), `why` what it does and where it comes from.
    """

    name: str
    since: str
    why: str


#: Every quirk. False is what v4.18 does, except for those whose `since` is "4.18": they are
#: protections that v4.18 has, and that can be taken out to see what they protect from.
QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "separate_reuse_counters",
        "6.0",
        "anon_vma reuse looks at num_children and num_active_vmas, not at their sum `degree` "
        "(2555283eb40d, the fix of CVE-2022-42703)",
    ),
    Quirk(
        "clone_reuses_only_for_fork",
        "5.5",
        "anon_vma_clone() reuses only if the source has an anon_vma of its own (47b390d23bf8)",
    ),
    Quirk(
        "unlink_clears_anon_vma",
        "5.12",
        "unlink_anon_vmas() leaves vma->anon_vma NULL (ee8ab1903e3d)",
    ),
    Quirk(
        "dup_clears_neighbours",
        "5.7",
        "vm_area_dup() leaves vm_next and vm_prev NULL; before, the copy that fork makes still had "
        "the neighbours of the parent's VMA (e39a4b332df3)",
    ),
    Quirk(
        "wipeonfork_prepares_nothing",
        "5.7",
        "a VM_WIPEONFORK VMA starts without an anon_vma in the child; before, one was prepared at "
        "once, among the parent's neighbours (93949bb21b7a)",
    ),
    Quirk(
        "warn_path_restores_pte",
        "",
        "try_to_unmap_one() puts the PTE back where SwapBacked and SwapCache disagree, instead of "
        "losing the mapping; no release restores it, all warn",
    ),
    Quirk(
        "arch_unmap_failure_frees_swap",
        "5.16",
        "the swap count taken by swap_duplicate() is given back if arch_unmap_one() fails",
    ),
    Quirk(
        "poison_by_subpage",
        "5.18",
        "try_to_unmap_one() leaves a poisoned entry for the part of a huge page that is broken; "
        "before, it looked at the head alone, and a broken head took all parts along",
    ),
    Quirk(
        "lazyfree_checks_references",
        "5.18",
        "a lazily freed page with references besides its mappings is kept (6c8e2a256915)",
    ),
    Quirk(
        "device_private_subpage",
        "5.3",
        "try_to_unmap_one() takes a device-private page itself for what its entry maps, and not a "
        "page frame number read out of a swap entry",
    ),
    Quirk(
        "pvmw_finds_device_private",
        "4.20",
        "a walk's look without the lock accepts entries of device memory, so that unmapping finds "
        "a page that more than one process has there (aab8d0520e6e); before, such a page could "
        "not be brought back",
    ),
    Quirk(
        "device_collect_flushes_under_lock",
        "6.1",
        "migrate_vma() flushes the TLB before it drops the lock of the table that it has taken "
        "entries from (60bae7370896)",
    ),
    Quirk(
        "device_collect_keeps_dirty",
        "6.1",
        "migrate_vma() makes a page dirty whose dirty entry it replaces (fd35ca3d12cc)",
    ),
    Quirk(
        "thp_migration_munlocks",
        "4.19",
        "a huge page that comes back from migration is not left mlocked while PTEs map parts of "
        "it (e125fe405abe)",
    ),
    Quirk(
        "split_sets_mapping_first",
        "4.20",
        "a tail page of a huge page that is split has its mapping and index before others can take "
        "references to it (173d9d9fd3dd)",
    ),
    Quirk(
        "unmapped_thp_not_queued",
        "5.5",
        "a huge page whose last mapping goes as a whole is not queued to be split, as it is about "
        "to be freed (f1fe80d4ae33)",
    ),
    Quirk(
        "unmap_sees_all_parts",
        "5.13",
        "whether try_to_unmap() has succeeded is judged by all parts of a huge page, not by its "
        "head alone (504e070dc08f, 1fb08ac63bee)",
    ),
    Quirk(
        "walk_crosses_tables",
        "5.13",
        "a walk looks for parts of a huge page in the second page table that may map them, even if "
        "the first one does not exist; before, it missed them, and splitting the page found it "
        "still mapped (a9a7504d9bea)",
    ),
    Quirk(
        "ksm_honours_flush_pending",
        "4.18",
        "KSM flushes the TLB before it merges a page whose entry is read-only and clean already, "
        "if a flush of the address space is still to come (b3a81d0841a9)",
    ),
    Quirk(
        "ksm_expects_exit",
        "5.4",
        "taking all merged pages apart does not warn of one that a process still maps which is "
        "just exiting (9a63236f1ad8)",
    ),
    Quirk(
        "ksm_zero_page_checks_vma",
        "5.7",
        "ksmd that is about to merge a page with the zero page looks whether its VMA is still "
        "there (56df70a63ed5)",
    ),
    Quirk(
        "ksm_names_node_last",
        "6.10",
        "a page names its stable node only once that is in the tree; before, a chain that could "
        "not be allocated left the page with a node that was freed (90e823498881)",
    ),
    Quirk(
        "clear_young_keeps_tlb",
        "",
        "clearing a PTE's accessed bit flushes nothing, as on x86 (b13b1d2d8692): a CPU that still "
        "holds the entry does not set the bit again. Off, the generic version flushes, so that "
        "aging does not depend on what a TLB happens to hold",
    ),
    Quirk(
        "mremap_flushes_under_lock",
        "4.19",
        "move_ptes() flushes the TLB before it drops the page-table locks (eb66ae030829, "
        "CVE-2018-18281)",
    ),
    Quirk(
        "rmap_locks_in_mremap",
        "4.18",
        "mremap takes the rmap locks when a walker could meet the new VMA before the old one "
        "(need_rmap_locks, 38a76013ad80)",
    ),
    Quirk(
        "mmap_fill_asks_next_first",
        "6.1",
        "a mapping between two that could both take it goes to the next one, and to the previous "
        "one only if all three go together (mmap_region() with the maple tree; undone in 6.12)",
    ),
    Quirk(
        "mprotect_writes_exclusive",
        "6.0",
        "mprotect() to a writable protection makes the dirty entries of exclusive anonymous pages "
        "writable at once, with no write fault (64fe24a3e05e)",
    ),
    Quirk(
        "mprotect_writes_clean",
        "6.2",
        "the former also for entries that are not dirty (7ea7e333842e)",
    ),
    Quirk(
        "mprotect_drops_account",
        "6.7",
        "mprotect() to a read-only protection takes VM_ACCOUNT off an anonymous VMA that nothing "
        "was faulted into",
    ),
    Quirk(
        "mremap_dontunmap",
        "5.7",
        "mremap() knows MREMAP_DONTUNMAP, which leaves the old range mapped without its pages "
        "(e346b3813067)",
    ),
    Quirk(
        "dontunmap_unlinks_anon_vma",
        "5.12",
        "a VMA that MREMAP_DONTUNMAP moved the pages out of as a whole has no anon_vma any more "
        "(1583aa278f14)",
    ),
    Quirk(
        "dontunmap_splits_source",
        "",
        "MREMAP_DONTUNMAP merges a copy that lies beside its source with nothing, puts a source "
        "that was moved as a whole back to the page offset of its address, and splits a locked one "
        "before it unlocks the part that was moved; observed in 6.1.192, not in 6.12.111",
    ),
    Quirk(
        "mremap_expand_merges",
        "6.0",
        "mremap() that grows a mapping in place merges it with the next one (ca3d76b0aa80)",
    ),
    Quirk(
        "mremap_looks_at_source_first",
        "5.16",
        "mremap() of what is not mapped fails before it unmaps anything at the new address "
        "(550a7d60bd5e)",
    ),
    Quirk(
        "mremap_drops_userfaultfd",
        "4.20",
        "mremap() takes the userfaultfd off what it moved, unless that asked for remap events "
        "(3cfd22be0ad6)",
    ),
    Quirk(
        "uffd_copies_private_shmem",
        "4.20",
        "UFFDIO_COPY into a private mapping of shmem makes a private page, instead of putting a "
        "page into the file and mapping that writable (5b51072e97d5, CVE-2018-18397)",
    ),
    Quirk(
        "uffd_dirties_shmem",
        "4.20",
        "a page of shmem that UFFDIO_COPY provides through a mapping that is not writable is "
        "dirty; before, reclaim took it for one of zeros and dropped it (dcf7fe9d8976)",
    ),
    Quirk(
        "uffd_checks_file_size",
        "4.20",
        "userfaultfd provides no page of shmem beyond the file's end (e2a50c1f6414)",
    ),
    Quirk(
        "zap_drops_swapped_copies",
        "5.18",
        "truncating a file drops private copies that are swapped out too, as it drops those in "
        "memory; before, they could still be read beyond the end (5abfd71d936a)",
    ),
    Quirk(
        "shmem_pmd_counts_shmem",
        "4.19",
        "a PMD that maps a huge page of shmem counts in MM_SHMEMPAGES, as PTEs of shmem do, and "
        "not in MM_FILEPAGES (fadae2953072)",
    ),
    Quirk(
        "zap_dirties_huge_shmem",
        "",
        "a huge page of shmem that was written to through its PMD only is dirty when that PMD is "
        "zapped, as it is when that is split; without, reclaim takes it for one of zeros and "
        "drops it. No release is known to do this",
    ),
    Quirk(
        "collapse_shmem_repairs",
        "4.20",
        "khugepaged, which gives up on a file, takes back what it counted for holes; it gives up, "
        "and does not crash, if the file has a huge page there by now; and it leaves alone what "
        "was truncated or punched out meanwhile (aaa52e340073, 06a5e1268a54, 701270fa193a)",
    ),
    Quirk(
        "split_spares_migrating",
        "5.13",
        "splitting a PMD that waits for a huge page counts nothing for a page that nothing maps "
        "meanwhile (ec0abae6dcdf), and takes no frame number out of one of a file (99fa8a48203d)",
    ),
    Quirk(
        "cold_spares_shared",
        "5.10",
        "MADV_COLD and MADV_PAGEOUT leave pages alone that others map as well (12e967fd8e4e)",
    ),
    Quirk(
        "hugetlb_unmap_unshares",
        "4.19",
        "try_to_unmap_one() takes a shared table of huge pages away from the mm that it comes to, "
        "and flushes all of it, instead of changing the one entry for everybody with one mm's "
        "flush (017b1660df89)",
    ),
    Quirk(
        "hugetlb_fork_skips_shared",
        "4.20",
        "fork leaves entries of huge pages alone that the child shares with some other process "
        "than its parent; before, it set and counted them once more (5e41540c8a0f)",
    ),
    Quirk(
        "hugetlb_usage_starts_at_zero",
        "5.15",
        "a forked mm counts only its own huge pages; before, its parent's as well (13db8c50477d)",
    ),
    Quirk(
        "hugetlb_unshare_flushes",
        "5.16",
        "unmapping huge pages flushes what it took away with a shared table "
        "(a4a118f2eead, CVE-2021-4002)",
    ),
    Quirk(
        "page_mapped_recheck",
        "4.18",
        "page_lock_anon_vma_read() and page_get_anon_vma() look at page_mapped() once more after "
        "they have the lock or the reference",
    ),
    Quirk(
        "free_handshake",
        "4.18",
        "anon_vma_free() waits for whoever holds the root's lock",
    ),
    Quirk(
        "flush_batched_pending",
        "4.18",
        "zap, mprotect, mremap and MADV_FREE flush what reclaim left unflushed (3ea277194daa)",
    ),
    Quirk(
        "migration_skips_moving_stack",
        "4.18",
        "migration leaves the stack alone that exec is still moving: an entry that it left there "
        "would not be found again (a8bef8ff6ea1)",
    ),
    Quirk(
        "failed_clone_forgets_owner",
        "4.18",
        "anon_vma_clone() that finds no memory leaves dst->anon_vma NULL, so that nobody uncounts "
        "a VMA that was not counted yet (3.19 did, until 4.0)",
    ),
    Quirk(
        "failed_clone_fails_split",
        "4.18",
        "__split_vma() says so when anon_vma_clone() finds no memory; from 3.12 on it said that "
        "the VMA was split (c4ea95d7cd08)",
    ),
    Quirk(
        "prepare_locks_new",
        "4.18",
        "__anon_vma_prepare() locks an anon_vma that it has just made, since who looked at the "
        "slot before may walk it (d9d332e0874f)",
    ),
    Quirk(
        "mkclean_dirties_page",
        "4.18",
        "clear_page_dirty_for_io() makes the page dirty if page_mkclean() finds an entry that is "
        "(7658cc289288)",
    ),
    Quirk(
        "mkclean_keeps_pmd",
        "5.2",
        "page_mkclean() makes the PMD of a huge page clean without emptying it for a moment, in "
        "which MADV_DONTNEED would find nothing to drop (024eee0e83f0)",
    ),
    Quirk(
        "ttu_sync",
        "5.13",
        "a walk that must not miss a page waits for the lock of a PMD that it finds empty, and "
        "splitting a huge page walks so (732ed55823fc)",
    ),
    Quirk(
        "pmd_migration_notifies_once",
        "4.19",
        "set_pmd_migration_entry() tells secondary MMUs nothing that try_to_unmap_one() has not "
        "told them already (bfba8e5cf28f)",
    ),
    Quirk(
        "mlock_under_ptl",
        "4.18",
        "try_to_unmap_one() marks a page mlocked with the page-table lock held, which keeps its "
        "mapping from being the last one that just went (b87537d9e2fe)",
    ),
    Quirk(
        "pfnmap_flushed_before_unlink",
        "5.19",
        "munmap() flushes the TLB for a VM_PFNMAP VMA before rmap forgets the VMA, not after "
        "(b67fbebd4cf9, CVE-2022-39188)",
    ),
    Quirk(
        "mlock_counts",
        "5.18",
        "mlock is counted per page while it is unevictable, by the VMA that maps or unmaps it, "
        "and munlock needs no walk (cea86fe246b6, 07ca76067308)",
    ),
    Quirk(
        "swap_device_pinned",
        "5.3",
        "whoever uses a swap entry keeps its area from being taken away (get_swap_device(), "
        "eb085574a752; faults as a whole since 5.14, 2799e77529c2; freeing an entry since 6.9, "
        "82b1c07a0af6); before, swapoff could be over between reading an entry and using it",
    ),
    Quirk(
        "new_anon_inactive",
        "5.9",
        "new anonymous pages start on the inactive list (b518154e59aa)",
    ),
    Quirk(
        "fork_copies_pinned",
        "5.9",
        "a pin takes 1024 references, by which fork knows it, and copies the page for the child at "
        "once, lest the parent's device lose it (3faa52c03f44, 70e806e4e645)",
    ),
    Quirk(
        "anon_exclusive",
        "5.19",
        "PG_anon_exclusive says that an anonymous page is one process's: a write fault reuses "
        "it at once, and any other page only if the entry holds its one reference (6c287605fd56; "
        "reuse by references instead of map and swap counts since 5.18, 53a05ad9f21d)",
    ),
)
_BY_NAME: dict[str, Quirk] = {quirk.name: quirk for quirk in QUIRKS}


def _release(version: str) -> tuple[int, ...]:
    """A release as numbers, to compare."""
    return tuple(int(part) for part in version.split("."))


def _until(version: str) -> tuple[str, ...]:
    """The quirks that came after v4.18, up to a release."""
    later: list[str] = []
    for quirk in QUIRKS:
        if quirk.since and _release("4.18") < _release(quirk.since) <= _release(version):
            later.append(quirk.name)
    return tuple(later)


def _without(quirks: tuple[str, ...], undone: str) -> tuple[str, ...]:
    """Quirks but for one that a release took back."""
    at: int = quirks.index(undone)
    return quirks[:at] + quirks[at + 1 :]


#: What each profile has on, beyond the protections of v4.18: what has come until its release.
#: "6.1" and "6.12" are the kernels that the conformance corpus was recorded on, 6.1.192 with its
#: later fixes and 6.12.111 without them.
PROFILES: dict[str, tuple[str, ...]] = {
    "4.18": (),
    "6.1": (*_until("6.1"), "dontunmap_splits_source"),
    "6.12": _without(_until("6.12"), "mmap_fill_asks_next_first"),
}


class KernelProfile:
    """The quirks of one kernel, one attribute each. Made by `profile`."""

    def __init__(self, name: str, on: frozenset[str]) -> None:
        self.name = name
        self.reuse_rule = None
        for quirk in QUIRKS:
            setattr(self, quirk.name, quirk.name in on)

    def __getattr__(self, name: str) -> bool:
        """Called for what is no quirk. Raises `AttributeError`."""
        raise AttributeError(f"no quirk {name!r}")

    def __repr__(self) -> str:
        return f"profile({self.name!r})"


def profile(name: str, **changes: bool) -> KernelProfile:
    """Return the profile of a kernel version, with some quirks switched.

    Parameters
    ----------
    name
        One of `PROFILES`: ``"4.18"`` is the listing with its defects.
    changes
        Quirks to switch on or off, by the names of `QUIRKS`.

    Raises `UnknownQuirk` for a name that is none.
    """
    if name not in PROFILES:
        raise UnknownQuirk(f"no profile {name!r}; known: {', '.join(PROFILES)}")
    on: set[str] = {quirk.name for quirk in QUIRKS if quirk.since == "4.18"}
    on.update(PROFILES[name])
    label: str = name
    for quirk, wanted in changes.items():
        if quirk not in _BY_NAME:
            raise UnknownQuirk(f"no quirk {quirk!r}; known: {', '.join(_BY_NAME)}")
        label += f"{'+' if wanted else '-'}{quirk}"
        if wanted:
            on.add(quirk)
        else:
            on.discard(quirk)
    return KernelProfile(label, frozenset(on))
