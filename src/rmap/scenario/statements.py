# SPDX-License-Identifier: GPL-2.0-only
"""The lines that a scenario may have, apart from those that steer it (`rmap.scenario.parser`)."""

from __future__ import annotations

from rmap.scenario import limits
from rmap.scenario.grammar import (
    CGROUP,
    COUNT,
    FILE,
    KIND,
    LENGTH,
    OFFSET,
    PLACE,
    PROCESS,
    REGION,
    Kind,
    Param,
    Spec,
    name_of,
    number_in,
    one_of,
)

#: Protections that mprotect takes, and the letters the model knows them by.
PROTECTIONS = {"none": "", "r": "r", "rw": "rw", "rx": "rx", "rwx": "rwx"}
ADVICE = (
    "dontneed", "free", "cold", "pageout", "dontfork", "dofork", "wipeonfork", "keeponfork",
    "mergeable", "unmergeable", "hugepage", "nohugepage", "normal", "random", "sequential",
    "willneed", "hwpoison", "soft_offline",
)  # fmt: skip
SHMEM_MODES = ("always", "within_size", "advise", "never", "deny", "force")
#: Where an allocation can be made to fail.
SITES = (
    "anon_vma", "anon_vma_chain", "page", "page_table", "vma", "mm", "swap_slot",
    "swap_duplicate", "arch_unmap_one", "memcg_charge", "swap_cache", "mm_slot", "huge_page",
)  # fmt: skip
SECTIONS = ("processes", "sharing", "walks", "reclaim", "statistics")

_P = Param("process", PROCESS)
_R = Param("region", REGION)
_RANGE = (_P, _R, Param("off", OFFSET), Param("len", LENGTH))
_SPOT = (_P, _R, Param("off", OFFSET), Param("len", LENGTH, optional=True, default=1))
_PIN = Kind("PIN", name_of("pin"))
_WHERE = {"at": PLACE}
_IN = {"cgroup": CGROUP}

#: What the machine is; these stand before all that uses it.
SETTINGS = (
    Spec("ram", "Size of RAM.",
         (Param("pages", Kind("SIZE", number_in(64, limits.RAM_PAGES, "RAM"))),), operates=False),
    Spec("swap", "Size of the swap area; without it there is none.",
         (Param("pages", Kind("SIZE", number_in(0, limits.SWAP_PAGES, "swap"))),), operates=False),
    Spec("cpus", "Number of CPUs; processes are spread over them.",
         (Param("count", Kind("N", number_in(1, limits.CPUS, "the number of CPUs"))),),
         operates=False),
    Spec("profile", "Which kernel it is; 4.18 unless told.",
         (Param("name", Kind("NAME", str)),), operates=False),
    Spec("quirk", "Switch one behaviour on or off.",
         (Param("name", Kind("NAME", str)),),
         flags={"on": ("on", True), "off": ("on", False)}, operates=False),
    Spec("seed", "Where chance starts; 0 unless told.", (Param("seed", COUNT),), operates=False),
    Spec("check", "When invariants are recomputed: after each operation, at the end, never.",
         (Param("when", Kind("each|end|never", one_of("time", ("each", "end", "never")))),),
         operates=False),
)  # fmt: skip

