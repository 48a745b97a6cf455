"""The documents say what the code says: settings, links, paths, the index, the numbered promises."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import global_settings

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("botproject", "channels_ingest", "conversations")
FOLDERS = (*PRODUCT, "bench", "docs", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/**/README.md")])
DOCUMENTS = sorted({path for path in DOCUMENTS if path.relative_to(ROOT).parts[0] not in (".venv", ".data")})
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
VARIABLES, CONSTANTS = SETTINGS.split("\n## Constants of")
FLAGS = {True: "on", False: "off"}


# ---------------------------------------------------------------- settings


def rows(text: str) -> dict[str, str]:
    """The name of each row, and its second cell."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.M))


def in_environment(node: ast.AST) -> ast.expr | None:
    """What a node asks the environment for: ``env(X)``, ``env.int(X)``, ``os.environ.get(X)``, ``X in os.environ``."""
    match node:
        case ast.Call(func=ast.Name("env") | ast.Attribute(value=ast.Name("env")), args=[name, *_]):
            return name
        case ast.Call(
            func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "setdefault"), args=[name, *_]
        ):
            return name
        case ast.Subscript(value=ast.Attribute(value=ast.Name("os"), attr="environ"), slice=name):
            return name
        case ast.Compare(left=name, comparators=[ast.Attribute(attr="environ")]):
            return name
    return None


def default_of(node: ast.AST) -> object:
    """The constant in ``env(X, default=C)`` or ``os.environ.get(X) or C``; None where there is none."""
    match node:
        case ast.Call(keywords=[ast.keyword(arg="default", value=ast.Constant(value))]):
            return value
        case ast.BoolOp(op=ast.Or(), values=[ast.Call(), ast.Constant(value)]):
            return value
    return None


def trees() -> Iterator[ast.Module]:
    for name in PRODUCT:
        for path in (ROOT / name).rglob("*.py"):
            yield ast.parse(path.read_text())


def variables() -> tuple[set[str], set[str], dict[str, set[object]]]:
    """Names that the product reads, patterns of names (``WORKER_.+_PROCESSES``), and defaults by name."""
    names, patterns, defaults = set(), set(), {}
    for node in (node for tree in trees() for node in ast.walk(tree)):
        asked = in_environment(node.values[0] if isinstance(node, ast.BoolOp) else node)
        if isinstance(asked, ast.Constant) and asked.value.isupper():
            names.add(asked.value)
            if (default := default_of(node)) is not None:
                defaults.setdefault(asked.value, set()).add(default)
        elif isinstance(asked, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else ".+" for part in asked.values)
            patterns.add("".join(str(part) for part in parts))
    for name, default in re.findall(r"\$\{?([A-Z_]+)(?::-(\S+?))?\}?(?=\s|$)", (ROOT / "Procfile").read_text()):
        names.add(name)
        if default:
            defaults.setdefault(name, set()).add(default)
    return names, patterns, defaults


def test_every_variable_that_the_product_reads_is_documented_and_no_other() -> None:
    names, patterns, _ = variables()
    documented = set(rows(VARIABLES))
    assert "SECRET_KEY" in names
    assert "WEB_CONNECTIONS" in names
    assert names - documented == set()
    assert {name for name in documented - names if not any(re.fullmatch(each, name) for each in patterns)} == set()


def test_the_defaults_that_are_documented_are_the_defaults() -> None:
    cells = rows(VARIABLES)
    for name, values in variables()[2].items():
        for value in values:
            wanted = FLAGS[value] if isinstance(value, bool) else f"`{value}`" if value != "" else ("empty", "none")
            assert cells[name].startswith(wanted), (name, value)


def test_every_constant_of_ours_in_the_settings_is_documented() -> None:
    tree = ast.parse((ROOT / "botproject" / "settings.py").read_text())
    assigned = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z_]+", target.id)
    }
    others = re.compile("CELERY_(?!APP)|ROOT_URLCONF|AXES_|CONTENT_SECURITY_POLICY|WHITENOISE_")
    ours = {name for name in assigned if not hasattr(global_settings, name) and not others.match(name)}
    assert ours - set(rows(VARIABLES)) == set(rows(CONSTANTS))


def test_a_variable_that_an_app_of_heroku_asks_for_is_documented() -> None:
    import json

    asked = json.loads((ROOT / "app.json").read_text())["env"]
    assert asked.keys() - rows(VARIABLES).keys() == set()


