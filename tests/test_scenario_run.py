# SPDX-License-Identifier: GPL-2.0-only
"""Running scenarios: what statements do, what is told of what went wrong, and where it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.scenario import ScenarioError, limits, parse, words
from rmap.scenario.library import load, shipped
from rmap.scenario.measure import MEASURES
from rmap.scenario.operations import OPERATIONS
from rmap.scenario.output import OUTPUTS
from rmap.scenario.quantities import QUANTITIES
from rmap.scenario.result import RunResult
from rmap.scenario.runner import Options, run_scenario
from rmap.scenario.statements import GROUPS, STATEMENTS
from rmap.scenario.trace import ARGUMENTS

SOURCES = Path(__file__).resolve().parent.parent / "src" / "rmap" / "mm"


def ran(text: str, **options: object) -> RunResult:
    """Run a scenario that is right."""
    return run_scenario(parse(text, "mine.rmap"), Options(**options))


def expect_met(text: str, **options: object) -> RunResult:
    """Run a scenario whose expectations are all met, and that leaves a sound machine."""
    result = ran(text, **options)
    assert [event.text for event in result.broken] == []
    assert result.violations == []
    assert result.held == len(re.findall(r"^\s*expect ", text, re.M))
    return result


def said(result: RunResult, kind: str = "output") -> list[str]:
    """What a run said of one kind."""
    return [event.text for event in result.log if event.kind == kind]


def complaint(text: str) -> str:
    """What is said of a scenario that cannot be carried out."""
    with pytest.raises(ScenarioError) as caught:
        ran(text)
    return str(caught.value)


# What statements do to the machine.


def test_a_child_that_writes_gets_a_copy() -> None:
    result = expect_met(
        "mmap P0 A 4 anon\n"
        "write P0 A 0 4\n"
        "expect refcount P0 A 0 == 1\n"
        "expect writable P0 A 0\n"
        "fork P0 P1\n"
        "expect mapcount P0 A 0 == 2\n"
        "expect not writable P0 A 0\n"
        "write P1 A 0 1\n"
        "expect mapcount P0 A 0 == 1\n"
        "expect mapcount P0 A 1 == 2\n"
        "expect value P0 A 0 == 2\n"
        "expect value P1 A 0 == 4\n"
        "expect owner P1 A 0 == anon_vma P1 A 0\n"
        "expect root P1 A 0 == anon_vma P0 A 0\n"
        "expect index P1 A 0 == index P0 A 0\n"
        "expect flag P1 A 0 swapbacked\n"
        "expect anon_vmas == 2\n"
        "expect anon_vma_chains == 3\n"
        "expect children P0 A 0 == 2\n"
        "expect active_vmas P0 A 0 == 1\n"
        "expect anon_refcount P0 A 0 == 2\n"
    )
    assert result.operations == 4


def test_a_page_goes_to_swap_and_comes_back() -> None:
    expect_met(
        "ram 4M\nswap 1M\n"
        "mmap P0 A 8 anon\n"
        "write P0 A 0 8\n"
        "fork P0 P1\n"
        "madvise P1 A 0 8 normal\n"
        "repeat 3\nreclaim 8\nend\n"
        "expect swapped P0 A 3\n"
        "expect swapents P1 == 8\n"
        "expect rss P0 == 0\n"
        "read P1 A 3 1\n"
        "expect value P1 A 3 == 2\n"
        "expect swapped P0 A 3\n"
        "swapoff\n"
        "expect not swapped P0 A 3\n"
        "expect page P0 A 3 == page P1 A 3\n"
        "expect anon P0 == 8\n"
    )


def test_files_are_read_written_and_truncated() -> None:
    expect_met(
        "file data 8 disk\n"
        "file box 8 shmem\n"
        "mmap P0 A 8 file:data:0\n"
        "mmap P0 B 8 file:box:0\n"
        "mmap P0 C 8 fileprivate:data:0 ro\n"
        "fread data 0 2\n"
        "expect cached data == 2\n"
        "fwrite data 4 1\n"
        "read P0 A 4 1\n"
        "expect value P0 A 4 == 7\n"
        "write P0 A 5 1\n"
        "expect writable P0 A 5\n"
        "writeback data\n"
        "expect not writable P0 A 5\n"
        "expect not flag P0 A 5 dirty\n"
        "write P0 B 0 3\n"
        "expect shmem P0 == 3\n"
        "expect file P0 > 0\n"
        "truncate data 4\n"
        "expect not mapped P0 A 4\n"
        "expect SIGBUS: read P0 A 4 1\n"
        "expect SIGSEGV: write P0 C 0 1\n"
    )


def test_heap_stack_and_exec() -> None:
    expect_met(
        "spawn shell\n"
        "brk shell 4\n"
        "write shell [heap] 0 4\n"
        "mmap shell S 2 stack at:4096\n"
        "write shell S -1 1\n"
        "expect vma_pages shell S 0 == 3\n"
        "expect vma_pages shell [stack] 0 == 3\n"
        "expect rss shell == 5\n"
        "exec shell editor\n"
        "expect exists shell\n"
        "expect vma_count shell == 1\n"
        "write shell [stack] 0 1\n"
        "brk shell 0\n"
    )


def test_locked_pages_stay_and_are_counted() -> None:
    expect_met(
        "swap 1M\n"
        "mmap P0 A 4 anon\n"
        "mlock P0 A 0 2\n"
        "expect locked P0 == 2\n"
        "expect flag P0 A 0 mlocked\n"
        "expect flag P0 A 0 unevictable\n"
        "munlock P0 A 0 2\n"
        "expect not flag P0 A 0 mlocked\n"
        "expect locked P0 == 0\n"
    )


def test_pins_hold_references() -> None:
    expect_met(
        "mmap P0 A 2 anon\n"
        "pin dma P0 A 0 2\n"
        "expect refcount P0 A 0 == 2\n"
        "unpin dma\n"
        "expect refcount P0 A 0 == 1\n"
    )
    assert "the pin dma is held already" in complaint(
        "mmap P0 A 1 anon\npin dma P0 A 0 1\npin dma P0 A 0 1\n"
    )
    assert "there is no pin dma" in complaint("unpin dma")


def test_idle_pages_are_those_not_used_since() -> None:
    """By the child, that is: the parent's CPU has the translation and sets no accessed bit."""
    expect_met(
        "mmap P0 A 2 anon\nwrite P0 A 0 2\nfork P0 P1\nidle P0 A 0 2\nread P1 A 1 1\n"
        "expect idle P0 A 0\nexpect not idle P0 A 1\n"
    )