_ADDRESS_SPACE = (
    Spec("mmap", "Map LEN pages at the region's place, over what is there.",
         (_P, _R, Param("len", LENGTH), Param("kind", KIND)),
         flags={"ro": ("prot", "r"), "none": ("prot", ""), "rx": ("prot", "rx"),
                "rwx": ("prot", "rwx")}, keyed=_WHERE),
    Spec("munmap", "Unmap pages.", _RANGE),
    Spec("mprotect", "Change protection.",
         (*_RANGE, Param("prot", Kind("r|rw|none|rx|rwx",
                                      one_of("protection", tuple(PROTECTIONS)))))),
    Spec("mremap", "Move pages to the start of region NEW, LEN of them unless NEWLEN is given.",
         (*_RANGE, Param("new", Kind("NEW", name_of("region"))),
          Param("newlen", Kind("NEWLEN", LENGTH.convert), optional=True)),
         flags={"dontunmap": ("dontunmap", True)}, keyed=_WHERE),
    Spec("madvise", "Give advice about pages.",
         (*_RANGE, Param("advice", Kind("ADVICE", one_of("advice", ADVICE))))),
    Spec("mlock", "Lock pages in memory.", _RANGE),
    Spec("munlock", "Unlock them.", _RANGE),
    Spec("brk", "Make the heap LEN pages long; [heap] is its region.",
         (_P, Param("len", LENGTH))),
    Spec("userfaultfd", "Register pages: who touches a missing one waits until it is provided.",
         _RANGE),
    Spec("provide", "Provide registered pages, with the number of the operation or the zero page.",
         _RANGE, flags={"zero": ("zero", True)}),
)  # fmt: skip

_ACCESS = (
    Spec("write", "Store the number of the operation at the start of each page.", _RANGE),
    Spec("read", "Load from each page.", _RANGE),
    Spec("touch", "Write a byte of each page, in one go: for many pages.", _RANGE,
         flags={"read": ("write", False)}),
    Spec("pin", "Take references to pages, as O_DIRECT or RDMA do.", (Param("pin", _PIN), *_RANGE),
         flags={"ro": ("write", False)}),
    Spec("unpin", "Give them back.", (Param("pin", _PIN),)),
)  # fmt: skip

_PROCESSES = (
    Spec("spawn", "Make a process with an empty address space.", (_P,), keyed=_IN),
    Spec("fork", "PROCESS forks; CHILD is the child's name.",
         (_P, Param("child", Kind("CHILD", name_of("process"))))),
    Spec("exec", "Replace the address space; the process is called NAME then, and keeps its word.",
         (_P, Param("name", Kind("NAME", name_of("process"))))),
    Spec("cpu", "PROCESS runs on CPU N from now on, the first is 0.",
         (_P, Param("cpu", Kind("N", number_in(0, limits.CPUS, "the CPU"))))),
    Spec("exit", "PROCESS ends.", (_P,)),
)  # fmt: skip

_FILES = (
    Spec("file", "Make a file of LEN pages, on disk or in shared memory.",
         (Param("file", FILE),
          Param("len", Kind("LEN", number_in(1, limits.FILE_PAGES, "the length of a file")))),
         flags={"disk": ("shmem", False), "shmem": ("shmem", True),
                "huge": ("huge", "always")}),
    Spec("fread", "Read pages by read(2): into the page cache.",
         (Param("file", FILE), Param("off", PLACE), Param("len", LENGTH))),
    Spec("fwrite", "Write the number of the operation to pages by write(2).",
         (Param("file", FILE), Param("off", PLACE), Param("len", LENGTH))),
    Spec("truncate", "Make the file LEN pages long.", (Param("file", FILE), Param("len", LENGTH))),
    Spec("writeback", "Write dirty pages of a file, or of all.",
         (Param("file", FILE, optional=True),)),
)  # fmt: skip

_RECLAIM = (
    Spec("cgroup", "Make a memory cgroup, inside of another, or change its limit.",
         (Param("cgroup", CGROUP),),
         keyed={"limit": Kind("SIZE", number_in(0, limits.RAM_PAGES, "the limit")),
                "in": CGROUP}),
    Spec("reclaim", "Reclaim N pages, of the machine or of a cgroup.",
         (Param("pages", Kind("N", number_in(0, limits.RAM_PAGES, "the number of pages"))),),
         keyed=_IN),
    Spec("age", "Age N active pages, or all: those not referenced go to the inactive lists.",
         (Param("pages", Kind("N", number_in(0, limits.RAM_PAGES, "the number of pages")), True),),
         keyed=_IN),
    Spec("idle", "Mark pages idle, as /sys/kernel/mm/page_idle does.", _RANGE),
    Spec("swapoff", "Bring back all that is in the swap area, and give it up."),
    Spec("inject", "Make allocations fail: the Nth at SITE, every Nth, or N of 100 by chance.",
         (Param("site", Kind("SITE|off", one_of("site", ("off", *SITES)))),),
         keyed={"nth": COUNT, "every": COUNT,
                "chance": Kind("N", number_in(0, 100, "the chance"))}),
)  # fmt: skip

