# SPDX-License-Identifier: GPL-2.0-only
"""From the text of a scenario to its statements, with every mistake named by its line.

The whole text is read before anything runs: a mistake in the last line is known at the first.
What depends on the run (does the region exist? does the process live?) is checked when it runs.
"""

from __future__ import annotations

import difflib
import re

from rmap.scenario import limits
from rmap.scenario.errors import Place, ScenarioError, WordError
from rmap.scenario.expression import Expression, number_of, parse_expression
from rmap.scenario.grammar import Spec, Values, bind
from rmap.scenario.program import (
    ANY,
    Call,
    Choose,
    Condition,
    Expect,
    ExpectOutcome,
    For,
    If,
    Let,
    Node,
    Print,
    Program,
    Query,
    Repeat,
    Side,
    Stop,
)
from rmap.scenario.quantities import QUANTITIES
from rmap.scenario.statements import SETTING_NAMES, STATEMENTS
from rmap.scenario.words import Word, parse_text, split_comment, split_words

#: Words that begin a line and are in no table.
STEERING = (
    "let", "repeat", "for", "choose", "or", "if", "else", "end", "expect", "try", "print", "stop",
)  # fmt: skip
#: What an operation can be expected to end in, besides the names of errors (ENOMEM).
OUTCOMES = ("ok", "fail", "SIGSEGV", "SIGBUS", "OOM", "WAITS", "BUG")
_OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
_VARIABLE = re.compile(r"[A-Za-z_]\w{0,62}")
_Blocks = list[tuple[Node, list[Node]]]


def parse(text: str, file: str = "-") -> Program:
    """Parse a scenario.

    Parameters
    ----------
    text
        The scenario.
    file
        What the user calls it; error messages begin with it.

    Raises
    ------
    ScenarioError
        ``FILE:LINE: what is wrong; what to do``.

    >>> program = parse("mmap P0 A 4 anon\\nwrite P0 A 0 4\\n")
    >>> [node.spec.name for node in program.body]
    ['mmap', 'write']
    """
    if len(text) > limits.TEXT_BYTES:
        raise ScenarioError(Place(file, 1), f"longer than {limits.TEXT_BYTES} bytes; split it")
    parser = _Parser(file)
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        parser.line(Place(file, number), line)
    parser.finish()
    return Program(file, _title(lines), tuple(parser.settings), tuple(parser.body))


def _title(lines: list[str]) -> str:
    """The first comment that says something and is no licence."""
    for line in lines:
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        comment = stripped.lstrip("# ").strip()
        if comment and not comment.startswith("SPDX-"):
            return comment
    return ""