def test_a_missing_page_waits_until_it_is_provided() -> None:
    expect_met(
        "mmap P0 A 4 anon\nuserfaultfd P0 A 0 4\n"
        "expect WAITS: read P0 A 0 1\n"
        "provide P0 A 0 1\nread P0 A 0 1\n"
        "expect value P0 A 0 == 4\n"
        "provide P0 A 1 1 zero\n"
        "expect zero P0 A 1\n"
        "expect EEXIST: provide P0 A 0 1\n"
    )
    assert "P0 has no userfaultfd" in complaint("mmap P0 A 1 anon\nprovide P0 A 0 1\n")


def test_a_cgroup_pays_for_its_limit() -> None:
    expect_met(
        "swap 4M\n"
        "cgroup web limit:64\n"
        "spawn nginx cgroup:web\n"
        "mmap nginx A 128 anon\n"
        "write nginx A 0 128\n"
        "expect usage web <= 64\n"
        "expect limit web == 64\n"
        "expect swapents nginx >= 64\n"
        "reclaim 16 cgroup:web\n"
        "expect outcome reclaimed > 0\n"
        "expect outcome scanned >= outcome reclaimed\n"
        "age cgroup:web\n"
        "age 4\n"
    )


def test_a_cgroup_is_charged_for_those_inside_of_it() -> None:
    expect_met(
        "cgroup shop\ncgroup shop/web in:shop limit:64\nspawn nginx cgroup:shop/web\n"
        "mmap nginx A 8 anon\nwrite nginx A 0 8\n"
        "expect usage shop/web == 8\n"
        "expect usage shop == 8\n"
        "expect limit shop == -1\n"
    )
    assert "is there already; it cannot be moved" in complaint("cgroup a\ncgroup b\ncgroup b in:a")


