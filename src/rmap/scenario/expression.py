# SPDX-License-Identifier: GPL-2.0-only
"""Integer expressions, as they stand between braces and after ``let``, ``if`` and ``expect``.

::

    expression = term (("+" | "-") term)*
    term       = factor (("*" | "/" | "%") factor)*
    factor     = number | name | name "(" [expression ("," expression)*] ")"
               | "(" expression ")" | "-" factor

Numbers are decimal, hexadecimal with ``0x``, or sizes (``64K``, ``1M``, ``2G``), which are counted
in pages. Division rounds down, as ``//`` of Python does. The functions are ``random(low, high)``
(both included), ``min`` and ``max``. Everything is bounded (`rmap.scenario.limits`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from rmap.scenario.errors import WordError
from rmap.scenario.limits import EXPRESSION_DEPTH, EXPRESSION_TOKENS, NUMBER

PAGE_SIZE = 4096
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TOKEN = re.compile(r"\s*(?:(0[xX][0-9a-fA-F]+|\d+[KMG]?)(?![\w.])|([A-Za-z_]\w*)|([-+*/%(),]))")
_FUNCTIONS = {"random": 2, "min": 2, "max": 2}

#: What a variable may hold: a number or a word.
Value = int | str


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression is evaluated in: the variables, and the source of chance."""

    variables: Mapping[str, Value]
    random: Random


Node = Callable[[Scope], int]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `name` is the variable if it is nothing but one."""

    text: str
    node: Node
    name: str = ""

    def number(self, scope: Scope) -> int:
        """Return its value as a number.

        Raises
        ------
        WordError
            For an unknown variable, one that holds a word, a division by zero, a number too large.
        """
        return self.node(scope)

    def value(self, scope: Scope) -> Value:
        """Return its value; that of a lone variable may be a word."""
        held = scope.variables.get(self.name) if self.name else None
        return held if isinstance(held, str) else self.node(scope)


def number_of(text: str) -> int:
    """Return a number as it is written: decimal, hexadecimal, or a size in pages.

    >>> number_of("12"), number_of("0x10"), number_of("64K"), number_of("-1")
    (12, 16, 16, -1)

    Raises
    ------
    WordError
        If it is none, or a size that is no whole number of pages.
    """
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if len(digits) > 20 or not re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+[KMG]?", digits):
        raise WordError(f"{text!r} is no number; write 12, 0x10, or a size such as 64K")
    unit = _UNITS.get(digits[-1])
    if unit is not None and digits[:2] not in ("0x", "0X"):
        bytes_ = int(digits[:-1]) * unit
        if bytes_ % PAGE_SIZE:
            raise WordError(f"{text} is no whole number of pages of {PAGE_SIZE} bytes")
        return _bounded(sign * (bytes_ // PAGE_SIZE))
    base = 16 if digits[:2] in ("0x", "0X") else 10
    return _bounded(sign * int(digits, base))


def parse_expression(text: str) -> Expression:
    """Parse an expression.

    >>> scope = Scope({"i": 3}, Random(0))
    >>> parse_expression("2 * (i + 1)").number(scope)
    8

    Raises
    ------
    WordError
        Saying what is wrong with it.
    """
    parser = _Parser(text)
    node = parser.sum(0)
    if parser.token:
        raise WordError(f"{parser.token!r} does not fit into the expression {text.strip()!r}")
    stripped = text.strip()
    lone = re.fullmatch(r"[A-Za-z_]\w*", stripped) is not None
    return Expression(stripped, node, stripped if lone else "")


def _bounded(value: int) -> int:
    if abs(value) > NUMBER:
        raise WordError("a number that large (beyond 2^62) is never needed")
    return value


def _tokens(text: str) -> Iterator[str]:
    at = 0
    stop = len(text.rstrip())
    for _ in range(EXPRESSION_TOKENS):
        if at >= stop:
            return
        match = _TOKEN.match(text, at)
        if match is None:
            wrong = text[at:].split()[0]
            raise WordError(f"cannot read {wrong!r} in the expression {text.strip()!r}")
        yield match.group(match.lastindex or 0)
        at = match.end()
    if at < stop:
        raise WordError(f"an expression has more than {EXPRESSION_TOKENS} parts; split it by let")


class _Parser:
    """Recursive descent; `token` is the next one, empty at the end."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.rest = _tokens(text)
        self.token = next(self.rest, "")
        if not self.token:
            raise WordError("an expression is empty; write a number or a variable")

    def take(self) -> str:
        token, self.token = self.token, next(self.rest, "")
        return token

    def expect(self, token: str) -> None:
        if self.token != token:
            found = repr(self.token) if self.token else "its end"
            raise WordError(f"the expression {self.text!r} wants {token!r} before {found}")
        self.take()

    def sum(self, depth: int) -> Node:
        if depth > EXPRESSION_DEPTH:
            raise WordError("the expression is nested too deeply")
        node = self.product(depth)
        while self.token in ("+", "-"):
            node = _binary(self.take(), node, self.product(depth))
        return node

    def product(self, depth: int) -> Node:
        node = self.factor(depth)
        while self.token in ("*", "/", "%"):
            node = _binary(self.take(), node, self.factor(depth))
        return node

    def factor(self, depth: int) -> Node:
        if depth > EXPRESSION_DEPTH:
            raise WordError("the expression is nested too deeply")
        token = self.take()
        if token == "-":
            inner = self.factor(depth + 1)
            return lambda scope: -inner(scope)
        if token == "(":
            node = self.sum(depth + 1)
            self.expect(")")
            return node
        if token[:1].isdigit():
            value = number_of(token)
            return lambda _: value
        if token[:1].isalpha() or token[:1] == "_":
            return self.call(token, depth) if self.token == "(" else _variable(token)
        found = repr(token) if token else "nothing"
        raise WordError(f"the expression {self.text!r} has {found} where a number should be")

    def call(self, name: str, depth: int) -> Node:
        if name not in _FUNCTIONS:
            raise WordError(f"no function {name!r}; there are {', '.join(_FUNCTIONS)}")
        self.expect("(")
        arguments = []
        while self.token != ")":
            arguments.append(self.sum(depth + 1))
            if self.token != ")":
                self.expect(",")
        self.expect(")")
        if len(arguments) != _FUNCTIONS[name]:
            raise WordError(f"{name}() takes {_FUNCTIONS[name]} numbers, not {len(arguments)}")
        first, second = arguments
        if name == "random":
            return lambda scope: _random(scope, first(scope), second(scope))
        choose = min if name == "min" else max
        return lambda scope: choose(first(scope), second(scope))


def _variable(name: str) -> Node:
    def value(scope: Scope) -> int:
        held = scope.variables.get(name)
        if held is None:
            raise WordError(f"no variable {name!r}; set it with: let {name} = ...")
        if isinstance(held, str):
            raise WordError(f"the variable {name} holds the word {held!r}, not a number")
        return held

    return value


def _binary(operator: str, left: Node, right: Node) -> Node:
    def value(scope: Scope) -> int:
        a, b = left(scope), right(scope)
        if operator in "/%" and b == 0:
            raise WordError(f"division by zero: {a} {operator} {b}")
        if operator == "+":
            return _bounded(a + b)
        if operator == "-":
            return _bounded(a - b)
        if operator == "*":
            return _bounded(a * b)
        return a // b if operator == "/" else a % b

    return value


def _random(scope: Scope, low: int, high: int) -> int:
    if low > high:
        raise WordError(f"random({low}, {high}) has nothing to choose from: low is above high")
    return scope.random.randint(low, high)