class _Parser:
    """Takes one line after the other; `blocks` are the open ones, with where statements go."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.settings: list[Call] = []
        self.body: list[Node] = []
        self.blocks: _Blocks = []

    def line(self, place: Place, line: str) -> None:
        """Take one line."""
        if len(line) > limits.LINE_CHARACTERS:
            raise ScenarioError(
                place, f"a line of more than {limits.LINE_CHARACTERS} characters; split it"
            )
        text = split_comment(line)
        if not text:
            return
        word = text.split(maxsplit=1)[0]
        try:
            if word in STEERING:
                self.steer(place, text, word)
            else:
                self.call(place, text)
        except WordError as error:
            raise ScenarioError(place, str(error)) from None

    def finish(self) -> None:
        """See that every block was closed."""
        if self.blocks:
            block = self.blocks[-1][0]
            raise ScenarioError(block.place, f"{block.text!r} has no end; write: end")

    @property
    def here(self) -> list[Node]:
        """Where the next statement goes."""
        return self.blocks[-1][1] if self.blocks else self.body

    def call(self, place: Place, text: str) -> None:
        call = parse_call(place, text)
        if call.spec.name not in SETTING_NAMES:
            self.here.append(call)
            return
        if self.body or self.blocks:
            raise WordError(
                f"{call.spec.name} describes the machine, which is running by now; move the line "
                "before the first statement"
            )
        if call.values is None:
            raise WordError(f"{call.spec.name} cannot depend on variables; write a number")
        self.settings.append(call)

    def steer(self, place: Place, text: str, word: str) -> None:
        rest = text[len(word) :].strip()
        if word in ("or", "else", "end"):
            self.close(place, text, word, rest)
        elif word in ("repeat", "for", "choose", "if"):
            self.open(_block(place, text, word, rest))
        elif word == "let":
            self.here.append(_let(place, text, rest))
        elif word == "print":
            self.here.append(Print(place, text, parse_text(rest)))
        elif word == "stop":
            _nothing(word, rest)
            self.here.append(Stop(place, text))
        elif word == "try":
            self.here.append(ExpectOutcome(place, text, ANY, _operation(place, rest)))
        else:
            self.here.append(_expect(place, text, rest))

    def open(self, block: Repeat | For | Choose | If) -> None:
        if len(self.blocks) >= limits.DEPTH:
            raise WordError(f"more than {limits.DEPTH} blocks inside each other")
        self.here.append(block)
        inside = block.branches[0][1] if isinstance(block, Choose) else block.body
        self.blocks.append((block, inside))

    def close(self, place: Place, text: str, word: str, rest: str) -> None:
        block = self.blocks[-1][0] if self.blocks else None
        if block is None:
            raise WordError(f"{word!r} without a block that it belongs to")
        if word == "end":
            _nothing(word, rest)
            self.blocks.pop()
        elif word == "or" and isinstance(block, Choose):
            block.branches.append((_weight(rest), []))
            self.blocks[-1] = (block, block.branches[-1][1])
        elif word == "else" and isinstance(block, If) and self.blocks[-1][1] is block.body:
            _nothing(word, rest)
            self.blocks[-1] = (block, block.otherwise)
        else:
            wanted = "choose" if word == "or" else "if"
            raise WordError(f"{word!r} belongs to {wanted!r}, and here is {block.text!r}")


def parse_call(place: Place, text: str) -> Call:
    """Parse a line of the tables.

    Raises
    ------
    WordError
        Saying what is wrong with it.
    """
    first, *words = split_words(text) or (Word(""),)
    spec = STATEMENTS.get(first.text)
    if spec is None:
        raise WordError(f"there is no {first.text!r}{_perhaps(first.text)}")
    return Call(place, text, spec, tuple(words), _bind(spec, tuple(words)))


def _perhaps(word: str) -> str:
    near = difflib.get_close_matches(word, [*STATEMENTS, *STEERING], 1)
    return f"; did you mean {near[0]}?" if near else "; docs/scenarios.md has all statements"


def _bind(spec: Spec, words: tuple[Word, ...]) -> Values | None:
    """Check words, and return their values if these are the same wherever the line stands."""
    values = bind(spec, words)
    return values if all(word.is_literal for word in words) else None


def _nothing(word: str, rest: str) -> None:
    if rest:
        raise WordError(f"{rest!r} after {word!r}, which stands alone")


def _block(place: Place, text: str, word: str, rest: str) -> Repeat | For | Choose | If:
    if word == "repeat":
        return Repeat(place, text, parse_side(rest))
    if word == "choose":
        return Choose(place, text, [(_weight(rest), [])])
    if word == "if":
        return If(place, text, parse_condition(rest))
    match = re.fullmatch(r"(\S+)\s+in\s+(.+)", rest)
    if match is None:
        raise WordError("the line is: for NAME in LOW..HIGH, or: for NAME in WORD...")
    name, values = _variable(match[1]), match[2]
    low, dots, high = values.partition("..")
    if dots:
        return For(place, text, name, _expression(low), _expression(high), ())
    return For(place, text, name, None, None, split_words(values))


def _weight(rest: str) -> int:
    if not rest:
        return 1
    weight = number_of(rest)
    if not 1 <= weight <= 1000:
        raise WordError(f"the weight {rest} is not between 1 and 1000")
    return weight


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise WordError(f"{name!r} cannot be a variable: letters, digits and _, a letter first")
    if name in QUANTITIES or name in STEERING or name == "not":
        raise WordError(f"{name} means something already; choose another name for the variable")
    return name


def _let(place: Place, text: str, rest: str) -> Let:
    name, equals, value = rest.partition("=")
    if not equals or not value.strip():
        raise WordError("the line is: let NAME = EXPRESSION, one of WORD..., or any process")
    variable, value = _variable(name.strip()), value.strip()
    if value == "any process":
        return Let(place, text, variable, any_process=True)
    if value.split()[:2] == ["one", "of"]:
        words = split_words(value)[2:]
        if not words:
            raise WordError("one of what? The line is: let NAME = one of WORD...")
        return Let(place, text, variable, words=words)
    return Let(place, text, variable, parse_side(value))


def _expect(place: Place, text: str, rest: str) -> Expect | ExpectOutcome:
    match = re.match(r"(\w+):\s+(.*)", rest)
    if match is None:
        return Expect(place, text, parse_condition(rest))
    outcome, line = match[1], match[2]
    if outcome not in OUTCOMES and not re.fullmatch(r"E[A-Z0-9]{2,15}", outcome):
        known = ", ".join(OUTCOMES)
        raise WordError(f"{outcome!r} is no outcome; there are {known}, and errors (ENOMEM)")
    return ExpectOutcome(place, text, outcome, _operation(place, line))


def _operation(place: Place, text: str) -> Call:
    """Parse a line of which an outcome can be expected."""
    call = parse_call(place, text)
    if not call.spec.operates:
        raise WordError(f"{call.spec.name} has no outcome to expect; only operations have")
    return call


def parse_condition(text: str) -> Condition:
    """Parse ``[not] SIDE`` or ``SIDE OPERATOR SIDE``.

    Raises
    ------
    WordError
        Saying what is wrong with it.
    """
    parts = re.split(r"(==|!=|<=|>=|<|>|(?<![=!<>])=(?!=))", text)
    if "=" in parts:
        raise WordError(f"write == to compare in {text!r}")
    if len(parts) == 1:
        negated = re.match(r"not\s+", text)
        side = parse_side(text[negated.end() :] if negated else text)
        return Condition(text, side, "==" if negated else "!=", parse_expression("0"))
    if len(parts) != 3:
        raise WordError(f"{text!r} compares more than two things; write one comparison a line")
    return Condition(text, parse_side(parts[0]), parts[1], parse_side(parts[2]))


def parse_side(text: str) -> Side:
    """Parse a quantity with its words, or else an expression.

    Raises
    ------
    WordError
        Saying what is wrong with it.
    """
    words = split_words(text)
    spec = QUANTITIES.get(words[0].text) if words else None
    if spec is None:
        _refuse_words(text)
        return _expression(text)
    return Query(text.strip(), spec, words[1:], _bind(spec, words[1:]))


def _refuse_words(text: str) -> None:
    """Two words side by side are no expression, but perhaps a misspelt quantity."""
    match = re.match(r"\s*([A-Za-z_]\w*)\s+\w", text)
    if match:
        near = difflib.get_close_matches(match[1], QUANTITIES, 1)
        hint = f"did you mean {near[0]}?" if near else "docs/scenarios.md has all of them"
        raise WordError(f"there is no quantity {match[1]!r}; {hint}")


def _expression(text: str) -> Expression:
    """Parse an expression in which braces, needed elsewhere, are as good as parentheses."""
    return parse_expression(text.replace("{", "(").replace("}", ")"))
