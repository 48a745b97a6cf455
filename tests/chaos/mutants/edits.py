"""How a bug is planted: the product's own text with other words in it, in a running process.

An edit names a text (a function's source, a SQL or Lua file, a function in the database) and the words that
are replaced. Words that are not there exactly once raise ``NotApplied``: the code has moved on, and a bug that was
not planted proves nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper


class NotApplied(Exception):
    """The bug could not be planted."""


class Edit(Protocol):
    """One change. ``apply``: in this process. ``migrate``: in the database, right after its migrations."""

    def apply(self) -> None: ...
    def migrate(self, connection: BaseDatabaseWrapper) -> None: ...


class _InProcess:
    def migrate(self, connection: BaseDatabaseWrapper) -> None:
        pass


class _InDatabase:
    def apply(self) -> None:
        pass


@dataclass(frozen=True)
class Code(_InProcess):
    """Words in the source of ``module:function`` or ``module:Class.method``; whoever imported it has the bug, too.

    ``PLANTED`` in the new words is the module ``helpers``.
    """

    where: str
    old: str
    new: str

    def apply(self) -> None:
        function = _function(self.where)
        source = getattr(function, "planted", "") or _without_decorators(textwrap.dedent(inspect.getsource(function)))
        namespace: dict[str, Any] = {}
        text = _replaced(self.where, source, self.old, self.new)
        planted = compile(text, f"<planted {self.where}>", "exec", annotations.compiler_flag)
        exec(planted, function.__globals__, namespace)
        made = namespace[function.__name__].__code__
        if made.co_freevars != function.__code__.co_freevars:
            raise NotApplied(f"{self.where} is a closure")
        if "PLANTED" in self.new:
            function.__globals__["PLANTED"] = importlib.import_module("tests.chaos.mutants.helpers")
        function.__code__ = made
        function.planted = text  # type: ignore[attr-defined]  # where a second edit of it finds its words


@dataclass(frozen=True)
class Constant(_InProcess):
    """Another value of ``module:NAME`` or ``module:Class.name``, which must be there."""

    where: str
    value: Any

    def apply(self) -> None:
        owner, name = _owner(self.where)
        if not hasattr(owner, name):
            raise NotApplied(f"{self.where} is not there")
        setattr(owner, name, self.value)


@dataclass(frozen=True)
class Sql(_InProcess):
    """Words of the statement ``<name>.sql``, as it is loaded."""

    name: str
    old: str
    new: str
    loader: str = "sql"

    def apply(self) -> None:
        from conversations.postgres import sql_files

        texts = {"sql": sql_files.SQL, "lua": sql_files.LUA}[self.loader]
        texts[self.name] = _replaced(f"{self.name}.{self.loader}", texts[self.name], self.old, self.new)


def Lua(name: str, old: str, new: str) -> Sql:
    """Words of the script ``<name>.lua``."""
    return Sql(name, old, new, loader="lua")


@dataclass(frozen=True)
class Function(_InDatabase):
    """Words of a function of the database, whichever migration made it."""

    name: str
    old: str
    new: str

    def migrate(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s", [self.name])
            found = cursor.fetchall()
            if len(found) != 1:
                raise NotApplied(f"{len(found)} functions {self.name} in the database")
            cursor.execute(_replaced(self.name, found[0][0], self.old, self.new))


@dataclass(frozen=True)
class Ddl(_InDatabase):
    """A statement of the bug's own; what it drops must be there."""

    statement: str

    def migrate(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self.statement)


def without_unique(constraint: str, columns: str) -> Ddl:
    """A unique constraint of message is only an index, so that the checker, not the constraint, must notice."""
    return Ddl(f"ALTER TABLE message DROP CONSTRAINT {constraint}; CREATE INDEX {constraint} ON message ({columns})")


# ---------------------------------------------------------------- finding things


def _owner(where: str) -> tuple[Any, str]:
    """What holds the thing at ``module:A.b``, and the thing's name."""
    module, _, path = where.partition(":")
    *outer, name = path.split(".")
    try:
        return functools.reduce(getattr, outer, importlib.import_module(module)), name
    except (ImportError, AttributeError) as error:
        raise NotApplied(f"{where}: {error}") from error


def _function(where: str) -> FunctionType:
    owner, name = _owner(where)
    found: Callable[..., Any] | None = getattr(owner, name, None)
    function = inspect.unwrap(found) if found else None
    if not isinstance(function, FunctionType):
        raise NotApplied(f"{where} is no function")
    return function


def _without_decorators(source: str) -> str:
    lines = source.splitlines(keepends=True)
    begin = next(n for n, line in enumerate(lines) if line.startswith(("def ", "async def ")))
    return "".join(lines[begin:])


def _replaced(where: str, text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise NotApplied(f"{where} holds {old!r} {text.count(old)} times")
    return text.replace(old, new)
