# SPDX-License-Identifier: GPL-2.0-only
"""A line in words, and words with holes: ``worker{i}`` is ``worker7`` where `i` is 7.

A hole is an expression between braces. Words are separated by blanks outside of holes; ``#``
begins a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmap.scenario.errors import WordError
from rmap.scenario.expression import Expression, Scope, parse_expression
from rmap.scenario.limits import LINE_CHARACTERS

_PIECE = re.compile(r"[^\s{}#]+|\{[^{}]*\}|[{}]")


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its text as written, and its pieces if it has holes (else none)."""

    text: str
    pieces: tuple[str | Expression, ...] = ()

    @property
    def is_literal(self) -> bool:
        """Whether it is the same wherever it stands."""
        return not self.pieces

    def fill(self, scope: Scope) -> str:
        """Return the word with its holes filled.

        Raises
        ------
        WordError
            If an expression in it has no value, or it has grown too long.
        """
        if not self.pieces:
            return self.text
        text = "".join(
            piece if isinstance(piece, str) else str(piece.value(scope)) for piece in self.pieces
        )
        if len(text) > LINE_CHARACTERS:
            raise WordError(f"{self.text[:40]} has become longer than {LINE_CHARACTERS} characters")
        return text


def split_comment(line: str) -> str:
    """Return a line without its comment and the blanks at its ends."""
    return line.partition("#")[0].strip()


def split_words(text: str) -> tuple[Word, ...]:
    """Split a line, which has no comment any more, into words.

    >>> [word.text for word in split_words("fork P0  worker{ i + 1 }")]
    ['fork', 'P0', 'worker{ i + 1 }']

    Raises
    ------
    WordError
        For a brace without its partner, or a bad expression in one.
    """
    words: list[Word] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        start = at
        pieces: list[str | Expression] = []
        while at < len(text) and not text[at].isspace():
            match = _PIECE.match(text, at)
            piece = match.group() if match else text[at]
            pieces.append(_piece(piece, text[start:]))
            at += len(piece)
        words.append(_word(text[start:at], pieces))
    return tuple(words)


def parse_text(text: str) -> Word:
    """Return a whole line's text as one word, for what prints it.

    Raises
    ------
    WordError
        For a brace without its partner, or a bad expression in one.
    """
    pieces: list[str | Expression] = []
    for part in re.split(r"(\{[^{}]*\}|[{}])", text):
        if part[:1] in ("{", "}") and part:
            pieces.append(_piece(part, part))
        elif part:
            pieces.append(part)
    return _word(text, pieces)


def _piece(piece: str, context: str) -> str | Expression:
    if piece in ("{", "}"):
        raise WordError(f"a brace without its partner: {context.split()[0]}")
    return parse_expression(piece[1:-1]) if piece.startswith("{") else piece


def _word(text: str, pieces: list[str | Expression]) -> Word:
    has_holes = any(isinstance(piece, Expression) for piece in pieces)
    return Word(text, tuple(pieces) if has_holes else ())
