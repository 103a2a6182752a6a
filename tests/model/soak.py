# SPDX-License-Identifier: GPL-2.0-only
"""Random operations by the million, each compared with an oracle: ``python -m tests.model.soak``.

A run is many short walks. Each walk starts a new world, draws which operations it likes (so that
some walks fork a lot, others split a lot), and does them; the world is compared with its oracle
after every few of them and when everybody has exited. All comes from one seed. A walk that goes
wrong is repeated with a comparison after every operation, cut down to what is needed for the
failure, and printed as operations that `replay` takes.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rmap.check import FlushViolation
from rmap.mm.bug import KernelBug
from rmap.mm.profile import KernelProfile, profile
from rmap.sync.core import Deadlock, LockViolation
from tests.model.layout import (
    BASE,
    CELLS,
    HEAP,
    HUGE_WINDOW,
    HUGETLB,
    HUGETLB_WINDOW,
    OFFSETS,
    STACK,
    WINDOW,
    in_huge,
    room,
)
from tests.model.looking import Wrong
from tests.model.world import ADVICE, FILE_PAGES, Op, World

#: What ends a walk as a failure: of the model, of its locking, or of what it should be.
FAILURES = (
    Wrong, KernelBug, LockViolation, Deadlock, FlushViolation, KeyError, IndexError, OverflowError,
)  # fmt: skip

#: Operations with the weight that they have on average; a walk draws its own around it.
WEIGHTS = {
    "spawn": 1, "fork": 6, "exec": 0.5, "exit": 4,
    "mmap": 4, "munmap": 2, "mprotect": 5, "mremap": 3, "brk": 1.5, "stack": 1,
    "madvise": 4, "mlock": 1.5, "munlock": 1.5,
    "write": 12, "read": 6, "pin": 1, "unpin": 1, "userfault": 0.5,
    "file_write": 1, "file_read": 0.5, "truncate": 0.7, "writeback": 1.5,
    "reclaim": 5, "age": 1.5, "swapoff": 1, "idle": 0.5, "fail": 1,
    "ksm": 3, "migrate": 2, "compact": 0.7, "break": 0.4, "offline": 0.4, "mend": 0.3,
    "thp": 0.1, "collapse": 0.1, "split": 0.1, "shrink": 0.1,
    "pool": 0.01, "device": 1.5,
}  # fmt: skip
#: The same for walks that are about anon_vmas: what makes them, cuts and joins VMAs, and ends both.
FAMILIES = {
    "fork": 6, "exit": 4, "mprotect": 3, "munmap": 0.3, "mremap": 0.5, "mmap": 0.3, "madvise": 0.3,
    "write": 2, "read": 0.5, "reclaim": 0.3, "exec": 0.1, "spawn": 0.1,
}  # fmt: skip
#: For walks that are about huge pages: what maps, cuts, splits and joins them.
HUGE = {
    "spawn": 0.3, "fork": 3, "exec": 0.2, "exit": 2,
    "mmap": 3, "munmap": 3, "mprotect": 3, "mremap": 3,
    "madvise": 5, "mlock": 1, "munlock": 1,
    "write": 8, "read": 4, "pin": 1, "unpin": 1, "userfault": 0.3,
    "file_write": 1, "file_read": 0.5, "truncate": 0.7,
    "reclaim": 3, "age": 1, "swapoff": 0.5, "idle": 0.3, "fail": 1,
    "ksm": 1, "migrate": 2, "compact": 0.5, "break": 0.3, "offline": 0.3, "mend": 0.2,
    "thp": 1.5, "collapse": 2, "split": 2, "shrink": 1, "device": 0.5,
}  # fmt: skip
#: For walks that are about huge pages out of a pool, which have no swap, reclaim or collapse.
HUGETLB_OPS = {
    "spawn": 1, "fork": 4, "exit": 4, "mmap": 5, "munmap": 3, "mprotect": 2, "mremap": 0.3,
    "madvise": 1, "mlock": 0.5, "munlock": 0.5, "write": 8, "read": 4, "pin": 0.7, "unpin": 0.7,
    "reclaim": 0.3, "migrate": 2, "compact": 0.2, "break": 0.3, "mend": 0.2, "fail": 1, "pool": 3,
    "offline": 0.2,
}  # fmt: skip
#: Walks are of so many kinds, by their seeds.
KINDS = 8
#: So many processes live at once.
CROWD = 6
#: Longest walk, and after how many operations the world is compared.
STEPS = 80
LOOK_EVERY = 6


@dataclass
class Failure:
    """A walk that went wrong: its seed, its operations, and how."""

    seed: int
    ops: list[Op]
    error: BaseException
    shrunk: list[Op] = field(default_factory=list)

    def __str__(self) -> str:
        ops = "\n".join(f"    {op!r}," for op in self.shrunk or self.ops)
        return (
            f"seed {self.seed}: {type(self.error).__name__}: {self.error}\n"
            f"{len(self.shrunk or self.ops)} operations:\n[\n{ops}\n]"
        )


class Walker:
    """Draws the operations of one walk, of processes that live as far as it can tell."""

    def __init__(
        self, seed: int, weights: Mapping[str, float], swarm: bool = True, huge: bool = False,
        hugetlb: bool = False,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.huge = huge
        self.hugetlb = hugetlb
        self.alive = [1]
        self.born = 1
        self.names = list(weights)
        self.weights = list(weights.values())
        if swarm:
            # Half of the operations are left out, so that the others meet more often.
            self.weights = [weight * self.rng.choice((0, 0, 1, 3)) for weight in self.weights]
            self.weights[self.names.index("write")] += 9
            self.weights[self.names.index("read")] += 3
        self.first = self.rng.randrange(8)
        self.size = self.rng.choice((4, 8, 16))

    def ops(self, count: int) -> list[Op]:
        """Memory to work on, then whatever is drawn."""
        if self.huge:
            setting = self.rng.choice((0, 0, 1, 2))
            kind = self.rng.choice((0, 0, 0, 2, 3, 4))
            ops = [
                Op("thp", 0, 0, 1, setting), Op("mmap", 1, CELLS, HUGE_WINDOW, kind),
                Op("madvise", 1, CELLS, HUGE_WINDOW, ADVICE.index("hugepage")),
                Op("write", 1, CELLS + self.first, HUGE_WINDOW // 2, 1),
            ]  # fmt: skip
            return ops + [self.draw() for _ in range(count)]
        if self.hugetlb:
            ops = [
                Op("mmap", 1, HUGETLB, 3, self.rng.choice((0, 2, 3, 4))),
                Op("write", 1, HUGETLB, 2, 1),
            ]
            return ops + [self.draw() for _ in range(count)]
        ops = [Op("mmap", 1, self.first, self.size, 0), Op("write", 1, self.first, self.size)]
        return ops + [self.draw() for _ in range(count)]

    def draw(self) -> Op:
        """Draw one operation."""
        rng = self.rng
        name = rng.choices(self.names, self.weights)[0]
        who = rng.choice(self.alive) if self.alive else 0
        if name == "fork" and self.alive and rng.random() < 0.5:
            who = self.alive[-1]  # long lines of descent
        if name in ("fork", "spawn"):
            if len(self.alive) < CROWD:
                self.born += 1
                self.alive.append(self.born)
            return Op(name, who, self.born, 1, rng.randrange(4800))
        if name == "exit" and who:
            self.alive.remove(who)
        page = self.page()
        pages = rng.choice((1, 1, 1, 2, 3, 5, 8))
        if in_huge(page) and rng.random() < 0.3:
            page, pages = page - (page - CELLS) % len(OFFSETS), len(OFFSETS)  # a whole block
        pages = min(pages, room(page))
        return Op(name, who, page, pages, rng.randrange(4800))

    def page(self) -> int:
        """Draw a page: often of the memory that there was first."""
        rng = self.rng
        chance = rng.random()
        if self.hugetlb and chance < 0.8:
            return HUGETLB + rng.randrange(HUGETLB_WINDOW)
        if self.huge and chance < 0.8:
            return CELLS + rng.randrange(HUGE_WINDOW)
        if chance < 0.04:
            return (STACK - BASE) // 4096 + rng.randrange(2)
        if chance < 0.6:
            return self.first + rng.randrange(self.size)
        return rng.randrange(WINDOW)


def walk(seed: int) -> list[Op]:
    """The operations of one walk."""
    kind = seed % KINDS
    families, huge, hugetlb = kind % 4 == 0, kind == 2, kind == 6
    weights = FAMILIES if families else HUGE if huge else HUGETLB_OPS if hugetlb else WEIGHTS
    walker = Walker(seed, weights, swarm=not families, huge=huge, hugetlb=hugetlb)
    sizes = (1600, 2200, 3200) if huge else (4600, 5200) if hugetlb else (96, 128, 200, 400)
    ram = walker.rng.choice(sizes)
    swap = walker.rng.choice((64, 600, 1500) if huge else (16, 64, 128))
    boot = Op("boot", seed % 3, 0, ram, swap)
    return [boot, *walker.ops(walker.rng.randrange(STEPS // 4, STEPS))]


def replay(ops: Sequence[Op], kind: KernelProfile, look_every: int = 1) -> BaseException | None:
    """Do operations in a new world; what went wrong, ``None`` if nothing did."""
    try:
        world = World(kind)
        for number, op in enumerate(ops, 1):
            if op.name == "boot":
                world = World(kind, op.pages, op.arg, watched=op.who == 1)
                continue
            world.do(op)
            if number % look_every == 0:
                world.verify()
        world.verify()
        world.finish()
    except FAILURES as error:
        return error
    return None


# ---------------------------------------------------------------- shrinking


def shrink(ops: Sequence[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Leave out operations and make numbers smaller, as long as the walk still fails."""
    best = leave_out(list(ops), fails)
    while True:
        fewer = leave_out(skip_generations(best, fails), fails)
        if len(fewer) == len(best):
            return simplify(fewer, fails)
        best = fewer