def test_a_translation_that_was_kept_sets_no_accessed_bit() -> None:
    """The CPU that read the page has it in its TLB; another one has to look."""
    expect_met(
        "cpus 2\nmmap P0 A 1 anon\nwrite P0 A 0 1\n"
        "idle P0 A 0 1\nread P0 A 0 1\nexpect idle P0 A 0\n"
        "cpu P0 1\nread P0 A 0 1\nexpect not idle P0 A 0\n"
        "expect EINVAL: cpu P0 2\n"
    )


def test_allocations_fail_where_they_are_told_to() -> None:
    expect_met(
        "mmap P0 A 4 anon\nwrite P0 A 0 1\n"
        "inject anon_vma nth:1\n"
        "expect ENOMEM: fork P0 P1\n"
        "expect processes == 1\n"
        "inject off\n"
        "fork P0 P1\n"
        "inject page every:1\n"
        "expect OOM: write P1 A 0 1\n"
        "inject off\n"
    )
    assert "say when, once: nth:N" in complaint("inject page")
    assert "say when, once: nth:N" in complaint("inject page nth:1 every:2")


def test_mremap_moves_to_a_region() -> None:
    expect_met(
        "mmap P0 A 8 anon\nwrite P0 A 0 8\n"
        "mremap P0 A 2 4 B\n"
        "expect value P0 B 0 == 2\n"
        "expect not mapped P0 A 2\n"
        "mremap P0 A 0 2 C 4 at:1000\n"
        "expect vma_pages P0 C 0 == 4\n"
    )


def test_regions_lie_where_conformance_programs_expect_them() -> None:
    result = expect_met(
        "mmap P0 A 4 anon\nmmap P0 B 4 anon at:7\nmmap P0 C 300 anon\nmmap P0 D 1 anon\n"
    )
    assert result.regions == {"A": 128, "B": 7, "C": 384, "D": 768}


# Steering.


def test_loops_variables_and_branches() -> None:
    result = expect_met(
        "let sum = 0\n"
        "for i in 1..4\n  let sum = sum + i\nend\n"
        "expect sum == 10\n"
        "for p in a b\n  spawn {p}\nend\n"
        "repeat 3\n  let sum = sum * 2\nend\n"
        "expect sum == 80\n"
        "if sum > 100\n  print large\nelse\n  print small: {sum}\nend\n"
        "for i in 3..2\n  print never\nend\n"
        "let here = processes\n"
        "expect here == 2\n"
    )
    assert said(result) == ["small: 80"]


def test_chance_is_repeated_with_its_seed() -> None:
    text = (
        "seed 5\nspawn a\nspawn b\n"
        "repeat 20\n"
        "  let p = any process\n  let w = one of x y {random(1, 9)}\n"
        "  choose 3\n    print {p} {w}\n  or\n    print other {random(0, 99)}\n  end\n"
        "end\n"
    )
    first, again, other = ran(text), ran(text), ran(text, seed=6)
    assert said(first) == said(again) != said(other)
    assert len(said(first)) == 20


def test_a_die_is_rolled_once_a_line() -> None:
    """The line that is told is the line that was carried out."""
    result = ran("mmap P0 A 100 anon ro\nrepeat 30\nwrite P0 A {random(0, 99)} 1\nend\n")
    for failure in result.failures:
        page = int(failure.text.split()[3])
        assert f"{(1 << 44) + (128 + page) * 4096:#x}" in failure.detail


def test_stop_and_until_end_a_run() -> None:
    result = ran("spawn a\nstop\nspawn b\n")
    assert (result.operations, result.stopped) == (1, "stopped in line 2")
    result = ran("spawn a\nrepeat 2\n  spawn b\nend\n", until=3)
    assert (result.operations, result.stopped) == (1, "stopped in line 3")


# What is told of what went wrong.


