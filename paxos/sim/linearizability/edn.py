"""A reader for EDN, the notation in which Jepsen writes histories: text in, Python values with line numbers out.

There is a package for it on PyPI (edn_format). It is not used: it brings a parser generator and a time library
along, and does not say on which line a form began, without which nobody can find the event that is meant.

What it reads: nil, booleans, integers, floats, strings, characters, keywords, symbols, lists, vectors, maps,
sets, tagged forms (of which the tag is forgotten), comments and discarded forms. Depth is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

DEPTH_MAX = 100
CLOSERS: Final = {"(": ")", "[": "]", "{": "}", "#{": "}"}
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\"}
CHARACTERS: Final = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r"}

TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<discard>\#_)
    |(?P<open>\#\{|[(\[{])
    |(?P<close>[)\]}])
    |(?P<character>\\(?:u[0-9a-fA-F]{4}|[a-z]+|.))
    |(?P<tag>\#[A-Za-z][^\s,;"()\[\]{}]*)
    |(?P<atom>[^\s,;"()\[\]{}\\]+)""",
    re.VERBOSE | re.DOTALL,
)
INTEGER = re.compile(r"([+-]?\d+)N?")
FLOAT = re.compile(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)M?")
SYMBOL = re.compile(r":?[^\s:#\d][^\s]*|:\d[^\s]*")


class NotEdn(ValueError):
    """The text is not EDN; `line` says where."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Keyword:
    """``:name``: something else than the string."""

    name: str

    def __repr__(self) -> str:
        return f":{self.name}"


@dataclass(frozen=True, slots=True)
class Symbol:
    """A bare ``name``."""

    name: str

    def __repr__(self) -> str:
        return self.name


class Token:
    """A piece of the text: its kind, what it says, and its line."""

    __slots__ = ("kind", "line", "text")

    def __init__(self, kind: str, text: str, line: int) -> None:
        self.kind = kind
        self.text = text
        self.line = line


def tokens(text: str) -> Iterator[Token]:
    """Yield what the text consists of, without spaces and comments."""
    place, line = 0, 1
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None:
            raise NotEdn(line, f"cannot read {text[place : place + 20]!r}")
        kind = found.lastgroup or ""
        said = found.group()
        if kind != "space":
            yield Token(kind, said, line)
        line += said.count("\n")
        place = found.end()


def read_all(text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of each form, and of each item of a vector or list that is not inside another.

    Raises:
        NotEdn: the text, or what is left of it, is not EDN.
    """
    stream = tokens(text)
    for token in stream:
        if token.kind == "discard":
            _value(_next(stream, token), stream, 0)
        elif token.text in ("[", "("):
            yield from _items(token, stream, 1)
        else:
            yield token.line, _value(token, stream, 0)


def read_one(text: str) -> Any:
    """Return the value of the first form, whatever follows it.

    Raises:
        NotEdn: there is none.
    """
    stream = tokens(text)
    return _value(_next(stream, Token("", "", 1)), stream, 0)


def _next(stream: Iterator[Token], after: Token) -> Token:
    token = next(stream, None)
    if token is None:
        raise NotEdn(after.line, f"the text ends after {after.text!r}" if after.text else "nothing to read")
    return token


def _value(token: Token, stream: Iterator[Token], depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise NotEdn(token.line, f"nested more than {DEPTH_MAX} deep")
    if token.kind == "open":
        return _collection(token, [item for _, item in _items(token, stream, depth + 1)])
    if token.kind == "string":
        return _string(token)
    if token.kind == "tag":
        return _value(_next(stream, token), stream, depth + 1)
    if token.kind == "character":
        return _character(token)
    if token.kind == "atom":
        return _atom(token)
    raise NotEdn(token.line, f"{token.text!r} stands where a value should")


def _items(opening: Token, stream: Iterator[Token], depth: int) -> Iterator[tuple[int, Any]]:
    closer = CLOSERS[opening.text]
    while True:
        token = next(stream, None)
        if token is None:
            raise NotEdn(opening.line, f"{opening.text!r} is not closed")
        if token.kind == "close":
            if token.text != closer:
                raise NotEdn(
                    token.line, f"{opening.text!r} of line {opening.line} is closed by {token.text!r}"
                )
            return
        if token.kind == "discard":
            _value(_next(stream, token), stream, depth)
        else:
            yield token.line, _value(token, stream, depth)


def _collection(opening: Token, items: list[Any]) -> Any:
    if opening.text in ("(", "["):
        return items
    try:
        if opening.text == "#{":
            return frozenset(map(_hashable, items))
        if len(items) % 2:
            raise NotEdn(opening.line, "a map has a key without a value")
        keys = [_hashable(key) for key in items[::2]]
        fields = dict(zip(keys, items[1::2], strict=True))
    except TypeError as error:
        raise NotEdn(opening.line, f"no key: {error}") from error
    if len(fields) != len(keys):
        raise NotEdn(opening.line, "a key stands twice in one map")
    return fields


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _string(token: Token) -> str:
    def unescape(found: re.Match[str]) -> str:
        escaped = found.group(1)
        if escaped[0] == "u" and len(escaped) == 5:
            return chr(int(escaped[1:], 16))
        if escaped not in ESCAPES:
            raise NotEdn(token.line, f"\\{escaped} means nothing in a string")
        return ESCAPES[escaped]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", unescape, token.text[1:-1], flags=re.DOTALL)


def _character(token: Token) -> str:
    name = token.text[1:]
    if len(name) == 5 and name[0] == "u":
        return chr(int(name[1:], 16))
    if name not in CHARACTERS and len(name) != 1:
        raise NotEdn(token.line, f"no character is called {name!r}")
    return CHARACTERS.get(name, name)


def _atom(token: Token) -> Any:
    text = token.text
    constants = {"nil": None, "true": True, "false": False, "##Inf": float("inf"), "##-Inf": float("-inf")}
    if text in constants:
        return constants[text]
    try:
        if found := INTEGER.fullmatch(text):
            return int(found.group(1))
        if found := FLOAT.fullmatch(text):
            return float(found.group(1))
    except ValueError as error:
        refuse(token, str(error))
    if not SYMBOL.fullmatch(text):
        refuse(token, f"{text[:20]!r} is no value")
    return Keyword(text[1:]) if text[0] == ":" else Symbol(text)


def refuse(token: Token, reason: str) -> NoReturn:
    """Raise NotEdn at a token."""
    raise NotEdn(token.line, reason)
