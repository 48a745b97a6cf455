"""Parts of a SQL statement (or of a PL/pgSQL function), found by what they are, whatever their words and lines are.

    Condition("ours", "l.epoch", "i.epoch")   in the CTE ``ours``: the condition that names these columns
    Assigned("lanes", "due_at")               in the UPDATE of the CTE ``lanes``: what its SET gives to this column
    Output("known", "same")                   in the SELECT of the CTE ``known``: the expression with this name
    Ordered("c.id", "r.sequence")             the ORDER BY list that names these columns
    Cte("fresh")                              the whole query of a CTE
    NewCte("swapped")                         nothing yet: the place of one more CTE

``within`` is the name of a CTE, or MAIN: the statement after the last CTE. A part that is not there exactly once raises
``NotFound``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAIN = ""
TOKEN = re.compile(
    r"""--[^\n]*|\s+|'(?:[^']|'')*'|%\(\w+\)s|(?:\w+|"\w+")(?:\.(?:\w+|"\w+"|\*))*|::|<=|>=|<>|:=|->>|->|\|\||.""", re.S
)
# A condition begins after one of these, and ends before one of those, of the same parentheses.
BEGINS = {"WHERE", "AND", "OR", "ON", "WHEN"}
ENDS = BEGINS - {"ON"} | {"THEN", "ELSE", "END", "FROM", "CROSS", "LEFT", "JOIN", "RETURNING", ",", ";"}
ENDS |= {"ORDER", "GROUP", "LIMIT", "OFFSET", "FOR", "UNION"}
ENDS_ASSIGNMENT = {"FROM", "WHERE", "RETURNING", ","}
ENDS_ORDER = {"LIMIT", "OFFSET", "FOR", "UNION", ";"}


class NotFound(Exception):
    """The statement has no such part, or more than one."""


class Token(NamedTuple):
    """A word of the statement. ``depth``: how many parentheses are open around it."""

    text: str
    start: int
    end: int
    depth: int


class Span(NamedTuple):
    """From which character to which."""

    start: int
    end: int


class Part(Protocol):
    """Finds its place in the tokens of a statement. ``wrap`` is the text around what is put there; ``{}`` is that."""

    wrap: str

    def find(self, tokens: Sequence[Token]) -> Span: ...


@dataclass(frozen=True)
class Condition:
    """The smallest condition that names all of ``names`` (columns as they are written, parameters, functions)."""

    within: str
    names: tuple[str, ...]
    wrap = "{}"

    def __init__(self, within: str, *names: str) -> None:
        object.__setattr__(self, "within", within)
        object.__setattr__(self, "names", names)

    def find(self, tokens: Sequence[Token]) -> Span:
        conditions = _conditions(_query(tokens, self.within))
        found = [one for one in conditions if {*self.names} <= {each.text for each in one}]
        shortest = min(map(len, found), default=0)
        return _only([one for one in found if len(one) == shortest], f"condition on {' and '.join(self.names)}")


@dataclass(frozen=True)
class Assigned:
    """What an UPDATE gives to a column."""

    within: str
    column: str
    wrap = "{}"

    def find(self, tokens: Sequence[Token]) -> Span:
        query, found = _query(tokens, self.within), []
        for at in range(1, len(query) - 1):
            before, name, equals = query[at - 1 : at + 2]
            if name.text == self.column and equals.text == "=" and before.text.upper() in ("SET", ","):
                found.append(_until(query, at + 2, name.depth, ENDS_ASSIGNMENT))
        return _only(found, f"assignment to {self.column}")


@dataclass(frozen=True)
class Output:
    """The expression that a SELECT calls ``name``."""

    within: str
    name: str
    wrap = "{}"

    def find(self, tokens: Sequence[Token]) -> Span:
        query, found = _query(tokens, self.within), []
        for at in range(1, len(query)):
            if query[at].text == self.name and query[at - 1].text.upper() == "AS":
                before, depth = at - 1, query[at].depth
                while before and not (
                    query[before - 1].depth == depth and query[before - 1].text.upper() in (",", "SELECT")
                ):
                    before -= 1
                found.append(query[before : at - 1])
        return _only(found, f"output {self.name}")


