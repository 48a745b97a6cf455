"""How a bug is planted: through a seam that has a name, never by the words of a line.

    Wrapped    a function of the product, by another that gets it as its first argument (see ``wrappers``)
    Constant   a value of a module, a class or the settings
    Sql        a part of a statement, by the statement's name and what the part is (see ``sql_parts``)
    Lua        a whole script
    Function   a function of the database, by another that may call it as ``planted_<name>``
    Ddl        a constraint or trigger, by its name

What cannot be found raises ``NotApplied``: the code has moved on, and a bug that was not planted proves nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from tests.chaos.mutants.sql_parts import NotFound, Part, changed


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
class Wrapped(_InProcess):
    """``module:function`` or ``module:Class.method`` becomes ``wrappers.<by>(original, ...)``, for all who imported it.

    Behind the original, the wrapper takes the same parameters: else it was written for another version of it.
    """

    where: str
    by: str

    def apply(self) -> None:
        function = _function(self.where)
        wrapper = getattr(importlib.import_module("tests.chaos.mutants.wrappers"), self.by)
        wanted, taken = list(inspect.signature(function).parameters), list(inspect.signature(wrapper).parameters)
        if ["original", *wanted] != taken:
            raise NotApplied(f"{self.where} takes {wanted}, {self.by} takes {taken}")
        _call_instead(function, functools.partial(wrapper, _copy(function)))


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
    """Another ``part`` in the statement ``<name>.sql``; ``{}`` in ``becomes`` stands for the part as it was."""

    name: str
    part: Part
    becomes: str

    def apply(self) -> None:
        from conversations.postgres.sql_files import SQL

        try:
            SQL[self.name] = changed(SQL[self.name], self.part, self.becomes)
        except (KeyError, NotFound) as error:
            raise NotApplied(f"{self.name}.sql: {error}") from error


@dataclass(frozen=True)
class Lua(_InProcess):
    """Another script in place of ``<name>.lua``."""

    name: str
    script: str

    def apply(self) -> None:
        from conversations.postgres.sql_files import LUA

        if self.name not in LUA:
            raise NotApplied(f"no script {self.name}.lua")
        LUA[self.name] = self.script


@dataclass(frozen=True)
class Function(_InDatabase):
    """Another function in the database: ``body`` is PL/pgSQL, same parameters; ``planted_<name>`` is the old one."""

    name: str
    body: str

    def migrate(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute("""SELECT pg_get_function_arguments(oid), pg_get_function_identity_arguments(oid),
                          pg_get_function_result(oid) FROM pg_proc WHERE proname = %s""", [self.name])  # fmt: skip
            found = cursor.fetchall()
            if len(found) != 1:
                raise NotApplied(f"{len(found)} functions {self.name} in the database")
            parameters, types, result = found[0]
            head = f"CREATE FUNCTION {self.name}({parameters}) RETURNS {result} LANGUAGE plpgsql"
            cursor.execute(f"ALTER FUNCTION {self.name}({types}) RENAME TO planted_{self.name}")
            cursor.execute(f"{head} AS $${self.body}$$")


@dataclass(frozen=True)
class Ddl(_InDatabase):
    """A statement of the bug's own; what it drops must be there."""

    statement: str

    def migrate(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self.statement)


def script(name: str) -> str:
    """Return ``lua/<name>.lua`` or ``sql/<name>.sql`` beside this file, without its comment."""
    (path,) = Path(__file__).parent.glob(f"*/{name}.*")
    return "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("--"))


def without_unique(constraint: str, columns: str) -> Ddl:
    """A unique constraint of message is only an index, so that the checker, not the constraint, must notice."""
    return Ddl(f"ALTER TABLE message DROP CONSTRAINT {constraint}; CREATE INDEX {constraint} ON message ({columns})")


# ---------------------------------------------------------------- functions


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
    if function.__closure__:
        raise NotApplied(f"{where} is a closure")
    return function


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _call_instead(function: FunctionType, other: Callable[..., Any]) -> None:
    """Change the function itself, not a name of it: other modules have imported it under names of their own."""
    name = f"_planted_{id(other)}"
    function.__globals__[name] = other
    made: dict[str, Any] = {}
    exec(f"def call(*args, **kwargs): return {name}(*args, **kwargs)", made)
    function.__code__ = made["call"].__code__
    function.__defaults__ = function.__kwdefaults__ = None