# ---------------------------------------------------------------- links and paths


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page.read_text())):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def is_there(name: str, page: Path) -> bool:
    """A path from the root, from its page, or from an app of ours; patterns and placeholders name a kind of file."""
    if re.search(r"[<*{]|\.\.\.", name):
        return True
    places = (ROOT, page.parent, ROOT / "conversations", ROOT / "channels_ingest")
    return any((folder / name).exists() for folder in places)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(page: Path) -> None:
    text = prose(page.read_text())
    for name in re.findall(r"`([\w.<>*{}-]+(?:/[\w.<>*{}-]+)+/?)`", text):
        first, last = name.split("/")[0], name.rstrip("/").split("/")[-1]
        looks_ours = first in FOLDERS or first == "." or re.search(r"\.(py|sql|lua|md|json|svg|html|css|js)$", last)
        assert not looks_ours or name.startswith(".data") or is_there(name, page), name


@pytest.mark.parametrize(
    "page",
    [page for page in DOCUMENTS if page.name != "CHANGELOG.md"],  # which names what is gone
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_module_that_a_document_names_exists(page: Path) -> None:
    for name in re.findall(rf"`((?:{'|'.join(PRODUCT)})(?:\.\w+)+)`", prose(page.read_text())):
        parts = name.split(".")
        found = [ROOT.joinpath(*parts[:length]) for length in range(len(parts), 0, -1)]
        module = next(path for path in found if path.is_dir() or path.with_suffix(".py").exists())
        rest = parts[len(module.relative_to(ROOT).parts) :]
        file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        assert not rest or re.search(rf"\b{rest[0]}\b", file.read_text()), name


def test_the_index_lists_every_page_and_picture_of_the_documentation() -> None:
    index = ROOT / "docs" / "README.md"
    links = re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links}
    pages = {
        path
        for path in (ROOT / "docs").rglob("*")
        if path.is_file() and path.parent.name not in ("images", "reliability")
    }
    assert sorted(str(path.relative_to(ROOT)) for path in pages - listed - {index}) == []


# ---------------------------------------------------------------- promises


def test_every_promise_of_the_readme_has_its_tests_in_the_architecture() -> None:
    readme, architecture = ((ROOT / name).read_text() for name in ("README.md", "ARCHITECTURE.md"))
    promised = re.findall(r"^(\d+)\. ", readme[readme.index("## What is promised") :].split("\n## ")[0], re.M)
    assert promised == [str(number) for number in range(1, 9)]
    table = architecture[architecture.index("## The promises") :].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|(.*)$", table, re.M)
    held = {number: re.findall(r"`(test_\w+)`", tests) for number, tests in rows}
    assert sorted(held) == promised
    assert all(held.values())


def test_the_bot_of_the_readme_hands_over_by_its_own_button_and_by_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conversations.registry.bot", lambda name: lambda function: function)
    made: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[0], made)
    for payload, text in (("", "Agent"), ("agent", "A person, please")):
        turn = mock.Mock(state={}, message=mock.Mock(payload=payload, text=text))
        made["orders"](turn)
        turn.hand_over.assert_called_once()


def test_the_first_deployment_tells_the_platform_where_to_post() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    commands = text[text.index("## First time") :].split("```")[1]
    assert commands.index("add_channel telegram") < commands.index("register_webhook")


# ---------------------------------------------------------------- platforms


def test_the_readme_says_of_the_platforms_what_their_adapters_say() -> None:
    """`make platforms` writes the table."""
    made = runpy.run_path(str(ROOT / ".ci" / "platforms.py"))
    assert made["BEGIN"] + "\n" + made["table"]() + "\n" + made["END"] in (ROOT / "README.md").read_text()


# ---------------------------------------------------------------- security


def test_every_row_of_the_limits_names_a_test_and_each_is_there() -> None:
    limits = (ROOT / "docs" / "security.md").read_text().split("\n## Limits\n")[1].split("\n## ")[0]
    cells = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", limits, re.M)][1:]
    there = {name for path in (ROOT / "tests").rglob("test_*.py")
             for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)}  # fmt: skip
    named = {row[0]: set(re.findall(r"`(test_\w+)`", row[-1])) for row in cells}
    assert len(named) == len(cells) > 20, "no limit has two rows"
    missing = {what: sorted(tests - there) or "no test" for what, tests in named.items()}
    assert {what: why for what, why in missing.items() if not named[what] or named[what] - there} == {}
