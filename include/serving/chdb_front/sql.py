"""As much of ClickHouse's lexical grammar as the HTTP interface needs.

It finds where the data of an INSERT begins and where the FORMAT clause of a statement stands. Whether a statement
is valid, and what it may do, is left to the engine's parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_TOKEN = re.compile(
    rb"""(?P<skip>\s++|--[^\n]*+|\#[!\ ][^\n]*+|/\*.*?\*/)
       | (?P<quoted>'(?:[^'\\]++|\\.|'')*+'|"(?:[^"\\]++|\\.|"")*+"|`(?:[^`\\]++|\\.|``)*+`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
       | (?P<word>[A-Za-z_]\w*+)
       | (?P<other>\d[\w.]*+|.)""",
    re.X | re.S,
)
_OPEN, _CLOSE = b"([{", b")]}"


@dataclass(frozen=True, slots=True)
class Token:
    start: int
    end: int
    text: bytes
    word: bytes
    """The word in upper case; empty for anything else."""
    depth: int
    """Brackets open around the token."""


def tokens(sql: bytes) -> Iterator[Token]:
    """The tokens of ``sql`` but for spaces and comments."""
    depth = 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "skip":
            continue
        text = match[0]
        if text in _CLOSE:
            depth -= 1
        yield Token(match.start(), match.end(), text, text.upper() if match["word"] else b"", depth)
        if text in _OPEN:
            depth += 1


def keyword(sql: bytes) -> bytes:
    """The first word of ``sql`` in upper case, past opening brackets."""
    return next((token.word for token in tokens(sql) if token.text != b"("), b"")


@dataclass(frozen=True)
class Insert:
    """An INSERT whose data follows it: the statement without its FORMAT or VALUES clause, and where the data starts."""

    statement: bytes
    format: str
    data_start: int


def insert_with_data(head: bytes, complete: bool) -> Insert | None:
    """The INSERT at the start of ``head``; None if it is something else, or takes its rows from a query.

    ``complete`` says that nothing follows ``head``; otherwise None also means that ``head`` is too short to tell.
    """
    stream = tokens(head)
    if getattr(next(stream, None), "word", b"") != b"INSERT":
        return None
    previous, named = b"", False
    for token in stream:
        if not named:
            named = token.word not in (b"INTO", b"TABLE", b"FUNCTION")
        elif previous == b"." or token.depth > 1:
            pass
        elif token.word in (b"FORMAT", b"VALUES") and token.depth == 0:
            return _data(head, complete, token, next(stream, None))
        elif token.word in (b"SELECT", b"WITH", b"FROM", b"WATCH") and (token.depth == 0 or previous == b"("):
            return None
        previous = token.text
    return None


def _data(head: bytes, complete: bool, clause: Token, following: Token | None) -> Insert | None:
    if clause.word == b"VALUES":
        return Insert(head[: clause.start], "Values", clause.end) if complete or following else None
    if following is None or (following.end == len(head) and not complete):
        return None
    start = following.end
    while head[start : start + 1] in (b" ", b"\t", b"\f"):
        start += 1
    start += head[start : start + 1] == b"\r"
    start += head[start : start + 1] == b"\n"
    if start == len(head) and not complete:
        return None
    return Insert(head[: clause.start], following.text.decode(errors="replace"), start)


def _format_clause(found: list[Token]) -> int | None:
    """Where in the tokens of a statement its FORMAT clause stands."""
    for at in range(len(found) - 2, -1, -1):
        last = at + 2 == len(found) or found[at + 2].word == b"SETTINGS"
        if last and found[at].word == b"FORMAT" and found[at].depth == 0 and found[at + 1].word:
            return at
    return None


def _statement(sql: bytes) -> list[Token]:
    found = list(tokens(sql))
    while found and found[-1].text == b";":
        found.pop()
    return found


def output_format(sql: bytes, default: str) -> str:
    """The format that the statement names, else ``default``."""
    found = _statement(sql)
    at = _format_clause(found)
    return default if at is None else found[at + 1].text.decode()


def to_outfile(sql: bytes, path: str, default_format: str) -> tuple[bytes, str]:
    """``sql`` with its result going to the existing file ``path``, and the format of that result."""
    found = _statement(sql)
    at = _format_clause(found)
    body = sql[: found[-1].end if found else 0]
    into = f"\nINTO OUTFILE '{path}' APPEND ".encode()
    if at is None:
        return body + into + f"FORMAT {default_format}".encode(), default_format
    return body[: found[at].start] + into + body[found[at].start :], found[at + 1].text.decode()


def writes_outfile(sql: bytes) -> bool:
    """Whether the statement has an INTO OUTFILE clause of its own."""
    if b"OUTFILE" not in sql.upper():
        return False
    return any(token.word == b"INTO" and following.word == b"OUTFILE" for token, following in pairwise(tokens(sql)))


def replace_query_id(sql: bytes, column: bytes) -> bytes:
    """``sql`` with the column ``query_id`` replaced by the expression ``column``."""
    parts, at = [], 0
    for token in tokens(sql):
        if token.word == b"QUERY_ID":
            parts += [sql[at : token.start], column]
            at = token.end
    return b"".join([*parts, sql[at:]])


def quote(text: str) -> bytes:
    """``text`` as a string literal. Bytes that are not UTF-8 pass as surrogates."""
    return b"'" + text.encode(errors="surrogateescape").replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def quote_name(text: str) -> bytes:
    """``text`` as an identifier."""
    return b"`" + text.encode(errors="surrogateescape").replace(b"\\", b"\\\\").replace(b"`", b"\\`") + b"`"
