# SPDX-License-Identifier: GPL-2.0-only
"""Allocation failures on purpose (lib/fault-inject.c, mm/failslab.c in spirit).

Every allocation of the model asks the machine's `FailPlan`, if it has one, whether it is to fail,
and says by a name what it is about to allocate (`SITES`). A plan is deterministic: the same plan
over the same operations fails at the same places, so a failure can be replayed from its text.

>>> plan = FailPlan.from_text("anon_vma:nth=2")
>>> [plan.should_fail(site) for site in ("anon_vma", "page", "anon_vma", "anon_vma")]
[False, False, True, False]
>>> plan.calls["anon_vma"], plan.total, plan.failed
(3, 4, 1)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

#: What can fail, by the names that the allocations give themselves.
SITES = (
    "anon_vma",
    "anon_vma_chain",
    "page",
    "page_table",
    "vma",
    "mm",
    "swap_slot",
    "swap_duplicate",
    "arch_unmap_one",
    "memcg_charge",
    "swap_cache",
    "mm_slot",
    "huge_page",
    "hugetlb_page",
    "hugetlb_region",
    "to_kill",
    "rmap_item",
    "stable_node",
    "migration_target",
    "device_page",
)
#: The site of a rule that is asked about every allocation.
ANY = "*"


class BadPlan(ValueError):
    """The text of a plan that is none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When one site (or any, `ANY`) fails: exactly one of the three numbers is set.

    `nth` fails the n-th call only, `every` each n-th call, `probability` any call with that
    chance, drawn from a generator that starts with `seed`.
    """

    site: str = ANY
    nth: int = 0
    every: int = 0
    probability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.site != ANY and self.site not in SITES:
            raise BadPlan(f"no allocation is called {self.site!r}; known: {', '.join(SITES)}")
        if (self.nth > 0) + (self.every > 0) + (self.probability > 0) != 1:
            raise BadPlan(f"{self.site}: say one of nth=N, every=N, probability=P, all above 0")
        if min(self.nth, self.every, self.probability) < 0 or self.probability > 1:
            raise BadPlan(f"{self.site}: counts start at 1, and a probability ends at 1")

    def to_text(self) -> str:
        """Return the rule as `FailPlan.from_text` reads it."""
        if self.nth:
            return f"{self.site}:nth={self.nth}"
        if self.every:
            return f"{self.site}:every={self.every}"
        return f"{self.site}:probability={self.probability!r},seed={self.seed}"


class FailPlan:
    """Which allocations fail, and how many were asked for.

    Parameters
    ----------
    rules
        An allocation fails if any of them says so. Without rules nothing fails; the plan counts.

    `calls` is how often each site asked, `total` the sum, `failed` how many were refused, and
    `failures` which: pairs of site and the number of its call.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.active = True
        self.reset()

    def reset(self) -> None:
        """Count from the beginning again."""
        self.calls: Counter[str] = Counter()
        self.total = 0
        self.failures: list[tuple[str, int]] = []
        self._generators = [random.Random(rule.seed) for rule in self.rules]

    @classmethod
    def nth(cls, n: int, site: str = ANY) -> FailPlan:
        """Return a plan that fails the n-th allocation (of one site), counted from 1."""
        return cls((Rule(site, nth=n),))

    @classmethod
    def every(cls, n: int, site: str = ANY) -> FailPlan:
        """Return a plan that fails every n-th allocation (of one site)."""
        return cls((Rule(site, every=n),))

    @classmethod
    def chance(cls, probability: float, seed: int = 0, site: str = ANY) -> FailPlan:
        """Return a plan that fails allocations (of one site) by chance."""
        return cls((Rule(site, probability=probability, seed=seed),))

    @property
    def failed(self) -> int:
        """How many allocations were refused so far."""
        return len(self.failures)

    def should_fail(self, site: str) -> bool:
        """Whether the allocation that asks now fails; counts it."""
        if not self.active:
            return False
        self.total += 1
        self.calls[site] += 1
        failing = False
        for rule, generator in zip(self.rules, self._generators, strict=True):
            if rule.site == ANY:
                failing |= self._hits(rule, self.total, generator)
            elif rule.site == site:
                failing |= self._hits(rule, self.calls[site], generator)
        if failing:
            self.failures.append((site, self.calls[site]))
        return failing

    @staticmethod
    def _hits(rule: Rule, call: int, generator: random.Random) -> bool:
        if rule.nth:
            return call == rule.nth
        if rule.every:
            return call % rule.every == 0
        return generator.random() < rule.probability

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Neither fail nor count inside the ``with`` block."""
        was, self.active = self.active, False
        try:
            yield
        finally:
            self.active = was

    def to_text(self) -> str:
        """Return the rules in one line; `from_text` makes the same plan, not yet started, of it."""
        return " ".join(rule.to_text() for rule in self.rules)

    @classmethod
    def from_text(cls, text: str) -> FailPlan:
        """Make a plan from rules such as ``anon_vma:nth=3 page:every=10 *:probability=0.01``.

        A rule of probability may add ``,seed=N``. Raises `BadPlan`, naming the rule.
        """
        return cls(tuple(_rule(word) for word in text.split()))

    def __repr__(self) -> str:
        return f"FailPlan.from_text({self.to_text()!r})"


def _rule(word: str) -> Rule:
    site, colon, rest = word.partition(":")
    numbers: dict[str, int | float] = {}
    for part in rest.split(","):
        name, equals, value = part.partition("=")
        kind = float if name == "probability" else int
        if not colon or not equals or name not in ("nth", "every", "probability", "seed"):
            raise BadPlan(f"{word!r} is no rule; write SITE:nth=N, SITE:every=N or so")
        try:
            numbers[name] = kind(value)
        except ValueError:
            raise BadPlan(f"{word!r}: {value!r} is no number") from None
    seed = int(numbers.pop("seed", 0))
    chance = float(numbers.pop("probability", 0.0))
    return Rule(site, int(numbers.get("nth", 0)), int(numbers.get("every", 0)), chance, seed)
