"""The arrows, the map and the promises: what ARCHITECTURE.md says is there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "conversations"
PRODUCT = ("conversations", "channels_ingest", "botproject")
NO_MAP = ("migrations", "templatetags")  # their files have the names that Django asks for
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "migrations" not in path.parts]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_test_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    defined = {name for path in modules(ROOT / "tests") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 25
    assert named - defined == set()


def packages() -> list[Path]:
    """Every folder of the product that holds Python files."""
    found = {path.parent for name in PRODUCT for path in (ROOT / name).rglob("*.py")}
    return sorted(found)


def test_the_code_map_lists_every_folder_and_no_other() -> None:
    table = TEXT[TEXT.index("## Code map") : TEXT.index("Arrows:")]
    rows = re.findall(r"^\| `(\S+)/` \|", table, re.M)
    assert sorted(rows) == sorted(str(folder.relative_to(ROOT)) for folder in packages())


@pytest.mark.parametrize("folder", packages(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_says_in_its_first_lines_what_each_file_is(folder: Path) -> None:
    if folder.name in NO_MAP:
        return
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False) or ""
    rows = re.findall(r"^ *(\w+(?:\.py|/))  +\S", text, re.M)
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in folder.glob("*/*.py")}
    assert sorted(rows) == sorted(files | folders)


@pytest.mark.parametrize("path", modules(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_knows_neither_the_edge_nor_the_sample_project(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in ("channels_ingest", "botproject")]


def test_the_arrows_inside_the_core_have_no_cycle() -> None:
    """Also none that an import inside a function would hide."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules(CORE)}
    arrows = {name: imports(path) & names.keys() - {name} for name, path in names.items()}
    while arrows:
        leaves = {name for name, to in arrows.items() if not to & arrows.keys()}
        assert leaves, f"a cycle among {sorted(arrows)}"
        arrows = {name: to for name, to in arrows.items() if name not in leaves}


LOCKS = ("threading.Lock", "threading.RLock", "threading.Condition")