def test_what_the_kernel_refuses_is_noted_and_the_run_goes_on() -> None:
    result = ran(
        "mmap P0 A 4 anon\nwrite P0 A 2 4\nmunmap P0 A 0 0\nmprotect P0 A 3 2 r\nexit P0\n"
        "write P0 A 0 1\n"
    )
    told = [(failure.operation, failure.outcome, failure.done) for failure in result.failures]
    assert told == [
        (2, "SIGSEGV", 2), (3, "EINVAL", None), (4, "ENOMEM", None), (6, "ESRCH", None),
    ]  # fmt: skip
    assert said(result, "failure")[0].startswith("write P0 A 2 4: SIGSEGV after 2 pages: ")
    assert not result.is_finding


def test_try_lets_an_operation_fail() -> None:
    result = expect_met(
        "try munmap P0 A 0 0\n".replace("munmap P0 A", "mmap P0 A").replace("0 0", "0 anon")
    )
    assert (result.tried, result.failures, result.log) == (1, [], [])


def test_expectations_that_are_not_met_are_findings() -> None:
    result = ran(
        "mmap P0 A 1 anon\n"
        "expect mapcount P0 A 0 == 7\n"
        "expect rss P0 == vma_count P0\n"
        "expect ENOMEM: write P0 A 0 1\n"
        "expect ok: read P0 A 9 1\n"
        "expect fail: read P0 A 9 1\n"
    )
    assert [(event.place.line, event.text) for event in result.broken] == [
        (2, "expected mapcount P0 A 0 == 7, but mapcount P0 A 0 is 0"),
        (3, "expected rss P0 == vma_count P0, but rss P0 is 0, vma_count P0 is 1"),
        (4, "expected ENOMEM of write P0 A 0 1, but it ended ok"),
        (5, "expected ok of read P0 A 9 1, but it ended SIGSEGV (a read at 0x100000089000 is not "
            "permitted)"),
    ]  # fmt: skip
    assert (result.held, result.is_finding) == (1, True)


@pytest.fixture
def kernel_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """`munlock` meets a BUG_ON()."""
    from rmap.mm.bug import BUG

    monkeypatch.setitem(OPERATIONS, "munlock", lambda state, values: BUG("mlock.c:1 it is Monday"))


@pytest.mark.usefixtures("kernel_that_stops")
def test_a_kernel_that_stops_ends_operations() -> None:
    text = "mmap P0 A 1 anon\nmunlock P0 A 0 1\nwrite P0 A 0 1\nexpect rss P0 == 0\nprint end\n"
    result = ran(text)
    assert result.bug == "mlock.c:1 it is Monday"
    assert result.stopped == "the kernel stopped in line 2: mlock.c:1 it is Monday"
    assert said(result, "bug") == ["munlock P0 A 0 1: mlock.c:1 it is Monday"]
    assert said(result, "failure") == ["write P0 A 0 1: the kernel has stopped; left out"]
    assert said(result) == ["end"]
    assert result.is_finding
    expected = ran(text.replace("munlock", "expect BUG: munlock"))
    assert (expected.held, expected.is_finding) == (2, False)
    missed = ran(text.replace("munlock", "expect EINVAL: munlock"))
    assert missed.is_finding


