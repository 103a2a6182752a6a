# SPDX-License-Identifier: GPL-2.0-only
"""The table of the listing's branches: nothing missing, nothing claimed that does not happen."""

from __future__ import annotations

import pytest

from tools import coverage_doc
from tools.coverage_doc import Branch, CoverageError, Place


def test_the_document_is_what_the_table_the_source_and_the_record_say() -> None:
    assert coverage_doc.DOCUMENT.read_text(encoding="utf-8") == coverage_doc.document(
        coverage_doc.read_reached()
    )


def test_no_branch_is_missing_from_the_model_or_without_a_test() -> None:
    assert coverage_doc.gaps(coverage_doc.read_reached()) == []


@pytest.mark.slow
def test_each_test_that_is_named_takes_the_outcome_it_is_named_for() -> None:
    assert coverage_doc.confirm(coverage_doc.read_reached()) == []


def test_an_outcome_without_a_test_is_a_gap() -> None:
    reached = coverage_doc.read_reached()
    del reached["1389 taken"]
    assert coverage_doc.gaps(reached) == ["L1389 try_to_unmap_one: no test for: taken"]


def test_a_condition_over_two_lines_is_left_from_either() -> None:
    place = Place("x.py", "f", line=10, end=11, body=12)
    assert place.outcome_of((10, 12), "if") == "taken"
    assert place.outcome_of((11, 12), "if") == "taken"
    assert place.outcome_of((11, 14), "if") == "not taken"
    assert place.outcome_of((10, 11), "if") is None
    assert place.outcome_of((9, 12), "if") is None


def test_a_step_is_reached_by_any_jump_to_it() -> None:
    assert Place("x.py", "f", line=10, end=10).outcome_of((3, 10), "do") == "reached"


def test_a_line_of_the_table_is_read_with_its_marks() -> None:
    branch = coverage_doc.parse_branch("f", "1299 if T@huge | not anonymous")
    assert branch == Branch("f", 1299, "if", "not anonymous", {"taken": "huge"})
    both = coverage_doc.parse_branch("f", "1256 if @huge | mapped as a whole elsewhere")
    assert [both.features[outcome] for outcome in both.outcomes] == ["huge", "huge"]


def test_a_page_that_was_made_by_hand_does_not_count_for_a_feature() -> None:
    by_hand, merged = "tests/mm/test_rmap_walk.py::test_a", "tests/mm/test_ksm_merge.py::test_b"
    assert coverage_doc.telling_tests({"1863 taken": {by_hand, merged}}) == {"1863 taken": merged}
    assert coverage_doc.telling_tests({"1863 taken": {by_hand}}) == {}
    reached = coverage_doc.read_reached() | {"1863 taken": by_hand}
    assert coverage_doc.gaps(reached) == [f"L1863 rmap_walk: taken: not merged: {by_hand}"]


def test_every_feature_has_modules_and_every_reason_an_outcome() -> None:
    features = coverage_doc.read_table("features")
    modules = {path.stem.removeprefix("test_") for path in coverage_doc.ROOT.rglob("tests/**/*.py")}
    assert {name for group in features.values() for name in group} <= modules
    branches = [branch for _, _, group in coverage_doc.read_listing() for branch in group]
    assert {name for branch in branches for name in branch.features.values()} == set(features)
    outcomes = {f"{branch.line} {outcome}" for branch in branches for outcome in branch.outcomes}
    assert set(coverage_doc.read_table("by_hand")) <= outcomes


def test_a_line_of_the_table_that_is_none_is_refused() -> None:
    with pytest.raises(CoverageError, match="not understood"):
        coverage_doc.parse_branch("f", "1299 perhaps | not anonymous")