def locks() -> Iterator[str]:
    """Every lock of the product that lives longer than a call: ``Class._name`` or ``module._name``."""
    for path in (path for folder in PRODUCT for path in modules(ROOT / folder)):
        tree = ast.parse(path.read_text())
        owners = [(node.name, node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for owner, body in [*owners, (path.stem, ast.Module(tree.body, []))]:
            for node in ast.walk(body) if isinstance(body, ast.ClassDef) else body.body:
                if isinstance(node, ast.Assign) and ast.unparse(node.value).removesuffix("()") in LOCKS:
                    target = node.targets[0]
                    if isinstance(target, ast.Attribute):
                        yield f"{owner}.{target.attr}"
                    elif isinstance(body, ast.Module) and isinstance(target, ast.Name):
                        yield f"{owner}.{target.id}"


def section(title: str) -> str:
    return TEXT[TEXT.index(f"## {title}") :].split("\n## ")[0]


def test_the_table_of_locks_lists_every_lock_and_no_other() -> None:
    assert sorted(re.findall(r"^\| `(\S+)` \|", section("Locks inside a process"), re.M)) == sorted(locks())


def test_every_thread_that_the_architecture_names_exists() -> None:
    """By the words before a number or a kind: ``turn-1``, ``renew-handling``."""
    code = "".join(path.read_text() for folder in PRODUCT for path in modules(ROOT / folder))
    rows = re.findall(r"^\| (?:web|handle|send|sweep) \|.*$", section("Processes and threads"), re.M)
    names = {name.split("-")[0] for row in rows for name in re.findall(r"`([a-z][a-z \d-]*)`", row)}
    assert len(rows) == 4
    assert {name for name in names if not re.search(rf"""["']{name}\b""", code)} == set()


def test_nobody_saves_a_lane() -> None:
    """A lane's row is written by compare-and-set only: no save(), no update() over a QuerySet of conversations."""
    for folder in PRODUCT:
        for path in modules(ROOT / folder):
            text = path.read_text()
            writes = r"Conversation\.objects[^\n]*\.(update|create|bulk_\w+|get_or_create|update_or_create)\("
            assert not re.search(writes, text), path
            assert not re.search(r"\b(lane|conversation)\.save\(", text), path


@pytest.mark.parametrize("kind", ["sql", "lua"])
def test_every_statement_is_used_and_says_what_it_is(kind: str) -> None:
    used = "".join(path.read_text() for path in CORE.rglob("*.py"))
    for path in sorted(CORE.glob(f"*/{kind}/*.{kind}")):
        assert path.read_text().startswith("--"), f"{path.name} begins without its contract"
        assert f'"{path.stem}"' in used, f"nobody uses {path.name}"


# ---------------------------------------------------------------- names in comments

SEE = re.compile(r"\b[Ss]ee `{0,2}((?:\w+\.)+\w+)")
SEE_STATEMENT = re.compile(r"\bsee ([a-z]+(?:_[a-z]+)+)\b(?!\.)")
TURN = re.compile(r"`turn\.(\w+)")


@functools.cache
def members(path: Path, within: str = "") -> set[str]:
    """The names that a module defines or imports; with ``within``, those that this class of it defines."""
    body = ast.parse(path.read_text()).body
    found: set[str] = set()
    if within:
        body = [each for node in body if isinstance(node, ast.ClassDef) and node.name == within for each in node.body]
        found |= {node.attr for each in body for node in ast.walk(each) if is_own_attribute(node)}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def is_own_attribute(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """What a method sets on ``self``."""
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"


def is_there(name: str, near: Path) -> bool:
    """A file (``apps.py``), a module by its whole path, or ``module.Name`` and ``module.Class.name``."""
    parts = name.split(".")
    if parts[-1] in ("py", "md", "sql", "js"):
        return any(near.parent.rglob(name)) or any(ROOT.glob(f"*/**/{name}"))
    if (ROOT / "/".join(parts)).with_suffix(".py").exists() or (ROOT / "/".join(parts) / "__init__.py").exists():
        return True
    return any(defines(path, rest) for path, rest in candidates(parts))


def candidates(parts: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Modules that the first parts may name, the last of them by itself or by its whole path, and what is left."""
    for size in range(1, len(parts)):
        tail = "/".join(parts[:size])
        for folder in (*PRODUCT, "bench", "tests"):
            for pattern in (f"**/{tail}.py", f"**/{tail}/*.py"):
                yield from ((path, parts[size:]) for path in (ROOT / folder).parent.glob(f"{folder}/{pattern}"))
        for path in (ROOT / f"{tail}.py", ROOT / tail / "__init__.py"):
            if path.exists():
                yield path, parts[size:]


def defines(path: Path, names: list[str]) -> bool:
    first, *more = names
    return first in members(path) and (not more or more[0] in members(path, first))


def test_every_name_that_a_comment_refers_to_exists() -> None:
    """What stands after "see" with a dot in it: in comments, docstrings and the headers of statements."""
    texts = [*sorted(ROOT.glob("*.py")), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    endings = [(name, ending) for name in PRODUCT for ending in ("py", "sql", "lua")]
    texts += [path for name, ending in endings for path in (ROOT / name).rglob(f"*.{ending}")]
    referred = [(path, name) for path in texts for name in SEE.findall(path.read_text())]
    assert len(referred) > 15
    assert [f"{path.relative_to(ROOT)}: {name}" for path, name in referred if not is_there(name, path)] == []


def test_every_statement_or_module_that_a_statement_refers_to_exists() -> None:
    files = [path for name in PRODUCT for path in (ROOT / name).rglob("*.sql")]
    known = {path.stem for path in [*files, *modules(CORE)]}
    named = [(path.name, name) for path in files for name in SEE_STATEMENT.findall(path.read_text())]
    assert [(place, name) for place, name in named if name not in known] == []


def test_the_documents_name_only_what_a_turn_has() -> None:
    public = members(ROOT / "conversations" / "turns.py", "Turn")
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *modules(ROOT / "conversations")]
    named = [(path.name, name) for path in texts for name in TURN.findall(path.read_text())]
    assert len(named) > 5
    assert [each for each in named if each[1] not in public] == []
