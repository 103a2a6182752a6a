# SPDX-License-Identifier: GPL-2.0-only
"""Reading scenarios: what a line means, and what is said of one that means nothing."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rmap.scenario import ScenarioError, parse
from rmap.scenario.errors import WordError
from rmap.scenario.expression import Scope, number_of, parse_expression
from rmap.scenario.grammar import MapKind
from rmap.scenario.limits import (
    DEPTH,
    EXPRESSION_DEPTH,
    EXPRESSION_TOKENS,
    LINE_CHARACTERS,
    NUMBER,
    TEXT_BYTES,
)
from rmap.scenario.program import Call, Choose, Expect, ExpectOutcome, For, If, Let, Query
from rmap.scenario.quantities import QUANTITIES
from rmap.scenario.statements import STATEMENTS
from rmap.scenario.words import split_words

ALL_KINDS = """\
# every line of the language of the conformance programs
mmap P0 A 4 anon
mmap P0 B 4 shared ro at:7
mmap P0 C 2 file:F:3 none
mmap P0 D 2 fileprivate:F:0
munmap P0 A 1 2
write P0 A 0 4
read P0 A 0 4   # a comment
fork P0 P1
exit P1
mprotect P0 A 0 1 rw
mremap P0 A 0 2 E
mremap P0 A 0 2 E 3 dontunmap at:900
madvise P0 A 0 1 wipeonfork
mlock P0 A 0 1
munlock P0 A 0 1
"""


def values(line: str) -> dict[str, object]:
    """The values of a line without holes."""
    (call,) = parse(line).body
    assert isinstance(call, Call)
    assert call.values is not None
    return call.values


def complaint(text: str) -> str:
    """What is said of a scenario that is wrong."""
    with pytest.raises(ScenarioError) as caught:
        parse(text, "mine.rmap")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_conformance_programs_are_scenarios() -> None:
    program = parse(ALL_KINDS)
    assert program.title == "every line of the language of the conformance programs"
    assert [node.text.split()[0] for node in program.body] == [
        line.split()[0] for line in ALL_KINDS.splitlines()[1:]
    ]


def test_options_may_stand_in_any_order() -> None:
    expected = {
        "process": "P0", "region": "A", "off": 0, "len": 2, "new": "E", "newlen": 3,
        "dontunmap": True, "at": 900,
    }  # fmt: skip
    assert values("mremap P0 A 0 2 E 3 dontunmap at:900") == expected
    assert values("mremap P0 A 0 2 E at:900 dontunmap 3") == expected


def test_sizes_are_counted_in_pages() -> None:
    assert values("mmap P0 A 1M anon")["len"] == 256
    assert values("mmap P0 A 0x10 file:F:64K")["kind"] == MapKind("file", "F", 16)
    assert values("write P0 S -1 1")["off"] == -1


def test_blocks_hold_statements() -> None:
    program = parse(
        "for i in 1..3\n"
        "  if mapped P0 A {i}\n"
        "    write P0 A {i} 1\n"
        "  else\n"
        "    choose 3\n"
        "      read P0 A {i} 1\n"
        "    or\n"
        "      stop\n"
        "    end\n"
        "  end\n"
        "end\n"
    )
    (loop,) = program.body
    assert isinstance(loop, For)
    (condition,) = loop.body
    assert isinstance(condition, If)
    assert [node.text for node in condition.body] == ["write P0 A {i} 1"]
    (choice,) = condition.otherwise
    assert isinstance(choice, Choose)
    assert [(weight, [node.text for node in branch]) for weight, branch in choice.branches] == [
        (3, ["read P0 A {i} 1"]),
        (1, ["stop"]),
    ]


def test_settings_stand_apart() -> None:
    program = parse("ram 64M\nquirk separate_reuse_counters\nmmap P0 A 1 anon\n")
    assert [call.values for call in program.settings] == [
        {"pages": 16384},
        {"name": "separate_reuse_counters"},
    ]
    assert len(program.body) == 1


def test_an_expectation_is_of_a_quantity_or_of_an_outcome() -> None:
    quantity, outcome, negated = parse(
        "expect mapcount P0 A 3 == n + 1\n"
        "expect SIGSEGV: write P0 A 0 1\n"
        "expect not swapped P0 A 0\n"
    ).body  # fmt: skip
    assert isinstance(quantity, Expect)
    assert isinstance(quantity.condition.left, Query)
    assert quantity.condition.left.spec is QUANTITIES["mapcount"]
    assert isinstance(outcome, ExpectOutcome)
    assert (outcome.outcome, outcome.call.text) == ("SIGSEGV", "write P0 A 0 1")
    assert isinstance(negated, Expect)
    assert negated.condition.operator == "=="


def test_variables_are_numbers_words_and_processes() -> None:
    number, word, process = parse(
        "let n = 2 * rss P0\nlet w = one of r rw none\nlet p = any process\n".replace(
            "2 * rss P0", "random(1, 6)"
        )
    ).body
    assert isinstance(number, Let)
    assert isinstance(word, Let)
    assert [w.text for w in word.words] == ["r", "rw", "none"]
    assert isinstance(process, Let)
    assert process.any_process


# What is wrong is said with its line, and what to do.


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mmpa P0 A 4 anon", "there is no 'mmpa'; did you mean mmap?"),
        ("xyzzy", "docs/scenarios.md has all statements"),
        ("mmap P0 A", "LEN is missing; the line is: mmap PROCESS REGION LEN KIND"),
        ("mmap P0 A 4 anno", "'anno' is nothing that can be mapped"),
        ("mmap P0 A 4 file:F", "write anon, shared, stack, hugetlb, hugetlbshared"),
        ("mmap P0 A 4 anon ro none 7", "'7' is one word too many"),
        ("mmap P0 A 4 anon at:x", "'x' is no number"),
        ("write P0 A 0 5K", "5K is no whole number of pages"),
        ("write P0 A 0 -1", "the length -1 is not between 0 and"),
        ("write P0 A 0 99999999999999999999999", "is no number"),
        ("write P0 4 0 1", "'4' cannot be the name of a region"),
        ("fork P0 P\x1b[0m", "cannot be the name of a process"),
        ("mprotect P0 A 0 1 rwx!", "'rwx!' is no protection; there are none, r, rw"),
        ("madvise P0 A 0 1 maybe", "'maybe' is no advice; there are dontneed"),
        ("write P0 A {i 1", "a brace without its partner: {i"),
        ("write P0 A } 1", "a brace without its partner: }"),
        ("write P0 A {1/} 1", "has nothing where a number should be"),
        ("write P0 A {1 +* 2} 1", "has '*' where a number should be"),
        ("write P0 A {max(1)} 1", "max() takes 2 numbers, not 1"),
        ("write P0 A {sin(1)} 1", "no function 'sin'; there are random, min, max"),
        ("write P0 A {1 2} 1", "'2' does not fit"),
        ("write P0 A {$} 1", "cannot read '$'"),
        ("write P0 A {} 1", "an expression is empty"),
        ("print {", "a brace without its partner"),
        ("repeat 3", "'repeat 3' has no end; write: end"),
        ("end", "'end' without a block"),
        ("or", "'or' without a block"),
        ("repeat 2\nelse\nend", "'else' belongs to 'if', and here is 'repeat 2'"),
        ("if 1\nelse\nelse\nend", "'else' belongs to 'if'"),
        ("stop now", "'now' after 'stop', which stands alone"),
        ("choose 0\nend", "the weight 0 is not between 1 and 1000"),
        ("for i of 1..3\nend", "the line is: for NAME in LOW..HIGH"),
        ("for 3 in 1..3\nend", "'3' cannot be a variable"),
        ("let x", "the line is: let NAME = EXPRESSION"),
        ("let x = one of", "one of what?"),
        ("let page = 2", "page means something already"),
        ("expect mapcout P0 A 0 == 1", "there is no quantity 'mapcout'; did you mean mapcount?"),
        ("expect mapcount P0 A 0 = 1", "write == to compare"),
        ("expect 1 < 2 < 3", "compares more than two things"),
        ("expect mapcount P0 == 1", "REGION is missing; the line is: mapcount PROCESS REGION OFF"),
        ("expect flag P0 A 0 shiny", "'shiny' is no page flag"),
        ("expect", "an expression is empty"),
        ("expect luck: exit P0", "'luck' is no outcome; there are ok, fail, SIGSEGV"),
        ("expect ok: who P0 A 0", "who has no outcome to expect"),
        ("expect ok: mmap", "PROCESS is missing"),
        ("ram 1", "RAM 1 is not between 64"),
        ("ram {i}", "ram cannot depend on variables"),
        ("mmap P0 A 1 anon\nram 64M", "ram describes the machine, which is running by now"),
        ("check often", "'often' is no time; there are each, end, never"),
    ],
)
def test_what_is_wrong_is_said(line: str, says: str) -> None:
    said = complaint(f"# a scenario\n\n{line}\n")
    assert re.match(r"mine\.rmap:\d+: ", said)
    assert says in said


@pytest.mark.parametrize(("line", "wrong"), [(1, "end"), (4, "munmap P0"), (7, "x")])
def test_the_line_is_named(line: int, wrong: str) -> None:
    lines = ["write P0 A 0 1"] * 9
    lines[line - 1] = wrong
    assert complaint("\n".join(lines)).startswith(f"mine.rmap:{line}: ")


def test_a_block_that_is_not_closed_is_named_by_its_first_line() -> None:
    assert complaint("repeat 1\nrepeat 2\nend\n").startswith("mine.rmap:1: 'repeat 1' has no end")


# Nothing is unbounded.


def test_blocks_nest_so_far() -> None:
    text = "repeat 1\n" * DEPTH + "end\n" * DEPTH
    assert len(parse(text).body) == 1
    assert f"more than {DEPTH} blocks" in complaint("repeat 1\n" + text)


def test_expressions_nest_so_far() -> None:
    deep = "(" * EXPRESSION_DEPTH + "1" + ")" * EXPRESSION_DEPTH
    assert parse_expression(deep).number(Scope({}, Random(0))) == 1
    with pytest.raises(WordError, match="nested too deeply"):
        parse_expression(f"({deep})")
    with pytest.raises(WordError, match="nested too deeply"):
        parse_expression("-" * (EXPRESSION_DEPTH + 2) + "1")
    with pytest.raises(WordError, match=f"more than {EXPRESSION_TOKENS} parts"):
        parse_expression("1" + "+1" * EXPRESSION_TOKENS)


def test_numbers_lines_and_texts_have_an_end() -> None:
    assert "beyond 2^62" in complaint(f"let x = {NUMBER + 1}")
    assert "more than 2000 characters" in complaint("#" * (LINE_CHARACTERS + 1))
    assert "split it" in complaint("#" * TEXT_BYTES + "\n")
    scope = Scope({"x": NUMBER}, Random(0))
    with pytest.raises(WordError, match="beyond 2"):
        parse_expression("x * x").number(scope)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text, "fuzz")
    except ScenarioError as error:
        assert str(error).startswith("fuzz:")  # noqa: PT017  (either outcome is right)


_WORDS = st.sampled_from(
    [*STATEMENTS, *QUANTITIES, "P0", "A", "0", "1", "4K", "anon", "file:F:0", "at:3", "{i}",
     "{1+}", "expect", "let", "=", "==", "not", "for", "in", "1..3", "repeat", "end", "or", "if",
     "else", "choose", "ok:", "random(1, 2)", "rw", "#", "off", "on"]
)  # fmt: skip


@given(st.lists(st.lists(_WORDS, max_size=7).map(" ".join), max_size=6).map("\n".join))
def test_any_words_are_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text, "fuzz")
    except ScenarioError as error:
        assert re.match(r"fuzz:\d+: \S", str(error))  # noqa: PT017  (either outcome is right)


# Expressions are what Python says they are.

_TERMS = st.recursive(
    st.integers(0, 1000).map(str),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%"]), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=8,
)


@example("((267 * (271 * 272)) * ((506 * 772) * (774 * 775)))")
@given(_TERMS)
def test_expressions_agree_with_a_calculator(text: str) -> None:
    try:
        ours: int | str = parse_expression(text).number(Scope({}, Random(0)))
    except WordError as error:
        ours = str(error)
    assert ours == calculated(text)


def calculated(text: str) -> int | str:
    """The value by a stack machine, or the words for a division by zero or a huge number."""
    values: list[int] = []
    operators: list[str] = []
    for token in re.findall(r"\d+|[-+*/%()]", text):
        if token.isdecimal():
            values.append(int(token))
        elif token == ")":
            b, a, sign = values.pop(), values.pop(), operators.pop()
            if sign in "/%" and not b:
                return f"division by zero: {a} {sign} {b}"
            results = {"+": a + b, "-": a - b, "*": a * b}
            result = results[sign] if sign in results else (a // b if sign == "/" else a % b)
            if abs(result) > NUMBER:
                return "a number that large (beyond 2^62) is never needed"
            values.append(result)
        elif token != "(":
            operators.append(token)
    return values[0]


def test_precedence_and_signs() -> None:
    scope = Scope({"i": 3, "w": "rw"}, Random(0))
    assert parse_expression("1 + 2 * i - -4 % 3").number(scope) == 1 + 6 - (-4 % 3)
    assert parse_expression("7 / 2 * 2").number(scope) == 6
    assert parse_expression("min(i, 2) + max(i, 2)").number(scope) == 5
    assert parse_expression("64K + 0x10").number(scope) == 32
    with pytest.raises(WordError, match="holds the word 'rw'"):
        parse_expression("w + 1").number(scope)
    with pytest.raises(WordError, match="no variable 'j'; set it with: let j"):
        parse_expression("j").number(scope)


@given(st.integers(-(1 << 62), 1 << 62))
def test_numbers_are_read_as_they_are_written(number: int) -> None:
    assert number_of(str(number)) == number
    assert number_of(("-" if number < 0 else "") + hex(abs(number))) == number


def test_chance_starts_from_the_seed() -> None:
    rolls = [
        [parse_expression("random(1, 6)").number(scope) for _ in range(100)]
        for scope in (Scope({}, Random(1)), Scope({}, Random(1)), Scope({}, Random(2)))
    ]
    assert rolls[0] == rolls[1] != rolls[2]
    assert set(rolls[0]) == {1, 2, 3, 4, 5, 6}


def test_holes_are_filled_inside_words() -> None:
    scope = Scope({"i": 7, "p": "server"}, Random(0))
    words = split_words("fork {p} worker{ i + 1 }-{p}")
    assert [word.fill(scope) for word in words] == ["fork", "server", "worker8-server"]