def leave_out(best: list[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Leave out runs of operations, long ones first."""
    size = max(1, len(best) // 2)
    while True:
        at, smaller = 0, False
        while at < len(best):
            shorter = best[:at] + best[at + size :]
            if fails(shorter):
                best, smaller = shorter, True
            else:
                at += size
        if size > 1:
            size //= 2
        elif not smaller:
            return leave_out_two(best, fails)


def leave_out_two(best: list[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Leave out two operations that only make sense together, of a list that is short by now."""
    if len(best) > 30:
        return best
    for first, second in combinations(range(len(best)), 2):
        shorter = [op for at, op in enumerate(best) if at not in (first, second)]
        if fails(shorter):
            return leave_out_two(shorter, fails)
    return best


def skip_generations(ops: list[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Let a parent do what its child does, and the child not be."""
    for number in [op.page for op in ops if op.name == "fork"]:
        at = next(i for i, op in enumerate(ops) if (op.name, op.page) == ("fork", number))
        fork = ops[at]
        simpler = [
            op._replace(who=fork.who) if op.who == number else op
            for op in ops[:at] + ops[at + 1 :]
            if (op.name, op.who) != ("exit", number)
        ]
        for candidate in (simpler, [op for op in simpler if op != Op("exit", fork.who)]):
            if fails(candidate):
                ops = candidate
                break
    return ops


def simplify(ops: list[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Make the numbers of operations smaller, one at a time."""
    for at in range(len(ops)):
        # The page of these is the number of the process that they make, and boot has sizes.
        if ops[at].name == "boot":
            continue
        born = ops[at].name in ("fork", "spawn")
        for name in ("arg", "pages") if born else ("arg", "pages", "page"):
            for value in (0, 1, getattr(ops[at], name) // 2):
                if value < getattr(ops[at], name) and (name != "pages" or value):
                    simpler = [*ops[:at], ops[at]._replace(**{name: value}), *ops[at + 1 :]]
                    if fails(simpler):
                        ops = simpler
                        break
    return ops


def shorten(failure: Failure, kind: KernelProfile) -> Failure:
    """Shrink a failure to one of the same sort."""
    sort = sort_of(replay(failure.ops, kind) or failure.error)

    def fails(ops: Sequence[Op]) -> bool:
        error = replay(ops, kind)
        return error is not None and sort_of(error) == sort

    if fails(failure.ops):
        failure.shrunk = shrink(failure.ops, fails)
        failure.error = replay(failure.shrunk, kind) or failure.error
    return failure


def sort_of(error: BaseException) -> str:
    """What kind of failure it is: of which class, and of which check."""
    head = str(error).partition("\n")[0]
    return f"{type(error).__name__} {head.partition(':')[0]}" if isinstance(error, Wrong) else head


# ---------------------------------------------------------------- running


def soak(
    kind: KernelProfile, seed: int, steps: int = 0, seconds: float = 0,
    say: Callable[[str], object] = lambda text: None, only: int = -1,
) -> tuple[int, Failure | None]:  # fmt: skip
    """Walk until so many operations were done, so much time is over, or a walk goes wrong.

    Returns how many operations were done, and the failure, shrunk.
    """
    start, done, walks = time.monotonic(), 0, 0
    shown = start
    while (not steps or done < steps) and (not seconds or time.monotonic() - start < seconds):
        if only >= 0 and (seed + walks) % KINDS != only:
            walks += 1
            continue
        ops = walk(seed + walks)
        error = replay(ops, kind, LOOK_EVERY)
        done += len(ops)
        if error is not None:
            say(f"walk {walks} (seed {seed + walks}) went wrong after {done} operations; shrinking")
            return done, shorten(Failure(seed + walks, ops, error), kind)
        walks += 1
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            say(f"{done:,} operations in {walks:,} walks, {done / (shown - start):,.0f} a second")
    return done, None


def main() -> int:
    """Soak by the options of the command line; 1 if something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.soak", description=__doc__)
    parser.add_argument("--profile", default="4.18")
    parser.add_argument("--on", action="append", default=[], metavar="QUIRK",
                        help="switch a quirk on, besides those that repair v4.18")  # fmt: skip
    parser.add_argument("--off", action="append", default=[], metavar="QUIRK",
                        help="leave one of these off: separate_reuse_counters, say")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--kind", type=int, default=-1, metavar="REMAINDER",
                        help=f"only walks of this kind: seed modulo {KINDS}")  # fmt: skip
    options = parser.parse_args()
    quirks = dict.fromkeys((*FIXES, *options.on), True) | dict.fromkeys(options.off, False)
    kind = profile(options.profile, **quirks)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(f"profile {kind.name}, from seed {options.seed}; {FILE_PAGES=} {HEAP=} {WINDOW=}")
    done, failure = soak(kind, options.seed, options.steps, options.seconds, say, options.kind)
    if failure is None:
        print(f"{done:,} operations, nothing wrong")
        return 0
    print(failure)
    return 1


#: Quirks without which a long run in v4.18 finds what was repaired later.
FIXES = (
    "separate_reuse_counters",
    "arch_unmap_failure_frees_swap",
    "uffd_copies_private_shmem",
    "uffd_dirties_shmem",
    "uffd_checks_file_size",
    "zap_drops_swapped_copies",
    "shmem_pmd_counts_shmem",
    "zap_dirties_huge_shmem",
    "collapse_shmem_repairs",
    "hugetlb_unmap_unshares",
    "hugetlb_fork_skips_shared",
    "hugetlb_usage_starts_at_zero",
    "hugetlb_unshare_flushes",
    "thp_migration_munlocks",
    "split_spares_migrating",
    "unmap_sees_all_parts",
    "poison_by_subpage",
    "ksm_names_node_last",
    "ksm_expects_exit",
    "ksm_zero_page_checks_vma",
    "device_private_subpage",
    "pvmw_finds_device_private",
    "device_collect_keeps_dirty",
    "walk_crosses_tables",
)
#: v4.18 with what was repaired later, so that nothing is to be found.
FIXED = profile("4.18", **dict.fromkeys(FIXES, True))

if __name__ == "__main__":
    sys.exit(main())
