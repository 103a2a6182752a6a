# SPDX-License-Identifier: GPL-2.0-only
"""Profiles: which kernel is which set of quirks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rmap
from rmap.mm.profile import PROFILES, QUIRKS, UnknownQuirk, profile

NAMES = [quirk.name for quirk in QUIRKS]
HEADER = Path(rmap.__file__).parent / "mm" / "profile.pxd"


def on(name: str, **changes: bool) -> set[str]:
    """The quirks that a profile has."""
    made = profile(name, **changes)
    return {quirk for quirk in NAMES if getattr(made, quirk)}


def test_v4_18_has_its_protections_and_nothing_later() -> None:
    assert on("4.18") == {quirk.name for quirk in QUIRKS if quirk.since == "4.18"}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_made_of_known_quirks_and_keeps_the_protections(name: str) -> None:
    assert len(set(PROFILES[name])) == len(PROFILES[name])
    assert set(PROFILES[name]) <= set(NAMES)
    assert on(name) == set(PROFILES[name]) | on("4.18")


def test_a_quirk_is_on_from_its_release_on_unless_undone_or_backported() -> None:
    later = {"mprotect_writes_clean", "mprotect_drops_account", "ksm_names_node_last"}
    assert on("6.12") - on("6.1") == later
    assert on("6.1") - on("6.12") == {"mmap_fill_asks_next_first", "dontunmap_splits_source"}
    assert {"separate_reuse_counters", "anon_exclusive", "mlock_counts"} <= on("6.1")
    for quirk in QUIRKS:
        assert re.fullmatch(r"(\d+\.\d+)?", quirk.since), quirk


def test_every_quirk_says_why_and_is_declared_for_the_compiler() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(len(quirk.why) > 20 for quirk in QUIRKS)
    declared = re.findall(r"^    cdef public flag (\w+)$", HEADER.read_text(), re.MULTILINE)
    assert sorted(declared) == sorted(NAMES)


def test_quirks_are_switched_by_name_and_the_profile_says_so() -> None:
    fixed = profile("4.18", separate_reuse_counters=True, page_mapped_recheck=False)
    assert fixed.separate_reuse_counters
    assert not fixed.page_mapped_recheck
    assert fixed.name == "4.18+separate_reuse_counters-page_mapped_recheck"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownQuirk, match=r"no profile '4\.19'; known: 4\.18, 6\.1, 6\.12"):
        profile("4.19")
    with pytest.raises(UnknownQuirk, match=r"no quirk 'nonsense'; known: separate_reuse_counters"):
        profile("4.18", nonsense=True)


def test_the_documentation_of_profiles_is_up_to_date() -> None:
    from tools import profiles_doc

    text = profiles_doc.PATH.read_text(encoding="utf-8")
    assert text == profiles_doc.document(), "run: python tools/profiles_doc.py"