_SPOT_ONE = (_P, _R, Param("off", OFFSET))
_PAGES = Kind("N", number_in(0, limits.RAM_PAGES, "the number of pages"))
_HUGE = (
    Spec("thp", "Where faults make anonymous memory huge; nowhere unless told.",
         (Param("mode", Kind("always|madvise|never",
                             one_of("mode", ("always", "madvise", "never")))),)),
    Spec("shmemthp", "Likewise for shared memory.",
         (Param("mode", Kind("MODE", one_of("mode", SHMEM_MODES))),)),
    Spec("khugepaged", "khugepaged looks at N pages, or at all, and makes huge pages of them.",
         (Param("pages", _PAGES, optional=True),)),
    Spec("split", "Split the huge page there; fails with EBUSY if somebody holds it.", _SPOT_ONE),
    Spec("shrink", "Split huge pages of which parts are not mapped, and free those."),
    Spec("hugetlb", "Keep N huge pages of 2 MiB in the pool of hugetlb, or of 1 GiB.",
         (Param("pages", Kind("N", number_in(0, limits.RAM_PAGES, "the number of huge pages"))),),
         flags={"1G": ("size", "1G")}),
)  # fmt: skip

_MERGING = (
    Spec("ksmd", "ksmd looks at N mergeable pages, or ends its round.",
         (Param("pages", _PAGES, optional=True),)),
    Spec("ksm", "What ksmd does; at how many places it merges one page; whether zeros merge.",
         flags={"run": ("run", "run"), "stop": ("run", "stop"), "unmerge": ("run", "unmerge"),
                "zeros": ("zeros", True), "nozeros": ("zeros", False)},
         keyed={"sharing": COUNT}),
)  # fmt: skip

_MOVING = (
    Spec("migrate", "Move pages to other page frames.", _SPOT),
    Spec("compact", "Move pages so that free ones lie together."),
    Spec("device", "A device with N pages of memory of its own.", (Param("pages", _PAGES),)),
    Spec("todevice", "Move pages into the device's memory.", _RANGE),
    Spec("fromdevice", "Move them back.", _RANGE),
    Spec("poison", "Let the memory of the page there break; say what became of it and who is told.",
         _SPOT_ONE, flags={"needed": ("needed", True)}),
    Spec("offline", "Take the page there out of use, before it breaks.", _SPOT_ONE),
)  # fmt: skip

_OUTPUT = (
    Spec("who", "Print who maps pages.", _SPOT, operates=False),
    Spec("walk", "Walk the reverse map of pages; print what was visited and what was found.",
         _SPOT, operates=False),
    Spec("pages", "Print pages: frame, owner, index, counts, flags, value.", _SPOT,
         operates=False),
    Spec("vmas", "Print the VMAs of a process, or of all.", (Param("process", PROCESS, True),),
         operates=False),
    Spec("tree", "Print the anon_vma forest, of one process or of all.",
         (Param("process", PROCESS, True),), operates=False),
    Spec("show", "Print a section of the report now.",
         (Param("section", Kind("SECTION", one_of("section", SECTIONS))),), operates=False),
)  # fmt: skip

GROUPS: dict[str, tuple[Spec, ...]] = {
    "The machine": SETTINGS,
    "Processes": _PROCESSES,
    "Address space": _ADDRESS_SPACE,
    "Access": _ACCESS,
    "Files": _FILES,
    "Reclaim and failure": _RECLAIM,
    "Huge pages": _HUGE,
    "Merged pages": _MERGING,
    "Pages that move or break": _MOVING,
    "Output": _OUTPUT,
}
STATEMENTS: dict[str, Spec] = {spec.name: spec for specs in GROUPS.values() for spec in specs}
SETTING_NAMES = frozenset(spec.name for spec in SETTINGS)