def test_invariants_can_be_checked_after_each_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "check each\nmmap P0 A 1 anon\nwrite P0 A 0 1\nread P0 A 0 1\n"
    assert ran(text).bug == ""

    def corrupt(state, values) -> None:
        process = state.process("P0")
        (page,) = process.pages(state.address(process, "A", 0), 4096)
        with state.machine.running(process):
            state.machine.kernel.pg_mapcount[page] += 1

    monkeypatch.setitem(OPERATIONS, "read", corrupt)
    assert "mapcount" in ran(text).bug
    at_end = ran(text.replace("each", "end"))
    assert at_end.bug == ""
    assert at_end.violations
    assert at_end.is_finding
    assert not ran(text.replace("each", "never")).is_finding


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("write P0 A 0 1", 1, "there is no region A; the first mmap that names one places it"),
        ("mmap P0 A 1 anon\nread P0 B 0 1", 2, "there is no region B; there are A"),
        ("exit P7", 1, "there is no process P7; there are P0"),
        ("spawn a\nspawn a", 2, "there is a process a already"),
        ("spawn a\nfork a a", 2, "there is a process a already"),
        ("spawn a cgroup:web", 1, "there is no cgroup web; make it with: cgroup web limit:SIZE"),
        ("file F 1\nfile F 1", 2, "there is a file F already"),
        ("fread F 0 1", 1, "there is no file F; make it with: file F LEN"),
        ("mmap P0 A 1 anon at:5\nmmap P0 A 1 anon at:6", 2, "region A lies at page 5, not at 6"),
        ("read P0 [stack] 0 1", 1, "P0 has no stack; exec makes one"),
        ("read P0 [heap] 0 1", 1, "there is no region [heap]"),
        ("print {x}", 1, "no variable 'x'; set it with: let x"),
        ("let x = one of a b\nspawn p\nexpect x == 1", 3, "holds the word"),
        ("let n = 0\nlet m = 4 / n", 2, "division by zero: 4 / 0"),
        ("let n = -1\nmmap P0 A {n} anon", 2, "the length -1 is not between 0 and"),
        ("let k = one of anno\nmmap P0 A 1 {k}", 2, "'anno' is nothing that can be mapped"),
        ("let x = any process", 1, "no process lives"),
        ("expect stat luck == 7", 1, "there is no statistic luck; there are nr_free_pages"),
        ("expect quirk luck", 1, "there is no quirk luck"),
        ("profile 2.4\nspawn a", 1, "no profile '2.4'; known: 4.18"),
        ("quirk luck on\nspawn a", 1, "no quirk 'luck'; known: "),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_said_with_its_line(text: str, line: int, says: str) -> None:
    told = complaint(text)
    assert told.startswith(f"mine.rmap:{line}: ")
    assert says in told


# Where it ends.


@pytest.mark.parametrize(
    ("name", "bound", "text", "says"),
    [
        ("STEPS", 50, "repeat 99\nlet x = 1\nend", "more than 50 statements"),
        ("STEPS", 50, "repeat 99\nrepeat 0\nend\nend", "more than 50 statements"),
        ("STEPS", 50, "for i in 1..1000000000000\nend", "more than 50 statements"),
        ("PAGE_STEPS", 500, "mmap P0 A 99 anon\nwrite P0 A 0 99", "more than 500 pages"),
        ("PAGE_STEPS", 500, "mmap P0 A 4M anon\ntouch P0 A 0 4M", "more than 500 pages"),
        ("PAGE_STEPS", 500,
         "mmap P0 A 99 anon\ntouch P0 A 0 99\nfor i in 1..9\nfork P0 Q{i}\nend",
         "more than 500 pages"),
        ("PAGE_STEPS", 500,
         "mmap P0 A 9 anon\ntouch P0 A 0 9\nfor i in 1..9\nfork P0 Q{i}\nend\n"
         "repeat 99\nwalk P0 A 0 9\nend", "more than 500 pages"),
        ("PAGE_STEPS", 9000, "mmap P0 A 1 anon\nrepeat 99\nexpect violations == 0\nend",
         "more than 9,000 pages"),
        ("PAGE_STEPS", 9000, "ram 1M\ncheck each\nrepeat 99\ntry munmap P0 A 0 0\nend".replace(
            "repeat", "mmap P0 A 1 anon\nrepeat"), "more than 9,000 pages"),
        ("PAGE_STEPS", 9000,  # page tables: one for each page that lies far from all others
         "for i in 0..99\nmmap P0 R{i} 1 anon at:{i * 512}\nwrite P0 R{i} 0 1\nend",
         "more than 9,000 pages"),
        ("PAGE_STEPS", 9000,  # chains: each generation has one link more
         "ram 1M\nmmap P0 A 1 anon\nwrite P0 A 0 1\n"
         "for i in 1..99\nfork P{i - 1} P{i}\nend", "more than 9,000 pages"),
        ("OUTPUT_LINES", 9, "mmap P0 A 1 anon\npages P0 A 0 10", "10 pages are more than the 9"),
        ("LINE_CHARACTERS", 99, "let w = one of ab\nrepeat 99\nlet w = one of {w}{w}\nend",
         "has become longer than 99 characters"),
        ("PROCESSES", 9, "for i in 1..10\nspawn p{i}\nexit p{i}\nend", "more than 9 processes"),
        ("REGIONS", 9, "for i in 1..10\nmmap P0 R{i} 1 anon\nend", "more than 9 regions"),
        ("FILES", 9, "for i in 1..10\nfile f{i} 1\nend", "more than 9 files"),
        ("CGROUPS", 9, "for i in 1..10\ncgroup g{i}\nend", "more than 9 cgroups"),
        ("PINS", 2, "mmap P0 A 1 anon\nfor i in 1..3\npin p{i} P0 A 0 1\nend", "more than 2 pins"),
        ("OUTPUT_LINES", 9, "repeat 10\nprint x\nend", "more than 9 lines of output"),
    ],
)  # fmt: skip
def test_nothing_is_unbounded(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int, text: str, says: str
) -> None:
    monkeypatch.setattr(limits, name, bound)
    monkeypatch.setattr(words, "LINE_CHARACTERS", limits.LINE_CHARACTERS)
    assert says in complaint(text)


