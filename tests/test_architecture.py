"""The arrows, the map and the promises: what ARCHITECTURE.md says is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "conversations"
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


def test_every_file_that_the_architecture_names_exists() -> None:
    table = TEXT[TEXT.index("## Code map") : TEXT.index("Arrows:")]
    for row in re.findall(r"^\| (`.*?) \|", table, re.M):
        folder = Path()
        for name in re.findall(r"`([^`]+)`", row):
            path = Path(name) if "/" in name and (ROOT / name).exists() else folder / name
            assert (ROOT / path).exists(), name
            folder = path.parent if path.suffix else path


@pytest.mark.parametrize("path", modules(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_knows_neither_the_edge_nor_the_sample_project(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] in ("channels_ingest", "botproject")]


def test_the_arrows_inside_the_core_have_no_cycle() -> None:
    """Also none that an import inside a function would hide."""
    arrows = {}
    for path in CORE.glob("*.py"):
        names = {
            name.removeprefix("conversations.").split(".")[0]
            for name in imports(path)
            if name.startswith("conversations.")
        }
        arrows[path.stem] = {name for name in names if (CORE / f"{name}.py").exists()} - {path.stem}
    while arrows:
        leaves = {name for name, to in arrows.items() if not to & arrows.keys()}
        assert leaves, f"a cycle among {sorted(arrows)}"
        arrows = {name: to for name, to in arrows.items() if name not in leaves}


def test_nobody_saves_a_lane() -> None:
    """A lane's row is written by compare-and-set only: no save(), no update() over a QuerySet of conversations."""
    for folder in ("conversations", "channels_ingest", "botproject"):
        for path in modules(ROOT / folder):
            text = path.read_text()
            assert not re.search(
                r"Conversation\.objects[^\n]*\.(update|create|bulk_\w+|get_or_create|update_or_create)\(", text
            ), path
            assert not re.search(r"\b(lane|conversation)\.save\(", text), path


@pytest.mark.parametrize("kind", ["sql", "lua"])
def test_every_statement_is_used_and_says_what_it_is(kind: str) -> None:
    used = "".join(path.read_text() for path in CORE.rglob("*.py"))
    for path in sorted(CORE.glob(f"*/{kind}/*.{kind}")):
        assert path.read_text().startswith("--"), f"{path.name} begins without its contract"
        assert f'"{path.stem}"' in used, f"nobody uses {path.name}"