@dataclass(frozen=True)
class Ordered:
    """The list of an ORDER BY, anywhere in the statement, that is made of ``names``."""

    names: tuple[str, ...]
    wrap = "{}"

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def find(self, tokens: Sequence[Token]) -> Span:
        lists = [
            _until(tokens, at + 1, tokens[at].depth, ENDS_ORDER)
            for at in range(1, len(tokens))
            if tokens[at].text.upper() == "BY" and tokens[at - 1].text.upper() == "ORDER"
        ]
        wanted = [one for one in lists if tuple(each.text for each in one if each.text != ",") == self.names]
        return _only(wanted, f"ORDER BY {', '.join(self.names)}")


@dataclass(frozen=True)
class Cte:
    """The query of a CTE."""

    name: str
    wrap = "{}"

    def find(self, tokens: Sequence[Token]) -> Span:
        return _only([_query(tokens, self.name)], f"CTE {self.name}")


@dataclass(frozen=True)
class NewCte:
    """One more CTE, after the others."""

    name: str

    @property
    def wrap(self) -> str:
        return f", {self.name} AS ({{}})"

    def find(self, tokens: Sequence[Token]) -> Span:
        *_, (_, last) = _ctes(tokens)
        end = tokens[tokens.index(last[-1]) + 1].end  # behind its closing parenthesis
        return Span(end, end)


def changed(text: str, part: Part, becomes: str) -> str:
    """Return ``text`` with another part; ``{}`` in ``becomes`` stands for the part as it was."""
    start, end = part.find(_tokens(text))
    return text[:start] + part.wrap.replace("{}", becomes.replace("{}", text[start:end])) + text[end:]


# ---------------------------------------------------------------- finding


def _tokens(text: str) -> list[Token]:
    """Every word but blanks and comments. A parenthesis has the depth of what is around it."""
    tokens, depth = [], 0
    for match in TOKEN.finditer(text):
        word = match[0]
        if word.isspace() or word.startswith("--"):
            continue
        depth -= word == ")"
        tokens.append(Token(word, match.start(), match.end(), depth))
        depth += word == "("
    return tokens


def _ctes(tokens: Sequence[Token]) -> Iterator[tuple[str, list[Token]]]:
    """Name and query of each CTE of the statement itself."""
    top = [at for at, token in enumerate(tokens) if token.depth == 0]
    for place, at in enumerate(top):
        if tokens[at].text.upper() == "AS" and tokens[at - 2].text.upper() in ("WITH", ","):
            opened = next(there for there in top[place:] if tokens[there].text == "(")
            closed = next(there for there in top[place:] if tokens[there].text == ")")
            yield tokens[at - 1].text, list(tokens[opened + 1 : closed])


def _query(tokens: Sequence[Token], within: str) -> list[Token]:
    ctes = dict(_ctes(tokens))
    if within:
        if within not in ctes:
            raise NotFound(f"no CTE {within}")
        return ctes[within]
    last = max((query[-1].end for query in ctes.values()), default=-1)
    return [token for token in tokens if token.start > last]


def _until(tokens: Sequence[Token], begin: int, depth: int, ends: set[str]) -> list[Token]:
    """From ``begin`` to before one of ``ends``, or to where the parentheses around it are closed."""
    end = begin
    while end < len(tokens) and tokens[end].depth >= depth:
        word = tokens[end].text.upper()
        distinct = word == "FROM" and tokens[end - 1].text.upper() == "DISTINCT"  # a IS NOT DISTINCT FROM b
        if tokens[end].depth == depth and word in ends and not distinct:
            break
        end += 1
    return list(tokens[begin:end])


def _conditions(query: Sequence[Token]) -> Iterator[list[Token]]:
    for at, token in enumerate(query):
        if token.text.upper() in BEGINS:
            yield _until(query, at + 1, token.depth, ENDS)
        elif token.text == "(" and query[at - 1].text.upper() in BEGINS | {"NOT", "("}:  # (a OR b)
            yield _until(query, at + 1, token.depth + 1, ENDS)


def _only(found: Sequence[Sequence[Token]], what: str) -> Span:
    if len(found) != 1 or not found[0]:
        raise NotFound(f"{what}: found {len(found)} times")
    return Span(found[0][0].start, found[0][-1].end)