def test_a_large_region_is_no_large_work() -> None:
    """What is not mapped costs nothing to unmap, and a length says nothing of the work."""
    result = expect_met(
        "mmap P0 A 1G anon\nwrite P0 A 7 1\nmprotect P0 A 0 1G r\nmadvise P0 A 0 1G dontneed\n"
        "munmap P0 A 0 1G\n"
    )
    assert result.page_steps < 5000


def test_the_trace_is_cut() -> None:
    result = ran("mmap P0 A 9 anon\nwrite P0 A 0 9\n", trace=True)
    lines = said(result, "trace")
    assert lines[0] == "mmap_region              vma P0:A+0*9, start A+0, end A+9"
    assert any(line.startswith("page_add_new_anon_rmap   page 0x1, vma P0:A+0*9") for line in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "TRACE_LINES", 3)
        lines = said(ran("mmap P0 A 9 anon\nwrite P0 A 0 9\n", trace=True), "trace")
    assert lines[3:] == ["... the trace ends here, after 3 lines"]


def test_every_report_of_the_model_has_names_for_what_it_reports() -> None:
    text = "\n".join(path.read_text() for path in sorted(SOURCES.rglob("*.py")))
    reports = re.findall(r'k\.tracer\(\s*"(\w+)",\s*\((.*?)\)\s*\)', text, re.S)
    assert len(reports) > 30
    for name, arguments in reports:
        count = len([part for part in arguments.split(",") if part.strip()])
        assert len(ARGUMENTS.get(name, ())) == count, f"{name} of rmap.scenario.trace"


def test_measuring_is_neither_counted_nor_traced() -> None:
    result = ran(
        "mmap P0 A 1 anon\nwrite P0 A 0 1\nfork P0 P1\n"
        "expect visited P0 A 0 == 2\nexpect stat rmap_walks == 0\nwho P0 A 0\n",
        trace=True,
    )
    assert result.held == 2
    assert not any("rmap_walk" in line for line in said(result, "trace"))
    assert said(result) == ["P0 A+0: page 0x1, counted 2, found 2: P0 at A+0, P1 at A+0"]


# The tables of the language are complete.


def test_every_statement_is_carried_out_and_every_quantity_measured() -> None:
    settings_ = {spec.name for spec in GROUPS["The machine"]}
    done = settings_ | set(OPERATIONS) | set(OUTPUTS) | {"reclaim", "show"}
    assert done == set(STATEMENTS)
    assert set(MEASURES) == set(QUANTITIES)


def test_every_output_prints() -> None:
    result = expect_met(
        "swap 1M\nmmap P0 A 4 anon\nwrite P0 A 0 2\nread P0 A 2 1\nmmap P0 F 1 file:f:0\n"
        "read P0 F 0 1\n"
        "who P0 A 0 4\nwalk P0 A 0 4\nwalk P0 F 0\npages P0 A 0 4\nvmas\nvmas P0\ntree\ntree P0\n"
        "reclaim 1\n"
        + "".join(f"show {name}\n" for name in
                  ("processes", "sharing", "walks", "reclaim", "statistics"))
    )  # fmt: skip
    text = "\n".join(said(result))
    for piece in (
        "P0 A+2: the zero page",
        "P0 A+3: nothing is mapped",
        "owned by a file, visited 1 VMAs and found it in 1",
        "Family 1: 1 anon_vma, 1 VMA of 1 process",
        "by the kernel so far",
        "pgfault",
    ):
        assert piece in text


