# SPDX-License-Identifier: GPL-2.0-only
"""Which allocations fail by a plan, and that a plan can be written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.mm.inject import ANY, SITES, BadPlan, FailPlan, Rule


def asked(plan: FailPlan, *sites: str) -> list[bool]:
    return [plan.should_fail(site) for site in sites]


def test_the_nth_allocation_fails_and_no_other() -> None:
    assert asked(FailPlan.nth(2), "page", "vma", "vma") == [False, True, False]
    assert asked(FailPlan.nth(2, "vma"), "page", "vma", "vma") == [False, False, True]


def test_every_nth_allocation_fails() -> None:
    plan = FailPlan.every(2, "page")
    assert asked(plan, *["page"] * 5) == [False, True, False, True, False]
    assert plan.failures == [("page", 2), ("page", 4)]


def test_a_plan_without_rules_counts() -> None:
    plan = FailPlan()
    assert asked(plan, "page", "vma", "page") == [False] * 3
    assert (plan.total, plan.calls["page"], plan.failed) == (3, 2, 0)


def test_several_rules_fail_what_any_of_them_says() -> None:
    plan = FailPlan.from_text("vma:nth=1 *:every=3")
    assert asked(plan, "page", "vma", "page", "page") == [False, True, True, False]


def test_chance_is_repeatable_and_near_its_number() -> None:
    plan = FailPlan.chance(0.25, seed=7)
    first = asked(plan, *["page"] * 1000)
    plan.reset()
    assert asked(plan, *["page"] * 1000) == first
    assert 200 < sum(first) < 300


def test_a_paused_plan_neither_fails_nor_counts() -> None:
    plan = FailPlan.nth(1)
    with plan.paused():
        assert asked(plan, "page", "page") == [False, False]
    assert plan.total == 0
    assert plan.should_fail("page")


RULES = st.builds(
    lambda site, kind, number, chance, seed: Rule(
        site,
        **{"probability": chance, "seed": seed} if kind == "probability" else {kind: number},
    ),
    st.sampled_from((ANY, *SITES)),
    st.sampled_from(("nth", "every", "probability")),
    st.integers(1, 50),
    st.floats(0.01, 1),
    st.integers(0, 1000),
)


@given(st.lists(RULES, max_size=4), st.lists(st.sampled_from(SITES), max_size=60))
def test_a_plan_is_the_same_when_read_from_its_text(rules: list[Rule], sites: list[str]) -> None:
    plan = FailPlan(rules)
    assert asked(FailPlan.from_text(plan.to_text()), *sites) == asked(plan, *sites)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pages:nth=1", "no allocation is called 'pages'"),
        ("page", "'page' is no rule"),
        ("page:nth", "'page:nth' is no rule"),
        ("page:nth=x", "'x' is no number"),
        ("page:nth=1,every=2", "say one of"),
        ("page:nth=0", "say one of"),
        ("page:probability=1.5", "a probability ends at 1"),
    ],
)
def test_a_bad_plan_is_told(text: str, said: str) -> None:
    with pytest.raises(BadPlan, match=said):
        FailPlan.from_text(text)