# What comes with rmap.


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_is_as_it_says(name: str) -> None:
    program = load(name)
    assert program.title
    result = run_scenario(program)
    assert [event.text for event in result.broken] == []
    assert result.held > 0
    assert result.failures == []
    assert not result.is_finding


def test_the_cve_is_there_without_the_repair_and_gone_with_it() -> None:
    broken = run_scenario(load("cve-2022-42703"))
    assert broken.machine.kernel.profile.name == "4.18"
    assert any("walk" in violation for violation in broken.violations)
    repaired = run_scenario(
        load("cve-2022-42703"), Options(quirks={"separate_reuse_counters": True})
    )
    assert (repaired.violations, repaired.broken) == ([], [])
    later = run_scenario(load("cve-2022-42703"), Options(profile="6.1"))
    assert (later.violations, later.broken) == ([], [])


@pytest.mark.parametrize("seed", range(2, 5))
def test_other_storms_leave_a_sound_machine(seed: int) -> None:
    result = run_scenario(load("mapping-storm"), Options(seed=seed))
    assert (result.broken, result.violations, result.bug) == ([], [], "")


# Anything that parses runs, or says with its line why not.

_NAMES = st.sampled_from(["P0", "P1", "{p}"])
_REGION = st.sampled_from(["A", "B", "[heap]", "[stack]"])
_NUMBER = st.sampled_from(["0", "1", "3", "{random(0, 5)}", "-1", "200"])
_LINES = st.one_of(
    st.builds("{} {} {} {} {}".format, st.sampled_from(
        ["write", "read", "munmap", "mlock", "munlock", "touch", "idle", "who", "walk", "pages",
         "try write", "expect fail: read"]), _NAMES, _REGION, _NUMBER, _NUMBER),
    st.builds("mmap {} {} {} {}".format, _NAMES, _REGION, _NUMBER, st.sampled_from(
        ["anon", "shared", "stack", "file:f:0", "fileprivate:f:1", "anon ro", "anon at:5"])),
    st.builds("mprotect {} {} {} {} {}".format, _NAMES, _REGION, _NUMBER, _NUMBER,
              st.sampled_from(["r", "rw", "none"])),
    st.builds("mremap {} {} {} {} {}".format, _NAMES, _REGION, _NUMBER, _NUMBER, _REGION),
    st.builds("fork {} P{}".format, _NAMES, st.integers(0, 3)),
    st.sampled_from(["let p = any process", "exit P0", "exit {p}", "brk P0 3", "reclaim 4", "age",
                     "vmas", "tree", "show walks", "swapoff", "writeback", "exec P0 e",
                     "inject page every:3", "inject off", "expect rss P0 > 0"]),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(_LINES, max_size=12))
def test_any_statements_run_or_are_refused_with_their_line(lines: list[str]) -> None:
    text = "ram 1M\nswap 256K\nlet p = one of P0\n" + "\n".join(lines)
    try:
        result = ran(text)
    except ScenarioError as error:
        assert re.match(r"mine\.rmap:\d+: \S", str(error))  # noqa: PT017  (either is right)
    else:
        assert (result.violations, result.bug) == ([], "")


@pytest.mark.parametrize(
    "line", ["who P0 A 0", "walk P0 A 0", "pages P0 A 0", "vmas P0", "expect mapped P0 A 0 == 0"]
)
def test_a_process_that_has_exited_cannot_be_looked_at(line: str) -> None:
    program = parse(f"mmap P0 A 4 anon\nexit P0\n{line}\n")
    with pytest.raises(ScenarioError, match="No such process") as refused:
        run_scenario(program)
    assert refused.value.place.line == 3
